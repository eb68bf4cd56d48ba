"""Back-and-forth steps as a method of case files: closed forms, other solvers, discontinuous starts, bounds, obstacles, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from mfpde.case.build import build_problem, build_solver
from mfpde.case.load import InputError, load_case
from mfpde.distance import wasserstein
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Entropy, Incompressible, Normal, Potential, Power, two_layer
from mfpde.march import state_values
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Run, Status
from mfpde.solvers import Characteristics, FiniteVolume, MinimizingMovement, ParticleFlow, Stationary
from mfpde.solvers.jko import boxes
from tests.conftest import observed_order

CASE = Path(__file__).parent.parent / "cases" / "incompressible.toml"
UNIT = Domain((Axis("x", 0.0, 1.0), Axis("y", 0.0, 1.0)))
PATCH = DensityFunction(lambda p: ((np.abs(p[:, 0] - 0.4) < 0.2) & (np.abs(p[:, 1] - 0.5) < 0.2)).astype(float), UNIT)
DROP = DensityFunction(lambda p: ((p[:, 0] - 0.5) ** 2 + (p[:, 1] - 0.7) ** 2 < 0.04).astype(float), UNIT)
BOUND = 8.2


def quadratic(strength: float, centre: float = 0.0) -> Potential:
    return Potential(lambda p: 0.5 * strength * np.sum((p - centre) ** 2, axis=1), lambda p: strength * (p - centre))


CORNER = Potential(lambda p: 5.0 * np.sum(p, axis=1), lambda p: 5.0 + 0.0 * p)
FALL = Potential(lambda p: p[:, 1], lambda p: np.stack([0.0 * p[:, 0], 1.0 + 0.0 * p[:, 1]], axis=1))
AROUND = Potential(FALL.function, FALL.slope, obstacle=lambda p: 0.01 - (p[:, 0] - 0.5) ** 2 - (p[:, 1] - 0.35) ** 2)


def square(half: float, dimension: int = 2) -> Domain:
    return Domain(tuple(Axis(name, -half, half) for name in "xy"[:dimension]))


def bell(domain: Domain, deviation: float) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-0.5 * np.sum(p**2, axis=1) / deviation**2), domain)


def solve(terms: dict, domain: Domain, initial: DensityFunction, tau: float, end: float, cells: int, **choices: float) -> Run:
    count = (cells,) * domain.dimension
    problem = Problem(EnergySum(terms), domain, initial, (0.0, end))
    return MinimizingMovement(tau, "back_and_forth", count, **choices).solve(problem)  # type: ignore[arg-type]


def l1(one: Density, other: Density) -> float:
    return float(np.sum(np.abs(np.ravel(one.values) - np.ravel(other.values)))) * one.grid.cell_volume


def assert_sound(run: Run) -> None:
    steps = run.certificate
    assert run.status is Status.DONE, run.message
    assert steps.mass_drift() < 1e-10
    assert np.min(steps["minimum"]) >= 0.0
    assert steps.energy_rise() <= 1e-10


# --- closed forms and other solvers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dimension"), [("heat", 1), ("heat", 2), ("Ornstein–Uhlenbeck", 2)])
def test_ten_steps_from_gaussians_converge_with_the_grid(name, dimension):
    diffusion, strength, tau, count = 0.1, 0.0 if name == "heat" else 1.0, 0.05, 10
    deviation = 0.5
    for _ in range(count):
        deviation = (deviation + np.sqrt(deviation**2 + 4.0 * diffusion * tau * (1.0 + strength * tau))) / (2.0 * (1.0 + strength * tau))
    domain, sizes, errors = square(3.0, dimension), [32, 48, 64, 96], []
    terms = {"noise": Entropy(diffusion)} | ({"well": quadratic(strength)} if strength else {})
    for n in sizes:
        run = solve(terms, domain, bell(domain, 0.5), tau, tau * count, n, accuracy=2e-5)
        assert_sound(run)
        errors.append(l1(run.final, bell(domain, deviation).on(domain.grid((n,) * dimension))))
    assert observed_order(sizes, errors) > 1.5
    assert errors[-1] < 4e-3


def test_a_gibbs_state_is_stationary():
    domain = square(3.0)
    run = solve({"noise": Entropy(0.25), "well": quadratic(1.0)}, domain, bell(domain, 0.5), 0.1, 0.5, 48)
    assert_sound(run)
    assert l1(run.final, run.measures[0]) < 4e-3


def test_a_quadratic_potential_contracts_densities():
    domain = square(2.5)
    run = solve({"well": quadratic(1.0)}, domain, bell(domain, 0.5), 0.1, 0.3, 64)
    assert_sound(run)
    assert l1(run.final, bell(domain, 0.5 / 1.1**3).on(run.final.grid)) < 5e-3


def test_porous_media_agree_with_finite_volumes_in_the_plane():
    domain = square(1.0)
    initial = DensityFunction(lambda p: np.maximum(0.25 - np.sum(p**2, axis=1), 0.0), domain)
    terms, errors = {"pressure": Power(2.0), "well": quadratic(2.0)}, []
    other = FiniteVolume((64, 64)).solve(Problem(EnergySum(terms), domain, initial, (0.0, 0.02)))
    for tau in (4e-3, 2e-3):
        run = solve(terms, domain, initial, tau, 0.02, 64)
        assert_sound(run)
        errors.append(l1(run.final, other.final))
    print("L1 to finite volumes at tau = 4e-3 and 2e-3:", errors)
    assert errors[1] < 0.7 * errors[0]
    assert errors[1] < 0.03


def test_a_line_agrees_with_quantile_functions():
    domain = square(3.0, 1)
    initial = DensityFunction(lambda p: np.maximum(1.0 - p[:, 0] ** 2, 0.0), domain)
    problem = Problem(EnergySum({"pressure": Power(2.0), "well": quadratic(1.0)}), domain, initial, (0.0, 0.5))
    other, sizes, errors = None, [64, 128, 256], []
    for n in sizes:
        run = MinimizingMovement(0.05, "back_and_forth", (n,)).solve(problem)
        assert_sound(run)
        other = MinimizingMovement(0.05, "quantile", (n,), count=2000).solve(problem)
        errors.append(l1(run.final, other.final))
    print("L1 to quantile functions:", errors)
    assert observed_order(sizes, errors) > 1.0
    assert errors[-1] < 3e-3


def test_networks_are_linearised_until_they_stand_still():
    domain = square(3.0)
    teacher = Particles(np.array([[1.5, 0.5], [-1.0, 1.0], [0.2, -1.6]]), np.array([0.5, 0.3, 0.2]))
    network = two_layer(domain, "tanh", Normal(1.0), teacher, tolerance=1e-3)
    initial = bell(domain, 0.5)
    terms = {"network": network, "noise": Entropy(0.02)}
    other = FiniteVolume((32, 32)).solve(Problem(EnergySum(terms), domain, initial, (0.0, 1.0)))
    run = solve(terms, domain, initial, 0.2, 1.0, 32)
    assert_sound(run)
    assert np.max(run.certificate["balance"]) <= 1e-10
    note = next(note for note in run.notes if "linearised" in note)
    assert int(note.split("up to ")[1].split()[0]) <= 8
    assert l1(run.final, other.final) < 0.06


# --- hard starts, bounds and obstacles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize(
    "terms",
    [
        {"noise": Entropy(0.1)},
        {"pressure": Power(2.0)},
        {"pressure": Power(0.8, 0.1)},
        {"noise": Entropy(0.1), "pull": quadratic(40.0, 1.0)},
        {"pressure": Power(2.0, 0.1), "corner": CORNER},
    ],
    ids=["entropy", "porous", "fast", "strong", "corner"],
)
def test_steps_from_a_discontinuous_patch_are_sound(terms, tau):
    assert_sound(solve(terms, UNIT, PATCH, tau, 2.0 * tau, 48))


@pytest.mark.parametrize("tau", [1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("potential", [FALL, AROUND], ids=["wall", "obstacle"])
def test_a_drop_falls_without_being_compressed(potential, tau):
    run = solve({"crowd": Incompressible(BOUND), "height": potential}, UNIT, DROP, tau, 3.0 * tau, 48)
    assert_sound(run)
    values, grid = np.ravel(run.final.values), run.final.grid
    assert np.max(values) <= BOUND * (1.0 + 1e-3)
    if potential.obstacle is not None:
        assert np.all(values[potential.obstacle(grid.centers) > 0.0] == 0.0)


def test_a_crowd_at_rest_lies_on_the_floor():
    run = solve({"crowd": Incompressible(4.0), "height": FALL}, UNIT, DensityFunction(lambda p: 1.0 + 0.0 * p[:, 0], UNIT), 0.2, 2.0, 32)
    assert_sound(run)
    y = run.final.grid.centers[:, 1]
    print("share out of place:", 0.5 * np.sum(np.abs(np.ravel(run.final.values) - 4.0 * (y < 0.25))) / 1024)
    assert run.energy["height"][-1] == pytest.approx(0.125, rel=0.02)


def test_a_step_that_stays_far_from_its_minimum_is_no_silent_result(monkeypatch):
    monkeypatch.setattr(boxes, "_LOST_SHARE", 0.0)
    monkeypatch.setattr(boxes, "_MOST_ESTIMATED_SHARE", -1.0)
    run = solve({"pressure": Power(2.0)}, UNIT, PATCH, 1e-3, 1e-3, 24)
    assert run.status is Status.NOT_CONVERGED
    assert "dual residual stays" in run.message
    assert "use a longer tau or more cells" in run.message


# --- results, case files and input ----------------------------------------------------------------------------------------------


def test_a_restored_state_makes_the_same_steps_to_the_same_bits():
    problem = Problem(EnergySum({"pressure": Power(2.0)}), UNIT, PATCH, (0.0, 1.0))
    choices = MinimizingMovement(1e-2, "back_and_forth", (32, 32))
    flow = choices.prepare(problem)
    first = flow.advance(flow.start(), 1.0)
    kept = {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in state_values(first).items()}
    second, other = flow.advance(first, 1.0), choices.prepare(problem)
    again = other.advance(other.restore(kept), 1.0)
    assert np.array_equal(second.points, again.points)
    assert np.array_equal(second.remarks, again.remarks)
    assert flow.record(second) == other.record(again)
    assert flow.notes == other.notes


def test_the_incompressible_energy_and_obstacles_count_as_infinite():
    grid = UNIT.grid((8, 8))
    full = Density(grid, np.full((8, 8), 1.0))
    assert Incompressible(1.0).value(full) == 0.0
    assert Incompressible(1.0 / 1.0005).value(full) == 0.0
    assert np.isinf(Incompressible(0.99).value(full))
    assert np.isinf(Incompressible(1.0).value(Particles(np.array([[0.5, 0.5]]), np.array([1.0]))))
    assert np.isinf(AROUND.value(full))
    assert np.isinf(AROUND.on(grid).value(np.ones(64)))
    assert np.isinf(AROUND.first_variation(full, np.array([[0.5, 0.35]])))[0]
    assert FALL.value(full) == pytest.approx(0.5)


def test_other_solvers_refuse_bounds_and_obstacles():
    for term in (Incompressible(2.0), AROUND):
        problem = Problem(EnergySum({"limit": term, "noise": Entropy(0.1)}), UNIT, PATCH, (0.0, 1.0))
        for solver in (
            FiniteVolume((8, 8)),
            Stationary((8, 8)),
            Characteristics((8, 8)),
            ParticleFlow(count=10, step=0.1),
            MinimizingMovement(0.1, "residual", count=10),
        ):
            with pytest.raises(ValueError, match=r"cannot keep to the .*'limit'.*back_and_forth"):
                solver.prepare(problem)


def test_initial_densities_without_room_are_refused():
    choices = MinimizingMovement(0.1, "back_and_forth", (16, 16))
    for terms, message in (
        ({"crowd": Incompressible(2.0)}, "reaches .* above the bound 2"),
        ({"crowd": Incompressible(0.9)}, "no room"),
        ({"noise": Entropy(1.0), "wall": Potential(FALL.function, FALL.slope, obstacle=lambda p: 0.5 - p[:, 0])}, "of its mass in an obst"),
        ({"crowd": Incompressible(9.0), "noise": Entropy(1.0)}, "takes one of"),
    ):
        with pytest.raises(ValueError, match=message):
            choices.prepare(Problem(EnergySum(terms), UNIT, PATCH, (0.0, 1.0)))
    ring = Domain((Axis("x", 0.0, 1.0, periodic=True),))
    round_trip = Problem(EnergySum({"noise": Entropy(1.0)}), ring, DensityFunction(lambda p: 1.0 + 0.0 * p[:, 0], ring), (0.0, 1.0))
    with pytest.raises(ValueError, match="walls"):
        MinimizingMovement(0.1, "back_and_forth", (16,)).prepare(round_trip)


def test_the_shipped_crowd_is_chosen_automatically_and_refused_elsewhere():
    case = load_case(CASE, ("solver.0.cells=[24, 24]", 'solver.0.method="auto"', "time.save=[0.0, 0.1]"))
    run = build_solver(case, 0).solve(build_problem(case))
    assert_sound(run)
    assert any("back_and_forth: the one that keeps to" in note for note in run.notes)
    with pytest.raises(InputError, match="cannot keep to"):
        build_problem(load_case(CASE, ('solver.0.method="entropic"',)))
    with pytest.raises(InputError, match="leaves no room"):
        build_problem(load_case(CASE, ('energy.1.obstacle="1"',)))


@pytest.mark.parametrize("tau", [0.05, 0.003])
def test_a_crowd_below_the_bound_stays_where_nothing_drives_it(tau: float) -> None:
    domain = Domain((Axis("x", -1.0, 1.0),))
    crowd = DensityFunction(lambda p: (np.abs(p[:, 0]) < 0.6).astype(float), domain)
    problem = Problem(EnergySum({"crowd": Incompressible()}), domain, crowd, (0.0, 0.4))
    run = MinimizingMovement(tau, "back_and_forth", (200,)).solve(problem)
    assert run.status is Status.DONE
    assert np.max(np.abs(run.final.values - run.measures[0].values)) < 1e-9


# --- how far from the minimum --------------------------------------------------------------------------------------------------


LINE = Domain((Axis("x", -4.0, 4.0),))
HUMP = DensityFunction(lambda p: np.exp(-2.0 * (p[:, 0] - 0.3) ** 2), LINE)


def one_step(term: Entropy | Power, tau: float, method: str) -> tuple[float, float, Run]:
    """W₂² of a step and by how much E + W₂²/(2τ) falls in it, both of cell averages and by themselves."""
    problem = Problem(EnergySum({"pressure": term}), LINE, HUMP, (0.0, tau))
    run = MinimizingMovement(tau, method, (128,)).solve(problem)
    assert run.status is Status.DONE, run.message
    before, after = run.measures
    assert isinstance(before, Density)
    assert isinstance(after, Density)
    moved = wasserstein(before, after, LINE).value ** 2
    return moved, term.value(before) - term.value(after) - 0.5 * moved / tau, run


@pytest.mark.parametrize(
    ("term", "tau"),
    [
        (Power(4.0, 0.5), 0.1),
        (Power(4.0, 0.5), 1e-2),
        (Power(4.0, 0.5), 1e-3),
        (Power(2.0, 0.5), 1e-3),
        (Power(0.7, 0.5), 0.1),
        (Entropy(0.5), 1e-2),
        (Entropy(0.5), 1e-4),
    ],
)
def test_steps_with_tails_and_vacuum_are_those_of_quantile_functions(term, tau):
    moved, fallen, run = one_step(term, tau, "back_and_forth")
    other_moved, other_fallen, _ = one_step(term, tau, "quantile")
    assert moved == pytest.approx(other_moved, rel=0.1)
    assert fallen == pytest.approx(other_fallen, rel=0.05)
    assert -run.certificate["balance"][-1] == pytest.approx(fallen, rel=1e-6)
    assert 2.0 * tau * (fallen + term.value(run.final) - term.value(run.measures[0])) == pytest.approx(-moved, rel=1e-6)


@pytest.mark.parametrize("tau", [1e-4, 1e-6, 1e-8])
def test_short_steps_keep_the_speed(tau):
    run = solve({"noise": Entropy(0.5)}, LINE, HUMP, tau, 3.0 * tau, 128)
    assert_sound(run)
    one, two = (np.ravel(measure.values) * measure.grid.cell_volume for measure in run.measures)
    x = run.final.grid.centers[:, 0]
    spread = [float(weights @ x**2 - (weights @ x) ** 2) for weights in (one, two)]
    assert (spread[1] - spread[0]) / (3.0 * tau) == pytest.approx(1.0, rel=0.02)


def test_a_step_far_from_its_minimum_fails_and_says_what_else_to_use():
    run = solve({"pressure": Power(0.7, 0.5)}, LINE, HUMP, 1e-3, 1e-3, 128)
    if run.status is Status.DONE:
        assert any(note.startswith(WARNING) for note in run.notes)
    else:
        assert run.status is Status.NOT_CONVERGED
        assert 'method = "quantile" or "entropic"' in run.message


def test_uncertain_steps_are_warned_of():
    run = solve({"noise": Entropy(0.1)}, UNIT, PATCH, 1e-4, 1e-4, 48)
    assert any(note.startswith(f"{WARNING}E + W2^2/(2 tau) of a step is only known up to") for note in run.notes)
    smooth = solve({"noise": Entropy(0.1)}, square(3.0), bell(square(3.0), 0.5), 0.1, 0.1, 32)
    assert not any(note.startswith(WARNING) for note in smooth.notes)


@pytest.mark.parametrize("well", [Potential(lambda p: np.abs(p[:, 0]), np.sign), quadratic(10.0)], ids=["kink", "well"])
def test_mass_that_collapses_has_the_distance_that_it_moves(well):
    domain, tau = square(3.0, 1), 2.0
    run = solve({"well": well}, domain, bell(domain, 0.5), tau, tau, 121)
    assert run.status is Status.DONE
    moved = wasserstein(*run.measures, domain).value ** 2
    steps = run.certificate
    assert steps["balance"][-1] == pytest.approx(steps["energy"][-1] - steps["energy"][0] + 0.5 * moved / tau, rel=1e-6)
    plane = square(3.0)
    flat = solve({"well": quadratic(10.0)}, plane, bell(plane, 0.5), tau, tau, 61).certificate
    least = (1.0 - 1.0 / (1.0 + 10.0 * tau)) * flat["energy"][0]
    assert -flat["balance"][-1] == pytest.approx(least, rel=0.01)


def test_hardly_any_diffusion_is_not_much():
    domain, tau = square(3.0, 1), 0.02
    for term in (Power(2.0, 1e-5), Entropy(1e-6)):
        run = solve({"pressure": term, "well": quadratic(1.0)}, domain, bell(domain, 0.5), tau, 0.3, 128)
        assert run.status is Status.DONE, run.message
        exact = bell(domain, 0.5 / (1.0 + tau) ** 15).on(domain.grid((512,)))
        assert wasserstein(run.final, exact, domain).value < 5e-3


def floor(bound: float, width: float, tau: float, count: int, cells: int, end: float) -> Run:
    """A crowd of this width at the lower wall of [0, end], pulled to it."""
    domain = Domain((Axis("x", 0.0, end),))
    pull = Potential(lambda p: p[:, 0], lambda p: 1.0 + 0.0 * p)
    start = DensityFunction(lambda p: (p[:, 0] < width).astype(float), domain)
    return solve({"crowd": Incompressible(bound), "pull": pull}, domain, start, tau, count * tau, cells)


def test_a_box_that_is_almost_full_comes_to_rest():
    run = floor(1.0005, 1.0, 0.1, 5, 100, 1.0)
    assert_sound(run)
    assert run.energy["pull"][-1] == pytest.approx(0.5 / 1.0005, abs=5e-6)


def test_short_steps_press_a_crowd_to_the_floor():
    """All moves at speed 1 but the part that is dense: the height falls to ½ + (0.625 − ½)(1 − t/0.25)²."""
    run = floor(1.0, 1.25, 0.01, 10, 96, 3.0)
    assert_sound(run)
    assert run.energy["pull"][-1] == pytest.approx(0.545, abs=1.5e-3)


def test_potentials_beyond_all_numbers_end_with_a_word() -> None:
    domain = Domain((Axis("x", -2.0, 2.0),))
    steep = Potential(lambda p: 1e25 * p[:, 0], lambda p: np.full_like(p, 1e25))
    start = DensityFunction(lambda p: np.exp(-4.0 * p[:, 0] ** 2), domain)
    with np.errstate(all="ignore"):
        run = MinimizingMovement(0.05, "back_and_forth", (40,)).solve(
            Problem(EnergySum({"medium": Power(2.0), "steep": steep}), domain, start, (0.0, 0.1))
        )
    assert run.status in (Status.NOT_FINITE, Status.NOT_CONVERGED)
