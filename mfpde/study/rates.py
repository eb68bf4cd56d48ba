"""Rates in N of what independent runs scatter around: slopes of log–log lines with bootstrap intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray

_DRAWS = 2000
_CONFIDENCE = 0.95
_FEWEST = 3
_TOLD = 0.6
"""Of so many counts at least the bias must differ from 0, or its slope means nothing."""

STATISTICS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mean": lambda values: np.mean(values, axis=-1),
    "absolute": lambda values: np.mean(np.abs(values), axis=-1),
    "rms": lambda values: np.sqrt(np.mean(values**2, axis=-1)),
    "spread": lambda values: np.std(values, axis=-1, ddof=1),
    "bias": lambda values: np.abs(np.mean(values, axis=-1)),
}
"""What is made of the runs of one count, over the last axis."""


@dataclass(frozen=True)
class Rate:
    """The slope of log(statistic) against log N, unweighted, with a 95 % bootstrap interval [``low``, ``high``] over the runs; nan where
    a statistic is not positive."""

    value: float
    low: float
    high: float

    def holds(self, slope: float, allowance: float = 0.0) -> bool:
        """Whether a slope lies in the interval, widened by ``allowance`` on either side."""
        return self.low - allowance <= slope <= self.high + allowance


def fitted_rate(counts: Sequence[int], samples: FloatArray, statistic: str, seed: int = 0, draws: int = _DRAWS) -> Rate:
    """The rate of a statistic of ``samples`` (counts, runs). The bootstrap [Efron 1979] draws runs with all their counts, as the run of
    the same number begins with the same atoms for every count.

    Raises ValueError for fewer than two counts or two runs, or an unknown statistic.
    """
    _check(statistic)
    if len(counts) < 2 or samples.ndim != 2 or samples.shape[0] != len(counts) or samples.shape[1] < 2:
        raise ValueError(f"a rate needs two or more counts with two or more runs each, got {len(counts)} counts and {samples.shape}")
    x = np.log(np.asarray(counts, dtype=float))
    centred = (x - np.mean(x)) / np.sum((x - np.mean(x)) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(centred @ np.log(STATISTICS[statistic](samples)))
        slopes = centred @ np.log(_redrawn(samples, statistic, seed, draws))
    if statistic == "bias" and np.mean(intervals(samples, statistic, seed, draws)[:, 0] > 0.0) < _TOLD:
        return Rate(value, math.nan, math.nan)  # lost in the fluctuations
    return Rate(value, *_interval(slopes[None], samples.shape[1])[0].tolist())


def rate_of_few(counts: Sequence[int], samples: FloatArray) -> Rate:
    """The rate of the root mean square of so few positive ``samples`` (counts, runs) that a bootstrap interval would be too short: the
    interval is that of Student's t for the mean of the slopes of the single runs, widened to hold the slope of the root mean square.

    The slopes agree where all runs shrink alike. Raises ValueError as ``fitted_rate``; nan ends where a sample is not positive.
    """
    value = fitted_rate(counts, samples, "rms", draws=1).value
    runs = samples.shape[1]
    if runs < _FEWEST or not (samples > 0.0).all():
        return Rate(value, math.nan, math.nan)
    from scipy.special import stdtrit

    x = np.log(np.asarray(counts, dtype=float))
    slopes = (x - np.mean(x)) @ np.log(samples) / np.sum((x - np.mean(x)) ** 2)
    middle, half = float(np.mean(slopes)), stdtrit(runs - 1, 0.5 * (1.0 + _CONFIDENCE)) * float(np.std(slopes, ddof=1)) / math.sqrt(runs)
    return Rate(value, min(middle - half, value), max(middle + half, value))


def intervals(samples: FloatArray, statistic: str, seed: int = 0, draws: int = _DRAWS) -> FloatArray:
    """95 % bootstrap intervals of a statistic of ``samples`` (counts, runs), (counts, 2); that of a bias begins at 0 where the interval of
    the mean holds 0. Raises ValueError for an unknown statistic."""
    _check(statistic)
    if statistic != "bias":
        return _interval(_redrawn(samples, statistic, seed, draws), samples.shape[1])
    ends = _interval(_redrawn(samples, "mean", seed, draws), samples.shape[1])
    low = np.where(ends[:, 0] * ends[:, 1] > 0.0, np.min(np.abs(ends), axis=1), 0.0)
    return np.stack([np.where(np.isnan(ends[:, 0]), np.nan, low), np.max(np.abs(ends), axis=1)], axis=1)


def _check(statistic: str) -> None:
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")


def _redrawn(samples: FloatArray, statistic: str, seed: int, draws: int) -> FloatArray:
    """The statistic of runs drawn anew, (counts, draws)."""
    runs = samples.shape[1]
    drawn = np.random.default_rng(seed).integers(0, runs, size=(draws, runs))
    return STATISTICS[statistic](samples[:, drawn])


def _interval(values: FloatArray, runs: int) -> FloatArray:
    """Quantiles over the last axis, (…, 2), expanded for few runs [Hesterberg 2015]: those of the normal law at √(n/(n − 1)) times the
    quantile of Student's t. Nan where a value is, or where there are fewer than three runs."""
    found = np.full((len(values), 2), math.nan)
    if runs < _FEWEST:
        return found
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(runs / (runs - 1.0)) * stdtrit(runs - 1, 0.5 * (1.0 - _CONFIDENCE))))
    for row, out in zip(values, found, strict=True):
        if np.isfinite(row).all():
            out[:] = np.quantile(row, [tail, 1.0 - tail])
    return found
