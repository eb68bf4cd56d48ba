"""Figures of a study of teacher recovery: densities at the end beside the teacher's, and W₂ against what the function still misses."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.figures.style import WIDTH, add_legend, escape_text, pick_style, start_figure, write_number, write_symbol
from mfpde.measure import Density, Measure, deposit
from mfpde.study.teacher_recovery import Recovery, Row

_BINS = 120
_COLUMNS = 3
_CUT = 3.0
_LEAST = 1e-14


def make_recovery_densities(report: Recovery) -> Figure | None:
    """One panel for each activation: the teacher filled, the students of all starts at their last times; None beyond one axis."""
    domain = report.rows[0].domain
    if domain.dimension > 1:
        return None
    figure, panels = _panels(report, "students at the last time, and the teacher", 2.1)
    for axes, rows in zip(panels, _by_activation(report), strict=True):
        edges, heights = _steps(report.teacher, domain)
        axes.stairs(heights, edges, fill=True, color="0.82", linewidth=0.0)
        tops = [float(np.max(heights))]
        for k, row in enumerate(rows):
            look = pick_style(k + 1)
            edges, heights = _steps(row.measures[-1], domain)
            axes.stairs(heights, edges, baseline=None, color=look.color, linestyle=look.dashes, linewidth=1.2)
            tops.append(float(np.max(heights)))
        top = min(max(tops), _CUT * max(sorted(tops)[len(tops) // 2], tops[0]))
        note = f" (peak {max(tops):.3g}, cut)" if top < max(tops) else ""
        axes.set_title(f"{rows[0].activation}, t = {write_number(rows[0].times[-1])}{note}")
        axes.set_ylim(0.0, 1.08 * top)
        axes.set_xlabel(write_symbol(domain.names[0]))
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel(r"density $\rho$")
    add_legend(figure, {"teacher": Patch(facecolor="0.82"), **_entries(report, False)})
    return figure


def make_recovery_figure(report: Recovery) -> Figure:
    """One panel for each activation: W₂ to the teacher against the relative residual, from the start to the last time (the marker)."""
    figure, panels = _panels(report, "from what the network computes to the teacher's measure", 2.3)
    least = max(_LEAST, 0.3 * min(float(np.min(row.residual[row.residual > 0.0], initial=1.0)) for row in report.rows))
    for axes, rows in zip(panels, _by_activation(report), strict=True):
        axes.axvspan(least, report.limit, color="0.93", linewidth=0.0)
        axes.axhline(report.distance, color="0.5", linewidth=0.8, linestyle=(0, (1, 1.2)))
        for k, row in enumerate(rows):
            _draw_way(axes, row, k, least)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_title(rows[0].activation)
        axes.set_xlabel("relative residual")
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel(r"$W_2$ to the teacher")
    entries = _entries(report, True)
    entries[f"function learned: residual ≤ {report.limit:.2g}"] = Patch(facecolor="0.93")
    entries[f"recovered: $W_2$ ≤ {report.distance:.2g}"] = Line2D([], [], color="0.5", linewidth=0.8, linestyle=(0, (1, 1.2)))
    add_legend(figure, dict(entries))
    return figure


def _panels(report: Recovery, what: str, height: float) -> tuple[Figure, list[Axes]]:
    """A panel for each activation, on a common scale."""
    count = len(_by_activation(report))
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    words = " ".join(report.title.split())
    figure = start_figure(
        escape_text(f"{words}: {what}" if words else what.capitalize(), 300), 1.1 + height * rows, max(WIDTH, 2.6 * columns)
    )
    found = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel().tolist()
    for axes in found[count:]:
        axes.set_visible(False)
    return figure, found[:count]


def _by_activation(report: Recovery) -> list[list[Row]]:
    names = list(dict.fromkeys(row.activation for row in report.rows))
    return [[row for row in report.rows if row.activation == name] for name in names]


def _entries(report: Recovery, marked: bool) -> dict[str, Line2D | Patch]:
    starts, entries = list(dict.fromkeys(row.start for row in report.rows)), dict[str, Line2D | Patch]()
    for k, start in enumerate(starts):
        look = pick_style(k + 1)
        entries[f"from {escape_text(start)}"] = Line2D(
            [], [], color=look.color, linestyle=look.dashes, linewidth=1.2, marker=look.marker if marked else None, markersize=4.5
        )
    return entries


def _draw_way(axes: Axes, row: Row, index: int, least: float) -> None:
    look = pick_style(index + 1)
    x, y = np.maximum(row.residual, least), np.maximum(row.distance, _LEAST)
    axes.plot(x, y, color=look.color, linestyle=look.dashes, linewidth=1.2)
    axes.plot(x[-1:], y[-1:], color=look.color, marker=look.marker, markersize=5.0, linestyle="")


def _steps(measure: Measure, domain: Domain) -> tuple[FloatArray, FloatArray]:
    """Cell averages, atoms shared between bins."""
    density = measure if isinstance(measure, Density) else deposit(measure, domain.even_grid(_BINS))
    return density.grid.edges(0), np.ravel(density.values)
