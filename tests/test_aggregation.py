"""Interactions on their way and at rest: exact transients, decay rates, metastable states, and mass above and below the critical one."""

import numpy as np
import pytest
from conftest import alone, assert_certified, box, bump, interaction, l1_distance, line, observed_order

from mfpde.distance import wasserstein
from mfpde.domain import Grid
from mfpde.energy import EnergySum, Entropy, Power
from mfpde.measure import Density, DensityFunction
from mfpde.problem import Problem
from mfpde.solvers import FiniteVolume
from mfpde.solvers.finite_volume import Explicit, Implicit, ImplicitEuler

BOTH = pytest.mark.parametrize("stepper", [Explicit(), Implicit()])


def from_masses(grid: Grid, below) -> Density:
    """Cell averages from the mass below each edge."""
    return Density(grid, np.diff(below(grid.edges(0))) / grid.cell_volume)


# --- W = x²/2 − |x|: (W*ρ)'' = 1 − 2ρ, so that ρ = 1/2 on [−1, 1] is at rest, and quantiles go to 2s − 1 like e^{−t} ----------

NEWTONIAN = "theta**2/2 - r"


def attracted(grid: Grid, time: float) -> Density:
    """X(s, t) = 2s − 1 + e^{−t}(X₀(s) − 2s + 1) from the density (1 + 0.8 cos πx)/2 on [−1, 1], which the flow does not leave."""
    places = np.linspace(-1.0, 1.0, 200_001)
    below = 0.5 + 0.5 * places + 0.4 * np.sin(np.pi * places) / np.pi
    moved = (2.0 * below - 1.0) * (1.0 - np.exp(-time)) + np.exp(-time) * places
    return from_masses(grid, lambda edges: np.interp(edges, moved, below))


@BOTH
def test_attraction_with_newtonian_repulsion_follows_its_quantiles_with_order_two(stepper):
    domain, sizes, first, second = line(-1.0, 1.0), [50, 100, 200], [], []
    start = DensityFunction(lambda p: 1.0 + 0.8 * np.cos(np.pi * p[:, 0]), domain)
    problem = Problem(alone(interaction(domain, NEWTONIAN)), domain, start, (0.5,))
    for cells in sizes:
        run = FiniteVolume((cells,), tolerance=1e-7, stepper=stepper).solve(problem)
        assert_certified(run)
        first.append(l1_distance(run.final, attracted(run.final.grid, 0.5)))
        second.append(wasserstein(run.final, attracted(Grid(domain, (8000,)), 0.5), domain).value)
    assert observed_order(sizes, first) == pytest.approx(2.0, abs=0.15)
    assert observed_order(sizes, second) == pytest.approx(2.0, abs=0.15)


@BOTH
def test_attraction_with_newtonian_repulsion_approaches_the_uniform_state_like_exp_minus_t(stepper):
    domain, times = line(-2.0, 2.0), (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    problem = Problem(alone(interaction(domain, NEWTONIAN)), domain, DensityFunction(bump(0.4), domain), (*times, 12.0))
    run = FiniteVolume((400,), stepper=stepper).solve(problem)
    assert_certified(run)
    uniform = from_masses(Grid(domain, (8000,)), lambda edges: 0.5 * np.clip(edges, -1.0, 1.0))
    distances = [wasserstein(measure, uniform, domain).value for measure in run.measures[:-1]]
    rate = -float(np.polyfit(times, np.log(distances), 1)[0])
    print(f"W2 to the uniform state {[f'{d:.2e}' for d in distances]}, rate {rate:.4f}")
    assert rate == pytest.approx(1.0, abs=0.01)
    values, x = np.ravel(run.final.values), run.final.points[:, 0]
    assert values[np.abs(x) < 0.95] == pytest.approx(0.5, abs=1e-3)
    assert np.max(values[np.abs(x) > 1.05]) <= 1e-3


# --- W = |x|²/2 − log|x| -------------------------------------------------------------------------------------------------


def semicircle(grid: Grid, radius: float) -> Density:
    def below(edges):
        x = np.clip(edges / radius, -1.0, 1.0)
        return (x * np.sqrt(1.0 - x * x) + np.arcsin(x)) / np.pi

    return from_masses(grid, below)


@pytest.mark.parametrize(("stepper", "radius"), [(Explicit(), 2.2), (Implicit(), 0.7)])
def test_a_semicircle_stays_one_with_an_exact_radius(stepper, radius):
    """With PV∫ρ(y)/(x − y)dy = 2x/R² the flow is R' = −R + 2/R: R² = 2 + (R₀² − 2)e^{−2t}; second moment R²/4.

    The order is that of a moving front where ρ ∼ √distance.
    """
    domain, sizes, errors = line(-3.0, 3.0), [50, 70, 100, 140, 200], []
    start = DensityFunction(lambda p: np.sqrt(np.maximum(radius**2 - p[:, 0] ** 2, 0.0)), domain)
    square = 2.0 + (radius**2 - 2.0) * np.exp(-1.0)
    for cells in sizes:
        energy = alone(interaction(domain, "theta**2/2 - log(r)"))
        run = FiniteVolume((cells,), stepper=stepper).solve(Problem(energy, domain, start, (0.5,)))
        assert_certified(run)
        errors.append(l1_distance(run.final, semicircle(run.final.grid, np.sqrt(square))))
    assert observed_order(sizes, errors) == pytest.approx(1.15, abs=0.15)
    assert errors[-1] <= 2e-3
    assert float(run.final.weights @ run.final.points[:, 0] ** 2) == pytest.approx(square / 4.0, rel=2e-3)


def test_the_log_gas_becomes_a_semicircle():
    domain, sizes, errors = line(-2.0, 2.0), [round(n) for n in np.geomspace(40, 240, 12)], []
    energy = alone(interaction(domain, "theta**2/2 - log(r)"))
    for cells in sizes:
        run = FiniteVolume((cells,), stepper=Implicit()).solve(Problem(energy, domain, DensityFunction(bump(0.6), domain), (20.0,)))
        assert_certified(run)
        errors.append(l1_distance(run.final, semicircle(run.final.grid, np.sqrt(2.0))))
    assert observed_order(sizes, errors) == pytest.approx(1.5, abs=0.15)


@BOTH
def test_the_log_gas_in_the_plane_follows_its_characteristics(stepper):
    """r² = M + (r₀² − M)e^{−2t} for the circle that holds the mass M, along which ρ' = 2ρ(1 − πρ)."""
    domain, spread, time = box(2, -2.0, 2.0), 0.45, 0.5
    decay, start = np.exp(-2.0 * time), np.linspace(0.0, 6.0, 40_001)
    mass, height = 1.0 - np.exp(-(start**2) / (2 * spread**2)), np.exp(-(start**2) / (2 * spread**2)) / (2 * np.pi * spread**2)
    radius = np.sqrt(mass + (start**2 - mass) * decay)
    density = height / (decay + np.pi * height * (1.0 - decay))
    exact = DensityFunction(lambda p: np.interp(np.linalg.norm(p, axis=1), radius, density), domain)
    energy, sizes, errors = alone(interaction(domain, "r**2/2 - log(r)")), [20, 28, 40], []
    for cells in sizes:
        problem = Problem(energy, domain, DensityFunction(bump(spread), domain), (time,))
        run = FiniteVolume((cells, cells), tolerance=1e-5, stepper=stepper).solve(problem)
        assert_certified(run)
        errors.append(l1_distance(run.final, exact))
    assert observed_order(sizes, errors) == pytest.approx(1.85, abs=0.15)


def test_the_log_gas_in_the_plane_becomes_a_uniform_disk():
    """Δ(W*ρ) = 2 − 2πρ vanishes: ρ = 1/π on the unit disk."""
    domain = box(2, -1.6, 1.6)
    energy, start = alone(interaction(domain, "r**2/2 - log(r)")), DensityFunction(bump(0.5), domain)
    run = FiniteVolume((48, 48), tolerance=1e-6).solve(Problem(energy, domain, start, (8.0,)))
    assert_certified(run)
    radius, values = np.linalg.norm(run.final.points, axis=1), np.ravel(run.final.values)
    assert values[radius < 0.85] == pytest.approx(1.0 / np.pi, rel=0.01)
    assert np.max(values[radius > 1.1]) <= 2e-3


# --- attraction of short range against pressure [Carrillo–Chertock–Huang 2015]: blobs that wait, and merge -------------------


def metastable(times: tuple[float, ...]) -> Problem:
    """ρ_t = (ρ (νρ² + W*ρ)_x)_x, ν = 1.48: νρ² is m/(m − 1) c ρ^{m−1} with m = 3 and c = 2ν/3."""
    domain = line(-10.5, 10.5)
    energy = EnergySum({"attraction": interaction(domain, "-exp(-theta**2/2)/sqrt(2*pi)"), "pressure": Power(3.0, 1.48 * 2.0 / 3.0)})
    return Problem(energy, domain, DensityFunction(lambda p: 1.0 * (np.abs(p[:, 0]) < 7.5), domain), times)


def blobs(density: Density) -> int:
    """Intervals of density between vacuum."""
    values = np.ravel(density.values)
    full = np.concatenate([[False], values > 1e-3 * np.max(values)])
    return int(np.sum(full[1:] & ~full[:-1]))


def test_a_block_breaks_into_three_blobs_that_wait_and_become_two_and_one():
    """Finer grids merge the last two at t = 910 and 905 (400 and 550 cells)."""
    run = FiniteVolume((210,)).solve(metastable((0.0, 200.0, 300.0, 600.0, 750.0, 1200.0, 1e6)))
    assert_certified(run)
    assert [blobs(measure) for measure in run.measures] == [1, 3, 3, 2, 2, 1, 1]
    time, dissipation = run.certificate["time"], run.certificate["dissipation"]

    def within(low, high):
        return (time > low) & (time < high)

    merging = float(time[np.argmax(np.where(within(700.0, 1200.0), dissipation, 0.0))])
    rises = [float(np.max(dissipation[within(*span)])) for span in ((0.0, 150.0), (350.0, 550.0), (700.0, 1200.0))]
    waits = [float(np.max(dissipation[within(*span)])) for span in ((200.0, 250.0), (580.0, 700.0))]
    print(f"the last two merge at {merging:.0f}; dissipation {', '.join(f'{r:.0e}' for r in rises)}, between them {waits}")
    assert merging == pytest.approx(905.0, rel=0.05)
    assert max(waits) < 0.05 * min(rises)
    values = np.ravel(run.final.values)
    assert values == pytest.approx(values[::-1], abs=0.02 * np.max(values))


def test_explicit_and_implicit_steps_agree_while_blobs_form():
    one, two = (FiniteVolume((150,), stepper=stepper).solve(metastable((30.0, 150.0))) for stepper in (Explicit(), Implicit()))
    assert_certified(one)
    assert_certified(two)
    for explicit, implicit in zip(one.measures, two.measures, strict=True):
        assert l1_distance(explicit, implicit) <= 1e-3


# --- diffusion against W = χ log|x|: d/dt ∫x²ρ = 2T − χ in one dimension [Calvez–Perthame–Sharifi tabar 2007] ---------------


def attracted_by_logarithm(strength: float, times: tuple[float, ...], half: float = 10.0) -> Problem:
    domain = line(-half, half)
    energy = EnergySum({"attraction": interaction(domain, "log(r)", strength), "entropy": Entropy(1.0)})
    return Problem(energy, domain, DensityFunction(bump(1.0), domain), times)


def second_moments(run) -> np.ndarray:
    return np.array([float(m.weights @ m.points[:, 0] ** 2) for m in run.measures])


@BOTH
@pytest.mark.parametrize("strength", [0.5, 1.8, 2.0])
def test_up_to_the_critical_mass_the_second_moment_grows_at_its_rate(strength, stepper):
    run = FiniteVolume((200,), stepper=stepper).solve(attracted_by_logarithm(strength, (0.0, 0.5, 1.0)))
    assert_certified(run)
    rates = np.diff(second_moments(run)) / 0.5
    print(f"rates {rates}")
    assert rates == pytest.approx(2.0 - strength, abs=3e-3)


@pytest.mark.parametrize(("strength", "stepper"), [(3.0, Explicit()), (3.0, Implicit()), (6.0, Implicit()), (6.0, ImplicitEuler())])
def test_above_the_critical_mass_it_falls_at_its_rate_and_collapses_into_a_cell(strength, stepper):
    fall = strength - 2.0
    times = (0.0, 0.1 / fall, 0.2 / fall, 0.3 / fall, 0.4 / fall, 4.0 / fall)
    run = FiniteVolume((150,), stepper=stepper).solve(attracted_by_logarithm(strength, times, 6.0))
    assert_certified(run)
    moments = second_moments(run)
    print(f"moments {moments}, heaviest cell {np.max(run.final.weights):.3f}")
    assert moments[:5] == pytest.approx(moments[0] - fall * np.array(times[:5]), abs=6e-3)
    assert moments[-1] < 0.1
    assert np.max(run.final.weights) > 0.9
