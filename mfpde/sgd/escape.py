"""SGD at two minima: f = (1/n) Σ f_i with f_i(x) = min(l_i x², r_i (x − 1)²), zero at 0 and 1. [slides, figure 9; Wu, Ma, E 2018]

Around each minimum there is an interval on which every f_i is its parabola, so that SGD is exactly linear: x − 1 is multiplied by
1 − 2η mean_S r_i, and log|x − 1| is a random walk until it leaves. When it leaves is therefore known in law.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.sgd.batches import Batch
from mfpde.sgd.line import Multiplier

_FAR = 1e6
"""Further away than this, a run has left whatever the interval."""
_CELL = 0.005
_DEPTH = 40.0
_MOST_CELLS = 200_000


@dataclass(frozen=True, eq=False)
class TwoMinima:
    """``left`` l_i and ``right`` r_i (n,), all positive. Raises ValueError for other numbers or shapes."""

    left: FloatArray
    right: FloatArray

    def __post_init__(self) -> None:
        if self.left.ndim != 1 or self.left.shape != self.right.shape or not len(self.left):
            raise ValueError(f"needs as many coefficients left as right, got shapes {self.left.shape} and {self.right.shape}")
        if not (np.isfinite([self.left, self.right]).all() and (self.left > 0.0).all() and (self.right > 0.0).all()):
            raise ValueError("the coefficients must be positive and finite")

    def values(self, points: FloatArray) -> FloatArray:
        """f_i at points (k,), as (k, n)."""
        x = points[:, None]
        return np.minimum(self.left * x**2, self.right * (x - 1.0) ** 2)

    def slopes(self, points: FloatArray, chosen: IntArray) -> FloatArray:
        """The mean of f_i' over the batches ``chosen`` (k, B) at points (k,), as (k,)."""
        x = points[:, None]
        left, right = self.left[chosen], self.right[chosen]
        return np.asarray(np.mean(np.where(left * x**2 <= right * (x - 1.0) ** 2, 2.0 * left * x, 2.0 * right * (x - 1.0)), axis=1))

    @cached_property
    def right_interval(self) -> tuple[float, float]:
        """The largest interval around 1 on which every f_i is r_i(x − 1)²."""
        return _interval(np.sqrt(self.right / self.left))

    @cached_property
    def left_interval(self) -> tuple[float, float]:
        """The largest interval around 0 on which every f_i is l_i x²."""
        low, high = _interval(np.sqrt(self.left / self.right))
        return 1.0 - high, 1.0 - low


def _interval(ratio: FloatArray) -> tuple[float, float]:
    """Where q_i|x − 1| ≤ |x| for all i, around 1, for ``ratio`` q (n,)."""
    above = ratio[ratio > 1.0]
    return float(np.max(ratio / (1.0 + ratio))), float(np.min(above / (above - 1.0))) if len(above) else math.inf


def leaving_law(problem: TwoMinima, rate: float, batch: Batch, distance: float, steps: int) -> FloatArray:
    """The probability that SGD from 1 − ``distance`` has left the interval around 1 within 0 … ``steps`` steps, (steps + 1,).

    Where a step has two values, by counting how often each was drawn, which is exact. Else the law of the walk log|x − 1|, with the sign
    of x − 1, on cells of width 0.005; each step splits mass between the two nearest cells, keeping its mean, and mass that has come e⁴⁰
    times closer counts as staying. Raises ValueError for a start outside the interval.
    """
    lower, upper = problem.right_interval
    reach = (math.log(1.0 - lower), math.log(min(upper - 1.0, _FAR)))
    if not 0.0 < distance < 1.0 - lower:
        raise ValueError(f"the start must lie in the interval ({lower:.4g}, 1), got 1 − {distance:g}")
    step = Multiplier.of(2.0 * problem.right, rate, batch)
    if len(step.values) <= 2:
        return _counted(step, math.log(distance), reach, steps)
    floor = math.log(distance) - _DEPTH
    count = int((max(reach) - floor) / _CELL) + 2
    if count > _MOST_CELLS:
        raise ValueError(f"the distance {distance:g} is too small for the law of leaving")
    walk = _Walk(count, [int((end - floor) / _CELL + 1e-9) for end in reach], step)
    place = (math.log(distance) - floor) / _CELL
    return walk.leaving(place, steps)


def _counted(step: Multiplier, start: float, reach: tuple[float, float], steps: int) -> FloatArray:
    """The law of leaving from log|x − 1| = ``start`` on the side of −, for steps of at most two values: by how many were the last one."""
    values, chances = step.values[[0, -1]], step.chances[[0, -1]] / (3.0 - len(step.values))
    with np.errstate(divide="ignore"):
        rise = np.maximum(np.log(np.abs(values)), -1e300)
    inside, gone = np.ones(1), np.zeros(steps + 1)
    for k in range(1, steps + 1):
        inside = chances[0] * np.append(inside, 0.0) + chances[1] * np.append(0.0, inside)
        last = np.arange(k + 1)
        turned = ((k - last) * (values[0] < 0.0) + last * (values[1] < 0.0)) % 2 == 1
        out = start + (k - last) * rise[0] + last * rise[1] > np.where(turned, reach[1], reach[0])
        gone[k] = gone[k - 1] + float(np.sum(inside[out]))
        inside = np.where(out, 0.0, inside)
    return np.minimum(gone, 1.0)


@dataclass(frozen=True, eq=False)
class _Walk:
    """A walk on ``count`` cells, with a row for each sign of x − 1 (first that of −), which ends beyond the last cells ``ends``."""

    count: int
    ends: list[int]
    step: Multiplier

    def leaving(self, place: float, steps: int) -> FloatArray:
        """From ``place`` on the side of −: the mass that has left."""
        mass, gone = np.zeros((2, self.count)), np.zeros(steps + 1)
        cell = int(place)
        mass[0, cell], mass[0, cell + 1] = 1.0 - (place - cell), place - cell
        for k in range(steps):
            mass, left = self._moved(mass)
            gone[k + 1] = gone[k] + left
        return np.minimum(gone, 1.0)

    def _moved(self, mass: FloatArray) -> tuple[FloatArray, float]:
        """The mass after a step, and what of it has left."""
        after, left = np.zeros_like(mass), 0.0
        for value, chance in zip(self.step.values, self.step.chances, strict=True):
            if value == 0.0:
                continue
            shift = math.log(abs(float(value))) / _CELL
            whole = math.floor(shift)
            share = shift - whole
            for row in range(2):
                target = row if value > 0.0 else 1 - row
                for offset, part in ((whole, (1.0 - share) * chance), (whole + 1, share * chance)):
                    left += _shifted(mass[row], offset, part, after[target], self.ends[target])
        return after, left


def _shifted(mass: FloatArray, offset: int, part: float, out: FloatArray, end: int) -> float:
    """Add ``part`` of the mass, moved by ``offset`` cells, to ``out`` up to the cell ``end``; returns what lies beyond."""
    if part == 0.0:
        return 0.0
    first, last = max(0, -offset), min(len(mass), end + 1 - offset)
    if last > first:
        out[first + offset : last + offset] += part * mass[first:last]
    return part * float(np.sum(mass[max(last, 0) :]))


@dataclass(frozen=True, eq=False)
class Escapes:
    """Runs of SGD: ``left_after`` (runs,), the steps after which each left the interval around 1, −1 if it has not; ``ends`` (runs,), where
    it is at last; ``paths`` (steps + 1, k), f along the first runs."""

    left_after: IntArray
    ends: FloatArray
    paths: FloatArray

    def left_by(self, steps: int) -> FloatArray:
        """The share of runs that have left within 0 … ``steps`` steps, (steps + 1,)."""
        counts = np.bincount(self.left_after[self.left_after >= 0], minlength=steps + 1)
        return np.asarray(np.cumsum(counts) / len(self.left_after))


def escapes(
    problem: TwoMinima, rate: float, batch: Batch, distance: float, steps: int, runs: int, generator: np.random.Generator, shown: int = 1
) -> Escapes:
    """Independent runs of SGD on f itself from 1 − ``distance``."""
    x = np.full(runs, 1.0 - distance)
    lower, upper = problem.right_interval
    upper = min(upper, 1.0 + _FAR)
    left_after, paths = np.full(runs, -1, dtype=np.int64), [np.mean(problem.values(x[:shown]), axis=1)]
    for k in range(steps):
        x = np.clip(x - rate * problem.slopes(x, batch.draw(generator, runs)), -1e100, 1e100)
        gone = (left_after < 0) & ((x < lower) | (x > upper))
        left_after[gone] = k + 1
        paths.append(np.mean(problem.values(x[:shown]), axis=1))
    return Escapes(left_after, x, np.array(paths))
