"""Wide residual networks: against differences, products of matrices, flows of matrices, two-layer networks and one another."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from conftest import alone
from scipy.linalg import expm

from mfpde.arrays import FloatArray
from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem
from mfpde.case.describe import describe_terms
from mfpde.compare import wasserstein
from mfpde.domain import Axis, Domain
from mfpde.energy import (
    ACTIVATIONS,
    Circle,
    EnergySum,
    Entropy,
    Neurons,
    Normal,
    Samples,
    Uniform,
    WideResNet,
    ensemble_resnet,
    two_layer,
    wide_resnet,
)
from mfpde.energy.curvatures import CURVATURES
from mfpde.energy.wide_resnet import Approximation
from mfpde.energy.wide_resnets import SLABS
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import Characteristics, FiniteVolume, MinimizingMovement, ParticleFlow, Stationary
from mfpde.solvers.finite_volume import Explicit, Implicit, ImplicitEuler
from tests.command import call

Depths = int | Literal["continuous"]
VARIANTS: list[tuple[Depths, Approximation]] = [
    (3, "exact"),
    ("continuous", "exact"),
    (3, "second"),
    ("continuous", "second"),
    (3, "first"),
]
INPUTS = np.random.default_rng(3).normal(size=(12, 2))


def space(dimension: int = 1, reach: float = 3.0) -> Domain:
    axes = [Axis(f"p{k}", -reach, reach) for k in range(dimension**2)]
    return Domain((*axes, Axis("depth", 0.0, 1.0, frozen=True)))


def cloud(count: int, dimension: int = 1, seed: int = 0, reach: float = 1.5) -> Particles:
    random = np.random.default_rng(seed)
    points = random.uniform(-reach, reach, (count, dimension**2 + 1))
    points[:, -1] = random.random(count)
    return Particles(points, random.dirichlet(np.ones(count)))


def sampled(depth: Depths, approximation: Approximation = "exact", dimension: int = 1, activation: str = "tanh") -> WideResNet:
    """On a few samples, where nothing is left to quadrature."""
    law = Samples(INPUTS[:, :dimension])
    return wide_resnet(
        space(dimension), activation, law, cloud(5, dimension, 9), dimension=dimension, depth=depth, approximation=approximation
    )


def slope(function: Any, step: float = 1e-4) -> Any:
    """By central differences of fourth order."""
    near, far = function(step) - function(-step), function(2.0 * step) - function(-2.0 * step)
    return (8.0 * near - far) / (12.0 * step)


@pytest.mark.parametrize(("depth", "approximation"), VARIANTS)
@pytest.mark.parametrize("dimension", [1, 2])
def test_gradients_are_differences_of_the_loss_and_of_the_first_variation(
    depth: Depths, approximation: Approximation, dimension: int
) -> None:
    term, measure, random = sampled(depth, approximation, dimension), cloud(9, dimension), np.random.default_rng(1)
    value, gradient = term.value_and_gradient(measure)
    assert value == term.value(measure)
    assert not gradient[:, -1].any()
    way = random.normal(size=measure.points.shape) * np.append(np.ones(dimension**2), 0.0)
    moved = slope(lambda s: term.value(Particles(measure.points + s * way, measure.weights)))
    assert np.sum(measure.weights[:, None] * gradient * way) == pytest.approx(moved, rel=1e-7)
    weights = random.normal(size=9)
    heavier = slope(lambda s: term.value(Particles(measure.points, measure.weights + s * weights)))
    assert term.first_variation(measure, measure.points) @ weights == pytest.approx(heavier, rel=1e-7)
    at, way = cloud(20, dimension, 4).points, random.normal(size=(20, dimension**2 + 1)) * np.append(np.ones(dimension**2), 0.0)
    along = slope(lambda s: term.first_variation(measure, at + s * way))
    assert np.sum(term.gradient(measure, at) * way, axis=1) == pytest.approx(along, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("name", sorted(CURVATURES))
def test_second_derivatives_are_differences_of_the_first(name: str) -> None:
    z = np.linspace(-2.9, 3.1, 16)
    found = CURVATURES[name](z)
    assert found == pytest.approx(slope(lambda s: ACTIVATIONS[name].pair(z + s)[1]), abs=1e-8)
    assert set(CURVATURES) == set(ACTIVATIONS)


def test_linear_networks_are_products_of_matrices() -> None:
    measure, x = cloud(40, 2), INPUTS
    levels = np.floor(4.0 * measure.points[:, -1])
    blocks = [np.tensordot(measure.weights[levels == k], measure.points[levels == k, :-1], 1).reshape(2, 2) for k in range(4)]
    product = np.eye(2)
    for block in blocks:
        product = (np.eye(2) + block) @ product
    assert sampled(4, dimension=2, activation="identity").output(measure, x) == pytest.approx(x @ product.T, rel=1e-13)
    first = np.eye(2) + sum(blocks)
    assert sampled(4, "first", 2, "identity").output(measure, x) == pytest.approx(x @ first.T, rel=1e-13)
    second = first + sum(blocks[b] @ blocks[a] for a in range(4) for b in range(a + 1, 4))
    assert sampled(4, "second", 2, "identity").output(measure, x) == pytest.approx(x @ second.T, rel=1e-13)


@pytest.mark.parametrize("dimension", [1, 2])
def test_linear_networks_of_continuous_depth_are_flows_of_matrices(dimension: int) -> None:
    """In each slab the matrix exponential, to the fourth order of the Runge–Kutta step."""
    measure, x = cloud(600, dimension), INPUTS[:, :dimension]
    slabs = np.floor(SLABS * measure.points[:, -1])
    flow, second = np.eye(dimension), np.eye(dimension)
    total = np.zeros_like(flow)
    for k in range(SLABS):
        part = np.tensordot(measure.weights[slabs == k], measure.points[slabs == k, :-1], 1).reshape(dimension, dimension)
        flow, second, total = expm(part) @ flow, second + part + part @ total + 0.5 * part @ part, total + part
    exact = np.squeeze(x @ flow.T) if dimension == 1 else x @ flow.T
    assert sampled("continuous", dimension=dimension, activation="identity").output(measure, x) == pytest.approx(exact, abs=1e-8)
    found = sampled("continuous", "second", dimension, "identity").output(measure, x)
    assert found == pytest.approx(np.squeeze(x @ second.T) if dimension == 1 else x @ second.T, rel=1e-12)


def chained(theta: FloatArray, weights: FloatArray, x: FloatArray) -> FloatArray:
    """The flows of dX/ds = wσ(θX) for 0 ≤ s ≤ 1, one after the other: tanh has sinh(θX(s)) = e^{wθs} sinh(θX(0))."""
    for one, weight in zip(theta, weights, strict=True):
        x = np.arcsinh(np.exp(weight * one) * np.sinh(one * x)) / one
    return x


@pytest.mark.parametrize(
    ("theta", "depths", "weights"),
    [([-3.0], [0.3], [1.0]), ([3.0, 1.0], [0.505, 0.53], [0.5, 0.5]), ([3.0, 1.0, -2.0], [0.53, 0.53, 0.505], [0.0, 0.7, 0.3])],
)
def test_heavy_units_of_continuous_depth_are_flows_one_after_the_other(
    theta: list[float], depths: list[float], weights: list[float]
) -> None:
    points, x = np.column_stack([theta, depths]), INPUTS[:, :1]
    order = np.argsort(depths, kind="stable")
    exact = chained(points[order, 0], np.array(weights)[order], x[:, 0])
    assert sampled("continuous").output(Particles(points, np.array(weights)), x) == pytest.approx(exact, abs=5e-6)
    teacher = Particles(points, np.array(weights))
    taught_by = wide_resnet(space(), "tanh", Samples(x), teacher, depth="continuous")
    assert taught_by.target[:, 0] == pytest.approx(exact, abs=5e-6)
    assert taught_by.value(teacher) < 1e-10


def test_grids_of_few_cells_along_a_continuous_depth_are_as_exact_as_those_of_many() -> None:
    density = DensityFunction(lambda p: np.exp(-50.0 * (p[:, 0] + 2.7) ** 2), space())
    coarse, fine = (sampled("continuous").output(density.on(space().grid((64, cells))), INPUTS[:, :1]) for cells in (1, 64))
    assert coarse == pytest.approx(fine, abs=5e-6)


def test_first_variations_between_depths_are_those_of_a_new_unit() -> None:
    term, measure, new = sampled("continuous"), cloud(6), np.array([[1.1, 0.01], [-0.6, 0.511], [2.0, 0.987]])
    joined = np.concatenate([measure.points, new])
    for k, found in enumerate(term.first_variation(measure, new)):
        added = slope(lambda s, k=k: term.value(Particles(joined, np.append(measure.weights, s * np.eye(3)[k]))))
        assert found == pytest.approx(added, rel=1e-6)


def test_slabs_that_hold_much_mass_at_many_depths_are_divided() -> None:
    theta, depths = np.tile([2.0, -1.0], 200), np.linspace(0.5, 0.53, 400)
    exact = chained(theta, np.full(400, 1.0 / 400.0), INPUTS[:, 0])
    narrow = sampled("continuous").output(Particles(np.column_stack([theta, depths]), np.full(400, 1.0 / 400.0)), INPUTS[:, :1])
    turned = np.sort(theta)
    wanted = chained(turned, np.full(400, 1.0 / 400.0), INPUTS[:, 0])
    found = sampled("continuous").output(Particles(np.column_stack([turned, depths]), np.full(400, 1.0 / 400.0)), INPUTS[:, :1])
    assert narrow == pytest.approx(exact, abs=2e-3)
    assert found == pytest.approx(wanted, abs=2e-3)


def test_one_level_is_a_two_layer_network_and_an_ensemble_of_one_level() -> None:
    teacher, measure = Neurons(np.array([[1.2, 0.3], [-0.7, 0.8]]), np.array([[0.6], [0.4]])), cloud(30)
    line = Domain(space().axes[:1])
    flat, plain = Particles(measure.points[:, :1], measure.weights), Neurons(teacher.points[:, :1], teacher.weights)
    others = two_layer(line, "tanh", Normal(), plain), ensemble_resnet(line, "tanh", Normal(), plain)
    for other in others:
        for depth, approximation in ((1, "exact"), (1, "second"), (5, "first"), ("continuous", "first")):
            options: Any = {"depth": depth, "approximation": approximation, "teacher_approximation": approximation}
            term = wide_resnet(space(), "tanh", Normal(), teacher, **options)
            assert term.value(measure) == pytest.approx(other.value(flat), rel=1e-8)
            assert term.gradient(measure, measure.points)[:, :1] == pytest.approx(other.gradient(flat, flat.points), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("depth", [4, "continuous"])
def test_expansions_have_errors_of_second_and_third_order_in_the_radius(depth: Depths) -> None:
    """E⁽¹⁾ and E⁽²⁾ of section 3.2: Observed slopes of sup|X − X⁽ᵏ⁾| and of the loss as the parameters shrink."""
    measure, radii = cloud(40, 2, reach=1.0), 0.4 * 0.5 ** np.arange(5)
    exact = sampled(depth, dimension=2)
    for approximation, order in (("first", 2), ("second", 3)):
        term, gaps = sampled(depth, approximation, 2), []  # type: ignore[arg-type]
        for r in radii:
            shrunk = Particles(np.column_stack([r * measure.points[:, :-1], measure.points[:, -1]]), measure.weights)
            apart = np.max(np.abs(term.output(shrunk, INPUTS) - exact.output(shrunk, INPUTS)))
            gaps.append((apart, abs(term.value(shrunk) - exact.value(shrunk))))
        slopes = np.diff(np.log(gaps), axis=0)[-1] / np.log(0.5)
        print(f"{approximation}: errors {gaps}, orders {slopes}")
        assert slopes == pytest.approx([order, order], abs=0.2)


def test_deep_networks_converge_to_the_continuous_one() -> None:
    """The error of L levels is O(1/L), that of a grid with n cells along the depth O(n⁻²)."""
    domain = space()
    rho = DensityFunction(lambda p: np.exp(-2.0 * (p[:, 0] - 2.0 * p[:, 1] ** 2) ** 2), domain)
    x = INPUTS[:, :1]
    limit = sampled("continuous").output(rho.on(domain.grid((64, 64))), x)
    slow = [np.max(np.abs(sampled(n).output(rho.on(domain.grid((64, n))), x) - limit)) for n in (8, 16)]
    fast = [np.max(np.abs(sampled("continuous").output(rho.on(domain.grid((64, n))), x) - limit)) for n in (8, 16)]
    print(slow, fast)
    assert slow[0] / slow[1] == pytest.approx(2.0, abs=0.1)
    assert fast[0] / fast[1] == pytest.approx(4.2, abs=0.4)


def test_the_first_order_term_alone_sees_only_the_marginal() -> None:
    measure = cloud(30)
    turned = Particles(measure.points * [1.0, -1.0] + [0.0, 1.0], measure.weights)
    assert sampled(3, "first").value(measure) == pytest.approx(sampled(3, "first").value(turned), rel=1e-13)
    for approximation in ("exact", "second"):
        term = sampled(3, approximation)  # type: ignore[arg-type]
        assert abs(term.value(measure) - term.value(turned)) > 1e-5


@pytest.mark.parametrize("law", [Normal(), Uniform(2.0), Normal(0.3)])
def test_quadrature_over_inputs_is_as_accurate_as_it_says(law: Any) -> None:
    term = wide_resnet(space(), "tanh", law, cloud(5, seed=9), depth=4)
    dense, weights = np.polynomial.legendre.leggauss(300)
    if isinstance(law, Normal):
        dense = np.linspace(-9.0, 9.0, 6001)
        weights = np.exp(-0.5 * dense**2)
    dense = law.scale * dense
    measure = cloud(30)
    assert term.teacher_at is not None
    apart = term.output(measure, dense[:, None]) - term.teacher_at(dense[:, None])
    exact = 0.5 * float(apart**2 @ weights / np.sum(weights))
    print(term.description, term.value(measure) / exact - 1.0)
    assert term.value(measure) == pytest.approx(exact, rel=1e-8)
    assert len(term.masses) < 150


def test_several_inputs_are_integrated_too() -> None:
    term = wide_resnet(space(2, 1.0), "tanh", Circle(), cloud(3, 2, 9, 1.0), dimension=2, depth=2)
    angle = 2.0 * np.pi * (np.arange(4000) + 0.5) / 4000
    inputs = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert term.teacher_at is not None
    apart = term.output(cloud(5, 2), inputs) - term.teacher_at(inputs)
    assert term.value(cloud(5, 2)) == pytest.approx(0.5 * float(np.mean(np.sum(apart**2, axis=1))), rel=1e-6)
    assert "error" in wide_resnet(space(2, 0.5), "tanh", Normal(), cloud(3, 2, 9, 0.5), dimension=2, depth=2).description


def test_levels_get_equally_many_atoms_with_the_law_of_the_density() -> None:
    domain = space()
    rho = DensityFunction(lambda p: np.exp(-2.0 * (p[:, 0] - 2.0 * p[:, 1] + 1.0) ** 2), domain)
    for atoms in (rho.quantiles(400), rho.quantiles(400, 4), rho.sample(400, np.random.default_rng(0))):
        level = np.floor(4.0 * atoms.points[:, 1])
        assert np.bincount(level.astype(int)).tolist() == [100] * 4
        means = [float(np.mean(atoms.points[level == k, 0])) for k in range(4)]
        assert means == pytest.approx([-0.75, -0.25, 0.25, 0.75], abs=0.12)
    even = DensityFunction(lambda p: np.ones(len(p)), domain).quantiles(40, 4).points
    assert np.sort(even[even[:, 1] > 0.75, 0]) == pytest.approx(np.linspace(-2.7, 2.7, 10), abs=1e-12)
    grid = rho.grid_atoms(400, 4)
    assert np.bincount(np.floor(4.0 * grid.points[:, 1]).astype(int), weights=grid.weights) == pytest.approx([0.25] * 4, abs=1e-3)


def student(term: WideResNet, until: float, temperature: float = 0.0) -> Problem:
    """From the normal density with deviation 1/2 on every level."""
    terms: dict[str, Any] = {"wide_resnet": term} | ({"entropy": Entropy(temperature)} if temperature else {})
    return Problem(EnergySum(terms), space(), DensityFunction(lambda p: np.exp(-2.0 * p[:, 0] ** 2), space()), (0.0, until))


def taught(depth: Depths = 2, approximation: Approximation = "exact") -> WideResNet:
    """A teacher whose two halves pull and push."""
    teacher = Neurons(np.array([[-2.0, 0.25], [2.5, 0.75]]), np.full((2, 1), 0.5))
    return wide_resnet(space(), "tanh", Samples(np.linspace(-1.5, 1.5, 16)[:, None]), teacher, depth=depth, approximation=approximation)


def gauss_levels(problem: Problem, levels: int) -> Particles:
    """The initial density by Gauss nodes in θ, which are exact to round-off, on every level."""
    assert isinstance(problem.initial, DensityFunction)
    return problem.initial.gauss_atoms((40, levels))


@pytest.mark.parametrize(("depth", "approximation"), VARIANTS)
def test_grids_converge_to_particles(depth: Depths, approximation: Approximation) -> None:
    depth = 2 if depth == 3 else depth
    levels = 2 if depth == 2 else SLABS
    problem = student(taught(depth, approximation), 3.0)
    atoms = gauss_levels(problem, levels)
    exact = ParticleFlow(tolerance=1e-8).solve(Problem(problem.energy, problem.domain, atoms, problem.save_at))
    runs = [FiniteVolume((n, 2)).solve(problem) for n in ((48, 96) if depth == 2 else (48,))]
    wanted = exact.energy["wide_resnet"][-1]
    errors = [abs(run.energy["wide_resnet"][-1] / wanted - 1.0) for run in runs]
    distance = wasserstein(runs[-1].final, exact.final, problem.domain).value
    print(f"{approximation} at depth {depth}: relative errors of the loss {errors}, W2 {distance}")
    assert wanted < 0.8 * exact.energy["wide_resnet"][0]
    assert errors[-1] < 2e-4
    assert distance < 0.02
    for run in runs:
        shares = run.final.weights.reshape(-1, 2).sum(axis=0)
        assert shares == pytest.approx([0.5, 0.5], rel=1e-13)
        assert run.certificate.energy_rise() < 0.0


@pytest.mark.parametrize("approximation", ["exact", "second", "first"])
def test_implicit_steps_with_entropy_are_those_of_explicit_ones(approximation: Approximation) -> None:
    problem = student(taught(2, approximation), 2.0, 0.02)
    runs = [FiniteVolume((48, 2), stepper=stepper).solve(problem) for stepper in (Implicit(), ImplicitEuler(), Explicit())]
    values = [float(run.total_energy[-1]) for run in runs]
    print(values, [len(run.certificate["time"]) for run in runs])
    assert all(run.status is Status.DONE and run.certificate.energy_rise() <= 1e-13 for run in runs)
    assert values[0] == pytest.approx(values[2], abs=1e-6)
    assert values[1] == pytest.approx(values[2], abs=2e-4)
    assert len(runs[0].certificate["time"]) < 0.5 * len(runs[2].certificate["time"])


def test_noise_descent_and_minibatches_run() -> None:
    term = taught()
    noisy = ParticleFlow(count=200, step=0.02, start="quantile").solve(student(term, 1.0, 0.005))
    flow = ParticleFlow(count=200, start="quantile").solve(student(term, 1.0))
    descent = ParticleFlow(count=200, start="quantile", learning_rate=1.0).solve(student(term, 1.0))
    stochastic = ParticleFlow(count=200, start="quantile", learning_rate=1.0, batch=4, epochs=True).solve(student(term, 1.0))
    losses = [float(run.energy["wide_resnet"][-1]) for run in (flow, descent, stochastic, noisy)]
    print(losses)
    assert losses[1:] == pytest.approx([losses[0]] * 3, rel=2e-2)
    assert term.batch(*term.rows(np.arange(16))).value(flow.final) == pytest.approx(term.value(flow.final), rel=1e-12)


@pytest.mark.parametrize("solver", [FiniteVolume((24, 2)), FiniteVolume((24, 2), stepper=Implicit()), ParticleFlow(count=30)])
def test_a_restored_state_goes_on_with_the_same_bits(solver: Any) -> None:
    problem = student(taught(), 1.0)
    flow, again = solver.prepare(problem), solver.prepare(problem)
    state = flow.advance(flow.start(), 1.0)
    values = {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in vars(state).items()}
    one, two = flow.advance(state, 1.0), again.advance(again.restore(values), 1.0)
    assert flow.energies(one) == again.energies(two)
    assert np.array_equal(flow.measure(one).points, again.measure(two).points)
    assert np.array_equal(flow.measure(one).weights, again.measure(two).weights)


CASE = """
[domain.theta]
lower = -4.0
upper = 4.0
[domain.depth]
lower = 0.0
upper = 1.0
frozen = true
[[energy]]
kind = "wide_resnet"
activation = "tanh"
depth = 4
teacher = { neurons = [[-3.0, 0.125], [3.0, 0.875]] }
[initial]
density = "exp(-theta**2)"
[time]
save = [0.0, 0.5]
[[solver]]
kind = "finite_volume"
cells = [24, 4]
[[solver]]
kind = "particles"
count = 40
start = "quantile"
"""


def case_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CASE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "case.toml"
    path.write_text(text)
    return path


def test_a_case_is_built_described_and_run(tmp_path: Path) -> None:
    path = case_file(tmp_path)
    case = load_case(path, ())
    problem = build_problem(case)
    line = dict(describe_terms(case.table.energy, problem.energy))["wide_resnet"]
    assert line.startswith("½ E|X^L − y|², X⁰ = x, X^{ℓ+1} = X^ℓ + ∫σ(θX^ℓ)dρ over level ℓ, σ = tanh, x normal")
    assert "4 levels of mass 1/4 each, 1 state" in line
    assert call("run", path, "--output", tmp_path / "out", "--no-figures").code == 0
    uneven = case_file(tmp_path, ("exp(-theta**2)", "exp(-theta**2)*(1 + depth)"))
    answer = call("run", uneven, "--output", tmp_path / "out", "--no-figures", "--only", "particles")
    assert "levels hold" in answer.err
    assert "times 1/4 of the mass" in answer.err


@pytest.mark.long
def test_a_case_has_figures(tmp_path: Path) -> None:
    assert call("run", case_file(tmp_path), "--output", tmp_path).code == 0
    assert {"density.png", "network.png", "energy.png"} <= {path.name for path in tmp_path.iterdir()}


WRONG = {
    "one axis too few": ("depth = 4", "depth = 4\ndimension = 2", "which with the depth needs 5 axes; the domain has 2"),
    "depth that moves": ("frozen = true", "", "domain.depth: the last axis of a wide_resnet is the depth"),
    "no levels": ("depth = 4", "depth = 0", "energy[0].depth"),
    "no depth": ("depth = 4", "", "depth"),
    "teacher outside": ("[3.0, 0.875]", "[3.0, 1.5]", "must lie in [0, 1]"),
    "teacher of a column": (
        "teacher = { neurons = [[-3.0, 0.125], [3.0, 0.875]] }",
        'inputs = { law = "samples", file = "no.csv", columns = ["x"] }\nteacher = { column = "y" }\nteacher_approximation = "first"',
        "`teacher_approximation` is of a teacher that is a network",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_keys_are_answered_in_one_message(name: str, tmp_path: Path) -> None:
    before, after, message = WRONG[name]
    with pytest.raises(InputError, match="(?s)" + message.replace("[", r"\[")):
        build_problem(load_case(case_file(tmp_path, (before, after)), ()))


def test_solvers_that_do_not_apply_say_so() -> None:
    problem, noisy = student(taught(), 1.0), student(taught(), 1.0, 0.01)
    with pytest.raises(ValueError, match="its cells must be a multiple of 2, got 3"):
        FiniteVolume((24, 3)).prepare(problem)
    with pytest.raises(ValueError, match="falls into levels along the depth"):
        Characteristics((24, 2)).prepare(problem)
    with pytest.raises(ValueError, match="which wide_resnet is not"):
        MinimizingMovement(0.1, "residual", count=20).check(problem)
    with pytest.raises(ValueError, match="wide_resnet is none of these"):
        Stationary((24, 2)).prepare(noisy)
    with pytest.raises(ValueError, match="no gradient in several dimensions"):
        sampled(2, "second", 2, "relu")
    with pytest.raises(ValueError, match="needs 1 axis of θ and a last, frozen axis, the depth; got p0, p1, p2, p3, depth"):
        wide_resnet(space(2), "tanh", Normal(), cloud(3, 2), depth=2)


def test_minimising_movements_of_atoms_agree_with_the_flow() -> None:
    problem = student(taught(), 1.0)
    jko = MinimizingMovement(0.05, "lagrangian", count=60).solve(problem)
    flow = ParticleFlow().solve(Problem(problem.energy, problem.domain, jko.measures[0], problem.save_at))  # type: ignore[arg-type]
    assert jko.status is Status.DONE
    assert jko.energy["wide_resnet"][-1] == pytest.approx(flow.energy["wide_resnet"][-1], rel=2e-2)
    assert wasserstein(jko.final, flow.final, problem.domain).value < 0.01


def test_to_first_order_the_flow_with_entropy_ends_in_the_stationary_state() -> None:
    problem = student(taught(2, "first"), 1e4, 0.02)
    end, still = FiniteVolume((24, 2)).solve(problem), Stationary((24, 2)).solve(problem)
    assert end.total_energy[-1] == pytest.approx(still.total_energy[-1], rel=1e-10)
    assert still.final.weights.reshape(-1, 2).sum(axis=0) == pytest.approx([0.5, 0.5], rel=1e-12)


def test_expansions_of_activations_that_do_not_vanish_at_zero_are_warned_of() -> None:
    assert "since σ(0) = 1 and not 0" in sampled(2, "second", activation="cos").description
    assert "not 0" not in sampled(2, activation="cos").description


def test_one_measure_is_one_energy_on_a_grid() -> None:
    problem = student(taught("continuous"), 1.0)
    assert isinstance(problem.initial, DensityFunction)
    for term in (taught("continuous"), taught("continuous", "second"), taught(2), taught(2, "first")):
        grid = problem.domain.grid((24, 4))
        density, xi = problem.initial.on(grid), np.zeros(grid.size)
        rho: FloatArray = np.ravel(density.values).copy()
        energy = term.on(grid).add_drift(rho, xi)
        assert energy == pytest.approx(term.value(density), rel=1e-12)
        assert xi == pytest.approx(term.first_variation(density, grid.centers), abs=1e-12)
    assert alone(term).layers == 2, "as those of the network itself, so that all flows start alike"
    assert alone(taught(6)).layers == 6


@pytest.mark.long
def test_losses_on_grids_converge_with_order_two() -> None:
    problem = student(taught(), 3.0)
    atoms = Problem(problem.energy, problem.domain, gauss_levels(problem, 2), problem.save_at)
    exact = ParticleFlow(tolerance=1e-11).solve(atoms).energy["wide_resnet"][-1]
    sizes = (96, 192, 384)
    errors = [abs(FiniteVolume((n, 2), tolerance=1e-9).solve(problem).energy["wide_resnet"][-1] - exact) for n in sizes]
    order = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    print(errors, order)
    assert order == pytest.approx(1.9, abs=0.2)


@pytest.mark.long
def test_independent_draws_fluctuate_like_the_root_of_their_number() -> None:
    """N atoms, one in each N-th of the depth: √N times the gap of the loss is of one size."""
    problem = student(taught(), 0.5)
    exact = ParticleFlow().solve(Problem(problem.energy, problem.domain, gauss_levels(problem, 2), problem.save_at)).total_energy[-1]
    spreads = []
    for count in (32, 128, 512):
        runs = ParticleFlow(count=count, tolerance=1e-6).ensemble(problem, range(40))
        spreads.append(float(np.sqrt(np.mean([(run.total_energy[-1] - exact) ** 2 for run in runs]))))
    slope_of = np.polyfit(np.log([32, 128, 512]), np.log(spreads), 1)[0]
    print(spreads, slope_of)
    assert slope_of == pytest.approx(-0.5, abs=0.15)
