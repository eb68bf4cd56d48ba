"""One periodic axis: the best cut of the circle [Delon, Salomon, Sobolevski 2010]."""

from dataclasses import dataclass

import numpy as np

from mfpde.distance.line import Quantiles, cost_and_slope

_MOST = 200
_RELATIVE = 1e-14


@dataclass(frozen=True)
class _Trial:
    """The cost of one cut, by the shift of mass that it stands for, and a slope of the cost there."""

    shift: float
    cost: float
    slope: float


def on_circle(one: Quantiles, two: Quantiles, length: float, order: int) -> float:
    """W_p^p on a circle: the least cost over the shifts of mass.

    The cost is convex and its slope comes with it, so that tangents at both ends of a bracket bound the minimum from below; trials are
    where they meet (exact for atoms, whose cost is piecewise linear), where the secant of the slopes vanishes (fast for
    densities) and, where neither halves the bracket, in its middle. It ends when the bound and the least cost seen agree.
    """

    def trial(shift: float) -> _Trial:
        return _Trial(shift, *cost_and_slope(one, two, shift, length, order))

    found = trial(0.0)
    least = found.cost
    low, high = (found, trial(1.0)) if found.slope < 0.0 else (trial(-1.0), found)
    for count in range(_MOST):
        least = min(least, low.cost, high.cost)
        if least <= 0.0 or least - _bound(low, high) <= _RELATIVE * least or not low.slope < 0.0 < high.slope:
            break
        width = high.shift - low.shift
        place = (_crossing(low, high), _root(low, high), 0.5 * (low.shift + high.shift))[count % 3]
        if not low.shift < place < high.shift or width <= 4e-16:
            place = 0.5 * (low.shift + high.shift)
            if not low.shift < place < high.shift:
                break
        found = trial(place)
        low, high = (found, high) if found.slope < 0.0 else (low, found)
    best = low.shift if low.cost <= high.cost else high.shift
    return max(min(least, low.cost, high.cost, trial(_nearest_breakpoint(one, two, best)).cost), 0.0)


def _crossing(low: _Trial, high: _Trial) -> float:
    """Where the tangents at both ends meet."""
    return low.shift + (high.cost - low.cost - high.slope * (high.shift - low.shift)) / (low.slope - high.slope)


def _bound(low: _Trial, high: _Trial) -> float:
    """The height at which they do, below which no cost in between lies."""
    return low.cost + low.slope * (_crossing(low, high) - low.shift) if low.slope < high.slope else min(low.cost, high.cost)


def _root(low: _Trial, high: _Trial) -> float:
    """Where the line through both slopes vanishes."""
    return low.shift - low.slope * (high.shift - low.shift) / (high.slope - low.slope)


def _nearest_breakpoint(one: Quantiles, two: Quantiles, shift: float) -> float:
    """The shift nearest to ``shift`` at which two levels meet: atoms have their least cost at such a kink."""
    wanted = np.mod(one.levels - shift, 1.0)
    above = np.minimum(np.searchsorted(two.levels, wanted), len(two.levels) - 1)
    below = np.maximum(above - 1, 0)
    moves = np.concatenate([wanted - two.levels[above], wanted - two.levels[below]])
    return float(shift + moves[np.argmin(np.abs(moves))])
