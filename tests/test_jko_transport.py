"""Steps by exact transport between cells: closed forms, the duality gap by a linear program, locking, and what is refused."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, linprog, minimize

from mfpde.distance import wasserstein
from mfpde.domain import Axis, Domain
from mfpde.energy import Entropy, Incompressible, Potential, Power
from mfpde.energy.base import Energy, EnergySum
from mfpde.march import state_values
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Run, Status, StepFailed
from mfpde.solvers import MinimizingMovement
from mfpde.solvers.jko.flow import MovementFlow, MovementState
from mfpde.solvers.jko.rules import check_transport as check
from mfpde.solvers.jko.transport import TransportScheme
from tests.conftest import Integrand, assert_certified, box, bump, interaction, line, network, observed_order, quadratic

TAU = 0.5
WIDE = line(-8.0, 8.0)


def tent(p: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.sum(p**2, axis=1), 0.0)


def problem_of(terms: dict[str, Energy], initial: Integrand, domain: Domain = WIDE, end: float = TAU) -> Problem:
    return Problem(EnergySum(terms), domain, DensityFunction(initial, domain), (end,))


def flow_of(
    problem: Problem, cells: tuple[int, ...], tau: float = TAU, accuracy: float | None = None
) -> tuple[MovementFlow, TransportScheme]:
    flow = MinimizingMovement(tau, method="transport", cells=cells, accuracy=accuracy).prepare(problem)
    assert isinstance(flow.scheme, TransportScheme)
    return flow, flow.scheme


def step_of(problem: Problem, cells: tuple[int, ...], tau: float = TAU) -> tuple[TransportScheme, MovementState, MovementState, float]:
    """The scheme, the states before and after, and E + W₂²/(2τ)."""
    flow, scheme = flow_of(problem, cells, tau)
    start = flow.start()
    after = flow.advance(start, tau)
    return scheme, start, after, start.energy + after.balance


def run_of(problem: Problem, cells: tuple[int, ...], tau: float) -> Run:
    run = MinimizingMovement(tau, method="transport", cells=cells).solve(problem)
    assert_certified(run)
    assert np.max(run.certificate["balance"]) <= 0.0
    return run


def deviation(scheme: TransportScheme, state: MovementState) -> float:
    x = scheme.grid.centers[:, 0]
    masses = state.points[:, 0] * scheme.volume
    return float(np.sqrt(masses @ x**2 - (masses @ x) ** 2))


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_the_value_of_a_step_of_a_gaussian_is_the_closed_form_to_second_order(strength: float) -> None:
    """s₁ of (1 + λτ) s₁² − s₀s₁ − Dτ = 0 and the least E + W₂²/(2τ) = −D/2 log(2πe s₁²) + λs₁²/2 + (s₁ − s₀)²/(2τ)."""
    diffusion, stiff = 0.8, 1.0 + strength * TAU
    exact = (1.0 + np.sqrt(1.0 + 4.0 * diffusion * TAU * stiff)) / (2.0 * stiff)
    value = -0.5 * diffusion * np.log(2.0 * np.pi * np.e * exact**2) + 0.5 * strength * exact**2 + (exact - 1.0) ** 2 / (2.0 * TAU)
    terms: dict[str, Energy] = {"noise": Entropy(diffusion)} | ({"well": quadratic(strength)} if strength else {})
    counts, errors = [64, 91, 128, 181, 256], []
    for count in counts:
        scheme, _, after, found = step_of(problem_of(terms, bump(1.0)), (count,))
        errors.append(found - value)
        assert abs(deviation(scheme, after) - exact) < 0.15 * float(scheme.grid.spacing[0]) ** 2
    assert observed_order(counts, errors) == pytest.approx(2.0, abs=0.05)
    assert errors[-1] < 0.2 * (16.0 / 256.0) ** 2  # places rounded to cells cost about h²/(12 τ)


ENERGIES: dict[str, dict[str, Energy]] = {
    "entropy": {"noise": Entropy(0.7)},
    "porous medium": {"pressure": Power(2.0)},
    "m = 4": {"pressure": Power(4.0, 2.0)},
    "fast diffusion": {"fast": Power(0.6)},
    "mixed": {"noise": Entropy(0.1), "pressure": Power(3.0), "well": quadratic(1.0, 0.5)},
    "potential": {"well": quadratic(1.0, 0.5)},
    "network": {"network": network(line(-3.0, 3.0))},
    "network and entropy": {"network": network(line(-3.0, 3.0)), "noise": Entropy(0.05)},
    "convex kernel": {"repel": interaction(line(-3.0, 3.0), "exp(-theta**2)")},
}


@pytest.mark.parametrize("name", ENERGIES)
def test_the_gap_is_what_a_linear_program_says(name: str) -> None:
    """With E replaced by its tangent at ρ the step is a linear program, whose value is below the minimum and, at the minimum, equal."""
    domain, tau, count = line(-3.0, 3.0), 0.8, 16
    scheme, start, after, value = step_of(problem_of(ENERGIES[name], bump(0.6, -0.4), domain), (count,), tau)
    rho, before = after.points[:, 0], start.points[:, 0]
    x = scheme.grid.centers[:, 0]
    cost = (x[:, None] - x) ** 2 / (2.0 * tau)
    slopes = scheme.first_variation(rho)
    rows = np.kron(np.eye(count), np.ones(count))
    found = linprog((cost + slopes).ravel(), A_eq=rows, b_eq=before, method="highs")
    bound = after.energy + scheme.volume * (found.fun - float(slopes @ rho))
    scale = max(sum(abs(v) for v in scheme.values(start.points).values()), 1e-3)
    assert not np.array_equal(rho, before)
    assert after.widest <= 1e-9 * scale
    # the tangent at ρ is a weaker bound than that by which the gap was found, and the program itself is solved to 1e-10 or so
    assert -1e-9 * scale <= value - bound <= 1e-8 * scale
    exact = linprog(
        cost.ravel(), A_eq=np.vstack([rows, np.kron(np.ones(count), np.eye(count))]), b_eq=np.concatenate([before, rho]), method="highs"
    )
    assert 2.0 * tau * (value - after.energy) == pytest.approx(2.0 * tau * scheme.volume * exact.fun, rel=1e-8, abs=1e-9)


def test_a_general_minimiser_finds_the_same_plan() -> None:
    count, tau = 6, 2.0
    scheme, start, after, value = step_of(problem_of({"noise": Entropy(1.0)}, bump(0.8, 0.3), line(-2.0, 2.0)), (count,), tau)
    x, a = scheme.grid.centers[:, 0], start.points[:, 0]
    cost = ((x[:, None] - x) ** 2 / (2.0 * tau)).ravel()

    def objective(plan: np.ndarray) -> float:
        rho = plan.reshape(count, count).sum(axis=0)
        return float(scheme.volume * (rho @ np.log(rho) + cost @ plan))

    def gradient(plan: np.ndarray) -> np.ndarray:
        rho = plan.reshape(count, count).sum(axis=0)
        return np.asarray(scheme.volume * (np.tile(np.log(rho) + 1.0, count) + cost))

    held = LinearConstraint(np.kron(np.eye(count), np.ones(count)), a, a)
    first = np.repeat(a / count, count)
    found = minimize(objective, first, jac=gradient, bounds=[(0.0, None)] * count**2, constraints=[held], method="SLSQP", tol=1e-13)
    assert value == pytest.approx(found.fun, abs=1e-7)
    np.testing.assert_allclose(after.points[:, 0], found.x.reshape(count, count).sum(axis=0), atol=2e-4)


def test_the_gibbs_state_is_stationary_for_any_step() -> None:
    terms: dict[str, Energy] = {"noise": Entropy(0.5), "well": quadratic(2.0)}
    for tau in (1e-3, 0.1, 1.0, 100.0):
        scheme, start, after, _ = step_of(problem_of(terms, lambda p: np.exp(-2.0 * p[:, 0] ** 2), line()), (81,), tau)
        gibbs = np.exp(-2.0 * scheme.grid.centers[:, 0] ** 2)
        gibbs /= np.sum(gibbs) * scheme.volume
        found = scheme.minimise(gibbs[:, None], tau, gibbs[:, None], gibbs[:, None], np.empty(0))
        assert np.array_equal(found.points[:, 0], gibbs)
        assert found.moved == 0.0
        assert after.energy <= start.energy


def test_a_quadratic_potential_moves_each_cell_to_the_nearest_centre_of_its_exact_place() -> None:
    for cells, centre in [(40, 0.05), (41, -0.33)]:
        scheme, start, after, value = step_of(problem_of({"well": quadratic(1.0, centre)}, bump(0.7, 1.0)), (cells,))
        x, h = scheme.grid.centers[:, 0], float(scheme.grid.spacing[0])
        exact = centre + (x - centre) / (1.0 + TAU)
        nearest = np.argmin(np.abs(x - exact[:, None]), axis=1)
        expected = np.bincount(nearest, weights=start.points[:, 0], minlength=cells)
        np.testing.assert_allclose(after.points[:, 0], expected, atol=1e-14)
        least = start.points[:, 0] @ (0.5 * (x - centre) ** 2) * scheme.volume / (1.0 + TAU)
        assert 0.0 <= value - least <= 0.125 * h**2 * (1.0 + 1.0 / TAU)


def test_equally_near_cells_share() -> None:
    """Cells half way between two targets keep the symmetry."""
    scheme, _, after, _ = step_of(problem_of({"well": quadratic()}, bump(0.7)), (40,), 1.0)
    np.testing.assert_allclose(after.points[:, 0], after.points[::-1, 0], atol=1e-15)
    assert scheme.grid.cells == (40,)


def test_a_quadratic_kernel_contracts_about_the_mean_which_stays() -> None:
    domain, errors, counts = WIDE, [], [64, 128, 256]
    for count in counts:
        scheme, start, after, value = step_of(problem_of({"pull": interaction(domain, "theta**2/2")}, bump(0.7, 1.0), domain), (count,))
        variance = deviation(scheme, start) ** 2
        errors.append(value - 0.5 * variance / (1.0 + TAU))
        assert deviation(scheme, after) == pytest.approx(np.sqrt(variance) / (1.0 + TAU), abs=0.3 * float(scheme.grid.spacing[0]))
    assert min(errors) > 0.0
    assert max(e * n**2 for e, n in zip(errors, counts, strict=True)) <= 0.125 * 16.0**2 * (1.0 + 1.0 / TAU)


@pytest.mark.parametrize("name", ["porous medium", "mixed", "network and entropy"])
def test_steps_are_those_of_quantile_functions_to_a_fraction_of_a_cell(name: str) -> None:
    domain = line(-6.0, 6.0)
    terms = ENERGIES[name] if "network" not in ENERGIES[name] else {"network": network(domain), "noise": Entropy(0.3)}
    problem = problem_of(terms, tent, domain, 1.0)
    for count in (60, 120):
        found = run_of(problem, (count,), 0.5)
        other = MinimizingMovement(0.5, method="quantile", cells=(count,), count=8 * count).solve(problem)
        assert wasserstein(found.final, other.final, domain).value <= 0.3 * 12.0 / count


def test_vacuum_stays_empty_and_the_porous_medium_spreads_finitely() -> None:
    scheme, _, after, _ = step_of(problem_of({"pressure": Power(2.0)}, tent), (160,))
    x, rho = scheme.grid.centers[:, 0], after.points[:, 0]
    occupied = np.abs(x[rho > 0.0])
    assert np.max(occupied) < 2.0
    assert np.all(rho[np.abs(x) > np.max(occupied)] == 0.0)
    assert np.all(rho[np.abs(x) < np.max(occupied)] > 0.0)


def found_by(terms: dict[str, Energy], domain: Domain, cells: tuple[int, ...], rho: np.ndarray, tau: float) -> tuple[np.ndarray, float]:
    """The density and E + W₂²/(2τ) after one step from these cell averages."""
    scheme = TransportScheme(problem_of(terms, bump(1.0), domain), cells, 1e-11)
    points = rho.reshape(-1, 1)
    found = scheme.minimise(points, tau, points, points, np.empty(0))
    assert found.moved is not None
    return found.points.reshape(cells), found.energy + found.moved / (2.0 * tau)


def test_a_plane_with_a_line_in_it_is_the_line() -> None:
    """Without forces along y and constant there, a step in the plane is the one on the line."""
    ends = Axis("x", -3.0, 3.0)
    well = Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p * np.array([1.0, 0.0][: p.shape[1]]))
    terms: dict[str, Energy] = {"noise": Entropy(0.4), "well": well}
    x = np.arange(12) * 0.5 - 2.75
    rho = np.exp(-((x - 0.6) ** 2))
    rho /= 0.5 * np.sum(rho)
    line_x, value_x = found_by(terms, Domain((ends,)), (12,), rho, 2.0)
    plane, value = found_by(terms, Domain((ends, Axis("y", 0.0, 1.0))), (12, 12), np.repeat(rho[:, None], 12, axis=1), 2.0)
    np.testing.assert_allclose(plane, np.repeat(line_x[:, None], 12, axis=1), atol=1e-5)
    assert value == pytest.approx(value_x, abs=1e-10)


def test_a_step_of_a_product_is_the_product_of_steps() -> None:
    """Entropy and V = x² + y² and a product in the plane: W₂², the entropy and V are sums over the axes."""
    terms: dict[str, Energy] = {"noise": Entropy(0.5), "well": quadratic(2.0)}
    x = (np.arange(12) - 5.5) * 2.0 / 3.0
    rho = np.exp(-((x - 0.5) ** 2) / 3.0)
    rho *= 1.5 / np.sum(rho)
    one, value_one = found_by(terms, line(), (12,), rho, 1.0)
    both, value = found_by(terms, box(2), (12, 12), np.outer(rho, rho), 1.0)
    np.testing.assert_allclose(both, np.outer(one, one), atol=1e-5)
    assert value == pytest.approx(2.0 * value_one, abs=1e-10)


def in_three_slices(p: np.ndarray) -> np.ndarray:
    return np.exp(-2.0 * p[:, 0] ** 2) * np.where(p[:, 1] < 0.75, 1.0 + p[:, 1], 0.0)


def test_frozen_axes_keep_the_mass_of_each_slice() -> None:
    domain = Domain((Axis("x", -3.0, 3.0), Axis("depth", 0.0, 1.0, frozen=True)))
    well = Potential(lambda p: 0.5 * (p[:, 0] - p[:, 1]) ** 2, lambda p: np.stack([p[:, 0] - p[:, 1], p[:, 1] - p[:, 0]], axis=1))
    terms: dict[str, Energy] = {"noise": Entropy(0.3), "well": well}
    scheme, start, after, _ = step_of(problem_of(terms, in_three_slices, domain), (30, 4), 1.0)
    before, then = (state.points[:, 0].reshape(30, 4) for state in (start, after))
    np.testing.assert_allclose(then.sum(axis=0), before.sum(axis=0), rtol=1e-14)
    assert np.all(then[:, 3] == 0.0)
    for k in range(3):
        depth, width = (k + 0.5) / 4.0, 0.25
        alone = Potential(lambda p, d=depth: 0.5 * (p[:, 0] - d) ** 2, lambda p, d=depth: p - d)
        own = TransportScheme(problem_of({"noise": Entropy(0.3), "well": alone}, bump(1.0), line(-3.0, 3.0)), (30,), 1e-11)
        found = own.minimise(before[:, k : k + 1] * width, 1.0, *(before[:, k : k + 1] * width,) * 2, np.empty(0))
        np.testing.assert_allclose(then[:, k] * width, found.points[:, 0], atol=1e-5)
    assert scheme.grid.size == 120


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["entropy", "two powers"])
def test_an_empty_slice_is_left_out_of_the_certificate(name: str) -> None:
    """Its cells can have no mass whatever their pressure: the value is the sum of those of the slices alone."""
    domain = Domain((Axis("x", -2.0, 2.0, periodic=True), Axis("y", 0.0, 1.0, frozen=True)))
    steep = Potential(lambda p: 2.0 * np.cos(np.pi * p[:, 0]) * (1.0 + p[:, 1]), lambda p: np.zeros(p.shape))
    internal: dict[str, Energy] = {"S": Entropy(0.2)} if name == "entropy" else {"P": Power(4.0, 0.1), "Q": Power(0.7, 0.1)}

    def initial(p: np.ndarray) -> np.ndarray:
        return (1.0 + 0.9 * np.sin(np.pi * p[:, 0])) * (p[:, 1] < 0.8)

    problem = problem_of({"V": steep, **internal}, initial, domain, 0.2)
    _, start, after, value = step_of(problem, (32, 5), 0.2)
    assert after.widest <= 2e-9
    full = problem_of({"V": steep, **internal}, lambda p: initial(p) + (p[:, 1] >= 0.8) * 1e-9, domain, 0.2)
    assert value == pytest.approx(step_of(full, (32, 5), 0.2)[3], abs=1e-6)
    np.testing.assert_array_equal(after.points.reshape(32, 5)[:, 4], 0.0)
    np.testing.assert_allclose(np.sum(after.points.reshape(32, 5), 0), np.sum(start.points.reshape(32, 5), 0), rtol=1e-13)


def test_slices_interact_while_they_keep_their_mass() -> None:
    domain = Domain((Axis("x", -3.0, 3.0), Axis("depth", 0.0, 1.0, frozen=True)))
    terms: dict[str, Energy] = {"repel": interaction(domain, "exp(-r**2)", 3.0), "noise": Entropy(0.1)}
    _, start, after, value = step_of(problem_of(terms, lambda p: np.exp(-2.0 * (p[:, 0] - 2.0 * p[:, 1] + 1.0) ** 2), domain), (24, 3), 2.0)
    before, then = (state.points[:, 0].reshape(24, 3) for state in (start, after))
    np.testing.assert_allclose(then.sum(axis=0), before.sum(axis=0), rtol=1e-14)
    assert value < start.energy - 0.01


def test_periodic_axes_go_the_short_way() -> None:
    circle = line(-3.0, 3.0, periodic=True)
    terms: dict[str, Energy] = {"noise": Entropy(0.4)}
    moved = [step_of(problem_of(terms, bump_at, circle), (60,), 1.0) for bump_at in (round_bump(0.0), round_bump(2.5))]
    np.testing.assert_allclose(np.roll(moved[0][2].points[:, 0], 25), moved[1][2].points[:, 0], atol=1e-5)
    assert moved[0][3] == pytest.approx(moved[1][3], abs=1e-9)
    walled = step_of(problem_of(terms, round_bump(2.5), line(-3.0, 3.0)), (60,), 1.0)
    assert walled[3] > moved[1][3] + 1e-3


def round_bump(centre: float) -> Integrand:
    return lambda p: np.exp(4.0 * np.cos(np.pi * (p[:, 0] - centre) / 3.0))


@pytest.mark.parametrize(("kernel", "noise"), [("-exp(-theta**2)", 0.05), ("abs(theta)", 0.2), ("theta**4/4 - theta**2/2", 0.1)])
def test_kernels_that_are_not_convex_never_raise_the_value(kernel: str, noise: float) -> None:
    domain = line()
    problem = problem_of({"pull": interaction(domain, kernel), "noise": Entropy(noise)}, bump(1.0, 0.3), domain, 3.0)
    run = run_of(problem, (50,), 1.0)
    assert run.certificate["balance"][1] < -1e-4
    assert any("stationary points" in note and "convex steps" in note for note in run.notes)


def test_a_stationary_point_of_a_kernel_is_one_for_small_changes_as_well() -> None:
    """No density near the one that was found has a lower value than the gap allows, W₂ being found by a linear program."""
    domain, tau, count = line(-2.0, 2.0), 1.0, 12
    terms: dict[str, Energy] = {"pull": interaction(domain, "-2*exp(-theta**2)"), "noise": Entropy(0.1)}
    scheme, start, after, value = step_of(problem_of(terms, bump(0.8, 0.2), domain), (count,), tau)
    x, a = scheme.grid.centers[:, 0], start.points[:, 0]
    cost = (x[:, None] - x) ** 2 / (2.0 * tau)
    marginals = np.vstack([np.kron(np.eye(count), np.ones(count)), np.kron(np.ones(count), np.eye(count))])
    generator = np.random.default_rng(3)
    for size in (1e-2, 1e-3):
        for _ in range(10):
            rho = after.points[:, 0] * (1.0 + size * generator.standard_normal(count))
            rho *= np.sum(a) / np.sum(rho)
            way = linprog(cost.ravel(), A_eq=marginals, b_eq=np.concatenate([a, rho]), method="highs")
            assert scheme.value(rho[:, None]) + scheme.volume * way.fun >= value - after.widest


def test_a_long_run_keeps_mass_and_sign_and_lowers_the_energy() -> None:
    for terms in ({"noise": Entropy(0.3), "well": quadratic()}, {"pressure": Power(3.0), "well": quadratic()}):
        run = run_of(problem_of(terms, bump(0.4, 1.5), line(), 6.0), (40,), 0.4)
        assert run.certificate.mass_drift() <= 1e-14
        drops = [b - a for a, b in pairwise(run.certificate["energy"])]
        assert max(drops) <= 0.0


def test_steps_shorter_than_half_a_cell_lock_and_the_run_warns() -> None:
    slope = Potential(lambda p: -p[:, 0], lambda p: -np.ones_like(p))
    for tau, cells_moved in [(0.49, 0), (0.51, 1), (1.49, 1), (3.6, 4)]:
        _, start, after, _ = step_of(problem_of({"slope": slope}, bump(1.0)), (16,), tau)
        np.testing.assert_allclose(
            after.points[:12, 0], np.concatenate([np.zeros(cells_moved), start.points[: 12 - cells_moved, 0]]), atol=1e-15
        )
    notes = [
        MinimizingMovement(tau, method="transport", cells=(16,)).solve(problem_of({"slope": slope}, bump(1.0), end=tau)).notes
        for tau in (0.4, 3.6)
    ]
    said = [next(note for note in found if "speed x tau" in note) for found in notes]
    assert said[0].startswith(WARNING)
    assert "between 0.4 and 0.4 cells" in said[0]
    assert not said[1].startswith(WARNING)
    assert "between 3.6 and 3.6 cells" in said[1]


def test_the_accuracy_asked_for_is_met_or_the_step_fails() -> None:
    problem = problem_of({"noise": Entropy(1.0)}, bump(1.0))
    gaps = []
    for accuracy in (1e-3, 1e-6, 1e-11):
        flow, scheme = flow_of(problem, (50,), accuracy=accuracy)
        start = flow.start()
        gaps.append(flow.advance(start, TAU).widest)
        assert gaps[-1] <= accuracy * abs(scheme.value(start.points))
    assert gaps[2] < gaps[0]
    flow, _ = flow_of(problem, (50,), accuracy=1e-18)
    with pytest.raises(StepFailed, match=r"a step has a duality gap of .*use a larger `accuracy` or tau, or fewer cells") as failed:
        flow.advance(flow.start(), TAU)
    assert failed.value.status is Status.NOT_CONVERGED


def test_a_state_can_be_restored_and_runs_repeat_to_the_same_bits() -> None:
    problem = problem_of({"noise": Entropy(0.5), "pull": interaction(WIDE, "-exp(-theta**2)")}, bump(1.0), end=2.0)
    flow, _ = flow_of(problem, (40,), 1.0)
    state = flow.advance(flow.start(), 2.0)
    again, _ = flow_of(problem, (40,), 1.0)
    one, other = flow.advance(state, 2.0), again.advance(again.restore(state_values(state)), 2.0)
    assert np.array_equal(one.points, other.points)
    assert flow.notes == again.notes or one.balance == other.balance


def test_atoms_begin_as_cell_averages() -> None:
    domain = line()
    atoms = Particles(np.array([[-1.0], [1.3]]), np.array([0.25, 0.75]))
    run = run_of(Problem(EnergySum({"well": quadratic()}), domain, atoms, (1.0,)), (40,), 1.0)
    assert isinstance(run.final, Density)
    assert float(run.final.weights @ run.final.points[:, 0]) == pytest.approx(0.5 * (-0.25 + 0.75 * 1.3), abs=0.1)


def test_what_does_not_fit_is_refused() -> None:
    from mfpde.disk import Disk

    terms: dict[str, Energy] = {"noise": Entropy(1.0)}
    problem = problem_of(terms, bump(1.0))
    with pytest.raises(
        ValueError, match=r"at most 2000 cells, got 2001; use fewer cells, or method = \"quantile\".*\"back_and_forth\".*\"entropic\""
    ):
        check(problem, (2001,))
    with pytest.raises(ValueError, match="at most 2000 cells, got 2500"):
        MinimizingMovement(TAU, method="transport", cells=(50, 50)).check(problem_of(terms, bump(1.0), box(2)))
    with pytest.raises(ValueError, match="cells needs one number for each of the 1 axes"):
        check(problem, (20, 20))
    still = Domain((Axis("x", -1.0, 1.0, frozen=True),))
    with pytest.raises(ValueError, match="needs an axis along which mass moves, but all axes are frozen"):
        check(problem_of(terms, bump(1.0), still), (20,))
    disk = Disk(("x", "y"), 1.0)
    with pytest.raises(ValueError, match="for boxes, not disks; use finite_volume"):
        check(Problem(EnergySum(terms), disk, DensityFunction(bump(1.0), disk), (1.0,)), (10, 10))
    wall = Potential(lambda p: p[:, 0], lambda p: np.ones_like(p), obstacle=lambda p: p[:, 0] - 1.0)
    with pytest.raises(ValueError, match='knows no obstacles; use method = "back_and_forth"'):
        check(problem_of({"wall": wall}, bump(1.0)), (20,))
    with pytest.raises(ValueError, match="has no way to treat the energy term crowd"):
        check(problem_of({"crowd": Incompressible()}, bump(1.0)), (20,))
    with pytest.raises(ValueError, match="order = 2 is for method = quantile or residual"):
        MinimizingMovement(TAU, method="transport", cells=(20,), order=2).check(problem)


def test_mass_in_one_cell_moves_and_a_grid_of_one_is_refused() -> None:
    spike = problem_of({"well": quadratic()}, lambda p: (np.abs(p[:, 0] - 1.0) < 0.05).astype(float), end=2.0)
    run = MinimizingMovement(2.0, "transport", (80,)).solve(spike)
    assert run.status is Status.DONE
    assert np.count_nonzero(run.final.weights) <= 2
    assert run.total_energy[-1] < 0.1
    with pytest.raises(ValueError, match="at least two cells"):
        MinimizingMovement(0.5, "transport", (1,)).solve(problem_of({"heat": Entropy(1.0)}, bump(1.0)))
