"""Figures of a study of regularised recovery: J − J* over time with the exact rates, and where the students are."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mfpde.arrays import FloatArray
from mfpde.figures.sgd import plain_decades
from mfpde.figures.style import WIDTH, escape_text, pick_style, start_figure
from mfpde.study.sparse_plan import SNAPSHOTS
from mfpde.study.sparse_text import SparseReport, atoms_of

_MOST_ROWS = 3
_FLOOR = 0.1


def make_excess_figure(report: SparseReport) -> Figure:
    """J − J* of all runs with the slope of the Hessian, clusters, and shares at the neurons of teacher and minimiser."""
    figure = start_figure(_title(report, "towards the exact sparse minimiser"), 3.1, WIDTH + 2.6)
    first, second, third = figure.subplots(1, 3)
    for i, strength in enumerate(report.plan.table.path_norm):
        look = pick_style(i)
        for j in range(report.plan.table.seeds):
            time, values = _course(report, i, j)
            label = f"$\\lambda$ = {strength:g}" if j == 0 else None
            style: dict[str, Any] = {"color": look.color, "linestyle": look.dashes, "linewidth": 1.1, "label": label}
            first.plot(time, values["excess"] / report.values["solution_value"][i], **style)
            second.plot(time, values["clusters"], **style)
            third.plot(time, 1.0 - values["solution_share"], **style)
        _draw_slope(first, report, i)
    first.set_yscale("log", nonpositive="mask")
    first.set_ylim(bottom=_FLOOR * report.plan.table.tolerance)
    first.set_ylabel("$(J - J^*)/J^*$")
    first.set_title("objective (grey: slowest rate)")
    plain_decades(second.yaxis)
    second.set_ylabel("clusters of active students")
    second.set_title("merging")
    third.set_yscale("log", nonpositive="mask")
    third.set_ylim(1e-9, 2.0)
    third.set_ylabel(r"share of $\Sigma|a||w|$")
    third.set_title(f"more than {math.degrees(report.plan.table.angle):.2g}° off the minimiser")
    for axes in (first, second, third):
        axes.set_xlabel("time $t$" if axes is first else "time $t$ (logarithmic)")
    for axes in (second, third):
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=0.0)
    handles, names = first.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), handlelength=3.0)
    return figure


def _course(report: SparseReport, i: int, j: int) -> tuple[FloatArray, dict[str, FloatArray]]:
    time = report.values["course_time"][i, j]
    some = np.isfinite(time)
    names = ("excess", "clusters", "solution_share")
    return time[some], {name: report.values[f"course_{name}"][i, j][some] for name in names}


def _draw_slope(axes: Axes, report: SparseReport, i: int) -> None:
    """The predicted decay beside the end of the first run."""
    rate = float(report.values["run_slowest"][i, 0])
    time, values = _course(report, i, 0)
    if not (math.isfinite(rate) and rate > 0.0 and values["excess"][-1] > 0.0):
        return
    last = values["excess"][-1] / report.values["solution_value"][i]
    line = np.array([max(0.0, time[-1] - math.log(1e6) / rate), time[-1]])
    axes.plot(line, 4.0 * last * np.exp(rate * (time[-1] - line)), color="0.45", linewidth=2.4, zorder=1.0)


def make_directions_figure(report: SparseReport) -> Figure:
    """The students' |a||w| against their direction at the start, on the way and at the end, for at most three λ."""
    rows = list(range(len(report.plan.table.path_norm)))[:_MOST_ROWS]
    plane = report.values["student_direction"].shape[-1] == 2
    what = "students at $|a||w|$ along $w$, cut at the frame"
    figure = start_figure(_title(report, what), 2.9 * len(rows) + 0.5, WIDTH + 1.4)
    panels = figure.subplots(len(rows), len(SNAPSHOTS), squeeze=False, subplot_kw={"aspect": "equal"})
    for i in rows:
        limits = _reach(report, i)
        for k, name in enumerate(SNAPSHOTS):
            axes = panels[i][k]
            _draw_directions(axes, report, i, k)
            axes.set_xlim(-limits, limits)
            axes.set_ylim(-limits, limits)
            time = f"{report.values['snapshot_time'][i, 0, k]:.3g}"
            axes.set_title(f"$\\lambda$ = {report.plan.table.path_norm[i]:g}, {name}, $t$ = {time}")
            axes.set_xlabel("first coordinate" if plane else "along the first two directions: first")
            axes.set_ylabel("second coordinate" if plane else "second")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def _reach(report: SparseReport, i: int) -> float:
    return 1.25 * max(1e-12, float(np.max(np.abs(report.plan.teacher.masses))), float(np.max(np.abs(atoms_of(report, i)[1]), initial=0.0)))


def _frame(report: SparseReport) -> FloatArray:
    """Two orthonormal directions (d, 2): the coordinates in the plane, else the teacher's leading ones."""
    teacher = report.plan.teacher
    if teacher.vectors.shape[1] == 2:
        return np.eye(2)
    return np.asarray(np.linalg.svd(teacher.directions)[2][:2].T)


def _draw_directions(axes: Axes, report: SparseReport, i: int, k: int) -> None:
    """|a||w|ŵ of each student (N times its mass, cut at the frame) as a dot on a ray; colours tell the sign of a."""
    frame, teacher = _frame(report), report.plan.teacher
    mass, direction = report.values["student_mass"][i, 0, k], report.values["student_direction"][i, 0, k]
    size = 0.97 * _reach(report, i)
    length = np.minimum(np.abs(mass) * len(mass), size)
    ends = length[:, None] * (direction @ frame)
    for sign, colour, name in ((1.0, "#0072B2", "students, $a > 0$"), (-1.0, "#D55E00", "students, $a < 0$")):
        some = np.sign(mass) == sign
        marker = "o" if sign > 0.0 else "s"
        axes.scatter(ends[some, 0], ends[some, 1], s=9.0, color=colour, marker=marker, alpha=0.75, linewidths=0.0, label=name, zorder=3.0)
    rays = np.stack([np.zeros_like(ends), ends], axis=1)
    for ray in rays:
        axes.plot(ray[:, 0], ray[:, 1], color="0.75", linewidth=0.5, zorder=1.0)
    points, weights = atoms_of(report, i)
    for vectors, sizes, marker, edge, name in (
        (teacher.directions, teacher.masses, "*", "black", "teacher"),
        (points, weights, "o", "#009E73", "minimiser"),
    ):
        at = np.abs(sizes)[:, None] * (vectors @ frame)
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": edge, "linewidths": 1.2, "zorder": 4.0}
        axes.scatter(at[:, 0], at[:, 1], s=70.0, marker=marker, label=name, **look)


def _title(report: SparseReport, what: str) -> str:
    words = " ".join(report.plan.case.table.title.split())
    return f"{escape_text(words, 300)}: {what}" if words else what[:1].upper() + what[1:]
