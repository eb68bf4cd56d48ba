"""Training: gradient descent, minibatches, Langevin noise, and diffusion by blobs, through the particle solver."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import alone, box, line, network

from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Entropy, Normal, Potential, Power, Samples, two_layer
from mfpde.measure import DensityFunction, Particles, ProductDensity
from mfpde.problem import Problem
from mfpde.run import WARNING, Status
from mfpde.solvers import ParticleFlow


def bump(domain: Domain, spread: float = 0.5, centre: float = 0.0) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / (2.0 * spread**2)), domain)


def well(strength: float = 1.0) -> Potential:
    return Potential(lambda p: 0.5 * strength * np.sum(p**2, 1), lambda p: strength * p)


def test_gradient_descent_is_what_a_network_is_trained_by():
    """k iterations of θ_i ← θ_i − α ∂L/∂θ_i for L of f = (1/N)Σσ(x·θ_i), by hand, reach the time kα/N."""
    domain = line(-4.0, 4.0)
    x = np.array([-2.0, -0.7, 0.1, 0.9, 1.6])
    y = np.array([0.4, -0.3, 0.2, 0.5, 0.9])
    term = two_layer(domain, "tanh", Samples(x[:, None]), y)
    theta, count, rate = np.array([-1.2, 0.3, 0.8, 2.0]), 4, 0.8
    task = Problem(alone(term), domain, Particles.equal(theta[:, None]), (10 * rate / count,))
    run = ParticleFlow(learning_rate=rate).solve(task)
    for _ in range(10):
        gap = np.mean(np.tanh(np.outer(x, theta)), axis=1) - y
        theta = theta - rate * np.mean((gap * x)[:, None] * (1.0 - np.tanh(np.outer(x, theta)) ** 2) / count, axis=0)
    assert len(run.certificate) == 11
    assert run.final.points[:, 0] == pytest.approx(theta, abs=1e-12)
    assert run.total_energy[-1] == pytest.approx(0.5 * np.mean((np.mean(np.tanh(np.outer(x, theta)), axis=1) - y) ** 2), rel=1e-10)


def test_gradient_descent_tends_to_the_flow_at_first_order():
    domain = line(-4.0, 4.0)
    task = Problem(alone(network(domain)), domain, bump(domain), (1.0,))
    exact = ParticleFlow(20, seed=1, tolerance=1e-11).solve(task).final.points
    gaps = [np.max(np.abs(ParticleFlow(20, seed=1, learning_rate=a).solve(task).final.points - exact)) for a in (2.0, 1.0, 0.5)]
    orders = np.log2(np.array(gaps[:-1]) / np.array(gaps[1:]))
    print(f"orders {orders}")
    assert orders == pytest.approx([1.0, 1.0], abs=0.15)


def test_unequal_weights_move_with_the_velocity_of_the_flow():
    domain = line(-4.0, 4.0)
    atoms = Particles(np.array([[-1.0], [0.4], [1.1]]), np.array([0.2, 0.5, 0.3]))
    task = Problem(alone(network(domain)), domain, atoms, (0.5,))
    small = ParticleFlow(learning_rate=0.003).solve(task).final.points
    assert small == pytest.approx(ParticleFlow(tolerance=1e-10).solve(task).final.points, abs=1e-3)


def test_too_long_steps_are_said():
    domain = line(-4.0, 4.0)
    task = Problem(alone(well(1.0)), domain, Particles.equal(np.array([[1.0], [-0.5]])), (60.0,))
    fine = ParticleFlow(learning_rate=1.0).solve(task)
    wild = ParticleFlow(learning_rate=4.4).solve(task)
    assert not any(note.startswith(WARNING) for note in fine.notes)
    assert any(note.startswith(WARNING) and "too long for a descent" in note for note in wild.notes)


def test_descent_stops_at_walls():
    domain = box(2, -1.0, 1.0)
    tilt = Potential(lambda p: -p[:, 0] - 0.3 * p[:, 1], lambda p: np.tile([-1.0, -0.3], (len(p), 1)))
    atoms = Particles.equal(np.array([[0.5, -0.5], [-0.9, 0.0], [1.0, 0.95]]))
    run = ParticleFlow(learning_rate=0.3).solve(Problem(alone(tilt), domain, atoms, tuple(np.linspace(0, 3, 16))))
    for time, measure in zip(run.times, run.measures, strict=True):
        assert measure.points == pytest.approx(np.minimum(atoms.points + time * np.array([1.0, 0.3]), 1.0), abs=1e-12)
    assert run.certificate.energy_rise() <= 1e-15


@pytest.mark.parametrize("law", ["samples", "normal"])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_mean_of_many_stochastic_runs_is_gradient_descent(law, batch):
    """To first order in the step: the mean position follows the full gradient within its error bars."""
    domain = line(-4.0, 4.0)
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 1))
    inputs = Samples(x) if law == "samples" else Normal()
    term = two_layer(domain, "tanh", inputs, Particles(np.array([[1.2], [-0.6]]), np.array([0.6, 0.4])))
    atoms = Particles.equal(np.array([[-0.9], [0.2], [1.4]]))
    task = Problem(alone(term), domain, atoms, (0.05,))
    plain = ParticleFlow(learning_rate=0.005).solve(task).final.points[:, 0]
    runs = np.array([ParticleFlow(seed=k, learning_rate=0.005, batch=batch).solve(task).final.points[:, 0] for k in range(200)])
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    print(f"off by {(np.mean(runs, axis=0) - plain) / error} standard errors")
    assert (np.abs(np.mean(runs, axis=0) - plain) < 4.0 * error + 2e-5).all()
    assert (error > 0.0).all()


def test_an_epoch_sees_every_sample_once():
    """With a linear network and tiny steps the sum of an epoch's gradients is the full gradient."""
    domain = line(-4.0, 4.0)
    x, y = np.linspace(-1.0, 2.0, 10)[:, None], np.linspace(0.0, 1.0, 10)
    term = two_layer(domain, "identity", Samples(x), y)
    task = Problem(alone(term), domain, Particles.equal(np.array([[0.3]])), (4e-6,))
    start = 0.3
    epoch = ParticleFlow(seed=3, learning_rate=1e-6, batch=3, epochs=True).solve(task)  # 3 + 3 + 3 + 1 samples
    moved = epoch.final.points[0, 0] - start
    gradients = (start * x[:, 0] - y) * x[:, 0]
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=(2, 0, 0)))).permutation(10)
    expected = -1e-6 * sum(np.mean(gradients[order[k : k + 3]]) for k in range(0, 10, 3))
    assert moved == pytest.approx(expected, rel=1e-4)
    assert len(epoch.certificate) == 5


def test_stochastic_descent_resumes_to_the_same_bits_and_differs_by_seed():
    domain = line(-4.0, 4.0)
    task = Problem(alone(network(domain)), domain, bump(domain), (0.1, 0.2))
    one, two, other = (ParticleFlow(30, seed=s, learning_rate=0.1, batch=8).solve(task).final.points for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_noise_and_minibatches_go_together():
    """A noisy stochastic descent ends near the Gibbs law of its mean field: here of a well beside a network without gradient."""
    from scipy.stats import kstest, norm

    domain = line(-6.0, 6.0)
    term = two_layer(domain, "identity", Samples(np.full((5, 1), 1e-6)), np.ones(5))
    energy = EnergySum({"network": term, "well": well(), "entropy": Entropy(0.5)})
    run = ParticleFlow(4000, seed=2, learning_rate=40.0, batch=2).solve(Problem(energy, domain, bump(domain, 0.3, 1.0), (6.0,)))
    assert kstest(run.final.points[:, 0], norm(0, np.sqrt(0.5)).cdf).pvalue > 1e-3


def test_langevin_reaches_the_gibbs_law_of_a_double_well_within_the_floor_of_w2():
    from scipy.stats import kstest

    from mfpde.distance import wasserstein
    from mfpde.study.predictions import expected_square_distance

    domain = line(-3.0, 3.0)
    double = Potential(lambda p: 0.25 * p[:, 0] ** 4 - 0.5 * p[:, 0] ** 2, lambda p: p**3 - p)
    energy = EnergySum({"double": double, "entropy": Entropy(0.6)})
    gibbs = DensityFunction(lambda p: np.exp(-double.function(p) / 0.6), domain)
    run = ParticleFlow(4000, seed=4, step=0.01).solve(Problem(energy, domain, bump(domain, 0.5), (12.0,)))
    exact = gibbs.on(domain.grid((4096,)))
    edges, below = exact.grid.edges(0), np.concatenate([[0.0], np.cumsum(exact.weights)])
    assert kstest(run.final.points[:, 0], lambda x: np.interp(x, edges, below)).pvalue > 1e-3
    floor = np.sqrt(expected_square_distance(exact) / 4000)
    assert wasserstein(run.final, exact, domain).value < 2.5 * floor


@pytest.mark.parametrize("dimension", [5, 16])
def test_high_dimensions_need_no_grid(dimension):
    domain = Domain(tuple(Axis(f"a{k}", -4.0, 4.0) for k in range(dimension)))
    random = np.random.default_rng(1)
    x = random.normal(size=(64, dimension)) / np.sqrt(dimension)
    term = two_layer(domain, "tanh", Samples(x), Particles(random.normal(size=(3, dimension)), np.array([0.5, 0.3, 0.2])))
    line_of = [DensityFunction(lambda p: np.exp(-0.5 * p[:, 0] ** 2), Domain((axis,))) for axis in domain.axes]
    task = Problem(alone(term), domain, ProductDensity.of(domain, line_of), (0.0, 5.0))
    run = ParticleFlow(300, seed=1, tolerance=1e-6).solve(task)
    assert run.status is Status.DONE
    assert run.certificate.energy_rise() <= 1e-12
    assert run.total_energy[-1] < 0.9 * run.total_energy[0]
    start = run.measures[0].points
    assert np.mean(start) == pytest.approx(0.0, abs=0.1)
    assert np.std(start) == pytest.approx(1.0, abs=0.05)


def test_products_of_densities_are_sampled_axis_by_axis():
    domain = Domain((Axis("x", 0.0, 1.0), Axis("y", -1.0, 1.0)))
    lines = [
        DensityFunction(lambda p: 2.0 * p[:, 0], Domain((domain.axes[0],))),
        DensityFunction(lambda p: 1.0 - np.abs(p[:, 0]), Domain((domain.axes[1],))),
    ]
    product = ProductDensity.of(domain, lines)
    points = product.sample(20_000, np.random.default_rng(0)).points
    assert np.mean(points, axis=0) == pytest.approx([2.0 / 3.0, 0.0], abs=0.01)
    assert np.corrcoef(points.T)[0, 1] == pytest.approx(0.0, abs=0.03)
    whole = product.on(domain.grid((40, 40)))
    assert whole.weights @ whole.points == pytest.approx([2.0 / 3.0, 0.0], abs=1e-3)
    assert np.sort(product.quantiles(50).points[:, 0]) == pytest.approx(np.sqrt((np.arange(50) + 0.5) / 50), abs=1e-4)


def test_blobs_spread_like_heat_and_keep_the_gibbs_state():
    domain = line(-6.0, 6.0)
    start = bump(domain, 0.5)
    run = ParticleFlow(400, start="quantile", diffusion="blob", tolerance=1e-7).solve(
        Problem(alone(Entropy(0.3)), domain, start, (0.0, 1.0))
    )
    first, last = (np.var(measure.points) for measure in run.measures)
    assert last - first == pytest.approx(2.0 * 0.3, rel=0.05)
    assert any("blob" in note and "approximation" in note for note in run.notes)
    assert run.certificate.energy_rise() <= 1e-12
    energy = EnergySum({"well": well(), "entropy": Entropy(0.3)})
    calm = ParticleFlow(200, start="quantile", diffusion="blob", tolerance=1e-6).solve(Problem(energy, domain, start, (8.0,)))
    assert np.var(calm.final.points) == pytest.approx(0.3, rel=0.05)


def test_heat_by_blobs_of_a_grid_converges():
    """Atoms of a grid are as dense in the tails as elsewhere, so that their blobs overlap there."""
    from mfpde.distance import wasserstein

    domain = line(-8.0, 8.0)
    task = Problem(alone(Entropy(0.5)), domain, bump(domain, np.sqrt(0.5)), (0.5,))
    exact = bump(domain, 1.0).on(domain.grid((4096,)))
    counts, gaps = np.array([100, 200, 400]), []
    for count in counts:
        run = ParticleFlow(int(count), start="grid", diffusion="blob", tolerance=1e-6).solve(task)
        assert run.certificate.mass_drift() == 0.0
        assert run.final.mass == pytest.approx(1.0, abs=1e-14)
        gaps.append(wasserstein(run.final, exact, domain).value)
    rate = np.polyfit(np.log(counts), np.log(gaps), 1)[0]
    print(f"W2 {gaps}, rate {rate:.2f}")
    assert -1.35 < rate < -0.95
    assert gaps[-1] < 0.02


def test_blobs_of_a_porous_medium_follow_barenblatt():
    domain = line(-3.0, 3.0)

    def barenblatt(time: float) -> DensityFunction:
        radius = (9.0 / 2.0 * 2.0 * time) ** (1.0 / 3.0)
        return DensityFunction(lambda p: np.maximum(radius**2 - p[:, 0] ** 2, 0.0), domain)

    from mfpde.distance import wasserstein

    task = Problem(alone(Power(2.0)), domain, barenblatt(0.1), (0.4,))
    run = ParticleFlow(400, start="quantile", diffusion="blob", tolerance=1e-6).solve(task)
    assert wasserstein(run.final, barenblatt(0.5).on(domain.grid((4096,))), domain).value < 0.02
    with pytest.raises(ValueError, match="blob"):
        ParticleFlow(10).solve(task)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"learning_rate": 1.0, "step": 0.1}, "both say how long a step is"),
        ({"batch": 3}, "`batch` goes with `learning_rate`"),
        ({"epochs": True}, "`epochs` says how minibatches are drawn"),
        ({"blob_width": 0.1}, '`blob_width` goes with diffusion = "blob"'),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"batch": 0, "learning_rate": 1.0}, "batch must be at least 1"),
    ],
)
def test_choices_that_exclude_one_another_are_refused(choices, words):
    with pytest.raises(ValueError, match=words):
        ParticleFlow(10, **choices)


def test_minibatches_of_what_has_none_are_refused():
    domain = line(-4.0, 4.0)
    flow = ParticleFlow(10, learning_rate=1.0, batch=4)
    with pytest.raises(ValueError, match="no term is two_layer"):
        flow.prepare(Problem(alone(well()), domain, bump(domain), (1.0,)))
    with pytest.raises(ValueError, match="needs inputs that are samples"):
        replace(flow, epochs=True).prepare(Problem(alone(network(domain)), domain, bump(domain), (1.0,)))


@pytest.mark.long
def test_a_million_neurons_do_not_leak():
    """A thousand steps leave the resident memory where a hundred have brought it."""
    import os

    def resident() -> float:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    domain = line(-4.5, 4.5)
    task = Problem(alone(network(domain)), domain, bump(domain), (10.0,))
    flow = ParticleFlow(1_000_000, learning_rate=1e4).prepare(task)
    state, used = flow.start(), []
    for _ in range(10):
        for _ in range(100):
            state = flow.advance(state, 10.0)
            flow.record(state)
        used.append(resident())
    print(f"resident memory {used} MB")
    assert state.steps == 1000
    assert state.rises == 0
    assert max(used[1:]) - used[0] < 20.0
