"""The particle system against closed solutions and an independent network of a few neurons."""

import numpy as np
import pytest
from conftest import alone, box, line, network, observed_order
from scipy.integrate import solve_ivp

from mfpde.distance import wasserstein
from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import EnergySum, Entropy, Normal, Potential, two_layer
from mfpde.measure import DensityFunction, Particles, deposit
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import FiniteVolume, ParticleFlow


def bump(spread, centre=0.0):
    return lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / (2 * spread**2))


def push(direction=1.0):
    return Potential(
        lambda p: -direction * p[:, 0], lambda p: np.stack([np.full(len(p), -direction), *np.zeros((p.shape[1] - 1, len(p)))], 1)
    )


def test_five_atoms_move_as_the_gradient_flow_of_a_five_neuron_network():
    domain = line(-4.0, 4.0)
    atoms = Particles(np.array([[-1.2], [-0.3], [0.1], [0.8], [2.0]]), np.array([0.1, 0.3, 0.2, 0.25, 0.15]))
    neurons, weights = np.array([1.5, -0.5]), np.array([0.7, 0.3])
    run = ParticleFlow(tolerance=1e-11).solve(Problem(alone(network(domain)), domain, atoms, (0.0, 1.0, 10.0)))
    x = np.linspace(-10, 10, 20_001)
    mass = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * (x[1] - x[0])

    def velocity(_, theta):
        gap = np.tanh(np.outer(x, theta)) @ atoms.weights - np.tanh(np.outer(x, neurons)) @ weights
        return -(mass * gap * x) @ (1 - np.tanh(np.outer(x, theta)) ** 2)

    exact = solve_ivp(velocity, (0, 10), atoms.points[:, 0], t_eval=[0, 1, 10], rtol=1e-11, atol=1e-12, method="DOP853").y
    assert run.status is Status.DONE
    for k, measure in enumerate(run.measures):
        assert measure.points[:, 0] == pytest.approx(exact[:, k], abs=1e-8)
        assert measure.weights is atoms.weights or measure.weights == pytest.approx(atoms.weights)


def test_atoms_on_a_fine_grid_tend_to_the_five_neurons():
    """Second-order upwinding smears a Dirac mass over a width of about h^(2/3)."""
    domain = line(-4.0, 4.0)
    atoms = Particles.equal(np.array([[-1.2], [-0.3], [0.1], [0.8], [2.0]]))
    problem = Problem(alone(network(domain)), domain, atoms, (1.0,))
    exact = ParticleFlow().solve(problem).final
    sizes = [125, 250, 500, 1000]
    gaps = [wasserstein(FiniteVolume((n,)).solve(problem).final, exact, domain).value for n in sizes]
    assert observed_order(sizes, gaps) == pytest.approx(0.7, abs=0.15)
    assert gaps[-1] < 0.015


def test_the_quadratic_network_is_exact_to_eight_digits():
    domain = line(-4.0, 4.0)
    term = two_layer(domain, "quadratic", Normal(), Particles(np.array([[0.9]]), np.ones(1)))
    run = ParticleFlow(500, seed=3).solve(Problem(alone(term), domain, DensityFunction(bump(0.4), domain), (0.0, 0.1, 1.0, 5.0)))
    start = run.measures[0].points
    first = float(np.mean(start**2))
    for time, measure in zip(run.times, run.measures, strict=True):
        moment = 0.81 / (1 + (0.81 / first - 1) * np.exp(-12 * 0.81 * time))
        assert measure.points == pytest.approx(start * np.sqrt(moment / first), abs=1e-8)
        assert measure.mass == pytest.approx(1.0, abs=1e-12)


def test_the_identity_network_translates_all_atoms_alike():
    domain = line(-6.0, 6.0)
    term = network(domain, "identity", [[1.0]])
    run = ParticleFlow(300, seed=1).solve(Problem(alone(term), domain, DensityFunction(bump(0.5, -0.5), domain), (0.0, 1.0, 4.0)))
    start = run.measures[0].points
    for time, measure in zip(run.times, run.measures, strict=True):
        shift = (1 - start.mean()) * (1 - np.exp(-time))
        assert measure.points == pytest.approx(start + shift, abs=1e-8)


def test_the_energy_never_rises_and_its_fall_is_the_dissipation():
    domain = box(2, -3.0, 3.0)
    term = network(domain, "tanh", [[1.5, 0.5], [-1.0, 1.0]])
    run = ParticleFlow(200, seed=0).solve(Problem(alone(term), domain, DensityFunction(bump(0.6), domain), tuple(np.linspace(0, 2, 41))))
    steps = run.certificate
    assert steps.energy_rise() <= 1e-12
    middle = 0.5 * (steps["dissipation"][1:] + steps["dissipation"][:-1])
    assert -np.diff(steps["energy"]) / steps["dt"][1:] == pytest.approx(middle, rel=1e-2)


def test_particles_slide_along_a_wall_and_are_never_outside():
    domain = box(2, -1.0, 1.0)
    tilt = Potential(lambda p: -p[:, 0] - 0.3 * p[:, 1], lambda p: np.tile([-1.0, -0.3], (len(p), 1)))
    atoms = Particles.equal(np.array([[0.5, -0.5], [-0.9, 0.0], [1.0, 0.95]]))
    run = ParticleFlow().solve(Problem(alone(tilt), domain, atoms, tuple(np.linspace(0, 3, 16))))
    assert all(domain.contains(m.points).all() for m in run.measures)
    for time, measure in zip(run.times, run.measures, strict=True):
        exact = np.minimum(atoms.points + time * np.array([1.0, 0.3]), 1.0)
        assert measure.points == pytest.approx(exact, abs=1e-12)
    assert run.certificate["dissipation"][-1] == pytest.approx(0.09 / 3 * np.sum(exact[:, 1] < 1), abs=1e-12)


def test_a_particle_leaves_its_wall_when_the_velocity_turns_inward():
    """θ' = m(t) − 1/2 grows from below zero at a wall at 0 while a second, heavy atom travels."""
    domain = line(0.0, 4.0)
    term = two_layer(domain, "identity", Normal(), Particles(np.array([[1.0]]), np.ones(1)))
    pull = Potential(lambda p: -0.2 * np.sin(p[:, 0]), lambda p: -0.2 * np.cos(p))
    atoms = Particles(np.array([[0.0], [3.0]]), np.array([0.5, 0.5]))
    energy = EnergySum({"network": term, "pull": pull})
    run = ParticleFlow().solve(Problem(energy, domain, atoms, (0.0, 0.1, 5.0)))

    def velocity(_, y):
        rate = -(0.5 * np.sum(y) - 1.0) + 0.2 * np.cos(y)
        return np.where((y <= 0) & (rate < 0), 0.0, rate)

    exact = solve_ivp(velocity, (0, 5), [0.0, 3.0], t_eval=[0.1, 5], max_step=1e-3).y
    assert run.measures[1].points[0, 0] == 0.0
    assert run.measures[2].points[:, 0] == pytest.approx(exact[:, 1], abs=1e-3)
    assert run.measures[2].points[0, 0] > 0.0


def test_the_mass_at_the_wall_is_that_of_the_finite_volume_wall_cell():
    domain = line(0.0, 1.0)
    problem = Problem(alone(push()), domain, DensityFunction(lambda p: np.ones(len(p)), domain), (0.37,))
    atoms = ParticleFlow(5000, start="quantile").solve(problem).final
    cells = FiniteVolume((200,)).solve(problem).final
    assert np.mean(atoms.points == 1.0) == pytest.approx(0.37, abs=1e-3)
    assert deposit(atoms, Grid(domain, (200,))).weights[-1] == pytest.approx(cells.weights[-1], abs=5e-3)


def test_langevin_particles_reach_the_gibbs_state():
    from scipy.stats import kstest, norm

    domain = line(-6.0, 6.0)
    well = Potential(lambda p: 0.5 * np.sum(p**2, 1), lambda p: p)
    energy = EnergySum({"potential": well, "entropy": Entropy(0.5)})
    run = ParticleFlow(4000, seed=2, step=0.01).solve(Problem(energy, domain, DensityFunction(bump(0.3, 1.0), domain), (0.0, 6.0)))
    assert kstest(run.final.points[:, 0], norm(0, np.sqrt(0.5)).cdf).pvalue > 1e-3
    assert run.status is Status.DONE


def test_noise_between_mirrors_keeps_the_uniform_law():
    from scipy.stats import kstest

    domain = line(0.0, 1.0)
    start = DensityFunction(lambda p: np.ones(len(p)), domain)
    run = ParticleFlow(4000, seed=2, step=0.01).solve(Problem(alone(Entropy(0.3)), domain, start, (1.0,)))
    assert domain.contains(run.final.points).all()
    assert kstest(run.final.points[:, 0], "uniform").pvalue > 1e-3


def test_frozen_coordinates_stay_with_and_without_noise():
    domain = Domain((Axis("x", -3.0, 3.0), Axis("depth", 0.0, 1.0, frozen=True)))
    start = DensityFunction(lambda p: np.exp(-(p[:, 0] ** 2)), domain)
    well = Potential(lambda p: 0.5 * p[:, 0] ** 2 + p[:, 1], lambda p: np.stack([p[:, 0], np.ones(len(p))], 1))
    for energy in (alone(well), EnergySum({"v": well, "s": Entropy(0.1)})):
        run = ParticleFlow(50, seed=4, step=0.05).solve(Problem(energy, domain, start, (0.0, 1.0)))
        assert np.array_equal(run.measures[0].points[:, 1], run.final.points[:, 1])
        assert not np.array_equal(run.measures[0].points[:, 0], run.final.points[:, 0])


@pytest.mark.parametrize("noise", [False, True])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(noise):
    domain = line()
    energy = EnergySum({"network": network(domain)} | ({"entropy": Entropy(0.1)} if noise else {}))
    problem = Problem(energy, domain, DensityFunction(bump(0.5), domain), (1.0,))
    one, two, other = (ParticleFlow(100, seed=s, step=0.1).solve(problem).final.points for s in (5, 5, 6))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_missing_count_or_step_is_refused():
    domain = line()
    start = DensityFunction(bump(0.5), domain)
    with pytest.raises(ValueError, match="count"):
        ParticleFlow().prepare(Problem(alone(network(domain)), domain, start, (1.0,)))
    with pytest.raises(ValueError, match="step"):
        ParticleFlow(10).prepare(Problem(alone(Entropy(0.1)), domain, start, (1.0,)))
