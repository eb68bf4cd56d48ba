"""The faces of every energy agree with each other, with closed forms and with independent quadrature."""

from functools import cache

import numpy as np
import pytest
from conftest import alone, box, line, network
from scipy.stats import norm

from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import ACTIVATIONS, Circle, Entropy, Neurons, Normal, Potential, Samples, TwoLayer, Uniform, two_layer
from mfpde.energy.inputs import Sharpness, with_constant
from mfpde.measure import Density, DensityFunction, Particles


def cloud(count: int, dimension: int, seed: int = 0, reach: float = 1.8) -> Particles:
    generator = np.random.default_rng(seed)
    weights = generator.random(count) + 0.1
    return Particles(generator.uniform(-reach, reach, (count, dimension)), weights / weights.sum())


def brute_force(activation: str, student: Particles, teacher: Particles, scale: float = 1.0) -> float:
    """½ E(f − y)² for one normal input, by a trapezoidal rule of 200,001 points on each half-line."""
    x = np.linspace(0.0, 10.0 * scale, 200_001)
    sigma = ACTIVATIONS[activation].value
    total = 0.0
    for side in (x, -x):
        gap = sum(w * sigma(side * p) for p, w in zip(student.points[:, 0], student.weights, strict=True))
        gap -= sum(w * sigma(side * p) for p, w in zip(teacher.points[:, 0], teacher.weights, strict=True))
        values = gap**2 * np.exp(-0.5 * (side / scale) ** 2) / np.sqrt(2 * np.pi) / scale
        total += np.sum(0.5 * (values[1:] + values[:-1])) * (x[1] - x[0])
    return 0.5 * float(total)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_energy_is_the_population_loss_to_ten_digits(activation):
    student, teacher = cloud(5, 1), Particles(np.array([[1.5], [-0.5]]), np.array([0.7, 0.3]))
    term = two_layer(line(-2.0, 2.0), activation, Normal(1.3), teacher)
    assert term.value(student) == pytest.approx(brute_force(activation, student, teacher, 1.3), abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_derivatives_of_the_activations_are_differences_of_their_values(activation):
    z = np.array([-7.3, -2.0, -0.4, 0.3, 1.1, 6.0])
    sigma = ACTIVATIONS[activation]
    value, slope = sigma.pair(z.copy())
    assert value == pytest.approx(sigma.value(z.copy()), rel=1e-14)
    assert slope == pytest.approx((sigma.value(z + 1e-6) - sigma.value(z - 1e-6)) / 2e-6, abs=1e-8)


LAWS = {"normal": Normal(0.8), "uniform": Uniform(1.5), "circle": Circle(1.2)}
MODELS = [
    *(pytest.param(name, "normal", 1, {}, id=f"{name}-1d") for name in ACTIVATIONS),
    pytest.param("tanh", "uniform", 1, {}, id="uniform-1d"),
    *(pytest.param(name, "normal", 2, {}, id=f"{name}-2d") for name in ("tanh", "softplus", "quadratic", "relu")),
    pytest.param("gelu", "uniform", 2, {}, id="uniform-2d"),
    pytest.param("tanh", "circle", 2, {}, id="circle-2d"),
    pytest.param("relu", "circle", 1, {"angle": True}, id="relu-angle"),
    pytest.param("tanh", "circle", 1, {"angle": True}, id="tanh-angle"),
    pytest.param("tanh", "normal", 2, {"bias": True}, id="tanh-bias"),
    pytest.param("softplus", "normal", 3, {"tolerance": 1e-2}, id="softplus-3d"),
]


@cache
def model(activation: str, law: str, dimension: int, options: tuple) -> tuple[Domain, TwoLayer]:
    domain = line(-2.0, 2.0) if dimension == 1 else box(dimension, -2.0, 2.0)
    return domain, two_layer(domain, activation, LAWS[law], cloud(3, dimension, seed=5), **dict(options))


@pytest.mark.parametrize(("activation", "law", "dimension", "options"), MODELS)
def test_the_gradient_is_the_difference_of_the_first_variation_and_that_of_the_value(activation, law, dimension, options):
    _, term = model(activation, law, dimension, tuple(options.items()))
    student, other = cloud(6, dimension), cloud(4, dimension, seed=2)
    at = cloud(5, dimension, seed=3).points
    for k in range(dimension):
        step = np.zeros(dimension)
        step[k] = 1e-5
        slope = (term.first_variation(student, at + step) - term.first_variation(student, at - step)) / 2e-5
        assert term.gradient(student, at)[:, k] == pytest.approx(slope, abs=2e-8 if activation != "relu" else 1e-6)
    mixed = Particles(np.concatenate([student.points, other.points]), np.concatenate([0.9999 * student.weights, 1e-4 * other.weights]))
    along = other.weights @ term.first_variation(student, other.points) - student.weights @ term.first_variation(student, student.points)
    assert (term.value(mixed) - term.value(student)) / 1e-4 == pytest.approx(along, abs=1e-3 * (1 + abs(along)))


@pytest.mark.parametrize(("activation", "law", "dimension", "options"), MODELS)
def test_a_grid_sees_the_same_energy_as_its_atoms(activation, law, dimension, options):
    domain, term = model(activation, law, dimension, tuple(options.items()))
    grid = Grid(domain, {1: (40,), 2: (12, 10), 3: (5, 4, 6)}[dimension])
    rho = np.random.default_rng(0).random(grid.size)
    density = Density(grid, rho)
    xi = np.zeros(grid.size)
    value = term.on(grid).add_drift(rho, xi)
    assert value == pytest.approx(term.value(density), rel=1e-10, abs=1e-12)
    assert xi == pytest.approx(term.first_variation(density, grid.centers), rel=1e-9, abs=1e-11)


def test_planar_relu_features_are_the_arc_cosine_kernel():
    student, teacher = cloud(20, 2), cloud(3, 2, seed=4)

    def kernel(a, b):
        sizes = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
        angle = np.arccos(np.clip(a @ b.T / sizes, -1, 1))
        return sizes * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)

    points = np.concatenate([student.points, teacher.points])
    signed = np.concatenate([student.weights, -teacher.weights])
    exact = 0.5 * signed @ kernel(points, points) @ signed
    assert two_layer(box(2), "relu", Normal(), teacher).value(student) == pytest.approx(exact, abs=1e-9)


def test_three_inputs_agree_with_the_plane_that_two_neurons_span():
    one, two = np.array([[0.9, -0.3, 0.4]]), np.array([[-0.2, 0.7, 0.5]])
    term = two_layer(box(3, -1.0, 1.0), "softplus", Normal(), Particles.equal(two))
    basis = np.linalg.qr(np.concatenate([one, two]).T)[0]
    line_nodes = np.linspace(-9, 9, 1501)
    x = np.stack([c.ravel() for c in np.meshgrid(line_nodes, line_nodes)], axis=1)
    sigma = ACTIVATIONS["softplus"].value
    gap = sigma(x @ basis.T @ one[0]) - sigma(x @ basis.T @ two[0])
    mass = np.exp(-0.5 * np.sum(x**2, axis=1)) * (line_nodes[1] - line_nodes[0]) ** 2 / (2 * np.pi)
    assert term.value(Particles.equal(one)) == pytest.approx(0.5 * float(mass @ gap**2), rel=1e-3)


def test_samples_give_the_empirical_loss_with_the_part_that_no_network_reaches():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(300, 1)), generator.normal(size=300)
    student = cloud(7, 1)
    exact = 0.5 * np.mean((np.tanh(x @ student.points.T) @ student.weights - y) ** 2)
    term = two_layer(line(), "tanh", Samples(x), y)
    assert term.value(student) == pytest.approx(exact, rel=1e-10)
    assert term.features.rank < 30


def test_a_teacher_density_has_zero_loss_as_a_student():
    domain = line()
    teacher = DensityFunction(lambda p: np.exp(-2 * (p[:, 0] - 1) ** 2), domain)
    assert two_layer(domain, "softplus", Normal(), teacher).value(teacher.gauss_atoms(400)) < 1e-20


def test_compression_reaches_the_tolerance_that_it_states():
    domain = line()
    exact, rough = (two_layer(domain, "tanh", Normal(), cloud(2, 1), tolerance=t) for t in (1e-13, 1e-4))
    assert rough.features.rank < exact.features.rank
    student = cloud(9, 1)
    assert rough.value(student) == pytest.approx(exact.value(student), rel=1e-3)


def test_the_entropy_of_atoms_is_infinite_and_its_gradient_needs_a_density():
    atoms = cloud(3, 1)
    assert Entropy(0.1).value(atoms) == np.inf
    with pytest.raises(TypeError, match="density"):
        Entropy(0.1).gradient(atoms, atoms.points)
    with pytest.raises(ValueError, match="positive"):
        Entropy(-1.0)


def test_the_entropy_of_a_density_and_its_gradient_are_those_of_its_logarithm():
    domain = line()
    density = DensityFunction(lambda p: np.exp(-0.5 * p[:, 0] ** 2), domain).on(Grid(domain, (800,)))
    at = np.array([[-1.005], [0.505], [2.005]])
    assert Entropy(2.0).gradient(density, at) == pytest.approx(-2.0 * at, abs=0.02)
    assert Entropy(1.0).value(density) == pytest.approx(-0.5 * np.log(2 * np.pi * np.e), abs=1e-3)


def test_a_potential_that_is_not_finite_on_the_grid_is_refused():
    term = Potential(lambda p: np.where(p[:, 0] > 0, np.inf, 0.0), lambda p: 0 * p)
    with pytest.raises(ValueError, match="not finite"):
        alone(term).on(Grid(line(), (8,)))


def test_an_unknown_activation_names_the_known_ones():
    with pytest.raises(ValueError, match="tanh, erf"):
        network(line(), "swish")


@pytest.mark.parametrize("activation", ["cos", "tanh", "gaussian"])
def test_steep_neurons_and_wide_inputs_are_resolved(activation):
    domain = line(-20.0, 20.0)
    term = two_layer(domain, activation, Uniform(4.0), Particles(np.array([[7.0], [-3.0]]), np.array([1.3, -0.9])))
    at = np.concatenate([np.linspace(-20, 20, 9), np.linspace(-0.2, 0.2, 8)])
    nodes, weights = np.polynomial.legendre.leggauss(2000)
    values = ACTIVATIONS[activation].value(4.0 * np.outer(nodes, at))
    exact = (values * 0.5 * weights[:, None]).T @ values
    features = term.features.evaluate(at[:, None])
    assert features.T @ features == pytest.approx(exact, abs=1e-9)


def test_the_stated_quadrature_error_is_honest_where_a_kink_moves():
    term = two_layer(box(2, -3.0, 3.0), "softsign", Circle(), cloud(2, 2))
    stated = float(term.description.rsplit(" ", 1)[1])
    assert 1e-10 < stated < 1e-6


def test_rules_for_kinks_have_few_inputs_and_are_accurate() -> None:
    """relu with an offset in the plane, to E|x·v + b|₊² = (b² + |v|²)Φ(b/|v|) + b|v|φ(b/|v|), and without one in space."""
    v, b = np.array([1.2, -0.7]), 0.9
    size = float(np.linalg.norm(v))
    rule = with_constant(Normal().rule(2, Sharpness(0.35, False, True, 1e-10)))
    exact = (b * b + size**2) * norm.cdf(b / size) + b * size * norm.pdf(b / size)
    assert len(rule.weights) < 20_000
    assert rule.weights @ np.maximum(rule.nodes @ np.append(v, b), 0.0) ** 2 == pytest.approx(exact, rel=1e-5)
    rule = Normal().rule(3, Sharpness(0.35, True, True, 1e-6, homogeneous=True))
    one, other = np.array([1.0, 0.4, -0.3]), np.array([0.2, 1.0, 0.7])
    cosine = one @ other / np.sqrt((one @ one) * (other @ other))
    exact = np.sqrt((one @ one) * (other @ other)) * (np.sqrt(1.0 - cosine**2) + (np.pi - np.arccos(cosine)) * cosine) / (2.0 * np.pi)
    assert len(rule.weights) < 20_000
    found = rule.weights @ (np.maximum(rule.nodes @ one, 0.0) * np.maximum(rule.nodes @ other, 0.0))
    assert found == pytest.approx(exact, rel=1e-4)


def test_relu_with_an_offset_in_the_plane_is_built_at_once() -> None:
    domain, teacher = Domain(tuple(Axis(name, -1.0, 1.0) for name in "abc")), Neurons(np.array([[0.5, 0.0, 0.3]]), np.ones((1, 1)))
    offset, plain = (two_layer(domain, "relu", Normal(), teacher, bias=bias, tolerance=0.1).description for bias in (True, False))
    assert "inputs compressed to rank" in offset
    assert "closed" in plain
    assert "closed" not in offset, "for which there is no closed form"
