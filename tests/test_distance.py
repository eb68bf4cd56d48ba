"""Wasserstein distances against closed forms."""

import numpy as np
import pytest
from conftest import box, line
from hypothesis import given, settings
from hypothesis import strategies as st

from mfpde.distance import wasserstein
from mfpde.domain import Axis, Domain, Grid
from mfpde.measure import Density, DensityFunction, Particles

points = st.lists(st.floats(-3.9, 3.9), min_size=1, max_size=8)


def atoms(values, weights=None):
    array = np.array(values, dtype=float).reshape(len(values), -1)
    return Particles.equal(array) if weights is None else Particles(array, np.array(weights))


@pytest.mark.parametrize("order", [1, 2])
def test_two_uniform_densities_have_the_exact_distance(order):
    domain = line(0.0, 4.0)
    grid = Grid(domain, (8,))
    one = Density(grid, np.array([1, 1, 0, 0, 0, 0, 0, 0.0]))
    two = Density(grid, np.array([0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5]))
    exact = {1: 2.5, 2: np.sqrt(19 / 3)}[order]  # T(x) = 2 + 2x
    assert wasserstein(one, two, domain, order).value == pytest.approx(exact, rel=1e-13)


def test_a_density_against_its_centre_is_its_standard_deviation_not_zero():
    domain = line(0.0, 1.0)
    uniform = Density(Grid(domain, (1,)), np.ones(1))
    found = wasserstein(uniform, atoms([0.5]), domain)
    assert found.value == pytest.approx(1 / np.sqrt(12), rel=1e-13)
    assert found.floor == 0.0


def test_first_order_distance_counts_crossings():
    domain = line(0.0, 1.0)
    assert wasserstein(Density(Grid(domain, (1,)), np.ones(1)), atoms([0.5]), domain, order=1).value == pytest.approx(0.25, rel=1e-13)


@pytest.mark.parametrize("tiny", [1e-300, 1e-309, 1e-315, 5e-324])
def test_cells_with_next_to_no_mass_do_not_count(tiny):
    domain = line(0.0, 1.0)
    grid = Grid(domain, (4,))
    found = wasserstein(Density(grid, np.array([tiny, 2.0, 2.0, 0.0])), Density(grid, np.array([0.0, tiny, 2.0, 2.0])), domain)
    assert found.value == pytest.approx(0.25, rel=1e-13)


@given(points, points)
@settings(deadline=None, max_examples=50)
def test_atoms_on_the_line_agree_with_pot(one, two):
    import ot

    exact = ot.wasserstein_1d(np.array(one), np.array(two), p=2)
    assert wasserstein(atoms(one), atoms(two), line()).value ** 2 == pytest.approx(float(exact), abs=1e-10)


@given(points, points)
@settings(deadline=None, max_examples=30)
def test_atoms_on_the_circle_agree_with_the_assignment_problem(one, two):
    import ot

    domain = line(-4.0, 4.0, periodic=True)
    gap = domain.displacement(np.array(one)[:, None, None], np.array(two)[None, :, None])[..., 0]
    exact = ot.emd2(np.full(len(one), 1 / len(one)), np.full(len(two), 1 / len(two)), gap**2)
    assert wasserstein(atoms(one), atoms(two), domain).value ** 2 == pytest.approx(float(exact), abs=1e-9)


@pytest.mark.parametrize("sharpness", [3.0, 60.0])
def test_a_turned_density_on_the_circle_is_as_far_as_the_assignment_problem_says(sharpness):
    import ot

    domain = line(0.0, 2 * np.pi, periodic=True)
    grid = Grid(domain, (400,))
    functions = [DensityFunction(lambda p, a=a: np.exp(sharpness * (np.cos(p[:, 0] - a) - 1)), domain) for a in (0.2, 6.0)]
    one, two = (f.on(grid) for f in functions)
    gap = domain.displacement(grid.centers[:, None, :], grid.centers[None, :, :])[..., 0]
    exact = np.sqrt(ot.emd2(one.weights, two.weights, gap**2))
    turn = 0.2 + 2 * np.pi - 6.0
    found = wasserstein(one, two, domain).value
    assert found == pytest.approx(exact, abs=1e-3)
    assert found == pytest.approx(turn, rel=1e-3) if sharpness > 10 else found < turn
    assert wasserstein(one, one, domain).value == 0.0


def test_planar_gaussians_agree_with_the_closed_form_within_the_floor():
    domain = box(2)
    bump = [DensityFunction(lambda p, c=c: np.exp(-np.sum((p - c) ** 2, axis=1) / 0.32), domain) for c in (-1.0, 1.0)]
    found = wasserstein(bump[0].on(Grid(domain, (40, 40))), bump[1].quantiles(1500), domain)
    assert 0.0 < found.floor < 0.2
    assert found.value == pytest.approx(2 * np.sqrt(2), abs=found.floor)


def test_the_floor_bounds_the_error_of_coarsening():
    domain = box(2)
    generator = np.random.default_rng(0)
    one, two = (Particles.equal(generator.normal(c, 0.5, (600, 2)).clip(-4, 4)) for c in (0.0, 0.5))
    exact = wasserstein(one, two, domain)
    rough = wasserstein(one, two, domain, support=100)
    assert exact.floor == 0.0
    assert abs(rough.value - exact.value) <= rough.floor


def test_frozen_coordinates_are_compared_slice_by_slice():
    domain = Domain((Axis("x", 0.0, 4.0), Axis("depth", 0.0, 1.0, frozen=True)))
    one = atoms([[0.0, 0.25], [1.0, 0.75]])
    two = atoms([[3.0, 0.75], [1.0, 0.25]])
    assert wasserstein(one, two, domain).value == pytest.approx(np.sqrt(0.5 * 1 + 0.5 * 4), rel=1e-13)


def test_measures_of_different_mass_are_refused():
    with pytest.raises(ValueError, match="different masses"):
        wasserstein(atoms([0.0], [1.0]), atoms([0.0], [0.5]), line())


def test_frozen_cells_of_two_grids_are_matched_by_their_common_cells():
    domain = Domain((Axis("x", 0.0, 1.0), Axis("u", 0.0, 1.0, frozen=True), Axis("v", 0.0, 1.0, frozen=True)))
    function = DensityFunction(lambda p: 1 + p[:, 1] * p[:, 2], domain)
    found = wasserstein(function.on(Grid(domain, (16, 4, 6))), function.on(Grid(domain, (16, 8, 3))), domain)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.floor == 0.0


def test_mass_without_a_partner_in_its_slice_shows_in_the_floor():
    domain = Domain((Axis("x", 0.0, 1.0), Axis("depth", 0.0, 1.0, frozen=True)))
    found = wasserstein(atoms([[0.0, 0.2]]), atoms([[1.0, 0.7]]), domain)
    assert found.floor == pytest.approx(np.sqrt(2))
    assert "unmatched" in found.method
