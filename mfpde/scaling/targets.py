"""What networks are to learn, with its overlap with a relu neuron in closed form."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.scaling.kernel import circle_overlap, inverted, norms, square_norm
from mfpde.solvers.kernels.scaling import add_pairs


class Target(Protocol):
    """A function f* of x in R^d. Expectations are over N(0, I)."""

    @property
    def directions(self) -> FloatArray:
        """Vectors that span what f* depends on, (k, d)."""

    @property
    def square(self) -> float:
        """E f*²."""

    def values(self, points: FloatArray) -> FloatArray:
        """f* at points (n, d), as (n,)."""

    def overlap(self, inner: FloatArray, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E f*(x)relu(b·x) and its gradient by b for rows b of ``inner`` (m, r), (m,) and (m, r); ``directions`` (k, r) are those of the
        target in the same coordinates."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """f*(x) = Σ_k α_k relu(w_k·x): ``points`` w (k, d), ``weights`` α (k,). Raises ValueError for shapes that do not fit, numbers that are
    not finite and points at 0."""

    points: FloatArray
    weights: FloatArray

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.weights.shape != (len(self.points),) or not self.points.size:
            raise ValueError(f"a target needs neurons (k, d) and as many weights, got shapes {self.points.shape} and {self.weights.shape}")
        if not (np.isfinite(self.points).all() and np.isfinite(self.weights).all() and (norms(self.points) > 0.0).all()):
            raise ValueError("the neurons and weights of a target must be finite, and no neuron 0")

    @property
    def directions(self) -> FloatArray:
        """The neurons."""
        return self.points

    @property
    def square(self) -> float:
        """E f*²."""
        return square_norm(self.weights, self.points)

    def values(self, points: FloatArray) -> FloatArray:
        """f* at points (n, d), as (n,)."""
        return np.maximum(points @ self.points.T, 0.0) @ self.weights

    def overlap(self, inner: FloatArray, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """By the arc-cosine kernel."""
        length, others = norms(inner), norms(directions)
        value, rise = np.empty(len(inner)), np.empty(len(inner))
        angles = np.ascontiguousarray(inner @ directions.T)
        inverse = inverted(length)
        add_pairs(angles, inverse, others, 1.0 / others, self.weights, value, rise)
        slope = (rise * inverse)[:, None] * inner + angles @ directions
        return value * length / (2.0 * math.pi), slope / (2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class Circle:
    """The circle neuron f*(x) = ∫relu(v·x)π(dv), π uniform on {v : v₁² + v₂² = 1, v_k = 0 for k > 2} in R^d, which is |(x₁, x₂)|/π.
    [slides, figure 4] Raises ValueError for d < 2."""

    dimension: int

    def __post_init__(self) -> None:
        if self.dimension < 2:
            raise ValueError(f"a circle of neurons needs two or more dimensions, got {self.dimension}")

    @property
    def directions(self) -> FloatArray:
        """The plane's two unit vectors, (2, d)."""
        return np.eye(2, self.dimension)

    @property
    def square(self) -> float:
        """E f*² = 2/π²."""
        return 2.0 / math.pi**2

    def values(self, points: FloatArray) -> FloatArray:
        """|(x₁, x₂)|/π at points (n, d)."""
        return np.hypot(points[:, 0], points[:, 1]) / math.pi

    def overlap(self, inner: FloatArray, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """By complete elliptic integrals."""
        return circle_overlap(inner, directions)
