"""Sums over all pairs of neurons and inputs, their activations, and the energies of inputs in many dimensions."""

import tracemalloc

import numba
import numpy as np
import pytest
from scipy import special

from mfpde.domain import Axis, Domain
from mfpde.energy import ACTIVATIONS, Circle, EnergySum, Normal, Samples, TwoLayer, Uniform, two_layer
from mfpde.energy.activation_kernels import NAMES, fill_slopes, fill_values
from mfpde.energy.activations import Activation
from mfpde.energy.dense import neuron_slopes, neuron_sums
from mfpde.energy.features import InterpolatedFeatures, SampledFeatures
from mfpde.energy.inputs import InputLaw
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import ParticleFlow

EPS = float(np.finfo(float).eps)


def cube(dimension: int, half: float = 5.0) -> Domain:
    return Domain(tuple(Axis(f"t{k}", -half, half) for k in range(dimension)))


def values_of(activation: str, z: np.ndarray) -> np.ndarray:
    filled = z.copy()
    fill_values(NAMES.index(activation), filled)
    return filled


def slopes_of(activation: str, z: np.ndarray) -> np.ndarray:
    filled = z.copy()
    fill_slopes(NAMES.index(activation), filled)
    return filled


def many_arguments() -> np.ndarray:
    """A million of all sizes; squares of the largest are still finite."""
    draws = np.random.default_rng(0)
    signs = draws.choice([-1.0, 1.0], 400_000)
    around = [draws.normal(size=300_000), draws.uniform(-40.0, 40.0, 300_000)]
    special_ones = [0.0, -0.0, 5e-324, -1e-310, 1e150, -1e150, 1e6, -1e6, 0.5 * np.pi, 708.0, -708.0, 745.0, -746.0]
    return np.concatenate([*around, signs * 10.0 ** draws.uniform(-300.0, 150.0, 400_000), special_ones])


def reference(activation: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By numpy and scipy, with slopes that have no cancellation."""
    with np.errstate(all="ignore"):
        value, slope = ACTIVATIONS[activation].pair(z.copy())
        if activation == "tanh":
            slope = np.cosh(np.clip(z, -350.0, 350.0)) ** -2
        if activation == "sigmoid":
            value, slope = special.expit(z), special.expit(z) * special.expit(-z)
    return value, slope


def test_every_activation_has_a_loop() -> None:
    assert set(NAMES) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", NAMES)
def test_activations_have_all_their_digits(activation: str) -> None:
    z = many_arguments()
    if activation == "cos":
        z = np.clip(z, -1e6, 1e6)
    for found, exact in zip((values_of(activation, z), slopes_of(activation, z)), reference(activation, z), strict=True):
        error = np.abs(found - exact) / np.maximum(np.abs(exact), 1.0)
        print(f"{activation}: largest error {np.max(error) / EPS:.1f} units of 2^-52")
        assert np.max(error) <= 4.0 * EPS


@pytest.mark.parametrize("activation", ["tanh", "erf", "arctan", "softsign"])
def test_odd_activations_have_relative_digits_at_zero(activation: str) -> None:
    z = np.geomspace(1e-300, 1.0, 100_001)
    exact = ACTIVATIONS[activation].value(z)
    assert np.max(np.abs(values_of(activation, z) / exact - 1.0)) <= 4.0 * EPS
    np.testing.assert_array_equal(values_of(activation, -z), -values_of(activation, z))


def test_far_cosines_are_those_of_the_library() -> None:
    z = np.array([1e8, -1e15, 1e300, 0.3])
    np.testing.assert_allclose(values_of("cos", z), np.cos(z), rtol=0.0, atol=2.0 * EPS)
    np.testing.assert_allclose(slopes_of("cos", z), -np.sin(z), rtol=0.0, atol=2.0 * EPS)


LIMITS = {
    "tanh": (-1.0, 1.0, 0.0, 0.0),
    "erf": (-1.0, 1.0, 0.0, 0.0),
    "sigmoid": (0.0, 1.0, 0.0, 0.0),
    "softplus": (0.0, np.inf, 0.0, 1.0),
    "relu": (0.0, np.inf, 0.0, 1.0),
    "gelu": (0.0, np.inf, 0.0, 1.0),
    "arctan": (-0.5 * np.pi, 0.5 * np.pi, 0.0, 0.0),
    "softsign": (-1.0, 1.0, 0.0, 0.0),
    "gaussian": (0.0, 0.0, 0.0, 0.0),
    "quadratic": (np.inf, np.inf, -np.inf, np.inf),
    "identity": (-np.inf, np.inf, 1.0, 1.0),
}


@pytest.mark.parametrize("activation", LIMITS)
def test_activations_reach_their_limits_and_keep_what_is_no_number(activation: str) -> None:
    ends = np.array([-np.inf, np.inf])
    found = np.concatenate([values_of(activation, ends), slopes_of(activation, ends)])
    np.testing.assert_allclose(found, LIMITS[activation], rtol=0.0, atol=1e-300)
    assert np.isnan(values_of(activation, np.array([np.nan]))).all()


def cloud(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def plain(sigma: Activation, theta: np.ndarray, weights: np.ndarray, x: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sums with an array of all pairs."""
    values, slopes = sigma.pair(x @ theta.T)
    return values @ weights, (slopes * c[:, None]).T @ x


def assert_sums_agree(activation: str, neurons: int, inputs: int, width: int) -> None:
    theta, x = cloud(neurons, width, 1), cloud(inputs, width, 2)
    weights, c = cloud(neurons, 1, 3)[:, 0], cloud(inputs, 1, 4)[:, 0]
    sums, slopes = plain(ACTIVATIONS[activation], theta, weights, x, c)
    size, steepness = np.sum(np.abs(weights)), np.sum(np.abs(c)) * np.max(np.abs(x))
    np.testing.assert_allclose(neuron_sums(activation, theta, weights, x), sums, rtol=1e-13, atol=2e-15 * size)
    np.testing.assert_allclose(neuron_slopes(activation, theta, x, c), slopes, rtol=1e-13, atol=2e-15 * steepness)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 16, 17])
@pytest.mark.parametrize("activation", NAMES)
def test_sums_over_pairs_are_those_of_numpy(activation: str, width: int) -> None:
    assert_sums_agree(activation, 103, 77, width)


@pytest.mark.parametrize(
    ("neurons", "inputs"), [(1, 1), (2, 7), (3, 8), (4, 9), (5, 255), (7, 256), (8, 257), (1023, 513), (129, 4100), (4100, 129)]
)
@pytest.mark.parametrize("width", [1, 8, 17])
def test_sums_over_pairs_hold_where_blocks_end(neurons: int, inputs: int, width: int) -> None:
    assert_sums_agree("tanh", neurons, inputs, width)


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    shapes, held = ((3001, 203), (203, 3001)), numba.get_num_threads()
    found = []
    try:
        for threads in {1, held}:
            numba.set_num_threads(threads)
            for n, q in shapes:
                theta, x, weights, c = cloud(n, 5, 1), cloud(q, 5, 2), cloud(n, 1, 3)[:, 0], cloud(q, 1, 4)[:, 0]
                found.append((neuron_sums("erf", theta, weights, x), neuron_slopes("erf", theta, x, c)))
    finally:
        numba.set_num_threads(held)
    for one, other in zip(found[:2], found[-2:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("activation", [name for name in NAMES if name != "relu"])
def test_slopes_are_differences_of_sums(activation: str) -> None:
    theta, x = cloud(40, 8, 1), cloud(30, 8, 2)
    c, one, h = cloud(30, 1, 4)[:, 0], np.ones(1), 3e-5
    slopes = neuron_slopes(activation, theta, x, c)
    for j, d in ((0, 0), (17, 3), (39, 7)):
        step = h * np.eye(8)[d]
        up, down = (c @ neuron_sums(activation, theta[j : j + 1] + s, one, x) for s in (step, -step))
        assert slopes[j, d] == pytest.approx((up - down) / (2.0 * h), abs=1e-7 * max(1.0, np.max(np.abs(slopes))))


def test_memory_does_not_grow_with_the_pairs() -> None:
    theta, x = cloud(20_000, 8, 1), cloud(2_000, 8, 2)
    weights, c = np.full(20_000, 5e-5), np.full(2_000, 5e-4)
    neuron_sums("tanh", theta, weights, x)
    tracemalloc.start()
    neuron_sums("tanh", theta, weights, x)
    neuron_slopes("tanh", theta, x, c)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{peak / 1e6:.1f} MB beside {8e-6 * len(theta) * len(x):.0f} MB of pairs")
    assert peak < 8e6


def test_shapes_that_differ_are_told() -> None:
    theta, x = cloud(3, 2, 1), cloud(4, 2, 2)
    with pytest.raises(ValueError, match="activation must be one of tanh"):
        neuron_sums("swish", theta, np.ones(3), x)
    with pytest.raises(ValueError, match=r"same D >= 1, got \(3, 2\) and \(4, 1\)"):
        neuron_sums("tanh", theta, np.ones(3), x[:, :1])
    with pytest.raises(ValueError, match="3 neurons need as many weights"):
        neuron_sums("tanh", theta, np.ones(4), x)
    with pytest.raises(ValueError, match="4 inputs need as many coefficients"):
        neuron_slopes("tanh", theta, x, np.ones(3))


@pytest.mark.parametrize("dimension", [2, 8])
def test_compiled_sums_change_nothing(dimension: int) -> None:
    """Few atoms go through numpy, many through the compiled loops; repeated atoms are the same measure."""
    x = cloud(300, dimension, 5)
    term = two_layer(cube(dimension), "gelu", Samples(x), np.sin(x[:, 0]), tolerance=1e-3 if dimension == 2 else None)
    few = Particles.equal(cloud(100, dimension, 6))
    many = Particles.equal(np.tile(few.points, (100, 1)))
    assert isinstance(term.features, SampledFeatures if dimension == 8 else InterpolatedFeatures)
    one, other = term.residual(few), term.residual(many)
    np.testing.assert_allclose(other, one, rtol=0.0, atol=1e-13 * np.max(np.abs(one)))
    slope = term.gradient(few, few.points)
    np.testing.assert_allclose(term.gradient(many, many.points)[:100], slope, rtol=0.0, atol=1e-13 * np.max(np.abs(slope)))


def taught(dimension: int, samples: int = 500, **options: bool) -> tuple[np.ndarray, Particles, TwoLayer]:
    """Samples, a teacher of three neurons, and the energy."""
    x = cloud(samples, dimension - options.get("bias", False), 7)
    teacher = Particles(cloud(3, dimension, 8), np.array([0.8, -0.5, 0.7]))
    return x, teacher, two_layer(cube(dimension), "tanh", Samples(x), teacher, **options)


@pytest.mark.parametrize("dimension", [4, 8, 16])
def test_samples_in_many_dimensions_give_the_exact_loss(dimension: int) -> None:
    x, teacher, term = taught(dimension)
    student = Particles.equal(cloud(50, dimension, 9))
    gap = np.tanh(x @ student.points.T) @ student.weights - np.tanh(x @ teacher.points.T) @ teacher.weights
    assert term.value(student) == pytest.approx(0.5 * np.mean(gap**2), rel=1e-13)
    assert term.description == f"all 500 inputs as they are ({dimension} coordinates are too many to compress them), the samples themselves"
    exact = ((1.0 - np.tanh(x @ student.points.T) ** 2) * gap[:, None]).T @ x / len(x)
    np.testing.assert_allclose(term.gradient(student, student.points), exact, rtol=0.0, atol=1e-14)
    np.testing.assert_allclose(term.first_variation(student, student.points), np.tanh(student.points @ x.T) @ gap / len(x), atol=1e-14)


def test_inputs_are_compressed_on_demand_and_where_that_pays() -> None:
    x = cloud(600, 4, 7)
    rough = two_layer(cube(4, 0.5), "tanh", Samples(x), np.sin(x[:, 0]), tolerance=1e-2)
    exact = two_layer(cube(4, 0.5), "tanh", Samples(x), np.sin(x[:, 0]))
    student = Particles.equal(np.clip(cloud(50, 4, 9), -0.5, 0.5))
    assert isinstance(rough.features, InterpolatedFeatures)
    assert rough.features.rank < 300
    assert rough.value(student) == pytest.approx(exact.value(student), rel=1e-2)
    few = two_layer(cube(1), "tanh", Samples(x[:20, :1]), np.ones(20))
    assert isinstance(few.features, SampledFeatures)
    assert few.description.startswith("all 20 inputs as they are (to 1e-12 they have rank ")
    with pytest.raises(ValueError, match="a teacher density needs at most 4 coordinates, got 8; use neurons or data"):
        two_layer(cube(8), "tanh", Samples(cloud(5, 8, 1)), DensityFunction(lambda p: np.ones(len(p)), cube(8)))


@pytest.mark.parametrize("kind", ["data", "teacher", "bias", "compressed", "angle"])
def test_batches_of_single_samples_are_right_in_the_mean(kind: str) -> None:
    x = cloud(90, 2, 7)
    if kind == "angle":
        domain = Domain((Axis("alpha", -np.pi, np.pi, periodic=True),))
        term = two_layer(domain, "tanh", Samples(x), np.sin(x[:, 0]), angle=True)
    elif kind == "data":
        x = cloud(90, 6, 7)
        term = two_layer(cube(6), "tanh", Samples(x), np.sin(x[:, 0]))
    elif kind == "compressed":
        term = two_layer(cube(2, 1.0), "tanh", Samples(x), np.sin(x[:, 0]), tolerance=1e-12)
    else:
        x, _, term = taught(5, 90, bias=kind == "bias")
    dimension = {"data": 6, "compressed": 2, "angle": 1}.get(kind, 5)
    student = Particles.equal(np.clip(cloud(11, dimension, 9), -0.9, 0.9))
    assert term.size == 90
    singles = [term.batch(*term.rows(np.array([k]))) for k in range(90)]
    value = float(np.mean([one.value(student) for one in singles]))
    assert value == pytest.approx(term.value(student), rel=1e-11)
    mean = np.mean([one.gradient(student, student.points) for one in singles], axis=0)
    np.testing.assert_allclose(mean, term.gradient(student, student.points), rtol=0.0, atol=1e-11)
    whole = term.batch(*term.rows(np.arange(90)))
    np.testing.assert_allclose(whole.gradient(student, student.points), mean, rtol=0.0, atol=1e-13)


MOMENTS = {
    "normal": (Normal(1.5), np.eye(2) * 2.25),
    "uniform": (Uniform(2.0), np.eye(2) * 4.0 / 3.0),
    "circle": (Circle(1.3), np.eye(2) * 0.845),
}


@pytest.mark.parametrize("law", MOMENTS)
def test_draws_follow_the_law_and_the_teacher(law: str) -> None:
    inputs, covariance = MOMENTS[law]
    teacher = Particles(np.array([[0.4, -0.5], [0.5, 0.3]]), np.array([1.0, -0.6]))
    term = two_layer(cube(2, 0.5), "softplus", inputs, teacher, tolerance=1e-3)
    x, y = term.draw(np.random.default_rng(0), 40_000)
    again = term.draw(np.random.default_rng(0), 40_000)[0]
    np.testing.assert_array_equal(x, again)
    np.testing.assert_allclose(np.mean(x, axis=0), 0.0, atol=5.0 * np.sqrt(covariance[0, 0] / 40_000))
    np.testing.assert_allclose(x.T @ x / len(x), covariance, atol=0.05)
    np.testing.assert_allclose(y, np.logaddexp(0.0, x @ teacher.points.T) @ teacher.weights, atol=1e-14)
    student = Particles.equal(np.clip(cloud(20, 2, 3), -0.5, 0.5))
    assert term.batch(x, y).value(student) == pytest.approx(term.value(student), rel=0.05)
    assert term.size is None
    with pytest.raises(ValueError, match="only inputs that are samples have rows"):
        term.rows(np.arange(3))


def test_draws_of_samples_are_rows_with_their_data() -> None:
    x = cloud(50, 4, 7)
    term = two_layer(cube(5), "tanh", Samples(x), 10.0 * x[:, 1], bias=True)
    drawn, y = term.draw(np.random.default_rng(1), 5_000)
    np.testing.assert_array_equal(y, 10.0 * drawn[:, 1])
    counts = np.unique(drawn[:, 0], return_counts=True)[1]
    assert len(counts) == 50
    assert np.sum((counts - 100.0) ** 2 / 100.0) < 90.0  # chi-squared with 49 degrees of freedom: 3e-4
    law: InputLaw = Samples(x)
    assert law.sample(np.random.default_rng(1), 7, 4).shape == (7, 4)


def test_targets_of_a_density_are_its_atoms() -> None:
    domain = cube(1)
    teacher = DensityFunction(lambda p: np.exp(-0.5 * p[:, 0] ** 2), domain)
    term = two_layer(domain, "erf", Normal(), teacher)
    x, y = term.draw(np.random.default_rng(0), 1000)
    atoms = teacher.gauss_atoms(2048)
    np.testing.assert_allclose(y, special.erf(x @ atoms.points.T) @ atoms.weights, atol=1e-13)


def test_wrong_batches_are_told() -> None:
    _, _, term = taught(5, bias=True)
    with pytest.raises(ValueError, match=r"inputs \(B, 4\) with B >= 1, got an array of shape \(3, 5\)"):
        term.batch(np.ones((3, 5)), np.ones(3))
    with pytest.raises(ValueError, match="3 inputs need as many targets"):
        term.batch(np.ones((3, 4)), np.ones(2))
    with pytest.raises(ValueError, match="number of inputs must be at least 1, got 0"):
        term.draw(np.random.default_rng(0), 0)
    by_hand = TwoLayer(term.features, term.target, 0.0, "", term.student_at)
    with pytest.raises(ValueError, match="does not know where its inputs come from"):
        by_hand.draw(np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match="are pairs"):
        Circle().sample(np.random.default_rng(0), 3, 5)


def test_a_student_in_eight_dimensions_learns() -> None:
    x = cloud(300, 8, 7)
    teacher = Particles.equal(cloud(4, 8, 8) / np.sqrt(8.0))
    domain = cube(8)
    energy = EnergySum({"network": two_layer(domain, "tanh", Samples(x), teacher)})
    student = Particles.equal(cloud(60, 8, 9) / np.sqrt(8.0))
    run = ParticleFlow(tolerance=1e-7).solve(Problem(energy, domain, student, (0.0, 2.0, 20.0)))
    assert run.status is Status.DONE, run.message
    assert run.certificate.mass_drift() <= 1e-15
    assert run.certificate.energy_rise() <= 1e-12
    print(f"loss {run.total_energy[0]:.3e} -> {run.total_energy[-1]:.3e}")
    assert run.total_energy[-1] < 0.1 * run.total_energy[0]
