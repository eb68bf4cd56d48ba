"""Figures of a study of the stability of SGD: the stability diagram, escapes from a minimum."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mfpde.figures.style import DASHES, WIDTH, escape_text, pick_style, start_figure
from mfpde.sgd.escape import TwoMinima
from mfpde.sgd.line import critical_nonuniformity
from mfpde.study.sgd_plan import batch_of, diagram_points, examples, two_minima
from mfpde.study.sgd_text import SgdReport, band, inside, measured_growth

_DIVERGING = "RdBu_r"
_RANGE = 0.75
_MOST_LINES = 6


def make_diagram_figure(report: SgdReport) -> Figure:
    """Sharpness against non-uniformity: the stable region of each learning rate and batch, and how fast the mean square of runs grew."""
    part = report.plan.table.diagram
    assert part is not None
    rows, columns = len(part.learning_rates), len(part.batches)
    figure = start_figure(title_of(report, f"linear stability of SGD in mean square, n = {part.samples}"), 2.5 * rows + 3.4, WIDTH + 1.6)
    upper, lower = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[2.5 * rows + 0.4, 2.6])))
    panels = upper.subplots(rows, columns, squeeze=False)
    for i in range(rows):
        for j in range(columns):
            _draw_diagram(panels[i][j], report, i, j)
    norm = Normalize(-_RANGE, _RANGE)
    label = r"$\log_{10}$ of the growth of $E\theta^2$ a step, measured"
    upper.colorbar(ScalarMappable(norm, _DIVERGING), ax=panels.ravel().tolist(), label=label, extend="both", pad=0.02)
    words = r"grey: stable; crosses: runs outside their 95 % interval; dotted: $s = a\sqrt{n-1}$, the largest with all $a_i \geq 0$"
    upper.supxlabel(words, fontsize=8.0)
    summary, *others = lower.subplots(1, 3)
    _draw_edges(summary, report)
    for k, axes in enumerate(others):
        _draw_example(axes, report, k)
    return figure


def _draw_diagram(axes: Axes, report: SgdReport, i: int, j: int) -> None:
    """One learning rate and batch."""
    part = report.plan.table.diagram
    assert part is not None
    rate, batch = part.learning_rates[i], batch_of(part, part.batches[j], part.samples)
    top = float(diagram_points(part, rate, batch)[1][-1]) * (1.0 + 0.5 / (part.points - 0.5))
    line = np.linspace(1e-9, 2.0 / rate, 401)
    edge = np.minimum(critical_nonuniformity(line, rate, batch), 2.0 * top)
    axes.fill_between(line, 0.0, edge, color="0.9", linewidth=0.0)
    axes.plot(np.append(line, 2.0 / rate), np.append(edge, 0.0), color="black", linewidth=1.4)
    (run, good), grown = inside(report), measured_growth(report)[i, j]
    a, s = report.values["diagram_sharpness"][i, j], report.values["diagram_nonuniformity"][i, j]
    for kept, marker in ((run[i, j] & good[i, j], "o"), (run[i, j] & ~good[i, j], "X")):
        with np.errstate(divide="ignore"):
            colours = np.log10(grown[kept])
        axes.scatter(
            a[kept], s[kept], c=colours, cmap=_DIVERGING, vmin=-_RANGE, vmax=_RANGE, marker=marker, s=26.0, edgecolors="0.3", linewidths=0.5
        )
    axes.plot([0.0, 2.4 / rate], [0.0, 2.4 / rate * math.sqrt(part.samples - 1.0)], color="0.4", linestyle=DASHES[2], linewidth=0.9)
    axes.set_xlim(0.0, 2.4 / rate)
    axes.set_ylim(0.0, top)
    axes.set_title(f"$\\eta$ = {rate:g}, $B$ = {batch.size}" + (" (all)" if batch.whole else ""))
    if i == len(part.learning_rates) - 1:
        axes.set_xlabel("sharpness $a$")
    if j == 0:
        axes.set_ylabel("non-uniformity $s$")


def _draw_edges(axes: Axes, report: SgdReport) -> None:
    """The edges of stability of all learning rates (colours) and batches (dashes)."""
    part = report.plan.table.diagram
    assert part is not None
    tops = []
    for i, rate in enumerate(part.learning_rates):
        for j, size in enumerate(part.batches):
            batch = batch_of(part, size, part.samples)
            line = np.linspace(1e-9, 2.0 / rate * (1.0 - 1e-9), 401)
            edge = critical_nonuniformity(line, rate, batch)
            tops += [float(np.max(edge))] if np.isfinite(edge).all() else []
            label = f"$\\eta$ = {rate:g}, $B$ = {size}"
            look = {"color": pick_style(i).color, "linestyle": DASHES[j % len(DASHES)], "linewidth": 1.2, "label": label}
            axes.plot(line, edge, **look) if np.isfinite(edge).all() else axes.axvline(2.0 / rate, **look)
    axes.set_ylim(0.0, 1.9 * max(tops, default=1.0))
    axes.set_xlim(0.0, 2.1 / part.learning_rates[0])
    axes.set_xlabel("sharpness $a$")
    axes.set_ylabel("non-uniformity $s$")
    axes.set_title("edges of stability")
    axes.legend(
        fontsize=6.5, ncols=2, handlelength=2.6, columnspacing=1.0, loc="upper right", frameon=True, framealpha=1.0, edgecolor="none"
    )


def _draw_example(axes: Axes, report: SgdReport, k: int) -> None:
    """E|θ|² of a counterexample, exact and of runs."""
    example, steps = examples()[k], np.asarray(report.scales["example_step"])
    exact, measured = report.values["example_exact"][k], report.values["example_measured"][k]
    axes.axhline(1.0, color="0.6", linewidth=0.6)
    axes.plot(steps, exact, color=pick_style(0).color, label="recursion")
    axes.errorbar(
        steps, measured, 1.96 * report.values["example_error"][k], color=pick_style(1).color, linestyle="", marker=".", label="runs, 95 %"
    )
    plain_decades(axes.yaxis)
    axes.set_ylim(0.5 * float(np.min(exact)), 3.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel(r"$E|\theta|^2$")
    words = (r"$\lambda_{max}(\ldots) > 1$", r"$\eta s\,c^{1/2} > 1$")[k]
    axes.set_title(f"{words}, stable: $r$ = {example.exact:g}")
    axes.legend()


def make_escape_figure(report: SgdReport) -> Figure:
    """The functions, f along single runs, the law of leaving, and how likely it is for each learning rate."""
    part = report.plan.table.escape
    assert part is not None
    problem = two_minima(part)
    what = f"leaving 1, a = {2.0 * np.mean(problem.right):.3g}, s = {2.0 * np.std(problem.right):.3g}, from 1 − {part.distance:g}"
    figure = start_figure(title_of(report, what), 5.8, WIDTH + 3.2)
    panels = figure.subplots(2, 3)
    _draw_functions(panels[0][0], problem, len(part.left))
    shown = _most_telling(report)
    _draw_paths(panels[0][1], report, shown)
    _draw_leaving(panels[0][2], report, shown)
    _draw_chances(panels[1][0], report)
    _draw_times(panels[1][1], report)
    _draw_exponents(panels[1][2], report)
    handles, names = panels[0][1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), handlelength=3.0)
    return figure


def _most_telling(report: SgdReport) -> int:
    """The learning rate at which the batches differ most."""
    chances = report.values["escape_measured"][:, :, -1]
    mean = np.mean(report.values["escape_measured"], axis=2)
    return int(np.argmax(np.ptp(mean, axis=1) + np.ptp(chances, axis=1)))


def _draw_functions(axes: Axes, problem: TwoMinima, distinct: int) -> None:
    x = np.linspace(-0.6, 1.7, 801)
    values = problem.values(x)
    for k in range(min(distinct, _MOST_LINES)):
        look = pick_style(k + 1)
        axes.plot(x, values[:, k], color=look.color, linestyle=look.dashes, linewidth=1.2, label=f"$f_{{{k + 1}}}$")
    axes.plot(x, np.mean(values, axis=1), color=pick_style(0).color, linewidth=2.2, label="$f$")
    low, high = problem.right_interval
    axes.axvspan(low, min(high, 1.7), color="0.88", linewidth=0.0, label="quadratic")
    axes.set_xlabel("$x$")
    axes.set_ylim(-0.05, 1.3)
    axes.legend(loc="upper left", ncols=2)


def _draw_paths(axes: Axes, report: SgdReport, i: int) -> None:
    part = report.plan.table.escape
    assert part is not None
    steps = np.asarray(report.scales["escape_step"])
    for j, size in enumerate(part.batches):
        look, path = pick_style(j), np.maximum(report.values["escape_path"][i, j], 1e-40)
        axes.plot(steps, path, color=look.color, linestyle=look.dashes, linewidth=1.0, label=_batch_name(report, j, size))
    axes.set_yscale("log")
    axes.set_ylim(1e-30, 10.0)
    axes.set_xlabel("step")
    axes.set_ylabel("$f$ along one run")
    axes.set_title(f"$\\eta$ = {part.learning_rates[i]:g}")


def _batch_name(report: SgdReport, j: int, size: int) -> str:
    part = report.plan.table.escape
    assert part is not None
    whole = batch_of(part, size, len(two_minima(part).right)).whole
    return "GD" if whole else f"$B$ = {size}"


def _draw_leaving(axes: Axes, report: SgdReport, i: int) -> None:
    """The share of runs that have left by each step: predicted, and measured with its band."""
    part = report.plan.table.escape
    assert part is not None
    steps, width = np.asarray(report.scales["escape_step"]), band(part.runs)
    for j in range(len(part.batches)):
        look, measured = pick_style(j), report.values["escape_measured"][i, j]
        axes.fill_between(steps, np.maximum(measured - width, 0.0), np.minimum(measured + width, 1.0), color=look.color, alpha=0.25, lw=0.0)
        axes.plot(steps, report.values["escape_predicted"][i, j], color=look.color, linestyle=look.dashes, linewidth=1.3)
    axes.set_xlabel("step")
    axes.set_ylabel("share that has left")
    axes.set_title(f"$\\eta$ = {part.learning_rates[i]:g}: predicted, 95 % bands of runs")


def _draw_chances(axes: Axes, report: SgdReport) -> None:
    """The share that has left at last against the learning rate, and where the minimum gets unstable in mean square."""
    part = report.plan.table.escape
    assert part is not None
    rates = np.asarray(part.learning_rates)
    curvatures = 2.0 * two_minima(part).right
    for j, size in enumerate(part.batches):
        look, batch = pick_style(j), batch_of(part, size, len(curvatures))
        predicted, measured = report.values["escape_predicted"][:, j, -1], report.values["escape_measured"][:, j, -1]
        axes.plot(rates, predicted, color=look.color, linestyle=look.dashes, linewidth=1.2)
        axes.plot(rates, measured, color=look.color, marker=look.marker, markersize=4.0, linestyle="")
        critical = 2.0 * np.mean(curvatures) / (np.mean(curvatures) ** 2 + batch.factor * np.var(curvatures))
        axes.axvline(float(critical), color=look.color, linestyle=(0, (1, 1.6)), linewidth=0.9)
    axes.set_xlabel(r"learning rate $\eta$ (dotted: edge in mean square)")
    axes.set_ylabel(f"share that has left by step {part.steps}")
    axes.set_title("predicted (lines) and measured")


def _draw_times(axes: Axes, report: SgdReport) -> None:
    """The step by which half of the runs have left, where they have."""
    part = report.plan.table.escape
    assert part is not None
    rates = np.asarray(part.learning_rates)
    for j in range(len(part.batches)):
        look = pick_style(j)
        for name, line, marker in (("predicted", look.dashes, ""), ("measured", "", look.marker)):
            shares = report.values[f"escape_{name}"][:, j]
            some = shares[:, -1] >= 0.5
            halves = np.argmax(shares >= 0.5, axis=1)
            axes.plot(rates[some], halves[some], color=look.color, linestyle=line, marker=marker, markersize=4.0, linewidth=1.2)
    plain_decades(axes.yaxis)
    axes.set_xlim(rates[0], max(float(rates[-1]), float(rates[0]) + 1e-9))
    axes.set_xlabel(r"learning rate $\eta$")
    axes.set_ylabel("step by which half have left")
    axes.set_title("predicted (lines) and measured")


def _draw_exponents(axes: Axes, report: SgdReport) -> None:
    """κ against the learning rate: from a distance ε, runs leave with a chance like ε^κ."""
    part = report.plan.table.escape
    assert part is not None
    rates = np.asarray(part.learning_rates)
    for j in range(len(part.batches)):
        look, exponents = pick_style(j), report.values["escape_exponent"][:, j]
        some = np.isfinite(exponents)
        axes.plot(rates[some], exponents[some], color=look.color, linestyle=look.dashes, marker=look.marker, markersize=3.0, linewidth=1.2)
    axes.axhspan(-0.3, 2.0, color="0.92", linewidth=0.0)
    axes.set_ylim(-0.3, 8.0)
    axes.set_xlim(rates[0], max(float(rates[-1]), float(rates[0]) + 1e-9))
    axes.set_xlabel(r"learning rate $\eta$")
    axes.set_ylabel(r"$\kappa$")
    axes.set_title(r"chance to leave $\sim\varepsilon^\kappa$ (grey: edge passed)")


def plain_decades(axis: Any) -> None:
    """A logarithmic axis over few decades, with plain numbers; as it is where nothing drawn on it is positive."""
    low, high = axis.get_data_interval()
    if not (np.isfinite([low, high]).all() and high > 0.0):
        return
    axis.axes.set_yscale("log") if axis.axis_name == "y" else axis.axes.set_xscale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def title_of(report: SgdReport, what: str) -> str:
    """The title of the case and what is drawn."""
    words = " ".join(report.plan.case.table.title.split())
    return f"{escape_text(words, 300)}: {what}" if words else what[:1].upper() + what[1:]
