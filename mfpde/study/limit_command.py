"""The command ``mfpde study`` for particle limits: the reference, the runs with their checkpoints, the table, its files and the figure."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mfpde import __version__
from mfpde.arrays import FloatArray
from mfpde.batch import Options, check_output, progress_bar, run_solver, write_text
from mfpde.case.build import build_solver, fingerprint, solver_error
from mfpde.console import tell, warn
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.signals import interruption
from mfpde.solvers import ParticleFlow
from mfpde.storage import ResultError, locked, read_arrays, read_run, write_arrays
from mfpde.study.files import study_origin, write_study_json
from mfpde.study.limit import LimitTable, Task, pieces
from mfpde.study.limit_plan import LimitPlan
from mfpde.study.limit_text import LimitReport, limit_arrays, limit_csv, limit_data, limit_text, slopes_missed
from mfpde.study.predictions import start_loss, start_square_distance, weak_residual
from mfpde.study.quantities import loss_terms
from mfpde.study.sensitivity import Sensitivity, has_sensitivity, loss_sensitivity

_FORMAT = 1
_SECONDS = 1.0
_PILOT = 64


def study_limit(plan: LimitPlan, problem: Problem, folder: Path, options: Options) -> int:
    """Carry out a particle limit; returns 0 done, 3 where something stopped early or a slope was missed, 130 interrupted."""
    case, runs = plan.case, folder / "study"
    check_output(folder, ["study.json", "study.csv", "study.h5", *(f"study-limit.{form}" for form in options.formats)])
    check_output(runs, [f"{plan.reference}.h5", f"{plan.solver}-runs.h5"])
    tell(f"{case.table.title or case.path.stem}  ({case.path} → {folder}/)")
    for note in (plan.description, *plan.notes):
        tell(f"  {note}")
    status = run_solver(case, problem, plan.other, runs, options)
    if status is not Status.DONE:
        return 130 if status is Status.INTERRUPTED else 3
    reference = read_run(runs / f"{plan.reference}.h5").run
    with interruption() as stopped, locked(runs / f"{plan.solver}-runs.h5"):
        report = _measured(plan, replace(problem, save_at=plan.times), reference, runs, options, stopped)
    if report is None:
        warn(f"{plan.solver}: stopped; the runs that have ended are kept in {runs}/, go on with --resume")
        return 130
    tell(limit_text(report))
    _write(plan, report, folder)
    if options.formats:
        from mfpde.figures import draw_limit

        paths = draw_limit(report, folder, options.formats)
        tell(f"  figures: {', '.join(sorted({path.stem for path in paths}))} ({', '.join(options.formats)}) in {folder}/")
    wrong = slopes_missed(report)
    for line in wrong:
        warn(f"expected slope missed: {line}")
    failed = int(np.sum(~report.limit.done))
    if failed:
        warn(f"{failed} runs stopped early; the runs of the same number are left out for every count")
    return 3 if wrong or failed else 0


def _measured(
    plan: LimitPlan, problem: Problem, reference: Run, folder: Path, options: Options, stopped: Sequence[int]
) -> LimitReport | None:
    """The whole study; None where it was interrupted, with what had ended in its checkpoint."""
    solver = build_solver(plan.case, plan.number)
    assert isinstance(solver, ParticleFlow)
    solver = replace(solver, start="random", count=plan.table.counts[0])
    noisy = problem.energy.temperature > 0.0 and solver.diffusion == "noise"
    independent = not problem.domain.frozen.any()  # draws along frozen axes are one from each of as many parts
    smooth = not noisy and independent and has_sensitivity(problem)
    sensitivity = loss_sensitivity(problem, plan.times, stopped) if smooth and "loss" in plan.quantities else None
    if smooth and "loss" in plan.quantities and sensitivity is None and not stopped:
        tell("  the sensitivity of the loss to the start does not settle, so its mean is not freed from its fluctuations")
    task = Task(problem, reference, solver, plan.quantities, plan.table.seed, sensitivity)
    alone = _hits_walls(problem, stopped) if smooth else False
    checkpoint = _Checkpoint(folder / f"{plan.solver}-runs.h5", _mark(plan), plan)
    table = checkpoint.table(options.resume)
    try:
        if not _fill(plan, task, table, checkpoint, alone, stopped):
            return None
    except ValueError as error:
        raise solver_error(plan.case, plan.number, error) from error
    quantile = _from_quantiles(plan, task, stopped) if plan.quantile else {}
    if stopped:
        return None
    limit = table.limit(plan.table.counts, np.asarray(plan.times), quantile)
    flowing = not noisy and solver.learning_rate is None and solver.diffusion != "blob" and plan.times[-1] > 0.0
    exact = _exactness(plan, task, stopped) if flowing else None
    if stopped:
        return None
    return LimitReport(
        plan.case.table.title,
        plan.solver,
        plan.reference,
        limit,
        plan.expected,
        plan.allowance,
        tuple(loss_terms(problem)),
        _central_limits(plan, problem, sensitivity if solver.batch is None else None),
        exact,
        _offset(problem, reference),
    )


def _offset(problem: Problem, reference: Run) -> float:
    """By how much the reference's loss is wrong at time 0; nan where it cannot be known."""
    terms = loss_terms(problem)
    if not terms or reference.times[0] != 0.0 or problem.domain.dimension not in (1, 2, 3):
        return float("nan")
    return abs(sum(float(reference.energy[name][0]) for name in terms) - start_loss(problem, terms))


def _hits_walls(problem: Problem, stopped: Sequence[int]) -> bool:
    """Whether a few atoms show that mass reaches walls, each time at the cost of some steps, which systems together would all have to
    make."""
    pilot = ParticleFlow(_PILOT, start="quantile", tolerance=1e-6).solve(problem, stopped)
    return bool(np.max(pilot.certificate["wall"], initial=0.0) > 0.0)


def _fill(plan: LimitPlan, task: Task, table: LimitTable, checkpoint: "_Checkpoint", alone: bool, stopped: Sequence[int]) -> bool:
    """Make the runs that are missing; False where a signal came."""
    counts = plan.table.counts
    whole = list(pieces(counts, plan.table.runs, alone))
    work = [piece for piece in whole if not table.has(piece)]
    if len(work) < len(whole):
        tell(f"  {plan.solver}: {int(np.sum(table.ended))} of {table.ended.size} runs are there already")
    total = sum(counts[piece.number] * (piece.last - piece.first) for piece in work)
    with progress_bar(plan.solver, total) as bar:
        for piece in work:
            count = counts[piece.number]
            bar.set_description_str(f"{plan.solver}  N = {count}, run {piece.last} of {plan.table.runs}")
            found = task.carry_out(piece, count, stopped)
            if stopped:
                break
            table.put(piece, found)
            checkpoint.keep(table)
            bar.update(count * (piece.last - piece.first))
    checkpoint.keep(table, now=True)
    return not stopped


def _from_quantiles(plan: LimitPlan, task: Task, stopped: Sequence[int]) -> dict[str, FloatArray]:
    """The quantities (counts, times) of one run of each count from quantiles."""
    found = []
    for count in plan.table.counts:
        run = replace(task.solver, count=count, start="quantile").solve(task.problem, stopped)
        if stopped:
            return {}
        found.append(task.compare([run]).values)
    return {name: np.stack([values[name][0] for values in found]) for name in plan.quantities}


def _exactness(plan: LimitPlan, task: Task, stopped: Sequence[int]) -> tuple[int, float]:
    """The smallest count and by how much its atoms miss the weak form of the PDE."""
    count = plan.table.counts[0]
    return count, weak_residual(task.problem, replace(task.solver, count=count, seed=plan.table.seed, tolerance=1e-10), stopped)


def _central_limits(plan: LimitPlan, problem: Problem, sensitivity: Sensitivity | None) -> dict[str, FloatArray]:
    """What central limit theorems say at each time, nan where they say nothing: "w2" N E W₂² at the start of problems on one axis,
    "loss" √N times the deviation of the loss gap."""
    times = np.asarray(plan.times)
    found = {"w2": np.full(len(times), np.nan), "loss": np.full(len(times), np.nan)}
    expected = start_square_distance(problem)
    if times[0] == 0.0 and np.isfinite(expected):
        found["w2"][0] = expected
    if sensitivity is not None:
        found["loss"] = sensitivity.deviation
    return found


# Checkpoints.


def _mark(plan: LimitPlan) -> str:
    """What runs must share to stand in one table."""
    kept = plan.table.model_dump(exclude={"expected", "allowance", "quantile", "runs"})
    kept |= {"solver": fingerprint(plan.case, plan.number), "reference": fingerprint(plan.case, plan.other)}
    kept |= {"times": plan.times, "quantities": plan.quantities, "version": __version__, "format": _FORMAT}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(eq=False)
class _Checkpoint:
    """The runs that have ended, in one file that is replaced as a whole."""

    path: Path
    mark: str
    plan: LimitPlan
    last: float = 0.0

    def table(self, resume: bool) -> LimitTable:
        """What is there already, if it is of the study as it is now."""
        table = LimitTable.empty(self.plan.table.counts, self.plan.table.runs, self.plan.quantities, len(self.plan.times))
        if not resume or not self.path.is_file():
            return table
        try:
            arrays, attributes = read_arrays(self.path)
        except ResultError as error:
            tell(f"  {self.plan.solver}: {error}; starting anew")
            return table
        if str(attributes.get("fingerprint")) != self.mark or str(attributes.get("digest")) != _digest(arrays):
            tell(f"  {self.plan.solver}: the stored runs are not of this study as it is now, or damaged; starting anew")
            return table
        table.take(arrays, self.plan.table.counts)
        return table

    def keep(self, table: LimitTable, now: bool = False) -> None:
        """Write it, at most once a second."""
        if not now and time.monotonic() - self.last < _SECONDS:
            return
        axes = ("count", "run", "time")
        arrays: dict[str, tuple[tuple[str, ...], Any]] = {name: (axes, values) for name, values in table.values.items()}
        arrays["control"] = (axes, table.control)
        arrays |= {name: (axes[:2], getattr(table, name).astype(np.int8)) for name in ("ended", "done")}
        scales = {"count": self.plan.table.counts, "run": np.arange(self.plan.table.runs), "time": np.asarray(self.plan.times)}
        attributes = {
            "fingerprint": self.mark,
            "study": "particle_limit",
            "digest": _digest({k: v for k, (_, v) in arrays.items()} | scales),
        }
        write_arrays(self.path, scales, arrays, attributes)
        self.last = time.monotonic()


def _digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of all numbers, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(name.encode() + np.ascontiguousarray(arrays[name], dtype=float).tobytes())
    return found.hexdigest()


# Files.


def _write(plan: LimitPlan, report: LimitReport, folder: Path) -> None:
    """study.json, study.csv and study.h5, with where they come from."""
    origin = study_origin(plan.case, "particles", plan.solver)
    write_study_json(folder, plan.case.table.title, limit_data(report) | {"notes": plan.notes}, origin)
    write_text(folder / "study.csv", limit_csv(report))
    scales, arrays = limit_arrays(report)
    attributes = {"study": "particle_limit", "reference": plan.reference, "notes": json.dumps(plan.notes)}
    write_arrays(folder / "study.h5", scales, arrays, attributes | origin)
    tell(f"  study.json, study.csv, study.h5 in {folder}/")
