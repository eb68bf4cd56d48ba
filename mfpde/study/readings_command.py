"""The command ``mfpde study`` for studies that read runs: every run stored and resumable, then the text, the files and the figures."""

from pathlib import Path

from mfpde.batch import Options, check_output, run_solver
from mfpde.case import InputError
from mfpde.console import tell
from mfpde.run import Status
from mfpde.storage import read_run
from mfpde.study.deliver import deliver
from mfpde.study.readings import Reading


def study_readings(plan: Reading, folder: Path, options: Options) -> int:
    """Carry out a study that reads runs; returns 0 done, 3 where a run stopped early or something was missed, 130 interrupted.

    Runs are stored as results in the folder "study", where finished ones are kept with ``--resume``.
    """
    case, kind, runs = plan.case, str(getattr(plan.case.table.study, "kind", "")), folder / "study"
    figures = [f"{name}.{form}" for name in plan.figures for form in options.formats]
    check_output(folder, ["study.json", "study.csv", "study.h5", *figures])
    check_output(runs, [f"{run.label}.h5" for run in plan.runs])
    tell("\n  ".join([f"{case.table.title or case.path.stem}  ({case.path} → {folder}/)", plan.description, *plan.notes]))
    statuses = []
    for k, run in enumerate(plan.runs):
        statuses.append(run_solver(run.case, run.problem, run.number, runs, options, remarks=not k))
        if statuses[-1] is Status.INTERRUPTED:
            return 130
    try:
        report = plan.read({run.label: read_run(runs / f"{run.label}.h5") for run in plan.runs})
    except ValueError as error:
        raise InputError(f"{case.path}: study: {error}") from error
    wrong = deliver(report, case, kind, ", ".join(dict.fromkeys(run.label for run in plan.runs)), folder, options)
    return 3 if wrong or any(status is not Status.DONE for status in statuses) else 0
