"""Numerical fluxes as objects, and the lines of cells that they act along."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid, Metric
from mfpde.solvers.kernels.implicit import assemble_scharfetter_gummel, assemble_upwind, scharfetter_gummel_coefficients
from mfpde.solvers.kernels.transport import scharfetter_gummel_rate, upwind_rate

_LEAST_POWER, _LARGEST_POWER = 0.5, 3.0


@dataclass(frozen=True, eq=False)
class Lines:
    """The cells along one axis: arrays (size,) are seen as (before, along, after)."""

    shape: tuple[int, int, int]
    metric: Metric
    periodic: bool

    @staticmethod
    def of(grid: Grid, axis: int) -> "Lines":
        """The lines of a grid along one of its axes."""
        shape = (math.prod(grid.cells[:axis]), grid.cells[axis], math.prod(grid.cells[axis + 1 :]))
        return Lines(shape, grid.metric(axis), grid.periodic(axis))

    def see(self, values: FloatArray) -> FloatArray:
        """(size,) as (before, along, after), without a copy."""
        return values.reshape(self.shape)


@dataclass(eq=False)
class Linearised:
    """Buffers of one implicit step along lines: residual, bands (2w + 1, ...) and the mobility at the faces."""

    residual: FloatArray
    bands: FloatArray
    mobility: FloatArray


class Flux(Protocol):
    """A numerical flux −ρ∇(δE/δρ) along lines of cells."""

    @property
    def description(self) -> str:
        """For people."""

    @property
    def carries_entropy(self) -> bool:
        """Whether the flux holds T∇ρ itself, so that ξ comes without the entropy's part."""

    @property
    def width(self) -> int:
        """How many neighbours to each side an implicit step couples."""

    def add(self, rho: FloatArray, xi: FloatArray, lines: Lines, rate: FloatArray) -> tuple[float, float]:
        """Add −div F to ``rate``; returns (largest outflow rate of a cell, Σ area · F · (−Δξ)); all arrays (before, along, after)."""

    def assemble(
        self, rho: FloatArray, target: FloatArray, xi: FloatArray, curvature: FloatArray, dt: float, lines: Lines, out: Linearised
    ) -> None:
        """Fill ρ − target + dt div F and its Jacobian; ``curvature`` is ∂ξ_i/∂ρ_i, empty where ξ is frozen and has no such part."""


@dataclass(frozen=True)
class Upwind:
    """First-order upwinding of the whole flux −ρ∇ξ."""

    description: str = "first-order upwinding of the whole flux"
    carries_entropy: bool = False
    width: int = 2
    slopes: float = 0.0

    def add(self, rho: FloatArray, xi: FloatArray, lines: Lines, rate: FloatArray) -> tuple[float, float]:
        """See ``upwind_rate``."""
        m = lines.metric
        return upwind_rate(rho, xi, m.spacing, m.scale, m.area, m.volume, lines.periodic, self.slopes, rate)

    def assemble(
        self, rho: FloatArray, target: FloatArray, xi: FloatArray, curvature: FloatArray, dt: float, lines: Lines, out: Linearised
    ) -> None:
        """See ``assemble_upwind``."""
        m = lines.metric
        bent = curvature if curvature.size else np.zeros(rho.shape)
        geometry = (dt, m.spacing, m.scale, m.area, m.volume, lines.periodic, self.slopes)
        assemble_upwind(rho, target, xi, bent, *geometry, out.residual, out.bands, out.mobility)


@dataclass(frozen=True)
class LimitedUpwind(Upwind):
    """Second-order upwinding of the whole flux with slopes limited by positivity [Carrillo–Chertock–Huang 2015]."""

    description: str = "limited second-order upwinding of the whole flux"
    slopes: float = 1.0


@dataclass(frozen=True)
class PressureUpwind(Upwind):
    """The same with slopes of ρ^slopes: with m − 1 those of the pressure of a porous medium, which is nearly linear at its front."""

    slopes: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "description", f"limited second-order upwinding of the whole flux, slopes of ρ^{self.slopes:g}")

    @staticmethod
    def of(exponents: Sequence[float]) -> Upwind:
        """The flux for a sum of ρ^m/(m − 1): at a front the least m counts, and powers of ρ that are extreme are cut off."""
        least = min(exponents, default=2.0)
        power = min(max(least - 1.0, _LEAST_POWER), _LARGEST_POWER) if least > 1.0 else 1.0
        return LimitedUpwind() if power == 1.0 else PressureUpwind(slopes=power)


@dataclass(frozen=True)
class ScharfetterGummel:
    """Exponentially fitted flux of −(T∇ρ + ρ∇ξ), for energies with an entropy; first order where h|∇ξ| exceeds T."""

    temperature: float
    description: str = "Scharfetter–Gummel for the entropy with all other terms"
    carries_entropy: bool = True
    width: int = 1

    def add(self, rho: FloatArray, xi: FloatArray, lines: Lines, rate: FloatArray) -> tuple[float, float]:
        """See ``scharfetter_gummel_rate``."""
        m = lines.metric
        return scharfetter_gummel_rate(rho, xi, self.temperature, m.spacing, m.scale, m.area, m.volume, lines.periodic, rate)

    def assemble(
        self, rho: FloatArray, target: FloatArray, xi: FloatArray, curvature: FloatArray, dt: float, lines: Lines, out: Linearised
    ) -> None:
        """See ``assemble_scharfetter_gummel``."""
        m = lines.metric
        forth, back = np.empty((2, *rho.shape))
        scharfetter_gummel_coefficients(xi, self.temperature, lines.periodic, forth, back)
        geometry = (self.temperature, dt, m.spacing, m.scale, m.area, m.volume, lines.periodic)
        assemble_scharfetter_gummel(rho, target, forth, back, curvature, *geometry, out.residual, out.bands, out.mobility)
