"""Atoms on periodic meshes in d = 1, 2, 3 through smooth windows, whose Fourier transform is divided out afterwards.

The window e^{β(√(1 − z²) − 1)} over 12 nodes is that of [Barnett, Magland, af Klinteberg 2019, "A parallel nonuniform fast Fourier
transform library"]: with a mesh twice as fine as the modes need, sums of waves at atoms are exact to 1e-11 of the largest. (Lagrange
stencils would need a mesh many times finer for that.) Meshes have three axes; in d = 2 the second has one node, in d = 1 the last two.
Atoms are spread in slabs of rows, each by one thread and always in the same order, so that sums do not depend on their number.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import kernel, parallel_kernel, prange
from mfpde.energy.neighbours import BLOCK

WIDTH = 12
_SLABS = 32


def shape_of(counts: tuple[int, ...]) -> tuple[int, int, int]:
    """Nodes along the three axes of a mesh, of which only d are real."""
    return (counts[0], counts[1] if len(counts) == 3 else 1, counts[-1] if len(counts) > 1 else 1)


def beta_of(oversampling: float) -> float:
    """β for meshes finer than the modes need by this factor."""
    return 0.97 * math.pi * WIDTH * (1.0 - 0.5 / oversampling)


def transform(theta: FloatArray, beta: float) -> FloatArray:
    """The window's Fourier transform at angles θ to the node, (m,)."""
    z, weights = np.polynomial.legendre.leggauss(80)
    heights = weights * np.exp(beta * (np.sqrt(1.0 - z * z) - 1.0))
    return np.asarray(0.5 * WIDTH * (np.cos(np.outer(theta, 0.5 * WIDTH * z)) @ heights))


@kernel
def wrapped(index: int, count: int) -> int:
    """A node beyond the ends of a periodic axis."""
    index += count if index < 0 else 0
    return index - count if index >= count else index


@kernel
def fill_window(u: float, width: int, beta: float, out: FloatArray) -> int:
    """The window's heights at the nodes around u, and the first of these; 1 at the only node of an axis that is not real."""
    if width == 1:
        out[0] = 1.0
        return 0
    base = math.ceil(u - 0.5 * width)
    for k in range(width):
        z = (base + k - u) * 2.0 / width
        out[k] = math.exp(beta * (math.sqrt(max(1.0 - z * z, 0.0)) - 1.0))
    return base


@parallel_kernel
def spread_slabs(places: FloatArray, shares: FloatArray, starts: IntArray, beta: float, mesh: FloatArray) -> None:
    """mesh (a, b, c) = Σ shares_i window(node − places_i) for atoms (3, N) sorted by the first row that they touch, ``starts`` (a + 1,)."""
    rows, columns, layers = mesh.shape
    beside, above = WIDTH if columns > 1 else 1, WIDTH if layers > 1 else 1
    slab = (rows + _SLABS - 1) // _SLABS
    for part in prange(_SLABS):
        low, high = part * slab, min((part + 1) * slab, rows)
        first, second, third = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
        for i in range(low, high):
            for j in range(columns):
                for k in range(layers):
                    mesh[i, j, k] = 0.0
        for begin in range(low - WIDTH + 1, high):
            row = wrapped(begin, rows)
            for atom in range(starts[row], starts[row + 1]):
                fill_window(places[0, atom], WIDTH, beta, first)
                column = fill_window(places[1, atom], beside, beta, second)
                layer = fill_window(places[2, atom], above, beta, third)
                for i in range(max(begin, low), min(begin + WIDTH, high)):
                    mass = shares[atom] * first[i - begin]
                    for j in range(beside):
                        line = mesh[i, wrapped(column + j, columns)]
                        height = mass * second[j]
                        for k in range(above):
                            line[wrapped(layer + k, layers)] += height * third[k]


@parallel_kernel
def gather_blocks(places: FloatArray, meshes: FloatArray, beta: float, out: FloatArray) -> None:
    """out (q, M) = Σ meshes[q] window(node − places_i) for q meshes (q, a, b, c) and atoms (3, M)."""
    many, rows, columns, layers = meshes.shape
    beside, above = WIDTH if columns > 1 else 1, WIDTH if layers > 1 else 1
    count = places.shape[1]
    for block in prange((count + BLOCK - 1) // BLOCK):
        first, second, third = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
        for atom in range(block * BLOCK, min((block + 1) * BLOCK, count)):
            row = fill_window(places[0, atom], WIDTH, beta, first)
            column = fill_window(places[1, atom], beside, beta, second)
            layer = fill_window(places[2, atom], above, beta, third)
            for q in range(many):
                total = 0.0
                for i in range(WIDTH):
                    for j in range(beside):
                        line = meshes[q, wrapped(row + i, rows), wrapped(column + j, columns)]
                        along = 0.0
                        for k in range(above):
                            along += line[wrapped(layer + k, layers)] * third[k]
                        total += first[i] * second[j] * along
                out[q, atom] = total


def spread(places: FloatArray, shares: FloatArray, counts: tuple[int, ...], beta: float) -> FloatArray:
    """Atoms at ``places`` (N, d), in nodes, on a mesh of ``counts``, as an array of d axes."""
    columns, order, starts = _sorted(places, counts)
    mesh = np.empty(shape_of(counts))
    spread_slabs(columns, shares[order], starts, beta, mesh)
    return mesh.reshape(counts)


def gather(places: FloatArray, meshes: FloatArray, beta: float) -> FloatArray:
    """Values of q meshes (q, ...) at ``places`` (M, d), in nodes, as (q, M)."""
    counts = meshes.shape[1:]
    columns, order, _ = _sorted(places, counts)
    found, result = np.empty((len(meshes), len(places))), np.empty((len(meshes), len(places)))
    gather_blocks(columns, meshes.reshape(len(meshes), *shape_of(counts)), beta, found)
    result[:, order] = found
    return result


def _sorted(places: FloatArray, counts: tuple[int, ...]) -> tuple[FloatArray, IntArray, IntArray]:
    """Atoms as (3, N), sorted by the rows that they touch and by the place in these; their order; where the rows start."""
    first = np.mod(np.ceil(places - 0.5 * WIDTH).astype(np.int64), np.array(counts))
    key = first[:, 0] * counts[-1] + first[:, -1]
    order = np.argsort(key, kind="stable")
    starts = np.searchsorted(first[order, 0], np.arange(counts[0] + 1)).astype(np.int64)
    columns = np.zeros((3, len(places)))
    columns[[0], :] = places[order, 0]
    if len(counts) > 1:
        columns[2] = places[order, -1]
    if len(counts) == 3:
        columns[1] = places[order, 1]
    return columns, order, starts
