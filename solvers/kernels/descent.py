"""What a step of gradient descent does to the atoms besides the velocity, in one pass over them each."""

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import kernel, parallel_kernel, prange

WALL, CIRCLE, FROZEN = 0, 1, 2
"""What the ends of an axis are."""
_BLOCKS = 16


@kernel
def _move_some(
    points: FloatArray,
    slope: FloatArray,
    dt: float,
    lower: FloatArray,
    upper: FloatArray,
    ends: IntArray,
    out: FloatArray,
    first: int,
    last: int,
) -> None:
    """points − dt slope from ``first`` to ``last``, stopped at walls and brought back into circles; NaN stays NaN."""
    for i in range(first, last):
        for k in range(lower.size):
            x = points[i, k]
            if ends[k] != FROZEN:
                x = x - dt * slope[i, k]
                if ends[k] == WALL:
                    x = lower[k] if x < lower[k] else upper[k] if x > upper[k] else x
                elif x < lower[k] or x >= upper[k]:
                    length = upper[k] - lower[k]
                    x = lower[k] + (x - lower[k]) % length
                    x = lower[k] if x >= upper[k] else x
            out[i, k] = x


@kernel
def _measure_some(
    points: FloatArray, slope: FloatArray, weights: FloatArray, lower: FloatArray, upper: FloatArray, ends: IntArray, first: int, last: int
) -> tuple[float, float]:
    """Σ w|θ̇|² of what no wall holds, and the mass at walls."""
    dissipation, wall = 0.0, 0.0
    for i in range(first, last):
        square, held = 0.0, False
        for k in range(lower.size):
            x, v = points[i, k], -slope[i, k]
            if ends[k] == FROZEN:
                v = 0.0
            if ends[k] != CIRCLE:
                low, high = x <= lower[k], x >= upper[k]
                held = held or low or high
                if (low and v < 0.0) or (high and v > 0.0):
                    v = 0.0
            square += v * v
        mass = weights[i] if weights.size > 1 else weights[0]
        dissipation += mass * square
        wall += mass if held else 0.0
    return dissipation, wall


@parallel_kernel
def _move_together(
    points: FloatArray, slope: FloatArray, dt: float, lower: FloatArray, upper: FloatArray, ends: IntArray, out: FloatArray
) -> None:
    share = (len(points) + _BLOCKS - 1) // _BLOCKS
    for block in prange(_BLOCKS):
        _move_some(points, slope, dt, lower, upper, ends, out, block * share, min((block + 1) * share, len(points)))


@parallel_kernel
def _measure_together(
    points: FloatArray, slope: FloatArray, weights: FloatArray, lower: FloatArray, upper: FloatArray, ends: IntArray, parts: FloatArray
) -> None:
    share = (len(points) + _BLOCKS - 1) // _BLOCKS
    for block in prange(_BLOCKS):
        parts[block] = _measure_some(points, slope, weights, lower, upper, ends, block * share, min((block + 1) * share, len(points)))


@kernel
def _measure_alone(
    points: FloatArray, slope: FloatArray, weights: FloatArray, lower: FloatArray, upper: FloatArray, ends: IntArray, parts: FloatArray
) -> None:
    share = (len(points) + _BLOCKS - 1) // _BLOCKS
    for block in range(_BLOCKS):
        parts[block] = _measure_some(points, slope, weights, lower, upper, ends, block * share, min((block + 1) * share, len(points)))


def move(
    points: FloatArray, slope: FloatArray, dt: float, lower: FloatArray, upper: FloatArray, ends: IntArray, *, together: bool
) -> FloatArray:
    """points − dt slope (N, d) in a box with these ``ends`` (d,); on all threads or on one."""
    out = np.empty(points.shape)
    if together:
        _move_together(points, slope, dt, lower, upper, ends, out)
    else:
        _move_some(points, slope, dt, lower, upper, ends, out, 0, len(points))
    return out


def measured(
    points: FloatArray, slope: FloatArray, weights: FloatArray, lower: FloatArray, upper: FloatArray, ends: IntArray, *, together: bool
) -> tuple[float, float]:
    """Σ w|θ̇|² of velocities −slope (N, d) that walls may hold, and the mass at walls; ``weights`` (N,), or (1,) where all are equal."""
    parts = np.empty((_BLOCKS, 2))
    (_measure_together if together else _measure_alone)(points, slope, weights, lower, upper, ends, parts)
    dissipation, wall = np.sum(parts, axis=0).tolist()
    return dissipation, wall
