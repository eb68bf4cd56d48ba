"""The back-and-forth method against minimising movements in closed form; its transforms and pullbacks by themselves."""

import numba
import numpy as np
import pytest
from conftest import observed_order
from scipy.optimize import brentq

from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import Entropy, Power
from mfpde.solvers.jko.back_and_forth import BackAndForth, BackAndForthStep, Incompressible
from mfpde.solvers.kernels.legendre import c_transform
from mfpde.solvers.kernels.pushforward import fill_cumulative, fill_residual

SPREAD, DIFFUSION = 0.25, 0.2


def square(cells: int, half: float, dimension: int = 2) -> Grid:
    return Domain(tuple(Axis(name, -half, half) for name in "xy"[:dimension])).grid((cells,) * dimension)


def radii(grid: Grid) -> np.ndarray:
    return np.sum(grid.centers**2, axis=1).reshape(grid.cells)


def unit_mass(values: np.ndarray, grid: Grid) -> np.ndarray:
    return values / (np.sum(values) * grid.cell_volume)


def gaussian(grid: Grid, variance: float) -> np.ndarray:
    return unit_mass(np.exp(-0.5 * radii(grid) / variance), grid)


def averages(grid: Grid, function, parts: int = 8) -> np.ndarray:
    """Cell averages of a function of |x|²."""
    cells = grid.cells[0]
    fine = grid.domain.grid((parts * cells, parts * cells))
    return function(radii(fine)).reshape(cells, parts, cells, parts).mean(axis=(1, 3))


def disk(grid: Grid, radius: float, height: float = 1.0) -> np.ndarray:
    return averages(grid, lambda square: height * (square < radius**2))


def l1(grid: Grid, one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sum(np.abs(one - other))) * grid.cell_volume


def dissipation(method: BackAndForth, before: np.ndarray, step: BackAndForthStep) -> float:
    return method.energy(before) - step.energy - step.square_distance / (2.0 * method.tau)


def assert_sound(method: BackAndForth, before: np.ndarray, step: BackAndForthStep, slack: float = 1e-12) -> None:
    """The mass, the sign and the balance of energy."""
    assert np.sum(step.rho) == pytest.approx(np.sum(before), rel=1e-12)
    assert np.min(step.rho) >= 0.0
    assert step.energy == pytest.approx(method.energy(step.rho), rel=1e-12)
    assert dissipation(method, before, step) >= -slack


# --- transforms and pullbacks ---------------------------------------------------------------------------------------------


def transformed(potential: np.ndarray, stiffness: tuple[float, float]) -> np.ndarray:
    out = np.empty_like(potential)
    c_transform(potential, stiffness, np.empty_like(potential), out)
    return out


def by_all_pairs(potential: np.ndarray, stiffness: tuple[float, float]) -> np.ndarray:
    i, j = (np.arange(n) for n in potential.shape)
    rows = stiffness[0] * (i[:, None] - i) ** 2
    columns = stiffness[1] * (j[:, None] - j) ** 2
    costs = rows[:, None, :, None] + columns[None, :, None, :] - potential[None, None]
    return np.asarray(costs.min(axis=(2, 3)))


@pytest.mark.parametrize("shape", [(23, 17), (1, 40), (40, 1)])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_transforms_lie_just_below_the_least_over_grid_points(shape, size):
    """Interpolation between grid points lowers the minimum by less than it changes to the neighbours of the minimiser."""
    potential = size * np.random.default_rng(1).standard_normal(shape)
    stiffness = (0.3, 0.7)
    found, least = transformed(potential, stiffness), by_all_pairs(potential, stiffness)
    assert np.all(found <= least + 1e-12 * size)
    assert np.max(least - found) <= 0.5 * (sum(stiffness) + 4.0 * np.max(np.abs(potential)))


def test_transforms_of_quadratic_potentials_are_exact():
    i, j = np.meshgrid(np.arange(60.0), np.arange(50.0), indexing="ij")
    a, bend, centre = 0.4, 0.1, (27.3, 22.6)
    potential = -bend * ((i - centre[0]) ** 2 + (j - centre[1]) ** 2)
    exact = a * bend / (a + bend) * ((i - centre[0]) ** 2 + (j - centre[1]) ** 2)
    assert np.max(np.abs(transformed(potential, (a, a)) - exact)) < 1e-11


def test_transforms_of_smooth_potentials_converge_with_order_four_or_more():
    tau, sizes, errors = 0.1, [32, 64, 128, 256], []
    fine = np.linspace(0.0, 1.0, 20001)

    def potential(x):
        return 0.6 * np.cos(np.pi * x) + 0.2 * np.cos(2.0 * np.pi * x)

    for n in sizes:
        x = (np.arange(n) + 0.5) / n
        exact = np.array([np.min((fine - y) ** 2 / (2.0 * tau) - potential(fine)) for y in x])
        errors.append(float(np.max(np.abs(transformed(potential(x)[None], (0.0, 0.5 / (n * n * tau)))[0] - exact))))
    assert observed_order(sizes, errors) > 3.7


def pulled_back(phi: np.ndarray, mu: np.ndarray, times: tuple[float, float]) -> np.ndarray:
    n1, n2 = mu.shape
    parts = (np.empty((n1, n2)), np.empty((n1, n2 + 1)), np.empty((n1, n2)))
    fill_cumulative(mu, *parts)
    out = np.empty((n1, n2))
    fill_residual(phi, *parts, np.zeros((n1, n2)), *times, out, np.empty((n1, 2)))
    return -out


def test_pullbacks_keep_the_mass_and_the_identity_keeps_all():
    grid = square(40, 1.0)
    mu = gaussian(grid, 0.02)
    x, y = grid.centers.T.reshape(2, 40, 40)
    phi = 0.05 * np.exp(-12.0 * (x**2 + y**2))
    times = (0.05 / grid.spacing[0] ** 2, 0.05 / grid.spacing[1] ** 2)
    moved = pulled_back(phi, mu, times)
    assert np.sum(moved) == pytest.approx(np.sum(mu), rel=1e-5)
    assert np.max(np.abs(moved - mu)) > 0.1
    assert np.max(np.abs(pulled_back(0.0 * phi, mu, times) - mu)) < 1e-2 * np.max(mu)


# --- one step in closed form ------------------------------------------------------------------------------------------------


def one_step(name: str, cells: int, tau: float, dimension: int = 2, tolerance: float = 1e-4) -> tuple[float, float, float]:
    """L¹ error, relative error of W₂² and dissipation of a step from a Gaussian."""
    grid = square(cells, 2.5, dimension)
    root = np.sqrt(SPREAD)
    deviation = {
        "contraction": root / (1.0 + tau),
        "heat": 0.5 * (root + np.sqrt(SPREAD + 4.0 * DIFFUSION * tau)),
        "Ornstein–Uhlenbeck": 0.5 * (root + np.sqrt(SPREAD + 4.0 * DIFFUSION * tau * (1.0 + tau))) / (1.0 + tau),
    }[name]
    potential = 0.0 * radii(grid) if name == "heat" else 0.5 * radii(grid)
    method = BackAndForth(grid, None if name == "contraction" else Entropy(DIFFUSION), potential, tau, tolerance)
    before = gaussian(grid, SPREAD)
    step = method.step(before)
    assert_sound(method, before, step)
    square_distance = dimension * (deviation - root) ** 2
    return l1(grid, step.rho, gaussian(grid, deviation**2)), step.square_distance / square_distance - 1.0, dissipation(method, before, step)


@pytest.mark.parametrize(("name", "tau"), [("contraction", 0.1), ("heat", 0.02), ("Ornstein–Uhlenbeck", 0.1)])
def test_steps_from_gaussians_in_the_plane_converge_with_order_two(name, tau):
    sizes = [32, 48, 64, 96]
    found = [one_step(name, n, tau) for n in sizes]
    assert observed_order(sizes, [error for error, _, _ in found]) > 1.5
    assert found[-1][0] < (7e-4 if name == "contraction" else 3e-4)
    assert abs(found[-1][1]) < 5e-3


@pytest.mark.parametrize("name", ["contraction", "heat", "Ornstein–Uhlenbeck"])
def test_steps_from_gaussians_on_a_line_converge(name):
    errors = [one_step(name, n, 0.1, 1)[0] for n in (32, 64)]
    print(name, errors)
    assert errors[1] < 0.45 * errors[0]
    assert errors[1] < 3e-4


def barenblatt(grid: Grid, exponent: float, radius: float) -> np.ndarray:
    """(1 − |x|²/R²)^{1/(m−1)} where that is positive, or (1 + |x|²/R²)^{−1/(1−m)}, of mass one."""
    sign, power = np.sign(exponent - 1.0), 1.0 / (exponent - 1.0)
    return unit_mass(averages(grid, lambda square: np.maximum(1.0 - sign * square / radius**2, 0.0) ** power), grid)


def next_radius(exponent: float, tau: float, radius: float) -> float:
    """The pressures of these profiles are quadratic, so that steps only stretch them: R − τ|p'(R)| = R₀."""
    power = 1.0 / (exponent - 1.0)

    def gap(r):
        height = abs(1.0 + power) / (np.pi * r**2)
        return r - 2.0 * tau * exponent / abs(exponent - 1.0) * height ** (exponent - 1.0) / r - radius

    return float(brentq(gap, radius, 4.0 * radius))


def barenblatt_error(exponent: float, cells: int, steps: int, tolerance: float, tau: float = 1e-3) -> tuple[float, float]:
    """L¹ errors after some steps: against exact minimising movements, and the change in all."""
    grid, radius = square(cells, 0.5), 0.3
    start = rho = barenblatt(grid, exponent, radius)
    method = BackAndForth(grid, Power(exponent), 0.0 * rho, tau, tolerance)
    phi = None
    for _ in range(steps):
        step = method.step(rho, phi)
        assert_sound(method, rho, step)
        rho, phi, radius = step.rho, step.phi, next_radius(exponent, tau, radius)
    exact = barenblatt(grid, exponent, radius)
    return l1(grid, rho, exact), l1(grid, start, exact)


@pytest.mark.parametrize(("exponent", "order", "most"), [(2.0, 1.8, 6e-4), (4.0, 1.0, 4e-3)])
def test_porous_media_converge_to_exact_minimising_movements(exponent, order, most):
    sizes = [32, 48, 64, 96]
    found = [barenblatt_error(exponent, n, 3, 1e-3) for n in sizes]
    print(found)
    assert observed_order(sizes, [error for error, _ in found]) > order
    assert found[-1][0] < most


def test_a_loose_tolerance_is_met_and_said_so():
    grid = square(128, 0.5)
    rho = barenblatt(grid, 2.0, 0.3)
    method = BackAndForth(grid, Power(2.0), 0.0 * rho, 1e-3, 1e-2)
    step = method.step(rho)
    assert step.converged
    assert step.residual <= 1e-2
    assert step.iterations < 20
    assert l1(grid, step.rho, barenblatt(grid, 2.0, next_radius(2.0, 1e-3, 0.3))) < 5e-3


def test_fast_diffusion_converges_to_exact_minimising_movements():
    sizes, errors, tau = [32, 64, 128], [], 2e-3
    for n in sizes:
        grid = square(n, 2.5)
        before = barenblatt(grid, 0.8, 0.8)
        method = BackAndForth(grid, Power(0.8), 0.0 * before, tau, 1e-3)
        step = method.step(before)
        assert_sound(method, before, step)
        errors.append(l1(grid, step.rho, barenblatt(grid, 0.8, next_radius(0.8, tau, 0.8))))
    assert observed_order(sizes, errors) > 1.5
    assert errors[-1] < 1e-3


# --- the incompressible limit and obstacles -----------------------------------------------------------------------------------


def test_an_incompressible_crowd_gathers_until_it_is_dense():
    """V = |x|²/2 contracts a disk of density 1/2 by 1 + τ a step, until it is a disk of density 1."""
    grid, tau, radius = square(64, 1.5), 0.1, 1.0
    rho = disk(grid, radius, 0.5)
    mass = np.sum(rho)
    method = BackAndForth(grid, Incompressible(), 0.5 * radii(grid), tau, 1e-2)
    phi = None
    for _ in range(6):
        step = method.step(rho, phi)
        assert np.sum(step.rho) == pytest.approx(mass, rel=1e-10)
        assert np.min(step.rho) >= 0.0
        assert np.max(step.rho) <= 1.0 + 1e-3
        assert dissipation(method, rho, step) >= -5e-3
        rho, phi = step.rho, step.phi
    error = l1(grid, rho, disk(grid, np.sqrt(0.5))) / (mass * grid.cell_volume)
    print("share of the mass out of place:", error)
    assert error < 0.03


def test_obstacles_stay_empty():
    grid = square(64, 1.0)
    x, y = grid.centers.T.reshape(2, 64, 64)
    obstacle = (np.abs(x) < 0.1) & (np.abs(y) < 0.5)
    before = disk(grid, 1.0, 0.0) + 1.0 * ((x + 0.5) ** 2 + y**2 < 0.3**2)
    for internal in (Power(2.0), Incompressible()):
        method = BackAndForth(grid, internal, 0.5 - 0.5 * x, 0.05, 1e-2, obstacles=obstacle)
        step = method.step(before)
        assert np.all(step.rho[obstacle] == 0.0)
        assert np.sum(step.rho) == pytest.approx(np.sum(before), rel=1e-10)
        assert np.sum(step.rho * x) > np.sum(before * x)
        assert np.isfinite(step.energy)


# --- results and input --------------------------------------------------------------------------------------------------------


def test_steps_do_not_depend_on_the_number_of_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    grid = square(256, 0.5)
    rho, found = barenblatt(grid, 2.0, 0.3), []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        found.append(BackAndForth(grid, Power(2.0), 0.0 * rho, 1e-3, 3e-2).step(rho))
    assert np.array_equal(found[0].rho, found[1].rho)
    assert np.array_equal(found[0].psi, found[1].psi)


def test_a_step_depends_on_nothing_but_its_arguments():
    grid = square(32, 0.5)
    rho = barenblatt(grid, 2.0, 0.25)
    method = BackAndForth(grid, Power(2.0), 0.0 * rho, 1e-3, 1e-2)
    first = method.step(rho)
    again = method.step(first.rho, first.phi)
    other = BackAndForth(grid, Power(2.0), 0.0 * rho, 1e-3, 1e-2).step(first.rho, first.phi)
    assert np.array_equal(again.rho, other.rho)
    assert again.iterations == other.iterations


def test_an_axis_makes_no_difference():
    grid = square(48, 2.5)
    x, y = grid.centers.T.reshape(2, 48, 48)
    before = unit_mass(np.exp(-2.0 * x**2 - 3.0 * (y - 0.2) ** 2), grid)
    method = BackAndForth(grid, Entropy(DIFFUSION), 0.0 * before, 0.1, 3e-3)
    one, other = method.step(before).rho, BackAndForth(grid, Entropy(DIFFUSION), 0.0 * before, 0.1, 3e-3).step(before.T.copy()).rho
    assert l1(grid, one, other.T) < 2e-3


def test_what_cannot_be_reached_is_not_called_converged():
    grid = square(24, 0.5)
    rho = barenblatt(grid, 2.0, 0.2)
    step = BackAndForth(grid, Power(2.0), 0.0 * rho, 1e-3, 1e-9).step(rho)
    assert not step.converged
    assert step.residual > 1e-9


def test_wrong_input_is_named():
    grid = square(8, 1.0)
    flat = np.zeros((8, 8))
    round_trip = Domain((Axis("x", 0.0, 1.0, periodic=True), Axis("y", 0.0, 1.0))).grid((8, 8))
    with pytest.raises(ValueError, match="walls"):
        BackAndForth(round_trip, Entropy(1.0), flat, 0.1)
    with pytest.raises(ValueError, match="one or two axes"):
        BackAndForth(Domain(tuple(Axis(n, 0.0, 1.0) for n in "xyz")).grid((2, 2, 2)), Entropy(1.0), np.zeros((2, 2, 2)), 0.1)
    with pytest.raises(ValueError, match="tau"):
        BackAndForth(grid, Entropy(1.0), flat, 0.0)
    with pytest.raises(ValueError, match="potential"):
        BackAndForth(grid, Entropy(1.0), flat + np.nan, 0.1)
    with pytest.raises(ValueError, match="potential needs 64 values"):
        BackAndForth(grid, Entropy(1.0), np.zeros(5), 0.1)
    with pytest.raises(ValueError, match="softness"):
        Incompressible(1.0, -1.0)
    with pytest.raises(ValueError, match="64 values"):
        BackAndForth(grid, Entropy(1.0), flat, 0.1).step(np.ones(7))
    with pytest.raises(ValueError, match="first potential"):
        BackAndForth(grid, Entropy(1.0), flat, 0.1).step(flat + 1.0, np.full(64, np.nan))
    with pytest.raises(ValueError, match="most_iterations"):
        BackAndForth(grid, Entropy(1.0), flat, 0.1, most_iterations=0)
    with pytest.raises(ValueError, match="nonnegative"):
        BackAndForth(grid, Entropy(1.0), flat, 0.1).step(flat - 1.0)
    with pytest.raises(ValueError, match="no room"):
        BackAndForth(grid, Incompressible(), flat, 0.1).step(flat + 2.0)
