"""Interaction energies: their weights, their faces, their fast forms, and what is refused as a kernel."""

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import observed_order
from scipy.special import erf, exp1

from mfpde.case.difference import DifferenceExpression
from mfpde.case.expression import parse
from mfpde.cli import main
from mfpde.disk import Disk
from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import Interaction, PairKernel
from mfpde.energy import interaction as module
from mfpde.energy.base import GridQuadratic
from mfpde.energy.cell_average import box_average, circulant_weights
from mfpde.energy.convolution import Convolution, DenseMatrix
from mfpde.energy.low_rank import LowRank
from mfpde.energy.recursion import ExponentialRecursion
from mfpde.energy.resolution import measure_resolution
from mfpde.measure import Density, DensityFunction, Particles


def axes(*kinds: str, half: float = 2.0) -> Domain:
    """Axes x, y, z of length 2·half, each "wall", "circle" or "frozen"."""
    return Domain(tuple(Axis(n, -half, half, k == "circle", k == "frozen") for n, k in zip("xyz", kinds, strict=False)))


def pair_kernel(domain: Domain, text: str, coefficient: float = 1.0) -> PairKernel:
    expression = DifferenceExpression(parse(text, [*domain.names, "r"]))
    return PairKernel(domain, expression, expression.slope, coefficient)


def term(domain: Domain, text: str, coefficient: float = 1.0) -> Interaction:
    return Interaction(pair_kernel(domain, text, coefficient), text)


def random_density(grid: Grid, seed: int = 0) -> Density:
    values = np.random.default_rng(seed).random(grid.size)
    return Density(grid, values / np.sum(values * grid.weight))


def matrix_of(operator, size: int, part: str = "apply") -> np.ndarray:
    """K, or K₋, by its products with the unit vectors."""
    columns = np.zeros((size, size))
    for column, unit in zip(columns, np.eye(size), strict=True):
        getattr(operator, part)(unit, column)
    return columns.T


def log_average(lower, upper):
    """∫log|x| over [lower, upper] in 1-D, over its length."""
    primitive = lambda x: x * np.log(np.abs(np.where(x == 0.0, 1.0, x))) - x
    return (primitive(upper) - primitive(lower)) / (upper - lower)


def plane_log_average(corner, opposite):
    """∫log r over a rectangle of the plane between two corners, over its area."""

    def primitive(x, y):
        square = np.where(x * x + y * y == 0.0, 1.0, x * x + y * y)
        angles = x * x * np.arctan2(y * np.sign(x), np.abs(x)) + y * y * np.arctan2(x * np.sign(y), np.abs(y))
        return 0.5 * (x * y * np.log(square) - 3.0 * x * y + angles)

    (a, b), (c, d) = corner, opposite
    return (primitive(c, d) - primitive(a, d) - primitive(c, b) + primitive(a, b)) / ((c - a) * (d - b))


# --- weights ------------------------------------------------------------------------------------------------------------

CUBE = 3.0 * np.log((np.sqrt(3.0) + 1.0) / (np.sqrt(3.0) - 1.0)) - 0.5 * np.pi


@pytest.mark.parametrize(
    ("text", "sides", "exact"),
    [
        ("-log(r)", (0.2,), 1.0 - np.log(0.1)),
        ("-abs(x)", (0.2,), -0.05),
        ("r**-0.5", (0.2,), 2.0 / np.sqrt(0.1)),
        ("r**-0.95", (0.2,), 20.0 * 0.1**-0.95),
        ("exp(-r/0.001)", (0.2,), 0.01 * (1.0 - np.exp(-100.0))),
        ("-log(r)", (0.2, 0.2), -plane_log_average((-0.1, -0.1), (0.1, 0.1))),
        ("-log(r)", (0.2, 0.003), -plane_log_average((-0.1, -0.0015), (0.1, 0.0015))),
        ("x*y/r**2 - log(r)", (0.2, 0.1), -plane_log_average((-0.1, -0.05), (0.1, 0.05))),
        ("1/r", (0.2, 0.2, 0.2), CUBE / 0.2),
    ],
)
def test_the_average_over_the_cell_at_0_is_exact(text, sides, exact):
    kernel = pair_kernel(axes(*["wall"] * len(sides)), text)
    assert box_average(kernel, np.array(sides)) == pytest.approx(exact, rel=3e-13)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9])
def test_weights_of_a_circle_are_averages_of_the_shortest_differences(count):
    h = 0.3
    weights = circulant_weights(pair_kernel(axes("wall"), "-abs(x) - log(r)"), (count,), np.array([h]))
    fine = (np.arange(0, 64 * count) + 0.5) / 64 * h - 0.5 * h
    folded = np.abs(fine - count * h * np.round(fine / (count * h)))
    exact = -folded - log_average(folded - h / 128, folded + h / 128)
    assert weights == pytest.approx(exact.reshape(count, 64).mean(axis=1), abs=3e-4 if count < 3 else 1e-4)
    assert np.array_equal(weights[1:], weights[:0:-1])


def test_weights_without_mirror_symmetry_are_symmetric_and_those_of_the_plane():
    kernel = pair_kernel(axes("wall", "wall"), "-log(sqrt((x + 0.5*y)**2 + y**2))")
    weights = circulant_weights(kernel, (6, 8), np.array([0.2, 0.1]))
    assert not kernel.reflective
    assert np.array_equal(weights, np.roll(np.flip(weights), 1, axis=(0, 1)))
    lower, upper = np.array([0.3, 0.05]), np.array([0.5, 0.15])
    nodes, shares = np.polynomial.legendre.leggauss(30)
    places = np.array(list(product(0.5 + 0.5 * nodes, repeat=2))) * (upper - lower) + lower
    exact = np.multiply.outer(shares, shares).ravel() @ kernel.values(places) / 4.0
    assert weights[2, 1] == pytest.approx(exact, rel=1e-12)


# --- the faces -----------------------------------------------------------------------------------------------------------

SMOOTH = [
    pytest.param(("wall",), (60,), "exp(-x**2) - 0.3*exp(-x**2/4)", id="1d-low-rank"),
    pytest.param(("wall",), (60,), "exp(-20*x**2)*cos(9*x)", id="1d-narrow"),
    pytest.param(("wall",), (33,), "x**2/2", id="1d-quadratic"),
    pytest.param(("circle",), (30,), "-cos(pi*x/2)", id="circle"),
    pytest.param(("circle",), (31,), "-0.5*x**2", id="circle-with-a-kink"),
    pytest.param(("wall", "wall"), (12, 9), "exp(-r**2) + 0.2*x*y", id="2d"),
    pytest.param(("wall", "circle"), (8, 11), "exp(-x**2)*cos(pi*y/2)", id="2d-mixed"),
    pytest.param(("circle", "circle"), (8, 9), "exp(cos(pi*x/2) + cos(pi*y/2))", id="torus"),
    pytest.param(("wall", "frozen"), (10, 7), "exp(-r**2)", id="2d-frozen"),
    pytest.param(("wall", "wall", "wall"), (6, 5, 4), "exp(-r**2/9)*(1 + x*z/9)", id="3d"),
    pytest.param(("wall", "wall", "wall"), (6, 5, 4), "x**2 + x*y - 3*z**2 + 1", id="3d-quadratic"),
    pytest.param(("wall", "circle", "frozen"), (5, 6, 3), "exp(-(x**2 + z**2)/9) - cos(pi*y/2)", id="3d-mixed"),
]
SINGULAR = [
    pytest.param(("wall",), (50,), "-abs(x)", id="1d-kink"),
    pytest.param(("wall",), (50,), "-log(r)", id="1d-log"),
    pytest.param(("wall",), (50,), "exp(-r/0.3)", id="1d-exponential"),
    pytest.param(("circle",), (31,), "-log(abs(sin(pi*x/4)))", id="circle-log"),
    pytest.param(("wall", "wall"), (12, 9), "r**2/2 - log(r)", id="2d-log"),
    pytest.param(("wall", "wall"), (12, 9), "-log(r) + x*y/(1 + r)", id="2d-tilted"),
    pytest.param(("wall", "circle"), (8, 11), "1/r", id="2d-mixed"),
    pytest.param(("circle", "wall"), (8, 11), "exp(-r)", id="2d-mixed-kink"),
    pytest.param(("frozen", "wall"), (4, 20), "-log(r)", id="2d-frozen"),
    pytest.param(("wall", "circle", "wall"), (5, 6, 4), "1/r", id="3d"),
]


@pytest.mark.parametrize(("kinds", "cells", "text"), SMOOTH + SINGULAR)
def test_a_density_has_the_energy_and_first_variation_of_its_grid(kinds, cells, text):
    domain = axes(*kinds)
    energy, density = term(domain, text, -1.7), random_density(domain.grid(cells))
    grid = density.grid
    xi = np.ones(grid.size)
    value = energy.on(grid).add_drift(density.values, xi)
    scale = np.max(np.abs(xi))
    assert value == pytest.approx(energy.value(density), abs=1e-12 * scale)
    assert value == pytest.approx(energy.on(grid).value(density.values), abs=1e-12 * scale)
    assert xi - 1.0 == pytest.approx(energy.first_variation(density, grid.centers), abs=1e-12 * scale)
    moved = energy.first_variation(density, grid.centers + 1e-13)
    assert xi - 1.0 == pytest.approx(moved, abs=2e-11 * scale)
    other = random_density(grid, 1)
    rise = other.weights @ (xi - 1.0) + energy.value(other)
    assert energy.value(Density(grid, density.values + other.values)) - value == pytest.approx(rise, abs=1e-12 * scale)


@pytest.mark.parametrize(("kinds", "cells", "text"), SMOOTH)
def test_a_density_is_its_atoms_for_smooth_kernels(kinds, cells, text):
    domain = axes(*kinds)
    energy, density = term(domain, text), random_density(domain.grid(cells))
    atoms = Particles(density.points, density.weights)
    at = domain.spread(np.random.default_rng(3).random((9, len(kinds))))
    for one, two in (
        (energy.value(density), energy.value(atoms)),
        (energy.first_variation(density, at), energy.first_variation(atoms, at)),
        (energy.first_variation(density, density.points), energy.first_variation(atoms, density.points)),
        (energy.gradient(density, at), energy.gradient(atoms, at)),
    ):
        assert one == pytest.approx(two, abs=1e-12 * max(1.0, float(np.max(np.abs(two)))))


@pytest.mark.parametrize(("kinds", "cells", "text"), SMOOTH + SINGULAR)
def test_the_gradient_is_the_difference_of_the_first_variation(kinds, cells, text):
    domain = axes(*kinds)
    energy, density = term(domain, text), random_density(domain.grid(cells))
    inside = domain.spread(0.01 + 0.98 * np.random.default_rng(5).random((7, len(kinds))))
    atoms = Particles(domain.spread(np.random.default_rng(6).random((11, len(kinds)))), density.weights[:11])
    for measure in (density, atoms):
        slopes = energy.gradient(measure, inside)
        for k, step in enumerate(1e-6 * np.eye(len(kinds))):
            rise = energy.first_variation(measure, inside + step) - energy.first_variation(measure, inside - step)
            assert slopes[:, k] == pytest.approx(rise / 2e-6, abs=1e-6 * max(1.0, float(np.max(np.abs(slopes)))))


def test_a_density_between_the_centres_is_second_order_in_value_and_gradient():
    domain = axes("wall", half=8.0)
    energy = term(domain, "-abs(x)")
    sizes, errors = (40, 60, 80, 120, 160, 240), []
    at = np.linspace(-7.99, 7.99, 301)[:, None]
    exact = np.stack([gaussian_distance(at[:, 0]), -erf(at[:, 0] / np.sqrt(2.0))])
    for cells in sizes:
        density = gaussian(domain).on(domain.grid((cells,)))
        found = np.stack([energy.first_variation(density, at), energy.gradient(density, at)[:, 0]])
        errors.append(np.max(np.abs(found - exact), axis=1))
    for part in zip(*errors, strict=True):
        assert observed_order(sizes, part) == pytest.approx(2.0, abs=0.15)


# --- atoms ---------------------------------------------------------------------------------------------------------------


def naive(energy: Interaction, atoms: Particles, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    domain, kernel = energy.kernel.domain, energy.kernel
    xi, slope = np.zeros(len(at)), np.zeros(at.shape)
    for i, x in enumerate(at):
        for y, weight in zip(atoms.points, atoms.weights, strict=True):
            z = domain.displacement(y, x)[None, :]
            if z.any():
                xi[i] += weight * kernel.coefficient * kernel.function(z)[0]
                slope[i] += weight * kernel.coefficient * kernel.slope(z)[0]
            elif kernel.at_zero is not None:
                xi[i] += weight * kernel.at_zero
    return xi, slope


@pytest.mark.parametrize("pairs", [7, 50, 1 << 13])
@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (("wall",), "-log(r)"),
        (("circle",), "exp(-abs(x))"),
        (("wall", "circle"), "r**2/2 - log(r)"),
        (("wall", "wall"), "exp(-r) - 2*exp(-2*r)"),
        (("wall", "frozen", "circle"), "1/r + x*y"),
    ],
)
def test_atoms_interact_pair_by_pair_but_not_with_themselves_through_infinite_kernels(kinds, text, pairs, monkeypatch):
    monkeypatch.setattr(module, "_PAIRS", pairs)
    domain, generator = axes(*kinds), np.random.default_rng(0)
    energy = term(domain, text, 0.7)
    points = domain.spread(generator.random((20, len(kinds))))
    points[7] = points[3]
    atoms = Particles(points, generator.random(20))
    for at in (points, domain.spread(generator.random((6, len(kinds))))):
        xi, slope = naive(energy, atoms, at)
        assert energy.first_variation(atoms, at) == pytest.approx(xi, rel=1e-12, abs=1e-13)
        assert energy.gradient(atoms, at) == pytest.approx(slope, rel=1e-12, abs=1e-12)
    assert energy.value(atoms) == pytest.approx(0.5 * atoms.weights @ naive(energy, atoms, points)[0], rel=1e-12)
    assert np.abs(atoms.weights @ energy.gradient(atoms, points)).max() < 1e-11, "forces are opposite"


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (("wall",), "exp(-x**2) - 0.4*exp(-x**2/9)"),
        (("frozen",), "-sqrt(1 + r**2)"),
        (("circle",), "exp(cos(pi*x/2))"),
        (("circle",), "1 - cos(pi*x/2)"),
        (("circle", "circle"), "-cos(pi*x/2)*cos(pi*y/2) - cos(pi*(x - y))"),
        (("wall", "wall"), "exp(-r**2/9) + 0.1*sin(x)*sin(y)"),
        (("wall", "frozen", "wall"), "exp(-r**2/400)*(1 + x*z)"),
    ],
)
def test_many_atoms_meet_through_the_moments_of_smooth_kernels(kinds, text):
    domain, generator = axes(*kinds), np.random.default_rng(0)
    energy, atoms = term(domain, text), Particles(domain.spread(generator.random((100, len(kinds)))), generator.random(100))
    at, series = domain.spread(generator.random((70, len(kinds)))), energy._series
    assert series is not None
    assert series.potential(atoms.points, atoms.weights, at) == pytest.approx(energy.first_variation(atoms, at), abs=1e-10)
    assert series.force(atoms.points, atoms.weights, at) == pytest.approx(energy.gradient(atoms, at), abs=1e-8)
    many = Particles.equal(np.tile(atoms.points, (60, 1)))
    few = Particles.equal(atoms.points)
    assert energy.value(many) == pytest.approx(energy.value(few), abs=1e-12)
    assert energy.gradient(many, at) == pytest.approx(energy.gradient(few, at), abs=1e-10)
    assert energy._summed(few, at) is None
    assert energy._summed(many, many.points) is series


@pytest.mark.parametrize(
    ("kinds", "text"), [(("wall",), "-abs(x)"), (("circle",), "x**2"), (("circle",), "exp(-50*x**2)"), (("wall",), "min(r, 1)**2")]
)
def test_kernels_that_are_not_smooth_or_too_narrow_have_no_series(kinds, text):
    assert term(axes(*kinds), text)._series is None


@pytest.mark.parametrize(
    ("text", "energy"), [("3 - abs(x)", 6.0), ("-log(r)", 0.0), ("sin(r)/r", 2.0), ("x**2 + 1", 2.0), ("r*log(r)", 0.0)]
)
def test_a_single_atom_has_the_energy_of_w_at_0_or_none(text, energy):
    atom = Particles(np.zeros((1, 1)), np.array([2.0]))
    assert term(axes("wall"), text).value(atom) == pytest.approx(energy, rel=1e-12, abs=1e-10)
    assert np.array_equal(term(axes("wall"), text).gradient(atom, atom.points), [[0.0]])


def test_gradients_and_coefficients_that_are_not_finite_are_refused():
    domain = axes("wall")
    with pytest.raises(ValueError, match="its gradient is not at the difference x = "):
        PairKernel(domain, lambda x: x[:, 0] ** 2, lambda x: np.full(x.shape, np.nan))
    with pytest.raises(ValueError, match="another domain"):
        term(domain, "-abs(x)").on(axes("wall", half=3.0).grid((8,)))
    with pytest.raises(ValueError, match="coefficient must be finite and not zero, got nan"):
        pair_kernel(domain, "-abs(x)", float("nan"))


def test_quadratic_kernels_pull_every_atom_to_the_mean():
    domain = axes("wall", "wall")
    atoms = Particles.equal(domain.spread(np.random.default_rng(0).random((1000, 2))))
    energy = term(domain, "r**2/2")
    assert energy.gradient(atoms, atoms.points) == pytest.approx(atoms.points - atoms.points.mean(axis=0), abs=1e-14)
    assert energy.value(atoms) == pytest.approx(0.5 * np.sum(np.var(atoms.points, axis=0)), rel=1e-13)


# --- fast forms against dense sums ---------------------------------------------------------------------------------------


def dense(energy: Interaction, grid: Grid, weight) -> np.ndarray:
    """|cell| W for all pairs of cells, W by ``weight`` of the shortest difference."""
    z = grid.domain.displacement(grid.centers[None, :, :], grid.centers[:, None, :])
    return grid.cell_volume * weight(z)


@pytest.mark.parametrize(("kinds", "cells", "text"), SMOOTH)
def test_products_are_the_dense_sums(kinds, cells, text):
    domain = axes(*kinds)
    grid, energy = domain.grid(cells), term(axes(*kinds), text, -2.0)
    exact = dense(energy, grid, lambda z: energy.kernel.values(z.reshape(-1, len(kinds))).reshape(grid.size, grid.size))
    found = matrix_of(energy.on(grid), grid.size)
    assert np.max(np.abs(found - exact)) < 2e-13 * np.max(np.abs(exact))
    convolution = Convolution(energy.kernel, grid.cells, grid.spacing, tuple(a.periodic for a in domain.axes))
    assert np.max(np.abs(matrix_of(convolution, grid.size) - exact)) < 1e-13 * np.max(np.abs(exact))


@pytest.mark.parametrize("kind", ["wall", "circle"])
@pytest.mark.parametrize("cells", [1, 2, 7, 40, 97])
def test_products_with_logarithms_are_the_dense_sums_of_exact_averages(kind, cells):
    domain = axes(kind)
    grid, h = domain.grid((cells,)), 4.0 / cells
    z = grid.domain.displacement(grid.centers[None, :, :], grid.centers[:, None, :])
    distance = np.abs(z[..., 0])
    end = np.minimum(distance + 0.5 * h, 2.0) if kind == "circle" else distance + 0.5 * h
    exact = -h * log_average(distance - 0.5 * h, end)
    found = matrix_of(term(domain, "-log(r)").on(grid), grid.size)
    assert np.max(np.abs(found - exact)) < 1e-13 * max(np.max(np.abs(exact)), h)


def test_products_with_logarithms_in_the_plane_are_the_dense_sums_of_exact_averages():
    domain = axes("wall", "wall")
    grid = domain.grid((11, 6))
    half = 0.5 * grid.spacing
    z = grid.centers[:, None, :] - grid.centers[None, :, :]
    corner, opposite = np.moveaxis(z - half, -1, 0), np.moveaxis(z + half, -1, 0)
    exact = -grid.cell_volume * plane_log_average(corner, opposite)
    found = matrix_of(term(domain, "-log(r)").on(grid), grid.size)
    assert np.max(np.abs(found - exact)) < 1e-12 * np.max(np.abs(exact))


@pytest.mark.parametrize(("height", "length", "constant"), [(1.0, 0.3, 0.0), (-2.0, 5.0, 3.0), (1.5, 0.01, 0.0), (1.0, 1e-4, 0.0)])
def test_the_recursion_is_the_dense_sum_of_exact_averages(height, length, constant):
    domain = axes("wall")
    grid = domain.grid((75,))
    energy = term(domain, f"{constant} + ({height})*exp(-r/{length})")
    operator = energy.on(grid).operator
    assert isinstance(operator, ExponentialRecursion)
    h, t = grid.cell_volume, 0.5 * grid.cell_volume / length
    steps = np.abs(np.subtract.outer(np.arange(75), np.arange(75)))
    beside = np.exp(-2.0 * t * steps + t) * -np.expm1(-2.0 * t) / (2.0 * t)
    exact = h * (constant + height * np.where(steps == 0, -np.expm1(-t) / t, beside))
    assert np.max(np.abs(matrix_of(operator, 75) - exact)) < 2e-13 * np.max(np.abs(exact))
    convolution = Convolution(energy.kernel, grid.cells, grid.spacing, (False,))
    assert np.max(np.abs(matrix_of(convolution, 75) - exact)) < 2e-13 * np.max(np.abs(exact))


def test_sums_that_decay_do_not_become_subnormal():
    grid = axes("wall", half=3000.0).grid((40_000,))
    rho = np.zeros(grid.size)
    rho[0] = 1.0
    xi = np.zeros(grid.size)
    term(grid.domain, "exp(-r)").on(grid).apply(rho, xi)
    assert not np.any((xi != 0.0) & (np.abs(xi) < 1e-300))


@pytest.mark.parametrize(
    ("kinds", "cells", "text", "form", "rank"),
    [
        (("wall",), (200,), "x**2/2", LowRank, 3),
        (("wall",), (200,), "3*x**2 + 2", LowRank, 3),
        (("wall", "wall"), (9, 8), "r**2/2", LowRank, 4),
        (("wall", "wall"), (9, 8), "(x - y)**2 + 1", LowRank, 3),
        (("wall", "circle"), (9, 8), "x**2", LowRank, 3),
        (("wall", "wall", "wall"), (4, 5, 6), "x*y - z**2", LowRank, 5),
        (("wall",), (200,), "7", LowRank, 1),
        (("wall",), (200,), "cos(x)", LowRank, 4),
        (("wall",), (200,), "exp(-x**2/2)", LowRank, 24),
        (("wall",), (200,), "sin(r)/r", LowRank, 12),
        (("circle",), (200,), "-cos(pi*x/2)", LowRank, 2),
        (("circle",), (200,), "1 - cos(pi*x/2)", LowRank, 3),
        (("circle", "circle"), (20, 30), "-cos(pi*x/2) - cos(pi*y/2)", LowRank, 4),
        (("wall",), (200,), "exp(-200*x**2)", Convolution, None),
        (("wall",), (200,), "-abs(x)", Convolution, None),
        (("circle",), (200,), "exp(-r)", Convolution, None),
        (("wall",), (200,), "min(r, 1)**2", Convolution, None),
        (("wall",), (200,), "exp(-r)", ExponentialRecursion, None),
    ],
)
def test_fast_forms_are_found_from_the_kernel(kinds, cells, text, form, rank):
    grid = axes(*kinds).grid(cells)
    prepared = term(grid.domain, text).on(grid)
    assert isinstance(prepared, GridQuadratic)
    assert isinstance(prepared.operator, form)
    assert not prepared.linear.any()
    if rank is None:
        assert prepared.factors is None
        return
    assert prepared.factors is not None
    rows, signs = prepared.factors
    assert len(signs) <= rank
    exact = matrix_of(prepared, grid.size)
    assert np.max(np.abs((rows.T * signs) @ rows * grid.cell_volume - exact)) < 1e-13 * np.max(np.abs(exact))


# --- the split into convex and concave -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "cells", "text", "convex"),
    [
        (("wall",), (60,), "-abs(x)", True),
        (("wall",), (47,), "-abs(x)", True),
        (("wall",), (60,), "-log(r)", True),
        (("wall",), (60,), "r**-0.5", True),
        (("wall",), (60,), "exp(-r/0.1)", True),
        (("wall",), (60,), "4 - exp(-r/0.1)", False),
        (("wall",), (60,), "-x**2 - 7", True),
        (("wall",), (60,), "x**2", False),
        (("wall",), (60,), "x**2/2 - abs(x)", False),
        (("wall",), (60,), "exp(-x**2) - 2", True),
        (("wall",), (60,), "-sqrt(0.1 + x**2)", True),
        (("wall",), (60,), "exp(-r) - 2*exp(-r/2)", False),
        (("wall",), (60,), "-exp(-40*x**2)", False),
        (("circle",), (40,), "-abs(x)", True),
        (("circle",), (40,), "cos(pi*x/2) - 5", True),
        (("circle",), (40,), "-cos(pi*x/2)", False),
        (("wall", "wall"), (9, 8), "-log(r)", True),
        (("wall", "wall"), (9, 8), "r**2/2 - log(r)", False),
        (("wall", "wall"), (9, 8), "-sqrt(4 + r**2)", True),
        (("wall", "circle"), (9, 8), "exp(-r)", None),
        (("wall", "wall"), (9, 8), "x**2 - y**2", False),
        (("wall", "wall", "wall"), (5, 4, 5), "1/r", True),
        (("wall", "frozen", "wall"), (5, 4, 5), "-1/r", False),
    ],
)
def test_the_convex_and_the_concave_part_are_positive_between_densities_of_one_mass(kinds, cells, text, convex):
    grid = axes(*kinds).grid(cells)
    prepared = term(grid.domain, text).on(grid)
    centre = np.eye(grid.size) - 1.0 / grid.size
    whole, concave = (centre @ matrix_of(prepared, grid.size, part) @ centre for part in ("apply", "apply_concave"))
    scale = np.max(np.abs(np.linalg.eigvalsh(whole)))
    assert np.min(np.linalg.eigvalsh(concave)) > -1e-13 * scale
    assert np.min(np.linalg.eigvalsh(whole + concave)) > -1e-13 * scale
    assert prepared.convex == (not concave.any())
    assert convex is None or prepared.convex == convex


# --- closed forms --------------------------------------------------------------------------------------------------------


def gaussian(domain: Domain, variance: float = 1.0) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-0.5 * np.sum(p * p, axis=1) / variance), domain)


def gaussian_distance(x):
    """−E|x − Y| for a standard normal Y."""
    return -(x * erf(x / np.sqrt(2.0)) + np.sqrt(2.0 / np.pi) * np.exp(-0.5 * x * x))


def gaussian_logarithm(r, variance):
    """−E log|x − Y| for Y normal in the plane, |x| = r."""
    square = np.maximum(r * r, 1e-300)
    return -0.5 * (np.log(square) + exp1(square / (2.0 * variance)))


def test_the_mean_distance_to_a_gaussian_is_second_order():
    domain = axes("wall", half=9.0)
    sizes = (24, 36, 48, 72, 96, 144, 192)
    errors = []
    for cells in sizes:
        density = gaussian(domain).on(domain.grid((cells,)))
        x = density.points[:, 0]
        errors.append(np.max(np.abs(term(domain, "-abs(x)").first_variation(density, density.points) - gaussian_distance(x))))
    assert 1.85 < observed_order(sizes, errors) < 2.15


def test_the_log_potential_of_a_semicircle_is_second_order():
    """−log|x|∗ρ = 1/2 + log 2 − x² on the support of ρ = (2/π)√(1 − x²), and its energy is 1/8 + (log 2)/2 [Saff–Totik 1997]."""
    domain = axes("wall", half=1.5)
    energy = term(domain, "-log(r)")
    sizes = (24, 36, 48, 72, 96, 144, 192, 288)
    potential, values = [], []
    for cells in sizes:
        grid = domain.grid((cells,))
        ends = np.clip(grid.edges(0), -1.0, 1.0)
        density = Density(grid, np.diff((ends * np.sqrt(1.0 - ends**2) + np.arcsin(ends)) / np.pi) / grid.cell_volume)
        error = energy.first_variation(density, grid.centers) - (0.5 + np.log(2.0) - grid.centers[:, 0] ** 2)
        potential.append(density.weights @ np.abs(error))
        values.append(abs(energy.value(density) - (0.125 + 0.5 * np.log(2.0))))
    assert 1.85 < observed_order(sizes, potential) < 2.15
    assert 1.85 < observed_order(sizes, values) < 2.15


def test_the_log_potential_of_a_gaussian_in_the_plane_is_second_order():
    domain = axes("wall", "wall", half=6.0)
    sizes, errors = (32, 40, 48, 64, 80, 96, 128), []
    for cells in sizes:
        density = gaussian(domain, 0.6).on(domain.grid((cells, cells)))
        exact = gaussian_logarithm(np.linalg.norm(density.points, axis=1), 0.6)
        errors.append(np.max(np.abs(term(domain, "-log(r)").first_variation(density, density.points) - exact)))
    assert 1.85 < observed_order(sizes, errors) < 2.15


def test_the_newtonian_potential_of_a_gaussian_in_space_is_second_order():
    domain = axes("wall", "wall", "wall", half=5.0)
    sizes, errors = (24, 30, 36, 48, 60), []
    for cells in sizes:
        density = gaussian(domain).on(domain.grid((cells,) * 3))
        r = np.linalg.norm(density.points, axis=1)
        exact = erf(r / np.sqrt(2.0)) / r
        errors.append(np.max(np.abs(term(domain, "1/r").first_variation(density, density.points) - exact)))
    assert 1.85 < observed_order(sizes, errors) < 2.15


def test_smooth_kernels_are_second_order():
    domain = axes("wall", half=9.0)
    sizes, errors = (36, 48, 72, 96, 144, 192), []
    for cells in sizes:
        density = gaussian(domain).on(domain.grid((cells,)))
        exact = np.sqrt(0.5) * np.exp(-0.25 * density.points[:, 0] ** 2)
        errors.append(np.max(np.abs(term(domain, "exp(-x**2/2)").first_variation(density, density.points) - exact)))
    assert 1.85 < observed_order(sizes, errors) < 2.15


def test_kernels_narrower_than_a_cell_keep_their_mass():
    domain = axes("wall")
    density = random_density(domain.grid((40,)))
    narrow = term(domain, "exp(-(x/0.001)**2)")
    assert narrow.first_variation(density, density.points) == pytest.approx(0.001 * np.sqrt(np.pi) * density.values, rel=1e-9)


# --- disks ---------------------------------------------------------------------------------------------------------------


def test_on_a_disk_smooth_kernels_are_sums_over_centres_and_quadratic_ones_have_factors():
    disk = Disk(("x", "y"), 1.5, (0.3, -0.2))
    grid = disk.grid((6, 16))
    density = random_density(grid)
    atoms = Particles(density.points, density.weights)
    for text, form in (("exp(-r**2)", DenseMatrix), ("x**2 - x*y", LowRank), ("exp(-r)", DenseMatrix)):
        energy = term(disk, text)
        prepared = energy.on(grid)
        assert isinstance(prepared.operator, form)
        assert prepared.value(density.values) == pytest.approx(energy.value(density), rel=1e-12)
        xi = np.zeros(grid.size)
        prepared.apply(density.values, xi)
        assert energy.first_variation(density, grid.centers) == pytest.approx(xi, rel=1e-12)
        if text != "exp(-r)":
            assert energy.value(atoms) == pytest.approx(energy.value(density), rel=1e-12)
        concave = np.zeros(grid.size)
        prepared.apply_concave(density.values, concave)
        assert prepared.convex == (not concave.any())
    assert term(disk, "exp(-r**2)").on(grid).convex
    assert not term(disk, "-exp(-r**2)").on(grid).convex


def test_the_log_potential_of_a_uniform_disk_converges():
    disk = Disk(("x", "y"), 1.0)
    energy = term(disk, "-log(r)")
    sizes, errors, slopes = (6, 8, 12, 16), [], []
    at = disk.spread(np.random.default_rng(0).random((40, 2)) * np.array([0.8, 1.0]))
    for rings in sizes:
        grid = disk.grid((rings, 3 * rings))
        density = Density(grid, np.full(grid.size, 1.0 / np.pi))
        exact = 0.5 * (1.0 - np.sum(grid.centers**2, axis=1))
        errors.append(np.max(np.abs(energy.first_variation(density, grid.centers) - exact)))
        slopes.append(np.max(np.abs(energy.gradient(density, at) + at)))
    assert observed_order(sizes, errors) > 1.5
    assert errors[-1] < 6e-4
    assert slopes[-1] < 0.08


def test_a_disk_of_many_cells_is_refused():
    grid = Disk(("x", "y"), 1.0).grid((60, 128))
    with pytest.raises(ValueError, match=r"at most 6000 cells, got 7680"):
        term(grid.domain, "exp(-r)").on(grid)
    assert term(grid.domain, "r**2").on(grid).factors is not None


# --- what the cells resolve ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["exp(-x**2)", "-log(r)", "r**-0.9", "sqrt(r)", "max(0.5 - r, 0)", "sin(r)/r", "cos(12*x)"])
def test_a_kernel_that_the_cells_resolve_has_no_note(text):
    assert term(axes("wall"), text).on(axes("wall").grid((32,))).note == ""


def test_the_misfit_of_a_cosine_is_that_of_its_average():
    h = 0.125
    for wave in (4.0, 8.0, 12.0):
        exact = 1.0 - np.sin(0.5 * wave * h) / (0.5 * wave * h)
        assert measure_resolution(pair_kernel(axes("wall"), f"cos({wave}*x)"), np.array([h])).misfit == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("count", [4, 8, 16, 32, 100, 1000])
def test_a_kernel_that_oscillates_within_the_cells_is_refused_with_the_cells_that_would_do(count):
    energy = term(axes("wall"), "cos(1e6*x)")
    with pytest.raises(ValueError, match=r"varies too fast for these cells: .* use about (\d+) times as many cells") as error:
        energy.on(axes("wall").grid((count,)))
    factor = int(str(error.value).split("about ")[1].split()[0])
    assert 6.4e5 < count * factor < 6.4e6, "one to ten cells in each of the 6.4e5 waves"
    plane = axes("wall", "circle")
    with pytest.raises(ValueError, match="varies too fast"):
        term(plane, "cos(1e5*r)").on(plane.grid((16, 16)))


def test_a_kernel_narrower_than_a_cell_is_noted():
    energy = term(axes("wall"), "exp(-1e8*x**2)")
    assert "narrower than a cell" in energy.on(axes("wall").grid((32,))).note
    assert "hardly resolve" in term(axes("wall"), "exp(-100*x**2)").on(axes("wall").grid((32,))).note


# --- case files ----------------------------------------------------------------------------------------------------------

CASE = """title = "interaction"

[domain.x]
lower = -2.0
upper = 2.0

[[energy]]
kind = "interaction"
kernel = "x**2/2 - log(r)"

[initial]
density = "exp(-x**2)"

[time]
save = [0.0, 0.01]

[[solver]]
kind = "finite_volume"
cells = [32]
"""
KERNEL = 'kernel = "x**2/2 - log(r)"'
SECOND = "[domain.y]\nlower = -1.0\nupper = 1.0\n\n[[energy]]"
ENERGY = CASE[CASE.index('kind = "interaction"') : CASE.index("\n\n[initial]")]


def command(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with np.errstate(all="warn"), warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("error")
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def check(folder: Path, *changes: tuple[str, str]) -> tuple[int, str, str]:
    text = CASE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "case.toml"
    path.write_text(text, encoding="utf-8")
    return command("check", path)


def kernel(text: str) -> tuple[str, str]:
    return KERNEL, f'kernel = "{text}"'


PLANE = ("[[energy]]", SECOND)
CELLS = ("[32]", "[8, 8]")
TORUS = ("upper = 2.0", "upper = 2.0\nperiodic = true")
POROUS = 'kind = "porous_medium"\nexponent = 2'
WRONG = {
    "odd": ([kernel("x")], ("energy[0].kernel", "even", "W(-x) = W(x)", "opposite", "x =")),
    "uneven": ([kernel("exp(-(x - 0.1)**2)")], ("energy[0].kernel", "even")),
    "uneven in one of two": ([PLANE, CELLS, kernel("x**2*y")], ("energy[0].kernel", "even", "y =")),
    "infinite elsewhere": ([kernel("log(abs(abs(x) - 4))")], ("energy[0].kernel", "finite away from 0", "x = ")),
    "infinite on a line": ([PLANE, CELLS, kernel("-log(abs(x))")], ("energy[0].kernel", "finite away from 0", "x = 0")),
    "a pole": ([kernel("1/(r - 1)")], ("energy[0].kernel", "continuous", "x = ")),
    "a jump": ([kernel("1*(r < 0.7)")], ("energy[0].kernel", "continuous", "jumps at the difference x = 0.7")),
    "not a number": ([kernel("log(1 - r)")], ("energy[0].kernel", "finite away from 0")),
    "not integrable": ([kernel("1/r")], ("energy[0].kernel", "integrable", "r^-1;", "on 1 axis", "at most 0.98")),
    "hardly integrable": ([kernel("r**-0.999")], ("energy[0].kernel", "integrable", "r^-0.999;", "at most 0.98")),
    "integrable without room": ([kernel("r**-0.99")], ("energy[0].kernel", "room to spare", "r^-0.99;", "at most 0.98")),
    "zero": ([kernel("0")], ("energy[0].kernel", "must not be zero", "leave the term out")),
    "zero in other words": ([kernel("x - x")], ("energy[0].kernel", "must not be zero")),
    "a spike that no probe meets": ([kernel("1*(abs(r - 1) < 1e-9)")], ("energy[0].kernel", "must not be zero")),
    "a narrow box": ([kernel("x**2 + (abs(r - 1) < 1e-3)")], ("energy[0].kernel", "continuous", "jumps")),
    "not integrable in the plane": (
        [PLANE, CELLS, kernel("1/r**2")],
        ("energy[0].kernel", "integrable", "r^-2;", "on 2 axes", "at most 1.98"),
    ),
    "essentially singular": ([kernel("exp(1/r)")], ("energy[0].kernel",)),
    "jump half way round": ([TORUS, PLANE, CELLS, kernel("x*y")], ("energy[0].kernel", "x = ±2", "half way round")),
    "unknown name": ([kernel("log(s)")], ("energy[0].kernel", "unknown name 's'", "the names x, r")),
    "no kernel": ([(KERNEL, "")], ("energy[0]", "`kernel`", "missing")),
    "empty kernel": ([kernel("")], ("energy[0].kernel",)),
    "coefficient zero": ([(KERNEL, KERNEL + "\ncoefficient = 0.0")], ("energy[0].coefficient", "must not be 0", "leave the term out")),
    "coefficient infinite": ([(KERNEL, KERNEL + "\ncoefficient = inf")], ("energy[0].coefficient", "finite")),
    "too large": ([kernel("exp(200*x**2)")], ("energy[0].kernel", "finite")),
    "a disk with an axis called r": (
        [
            ("[domain.x]\nlower = -2.0\nupper = 2.0", '[domain.d]\naxes = ["r", "y"]\nradius = 1.0'),
            ('"exp(-x**2)"', '"1"'),
            CELLS,
            kernel("log(r)"),
        ],
        ("domain.d.axes", "norm of the difference"),
    ),
    "an axis called r": ([("[domain.x]", "[domain.r]"), ('"exp(-x**2)"', '"1"')], ("domain.r", "norm of the difference")),
    "unknown key": ([("kernel =", "kernal =")], ("energy[0].kernal", 'mean "kernel"?')),
    "exponent one": ([(ENERGY, POROUS.replace("2", "1"))], ("energy[0].exponent", 'kind = "entropy"', "temperature")),
    "exponent zero": ([(ENERGY, POROUS.replace("2", "0"))], ("energy[0].exponent",)),
    "exponent negative": ([(ENERGY, POROUS.replace("2", "-1"))], ("energy[0].exponent", "-1")),
    "no exponent": ([(ENERGY, 'kind = "porous_medium"')], ("energy[0]", "`exponent`", "missing")),
    "negative coefficient": ([(ENERGY, POROUS + "\ncoefficient = -1")], ("energy[0].coefficient", "-1")),
    "particles in a porous medium": (
        [(ENERGY, POROUS), ('"finite_volume"\ncells = [32]', '"particles"\ncount = 5')],
        ("solver[0]", "porous_medium", "finite_volume"),
    ),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=list(WRONG))
def test_wrong_terms_are_refused_in_one_line_that_says_why(changes, says, tmp_path):
    code, out, err = check(tmp_path, *changes)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for word in (*says, "case.toml:"):
        assert word in err


GOOD = {
    "the most singular": ([kernel("r**-0.98")], "infinite at 0"),
    "quadratic": ([kernel("x**2/2")], "quadratic"),
    "exponential": ([kernel("-exp(-r/0.25)")], "exponential of length 0.25"),
    "log gas": ([], "infinite at 0"),
    "scaled": ([(KERNEL, 'kernel = "-abs(x)"\ncoefficient = -3')], "W = -abs(x), c = -3 (a kink at 0)"),
    "cusp": ([kernel("sqrt(r)")], "a kink at 0"),
    "smooth": ([kernel("exp(-x**2)")], "smooth at 0"),
    "synchronisation": ([TORUS, kernel("-cos(pi*x/2)")], "smooth at 0"),
    "kink half way round": ([TORUS, kernel("x**2")], "smooth at 0"),
    "bounded reach": ([kernel("min(r, 0.5)**2")], "smooth at 0"),
    "a limit at 0": ([kernel("sin(r)/r")], "smooth at 0"),
    "porous medium": ([(ENERGY, POROUS)], "c ∫ρ^m/(m − 1) with m = 2, c = 1"),
    "fast diffusion": ([(ENERGY, POROUS.replace("2", "0.5") + "\ncoefficient = 2")], "c ∫ρ^m/(m − 1) with m = 0.5, c = 2"),
}


@pytest.mark.parametrize(("changes", "says"), GOOD.values(), ids=list(GOOD))
def test_a_good_case_says_what_its_term_is(changes, says, tmp_path):
    code, out, err = check(tmp_path, *changes)
    assert (code, err) == (0, "")
    assert says in out


def test_an_interaction_case_runs_in_finite_volumes_and_with_particles(tmp_path):
    path = tmp_path / "case.toml"
    particles = '\n[[solver]]\nkind = "particles"\ncount = 20\nstart = "quantile"\n'
    path.write_text(CASE.replace("x**2/2 - log(r)", "-exp(-r)") + particles, encoding="utf-8")
    code, out, err = command("run", path, "--output", tmp_path, "--no-figures")
    assert (code, err) == (0, "")
    assert "energy never rises" in out


def test_kernels_that_the_cells_do_not_resolve_are_refused_or_noted_by_the_command(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(CASE.replace("x**2/2 - log(r)", "cos(1e6*x)"), encoding="utf-8")
    for arguments in (["check", path], ["run", path, "--output", tmp_path / "out"]):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"mfpde: {path}:19: solver[0].cells: the kernel varies too fast for these cells")
    path.write_text(CASE.replace("x**2/2 - log(r)", "exp(-1e8*x**2)"), encoding="utf-8")
    code, _, err = command("run", path, "--output", tmp_path, "--no-figures")
    assert code == 0
    assert err.startswith("mfpde: finite_volume: warning: interaction: the kernel is narrower than a cell")
