"""Linear stability of stochastic gradient descent: recursions against every batch, closed forms, derivatives, runs against predictions."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom

from mfpde.domain import Axis, Domain
from mfpde.energy import two_layer
from mfpde.energy.base import EnergySum
from mfpde.energy.curvatures import CURVATURES
from mfpde.energy.inputs import Samples as SampleLaw
from mfpde.measure import Particles
from mfpde.problem import Problem
from mfpde.sgd import line, linear, mean_field, solution
from mfpde.sgd.batches import Batch
from mfpde.sgd.escape import TwoMinima, escapes, leaving_law
from mfpde.sgd.linear import General, RankOne
from mfpde.sgd.network import Network
from mfpde.sgd.training import batch_gradients, train
from mfpde.solvers.particles import ParticleFlow
from mfpde.solvers.particles.batches import Batches


def all_batches(batch):
    drawn = product(range(batch.samples), repeat=batch.size) if batch.replacement else combinations(range(batch.samples), batch.size)
    return [list(chosen) for chosen in drawn]


def hessians(samples, dimension, seed=0):
    roots = np.random.default_rng(seed).standard_normal((samples, dimension, dimension))
    return roots @ np.swapaxes(roots, 1, 2)


BATCHES = [Batch(size, 4, replacement) for size in (1, 2, 3, 4) for replacement in (False, True)]


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_the_recursion_is_the_mean_over_every_batch(batch):
    h, moment, rate = hessians(4, 3), hessians(1, 3, 5)[0], 0.21
    steps = [np.eye(3) - rate * np.mean(h[chosen], axis=0) for chosen in all_batches(batch)]
    wanted = np.mean([step @ moment @ step for step in steps], axis=0)
    np.testing.assert_allclose(linear.moment_step(General(h), moment, rate, batch), wanted, rtol=1e-12, atol=1e-12 * np.max(np.abs(wanted)))


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_the_recursion_on_a_line_is_the_mean_over_every_batch(batch):
    a = np.array([0.3, 1.9, 0.7, 2.4])
    factors = np.array([1.0 - 0.8 * np.mean(a[chosen]) for chosen in all_batches(batch)])
    law = line.Multiplier.of(a, 0.8, batch)
    assert line.mean_square_factor(np.mean(a), np.std(a), 0.8, batch) == pytest.approx(np.mean(factors**2), rel=1e-12)
    assert law.moment(2.0) == pytest.approx(np.mean(factors**2), rel=1e-12)
    assert law.moment(4.0) == pytest.approx(np.mean(factors**4), rel=1e-12)
    assert law.growth == pytest.approx(np.mean(np.log(np.abs(factors))), rel=1e-12)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_two_values_are_counted_as_every_batch_would_be(batch):
    a = line.two_valued(1.1, 0.4, 4)
    factors = np.array([1.0 - 1.3 * np.mean(a[chosen]) for chosen in all_batches(batch)])
    assert (np.mean(a), np.std(a)) == (pytest.approx(1.1), pytest.approx(0.4))
    assert line.Multiplier.of(a, 1.3, batch).moment(3.0) == pytest.approx(np.mean(np.abs(factors) ** 3), rel=1e-12)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_the_critical_rate_by_bisection_is_the_closed_form(batch):
    a = np.array([0.3, 1.9, 0.7, 2.4])
    sharp, spread = float(np.mean(a)), float(np.std(a))
    found = brentq(lambda rate: line.mean_square_factor(sharp, spread, rate, batch) - 1.0, 1e-3, 100.0, xtol=1e-14)
    assert found == pytest.approx(line.critical_rate(sharp, spread, batch), rel=1e-10)
    assert linear.critical_rate(General(a[:, None, None]), batch) == pytest.approx(found, rel=1e-10)
    h = General(hessians(4, 3))
    found = brentq(lambda rate: linear.mean_square_rate(h, rate, batch) - 1.0, 1e-2 * linear.critical_rate(h, batch), 10.0, xtol=1e-14)
    assert linear.critical_rate(h, batch) == pytest.approx(found, rel=1e-9)
    if batch.whole:
        assert found == pytest.approx(2.0 / linear.sharpness(h), rel=1e-9)


def test_the_edge_of_the_diagram_has_factor_one():
    batch, a = Batch(3, 10), np.linspace(0.1, 3.9, 7)
    edge = line.critical_nonuniformity(a, 0.5, batch)
    np.testing.assert_allclose([line.mean_square_factor(x, s, 0.5, batch) for x, s in zip(a, edge, strict=True)], 1.0, rtol=1e-12)
    assert math.isnan(line.critical_nonuniformity(np.array([4.1]), 0.5, batch)[0])
    assert math.isinf(line.critical_nonuniformity(np.array([1.0]), 0.5, Batch(10, 10))[0])


def test_the_spectral_radius_by_the_lanczos_method_is_the_dense_one(monkeypatch):
    gradients, batch = np.random.default_rng(1).standard_normal((30, 12)), Batch(3, 30)
    functions = RankOne(gradients)
    dense = linear.mean_square_rate(functions, 0.1, batch), linear.critical_rate(functions, batch)
    same = linear.mean_square_rate(General(gradients[:, :, None] * gradients[:, None, :]), 0.1, batch)
    assert same == pytest.approx(dense[0], rel=1e-12)
    monkeypatch.setattr(linear, "_SMALL", 1)
    lanczos = linear.mean_square_rate(functions, 0.1, batch), linear.critical_rate(functions, batch)
    assert lanczos == pytest.approx(dense, rel=1e-10)


def test_directions_in_which_nothing_moves_are_left_out():
    gradients = np.random.default_rng(2).standard_normal((5, 20))
    batch = Batch(1, 5)
    assert linear.mean_square_rate(RankOne(gradients), 1e-3, batch) == pytest.approx(1.0, abs=1e-12)
    inner = linear.on_range(RankOne(gradients))
    assert inner.hessian.shape == (5, 5)
    assert linear.mean_square_rate(inner, linear.critical_rate(RankOne(gradients), batch), batch) == pytest.approx(1.0, abs=1e-10)


def test_the_conditions_of_one_step_are_sufficient_and_not_necessary():
    pair, star = linear.pair_example(), linear.star_example()
    for example in (pair, star):
        assert linear.mean_square_rate(example.functions, example.rate, example.batch) == pytest.approx(example.exact, rel=1e-12)
        assert example.exact < 1.0 < linear.one_step_rate(example.functions, example.rate, example.batch)
        assert (np.linalg.eigvalsh(example.functions.hessians) > -1e-12).all()
    assert linear.one_step_rate(pair.functions, pair.rate, pair.batch) == pytest.approx(1.08, rel=1e-12)
    assert star.rate * linear.nonuniformity(star.functions) * math.sqrt(star.batch.factor) == pytest.approx(1.2)
    for seed in range(20):
        functions, batch = General(hessians(5, 3, seed)), Batch(2, 5)
        assert linear.mean_square_rate(functions, 0.1, batch) <= linear.one_step_rate(functions, 0.1, batch) * (1.0 + 1e-12)
        assert linear.mean_square_rate(functions, 0.1, batch) >= (1.0 - 0.1 * linear.sharpness(functions)) ** 2 * (1.0 - 1e-12)


def test_runs_have_the_mean_square_of_the_recursion():
    batch, start = Batch(2, 5), np.array([1.0, -0.5, 0.3])
    functions = General(0.1 * hessians(5, 3))
    norms = linear.norms_of_runs(functions, start, 1.0, batch, 5, 20_000, np.random.default_rng(0))
    moment = np.outer(start, start)
    for k in range(6):
        error = np.std(norms[k], ddof=1) / math.sqrt(norms.shape[1])
        assert np.mean(norms[k]) == pytest.approx(np.trace(moment), abs=4.0 * error + 1e-12)
        moment = linear.moment_step(functions, moment, 1.0, batch)


def test_batches_are_drawn_as_said():
    generator = np.random.default_rng(0)
    for batch in (Batch(3, 7), Batch(7, 7), Batch(1, 7)):
        drawn = batch.draw(generator, 20_000)
        assert all(len(set(row)) == batch.size for row in drawn[:100].tolist())
        counts = np.bincount(drawn.ravel(), minlength=7) / len(drawn)
        np.testing.assert_allclose(counts, batch.size / 7.0, atol=4.0 * math.sqrt(0.25 / len(drawn)))
    assert Batch(5, 4, True).draw(generator, 3).shape == (3, 5)
    with pytest.raises(ValueError, match="at most n = 4"):
        Batch(5, 4)


# Escape.

PROBLEM = TwoMinima(np.array([1.0, 1.0]), np.array([0.1, 1.9]))


def leaving_by_counting(rate, distance, steps):
    """The exact law for n = 2, B = 1: after k steps x − 1 depends on how often the sharper function was drawn."""
    low, high = 1.0 - 2.0 * rate * PROBLEM.right
    inside, gone = {0: 1.0}, [0.0]
    for k in range(1, steps + 1):
        after, left = {}, 0.0
        for count, chance in inside.items():
            for more in (0, 1):
                x = 1.0 - distance * low ** (k - count - more) * high ** (count + more)
                if PROBLEM.right_interval[0] < x < PROBLEM.right_interval[1]:
                    after[count + more] = after.get(count + more, 0.0) + 0.5 * chance
                else:
                    left += 0.5 * chance
        inside = after
        gone.append(gone[-1] + left)
    return np.array(gone)


@pytest.mark.parametrize("rate", [0.57, 0.7])
def test_the_law_of_leaving_is_that_of_counting_paths(rate):
    exact = leaving_by_counting(rate, 1e-2, 150)
    np.testing.assert_allclose(leaving_law(PROBLEM, rate, Batch(1, 2), 1e-2, 150), exact, atol=1e-12)
    assert exact[-1] > 0.1
    walk = leaving_law(TwoMinima(np.ones(4), np.array([0.1, 0.1, 1.9, 1.9 + 1e-9])), rate, Batch(1, 4), 1e-2, 150)
    np.testing.assert_allclose(walk, exact, atol=0.01)


def test_runs_leave_by_the_law_and_gradient_descent_stays():
    batch = Batch(1, 2)
    found = escapes(PROBLEM, 0.7, batch, 1e-5, 150, 4000, np.random.default_rng(0))
    gap = np.max(np.abs(found.left_by(150) - leaving_law(PROBLEM, 0.7, batch, 1e-5, 150)))
    assert gap < math.sqrt(math.log(2.0 / 1e-3) / (2.0 * 4000)), "the band of Dvoretzky, Kiefer and Wolfowitz"
    low, high = PROBLEM.left_interval
    settled = (found.ends > low) & (found.ends < high)
    assert np.mean(settled) > 0.9
    descent = escapes(PROBLEM, 0.7, Batch(2, 2), 1e-5, 150, 2, np.random.default_rng(0))
    assert (descent.left_after == -1).all()
    assert np.max(np.abs(descent.ends - 1.0)) < 1e-12
    assert leaving_law(PROBLEM, 0.7, Batch(2, 2), 1e-5, 150)[-1] == 0.0


def test_the_interval_is_where_all_functions_are_quadratic():
    low, high = PROBLEM.right_interval
    inner, x = np.linspace(low + 1e-9, high - 1e-9, 1001), np.array([low - 1e-6, high + 1e-6])
    np.testing.assert_allclose(PROBLEM.values(inner), PROBLEM.right * (inner[:, None] - 1.0) ** 2)
    assert (PROBLEM.values(x) < PROBLEM.right * (x[:, None] - 1.0) ** 2).any(axis=1).all()


def test_the_chance_of_leaving_falls_with_the_exponent_of_escape():
    problem, batch, rate = TwoMinima(np.ones(4), np.array([0.05, 0.05, 0.05, 1.9])), Batch(1, 4), 0.5675
    law = line.Multiplier.of(2.0 * problem.right, rate, batch)
    assert 0.5 < law.escape_exponent < 2.0
    assert law.moment(2.0) > 1.0
    assert law.moment(law.escape_exponent) == pytest.approx(1.0, rel=1e-9)
    chances = [leaving_law(problem, rate, batch, distance, 2500)[-1] for distance in (1e-2, 1e-4)]
    slope = math.log(chances[0] / chances[1]) / math.log(100.0)
    print(f"slope {slope:.3f}, exponent {law.escape_exponent:.3f}")
    assert slope == pytest.approx(law.escape_exponent, abs=0.05)


def test_mean_square_stability_is_an_exponent_of_two():
    a, batch = np.array([0.2, 3.8]), Batch(1, 2)
    rate = line.critical_rate(2.0, 1.8, batch)
    assert line.Multiplier.of(a, rate, batch).escape_exponent == pytest.approx(2.0, abs=1e-8)


# Networks.


def random_network(name, trained, seed=0):
    generator = np.random.default_rng(seed)
    outer = None if trained else generator.standard_normal(4)
    network = Network(generator.standard_normal((6, 3)), generator.standard_normal(6), name, 0.7, outer)
    return network, 0.7 * generator.standard_normal(4 * (3 + trained))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", CURVATURES)
def test_products_are_differences_of_gradients(name, trained):
    network, point = random_network(name, trained)
    curvature, units, h = network.at(point), np.eye(len(point)), 1e-5
    gradient = [(network.loss(point + h * unit) - network.loss(point - h * unit)) / (2.0 * h) for unit in units]
    np.testing.assert_allclose(curvature.gradient, gradient, atol=1e-7)
    hessian = np.array([(network.at(point + h * u).gradient - network.at(point - h * u).gradient) / (2.0 * h) for u in units])
    np.testing.assert_allclose(curvature.hessian, hessian, atol=1e-7)
    np.testing.assert_allclose([curvature.product(unit) for unit in units], curvature.hessian, atol=1e-13)
    samples = np.array([curvature.sample_products(unit) for unit in units]).transpose(1, 2, 0)
    each = [Network(network.inputs[k : k + 1], network.targets[k : k + 1], name, 0.7, network.outer).at(point).hessian for k in range(6)]
    np.testing.assert_allclose(samples, each, atol=1e-12)
    np.testing.assert_allclose(curvature.sample_squares(), np.sum(np.square(each), axis=(1, 2)), rtol=1e-10)


def test_sharpness_and_nonuniformity_are_those_of_the_dense_hessians():
    generator = np.random.default_rng(0)
    network = Network(generator.standard_normal((12, 4)), generator.standard_normal(12), "tanh", 0.5)
    curvature = network.at(generator.standard_normal(10 * 5))
    each = np.array([curvature.sample_products(unit) for unit in np.eye(50)]).transpose(1, 2, 0)
    dense = General(0.5 * (each + each.transpose(0, 2, 1)))
    assert solution.sharpness(curvature) == pytest.approx(linear.sharpness(dense), rel=1e-9)
    assert solution.nonuniformity(curvature) == pytest.approx(linear.nonuniformity(dense), rel=1e-7)
    spread = np.mean([np.trace(h @ h) for h in each]) - np.trace(dense.hessian @ dense.hessian)
    assert solution.traces(curvature) == pytest.approx((np.trace(dense.hessian), math.sqrt(spread)), rel=1e-10)
    fitted = Network(network.inputs, network.values(curvature.parameters), "tanh", 0.5).at(curvature.parameters)
    functions = linear.on_range(General(fitted.jacobian[:, :, None] * fitted.jacobian[:, None, :]))
    rate = linear.mean_square_rate(solution.interpolating(fitted), 0.3, Batch(2, 12))
    assert rate == pytest.approx(linear.mean_square_rate(functions, 0.3, Batch(2, 12)), rel=1e-9)


def test_training_follows_the_gradient_and_ends_below_the_edge():
    generator = np.random.default_rng(1)
    network = Network(generator.standard_normal((10, 3)), generator.standard_normal(10), "tanh", 1.0)
    start = generator.standard_normal(20 * 4)
    found = train(network, start, [0.02, 0.05, 50.0], Batch(10, 10), 6000, 1e-2, 0, [1, 7])
    point = start.copy()
    for k in range(7):
        point = point - 0.05 * network.at(point).gradient
        if k == 0:
            np.testing.assert_allclose(found.path[0, 1], point, atol=1e-13)
    np.testing.assert_allclose(found.path[1, 1], point, atol=1e-12)
    assert found.diverged.tolist() == [False, False, True]
    assert found.fitted[:2].all()
    for k, rate in enumerate((0.02, 0.05)):
        assert solution.sharpness(network.at(found.parameters[k])) <= 2.0 / rate
    assert train(network, start, [0.02], Batch(2, 10), 100, 0.0, 0, stopped=[2]) is None


# Particles.


def particle_samples():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((30, 2))
    return mean_field.Samples(inputs, np.tanh(inputs @ [1.5, -0.5]) + 0.3 * generator.standard_normal(30), "tanh")


def test_particles_make_the_steps_of_the_particle_solver():
    samples, atoms, seed = particle_samples(), mean_field.spread_particles(8, 2), 5
    domain = Domain((Axis("u", -20.0, 20.0), Axis("v", -20.0, 20.0)))
    term = two_layer(domain, "tanh", SampleLaw(samples.inputs), samples.targets)
    problem = Problem(EnergySum({"loss": term}), domain, Particles.equal(atoms), (1.0,))
    run = ParticleFlow(learning_rate=0.8, batch=3, seed=seed, table_tolerance=0.0).solve(problem)
    network, points = samples.network(8), atoms.reshape(1, -1)
    batches = Batches.of(problem.energy, 3, False, seed)
    for k in range(10):
        inputs, targets = term.draw(batches._generator(k, 0), 3)
        points = points - 0.1 * 8 * batch_gradients(network, points, inputs, targets)
    np.testing.assert_allclose(run.final.points, points.reshape(8, 2), rtol=1e-10, atol=1e-12)
    assert run.energy["loss"][-1] == pytest.approx(network.loss(points[0]), rel=1e-10)


def test_the_predicted_variance_of_the_loss_is_that_of_runs():
    samples, atoms, batch = particle_samples(), mean_field.spread_particles(20, 2), Batch(2, 30, True)
    after = [20, 100]
    predicted = mean_field.predict(samples, atoms, 0.01, batch, after)
    losses = mean_field.losses_of_runs(samples, atoms, 0.01, batch, after, 2000, np.random.default_rng(3))
    variance, low, high = mean_field.variance_interval(losses, 0.999)
    print(f"measured over predicted {variance / predicted.variances}")
    assert (low < predicted.variances).all()
    assert (predicted.variances < high).all()


def test_the_predicted_variance_is_that_of_the_linearised_recursion():
    samples, atoms, batch, step = particle_samples(), mean_field.spread_particles(5, 2), Batch(3, 30), 0.2
    network, point, speed = samples.network(5), np.ravel(mean_field.spread_particles(5, 2)), 0.2 * 5
    covariance = np.zeros((10, 10))
    for _ in range(12):
        curvature = network.at(point)
        kept = np.eye(10) - speed * curvature.hessian
        covariance = kept @ covariance @ kept + speed**2 * batch.factor * np.cov(curvature.sample_gradients.T, bias=True)
        point = point - speed * curvature.gradient
    gradient = network.at(point).gradient
    found = mean_field.predict(samples, atoms, step, batch, [4, 12])
    assert found.variances[1] == pytest.approx(gradient @ covariance @ gradient, rel=1e-10)
    assert found.losses[1] == pytest.approx(network.loss(point), rel=1e-12)


def test_the_noise_survives_where_the_time_step_is_kept():
    samples, batch = particle_samples(), Batch(1, 30, True)
    kept = [mean_field.predict(samples, mean_field.spread_particles(n, 2), 0.05, batch, [40]).variances[0] for n in (64, 256)]
    assert kept[1] == pytest.approx(kept[0], rel=0.1)
    fine = mean_field.predict(samples, mean_field.spread_particles(256, 2), 0.0125, batch, [160]).variances[0]
    assert fine == pytest.approx(0.25 * kept[1], rel=0.1)


def test_intervals_of_variances_cover():
    draws = np.random.default_rng(0).exponential(size=(400, 500))
    _, low, high = mean_field.variance_interval(draws)
    covered = int(np.sum((low < 1.0) & (high > 1.0)))
    print(f"{covered} of 500 intervals cover")
    assert covered > binom.ppf(1e-3, 500, 0.85)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Batch(0, 3), "at least 1"),
        (lambda: General(np.zeros((2, 3))), "shape"),
        (lambda: General(np.triu(np.ones((1, 2, 2)))), "symmetric"),
        (lambda: line.two_valued(1.0, 3.0, 5), "nonnegative"),
        (lambda: TwoMinima(np.ones(2), np.array([1.0, 0.0])), "positive"),
        (lambda: leaving_law(PROBLEM, 0.5, Batch(1, 2), 0.9, 5), "interval"),
        (lambda: Network(np.ones((2, 1)), np.ones(2), "sine", 1.0), "accepted"),
        (lambda: Network(np.ones((2, 1)), np.ones(3), "tanh", 1.0), "shapes"),
        (lambda: mean_field.steps_between([0.25], 0.1), "multiple"),
        (lambda: linear.critical_rate(General(-np.ones((1, 1, 1))), Batch(1, 1)), "positive"),
        (lambda: line.Multiplier.of(np.arange(40.0), 0.1, Batch(20, 40)), "too many"),
    ],
)
def test_wrong_numbers_raise(make, words):
    with pytest.raises(ValueError, match=words):
        make()
