"""How implicit steps treat energies that couple distant cells: directly through low-rank factors, else by Krylov iterations."""

from collections.abc import Callable

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.solvers.finite_volume.model import Model, Parts
from mfpde.solvers.finite_volume.sweep import Coupling, Sweep
from mfpde.solvers.kernels.krylov import combine_basis, extend

_KRYLOV_TOLERANCE = 1e-4
_KRYLOV_STEPS = 60


class FactorCoupling:
    """Kρ = Fᵀ(s ∘ F(volume ∘ ρ)) on a single line: the Newton matrix is banded plus rank r, solved by Woodbury's identity.

    With ``start`` (size,), the negative part of K acts on the mean of start and end, as the dissipation of energy needs it
    [Bailo–Carrillo–Hu 2020].
    """

    def __init__(self, rows: FloatArray, signs: FloatArray, weight: FloatArray, start: FloatArray | None) -> None:
        self.rows, self.weighted = rows, rows * weight
        self.signs = signs if start is None else np.where(signs > 0.0, signs, 0.5 * signs)
        self._shift = np.zeros(len(signs)) if start is None else (signs - self.signs) * (self.weighted @ start)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> None:
        """Add Kρ."""
        xi += (self.signs * (self.weighted @ rho) + self._shift) @ self.rows

    def correct(self, sweep: Sweep, update: FloatArray, dt: float) -> FloatArray:
        """The update with the rank-r part of the Jacobian."""
        columns = sweep.solve_linearised_many(_pushed(sweep, self.rows, dt))
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


def solve_krylov(product: Callable[[FloatArray], FloatArray], right: FloatArray) -> FloatArray:
    """x with product(x) = right to a relative residual of 1e-4, or as near as 60 steps of GMRES come.

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
        if not extend(basis, step, triangle, turns, goal) > _KRYLOV_TOLERANCE * size:
            break
    found = np.empty_like(right)
    combine_basis(basis, step + 1, triangle, goal, found)
    return found


def couple(model: Model, parts: Parts, factors: tuple[FloatArray, FloatArray] | None, start: FloatArray | None) -> Coupling | None:
    """The cheaper way for these parts; None where nothing is coupled."""
    if not parts.quadratics:
        return None
    if factors is not None:
        return FactorCoupling(*factors, model.weight, start)
    return OperatorCoupling(parts, start)


def _pushed(sweep: Sweep, rows: FloatArray, dt: float) -> FloatArray:
    """∂R/∂ξ applied to each of the rows (r, size) of a single line, as columns (size, r)."""
    metric = sweep.lines.metric
    eta = np.ascontiguousarray(rows.T)
    flux = sweep.buffers.mobility.reshape(-1, 1) * (eta - np.roll(eta, -1, axis=0))
    return np.asarray((flux - np.roll(flux, 1, axis=0)) * (dt / (metric.volume * metric.scale[0]))[:, None])
