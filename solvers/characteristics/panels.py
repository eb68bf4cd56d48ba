"""Panels: boxes of labels with tensor Gauss–Legendre nodes, the initial density there and the places that the flow has carried them to."""

import math
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
from numpy.polynomial import legendre

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.measure import DensityFunction, Particles


@dataclass(frozen=True, eq=False)
class Rule:
    """Gauss–Legendre nodes and weights on [−1, 1], (p,), and matrices (p, p) that act on values there: ``analysis`` gives Legendre
    coefficients, ``slope`` the derivative, ``lower`` and ``upper`` the values at the nodes of either half."""

    nodes: FloatArray
    weights: FloatArray
    analysis: FloatArray
    slope: FloatArray
    lower: FloatArray
    upper: FloatArray

    @staticmethod
    @cache
    def of(order: int) -> "Rule":
        """The rule with ``order`` nodes."""
        nodes, weights = legendre.leggauss(order)
        basis = legendre.legvander(nodes, order - 1)
        analysis = (basis * weights[:, None]).T * (np.arange(order) + 0.5)[:, None]
        lower, upper = (values_at(0.5 * (nodes + side), analysis) for side in (-1.0, 1.0))
        return Rule(nodes, weights, analysis, slopes_at(nodes, analysis), lower, upper)


def values_at(places: FloatArray, analysis: FloatArray) -> FloatArray:
    """The matrix (m, p) from values at p nodes to those of the polynomial at places (m,) of [−1, 1]."""
    return np.asarray(legendre.legvander(places, len(analysis) - 1) @ analysis)


def slopes_at(places: FloatArray, analysis: FloatArray) -> FloatArray:
    """The matrix (m, p) from values at p nodes to slopes of the polynomial at places (m,) of [−1, 1]."""
    return np.asarray(legendre.legval(places, legendre.legder(np.eye(len(analysis)), axis=0)).T @ analysis)


@cache
def tensor_rule(order: int, dimension: int) -> tuple[FloatArray, FloatArray]:
    """Nodes (p^d, d) and weights (p^d,) of the product rule on [−1, 1]^d, the last axis fastest."""
    rule = Rule.of(order)
    nodes = np.stack([x.ravel() for x in np.meshgrid(*[rule.nodes] * dimension, indexing="ij")], axis=1)
    return nodes, reduce(np.multiply.outer, [rule.weights] * dimension).ravel()


def along(matrix: FloatArray, values: FloatArray, axis: int) -> FloatArray:
    """A matrix (m, p) applied to one axis of an array."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    product = matrix @ values.reshape(math.prod(before), values.shape[axis], math.prod(after))
    return np.asarray(product.reshape(*before, len(matrix), *after))


def labels_of(lower: FloatArray, upper: FloatArray, order: int) -> FloatArray:
    """The labels of the nodes of panels with these corners (P, d), (P, p^d, d)."""
    nodes = tensor_rule(order, lower.shape[1])[0]
    return np.asarray(0.5 * (lower + upper)[:, None] + 0.5 * (upper - lower)[:, None] * nodes)


@dataclass(eq=False)
class Panels:
    """Panels from ``lower`` to ``upper`` labels a, (P, d) each, with ``order`` p nodes along each axis, the last axis fastest:
    ρ₀ at the nodes, (P, p^d), and their places θ(a), (P, p^d, d)."""

    lower: FloatArray
    upper: FloatArray
    order: int
    density: FloatArray
    places: FloatArray

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.lower.shape[1])

    @property
    def rule(self) -> Rule:
        """The rule of every panel along each axis."""
        return Rule.of(self.order)

    @property
    def weights(self) -> FloatArray:
        """Masses of the nodes, (P, p^d)."""
        volume = np.prod(0.5 * (self.upper - self.lower), axis=1)
        return np.asarray(volume[:, None] * tensor_rule(self.order, self.dimension)[1] * self.density)

    @property
    def atoms(self) -> Particles:
        """The nodes as atoms."""
        return Particles(self.places.reshape(-1, self.dimension), self.weights.ravel())

    def tensor(self, values: FloatArray) -> FloatArray:
        """Values (P, p^d, …) as (P, p, …, p, …)."""
        return values.reshape(len(values), *[self.order] * self.dimension, *values.shape[2:])

    def tails(self, values: FloatArray) -> FloatArray:
        """The last two Legendre coefficients of values (P, p^d) along each axis, the largest sum over the nodes of the others, (P, d)."""
        tensor, last = self.tensor(values), self.rule.analysis[-2:]
        sums = [np.abs(along(last, tensor, k + 1)).sum(axis=k + 1) for k in range(self.dimension)]
        return np.stack([np.max(s.reshape(len(values), -1), axis=1) for s in sums], axis=1)

    def jacobian(self) -> FloatArray:
        """∂θ_k/∂a_l at the nodes, (P, p^d, d, d)."""
        tensor, width = self.tensor(self.places), self.upper - self.lower
        slopes = [along(self.rule.slope, tensor, axis + 1).reshape(self.places.shape) for axis in range(self.dimension)]
        return np.asarray(2.0 * np.stack(slopes, axis=3) / width[:, None, None, :])

    def stretch(self) -> FloatArray:
        """det ∂θ/∂a at the nodes, (P, p^d): the density there is ρ₀ divided by it."""
        matrix = self.jacobian()
        return np.asarray(matrix[:, :, 0, 0] if self.dimension == 1 else np.linalg.det(matrix))

    def halved(self, axes: IntArray, function: DensityFunction) -> "Panels":
        """The panels halved along the axis (P,) that is named for each, or kept where it is negative: ρ₀ is evaluated anew, and θ by
        its polynomial. They come in the order of their lower corners."""
        lower, upper = halves(self.lower, self.upper, axes)
        kept, first, second = [self.places[axes < 0]], [], []
        tensor = self.tensor(self.places)
        for axis in range(self.dimension):
            part = tensor[axes == axis]
            first.append(along(self.rule.lower, part, axis + 1).reshape(-1, *self.places.shape[1:]))
            second.append(along(self.rule.upper, part, axis + 1).reshape(-1, *self.places.shape[1:]))
        places = np.concatenate([*kept, *first, *second])
        order = np.lexsort(lower.T[::-1])
        return Panels.at(lower[order], upper[order], places[order], self.order, function)

    @staticmethod
    def at(lower: FloatArray, upper: FloatArray, places: FloatArray, order: int, function: DensityFunction) -> "Panels":
        """Panels with ρ₀ evaluated at their nodes."""
        labels = labels_of(lower, upper, order)
        density = function.values(labels.reshape(-1, lower.shape[1])).reshape(labels.shape[:2])
        return Panels(lower, upper, order, density, places)

    @staticmethod
    def resting(lower: FloatArray, upper: FloatArray, order: int, function: DensityFunction) -> "Panels":
        """Panels whose nodes are at their labels."""
        return Panels.at(lower, upper, labels_of(lower, upper, order), order, function)

    def taken(self, kept: BoolArray) -> "Panels":
        """Those of the panels that are ``kept`` (P,)."""
        return Panels(self.lower[kept], self.upper[kept], self.order, self.density[kept], self.places[kept])


def halves(lower: FloatArray, upper: FloatArray, axes: IntArray) -> tuple[FloatArray, FloatArray]:
    """Corners of boxes halved along the axis (P,) that is named for each, or kept where it is negative: first the kept ones, then the
    lower halves axis by axis, then the upper ones."""
    middle = 0.5 * (lower + upper)
    lows, highs = [lower[axes < 0]], [upper[axes < 0]]
    for side in (0, 1):
        for axis in range(lower.shape[1]):
            low, high = lower[axes == axis].copy(), upper[axes == axis].copy()
            (high, low)[side][:, axis] = middle[axes == axis, axis]
            lows.append(low)
            highs.append(high)
    return np.concatenate(lows), np.concatenate(highs)
