"""Orders of minimising movements in their time step: measured, told apart from what the grid leaves, and carried out by the command."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mfpde.arrays import FloatArray
from mfpde.energy import Entropy, Power
from mfpde.energy.base import Energy, EnergySum
from mfpde.figures import draw_time_step
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Certificate, Run, Status
from mfpde.solvers import Characteristics, MinimizingMovement
from mfpde.study.references import ExactDensity, OtherRun, Reference
from mfpde.study.refinement import Level
from mfpde.study.time_step import ALLOWANCES, Family, TimeStepStudy, measure_family, time_step_study
from mfpde.study.time_step_text import orders_missed, time_step_text
from tests.command import call
from tests.conftest import alone, box, line, network, quadratic

STEPS = (0.1, 0.05, 0.025, 0.0125)
NORMS = ("l1", "w2", "loss")


def cosine(p: FloatArray) -> FloatArray:
    return np.asarray(np.cos(np.pi * p[:, 0] / 6.0) ** 2 * (np.abs(p[:, 0]) < 3.0))


def barenblatt(p: FloatArray, t: float) -> FloatArray:
    """ρ_t = (ρ²)_xx, of mass one."""
    s = 1.0 + t
    return np.asarray(np.maximum(3.0 ** (1.0 / 3.0) / 4.0 - p[:, 0] ** 2 / 12.0 * s ** (-2.0 / 3.0), 0.0) * s ** (-1.0 / 3.0))


def gaussian(p: FloatArray, t: float) -> FloatArray:
    """Ornstein–Uhlenbeck at temperature ½ from the deviation 1.3."""
    square = 1.3**2 * math.exp(-2.0 * t) + 0.5 * (1.0 - math.exp(-2.0 * t))
    return np.asarray(np.exp(-0.5 * p[:, 0] ** 2 / square) / math.sqrt(2.0 * math.pi * square))


def tanh_student() -> Problem:
    domain = line(-4.5, 4.5)
    return Problem(alone(network(domain), "network"), domain, DensityFunction(cosine, domain), (1.0,))


def porous_medium() -> Problem:
    domain = line(-5.0, 5.0)
    return Problem(alone(Power(2.0), "porous"), domain, DensityFunction(lambda p: barenblatt(p, 0.0), domain), (1.0,))


def fokker_planck() -> Problem:
    domain = line(-8.0, 8.0)
    terms: dict[str, Energy] = {"noise": Entropy(0.5), "well": quadratic()}
    return Problem(EnergySum(terms), domain, DensityFunction(lambda p: gaussian(p, 0.0), domain), (1.0,))


def printed(found: Family, name: str = "the solution") -> str:
    text = time_step_text(TimeStepStudy((found,), (1.0,), name))
    print(text)
    return text


def assert_order(found: Family) -> None:
    printed(found)
    np.testing.assert_allclose(found.own.order, found.order, atol=ALLOWANCES[found.order])
    assert orders_missed(TimeStepStudy((found,), (1.0,), "")) == []


@pytest.mark.parametrize("order", [1, 2])
def test_the_order_in_tau_of_a_tanh_student(order: int) -> None:
    problem = tanh_student()
    exact = Characteristics((256,)).solve(problem)
    density = time_step_study(problem, MinimizingMovement(1.0, "quantile", (256,), 1200, order), STEPS, reference=exact)
    atoms = time_step_study(problem, MinimizingMovement(1.0, "residual", count=300, order=order), STEPS, reference=exact)
    for found in (density, atoms):
        assert_order(found)
        assert found.other is not None
        place = found.other.norms.index("loss")
        assert found.other.order[place, 0] == pytest.approx(order, abs=ALLOWANCES[order]), "against the solution itself"
    assert not atoms.other.used[0].any(), "300 atoms are not a density"  # type: ignore[union-attr]
    assert atoms.floor["w2"][0] == pytest.approx(atoms.other.error[0, 0, -1], rel=0.01)  # type: ignore[union-attr]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("problem", "exact"), [(porous_medium(), barenblatt), (fokker_planck(), gaussian)], ids=["porous", "Fokker-Planck"]
)
def test_the_order_in_tau_against_exact_densities(problem: Problem, exact: Any, order: int) -> None:
    found = time_step_study(problem, MinimizingMovement(1.0, "quantile", (256,), 1500, order), STEPS, exact=exact)
    assert_order(found)
    assert found.other is not None
    for k, norm in enumerate(NORMS):
        if int(np.sum(found.other.used[k, 0])) >= 3:
            assert found.other.order[k, 0] == pytest.approx(order, abs=2.0 * ALLOWANCES[order]), norm


@pytest.mark.parametrize(("method", "accuracy"), [("entropic", None), ("back_and_forth", 1e-7)])
def test_densities_on_cells_have_the_order_of_their_steps(method: Any, accuracy: float | None) -> None:
    problem = replace(fokker_planck(), save_at=(0.4,))
    choices = MinimizingMovement(1.0, method, (128,), accuracy=accuracy)
    assert_order(time_step_study(problem, choices, STEPS, exact=gaussian))


def test_what_the_grid_leaves_is_told_from_the_error_of_the_steps() -> None:
    problem = porous_medium()
    known = ExactDensity(barenblatt, problem.energy, problem.domain.grid((40,)))
    found = time_step_study(problem, MinimizingMovement(1.0, "quantile", (40,), 40), STEPS, exact=barenblatt, norms=("w2", "loss"))
    assert_order(found)
    finest = MinimizingMovement(1.0 / 1280.0, "quantile", (40,), 40).solve(problem)
    levels = [Level(str(k), (40,), run, 1.0, k + 1.0) for k, run in enumerate([finest, finest])]
    left = measure_family(problem.domain, "jko", 1, levels[::-1], known, ("w2", "loss"), ("w2", "loss"), (1.0,)).other
    assert left is not None
    for k, norm in enumerate(("w2", "loss")):
        print(norm, found.floor[norm][0], left.error[k, 0, -1])
        assert found.floor[norm][0] == pytest.approx(left.error[k, 0, -1], rel=0.35)
    text = printed(found)
    assert "is left at tau → 0" in text
    assert "by less than a factor 10, so left out of the fit (W2" in text
    assert found.other is not None
    assert not found.other.used[0, 0, -1]


def bell(shift: float) -> Run:
    domain = line(-5.0, 5.0)
    density = DensityFunction(lambda p: np.exp(-0.5 * (p[:, 0] - shift) ** 2), domain).on(domain.grid((400,)))
    weight = Density(density.grid, density.values / density.mass)
    return Run(np.array([1.0]), [weight], {"e": np.array([shift])}, Certificate(np.zeros((1, 9))), Status.DONE)


def shifted(steps: Sequence[float], shifts: Sequence[float], reference: Reference | None = None) -> Family:
    levels = [Level(str(step), (400,), bell(shift), 1.0, step) for step, shift in zip(steps, shifts, strict=True)]
    return measure_family(line(-5.0, 5.0), "s", 1, levels, reference, ("w2", "loss"), ("w2", "loss") if reference else (), (1.0,))


def test_errors_that_do_not_fall_any_more_are_in_no_fit_and_named() -> None:
    steps = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125)
    found = shifted(steps, (0.4, 0.2, 0.1, 0.101, 0.099, 0.0))
    assert found.stalled[:, 0].tolist() == [[False, False, False, True, True, False]] * 2
    assert found.own.used[:, 0].tolist() == [[True, True, True, False, False, False]] * 2
    assert "do not fall any more" in printed(found)
    clean = shifted(steps, steps)
    assert not clean.stalled.any()
    np.testing.assert_allclose(clean.own.order, 1.0, atol=1e-3)


@pytest.mark.parametrize("rest", [-0.03, -0.007, 0.007, 0.03, 0.2])
def test_a_rest_of_either_sign_is_found(rest: float) -> None:
    steps = (0.1, 0.05, 0.025, 0.0125, 0.00625)
    found = shifted(steps, steps, OtherRun(bell(-rest), "beside"))
    assert [found.floor[norm][0] for norm in ("w2", "loss")] == pytest.approx([abs(rest)] * 2, rel=0.02)
    assert found.other is not None
    np.testing.assert_array_equal(found.other.used[0, 0], found.other.error[0, 0] > 10.0 * found.floor["w2"][0])


def test_runs_that_are_all_alike_show_no_order() -> None:
    still = shifted(STEPS, [0.0] * 4)
    assert len(orders_missed(TimeStepStudy((still,), (1.0,), ""))) == 2
    assert "all steps lead to the same measure" in printed(still)
    uneven = shifted(STEPS, (0.02, 0.025, 0.018, 0.0))
    assert "how exactly steps are minimised (`accuracy`)" in printed(uneven)


def test_without_a_rest_all_errors_are_those_of_the_steps() -> None:
    found = shifted(STEPS, STEPS, OtherRun(bell(0.0), "limit"))
    assert found.other is not None
    assert found.other.used.all()
    np.testing.assert_allclose(found.other.order, 1.0, atol=1e-3)


def test_atoms_in_the_plane_are_measured_atom_by_atom() -> None:
    domain = box(2)
    start = Particles.equal(np.random.default_rng(0).standard_normal((40, 2)))
    problem = Problem(alone(quadratic(), "well"), domain, start, (0.5,))
    found = time_step_study(problem, MinimizingMovement(1.0, "residual"), STEPS)
    assert found.own.methods == ("exact, atom by atom",)
    exact = math.hypot(*(np.sqrt(np.mean(start.points**2, axis=0)) * (1.05**-10 - 1.0125**-40)))
    assert found.own.error[0, 0, 1] == pytest.approx(exact, rel=1e-10)
    np.testing.assert_allclose(found.own.order, 1.0, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": [0.1, 0.1]}, "two or more different steps"),
        ({"norms": ("l3",)}, "the norms must be some of"),
        ({"times": [0.3]}, "the times must be some of"),
        ({"norms": ("l1",)}, "densities on a grid, not particles"),
    ],
)
def test_a_study_of_what_there_is_not_is_refused(changes: dict[str, Any], says: str) -> None:
    problem = Problem(alone(quadratic(), "well"), line(), Particles.equal(np.array([[1.0], [2.0]])), (0.2,))
    with pytest.raises(ValueError, match=says):
        time_step_study(problem, MinimizingMovement(1.0, "residual"), **({"steps": [0.1, 0.05]} | changes))


@pytest.mark.filterwarnings("error")
def test_the_figure_has_a_panel_for_each_norm(tmp_path: Path) -> None:
    study = TimeStepStudy((shifted(STEPS, STEPS, OtherRun(bell(0.01), "limit")),), (1.0,), "limit")
    (path,) = draw_time_step(study, "Bells", tmp_path)
    assert path.name == "study-time-step.png"
    assert path.stat().st_size > 5000
    nothing = TimeStepStudy((shifted(STEPS, [0.0] * 4),), (1.0,), "")
    assert draw_time_step(nothing, "", tmp_path) == []


# --- the command ------------------------------------------------------------------------------------------------------

CASE = """title = "Well"

[domain.x]
lower = -8.0
upper = 8.0

[[energy]]
kind = "entropy"
temperature = 0.5

[[energy]]
kind = "potential"
density = "x**2/2"

[initial]
density = "exp(-x**2/2/1.69)"

[time]
save = [0.0, 0.2, 0.4]

[[solver]]
kind = "jko"
label = "q"
tau = 0.1
cells = [64]
count = 300

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [128]

[[solver]]
kind = "finite_volume"
label = "odd"
cells = [100]

[study]
kind = "time_step"
steps = [0.05, 0.025, 0.0125]
orders = [1, 2]
exact = "exp(-x**2/2/(0.5 + 1.19*exp(-2*t)))/sqrt(2*pi*(0.5 + 1.19*exp(-2*t)))"
"""


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "well.toml"
    path.write_text(CASE)
    return path


def test_the_command_writes_tables_files_and_a_figure_and_resumes(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("study", case, "--output", out)
    assert (answer.code, answer.err) == (0, ""), answer.err
    runs = {f"q-order{order}-tau{tau}.h5" for order in (1, 2) for tau in (0.05, 0.025, 0.0125)}
    assert {path.name for path in (out / "study").iterdir()} == runs
    assert {path.name for path in out.iterdir()} == {"study", "study.json", "study.csv", "study.h5", "study-time-step.png"}
    assert answer.out.count("expected 1 ± 0.1: yes") == 3
    assert answer.out.count("expected 2 ± 0.2: yes") == 3
    assert "against the exact density: " in answer.out
    data = json.loads((out / "study.json").read_text())
    assert [(found["solver"], found["order"]) for found in data["families"]] == [("q", 1), ("q", 2)]
    results = data["families"][0]["against_finest"]["results"]
    rows = list(csv.DictReader((out / "study.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 2 * 3 * 3
    mine = [row for row in rows if (row["order"], row["against"], row["norm"]) == ("1", "finest", "w2")]
    wanted = next(found for found in results if found["norm"] == "w2")
    assert [row["error"] for row in mine] == ["" if error is None else repr(error) for error in wanted["error"]]
    with h5py.File(out / "study.h5") as file:
        place = list(file["norm"].asstr()).index("w2")
        assert file["order"][0, 0, place, 0] == wanted["order"]["value"]
        assert file["floor"][0, 1, place, 0] == data["families"][0]["floor"]["w2"][0]
    again = call("study", case, "--output", out, "--no-figures", "--resume")
    assert again.out.count("complete already") == 6
    finer = call("study", case, "--output", out, "--no-figures", "--resume", "--set", "study.steps=[0.025, 0.0125, 0.00625]")
    assert finer.out.count("complete already") == 4


def test_another_run_is_the_reference_where_its_cells_divide_or_not(case: Path, tmp_path: Path) -> None:
    fine = call("study", case, "--output", tmp_path / "a", "--no-figures", "--set", "study.reference=fv", "study.orders=[1]")
    assert fine.code == 0
    assert "the exact density is not used" in fine.out
    assert fine.out.count("against fv: ") == 3
    odd = call("study", case, "--output", tmp_path / "b", "--no-figures", "--set", "study.reference=odd", "study.orders=[1]")
    assert odd.code == 0
    assert "q: no l1 and l2 against odd: [64] cells do not divide its [100]" in odd.out
    assert odd.out.count("      against odd: ") == 2


def test_a_missed_order_gives_exit_code_3(case: Path, tmp_path: Path) -> None:
    setting = ("study.expected={w2 = 3.0}", "study.orders=[1]", "study.reference=finest")
    answer = call("study", case, "--output", tmp_path / "out", "--no-figures", "--set", *setting)
    assert answer.code == 3
    assert answer.err.startswith("mfpde: expected order missed: q, order 1: W2 at t = 0.4: order 0.9")


def test_check_describes_the_study(case: Path) -> None:
    answer = call("check", case)
    assert answer.code == 0
    words = "orders in tau of q (order 1), q (order 2): tau = 0.05, 0.025, 0.0125; against the finest step and the exact density at t = 0.4"
    assert words in answer.out


WRONG = {
    "no steps": ("study.steps=[0.1, 0.05]", "study.steps: must have at least 3 elements, got [0.1, 0.05]"),
    "a step twice": ("study.steps=[0.1, 0.1, 0.05]", "study: `steps` holds one of its elements twice"),
    "a step that does not divide": (
        "study.steps=[0.2, 0.15, 0.1]",
        "study.steps[1]: steps end at the saved times, so that from t = 0 to 0.2 they would be 0.1 long; must divide the time between "
        "saved times, got 0.15",
    ),
    "a step that is too long": ("study.steps=[0.4, 0.2, 0.1]", "they would be 0.2 long; must divide the time between saved times, got 0.4"),
    "another kind of solver": ("study.solver=fv", 'study.solver: got "fv" (finite_volume); accepted, of kind jko: q'),
    "no solver": ("study.solver=[]", "study.solver: must not be empty, got []"),
    "an unknown solver": ('study.solver=["q", "p"]', 'study.solver: got "p"; accepted, of kind jko: q'),
    "an order": ("study.orders=[3]", "study.orders[0]: must be at most 2, got 3"),
    "an unknown reference": ("study.reference=fvv", 'study.reference: got "fvv"; accepted: exact, finest, fv, odd (did you mean "fv"?)'),
    "its own reference": ("study.reference=q", "the solver that is refined is no reference for itself"),
    "an unknown norm": ('study.norms=["l3"]', 'study.norms[0]: got "l3"; accepted: l1, l2, w2, loss'),
    "a norm that is not measured": ("study.expected={l2 = 1.0}", "study.expected.l2: l2 is none of the norms of this study: l1, w2, loss"),
    "the start": ("study.times=[0.0]", "study.times[0]: must be greater than 0, got 0.0"),
    "a time that is not saved": ("study.times=[0.3]", "study.times: 0.3 is not a saved time; accepted: 0, 0.2, 0.4"),
    "another mass": ("study.exact=exp(-x**2)", "has mass 1.77245 over the domain; it must be 1 within 0.001"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_answered_with_one_line(name: str, case: Path, tmp_path: Path) -> None:
    setting, says = WRONG[name]
    answer = call("study", case, "--output", tmp_path / "out", "--set", setting)
    assert (answer.code, answer.out) == (2, "")
    (message,) = answer.err.splitlines()
    assert message.startswith(f"mfpde: {case}:")
    assert says in message
    assert not (tmp_path / "out").exists()


def test_a_method_without_second_order_says_so_before_any_work(case: Path, tmp_path: Path) -> None:
    case.write_text(CASE.replace("count = 300", 'method = "entropic"'))
    answer = call("study", case, "--output", tmp_path / "out")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1


def test_a_step_that_the_solver_cannot_make_is_refused_before_any_run(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(
        '[domain.x]\nlower = -2.0\nupper = 2.0\n[[energy]]\nkind = "porous_medium"\nexponent = 2.0\n[initial]\ndensity = "exp(-x**2)"\n'
        '[time]\nsave = [0.0, 0.4]\n[[solver]]\nkind = "jko"\nmethod = "entropic"\ncells = [32]\ntau = 0.1\n'
        '[study]\nkind = "time_step"\nsteps = [0.2, 0.1, 0.05]\norders = [1, 2]\n'
    )
    answer = call("check", path)
    assert answer.code == 2
    assert "study.orders" in answer.err
    assert "order = 2 is for" in answer.err
