"""Internal energies of the density itself."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.measure import Density, Measure

TINY = 1e-300


@dataclass(frozen=True)
class Entropy:
    """E(ρ) = T ∫ρ log ρ, whose flow is the diffusion T Δρ; ``temperature`` T > 0. Atoms have infinite entropy."""

    temperature: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0.0 and np.isfinite(self.temperature)):
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")

    def value(self, measure: Measure) -> float:
        """T ∫ρ log ρ of a density; +∞ for atoms."""
        if not isinstance(measure, Density):
            return float("inf")
        rho = np.ravel(measure.values)
        return self.temperature * float(np.sum(rho * np.log(np.maximum(rho, TINY)))) * measure.grid.cell_volume

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """T (log ρ + 1) at points, ρ being constant in each cell. Raises TypeError for atoms."""
        if not isinstance(measure, Density):
            raise TypeError("the first variation of the entropy needs a density, not atoms")
        rho = np.ravel(measure.values)[measure.grid.locate(at)]
        return np.asarray(self.temperature * (np.log(np.maximum(rho, TINY)) + 1.0))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """T ∇log ρ at points, by centred differences over one cell to each side, one-sided at walls."""
        if not isinstance(measure, Density):
            raise TypeError("the gradient of the entropy needs a density, not atoms")
        domain = measure.grid.domain
        result = np.empty_like(at)
        for k, step in enumerate(np.diag(measure.grid.spacing)):
            ends = [domain.confine(at + sign * step) for sign in (1.0, -1.0)]
            width = 2.0 * step[k] if domain.periodic[k] else ends[0][:, k] - ends[1][:, k]
            rise = self.first_variation(measure, ends[0]) - self.first_variation(measure, ends[1])
            result[:, k] = rise / width
        return result

    def on(self, grid: Grid) -> "GridEntropy":
        """The entropy on one grid."""
        return GridEntropy(self.temperature, grid.cell_volume, np.empty(grid.size))


@dataclass(frozen=True, eq=False)
class GridEntropy:
    """T Σ ρ log ρ |cell|."""

    temperature: float
    cell_volume: float
    scratch: FloatArray

    def value(self, rho: FloatArray) -> float:
        """T Σ ρ log ρ |cell|."""
        np.maximum(rho, TINY, out=self.scratch)
        np.log(self.scratch, out=self.scratch)
        return self.temperature * self.cell_volume * float(np.dot(rho, self.scratch))

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Nothing: the entropy is the part that is left out."""
        return 0.0
