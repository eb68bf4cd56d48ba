"""Kernels of the distance on tables, and their sums over pairs of atoms in d = 1, 2, 3.

W = f(r) is tabulated by s = r² on pieces that halve towards 0, 64 or 512 to each octave, with a polynomial of degree five on each. The
leading bits of s as a floating-point number are the number of its piece, the others the place in it. So kernels that are infinite at 0 keep
their relative accuracy down to distances of 1e-15 of the domain.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import parallel_kernel, prange, vector_kernel
from mfpde.domain import Domain
from mfpde.energy.neighbours import BLOCK, bisect, columns, images, order_of, row_distance, row_span, rows_of
from mfpde.energy.pair_kernel import PairKernel

Radial = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""f and f' at distances (M,)."""

_BITS = (6, 9)
_OCTAVES = 100
_ULPS = 16
_NODES = 6
_PROBES = 4096
_ERROR = 2e-12
_ROUND_OFF = 1e-13


@dataclass(frozen=True, eq=False)
class RadialTable:
    """f(r) and f'(r)/r as polynomials of the place in a piece, (pieces, 6) each, lowest power first. The bits of s but the last
    ``shift`` are the number of the piece, beginning with ``first``; ``zero`` is the value at r = 0, where slopes vanish. Beyond ``reach``
    both are 0."""

    values: FloatArray
    slopes: FloatArray
    shift: int
    first: int
    zero: float
    reach: float


def radial_part(kernel: PairKernel) -> Radial | None:
    """f of W(x) = f(|x|), None where W depends on the direction."""
    rays, norms = kernel._probes, np.linalg.norm(kernel._probes, axis=1)

    def along(r: FloatArray) -> tuple[FloatArray, FloatArray]:
        x = np.zeros((len(r), kernel.domain.dimension))
        x[:, 0] = r
        return kernel.values(x), kernel.slopes(x)[:, 0]

    value, slope = along(norms)
    exact, slopes = kernel.values(rays), kernel.slopes(rays)
    radial = slope[:, None] * rays / np.where(norms > 0.0, norms, 1.0)[:, None]
    near = np.abs(value - exact) <= _ROUND_OFF * (np.abs(exact) + np.median(np.abs(exact)))
    steep = np.linalg.norm(slopes, axis=1)
    aligned = np.linalg.norm(radial - slopes, axis=1) <= 10.0 * _ROUND_OFF * (steep + np.median(steep))
    return along if bool(near.all() and aligned.all()) else None


def tabulate(radial: Radial, reach: float, zero: float) -> RadialTable | None:
    """The table up to a distance; None where f is not finite or varies too fast for its pieces, such as at a kink."""
    for bits in _BITS:
        table = _tabulate(radial, reach, zero, 52 - bits)
        if table is not None and _accurate(table, radial):
            return table
    return None


def reach_below(reach: float) -> float:
    """The longest distance up to ``reach`` at which a piece ends: tables of what has a kink at its end are to end there."""
    shift = 52 - _BITS[0]
    bits = (int(np.float64(reach * reach).view(np.int64)) >> shift) << shift
    return float(np.sqrt(np.int64(bits).view(np.float64)))


def _tabulate(radial: Radial, reach: float, zero: float, shift: int) -> RadialTable | None:
    last = (int(np.float64(reach * reach).view(np.int64)) - _ULPS) >> shift
    first = last - (_OCTAVES << (52 - shift))
    edges = (np.arange(first, last + 2, dtype=np.int64) << shift).view(np.float64)
    nodes = 0.5 + 0.5 * np.cos((np.arange(_NODES) + 0.5) * np.pi / _NODES)
    r = np.sqrt(edges[:-1, None] + nodes * np.diff(edges)[:, None])
    with np.errstate(all="ignore"):
        value, slope = (part.reshape(r.shape) for part in radial(r.ravel()))
        slope = slope / r
    if not (np.isfinite(value).all() and np.isfinite(slope).all()):
        return None
    inverse = np.linalg.inv(np.vander(nodes, increasing=True)).T
    return RadialTable(np.ascontiguousarray(value @ inverse), np.ascontiguousarray(slope @ inverse), shift, first, zero, reach)


def _accurate(table: RadialTable, radial: Radial) -> bool:
    generator = np.random.default_rng(6)
    r = table.reach * (1.0 - 1e-12) * np.concatenate([generator.random(_PROBES), 2.0 ** -generator.uniform(0.0, 40.0, _PROBES)])
    with np.errstate(all="ignore"):
        exact, steep = radial(r)
    bits = (r * r).view(np.int64)
    piece, place = (bits >> table.shift) - table.first, (bits & ((1 << table.shift) - 1)) * 2.0**-table.shift
    powers = place[:, None] ** np.arange(_NODES)
    value = np.sum(table.values[piece] * powers, axis=1)
    slope = np.sum(table.slopes[piece] * powers, axis=1) * r
    right = np.abs(value - exact) <= _ERROR * (np.abs(exact) + np.mean(np.abs(exact[:_PROBES])))
    along = np.abs(slope - steep) <= _ERROR * (np.abs(steep) + np.mean(np.abs(steep[:_PROBES])))
    return bool(right.all() and along.all())


# --- compiled sums -------------------------------------------------------------------------------------------------------


@vector_kernel
def potential_piece(
    x: FloatArray,
    a: FloatArray,
    start: int,
    end: int,
    p: float,
    q: float,
    r: float,
    turn: FloatArray,
    table: FloatArray,
    shift: int,
    first: int,
    zero: float,
    far: float,
) -> float:
    """Σ a_j f(|x_j − (p, q, r)|) over a piece of the sources; ``turn`` (6,) holds the circles' lengths and their inverses, 0 for lines."""
    total = 0.0
    mask, unit = (1 << shift) - 1, 2.0**-shift
    for j in range(start, end):
        u, v, w = x[0, j] - p, x[1, j] - q, x[2, j] - r
        u -= turn[0] * np.rint(u * turn[3])
        v -= turn[1] * np.rint(v * turn[4])
        w -= turn[2] * np.rint(w * turn[5])
        s = u * u + v * v + w * w
        bits = np.float64(s).view(np.int64)
        k = min(max((bits >> shift) - first, 0), table.shape[0] - 1)
        t = (bits & mask) * unit
        low = table[k, 0] + t * (table[k, 1] + t * table[k, 2])
        f = low + t * t * t * (table[k, 3] + t * (table[k, 4] + t * table[k, 5]))
        f = f if s > 0.0 else zero
        total += a[j] * f if s <= far else 0.0
    return total


@vector_kernel
def force_piece(
    x: FloatArray,
    a: FloatArray,
    start: int,
    end: int,
    p: float,
    q: float,
    r: float,
    turn: FloatArray,
    table: FloatArray,
    shift: int,
    first: int,
    zero: float,
    far: float,
) -> tuple[float, float, float]:
    """Σ a_j g (x_j − (p, q, r)) with g = f'(r)/r of the table, as in ``potential_piece``."""
    along_p, along_q, along_r = 0.0, 0.0, 0.0
    mask, unit = (1 << shift) - 1, 2.0**-shift
    for j in range(start, end):
        u, v, w = x[0, j] - p, x[1, j] - q, x[2, j] - r
        u -= turn[0] * np.rint(u * turn[3])
        v -= turn[1] * np.rint(v * turn[4])
        w -= turn[2] * np.rint(w * turn[5])
        s = u * u + v * v + w * w
        bits = np.float64(s).view(np.int64)
        k = min(max((bits >> shift) - first, 0), table.shape[0] - 1)
        t = (bits & mask) * unit
        low = table[k, 0] + t * (table[k, 1] + t * table[k, 2])
        f = low + t * t * t * (table[k, 3] + t * (table[k, 4] + t * table[k, 5]))
        f = a[j] * f if (s > 0.0) & (s <= far) else 0.0
        along_p += f * u
        along_q += f * v
        along_r += f * w
    return along_p, along_q, along_r


@parallel_kernel
def all_potentials(
    targets: FloatArray,
    x: FloatArray,
    a: FloatArray,
    turn: FloatArray,
    table: FloatArray,
    shift: int,
    first: int,
    zero: float,
    out: FloatArray,
) -> None:
    """out (M,) = Σ_j a_j f(|x_j − t|) for targets (3, M) and sources (3, K)."""
    count = targets.shape[1]
    for block in prange((count + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            p, q, r = targets[0, i], targets[1, i], targets[2, i]
            out[i] = potential_piece(x, a, 0, x.shape[1], p, q, r, turn, table, shift, first, zero, np.inf)


@parallel_kernel
def all_forces(
    targets: FloatArray,
    x: FloatArray,
    a: FloatArray,
    turn: FloatArray,
    table: FloatArray,
    shift: int,
    first: int,
    zero: float,
    out: FloatArray,
) -> None:
    """out (3, M) = Σ_j a_j g (x_j − t) for targets (3, M) and sources (3, K)."""
    count = targets.shape[1]
    for block in prange((count + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            p, q, r = targets[0, i], targets[1, i], targets[2, i]
            found = force_piece(x, a, 0, x.shape[1], p, q, r, turn, table, shift, first, zero, np.inf)
            out[0, i], out[1, i], out[2, i] = found


@parallel_kernel
def near_potentials(
    targets: FloatArray,
    x: FloatArray,
    a: FloatArray,
    starts: IntArray,
    counts: IntArray,
    corner: FloatArray,
    side: FloatArray,
    reach: float,
    turn: FloatArray,
    table: FloatArray,
    shift: int,
    first: int,
    zero: float,
    out: FloatArray,
) -> None:
    """out (M,) = Σ_j a_j f(|x_j − t|) for targets (3, M) over the sources of ``Rows`` within ``reach``."""
    count, far = targets.shape[1], reach * reach * (1.0 - 1e-12)
    for block in prange((count + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            p, q, r = targets[0, i], targets[1, i], targets[2, i]
            first_row, behind = row_span(p, corner[0], side[0], counts[0], reach)
            low, high = row_span(q, corner[1], side[1], counts[1], reach)
            total = 0.0
            for k in range(first_row, behind):
                across = row_distance(p, corner[0], side[0], k, counts[0])
                for m in range(low, high):
                    beside = row_distance(q, corner[1], side[1], m, counts[1])
                    left = far - across * across - beside * beside
                    if left >= 0.0:
                        half, row = math.sqrt(left) * (1.0 + 1e-9), k * counts[1] + m
                        start = bisect(x[2], starts[row], starts[row + 1], r - half)
                        end = bisect(x[2], start, starts[row + 1], r + half)
                        total += potential_piece(x, a, start, end, p, q, r, turn, table, shift, first, zero, far)
            out[i] = total


@parallel_kernel
def near_forces(
    targets: FloatArray,
    x: FloatArray,
    a: FloatArray,
    starts: IntArray,
    counts: IntArray,
    corner: FloatArray,
    side: FloatArray,
    reach: float,
    turn: FloatArray,
    table: FloatArray,
    shift: int,
    first: int,
    zero: float,
    out: FloatArray,
) -> None:
    """out (3, M) = Σ_j a_j g (x_j − t) for targets (3, M) over the sources of ``Rows`` within ``reach``."""
    count, far = targets.shape[1], reach * reach * (1.0 - 1e-12)
    for block in prange((count + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            p, q, r = targets[0, i], targets[1, i], targets[2, i]
            first_row, behind = row_span(p, corner[0], side[0], counts[0], reach)
            low, high = row_span(q, corner[1], side[1], counts[1], reach)
            along_p, along_q, along_r = 0.0, 0.0, 0.0
            for k in range(first_row, behind):
                across = row_distance(p, corner[0], side[0], k, counts[0])
                for m in range(low, high):
                    beside = row_distance(q, corner[1], side[1], m, counts[1])
                    left = far - across * across - beside * beside
                    if left >= 0.0:
                        half, row = math.sqrt(left) * (1.0 + 1e-9), k * counts[1] + m
                        start = bisect(x[2], starts[row], starts[row + 1], r - half)
                        end = bisect(x[2], start, starts[row + 1], r + half)
                        more = force_piece(x, a, start, end, p, q, r, turn, table, shift, first, zero, far)
                        along_p += more[0]
                        along_q += more[1]
                        along_r += more[2]
            out[0, i], out[1, i], out[2, i] = along_p, along_q, along_r


# --- the same for points of a domain -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CompiledPairs:
    """All pairs of a kernel of the distance, W = f(r), the shortest one along circles."""

    domain: Domain
    table: RadialTable

    @property
    def description(self) -> str:
        """For people."""
        return "all pairs, compiled"

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, d), as (M,)."""
        result = np.empty(len(at))
        table = self.table
        all_potentials(columns(at), columns(points), weights, self._turn, table.values, table.shift, table.first, table.zero, result)
        return result

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, d), as (M, d)."""
        result = np.empty((3, len(at)))
        table = self.table
        all_forces(columns(at), columns(points), weights, self._turn, table.slopes, table.shift, table.first, table.zero, result)
        return np.ascontiguousarray(-result[3 - at.shape[1] :].T)

    @property
    def _turn(self) -> FloatArray:
        """Lengths of the circles and their inverses, 0 for lines, (6,)."""
        turn = np.zeros((2, 3))
        length, periodic = self.domain.upper - self.domain.lower, self.domain.periodic
        turn[0, 3 - len(length) :] = np.where(periodic, length, 0.0)
        turn[1, 3 - len(length) :] = np.where(periodic, 1.0 / length, 0.0)
        return turn.ravel()


class NearPairs:
    """Sums of a table that ends at its ``reach``, over neighbours and, along circles, their images; ``pairs`` is about their number."""

    def __init__(self, domain: Domain, table: RadialTable, points: FloatArray, weights: FloatArray) -> None:
        found = images(points, domain, table.reach, mirrored=False)
        self.table, self.rows = table, rows_of(columns(found.points), table.reach)
        self.shares = weights[found.origin][self.rows.order]

    def potential(self, at: FloatArray) -> FloatArray:
        """At points (M, d), as (M,)."""
        found, order = np.empty(len(at)), self._order(at)
        rows, table, result = self.rows, self.table, np.empty(len(at))
        place = rows.x, self.shares, rows.starts, rows.counts, rows.corner, rows.side, table.reach, np.zeros(6)
        near_potentials(columns(at[order]), *place, table.values, table.shift, table.first, table.zero, found)
        result[order] = found
        return result

    def force(self, at: FloatArray) -> FloatArray:
        """The gradient at points (M, d), as (M, d)."""
        found, order = np.empty((3, len(at))), self._order(at)
        rows, table, result = self.rows, self.table, np.empty(at.shape)
        place = rows.x, self.shares, rows.starts, rows.counts, rows.corner, rows.side, table.reach, np.zeros(6)
        near_forces(columns(at[order]), *place, table.slopes, table.shift, table.first, table.zero, found)
        result[order] = -found[3 - at.shape[1] :].T
        return result

    def _order(self, at: FloatArray) -> IntArray:
        return order_of(columns(at), self.rows)
