"""Transforms min_x |x − y|²/(2τ) − φ(x) on a uniform grid in O(1) operations a cell: one axis after the other, line by line.

A line's transform is the lower envelope of parabolas of one width [Felzenszwalb–Huttenlocher 2012], between whose grid minimisers the
minimum is interpolated, so that smooth potentials keep their smoothness and quadratic ones are transformed exactly. Beyond walls a
potential is continued by reflection, and minimisers stay in the box. Lines are shared out in fixed blocks, so that nothing depends on
the number of threads.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import kernel, parallel_kernel, prange

_SHARP = 8.0
"""From a bend of so many times the cost's on, a potential that is not smooth is taken as having a kink."""
_ROWS = 8
"""Lines that are taken together, a cache line's worth of columns."""


@kernel
def _envelope(f: FloatArray, a: float, hull: IntArray, cuts: FloatArray) -> int:
    """Which parabolas a(i − x)² − f_i make up the lower envelope, and the ends of their ranges, cuts[:last]; returns ``last``."""
    scale = 0.5 / a
    hull[0] = 0
    last = 0
    for q in range(1, f.size):
        p = hull[last]
        cut = q - 0.5 - scale * (f[q] - f[p]) if p == q - 1 else 0.5 * (q + p) - scale * (f[q] - f[p]) / (q - p)
        while last > 0 and cut <= cuts[last - 1]:
            last -= 1
            p = hull[last]
            cut = 0.5 * (q + p) - scale * (f[q] - f[p]) / (q - p)
        cuts[last] = cut
        last += 1
        hull[last] = q
    return last


@kernel
def _higher_terms(third: float, fourth: float, shift: float, inverse: float) -> float:
    """What the quartic through five neighbours adds to the least value of the parabola through three."""
    square = shift * shift
    rise = (3.0 * square - 1.0) * (1.0 / 6.0) * third + shift * (2.0 * square - 1.0) * (1.0 / 12.0) * fourth
    return float(shift * (square - 1.0) * ((1.0 / 6.0) * third + (1.0 / 24.0) * shift * fourth) - 0.5 * rise * rise * inverse)


@kernel
def _lesser(one: float, two: float) -> float:
    """The smaller of two numbers of one sign, 0 for others."""
    if one * two <= 0.0:
        return 0.0
    return one if abs(one) < abs(two) else two


@kernel
def _at_kink(f: FloatArray, i: int, a: float, distance: float) -> float:
    """What the least value near i is below that at i, f being a parabola to either side whose bend is the lesser of two neighbours'."""
    before = f[i] - 2.0 * f[i - 1] + f[i - 2]
    here = f[i + 1] - 2.0 * f[i] + f[i - 1]
    after = f[i + 2] - 2.0 * f[i + 1] + f[i]
    least = 0.0
    for side in (-1, 1):
        bend = _lesser(here, after if side > 0 else before)
        rise = f[i + side] - f[i]
        stiff = 2.0 * a - bend
        if stiff > 0.0:
            s = min(max((rise - 2.0 * a * distance * side - 0.5 * bend) / stiff, 0.0), 0.5)
            least = min(least, a * s * (2.0 * distance * side + s) - s * rise - 0.5 * bend * s * (s - 1.0))
    return least


@kernel
def transform_line(f: FloatArray, a: float, hull: IntArray, cuts: FloatArray, g: FloatArray) -> None:
    """g_j = min_x a(x − j)² − f(x) along one line, (n,); ``hull`` and ``cuts`` (n,) are scratch."""
    n = f.size
    last = _envelope(f, a, hull, cuts)
    cuts[last] = math.inf
    k = 0
    for j in range(n):
        while cuts[k] < j:
            k += 1
        i = hull[k]
        here = f[i]
        below = f[i - 1] if i > 0 else 3.0 * (here - f[1]) + f[2] if n > 2 else here
        above = f[i + 1] if i < n - 1 else 3.0 * (here - f[n - 2]) + f[n - 3] if n > 2 else here
        slope = 2.0 * a * (i - j) - 0.5 * (above - below)
        bend = 2.0 * a - (above - 2.0 * here + below)
        value = a * (i - j) * (i - j) - here
        if bend > 0.0:
            inverse = 1.0 / bend
            shift = min(max(-slope * inverse, -0.5), 0.5)
            change = shift * (slope + 0.5 * bend * shift)
            if 1 < i < n - 2:
                third = 0.5 * (f[i - 2] - f[i + 2]) + above - below
                fourth = 4.0 * (above + below) - 6.0 * here - f[i + 2] - f[i - 2]
                if abs(third) + abs(fourth) <= 0.25 * bend:
                    change += _higher_terms(third, fourth, shift, inverse)
                elif bend > _SHARP * a:
                    change = _at_kink(f, i, a, float(i - j))
            value += change
        g[j] = value


@parallel_kernel
def _along_rows(f: FloatArray, a: float, out: FloatArray) -> None:
    rows, n = f.shape
    for block in prange((rows + _ROWS - 1) // _ROWS):
        hull, cuts = np.empty(n, dtype=np.int64), np.empty(n)
        for row in range(block * _ROWS, min((block + 1) * _ROWS, rows)):
            transform_line(f[row], a, hull, cuts, out[row])


@parallel_kernel
def _along_columns(f: FloatArray, a: float, out: FloatArray) -> None:
    """As along rows for −f, of which some columns are copied at a time."""
    n, columns = f.shape
    for block in prange((columns + _ROWS - 1) // _ROWS):
        hull, cuts = np.empty(n, dtype=np.int64), np.empty(n)
        lines, found = np.empty((_ROWS, n)), np.empty((_ROWS, n))
        start = block * _ROWS
        width = min(_ROWS, columns - start)
        for i in range(n):
            for k in range(width):
                lines[k, i] = -f[i, start + k]
        for k in range(width):
            transform_line(lines[k], a, hull, cuts, found[k])
        for i in range(n):
            for k in range(width):
                out[i, start + k] = found[k, i]


def c_transform(potential: FloatArray, stiffness: tuple[float, float], scratch: FloatArray, out: FloatArray) -> None:
    """out(y) = min_x Σ_k stiffness_k (x_k − y_k)² − potential(x), all (n1, n2), distances counted in cells: stiffness_k = h_k²/(2τ).

    ``out`` may be ``potential``. An axis of one cell is left out. [Jacobs–Lee–Léger 2021, §3]
    """
    if potential.shape[0] == 1:
        _along_rows(potential, stiffness[1], out)
        return
    if potential.shape[1] == 1:
        np.negative(potential, out=scratch)
        _along_columns(scratch, stiffness[0], out)
        return
    _along_rows(potential, stiffness[1], scratch)
    _along_columns(scratch, stiffness[0], out)
