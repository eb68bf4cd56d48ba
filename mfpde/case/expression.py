"""Expressions of a case file, such as "cos(pi*theta/6)**2 * (abs(theta) < 3)": parsed into a small tree, never run.

The text goes through ``ast`` once and a whitelist turns it into numbers, variables and operations. Values and exact
derivatives are NumPy operations on that tree. Where a function has a kink or a jump, the derivative is that of the
branch taken (the first one at a tie), and zero for abs at 0 and for steps.
"""

import ast
import difflib
import keyword
import math
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mfpde.arrays import BoolArray, FloatArray

MAX_LENGTH = 1000
MAX_NODES = 200
MAX_DEPTH = 50

_CONSTANTS = {"pi": math.pi, "e": math.e}


class ExpressionError(ValueError):
    """A text that is not an allowed expression; the message says why, at which column, and what is allowed."""


# --- the tree ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Number:
    """A finite constant."""

    value: float


@dataclass(frozen=True)
class _Variable:
    """The variable of one column of the points."""

    column: int


@dataclass(frozen=True)
class _Apply:
    """An operation of ``_OPERATIONS`` on its arguments."""

    operation: str
    arguments: tuple["_Node", ...]


@dataclass(frozen=True)
class _Compare:
    """A chain of comparisons, such as a < b <= c: one sign fewer than arguments."""

    signs: tuple[str, ...]
    arguments: tuple["_Node", ...]


_Node: TypeAlias = _Number | _Variable | _Apply | _Compare


# --- operations and their derivatives ---------------------------------------------------------------------------------

_Partial: TypeAlias = Callable[..., FloatArray | BoolArray]
_SAME: BoolArray = np.asarray(True)
_OPPOSITE: FloatArray = np.asarray(-1.0)


@dataclass(frozen=True)
class _Operation:
    """A value of the arguments, and per argument a partial derivative of (*arguments, value).

    A partial derivative is None where it is zero everywhere, and boolean where it selects the argument.
    """

    value: Callable[..., FloatArray]
    partials: tuple[_Partial | None, ...]


def _erf(x: FloatArray) -> FloatArray:
    """The error function; SciPy is loaded on first use."""
    from scipy.special import erf

    return np.asarray(erf(x), dtype=np.float64)


def _power_by_base(x: FloatArray, y: FloatArray, _: FloatArray) -> FloatArray:
    """∂(x**y)/∂x without a logarithm: finite at x = 0 for y >= 1 and at negative x for integer y; 0 for y = 0."""
    return np.where(y == 0.0, 0.0, y * np.power(x, y - 1.0))


def _power_by_exponent(x: FloatArray, _: FloatArray, power: FloatArray) -> FloatArray:
    """∂(x**y)/∂y, with the limit 0 where x**y is 0."""
    return np.where(power == 0.0, 0.0, power * np.log(x))


def _over_length(x: FloatArray, length: FloatArray) -> FloatArray:
    """Component x of the gradient of a length: x / length, and 0 at the kink, where the length is 0."""
    return np.where(length == 0.0, 0.0, x / length)


def _choice(condition: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """``first`` where the condition is not zero, else ``second``; a nan of the other one does not count."""
    return np.where(condition != 0.0, first, second)


def _truth(function: Callable[..., Any], arguments: int) -> _Operation:
    """A logical operation: 1 where ``function`` is true and else 0, with zero derivatives."""
    return _Operation(lambda *x: function(*x).astype(np.float64), (None,) * arguments)


_FUNCTIONS: dict[str, _Operation] = {
    "abs": _Operation(np.abs, (lambda x, r: np.sign(x),)),
    "sqrt": _Operation(np.sqrt, (lambda x, r: 0.5 / r,)),
    "exp": _Operation(np.exp, (lambda x, r: r,)),
    "log": _Operation(np.log, (lambda x, r: 1.0 / x,)),
    "log1p": _Operation(np.log1p, (lambda x, r: 1.0 / (1.0 + x),)),
    "expm1": _Operation(np.expm1, (lambda x, r: np.exp(x),)),
    "sin": _Operation(np.sin, (lambda x, r: np.cos(x),)),
    "cos": _Operation(np.cos, (lambda x, r: -np.sin(x),)),
    "tan": _Operation(np.tan, (lambda x, r: 1.0 + r * r,)),
    "arcsin": _Operation(np.arcsin, (lambda x, r: 1.0 / np.sqrt((1.0 - x) * (1.0 + x)),)),
    "arccos": _Operation(np.arccos, (lambda x, r: -1.0 / np.sqrt((1.0 - x) * (1.0 + x)),)),
    "arctan": _Operation(np.arctan, (lambda x, r: 1.0 / (1.0 + x * x),)),
    "sinh": _Operation(np.sinh, (lambda x, r: np.cosh(x),)),
    "cosh": _Operation(np.cosh, (lambda x, r: np.sinh(x),)),
    "tanh": _Operation(np.tanh, (lambda x, r: 1.0 / np.cosh(x) ** 2,)),
    "erf": _Operation(_erf, (lambda x, r: 2.0 / math.sqrt(math.pi) * np.exp(-x * x),)),
    "sign": _Operation(np.sign, (None,)),
    "floor": _Operation(np.floor, (None,)),
    "ceil": _Operation(np.ceil, (None,)),
    "heaviside": _Operation(lambda x: 0.5 + 0.5 * np.sign(x), (None,)),
    "hypot": _Operation(np.hypot, (lambda x, y, r: _over_length(x, r), lambda x, y, r: _over_length(y, r))),
    "arctan2": _Operation(
        np.arctan2,
        (lambda y, x, r: x / np.hypot(x, y) / np.hypot(x, y), lambda y, x, r: -y / np.hypot(x, y) / np.hypot(x, y)),
    ),
    "minimum": _Operation(np.minimum, (lambda a, b, r: ~(b < a), lambda a, b, r: b < a)),
    "maximum": _Operation(np.maximum, (lambda a, b, r: ~(b > a), lambda a, b, r: b > a)),
    "where": _Operation(_choice, (None, lambda c, a, b, r: c != 0.0, lambda c, a, b, r: c == 0.0)),
}

# Functions of two or more arguments, and the function of two that they repeat.
_VARIADIC = {"min": "minimum", "max": "maximum"}

_OPERATIONS: dict[str, _Operation] = {
    **_FUNCTIONS,
    "+": _Operation(np.add, (lambda a, b, r: _SAME, lambda a, b, r: _SAME)),
    "-": _Operation(np.subtract, (lambda a, b, r: _SAME, lambda a, b, r: _OPPOSITE)),
    "*": _Operation(np.multiply, (lambda a, b, r: b, lambda a, b, r: a)),
    "/": _Operation(np.divide, (lambda a, b, r: 1.0 / b, lambda a, b, r: -r / b)),
    "**": _Operation(np.power, (_power_by_base, _power_by_exponent)),
    "unary +": _Operation(np.positive, (lambda a, r: _SAME,)),
    "unary -": _Operation(np.negative, (lambda a, r: _OPPOSITE,)),
    "and": _truth(np.logical_and, 2),
    "or": _truth(np.logical_or, 2),
    "not": _truth(np.logical_not, 1),
}

_COMPARISONS: dict[str, Callable[..., Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


# --- evaluation -------------------------------------------------------------------------------------------------------

# Derivatives by column; a column that is missing has a derivative that is zero by structure.
_Tangents: TypeAlias = dict[int, FloatArray]


def _compare(signs: tuple[str, ...], values: Sequence[FloatArray]) -> FloatArray:
    """1 where every comparison of the chain holds, else 0."""
    holds = np.asarray(True)
    for sign, left, right in zip(signs, values, values[1:], strict=False):
        holds = holds & _COMPARISONS[sign](left, right)
    return holds.astype(np.float64)


def _evaluate(node: _Node, points: FloatArray) -> FloatArray:
    """Values of a node at ``points`` (N, d): (N,), or a scalar array for a constant."""
    if isinstance(node, _Number):
        return np.asarray(node.value)
    if isinstance(node, _Variable):
        return points[:, node.column]
    values = [_evaluate(argument, points) for argument in node.arguments]
    if isinstance(node, _Compare):
        return _compare(node.signs, values)
    return _OPERATIONS[node.operation].value(*values)


def _differentiate(node: _Node, points: FloatArray) -> tuple[FloatArray, _Tangents]:
    """Values of a node as in ``_evaluate``, and its derivatives by the columns that it depends on."""
    if isinstance(node, _Variable):
        return points[:, node.column], {node.column: np.asarray(1.0)}
    if not isinstance(node, _Apply):
        return _evaluate(node, points), {}
    pairs = [_differentiate(argument, points) for argument in node.arguments]
    values = [value for value, _ in pairs]
    operation = _OPERATIONS[node.operation]
    result = operation.value(*values)
    total: _Tangents = {}
    for partial, (_, tangents) in zip(operation.partials, pairs, strict=True):
        if partial is not None and tangents:
            slope = partial(*values, result)
            for column, tangent in tangents.items():
                total[column] = total.get(column, np.asarray(0.0)) + _chain(slope, tangent, result)
    return result, total


def _chain(slope: FloatArray | BoolArray, tangent: FloatArray, result: FloatArray) -> FloatArray:
    """The product slope × tangent, where a zero tangent gives zero even against inf or nan unless the result is nan."""
    if slope.dtype == np.bool_:
        return np.where(slope, tangent, 0.0)
    return np.where((tangent == 0.0) & ~np.isnan(result), 0.0, slope * tangent)


@dataclass(frozen=True)
class Expression:
    """A parsed expression of the variables ``names``, which are the columns of the points; made by ``parse``."""

    text: str
    names: tuple[str, ...]
    _tree: _Node = field(repr=False, compare=False)

    def __call__(self, points: FloatArray) -> FloatArray:
        """Values (N,) at ``points`` (N, d); nan and inf are the caller's to judge. ValueError for a wrong shape."""
        points = self._checked(points)
        with np.errstate(all="ignore"):
            return np.array(np.broadcast_to(_evaluate(self._tree, points), len(points)), dtype=np.float64)

    def gradient(self, points: FloatArray) -> FloatArray:
        """Exact derivatives (N, d) by the variables at ``points`` (N, d). ValueError for a wrong shape."""
        points = self._checked(points)
        gradient = np.zeros(points.shape)
        with np.errstate(all="ignore"):
            _, tangents = _differentiate(self._tree, points)
        for column, tangent in tangents.items():
            gradient[:, column] = tangent
        return gradient

    def _checked(self, points: FloatArray) -> FloatArray:
        """``points`` as float64 (N, d). ValueError for another shape."""
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != len(self.names):
            columns = ", ".join(self.names)
            raise ValueError(f"points must have shape (N, {len(self.names)}), columns {columns}; got {points.shape}")
        return points


# --- parsing ----------------------------------------------------------------------------------------------------------

_UNARY: dict[type[ast.unaryop], str] = {ast.UAdd: "unary +", ast.USub: "unary -", ast.Not: "not"}
_BINARY: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}

_REFUSED: dict[type[ast.AST], str] = {
    ast.BitXor: "^ is not a power: write x**y",
    ast.Mod: "% is not allowed: write x - y*floor(x/y)",
    ast.FloorDiv: "// is not allowed: write floor(x/y)",
    ast.BitAnd: "& is not allowed: write 'and'",
    ast.BitOr: "| is not allowed: write 'or'",
    ast.Invert: "~ is not allowed: write 'not'",
    ast.LShift: "<< is not allowed",
    ast.RShift: ">> is not allowed",
    ast.MatMult: "@ is not allowed",
    ast.Is: "'is' is not allowed: write ==",
    ast.IsNot: "'is not' is not allowed: write !=",
    ast.In: "'in' is not allowed",
    ast.NotIn: "'not in' is not allowed",
    ast.Attribute: "a name with a dot is not allowed: write sin(x), not np.sin(x)",
    ast.Subscript: "square brackets after a name are not allowed",
    ast.List: "square brackets are not allowed: write parentheses",
    ast.Tuple: "a comma outside a function is not allowed; the decimal sign is a point",
    ast.NamedExpr: ":= is not allowed: write == to compare",
    ast.Lambda: "a lambda is not allowed",
    ast.JoinedStr: "a text is not allowed: write numbers and names without quotes",
    ast.Starred: "* before an argument is not allowed",
}

_OTHER_NAMES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atan2": "arctan2",
    "ln": "log",
    "pow": "x**y",
    "sgn": "sign",
    "step": "heaviside",
    "π": "pi",
}


def describe() -> str:
    """What an expression may hold, apart from its variables, in one line."""
    by_count = {count: ", ".join(name for name, function in _FUNCTIONS.items() if len(function.partials) == count) for count in (1, 2)}
    return (
        f"numbers, {', '.join(_CONSTANTS)}; + - * / **; {' '.join(_COMPARISONS)} (1 where true, 0 elsewhere); "
        f"and, or, not; x if condition else y; functions of one argument: {by_count[1]} (heaviside(0) is 0.5); "
        f"of two: {by_count[2]}; of two or more: {', '.join(_VARIADIC)}; where(condition, x, y)"
    )


def parse(text: str, names: Sequence[str]) -> Expression:
    """The expression that ``text`` writes in the variables ``names``. Raises ExpressionError for anything else."""
    columns = _columns(names)
    if not isinstance(text, str):
        raise ExpressionError(f"an expression must be text in quotes, got {type(text).__name__}")
    if not text.strip():
        raise ExpressionError("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {MAX_LENGTH} are allowed")
    return Expression(text, tuple(names), _Reader(text, columns).tree())


def _columns(names: Sequence[str]) -> dict[str, int]:
    """The column of each variable, by its name as ``ast`` normalises it. ExpressionError for a name of no use."""
    columns: dict[str, int] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name)
        if not plain.isidentifier() or keyword.iskeyword(plain):
            raise ExpressionError(f"the variable {name!r} cannot be written in an expression: rename it")
        if plain in _CONSTANTS or plain in _FUNCTIONS or plain in _VARIADIC:
            raise ExpressionError(f"the variable {name!r} is called like a function or constant: rename it")
        if plain in columns:
            raise ExpressionError(f"two variables are called {name!r}")
        columns[plain] = len(columns)
    return columns


class _Reader:
    """Turns one text into a tree of allowed nodes; ``columns`` gives the variables."""

    def __init__(self, text: str, columns: dict[str, int]) -> None:
        blank = text.translate({ord(c): " " for c in "\n\r\t\f"})
        self.source = blank.lstrip(" ")
        self.margin = len(blank) - len(self.source)
        self.columns = columns
        self.nodes = 0
        self.depth = 0

    def tree(self) -> _Node:
        """The whole text."""
        if "#" in self.source:
            raise self.failure("a comment (#) is not allowed", self.source.index("#"))
        return self.read(self.parsed())

    def parsed(self) -> ast.expr:
        """The tree of ``ast``; what it cannot parse, or warns of, is refused."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return ast.parse(self.source, mode="eval").body
        except SyntaxError as error:
            reason = str(error.msg).replace(" or ':='", "")
            raise self.failure(f"not an expression ({reason})", max((error.offset or 1) - 1, 0)) from None
        except (RecursionError, MemoryError):
            raise self.failure("nested too deeply", 0) from None
        except (ValueError, Warning) as error:
            raise self.failure(f"not an expression ({error})", 0) from None

    def failure(self, reason: str, place: int) -> ExpressionError:
        """The error for the character at ``place`` of the source, counted from 0."""
        variables = f"the names {', '.join(self.columns)}; " if self.columns else "no variables; "
        return ExpressionError(f"column {place + self.margin + 1}: {reason}. Allowed: {variables}{describe()}")

    def refusal(self, node: ast.expr, reason: str) -> ExpressionError:
        """The error at ``node``."""
        return self.failure(reason, self.place(node.col_offset))

    def place(self, offset: int | None) -> int:
        """The character at an offset of ``ast``, which counts bytes of UTF-8."""
        return len(self.source.encode()[:offset].decode(errors="ignore"))

    def behind(self, node: ast.expr) -> int:
        """The place of the operator behind ``node``."""
        rest = self.source[self.place(node.end_col_offset) :]
        return len(self.source) - len(rest.lstrip(" )"))

    def read(self, node: ast.expr) -> _Node:
        """A node and all below it, within the bounds."""
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES:
            raise self.refusal(node, f"more than {MAX_NODES} numbers, names and operations")
        if self.depth > MAX_DEPTH:
            raise self.refusal(node, f"nested more than {MAX_DEPTH} deep, a sum of n terms being n deep")
        result = self.translate(node)
        self.depth -= 1
        return result

    def translate(self, node: ast.expr) -> _Node:
        """A node by its kind: the whitelist."""
        match node:
            case ast.Constant():
                return self.number(node)
            case ast.Name():
                return self.name(node)
            case ast.UnaryOp():
                return self.apply(self.allowed(node.op, _UNARY, self.place(node.col_offset)), node.operand)
            case ast.BinOp():
                return self.apply(self.allowed(node.op, _BINARY, self.behind(node.left)), node.left, node.right)
            case ast.BoolOp():
                return _fold("and" if isinstance(node.op, ast.And) else "or", [self.read(v) for v in node.values])
            case ast.Compare():
                return self.comparison(node)
            case ast.IfExp():
                return self.apply("where", node.test, node.body, node.orelse)
            case ast.Call():
                return self.call(node)
        raise self.refusal(node, _REFUSED.get(type(node), f"this is not allowed ({type(node).__name__})"))

    def comparison(self, node: ast.Compare) -> _Compare:
        """A chain of comparisons."""
        operands = [node.left, *node.comparators]
        signs = [self.allowed(s, _SIGNS, self.behind(left)) for s, left in zip(node.ops, operands, strict=False)]
        return _Compare(tuple(signs), tuple(self.read(operand) for operand in operands))

    def allowed(self, sign: ast.AST, table: dict[Any, str], place: int) -> str:
        """The operation of ``table`` that ``sign`` stands for."""
        if type(sign) not in table:
            raise self.failure(_REFUSED[type(sign)], place)
        return table[type(sign)]

    def apply(self, operation: str, *arguments: ast.expr) -> _Apply:
        """An operation on arguments that are still to be read."""
        return _Apply(operation, tuple(self.read(argument) for argument in arguments))

    def number(self, node: ast.Constant) -> _Number:
        """A finite real literal, as a float."""
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise self.refusal(node, f"{_clip(repr(node.value))} is not a real number")
        try:
            value = float(node.value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.refusal(node, "the number is too large")
        return _Number(value)

    def name(self, node: ast.Name) -> _Node:
        """A variable or a constant."""
        if node.id in self.columns:
            return _Variable(self.columns[node.id])
        if node.id in _CONSTANTS:
            return _Number(_CONSTANTS[node.id])
        if node.id in _FUNCTIONS or node.id in _VARIADIC:
            raise self.refusal(node, f"{node.id} is a function: write {node.id}(...)")
        raise self.refusal(node, f"unknown name {_clip(node.id)!r}{self.nearest(node.id)}")

    def call(self, node: ast.Call) -> _Node:
        """A known function of as many plain arguments as it takes."""
        name = self.function(node)
        if node.keywords:
            raise self.refusal(node, f"{name} takes no argument with a name")
        count = len(node.args)
        if name in _VARIADIC:
            if count < 2:
                raise self.refusal(node, f"{name} takes 2 or more arguments, got {count}")
            return _fold(_VARIADIC[name], [self.read(argument) for argument in node.args])
        arity = len(_FUNCTIONS[name].partials)
        if count != arity:
            raise self.refusal(node, f"{name} takes {arity} argument{'s' if arity > 1 else ''}, got {count}")
        return self.apply(name, *node.args)

    def function(self, node: ast.Call) -> str:
        """The name of a known function that ``node`` calls."""
        called = node.func
        if isinstance(called, ast.Attribute):
            raise self.refusal(node, _REFUSED[ast.Attribute])
        if not isinstance(called, ast.Name) or called.id in self.columns or called.id in _CONSTANTS:
            raise self.refusal(node, "only a function can stand before parentheses: write * to multiply")
        if called.id not in _FUNCTIONS and called.id not in _VARIADIC:
            raise self.refusal(node, f"unknown function {_clip(called.id)!r}{self.nearest(called.id)}")
        return called.id

    def nearest(self, name: str) -> str:
        """A suggestion for an unknown name, or nothing."""
        known = [*self.columns, *_CONSTANTS, *_FUNCTIONS, *_VARIADIC]
        close = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, known, n=1)
        return f" (did you mean {close[0]}?)" if close else ""


def _fold(operation: str, nodes: list[_Node]) -> _Node:
    """An operation of two arguments over many, as a balanced tree that keeps their order."""
    if len(nodes) == 1:
        return nodes[0]
    half = len(nodes) // 2
    return _Apply(operation, (_fold(operation, nodes[:half]), _fold(operation, nodes[half:])))


def _clip(text: str) -> str:
    """``text``, shortened for a message."""
    return text if len(text) <= 40 else text[:37] + "..."
