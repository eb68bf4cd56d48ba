"""Interactions on one grid as matrices that nothing simplifies: circulants by fast Fourier transforms, and dense ones."""

from functools import cached_property
from itertools import product

import numpy as np

from mfpde.arrays import FloatArray, IntArray, physical_memory
from mfpde.domain import Grid
from mfpde.energy.cell_average import box_average, circulant_weights
from mfpde.energy.pair_kernel import PairKernel

_ROUND_OFF = 2e-14
_EPSILON = 1e-15
_BLOCK = 1 << 17
_MOST_DENSE = 6000
_BYTES_OF_A_WEIGHT = 48
_SOURCE_NODES = 3


class Convolution:
    """Kρ = Σ_j w_{i−j} ρ_j |cell| on a uniform grid of ``cells`` of widths ``spacing``.

    Along axes with walls the cells are part of a circle of at least twice as many, with zeros on the others; along ``periodic`` ones
    they are the circle. On these circles K is a circulant matrix and ``symbol`` holds its eigenvalues. The part of the circulant
    with negative eigenvalues, seen on the cells, is K₋; the mean mode is left out of it, as no density of given mass can change it.
    Raises ValueError where the circles do not fit into memory.
    """

    factors: tuple[FloatArray, FloatArray] | None = None

    def __init__(self, kernel: PairKernel, cells: tuple[int, ...], spacing: FloatArray, periodic: tuple[bool, ...]) -> None:
        from scipy.fft import next_fast_len, rfftn

        self.cells = cells
        self.counts = tuple(n if circle else next_fast_len(2 * n, True) for n, circle in zip(cells, periodic, strict=True))
        needed = _BYTES_OF_A_WEIGHT * int(np.prod(self.counts, dtype=float))
        if needed > physical_memory():
            raise ValueError(f"the interaction of {list(cells)} cells needs {needed >> 30} GB, more than there is; use fewer cells")
        self.weights = circulant_weights(kernel, self.counts, spacing)
        volume, total = float(np.prod(spacing)), float(np.sum(self.weights))
        self.symbol = volume * np.ascontiguousarray(rfftn(self.weights - total / self.weights.size).real)
        concave = np.maximum(-self.symbol, 0.0)
        concave.flat[0] = 0.0
        noise = volume * np.sqrt(self.weights.size) * float(np.max(np.abs(self.weights)))
        concave[concave <= _ROUND_OFF * np.max(np.abs(self.symbol)) + _EPSILON * noise] = 0.0
        self._concave_symbol = concave if concave.any() else None
        self.symbol.flat[0] = volume * total

    @property
    def convex(self) -> bool:
        """Whether no eigenvalue of the circulant is negative, but for the mean mode's."""
        return self._concave_symbol is None

    def drop_concave(self) -> None:
        """K is known to be convex on the cells, although the circulant is not, because W has a kink half way round the larger circle."""
        self._concave_symbol = None

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ."""
        self._add(self.symbol, rho, out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add K₋ρ."""
        if self._concave_symbol is not None:
            self._add(self._concave_symbol, rho, out)

    def _add(self, symbol: FloatArray, rho: FloatArray, out: FloatArray) -> None:
        """Transforms along one axis after the other, so that the zeros are never transformed along the others."""
        from scipy.fft import fft, ifft, irfft, rfft

        last = len(self.cells) - 1
        modes = rfft(rho.reshape(self.cells), n=self.counts[last], axis=last)
        for axis in range(last - 1, -1, -1):
            modes = fft(modes, n=self.counts[axis], axis=axis, overwrite_x=True)
        np.multiply(modes, symbol, out=modes)
        for axis in range(last):
            modes = ifft(modes, axis=axis, overwrite_x=True)
            modes = modes[(slice(None),) * axis + (slice(self.cells[axis]),)]
        values = irfft(modes, n=self.counts[last], axis=last, overwrite_x=True)[..., : self.cells[last]]
        seen = out.reshape(self.cells)
        np.add(seen, values, out=seen)


class DenseMatrix:
    """Kρ = M(volume ∘ ρ) with a symmetric matrix M (size, size), for grids whose cells differ.

    A kernel that the cells resolve is taken at the differences of their centres; another one is averaged over the source cells by a
    Gauss rule, and over a rectangle of the cell's size for the cell itself. Raises ValueError for more than 6000 cells.
    """

    factors: tuple[FloatArray, FloatArray] | None = None

    def __init__(self, kernel: PairKernel, grid: Grid) -> None:
        if grid.size > _MOST_DENSE:
            raise ValueError(
                f"on this grid an interaction that is not quadratic takes at most {_MOST_DENSE} cells, got {grid.size}; "
                "use fewer cells, or a box instead of a disk"
            )
        self.matrix = _matrix(kernel, grid)
        self.weight = np.broadcast_to(np.asarray(grid.weight, dtype=float), grid.size)
        self._mass, self._xi = np.empty(grid.size), np.empty(grid.size)

    @property
    def convex(self) -> bool:
        """Whether M has no negative eigenvalue on vectors of mean zero."""
        return bool(self._concave_vectors.shape[1] == 0)

    @cached_property
    def _concave_vectors(self) -> FloatArray:
        """Eigenvectors with negative eigenvalues of M between vectors of mean zero, times the roots of their sizes, (size, r)."""
        means = np.mean(self.matrix, axis=0)
        centred = self.matrix - means[:, None] - means + np.mean(means)
        values, vectors = np.linalg.eigh(centred)
        chosen = values < -_ROUND_OFF * len(values) * np.max(np.abs(values))
        return np.ascontiguousarray(vectors[:, chosen] * np.sqrt(-values[chosen]))

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ."""
        np.multiply(rho, self.weight, out=self._mass)
        np.dot(self.matrix, self._mass, out=self._xi)
        np.add(out, self._xi, out=out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add K₋ρ."""
        np.multiply(rho, self.weight, out=self._mass)
        np.dot(self._concave_vectors, self._mass @ self._concave_vectors, out=self._xi)
        np.add(out, self._xi, out=out)


def _matrix(kernel: PairKernel, grid: Grid) -> FloatArray:
    sides = _sides(grid)
    resolved = kernel.resolved(cell_sides(grid))
    nodes, weights = np.polynomial.legendre.leggauss(1 if resolved else _SOURCE_NODES)
    matrix = np.zeros((grid.size, grid.size))
    for index in product(range(len(nodes)), repeat=len(grid.cells)):
        place, share = nodes[list(index)], float(np.prod(0.5 * weights[list(index)]))
        _add_values(kernel, grid.centers, grid.places(place), share * np.broadcast_to(grid.stretch(place), grid.size), matrix)
    matrix = 0.5 * (matrix + matrix.T)
    if not resolved:
        kinds, member = np.unique(np.round(sides / np.max(sides), 12), axis=0, return_inverse=True)
        own = np.array([box_average(kernel, kind * np.max(sides)) for kind in kinds])
        np.fill_diagonal(matrix, own[np.ravel(member)])
    return np.asarray(matrix)


def cell_sides(grid: Grid) -> FloatArray:
    """The longest sides of the cells along each axis, (d,)."""
    return grid.spacing if type(grid) is Grid else np.asarray(np.max(_sides(grid), axis=0))


def _sides(grid: Grid) -> FloatArray:
    """Distances between the middles of opposite faces of every cell, (size, d)."""
    directions = np.eye(len(grid.cells))
    return np.stack([np.linalg.norm(grid.places(e) - grid.places(-e), axis=1) for e in directions], axis=1)


def _add_values(kernel: PairKernel, at: FloatArray, points: FloatArray, shares: FloatArray, matrix: FloatArray) -> None:
    """Add shares_j W(at_i − points_j)."""
    block = max(1, _BLOCK // len(points))
    for start in range(0, len(at), block):
        part = slice(start, start + block)
        x = kernel.domain.displacement(points[None, :, :], at[part, None, :])
        matrix[part] += kernel.values(x.reshape(-1, x.shape[-1])).reshape(-1, len(points)) * shares


def interpolate(values: FloatArray, places: FloatArray, periodic: tuple[bool, ...]) -> tuple[FloatArray, FloatArray]:
    """Values (M,) and gradient (M, d) of the cubic convolution [Keys 1981] through ``values``, an array of d axes, at ``places`` (M, d)
    in units of its indices: continuously differentiable, with centred differences as gradients at the nodes. Along axes that are
    not periodic there must be two nodes on each side of a place."""
    low = np.floor(places).astype(np.int64)
    steps = places - low
    heights, slopes = _cubic(steps), _cubic_slopes(steps)
    result, gradient = np.zeros(len(places)), np.zeros(places.shape)
    for corner in product(range(4), repeat=values.ndim):
        index: list[IntArray] = []
        for k, offset in enumerate(corner):
            place = low[:, k] + offset - 1
            index.append(np.mod(place, values.shape[k]) if periodic[k] else place)
        node = values[tuple(index)]
        parts = [heights[offset][:, k] for k, offset in enumerate(corner)]
        result += node * np.prod(parts, axis=0)
        for k, offset in enumerate(corner):
            rest = [*parts[:k], slopes[offset][:, k], *parts[k + 1 :]]
            gradient[:, k] += node * np.prod(rest, axis=0)
    return result, gradient


def _cubic(t: FloatArray) -> list[FloatArray]:
    """Weights of the nodes −1, 0, 1, 2 at places t in [0, 1]."""
    return [
        0.5 * t * (-1.0 + t * (2.0 - t)),
        1.0 + 0.5 * t * t * (-5.0 + 3.0 * t),
        0.5 * t * (1.0 + t * (4.0 - 3.0 * t)),
        0.5 * t * t * (t - 1.0),
    ]


def _cubic_slopes(t: FloatArray) -> list[FloatArray]:
    """Derivatives of these weights."""
    return [
        0.5 * (-1.0 + t * (4.0 - 3.0 * t)),
        0.5 * t * (-10.0 + 9.0 * t),
        0.5 * (1.0 + t * (8.0 - 9.0 * t)),
        0.5 * t * (3.0 * t - 2.0),
    ]
