"""Figures of curves in time: energy and dissipation, distances and gaps, and trajectories of particles on a line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mfpde.arrays import FloatArray
from mfpde.compare import Comparison, Pair
from mfpde.domain import Axis, Domain
from mfpde.figures.style import (
    RunStyle,
    add_legend,
    add_remark,
    escape_text,
    name_run,
    pick_shades,
    pick_style,
    scale_time_axis,
    scale_value_axis,
    set_coordinate_ticks,
    spread_indices,
    start_figure,
    write_symbol,
    write_title,
)
from mfpde.measure import Particles
from mfpde.storage import StoredRun

_DISSIPATION = r"dissipation $\int\rho\,|\nabla\,\delta E/\delta\rho|^2$"
_MOST_TRAJECTORIES = 200
_ROUNDING = 1e-13
_BRANCHES = "branches/energy"


@dataclass(frozen=True, eq=False)
class _Curve:
    """A line with markers at some of its points."""

    label: str
    x: FloatArray
    y: FloatArray
    style: RunStyle
    marked: list[int]


@dataclass(frozen=True, eq=False)
class _Part:
    """A panel of curves: their quantity, what to remark, floors (times, values, colour) below which nothing is resolved, and
    whether the values are sizes, to be seen from 0."""

    curves: list[_Curve]
    name: str
    remarks: tuple[str, ...] = ()
    floors: tuple[tuple[FloatArray, FloatArray, str], ...] = ()
    sized: bool = False


def _curve_figure(title: str, parts: Sequence[_Part], times: FloatArray) -> Figure:
    """Panels above one another with one time axis and one legend."""
    figure = start_figure(title, 1.1 + 2.1 * len(parts))
    entries: dict[str, Artist] = {}
    for k, part in enumerate(parts):
        axes = figure.add_subplot(len(parts), 1, k + 1)
        for name, handle in _draw_part(axes, part).items():
            entries.setdefault(name, handle)
        label, last = scale_time_axis(axes, times), k == len(parts) - 1
        axes.set_xlabel(label if last else "")
        axes.tick_params(labelbottom=last)
        entries |= _draw_floors(axes, part.floors)
    add_legend(figure, entries)
    return figure


def _draw_part(axes: Axes, part: _Part) -> dict[str, Artist]:
    """The curves of one panel, with its scale; returns the entries of the legend."""
    entries: dict[str, Artist] = {curve.label: _draw_curve(axes, curve) for curve in part.curves}
    axes.set_ylabel(part.name)
    axes.grid(color="0.9", linewidth=0.5)
    floors = [values for _, values, _ in part.floors]
    values = np.concatenate([*(curve.y for curve in part.curves), *floors])
    add_remark(axes, [*part.remarks, scale_value_axis(axes, values, part.sized)])
    return entries


def _draw_curve(axes: Axes, curve: _Curve) -> Line2D:
    look = curve.style
    marker: dict[str, Any] = {"marker": look.marker, "markersize": 4.5, "markerfacecolor": "white", "markevery": curve.marked}
    (line,) = axes.plot(curve.x, curve.y, color=look.color, linestyle=look.dashes, linewidth=look.width, **marker)
    return line


def _draw_floors(axes: Axes, floors: Sequence[tuple[FloatArray, FloatArray, str]]) -> dict[str, Artist]:
    """A shaded band below each floor, which reaches to the lower end of the axis."""
    bottom = axes.get_ylim()[0]
    for times, values, color in floors:
        axes.fill_between(times, bottom, np.maximum(values, bottom), color=color, alpha=0.13, linewidth=0.0)
        axes.plot(times, values, color=color, linestyle=(0, (1, 2)), linewidth=1.0)
    axes.set_ylim(bottom=bottom)
    shade = Patch(facecolor="0.88", edgecolor="0.4", linestyle=":")
    return {"floor: the error that the method may have": shade} if floors else {}


def _certified(run: StoredRun, index: int, name: str) -> _Curve | None:
    """A column of the step certificates, marked at the saved times; None if it has no finite value. No line leads to a stationary
    state from its start, which is left out."""
    times, values = run.run.certificate["time"], run.run.certificate[name]
    finite = np.isfinite(values) & (times >= run.run.times[0] if _BRANCHES in run.run.tables else True)
    if not finite.any():
        return None
    return _curve(name_run(run), times[finite], values[finite], pick_style(index), run.run.times)


def _curve(label: str, x: FloatArray, y: FloatArray, look: RunStyle, marks: FloatArray) -> _Curve:
    """A curve with at most a dozen markers at the points nearest to ``marks``."""
    chosen = marks[spread_indices(len(marks), 12)] if len(marks) else x[-1:]
    places = np.clip(np.searchsorted(x, chosen), 0, len(x) - 1)
    return _Curve(label, x, y, look, np.unique(places).tolist())


# Energies.


def make_energy_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Energy and dissipation against time; None if neither has a finite value."""
    energies = _energy_curves(runs)
    losses = [_certified(run, k, "dissipation") for k, run in enumerate(runs)]
    drawn = [curve for curve in losses if curve is not None]
    without = [name_run(run) for run, curve in zip(runs, losses, strict=True) if curve is None]
    remark = (f"not defined with noise: {', '.join(without)}",) if without else ()
    parts = [_Part(energies, "energy $E$"), _Part(drawn, _DISSIPATION, remark, (), True)]
    parts = [part for part in parts if part.curves]
    if not parts:
        return None
    return _curve_figure(write_title(runs[0], "energy and dissipation" if drawn else "energy"), parts, _saved_times(runs))


def _saved_times(runs: Sequence[StoredRun]) -> FloatArray:
    """All saved times, and those where the certificates begin and end."""
    steps = [run.run.certificate["time"] for run in runs]
    return np.unique(np.concatenate([*(run.run.times for run in runs), *(t[:1] for t in steps), *(t[-1:] for t in steps)]))


def _energy_curves(runs: Sequence[StoredRun]) -> list[_Curve]:
    """The whole energy step by step, and for all runs without the terms that some run has no finite value of, if there are such."""
    left_out = sorted({name for run in runs for name, values in run.run.energy.items() if np.isinf(values).all() and len(values)})
    whole = [_certified(run, k, "energy") for k, run in enumerate(runs)]
    partial = [(k, whole[k] is not None) for k in range(len(runs)) if left_out or whole[k] is None]
    partial.sort(key=lambda item: item[1])
    parts = [curve for k, beside in partial for curve in _partial_energy(runs[k], k, left_out, beside)]
    return [*(curve for curve in whole if curve is not None), *parts]


def _partial_energy(run: StoredRun, index: int, left_out: Sequence[str], beside: bool) -> list[_Curve]:
    """The energy at the saved times without some terms; drawn faintly where the whole energy stands beside it."""
    kept = [values for name, values in run.run.energy.items() if name not in left_out]
    if not kept or not len(run.run.times):
        return []
    label = f"{name_run(run)}, without {', '.join(left_out).replace('_', ' ')}" if left_out else name_run(run)
    look = pick_style(index)
    look = replace(look, dashes=(0, (2, 2)), marker="x", width=1.0) if beside else look
    return [_curve(label, run.run.times, np.sum(kept, axis=0), look, run.run.times)]


# Distances.


def make_distance_figure(runs: Sequence[StoredRun], comparison: Comparison) -> Figure:
    """W₂ above; below, where some term has a loss, the relative loss gap."""
    pairs = [(pair, _pair_style(runs, pair, k)) for k, pair in enumerate(comparison.pairs)]
    curves = [_curve(escape_text(pair.label), pair.times, pair.distance, look, pair.times) for pair, look in pairs]
    floors = tuple((pair.times, pair.floor, look.color) for pair, look in pairs if (pair.floor > 0.0).any())
    parts = [_Part(curves, "distance $W_2$", (), floors, True)]
    if comparison.terms:
        parts.append(_gap_part(pairs))
    times = np.concatenate([pair.times for pair, _ in pairs])
    return _curve_figure(write_title(runs[0], f"distance to {comparison.reference}"), parts, times)


def _gap_part(pairs: Sequence[tuple[Pair, RunStyle]]) -> _Part:
    """Relative gaps, without those that are infinite; rounding errors count as 0."""
    gaps = [pair.relative_loss_gap for pair, _ in pairs]
    curves = [_curve(escape_text(p.label), p.times, _ratios(gap), look, p.times) for (p, look), gap in zip(pairs, gaps, strict=True)]
    every = np.concatenate(gaps)
    remarks = ["no ratio where the reference vanishes"] * bool(np.any(~np.isfinite(every)))
    remarks += [f"gaps below {_ROUNDING:g} count as 0"] * bool(np.any((every < _ROUNDING) & (every > 0.0)))
    name = "relative energy gap\n" + r"$|E - E_\mathrm{ref}|\,/\,|E_\mathrm{ref}|$"
    return _Part(curves, name, tuple(remarks), (), True)


def _ratios(gap: FloatArray) -> FloatArray:
    """Not a number where there is no ratio, 0 where there is only rounding."""
    return np.where(np.isfinite(gap), np.where(gap < _ROUNDING, 0.0, gap), np.nan)


def _pair_style(runs: Sequence[StoredRun], pair: Pair, index: int) -> RunStyle:
    """The look of the run with the pair's label."""
    labels = [run.label for run in runs]
    return pick_style(labels.index(pair.label) if pair.label in labels else index + 1)


# Trajectories.


def make_trajectory_figure(run: StoredRun) -> Figure | None:
    """Particles on a line against time, light to dark by where they start; None for anything else."""
    clouds = [m for m in run.run.measures if isinstance(m, Particles)]
    if run.domain.dimension != 1 or len(clouds) < 2:
        return None
    paths = _paths(clouds, run.domain)
    count = len(clouds[0].weights)
    what = f"{len(paths)} of {count} particles" if len(paths) < count else f"{count} particle{'s' * (count > 1)}"
    figure = start_figure(write_title(run, f"trajectories ({run.label or run.path.stem})"), 3.6, 5.6)
    axes = figure.add_subplot()
    _draw_paths(axes, run.run.times, paths, run.domain.axes[0])
    axes.set_xlabel(scale_time_axis(axes, run.run.times))
    axes.set_ylabel(write_symbol(run.domain.names[0]))
    set_coordinate_ticks(axes, "y", run.domain.axes[0], 6)
    add_remark(axes, [what, "straight lines between the saved times (grey)"])
    return figure


def _paths(clouds: Sequence[Particles], domain: Domain) -> FloatArray:
    """Positions (K, T) of some particles evenly spread in the order of their start, continued beyond the ends of a circle."""
    order = np.argsort(clouds[0].points[:, 0], kind="stable")
    chosen = order[spread_indices(len(order), _MOST_TRAJECTORIES)]
    points = np.stack([cloud.points[chosen] for cloud in clouds])
    steps = domain.displacement(points[:-1], points[1:])
    return np.asarray(np.concatenate([points[:1], points[0] + np.cumsum(steps, axis=0)])[:, :, 0].T)


def _draw_paths(axes: Axes, times: FloatArray, paths: FloatArray, axis: Axis) -> None:
    """Every path, and on a circle its copies shifted by whole turns, so that it enters where it has left."""
    first, last = (int(np.floor((end - axis.lower) / axis.length)) for end in (paths.min(), paths.max()))
    turns = range(first, last + 1) if axis.periodic else range(1)
    colors = pick_shades(len(paths))
    for turn in turns:
        lines = [np.column_stack([times, path - turn * axis.length]) for path in paths]
        axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.7))
    axes.update_datalim(np.column_stack([times[[0, -1]], [axis.lower, axis.upper]]))
    for time in times[spread_indices(len(times), 40)]:
        axes.axvline(float(time), color="0.85", linewidth=0.5, zorder=0.0)
