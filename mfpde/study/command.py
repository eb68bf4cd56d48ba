"""The command ``mfpde study``: every run stored and resumable, then the table, its files and the figure."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mfpde.batch import COMPILING, Options, check_output, run_solver, write_text
from mfpde.case import CaseFile, InputError, load_case
from mfpde.case.build import build_problem, build_solver, fingerprint
from mfpde.console import tell, warn
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.storage import ResultError, StoredRun, finished_fingerprint, read_run, write_arrays
from mfpde.study.files import study_origin, write_study_json
from mfpde.study.limit_command import study_limit
from mfpde.study.limit_plan import LimitPlan
from mfpde.study.plan import RefinementPlan, Variant, plan_study
from mfpde.study.references import OtherRun, Reference
from mfpde.study.refinement import Level, RefinementStudy, measure_refinement, warm_up
from mfpde.study.text import missed, refinement_arrays, refinement_csv, refinement_data, refinement_text


def study_case(path: Path, options: Options) -> int:
    """Carry out the study of a case; returns 0 done, 2 wrong input, 3 stopped early or an order missed, 130 interrupted."""
    folder = options.output or Path("results") / path.stem
    try:
        return _study(path, folder, options)
    except BrokenPipeError:
        raise
    except (InputError, ResultError) as error:
        warn(error)
    except MemoryError:
        warn(f"{path}: needs more memory than there is; use fewer cells")
    except OSError as error:
        warn(f"{error.filename or folder}: {error.strerror or error}")
    return 2


def _study(path: Path, folder: Path, options: Options) -> int:
    case = load_case(path, options.overrides)
    problem = build_problem(case)
    plan = plan_study(case, problem)
    if isinstance(plan, LimitPlan):
        return study_limit(plan, problem, folder, options)
    check_output(folder, ["study.json", "study.csv", "study.h5", *(f"study-refinement.{form}" for form in options.formats)])
    check_output(folder / "study", [f"{label}.h5" for label in plan.labels])
    tell(f"{case.table.title or path.stem}  ({path} → {folder}/)")
    for note in plan.notes:
        tell(f"  {note}")
    statuses = _run_all(plan, problem, folder / "study", options)
    if Status.INTERRUPTED in statuses:
        return 130
    study = _measured(plan, problem, folder / "study")
    tell(refinement_text(study, plan.solver, plan.expected))
    _write(plan, problem, study, folder)
    if options.formats:
        _draw(plan, study, folder, options.formats)
    wrong = missed(study, plan.expected)
    for line in wrong:
        warn(f"expected order missed: {line}")
    return 3 if wrong or any(status is not Status.DONE for status in statuses) else 0


# Runs.


def _run_all(plan: RefinementPlan, problem: Problem, folder: Path, options: Options) -> list[Status]:
    """Run everything up to an interruption."""
    if not options.resume or any(not _finished(variant, folder) for variant in plan.runs):
        _warm_up(plan, problem)
    work: list[tuple[CaseFile, int]] = [(variant.case, variant.number) for variant in plan.runs]
    if plan.other is not None:
        work.append((plan.case, plan.other))
    statuses: list[Status] = []
    for case, number in work:
        statuses.append(run_solver(case, problem, number, folder, options, remarks=not statuses))
        if statuses[-1] is Status.INTERRUPTED:
            break
    return statuses


def _warm_up(plan: RefinementPlan, problem: Problem) -> None:
    """One step that is thrown away, with a word on a terminal where it has to wait for the compiler."""
    solver = build_solver(plan.runs[0].case, plan.number)
    from mfpde.compile import announced

    def tell_terminal() -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            warn(COMPILING)

    with announced(tell_terminal):
        warm_up(solver, problem)


def _finished(variant: Variant, folder: Path) -> bool:
    return finished_fingerprint(folder / f"{variant.label}.h5") == fingerprint(variant.case, variant.number)


def _measured(plan: RefinementPlan, problem: Problem, folder: Path) -> RefinementStudy:
    levels = [_level(variant, read_run(folder / f"{variant.label}.h5")) for variant in plan.runs]
    reference: Reference | None = plan.exact
    if plan.other is not None:
        label = plan.case.labels[plan.other]
        reference = OtherRun(read_run(folder / f"{label}.h5").run, label)
    try:
        return measure_refinement(problem.domain, levels, reference, plan.norms, plan.times)
    except ValueError as error:
        raise InputError(f"{plan.case.path}: study: {error}") from error


def _level(variant: Variant, stored: StoredRun) -> Level:
    seconds = float(stored.attributes["wall_seconds"])
    return Level(variant.label, variant.cells, stored.run, seconds, variant.step, variant.tolerance)


# Files.


def _write(plan: RefinementPlan, problem: Problem, study: RefinementStudy, folder: Path) -> None:
    """study.json, study.csv and study.h5, with where they come from."""
    case, table = plan.case, plan.case.table.solver[plan.number]
    origin = study_origin(case, table.kind, plan.solver)
    data = refinement_data(study, plan.solver, plan.expected) | {"notes": plan.notes}
    write_study_json(folder, case.table.title, data, origin)
    write_text(folder / "study.csv", refinement_csv(study))
    attributes = {"study": "refinement", "reference": study.reference, "variable": study.variable, "notes": json.dumps(plan.notes)}
    scales, arrays = refinement_arrays(study, problem.domain.grid_names)
    write_arrays(folder / "study.h5", scales, arrays, attributes | origin)
    tell(f"  study.json, study.csv, study.h5 in {folder}/")


def _draw(plan: RefinementPlan, study: RefinementStudy, folder: Path, formats: Sequence[str]) -> None:
    from mfpde.figures import draw_refinement

    paths = draw_refinement(study, plan.case.table.title, plan.solver, folder, formats)
    names = sorted({path.stem for path in paths})
    if names:
        tell(f"  figures: {', '.join(names)} ({', '.join(formats)}) in {folder}/")
