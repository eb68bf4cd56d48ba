"""The risk ½E(f − f*)² of relu networks and its gradients: over the law of the inputs in closed form, or over samples."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.scaling.kernel import inverted, kernel_sums, norms, relu_kernel
from mfpde.scaling.targets import Target
from mfpde.solvers.kernels.scaling import add_pairs, back_propagate

_BLOCK = 1 << 18
_TWO_PI = 2.0 * math.pi


class Risk(Protocol):
    """R(a, b) = ½E(f − f*)² for f = s Σ_j a_j relu(b_j·x)."""

    def slope(self, outer: FloatArray, inner: FloatArray, factor: float, out: FloatArray) -> float:
        """R, with (1/s)∂R/∂a_j in the first m numbers of ``out`` (m (1 + d),) and (1/s)∂R/∂b_j in the rest: minus the velocities of
        (0.13), (0.14), in which time is rescaled by m under the mean-field scaling."""

    def features(self, inner: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """With b frozen, ∂R/∂a = K a − t: eigenvalues (k,) and eigenvectors (m, k) of K, k ≤ m, without the null space, and their
        products with t, (k,)."""


@dataclass(eq=False)
class PopulationRisk:
    """Over inputs whose pairs of relu neurons have κ = ``moment`` times the arc-cosine kernel, in closed form.

    ``directions``: those of the target in the coordinates of the neurons; its own if they are not rotated.
    """

    target: Target
    moment: float = 1.0
    directions: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    square: float = field(init=False)
    _gram: FloatArray = field(init=False, default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        if not self.directions.size:
            self.directions = self.target.directions
        self.square = self.moment * self.target.square

    def slope(self, outer: FloatArray, inner: FloatArray, factor: float, out: FloatArray) -> float:
        """By the arc-cosine kernel: ∂k(u, v)/∂u = (|v| sin φ u/|u| + (π − φ)v)/2π."""
        width = len(outer)
        if len(self._gram) != width:
            self._gram = np.empty((width, width))
        length = norms(inner)
        inverse, weights = inverted(length), factor * outer
        np.matmul(inner, inner.T, out=self._gram)
        value, rise = np.empty(width), np.empty(width)
        add_pairs(self._gram, inverse, length, inverse, weights, value, rise)
        overlap, pull = self.target.overlap(inner, self.directions)
        own = value * length / _TWO_PI
        out[:width] = self.moment * (own - overlap)
        turn = self._gram @ inner
        turn += (rise * inverse)[:, None] * inner
        turn *= (self.moment / _TWO_PI) * outer[:, None]
        turn -= (self.moment * outer)[:, None] * pull
        out[width:] = np.reshape(turn, -1)
        return 0.5 * (self.moment * float(weights @ (own - 2.0 * overlap)) + self.square)

    def value(self, outer: FloatArray, inner: FloatArray, factor: float) -> float:
        """R alone, not below 0 by round-off."""
        weights = factor * outer
        overlap = self.target.overlap(inner, self.directions)[0]
        return max(0.5 * (self.moment * float(weights @ (kernel_sums(inner, weights) - 2.0 * overlap)) + self.square), 0.0)

    def features(self, inner: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """By the eigen-decomposition of the kernel's matrix."""
        values, vectors = np.linalg.eigh(self.moment * relu_kernel(inner, inner))
        kept = values > len(values) * np.finfo(float).eps * values[-1]
        return values[kept], vectors[:, kept], vectors[:, kept].T @ (self.moment * self.target.overlap(inner, self.directions)[0])


def rotated(risk: PopulationRisk, inner: FloatArray) -> tuple[PopulationRisk, FloatArray, FloatArray | None]:
    """The same risk in coordinates of the span of the neurons and the target, which gradient steps never leave, where that is smaller.

    Returns the risk, the neurons there (m, r), and the orthonormal basis (d, r) that leads back, None where nothing is gained.
    """
    width, dimension = inner.shape
    if width + len(risk.directions) >= dimension:
        return risk, inner, None
    basis = np.linalg.qr(np.vstack([risk.directions, inner]).T)[0]
    return (
        PopulationRisk(risk.target, risk.moment, np.ascontiguousarray(risk.directions @ basis)),
        np.ascontiguousarray(inner @ basis),
        basis,
    )


@dataclass(eq=False)
class EmpiricalRisk:
    """Over samples: ``points`` x (n, d) and ``values`` y (n,). Raises ValueError for shapes that do not fit or values not finite."""

    points: FloatArray
    values: FloatArray
    _products: FloatArray = field(init=False, default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.values.shape != (len(self.points),) or not self.points.size:
            raise ValueError(f"samples need points (n, d) and as many values, got shapes {self.points.shape} and {self.values.shape}")
        if not (np.isfinite(self.points).all() and np.isfinite(self.values).all()):
            raise ValueError("the samples must be finite")
        self.points, self.values = np.ascontiguousarray(self.points, dtype=float), np.ascontiguousarray(self.values, dtype=float)

    def slope(self, outer: FloatArray, inner: FloatArray, factor: float, out: FloatArray) -> float:
        """Block by block of samples, so that what lies between the two matrix products stays in the cache."""
        width, count = len(outer), len(self.values)
        rows = min(count, max(_BLOCK // width, 16))
        if self._products.shape != (rows, width):
            self._products = np.empty((rows, width))
        out[:] = 0.0
        total, turn, weights = 0.0, np.reshape(out[width:], inner.shape), factor * outer
        for first in range(0, count, rows):
            points = self.points[first : first + rows]
            products = self._products[: len(points)]
            np.matmul(points, inner.T, out=products)
            total += back_propagate(products, weights, self.values[first : first + rows], out[:width])
            turn += products.T @ points
        out /= count
        turn *= outer[:, None]
        return 0.5 * total / count

    def features(self, inner: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """By the singular values of the features relu(b_j·x_i)/√n."""
        root = math.sqrt(len(self.values))
        left, values, right = np.linalg.svd(np.maximum(self.points @ inner.T, 0.0) / root, full_matrices=False)
        kept = values > max(left.shape[0], right.shape[1]) * np.finfo(float).eps * values[0]
        projected = values[kept] * (left[:, kept].T @ (self.values / root))
        return values[kept] ** 2, np.ascontiguousarray(right[kept].T), projected
