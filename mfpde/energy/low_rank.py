"""Interactions of low rank: K = 1⊗g + g⊗1 + Σ s_k f_k⊗f_k with few functions f_k, found from the kernel.

The first two products act on the mean mode only: between densities of the same mass ⟨v, Kv⟩ is the sum over the f_k, whose signs
say what is convex. With W = −|x − y|²/2 that sum is |∫x dv|² although W itself is negative.
"""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.pair_kernel import Quadratic

_TOLERANCE = 1e-13
_ROUND_OFF = 1e-15
_BALANCE = 64.0


class LowRank:
    """Kρ = Fᵀ(s ∘ F(volume ∘ ρ)) with few rows; ``mean_part`` g (size,) and the rows f (r, size) with ``signs`` (r,) define K."""

    def __init__(self, mean_part: FloatArray, rows: FloatArray, signs: FloatArray, weight: float | FloatArray) -> None:
        order = np.argsort(-signs, kind="stable")
        coupling, coupling_signs = _coupling(mean_part)
        self.rows = np.ascontiguousarray(np.concatenate([coupling, rows[order]]))
        self.signs = np.concatenate([coupling_signs, signs[order]])
        self.weight, self.mean_part = weight, mean_part
        self.own_rows, self.own_signs = self.rows[len(coupling) :], self.signs[len(coupling) :]
        self._concave = self.rows[len(self.rows) - int(np.sum(signs < 0.0)) :]
        self._moments = np.empty(len(self.own_rows))
        self._mass, self._xi = np.empty(mean_part.size), np.empty(mean_part.size)

    @property
    def factors(self) -> tuple[FloatArray, FloatArray]:
        """Rows (r, size) and signs (r,); the first one or two may have a negative sign in a convex K, too: they see the mass only."""
        return self.rows, self.signs

    @property
    def convex(self) -> bool:
        """Whether no f_k has a negative sign."""
        return len(self._concave) == 0

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ, the mean part as it is: the two rows that stand for it in ``factors`` cancel each other."""
        np.multiply(rho, self.weight, out=self._mass)
        np.dot(self.own_rows, self._mass, out=self._moments)
        np.multiply(self._moments, self.own_signs, out=self._moments)
        np.dot(self._moments, self.own_rows, out=self._xi)
        np.add(out, self._xi, out=out)
        np.multiply(self.mean_part, float(np.sum(self._mass)), out=self._xi)
        np.add(self._xi, float(np.dot(self.mean_part, self._mass)), out=self._xi)
        np.add(out, self._xi, out=out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add the sum over the f_k with a negative sign."""
        if len(self._concave):
            np.multiply(rho, self.weight, out=self._mass)
            np.dot(self._concave @ self._mass, self._concave, out=self._xi)
            np.add(out, self._xi, out=out)


def _coupling(mean_part: FloatArray) -> tuple[FloatArray, FloatArray]:
    """1⊗g + g⊗1 as ½(a + g/a)⊗(a + g/a) − ½(a − g/a)⊗(a − g/a), or as one row where g is constant.

    a² is well above |g|, so that the second row hardly depends on the density when it is taken by itself, as in implicit steps.
    """
    largest, smallest = float(np.max(mean_part)), float(np.min(mean_part))
    size = max(abs(largest), abs(smallest))
    if size == 0.0:
        return np.zeros((0, mean_part.size)), np.zeros(0)
    if largest - smallest <= _ROUND_OFF * size:
        return np.full((1, mean_part.size), np.sqrt(2.0 * size)), np.array([np.sign(largest)])
    a = np.sqrt(_BALANCE * size)
    return np.sqrt(0.5) * np.stack([a + mean_part / a, a - mean_part / a]), np.array([1.0, -1.0])


def quadratic_form(quadratic: Quadratic, grid: Grid) -> LowRank:
    """a + ½(x − y)ᵀQ(x − y) on any grid, of rank d + 2 at most: the f_k are the coordinates along the eigenvectors of Q."""
    domain = grid.domain
    x = grid.centers - 0.5 * (domain.lower + domain.upper)
    values, vectors = np.linalg.eigh(quadratic.matrix)
    kept = np.abs(values) > _TOLERANCE * np.max(np.abs(values), initial=0.0)
    rows = np.sqrt(np.abs(values[kept]))[:, None] * (x @ vectors[:, kept]).T
    mean_part = 0.5 * quadratic.constant + 0.5 * np.sum((x @ quadratic.matrix) * x, axis=1)
    return LowRank(mean_part, rows, -np.sign(values[kept]), grid.weight)
