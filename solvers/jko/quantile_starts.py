"""Where Newton's method for a step in the quantile function starts, and which of several minima is kept.

With the first variation ξ frozen, the best step takes the mass at z to argmin ξ(y) + |y − z|²/(2σ), a monotone map by the lower convex
envelope of ξ(y) + y²/(2σ): globally minimal for potentials, and a start beyond the barriers of other drifts.
"""

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.run import StepFailed
from mfpde.solvers.jko.quantile_energy import Objective, QuantileEnergy
from mfpde.solvers.jko.quantile_newton import Found, QuantileNewton, resting

_PLACES, _ROUNDS = 2049, 4
_LOWER, _KEPT = 1e-12, 0.1


class QuantileStarts:
    """Newton's method from one start where the objective is convex, from several where it need not be."""

    def __init__(self, energy: QuantileEnergy, newton: QuantileNewton) -> None:
        self._energy, self._newton = energy, newton
        places, kinks = np.linspace(energy.low, energy.high, _PLACES), energy.kinks
        if kinks is not None:
            places = np.concatenate([places, kinks.places, kinks.places - kinks.reach, kinks.places + kinks.reach])
        self._places = np.unique(np.clip(places, energy.low, energy.high))
        repulsive = bool(energy.logarithms) and all(pairs.strength > 0.0 for pairs in energy.logarithms.values())
        self.convex = repulsive and energy.coupled is None
        """Whether only round-off makes Newton's matrix indefinite where the drift's curvature does not."""

    def minimise(self, first: Objective, aim: FloatArray, here: FloatArray, sigma: float) -> tuple[Found, bool, bool]:
        """The lowest minimum found from the start ``first`` and from proximal points, whether there may be several, and whether one was
        lower than that from the first. ``here`` (n + 1,): levels of open cells, if internal energies need such. Raises StepFailed."""
        if self._energy.drift is None:
            return self._newton.minimise(first, aim, sigma), False, False
        slopes = self._energy.slopes(first.x, self._places)
        risky = 1.0 + sigma * _least(np.diff(slopes) / np.diff(self._places)) < 0.0
        if self._energy.ring or not (risky or self._energy.kinks is not None):
            return self._newton.minimise(first, aim, sigma), risky, False
        other = self._start(slopes, aim, here, sigma)
        low, high = (float(f([f(first.x), f(other), f(aim)])) for f in (np.min, np.max))
        between = (self._places[1:] > low) & (self._places[:-1] < high)
        risky = 1.0 + sigma * _least((np.diff(slopes) / np.diff(self._places))[between]) < 0.0
        if risky:
            return self._lowest(first, other, aim, here, sigma)
        first = resting(self._energy, first, aim, sigma)
        start = resting(self._energy, self._energy.objective(other, aim, sigma), aim, sigma)
        one, two = (start, first) if start.value < first.value else (first, start)
        try:
            return self._newton.minimise(one, aim, sigma), False, False
        except StepFailed:
            return self._newton.minimise(two, aim, sigma), False, False

    def _lowest(self, first: Objective, other: FloatArray, aim: FloatArray, here: FloatArray, sigma: float) -> tuple[Found, bool, bool]:
        """The best of the minima from ``first``, from ``other``, and from proximal points of what was found."""
        best: Found | None = None
        failure, iterations, lower = None, 0, False
        starts = [first, self._energy.objective(other, aim, sigma)]
        for _ in range(_ROUNDS):
            before = best
            for start in starts:
                try:
                    found = self._newton.minimise(start, aim, sigma)
                except StepFailed as failed:
                    failure = failed
                    continue
                iterations += found.iterations
                if best is None or found.at.value < best.at.value - _LOWER * (1.0 + abs(best.at.value)):
                    lower = lower or start is not first
                    best = found
            if best is None or best is before:
                break
            again = self._start(self._energy.slopes(best.at.x, self._places), aim, here, sigma)
            starts = [self._energy.objective(again, aim, sigma)]
        if best is None:
            assert failure is not None
            raise failure
        return Found(best.at, iterations, best.residual, best.bent), True, lower

    def _start(self, slopes: FloatArray, aim: FloatArray, here: FloatArray, sigma: float) -> FloatArray:
        """Proximal points of the levels ``aim`` (n + 1,) for these slopes of ξ, linear between the places; a little of ``here`` where cells
        must be open."""
        places = self._places
        heights = np.append(0.0, np.cumsum(0.5 * (slopes[1:] + slopes[:-1]) * np.diff(places))) + places**2 / (2.0 * sigma)
        corners = _envelope(places, heights)
        rises = np.diff(heights[corners]) / np.diff(places[corners])
        best = corners[np.searchsorted(rises, aim / sigma)]
        last = len(places) - 1
        force = slopes[best] + (places[best] - aim) / sigma
        lower = np.clip(np.where(force > 0.0, best - 1, best), 0, last - 1)
        left, right = (slopes[k] + (places[k] - aim) / sigma for k in (lower, lower + 1))
        inside = (left < 0.0) & (right > 0.0)
        share = np.where(inside, -left / np.where(inside, right - left, 1.0), 0.0)
        found = np.where(inside, places[lower] + share * (places[lower + 1] - places[lower]), places[best])
        found = np.maximum.accumulate(found)
        return np.asarray((1.0 - _KEPT) * found + _KEPT * here if self._energy.repelled else found)


def _least(bends: FloatArray) -> float:
    return float(np.min(bends, initial=np.inf))


def _envelope(x: FloatArray, y: FloatArray) -> IntArray:
    """The corners of the lower convex envelope of points in increasing order."""
    kept: list[int] = []
    px, py = x.tolist(), y.tolist()
    for k in range(len(px)):
        while len(kept) > 1:
            i, j = kept[-2], kept[-1]
            if (py[j] - py[i]) * (px[k] - px[i]) < (py[k] - py[i]) * (px[j] - px[i]):
                break
            kept.pop()
        kept.append(k)
    return np.array(kept, dtype=np.int64)
