"""One step of GMRES [Saad–Schultz 1986]: orthogonalisation by Gram–Schmidt done twice, and the least squares by Givens rotations."""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel


@sum_kernel
def extend(basis: FloatArray, step: int, triangle: FloatArray, turns: FloatArray, right: FloatArray) -> float:
    """Orthogonalise row ``step + 1`` of ``basis`` (most + 1, size) against those before and add its column to the triangular system.

    ``triangle`` (most + 1, most), ``turns`` (most, 2), ``right`` (most + 1,). Returns the residual of the least-squares problem so far.
    """
    vector = basis[step + 1]
    column = np.zeros(step + 2)
    for _ in range(2):
        for k in range(step + 1):
            share = 0.0
            for i in range(vector.size):
                share += basis[k, i] * vector[i]
            for i in range(vector.size):
                vector[i] -= share * basis[k, i]
            column[k] += share
    rest = 0.0
    for i in range(vector.size):
        rest += vector[i] * vector[i]
    rest = math.sqrt(rest)
    column[step + 1] = rest
    if rest > 0.0:
        for i in range(vector.size):
            vector[i] /= rest
    for k in range(step):
        above, below = column[k], column[k + 1]
        column[k] = turns[k, 0] * above + turns[k, 1] * below
        column[k + 1] = -turns[k, 1] * above + turns[k, 0] * below
    size = math.hypot(column[step], column[step + 1])
    turns[step, 0], turns[step, 1] = (column[step] / size, column[step + 1] / size) if size > 0.0 else (1.0, 0.0)
    column[step] = size
    right[step + 1] = -turns[step, 1] * right[step]
    right[step] *= turns[step, 0]
    for k in range(step + 1):
        triangle[k, step] = column[k]
    left: float = abs(right[step + 1])
    return left


@sum_kernel
def combine_basis(basis: FloatArray, steps: int, triangle: FloatArray, right: FloatArray, out: FloatArray) -> None:
    """The solution from ``steps`` columns: back substitution and the sum over the basis."""
    shares = right[:steps].copy()
    for k in range(steps - 1, -1, -1):
        for m in range(k + 1, steps):
            shares[k] -= triangle[k, m] * shares[m]
        shares[k] = shares[k] / triangle[k, k] if triangle[k, k] != 0.0 else 0.0
    out[:] = 0.0
    for k in range(steps):
        for i in range(out.size):
            out[i] += shares[k] * basis[k, i]
