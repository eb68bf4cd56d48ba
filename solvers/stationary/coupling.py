"""The quadratic part ½⟨ρ, Kρ⟩ of an energy in coordinates: few moments of the density where K has a low rank, the density else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.base import GridQuadratic
from mfpde.solvers.stationary.local import Local, Response

_MOST_DENSE = 1500
_MOST_RANK = 300
_ROUND_OFF = 1e-14
_SINGULAR = 1e-9
_KRYLOV_STEPS = 400
_LANCZOS_STEPS = 200
_LANCZOS_CHECK = 10


class Coupling(Protocol):
    """K in the coordinates x of a density; φ = linear part + K x is the potential that a density of coordinates x makes."""

    @property
    def convex(self) -> bool:
        """Whether K is positive semidefinite on densities of given mass."""

    @property
    def description(self) -> str:
        """For people."""

    def moments(self, rho: FloatArray) -> FloatArray:
        """The coordinates of a density."""

    def potential(self, x: FloatArray) -> FloatArray:
        """K x, (size,)."""

    def product(self, x: FloatArray, y: FloatArray) -> float:
        """⟨x, K y⟩."""

    def length(self, x: FloatArray) -> float:
        """A norm of coordinates."""

    def newton(self, local: Local, response: Response, gap: FloatArray) -> FloatArray:
        """The δx that makes moments(ρ) − x vanish to first order, from ``gap`` = moments(ρ) − x."""

    def least(self, local: Local, response: Response) -> float:
        """Smallest eigenvalue of the second variation relative to its local part, on perturbations of mass 0; at most 1."""

    def convex_part(self) -> "Coupling":
        """K₊ of K = K₊ − K₋."""

    def concave(self, rho: FloatArray) -> FloatArray:
        """K₋ρ, (size,)."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """Kρ = Fᵀ(s ∘ F(volume ∘ ρ)) with rows F (r, size), signs s (r,) and cell volumes (size,); x = F(volume ∘ ρ)."""

    rows: FloatArray
    signs: FloatArray
    weight: FloatArray

    @property
    def convex(self) -> bool:
        """Whether no sign is negative."""
        return bool((self.signs > 0.0).all())

    @property
    def description(self) -> str:
        """For people."""
        if not len(self.rows):
            return "a formula of the potential, as nothing couples distant points"
        unknowns = "1 unknown, the moment of the density that couples distant points"
        if len(self.rows) > 1:
            unknowns = f"{len(self.rows)} unknowns, the moments of the density that couple distant points"
        return f"Newton's method in {unknowns}{_several(self.convex)}"

    def moments(self, rho: FloatArray) -> FloatArray:
        """F(volume ∘ ρ), (r,)."""
        return np.asarray(self.rows @ (self.weight * rho))

    def potential(self, x: FloatArray) -> FloatArray:
        """Fᵀ(s ∘ x), (size,)."""
        return np.asarray((self.signs * x) @ self.rows)

    def product(self, x: FloatArray, y: FloatArray) -> float:
        """x·(s ∘ y)."""
        return float(x @ (self.signs * y))

    def length(self, x: FloatArray) -> float:
        """|x|."""
        return float(np.linalg.norm(x))

    def _covariance(self, local: Local, response: Response) -> FloatArray:
        """F C Fᵀ, (r, r), where −C is the derivative of the density with respect to its potential."""
        share = local.weight * response.slope
        centred = local.centred(self.rows, share)
        return np.asarray((centred * share) @ centred.T)

    def newton(self, local: Local, response: Response, gap: FloatArray) -> FloatArray:
        """(I + F C Fᵀ S)⁻¹ gap; directions along which stationary states form a family are left alone."""
        matrix = np.eye(len(gap)) + self._covariance(local, response) * self.signs
        left, sizes, right = np.linalg.svd(matrix)
        kept = sizes > _SINGULAR * sizes[0]
        return np.asarray(right[kept].T @ ((left[:, kept].T @ gap) / sizes[kept]))

    def least(self, local: Local, response: Response) -> float:
        """From the spectrum of C^½ K C^½, which is that of an (r, r) matrix."""
        values, vectors = np.linalg.eigh(self._covariance(local, response))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return 1.0 + float(np.min(np.linalg.eigvalsh((root.T * self.signs) @ root), initial=0.0))

    def convex_part(self) -> "LowRank":
        """The rows with a positive sign."""
        kept = self.signs > 0.0
        return LowRank(np.ascontiguousarray(self.rows[kept]), self.signs[kept], self.weight)

    def concave(self, rho: FloatArray) -> FloatArray:
        """From the rows with a negative sign."""
        rows = self.rows[self.signs < 0.0]
        return np.asarray((rows @ (self.weight * rho)) @ rows)


def _several(convex: bool) -> str:
    """What to know of energies that may have several stationary states."""
    return "" if convex else "; there may be several states, so it begins from several densities (the key `starts`)"


Apply = Callable[[FloatArray, FloatArray], None]


@dataclass(frozen=True, eq=False)
class MatrixFree:
    """K through products only: functions that add Kρ and K₋ρ to an array; the coordinates are the density itself."""

    apply: Apply
    apply_concave: Apply
    convex: bool
    weight: FloatArray

    @property
    def description(self) -> str:
        """For people."""
        return f"Newton's method for the density in all cells{_several(self.convex)}"

    def moments(self, rho: FloatArray) -> FloatArray:
        """ρ itself."""
        return np.array(rho)

    def potential(self, x: FloatArray) -> FloatArray:
        """K x, (size,)."""
        return _applied(self.apply, x)

    def product(self, x: FloatArray, y: FloatArray) -> float:
        """∫x K y."""
        return float((self.weight * x) @ self.potential(y))

    def length(self, x: FloatArray) -> float:
        """(∫x²)^½."""
        return float(np.sqrt(self.weight @ x**2))

    def _symmetric(self, local: Local, response: Response) -> tuple[Callable[[FloatArray], FloatArray], FloatArray]:
        """The operator v ↦ Q D^½ K D^½ Q v, whose sum with I is the second variation relative to its local part, and D^½."""
        root = np.sqrt(local.weight * response.slope)
        back = np.sqrt(response.slope / local.weight)

        def operator(v: FloatArray) -> FloatArray:
            inner = _projected(local, np.ravel(v), root)
            return _projected(local, root * self.potential(back * inner), root)

        return operator, root

    def newton(self, local: Local, response: Response, gap: FloatArray) -> FloatArray:
        """gap − D^½ v with (I + Q D^½ K D^½ Q) v = Q D^½ K gap, by the minimal residual method."""
        from scipy.sparse.linalg import LinearOperator, minres

        operator, root = self._symmetric(local, response)
        shifted = LinearOperator((gap.size, gap.size), matvec=lambda v: np.ravel(v) + operator(v), dtype=float)
        right = _projected(local, root * self.potential(gap), root)
        if not right.any():
            return gap
        v, _ = minres(shifted, right, rtol=1e-10, maxiter=_KRYLOV_STEPS)
        return np.asarray(gap - np.sqrt(response.slope / local.weight) * _projected(local, v, root))

    def least(self, local: Local, response: Response) -> float:
        """By the Lanczos method."""
        operator, _ = self._symmetric(local, response)
        return 1.0 + min(_lanczos(operator, self.weight.size), 0.0)

    def convex_part(self) -> "MatrixFree":
        """K₊ = K + K₋."""

        def both(rho: FloatArray, out: FloatArray) -> None:
            self.apply(rho, out)
            self.apply_concave(rho, out)

        return MatrixFree(both, lambda rho, out: None, True, self.weight)

    def concave(self, rho: FloatArray) -> FloatArray:
        """K₋ρ, (size,)."""
        return _applied(self.apply_concave, rho)


def _applied(apply: Apply, rho: FloatArray) -> FloatArray:
    out = np.zeros_like(rho)
    apply(rho, out)
    return out


def _projected(local: Local, v: FloatArray, root: FloatArray) -> FloatArray:
    """v without its part along D^½1 in every slice, which changes the mass."""
    parts, roots = v[local.order], root[local.order]
    size = np.sum(roots**2, axis=1)
    size[size == 0.0] = 1.0
    result = np.empty_like(v)
    result[local.order] = parts - roots * (np.sum(parts * roots, axis=1) / size)[:, None]
    return result


def _lanczos(operator: Callable[[FloatArray], FloatArray], size: int) -> float:
    """Smallest eigenvalue of a symmetric operator, by Lanczos steps from a fixed vector with full orthogonalisation; less the bound of
    its error where the steps do not suffice, so that what is called stable is."""
    from scipy.linalg import eigh_tridiagonal

    v = np.random.default_rng(0).standard_normal(size)
    basis = [v / np.linalg.norm(v)]
    diagonal: list[float] = []
    beside: list[float] = []
    least = np.inf
    for step in range(1, min(size, _LANCZOS_STEPS) + 1):
        v = operator(basis[-1])
        diagonal.append(float(v @ basis[-1]))
        space = np.array(basis)
        for _ in range(2):
            v = v - space.T @ (space @ v)
        norm = float(np.linalg.norm(v))
        if step % _LANCZOS_CHECK == 0 or norm <= 1e-13 or step == min(size, _LANCZOS_STEPS):
            values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside), select="i", select_range=(0, 0))
            before, least = least, float(values[0])
            if norm <= 1e-13 or before - least <= 1e-12 * (1.0 + abs(least)):
                return least
        basis.append(v / norm)
        beside.append(norm)
    return least - norm * abs(float(vectors[-1, 0]))


def couple(terms: Sequence[GridQuadratic], local: Local) -> tuple[Coupling, FloatArray]:
    """The quadratic terms in coordinates, and the linear part (size,) that comes with them.

    Where their factors are given or found, they are centred: constants change a potential by constants only, so that the rest of
    them is a linear energy. What is left is brought to as few rows as there are, and may be convex where K is not.
    """
    weight = local.weight
    linear = np.asarray(sum((term.linear for term in terms), np.zeros(weight.size)))
    factors = _factors(terms, local)
    if factors is None:
        concave = [term.apply_concave for term in terms]
        return MatrixFree(_summed([t.apply for t in terms]), _summed(concave), all(t.convex for t in terms), weight), linear
    rows, signs = factors
    linear = linear + (signs * (rows @ (weight * local.uniform))) @ rows
    rows = local.centred(rows, weight)
    if (signs < 0.0).any():
        rows, signs = _reduced(rows, signs, weight)
    return LowRank(np.ascontiguousarray(rows), signs, weight), linear


def _summed(parts: Sequence[Apply]) -> Apply:
    def apply(rho: FloatArray, out: FloatArray) -> None:
        for part in parts:
            part(rho, out)

    return apply


def _factors(terms: Sequence[GridQuadratic], local: Local) -> tuple[FloatArray, FloatArray] | None:
    """Rows and signs of the sum: those that the terms give, or from the whole matrix where that is small and its rank is low."""
    given = [term.factors for term in terms]
    known = [pair for pair in given if pair is not None]
    rest = [term for term, pair in zip(terms, given, strict=True) if pair is None]
    size = local.weight.size
    if rest:
        if size > _MOST_DENSE:
            return None
        found = _dense_factors(_summed([term.apply for term in rest]), local)
        if found is None:
            return None
        known.append(found)
    if not known:
        return np.zeros((0, size)), np.zeros(0)
    return np.concatenate([rows for rows, _ in known]), np.concatenate([signs for _, signs in known])


def _dense_factors(apply: Apply, local: Local) -> tuple[FloatArray, FloatArray] | None:
    """Rows and signs of the whole symmetric matrix by its eigenvectors, None where there are too many."""
    root = np.sqrt(local.weight)
    columns = [_applied(apply, column) for column in np.diag(1.0 / root)]
    matrix = root[:, None] * np.stack(columns, axis=1)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    kept = np.abs(values) > _ROUND_OFF * np.max(np.abs(values), initial=0.0)
    if np.sum(kept) > _MOST_RANK:
        return None
    return (vectors[:, kept] * np.sqrt(np.abs(values[kept]))).T / root, np.sign(values[kept])


def _reduced(rows: FloatArray, signs: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The same K with orthogonal rows, without those of round-off."""
    root = np.sqrt(weight)
    basis, triangle = np.linalg.qr((rows * root).T)
    values, vectors = np.linalg.eigh((triangle * signs) @ triangle.T)
    kept = np.abs(values) > _ROUND_OFF * np.max(np.abs(values), initial=0.0)
    return (basis @ (vectors[:, kept] * np.sqrt(np.abs(values[kept])))).T / root, np.sign(values[kept])
