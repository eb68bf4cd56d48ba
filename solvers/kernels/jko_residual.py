"""Proximal points of a function given by polynomials of degree seven on the cells of a box, for many atoms.

For each atom y minimises |y − z|²/2 + σ ξ(y) near a start, by Newton's method with safeguards; what leaves the box stops at its walls.
"""

import math

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.compile import fused_kernel, kernel, parallel_kernel, prange, vector_kernel
from mfpde.energy.stencil import polynomial_bends, polynomial_slopes, polynomial_value

_POINTS = 8
_BLOCKS = 16
_MOST = 60
_CLOSE, _QUADRATIC = 1e-15, 1e-7
_LEAST_BEND = 0.1


@fused_kernel
def _inside(x: float, low: float, high: float, periodic: bool) -> float:
    return x if periodic else min(max(x, low), high)


@fused_kernel
def line_some(
    target: FloatArray,
    y: FloatArray,
    table: FloatArray,
    start: int,
    end: int,
    box: FloatArray,
    round_: BoolArray,
    sigma: float,
    response: FloatArray,
) -> None:
    """On one axis: fill y (N, 1) in place and response (N, 1, 1), which is 1/(1 + σξ'') or 0 at a wall. ``table`` is (cells, 8)."""
    cells, low, high, periodic = len(table), box[0, 0], box[1, 0], round_[0]
    length = high - low
    inverse = cells / length
    for i in range(start, end):
        z, x, below, above = target[i, 0], _inside(y[i, 0], low, high, periodic), -math.inf, math.inf
        found = 0.0
        for _ in range(_MOST):
            place = (x - low) * inverse
            if periodic:
                place -= cells * math.floor(place / cells)
            k = min(max(int(place), 0), cells - 1)
            t, slope, bend = 2.0 * (place - k) - 1.0, 0.0, 0.0
            for j in range(_POINTS - 1, 0, -1):
                bend = bend * t + slope
                slope = slope * t + j * table[k, j]
            g = x - z + sigma * 2.0 * inverse * slope
            h = 1.0 + sigma * 4.0 * inverse * inverse * bend
            if not periodic and ((x <= low and g >= 0.0) or (x >= high and g <= 0.0)):
                found = 0.0
                break
            found = 1.0 / max(h, _LEAST_BEND)
            if abs(g) <= _CLOSE * length:
                break
            if g > 0.0:
                above = x
            else:
                below = x
            step = -g * found
            new = _inside(x + step, low, high, periodic)
            safe = h >= _LEAST_BEND and below < new < above
            if not safe and not (below < new < above):
                new = 0.5 * (below + above) if math.isfinite(below) and math.isfinite(above) else new
            moved = abs(new - x)
            x = new
            if moved <= _CLOSE * length or (safe and moved <= _QUADRATIC * length):
                break
        y[i, 0], response[i, 0, 0] = x, found


@vector_kernel
def shift_some(
    points: FloatArray, rows: FloatArray, start: int, end: int, cells: IntArray, lower: FloatArray, inverse: FloatArray, out: FloatArray
) -> None:
    """Points plus piecewise polynomials, for those from ``start`` to ``end``, into ``out`` (N, d), d being one or two. ``rows`` (d cells
    8^d,) starts at a cache line and holds the coefficients along each axis in turn; ``lower`` and ``inverse`` (d,) place the cells."""
    m0 = cells[0]
    if points.shape[1] == 1:
        for i in range(start, end):
            a = (points[i, 0] - lower[0]) * inverse[0]
            j = min(max(int(a), 0), m0 - 1)
            t, k = 2.0 * (a - j) - 1.0, 8 * j
            high = rows[k + 4] + t * (rows[k + 5] + t * (rows[k + 6] + t * rows[k + 7]))
            out[i, 0] = points[i, 0] + rows[k] + t * (rows[k + 1] + t * (rows[k + 2] + t * (rows[k + 3] + t * high)))
    else:
        m1 = cells[1]
        for i in range(start, end):
            a, b = (points[i, 0] - lower[0]) * inverse[0], (points[i, 1] - lower[1]) * inverse[1]
            j, k = min(max(int(a), 0), m0 - 1), min(max(int(b), 0), m1 - 1)
            place, t = 64 * (j * m1 + k), (2.0 * (a - j) - 1.0, 2.0 * (b - k) - 1.0)
            out[i, 0] = points[i, 0] + polynomial_value(rows, place, t)
            out[i, 1] = points[i, 1] + polynomial_value(rows, place + 64 * m0 * m1, t)


@parallel_kernel
def shift_together(points: FloatArray, rows: FloatArray, cells: IntArray, lower: FloatArray, inverse: FloatArray, out: FloatArray) -> None:
    """``shift_some`` of all points, on all threads."""
    for b in prange(_BLOCKS):
        shift_some(points, rows, b * len(points) // _BLOCKS, (b + 1) * len(points) // _BLOCKS, cells, lower, inverse, out)


@vector_kernel
def line_newton_some(
    target: FloatArray, y: FloatArray, slopes: FloatArray, start: int, end: int, box: FloatArray, sigma: float, response: FloatArray
) -> tuple[float, float]:
    """One step of Newton's method between walls for the atoms from ``start`` to ``end``, in place, without safeguards; the largest step
    and the least 1 + σξ''. ``slopes`` (cells, 8): the coefficients of ξ'."""
    cells, low, high = len(slopes), box[0, 0], box[1, 0]
    inverse = cells / (high - low)
    largest, least = 0.0, 1.0
    for i in range(start, end):
        x = min(max(y[i, 0], low), high)
        place = (x - low) * inverse
        k = min(max(int(place), 0), cells - 1)
        t = 2.0 * (place - k) - 1.0
        c2, c3, c4, c5, c6 = slopes[k, 2], slopes[k, 3], slopes[k, 4], slopes[k, 5], slopes[k, 6]
        slope = slopes[k, 0] + t * (slopes[k, 1] + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * c6)))))
        bend = slopes[k, 1] + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + t * (5.0 * c5 + t * 6.0 * c6))))
        g, h = x - target[i, 0] + sigma * slope, 1.0 + sigma * 2.0 * inverse * bend
        held = (x <= low and g >= 0.0) or (x >= high and g <= 0.0)
        found = 0.0 if held else 1.0 / h
        new = min(max(x - g * found, low), high)
        largest, least = max(largest, abs(new - x)), min(least, h)
        y[i, 0], response[i, 0, 0] = new, found
    return largest, least


@parallel_kernel
def line_newton_together(
    target: FloatArray, y: FloatArray, slopes: FloatArray, box: FloatArray, sigma: float, response: FloatArray
) -> tuple[float, float]:
    """``line_newton_some`` of all atoms, on all threads."""
    steps, bends = np.zeros(_BLOCKS), np.ones(_BLOCKS)
    for b in prange(_BLOCKS):
        start, end = b * len(y) // _BLOCKS, (b + 1) * len(y) // _BLOCKS
        steps[b], bends[b] = line_newton_some(target, y, slopes, start, end, box, sigma, response)
    return np.max(steps), np.min(bends)


@vector_kernel
def line_rest(
    target: FloatArray, y: FloatArray, weights: FloatArray, slopes: FloatArray, start: int, end: int, box: FloatArray, sigma: float
) -> tuple[float, float]:
    """Σ w|(y − z)/σ + ξ'|² without what walls hold, and Σ w|y − z|², of the atoms from ``start`` to ``end``."""
    cells, low, high = len(slopes), box[0, 0], box[1, 0]
    inverse = cells / (high - low)
    rest, moved = 0.0, 0.0
    for i in range(start, end):
        x, apart = y[i, 0], y[i, 0] - target[i, 0]
        place = (x - low) * inverse
        k = min(max(int(place), 0), cells - 1)
        t = 2.0 * (place - k) - 1.0
        high_part = slopes[k, 3] + t * (slopes[k, 4] + t * (slopes[k, 5] + t * slopes[k, 6]))
        g = apart / sigma + slopes[k, 0] + t * (slopes[k, 1] + t * (slopes[k, 2] + t * high_part))
        held = (x <= low and g >= 0.0) or (x >= high and g <= 0.0)
        rest += 0.0 if held else weights[i] * g * g
        moved += weights[i] * apart * apart
    return rest, moved


@vector_kernel
def plane_rest(
    target: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    rows: FloatArray,
    start: int,
    end: int,
    cells: IntArray,
    box: FloatArray,
    sigma: float,
) -> tuple[float, float]:
    """``line_rest`` in a rectangle; ``rows`` as for ``plane_newton_some``."""
    low0, low1, high0, high1, m0, m1 = box[0, 0], box[0, 1], box[1, 0], box[1, 1], cells[0], cells[1]
    s0, s1 = m0 / (high0 - low0), m1 / (high1 - low1)
    rest, moved = 0.0, 0.0
    for i in range(start, end):
        x0, x1 = y[i, 0], y[i, 1]
        apart0, apart1 = x0 - target[i, 0], x1 - target[i, 1]
        a, b = (x0 - low0) * s0, (x1 - low1) * s1
        j, k = min(max(int(a), 0), m0 - 1), min(max(int(b), 0), m1 - 1)
        found = polynomial_slopes(rows, 64 * (j * m1 + k), (2.0 * (a - j) - 1.0, 2.0 * (b - k) - 1.0))
        g0, g1 = apart0 / sigma + 2.0 * s0 * found[0], apart1 / sigma + 2.0 * s1 * found[1]
        held0 = (x0 <= low0 and g0 >= 0.0) or (x0 >= high0 and g0 <= 0.0)
        held1 = (x1 <= low1 and g1 >= 0.0) or (x1 >= high1 and g1 <= 0.0)
        rest += weights[i] * ((0.0 if held0 else g0 * g0) + (0.0 if held1 else g1 * g1))
        moved += weights[i] * (apart0 * apart0 + apart1 * apart1)
    return rest, moved


@parallel_kernel
def rest_together(
    target: FloatArray, y: FloatArray, weights: FloatArray, rows: FloatArray, cells: IntArray, box: FloatArray, sigma: float
) -> tuple[float, float]:
    """``plane_rest`` of all atoms or, with (cells, 8) ``rows`` in a row, ``line_rest``, on all threads."""
    rests, moves = np.zeros(_BLOCKS), np.zeros(_BLOCKS)
    for b in prange(_BLOCKS):
        start, end = b * len(y) // _BLOCKS, (b + 1) * len(y) // _BLOCKS
        if y.shape[1] == 1:
            rests[b], moves[b] = line_rest(target, y, weights, rows.reshape((cells[0], _POINTS)), start, end, box, sigma)
        else:
            rests[b], moves[b] = plane_rest(target, y, weights, rows, start, end, cells, box, sigma)
    return np.sum(rests), np.sum(moves)


@kernel
def rest_alone(
    target: FloatArray, y: FloatArray, weights: FloatArray, rows: FloatArray, cells: IntArray, box: FloatArray, sigma: float
) -> tuple[float, float]:
    """The same on one thread."""
    rests, moves = np.zeros(_BLOCKS), np.zeros(_BLOCKS)
    for b in range(_BLOCKS):
        start, end = b * len(y) // _BLOCKS, (b + 1) * len(y) // _BLOCKS
        if y.shape[1] == 1:
            rests[b], moves[b] = line_rest(target, y, weights, rows.reshape((cells[0], _POINTS)), start, end, box, sigma)
        else:
            rests[b], moves[b] = plane_rest(target, y, weights, rows, start, end, cells, box, sigma)
    return np.sum(rests), np.sum(moves)


@vector_kernel
def plane_newton_some(
    target: FloatArray,
    y: FloatArray,
    rows: FloatArray,
    start: int,
    end: int,
    cells: IntArray,
    box: FloatArray,
    sigma: float,
    response: FloatArray,
) -> tuple[float, float]:
    """``line_newton_some`` between the walls of a rectangle, for the atoms from ``start`` to ``end``; ``rows`` (64 · cells,) starts at a
    cache line and holds the coefficients of ξ."""
    low0, low1, high0, high1, m0, m1 = box[0, 0], box[0, 1], box[1, 0], box[1, 1], cells[0], cells[1]
    s0, s1 = m0 / (high0 - low0), m1 / (high1 - low1)
    largest, least = 0.0, 1.0
    for i in range(start, end):
        x0, x1 = min(max(y[i, 0], low0), high0), min(max(y[i, 1], low1), high1)
        a, b = (x0 - low0) * s0, (x1 - low1) * s1
        j, k = min(max(int(a), 0), m0 - 1), min(max(int(b), 0), m1 - 1)
        found = polynomial_bends(rows, 64 * (j * m1 + k), (2.0 * (a - j) - 1.0, 2.0 * (b - k) - 1.0))
        g0, g1 = x0 - target[i, 0] + sigma * 2.0 * s0 * found[0], x1 - target[i, 1] + sigma * 2.0 * s1 * found[1]
        h00, h01 = 1.0 + sigma * 4.0 * s0 * s0 * found[2], sigma * 4.0 * s0 * s1 * found[3]
        h11 = 1.0 + sigma * 4.0 * s1 * s1 * found[4]
        held0 = (x0 <= low0 and g0 >= 0.0) or (x0 >= high0 and g0 <= 0.0)
        held1 = (x1 <= low1 and g1 >= 0.0) or (x1 >= high1 and g1 <= 0.0)
        h01 = 0.0 if held0 or held1 else h01
        least = min(least, 0.5 * (h00 + h11) - math.sqrt(0.25 * (h00 - h11) * (h00 - h11) + h01 * h01))
        inverse = 1.0 / (h00 * h11 - h01 * h01)
        r00, r01, r11 = 0.0 if held0 else h11 * inverse, -h01 * inverse, 0.0 if held1 else h00 * inverse
        new0, new1 = min(max(x0 - r00 * g0 - r01 * g1, low0), high0), min(max(x1 - r01 * g0 - r11 * g1, low1), high1)
        largest = max(largest, max(abs(new0 - x0), abs(new1 - x1)))
        y[i, 0], y[i, 1] = new0, new1
        response[i, 0, 0], response[i, 0, 1], response[i, 1, 0], response[i, 1, 1] = r00, r01, r01, r11
    return largest, least


@parallel_kernel
def plane_newton_together(
    target: FloatArray, y: FloatArray, rows: FloatArray, cells: IntArray, box: FloatArray, sigma: float, response: FloatArray
) -> tuple[float, float]:
    """``plane_newton_some`` of all atoms, on all threads."""
    steps, bends = np.zeros(_BLOCKS), np.ones(_BLOCKS)
    for b in prange(_BLOCKS):
        start, end = b * len(y) // _BLOCKS, (b + 1) * len(y) // _BLOCKS
        steps[b], bends[b] = plane_newton_some(target, y, rows, start, end, cells, box, sigma, response)
    return np.max(steps), np.min(bends)


@fused_kernel
def plane_some(
    target: FloatArray,
    y: FloatArray,
    table: FloatArray,
    start: int,
    end: int,
    box: FloatArray,
    round_: BoolArray,
    still: BoolArray,
    sigma: float,
    response: FloatArray,
) -> None:
    """On two axes, ``still`` (2,) where nothing moves: fill y (N, 2) in place and response (N, 2, 2), the inverse of 1 + σ∇²ξ on the
    directions that are free. ``table`` is (cells, cells, 8, 8)."""
    m0, m1 = table.shape[0], table.shape[1]
    low0, low1, high0, high1 = box[0, 0], box[0, 1], box[1, 0], box[1, 1]
    length = max(high0 - low0, high1 - low1)
    s0, s1 = m0 / (high0 - low0), m1 / (high1 - low1)
    for i in range(start, end):
        z0, z1 = target[i, 0], target[i, 1]
        x0 = z0 if still[0] else _inside(y[i, 0], low0, high0, round_[0])
        x1 = z1 if still[1] else _inside(y[i, 1], low1, high1, round_[1])
        old0, old1, before, share = x0, x1, math.inf, 1.0
        p0, p1, drop = 0.0, 0.0, 0.0
        r00, r01, r11 = 0.0, 0.0, 0.0
        for _ in range(_MOST):
            a, b = (x0 - low0) * s0, (x1 - low1) * s1
            if round_[0]:
                a -= m0 * math.floor(a / m0)
            if round_[1]:
                b -= m1 * math.floor(b / m1)
            j0, j1 = min(max(int(a), 0), m0 - 1), min(max(int(b), 0), m1 - 1)
            t, u = 2.0 * (a - j0) - 1.0, 2.0 * (b - j1) - 1.0
            v, vt, vu, vtt, vtu, vuu = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for j in range(_POINTS - 1, -1, -1):
                w, wu, wuu = 0.0, 0.0, 0.0
                for k in range(_POINTS - 1, -1, -1):
                    wuu = wuu * u + wu
                    wu = wu * u + w
                    w = w * u + table[j0, j1, j, k]
                vtt = vtt * t + vt
                vt = vt * t + v
                v = v * t + w
                vtu = vtu * t + vu
                vu = vu * t + wu
                vuu = vuu * t + wuu
            value = 0.5 * ((x0 - z0) * (x0 - z0) + (x1 - z1) * (x1 - z1)) + sigma * v
            if value > before - 1e-4 * share * drop + 1e-15 * (length * length + abs(before)) and share > 1e-6:
                share *= 0.5
                x0 = _inside(old0 + share * p0, low0, high0, round_[0])
                x1 = _inside(old1 + share * p1, low1, high1, round_[1])
                continue
            g0, g1 = x0 - z0 + sigma * 2.0 * s0 * vt, x1 - z1 + sigma * 2.0 * s1 * vu
            # the Horner scheme above leaves half the second derivatives along one axis, and vtu built from the slopes in t of vu
            h00, h11 = 1.0 + sigma * 8.0 * s0 * s0 * vtt, 1.0 + sigma * 8.0 * s1 * s1 * vuu
            h01 = sigma * 4.0 * s0 * s1 * vtu
            free0 = not still[0] and (round_[0] or not ((x0 <= low0 and g0 >= 0.0) or (x0 >= high0 and g0 <= 0.0)))
            free1 = not still[1] and (round_[1] or not ((x1 <= low1 and g1 >= 0.0) or (x1 >= high1 and g1 <= 0.0)))
            if not free0:
                g0, h01 = 0.0, 0.0
            if not free1:
                g1, h01 = 0.0, 0.0
            middle, apart = 0.5 * (h00 + h11), math.sqrt(0.25 * (h00 - h11) * (h00 - h11) + h01 * h01)
            shift = max(_LEAST_BEND - (middle - apart), 0.0)
            c00, c11 = h00 + shift, h11 + shift
            det = c00 * c11 - h01 * h01
            r00 = c11 / det if free0 else 0.0
            r11 = c00 / det if free1 else 0.0
            r01 = -h01 / det
            if not free0:
                r11 = 1.0 / max(h11, _LEAST_BEND) if free1 else 0.0
            if not free1:
                r00 = 1.0 / max(h00, _LEAST_BEND) if free0 else 0.0
            p0, p1 = -(r00 * g0 + r01 * g1), -(r01 * g0 + r11 * g1)
            drop = -(p0 * g0 + p1 * g1)
            size = max(abs(p0), abs(p1))
            if size <= _CLOSE * length:
                break
            old0, old1, before, share = x0, x1, value, 1.0
            x0, x1 = _inside(x0 + p0, low0, high0, round_[0]), _inside(x1 + p1, low1, high1, round_[1])
            if shift == 0.0 and size <= _QUADRATIC * length:
                break
        y[i, 0], y[i, 1] = x0, x1
        response[i, 0, 0], response[i, 0, 1], response[i, 1, 0], response[i, 1, 1] = r00, r01, r01, r11


@parallel_kernel
def line_together(
    target: FloatArray, y: FloatArray, table: FloatArray, box: FloatArray, round_: BoolArray, sigma: float, response: FloatArray
) -> None:
    """``line_some`` of all atoms, on all threads."""
    for b in prange(_BLOCKS):
        line_some(target, y, table, b * len(y) // _BLOCKS, (b + 1) * len(y) // _BLOCKS, box, round_, sigma, response)


@parallel_kernel
def plane_together(
    target: FloatArray,
    y: FloatArray,
    table: FloatArray,
    box: FloatArray,
    round_: BoolArray,
    still: BoolArray,
    sigma: float,
    response: FloatArray,
) -> None:
    """``plane_some`` of all atoms, on all threads."""
    for b in prange(_BLOCKS):
        plane_some(target, y, table, b * len(y) // _BLOCKS, (b + 1) * len(y) // _BLOCKS, box, round_, still, sigma, response)


@fused_kernel
def group(points: FloatArray, weights: FloatArray, response: FloatArray, cells: IntArray, groups: int) -> tuple[FloatArray, FloatArray]:
    """Barycentres (G, d) of the atoms that share a cell, and the sums of their weights times the responses, (G, d, d)."""
    dimension = points.shape[1]
    mass, middle, total = np.zeros(groups), np.zeros((groups, dimension)), np.zeros((groups, dimension, dimension))
    for i in range(len(points)):
        c, w = cells[i], weights[i]
        mass[c] += w
        for k in range(dimension):
            middle[c, k] += w * points[i, k]
            for m in range(dimension):
                total[c, k, m] += w * response[i, k, m]
    for c in range(groups):
        if mass[c] > 0.0:
            for k in range(dimension):
                middle[c, k] /= mass[c]
    return middle, total
