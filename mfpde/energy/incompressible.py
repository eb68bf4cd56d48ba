"""The incompressible limit: densities up to a bound cost nothing, others infinitely much."""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.measure import Density, Measure

OVERSHOOT = 1e-3
"""By how much of the bound a density may exceed it before its energy counts as infinite, so that round-off does not."""


@dataclass(frozen=True)
class Incompressible:
    """E(ρ) = 0 where ρ ≤ ``bound`` everywhere and ∞ else, the limit of ∫(ρ/bound)^m/(m − 1) as m → ∞.

    [Maury–Roudneff-Chupin–Santambrogio 2010] Its flow has a pressure p ≥ 0 with p (bound − ρ) = 0. Values allow an overshoot of 1e-3 of
    the bound. ``softness`` ε > 0 is for the minimisation alone: a step from μ adds ε∫(ρ − μ)²/(2 bound), which makes potentials smooth
    and makes fronts about max(ε/|∇p|, √(ετ)) thick; None makes that a cell's width or so. What nothing drives is not spread. Atoms have
    infinite energy. Raises ValueError for other numbers.
    """

    bound: float = 1.0
    softness: float | None = None
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0.0):
            raise ValueError(f"bound must be positive and finite, got {self.bound}")
        if self.softness is not None and not (math.isfinite(self.softness) and self.softness > 0.0):
            raise ValueError(f"softness must be positive and finite, got {self.softness}")

    def value(self, measure: Measure) -> float:
        """0 or ∞; ∞ for atoms."""
        if not isinstance(measure, Density):
            return math.inf
        return _cost(np.ravel(measure.values), self.bound)

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """Raises TypeError: the pressure is not a function of the density."""
        raise TypeError("the incompressible limit has no first variation: its pressure is found by minimising movements")

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """Raises TypeError as ``first_variation`` does."""
        return self.first_variation(measure, at)

    def on(self, grid: Grid) -> "GridIncompressible":
        """The constraint on cell averages."""
        return GridIncompressible(self.bound)


@dataclass(frozen=True)
class GridIncompressible:
    """0 for cell averages up to the bound, ∞ else."""

    bound: float
    temperature: float = 0.0

    def value(self, rho: FloatArray) -> float:
        """0 or ∞."""
        return _cost(rho, self.bound)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Raises TypeError: the pressure is not a function of the density."""
        raise TypeError("the incompressible limit has no first variation: its pressure is found by minimising movements")


def _cost(rho: FloatArray, bound: float) -> float:
    return math.inf if float(np.max(rho, initial=0.0)) > (1.0 + OVERSHOOT) * bound else 0.0


def no_room(mass: float, bound: float, volume: float) -> str:
    """What to say where all places are taken."""
    return f"a mass of {mass:g} has no room at densities up to {bound:g} in a volume of {volume:g}"
