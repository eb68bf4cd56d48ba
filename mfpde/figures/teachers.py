"""The teacher in density figures: its neurons, or its density, where they are points or a density of the same domain."""

import json
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mfpde.arrays import FloatArray
from mfpde.case.expression import ExpressionError, parse
from mfpde.figures.panels import find_level
from mfpde.measure import Density, DensityFunction
from mfpde.storage import StoredRun

_FINE = {1: 1000, 2: 160}
_LOW = 0.035
_LINE = (0, (1, 1))
_COLOR = "0.35"


@dataclass(frozen=True, eq=False)
class Taught:
    """Neurons (J, d) with their weights (J,), or a density."""

    points: FloatArray | None
    weights: FloatArray | None
    density: Density | None


def taught_by(run: StoredRun) -> Taught | None:
    """The teacher of a run on one or two axes; None without one, and for files that do not tell."""
    domain = run.domain
    try:
        kept = json.loads(str(run.attributes.get("teacher") or "{}"))
        if domain.dimension not in _FINE or domain.box is not domain:
            return None
        if "density" in kept:
            function = DensityFunction(parse(kept["density"], list(domain.names)), domain)
            return Taught(None, None, function.on(domain.even_grid(_FINE[domain.dimension])))
        if "neurons" in kept:
            return Taught(np.array(kept["neurons"], dtype=float), np.array(kept["weights"], dtype=float), None)
    except (ValueError, KeyError, ExpressionError):
        return None
    return None


def draw_taught_line(axes: Axes, taught: Taught | None) -> None:
    """Triangles at the foot of a panel, areas to the weights and hollow where these are negative; or a dotted line."""
    if taught is None:
        return
    if taught.density is not None:
        density = taught.density
        axes.plot(density.grid.middles(0), np.ravel(density.values), color=_COLOR, linestyle=_LINE, linewidth=1.3, zorder=2.2)
    elif taught.points is not None and taught.weights is not None:
        places = np.full(len(taught.points), _LOW)
        faces = ["black" if weight >= 0.0 else "white" for weight in taught.weights]
        transform = axes.get_xaxis_transform()
        axes.scatter(
            taught.points[:, 0], places, s=_areas(taught.weights), c=faces, edgecolors="black", marker="^", transform=transform, zorder=5.0
        )


def draw_taught_map(axes: Axes, taught: Taught | None) -> None:
    """Stars with areas to the weights; or dotted lines around 50 % and 90 % of a density's mass."""
    if taught is None:
        return
    if taught.density is not None:
        values, masses = np.ravel(taught.density.values), taught.density.weights
        levels = sorted({find_level(values, masses, share) for share in (0.9, 0.5)})
        grid = taught.density.grid
        surface = np.reshape(values, grid.cells).T
        axes.contour(
            grid.middles(0), grid.middles(1), surface, levels=levels, colors="red", linewidths=1.0, linestyles="dotted", zorder=4.0
        )
    elif taught.points is not None and taught.weights is not None:
        faces = ["white" if weight >= 0.0 else "black" for weight in taught.weights]
        x, y = taught.points.T
        axes.scatter(x, y, s=2.5 * _areas(taught.weights), c=faces, marker="*", edgecolors="black", linewidths=0.9, zorder=5.0)


def taught_entry(taught: Taught | None, line: bool) -> dict[str, Artist]:
    """The legend's entry."""
    if taught is None:
        return {}
    if taught.density is not None:
        words = "teacher's density" if line else "50 % and 90 % of the teacher's density"
        return {words: Line2D([], [], color=_COLOR if line else "red", linestyle=_LINE, linewidth=1.3)}
    face = "black" if line else "white"
    marker = Line2D([], [], color="black", marker="^" if line else "*", markerfacecolor=face, linestyle="", markersize=6.0 if line else 9.0)
    return {"teacher's neurons": marker}


def _areas(weights: FloatArray) -> FloatArray:
    return 8.0 + 40.0 * np.abs(weights) / max(float(np.max(np.abs(weights))), 1e-300)
