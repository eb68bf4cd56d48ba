"""Interaction energies ½∬ W(x − y) ρ(dx)ρ(dy): aggregation, repulsion, synchronisation, log gases."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.convolution import Convolution, DenseMatrix, cell_sides, interpolate
from mfpde.energy.internal import integral
from mfpde.energy.low_rank import quadratic_form
from mfpde.energy.pair_kernel import PairKernel, Quadratic
from mfpde.energy.pairs import FastPairs, PairSums
from mfpde.energy.resolution import resolution_note
from mfpde.energy.series import Series
from mfpde.measure import Density, Measure

_PAIRS = 1 << 13
_FEW_PAIRS = 1 << 14
_GHOSTS = 2
_SHOWN = 60


class Operator(Protocol):
    """K of ½⟨ρ, Kρ⟩ on one grid, as in ``GridQuadratic``."""

    @property
    def factors(self) -> tuple[FloatArray, FloatArray] | None:
        """Rows and signs where K has a low rank."""

    @property
    def convex(self) -> bool:
        """Whether K is positive semidefinite between densities of the same mass."""

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ."""

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add K₋ρ."""


@dataclass(frozen=True, eq=False)
class Interaction:
    """E(ρ) = ½∬ W(x − y) ρ(dx)ρ(dy) with a pair kernel W of the difference, the shortest one along circles.

    Mass on different slices of frozen axes interacts, too. Atoms do not interact with themselves or with others at the same point
    if W is infinite at 0; else W(0) counts. The gradient between equal points is 0.

    A density is its cell masses at the cell centres if W is smooth on the scale of the cells; else it is constant in each cell, and
    its potential W∗ρ, exact at cell centres, is a cubic convolution between them (linear in radius and angle on polar grids). So
    ``value`` and ``first_variation`` at the cell centres are those of ``on(grid)``. ``name`` is the formula of W, for people.
    """

    kernel: PairKernel
    name: str = "W(x - y)"
    temperature: float = 0.0
    _prepared: dict[Grid, Operator] = field(default_factory=dict, init=False, repr=False)
    _noted: dict[Grid, str] = field(default_factory=dict, init=False, repr=False)
    _padded: dict[Grid, Convolution] = field(default_factory=dict, init=False, repr=False)

    @property
    def description(self) -> str:
        """For people."""
        formula = " ".join(self.name.split())
        formula = formula if len(formula) <= _SHOWN else formula[: _SHOWN - 1] + "…"
        scaled = formula if self.kernel.coefficient == 1.0 else f"{self.kernel.coefficient:g} · ({formula})"
        if self.kernel.quadratic is None and self._fast.sorted is not None:
            return f"W = {scaled}, {self.kernel.form}; many atoms by {self._fast.sorted.description}"
        return f"W = {scaled}, {self.kernel.form}"

    def summation(self, atoms: Measure) -> str:
        """How the forces between these atoms are summed, for people."""
        if self.kernel.quadratic is not None:
            return "moments"
        sums = self._summed(atoms, atoms.points)
        return "all pairs" if sums is None else sums.description

    def value(self, measure: Measure) -> float:
        """½ Σ m_i m_j W(x_i − x_j)."""
        if isinstance(measure, Density):
            return self.on(measure.grid).value(np.ravel(measure.values))
        return 0.5 * float(measure.weights @ self.first_variation(measure, measure.points))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """W∗ρ at points (M, d), as (M,)."""
        if self.kernel.quadratic is not None:
            return self._moments(self.kernel.quadratic, measure, at)[0]
        if isinstance(measure, Density):
            if np.array_equal(at, measure.grid.centers):
                return self._on_cells(measure)
            if not self._centred(measure.grid):
                return self._interpolated(measure, at)[0]
        return self._potential(measure, at)

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇W∗ρ at points (M, d), as (M, d)."""
        if self.kernel.quadratic is not None:
            return self._moments(self.kernel.quadratic, measure, at)[1]
        if isinstance(measure, Density) and not self._centred(measure.grid):
            return self._interpolated(measure, at)[1]
        return self._force(measure, at)

    def on(self, grid: Grid) -> "GridInteraction":
        """K on one grid of the kernel's domain, in its fastest form. Raises ValueError for another domain, where memory is short, and
        where the kernel varies too fast for the cells."""
        if grid.domain != self.kernel.domain:
            raise ValueError("the kernel of an interaction was made for another domain than the grid's")
        return GridInteraction(self._operator(grid), grid, self._noted[grid])

    def resolution(self, grid: Grid) -> str:
        """A remark where the cells hardly resolve the kernel, else empty. Raises ValueError where it varies too fast for them."""
        exact = self.kernel.quadratic is not None or (self.kernel.exponential is not None and type(grid) is Grid)
        return "" if exact else resolution_note(self.kernel, cell_sides(grid))

    def _operator(self, grid: Grid) -> Operator:
        """The operator of the last grid is kept: its weights may cost a quadrature."""
        if grid not in self._prepared:
            self._prepared.clear()
            self._noted.clear()
            self._noted[grid] = self.resolution(grid)
            self._prepared[grid] = self._fastest(grid)
        return self._prepared[grid]

    def _fastest(self, grid: Grid) -> Operator:
        """A form of low rank, a recursion, the fast Fourier transform, or a dense matrix on grids that are not uniform."""
        kernel, periodic = self.kernel, _periodic(grid)
        if kernel.quadratic is not None:
            return quadratic_form(kernel.quadratic, grid)
        if type(grid) is not Grid:
            return DenseMatrix(kernel, grid)
        if kernel.exponential is not None:
            from mfpde.energy.recursion import ExponentialRecursion

            return ExponentialRecursion(kernel.exponential, float(grid.spacing[0]))
        smooth = kernel.resolved(grid.spacing)
        if smooth and self._series is not None and (form := self._series.form(grid)) is not None:
            return form
        convolution = Convolution(kernel, grid.cells, grid.spacing, periodic)
        if smooth and kernel.peaks_at_zero and not convolution.convex and self._series is not None and self._series.convex:
            convolution.drop_concave()
        return convolution

    @cached_property
    def _fast(self) -> FastPairs:
        return FastPairs(self.kernel)

    @property
    def _series(self) -> Series | None:
        return self._fast.series

    def _summed(self, measure: Measure, at: FloatArray) -> PairSums | None:
        """What is faster than all pairs by NumPy, if anything is; few pairs are not worth the choice."""
        return self._fast.choose(measure.points, at) if len(at) * len(measure.points) > _FEW_PAIRS else None

    def _centred(self, grid: Grid) -> bool:
        """Whether a density on this grid is masses at the cell centres."""
        return self.kernel.resolved(cell_sides(grid))

    def _moments(self, form: Quadratic, measure: Measure, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """W∗ρ = m(a + ½xᵀQx) − xᵀQ∫y dρ + ½∫yᵀQy dρ and its gradient."""
        middle = 0.5 * (self.kernel.domain.lower + self.kernel.domain.upper)
        x, y, weights = at - middle, measure.points - middle, measure.weights
        mass, first = float(np.sum(weights)), form.matrix @ (weights @ y)
        second = float(weights @ np.sum((y @ form.matrix) * y, axis=1))
        pulled = x @ form.matrix
        values = mass * (form.constant + 0.5 * np.sum(pulled * x, axis=1)) - x @ first + 0.5 * second
        return np.asarray(values), np.asarray(mass * pulled - first)

    def _potential(self, measure: Measure, at: FloatArray) -> FloatArray:
        points, weights = measure.points, measure.weights
        if (sums := self._summed(measure, at)) is not None:
            return sums.potential(points, weights, at)
        result = np.zeros(len(at))
        for rows, columns, x in self._pairs(at, points):
            result[rows] += self.kernel.values(x).reshape(-1, columns.stop - columns.start) @ weights[columns]
        return result

    def _force(self, measure: Measure, at: FloatArray) -> FloatArray:
        points, weights = measure.points, measure.weights
        if (sums := self._summed(measure, at)) is not None:
            return sums.force(points, weights, at)
        result = np.zeros(at.shape)
        for rows, columns, x in self._pairs(at, points):
            slopes = self.kernel.slopes(x)
            for k in range(at.shape[1]):
                result[rows, k] += slopes[:, k].reshape(-1, columns.stop - columns.start) @ weights[columns]
        return result

    def _pairs(self, at: FloatArray, points: FloatArray) -> Iterator[tuple[slice, slice, FloatArray]]:
        """Blocks of the differences at_i − points_j, as (pairs, d) with contiguous columns: the memory does not grow with the atoms."""
        domain = self.kernel.domain
        width = min(len(points), _PAIRS)
        height = max(1, _PAIRS // width)
        for start in range(0, len(at), height):
            rows = slice(start, min(start + height, len(at)))
            for first in range(0, len(points), width):
                columns = slice(first, min(first + width, len(points)))
                x = np.empty((at.shape[1], rows.stop - start, columns.stop - first))
                for k, axis in enumerate(domain.axes):
                    np.subtract.outer(at[rows, k], points[columns, k], out=x[k])
                    if axis.periodic:
                        x[k] -= axis.length * np.round(x[k] / axis.length)
                yield rows, columns, x.reshape(at.shape[1], -1).T

    def _on_cells(self, density: Density) -> FloatArray:
        xi = np.zeros(density.grid.size)
        self._operator(density.grid).apply(np.ravel(density.values), xi)
        return xi

    def _interpolated(self, density: Density, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The potential of the cells between their centres, and its gradient."""
        grid = density.grid
        inside = grid.domain.confine(at)
        if type(grid) is not Grid:
            xi = self._on_cells(density)
            return _linear(xi, grid, inside), _linear_gradient(xi, grid, inside)
        around = self._around(grid)
        ghosts = (np.array(around.cells) - np.array(grid.cells)) // 2
        padded = np.pad(np.reshape(density.values, grid.cells), [(g, g) for g in ghosts])
        xi = np.zeros(padded.size)
        around.apply(padded.ravel(), xi)
        places = (inside - grid.domain.lower) / grid.spacing - 0.5 + ghosts
        values, slopes = interpolate(xi.reshape(padded.shape), places, _periodic(grid))
        return values, slopes / grid.spacing

    def _around(self, grid: Grid) -> Convolution:
        """K on a grid with some more cells beyond the walls; that of the last grid is kept."""
        if grid not in self._padded:
            self._padded.clear()
            cells = tuple(n if axis.periodic else n + 2 * _GHOSTS for n, axis in zip(grid.cells, grid.domain.axes, strict=True))
            self._padded[grid] = Convolution(self.kernel, cells, grid.spacing, _periodic(grid))
        return self._padded[grid]


class GridInteraction:
    """½⟨ρ, Kρ⟩ on the cells of one grid; a right-hand side costs one product with K. ``note``: a remark where the cells hardly resolve
    the kernel, else empty."""

    temperature = 0.0

    def __init__(self, operator: Operator, grid: Grid, note: str = "") -> None:
        self.operator, self.weight, self.note = operator, grid.weight, note
        self.linear = np.zeros(grid.size)
        self._xi = np.empty(grid.size)

    @property
    def factors(self) -> tuple[FloatArray, FloatArray] | None:
        """Rows and signs where K has a low rank."""
        return self.operator.factors

    @property
    def convex(self) -> bool:
        """Whether K is positive semidefinite between densities of the same mass."""
        return self.operator.convex

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ = W∗ρ."""
        self.operator.apply(rho, out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add K₋ρ: K = K₊ − K₋ between densities of the same mass, and both are positive semidefinite there."""
        self.operator.apply_concave(rho, out)

    def value(self, rho: FloatArray) -> float:
        """½⟨ρ, Kρ⟩."""
        self._xi[:] = 0.0
        self.operator.apply(rho, self._xi)
        return 0.5 * integral(rho, self._xi, self.weight)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add Kρ; returns the energy."""
        energy = self.value(rho)
        np.add(xi, self._xi, out=xi)
        return energy


def _periodic(grid: Grid) -> tuple[bool, ...]:
    return tuple(axis.periodic for axis in grid.domain.axes)


def _linear(xi: FloatArray, grid: Grid, at: FloatArray) -> FloatArray:
    """Linear interpolation between the centres of a grid that is not uniform."""
    return np.asarray(sum(share * xi[cell] for cell, share in grid.neighbours(at)))


def _linear_gradient(xi: FloatArray, grid: Grid, at: FloatArray) -> FloatArray:
    """Differences of it over one cell forth and back."""
    result = np.zeros(at.shape)
    for forth, back, width, direction in grid.steps(at):
        result += ((_linear(xi, grid, forth) - _linear(xi, grid, back)) / width)[:, None] * direction
    return result
