"""What the table [study] of a case asks for, checked against the case before anything is solved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mfpde.case import CaseFile, InputError, schema
from mfpde.case.build import check_cells
from mfpde.case.errors import CaseError, Key, nearest, shown
from mfpde.problem import Problem
from mfpde.study.cross_check_plan import CrossCheckPlan, plan_cross_check
from mfpde.study.exact import exact_density
from mfpde.study.limit_plan import LimitPlan, chosen_times, plan_limit
from mfpde.study.readings import Reading, plan_reading
from mfpde.study.references import ExactDensity, divides
from mfpde.study.refinement import NORMS, Expectation, refining
from mfpde.study.time_step_plan import TimeStepPlan, plan_time_step
from mfpde.study.variants import Variant, other_solver, varied

_EXAMPLE = '[study] with kind = "refinement" and cells = [[32], [64], [128]]'


@dataclass(frozen=True, eq=False)
class RefinementPlan:
    """Runs, coarse to fine; the reference is ``exact``, else the solver ``other``, else the finest run."""

    case: CaseFile
    number: int
    runs: tuple[Variant, ...]
    exact: ExactDensity | None
    other: int | None
    norms: tuple[str, ...]
    times: tuple[float, ...]
    expected: Expectation
    notes: list[str] = field(default_factory=list)

    @property
    def solver(self) -> str:
        """The label of the solver that is refined."""
        return self.case.labels[self.number]

    @property
    def labels(self) -> list[str]:
        """The labels of all runs that the study makes, that of the reference last."""
        return [*(variant.label for variant in self.runs), *([self.case.labels[self.other]] if self.other is not None else [])]

    @property
    def reference(self) -> str:
        """What stands for the solution, in words."""
        if self.exact is not None:
            return self.exact.name
        return f"the finest run ({self.runs[-1].label})" if self.other is None else self.case.labels[self.other]

    @property
    def description(self) -> str:
        """One line for people."""
        names = ", ".join(variant.label for variant in self.runs)
        times = ", ".join(f"{time:g}" for time in self.times)
        return f"refinement of {self.solver}: {names}; against {self.reference} at t = {times}; norms {', '.join(self.norms)}"


Plan = RefinementPlan | LimitPlan | TimeStepPlan | CrossCheckPlan | Reading


def plan_study(case: CaseFile, problem: Problem) -> Plan:
    """The plan of the case's [study]. Raises InputError with one message: file, line, key, value, accepted values."""
    table = case.table.study
    if table is None:
        raise InputError(f"{case.path}: has no table [study], which says what to study, e.g. {_EXAMPLE}")
    try:
        if isinstance(table, schema.ParticleLimitTable):
            return plan_limit(case, table, problem)
        if isinstance(table, schema.TimeStepTable):
            return plan_time_step(case, table, problem)
        if isinstance(table, schema.CrossCheckTable):
            return plan_cross_check(case, table, problem)
        if not isinstance(table, schema.RefinementTable):
            return plan_reading(case, table, problem)
        return _plan_refinement(case, table, problem)
    except CaseError as error:
        raise InputError(error.located(str(case.path), case.text)) from error


def _plan_refinement(case: CaseFile, table: schema.RefinementTable, problem: Problem) -> RefinementPlan:
    number = _solver(case, table)
    times = chosen_times(table.times, problem, problem.save_at[-1:])
    runs = _runs(case, table, number, problem)
    _check_steps(table, problem.save_at, times)
    own = _replaced(table) & case.table.solver[number].model_fields_set
    notes = [f"the solver's own {name} is not used: the study gives {'steps' if table.steps else 'tolerances'}" for name in sorted(own)]
    other = other_solver(case, table, [number])
    if other is not None and case.labels[other] in [variant.label for variant in runs]:
        raise CaseError(("solver", other), f'the label "{case.labels[other]}" is that of a run of the study; give this solver another')
    exact = None
    if table.exact is not None and table.reference in (None, "exact"):
        exact = exact_density(table.exact, problem, runs[-1].cells, times, notes)
    elif table.exact is not None:
        notes.append(f"the exact density is not used: the reference is {table.reference}")
    norms = _norms(case, table, other, notes)
    if exact is None:
        _check_division(case, runs, norms, other, notes)
    expected = Expectation(table.expected.by_norm if table.expected else {}, table.allowance or Expectation.allowance)
    for norm in expected.orders:
        if norm not in norms:
            raise CaseError(("study", "expected", norm), f"{norm} is none of the norms of this study: {', '.join(norms)}")
    return RefinementPlan(case, number, runs, exact, other, norms, times, expected, notes)


def _solver(case: CaseFile, table: schema.RefinementTable) -> int:
    """The solver to refine."""
    on_grids = [k for k, solver in enumerate(case.table.solver) if getattr(solver, "cells", None) is not None]
    names = ", ".join(case.labels[k] for k in on_grids) or "none in this case"
    if table.solver is None:
        volumes = [k for k in on_grids if case.table.solver[k].kind == "finite_volume"]
        if not volumes:
            raise CaseError(("study",), f"a refinement needs a solver on grids; name one as `solver`: {names}")
        return volumes[0]
    if table.solver not in case.labels:
        message = f"got {shown(table.solver)}; accepted: {names}{nearest(table.solver, case.labels)}"
        raise CaseError(("study", "solver"), message)
    number = case.labels.index(table.solver)
    if number not in on_grids:
        kind = case.table.solver[number].kind
        raise CaseError(("study", "solver"), f'"{table.solver}" ({kind}) has no grid to refine; accepted: {names}')
    return number


def _runs(case: CaseFile, table: schema.RefinementTable, number: int, problem: Problem) -> tuple[Variant, ...]:
    """The variants of the case, coarse to fine."""
    solver: Any = case.table.solver[number]
    if table.steps is not None and "step" not in type(solver).model_fields:
        raise CaseError(("study", "steps"), f"the solver {case.labels[number]} ({solver.kind}) has no fixed `step` to refine; give `cells`")
    cells = [tuple(grid) for grid in table.cells] if table.cells is not None else [tuple(solver.cells)] * len(table.steps or [])
    for k, grid in enumerate(table.cells or []):
        check_cells(list(grid), problem.domain, ("study", "cells", k))
    try:
        order = refining(cells, table.steps)
    except ValueError as error:
        raise CaseError(("study", "steps" if table.cells is None or _refine(cells) else "cells"), str(error)) from error
    return tuple(_variant(case, table, number, cells[k], k) for k in order)


def _refine(cells: Sequence[tuple[int, ...]]) -> bool:
    """Whether the grids by themselves refine one another."""
    try:
        return bool(refining(cells))
    except ValueError:
        return False


def _check_steps(table: schema.RefinementTable, saved: Sequence[float], times: Sequence[float]) -> None:
    """A step ends at every saved time, so one that is longer than all the gaps up to the first time of the study is never made."""
    first = next((time for time in times if time > 0.0), 0.0)
    ends = [0.0, *(time for time in saved if 0.0 < time <= first)]
    longest = max((b - a for a, b in pairwise(ends)), default=math.inf)
    for k, step in enumerate(table.steps or []):
        if step > longest * (1.0 + 1e-9):
            raise CaseError(
                ("study", "steps", k),
                f"steps end at the saved times, so none up to t = {first:g} is longer than {longest:g}; must be at most that, got {step:g}",
            )


def _variant(case: CaseFile, table: schema.RefinementTable, number: int, cells: tuple[int, ...], place: int) -> Variant:
    changes: dict[str, Any] = {"cells": list(cells)} if table.cells is not None else {}
    if table.steps is not None:
        changes["step"] = table.steps[place]
    if table.tolerances is not None:
        changes["tolerance"] = table.tolerances[place]
    grid = ["n" + "x".join(map(str, cells))] if "cells" in changes else []
    name = "-".join([*grid, *([f"dt{changes['step']!r}"] if "step" in changes else [])])
    key: Key = ("study", "steps" if "step" in changes else "cells")
    changed = varied(case, number, f"{case.labels[number]}-{name}", changes, _replaced(table), key)
    numbers = (getattr(changed.table.solver[number], name, None) for name in ("step", "tolerance"))
    return Variant(changed, number, cells, *(math.nan if value is None else value for value in numbers))


def _replaced(table: schema.RefinementTable) -> set[str]:
    """The solver's own control of its steps, in whose place the study puts another."""
    return {"tolerance"} if table.steps is not None else {"step"} if table.tolerances is not None else set()


def _norms(case: CaseFile, table: schema.RefinementTable, other: int | None, notes: list[str]) -> tuple[str, ...]:
    """The norms in their usual order; particles have no density, so against them only distance and loss are left."""
    norms = tuple(norm for norm in NORMS if norm in (table.norms or NORMS))
    if other is None or "cells" in type(case.table.solver[other]).model_fields:
        return norms
    label = case.labels[other]
    left = tuple(norm for norm in norms if norm in ("w2", "loss"))
    if table.norms is not None and left != norms:
        raise CaseError(("study", "norms"), f'the reference "{label}" has no density on a grid; accepted against it: w2, loss')
    if left != norms:
        notes.append(f"no l1 and l2: the reference {label} has no density on a grid")
    return left


def _check_division(case: CaseFile, runs: Sequence[Variant], norms: tuple[str, ...], other: int | None, notes: list[str]) -> None:
    """L¹ and L² need a reference whose cells divide those of every grid."""
    fine = runs[-1].cells if other is None else tuple(getattr(case.table.solver[other], "cells", ()))
    wrong = [variant.cells for variant in runs if fine and not divides(variant.cells, fine)]
    if not wrong:
        return
    name = f"the finest, {list(fine)}" if other is None else f"the {list(fine)} cells of {case.labels[other]}"
    if {"l1", "l2"} & set(norms):
        more = 'give an exact density, norms = ["w2", "loss"], or grids that divide it, e.g. [32], [64], [128]'
        raise CaseError(("study", "cells"), f"{list(wrong[0])} cells do not divide {name}, so there is no l1 and l2 error; {more}")
    if other is None and "w2" in norms:
        notes.append("w2: the finest grid cannot be averaged onto the others, so its own steps are in the errors and the order may be low")
