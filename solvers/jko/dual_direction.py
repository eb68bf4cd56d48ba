"""Directions of ascent for dual potentials: H¹ gradients by cosine transforms, and Newton's by conjugate gradients."""

import numpy as np
from scipy.fft import dctn, idctn

from mfpde.arrays import FloatArray
from mfpde.solvers.kernels.pushforward import apply_stiffness, fill_stiffness, inner

_FLOOR, _SLOPE_FLOOR = 1e-3, 1e-4
_SATURATED = 1e-4
"""Slopes are at least this part of those of the slowest mode of τρΔ, where none answers to the pressure."""


class DirectionFinder:
    """Solves with θ₁ − θ₂Δ, and with the linearised residual, on one grid of (n1, n2) cells of widths ``spacing``."""

    def __init__(self, shape: tuple[int, int], spacing: tuple[float, float], tau: float) -> None:
        self.tau, self.spacing = tau, spacing
        first, second = (2.0 - 2.0 * np.cos(np.pi * np.arange(n) / n) for n in shape)
        self.laplacian = first[:, None] / spacing[0] ** 2 + second / spacing[1] ** 2
        self._products = np.empty(shape[0])
        self._one, self._two, self._image = (np.empty(shape) for _ in range(3))

    def gradient(self, residual: FloatArray, theta_1: float, theta_2: float) -> FloatArray:
        """(θ₁ − θ₂Δ)⁻¹ residual with no flux at walls, the gradient in the norm ∫θ₁v² + θ₂|∇v|² [Jacobs–Lee–Léger 2021, §3.3]."""
        spectrum = dctn(residual, type=2)
        np.multiply(self.laplacian, theta_2, out=self._image)
        np.add(self._image, theta_1, out=self._image)
        np.divide(spectrum, self._image, out=spectrum)
        return np.asarray(idctn(spectrum, type=2, overwrite_x=True))

    def newton(
        self,
        phi: FloatArray,
        residual: FloatArray,
        rho: FloatArray,
        slope: FloatArray,
        tapered: bool,
        most: int = 30,
        tolerance: float = 0.01,
    ) -> FloatArray:
        """An approximate solution v of slope · v − τ∇·(S^*μ (DS)⁻¹∇v) = residual, mixed derivatives left out.

        Conjugate gradients stop at ``most`` iterations or at ``tolerance`` relative to the start in the preconditioner's norm. That is
        the H¹ solve above, or ``tapered`` as s(1/κ − τΔ)s with s² between ρ and κ · slope where densities have tails.
        """
        pulled = rho - residual
        fill_stiffness(phi, pulled, self.tau / self.spacing[0] ** 2, self.tau / self.spacing[1] ** 2, self._one, self._two)
        self._one += _FLOOR * np.max(self._one)
        self._two += _FLOOR * np.max(self._two)
        extent = max(n * h for n, h in zip(slope.shape, self.spacing, strict=True))
        least = _SATURATED * self.tau * float(np.max(rho)) / extent**2
        curvature = np.maximum(slope, max(_SLOPE_FLOOR * float(np.max(slope)), least))
        mean = float(np.sum(rho * curvature) / np.sum(rho))
        taper = None
        if tapered:
            kappa = float(np.sum(rho * rho) / np.sum(rho * curvature))
            taper = 1.0 / np.sqrt(0.5 * (np.maximum(pulled, 0.0) + _FLOOR * np.max(pulled) + kappa * curvature))
            mean = 1.0 / kappa
        theta_2 = self.tau * (1.0 if tapered else float(np.max(rho)))
        return self._solve(residual, curvature, mean, theta_2, taper, most, tolerance)

    def _solve(
        self, right: FloatArray, slope: FloatArray, theta_1: float, theta_2: float, taper: FloatArray | None, most: int, tolerance: float
    ) -> FloatArray:
        left, found = np.array(right), np.zeros_like(right)
        image = np.empty_like(right)
        better = self._precondition(left, theta_1, theta_2, taper)
        ahead, size = np.array(better), inner(left, better, self._products)
        enough = tolerance**2 * size
        for _ in range(most):
            apply_stiffness(ahead, slope, self._one, self._two, image, self._products)
            share = size / float(np.sum(self._products))
            found += share * ahead
            left -= share * image
            better = self._precondition(left, theta_1, theta_2, taper)
            last, size = size, inner(left, better, self._products)
            if not size > enough:
                break
            ahead *= size / last
            ahead += better
        return found

    def _precondition(self, left: FloatArray, theta_1: float, theta_2: float, taper: FloatArray | None) -> FloatArray:
        if taper is None:
            return self.gradient(left, theta_1, theta_2)
        return taper * self.gradient(taper * left, theta_1, theta_2)
