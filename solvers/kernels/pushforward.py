"""Densities pulled back by the maps x − τ∇φ(x) of c-concave potentials, and what a dual ascent does with them, row by row.

Rows are shared out to threads and every row has its own sums, so that nothing depends on the number of threads.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import kernel, parallel_kernel, prange

POWER, ENTROPY, CONGESTION = range(3)
"""Kinds of internal energies u: c ρ^m/(m − 1), T ρ log ρ and ε ρ²/2 where ρ ≤ 1."""
MASS, SLOPE, CONJUGATE = range(3)
"""Columns of the sums of ``fill_density``."""
SIZE, ASCENT, PUSHED = range(3)
"""Columns of the sums of ``fill_residual``."""


@parallel_kernel
def fill_density(
    phi: FloatArray, potential: FloatArray, shift: float, kind: int, exponent: float, coefficient: float, rho: FloatArray, sums: FloatArray
) -> None:
    """ρ = (u*)'(shift − φ − V), with the sums of ρ, (u*)'' and u* over each row, (n1, 3); ρ = 0 where V = ∞."""
    rows, n = phi.shape
    inner = (exponent - 1.0) / (coefficient * exponent)
    outer = 1.0 / (exponent - 1.0) if kind == POWER else 0.0
    share = (exponent - 1.0) / exponent
    for i in prange(rows):
        mass, slope, conjugate = 0.0, 0.0, 0.0
        for j in range(n):
            p = shift - phi[i, j] - potential[i, j]
            value, rise, star = 0.0, 0.0, 0.0
            if kind == ENTROPY:
                value = math.exp(p / coefficient - 1.0)
                rise = value / coefficient
                star = value * coefficient
            elif kind == CONGESTION:
                if p > 0.0:
                    value = min(p / coefficient, 1.0)
                    rise = 1.0 / coefficient if value < 1.0 else 0.0
                    star = value * (p - 0.5 * coefficient * value)
            elif exponent < 1.0:
                if p > -math.inf:
                    value = math.inf if p >= 0.0 else (inner * p) ** outer
                    rise = value * outer / p if p < 0.0 else math.inf
                    star = share * value * p
            elif p > 0.0:
                value = inner * p if exponent == 2.0 else (inner * p) ** outer
                rise = inner if exponent == 2.0 else value * outer / p
                star = share * value * p
            rho[i, j] = value
            mass += value
            slope += rise
            conjugate += star
        sums[i, MASS], sums[i, SLOPE], sums[i, CONJUGATE] = mass, slope, conjugate


@kernel
def _sample(mu: FloatArray, a: float, b: float) -> float:
    """μ at (a, b), counted in cells from the first centre, by bilinear interpolation."""
    n1, n2 = mu.shape
    a = min(max(a, 0.0), n1 - 1.0)
    b = min(max(b, 0.0), n2 - 1.0)
    i, j = int(a), int(b)
    a -= i
    b -= j
    i1, j1 = min(i + 1, n1 - 1), min(j + 1, n2 - 1)
    return (1.0 - a) * ((1.0 - b) * mu[i, j] + b * mu[i, j1]) + a * ((1.0 - b) * mu[i1, j] + b * mu[i1, j1])


@parallel_kernel
def fill_residual(
    phi: FloatArray, mu: FloatArray, other: FloatArray, time_1: float, time_2: float, residual: FloatArray, sums: FloatArray
) -> None:
    """other − μ(S) det DS with S = x − τ∇φ, all (n1, n2), and the sums over each row of its size, of nothing yet and of μ(S) det DS.

    ``time_k`` = τ/h_k², none along an axis of one cell. φ is continued by reflection beyond walls. [Jacobs–Lee–Léger 2021, §3]
    """
    n1, n2 = phi.shape
    cross_time = 0.25 * math.sqrt(time_1 * time_2)
    for i in prange(n1):
        i0, i1 = max(i - 1, 0), min(i + 1, n1 - 1)
        size, pushed = 0.0, 0.0
        for j in range(n2):
            j0, j1 = max(j - 1, 0), min(j + 1, n2 - 1)
            here = phi[i, j]
            a = i - 0.5 * time_1 * (phi[i1, j] - phi[i0, j])
            b = j - 0.5 * time_2 * (phi[i, j1] - phi[i, j0])
            stretch_1 = max(1.0 - time_1 * (phi[i1, j] - 2.0 * here + phi[i0, j]), 0.0)
            stretch_2 = max(1.0 - time_2 * (phi[i, j1] - 2.0 * here + phi[i, j0]), 0.0)
            shear = cross_time * (phi[i1, j1] - phi[i1, j0] - phi[i0, j1] + phi[i0, j0])
            value = _sample(mu, a, b) * max(stretch_1 * stretch_2 - shear * shear, 0.0)
            difference = other[i, j] - value
            residual[i, j] = difference
            size += abs(difference)
            pushed += value
        sums[i, SIZE], sums[i, PUSHED] = size, pushed
