"""Figures of a study of conventional and mean-field scaling: courses of training, heat maps of the risk, distances from random features."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.figures.style import COLOR_MAP, WIDTH, add_legend, escape_text, pick_style, start_figure
from mfpde.study.two_scalings_plan import MODELS, samples_words
from mfpde.study.two_scalings_text import NAMES, ScalingsReport, median_risk
from mfpde.tables import counted

_STRENGTH = r"$a_j|b_j|$"
_MOST_NEURONS = 400


def make_curves_figure(report: ScalingsReport) -> Figure:
    """Risk, path norm and activated neurons over time; below them a_j|b_j| of the first seed over time, and by neuron at the end."""
    part = report.plan.table.curves
    assert part is not None
    words = f"{counted(part.width, 'neuron')} in training, {samples_words(part.samples)}"
    figure = start_figure(_title(report, words), 7.2, WIDTH + 1.6)
    panels = figure.subplots(3, 3)
    _draw_course(panels[0][0], report, "risk", "risk ½E(f − f*)²", True)
    _draw_course(panels[0][1], report, "path_norm", "path norm", False)
    _draw_course(panels[0][2], report, "activated", "activated neurons", True, ("conventional", "mean_field"))
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), handlelength=3.2)
    for m, model in enumerate(("conventional", "mean_field")):
        _draw_strengths(panels[1][m], report, MODELS.index(model))
        _draw_ends(panels[2][m], report, MODELS.index(model))
    _draw_course(panels[1][2], report, "distance", "distance from random features", True, ("conventional", "mean_field"))
    _draw_counts(panels[2][2], report)
    return figure


def make_paths_figure(report: ScalingsReport) -> Figure:
    """Neurons of the first seed in training: the first two coordinates of b_j (or the first over time), and a_j over time."""
    part = report.plan.table.curves
    assert part is not None
    figure = start_figure(_title(report, f"neurons in training, {samples_words(part.samples)}"), 5.6)
    panels = figure.subplots(2, 2)
    for m, model in enumerate(("conventional", "mean_field")):
        _draw_inner(panels[0][m], report, MODELS.index(model))
        _draw_outer(panels[1][m], report, MODELS.index(model))
    entries = {
        "path": Line2D([], [], color="0.6", linewidth=0.8),
        "start": Line2D([], [], color="0.35", marker=".", linestyle=""),
        "end, not activated": Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="", markersize=4.5),
        "end, activated": Line2D([], [], color=pick_style(1).color, marker="o", linestyle="", markersize=4.5),
    }
    add_legend(figure, dict(entries))
    return figure


def _draw_inner(axes: Axes, report: ScalingsReport, m: int) -> None:
    inner, times = report.values["curve_inner"][m, 0], report.values["curve_time"][m, 0]
    seed = report.scales["curve_seed"][0]
    axes.set_title(f"$b_j$, {NAMES[MODELS[m]]}, seed {seed}")
    shown, awake = _picked(report, m), _activated(report, m)
    if inner.shape[-1] == 1:
        axes.plot(times[1:], inner[1:, shown, 0], color="0.6", linewidth=0.5)
        axes.set_xscale("log")
        axes.set_xlabel("time $t$")
        axes.set_ylabel("$b_j$")
        return
    axes.plot(inner[:, shown, 0], inner[:, shown, 1], color="0.6", linewidth=0.6)
    axes.plot(inner[0, shown, 0], inner[0, shown, 1], ".", color="0.35", markersize=2.5)
    asleep = shown[~awake[shown]]
    look: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 3.5}
    axes.plot(inner[-1, asleep, 0], inner[-1, asleep, 1], color="black", markerfacecolor="white", **look)
    axes.plot(inner[-1, awake, 0], inner[-1, awake, 1], color=pick_style(1).color, **look)
    axes.set_xlabel("$b_{j,1}$")
    axes.set_ylabel("$b_{j,2}$")
    axes.set_aspect("equal", adjustable="datalim")


def _draw_outer(axes: Axes, report: ScalingsReport, m: int) -> None:
    outer, times, awake = report.values["curve_outer"][m, 0], report.values["curve_time"][m, 0], _activated(report, m)
    shown = _picked(report, m)
    axes.plot(times[1:], outer[1:, shown[~awake[shown]]], color="0.6", linewidth=0.5)
    axes.plot(times[1:], outer[1:, awake], color=pick_style(1).color, linewidth=0.9)
    axes.set_xscale("log")
    axes.set_xlabel("time $t$")
    axes.set_ylabel("$a_j$")


def _picked(report: ScalingsReport, m: int) -> IntArray:
    """Neurons that are drawn, all activated ones among them."""
    count = report.values["curve_outer"].shape[-1]
    some = np.linspace(0, count - 1, min(_MOST_NEURONS, count)).astype(np.int64)
    return np.union1d(some, np.flatnonzero(_activated(report, m)))


def _activated(report: ScalingsReport, m: int) -> BoolArray:
    strength = np.abs(report.values["curve_strength"][m, 0, -1])
    found: BoolArray = strength >= report.plan.table.threshold * max(float(np.max(strength)), 1e-300)
    return found


def make_heat_map_figure(report: ScalingsReport) -> Figure:
    """The median risk over width and samples, one panel for each model, on one logarithmic scale."""
    part = report.plan.table.heat_map
    assert part is not None
    risks = median_risk(report)
    what = f"risk ½E(f − f*)² at t = {part.end:g}, median of {part.seeds} seeds" if part.seeds > 1 else f"risk at t = {part.end:g}"
    figure = start_figure(_title(report, what), 3.4, WIDTH + 1.6)
    panels = figure.subplots(1, 3, sharey=True)
    high = float(risks.max()) or 1.0
    low = max(float(risks.min()), 1e-12 * high)
    norm = LogNorm(low, high if high > low else 10.0 * low)
    for m, (axes, model) in enumerate(zip(panels, MODELS, strict=True)):
        axes.imshow(np.maximum(risks[m], low), origin="lower", aspect="auto", norm=norm, cmap=COLOR_MAP)
        _label_cells(axes, part.widths, part.samples)
        axes.set_title(NAMES[model])
        _draw_guides(axes, part.widths, part.samples, part.dimension or report.plan.table.dimension)
    panels[0].set_ylabel("neurons $m$")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, handlelength=3.2, facecolor="0.75", frameon=True)
    figure.colorbar(ScalarMappable(norm, COLOR_MAP), ax=list(panels), label="risk", pad=0.02)
    return figure


def make_lazy_figure(report: ScalingsReport) -> Figure:
    """The distance from random features and of the neurons from their start against the width, every seed and the fitted slopes."""
    part = report.plan.table.lazy
    assert part is not None
    words = f"conventional networks up to t = {part.end:g}, {samples_words(part.samples)}"
    figure = start_figure(_title(report, words), 3.2)
    panels = figure.subplots(1, 2)
    labels = {"distance": r"largest $(\mathrm{E}(f - f_{RF})^2)^{1/2}$", "displacement": r"largest $|B(t) - B(0)|$"}
    for k, (name, label) in enumerate(labels.items()):
        _draw_slope(panels[k], np.asarray(part.widths, dtype=float), report.values[f"lazy_{name}"], report, name, k)
        panels[k].set_ylabel(label)
    return figure


def _title(report: ScalingsReport, what: str) -> str:
    words = " ".join(report.plan.case.table.title.split())
    return escape_text(f"{words}: {what}" if words else what[:1].upper() + what[1:], 300)


def _draw_course(axes: Axes, report: ScalingsReport, name: str, label: str, logarithmic: bool, models: tuple[str, ...] = MODELS) -> None:
    """One quantity over time: every seed thin, their median broad."""
    times, values = report.values["curve_time"], report.values[f"curve_{name}"]
    for model in models:
        m, look = MODELS.index(model), pick_style(MODELS.index(model))
        for s in range(values.shape[1]):
            _line(axes, times[m, s], values[m, s], logarithmic, color=look.color, linewidth=0.5, alpha=0.5)
        middle = np.median(values[m], axis=0)
        _line(axes, times[m, 0], middle, logarithmic, color=look.color, linestyle=look.dashes, linewidth=1.6, label=NAMES[model])
    axes.set_xscale("log")
    if logarithmic and (values[[MODELS.index(model) for model in models]] > 0.0).any():
        axes.set_yscale("log")
    axes.set_xlabel("time $t$")
    axes.set_title(label)


def _line(axes: Axes, times: FloatArray, values: FloatArray, positive: bool, **look: Any) -> None:
    """The times after 0, and only positive values on a logarithmic axis."""
    kept = (times > 0.0) & (values > 0.0 if positive else np.isfinite(values))
    axes.plot(times[kept], values[kept], **look)


def _draw_strengths(axes: Axes, report: ScalingsReport, m: int) -> None:
    """a_j|b_j| over time, one line for each neuron of the first seed."""
    times, strengths = report.values["curve_time"][m, 0], report.values["curve_strength"][m, 0]
    shown = np.unique(np.linspace(0, strengths.shape[1] - 1, min(_MOST_NEURONS, strengths.shape[1])).astype(int))
    strongest = int(np.argmax(np.abs(strengths[-1])))
    axes.plot(times[1:], strengths[1:, shown], color="0.55", linewidth=0.5)
    axes.plot(times[1:], strengths[1:, strongest], color=pick_style(m).color, linewidth=1.4)
    axes.set_xscale("log")
    axes.set_xlabel("time $t$")
    axes.set_title(f"{_STRENGTH}, {NAMES[MODELS[m]]}, seed {report.scales['curve_seed'][0]}")


def _draw_ends(axes: Axes, report: ScalingsReport, m: int) -> None:
    """a_j|b_j| at the end by the index of the neuron, first seed."""
    strengths = report.values["curve_strength"][m, 0, -1]
    axes.vlines(np.arange(len(strengths)), 0.0, strengths, color=pick_style(m).color, linewidth=1.0)
    axes.axhline(0.0, color="0.4", linewidth=0.5)
    axes.set_xlabel("index of the neuron")
    axes.set_title(f"{_STRENGTH} at the end, {NAMES[MODELS[m]]}, seed {report.scales['curve_seed'][0]}")


def _draw_counts(axes: Axes, report: ScalingsReport) -> None:
    """Activated neurons at the end, by seed."""
    seeds = np.asarray(report.scales["curve_seed"])
    for m in range(2):
        look = pick_style(m)
        counts = report.values["curve_activated"][m, :, -1]
        axes.plot(np.arange(len(seeds)), counts, color=look.color, marker=look.marker, linestyle="", label=NAMES[MODELS[m]])
    if (report.values["curve_activated"][:2, :, -1] > 0.0).any():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(seeds) <= 12:
        axes.set_xticks(np.arange(len(seeds)), [str(seed) for seed in seeds])
    axes.set_xlabel("seed")
    axes.set_title("activated neurons at the end")


def _label_cells(axes: Axes, widths: list[int], samples: list[int]) -> None:
    axes.set_yticks(range(len(widths)), [str(width) for width in widths])
    axes.set_xticks(range(len(samples)), [str(count) for count in samples], rotation=45.0 if len(samples) > 6 else 0.0)
    axes.set_xlabel("samples $n$")


def _draw_guides(axes: Axes, widths: list[int], samples: list[int], dimension: int) -> None:
    """Where there are as many neurons as samples, and as many parameters, on the part that lies inside."""
    fine = np.geomspace(samples[0], samples[-1], 200)
    rows, columns = np.log(np.asarray(widths, dtype=float)), np.log(np.asarray(samples, dtype=float))
    for share, dashes, label in ((1.0, (0, (4, 2)), "$m = n$"), (1.0 / (dimension + 1), (0, (1, 1.5)), "$m = n/(d + 1)$")):
        x = np.interp(np.log(fine), columns, np.arange(len(samples)))
        y = np.interp(np.log(share * fine), rows, np.arange(len(widths)), left=np.nan, right=np.nan)
        axes.plot(x, y, color="white", linestyle=dashes, linewidth=1.3, label=label)
    axes.set_xlim(-0.5, len(samples) - 0.5)
    axes.set_ylim(-0.5, len(widths) - 0.5)


def _draw_slope(axes: Axes, widths: FloatArray, values: FloatArray, report: ScalingsReport, name: str, k: int) -> None:
    look, slope = pick_style(k), report.slopes[name]
    for row in values:
        axes.plot(widths[row > 0.0], row[row > 0.0], color=look.color, marker=look.marker, markersize=3.0, linewidth=0.5, alpha=0.6)
    if np.isfinite(slope.value):
        centre = np.exp(np.mean(np.log(values)))
        law = centre * (widths / np.exp(np.mean(np.log(widths)))) ** slope.value
        label = f"slope {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]" if np.isfinite(slope.low) else f"slope {slope.value:.2f}"
        axes.plot(widths, law, color="black", linestyle=(0, (5, 2)), linewidth=1.3, label=label)
        bound = 1.5 * float(np.max(values[:, 0])) * (widths / widths[0]) ** -1.0
        if name == "distance":
            axes.plot(widths, bound, color="0.4", linestyle=(0, (1, 1.6)), linewidth=1.3, label="$1/m$, as the theorem's bound")
        axes.legend(fontsize=7.5)
    axes.set_xscale("log")
    if (values > 0.0).any():
        axes.set_yscale("log")
    axes.set_xticks(widths.tolist(), [f"{width:g}" for width in widths])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("neurons $m$")
