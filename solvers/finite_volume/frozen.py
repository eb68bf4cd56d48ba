"""Right-hand sides where ξ never changes: potentials and entropy under a fitted flux."""

from collections.abc import Sequence

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.base import GridEnergy
from mfpde.energy.internal import GridEntropy
from mfpde.energy.potential import GridPotential
from mfpde.solvers.finite_volume.evaluation import Evaluation
from mfpde.solvers.finite_volume.flux import Flux, Lines, ScharfetterGummel
from mfpde.solvers.kernels.logarithm import logarithms
from mfpde.solvers.kernels.transport import frozen_drops, frozen_rate


class Frozen:
    """Evaluations with the exponentials of the flux kept and one logarithm for each cell."""

    def __init__(self, grid: Grid, terms: Sequence[GridEnergy], temperature: float) -> None:
        self.temperature = temperature
        self.xi = sum((term.values for term in terms if isinstance(term, GridPotential)), np.zeros(grid.size))
        self.weight = np.atleast_1d(np.asarray(grid.weight, dtype=float))
        self.lines = [Lines.of(grid, axis) for axis in grid.moving]
        self._logs, self._scratch = np.empty((2, grid.size))
        self._sizes = np.abs(self.xi) + temperature
        self._faces = []
        for lines in self.lines:
            drops, forth = np.zeros((2, *lines.shape))
            frozen_drops(lines.see(self.xi), temperature, lines.periodic, drops, forth)
            self._faces.append((drops, forth))

    @staticmethod
    def fitting(grid: Grid, terms: Sequence[GridEnergy], flux: Flux) -> "Frozen | None":
        """The evaluations of a flow of this form."""
        if isinstance(flux, ScharfetterGummel) and all(isinstance(term, GridEntropy | GridPotential) for term in terms):
            return Frozen(grid, terms, flux.temperature)
        return None

    def evaluate(self, rho: FloatArray, rate: FloatArray) -> Evaluation:
        """Fill the rate; the magnitude includes ∫|ξ|ρ and T∫ρ."""
        logarithms(rho, self._scratch, self._logs)
        np.multiply(rho, self.weight, out=self._scratch)
        fixed, entropy = float(np.dot(self.xi, self._scratch)), self.temperature * float(np.dot(self._logs, self._scratch))
        size = float(np.dot(self._sizes, self._scratch))
        rate[:] = 0.0
        outflow, dissipation = 0.0, 0.0
        for lines, faces in zip(self.lines, self._faces, strict=True):
            m, values = lines.metric, (lines.see(rho), lines.see(self._logs), *faces)
            found = frozen_rate(*values, self.temperature, m.spacing, m.scale, m.area, m.volume, lines.periodic, lines.see(rate))
            outflow, dissipation = outflow + found[0], dissipation + found[1] * m.cross
        return Evaluation(fixed + entropy, abs(fixed) + abs(entropy) + size, outflow, dissipation)
