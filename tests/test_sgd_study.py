"""The study of the stability of SGD: its files, resumption, verdicts and messages."""

import csv
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from mfpde.case import load_study
from mfpde.cli import main
from mfpde.run import Status, StepFailed
from mfpde.study.alone import plan_alone
from tests.command import interrupt_and_resume

CASE = """
title = "small"

[study]
kind = "sgd_stability"

[study.diagram]
samples = 6
learning_rates = [1.0]
batches = [1, 6]
points = 3
runs = 400
steps = 5

[study.escape]
learning_rates = [0.5, 0.7]
batches = [1, 2]
distance = 1e-2
steps = 60
runs = 300

[study.training]
dimension = 2
samples = 8
width = 6
factor = 1.0
learning_rates = [0.05, 0.1]
batches = [2, 8]
steps = 500
tolerance = 0.1

[study.particles]
dimension = 2
samples = 10
counts = [4, 8]
time_step = 0.1
times = [0.5, 1.0]
runs = 200
"""
PARTS = 2 + 2 + 4 + 2 + 4


def written(folder, text=CASE):
    path = folder / "case.toml"
    path.write_text(text)
    return str(path)


def numbers(path):
    with h5py.File(path) as file:
        return {name: item[()] for name, item in file.items() if item.dtype.kind == "f"}


def test_the_study_writes_its_files_and_figures(tmp_path, capsys):
    path, out = written(tmp_path), tmp_path / "out"
    assert main(["check", path]) == 0
    assert "a = 2, s = 1.8 at 1" in capsys.readouterr().out
    assert main(["study", path, "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "sufficient, not necessary" in said
    assert "2/η" in said
    figures = {f"study-{name}.png" for name in ("diagram", "escape", "training", "particles")}
    assert {p.name for p in out.iterdir()} >= {"study.json", "study.csv", "study.h5", *figures}
    found = numbers(out / "study.h5")
    for name in ("example_measured", "escape_predicted", "particle_variance", "training_sharpness", "training_critical_rate"):
        assert np.isfinite(found[name]).all(), name
    assert (found["escape_predicted"][:, 1] == 0.0).all(), "gradient descent stays"
    assert found["escape_measured"][1, 0, -1] > 0.9
    data = json.loads((out / "study.json").read_text())
    assert data["study"] == "sgd_stability"
    assert data["missed"] == []
    rows = list(csv.DictReader((out / "study.csv").open()))
    assert {row["part"] for row in rows} == {"diagram", "escape", "training", "particles"}


@pytest.mark.parametrize("name", ["diagram", "escape", "training", "particles"])
def test_every_part_can_stand_alone(name, tmp_path):
    head, *tables = CASE.split("[study.")
    path = written(tmp_path, head + "".join(f"[study.{table}" for table in tables if table.startswith(name)))
    assert main(["study", path, "--output", str(tmp_path / "out"), "--no-figures"]) == 0
    assert json.loads((tmp_path / "out" / "study.json").read_text())["missed"] == []


def test_an_interrupted_study_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    path, whole, cut = written(tmp_path), tmp_path / "whole", tmp_path / "cut"
    assert main(["study", path, "--output", str(whole), "--no-figures"]) == 0
    done = interrupt_and_resume(path, cut, 9, monkeypatch)
    assert len(done) == PARTS - 9
    one, other = numbers(whole / "study.h5"), numbers(cut / "study.h5")
    assert all(np.array_equal(values, other[name], equal_nan=True) for name, values in one.items())


def test_runs_that_are_not_as_predicted_are_told(tmp_path):
    from mfpde.study.alone import Desk

    plan = plan_alone(load_study(written(tmp_path)))
    report = plan.carry_out(Desk(tmp_path, False, 1.0, []))
    assert report.missed() == []
    shifts = {"diagram_measured": 3.0, "example_measured": 3.0, "escape_measured": 0.0, "training_sharpness": 100.0}
    for name, factor in shifts.items():
        assert len(replace(report, values={**report.values, name: factor * report.values[name]}).missed()) >= 1, name


def test_an_eigenvalue_that_does_not_converge_is_a_status(tmp_path, monkeypatch, capsys):
    from mfpde.sgd import solution

    def fail(*_):
        raise StepFailed(Status.NOT_CONVERGED, "the sharpness of 24 parameters: no convergence")

    monkeypatch.setattr(solution, "largest_eigenvalue", fail)
    assert main(["study", written(tmp_path), "--output", str(tmp_path / "out"), "--no-figures"]) == 3
    assert "NOT_CONVERGED" in capsys.readouterr().err


def test_particles_that_blow_up_are_a_status(tmp_path, capsys):
    text = "[study]" + CASE.split("[study]")[1].split("[study.diagram]")[0] + "[study.particles]" + CASE.split("[study.particles]")[1]
    path = written(tmp_path, text.replace("time_step = 0.1", 'time_step = 0.5\nactivation = "quadratic"\nsteepness = 1e6'))
    assert main(["study", path, "--output", str(tmp_path / "out"), "--no-figures"]) == 3
    assert "N = 4, τ = 0.5: losses grow beyond all bounds" in capsys.readouterr().err


def test_nothing_to_draw_is_no_failure(tmp_path):
    text = CASE.replace("learning_rates = [0.05, 0.1]", "learning_rates = [100.0, 1e9]")
    text = text.replace("time_step = 0.1", "time_step = 0.1\nbatch = 10\nreplacement = false")
    assert main(["study", written(tmp_path, text), "--output", str(tmp_path / "out")]) == 0


def test_the_schema_knows_the_study(capsys):
    assert main(["schema"]) == 0
    assert "SgdStabilityTable" in json.loads(capsys.readouterr().out)["$defs"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"sgd_stability"', '"sgd"', 'study.kind: got "sgd"; accepted: '),
        ("batches = [1, 6]", "batches = [1, 7]", "study.diagram.batches: a batch without replacement has at most the 6 samples"),
        ("batches = [1, 2]", "batches = [1, 3]", "study.escape.batches: a batch without replacement has at most the 2 samples"),
        ("batches = [2, 8]", "batches = [2, 9]", "study.training.batches"),
        ("batches = [2, 8]", "batches = [8, 2]", "the numbers must increase, got 2 after 8"),
        ("learning_rates = [0.5, 0.7]", "learning_rates = [0.7, 0.5]", "the numbers must increase, got 0.5 after 0.7"),
        ("learning_rates = [0.5, 0.7]", "learning_rates = [0.0, 0.7]", "study.escape.learning_rates[0]: must be at least 1e-12"),
        ("points = 3", "point = 3", "study.diagram.point: unknown key"),
        ("distance = 1e-2", "distance = 0.5", "closer to 1 than 0.4204, got 0.5"),
        ("distance = 1e-2", "distance = 1e-2\nleft = [1.0]", "equally many coefficients, got 1 and 2"),
        ("distance = 1e-2", "distance = 1e-2\nright = [0.1, -1.9]", "study.escape.right[1]: must be at least"),
        ("time_step = 0.1", "time_step = 0.3", "study.particles.times: the time 0.5 is no multiple of the step 0.3"),
        ("time_step = 0.1", 'time_step = 0.1\nactivation = "sine"', 'study.particles.activation: got "sine"; accepted: tanh'),
        ("time_step = 0.1", "time_step = 0.1\nbatch = 11\nreplacement = false", "study.particles.batch: a batch without"),
        ("runs = 200", "runs = 2", "study.particles.runs: must be at least 20"),
        ("width = 6", "width = 0", "study.training.width: must be at least 1"),
        ("width = 6\n", "", "the key `width` is missing"),
        ("runs = 300", "runs = 10000000\ncopies = 1000\nreplacement = false", "GB, more than there is"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, old, new, words):
    assert CASE.count(old) >= 1
    assert main(["study", written(tmp_path, CASE.replace(old, new, 1)), "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.strip()
    assert words in message
    assert len(message.splitlines()) == 1


def test_a_study_without_parts_says_which_there_are(tmp_path, capsys):
    head = CASE.split("[study.", maxsplit=1)[0]
    assert main(["study", written(tmp_path, head), "--output", str(tmp_path / "out")]) == 2
    assert "[study.diagram], [study.escape], [study.training], [study.particles]" in capsys.readouterr().err
