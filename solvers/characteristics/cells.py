"""Cell masses on two and three axes: finer nodes on every panel, carried by its polynomial map, share their masses between cells.

Each node's mass is spread over about the distance to its neighbours by a kernel whose moments one to five vanish. That distance is one
and the same in all labels, at most half a cell where the map does not turn: it goes through the map smoothly, so that where the
density is smooth the masses are right to its sixth order. Only towards the outermost labels, where the density may end, it shrinks with
the distance from them, so that edges of the density stay sharp there.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Grid
from mfpde.measure import DensityFunction
from mfpde.solvers.characteristics.panels import Panels, Rule, along, slopes_at, values_at

_SPREAD = 1.1
"""Width of the kernel in distances of nodes, with which sums over the nodes see it to 1e-8."""
_FINER = {2: 6, 3: 3}
_MOST_IN_PIECE = {2: 64, 3: 40}
_RIM = 5.0
_LIGHT = 1e-3


def cell_masses(panels: Panels, grid: Grid, function: DensityFunction, fineness: float = 1.0) -> FloatArray:
    """Masses of the grid's cells, (size,), nonnegative and of sum one. ``fineness`` multiplies the numbers of nodes."""
    masses = np.zeros(grid.size)
    deposit, spacing = _Deposit(grid, masses), _Spacing.of(panels, grid, fineness)
    for number in range(len(panels.lower)):
        pieces = [_pieces(panels, grid, number, axis, float(spacing.inner[axis])) for axis in range(panels.dimension)]
        for piece in product(*pieces):
            deposit.add(_Piece.of(panels, number, piece, spacing, function))
    masses = np.maximum(masses, 0.0)
    return np.asarray(masses / np.sum(masses))


@dataclass(frozen=True, eq=False)
class _Spacing:
    """Largest distances of nodes along each axis of the labels, ``inner`` (d,), which shrink towards the ends ``lower`` and ``upper`` (d,)
    of axes that are not ``round`` (d,)."""

    inner: FloatArray
    lower: FloatArray
    upper: FloatArray
    round: BoolArray

    @staticmethod
    def of(panels: Panels, grid: Grid, fineness: float) -> "_Spacing":
        """Half a cell over the stretch of the panels that are not light, and a small part of the panels' mean width."""
        share = np.sum(panels.weights, axis=1) / np.sum(panels.weights)
        heavy = share >= _LIGHT / len(share)
        slopes = np.max(np.abs(panels.jacobian())[heavy], axis=(0, 1)) / grid.spacing[:, None]
        mean = share @ (panels.upper - panels.lower)
        with np.errstate(divide="ignore"):
            by_cells = 0.5 / (_SPREAD * np.max(slopes, axis=0))
        inner = np.minimum(by_cells, 0.5 * math.pi * mean / (_FINER[panels.dimension] * panels.order)) / fineness
        return _Spacing(inner, np.min(panels.lower, axis=0), np.max(panels.upper, axis=0), grid.domain.periodic)

    def at(self, labels: FloatArray, axis: int) -> FloatArray:
        """Distances of nodes along an axis at labels (m,), that go to zero at the ends as those of Gauss–Legendre nodes do."""
        inner = float(self.inner[axis])
        result = np.full(labels.shape, inner)
        for away in (labels - self.lower[axis], self.upper[axis] - labels):
            if not self.round[axis]:
                near = np.minimum(away / (_RIM * inner), 1.0)
                result *= np.sqrt(near * (2.0 - near))
        return result


Interval = tuple[float, float, int]
"""From where to where in [−1, 1], and with how many nodes."""


def _pieces(panels: Panels, grid: Grid, number: int, axis: int, spacing: float) -> list[Interval]:
    """The parts of a panel's axis; frozen ones are cut at the edges of cells, so that each slice gets its own mass."""
    low, high = float(panels.lower[number, axis]), float(panels.upper[number, axis])
    count = max(math.ceil(0.5 * math.pi * (high - low) / spacing), panels.order)
    parts = -(-count // _MOST_IN_PIECE[panels.dimension])
    ends = np.linspace(-1.0, 1.0, parts + 1)
    if grid.domain.frozen[axis]:
        edges = 2.0 * (grid.edges(axis) - low) / (high - low) - 1.0
        ends = np.unique(np.concatenate([ends, edges[(edges > -1.0) & (edges < 1.0)]]))
    return [(a, b, max(math.ceil(0.5 * count * (b - a)), panels.order // 2)) for a, b in pairwise(ends.tolist())]


@cache
def _interpolation(order: int, interval: Interval) -> tuple[FloatArray, FloatArray]:
    """Matrices (m, p) that give values and slopes at the m nodes of an interval from those at the p nodes of a panel."""
    start, end, count = interval
    places = 0.5 * (start + end) + 0.5 * (end - start) * Rule.of(count).nodes
    analysis = Rule.of(order).analysis
    return values_at(places, analysis), slopes_at(places, analysis)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Nodes of a part of a panel: masses (m,), places (m, d), and distances to neighbours along each axis of the domain, (m, d)."""

    masses: FloatArray
    places: FloatArray
    distances: FloatArray

    @staticmethod
    def of(panels: Panels, number: int, intervals: tuple[Interval, ...], spacing: _Spacing, function: DensityFunction) -> "_Piece":
        """The nodes of one part of one panel."""
        dimension = panels.dimension
        middle, half = 0.5 * (panels.lower[number] + panels.upper[number]), 0.5 * (panels.upper[number] - panels.lower[number])
        matrices = [_interpolation(panels.order, interval) for interval in intervals]
        polynomial = panels.tensor(panels.places)[number]
        places = _transformed(polynomial, [values for values, _ in matrices])
        squares = np.zeros(places.shape)
        labels, weights = [], np.ones(1)
        for axis, (start, end, count) in enumerate(intervals):
            rule = Rule.of(count)
            labels.append(middle[axis] + half[axis] * (0.5 * (start + end) + 0.5 * (end - start) * rule.nodes))
            weights = np.multiply.outer(weights, 0.5 * (end - start) * half[axis] * rule.weights).ravel()
            slopes = _transformed(polynomial, [pair[1] if k == axis else pair[0] for k, pair in enumerate(matrices)])
            near = spacing.at(labels[axis], axis) / half[axis]
            squares += (slopes * near.reshape([-1 if k == axis else 1 for k in range(dimension + 1)])) ** 2
        points = np.stack([x.ravel() for x in np.meshgrid(*labels, indexing="ij")], axis=1)
        return _Piece(weights * function.values(points), places.reshape(-1, dimension), np.sqrt(squares).reshape(-1, dimension))


def _transformed(polynomial: FloatArray, matrices: list[FloatArray]) -> FloatArray:
    """Matrices (m_k, p) applied to all axes of values (p, …, p, d)."""
    for axis, matrix in enumerate(matrices):
        polynomial = along(matrix, polynomial, axis)
    return polynomial


class _Deposit:
    """Shares of points in the cells of a grid, which is seen as one of three axes."""

    def __init__(self, grid: Grid, masses: FloatArray) -> None:
        self.missing, self.grid, self.masses = 3 - len(grid.cells), grid, masses
        self.lower = np.concatenate([grid.domain.lower.astype(float), np.zeros(self.missing)])
        self.spacing = np.concatenate([grid.spacing, np.ones(self.missing)])
        self.cells = np.array([*grid.cells, *[1] * self.missing], dtype=np.int64)
        self.periodic = np.array([*grid.domain.periodic.tolist(), *[False] * self.missing])

    def add(self, piece: _Piece) -> None:
        """Share the masses of a piece."""
        from mfpde.solvers.kernels.cells import share_masses  # which brings the compiler

        widths = np.where(self.grid.domain.frozen, 0.0, _SPREAD * piece.distances)
        inside = np.where(self.grid.domain.periodic, piece.places, np.clip(piece.places, self.grid.domain.lower, self.grid.domain.upper))
        padding = np.zeros((len(widths), self.missing))
        places, widths = np.concatenate([inside, padding], axis=1), np.concatenate([widths, padding], axis=1)
        share_masses(places, widths, piece.masses, self.lower, self.spacing, self.cells, self.periodic, self.masses)
