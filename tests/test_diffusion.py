"""Diffusion against exact solutions: walls, wells and free boundaries, with explicit and implicit steps."""

import numpy as np
import pytest
from conftest import alone, assert_certified, box, bump, l1_distance, line, observed_order, quadratic
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import beta, gamma

from mfpde.energy import EnergySum, Entropy, Potential, Power
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.solvers import FiniteVolume
from mfpde.solvers.finite_volume import Explicit, Implicit, ImplicitEuler, Stepper

BOTH = pytest.mark.parametrize("stepper", [Explicit(), Implicit()])

# --- linear diffusion ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("dimension", "sizes"), [(2, [12, 20, 32]), (3, [8, 12, 16])])
def test_heat_in_a_box_converges_with_order_two(dimension, sizes, stepper):
    domain, temperature, height = box(dimension, 0.0, 1.0), 0.1, 0.8

    def exact(time):
        decay = np.exp(-dimension * np.pi**2 * temperature * time)
        return DensityFunction(lambda p: 1.0 + height * decay * np.prod(np.cos(np.pi * p), axis=1), domain)

    problem, errors = Problem(alone(Entropy(temperature)), domain, exact(0.0), (0.5,)), []
    for cells in sizes:
        run = FiniteVolume((cells,) * dimension, tolerance=1e-7, stepper=stepper).solve(problem)
        assert_certified(run)
        errors.append(l1_distance(run.final, exact(0.5)))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


@BOTH
def test_drift_and_diffusion_between_walls_converge_with_order_two(stepper):
    """ρ_t = (ρ_x − gρ)_x with no flux at 0 and 1 [Carrillo–Chertock–Huang 2015; the wave decays like e^{−(π² + g²/4)t}]."""
    domain, g = line(0.0, 1.0), 1.0
    a = np.pi**2 + 0.25 * g * g

    def exact(t: float) -> DensityFunction:
        def density(p):
            x = p[:, 0]
            wave = np.pi * np.cos(np.pi * x) + 0.5 * g * np.sin(np.pi * x)
            return np.exp(-a * t + 0.5 * g * x) * wave + np.pi * np.exp(g * (x - 0.5))

        return DensityFunction(density, domain)

    energy = EnergySum({"drift": Potential(lambda p: -g * p[:, 0], lambda p: -g * np.ones_like(p)), "entropy": Entropy(1.0)})
    sizes, errors = [16, 32, 64, 128], []
    for cells in sizes:
        run = FiniteVolume((cells,), tolerance=1e-9, stepper=stepper).solve(Problem(energy, domain, exact(0.0), (0.1,)))
        assert_certified(run)
        errors.append(l1_distance(run.final, exact(0.1)))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(("dimension", "sizes"), [(1, [32, 64, 128]), (2, [16, 24, 36])])
def test_the_ornstein_uhlenbeck_process_converges_with_order_two_in_explicit_steps(dimension, sizes):
    temperature, time = 0.2, 0.5
    domain, spread = box(dimension, -3.0, 3.0), np.sqrt(temperature + (0.36 - temperature) * np.exp(-2 * time))
    energy = EnergySum({"potential": quadratic(), "entropy": Entropy(temperature)})
    exact = DensityFunction(bump(float(spread), 0.5 * np.exp(-time)), domain)
    problem, errors = Problem(energy, domain, DensityFunction(bump(0.6, 0.5), domain), (time,)), []
    for cells in sizes:
        run = FiniteVolume((cells,) * dimension, tolerance=1e-6, stepper=Explicit()).solve(problem)
        assert_certified(run)
        errors.append(l1_distance(run.final, exact))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


# --- free boundaries -----------------------------------------------------------------------------------------------------


class Barenblatt:
    """t^{−db} (C − k |x|² t^{−2b})_+^{1/(m−1)} of mass one, b = 1/(d(m − 1) + 2) [Barenblatt 1952]."""

    def __init__(self, exponent: float, dimension: int) -> None:
        m, d = exponent, dimension
        self.dimension, self.power, self.b = d, 1.0 / (m - 1.0), 1.0 / (d * (m - 1.0) + 2.0)
        self.k = self.b * (m - 1.0) / (2.0 * m)
        unit = np.pi ** (0.5 * d) / gamma(0.5 * d) * beta(0.5 * d, self.power + 1.0) * self.k ** (-0.5 * d)
        self.c = unit ** (-1.0 / (self.power + 0.5 * d))

    def front(self, t: float) -> float:
        return float(np.sqrt(self.c / self.k) * t**self.b)

    def at(self, t: float):
        scale = t**-self.b
        return lambda x: scale**self.dimension * np.maximum(self.c - self.k * scale**2 * np.sum(x**2, axis=1), 0.0) ** self.power


def barenblatt_error(
    exponent: float, cells: int, margin: float, dimension: int = 1, stepper: Stepper | None = None, tolerance: float = 1e-8
) -> float:
    """L¹ error at t = 2 of the run from t = 1, the walls being ``margin`` times as far away as the last front."""
    profile = Barenblatt(exponent, dimension)
    domain = box(dimension, -margin * profile.front(2.0), margin * profile.front(2.0))
    start, end = (DensityFunction(profile.at(t), domain) for t in (1.0, 2.0))
    run = FiniteVolume((cells,) * dimension, tolerance, stepper=stepper).solve(Problem(alone(Power(exponent)), domain, start, (1.0,)))
    assert_certified(run)
    return l1_distance(run.final, end)


@pytest.mark.parametrize(("exponent", "dimension"), [(1.5, 1), (3.0, 1), (2.0, 2)])
def test_the_barenblatt_profile_has_mass_one_and_solves_its_equation(exponent, dimension):
    profile, domain, gap = Barenblatt(exponent, dimension), box(dimension), 1e-4
    assert DensityFunction(profile.at(1.0), domain).averages(domain.grid((400,) * dimension)).mean() * domain.volume == pytest.approx(
        1.0, abs=1e-4
    )
    radius = np.linspace(0.1, 0.5, 5) * profile.front(1.0)

    def density(r, t=1.0):
        return profile.at(t)(r[:, None])

    def outflow(r):
        return r ** (dimension - 1) * (density(r + gap) ** exponent - density(r - gap) ** exponent) / (2 * gap)

    rate = (density(radius, 1.0 + gap) - density(radius, 1.0 - gap)) / (2 * gap)
    assert rate == pytest.approx((outflow(radius + gap) - outflow(radius - gap)) / (2 * gap * radius ** (dimension - 1)), abs=1e-6)


@pytest.mark.parametrize(("exponent", "order"), [(1.5, 1.99), (2.0, 1.85), (3.0, 1.39), (4.0, 1.28)])
def test_barenblatt_profiles_converge_as_their_free_boundary_lets_them(exponent, order):
    """Best approximation by cell averages would give min(2, 1 + 1/(m − 1))."""
    sizes = [round(n) for n in np.geomspace(40, 1000 if exponent <= 3.0 else 500, 14)]
    assert observed_order(sizes, [barenblatt_error(exponent, n, 1.3) for n in sizes]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("exponent", "most", "order"),
    [(2.0, 48, 1.65), *(pytest.param(*values, marks=pytest.mark.long) for values in ((3.0, 48, 1.6), (2.0, 160, 1.75), (3.0, 160, 1.4)))],
)
def test_barenblatt_profiles_in_the_plane_converge_as_their_free_boundary_lets_them(exponent, most, order):
    sizes = [round(n) for n in np.geomspace(16 if most < 100 else 24, most, 12)]
    assert observed_order(sizes, [barenblatt_error(exponent, n, 1.2, 2, tolerance=1e-6) for n in sizes]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("exponent", "dimension", "cells"), [(1.5, 1, 150), (2.0, 1, 150), (3.0, 1, 150), (4.0, 1, 150), (2.0, 2, 40)])
def test_explicit_and_implicit_steps_make_the_same_barenblatt_profile(exponent, dimension, cells):
    one, two = (barenblatt_error(exponent, cells, 1.25, dimension, stepper, 1e-7) for stepper in (Explicit(), Implicit()))
    print(f"m = {exponent}, {dimension}-D: explicit {one:.3e}, implicit {two:.3e}")
    assert one == pytest.approx(two, rel=0.02)


@pytest.mark.long
@pytest.mark.parametrize(("exponent", "order"), [(1.5, 2.0), (2.0, 1.86), (3.0, 1.48), (4.0, 1.34)])
def test_barenblatt_errors_averaged_over_the_place_of_the_front_in_its_cell(exponent, order):
    """The error of one grid depends on where the front is in its cell; the mean over eight places does so no more.

    With slopes of ρ instead of ρ^{m−1} the means have orders 1.85 for m = 1.5 and 1.35 for m = 3.
    """
    sizes, mean = [40, 80, 160, 320, 640], []
    for cells in sizes:
        margins = [1.25 * (1.0 + k / 8 * 2.5 / cells) for k in range(8)]
        mean.append(float(np.mean([barenblatt_error(exponent, cells, margin) for margin in margins])))
    assert observed_order(sizes, mean) == pytest.approx(order, abs=0.1)


# --- wells ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", [Explicit(), Implicit(), ImplicitEuler()])
def test_porous_medium_in_a_well_reaches_its_profile(stepper):
    """2ρ + x²/2 is constant on the support: ρ = (a² − x²)_+/4 with a³ = 3."""
    domain, edge = line(), 3.0 ** (1.0 / 3.0)
    energy = EnergySum({"internal": Power(2.0), "well": quadratic()})
    run = FiniteVolume((160,), stepper=stepper).solve(Problem(energy, domain, DensityFunction(bump(1.0), domain), (6.0,)))
    assert_certified(run)
    error = l1_distance(run.final, DensityFunction(lambda p: np.maximum(edge**2 - p[:, 0] ** 2, 0.0), domain))
    print(f"L1 error {error:.2e}, energy rise {run.certificate.energy_rise():.1e}")
    assert error <= 1e-4


def profile_in_a_well(exponent: float, half: float):
    """ρ with m/(m − 1) ρ^{m−1} + x²/2 = μ where ρ > 0, of mass one on [−half, half]."""
    share = (exponent - 1.0) / exponent

    def density(x, mu):
        return np.maximum(share * (mu - 0.5 * x * x), 0.0) ** (1.0 / (exponent - 1.0))

    def excess(mu):
        end = min(half, np.sqrt(2.0 * mu)) if exponent > 1.0 else half
        return quad(density, 0.0, end, args=(mu,), epsabs=1e-13)[0] - 0.5

    mu = brentq(excess, 1e-3, 10.0) if exponent > 1.0 else brentq(excess, -10.0, -1e-2)
    return lambda p: density(p[:, 0], mu)


def errors_in_a_well(exponent: float, stepper: Stepper, sizes) -> list[float]:
    """L¹ errors at t = 1000."""
    domain, errors = line(), []
    energy = EnergySum({"internal": Power(exponent), "well": quadratic()})
    for cells in sizes:
        run = FiniteVolume((cells,), stepper=stepper).solve(Problem(energy, domain, DensityFunction(bump(1.0), domain), (1e3,)))
        assert_certified(run)
        errors.append(l1_distance(run.final, DensityFunction(profile_in_a_well(exponent, 4.0), domain)))
    return errors


@pytest.mark.parametrize("stepper", [Implicit(), ImplicitEuler()])
@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_nonlinear_diffusion_in_a_well_ends_in_its_profile(exponent, stepper):
    sizes = [50, 70, 100, 140, 200, 280]
    assert observed_order(sizes, errors_in_a_well(exponent, stepper, sizes)) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("exponent", [3.0, 4.0])
def test_steep_fronts_at_rest_are_wrong_in_their_last_cell_only(exponent):
    """Where ρ ∼ distance^{1/(m−1)}, the cell with the front holds an error of at most h^{1 + 1/(m−1)}, which depends on its place."""
    sizes = [round(n) for n in np.geomspace(40, 400, 14)]
    errors = errors_in_a_well(exponent, Implicit(), sizes)
    observed_order(sizes, errors)
    assert np.max(np.array(errors) * (np.array(sizes) / 8.0) ** (1.0 + 1.0 / (exponent - 1.0))) <= 1.0
