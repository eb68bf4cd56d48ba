"""A study of networks of many layers in words, for the terminal."""

import math
from typing import TYPE_CHECKING

import numpy as np

from mfpde.case.multilayer_schema import ChaosTable, CollapseTable, ResidualTable
from mfpde.energy import ACTIVATIONS
from mfpde.study.multilayer_rates import Correlation, Fit, at_rest, depth_differences, depth_rates
from mfpde.study.rates import Rate
from mfpde.tables import grid_text, number

if TYPE_CHECKING:
    from mfpde.study.multilayer_report import MultilayerReport

NAMES = {"mean_field": "1/m", "centred": "1/m, mean 0", "lazy": "1/√m", "residual": "residual"}
_SADDLE = "a saddle that finite networks leave the later the wider they are"
_UNTRAINED = 0.9
"""Of the risk at the start: what is not below this has not learnt."""


def report_text(report: "MultilayerReport") -> str:
    """A table for each part."""
    table = report.plan.table
    parts = [
        _chaos_text(report, table.chaos) if table.chaos else "",
        _collapse_text(report, table.collapse) if table.collapse else "",
        _residual_text(report, table.residual) if table.residual else "",
    ]
    return "\n".join(part for part in parts if part)


def missed_line(fit: Fit) -> str:
    """What was expected of a slope."""
    wanted = f"{'at most ' * fit.bound}{fit.expected:g} ± {fit.allowance:g}"
    return f"{NAMES[fit.scaling]}, depth {fit.depth}, {fit.quantity}: slope {rate_text(fit.rate)} in m, expected {wanted}"


def depth_missed(report: "MultilayerReport") -> list[str]:
    """Where the limits of residual networks do not come together as 1/L."""
    part, order = report.plan.table.residual, report.order
    if part is None or order is None:
        return []
    low, high = (order.low, order.high) if math.isfinite(order.low) else (order.value, order.value)
    if low - part.allowance <= 1.0 <= high + part.allowance:
        return []
    return [f"residual networks of m = ∞ come together at order {order.value:.3f} in 1/L, expected 1 ± {part.allowance:g}"]


def rate_text(rate: Rate) -> str:
    """A slope with its interval."""
    if not math.isfinite(rate.value):
        return "unknown"
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]" if math.isfinite(rate.low) else f"{rate.value:.3f}"


def _slopes_text(fits: list[Fit]) -> str:
    """A row for each fit: its root mean squares by width, and the slope."""
    if not fits:
        return "    nothing to measure: all distances are round-off"
    header = ["depth", "quantity", *(f"m = {m}" for m in fits[0].widths), "slope in m", "expected"]
    rows = []
    for k, fit in enumerate(fits):
        sizes = [number(float(x), 3) for x in np.sqrt(np.mean(fit.samples**2, axis=1))]
        first = str(fit.depth) if k == 0 or fits[k - 1].depth != fit.depth else ""
        rows.append([first, fit.quantity, *sizes, rate_text(fit.rate), _verdict(fit)])
    return grid_text(header, rows, "    ")


def _verdict(fit: Fit) -> str:
    if math.isnan(fit.expected):
        return ""
    return f"{'≤ ' * fit.bound}{fit.expected:g}: {'MISSED' if fit.misses else 'open' if fit.vague else 'yes'}"


def _chaos_text(report: "MultilayerReport", part: ChaosTable) -> str:
    fits = report.of("chaos")
    head = "  propagation of chaos under 1/m: distances to the limit m = ∞ (rms over the seeds; slopes with 95 % intervals)"
    lines = [head, _slopes_text(fits), _floor_line(report, part, "chaos")]
    for depth in part.depths:
        found = [c for c in report.correlations if c.depth == depth and math.isfinite(c.value)]
        if found:
            words = ", ".join(f"{_correlation_text(c)} at m = {c.width}" for c in (found[0], found[-1]))
            lines.append(f"    correlation of two neurons of the last layer, depth {depth}: {words}")
    lines += [_limit_words(depth, at_rest(report.plan.table, depth)) for depth in part.depths]
    return "\n".join(lines)


def _floor_line(report: "MultilayerReport", part: ChaosTable | ResidualTable, name: str) -> str:
    pairs = zip(report.values[f"{name}_floor"], part.depths, strict=True)
    return f"    the limit is known to {', '.join(f'{number(float(x), 2)} at depth {depth}' for x, depth in pairs)}"


def _correlation_text(found: Correlation) -> str:
    interval = f" [{found.low:+.2f}, {found.high:+.2f}]" if math.isfinite(found.low) else ""
    return f"{found.value:+.2f}{interval}"


def _limit_words(depth: int, rests: bool) -> str:
    """What is left of the layers."""
    if rests:
        return f"    the limit of depth {depth} stays at f = 0, {_SADDLE}: no slopes in training"
    if depth <= 2:
        kept = "every hidden layer keeps neurons that differ"
    else:
        kept = f"the layers from 2 to {depth - 1} are one neuron each" if depth > 3 else "layer 2 is one neuron"
    return f"    in the limit of depth {depth} {kept}"


def _collapse_text(report: "MultilayerReport", part: CollapseTable) -> str:
    lines = [
        "  what the neurons of the layers between differ by (in residual blocks: of all), and how far weights move, relative to their size"
    ]
    for scaling in part.scalings:
        lines += [f"    {NAMES[scaling]}", _slopes_text(report.of("collapse", scaling))]
    return "\n".join([*lines, _risk_text(report, part)])


def _risk_text(report: "MultilayerReport", part: CollapseTable) -> str:
    """What is learnt by the widest networks."""
    risks = np.median(report.values["collapse_risk"][:, :, -1], axis=2)
    rows = []
    for k, scaling in enumerate(part.scalings):
        ends = [f"{number(float(r[-1]), 3)}{'' if r[-1] < _UNTRAINED * r[0] else ' (stuck)'}" for r in risks[k]]
        rows.append([NAMES[scaling], number(float(np.median(risks[k, :, 0])), 3), *ends])
    head = f"  risk at t = {part.end:g}, m = {part.widths[-1]}, median of the seeds (stuck: more than {_UNTRAINED:g} of the start is left)"
    lines = [head, grid_text(["", "start", *(f"depth {depth}" for depth in part.depths)], rows, "    ")]
    at_zero = ACTIVATIONS[report.plan.table.activation].value(np.zeros(1))[0] == 0.0
    still = [k for k in part.scalings if k == "centred" or (k == "mean_field" and report.plan.table.middle.mean == 0.0)]
    if still and at_zero and part.depths[-1] >= 3:
        lines.append(f"    {NAMES[still[0]]}, from depth 3 on: f = 0 for ever at m = ∞, {_SADDLE}")
    return "\n".join(lines)


def _residual_text(report: "MultilayerReport", part: ResidualTable) -> str:
    lines = ["  residual blocks: distances to the limit m = ∞ of the same depth (rms over the seeds)", _slopes_text(report.of("residual"))]
    lines.append(_floor_line(report, part, "residual"))
    rates = depth_rates(part, report.values)
    lines.append(f"    at m = {part.widths[-1]} the distance has slope {rate_text(rates[-1])} in L")
    apart, order = depth_differences(part, report.values), report.order
    listed = ", ".join(f"{number(float(x), 3)} at L = {depth}" for x, depth in zip(apart, part.depths, strict=False))
    interval = "" if order is None or not math.isfinite(order.low) else f" [{order.low:.3f}, {order.high:.3f}]"
    words = "; no order, as the errors of the steps may be as large"
    if order is not None:
        words = f"; order {order.value:.3f}{interval} in 1/L, expected 1: {'MISSED' if depth_missed(report) else 'yes'}"
    lines.append(f"    m = ∞: largest |f_L − f_{part.depths[-1]}| is {listed}{words}")
    risks = report.values["residual_limit_risk"][:, -1]
    ends = ", ".join(f"{number(float(x), 3)} at L = {depth}" for x, depth in zip(risks, part.depths, strict=True))
    lines.append(f"    m = ∞: risk {ends}, t = {part.end:g}")
    return "\n".join(lines)
