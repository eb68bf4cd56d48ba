"""Kinks of a potential on one axis: where its slope jumps, rounded so that Newton's method has something to go by."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray

_PROBES, _MOST, _BISECTIONS = 4100, 64, 50
_SUDDEN, _WHOLE, _LEAST = 0.5, 0.9, 1e-9


@dataclass(frozen=True, eq=False)
class Kinks:
    """``places`` (k,) where the slope rises by ``jumps`` (k,). Over ``reach`` to both sides the potential is replaced by its mean over an
    interval of that half length, as far as the kinks go: s(h − |d|)²/(4h) is added at the distance d."""

    places: FloatArray
    jumps: FloatArray
    reach: float
    period: float = 0.0

    @staticmethod
    def of(slope: Callable[[FloatArray], FloatArray], low: float, high: float, reach: float, periodic: bool) -> "Kinks":
        """Those of the slope (N,) ↦ (N,), by bisection wherever it changes more than it does nearby."""
        x = np.linspace(low, high, _PROBES)
        values = slope(x)
        changes, size = np.abs(np.diff(values)), float(np.max(np.abs(values), initial=0.0))
        around = np.maximum(np.append(changes[1:], 0.0), np.append(0.0, changes[:-1]))
        sudden = np.flatnonzero((changes > 2.0 * around) | (changes > 0.1 * size))
        sudden = sudden[changes[sudden] > _LEAST * size]
        sudden = np.sort(sudden[np.argsort(-changes[sudden], kind="stable")[:_MOST]])
        found = [_bisected(slope, x[[k, k + 1]], values[[k, k + 1]]) for k in sudden]
        kept = [(place, jump) for k, (place, jump) in zip(sudden, found, strict=True) if abs(jump) > _SUDDEN * changes[k]]
        kept = [each for k, each in enumerate(kept) if k == 0 or each[0] > kept[k - 1][0] + 1e-9 * (high - low)]
        places, jumps = np.array([place for place, _ in kept]), np.array([jump for _, jump in kept])
        return Kinks(places, jumps, reach, high - low if periodic else 0.0)

    def rounding(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What is added to values, slopes and curvatures at places (N,)."""
        apart = x[:, None] - self.places
        if self.period > 0.0:
            apart -= self.period * np.round(apart / self.period)
        left, rate = np.maximum(self.reach - np.abs(apart), 0.0), self.jumps / (2.0 * self.reach)
        return 0.5 * left**2 @ rate, -(np.sign(apart) * left) @ rate, (left > 0.0) @ rate

    def grip(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """By how much the slope at places (N,) on convex kinks exceeds that below them, and that above them the slope; 0 elsewhere."""
        apart = x[:, None] - self.places
        rate = np.maximum(self.jumps, 0.0) / (2.0 * self.reach)
        on = np.abs(apart) < self.reach
        return np.where(on, apart + self.reach, 0.0) @ rate, np.where(on, self.reach - apart, 0.0) @ rate

    def within(self, x: FloatArray, step: float) -> FloatArray:
        """The rise of the slope by kinks between x − step and x + step, (N,)."""
        apart = x[:, None] - self.places
        if self.period > 0.0:
            apart -= self.period * np.round(apart / self.period)
        return np.asarray((np.abs(apart) < step) @ self.jumps)


def _bisected(slope: Callable[[FloatArray], FloatArray], ends: FloatArray, values: FloatArray) -> tuple[float, float]:
    """Where in an interval the slope changes most, and by how much there."""
    (a, b), (at_a, at_b) = ends, values
    for _ in range(_BISECTIONS):
        middle = 0.5 * (a + b)
        if not a < middle < b:
            break
        value = float(slope(np.array([middle]))[0])
        if abs(value - at_a) >= abs(at_b - value):
            b, at_b = middle, value
        else:
            a, at_a = middle, value
    if abs(at_b - at_a) < _WHOLE * abs(values[1] - values[0]):  # the slope has its own value at the kink, such as 0
        half = 1e-9 * (ends[1] - ends[0])
        at_a, at_b = slope(np.array([a - half, b + half]))
    return 0.5 * float(a + b), float(at_b - at_a)
