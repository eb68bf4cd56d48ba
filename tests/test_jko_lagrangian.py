"""Steps in the positions of atoms: closed forms, the other methods for atoms, walls, circles, frozen axes, kinks, matchings, resuming."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem, build_solver
from mfpde.distance import wasserstein
from mfpde.domain import Axis, Domain
from mfpde.energy import ACTIVATIONS, Circle, Entropy, Neurons, Normal, PairNetwork, Potential, TwoLayer, two_layer
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.inputs import Samples
from mfpde.energy.networks import closed_two_layer
from mfpde.energy.resnet import Branch, SampledBranches
from mfpde.energy.wide_resnets import wide_resnet
from mfpde.march import state_values
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Run, Status
from mfpde.solvers import MinimizingMovement, ParticleFlow
from mfpde.solvers.jko.matching import Matching
from mfpde.solvers.jko.positions import Objective
from mfpde.solvers.jko.start import first_atoms
from mfpde.study.time_step import ALLOWANCES, time_step_study
from tests.conftest import alone, box, bump, interaction, line, network, quadratic

TAU = 0.3
NEURONS = ((1.5, 0.5), (-0.5, 1.0))


@cache
def student(dimension: int) -> tuple[Domain, TwoLayer]:
    domain = box(dimension, -2.0, 2.0)
    return domain, network(domain, neurons=[n[:dimension] for n in NEURONS])


def atoms(dimension: int, count: int = 12, seed: int = 0, reach: float = 2.0) -> Particles:
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.5, 1.5, count)
    return Particles(generator.uniform(-reach, reach, (count, dimension)), weights / np.sum(weights))


def space(dimension: int, reach: float = 4.0) -> Domain:
    return Domain(tuple(Axis(name, -reach, reach) for name in "rstuvwxyz"[:dimension]))


def solved(term: Energy | EnergySum, domain: Domain, start: Particles, tau: float = TAU, end: float | None = None, order: int = 1) -> Run:
    """A run that keeps its certificates: every step lowers the energy by W₂²/(2τ), and is optimal transport as far as the notes say."""
    energy = term if isinstance(term, EnergySum) else alone(term)
    run = MinimizingMovement(tau, "lagrangian", order=order).solve(Problem(energy, domain, start, (end or tau,)))
    assert run.status is Status.DONE, run.message
    if order == 1:
        assert np.max(run.certificate["balance"]) <= 1e-14
    return run


def places(run: Run) -> np.ndarray:
    assert isinstance(run.final, Particles)
    return run.final.points


def left(term: Energy, start: Particles, found: np.ndarray, tau: float) -> np.ndarray:
    """(x − y)/τ + ∇ξ(x)."""
    return np.asarray((found - start.points) / tau + term.gradient(Particles(found, start.weights), found))


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("order", [1, 2])
def test_networks_are_moved_as_by_the_dual_problem(dimension: int, order: int) -> None:
    domain, term = student(dimension)
    terms: dict[str, Energy] = {"network": term, "well": quadratic(0.3, 1.0)}
    problem = Problem(EnergySum(terms), domain, atoms(dimension), (1.0,))
    one, other = (MinimizingMovement(0.25, method, order=order).solve(problem) for method in ("lagrangian", "residual"))  # type: ignore[arg-type]
    np.testing.assert_allclose(places(one), places(other), atol=1e-8)
    np.testing.assert_allclose(one.certificate["balance"], other.certificate["balance"], atol=1e-9)
    np.testing.assert_allclose(one.certificate["dissipation"], other.certificate["dissipation"], rtol=1e-7)
    assert any(note.startswith("every step moved its atoms as optimal transport does") for note in one.notes)


@pytest.mark.parametrize("dimension", [1, 3, 6])
def test_a_quadratic_potential_contracts(dimension: int) -> None:
    start = atoms(dimension)
    np.testing.assert_allclose(places(solved(quadratic(), space(dimension), start)), start.points / (1.0 + TAU), rtol=1e-9)


def test_attraction_by_squares_contracts_to_the_mean() -> None:
    """W = r²/2: x − m falls by 1 + τ in a step, and so does √E twice."""
    domain, start = box(2), atoms(2)
    run = solved(interaction(domain, "r**2/2"), domain, start, end=3.0 * TAU)
    mean = start.weights @ start.points
    np.testing.assert_allclose(places(run), mean + (start.points - mean) / (1.0 + TAU) ** 3, atol=1e-9)
    assert run.total_energy[-1] == pytest.approx(run.certificate["energy"][0] / (1.0 + TAU) ** 6, rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_the_order_in_tau_is_that_of_the_steps(order: int) -> None:
    """Against the ordinary differential equation of the same atoms."""
    domain, term = student(2)
    problem = Problem(alone(term), domain, atoms(2), (1.0,))
    exact = ParticleFlow(tolerance=1e-12).solve(problem)
    study = time_step_study(problem, MinimizingMovement(1.0, "lagrangian", order=order), (0.1, 0.05, 0.025), reference=exact)
    assert study.other is not None
    assert study.other.norms == ("w2", "loss")
    np.testing.assert_allclose(study.other.order, order, atol=ALLOWANCES[order])


def test_step_doubling_meets_its_tolerance_and_the_saved_times() -> None:
    problem = Problem(alone(quadratic()), space(2), atoms(2), (0.0, 0.35, 1.0))
    run = MinimizingMovement(0.5, "lagrangian", order=2, tolerance=1e-4).solve(problem)
    assert run.status is Status.DONE
    assert list(run.times) == [0.0, 0.35, 1.0]
    assert len(np.unique(np.round(run.certificate["dt"], 9))) > 3
    np.testing.assert_allclose(places(run), atoms(2).points * np.exp(-1.0), atol=3e-3)


def test_an_ensemble_of_residual_networks_may_have_many_features() -> None:
    generator = np.random.default_rng(3)
    inputs, domain, start = generator.normal(size=(1100, 2)), space(8, 2.0), atoms(8, 10, reach=1.0)
    features = SampledBranches(Branch(ACTIVATIONS["tanh"], 2, 2), inputs, np.full(1100, 1100**-0.5), "as they are")
    term = TwoLayer(features, generator.normal(size=2200) * 1100**-0.5, 0.0, "", lambda _, x: x)
    run = MinimizingMovement(TAU).solve(Problem(alone(term), domain, start, (TAU,)))
    assert "method lagrangian" in run.notes[0]
    assert np.max(np.abs(left(term, start, places(run), TAU))) < 1e-8


def test_networks_in_closed_form_move_in_space() -> None:
    domain = space(3)
    term = closed_two_layer(domain, "relu", Normal(), Particles(np.array([[1.0, 0.5, -0.5]]), np.ones(1)))
    assert isinstance(term, PairNetwork)
    start = atoms(3, 15)
    problem = Problem(alone(term), domain, start, (2.0 * TAU,))
    run = MinimizingMovement(TAU).solve(problem)
    assert "method lagrangian: without `cells`" in run.notes[0]
    assert run.status is Status.DONE
    assert np.max(run.certificate["balance"]) <= 1e-14
    assert np.max(np.abs(left(term, start, places(solved(term, domain, start)), TAU))) < 1e-9


def test_atoms_stop_at_walls_and_frozen_axes_do_not_move() -> None:
    domain = Domain((Axis("x", -2.0, 2.0), Axis("y", -2.0, 2.0, frozen=True)))
    push = Potential(lambda p: -5.0 * p[:, 0] - p[:, 1], lambda p: np.broadcast_to([-5.0, -1.0], p.shape).astype(float))
    start = atoms(2)
    found = places(solved(push, domain, start))
    np.testing.assert_allclose(found[:, 0], np.minimum(start.points[:, 0] + 5.0 * TAU, 2.0), atol=1e-10)
    np.testing.assert_array_equal(found[:, 1], start.points[:, 1])


def test_networks_at_walls_meet_the_conditions_of_karush_kuhn_and_tucker() -> None:
    domain = box(2, -1.0, 1.0)
    term = network(domain, neurons=[[3.0, 2.0]])
    start = DensityFunction(lambda p: np.ones(len(p)), domain).quantiles(60)
    found = places(solved(term, domain, start, 2.0))
    rest, high = left(term, start, found, 2.0), found >= 1.0
    assert high[:, 0].any()
    assert np.max(rest[high]) < 1e-9
    assert np.max(np.abs(rest[~high & (found > -1.0)])) < 1e-9


def test_angles_go_round_the_circle() -> None:
    domain = line(-np.pi, np.pi, periodic=True)
    term = two_layer(domain, "tanh", Circle(), Particles(np.array([[3.0]]), np.array([1.0])), angle=True)
    start = Particles(np.array([[-2.8], [2.9]]), np.array([0.5, 0.5]))
    run = solved(term, domain, start, 1.0, 100.0, order=2)
    assert domain.contains(places(run)).all()
    assert run.total_energy[-1] < 1e-2 * run.certificate["energy"][0]
    assert any("optimal transport" in note and "potentials on all pairs" in note for note in run.notes)


def trained() -> Problem:
    """relu with trained outputs, whose first variation has a kink at θ = 0."""
    domain = Domain((Axis("theta", -5.0, 5.0), Axis("w", -5.0, 5.0)))
    teacher = Neurons(np.array([[1.0], [-1.0]]), np.array([[1.0], [-0.5]]))
    term = two_layer(domain, "relu", Normal(), teacher, output="trained")
    return Problem(alone(term), domain, DensityFunction(bump(0.5), domain), (0.5, 1.0))


def test_atoms_that_run_into_kinks_stay_on_them_as_long_as_both_sides_push() -> None:
    """A step's minimiser has no descent to any side, at kinks as elsewhere."""
    run = MinimizingMovement(0.1, "lagrangian", count=500).solve(trained())
    assert run.status is Status.DONE, run.message
    assert np.max(run.certificate["balance"]) <= 1e-14
    print(run.notes, np.mean(run.certificate["iterations"]))
    assert any("held to kinks" in note for note in run.notes)
    assert not any("kept some steps" in note for note in run.notes)
    (words,) = (note for note in run.notes if "optimality residual" in note)
    assert float(words.split()[-1]) < 1e-8


def test_atoms_that_start_on_a_kink_leave_it_to_the_lower_side() -> None:
    """V = −|x|, and a slope that jumps from −1 to −2, with gradients at 0 between those of both sides."""
    ridge = Potential(lambda p: -np.abs(p[:, 0]), lambda p: -np.sign(p))
    bend = Potential(lambda p: -1.5 * p[:, 0] - 0.5 * np.abs(p[:, 0]), lambda p: -1.5 - 0.5 * np.sign(p))
    start = Particles.equal(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(places(solved(ridge, line(), start)), [[TAU], [1.0 + TAU]], atol=1e-9)
    np.testing.assert_allclose(places(solved(bend, line(), start)), [[2.0 * TAU], [1.0 + 2.0 * TAU]], atol=1e-9)


def test_an_atom_slides_along_a_kink_and_leaves_it_where_one_side_lets_go() -> None:
    """V = |x|(1 − y) − y: at x = 0 the atom moves along y until 1 < y, where |x| pushes it off."""
    well = Potential(
        lambda p: np.abs(p[:, 0]) * (1.0 - p[:, 1]) - p[:, 1],
        lambda p: np.stack([np.sign(p[:, 0]) * (1.0 - p[:, 1]), -np.abs(p[:, 0]) - 1.0], axis=1),
    )
    start = Particles(np.array([[0.05, 0.0], [-1.0, -1.0]]), np.array([0.5, 0.5]))
    half = solved(well, box(2), start, 0.1, 0.7)
    np.testing.assert_allclose(places(half)[0], [0.0, 0.7], atol=0.01)
    one = solved(well, box(2), Particles(np.array([[0.05, 0.0]]), np.ones(1)), 0.1, 0.1)
    np.testing.assert_allclose(places(one)[0], [0.0, 0.1], atol=1e-9)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("dimension", [1, 2])
def test_matchings_that_are_not_optimal_are_told(dimension: int, periodic: bool) -> None:
    """Neighbours that change places, and atoms that do not."""
    domain = Domain(tuple(Axis(name, -2.0, 2.0, periodic) for name in "xy"[:dimension]))
    objective, start = Objective(alone(quadratic()), domain, np.full(40, 1.0 / 40.0)), atoms(dimension, 40).points
    matching = Matching(objective, start)
    swapped = start.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    for end, share in ((swapped, 1.0), (1.3 * start[::-1], None), (start / 1.5, 0.0)):
        moved = objective.squared(end - start)
        exact = wasserstein(objective.measure(start), objective.measure(end), domain, method="exact").value ** 2
        found = matching.judge(end, start, 0.5)
        assert found.known == pytest.approx(1.0 - exact / moved, abs=1e-7)
        assert share is None or found.known == pytest.approx(share, abs=1e-9)
    scheme = MinimizingMovement(TAU, "lagrangian").prepare(Problem(alone(quadratic()), domain, Particles.equal(start), (1.0,))).scheme
    assert any(note.startswith(WARNING) and "longer than W2" in note for note in scheme.notes_of(np.array([0.0, 0.2, *[0.0] * 6])))


@pytest.mark.parametrize("count", [300, 1000])
def test_certified_matchings_are_those_of_exact_transport(count: int) -> None:
    domain, term = student(2)
    start = Particles.equal(atoms(2, count).points)
    run = solved(term, domain, start)
    assert any(note.startswith("every step moved its atoms as optimal transport does") for note in run.notes)
    moved = float(start.weights @ np.sum((places(run) - start.points) ** 2, axis=1))
    assert moved == pytest.approx(wasserstein(start, run.measures[-1], domain, method="exact").value ** 2, rel=1e-7)


def test_repulsion_that_is_infinite_at_zero_leaves_the_atoms_themselves_out() -> None:
    """W = −log r with a quadratic well: two atoms of mass ½ come to rest √½ apart."""
    domain = line()
    terms: dict[str, Energy] = {"gas": interaction(domain, "-log(r)"), "well": quadratic()}
    run = solved(EnergySum(terms), domain, Particles(np.array([[-0.1], [1.0]]), np.array([0.5, 0.5])), 0.5, 40.0)
    assert np.ptp(places(run)) == pytest.approx(1.0, abs=1e-6)


def test_atoms_that_attract_with_a_kink_meet_and_stay_together() -> None:
    """W = r: atoms of mass m and 1 − m come nearer by τ a step; three of them, of which two have met, by their masses."""
    domain = box(2)
    start = Particles(np.array([[-0.25, 0.0], [0.5, 0.0], [0.5, 1.9]]), np.array([0.2, 0.3, 0.5]))
    two = Particles(start.points[:2], np.array([0.4, 0.6]))
    term = interaction(domain, "r")
    np.testing.assert_allclose(places(solved(term, domain, two, 0.2))[:, 0], [-0.25 + 0.6 * 0.2, 0.5 - 0.4 * 0.2], atol=1e-9)
    run = solved(term, domain, two, 0.2, 1.0)
    np.testing.assert_allclose(places(run), [[0.2, 0.0]] * 2, atol=1e-9)
    assert any("2 atoms have met others" in note for note in run.notes)
    met = places(solved(term, domain, start, 0.25, 2.0))
    np.testing.assert_array_equal(met[0], met[1])
    run = solved(term, domain, start, 0.25, 6.0)
    np.testing.assert_allclose(places(run), [start.weights @ start.points] * 3, atol=1e-8)
    assert run.total_energy[-1] < 1e-8
    assert not any("kept some steps" in note for note in run.notes)


def tilted(dimension: int) -> Potential:
    """V = (x² − 1)² + x/2, and y² in the plane: two wells, of which the left one is deeper."""

    def slope(p: np.ndarray) -> np.ndarray:
        return np.concatenate([4.0 * p[:, :1] * (p[:, :1] ** 2 - 1.0) + 0.5, 2.0 * p[:, 1:]], axis=1)

    return Potential(lambda p: (p[:, 0] ** 2 - 1.0) ** 2 + 0.5 * p[:, 0] + np.sum(p[:, 1:] ** 2, axis=1), slope)


@pytest.mark.parametrize(("dimension", "tau"), [(1, 3.0), (2, 10.0)])
def test_long_steps_end_in_the_deeper_well(dimension: int, tau: float) -> None:
    """Proximal points of each atom are the least of a fine grid; the notes say that they need not be the only ones."""
    start = Particles(np.array([[1.0, 0.2], [-1.0, 0.1]])[:, :dimension], np.array([0.4, 0.6]))
    run = solved(tilted(dimension), space(dimension, 3.0), start, tau)
    grid = np.linspace(-3.0, 3.0, 60001)
    cost = (grid**2 - 1.0) ** 2 + 0.5 * grid + (grid - start.points[:, :1]) ** 2 / (2.0 * tau)
    np.testing.assert_allclose(places(run)[:, 0], grid[np.argmin(cost, axis=1)], atol=1e-4)
    assert any("below -1" in note and "no better ones were found" in note for note in run.notes)
    short = solved(tilted(dimension), space(dimension, 3.0), start, 0.05)
    assert any("minimisers are unique as far as" in note for note in short.notes)


def test_long_steps_of_atoms_that_interact_are_the_least_among_pairs_of_places() -> None:
    domain, tau = line(-3.0, 3.0), 3.0
    energy = EnergySum({"wells": tilted(1), "pair": interaction(domain, "0.3*r**2")})
    start = Particles(np.array([[0.9], [1.1]]), np.array([0.5, 0.5]))
    found = places(solved(energy, domain, start, tau))[:, 0]
    grid = np.linspace(-3.0, 3.0, 1201)
    cost = [0.5 * ((grid**2 - 1.0) ** 2 + 0.5 * grid + (grid - y) ** 2 / (2.0 * tau)) for y in start.points[:, 0]]
    whole = cost[0][:, None] + cost[1] + 0.5 * 0.25 * 2.0 * 0.3 * (grid[:, None] - grid) ** 2
    np.testing.assert_allclose(found, grid[list(np.unravel_index(np.argmin(whole), whole.shape))], atol=6e-3)


def test_places_that_are_left_open_are_warned_of() -> None:
    scheme = MinimizingMovement(TAU, "lagrangian").prepare(Problem(alone(quadratic()), box(1), atoms(1), (1.0,))).scheme
    assert any(note.startswith(WARNING) and "2.0e-01" in note for note in scheme.notes_of(np.array([*[0.0] * 6, 1.0, 0.2])))


def test_groups_of_atoms_that_have_met_stay_on_kinks_and_slide_along_them() -> None:
    """W = r with V = |x − 0.3| + 0.4x² − 0.2x, which holds all of them, and with V = 2|x| − y/2, which carries them along y."""
    hold = Potential(lambda p: np.abs(p[:, 0] - 0.3) + 0.4 * p[:, 0] ** 2 - 0.2 * p[:, 0], lambda p: np.sign(p - 0.3) + 0.8 * p - 0.2)
    start = Particles(np.array([[-1.0], [0.5], [1.2]]), np.full(3, 1.0 / 3.0))
    run = solved(EnergySum({"pair": interaction(line(), "r"), "hold": hold}), line(), start, 0.2, 1.8)
    np.testing.assert_allclose(places(run), 0.3, atol=1e-9)
    groove = Potential(
        lambda p: 2.0 * np.abs(p[:, 0]) - 0.5 * p[:, 1], lambda p: np.stack([2.0 * np.sign(p[:, 0]), np.full(len(p), -0.5)], axis=1)
    )
    start = Particles(np.array([[0.4, -1.0], [0.45, -1.1], [-0.3, -1.05]]), np.full(3, 1.0 / 3.0))
    run = solved(EnergySum({"pair": interaction(box(2), "r"), "groove": groove}), box(2), start, 0.3, 0.9)
    np.testing.assert_allclose(places(run), [[0.0, -0.6]] * 3, atol=1e-9)


def test_atoms_on_a_kink_that_attract_and_are_pulled_away_together_leave_it_together() -> None:
    """Alone neither gains by leaving the third; the step is compared with the best of those that leave them where they are pulled."""
    well = Potential(lambda p: np.abs(p[:, 0] - 0.3) + 0.4 * p[:, 0] ** 2, lambda p: np.sign(p - 0.3) + 0.8 * p)
    weights = np.array([0.78, 1.49, 1.06]) / 3.33
    start = Particles(np.array([[-0.517], [0.378], [-0.451]]), weights)
    found = places(solved(EnergySum({"pair": interaction(line(), "r"), "well": well}), line(), start, 0.6))
    two = weights[[0, 2]] / np.sum(weights[[0, 2]])
    here = (0.6 * (1.0 + weights[1]) + two @ start.points[[0, 2], 0]) / (1.0 + 0.8 * 0.6)
    np.testing.assert_allclose(found[:, 0], [here, 0.3, here], atol=1e-9)


def test_atoms_at_one_place_that_repel_one_another_with_a_kink_go_apart() -> None:
    """W = −|x|: velocities are ⅔, 0 and −⅔ in the order of the atoms; smooth repulsion is 0 between atoms at one place."""
    start = Particles.equal(np.array([[0.0], [0.0], [1.0]]))
    term = interaction(line(), "-r")
    np.testing.assert_allclose(places(solved(term, line(), start, 0.25, 0.5))[:, 0], [-1.0 / 3.0, 0.0, 4.0 / 3.0], atol=1e-6)
    two = Particles.equal(np.array([[0.5], [0.5]]))
    np.testing.assert_array_equal(places(solved(interaction(line(), "exp(-r**2)"), line(), two)), two.points)


@pytest.mark.parametrize("changes", [{}, {"order": 2, "tolerance": 1e-3}])
def test_a_restored_state_goes_on_to_the_same_bits(changes: dict[str, object]) -> None:
    """Also while atoms are held to kinks."""
    problem = trained()
    made = replace(MinimizingMovement(0.1, "lagrangian", count=300), **changes)  # type: ignore[arg-type]
    flow = made.prepare(problem)
    state = flow.start()
    for _ in range(6):
        state = flow.advance(state, 1.0)
    flow.record(state)
    copied = {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in state_values(state).items()}
    again = made.prepare(problem)
    one, other = flow.advance(state, 1.0), again.advance(again.restore(copied), 1.0)
    assert again.notes == flow.notes
    for name, value in state_values(one).items():
        np.testing.assert_array_equal(value, state_values(other)[name], err_msg=name)


def test_problems_without_a_least_energy_of_atoms_are_refused() -> None:
    domain = line()
    start = DensityFunction(bump(0.5), domain)
    noisy = Problem(alone(Entropy(0.1), "noise"), domain, start, (1.0,))
    choices = MinimizingMovement(0.1, "lagrangian", count=20)
    with pytest.raises(ValueError, match=r"noise is infinite.*quantile"):
        choices.prepare(noisy)
    with pytest.raises(ValueError, match="falls to minus infinity at 0"):
        choices.prepare(Problem(alone(interaction(domain, "log(r)")), domain, start, (1.0,)))
    with pytest.raises(ValueError, match="key `count` is missing"):
        replace(choices, count=None).prepare(Problem(alone(quadratic()), domain, start, (1.0,)))


@pytest.mark.parametrize("depth", [3, "continuous"])
def test_first_atoms_of_levels_have_one_depth_each(depth: int | Literal["continuous"]) -> None:
    """The density does not depend on the depth, so that each level has the same nodes; a continuous depth has nodes of its own."""
    domain = Domain((Axis("theta", -3.0, 3.0), Axis("depth", -1.0, 2.0, frozen=True)))
    term = wide_resnet(domain, "tanh", Samples(np.linspace(-1.0, 1.0, 3)[:, None]), np.zeros(3), depth=depth)
    problem = Problem(alone(term), domain, DensityFunction(lambda p: np.exp(-2.0 * (p[:, 0] - 0.3) ** 2), domain), (1.0,))
    found = first_atoms(problem, 300)
    levels = np.unique(found.points[:, 1])
    if depth == 3:
        np.testing.assert_allclose(levels, [-0.5, 0.5, 1.5])
        thetas = [found.points[found.points[:, 1] == level, 0] for level in levels]
        assert len(thetas[0]) > 80
        np.testing.assert_array_equal(thetas[0], thetas[2])
        assert found.weights[found.points[:, 1] == 0.5].sum() == pytest.approx(1.0 / 3.0, rel=1e-12)
    else:
        assert len(levels) > 10
    assert found.weights @ found.points[:, 0] == pytest.approx(0.3, abs=1e-6 if depth == 3 else 1e-3)


CASE = """
[domain.x]
lower = -3.0
upper = 3.0

[[energy]]
kind = "interaction"
kernel = "r**2/2"

[initial]
density = "exp(-x**2)"

[time]
save = [0.0, 0.5]

[[solver]]
kind = "jko"
tau = 0.25
count = 40
"""


def test_a_case_file_chooses_atoms_where_no_cells_are_given(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    case = load_case(path)
    run = build_solver(case, 0).solve(build_problem(case))
    assert run.notes[0].startswith("method lagrangian: ")
    assert run.total_energy[-1] == pytest.approx(run.total_energy[0] / 1.25**4, rel=1e-9)
    path.write_text(CASE + 'method = "lagrangian"\ncells = [8]\n')
    with pytest.raises(InputError, match='method = "lagrangian" moves atoms'):
        load_case(path)
