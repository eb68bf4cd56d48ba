"""Numerical fluxes as objects."""

import math
from dataclasses import dataclass
from typing import Protocol

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.solvers.kernels.transport import scharfetter_gummel_rate, upwind_rate


class Flux(Protocol):
    """Adds the divergence of a flux along one axis; arrays are seen as (before, along, after)."""

    @property
    def description(self) -> str:
        """For people."""

    def add(self, rho: FloatArray, xi: FloatArray, h: float, periodic: bool, rate: FloatArray) -> tuple[float, float]:
        """Add −∂F to ``rate``; returns (largest outflow rate, Σ over faces of flux times velocity)."""


@dataclass(frozen=True)
class LimitedUpwind:
    """Second-order limited upwinding of −ρ∇ξ, for energies without entropy."""

    description: str = "limited second-order upwinding of the whole flux"

    def add(self, rho: FloatArray, xi: FloatArray, h: float, periodic: bool, rate: FloatArray) -> tuple[float, float]:
        """See ``upwind_rate``."""
        return upwind_rate(rho, xi, h, periodic, rate)


@dataclass(frozen=True)
class ScharfetterGummel:
    """Exponentially fitted flux of −(T∇ρ + ρ∇ξ), for energies with an entropy; first order where h|∇ξ| exceeds T."""

    temperature: float
    description: str = "Scharfetter–Gummel for the entropy with all other terms"

    def add(self, rho: FloatArray, xi: FloatArray, h: float, periodic: bool, rate: FloatArray) -> tuple[float, float]:
        """See ``scharfetter_gummel_rate``."""
        return scharfetter_gummel_rate(rho, xi, self.temperature, h, periodic, rate)


def fill_rate(flux: Flux, grid: Grid, rho: FloatArray, xi: FloatArray, rate: FloatArray) -> tuple[float, float]:
    """rate = −div F over all moving axes; returns (sum over the axes of the outflow rates, ∫ρ|∇δE/δρ|²)."""
    rate[:] = 0.0
    fastest, dissipation = 0.0, 0.0
    for axis in grid.domain.moving:
        shape = (math.prod(grid.cells[:axis]), grid.cells[axis], math.prod(grid.cells[axis + 1 :]))
        part = flux.add(
            rho.reshape(shape),
            xi.reshape(shape),
            float(grid.spacing[axis]),
            grid.domain.axes[axis].periodic,
            rate.reshape(shape),
        )
        fastest, dissipation = fastest + part[0], dissipation + part[1]
    return fastest, dissipation * grid.cell_volume
