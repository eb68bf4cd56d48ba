"""Exponential interactions in one dimension by a recursion along the axis, O(size)."""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import kernel
from mfpde.energy.pair_kernel import Exponential


@kernel
def add_exponential(rho: FloatArray, decay: float, far: float, near: float, out: FloatArray) -> None:
    """Add near ρ_i + far Σ_{j≠i} decay^{|i−j|} ρ_j. Sums that have decayed beyond all digits are cut off: they would slow down as
    subnormal numbers."""
    sum_before = 0.0
    for i in range(rho.size):
        out[i] += far * sum_before + near * rho[i]
        sum_before = decay * (sum_before + rho[i])
        if abs(sum_before) < 1e-280:
            sum_before = 0.0
    sum_after = 0.0
    for i in range(rho.size - 1, -1, -1):
        out[i] += far * sum_after
        sum_after = decay * (sum_after + rho[i])
        if abs(sum_after) < 1e-280:
            sum_after = 0.0


class ExponentialRecursion:
    """Kρ for W(x) = constant + height e^{−|x|/length} averaged over cells of width h, with t = h/(2 length): e^{−k h/length} sinh(t)/t
    at k ≥ 1 cells and (1 − e^{−t})/t at none. Its sign is that of the height, as e^{−|x|} is positive definite."""

    factors: tuple[FloatArray, FloatArray] | None = None

    def __init__(self, form: Exponential, h: float) -> None:
        t = 0.5 * h / form.length
        self.convex = form.height > 0.0
        self._constant = form.constant * h
        self._decay = math.exp(-2.0 * t)
        self._far = form.height * h * math.sinh(t) / t if t < 300.0 else 0.0
        self._near = form.height * h * -math.expm1(-t) / t

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """(decay, far, near, constant): K_ij = far decay^{|i−j|} + constant, with near instead of far at i = j."""
        return self._decay, self._far, self._near, self._constant

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ."""
        add_exponential(rho, self._decay, self._far, self._near, out)
        if self._constant != 0.0:
            np.add(out, self._constant * float(np.sum(rho)), out=out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add −Kρ without the constant where the height is negative."""
        if not self.convex:
            add_exponential(rho, self._decay, -self._far, -self._near, out)
