"""The particle limit: slopes with intervals, and what the central limit theorem says at time 0."""

import numpy as np
import pytest
from conftest import alone, line, network

from mfpde.domain import Domain
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.solvers import Characteristics, ParticleFlow
from mfpde.study.limit import ParticleLimit, expected_loss_gap, expected_square_distance, fitted_rate, particle_limit

COUNTS = [2**k for k in range(5, 11)]
DOMAIN = line(-7.0, 7.0)


def problem(domain: Domain = DOMAIN) -> Problem:
    start = DensityFunction(lambda p: np.cos(np.pi * p[:, 0] / 4.0) ** 2 * (np.abs(p[:, 0]) < 2.0), domain)
    return Problem(alone(network(domain)), domain, start, (0.0, 2.0))


@pytest.fixture(scope="module")
def measured() -> ParticleLimit:
    task = problem()
    return particle_limit(task, Characteristics((4096,)).solve(task), COUNTS, 40, ParticleFlow(tolerance=1e-7), seed=5)


@pytest.mark.parametrize("time", [0, 1])
@pytest.mark.parametrize(
    ("quantity", "statistic"),
    [("w2", "mean"), ("w2", "rms"), ("w1", "mean"), ("loss", "absolute"), ("loss", "spread"), ("function", "rms")],
)
def test_distances_and_loss_gaps_fall_like_one_over_the_root_of_the_count(measured, quantity, statistic, time):
    rate = measured.rate(quantity, statistic, time)
    print(f"{quantity} {statistic} at {measured.times[time]:g}: {rate.value:.3f} in [{rate.low:.3f}, {rate.high:.3f}]")
    assert rate.low <= rate.value <= rate.high
    assert rate.high - rate.low < 0.25
    assert rate.low - 0.03 <= -0.5 <= rate.high + 0.03


def test_the_start_fluctuates_as_the_central_limit_theorem_says(measured):
    task, counts = problem(), np.array(COUNTS)
    squares = counts * measured.statistic("w2", "rms", 0) ** 2
    expected = expected_square_distance(task.initial.on(DOMAIN.grid((8192,))))
    print(f"N E W2^2 = {squares}, J2 = {expected:.4f}")
    assert np.mean(squares) == pytest.approx(expected, rel=0.1)
    mean, spread = expected_loss_gap(task, next(iter(task.energy.terms.values())))
    assert np.mean(np.sqrt(counts) * measured.statistic("loss", "spread", 0)) == pytest.approx(spread, rel=0.1)
    second = 0.5 * counts * measured.statistic("function", "rms", 0) ** 2
    assert np.mean(second) == pytest.approx(mean, rel=0.15)


def test_the_expected_square_distance_is_the_integral():
    flat = DensityFunction(lambda p: np.ones(len(p)), line(0.0, 2.0))
    assert expected_square_distance(flat.on(line(0.0, 2.0).grid((7,)))) == pytest.approx(4.0 / 6.0, rel=1e-12)


def test_quantile_starts_approach_faster():
    task = problem()
    reference = Characteristics((4096,)).solve(task)
    found = particle_limit(task, reference, COUNTS, 2, ParticleFlow(start="quantile", tolerance=1e-7))
    rate = found.rate("w2", "mean")
    print(f"quantiles: {rate.value:.3f}")
    assert rate.value < -0.8
    assert rate.low == pytest.approx(rate.high, abs=1e-9)


def test_runs_do_not_depend_on_the_other_counts():
    task = problem()
    reference = Characteristics((512,)).solve(task)
    one = particle_limit(task, reference, [10, 20], 2, seed=3)
    two = particle_limit(task, reference, [10], 3, seed=3)
    assert np.array_equal(one.values["w2"][0], two.values["w2"][0, :2])
    assert not np.array_equal(one.values["w2"][0, 0], one.values["w2"][0, 1])


def test_rates_of_known_laws_are_found_with_honest_intervals():
    random, counts, inside = np.random.default_rng(0), [10, 100, 1000], 0
    for trial in range(100):
        rate = fitted_rate(counts, np.array(counts)[:, None] ** -0.5 * random.normal(size=(3, 40)), "rms", seed=trial, draws=400)
        inside += rate.low <= -0.5 <= rate.high
    print(f"{inside} of 100 intervals hold the true rate")
    assert 85 <= inside <= 100


def test_what_cannot_be_measured_is_refused():
    task = problem()
    reference = Characteristics((64,)).solve(task)
    with pytest.raises(ValueError, match="counts and runs must be positive"):
        particle_limit(task, reference, [], 3)
    with pytest.raises(ValueError, match="must hold the problem's times"):
        particle_limit(Problem(task.energy, DOMAIN, task.initial, (1.0,)), reference, [10], 3)
    with pytest.raises(ValueError, match="statistic must be one of mean, absolute, rms, spread"):
        fitted_rate([1, 2], np.ones((2, 2)), "median")
    with pytest.raises(ValueError, match="two or more counts"):
        fitted_rate([1], np.ones((1, 2)), "mean")
