"""The command ``mfpde study`` for cross-checks: every run stored and resumable, then the table, its files and the figures."""

import json
from pathlib import Path

from mfpde.batch import Options, check_output, run_solver, write_text
from mfpde.case import InputError
from mfpde.console import tell, warn
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.storage import StoredRun, read_run, write_arrays
from mfpde.study.cross_check import CrossCheck, Member, cross_check
from mfpde.study.cross_check_plan import CrossCheckPlan, runs_of
from mfpde.study.cross_check_text import cross_check_arrays, cross_check_csv, cross_check_data, cross_check_text, differing
from mfpde.study.files import study_origin, write_study_json


def study_cross_check(plan: CrossCheckPlan, problem: Problem, folder: Path, options: Options) -> int:
    """Carry out a cross-check; returns 0 where all agree, 3 where something stopped early or differs, 130 interrupted."""
    case, runs = plan.case, folder / "study"
    figures = [f"study-{name}.{form}" for name in ("density", "distance") for form in options.formats]
    check_output(folder, ["study.json", "study.csv", "study.h5", *figures])
    check_output(runs, [f"{label}.h5" for label in plan.labels])
    tell(f"{case.table.title or case.path.stem}  ({case.path} → {folder}/)")
    for note in (plan.description, *plan.notes):
        tell(f"  {note}")
    statuses = []
    for number, (each, index) in enumerate(runs_of(plan)):
        statuses.append(run_solver(each, problem, index, runs, options, remarks=number < len(plan.numbers)))
        if statuses[-1] is Status.INTERRUPTED:
            return 130
    members = _members(plan, runs)
    try:
        check = cross_check(members, case.labels[plan.reference], plan.norms, plan.times, plan.allowance)
    except ValueError as error:
        raise InputError(f"{case.path}: study: {error}") from error
    tell(cross_check_text(check))
    _write(plan, check, folder)
    if options.formats:
        from mfpde.figures import draw_cross_check

        paths = draw_cross_check(check, [member.stored for member in members], folder, options.formats)
        tell(f"  figures: {', '.join(sorted({path.stem for path in paths}))} ({', '.join(options.formats)}) in {folder}/")
    wrong = differing(check)
    for line in wrong:
        warn(f"further apart than their errors: {line}")
    return 3 if wrong or any(status is not Status.DONE for status in statuses) else 0


def _members(plan: CrossCheckPlan, folder: Path) -> list[Member]:
    """The stored runs with their companions, the reference first."""

    def stored(label: str) -> StoredRun:
        return read_run(folder / f"{label}.h5")

    found = []
    for number in sorted(plan.numbers, key=lambda k: k != plan.reference):
        companions = plan.companions[number]
        more = tuple(stored(case.labels[number]) for case in companions.runs)
        tau = float(getattr(plan.case.table.solver[number], "tau", 0.0))
        found.append(Member(stored(plan.case.labels[number]), more, companions.coarse, companions.share, tau))
    return found


def _write(plan: CrossCheckPlan, check: CrossCheck, folder: Path) -> None:
    """study.json, study.csv and study.h5, with where they come from."""
    origin = study_origin(plan.case, "all", ", ".join(check.labels))
    write_study_json(folder, plan.case.table.title, cross_check_data(check) | {"notes": [*plan.notes, *check.words]}, origin)
    write_text(folder / "study.csv", cross_check_csv(check))
    scales, arrays = cross_check_arrays(check)
    attributes = {"study": "cross_check", "reference": check.reference, "notes": json.dumps(plan.notes)}
    write_arrays(folder / "study.h5", scales, arrays, attributes | origin)
    tell(f"  study.json, study.csv, study.h5 in {folder}/")
