"""Sharpness, non-uniformity and the stability of SGD at a solution of a network, from exact Hessian-vector products."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.sgd.batches import Batch
from mfpde.sgd.linear import Quadratics, RankOne, critical_rate, mean_square_rate
from mfpde.sgd.network import Curvature

_RANK = 1e-10


def sharpness(curvature: Curvature) -> float:
    """a = λ_max(H), by the Lanczos method. Raises StepFailed if that does not converge."""
    return largest_eigenvalue(curvature.product, len(curvature.parameters), "the sharpness")


def nonuniformity(curvature: Curvature) -> float:
    """s = λ_max(Σ)^½ with Σ = (1/n) Σ H_i² − H², from the products v ↦ (1/n) Σ H_i(H_iv) − H(Hv). [Wu, Ma, E 2018, section 3]

    Raises StepFailed if the Lanczos method does not converge.
    """

    def spread(vector: FloatArray) -> FloatArray:
        twice = np.mean(curvature.sample_products(curvature.sample_products(vector)), axis=0)
        return np.asarray(twice - curvature.product(curvature.product(vector)))

    return math.sqrt(max(largest_eigenvalue(spread, len(curvature.parameters), "the non-uniformity"), 0.0))


def traces(curvature: Curvature) -> tuple[float, float]:
    """tr H, and (tr Σ)^½ = ((1/n) Σ |H_i|² − |H|²)^½: sharpness and non-uniformity over all directions."""
    spread = float(np.mean(curvature.sample_squares())) - float(np.sum(curvature.hessian**2))
    return float(np.trace(curvature.hessian)), math.sqrt(max(spread, 0.0))


def interpolating(curvature: Curvature) -> Quadratics:
    """H_i = ∇f(x_i)∇f(x_i)ᵀ, which they are where every sample is fitted, on the span of the gradients."""
    left, sizes, _ = np.linalg.svd(curvature.jacobian, full_matrices=False)
    kept = sizes > _RANK * sizes[0]
    return RankOne(np.ascontiguousarray(left[:, kept] * sizes[kept]))


@dataclass(frozen=True)
class Solution:
    """What is known of the point that a training has come to; the names are those of the study's columns."""

    loss: float
    sharpness: float
    nonuniformity: float
    trace: float
    trace_nonuniformity: float
    mean_square_rate: float
    critical_rate: float

    @staticmethod
    def of(curvature: Curvature, rate: float, batch: Batch) -> "Solution":
        """At the point of ``curvature``, for SGD with this rate. Raises StepFailed where an eigenvalue does not converge."""
        functions = interpolating(curvature)
        trace, spread = traces(curvature)
        return Solution(
            curvature.loss,
            sharpness(curvature),
            nonuniformity(curvature),
            trace,
            spread,
            mean_square_rate(functions, rate, batch),
            critical_rate(functions, batch),
        )


def largest_eigenvalue(product: Callable[[FloatArray], FloatArray], size: int, what: str) -> float:
    """The largest eigenvalue of a symmetric operator, densely for few dimensions. Raises StepFailed if it does not converge."""
    if size <= 32:
        return float(np.linalg.eigvalsh(np.array([product(row) for row in np.eye(size)]))[-1])
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    start = np.random.default_rng(0).standard_normal(size)
    try:
        found = eigsh(LinearOperator((size, size), product, dtype=float), 1, which="LA", v0=start, tol=1e-10, return_eigenvectors=False)
    except ArpackError as error:
        raise StepFailed(Status.NOT_CONVERGED, f"{what} of {size} parameters: {error}") from error
    return float(found[0])
