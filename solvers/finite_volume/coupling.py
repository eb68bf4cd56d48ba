"""How implicit steps treat energies that couple distant cells: directly through low-rank factors, else by Krylov iterations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.solvers.finite_volume.model import Model, Parts
from mfpde.solvers.finite_volume.sweep import Coupling, Sweep
from mfpde.solvers.kernels.implicit import weighted_divergence_many
from mfpde.solvers.kernels.krylov import combine_basis, extend

_KRYLOV_TOLERANCE = 1e-4
_KRYLOV_STEPS = 60


@dataclass(frozen=True, eq=False)
class Factors:
    """Kρ = Fᵀ(s ∘ F(volume ∘ ρ)): F as rows (r, size) and columns (size, r), F with the volumes, and the signs s (r,)."""

    rows: FloatArray
    columns: FloatArray
    weighted: FloatArray
    signs: FloatArray

    @staticmethod
    def of(model: Model, parts: Parts) -> "Factors | None":
        """The factors of all quadratic energies together, where mass moves on a single line and all have some."""
        single = len(model.lines) == 1 and model.lines[0].shape[0] == model.lines[0].shape[2] == 1
        found = parts.factors if single else None
        if found is None:
            return None
        rows, signs = found
        return Factors(rows, np.ascontiguousarray(rows.T), rows * model.weight, signs)


class FactorCoupling:
    """Kρ = Fᵀ(s ∘ F(volume ∘ ρ)) on a single line: the Newton matrix is banded plus rank r, solved by Woodbury's identity.

    With ``start`` (size,), the negative part of K acts on the mean of start and end, as the dissipation of energy needs it
    [Bailo–Carrillo–Hu 2020].
    """

    def __init__(self, factors: Factors, start: FloatArray | None) -> None:
        self.factors, self.weighted, signs = factors, factors.weighted, factors.signs
        self.signs = signs if start is None else np.where(signs > 0.0, signs, 0.5 * signs)
        self._shift = np.zeros(len(signs)) if start is None else (signs - self.signs) * (self.weighted @ start)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> None:
        """Add Kρ."""
        xi += (self.signs * (self.weighted @ rho) + self._shift) @ self.factors.rows

    def correct(self, sweep: Sweep, update: FloatArray, dt: float) -> FloatArray:
        """The update with the rank-r part of the Jacobian."""
        columns = sweep.solve_linearised_many(_pushed(sweep, self.factors.columns, dt))
        core = np.diag(1.0 / self.signs) + self.weighted @ columns
        return np.asarray(update - columns @ np.linalg.solve(core, self.weighted @ update))


class OperatorCoupling:
    """Any K by its products: GMRES on the Newton system, preconditioned by its banded part."""

    def __init__(self, parts: Parts, start: FloatArray | None) -> None:
        self.parts, self.start = parts, start

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> None:
        """Add Kρ, with the negative part on the mean of start and end where ``start`` is given."""
        self.parts.apply(rho, xi)
        if self.start is not None and not self.parts.convex:
            half = np.zeros_like(xi)
            self.parts.apply_concave(rho - self.start, half)
            xi += 0.5 * half

    def correct(self, sweep: Sweep, update: FloatArray, dt: float) -> FloatArray:
        """The update with all of the Jacobian, to a relative residual of 1e-4: Newton's method repeats what is left."""

        def product(values: FloatArray) -> FloatArray:
            eta = np.zeros_like(update)
            self.parts.apply(values, eta)
            if self.start is not None and not self.parts.convex:
                half = np.zeros_like(update)
                self.parts.apply_concave(values, half)
                eta += 0.5 * half
            return values + sweep.solve_linearised(sweep.push(eta, dt))

        return solve_krylov(product, update)


class CurvedCoupling:
    """Energies that are no quadratic forms, with those that are: Newton–Krylov, by the products of their derivatives at each iterate.

    Steps are fully implicit; that they do not raise the energy is for the caller to see, since nothing is known of its convexity.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._rho: FloatArray | None = None

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> None:
        """Add Kρ and the first variations of the curved energies."""
        self.parts.apply(rho, xi)
        for term in self.parts.curved:
            term.add_drift(rho, xi)
        self._rho = rho.copy()

    def correct(self, sweep: Sweep, update: FloatArray, dt: float) -> FloatArray:
        """The update with all of the Jacobian, as that of ``OperatorCoupling``."""
        assert self._rho is not None
        rho = self._rho

        def product(values: FloatArray) -> FloatArray:
            eta = np.zeros_like(update)
            self.parts.apply(values, eta)
            for term in self.parts.curved:
                term.add_curvature(rho, values, eta)
            return values + sweep.solve_linearised(sweep.push(eta, dt))

        return solve_krylov(product, update)


def solve_krylov(product: Callable[[FloatArray], FloatArray], right: FloatArray, tolerance: float = _KRYLOV_TOLERANCE) -> FloatArray:
    """x with product(x) = right to a relative residual of ``tolerance``, or as near as 60 steps of GMRES come.

    A handful of products is the rule here, for which scipy's general routine takes longer than the products themselves.
    """
    size = float(np.linalg.norm(right))
    if not (size > 0.0 and np.isfinite(size)):
        return right.copy()
    most = min(_KRYLOV_STEPS, right.size)
    basis, triangle, turns, goal = np.empty((most + 1, right.size)), np.zeros((most + 1, most)), np.zeros((most, 2)), np.zeros(most + 1)
    np.divide(right, size, out=basis[0])
    goal[0] = size
    for step in range(most):
        basis[step + 1] = product(basis[step])
        if not extend(basis, step, triangle, turns, goal) > tolerance * size:
            break
    found = np.empty_like(right)
    combine_basis(basis, step + 1, triangle, goal, found)
    return found


def couple(parts: Parts, factors: Factors | None, start: FloatArray | None) -> Coupling | None:
    """The cheaper way for these parts; None where nothing is coupled."""
    if parts.curved:
        return CurvedCoupling(parts)
    if not parts.quadratics:
        return None
    if factors is not None:
        return FactorCoupling(factors, start)
    return OperatorCoupling(parts, start)


def _pushed(sweep: Sweep, columns: FloatArray, dt: float) -> FloatArray:
    """∂R/∂ξ applied to each of the columns (size, r) of a single line."""
    metric, out = sweep.lines.metric, np.empty_like(columns)
    factor = dt / (metric.volume * metric.scale[0])
    weighted_divergence_many(np.ravel(sweep.buffers.mobility), columns, factor, sweep.lines.periodic, out)
    return out
