"""What steps on densities have in common: the energy on one grid, taken apart, and what is reported of it."""

import math
from collections.abc import Iterator

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.distance import SLICED, wasserstein
from mfpde.domain import Grid
from mfpde.measure import Density, DensityFunction, Particles, deposit
from mfpde.problem import Problem
from mfpde.solvers.finite_volume.model import Parts
from mfpde.solvers.jko.internal import Internal


class Densities:
    """Cell averages as the points (size, 1) of a scheme; subclasses add ``minimise`` and ``notes_of``.

    δE/δρ = u'(ρ) + ``parts.fixed`` + Σ K_j ρ with the ``internal`` energy u and quadratic terms K_j, which networks have as low-rank
    factors. Raises ValueError for energies that are infinite on cells; domains are those that ``rules`` let through.
    """

    def __init__(self, problem: Problem, cells: tuple[int, ...]) -> None:
        domain = problem.domain
        self.domain, self.energy = domain, problem.energy
        self.grid: Grid = domain.grid(cells)
        self.volume = float(self.grid.cell_volume)
        self.terms = {name: term.on(self.grid) for name, term in problem.energy.terms.items()}
        self.internal = Internal.of(problem.energy.terms)
        self.parts = Parts.of(self.terms, self.grid.size)
        self._initial = _on(problem.initial, self.grid)

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The initial cell averages, and no dual variables yet."""
        return self._initial.copy()[:, None], np.empty(0)

    def value(self, points: FloatArray) -> float:
        """E."""
        return float(sum(self.values(points).values()))

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term."""
        rho = np.ascontiguousarray(points[:, 0])
        return {name: float(term.value(rho)) for name, term in self.terms.items()}

    def drift(self, rho: FloatArray) -> FloatArray:
        """δE/δρ without the internal energy, (size,)."""
        xi = self.parts.fixed.copy()
        self.parts.apply(rho, xi)
        return xi

    def first_variation(self, rho: FloatArray) -> FloatArray:
        """δE/δρ, (size,)."""
        return np.asarray(self.drift(rho) + self.internal.slopes(rho))

    def dissipation(self, points: FloatArray) -> float:
        """Σ over the faces of ρ|∇δE/δρ|², with the lesser density of both sides."""
        return self.volume * sum(float(np.sum(weights * slopes**2)) for _, weights, slopes in self.slopes(points))

    def slopes(self, points: FloatArray) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        """For each moving axis: the lesser density of both sides of its faces, and the slope of δE/δρ across those between mass."""
        rho = points[:, 0].reshape(self.grid.cells)
        xi = self.first_variation(points[:, 0]).reshape(self.grid.cells)
        for axis in self.grid.moving:
            width, periodic = float(self.grid.spacing[axis]), self.grid.periodic(axis)
            there, here = (np.roll(rho, -1, axis), rho) if periodic else _sides(rho, axis)
            above, below = (np.roll(xi, -1, axis), xi) if periodic else _sides(xi, axis)
            weights = np.minimum(there, here)
            yield axis, weights, np.where(weights > 0.0, above - below, 0.0) / width

    def measure(self, points: FloatArray) -> Density:
        """The density."""
        return Density(self.grid, points[:, 0].reshape(self.grid.cells).copy())

    def summary(self, points: FloatArray) -> tuple[float, float, float]:
        """Mass, least cell average, and the share of the wall cells that are not part of the model."""
        masses = points[:, 0] * self.volume
        mass = float(np.sum(masses))
        return mass, float(np.min(points)), float(np.sum(masses[self.grid.cutoff_cells])) / mass

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """W₂²: exact along one axis; along d ≥ 2 of them d times the sliced one, which is W₂² for shifts and a lower bound else."""
        moving, method = len(self.domain.moving), SLICED
        if moving == 1:
            method = "auto"
        elif self.domain.periodic.any():
            method = "entropic"
        factor = math.sqrt(moving) if method == SLICED else 1.0
        return (factor * wasserstein(self.measure(one), self.measure(other), self.domain, method=method).value) ** 2


def _sides(values: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    upper, lower = [slice(None)] * values.ndim, [slice(None)] * values.ndim
    upper[axis], lower[axis] = slice(1, None), slice(None, -1)
    return values[tuple(upper)], values[tuple(lower)]


def _on(initial: DensityFunction | Particles, grid: Grid) -> FloatArray:
    """Cell averages of the initial measure, (size,)."""
    found = initial.on(grid) if isinstance(initial, DensityFunction) else deposit(initial, grid)
    return np.array(np.ravel(found.values), dtype=float)
