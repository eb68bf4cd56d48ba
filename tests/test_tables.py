"""Particles through tables against the exact features."""

import tracemalloc
from functools import cache

import numpy as np
import pytest
from conftest import alone, box, bump, line, network

from mfpde.domain import Axis, Disk, Domain
from mfpde.energy import Normal, TwoLayer, two_layer
from mfpde.energy.inputs import Samples, Uniform
from mfpde.energy.stencil import POINTS, blocks_of, deposit, slopes
from mfpde.energy.tables import TabulatedFeatures, tabulated
from mfpde.energy.teams import Team
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.solvers import ParticleFlow

ATOMS = np.clip(np.random.default_rng(0).normal(size=(30_000, 1)), -4.5, 4.5)
MANY = 1_000_000


def table_of(energy: TwoLayer) -> TabulatedFeatures:
    assert isinstance(energy.features, TabulatedFeatures)
    return energy.features


def atoms_everywhere(domain: Domain, count: int) -> Particles:
    """Random ones, ones on every wall and in all corners; weights differ."""
    random = np.random.default_rng(4)
    inside, walls = domain.spread(random.random((count, domain.dimension))), domain.spread(random.random((40, domain.dimension)))
    for k in range(domain.dimension):
        walls[k :: 2 * domain.dimension, k] = domain.lower[k]
        walls[k + domain.dimension :: 2 * domain.dimension, k] = domain.upper[k]
    corners = np.stack([c.ravel() for c in np.meshgrid(*zip(domain.lower, domain.upper, strict=True))], axis=1)
    points = np.concatenate([inside, walls, corners, np.zeros((1, domain.dimension))])
    weights = random.random(len(points))
    return Particles(points, weights / np.sum(weights))


def assert_same(exact: TwoLayer, fast: TwoLayer, atoms: Particles, tolerance: float) -> None:
    one, two = exact.gradient(atoms, atoms.points), fast.gradient(atoms, atoms.points)
    error = np.max(np.linalg.norm(one - two, axis=1)) / np.max(np.linalg.norm(one, axis=1))
    print(f"{fast.features.description}, velocity {error:.1e}")
    assert error <= tolerance
    assert fast.value(atoms) == pytest.approx(exact.value(atoms), rel=10.0 * tolerance, abs=1e-15)


@pytest.mark.parametrize(("dimension", "count"), [(1, 1), (1, 3000), (1, 40_000), (2, 100), (2, 20_000), (3, 200)])
def test_moments_and_slopes_in_cells_are_those_of_polynomials_and_do_not_depend_on_threads(dimension: int, count: int) -> None:
    random = np.random.default_rng(count)
    cells, lower, length = np.array([5, 3, 4])[:dimension], np.array([-1.0, 0.5, 2.0])[:dimension], np.array([2.0, 1.0, 3.0])[:dimension]
    inverse = cells / length
    points = np.concatenate([lower + length * random.random((count, dimension)), lower[None], (lower + length)[None]])
    weights = random.random(len(points))
    place = (points - lower) * inverse
    cell = np.minimum(place.astype(int), cells - 1)
    powers = (2.0 * (place - cell) - 1.0)[:, :, None] ** np.arange(POINTS)
    rising = np.arange(POINTS) * np.concatenate([np.zeros((*points.shape, 1)), powers[:, :, :-1]], axis=2)

    moments = deposit(points, weights, lower, inverse, cells, together=False)
    assert np.array_equal(moments, deposit(points, weights, lower, inverse, cells, together=True))
    letters = "abc"[:dimension]
    products = np.einsum(",".join(f"m{k}" for k in letters) + f"->m{letters}", *np.moveaxis(powers, 1, 0))
    expected = np.zeros((*cells, *(POINTS,) * dimension))
    np.add.at(expected, tuple(cell.T), products * weights.reshape(-1, *(1,) * dimension))
    assert moments == pytest.approx(np.ravel(expected), rel=1e-11, abs=1e-11)
    assert np.sum(moments[:: POINTS**dimension]) == pytest.approx(np.sum(weights), rel=1e-14)

    table = random.normal(size=expected.shape)
    found = slopes(points, table, lower, inverse, cells, together=False)
    assert np.array_equal(found, slopes(points, table, lower, inverse, cells, together=True))
    for k in range(dimension):
        factors = [rising[:, j] if j == k else powers[:, j] for j in range(dimension)]
        formula = ",".join(f"m{j}" for j in letters) + f",m{letters}->m"
        assert found[:, k] == pytest.approx(2.0 * inverse[k] * np.einsum(formula, *factors, table[tuple(cell.T)]), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_what_is_not_a_number_stays_visible(dimension: int) -> None:
    cells, lower, inverse = np.full(dimension, 3), np.zeros(dimension), np.full(dimension, 3.0)
    for wrong in (np.nan, np.inf, -np.inf):
        points = np.full((100, dimension), 0.4)
        points[17, -1] = wrong
        with np.errstate(invalid="ignore"):
            assert not np.isfinite(deposit(points, np.ones(100), lower, inverse, cells, together=False)).all()
            found = slopes(points, np.ones((*cells, *(POINTS,) * dimension)), lower, inverse, cells, together=False)
        assert not np.isfinite(found[17]).all()
        assert np.isfinite(np.delete(found, 17, axis=0)).all()


def test_sums_are_split_by_atoms_alone_and_never_into_more_numbers_than_there_are_atoms_for() -> None:
    assert [blocks_of(count, 512) for count in (1, 500, 1000, 10_000, 10**7)] == [1, 1, 2, 16, 16]
    assert all(blocks_of(count, size) * size <= max(2 * count, size) for count in (1, 10**4, 10**6) for size in (8, 10**3, 10**6))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "erf", "gelu", "gaussian", "cos", "arctan"])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-9, 1e-11])
def test_tables_keep_their_tolerance_on_a_line(activation: str, tolerance: float) -> None:
    domain = line(-4.5, 4.5)
    exact = network(domain, activation)
    tolerance = max(tolerance, 1e-10) if activation == "gelu" else tolerance  # whose features have more round-off
    fast = exact.tabulated(domain, tolerance, MANY)
    assert table_of(fast) is table_of(exact.tabulated(domain, tolerance, MANY))
    assert table_of(fast).error <= tolerance
    assert_same(exact, fast, Particles.equal(ATOMS), 3.0 * tolerance)
    assert_same(exact, fast, atoms_everywhere(domain, 300), 3.0 * tolerance)


@cache
def in_a_box(dimension: int, activation: str, bias: bool) -> tuple[Domain, TwoLayer]:
    scale = 3.0 if bias else 1.0
    domain = box(3, -1.0 - bias, 1.0 + bias) if dimension == 3 else Domain((Axis("x", -2.0 * scale, 1.5), Axis("y", -1.0, 2.0 * scale)))
    neurons = np.array([[0.5, 0.4, 0.2], [-0.5, 0.2, 0.1]])[:, :dimension]
    return domain, two_layer(domain, activation, Uniform(1.0), Particles(neurons, np.array([0.7, 0.3])), bias=bias)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "erf", "gelu", "gaussian"])
def test_tables_keep_their_tolerance_on_a_plane(activation: str) -> None:
    domain, exact = in_a_box(2, activation, False)
    fast = exact.tabulated(domain, 1e-9, MANY)
    assert table_of(fast).error <= 1e-9
    assert_same(exact, fast, atoms_everywhere(domain, 1000), 3e-9)


@pytest.mark.parametrize(("dimension", "activation"), [(2, "cos"), (2, "tanh"), (3, "tanh")])
def test_tables_know_the_offset_of_a_bias(dimension: int, activation: str) -> None:
    domain, exact = in_a_box(dimension, activation, True)
    fast = exact.tabulated(domain, 1e-8, MANY)
    assert table_of(fast).error <= 1e-8
    assert_same(exact, fast, atoms_everywhere(domain, 1000), 3e-8)


def test_tables_keep_their_tolerance_in_space() -> None:
    domain, exact = in_a_box(3, "tanh", False)
    fast = exact.tabulated(domain, 1e-7, MANY)
    assert table_of(fast).error <= 1e-7
    assert_same(exact, fast, atoms_everywhere(domain, 1000), 3e-7)


def test_a_disk_has_the_table_of_its_box() -> None:
    domain = Disk(("x", "y"), 1.5)
    exact = two_layer(domain, "tanh", Uniform(1.0), Particles(np.array([[0.5, 0.4]]), np.ones(1)))
    fast = exact.tabulated(domain, 1e-8, MANY)
    assert table_of(fast).error <= 1e-8
    assert_same(exact, fast, Particles.equal(domain.spread(np.random.default_rng(2).random((500, 2)))), 3e-8)


def test_a_table_goes_round_a_circle() -> None:
    domain = line(0.0, 2.0 * np.pi, periodic=True)
    exact = two_layer(domain, "tanh", Normal(), Particles(np.array([[1.0], [4.0]]), np.array([0.5, 0.5])), angle=True)
    fast = exact.tabulated(domain, 1e-10, MANY)
    assert table_of(fast).error <= 1e-10
    assert_same(exact, fast, Particles.equal(np.random.default_rng(1).uniform(0.0, 2.0 * np.pi, (5000, 1))), 1e-9)


def test_the_velocity_is_the_gradient_of_the_energy_on_the_table() -> None:
    """Central differences in one atom, even where the table is coarse."""
    domain, exact = in_a_box(2, "tanh", False)
    fast = exact.tabulated(domain, 1e-3, MANY)
    atoms = atoms_everywhere(domain, 50)
    velocity, step = fast.gradient(atoms, atoms.points), 1e-5
    assert table_of(fast).error > 1e-6
    for i, k in ((3, 0), (7, 1)):
        ends = []
        for sign in (1.0, -1.0):
            moved = atoms.points.copy()
            moved[i, k] += sign * step
            ends.append(fast.value(Particles(moved, atoms.weights)))
        assert (ends[0] - ends[1]) / (2.0 * step) / atoms.weights[i] == pytest.approx(velocity[i, k], abs=1e-8)


@pytest.mark.parametrize("activation", ["relu", "softsign"])
@pytest.mark.parametrize("domain", [line(-4.5, 4.2), Domain((Axis("x", -1.0, 1.2), Axis("y", -1.1, 1.0)))])
def test_kinks_are_not_tabulated(activation: str, domain: Domain) -> None:
    neurons = Particles(np.full((1, domain.dimension), 0.5), np.ones(1))
    inputs = np.random.default_rng(0).normal(size=(60, domain.dimension))
    features = two_layer(domain, activation, Samples(inputs), neurons, tolerance=1e-8).features
    assert tabulated(features, domain, 1e-9, MANY) is None


def test_few_atoms_go_without_a_table() -> None:
    domain, exact = in_a_box(2, "tanh", False)
    assert exact.tabulated(domain, 1e-9, 100) is exact
    fast = exact.tabulated(domain, 1e-9, MANY)
    assert exact.tabulated(domain, 1e-9, 101) is exact
    assert table_of(fast) is table_of(exact.tabulated(domain, 1e-9, MANY // 2))
    least = next(count for count in range(0, MANY, 500) if table_of(fast).pays(count))
    assert 1000 <= least <= 50_000


def test_memory_is_that_of_the_velocities_whatever_the_number_of_inputs() -> None:
    domain, exact = in_a_box(2, "tanh", False)
    features = table_of(exact.tabulated(domain, 1e-8, MANY))
    points = domain.spread(np.random.default_rng(0).random((300_000, 2)))
    weights = np.full(len(points), 1.0 / len(points))
    features.gradient(points, features.moments(points, weights))
    tracemalloc.start()
    features.gradient(points, features.moments(points, weights))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= 2.5 * points.nbytes


def test_a_team_takes_the_quicker_way_and_seldom_tries_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfpde.energy.teams.get_num_threads", lambda: 2)
    clock = [0.0]
    monkeypatch.setattr("mfpde.energy.teams.time.perf_counter", lambda: clock[0])
    team, chosen = Team(), []
    costs = {False: 1.0, True: 0.5}
    for call in range(2000):
        if call == 1000:
            costs[True] = 20.0
        with team.at_work(10_000) as together:
            chosen.append(together)
            clock[0] += costs[together]
    assert chosen[:4] == [False, True, False, True]
    assert np.mean(chosen[:1000]) > 0.98
    assert np.sum(chosen[1001:]) <= 3
    with team.at_work(10) as together:
        assert not together


def test_particles_with_a_table_stay_with_those_without() -> None:
    domain = line(-4.5, 4.5)
    problem = Problem(alone(network(domain)), domain, DensityFunction(bump(1.0), domain), (0.5, 3.0))
    fast, slow = (ParticleFlow(count=4000, seed=3, table_tolerance=tolerance).solve(problem) for tolerance in (1e-10, 0.0))
    assert any("table of" in note for note in fast.notes)
    assert not any("table of" in note for note in slow.notes)
    assert np.max(np.abs(fast.final.points - slow.final.points)) <= 1e-8
    assert fast.certificate.energy_rise() <= 1e-13
    assert len(ParticleFlow(count=100).solve(problem).notes) == 1


def test_a_tolerance_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="table_tolerance must be positive, or 0 for no tables, got -1"):
        ParticleFlow(count=10, table_tolerance=-1.0)
