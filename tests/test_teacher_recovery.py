"""Does a student reach its teacher's measure, or only what the network sees of it?"""

import json

import h5py
import numpy as np
import pytest
from command import call

from mfpde.case import load_case
from mfpde.case.build import build_problem
from mfpde.distance import wasserstein
from mfpde.distance.parity import parity_distances
from mfpde.domain import Axis, Domain
from mfpde.measure import Density, Particles
from mfpde.study.teacher_recovery import OUTCOMES, Row
from mfpde.study.teacher_recovery_plan import plan

CASE = """
title = "A student"
[domain.theta]
lower = -4.0
upper = 4.0
[[energy]]
kind = "two_layer"
activation = "gaussian"
teacher = {teacher}
[initial]
density = "exp(-theta**2)"
[time]
save = [0.0, 1.0, 30.0]
[[solver]]
kind = "finite_volume"
cells = [64]
[[solver]]
kind = "particles"
label = "atoms"
count = 50
start = "quantile"
[study]
kind = "teacher_recovery"
{study}
"""
DENSITY = '{ density = "exp(-4*(theta - 1)**2)" }'


def write(folder, study="", teacher=DENSITY):
    path = folder / "case.toml"
    path.write_text(CASE.replace("{teacher}", teacher).replace("{study}", study))
    return path


def test_parity_splits_the_first_wasserstein_distance():
    domain = Domain((Axis("x", -3.0, 3.0),))
    one, other = Particles(np.array([[1.0], [2.0]]), np.array([0.5, 0.5])), Particles(np.array([[-1.0], [2.0]]), np.array([0.5, 0.5]))
    split = parity_distances(one, other)
    assert split["even"] == pytest.approx(0.0, abs=1e-15)  # the even parts are equal
    assert split["odd"] == pytest.approx(wasserstein(one, other, domain, 1).value)
    grid, rng = domain.grid((30,)), np.random.default_rng(0)
    density = Density(grid, rng.random(30) / 3.0)
    density = Density(grid, density.values / density.mass)
    mirrored = Density(grid, np.ascontiguousarray(density.values[::-1]))
    assert parity_distances(density, mirrored)["even"] == pytest.approx(0.0, abs=1e-14)
    assert parity_distances(density, mirrored)["odd"] == pytest.approx(wasserstein(density, mirrored, domain, 1).value)
    split, whole = parity_distances(density, one), wasserstein(density, one, domain, 1).value
    assert max(split.values()) <= whole <= sum(split.values())


def test_an_even_activation_keeps_the_odd_part_that_it_does_not_see(tmp_path):
    study = 'starts = { far = "exp(-2*(theta + 1)**2)" }\nactivations = ["gaussian", "tanh"]\n'
    study += 'residual = 0.1\nexpected = { gaussian = "function" }'
    path = write(tmp_path, study)
    answer = call("study", path, "--output", tmp_path / "out", "--no-figures")
    assert answer.code == 0, answer.err
    data = json.loads((tmp_path / "out" / "study.json").read_text())
    rows = {(row["activation"], row["start"]): row for row in data["runs"]}
    assert len(rows) == 4
    even = rows["gaussian", "initial"]
    assert even["outcome"] == "function only"
    assert even["unseen"][-1] == pytest.approx(even["unseen"][0], rel=1e-6)  # from an even start it stays that of the teacher
    assert even["seen"][-1] < 0.3 * even["seen"][0]
    assert rows["tanh", "far"]["distance"][-1] < 0.3 * rows["gaussian", "far"]["distance"][-1]
    again = call("study", path, "--output", tmp_path / "out", "--no-figures", "--resume")
    assert again.code == 0
    assert again.out.count("complete already") == 4


@pytest.mark.parametrize(("last", "words"), [(0.995, "stands still, 1 → 0.995"), (0.9, "still falls, 1 → 0.9"), (1.1, "grows, 1 → 1.1")])
def test_what_w2_does_in_the_end_is_said_with_its_times(last, words):
    one, grid = np.ones(2), Domain((Axis("x", -1.0, 1.0),))
    away = np.array([1.0, last])
    row = Row("tanh", "initial", grid, np.array([0.1, 0.2]), away, 0.0 * one, "exact", one, one, one, one, (), OUTCOMES["unlearned"])
    assert f"W2 {words} from t = 0.1 to 0.2" in row.verdict


def test_runs_whose_numbers_are_undefined_are_made_again(tmp_path):
    options = ("study", write(tmp_path, 'solver = "atoms"'), "--output", tmp_path / "out", "--no-figures")
    assert call(*options).code == 0
    stored = tmp_path / "out" / "study" / "gaussian-initial.h5"
    for name in ("energy_two_layer", "steps/mass"):
        with h5py.File(stored, "r+") as file:
            file[name][...] = np.nan
        answer = call(*options, "--resume")
        assert answer.code == 0
        assert f"(/{name} must not be nan)); starting anew" in answer.out


def test_outcomes_that_are_missed_are_said(tmp_path):
    study = 'solver = "atoms"\ndistance = 1e-6\nresidual = 1e-6\nexpected = { gaussian-initial = "recovered" }'
    answer = call("study", write(tmp_path, study), "--output", tmp_path / "out")
    assert answer.code == 3
    assert "expected recovered, found not learned yet" in answer.err
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["study-densities.png", "study-recovery.png"]


@pytest.mark.parametrize(
    ("study", "teacher", "words"),
    [
        ("", "{ neurons = [[1.0], [0.5]], weights = [2.0, -1.0] }", "positive with sum one"),
        ('solver = "atom"', DENSITY, "accepted: finite_volume, atoms"),
        ('expected = { relu = "function" }', DENSITY, "is no activation or run of this study"),
        ('starts = { initial = "1" }', DENSITY, "choose another"),
        ('starts = { "é ü" = "1" }', DENSITY, 'cannot be called "é ü"; accepted: up to 64 letters'),
        ('starts = { wild = "log(theta)" }', DENSITY, "gaussian-wild"),
    ],
)
def test_what_cannot_be_recovered_is_refused(tmp_path, study, teacher, words):
    answer = call("check", write(tmp_path, study, teacher))
    assert answer.code == 2
    assert words in answer.err
    assert "Traceback" not in answer.err


def test_a_teacher_of_neurons_is_a_measure_of_atoms(tmp_path):
    case = load_case(write(tmp_path, "", "{ neurons = [[1.0], [-1.0]] }"))
    teacher = plan(case, case.table.study, build_problem(case)).teacher
    assert isinstance(teacher, Particles)
    assert teacher.weights.tolist() == [0.5, 0.5]


def test_a_measure_nearby_is_not_recovered_before_its_function_is_learned(tmp_path):
    path = write(tmp_path, "distance = 3.0\nresidual = 1e-6")
    answer = call("study", path, "--output", tmp_path / "out", "--no-figures", "--set", "time.save=[0.0]")
    assert answer.code == 0
    assert "not learned yet" in answer.out
