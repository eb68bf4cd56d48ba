"""Ensembles of residual networks: against differences, matrix products, two-layer networks, samples and one another."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import alone, bump

from mfpde.arrays import FloatArray
from mfpde.batch import Options, run_cases
from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem
from mfpde.case.describe import describe_terms
from mfpde.domain import Axis, Domain
from mfpde.energy import (
    ACTIVATIONS,
    Circle,
    InputLaw,
    Neurons,
    Normal,
    Samples,
    TwoLayer,
    Uniform,
    ensemble_resnet,
    stationary_residual,
    two_layer,
)
from mfpde.energy.replicas import replicated
from mfpde.energy.resnet import Branch, InterpolatedBranches, SampledBranches
from mfpde.energy.tables import TabulatedFeatures
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import Characteristics, FiniteVolume, MinimizingMovement, ParticleFlow

INPUTS = np.random.default_rng(3).normal(size=(60, 2))


def space(dimension: int, reach: float = 2.0) -> Domain:
    return Domain(tuple(Axis(f"p{k}", -reach, reach) for k in range(dimension)))


def cloud(count: int, dimension: int, seed: int = 0, reach: float = 1.5) -> Particles:
    random = np.random.default_rng(seed)
    return Particles(random.uniform(-reach, reach, (count, dimension)), random.dirichlet(np.ones(count)))


def taught(dimension: int) -> Neurons:
    """Three parameters with weights of both signs."""
    random = np.random.default_rng(8)
    return Neurons(random.uniform(-1.5, 1.5, (3, dimension)), np.array([[0.7], [0.6], [-0.4]]))


def data_model(tolerance: float | None = None) -> TwoLayer:
    y = np.column_stack([np.sin(INPUTS[:, 0]), INPUTS[:, 1] ** 2])
    return ensemble_resnet(space(8), "tanh", Samples(INPUTS), y, dimension=2, tolerance=tolerance)


def line_of_data() -> TwoLayer:
    return ensemble_resnet(space(2), "tanh", Samples(INPUTS[:, :1]), np.cos(3.0 * INPUTS[:, 0]))


MODELS: dict[str, tuple[int, Callable[[], TwoLayer]]] = {
    "one level": (1, lambda: ensemble_resnet(space(1), "tanh", Normal(), taught(1))),
    "two levels": (2, lambda: ensemble_resnet(space(2), "gaussian", Normal(), taught(2))),
    "three levels of softplus": (3, lambda: ensemble_resnet(space(3), "softplus", Uniform(1.5), taught(3))),
    "three levels of relu": (3, lambda: ensemble_resnet(space(3), "relu", Normal(), taught(3))),
    "six levels": (6, lambda: ensemble_resnet(space(6), "tanh", Normal(), taught(6))),
    "one level in the plane": (4, lambda: ensemble_resnet(space(4), "tanh", Normal(), taught(4), dimension=2, tolerance=1e-2)),
    "three levels in the plane": (12, lambda: ensemble_resnet(space(12), "erf", Circle(), taught(12), dimension=2)),
    "two levels in the plane": (8, data_model),
    "one level in space": (9, lambda: ensemble_resnet(space(9), "cos", Samples(np.eye(3)), taught(9), dimension=3)),
    "data on the line": (2, line_of_data),
}


def differences(energy: TwoLayer, atoms: Particles) -> FloatArray:
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


@pytest.mark.parametrize("name", list(MODELS))
def test_gradients_are_differences_of_the_loss_and_of_the_first_variation(name: str) -> None:
    dimension, build = MODELS[name]
    term, atoms = build(), cloud(5, dimension, seed=1)
    exact = differences(term, atoms)
    size = 1.0 + np.max(np.abs(exact))
    print(name, term.description, np.max(np.abs(term.gradient(atoms, atoms.points) - exact)) / size)
    assert term.gradient(atoms, atoms.points) == pytest.approx(exact, abs=1e-7 * size)
    value, slope = term.value_and_gradient(atoms)
    assert value == pytest.approx(term.value(atoms), rel=1e-13)
    assert slope == pytest.approx(term.gradient(atoms, atoms.points), abs=1e-13 * size)
    at, step = cloud(4, dimension, seed=2).points, 1e-5
    for k in range(dimension):
        shift = step * np.eye(dimension)[k]
        rise = (term.first_variation(atoms, at + shift) - term.first_variation(atoms, at - shift)) / (2.0 * step)
        assert term.gradient(atoms, at)[:, k] == pytest.approx(rise, abs=1e-8 * size)
    lam = term.residual(atoms)
    assert term.features.values(at, lam) == pytest.approx(term.first_variation(atoms, at), abs=1e-12 * size)


def by_hand(activation: str, depth: int, dimension: int, parameter: FloatArray, x: FloatArray) -> FloatArray:
    """X^L of one parameter at one input, as the recursion is written."""
    state, theta = x, parameter.reshape(depth, dimension, dimension)
    for level in range(depth):
        state = state + ACTIVATIONS[activation].value(theta[level] @ state) / depth
    return state


@pytest.mark.parametrize(("depth", "dimension"), [(1, 1), (3, 1), (2, 2), (1, 3)])
def test_outputs_follow_the_recursion(depth: int, dimension: int) -> None:
    atoms, inputs = cloud(4, depth * dimension**2), np.random.default_rng(1).normal(size=(7, dimension))
    found = Branch(ACTIVATIONS["tanh"], depth, dimension).outputs(atoms.points, inputs)
    expected = [[by_hand("tanh", depth, dimension, p, x) for x in inputs] for p in atoms.points]
    assert np.swapaxes(found, 1, 2) == pytest.approx(np.array(expected), rel=1e-14)


def test_linear_networks_are_products_of_matrices() -> None:
    """σ = identity: X^L = Π(I + θ^l/L) x, so that E = ½s²|Σ_j w_j M_j − M*|² (Frobenius) for x = s N(0, I)."""
    for depth, dimension in [(4, 1), (2, 2)]:
        axes = depth * dimension**2
        teacher, atoms = taught(axes), cloud(6, axes)
        term = ensemble_resnet(space(axes), "identity", Normal(0.8), teacher, dimension=dimension)

        def matrices(points: FloatArray, depth: int = depth, dimension: int = dimension) -> FloatArray:
            found = np.tile(np.eye(dimension), (len(points), 1, 1))
            for level in range(depth):
                theta = points.reshape(len(points), depth, dimension, dimension)[:, level]
                found = (np.eye(dimension) + theta / depth) @ found
            return found

        gap = np.einsum("n,nij->ij", atoms.weights, matrices(atoms.points))
        gap -= np.einsum("n,nij->ij", teacher.weights[:, 0], matrices(teacher.points))
        assert term.value(atoms) == pytest.approx(0.5 * 0.64 * np.sum(gap**2), rel=1e-10)
        x = np.random.default_rng(0).normal(size=(5, dimension))
        exact = x @ np.einsum("n,nij->ji", atoms.weights, matrices(atoms.points))
        assert term.student_at(atoms, x).reshape(5, dimension) == pytest.approx(exact, rel=1e-13)


def test_one_level_on_the_line_is_a_two_layer_network_with_a_shifted_target() -> None:
    """X¹ = x + σ(θx): for measures of mass one the two-layer energy with target y − x; so its flow, too."""
    x = np.sort(INPUTS[:, 0])
    y = x + np.tanh(1.3 * x) - 0.2 * np.tanh(-0.6 * x)
    residual = ensemble_resnet(space(1), "tanh", Samples(x[:, None]), y)
    plain = two_layer(space(1), "tanh", Samples(x[:, None]), y - x)
    atoms, at = cloud(9, 1), cloud(5, 1, 4).points
    assert residual.value(atoms) == pytest.approx(plain.value(atoms), rel=1e-8)
    assert residual.gradient(atoms, at) == pytest.approx(plain.gradient(atoms, at), abs=1e-9)
    ends = [ParticleFlow(tolerance=1e-10).solve(Problem(alone(term), space(1), atoms, (2.0,))).final.points for term in (residual, plain)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-8)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_loss_on_the_line_is_the_integral_over_the_inputs(activation: str) -> None:
    """Against a trapezoidal sum, which is exact for smooth functions under a normal law and of second order at kinks."""
    term = ensemble_resnet(space(2), activation, Normal(), taught(2))
    atoms, x = cloud(5, 2), np.linspace(-12.0, 12.0, 400_001)
    gap = stationary_residual(term, atoms, x[:, None])
    exact = 0.5 * float(np.sum(gap**2 * np.exp(-0.5 * x**2))) * (x[1] - x[0]) / np.sqrt(2.0 * np.pi)
    print(term.description, term.value(atoms) / exact - 1.0)
    assert term.value(atoms) == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize(("law", "activation", "depth"), [(Normal(0.5), "tanh", 1), (Circle(), "relu", 2), (Uniform(), "softplus", 2)])
def test_the_loss_in_the_plane_is_that_of_many_samples(law: InputLaw, activation: str, depth: int) -> None:
    axes = 4 * depth
    term = ensemble_resnet(space(axes), activation, law, taught(axes), dimension=2)
    atoms, x = cloud(4, axes), law.sample(np.random.default_rng(0), 100_000, 2)
    gap = np.sum(stationary_residual(term, atoms, x) ** 2, axis=1)
    print(term.description)
    assert abs(term.value(atoms) - 0.5 * np.mean(gap)) <= 4.0 * 0.5 * np.std(gap) / np.sqrt(len(x))


@pytest.mark.parametrize("build", [data_model, line_of_data, lambda: data_model(1e-6)])
def test_the_loss_on_data_is_the_mean_over_them_and_batches_are_it_in_the_mean(build: Callable[[], TwoLayer]) -> None:
    term = build()
    dimension = len(term.data[0][0]) if term.data is not None else 0
    atoms = cloud(8, 2 if dimension == 1 else 8)
    x, y = term.rows(np.arange(60))
    gap = (term.student_at(atoms, x) - y).reshape(60, -1)
    assert term.value(atoms) == pytest.approx(0.5 * np.mean(np.sum(gap**2, axis=1)), rel=1e-6)
    assert term.batch(x, y).value(atoms) == pytest.approx(term.value(atoms), rel=1e-6)
    halves = [term.batch(x[part], y[part]).gradient(atoms, atoms.points) for part in (slice(0, 30), slice(30, 60))]
    assert 0.5 * (halves[0] + halves[1]) == pytest.approx(term.gradient(atoms, atoms.points), abs=1e-6)
    assert term.size == 60


def test_replicas_are_single_systems() -> None:
    term, atoms, weights = data_model(), cloud(16, 8), np.full(8, 1.0 / 8.0)
    whole, together = Particles(atoms.points, np.full(16, 1.0 / 16.0)), replicated(alone(term), 2)
    parts = [Particles(points, weights) for points in np.split(atoms.points, 2)]
    assert together.value(whole) == pytest.approx(np.mean([term.value(part) for part in parts]), rel=1e-12)
    single = np.concatenate([term.gradient(part, part.points) for part in parts])
    assert together.gradient(whole, whole.points) == pytest.approx(single, abs=1e-12)


def test_many_networks_take_a_table_whose_gradient_is_that_of_the_features() -> None:
    domain = space(2)
    term = ensemble_resnet(domain, "tanh", Normal(), taught(2))
    many = cloud(40_000, 2)
    tabulated = term.tabulated(domain, 1e-8, 40_000)
    assert isinstance(tabulated.features, TabulatedFeatures)
    assert tabulated.value(many) == pytest.approx(term.value(many), rel=1e-6)
    exact = term.gradient(many, many.points)
    assert tabulated.gradient(many, many.points) == pytest.approx(exact, abs=1e-6 * np.max(np.abs(exact)))


def test_few_features_stand_for_all_inputs_on_the_line() -> None:
    for activation, rank in [("identity", 1), ("relu", 2), ("quadratic", 8)]:
        assert ensemble_resnet(space(3), activation, Normal(), taught(3)).features.rank == rank
    assert isinstance(ensemble_resnet(space(3), "tanh", Normal(), taught(3)).features, InterpolatedBranches)
    assert isinstance(data_model().features, SampledBranches)


def test_a_teacher_has_no_residual_and_even_activations_do_not_tell_its_mirror_images() -> None:
    teacher = Neurons(np.array([[1.5, -1.0]]), np.array([[1.0]]))
    term, x = ensemble_resnet(space(2), "gaussian", Normal(), teacher), np.linspace(-3.0, 3.0, 11)[:, None]
    images = Particles(teacher.points * np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]), np.array([0.1, 0.2, 0.3, 0.4]))
    assert stationary_residual(term, images, x) == pytest.approx(np.zeros(11), abs=1e-15)
    assert term.value(images) <= 1e-20
    assert term.gradient(images, cloud(5, 2).points) == pytest.approx(np.zeros((5, 2)), abs=1e-10)
    with pytest.raises(ValueError, match="needs a teacher"):
        stationary_residual(data_model(), images, x)


def test_a_teacher_density_is_many_networks() -> None:
    domain = space(2)
    density = DensityFunction(bump(0.3, 0.5), domain)
    atoms = density.gauss_atoms(48)
    one = ensemble_resnet(domain, "tanh", Normal(), density)
    two = ensemble_resnet(domain, "tanh", Normal(), Neurons(atoms.points, atoms.weights[:, None]))
    assert one.value(cloud(4, 2)) == pytest.approx(two.value(cloud(4, 2)), rel=1e-6)


def agreeing(problem: Problem, losses: dict[str, tuple[object, float]], exact: float) -> None:
    for name, (solver, allowed) in losses.items():
        run = solver.solve(problem)  # type: ignore[attr-defined]
        gap = abs(float(run.total_energy[-1]) / exact - 1.0)
        print(f"{name}: {gap:.1e} of {exact:.6f}")
        assert run.status is Status.DONE
        assert gap <= allowed


def test_grid_characteristics_minimising_movements_and_particles_agree_on_two_levels() -> None:
    domain, end = space(2, 4.0), 1.0
    term = ensemble_resnet(domain, "tanh", Normal(), Neurons(np.array([[-3.0, 2.0]]), np.ones((1, 1))))
    problem = Problem(alone(term), domain, DensityFunction(bump(0.5), domain), (end,))
    solvers = {
        "grid": (FiniteVolume((64, 64)), 2e-3),
        "jko": (MinimizingMovement(0.1, method="residual", count=600, order=2), 1e-3),
        "particles": (ParticleFlow(count=10_000, start="grid"), 1e-3),
    }
    agreeing(problem, solvers, float(Characteristics((32, 32)).solve(problem).total_energy[-1]))


def test_they_agree_on_one_level_and_three() -> None:
    line, end = space(1, 4.0), 1.0
    term = ensemble_resnet(line, "tanh", Normal(), Neurons(np.array([[-3.0]]), np.ones((1, 1))))
    problem = Problem(alone(term), line, DensityFunction(bump(0.4), line), (end,))
    solvers = {
        "grid": (FiniteVolume((256,)), 1e-3),
        "quantile": (MinimizingMovement(0.05, method="quantile", cells=(256,), order=2), 2e-3),
        "particles": (ParticleFlow(count=2000, start="quantile"), 1e-3),
    }
    agreeing(problem, solvers, float(Characteristics((64,)).solve(problem).total_energy[-1]))
    cube = space(3, 2.5)
    term = ensemble_resnet(cube, "tanh", Normal(), Neurons(np.array([[-2.0, 1.0, 2.0]]), np.ones((1, 1))))
    problem = Problem(alone(term), cube, DensityFunction(bump(0.4), cube), (end,))
    agreeing(
        problem,
        {"grid": (FiniteVolume((24, 24, 24)), 1e-2)},
        float(ParticleFlow(count=27_000, start="grid").solve(problem).total_energy[-1]),
    )


def test_the_loss_of_random_networks_approaches_the_limit_like_the_root_of_n() -> None:
    domain = space(2, 4.0)
    term = ensemble_resnet(domain, "tanh", Normal(), Neurons(np.array([[-3.0, 2.0]]), np.ones((1, 1))))
    problem = Problem(alone(term), domain, DensityFunction(bump(0.5), domain), (0.5,))
    exact = float(Characteristics((16, 16)).solve(problem).total_energy[-1])
    spreads, counts = [], [30, 120, 480]
    for count in counts:
        runs = ParticleFlow(count=count, tolerance=1e-6).ensemble(problem, range(60))
        spreads.append(float(np.sqrt(np.mean([(run.total_energy[-1] - exact) ** 2 for run in runs]))))
    slope = np.polyfit(np.log(counts), np.log(spreads), 1)[0]
    print(f"root mean square loss gaps {spreads}, slope {slope:.2f}")
    assert slope == pytest.approx(-0.5, abs=0.12)


def test_gradient_descent_and_minibatches_train_networks_of_four_levels_in_the_plane() -> None:
    domain = space(16, 3.0)
    y = INPUTS @ np.array([[0.6, -0.9], [0.8, 0.5]])
    term = ensemble_resnet(domain, "tanh", Samples(INPUTS), y, dimension=2)
    problem = Problem(alone(term), domain, cloud(20, 16, reach=0.5), (0.0, 1.0))
    flow = ParticleFlow(tolerance=1e-8).solve(problem)
    descent = ParticleFlow(learning_rate=0.1).solve(problem)
    stochastic = ParticleFlow(learning_rate=0.1, batch=15, epochs=True, seed=1).solve(problem)
    print([run.total_energy.tolist() for run in (flow, descent, stochastic)])
    assert flow.total_energy[-1] < 0.8 * flow.total_energy[0]
    assert descent.total_energy[-1] == pytest.approx(flow.total_energy[-1], rel=1e-3)
    assert stochastic.total_energy[-1] == pytest.approx(flow.total_energy[-1], rel=1e-2)


CASE = """
[domain.theta0]
lower = -3.0
upper = 3.0
[domain.theta1]
lower = -3.0
upper = 3.0
[[energy]]
kind = "ensemble_resnet"
activation = "tanh"
teacher = { neurons = [[1.5, 0.5], [-1.0, 2.0]], weights = [1.5, -0.5] }
[initial]
density = "exp(-8*(theta0**2 + theta1**2))"
[time]
save = [0.0, 0.5]
[[solver]]
kind = "particles"
count = 40
"""


def case_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CASE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "case.toml"
    path.write_text(text)
    return path


def test_a_case_is_built_and_described(tmp_path: Path) -> None:
    case = load_case(case_file(tmp_path), ())
    problem = build_problem(case)
    term = problem.energy.terms["ensemble_resnet"]
    assert isinstance(term, TwoLayer)
    teacher = Neurons(np.array([[1.5, 0.5], [-1.0, 2.0]]), np.array([[1.5], [-0.5]]))
    same = ensemble_resnet(space(2, 3.0), "tanh", Normal(), teacher)
    assert term.value(cloud(5, 2)) == same.value(cloud(5, 2))
    line = dict(describe_terms(case.table.energy, problem.energy))["ensemble_resnet"]
    assert line.startswith("½ E|∫X^L dρ − y|², X⁰ = x, X^{l+1} = X^l + σ(θ^l X^l)/L, σ = tanh, x normal")
    assert "2 residual levels of 1 state" in line


def test_mass_at_walls_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("[domain.theta1]\nlower = -3.0\nupper = 3.0", "[domain.theta1]\nlower = -0.6\nupper = 0.6")
    grid = ('kind = "particles"\ncount = 40', 'kind = "finite_volume"\ncells = [32, 16]')
    later = ("save = [0.0, 0.5]", "save = [0.0, 8.0]")
    teacher = ("weights = [1.5, -0.5]", "weights = [2.0, 1.5]")
    run_cases([case_file(tmp_path, small, grid, later, teacher)], Options(tmp_path / "out", formats=()))
    assert "of the mass lies in the cells at walls" in capsys.readouterr().err


def test_data_in_the_plane_come_from_columns(tmp_path: Path) -> None:
    table = np.column_stack([INPUTS, INPUTS @ np.array([[0.6, -0.9], [0.8, 0.5]])])
    np.savetxt(tmp_path / "data.csv", table, delimiter=",", header="a,b,u,v", comments="")
    axes = "\n".join(f"[domain.p{k}]\nlower = -2.0\nupper = 2.0" for k in range(4))
    text = CASE[CASE.index("[[energy]]") :].replace('density = "exp(-8*(theta0**2 + theta1**2))"', 'law = "normal"\nscale = 0.3')
    teacher = 'dimension = 2\ninputs = { law = "samples", file = "data.csv", columns = ["a", "b"] }\nteacher = { column = ["u", "v"] }'
    text = text.replace("teacher = { neurons = [[1.5, 0.5], [-1.0, 2.0]], weights = [1.5, -0.5] }", teacher)
    path = tmp_path / "case.toml"
    path.write_text(axes + "\n" + text + "learning_rate = 0.5\nbatch = 10\n")
    (outcome,) = run_cases([path], Options(tmp_path / "out", formats=("png",)))
    assert outcome.code == 0
    assert (tmp_path / "out" / "network.png").is_file()
    path.write_text(path.read_text().replace('["u", "v"]', '["u"]'))
    with pytest.raises(InputError, match=r"2 outputs .* but the teacher 1 columns"):
        load_case(path, ())


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[[1.5, 0.5], [-1.0, 2.0]]", "[[1.5], [-1.0]]", "each neuron needs 2 coordinates (theta0, theta1)"),
        ("[1.5, -0.5]", "[[1.5, 1.0], [-0.5, 1.0]]", "one number for each of its networks"),
        ('activation = "tanh"', 'activation = "tanh"\ndimension = 2', "2 x 2 matrix, which needs 4 axes; the domain has 2"),
        ('activation = "tanh"', 'activation = "tanh"\ndimension = 5', "4"),
        ('activation = "tanh"', 'activation = "tanh"\nbias = true', "bias"),
        ('activation = "tanh"', 'activation = "tanh"\ninputs = { law = "circle" }', "inputs on the circle are pairs"),
        ('activation = "tanh"', 'activation = "swish"', "tanh"),
        ("upper = 3.0\n[[energy]]", "upper = 3.0\nperiodic = true\n[[energy]]", "not periodic in their parameters"),
        ("upper = 3.0\n[[energy]]", "upper = 1e300\n[[energy]]", "upper"),
        ("upper = 3.0\n[[energy]]", "upper = 1e29\n[[energy]]", ""),
    ],
)
def test_wrong_input_is_one_message(tmp_path: Path, before: str, after: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        build_problem(load_case(case_file(tmp_path, (before, after)), ()))
    print(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of 4 axes, 4 a level; got 6"):
        ensemble_resnet(space(6), "tanh", Normal(), taught(6), dimension=2)
    with pytest.raises(ValueError, match="overflow on this domain"):
        ensemble_resnet(space(12), "quadratic", Normal(), taught(12))
    with pytest.raises(ValueError, match="take samples, or `count` draws"):
        ensemble_resnet(space(8, 4.0), "relu", Normal(), taught(8), dimension=2)
    with pytest.raises(ValueError, match="parameters of 2 coordinates"):
        ensemble_resnet(space(2), "tanh", Normal(), taught(3))
    with pytest.raises(ValueError, match="activation must be one of"):
        ensemble_resnet(space(2), "swish", Normal(), taught(2))
    with pytest.raises(ValueError, match="60 targets of 1 numbers, for 60 inputs of 2"):
        ensemble_resnet(space(8), "tanh", Samples(INPUTS), INPUTS[:, 0], dimension=2)
