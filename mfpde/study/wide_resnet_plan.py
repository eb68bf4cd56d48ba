"""What a [study] of kind "wide_resnet" asks for: one run for the exact network and for each of its expansions, by one solver."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mfpde.arrays import FloatArray
from mfpde.case import CaseFile, schema
from mfpde.case.build import build_problem
from mfpde.case.errors import CaseError, shown
from mfpde.case.wide_resnet_schema import WideResNetTable
from mfpde.energy import WideResNet
from mfpde.energy.wide_resnets import SLABS
from mfpde.problem import Problem
from mfpde.study.readings import PlannedRun
from mfpde.study.variants import labelled_solver
from mfpde.study.wide_law import Law, approximated
from mfpde.study.wide_resnet import (
    APPROXIMATIONS,
    WideStudy,
    expected_orders,
    measure_condition,
    measure_expansion,
    measure_flows,
    measure_limit,
)
from mfpde.study.wide_resnet_text import WideReport

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

_FEWEST = 2


@dataclass(frozen=True, eq=False)
class WideResNetPlan:
    """The three runs, the network at whose inputs all losses are taken, and X⁽¹⁾ of its teacher, None where y is data."""

    case: CaseFile
    runs: tuple[PlannedRun, ...]
    table: WideResNetTable
    term: WideResNet
    first_teacher: Callable[[FloatArray], FloatArray] | None
    orders: tuple[float, float]
    depths: tuple[int, ...]
    alone: bool
    notes: list[str] = field(default_factory=list)
    figures: tuple[str, ...] = ("study-losses", "study-orders")

    @property
    def description(self) -> str:
        """One line for people."""
        levels = self.term.depth.levels
        depth = "continuous depth" if levels is None else f"{levels} level{'s' * (levels > 1)}"
        return f"wide ResNet of {depth} and its expansions: {', '.join(run.label for run in self.runs)}"

    def read(self, stored: "Mapping[str, StoredRun]") -> WideReport:
        """The losses along all flows, the stationary condition at their ends, the error orders and the limit of many levels."""
        runs = [stored[run.label] for run in self.runs]
        for run in runs:
            if not len(run.run.times):
                raise ValueError(f"the run {run.label} has no saved times")
        law = Law.of(runs[0].run.measures[0 if self.table.law == "initial" else -1], self.term)
        study = WideStudy(
            measure_flows(runs, self.term),
            measure_condition([run.run.final for run in runs], self.term, self.first_teacher),
            measure_expansion(law, self.term, self.table.radii),
            measure_limit(law, self.term, self.depths),
        )
        return WideReport(self.case.table.title, study, self.table, self.term, self.orders, self.alone)


def plan(case: CaseFile, table: WideResNetTable, problem: Problem) -> WideResNetPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    number, solver = _network(case), labelled_solver(case, table.solver)
    levels = _term(problem).depth.levels
    depths = _depths(table, levels, getattr(case.table.solver[solver], "cells", None))
    made = {name: _variant(case, number, solver, name) for name in APPROXIMATIONS}
    own = getattr(case.table.energy[number], "approximation", "")
    runs = tuple(PlannedRun(made[name], solver, problem if name == own else build_problem(made[name])) for name in APPROXIMATIONS)
    term = approximated(_term(runs[0].problem), "exact")
    orders = (table.orders[0], table.orders[1]) if table.orders else expected_orders(term.network, levels)
    first = None
    if term.teacher_at is not None:
        first = _term(build_problem(_changed(made["first"], number, {"teacher_approximation": "first"}))).teacher_at
    return WideResNetPlan(case, runs, table, term, first, orders, depths, len(problem.energy.terms) == 1, _notes(term, levels))


def _depths(table: WideResNetTable, levels: int | None, cells: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of levels, at least two of which see all parts of the depth in which the measure is known."""
    parts = cells[-1] if cells else levels or SLABS
    if table.depths is None:
        return tuple(parts * 2**k for k in range(5))
    if sum(depth >= parts for depth in table.depths) < _FEWEST:
        words = f"the depth falls into {parts} parts in these runs, and orders in 1/L show from so many levels on"
        raise CaseError(("study", "depths"), f"{words}: needs two or more numbers from {parts} on, got {shown(table.depths)}")
    return tuple(table.depths)


def _notes(term: WideResNet, levels: int | None) -> list[str]:
    offset = float(term.network.units.activation.value(term.nodes[:1, 0] * 0.0)[0])
    notes = []
    if abs(offset) > 1e-15:
        notes.append(f"σ(0) = {offset:g}, so that (9) is no expansion in θ: its errors are of lower orders")
    if levels == 1:
        notes.append("one level: the expansions are the network itself")
    return notes


def _network(case: CaseFile) -> int:
    """The index of the one wide residual network."""
    found = [k for k, term in enumerate(case.table.energy) if isinstance(term, schema.WideResNetTerm)]
    if len(found) != 1:
        raise CaseError(("energy",), f'this study needs exactly one energy with kind = "wide_resnet", got {len(found)}')
    return found[0]


def _term(problem: Problem) -> WideResNet:
    return next(term for term in problem.energy.terms.values() if isinstance(term, WideResNet))


def _variant(case: CaseFile, number: int, solver: int, name: str) -> CaseFile:
    """The case with one approximation, whose name is in the solver's label."""
    changed = _changed(case, number, {"approximation": name})
    label = f"{case.labels[solver][: 63 - len(name)]}-{name}"
    solvers = [table.model_copy(update={"label": label}) if k == solver else table for k, table in enumerate(case.table.solver)]
    return replace(changed, table=changed.table.model_copy(update={"solver": solvers}))


def _changed(case: CaseFile, number: int, changes: dict[str, Any]) -> CaseFile:
    """The case with other choices of one energy term."""
    terms = [term.model_copy(update=changes) if k == number else term for k, term in enumerate(case.table.energy)]
    overrides = (*case.overrides, *(f"energy.{number}.{key}={value}" for key, value in changes.items()))
    return replace(case, table=case.table.model_copy(update={"energy": terms}), overrides=overrides)
