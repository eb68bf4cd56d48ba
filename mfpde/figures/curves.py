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
from matplotlib.ticker import FixedLocator, MaxNLocator

from mfpde.arrays import FloatArray
from mfpde.compare import Comparison, Pair
from mfpde.domain import Axis, Domain
from mfpde.figures.style import (
    RunStyle,
    TimeScale,
    add_legend,
    add_remark,
    choose_time_scale,
    escape_text,
    name_run,
    pick_shades,
    pick_style,
    scale_time_axis,
    scale_value_axis,
    set_coordinate_ticks,
    spread_indices,
    start_figure,
    write_number,
    write_symbol,
    write_title,
)
from mfpde.measure import Particles
from mfpde.storage import StoredRun

_DISSIPATION = r"dissipation $\int\rho\,|\nabla\,\delta E/\delta\rho|^2$"
_MOST_TRAJECTORIES = 60
_ROUNDING = 1e-13
_LAST_BIT = float(np.finfo(float).eps)
_BRANCHES = "branches/energy"
_FLOOR = "floor: the error that the method may have"
_DOTS = (0, (1, 2))


@dataclass(frozen=True, eq=False)
class _Curve:
    """A line with markers at some of its points, and a floor below which its values are not resolved."""

    label: str
    x: FloatArray
    y: FloatArray
    style: RunStyle
    marked: list[int]
    floor: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class _Part:
    """A panel of curves: their quantity, what to remark, and whether the values are sizes, to be seen from 0."""

    curves: list[_Curve]
    name: str
    remarks: tuple[str, ...] = ()
    sized: bool = False


def _curve_figure(title: str, parts: Sequence[_Part], times: FloatArray) -> Figure:
    """Panels above one another with one time axis and one legend."""
    figure = start_figure(title, 1.1 + 2.1 * len(parts))
    entries: dict[str, Artist] = {}
    scale = choose_time_scale(times)
    for k, part in enumerate(parts):
        axes = figure.add_subplot(len(parts), 1, k + 1)
        for name, handle in _draw_part(axes, part, scale).items():
            entries.setdefault(name, handle)
        label, last = scale_time_axis(axes, scale), k == len(parts) - 1
        axes.set_xlabel(label if last else "")
        axes.tick_params(labelbottom=last)
        entries |= _draw_floors(axes, part.curves, scale)
    add_legend(figure, entries)
    return figure


def _draw_part(axes: Axes, part: _Part, scale: TimeScale) -> dict[str, Artist]:
    """The curves of one panel, with its scale; returns the entries of the legend."""
    entries: dict[str, Artist] = {curve.label: _draw_curve(axes, curve, scale) for curve in part.curves}
    axes.set_ylabel(part.name)
    axes.grid(color="0.9", linewidth=0.5)
    values = np.concatenate([values for curve in part.curves for values in (curve.y, curve.floor) if values is not None])
    add_remark(axes, [*part.remarks, scale_value_axis(axes, values, part.sized)])
    return entries


def _draw_curve(axes: Axes, curve: _Curve, scale: TimeScale) -> Line2D:
    """The curve with its markers; the value at time 0 stands alone where its place is left of a break."""
    look, places = curve.style, scale.place(curve.x)
    marker: dict[str, Any] = {"marker": look.marker, "markersize": 4.5, "markerfacecolor": "white", "color": look.color}
    apart = places < scale.first if scale.logarithmic else np.zeros(len(places), dtype=bool)
    marked = np.isin(np.arange(len(places)), curve.marked)
    shown = np.isfinite(places) & ~apart
    axes.plot(places[apart], curve.y[apart], linestyle="none", **marker)
    every = np.flatnonzero(marked[shown]).tolist()
    (line,) = axes.plot(places[shown], curve.y[shown], linestyle=look.dashes, linewidth=look.width, markevery=every, **marker)
    return line


def _draw_floors(axes: Axes, curves: Sequence[_Curve], scale: TimeScale) -> dict[str, Artist]:
    """A shaded band below each floor, which reaches to the lower end of the axis; returns the entry of the legend."""
    bottom = axes.get_ylim()[0]
    floors = [curve for curve in curves if curve.floor is not None]
    drawn = [(scale.place(curve.x), curve.floor, curve.style.color) for curve in floors if curve.floor is not None]
    for places, values, color in drawn:
        axes.fill_between(places, bottom, np.maximum(values, bottom), color=color, alpha=0.13, linewidth=0.0)
        axes.plot(places, values, color=color, linestyle=_DOTS, linewidth=1.0)
    axes.set_ylim(bottom=bottom)
    whose = "" if len(floors) == len(curves) else f", for {', '.join(curve.label for curve in floors)}"
    return {_FLOOR + whose: Patch(facecolor="0.88", edgecolor="0.4", linestyle=":")} if drawn else {}


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
    """Energy, where some run lacks a term of it also the rest, and dissipation against time; None if none has a finite value."""
    whole = [_certified(run, k, "energy") for k, run in enumerate(runs)]
    losses = [_dissipation(run, k) for k, run in enumerate(runs)]
    without = [name_run(run) for run, (curve, _) in zip(runs, losses, strict=True) if curve is None and not _has_dissipation(run)]
    remarks = [f"not known with noise or minibatches: {', '.join(without)}"] * bool(without)
    remarks += ["values below round-off are not shown"] * any(cut for _, cut in losses)
    drawn = [curve for curve, _ in losses if curve is not None]
    parts = [
        _Part([curve for curve in whole if curve is not None], "energy $E$", _every_step(whole)),
        _partial_energies(runs, whole),
        _Part(drawn, _DISSIPATION, tuple(remarks), True),
    ]
    parts = [part for part in parts if part.curves]
    if not parts:
        return None
    return _curve_figure(write_title(runs[0], "energy and dissipation" if drawn else "energy"), parts, _saved_times(runs))


def _has_dissipation(run: StoredRun) -> bool:
    return bool(np.isfinite(run.run.certificate["dissipation"]).any())


def _dissipation(run: StoredRun, index: int) -> tuple[_Curve | None, bool]:
    """The dissipation, and whether its end is left out: what is 1e-16 of the largest, or would not change the last digit of the
    energy in the whole span of the run, is round-off."""
    curve = _certified(run, index, "dissipation")
    if curve is None:
        return None, False
    steps = run.run.certificate
    size = np.interp(curve.x, steps["time"], np.abs(steps["energy"]))
    resolved = (curve.y * float(steps["time"][-1]) > _LAST_BIT * size) & (curve.y > _LAST_BIT * float(np.max(curve.y)))
    end = int(np.max(np.flatnonzero(resolved), initial=-1)) + 1
    cut = end < len(curve.x) and bool((curve.y[end:] > 0.0).any())
    if not cut:
        return curve, False
    kept = replace(curve, x=curve.x[:end], y=curve.y[:end], marked=[k for k in curve.marked if k < end])
    return (kept if end else None), True


def _saved_times(runs: Sequence[StoredRun]) -> FloatArray:
    """All saved times, those where the certificates begin and end, and a tenth of the first one where steps are as early."""
    steps = [run.run.certificate["time"] for run in runs]
    times = np.unique(np.concatenate([*(run.run.times for run in runs), *(t[:1] for t in steps), *(t[-1:] for t in steps)]))
    first = float(np.min(times, initial=np.inf, where=times > 0.0))
    early = any(np.any((t > 0.0) & (t <= 0.1 * first)) for t in steps)
    return np.append(times, 0.1 * first) if early and choose_time_scale(times).logarithmic else times


def _partial_energies(runs: Sequence[StoredRun], whole: Sequence[_Curve | None]) -> _Part:
    """The energies at the saved times without the terms of which some run has no finite value; no curves if all runs have all."""
    left_out = sorted({name for run in runs for name, values in run.run.energy.items() if np.isinf(values).all() and len(values)})
    if not left_out and all(curve is not None for curve in whole):
        return _Part([], "")
    curves = [curve for k, run in enumerate(runs) if (curve := _partial_energy(run, k, left_out)) is not None]
    joined = () if left_out else ("at the saved times only, joined by straight lines",)
    name = f"energy without\n{', '.join(left_out)}".replace("_", " ") if left_out else "energy $E$"
    return _Part(curves, name, joined)


def _every_step(whole: Sequence[_Curve | None]) -> tuple[str, ...]:
    """A remark where only some runs know their energy at every step."""
    return ("at every step, of the runs that know it",) if any(c is None for c in whole) and any(c is not None for c in whole) else ()


def _partial_energy(run: StoredRun, index: int, left_out: Sequence[str]) -> _Curve | None:
    """The sum of the other terms at the saved times."""
    kept = [values for name, values in run.run.energy.items() if name not in left_out]
    if not kept or not len(run.run.times):
        return None
    return _curve(name_run(run), run.run.times, np.sum(kept, axis=0), pick_style(index), run.run.times)


# Distances.


def make_distance_figure(runs: Sequence[StoredRun], comparison: Comparison) -> Figure:
    """W₂ above; below, where they are known, the distance of the networks' functions, and where some term has a loss the relative loss
    gap. A single time is drawn as bars."""
    pairs = [(pair, _pair_style(runs, pair, k)) for k, pair in enumerate(comparison.pairs)]
    curves = [
        replace(_curve(escape_text(pair.label), pair.times, pair.distance, look, pair.times), floor=_positive(pair.floor))
        for pair, look in pairs
    ]
    parts = [_Part(curves, "distance $W_2$" if comparison.distance_name == "W2" else "sliced distance $SW_2$", (), True)]
    parts += _function_part(pairs)
    if comparison.terms:
        parts.append(_gap_part(pairs))
    times = np.unique(np.concatenate([pair.times for pair, _ in pairs]))
    title = f"distance to {comparison.reference}"
    if len(times) == 1:
        return _bar_figure(write_title(runs[0], f"{title} at t = {write_number(times[0])}"), parts)
    return _curve_figure(write_title(runs[0], title), [part for part in parts if _finite(part)], times)


def _function_part(pairs: Sequence[tuple[Pair, RunStyle]]) -> list[_Part]:
    """What the networks differ by as functions; nothing where that is not known."""
    known = [(pair, pair.function, look) for pair, look in pairs if pair.function is not None]
    every = np.concatenate([values for _, values, _ in known]) if known else np.empty(0)
    tiny = _ROUNDING * float(np.max(every, initial=0.0, where=np.isfinite(every)))
    curves = [
        _curve(escape_text(pair.label), pair.times, np.where(values < tiny, 0.0, values), look, pair.times) for pair, values, look in known
    ]
    remarks = ("distances in the last digits count as 0",) if bool(np.any((every < tiny) & (every > 0.0))) else ()
    return [_Part(curves, "network distance\n" + r"$\|f - f_\mathrm{ref}\|_{L^2(\mu)}$", remarks, True)] if curves else []


def _finite(part: _Part) -> bool:
    return any(np.isfinite(curve.y).any() for curve in part.curves)


def _positive(floor: FloatArray) -> FloatArray | None:
    """None for a method without a floor."""
    return floor if (floor > 0.0).any() else None


def _bar_figure(title: str, parts: Sequence[_Part]) -> Figure:
    """One panel for each quantity beside the others, with one bar and its number for each curve, which has a single point."""
    figure = start_figure(title, 1.3 + 0.34 * len(parts[0].curves))
    entries: dict[str, Artist] = {}
    for column, part in enumerate(parts):
        axes = figure.add_subplot(1, len(parts), column + 1)
        entries |= _draw_bars(axes, part.curves)
        labels = [curve.label for curve in part.curves] if column == 0 else [""] * len(part.curves)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0.0)
        axes.set_xlabel(part.name)
        add_remark(axes, part.remarks)
    add_legend(figure, entries)
    return figure


def _draw_bars(axes: Axes, curves: Sequence[_Curve]) -> dict[str, Artist]:
    """A bar and its number for each value, a dotted stroke at its floor; returns the entry of the legend."""
    values = [float(curve.y[0]) for curve in curves]
    floors = [float(curve.floor[0]) if curve.floor is not None else 0.0 for curve in curves]
    for k, (curve, value, floor) in enumerate(zip(curves, values, floors, strict=True)):
        length = value if np.isfinite(value) else 0.0
        axes.barh(k, length, height=0.5, color=curve.style.color, alpha=0.75)
        words = f"{value:.3g}" if np.isfinite(value) else "no ratio"
        axes.annotate(words, (max(length, floor), k), (4.0, 0.0), textcoords="offset points", va="center", fontsize=8.0)
        if floor > 0.0:
            axes.plot([floor, floor], [k - 0.38, k + 0.38], color="black", linestyle=_DOTS, linewidth=1.4)
    top = float(np.max([*np.nan_to_num(values), *floors]))
    axes.set_xlim(0.0, 1.3 * top or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(4) if top > 0.0 else FixedLocator([0.0]))
    stroke = Line2D([], [], color="black", linestyle=_DOTS, linewidth=1.4)
    return {_FLOOR: stroke} if any(floors) else {}


def _gap_part(pairs: Sequence[tuple[Pair, RunStyle]]) -> _Part:
    """Relative gaps, without those that are infinite; rounding errors count as 0."""
    gaps = [pair.relative_loss_gap for pair, _ in pairs]
    curves = [_curve(escape_text(p.label), p.times, _ratios(gap), look, p.times) for (p, look), gap in zip(pairs, gaps, strict=True)]
    every = np.concatenate(gaps)
    remarks = ["no ratio where the reference vanishes"] * bool(np.any(~np.isfinite(every)))
    remarks += [f"gaps below {_ROUNDING:g} count as 0"] * bool(np.any((every < _ROUNDING) & (every > 0.0)))
    name = "relative energy gap\n" + r"$|E - E_\mathrm{ref}|\,/\,|E_\mathrm{ref}|$"
    return _Part(curves, name, tuple(remarks), True)


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
    axes, scale = figure.add_subplot(), choose_time_scale(run.run.times)
    _draw_paths(axes, scale.place(run.run.times), paths, run.domain.axes[0])
    axes.set_xlabel(scale_time_axis(axes, scale))
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
