"""Running cases: every solver of every case, its results, the comparison and the figures."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case import CaseFile, InputError, load_case, schema
from mfpde.case.build import build_problem, build_solver, fingerprint, problem_digest, solver_error
from mfpde.compare import Comparison, compare
from mfpde.console import tell, warn
from mfpde.domain import Grid
from mfpde.energy import Interaction, PairNetwork, TwoLayer, WideResNet
from mfpde.march import Timeless, march
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.signals import interruption
from mfpde.storage import Label, PartsRecorder, ResultError, StoredRun, finished_fingerprint, read_run, remove_parts
from mfpde.tables import comparison_table, run_line

if TYPE_CHECKING:
    from tqdm import tqdm

COMPILING = "compiling loops, once after an installation"
_MOST_DRAWN = 500
"""Neurons of a teacher that are drawn."""


@dataclass(frozen=True)
class Options:
    """What the command line says about a batch."""

    output: Path | None = None
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    resume: bool = False
    formats: tuple[str, ...] = ("png",)
    checkpoint_seconds: float = 10.0


@dataclass
class Outcome:
    """How one case went: the exit code that it asks for, and what the closing table says."""

    path: Path
    code: int = 0
    words: str = "done"
    seconds: float = 0.0
    folder: Path | None = None
    comparison: Comparison | None = None
    messages: list[str] = field(default_factory=list)


def progress_bar(name: str, total: float) -> "tqdm[Any]":
    """A bar on a terminal that goes up to ``total``, nothing in a pipe."""
    from tqdm import tqdm

    shape = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    size = shutil.get_terminal_size((80, 24))
    return tqdm(total=total, desc=name, disable=None, leave=False, bar_format=shape, ncols=size.columns, nrows=size.lines)


class Bar:
    """Progress on a terminal, nothing in a pipe."""

    def __init__(self, name: str, end: float) -> None:
        self._name, self._bar = name, progress_bar(name, end)

    def at(self, time: float, steps: int) -> None:
        """The run is at ``time`` after ``steps`` steps."""
        if self._bar.disable:
            return
        self._bar.set_description_str(f"{self._name}  t = {time:.4g}, {steps} steps", refresh=False)
        self._bar.update(time - self._bar.n)

    def compiling(self) -> None:
        """The run waits for the compiler."""
        if not self._bar.disable:
            self._bar.set_description_str(f"{self._name}  {COMPILING}")

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def run_cases(paths: Sequence[Path], options: Options) -> list[Outcome]:
    """Run every case; wrong input or a stopped solver in one does not stop the others, an interruption does."""
    outcomes: list[Outcome] = []
    folders = [_folder(path, options, len(paths)) for path in paths]
    for path, folder in zip(paths, folders, strict=True):
        outcome = Outcome(path, folder=folder)
        began = time.monotonic()
        try:
            if folders.count(folder) > 1:
                raise InputError(f"{path}: several cases of this batch would write to {folder}; run them one by one")
            _run_case(path, folder, options, outcome)
        except BrokenPipeError:
            raise
        except (InputError, ResultError) as error:
            _fail(outcome, 2, "wrong input", error)
        except MemoryError:
            _fail(outcome, 2, "out of memory", f"{path}: needs more memory than there is; use fewer cells or particles")
        except OSError as error:
            _fail(outcome, 2, "cannot write", f"{error.filename or folder}: {error.strerror or error}")
        outcome.seconds = time.monotonic() - began
        outcomes.append(outcome)
        if outcome.code == 130:
            break
    return outcomes


def _fail(outcome: Outcome, code: int, words: str, message: object) -> None:
    outcome.code, outcome.words = code, words
    warn(message)


def _folder(path: Path, options: Options, count: int) -> Path:
    if options.output is None:
        return Path("results") / path.stem
    return options.output if count == 1 else options.output / path.stem


def _run_case(path: Path, folder: Path, options: Options, outcome: Outcome) -> None:
    case = load_case(path, options.overrides)
    chosen = _chosen(case, options.only)
    problem = build_problem(case)
    figures = [f"{stem}.{form}" for stem in ("density", "energy", "distance", "network") for form in options.formats]
    check_output(folder, [*(f"{case.labels[number]}.h5" for number in chosen), "comparison.json", *figures])
    tell(f"{case.table.title or path.stem}  ({path} → {folder}/)")
    for name, term in problem.energy.terms.items():
        if isinstance(term, TwoLayer | PairNetwork | WideResNet):
            tell(f"  {name}: {term.description}")
    if case.table.study is not None:
        tell(f"  [study] is left alone; `mfpde study {path}` carries it out")
    for number in chosen:
        status = run_solver(case, problem, number, folder, options)
        if status is Status.INTERRUPTED:
            outcome.code, outcome.words = 130, "interrupted"
            return
        if status is not Status.DONE:
            outcome.code, outcome.words = 3, f"{case.labels[number]}: {status.name}"
    _evaluate(case, problem, folder, options, outcome)


def _chosen(case: CaseFile, only: tuple[str, ...]) -> list[int]:
    for label in only:
        if label not in case.labels:
            raise InputError(f"{case.path}: --only {label}: no such solver; accepted: {', '.join(case.labels)}")
    return [k for k, label in enumerate(case.labels) if not only or label in only]


def check_output(folder: Path, names: Sequence[str]) -> None:
    """Raises ResultError where ``folder`` cannot be a folder, or one of the files to be written there is a folder already."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ResultError(f"{place}: is not a folder, so nothing can be written to {folder}; choose another --output")
    for path in (folder / name for name in names):
        if path.is_dir():
            raise ResultError(f"{path}: is a folder, so the file cannot be written there; remove it or choose another --output")


def run_solver(case: CaseFile, problem: Problem, number: int, folder: Path, options: Options, *, remarks: bool = True) -> Status:
    """Run one solver of a case into ``folder``/LABEL.h5, or keep what is complete there if resuming.

    ``remarks``: whether the choices that the solver made are printed.

    Raises InputError, ResultError, and KeyboardInterrupt for a signal that came when the run had ended but was not yet stored, or
    while it was refused.
    """
    label, mark = case.labels[number], fingerprint(case, number)
    result = folder / f"{label}.h5"
    if options.resume and finished_fingerprint(result) == mark:
        remove_parts(result)
        tell(f"  {label}: complete already")
        return Status.DONE
    if options.resume and result.exists() and not result.with_suffix(".parts").exists():
        tell(f"  {label}: {_unfit(result)}; starting anew")
    try:
        flow = build_solver(case, number).prepare(problem)
    except ValueError as error:
        raise solver_error(case, number, error) from error
    from mfpde.compile import announced  # which brings the compiler, as the solvers do

    noted = [*_kernel_notes(problem, flow), *_level_notes(problem)]
    table = case.table.solver[number]
    origin = Label(
        title=case.table.title,
        case=case.text,
        overrides=case.overrides,
        solver=table.kind,
        label=label,
        seed=getattr(table, "seed", -1),
        fingerprint=mark,
        problem=problem_digest(case),
        obstacles=tuple(term.obstacle for term in case.table.energy if isinstance(term, schema.PotentialTerm) and term.obstacle),
        teacher=_teacher_words(case, problem),
    )
    recorder = PartsRecorder(result, problem.domain, origin, options.resume, options.checkpoint_seconds, conserved(problem))
    bar = Bar(label, problem.save_at[-1])
    stopped: Sequence[int] = ()
    try:
        with interruption() as stopped, announced(bar.compiling):
            status, message = _ended(case, number, lambda: march(flow, problem.save_at, recorder, bar, stopped))
            recorder.finish(status, message, (*flow.notes, *noted), flow.tables if isinstance(flow, Timeless) else None)
    except (InputError, ResultError, OSError, MemoryError) as error:
        if stopped:  # else the batch would go on with its next case
            warn(error)
            raise KeyboardInterrupt from error
        raise
    finally:
        bar.close()
        recorder.close()
    _announce(label, result, status, message, remarks)
    if stopped and status is not Status.INTERRUPTED:
        raise KeyboardInterrupt  # too late for this run, whose result is written, but not for what would come next
    return status


def conserved(problem: Problem) -> dict[str, Callable[[FloatArray], FloatArray]]:
    """What networks conserve of each neuron, by the name under which it is recorded."""
    terms = problem.energy.terms.items()
    found = {name: term.imbalance for name, term in terms if isinstance(term, TwoLayer | PairNetwork)}
    return {f"imbalance_{name}": imbalance.of for name, imbalance in found.items() if imbalance is not None}


def _teacher_words(case: CaseFile, problem: Problem) -> str:
    """The teacher of the first network as JSON, for pictures, where it is neurons or a density in the coordinates of the domain."""
    for term in case.table.energy:
        if not isinstance(term, schema.NetworkTerm):
            continue
        teacher, weights = term.teacher, [row[0] for row in term.teacher.weights or [] if len(row) == 1]
        if teacher.density is not None:
            return json.dumps({"density": teacher.density})
        rows = teacher.neurons or []
        if not 0 < len(rows) <= _MOST_DRAWN or any(len(row) != problem.domain.dimension for row in rows):
            return ""
        return json.dumps({"neurons": rows, "weights": weights if len(weights) == len(rows) else [1.0] * len(rows)})
    return ""


def _kernel_notes(problem: Problem, flow: object) -> list[str]:
    """What the grid of a flow, if it has one, makes of the kernels of interactions."""
    grid = getattr(flow, "grid", None)
    if not isinstance(grid, Grid):
        return []
    notes = [(name, term.on(grid).note) for name, term in problem.energy.terms.items() if isinstance(term, Interaction)]
    return [f"{WARNING}{name}: {note}" for name, note in notes if note]


def _level_notes(problem: Problem) -> list[str]:
    """Which networks start with levels of unequal mass."""
    terms = ((name, term) for name, term in problem.energy.terms.items() if isinstance(term, WideResNet))
    notes = [(name, term.remark(problem.initial, problem.domain)) for name, term in terms]
    return [f"{WARNING}{name}: {note}" for name, note in notes if note]


def _unfit(result: Path) -> str:
    """Why a stored run is not kept."""
    try:
        read_run(result)
    except ResultError as error:
        return f"the stored run cannot be read ({error})"
    return "the stored run is not of this case as it is now, or not complete"


def _ended(case: CaseFile, number: int, marching: Callable[[], tuple[Status, str]]) -> tuple[Status, str]:
    """How a march ended, taking a start that fails for the end of the run and a refusal of the start for wrong input."""
    try:
        return marching()
    except StepFailed as failure:
        return failure.status, str(failure)
    except ResultError:
        raise
    except ValueError as error:
        raise solver_error(case, number, error) from error


def _announce(label: str, result: Path, status: Status, message: str, remarks: bool) -> None:
    if status is Status.INTERRUPTED:
        warn(f"{label}: {message}; go on with --resume")
        return
    stored = read_run(result)
    tell(f"  {label}: {run_line(stored)}")
    notes = [note for note in stored.run.notes if not note.startswith(WARNING)]
    if remarks and notes:
        tell("\n".join(f"    {note}" for note in notes) if stored.run.tables else f"    {'; '.join(notes)}")
    for note in stored.run.notes:
        if note.startswith(WARNING):
            warn(f"{label}: {note}")
    if status is not Status.DONE:
        warn(f"{label}: {status.name}: {message}; {status.value}")


def _evaluate(case: CaseFile, problem: Problem, folder: Path, options: Options, outcome: Outcome) -> None:
    """Compare all finished runs of this case in the folder, and draw them."""
    runs = [run for number, label in enumerate(case.labels) if (run := _finished(case, number, folder / f"{label}.h5"))]
    reference = case.table.compare.reference
    compared = _comparable(runs, reference)
    if len(compared) > 1:
        known = [run.label for run in compared]
        outcome.comparison = compare(compared, reference if reference in known else None, problem, case.table.compare.distance)
        write_text(folder / "comparison.json", json.dumps(outcome.comparison.as_json(), indent=1))
        tell(comparison_table(outcome.comparison))
    if options.formats and runs:
        draw(runs, outcome.comparison, folder, options.formats, problem)


def _comparable(runs: Sequence[StoredRun], reference: str | None) -> list[StoredRun]:
    """The runs with a saved time in common with the reference, which is the first if it is not there; others are named."""
    base = next((run for run in runs if run.label == reference), runs[0] if runs else None)
    kept = [run for run in runs if base is None or np.intersect1d(run.run.times, base.run.times).size]
    for run in runs:
        if base is not None and run not in kept:
            warn(f"{run.label}: not compared, as no saved time is in common with {base.label}")
    return kept


def _finished(case: CaseFile, number: int, path: Path) -> StoredRun | None:
    """The stored run if it belongs to the case as it is now and has at least one saved time."""
    if not path.exists():
        return None
    try:
        stored = read_run(path)
    except ResultError as error:
        warn(f"{error} (it is not compared)")
        return None
    belongs = stored.attributes.get("fingerprint") == fingerprint(case, number)
    return stored if belongs and len(stored.run.times) else None


def draw(
    runs: Sequence[StoredRun],
    comparison: Comparison | None,
    folder: Path,
    formats: Sequence[str],
    problem: Problem | None = None,
) -> None:
    """All figures of a case, and a line that names them."""
    from mfpde.figures import draw_branches, draw_comparison, draw_network

    paths = draw_comparison(runs, comparison, folder, formats)
    paths += [path for run in runs for path in draw_branches(run, folder, formats)]
    for term in problem.energy.terms.values() if problem else ():
        if isinstance(term, TwoLayer | PairNetwork | WideResNet):
            found = draw_network(term, runs, folder, formats)
            paths += [found] if found else []
            break
    names = sorted({path.stem for path in paths})
    tell(f"  figures: {', '.join(names)} ({', '.join(formats)}) in {folder}/")


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically. Raises OSError, which names ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def worst_code(outcomes: Sequence[Outcome]) -> int:
    """130 if interrupted, else 2 for wrong input anywhere, else 3 for a stopped solver, else 0."""
    codes = {outcome.code for outcome in outcomes}
    return next((code for code in (130, 2, 3) if code in codes), 0)
