"""A study of the two scalings in words: for the terminal, for spreadsheets and as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.study.orders import fitted_order
from mfpde.study.text import csv_text, plain_number
from mfpde.study.two_scalings_plan import MODELS, ScalingsPlan, seeds_of
from mfpde.tables import counted, grid_text, number

NAMES = {"conventional": "conventional", "mean_field": "mean field", "random_features": "random features"}
ALLOWANCE = 0.1
_CONFIDENCE = 0.95
_CURVE_COLUMNS = ("training_risk", "risk", "path_norm", "activated", "participation", "distance", "drift")


@dataclass(frozen=True)
class Slope:
    """The slope of a quantity in the width, with a 95 % interval: from the slopes of the seeds, or, for one seed, of the fit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class ScalingsReport:
    """What was found: ``arrays`` with the names of their ``dimensions``, along the ``scales``."""

    plan: ScalingsPlan
    scales: Mapping[str, Any]
    dimensions: Mapping[str, tuple[str, ...]]
    values: Mapping[str, FloatArray]
    slopes: dict[str, Slope] = field(init=False)

    def __post_init__(self) -> None:
        lazy = self.plan.table.lazy
        found = {} if lazy is None else {name: _slope(lazy.widths, self.values[f"lazy_{name}"]) for name in ("distance", "displacement")}
        object.__setattr__(self, "slopes", found)

    def text(self) -> str:
        """A table for each part."""
        table = self.plan.table
        parts = [
            _curves_text(self) if table.curves else "",
            _heat_text(self) if table.heat_map else "",
            _lazy_text(self) if table.lazy else "",
        ]
        return "\n".join(part for part in parts if part)

    def data(self) -> dict[str, Any]:
        """Everything but the strengths of the neurons over time, which are in study.h5."""
        arrays = {name: values for name, values in self.values.items() if name != "curve_strength"}
        kept: dict[str, Any] = {
            name: {"dimensions": list(self.dimensions[name]), "values": _plain(values)} for name, values in arrays.items()
        }
        scales = {name: [x if isinstance(x, str) else int(x) for x in values] for name, values in self.scales.items() if name != "neuron"}
        slopes = {name: {key: plain_number(getattr(slope, key)) for key in ("value", "low", "high")} for name, slope in self.slopes.items()}
        return {"description": self.plan.description, "scales": scales, "arrays": kept, "lazy_slopes": slopes}

    def csv(self) -> str:
        """A row for each part, model and seed: the curves at their ends, the cells of the heat map, the lazy runs."""
        header = ["part", "model", "seed", "width", "samples", "time", *_CURVE_COLUMNS, "displacement"]
        return csv_text(header, [*_curve_rows(self), *_heat_rows(self), *_lazy_rows(self)])

    def arrays(self) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
        """All arrays."""
        return dict(self.scales), {name: (self.dimensions[name], values) for name, values in self.values.items()}

    def missed(self) -> list[str]:
        """Where the distance from random features does not fall as it should."""
        lazy = self.plan.table.lazy
        if lazy is None or lazy.expected is None:
            return []
        slope, allowance = self.slopes["distance"], ALLOWANCE if lazy.allowance is None else lazy.allowance
        if slope.high <= lazy.expected + allowance:
            return []
        return [f"the distance from random features has slope {_interval(slope)} in m, expected at most {lazy.expected:g} + {allowance:g}"]

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """study-curves, study-paths, study-heat-map and study-lazy."""
        from mfpde.figures import draw_two_scalings

        return draw_two_scalings(self, folder, formats)


def _slope(widths: Sequence[int], values: FloatArray) -> Slope:
    """Of values (seed, width), log against log."""
    x = np.asarray(widths, dtype=float)
    if not (np.isfinite(values) & (values > 0.0)).all():
        return Slope(math.nan, math.nan, math.nan)
    if len(values) == 1:
        order = fitted_order(x, values[0])
        return Slope(order.value, order.low, order.high)
    from scipy.special import stdtrit

    slopes = np.array([fitted_order(x, row).value for row in values])
    half = float(stdtrit(len(slopes) - 1, 0.5 + 0.5 * _CONFIDENCE)) * float(np.std(slopes, ddof=1)) / math.sqrt(len(slopes))
    return Slope(float(np.mean(slopes)), float(np.mean(slopes)) - half, float(np.mean(slopes)) + half)


def _interval(slope: Slope) -> str:
    if not math.isfinite(slope.value):
        return "unknown (a value is 0)"
    interval = f"95 % interval {slope.low:.3f} to {slope.high:.3f}" if math.isfinite(slope.low) else "no interval"
    return f"{slope.value:.3f} ({interval})"


# Curves.


def _curves_text(report: ScalingsReport) -> str:
    part = report.plan.table.curves
    assert part is not None
    header = ["", "seed", "time", "training risk", "risk", "path norm", "activated", "participation", "from RF", "|b|²−a² moved"]
    rows = []
    for m, model in enumerate(MODELS):
        for s, seed in enumerate(seeds_of(part)):
            ends = [float(report.values[f"curve_{name}"][m, s, -1]) for name in _CURVE_COLUMNS]
            cells = [number(ends[0]), number(ends[1]), number(ends[2]), f"{ends[3]:.0f}", number(ends[4], 3)]
            cells += ["—" if model == "random_features" else number(ends[5], 3), number(ends[6], 2)]
            rows.append([NAMES[model] if s == 0 else "", str(seed), number(float(report.values["curve_time"][m, s, -1])), *cells])
    head = (
        f"  {counted(part.width, 'neuron')} at the end (risk = ½E(f − f*)²; activated: |a||b| of at least "
        f"{report.plan.table.threshold:g} of the largest; "
        "participation = (Σ|a||b|)²/Σ(|a||b|)²; from RF = (E(f − f_RF)²)^½)"
    )
    return "\n".join([head, grid_text(header, rows, "    "), *_activated_lines(report)])


def _activated_lines(report: ScalingsReport) -> list[str]:
    """How many neurons are active at the end, seed by seed."""
    lines = []
    for m in range(2):
        counts = report.values["curve_activated"][m, :, -1]
        listed = ", ".join(f"{count:.0f}" for count in counts)
        lines.append(f"    activated neurons, {NAMES[MODELS[m]]}: {listed} by seed (from {np.min(counts):.0f} to {np.max(counts):.0f})")
    return lines


def _curve_rows(report: ScalingsReport) -> list[list[Any]]:
    part = report.plan.table.curves
    if part is None:
        return []
    return [
        ["curves", model, seed, part.width, part.samples or "", float(report.values["curve_time"][m, s, -1])]
        + [float(report.values[f"curve_{name}"][m, s, -1]) for name in _CURVE_COLUMNS]
        + [math.nan]
        for m, model in enumerate(MODELS)
        for s, seed in enumerate(seeds_of(part))
    ]


# Heat map.


def median_risk(report: ScalingsReport) -> FloatArray:
    """The median over the seeds of the test risk, (model, width, samples)."""
    return np.asarray(np.median(report.values["heat_risk"], axis=1))


def _heat_text(report: ScalingsReport) -> str:
    part = report.plan.table.heat_map
    assert part is not None
    risks = median_risk(report)
    lines = [f"  risk ½E(f − f*)² at t = {part.end:g}, median of {counted(part.seeds, 'seed')}, by neurons m and samples n"]
    for m, model in enumerate(MODELS):
        rows = [[f"m = {width}", *(number(float(x), 3) for x in risks[m, k])] for k, width in enumerate(part.widths)]
        lines.append(grid_text([NAMES[model], *(f"n = {n}" for n in part.samples)], rows, "    "))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.max(risks, axis=1) / np.min(risks, axis=1)
    for m, model in enumerate(MODELS):
        factors = ", ".join(number(float(x), 3) for x in spread[m])
        lines.append(f"    largest over smallest risk among the widths, {NAMES[model]}: {factors} by n")
    return "\n".join(lines)


def _heat_rows(report: ScalingsReport) -> list[list[Any]]:
    part = report.plan.table.heat_map
    if part is None:
        return []
    names = ("training_risk", "risk", "path_norm", "activated")
    return [
        ["heat_map", model, seed, width, samples, part.end]
        + [float(report.values[f"heat_{name}"][m, s, i, j]) for name in names]
        + [math.nan] * 4
        for m, model in enumerate(MODELS)
        for s, seed in enumerate(seeds_of(part))
        for i, width in enumerate(part.widths)
        for j, samples in enumerate(part.samples)
    ]


# Lazy training.


def _lazy_text(report: ScalingsReport) -> str:
    part = report.plan.table.lazy
    assert part is not None
    apart, moved = report.values["lazy_distance"], report.values["lazy_displacement"]
    rows = [[str(width), number(_mean(apart[:, k])), number(_mean(moved[:, k]))] for k, width in enumerate(part.widths)]
    head = (
        f"  conventional networks up to t = {part.end:g}: largest distance from random features, and of B from its start (geometric means)"
    )
    lines = [head, grid_text(["m", "(E(f − f_RF)²)^½", "|B(t) − B(0)|"], rows, "    ")]
    lines += [f"    {name}: slope {_interval(slope)} in m" for name, slope in report.slopes.items()]
    return "\n".join(lines)


def _lazy_rows(report: ScalingsReport) -> list[list[Any]]:
    part = report.plan.table.lazy
    if part is None:
        return []
    return [
        ["lazy", "conventional", seed, width, part.samples or "", part.end, *_lazy_cells(report, s, k)]
        for s, seed in enumerate(seeds_of(part))
        for k, width in enumerate(part.widths)
    ]


def _lazy_cells(report: ScalingsReport, s: int, k: int) -> list[float]:
    """The columns of the quantities, of which a lazy run has the distance and the displacement."""
    numbers = dict.fromkeys((*_CURVE_COLUMNS, "displacement"), math.nan)
    numbers |= {name: float(report.values[f"lazy_{name}"][s, k]) for name in ("distance", "displacement")}
    return list(numbers.values())


def _mean(values: FloatArray) -> float:
    """The geometric mean; nan where a value is not positive."""
    return float(np.exp(np.mean(np.log(values)))) if (values > 0.0).all() else math.nan


def _plain(values: FloatArray) -> Any:
    """Nested lists, None where there is no number."""
    if values.ndim == 1:
        return [plain_number(x) for x in values]
    return [_plain(row) for row in values]
