"""Two and more axes: transport between atoms by POT's network simplex, after coarsening with a floor."""

import warnings

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.distance.result import Distance
from mfpde.domain import Domain
from mfpde.measure import Density, Measure, barycentres

SUPPORT = 2500
_PIVOTS = 2_000_000
_FINEST = 4096
_GRIDDED = 3


def by_transport(first: Measure, second: Measure, domain: Domain, order: int, support: int) -> Distance:
    """W_p between at most ``support`` atoms each; the floor is what both were moved to reach them."""
    import ot

    (points, mass, floor), (points2, mass2, floor2) = (coarsened(m, domain, support) for m in (first, second))
    squared = squared_distances(points, points2, domain)
    cost = squared if order == 2 else np.sqrt(squared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        value, log = ot.emd2(mass / np.sum(mass), mass2 / np.sum(mass2), cost, numItermax=_PIVOTS, log=True)
    method = f"by transport of {len(mass)} onto {len(mass2)} atoms"
    if log["warning"] is not None:
        return Distance(float(max(value, 0.0)) ** (1.0 / order), np.inf, f"{method}, not optimal after {_PIVOTS} pivots")
    return Distance(float(max(value, 0.0)) ** (1.0 / order), floor + floor2, method)


def squared_distances(points: FloatArray, points2: FloatArray, domain: Domain) -> FloatArray:
    """|x_i − y_j|², the short way round along circles, (N, M)."""
    total = np.zeros((len(points), len(points2)))
    for k, axis in enumerate(domain.axes):
        gap = points2[None, :, k] - points[:, None, k]
        if axis.periodic:
            gap -= axis.length * np.round(gap / axis.length)
        gap *= gap
        total += gap
    return total


def coarsened(measure: Measure, domain: Domain, support: int) -> tuple[FloatArray, FloatArray, float]:
    """At most ``support`` atoms (points, weights) and the root mean square way that mass was moved to reach them."""
    points, weights = barycentres(measure), measure.weights
    inner = float(np.trace(measure.grid.inner_covariance(weights / np.sum(weights)))) if isinstance(measure, Density) else 0.0
    kept = weights > 0.0
    points, weights = points[kept], weights[kept] / np.sum(weights)
    if len(weights) <= support:
        return points, weights, float(np.sqrt(inner))
    groups = _cells(points, domain, support) if domain.dimension <= _GRIDDED else _halves(points, support)
    mass: FloatArray = np.asarray(np.bincount(groups, weights=weights), dtype=float)
    centre = np.stack([np.bincount(groups, weights=weights * x) / mass for x in points.T], axis=1)
    moved = float(weights @ np.sum((points - centre[groups]) ** 2, axis=1))
    return centre, mass, float(np.sqrt(moved + inner))


def _cells(points: FloatArray, domain: Domain, support: int) -> IntArray:
    """The cell of each point (N,) in a grid that is as fine as ``support`` occupied cells allow, up to a factor of two."""
    level = max(int(support ** (1.0 / domain.dimension)), 1)
    while True:
        _, groups = np.unique(domain.box.even_grid(2 * level).locate(points), return_inverse=True)
        if groups.max() + 1 > support or 2 * level > _FINEST:
            break
        level *= 2
    _, groups = np.unique(domain.box.even_grid(level).locate(points), return_inverse=True)
    return np.asarray(groups, dtype=np.int64)


def _halves(points: FloatArray, support: int) -> IntArray:
    """The group of each point (N,) when all are halved again and again at medians along the axes by turns, the widest first: in many
    dimensions no grid has so few occupied cells."""
    widest = np.argsort(-np.var(points, axis=0))
    groups = np.zeros(len(points), dtype=np.int64)
    for level in range(int(np.log2(support))):
        order = np.lexsort((points[:, widest[level % len(widest)]], groups))
        counts = np.bincount(groups)
        rank = np.empty(len(points), dtype=np.int64)
        rank[order] = np.arange(len(points)) - np.repeat(np.cumsum(counts) - counts, counts)
        groups = 2 * groups + (2 * rank >= counts[groups])
    _, groups = np.unique(groups, return_inverse=True)
    return np.asarray(groups, dtype=np.int64)
