"""The blob method: gradients of a finite energy of atoms, walls by mirror images, and flows beside exact solutions."""

import numpy as np
import pytest
from conftest import box, line, quadratic
from scipy.integrate import solve_ivp
from scipy.special import gamma
from scipy.stats import norm

from mfpde.disk import Disk
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Entropy, Power
from mfpde.energy.base import Energy
from mfpde.energy.blob import Blob, blob_width
from mfpde.measure import Density, Particles, lattice


def flow(energy: Energy, atoms: Particles, *times: float, tolerance: float = 1e-7) -> list[np.ndarray]:
    """Positions at these times."""
    shape = atoms.points.shape

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        points = flat.reshape(shape)
        return -np.ravel(energy.gradient(Particles(points, atoms.weights), points))

    found = solve_ivp(velocity, (0.0, times[-1]), atoms.points.ravel(), "DOP853", times, rtol=tolerance, atol=tolerance)
    return [positions.reshape(shape) for positions in found.y.T]


def levels(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count


def barenblatt(m: float, count: int) -> np.ndarray:
    """Quantiles of Barenblatt's solution of ρ_t = (ρ^m)'' at time 1; at time t they are t^{1/(m+1)} times these."""
    slope, power = (m - 1.0) / (2.0 * m * (m + 1.0)), 1.0 / (m - 1.0)
    whole = np.sqrt(np.pi) * gamma(power + 1.0) / gamma(power + 1.5)
    height = (np.sqrt(slope) / whole) ** (1.0 / (power + 0.5))
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 20001)
    cumulative = np.concatenate([[0.0], np.cumsum(np.cos(0.5 * (angle[1:] + angle[:-1])) ** (2.0 * power + 1.0))])
    return np.sqrt(height / slope) * np.sin(np.interp(levels(count), cumulative / cumulative[-1], angle))


# --- the energy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("kinds", [(False,), (True,), (False, True), (True, False, False), (False, True, False, False)])
def test_the_gradient_is_the_slope_of_the_value_by_one_atom(kinds, exponent):
    domain = Domain(tuple(Axis(name, -1.0, 1.0, periodic) for name, periodic in zip("xyzu", kinds, strict=False)))
    generator = np.random.default_rng(0)
    points, weights = domain.spread(generator.random((25, len(kinds)))), generator.random(25)
    energy, h = Blob(exponent, 0.7, 0.3, domain), 1e-5
    slopes = energy.gradient(Particles(points, weights), points)
    value, again = energy.value_and_gradient(Particles(points, weights))
    assert value == pytest.approx(energy.value(Particles(points, weights)), rel=1e-14)
    assert np.array_equal(again, slopes)
    for i, k in [(0, 0), (11, len(kinds) - 1)]:
        step = np.zeros(points.shape)
        step[i, k] = h
        rise = energy.value(Particles(points + step, weights)) - energy.value(Particles(points - step, weights))
        assert rise / (2.0 * h * weights[i]) == pytest.approx(slopes[i, k], abs=1e-6 * np.abs(slopes).max())


@pytest.mark.parametrize("exponent", [1.0, 2.5])
def test_the_gradient_is_the_slope_of_the_first_variation_at_other_points(exponent):
    domain, generator = box(2, -1.0, 1.0), np.random.default_rng(0)
    atoms = Particles.equal(domain.spread(generator.random((40, 2))))
    energy, at, h = Blob(exponent, 1.3, 0.2, domain), domain.spread(generator.random((10, 2))), 1e-5
    found = [(energy.first_variation(atoms, at + h * e) - energy.first_variation(atoms, at - h * e)) / (2.0 * h) for e in np.eye(2)]
    slopes = energy.gradient(atoms, at)
    assert np.stack(found, axis=1) == pytest.approx(slopes, abs=1e-6 * np.abs(slopes).max())


def test_a_single_atom_has_the_energy_of_its_blob():
    atom = Particles(np.zeros((1, 2)), np.array([0.5]))
    peak = 0.5 / (2.0 * np.pi * 0.01)
    assert Entropy(0.3).mollified(0.1, box(2)).value(atom) == pytest.approx(0.5 * 0.3 * np.log(peak), rel=1e-13)
    assert Power(3.0, 2.0).mollified(0.1, box(2)).value(atom) == pytest.approx(0.5 * 2.0 / 2.0 * peak**2, rel=1e-13)
    assert Power(0.5).mollified(0.1, box(2)).value(atom) == pytest.approx(0.5 / -0.5 * peak**-0.5, rel=1e-13)


def test_forces_on_a_torus_cancel():
    domain, generator = Domain((Axis("x", 0.0, 1.0, True), Axis("y", 0.0, 2.0, True))), np.random.default_rng(0)
    atoms = Particles(domain.spread(generator.random((500, 2))), generator.random(500))
    for exponent in (1.0, 2.0):
        force = Blob(exponent, 1.0, 0.05, domain).gradient(atoms, atoms.points)
        assert np.abs(atoms.weights @ force).max() < 1e-12 * np.sum(atoms.weights) * np.abs(force).max()


@pytest.mark.parametrize("term", [Entropy(0.5), Power(2.0), Power(0.6)])
def test_walls_keep_the_uniform_density_where_it_is(term):
    domain = Domain((Axis("x", -1.0, 2.0), Axis("y", 0.0, 1.0, True)))
    cells = domain.grid((48, 16))
    energy = term.mollified(0.1, domain)
    uniform = Particles(cells.centers, np.full(cells.size, 1.0 / cells.size))
    assert energy.mollify(uniform, domain.spread(lattice(50, 2))) == pytest.approx(1.0 / 3.0, rel=1e-7)
    assert np.abs(energy.gradient(uniform, cells.centers)).max() < 1e-9
    density = Density(cells, np.full(cells.cells, 1.0 / 3.0))
    assert energy.value(density) == pytest.approx(energy.value(uniform), rel=1e-12)
    assert energy.value(density) == pytest.approx(term.value(density), rel=1e-7)


def test_the_vacuum_has_finite_variations_and_does_not_pull():
    atom, far = Particles(np.full((1, 1), -3.0), np.ones(1)), np.array([[3.0]])
    for term in (Entropy(1.0), Power(2.0), Power(0.7)):
        energy = term.mollified(0.05, line())
        assert np.isfinite(energy.first_variation(atom, far)).all()
        assert np.array_equal(energy.gradient(atom, far), [[0.0]])


def test_a_sum_is_mollified_term_by_term():
    potential, domain = quadratic(), line()
    energy = EnergySum({"v": potential, "entropy": Entropy(0.2), "power": Power(2.0)}).mollified(0.1, domain)
    assert energy.terms["v"] is potential
    assert energy.temperature == 0.0
    assert [type(term) for term in energy.terms.values()][1:] == [Blob, Blob]
    assert "width 0.1" in energy.terms["power"].description


@pytest.mark.parametrize("width", [0.0, -1.0, np.nan, np.inf, 100.0])
def test_widths_that_make_no_sense_are_refused(width):
    with pytest.raises(ValueError, match="width of the blobs must be"):
        Entropy(1.0).mollified(width, line())


def test_disks_and_grids_are_refused():
    with pytest.raises(ValueError, match="needs a box"):
        Entropy(1.0).mollified(0.1, Disk(("x", "y"), 1.0))
    with pytest.raises(ValueError, match="for particles"):
        Entropy(1.0).mollified(0.1, line()).on(line().grid((10,)))


def test_the_width_follows_the_distance_of_neighbours():
    for dimension, order in ((1, 0.75), (2, 0.495), (3, 0.33)):
        domain = box(dimension)
        widths = [blob_width(Particles.equal(0.5 * domain.spread(lattice(count, dimension))), domain) for count in (100, 6400)]
        assert np.log(widths[0] / widths[1]) / np.log(64.0) == pytest.approx(order, abs=0.02)
    assert blob_width(Particles.equal(np.zeros((1, 2))), box(2)) == 8.0, "no extent: that of the domain, and no more"
    atoms = Particles.equal(np.stack([np.linspace(0.0, 1.0, 100), np.zeros(100)], axis=1))
    assert blob_width(atoms, box(2)) == pytest.approx(1.5 * 100**-0.75, rel=1e-12), "atoms on a line"


# --- flows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [2.0, 3.0])
def test_barenblatt_is_followed_with_more_and_more_atoms(m):
    counts, errors = (25, 50, 100), []
    for count in counts:
        exact = barenblatt(m, count)
        atoms = Particles.equal(0.1 ** (1.0 / (m + 1.0)) * exact[:, None])
        energy = Power(m).mollified(blob_width(atoms, line()), line())
        (final,) = flow(energy, atoms, 0.9)
        errors.append(float(np.sqrt(np.mean((final[:, 0] - exact) ** 2))))
    rate = -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])
    print(f"m = {m:g}: W2 errors {[f'{e:.1e}' for e in errors]} of {counts} atoms, rate {rate:.2f}")
    assert rate > 1.0
    assert errors[-1] < 0.01


def test_heat_on_a_line_spreads_the_variance():
    exact, errors = norm.ppf(levels(100)), []
    for factor in (1.0, 2.0):
        atoms = Particles.equal(0.5 * exact[:, None])
        energy = Entropy(0.5).mollified(factor * blob_width(atoms, line(-8.0, 8.0)), line(-8.0, 8.0))
        half, final = flow(energy, atoms, 0.375, 0.75)
        errors.append(float(np.sqrt(np.mean((final[:, 0] - exact) ** 2))))
        values = [energy.value(Particles.equal(points)) for points in (atoms.points, half, final)]
        assert values[0] > values[1] > values[2]
        assert np.var(final) == pytest.approx(np.var(exact), rel=0.06)
    print(f"W2 errors of heat: {[f'{e:.1e}' for e in errors]}")
    assert max(errors) < 0.03


def test_heat_in_the_plane_spreads_the_variance_with_more_and_more_atoms():
    domain, errors = box(2, -8.0, 8.0), []
    for count in (100, 400):
        exact = norm.ppf(lattice(count, 2))
        atoms = Particles.equal(0.5 * exact)
        energy = Entropy(0.5).mollified(blob_width(atoms, domain), domain)
        (final,) = flow(energy, atoms, 0.75, tolerance=1e-5)
        errors.append(float(np.max(np.abs(np.var(final, axis=0) / np.var(exact, axis=0) - 1.0))))
    print(f"errors of the variance: {[f'{e:.1e}' for e in errors]}")
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.03


@pytest.mark.parametrize("width", [0.2, 0.4])
def test_the_gibbs_state_of_a_quadratic_potential_is_kept_with_a_small_bias(width):
    """Of a Gaussian of variance v, log(φ∗ρ) has the slope −x/(v + ε²), and φ∗(ρ/φ∗ρ) one of −xε²/v² at its centre: with T times these
    against that of the potential, the terms in ε² cancel there, and v = T(1 + O(ε⁴/T²))."""
    temperature = 0.5
    atoms = Particles.equal(np.sqrt(temperature) * norm.ppf(levels(200))[:, None])
    energy = EnergySum({"v": quadratic(), "entropy": Entropy(temperature)}).mollified(width, line(-6.0, 6.0))
    (final,) = flow(energy, atoms, 8.0, tolerance=1e-6)
    bias = float(np.var(final)) / temperature - 1.0
    print(f"width {width}: bias of the variance {bias:.4f}, (ε²/T = {width**2 / temperature:.3f})")
    assert abs(bias) < 2.0 * (width**2 / temperature) ** 2
