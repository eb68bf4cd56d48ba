"""Smooth densities on a circle by their Fourier series, and their exact quantiles."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import ComplexArray, FloatArray
from mfpde.domain import Domain
from mfpde.measure import DensityFunction, Particles

_LEAST = 1e-16
_NEWTON = 100
_CLOSE = 4e-16


@dataclass(frozen=True, eq=False)
class FourierDensity:
    """ρ(x) = Re Σ_n c_n e^{iq_n x}, with ``coefficients`` c_n at the wave numbers ``waves`` n, ``mean`` being c_0."""

    domain: Domain
    waves: FloatArray
    coefficients: ComplexArray
    mean: float

    @staticmethod
    def of(values: FloatArray, domain: Domain) -> "FourierDensity":
        """Through values at the points iL/P, (P,)."""
        modes = np.fft.rfft(values) / len(values)
        mean, rest = float(modes[0].real), 2.0 * modes[1 : len(values) // 2]
        kept = np.flatnonzero(np.abs(rest) > _LEAST * mean)
        return FourierDensity(domain, np.asarray(kept + 1, dtype=float), rest[kept], mean)

    def at_centres(self, cells: int) -> "FourierDensity":
        """The density whose averages over ``cells`` equal cells are the values of this one at their centres."""
        waves = self.waves[self.waves < 0.5 * cells]
        return replace(self, waves=waves, coefficients=self.coefficients[: len(waves)] / np.sinc(waves / cells))

    @property
    def function(self) -> DensityFunction:
        """As an initial measure."""
        return DensityFunction(self, self.domain)

    @property
    def _length(self) -> float:
        return self.domain.axes[0].length

    def __call__(self, points: FloatArray) -> FloatArray:
        """ρ at points (M, 1), (M,)."""
        return self.mean + self._sum(points[:, 0], self.coefficients)

    def below(self, x: FloatArray) -> FloatArray:
        """An antiderivative at x (M,), (M,)."""
        waves = 2.0 * math.pi * self.waves / self._length
        return self.mean * x + self._sum(x, self.coefficients / (1j * waves))

    def _sum(self, x: FloatArray, coefficients: ComplexArray) -> FloatArray:
        phases = np.multiply.outer(x, 2.0 * math.pi * self.waves / self._length)
        return np.asarray(np.cos(phases) @ coefficients.real - np.sin(phases) @ coefficients.imag)


def exact_quantiles(density: FourierDensity, count: int) -> Particles:
    """``count`` equal atoms at the quantiles (i − 1/2)/count from the lower end, to round-off. ρ must be positive."""
    lower, upper = float(density.domain.lower[0]), float(density.domain.upper[0])
    start = density.below(np.array([lower]))
    wanted = start + density.mean * (upper - lower) * (np.arange(count) + 0.5) / count
    low, high = np.full(count, lower), np.full(count, upper)
    x = lower + (upper - lower) * (np.arange(count) + 0.5) / count
    for _ in range(_NEWTON):
        gap = density.below(x) - wanted
        low, high = np.where(gap < 0.0, x, low), np.where(gap < 0.0, high, x)
        tried = x - gap / density(x[:, None])
        moved = np.where((tried > low) & (tried < high), tried, 0.5 * (low + high))
        done = np.max(np.abs(moved - x)) <= _CLOSE * (upper - lower)
        x = moved
        if done:
            break
    return Particles.equal(x[:, None])
