"""The command ``mfpde study``: every run stored and resumable, then the table, its files and the figure."""

import json
from collections.abc import Sequence
from pathlib import Path

from mfpde.batch import Options, check_output, write_text
from mfpde.case import InputError, StudyCase, load_study
from mfpde.case.build import build_problem
from mfpde.console import tell, warn
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.storage import ResultError, read_run, write_arrays
from mfpde.study.alone import plan_alone
from mfpde.study.alone_command import study_alone
from mfpde.study.cross_check_command import study_cross_check
from mfpde.study.cross_check_plan import CrossCheckPlan
from mfpde.study.files import study_origin, write_study_json
from mfpde.study.limit_command import study_limit
from mfpde.study.limit_plan import LimitPlan
from mfpde.study.plan import RefinementPlan, plan_study
from mfpde.study.readings_command import study_readings
from mfpde.study.references import OtherRun, Reference
from mfpde.study.refinement import RefinementStudy, measure_refinement
from mfpde.study.runs import level_of, run_all
from mfpde.study.text import missed, refinement_arrays, refinement_csv, refinement_data, refinement_text
from mfpde.study.time_step_command import study_time_step
from mfpde.study.time_step_plan import TimeStepPlan


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
    case = load_study(path, options.overrides)
    if isinstance(case, StudyCase):
        return study_alone(plan_alone(case), folder, options)
    problem = build_problem(case)
    plan = plan_study(case, problem)
    if isinstance(plan, LimitPlan):
        return study_limit(plan, problem, folder, options)
    if isinstance(plan, TimeStepPlan):
        return study_time_step(plan, problem, folder, options)
    if isinstance(plan, CrossCheckPlan):
        return study_cross_check(plan, problem, folder, options)
    if not isinstance(plan, RefinementPlan):
        return study_readings(plan, folder, options)
    check_output(folder, ["study.json", "study.csv", "study.h5", *(f"study-refinement.{form}" for form in options.formats)])
    check_output(folder / "study", [f"{label}.h5" for label in plan.labels])
    tell(f"{case.table.title or path.stem}  ({path} → {folder}/)")
    for note in plan.notes:
        tell(f"  {note}")
    others = [] if plan.other is None else [(plan.case, plan.other)]
    statuses = run_all([plan.runs], others, problem, folder / "study", options)
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


def _measured(plan: RefinementPlan, problem: Problem, folder: Path) -> RefinementStudy:
    levels = [level_of(variant, read_run(folder / f"{variant.label}.h5")) for variant in plan.runs]
    reference: Reference | None = plan.exact
    if plan.other is not None:
        label = plan.case.labels[plan.other]
        reference = OtherRun(read_run(folder / f"{label}.h5").run, label)
    try:
        return measure_refinement(problem.domain, levels, reference, plan.norms, plan.times)
    except ValueError as error:
        raise InputError(f"{plan.case.path}: study: {error}") from error


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
