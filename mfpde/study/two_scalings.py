"""A study of conventional and mean-field scaling, carried out part by part."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.batch import COMPILING, progress_bar
from mfpde.case.scalings_schema import (
    CurvesTable,
    DrawnNeurons,
    GaussianInputTable,
    GivenNeurons,
    HeatMapTable,
    LazyTable,
    SingleNeuron,
    TwoScalingsTable,
)
from mfpde.compile import announced
from mfpde.console import tell, warn
from mfpde.run import StepFailed
from mfpde.scaling import Circle, GaussianInputs, GradientDescent, GradientFlow, Neurons, Scaling, SphereInputs, Target
from mfpde.scaling.experiments import COURSE, OUTCOME, SHOWN, Method, Setup, course, departure, outcome
from mfpde.study.alone import Desk, mark_of
from mfpde.study.ledger import Index, Ledger
from mfpde.study.two_scalings_plan import MODELS, Part, ScalingsPlan, dimension_of, seeds_of, widths_of
from mfpde.study.two_scalings_text import ScalingsReport

_EARLIEST = 1e-4
_LAZY_EARLIEST = 1e-3


def carry_out(plan: ScalingsPlan, desk: Desk) -> ScalingsReport | None:
    """All parts that have not ended. Raises StepFailed."""
    ledger = _ledger(plan, desk)
    if desk.resume and (reason := ledger.take_up()):
        tell(f"  {reason}; starting anew")
    try:
        with _compiling():
            for group, part in (("curves", plan.table.curves), ("heat_map", plan.table.heat_map), ("lazy", plan.table.lazy)):
                if part is not None and not _fill(plan, group, part, ledger, desk.stopped):
                    return None
    finally:
        ledger.write()
    return ScalingsReport(plan, ledger.scales, ledger.dimensions, ledger.arrays)


def curve_times(part: CurvesTable) -> list[float]:
    """0 and times at equal ratios."""
    return [0.0, *np.geomspace(part.first or _EARLIEST * part.end, part.end, part.count).tolist()]


def _fill(plan: ScalingsPlan, group: str, part: Part, ledger: Ledger, stopped: Sequence[int]) -> bool:
    """Carry out what is open of a group; False once a signal has come."""
    todo, whole = [index for index in ledger.open_parts(group) if _is_own(group, index)], ledger.ended[group]
    if todo and np.any(whole):
        tell(f"  {group}: {int(np.sum(whole))} of {whole.size} parts are there already")
    setup, method = _setup(plan, part), _method(part)
    with progress_bar(group, sum(_cost(part, index) for index in todo)) as bar:
        for index in todo:
            bar.set_description_str(f"{group}  {_name(part, index)}")
            try:
                done = _carry_out(setup, method, part, index, ledger, stopped)
            except StepFailed as failure:
                raise StepFailed(failure.status, f"{group}, {_name(part, index)}: {failure}") from failure
            if not done:
                return False
            ledger.end(group, index)
            if isinstance(part, CurvesTable) and index[0] == 0:
                ledger.ended[group][2, index[1]] = True
            bar.update(_cost(part, index))
    return True


def _is_own(group: str, index: Index) -> bool:
    """Whether this part is worked on by itself: curves of random features come with those of the conventional network."""
    return group != "curves" or MODELS[index[0]] != "random_features"


def _carry_out(setup: Setup, method: Method, part: Part, index: Index, ledger: Ledger, stopped: Sequence[int]) -> bool:
    """One part, its numbers in the ledger; False once a signal has come."""
    arrays = ledger.arrays
    if isinstance(part, CurvesTable):
        return _course(setup, method, part, index, arrays, stopped)
    if isinstance(part, HeatMapTable):
        seed, width, samples = seeds_of(part)[index[0]], part.widths[index[1]], part.samples[index[2]]
        found = outcome(setup, width, seed, samples, part.end, method, stopped)
        for m, model in enumerate(MODELS if found is not None else ()):
            for name, value in zip(OUTCOME, (found or {})[model], strict=True):
                arrays[f"heat_{name}"][(m, *index)] = value
        return found is not None
    times = np.geomspace(_LAZY_EARLIEST * part.end, part.end, part.count).tolist()
    pair = departure(setup, part.widths[index[1]], seeds_of(part)[index[0]], part.samples, times, method, stopped)
    if pair is not None:
        arrays["lazy_distance"][index], arrays["lazy_displacement"][index] = pair
    return pair is not None


def _course(setup: Setup, method: Method, part: CurvesTable, index: Index, arrays: dict[str, FloatArray], stopped: Sequence[int]) -> bool:

    scaling, seed = Scaling(MODELS[index[0]]), seeds_of(part)[index[1]]
    pair = course(setup, scaling, part.width, seed, part.samples, curve_times(part), method, stopped)
    if pair is None:
        return False
    for model, found in zip((index[0], 2), pair, strict=True):
        if model == 2 and scaling is not Scaling.CONVENTIONAL:
            continue
        arrays["curve_time"][model, index[1]] = found.times
        arrays["curve_strength"][model, index[1]] = found.strengths
        arrays["curve_outer"][model, index[1]], arrays["curve_inner"][model, index[1]] = found.outer, found.inner
        for name, values in found.values.items():
            arrays[f"curve_{name}"][model, index[1]] = values
    return True


@contextmanager
def _compiling() -> Iterator[None]:
    """A word on a terminal where something has to be compiled."""

    def tell_terminal() -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            warn(COMPILING)

    with announced(tell_terminal):
        yield


# From tables to objects.


def _target(table: TwoScalingsTable, dimension: int) -> Target:
    given = table.target
    if isinstance(given, SingleNeuron):
        return Neurons(np.eye(1, dimension), np.ones(1))
    if isinstance(given, GivenNeurons):
        count = len(given.neurons)
        return Neurons(np.array(given.neurons, dtype=float), np.array(given.weights or [1.0 / count] * count, dtype=float))
    if isinstance(given, DrawnNeurons):
        points = np.random.default_rng(given.seed).standard_normal((given.count, dimension))
        return Neurons(points / np.linalg.norm(points, axis=1)[:, None], np.full(given.count, 1.0 / given.count))
    return Circle(dimension)


def _method(part: Part) -> Method:
    if part.method == "gradient_descent":
        return None if part.learning_rate is None else GradientDescent(part.learning_rate)
    usual = 1e-8 if isinstance(part, CurvesTable | LazyTable) and part.samples is None else 1e-5
    return GradientFlow(usual if part.tolerance is None else part.tolerance, part.step)


def _cost(part: Part, index: Index) -> float:
    """About how long a part takes, in any unit."""
    if isinstance(part, HeatMapTable):
        return float(part.widths[index[1]] ** 2 * part.samples[index[2]])
    return float(part.widths[index[1]] ** 2) if isinstance(part, LazyTable) else 1.0


def _name(part: Part, index: Index) -> str:
    if isinstance(part, CurvesTable):
        return f"{MODELS[index[0]]}, seed {seeds_of(part)[index[1]]}"
    samples = f", n = {part.samples[index[2]]}" if isinstance(part, HeatMapTable) else ""
    return f"m = {widths_of(part)[index[1]]}{samples}, seed {seeds_of(part)[index[0]]}"


def _setup(plan: ScalingsPlan, part: Part) -> Setup:
    """The objects that a part works with."""

    table, dimension = plan.table, dimension_of(plan.table, part)
    start = table.start
    given = table.inputs
    inputs = GaussianInputs(given.scale) if isinstance(given, GaussianInputTable) else SphereInputs(given.radius)
    later = start.outer if start.mean_field_outer is None else start.mean_field_outer
    return Setup(_target(table, dimension), dimension, inputs, start.outer, later, start.inner, table.threshold)


def _ledger(plan: ScalingsPlan, desk: Desk) -> Ledger:
    """The arrays of all parts, empty."""
    scales: dict[str, Any] = {"model": list(MODELS)}
    dimensions: dict[str, tuple[str, ...]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    if (curves := plan.table.curves) is not None:
        scales |= {"curve_seed": seeds_of(curves), "moment": np.arange(curves.count + 1), "neuron": np.arange(curves.width)}
        axes = ("model", "curve_seed", "moment")
        scales |= {"coordinate": np.arange(1, min(SHOWN, dimension_of(plan.table, curves)) + 1)}
        dimensions |= {f"curve_{name}": axes for name in ("time", *COURSE)}
        dimensions |= {f"curve_{name}": (*axes, "neuron") for name in ("strength", "outer")}
        dimensions |= {"curve_inner": (*axes, "neuron", "coordinate")}
        parts["curves"] = ("model", "curve_seed")
    if (heat := plan.table.heat_map) is not None:
        scales |= {"heat_seed": seeds_of(heat), "width": heat.widths, "samples": heat.samples}
        dimensions |= {f"heat_{name}": ("model", "heat_seed", "width", "samples") for name in OUTCOME}
        parts["heat_map"] = ("heat_seed", "width", "samples")
    if (lazy := plan.table.lazy) is not None:
        scales |= {"lazy_seed": seeds_of(lazy), "lazy_width": lazy.widths}
        dimensions |= {f"lazy_{name}": ("lazy_seed", "lazy_width") for name in ("distance", "displacement")}
        parts["lazy"] = ("lazy_seed", "lazy_width")
    kept = plan.table.model_dump()
    for name in ("expected", "allowance"):
        (kept["lazy"] or {}).pop(name, None)
    return Ledger(desk.folder / "parts.h5", mark_of(plan.case, kept), scales, dimensions, parts, min(desk.seconds, 10.0))
