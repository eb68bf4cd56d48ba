"""The command ``mfpde study`` for time steps: every run stored and resumable, then the tables, their files and the figure."""

import json
from pathlib import Path

from mfpde.batch import Options, check_output, write_text
from mfpde.case import InputError
from mfpde.console import tell, warn
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.storage import read_run, write_arrays
from mfpde.study.files import study_origin, write_study_json
from mfpde.study.references import OtherRun, Reference
from mfpde.study.runs import level_of, run_all
from mfpde.study.time_step import TimeStepStudy, measure_family
from mfpde.study.time_step_plan import TimeStepPlan
from mfpde.study.time_step_text import orders_missed, time_step_arrays, time_step_csv, time_step_data, time_step_text


def study_time_step(plan: TimeStepPlan, problem: Problem, folder: Path, options: Options) -> int:
    """Carry out a study of the time step; returns 0 done, 3 where something stopped early or an order was missed, 130 interrupted."""
    case, runs = plan.case, folder / "study"
    check_output(folder, ["study.json", "study.csv", "study.h5", *(f"study-time-step.{form}" for form in options.formats)])
    check_output(runs, [f"{label}.h5" for label in plan.labels])
    tell(f"{case.table.title or case.path.stem}  ({case.path} → {folder}/)")
    for note in (plan.description, *plan.notes):
        tell(f"  {note}")
    others = [] if plan.other is None else [(case, plan.other)]
    statuses = run_all([family.runs for family in plan.families], others, problem, runs, options)
    if Status.INTERRUPTED in statuses:
        return 130
    study = _measured(plan, problem, runs)
    tell(time_step_text(study))
    _write(plan, study, folder)
    if options.formats:
        from mfpde.figures import draw_time_step

        paths = draw_time_step(study, case.table.title, folder, options.formats)
        if paths:
            tell(f"  figures: {', '.join(sorted({path.stem for path in paths}))} ({', '.join(options.formats)}) in {folder}/")
    wrong = orders_missed(study)
    for line in wrong:
        warn(f"expected order missed: {line}")
    return 3 if wrong or any(status is not Status.DONE for status in statuses) else 0


def _measured(plan: TimeStepPlan, problem: Problem, folder: Path) -> TimeStepStudy:
    reference: Reference | None = plan.exact
    if plan.other is not None:
        label = plan.case.labels[plan.other]
        reference = OtherRun(read_run(folder / f"{label}.h5").run, label)
    families = []
    for family in plan.families:
        levels = [level_of(variant, read_run(folder / f"{variant.label}.h5")) for variant in family.runs]
        try:
            found = measure_family(
                problem.domain, family.solver, family.order, levels, reference, family.norms, family.against, plan.times, family.expected
            )
        except ValueError as error:
            raise InputError(f"{plan.case.path}: study: {error}") from error
        families.append(found)
    return TimeStepStudy(tuple(families), plan.times, plan.reference)


def _write(plan: TimeStepPlan, study: TimeStepStudy, folder: Path) -> None:
    """study.json, study.csv and study.h5, with where they come from."""
    origin = study_origin(plan.case, "jko", plan.solvers)
    write_study_json(folder, plan.case.table.title, time_step_data(study) | {"notes": plan.notes}, origin)
    write_text(folder / "study.csv", time_step_csv(study))
    scales, arrays = time_step_arrays(study)
    attributes = {"study": "time_step", "reference": study.reference, "notes": json.dumps(plan.notes)}
    write_arrays(folder / "study.h5", scales, arrays, attributes | origin)
    tell(f"  study.json, study.csv, study.h5 in {folder}/")
