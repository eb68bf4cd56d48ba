"""Gibbs kernels exp(−|x − y|²/ε) on the cells of a grid, in the log domain and along one axis at a time."""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.solvers.kernels.entropic import smooth, smooth_alone

EMPTY = -1e30
"""The logarithm of nothing."""
_NONE = -1e25
_ALONE = 1 << 20
"""So few terms take less time than other threads may need to wake on a busy machine."""
_TURNS = 3
_LEAST_EXPONENT, _LARGEST_EXPONENT = -740.0, 600.0


class Gibbs:
    """K(x, y) = exp(−|x − y|²/``epsilon``) times the cell volume, the identity along frozen axes.

    Along a circle K is summed over all ways round: Gaussian kernels are positive definite on any uniform grid, wrapped ones on circles,
    and the shortest way alone would not be. n² numbers are held for each axis of n cells, never more.
    """

    def __init__(self, grid: Grid, epsilon: float) -> None:
        self.grid, self.epsilon = grid, epsilon
        self._shift = math.log(grid.cell_volume)
        self._axes = [_Line.of(grid, axis, epsilon) for axis in grid.moving]

    def smooth(self, values: FloatArray) -> FloatArray:
        """log Σ_y K(x, y) e^values(y) at all cells x, (size,)."""
        return self._smooth(values, [line.cost for line in self._axes])

    def soften(self, values: FloatArray) -> FloatArray:
        """−log Σ_y K(x, y) e^values(y), the potential over ε that answers another; 0 in slices of frozen axes without mass."""
        found = self.smooth(values)
        return np.where(found > _NONE, -found, 0.0)

    def self_potential(self, log_rho: FloatArray, start: FloatArray, accuracy: float, most: int = 200) -> FloatArray:
        """s with e^{s} K(ρ e^{s}) = 1 where ρ is, the potential over ε of transport from ρ to itself; from ``start`` by averaged steps,
        which halve the error."""
        rho, s = densities(log_rho), start
        for _ in range(most):
            change = 0.5 * (self.soften(log_rho + s) - s)
            s = s + change
            if float(np.sum(rho * np.abs(change))) * self.grid.cell_volume <= accuracy:
                break
        return s

    def mean_cost(self, a: FloatArray, b: FloatArray) -> float:
        """Σ |x − y|² a(x) K(x, y) b(y) |cell| from the logarithms of a and b: one pass for each axis, whose kernel is weighted."""
        costs, total = [line.cost for line in self._axes], 0.0
        for n, line in enumerate(self._axes):
            weighted = [line.weighted if k == n else cost for k, cost in enumerate(costs)]
            total += float(np.sum(densities(a + self._smooth(b, weighted))))
        return total * self.grid.cell_volume

    def _smooth(self, values: FloatArray, costs: list[FloatArray]) -> FloatArray:
        shaped = values.reshape(self.grid.cells)
        for line, cost in zip(self._axes, costs, strict=True):
            rows = np.ascontiguousarray(np.moveaxis(shaped, line.axis, -1))
            out = np.empty_like(rows)
            run = smooth if rows.size * len(cost) > _ALONE else smooth_alone
            run(rows.reshape(-1, len(cost)), cost, line.unit, line.periodic, out.reshape(-1, len(cost)))
            shaped = np.moveaxis(out, -1, line.axis)
        return np.ascontiguousarray(shaped).reshape(-1) + self._shift


@dataclass(frozen=True, eq=False)
class _Line:
    """−log of the kernel along one axis, and of the kernel times the squared distance, (n, n); ``unit`` h²/ε."""

    axis: int
    periodic: bool
    unit: float
    cost: FloatArray
    weighted: FloatArray

    @staticmethod
    def of(grid: Grid, axis: int, epsilon: float) -> "_Line":
        n, width = grid.cells[axis], float(grid.spacing[axis])
        gaps, periodic = width * (np.arange(n)[:, None] - np.arange(n)[None, :]), grid.periodic(axis)
        turns = np.arange(-_TURNS, _TURNS + 1) * n * width if periodic else np.zeros(1)
        squares = (gaps[:, :, None] + turns) ** 2
        cost = -np.logaddexp.reduce(-squares / epsilon, axis=2)
        logarithms = np.log(squares, out=np.full_like(squares, EMPTY), where=squares > 0.0)
        weighted = -np.logaddexp.reduce(logarithms - squares / epsilon, axis=2)
        return _Line(axis, periodic, width * width / epsilon, np.ascontiguousarray(cost), np.ascontiguousarray(weighted))


def densities(logarithms: FloatArray) -> FloatArray:
    """exp without overflow, and without the last digits of underflow."""
    return np.asarray(np.where(logarithms > _LEAST_EXPONENT, np.exp(np.clip(logarithms, _LEAST_EXPONENT, _LARGEST_EXPONENT)), 0.0))
