"""Figures of a study of the stability of SGD: trained networks, fluctuations of particle runs."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mfpde.arrays import FloatArray
from mfpde.figures.sgd import plain_decades, title_of
from mfpde.figures.style import WIDTH, pick_shades, pick_style, start_figure
from mfpde.study.sgd_plan import batch_of, kept_steps
from mfpde.study.sgd_text import SgdReport

_MOST_LINES = 6


def make_training_figure(report: SgdReport) -> Figure:
    """Sharpness of the solutions against η with 2/η, sharpness against non-uniformity, r of SGD there, and the way there."""
    part = report.plan.table.training
    assert part is not None
    figure = start_figure(title_of(report, f"{part.width} {part.activation} neurons trained by SGD"), 5.8, WIDTH + 1.6)
    panels = figure.subplots(2, 2)
    _draw_sharpness(panels[0][0], report)
    _draw_plane(panels[0][1], report)
    _draw_rates(panels[1][0], report)
    _draw_course(panels[1][1], report)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _fitted(report: SgdReport, name: str, j: int) -> FloatArray:
    """A quantity of the solutions, (seeds, rates); nan for runs that do not fit."""
    kept = report.values["training_fitted"][j] == 1.0
    return np.where(kept, report.values[f"training_{name}"][j], np.nan)


def _draw_solutions(axes: Axes, report: SgdReport, name: str) -> None:
    """A quantity against the learning rate: every start a marker, their means a line."""
    part = report.plan.table.training
    assert part is not None
    rates = np.asarray(part.learning_rates)
    for j, size in enumerate(part.batches):
        look, values = pick_style(j), _fitted(report, name, j)
        for row in values:
            axes.plot(rates, row, color=look.color, marker=look.marker, markersize=3.0, linestyle="", alpha=0.6)
        some = np.isfinite(values).any(axis=0)
        means = np.array([np.mean(column[np.isfinite(column)]) for column in values[:, some].T])
        whole = batch_of(part, size, part.samples).whole
        axes.plot(rates[some], means, color=look.color, linestyle=look.dashes, linewidth=1.2, label="GD" if whole else f"$B$ = {size}")
    axes.set_xscale("log")
    axes.set_xticks(rates.tolist(), [f"{rate:g}" for rate in rates], fontsize=7.0)
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain_decades(axes.yaxis)
    axes.set_xlabel(r"learning rate $\eta$")


def _draw_sharpness(axes: Axes, report: SgdReport) -> None:
    _draw_solutions(axes, report, "sharpness")
    part = report.plan.table.training
    assert part is not None
    line = np.geomspace(part.learning_rates[0], part.learning_rates[-1], 50)
    axes.plot(line, 2.0 / line, color="0.4", linewidth=1.6, label=r"$2/\eta$")
    axes.set_ylabel("sharpness $a$")
    axes.set_title("solutions from the same starts")


def _draw_plane(axes: Axes, report: SgdReport) -> None:
    """Sharpness against non-uniformity of all solutions."""
    part = report.plan.table.training
    assert part is not None
    for j in range(len(part.batches)):
        look = pick_style(j)
        a, s = _fitted(report, "sharpness", j).ravel(), _fitted(report, "nonuniformity", j).ravel()
        axes.plot(a, s, color=look.color, marker=look.marker, markersize=3.5, linestyle="", alpha=0.7)
    plain_decades(axes.xaxis)
    plain_decades(axes.yaxis)
    axes.set_xlabel("sharpness $a$")
    axes.set_ylabel("non-uniformity $s$")
    axes.set_title("non-uniformity goes with sharpness")


def _draw_rates(axes: Axes, report: SgdReport) -> None:
    """The largest stable learning rate of every solution over the one it was found with."""
    _draw_solutions(axes, report, "critical_rate")
    part = report.plan.table.training
    assert part is not None
    line = np.geomspace(part.learning_rates[0], part.learning_rates[-1], 50)
    axes.plot(line, line, color="0.4", linewidth=1.6)
    axes.set_ylabel(r"largest stable $\eta$ of the solution")
    axes.set_title(r"stable in mean square above the line, the $\eta$ of training")


def _draw_course(axes: Axes, report: SgdReport) -> None:
    """Sharpness over the steps of the first start by gradient descent, or by the largest batches, with 2/η."""
    part = report.plan.table.training
    assert part is not None
    steps, j = np.asarray(report.scales["moment"], dtype=float), len(part.batches) - 1
    picked = np.unique(np.round(np.linspace(0, len(part.learning_rates) - 1, min(_MOST_LINES, len(part.learning_rates)))).astype(int))
    for colour, r in zip(pick_shades(len(picked)), picked, strict=True):
        rate, course = part.learning_rates[r], report.values["course_sharpness"][j, 0, r]
        axes.plot(np.maximum(steps, 0.5), course, color=colour, linewidth=1.3, label=f"$\\eta$ = {rate:g}")
        if report.values["training_diverged"][j, 0, r] == 0.0:
            axes.axhline(2.0 / rate, color=colour, linestyle=(0, (1, 1.6)), linewidth=0.9)
    axes.set_xscale("log")
    plain_decades(axes.yaxis)
    axes.set_xlabel("step")
    axes.set_ylabel("sharpness")
    name = "GD" if batch_of(part, part.batches[j], part.samples).whole else f"$B$ = {part.batches[j]}"
    axes.set_title(f"{name} on its way, dotted: $2/\\eta$")
    axes.legend(fontsize=7.0, ncols=2)


def make_particles_figure(report: SgdReport) -> Figure:
    """The deviation of the loss over time for each N, predicted and measured, with the time step kept and with the learning rate kept."""
    part = report.plan.table.particles
    assert part is not None
    figure = start_figure(title_of(report, f"noise of SGD in the mean-field limit, $B$ = {part.batch}"), 3.4, WIDTH + 1.6)
    panels = figure.subplots(1, 3)
    for k, words in enumerate((f"$\\tau = \\alpha/N$ = {part.time_step:g} kept", f"$\\alpha$ = {part.time_step * part.counts[0]:g} kept")):
        _draw_deviations(panels[k], report, k)
        panels[k].set_title(words)
    if all(panel.get_yscale() == "log" for panel in panels[:2]):
        limits = [panel.get_ylim() for panel in panels[:2]]
        for panel in panels[:2]:
            panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    panels[0].set_ylabel("deviation of the loss")
    _draw_scaling(panels[2], report)
    return figure


def _errors(report: SgdReport, k: int, i: int) -> tuple[FloatArray, Any]:
    """Measured deviations over time, with the lengths of the bars below and above."""
    middle, low, high = (np.sqrt(report.values[f"particle_{name}"][k, i]) for name in ("variance", "low", "high"))
    return middle, np.array([middle - low, high - middle])


def _draw_deviations(axes: Axes, report: SgdReport, k: int) -> None:
    part = report.plan.table.particles
    assert part is not None
    for i, count in enumerate(part.counts):
        look, (middle, bars) = pick_style(i), _errors(report, k, i)
        predicted = np.sqrt(report.values["particle_predicted"][k, i])
        axes.plot(part.times, predicted, color=look.color, linestyle=look.dashes, linewidth=1.2)
        axes.errorbar(part.times, middle, bars, color=look.color, marker=look.marker, markersize=3.5, linestyle="", label=f"$N$ = {count}")
    plain_decades(axes.yaxis)
    axes.margins(y=0.1)
    axes.set_xlabel("time $t$ (lines: predicted)")
    axes.legend()


def _draw_scaling(axes: Axes, report: SgdReport) -> None:
    """Measured over predicted against τc, at all times."""
    part = report.plan.table.particles
    assert part is not None
    factor = batch_of(part, part.batch, part.samples).factor
    for k, words in enumerate((r"$\tau$ kept", r"$\alpha$ kept")):
        look = pick_style(k)
        for i in range(len(part.counts)):
            middle, bars = _errors(report, k, i)
            root = np.sqrt(report.values["particle_predicted"][k, i])
            if not (root > 0.0).all():
                continue
            place = kept_steps(part)[k][i] * factor * (1.05 if k else 1.0 + 0.1 * (i - 1.0)) * np.linspace(0.98, 1.02, len(part.times))
            axes.errorbar(place, middle / root, bars / root, color=look.color, marker=look.marker, markersize=3.0, linestyle="", lw=0.8)
        axes.plot([], [], color=look.color, marker=look.marker, markersize=3.0, linestyle="", label=words)
    axes.axhline(1.0, color="0.5", linewidth=0.6)
    if axes.get_lines() and np.isfinite(axes.dataLim.get_points()).all():
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(r"$\tau c$")
    axes.set_title("deviation, measured/predicted")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))
    axes.legend()
