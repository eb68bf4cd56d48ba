"""Lagrange interpolation with six points between particles and tables with equal steps along one axis.

Table nodes are lower + (k − 2) h, k = 0 … n − 1, so that every point of [lower, lower + (n − 5) h] has three nodes on either side.
Weights of a stencil sum to one, so that masses and moments of degree up to five are exact.
"""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import parallel_kernel, prange, sum_kernel

BEFORE, POINTS = 2, 6
BLOCKS = 16
"""Parts of the particles that are deposited side by side, whatever the number of threads, so that sums do not depend on it."""
_ALONE = 200_000
"""So few atoms take less time than other threads may need to wake on a busy machine."""


@sum_kernel
def stencil(t: float) -> tuple[float, float, float, float, float, float]:
    """Weights of the nodes −2 … 3 at t in [0, 1]."""
    a, b, c, d, e = t + 2.0, t + 1.0, t - 1.0, t - 2.0, t - 3.0
    low, high = a * b, d * e
    inner = t * c
    first, last = b * inner, inner * d
    return (
        -first * high * (1.0 / 120.0),
        a * inner * high * (1.0 / 24.0),
        -low * c * high * (1.0 / 12.0),
        low * t * high * (1.0 / 12.0),
        -low * inner * e * (1.0 / 24.0),
        low * last * (1.0 / 120.0),
    )


@sum_kernel
def deposit_some(points: FloatArray, weights: FloatArray, start: int, end: int, lower: float, inverse: float, part: FloatArray) -> None:
    """Spread the atoms from ``start`` to ``end`` over the nodes of one ``part`` (n,), which is overwritten."""
    nodes = part.size
    for k in range(nodes):
        part[k] = 0.0
    for i in range(start, end):
        place = (points[i] - lower) * inverse
        k = min(max(int(place), 0), nodes - POINTS)
        w = stencil(place - k)
        mass = weights[i] if weights.size > 1 else weights[0]
        part[k] += w[0] * mass
        part[k + 1] += w[1] * mass
        part[k + 2] += w[2] * mass
        part[k + 3] += w[3] * mass
        part[k + 4] += w[4] * mass
        part[k + 5] += w[5] * mass


@sum_kernel
def interpolate_some(points: FloatArray, table: FloatArray, start: int, end: int, lower: float, inverse: float, out: FloatArray) -> None:
    """out (N,) = the values of ``table`` (n,) at the points from ``start`` to ``end``."""
    nodes = table.size
    for i in range(start, end):
        place = (points[i] - lower) * inverse
        k = min(max(int(place), 0), nodes - POINTS)
        w = stencil(place - k)
        low = w[0] * table[k] + w[1] * table[k + 1] + w[2] * table[k + 2]
        out[i] = low + w[3] * table[k + 3] + w[4] * table[k + 4] + w[5] * table[k + 5]


@parallel_kernel
def deposit_blocks(points: FloatArray, weights: FloatArray, lower: float, inverse: float, parts: FloatArray) -> None:
    """``deposit`` on all threads."""
    share = (points.size + BLOCKS - 1) // BLOCKS
    for block in prange(BLOCKS):
        deposit_some(points, weights, block * share, min((block + 1) * share, points.size), lower, inverse, parts[block])


@parallel_kernel
def interpolate_blocks(points: FloatArray, table: FloatArray, lower: float, inverse: float, out: FloatArray) -> None:
    """``interpolate`` on all threads."""
    share = (points.size + BLOCKS - 1) // BLOCKS
    for block in prange(BLOCKS):
        interpolate_some(points, table, block * share, min((block + 1) * share, points.size), lower, inverse, out)


def deposit(points: FloatArray, weights: FloatArray, lower: float, inverse: float, nodes: int) -> FloatArray:
    """Spread atoms at ``points`` (N,) with ``weights`` (N,) or (1,) over the nodes of a table, (n,)."""
    if points.size < _ALONE:
        part = np.empty(nodes)
        deposit_some(points, weights, 0, points.size, lower, inverse, part)
        return part
    parts = np.empty((BLOCKS, nodes))
    deposit_blocks(points, weights, lower, inverse, parts)
    return np.asarray(np.sum(parts, axis=0))


def interpolate(points: FloatArray, table: FloatArray, lower: float, inverse: float, out: FloatArray) -> None:
    """out (N,) = the values of ``table`` (n,) at ``points`` (N,)."""
    if points.size < _ALONE:
        interpolate_some(points, table, 0, points.size, lower, inverse, out)
    else:
        interpolate_blocks(points, table, lower, inverse, out)


def nodes_of(lower: float, upper: float, intervals: int) -> FloatArray:
    """The nodes of a table for [lower, upper], (intervals + 5,)."""
    return np.asarray(lower + (upper - lower) / intervals * (np.arange(intervals + POINTS - 1) - BEFORE), dtype=float)
