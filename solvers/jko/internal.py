"""Internal energies of one cell, u(ρ) = T ρ log ρ + Σ_k c_k ρ^{m_k}/(m_k − 1), with the inverses that steps on grids need."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.energy.base import Energy
from mfpde.energy.internal import TINY, VACUUM, Entropy, Power

_MOST, _ENOUGH = 200, 4e-16
_LOWEST, _HIGHEST, _FAR = -745.0, 700.0, 1e-2


@dataclass(frozen=True)
class Internal:
    """``temperature`` T ≥ 0, and the ``powers`` c ρ^m/(m − 1) as pairs (m, c). Arrays of any shape, elementwise."""

    temperature: float
    powers: tuple[tuple[float, float], ...] = ()

    @staticmethod
    def of(terms: Mapping[str, Energy]) -> "Internal":
        """Of all the entropies and powers among the terms, in which equal exponents are one."""
        coefficients: dict[float, float] = {}
        for term in terms.values():
            if isinstance(term, Power):
                coefficients[term.exponent] = coefficients.get(term.exponent, 0.0) + term.coefficient
        return Internal(sum(t.temperature for t in terms.values() if isinstance(t, Entropy)), tuple(coefficients.items()))

    @property
    def empty(self) -> bool:
        """Whether u = 0."""
        return self.temperature == 0.0 and not self.powers

    @property
    def touches_zero(self) -> bool:
        """Whether u'(0) is finite, so that minimisers can have vacuum."""
        return self.temperature == 0.0 and all(m > 1.0 for m, _ in self.powers)

    def values(self, rho: FloatArray) -> FloatArray:
        """u(ρ)."""
        total = np.zeros_like(rho)
        if self.temperature > 0.0:
            total += self.temperature * rho * np.log(np.maximum(rho, TINY))
        for m, c in self.powers:
            total += c / (m - 1.0) * rho**m
        return total

    def slopes(self, rho: FloatArray) -> FloatArray:
        """u'(ρ), cut off below densities of 1e-30 (1e-300 for the entropy) where it has a pole."""
        total = np.zeros_like(rho)
        if self.temperature > 0.0:
            total += self.temperature * (np.log(np.maximum(rho, TINY)) + 1.0)
        for m, c in self.powers:
            total += c * m / (m - 1.0) * np.maximum(rho, 0.0 if m > 1.0 else VACUUM) ** (m - 1.0)
        return total

    def bends(self, rho: FloatArray) -> FloatArray:
        """u''(ρ), at densities of at least 1e-30."""
        held = np.maximum(rho, VACUUM)
        total = self.temperature / held
        for m, c in self.powers:
            total = total + c * m * held ** (m - 2.0)
        return np.asarray(total)

    def densities(self, pressure: FloatArray, spread: float = 0.0) -> FloatArray:
        """ρ ≥ 0 with u'(ρ) + ``spread`` log ρ = ``pressure``, (u*)' for spread 0: 0 where the pressure is below u'(0).

        Closed forms for one term, else Newton's method in log ρ between bounds. Fast diffusion has no ρ for pressures ≥ 0 and gives ∞.
        Raises ValueError where u + spread is 0.
        """
        heat = self.temperature + spread
        if not self.powers:
            if not heat > 0.0:
                raise ValueError("there is no internal energy to invert")
            return np.exp(np.minimum((pressure - self.temperature) / heat, _HIGHEST))
        if heat == 0.0 and len(self.powers) == 1:
            (m, c), *_ = self.powers
            base = np.maximum(pressure * ((m - 1.0) / (c * m)), 0.0)
            with np.errstate(divide="ignore"):
                return np.asarray(base ** (1.0 / (m - 1.0)))
        return self._by_newton(np.asarray(pressure, dtype=float), heat)

    def _by_newton(self, pressure: FloatArray, heat: float) -> FloatArray:
        """Newton's method for s = log ρ, bisecting where it leaves the bounds or is slow; pressures at or below u'(0) give 0."""
        s = np.clip(self._first(pressure, heat), _LOWEST, _HIGHEST)
        low, high = np.full_like(s, _LOWEST), np.full_like(s, _HIGHEST)
        moved = np.full_like(s, np.inf)
        for iteration in range(_MOST):
            value, slope = self._at(s, heat)
            rest = np.nan_to_num(value - pressure, nan=np.inf)
            low, high = np.where(rest <= 0.0, s, low), np.where(rest >= 0.0, s, high)
            with np.errstate(all="ignore"):
                trial = s - rest / slope
            slow = (iteration % 3 == 2) & (moved > _FAR)
            trial = np.where(slow | ~((trial >= low) & (trial <= high)), 0.5 * (low + high), trial)
            moved = np.abs(trial - s)
            s = trial
            if not np.any(moved > _ENOUGH * np.maximum(np.abs(s), 1.0)):
                break
        return np.asarray(np.where(self._vacuum(pressure, heat), 0.0, np.exp(s)))

    def _vacuum(self, pressure: FloatArray, heat: float) -> BoolArray:
        return (pressure <= 0.0) if heat == 0.0 and self.touches_zero else np.zeros(np.shape(pressure), dtype=bool)

    def _first(self, pressure: FloatArray, heat: float) -> FloatArray:
        """The least of what each term alone would give, which is on the steep side."""
        found = np.full(np.shape(pressure), _HIGHEST)
        if heat > 0.0:
            found = np.minimum(found, (pressure - self.temperature) / heat)
        for m, c in self.powers:
            base = pressure * ((m - 1.0) / (c * m))
            with np.errstate(divide="ignore", invalid="ignore"):
                found = np.where(base > 0.0, np.minimum(found, np.log(np.maximum(base, TINY)) / (m - 1.0)), found)
        return np.asarray(found)

    def _at(self, s: FloatArray, heat: float) -> tuple[FloatArray, FloatArray]:
        value, slope = self.temperature + heat * s, np.full_like(s, heat)
        with np.errstate(over="ignore"):
            for m, c in self.powers:
                power = c * m * np.exp((m - 1.0) * s)
                value = value + power / (m - 1.0)
                slope = slope + power
        return value, slope
