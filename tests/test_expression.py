import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from mfpde.case import expression
from mfpde.case.expression import Expression, ExpressionError, describe, parse

NAMES = ("x", "y")

NUMPY = {
    **{name: getattr(np, name) for name in expression._FUNCTIONS if hasattr(np, name)},
    "erf": erf,
    "pi": np.pi,
    "e": np.e,
    "min": np.minimum,
    "max": np.maximum,
    "heaviside": lambda x: np.heaviside(x, 0.5),
}

# One smooth use of every function, with x in (0.1, 0.9) and y in (0.1, 0.9); the second list has kinks and jumps off
# the points that are drawn.
SMOOTH = [
    "sqrt(x)",
    "exp(x*y)",
    "log(x + y)",
    "log1p(x)*y",
    "expm1(x)",
    "sin(x*y)",
    "cos(3*x)",
    "tan(x)",
    "arcsin(x)",
    "arccos(x*y)",
    "arctan(2*x)",
    "sinh(x)",
    "cosh(x - y)",
    "tanh(3*x)",
    "erf(x/y)",
    "hypot(x, 2*y)",
    "arctan2(y, x - 0.5)",
    "x**y",
    "2**x",
    "x**3.5",
    "(x - 2)**3",
    "x**-2",
    "x/y",
    "-x + +y - x*y",
    "cos(pi*x/6)**2 * (abs(x) < 3)",
]
BROKEN = [
    "abs(x - 0.5)",
    "sign(x - 0.5)*y",
    "floor(3*x)*y",
    "ceil(3*x)*y",
    "heaviside(x - y)*x",
    "minimum(x, y)",
    "maximum(x**2, y)",
    "min(x, y, 0.5)",
    "max(x, y, 0.5, x*y)",
    "where(x < y, x**2, y)",
    "x*y if x > y else 3",
    "(x < y)*x",
    "(0.2 < x <= 0.7)*x",
    "(x > 0.5 and y > 0.5 or not x > 0.2)*y",
]

HOSTILE = [
    "",
    "   ",
    "\n",
    "x^2",
    "x % 2",
    "x // 2",
    "x & 1",
    "x | 1",
    "~x",
    "x << 2",
    "x @ y",
    "x is y",
    "x in y",
    "x = 1",
    "(z := 1)",
    "x; y",
    "x, y",
    "0,5",
    "2x",
    "1if x else 2",
    "x(3)",
    "x y",
    "sin",
    "sin x",
    "sin()",
    "sin(x, y)",
    "sin(x=1)",
    "sin(*x)",
    "where(x, y)",
    "min(x)",
    "hypot(x)",
    "print(x)",
    "eval('x')",
    "open('/etc/passwd')",
    "__import__('os')",
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "x.real",
    "np.sin(x)",
    "x[0]",
    "[x]",
    "{x}",
    "{1: x}",
    "[x for x in y]",
    "lambda: 1",
    "(lambda: 1)()",
    "(yield)",
    "await x",
    "*x",
    "'x'",
    "b'x'",
    "f'{x}'",
    "f'{x!r:>{y}}'",
    "True",
    "None",
    "...",
    "1j",
    "1e999",
    "-1e999",
    "9" * 400,
    "z",
    "x +",
    ")(",
    "(" * 500,
    "(" * 400 + "x" + ")" * 400,
    "-" * 999 + "x",
    "not " * 200 + "x",
    "2**" * 300 + "2",
    "x" + "+x" * 400,
    "sin(" * 60 + "x" + ")" * 60,
    "max(" + "x," * 300 + "x)",
    "x" * 1000,
    "x " * 600,
    "x\0",
    "x # comment",
    "x \\",
    "\ud800",
    "\ufeffx",
    "import os",
    "'''",
]


def points(count: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (count, 2))


def value(text: str, *row: float) -> float:
    return float(parse(text, NAMES[: len(row)])(np.array([row]))[0])


def slope(text: str, *row: float) -> list[float]:
    return parse(text, NAMES[: len(row)]).gradient(np.array([row]))[0].tolist()


def by_numpy(text: str, at: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        found = eval(text, {"__builtins__": {}, **NUMPY}, {"x": at[:, 0], "y": at[:, 1]})
    return np.broadcast_to(np.asarray(found, dtype=float), len(at))


def central(function: Expression, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    shifts = step * np.eye(2)
    return np.stack([(function(at + shift) - function(at - shift)) / (2 * step) for shift in shifts], axis=1)


def test_the_examples_use_every_function():
    used = " ".join(SMOOTH + BROKEN)
    assert all(f"{name}(" in used for name in [*expression._FUNCTIONS, "min", "max"])


@pytest.mark.parametrize("text", SMOOTH + BROKEN[:7] + ["where(x < y, x**2, y)", "(x < y)*x"])
def test_values_agree_with_numpy(text):
    np.testing.assert_allclose(parse(text, NAMES)(points()), by_numpy(text, points()), rtol=1e-14)


@pytest.mark.parametrize("text", SMOOTH + BROKEN)
def test_gradients_agree_with_central_differences(text):
    function = parse(text, NAMES)
    np.testing.assert_allclose(function.gradient(points()), central(function, points()), rtol=1e-6, atol=1e-7)


LEAVES = st.sampled_from(["x", "y", "2", "0.5", "pi", "(x + y)", "(1 - x*y)"])
TREES = st.recursive(
    LEAVES,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["+", "-", "*"]), part).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["sin", "cos", "tanh", "arctan", "erf", "abs"]), part).map(lambda t: f"{t[0]}({t[1]})"),
        part.map(lambda p: f"(1 + {p}**2)"),
        st.tuples(part, part).map(lambda t: f"({t[0]} / (1 + {t[1]}**2))"),
        st.tuples(part, part).map(lambda t: f"hypot({t[0]}, 1 + {t[1]})"),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_any_expression_has_the_value_that_numpy_gives_and_its_derivative(text):
    at = points(5)
    function = parse(text, NAMES)
    np.testing.assert_allclose(function(at), by_numpy(text, at), rtol=1e-12, atol=1e-12)
    scale = 1.0 + np.max(np.abs(function(at))) + np.max(np.abs(function.gradient(at)))
    step = 1e-6
    sides = [[(function(at + s) - function(at)) / step, (function(at) - function(at - s)) / step] for s in step * np.eye(2)]
    forward, backward = np.moveaxis(np.array(sides), 0, -1)
    smooth = np.abs(forward - backward) < 1e-3 * scale
    wrong = np.abs(function.gradient(at) - 0.5 * (forward + backward)) > 1e-4 * scale
    assert not np.any(wrong & smooth)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="xy01.e+-*/()<>=, andorsiminfl^#\n\0'θ²", max_size=30))
def test_any_text_gives_an_expression_or_its_error(text):
    try:
        found = parse(text, NAMES)
    except ExpressionError:
        return
    assert found(points(3)).shape == (3,)
    assert found.gradient(points(3)).shape == (3, 2)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_not_on_the_list_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(ExpressionError):
        parse(text, NAMES)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize("text", [3, 1.5, None, b"x", ["x"], True])
def test_what_is_not_text_is_refused(text):
    with pytest.raises(ExpressionError, match="text in quotes"):
        parse(text, NAMES)


@pytest.mark.parametrize("name", ["sin", "pi", "e", "min", "where", "lambda", "True", "w-1", "", "ｅ", "1x"])
def test_a_variable_called_like_something_else_is_refused(name):
    with pytest.raises(ExpressionError, match="rename"):
        parse("1", ["x", name])


def test_two_variables_of_one_name_are_refused():
    with pytest.raises(ExpressionError, match="two variables"):
        parse("x", ["x", "x"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 + theat", r"column 5: unknown name 'theat' \(did you mean theta\?\)"),
        ("sinn(theta)", r"column 1: unknown function 'sinn' \(did you mean sin"),
        ("  atan(theta)", r"column 3: unknown function 'atan' \(did you mean arctan"),
        ("1 +\n (theta) ^ 2", r"column 14: \^ is not a power: write x\*\*y"),
        ("théta0 + 1", "column 1: unknown name"),
        ("theta < 2 & theta", r"column 11: & is not allowed: write 'and'"),
        ("theta == 1 is theta", "column 12: 'is'"),
        ("cos(theta) + np.sin(theta)", "column 14: a name with a dot"),
        ("1 + sin", "column 5: sin is a function"),
        ("3(theta)", r"write \* to multiply"),
        ("0,5", "the decimal sign is a point"),
        ("hypot(theta)", "hypot takes 2 arguments, got 1"),
        ("exp(1, 2)", "exp takes 1 argument, got 2"),
    ],
)
def test_a_message_says_what_is_wrong_and_where(text, said):
    with pytest.raises(ExpressionError, match=said):
        parse(text, ["theta"])


def test_a_column_counts_characters_and_not_bytes():
    with pytest.raises(ExpressionError, match="column 5: unknown name 'q'"):
        parse("θ + q", ["θ"])


def test_a_message_lists_names_and_functions():
    with pytest.raises(ExpressionError, match=r"Allowed: the names theta, w1; .*arctan2"):
        parse("nothing", ["theta", "w1"])


def test_the_description_names_every_function_and_operator():
    listed = describe()
    assert all(name in listed for name in [*expression._FUNCTIONS, "min", "max", "pi", "**", "<=", "and", "if"])


def test_a_comparison_counts_as_zero_or_one():
    assert [value("x < 3", 2.0), value("x < 3", 3.0), value("x <= 3", 3.0), value("x != x", 1.0)] == [1, 0, 1, 0]


def test_a_chain_of_comparisons_holds_if_every_link_holds():
    assert [value("0 < x <= 1 != 2", x) for x in (0.0, 0.5, 1.0, 2.0)] == [0, 1, 1, 0]


def test_and_or_and_not_give_zero_or_one_and_bind_as_in_python():
    assert [value("x > 0 and x < 2 or not x < 5", x) for x in (-1.0, 1.0, 3.0, 7.0)] == [0, 1, 0, 1]
    assert value("x and 5", 3.0) == 1
    assert value("not x", 0.0) == 1


def test_operators_bind_as_in_python():
    assert value("-x**2", 3.0) == -9
    assert value("2**3**2", 0.0) == 512
    assert value("1 - 2 - 3 / 4 * 2", 0.0) == -2.5


def test_min_and_max_take_many_arguments():
    assert value("min(3, x, 5, 2) + max(1, x, 7)", 2.5) == 9


def test_integers_are_read_as_floats():
    assert value("1/2 + 10**20", 0.0) == 1e20
    assert value("2**-1", 0.0) == 0.5


def test_a_constant_expression_has_one_value_per_point():
    function = parse("2*pi", ["x", "y"])
    np.testing.assert_array_equal(function(np.zeros((4, 2))), np.full(4, 2 * np.pi))
    np.testing.assert_array_equal(function.gradient(np.zeros((4, 2))), np.zeros((4, 2)))


def test_no_points_give_no_values():
    assert parse("x", NAMES)(np.zeros((0, 2))).shape == (0,)
    assert parse("x", NAMES).gradient(np.zeros((0, 2))).shape == (0, 2)


def test_values_do_not_share_memory_with_the_points():
    at = np.ones((3, 2))
    parse("x", NAMES)(at)[:] = 5.0
    assert np.all(at == 1.0)


def test_points_of_another_shape_are_refused():
    for wrong in (np.zeros(2), np.zeros((3, 1)), np.zeros((3, 3))):
        with pytest.raises(ValueError, match="shape"):
            parse("x", NAMES)(wrong)
        with pytest.raises(ValueError, match="shape"):
            parse("x", NAMES).gradient(wrong)


def test_greek_names_and_their_variants_are_one_variable():
    assert parse("cos(θ)", ["θ"])(np.zeros((1, 1)))[0] == 1.0
    assert parse("ϑ + θ", ["ϑ"])(np.ones((1, 1)))[0] == 2.0


def test_lines_and_tabs_separate_like_spaces():
    assert value("\n  x +\r\n\t1\n", 2.0) == 3.0


def test_an_expression_survives_pickling():
    function = parse("where(0 < x < 1, erf(x)*y, min(x, y, 2))", NAMES)
    again = pickle.loads(pickle.dumps(function))
    assert again == function
    assert (again.text, again.names) == (function.text, NAMES)
    np.testing.assert_array_equal(again(points()), function(points()))
    np.testing.assert_array_equal(again.gradient(points()), function.gradient(points()))


def test_a_division_by_zero_is_left_to_the_caller(recwarn):
    assert value("1/x", 0.0) == np.inf
    assert np.isnan(value("0/x", 0.0))
    assert np.isnan(value("(-8)**(1/3) + x", 0.0))
    assert np.isnan(value("log(-1)", 0.0))
    assert value("1/0", 0.0) == np.inf
    assert value("10**10**10", 0.0) == np.inf
    assert not recwarn


def test_a_constant_power_has_a_derivative_at_zero_and_below():
    assert slope("x**2", 0.0) == [0]
    assert slope("x**1", 0.0) == [1]
    assert slope("x**1.5", 0.0) == [0]
    assert slope("x**0", 0.0) == [0]
    assert slope("x**3", -2.0) == [12]
    assert slope("x**(4/2)", -2.0) == [-4]
    assert slope("x**-1", -2.0) == [-0.25]
    assert slope("x**0.5", 0.0) == [np.inf]
    assert slope("x**floor(2 + y)", -3.0, 0.5) == [-6, 0]


def test_a_power_whose_exponent_varies_has_both_derivatives():
    np.testing.assert_allclose(slope("x**y", 2.0, 3.0), [12, 8 * np.log(2)])
    assert slope("x**y", 0.0, 2.0) == [0, 0]
    assert slope("x**(2 + 0*y)", -1.0, 2.0) == [-2, 0]


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("abs(x)", (0.0,), [0]),
        ("abs(x)**0.5", (0.0,), [0]),
        ("sqrt(x**2)", (0.0,), [0]),
        ("sqrt(x**2 + y**2)", (0.0, 0.0), [0, 0]),
        ("hypot(x, y)", (0.0, 0.0), [0, 0]),
        ("sqrt(x)*y", (0.0, 2.0), [np.inf, 0]),
        ("max(x, 0)", (0.0,), [1]),
        ("min(x, 2*x, 3*x)", (0.0,), [1]),
        ("max(0, x)", (0.0,), [0]),
        ("floor(x) + sign(x) + heaviside(x)", (0.0,), [0]),
        ("x < 0", (0.0,), [0]),
        ("sqrt(max(1 - x**2, 0))", (2.0,), [0]),
        ("arccos(min(x, 1))", (2.0,), [0]),
        ("exp(x)*0", (1000.0,), [np.nan]),
        ("y*exp(-x)", (800.0, 3.0), [0, 0]),
    ],
)
def test_a_kink_has_the_derivative_of_the_branch_taken(text, row, expected):
    np.testing.assert_allclose(slope(text, *row), expected, atol=1e-300)


@pytest.mark.parametrize("text", ["where(x > 0, sqrt(x), -x)", "sqrt(x) if x > 0 else -x", "where(x <= 0, -x, log(x)*0 + sqrt(x))"])
def test_the_branch_not_taken_does_not_leak(text):
    assert [value(text, -2.0), value(text, 0.0), value(text, 4.0)] == [2, 0, 2]
    assert [slope(text, -2.0), slope(text, 0.0), slope(text, 4.0)] == [[-1], [-1], [0.25]]


def test_a_long_chain_of_nested_comparisons_costs_no_more_than_its_nodes():
    text = "x"
    for _ in range(45):
        text = f"0 < ({text}) < 2"
    start = time.perf_counter()
    parse(text, ["x"]).gradient(np.ones((10, 1)))
    assert time.perf_counter() - start < 1.0


def test_the_largest_expressions_are_accepted():
    assert value("+".join(["x"] * 50), 1.0) == 50
    assert value("max(" + ",".join(["x"] * 190) + ")", 1.0) == 1
    assert value("(" * 100 + "x" + ")" * 100, 1.0) == 1
    assert value("1" + " " * 999, 1.0) == 1
