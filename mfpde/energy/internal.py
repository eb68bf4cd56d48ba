"""Internal energies of the density itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain, Grid
from mfpde.measure import Density, Measure

if TYPE_CHECKING:
    from mfpde.energy.blob import Blob

TINY = 1e-300
VACUUM = 1e-30
"""The density below which powers with a pole at 0 are cut off."""


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
        return self.temperature * float(np.dot(measure.weights, np.log(np.maximum(rho, TINY))))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """T (log ρ + 1) at points, ρ being constant in each cell. Raises TypeError for atoms."""
        if not isinstance(measure, Density):
            raise TypeError("the first variation of the entropy needs a density, not atoms")
        rho = np.ravel(measure.values)[measure.grid.locate(at)]
        return np.asarray(self.temperature * (np.log(np.maximum(rho, TINY)) + 1.0))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """T ∇log ρ at points, by centred differences over one cell to each side, one-sided at walls."""
        return _centred_gradient(self, measure, at)

    def on(self, grid: Grid) -> "GridEntropy":
        """The entropy on one grid."""
        return GridEntropy(self.temperature, grid.weight, np.empty(grid.size))

    def mollified(self, width: float, domain: Domain) -> "Blob":
        """∫T log(φ∗μ) dμ with Gaussians φ of this width, finite on atoms. Raises ValueError as ``Blob`` does."""
        from mfpde.energy.blob import Blob

        return Blob(1.0, self.temperature, width, domain)


@dataclass(frozen=True, eq=False)
class GridEntropy:
    """T Σ ρ log ρ |cell|."""

    temperature: float
    weight: float | FloatArray
    scratch: FloatArray

    def value(self, rho: FloatArray) -> float:
        """T Σ ρ log ρ |cell|."""
        np.maximum(rho, TINY, out=self.scratch)
        np.log(self.scratch, out=self.scratch)
        return self.temperature * integral(rho, self.scratch, self.weight)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Nothing: the entropy is the part that is left out."""
        return 0.0


def _centred_gradient(term: "Entropy | Power", measure: Measure, at: FloatArray) -> FloatArray:
    if not isinstance(measure, Density):
        raise TypeError("the gradient of an internal energy needs a density, not atoms")
    result = np.zeros_like(at)
    for forth, back, width, direction in measure.grid.steps(at):
        rise = term.first_variation(measure, forth) - term.first_variation(measure, back)
        result += (rise / width)[:, None] * direction
    return result


@dataclass(frozen=True)
class Power:
    """E(ρ) = c ∫ρ^m/(m − 1), whose flow is the diffusion c Δρ^m: porous medium for m > 1, fast diffusion for 0 < m < 1.

    ``exponent`` m, ``coefficient`` c > 0. Atoms have infinite energy for m > 1 and energy 0 for m < 1. Raises ValueError for other
    numbers; m = 1 is the entropy.
    """

    exponent: float
    coefficient: float = 1.0
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.exponent) and self.exponent > 0.0 and self.exponent != 1.0):
            raise ValueError(f"the exponent must be positive and other than 1 (which is the entropy), got {self.exponent}")
        if not (self.coefficient > 0.0 and np.isfinite(self.coefficient)):
            raise ValueError(f"the coefficient must be positive and finite, got {self.coefficient}")

    @property
    def description(self) -> str:
        """For people."""
        name = "porous medium" if self.exponent > 1.0 else "fast diffusion"
        return f"{name} {self.coefficient:g} ρ^{self.exponent:g}/({self.exponent:g} − 1)"

    def value(self, measure: Measure) -> float:
        """c ∫ρ^m/(m − 1) of a density; for atoms +∞ if m > 1, else 0."""
        if not isinstance(measure, Density):
            return float("inf") if self.exponent > 1.0 else 0.0
        rho = np.ravel(measure.values)
        return self.coefficient / (self.exponent - 1.0) * float(np.sum(rho**self.exponent * measure.grid.weight))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """c m ρ^{m−1}/(m − 1) at points, ρ being constant in each cell. Raises TypeError for atoms."""
        if not isinstance(measure, Density):
            raise TypeError("the first variation of an internal energy needs a density, not atoms")
        rho = np.ravel(measure.values)[measure.grid.locate(at)]
        floor = 0.0 if self.exponent > 1.0 else VACUUM
        return np.asarray(self._slope * np.maximum(rho, floor) ** (self.exponent - 1.0))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇ of the first variation, by centred differences over one cell to each side, one-sided at walls."""
        return _centred_gradient(self, measure, at)

    def on(self, grid: Grid) -> "GridPower":
        """The energy on one grid."""
        return GridPower(self.exponent, self.coefficient, grid.weight, np.empty(grid.size))

    def mollified(self, width: float, domain: Domain) -> "Blob":
        """∫c (φ∗μ)^{m−1}/(m − 1) dμ with Gaussians φ of this width, finite on atoms. Raises ValueError as ``Blob`` does."""
        from mfpde.energy.blob import Blob

        return Blob(self.exponent, self.coefficient, width, domain)

    @property
    def _slope(self) -> float:
        return self.coefficient * self.exponent / (self.exponent - 1.0)


@dataclass(frozen=True, eq=False)
class GridPower:
    """c Σ ρ^m/(m − 1) |cell|."""

    exponent: float
    coefficient: float
    weight: float | FloatArray
    scratch: FloatArray
    temperature: float = 0.0

    def value(self, rho: FloatArray) -> float:
        """c Σ ρ^m/(m − 1) |cell|."""
        self._fill(rho)
        return self.coefficient / (self.exponent - 1.0) * integral(rho, self.scratch, self.weight)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add c m ρ^{m−1}/(m − 1); returns the energy."""
        self._fill(rho)
        energy = self.coefficient / (self.exponent - 1.0) * integral(rho, self.scratch, self.weight)
        np.multiply(self.scratch, self.coefficient * self.exponent / (self.exponent - 1.0), out=self.scratch)
        np.add(xi, self.scratch, out=xi)
        return energy

    def _fill(self, rho: FloatArray) -> None:
        """scratch = ρ^{m−1}, with ρ bounded below where that has a pole."""
        if self.exponent == 2.0:
            np.copyto(self.scratch, rho)
        elif self.exponent == 3.0:
            np.multiply(rho, rho, out=self.scratch)
        else:
            np.maximum(rho, 0.0 if self.exponent > 1.0 else VACUUM, out=self.scratch)
            np.power(self.scratch, self.exponent - 1.0, out=self.scratch)


def integral(rho: FloatArray, values: FloatArray, weight: float | FloatArray) -> float:
    """Σ ρ · values · |cell|."""
    if isinstance(weight, float):
        return weight * float(np.dot(rho, values))
    return float(np.einsum("i,i,i->", rho, values, weight))
