"""Masses of points shared between the cells of a grid by smoothed indicators of the cells."""

import math

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.compile import kernel

_REACH = 6.0
_WIDEST = 4.0
_MOST = 52


@kernel
def share_masses(
    places: FloatArray,
    widths: FloatArray,
    masses: FloatArray,
    lower: FloatArray,
    spacing: FloatArray,
    cells: IntArray,
    periodic: BoolArray,
    out: FloatArray,
) -> None:
    """Add ``masses`` (N,) at ``places`` (N, 3) to the cells of a grid on three axes, ``out`` (size,).

    The indicator of [e, e'] becomes S((e' − x)/w) − S((e − x)/w) along each axis, with the widths w (N, 3) and
    S' = (15 − 10u² + u⁴)/8 · e^{−u²/2}/√(2π), of which the moments one to five vanish. The shares of a point sum to one; what is beyond
    a wall goes to the cell at it.
    """
    shares = np.empty((3, _MOST))
    first = np.empty(3, dtype=np.int64)
    count = np.empty(3, dtype=np.int64)
    for i in range(masses.size):
        for k in range(3):
            x = (places[i, k] - lower[k]) / spacing[k]
            width = min(widths[i, k] / spacing[k], _WIDEST)
            low = math.floor(x - _REACH * width)
            high = math.floor(x + _REACH * width)
            if not periodic[k]:
                low, high = min(max(low, 0), cells[k] - 1), min(max(high, 0), cells[k] - 1)
            below = 0.0
            for j in range(low, high + 1):
                above = 1.0
                if j < high:
                    u = (j + 1 - x) / width
                    above = 0.5 * (1.0 + math.erf(u * math.sqrt(0.5)))
                    above += (7.0 - u * u) * u / 8.0 * math.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
                shares[k, j - low] = above - below
                below = above
            first[k], count[k] = low, high - low + 1
        for a in range(count[0]):
            one = masses[i] * shares[0, a]
            row = (first[0] + a) % cells[0] * cells[1]
            for b in range(count[1]):
                two = one * shares[1, b]
                line = (row + (first[1] + b) % cells[1]) * cells[2]
                for c in range(count[2]):
                    out[line + (first[2] + c) % cells[2]] += two * shares[2, c]
