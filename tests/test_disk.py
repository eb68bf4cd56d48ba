"""The disk: its geometry and polar grids, measures, distances, energies, solvers, storage, figures and messages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import alone, observed_order
from hypothesis import given, settings
from hypothesis import strategies as st

from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem, build_solver
from mfpde.cli import main
from mfpde.compare import compare
from mfpde.disk import Disk
from mfpde.distance import wasserstein
from mfpde.domain import Domain, Grid
from mfpde.energy import ACTIVATIONS, Circle, EnergySum, Entropy, Normal, Potential, TwoLayer, two_layer
from mfpde.energy.base import GridQuadratic
from mfpde.energy.inputs import Sharpness
from mfpde.energy.network import GridTwoLayer
from mfpde.energy.polar import GridPolarTwoLayer, quadrature_modes
from mfpde.figures import densities, draw_comparison
from mfpde.measure import DensityFunction, Particles, covariance, deposit, mean, push_uniform
from mfpde.problem import Problem
from mfpde.run import STEP_FIELDS, Certificate, Run, Status
from mfpde.solvers import FiniteVolume, ParticleFlow
from mfpde.storage import ResultError, StoredRun, read_run, write_run

UNIT = Disk(("a", "b"), 1.0)
WIDE = Disk(("a", "b"), 3.0)
ASIDE = Disk(("a", "b"), 2.0, (1.0, -0.5))
TEACHER = Particles(np.array([[0.9, 0.3], [-0.6, 0.6], [0.1, -0.9]]), np.array([0.6, 0.5, -0.2]))


def bump(domain: Disk, x: float, y: float, sharpness: float = 2.0) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-sharpness * ((p[:, 0] - x) ** 2 + (p[:, 1] - y) ** 2)), domain)


def cloud(count: int, domain: Disk, seed: int = 0) -> Particles:
    generator = np.random.default_rng(seed)
    weights = generator.random(count) + 0.1
    return Particles(domain.spread(generator.random((count, 2))), weights / weights.sum())


# The domain.


@given(st.floats(-50, 50), st.floats(-50, 50))
@settings(deadline=None)
def test_confined_and_reflected_points_lie_in_the_disk_and_inner_points_stay(x, y):
    point = np.array([[x, y]])
    inner = np.hypot(x - 1.0, y + 0.5) <= 2.0
    for moved in (ASIDE.confine(point), ASIDE.reflect(point)):
        assert ASIDE.contains(moved).all()
        assert not inner or moved.tobytes() == point.tobytes()


def test_points_are_projected_to_the_rim_and_mirrored_there():
    def on_the_ray(*radii):
        return ASIDE.from_polar(np.array([[r, 0.3] for r in radii]))

    far = on_the_ray(2.5, 5.0, 7.0, 11.0, 1e9)
    assert ASIDE.confine(far) == pytest.approx(on_the_ray(2.0, 2.0, 2.0, 2.0, 2.0))
    assert ASIDE.reflect(far)[:4] == pytest.approx(on_the_ray(1.5, -1.0, -1.0, 1.0))
    assert ASIDE.contains(ASIDE.reflect(far)).all()
    assert UNIT.contains(np.array([[0.6, 0.8], [0.6, 0.8 + 1e-9]])).tolist() == [True, False]


def test_a_disk_knows_its_box_and_its_area():
    assert (ASIDE.dimension, ASIDE.names, ASIDE.moving) == (2, ("a", "b"), (0, 1))
    assert (ASIDE.lower.tolist(), ASIDE.upper.tolist()) == ([-1.0, -2.5], [3.0, 1.5])
    assert ASIDE.volume == pytest.approx(4.0 * np.pi, rel=1e-15)
    assert not (ASIDE.periodic | ASIDE.frozen).any()
    assert ASIDE.displacement(np.zeros((1, 2)), np.ones((1, 2))).tolist() == [[1.0, 1.0]]
    assert Disk(("a", "b"), 2.0, (1.0, -0.5)) == ASIDE != ASIDE.box
    assert type(ASIDE.box) is Domain
    assert ASIDE.reach(2) == pytest.approx(2.0 + np.hypot(1.0, 0.5))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((("a", "a"), 1.0), "two different axis names"),
        ((("a", "b"), 0.0), "positive finite radius"),
        ((("a", "b"), np.inf), "positive finite radius"),
        ((("a", "b"), 1.0, (0.0, np.nan)), "finite center"),
    ],
)
def test_a_disk_that_is_none_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Disk(*arguments)


def test_grids_of_a_disk_are_polar_and_have_rings_and_angles():
    with pytest.raises(ValueError, match="polar"):
        Grid(UNIT, (8, 8))
    for cells, says in (((8,), "radius and one for the angle"), ((8, 2), "3 angles"), ((0, 8), "1 radius")):
        with pytest.raises(ValueError, match=says):
            UNIT.grid(cells)
    with pytest.raises(AttributeError, match="weight"):
        _ = UNIT.grid((4, 8)).cell_volume


@pytest.mark.parametrize("cells", [(1, 3), (7, 12), (64, 33), (200, 400)])
def test_cell_volumes_sum_to_the_area(cells):
    grid = ASIDE.grid(cells)
    assert float(np.sum(grid.weight)) == pytest.approx(4.0 * np.pi, rel=1e-14)
    assert grid.locate(grid.centers).tolist() == list(range(grid.size))
    assert grid.locate(grid.centroids).tolist() == list(range(grid.size))
    radius, angle = grid.metric(0), grid.metric(1)
    for volumes in (np.outer(radius.volume * radius.cross, np.ones(cells[1])), np.outer(angle.scale, angle.volume * angle.cross)):
        assert np.max(np.abs(volumes.ravel() / grid.weight - 1.0)) < 1e-14
    assert (grid.periodic(0), grid.periodic(1), grid.moving) == (False, True, (0, 1))
    assert radius.area[[0, -1]].tolist() == [0.0, 2.0]


# Measures.


def test_the_uniform_density_has_the_moments_of_the_disk():
    density = DensityFunction(lambda p: np.ones(len(p)), ASIDE).on(ASIDE.grid((5, 7)))
    assert np.ravel(density.values) == pytest.approx(np.full(35, 0.25 / np.pi), rel=1e-14)
    assert mean(density) == pytest.approx(ASIDE.center, abs=1e-15)
    assert covariance(density) == pytest.approx(np.eye(2), abs=1e-14)


def test_moments_of_a_density_converge_at_second_order():
    tilted = DensityFunction(lambda p: 2.0 + p[:, 0] + p[:, 0] ** 2 + 0.5 * p[:, 0] * p[:, 1], UNIT)
    mass = 2.0 * np.pi + np.pi / 4.0  # moments of the unit disk: x² π/4, x⁴ π/8, x²y² π/24
    middle = np.array([np.pi / 4.0, 0.0]) / mass
    second = np.array([[np.pi / 2 + np.pi / 8, np.pi / 48], [np.pi / 48, np.pi / 2 + np.pi / 24]]) / mass
    sizes, errors = (8, 16, 32, 64), []
    for n in sizes:
        density = tilted.on(UNIT.grid((n, 2 * n)))
        assert density.mass == pytest.approx(1.0, abs=1e-14)
        spread = second - np.outer(middle, middle)
        errors.append(np.max(np.abs(mean(density) - middle)) + np.max(np.abs(covariance(density) - spread)))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.1)


def test_cell_averages_are_those_of_the_density_to_quadrature_accuracy():
    grid = UNIT.grid((4, 9))
    density = DensityFunction(lambda p: 3.0 + p[:, 0] ** 2 + p[:, 1] ** 2, UNIT).on(grid)
    edges = grid.edges(0)
    rings = 3.0 * (edges[1:] ** 2 - edges[:-1] ** 2) / 2.0 + (edges[1:] ** 4 - edges[:-1] ** 4) / 4.0
    assert np.reshape(density.weights, grid.cells)[:, 3] == pytest.approx(rings * 2.0 / 9.0 / 3.5, rel=1e-13)


def test_gauss_atoms_integrate_smooth_functions_on_the_disk():
    atoms = bump(WIDE, 0.0, 0.0, 4.0).gauss_atoms(64)
    assert WIDE.contains(atoms.points).all()
    assert float(atoms.weights @ np.cos(atoms.points[:, 0])) == pytest.approx(np.exp(-1.0 / 16.0), abs=1e-9)


@pytest.mark.parametrize("kind", ["quantiles", "sample"])
def test_samples_and_quantiles_follow_the_law(kind):
    tilted = bump(ASIDE, 0.5, 0.2)
    atoms = tilted.quantiles(4000) if kind == "quantiles" else tilted.sample(4000, np.random.default_rng(3))
    exact = tilted.on(ASIDE.grid((100, 200)))
    assert ASIDE.contains(atoms.points).all()
    assert mean(atoms) == pytest.approx(mean(exact), abs=0.03 if kind == "sample" else 2e-3)
    assert covariance(atoms) == pytest.approx(covariance(exact), abs=0.03 if kind == "sample" else 5e-3)


def test_uniform_draws_have_uniform_squares_of_radii_and_uniform_angles():
    from scipy.stats import kstest

    flat = DensityFunction(lambda p: np.ones(len(p)), ASIDE).on(ASIDE.grid((7, 9)))
    polar = ASIDE.to_polar(push_uniform(flat, np.random.default_rng(0).random((5000, 2))))
    assert kstest((polar[:, 0] / 2.0) ** 2, "uniform").pvalue > 1e-3
    assert kstest(polar[:, 1] / (2.0 * np.pi), "uniform").pvalue > 1e-3


def test_deposited_atoms_keep_their_mass_and_smooth_integrals_to_second_order():
    atoms = Particles(np.concatenate([[[0.0, 0.0], [1e-3, 2e-3]], cloud(300, UNIT).points * 0.9]), np.full(302, 1 / 302))

    def smooth(p):
        return np.exp(p[:, 0] - 0.3 * p[:, 1])

    exact = float(atoms.weights @ smooth(atoms.points))
    sizes, errors = (10, 20, 40, 80, 160), []
    for n in sizes:
        density = deposit(atoms, UNIT.grid((n, 2 * n + 1)))
        assert density.mass == pytest.approx(1.0, abs=1e-14)
        assert density.minimum >= 0.0
        errors.append(abs(float(density.weights @ smooth(density.points)) - exact))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


def test_an_atom_at_the_origin_is_deposited_around_it():
    density = deposit(Particles.equal(np.zeros((1, 2))), UNIT.grid((4, 8)))
    assert mean(density) == pytest.approx([0.0, 0.0], abs=1e-16)
    rim = deposit(Particles.equal(np.array([[0.0, -1.0]])), UNIT.grid((4, 8)))
    assert float(np.sum(np.reshape(rim.weights, (4, 8))[3])) == pytest.approx(1.0)


def test_the_gradient_of_the_entropy_is_that_of_the_logarithm():
    density = bump(WIDE, 0.0, 0.0, 0.5).on(WIDE.grid((600, 1200)))
    at = WIDE.from_polar(np.array([[0.002, 1.0], [0.6, 2.0], [1.4, 4.0], [2.9999, 0.5]]))
    assert Entropy(2.0).gradient(density, at) == pytest.approx(-2.0 * at, abs=0.03)


# Distances.


def test_shifted_gaussians_are_as_far_apart_as_their_means_within_the_floor():
    one, two = bump(WIDE, -0.8, 0.0, 6.0), bump(WIDE, 0.4, 0.9, 6.0)
    found = wasserstein(one.on(WIDE.grid((24, 48))), two.on(WIDE.grid((24, 48))), WIDE, support=1200)
    assert 0.05 < found.floor < 0.3
    assert found.value == pytest.approx(1.5, abs=found.floor)
    atoms = wasserstein(one.on(WIDE.grid((24, 48))), two.quantiles(600), WIDE, support=700)
    assert atoms.value == pytest.approx(1.5, abs=atoms.floor)


def test_the_floor_of_a_density_is_the_spread_inside_its_cells():
    density = DensityFunction(lambda p: np.ones(len(p)), UNIT).on(UNIT.grid((10, 20)))
    fine = DensityFunction(lambda p: np.ones(len(p)), UNIT).gauss_atoms(40)
    place = density.grid.locate(fine.points)
    moved = fine.weights @ np.sum((fine.points - density.grid.centroids[place]) ** 2, axis=1)
    found = wasserstein(density, Particles(density.grid.centroids, density.weights), UNIT, method="exact")
    assert found.value == pytest.approx(0.0, abs=1e-7)
    assert found.floor == pytest.approx(np.sqrt(moved), rel=1e-6)


# The two-layer energy on polar grids.

LAWS = {"normal": Normal(0.8), "wide": Normal(2.0), "circle": Circle(1.4)}
NETWORKS = [("tanh", "normal"), ("tanh", "wide"), ("softplus", "normal"), ("gelu", "normal"), ("tanh", "circle"), ("cos", "normal")]


def polar(term: TwoLayer, domain: Disk, cells: tuple[int, int]) -> GridPolarTwoLayer:
    assert term.angular is not None
    modes = term.angular()
    assert modes is not None
    return GridPolarTwoLayer(modes, domain.grid(cells))


@pytest.mark.parametrize(("activation", "law"), NETWORKS)
@pytest.mark.parametrize("cells", [(6, 9), (10, 48), (20, 12)], ids=str)
def test_angular_modes_see_the_population_loss_to_quadrature_accuracy(activation, law, cells):
    sigma, grid = ACTIVATIONS[activation], UNIT.grid(cells)
    sharpness = Sharpness(sigma.pole, not sigma.everywhere, False, 1e-10)
    modes = quadrature_modes(sigma, LAWS[law], sharpness, TEACHER, 1.0)
    assert modes is not None
    rho = bump(UNIT, 0.2, -0.4).on(grid)
    rule = LAWS[law].rule(2, replace(sharpness, tolerance=1e-13))
    values = sigma.value(rule.nodes @ grid.centers.T)
    gap = values @ rho.weights - sigma.value(rule.nodes @ TEACHER.points.T) @ TEACHER.weights
    xi, prepared = np.zeros(grid.size), GridPolarTwoLayer(modes, grid)
    value = prepared.add_drift(np.ravel(rho.values), xi)
    assert value == pytest.approx(0.5 * float(rule.weights @ gap**2), abs=2e-11)
    assert xi == pytest.approx((rule.weights * gap) @ values, abs=2e-10)
    assert prepared.value(np.ravel(rho.values)) == value


@pytest.mark.parametrize(("activation", "law"), [("cos", "normal"), ("tanh", "circle")])
def test_angular_modes_agree_with_the_features_to_their_tolerance(activation, law):
    grid = UNIT.grid((10, 24))
    term = two_layer(UNIT, activation, LAWS[law], TEACHER)
    rho = np.ravel(bump(UNIT, 0.2, -0.4).on(grid).values)
    one, two = np.zeros(grid.size), np.zeros(grid.size)
    values = polar(term, UNIT, grid.cells).add_drift(rho, one), replace(term, angular=None).on(grid).add_drift(rho, two)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert one == pytest.approx(two, abs=1e-5 * float(np.max(np.abs(two))))


def test_a_teacher_density_is_learnt_by_itself():
    teacher = bump(UNIT, 0.3, 0.1, 4.0)
    term = two_layer(UNIT, "tanh", Circle(1.4), teacher)
    grid = UNIT.grid((24, 32))
    rho = teacher.on(grid)
    assert polar(term, UNIT, grid.cells).value(np.ravel(rho.values)) == pytest.approx(term.value(rho), abs=1e-9)
    assert polar(term, UNIT, grid.cells).value(np.ravel(rho.values)) < 1e-6


def test_the_quadratic_form_of_angular_modes_is_that_of_the_energy():
    term = two_layer(UNIT, "relu", Circle(1.3), TEACHER)
    grid = UNIT.grid((8, 16))
    prepared = term.on(grid)
    assert isinstance(prepared, GridPolarTwoLayer)
    assert isinstance(prepared, GridQuadratic)
    assert (prepared.convex, prepared.factors) == (True, None)
    rho, xi, applied = np.random.default_rng(0).random(grid.size), np.zeros(grid.size), np.zeros(grid.size)
    value = prepared.add_drift(rho, xi)
    prepared.apply(rho, applied)
    nothing = prepared.value(np.zeros(grid.size))
    assert applied + prepared.linear == pytest.approx(xi, abs=1e-13)
    masses = rho * grid.weight
    assert value == pytest.approx(0.5 * masses @ applied + masses @ prepared.linear + nothing, rel=1e-12)
    assert nothing == pytest.approx(term.value(Particles(np.zeros((1, 2)), np.ones(1))), rel=1e-12)


@pytest.mark.parametrize("angles", [3, 8, 25])
def test_planar_relu_on_a_polar_grid_is_the_arc_cosine_kernel(angles):
    grid = WIDE.grid((7, angles))
    rho = bump(WIDE, 0.5, -0.3).on(grid)

    def kernel(a, b):
        sizes = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
        angle = np.arccos(np.clip(a @ b.T / sizes, -1, 1))
        return 0.5 * 1.3**2 * sizes * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)

    points = np.concatenate([grid.centers, TEACHER.points])
    signed = np.concatenate([rho.weights, -TEACHER.weights])
    term = two_layer(WIDE, "relu", Circle(1.3), TEACHER).on(grid)
    xi = np.zeros(grid.size)
    value = term.add_drift(np.ravel(rho.values), xi)
    assert value == pytest.approx(0.5 * signed @ kernel(points, points) @ signed, abs=1e-9)
    assert xi == pytest.approx(kernel(grid.centers, points) @ signed, abs=1e-8)


@pytest.mark.parametrize("law", [Normal(0.7), Circle(1.3)], ids=["normal", "circle"])
def test_quadratic_neurons_have_the_energy_of_their_second_moments(law):
    grid = WIDE.grid((9, 7))
    rho = bump(WIDE, 0.5, -0.3).on(grid)
    gap = (grid.centers.T * rho.weights) @ grid.centers - (TEACHER.points.T * TEACHER.weights) @ TEACHER.points
    fourth = 0.7**4 if isinstance(law, Normal) else 1.3**4 / 8.0
    exact = 0.5 * fourth * (2.0 * np.trace(gap @ gap) + np.trace(gap) ** 2)
    term = two_layer(WIDE, "quadratic", law, TEACHER)
    assert polar(term, WIDE, (9, 7)).value(np.ravel(rho.values)) == pytest.approx(exact, rel=1e-11)
    assert isinstance(term.on(grid), GridTwoLayer)


def test_angular_modes_are_taken_where_they_apply_only():
    grid, shifted = UNIT.grid((8, 16)), Disk(("a", "b"), 1.0, (0.5, 0.0))
    around = two_layer(UNIT, "relu", Normal(), TEACHER)
    assert isinstance(around.on(grid), GridPolarTwoLayer)
    assert "convolution in the angle" in around.description
    off = two_layer(shifted, "relu", Normal(), TEACHER)
    assert "convolution" not in off.description
    assert isinstance(off.on(shifted.grid((8, 16))), GridTwoLayer)
    assert two_layer(UNIT, "quadratic", Normal(), TEACHER, bias=True).angular is None
    assert two_layer(UNIT, "softsign", Circle(), TEACHER, tolerance=1e-2).angular is None


# Particles.


def slope(rate: float) -> Potential:
    return Potential(lambda p: -rate * p[:, 0], lambda p: np.broadcast_to([-rate, 0.0], p.shape))


def test_particles_slide_along_the_rim():
    start = UNIT.from_polar(np.array([[1.0, 1.2], [1.0, 3.0], [1.0, -2.5]]))
    problem = Problem(alone(slope(2.0)), UNIT, Particles.equal(start), (0.5, 1.5))
    run = ParticleFlow().solve(problem)
    for time, atoms in zip(run.times, run.measures, strict=True):
        turned = 2.0 * np.arctan(np.tan(0.5 * 1.2) * np.exp(-2.0 * time))
        assert UNIT.contains(atoms.points).all()
        assert np.arctan2(atoms.points[0, 1], atoms.points[0, 0]) == pytest.approx(turned, abs=1e-7)
        inside = start[1:] + np.array([2.0 * time, 0.0])
        free = np.hypot(inside[:, 0], inside[:, 1]) < 1.0
        assert atoms.points[1:][free] == pytest.approx(inside[free], abs=1e-9)
    assert run.certificate["energy"][-1] < run.certificate["energy"][0]


def test_a_particle_that_meets_the_rim_goes_on_along_it():
    problem = Problem(alone(slope(1.0)), UNIT, Particles.equal(np.array([[0.0, 0.6]])), (2.0,))
    point = ParticleFlow().solve(problem).final.points[0]
    exact = 2.0 * np.arctan(np.tan(0.5 * np.arcsin(0.6)) * np.exp(-(2.0 - 0.8)))
    assert np.hypot(*point) == pytest.approx(1.0, abs=1e-9)
    assert np.arctan2(point[1], point[0]) == pytest.approx(exact, abs=2e-5)


def test_noisy_particles_stay_inside_and_become_uniform():
    problem = Problem(alone(Entropy(1.0)), ASIDE, bump(ASIDE, 1.5, 0.0, 8.0), (0.5, 4.0))
    run = ParticleFlow(count=4000, seed=2, step=0.02).solve(problem)
    assert all(ASIDE.contains(m.points).all() for m in run.measures)
    assert mean(run.final) == pytest.approx(ASIDE.center, abs=5.0 / np.sqrt(4000))
    assert covariance(run.final) == pytest.approx(np.eye(2), abs=5.0 / np.sqrt(4000))


# Finite volumes.


@pytest.mark.parametrize(("order", "root"), [(0, 3.8317059702075125), (1, 1.8411837813406593)], ids=["radial", "angular"])
def test_heat_on_the_disk_decays_like_its_neumann_modes(order, root):
    from scipy.special import jv

    domain, end = Disk(("a", "b"), 1.5, (0.3, 0.2)), 0.1 if order else 0.05

    def mode(p, amplitude):
        radius, angle = domain.to_polar(p).T
        return (1.0 + amplitude * jv(order, root * radius / 1.5) * np.cos(order * angle)) / domain.volume

    rate = (root / 1.5) ** 2
    start = DensityFunction(lambda p: mode(p, 0.9), domain)
    exact = DensityFunction(lambda p: mode(p, 0.9 * np.exp(-rate * end)), domain)
    sizes, errors = (8, 16, 32), []
    for n in sizes:
        run = FiniteVolume((n, 2 * n), tolerance=1e-7).solve(Problem(alone(Entropy(1.0)), domain, start, (end,)))
        gap = run.final.weights - exact.on(run.final.grid).weights
        errors.append(float(np.sum(np.abs(gap))))
        assert run.certificate.mass_drift() <= 1e-12
        assert run.certificate.energy_rise() <= 1e-12
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


def test_a_gibbs_state_off_the_centre_is_the_limit():
    well = Potential(
        lambda p: 2.0 * (p[:, 0] - 0.4) ** 2 + p[:, 1] ** 2, lambda p: np.stack([4.0 * (p[:, 0] - 0.4), 2.0 * p[:, 1]], axis=1)
    )
    grid = WIDE.grid((12, 24))
    gibbs = np.exp(-well.function(grid.centers) / 0.5)
    problem = Problem(EnergySum({"well": well, "entropy": Entropy(0.5)}), WIDE, bump(WIDE, -0.5, 0.7), (40.0,))
    run = FiniteVolume(grid.cells).solve(problem)
    assert run.status is Status.DONE
    assert np.ravel(run.final.values) == pytest.approx(gibbs / float(np.sum(gibbs * grid.weight)), rel=1e-6, abs=1e-9)


# Storage, figures and case files.


def stored(label: str, domain: Disk, measures: list) -> StoredRun:
    times = np.arange(float(len(measures)))
    rows = np.ones((len(times), len(STEP_FIELDS)))
    rows[:, STEP_FIELDS.index("time")] = times
    run = Run(times, measures, {"two_layer": np.exp(-times)}, Certificate(rows), Status.DONE)
    return StoredRun(Path(f"/nowhere/{label}.h5"), domain, run, {"label": label, "title": "Disk"})


def test_a_run_on_the_disk_is_read_back_as_it_was(tmp_path):
    grid = ASIDE.grid((6, 8))
    density = bump(ASIDE, 0.5, 0.0).on(grid)
    write_run(tmp_path / "grid.h5", stored("grid", ASIDE, [density, density]).run, ASIDE)
    back = read_run(tmp_path / "grid.h5")
    assert back.domain == ASIDE
    assert back.run.final.grid == grid
    assert np.array_equal(back.run.final.values, density.values)
    rim = Particles.equal(ASIDE.confine(np.random.default_rng(0).normal(size=(50, 2)) * 9.0))
    write_run(tmp_path / "cloud.h5", stored("cloud", ASIDE, [rim]).run, ASIDE)
    assert np.array_equal(read_run(tmp_path / "cloud.h5").run.final.points, rim.points)
    write_run(tmp_path / "out.h5", stored("cloud", ASIDE, [Particles.equal(np.array([[3.0, 1.5]]))]).run, ASIDE)
    with pytest.raises(ResultError, match="leaves the domain"):
        read_run(tmp_path / "out.h5")


def test_a_density_on_the_disk_opens_in_xarray_with_its_coordinates(tmp_path):
    import xarray

    density = bump(ASIDE, 0.5, 0.0).on(ASIDE.grid((6, 8)))
    write_run(tmp_path / "grid.h5", stored("grid", ASIDE, [density, density]).run, ASIDE)
    with xarray.open_dataset(tmp_path / "grid.h5", engine="h5netcdf") as data:
        assert data.density.dims == ("time", "radius", "angle")
        assert data.radius.values == pytest.approx(ASIDE.grid((6, 8)).middles(0))
        assert data.angle_edges.values[-1] == pytest.approx(2.0 * np.pi)
        assert np.stack([data.a, data.b], axis=-1).reshape(-1, 2) == pytest.approx(density.points)
        assert "a" in data.density.coords
        assert float((data.density * data.cell_area).sum(("radius", "angle"))[0]) == pytest.approx(1.0)


def test_densities_and_particles_are_drawn_in_the_disk(tmp_path):
    grids = [bump(ASIDE, 0.5 + 0.5 * k, 0.0).on(ASIDE.grid((10, 12))) for k in range(3)]
    runs = [stored("grid", ASIDE, grids), stored("cloud", ASIDE, [cloud(300, ASIDE)] * 3)]
    paths = draw_comparison(runs, compare(runs), tmp_path)
    assert [path.name for path in paths] == ["density.png", "energy.png", "distance.png"]
    figure = densities.make_density_figure(runs)
    assert figure is not None
    figure.draw_without_rendering()
    panel = figure.axes[0]
    assert panel.collections[0].get_coordinates().shape == (11, 12 * 15 + 1, 2)
    assert panel.patches[0].get_radius() == 2.0
    assert panel.get_window_extent().width == pytest.approx(panel.get_window_extent().height, rel=1e-6)
    assert np.diff(panel.get_xlim()) == pytest.approx(np.diff(panel.get_ylim()))


CASE = """
[domain.ball]
axes = ["a", "b"]
radius = 1.5

[[energy]]
kind = "two_layer"
activation = "relu"
teacher = { neurons = [[1.0, 0.5], [-0.5, 0.6]], weights = [0.7, 0.3] }

[[energy]]
kind = "entropy"
temperature = 0.1

[initial]
density = "exp(-4*(a**2 + b**2))"

[time]
save = [0.0, 0.05]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [6, 12]

[[solver]]
kind = "particles"
count = 100
step = 0.02
"""


def test_a_case_on_the_disk_runs_from_the_file_to_the_table(tmp_path, capsys):
    path = tmp_path / "ball.toml"
    path.write_text(CASE)
    assert main(["check", str(path)]) == 0
    assert "(a, b) in the disk of radius 1.5 about (0, 0)" in capsys.readouterr().out
    problem = build_problem(load_case(path))
    assert problem.domain == Disk(("a", "b"), 1.5)
    assert getattr(build_solver(load_case(path), 0), "cells", None) == (6, 12)
    assert main(["run", str(path), "--output", str(tmp_path / "out"), "--no-figures"]) == 0
    assert "energy never rises" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "out" / "fv.h5")]) == 0
    assert "density on 6 × 12 cells" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "domain.ball.lower=1.0",
            "domain.ball: is an interval (lower, upper, periodic, frozen) or a disk (axes, radius, center), got lower",
        ),
        ("domain.theta={lower=0.0,upper=1.0}", "domain: a disk is the whole domain and stands alone; got the tables ball, theta"),
        ('domain.ball.axes=["a"]', "two different names"),
        ('domain.ball.axes=["a","a"]', "two different names"),
        ('domain.ball.axes=["angle","b"]', "domain.ball.axes: an axis name is a word that is none of"),
        ('domain.ball.axes=["if","b"]', "domain.ball.axes"),
        ("domain.ball.radius=0.0", "domain.ball.radius: must be positive, got 0.0"),
        ("domain.ball.center=[1.0]", "`center` needs two numbers, got [1.0]"),
        ("domain.ball.center=[1e9,0.0]", "too small to be resolved at its place"),
        ("domain.ball.raduis=1.0", 'unknown key; accepted here: axes, radius, center, walls (did you mean "radius"?)'),
        ('domain.ball={axes=["a","b"]}', "the key `radius` is missing"),
        ("solver.fv.cells=[8]", "needs one number for each of the 2 axes (radius, angle), got [8]"),
        ("solver.fv.cells=[8,2]", "at least 1 radius and 3 angles, got [8, 2]"),
        ("initial={atoms=[[1.2,1.2]]}", "the atom [1.2, 1.2] is outside the domain"),
    ],
)
def test_wrong_disks_are_refused_with_a_message(tmp_path, override, says):
    path = tmp_path / "ball.toml"
    path.write_text(CASE)
    with pytest.raises(InputError) as refused:
        build_problem(load_case(path, (override,)))
    assert says in str(refused.value)
