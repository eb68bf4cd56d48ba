"""The command ``mfpde study`` for studies that stand alone: what has ended is kept, then the text, the files and the figures."""

from pathlib import Path

from mfpde.batch import Options, check_output, write_text
from mfpde.console import tell, warn
from mfpde.run import StepFailed
from mfpde.signals import interruption
from mfpde.storage import locked, write_arrays
from mfpde.study.alone import Desk, Plan, Report
from mfpde.study.files import study_origin, write_study_json


def study_alone(plan: Plan, folder: Path, options: Options) -> int:
    """Carry out a study that stands alone; returns 0 done, 3 where something failed or was missed, 130 interrupted."""
    case, parts = plan.case, folder / "study"
    figures = [f"{name}.{form}" for name in plan.figures for form in options.formats]
    check_output(folder, ["study.json", "study.csv", "study.h5", *figures])
    tell("\n  ".join([f"{case.table.title or case.path.stem}  ({case.path} → {folder}/)", *plan.description]))
    with interruption() as stopped, locked(parts / "parts.h5"):
        try:
            report = plan.carry_out(Desk(parts, options.resume, options.checkpoint_seconds, stopped))
        except StepFailed as failure:
            warn(f"{failure.status.name}: {failure}; {failure.status.value}")
            return 3
    if report is None:
        warn(f"stopped; what has ended is kept in {parts}/, go on with --resume")
        return 130
    tell(report.text())
    _write(plan, report, folder)
    if options.formats:
        names = sorted({path.stem for path in report.draw(folder, options.formats)})
        tell(f"  figures: {', '.join(names)} ({', '.join(options.formats)}) in {folder}/")
    wrong = report.missed()
    for line in wrong:
        warn(f"expected, but missed: {line}")
    return 3 if wrong else 0


def _write(plan: Plan, report: Report, folder: Path) -> None:
    """study.json, study.csv and study.h5, with where they come from."""
    case, kind = plan.case, plan.case.table.study.kind
    origin = study_origin(case, kind, "study")
    write_study_json(folder, case.table.title, report.data() | {"study": kind, "missed": report.missed()}, origin)
    write_text(folder / "study.csv", report.csv())
    scales, arrays = report.arrays()
    write_arrays(folder / "study.h5", scales, arrays, {"study": kind} | origin)
    tell(f"  study.json, study.csv, study.h5 in {folder}/")
