"""Exact minimising movements between cells: a primal–dual interior-point method for the plan, certified by duality.

A step of a convex energy is min over plans P ≥ 0 with Σ_j P_ij = a_i of E(ρ) + Σ c_ij P_ij, ρ_j = Σ_i P_ij, c_ij = |x_i − y_j|²/(2σ).
Its optimality conditions are a monotone complementarity problem,
    Σ_j P_ij = a_i,   φ = δE/δρ,   s_ij = c_ij + φ_j − f_i ≥ 0,   P_ij s_ij = 0,
in which P_ij s_ij = μ w_i defines the central path: the minimisers with a barrier −μ Σ w_i log P_ij, w_i > 0. Newton's method with
Mehrotra's predictor and corrector follows it to μ → 0 [Mehrotra 1992; Wright 1997, Primal–Dual Interior-Point Methods, chs. 8 and 10].
Without P and f it is one linear system for φ, in as many unknowns as there are cells. Internal energies are compatible with the barrier:
g = u(ρ)/μ − log ρ has |g'''| ≤ max(2, |m − 2|) g''^{3/2} for u = ρ^m and ρ log ρ (m = 1), down to ρ = 0, which is what path following
needs to converge at a rate that vacuum does not spoil [Nesterov–Nemirovskii 1994, sec. 3.2; Monteiro–Adler 1990].

A step is never taken to be exact because the path ended: ``transport`` computes the duality gap anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.solvers.jko.internal import Internal

_INSIDE = 0.995
_SHRINK, _MOST_SHRINKS, _ENOUGH = 0.5, 30, 0.3
_LEAST_CENTRING = 1e-6
_FLAT = 1e-200
_FIRST = 0.1
_ROOTS, _ROOT_ERROR = 60, 1e-10


@dataclass(frozen=True, eq=False)
class ConvexEnergy:
    """Σ_j u(ρ_j) + ⟨fixed, ρ⟩ + ½⟨ρ, Kρ⟩ with K = ``matrix`` (n, n), positive semidefinite between densities of one mass, or None."""

    internal: Internal
    fixed: FloatArray
    matrix: FloatArray | None

    def drift(self, rho: FloatArray) -> FloatArray:
        """The first variation without the internal energy, (n,)."""
        return self.fixed if self.matrix is None else np.asarray(self.fixed + self.matrix @ rho)

    def slopes(self, rho: FloatArray) -> FloatArray:
        """The first variation, (n,)."""
        return np.asarray(self.drift(rho) + self.internal.slopes(rho))


class Lane:
    """The plan (k, m) from k cells with masses ``mass`` (k,) to the m ``cells`` that they can reach, on the way to optimality."""

    def __init__(self, cells: IntArray, mass: FloatArray, cost: FloatArray, phi: FloatArray) -> None:
        self.cells, self.mass, self.cost = cells, mass, cost
        # rows of little mass would be far from the path for long with weights of their own masses, and so would all with equal ones
        self.weights = mass + np.sum(mass) / len(cells)
        slack = cost + phi[cells]
        slack -= np.min(slack, axis=1)[:, None]
        self.plan, self.slack = slack, slack  # what ``enter`` replaces
        self.level = float(mass @ np.mean(slack, axis=1)) / (float(np.sum(self.weights)) * len(cells))

    def enter(self, mu: float) -> None:
        """The point with P_ij s_ij = μ w_i and Σ_j P_ij = a_i for the given φ: a root for each row, by Newton's method from below."""
        scaled = mu * self.weights / self.mass
        depth = scaled.copy()
        for _ in range(_ROOTS):
            parts = scaled[:, None] / (depth[:, None] + self.slack)
            step = (np.sum(parts, axis=1) - 1.0) * scaled / np.sum(parts**2, axis=1)
            depth += step
            if not np.any(step > _ROOT_ERROR * depth):
                break
        self.slack = self.slack + depth[:, None]
        self.plan = (mu * self.weights)[:, None] / self.slack
        self.plan = _filled(self.plan, self.mass)

    def factor(self, matrix: FloatArray) -> None:
        """Add diag(Σ_i q_ij) − Σ_i q_i q_iᵀ/r_i with q = P/s and r its row sums, minus the derivative of ρ in φ, to ``matrix``."""
        self.ratio = self.plan / self.slack
        self.rows = np.sum(self.ratio, axis=1)
        scaled = self.ratio / np.sqrt(self.rows)[:, None]
        block = -(scaled.T @ scaled)
        np.fill_diagonal(block, 0.0)
        np.fill_diagonal(block, -np.sum(block, axis=1))  # its rows sum to 0, and what q differ from q²/r would be lost in round-off
        matrix[np.ix_(self.cells, self.cells)] += block

    def aim(self, wanted: FloatArray) -> FloatArray:
        """The change of ρ on the cells, (m,), with φ fixed, when P s changes by s times ``wanted`` (k, m) and rows keep their mass."""
        self.wanted = wanted
        self.lack = (self.mass - np.sum(self.plan, axis=1) - np.sum(wanted, axis=1)) / self.rows
        return np.asarray(np.sum(wanted, axis=0) + self.lack @ self.ratio)

    def turn(self, dphi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The changes of P and s that go with the change of φ, and with that of f that keeps the rows' mass."""
        own = dphi[self.cells]
        df = self.lack + (self.ratio @ own) / self.rows
        ds = own - df[:, None]
        return self.wanted - self.ratio * ds, ds


@dataclass(frozen=True, eq=False)
class _Direction:
    """Changes of φ (n,) and, for each lane, of P and s."""

    phi: FloatArray
    lanes: list[tuple[FloatArray, FloatArray]]

    def longest(self, lanes: list[Lane]) -> float:
        """The part of the way on which all P and s stay positive, at most 2."""
        most = 0.5
        for lane, (dp, ds) in zip(lanes, self.lanes, strict=True):
            most = max(most, -float(np.min(dp / lane.plan)), -float(np.min(ds / lane.slack)))
        return 1.0 / most


class Path:
    """Follows the central path from ``phi``. ``lanes``: (cells, masses, costs) as in ``Lane``; all cells must be in one of them."""

    def __init__(self, energy: ConvexEnergy, lanes: list[tuple[IntArray, FloatArray, FloatArray]], phi: FloatArray) -> None:
        self.energy, self.phi, self.iterations, self.stalled = energy, phi.copy(), 0, False
        self.lanes = [Lane(*lane, phi) for lane in lanes]
        self._total = sum(float(np.sum(lane.weights)) * len(lane.cells) for lane in self.lanes)
        level = max(lane.level for lane in self.lanes)
        for lane in self.lanes:
            lane.enter(_FIRST * level)
        self._look()

    def _look(self) -> None:
        self.rho = self._density([lane.plan for lane in self.lanes])
        self.rest = self.phi - self.energy.slopes(self.rho)
        self.uneven = float(np.abs(self.rest) @ self.rho)
        self.open = sum(float(np.sum(lane.plan * lane.slack)) for lane in self.lanes)

    def _density(self, plans: list[FloatArray]) -> FloatArray:
        rho = np.zeros(len(self.phi))
        for lane, plan in zip(self.lanes, plans, strict=True):
            rho[lane.cells] += np.sum(plan, axis=0)
        return rho

    def follow(self, target: float, most: int) -> None:
        """Go on until Σ P s and ∫|φ − δE/δρ| dρ are at most the ``target``, for ``most`` iterations in all, or until
        no step helps any more: ``stalled``."""
        while (self.open > target or self.uneven > target) and self.iterations < most and not self.stalled:
            self.iterations += 1
            self._iterate()

    def _iterate(self) -> None:
        mu = self.open / self._total
        solve = self._solver()
        first = self._direction(solve, [-lane.plan for lane in self.lanes])
        share = min(1.0, first.longest(self.lanes))
        left = 0.0
        for lane, (dp, ds) in zip(self.lanes, first.lanes, strict=True):
            left += float(np.sum((lane.plan + share * dp) * (lane.slack + share * ds)))
        centring = min(max((left / self.open) ** 3, _LEAST_CENTRING), 1.0)
        wanted = []
        for lane, (dp, ds) in zip(self.lanes, first.lanes, strict=True):
            wanted.append(((centring * mu) * lane.weights[:, None] - dp * ds) / lane.slack - lane.plan)
        self._step(self._direction(solve, wanted))

    def _direction(self, solve: Callable[[FloatArray], FloatArray], wanted: list[FloatArray]) -> _Direction:
        change = np.zeros(len(self.phi))
        for lane, part in zip(self.lanes, wanted, strict=True):
            change[lane.cells] += lane.aim(part)
        dphi = solve(change)
        return _Direction(dphi, [lane.turn(dphi) for lane in self.lanes])

    def _step(self, way: _Direction) -> None:
        """As far as P and s stay positive and φ − δE/δρ falls with the step or is less than the gap that is left."""
        share = min(1.0, _INSIDE * way.longest(self.lanes))
        for _ in range(_MOST_SHRINKS):
            plans = [_filled(lane.plan + share * dp, lane.mass) for lane, (dp, _) in zip(self.lanes, way.lanes, strict=True)]
            rho = self._density(plans)
            rest = np.abs(self.phi + share * way.phi - self.energy.slopes(rho))
            if float(rest @ self.rho) <= max((1.0 - _ENOUGH * share) * self.uneven, 2.0 * self.open):
                break
            share *= _SHRINK
        else:
            self.stalled = True
            return
        self.phi = self.phi + share * way.phi
        for lane, plan, (_, ds) in zip(self.lanes, plans, way.lanes, strict=True):
            lane.plan, lane.slack = plan, lane.slack + share * ds
        self._look()

    def _solver(self) -> Callable[[FloatArray], FloatArray]:
        """The change of φ for a change b of ρ at fixed φ: dφ − H(b − L dφ) = −(φ − δE/δρ), H the Hessian of E and L that of the plans."""
        lower = np.zeros((len(self.phi), len(self.phi)))
        for lane in self.lanes:
            lane.factor(lower)
        softness = 1.0 / np.maximum(self.energy.internal.bends(self.rho), _FLAT)
        return self._symmetric(lower, softness) if self.energy.matrix is None else self._general(lower, softness)

    def _symmetric(self, matrix: FloatArray, softness: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """(1/u'' + L) dφ = b − (φ − δE/δρ)/u''; scaled to a unit diagonal, since u'' has any size."""
        from scipy.linalg import cho_factor, cho_solve

        matrix[np.diag_indices(len(matrix))] += softness
        scale = 1.0 / np.sqrt(np.diag(matrix))
        matrix *= scale[:, None]
        matrix *= scale
        matrix[np.diag_indices(len(matrix))] += 4e-16
        factor, rest = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False), softness * self.rest
        return lambda b: np.asarray(scale * cho_solve(factor, scale * (b - rest), check_finite=False))

    def _general(self, matrix: FloatArray, softness: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """(1 + HL) dφ = Hb − (φ − δE/δρ) with H = u'' + K, the rows being divided by 1 + u'' L_jj, which has any size."""
        from scipy.linalg import lu_factor, lu_solve

        assert self.energy.matrix is not None
        diagonal = softness + np.diag(matrix)
        plain, bent = softness / diagonal, 1.0 / diagonal
        kernel = plain[:, None] * self.energy.matrix
        system = kernel @ matrix
        matrix *= bent[:, None]
        system += matrix
        system[np.diag_indices(len(system))] += plain
        factor, rest = lu_factor(system, overwrite_a=True, check_finite=False), plain * self.rest
        return lambda b: np.asarray(lu_solve(factor, bent * b + kernel @ b - rest, check_finite=False))


def _filled(plan: FloatArray, mass: FloatArray) -> FloatArray:
    """The plan with rows of exactly these masses, which round-off of large P/s takes from them."""
    return np.asarray(plan * (mass / np.sum(plan, axis=1))[:, None])
