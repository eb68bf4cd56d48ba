"""Wasserstein distances against closed forms."""

import math

import numpy as np
import pytest
from conftest import box, line
from hypothesis import given, settings
from hypothesis import strategies as st

from mfpde.distance import circle, wasserstein
from mfpde.distance import line as on_axis
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


# Many atoms: compiled loops.


def quantile_pair(generator, count):
    """Atoms with equal or random weights, or intervals with gaps, each at random."""
    kinds = generator.integers(0, 3, 2)
    ends = np.sort(generator.random((2, 2 * count)), axis=1)
    weights = generator.random((2, count)) + 0.01
    made = []
    for kind, x, w in zip(kinds, ends, weights, strict=True):
        if kind == 2:
            made.append(on_axis.Quantiles(on_axis.cumulate(w), x[::2].copy(), x[1::2].copy()))
        else:
            made.append(on_axis.quantiles_of_atoms(generator.permutation(x[:count]), w if kind else np.ones(count)))
    return made


@pytest.mark.parametrize("order", [1, 2])
def test_compiled_merges_equal_those_of_arrays(order, monkeypatch):
    generator = np.random.default_rng(0)
    for _ in range(60):
        one, two = quantile_pair(generator, int(generator.integers(1, 9)))
        for shift in (0.0, 1.0, -1.0, 0.25, float(generator.uniform(-1, 1))):
            plain = on_axis.cost_and_slope(one, two, shift, 1.0, order)
            monkeypatch.setattr(on_axis, "LARGE", 0)
            compiled = on_axis.cost_and_slope(one, two, shift, 1.0, order)
            monkeypatch.undo()
            assert compiled == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_the_slope_of_the_cost_is_its_derivative_in_the_cut(order):
    generator = np.random.default_rng(1)
    for _ in range(40):
        one, two = quantile_pair(generator, 6)
        shift = float(generator.uniform(-1, 1))
        (low, slope), (high, _) = (on_axis.cost_and_slope(one, two, s, 1.0, order) for s in (shift, shift + 1e-6))
        assert (high - low) / 1e-6 == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("values", ["normal", "ties and zeros", "huge and tiny"])
def test_the_compiled_sort_is_a_stable_sort(values):
    generator = np.random.default_rng(0)
    points = generator.normal(size=30_000)
    if values == "ties and zeros":
        points = np.concatenate([np.round(points, 1), np.full(5000, -0.5), np.zeros(9)]) + 0.0
    elif values == "huge and tiny":
        points = np.concatenate([points * np.exp(30.0 * generator.normal(size=30_000)), [1e300, -1e300, 5e-324, -5e-324]])
    carried = generator.random(len(points))
    found, with_it = on_axis.sort_with(points, carried)
    order = np.argsort(points, kind="stable")
    assert np.array_equal(found, points[order])
    assert np.array_equal(with_it, carried[order])


def test_a_million_atoms_at_the_middles_of_their_mass_are_as_far_as_one_of_them():
    domain = line(0.0, 1.0)
    count = 1_000_000
    middles = np.random.default_rng(0).permutation((np.arange(count) + 0.5) / count)
    uniform = Density(Grid(domain, (1000,)), np.ones(1000))
    for weights in (np.full(count, 1.0 / count), np.repeat([1.0, 1.0 + 1e-15], count // 2) / count):
        found = wasserstein(Particles(middles[:, None], weights), uniform, domain)
        assert found.value == pytest.approx(1.0 / (np.sqrt(12.0) * count), rel=1e-6)


def test_many_running_sums_lose_nothing():
    weights = np.random.default_rng(0).random(100_000)
    levels = on_axis.cumulate(weights)
    for k in (1, 1000, 54_321, 99_999):
        assert levels[k] == pytest.approx(math.fsum(weights[:k]) / math.fsum(weights), rel=4e-16)


# The circle.


@pytest.mark.parametrize("order", [1, 2])
def test_the_circle_agrees_with_pot(order):
    import ot

    generator = np.random.default_rng(2)
    domain = line(0.0, 1.0, periodic=True)
    for count in (1, 2, 7, 60):
        one, two = (generator.random(count) ** power for power in (1.0, 3.0))
        exact = ot.wasserstein_circle(one[:, None], two[:, None], p=order)
        found = wasserstein(atoms(one), atoms(two), domain, order).value
        assert found**order == pytest.approx(float(np.ravel(exact)[0]), abs=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_no_cut_of_many_is_better_than_the_one_found(order):
    generator = np.random.default_rng(3)
    for _ in range(20):
        one, two = quantile_pair(generator, 12)
        found = circle.on_circle(one, two, 1.0, order)
        others = [on_axis.cost_and_slope(one, two, s, 1.0, order)[0] for s in np.linspace(-1.0, 1.0, 401)]
        assert found <= min(others) + 1e-15
        assert found >= min(others) - 0.02


def test_a_cut_takes_few_merges(monkeypatch):
    counts = []
    domain = line(0.0, 2 * np.pi, periodic=True)
    functions = [DensityFunction(lambda p, a=a: 1.1 + np.cos(p[:, 0] - a), domain) for a in (0.2, 2.0)]
    pairs = [[f.on(Grid(domain, (300,))) for f in functions], [f.sample(500, np.random.default_rng(0)) for f in functions]]
    plain = circle.cost_and_slope
    monkeypatch.setattr(circle, "cost_and_slope", lambda *given: (counts.append(1), plain(*given))[1])
    for one, two in pairs:
        counts.clear()
        assert wasserstein(one, two, domain).value > 0.1
        assert len(counts) <= 30


def test_atoms_turned_by_little_keep_their_small_distance():
    domain = line(0.0, 1.0, periodic=True)
    places = np.random.default_rng(4).random(1000)
    for turn in (1e-5, 1e-9):
        found = wasserstein(atoms(places), atoms(np.mod(places + turn, 1.0)), domain)
        assert found.value == pytest.approx(turn, rel=1e-3)
