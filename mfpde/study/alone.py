"""Studies that stand alone: from the table of a case to a plan, which, carried out, gives a report.

A kind is a module with ``plan(case)``, listed in ``_MODULES`` under the name that its table has in mfpde.case.alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from mfpde import __version__
from mfpde.case import InputError, StudyCase
from mfpde.case.errors import CaseError
from mfpde.study.report import Report

_MODULES = {
    "two_scalings": "mfpde.study.two_scalings_plan",
    "sgd_stability": "mfpde.study.sgd_plan",
    "multilayer": "mfpde.study.multilayer_plan",
    "sparse_recovery": "mfpde.study.sparse_plan",
}


@dataclass(frozen=True)
class Desk:
    """Where and how a study is carried out: the folder of its checkpoints, whether to go on with what is there, how often to write
    it, and the signals received, after the first of which it is to stop."""

    folder: Path
    resume: bool
    seconds: float
    stopped: Sequence[int]


class Plan(Protocol):
    """What a study is going to do, checked against its table."""

    @property
    def case(self) -> StudyCase:
        """The case."""

    @property
    def description(self) -> list[str]:
        """Lines for people."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures, without their formats."""

    def carry_out(self, desk: Desk) -> Report | None:
        """Do it; None where a signal came, with what had ended kept in the desk's folder. Raises StepFailed."""


def plan_alone(case: StudyCase) -> Plan:
    """The plan of a case that is a study alone. Raises InputError with one message: file, line, key, value, accepted values."""
    try:
        plan: Plan = import_module(_MODULES[case.table.study.kind]).plan(case)
    except CaseError as error:
        raise InputError(error.located(str(case.path), case.text)) from error
    return plan


def mark_of(case: StudyCase, kept: Any) -> str:
    """What stored parts must share with the study as it is now: ``kept``, its table without what changes no number."""
    return hashlib.sha256(json.dumps([kept, case.table.study.kind, __version__], sort_keys=True).encode()).hexdigest()
