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
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib import style as mpl_style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, SymmetricalLogLocator

from mfpde.arrays import BoolArray, FloatArray, IntArray
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
    "axes.formatter.use_mathtext": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "mfpde",
}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#000000", "#CC79A7", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS = "osD^vP"
_MAP = "viridis"
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
    "|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
_SYMBOL = re.compile(rf"({_GREEK}|[A-Za-z])_?(\d*|[a-z])")

_WIDTH = 6.8
_MOST_TIMES = 6
_MOST_MAPS = 4
_MOST_TRAJECTORIES = 200
_FEW_ATOMS = 20
_BARS = 60
_DECADE_SPREAD = 20.0
_LOG_DEPTH = 1e-16
_SPIKE = 12.0
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
    """The largest value drawn and the largest there is."""

    top: float
    peak: float

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


_Grid: TypeAlias = list[list[Axes]]


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
    """Write the network functions x ↦ ∫σ(x·θ)ρ_t(dθ) beside the teacher or the data, where the inputs lie on a line or circle.

    Returns the first path written, None for other inputs or runs without saved times. Raises ValueError for an unknown format.
    """
    _check_formats(formats)
    runs = [run for run in runs if run.run.measures]
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
    return [_save(figure, folder / f"{stem}.{form}") for stem, figure in figures.items() if figure for form in formats]


def _save(figure: Figure, path: Path) -> Path:
    form = path.suffix[1:]
    figure.savefig(path, format=form, dpi=150 if form == "png" else 300, metadata=_METADATA[form])
    return path


# Names and text.


def _plain(text: str, width: int = 60) -> str:
    """Text from a file as it stands: shortened, with no mathematics in it, never hidden from legends."""
    short = text if len(text) <= width else text[: width - 1] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def _name(run: StoredRun) -> str:
    return _plain(run.label or run.path.stem)


def _symbol(name: str) -> str:
    """An axis name as mathematics where it looks like a symbol (theta_1), else as it stands."""
    found = _SYMBOL.fullmatch(name)
    if found is None:
        return _plain(name, 30)
    letter, index = found.groups()
    return f"${letter if len(letter) == 1 else chr(92) + letter}{f'_{{{index}}}' if index else ''}$"


def _title(run: StoredRun, what: str) -> str:
    """The case's title and what is drawn, on as many lines as needed."""
    title = " ".join(run.title.split())
    return _plain("\n".join(textwrap.wrap(f"{title}: {what}" if title else what[:1].upper() + what[1:], 85)), 400)


def _figure(title: str, height: float, width: float = _WIDTH, layout: str = "constrained") -> Figure:
    figure = Figure(figsize=(width, height + 0.18 * title.count("\n")), layout=layout)  # type: ignore[arg-type]
    figure.suptitle(title)
    return figure


def _legend(figure: Figure, entries: dict[str, Artist]) -> None:
    """A legend below all panels, in as many columns as fit."""
    if entries:
        columns = max(1, min(len(entries), int(105 / (max(map(len, entries)) + 9))))
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns, handlelength=3.2, columnspacing=1.5
        )


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


def _shade(position: float) -> Any:
    """From light (0) to dark (1), light enough to differ and dark enough to see."""
    return matplotlib.colormaps[_MAP](0.82 * (1.0 - position))


def _spread(count: int, most: int) -> IntArray:
    """At most ``most`` of the indices below ``count``, evenly spread, with the first and the last."""
    picked: IntArray = np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(np.int64))
    return picked


def _time_axis(axes: Axes, times: FloatArray) -> str:
    """Scale the time axis: linear, or linear up to the first positive time and logarithmic after it. Returns its label."""
    last = float(np.max(times, initial=0.0))
    positive = times[times > 0.0]
    if last == 0.0 or last < 50.0 * float(positive.min()):
        axes.margins(x=0.03)
        return "time $t$"
    first = float(positive.min())
    axes.set_xscale("symlog", linthresh=first, linscale=0.6)
    axes.xaxis.set_minor_locator(SymmetricalLogLocator(base=10.0, linthresh=first, subs=list(range(2, 10))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
    start = 0.0 if (times == 0.0).any() else first
    axes.set_xlim(start - 0.05 * first, 1.15 * last)
    return f"time $t$ (linear up to {first:g})"


def _value_axis(axes: Axes, values: FloatArray) -> str:
    """Logarithmic for nonnegative values over more than a decade, else linear. Returns a remark on what a log axis leaves out."""
    values = values[np.isfinite(values)]
    positive = values[values > 0.0]
    if not len(positive) or (values < 0.0).any() or positive.max() < _DECADE_SPREAD * positive.min():
        _room(axes, values)
        return ""
    axes.set_yscale("log", nonpositive="mask")
    bottom = max(float(positive.min()), _LOG_DEPTH * float(positive.max()))
    axes.set_ylim(0.6 * bottom, 1.8 * float(positive.max()))
    below = int(np.sum(positive < bottom))
    zeros = len(values) - len(positive)
    return "; ".join(
        [f"{zeros} zero value{'s' * (zeros > 1)} not shown"] * (zeros > 0) + [f"smaller than {bottom:.0e} not shown"] * (below > 0)
    )


def _room(axes: Axes, values: FloatArray) -> None:
    """Limits around the values that do not blow up rounding errors of a constant."""
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = 0.1 * max(abs(low), abs(high)) or 1.0
    else:
        pad = 0.06 * (high - low)
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


def _scale(parts: Sequence[tuple[FloatArray, FloatArray]]) -> _Scale:
    """The scale of values with their masses: up to the peak, unless that stands far above what three quarters of a mass reach."""
    peaks, tops = [0.0], [0.0]
    for values, masses in parts:
        peak = float(np.max(values, initial=0.0))
        typical = _level(values, masses, 0.75) if peak > 0.0 else 0.0
        peaks.append(peak)
        tops.append(peak if peak <= _SPIKE * typical else max(0.5 * _SPIKE * typical, 1e-6 * peak))
    return _Scale(max(tops) or 1.0, max(peaks) or 1.0)


def _shared(scales: Sequence[_Scale]) -> list[_Scale]:
    """One scale for all if they are similar and none is cut, else as they are."""
    top = max(scale.top for scale in scales)
    similar = top <= _SAME_SCALE * min(scale.top for scale in scales)
    if not similar or any(scale.note for scale in scales):
        return list(scales)
    return [_Scale(top, top)] * len(scales)


# Densities on a line.


def _line_figure(runs: Sequence[StoredRun], panels: Sequence[_Panel]) -> Figure:
    rows, columns = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2)}.get(len(panels), (2, 3))
    figure = _figure(_title(runs[0], "density"), 1.2 + 1.9 * rows + (0.6 if columns == 1 else 0.0), _WIDTH if columns > 1 else 5.0)
    bars = [[_bars(m, _bar_grid(panel)) for m in panel.measures] for panel in panels]
    scales = _shared([_scale([(b.heights, b.heights * np.diff(b.edges)) for b in row if b is not None]) for row in bars])
    together = len(set(scales)) == 1
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        _draw_line_panel(axes, panel, bars[k], scales[k])
        _coordinate_ticks(axes, "x", panel.domain.axes[0], 6 if columns < 3 else 5)
        below, left = k + columns < len(panels), k % columns > 0
        axes.tick_params(labelbottom=not below, labelleft=not (left and together))
        axes.set_xlabel("" if below else _symbol(panel.domain.names[0]))
        axes.set_ylabel("" if left else r"density $\rho$")
    _legend(figure, {label: handle for run, k in _numbered(runs) for label, handle in [_line_entry(run, k)]})
    return figure


def _numbered(runs: Sequence[StoredRun]) -> list[tuple[StoredRun, int]]:
    return [(run, k) for k, run in enumerate(runs)]


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
    """Histograms behind, densities before them."""
    ordered = sorted(range(len(bars)), key=lambda k: isinstance(panel.measures[k], Density))
    for k in ordered:
        measure, part, style = panel.measures[k], bars[k], _run_style(k)
        if part is None and isinstance(measure, Particles):
            _draw_atoms(axes, measure, style)
        elif part is not None and isinstance(measure, Density):
            axes.stairs(part.heights, part.edges, baseline=None, color=style.color, linestyle=style.dashes, linewidth=style.width)
        elif part is not None:
            axes.stairs(part.heights, part.edges, fill=True, color=style.color, alpha=0.28, linewidth=0.0)
            axes.stairs(part.heights, part.edges, baseline=None, color=style.color, linestyle=style.dashes, linewidth=0.8)
    axes.set_ylim(0.0, 1.08 * scale.top)
    axes.set_title(panel.heading + scale.note)


def _draw_atoms(axes: Axes, particles: Particles, style: _Style) -> None:
    """A stem for each particle, as high as its weight, the heaviest to 0.8 of the panel."""
    heights = 0.8 * particles.weights / float(np.max(particles.weights))
    points = particles.points[:, 0]
    place = axes.get_xaxis_transform()
    axes.vlines(points, 0.0, heights, transform=place, color=style.color, linewidth=1.0)
    axes.plot(points, heights, style.marker, transform=place, color=style.color, markersize=4.0, clip_on=False)


def _line_entry(run: StoredRun, index: int) -> tuple[str, Artist]:
    """The legend's entry for a run on a line."""
    style, final = _run_style(index), run.run.final
    if isinstance(final, Density):
        return _name(run), Line2D([], [], color=style.color, linestyle=style.dashes, linewidth=style.width)
    if len(final.weights) <= _FEW_ATOMS:
        stem = Line2D([], [], color=style.color, marker=style.marker, markersize=4.0, linewidth=1.0)
        return f"{_name(run)} (heights: weights)", stem
    patch = Patch(facecolor=to_rgba(style.color, 0.28), edgecolor=style.color, linestyle=style.dashes, linewidth=0.8)
    return f"{_name(run)} (histogram)", patch


# Densities in the plane.


def _map_figure(runs: Sequence[StoredRun], panels: Sequence[_Panel], title: str, timely: bool) -> Figure:
    """Columns are panels, rows are runs: densities as maps, particles as dots over outlines of the first density."""
    columns, rows = len(panels), len(runs)
    side = 5.6 / max(columns, 2)
    tall = [_aspect(panel.domain) for panel in panels]
    figure = _figure(title, 1.4 + rows * (side * max(tall) + 0.15), _WIDTH if columns > 1 else 4.5, "compressed")
    axes: _Grid = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    scales = _shared([_scale([_valued(density) for density in panel.densities]) for panel in panels])
    for k, panel in enumerate(panels):
        meshes = [_draw_map_panel(axes[row][k], panel, row, scales[k]) for row in range(rows)]
        axes[0][k].set_title(panel.heading + scales[k].note)
        _name_axes([row[k] for row in axes], panel.domain, k > 0 and timely)
        _color_bar(figure, [row[k] for row in axes], next((m for m in meshes if m is not None), None), timely)
    for row, run in zip(axes, runs, strict=True):
        row[0].set_ylabel("\n".join([*textwrap.wrap(_name(run), max(16, int(9 * side))), row[0].get_ylabel()]))
    _legend(figure, _map_entries(runs))
    return figure


def _aspect(domain: Domain) -> float:
    """Height over width of a panel: equal lengths look equal unless that would make it very flat or tall."""
    ratio = domain.axes[1].length / domain.axes[0].length
    return ratio if 0.6 < ratio < 1.6 else 1.0


def _valued(density: Density) -> tuple[FloatArray, FloatArray]:
    values = np.nan_to_num(np.ravel(density.values), posinf=0.0)
    return values, values * density.grid.cell_volume


def _draw_map_panel(axes: Axes, panel: _Panel, index: int, scale: _Scale) -> QuadMesh | None:
    """One run in one panel; returns what a colour bar needs."""
    measure = panel.measures[index]
    axes.set_box_aspect(_aspect(panel.domain))
    mesh = None
    if isinstance(measure, Density):
        grid, values = measure.grid, np.reshape(measure.values, measure.grid.cells).T
        mesh = axes.pcolormesh(grid.edges(0), grid.edges(1), values, cmap=_MAP, vmin=0.0, vmax=scale.top, rasterized=True)
    elif measure is not None:
        _draw_outline(axes, panel)
        _draw_dots(axes, measure, _run_style(index))
    else:
        axes.text(0.5, 0.5, "not saved", transform=axes.transAxes, ha="center", va="center", color="0.4")
    _coordinate_ticks(axes, "x", panel.domain.axes[0], 4)
    _coordinate_ticks(axes, "y", panel.domain.axes[1], 4)
    return mesh


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


def _name_axes(column: Sequence[Axes], domain: Domain, inner: bool) -> None:
    """Axis names and tick labels at the outer panels only."""
    for axes in column:
        axes.tick_params(labelbottom=axes is column[-1], labelleft=not inner)
        axes.set_ylabel("" if inner else _symbol(domain.names[1]))
    column[-1].set_xlabel(_symbol(domain.names[0]))


def _color_bar(figure: Figure, column: list[Axes], mesh: QuadMesh | None, timely: bool) -> None:
    """A colour bar below a column."""
    if mesh is None:
        return
    top = mesh.norm.vmax or 1.0
    cut = float(np.max(np.ma.getdata(mesh.get_array()))) > top
    bar = figure.colorbar(mesh, ax=column, location="bottom", extend="max" if cut else "neither", aspect=14, shrink=0.95)
    bar.locator = MaxNLocator(3)
    bar.update_ticks()
    bar.set_label(r"density $\rho$" if timely else "marginal density")


def _map_entries(runs: Sequence[StoredRun]) -> dict[str, Artist]:
    """The legend of the outlines, where there are any."""
    first = next((run for run in runs if isinstance(run.run.final, Density)), None)
    if first is None or not any(isinstance(run.run.final, Particles) for run in runs):
        return {}
    return {f"regions with 50 % and 90 % of the mass of {_name(first)}": Line2D([], [], color="black", linewidth=0.7)}


# Energies.


def _energy_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Energy and dissipation against time; None if neither has a finite value."""
    energies = _energy_curves(runs)
    losses = [_certified(run, k, "dissipation") for k, run in enumerate(runs)]
    without = [_name(run) for run, curve in zip(runs, losses, strict=True) if curve is None]
    drawn = [curve for curve in losses if curve is not None]
    parts = [(energies, "energy $E$", [])] * bool(energies)
    remark = [f"not defined with noise: {', '.join(without)}"] if without else []
    parts += [(drawn, r"dissipation $\int\rho\,|\nabla\,\delta E/\delta\rho|^2$", remark)] * bool(drawn)
    if not parts:
        return None
    figure = _figure(_title(runs[0], "energy and dissipation" if drawn else "energy"), 1.1 + 2.1 * len(parts))
    _draw_curve_panels(figure, parts, _saved_times(runs))
    return figure


def _saved_times(runs: Sequence[StoredRun]) -> FloatArray:
    return np.unique(np.concatenate([np.zeros(1), *(run.run.times for run in runs)]))


def _draw_curve_panels(figure: Figure, parts: Sequence[tuple[list[_Curve], str, list[str]]], times: FloatArray) -> None:
    """Panels above one another with one time axis, each with its curves, name and remarks."""
    entries: dict[str, Artist] = {}
    for k, (curves, name, remarks) in enumerate(parts):
        axes = figure.add_subplot(len(parts), 1, k + 1)
        entries |= {c.label: line for c, line in [(c, _draw_curve(axes, c)) for c in curves] if c.label not in entries}
        label = _time_axis(axes, times)
        last = k == len(parts) - 1
        axes.set_xlabel(label if last else "")
        axes.tick_params(labelbottom=last)
        axes.set_ylabel(name)
        axes.grid(color="0.9", linewidth=0.5)
        _remark(axes, [*remarks, _value_axis(axes, np.concatenate([c.y for c in curves]))])
    _legend(figure, entries)


def _draw_curve(axes: Axes, curve: _Curve) -> Line2D:
    look = curve.style
    (line,) = axes.plot(
        curve.x,
        curve.y,
        color=look.color,
        linestyle=look.dashes,
        linewidth=look.width,
        marker=look.marker,
        markersize=4.5,
        markerfacecolor="white",
        markeredgewidth=1.0,
        markevery=curve.marked,
    )
    return line


def _energy_curves(runs: Sequence[StoredRun]) -> list[_Curve]:
    """The whole energy step by step, and for all runs without the terms that some run has no finite value of, if there are such."""
    left_out = sorted({name for run in runs for name, values in run.run.energy.items() if not np.isfinite(values).any()})
    curves = []
    for k, run in enumerate(runs):
        whole = _certified(run, k, "energy")
        if whole is not None:
            curves.append(whole)
        if left_out or whole is None:
            curves += _partial_energy(run, k, left_out, whole is not None)
    return curves


def _partial_energy(run: StoredRun, index: int, left_out: Sequence[str], beside: bool) -> list[_Curve]:
    """The energy at the saved times without some terms; drawn faintly where the whole energy stands beside it."""
    kept = [values for name, values in run.run.energy.items() if name not in left_out]
    if not kept:
        return []
    label = f"{_name(run)}, without {', '.join(left_out).replace('_', ' ')}" if left_out else _name(run)
    look = _run_style(index)
    look = replace(look, dashes=(0, (2, 2)), marker="x", width=1.0) if beside else look
    return [_curve(label, run.run.times, np.sum(kept, axis=0), look, run.run.times)]


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


# Distances.


def _distance_figure(runs: Sequence[StoredRun], comparison: Comparison) -> Figure:
    """W₂ above, relative loss gap below, where some term has a loss."""
    title = _title(runs[0], f"distance to {comparison.reference}")
    distances = [_pair_curve(runs, pair, pair.distance) for pair in comparison.pairs]
    parts: list[tuple[list[_Curve], str, list[str]]] = [(distances, r"distance $W_2$", [])]
    if comparison.terms:
        gaps = [_pair_curve(runs, pair, pair.relative_loss_gap) for pair in comparison.pairs]
        remark = ["infinite where the reference vanishes: not shown"] * any(np.isinf(c.y).any() for c in gaps)
        finite = [replace(c, y=np.where(np.isfinite(c.y), c.y, np.nan)) for c in gaps]
        parts.append((finite, r"relative gap $|E - E_\mathrm{ref}|\,/\,|E_\mathrm{ref}|$", remark))
    figure = _figure(title, 1.1 + 2.1 * len(parts))
    _draw_curve_panels(figure, parts, np.concatenate([pair.times for pair in comparison.pairs]))
    _draw_floors(figure, comparison, distances)
    return figure
