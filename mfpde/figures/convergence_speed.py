"""Figures of a study of convergence speed: the clusters' means, spreads and masses over time, and the clusters themselves."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mfpde.arrays import FloatArray
from mfpde.figures.style import (
    WIDTH,
    add_legend,
    add_remark,
    choose_time_scale,
    escape_text,
    pick_shades,
    pick_style,
    scale_time_axis,
    spread_indices,
    start_figure,
    write_number,
    write_symbol,
)
from mfpde.study.clusters import gather
from mfpde.study.convergence_speed import Speed, point_text
from mfpde.study.convergence_speed_text import SpeedReport

_MOST_RUNS, _MOST_CLUSTERS, _MOST_TIMES, _MOST_POINTS = 3, 4, 5, 3000
_AFTER = 1.4
_DEEP = 1e-7
_LAW = (0, (1, 1.2))
_GUIDE = (0, (5, 1.5, 1, 1.5))
_REACH = 4.0


def _rows(report: SpeedReport) -> tuple[Speed, ...]:
    return report.speeds[:_MOST_RUNS]


def _title(report: SpeedReport, what: str) -> str:
    return escape_text(f"{' '.join(report.title.split())}: {what}", 300)


def make_speed_figure(report: SpeedReport) -> Figure:
    """A row for each run: distances of the means with the linearised flow, spreads with the law of second order, and masses."""
    runs = _rows(report)
    figure = start_figure(_title(report, "means, spreads and masses of the clusters"), 0.9 + 2.9 * len(runs), WIDTH + 3.6)
    panels = figure.subplots(len(runs), 3, squeeze=False)
    for row, speed in zip(panels, runs, strict=True):
        _draw_distances(row[0], speed)
        _draw_spreads(row[1], speed)
        _draw_masses(row[2], speed)
        row[0].set_title(escape_text(speed.label), loc="left", fontweight="bold")
    if len(report.speeds) > len(runs):
        add_remark(panels[0][2], [f"{len(report.speeds) - len(runs)} more runs in study.json"])
    add_legend(figure, _meanings(report))
    return figure


def _meanings(report: SpeedReport) -> dict[str, Artist]:
    """What lines and markers are."""
    entries: dict[str, Artist] = {}
    for j, (alpha, atom) in enumerate(zip(report.speeds[0].teacher.alpha, report.speeds[0].teacher.atoms, strict=True)):
        look = pick_style(j)
        name = rf"cluster {j + 1}: $\alpha$ = {alpha:.3g}, $c$ = {point_text(atom)}"
        entries[name] = Line2D([], [], color=look.color, marker=look.marker, markersize=4.0, linestyle="")
    entries["linearised flow; law of second order"] = Line2D([], [], color="0.2", linestyle="-", linewidth=1.2)
    return entries


def _draw_distances(axes: Axes, speed: Speed) -> None:
    """|mean − c| on a logarithmic axis while means relax, the linearised flow from where it begins to hold, and its rates."""
    times, distances = speed.history.times, speed.history.distances(speed.teacher.atoms)
    end = _end_of_relaxation(speed)
    kept = times <= end
    held = np.any(speed.window, axis=1)
    handles = []
    for k, j in enumerate(speed.occupied):
        look, shown = pick_style(j), kept & (distances[:, j] > 0.0)
        axes.plot(times[shown], distances[shown, j], color=look.color, marker=look.marker, markersize=3.5, linestyle="")
        handles.append(Line2D([], [], color=look.color, marker=look.marker, markersize=3.5, label=_rate_label(speed, k)))
    if held.any():
        law_times, law = _linear_distances(speed, int(np.argmax(held)), float(times[kept][-1]))
        for k, j in enumerate(speed.occupied):
            axes.plot(law_times, law[:, k], color=pick_style(j).color, linestyle="-", linewidth=1.0)
    found = distances[kept][distances[kept] > 0.0]
    if len(found):
        axes.set_yscale("log")
        top = float(np.max(found))
        axes.set_ylim(max(_DEEP * top, 0.5 * float(np.min(found))), 40.0 * top)
    axes.set_xlabel("time $t$")
    axes.set_ylabel(r"$|\mathrm{mean}-c_j|$")
    axes.legend(handles=handles, loc="upper right", fontsize=7.5, handlelength=1.8)


def _rate_label(speed: Speed, k: int) -> str:
    """The measured rate and the eigenvalue of a cluster's own slowest mode."""
    if np.any(speed.outside):
        return "ends at the wall" if speed.outside[k] else "no rate: another one ends at the wall"
    mode = speed.flow.slowest(k)
    fit = speed.fits[mode]
    measured = f"rate {fit.value:.4g} ± {fit.half_width:.1g}" if fit.count else "rate not measured"
    return f"{measured}, eigenvalue {speed.flow.rates[mode]:.4g}"


def _end_of_relaxation(speed: Speed) -> float:
    ends = [fit.last for fit in speed.fits if fit.count]
    return _AFTER * max(ends) if ends else float(speed.history.times[-1])


def _linear_distances(speed: Speed, first: int, end: float) -> tuple[FloatArray, FloatArray]:
    """Distances of the means by the linearised flow from a saved time on: times (n,) and distances (n, K)."""
    times = np.linspace(speed.history.times[first], end, 400)
    decay = np.exp(-np.outer(times - times[0], speed.flow.rates))
    scaled = (speed.coordinates[first] * decay) @ speed.flow.modes.T
    shape = (len(times), len(speed.occupied), -1)
    means = scaled.reshape(shape) / np.sqrt(speed.flow.masses)[:, None] + speed.flow.base
    return times, np.asarray(np.linalg.norm(means - speed.teacher.atoms[list(speed.occupied)], axis=2))


def _draw_spreads(axes: Axes, speed: Speed) -> None:
    """Spreads and their law, on logarithmic axes, beside a line of slope −1/2."""
    times, spreads = speed.history.times, speed.history.spreads
    late = times > 0.0
    for k, j in enumerate(speed.occupied):
        look, kept, law = pick_style(j), late & (spreads[:, j] > 0.0), speed.spread_law[:, k]
        axes.plot(times[kept], spreads[kept, j], color=look.color, marker=look.marker, markersize=3.5, linestyle="")
        axes.plot(times[late], law[late], color=look.color, linestyle="-", linewidth=1.0)
    axes.set_xlabel("time $t$")
    axes.set_ylabel("spread (standard deviation)")
    shown = spreads[late][:, list(speed.occupied)]
    positive = shown[shown > 0.0]
    if not len(positive):
        axes.set_xlim(0.0, float(times[-1]) or 1.0)
        axes.text(0.5, 0.5, "no spread: single atoms", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([0.0])
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = float(np.min(positive)), float(np.max(positive))
    axes.set_ylim(0.3 * low, 3.0 * high)
    if not any(fit.count for fit in speed.spread_fits):
        return
    span = np.array([times[-1] / 30.0, times[-1]])
    guide = 1.6 * float(np.max(shown[-1])) * np.sqrt(span[-1] / span)
    axes.plot(span, guide, color="0.35", linestyle=_GUIDE, linewidth=1.2)
    axes.annotate(
        "$t^{-1/2}$", (float(np.sqrt(span.prod())), float(np.sqrt(guide.prod()))), (3.0, 4.0), textcoords="offset points", fontsize=8.0
    )


def _draw_masses(axes: Axes, speed: Speed) -> None:
    """Masses of the clusters, and as lines the teacher's weights."""
    times, masses = speed.history.times, speed.history.masses
    scale = choose_time_scale(times)
    for j, alpha in enumerate(speed.teacher.alpha):
        look = pick_style(j)
        axes.axhline(alpha, color=look.color, linestyle=look.dashes, linewidth=0.8)
        axes.plot(scale.place(times), masses[:, j], color=look.color, marker=look.marker, markersize=3.5, linestyle="")
    axes.set_xlabel(scale_time_axis(axes, scale))
    axes.set_ylim(0.0, 1.08 * max(float(np.max(masses)), float(np.max(speed.teacher.alpha))))
    axes.set_ylabel(r"mass of the cluster (lines: $\alpha_j$)")


def make_clusters_figure(report: SpeedReport) -> Figure:
    """The clusters at a few times: on a line the mass below θ in each, else the atoms or cells at the start and the end."""
    runs, line = _rows(report), report.speeds[0].teacher.atoms.shape[1] == 1
    columns = min(len(report.speeds[0].teacher.alpha), _MOST_CLUSTERS) if line else 2
    height, width = 0.7 + 2.6 * len(runs), WIDTH + 1.2 * (columns - 1)
    figure = start_figure(_title(report, "the student's clusters"), height, width, "constrained" if line else "compressed")
    panels = figure.subplots(len(runs), columns, squeeze=False)
    for row, speed in zip(panels, runs, strict=True):
        for k, axes in enumerate(row):
            if line:
                _draw_cluster(axes, speed, k)
            else:
                _draw_plane(axes, speed, (0, -1)[k])
        row[0].set_title(escape_text(speed.label), loc="left", fontweight="bold")
    if line and columns < len(report.speeds[0].teacher.alpha):
        add_remark(panels[0][-1], [f"{len(report.speeds[0].teacher.alpha) - columns} more clusters in study.json"])
    return figure


def _draw_cluster(axes: Axes, speed: Speed, cluster: int) -> None:
    """The mass below θ in a cluster at a few times, and the teacher's atom."""
    times, atom = speed.history.times, float(speed.teacher.atoms[cluster, 0])
    if cluster not in speed.occupied:
        axes.text(0.5, 0.5, "no mass at the end", ha="center", va="center", transform=axes.transAxes)
    moving = np.flatnonzero(times <= _end_of_relaxation(speed))
    chosen = np.unique([*moving[spread_indices(len(moving), _MOST_TIMES - 1)], len(times) - 1])
    spread = float(np.nan_to_num(speed.history.spreads[0, cluster]))
    farthest = float(np.max(np.nan_to_num(speed.history.distances(speed.teacher.atoms)[chosen, cluster])))
    reach = (_REACH * spread + farthest if spread > 0.0 else 2.5 * farthest) or 1.0
    for k, color in zip(chosen, pick_shades(len(chosen)), strict=True):
        found = gather(speed.stored.run.measures[k], speed.teacher.atoms, speed.teacher.even)
        own = found.owner == cluster
        order = np.argsort(found.points[own, 0], kind="stable")
        points, below = found.points[own, 0][order], np.cumsum(found.weights[own][order])
        if len(points):
            # from no mass at the left to all of it at the right, which shows a single atom as well
            points, below = np.concatenate([[min(atom - reach, points[0])], points]), np.concatenate([[0.0], below])
            points, below = np.append(points, max(atom + reach, points[-1])), np.append(below, below[-1])
        axes.step(points, below, where="post", color=color, linewidth=1.4, label=f"$t$ = {write_number(times[k])}")
    axes.axvline(atom, color="#D55E00", linestyle=_LAW, linewidth=1.2)
    axes.set_xlim(atom - reach, atom + reach)
    axes.locator_params(axis="x", nbins=6)
    axes.set_ylim(0.0, None)
    axes.set_xlabel(f"{write_symbol(speed.stored.domain.names[0])} (dotted: $c_{{{cluster + 1}}}$)")
    axes.set_ylabel("mass below it, in the cluster")
    axes.legend(loc="upper left", fontsize=7.0, handlelength=1.4)


def _draw_plane(axes: Axes, speed: Speed, place: int) -> None:
    """Atoms or cells with their mass as size, coloured by cluster, along the first two axes."""
    found = gather(speed.stored.run.measures[place], speed.teacher.atoms, speed.teacher.even)
    kept = np.sort(np.argsort(-found.weights, kind="stable")[:_MOST_POINTS])
    size = 20.0 * found.weights[kept] / np.max(found.weights) + 0.5
    for j, atom in enumerate(speed.teacher.atoms):
        look, own = pick_style(j), found.owner[kept] == j
        axes.scatter(found.points[kept][own, 0], found.points[kept][own, 1], size[own], color=look.color, linewidths=0.0, alpha=0.6)
        axes.plot(atom[0], atom[1], marker="o", color="black", markersize=9.0, markerfacecolor="none", markeredgewidth=0.8)
    domain = speed.stored.domain
    axes.set_xlim(domain.lower[0], domain.upper[0])
    axes.set_ylim(domain.lower[1], domain.upper[1])
    axes.set_aspect("equal")
    axes.set_xlabel(write_symbol(domain.names[0]))
    axes.set_ylabel(f"{write_symbol(domain.names[1])} (circles: the teacher)")
    axes.set_title(f"$t$ = {write_number(speed.history.times[place])}", loc="right")
