"""Figures of runs and comparisons: densities and particles, energies, distances, trajectories and network functions.

Colours are those of Okabe and Ito and of viridis; runs also differ in line style and marker, so that grey prints can be read.
Nothing is cut without a note in the figure, and equal data give equal files.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib import style as mpl_style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import Normalize, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, SymmetricalLogLocator

from mfpde.arrays import FloatArray, IntArray
from mfpde.compare import Comparison, Pair
from mfpde.domain import Axis, Domain, Grid
from mfpde.energy.features import HarmonicFeatures, InterpolatedFeatures
from mfpde.energy.network import TwoLayer
from mfpde.measure import Density, Measure, Particles
from mfpde.storage import StoredRun

FORMATS = ("png", "pdf", "svg")

_METADATA: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}}
_RC = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "figure.titlesize": 11.0,
    "axes.linewidth": 0.6,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 4),
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "mfpde",
}
_COLORS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS = "osD^vP"
_MAP = "viridis"
_DISSIPATION = r"dissipation $\int\rho\,|\nabla\,\delta E/\delta\rho|^2$"
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
    "|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
_SYMBOL = re.compile(rf"({_GREEK}|[A-Za-z])(?:_?(\d+)|_([a-z]))?")

_WIDTH = 6.8
_MOST_TIMES = 6
_MOST_MAPS = 4
_MOST_TRAJECTORIES = 200
_FEW_ATOMS = 20
_BARS = 60
_DECADE_SPREAD = 20.0
_LOG_DEPTH = 1e-16
_ROUNDING = 1e-13
_SPIKE = 12.0
_SPIKE_MAP = 150.0
_SAME_SCALE = 3.0


@dataclass(frozen=True)
class _Style:
    """How one run looks."""

    color: str
    dashes: Any
    marker: str
    width: float


@dataclass(frozen=True, eq=False)
class _Panel:
    """One or two axes at one time: a heading, the domain of these axes and each run's measure (None where it has none)."""

    heading: str
    domain: Domain
    measures: list[Measure | None]

    @property
    def densities(self) -> list[Density]:
        """The densities among the measures."""
        return [m for m in self.measures if isinstance(m, Density)]


@dataclass(frozen=True, eq=False)
class _Bars:
    """A piecewise constant density on the line: edges (n + 1,) and heights (n,)."""

    edges: FloatArray
    heights: FloatArray


@dataclass(frozen=True)
class _Scale:
    """The largest value drawn, the largest there is, and whether that stands far above the rest."""

    top: float
    peak: float
    spiky: bool = False

    @property
    def note(self) -> str:
        """What to say where the peak is cut off, else nothing."""
        return f"\npeak {self.peak:.3g}, cut at {self.top:.3g}" if self.top < self.peak else ""


@dataclass(frozen=True, eq=False)
class _Curve:
    """A line with markers at some of its points."""

    label: str
    x: FloatArray
    y: FloatArray
    style: _Style
    marked: list[int]


_Rows: TypeAlias = list[list[Axes]]
_Layout: TypeAlias = Literal["constrained", "compressed"]


def draw_comparison(
    runs: Sequence[StoredRun], comparison: Comparison | None, folder: Path, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write density, energy and (with a comparison) distance figures of runs of one problem to ``folder``; returns their paths.

    Raises ValueError for an unknown format, no runs or runs on different domains.
    """
    _check_formats(formats)
    if not runs:
        raise ValueError("a figure needs at least one run")
    if any(run.domain != runs[0].domain for run in runs):
        raise ValueError("the runs have different domains, so they cannot share a figure")
    runs = _distinct(runs)
    with _style():
        figures = {"density": _density_figure(runs), "energy": _energy_figure(runs)}
        if comparison is not None and comparison.pairs:
            figures["distance"] = _distance_figure(runs, comparison)
        return _save_all(figures, folder, formats)


def draw_run(run: StoredRun, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the density, energy and (particles on a line) trajectory figures of one run to ``folder``, named after its file.

    Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    stem = run.path.stem
    with _style():
        figures = {f"{stem}-density": _density_figure([run]), f"{stem}-energy": _energy_figure([run])}
        figures[f"{stem}-trajectories"] = _trajectory_figure(run)
        return _save_all(figures, folder, formats)


def draw_network(term: TwoLayer, runs: Sequence[StoredRun], folder: Path, formats: Sequence[str] = ("png",)) -> Path | None:
    """Write the network functions x ↦ ∫σ(x·θ)ρ_t(dθ) beside the teacher or data, for inputs on a line or circle.

    Returns the first path written, None for other inputs or runs without saved times. Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    runs = _distinct([run for run in runs if run.run.measures])
    line = _input_line(term, runs[0].domain) if runs else None
    if line is None:
        return None
    with _style():
        return _save_all({"network": _network_figure(term, line, runs)}, folder, formats)[0]


def _check_formats(formats: Sequence[str]) -> None:
    wrong = [name for name in formats if name not in FORMATS]
    if wrong or not formats:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {wrong[0] if wrong else 'none'!r}")


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's defaults with our sizes, whatever the user's own settings are, and those back afterwards."""
    with mpl_style.context(["default", _RC]):
        yield


def _save_all(figures: dict[str, Figure | None], folder: Path, formats: Sequence[str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [path for stem, figure in figures.items() if figure for path in _save(figure, folder / stem, formats)]


def _save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Lay out once, then write each format without the empty margins."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    box = figure.get_tightbbox().padded(0.06)
    paths = [stem.with_name(f"{stem.name}.{form}") for form in formats]
    for path, form in zip(paths, formats, strict=True):
        dpi = 150 if form == "png" else 300
        figure.savefig(path, format=form, dpi=dpi, metadata=_METADATA[form], bbox_inches=box)
    return paths


# Names and text.


def _plain(text: str, width: int = 60) -> str:
    """Text from a file as it stands: shortened, with no mathematics in it, never hidden from legends."""
    short = text if len(text) <= width else text[: width - 1] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def _name(run: StoredRun) -> str:
    return _plain(run.label or run.path.stem)


def _distinct(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs, with their files' names in labels that occur twice."""
    labels = [run.label for run in runs]
    twice = [labels.count(label) > 1 for label in labels]
    named = [run.attributes | {"label": f"{run.label} {run.path.stem}".strip()} for run in runs]
    return [replace(run, attributes=more) if again else run for run, more, again in zip(runs, named, twice, strict=True)]


def _symbol(name: str) -> str:
    """An axis name as mathematics where it looks like a symbol (theta_1), else as it stands."""
    found = _SYMBOL.fullmatch(name)
    if found is None:
        return _plain(name, 30)
    letter, number, suffix = found.groups()
    index = number or suffix
    return f"${letter if len(letter) == 1 else chr(92) + letter}{f'_{{{index}}}' if index else ''}$"


def _title(run: StoredRun, what: str) -> str:
    """The case's title and what is drawn."""
    title = " ".join(run.title.split())
    return _plain(f"{title}: {what}" if title else what[:1].upper() + what[1:], 300)


def _figure(title: str, height: float, width: float = _WIDTH, layout: _Layout = "constrained") -> Figure:
    """An empty figure with its title on as many lines as needed."""
    lines = textwrap.wrap(title, int(12.5 * width))
    figure = Figure(figsize=(width, height + 0.18 * (len(lines) - 1)), layout=layout)
    figure.suptitle("\n".join(lines))
    return figure


def _legend(figure: Figure, entries: dict[str, Artist]) -> None:
    """A legend below all panels, in as many columns as fit."""
    if not entries:
        return
    lengths, room = [len(name) + 9 for name in entries], 15.5 * figure.get_figwidth()
    columns = len(entries) if sum(lengths) <= room else max(1, int(room / max(lengths)))
    handles, names = list(entries.values()), list(entries)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=3.2, columnspacing=1.5)


def _remark(axes: Axes, notes: Sequence[str]) -> None:
    """Small print above the right end of a panel."""
    text = "; ".join(note for note in notes if note)
    axes.set_title(text, loc="right", fontsize=7.5, color="0.25")


# Looks and scales.


def _run_style(index: int) -> _Style:
    """The first run is a broad full line; later ones are thinner and broken, so that they show on top of it."""
    return _Style(
        _COLORS[index % len(_COLORS)],
        _DASHES[index % len(_DASHES)],
        _MARKERS[index % len(_MARKERS)],
        2.2 if index == 0 else 1.4,
    )


def _shades(count: int) -> FloatArray:
    """Colours (count, 4) from light to dark, light enough to differ and dark enough to see; a single one is dark."""
    shades: FloatArray = matplotlib.colormaps[_MAP](np.linspace(0.82 if count > 1 else 0.0, 0.0, count))
    return shades


def _spread(count: int, most: int) -> IntArray:
    """At most ``most`` of the indices below ``count``, evenly spread, with the first and the last."""
    picked: IntArray = np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(np.int64))
    return picked


def _time_axis(axes: Axes, times: FloatArray) -> str:
    """Scale the time axis: linear, or linear up to the first positive time and logarithmic after it. Returns its label."""
    earliest, last = float(np.min(times)), float(np.max(times))
    first = float(np.min(times, initial=np.inf, where=times > 0.0))
    if last < 50.0 * first:
        pad = 0.03 * (last - earliest) or 0.1 * last or 1.0
        axes.set_xlim(earliest - pad, last + pad)
        return "time $t$"
    axes.set_xscale("symlog", linthresh=first, linscale=0.6)
    axes.xaxis.set_minor_locator(SymmetricalLogLocator(base=10.0, linthresh=first, subs=list(range(2, 10))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
    axes.set_xlim(earliest - 0.05 * first, 1.15 * last)
    return f"time $t$ (linear up to {first:g})"


def _value_axis(axes: Axes, values: FloatArray, sized: bool) -> str:
    """Logarithmic for nonnegative values over more than a decade, else linear, from 0 on for sizes. Returns what is left out."""
    values = values[np.isfinite(values)]
    positive = values[values > 0.0]
    if not len(positive) or (values < 0.0).any() or positive.max() < _DECADE_SPREAD * positive.min():
        _room(axes, values, sized)
        return ""
    axes.set_yscale("log", nonpositive="mask")
    bottom = max(float(positive.min()), _LOG_DEPTH * float(positive.max()))
    axes.set_ylim(0.6 * bottom, 1.8 * float(positive.max()))
    hidden = int(np.sum(values < bottom))
    if not hidden:
        return ""
    return f"not shown: {hidden} value{'s' * (hidden > 1)} below {bottom:.0e}" if positive.min() < bottom else "zero is not shown"


def _room(axes: Axes, values: FloatArray, sized: bool) -> None:
    """Linear limits that do not blow up the rounding errors of a constant; sizes begin at 0."""
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
    if sized and low >= 0.0:
        axes.set_ylim(0.0, 1.08 * high or 1.0)
        return
    size = max(abs(low), abs(high))
    pad = 0.06 * (high - low) if high - low > 1e-9 * size else 0.1 * size or 1.0
    axes.set_ylim(low - pad, high + pad)


def _coordinate_ticks(axes: Axes, which: str, axis: Axis, most: int) -> None:
    """Limits and ticks of one coordinate; a circle of length 2π that starts at 0 or −π has ticks at multiples of π/2."""
    getattr(axes, f"set_{which}lim")(axis.lower, axis.upper)
    target = axes.xaxis if which == "x" else axes.yaxis
    quarter = axis.lower / (0.5 * np.pi)
    if not (axis.periodic and np.isclose(axis.length, 2.0 * np.pi) and np.isclose(quarter, round(quarter))):
        target.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
        return
    first = round(quarter)
    names = {0: "0", 1: "π/2", 2: "π", 3: "3π/2", 4: "2π", -1: "−π/2", -2: "−π"}
    ticks = range(first, first + 5, 1 if most > 4 else 2)
    labels = [names.get(k, f"{k / 2:g}π") for k in ticks]
    target.set_ticks([0.5 * np.pi * k for k in ticks], labels)


# Densities.


def _density_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Small multiples in time in one or two dimensions, marginals at the last time in three; None without saved times."""
    runs = [run for run in runs if run.run.measures]
    if not runs:
        return None
    dimension = runs[0].domain.dimension
    times = _chosen_times(runs, _MOST_TIMES if dimension == 1 else _MOST_MAPS)
    if dimension == 1:
        return _line_figure(runs, [_panel(runs, float(t)) for t in times])
    if dimension == 2:
        return _map_figure(runs, [_panel(runs, float(t)) for t in times], _title(runs[0], "density"), True)
    title = _title(runs[0], f"marginal densities at t = {times[-1]:.4g}")
    return _map_figure(runs, _marginal_panels(runs, float(times[-1])), title, False)


def _chosen_times(runs: Sequence[StoredRun], most: int) -> FloatArray:
    """Some of the saved times that all runs have; of those that any run has, if they share none."""
    common = set(runs[0].run.times.tolist()).intersection(*(run.run.times.tolist() for run in runs))
    times = np.array(sorted(common or {t for run in runs for t in run.run.times.tolist()}))
    return times[_spread(len(times), most)]


def _measure_at(run: StoredRun, time: float) -> Measure | None:
    found = np.flatnonzero(run.run.times == time)
    return run.run.measures[int(found[0])] if len(found) else None


def _panel(runs: Sequence[StoredRun], time: float) -> _Panel:
    return _Panel(f"$t$ = {time:.4g}", runs[0].domain, [_measure_at(run, time) for run in runs])


def _marginal_panels(runs: Sequence[StoredRun], time: float) -> list[_Panel]:
    """One panel for each pair among the first three axes."""
    whole = _panel(runs, time)
    panels = []
    for pair in combinations(range(3), 2):
        measures = [None if m is None else _marginal(m, whole.domain, pair) for m in whole.measures]
        heading = ", ".join(_symbol(whole.domain.names[k]) for k in pair)
        panels.append(_Panel(f"({heading})", _subdomain(whole.domain, pair), measures))
    return panels


def _subdomain(domain: Domain, pair: tuple[int, ...]) -> Domain:
    return Domain(tuple(domain.axes[k] for k in pair))


def _marginal(measure: Measure, domain: Domain, pair: tuple[int, ...]) -> Measure:
    """The law of two coordinates, in increasing order."""
    if isinstance(measure, Particles):
        return Particles(measure.points[:, list(pair)], measure.weights)
    grid = measure.grid
    others = tuple(k for k in range(domain.dimension) if k not in pair)
    values = np.sum(np.reshape(measure.values, grid.cells), axis=others) * float(np.prod(grid.spacing[list(others)]))
    return Density(Grid(_subdomain(domain, pair), tuple(grid.cells[k] for k in pair)), values)


def _level(values: FloatArray, masses: FloatArray, share: float) -> float:
    """The value above which this share of the mass lies."""
    order = np.argsort(values)[::-1]
    reached = np.cumsum(masses[order])
    place = min(int(np.searchsorted(reached, share * reached[-1])), len(order) - 1)
    return float(values[order[place]])


def _scale(parts: Sequence[tuple[FloatArray, FloatArray]], limit: float) -> _Scale:
    """The scale of values with their masses: up to the peak, unless that is ``limit`` times what three quarters of a mass reach."""
    peaks, tops, spiky = [0.0], [0.0], False
    for values, masses in parts:
        peak = float(np.max(values, initial=0.0))
        typical = max(_level(values, masses, 0.75), 1e-6 * peak) if peak > 0.0 else 0.0
        peaks.append(peak)
        tops.append(peak if peak <= limit * typical else 0.5 * limit * typical)
        spiky |= peak > _SPIKE * typical
    return _Scale(max(tops) or 1.0, max(peaks) or 1.0, spiky)


def _shared(scales: Sequence[_Scale]) -> list[_Scale]:
    """One scale for all if they are similar and none is cut, else as they are."""
    top = max(scale.top for scale in scales)
    similar = top <= _SAME_SCALE * min(scale.top for scale in scales)
    if not similar or any(scale.spiky for scale in scales):
        return list(scales)
    return [_Scale(top, top)] * len(scales)


# Densities on a line.


def _line_figure(runs: Sequence[StoredRun], panels: Sequence[_Panel]) -> Figure:
    rows, columns = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2)}.get(len(panels), (2, 3))
    figure = _figure(_title(runs[0], "density"), 1.2 + 1.9 * rows + (0.6 if columns == 1 else 0.0), _WIDTH if columns > 1 else 5.0)
    bars = [[_bars(m, _bar_grid(panel)) for m in panel.measures] for panel in panels]
    scales = _shared([_scale([(b.heights, b.heights * np.diff(b.edges)) for b in row if b is not None], _SPIKE) for row in bars])
    together = len(set(scales)) == 1
    drawn = any(part is not None for row in bars for part in row)
    name = r"density $\rho$" if drawn else "weight (to scale)"
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        _draw_line_panel(axes, panel, bars[k], scales[k])
        _coordinate_ticks(axes, "x", panel.domain.axes[0], 6 if columns < 3 else 5)
        bottom, left = k + columns >= rows * columns or len(panels) < rows * columns, k % columns == 0
        axes.tick_params(labelbottom=bottom, labelleft=left or not together)
        axes.set_xlabel(_symbol(panel.domain.names[0]) if bottom else "")
        axes.set_ylabel(name if left else "")
        if not drawn:
            axes.set_yticks([])
    cloud = _first_cloud([run.run.final for run in runs])
    _legend(figure, dict(_line_entry(run, k, k == cloud) for k, run in enumerate(runs)))
    return figure


def _bar_grid(panel: _Panel) -> Grid:
    """The grid whose cells a histogram collects: the first density's."""
    return panel.densities[0].grid if panel.densities else Grid(panel.domain, (480,))


def _bars(measure: Measure | None, grid: Grid) -> _Bars | None:
    """A density as it is, particles as a histogram; None for a few particles."""
    if isinstance(measure, Density):
        return _Bars(measure.grid.edges(0), np.nan_to_num(np.ravel(measure.values), posinf=0.0))
    if measure is None or len(measure.weights) <= _FEW_ATOMS:
        return None
    return _histogram(measure, grid)


def _histogram(particles: Particles, grid: Grid) -> _Bars:
    """Bars of several cells each, about 60 over the middle 99 % of the particles, fewer for fewer particles."""
    points, weights = particles.points[:, 0], particles.weights
    low, high = np.quantile(points, [0.005, 0.995])
    wanted = float(np.clip(np.sqrt(len(points)), 10.0, _BARS))
    cells = max(1, round(float(high - low) / wanted / float(grid.spacing[0])))
    edges = np.union1d(grid.edges(0)[::cells], grid.edges(0)[-1:])
    mass, _ = np.histogram(points, bins=edges, weights=weights)
    return _Bars(edges, mass / np.diff(edges))


def _draw_line_panel(axes: Axes, panel: _Panel, bars: Sequence[_Bars | None], scale: _Scale) -> None:
    """The first histogram filled behind the densities, others as outlines before them."""
    cloud = _first_cloud(panel.measures)
    for k, (measure, part) in enumerate(zip(panel.measures, bars, strict=True)):
        style = _run_style(k)
        if part is None and isinstance(measure, Particles):
            _draw_atoms(axes, measure, style)
        elif part is not None and isinstance(measure, Density):
            _draw_density(axes, part, style)
        elif part is not None:
            _draw_histogram(axes, part, style, k == cloud)
    axes.set_ylim(0.0, 1.08 * scale.top)
    axes.set_title(panel.heading + scale.note)


def _draw_density(axes: Axes, bars: _Bars, style: _Style) -> None:
    """Cell averages as steps, as a line through the middles of cells that are too narrow to be seen."""
    look: dict[str, Any] = {"color": style.color, "linestyle": style.dashes, "linewidth": 0.75 * style.width, "zorder": 2.5}
    if len(bars.heights) < 100:
        axes.stairs(bars.heights, bars.edges, baseline=None, **look)
    else:
        axes.plot(0.5 * (bars.edges[1:] + bars.edges[:-1]), bars.heights, **look)


def _first_cloud(measures: Sequence[Measure | None]) -> int:
    """The index of the first particles among the measures, -1 without any."""
    return next((k for k, m in enumerate(measures) if isinstance(m, Particles)), -1)


def _draw_histogram(axes: Axes, bars: _Bars, style: _Style, filled: bool) -> None:
    """A filled histogram, or an outline in the run's line style."""
    look: dict[str, Any] = {"color": style.color, "linestyle": style.dashes, "linewidth": 1.1, "zorder": 3.0}
    if filled:
        axes.stairs(bars.heights, bars.edges, fill=True, color=style.color, alpha=0.28, linewidth=0.0, zorder=1.0)
        look |= {"linestyle": "-", "linewidth": 0.7, "zorder": 1.5}
    axes.stairs(bars.heights, bars.edges, baseline=None, **look)


def _draw_atoms(axes: Axes, particles: Particles, style: _Style) -> None:
    """A stem for each particle, as high as its weight, the heaviest to 0.8 of the panel."""
    heights = 0.8 * particles.weights / float(np.max(particles.weights))
    points = particles.points[:, 0]
    place = axes.get_xaxis_transform()
    axes.vlines(points, 0.0, heights, transform=place, color=style.color, linewidth=1.0)
    axes.plot(points, heights, style.marker, transform=place, color=style.color, markersize=4.0, clip_on=False)


def _line_entry(run: StoredRun, index: int, filled: bool) -> tuple[str, Artist]:
    """The legend's entry for a run on a line."""
    style, final = _run_style(index), run.run.final
    if isinstance(final, Density):
        return _name(run), Line2D([], [], color=style.color, linestyle=style.dashes, linewidth=0.75 * style.width)
    if len(final.weights) <= _FEW_ATOMS:
        stem = Line2D([], [], color=style.color, marker=style.marker, markersize=4.0, linewidth=1.0)
        return f"{_name(run)} (heights: weights)", stem
    if filled:
        return f"{_name(run)} (histogram)", Patch(facecolor=to_rgba(style.color, 0.28), edgecolor=style.color, linewidth=0.7)
    return f"{_name(run)} (histogram)", Line2D([], [], color=style.color, linestyle=style.dashes, linewidth=1.1)


# Densities in the plane.


def _map_figure(runs: Sequence[StoredRun], panels: Sequence[_Panel], title: str, timely: bool) -> Figure:
    """Columns are panels, rows are runs: densities as maps, particles as dots over outlines of the first density."""
    columns, rows = len(panels), len(runs)
    aspect, mapped = _aspect(panels), any(panel.densities for panel in panels)
    width = _WIDTH if columns > 1 else 3.6
    side = (width - 0.9) / columns - (0.1 if timely else 0.4)
    scales, entries = _shared([_scale([_valued(d) for d in panel.densities], _SPIKE_MAP) for panel in panels]), _map_entries(runs)
    small = 0.3 * bool(entries) + 0.16 * any(scale.spiky for scale in scales) + 0.16 * any(scale.note for scale in scales)
    figure = _figure(title, 1.0 + 0.8 * mapped + small + rows * (side * aspect + 0.15), width, "compressed")
    axes: _Rows = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    for k, panel in enumerate(panels):
        column = [row[k] for row in axes]
        meshes = [_draw_map_panel(column[row], panel, row, scales[k]) for row in range(rows)]
        column[0].set_title(panel.heading + scales[k].note)
        _name_axes(column, panel.domain, k > 0 and timely, aspect)
        _color_bar(figure, column, next((m for m in meshes if m is not None), None), scales[k], timely)
    for row, run in zip(axes, runs, strict=True):
        name = textwrap.wrap(_name(run), max(16, int(13 * side * aspect)))
        row[0].set_ylabel("\n".join([*name, row[0].get_ylabel()]))
    _legend(figure, entries)
    return figure


def _aspect(panels: Sequence[_Panel]) -> float:
    """Height over width of all panels: equal lengths look equal unless panels would differ or be very flat or tall."""
    ratios = {panel.domain.axes[1].length / panel.domain.axes[0].length for panel in panels}
    return min(ratios) if max(ratios) - min(ratios) < 1e-9 and 0.6 < min(ratios) < 1.6 else 1.0


def _valued(density: Density) -> tuple[FloatArray, FloatArray]:
    values = np.nan_to_num(np.ravel(density.values), posinf=0.0)
    return values, values * density.grid.cell_volume


def _draw_map_panel(axes: Axes, panel: _Panel, index: int, scale: _Scale) -> QuadMesh | None:
    """One run in one panel; returns what a colour bar needs."""
    measure = panel.measures[index]
    mesh = None
    if isinstance(measure, Density):
        grid, values = measure.grid, np.reshape(measure.values, measure.grid.cells).T
        mesh = axes.pcolormesh(grid.edges(0), grid.edges(1), values, cmap=_MAP, norm=_norm(scale), rasterized=True)
    elif measure is not None:
        _draw_outline(axes, panel)
        _draw_dots(axes, measure, _run_style(index))
    else:
        axes.text(0.5, 0.5, "not saved", transform=axes.transAxes, ha="center", va="center", color="0.4")
    _coordinate_ticks(axes, "x", panel.domain.axes[0], 4)
    _coordinate_ticks(axes, "y", panel.domain.axes[1], 4)
    return mesh


def _norm(scale: _Scale) -> Normalize:
    """Colours in proportion, or in proportion to the square root where a spike would leave the rest dark."""
    return PowerNorm(0.5, 0.0, scale.top) if scale.spiky else Normalize(0.0, scale.top)


def _draw_outline(axes: Axes, panel: _Panel) -> None:
    """Where the first density holds 90 % and 50 % of its mass."""
    if not panel.densities or min(panel.densities[0].grid.cells) < 2:
        return
    grid = panel.densities[0].grid
    values, masses = _valued(panel.densities[0])
    levels = [level for level in sorted({_level(values, masses, share) for share in (0.9, 0.5)}) if values.min() < level]
    if levels and levels[-1] < values.max():
        z = np.reshape(values, grid.cells).T
        axes.contour(grid.middles(0), grid.middles(1), z, levels=levels, colors="black", linewidths=0.7, zorder=3.0)


def _draw_dots(axes: Axes, particles: Particles, style: _Style) -> None:
    """Particles with areas as their weights."""
    count = len(particles.weights)
    sizes = np.clip(60.0 / np.sqrt(count), 0.3, 12.0) * particles.weights / float(np.mean(particles.weights))
    x, y = particles.points.T
    alpha = 0.9 if count <= 100 else 0.55
    axes.scatter(x, y, s=np.clip(sizes, 0.1, 60.0), color=style.color, alpha=alpha, linewidths=0.0, rasterized=count > 3000)


def _name_axes(column: Sequence[Axes], domain: Domain, inner: bool, aspect: float) -> None:
    """The shape of a column's panels; axis names and tick labels at the outer ones only."""
    for axes in column:
        axes.set_box_aspect(aspect)
        axes.tick_params(labelbottom=axes is column[-1], labelleft=not inner)
        axes.set_ylabel("" if inner else _symbol(domain.names[1]))
    column[-1].set_xlabel(_symbol(domain.names[0]))


def _color_bar(figure: Figure, column: list[Axes], mesh: QuadMesh | None, scale: _Scale, timely: bool) -> None:
    """A colour bar below a column."""
    if mesh is None:
        return
    extend = "max" if scale.note else "neither"
    bar = figure.colorbar(mesh, ax=column, location="bottom", extend=extend, aspect=14, shrink=0.95)
    bar.locator = MaxNLocator(3)
    bar.update_ticks()
    bar.set_label((r"density $\rho$" if timely else "marginal density") + "\n(square-root scale)" * scale.spiky)


def _map_entries(runs: Sequence[StoredRun]) -> dict[str, Artist]:
    """The legend of the outlines, where there are any."""
    first = next((run for run in runs if isinstance(run.run.final, Density)), None)
    if first is None or not any(isinstance(run.run.final, Particles) for run in runs):
        return {}
    return {f"regions with 50 % and 90 % of the mass of {_name(first)}": Line2D([], [], color="black", linewidth=0.7)}


# Curves in time.


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
    figure = _figure(title, 1.1 + 2.1 * len(parts))
    entries: dict[str, Artist] = {}
    for k, part in enumerate(parts):
        axes = figure.add_subplot(len(parts), 1, k + 1)
        for name, handle in _draw_part(axes, part).items():
            entries.setdefault(name, handle)
        label, last = _time_axis(axes, times), k == len(parts) - 1
        axes.set_xlabel(label if last else "")
        axes.tick_params(labelbottom=last)
        entries |= _draw_floors(axes, part.floors)
    _legend(figure, entries)
    return figure


def _draw_part(axes: Axes, part: _Part) -> dict[str, Artist]:
    """The curves of one panel, with its scale; returns the entries of the legend."""
    entries: dict[str, Artist] = {curve.label: _draw_curve(axes, curve) for curve in part.curves}
    axes.set_ylabel(part.name)
    axes.grid(color="0.9", linewidth=0.5)
    floors = [values for _, values, _ in part.floors]
    values = np.concatenate([*(curve.y for curve in part.curves), *floors])
    _remark(axes, [*part.remarks, _value_axis(axes, values, part.sized)])
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
    """A column of the step certificates, marked at the saved times; None if it has no finite value."""
    times, values = run.run.certificate["time"], run.run.certificate[name]
    finite = np.isfinite(values)
    if not finite.any():
        return None
    return _curve(_name(run), times[finite], values[finite], _run_style(index), run.run.times)


def _curve(label: str, x: FloatArray, y: FloatArray, look: _Style, marks: FloatArray) -> _Curve:
    """A curve with at most a dozen markers at the points nearest to ``marks``."""
    chosen = marks[_spread(len(marks), 12)] if len(marks) else x[-1:]
    places = np.clip(np.searchsorted(x, chosen), 0, len(x) - 1)
    return _Curve(label, x, y, look, np.unique(places).tolist())


# Energies.


def _energy_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Energy and dissipation against time; None if neither has a finite value."""
    energies = _energy_curves(runs)
    losses = [_certified(run, k, "dissipation") for k, run in enumerate(runs)]
    drawn = [curve for curve in losses if curve is not None]
    without = [_name(run) for run, curve in zip(runs, losses, strict=True) if curve is None]
    remark = (f"not defined with noise: {', '.join(without)}",) if without else ()
    parts = [_Part(energies, "energy $E$"), _Part(drawn, _DISSIPATION, remark, (), True)]
    parts = [part for part in parts if part.curves]
    if not parts:
        return None
    return _curve_figure(_title(runs[0], "energy and dissipation" if drawn else "energy"), parts, _saved_times(runs))


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
    label = f"{_name(run)}, without {', '.join(left_out).replace('_', ' ')}" if left_out else _name(run)
    look = _run_style(index)
    look = replace(look, dashes=(0, (2, 2)), marker="x", width=1.0) if beside else look
    return [_curve(label, run.run.times, np.sum(kept, axis=0), look, run.run.times)]


# Distances.


def _distance_figure(runs: Sequence[StoredRun], comparison: Comparison) -> Figure:
    """W₂ above; below, where some term has a loss, the relative loss gap."""
    pairs = [(pair, _pair_style(runs, pair, k)) for k, pair in enumerate(comparison.pairs)]
    curves = [_curve(_plain(pair.label), pair.times, pair.distance, look, pair.times) for pair, look in pairs]
    floors = tuple((pair.times, pair.floor, look.color) for pair, look in pairs if (pair.floor > 0.0).any())
    parts = [_Part(curves, "distance $W_2$", (), floors, True)]
    if comparison.terms:
        parts.append(_gap_part(pairs))
    times = np.concatenate([pair.times for pair, _ in pairs])
    return _curve_figure(_title(runs[0], f"distance to {comparison.reference}"), parts, times)


def _gap_part(pairs: Sequence[tuple[Pair, _Style]]) -> _Part:
    """Relative gaps, without those that are infinite; rounding errors count as 0."""
    gaps = [pair.relative_loss_gap for pair, _ in pairs]
    curves = [_curve(_plain(p.label), p.times, _ratios(gap), look, p.times) for (p, look), gap in zip(pairs, gaps, strict=True)]
    every = np.concatenate(gaps)
    remarks = ["no ratio where the reference vanishes"] * bool(np.any(~np.isfinite(every)))
    remarks += [f"gaps below {_ROUNDING:g} count as 0"] * bool(np.any((every < _ROUNDING) & (every > 0.0)))
    name = "relative energy gap\n" + r"$|E - E_\mathrm{ref}|\,/\,|E_\mathrm{ref}|$"
    return _Part(curves, name, tuple(remarks), (), True)


def _ratios(gap: FloatArray) -> FloatArray:
    """Not a number where there is no ratio, 0 where there is only rounding."""
    return np.where(np.isfinite(gap), np.where(gap < _ROUNDING, 0.0, gap), np.nan)


def _pair_style(runs: Sequence[StoredRun], pair: Pair, index: int) -> _Style:
    """The look of the run with the pair's label."""
    labels = [run.label for run in runs]
    return _run_style(labels.index(pair.label) if pair.label in labels else index + 1)


# Trajectories.


def _trajectory_figure(run: StoredRun) -> Figure | None:
    """Particles on a line against time, light to dark by where they start; None for anything else."""
    clouds = [m for m in run.run.measures if isinstance(m, Particles)]
    if run.domain.dimension != 1 or len(clouds) < 2:
        return None
    paths = _paths(clouds, run.domain)
    count = len(clouds[0].weights)
    what = f"{len(paths)} of {count} particles" if len(paths) < count else f"{count} particle{'s' * (count > 1)}"
    figure = _figure(_title(run, f"trajectories ({run.label or run.path.stem})"), 3.6, 5.6)
    axes = figure.add_subplot()
    _draw_paths(axes, run.run.times, paths, run.domain.axes[0])
    axes.set_xlabel(_time_axis(axes, run.run.times))
    axes.set_ylabel(_symbol(run.domain.names[0]))
    _coordinate_ticks(axes, "y", run.domain.axes[0], 6)
    _remark(axes, [what, "straight lines between the saved times (grey)"])
    return figure


def _paths(clouds: Sequence[Particles], domain: Domain) -> FloatArray:
    """Positions (K, T) of some particles evenly spread in the order of their start, continued beyond the ends of a circle."""
    order = np.argsort(clouds[0].points[:, 0], kind="stable")
    chosen = order[_spread(len(order), _MOST_TRAJECTORIES)]
    points = np.stack([cloud.points[chosen] for cloud in clouds])
    steps = domain.displacement(points[:-1], points[1:])
    return np.asarray(np.concatenate([points[:1], points[0] + np.cumsum(steps, axis=0)])[:, :, 0].T)


def _draw_paths(axes: Axes, times: FloatArray, paths: FloatArray, axis: Axis) -> None:
    """Every path, and on a circle its copies shifted by whole turns, so that it enters where it has left."""
    first, last = (int(np.floor((end - axis.lower) / axis.length)) for end in (paths.min(), paths.max()))
    turns = range(first, last + 1) if axis.periodic else range(1)
    colors = _shades(len(paths))
    for turn in turns:
        lines = [np.column_stack([times, path - turn * axis.length]) for path in paths]
        axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.7))
    axes.update_datalim(np.column_stack([times[[0, -1]], [axis.lower, axis.upper]]))
    for time in times[_spread(len(times), 40)]:
        axes.axvline(float(time), color="0.85", linewidth=0.5, zorder=0.0)


# Networks.


@dataclass(frozen=True, eq=False)
class _InputLine:
    """Inputs (Q, D) along a line, their coordinate (Q,), its axis, and the data (coordinates and values) if there are any."""

    inputs: FloatArray
    place: FloatArray
    axis: Axis
    data: tuple[FloatArray, FloatArray] | None
    remark: str = ""


def _input_line(term: TwoLayer, domain: Domain) -> _InputLine | None:
    """Where to draw the network: the only input, the one beside the constant, or the unit circle; None if there is no such line."""
    if not isinstance(term.features, InterpolatedFeatures | HarmonicFeatures):
        return None
    width = term.features.parameters.vectors(np.zeros((1, domain.dimension))).shape[1]
    known = term.data[0] if term.data else getattr(term.features, "nodes", None)
    bias = known is not None and bool(np.all(known[:, -1] == 1.0))
    if width == 1 or (width == 2 and bias):
        return _straight(term, width)
    return _around(term) if width == 2 else None


def _straight(term: TwoLayer, width: int) -> _InputLine:
    """x in [-3, 3] or over the data, beside an input that is always 1 if there are two."""
    low, high, data = -3.0, 3.0, None
    if term.data is not None:
        data = (term.data[0][:, 0], term.data[1])
        low, high = float(np.min(data[0])), float(np.max(data[0]))
        pad = 0.03 * (high - low) or 1.0
        low, high = low - pad, high + pad
    place = np.linspace(low, high, 401)
    inputs = np.column_stack([place, np.ones((len(place), width - 1))])
    return _InputLine(inputs, place, Axis("x", low, high), data)


def _around(term: TwoLayer) -> _InputLine:
    """The unit circle; data are shown if they lie on it."""
    place = np.linspace(0.0, 2.0 * np.pi, 721)
    inputs = np.column_stack([np.cos(place), np.sin(place)])
    axis = Axis("alpha", 0.0, 2.0 * np.pi, periodic=True)
    if term.data is None:
        return _InputLine(inputs, place, axis, None)
    x, y = term.data
    on = np.abs(np.hypot(x[:, 0], x[:, 1]) - 1.0) < 1e-6
    angles = np.mod(np.arctan2(x[on, 1], x[on, 0]), 2.0 * np.pi)
    left = int(np.sum(~on))
    return _InputLine(inputs, place, axis, (angles, y[on]), f"{left} data off the unit circle not shown" if left else "")


def _network_figure(term: TwoLayer, line: _InputLine, runs: Sequence[StoredRun]) -> Figure:
    """One panel for each run, light to dark in time."""
    columns = 3 if len(runs) == 3 or len(runs) > 4 else min(len(runs), 2)
    rows = -(-len(runs) // columns)
    figure = _figure(_title(runs[0], "network function"), 1.2 + 2.2 * rows, _WIDTH if columns > 1 else 5.0)
    panels: _Rows = [list(row) for row in figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)]
    flat = [axes for row in panels for axes in row]
    entries: dict[str, Artist] = {}
    times = _chosen_times(runs, 5)
    for axes, run in zip(flat, runs, strict=False):
        entries |= _draw_truth(axes, term, line) | _draw_students(axes, term, line, run, times)
        axes.set_title(_name(run))
        _coordinate_ticks(axes, "x", line.axis, 5)
    _finish_network(panels, len(runs), line)
    _legend(figure, entries)
    return figure


def _finish_network(panels: _Rows, used: int, line: _InputLine) -> None:
    """Names at the outer panels; the unused one is removed."""
    name = r"input $x = (\cos\alpha, \sin\alpha)$: angle $\alpha$" if line.axis.periodic else "input $x$"
    flat = [axes for row in panels for axes in row]
    for axes in flat[used:]:
        axes.remove()
    for axes in flat[:used] if used < len(flat) else panels[-1]:
        axes.set_xlabel(name)
        axes.tick_params(labelbottom=True)
    for row in panels:
        row[0].set_ylabel("network and target")
    if line.remark:
        flat[0].text(0.02, 0.02, line.remark, transform=flat[0].transAxes, fontsize=7.5, color="0.25")


def _draw_truth(axes: Axes, term: TwoLayer, line: _InputLine) -> dict[str, Artist]:
    """The teacher as a broken line, the data as grey circles."""
    entries: dict[str, Artist] = {}
    if line.data is not None and len(line.data[0]):
        size = float(np.clip(300.0 / len(line.data[0]), 2.0, 16.0))
        entries["data"] = axes.scatter(*line.data, s=size, facecolors="none", edgecolors="0.55", linewidths=0.6)
    if term.teacher_at is not None:
        (entries["teacher"],) = axes.plot(
            line.place, term.teacher_at(line.inputs), color="black", dashes=(4, 2.5), linewidth=1.6, zorder=5.0
        )
    return entries


def _draw_students(axes: Axes, term: TwoLayer, line: _InputLine, run: StoredRun, times: FloatArray) -> dict[str, Artist]:
    """The network at these times, light to dark."""
    entries: dict[str, Artist] = {}
    shades = _shades(len(times))
    for k, time in enumerate(times.tolist()):
        shade, dashes = shades[k], _DASHES[(k + 1 - len(times)) % len(_DASHES)]
        measure = _measure_at(run, time)
        if measure is not None:
            (curve,) = axes.plot(line.place, term.student_at(measure, line.inputs), color=shade, linestyle=dashes, linewidth=1.4)
            entries[f"$t$ = {time:.4g}"] = curve
    return entries
