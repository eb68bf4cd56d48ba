"""Logarithmic kernels between cells of constant density on a line, in closed form: −c log|x − y| of a log gas, and its attractive sign.

With the jumps δ_k of the density at the levels x_k, integration by parts gives −½c∬log|x − y| dρdρ = ½c Σ_{kl} δ_k δ_l F(|x_k − x_l|),
F(z) = ½z² log z − ¾z², neighbours and a cell with itself included. The Hessian is full, so that a step costs O(n²) logarithms and a
Cholesky factorisation.
"""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.pair_kernel import PairKernel

MOST_CELLS = 2000
_NEAR, _EXACT = 2.0**-24, 1e-8


@dataclass(frozen=True)
class Logarithm:
    """W(x) = constant − ``strength`` log|x| + ½ ``stiffness`` x²."""

    strength: float
    constant: float
    stiffness: float

    @staticmethod
    def of(kernel: PairKernel) -> "Logarithm | None":
        """The kernel in this form, if it is one, on one axis with walls."""
        if kernel.domain.dimension != 1 or kernel.domain.periodic[0] or kernel.at_zero is not None:
            return None
        extent = float(kernel.extent[0])
        near = kernel.values(extent * _NEAR * np.array([[1.0], [0.5]]))
        strength = float(near[1] - near[0]) / math.log(2.0)
        x = extent * np.linspace(0.01, 1.0, 50)
        rest = kernel.values(x[:, None]) + strength * np.log(x)
        (stiffness, constant), *_ = np.linalg.lstsq(np.stack([0.5 * x**2, np.ones_like(x)], axis=1), rest, rcond=None)
        stiffness = 0.0 if abs(stiffness) * extent**2 <= _EXACT * abs(strength) else float(stiffness)
        off = rest - constant - 0.5 * stiffness * x**2
        constant = 0.0 if abs(constant) <= _EXACT * abs(strength) else float(constant)
        return Logarithm(strength, constant, stiffness) if np.max(np.abs(off)) <= _EXACT * np.ptp(rest + np.log(x)) else None

    def value(self, x: FloatArray, masses: FloatArray) -> float:
        """The energy at levels (n + 1,), for a mass of one; infinite where cells are not open."""
        return self.value_and_gradient(x, masses)[0] if float(np.min(np.diff(x))) > 0.0 else math.inf

    def value_and_gradient(self, x: FloatArray, masses: FloatArray) -> tuple[float, FloatArray]:
        """The energy at levels of open cells and its gradient, (n + 1,)."""
        widths = np.diff(x)
        density, (_, once, twice) = masses / widths, _antiderivatives(x)
        jumps = _jumps(density)
        potential = self.strength * (twice @ jumps)
        gradient = self.strength * jumps * (once @ jumps)
        pull = (potential[:-1] - potential[1:]) * density / widths
        gradient[:-1] += pull
        gradient[1:] -= pull
        square, slope = self._square(x, masses)
        return 0.5 * self.constant + 0.5 * float(jumps @ potential) + square, gradient + slope

    def _square(self, x: FloatArray, masses: FloatArray) -> tuple[float, FloatArray]:
        """¼ stiffness ∬|x − y|² = ½ stiffness · variance, and its gradient."""
        x = x - masses @ (x[1:] + x[:-1]) / 2.0
        a, b = x[:-1], x[1:]
        gradient = np.append(masses * (2.0 * a + b), 0.0) + np.append(0.0, masses * (a + 2.0 * b))
        return self.stiffness * float(masses @ (a * a + a * b + b * b)) / 6.0, self.stiffness / 6.0 * gradient

    def hessian(self, x: FloatArray, masses: FloatArray) -> FloatArray:
        """The Hessian, (n + 1, n + 1)."""
        widths = np.diff(x)
        density, (logs, once, twice) = masses / widths, _antiderivatives(x)
        jumps, slopes = _jumps(density), density / widths
        matrix = -jumps[:, None] * jumps * logs
        mixed = jumps[:, None] * once
        diagonal = np.arange(len(x))
        matrix[diagonal, diagonal] += jumps * (logs @ jumps)
        mixed[diagonal, diagonal] += once @ jumps
        turned = _chained(mixed, slopes)
        matrix += turned + turned.T + _chained(_chained(twice, slopes).T, slopes)
        potential = twice @ jumps
        bend = 2.0 * (potential[:-1] - potential[1:]) * slopes / widths
        inner = diagonal[:-1]
        matrix[inner, inner] += bend
        matrix[inner + 1, inner + 1] += bend
        matrix[inner, inner + 1] -= bend
        matrix[inner + 1, inner] -= bend
        matrix *= self.strength
        return np.asarray(matrix + self._bend(masses))

    def _bend(self, masses: FloatArray) -> FloatArray:
        """The Hessian of the square's part."""
        nodes = 0.5 * (np.append(masses, 0.0) + np.append(0.0, masses))
        around = np.append(masses, 0.0) + np.append(0.0, masses)
        matrix = (np.diag(2.0 * around) + np.diag(masses, 1) + np.diag(masses, -1)) / 6.0 - nodes[:, None] * nodes
        return np.asarray(self.stiffness * matrix)


def _jumps(density: FloatArray) -> FloatArray:
    """ρ above less ρ below every level, (n,) to (n + 1,)."""
    return np.asarray(np.append(density, 0.0) - np.append(0.0, density))


def _antiderivatives(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """log|z|, its antiderivative, odd, and that one's, at all differences z = x_k − x_l; 0 at 0. (n + 1, n + 1) each."""
    z = x[:, None] - x
    far = np.abs(z)
    np.fill_diagonal(far, 1.0)
    logs = np.log(far)
    return logs, z * (logs - 1.0), z * z * (0.5 * logs - 0.75)


def _chained(matrix: FloatArray, slopes: FloatArray) -> FloatArray:
    """The matrix times ∂δ/∂x, where a cell's density changes by ``slopes`` (n,) times the change of its lower level less that of its upper
    one."""
    each, result = (matrix[:, :-1] - matrix[:, 1:]) * slopes, np.zeros_like(matrix)
    result[:, :-1] += each
    result[:, 1:] -= each
    return result
