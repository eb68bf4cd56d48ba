"""Obstacles in density figures: where no mass may be."""

import json

import numpy as np
from matplotlib.axes import Axes

from mfpde.arrays import FloatArray
from mfpde.case.expression import ExpressionError, parse
from mfpde.storage import StoredRun

_FINE = {1: 2000, 2: 400}


def obstacle_level(run: StoredRun, points: FloatArray) -> FloatArray | None:
    """The largest of the run's obstacle functions at points (M, d), positive in obstacles, (M,); None without any."""
    try:
        texts = json.loads(str(run.attributes.get("obstacles") or "[]"))
        found = [np.broadcast_to(np.asarray(parse(text, list(run.domain.names))(points), dtype=float), (len(points),)) for text in texts]
    except (ValueError, ExpressionError):
        return None
    return np.max(found, axis=0) if found else None


def draw_obstacles(axes: Axes, run: StoredRun) -> None:
    """Grey hatched regions, in figures of all one or two axes of the domain."""
    domain = run.domain
    if domain.dimension not in _FINE or domain.box is not domain:
        return
    grid = domain.even_grid(_FINE[domain.dimension])
    level = obstacle_level(run, grid.centers)
    if level is None or not np.any(level > 0.0):
        return
    if domain.dimension == 1:
        axes.fill_between(
            grid.middles(0), 0.0, 1.0, where=(level > 0.0).tolist(), transform=axes.get_xaxis_transform(), color="0.85", hatch="////"
        )
        return
    surface = np.clip(level, -1e300, 1e300).reshape(grid.cells).T
    top = max(float(np.max(surface)), 1e-300) * 2.0
    axes.contourf(grid.middles(0), grid.middles(1), surface, levels=[0.0, top], colors="0.8", hatches=["////"], zorder=3.0)
    axes.contour(grid.middles(0), grid.middles(1), surface, levels=[0.0], colors="0.25", linewidths=0.8, zorder=3.1)
