"""Domains, grids, densities, sampling and moments."""

import numpy as np
import pytest
from conftest import box, line
from hypothesis import given, settings
from hypothesis import strategies as st

from mfpde.domain import Axis, Domain, Grid
from mfpde.measure import Density, DensityFunction, Particles, covariance, deposit, mean


def gaussian(centre: float, spread: float):
    return lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / (2 * spread**2))


def test_an_axis_needs_finite_increasing_bounds():
    for lower, upper in ((1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="finite lower < upper"):
            Axis("x", lower, upper)
    with pytest.raises(ValueError, match="both periodic and frozen"):
        Axis("x", 0, 1, periodic=True, frozen=True)


@given(st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None)
def test_confined_and_reflected_points_lie_in_the_box(x, y):
    domain = Domain((Axis("x", -1.0, 2.0), Axis("y", 0.0, 1.0, periodic=True)))
    point = np.array([[x, y]])
    assert domain.contains(domain.confine(point)).all()
    assert domain.contains(domain.reflect(point)).all()


def test_reflection_mirrors_at_walls_and_wraps_on_circles():
    domain = Domain((Axis("x", 0.0, 1.0), Axis("y", 0.0, 1.0, periodic=True)))
    assert domain.reflect(np.array([[1.25, 1.25], [-0.1, -0.1]])) == pytest.approx(np.array([[0.75, 0.25], [0.1, 0.9]]))


def test_cell_averages_are_those_of_the_density():
    domain = line()
    density = DensityFunction(gaussian(0.5, 0.7), domain).on(Grid(domain, (50,)))
    from scipy.stats import norm

    edges = density.grid.edges(0)
    exact = np.diff(norm.cdf(edges, 0.5, 0.7)) / (norm.cdf(4, 0.5, 0.7) - norm.cdf(-4, 0.5, 0.7))
    assert density.weights == pytest.approx(exact, abs=1e-12)
    assert density.mass == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_samples_and_quantiles_have_the_moments_of_the_density(dimension):
    domain = box(dimension)
    function = DensityFunction(gaussian(0.3, 0.6), domain)
    quantiles = function.quantiles(8000)
    sampled = function.sample(8000, np.random.default_rng(0))
    assert mean(quantiles) == pytest.approx(np.full(dimension, 0.3), abs=2e-3)
    assert covariance(quantiles) == pytest.approx(0.36 * np.eye(dimension), abs=5e-3)
    assert mean(sampled) == pytest.approx(np.full(dimension, 0.3), abs=4 * 0.6 / np.sqrt(8000))


def test_quantiles_in_one_dimension_are_those_of_the_law():
    from scipy.stats import norm

    points = DensityFunction(gaussian(0.0, 1.0), line(-9.0, 9.0)).quantiles(1000).points[:, 0]
    assert points == pytest.approx(norm.ppf((np.arange(1000) + 0.5) / 1000), abs=1e-6)


def test_samples_follow_the_law_by_kolmogorov_and_smirnov():
    from scipy.stats import kstest, norm

    points = DensityFunction(gaussian(0.0, 1.0), line(-9.0, 9.0)).sample(20_000, np.random.default_rng(1)).points[:, 0]
    assert kstest(points, norm.cdf).pvalue > 1e-3


def test_the_same_seed_draws_the_same_bits():
    function = DensityFunction(gaussian(0.0, 1.0), box(2))
    one, two = (function.sample(100, np.random.default_rng(7)).points for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_moments_of_a_density_count_it_as_constant_in_each_cell():
    domain = line(0.0, 1.0)
    uniform = Density(Grid(domain, (1,)), np.ones(1))
    assert mean(uniform) == pytest.approx([0.5])
    assert covariance(uniform) == pytest.approx(np.array([[1 / 12]]))


def test_deposited_atoms_keep_their_mass_and_their_mean():
    domain = line(0.0, 1.0)
    grid = Grid(domain, (4,))
    atoms = Particles(np.array([[0.0], [1.0]]), np.array([0.4, 0.6]))
    assert deposit(atoms, grid).weights == pytest.approx([0.4, 0.0, 0.0, 0.6])
    inner = Particles.equal(np.array([[0.26], [0.5], [0.71]]))
    assert mean(deposit(inner, grid)) == pytest.approx(mean(inner))
    circle = line(0.0, 1.0, periodic=True)
    assert deposit(Particles.equal(np.array([[0.0]])), Grid(circle, (4,))).weights == pytest.approx([0.5, 0.0, 0.0, 0.5])


@pytest.mark.parametrize(("function", "word"), [(lambda p: -np.ones(len(p)), "nonnegative"), (lambda p: np.zeros(len(p)), "positive")])
def test_a_density_that_cannot_be_normalised_is_refused(function, word):
    with pytest.raises(ValueError, match=word):
        DensityFunction(function, line()).on(Grid(line(), (8,)))
