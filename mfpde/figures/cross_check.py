"""The figure of a cross-check: how far each run is from the reference, and how far their own errors let it be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mfpde.arrays import FloatArray
from mfpde.figures.style import (
    WIDTH,
    RunStyle,
    TimeScale,
    add_legend,
    add_remark,
    choose_time_scale,
    escape_text,
    pick_style,
    scale_time_axis,
    scale_value_axis,
    start_figure,
    write_title,
)
from mfpde.storage import StoredRun
from mfpde.study.cross_check import CrossCheck

_NAMES = {
    "w2": r"$W_2$ to the reference",
    "l1": r"$L^1$ to the reference",
    "loss": r"$|E-E_\mathrm{ref}|$",
}
_SIZE = 4.5


def make_cross_check_figure(check: CrossCheck, runs: Sequence[StoredRun]) -> Figure | None:
    """One panel for each norm with a line for each run, full markers where it agrees with the reference; None without a distance."""
    norms = [k for k in range(len(check.norms)) if np.isfinite(check.distance[k]).any()]
    if not norms:
        return None
    scale = choose_time_scale(check.times)
    figure = start_figure(write_title(runs[0], f"distance to {check.reference}"), 1.1 + 2.1 * len(norms), WIDTH)
    for row, k in enumerate(norms):
        axes = figure.add_subplot(len(norms), 1, row + 1)
        for r in check.others:
            _draw_run(axes, check, k, r, scale)
        axes.set_ylabel(_NAMES[check.norms[k]])
        axes.grid(color="0.9", linewidth=0.5)
        values = np.concatenate([check.distance[k].ravel(), check.allowed[k].ravel()])
        label = scale_time_axis(axes, scale)
        add_remark(axes, [scale_value_axis(axes, values, True)])
        axes.set_xlabel(label if row == len(norms) - 1 else "")
        axes.tick_params(labelbottom=row == len(norms) - 1)
    add_legend(figure, _entries(check))
    return figure


def _draw_run(axes: Axes, check: CrossCheck, k: int, r: int, scale: TimeScale) -> None:
    """The distance, and the sum of the stated errors, a thin line with limits as marks."""
    look, places = pick_style(r), scale.place(check.times)
    value, room, apart = check.distance[k, r], check.allowed[k, r], check.differs[k, r]
    _plot(axes, places, value, look, look.dashes, 1.3)
    _plot(axes, places, room, look, "-", 0.5)
    axes.plot(places, room, color=look.color, linestyle="", marker="v", markersize=0.8 * _SIZE)
    for chosen, face in ((apart, "white"), (~apart, look.color)):
        kept = chosen & np.isfinite(value) & np.isfinite(places)
        axes.plot(
            places[kept],
            value[kept],
            color=look.color,
            linestyle="",
            marker=look.marker,
            markersize=_SIZE,
            markerfacecolor=face,
            zorder=3.0,
        )


def _plot(axes: Axes, places: FloatArray, values: FloatArray, look: RunStyle, dashes: Any, width: float) -> None:
    kept = np.isfinite(places) & np.isfinite(values)
    axes.plot(places[kept], values[kept], color=look.color, linestyle=dashes, linewidth=width)


def _entries(check: CrossCheck) -> dict[str, Artist]:
    entries: dict[str, Artist] = {}
    for r in check.others:
        look = pick_style(r)
        entries[escape_text(check.labels[r])] = Line2D(
            [], [], color=look.color, linestyle=look.dashes, marker=look.marker, markersize=_SIZE
        )
    entries["sum of the stated errors"] = Line2D([], [], color="0.3", linewidth=0.5, marker="v", markersize=0.8 * _SIZE)
    if check.differs.any():
        entries["further apart than that"] = Line2D(
            [], [], color="0.3", linestyle="", marker="o", markerfacecolor="white", markersize=_SIZE
        )
    return entries
