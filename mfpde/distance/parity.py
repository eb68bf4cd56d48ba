"""W₁ split into what is even and what is odd in the difference of two measures on a line."""

from typing import Literal

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.distance.line import linear_cost
from mfpde.domain import Domain
from mfpde.measure import Density, Measure

_MIRRORED = 1e-12
Half = Literal["even", "odd"]


def mirrored_line(domain: Domain) -> bool:
    """Whether a domain is a line that is its own mirror image about the origin. On others a part of either parity reaches places outside,
    where there is no mass: mirror images there constrain nothing, and the two distances do not say what a network sees."""
    if domain.dimension > 1 or domain.periodic[0]:
        return False
    lower, upper = float(domain.lower[0]), float(domain.upper[0])
    return abs(lower + upper) <= _MIRRORED * (upper - lower)


def parity_distances(one: Measure, other: Measure) -> dict[Half, float]:
    """∫|F|dθ of the even and of the odd part of the difference of two measures on a line, scaled to mass one, F being the part's
    distribution function. Each is at most W₁, and W₁ at most their sum. Exact for atoms and for densities constant in each cell."""
    places = np.concatenate([_breaks(one), _breaks(other)])
    nodes = np.unique(np.concatenate([places, -places]))
    left, right = nodes[:-1], nodes[1:]
    here = [f - g for f, g in zip(_limits(one, left, right), _limits(other, left, right), strict=True)]
    there = [f - g for f, g in zip(_limits(one, -right, -left), _limits(other, -right, -left), strict=True)]
    mirrored = [-there[1], -there[0]]  # the reflected difference has −F(−θ)
    found: dict[Half, float] = {}
    signs: tuple[tuple[Half, float], ...] = (("even", 1.0), ("odd", -1.0))
    for name, sign in signs:
        a, b = (0.5 * (x + sign * y) for x, y in zip(here, mirrored, strict=True))
        found[name] = linear_cost(right - left, a, b, 1)
    return found


def _breaks(measure: Measure) -> FloatArray:
    return measure.grid.edges(0) if isinstance(measure, Density) else measure.points[:, 0]


def _limits(measure: Measure, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The distribution function just after ``left`` and just before ``right``, (n,) each."""
    weights = measure.weights / np.sum(measure.weights)
    if isinstance(measure, Density):
        levels, edges = np.concatenate([[0.0], np.cumsum(weights)]), measure.grid.edges(0)
        return np.interp(left, edges, levels), np.interp(right, edges, levels)
    order = np.argsort(measure.points[:, 0], kind="stable")
    points, levels = measure.points[order, 0], np.concatenate([[0.0], np.cumsum(weights[order])])
    return levels[np.searchsorted(points, left, side="right")], levels[np.searchsorted(points, right, side="left")]
