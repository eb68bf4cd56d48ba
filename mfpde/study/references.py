"""What the runs of a study are held against: an exact density, or another run."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.base import EnergySum
from mfpde.measure import Density, DensityFunction, Measure
from mfpde.run import Run

ExactFunction = Callable[[FloatArray, float], FloatArray]
_REFINED = {1: 8, 2: 2, 3: 2}
_FEWEST_CELLS = 6
_MOST_CELLS = {1: 1 << 15, 2: 1 << 20, 3: 1 << 21}


class Reference(Protocol):
    """The measure that a study takes for the solution, at each of its times."""

    @property
    def name(self) -> str:
        """For people, as in "against NAME"."""

    def has(self, time: float) -> bool:
        """Whether there is a measure at this time."""

    def mass(self, time: float) -> float:
        """Its mass."""

    def on(self, time: float, grid: Grid) -> FloatArray:
        """Its cell averages on a grid, (size,). Raises ValueError where it has none there."""

    def beside(self, time: float, grid: Grid | None) -> Measure:
        """What a density on a grid, or atoms (None), are to have their distance to."""

    def energies(self, time: float) -> dict[str, tuple[float, float]]:
        """The energy of each term, and how far it may be wrong by its own computation."""


@dataclass(frozen=True, eq=False)
class ExactDensity:
    """An exact density: ``function`` maps points (M, d) and a time to values (M,). It is not normalised.

    Cell averages are taken by Gauss–Legendre quadrature in every cell of a grid with 8 times the cells in one dimension (up to 2^15),
    twice along each axis in two and three (up to 2^20 and 2^21). Distances and energies are those of the averages on the one that
    refines ``finest``. Energies of cell averages have an error of second order, so they are extrapolated from that grid and the one or
    two that halve it [Richardson]; what the last extrapolation changed counts as their error.
    """

    function: ExactFunction
    energy: EnergySum
    finest: Grid
    name: str = "the exact density"
    _fine: dict[float, Density] = field(default_factory=dict)

    def has(self, time: float) -> bool:
        """At every time."""
        return True

    def on(self, time: float, grid: Grid) -> FloatArray:
        """Cell averages on a grid, (size,). Raises ValueError where the density is negative or not finite."""
        return np.ravel(coarsened(self._fine_averages(time, grid), grid).values)

    def at(self, time: float) -> DensityFunction:
        """The density at one time."""
        return DensityFunction(lambda points: self.function(points, time), self.finest.domain)

    def mass(self, time: float) -> float:
        """The integral over the domain, by quadrature on the finest grid of the study. Raises ValueError as ``on`` does."""
        return float(np.sum(self.on(time, self.finest) * self.finest.weight))

    def beside(self, time: float, grid: Grid | None) -> Density:
        """The cell averages on the fine grid, of mass one."""
        fine = self._averaged(time)
        return Density(fine.grid, fine.values / fine.mass)

    def energies(self, time: float) -> dict[str, tuple[float, float]]:
        """The energies of the terms, extrapolated, with the last change."""
        levels = [self._averaged(time)]
        while len(levels) < 3 and all(count % 2 == 0 and count >= _FEWEST_CELLS for count in levels[-1].grid.cells):
            levels.append(coarsened(levels[-1], replace(levels[-1].grid, cells=tuple(n // 2 for n in levels[-1].grid.cells))))
        values = [self.energy.values(density) for density in levels]
        return {name: _extrapolated([value[name] for value in values]) for name in values[0]}

    def _averaged(self, time: float) -> Density:
        if time not in self._fine:
            self._fine[time] = self._fine_averages(time, self.finest)
        return self._fine[time]

    def _fine_averages(self, time: float, grid: Grid) -> Density:
        """By quadrature in every cell of a refined grid, which makes what free boundaries cost small."""
        fine = _refined(grid)
        return Density(fine, self.at(time).averages(fine))


@dataclass(frozen=True, eq=False)
class OtherRun:
    """A run as the reference.

    With ``averaged``, distances are to its density averaged over the cells of the other grid, where its own divide them. That is for
    a run of the same scheme: distances to it as it is hold the steps of both piecewise constant densities, whose errors do not
    subtract as those of the averages do.
    """

    run: Run
    name: str
    averaged: bool = False

    def has(self, time: float) -> bool:
        """Whether the run saved this time."""
        return bool(np.any(self.run.times == time))

    def mass(self, time: float) -> float:
        """The mass of the run's measure."""
        return self.measure(time).mass

    def on(self, time: float, grid: Grid) -> FloatArray:
        """The run's density, averaged over the cells of a grid that its own divides. Raises ValueError otherwise."""
        measure = self.measure(time)
        if not isinstance(measure, Density):
            raise ValueError(f"{self.name} are particles, which have no density; norms against them: w2, loss")
        return np.ravel(coarsened(measure, grid).values)

    def beside(self, time: float, grid: Grid | None) -> Measure:
        """The run's measure, averaged over the cells of the grid if that is wanted and possible."""
        measure = self.measure(time)
        if grid is not None and self.averaged and isinstance(measure, Density) and divides(grid.cells, measure.grid.cells):
            return coarsened(measure, grid)
        return measure

    def measure(self, time: float) -> Measure:
        """The run's measure."""
        return self.run.measures[int(np.flatnonzero(self.run.times == time)[0])]

    def energies(self, time: float) -> dict[str, tuple[float, float]]:
        """The run's energies, which are what they are."""
        place = int(np.flatnonzero(self.run.times == time)[0])
        return {name: (float(values[place]), 0.0) for name, values in self.run.energy.items()}


def divides(coarse: tuple[int, ...], fine: tuple[int, ...]) -> bool:
    """Whether each cell of one grid is a union of cells of the other."""
    return all(many % few == 0 for few, many in zip(coarse, fine, strict=True))


def coarsened(density: Density, grid: Grid) -> Density:
    """The averages of a density over the cells of a coarser grid, which keep the mass. Raises ValueError unless its cells divide them."""
    fine = density.grid
    if not divides(grid.cells, fine.cells):
        raise ValueError(f"{list(fine.cells)} cells cannot be averaged over {list(grid.cells)} cells")
    shape = [n for few, many in zip(grid.cells, fine.cells, strict=True) for n in (few, many // few)]
    mass = np.reshape(density.weights, shape).sum(axis=tuple(range(1, 2 * len(grid.cells), 2)))
    return Density(grid, np.reshape(np.ravel(mass) / grid.weight, grid.cells))


def _refined(grid: Grid) -> Grid:
    """The grid on which an exact density stands for itself."""
    dimension = grid.domain.dimension
    factor = _REFINED.get(dimension, 2)
    odd = any(count % 2 for count in grid.cells)
    while factor > 1 + odd and grid.size * factor**dimension > _MOST_CELLS.get(dimension, 1 << 21):
        factor //= 2
    return replace(grid, cells=tuple(factor * count for count in grid.cells))


def _extrapolated(values: list[float]) -> tuple[float, float]:
    """The limit of values with an error of second order on grids of which each halves the one before, and the last change."""
    if len(values) == 1 or not np.isfinite(values).all():
        return values[0], 0.0
    better = [(4.0 * fine - coarse) / 3.0 for fine, coarse in pairwise(values)]
    return better[0], abs(better[0] - (better[1] if len(better) > 1 else values[0]))
