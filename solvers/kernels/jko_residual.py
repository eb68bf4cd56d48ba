"""Proximal points of a function given by polynomials of degree seven on the cells of a box, for many atoms.

For each atom y minimises |y − z|²/2 + σ ξ(y) near a start, by Newton's method with safeguards; what leaves the box stops at its walls.
"""

import math

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.compile import fused_kernel, parallel_kernel, prange, vector_kernel

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
def line_newton(
    target: FloatArray, y: FloatArray, slopes: FloatArray, bounds: FloatArray, sigma: float, response: FloatArray
) -> tuple[float, float]:
    """One step of Newton's method for all atoms between walls, in place, without safeguards; the largest step and the least 1 + σξ''.

    ``slopes`` (cells, 8): the coefficients of ξ'; ``bounds`` (2,): the walls.
    """
    cells, low, high = len(slopes), bounds[0], bounds[1]
    inverse = cells / (high - low)
    largest, least = 0.0, 1.0
    for i in range(len(y)):
        x = y[i, 0]
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
