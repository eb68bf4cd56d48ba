"""The command ``mfpde study`` for particle limits: table, files, figure, kills, and wrong input."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfpde.cli import main
from mfpde.figures import draw_limit
from mfpde.storage import read_arrays
from mfpde.study.limit_text import LimitReport

CASE = """title = "A student"

[domain.theta]
lower = -4.5
upper = 4.5

[[energy]]
kind = "two_layer"
activation = "tanh"
teacher = { neurons = [[1.5], [-0.5]], weights = [0.7, 0.3] }

[initial]
density = "cos(pi*theta/6)**2 * (abs(theta) < 3)"

[time]
save = [0.0, 1.0]

[[solver]]
kind = "characteristics"
label = "pde"
cells = [1024]

[[solver]]
kind = "particles"
count = 10
tolerance = 1e-7

[study]
kind = "particle_limit"
counts = [16, 32, 64, 128]
runs = 30
expected = { w2 = -0.5, loss = -0.5, loss_mean = -1.0 }
allowance = 0.1
"""


def write(folder: Path, text: str = CASE) -> Path:
    path = folder / "case.toml"
    path.write_text(text, encoding="utf-8")
    return path


def call(*words: object) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("limit")
    code, out, err = call("study", write(folder), "--output", folder / "out")
    print(out, err)
    assert code == 0
    return folder, out


def test_the_table_says_slopes_intervals_and_theory(done):
    _, out = done
    assert "particle limit of particles against pde at t = 1: 30 runs, ± half of a 95 % interval; loss = two_layer" in out
    assert "W2: slope -0." in out
    assert "95 % interval" in out
    assert "expected -0.5 within ± 0.1 of the interval: yes" in out
    assert "the central limit theorem says" in out
    assert "N E W2² =" in out
    assert "J2 = ∫F(1−F)/ρ = 2.73" in out
    assert "finite width is exact: 16 atoms solve the PDE as they are, its weak form to" in out
    assert "from quantiles, slopes: w2 -0.8" in out


def test_its_files_hold_every_run(done):
    folder, _ = done
    data = json.loads((folder / "out" / "study.json").read_text())
    assert data["kind"] == "particle_limit"
    assert data["missed"] == []
    assert data["weak_residual"]["largest"] < 1e-9
    slopes = {(r["row"], r["time"]): r["slope"] for r in data["results"]}
    assert slopes["w2", 1.0]["low"] < slopes["w2", 1.0]["value"] < slopes["w2", 1.0]["high"]
    with h5py.File(folder / "out" / "study.h5") as file:
        assert file["run_w2"].shape == (4, 30, 2)
        assert [scale.label if not len(scale) else scale[0].name for scale in file["run_w2"].dims] == ["/count", "/run", "/time"]
        runs = file["run_w2"][()]
        row = [name.decode() for name in file["row"][()]].index("w2")
        assert file["value"][row, 1] == pytest.approx(np.mean(runs[:, :, 1], axis=1))
    rows = (folder / "out" / "study.csv").read_text().splitlines()
    assert rows[0].startswith("row,time,count")
    assert len(rows) == 1 + 7 * 2 * 4
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_dataset(folder / "out" / "study.h5", engine="h5netcdf") as found:
        assert found.run_w2.sel(count=64).shape == (30, 2)


def test_it_is_drawn(done, tmp_path):
    folder, _ = done
    assert (folder / "out" / "study-limit.png").stat().st_size > 20_000
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="the format must be one of"):
        draw_limit(LimitReport.__new__(LimitReport), tmp_path, ("gif",))


def test_a_finished_study_is_kept_and_a_changed_one_is_not(done):
    folder, before = done
    code, out, _ = call("study", folder / "case.toml", "--output", folder / "out", "--resume", "--no-figures")
    assert code == 0
    assert "120 of 120 runs are there already" in out
    assert out.split("particle limit of")[1:] == before.split("particle limit of")[1:] or table(out) == table(before)
    _, out, _ = call("study", folder / "case.toml", "--output", folder / "out", "--resume", "--no-figures", "--set", "study.seed=1")
    assert "are not of this study as it is now, or damaged; starting anew" in out
    assert table(out) != table(before)


def table(text: str) -> list[str]:
    return [line for line in text.splitlines() if "slope" in line or "±" in line]


def test_a_killed_study_goes_on_to_the_same_bits(tmp_path):
    counts = "study.counts=[16, 64, 3000, 4500, 6000]"
    case = write(tmp_path)
    whole = tmp_path / "whole"
    call("study", case, "--output", whole, "--no-figures", "--set", counts, "--set", "study.runs=6")
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "mfpde", "study", str(case), "--output", str(killed), "--no-figures", "--resume"]
    command += ["--set", counts, "--set", "study.runs=6"]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TQDM_DISABLE": "1"})
        began = time.monotonic()
        checkpoint, before = killed / "study" / "particles-runs.h5", 0.0
        while process.poll() is None and time.monotonic() - began < 60.0:
            if checkpoint.exists() and checkpoint.stat().st_mtime > before:
                break
            time.sleep(0.02)
        process.kill()
        process.wait()
    code, out, err = call(*command[3:])
    assert code in (0, 3), err
    one, two = (read_arrays(folder / "study" / "particles-runs.h5")[0] for folder in (whole, killed))
    for name, values in one.items():
        assert values.tobytes() == two[name].tobytes(), name
    assert (whole / "study.csv").read_text() == (killed / "study.csv").read_text()
    assert "slope" in out


def test_runs_that_were_changed_are_not_taken(tmp_path):
    case, out = write(tmp_path), tmp_path / "out"
    few = ("--no-figures", "--set", "study.counts=[16, 64]", "--set", "study.expected={ w2 = -0.5 }")
    _, first, _ = call("study", case, "--output", out, *few, "--set", "study.runs=16")
    with h5py.File(out / "study" / "particles-runs.h5", "r+") as file:
        file["w2"][0, 3, 1] = np.nan
    _, text, _ = call("study", case, "--output", out, *few, "--set", "study.runs=16", "--resume")
    assert "or damaged; starting anew" in text
    assert table(text) == table(first)
    _, more, _ = call("study", case, "--output", out, *few, "--set", "study.runs=20", "--resume")
    assert "32 of 40 runs are there already" in more
    _, whole, _ = call("study", case, "--output", tmp_path / "whole", *few, "--set", "study.runs=20")
    assert table(more) == table(whole)


def test_blobs_and_lone_times_have_a_limit_too(tmp_path):
    text = CASE.replace("[initial]", '[[energy]]\nkind = "entropy"\ntemperature = 0.05\n\n[initial]')
    text = text.replace('kind = "characteristics"', 'kind = "finite_volume"').replace("tolerance = 1e-7", 'diffusion = "blob"')
    text = text.replace("expected = { w2 = -0.5, loss = -0.5, loss_mean = -1.0 }\nallowance = 0.1\n", "").replace("runs = 30", "runs = 6")
    few = ("--no-figures", "--set", "study.counts=[16, 32]")
    code, out, err = call("study", write(tmp_path, text), "--output", tmp_path / "blobs", *few)
    assert (code, err) == (0, "")
    assert "finite width" not in out
    code, out, err = call(
        "study", write(tmp_path), "--output", tmp_path / "start", *few, "--set", "study.times=[0.0]", "--set", "study.runs=10"
    )
    assert code in (0, 3)
    assert "Traceback" not in err
    assert "at t = 0" in out


def test_an_interrupted_study_keeps_what_has_ended(tmp_path):
    case = write(tmp_path)
    command = [sys.executable, "-m", "mfpde", "study", str(case), "--output", str(tmp_path / "out"), "--no-figures"]
    command += ["--set", "study.counts=[16, 50000]"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "out" / "study" / "particles-runs.h5"
    began = time.monotonic()
    while not checkpoint.exists() and time.monotonic() - began < 90.0:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in err
    assert read_arrays(checkpoint)[0]["ended"][0].any()


def test_a_missed_slope_is_said_and_counts(tmp_path):
    code, out, err = call(
        "study",
        write(tmp_path),
        "--output",
        tmp_path / "out",
        "--no-figures",
        "--set",
        "study.expected={ w2 = -0.9 }",
        "--set",
        "study.runs=8",
    )
    assert code == 3
    assert "MISSED" in out
    assert "expected slope missed: W2 at t = 0" in err


def test_noise_is_studied_without_what_it_does_not_have(tmp_path):
    text = CASE.replace("[initial]", '[[energy]]\nkind = "entropy"\ntemperature = 0.05\n\n[initial]')
    text = text.replace('kind = "characteristics"', 'kind = "finite_volume"').replace("tolerance = 1e-7", "step = 0.05")
    text = text.replace("expected = { w2 = -0.5, loss = -0.5, loss_mean = -1.0 }\nallowance = 0.1\n", "")
    code, out, _ = call("study", write(tmp_path, text), "--output", tmp_path / "out", "--set", "study.counts=[16, 64, 256]")
    assert code == 0
    assert "loss = two_layer" in out
    assert "quantiles" not in out
    assert "finite width" not in out
    assert "the central limit theorem" not in out.split("at t = 1")[1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("counts = [16, 32, 64, 128]", "counts = [16]", "study.counts"),
        ("counts = [16, 32, 64, 128]", "counts = [32, 16]", "the counts must increase, got 16 after 32"),
        ("counts = [16, 32, 64, 128]", "counts = [16, 20000]\nquantities = ['sliced']", "this problem has no sliced; accepted: w2, w1"),
        ("runs = 30", "runs = 1", "must be at least 5, got 1"),
        ("runs = 30", 'solver = "pde"', 'got "pde"; accepted: particles'),
        ("runs = 30", 'reference = "particles"', 'got "particles"; accepted: pde'),
        ("runs = 30", "times = [0.5]", "0.5 is not a saved time; accepted: 0, 1"),
        ("runs = 30", 'quantities = ["w1"]', "is none of the rows of this study: w1"),
        ('density = "cos(pi*theta/6)**2 * (abs(theta) < 3)"', "atoms = [[0.0], [1.0]]", "a density"),
        ("allowance = 0.1", "allowance = -1.0", "allowance"),
        ("runs = 30", "times = [1.0, 1.0000000001]", "two of them are the same saved time"),
        ('label = "pde"', 'label = "particles-runs"', "is the name of the runs of the study"),
        ('kind = "particle_limit"', 'kind = "limit"', "particle_limit"),
    ],
)
def test_wrong_input_gets_one_message(old, new, words, tmp_path):
    assert old in CASE
    text = CASE.replace(old, new)
    text = text.replace('kind = "characteristics"', 'kind = "finite_volume"').replace("count = 10\n", "") if "atoms" in new else text
    for command in ("check", "study"):
        code, _, err = call(command, write(tmp_path, text))
        assert code == 2
        assert words in err
        assert "Traceback" not in err


@pytest.mark.long
def test_the_shipped_study_at_full_size_shows_the_rates(tmp_path):
    """520 runs of up to 131,072 neurons: every slope within its interval, and constants as the central limit theorem has them."""
    code, out, err = call(
        "study", Path(__file__).parent.parent / "cases" / "particle_limit.toml", "--output", tmp_path / "out", "--no-figures"
    )
    print(out, err)
    assert code == 0
    assert "MISSED" not in out
    data = json.loads((tmp_path / "out" / "study.json").read_text())
    slopes = {(r["row"], r["time"]): r["slope"] for r in data["results"]}
    for time_ in (0.0, 1.0, 5.0):
        assert slopes["w2", time_]["high"] - slopes["w2", time_]["low"] < 0.06
        assert slopes["loss_mean", time_]["value"] == pytest.approx(-1.0, abs=0.12)
