"""Networks g(x) = Σ_j q_j relu(z_j·x) of isotropic inputs, with all expectations in closed form.

k(w, z) = E relu(w·x)relu(z·x) = m|w||z|(sin φ + (π − φ)cos φ)/2π for x with E xxᵀ = mI and an isotropic law, φ being the angle between
w and z [arc-cosine kernel of degree one, Cho–Saul 2009]: relu is homogeneous, so the radius of x only gives the factor E|x|²/d = m.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.gaussian_kernels import GaussianKernel

_SAME = 1e-7


@dataclass(frozen=True, eq=False)
class Network:
    """g = Σ_j q_j relu(z_j·x) with ``vectors`` z_j (J, d) and ``coefficients`` q_j (J,); ``moment`` is m = E x_1².

    Raises ValueError for shapes that differ and a vector 0.
    """

    vectors: FloatArray
    coefficients: FloatArray
    moment: float = 1.0

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.coefficients.shape != (len(self.vectors),):
            raise ValueError(f"a network needs vectors (J, d) and coefficients (J,), got {self.vectors.shape}, {self.coefficients.shape}")
        if not np.all(self.lengths > 0.0):
            raise ValueError("a neuron must not be the vector 0")

    @cached_property
    def lengths(self) -> FloatArray:
        """|z_j|, (J,)."""
        return np.asarray(np.linalg.norm(self.vectors, axis=1))

    @property
    def kernel(self) -> GaussianKernel:
        """k."""
        return GaussianKernel("relu", math.sqrt(self.moment))

    @property
    def masses(self) -> FloatArray:
        """q_j|z_j|, the weights of the measure on the unit sphere, (J,)."""
        return self.coefficients * self.lengths

    @property
    def directions(self) -> FloatArray:
        """z_j/|z_j|, (J, d)."""
        return np.asarray(self.vectors / self.lengths[:, None])

    def minus(self, other: "Network") -> "Network":
        """The difference of two networks."""
        vectors = np.concatenate([self.vectors, other.vectors])
        return Network(vectors, np.concatenate([self.coefficients, -other.coefficients]), self.moment)

    def square(self) -> float:
        """E g²; round-off is some 1e-16 of the squares of the parts."""
        return max(0.0, float(self.coefficients @ self.correlation(self.vectors)))

    def correlation(self, at: FloatArray) -> FloatArray:
        """E g relu(w·x) at w (M, d), (M,)."""
        return self.kernel.sums(at, self.vectors, self.coefficients) if len(at) else np.zeros(0)

    def correlation_and_slope(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The same with its gradient along w, (M,) and (M, d)."""
        values, slopes = self.kernel.sums_and_slopes(at, self.vectors, self.coefficients[:, None])
        return values[:, 0], slopes

    def curvature(self, at: FloatArray) -> FloatArray:
        """∇²_w E g relu(w·x) at w (M, d), (M, d, d): ∇²k = m(|z|/|w|) sin φ (eeᵀ + I − ŵŵᵀ)/2π, e the unit vector from ŵ towards ẑ."""
        size = np.linalg.norm(at, axis=1)
        unit, dimension = at / size[:, None], at.shape[1]
        cos = np.clip(unit @ self.directions.T, -1.0, 1.0)
        sin = np.sqrt((1.0 - cos) * (1.0 + cos))
        across = self.directions[None] - cos[:, :, None] * unit[:, None]
        factor = self.moment / (2.0 * math.pi) * self.masses / size[:, None]
        over = np.divide(factor, sin, out=np.zeros_like(sin), where=sin > 0.0)
        flat = np.eye(dimension) - unit[:, :, None] * unit[:, None, :]
        return np.asarray(np.einsum("mj,mja,mjb->mab", over, across, across) + np.sum(factor * sin, axis=1)[:, None, None] * flat)


def mixed_slopes(one: FloatArray, two: FloatArray, moment: float) -> FloatArray:
    """E 1(v·x > 0) 1(w·x > 0) xxᵀ for v (M, d) and w (N, d), (M, N, d, d): ∇_v∇_w k.

    It is m/2π ((π − φ)I + (v̂qᵀ + ŵpᵀ)/sin φ) with p = v̂ − cos φ ŵ and q = ŵ − cos φ v̂; the bracket tends to 0 where φ does.
    """
    v, w = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (one, two))
    cos = np.clip(v @ w.T, -1.0, 1.0)
    sin = np.sqrt((1.0 - cos) * (1.0 + cos))
    v, w = (np.broadcast_to(a, (*cos.shape, v.shape[1])) for a in (v[:, None], w[None]))
    p, q = v - cos[..., None] * w, w - cos[..., None] * v
    over = np.divide(1.0, sin, out=np.zeros_like(sin), where=sin > _SAME)
    products = v[..., :, None] * q[..., None, :] + w[..., :, None] * p[..., None, :]
    angle = math.pi - np.arctan2(sin, cos)
    return np.asarray(moment / (2.0 * math.pi) * (angle[..., None, None] * np.eye(v.shape[-1]) + products * over[..., None, None]))
