"""Exponential interactions in one dimension by a recursion along the axis or from atom to atom, O(size)."""

import math

import numpy as np

from mfpde.arrays import FloatArray, IntArray
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


@kernel
def decaying_sums(
    y: FloatArray,
    w: FloatArray,
    rate: float,
    t: FloatArray,
    start: IntArray,
    left: IntArray,
    right: IntArray,
    end: IntArray,
    before: FloatArray,
    after: FloatArray,
) -> None:
    """Σ w_j e^{−rate |t − y_j|} over [start, left) and over [right, end) for sorted targets t (M,) and sources y (K,). A window's sum is
    that of all sources on its side less that of those beyond it; both decay, and what is below 1e-280 is cut off."""
    count = y.size
    running = np.empty(count)
    total = 0.0
    for j in range(count):
        total = total * math.exp(-rate * (y[j] - y[j - 1])) + w[j] if j > 0 else w[j]
        total = total if abs(total) > 1e-280 else 0.0
        running[j] = total
    for i in range(t.size):
        total = running[left[i] - 1] * math.exp(-rate * (t[i] - y[left[i] - 1])) if left[i] > 0 else 0.0
        if start[i] > 0:
            total -= running[start[i] - 1] * math.exp(-rate * (t[i] - y[start[i] - 1]))
        before[i] = total
    total = 0.0
    for j in range(count - 1, -1, -1):
        total = total * math.exp(-rate * (y[j + 1] - y[j])) + w[j] if j < count - 1 else w[j]
        total = total if abs(total) > 1e-280 else 0.0
        running[j] = total
    for i in range(t.size):
        total = running[right[i]] * math.exp(-rate * (y[right[i]] - t[i])) if right[i] < count else 0.0
        if end[i] < count:
            total -= running[end[i]] * math.exp(-rate * (y[end[i]] - t[i]))
        after[i] = total


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
