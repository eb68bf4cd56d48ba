"""What a [study] of kind "teacher_recovery" asks for: one run of one solver for each activation and start."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from mfpde.case import CaseFile, schema
from mfpde.case.build import build_problem, teacher_of
from mfpde.case.errors import CaseError
from mfpde.case.load import InputError
from mfpde.case.teacher_recovery_schema import TeacherRecoveryTable
from mfpde.compare import networks
from mfpde.disk import Disk
from mfpde.measure import DensityFunction, Measure, Particles
from mfpde.problem import Problem
from mfpde.study.readings import PlannedRun
from mfpde.study.teacher_recovery import OUTCOMES, Recovery, Row, read_row
from mfpde.study.variants import labelled_solver
from mfpde.tables import counted

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

OWN = "initial"
_TEACHER_CELLS = {1: 4096, 2: 256, 3: 48}
_MASS = 1e-9
_FARTHEST = 0.01


@dataclass(frozen=True, eq=False)
class RecoveryPlan:
    """The runs, each with its activation and the name of its start, and the teacher's measure."""

    case: CaseFile
    runs: tuple[PlannedRun, ...]
    activations: tuple[str, ...]
    starts: tuple[str, ...]
    teacher: Measure
    distance: float
    table: TeacherRecoveryTable
    notes: list[str]
    figures: tuple[str, ...] = ("study-densities", "study-recovery")

    @property
    def description(self) -> str:
        """One line for people."""
        return f"recovery of the teacher with {', '.join(self.activations)} from {', '.join(self.starts)}: {counted(len(self.runs), 'run')}"

    def read(self, stored: "Mapping[str, StoredRun]") -> Recovery:
        """Distances from the teacher in every run."""
        rows: list[Row] = []
        for run, (activation, start) in zip(self.runs, _pairs(self.activations, self.starts), strict=True):
            rows.append(read_row(activation, start, stored[run.label], run.problem, self.teacher, self.distance, self.table.residual))
        expected = {name: OUTCOMES[outcome] for name, outcome in self.table.expected.items()}
        return Recovery(self.case.table.title, tuple(rows), self.teacher, self.distance, self.table.residual, expected)


def plan(case: CaseFile, table: TeacherRecoveryTable, problem: Problem) -> RecoveryPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    number, label = _network(case, problem), labelled_solver(case, table.solver)
    teacher = _teacher_measure(case, number, problem)
    own = str(getattr(case.table.energy[number], "activation", ""))
    activations, starts = tuple(table.activations or [own]), (OWN, *table.starts)
    if table.starts and case.table.initial.density is None:
        raise CaseError(("study", "starts"), "other starts are densities, so the case's own initial measure must be one: [initial] density")
    runs = tuple(_run(case, table, number, label, pair) for pair in _pairs(activations, starts))
    named = {*activations, *(run.label for run in runs)}
    for name in table.expected:
        if name not in named:
            raise CaseError(("study", "expected", name), f"is no activation or run of this study; accepted: {', '.join(sorted(named))}")
    span = problem.domain.upper - problem.domain.lower
    reach = float(np.linalg.norm(span[list(problem.domain.moving)]))
    return RecoveryPlan(case, runs, activations, starts, teacher, table.distance or _FARTHEST * reach, table, [])


def _pairs(activations: tuple[str, ...], starts: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(activation, start) for activation in activations for start in starts]


def _network(case: CaseFile, problem: Problem) -> int:
    """The index of the one network."""
    found = [k for k, term in enumerate(case.table.energy) if getattr(term, "teacher", None) is not None]
    if len(found) != 1 or not networks(problem):
        raise CaseError(("energy",), f"recovery of a teacher needs exactly one network in the energy, got {len(found)}")
    if isinstance(problem.domain, Disk):
        raise CaseError(("domain",), "recovery of a teacher is measured in boxes, not disks")
    return found[0]


def _teacher_measure(case: CaseFile, number: int, problem: Problem) -> Measure:
    """The teacher as a probability measure on the domain."""
    key, domain = ("energy", number, "teacher"), problem.domain
    teacher = teacher_of(case, number, domain)
    if teacher is None:
        raise CaseError(key, "is a column of data, which is no measure that could be recovered; accepted: neurons or a density")
    if isinstance(teacher, DensityFunction):
        if domain.dimension not in _TEACHER_CELLS:
            raise CaseError(key, f"a density needs at most 3 axes, got {domain.dimension}; accepted: neurons")
        return teacher.on(domain.even_grid(_TEACHER_CELLS[domain.dimension]))
    if teacher.points.shape[1] != domain.dimension or teacher.weights.shape[1] > 1:
        words = "neurons with output weights stand for no single measure on the domain, whose axes hold the weights too"
        raise CaseError(key, f"{words}; accepted: a density on the whole domain")
    weights = teacher.weights[:, 0]
    if np.min(weights) <= 0.0 or abs(float(np.sum(weights)) - 1.0) > _MASS:
        raise CaseError((*key, "weights"), f"no probability measure has these: they must be positive with sum one, got {weights.tolist()}")
    if not domain.contains(teacher.points).all():
        raise CaseError((*key, "neurons"), "lie outside the domain, where the student cannot get")
    return Particles(teacher.points, weights)


def _run(case: CaseFile, table: TeacherRecoveryTable, number: int, solver: int, pair: tuple[str, str]) -> PlannedRun:
    """The case with another activation and start."""
    activation, start = pair
    changes: dict[str, Any] = {"energy": list(case.table.energy), "solver": list(case.table.solver)}
    term: Any = case.table.energy[number]
    try:
        changes["energy"][number] = type(term).model_validate(term.model_dump(exclude_unset=True) | {"activation": activation})
    except ValidationError as error:
        words = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise CaseError(("study", "activations"), f"{activation}: {words}") from error
    if start != OWN:
        changes["initial"] = schema.Initial.model_validate({"density": table.starts[start]})
    name = f"{activation}-{start}"
    changes["solver"][solver] = changes["solver"][solver].model_copy(update={"label": name})
    changes["solver"] = [changes["solver"][solver]]
    told = (*case.overrides, f"study.activation={activation}", f"study.start={start}")
    variant = replace(case, table=case.table.model_copy(update=changes | {"compare": schema.Compare(), "study": None}), overrides=told)
    key = ("study", "starts", start) if start != OWN else ("study", "activations")
    try:
        problem = build_problem(variant)

    except InputError as error:
        raise CaseError(key, f"{name}: {error}") from error
    return PlannedRun(variant, 0, problem)
