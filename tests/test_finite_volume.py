"""Finite volumes against exact solutions: orders are printed and asserted, certificates hold at every step."""

import numpy as np
import pytest
from conftest import alone, assert_certified, box, bump, l1_distance, line, network, observed_order, quadratic

from mfpde.distance import wasserstein
from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import EnergySum, Entropy, Normal, Potential, two_layer
from mfpde.measure import DensityFunction, Particles, mean
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import FiniteVolume, ParticleFlow


def errors(problem: Problem, exact: DensityFunction, sizes, dimension=1) -> tuple[list[float], list[float]]:
    first, second = [], []
    for cells in sizes:
        run = FiniteVolume((cells,) * dimension, tolerance=1e-8 if dimension == 1 else 1e-6).solve(problem)
        assert_certified(run)
        first.append(l1_distance(run.final, exact))
        if dimension == 1:
            second.append(wasserstein(run.final, exact.on(Grid(problem.domain, (4096,))), problem.domain).value)
    return first, second


def test_the_heat_equation_between_walls_converges_with_order_two():
    domain = line(0.0, 1.0)
    exact = [DensityFunction(lambda p, a=a: 1 + a * np.cos(np.pi * p[:, 0]), domain) for a in (0.8, 0.8 * np.exp(-0.1 * np.pi**2))]
    sizes = [16, 32, 64, 128]
    first, second = errors(Problem(alone(Entropy(0.1)), domain, exact[0], (1.0,)), exact[1], sizes)
    assert observed_order(sizes, first) == pytest.approx(2.0, abs=0.15)
    assert observed_order(sizes, second) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(("dimension", "sizes"), [(1, [32, 64, 128, 256]), (2, [16, 32, 64]), (3, [20, 28, 40])])
def test_the_ornstein_uhlenbeck_process_converges_with_order_two(dimension, sizes):
    temperature, time, centre = 0.2, 0.5, 0.5
    spread = np.sqrt(temperature + (0.36 - temperature) * np.exp(-2 * time))
    domain = box(dimension, -3.0, 3.0)
    energy = EnergySum({"potential": quadratic(), "entropy": Entropy(temperature)})
    exact = DensityFunction(bump(spread, centre * np.exp(-time)), domain)
    first, _ = errors(Problem(energy, domain, DensityFunction(bump(0.6, centre), domain), (time,)), exact, sizes, dimension)
    assert observed_order(sizes, first) == pytest.approx(2.0, abs=0.15)


def hump(stretch=1.0):
    """The product of (1 + cos πx)² over the coordinates, x being stretched, and nothing beyond |x| = 1."""
    return lambda p: np.prod(np.where(np.abs(stretch * p) < 1, 1 + np.cos(np.pi * np.clip(stretch * p, -1, 1)), 0.0) ** 2, axis=1)


@pytest.mark.parametrize(("dimension", "sizes"), [(1, [64, 128, 256, 512]), (2, [60, 90, 135]), (3, [52, 68, 88])])
def test_contraction_without_noise_converges_with_order_two(dimension, sizes):
    domain = box(dimension, -1.0, 1.0)
    problem = Problem(alone(quadratic()), domain, DensityFunction(hump(), domain), (0.2,))
    first, second = errors(problem, DensityFunction(hump(np.exp(0.2)), domain), sizes, dimension)
    assert observed_order(sizes, first) == pytest.approx(2.0, abs=0.15)
    if dimension == 1:
        assert observed_order(sizes, second) == pytest.approx(2.0, abs=0.15)


def test_the_flow_on_a_circle_converges_with_order_two():
    domain = line(0.0, 2 * np.pi, periodic=True)
    term = Potential(lambda p: np.cos(p[:, 0]), lambda p: -np.sin(p))
    time = 0.7

    def pushed(p):  # θ' = sin θ, so tan(θ/2) grows like e^t
        half = np.tan(0.5 * p[:, 0]) * np.exp(-time)
        back = np.mod(2 * np.arctan(half), 2 * np.pi)
        return (2 + np.sin(back)) * np.exp(-time) * (1 + np.tan(0.5 * p[:, 0]) ** 2) / (1 + half**2)

    start = DensityFunction(lambda p: 2 + np.sin(p[:, 0]), domain)
    sizes = [64, 128, 256, 512]
    first, _ = errors(Problem(alone(term), domain, start, (time,)), DensityFunction(pushed, domain), sizes)
    assert observed_order(sizes, first) == pytest.approx(2.0, abs=0.15)


def quadratic_network(domain):
    """σ = z², normal inputs: M₂' = −12 (M₂ − m*) M₂ and θ' = −6 (M₂ − m*) θ."""
    teacher = Particles(np.array([[0.9]]), np.ones(1))
    return two_layer(domain, "quadratic", Normal(), teacher), 0.81


def second_moment(start, goal, time):
    return goal / (1 + (goal / start - 1) * np.exp(-12 * goal * time))


def test_the_quadratic_network_follows_its_logistic_moment_with_order_two():
    domain = line(-4.0, 4.0)
    term, goal = quadratic_network(domain)
    start, time = 0.16, 0.1
    spread = np.sqrt(second_moment(start, goal, time))
    problem = Problem(alone(term), domain, DensityFunction(bump(np.sqrt(start)), domain), (time,))
    sizes = [256, 512, 1024, 2048]
    first, second = errors(problem, DensityFunction(bump(spread), domain), sizes)
    assert observed_order(sizes, first) == pytest.approx(2.0, abs=0.15)
    assert observed_order(sizes, second) == pytest.approx(2.0, abs=0.15)


def test_the_identity_network_moves_its_mean_to_the_teachers():
    domain = line(-4.0, 4.0)
    term = network(domain, "identity", [[1.0]])
    run = FiniteVolume((512,)).solve(Problem(alone(term), domain, DensityFunction(bump(0.5, -0.5), domain), (0.5, 1.0)))
    assert_certified(run)
    for time, measure in zip(run.times, run.measures, strict=True):
        assert mean(measure)[0] == pytest.approx(1 - 1.5 * np.exp(-time), abs=1e-4)


def test_the_loss_agrees_with_quantile_particles_at_every_saved_time():
    domain = line(-4.5, 4.5)
    start = DensityFunction(lambda p: np.cos(np.pi * p[:, 0] / 6) ** 2 * (np.abs(p[:, 0]) < 3), domain)
    problem = Problem(alone(network(domain)), domain, start, (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0))
    grid, atoms = FiniteVolume((512,)).solve(problem), ParticleFlow(4000, start="quantile").solve(problem)
    assert_certified(grid)
    gap = np.abs(grid.total_energy / atoms.total_energy - 1)
    print("relative loss gaps", [f"{g:.1e}" for g in gap])
    assert np.max(gap) <= 1e-4


def test_a_gibbs_state_is_stationary_to_round_off():
    domain = line(-3.0, 3.0)
    energy = EnergySum({"potential": quadratic(), "entropy": Entropy(0.3)})
    grid = Grid(domain, (100,))
    flow = FiniteVolume((100,)).prepare(Problem(energy, domain, DensityFunction(bump(1.0), domain), (1.0,)))
    state = flow.start()
    gibbs = np.exp(-0.5 * grid.centers[:, 0] ** 2 / 0.3)
    rate = np.empty(100)
    evaluation = flow.model.evaluate(gibbs, rate)
    assert np.max(np.abs(rate)) < 1e-11
    assert abs(evaluation.dissipation) < 1e-20
    assert state.time == 0.0


def test_the_dissipation_is_the_rate_at_which_the_energy_falls():
    domain = line(-3.0, 3.0)
    energy = EnergySum({"network": network(domain), "potential": quadratic(0.1), "entropy": Entropy(0.1)})
    run = FiniteVolume((200,)).solve(Problem(energy, domain, DensityFunction(bump(0.7, -0.5), domain), (1.0,)))
    assert_certified(run)
    steps = run.certificate
    middle = 0.5 * (steps["dissipation"][1:] + steps["dissipation"][:-1])
    late = steps["time"][1:] > 0.05
    assert -np.diff(steps["energy"])[late] / steps["dt"][1:][late] == pytest.approx(middle[late], rel=1e-3)


def test_mass_pushed_against_a_wall_stays_in_the_wall_cell():
    domain = line(0.0, 1.0)
    push = Potential(lambda p: -p[:, 0], lambda p: -np.ones_like(p))
    run = FiniteVolume((50,)).solve(Problem(alone(push), domain, DensityFunction(lambda p: np.ones(len(p)), domain), (0.5, 2.0)))
    assert_certified(run)
    assert run.measures[0].weights[-1] == pytest.approx(0.5, abs=0.03)
    assert run.final.weights[-1] == pytest.approx(1.0, abs=1e-12)


def test_nothing_moves_along_a_frozen_axis():
    domain = Domain((Axis("x", -3.0, 3.0), Axis("depth", 0.0, 1.0, frozen=True)))
    start = DensityFunction(lambda p: (1 + p[:, 1]) * np.exp(-(p[:, 0] ** 2)), domain)
    run = FiniteVolume((60, 4)).solve(Problem(alone(quadratic()), domain, start, (0.0, 1.0)))
    assert_certified(run)
    slices = [np.sum(measure.values, axis=0) for measure in run.measures]
    assert slices[1] == pytest.approx(slices[0], rel=1e-13)
    assert np.std(run.final.values[:, 0]) > np.std(run.measures[0].values[:, 0])


def test_a_start_at_the_teacher_stays_there():
    domain = line()
    teacher = DensityFunction(bump(0.5), domain)
    term = two_layer(domain, "tanh", Normal(), teacher)
    run = FiniteVolume((128,)).solve(Problem(alone(term), domain, teacher, (0.0, 100.0)))
    assert_certified(run)
    assert run.final.values == pytest.approx(run.measures[0].values, abs=1e-3)


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_a_handful_of_cells_works(cells):
    domain = line(-1.0, 1.0)
    for energy in (alone(quadratic()), EnergySum({"v": quadratic(), "s": Entropy(0.1)})):
        run = FiniteVolume((cells,)).solve(Problem(energy, domain, DensityFunction(bump(0.5, 0.2), domain), (1.0,)))
        assert_certified(run)


def test_compact_support_and_a_single_loaded_cell_stay_positive_under_noise():
    domain = line(-1.0, 1.0)
    start = DensityFunction(lambda p: (np.abs(p[:, 0] - 0.105) < 0.005).astype(float) + 0.0, domain)
    run = FiniteVolume((200,)).solve(Problem(alone(Entropy(0.05)), domain, start, (0.0, 0.5)))
    assert_certified(run)


def test_an_energy_that_overflows_ends_in_a_status():
    domain = line(-1.0, 1.0)
    steep = Potential(lambda p: 1e200 * p[:, 0] ** 2, lambda p: 2e200 * p)
    problem = Problem(alone(steep), domain, DensityFunction(bump(0.5), domain), (0.0, 1.0))
    with np.errstate(all="ignore"):
        run = FiniteVolume((16,)).solve(problem)
    assert run.status in (Status.NOT_FINITE, Status.STEP_TOO_SMALL)
    assert len(run.measures) == 1
    assert run.message


def test_a_density_near_equilibrium_neither_stalls_nor_loses_mass():
    domain = line(0.0, 1.0)
    start = DensityFunction(lambda p: 1 + 1e-6 * np.cos(np.pi * p[:, 0]), domain)
    run = FiniteVolume((32,)).solve(Problem(alone(Entropy(1.0)), domain, start, (0.0, 1.0)))
    assert_certified(run)
    assert len(run.certificate) < 3000
    assert run.certificate.mass_drift() < 1e-14


@pytest.mark.parametrize("temperature", [1e-8, 1e-3, 1e3])
def test_any_temperature_keeps_the_certificates(temperature):
    domain = line(-2.0, 2.0)
    energy = EnergySum({"network": network(domain), "entropy": Entropy(temperature)})
    end = 2.0 if temperature < 1 else 1e-3
    run = FiniteVolume((60,)).solve(Problem(energy, domain, DensityFunction(bump(0.4), domain), (0.0, end)))
    assert_certified(run)
