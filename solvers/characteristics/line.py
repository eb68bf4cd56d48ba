"""Panels on one axis: where to halve them, and exact masses of cells, since θ(a) increases and can be inverted."""

import numpy as np
from numpy.polynomial import legendre

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain, Grid
from mfpde.measure import DensityFunction
from mfpde.solvers.characteristics.panels import Panels, halves

MOST_PANELS = 4096
_NARROWEST = 1e-6
_FIRST_PANELS = 8
_NEWTON = 60


def first_panels(domain: Domain, function: DensityFunction, order: int, resolution: float) -> Panels:
    """Panels on which ρ₀ is resolved; those without mass are left out. Raises ValueError where there would be too many."""
    edges = np.linspace(float(domain.lower[0]), float(domain.upper[0]), _FIRST_PANELS + 1)[:, None]
    lower, upper = edges[:-1], edges[1:]
    while True:
        panels = Panels.resting(lower, upper, order, function)
        rough = unresolved(panels, panels.density, resolution)
        if (rough < 0).all():
            return panels.taken(np.sum(panels.density, axis=1) > 0.0)
        if len(lower) > MOST_PANELS:
            raise ValueError(f"the initial density is not resolved by {MOST_PANELS} panels; use finite volumes or particles")
        lower, upper = halves(lower, upper, rough)
        lower, upper = np.sort(lower, axis=0), np.sort(upper, axis=0)


def unresolved(panels: Panels, values: FloatArray, resolution: float) -> IntArray:
    """0 for panels that hold ``values`` (P, p) whose last coefficients are above ``resolution`` of the largest value, else −1, (P,)."""
    last = panels.tails(values)[:, 0]
    width = (panels.upper - panels.lower)[:, 0]
    wide = width > _NARROWEST * float(np.max(panels.upper) - np.min(panels.lower))
    found = (last > resolution * float(np.max(np.abs(values)))) & wide
    return np.where(found, 0, -1)


def cell_masses(panels: Panels, grid: Grid) -> FloatArray:
    """Exact masses of the grid's cells, (cells,); on circles all that went round is brought back."""
    edges = grid.edges(0)
    length = float(edges[-1] - edges[0])
    turns = range(1)
    if grid.periodic(0):
        ends = _ends(panels)
        turns = range(int(np.floor((ends.min() - edges[0]) / length)), int(np.floor((ends.max() - edges[0]) / length)) + 1)
    masses = np.zeros(grid.size)
    for turn in turns:
        below = mass_below(panels, edges + turn * length)
        if not grid.periodic(0):
            below[0], below[-1] = 0.0, float(np.sum(panels.weights))
        masses += np.maximum(np.diff(below), 0.0)
    return masses


def _ends(panels: Panels) -> FloatArray:
    """θ at both ends of every panel, (P, 2)."""
    signs = np.stack([(-1.0) ** np.arange(panels.order), np.ones(panels.order)], axis=1)
    return np.asarray(panels.places[:, :, 0] @ panels.rule.analysis.T @ signs)


def mass_below(panels: Panels, places: FloatArray) -> FloatArray:
    """∫ρ₀ over the labels with θ(a) below each of the ``places`` (E,), which increases with a; panels are in order."""
    analysis, ends, masses = panels.rule.analysis, _ends(panels), np.sum(panels.weights, axis=1)
    before = np.concatenate([[0.0], np.cumsum(masses)])
    panel = np.searchsorted(ends[:, 1], places)
    inner = np.flatnonzero((panel < len(masses)) & (places > ends[np.minimum(panel, len(masses) - 1), 0]))
    below = before[panel]
    rows = panel[inner]
    label = _inverted((panels.places[rows, :, 0] @ analysis.T).T, places[inner])
    density = legendre.legint((panels.density[rows] @ analysis.T).T, lbnd=-1.0, axis=0)
    part = 0.5 * (panels.upper - panels.lower)[rows, 0] * legendre.legval(label, density, tensor=False)
    below[inner] += np.clip(part, 0.0, masses[rows])
    return np.asarray(below)


def _inverted(coefficients: FloatArray, values: FloatArray) -> FloatArray:
    """s in [−1, 1] where increasing Legendre series (p, E) take ``values`` (E,), by Newton's method within brackets."""
    slope = legendre.legder(coefficients, axis=0)
    low, high = np.full(values.shape, -1.0), np.full(values.shape, 1.0)
    s = np.zeros(values.shape)
    for _ in range(_NEWTON):
        gap = legendre.legval(s, coefficients, tensor=False) - values
        low, high = np.where(gap < 0.0, s, low), np.where(gap < 0.0, high, s)
        steep = legendre.legval(s, slope, tensor=False)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            tried = s - gap / steep
        moved = np.where((tried > low) & (tried < high), tried, 0.5 * (low + high))
        if np.max(np.abs(moved - s), initial=0.0) <= 1e-15:
            break
        s = moved
    return s
