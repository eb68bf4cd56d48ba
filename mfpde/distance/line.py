"""One axis: quantile functions of atoms and of piecewise constant densities, and the exact cost between them by a merge."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import Density, Measure

LARGE = 20_000
"""Intervals of mass from which on compiled loops, which take a second to load, are worth it."""


@dataclass(frozen=True, eq=False)
class Quantiles:
    """A quantile function that is linear on each interval of mass: cumulative mass (n + 1,), left and right ends (n,)."""

    levels: FloatArray
    left: FloatArray
    right: FloatArray

    def at(self, start: FloatArray, end: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values at both ends of mass intervals [start, end], none of which crosses a level."""
        middle = 0.5 * (start + end)
        place = np.clip(np.searchsorted(self.levels, middle, side="right") - 1, 0, len(self.left) - 1)
        width = self.levels[place + 1] - self.levels[place]
        base, rise = self.left[place], self.right[place] - self.left[place]
        first, last = (np.divide(u - self.levels[place], width, out=np.zeros_like(width), where=width > 0.0) for u in (start, end))
        return base + rise * first, base + rise * last


def quantiles(measure: Measure) -> Quantiles:
    """The quantile function of a measure on one axis, scaled to mass one."""
    if not isinstance(measure, Density):
        return quantiles_of_atoms(measure.points[:, 0], measure.weights)
    half = 0.5 * float(measure.grid.spacing[0])
    kept = measure.weights > 0.0
    points = measure.points[kept, 0]
    return Quantiles(cumulate(measure.weights[kept]), points - half, points + half)


def quantiles_of_atoms(points: FloatArray, weights: FloatArray) -> Quantiles:
    """The quantile function of atoms at ``points`` (N,). Equal weights have the levels k/N, without a sum, and need not be moved."""
    if np.all(weights == weights[0]):
        places, _ = sort_with(points, np.empty(0))
        return Quantiles(np.arange(len(points) + 1) / len(points), places, places)
    if not np.all(weights > 0.0):
        kept = weights > 0.0
        points, weights = points[kept], weights[kept]
    places, weights = sort_with(points, weights)
    return Quantiles(cumulate(weights), places, places)


def sort_with(points: FloatArray, carried: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``points`` (N,) in increasing order, and ``carried`` (N,), unless it is empty, in the order of its points."""
    if len(points) < LARGE:
        order = np.argsort(points, kind="stable")
        return points[order], carried[order] if len(carried) else carried
    from mfpde.distance.kernels import sort_bits

    keys, values = np.array(points, dtype=float).view(np.int64), np.array(carried, dtype=float)
    spare, spare_values = np.empty_like(keys), np.empty_like(values)
    if sort_bits(keys, values, spare, spare_values):
        keys, values = spare, spare_values
    return keys.view(np.float64), values


def cumulate(weights: FloatArray) -> FloatArray:
    """Running sums of positive weights (n,) from 0 to 1, (n + 1,); many are compensated."""
    levels = np.zeros(len(weights) + 1)
    if len(weights) < LARGE:
        np.cumsum(weights, out=levels[1:])
    else:
        from mfpde.distance.kernels import add_up

        add_up(np.ascontiguousarray(weights, dtype=float), levels)
    return np.asarray(levels / levels[-1])


def on_line(one: Quantiles, two: Quantiles, order: int) -> float:
    """∫|x(u) − y(u)|^p du, exactly: W_p^p on a line."""
    return cost_and_slope(one, two, 0.0, 0.0, order)[0]


def cost_and_slope(one: Quantiles, two: Quantiles, shift: float, length: float, order: int) -> tuple[float, float]:
    """∫|x(u) − y(u − shift)|^p du for y continued by y(u + 1) = y(u) + length, and its right derivative in ``shift``.

    A shift turns the circle of this length before it is cut; on a line there is none.
    """
    if len(one.left) + len(two.left) >= LARGE:
        from mfpde.distance.kernels import merge

        cost, slope = merge(one.levels, one.left, one.right, two.levels, two.left, two.right, float(shift), float(length), order)
        return float(cost), float(slope)
    other = _shifted(two, shift, length) if shift != 0.0 else two
    inside = other.levels[(other.levels > 0.0) & (other.levels < 1.0)]
    levels = np.union1d(one.levels, inside)
    start, end = levels[:-1], levels[1:]
    x, y = one.at(start, end), other.at(start, end)
    return linear_cost(end - start, x[0] - y[0], x[1] - y[1], order), _slope(x, y, length, order)


def linear_cost(mass: FloatArray, a: FloatArray, b: FloatArray, order: int) -> float:
    """∫ of |gap|^p over intervals of ``mass`` on which the gap is linear from a to b, all (n,)."""
    if order == 2:
        return float(np.sum(mass * (a * a + a * b + b * b)) / 3.0)
    total = np.abs(a) + np.abs(b)
    crossing = np.divide(a * a + b * b, total, out=np.zeros_like(total), where=total > 0.0)
    return float(np.sum(mass * 0.5 * np.where(a * b >= 0.0, total, crossing)))


def _slope(x: tuple[FloatArray, FloatArray], y: tuple[FloatArray, FloatArray], length: float, order: int) -> float:
    """∫ c'(x − y) dy along the intervals, on each of which both go from their first to their second values, and at the jumps of y, which
    move to the right: there it is c(x − y before) − c(x − y after) with the x after."""
    a, b = x[0] - y[0], x[1] - y[1]
    if order == 2:
        along = a + b
    else:
        change = b - a
        along = np.where(a * b >= 0.0, np.sign(a + b), np.divide(np.abs(b) - np.abs(a), change, out=np.zeros_like(a), where=change != 0.0))
    before = np.concatenate([[y[1][-1] - length], y[1][:-1]])
    jumps = np.abs(x[0] - before) ** order - np.abs(a) ** order
    return float(np.sum((y[1] - y[0]) * along) + np.sum(jumps))


def _shifted(one: Quantiles, shift: float, length: float) -> Quantiles:
    """u ↦ y(u − shift) on [0, 1]."""
    turns = np.floor(shift)
    shift -= turns
    levels = one.levels + shift
    both = np.concatenate([levels[:-1] - 1.0, levels])
    left = np.concatenate([one.left - length, one.left]) - turns * length
    right = np.concatenate([one.right - length, one.right]) - turns * length
    return Quantiles(both, left, right)
