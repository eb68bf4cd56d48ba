"""Potential energy ∫V dρ."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.measure import Measure


@dataclass(frozen=True, eq=False)
class Potential:
    """E(ρ) = ∫V dρ; ``function`` gives V at points (N, d) as (N,), ``slope`` its gradient as (N, d)."""

    function: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    temperature: float = 0.0

    def value(self, measure: Measure) -> float:
        """∫V dρ; on a density by the cell averages' masses at the cell centres."""
        return float(measure.weights @ self.function(measure.points))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """V, whatever the measure."""
        return np.asarray(self.function(at))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇V, whatever the measure."""
        return np.asarray(self.slope(at))

    def on(self, grid: Grid) -> "GridPotential":
        """V at the cell centres. Raises ValueError where it is not finite."""
        values = np.array(self.function(grid.centers), dtype=float)
        if not np.isfinite(values).all():
            where = grid.centers[int(np.argmin(np.isfinite(values)))]
            raise ValueError(f"the potential is not finite at {where.tolist()}")
        return GridPotential(values, values * grid.weight)


@dataclass(frozen=True, eq=False)
class GridPotential:
    """V on the cells of one grid."""

    values: FloatArray
    scaled: FloatArray
    temperature: float = 0.0

    def value(self, rho: FloatArray) -> float:
        """∫V dρ."""
        return float(np.dot(self.scaled, rho))

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add V; returns the energy."""
        xi += self.values
        return self.value(rho)
