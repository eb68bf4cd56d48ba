"""The particle limit: slopes with intervals, and what the central limit theorem says at time 0."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import alone, box, line, network
from scipy.integrate import solve_ivp

from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Interaction, PairKernel, Potential
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Certificate, Run, Status
from mfpde.solvers import Characteristics, ParticleFlow
from mfpde.study.limit import ParticleLimit, particle_limit
from mfpde.study.predictions import expected_loss_gap, expected_square_distance, weak_residual
from mfpde.study.rates import fitted_rate
from mfpde.study.sensitivity import Sensitivity, loss_sensitivity

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


def test_the_start_fluctuates_as_the_central_limit_theorem_says():
    task, counts = replace(problem(), save_at=(0.0,)), np.array([32, 128, 512])
    start = Run(np.zeros(1), [task.initial.on(DOMAIN.grid((8192,)))], {}, Certificate(np.zeros((0, 9))), Status.DONE)
    exact = task.energy.value(task.initial.gauss_atoms(400))
    found = particle_limit(task, replace(start, energy={"term": np.array([exact])}), counts.tolist(), 600, seed=1)
    squares = counts * found.statistic("w2", "rms", 0) ** 2
    expected = expected_square_distance(start.measures[0])
    print(f"N E W2^2 = {squares}, J2 = {expected:.4f}")
    assert np.mean(squares) == pytest.approx(expected, rel=0.06)
    mean, spread = expected_loss_gap(task, next(iter(task.energy.terms.values())))
    assert np.sqrt(counts) * found.statistic("loss", "spread", 0) == pytest.approx(np.full(3, spread), rel=0.1)
    second = 0.5 * counts * found.statistic("function", "rms", 0) ** 2
    assert second == pytest.approx(np.full(3, mean), rel=0.15)


def test_the_expected_square_distance_is_the_integral():
    flat = DensityFunction(lambda p: np.ones(len(p)), line(0.0, 2.0))
    assert expected_square_distance(flat.on(line(0.0, 2.0).grid((7,)))) == pytest.approx(4.0 / 6.0, rel=1e-12)


def test_quantile_starts_approach_faster():
    task = problem()
    reference = Characteristics((4096,)).solve(task)
    found = particle_limit(task, reference, COUNTS, 3, ParticleFlow(start="quantile", tolerance=1e-7))
    rate = found.rate("w2", "mean")
    print(f"quantiles: {rate.value:.3f}")
    assert rate.value < -0.8
    assert rate.low == pytest.approx(rate.high, abs=1e-9)


def test_runs_do_not_depend_on_the_other_counts_and_begin_alike():
    task = problem()
    reference = Characteristics((512,)).solve(task)
    one = particle_limit(task, reference, [10, 20], 2, seed=3)
    two = particle_limit(task, reference, [10], 3, seed=3)
    assert np.array_equal(one.values["w2"][0, :, 0], two.values["w2"][0, :2, 0])
    assert one.values["w2"][0] == pytest.approx(two.values["w2"][0, :2], rel=1e-6)
    assert not np.array_equal(one.values["w2"][0, 0], one.values["w2"][0, 1])
    few, many = (ParticleFlow(count, seed=4).first_atoms(task).points for count in (10, 20))
    assert np.array_equal(few, many[:10])


@pytest.mark.parametrize("end", [0.0, 0.7, 4.0])
def test_the_sensitivity_is_the_derivative_by_the_initial_mass(end):
    """A little more mass at a point changes the energy at a later time by ψ there."""
    task = replace(problem(), save_at=tuple(sorted({0.0, end})))
    found = settled(task, task.save_at)
    start, energy = task.initial.gauss_atoms(96), task.energy

    def later(place: float, mass: float) -> float:
        atoms = Particles(np.append(start.points, [[place]], axis=0), np.append(start.weights, mass))
        flow = solve_ivp(
            lambda _, y: -energy.gradient(Particles(y[:, None], atoms.weights), y[:, None])[:, 0],
            (0.0, end),
            atoms.points[:, 0],
            method="DOP853",
            rtol=1e-10,
            atol=1e-12,
        )
        return energy.value(Particles(flow.y[:, -1:], atoms.weights))

    for place in (-1.2, 0.3, 1.7):
        slope = (later(place, 1e-5) - later(place, -1e-5)) / 2e-5
        assert found.at(np.array([[place]]))[-1, 0] == pytest.approx(slope, rel=2e-4, abs=1e-6)


def settled(task: Problem, times: tuple[float, ...]) -> Sensitivity:
    found = loss_sensitivity(task, times)
    assert found is not None
    return found


def later_energy(task: Problem, start: Particles, end: float) -> float:
    flow = ParticleFlow(tolerance=1e-11).solve(replace(task, initial=start, save_at=(end,)))
    return task.energy.value(flow.final)


@pytest.mark.parametrize("kind", ["wall", "periodic", "frozen", "plane"])
def test_the_sensitivity_holds_at_walls_on_circles_and_in_the_plane(kind):
    """ψ against differences in the mass at points, relative to its deviation."""
    if kind == "wall":
        domain = line(0.0, 2.0)
        push = Potential(lambda p: 0.5 * p[:, 0], lambda p: np.full(p.shape, 0.5))
        apart = Interaction(PairKernel(domain, lambda x: -0.5 * x[:, 0] ** 2, lambda x: -x))
        task = Problem(EnergySum({"v": push, "w": apart}), domain, DensityFunction(lambda p: np.ones(len(p)), domain), (1.0,))
        places = [[0.3], [1.2], [1.9]]
    elif kind == "periodic":
        domain = Domain((Axis("x", -np.pi, np.pi, periodic=True),))
        wave = Interaction(PairKernel(domain, lambda x: -np.cos(x[:, 0]), lambda x: np.sin(x)))
        task = Problem(alone(wave), domain, DensityFunction(lambda p: 1.0 + 0.5 * np.cos(p[:, 0] - 0.4), domain), (1.0,))
        places = [[-2.0], [0.3], [1.5]]
    elif kind == "frozen":
        domain = Domain((Axis("x", -3.0, 3.0), Axis("s", 0.0, 1.0, frozen=True)))
        well = Potential(lambda p: 0.5 * p[:, 0] ** 2 * (1 + p[:, 1]), lambda p: np.stack([p[:, 0] * (1 + p[:, 1]), 0.5 * p[:, 0] ** 2], 1))
        task = Problem(alone(well), domain, DensityFunction(lambda p: np.exp(-2.0 * p[:, 0] ** 2), domain), (0.7,))
        places = [[0.5, 0.2], [-0.7, 0.8]]
    else:
        domain = box(2, -3.0, 3.0)
        task = Problem(
            alone(network(domain, "tanh", [[1.5, 0.5], [-1.0, 1.0]])),
            domain,
            DensityFunction(lambda p: np.exp(-2.0 * np.sum(p**2, 1)), domain),
            (1.0,),
        )
        places = [[0.4, -0.3], [-0.6, 0.5]]
    found, cells = settled(task, (1.0 if kind != "frozen" else 0.7,)), 60 if kind == "wall" else 24
    base = task.initial.gauss_atoms(cells if domain.dimension == 1 else 8)
    end = task.save_at[-1]
    for place in places:
        atoms = np.append(base.points, [place], axis=0)
        ahead, behind = (Particles(atoms, np.append(base.weights * (1.0 - m), m)) for m in (2e-4, 1e-4))
        slope = (later_energy(task, ahead, end) - later_energy(task, behind, end)) / 1e-4
        expected = float(found.at(np.array([place]))[-1, 0] - found.mean[-1])
        assert slope == pytest.approx(expected, abs=0.05 * float(found.deviation[-1])), place


def test_the_sensitivity_of_long_flows_stays_small():
    domain = line(-4.0, 4.0)
    pull = Interaction(PairKernel(domain, lambda x: 0.5 * x[:, 0] ** 2, lambda x: x))
    well = Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p)
    task = Problem(EnergySum({"v": well, "w": pull}), domain, DensityFunction(lambda p: np.exp(-(p[:, 0] ** 2)), domain), (50.0,))
    assert (settled(task, (20.0, 50.0)).deviation < 1e-12).all()
    tanh = replace(problem(), save_at=(300.0,))
    early, late = settled(tanh, (50.0, 1000.0)).deviation
    assert late < early < 1e-2


@pytest.mark.parametrize(
    "start",
    [
        lambda p: (np.abs(p[:, 0] - 0.95) < 0.827).astype(float),
        lambda p: np.exp(-0.5 * (p[:, 0] / 0.002) ** 2),
        lambda p: np.exp(-np.abs(p[:, 0] - 0.3)),
    ],
    ids=["jumps", "narrow", "kink"],
)
def test_the_control_has_the_mean_zero_for_any_start(start):
    """Within the error bars of a million draws."""
    domain = line(-4.5, 4.5)
    task = Problem(alone(network(domain)), domain, DensityFunction(start, domain), (0.5,))
    found = settled(task, (0.0, 0.5))
    values = found.at(task.initial.sample(1_000_000, np.random.default_rng(1)).points)
    off = (np.mean(values, axis=1) - found.mean) / (found.deviation / 1000.0)
    assert (np.abs(off) < 4.0).all()
    assert np.std(values, axis=1) == pytest.approx(found.deviation, rel=0.01)


def test_study_times_without_the_start_are_controlled_by_the_atoms_of_the_start():
    domain = line(-4.0, 4.0)
    well = Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p)
    task = Problem(alone(well), domain, DensityFunction(lambda p: np.exp(-(p[:, 0] ** 2)), domain), (1.0,))
    reference = Characteristics((64,)).solve(task)
    found = particle_limit(task, reference, [32, 64], 10, quantities=["loss"], sensitivity=settled(task, (1.0,)))
    assert np.abs(found.samples("loss", "bias", 0)).max() < 1e-6  # linear in the measure: nothing is left


def test_densities_without_a_finite_constant_have_none():
    def constant(function, upper: float = 1.0, cells: int = 2048) -> float:
        domain = line(-upper, upper)
        return expected_square_distance(DensityFunction(function, domain).on(domain.grid((cells,))))

    assert constant(lambda p: (p[:, 0] > -2.0).astype(float)) == pytest.approx(4.0 / 6.0, rel=1e-12)
    assert constant(lambda p: p[:, 0] ** 2) == np.inf
    assert constant(lambda p: (np.abs(p[:, 0]) > 0.5).astype(float)) == np.inf
    normal = [constant(lambda p: np.exp(-0.5 * p[:, 0] ** 2), upper) for upper in (8.0, 12.0, 20.0)]
    assert (np.diff(normal) > 0.0).all()
    assert normal[-1] < 10.0


def test_atoms_are_drawn_from_a_density_that_is_linear_in_each_cell():
    """In space, too: the variance has no error of second order in the cells."""
    domain = box(3, -3.0, 3.0)
    start = DensityFunction(lambda p: np.exp(-0.5 * np.sum(p**2, axis=1) / 0.25**2), domain)
    points = start.sample(200_000, np.random.default_rng(0)).points
    spread = np.var(points, axis=0)
    assert spread == pytest.approx(np.full(3, 0.0625), abs=4.0 * 0.0625 * np.sqrt(2.0 / 200_000))
    law = list(start.law())
    mass = sum(atoms.mass for atoms in law)
    second = sum(atoms.weights @ atoms.points[:, 0] ** 2 for atoms in law) / mass
    assert mass == pytest.approx(1.0, abs=1e-12)
    assert second == pytest.approx(0.0625, rel=1e-3)


def test_the_mean_loss_gap_falls_like_one_over_the_count_and_its_spread_is_the_central_limit():
    task = problem()
    found = settled(task, task.save_at)
    limit = particle_limit(task, Characteristics((4096,)).solve(task), COUNTS, 40, ParticleFlow(tolerance=1e-7), 5, sensitivity=found)
    for time in (0, 1):
        rate = limit.rate("loss", "bias", time)
        print(f"mean loss gap at {limit.times[time]:g}: {rate.value:.3f} in [{rate.low:.3f}, {rate.high:.3f}]")
        assert limit.controlled(time)
        assert rate.holds(-1.0, 0.03)
        assert rate.high - rate.low < 0.6
        scaled = np.sqrt(COUNTS) * limit.statistic("loss", "spread", time)
        assert np.mean(scaled) == pytest.approx(found.deviation[time], rel=0.12)
    plain = np.std(limit.values["loss"][-1, :, 1])
    assert np.std(limit.samples("loss", "bias", 1)[-1]) < 0.1 * plain


def test_atoms_solve_the_weak_form_for_any_count():
    task = problem()
    for count in (1, 3, 20):
        assert weak_residual(task, ParticleFlow(count, seed=1, tolerance=1e-10)) < 1e-10
    assert weak_residual(task, ParticleFlow(20, seed=1, learning_rate=2.0)) > 1e-3  # steps of a tenth are no flow


def test_systems_that_march_together_are_as_accurate_as_alone():
    domain = line(-3.0, 3.0)
    terms = {
        "network": network(domain),
        "well": Potential(lambda p: 0.1 * p[:, 0] ** 2, lambda p: 0.2 * p),
        "pull": Interaction(PairKernel(domain, lambda x: np.exp(-(x[:, 0] ** 2)), lambda x: -2.0 * x * np.exp(-(x**2)), 0.3)),
    }
    start = DensityFunction(lambda p: np.exp(-2.0 * p[:, 0] ** 2), domain)
    task = Problem(EnergySum(terms), domain, start, (0.0, 0.5, 2.0))
    solver = ParticleFlow(7, tolerance=1e-10)
    together = solver.ensemble(task, [1, 2, 3, 4])
    for seed, found in zip((1, 2, 3, 4), together, strict=True):
        alone_run = replace(solver, seed=seed).solve(task)
        for ours, theirs in zip(found.measures, alone_run.measures, strict=True):
            assert ours.points == pytest.approx(theirs.points, abs=1e-8)
        assert found.total_energy == pytest.approx(alone_run.total_energy, abs=1e-9)
    mean = np.mean([run.total_energy[-1] for run in together])
    assert together[0].certificate["energy"][-1] == pytest.approx(mean, rel=1e-9)


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
    with pytest.raises(ValueError, match="statistic must be one of mean, absolute, rms, spread, bias"):
        fitted_rate([1, 2], np.ones((2, 2)), "median")
    with pytest.raises(ValueError, match="two or more counts"):
        fitted_rate([1], np.ones((1, 2)), "mean")
