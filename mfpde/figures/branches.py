"""The figure of the stationary states of a run: all branches over one another on a line, side by side in the plane."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mfpde.arrays import FloatArray, IntArray
from mfpde.figures.densities import make_map_row
from mfpde.figures.style import (
    add_legend,
    add_remark,
    pick_style,
    set_coordinate_ticks,
    start_figure,
    write_symbol,
    write_title,
)
from mfpde.measure import Density
from mfpde.storage import StoredRun

_MOST_LINES = 8
_MOST_MAPS = 4


def make_branch_figure(run: StoredRun) -> Figure | None:
    """The densities of the branches with their free energies, those of least energy where there are many; None for a run without
    branches or with more than two axes."""
    found, dimension = run.run.tables.get("branches/density"), run.domain.dimension
    if found is None or dimension > 2:
        return None
    energy = run.run.tables["branches/energy"]
    shown = np.argsort(energy, kind="stable")[: _MOST_LINES if dimension == 1 else _MOST_MAPS]
    temperature = float(run.run.tables["branches/temperature"][0])
    at = f"at $T$ = {temperature:g}" if temperature > 0.0 else "without entropy"
    count = f"{len(energy)} stationary state{'s' * (len(energy) > 1)}"
    some = f", the {len(shown)} of least energy" if len(shown) < len(energy) else ""
    title = write_title(run, f"{count} ({run.label}{some})")
    densities = [Density(run.domain.grid(found.shape[1:]), found[k]) for k in shown]
    if dimension == 2:
        return make_map_row(run, [_heading(run, int(k)) for k in shown], densities, f"{title} {at}")
    return _line_figure(run, shown, densities, title, at)


def _line_figure(run: StoredRun, shown: IntArray, densities: list[Density], title: str, at: str) -> Figure:
    figure = start_figure(title, 3.2 + 0.17 * len(shown), 5.6)
    axes, entries = figure.add_subplot(), {}
    for place, (k, density) in enumerate(zip(shown, densities, strict=True)):
        look = pick_style(place)
        dashes: Any = (0, (4, 1.5)) if _stability(run, int(k)) == "unstable" else "-"
        middles, values = density.grid.middles(0), np.ravel(density.values)
        width = 2.0 if run.run.tables["branches/stored"][k] else 1.2
        if len(values) < 100:
            axes.stairs(values, density.grid.edges(0), baseline=None, color=look.color, linestyle=dashes, linewidth=width)
        else:
            axes.plot(middles, values, color=look.color, linestyle=dashes, linewidth=width)
        entries[f"branch {k + 1}: {_line(run, int(k))}"] = Line2D([], [], color=look.color, linestyle=dashes, linewidth=width)
    set_coordinate_ticks(axes, "x", run.domain.axes[0], 6)
    axes.set_xlabel(write_symbol(run.domain.names[0]))
    axes.set_ylabel(r"density $\rho$")
    axes.set_ylim(0.0, 1.08 * max(float(np.max(d.values)) for d in densities))
    add_remark(axes, [at])
    add_legend(figure, dict(entries))
    return figure


def _stability(run: StoredRun, k: int) -> str:
    """As in the notes of the run: neutral is what has eigenvalue 0 up to round-off."""
    tables = run.run.tables
    if not tables["branches/stable"][k]:
        return "unstable"
    return "neutral" if abs(float(tables["branches/eigenvalue"][k])) <= 1e-8 else "stable"


def _line(run: StoredRun, k: int) -> str:
    """Free energy, place, stability, and whether it is the one that the run holds."""
    tables = run.run.tables
    places = zip(run.domain.names, _row(tables["branches/mean"], k), _row(tables["branches/deviation"], k), strict=True)
    where = ", ".join(f"{write_symbol(name)} = {_signed(mean, 3)} ± {deviation:.3g}" for name, mean, deviation in places)
    stored = ", stored" if tables["branches/stored"][k] and len(tables["branches/energy"]) > 1 else ""
    return f"$F$ = {_signed(float(tables['branches/energy'][k]), 6)}, {where}, {_stability(run, k)}{stored}"


def _heading(run: StoredRun, k: int) -> str:
    stored = ", stored" if run.run.tables["branches/stored"][k] and len(run.run.tables["branches/energy"]) > 1 else ""
    return f"branch {k + 1}, {_stability(run, k)}{stored}\n$F$ = {_signed(float(run.run.tables['branches/energy'][k]), 6)}"


def _row(values: FloatArray, k: int) -> list[float]:
    return [float(x) for x in values[k]]


def _signed(value: float, digits: int) -> str:
    """A number with a typographic minus, round-off around 0 as 0."""
    return f"{value if abs(value) > 1e-9 else 0.0:.{digits}g}".replace("-", "−")
