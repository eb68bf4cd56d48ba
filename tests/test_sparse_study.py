"""The study of regularised recovery: its files, resumption, verdicts and messages."""

import csv
import json

import h5py
import numpy as np
import pytest

from mfpde.cli import main
from mfpde.study.sparse_text import SparseReport, _at_end, late_rate
from tests.command import interrupt_and_resume

CASE = """
title = "small"

[study]
kind = "sparse_recovery"
teacher = { neurons = [[1.0, 0.0], [-0.5, 1.0]], weights = [1.0, 0.7] }
path_norm = [0.2, 0.3]
students = 8
seeds = 2
"""


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
    assert main(["study", path, "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "J* is reached from 2 of 2 starts, students merge from 2" in said
    assert {p.name for p in out.iterdir()} >= {"study.json", "study.csv", "study.h5", "study-excess.png", "study-directions.png"}
    found = numbers(out / "study.h5")
    assert (found["solution_gap"] <= 1e-12).all()
    assert (found["run_final_excess"] <= 1e-12 * found["solution_value"][:, None]).all()
    np.testing.assert_allclose(found["run_rate"], found["run_predicted"], rtol=0.03)
    data = json.loads((out / "study.json").read_text())
    assert data["study"] == "sparse_recovery"
    assert data["missed"] == []
    assert data["teacher_determined"]
    rows = list(csv.DictReader((out / "study.csv").open()))
    assert {"least_quarter", "largest_quarter"} < set(rows[0])
    assert {row["quantity"] for row in rows} == {"rate", "relative_excess"}


def test_an_interrupted_study_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    path, whole, cut = written(tmp_path), tmp_path / "whole", tmp_path / "cut"
    assert main(["study", path, "--output", str(whole), "--no-figures"]) == 0
    done = interrupt_and_resume(path, cut, 3, monkeypatch)
    assert len(done) == 3
    one, other = numbers(whole / "study.h5"), numbers(cut / "study.h5")
    assert all(np.array_equal(values, other[name], equal_nan=True) for name, values in one.items())


def test_a_minimum_that_is_not_reached_is_missed(tmp_path, capsys):
    path = written(tmp_path, CASE.replace("path_norm = [0.2, 0.3]", "path_norm = [0.2]\nend = 5.0"))
    assert main(["study", path, "--output", str(tmp_path / "out"), "--no-figures"]) == 3
    assert "expected, but missed: λ = 0.2, start 0: J stays above its minimum" in (said := capsys.readouterr().err)
    assert "still falling at the rate" in said


def test_a_rate_is_measured_however_long_the_steps_could_be_and_not_missed_where_it_cannot_be(tmp_path, capsys):
    path, out = written(tmp_path), tmp_path / "out"
    options = ["--output", str(out), "--no-figures", "--set", "study.seeds=1", "--set", "study.path_norm=[0.5, 1e30]"]
    assert main(["study", path, *options]) == 0
    assert "not measured from 1: no time with J − J* > 0 in the last four decades" in capsys.readouterr().out
    found = numbers(out / "study.h5")
    assert found["run_local_times"][0, 0] > 20
    np.testing.assert_allclose(found["run_rate"][0], found["run_predicted"][0], rtol=0.01)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (["tolerance=1e-3", "students=4"], 0, "too early for a rate: runs end at J − J* = 1.0e-03 J*, and it takes 1e-10"),
        (
            ["students=3", "end=0.1", "teacher.weights=[-1.0, -0.7]"],
            0,
            "out of reach of 1 student with a < 0 for its 2 neurons of this sign",
        ),
        (["path_norm=[0.9]", "end=1.0"], 3, "the minimiser is 0, all students have vanished from 0 of 1 starts"),
        (["teacher.neurons=[[1.0, 0.0], [-1.0, 0.0]]", "end=0.1"], 3, "is not decided, as neurons of it are opposite"),
    ],
)
def test_runs_that_cannot_show_it_are_told_from_those_that_do_not(changes, code, said, tmp_path, capsys):
    options = ["--output", str(tmp_path / "out"), "--no-figures"]
    for change in ["seeds=1", "path_norm=[0.2]", *changes]:
        options += ["--set", f"study.{change}"]
    assert main(["study", written(tmp_path), *options]) == code
    seen = capsys.readouterr()
    assert said in seen.out + seen.err
    assert ("expected, but missed" in seen.err) == (code == 3)


def test_a_run_that_stands_is_stuck():
    time = np.linspace(0.0, 100.0, 50)
    for rate, stuck in ((0.0, True), (0.1, False)):
        values = {"course_time": time[None, None], "course_excess": np.exp(-rate * time)[None, None]}
        report = SparseReport(None, {}, {}, values)
        assert late_rate(report, 0, 0)[0] == pytest.approx(rate, abs=1e-9)
        assert ("stuck" in _at_end(report, 0, 0)) == stuck


def test_work_that_takes_days_is_said_before(tmp_path, capsys):
    assert main(["check", written(tmp_path, CASE.replace("students = 8\nseeds = 2", "students = 5000\nseeds = 1000"))]) == 0
    assert "takes about 170 days of one core" in capsys.readouterr().out


def test_parts_have_a_file_that_is_known_for_what_it_is(tmp_path, capsys):
    path, out = written(tmp_path), tmp_path / "out"
    options = ["study", path, "--output", str(out), "--no-figures", "--set", "study.end=0.1", "--set", "study.seeds=1"]
    main(options)
    parts = out / "study" / "parts.h5"
    assert main(["info", str(parts)]) == 2
    assert "the parts of a study that have ended, for --resume" in capsys.readouterr().err
    parts.unlink()
    parts.mkdir()
    assert main(options) == 2
    assert "is a folder, so the file cannot be written there" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["path_norm=[0.9]", 'inputs={law="circle",scale=1.5}'])
def test_no_neuron_at_all_and_inputs_on_a_circle(change, tmp_path):
    path, out = written(tmp_path), tmp_path / "out"
    options = ["--set", f"study.{change}", "--set", "study.seeds=1", "--set", "study.students=6", "--no-figures"]
    assert main(["study", path, "--output", str(out), *options]) == 0
    found = numbers(out / "study.h5")
    assert np.isfinite(found["atom_weight"]).any() == ("circle" in change)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = 2", "radius = 0.1", "`radius` must be at least `amplitude`"),
        ("weights = [1.0, 0.7]", "weights = [1.0]", "needs one number other than 0 for each"),
        ("[0.2, 0.3]", "[0.0]", "must be positive"),
        ("[[1.0, 0.0], ", "[[0.0, 0.0], ", "must not be 0"),
        ("[[1.0, 0.0], [-0.5, 1.0]], weights = [1.0, 0.7]", "[[1.0, 0.0], [2.0, 0.0]], weights = [2.0, -1.0]", "its neurons cancel: y = 0"),
    ],
)
def test_wrong_input_has_one_clear_message(old, new, said, tmp_path, capsys):
    path = written(tmp_path, CASE.replace(old, new))
    assert main(["check", path]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
