"""Sums over all pairs of many atoms in less than all pairs: every way is checked against the kernel, pair by pair."""

import numpy as np
import pytest
from test_interaction import axes, term

from mfpde.energy import Interaction
from mfpde.energy.mesh import accurate, blend_of, make_mesh
from mfpde.energy.neighbours import columns, gaussian_sums, images, rows_of
from mfpde.energy.pairs import FastPairs
from mfpde.energy.radial import CompiledPairs, radial_part, tabulate
from mfpde.energy.sorted_pairs import SortedPairs, find_sorted
from mfpde.measure import Particles


def atoms_of(energy: Interaction, count: int, seed: int = 0) -> Particles:
    """Random atoms with random weights; two are at one point."""
    generator, domain = np.random.default_rng(seed), energy.kernel.domain
    points = domain.spread(generator.random((count, domain.dimension)))
    points[7] = points[3]
    return Particles(points, generator.random(count))


def all_pairs(energy: Interaction, atoms: Particles, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W∗ρ and its gradient by NumPy."""
    steps = energy.kernel.domain.displacement(atoms.points, at[:, None, :]).reshape(-1, at.shape[1])
    slopes = energy.kernel.slopes(steps).reshape(len(at), len(atoms.points), -1)
    values = energy.kernel.values(steps).reshape(len(at), -1)
    return values @ atoms.weights, np.einsum("ijk,j->ik", slopes, atoms.weights)


def assert_sums(way, energy: Interaction, tolerance: float, count: int = 300) -> None:
    """Potentials and forces at the atoms and elsewhere are those of all pairs; forces are opposite, and slopes of the energy."""
    atoms, others = atoms_of(energy, count), atoms_of(energy, 60, seed=1).points
    for at in (atoms.points, others):
        values, slopes = all_pairs(energy, atoms, at)
        assert np.max(np.abs(way.potential(atoms.points, atoms.weights, at) - values)) <= tolerance * np.max(np.abs(values))
        assert np.max(np.abs(way.force(atoms.points, atoms.weights, at) - slopes)) <= tolerance * np.max(np.abs(slopes))
    force = way.force(atoms.points, atoms.weights, atoms.points)
    assert np.abs(atoms.weights @ force).max() <= tolerance * np.sum(atoms.weights) * np.abs(force).max()
    assert_slopes(way, energy, atoms, force)


def assert_slopes(way, energy: Interaction, atoms: Particles, force: np.ndarray) -> None:
    """w_i F_i is the difference of ½Σ w w W by one atom's position, to 1e-6: by that of the atom farthest from all others and, on
    circles, from where these are half a turn away, at which kernels have kinks."""
    domain, h = energy.kernel.domain, 1e-5
    half = np.where(domain.periodic, 0.5 * (domain.upper - domain.lower), np.inf)
    steps = np.abs(atoms.points - atoms.points[:, None, :])
    steps = np.where(domain.periodic, np.minimum(np.fmod(steps, half), half - np.fmod(steps, half)), steps)
    index = int(np.argmax(np.sort(np.linalg.norm(steps, axis=2), axis=1)[:, 1]))

    def shifted(k: int, shift: float) -> float:
        points = atoms.points.copy()
        points[index, k] += shift
        return 0.5 * float(atoms.weights @ way.potential(points, atoms.weights, points))

    found = [(shifted(k, h) - shifted(k, -h)) / (2.0 * h) for k in range(force.shape[1])]
    assert found == pytest.approx(atoms.weights[index] * force[index], abs=1e-6 * atoms.weights[index] * np.abs(force).max() + 1e-6)


# --- sorted sums ---------------------------------------------------------------------------------------------------------


SORTED = [
    ("wall", "-abs(x)", [0.0, -1.0], []),
    ("wall", "x**2/2 - abs(x) + 3", [3.0, -1.0, 0.5], []),
    ("wall", "r**3 - 2*r", [0.0, -2.0, 0.0, 1.0], []),
    ("frozen", "exp(-r/0.1)", [0.0], [10.0]),
    ("wall", "exp(-r) - 2*exp(-2*r)", [0.0], [1.0, 2.0]),
    ("wall", "exp(-r/0.01) + r", [0.0, 1.0], [100.0]),
    ("circle", "x**2", [0.0, 0.0, 1.0], []),
    ("circle", "r*(1 - r)", [0.0, 1.0, -1.0], []),
    ("circle", "exp(-r/0.1) - 2*exp(-r/0.03)", [0.0], [10.0, 100.0 / 3.0]),
]


@pytest.mark.parametrize(("kind", "text", "powers", "rates"), SORTED)
def test_sorted_sums_are_those_of_all_pairs(kind, text, powers, rates):
    energy = term(axes(kind), text)
    form = find_sorted(energy.kernel)
    assert isinstance(form, SortedPairs)
    assert np.trim_zeros(form.powers, "b") == pytest.approx(np.trim_zeros(powers, "b"), abs=1e-9)
    assert form.rates == pytest.approx(rates, rel=1e-9)
    assert_sums(form, energy, 2e-12)


@pytest.mark.parametrize("text", ["min(r, 1)**2", "exp(-r)*r", "exp(-x**2)", "-log(r)", "cosh(r - 4)", "sqrt(r)"])
def test_other_kernels_have_no_sorted_form(text):
    assert find_sorted(term(axes("wall"), text).kernel) is None


@pytest.mark.parametrize("text", ["r", "x**2", "exp(-r)"])
def test_atoms_half_a_turn_apart_count_once_and_do_not_push_on(text):
    energy = term(axes("circle"), text)
    form, points = find_sorted(energy.kernel), np.linspace(-2.0, 2.0, 101)[:-1, None]
    assert form is not None
    even = Particles.equal(points)
    assert form.potential(points, even.weights, points) == pytest.approx(all_pairs(energy, even, points)[0], rel=1e-13)
    assert np.max(np.abs(form.force(points, even.weights, points))) < 1e-12, "an even lattice is at rest"


def test_equal_atoms_on_a_line_do_not_push_each_other():
    energy = term(axes("wall"), "-abs(x)")
    points = np.zeros((2000, 1))
    points[-1] = 1.0
    atoms = Particles.equal(points)
    force = energy.gradient(atoms, points)
    assert np.allclose(force[:-1], 1.0 / 2000, rtol=0, atol=1e-15)
    assert force[-1, 0] == pytest.approx(-1999.0 / 2000, rel=1e-13)


# --- compiled pairs and meshes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (("wall",), "r**-0.9"),
        (("circle", "wall"), "sqrt(r)"),
        (("wall", "wall"), "-log(r) + r**2/2"),
        (("circle", "circle"), "r**1.5 - r"),
        (("wall", "frozen", "wall"), "1/r"),
        (("wall",), "cos(40*x)"),
    ],
)
def test_compiled_pairs_are_those_of_numpy(kinds, text):
    energy = term(axes(*kinds), text)
    radial = radial_part(energy.kernel)
    assert radial is not None
    table = tabulate(radial, float(np.linalg.norm(energy.kernel.extent)), energy.kernel.at_zero or 0.0)
    assert table is not None
    assert_sums(CompiledPairs(energy.kernel.domain, table), energy, 2e-11)


def test_tables_keep_their_accuracy_at_all_distances():
    energy = term(axes("wall", "wall"), "r**-1.5")
    way = FastPairs(energy.kernel).compiled
    assert way is not None
    r = 10.0 ** np.arange(-13.0, 0.6, 0.5)
    at = np.stack([0.6 * r, 0.8 * r], axis=1)
    assert way.potential(np.zeros((1, 2)), np.ones(1), at) == pytest.approx(r**-1.5, rel=1e-12)
    assert np.linalg.norm(way.force(np.zeros((1, 2)), np.ones(1), at), axis=1) == pytest.approx(1.5 * r**-2.5, rel=1e-12)


@pytest.mark.parametrize(("kinds", "text"), [(("wall", "wall"), "x*y/(1 + r)"), (("wall",), "min(r, 0.7)**2")])
def test_what_no_table_holds_is_left_to_numpy(kinds, text):
    assert FastPairs(term(axes(*kinds), text).kernel).compiled is None


@pytest.mark.parametrize(
    ("kinds", "text", "band"),
    [
        (("wall",), "exp(-500*r**2)", 400.0),
        (("circle", "wall"), "exp(-50*r**2)", 110.0),
        (("wall", "wall"), "exp(-20*r**2)*(1 + x*y)", 100.0),
        (("wall", "wall", "circle"), "exp(-10*r**2)", 45.0),
    ],
)
def test_narrow_smooth_kernels_are_summed_on_meshes(kinds, text, band):
    energy = term(axes(*kinds), text)
    way = make_mesh(energy.kernel, band, None)
    assert way is not None
    assert way.near is None
    assert_sums(way, energy, 1e-9)


def test_a_mesh_too_coarse_for_the_kernel_is_refused():
    energy = term(axes("wall", "wall"), "exp(-500*r**2)")
    assert make_mesh(energy.kernel, 40.0, None) is None


@pytest.mark.parametrize(
    ("kinds", "text", "band"),
    [
        (("wall",), "-log(r)", 300.0),
        (("wall", "wall"), "-log(r)", 100.0),
        (("wall", "wall"), "r - r**1.5", 100.0),
        (("wall", "circle"), "exp(-25*r)", 150.0),
        (("wall", "wall", "wall"), "1/r", 31.0),
    ],
)
def test_kernels_with_a_kink_or_infinite_ones_are_a_mesh_and_neighbours(kinds, text, band):
    energy = term(axes(*kinds), text)
    way = make_mesh(energy.kernel, band, radial_part(energy.kernel), 30.0)
    assert way is not None
    assert way.near is not None
    assert way.near.reach == pytest.approx(blend_of(band, 30.0), rel=0.02)
    assert accurate(energy.kernel, way)
    assert_sums(way, energy, 1e-9)


def test_results_do_not_depend_on_the_number_of_threads():
    import numba

    energy = term(axes("wall", "wall"), "-log(r)")
    way = make_mesh(energy.kernel, 120.0, radial_part(energy.kernel))
    assert way is not None
    atoms, threads = atoms_of(energy, 3000), numba.get_num_threads()
    one = way.force(atoms.points, atoms.weights, atoms.points)
    try:
        numba.set_num_threads(1)
        assert np.array_equal(way.force(atoms.points, atoms.weights, atoms.points), one)
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize(
    ("kinds", "text", "says"),
    [
        (("wall",), "-abs(x)", "sorted sums"),
        (("wall",), "exp(-x**2)", "polynomials"),
        (("wall",), "exp(-500*x**2)", "a mesh of"),
        (("wall",), "-log(r)", "neighbours within"),
        (("wall", "wall"), "-log(r)", "neighbours within"),
        (("wall",), "x**2", "moments"),
        (("wall",), "min(r, 0.7)**2", "all pairs"),
    ],
)
def test_the_way_is_chosen_for_the_kernel_and_said(kinds, text, says):
    energy = term(axes(*kinds), text)
    atoms = atoms_of(energy, 20000)
    assert says in energy.summation(atoms)
    some = atoms.points[:40]
    values, slopes = all_pairs(energy, atoms, some)
    if says != "all pairs":
        assert np.max(np.abs(energy.gradient(atoms, atoms.points)[:40] - slopes)) <= 1e-9 * np.max(np.abs(slopes))
        assert np.max(np.abs(energy.first_variation(atoms, atoms.points)[:40] - values)) <= 1e-9 * np.max(np.abs(values))


def test_atoms_beyond_the_walls_are_summed_pair_by_pair():
    energy = term(axes("wall"), "-log(r)")
    points = np.linspace(-3.0, 2.0, 6000)[:, None]
    assert energy.summation(Particles.equal(points)) == "all pairs"


# --- neighbours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.02, 0.2, 3.0])
@pytest.mark.parametrize("kinds", [("wall",), ("circle", "wall"), ("wall", "wall", "circle")])
def test_sums_of_gaussians_over_neighbours_and_images_are_all_of_them(kinds, width):
    domain, generator = axes(*kinds), np.random.default_rng(0)
    points, weights = domain.spread(generator.random((120, len(kinds)))), generator.random(120)
    found = images(points, domain, 8.0 * width, mirrored=True)
    at = domain.spread(generator.random((50, len(kinds))))
    sums = gaussian_sums(columns(at), rows_of(columns(found.points), 8.0 * width), weights[found.origin], width)
    exact = np.tile(weights, (50, 1))
    for k, kind in enumerate(kinds):
        turns = np.arange(-20, 21) * 4.0 * (1 if kind == "circle" else 2)
        x, y = at[:, None, k, None], points[None, :, k, None]
        factor = np.exp(-0.5 * ((x - y - turns) / width) ** 2)
        mirrored = np.exp(-0.5 * ((x + y - 4.0 - turns) / width) ** 2)
        exact = exact * np.sum(factor + (0.0 if kind == "circle" else 1.0) * mirrored, axis=2)
    assert sums == pytest.approx(np.sum(exact, axis=1), rel=1e-11, abs=1e-12)
