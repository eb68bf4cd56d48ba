"""Figures of a study of stationarity: what falls over time and what does not, and the difference from the teacher split in parts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mfpde.arrays import FloatArray
from mfpde.figures.style import (
    DASHES,
    WIDTH,
    TimeScale,
    add_legend,
    add_remark,
    choose_time_scale,
    escape_text,
    pick_style,
    scale_time_axis,
    scale_value_axis,
    set_coordinate_ticks,
    start_figure,
    write_number,
    write_symbol,
)
from mfpde.measure import Density
from mfpde.study.stationarity import Course
from mfpde.study.stationarity_text import StationarityReport

_PANELS = (
    ("loss and dissipation", {"loss": "loss", "dissipation": "dissipation"}),
    ("residual $R$", {"residual": r"$\|R\|$ in $L^2(\mu)$", "largest_residual": r"$\sup|R|$"}),
    (
        r"$L^2$ norm of $\rho-\rho^*$",
        {"visible": "visible part", "invisible": "invisible part", "forbidden": "forbidden by parity"},
    ),
    (r"distance to $\rho^*$", {"distance": "$W_2$", "even_w1": "$W_1$, even part", "odd_w1": "$W_1$, odd part"}),
)
_COLORS = {
    "loss": 0,
    "dissipation": 1,
    "residual": 0,
    "largest_residual": 1,
    "visible": 0,
    "invisible": 1,
    "forbidden": 2,
    "distance": 2,
    "even_w1": 0,
    "odd_w1": 1,
}
_MARKERS = "osD^vP"
_MOST_MARKERS = 14
_LEAST = 1e-14


def make_stationarity_figure(report: StationarityReport) -> Figure:
    """One panel for each kind of quantity over time: colours are quantities; the first run is a broad pale line, later ones are thinner and
    broken with markers on top of it."""
    panels = [(label, names) for label, names in _PANELS if any(_known(c, name) for c in report.courses for name in names)]
    scale = choose_time_scale(report.times)
    title = f"{report.title}: over time" if report.title else "Residuals and norms over time"
    figure = start_figure(escape_text(title, 300), 0.9 + 1.95 * len(panels), WIDTH)
    for row, (label, names) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, row + 1)
        for r, course in enumerate(report.courses):
            for name in names:
                _draw_course(axes, course, name, r, scale)
        axes.set_ylabel(label)
        axes.grid(color="0.9", linewidth=0.5)
        values = np.concatenate([course.values[name] for course in report.courses for name in names])
        words = scale_time_axis(axes, scale)
        add_remark(axes, [scale_value_axis(axes, values, True)])
        axes.set_xlabel(words if row == len(panels) - 1 else "")
        axes.tick_params(labelbottom=row == len(panels) - 1)
        _add_colors(axes, report, names)
    add_legend(figure, _runs(report.courses))
    return figure


def _known(course: Course, name: str) -> bool:
    return bool(np.isfinite(course.values[name]).any())


def _draw_course(axes: Axes, course: Course, name: str, r: int, scale: TimeScale) -> None:
    places, values = scale.place(course.times), course.values[name]
    kept = np.isfinite(places) & np.isfinite(values)
    broad = 1.1 if name == "forbidden" else 3.0
    look: dict[str, Any] = {"linewidth": broad, "alpha": 0.9 if name == "forbidden" else 0.45}
    if r > 0:
        every = max(1, int(np.sum(kept)) // _MOST_MARKERS)
        marks = {"marker": _MARKERS[r % len(_MARKERS)], "markersize": 3.6, "markerfacecolor": "white", "markevery": every}
        look = {"linewidth": 1.1, "linestyle": DASHES[r % len(DASHES)], **marks}
    axes.plot(places[kept], values[kept], color=pick_style(_COLORS[name]).color, **look)


def _add_colors(axes: Axes, report: StationarityReport, names: dict[str, str]) -> None:
    """What the colours of a panel mean, beside it."""
    shown = {words: pick_style(_COLORS[name]).color for name, words in names.items() if any(_known(c, name) for c in report.courses)}
    handles = [Line2D([], [], color=color, linewidth=1.8) for color in shown.values()]
    axes.legend(handles, list(shown), loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4)


def _runs(courses: Sequence[Course]) -> dict[str, Artist]:
    entries: dict[str, Artist] = {}
    for r, course in enumerate(courses):
        look: dict[str, Any] = {"linewidth": 3.0, "alpha": 0.45}
        if r > 0:
            marks = {"marker": _MARKERS[r % len(_MARKERS)], "markersize": 3.6, "markerfacecolor": "white"}
            look = {"linewidth": 1.1, "linestyle": DASHES[r % len(DASHES)], **marks}
        entries[escape_text(course.label)] = Line2D([], [], color="0.2", **look)
    return entries


def make_visibility_figure(report: StationarityReport) -> Figure | None:
    """The densities at the end and the teacher's, the parts of their difference (on one axis), R(x) and the singular values of Σ; None
    where there is nothing of this."""
    flat = report.setting.domain.dimension == 1 and any(course.split is not None for course in report.courses)
    makers = [_draw_densities, _draw_parts] if flat else []
    if report.setting.inputs.nodes.shape[1] == 1 and np.ndim(report.courses[0].residual) == 1:
        makers.append(_draw_residual)
    if report.spectra:
        makers.append(_draw_spectrum)
    if not makers:
        return None
    rows = (len(makers) + 1) // 2
    title = f"{report.title}: at the end" if report.title else "The difference from the teacher at the end"
    figure = start_figure(escape_text(title, 300), 0.7 + 2.5 * rows, WIDTH)
    entries: dict[str, Artist] = {}
    places = figure.add_gridspec(rows, 2)
    for k, make in enumerate(makers):
        alone = k == len(makers) - 1 and k % 2 == 0
        place = places[k // 2, :] if alone else places[k // 2, k % 2]
        entries |= make(figure.add_subplot(place), report)
    add_legend(figure, entries)
    return figure


def _split_courses(report: StationarityReport) -> list[Course]:
    return [course for course in report.courses if course.split is not None]


def _draw_densities(axes: Axes, report: StationarityReport) -> dict[str, Artist]:
    """ρ* filled, and ρ of every run."""
    entries: dict[str, Artist] = {}
    courses = _split_courses(report)
    for r, course in enumerate(courses):
        assert course.grid is not None
        assert course.split is not None
        edges = course.grid.edges(0)
        teacher = _teacher_values(course, report)
        if r == 0:
            axes.stairs(teacher, edges, fill=True, color="0.85", linewidth=0.0)
            entries[r"teacher $\rho^*$"] = Patch(facecolor="0.85")
        look = pick_style(r)
        axes.stairs(
            teacher + course.split.difference, edges, baseline=None, color=look.color, linestyle=look.dashes, linewidth=look.width - 0.4
        )
        entries[escape_text(course.label)] = Line2D([], [], color=look.color, linestyle=look.dashes, linewidth=look.width - 0.4)
    axes.set_ylabel(r"density $\rho$")
    axes.set_title(f"densities at t = {write_number(float(courses[0].times[-1]))}")
    _theta_axis(axes, report)
    return entries


def _teacher_values(course: Course, report: StationarityReport) -> FloatArray:
    assert course.grid is not None
    density = report.setting.teacher.on(course.grid)
    assert density is not None
    return np.ravel(density.values)


def _draw_parts(axes: Axes, report: StationarityReport) -> dict[str, Artist]:
    """The parts of ρ − ρ* of the first run."""
    course = next((c for c in _split_courses(report) if isinstance(c.measure, Density)), _split_courses(report)[0])
    assert course.split is not None
    assert course.grid is not None
    parts = {"visible part": course.split.visible, "invisible part": course.split.invisible}
    if course.split.forbidden is not None:
        parts["forbidden by parity"] = course.split.forbidden
    entries: dict[str, Artist] = {}
    looks = [("#0072B2", "-", 1.8), ("#D55E00", "-", 1.8), ("#000000", (0, (1, 1.2)), 1.4)]
    for (name, values), (color, dashes, width) in zip(parts.items(), looks, strict=False):
        (line,) = axes.plot(course.grid.middles(0), values, color=color, linestyle=dashes, linewidth=width)
        entries[name] = line
    axes.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
    axes.set_ylabel(r"$\rho-\rho^*$ and its parts")
    axes.set_title(f"parts of the difference, {escape_text(course.label, 24)}")
    _theta_axis(axes, report)
    return entries


def _theta_axis(axes: Axes, report: StationarityReport) -> None:
    axes.set_xlabel(write_symbol(report.setting.domain.names[0]))
    set_coordinate_ticks(axes, "x", report.setting.domain.axes[0], 6)
    axes.grid(color="0.92", linewidth=0.5)


def _draw_residual(axes: Axes, report: StationarityReport) -> dict[str, Artist]:
    """R(x) at the end, over the inputs that carry μ."""
    inputs = report.setting.inputs
    entries: dict[str, Artist] = {}
    kept = np.flatnonzero(inputs.central)
    order = kept[np.argsort(inputs.nodes[kept, 0], kind="stable")]
    for r, course in enumerate(report.courses):
        look = pick_style(r)
        axes.plot(inputs.nodes[order, 0], course.residual[order], color=look.color, linestyle=look.dashes, linewidth=look.width - 0.4)
        entries[escape_text(course.label)] = Line2D([], [], color=look.color, linestyle=look.dashes, linewidth=look.width - 0.4)
    axes.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
    axes.set_xlabel("input $x$")
    axes.set_ylabel("residual $R(x)$")
    axes.set_title("student less teacher")
    axes.grid(color="0.92", linewidth=0.5)
    return entries


def _draw_spectrum(axes: Axes, report: StationarityReport) -> dict[str, Artist]:
    """The singular values of Σ on every grid, relative to the largest, and the threshold."""
    entries: dict[str, Artist] = {}
    shown = report.spectra
    for r, spectrum in enumerate(shown):
        values = spectrum.values / spectrum.values[0]
        kept = values > _LEAST
        name = r"$s_k/s_1$ of $\Sigma$" + (f", {' × '.join(map(str, spectrum.grid.cells))} cells" if len(shown) > 1 else "")
        (line,) = axes.plot(
            np.flatnonzero(kept) + 1,
            values[kept],
            color=pick_style(r + 3).color,
            linestyle="",
            marker=_MARKERS[r % len(_MARKERS)],
            markersize=max(4.5 - r, 2.0),
            markerfacecolor="white" if r else None,
        )
        entries[name] = line
    threshold = shown[0].threshold
    axes.axhline(threshold, color="0.4", linewidth=0.9, linestyle=(0, (4, 2)))
    entries[f"visible above {write_number(threshold)}"] = Line2D([], [], color="0.4", linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("index $k$")
    axes.set_ylabel("relative singular value")
    axes.set_title("the network's spectrum")
    axes.grid(color="0.92", linewidth=0.5)
    return entries
