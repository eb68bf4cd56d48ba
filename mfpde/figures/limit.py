"""The figure of a particle limit: distances and loss gaps against N with their slopes, and fluctuations beside the central limit."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

from mfpde.arrays import FloatArray
from mfpde.figures.style import WIDTH, RunStyle, add_remark, escape_text, pick_style, spread_indices, start_figure
from mfpde.study.limit_text import LimitReport
from mfpde.study.quantities import ROWS, Row

_MOST_TIMES = 3
_NAMES = {
    "w2": r"$W_2(\rho_N,\rho)$",
    "w1": r"$W_1(\rho_N,\rho)$",
    "sliced": r"$SW_2(\rho_N,\rho)$",
    "function": r"$\|\int\!\sigma\,d\rho_N-\int\!\sigma\,d\rho\|_\mu$",
    "barycentre": "barycentres",
    "variance": "|variance gap|",
    "loss": r"$|E-E_\mathrm{ref}|$",
    "loss_spread": r"spread of $E-E_\mathrm{ref}$",
    "loss_mean": r"|mean of $E-E_\mathrm{ref}$|",
}
_GUIDE = (0, (1, 2.0))
_OTHER_GUIDE = (0, (5, 1.5, 1, 1.5, 1, 1.5))
_SIZE = 4.5
_ROUND_OFF = 1e-11
_FROM_QUANTILES = "hollow: one run from quantiles"
_FEW_COUNTS = 5
_FAR_APART = ("w2", "w1", "sliced")
"""What runs from quantiles are drawn for: the other quantities may be so small that the scale would show nothing else."""


def make_limit_figure(report: LimitReport) -> Figure | None:
    """One row of panels for each of at most three times; None if there is nothing positive to draw."""
    limit = report.limit
    drawn = [t for t in range(len(limit.times)) if any((_values(report, row, t) > 0.0).any() for row in limit.rows)]
    if not drawn:
        return None
    shown = [drawn[k] for k in spread_indices(len(drawn), _MOST_TIMES)]
    words, what = " ".join(report.title.split()), f"{report.solver} against {report.reference}, {limit.runs} runs for each N"
    title = f"{words}: {what}" if words else what[:1].upper() + what[1:]
    groups = _groups(report)
    figure = start_figure(escape_text(title, 300), 0.6 + 3.3 * len(shown), WIDTH + 2.4)
    cells = figure.subplots(len(shown), len(groups), squeeze=False)
    for line, t in enumerate(shown):
        for axes, (label, rows) in zip(cells[line], groups, strict=True):
            if rows:
                _draw_rows(axes, report, rows, t)
            else:
                _draw_fluctuation(axes, report, t)
            axes.set_ylabel(label)
            axes.set_xlabel("number of atoms $N$")
        omitted = len(limit.times) - len(shown)
        cells[line][0].set_title(f"t = {limit.times[t]:g}", loc="left", fontsize="medium", fontweight="bold")
        add_remark(cells[line][-1], [f"{omitted} more times in study.json"] if omitted and not line else [])
    return figure


def _groups(report: LimitReport) -> list[tuple[str, list[Row]]]:
    """Panels with their labels; no rows for the panel of the fluctuations."""
    rows = report.limit.rows
    found = [
        ("distance", [row for row in rows if row.quantity not in ("loss", "variance")]),
        ("loss gap", [row for row in rows if row.key in ("loss", "loss_mean")]),
        ("variance gap", [row for row in rows if row.key == "variance"]),
    ]
    found = [(label, chosen) for label, chosen in found if chosen]
    return found + ([(r"$\sqrt{N}\,\times$ spread of the loss gap", [])] if "loss" in report.limit.values else [])


def _values(report: LimitReport, row: Row, t: int) -> FloatArray:
    return report.limit.statistic(row.quantity, row.statistic, t)


def _look(row: Row) -> RunStyle:
    return pick_style([known.key for known in ROWS].index(row.key))


def _draw_rows(axes: Axes, report: LimitReport, rows: list[Row], t: int) -> None:
    """Statistics with their intervals and fitted lines, and the slope that theory expects."""
    counts, entries, hollow = np.array(report.limit.counts, dtype=float), [], False
    for row in rows:
        values, ends, look = _values(report, row, t), report.limit.interval(row.quantity, row.statistic, t), _look(row)
        kept = values > 0.0
        if not kept.any():
            continue
        low = np.where(ends[:, 0] > 0.0, ends[:, 0], values)
        errors = np.stack([values - low, np.maximum(ends[:, 1] - values, 0.0)])[:, kept]
        _draw_errors(axes, counts[kept], values[kept], np.nan_to_num(errors), look)
        if row.quantity in _FAR_APART and row.quantity in report.limit.quantile:
            single = np.abs(report.limit.quantile[row.quantity][:, t])
            seen = single > _ROUND_OFF
            axes.plot(
                counts[seen], single[seen], color=look.color, linestyle="", marker=look.marker, markersize=_SIZE, markerfacecolor="white"
            )
            hollow |= bool(seen.any())
        rate = report.rate(row, t)
        if np.isfinite(rate.value) and kept.all():
            _draw_line(axes, counts, values, rate.value, look)
        label = f"{_NAMES[row.key]}: {_slope(rate.value, rate.low, rate.high)}"
        entries.append(Line2D([], [], color=look.color, marker=look.marker, markersize=_SIZE, linestyle=look.dashes, label=label))
    if hollow:
        entries.append(
            Line2D([], [], color="0.3", linestyle="", marker="o", markerfacecolor="white", markersize=_SIZE, label=_FROM_QUANTILES)
        )
    for guide in sorted({row.guide for row in rows}, reverse=True):
        entries += _draw_guide(axes, report, [row for row in rows if row.guide == guide], guide, t)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _finish(axes, entries, counts)


def _draw_errors(axes: Axes, counts: FloatArray, values: FloatArray, errors: FloatArray, look: RunStyle) -> None:
    axes.errorbar(counts, values, errors, color=look.color, marker=look.marker, markersize=_SIZE, linestyle="", elinewidth=1.0, capsize=2.0)


def _draw_line(axes: Axes, counts: FloatArray, values: FloatArray, slope: float, look: RunStyle) -> None:
    shift = float(np.mean(np.log(values) - slope * np.log(counts)))
    axes.plot(counts, np.exp(shift) * counts**slope, color=look.color, linestyle=look.dashes, linewidth=1.1)


def _draw_guide(axes: Axes, report: LimitReport, rows: list[Row], slope: float, t: int) -> list[Line2D]:
    """The expected slope through the first point of the highest row, moved up a little."""
    counts = np.array(report.limit.counts, dtype=float)
    first = max((float(_values(report, row, t)[0]) for row in rows), default=0.0)
    if not first > 0.0:
        return []
    power, dashes = (r"$N^{-1/2}$", _GUIDE) if slope == -0.5 else (f"$N^{{{slope:g}}}$", _OTHER_GUIDE)
    axes.plot(counts, 1.6 * first * (counts / counts[0]) ** slope, color="0.35", linestyle=dashes, linewidth=1.4)
    return [Line2D([], [], color="0.35", linestyle=dashes, linewidth=1.4, label=power)]


def _draw_fluctuation(axes: Axes, report: LimitReport, t: int) -> None:
    """√N times the spread of the loss gap, which tends to a constant, with the one of the central limit theorem."""
    counts, look = np.array(report.limit.counts, dtype=float), pick_style([row.key for row in ROWS].index("loss_spread"))
    values, ends = report.scaled_spread(t), report.scaled_spread_interval(t)
    errors = np.nan_to_num(np.stack([values - ends[:, 0], ends[:, 1] - values]).clip(0.0))
    _draw_errors(axes, counts, values, errors, look)
    entries = [Line2D([], [], color=look.color, marker=look.marker, markersize=_SIZE, linestyle="", label="measured, 95 %")]
    expected = float(report.theory["loss"][t])
    top = float(np.nanmax(ends, initial=float(np.max(values))))
    if np.isfinite(expected):
        axes.axhline(expected, color="0.35", linestyle=_GUIDE, linewidth=1.4)
        entries.append(Line2D([], [], color="0.35", linestyle=_GUIDE, linewidth=1.4, label=f"central limit: {expected:.4g}"))
        top = max(top, expected)
    axes.set_xscale("log")
    axes.set_ylim(0.0, 1.15 * top if top > 0.0 else 1.0)
    _finish(axes, entries, counts)


def _finish(axes: Axes, entries: list[Line2D], counts: FloatArray) -> None:
    axes.grid(color="0.9", linewidth=0.5)
    if len(counts) <= _FEW_COUNTS or counts[-1] < 100.0 * counts[0]:
        axes.xaxis.set_major_locator(FixedLocator(counts[spread_indices(len(counts), _FEW_COUNTS)].tolist()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(FixedLocator(counts.tolist()))
    else:
        axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50.0 * low else (1.0,)))
        axes.yaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(10.0, 10.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(handles=entries, loc="upper center", bbox_to_anchor=(0.5, -0.24), borderaxespad=0.0, handlelength=2.4, fontsize="small")


def _slope(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "no slope"
    text = f"slope {value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else "")
    return text.replace("-", "−")
