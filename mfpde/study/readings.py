"""Studies that solve a case, or variants of it, with its solvers and then read the stored runs: a plan says which runs, and what is read.

A kind is a table of its own, in the union StudyTable of mfpde.case.schema, and a module with ``plan(case, table, problem)`` that is listed
in ``_MODULES``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from mfpde.batch import Options, check_output, run_solver
from mfpde.case import CaseFile, InputError
from mfpde.console import tell
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.storage import StoredRun, read_run
from mfpde.study.report import Report, deliver

_MODULES = {
    "stationarity": "mfpde.study.stationarity_plan",
    "teacher_recovery": "mfpde.study.teacher_recovery_plan",
    "convergence_speed": "mfpde.study.convergence_speed_plan",
    "spectrum": "mfpde.study.spectrum_plan",
    "wide_resnet": "mfpde.study.wide_resnet_plan",
}


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """The solver ``number`` of a case, and the problem that the case states. The solver's label names the run in its study."""

    case: CaseFile
    number: int
    problem: Problem

    @property
    def label(self) -> str:
        """The run's name."""
        return self.case.labels[self.number]


class Reading(Protocol):
    """What a study of runs is going to do, checked against its case."""

    @property
    def case(self) -> CaseFile:
        """The case."""

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """What is solved, with labels that differ."""

    @property
    def description(self) -> str:
        """One line for people."""

    @property
    def notes(self) -> list[str]:
        """More lines for people, if any."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures, without their formats."""

    def read(self, stored: Mapping[str, StoredRun]) -> Report:
        """What the runs show, by their labels. Raises ValueError in words where they do not fit the table."""


def plan_reading(case: CaseFile, table: Any, problem: Problem) -> Reading:
    """The plan of a study of this kind. Raises CaseError for what does not fit the case."""
    plan: Reading = import_module(_MODULES[table.kind]).plan(case, table, problem)
    return plan


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
