"""Measures on a domain. Densities on a grid and particles are both atoms: points with weights."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Protocol, TypeAlias

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain, Grid

_GAUSS_NODES = {1: 6, 2: 3, 3: 2}
_FINE_CELLS = {1: 8192, 2: 1024, 3: 128}
_BLOCK = 1 << 18
_NEGLIGIBLE = 1e-14


class Atoms(Protocol):
    """Anything that can stand as a weighted sum of Dirac masses."""

    @property
    def points(self) -> FloatArray:
        """Positions, (N, d)."""

    @property
    def weights(self) -> FloatArray:
        """Masses, (N,)."""


@dataclass(frozen=True, eq=False)
class Density:
    """Cell averages of a density on a grid; ``values`` has the grid's shape or its size.

    As atoms it is the cell masses at the cell centres. Raises ValueError for another number of values.
    """

    grid: Grid
    values: FloatArray

    def __post_init__(self) -> None:
        if np.size(self.values) != self.grid.size:
            raise ValueError(f"a density on {self.grid.cells} cells needs {self.grid.size} values, got {np.size(self.values)}")

    @property
    def points(self) -> FloatArray:
        """Cell centres, (size, d)."""
        return self.grid.centers

    @property
    def weights(self) -> FloatArray:
        """Cell masses, (size,)."""
        return np.asarray(np.ravel(self.values) * self.grid.weight)

    @property
    def mass(self) -> float:
        """Total mass."""
        return float(np.sum(self.weights))

    @property
    def minimum(self) -> float:
        """Smallest cell average."""
        return float(np.min(self.values))


@dataclass(frozen=True, eq=False)
class Particles:
    """Atoms at ``points`` (N, d) with ``weights`` (N,). Raises ValueError for shapes that differ, no atoms or numbers not finite."""

    points: FloatArray
    weights: FloatArray

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.weights.shape != self.points.shape[:1] or self.weights.size == 0:
            raise ValueError(f"particles need points (N, d) and weights (N,) with N >= 1, got {self.points.shape} and {self.weights.shape}")

    @staticmethod
    def equal(points: FloatArray) -> "Particles":
        """Atoms of weight 1/N at ``points`` (N, d)."""
        return Particles(points, np.full(len(points), 1.0 / len(points)))

    @property
    def mass(self) -> float:
        """Total mass."""
        return float(np.sum(self.weights))

    @property
    def minimum(self) -> float:
        """Smallest weight."""
        return float(np.min(self.weights))


Measure: TypeAlias = Density | Particles


def barycentres(measure: Measure) -> FloatArray:
    """The atoms' points, or the barycentres of a density's cells, (N, d)."""
    return measure.grid.centroids if isinstance(measure, Density) else measure.points


def mean(measure: Measure) -> FloatArray:
    """Barycentre, (d,). Along circles it is the mean coordinate, which depends on where the circle is cut."""
    weights = measure.weights
    return np.asarray(weights @ barycentres(measure) / np.sum(weights))


def covariance(measure: Measure) -> FloatArray:
    """Covariance matrix, (d, d); a density counts as constant in each cell, which adds h²/12 on the diagonal in a box."""
    weights = measure.weights / np.sum(measure.weights)
    centred = barycentres(measure) - mean(measure)
    spread = (centred * weights[:, None]).T @ centred
    if isinstance(measure, Density):
        spread = spread + measure.grid.inner_covariance(weights)
    return np.asarray(spread)


def layered_cells(domain: Domain, count: int, layers: int) -> tuple[int, ...]:
    """About ``count`` cells, equally many along all axes; with several ``layers`` just these along frozen axes."""
    if layers == 1 or domain.frozen.all():
        return (max(1, round(count ** (1.0 / domain.dimension))),) * domain.dimension
    held = layers ** int(np.sum(domain.frozen))
    each = max(1, round((count / held) ** (1.0 / len(domain.moving))))
    return tuple(layers if frozen else each for frozen in domain.frozen)


def deposit(atoms: Atoms, grid: Grid) -> Density:
    """Cell averages of atoms: each is shared between the cells whose centres are around it (linear weights; all to one cell along
    frozen axes), so that mass is exact, and moments and smooth integrals are to second order away from walls."""
    mass = np.zeros(grid.size)
    for cell, share in grid.neighbours(atoms.points):
        mass += np.bincount(cell, weights=atoms.weights * share, minlength=grid.size)
    return Density(grid, (mass / grid.weight).reshape(grid.cells))


@dataclass(frozen=True, eq=False)
class DensityFunction:
    """A nonnegative function of the point, normalised to mass one over its domain.

    ``function`` maps points (M, d) to values (M,). Raises ValueError where it is negative or not finite, or its integral is zero.
    """

    function: Callable[[FloatArray], FloatArray]
    domain: Domain

    def averages(self, grid: Grid) -> FloatArray:
        """Cell averages by Gauss–Legendre quadrature in every cell as they are, not normalised, (size,)."""
        average = np.zeros(grid.size)
        for place, weight in _cell_quadrature(grid):
            for start in range(0, grid.size, _BLOCK):
                block = slice(start, start + _BLOCK)
                average[block] += weight * grid.stretch(place, block) * self._evaluate(grid.places(place, block))
        return average

    def on(self, grid: Grid) -> Density:
        """Cell averages by Gauss–Legendre quadrature in every cell, normalised to mass one."""
        average = self.averages(grid)
        with np.errstate(over="ignore"):
            total = float(np.sum(average * grid.weight))
        if not (np.isfinite(total) and total > 0.0):
            raise ValueError(f"the density must have a positive finite integral over the domain, got {total:g}")
        return Density(grid, (average / total).reshape(grid.cells))

    def gauss_atoms(self, cells: int | tuple[int, ...]) -> Particles:
        """The density as atoms at the Gauss–Legendre nodes of a grid of about ``cells`` cells along each axis, or of so many along each, of
        total mass one."""
        grid = self.domain.even_grid(cells) if isinstance(cells, int) else self.domain.grid(cells)
        parts = [(grid.places(place), weight * grid.stretch(place) * grid.weight) for place, weight in _cell_quadrature(grid)]
        points = np.concatenate([p for p, _ in parts])
        weights = np.concatenate([w * self._evaluate(p) for p, w in parts])
        kept = weights > 0.0
        if not kept.any():
            raise ValueError("the density must have a positive finite integral over the domain, got 0")
        return Particles(points[kept], weights[kept] / np.sum(weights))

    def quantiles(self, count: int, layers: int = 1) -> Particles:
        """``count`` equal atoms at the quantiles (i - 1/2)/count; in d >= 2 the images of a golden-ratio lattice, of which frozen axes
        take the midpoints: along the first, a part with a share k/count of the mass has k atoms. ``layers``: in each of so many such parts
        every other coordinate is at midpoints, too."""
        unit = lattice(count, self.domain.dimension)
        if self._depths_first:
            unit = _spread_in_layers(unit, layers)[:, np.argsort(self._depths_first)]
        return Particles.equal(self._push(unit))

    def grid_atoms(self, count: int, layers: int = 1) -> Particles:
        """One atom for each cell of a grid of about ``count`` cells, at its centre and with its mass; none where that is negligible. With
        several ``layers`` there are just so many cells along frozen axes.

        Unlike equal atoms these are as dense in the tails as anywhere else.
        """
        cells = layered_cells(self.domain, count, layers)
        density = self.on(self.domain.grid(cells) if layers > 1 else self.domain.even_grid(cells[0]))
        weights = density.weights
        kept = weights > _NEGLIGIBLE * float(np.max(weights))
        return Particles(np.ascontiguousarray(density.points[kept]), weights[kept] / np.sum(weights[kept]))

    def sample(self, count: int, generator: np.random.Generator) -> Particles:
        """``count`` equal atoms drawn independently; where axes are frozen, one from each of ``count`` parts of equal mass along the first
        of them, so that a part with a share k/count of the mass has k atoms."""
        unit = generator.random((count, self.domain.dimension))
        if self._depths_first:
            unit[:, self._depths_first[0]] = (np.arange(count) + unit[:, self._depths_first[0]]) / count
        return Particles.equal(self._push(unit))

    def values(self, points: FloatArray) -> FloatArray:
        """The function at points (M, d), not normalised, (M,)."""
        return self._evaluate(points)

    def _evaluate(self, points: FloatArray) -> FloatArray:
        values = np.broadcast_to(np.asarray(self.function(points), dtype=float), (len(points),))
        wrong = ~np.isfinite(values) | (values < 0.0)
        if wrong.any():
            first = int(np.argmax(wrong))
            where = ", ".join(f"{name} = {x:.6g}" for name, x in zip(self.domain.names, points[first], strict=True))
            raise ValueError(f"the density must be finite and nonnegative, but it is {values[first]:g} at {where}")
        return values

    @cached_property
    def _fine(self) -> Density:
        return self.on(self.domain.even_grid(_FINE_CELLS[self.domain.dimension]))

    @cached_property
    def _depths_first(self) -> list[int]:
        """The axes of a box with the frozen ones before the others; none where just one, or none or all, of the axes are frozen."""
        frozen = self.domain.frozen if self.domain.box is self.domain else np.zeros(0, dtype=bool)
        return np.argsort(~frozen, kind="stable").tolist() if frozen.any() and not frozen.all() else []

    @cached_property
    def _turned(self) -> "DensityFunction":
        """The same density with the frozen coordinates before the others."""
        order = self._depths_first
        back = np.argsort(order)
        return DensityFunction(lambda points: self.function(points[:, back]), Domain(tuple(self.domain.axes[k] for k in order)))

    def _push(self, uniform: FloatArray) -> FloatArray:
        """Inverse Rosenblatt transform of points (N, d) of the unit cube, by a density that is linear in each cell; frozen coordinates come
        first, so that their law is exact."""
        order = self._depths_first
        if order != sorted(order):
            return np.ascontiguousarray(self._turned._push(uniform[:, order])[:, np.argsort(order)])
        if self.domain.dimension == 1:
            edges = self._fine.grid.edges(0)
            return _invert_linear(uniform[:, 0], np.ravel(self._fine.weights), edges, self._slopes(edges))[:, None]
        return push_uniform(self._fine, uniform, self._tilts)

    @cached_property
    def _tilts(self) -> FloatArray | None:
        """The slopes of the sampled density in the cells of a box, as in ``push_uniform``."""
        return _tilts(self._fine) if type(self._fine.grid) is Grid else None

    def law(self) -> Iterator[Particles]:
        """The law that ``sample`` draws from, block by block: atoms with which integrals of smooth functions are exact to the error of
        Gauss–Legendre rules in each of the fine cells."""
        fine = self._fine
        kept = np.flatnonzero(fine.weights > _NEGLIGIBLE * float(np.max(fine.weights)))
        if self.domain.dimension == 1:
            edges = fine.grid.edges(0)
            slopes = self._slopes(edges)
        nodes, shares = np.polynomial.legendre.leggauss(3 if self.domain.dimension == 1 else 2)
        for first in range(0, len(kept), _BLOCK):
            cells = kept[first : first + _BLOCK]
            mass, parts = fine.weights[cells], []
            for index in product(range(len(nodes)), repeat=self.domain.dimension):
                at, share = nodes[list(index)], float(np.prod(0.5 * shares[list(index)]))
                if self.domain.dimension == 1:
                    tilt = 0.5 * slopes[cells] * np.diff(edges)[cells] ** 2 / mass
                    bend = 1.0 + np.clip(tilt, -1.0, 1.0) * at[0]
                else:
                    bend = 1.0 + (at @ self._tilts[:, cells] if self._tilts is not None else 0.0)
                parts.append((fine.grid.places(at)[cells], share * mass * bend))
            yield Particles(np.concatenate([x for x, _ in parts]), np.concatenate([w for _, w in parts]))

    def _slopes(self, edges: FloatArray) -> FloatArray:
        """Slopes of the density in the fine cells between ``edges``, (cells,)."""
        ends = self._evaluate(edges[:, None])
        return np.asarray((ends[1:] - ends[:-1]) / np.diff(edges) * (self._fine.mass / _trapezoid(ends, edges)))


@dataclass(frozen=True, eq=False)
class ProductDensity(DensityFunction):
    """A density with independent coordinates, one of ``factors`` on each axis, so that it can be sampled in any dimension; see ``of``."""

    factors: tuple[DensityFunction, ...]

    @staticmethod
    def of(domain: Domain, factors: Sequence[DensityFunction]) -> "ProductDensity":
        """From one density on each axis."""

        def product(points: FloatArray) -> FloatArray:
            values = np.ones(len(points))
            for k, factor in enumerate(factors):
                values *= factor.values(points[:, k : k + 1])
            return values

        return ProductDensity(product, domain, tuple(factors))

    def _push(self, uniform: FloatArray) -> FloatArray:
        columns = [factor._push(uniform[:, k : k + 1]) for k, factor in enumerate(self.factors)]
        return np.ascontiguousarray(np.concatenate(columns, axis=1))


def push_uniform(density: Density, uniform: FloatArray, tilts: FloatArray | None = None) -> FloatArray:
    """Inverse Rosenblatt transform: points (N, d) of the unit cube to points distributed as the density, which is constant in each cell,
    or there proportional to 1 + Σ_k ``tilts``[k] t_k with t in [−1, 1]^d, (d, size)."""
    grid = density.grid
    mass = np.reshape(density.weights, grid.cells)
    shares, cells = np.empty_like(uniform), []
    row = np.zeros(len(uniform), dtype=np.int64)
    for k in range(mass.ndim):
        marginal = np.sum(mass, axis=tuple(range(k + 1, mass.ndim)))
        row, shares[:, k] = _pick(np.ravel(marginal), row * grid.cells[k], grid.cells[k], uniform[:, k])
        cells.append(row % grid.cells[k])
    if tilts is not None:
        shares = _tilted(shares, tilts[:, row])
    return grid.points(np.stack([grid.split(k, cell, shares[:, k]) for k, cell in enumerate(cells)], axis=1))


def _tilts(density: Density) -> FloatArray:
    """Half the relative change of a density over each cell along each axis, from its neighbours, (d, size); so small that
    1 + Σ_k tilt_k t_k is nowhere negative."""
    grid, values = density.grid, np.reshape(density.values, density.grid.cells)
    found = np.zeros((values.ndim, values.size))
    for k, count in enumerate(grid.cells):
        if count > 1:
            mode = "wrap" if grid.periodic(k) else "edge"
            padded = np.pad(values, [(1, 1) if axis == k else (0, 0) for axis in range(values.ndim)], mode=mode)  # type: ignore[call-overload]
            ahead, behind = np.take(padded, range(2, count + 2), axis=k), np.take(padded, range(count), axis=k)
            found[k] = np.ravel(np.divide(0.25 * (ahead - behind), values, out=np.zeros(values.shape), where=values > 0.0))
    return np.asarray(found / np.maximum(np.sum(np.abs(found), axis=0), 1.0))


def _tilted(shares: FloatArray, tilts: FloatArray) -> FloatArray:
    """Uniform shares (N, d) of cells to those of a density proportional to 1 + Σ_k ``tilts``[k] t_k, (d, N); axis by axis."""
    result, known = np.empty_like(shares), np.ones(len(shares))
    for k, tilt in enumerate(tilts):
        slope = tilt / known
        rest = 1.0 - 0.5 * slope - 2.0 * shares[:, k]
        place = np.clip(-2.0 * rest / (1.0 + np.sqrt(np.maximum(1.0 - 2.0 * slope * rest, 0.0))), -1.0, 1.0)
        result[:, k] = 0.5 * (1.0 + place)
        known = np.maximum(known + tilt * place, 1e-12)
    return result


def _pick(mass: FloatArray, first: IntArray, count: int, level: FloatArray) -> tuple[IntArray, FloatArray]:
    """Among the ``count`` cells from ``first`` (N,) on: the one where their cumulative mass reaches ``level``, and the part of it."""
    cumulative = np.concatenate([[0.0], np.cumsum(mass)])
    start, end = cumulative[first], cumulative[first + count]
    target = start + level * (end - start)
    cell = np.clip(np.searchsorted(cumulative, target, side="right") - 1, first, first + count - 1)
    held = cumulative[cell + 1] - cumulative[cell]
    within = np.divide(target - cumulative[cell], held, out=np.full_like(level, 0.5), where=held > 0.0)
    return cell, np.clip(within, 0.0, 1.0)


def _invert_linear(level: FloatArray, mass: FloatArray, edges: FloatArray, slopes: FloatArray) -> FloatArray:
    """Quantiles (N,) of a density that is linear in each cell, with given cell masses and slopes (limited to stay nonnegative)."""
    cell, within = _pick(mass, np.zeros(len(level), dtype=np.int64), len(mass), level)
    width = (edges[1:] - edges[:-1])[cell]
    height = mass[cell] / width
    slope = np.clip(slopes[cell], -2.0 * height / width, 2.0 * height / width)
    left = height - 0.5 * slope * width
    inner = 2.0 * within * mass[cell]
    root = np.sqrt(np.maximum(left * left + slope * inner, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(left + root > 0.0, inner / (left + root), within * width)
    return np.asarray(edges[cell] + np.clip(step, 0.0, width))


def _trapezoid(values: FloatArray, edges: FloatArray) -> float:
    return float(np.sum(0.5 * (values[1:] + values[:-1]) * np.diff(edges)))


def lattice(count: int, dimension: int) -> FloatArray:
    """A rank-one Kronecker (golden ratio) lattice in the unit cube, (count, d); the midpoints in 1-D."""
    first = (np.arange(count) + 0.5) / count
    if dimension == 1:
        return first[:, None]
    ratio = 1.0
    for _ in range(64):
        ratio = (1.0 + ratio) ** (1.0 / dimension)
    shifts = [np.mod(0.5 + np.arange(count) * ratio**-k, 1.0) for k in range(1, dimension)]
    return np.stack([first, *shifts], axis=1)


def _spread_in_layers(unit: FloatArray, layers: int) -> FloatArray:
    """Points (N, d) sorted by their first coordinate, the others replaced by midpoints in the same order in each of the equal layers."""
    if layers == 1:
        return unit
    found = unit.copy()
    for rows in np.split(np.arange(len(unit)), np.searchsorted(unit[:, 0], np.arange(1, layers) / layers)):
        found[rows, 1:] = (np.argsort(np.argsort(unit[rows, 1:], axis=0), axis=0) + 0.5) / max(len(rows), 1)
    return found


def _cell_quadrature(grid: Grid) -> Iterator[tuple[FloatArray, float]]:
    """Places (d,) in [-1, 1]^d and weights of a tensor Gauss–Legendre rule on one cell; the weights sum to one."""
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS_NODES.get(grid.domain.dimension, 2))
    for index in product(range(len(nodes)), repeat=grid.domain.dimension):
        picked = list(index)
        yield nodes[picked], float(np.prod(0.5 * weights[picked]))
