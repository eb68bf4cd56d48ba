"""The figure of a refinement: errors against the width with their fitted orders, and against the seconds that they cost."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mfpde.arrays import FloatArray
from mfpde.figures.style import WIDTH, RunStyle, add_remark, escape_text, pick_style, spread_indices, start_figure
from mfpde.study.refinement import NORMS, RefinementStudy

_MOST_TIMES = 3
NORM_NAMES = {
    "l1": r"$\|\rho-\rho_\mathrm{ref}\|_{L^1}$",
    "l2": r"$\|\rho-\rho_\mathrm{ref}\|_{L^2}$",
    "w2": r"$W_2(\rho,\rho_\mathrm{ref})$",
    "loss": r"$|E-E_\mathrm{ref}|$",
}
_FLOOR = (0, (1, 2.5))
_WIDTHS = {"h": "cell width $h$", "dt": r"time step $\Delta t$"}


def make_refinement_figure(study: RefinementStudy, title: str, solver: str) -> Figure | None:
    """One row of two panels for each of at most three times; None if there is no positive error."""
    drawn = [t for t in range(len(study.times)) if (study.error[:, t] > 0.0).any()]
    if not drawn:
        return None
    shown = [drawn[k] for k in spread_indices(len(drawn), _MOST_TIMES)]
    what = f"refinement of {solver} against {study.reference}"
    words = " ".join(title.split())
    figure = start_figure(
        escape_text(f"{words}: {what}" if words else what[:1].upper() + what[1:], 300), 0.5 + 2.7 * len(shown), WIDTH + 1.2
    )
    for row, t in enumerate(shown):
        left = figure.add_subplot(len(shown), 2, 2 * row + 1)
        right = figure.add_subplot(len(shown), 2, 2 * row + 2, sharey=left)
        entries = _draw_orders(left, study, t)
        _draw_work(right, study, t)
        right.legend(handles=entries, loc="upper left", bbox_to_anchor=(1.02, 1.02), borderaxespad=0.0, handlelength=2.6, labelspacing=0.9)
        _label(left, right, study, t, last=row == len(shown) - 1)
        omitted = len(study.times) - len(shown)
        add_remark(left, [f"t = {study.times[t]:g}", *([f"{omitted} more times in study.json"] if omitted and not row else [])])
        add_remark(right, ["± bounds the 95 % interval"] if np.isfinite(study.interval[:, t]).any() else [])
    return figure


def _draw_orders(axes: Axes, study: RefinementStudy, t: int) -> list[Line2D]:
    """Errors with their fitted laws; hollow where an error is not resolved. Returns the entries of the legend."""
    entries, floors = [], False
    for k, norm in enumerate(study.norms):
        error, used, look = study.error[k, t], study.used[k, t], pick_style(NORMS.index(norm))
        if not (error > 0.0).any():
            continue
        _draw_points(axes, study.width, error, used, look)
        fit = study.fits[k][t]
        if np.isfinite(fit.value):
            widths = np.geomspace(study.width[used].min(), study.width[used].max(), 100)
            axes.plot(widths, fit.error(widths), color=look.color, linestyle=look.dashes, linewidth=1.2)
        style = {"color": look.color, "linestyle": look.dashes, "marker": look.marker, "markersize": 5.0}
        entries.append(Line2D([], [], label=f"{NORM_NAMES[norm]}\n{order_label(study, k, t)}", **style))
        floors |= _draw_floor(axes, study, k, t, look)
    if floors:
        entries.append(Line2D([], [], color="0.3", linestyle=_FLOOR, linewidth=1.0, label="floor of the method\nor of round-off"))
    if any((np.isfinite(study.error[k, t]) & ~study.used[k, t]).any() for k in range(len(study.norms))):
        entries.append(
            Line2D([], [], color="0.3", linestyle="", marker="o", markerfacecolor="white", label="not resolved,\nnot in the fit")
        )
    return entries


def _draw_points(axes: Axes, x: FloatArray, y: FloatArray, full: np.ndarray, look: RunStyle) -> None:
    """Markers, hollow where not ``full``; errors that are zero cannot be drawn."""
    for chosen, face in ((full & (y > 0.0), look.color), (~full & (y > 0.0), "white")):
        axes.plot(x[chosen], y[chosen], color=look.color, linestyle="", marker=look.marker, markersize=5.0, markerfacecolor=face)


def _draw_floor(axes: Axes, study: RefinementStudy, k: int, t: int, look: RunStyle) -> bool:
    """The floor of a norm where it matters: where some error does not reach above it. Returns whether it is drawn."""
    floor, error = study.floor[k, t], study.error[k, t]
    matters = bool((np.isfinite(error) & ~study.used[k, t]).any() and (floor > 0.0).any())
    if matters:
        axes.plot(study.width[floor > 0.0], floor[floor > 0.0], color=look.color, linestyle=_FLOOR, linewidth=1.0)
    return matters


def _draw_work(axes: Axes, study: RefinementStudy, t: int) -> None:
    """Errors against wall seconds, joined from run to run."""
    for k, norm in enumerate(study.norms):
        error, look = study.error[k, t], pick_style(NORMS.index(norm))
        found = (error > 0.0) & (study.wall_seconds > 0.0)
        axes.plot(study.wall_seconds[found], error[found], color=look.color, linestyle=look.dashes, linewidth=1.0)
        _draw_points(axes, study.wall_seconds, np.where(found, error, np.nan), study.used[k, t], look)


def order_label(study: RefinementStudy, k: int, t: int) -> str:
    """The fitted order with half of its interval."""
    fit = study.fits[k][t]
    if study.exact[k, t]:
        return "exact to round-off"
    if not np.isfinite(fit.value):
        return "no order"
    half = 0.5 * (fit.high - fit.low)
    if not (np.isfinite(half) and half > 0.0):
        return f"order {fit.value:.2f}"
    digits = int(np.clip(-np.floor(np.log10(half)), 1, 4))
    return f"order {fit.value:.{digits}f} ± {half:.{digits}f}"


def _spread_seconds(axes: Axes, seconds: FloatArray) -> None:
    """A decade or more, with the run times in the middle, and ticks that do not run into each other."""
    found = seconds[seconds > 0.0]
    if not len(found):
        return
    low, high = np.log10(found.min()) - 0.1, np.log10(found.max()) + 0.1
    middle, half = 0.5 * (low + high), max(0.5 * (high - low), 0.5)
    axes.set_xlim(10.0 ** (middle - half), 10.0 ** (middle + half))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if half <= 1.0 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label(left: Axes, right: Axes, study: RefinementStudy, t: int, last: bool) -> None:
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(color="0.9", linewidth=0.5)
    tick_widths(left, study.width[(study.error[:, t] > 0.0).any(axis=0)])
    _spread_seconds(right, study.wall_seconds)
    left.set_ylabel("error")
    right.tick_params(labelleft=False)
    if last:
        left.set_xlabel(_WIDTHS[study.variable])
        right.set_xlabel("wall time [s]")


def tick_widths(axes: Axes, widths: FloatArray) -> None:
    """Ticks at the widths themselves while they are few, else at decades."""
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(widths) > 8:
        axes.xaxis.set_major_locator(LogLocator())
        return
    axes.xaxis.set_ticks(widths)
    axes.xaxis.set_ticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
