"""Potential energy ∫V dρ."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Grid
from mfpde.measure import Measure

PATH_ROUNDING = 1e-3
"""The |w||θ| below which the path norm is rounded off."""


@dataclass(frozen=True, eq=False)
class Potential:
    """E(ρ) = ∫V dρ; ``function`` gives V at points (N, d) as (N,), ``slope`` its gradient as (N, d).

    V = +∞ where ``obstacle``, a function such as V, is positive.
    """

    function: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    temperature: float = 0.0
    obstacle: Callable[[FloatArray], FloatArray] | None = None

    def value(self, measure: Measure) -> float:
        """∫V dρ; on a density by the cell averages' masses at the cell centres."""
        if (blocked := self.blocked(measure.points)) is not None and np.any(np.ravel(measure.weights)[blocked] > 0.0):
            return float("inf")
        return float(measure.weights @ self.function(measure.points))

    def blocked(self, at: FloatArray) -> BoolArray | None:
        """Which points (M, d) are in the obstacle, (M,); None without one."""
        return None if self.obstacle is None else np.broadcast_to(np.asarray(self.obstacle(at)) > 0.0, (len(at),))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """V, whatever the measure."""
        values, blocked = np.asarray(self.function(at)), self.blocked(at)
        return values if blocked is None else np.where(blocked, np.inf, values)

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇V, whatever the measure."""
        return np.asarray(self.slope(at))

    def on(self, grid: Grid) -> "GridPotential":
        """V at the cell centres, where obstacles are asked for, too. Raises ValueError where V itself is not finite."""
        values = np.array(self.function(grid.centers), dtype=float)
        if not np.isfinite(values).all():
            where = grid.centers[int(np.argmin(np.isfinite(values)))]
            raise ValueError(f"the potential is not finite at {where.tolist()}")
        return GridPotential(values, values * grid.weight, blocked=self.blocked(grid.centers))


@dataclass(frozen=True, eq=False)
class GridPotential:
    """V on the cells of one grid, +∞ in the cells of the mask ``blocked``, where ``values`` go on as if there was no obstacle."""

    values: FloatArray
    scaled: FloatArray
    temperature: float = 0.0
    blocked: BoolArray | None = None

    def value(self, rho: FloatArray) -> float:
        """∫V dρ."""
        if self.blocked is not None and np.any(rho[self.blocked] > 0.0):
            return float("inf")
        return float(np.dot(self.scaled, rho))

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add V; returns the energy."""
        xi += self.values
        return self.value(rho)


def weight_decay(strength: float) -> Potential:
    """λ/2 ∫|θ|² dρ over all coordinates, with λ = ``strength``."""
    return Potential(lambda points: 0.5 * strength * np.sum(points * points, axis=1), lambda points: strength * points)


def path_norm(strength: float, outputs: int, rounding: float = PATH_ROUNDING) -> Potential:
    """λ∫√(|w|²|θ|² + ε²) − ε dρ with λ = ``strength`` and ε = ``rounding``, w being the last ``outputs`` coordinates (with the Euclidean
    norm) and θ, an offset included, those before: λ∫|w||θ|dρ to within λε.

    The penalty of the teacher-student problem of Akiyama and Suzuki (2021). For homogeneous neurons such as relu it has the same least
    values as a weight decay λ/2∫|θ|² + |w|²dρ: 2|w||θ| ≤ |θ|² + |w|², with equality where the lengths are balanced.

    |w||θ| has a kink at w = 0, where the flow of a neuron with |∂E/∂w| ≤ λ|θ| rests for good; steps of a solver that knows no such rest
    would go to and fro across it. So the kink is rounded off: the neuron rests at |w||θ| of about ε instead. mfpde.sparse.flow has the
    exact rest.
    A neuron with |w||θ| far above ε pays λε less than λ|w||θ|, so energies, recorded ones too, can lie below the minimum with the exact
    penalty, by up to λε.
    """

    def squares(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        inner, outer = np.split(points, [points.shape[1] - outputs], axis=1)
        return np.sum(inner * inner, axis=1, keepdims=True), np.sum(outer * outer, axis=1, keepdims=True)

    def value(points: FloatArray) -> FloatArray:
        inner, outer = squares(points)
        product = inner[:, 0] * outer[:, 0]
        return np.asarray(strength * product / (np.sqrt(product + rounding**2) + rounding))

    def slope(points: FloatArray) -> FloatArray:
        inner, outer = squares(points)
        factor, split = strength / np.sqrt(inner * outer + rounding**2), points.shape[1] - outputs
        return np.asarray(np.concatenate([factor * outer * points[:, :split], factor * inner * points[:, split:]], axis=1))

    return Potential(value, slope)
