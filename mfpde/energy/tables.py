"""Features on tables over a box: what N particles cost no longer depends on the number of inputs.

The features are piecewise polynomials of degree seven on cells. Along each axis they follow from their values at a few chosen nodes
(interpolative decomposition), so that all that is stored is Φ at the tensor products of these nodes, the ``core``. A step finds the
moments of the atoms in every cell, brings them to the core's nodes, and gives back Φ·λ as polynomials, whose gradient is the velocity: O(N)
for the atoms, and the rest does not depend on N. The velocity is the gradient of the energy on the table.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mfpde.arrays import FloatArray, IntArray, physical_memory
from mfpde.domain import Domain
from mfpde.energy.features import Features, probe_points
from mfpde.energy.outputs import RowFeatures, WeightedFeatures
from mfpde.energy.stencil import POINTS, deposit, heights, slopes
from mfpde.energy.teams import Team

TOLERANCE = 1e-9
_MOST_CELLS = {1: 4096, 2: 160, 3: 20}
_MOST_BYTES = 1 << 29
_PROBES, _DIRECTIONS = 300, 16
_LINES, _ON_A_LINE = 12, 64
_ATTEMPTS = 4
_CHOSEN = 0.02
"""Slopes near the walls lose two digits of what the chosen nodes give."""
_FEW = 3
"""Features that are so few that a table gains nothing."""
_BLOCK, _TINY = 1 << 22, 1e-300
_CACHED = 1 << 16
_HOPELESS = 32
"""More cells than this along several axes must bring smaller errors."""
"""Seconds from which on the making of a table is worth a word."""

# Measured seconds of a step on one thread: an atom on a table, an atom and feature without one, a number of the core, a product and its
# sum, and what is always there. The making of a table takes so long for each value of a feature, which is wanted at the core's nodes and
# for each node of an axis on so many lines, and is spread over so many steps.
_ATOM = {1: 8e-9, 2: 35e-9, 3: 1.6e-7}
_PAIR, _CORE, _PRODUCT, _CALLS = 3e-9, 2e-9, 1.5e-10, 1e-4
_VALUE, _ON_LINES, _STEPS = 2e-8, {1: 8, 2: 200, 3: 250}, 500


@dataclass(frozen=True, eq=False)
class TabulatedFeatures:
    """``exact`` features on a table of ``cells`` (d,) cells, which begins at ``lower`` and has ``inverse`` cells in a unit of length, (d,).

    ``axes`` holds for every axis the coefficients (p, 8 cells) of its p cardinal functions, ``core`` is Φ at the nodes, (r, p₁⋯p_d), and
    ``error`` is what interpolation leaves of Φ and ∇Φ.
    """

    exact: Features
    lower: FloatArray
    inverse: FloatArray
    cells: IntArray
    axes: tuple[FloatArray, ...]
    core: FloatArray
    error: float
    _teams: tuple[Team, Team] = field(default_factory=lambda: (Team(), Team()))

    @property
    def rank(self) -> int:
        """Number of features r."""
        return self.exact.rank

    def pays(self, count: int) -> bool:
        """Whether a step of ``count`` atoms takes less time than without the table."""
        return _Size(tuple(self.cells.tolist()), tuple(len(axis) for axis in self.axes)).pays(self.rank, count)

    @property
    def description(self) -> str:
        """For people."""
        return f"{self.exact.description}, on {self.note}"

    @property
    def note(self) -> str:
        """The table, for people."""
        nodes = " x ".join(str((POINTS - 1) * count + 1) for count in self.cells.tolist())
        return f"a table of {nodes} nodes (error {self.error:.0e})"

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (r, N), from the exact features."""
        return self.exact.evaluate(points)

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms at points (N, d) with weights (N,), (r,)."""
        with self._teams[0].at_work(len(points)) as together:
            moments = deposit(points, weights, self.lower, self.inverse, self.cells, together=together)
        dimension = len(self.axes)
        split = moments.reshape(*self.cells, *(POINTS,) * dimension)
        at_nodes = np.zeros([len(axis) for axis in self.axes])
        for some in _some_rows(split):
            first = self.axes[0][:, POINTS * some.start : POINTS * some.stop]
            part, others = _without_empty_ends(split[some], self.axes[1:])
            mixed = np.moveaxis(part, range(dimension, 2 * dimension), range(1, 2 * dimension, 2))
            rows = mixed.reshape(first.shape[1], *(axis.shape[1] for axis in others))
            for axis, other in enumerate(others, 1):
                rows = _along(rows, other, axis)
            at_nodes += _along(rows, first, 0)
        return np.asarray(self.core @ np.ravel(at_nodes))

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,)."""
        return self.values_and_gradient(points, lam)[0]

    def values_and_gradient(self, points: FloatArray, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Φ·λ (N,) and its gradient (N, d)."""
        table = self._polynomials(lam)
        with self._teams[1].at_work(len(points)) as together:
            found = heights(points, table, self.lower, self.inverse, self.cells, together=together)
        return found[:, 0], found[:, 1:]

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d)."""
        table = self._polynomials(lam)
        with self._teams[1].at_work(len(points)) as together:
            return slopes(points, table, self.lower, self.inverse, self.cells, together=together)

    def _polynomials(self, lam: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """The coefficients of Φ·λ in every cell, (cells, 8, …, 8), in ``out`` where there is one."""
        dimension = len(self.axes)
        found = np.empty((*self.cells, *(POINTS,) * dimension)) if out is None else out
        values = (lam @ self.core).reshape([len(axis) for axis in self.axes])
        for axis in range(1, dimension):
            values = _along(values, self.axes[axis].T, axis)
        for some in _some_rows(found, every=True):
            rows = _along(values, self.axes[0][:, POINTS * some.start : POINTS * some.stop].T, 0)
            split = rows.reshape([n for count in found[some].shape[:dimension] for n in (count, POINTS)])
            np.copyto(found[some], np.moveaxis(split, range(1, 2 * dimension, 2), range(dimension, 2 * dimension)))
        return found


def _some_rows(split: FloatArray, *, every: bool = False) -> Iterator[slice]:
    """Cells along the first axis of ``split`` (cells, 8, …, 8) that fit a cache together; those that hold atoms, or all."""
    step = max(1, _CACHED * len(split) // split.size)
    for start in range(0, len(split), step):
        some = slice(start, min(start + step, len(split)))
        if every or np.any(_cell_masses(split[some])):
            yield some


def _without_empty_ends(part: FloatArray, others: tuple[FloatArray, ...]) -> tuple[FloatArray, tuple[FloatArray, ...]]:
    """The cells between the first and the last along the second axis that hold atoms, and the matrices of all but the first axis there."""
    if not others:
        return part, others
    held = np.flatnonzero(np.any(_cell_masses(part), axis=tuple(k for k in range(part.ndim // 2) if k != 1)))
    low, high = int(held[0]), int(held[-1]) + 1
    return part[:, low:high], (others[0][:, POINTS * low : POINTS * high], *others[1:])


def _cell_masses(part: FloatArray) -> FloatArray:
    """The moments of degree zero among those of cells (cells, 8, …, 8)."""
    cells = part.shape[: part.ndim // 2]
    return np.asarray(part.reshape(*cells, -1)[..., 0])


def _along(values: FloatArray, matrix: FloatArray, axis: int) -> FloatArray:
    """One axis of ``values`` multiplied by a matrix."""
    shape = values.shape
    last = axis == len(shape) - 1
    found = values.reshape(-1, shape[-1]) @ matrix.T if last else matrix @ values.reshape(*shape[:axis], shape[axis], -1)
    return np.asarray(found.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :]))


Tables = TabulatedFeatures | WeightedFeatures | RowFeatures


def tabulated(features: Features, domain: Domain, tolerance: float, count: int) -> Tables | None:
    """The features with those of a single output on a table, see ``table_of``; None where there is none."""
    if isinstance(features, WeightedFeatures | RowFeatures):
        return features.on_tables(lambda inner, neurons: table_of(inner, neurons, tolerance, count))
    return table_of(features, domain, tolerance, count)


def table_of(features: Features, domain: Domain, tolerance: float, count: int) -> TabulatedFeatures | None:
    """A table of which both Φ and ∇Φ are off by at most ``tolerance``, relative to the largest |Φ| and |∇Φ|, at probes that fill the box
    around the domain and crowd at its walls and towards zero.

    None where that cannot be reached with the cells and the memory that there are, as where features have kinks, and where a step of
    ``count`` atoms, or the making of the table, would take longer than without one.
    """
    least = _Size((0,) * domain.dimension, (0,) * domain.dimension)
    if domain.dimension > 3 or features.rank <= _FEW or not least.pays(features.rank, count):
        return None
    probes = _Probes.of(features, domain.box)
    for attempt in range(_ATTEMPTS):
        axes = _axes(features, domain.box, 0.3 * tolerance / domain.dimension / 3.0**attempt)
        if axes is None or not _Size.of(axes).affordable(features.rank, count):
            return None
        table = _table(features, domain.box, axes)
        error = probes.error(table)
        if error <= tolerance:
            return replace(table, error=error)
    return None


@dataclass(frozen=True)
class _Size:
    """What decides the costs of a table: its cells and the nodes of its core along each axis."""

    cells: tuple[int, ...]
    nodes: tuple[int, ...]

    @staticmethod
    def of(axes: "tuple[_AxisTable, ...]") -> "_Size":
        """Of a table with these axes."""
        return _Size(tuple(axis.cells for axis in axes), tuple(len(axis.chosen) for axis in axes))

    def affordable(self, rank: int, count: int) -> bool:
        """Whether there is memory for it, and whether it pays."""
        return 8 * rank * math.prod(self.nodes) <= min(_MOST_BYTES, physical_memory() // 8) and self.pays(rank, count)

    def pays(self, rank: int, count: int) -> bool:
        """Whether a step of ``count`` atoms takes less time than with ``rank`` features without a table."""
        core = rank * math.prod(self.nodes)
        making = _VALUE * (core + rank * _ON_LINES[len(self.cells)] * (POINTS - 1) * sum(self.cells)) / _STEPS
        step = _CALLS + _ATOM[len(self.cells)] * count + _CORE * core + 2.0 * _PRODUCT * self._products()
        return step + making < _PAIR * rank * count

    def _products(self) -> int:
        """Those that bring the moments of the cells to the core's nodes."""
        rows = [POINTS * count for count in self.cells]
        total = 0
        for axis in reversed(range(len(rows))):
            total += math.prod(rows) * self.nodes[axis]
            rows[axis] = self.nodes[axis]
        return total


@dataclass(frozen=True, eq=False)
class _AxisTable:
    """The axis in cells: the chosen nodes (p,) and the coefficients (p, 8 cells) of their cardinal functions."""

    cells: int
    chosen: FloatArray
    coefficients: FloatArray


def _table(features: Features, box: Domain, axes: tuple[_AxisTable, ...]) -> TabulatedFeatures:
    nodes = np.stack([c.ravel() for c in np.meshgrid(*[axis.chosen for axis in axes], indexing="ij")], axis=1)
    cells = np.array([axis.cells for axis in axes])
    core = np.ascontiguousarray(features.evaluate(nodes))
    return TabulatedFeatures(features, box.lower, cells / (box.upper - box.lower), cells, tuple(a.coefficients for a in axes), core, np.nan)


@dataclass(frozen=True, eq=False)
class _Probes:
    """Φ·λ and its gradient at ``points`` (M, d) for some random λ (K, r): values (K, M) and gradients (K, M, d)."""

    points: FloatArray
    directions: FloatArray
    values: FloatArray
    gradients: FloatArray

    @staticmethod
    def of(features: Features, box: Domain) -> "_Probes":
        """At points that fill the box, and at its corners."""
        corners = np.stack([c.ravel() for c in np.meshgrid(*zip(box.lower, box.upper, strict=True))], axis=1)
        points = np.concatenate([probe_points(box, _PROBES), corners])
        directions = _random_directions(features)
        gradients = np.stack([features.gradient(points, lam) for lam in directions])
        return _Probes(points, directions, _values_along(directions, features, points), gradients)

    def error(self, table: TabulatedFeatures) -> float:
        """The larger relative error of the table's values and gradients; random λ show the size of vectors over the features."""
        values, gradients = [], []
        for lam in self.directions:
            polynomials = table._polynomials(lam)
            values.append(_values(polynomials, table, self.points))
            gradients.append(slopes(self.points, polynomials, table.lower, table.inverse, table.cells, together=False))
        off = _largest(np.stack(values) - self.values), _largest(np.stack(gradients) - self.gradients)
        return max(off[0] / max(_largest(self.values), _TINY), off[1] / max(_largest(self.gradients), _TINY))


def _random_directions(features: Features) -> FloatArray:
    return np.random.default_rng(5).standard_normal((_DIRECTIONS, features.rank))


def _values_along(directions: FloatArray, features: Features, points: FloatArray) -> FloatArray:
    """Φ·λ at points (M, d) for each of the λ (K, r), (K, M); in blocks, since there may be many features."""
    found, block = np.empty((len(directions), len(points))), max(64, _BLOCK // features.rank)
    for k in range(0, len(points), block):
        found[:, k : k + block] = directions @ features.evaluate(points[k : k + block])
    return found


def _largest(values: FloatArray) -> float:
    """The largest root mean square over the directions, which come first; gradients by their lengths."""
    lengths = values**2 if values.ndim == 2 else np.sum(values**2, axis=2)
    return float(np.sqrt(np.max(np.mean(lengths, axis=0))))


def _values(polynomials: FloatArray, table: TabulatedFeatures, points: FloatArray) -> FloatArray:
    """The piecewise polynomials at points (M, d), (M,)."""
    place = (points - table.lower) * table.inverse
    cell = np.clip(place.astype(int), 0, table.cells - 1)
    powers = (2.0 * (place - cell) - 1.0)[:, :, None] ** np.arange(POINTS)
    found = polynomials[tuple(cell.T)]
    for k in range(points.shape[1]):
        found = np.einsum("mj,mj...->m...", powers[:, k], found)
    return np.asarray(found)


def _axes(features: Features, box: Domain, tolerance: float) -> tuple[_AxisTable, ...] | None:
    """The axes in so many cells that Φ along lines is off by at most ``tolerance``; None where that takes too many."""
    found: list[_AxisTable] = []
    for axis in range(box.dimension):
        lines = _Lines.of(features, box, axis)
        first = max((2 * side.cells // 3 for side in found), default=4)
        sample = lines.sample(tolerance, first, _MOST_CELLS[box.dimension])
        if sample is None:
            return None
        found.append(lines.table(sample, _CHOSEN * tolerance))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Lines:
    """Φ along an axis on a few lines through the box: ``others`` (L, d) are points on them, ``places`` (M,) where Φ·λ and its slope are
    known, ``values`` and ``slopes`` (K, L, M), for K random λ."""

    features: Features
    box: Domain
    axis: int
    directions: FloatArray
    others: FloatArray
    places: FloatArray
    values: FloatArray
    slopes: FloatArray

    @staticmethod
    def of(features: Features, box: Domain, axis: int) -> "_Lines":
        """Lines through probes of the box and through its corners."""
        corners = np.stack([c.ravel() for c in np.meshgrid(*zip(box.lower, box.upper, strict=True))], axis=1)
        others = np.concatenate([probe_points(box, _LINES), corners]) if box.dimension > 1 else box.lower[None]
        side = Domain((box.axes[axis],))
        places = np.unique(probe_points(side, _ON_A_LINE)[:, 0])
        directions, points = _random_directions(features), _on_lines(others, axis, places)
        shape = (len(directions), len(others), len(places))
        values = _values_along(directions, features, points).reshape(shape)
        along = np.stack([features.gradient(points, lam)[:, axis] for lam in directions]).reshape(shape)
        return _Lines(features, box, axis, directions, others, places, values, along)

    def sample(self, tolerance: float, first: int, most: int) -> FloatArray | None:
        """Φ·λ at the nodes of so many cells that both errors are below ``tolerance``, (K, L, n); their number is ``first`` or more and
        follows the errors, of seventh order in the end."""
        cells, before = max(first, 4), np.inf
        while cells <= most:
            sample = self._sampled(cells)
            error = self._error(sample)
            if error <= tolerance:
                return sample
            if self.box.dimension > 1 and cells > _HOPELESS and error > 0.5 * before:
                return None
            before = error
            cells = int(np.ceil(cells * np.clip(1.05 * (error / tolerance) ** (1.0 / 7.0), 1.1, 2.0)))
        return None

    def _error(self, values: FloatArray) -> float:
        cells = values.shape[2] // (POINTS - 1)
        local, cell, scale = _locate(self.places, self.box, self.axis, cells)
        stencils = values[:, :, (POINTS - 1) * cell[:, None] + np.arange(POINTS)]
        powers = local[:, None] ** np.arange(POINTS)
        rising = np.arange(POINTS) * np.concatenate([np.zeros((len(local), 1)), powers[:, :-1]], axis=1)
        gaps = (
            (np.einsum("mi,klmi->klm", basis @ _COEFFICIENTS, stencils) - exact, exact)
            for basis, exact in ((powers, self.values), (scale * rising, self.slopes))
        )
        return max(_largest(gap.reshape(len(gap), -1)) / max(_largest(exact.reshape(len(exact), -1)), _TINY) for gap, exact in gaps)

    def _sampled(self, cells: int) -> FloatArray:
        """Φ·λ at the nodes, (K, L, n)."""
        points = _on_lines(self.others, self.axis, _nodes(self.box, self.axis, cells))
        return _values_along(self.directions, self.features, points).reshape(len(self.directions), len(self.others), -1)

    def table(self, sample: FloatArray, tolerance: float) -> _AxisTable:
        """The axis with as few nodes chosen as determine Φ on the lines to ``tolerance``, by pivoted QR."""
        from scipy.linalg import qr, solve_triangular

        cells = sample.shape[2] // (POINTS - 1)
        nodes = _nodes(self.box, self.axis, cells)
        rows = sample.reshape(-1, len(nodes)) if self.box.dimension > 1 else self.features.evaluate(nodes[:, None])
        upper, order = qr(rows, mode="r", pivoting=True)
        diagonal = np.abs(np.diag(upper))
        rank = max(1, int(np.sum(diagonal > tolerance * diagonal[0])))
        cardinal = np.zeros((rank, len(nodes)))
        cardinal[:, order[:rank]] = np.eye(rank)
        cardinal[:, order[rank:]] = solve_triangular(upper[:rank, :rank], upper[:rank, rank:])
        stencils = cardinal[:, (POINTS - 1) * np.arange(cells)[:, None] + np.arange(POINTS)]
        coefficients = (stencils @ _COEFFICIENTS.T).reshape(rank, cells * POINTS)
        return _AxisTable(cells, nodes[order[:rank]], coefficients)


def _local_nodes() -> FloatArray:
    """The Lobatto nodes of Chebyshev in [−1, 1]: the ends are among them, so that neighbouring cells share theirs."""
    return np.asarray(-np.cos(np.pi * np.arange(POINTS) / (POINTS - 1)))


_COEFFICIENTS = np.linalg.inv(np.vander(_local_nodes(), increasing=True))
"""From values at the local nodes to the coefficients of powers."""


def _nodes(box: Domain, axis: int, cells: int) -> FloatArray:
    """All nodes of an axis, (7 cells + 1,)."""
    inside = 0.5 * (1.0 + _local_nodes()[:-1])
    unit = np.append((np.arange(cells)[:, None] + inside).ravel() / cells, 1.0)
    return np.asarray(box.lower[axis] + (box.upper[axis] - box.lower[axis]) * unit)


def _locate(places: FloatArray, box: Domain, axis: int, cells: int) -> tuple[FloatArray, IntArray, float]:
    """Local coordinates and cells of places (M,) on an axis, and the slope of the former."""
    inverse = cells / float(box.upper[axis] - box.lower[axis])
    place = (places - box.lower[axis]) * inverse
    cell = np.clip(place.astype(int), 0, cells - 1)
    return 2.0 * (place - cell) - 1.0, cell, 2.0 * inverse


def _on_lines(others: FloatArray, axis: int, places: FloatArray) -> FloatArray:
    """The points (L · M, d) with the coordinate ``axis`` from ``places`` (M,) and the rest from ``others`` (L, d)."""
    points = np.repeat(others, len(places), axis=0)
    points[:, axis] = np.tile(places, len(others))
    return points
