"""Linear stability of SGD on a line: θ ← (1 − η mean_S a_i) θ for f = (1/2n) Σ a_i θ². [slides (0.15)–(0.19); Wu, Ma, E 2018]

Sharpness a = mean a_i, non-uniformity s = their deviation (with 1/n). In mean square, E θ² grows by (1 − ηa)² + η² c s² a step, where c
is ``Batch.factor``; along a path, log|θ| grows by E log|1 − ηa_S|, which is less.
"""

import math
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.sgd.batches import Batch

_MOST_BATCHES = 2_000
_LARGEST_EXPONENT = 1e6


def mean_square_factor(sharpness: float, nonuniformity: float, rate: float, batch: Batch) -> float:
    """(1 − ηa)² + η² c s²; the minimum is stable in mean square if this is at most 1. [slides (0.18), (0.19), corrected]"""
    return (1.0 - rate * sharpness) ** 2 + rate**2 * batch.factor * nonuniformity**2


def critical_rate(sharpness: float, nonuniformity: float, batch: Batch) -> float:
    """The largest stable learning rate 2a/(a² + c s²)."""
    return 2.0 * sharpness / (sharpness**2 + batch.factor * nonuniformity**2)


def critical_nonuniformity(sharpness: FloatArray, rate: float, batch: Batch) -> FloatArray:
    """The largest stable s for each a: √((1 − (1 − ηa)²)/c)/η; nan where a > 2/η, infinite for gradient descent."""
    left = 1.0 - (1.0 - rate * sharpness) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left >= 0.0, np.sqrt(np.maximum(left, 0.0) / batch.factor) / rate, np.nan)


def two_valued(sharpness: float, nonuniformity: float, samples: int) -> FloatArray:
    """Coefficients a_i ≥ 0 (n,) of two values with this mean and deviation, the larger value in at most half of the samples.

    Raises ValueError where there are none, which is for s > a √(n − 1).
    """
    a, s = sharpness, nonuniformity
    if s > a * math.sqrt(samples - 1) * (1.0 + 1e-12):
        raise ValueError(f"no {samples} coefficients that are nonnegative have mean {a:g} and deviation {s:g} > a√(n − 1)")
    if s == 0.0:
        return np.full(samples, a)
    high = max(1, min(samples // 2, int(samples * a * a / (a * a + s * s) * (1.0 + 1e-12))))
    low = samples - high
    values = np.full(samples, max(a - s * math.sqrt(high / low), 0.0))
    values[:high] = a + s * math.sqrt(low / high)
    return values


@dataclass(frozen=True, eq=False)
class Multiplier:
    """The law of 1 − ηa_S, by which a step multiplies: ``values`` and ``chances``, (K,) each."""

    values: FloatArray
    chances: FloatArray

    @staticmethod
    def of(coefficients: FloatArray, rate: float, batch: Batch) -> "Multiplier":
        """For coefficients a_i (n,): by the number of samples drawn where they have two values, else batch by batch.

        Raises ValueError where that is too many batches.
        """
        distinct = np.unique(coefficients)
        if len(distinct) <= 2:
            low, high = distinct[0], distinct[-1]
            shares = np.arange(batch.size + 1) / batch.size
            chances = batch.chances(int(np.sum(coefficients == high)) if high > low else 0)
            kept = chances > 0.0
            return Multiplier(1.0 - rate * (low + (high - low) * shares[kept]), chances[kept])
        count, size = len(coefficients), batch.size
        total = count**size if batch.replacement else math.comb(count, size)
        if total > _MOST_BATCHES:
            raise ValueError(f"{total} batches are too many to go through one by one; use coefficients of two values")
        means, chances = _all_batches(coefficients, batch)
        return Multiplier(1.0 - rate * means, chances)

    def moment(self, exponent: float) -> float:
        """E|1 − ηa_S|^p."""
        return float(self.chances @ np.abs(self.values) ** exponent)

    @property
    def growth(self) -> float:
        """E log|1 − ηa_S|, the rate at which almost every path grows; −∞ where a step can reach the minimum."""
        with np.errstate(divide="ignore"):
            return float(self.chances @ np.log(np.abs(self.values)))

    @property
    def escape_exponent(self) -> float:
        """κ with E|1 − ηa_S|^κ = 1: from a distance ε, paths get away with a probability that falls like ε^κ.

        0 where almost every path does, infinite where none can. The minimum is stable in mean square if κ ≥ 2. [Cramér; Kesten 1973]
        """
        from scipy.optimize import brentq

        largest = float(np.max(np.abs(self.values[self.chances > 0.0])))
        if self.growth >= 0.0:
            return 0.0 if largest > 1.0 else math.inf
        if largest <= 1.0:
            return math.inf
        top = 1.0
        while self._log_moment(top) < 0.0:
            top *= 2.0
            if top > _LARGEST_EXPONENT:
                return math.inf
        low = top
        while self._log_moment(low) >= 0.0:
            low *= 0.5
        return float(brentq(self._log_moment, low, top, xtol=1e-12, rtol=1e-13))

    def _log_moment(self, exponent: float) -> float:
        """log E|1 − ηa_S|^p without overflow."""
        sizes = np.abs(self.values)
        kept = (sizes > 0.0) & (self.chances > 0.0)
        powers = exponent * np.log(sizes[kept]) + np.log(self.chances[kept])
        top = float(np.max(powers))
        return top + math.log(float(np.sum(np.exp(powers - top))))

    def steps_within(self, steps: int, error: float) -> int:
        """The most steps, from 1 to ``steps``, after which θ² still has a relative deviation of at most ``error``."""
        square, fourth = self.moment(2.0), self.moment(4.0)
        if square == 0.0 or fourth <= square**2 * (1.0 + 1e-14):
            return steps
        return int(min(max(math.log1p(error**2) / math.log(fourth / square**2), 1.0), steps))

    def deviation(self, steps: int) -> float:
        """The relative deviation of θ² after so many steps."""
        square, fourth = self.moment(2.0), self.moment(4.0)
        return math.sqrt(max((fourth / square**2) ** steps - 1.0, 0.0)) if square > 0.0 else 0.0


def _all_batches(coefficients: FloatArray, batch: Batch) -> tuple[FloatArray, FloatArray]:
    """The mean over every batch and its probability."""
    count, size = len(coefficients), batch.size
    if not batch.replacement:
        means = np.array([np.mean(coefficients[list(chosen)]) for chosen in combinations(range(count), size)])
        return means, np.full(len(means), 1.0 / len(means))
    drawn = [np.array(chosen) for chosen in combinations_with_replacement(range(count), size)]
    ways = [math.factorial(size) / math.prod(math.factorial(int(k)) for k in np.bincount(chosen)) for chosen in drawn]
    return np.array([np.mean(coefficients[chosen]) for chosen in drawn]), np.array(ways) / count**size


def squares_of_runs(
    coefficients: FloatArray, rate: float, batch: Batch, steps: int, runs: int, generator: np.random.Generator
) -> FloatArray:
    """θ² after so many steps of SGD from θ = 1, (runs,), each of which draws its own batches."""
    theta = np.ones(runs)
    for _ in range(steps):
        theta *= 1.0 - rate * np.mean(coefficients[batch.draw(generator, runs)], axis=1)
    return np.asarray(theta**2)
