"""Networks of many layers: gradients, closed solutions, the two-layer energy, limits, and the study of them."""

import csv
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mfpde.case import load_study
from mfpde.cli import main
from mfpde.domain import Axis, Domain
from mfpde.energy import ACTIVATIONS, EnergySum, Samples, two_layer
from mfpde.figures.multilayer import make_chaos_figure, make_collapse_figure, make_residual_figure
from mfpde.measure import Particles
from mfpde.multilayer import (
    Law,
    Layered,
    Residual,
    Scaling,
    Task,
    Weights,
    layered_limit,
    layered_start,
    residual_limit,
    residual_start,
    train,
)
from mfpde.multilayer.experiments import Setup, compare, follow_limit, follow_residual, measure, spread
from mfpde.multilayer.limit import at_rest, followed_of
from mfpde.problem import Problem
from mfpde.run import Status, StepFailed
from mfpde.solvers import ParticleFlow
from mfpde.study.alone import Desk, plan_alone
from mfpde.study.multilayer_rates import Fit, chaos_fits, collapse_fits, pair_correlation
from mfpde.study.rates import Rate, fitted_rate, rate_of_few
from tests.command import interrupt_and_resume

LAWS = Weights(Law(deviation=1.0), Law(mean=0.8, deviation=0.7), Law(mean=0.5, deviation=0.9), Law("normal", deviation=0.6))


def task(activation: str = "tanh", count: int = 5, seed: int = 0) -> Task:
    random = np.random.default_rng(seed)
    return Task(random.normal(size=(count, 2)), random.normal(size=count), ACTIVATIONS[activation])


def started(scaling: Scaling, depth: int, width: int = 4, given: Task | None = None) -> tuple[Layered | Residual, np.ndarray]:
    if scaling is Scaling.RESIDUAL:
        return residual_start(given or task(), LAWS, depth, width, 3)
    return layered_start(given or task(), LAWS, scaling, depth, width, 3)


def metric(network: Layered | Residual) -> np.ndarray:
    """What the gradient of the risk is multiplied by in the velocity, by each weight."""
    if isinstance(network, Residual):
        return np.repeat(np.tile(network.depth / network.shares, 2 * network.depth), network.shape[-1])
    blocks = [1.0 / network.shares[0][:, None] * np.ones(network.shapes[0])]
    blocks += [1.0 / (b[:, None] * a[None, :]) for a, b in zip(network.shares, network.shares[1:], strict=False)]
    blocks.append(1.0 / network.shares[-1])
    return np.concatenate([rate * block.ravel() for rate, block in zip(_rates(network), blocks, strict=True)])


def _rates(network: Layered) -> list[float]:
    first, middle, last = network.rates
    return [first, *[middle] * (network.depth - 1), last]


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("scaling", list(Scaling))
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_velocities_are_scaled_differences_of_the_risk(activation, scaling, depth):
    network, point = started(scaling, depth, given=task(activation))
    velocity, other, step = np.empty_like(point), np.empty_like(point), 2e-3
    risk = network.evaluate(point, velocity)
    assert risk == pytest.approx(0.5 * np.mean((network.output(point) - network.targets) ** 2), rel=1e-14)
    found = np.empty_like(point)
    for k in range(len(point)):
        values = []
        for shift in (-2, -1, 1, 2):
            moved = point.copy()
            moved[k] += shift * step
            values.append(network.evaluate(moved, other))
        found[k] = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * step)
    np.testing.assert_allclose(velocity, -metric(network) * found, rtol=1e-7, atol=1e-7 * np.max(np.abs(velocity)))
    if scaling is Scaling.LAZY:
        np.testing.assert_allclose(velocity, -found, atol=1e-7 * np.max(np.abs(velocity)))


@pytest.mark.parametrize("depth", [1, 3])
def test_linear_networks_are_matrix_products(depth):
    given, m = task("identity"), 4
    for scaling, factor in ((Scaling.MEAN_FIELD, 1.0 / m), (Scaling.LAZY, m**-0.5)):
        network, point = started(scaling, depth, m, given)
        first, *middle, last = network.split(point)
        product = factor * last
        for weights in reversed(middle):
            product = factor * product @ weights
        np.testing.assert_allclose(network.output(point), given.inputs @ (product @ first), rtol=1e-13)
    residual, point = started(Scaling.RESIDUAL, depth, m, given)
    state = np.vstack([given.inputs.T, np.zeros(len(given.inputs))])
    for outer, inner in point.reshape(residual.shape):
        state = (np.eye(3) + outer.T @ inner / (m * depth)) @ state
    np.testing.assert_allclose(residual.output(point), state[-1], rtol=1e-13)


def test_one_hidden_layer_is_the_two_layer_energy_with_trained_output():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(9, 1)), random.normal(size=9)
    given = Task(np.column_stack([x, np.ones(9)]), y, ACTIVATIONS["tanh"])
    network, point = layered_start(given, LAWS, Scaling.MEAN_FIELD, 1, 6, 5)
    domain = Domain(tuple(Axis(name, -20.0, 20.0) for name in ("v", "b", "a")))
    energy = two_layer(domain, "tanh", Samples(x), y, output="trained", bias=True)
    atoms = Particles(np.column_stack([*network.split(point)[0].T, network.split(point)[1]]), np.full(6, 1.0 / 6.0))
    velocity = np.empty_like(point)
    assert energy.value(atoms) == pytest.approx(network.evaluate(point, velocity), rel=1e-10)
    run = ParticleFlow(tolerance=1e-10).solve(Problem(EnergySum({"loss": energy}), domain, atoms, (0.0, 2.0)))
    end = list(train(network, point, [2.0], 1e-10))[-1].point
    first, last = network.split(end)
    np.testing.assert_allclose(run.final.points, np.column_stack([first, last]), atol=1e-8)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_order_of_the_neurons_does_not_matter(depth):
    network, point = started(Scaling.MEAN_FIELD, depth, 5)
    order = [np.random.default_rng(h).permutation(5) for h in range(depth)]
    parts = network.split(point)

    def permuted(values: list[np.ndarray]) -> np.ndarray:
        moved = [values[0][order[0]]]
        moved += [values[h][np.ix_(order[h], order[h - 1])] for h in range(1, depth)]
        return np.concatenate([*(part.ravel() for part in moved), values[-1][order[-1]]])

    one, other = np.empty_like(point), np.empty_like(point)
    assert network.evaluate(point, one) == pytest.approx(network.evaluate(permuted(parts), other), rel=1e-13)
    np.testing.assert_allclose(permuted(network.split(one)), other, atol=1e-15)


def test_the_limit_of_a_linear_network_is_the_closed_system_of_its_moments():
    given, end = task("identity", 4), 1.5
    laws = replace(LAWS, first=Law(mean=0.4, deviation=1.0))
    network, point = layered_limit(given, laws, 3, 3)
    x, y = given.inputs, given.targets

    def slope(_, state):
        # A = ∫w²V, M = ∫VV', B = ∫(w²)², and of the last layer c = ∫a w³, P = ∫a² + ∫(w³)²; f = c A·x
        a, m, b, c, p = state[:2], state[2:6].reshape(2, 2), state[6], state[7], state[8]
        g = x.T @ (c * (x @ a) - y) / len(y)
        moved = -c * (np.outer(a, g) + np.outer(g, a))
        return np.concatenate([-c * (m @ g + b * g), moved.ravel(), [-2.0 * c * a @ g, -(a @ g) * p, -4.0 * (a @ g) * c]])

    mean = np.full(2, 0.4)
    mu, alpha = laws.middle.mean, laws.last
    begin = [*(mu * mean), *(np.eye(2) + np.outer(mean, mean)).ravel(), mu**2, mu * alpha.mean]
    begin.append(alpha.mean**2 + alpha.deviation**2 + mu**2)
    exact = solve_ivp(slope, (0.0, end), begin, rtol=1e-11, atol=1e-12).y[:, -1]
    final = list(train(network, point, [end], 1e-10))[-1].point
    np.testing.assert_allclose(network.output(final), exact[7] * (x @ exact[:2]), rtol=1e-7)


def test_a_neuron_without_a_share_follows_and_moves_none():
    given = task()
    start = layered_start(given, LAWS, Scaling.MEAN_FIELD, 1, 3, 9)
    for depth in (1, 2, 4):
        alone_, point = layered_limit(given, LAWS, depth, 4)
        both, more = layered_limit(given, LAWS, depth, 4, followed_of([start[1]], [start[0]], 3))
        one, other = (list(train(n, p, [1.0], 1e-9))[-1].point for n, p in ((alone_, point), (both, more)))
        np.testing.assert_allclose(both.output(other), alone_.output(one), atol=1e-8)
        assert len(both.signals(other)[0]) == len(alone_.signals(one)[0]) + 3


def test_neurons_between_the_ends_are_one_in_the_limit_and_means_of_0_leave_it_at_rest():
    network, point = layered_limit(task(), LAWS, 5, 4)
    assert [len(share) for share in network.shares] == [16, 1, 1, 1, 2]
    assert all(sum(share) == pytest.approx(1.0) for share in network.shares)
    centred = replace(LAWS, middle=LAWS.middle.centred)
    for depth, moves in ((2, True), (3, False), (5, False)):
        network, point = layered_limit(task(), centred, depth, 4)
        velocity = np.empty_like(point)
        network.evaluate(point, velocity)
        assert bool(np.max(np.abs(velocity)) > 1e-3) is moves
        assert at_rest(centred, ACTIVATIONS["tanh"], depth) is not moves
    assert not at_rest(centred, ACTIVATIONS["softplus"], 3)
    assert not at_rest(LAWS, ACTIVATIONS["tanh"], 3)
    # the law of the middle weights enters by its mean alone, and so does that of the outer weights' order
    other = layered_limit(task(), replace(LAWS, middle=Law("normal", LAWS.middle.mean, 3.0)), 5, 4)[1]
    np.testing.assert_array_equal(other, layered_limit(task(), LAWS, 5, 4)[1])


def test_fixed_ends_stay_as_they_are():
    given = replace(task(), ends_trained=False)
    network, point = layered_start(given, LAWS, Scaling.MEAN_FIELD, 2, 4, 0)
    end = list(train(network, point, [1.0], 1e-6))[-1]
    (first, middle, last), (v, w, a) = network.split(end.point), network.split(point)
    assert np.array_equal(first, v)
    assert np.array_equal(last, a)
    assert not np.allclose(middle, w)


def test_gauss_rules_have_the_moments_of_their_laws_and_draws_are_nested():
    for kind, fourth in (("uniform", 9.0 / 5.0), ("normal", 3.0)):
        law = Law(kind, 0.3, 0.5)
        nodes, shares = law.rule(4, 2)
        assert shares.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(shares @ nodes, 0.3)
        assert shares @ (nodes[:, 0] - 0.3) ** 4 == pytest.approx(fourth * 0.5**4)
        few, many = (law.draw(np.random.default_rng(0), (rows, 2)) for rows in (3, 50_000))
        np.testing.assert_array_equal(few, many[:3])
        assert np.std(many) == pytest.approx(0.5, rel=0.02)
    assert Law(mean=2.0, deviation=0.0).rule(7, 3)[0].tolist() == [[2.0] * 3]
    with pytest.raises(ValueError, match="nonnegative"):
        Law(deviation=-1.0)


def setup(end: float = 1.0, tolerance: float = 1e-6) -> Setup:
    return Setup(task(), np.zeros((0, 2)), LAWS, (0.0, 0.5 * end, end), tolerance)


def test_gaps_and_neurons_come_to_the_limit_as_the_root_of_the_width():
    given, widths, seeds, depth = setup(), (8, 32, 128), range(16), 3
    starts = [layered_start(given.task, LAWS, Scaling.MEAN_FIELD, depth, 2, seed) for seed in seeds]
    limit = follow_limit(given, depth, 8, followed_of([p for _, p in starts], [n for n, _ in starts], 2))
    assert limit.course.floor < 1e-4
    found = [[compare(given, depth, m, seed, limit, 2 * k, 2) for k, seed in enumerate(seeds)] for m in widths]
    for samples in (
        np.array([[np.max(c.gaps) for c in row] for row in found]),
        *(np.array([[c.coupling[k] for c in row] for row in found]) for k in range(3)),
    ):
        rate = fitted_rate(widths, samples, "rms")
        print(rate)
        assert rate.holds(-0.5)
        assert rate.value == pytest.approx(-0.5, abs=0.15)


def test_layers_collapse_under_the_mean_field_scaling_only():
    for scaling, slope in ((Scaling.MEAN_FIELD, -0.5), (Scaling.LAZY, 0.0), (Scaling.RESIDUAL, 0.0)):
        spreads = []
        for width in (16, 256):
            network, point = started(scaling, 3, width)
            spreads.append(spread(network.signals(point)[1]))
        assert np.log(spreads[1] / spreads[0]) / np.log(16.0) == pytest.approx(slope, abs=0.12), scaling
    moved = np.array([[measure(setup(), Scaling.LAZY, 3, width, seed).moved for seed in range(16)] for width in (16, 128)])
    few, many = np.sqrt(np.mean(moved**2, axis=1))
    np.testing.assert_allclose(np.log(many / few) / np.log(8.0), -0.5, atol=0.15)


def test_residual_limits_come_together_as_their_depth_grows():
    given = setup(0.5)
    outputs = [follow_residual(given, depth, 3).outputs for depth in (2, 4, 8)]
    ratio = np.max(np.abs(outputs[1] - outputs[0])) / np.max(np.abs(outputs[2] - outputs[1]))
    assert ratio == pytest.approx(2.0, abs=0.5)
    network, point = residual_limit(given.task, replace(LAWS, outer=Law(deviation=0.0)), 2, 3)
    assert np.all(network.output(point) == 0.0)


def test_steps_of_the_flow_lower_the_risk_to_the_tolerance_and_stop_when_asked():
    network, point = started(Scaling.MEAN_FIELD, 3, 6)
    fine = list(train(network, point, [0.5, 1.0, 2.0], 1e-11))
    coarse = list(train(network, point, [0.5, 1.0, 2.0], 1e-6))
    assert fine[0].risk > fine[1].risk > fine[2].risk
    assert 1e-14 < np.max(np.abs(fine[-1].point - coarse[-1].point)) < 1e-5
    assert list(train(network, point, [1.0], 1e-6, [2])) == []
    with pytest.raises(StepFailed) as failure:
        list(train(network, np.full_like(point, np.inf), [1.0], 1e-6))
    assert failure.value.status is Status.NOT_FINITE


def test_the_correlation_is_that_of_exchangeable_neurons():
    random = np.random.default_rng(0)
    common, own = random.normal(size=(20_000, 1)), random.normal(size=(20_000, 4))
    for share in (0.0, 0.3, 1.0):
        samples = 2.0 + np.sqrt(share) * common + np.sqrt(1.0 - share) * own
        assert pair_correlation(samples) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("seeds", [3, 4, 6])
def test_intervals_of_few_seeds_hold_the_slope_as_often_as_they_say(seeds):
    random, widths, repeats = np.random.default_rng(seeds), np.array([16, 32, 64, 128]), 500
    gaps = np.abs(random.standard_normal((repeats, 4, seeds))) * widths[:, None] ** -0.5
    held = np.mean([rate_of_few(widths, samples).holds(-0.5) for samples in gaps])
    assert 0.925 < held < 0.98


def test_where_the_limit_rests_only_bounds_at_the_start_are_expected():
    from mfpde.case.multilayer_schema import MultilayerTable

    part = {"depths": [2, 3], "widths": [4, 8, 16], "seeds": 8, "end": 1.0}
    random = np.random.default_rng(0)
    values = {"chaos_gap": random.random((2, 3, 8, 4)), "chaos_coupling": random.random((2, 3, 8, 3))}
    values |= {"collapse_spread": random.random((1, 2, 3, 8, 2, 3)), "collapse_moved": random.random((1, 2, 3, 8, 3))}
    given = {"kind": "multilayer", "inputs": {"count": 4}, "target": "x1", "middle": {"mean": 0.0}, "last": {"mean": 1.0}, "chaos": part}
    table = MultilayerTable.model_validate(given | {"collapse": part | {"scalings": ["mean_field"]}})
    expected = {(fit.part, fit.depth, fit.quantity): fit for fit in (*chaos_fits(table, values), *collapse_fits(table, values))}
    still = [fit for (_, depth, _), fit in expected.items() if depth == 3 and np.isfinite(fit.expected)]
    assert [(fit.quantity, fit.expected, fit.bound) for fit in still] == [("gap at t = 0", -0.5, True), ("spread at t = 0", -0.5, True)]
    assert expected["chaos", 2, "gap, largest over t"].expected == -0.5
    assert expected["collapse", 2, "first weights moved"].expected == 0.0


def test_slopes_without_an_interval_are_open_and_not_missed():
    for rate, missed, vague in (
        (Rate(-0.5, np.nan, np.nan), False, True),
        (Rate(0.0, -0.1, 0.1), True, False),
        (Rate(0, -9, 9), False, True),
    ):
        fit = Fit("chaos", "mean_field", 1, "gap", [2, 4, 8], np.ones((3, 3)), rate, -0.5, False, 0.1)
        assert (fit.misses, fit.vague) == (missed, vague)


CASE = """
title = "small"

[study]
kind = "multilayer"
inputs = { count = 4, test = 3, bias = false }
target = "sin(x1)"

[study.chaos]
depths = [1, 3]
widths = [4, 8, 16]
seeds = 4
neurons = 2
nodes = 8
end = 0.5
count = 2
tolerance = 1e-5
allowance = 0.5

[study.collapse]
depths = [2, 3]
widths = [4, 8, 16]
scalings = ["mean_field", "centred", "lazy", "residual"]
seeds = 3
end = 0.5
count = 2
tolerance = 1e-5
allowance = 0.5

[study.residual]
depths = [2, 4, 8]
widths = [2, 4, 8]
seeds = 3
nodes = 8
end = 4.0
count = 2
tolerance = 1e-5
allowance = 0.5
"""
PARTS = 2 * 3 * 4 + 4 * 2 * 3 * 3 + 3 * 3 * 3


def written(folder, text=CASE):
    path = folder / "case.toml"
    path.write_text(text)
    return str(path)


def numbers(path):
    with h5py.File(path) as file:
        return {name: item[()] for name, item in file.items() if item.dtype.kind == "f"}


def test_the_study_writes_its_files_and_goes_on_to_the_same_bits(tmp_path, capsys, monkeypatch):
    path, whole, cut = written(tmp_path), tmp_path / "whole", tmp_path / "cut"
    assert main(["check", path]) == 0
    assert "against m = ∞" in capsys.readouterr().out
    assert main(["study", path, "--output", str(whole), "--no-figures"]) == 0
    assert "layer 2 is one neuron" in capsys.readouterr().out
    assert {p.name for p in whole.iterdir()} >= {"study.json", "study.csv", "study.h5"}
    data = json.loads((whole / "study.json").read_text())
    assert data["missed"] == []
    assert {slope["part"] for slope in data["slopes"]} == {"chaos", "collapse", "residual"}
    rows = list(csv.DictReader((whole / "study.csv").open()))
    assert {row["scaling"] for row in rows} == {"mean_field", "centred", "lazy", "residual"}
    done = interrupt_and_resume(path, cut, 30, monkeypatch)
    assert len(done) == PARTS - 30
    one, other = numbers(whole / "study.h5"), numbers(cut / "study.h5")
    assert all(np.array_equal(values, other[name], equal_nan=True) for name, values in one.items())


@pytest.mark.long
def test_the_figures_of_the_study_are_written(tmp_path):
    assert main(["study", written(tmp_path), "--output", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {f"study-{name}.png" for name in ("chaos", "collapse", "residual")}


def test_the_figures_have_their_panels_and_what_is_not_as_expected_is_told(tmp_path):
    report = plan_alone(load_study(written(tmp_path))).carry_out(Desk(tmp_path, False, 1.0, []))
    assert report.missed() == []
    panels = [len(make(report).axes) for make in (make_chaos_figure, make_collapse_figure, make_residual_figure)]
    assert panels == [3 * 2, 3 + 2, 3]
    grown = np.array([1.0, 3.0, 9.0])[:, None]
    changes = {
        "chaos_gap": report.values["chaos_gap"] * grown[..., None] ** 2,
        "chaos_floor": report.values["chaos_floor"] + 1.0,
        "collapse_spread": report.values["collapse_spread"] * grown[..., None, None],
        "residual_gap": report.values["residual_gap"] * grown[..., None] ** 2,
        "residual_limit_output": report.values["residual_limit_output"][[2, 0, 1]],
    }
    for name, values in changes.items():
        assert replace(report, values={**report.values, name: values}).missed(), name


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("depths = [1, 3]", "depths = [3, 1]", "study.chaos.depths: the numbers must increase, got 1 after 3"),
        ("widths = [4, 8, 16]", "widths = [4, 8]", "study.chaos.widths: must have at least 3 elements"),
        ("neurons = 2", "neurons = 5", "`neurons` is at most the smallest width 4, got 5"),
        ("widths = [4, 8, 16]\nseeds = 4\nneurons = 2", "widths = [4, 8, 10000]\nseeds = 10000\nneurons = 4", "study.chaos: needs about"),
        ('target = "sin(x1)"', 'target = "x1"\nends = "fixed"', "study.chaos.depths: with ends"),
        ("nodes = 8", "nodes = 500", "study.chaos.nodes: the limit needs"),
        ('scalings = ["mean_field", "centred", ', 'scalings = ["mean_field", "lazy", ', "holds one of its elements twice"),
        ('scalings = ["mean_field", ', 'scalings = ["mean", ', 'study.collapse.scalings[0]: got "mean"; accepted: mean_field'),
        ('target = "sin(x1)"', 'target = "sin(x2)"', "study.target:"),
        ('target = "sin(x1)"', 'target = "log(x1)"', "study.target: "),
        ("count = 4, test = 3", "test = 3", "count"),
        ('target = "sin(x1)"', 'target = "x1"\nactivation = "sine"', 'study.activation: got "sine"; accepted: tanh'),
        ('target = "sin(x1)"', 'target = "x1"\nmiddle = { deviation = -1.0 }', "study.middle.deviation: must be at least 0"),
        ("widths = [2, 4, 8]", "widths = [2, 4, 8]\nwidth = 3", "study.residual.width: unknown key"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, old, new, words):
    assert CASE.count(old) >= 1
    assert main(["study", written(tmp_path, CASE.replace(old, new, 1)), "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.strip()
    assert words in message
    assert len(message.splitlines()) == 1


def test_a_study_without_parts_says_which_there_are(tmp_path, capsys):
    assert main(["study", written(tmp_path, CASE.split("[study.", maxsplit=1)[0]), "--output", str(tmp_path / "out")]) == 2
    assert "[study.chaos], [study.collapse], [study.residual]" in capsys.readouterr().err
