"""Relu networks under both scalings: closed forms, random features, training, and the study of them."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mfpde.case import load_case
from mfpde.case.build import build_problem, build_solver
from mfpde.cli import main
from mfpde.measure import Particles
from mfpde.run import StepFailed
from mfpde.scaling import (
    Circle,
    EmpiricalRisk,
    GaussianInputs,
    GradientDescent,
    GradientFlow,
    Network,
    Neurons,
    PopulationRisk,
    RandomFeatures,
    Scaling,
    SphereInputs,
    circle_overlap,
    distance,
    relu_kernel,
    square_norm,
    start,
    train,
)
from mfpde.scaling.experiments import Setup, course, departure, outcome
from mfpde.scaling.kernel import kernel_sums
from mfpde.scaling.risks import rotated

Array = np.ndarray


def single(dimension: int) -> Neurons:
    return Neurons(np.eye(1, dimension), np.ones(1))


def some_neurons(count: int, dimension: int, seed: int = 0) -> Neurons:
    generator = np.random.default_rng(seed)
    return Neurons(generator.normal(size=(count, dimension)), generator.normal(size=count))


def some_samples(count: int, dimension: int) -> EmpiricalRisk:
    points = np.random.default_rng(5).normal(size=(count, dimension))
    return EmpiricalRisk(points, np.sin(points[:, 0]) + 0.5 * np.abs(points[:, 1]))


RISKS = {
    "neurons": PopulationRisk(some_neurons(3, 5)),
    "sphere": PopulationRisk(some_neurons(2, 5), SphereInputs(1.0).second_moment(5)),
    "circle": PopulationRisk(Circle(5)),
    "samples": some_samples(40, 5),
}


@pytest.mark.parametrize("name", RISKS)
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_gradients_are_differences_of_the_risk(name, factor):
    risk, width, dimension = RISKS[name], 4, 5
    generator = np.random.default_rng(1)
    point = generator.normal(size=width * (1 + dimension))
    slope, scratch, differences = np.empty_like(point), np.empty_like(point), np.empty_like(point)

    def value(at: Array, out: Array) -> float:
        return risk.slope(at[:width], at[width:].reshape(width, dimension), factor, out)

    value(point, slope)
    for k, direction in enumerate(np.eye(len(point))):
        differences[k] = (value(point + 1e-5 * direction, scratch) - value(point - 1e-5 * direction, scratch)) / (2e-5 * factor)
    assert np.max(np.abs(slope - differences)) <= 1e-7


def test_the_kernel_is_the_expectation_over_a_plane():
    one, two = np.random.default_rng(0).normal(size=(2, 6, 2))
    angles = np.linspace(0.0, 2.0 * np.pi, 200_001)[:-1]
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    products = np.maximum(one @ circle.T, 0.0) @ np.maximum(circle @ two.T, 0.0) / len(circle)
    assert relu_kernel(one, two) == pytest.approx(2.0 * products, abs=1e-9)  # E r² = 2


def test_the_kernel_is_the_mean_over_draws_and_on_spheres_it_differs_by_a_factor():
    vectors, generator = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1)
    for inputs in (GaussianInputs(1.5), SphereInputs(), SphereInputs(3.0)):
        values = np.maximum(inputs.sample(generator, 400_000, 4) @ vectors.T, 0.0)
        expected = inputs.second_moment(4) * relu_kernel(vectors, vectors)
        assert values.T @ values / len(values) == pytest.approx(expected, rel=0.02, abs=0.02)


def test_sums_of_the_kernel_agree_with_its_matrix():
    vectors = np.vstack([np.random.default_rng(0).normal(size=(700, 3)), np.zeros((1, 3))])
    weights = np.random.default_rng(1).normal(size=701)
    assert kernel_sums(vectors, weights) == pytest.approx(relu_kernel(vectors, vectors) @ weights, abs=1e-11)
    assert square_norm(np.array([1.0, -1.0]), np.array([[1.0, 2.0], [1.0, 2.0]])) <= 1e-15


def test_the_circle_neuron_is_the_limit_of_many_neurons():
    angles = np.linspace(0.0, 2.0 * np.pi, 2001)[:-1]
    ring = Neurons(np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1), np.full(2000, 1.0 / 2000))
    vectors, circle = np.random.default_rng(0).normal(size=(5, 3)), Circle(3)
    vectors[0, 2] = 0.0
    vectors[1, :2] = 0.0
    for found, expected in zip(circle.overlap(vectors, circle.directions), ring.overlap(vectors, ring.directions), strict=True):
        assert found == pytest.approx(expected, abs=2e-6)
    assert circle.square == pytest.approx(ring.square, rel=1e-6)
    assert circle.values(vectors) == pytest.approx(ring.values(vectors), abs=1e-6)
    value, slope = circle_overlap(np.eye(1, 3), circle.directions)
    assert (value[0], slope[0, 0]) == pytest.approx((2.0 / np.pi**2, 2.0 / np.pi**2), rel=1e-12)


def test_the_risk_is_half_the_mean_square_of_the_error():
    network = Network(np.array([0.7, -0.4]), np.random.default_rng(0).normal(size=(2, 3)), 0.5)
    points = np.random.default_rng(1).normal(size=(400_000, 3))
    target, out = some_neurons(2, 3), np.empty(8)
    sampled = 0.5 * np.mean((network.values(points) - target.values(points)) ** 2)
    risk = PopulationRisk(target)
    assert risk.slope(network.outer, network.inner, network.factor, out) == pytest.approx(sampled, rel=0.01)
    assert risk.value(network.outer, network.inner, network.factor) == pytest.approx(
        risk.slope(network.outer, network.inner, network.factor, out), rel=1e-12
    )
    samples = EmpiricalRisk(points[:1000], target.values(points[:1000]))
    direct = 0.5 * np.mean((network.values(points[:1000]) - target.values(points[:1000])) ** 2)
    assert samples.slope(network.outer, network.inner, network.factor, out) == pytest.approx(direct, rel=1e-12)


def test_turning_into_the_span_changes_nothing():
    risk, network = PopulationRisk(Circle(30)), replace(start(0, 6, 30), outer=np.linspace(-1.0, 1.0, 6))
    turned, inner, basis = rotated(risk, network.inner)
    assert basis is not None
    assert inner.shape == (6, 8)
    assert inner @ basis.T == pytest.approx(network.inner, abs=1e-14)
    long, short = np.empty(6 * 31), np.empty(6 * 9)
    assert turned.slope(network.outer, inner, 1.0, short) == pytest.approx(risk.slope(network.outer, network.inner, 1.0, long), rel=1e-13)
    assert short[6:].reshape(6, 8) @ basis.T == pytest.approx(long[6:].reshape(6, 30), abs=1e-14)


@pytest.mark.parametrize("risk", [PopulationRisk(some_neurons(3, 4)), some_samples(25, 4), some_samples(6, 4)], ids=["law", "many", "few"])
def test_the_random_feature_flow_is_that_of_an_ode_solver(risk):
    network = start(0, 12, 4, outer=0.5)
    scratch = np.empty(12 * 5)

    def velocity(_: float, outer: Array) -> Array:
        risk.slope(outer, network.inner, 1.0, scratch)
        return -scratch[:12].copy()

    times = [0.3, 2.0, 20.0]
    solved = solve_ivp(velocity, (0.0, 20.0), network.outer, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13)
    features = RandomFeatures.of(risk, network)
    for k, time in enumerate(times):
        assert features.at(time).outer == pytest.approx(solved.y[:, k], abs=1e-9)
    risk.slope(features.at(math.inf).outer, network.inner, 1.0, scratch)
    assert np.max(np.abs(scratch[:12])) <= 1e-11


def test_random_features_by_gradient_descent_are_its_iterations():
    risk, network, rate = some_samples(25, 4), start(0, 12, 4, outer=0.5), 0.1
    outer, scratch = network.outer.copy(), np.empty(12 * 5)
    for _ in range(37):
        risk.slope(outer, network.inner, 1.0, scratch)
        outer -= rate * scratch[:12]
    assert RandomFeatures.of(risk, network, rate).at(3.7).outer == pytest.approx(outer, abs=1e-12)


def test_training_is_that_of_an_ode_solver_and_balance_is_kept():
    risk, network = PopulationRisk(some_neurons(2, 3)), start(0, 5, 3)
    scratch = np.empty(20)

    def velocity(_: float, point: Array) -> Array:
        risk.slope(point[:5], point[5:].reshape(5, 3), 1.0, scratch)
        return -scratch.copy()

    first = np.concatenate([network.outer, network.inner.ravel()])
    solved = solve_ivp(velocity, (0.0, 8.0), first, method="DOP853", rtol=1e-12, atol=1e-13)
    *_, last = train(risk, network, [0.0, 1.0, 8.0], GradientFlow(1e-10))
    assert np.concatenate([last.network.outer, last.network.inner.ravel()]) == pytest.approx(solved.y[:, -1], abs=1e-7)
    assert np.max(np.abs(last.network.balance - network.balance)) <= 1e-9
    early = solve_ivp(velocity, (0.0, 1.0), first, method="DOP853", rtol=1e-13, atol=1e-14).y[:5, -1]
    ends = [list(train(risk, network, [1.0], GradientFlow(step=step)))[-1].network.outer for step in (0.1, 0.05, 0.025)]
    errors = [float(np.max(np.abs(end - early))) for end in ends]
    print(f"steps 0.1, 0.05, 0.025: errors {errors}")
    assert math.log2(errors[1] / errors[2]) == pytest.approx(5.0, abs=0.4)


@pytest.mark.parametrize("scaling", Scaling)
def test_balance_is_kept_where_neurons_cross_samples(scaling):
    network = replace(start(0, 20, 4), factor=scaling.factor(20))
    for tolerance in (1e-4, 1e-6):
        for moment in train(some_samples(30, 4), network, [0.0, 1.0, 5.0], GradientFlow(tolerance)):
            assert np.max(np.abs(moment.network.balance - network.balance)) <= min(100.0 * tolerance, 10.0 * moment.allowed + 1e-13)


def test_gradient_descent_tends_to_the_flow_and_moves_the_balance():
    risk, network = PopulationRisk(single(3)), start(0, 6, 3)
    *_, flow = train(risk, network, [2.0], GradientFlow(1e-10))
    gaps = []
    for rate in (0.02, 0.01):
        *_, descent = train(risk, network, [2.0], GradientDescent(rate))
        assert descent.steps == round(2.0 / rate)
        gaps.append(distance(descent.network, flow.network))
    assert math.log2(gaps[0] / gaps[1]) == pytest.approx(1.0, abs=0.1)


def test_too_large_a_learning_rate_says_so():
    with pytest.raises(StepFailed, match="rate 9 blows up"), np.errstate(all="ignore"):
        list(train(some_samples(30, 4), start(0, 20, 4), [1000.0], GradientDescent(9.0)))


def test_mean_field_training_is_the_particle_flow_of_the_same_energy(tmp_path):
    """ρ_t = div(ρ∇δE/δρ) on (w, b) with E = ½E(∫w relu(b·x)ρ − y)², samples in a file, by another integrator and another energy."""
    risk, width = some_samples(40, 2), 30
    network = replace(start(3, width, 2), factor=1.0 / width)
    with (tmp_path / "data.csv").open("w", newline="") as file:
        rows = [[repr(float(x)) for x in row] for row in np.column_stack([risk.points, risk.values])]
        csv.writer(file).writerows([["u", "v", "y"], *rows])
    axes = "".join(f"[domain.{name}]\nlower = -20.0\nupper = 20.0\n" for name in ("b1", "b2", "w"))
    atoms = [[*map(float, b), float(a)] for a, b in zip(network.outer, network.inner, strict=True)]
    (tmp_path / "case.toml").write_text(
        axes + '[[energy]]\nkind = "two_layer"\nactivation = "relu"\noutput = "trained"\nteacher = { column = "y" }\n'
        'inputs = { law = "samples", file = "data.csv", columns = ["u", "v"] }\n'
        f"[initial]\natoms = {atoms}\n"
        '[time]\nsave = [0.0, 2.0]\n[[solver]]\nkind = "particles"\ntolerance = 1e-10\n'
    )
    case = load_case(tmp_path / "case.toml")
    problem = build_problem(case)
    run = build_solver(case, 0).solve(problem)
    *_, last = train(risk, network, [2.0], GradientFlow(1e-10))
    assert isinstance(run.final, Particles)
    assert run.final.points == pytest.approx(np.column_stack([last.network.inner, last.network.outer]), abs=1e-6)
    assert run.total_energy[-1] == pytest.approx(last.risk, rel=1e-6)


# What is known of the dynamics.


def test_a_conventional_network_quenches_its_neurons_and_a_mean_field_one_does_not():
    setup = Setup(single(40), 40)
    ends = {}
    for scaling in Scaling:
        found = course(setup, scaling, 20, 1, None, [0.0, 1.0, 200.0], GradientFlow(1e-6))
        assert found is not None
        ends[scaling] = found
    fast, features = ends[Scaling.CONVENTIONAL]
    slow = ends[Scaling.MEAN_FIELD][0]
    assert fast.values["risk"][-1] <= 1e-3 <= 0.05 <= features.values["risk"][-1]
    assert slow.values["risk"][-1] <= 1e-3
    assert fast.values["participation"][-1] <= 4.0 <= 8.0 <= slow.values["participation"][-1]
    assert fast.values["path_norm"][-1] == pytest.approx(1.0, abs=0.1)
    assert slow.values["path_norm"][-1] == pytest.approx(1.0, abs=0.15)
    assert fast.values["distance"][1] <= 0.1 * fast.values["distance"][-1]


def test_wide_conventional_networks_are_close_to_random_features():
    setup, widths = Setup(single(10), 10), (100, 200, 400)
    found = [departure(setup, width, 0, 10, np.geomspace(1e-2, 3.0, 6).tolist(), GradientFlow(1e-6)) for width in widths]
    slopes = np.polyfit(np.log(widths), np.log(np.array(found, dtype=float)), 1)[0]
    print(f"distance and displacement: slopes {slopes}")
    assert slopes[0] <= -1.5  # the theorem has -1
    assert slopes[1] <= -1.0


def test_the_outcome_of_a_cell_is_that_of_its_network():
    setup = Setup(Circle(4), 4)
    found = outcome(setup, 8, 0, 15, 5.0, GradientDescent(0.1))
    assert found is not None
    *_, last = train(setup.risk(15, 0), setup.network(Scaling.MEAN_FIELD, 8, 0), [5.0], GradientDescent(0.1))
    assert found["mean_field"][:3].tolist() == [
        last.risk,
        setup.test.value(last.network.outer, last.network.inner, last.network.factor),
        last.network.path_norm,
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Neurons(np.zeros((1, 2)), np.ones(1)), "no neuron 0"),
        (lambda: Neurons(np.ones((2, 2)), np.ones(1)), "as many weights"),
        (lambda: Circle(1), "two or more dimensions"),
        (lambda: EmpiricalRisk(np.ones((3, 2)), np.ones(2)), "as many values"),
        (lambda: EmpiricalRisk(np.full((1, 2), np.nan), np.ones(1)), "finite"),
        (lambda: GradientFlow(0.0), "tolerance must be positive"),
        (lambda: GradientDescent(-1.0), "learning rate must be positive"),
        (lambda: RandomFeatures.of(RISKS["neurons"], Network(np.ones(1), np.ones((1, 5)), 0.5)), "factor 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# The study.

CASE = """title = "small"
[study]
kind = "two_scalings"
dimension = 4
target = { kind = "neuron" }
[study.curves]
width = 5
end = 2.0
count = 4
seeds = 2
[study.heat_map]
widths = [3, 6]
samples = [5, 10, 15]
seeds = 2
end = 1.0
[study.lazy]
widths = [20, 40, 80]
samples = 6
count = 3
seeds = 2
end = 1.0
expected = -1.0
allowance = 9.0
"""


def written(folder: Path, text: str = CASE) -> str:
    path = folder / "case.toml"
    path.write_text(text)
    return str(path)


def test_a_study_alone_writes_its_files_and_resumes_to_the_same_bits(tmp_path, capsys):
    path, out = written(tmp_path), tmp_path / "out"
    assert main(["check", path]) == 0
    assert "heat map: m = 3, 6; n = 5, 10, 15" in capsys.readouterr().out
    assert main(["study", path, "--output", str(out)]) == 0
    assert {p.name for p in out.iterdir()} >= {
        "study.json",
        "study.csv",
        "study.h5",
        "study-curves.png",
        "study-paths.png",
        "study-heat-map.png",
        "study-lazy.png",
    }
    whole = _arrays(out / "study.h5")
    assert np.isfinite(whole["heat_risk"]).all()
    assert np.isfinite(whole["curve_risk"]).all()
    inner, outer = whole["curve_inner"], whole["curve_outer"]
    assert np.array_equal(inner[2], np.broadcast_to(inner[2, :, :1], inner[2].shape))  # random features stay
    assert np.array_equal(inner[0, :, 0], inner[2, :, 0])
    assert not np.array_equal(inner[0, :, 0], inner[0, :, -1])
    assert np.array_equal(np.sign(outer), np.sign(whole["curve_strength"]))
    data = json.loads((out / "study.json").read_text())
    assert data["study"] == "two_scalings"
    assert data["arrays"]["heat_risk"]["dimensions"] == ["model", "heat_seed", "width", "samples"]
    assert len(list(csv.reader((out / "study.csv").open()))) == 1 + 3 * 2 + 3 * 2 * 6 + 6
    with h5py.File(out / "study" / "parts.h5", "r+") as file:
        file["ended_heat_map"][0, 1, 1] = 0
        arrays = {name: item[()] for name, item in file.items()}
    assert main(["study", path, "--output", str(out), "--resume", "--no-figures"]) == 0
    assert "damaged; starting anew" in capsys.readouterr().out
    assert arrays["heat_risk"].shape == (3, 2, 2, 3)
    assert main(["study", path, "--output", str(out), "--resume", "--no-figures"]) == 0
    assert all(np.array_equal(values, whole[name], equal_nan=True) for name, values in _arrays(out / "study.h5").items())


def test_an_interrupted_study_goes_on(tmp_path, monkeypatch):
    from mfpde.study import ledger

    path, whole, cut = written(tmp_path), tmp_path / "whole", tmp_path / "cut"
    assert main(["study", path, "--output", str(whole), "--no-figures"]) == 0
    left = [7]
    end = ledger.Ledger.end

    def end_some(self, group, index):
        end(self, group, index)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "end", end_some)
        assert main(["study", path, "--output", str(cut), "--no-figures"]) == 130
    done = []
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "end", lambda self, group, index: done.append(group) or end(self, group, index))
        assert main(["study", path, "--output", str(cut), "--no-figures", "--resume"]) == 0
    assert len(done) == 4 + 12 + 6 - 7
    assert all(np.array_equal(v, _arrays(whole / "study.h5")[k], equal_nan=True) for k, v in _arrays(cut / "study.h5").items())


def _arrays(path: Path) -> dict[str, Array]:
    with h5py.File(path) as file:
        return {name: item[()] for name, item in file.items() if item.dtype.kind == "f"}


def test_a_slope_that_is_missed_is_said_with_code_3(tmp_path, capsys):
    path = written(tmp_path, CASE.replace("expected = -1.0\nallowance = 9.0", "expected = -9.0"))
    assert main(["study", path, "--output", str(tmp_path / "out"), "--no-figures"]) == 3
    assert "expected at most -9" in capsys.readouterr().err


def test_run_says_which_command_a_study_alone_is_for(tmp_path, capsys):
    path = written(tmp_path)
    assert main(["run", path]) == 2
    assert f"`mfpde study {path}` carries it out" in capsys.readouterr().err


def test_the_schema_knows_studies_alone(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "TwoScalingsTable" in schema["$defs"]
    assert len(schema["anyOf"]) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"two_scalings"', '"two_scaling"', 'study.kind: got "two_scaling"; accepted: two_scalings'),
        ('kind = "two_scalings"\n', "", "accepted: two_scalings"),
        (
            '{ kind = "neuron" }',
            '{ kind = "neurone" }',
            'study.target.kind: got "neurone"; accepted: neuron, neurons, random_neurons, circle',
        ),
        ('{ kind = "neuron" }', "{ count = 3 }", "accepted: neuron, neurons, random_neurons, circle"),
        ("width = 5", "with = 5", "study.curves.with: unknown key"),
        ("[3, 6]", "[6, 3]", "the numbers must increase, got 3 after 6"),
        ("samples = 6", "samples = 0", "study.lazy.samples: must be at least 1, got 0"),
        ("end = 2.0", "end = 2.0\nlearning_rate = 0.1", "`learning_rate` is that of"),
        ("seeds = 2\nend = 1.0\n[study.lazy]", "seeds = 2\nend = 1.0\nstep = 0.1\n[study.lazy]", "`step` is that of"),
        ('dimension = 4\ntarget = { kind = "neuron" }', 'dimension = 1\ntarget = { kind = "circle" }', "needs dimension 2 or more, got 1"),
        ('{ kind = "neuron" }', '{ kind = "neurons", neurons = [[1.0]] }', "have 1 coordinates, got dimension 4"),
        ("width = 5", "width = 100000", "GB, more than there is"),
        ("end = 1.0\n[study.lazy]", "end = 1.0\nlearning_rate = 1e-30\n[study.lazy]", "study.heat_map.learning_rate: up to t = 1 there"),
        ('{ kind = "neuron" }', '{ kind = "neurons", neurons = [[1.0]], weights = [1e31] }', "study.target.weights[0]: must be at most"),
        ("title", "solver = []\ntitle", "solver: unknown key; accepted here: title, study"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, old, new, words):
    assert old in CASE
    assert main(["study", written(tmp_path, CASE.replace(old, new, 1)), "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.strip()
    assert words in message
    assert message.startswith("mfpde: ")


def test_the_smallest_networks_and_a_target_of_zero_are_drawn_and_reported(tmp_path, capsys):
    text = (
        CASE.replace("width = 5", "width = 1").replace("widths = [3, 6]", "widths = [1]").replace("samples = [5, 10, 15]", "samples = [1]")
    )
    text = text.replace('{ kind = "neuron" }', '{ kind = "neurons", neurons = [[1.0, 0.0, 0.0, 0.0]], weights = [0.0] }').replace(
        "expected = -1.0\nallowance = 9.0\n", ""
    )
    assert main(["study", written(tmp_path, text), "--output", str(tmp_path / "out")]) == 0
    assert "slope unknown (a value is 0)" in capsys.readouterr().out


def test_a_failure_names_its_part(tmp_path, capsys):
    text = CASE.replace("end = 1.0\n[study.lazy]", "end = 1000.0\nlearning_rate = 50.0\n[study.lazy]")
    with np.errstate(all="ignore"):
        assert main(["study", written(tmp_path, text), "--output", str(tmp_path / "out")]) == 3
    assert "heat_map, m = 3, n = 5, seed 0: gradient descent with rate 50 blows up" in capsys.readouterr().err
