"""Explicit stages on large uniform planes in one pass over memory."""

from collections.abc import Sequence

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.base import GridEnergy
from mfpde.energy.internal import GridPower
from mfpde.energy.potential import GridPotential
from mfpde.solvers.finite_volume.evaluation import Evaluation, Stage
from mfpde.solvers.finite_volume.flux import Flux, Upwind
from mfpde.solvers.kernels import plane as kernels
from mfpde.solvers.kernels.edge import PRESSURE_OUTFLOW

FEWEST_CELLS = 1 << 15


class Plane:
    """The stages of a flow whose energy is potentials and powers, so that ξ is local."""

    def __init__(self, grid: Grid, terms: Sequence[GridEnergy], flux: Upwind) -> None:
        self.grid, self._slopes = grid, flux.slopes
        powers = [term for term in terms if isinstance(term, GridPower)]
        fixed = [term.values for term in terms if isinstance(term, GridPotential)]
        self._fixed = np.ascontiguousarray(sum(fixed, np.zeros(grid.size)).reshape(grid.cells))
        self._exponents = np.array([term.exponent for term in powers])
        self._coefficients = np.array([term.coefficient for term in powers])
        self._least = np.empty(-(-grid.size // kernels.CHUNK))
        self._statistics = np.empty((-(-grid.cells[0] // kernels.BLOCK), kernels.STATISTICS))

    @staticmethod
    def fitting(grid: Grid, terms: Sequence[GridEnergy], flux: Flux) -> "Plane | None":
        """A plane, if the flow has the form that the pass knows and is large enough to gain from it."""
        flat = type(grid) is Grid and len(grid.cells) == 2 and len(grid.moving) == 2 and min(grid.cells) >= 4
        local = all(isinstance(term, GridPower | GridPotential) for term in terms)
        if flat and local and isinstance(flux, Upwind) and flux.slopes in (0.0, 1.0, 2.0) and grid.size >= FEWEST_CELLS:
            return Plane(grid, terms, flux)
        return None

    def evaluate(self, rho: FloatArray, rate: FloatArray) -> Evaluation:
        """Fill the rate; the magnitude includes ∫|ξ|ρ."""
        outflow = self._pass(rho, -1.0, rho, 1.0, rate)
        linear, power, slope = (self._sum(k) for k in (kernels.FIXED_ENERGY, kernels.POWER_ENERGY, kernels.SLOPE_SIZE))
        return Evaluation(linear + power, abs(linear) + abs(power) + slope, outflow, self._sum(kernels.DISSIPATION))

    def forward(self, rho: FloatArray, dt: float, rate: FloatArray, out: FloatArray) -> float:
        """out = ρ + dt rate; returns its minimum, NaN if any value is."""
        kernels.plane_forward(rho, dt, rate, out, self._least)
        return float(np.min(self._least))

    def stage(self, base: FloatArray, share: float, rho: FloatArray, dt: float, out: FloatArray) -> Stage:
        """out = base + share (ρ − base) + dt rate(ρ)."""
        outflow = self._pass(base, share, rho, dt, out)
        return Stage(outflow, float(np.min(self._statistics[:, kernels.MINIMUM])), self._sum(kernels.GAP))

    def _pass(self, base: FloatArray, share: float, rho: FloatArray, dt: float, out: FloatArray) -> float:
        """A stage, or the rate itself where ``share`` is negative; returns the largest outflow rate of a cell."""
        cells, spacing = self.grid.cells, self.grid.spacing
        periodic = self.grid.periodic(0), self.grid.periodic(1)
        seen = (rho.reshape(cells), self._fixed, self._exponents, self._coefficients, float(spacing[0]), float(spacing[1]), *periodic)
        kernels.plane_stage(*seen, self._slopes, base.reshape(cells), share, dt, out.reshape(cells), self._statistics)
        found = self._statistics
        share = 0.5 * PRESSURE_OUTFLOW if self._slopes == 2.0 else 1.0
        return share * float(np.max(found[:, kernels.OUTFLOW_0]) + np.max(found[:, kernels.OUTFLOW_1]))

    def _sum(self, column: int) -> float:
        return float(np.sum(self._statistics[:, column])) * self.grid.cell_volume
