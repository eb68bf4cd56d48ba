"""Figures of densities and particles: steps and histograms on a line, maps and dots in the plane."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from mfpde.arrays import FloatArray
from mfpde.disk import Disk, PolarGrid
from mfpde.domain import Axis, Domain, Grid
from mfpde.figures.obstacles import draw_obstacles
from mfpde.figures.panels import SPIKE, Panel, Scale, choose_times, find_level, find_scale, make_marginal_panels, make_panel, share_scale
from mfpde.figures.style import (
    COLOR_MAP,
    WIDTH,
    AxesRows,
    RunStyle,
    add_legend,
    name_run,
    pick_style,
    set_coordinate_ticks,
    start_figure,
    write_number,
    write_symbol,
    write_title,
)
from mfpde.figures.teachers import draw_taught_line, draw_taught_map, taught_by, taught_entry
from mfpde.measure import Density, Measure, Particles
from mfpde.storage import StoredRun

_MOST_TIMES = 6
_MOST_AXES = 3
_MOST_MAPS = 4
_FEW_ATOMS = 20
_FEWEST_BARS = 6
_MOST_BARS = 1000
_SPIKE_MAP = 150.0
_ROUND = 180
_ROOM = 1.04


@dataclass(frozen=True, eq=False)
class _Bars:
    """A piecewise constant density on the line: edges (n + 1,) and heights (n,)."""

    edges: FloatArray
    heights: FloatArray


def make_density_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Small multiples in time in one or two dimensions, marginals at the last time in three; None without saved times."""
    runs = [run for run in runs if run.run.measures]
    if not runs:
        return None
    dimension = runs[0].domain.dimension
    times = choose_times(runs, _MOST_TIMES if dimension == 1 else _MOST_MAPS)
    if dimension == 1:
        return _line_figure(runs, [make_panel(runs, float(t)) for t in times])
    if dimension == 2:
        return _map_figure(runs, [make_panel(runs, float(t)) for t in times], write_title(runs[0], "density"), True)
    shown = "" if dimension == _MOST_AXES else f" of the first {_MOST_AXES} of {dimension} coordinates"
    title = write_title(runs[0], f"marginal densities{shown} at t = {write_number(float(times[-1]))}")
    return _map_figure(runs, make_marginal_panels(runs, float(times[-1])), title, False)


def make_map_row(run: StoredRun, headings: Sequence[str], densities: Sequence[Density], title: str) -> Figure:
    """Densities of one run in the plane side by side, each under its heading."""
    panels = [Panel(heading, run.domain, [density]) for heading, density in zip(headings, densities, strict=True)]
    return _map_figure([run], panels, title, True)


# Densities on a line.


def _line_figure(runs: Sequence[StoredRun], panels: Sequence[Panel]) -> Figure:
    rows, columns = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2)}.get(len(panels), (2, 3))
    figure = start_figure(write_title(runs[0], "density"), 1.2 + 1.9 * rows + (0.6 if columns == 1 else 0.0), WIDTH if columns > 1 else 5.0)
    bars = [[_bars(m, panel) for m in panel.measures] for panel in panels]
    scales = share_scale([find_scale([(b.heights, b.heights * np.diff(b.edges)) for b in row if b is not None], SPIKE) for row in bars])
    together = len(set(scales)) == 1
    drawn = any(part is not None for row in bars for part in row)
    name = r"density $\rho$" if drawn else "weight (to scale)"
    taught = taught_by(runs[0])
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        _draw_line_panel(axes, panel, bars[k], scales[k])
        draw_taught_line(axes, taught)
        draw_obstacles(axes, runs[0])
        set_coordinate_ticks(axes, "x", panel.domain.axes[0], 6 if columns < 3 else 5, columns > 1)
        bottom, left = k + columns >= rows * columns or len(panels) < rows * columns, k % columns == 0
        axes.tick_params(labelbottom=bottom, labelleft=left or not together)
        axes.set_xlabel(write_symbol(panel.domain.names[0]) if bottom else "")
        axes.set_ylabel(name if left else "")
        if not drawn:
            axes.set_yticks([])
    cloud = _first_cloud([run.run.final for run in runs])
    add_legend(figure, dict(_line_entry(run, k, k == cloud) for k, run in enumerate(runs)) | taught_entry(taught, True))
    return figure


def _bars(measure: Measure | None, panel: Panel) -> _Bars | None:
    """A density as it is, particles as a histogram; None for a few particles."""
    if isinstance(measure, Density):
        return _Bars(measure.grid.edges(0), np.nan_to_num(np.ravel(measure.values), posinf=0.0))
    if measure is None or len(measure.weights) <= _FEW_ATOMS:
        return None
    cell = float(panel.densities[0].grid.spacing[0]) if panel.densities else 0.0
    return _histogram(measure, panel.domain.axes[0], cell)


def _histogram(particles: Particles, axis: Axis, least: float) -> _Bars:
    """Equal bars from one end of the axis to the other, of the width that suits the number and the spread of the particles, but not
    narrower than ``least``, the cells of a density beside them."""
    count = axis.length / max(_bar_width(particles), least)
    edges = np.linspace(axis.lower, axis.upper, int(np.clip(np.ceil(count - 1e-9), _FEWEST_BARS, _MOST_BARS)) + 1)
    mass, _ = np.histogram(particles.points[:, 0], bins=edges, weights=particles.weights)
    return _Bars(edges, mass / np.diff(edges))


def _bar_width(particles: Particles) -> float:
    """2 · (interquartile range) · N^(−1/3) [Freedman–Diaconis 1981], but at least 2 N^(1/3) bars over the inner 99 %, for several groups
    and flat densities; for weights N = (Σw)²/Σw²."""
    order = np.argsort(particles.points[:, 0], kind="stable")
    points, weights = particles.points[order, 0], particles.weights[order]
    reached = (np.cumsum(weights) - 0.5 * weights) / float(np.sum(weights))
    least, low, high, most = np.interp([0.005, 0.25, 0.75, 0.995], reached, points)
    count = float(np.sum(weights)) ** 2 / float(np.sum(weights**2))
    return max(float(min(2.0 * (high - low), 0.5 * (most - least)) / np.cbrt(count)), 1e-300)


def _draw_line_panel(axes: Axes, panel: Panel, bars: Sequence[_Bars | None], scale: Scale) -> None:
    """The first histogram filled behind the densities, others as outlines before them."""
    cloud = _first_cloud(panel.measures)
    for k, (measure, part) in enumerate(zip(panel.measures, bars, strict=True)):
        style = pick_style(k)
        if part is None and isinstance(measure, Particles):
            _draw_atoms(axes, measure, style)
        elif part is not None and isinstance(measure, Density):
            _draw_density(axes, part, style)
        elif part is not None:
            _draw_histogram(axes, part, style, k == cloud)
    axes.set_ylim(0.0, 1.08 * scale.top)
    axes.set_title(panel.heading + scale.note)


def _draw_density(axes: Axes, bars: _Bars, style: RunStyle) -> None:
    """Cell averages as steps, as a line through the middles of cells that are too narrow to be seen."""
    look: dict[str, Any] = {"color": style.color, "linestyle": style.dashes, "linewidth": 0.75 * style.width, "zorder": 2.5}
    if len(bars.heights) < 100:
        axes.stairs(bars.heights, bars.edges, baseline=None, **look)
    else:
        axes.plot(0.5 * (bars.edges[1:] + bars.edges[:-1]), bars.heights, **look)


def _first_cloud(measures: Sequence[Measure | None]) -> int:
    """The index of the first particles among the measures, -1 without any."""
    return next((k for k, m in enumerate(measures) if isinstance(m, Particles)), -1)


def _draw_histogram(axes: Axes, bars: _Bars, style: RunStyle, filled: bool) -> None:
    """A filled histogram, or an outline in the run's line style."""
    look: dict[str, Any] = {"color": style.color, "linestyle": style.dashes, "linewidth": 1.1, "zorder": 3.0}
    if filled:
        axes.stairs(bars.heights, bars.edges, fill=True, color=style.color, alpha=0.28, linewidth=0.0, zorder=1.0)
        look |= {"linestyle": "-", "linewidth": 0.7, "zorder": 1.5}
    axes.stairs(bars.heights, bars.edges, baseline=None, **look)


def _draw_atoms(axes: Axes, particles: Particles, style: RunStyle) -> None:
    """A stem for each particle, as high as its weight, the heaviest to 0.8 of the panel."""
    heights = 0.8 * particles.weights / float(np.max(particles.weights))
    points = particles.points[:, 0]
    place = axes.get_xaxis_transform()
    axes.vlines(points, 0.0, heights, transform=place, color=style.color, linewidth=1.0)
    axes.plot(points, heights, style.marker, transform=place, color=style.color, markersize=4.0, clip_on=False)


def _line_entry(run: StoredRun, index: int, filled: bool) -> tuple[str, Artist]:
    """The legend's entry for a run on a line."""
    style, final = pick_style(index), run.run.final
    if isinstance(final, Density):
        return name_run(run), Line2D([], [], color=style.color, linestyle=style.dashes, linewidth=0.75 * style.width)
    if len(final.weights) <= _FEW_ATOMS:
        stem = Line2D([], [], color=style.color, marker=style.marker, markersize=4.0, linewidth=1.0)
        return f"{name_run(run)} (heights: weights)", stem
    if filled:
        return f"{name_run(run)} (histogram)", Patch(facecolor=to_rgba(style.color, 0.28), edgecolor=style.color, linewidth=0.7)
    return f"{name_run(run)} (histogram)", Line2D([], [], color=style.color, linestyle=style.dashes, linewidth=1.1)


# Densities in the plane.


def _map_figure(runs: Sequence[StoredRun], panels: Sequence[Panel], title: str, timely: bool) -> Figure:
    """Columns are panels, rows are runs: densities as maps, particles as dots over outlines of the first density."""
    columns, rows = len(panels), len(runs)
    aspect, mapped = _aspect(panels), any(panel.densities for panel in panels)
    width = WIDTH if columns > 1 else 3.6
    side = (width - 0.9) / columns - (0.1 if timely else 0.4)
    scales = share_scale([find_scale([_valued(d) for d in panel.densities], _SPIKE_MAP) for panel in panels])
    taught = taught_by(runs[0])
    entries = _map_entries(runs) | taught_entry(taught, False)
    small = 0.3 * bool(entries) + 0.16 * any(scale.spiky for scale in scales) + 0.16 * any(scale.note for scale in scales)
    figure = start_figure(title, 1.0 + 0.8 * mapped + small + rows * (side * aspect + 0.15), width, "compressed")
    axes: AxesRows = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    together = timely and columns > 1 and len(set(scales)) == 1
    found: list[QuadMesh] = []
    for k, panel in enumerate(panels):
        column = [row[k] for row in axes]
        meshes = [_draw_map_panel(column[row], panel, row, scales[k], columns > 1) for row in range(rows)]
        if panel.domain is runs[0].domain:
            for picture, run in zip(column, runs, strict=True):
                draw_obstacles(picture, run)
                draw_taught_map(picture, taught)
        column[0].set_title(panel.heading + scales[k].note)
        _name_axes(column, panel.domain, k > 0 and timely, aspect)
        found += [mesh for mesh in meshes if mesh is not None]
        if not together:
            _color_bar(figure, column, next((m for m in meshes if m is not None), None), scales[k], timely, False)
    if together:
        _color_bar(figure, [panel for row in axes for panel in row], found[0] if found else None, scales[0], timely, True)
    for row, run in zip(axes, runs, strict=True):
        name = textwrap.wrap(name_run(run), max(16, int(13 * side * aspect)))
        row[0].set_ylabel("\n".join([*name, row[0].get_ylabel()]))
    add_legend(figure, entries)
    return figure


def _aspect(panels: Sequence[Panel]) -> float:
    """Height over width of all panels: equal lengths look equal unless panels would differ or be very flat or tall."""
    ratios = {panel.domain.axes[1].length / panel.domain.axes[0].length for panel in panels}
    return min(ratios) if max(ratios) - min(ratios) < 1e-9 and 0.6 < min(ratios) < 1.6 else 1.0


def _valued(density: Density) -> tuple[FloatArray, FloatArray]:
    values = np.nan_to_num(np.ravel(density.values), posinf=0.0)
    return values, values * density.grid.weight


def _draw_map_panel(axes: Axes, panel: Panel, index: int, scale: Scale, beside: bool) -> QuadMesh | None:
    """One run in one panel; returns what a colour bar needs."""
    measure = panel.measures[index]
    mesh = None
    if isinstance(measure, Density):
        shading: Literal["gouraud", "flat"] = "gouraud" if _is_fine_disk(measure.grid) else "flat"
        mesh = axes.pcolormesh(*_tiles(measure), cmap=COLOR_MAP, norm=_norm(scale), shading=shading, rasterized=True)
    elif measure is not None:
        _draw_outline(axes, panel)
        _draw_dots(axes, measure, pick_style(index))
    else:
        axes.text(0.5, 0.5, "not saved", transform=axes.transAxes, ha="center", va="center", color="0.4")
    set_coordinate_ticks(axes, "x", panel.domain.axes[0], 4, beside)
    set_coordinate_ticks(axes, "y", panel.domain.axes[1], 4)
    if isinstance(panel.domain, Disk):
        _draw_rim(axes, panel.domain)
    return mesh


def _is_fine_disk(grid: Grid) -> bool:
    """Whether the cells of a polar grid are too narrow to be drawn one by one, which would leave stripes."""
    return isinstance(grid, PolarGrid) and grid.cells[0] >= 16 and grid.cells[1] >= 32


def _tiles(density: Density) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The corners of the cells, two coordinates each, and the values; arcs of a disk are divided until they look round. Of a fine
    polar grid the centres, on closed rings, for colours that are interpolated between them."""
    grid, values = density.grid, np.reshape(density.values, density.grid.cells)
    if not isinstance(grid, PolarGrid):
        return grid.edges(0), grid.edges(1), values.T
    parts = -(-_ROUND // grid.cells[1])
    if _is_fine_disk(grid):
        return _on_rings(grid, values, parts)
    angles = np.linspace(0.0, 2.0 * np.pi, parts * grid.cells[1] + 1)
    corners = _on_disk(grid.domain, grid.edges(0), angles)
    return corners[..., 0], corners[..., 1], np.repeat(values, parts, axis=1)


def _on_disk(disk: Disk, radii: FloatArray, angles: FloatArray) -> FloatArray:
    """Cartesian points (radii, angles, 2)."""
    polar = np.stack(np.meshgrid(radii, angles, indexing="ij"), axis=-1)
    return disk.from_polar(polar.reshape(-1, 2)).reshape(polar.shape)


def _draw_rim(axes: Axes, disk: Disk) -> None:
    """The rim in place of the frame, with some room around it."""
    x, y = disk.center
    axes.add_patch(Circle((x, y), disk.radius, fill=False, edgecolor="0.25", linewidth=0.8, zorder=4.0))
    axes.set_xlim(x - _ROOM * disk.radius, x + _ROOM * disk.radius)
    axes.set_ylim(y - _ROOM * disk.radius, y + _ROOM * disk.radius)
    axes.spines[:].set_visible(False)


def _norm(scale: Scale) -> Normalize:
    """Colours in proportion, or in proportion to the square root where a spike would leave the rest dark."""
    return PowerNorm(0.5, 0.0, scale.top) if scale.spiky else Normalize(0.0, scale.top)


def _draw_outline(axes: Axes, panel: Panel) -> None:
    """Where the first density holds 90 % and 50 % of its mass."""
    if not panel.densities or min(panel.densities[0].grid.cells) < 2:
        return
    values, masses = _valued(panel.densities[0])
    levels = [level for level in sorted({find_level(values, masses, share) for share in (0.9, 0.5)}) if values.min() < level]
    if levels and levels[-1] < values.max():
        lines = axes.contour(*_surface(panel.densities[0]), levels=levels, colors="black", linewidths=0.7, zorder=3.0)
        lines.set_path_effects([withStroke(linewidth=2.0, foreground="white")])  # seen among dark atoms, too


def _surface(density: Density) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cell centres, two coordinates each, and the values there; on a disk closed in the angle, at the origin and at the rim. Along
    frozen axes, whose cells have nothing to do with one another, both ends of each cell in place of its centre."""
    grid, values = density.grid, np.reshape(density.values, density.grid.cells)
    if not isinstance(grid, PolarGrid):
        frozen = [axis.frozen for axis in grid.domain.axes]
        x, y = (_both_ends(grid.edges(k)) if frozen[k] else grid.middles(k) for k in range(2))
        return x, y, np.repeat(np.repeat(values, 1 + frozen[0], axis=0), 1 + frozen[1], axis=1).T
    return _on_rings(grid, values, 1)


def _both_ends(edges: FloatArray) -> FloatArray:
    """The ends of every cell, inner ones by a trifle inside, (2 cells,)."""
    inside = 1e-6 * np.diff(edges)
    return np.stack([edges[:-1] + inside, edges[1:] - inside], axis=1).ravel()


def _on_rings(grid: PolarGrid, values: FloatArray, parts: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points on the rings of the cell centres, at the origin and on the rim, closed in the angle, with ``parts`` points for each
    cell, and values there, which are linear in between."""
    radii, middles = np.concatenate([[0.0], grid.middles(0), [grid.domain.radius]]), grid.middles(1)
    angles = np.linspace(middles[0], middles[0] + 2.0 * np.pi, parts * len(middles) + 1)
    rings = np.concatenate([np.full_like(values[:1], values[0].mean()), values, values[-1:]])
    points = _on_disk(grid.domain, radii, angles)
    between = [np.interp(angles, middles, ring, period=2.0 * np.pi) for ring in rings]
    return points[..., 0], points[..., 1], np.array(between)


def _draw_dots(axes: Axes, particles: Particles, style: RunStyle) -> None:
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
        last, framed = axes is column[-1], not isinstance(domain, Disk)
        axes.tick_params(labelbottom=last, labelleft=not inner, bottom=framed or last, left=framed or not inner)
        axes.set_ylabel("" if inner else write_symbol(domain.names[1]))
    column[-1].set_xlabel(write_symbol(domain.names[0]))


def _color_bar(figure: Figure, above: list[Axes], mesh: QuadMesh | None, scale: Scale, timely: bool, wide: bool) -> None:
    """A colour bar below a column, or a wide one below all."""
    if mesh is None:
        return
    extend = "max" if scale.note else "neither"
    bar = figure.colorbar(mesh, ax=above, location="bottom", extend=extend, aspect=30 if wide else 14, shrink=0.5 if wide else 0.86)
    bar.locator = MaxNLocator(6 if wide else 3)
    bar.update_ticks()
    bar.set_label((r"density $\rho$" if timely else "marginal density") + "\n(square-root scale)" * scale.spiky)


def _map_entries(runs: Sequence[StoredRun]) -> dict[str, Artist]:
    """The legend of the outlines, where there are any."""
    first = next((run for run in runs if isinstance(run.run.final, Density)), None)
    if first is None or not any(isinstance(run.run.final, Particles) for run in runs):
        return {}
    return {f"regions with 50 % and 90 % of the mass of {name_run(first)}": Line2D([], [], color="black", linewidth=0.7)}
