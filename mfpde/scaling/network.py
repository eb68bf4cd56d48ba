"""Two-layer relu networks under either scaling, and what is said about their neurons."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.scaling.kernel import norms, square_norm


class Scaling(Enum):
    """The factor s of f = s Σ_j a_j relu(b_j·x)."""

    CONVENTIONAL = "conventional"
    MEAN_FIELD = "mean_field"

    def factor(self, width: int) -> float:
        """1, or 1/m. [slides (0.12)]"""
        return 1.0 if self is Scaling.CONVENTIONAL else 1.0 / width


@dataclass(frozen=True, eq=False)
class Network:
    """f(x) = s Σ_j a_j relu(b_j·x): ``outer`` a (m,), ``inner`` b (m, d), ``factor`` s."""

    outer: FloatArray
    inner: FloatArray
    factor: float

    @property
    def strengths(self) -> FloatArray:
        """|a_j||b_j|, (m,)."""
        return np.abs(self.outer) * norms(self.inner)

    @property
    def path_norm(self) -> float:
        """s Σ_j |a_j||b_j|."""
        return self.factor * float(np.sum(self.strengths))

    def activated(self, threshold: float) -> int:
        """How many neurons have |a_j||b_j| of at least ``threshold`` times the largest one."""
        strengths = self.strengths
        return int(np.sum(strengths >= threshold * np.max(strengths))) if np.max(strengths) > 0.0 else 0

    @property
    def participation(self) -> float:
        """(Σ_j |a_j||b_j|)²/Σ_j (|a_j||b_j|)², from 1 (one neuron) to m (all alike); 0 for a network that is 0."""
        strengths = self.strengths
        square = float(strengths @ strengths)
        return float(np.sum(strengths)) ** 2 / square if square > 0.0 else 0.0

    @property
    def balance(self) -> FloatArray:
        """|b_j|² − a_j², which a gradient flow keeps, (m,)."""
        return np.asarray(np.einsum("ij,ij->i", self.inner, self.inner) - self.outer**2)

    def values(self, points: FloatArray) -> FloatArray:
        """f at points (n, d), as (n,)."""
        return self.factor * (np.maximum(points @ self.inner.T, 0.0) @ self.outer)


def distance(one: Network, two: Network) -> float:
    """(E(f₁ − f₂)²)^½ over N(0, I)."""
    weights = np.concatenate([one.factor * one.outer, -two.factor * two.outer])
    return float(np.sqrt(square_norm(weights, np.vstack([one.inner, two.inner]))))


def start(seed: int, width: int, dimension: int, outer: float = 0.0, inner: float | None = None) -> Network:
    """A network before training, with factor 1: b_j ~ N(0, inner² I), by default inner² = 1/d, and a_j ~ N(0, outer²).

    The neurons of a width are the first ones of larger widths with the same ``seed``.
    """
    deviation = dimension**-0.5 if inner is None else inner
    directions = deviation * np.random.default_rng([seed, 0]).standard_normal((width, dimension))
    return Network(outer * np.random.default_rng([seed, 1]).standard_normal(width), directions, 1.0)
