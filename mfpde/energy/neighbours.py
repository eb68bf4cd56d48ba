"""Atoms near each other in d = 1, 2, 3: images beyond circles and walls, rows of atoms that are searched, and the sums over them.

Atoms are put into rows: boxes across all axes but the last, sorted along the last one. A sum over all atoms within a ``reach`` looks at
the rows that come near enough, and finds its piece of each by bisection. Every target is summed by itself, always in the same order,
so that results do not depend on the number of threads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import kernel, parallel_kernel, prange, vector_kernel
from mfpde.domain import Domain
from mfpde.energy.teams import alone_below

BLOCK = 64
_FEWEST = 2000
"""Targets that one thread takes at a time."""
FARTHEST = 32.0
"""Where e^{−u} is cut off."""
_ROWS_PER_REACH = 3
_MOST_ROWS = 1 << 20


@dataclass(frozen=True, eq=False)
class Images:
    """Atoms and their images: ``points`` (K, d), each of the atom ``origin`` (K,). The atoms themselves come first."""

    points: FloatArray
    origin: IntArray


def images(points: FloatArray, domain: Domain, reach: float, mirrored: bool) -> Images:
    """The atoms at ``points`` (N, d) of a box with all images within ``reach`` of it: shifted by whole turns along circles and, where
    ``mirrored``, reflected at walls, again and again where ``reach`` is longer than the box."""
    found, origin = points, np.arange(len(points))
    for k, axis in enumerate(domain.axes):
        if not (axis.periodic or mirrored):
            continue
        parts, origins = [found], [origin]
        for moved in _moved(found[:, k], axis.lower, axis.upper, axis.periodic, reach):
            near = (moved >= axis.lower - reach) & (moved <= axis.upper + reach)
            part = found[near]
            part[:, k] = moved[near]
            parts.append(part)
            origins.append(origin[near])
        found, origin = np.concatenate(parts), np.concatenate(origins)
    return Images(found, origin)


def _moved(x: FloatArray, lower: float, upper: float, periodic: bool, reach: float) -> Iterator[FloatArray]:
    """Coordinates of the images along one axis. Mirroring at both walls is a circle of twice the length that holds x and its mirror
    image."""
    length = upper - lower
    period = length if periodic else 2.0 * length
    for turn in range(-math.ceil(reach / period) - 1, math.ceil(reach / period) + 2):
        if turn != 0:
            yield x + turn * period
        if not periodic:
            yield 2.0 * lower - x + turn * period


@dataclass(frozen=True, eq=False)
class Rows:
    """Sources in rows: coordinates ``x`` (3, K) with zeros before the last d, sorted by row and along the last axis; the sources
    ``order`` (K,) they are; ``starts`` (rows + 1,) of the rows; ``counts`` (2,) of rows along the axes, ``corner`` and ``side`` (2,)."""

    x: FloatArray
    order: IntArray
    starts: IntArray
    counts: IntArray
    corner: FloatArray
    side: FloatArray


def columns(points: FloatArray) -> FloatArray:
    """Points (N, d) as (3, N), d <= 3, with zeros before."""
    x = np.zeros((3, len(points)))
    x[3 - points.shape[1] :] = points.T
    return x


def rows_of(x: FloatArray, reach: float) -> Rows:
    """Sources (3, K) in rows that suit sums within ``reach``."""
    corner, extent = np.min(x[:2], axis=1), np.ptp(x[:2], axis=1)
    side = max(reach / _ROWS_PER_REACH, 1e-300)
    counts = np.maximum(np.minimum(np.ceil(extent / side), float(_MOST_ROWS)), 1.0)
    most = max(min(2 * x.shape[1], _MOST_ROWS), 1)
    if np.prod(counts) > most:
        free = counts > 1.0
        counts = np.where(free, np.maximum(np.floor(counts * (most / np.prod(counts)) ** (1.0 / np.count_nonzero(free))), 1.0), 1.0)
    sides = np.where(extent > 0.0, extent / counts, 1.0)
    whole = counts.astype(np.int64)
    row = _row(x, corner, sides, whole)
    order = np.lexsort((x[2], row))
    starts = np.searchsorted(row[order], np.arange(np.prod(whole) + 1)).astype(np.int64)
    return Rows(np.ascontiguousarray(x[:, order]), order, starts, whole, corner, sides)


def _row(x: FloatArray, corner: FloatArray, side: FloatArray, counts: IntArray) -> IntArray:
    place = np.floor((x[:2] - corner[:, None]) / side[:, None])
    cell = np.clip(place, 0.0, counts[:, None] - 1.0).astype(np.int64)
    return np.asarray(cell[0] * counts[1] + cell[1])


def order_of(x: FloatArray, rows: Rows) -> IntArray:
    """An order of targets (3, M) in which neighbours follow each other."""
    return np.lexsort((x[2], _row(x, rows.corner, rows.side, rows.counts)))


@kernel
def row_span(x: float, corner: float, side: float, count: int, reach: float) -> tuple[int, int]:
    """The rows along one axis that may hold atoms within ``reach`` of x, first and behind the last."""
    first, last = math.floor((x - reach - corner) / side), math.floor((x + reach - corner) / side)
    return int(min(max(first, 0.0), count - 1.0)), int(min(max(last, 0.0), count - 1.0)) + 1


@kernel
def row_distance(x: float, corner: float, side: float, index: int, count: int) -> float:
    """How far x is from the row ``index`` along one axis. The outer rows have no outer end: what lies beyond by round-off is in them."""
    low, high = corner + index * side, corner + (index + 1) * side
    if x < low and index > 0:
        return (low - x) * (1.0 - 1e-9)
    return (x - high) * (1.0 - 1e-9) if x > high and index < count - 1 else 0.0


@kernel
def bisect(values: FloatArray, start: int, end: int, limit: float) -> int:
    """The first index of [start, end) whose value is not below ``limit``."""
    while start < end:
        middle = (start + end) // 2
        if values[middle] < limit:
            start = middle + 1
        else:
            end = middle
    return start


@vector_kernel
def decay(u: float) -> float:
    """e^{−u} for 0 <= u <= 32 to about 1e-14 of itself, 0 beyond: a polynomial of u/256, squared eight times, as vectors can."""
    t = -min(u, FARTHEST) * (1.0 / 256.0)
    p = 1.0 + t * (1.0 / 10.0)
    p = 1.0 + t * (1.0 / 9.0) * p
    p = 1.0 + t * (1.0 / 8.0) * p
    p = 1.0 + t * (1.0 / 7.0) * p
    p = 1.0 + t * (1.0 / 6.0) * p
    p = 1.0 + t * (1.0 / 5.0) * p
    p = 1.0 + t * (1.0 / 4.0) * p
    p = 1.0 + t * (1.0 / 3.0) * p
    p = 1.0 + t * (1.0 / 2.0) * p
    p = 1.0 + t * p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    return p if u <= FARTHEST else 0.0


@vector_kernel
def gaussian_piece(x: FloatArray, a: FloatArray, start: int, end: int, p: float, q: float, r: float, scale: float) -> float:
    """Σ a_j e^{−scale |x_j − (p, q, r)|²} over a piece of a row."""
    total = 0.0
    for j in range(start, end):
        u, v, w = x[0, j] - p, x[1, j] - q, x[2, j] - r
        total += a[j] * decay(scale * (u * u + v * v + w * w))
    return total


@vector_kernel
def slope_piece(
    x: FloatArray, a: FloatArray, b: FloatArray, factor: float, start: int, end: int, p: float, q: float, r: float, scale: float
) -> tuple[float, float, float]:
    """Σ (factor a_j + b_j)(x_j − (p, q, r)) e^{−scale |x_j − (p, q, r)|²} over a piece of a row."""
    along_p, along_q, along_r = 0.0, 0.0, 0.0
    for j in range(start, end):
        u, v, w = x[0, j] - p, x[1, j] - q, x[2, j] - r
        g = (factor * a[j] + b[j]) * decay(scale * (u * u + v * v + w * w))
        along_p += g * u
        along_q += g * v
        along_r += g * w
    return along_p, along_q, along_r


@parallel_kernel
def add_gaussians(
    targets: FloatArray,
    x: FloatArray,
    a: FloatArray,
    starts: IntArray,
    counts: IntArray,
    corner: FloatArray,
    side: FloatArray,
    scale: float,
    out: FloatArray,
) -> None:
    """out (M,) = Σ_j a_j e^{−scale |x_j − t|²} for targets (3, M) over the sources of ``Rows``, cut off at e^{−32}."""
    count = targets.shape[1]
    far = FARTHEST / scale
    reach = math.sqrt(far)
    for block in prange((count + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            p, q, r = targets[0, i], targets[1, i], targets[2, i]
            first, behind = row_span(p, corner[0], side[0], counts[0], reach)
            low, high = row_span(q, corner[1], side[1], counts[1], reach)
            total = 0.0
            for k in range(first, behind):
                across = row_distance(p, corner[0], side[0], k, counts[0])
                for m in range(low, high):
                    beside = row_distance(q, corner[1], side[1], m, counts[1])
                    left = far - across * across - beside * beside
                    if left >= 0.0:
                        half, row = math.sqrt(left), k * counts[1] + m
                        start = bisect(x[2], starts[row], starts[row + 1], r - half)
                        end = bisect(x[2], start, starts[row + 1], r + half)
                        total += gaussian_piece(x, a, start, end, p, q, r, scale)
            out[i] = total


@parallel_kernel
def add_gaussian_slopes(
    targets: FloatArray,
    factors: FloatArray,
    x: FloatArray,
    a: FloatArray,
    b: FloatArray,
    starts: IntArray,
    counts: IntArray,
    corner: FloatArray,
    side: FloatArray,
    scale: float,
    out: FloatArray,
) -> None:
    """out (3, M) = Σ_j (factor a_j + b_j)(x_j − t) e^{−scale |x_j − t|²} for targets (3, M) with ``factors`` (M,)."""
    count = targets.shape[1]
    far = FARTHEST / scale
    reach = math.sqrt(far)
    for block in prange((count + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            p, q, r = targets[0, i], targets[1, i], targets[2, i]
            first, behind = row_span(p, corner[0], side[0], counts[0], reach)
            low, high = row_span(q, corner[1], side[1], counts[1], reach)
            along_p, along_q, along_r = 0.0, 0.0, 0.0
            for k in range(first, behind):
                across = row_distance(p, corner[0], side[0], k, counts[0])
                for m in range(low, high):
                    beside = row_distance(q, corner[1], side[1], m, counts[1])
                    left = far - across * across - beside * beside
                    if left >= 0.0:
                        half, row = math.sqrt(left), k * counts[1] + m
                        start = bisect(x[2], starts[row], starts[row + 1], r - half)
                        end = bisect(x[2], start, starts[row + 1], r + half)
                        more = slope_piece(x, a, b, factors[i], start, end, p, q, r, scale)
                        along_p += more[0]
                        along_q += more[1]
                        along_r += more[2]
            out[0, i], out[1, i], out[2, i] = along_p, along_q, along_r


def gaussian_sums(targets: FloatArray, rows: Rows, shares: FloatArray, width: float) -> FloatArray:
    """Σ_j a_j e^{−|t − x_j|²/(2 width²)} at targets (3, M), as (M,), with ``shares`` a (K,) of the sources."""
    order = order_of(targets, rows)
    found, result = np.empty(len(order)), np.empty(len(order))
    scale = 0.5 / width**2
    place = rows.starts, rows.counts, rows.corner, rows.side
    with alone_below(len(order), _FEWEST):
        add_gaussians(np.ascontiguousarray(targets[:, order]), rows.x, shares[rows.order], *place, scale, found)
    result[order] = found
    return result


def gaussian_slopes(
    targets: FloatArray, factors: FloatArray, rows: Rows, shares: FloatArray, others: FloatArray, width: float
) -> FloatArray:
    """Σ_j (f a_j + b_j)(x_j − t) e^{−|t − x_j|²/(2 width²)} at targets (3, M) with factors f (M,), as (3, M); a, b: ``shares`` and
    ``others`` (K,) of the sources."""
    order = order_of(targets, rows)
    found, result = np.empty((3, len(order))), np.empty((3, len(order)))
    scale = 0.5 / width**2
    place = rows.starts, rows.counts, rows.corner, rows.side
    sorted_targets, a, b = np.ascontiguousarray(targets[:, order]), shares[rows.order], others[rows.order]
    with alone_below(len(order), _FEWEST):
        add_gaussian_slopes(sorted_targets, factors[order], rows.x, a, b, *place, scale, found)
    result[:, order] = found
    return result
