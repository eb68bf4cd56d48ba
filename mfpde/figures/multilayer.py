"""Figures of a study of networks of many layers: gaps to the limit, what the neurons of a layer differ by, depth of residual networks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mfpde.arrays import FloatArray
from mfpde.case.multilayer_schema import ChaosTable, CollapseTable, ResidualTable
from mfpde.figures.style import WIDTH, escape_text, pick_style, spread_indices, start_figure
from mfpde.study.multilayer_rates import Fit, depth_differences
from mfpde.study.multilayer_report import MultilayerReport
from mfpde.study.multilayer_text import NAMES

_MOST_DEPTHS = 4
_BAND = 40
_GAP = "gap, largest over t"
_COUPLED = ("first layer, neurons", "middle layer, neurons", "last layer, neurons")


def make_chaos_figure(report: MultilayerReport) -> Figure:
    """By depth, from the top: the gap to the limit, the distance of neurons to their limit processes, and the risk over time."""
    part = report.plan.table.chaos
    assert part is not None
    shown = spread_indices(len(part.depths), _MOST_DEPTHS).tolist()
    words = f"networks under 1/m against their limit up to t = {part.end:g}"
    figure = start_figure(_title(report, words), 6.6, max(WIDTH, 2.2 * len(shown)))
    panels = figure.subplots(3, len(shown), sharey="row", squeeze=False)
    fits = report.of("chaos")
    for column, d in enumerate(shown):
        own = {fit.quantity: fit for fit in fits if fit.depth == part.depths[d]}
        if _GAP in own:
            _draw_gap(panels[0][column], own[_GAP])
        panels[0][column].set_title(f"{part.depths[d]} hidden layer{'s' * (part.depths[d] > 1)}")
        for k, name in enumerate(_COUPLED):
            if name in own:
                _draw_rms(panels[1][column], own[name], k, name.split()[0])
        _label_widths(panels[1][column], part.widths)
        _draw_risks(panels[2][column], report, part, d)
    _legends_above(panels[1], 3)
    labels = (r"$\sup_{t,x}|f_m - f|$", r"distance to the limit process", "risk")
    for row, label in zip(panels, labels, strict=True):
        row[0].set_ylabel(label)
    return figure


def make_collapse_figure(report: MultilayerReport) -> Figure:
    """Above: spread by layer, spread and movement by width in the deepest network; below: risk over time by depth."""
    part = report.plan.table.collapse
    assert part is not None
    words = f"neurons of one layer under {'these scalings' if len(part.scalings) > 1 else 'one scaling'}, depth {part.depths[-1]}"
    figure = start_figure(_title(report, words), 5.4, WIDTH + 1.6)
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1.0])).tolist()
    top = above.subplots(1, 3)
    _draw_layers(top[0], report, part)
    for axes, quantity in ((top[1], "spread at the end"), (top[2], "first weights moved")):
        _draw_widths(axes, report, part, quantity)
    top[0].set_title(f"spread by layer, m = {part.widths[-1]}")
    top[1].set_title("layers between: spread at the end")
    top[2].set_title("first weights: |change|/|start|")
    shown = spread_indices(len(part.depths), _MOST_DEPTHS).tolist()
    bottom = below.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, d in zip(bottom, shown, strict=True):
        _draw_curves(axes, report, part, d)
    bottom[0].set_ylabel(f"risk, m = {part.widths[-1]}")
    handles, names = bottom[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), handlelength=3.2)
    return figure


def make_residual_figure(report: MultilayerReport) -> Figure:
    """The gap to the limit m = ∞ by width, how far these limits are apart by depth, and their risks over time."""
    part = report.plan.table.residual
    assert part is not None
    figure = start_figure(_title(report, f"residual networks against their limits up to t = {part.end:g}"), 3.3, WIDTH + 1.0)
    panels = figure.subplots(1, 3)
    fits = report.of("residual")
    for k, d in enumerate(spread_indices(len(fits), 5).tolist()):
        _draw_rms(panels[0], fits[d], k, f"$L$ = {fits[d].depth}")
    _label_widths(panels[0], part.widths)
    panels[0].set_title(r"$\sup_{t,x}|f_{m,L} - f_L|$")
    _legends_above([panels[0]], len(panels[0].lines))
    _draw_depths(panels[1], report, part)
    for k, d in enumerate(spread_indices(len(part.depths), 5).tolist()):
        look = pick_style(k)
        risks = report.values["residual_limit_risk"][d]
        times = np.asarray(report.scales["residual_time"], dtype=float)
        panels[2].plot(times, risks, color=look.color, linestyle=look.dashes, linewidth=1.3, label=f"$L$ = {part.depths[d]}")
    _log_if_positive(panels[2], report.values["residual_limit_risk"])
    panels[2].set_xlabel("time $t$")
    panels[2].set_title(r"risk, $m = \infty$")
    panels[2].legend(fontsize=7.0, handlelength=2.6, loc="upper right")
    return figure


def _title(report: MultilayerReport, what: str) -> str:
    words = " ".join(report.plan.case.table.title.split())
    return escape_text(f"{words}: {what}" if words else what[:1].upper() + what[1:], 300)


def _draw_gap(axes: Axes, fit: Fit) -> None:
    """Every seed, the root mean squares, and the fitted slope with its band."""
    look, widths = pick_style(0), np.asarray(fit.widths, dtype=float)
    for row in fit.samples.T:
        axes.plot(widths, row, color="0.6", marker=".", markersize=3.0, linestyle="", zorder=1.0)
    sizes = np.sqrt(np.mean(fit.samples**2, axis=1))
    axes.plot(widths, sizes, color=look.color, marker=look.marker, markersize=4.5, linestyle="", zorder=3.0)
    _draw_law(axes, widths, sizes, fit, look.color)
    axes.legend(fontsize=7.0, handlelength=2.0, loc="lower left")
    _label_widths(axes, fit.widths)


def _draw_law(axes: Axes, widths: FloatArray, sizes: FloatArray, fit: Fit, color: str) -> None:
    if not np.isfinite(fit.rate.value):
        return
    fine = np.geomspace(widths[0], widths[-1], _BAND)
    centre, middle = np.exp(np.mean(np.log(sizes))), np.exp(np.mean(np.log(widths)))
    label = f"slope {_signed(fit.rate.value)}"
    if np.isfinite(fit.rate.low):
        label += f"\n[{_signed(fit.rate.low)}, {_signed(fit.rate.high)}]"
        laws = [centre * (fine / middle) ** slope for slope in (fit.rate.low, fit.rate.high)]
        axes.fill_between(fine, np.minimum(*laws), np.maximum(*laws), color=color, alpha=0.15, linewidth=0.0)
    axes.plot(fine, centre * (fine / middle) ** fit.rate.value, color=color, linewidth=1.2, label=label)
    axes.plot(fine, centre * (fine / middle) ** -0.5, color="black", linestyle=(0, (1, 1.6)), linewidth=1.0, label="slope −1/2")


def _draw_rms(axes: Axes, fit: Fit, number: int, label: str) -> None:
    look = pick_style(number)
    sizes = np.sqrt(np.mean(fit.samples**2, axis=1))
    words = f"{label}: {_signed(fit.rate.value)}" if np.isfinite(fit.rate.value) else label
    kept = sizes > 0.0
    if not kept.any():
        return
    widths = np.asarray(fit.widths, dtype=float)
    axes.plot(
        widths[kept], sizes[kept], color=look.color, marker=look.marker, markersize=3.5, linestyle=look.dashes, linewidth=1.1, label=words
    )


def _signed(value: float) -> str:
    """Two digits with a minus, not a hyphen; no sign before 0."""
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _legends_above(panels: Sequence[Axes], rows: int) -> None:
    """Legends of so many rows in room of their own, above the lines of a logarithmic axis that the panels share."""
    low, high = panels[0].get_ylim()
    share = 0.075 * rows + 0.03
    if any(axes.lines for axes in panels):
        panels[0].set_ylim(low, high * (high / low) ** (share / (1.0 - share)))
    for axes in [axes for axes in panels if axes.lines]:
        axes.legend(fontsize=7.0, handlelength=2.6, loc="upper right", labelspacing=0.3)


def _label_widths(axes: Axes, widths: Sequence[int]) -> None:
    axes.set_xscale("log")
    if axes.lines:
        axes.set_yscale("log")
    shown = spread_indices(len(widths), 5).tolist()
    axes.set_xticks([widths[k] for k in shown], [str(widths[k]) for k in shown])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("neurons $m$")


def _draw_risks(axes: Axes, report: MultilayerReport, part: ChaosTable, d: int) -> None:
    """The limit's risk over time, and those of the first seed at the smallest and largest width."""
    times, risks = np.asarray(report.scales["chaos_time"], dtype=float), report.values["chaos_risk"][d]
    for k, w in enumerate((0, len(part.widths) - 1)):
        look = pick_style(k)
        label = f"$m$ = {part.widths[w]}"
        for s in range(risks.shape[1]):
            axes.plot(
                times, risks[w, s], color=look.color, linestyle=look.dashes, linewidth=0.6, alpha=0.8, label=label if s == 0 else None
            )
    axes.plot(times, report.values["chaos_limit_risk"][d], color="black", linewidth=1.6, label=r"$m = \infty$")
    _log_if_positive(axes, risks)
    axes.set_xlabel("time $t$")
    axes.legend(fontsize=7.0, handlelength=2.6, loc="lower left")


def _draw_layers(axes: Axes, report: MultilayerReport, part: CollapseTable) -> None:
    """The spread of every layer of the widest and deepest network at the end, and at the start in pale."""
    spreads = np.sqrt(np.mean(report.values["collapse_spread"][:, -1, -1] ** 2, axis=1))
    layers = np.arange(1.0, part.depths[-1] + 1.0)
    for k, scaling in enumerate(part.scalings):
        look = pick_style(k)
        lines: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 3.5}
        _plot_positive(axes, layers, spreads[k, 0], linestyle=look.dashes, linewidth=0.8, alpha=0.35, **lines)
        _plot_positive(axes, layers, spreads[k, 1], linestyle=look.dashes, linewidth=1.3, label=NAMES[scaling], **lines)
    _log_if_positive(axes, spreads)
    axes.set_xticks(layers[spread_indices(len(layers), 8)].tolist())
    axes.set_xlabel("layer (pale: at the start)")
    axes.set_ylabel("standard deviation over neurons")


def _draw_widths(axes: Axes, report: MultilayerReport, part: CollapseTable, quantity: str) -> None:
    """A quantity of the deepest networks by width, with its slopes."""
    for k, scaling in enumerate(part.scalings):
        for fit in report.of("collapse", scaling):
            if fit.quantity == quantity and fit.depth == part.depths[-1]:
                _draw_rms(axes, fit, k, NAMES[scaling])
    _label_widths(axes, part.widths)
    if axes.lines:
        _legends_above([axes], len(axes.lines))


def _draw_curves(axes: Axes, report: MultilayerReport, part: CollapseTable, d: int) -> None:
    """Risks of the widest networks over time: the seeds thin, their median broad."""
    times = np.asarray(report.scales["collapse_time"], dtype=float)
    for k, scaling in enumerate(part.scalings):
        look, risks = pick_style(k), report.values["collapse_risk"][k, d, -1]
        for row in risks:
            axes.plot(times, row, color=look.color, linewidth=0.4, alpha=0.5)
        axes.plot(times, np.median(risks, axis=0), color=look.color, linestyle=look.dashes, linewidth=1.5, label=NAMES[scaling])
    _log_if_positive(axes, report.values["collapse_risk"])
    axes.set_xlabel("time $t$")
    axes.set_title(f"depth {part.depths[d]}")


def _draw_depths(axes: Axes, report: MultilayerReport, part: ResidualTable) -> None:
    """How far the limits m = ∞ are from the deepest one, and the fitted order."""
    apart, depths, order, look = (
        depth_differences(part, report.values),
        np.asarray(part.depths[:-1], dtype=float),
        report.order,
        pick_style(0),
    )
    _plot_positive(axes, depths, apart, color=look.color, marker=look.marker, linestyle="", label="measured")
    if order is not None and np.isfinite(order.value):
        fine = np.geomspace(depths[0], depths[-1], _BAND)
        label = f"order {order.value:.2f} in $1/L$,\nless the same at {part.depths[-1]}"
        axes.plot(fine, order.error(1.0 / fine), color=look.color, linewidth=1.2, label=label)
    axes.set_xscale("log")
    _log_if_positive(axes, apart)
    axes.set_xticks(depths.tolist(), [str(depth) for depth in part.depths[:-1]])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("blocks $L$")
    axes.set_title(rf"$\sup_{{t,x}}|f_L - f_{{{part.depths[-1]}}}|$, $m = \infty$")
    axes.legend(fontsize=7.0, handlelength=2.6, loc="lower left")


def _plot_positive(axes: Axes, x: FloatArray, values: FloatArray, **look: Any) -> None:
    kept = values > 0.0
    axes.plot(np.asarray(x)[kept], values[kept], **look)


def _log_if_positive(axes: Axes, values: FloatArray) -> None:
    if (values > 0.0).any():
        axes.set_yscale("log")
