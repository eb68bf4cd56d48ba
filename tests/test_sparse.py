"""The exact sparse minimiser of networks with a path norm, its certificate, and the flow towards it."""

import numpy as np
import pytest
from scipy.optimize import nnls

from mfpde.case import load_case
from mfpde.case.build import build_problem
from mfpde.domain import Axis, Domain
from mfpde.energy.base import EnergySum
from mfpde.energy.inputs import Normal
from mfpde.energy.networks import Neurons, closed_two_layer
from mfpde.energy.potential import path_norm, weight_decay
from mfpde.measure import Particles
from mfpde.problem import Problem
from mfpde.run import StepFailed
from mfpde.solvers.particles import ParticleFlow
from mfpde.sparse import (
    Network,
    SparseProblem,
    Students,
    descend,
    determined,
    draw_students,
    excess,
    linear_decay,
    local_modes,
    solve_sparse,
)
from mfpde.sparse.network import mixed_slopes
from mfpde.sparse.solver import _expanded

PAIR = Network(np.array([[1.0, 0.0], [-0.5, 1.0]]), np.array([1.0, 0.7]))
TRIANGLE = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])


@pytest.mark.parametrize(("dimension", "moment", "weight"), [(2, 1.0, 1.0), (5, 4.0, -0.7)])
def test_one_neuron_is_found_at_its_place_with_less_weight(dimension, moment, weight):
    """K(u, u) = m/2, so that the weight is |w*| − 2λ/m and J* = λ|w*| − λ²/m."""
    vector = np.linspace(1.0, 2.0, dimension)
    size, lam = abs(weight) * np.linalg.norm(vector), 0.1
    found = solve_sparse(SparseProblem(Network(vector[None], np.array([weight]), moment), lam))
    assert found.gap <= 1e-12
    np.testing.assert_allclose(found.points, vector[None] / np.linalg.norm(vector), atol=1e-12)
    np.testing.assert_allclose(found.weights, [np.sign(weight) * (size - 2.0 * lam / moment)], rtol=1e-12)
    assert found.value == pytest.approx(lam * size - lam**2 / moment, rel=1e-12)
    np.testing.assert_allclose(found.curvatures, lam, rtol=1e-9)
    assert found.nondegenerate


def test_a_penalty_that_is_too_strong_leaves_nothing():
    found = solve_sparse(SparseProblem(Network(np.array([[1.0, 0.0]]), np.ones(1)), 0.6))
    assert len(found.points) == 0
    assert found.level_elsewhere == pytest.approx(0.5 / 0.6, rel=1e-12)
    assert found.value == pytest.approx(0.25, rel=1e-12)
    assert found.nondegenerate
    with pytest.raises(ValueError, match="must be positive"):
        SparseProblem(PAIR, 0.0)


def grid_value(problem, count):
    """The least J with neurons on equidistant directions only, by nonnegative least squares with a column for each sign."""
    angle = 2.0 * np.pi * np.arange(count) / count
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    gram, linear = problem.teacher.kernel.matrix(points, points), problem.teacher.correlation(points)
    values, basis = np.linalg.eigh(gram)
    kept = values > 1e-12 * values[-1]
    root = np.sqrt(values[kept])[:, None] * basis[:, kept].T
    # ½|R(p − n) − R⁻ᵀb|² + λΣ(p + n): the penalty is linear, so it goes into one more row as (Σ(p + n) − t)² with a far t
    far = 1e4
    rows = np.vstack([np.hstack([root, -root]), np.full(2 * count, np.sqrt(problem.strength / far))])
    right = np.append((basis[:, kept].T @ linear) / np.sqrt(values[kept]), 0.0)
    right[-1] = -np.sqrt(problem.strength / far) * far
    weights = nnls(rows, right, maxiter=100 * count)[0]
    signed = weights[:count] - weights[count:]
    some = signed != 0.0
    return problem.value(Network(points[some], signed[some]))


def test_the_minimiser_is_the_limit_of_lassos_on_refined_grids():
    problem = SparseProblem(Network(np.array([[1.0, 0.2], [-0.5, 1.0], [-0.5, -1.0]]), np.array([1.0, 0.7, -0.5])), 0.05)
    found = solve_sparse(problem)
    assert found.gap <= 1e-12
    over = np.array([grid_value(problem, count) for count in (32, 64, 128)]) - found.value
    print("J on grids above the minimum", over)
    assert (over > 0.0).all()
    assert over[-1] < 5e-4 * found.value
    np.testing.assert_allclose(np.log2(over[:-1] / over[1:]), 2.0, atol=0.4)


def test_derivatives_agree_with_differences():
    generator = np.random.default_rng(0)
    problem = SparseProblem(Network(generator.standard_normal((3, 3)), generator.standard_normal(3)), 0.1)
    vectors, signs, step = generator.standard_normal((3, 3)), np.array([1.0, -1.0, 1.0]), 1e-5
    _, slope, hessian = _expanded(problem, vectors, signs)
    for k in range(9):
        ends = [_expanded(problem, vectors + sign * step * np.eye(9)[k].reshape(3, 3), signs) for sign in (1.0, -1.0)]
        assert (ends[0][0] - ends[1][0]) / (2.0 * step) == pytest.approx(slope.ravel()[k], abs=1e-9)
        np.testing.assert_allclose((ends[0][1] - ends[1][1]).ravel() / (2.0 * step), hessian[k], atol=1e-8)


def test_mixed_slopes_are_those_of_nearly_equal_directions():
    unit = np.array([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(mixed_slopes(unit, unit, 2.0)[0, 0], np.eye(3), atol=1e-14)
    near = np.array([[1.0, 1e-6, 0.0]])
    np.testing.assert_allclose(mixed_slopes(unit, near, 2.0)[0, 0], np.eye(3), atol=1e-6)


def test_the_teacher_is_found_as_the_penalty_vanishes():
    errors = []
    for lam in (0.04, 0.02, 0.01):
        found = solve_sparse(SparseProblem(PAIR, lam))
        assert len(found.points) == 2
        order = np.argsort(-found.weights)
        errors.append(np.max(np.abs(found.weights[order] - np.sort(PAIR.masses)[::-1])))
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 1.0, atol=0.1)


def test_mirror_images_make_a_teacher_undetermined():
    """Σ relu(u_k·x) = Σ relu(−u_k·x) where Σu_k = 0."""
    assert determined(PAIR)
    assert not determined(Network(TRIANGLE, np.ones(3)))
    assert determined(Network(TRIANGLE, np.array([1.0, 1.0, -1.0])))
    assert Network(TRIANGLE, np.ones(3)).minus(Network(-TRIANGLE, np.ones(3))).square() < 1e-15
    found = solve_sparse(SparseProblem(Network(TRIANGLE, np.ones(3)), 0.05))
    assert found.gap <= 1e-12
    assert not found.nondegenerate


@pytest.mark.parametrize("weights", [(1.0, -1.0), (1.0, 1.0), (1.0, 0.5)])
def test_nothing_is_said_of_teachers_with_opposite_neurons(weights):
    line = np.array([[1.0, 0.0], [-2.0, 0.0], [0.5, 0.0]])
    assert determined(Network(line[:2], np.array(weights))) is None
    assert determined(Network(line[::2], np.array(weights))) is True


def test_round_off_of_the_gap_is_no_gap():
    """E y²/J* is about 1e7 here."""
    problem = SparseProblem(PAIR, 1e-7)
    found = solve_sparse(problem)
    assert 1e-12 < found.gap < 1e-7
    np.testing.assert_allclose(np.sort(found.weights), np.sort(PAIR.masses), atol=1e-5)


def test_the_best_measure_is_taken_where_its_gap_is_accepted(monkeypatch):
    monkeypatch.setattr("mfpde.sparse.solver._ROUNDS", 2)
    problem = SparseProblem(Network(np.array([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]]), np.array([1.0, 0.7, -0.5])), 0.05)
    monkeypatch.setattr("mfpde.sparse.solver._MERGED", ())
    with pytest.raises(StepFailed, match="is found to a gap of"):
        solve_sparse(problem)
    found = solve_sparse(problem, accepted=1.0)
    assert 1e-12 < found.gap < 1.0


def test_a_minimiser_that_is_not_found_is_no_answer(monkeypatch):
    monkeypatch.setattr("mfpde.sparse.solver._ROUNDS", 1)
    with pytest.raises(StepFailed, match="with 1 neuron after 1 round;"):
        solve_sparse(SparseProblem(PAIR, 0.05), tolerance=1e-30)


@pytest.mark.parametrize("radius", [0.3, 0.6])
def test_students_reach_the_minimiser_at_the_rate_of_the_hessian(radius):
    """With |a| = |w| and with |a| < |w|, where neurons stop at a = 0."""
    solution = solve_sparse(SparseProblem(PAIR, 0.2))
    start = draw_students(16, 2, 0.3, radius, np.random.default_rng(1))
    rows, ends = [], []

    def look(time, students):
        rows.append((time, excess(solution, students)))
        ends.append(students)
        return rows[-1][1] < 1e-12 * solution.value

    assert descend(solution.problem, start, 2000.0, look)
    times, over = np.array(rows).T
    assert over[-1] < 1e-12 * solution.value
    assert np.all(np.diff(over) < 1e-15)
    final = ends[-1]
    assert solution.problem.value(final.network(1.0)) - solution.value == pytest.approx(over[-1], abs=1e-14)
    first = int(np.argmax(over < 1e-7 * solution.value))
    decay = linear_decay(solution, ends[first])
    linear = decay.at(times[first:] - times[first])
    assert linear[0] == pytest.approx(over[first], rel=0.1)
    np.testing.assert_allclose(linear, over[first:], rtol=0.2)
    measured, exact = (-np.polyfit(times[first:], np.log(values), 1)[0] for values in (over[first:], linear))
    print(f"rate {measured:.6f}, linearised {exact:.6f}, slowest {decay.slowest[0]:.6f}")
    assert measured == pytest.approx(exact, rel=0.02)
    if radius == 0.3:
        assert measured == pytest.approx(2.0 * local_modes(solution).rates[0], rel=0.1)
        assert not np.any(final.outer == 0.0)
    else:
        assert np.any(final.outer == 0.0)


def test_the_modes_of_one_neuron_are_known():
    """Mass: 2w·K = w; the common direction: w E1x_⊥² + λ; the spread: λ, with w = 1 − 2λ."""
    solution = solve_sparse(SparseProblem(Network(np.array([[1.0, 0.0]]), np.ones(1)), 0.1))
    modes = local_modes(solution)
    np.testing.assert_allclose(modes.rates, [0.1, 0.5, 0.8], rtol=1e-9)
    assert modes.names == ("spread at neuron 1", "direction", "mass")


# The penalty in energies of case files.


def trained(penalty, box=3.0):
    domain = Domain(tuple(Axis(name, -box, box) for name in ("u", "v", "w")))
    teacher = Neurons(PAIR.vectors, PAIR.coefficients[:, None])
    network = closed_two_layer(domain, "relu", Normal(1.0), teacher, output="trained")
    return domain, EnergySum({"network": network, "penalty": penalty})


def test_the_gradient_of_the_penalty_is_its_difference():
    points = np.random.default_rng(2).standard_normal((5, 5))
    term, rho = path_norm(0.3, 2), Particles(points, np.full(5, 0.2))
    step, gradient = 1e-6, term.gradient(rho, points)
    for k in range(5):
        ends = [term.first_variation(rho, points + sign * step * np.eye(5)[k]) for sign in (1.0, -1.0)]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2.0 * step), gradient[:, k], atol=1e-8)
    kink = np.array([[1.0, 2.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_array_equal(term.gradient(rho, kink), 0.0)
    lengths = np.linalg.norm(points[:, :3], axis=1) * np.linalg.norm(points[:, 3:], axis=1)
    off = 0.3 * lengths - term.first_variation(rho, points)
    assert np.all(off > 0.0)
    assert np.all(off < 0.3 * 1e-3)


@pytest.mark.parametrize("penalty", [path_norm(0.2, 1), weight_decay(0.2)], ids=["path_norm", "decay"])
def test_path_norm_and_weight_decay_have_the_same_minimiser(penalty):
    """Particles of a case's solver end at the exact J* with either, as 2|w||θ| ≤ |θ|² + w²."""
    solution = solve_sparse(SparseProblem(PAIR, 0.2))
    start = draw_students(12, 2, 0.5, 0.5, np.random.default_rng(1))
    points = np.concatenate([start.inner[:, None] * start.directions, start.outer[:, None]], axis=1)[::2]
    domain, energy = trained(penalty)
    run = ParticleFlow(tolerance=1e-6).solve(Problem(energy, domain, Particles(points, np.full(6, 1.0 / 6.0)), (80.0,)))
    last = run.final
    assert solution.problem.value(Network(last.points[:, :2], last.weights * last.points[:, 2])) == pytest.approx(solution.value, rel=1e-4)
    assert energy.value(last) == pytest.approx(solution.value, abs=2e-4 + 1e-4 * solution.value), "within λ times the rounding"


def test_both_flows_are_the_same():
    problem = SparseProblem(PAIR, 0.2)
    start = draw_students(8, 2, 0.5, 0.5, np.random.default_rng(1))
    points = np.concatenate([start.inner[:, None] * start.directions, start.outer[:, None]], axis=1)
    domain, energy = trained(path_norm(0.2, 1, rounding=1e-6))
    run = ParticleFlow(tolerance=1e-8).solve(Problem(energy, domain, Particles(points, np.full(8, 0.125)), (2.0,)))
    ends: list[Students] = []
    descend(problem, start, 2.0, lambda _, students: bool(ends.append(students)))
    np.testing.assert_allclose(run.final.points[:, 2], ends[-1].outer, atol=1e-6)
    np.testing.assert_allclose(run.final.points[:, :2], ends[-1].inner[:, None] * ends[-1].directions, atol=1e-6)


CASE = """
[domain.u]
lower = -3.0
upper = 3.0
[domain.w]
lower = -3.0
upper = 3.0
[[energy]]
kind = "two_layer"
activation = "relu"
output = "trained"
path_norm = 0.1
decay = 0.2
teacher = { neurons = [[1.0]], weights = [1.0] }
[initial]
law = "uniform"
[time]
save = [0.0]
[[solver]]
kind = "particles"
count = 10
seed = 1
"""


def test_a_case_file_has_the_penalty_as_a_term(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    energy = build_problem(load_case(path)).energy
    assert list(energy.terms) == ["two_layer", "two_layer_decay", "two_layer_path_norm"]
    path.write_text(CASE.replace('output = "trained"\n', ""))
    with pytest.raises(Exception, match="`path_norm` is of output weights"):
        load_case(path)
