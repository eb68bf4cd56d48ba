"""What a [study] of kind "time_step" asks for, checked against the case before anything is solved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mfpde.case import CaseFile, schema
from mfpde.case.build import check_movements
from mfpde.case.errors import CaseError, check_steps, nearest, shown
from mfpde.problem import Problem
from mfpde.study.exact import exact_density
from mfpde.study.limit_plan import chosen_times
from mfpde.study.references import ExactDensity, divides
from mfpde.study.refinement import NORMS, Expectation
from mfpde.study.time_step import ALLOWANCES, finest_cells
from mfpde.study.variants import Variant, other_solver, varied

_USUAL = ("l1", "w2", "loss")
_WHOLE = 1e-9


@dataclass(frozen=True, eq=False)
class FamilyPlan:
    """The runs of one solver with steps of one order, coarse to fine; ``against``: the norms in which it meets the reference."""

    solver: str
    order: int
    runs: tuple[Variant, ...]
    norms: tuple[str, ...]
    against: tuple[str, ...]
    expected: Expectation


@dataclass(frozen=True, eq=False)
class TimeStepPlan:
    """Families of runs; the reference is ``exact``, else the solver ``other``, else there is none beside the finest steps."""

    case: CaseFile
    families: tuple[FamilyPlan, ...]
    exact: ExactDensity | None
    other: int | None
    times: tuple[float, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The labels of all runs, that of the reference last."""
        runs = [variant.label for family in self.families for variant in family.runs]
        return [*runs, *([self.case.labels[self.other]] if self.other is not None else [])]

    @property
    def solvers(self) -> str:
        """The labels of the solvers that are studied."""
        return ", ".join(dict.fromkeys(family.solver for family in self.families))

    @property
    def reference(self) -> str:
        """What stands for the solution, in words; empty where nothing does."""
        if self.exact is not None:
            return self.exact.name
        return "" if self.other is None else self.case.labels[self.other]

    @property
    def description(self) -> str:
        """One line for people."""
        families = ", ".join(f"{family.solver} (order {family.order})" for family in self.families)
        steps = ", ".join(f"{variant.step:g}" for variant in self.families[0].runs)
        beside = f" and {self.reference}" if self.reference else ""
        times = ", ".join(f"{time:g}" for time in self.times)
        return f"orders in tau of {families}: tau = {steps}; against the finest step{beside} at t = {times}"


def plan_time_step(case: CaseFile, table: schema.TimeStepTable, problem: Problem) -> TimeStepPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    numbers = _solvers(case, table)
    times = chosen_times(table.times, problem, problem.save_at[-1:])
    if times[0] <= 0.0:
        raise CaseError(("study", "times"), "needs a time after the start, where no step has been made yet")
    steps = sorted(table.steps, reverse=True)
    _check_steps(table, problem.save_at, times[-1])
    other = other_solver(case, table, numbers)
    notes = _notes(case, numbers, table)
    finest = _finest(case, numbers, problem)
    exact = None
    if table.exact is not None and table.reference in (None, "exact"):
        exact = exact_density(table.exact, problem, finest, times, notes)
    elif table.exact is not None:
        notes.append(f"the exact density is not used: the reference is {table.reference}")
    families = []
    for number in numbers:
        norms = _norms(case, table, number, notes)
        against = _against(case, norms, number, other, notes) if exact is not None or other is not None else ()
        solver = case.table.solver[number]
        assert isinstance(solver, schema.MovementSolver)
        for order in table.orders or [solver.order]:
            runs = tuple(_variant(case, table, number, order, step) for step in steps)
            _check_solvable(runs[0], problem, "orders" if table.orders else "solver")
            families.append(FamilyPlan(case.labels[number], order, runs, norms, against, _expected(table, norms, order)))
    _check_expected(table, families)
    plan = TimeStepPlan(case, tuple(families), exact, other, times, notes)
    if other is not None and plan.labels.count(case.labels[other]) > 1:
        raise CaseError(("solver", other), f'the label "{case.labels[other]}" is that of a run of the study; give this solver another')
    return plan


def _check_solvable(variant: Variant, problem: Problem, key: str) -> None:
    """Raises CaseError where the solver cannot make such steps."""
    try:
        check_movements(variant.case, problem)
    except CaseError as error:
        raise CaseError(("study", key), f"{variant.label} cannot be solved: {error}") from error


def _solvers(case: CaseFile, table: schema.TimeStepTable) -> list[int]:
    """The solvers that are studied."""
    found = [k for k, solver in enumerate(case.table.solver) if solver.kind == "jko"]
    known = [case.labels[k] for k in found]
    if not found:
        raise CaseError(("study",), 'a study of the time step needs a solver of kind "jko", and there is none in this case')
    for label in table.solver or ():
        if label not in known:
            kind = f" ({case.table.solver[case.labels.index(label)].kind})" if label in case.labels else ""
            message = f"got {shown(label)}{kind}; accepted, of kind jko: {', '.join(known)}{nearest(label, known)}"
            raise CaseError(("study", "solver"), message)
    return [case.labels.index(label) for label in table.solver] if table.solver else found[:1]


def _check_steps(table: schema.TimeStepTable, saved: Sequence[float], last: float) -> None:
    """Raises CaseError where a step would be shortened so as to end at a saved time: it would be another one."""
    ends = [0.0, *(time for time in saved if 0.0 < time <= last)]
    for k, step in enumerate(table.steps):
        check_steps(last, step, ("study", "steps", k))
        for before, after in pairwise(ends):
            count = (after - before) / step
            if not (round(count) >= 1 and abs(count - round(count)) <= _WHOLE * count):
                whole = f"{(after - before) / max(math.ceil(count * (1.0 - _WHOLE)), 1):.6g}"
                words = f"steps end at the saved times, so that from t = {before:g} to {after:g} they would be {whole} long"
                raise CaseError(("study", "steps", k), f"{words}; must divide the time between saved times, got {step:g}")


def _notes(case: CaseFile, numbers: Sequence[int], table: schema.TimeStepTable) -> list[str]:
    """What of the solvers' own choices counts for nothing here."""
    notes = []
    for number in numbers:
        given = {"tolerance", *(["order"] if table.orders else [])} & case.table.solver[number].model_fields_set
        notes += [f"{case.labels[number]}: its own {name} is not used" for name in sorted(given)]
    return notes


def _finest(case: CaseFile, numbers: Sequence[int], problem: Problem) -> tuple[int, ...]:
    """The finest grid of the solvers, on which an exact density stands for itself; one of our own for atoms."""
    grids = [tuple(cells) for k in numbers if (cells := getattr(case.table.solver[k], "cells", None))]
    return max(grids, key=math.prod) if grids else finest_cells(problem.domain)


def _norms(case: CaseFile, table: schema.TimeStepTable, number: int, notes: list[str]) -> tuple[str, ...]:
    """The norms in their usual order; atoms have no density."""
    asked = tuple(norm for norm in NORMS if norm in (table.norms or _USUAL))
    if getattr(case.table.solver[number], "cells", None):
        return asked
    left = tuple(norm for norm in asked if norm in ("w2", "loss"))
    if not left:
        label = case.labels[number]
        raise CaseError(("study", "norms"), f'the solver "{label}" moves atoms, which have no density; accepted for it: w2, loss')
    if left != asked:
        notes.append(f"{case.labels[number]}: no l1 and l2, as atoms have no density")
    return left


def _against(case: CaseFile, norms: tuple[str, ...], number: int, other: int | None, notes: list[str]) -> tuple[str, ...]:
    """The norms in which a solver can be held against the reference: L¹ and L² need cells that divide its own."""
    if other is None:
        return norms
    label, theirs = case.labels[other], getattr(case.table.solver[other], "cells", None)
    mine = getattr(case.table.solver[number], "cells", None) or ()
    if theirs and mine and divides(tuple(mine), tuple(theirs)):
        return norms
    left = tuple(norm for norm in norms if norm in ("w2", "loss"))
    if left != norms:
        why = f"{list(mine)} cells do not divide its {list(theirs)}" if theirs else "it has no density on a grid"
        notes.append(f"{case.labels[number]}: no l1 and l2 against {label}: {why}")
    return left


def _expected(table: schema.TimeStepTable, norms: tuple[str, ...], order: int) -> Expectation:
    orders = table.expected.by_norm if table.expected else dict.fromkeys(norms, float(order))
    return Expectation({norm: value for norm, value in orders.items() if norm in norms}, table.allowance or ALLOWANCES[order])


def _check_expected(table: schema.TimeStepTable, families: Sequence[FamilyPlan]) -> None:
    known = [norm for norm in NORMS if any(norm in family.norms for family in families)]
    for norm in table.expected.by_norm if table.expected else ():
        if norm not in known:
            raise CaseError(("study", "expected", norm), f"{norm} is none of the norms of this study: {', '.join(known)}")


def _variant(case: CaseFile, table: schema.TimeStepTable, number: int, order: int, step: float) -> Variant:
    label = case.labels[number]
    changes: dict[str, Any] = {"tau": step} | ({"order": order} if table.orders else {})
    name = f"{label}-order{order}-tau{step!r}" if table.orders else f"{label}-tau{step!r}"
    changed = varied(case, number, name, changes, ("tolerance",), ("study", "orders" if table.orders else "steps"))
    cells = getattr(case.table.solver[number], "cells", None) or ()
    return Variant(changed, number, tuple(cells), step, math.nan)
