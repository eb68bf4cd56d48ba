"""Minimising movements in time: orders, step doubling, certificates, resume, what is refused, and case files."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mfpde.case.build import build_problem, build_solver
from mfpde.case.load import InputError, load_case
from mfpde.distance import wasserstein
from mfpde.energy import EnergySum, Entropy, Power
from mfpde.march import state_values
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import Characteristics, MinimizingMovement
from tests.conftest import alone, box, bump, interaction, line, network, quadratic

TAUS = (0.1, 0.05, 0.025, 0.0125)


def cosine(p: np.ndarray) -> np.ndarray:
    return np.cos(np.pi * p[:, 0] / 6.0) ** 2 * (np.abs(p[:, 0]) < 3.0)


def barenblatt(time: float) -> object:
    top = (3.0 / 4.0) ** (2.0 / 3.0) * 12.0 ** (-1.0 / 3.0)
    return lambda p: time ** (-1.0 / 3.0) * np.maximum(top - p[:, 0] ** 2 / (12.0 * time ** (2.0 / 3.0)), 0.0)


def teacher_student(*times: float) -> Problem:
    domain = line(-4.5, 4.5)
    return Problem(alone(network(domain), "network"), domain, DensityFunction(cosine, domain), times)


def ornstein_uhlenbeck(*times: float) -> Problem:
    domain = line(-10.0, 10.0)
    return Problem(EnergySum({"noise": Entropy(0.5), "well": quadratic()}), domain, DensityFunction(bump(1.3), domain), times)


def porous_medium(*times: float) -> Problem:
    domain = line(-6.0, 6.0)
    return Problem(alone(Power(2.0)), domain, DensityFunction(barenblatt(1.0), domain), times)  # type: ignore[arg-type]


def fitted(taus: tuple[float, ...], errors: list[float], what: str) -> float:
    order = float(np.polyfit(np.log(taus), np.log(errors), 1)[0])
    print(f"{what}: tau {list(taus)}, errors {[f'{e:.2e}' for e in errors]}, order {order:.3f}")
    return order


def scaled_error(problem: Problem, choices: MinimizingMovement, scale: float) -> float:
    """W₂ to the initial quantile function times a scale, which is the exact solution of a self-similar flow."""
    flow, end = choices.prepare(problem), problem.save_at[-1]
    state = flow.start()
    exact = scale * state.points
    while state.time < end:
        state = flow.advance(state, end)
    return float(np.sqrt(flow.scheme.square_distance(state.points, exact)))


@pytest.mark.parametrize(("order", "margin"), [(1, 0.1), (2, 0.2)])
@pytest.mark.parametrize("choices", [MinimizingMovement(1.0, count=400), MinimizingMovement(1.0, cells=(64,), count=1500)])
def test_teacher_and_student_converge_to_the_characteristics(choices: MinimizingMovement, order: int, margin: float) -> None:
    problem = teacher_student(1.0)
    exact = Characteristics((64,)).solve(problem).total_energy[-1]
    errors = [abs(replace(choices, tau=tau, order=order).solve(problem).total_energy[-1] - exact) for tau in TAUS]
    assert fitted(TAUS, errors, "tanh") == pytest.approx(order, abs=margin)


@pytest.mark.parametrize(("order", "margin"), [(1, 0.1), (2, 0.2)])
def test_the_porous_medium_converges_to_barenblatts_profile(order: int, margin: float) -> None:
    choices = MinimizingMovement(1.0, cells=(64,), count=3000, order=order)
    errors = [scaled_error(porous_medium(1.0), replace(choices, tau=tau), 2.0 ** (1.0 / 3.0)) for tau in TAUS]
    assert fitted(TAUS, errors, "porous medium") == pytest.approx(order, abs=margin)


@pytest.mark.parametrize(("order", "margin"), [(1, 0.1), (2, 0.2)])
def test_fokker_planck_converges_to_the_gaussian(order: int, margin: float) -> None:
    spread = np.sqrt(1.3**2 * np.exp(-2.0) + 0.5 * (1.0 - np.exp(-2.0)))
    choices = MinimizingMovement(1.0, cells=(64,), count=2000, order=order)
    errors = [scaled_error(ornstein_uhlenbeck(1.0), replace(choices, tau=tau), spread / 1.3) for tau in TAUS]
    assert fitted(TAUS, errors, "Fokker-Planck") == pytest.approx(order, abs=margin)


@pytest.mark.parametrize("order", [1, 2])
def test_step_doubling_keeps_its_tolerance_and_a_smaller_one_brings_a_smaller_error(order: int) -> None:
    errors = []
    for tolerance in (1e-4, 1e-5, 1e-6):
        choices = MinimizingMovement(0.5, cells=(64,), count=2000, order=order, tolerance=tolerance)
        errors.append(scaled_error(porous_medium(1.0), choices, 2.0 ** (1.0 / 3.0)))
    print(f"order {order}: errors {errors}")
    assert errors[0] < 0.02
    assert all(after < 0.5 * before for before, after in itertools.pairwise(errors))


def assert_certified(run: Run) -> None:
    steps = run.certificate
    assert run.status is Status.DONE, run.message
    assert np.isfinite(steps.rows).all()
    assert steps.mass_drift() <= 1e-13
    assert np.max(steps["balance"]) <= 1e-13
    assert np.max(np.diff(steps["energy"])) <= 1e-13


@pytest.mark.parametrize("problem", [teacher_student(0.05, 0.33, 1.0), ornstein_uhlenbeck(0.05, 0.33, 1.0), porous_medium(0.33, 1.0)])
def test_every_step_lowers_the_energy_by_the_distance_and_saved_times_are_met(problem: Problem) -> None:
    run = MinimizingMovement(0.1, cells=(64,), count=500).solve(problem)
    assert_certified(run)
    assert tuple(run.times) == problem.save_at
    assert set(problem.save_at) <= set(run.certificate["time"])
    assert np.max(run.certificate["dt"]) <= 0.1 * (1.0 + 1e-12)
    assert isinstance(run.final, Density)
    assert run.final.mass == pytest.approx(1.0, abs=1e-13)


def test_the_balance_is_the_dissipation_identity_of_a_step() -> None:
    choices = MinimizingMovement(0.01, cells=(64,), count=800)
    rows = choices.solve(porous_medium(0.1)).certificate
    lost = -np.diff(rows["energy"])
    np.testing.assert_allclose(rows["dissipation"][1:] * 0.01, lost, rtol=0.05)
    np.testing.assert_allclose(rows["balance"][1:], 0.5 * 0.01 * rows["dissipation"][1:] - lost, rtol=1e-6)


@pytest.mark.parametrize("choices", [MinimizingMovement(0.1, cells=(32,), count=200), MinimizingMovement(0.1, count=100)])
@pytest.mark.parametrize("changes", [{}, {"order": 2}, {"order": 2, "tolerance": 1e-4}])
def test_a_restored_state_goes_on_to_the_same_bits(choices: MinimizingMovement, changes: dict[str, object]) -> None:
    problem, made = teacher_student(1.0), replace(choices, **changes)  # type: ignore[arg-type]
    flow = made.prepare(problem)
    state = flow.advance(flow.advance(flow.start(), 1.0), 1.0)
    copied = {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in state_values(state).items()}
    again = made.prepare(problem)
    one, other = flow.advance(state, 1.0), again.advance(again.restore(copied), 1.0)
    assert state_values(one).keys() == state_values(other).keys()
    for name, value in state_values(one).items():
        np.testing.assert_array_equal(value, state_values(other)[name], err_msg=name)


def test_auto_says_why() -> None:
    problem = teacher_student(0.1)
    assert "method quantile: a density on an interval" in MinimizingMovement(0.1, cells=(16,)).prepare(problem).notes[0]
    assert "method residual: networks and potentials alone" in MinimizingMovement(0.1, count=50).prepare(problem).notes[0]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"tau": 0.0}, "tau must be positive"),
        ({"tau": 0.1, "tolerance": -1.0}, "tolerance must be positive"),
        ({"tau": 0.1, "order": 3}, "order must be 1 or 2"),
        ({"tau": 0.1, "count": 0}, "count must be at least 1"),
        ({"tau": 0.1, "method": "sinkhorn"}, "method must be"),
    ],
)
def test_choices_out_of_range_are_refused(choices: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MinimizingMovement(**choices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "problem", "words"),
    [
        (MinimizingMovement(0.1, "quantile"), ornstein_uhlenbeck(1.0), "key `cells` is missing"),
        (MinimizingMovement(0.1), ornstein_uhlenbeck(1.0), "key `cells` is missing"),
        (MinimizingMovement(0.1, "transport", (8,), order=2), ornstein_uhlenbeck(1.0), "order = 2 is for"),
        (MinimizingMovement(0.1, "quantile", (8,), epsilon=0.1), ornstein_uhlenbeck(1.0), "epsilon is for"),
        (MinimizingMovement(0.1, "entropic", (8,), count=9), ornstein_uhlenbeck(1.0), "count is for"),
        (MinimizingMovement(0.1, cells=(8, 8)), ornstein_uhlenbeck(1.0), "one axis"),
        (MinimizingMovement(0.1, cells=(8,), count=3), ornstein_uhlenbeck(1.0), "at least 16 mass cells"),
        (MinimizingMovement(0.1, "residual", count=9), ornstein_uhlenbeck(1.0), "which noise is not"),
        (MinimizingMovement(0.1, "residual"), teacher_student(1.0), "key `count` is missing"),
        (MinimizingMovement(0.1, "residual", (8,)), teacher_student(1.0), "no `cells`"),
    ],
)
def test_choices_that_do_not_fit_the_problem_are_refused(choices: MinimizingMovement, problem: Problem, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choices.prepare(problem)


def test_problems_without_a_method_are_refused() -> None:
    plane = box(2)
    noisy = Problem(alone(Entropy(0.1), "noise"), plane, DensityFunction(bump(0.5), plane), (1.0,))
    with pytest.raises(ValueError, match="the key `cells` is missing"):
        MinimizingMovement(0.1).prepare(noisy)
    atoms = Problem(alone(quadratic()), line(), Particles.equal(np.zeros((2, 1))), (1.0,))
    with pytest.raises(ValueError, match="needs an initial density"):
        MinimizingMovement(0.1, "quantile", (8,)).prepare(atoms)
    for kernel, words in (("r**(-0.3)", "infinite at 0"), ("log(r)", "add an entropy")):
        gas = Problem(alone(interaction(line(), kernel)), line(), DensityFunction(bump(0.5), line()), (1.0,))
        with pytest.raises(ValueError, match=words):
            MinimizingMovement(0.1, cells=(8,)).prepare(gas)


CASE = """
[domain.theta]
lower = -4.0
upper = 4.0

[[energy]]
kind = "potential"
density = "theta**2/2"

[initial]
density = "exp(-(theta - 1)**2)"

[time]
save = [0.0, 0.5]

[[solver]]
kind = "jko"
tau = 0.25
"""


def built(tmp_path: Path, text: str) -> tuple[Problem, MinimizingMovement]:
    path = tmp_path / "case.toml"
    path.write_text(text)
    case = load_case(path)
    problem, solver = build_problem(case), build_solver(case, 0)
    assert isinstance(solver, MinimizingMovement)
    return problem, solver


def test_a_case_file_gives_every_choice(tmp_path: Path) -> None:
    text = CASE + 'method = "quantile"\ncells = [32]\ncount = 100\norder = 2\ntolerance = 1e-3\n'
    problem, solver = built(tmp_path, text)
    assert solver == MinimizingMovement(0.25, "quantile", (32,), 100, 2, 1e-3)
    assert solver.solve(problem).status is Status.DONE
    problem, solver = built(tmp_path, CASE + "count = 60\n")
    run = solver.solve(problem)
    assert isinstance(run.final, Particles)
    assert run.total_energy[-1] == pytest.approx(run.total_energy[0] / 1.25**4, rel=1e-12)


NOISE = '\n[[energy]]\nkind = "entropy"\ntemperature = 0.1\n'


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (CASE, "the key `count` is missing"),
        (CASE + NOISE, "the key `cells` is missing"),
        (CASE + 'method = "quantile"\n', "needs `cells`"),
        (CASE + 'method = "residual"\ncells = [8]\n', "no `cells`"),
        (CASE + 'method = "residual"\ncount = 8\n' + NOISE, "residual. is for"),
        (CASE + 'method = "sinkhorn"\n', "quantile"),
        (CASE + "cells = [8, 8]\n", "cells"),
        (CASE + 'cells = [8]\nmethod = "transport"\ncount = 9\n', "count is for"),
        (CASE + 'cells = [8]\nmethod = "transport"\ntolerance = 1e-2\n', r"solver.*tolerance: tolerance halves steps.*whole cells"),
        (CASE + 'cells = [8]\nmethod = "entropic"\nepsilon = 1e6\n', r"solver.*epsilon: epsilon must be at most"),
        (CASE + "cells = [8]\nepsilon = -1.0\n", "epsilon"),
        (CASE.replace("tau = 0.25", "tau = -1.0"), "tau"),
        (CASE.replace('density = "exp(-(theta - 1)**2)"', "atoms = [[0.0]]") + "count = 8\n", "leave it out"),
        (CASE + "order = 3\ncells = [8]\n", "order"),
    ],
)
def test_a_wrong_case_gets_one_message(tmp_path: Path, changed: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as found:
        built(tmp_path, changed)
    assert "case.toml" in str(found.value)


def test_all_methods_for_densities_make_the_same_step() -> None:
    """One step of Fokker–Planck: the quantile method against the others on the same 128 cells."""
    domain, tau = line(), 0.25
    energy = EnergySum({"noise": Entropy(0.5), "well": quadratic()})
    problem = Problem(energy, domain, DensityFunction(bump(0.6, 0.8), domain), (0.0, tau))
    exact = MinimizingMovement(tau, "quantile", (128,)).solve(problem)
    width = float(domain.grid((128,)).spacing[0])
    moved = wasserstein(exact.final, exact.measures[0], domain).value
    for method, share in (("transport", 0.3), ("entropic", 0.1), ("back_and_forth", 0.05)):
        run = MinimizingMovement(tau, method, (128,)).solve(problem)  # type: ignore[arg-type]
        assert run.status is Status.DONE
        apart = wasserstein(run.final, exact.final, domain).value
        print(f"{method}: W2 {apart:.1e} from quantile, {apart / width:.3f} cells; the step is {moved:.2f} long")
        assert apart < share * width
