"""A study of networks of many layers, carried out part by part."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mfpde.batch import COMPILING, progress_bar
from mfpde.case.multilayer_schema import ChaosTable, CollapseTable, LawTable, PartTable, ResidualTable
from mfpde.compile import announced
from mfpde.console import tell, warn
from mfpde.energy import ACTIVATIONS
from mfpde.multilayer import Law, Scaling, Task, Weights, layered_start
from mfpde.multilayer.experiments import (
    COUPLED,
    MOVED,
    Course,
    LimitCourse,
    Setup,
    compare,
    compare_residual,
    follow_limit,
    follow_residual,
    measure,
)
from mfpde.multilayer.limit import Followed, followed_of
from mfpde.run import StepFailed
from mfpde.study.alone import Desk, mark_of
from mfpde.study.ledger import Index, Ledger
from mfpde.study.multilayer_plan import MultilayerPlan, seeds_of, times_of
from mfpde.study.multilayer_report import MultilayerReport

Worker = Callable[[Index], bool]


def carry_out(plan: MultilayerPlan, desk: Desk) -> MultilayerReport | None:
    """All parts that have not ended. Raises StepFailed."""
    ledger = _ledger(plan, desk)
    if desk.resume and (reason := ledger.take_up()):
        tell(f"  {reason}; starting anew")
    table = plan.table
    workers: list[tuple[str, Worker]] = []
    if table.chaos is not None:
        workers.append(("chaos", _Chaos(plan, table.chaos, ledger, desk.stopped).work))
    if table.collapse is not None:
        workers.append(("collapse", _Collapse(plan, table.collapse, ledger, desk.stopped).work))
    if table.residual is not None:
        workers.append(("residual", _Residual(plan, table.residual, ledger, desk.stopped).work))
    try:
        with _compiling():
            for group, work in workers:
                if not _fill(plan, group, work, ledger):
                    return None
    finally:
        ledger.write()
    return MultilayerReport(plan, ledger.scales, ledger.dimensions, ledger.arrays)


def _fill(plan: MultilayerPlan, group: str, work: Worker, ledger: Ledger) -> bool:
    """Carry out what is open of a group; False once a signal has come."""
    todo, whole, part = ledger.open_parts(group), ledger.ended[group], getattr(plan.table, group)
    if todo and np.any(whole):
        tell(f"  {group}: {int(np.sum(whole))} of {whole.size} parts are there already")
    with progress_bar(group, sum(_cost(part, index) for index in todo)) as bar:
        for index in todo:
            name = f"depth {part.depths[index[-3]]}, m = {part.widths[index[-2]]}, seed {seeds_of(part)[index[-1]]}"
            bar.set_description_str(f"{group}  {name}")
            try:
                if not work(index):
                    return False
            except StepFailed as failure:
                raise StepFailed(failure.status, f"{group}, {name}: {failure}") from failure
            ledger.end(group, index)
            bar.update(_cost(part, index))
    return True


def _cost(part: ChaosTable | CollapseTable | ResidualTable, index: Index) -> float:
    """About how long a part takes, in any unit."""
    return float(part.depths[index[-3]]) * part.widths[index[-2]] ** (1 if isinstance(part, ResidualTable) else 2)


@dataclass(eq=False)
class _Chaos:
    """Networks under 1/m and their limits, which are solved when they are first needed."""

    plan: MultilayerPlan
    part: ChaosTable
    ledger: Ledger
    stopped: Sequence[int]
    setup: Setup = field(init=False)
    limits: dict[int, LimitCourse] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.setup = _setup(self.plan, self.part)

    def work(self, index: Index) -> bool:
        """One network; False once a signal has come."""
        (d, w, s), part, arrays = index, self.part, self.ledger.arrays
        limit = self._limit(d)
        if limit is None:
            return False
        place = s * part.neurons
        found = compare(self.setup, part.depths[d], part.widths[w], seeds_of(part)[s], limit, place, part.neurons, self.stopped)
        if found is None:
            return False
        arrays["chaos_limit_risk"][d], arrays["chaos_floor"][d] = limit.course.risks, limit.course.floor
        for name, values in (("gap", found.gaps), ("risk", found.risks), ("coupling", found.coupling), ("neuron", found.neurons)):
            arrays[f"chaos_{name}"][index] = values
        return True

    def _limit(self, d: int) -> LimitCourse | None:
        """The limit of a depth, in which the first neurons of every seed are followed."""
        if d not in self.limits:
            found = follow_limit(self.setup, self.part.depths[d], self.part.nodes, self._followed(), self.stopped)
            if found is None:
                return None
            self.limits[d] = found
        return self.limits[d]

    def _followed(self) -> Followed:
        """As they start in a network of any width; the depth does not matter either."""
        count, setup = self.part.neurons, self.setup
        starts = [layered_start(setup.task, setup.weights, Scaling.MEAN_FIELD, 1, count, seed) for seed in seeds_of(self.part)]
        return followed_of([point for _, point in starts], [network for network, _ in starts], count)


@dataclass(eq=False)
class _Collapse:
    """Networks under all scalings."""

    plan: MultilayerPlan
    part: CollapseTable
    ledger: Ledger
    stopped: Sequence[int]

    def work(self, index: Index) -> bool:
        """One network; False once a signal has come."""
        (k, d, w, s), part, arrays = index, self.part, self.ledger.arrays
        scaling, depth = Scaling(part.scalings[k]), part.depths[d]
        found = measure(_setup(self.plan, part), scaling, depth, part.widths[w], seeds_of(part)[s], self.stopped)
        if found is None:
            return False
        arrays["collapse_risk"][index] = found.risks
        arrays["collapse_spread"][index][:, :depth] = found.spreads
        arrays["collapse_moved"][index] = found.moved
        return True


@dataclass(eq=False)
class _Residual:
    """Residual networks and their limits, which are solved when they are first needed."""

    plan: MultilayerPlan
    part: ResidualTable
    ledger: Ledger
    stopped: Sequence[int]
    limits: dict[int, Course] = field(default_factory=dict)

    def work(self, index: Index) -> bool:
        """One network; False once a signal has come."""
        (d, w, s), part, arrays = index, self.part, self.ledger.arrays
        setup = _setup(self.plan, part)
        if d not in self.limits:
            followed = follow_residual(setup, part.depths[d], part.nodes, self.stopped)
            if followed is None:
                return False
            self.limits[d] = followed
        limit = self.limits[d]
        found = compare_residual(setup, part.depths[d], part.widths[w], seeds_of(part)[s], limit, self.stopped)
        if found is None:
            return False
        for name, values in (("limit_output", limit.outputs), ("limit_risk", limit.risks), ("floor", limit.floor)):
            arrays[f"residual_{name}"][d] = values
        arrays["residual_gap"][index], arrays["residual_risk"][index] = found
        return True


@contextmanager
def _compiling() -> Iterator[None]:
    """A word on a terminal where something has to be compiled."""

    def tell_terminal() -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            warn(COMPILING)

    with announced(tell_terminal):
        yield


def _setup(plan: MultilayerPlan, part: PartTable) -> Setup:
    """The objects that a part works with."""
    table = plan.table
    task = Task(plan.inputs, plan.targets, ACTIVATIONS[table.activation], table.ends == "trained")
    weights = Weights(*(_law(law) for law in (table.first, table.middle, table.last, table.outer)))
    return Setup(task, plan.test, weights, tuple(times_of(part)), part.tolerance)


def _law(table: LawTable) -> Law:
    return Law(table.law, table.mean, table.deviation)


def _ledger(plan: MultilayerPlan, desk: Desk) -> Ledger:
    """The arrays of all parts, empty."""
    table = plan.table
    scales: dict[str, Any] = {}
    dimensions: dict[str, tuple[str, ...]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for name in ("chaos", "collapse", "residual"):
        if (part := getattr(table, name)) is not None:
            named = {"depth": part.depths, "width": part.widths, "seed": seeds_of(part), "time": times_of(part)}
            scales |= {f"{name}_{key}": values for key, values in named.items()}
            parts[name] = (f"{name}_depth", f"{name}_width", f"{name}_seed")
            dimensions |= {f"{name}_risk": (*parts[name], f"{name}_time")}
    if table.chaos is not None:
        scales |= {"coupled": list(COUPLED), "neuron": np.arange(table.chaos.neurons)}
        each = {"gap": "chaos_time", "coupling": "coupled", "neuron": "neuron"}
        dimensions |= {f"chaos_{name}": (*parts["chaos"], last) for name, last in each.items()}
        dimensions |= {"chaos_limit_risk": ("chaos_depth", "chaos_time"), "chaos_floor": ("chaos_depth",)}
    if table.collapse is not None:
        scales |= {"scaling": list(table.collapse.scalings), "moved": list(MOVED), "moment": ["start", "end"]}
        scales |= {"layer": np.arange(1, table.collapse.depths[-1] + 1)}
        parts["collapse"] = ("scaling", *parts["collapse"])
        each_layer: dict[str, tuple[str, ...]] = {"risk": ("collapse_time",), "spread": ("moment", "layer"), "moved": ("moved",)}
        dimensions |= {f"collapse_{name}": (*parts["collapse"], *last) for name, last in each_layer.items()}
    if table.residual is not None:
        scales |= {"input": np.arange(len(plan.inputs) + len(plan.test))}
        dimensions |= {"residual_gap": dimensions["residual_risk"], "residual_limit_risk": ("residual_depth", "residual_time")}
        dimensions |= {"residual_limit_output": ("residual_depth", "residual_time", "input"), "residual_floor": ("residual_depth",)}
    kept: dict[str, Any] = table.model_dump()
    for name in ("chaos", "collapse", "residual"):
        (kept[name] or {}).pop("allowance", None)
    return Ledger(desk.folder / "parts.h5", mark_of(plan.case, kept), scales, dimensions, parts, min(desk.seconds, 10.0))
