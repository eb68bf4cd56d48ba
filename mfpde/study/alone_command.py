"""The command ``mfpde study`` for studies that stand alone: what has ended is kept, then the text, the files and the figures."""

from pathlib import Path

from mfpde.batch import Options, check_output
from mfpde.console import tell, warn
from mfpde.run import StepFailed
from mfpde.signals import interruption
from mfpde.storage import locked
from mfpde.study.alone import Desk, Plan
from mfpde.study.deliver import deliver


def study_alone(plan: Plan, folder: Path, options: Options) -> int:
    """Carry out a study that stands alone; returns 0 done, 3 where something failed or was missed, 130 interrupted."""
    case, parts = plan.case, folder / "study"
    figures = [f"{name}.{form}" for name in plan.figures for form in options.formats]
    check_output(folder, ["study.json", "study.csv", "study.h5", *figures])
    check_output(parts, ["parts.h5"])
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
    wrong = deliver(report, case, case.table.study.kind, "study", folder, options)
    return 3 if wrong else 0
