"""Particles through tables against the exact features."""

import numpy as np
import pytest
from conftest import alone, bump, line, network

from mfpde.energy import Normal, two_layer
from mfpde.energy.stencil import deposit, interpolate, nodes_of
from mfpde.energy.tables import tabulated
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.solvers import ParticleFlow

ATOMS = np.clip(np.random.default_rng(0).normal(size=(30_000, 1)), -4.5, 4.5)


@pytest.mark.parametrize("count", [1, 7, 250_000])
def test_stencils_are_exact_for_polynomials_of_degree_five_and_transposes_of_each_other(count: int) -> None:
    random, (lower, upper, intervals) = np.random.default_rng(count), (-1.0, 3.0, 40)
    points = np.concatenate([random.uniform(lower, upper, count), [lower, upper]])
    weights, nodes = random.uniform(0.0, 1.0, len(points)), nodes_of(lower, upper, intervals)
    assert nodes[2] == lower
    assert nodes[-3] == pytest.approx(upper)
    inverse, masses = intervals / (upper - lower), None
    masses = deposit(points, weights, lower, inverse, len(nodes))
    assert np.sum(masses) == pytest.approx(np.sum(weights), rel=1e-14)
    for degree in range(6):
        assert masses @ nodes**degree == pytest.approx(weights @ points**degree, rel=1e-12, abs=1e-12)
        found = np.empty(len(points))
        interpolate(points, nodes**degree, lower, inverse, found)
        assert found == pytest.approx(points**degree, rel=1e-12, abs=1e-12)
    table = random.normal(size=len(nodes))
    interpolate(points, table, lower, inverse, found)
    assert weights @ found == pytest.approx(masses @ table, rel=1e-12)
    assert deposit(points, np.array([0.5]), lower, inverse, len(nodes)) == pytest.approx(
        deposit(points, np.full(len(points), 0.5), lower, inverse, len(nodes)), abs=1e-15 * count**2
    )


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "erf", "gelu", "gaussian", "cos", "arctan"])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-9, 1e-11])
def test_tables_keep_their_tolerance(activation: str, tolerance: float) -> None:
    domain = line(-4.5, 4.5)
    exact = network(domain, activation)
    fast = exact.tabulated(domain, tolerance)
    assert fast is exact.tabulated(domain, tolerance)
    assert fast.features is not exact.features
    atoms = Particles.equal(ATOMS)
    one, two = exact.gradient(atoms, ATOMS), fast.gradient(atoms, ATOMS)
    error = np.max(np.abs(one - two)) / np.max(np.abs(one))
    print(f"{activation}: {fast.features.description}, velocity {error:.1e}")
    assert error <= 3.0 * tolerance
    assert fast.value(atoms) == pytest.approx(exact.value(atoms), rel=10.0 * tolerance, abs=1e-15)


def test_a_table_goes_round_a_circle() -> None:
    domain = line(0.0, 2.0 * np.pi, periodic=True)
    exact = two_layer(domain, "tanh", Normal(), Particles(np.array([[1.0], [4.0]]), np.array([0.5, 0.5])), angle=True)
    fast = exact.tabulated(domain, 1e-10)
    atoms = Particles.equal(np.random.default_rng(1).uniform(0.0, 2.0 * np.pi, (5000, 1)))
    gap = np.max(np.abs(exact.gradient(atoms, atoms.points) - fast.gradient(atoms, atoms.points)))
    assert fast.features is not exact.features
    assert gap <= 1e-9 * np.max(np.abs(exact.gradient(atoms, atoms.points)))


@pytest.mark.parametrize("activation", ["relu", "softsign"])
def test_kinks_are_not_tabulated(activation: str) -> None:
    domain = line(-4.5, 4.5)
    assert tabulated(network(domain, activation).features, domain, 1e-9) is None


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
