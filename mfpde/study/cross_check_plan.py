"""What a [study] of kind "cross_check" asks for: the runs, and beside each the runs that measure its own error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mfpde.case import CaseFile, schema
from mfpde.case.build import check_movements
from mfpde.case.errors import CaseError, nearest, shown
from mfpde.problem import Problem
from mfpde.study.limit_plan import chosen_times
from mfpde.study.variants import varied

NORMS = ("w2", "l1", "loss")
_REPLICAS, _LEAST_COUNT = 8, 16
_LOOSER = 8.0
STEPPER_TOLERANCES = {"explicit": 1e-8, "implicit": 1e-6, "implicit_euler": 1e-4}
"""Those of the steppers of finite volumes, which bring the compiler, so that checking a case does not ask them."""
_FACTORS = {"tau": 2.0, "step": 2.0, "blob_width": 2.0, "epsilon": 4.0}
"""Four for the regularisation, whose bias is of the order epsilon/tau."""


@dataclass(frozen=True, eq=False)
class Companions:
    """Runs that show the error of a run: a ``coarse`` one with half the resolution, or independent ones with other seeds.

    ``share``: how many times fewer atoms the independent ones have, so that their fluctuations are √share times larger.
    """

    runs: tuple[CaseFile, ...]
    coarse: bool
    share: float
    words: str


@dataclass(frozen=True, eq=False)
class CrossCheckPlan:
    """The runs of the solvers ``numbers`` against that of ``reference``."""

    case: CaseFile
    numbers: tuple[int, ...]
    reference: int
    companions: dict[int, Companions]
    norms: tuple[str, ...]
    times: tuple[float, ...]
    allowance: float
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The labels of all runs that are made."""
        more = [case.labels[number] for number in self.numbers for case in self.companions[number].runs]
        return [*(self.case.labels[number] for number in self.numbers), *more]

    @property
    def description(self) -> str:
        """One line for people."""
        others = ", ".join(self.case.labels[number] for number in self.numbers if number != self.reference)
        times = ", ".join(f"{time:g}" for time in self.times)
        return f"cross-check of {others} against {self.case.labels[self.reference]} at t = {times}; {', '.join(self.norms)}"


def plan_cross_check(case: CaseFile, table: schema.CrossCheckTable, problem: Problem) -> CrossCheckPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    labels = table.solvers or case.labels
    for label in labels:
        if label not in case.labels:
            raise CaseError(("study", "solvers"), f"got {shown(label)}; accepted: {', '.join(case.labels)}{nearest(label, case.labels)}")
    if len(labels) < 2:
        raise CaseError(("study",), "a cross-check needs at least two solvers, and there is one in this case")
    chosen = table.reference or (case.table.compare.reference if case.table.compare.reference in labels else labels[0])
    if chosen not in labels:
        raise CaseError(("study", "reference"), f"got {shown(chosen)}; accepted: {', '.join(labels)}{nearest(chosen, labels)}")
    numbers = tuple(k for k, label in enumerate(case.labels) if label in labels)
    times = chosen_times(table.times, problem, problem.save_at)
    companions = {number: _companions(case, number, problem) for number in numbers}
    notes = [f"{case.labels[number]}: {companions[number].words}" for number in numbers]
    norms = tuple(norm for norm in NORMS if norm in (table.norms or NORMS))
    plan = CrossCheckPlan(case, numbers, case.labels.index(chosen), companions, norms, times, table.allowance or 1.0, notes)
    twice = [label for label in plan.labels if plan.labels.count(label) > 1]
    if twice:
        raise CaseError(("solver",), f'the label "{twice[0]}" is that of a run of the study; give this solver another')
    return plan


def _companions(case: CaseFile, number: int, problem: Problem) -> Companions:
    solver: Any = case.table.solver[number]
    if isinstance(solver, schema.ParticleSolver) and _drawn(solver, case, problem):
        return _replicas(case, number)
    changes, words = _coarser(solver, case)
    coarse = varied(case, number, f"{case.labels[number]}-coarse", changes, (), ("solver", number))
    try:
        check_movements(coarse, problem)
    except CaseError as error:
        return Companions((), True, 1.0, f"nothing states its error: with {', '.join(words)} it cannot be solved ({error})")
    return Companions((coarse,), True, 1.0, f"its error is 3 times what it differs by from a run with {', '.join(words)}")


def _drawn(solver: schema.ParticleSolver, case: CaseFile, problem: Problem) -> bool:
    """Whether there is chance in the run."""
    noisy = problem.energy.temperature > 0.0 and solver.diffusion == "noise"
    return noisy or solver.batch is not None or (solver.start == "random" and case.table.initial.atoms is None)


def _replicas(case: CaseFile, number: int) -> Companions:
    """Independent runs, of fewer atoms in all than the run itself where it has many."""
    solver: Any = case.table.solver[number]
    count = solver.count
    fewer = count // _REPLICAS if count is not None and count >= _REPLICAS * _LEAST_COUNT else count
    changes = [{"seed": (solver.seed + 1 + r) % 2**63} | ({"count": fewer} if fewer is not None else {}) for r in range(_REPLICAS)]
    label = case.labels[number]
    runs = tuple(varied(case, number, f"{label}-seed{c['seed']}", c, (), ("solver", number)) for c in changes)
    share = count / fewer if count is not None and fewer is not None else 1.0
    words = f"its fluctuations are those of {_REPLICAS} other seeds" + (f" with {fewer} atoms, scaled by N^(-1/2)" if share > 1.0 else "")
    return Companions(runs, False, share, words)


def _coarser(solver: Any, case: CaseFile) -> tuple[dict[str, Any], list[str]]:
    """Half of everything that makes a run better, with the words for it."""
    changes: dict[str, Any] = {}
    cells = getattr(solver, "cells", None)
    if cells and max(cells) > 1:
        changes["cells"] = [(count + 1) // 2 for count in cells]
    count = getattr(solver, "count", None)
    if count and case.table.initial.atoms is None:
        changes["count"] = max(count // 2, 1)
    for name, factor in _FACTORS.items():
        if name in solver.model_fields_set and getattr(solver, name) is not None:
            changes[name] = factor * getattr(solver, name)
    tolerance = _tolerance(solver, case)
    if tolerance is not None:
        changes["tolerance"] = min(_LOOSER * tolerance, 1e-1 if isinstance(solver, schema.MovementSolver) else 1e-2)
    if getattr(solver, "accuracy", None) is not None:
        changes["accuracy"] = min(_LOOSER * solver.accuracy, 1e-1)
    words = [f"{k} = {' × '.join(map(str, v)) if k == 'cells' else format(v, '.4g')}" for k, v in changes.items()]
    return changes, words or ["the same choices"]


def _tolerance(solver: Any, case: CaseFile) -> float | None:
    """The tolerance, also where it is that of the stepper of finite volumes; None where it is another solver's own."""
    if "tolerance" in solver.model_fields_set:
        return float(solver.tolerance) if solver.tolerance is not None else None
    if not isinstance(solver, schema.FiniteVolumeSolver) or solver.step is not None:
        return None
    internal = any(isinstance(term, schema.EntropyTerm | schema.PorousMediumTerm) for term in case.table.energy)
    return STEPPER_TOLERANCES.get(solver.stepper, STEPPER_TOLERANCES["implicit" if internal else "explicit"])


def runs_of(plan: CrossCheckPlan) -> Sequence[tuple[CaseFile, int]]:
    """All runs: those of the case first."""
    more = [(case, number) for number in plan.numbers for case in plan.companions[number].runs]
    return [*((plan.case, number) for number in plan.numbers), *more]
