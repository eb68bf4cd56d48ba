"""What symmetry forbids a network to see of a measure: the null space of Σ: ρ ↦ ∫σ(x·θ)ρ(dθ), as far as parity gives it exactly.

With an even σ the network sees the even part of ρ alone, with an odd one the odd part, and with z/2 + even (softplus, gelu, relu) the even
part and the first moment of the odd one [Mean Field Models for Neural Networks in Teacher-student Setting (2020), Example 2]. The quadratic
activation is even, but sees the second moments alone, the identity the first ones, and relu in one dimension two numbers, ∫θρ and ∫|θ|ρ.
With output weights these hold for ∫wρ dw (there Theorem 5), and all other parts of ρ(θ, w) are forbidden as well. Several outputs without
weights see the marginal of every row θ_m, that is functions Σ_m g_m(θ_m) with such g_m, and nothing of how the rows depend on each other.

What is forbidden is so for every law of the inputs. Whether the rest is seen depends on the law: few samples see less.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain, Grid
from mfpde.energy.examples import Examples
from mfpde.energy.features import Angle
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork

Network = TwoLayer | PairNetwork
Half = Literal["even", "odd", "none"]
Mirror = Callable[[FloatArray], FloatArray]
Functions = Callable[[FloatArray], FloatArray]
"""Functions of vectors (N, D), as (m, N)."""

_ALIGNED = 1e-6


def _ones(vectors: FloatArray) -> FloatArray:
    return np.ones((1, len(vectors)))


def _coordinates(vectors: FloatArray) -> FloatArray:
    return np.ascontiguousarray(vectors.T)


def _products(vectors: FloatArray) -> FloatArray:
    first, second = np.triu_indices(vectors.shape[1])
    return np.ascontiguousarray((vectors[:, first] * vectors[:, second]).T)


def _lengths(vectors: FloatArray) -> FloatArray:
    return np.concatenate([vectors.T, np.abs(vectors.T)])


_HALVES: dict[str, tuple[Half, tuple[Functions, ...], str]] = {
    "gaussian": ("even", (), "the even part"),
    "cos": ("even", (), "the even part"),
    "tanh": ("odd", (), "the odd part"),
    "erf": ("odd", (), "the odd part"),
    "arctan": ("odd", (), "the odd part"),
    "softsign": ("odd", (), "the odd part"),
    "sigmoid": ("odd", (_ones,), "the odd part and the mass"),
    "softplus": ("even", (_coordinates,), "the even part and the first moment"),
    "gelu": ("even", (_coordinates,), "the even part and the first moment"),
    "relu": ("even", (_coordinates,), "the even part and the first moment"),
    "quadratic": ("none", (_products,), "the second moments"),
    "identity": ("none", (_coordinates,), "the first moment"),
}


@dataclass(frozen=True)
class Leading:
    """θ is the first coordinate of a point (θ, ε), whose depth ε meets no input: parameters of E⁽¹⁾, where a residual network is linear."""

    def vectors(self, points: FloatArray) -> FloatArray:
        """θ, (N, 1)."""
        return np.ascontiguousarray(points[:, :1])

    def pull(self, points: FloatArray, gradient: FloatArray) -> FloatArray:
        """The gradient along θ, and none along the depth."""
        return np.concatenate([gradient, np.zeros((len(points), points.shape[1] - 1))], axis=1)


@dataclass(frozen=True, eq=False)
class Parity:
    """What may be seen at most, in ``words``: the ``half`` that is even or odd under every one of the ``mirrors`` of the parameters, and
    the ``functions`` of their vectors besides. ``weights``: the last coordinates are so many output weights; or, with ``depth``, one depth,
    of which nothing but the marginal without it is seen. ``rows``: coordinates are so many parameters, of which the marginals are seen."""

    half: Half
    mirrors: tuple[Mirror, ...]
    functions: tuple[Functions, ...]
    vectors: Callable[[FloatArray], FloatArray]
    weights: int
    words: str
    depth: bool = False
    rows: int = 1

    def on(self, grid: Grid) -> "GridParity | GridRows":
        """The projection for one grid. Raises ValueError where the mirror image of a cell is within the domain, but no cell."""
        if self.rows > 1:
            return self._on_rows(grid)
        inner = _inner(grid, self.weights)
        partners = () if self.half == "none" else tuple(_partners(inner, mirror) for mirror in self.mirrors)
        found = [functions(self.vectors(inner.centers)) for functions in self.functions]
        rest = np.concatenate(found) if found else np.zeros((0, inner.size))
        volume = np.broadcast_to(inner.weight, (inner.size,))
        last = grid.centers.reshape(inner.size, -1, grid.domain.dimension)[0, :, grid.domain.dimension - self.weights :]
        outer = last if self.weights and not self.depth else np.ones((len(last), 1))
        sign = -1.0 if self.half == "odd" else 1.0
        whole = self.half != "none"
        rest = rest - np.stack([_halved(row, partners, sign, whole) for row in rest]) if len(rest) else rest
        return GridParity(partners, sign, whole, _orthonormal(rest, volume), volume, _orthonormal(outer.T, np.ones(len(outer))))

    def _on_rows(self, grid: Grid) -> "GridRows":
        width, single = grid.domain.dimension // self.rows, replace(self, rows=1)
        places = [slice(m * width, (m + 1) * width) for m in range(self.rows)]
        bases = []
        for place in places:
            row = Grid(Domain(grid.domain.axes[place]), grid.cells[place])
            one = single.on(row)
            values, vectors = np.linalg.eigh(np.stack([one.seen(cell) for cell in np.eye(row.size)]))
            bases.append(np.ascontiguousarray(vectors[:, values > 0.5].T))
        size = grid.size
        means = [np.sum(basis, axis=1) / basis.shape[1] for basis in bases]
        blocks = [
            [np.eye(len(one)) * (size / one.shape[1]) if m == n else size * np.outer(means[m], means[n]) for n in range(self.rows)]
            for m, one in enumerate(bases)
        ]
        return GridRows(tuple(bases), np.linalg.pinv(np.block(blocks), hermitian=True))


@dataclass(frozen=True, eq=False)
class GridRows:
    """The orthogonal projection in L²(dθ) on sums of functions of single rows, each in the span of its row's ``bases`` (d_m, n_m), which
    are orthonormal; ``inverse`` is that of the Gram matrix of all."""

    bases: tuple[FloatArray, ...]
    inverse: FloatArray

    def seen(self, values: FloatArray) -> FloatArray:
        """The part of a function (size,) that may be seen; the rest is forbidden."""
        table = values.reshape([basis.shape[1] for basis in self.bases])
        axes = range(table.ndim)
        marginals = [np.sum(table, axis=tuple(n for n in axes if n != m)) for m in axes]
        found = self.inverse @ np.concatenate([basis @ marginal for basis, marginal in zip(self.bases, marginals, strict=True)])
        parts = np.split(found, np.cumsum([len(basis) for basis in self.bases])[:-1])
        shown = np.zeros(table.shape)
        for m, (basis, part) in enumerate(zip(self.bases, parts, strict=True)):
            shown += np.expand_dims(part @ basis, tuple(n for n in axes if n != m))
        return np.ravel(shown)


@dataclass(frozen=True, eq=False)
class GridParity:
    """The orthogonal projection in L²(dθ) on what parity lets the network see, for one grid."""

    partners: tuple[IntArray, ...]
    sign: float
    whole: bool
    rest: FloatArray
    volume: FloatArray
    outer: FloatArray

    def seen(self, values: FloatArray) -> FloatArray:
        """The part of a function (size,) that may be seen; the rest is forbidden."""
        inner = values.reshape(len(self.volume), -1) @ self.outer.T
        shown = np.stack([self._seen(column) for column in inner.T], axis=1)
        return np.ravel(shown @ self.outer)

    def _seen(self, values: FloatArray) -> FloatArray:
        half = _halved(values, self.partners, self.sign, self.whole)
        return half + ((values - half) * self.volume) @ self.rest.T @ self.rest


def parity(network: Network) -> Parity:
    """What symmetry lets this network see. Raises ValueError, in words, where there is no such statement."""
    examples = network.examples
    if examples is None:
        raise ValueError("the network does not know its activation, which parity is about")
    if examples.branch is not None:
        return _of_residual_networks(examples)
    outputs, width = examples.outputs, examples.width + examples.bias
    half, functions, words = _by_activation(examples.activation.name, width)
    if isinstance(examples.parameters, Leading):
        return Parity(half, (np.negative,), functions, _itself, 1, f"{words} of the marginal ∫ρ dε", True)
    rows = 1 if outputs.trained else outputs.count
    if rows > 1:
        words = f"{words.replace('ρ', 'ρ_m')} of the marginal of each row θ_m"
    if outputs.trained:
        words = words.replace("ρ", "wρ") if half == "none" and width == 1 and "∫" in words else f"{words} of ∫wρ dw"
    circle = isinstance(examples.parameters, Angle)
    mirror: Mirror = _antipode if circle else np.negative
    return Parity(half, (mirror,), functions, examples.parameters.vectors, outputs.count if outputs.trained else 0, words, rows=rows)


def _by_activation(name: str, width: int) -> tuple[Half, tuple[Functions, ...], str]:
    """Of vectors of ``width`` numbers."""
    if name == "relu" and width == 1:
        return "none", (_lengths,), "the two numbers ∫θρ and ∫|θ|ρ"
    return _HALVES[name]


def _of_residual_networks(examples: Examples) -> Parity:
    """An even σ gives the same states for a row of any θ^l and for its negative; with one level, X¹ = x + σ(θx) is as a two-layer network
    whose mass is seen. Nothing is known of other ones."""
    branch = examples.branch
    assert branch is not None
    half, functions, words = _HALVES[branch.activation.name]
    if branch.activation.name in ("gaussian", "cos", "quadratic"):
        mirrors = tuple(_Flip(slice(k, k + branch.dimension)) for k in range(0, branch.axes, branch.dimension))
        return Parity("even", mirrors, (), _itself, 0, "the part that is even in every row of every θ^l")
    if branch.depth > 1 or half == "none" or (branch.dimension > 1 and functions):
        raise ValueError(f"residual networks of {branch.depth} levels with {branch.activation.name} have no parity in their parameters")
    return Parity(half, (np.negative,), (_ones, *functions), _itself, 0, f"{words} and the mass")


@dataclass(frozen=True)
class _Flip:
    """The other sign for some coordinates."""

    where: slice

    def __call__(self, points: FloatArray) -> FloatArray:
        mirrored = np.array(points)
        mirrored[:, self.where] *= -1.0
        return mirrored


def _antipode(points: FloatArray) -> FloatArray:
    return np.asarray(points + np.pi)


def _itself(points: FloatArray) -> FloatArray:
    return points


def _inner(grid: Grid, weights: int) -> Grid:
    """The grid of Θ."""
    return Grid(Domain(grid.domain.axes[:-weights]), grid.cells[:-weights]) if weights else grid


def _partners(grid: Grid, mirror: Mirror) -> IntArray:
    """The cell at the mirror image of each, −1 where that is outside the domain, (size,)."""
    mirrored = mirror(grid.centers)
    turned = np.where(grid.domain.periodic, grid.domain.confine(mirrored), mirrored)
    inside = grid.domain.contains(turned)
    found = grid.locate(turned)
    apart = np.linalg.norm(grid.domain.displacement(grid.centers[found], turned), axis=1)
    size = float(np.min(grid.spacing)) if type(grid) is Grid else float(np.min(np.sqrt(grid.weight)))
    if np.any(apart[inside] > _ALIGNED * size):
        raise ValueError("the grid is not its own mirror image: parity needs a domain and cells that are symmetric about the origin")
    return np.where(inside, found, -1)


def _halved(values: FloatArray, partners: tuple[IntArray, ...], sign: float, whole: bool) -> FloatArray:
    """The part that is even (``sign`` 1) or odd (−1) under every mirror; where the image is outside the domain all of it. Without
    ``whole`` nothing."""
    if not whole:
        return np.zeros_like(values)
    for partner in partners:
        values = np.where(partner < 0, values, 0.5 * (values + sign * values[partner]))
    return values


def _orthonormal(rows: FloatArray, volume: FloatArray) -> FloatArray:
    """An orthonormal basis in L² of the span of ``rows`` (m, N), up to round-off, (k, N)."""
    if not rows.size:
        return rows
    root = np.sqrt(volume)
    scale = np.max(np.abs(rows), axis=1, keepdims=True)
    _, values, right = np.linalg.svd(rows / np.where(scale > 1e-12, scale, np.inf) * root, full_matrices=False)
    return np.asarray(right[values > 1e-10 * max(float(values[0]), 1e-300)] / root)
