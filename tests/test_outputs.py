"""Trained output weights, several outputs and closed forms: against differences, closed solutions, quadrature and one another."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import alone, bump
from scipy.integrate import solve_ivp

from mfpde.batch import Options, run_cases
from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem
from mfpde.case.describe import describe_terms
from mfpde.compare import function_distance
from mfpde.domain import Axis, Disk, Domain
from mfpde.energy import ACTIVATIONS, EnergySum, Neurons, Normal, PairNetwork, Samples, TwoLayer, closed_two_layer, two_layer
from mfpde.energy.gaussian_kernels import CLOSED, GaussianKernel
from mfpde.energy.inputs import Sharpness, with_constant
from mfpde.energy.network import GridWeighted
from mfpde.energy.outputs import RowFeatures, WeightedFeatures
from mfpde.energy.potential import weight_decay
from mfpde.energy.replicas import replicated
from mfpde.energy.stencil import heights, slopes
from mfpde.energy.tables import TabulatedFeatures
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import Characteristics, FiniteVolume, MinimizingMovement, ParticleFlow
from mfpde.storage import read_run

TEACHER = Particles(np.array([[1.5], [-0.5]]), np.array([0.7, -0.3]))
PAIR = Particles(np.array([[1.0, 0.4], [-0.5, 0.8]]), np.array([0.7, -0.4]))
BOTH = Neurons(PAIR.points, np.array([[0.7, 0.2], [-0.4, 0.5]]))


def space(dimension: int, reach: float = 2.0) -> Domain:
    return Domain(tuple(Axis(f"p{k}", -reach, reach) for k in range(dimension)))


def cloud(count: int, dimension: int, seed: int = 0, reach: float = 1.5) -> Particles:
    random = np.random.default_rng(seed)
    return Particles(random.uniform(-reach, reach, (count, dimension)), random.dirichlet(np.ones(count)))


def differences(energy: TwoLayer | PairNetwork | EnergySum, atoms: Particles) -> np.ndarray:
    """The loss's derivative along each coordinate of each atom over its weight, by central differences of fourth order."""
    found, step = np.zeros(atoms.points.shape), 2e-3
    for index in np.ndindex(found.shape):
        values = []
        for shift in (-2, -1, 1, 2):
            points = atoms.points.copy()
            points[index] += shift * step
            values.append(energy.value(Particles(points, atoms.weights)))
        found[index] = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * step * atoms.weights[index[0]])
    return found


def data_model(**options: object) -> TwoLayer:
    x = np.random.default_rng(3).normal(size=(120, 1))
    y = np.column_stack([np.sin(x[:, 0]), x[:, 0] ** 2])
    return two_layer(space(4), "tanh", Samples(x), y, bias=True, output="trained", outputs=2)


MODELS: dict[str, tuple[int, object]] = {
    "tanh": (2, lambda: two_layer(space(2), "tanh", Normal(), TEACHER, output="trained")),
    "relu of pairs": (3, lambda: two_layer(space(3), "relu", Normal(), PAIR, output="trained")),
    "tanh with a bias": (3, lambda: two_layer(space(3), "tanh", Normal(), PAIR, output="trained", bias=True)),
    "quadratic in the plane, two weights": (4, lambda: two_layer(space(4), "quadratic", Normal(), BOTH, output="trained", outputs=2)),
    "rows": (4, lambda: two_layer(space(4), "softplus", Normal(), BOTH, outputs=2, tolerance=1e-3)),
    "two columns of data": (4, data_model),
    "closed erf": (3, lambda: closed_two_layer(space(3), "erf", Normal(0.8), PAIR, output="trained")),
    "closed relu, pairs of neurons": (5, lambda: closed_two_layer(space(5), "relu", Normal(), _far(4), output="trained")),
    "closed erf, two outputs of pairs": (6, lambda: closed_two_layer(space(6), "erf", Normal(), _far(4, 2), output="trained", outputs=2)),
    "closed erf, fixed output of pairs": (4, lambda: closed_two_layer(space(4), "erf", Normal(), _far(4))),
    "closed cos with a bias": (3, lambda: closed_two_layer(space(3), "cos", Normal(), PAIR, bias=True, output="trained")),
}


def _far(dimension: int, outputs: int = 1) -> Neurons:
    random = np.random.default_rng(8)
    return Neurons(random.normal(size=(3, dimension)), random.normal(size=(3, outputs)))


@pytest.mark.parametrize("name", list(MODELS))
def test_gradients_are_differences_of_the_loss_and_of_the_first_variation(name: str) -> None:
    dimension, build = MODELS[name]
    term = build()
    atoms = cloud(6, dimension, seed=1)
    exact = differences(term, atoms)
    size = 1.0 + np.max(np.abs(exact))
    assert term.gradient(atoms, atoms.points) == pytest.approx(exact, abs=1e-7 * size)
    value, slope = term.value_and_gradient(atoms)
    assert value == pytest.approx(term.value(atoms), rel=1e-13)
    assert slope == pytest.approx(term.gradient(atoms, atoms.points), abs=1e-13 * size)
    at, step = cloud(4, dimension, seed=2).points, 1e-5
    for k in range(dimension):
        shift = step * np.eye(dimension)[k]
        rise = (term.first_variation(atoms, at + shift) - term.first_variation(atoms, at - shift)) / (2.0 * step)
        assert term.gradient(atoms, at)[:, k] == pytest.approx(rise, abs=1e-8 * size)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_loss_is_that_of_the_networks_as_functions(name: str) -> None:
    dimension, build = MODELS[name]
    term = build()
    one, two = cloud(5, dimension, seed=1), cloud(4, dimension, seed=2)
    width, bias, law = term.examples.width, term.examples.bias, term.examples.law
    if isinstance(law, Samples):
        inputs = np.column_stack([law.points, np.ones(len(law.points))])
        gap = term.student_at(one, inputs) - term.examples.data
        assert term.value(one) == pytest.approx(0.5 * np.sum(gap**2) / len(inputs), rel=1e-6)
        return
    inputs = law.sample(np.random.default_rng(0), 200_000, width)
    inputs = np.column_stack([inputs, np.ones(len(inputs))]) if bias else inputs
    outputs = [found.reshape(len(inputs), -1) for found in (term.student_at(one, inputs), term.student_at(two, inputs))]
    target = term.teacher_at(inputs).reshape(len(inputs), -1)
    assert term.value(one) == pytest.approx(0.5 * np.mean(np.sum((outputs[0] - target) ** 2, axis=1)), rel=0.03)
    assert term.square_gap(one, two) == pytest.approx(np.mean(np.sum((outputs[0] - outputs[1]) ** 2, axis=1)), rel=0.03)


@pytest.mark.parametrize("activation", CLOSED)
@pytest.mark.parametrize("bias", [False, True])
def test_closed_kernels_are_those_of_the_quadrature(activation: str, bias: bool) -> None:
    if bias and activation in ("relu", "erf"):
        with pytest.raises(ValueError, match=f"with a bias .* not for {activation}"):
            GaussianKernel(activation, 0.8, bias)
        return
    one, two = cloud(5, 2 + bias, seed=1).points, cloud(4, 2 + bias, seed=2).points
    kernel = GaussianKernel(activation, 0.8, bias)
    rule = Normal(0.8).rule(2, Sharpness(0.3, False, False, 1e-10, 1))
    rule = with_constant(rule) if bias else rule
    sigma = ACTIVATIONS[activation].value
    expected = (sigma(rule.nodes @ one.T) * rule.weights[:, None]).T @ sigma(rule.nodes @ two.T)
    assert kernel.matrix(one, two) == pytest.approx(expected, abs=1e-11 if activation != "relu" else 2e-4)
    assert kernel.diagonal(one) == pytest.approx(np.diag(kernel.matrix(one, one)), rel=1e-12)


def test_the_arc_cosine_and_the_arcsine_kernel_have_their_known_values() -> None:
    """Cho–Saul 2009, equation (6), for σ = relu; Williams 1997, equation (11), without the bias."""
    right = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    assert GaussianKernel("relu").matrix(right[:1], right)[0] == pytest.approx([0.5, 1.0 / np.pi, 0.0], abs=1e-15)
    assert GaussianKernel("relu").matrix(np.zeros((1, 2)), right)[0] == pytest.approx(np.zeros(3), abs=0.0)
    assert GaussianKernel("erf").matrix(right[:1], right)[0, 0] == pytest.approx(2.0 / np.pi * np.arcsin(2.0 / 3.0), rel=1e-14)


@pytest.mark.parametrize("trained", [False, True])
def test_closed_features_agree_with_quadrature_and_on_grids(trained: bool) -> None:
    domain, options = space(1 + trained), {"output": "trained" if trained else "fixed"}
    closed = closed_two_layer(domain, "erf", Normal(), TEACHER, **options)
    other = two_layer(domain, "erf", Normal(), TEACHER, **options)
    atoms = cloud(7, domain.dimension)
    assert closed.value(atoms) == pytest.approx(other.value(atoms), rel=1e-10)
    assert closed.gradient(atoms, atoms.points) == pytest.approx(other.gradient(atoms, atoms.points), abs=1e-8)
    grid = domain.grid((12,) * domain.dimension)
    rho = DensityFunction(bump(0.7), domain).on(grid)
    assert closed.on(grid).value(np.ravel(rho.values)) == pytest.approx(other.value(rho), rel=1e-10)


def test_pairs_of_neurons_have_a_grid_and_batches_and_are_compared() -> None:
    domain = space(3, 1.0)
    term = closed_two_layer(domain, "relu", Normal(), _far(3))
    assert isinstance(term, PairNetwork)
    grid = domain.grid((6, 6, 6))
    rho = DensityFunction(bump(0.5), domain).on(grid)
    prepared, xi = term.on(grid), np.zeros(grid.size)
    assert prepared.add_drift(np.ravel(rho.values), xi) == pytest.approx(term.value(rho), rel=1e-9)
    assert xi == pytest.approx(term.first_variation(rho, grid.centers), abs=1e-9)
    atoms = cloud(5, 3, reach=0.9)
    batch = term.batch(*term.draw(np.random.default_rng(0), 200_000))
    assert batch.value(atoms) == pytest.approx(term.value(atoms), rel=0.03)
    problem = Problem(alone(term), domain, atoms, (0.2,))
    other = cloud(5, 3, seed=4, reach=0.9)
    assert function_distance(problem, atoms, other) == pytest.approx(np.sqrt(term.square_gap(atoms, other)), rel=1e-12)
    run = ParticleFlow().solve(problem)
    assert run.status is Status.DONE
    assert run.certificate.energy_rise() <= 0.0
    with pytest.raises(ValueError, match=r"pairs of neurons.*quadrature"):
        MinimizingMovement(0.1, method="residual").prepare(problem)


def test_grids_factor_the_output_weights_out() -> None:
    domain = space(2)
    term = two_layer(domain, "tanh", Normal(), TEACHER, output="trained")
    grid = domain.grid((16, 11))
    rho = DensityFunction(bump(0.6), domain).on(grid)
    prepared, values = term.on(grid), np.ravel(rho.values)
    assert isinstance(prepared, GridWeighted)
    xi, quadratic = np.zeros(grid.size), np.zeros(grid.size)
    assert prepared.add_drift(values, xi) == pytest.approx(term.value(rho), rel=1e-13)
    assert xi == pytest.approx(term.first_variation(rho, grid.centers), abs=1e-14)
    prepared.apply(values, quadratic)
    assert quadratic + prepared.linear == pytest.approx(xi, abs=1e-14)
    rows, signs = prepared.factors
    assert rows.T @ (signs * (rows @ rho.weights)) == pytest.approx(quadratic, abs=1e-14)


@pytest.mark.parametrize("rows", [False, True])
def test_tables_are_of_one_output_and_their_gradient_is_that_of_their_loss(rows: bool) -> None:
    domain = space(3 if not rows else 2, 3.0)
    teacher = Neurons(TEACHER.points, np.array([[0.7, 0.1], [-0.3, 0.5]]))
    exact = two_layer(domain, "tanh", Normal(), teacher, outputs=2, output="fixed" if rows else "trained")
    fast = exact.tabulated(domain, 1e-9, 1_000_000)
    assert isinstance(fast.features, RowFeatures if rows else WeightedFeatures)
    assert isinstance(fast.features.inner, TabulatedFeatures)
    assert len(fast.features.inner.cells) == 1
    atoms = cloud(20_000, domain.dimension, reach=3.0)
    one, two = exact.gradient(atoms, atoms.points), fast.gradient(atoms, atoms.points)
    assert np.max(np.abs(one - two)) <= 3e-9 * np.max(np.abs(one))
    assert fast.value(atoms) == pytest.approx(exact.value(atoms), rel=1e-8)
    few = cloud(5, domain.dimension, seed=2)
    assert fast.gradient(few, few.points) == pytest.approx(differences(fast, few), abs=1e-7)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_values_beside_slopes_are_those_of_the_polynomials(dimension: int) -> None:
    random = np.random.default_rng(dimension)
    cells, lower, inverse = np.array([4, 3, 5])[:dimension], np.zeros(dimension), np.array([4.0, 3.0, 5.0])[:dimension]
    table = random.normal(size=(*cells, *(8,) * dimension))
    points = random.random((9000, dimension))
    found = heights(points, table, lower, inverse, cells, together=False)
    assert np.array_equal(found, heights(points, table, lower, inverse, cells, together=True))
    assert found[:, 1:] == pytest.approx(slopes(points, table, lower, inverse, cells, together=False), rel=1e-9, abs=1e-9)
    place = points * inverse
    cell = place.astype(int)
    powers = (2.0 * (place - cell) - 1.0)[:, :, None] ** np.arange(8)
    letters = "abc"[:dimension]
    formula = ",".join(f"m{j}" for j in letters) + f",m{letters}->m"
    exact = np.einsum(formula, *np.moveaxis(powers, 1, 0), table[tuple(cell.T)])
    assert found[:, 0] == pytest.approx(exact, rel=1e-10, abs=1e-10)


def test_many_neurons_take_the_compiled_loops() -> None:
    """So many pairs of a neuron and an input that they do not go through numpy; 400 samples in six dimensions are not compressed."""
    x = np.random.default_rng(0).normal(size=(400, 6))
    term = two_layer(space(7), "gelu", Samples(x), np.sin(x[:, 0]), output="trained")
    many = cloud(2000, 7)
    some = Particles(many.points[:40], many.weights[:40])
    lam = term.residual(many)
    found = term.features.gradient(many.points, lam)
    assert found[:40] == pytest.approx(term.features.gradient(some.points, lam), rel=1e-9, abs=1e-12)
    gap = term.student_at(many, x) - np.sin(x[:, 0])
    assert term.value(many) == pytest.approx(0.5 * np.mean(gap**2), rel=1e-10)
    along = term.features.values(many.points, lam)
    assert along == pytest.approx(lam @ term.features.evaluate(many.points), rel=1e-9, abs=1e-12)


def test_batches_are_the_loss_in_the_mean_and_replicas_are_single_systems() -> None:
    term = data_model()
    atoms = cloud(8, 4)
    assert term.batch(*term.rows(np.arange(120))).value(atoms) == pytest.approx(term.value(atoms), rel=1e-6)
    with pytest.raises(ValueError, match=r"\(3, 2\), got \(3,\)"):
        term.batch(np.zeros((3, 1)), np.zeros(3))
    whole = Particles(np.concatenate([atoms.points, cloud(8, 4, 5).points]), np.concatenate([atoms.weights, atoms.weights]) / 2.0)
    together = replicated(alone(term), 2)
    parts = [Particles(points, atoms.weights) for points in np.split(whole.points, 2)]
    assert together.value(whole) == pytest.approx(np.mean([term.value(part) for part in parts]), rel=1e-12)
    single = np.concatenate([term.gradient(part, part.points) for part in parts])
    assert together.gradient(whole, whole.points) == pytest.approx(single, abs=1e-12)


def test_a_linear_network_follows_its_exact_solution() -> None:
    """σ = identity, one input: θ̇ = −gw, ẇ = −gθ with g = ∫wθ dρ − b. In p = θ + w and q = θ − w, p(t) = p(0)e^G and q(t) = q(0)e^−G with
    Ġ = −g, ∫wθ dρ = (Pe^{2G} − Qe^{−2G})/4, P and Q being the second moments of p and q at the start."""
    target, end, domain = 1.2, 1.5, space(2, 6.0)
    term = two_layer(domain, "identity", Normal(), Particles(np.array([[1.0]]), np.array([target])), output="trained")
    atoms = cloud(9, 2, reach=0.8)
    sums = [float(atoms.weights @ (atoms.points[:, 0] + sign * atoms.points[:, 1]) ** 2) for sign in (1, -1)]

    def rate(_: float, grown: np.ndarray) -> np.ndarray:
        return target - 0.25 * (sums[0] * np.exp(2.0 * grown) - sums[1] * np.exp(-2.0 * grown))

    growth = float(solve_ivp(rate, (0.0, end), [0.0], method="DOP853", rtol=1e-12, atol=1e-13).y[0, -1])
    turned = np.array([[np.cosh(growth), np.sinh(growth)], [np.sinh(growth), np.cosh(growth)]])
    run = ParticleFlow(tolerance=1e-11).solve(Problem(alone(term), domain, atoms, (end,)))
    assert run.final.points == pytest.approx(atoms.points @ turned, abs=1e-9)
    assert run.total_energy[-1] == pytest.approx(0.5 * float(rate(0.0, np.array([growth]))[0]) ** 2, rel=1e-7)
    start = DensityFunction(bump(0.3, 0.2), domain)
    exact = Characteristics((16, 16)).solve(Problem(alone(term), domain, start, (end,)))
    sums[0], sums[1] = 2.0 * 0.09 + 0.16, 2.0 * 0.09
    growth = float(solve_ivp(rate, (0.0, end), [0.0], method="DOP853", rtol=1e-12, atol=1e-13).y[0, -1])
    assert exact.total_energy[-1] == pytest.approx(0.5 * float(rate(0.0, np.array([growth]))[0]) ** 2, rel=1e-7)


@pytest.mark.parametrize(("activation", "outputs"), [("relu", 1), ("relu", 2), ("identity", 1), ("quadratic", 1)])
def test_homogeneous_networks_keep_each_neurons_imbalance(activation: str, outputs: int) -> None:
    domain = space(2 + outputs, 9.0)
    teacher = PAIR if outputs == 1 else BOTH
    term = two_layer(domain, activation, Normal(), teacher, output="trained", outputs=outputs)
    assert term.imbalance is not None
    atoms = cloud(8, 2 + outputs, reach=0.9)
    run = ParticleFlow(tolerance=1e-10).solve(Problem(alone(term), domain, atoms, (0.0, 1.0)))
    before, after = (term.imbalance.of(measure.points) for measure in run.measures)
    print(activation, np.max(np.abs(after - before)))
    assert after == pytest.approx(before, abs=1e-8)
    assert np.max(np.abs(run.final.points - atoms.points)) > 0.1
    decayed = EnergySum({"network": term, "decay": weight_decay(0.3)})
    run = ParticleFlow(tolerance=1e-10).solve(Problem(decayed, domain, atoms, (1.0,)))
    assert term.imbalance.of(run.final.points) == pytest.approx(np.exp(-0.6) * before, abs=1e-8)


def test_characteristics_keep_the_mean_imbalance() -> None:
    domain = space(2, 5.0)
    term = two_layer(domain, "identity", Normal(), Particles(np.array([[1.0]]), np.array([1.0])), output="trained")
    flow = Characteristics((64, 64)).prepare(Problem(alone(term), domain, DensityFunction(bump(0.25, 0.2), domain), (1.0,)))
    state = flow.start()
    first, nodes = flow.nodes(state)[0], None
    before = term.imbalance.of(first.points)
    while state.time < 1.0:
        state = flow.advance(state, 1.0)
    nodes = flow.nodes(state)[0]
    kept = np.linalg.norm(nodes.points - first.points, axis=1) > 0.0
    assert kept.any()
    assert term.imbalance.of(nodes.points) == pytest.approx(before, abs=1e-9)
    assert nodes.weights @ term.imbalance.of(nodes.points) == pytest.approx(first.weights @ before, abs=1e-11)


def test_nothing_is_kept_where_it_need_not_be() -> None:
    held = Domain((Axis("theta", -2.0, 2.0), Axis("w", -2.0, 2.0, frozen=True)))
    assert two_layer(held, "relu", Normal(), TEACHER, output="trained").imbalance is None
    assert two_layer(space(2), "tanh", Normal(), TEACHER, output="trained").imbalance is None
    assert two_layer(space(2), "relu", Normal(), PAIR).imbalance is None


def test_grid_characteristics_minimising_movements_and_particles_agree() -> None:
    domain, end = space(2, 4.0), 1.0
    term = two_layer(domain, "tanh", Normal(), TEACHER, output="trained")
    problem = Problem(alone(term), domain, DensityFunction(bump(0.4), domain), (end,))
    exact = float(Characteristics((32, 32)).solve(problem).total_energy[-1])
    losses = {
        "grid": (FiniteVolume((64, 64)).solve(problem), 1e-2),
        "implicit": (FiniteVolume((32, 32), stepper=_implicit()).solve(problem), 4e-2),
        "jko": (MinimizingMovement(0.1, method="residual", count=600, order=2).solve(problem), 2e-3),
        "particles": (ParticleFlow(count=10_000, start="grid").solve(problem), 2e-3),
    }
    for name, (run, allowed) in losses.items():
        gap = abs(float(run.total_energy[-1]) / exact - 1.0)
        print(f"{name}: {gap:.1e} of {exact:.6f}")
        assert run.status is Status.DONE
        assert gap <= allowed


def _implicit() -> object:
    from mfpde.solvers.finite_volume import Implicit

    return Implicit()


def test_the_loss_of_random_neurons_approaches_the_limit_like_one_over_n() -> None:
    """The mean loss gap of independent draws is O(1/N), so that 16 times more neurons bring it down 16 times."""
    domain = space(2, 4.0)
    term = two_layer(domain, "tanh", Normal(), TEACHER, output="trained")
    problem = Problem(alone(term), domain, DensityFunction(bump(0.4), domain), (0.5,))
    exact = float(Characteristics((16, 16)).solve(problem).total_energy[-1])
    spreads, counts = [], [40, 160, 640]
    for count in counts:
        runs = ParticleFlow(count=count, tolerance=1e-6).ensemble(problem, range(60))
        spreads.append(float(np.sqrt(np.mean([(run.total_energy[-1] - exact) ** 2 for run in runs]))))
    slope = np.polyfit(np.log(counts), np.log(spreads), 1)[0]
    print(f"root mean square loss gaps {spreads}, slope {slope:.2f}")
    assert slope == pytest.approx(-0.5, abs=0.12)


CASE = """
[domain.theta]
lower = -3.0
upper = 3.0
[domain.w]
lower = -3.0
upper = 3.0
[[energy]]
kind = "two_layer"
activation = "relu"
output = "trained"
teacher = { neurons = [[1.0], [-1.0]], weights = [1.0, -0.5] }
[initial]
density = "exp(-8*(theta**2 + w**2))"
[time]
save = [0.0, 0.5]
[[solver]]
kind = "particles"
count = 40
tolerance = 1e-8
"""


def case_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CASE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "case.toml"
    path.write_text(text)
    return path


def test_results_record_the_imbalance_and_info_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mfpde.tables import info_text

    (outcome,) = run_cases([case_file(tmp_path)], Options(tmp_path / "out", formats=()))
    assert outcome.code == 0
    path = tmp_path / "out" / "particles.h5"
    with h5py.File(path) as file:
        each = file["imbalance_two_layer_of_particles"]
        assert each.dims[0][0].name == "/time"
        assert each.dims[1][0].name == "/particle"
        points = file["position"][:]
        assert each[:] == pytest.approx(points[:, :, 0] ** 2 - points[:, :, 1] ** 2, abs=1e-15)
        assert file["imbalance_two_layer"][:] == pytest.approx(np.mean(each[:], axis=1), abs=1e-15)
    stored = read_run(path)
    assert set(stored.run.series) == {"imbalance_two_layer", "imbalance_two_layer_of_particles"}
    assert np.max(np.abs(np.diff(stored.run.series["imbalance_two_layer_of_particles"], axis=0))) <= 1e-7
    assert "imbalance_two_layer: " in info_text(stored)
    assert "of single particles by up to" in info_text(stored)


def test_mass_at_the_walls_of_the_weight_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("[domain.w]\nlower = -3.0\nupper = 3.0", "[domain.w]\nlower = -0.8\nupper = 0.8")
    grid = ('kind = "particles"\ncount = 40\ntolerance = 1e-8', 'kind = "finite_volume"\ncells = [32, 16]')
    later = ("save = [0.0, 0.5]", "save = [0.0, 4.0]")
    run_cases([case_file(tmp_path, small, grid, later)], Options(tmp_path / "out", formats=()))
    assert "of the mass lies in the cells at walls" in capsys.readouterr().err


def test_cases_of_several_outputs_decay_and_closed_forms_are_described(tmp_path: Path) -> None:
    more = ('output = "trained"', 'output = "trained"\ndecay = 0.1\nexpectation = "closed"')
    case = load_case(case_file(tmp_path, more), ())
    problem = build_problem(case)
    lines = dict(describe_terms(case.table.energy, problem.energy))
    assert lines["two_layer"].startswith("½ E|∫wσ(x·θ)dρ − y|² with σ = relu, w the last axis")
    assert lines["two_layer_decay"] == "λ/2 ∫|θ|² + |w|² dρ with λ = 0.1"
    rows = (
        ('output = "trained"', "outputs = 2"),
        ("weights = [1.0, -0.5]", "weights = [[1.0, 0.0], [-0.5, 0.2]]"),
        ('"relu"', '"tanh"'),
    )
    case = load_case(case_file(tmp_path, *rows), ())
    assert "2 outputs with a θ for each" in dict(describe_terms(case.table.energy, build_problem(case).energy))["two_layer"]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[[1.0], [-1.0]]", "[[1.0, 1.0], [-1.0, 1.0]]", "each neuron needs 1 coordinates (theta); its output weights stand in `weights`"),
        ('output = "trained"', 'output = "trained"\noutputs = 2', "2 outputs (`outputs`), but the teacher 1 weights"),
        ("[1.0, -0.5]", "[[1.0, 2.0], [-0.5]]", "equally many `weights`"),
        ("[1.0, -0.5]", '["a", -0.5]', "needs a number, or a list of one for each output"),
        ('output = "trained"', 'output = "learned"', "trained"),
        ('output = "trained"', 'output = "trained"\nbias = true', "at least two axes for each θ, beside output weights"),
        ('output = "trained"', 'output = "trained"\nparameter = "angle"\ndecay = 0.1', "`decay` is of vectors"),
        ('output = "trained"', 'expectation = "closed"\ninputs = { law = "uniform" }', 'is for inputs with law = "normal"'),
        ('activation = "relu"', 'activation = "tanh"\nexpectation = "closed"', "closed form for relu, erf"),
    ],
)
def test_wrong_input_about_outputs_is_one_message(tmp_path: Path, before: str, after: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        build_problem(load_case(case_file(tmp_path, (before, after)), ()))
    print(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_axes_that_do_not_suffice_are_named() -> None:
    with pytest.raises(ValueError, match="at least one before"):
        two_layer(space(1), "tanh", Normal(), TEACHER, output="trained")
    with pytest.raises(ValueError, match="multiple of 2 axes"):
        two_layer(space(3), "tanh", Normal(), BOTH, outputs=2)
    with pytest.raises(ValueError, match="not a disk"):
        two_layer(Disk(("a", "b"), 1.0), "tanh", Normal(), TEACHER, output="trained")
    with pytest.raises(ValueError, match="of 2 outputs, but the network has 1"):
        two_layer(space(2), "tanh", Normal(), BOTH)
