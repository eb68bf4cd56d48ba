"""Loops of entropic minimising movements: Gibbs kernels along one axis in the log domain, and proximal maps cell by cell."""

import math

from mfpde.arrays import FloatArray
from mfpde.compile import kernel, parallel_kernel, prange, vector_kernel

_FAR = -38.0
"""Terms below exp of this beside the largest are beyond the last bit."""
_WRAPPED = 2.0
"""By how much the cost of a wrapped kernel may be below the square of the shortest way."""
_MOST, _ENOUGH = 100, 2e-16


@vector_kernel
def largest(values: FloatArray, cost: FloatArray, start: int, stop: int, top: float) -> float:
    """The largest of ``top`` and values − cost over a range of cells."""
    for j in range(start, stop):
        top = max(top, values[j] - cost[j])
    return top


@vector_kernel
def add_terms(values: FloatArray, cost: FloatArray, start: int, stop: int, top: float) -> float:
    """Σ exp(values − cost − top) over a range of cells."""
    total = 0.0
    for j in range(start, stop):
        term = values[j] - cost[j] - top
        if term > _FAR:
            total += math.exp(term)
    return total


@kernel
def smooth_row(values: FloatArray, cost: FloatArray, unit: float, periodic: bool, out: FloatArray) -> None:
    """out[i] = log Σ_j exp(values[j] − cost[i, j]), where cost grows like ``unit`` (i − j)².

    Cells are left out that are so far that their terms are beyond the last bit, whatever they hold.
    """
    n = values.size
    highest = values[0]
    for j in range(n):
        highest = max(highest, values[j])
    best = 0
    for i in range(n):
        row = cost[i]
        top = max(values[i] - row[i], values[best] - row[best])
        width = math.sqrt((highest - top - _FAR + _WRAPPED) / unit)
        reach = n if width >= n else int(width) + 1
        start, stop, low, high = max(i - reach, 0), min(i + reach + 1, n), n, 0
        if periodic and 2 * reach + 1 >= n:
            start, stop = 0, n
        elif periodic:
            low, high = min(n + i - reach, n), max(i + reach + 1 - n, 0)
        top = largest(values, row, start, stop, top)
        top = largest(values, row, low, n, top)
        top = largest(values, row, 0, high, top)
        while best < i and values[best + 1] - row[best + 1] >= values[best] - row[best]:
            best += 1
        total = add_terms(values, row, start, stop, top) + add_terms(values, row, low, n, top) + add_terms(values, row, 0, high, top)
        out[i] = top + math.log(total)


@parallel_kernel
def smooth(values: FloatArray, cost: FloatArray, unit: float, periodic: bool, out: FloatArray) -> None:
    """``smooth_row`` for every row of ``values`` and ``out`` (rows, n); each row is one thread's."""
    for row in prange(values.shape[0]):
        smooth_row(values[row], cost, unit, periodic, out[row])


@kernel
def smooth_alone(values: FloatArray, cost: FloatArray, unit: float, periodic: bool, out: FloatArray) -> None:
    """``smooth`` on one thread."""
    for row in range(values.shape[0]):
        smooth_row(values[row], cost, unit, periodic, out[row])


@kernel
def solve_logarithms(
    pressure: FloatArray, heat: float, exponents: FloatArray, coefficients: FloatArray, s: FloatArray, slope: FloatArray
) -> bool:
    """Fill s = log ρ with heat s + Σ c m/(m − 1) ρ^{m−1} = ``pressure``, and the derivative of the left side in s, (n,) each.

    Newton's method from the s that is given, bisecting where it leaves the bounds that it has met; returns whether all have settled.
    """
    settled = True
    for i in range(pressure.size):
        x, low, high, done = min(s[i], 300.0), -math.inf, math.inf, False
        for _ in range(_MOST):
            value, rise = heat * x - pressure[i], heat
            for k in range(exponents.size):
                power = coefficients[k] * exponents[k] * math.exp(min((exponents[k] - 1.0) * x, 700.0))
                value += power / (exponents[k] - 1.0)
                rise += power
            slope[i] = rise
            if value >= 0.0:
                high = x
            if value <= 0.0:
                low = x
            trial = x - value / rise
            if not low < trial < high and math.isfinite(low) and math.isfinite(high):
                trial = 0.5 * (low + high)
            moved, x = abs(trial - x), trial
            if moved <= _ENOUGH * max(abs(x), 1.0) or low == high:
                done = True
                break
        s[i] = x
        settled = settled and (done or moved <= 1e-12 * max(abs(x), 1.0))
    return settled
