"""Steps of networks on atoms by the dual problem: closed forms, direct minimisation, walls, frozen and round axes, lost uniqueness."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from mfpde.domain import Axis, Domain
from mfpde.energy import Circle, Normal, Potential, TwoLayer, two_layer
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.teams import Team
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Status
from mfpde.solvers import Characteristics, MinimizingMovement
from mfpde.solvers.jko.nodes import Nodes
from mfpde.solvers.jko.residual import ResidualScheme
from mfpde.solvers.jko.start import gauss_nodes
from mfpde.study.cross_check import _GAP
from tests.conftest import box, bump, line, network, quadratic

TAU = 0.3
NEURONS = ((1.5, 0.5), (-0.5, 1.0))


@cache
def small(dimension: int) -> tuple[Domain, TwoLayer]:
    domain = box(dimension, -2.0, 2.0)
    return domain, network(domain, neurons=[n[:dimension] for n in NEURONS])


def atoms(dimension: int, count: int = 12, seed: int = 0) -> Particles:
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.5, 1.5, count)
    return Particles(generator.uniform(-2.0, 2.0, (count, dimension)), weights / np.sum(weights))


def space(dimension: int) -> Domain:
    return Domain(tuple(Axis(name, -4.0, 4.0) for name in "vwxyz"[:dimension]))


def stepped(terms: dict[str, Energy], domain: Domain, start: Particles, tau: float = TAU) -> np.ndarray:
    run = MinimizingMovement(tau, "residual").solve(Problem(EnergySum(terms), domain, start, (tau,)))
    assert run.status is Status.DONE, run.message
    assert np.max(run.certificate["balance"]) <= 1e-14
    assert isinstance(run.final, Particles)
    return run.final.points


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_a_quadratic_potential_contracts(dimension: int) -> None:
    start = atoms(dimension)
    np.testing.assert_allclose(stepped({"well": quadratic()}, space(dimension), start), start.points / (1.0 + TAU), rtol=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_quadratic_network_is_a_scalar_equation(dimension: int) -> None:
    """X₁ = X₀/(1 + 2(d + 2)τ(m₁ − t)) for ∫XXᵀ = m and a teacher with t, both times the identity."""
    domain, axes = box(dimension), np.concatenate([np.eye(dimension), -np.eye(dimension)])
    weights = np.full(2 * dimension, 0.5 / dimension)
    term = two_layer(domain, "quadratic", Normal(), Particles(1.5 * np.sqrt(dimension) * axes, weights))
    start = Particles(np.concatenate([0.4 * axes, 1.1 * axes]), np.concatenate([0.3 * weights, 0.7 * weights]))
    first = float(start.weights @ start.points[:, 0] ** 2)

    def rest(m: float) -> float:
        return m * (1.0 + 2.0 * (dimension + 2) * TAU * (m - 2.25)) ** 2 - first

    lower = 2.25 - 1.0 / (2.0 * (dimension + 2) * TAU)
    second = brentq(rest, lower + 1e-6, 6.0, xtol=1e-15)
    found = stepped({"network": term}, domain, start)
    np.testing.assert_allclose(found, start.points / (1.0 + 2.0 * (dimension + 2) * TAU * (second - 2.25)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_linear_network_moves_every_atom_by_the_same(dimension: int) -> None:
    """X₁ = X₀ − τ(m₁ − m), m₁ = (m₀ + τm)/(1 + τ), m being the teacher's mean."""
    domain, start = box(dimension), atoms(dimension)
    neuron = np.array([[1.5, -0.5, 0.25]])[:, :dimension]
    term = two_layer(domain, "identity", Normal(), Particles(neuron, np.array([1.0])))
    mean = start.weights @ start.points
    moved = TAU * ((mean + TAU * neuron) / (1.0 + TAU) - neuron)
    np.testing.assert_allclose(stepped({"network": term}, domain, start), start.points - moved, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("well", [False, True])
def test_the_dual_problem_finds_the_minimiser_of_the_positions(dimension: int, well: bool) -> None:
    (domain, term), start = small(dimension), atoms(dimension)
    terms: dict[str, Energy] = {"network": term}
    terms |= {"well": quadratic(0.3, 1.0)} if well else {}
    energy, root = EnergySum(terms), np.sqrt(start.weights)[:, None]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        points = flat.reshape(start.points.shape) / root
        value, slope = energy.value_and_gradient(Particles(points, start.weights))
        moved = root * (points - start.points)
        return value + float(np.sum(moved**2)) / (2.0 * TAU), np.ravel(root * slope + moved / TAU)

    options = {"ftol": 0.0, "gtol": 1e-11, "maxiter": 1000}
    direct = minimize(objective, np.ravel(root * start.points), jac=True, method="L-BFGS-B", options=options)
    found = stepped(terms, domain, start)
    np.testing.assert_allclose(found, direct.x.reshape(found.shape) / root, atol=1e-7)
    value = objective(np.ravel(root * found))
    assert value[0] <= direct.fun + 1e-14
    assert np.max(np.abs(value[1])) < 1e-10


@pytest.mark.parametrize("dimension", [1, 2])
def test_many_atoms_go_through_tables_to_the_same_places(dimension: int) -> None:
    domain, term = small(dimension)
    many = DensityFunction(bump(0.7, 0.3), domain).quantiles(100_000)
    problem = Problem(EnergySum({"network": term}), domain, many, (TAU,))
    scheme = ResidualScheme(problem, None)
    assert scheme.field.compiled
    points, lam = scheme.start()
    found = scheme.minimise(points, TAU, points, points, lam)
    assert found.residual < 1e-10
    assert found.gap < 1e-20
    exact = EnergySum({"network": term}).gradient(Particles(found.points, many.weights), found.points)
    inside = np.abs(found.points) < 2.0
    assert np.mean(inside) > 0.99
    np.testing.assert_allclose((found.points + TAU * exact)[inside], points[inside], atol=1e-7)


def test_the_table_and_the_plain_loops_give_the_same_proximal_points() -> None:
    domain, term = small(2)
    start = DensityFunction(lambda p: np.ones(len(p)), domain).quantiles(100_000)
    scheme = ResidualScheme(Problem(EnergySum({"network": term}), domain, start, (1.0,)), None)
    lam = 2.0 * scheme.start()[1]
    z = start.points[:400] * 1.2
    table, one = scheme.field._by_table(z, start.points[:400], lam, 0.5)
    plain, other = scheme.field._by_newton(z, start.points[:400], lam, 0.5)
    assert (np.abs(table) == 2.0).any(), "some have come to a wall"
    np.testing.assert_allclose(table, plain, atol=1e-7)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_loss_and_characteristics_agree_in_the_plane() -> None:
    domain, term = small(2)
    problem = Problem(EnergySum({"network": term}), domain, DensityFunction(bump(0.4, 0.3), domain), (0.5,))
    exact = Characteristics((8, 8), tolerance=1e-8, resolution=1e-6).solve(problem).total_energy[-1]
    errors = [abs(MinimizingMovement(tau, count=600, order=2).solve(problem).total_energy[-1] - exact) / exact for tau in (0.25, 0.125)]
    print(errors)
    assert errors[0] < 0.02
    assert errors[1] < 0.35 * errors[0]


def test_atoms_stop_at_walls_and_frozen_axes_do_not_move() -> None:
    domain = Domain((Axis("x", -2.0, 2.0), Axis("y", -2.0, 2.0, frozen=True)))
    push = Potential(lambda p: -5.0 * p[:, 0] - p[:, 1], lambda p: np.broadcast_to([-5.0, -1.0], p.shape).astype(float))
    start = atoms(2)
    found = stepped({"push": push}, domain, start)
    np.testing.assert_allclose(found[:, 0], np.minimum(start.points[:, 0] + 5.0 * TAU, 2.0), atol=1e-12)
    np.testing.assert_array_equal(found[:, 1], start.points[:, 1])


def test_angles_go_round_the_circle() -> None:
    domain = line(-np.pi, np.pi, periodic=True)
    term = two_layer(domain, "tanh", Circle(), Particles(np.array([[3.0]]), np.array([1.0])), angle=True)
    start = Particles(np.array([[-2.8], [2.0]]), np.array([0.5, 0.5]))
    run = MinimizingMovement(1.0, order=2).solve(Problem(EnergySum({"network": term}), domain, start, (200.0,)))
    assert run.status is Status.DONE, run.message
    assert isinstance(run.final, Particles)
    assert domain.contains(run.final.points).all()
    assert run.total_energy[-1] < 1e-2 * run.certificate["energy"][0]


def test_where_uniqueness_is_lost_the_best_of_several_starts_is_kept() -> None:
    """A double well with τV'' < −1 in the middle: proximal points jump, and each is the global one."""
    domain, tau = line(), 2.0
    well = Potential(lambda p: (p[:, 0] ** 2 - 1.0) ** 2 + 0.1 * p[:, 0], lambda p: 4.0 * p * (p**2 - 1.0) + 0.1)
    start = Particles.equal(np.linspace(-1.5, 1.5, 31)[:, None])
    found = stepped({"well": well}, domain, start, tau)
    places = np.linspace(-2.0, 2.0, 400_001)
    for x, y in zip(start.points[:, 0], found[:, 0], strict=True):
        values = (places - x) ** 2 / (2.0 * tau) + well.function(places[:, None])
        assert y == pytest.approx(places[np.argmin(values)], abs=2e-5)
    run = MinimizingMovement(tau).solve(Problem(EnergySum({"well": well}), domain, start, (tau,)))
    assert any("not unique" in note for note in run.notes)


@pytest.mark.parametrize("place", [-1.2, -0.1, 0.4, 1.3])
def test_an_atom_finds_the_global_minimum_between_wells_made_of_neurons(place: float) -> None:
    """V = Σ a tanh(b(x − c)), with τV'' < −1 between its two wells, beside a fine grid."""
    heights, slopes, middles, tau = np.array([1.0, -1.6, 1.5, -1.0, 1.0]), 5.0, np.array([-1.6, -0.9, 0.2, 0.8, 1.7]), 3.0

    def value(p: np.ndarray) -> np.ndarray:
        return np.tanh(slopes * (p - middles)) @ heights

    well = Potential(value, lambda p: (slopes / np.cosh(slopes * (p - middles)) ** 2) @ heights[:, None])
    found = stepped({"well": well}, line(-2.0, 2.0), Particles(np.array([[place]]), np.ones(1)), tau)
    places = np.linspace(-2.0, 2.0, 400_001)[:, None]
    values = (places[:, 0] - place) ** 2 / (2.0 * tau) + value(places)
    assert value(found)[0] + (found[0, 0] - place) ** 2 / (2.0 * tau) <= np.min(values) + 1e-9
    assert found[0, 0] == pytest.approx(places[np.argmin(values), 0], abs=2e-5)


def test_wells_of_neurons_along_one_axis_of_the_plane() -> None:
    """As on the line, beside a quadratic potential along the other axis."""
    domain, tau, b = box(2, -2.0, 2.0), 3.0, 5.0

    def value(p: np.ndarray) -> np.ndarray:
        return np.tanh(b * (p[:, 0] - 0.6)) - np.tanh(b * (p[:, 0] + 0.9)) + 0.5 * p[:, 0] ** 2 + 0.5 * p[:, 1] ** 2

    def slope(p: np.ndarray) -> np.ndarray:
        bent = b / np.cosh(b * (p[:, 0] - 0.6)) ** 2 - b / np.cosh(b * (p[:, 0] + 0.9)) ** 2
        return np.stack([bent + p[:, 0], p[:, 1]], axis=1)

    start = atoms(2, 30)
    found = stepped({"well": Potential(value, slope)}, domain, start, tau)
    places = np.stack([np.linspace(-2.0, 2.0, 40_001), np.zeros(40_001)], axis=1)
    for x, y in zip(start.points, found, strict=True):
        values = (places[:, 0] - x[0]) ** 2 / (2.0 * tau) + value(places)
        assert y[0] == pytest.approx(places[np.argmin(values), 0], abs=2e-4)
        assert y[1] == pytest.approx(x[1] / (1.0 + tau), rel=1e-9)


def values_of(well: Potential, places: np.ndarray, start: np.ndarray, tau: float) -> np.ndarray:
    """The least of V(y) + |y − z|²/(2τ) over ``places`` for each z of ``start``."""
    heights = well.function(places)
    return np.array([np.min(heights + np.sum((places - z) ** 2, axis=1) / (2.0 * tau)) for z in start])


@pytest.mark.parametrize("count", [5, 41])
def test_frozen_axes_keep_no_well_from_being_found(count: int) -> None:
    """A double well whose depths depend on the frozen place: every atom is at its global proximal point, with few and many places."""
    domain, tau = Domain((Axis("x", -3.0, 3.0), Axis("y", -2.0, 2.0, frozen=True))), 8.0

    def slope(p: np.ndarray) -> np.ndarray:
        x, y = p[:, 0], p[:, 1]
        return np.stack([32.0 * x * (x**2 - 1.0) - np.cos(3.0 * y), 3.0 * x * np.sin(3.0 * y)], axis=1)

    well = Potential(lambda p: 8.0 * (p[:, 0] ** 2 - 1.0) ** 2 - p[:, 0] * np.cos(3.0 * p[:, 1]), slope)
    places = np.linspace(-1.9, 1.9, count)
    start = np.stack([np.linspace(-2.5, 2.5, 82), np.tile(places, 82)[:82]], axis=1)
    found = stepped({"well": well}, domain, Particles.equal(start), tau)
    np.testing.assert_array_equal(found[:, 1], start[:, 1])
    reached = well.function(found) + (found[:, 0] - start[:, 0]) ** 2 / (2.0 * tau)
    x = np.linspace(-3.0, 3.0, 20_001)
    for z, value in zip(start, reached, strict=True):
        assert value <= values_of(well, np.stack([x, np.full(20_001, z[1])], axis=1), z[None], tau)[0] + 1e-6


@pytest.mark.parametrize("count", [30, 300])
def test_steep_potentials_are_searched_with_more_probes(count: int) -> None:
    """cos(120 x), of whose periods a box of length 6 has 115: by blocks of few atoms and by the convex hull for many."""
    well = Potential(lambda p: np.cos(120.0 * p[:, 0]) + 0.2 * p[:, 0] ** 2, lambda p: -120.0 * np.sin(120.0 * p) + 0.4 * p)
    start = np.random.default_rng(0).uniform(-2.0, 2.0, (count, 1))
    found = stepped({"well": well}, line(-3.0, 3.0), Particles.equal(start), 1.0)
    reached = well.function(found) + 0.5 * (found - start)[:, 0] ** 2
    assert np.max(reached - values_of(well, np.linspace(-3.0, 3.0, 100_001)[:, None], start, 1.0)) < 1e-6


def test_a_narrow_well_in_space_is_found_and_no_gap_is_claimed() -> None:
    middle, width = np.array([0.83, -0.71, 0.55]), 0.12

    def well(p: np.ndarray) -> np.ndarray:
        return np.asarray(-8.0 * np.exp(-np.sum((p - middle) ** 2, axis=1) / (2.0 * width**2)))

    term = Potential(lambda p: well(p) + 0.05 * np.sum(p**2, axis=1), lambda p: -(p - middle) / width**2 * well(p)[:, None] + 0.1 * p)
    start = np.random.default_rng(0).uniform(-1.5, 1.5, (30, 3))
    run = MinimizingMovement(1.0).solve(Problem(EnergySum({"well": term}), box(3, -2.0, 2.0), Particles.equal(start), (1.0,)))
    assert isinstance(run.final, Particles)
    near = middle + 0.02 * (start - middle)
    least = np.minimum(values_of(term, start / 1.1, start, 1.0), values_of(term, np.concatenate([near, [middle]]), start, 1.0))
    reached = term.function(run.final.points) + 0.5 * np.sum((run.final.points - start) ** 2, axis=1)
    assert np.max(reached - least) < 1e-6
    assert any("at the starts tried" in note and "have no duality gap" in note for note in run.notes)
    assert not any("largest duality gap" in note for note in run.notes)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("count", [40, 30_000])
def test_atoms_at_walls_meet_the_conditions_of_karush_kuhn_and_tucker(dimension: int, count: int) -> None:
    """(y − z)/τ + ∇ξ vanishes inside, and at walls it points inwards."""
    domain = box(dimension, -1.0, 1.0)
    term = network(domain, neurons=[[3.0, 2.0][:dimension]])
    start = DensityFunction(lambda p: np.ones(len(p)), domain).quantiles(count)
    found = stepped({"network": term}, domain, start, 2.0)
    rest = (found - start.points) / 2.0 + term.gradient(Particles(found, start.weights), found)
    low, high = found <= -1.0, found >= 1.0
    assert high[:, 0].any()
    assert np.max(np.abs(rest[~low & ~high])) < 2e-8
    assert np.max(rest[high], initial=-1.0) < 2e-8
    assert np.min(rest[low], initial=1.0) > -2e-8


@pytest.mark.parametrize("dimension", [1, 2])
def test_nodes_integrate_and_differentiate_polynomials_exactly(dimension: int) -> None:
    many = atoms(dimension, 5000)
    nodes = Nodes.of(many.points, many.weights)

    def function(p: np.ndarray) -> np.ndarray:
        return p[:, 0] ** 7 - np.prod(p**3, axis=1)

    assert nodes.weights @ function(nodes.points) == pytest.approx(many.weights @ function(many.points), abs=1e-12)
    slopes = nodes.slopes(function(nodes.points)[None])[0]
    along = 7.0 * nodes.points[:, 0] ** 6 - 3.0 * np.prod(nodes.points**3, axis=1) / nodes.points[:, 0]
    np.testing.assert_allclose(slopes[:, 0], along, atol=1e-8)
    shifted = nodes.shifted(many.points, np.tile(function(nodes.points)[:, None], (1, dimension)), Team())
    np.testing.assert_allclose(shifted - many.points, np.tile(function(many.points)[:, None], (1, dimension)), atol=1e-10)


@pytest.mark.parametrize("dimension", [1, 2])
def test_nodes_in_place_of_atoms_change_nothing_but_the_time(dimension: int) -> None:
    domain, term = small(dimension)
    many = DensityFunction(bump(0.7, 0.3), domain).sample(40_000, np.random.default_rng(3))
    problem = Problem(EnergySum({"network": term}), domain, many, (TAU,))
    scheme = ResidualScheme(problem, None)
    points, lam = scheme.start()
    assert scheme._reduced is not None
    first = scheme.minimise(points, TAU, points, points, lam)
    again = scheme.minimise(points, TAU, points, points, lam)
    np.testing.assert_array_equal(first.points, again.points)
    scheme._reduced = None
    plain = scheme.minimise(points, TAU, points, points, lam)
    np.testing.assert_allclose(first.points, plain.points, atol=1e-10)
    assert max(first.residual, plain.residual) < 3e-10


def test_densities_begin_as_gauss_nodes() -> None:
    """Smooth, with jumps and narrow: the mean of x⁴ cos x to many digits."""
    domain = line(-4.5, 4.5)
    starts: list[tuple[Callable[[np.ndarray], np.ndarray], list[float], float]] = [
        (bump(0.5, 0.3), [], 1e-12),
        (lambda p: (np.abs(p[:, 0] - 0.1) < 1.03).astype(float), [-0.93, 1.13], 1e-8),
        (bump(0.02, 0.3), [0.1, 0.5], 1e-12),
    ]
    for function, edges, error in starts:
        found = gauss_nodes(DensityFunction(function, domain), 600)
        places, shares = np.polynomial.legendre.leggauss(200)
        sums = np.zeros(2)
        for low, high in zip([-4.5, *edges], [*edges, 4.5], strict=True):
            x = 0.5 * (low + high) + 0.5 * (high - low) * places
            rho = 0.5 * (high - low) * shares * function(x[:, None])
            sums += [np.sum(rho), rho @ (x**4 * np.cos(x))]
        assert 400 <= len(found.weights) <= 600
        assert found.weights @ (found.points**4 * np.cos(found.points))[:, 0] == pytest.approx(sums[1] / sums[0], abs=error)


def test_notes_are_those_of_a_run_that_is_resumed() -> None:
    well = Potential(lambda p: (p[:, 0] ** 2 - 1.0) ** 2, lambda p: 4.0 * p * (p**2 - 1.0))
    problem = Problem(EnergySum({"well": well}), line(), Particles.equal(np.linspace(-1.5, 1.5, 7)[:, None]), (2.0, 4.0))
    flow = MinimizingMovement(2.0).prepare(problem)
    state = flow.advance(flow.start(), 2.0)
    flow.record(state)
    other = MinimizingMovement(2.0).prepare(problem)
    other.restore(vars(state))
    assert other.notes == flow.notes
    assert any("not unique" in note for note in other.notes)


def test_what_starts_leave_open_is_a_warning_that_cross_checks_count() -> None:
    well = Potential(lambda p: (p[:, 0] ** 2 - 1.0) ** 2, lambda p: 4.0 * p * (p**2 - 1.0))
    scheme = ResidualScheme(Problem(EnergySum({"well": well}), line(), atoms(1), (2.0,)), None)
    (note,) = (note for note in scheme.notes_of(np.array([1.0, 4.3e-3])) if "starts tried" in note)
    assert note.startswith(WARNING)
    assert _GAP.findall(note) == ["4.3e-03"]


def test_long_steps_of_a_network_are_certified_or_say_that_they_are_not() -> None:
    domain = line(-4.5, 4.5)
    problem = Problem(EnergySum({"network": network(domain)}), domain, atoms(1, 40), (200.0,))
    run = MinimizingMovement(100.0).solve(problem)
    assert run.status in (Status.DONE, Status.NOT_CONVERGED)
    if run.status is Status.DONE:
        assert np.max(run.certificate["balance"]) <= 1e-12
        assert any("duality gap" in note for note in run.notes)  # a step has one, or the notes say that it has none
    else:
        assert "smaller tau" in run.message
