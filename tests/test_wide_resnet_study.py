"""The study of the wide residual network: error orders, many levels, late rises, the stationary condition, the command."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfpde.arrays import FloatArray
from mfpde.case.wide_resnet_schema import WideResNetTable
from mfpde.domain import Axis, Domain
from mfpde.energy import Samples, WideResNet, wide_resnet
from mfpde.measure import Density, Measure, Particles
from mfpde.run import Certificate, Run, Status
from mfpde.storage import StoredRun
from mfpde.study.wide_law import Law, approximated, in_levels
from mfpde.study.wide_resnet import (
    Flows,
    WideStudy,
    expected_orders,
    measure_condition,
    measure_expansion,
    measure_flows,
    measure_limit,
)
from mfpde.study.wide_resnet_text import WideReport
from tests.command import Answer, call

CASE = Path(__file__).parent.parent / "cases" / "wide_resnet_limits.toml"
INPUTS = np.array([[-1.3], [-0.4], [0.2], [0.9], [1.7]])
SMALL = ("solver.0.count=144", "time.save=[0.0,10.0,35.0,100.0]", "study.depths=[8,16,32]")


def box(dimension: int = 1) -> Domain:
    return Domain((*(Axis(f"theta{k}", -4.0, 4.0) for k in range(dimension**2)), Axis("epsilon", 0.0, 2.0, frozen=True)))


def cloud(count: int = 24, dimension: int = 1, seed: int = 0) -> Particles:
    """Matrices that differ in the mean from level to level, with masses that are not equal."""
    generator = np.random.default_rng(seed)
    epsilon = 2.0 * (np.arange(count) + 0.5) / count
    theta = generator.normal(size=(count, dimension**2)) + 0.8 + 0.6 * epsilon[:, None]
    weights = generator.random(count) + 0.5
    return Particles(np.column_stack([theta, epsilon]), weights / np.sum(weights))


def network(activation: str = "tanh", depth: int = 6, dimension: int = 1, teacher: Particles | None = None, **more: str) -> WideResNet:
    inputs = INPUTS if dimension == 1 else np.random.default_rng(1).normal(size=(8, dimension))
    known = teacher or cloud(12, dimension, 5)
    return wide_resnet(box(dimension), activation, Samples(inputs), known, dimension=dimension, depth=depth, **more)


def by_loops(law: Law, levels: int, share: int) -> tuple[FloatArray, FloatArray]:
    """X^L and X² of tanh in one dimension, unit after unit, with the units of ``share`` neighbouring parts in each level."""
    state, second = INPUTS[:, 0], INPUTS[:, 0].copy()
    units = list(zip(law.theta[:, 0, 0], law.weights, law.place // share, strict=True))
    for level in range(levels):
        state = state + sum(weight * np.tanh(theta * state) for theta, weight, place in units if place == level)
    for theta, weight, place in units:
        z = theta * INPUTS[:, 0]
        before = sum(other * np.tanh(matrix * INPUTS[:, 0]) for matrix, other, earlier in units if earlier < place)
        second += weight * (np.tanh(z) + theta * before / np.cosh(z) ** 2)
    return state, second


@pytest.mark.parametrize(
    ("activation", "orders"),
    [
        ("tanh", (2, 3)),
        ("gelu", (2, 3)),
        ("softsign", (2, 3)),
        ("relu", (2, 3)),
        ("quadratic", (4, 6)),
        ("sigmoid", (1, 2)),
        ("cos", (2, 2)),
    ],
)
def test_errors_have_the_orders_that_the_activation_has_at_zero(activation: str, orders: tuple[int, int]) -> None:
    scale = 0.02 if activation == "quadratic" else 0.001
    term = network(activation)
    assert expected_orders(term.network, 6) == orders
    errors = measure_expansion(Law.of(cloud(), term), term, [scale * r for r in (1.0, 2.0, 4.0, 8.0, 30.0)])
    print(activation, [fit.value for fit in errors.fits])
    np.testing.assert_allclose([fit.value for fit in errors.fits], orders, atol=0.12)
    assert errors.used.sum(axis=1).tolist() == [3, 3], "the three smallest radii"


def test_matrices_have_the_same_orders_and_few_levels_others() -> None:
    plane = network(dimension=2)
    errors = measure_expansion(Law.of(cloud(dimension=2), plane), plane, [0.01, 0.02, 0.04])
    np.testing.assert_allclose([fit.value for fit in errors.fits], (2, 3), atol=0.1)
    single = network(depth=1)
    assert measure_expansion(Law.of(cloud(), single), single, [0.1, 0.2, 0.4]).exact.all()
    linear = network("identity", depth=2)
    found = measure_expansion(Law.of(cloud(), linear), linear, [0.1, 0.2, 0.4])
    assert found.exact.tolist() == [False, True], "(1 + a)(1 + b) = 1 + a + b + ab"
    assert math.isnan(expected_orders(linear.network, 2)[1])


def test_linear_networks_are_off_their_limits_by_the_closed_forms() -> None:
    term, m = network("identity", depth=2), 0.9
    law = Law.of(Particles(np.array([[m, 0.5], [m, 1.5]]), np.full(2, 0.5)), term)
    counts = np.array([64, 32, 16])
    found = measure_limit(law, term, [16, 32, 64])
    size = math.sqrt(float(np.mean(INPUTS**2)))
    np.testing.assert_allclose(found.widths, 1.0 / counts)
    np.testing.assert_allclose(found.values[0], size * (math.exp(m) - (1.0 + m / counts) ** counts), rtol=1e-6)
    np.testing.assert_allclose(found.values[2], size * m * m / (2.0 * counts), rtol=1e-12)
    assert found.exact.tolist() == [False, True, False]


def test_round_off_of_many_levels_is_no_error_of_the_first_order() -> None:
    term = network()
    found = measure_limit(Law.of(cloud(), term), term, [4000, 2000, 1000])
    assert found.exact.tolist() == [False, True, False]
    assert found.values[1].max() > 0.0


def test_a_law_on_other_levels_is_what_loops_over_units_compute() -> None:
    term, atoms = network(depth=4), cloud(12)
    law, second = Law.of(atoms, term), approximated(term, "second").network
    for levels in (4, 2, 1):
        exact, expanded = by_loops(law, levels, 4 // levels)
        np.testing.assert_allclose(law.output(term.network, levels, INPUTS.T)[0], exact, rtol=1e-14)
        np.testing.assert_allclose(law.output(second, levels, INPUTS.T)[0], expanded, rtol=1e-14)
    np.testing.assert_allclose(law.output(term.network, 4, INPUTS.T)[0], term.output(atoms, INPUTS), rtol=1e-14)
    assert sum(float(np.sum(block.weights)) for block in law.blocks(7)) == pytest.approx(1.0, abs=1e-14)
    many = 2.0 * law.output(term.network, 1024, INPUTS.T) - law.output(term.network, 512, INPUTS.T)
    np.testing.assert_allclose(law.output(term.network, None, INPUTS.T), many, atol=1e-6)


def test_a_density_and_its_cells_as_atoms_are_one_law() -> None:
    term, grid = network(depth=2), box().grid((9, 4))
    values = np.random.default_rng(2).random(grid.cells)
    density = Density(grid, values / (np.sum(values) * grid.cell_volume))
    law = Law.of(density, term)
    assert law.parts == 4
    np.testing.assert_allclose(law.output(term.network, 2, INPUTS.T)[0], term.output(density, INPUTS), rtol=1e-13)


def test_the_largest_climb_is_found_where_it_begins() -> None:
    curves = np.array([[3.0, 1.0, 2.0, 0.5, 4.5], [3.0, 2.0, 1.0, 0.5, 0.25], [2.0, 2.0 + 1e-9, 1.0, 1.0, 1.0]])
    flows = Flows(np.arange(5.0), curves[None].repeat(3, axis=0), np.zeros((3, 5)), np.zeros((3, 5)), "")
    rise = flows.rise(0, 0)
    assert (rise.since, rise.low, rise.until, rise.high, rise.there) == (3.0, 0.5, 4.0, 4.5, True)
    assert not flows.rise(0, 1).there
    assert not flows.rise(0, 2).there, "round-off is no rise"


def stored(label: str, measures: list[Measure]) -> StoredRun:
    times = np.arange(float(len(measures)))
    run = Run(times, measures, {"e": np.zeros(len(measures))}, Certificate(np.zeros((1, 9))), Status.DONE)
    return StoredRun(Path(f"{label}.h5"), box(), run, {"label": label})


def test_atoms_of_one_level_are_alike_and_losses_are_of_one_problem() -> None:
    term, atoms = network(depth=2), cloud(8)
    swapped = atoms.points.copy()
    swapped[:4, 0] = swapped[3::-1, 0]
    weights = atoms.weights.copy()
    weights[:4] = weights[3::-1]
    other = Particles(swapped, weights)
    moved = Particles(atoms.points + np.array([0.25, 0.0]), atoms.weights)
    flows = measure_flows([stored("a", [atoms, atoms]), stored("b", [other, moved]), stored("c", [atoms])], term)
    assert flows.times.tolist() == [0.0], "the time that all have"
    np.testing.assert_allclose(flows.distance[:, 0], 0.0, atol=1e-7)
    flows = measure_flows([stored("a", [atoms, atoms]), stored("b", [other, moved]), stored("c", [atoms, moved])], term)
    np.testing.assert_allclose(flows.distance[1:, 1], 0.25, rtol=1e-9)
    assert flows.loss[0, 1, 0] == approximated(term, "first").value(atoms)
    assert len(np.unique(in_levels(atoms, term.depth).points[:, -1])) == 2


def test_condition_11_holds_for_the_teacher_itself_and_its_rest_is_what_the_target_has_beyond_first_order() -> None:
    teacher = cloud(12, seed=5)
    own = network(depth=4, teacher=teacher, teacher_approximation="first")
    found = measure_condition([teacher] * 3, own, own.teacher_at)
    np.testing.assert_allclose([found.marginal[1], found.own[1], found.beyond], 0.0, atol=1e-14)
    common = network(depth=4, teacher=teacher)
    found = measure_condition([teacher] * 3, common, own.teacher_at)
    assert found.own[0] < 1e-14
    assert found.marginal[0] == 0.0
    assert found.own[1] == pytest.approx(found.beyond, rel=1e-14)
    assert found.beyond > 0.01
    assert np.isnan(measure_condition([teacher] * 3, common, None).marginal).all()


def report(loss: FloatArray, depth: int = 6, **choices: object) -> WideReport:
    """Losses (flow, loss, T), and the orders of a network."""
    term, table = network(depth=depth), WideResNetTable.model_validate({"kind": "wide_resnet"} | choices)
    law, zeros = Law.of(cloud(), term), np.zeros(loss.shape[::2])
    flows = Flows(np.arange(float(loss.shape[2])), loss, zeros, zeros, "exact")
    condition = measure_condition([cloud()] * 3, term, None)
    found = WideStudy(flows, condition, measure_expansion(law, term, [0.001, 0.002, 0.004]), measure_limit(law, term, [6, 12, 24, 48]))
    orders = expected_orders(term.network, depth) if table.orders is None else (table.orders[0], table.orders[1])
    return WideReport("", found, table, term, orders, True)


def test_what_is_not_as_expected_is_missed() -> None:
    falling = np.tile([3.0, 2.0, 1.0], (3, 3, 1))
    assert report(falling).missed() == []
    assert report(falling, rise=False).missed() == []
    lines = report(falling, rise=True, orders=[2.5, 3.0]).missed()
    assert lines[0] == "along the flow of the first-order loss the exact loss never rises, expected to rise"
    assert lines[1].startswith("X1: order 2")
    rising = falling.copy()
    rising[1, :2, 2] = 2.5
    assert report(rising, rise=False).missed() == [
        "E1 rises along its own flow, from 2 at t = 1 to 2.5 at t = 2",
        "along the flow of the first-order loss the exact loss falls to 2 at t = 1 and then rises to 2.5 at t = 2, 1.25 times that, "
        "expected to fall",
    ]
    assert "along its own flow no loss rises" in report(falling).text()


def study(folder: Path, *changes: str) -> Answer:
    return call("study", CASE, "--output", folder, "--set", *SMALL, *changes)


def test_the_command_shows_the_late_rise_and_all_orders(tmp_path: Path) -> None:
    answer = study(tmp_path, "--no-figures")
    assert answer.code == 0, answer.err
    assert "along the flow of the first-order loss the exact loss falls to" in answer.out
    assert "and then rises to" in answer.out
    assert "along its own flow no loss rises" in answer.out
    assert answer.out.count("expected") == answer.out.count(": yes") == 4
    data = json.loads((tmp_path / "study.json").read_text())
    assert data["missed"] == []
    assert data["exact_loss_rises"]["first"]["lowest_at"] == 35.0
    assert data["exact_loss_rises"]["first"]["highest"] > 100.0 * data["exact_loss_rises"]["first"]["lowest"]
    assert data["expansion"]["X2"]["expected"] == 3.0
    with h5py.File(tmp_path / "study.h5") as file:
        assert file["loss"].shape == (3, 3, 4)
        np.testing.assert_allclose(file["loss"][...], data["loss"])
    assert len((tmp_path / "study.csv").read_text().splitlines()) == 1 + 3 * 4 + 10 + 3


@pytest.mark.long
def test_its_figures_are_drawn_also_where_there_is_nothing_but_round_off(tmp_path: Path) -> None:
    falling = np.tile([3.0, 2.0, 1.0], (3, 3, 1))
    rising = falling.copy()
    rising[1, 0, 2] = 2.5
    for name, depth, loss in (("one", 1, falling), ("six", 6, rising)):
        paths = report(loss, depth).draw(tmp_path / name, ("png", "pdf"))
        assert {path.name for path in paths} == {f"study-{what}.{form}" for what in ("losses", "orders") for form in ("png", "pdf")}
        assert all(path.stat().st_size > 5000 for path in paths)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("study.solver=grid", 'got "grid"; accepted: particles, fv'),
        ("study.depths=[1,2,4]", "needs two or more numbers from 4 on, got [1, 2, 4]"),
        ("study.radii=[0.1,0.2,0.2]", "`radii` holds one of its elements twice"),
        ("energy.0.teacher_approximation=third", "exact, first, second"),
    ],
)
def test_wrong_input_is_answered_with_what_is_accepted(change: str, words: str, tmp_path: Path) -> None:
    answer = study(tmp_path, change)
    assert answer.code == 2
    assert words in answer.err


def test_the_study_needs_a_wide_resnet(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    text = CASE.with_name("teacher_student.toml").read_text(encoding="utf-8")
    path.write_text(text + '\n[study]\nkind = "wide_resnet"\n', encoding="utf-8")
    answer = call("study", path, "--output", tmp_path / "out")
    assert answer.code == 2
    assert 'exactly one energy with kind = "wide_resnet", got 0' in answer.err
