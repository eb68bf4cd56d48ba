"""The figure of a study of the time step: errors against the finest step and against the reference, with their slopes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from mfpde.arrays import FloatArray
from mfpde.figures.refinement import NORM_NAMES, order_label, tick_widths
from mfpde.figures.style import WIDTH, RunStyle, add_remark, escape_text, pick_style, spread_indices, start_figure
from mfpde.study.refinement import NORMS
from mfpde.study.time_step import Family, TimeStepStudy

_MOST_TIMES = 3
_SIZE = 4.5
_GUIDE = (0, (1, 2.0))
_GUIDES = {1: r"$\tau$", 2: r"$\tau^2$"}
_BELOW, _ABOVE = 0.35, 1.8
_FEW_DECADES = 100.0


def make_time_step_figure(study: TimeStepStudy, title: str) -> Figure | None:
    """One row of panels, one for each norm, for each of at most three times; None if there is no positive error."""
    drawn = [t for t in range(len(study.times)) if any((family.own.error[:, t] > 0.0).any() for family in study.families)]
    if not drawn:
        return None
    shown = [drawn[k] for k in spread_indices(len(drawn), _MOST_TIMES)]
    norms = [norm for norm in NORMS if any(norm in family.own.norms for family in study.families)]
    words, what = " ".join(title.split()), "orders of minimising movements in their time step"
    room = 0.2 * (len(study.families) + 3)
    figure = start_figure(
        escape_text(f"{words}: {what}" if words else what.capitalize(), 300),
        0.5 + (2.9 + room) * len(shown),
        WIDTH + 1.0 * len(norms) - 1.0,
    )
    panels = figure.subplots(len(shown), len(norms), squeeze=False)
    for row, t in enumerate(shown):
        for axes, norm in zip(panels[row], norms, strict=True):
            _draw_norm(axes, study, norm, t, _meanings(study) if norm == norms[0] else [])
        omitted = len(study.times) - len(shown)
        panels[row][0].set_title(f"t = {study.times[t]:g}", loc="left", fontweight="bold")
        add_remark(panels[row][-1], [f"{omitted} more times in study.json"] if omitted and not row else [])
    return figure


def _draw_norm(axes: Axes, study: TimeStepStudy, norm: str, t: int, meanings: list[Line2D]) -> None:
    """All families in one norm, with the slopes of their orders, and below it a legend that ends with the ``meanings`` of markers."""
    entries = []
    for number, family in enumerate(study.families):
        if norm in family.own.norms:
            entries.append(_draw_family(axes, family, norm, t, pick_style(number)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    for order in sorted({family.order for family in study.families if norm in family.own.norms}):
        _draw_guide(axes, study, norm, order, t)
    axes.grid(color="0.9", linewidth=0.5)
    tick_widths(axes, study.families[0].own.width)
    axes.tick_params(axis="x", labelrotation=45.0)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _FEW_DECADES * low else (1.0,)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(r"time step $\tau$")
    axes.set_ylabel(NORM_NAMES[norm].replace("ref", r"\star"))
    axes.legend(
        handles=[*entries, *meanings], loc="upper center", bbox_to_anchor=(0.45, -_BELOW), borderaxespad=0.0, handlelength=2.4, fontsize=7.5
    )


def _draw_family(axes: Axes, family: Family, norm: str, t: int, look: RunStyle) -> Line2D:
    """Full: against the finest step, with the fit; hollow and thin: against the reference, with its floor. Returns the legend's entry."""
    own = family.own
    k, m = own.norms.index(norm), family.against(norm)
    _draw_points(axes, own.width, own.error[k, t], look, look.color)
    fit, used = own.fits[k][t], own.used[k, t]
    if np.isfinite(fit.value) and used.any():
        widths = np.geomspace(own.width[used].min(), own.width[used].max(), 100)
        axes.plot(widths, fit.error(widths), color=look.color, linestyle=look.dashes, linewidth=1.2)
    if family.other is not None and m is not None:
        error = family.other.error[m, t]
        kept = error > 0.0
        axes.plot(own.width[kept], error[kept], color=look.color, linestyle="-", linewidth=0.5)
        _draw_points(axes, own.width, error, look, "white")
    label = f"{escape_text(family.name)}: {order_label(own, k, t)}"
    return Line2D([], [], color=look.color, marker=look.marker, markersize=_SIZE, linestyle=look.dashes, label=label)


def _draw_points(axes: Axes, x: FloatArray, y: FloatArray, look: RunStyle, face: str) -> None:
    kept = y > 0.0
    axes.plot(x[kept], y[kept], color=look.color, linestyle="", marker=look.marker, markersize=_SIZE, markerfacecolor=face)


def _draw_guide(axes: Axes, study: TimeStepStudy, norm: str, order: int, t: int) -> None:
    """The slope that steps of this order are to show, above the errors against the finest step."""
    families = [family for family in study.families if family.order == order and norm in family.own.norms]
    widths, highest = families[0].own.width, max(float(family.own.error[family.own.norms.index(norm), t, 0]) for family in families)
    if not highest > 0.0:
        return
    law = _ABOVE * highest * (widths / widths[0]) ** order
    axes.plot(widths, law, color="0.35", linestyle=_GUIDE, linewidth=1.3)
    half = len(widths) // 2
    axes.annotate(
        _GUIDES[order], (widths[half], law[half]), (-7.0, 3.0), textcoords="offset points", ha="right", fontsize=8.0, color="0.25"
    )


def _meanings(study: TimeStepStudy) -> list[Line2D]:
    """What full and hollow markers are."""
    entries = [Line2D([], [], color="0.3", marker="o", markersize=_SIZE, linestyle="-", label=r"full: $\star$ is the finest step")]
    if any(family.other is not None for family in study.families):
        label = rf"hollow: $\star$ is {escape_text(study.reference)}"
        look: dict[str, Any] = {"marker": "o", "markersize": _SIZE, "markerfacecolor": "white", "linewidth": 0.5}
        entries.append(Line2D([], [], color="0.3", label=label, **look))
    return entries
