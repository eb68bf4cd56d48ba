"""Measures on the nodes of a fine grid, and how far their mass is moved to get there."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.disk import PolarGrid
from mfpde.domain import Domain, Grid
from mfpde.measure import Density, Measure

_TAIL = 1e-8
_PROBES = 4096
_NARROW = 1e-9
_BLOCK = 1 << 20
"""About so many atoms stand for the cells of a polar grid."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """A grid of nodes: for each axis its coordinates (m_k,) and the squared distances between them (m_k, m_k); ``spacing`` (d,)."""

    places: tuple[FloatArray, ...]
    costs: tuple[FloatArray, ...]
    spacing: FloatArray
    domain: Domain

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along each axis."""
        return tuple(len(x) for x in self.places)

    def deposit(self, measure: Measure) -> tuple[FloatArray, float]:
        """The masses at the nodes, of sum one, each part of the measure at its nearest node, and the root mean square way to them."""
        weights = np.maximum(measure.weights, 0.0)
        weights = weights / np.sum(weights)
        if isinstance(measure, Density) and not isinstance(measure.grid, PolarGrid):
            return self._from_cells(measure.grid, weights.reshape(measure.grid.cells))
        if isinstance(measure, Density):
            return self._from_atoms(*_parts(measure.grid, weights))
        return self._from_atoms(measure.points, weights, 0.0)

    def _from_cells(self, grid: Grid, mass: FloatArray) -> tuple[FloatArray, float]:
        """Each cell is cut at the middles between nodes."""
        moved = 0.0
        for k in range(mass.ndim):
            shares, squares = self._overlaps(grid, k)
            along = np.sum(mass, axis=tuple(n for n in range(mass.ndim) if n != k))
            moved += float(squares @ along) / float(np.sum(along))
            mass = np.moveaxis(np.tensordot(shares, mass, axes=(1, k)), 0, k)
        return np.asarray(mass / np.sum(mass)), float(np.sqrt(moved))

    def _overlaps(self, grid: Grid, axis: int) -> tuple[FloatArray, FloatArray]:
        """The share of each cell along an axis that is nearest to each node, (m, cells), and the mean square way to them, (cells,)."""
        x, width = self.places[axis], float(grid.spacing[axis])
        edges = grid.edges(axis)
        periodic = bool(self.domain.periodic[axis])
        if periodic:
            x = np.append(x, x[0] + self.domain.axes[axis].length)  # the first node once more
        middles = 0.5 * (x[1:] + x[:-1])
        low, high = np.concatenate([[-np.inf], middles])[:, None], np.concatenate([middles, [np.inf]])[:, None]
        start, end = np.clip(edges[:-1], low, high), np.clip(edges[1:], low, high)
        start, end = np.minimum(np.maximum(start, edges[:-1]), edges[1:]), np.maximum(np.minimum(end, edges[1:]), edges[:-1])
        shares = np.maximum(end - start, 0.0) / width
        squares = np.sum(np.where(end > start, (end - x[:, None]) ** 3 - (start - x[:, None]) ** 3, 0.0), axis=0) / (3.0 * width)
        if periodic:
            shares[0] += shares[-1]
            shares = shares[:-1]
        return shares, squares

    def _from_atoms(self, points: FloatArray, weights: FloatArray, inner: float) -> tuple[FloatArray, float]:
        """``inner`` is the mean square way that the mass has made already."""
        index = np.zeros(len(points), dtype=np.int64)
        moved = np.zeros(len(points))
        for k, (x, step) in enumerate(zip(self.places, self.spacing, strict=True)):
            place = np.round((points[:, k] - x[0]) / step)
            place = place if self.domain.periodic[k] else np.clip(place, 0, len(x) - 1)
            moved += (points[:, k] - x[0] - place * step) ** 2
            index = index * len(x) + np.mod(place.astype(np.int64), len(x))
        mass = np.bincount(index, weights, int(np.prod(self.shape))).reshape(self.shape)
        return np.asarray(mass / np.sum(mass)), float(np.sqrt(weights @ moved + inner))


def nodes_around(first: Measure, second: Measure, domain: Domain, count: int) -> Nodes:
    """``count`` nodes along each axis, over the smallest box around both measures but for what carries next to nothing; along a circle
    over all of it."""
    places, costs, spacing = [], [], []
    for k, axis in enumerate(domain.axes):
        if axis.periodic:
            x, step = axis.lower + axis.length * np.arange(count) / count, axis.length / count
        else:
            ends = [_ends(*_along(measure, k)) for measure in (first, second)]
            low, high = min(low for low, _ in ends), max(high for _, high in ends)
            x, step = np.linspace(low, max(high, low + _NARROW * axis.length), count, retstep=True)
        gap = x[:, None] - x[None, :]
        gap = gap - axis.length * np.round(gap / axis.length) if axis.periodic else gap
        places.append(x)
        costs.append(gap * gap)
        spacing.append(float(step))
    return Nodes(tuple(places), tuple(costs), np.array(spacing), domain)


def _along(measure: Measure, axis: int) -> tuple[FloatArray, FloatArray]:
    """Coordinates and weights that have the same ends as the measure along an axis."""
    weights = np.maximum(measure.weights, 0.0) / np.sum(measure.weights)
    if not isinstance(measure, Density):
        return measure.points[:, axis], weights
    if isinstance(measure.grid, PolarGrid):
        points = _parts(measure.grid, weights)
        return points[0][:, axis], points[1]
    mass = np.sum(weights.reshape(measure.grid.cells), axis=tuple(n for n in range(measure.points.shape[1]) if n != axis))
    edges = measure.grid.edges(axis)
    return np.concatenate([edges[:-1], edges[1:]]), np.concatenate([0.5 * mass, 0.5 * mass])


def _ends(x: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Where the mass begins and ends, up to a part that is moved inwards (and counted as moved)."""
    edges = np.linspace(np.min(x), np.max(x), _PROBES + 1)
    if not edges[1] > edges[0]:
        return float(edges[0]), float(edges[-1])
    place = np.minimum(((x - edges[0]) / (edges[1] - edges[0])).astype(np.int64), _PROBES - 1)
    below = np.cumsum(np.bincount(place, weights, _PROBES))
    held = np.flatnonzero((below > _TAIL) & (np.concatenate([[0.0], below[:-1]]) < below[-1] - _TAIL))
    return float(edges[held[0]]), float(edges[held[-1] + 1])


def _parts(grid: Grid, weights: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """The cells of a grid in equal parts, as atoms at their middles: points, weights and the mean square of their sizes."""
    dimension = len(grid.cells)
    kept = weights > 0.0
    parts = int(np.clip((_BLOCK / max(int(np.sum(kept)), 1)) ** (1.0 / dimension), 1, 16))
    steps = (2.0 * np.arange(parts) + 1.0) / parts - 1.0
    places = np.stack(np.meshgrid(*([steps] * dimension), indexing="ij"), axis=-1).reshape(-1, dimension)
    points = np.concatenate([grid.places(at)[kept] for at in places])
    shares = np.concatenate([np.broadcast_to(weights * grid.stretch(at), weights.shape)[kept] for at in places]) / len(places)
    return points, shares / np.sum(shares), float(np.trace(grid.inner_covariance(weights))) / parts**2
