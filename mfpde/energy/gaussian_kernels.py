"""Kernels k(θ, θ') = E σ(x·θ)σ(x·θ') in closed form for normal inputs x in any dimension, and features of them.

z = x·θ and z' = x·θ' are jointly normal with variances v, v', covariance c and, if the last input is the constant 1, means b, b'. ReLU is
the arc-cosine kernel of degree one [Cho–Saul 2009], erf the arcsine kernel [Williams 1997]; the others are Gaussian integrals.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.energy.features import Parameters

_BLOCK = 1 << 18
_LEAST = 1e-14
_DEFAULT = 1e-13
_ALLOWED = 10.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Covariances c (N, M), variances v (N, 1) and w (1, M), means b (N, 1) and e (1, M) of the z of N neurons and of M others; or columns
    (N, 1) of N pairs."""

    c: FloatArray
    v: FloatArray
    w: FloatArray
    b: FloatArray
    e: FloatArray


Slopes = tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None]
"""k and its derivatives along c, v (None: 0) and b (None: 0), (N, M) each."""


def _identity(z: Pairs) -> Slopes:
    return z.c + z.b * z.e, np.ones_like(z.c), None, np.broadcast_to(z.e, z.c.shape)


def _quadratic(z: Pairs) -> Slopes:
    second = z.w + z.e**2
    value = (z.v + z.b**2) * second + 2.0 * z.c**2 + 4.0 * z.c * z.b * z.e
    along = 2.0 * z.b * second + 4.0 * z.c * z.e
    return value, 4.0 * (z.c + z.b * z.e), np.broadcast_to(second, z.c.shape), along


def _cos(z: Pairs) -> Slopes:
    near, far = (0.5 * np.exp(-0.5 * (z.v + z.w) + sign * z.c) for sign in (1.0, -1.0))
    less, more = z.b - z.e, z.b + z.e
    one, two = near * np.cos(less), far * np.cos(more)
    return one + two, one - two, -0.5 * (one + two), -near * np.sin(less) - far * np.sin(more)


def _gaussian(z: Pairs) -> Slopes:
    one, two = 1.0 + z.v, 1.0 + z.w
    size = one * two - z.c**2
    form = (z.b**2 * two - 2.0 * z.c * z.b * z.e + z.e**2 * one) / size
    value = np.exp(-0.5 * form) / np.sqrt(size)
    along_v = -0.5 * value * (two * (1.0 - form) + z.e**2) / size
    return value, value * (z.c * (1.0 - form) + z.b * z.e) / size, along_v, -value * (z.b * two - z.c * z.e) / size


def _erf(z: Pairs) -> Slopes:
    one, two = 1.0 + 2.0 * z.v, 1.0 + 2.0 * z.w
    root = np.sqrt(one * two - 4.0 * z.c**2)
    value = 2.0 / math.pi * np.arctan2(2.0 * z.c, root)
    return value, 4.0 / (math.pi * root), -4.0 / math.pi * z.c / (one * root), None


def _relu(z: Pairs) -> Slopes:
    """Sine and angle come from one root, so that its round-off at small angles cancels in the value and along θ."""
    root = np.sqrt(np.maximum(z.v * z.w - z.c**2, 0.0))
    rest = np.where(z.v * z.w > 0.0, math.pi - np.arctan2(root, z.c), 0.0)
    along = np.divide(root, z.v, out=np.zeros_like(root), where=z.v > 0.0)
    return (root + rest * z.c) / (2.0 * math.pi), rest / (2.0 * math.pi), along / (4.0 * math.pi), None


_FORMULAS: dict[str, Callable[[Pairs], Slopes]] = {
    "relu": _relu,
    "erf": _erf,
    "gaussian": _gaussian,
    "quadratic": _quadratic,
    "cos": _cos,
    "identity": _identity,
}
_CENTRED = ("relu", "erf")
CLOSED = tuple(_FORMULAS)
"""The activations with a kernel in closed form."""


@dataclass(frozen=True, eq=False)
class GaussianKernel:
    """k of an ``activation`` for x = ``scale`` · N(0, I), with a last input 1 where there is a ``bias``. Vectors are (N, D) with D
    counting the bias. Raises ValueError where there is no closed form."""

    activation: str
    scale: float = 1.0
    bias: bool = False

    def __post_init__(self) -> None:
        if self.activation not in CLOSED:
            raise ValueError(f"the kernel has a closed form for {', '.join(CLOSED)}, not for {self.activation}")
        if self.bias and self.activation in _CENTRED:
            others = ", ".join(name for name in CLOSED if name not in _CENTRED)
            raise ValueError(f"with a bias the kernel has a closed form for {others}, not for {self.activation}")

    def matrix(self, one: FloatArray, two: FloatArray) -> FloatArray:
        """k of vectors (N, D) and (M, D), (N, M)."""
        return _FORMULAS[self.activation](self._pairs(one, two))[0]

    def diagonal(self, vectors: FloatArray) -> FloatArray:
        """k(θ, θ) of vectors (N, D), (N,)."""
        width = vectors.shape[1] - self.bias
        variances = self.scale**2 * np.sum(vectors[:, :width] ** 2, axis=1, keepdims=True)
        means = vectors[:, width:] if self.bias else np.zeros((len(vectors), 1))
        return np.asarray(_FORMULAS[self.activation](Pairs(variances, variances, variances, means, means))[0][:, 0])

    def sums(self, one: FloatArray, two: FloatArray, masses: FloatArray) -> FloatArray:
        """Σ_m k(θ_n, θ'_m) masses_m of vectors (N, D) and (M, D) with masses (M,) or (M, K), (N,) or (N, K)."""
        return np.concatenate([self.matrix(one[part], two) @ masses for part in _blocks(len(one), len(two))])

    def sums_and_slopes(
        self, one: FloatArray, two: FloatArray, masses: FloatArray, weights: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """``sums`` for masses (M, K), as (N, K), and Σ_m C_nm ∇k(θ_n, θ'_m) with C = ``weights`` (N, K) · massesᵀ, (N, D)."""
        sums, slopes = np.empty((len(one), masses.shape[1])), np.empty(one.shape)
        for part in _blocks(len(one), len(two)):
            pairs = self._pairs(one[part], two)
            value, along_c, along_v, along_b = _FORMULAS[self.activation](pairs)
            sums[part] = value @ masses
            shares = np.broadcast_to(masses[:, 0], value.shape) if weights is None else weights[part] @ masses.T
            slopes[part] = self._pulled(one[part], two, shares, (along_c, along_v, along_b))
        return sums, slopes

    def _pulled(
        self, one: FloatArray, two: FloatArray, shares: FloatArray, along: tuple[FloatArray, FloatArray | None, FloatArray | None]
    ) -> FloatArray:
        """From derivatives along c, v and b to those along θ."""
        found, width, square = np.zeros(one.shape), one.shape[1] - self.bias, self.scale**2
        found[:, :width] = square * (shares * along[0]) @ two[:, :width]
        if along[1] is not None:
            found[:, :width] += 2.0 * square * one[:, :width] * np.sum(shares * along[1], axis=1)[:, None]
        if self.bias and along[2] is not None:
            found[:, width] = np.sum(shares * along[2], axis=1)
        return found

    def _pairs(self, one: FloatArray, two: FloatArray) -> Pairs:
        width, square = one.shape[1] - self.bias, self.scale**2
        a, b = one[:, :width], two[:, :width]
        means = (one[:, width:], two[:, width:]) if self.bias else (np.zeros((len(one), 1)), np.zeros((len(two), 1)))
        variances = [square * np.sum(side * side, axis=1) for side in (a, b)]
        return Pairs(square * (a @ b.T), variances[0][:, None], variances[1][None], means[0], means[1].T)


def _blocks(count: int, others: int) -> list[slice]:
    """Rows of an array of all pairs that are taken together."""
    step = max(1, _BLOCK // max(others, 1))
    return [slice(k, k + step) for k in range(0, count, step)]


@dataclass(frozen=True, eq=False)
class KernelFeatures:
    """Φ(θ) = L⁻¹ k(Z, θ), LLᵀ = k(Z, Z): the projection on the span of the neurons Z = ``chosen`` (r, D), so that Φ·Φ' falls short of
    k by at most the ``tolerance`` of ``of``; ``factor`` is L (r, r)."""

    kernel: GaussianKernel
    parameters: Parameters
    chosen: FloatArray
    factor: FloatArray
    description: str

    @staticmethod
    def of(
        kernel: GaussianKernel, parameters: Parameters, points: FloatArray, tolerance: float | None, most: int
    ) -> "KernelFeatures | None":
        """By pivoted Cholesky at ``points`` (M, d) until k(θ, θ) − |Φ(θ)|² is below ``tolerance``² (default 1e-13) of the largest k;
        None where that takes more than ``most`` features."""
        wanted = _DEFAULT if tolerance is None else max(tolerance**2, _LEAST)
        vectors = parameters.vectors(points)
        pivots, rows = _pivoted(kernel, vectors, wanted, most)
        if rows is None:
            return None
        described = f"closed form of the {kernel.activation} kernel for normal inputs, rank {len(pivots)} (error {wanted:.0e})"
        return KernelFeatures(kernel, parameters, vectors[pivots], rows[pivots], described)

    @property
    def rank(self) -> int:
        """Number of features r."""
        return len(self.chosen)

    def shortfall(self, points: FloatArray) -> float:
        """The largest k(θ, θ) − |Φ(θ)|² at points (N, d), relative to the largest k."""
        whole = self.kernel.diagonal(self.parameters.vectors(points))
        return float(np.max(whole - np.sum(self.evaluate(points) ** 2, axis=0)) / np.max(whole))

    def accurate(self, points: FloatArray, tolerance: float | None) -> bool:
        """Whether other ``points`` (N, d) are met nearly as well as those that the neurons were chosen from."""
        return self.shortfall(points) <= _ALLOWED * (_DEFAULT if tolerance is None else max(tolerance**2, _LEAST))

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (r, N)."""
        return self.of_vectors(self.parameters.vectors(points))

    def of_vectors(self, vectors: FloatArray) -> FloatArray:
        """Φ of neurons (N, D), as (r, N)."""
        return self._solved(self.kernel.matrix(self.chosen, vectors))

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (r,)."""
        total, vectors = np.zeros(self.rank), self.parameters.vectors(points)
        for part in _blocks(len(points), self.rank):
            total += self.kernel.matrix(self.chosen, vectors[part]) @ weights[part]
        return self._solved(total)

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,)."""
        return self.kernel.sums(self.parameters.vectors(points), self.chosen, self._masses(lam))

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d)."""
        return self.values_and_gradient(points, lam)[1]

    def values_and_gradient(self, points: FloatArray, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Both, (N,) and (N, d), with one evaluation of the kernel."""
        values, slopes = self.kernel.sums_and_slopes(self.parameters.vectors(points), self.chosen, self._masses(lam)[:, None])
        return values[:, 0], self.parameters.pull(points, slopes)

    def _masses(self, lam: FloatArray) -> FloatArray:
        """The neurons' shares in Φ·λ, (r,)."""
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self.factor, lam, lower=True, trans=1))

    def _solved(self, values: FloatArray) -> FloatArray:
        from scipy.linalg import solve_triangular

        if not np.isfinite(values).all():
            raise OverflowError("the kernel of the network overflows")
        return np.asarray(solve_triangular(self.factor, values, lower=True))


def _pivoted(kernel: GaussianKernel, vectors: FloatArray, tolerance: float, most: int) -> tuple[IntArray, FloatArray | None]:
    """The rows (r,) that are chosen of ``vectors`` (M, D), greedily where most of k(θ, θ) is left, and the factor (M, r) of k."""
    left = kernel.diagonal(vectors)
    end, rows = tolerance * float(np.max(left)), np.empty((len(vectors), min(most, len(vectors))))
    pivots: list[int] = []
    while float(np.max(left)) > end and len(pivots) < len(vectors):
        if len(pivots) == most:
            return np.array(pivots), None
        k, r = int(np.argmax(left)), len(pivots)
        column = kernel.matrix(vectors, vectors[k : k + 1])[:, 0] - rows[:, :r] @ rows[k, :r]
        rows[:, r] = column / math.sqrt(left[k])
        rows[pivots, r] = 0.0
        left = left - rows[:, r] ** 2
        pivots.append(k)
        left[pivots] = 0.0
    return np.array(pivots, dtype=np.int64), rows[:, : max(len(pivots), 1)]
