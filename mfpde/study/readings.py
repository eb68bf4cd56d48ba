"""Studies that solve a case, or variants of it, with its solvers and then read the stored runs: a plan says which runs, and what is read.

A kind is a table of its own, in the union StudyTable of mfpde.case.schema, and a module with ``plan(case, table, problem)`` that is listed
in ``_MODULES``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from mfpde.case import CaseFile
from mfpde.problem import Problem
from mfpde.study.report import Report

if TYPE_CHECKING:
    from mfpde.storage import StoredRun  # which brings h5py, and plans are made without it

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

    def read(self, stored: "Mapping[str, StoredRun]") -> Report:
        """What the runs show, by their labels. Raises ValueError in words where they do not fit the table."""


def plan_reading(case: CaseFile, table: Any, problem: Problem) -> Reading:
    """The plan of a study of this kind. Raises CaseError for what does not fit the case."""
    plan: Reading = import_module(_MODULES[table.kind]).plan(case, table, problem)
    return plan
