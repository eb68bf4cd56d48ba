"""Values at the edges of cells, from slopes of ρ^power, and their derivatives.

``power`` 0: none, 1: slopes of ρ [Carrillo–Chertock–Huang 2015]; with m − 1, in which porous media are nearly linear at a front, the
error there is smaller. The edge value lies between nothing (a tenth of the average for other powers than 1) and twice the average.
"""

import math

from mfpde.compile import kernel

LEAST = 0.1
PRESSURE_OUTFLOW = 2.35
"""Bound of the sum of both edge values over the average, which is 2 for slopes of ρ and at most 2.343 for powers of it from ½ on."""
_STEEPEST = 10.0


@kernel
def raised(value: float, power: float) -> float:
    """ρ^power."""
    if power == 1.0:
        return value
    if power == 2.0:
        return value * value
    if power == 0.5:
        return math.sqrt(value)
    return float(value**power)


@kernel
def root(value: float, power: float) -> float:
    """ρ from ρ^power."""
    if power == 1.0:
        return value
    if power == 2.0:
        return math.sqrt(value)
    if power == 0.5:
        return value * value
    return float(value ** (1.0 / power))


@kernel
def edge(before: float, here: float, beyond: float, inner: bool, power: float) -> float:
    """The value of a cell at its edge towards ``beyond``; ``before`` counts where the cell is ``inner``, not at a wall."""
    if power == 0.0:
        return here
    middle, last = raised(here, power), raised(beyond, power)
    rise = 0.25 * (last - raised(before, power)) if inner else 0.5 * (last - middle)
    least = 0.0 if power == 1.0 else LEAST * here
    return max(least, min(2.0 * here, root(max(middle + rise, 0.0), power)))


@kernel
def edge_slopes(before: float, here: float, beyond: float, inner: bool, power: float) -> tuple[float, float, float, float]:
    """The same value and its derivatives in ``before``, ``here`` and ``beyond``."""
    if power == 0.0:
        return here, 0.0, 1.0, 0.0
    middle, last = raised(here, power), raised(beyond, power)
    rise = 0.25 * (last - raised(before, power)) if inner else 0.5 * (last - middle)
    found = root(max(middle + rise, 0.0), power)
    least = 0.0 if power == 1.0 else LEAST
    if found >= 2.0 * here:
        return 2.0 * here, 0.0, 2.0, 0.0
    if found <= least * here:
        return least * here, 0.0, least, 0.0
    one, two, three = (-0.25, 1.0, 0.25) if inner else (0.0, 0.5, 0.5)
    if power != 1.0:
        one *= min((before / found) ** (power - 1.0), _STEEPEST) if before > 0.0 or power > 1.0 else _STEEPEST
        two *= (here / found) ** (power - 1.0)
        three *= min((beyond / found) ** (power - 1.0), _STEEPEST) if beyond > 0.0 or power > 1.0 else _STEEPEST
    return found, one, two, three
