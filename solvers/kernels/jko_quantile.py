"""Minimising movements in quantile functions: the objective on cells of fixed masses, its gradient and tridiagonal Hessian.

X is linear between the mass levels, so that cell i carries the mass m_i from x_i to x_{i+1} with the density m_i/(x_{i+1} − x_i).
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import fused_kernel, kernel, sum_kernel, vector_kernel


@fused_kernel
def assemble(
    x: FloatArray,
    target: FloatArray,
    masses: FloatArray,
    tau: float,
    temperature: float,
    exponents: FloatArray,
    coefficients: FloatArray,
    places: FloatArray,
    shares: FloatArray,
    slopes: FloatArray,
    curvatures: FloatArray,
    gradient: FloatArray,
    diagonal: FloatArray,
    upper: FloatArray,
) -> float:
    """Fill gradient (n + 1,), diagonal (n + 1,) and the elements above it (n,); returns ∫|X − target|²/(2τ) + internal energy.

    ``slopes`` and ``curvatures`` (n, q) are those of the drift's potential at the quadrature ``places`` (q,) of every cell, whose
    ``shares`` (q,) of the cell's mass sum to one; q may be 0. Infinite, with nothing filled to the end, where a cell is turned over.
    """
    value, behind, stiffness = 0.0, 0.0, 0.0
    for i in range(len(masses)):
        mass, width = masses[i], x[i + 1] - x[i]
        if width < 0.0 or (width == 0.0 and (temperature > 0.0 or len(exponents) > 0)):
            return math.inf
        rho, pressure, firm = mass / width if width > 0.0 else 0.0, 0.0, 0.0
        if temperature > 0.0:
            pressure = temperature * rho
            firm = pressure
            value += temperature * mass * math.log(rho)
        for k in range(len(exponents)):
            m, c = exponents[k], coefficients[k]
            power = rho * rho if m == 2.0 else (rho * rho) * (rho * rho) if m == 4.0 else rho * rho * rho if m == 3.0 else rho**m
            pressure += c * power
            firm += c * m * power
            value += c * power * width / (m - 1.0)
        firm = firm / width if width > 0.0 else 0.0
        a, b, scale = x[i] - target[i], x[i + 1] - target[i + 1], mass / (6.0 * tau)
        value += scale * (a * a + a * b + b * b)
        left, right = pressure + scale * (2.0 * a + b), scale * (a + 2.0 * b) - pressure
        first, last, between = firm + 2.0 * scale, firm + 2.0 * scale, scale - firm
        for k in range(len(places)):
            p, w = places[k], mass * shares[k]
            left += w * (1.0 - p) * slopes[i, k]
            right += w * p * slopes[i, k]
            first += w * (1.0 - p) * (1.0 - p) * curvatures[i, k]
            last += w * p * p * curvatures[i, k]
            between += w * p * (1.0 - p) * curvatures[i, k]
        gradient[i], diagonal[i], upper[i] = behind + left, stiffness + first, between
        behind, stiffness = right, last
    gradient[len(masses)], diagonal[len(masses)] = behind, stiffness
    return value


@fused_kernel
def add_interpolated(table: FloatArray, places: FloatArray, low: float, high: float, out: FloatArray) -> None:
    """Add to ``out`` (q,) the values at ``places`` of a piecewise linear function, given at evenly spaced places by ``table`` (k,)."""
    last = len(table) - 1
    per = last / (high - low)
    for i in range(len(places)):
        place = min(max((places[i] - low) * per, 0.0), float(last))
        cell = min(int(place), last - 1)
        out[i] += table[cell] + (place - cell) * (table[cell + 1] - table[cell])


@fused_kernel
def fill_interpolated(tables: FloatArray, places: FloatArray, weights: FloatArray, low: float, high: float, out: FloatArray) -> None:
    """``out`` (r, q): the same for the rows of ``tables`` (r, k + 1), whose last values stand twice, times ``weights`` (q,)."""
    last = tables.shape[1] - 2
    per = last / (high - low)
    for i in range(len(places)):
        place = min(max((places[i] - low) * per, 0.0), float(last))
        cell, weight = int(place), weights[i]
        share = place - cell
        for k in range(len(tables)):
            out[k, i] = weight * (tables[k, cell] + share * (tables[k, cell + 1] - tables[k, cell]))


@fused_kernel
def factor(diagonal: FloatArray, upper: FloatArray, inverse: FloatArray) -> bool:
    """Fill the inverse pivots (n + 1,) of the symmetric tridiagonal matrix; False where it is not positive definite."""
    pivot = diagonal[0]
    if not pivot > 0.0:
        return False
    inverse[0] = 1.0 / pivot
    for i in range(len(upper)):
        pivot = diagonal[i + 1] - upper[i] * upper[i] * inverse[i]
        if not pivot > 0.0:
            return False
        inverse[i + 1] = 1.0 / pivot
    return True


@fused_kernel
def substitute(upper: FloatArray, inverse: FloatArray, column: FloatArray) -> None:
    """Solve for one right-hand side (n + 1,) in place."""
    for i in range(len(upper)):
        column[i + 1] -= upper[i] * inverse[i] * column[i]
    column[-1] *= inverse[-1]
    for i in range(len(upper) - 1, -1, -1):
        column[i] = (column[i] - upper[i] * column[i + 1]) * inverse[i]


@fused_kernel
def substitute_all(upper: FloatArray, inverse: FloatArray, right: FloatArray) -> None:
    """Solve for the columns of ``right`` (n + 1, k) in place."""
    last, columns = len(upper), right.shape[1]
    for i in range(last):
        share = upper[i] * inverse[i]
        for j in range(columns):
            right[i + 1, j] -= share * right[i, j]
    for j in range(columns):
        right[last, j] *= inverse[last]
    for i in range(last - 1, -1, -1):
        for j in range(columns):
            right[i, j] = (right[i, j] - upper[i] * right[i + 1, j]) * inverse[i]


@vector_kernel
def longest(x: FloatArray, step: FloatArray) -> float:
    """The largest multiple of the step along which no open cell is turned over; infinite where there is none."""
    most = 0.0
    for i in range(len(x) - 1):
        width, change = x[i + 1] - x[i], step[i + 1] - step[i]
        most = max(most, -change / width if width > 0.0 else 0.0)
    return 1.0 / most if most > 0.0 else math.inf


@sum_kernel
def square_distance(x: FloatArray, y: FloatArray, masses: FloatArray) -> float:
    """W₂² = ∫|X − Y|² of two quantile functions with the same levels."""
    total = 0.0
    for i in range(len(masses)):
        a, b = x[i] - y[i], x[i + 1] - y[i + 1]
        total += masses[i] * (a * a + a * b + b * b)
    return total / 3.0


@kernel
def pool(x: FloatArray, weights: FloatArray) -> FloatArray:
    """The nearest values (n,) to x that do not decrease, by pooling adjacent violators."""
    means, masses, counts, blocks = np.empty(len(x)), np.empty(len(x)), np.empty(len(x), dtype=np.int64), 0
    for i in range(len(x)):
        means[blocks], masses[blocks], counts[blocks] = x[i], weights[i], 1
        blocks += 1
        while blocks > 1 and means[blocks - 2] >= means[blocks - 1]:
            total = masses[blocks - 2] + masses[blocks - 1]
            means[blocks - 2] = (means[blocks - 2] * masses[blocks - 2] + means[blocks - 1] * masses[blocks - 1]) / total
            masses[blocks - 2] = total
            counts[blocks - 2] += counts[blocks - 1]
            blocks -= 1
    result, place = np.empty(len(x)), 0
    for b in range(blocks):
        for _ in range(counts[b]):
            result[place] = means[b]
            place += 1
    return result


def internal_values(x: FloatArray, masses: FloatArray, temperature: float, exponent: float, coefficient: float) -> float:
    """The entropy, where the temperature is positive, or the power of the density of a quantile function."""
    widths = np.diff(x)
    if temperature > 0.0:
        return temperature * float(masses @ np.log(masses / widths))
    return coefficient / (exponent - 1.0) * float(np.sum((masses / widths) ** exponent * widths))
