"""Linear stability of SGD in d dimensions: θ ← (I − η mean_S H_i)θ near a minimum that every sample shares, H_i = ∇²f_i ≥ 0.

The second moment M = E θθᵀ obeys M ← (I − ηH)M(I − ηH) + η² c ((1/n) Σ H_i M H_i − HMH) exactly, with H the mean of the H_i and c
``Batch.factor``. This map of symmetric matrices is self-adjoint and keeps M ≥ 0, so its spectral radius r is its largest eigenvalue; SGD
is stable in mean square if r ≤ 1. The condition λ_max((I − ηH)² + η² c Σ) ≤ 1, Σ = (1/n) Σ H_i² − H², of the slides is that E|θ|² falls
from every θ in one step: it is sufficient, not necessary. [slides (0.15)–(0.19); Wu, Ma, E 2018]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.sgd.batches import Batch

_SMALL = 300
_RANK = 1e-12


class Quadratics(Protocol):
    """The functions ½ θᵀH_iθ of n samples."""

    @property
    def samples(self) -> int:
        """n."""

    @property
    def hessian(self) -> FloatArray:
        """H = (1/n) Σ H_i, (d, d)."""

    def sandwich(self, moment: FloatArray) -> FloatArray:
        """(1/n) Σ H_i M H_i of a symmetric M (d, d)."""

    def rotated(self, basis: FloatArray) -> "Quadratics":
        """The same functions of y with θ = ``basis`` (d, k) y, columns orthonormal."""


@dataclass(frozen=True, eq=False)
class General:
    """``hessians`` H_i (n, d, d), symmetric. Raises ValueError for other shapes, numbers not finite, or H_i that are not symmetric."""

    hessians: FloatArray

    def __post_init__(self) -> None:
        h = self.hessians
        if h.ndim != 3 or h.shape[1] != h.shape[2] or not h.size:
            raise ValueError(f"Hessians need the shape (n, d, d), got {h.shape}")
        if not np.isfinite(h).all():
            raise ValueError("Hessians must be finite")
        if np.max(np.abs(h - np.swapaxes(h, 1, 2))) > 1e-10 * np.max(np.abs(h)):
            raise ValueError("Hessians must be symmetric")

    @property
    def samples(self) -> int:
        """n."""
        return len(self.hessians)

    @cached_property
    def hessian(self) -> FloatArray:
        """H = (1/n) Σ H_i, (d, d)."""
        return np.asarray(np.mean(self.hessians, axis=0))

    def sandwich(self, moment: FloatArray) -> FloatArray:
        """(1/n) Σ H_i M H_i."""
        return np.asarray(np.mean(self.hessians @ moment @ self.hessians, axis=0))

    def rotated(self, basis: FloatArray) -> "General":
        """In the coordinates of ``basis``."""
        return General(basis.T @ self.hessians @ basis)


@dataclass(frozen=True, eq=False)
class RankOne:
    """H_i = g_ig_iᵀ with ``gradients`` g_i (n, d): squared errors at a point that fits every sample."""

    gradients: FloatArray

    @property
    def samples(self) -> int:
        """n."""
        return len(self.gradients)

    @cached_property
    def hessian(self) -> FloatArray:
        """H = (1/n) Σ g_ig_iᵀ, (d, d)."""
        return self.gradients.T @ self.gradients / self.samples

    def sandwich(self, moment: FloatArray) -> FloatArray:
        """(1/n) Σ (g_iᵀMg_i) g_ig_iᵀ."""
        g = self.gradients
        squares = np.sum((g @ moment) * g, axis=1)
        return np.asarray((g * (squares / self.samples)[:, None]).T @ g)

    def rotated(self, basis: FloatArray) -> "RankOne":
        """In the coordinates of ``basis``."""
        return RankOne(self.gradients @ basis)


def moment_step(functions: Quadratics, moment: FloatArray, rate: float, batch: Batch) -> FloatArray:
    """E θθᵀ after a step from ``moment`` E θθᵀ, (d, d)."""
    h = functions.hessian
    kept = np.eye(len(h)) - rate * h
    return np.asarray(kept @ moment @ kept + rate**2 * batch.factor * (functions.sandwich(moment) - h @ moment @ h))


def mean_square_rate(functions: Quadratics, rate: float, batch: Batch) -> float:
    """r, by which E|θ|² grows a step in the end: by a dense eigenvalue problem for small d, else by the Lanczos method.

    Raises StepFailed if that does not converge.
    """
    return _largest(lambda moment: moment_step(functions, moment, rate, batch), len(functions.hessian))


def one_step_rate(functions: Quadratics, rate: float, batch: Batch) -> float:
    """λ_max((I − ηH)² + η² c Σ), the most by which E|θ|² can grow in one step; never less than r."""
    return float(np.linalg.eigvalsh(moment_step(functions, np.eye(len(functions.hessian)), rate, batch))[-1])


def sharpness(functions: Quadratics) -> float:
    """a = λ_max(H)."""
    return float(np.linalg.eigvalsh(functions.hessian)[-1])


def nonuniformity(functions: Quadratics) -> float:
    """s = λ_max(Σ)^½."""
    h = functions.hessian
    return math.sqrt(max(float(np.linalg.eigvalsh(functions.sandwich(np.eye(len(h))) - h @ h)[-1]), 0.0))


def critical_rate(functions: Quadratics, batch: Batch) -> float:
    """The largest η with r ≤ 1: 1/μ with μ the largest eigenvalue of K M = μ(HM + MH), K(M) = HMH + c((1/n) Σ H_i M H_i − HMH).

    r is convex in η and 1 at 0, so all smaller ones are stable too. On the range of H, outside which nothing moves; infinite for H = 0.
    Raises ValueError for an H that is not positive semi-definite.
    """
    values, vectors = np.linalg.eigh(functions.hessian)
    if values[0] < -1e-9 * max(abs(values[-1]), abs(values[0])):
        raise ValueError(f"the Hessian must be positive semi-definite, got an eigenvalue {values[0]:g}")
    kept = values > _RANK * values[-1]
    if not (values[-1] > 0.0 and kept.any()):
        return math.inf
    turned, h, c = functions.rotated(vectors[:, kept]), values[kept], batch.factor
    root = (h[:, None] + h[None, :]) ** -0.5

    def scaled(moment: FloatArray) -> FloatArray:
        inner = root * moment
        return np.asarray(root * ((1.0 - c) * h[:, None] * inner * h[None, :] + c * turned.sandwich(inner)))

    return 1.0 / _largest(scaled, len(h))


def on_range(functions: Quadratics) -> Quadratics:
    """The same functions on the range of H alone, outside which nothing moves and every r would be at least 1."""
    values, vectors = np.linalg.eigh(functions.hessian)
    kept = values > _RANK * values[-1]
    return functions.rotated(vectors[:, kept]) if kept.any() and not kept.all() else functions


def moment_matrix(step: Callable[[FloatArray], FloatArray], dimension: int) -> FloatArray:
    """A linear map of symmetric matrices (d, d) in an orthonormal basis of these, (d(d + 1)/2, d(d + 1)/2)."""
    rows, columns = np.triu_indices(dimension)
    weight = np.where(rows == columns, 1.0, math.sqrt(2.0))
    made = np.empty((len(rows), len(rows)))
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        unit = np.zeros((dimension, dimension))
        unit[i, j] = unit[j, i] = 1.0 if i == j else math.sqrt(0.5)
        made[:, k] = step(unit)[rows, columns] * weight
    return made


def _largest(step: Callable[[FloatArray], FloatArray], dimension: int) -> float:
    """The largest eigenvalue of a self-adjoint map that keeps matrices positive semi-definite: its eigenvector is such a matrix, so that
    the identity, from which the Lanczos method starts, is not orthogonal to it."""
    if dimension * (dimension + 1) // 2 <= _SMALL:
        matrix = moment_matrix(step, dimension)
        return float(np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[-1])
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    def apply(vector: FloatArray) -> FloatArray:
        return np.ravel(step(vector.reshape(dimension, dimension)))

    size = dimension * dimension
    start = np.ravel(np.eye(dimension))
    try:
        found = eigsh(LinearOperator((size, size), apply, dtype=float), 1, which="LA", v0=start, tol=1e-12, return_eigenvectors=False)
    except ArpackError as error:
        raise StepFailed(Status.NOT_CONVERGED, f"the second moment's spectral radius in {dimension} dimensions: {error}") from error
    return float(found[0])


# Where the one-step conditions say too much.


@dataclass(frozen=True, eq=False)
class Example:
    """Functions that are stable in mean square against a condition on one step: what they show, η, the batch, and r in closed form."""

    name: str
    words: str
    functions: General
    rate: float
    batch: Batch
    exact: float


def pair_example() -> Example:
    """H_i = I + μu_iu_iᵀ with two unit vectors u_1·u_2 = ½, μ = 1.2, η = 1, B = 1: steps −μu_iu_iᵀ give r = ½μ²(1 + ¼) = 0.9, although
    E|θ|² can grow by ½μ²(1 + ½) = 1.08 in one step."""
    size, half = 1.2, math.pi / 6.0
    units = np.array([[math.cos(half), math.sin(half)], [math.cos(half), -math.sin(half)]])
    hessians = np.eye(2) + size * units[:, :, None] * units[:, None, :]
    words = "λ_max((I − ηH)² + η²cΣ) > 1, yet stable"
    return Example("pair", words, General(hessians), 1.0, Batch(1, 2), 0.625 * size**2)


def star_example(arms: int = 9) -> Example:
    """H = κ(I ± (e_0e_kᵀ + e_ke_0ᵀ)), k = 1 … K, κ = 1.2, η = 1, B = 1: s = κ > 1, while r = (1 − κ)² + κ²/√K = 0.52 for K = 9, since what
    grows along e_0 is spread over K directions."""
    size = 1.2
    links = np.zeros((arms, arms + 1, arms + 1))
    for k in range(arms):
        links[k, 0, k + 1] = links[k, k + 1, 0] = 1.0
    hessians = size * (np.eye(arms + 1) + np.concatenate([links, -links]))
    words = "s > (1/η)(B(n − 1)/(n − B))^½, yet stable"
    return Example("star", words, General(hessians), 1.0, Batch(1, 2 * arms), (1.0 - size) ** 2 + size**2 / math.sqrt(arms))


def norms_of_runs(
    functions: General, start: FloatArray, rate: float, batch: Batch, steps: int, runs: int, generator: np.random.Generator
) -> FloatArray:
    """|θ|² after 0 … ``steps`` steps of SGD from ``start`` (d,), as (steps + 1, runs)."""
    theta = np.tile(start, (runs, 1))
    found = [np.sum(theta**2, axis=1)]
    for _ in range(steps):
        pull = np.zeros_like(theta)
        for chosen in batch.draw(generator, runs).T:
            pull += np.einsum("rij,rj->ri", functions.hessians[chosen], theta)
        theta = theta - rate / batch.size * pull
        found.append(np.sum(theta**2, axis=1))
    return np.array(found)
