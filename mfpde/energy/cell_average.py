"""Averages of pair kernels over the cells of a uniform grid, graded towards the singularity or kink at 0.

Every axis is taken as a circle, as differences of its cells see it: a periodic axis as it is, an axis with walls inside a circle of at
least twice its length. The weights w_k of the differences k then make a circulant matrix.
"""

import math
from functools import cache
from itertools import product

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.energy.pair_kernel import PairKernel

_BLOCK = 1 << 17
_TOLERANCE = {1: 1e-14, 2: 1e-13, 3: 1e-11}
_MOST_NODES = 14
_LEVELS = 40


def circulant_weights(kernel: PairKernel, counts: tuple[int, ...], spacing: FloatArray) -> FloatArray:
    """Weights w_k, of shape ``counts``, of the differences of cells on circles of so many cells; exactly w_{−k} = w_k.

    A kernel that the cells resolve is taken at their centres: for smooth densities that are given as cell averages ρ̄ this has the
    error h²/24 W∗Δρ, half of that of averaging W as well; polynomials and finite Fourier series keep their rank, and a density and
    its atoms have the same energy. Where W is infinite or has a kink at 0, centre values lose an order or have no meaning, and w_k
    is the average of W over the cell at the difference k: the potential of the piecewise constant density at cell centres, exact but
    for quadrature, and of second order in h for smooth densities.
    """
    average = not kernel.resolved(spacing)
    if kernel.reflective:
        part = _orthant_averages(kernel, counts, spacing) if average else _orthant_values(kernel, counts, spacing)
        for axis, count in enumerate(counts):
            part = np.take(part, np.minimum(np.arange(count), count - np.arange(count)), axis=axis)
        return np.ascontiguousarray(part)
    full = _full_averages(kernel, counts, spacing) if average else _full_values(kernel, counts, spacing)
    axes = tuple(range(len(counts)))
    return np.asarray(0.5 * (full + np.roll(np.flip(full), 1, axis=axes)))


def box_average(kernel: PairKernel, sides: FloatArray) -> float:
    """The average of W over the box |x_k| <= sides_k/2."""
    if kernel.reflective:
        return float(_box_averages(kernel, np.zeros((1, len(sides))), 0.5 * sides[None, :])[0])
    corners = 0.5 * sides * np.array(list(product((-1.0, 1.0), repeat=len(sides))))
    return float(np.mean(_box_averages(kernel, np.minimum(corners, 0.0), np.maximum(corners, 0.0))))


def _tensor(parts: list[FloatArray]) -> FloatArray:
    """All combinations of the coordinates of each axis, (size, d), the last axis fastest, as columns."""
    mesh = np.meshgrid(*parts, indexing="ij")
    return np.stack([coordinate.ravel() for coordinate in mesh]).T


def _orthant_values(kernel: PairKernel, counts: tuple[int, ...], spacing: FloatArray) -> FloatArray:
    steps = [np.arange(count // 2 + 1) * h for count, h in zip(counts, spacing, strict=True)]
    return kernel.values(_tensor(steps)).reshape([count // 2 + 1 for count in counts])


def _full_values(kernel: PairKernel, counts: tuple[int, ...], spacing: FloatArray) -> FloatArray:
    steps = [np.fft.fftfreq(count, 1.0 / count) * h for count, h in zip(counts, spacing, strict=True)]
    return kernel.values(_tensor(steps)).reshape(counts)


def _orthant_averages(kernel: PairKernel, counts: tuple[int, ...], spacing: FloatArray) -> FloatArray:
    """The cells that 0 and half way round cut in two are represented by their halves."""
    lower, upper = [], []
    for count, h in zip(counts, spacing, strict=True):
        middle = np.arange(count // 2 + 1)
        lower.append(np.maximum(middle - 0.5, 0.0) * h)
        upper.append(np.minimum(middle + 0.5, 0.5 * count) * h)
    return _box_averages(kernel, _tensor(lower), _tensor(upper)).reshape([count // 2 + 1 for count in counts])


def _full_averages(kernel: PairKernel, counts: tuple[int, ...], spacing: FloatArray) -> FloatArray:
    """Cells that 0 or half way round cut in two are taken as two pieces, each where its differences are shortest."""
    lower, upper, owners = [], [], []
    for count, h in zip(counts, spacing, strict=True):
        pieces = _pieces(count)
        lower.append(pieces[:, 0] * h)
        upper.append(pieces[:, 1] * h)
        owners.append(pieces[:, 2])
    averages = _box_averages(kernel, _tensor(lower), _tensor(upper))
    shares = np.prod(_tensor([(high - low) / h for low, high, h in zip(lower, upper, spacing, strict=True)]), axis=1)
    flat = np.ravel_multi_index(tuple(_tensor(owners).T.astype(np.int64)), counts)
    return np.asarray(np.bincount(flat, weights=averages * shares, minlength=math.prod(counts)), dtype=float).reshape(counts)


def _pieces(count: int) -> FloatArray:
    """Lower end, upper end and cell of the pieces of a circle of ``count`` cells of width 1 whose middle cell is cell 0, (P, 3)."""
    half = 0.5 * count
    pieces = []
    for cell in range(count):
        middle = cell if cell <= half else cell - count
        low, high = middle - 0.5, middle + 0.5
        if low < 0.0 < high:
            pieces += [(low, 0.0, cell), (0.0, high, cell)]
        elif high > half:
            pieces += [(low, half, cell), (-half, -low, cell)]
        else:
            pieces.append((low, high, cell))
    return np.array(pieces)


def _box_averages(kernel: PairKernel, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Averages of W over boxes (B, d), none of which has 0 inside; those with a corner at 0 are graded towards it."""
    touching = np.all((lower == 0.0) | (upper == 0.0), axis=1)
    result = np.empty(len(lower))
    result[~touching] = divided_averages(kernel, lower[~touching], upper[~touching])
    for k in np.flatnonzero(touching):
        result[k] = _graded_average(kernel, lower[k] + upper[k])
    if not np.isfinite(result).all():
        raise ValueError("the kernel is not finite on the differences of the cells")
    return result


def _graded_average(kernel: PairKernel, corner: FloatArray) -> float:
    """The average of W over the box between 0 and ``corner``: its shells between boxes that halve towards 0, down to 1e-12 of its size,
    and a geometric series for what is left."""
    rest, lower, upper, level = corner, [], [], []
    for step in range(_LEVELS):
        sides = np.abs(rest)
        halved = sides > 0.51 * np.max(sides)
        inner = np.where(halved, 0.5 * rest, rest)
        for place in product((False, True), repeat=len(rest)):
            if any(place) and not np.any(np.array(place) & ~halved):
                ends = np.where(place, inner, 0.0), np.where(place, rest, inner)
                lower.append(np.minimum(*ends))
                upper.append(np.maximum(*ends))
                level.append(step)
        rest = inner
    starts, stops = np.array(lower), np.array(upper)
    shares = np.prod(stops - starts, axis=1) / abs(float(np.prod(corner)))
    shells = np.bincount(level, weights=shares * divided_averages(kernel, starts, stops))
    ratio = float(shells[-1] / shells[-2]) if shells[-2] != 0.0 else 0.0
    return float(np.sum(shells)) + float(shells[-1]) * ratio / (1.0 - ratio)


def divided_averages(kernel: PairKernel, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Averages over boxes (B, d) away from 0, which are halved until they are no longer than their distance from it."""
    result = np.zeros(len(lower))
    owner, share = np.arange(len(lower)), np.ones(len(lower))
    while len(owner):
        longest = np.max(upper - lower, axis=1)
        distance = np.linalg.norm(np.clip(0.0, lower, upper), axis=1)
        good = distance >= 0.999 * longest
        parts = _gauss_averages(kernel, lower[good], upper[good], 2.0 * distance[good] / longest[good])
        result += np.bincount(owner[good], weights=share[good] * parts, minlength=len(result))
        lower, upper, owner, share = _halved(lower[~good], upper[~good], owner[~good], share[~good])
    return result


def _halved(
    lower: FloatArray, upper: FloatArray, owner: IntArray, share: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray, FloatArray]:
    """Boxes cut in two along all of their long axes."""
    longest = np.max(upper - lower, axis=1, initial=0.0)
    for axis in range(lower.shape[1]):
        cut = upper[:, axis] - lower[:, axis] > 0.51 * longest
        middle = 0.5 * (lower[cut, axis] + upper[cut, axis])
        second_lower, first_upper = lower[cut], upper[cut]
        second_lower[:, axis], first_upper[:, axis] = middle, middle
        lower, upper = np.concatenate([lower[~cut], lower[cut], second_lower]), np.concatenate([upper[~cut], first_upper, upper[cut]])
        owner = np.concatenate([owner[~cut], owner[cut], owner[cut]])
        share = np.concatenate([share[~cut], 0.5 * share[cut], 0.5 * share[cut]])
        longest = np.concatenate([longest[~cut], longest[cut], longest[cut]])
    return lower, upper, owner, share


def _gauss_averages(kernel: PairKernel, lower: FloatArray, upper: FloatArray, ratio: FloatArray) -> FloatArray:
    """Averages over boxes (B, d) by tensor Gauss–Legendre rules whose error ρ^{−2p} is that of functions analytic but for a point
    ``ratio`` half-lengths away; ρ = z + √(z² − 1) is the Bernstein ellipse's parameter [Trefethen 2008]."""
    dimension = lower.shape[1]
    tolerance = _TOLERANCE.get(dimension, 1e-6)
    wanted = np.ceil(-0.5 * math.log(tolerance) / np.arccosh(np.maximum(ratio, 1.5)))
    count = np.clip(wanted, 2, _MOST_NODES).astype(int)
    result = np.empty(len(lower))
    for nodes_along in np.unique(count):
        chosen = np.flatnonzero(count == nodes_along)
        places, shares = _tensor_rule(int(nodes_along), dimension)
        block = max(1, _BLOCK // len(shares))
        for start in range(0, len(chosen), block):
            part = chosen[start : start + block]
            x = np.empty((dimension, len(part), len(shares)))
            for k in range(dimension):
                np.add(np.multiply.outer(upper[part, k] - lower[part, k], places[:, k]), lower[part, k, None], out=x[k])
            result[part] = kernel.values(x.reshape(dimension, -1).T).reshape(len(part), -1) @ shares
    return result


@cache
def _tensor_rule(count: int, dimension: int) -> tuple[FloatArray, FloatArray]:
    """Places (Q, d) in the unit box and weights (Q,) of sum one of a tensor Gauss–Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return _tensor([0.5 + 0.5 * nodes] * dimension), np.asarray(np.prod(_tensor([0.5 * weights] * dimension), axis=1))
