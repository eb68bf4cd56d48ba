"""Characteristics against closed solutions, a second resolution, particles and finite volumes."""

import numpy as np
import pytest
from conftest import alone, bump, interaction, line, network, observed_order, quadratic
from scipy.special import erf

from mfpde.domain import Domain
from mfpde.energy import EnergySum, Entropy, Potential, Power
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import Characteristics, FiniteVolume, ParticleFlow


def certified(run: Run) -> Run:
    assert run.status is Status.DONE, run.message
    assert run.certificate.mass_drift() <= 1e-13
    assert run.certificate.energy_rise() <= 1e-13
    assert np.min(run.certificate["minimum"]) > -1e-12
    for measure in run.measures:
        assert measure.mass == pytest.approx(1.0, abs=1e-12)
        assert np.min(measure.values) >= 0.0
    return run


def gaussian_masses(domain: Domain, cells: int, centre: float, spread: float) -> np.ndarray:
    edges = domain.grid((cells,)).edges(0)
    return 0.5 * np.diff(erf((edges - centre) / (spread * np.sqrt(2.0))))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_losses_of_smooth_networks_have_eleven_digits(activation: str) -> None:
    domain = line(-9.0, 9.0)
    problem = Problem(alone(network(domain, activation)), domain, DensityFunction(bump(0.7), domain), (1.0, 5.0, 20.0))
    one, two = (certified(Characteristics((64,), order=order).solve(problem)) for order in (16, 24))
    gap = np.max(np.abs(one.total_energy / two.total_energy - 1.0))
    print(f"{activation}: {gap:.1e}; {one.notes[0]}")
    assert gap <= 1e-11
    assert np.max(np.abs(one.final.weights - two.final.weights)) <= 1e-9


def test_losses_agree_with_those_of_many_quantiles() -> None:
    domain = line(-9.0, 9.0)
    problem = Problem(alone(network(domain)), domain, DensityFunction(bump(0.7), domain), (2.0,))
    exact = Characteristics((64,)).solve(problem).total_energy[-1]
    counts = [500, 1000, 2000, 4000]
    losses = [ParticleFlow(count=count, start="quantile", tolerance=1e-11).solve(problem).total_energy[-1] for count in counts]
    assert observed_order(counts, np.abs(np.array(losses) - exact)) > 0.9
    assert losses[-1] == pytest.approx(exact, rel=1e-5)


def test_contraction_in_a_quadratic_well_is_exact() -> None:
    domain = line(-4.0, 4.0)
    problem = Problem(alone(quadratic(1.0)), domain, DensityFunction(bump(0.5, 0.3), domain), (0.5, 2.0))
    run = certified(Characteristics((200,)).solve(problem))
    for time, measure in zip(run.times, run.measures, strict=True):
        expected = gaussian_masses(domain, 200, 0.3 * np.exp(-time), 0.5 * np.exp(-time))
        assert np.max(np.abs(measure.weights - expected)) <= 1e-11


def test_panels_are_halved_where_the_flow_stretches() -> None:
    domain = line(-30.0, 30.0)
    well = Potential(lambda p: 0.25 * p[:, 0] ** 4 - 0.5 * p[:, 0] ** 2, lambda p: p**3 - p)
    start, time = DensityFunction(bump(0.3, 0.1), domain), 4.0
    run = certified(Characteristics((3000,)).solve(Problem(alone(well), domain, start, (time,))))
    edges = domain.grid((3000,)).edges(0)
    inside = np.abs(edges) < 1.0 - 1e-9
    squares = np.exp(-2.0 * time) * edges[inside] ** 2 / (1.0 - edges[inside] ** 2 * (1.0 - np.exp(-2.0 * time)))
    labels = np.sign(edges[inside]) * np.sqrt(squares)
    below = 0.5 * (1.0 + erf((labels - 0.1) / (0.3 * np.sqrt(2.0))))
    found = np.concatenate([[0.0], np.cumsum(run.final.weights)])[inside]
    assert np.max(np.abs(found - below)) <= 1e-10
    assert int(run.notes[0].split()[0]) > 30


def test_mass_goes_round_a_circle() -> None:
    domain = line(0.0, 2.0 * np.pi, periodic=True)
    wave = Potential(lambda p: np.cos(p[:, 0]), lambda p: -np.sin(p))
    start = DensityFunction(lambda p: 1.0 + 0.5 * np.cos(p[:, 0] - 1.0), domain)
    run = certified(Characteristics((100,)).solve(Problem(alone(wave), domain, start, (1.5,))))
    edges = domain.grid((100,)).edges(0)
    labels = 2.0 * np.arctan2(np.exp(-1.5) * np.sin(0.5 * edges), np.cos(0.5 * edges))
    below = (labels + 0.5 * (np.sin(labels - 1.0) + np.sin(1.0))) / (2.0 * np.pi)
    assert np.max(np.abs(run.final.weights - np.diff(below))) <= 1e-10


def test_quadratic_attraction_keeps_the_mean_and_shrinks_the_rest() -> None:
    domain = line(-4.0, 4.0)
    problem = Problem(alone(interaction(domain, "theta**2/2")), domain, DensityFunction(bump(0.5, 0.4), domain), (1.0,))
    run = certified(Characteristics((160,)).solve(problem))
    assert np.max(np.abs(run.final.weights - gaussian_masses(domain, 160, 0.4, 0.5 * np.exp(-1.0)))) <= 1e-11


def test_finite_volumes_converge_to_it() -> None:
    domain = line(-6.0, 6.0)
    problem = Problem(alone(network(domain)), domain, DensityFunction(bump(0.7), domain), (3.0,))
    exact, errors, sizes = certified(Characteristics((512,)).solve(problem)), [], [64, 128, 256]
    for cells in sizes:
        found = FiniteVolume((cells,), tolerance=1e-9).solve(problem).final
        errors.append(np.sum(np.abs(found.weights - exact.final.weights.reshape(cells, -1).sum(axis=1))))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.25)


def test_mass_at_a_wall_is_kept_and_said() -> None:
    domain = line(-1.0, 1.0)
    slope = Potential(lambda p: -p[:, 0], lambda p: np.full_like(p, -1.0))
    run = Characteristics((50,)).solve(Problem(alone(slope), domain, DensityFunction(bump(0.4), domain), (0.8,)))
    assert run.status is Status.DONE
    assert run.final.mass == pytest.approx(1.0, abs=1e-12)
    total = erf(1.0 / (0.4 * np.sqrt(2.0)))
    last = 0.5 * (total - erf(0.16 / (0.4 * np.sqrt(2.0)))) / total
    assert run.final.weights[-1] == pytest.approx(last, abs=2e-3)
    assert "wall" in run.notes[1]


def test_the_step_that_follows_a_checkpoint_is_the_same() -> None:
    domain = line(-6.0, 6.0)
    problem = Problem(alone(network(domain)), domain, DensityFunction(bump(0.7), domain), (3.0,))
    flow = Characteristics((64,)).prepare(problem)
    state = flow.advance(flow.advance(flow.start(), 3.0), 3.0)
    again = Characteristics((64,)).prepare(problem)
    kept = again.restore({name: np.copy(v) if isinstance(v, np.ndarray) else v for name, v in vars(state).items()})
    one, two = flow.advance(state, 3.0), again.advance(kept, 3.0)
    assert np.array_equal(one.places, two.places)
    assert (one.time, one.energy, one.error) == (two.time, two.energy, two.error)


@pytest.mark.parametrize(
    ("energy", "domain", "initial", "says"),
    [
        (alone(Entropy(0.1)), line(), None, "without entropy and powers"),
        (EnergySum({"a": quadratic(), "b": Power(2.0)}), line(), None, "without entropy and powers"),
        (alone(quadratic()), line(), Particles.equal(np.zeros((1, 1))), "need an initial density"),
    ],
)
def test_problems_without_characteristics_are_refused(energy: EnergySum, domain: Domain, initial: object, says: str) -> None:
    start = initial if isinstance(initial, Particles) else DensityFunction(bump(1.0), domain)
    with pytest.raises(ValueError, match=says):
        Characteristics((16,) * domain.dimension).prepare(Problem(energy, domain, start, (1.0,)))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="order must be from 6 to 64, got 3"):
        Characteristics((16,), order=3)
    with pytest.raises(ValueError, match="must be positive"):
        Characteristics((16,), tolerance=0.0)
