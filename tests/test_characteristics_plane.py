"""Characteristics on two and three axes against closed solutions, a second resolution, particles and finite volumes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import alone, box, bump, interaction, observed_order, quadratic
from scipy.integrate import solve_ivp
from scipy.special import erf

from mfpde.cli import main
from mfpde.disk import Disk
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Normal, Potential, Samples, TwoLayer, two_layer
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import Characteristics, FiniteVolume, ParticleFlow
from mfpde.solvers.characteristics import CharacteristicFlow, CharacteristicState
from mfpde.solvers.characteristics.cells import cell_masses
from mfpde.storage import read_run


def certified(run: Run) -> Run:
    assert run.status is Status.DONE, run.message
    assert run.certificate.mass_drift() <= 1e-13
    assert run.certificate.energy_rise() <= 1e-12
    assert np.min(run.certificate["minimum"]) > -1e-9
    for measure in run.measures:
        assert measure.mass == pytest.approx(1.0, abs=1e-12)
        assert np.min(measure.values) >= 0.0
    return run


def gaussian(cells: int, centre: float, spread: float, lower: float = -4.0, upper: float = 4.0) -> np.ndarray:
    return 0.5 * np.diff(erf((np.linspace(lower, upper, cells + 1) - centre) / (spread * np.sqrt(2.0))))


def product(*masses: np.ndarray) -> np.ndarray:
    result = np.ones(1)
    for one in masses:
        result = np.multiply.outer(result, one).ravel()
    return result


def student(domain: Domain, activation: str, inputs: int = 12) -> TwoLayer:
    """A network on few samples, which are features as they are."""
    samples = Samples(np.random.default_rng(0).standard_normal((inputs, domain.dimension)))
    neurons = np.array([[1.0, 0.5, -0.5], [-0.5, 1.0, 0.5]])[:, : domain.dimension]
    return two_layer(domain, activation, samples, Particles(neurons, np.array([0.7, 0.3])))


def carried(problem: Problem, choices: Characteristics) -> tuple[CharacteristicFlow, CharacteristicState]:
    """The flow and its state at the last time."""
    flow = choices.prepare(problem)
    state = flow.start()
    while state.time < problem.save_at[-1]:
        state = flow.advance(state, problem.save_at[-1])
    return flow, state


@pytest.mark.parametrize("activation", ["tanh", "softplus", "sigmoid"])
def test_losses_of_smooth_networks_in_the_plane_have_eight_digits(activation: str) -> None:
    domain = box(2, -6.0, 6.0)
    problem = Problem(alone(student(domain, activation)), domain, DensityFunction(bump(0.5, 0.2), domain), (0.5, 2.0))
    one = certified(Characteristics((32, 32)).solve(problem))
    two = Characteristics((32, 32), order=20, tolerance=1e-12, resolution=1e-11).solve(problem)
    gap = np.max(np.abs(one.total_energy / two.total_energy - 1.0))
    cells = np.sum(np.abs(one.final.weights - two.final.weights))
    print(f"{activation}: losses {gap:.1e}, cells {cells:.1e}; {one.notes}")
    assert gap <= 1e-8
    assert cells <= 1e-5


def test_the_loss_agrees_with_that_of_lattice_particles() -> None:
    domain = box(2, -6.0, 6.0)
    problem = Problem(alone(student(domain, "tanh")), domain, DensityFunction(bump(0.5, 0.2), domain), (1.0,))
    exact = Characteristics((16, 16)).solve(problem).total_energy[-1]
    counts = [500, 1000, 2000, 4000]
    losses = [ParticleFlow(count=count, start="quantile", tolerance=1e-10).solve(problem).total_energy[-1] for count in counts]
    assert observed_order(counts, np.abs(np.array(losses) - exact)) > 0.6
    assert losses[-1] == pytest.approx(exact, rel=1e-3)


def test_networks_without_activation_translate_the_density() -> None:
    domain, goal, time = box(2), np.array([0.85, 0.65]), 0.7
    energy = two_layer(domain, "identity", Normal(), Particles(np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([0.7, 0.3])))
    run = certified(Characteristics((64, 64)).solve(Problem(alone(energy), domain, DensityFunction(bump(0.4), domain), (time,))))
    mean = goal * (1.0 - np.exp(-time))
    exact = product(gaussian(64, mean[0], 0.4), gaussian(64, mean[1], 0.4))
    assert run.total_energy[-1] == pytest.approx(0.5 * float(goal @ goal) * np.exp(-2.0 * time), rel=1e-9)
    assert np.sum(np.abs(run.final.weights - exact)) <= 1e-6


def test_quadratic_networks_map_the_density_linearly() -> None:
    """With D = ∫θθᵀ(ρ − ρ*) and normal inputs E = ½((tr D)² + 2|D|²) and θ̇ = −2(tr D + 2D)θ."""
    domain, time = box(2, -8.0, 8.0), 0.4
    neurons, weights = np.array([[1.0, 0.5], [-0.5, 1.0]]), np.array([0.7, 0.3])
    goal = (neurons * weights[:, None]).T @ neurons
    start = 0.25 * np.eye(2) + 0.04

    def excess(linear: np.ndarray) -> np.ndarray:
        return linear @ start @ linear.T - goal

    def rate(_: float, flat: np.ndarray) -> np.ndarray:
        linear = flat.reshape(2, 2)
        gap = excess(linear)
        return np.ravel(-2.0 * (np.trace(gap) * np.eye(2) + 2.0 * gap) @ linear)

    linear = solve_ivp(rate, (0.0, time), np.eye(2).ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(2, 2)
    energy = two_layer(domain, "quadratic", Normal(), Particles(neurons, weights))
    problem = Problem(alone(energy), domain, DensityFunction(bump(0.5, 0.2), domain), (time,))
    flow, state = carried(problem, Characteristics((16, 16)))
    gap = excess(linear)
    assert state.energy == pytest.approx(0.5 * (np.trace(gap) ** 2 + 2.0 * np.sum(gap**2)), rel=1e-8)
    nodes, logarithm = flow.nodes(state)
    back = np.linalg.solve(linear, nodes.points.T).T - 0.2
    exact = -2.0 * np.sum(back**2, axis=1) - np.log(0.5 * np.pi) - np.log(np.linalg.det(linear))
    assert np.max(np.abs(logarithm - exact)) <= 1e-7


def test_the_jacobian_gives_the_density_that_the_divergence_does() -> None:
    """d log ρ/dt = Δξ along a node."""
    domain = box(2)
    wave = Potential(
        lambda p: 0.3 * np.sin(p[:, 0]) * np.cos(p[:, 1]),
        lambda p: 0.3 * np.stack([np.cos(p[:, 0]) * np.cos(p[:, 1]), -np.sin(p[:, 0]) * np.sin(p[:, 1])], axis=1),
    )
    start = DensityFunction(bump(0.3, 0.1), domain)
    flow, state = carried(Problem(alone(wave), domain, start, (0.5,)), Characteristics((16, 16)))
    nodes, logarithm = flow.nodes(state)
    picked = np.argsort(-nodes.weights)[:40]
    points = nodes.points[picked]

    def back(_: float, flat: np.ndarray) -> np.ndarray:
        places = flat[:80].reshape(-1, 2)
        return np.concatenate([np.ravel(wave.gradient(nodes, places)), -2.0 * wave.function(places)])

    end = solve_ivp(back, (0.0, 0.5), np.concatenate([points.ravel(), np.zeros(40)]), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    first = np.log(bump(0.3, 0.1)(end[:80].reshape(-1, 2)) / (2.0 * np.pi * 0.09))
    assert np.max(np.abs(logarithm[picked] - (first + end[80:]))) <= 1e-7


@pytest.mark.parametrize(("dimension", "term"), [(2, "potential"), (2, "interaction"), (3, "interaction")])
def test_contraction_is_exact(dimension: int, term: str) -> None:
    domain, cells, time = box(dimension), {2: 96, 3: 12}[dimension], 0.5
    energy = quadratic(1.0) if term == "potential" else interaction(domain, "r**2/2")
    problem = Problem(alone(energy), domain, DensityFunction(bump(0.5, 0.3), domain), (time,))
    run = certified(Characteristics((cells,) * dimension).solve(problem))
    mean = 0.3 if term == "interaction" else 0.3 * np.exp(-time)
    one = gaussian(cells, mean, 0.5 * np.exp(-time))
    error = np.sum(np.abs(run.final.weights - product(*[one] * dimension)))
    inertia = 0.25 if term == "interaction" else 0.25 + 0.09
    print(
        f"{dimension} axes, {term}: cells {error:.1e}, loss {run.total_energy[-1] / (0.5 * dimension * inertia * np.exp(-1.0)) - 1.0:.1e}"
    )
    assert run.total_energy[-1] == pytest.approx(0.5 * dimension * inertia * np.exp(-2.0 * time), rel={2: 1e-9, 3: 1e-8}[dimension])
    assert error <= {2: 1e-7, 3: 1e-5}[dimension]


def test_a_network_on_three_axes_has_six_digits() -> None:
    domain = box(3, -3.0, 3.0)
    problem = Problem(alone(student(domain, "tanh", 8)), domain, DensityFunction(bump(0.5), domain), (0.3,))
    choices = [Characteristics((8, 8, 8), order=order, tolerance=1e-8, resolution=1e-6) for order in (10, 12)]
    losses = [carried(problem, one)[1].energy for one in choices]
    print(f"losses {losses[0] / losses[1] - 1.0:.1e}")
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_cell_masses_are_of_sixth_order() -> None:
    domain = box(2)
    problem = Problem(alone(quadratic(1.0)), domain, DensityFunction(bump(0.5, 0.3), domain), (0.4,))
    flow, state = carried(problem, Characteristics((64, 64)))
    exact = product(*[gaussian(64, 0.3 * np.exp(-0.4), 0.5 * np.exp(-0.4))] * 2)
    fineness = [0.2, 0.25, 0.32, 0.4]
    errors = [np.sum(np.abs(cell_masses(flow._set(state), flow.grid, flow.function, f) - exact)) for f in fineness]
    assert observed_order([round(100 * f) for f in fineness], errors) == pytest.approx(6.0, abs=0.5)


def test_mass_much_narrower_than_a_cell_stays_in_it() -> None:
    domain = box(2)
    problem = Problem(alone(quadratic(1.0, 0.1)), domain, DensityFunction(bump(0.5, 0.1), domain), (6.0,))
    run = certified(Characteristics((20, 20)).solve(problem))
    assert run.final.weights.reshape(20, 20)[10, 10] == pytest.approx(1.0, abs=1e-12)


def test_walls_that_mass_leaves_are_sharp() -> None:
    domain, time = box(2, -1.0, 1.0), 0.5
    start = DensityFunction(lambda p: np.ones(len(p)), domain)
    run = certified(Characteristics((40, 40)).solve(Problem(alone(quadratic()), domain, start, (0.0, time))))
    for time, measure in zip(run.times, run.measures, strict=True):
        one = 0.5 * np.diff(np.clip(np.linspace(-1.0, 1.0, 41) * np.exp(time), -1.0, 1.0))
        assert np.sum(np.abs(measure.weights - product(one, one))) <= 3e-4
    assert not any("wall" in note for note in run.notes)


def test_mass_at_a_wall_is_kept_and_said() -> None:
    domain = box(2, -1.0, 1.0)
    slope = Potential(lambda p: -p[:, 0], lambda p: np.stack([-np.ones(len(p)), np.zeros(len(p))], axis=1))
    run = Characteristics((20, 20)).solve(Problem(alone(slope), domain, DensityFunction(bump(0.4), domain), (0.8,)))
    assert run.status is Status.DONE
    assert run.final.mass == pytest.approx(1.0, abs=1e-12)
    total = erf(1.0 / (0.4 * np.sqrt(2.0)))
    last = 0.5 * (total - erf(0.1 / (0.4 * np.sqrt(2.0)))) / total
    assert np.sum(run.final.weights.reshape(20, 20)[-1]) == pytest.approx(last, abs=1e-2)
    assert any("wall" in note for note in run.notes)


def test_mass_goes_round_periodic_axes() -> None:
    domain, time = Domain((Axis("x", 0.0, 2.0 * np.pi, periodic=True), Axis("y", -4.0, 4.0))), 1.5
    wave = Potential(lambda p: np.cos(p[:, 0]) + 0.5 * p[:, 1] ** 2, lambda p: np.stack([-np.sin(p[:, 0]), p[:, 1]], axis=1))
    start = DensityFunction(lambda p: (1.0 + 0.5 * np.cos(p[:, 0] - 1.0)) * np.exp(-2.0 * (p[:, 1] - 0.3) ** 2), domain)
    run = certified(Characteristics((60, 40)).solve(Problem(alone(wave), domain, start, (time,))))
    edges = np.linspace(0.0, 2.0 * np.pi, 61)
    labels = 2.0 * np.arctan2(np.exp(-time) * np.sin(0.5 * edges), np.cos(0.5 * edges))
    below = (labels + 0.5 * (np.sin(labels - 1.0) + np.sin(1.0))) / (2.0 * np.pi)
    exact = product(np.diff(below), gaussian(40, 0.3 * np.exp(-time), 0.5 * np.exp(-time)))
    assert np.sum(np.abs(run.final.weights - exact)) <= 1e-6


def test_slices_of_a_frozen_axis_keep_their_masses() -> None:
    domain = Domain((Axis("x", -4.0, 4.0), Axis("level", 0.0, 1.0, frozen=True)))
    well = Potential(
        lambda p: 0.5 * (1.0 + p[:, 1]) * p[:, 0] ** 2, lambda p: np.stack([(1.0 + p[:, 1]) * p[:, 0], 0.5 * p[:, 0] ** 2], axis=1)
    )
    start = DensityFunction(lambda p: np.exp(-2.0 * p[:, 0] ** 2) * (1.0 + p[:, 1]), domain)
    run = certified(Characteristics((40, 7)).solve(Problem(alone(well), domain, start, (0.0, 1.0))))
    level = np.linspace(0.0, 1.0, 8)
    for measure in run.measures:
        slices = np.sum(measure.weights.reshape(40, 7), axis=0)
        assert np.max(np.abs(slices - np.diff(level + 0.5 * level**2) / 1.5)) <= 1e-12


def test_panels_gather_at_the_edge_of_a_bump() -> None:
    domain = box(2, -4.5, 4.5)
    edge = DensityFunction(lambda p: np.maximum(1.0 - np.sum(p**2, axis=1) / 4.0, 0.0) ** 3, domain)
    run = certified(Characteristics((30, 30), resolution=1e-8).solve(Problem(alone(quadratic()), domain, edge, (0.5,))))
    assert run.total_energy[-1] == pytest.approx(0.5 * 4.0 / 5.0 * np.exp(-1.0), rel=1e-8)
    assert 20 < int(run.notes[0].split()[0]) < 400


def test_a_density_with_a_jump_across_the_axes_is_refused_or_wanted_loosely() -> None:
    domain = box(2)
    jump = DensityFunction(lambda p: (np.sum(p**2, axis=1) < 4.0) * 1.0, domain)
    with pytest.raises(ValueError, match=r"not resolved by 2048 panels, which leave .* loosen `resolution`"):
        Characteristics((16, 16)).prepare(Problem(alone(quadratic()), domain, jump, (0.5,)))


def test_finite_volumes_converge_to_it() -> None:
    domain = box(2, -3.0, 3.0)
    problem = Problem(alone(student(domain, "tanh")), domain, DensityFunction(bump(0.5), domain), (0.4,))
    exact, errors, sizes = certified(Characteristics((96, 96)).solve(problem)), [], [24, 48, 96]
    for cells in sizes:
        found = FiniteVolume((cells, cells), tolerance=1e-7).solve(problem).final
        wanted = exact.final.weights.reshape(cells, 96 // cells, cells, -1).sum(axis=(1, 3)).ravel()
        errors.append(np.sum(np.abs(found.weights - wanted)))
    assert observed_order(sizes[1:], errors[1:]) == pytest.approx(2.0, abs=0.35)


def test_smooth_kernels_act_and_kinks_are_said() -> None:
    domain = box(2, -3.0, 3.0)
    start = DensityFunction(bump(0.5, 0.3), domain)
    smooth = Problem(alone(interaction(domain, "-exp(-r**2)")), domain, start, (0.1,))
    losses = [Characteristics((8, 8), order=order, resolution=1e-6, tolerance=1e-8).solve(smooth).total_energy[-1] for order in (8, 10)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    kink = Problem(alone(interaction(domain, "exp(-r)")), domain, start, (0.0,))
    assert "has a kink at 0" in Characteristics((8, 8), order=6, resolution=1e-4).solve(kink).notes[-1]


def test_the_step_that_follows_a_checkpoint_is_the_same() -> None:
    domain = box(2, -5.0, 5.0)
    problem = Problem(alone(student(domain, "tanh")), domain, DensityFunction(bump(0.7), domain), (1.0,))
    choices = Characteristics((16, 16), order=10, resolution=1e-6, tolerance=1e-8)
    flow = choices.prepare(problem)
    state = flow.advance(flow.advance(flow.start(), 1.0), 1.0)
    again = choices.prepare(problem)
    kept = again.restore({name: np.copy(v) if isinstance(v, np.ndarray) else v for name, v in vars(state).items()})
    one, two = flow.advance(state, 1.0), again.advance(kept, 1.0)
    assert np.array_equal(one.places, two.places)
    assert (one.time, one.energy, one.error) == (two.time, two.energy, two.error)


@pytest.mark.parametrize(
    ("energy", "domain", "says"),
    [
        (alone(quadratic()), Disk(("x", "y"), 3.0), "for boxes, not disks"),
        (alone(quadratic()), Domain(tuple(Axis(name, -1.0, 1.0) for name in "wxyz")), "for up to 3 axes, the domain has 4"),
        (alone(interaction(box(2), "-log(r)")), box(2), "the kernel of term is infinite at 0"),
    ],
)
def test_problems_without_characteristics_are_refused(energy: EnergySum, domain: Domain, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Characteristics((16,) * domain.dimension).prepare(Problem(energy, domain, DensityFunction(bump(1.0), domain), (1.0,)))


CASE = """title = "A well"

[domain.x]
lower = -3.0
upper = 3.0

[domain.y]
lower = -3.0
upper = 3.0

[[energy]]
kind = "potential"
density = "x**2/2 + y**2/4"

[initial]
density = "exp(-3*(x - 0.5)**2 - 2*y**2)"

[time]
save = [0.0, 0.3]

[[solver]]
kind = "finite_volume"
cells = [24, 24]

[[solver]]
kind = "characteristics"
label = "nodes"
cells = [16, 16]

[study]
reference = "nodes"
kind = "refinement"
solver = "finite_volume"
cells = [[8, 8], [16, 16]]
"""


def test_it_is_the_reference_of_a_study_in_the_plane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "well.toml"
    path.write_text(CASE)
    assert main(["study", str(path), "--output", str(tmp_path / "study"), "--no-figures"]) == 0
    assert "against nodes" in capsys.readouterr().out


def test_runs_in_the_plane_are_stored_as_densities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "well.toml"
    path.write_text(CASE.split("[study]")[0])
    assert main(["run", str(path), "--only", "nodes", "--output", str(tmp_path), "--no-figures"]) == 0
    assert "panels; with 16 and 12 nodes" in capsys.readouterr().out
    stored = read_run(tmp_path / "nodes.h5").run
    assert stored.final.weights.shape == (16 * 16,)
    assert stored.final.mass == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("solver.1.cells=[16]", "needs one number for each of the 2 axes (x, y), got [16]"),
        ("solver.1.order=4", "solver[1].order: must be at least 6, got 4"),
        ("solver.1.resolution=1.0", "solver[1].resolution: must be at most 0.01, got 1.0"),
    ],
)
def test_wrong_choices_are_refused_with_one_message(change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "well.toml"
    path.write_text(CASE)
    assert main(["check", str(path), "--set", change]) == 2
    assert says in capsys.readouterr().err
