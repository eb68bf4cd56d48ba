"""Runs that are killed, interrupted, damaged or started twice: nothing half-written, nothing lost, and a resumed run has the
bits of an uninterrupted one."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Potential, Problem, Status, read_run
from mfpde.cli import main
from mfpde.march import march
from mfpde.storage import Label, PartsRecorder, ResultError

KINDS = ("finite_volume", "particles", "noisy")
SHORT, LONG = 10.0, 120.0
EPHEMERAL = {"created", "wall_seconds", "git_commit"}

_CASE = """
[domain.theta]
lower = -4.5
upper = 4.5

{energy}
[initial]
density = "exp(-(theta - 1)**2)"

[time]
end = {end}
count = {count}

[[solver]]
label = "run"
{solver}
"""
_NETWORK = '[[energy]]\nkind = "two_layer"\nactivation = "tanh"\nteacher = { neurons = [[1.5], [-0.5]], weights = [0.7, 0.3] }\n'
_WELL = '[[energy]]\nkind = "potential"\ndensity = "theta**2/2"\n'
_NOISE = '[[energy]]\nkind = "entropy"\ntemperature = 0.05\n'
_SLOW = {
    "finite_volume": 'kind = "finite_volume"\ncells = [640]\ntolerance = 3e-11',
    "particles": 'kind = "particles"\ncount = 1000\nseed = 3',
    "noisy": 'kind = "particles"\ncount = 200\nseed = 3\nstep = 0.0015',
}
_QUICK = {
    "finite_volume": 'kind = "finite_volume"\ncells = [48]\ntolerance = 1e-2',
    "particles": 'kind = "particles"\ncount = 50\nseed = 3',
    "noisy": 'kind = "particles"\ncount = 50\nseed = 3\nstep = 0.025',
}
# One thread: two that compete with another process for two cores are many times slower than one.
_ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Reference = tuple[Path, dict[str, Any]]


def write_case(path: Path, kind: str, end: float, count: int, slow: bool = False) -> Path:
    energy = (_NETWORK if slow else _WELL) + (_NOISE if kind == "noisy" else "")
    path.write_text(_CASE.format(energy=energy, end=end, count=count, solver=(_SLOW if slow else _QUICK)[kind]))
    return path


def contents(path: Path) -> dict[str, Any]:
    """Every dataset as type, shape and bytes, and the root attributes but for the ephemeral ones."""
    found: dict[str, Any] = {}

    def note(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name] = (item.dtype.str, item.shape, values.tolist() if values.dtype == object else values.tobytes())

    with h5py.File(path, "r") as file:
        file.visititems(note)
        found["attributes"] = {name: value for name, value in file.attrs.items() if name not in EPHEMERAL}
    assert {"time", "energy", "steps/energy"} <= set(found)
    return found


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("lock")}


# ---------------------------------------------------------------------------------------------------------------------------
# Real processes
# ---------------------------------------------------------------------------------------------------------------------------


def launch(case: Path, folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-m", "mfpde", "run", str(case), "--output", str(folder), "--no-figures", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT)


def wait_for_solver(process: "subprocess.Popen[str]") -> None:
    """Until the line that is printed just before the first solver is prepared."""
    assert process.stdout is not None
    for line in process.stdout:
        if "two_layer:" in line:
            return


def wait_for_checkpoint(process: "subprocess.Popen[str]", checkpoint: Path, before: int | None = None) -> None:
    """Until a checkpoint newer than ``before`` exists: the process is in the march then."""
    patience = time.monotonic() + 30.0
    while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.002)


def complete(case: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Run to the end; what the result holds."""
    process = launch(case, folder, *options)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert not (folder / "run.parts").exists()
    return contents(folder / "run.h5")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], Reference]:
    """The slow case of a kind up to a time, and what its uninterrupted run holds; computed once."""
    known: dict[tuple[str, float], Reference] = {}

    def find(kind: str, end: float) -> Reference:
        if (kind, end) not in known:
            folder = tmp_path_factory.mktemp(kind)
            case = write_case(folder / "case.toml", kind, end, round(20 * end) + 1, slow=True)
            known[kind, end] = (case, complete(case, folder / "whole", "--checkpoint", "1000"))
        return known[kind, end]

    return find


def kill_often(case: Path, expected: dict[str, Any], folder: Path, kills: int, seed: int) -> None:
    """Kill at random moments (some before the march, most in it) and resume, with checkpoints of every cadence."""
    chance = random.Random(seed)
    result = folder / "run.h5"
    done = 0
    while done < kills:
        process = launch(case, folder, "--resume", "--checkpoint", chance.choice(["0", "0.01", "0.05"]))
        if chance.random() < 0.8:
            wait_for_solver(process)
        time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        said = process.communicate()
        done += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), said
        assert "Traceback" not in said[1]
        if result.exists():  # by its rename it is whole, whether or not the process lived on
            assert contents(result) == expected
            shutil.rmtree(folder)
    assert complete(case, folder, "--resume") == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_resumes_to_the_same_bits(kind: str, reference: Callable[[str, float], Reference], tmp_path: Path) -> None:
    kill_often(*reference(kind, SHORT), tmp_path / "out", kills=4, seed=11 + KINDS.index(kind))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_kills_resume_to_the_same_bits(kind: str, reference: Callable[[str, float], Reference], tmp_path: Path) -> None:
    kill_often(*reference(kind, LONG), tmp_path / "out", kills=24, seed=101 + KINDS.index(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_signals_end_a_run_within_a_second(kind: str, reference: Callable[[str, float], Reference], tmp_path: Path) -> None:
    case, expected = reference(kind, SHORT)
    checkpoint = tmp_path / "run.parts" / "checkpoint.h5"
    chance = random.Random(KINDS.index(kind))
    for number in (signal.SIGINT, signal.SIGTERM):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = launch(case, tmp_path, "--resume", "--checkpoint", "0.05")
        wait_for_checkpoint(process, checkpoint, before)
        time.sleep(chance.uniform(0.0, 0.05))
        sent = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - sent < max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # longer on a machine that is overloaded
        assert process.returncode == 130, errors
        stopped = re.search(r"stopped at time ([0-9.e+-]+); go on with --resume", errors)
        assert stopped is not None, errors
        with h5py.File(checkpoint, "r") as file:
            assert f"{json.loads(file['header'].asstr()[()])['scalars']['time']:.6g}" == stopped[1]
        assert not (tmp_path / "run.h5").exists()
    assert complete(case, tmp_path, "--resume") == expected


def test_a_second_process_is_refused_while_the_first_runs(
    reference: Callable[[str, float], Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, expected = reference("finite_volume", SHORT)
    first = launch(case, tmp_path, "--checkpoint", "0.05")
    wait_for_checkpoint(first, tmp_path / "run.parts" / "checkpoint.h5")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        for options in ([], ["--resume"]):
            assert main(["run", str(case), "--output", str(tmp_path), "--no-figures", *options]) == 2
            one_line(capsys.readouterr().err, str(tmp_path), "another mfpde process")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert contents(tmp_path / "run.h5") == expected
    assert not (tmp_path / "run.parts.old").exists()


# ---------------------------------------------------------------------------------------------------------------------------
# The command in this process
# ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A quick finite-volume case."""
    return write_case(tmp_path / "case.toml", "finite_volume", 1.0, 6)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Call it to have SIGINT arrive in that step of every later run; 0 for never."""
    wanted = [0]

    def at(_: object, time: float, steps: int) -> None:
        if steps == wanted[0]:
            signal.raise_signal(signal.SIGINT)

    def choose(step: int) -> None:
        wanted[0] = step

    monkeypatch.setattr("mfpde.batch.Bar.at", at)
    return choose


def run(case: Path, folder: Path, *options: str) -> int:
    return main(["run", str(case), "--output", str(folder), "--no-figures", *options])


@pytest.fixture
def unfinished(case: Path, tmp_path: Path, interrupt: Callable[[int], None]) -> Path:
    """An output folder whose run was stopped after several checkpoints."""
    interrupt(6)
    assert run(case, tmp_path / "out", "--checkpoint", "0") == 130
    interrupt(0)
    assert (tmp_path / "out" / "run.parts" / "part-00003.h5").exists()
    return tmp_path / "out"


def one_line(text: str, *parts: str) -> None:
    assert text.count("\n") == 1, text
    assert text.startswith("mfpde: ")
    for part in parts:
        assert part in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_cadence_of_checkpoints_changes_nothing(kind: str, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case.toml", kind, 2.0, 21)
    for seconds in ("0", "0.01", "1000"):
        assert run(case, tmp_path / seconds, "--checkpoint", seconds) == 0
    expected = contents(tmp_path / "1000" / "run.h5")
    assert contents(tmp_path / "0" / "run.h5") == expected
    assert contents(tmp_path / "0.01" / "run.h5") == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("kind", "stride"), [("finite_volume", 3), *(pytest.param(kind, 1, marks=pytest.mark.long) for kind in KINDS)])
def test_a_kill_at_any_file_operation_loses_nothing(
    kind: str, stride: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child kills itself at its n-th operation on files, for every ``stride``-th n until it lives to the end; then the run is
    resumed."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the machine stays up, so nothing has to reach the disk
    case = write_case(tmp_path / "case.toml", kind, 0.04, 2)
    assert run(case, tmp_path / "whole") == 0
    expected = contents(tmp_path / "whole" / "run.h5")
    number, killed, out = 0, True, tmp_path / "out"
    while killed:
        number += stride
        killed = _killed_at(number, case, out)
        if (out / "run.h5").exists():
            assert contents(out / "run.h5") == expected
        assert run(case, out, "--resume") == 0
        assert contents(out / "run.h5") == expected, f"after a kill at operation {number}"
        shutil.rmtree(out)
    assert number > 25
    assert "Traceback" not in capfd.readouterr().err


def _killed_at(number: int, case: Path, folder: Path) -> bool:
    """Run the case in a child that kills itself before its operation ``number``; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = [number]

        def count(event: str, arguments: tuple[Any, ...] = ()) -> None:
            opened = event == "open" and str(arguments[0]).startswith(str(folder))
            if opened or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "dataset"):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def create(*arguments: Any, **options: Any) -> h5py.Dataset:
            count("dataset")
            return plain(*arguments, **options)

        plain = h5py.Group.create_dataset
        h5py.Group.create_dataset = create
        sys.addaudithook(count)
        code = 99
        try:
            code = run(case, folder, "--checkpoint", "0")
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    "change",
    ["solver.run.cells=[49]", "solver.run.tolerance=1e-9", "time.end=2.0", "domain.theta.upper=5.0", "energy.0.density=theta**2"],
)
def test_resuming_a_changed_case_is_refused(change: str, case: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = folder_bytes(unfinished / "run.parts")
    capsys.readouterr()
    assert run(case, unfinished, "--resume", "--set", change) == 2
    one_line(capsys.readouterr().err, str(unfinished / "run.parts"), "belongs to another problem", "--resume")
    assert folder_bytes(unfinished / "run.parts") == before
    assert run(case, unfinished, "--resume") == 0


def test_a_new_title_does_not_hinder_resuming(case: Path, unfinished: Path) -> None:
    assert run(case, unfinished, "--resume", "--set", "title=other") == 0
    assert read_run(unfinished / "run.h5").title == "other"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def _foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1.0


def _drop_field(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["rho"]


def _drop_scalars(path: Path) -> None:
    with h5py.File(path, "a") as file:
        header = json.loads(file["header"].asstr()[()])
        del file["header"]
        file["header"] = json.dumps({**header, "scalars": {}})


def _shrink_field(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["rho"]
        file["rho"] = np.ones(7)


def _flip_bit(path: Path) -> None:
    with h5py.File(path, "a") as file:
        name = "rho" if "rho" in file else "rows"
        bits = file[name][()].view(np.int64)
        bits.flat[3] ^= 1
        file[name][...] = bits.view(np.float64)


@pytest.mark.parametrize("damage", [_truncate, _empty, _scramble, _foreign, _drop_field, _drop_scalars, _shrink_field, _flip_bit])
def test_a_damaged_checkpoint_gives_one_message(
    damage: Callable[[Path], None], case: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = unfinished / "run.parts" / "checkpoint.h5"
    damage(checkpoint)
    capsys.readouterr()
    assert run(case, unfinished, "--resume") == 2
    one_line(capsys.readouterr().err, str(checkpoint))
    assert not (unfinished / "run.h5").exists()
    assert run(case, unfinished) == 0


@pytest.mark.parametrize("damage", [Path.unlink, _truncate, _empty, _scramble, _foreign, _flip_bit])
def test_a_damaged_or_missing_part_gives_one_message_before_the_march(
    damage: Callable[[Path], None], case: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = unfinished / "run.parts" / "part-00002.h5"
    damage(part)
    before = folder_bytes(unfinished / "run.parts")
    capsys.readouterr()
    assert run(case, unfinished, "--resume", "--checkpoint", "0") == 2
    one_line(capsys.readouterr().err, str(part))
    assert folder_bytes(unfinished / "run.parts") == before, "the run went on although it can never be finished"
    assert run(case, unfinished) == 0


def test_an_unfinished_run_is_moved_aside_and_not_lost(case: Path, unfinished: Path, tmp_path: Path) -> None:
    before = folder_bytes(unfinished / "run.parts")
    assert run(case, unfinished) == 0
    expected = contents(unfinished / "run.h5")
    assert folder_bytes(unfinished / "run.parts.old") == before
    assert not (unfinished / "run.parts").exists()
    rescued = tmp_path / "rescued"
    shutil.copytree(unfinished / "run.parts.old", rescued / "run.parts")
    assert run(case, rescued, "--resume") == 0
    assert contents(rescued / "run.h5") == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_while_an_unfinished_run_is_moved_aside_loses_nothing(case: Path, unfinished: Path, tmp_path: Path) -> None:
    before = folder_bytes(unfinished / "run.parts")
    for number in range(1, len(before) + 8):
        out = tmp_path / f"killed{number}"
        shutil.copytree(unfinished, out)
        assert _killed_at(number, case, out)
        places = [folder_bytes(out / name) for name in ("run.parts", "run.parts.old") if (out / name).exists()]
        assert any(before.items() <= place.items() for place in places), f"scattered by a kill at operation {number}"


def test_a_kill_between_the_rename_and_the_removal_of_the_parts(
    case: Path, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(unfinished / "run.parts", tmp_path / "kept")
    assert run(case, unfinished, "--resume") == 0
    before = (unfinished / "run.h5").read_bytes()
    shutil.copytree(tmp_path / "kept", unfinished / "run.parts")
    capsys.readouterr()
    assert run(case, unfinished, "--resume") == 0
    assert "run: complete already" in capsys.readouterr().out
    assert (unfinished / "run.h5").read_bytes() == before
    assert not (unfinished / "run.parts").exists()


def test_resuming_a_finished_run_says_so_and_leaves_it_alone(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(case, tmp_path / "out") == 0
    result = tmp_path / "out" / "run.h5"
    before, stamp = result.read_bytes(), result.stat().st_mtime_ns
    capsys.readouterr()
    assert run(case, tmp_path / "out", "--resume") == 0
    assert "run: complete already" in capsys.readouterr().out
    assert (result.read_bytes(), result.stat().st_mtime_ns) == (before, stamp)


def test_resuming_what_was_never_started_runs_it(case: Path, tmp_path: Path) -> None:
    assert run(case, tmp_path / "new", "--resume") == 0
    assert run(case, tmp_path / "plain") == 0
    assert contents(tmp_path / "new" / "run.h5") == contents(tmp_path / "plain" / "run.h5")


def test_a_signal_in_the_last_step_stops_the_batch(
    case: Path, tmp_path: Path, interrupt: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    case.write_text(case.read_text() + '\n[[solver]]\nlabel = "next"\nkind = "particles"\ncount = 10\n')
    assert run(case, tmp_path / "whole") == 0
    interrupt(len(read_run(tmp_path / "whole" / "run.h5").run.certificate) - 1)
    assert run(case, tmp_path / "out") == 130
    assert not (tmp_path / "out" / "next.h5").exists()
    interrupt(0)
    assert run(case, tmp_path / "out", "--resume") == 0
    for name in ("run.h5", "next.h5"):
        assert contents(tmp_path / "out" / name) == contents(tmp_path / "whole" / name)


@pytest.mark.parametrize("moment", ["checkpoint", "finish"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_step_ends_the_batch_behind_a_whole_result(
    moment: str, number: int, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes while the last checkpoint is written, or while the parts are merged into the result."""
    case.write_text(case.read_text() + '\n[[solver]]\nlabel = "next"\nkind = "particles"\ncount = 10\n')
    plain = getattr(PartsRecorder, moment)

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(number)
        plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(PartsRecorder, moment, interrupted)
        assert run(case, tmp_path / "out", "--checkpoint", "1000") == 130
    one_line(capsys.readouterr().err, "interrupted")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run.h5"]
    assert read_run(tmp_path / "out" / "run.h5").run.status is Status.DONE
    assert run(case, tmp_path / "out", "--resume") == 0
    assert (tmp_path / "out" / "next.h5").exists()


def test_sigterm_between_the_runs_ends_the_command_with_one_message(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("mfpde.batch.build_solver", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert run(case, tmp_path / "out") == 130
    one_line(capsys.readouterr().err, "interrupted")
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_while_a_command_prepares_ends_it_with_one_message(reference: Callable[[str, float], Reference], tmp_path: Path) -> None:
    process = launch(reference("finite_volume", SHORT)[0], tmp_path)
    wait_for_solver(process)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    one_line(errors)


def _old_format(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 1


def _no_balance(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/balance"]


def _no_frames(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("time", "density", *(f"energy_{term}" for term in json.loads(file.attrs["terms"]))):
            shape = (0, *file[name].shape[1:])
            del file[name]
            file[name] = np.zeros(shape)


@pytest.mark.parametrize("damage", [_truncate, _empty, _foreign, _old_format, _no_balance, _no_frames])
def test_a_finished_result_that_cannot_be_read_is_made_again_and_that_is_said(
    damage: Callable[[Path], None], case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(case, tmp_path) == 0
    expected = contents(tmp_path / "run.h5")
    damage(tmp_path / "run.h5")
    capsys.readouterr()
    assert run(case, tmp_path, "--resume") == 0
    said = capsys.readouterr()
    assert "complete already" not in said.out
    assert "  run: the stored run " in said.out
    assert "; starting anew" in said.out
    assert damage is _no_frames or f"({tmp_path / 'run.h5'}: " in said.out
    assert contents(tmp_path / "run.h5") == expected


def test_leftovers_of_killed_writers_do_not_disturb(case: Path, unfinished: Path, tmp_path: Path) -> None:
    for path in (unfinished / ".run.h5.4242.tmp", unfinished / "run.parts" / ".checkpoint.h5.4242.tmp"):
        path.write_bytes(b"half a file")
    (unfinished / "run.parts" / "part-00099.h5").write_bytes(b"a part that no checkpoint counts")
    assert run(case, unfinished, "--resume") == 0
    assert run(case, tmp_path / "plain") == 0
    assert contents(unfinished / "run.h5") == contents(tmp_path / "plain" / "run.h5")
    assert sorted(path.name for path in unfinished.iterdir()) == ["run.h5"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("kilobytes", [24, 60])
def test_a_full_disk_gives_one_message(kilobytes: int, case: Path, tmp_path: Path) -> None:
    """With a limit on the size of files, writing fails as on a full disk: in the result or in a part."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    command = [sys.executable, "-m", "mfpde", "run", str(case), "--output", str(tmp_path / "out"), "--no-figures"]
    command += ["--checkpoint", "0.02", "--set", "solver.run.cells=[512]", "time.count=101"]
    ended = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, preexec_fn=limit, check=False)
    assert ended.returncode == 2, ended.stderr
    one_line(ended.stderr, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "run.h5").exists()
    assert run(case, tmp_path / "out", "--resume", "--set", "solver.run.cells=[512]", "time.count=101") == 0


# ---------------------------------------------------------------------------------------------------------------------------
# The recorder itself
# ---------------------------------------------------------------------------------------------------------------------------


class StopAt:
    """Progress that sends SIGINT in one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def at(self, _: float, steps: int) -> None:
        if steps == self.step:
            signal.raise_signal(signal.SIGINT)


def problem() -> Problem:
    domain = Domain((Axis("theta", -3.0, 3.0),))
    well = Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p)
    bump = DensityFunction(lambda p: np.exp(-4.0 * (p[:, 0] - 1.0) ** 2), domain)
    return Problem(EnergySum({"well": well}), domain, bump, tuple(np.linspace(0.0, 1.0, 6).tolist()))


def recorded(result: Path, stop: int = 0, mark: str = "one", **options: Any) -> Status:
    """March the small problem into a recorder, interrupted in step ``stop``."""
    posed = problem()
    flow = FiniteVolume((32,), tolerance=1e-3).prepare(posed)
    recorder = PartsRecorder(result, posed.domain, Label(fingerprint=mark), **options)
    status, message = march(flow, posed.save_at, recorder, StopAt(stop))
    recorder.finish(status, message, flow.notes)
    return status


def test_a_recorder_resumes_to_the_same_bits_from_every_step(tmp_path: Path) -> None:
    assert recorded(tmp_path / "whole.h5") is Status.DONE
    expected = contents(tmp_path / "whole.h5")
    steps = len(read_run(tmp_path / "whole.h5").run.certificate) - 1
    for stop in range(1, steps):
        result = tmp_path / f"stopped{stop}.h5"
        assert recorded(result, stop) is Status.INTERRUPTED
        assert not result.exists()
        assert recorded(result, resuming=True) is Status.DONE
        assert contents(result) == expected


def test_a_recorder_resumes_many_times(tmp_path: Path) -> None:
    recorded(tmp_path / "whole.h5")
    recorded(tmp_path / "often.h5", 2)
    rounds = 1
    while recorded(tmp_path / "often.h5", 2, resuming=True) is Status.INTERRUPTED:
        rounds += 1
    assert rounds > 3
    assert contents(tmp_path / "often.h5") == contents(tmp_path / "whole.h5")


def test_a_recorder_refuses_another_fingerprint_and_lets_go_of_its_lock(tmp_path: Path) -> None:
    recorded(tmp_path / "run.h5", 4)
    with pytest.raises(ResultError, match=r"checkpoint\.h5: belongs to another problem"):
        recorded(tmp_path / "run.h5", mark="two", resuming=True)
    assert recorded(tmp_path / "run.h5", resuming=True) is Status.DONE


def test_a_checkpoint_does_not_grow_with_the_number_of_parts(tmp_path: Path) -> None:
    recorder = PartsRecorder(tmp_path / "run.h5", problem().domain, Label())
    sizes = []
    for _ in range(40):
        recorder.checkpoint({"time": 0.5})
        sizes.append((tmp_path / "run.parts" / "checkpoint.h5").stat().st_size)
    recorder.close()
    assert max(sizes) - min(sizes) < 64


def test_parts_that_are_swapped_or_of_another_run_are_refused(tmp_path: Path) -> None:
    for name in ("run", "other"):
        recorded(tmp_path / f"{name}.h5", 6, seconds=0.0)
    parts = tmp_path / "run.parts"
    first, second = parts / "part-00001.h5", parts / "part-00002.h5"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(ResultError, match=r"part-00001\.h5: is missing or damaged"):
        recorded(tmp_path / "run.h5", resuming=True)
    first.write_bytes(content)
    with h5py.File(tmp_path / "other.parts" / "part-00002.h5", "a") as file:
        file.attrs["before"] = "0" * 64
    shutil.copy(tmp_path / "other.parts" / "part-00002.h5", second)
    with pytest.raises(ResultError, match=r"part-00002\.h5: is missing or damaged"):
        recorded(tmp_path / "run.h5", resuming=True)


def test_two_recorders_cannot_share_a_folder(tmp_path: Path) -> None:
    domain = problem().domain
    first = PartsRecorder(tmp_path / "run.h5", domain, Label())
    with pytest.raises(ResultError, match="another mfpde process"):
        PartsRecorder(tmp_path / "run.h5", domain, Label())
    first.finish(Status.INTERRUPTED, "", ())
    PartsRecorder(tmp_path / "run.h5", domain, Label()).finish(Status.INTERRUPTED, "", ())


def test_a_checkpoint_counts_only_whole_parts(tmp_path: Path) -> None:
    """Killed after a part was published but before its checkpoint: the part is written again, not counted twice."""
    recorded(tmp_path / "whole.h5")
    recorded(tmp_path / "run.h5", 5, seconds=0.0)
    parts = tmp_path / "run.parts"
    last = max(parts.glob("part-*.h5"))
    shutil.copy(last, parts / f"part-{int(last.stem[-5:]) + 1:05d}.h5")
    assert recorded(tmp_path / "run.h5", resuming=True) is Status.DONE
    assert contents(tmp_path / "run.h5") == contents(tmp_path / "whole.h5")
