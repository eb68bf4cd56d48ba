"""Newton's method for steps in quantile functions: line search, cells that close and open again, and the linear systems."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.run import Status, StepFailed
from mfpde.solvers.jko.flow import root_mean
from mfpde.solvers.jko.quantile_energy import SHARES, Objective, QuantileEnergy
from mfpde.solvers.kernels.jko_quantile import factor, longest, pool, substitute, substitute_all

CLOSE = 1e-11
_NEAR, _STALLED, _FLOOR = 1e-6, 0.5, 1e-13
_MOST_ITERATIONS, _MOST_WITH_KINKS = 100, 400
_INWARD = 0.9
_ARMIJO = 1e-4
_SHRINK, _MOST_SHRINKS = 0.5, 40
_PULL, _SOLVED = 1e-9, 1e-12
_MOST_DIRECTIONS = 60
_SHIFT, _SHIFT_GROWTH, _MOST_SHIFTS = 1e-2, 4.0, 30


@dataclass(frozen=True, eq=False)
class Found:
    """A minimiser, the linear systems that it took, and the residual as a velocity: that of the last point, or Newton's decrement before
    it, which bounds it, where round-off in cells of hardly any mass hides the former. ``bent``: whether Newton's matrix was met that was
    not positive."""

    at: Objective
    iterations: int
    residual: float
    bent: bool


class QuantileNewton:
    """Minimises the objective; ends stop at walls, cells are never turned over."""

    def __init__(self, energy: QuantileEnergy) -> None:
        self.energy = energy

    def minimise(self, at: Objective, aim: FloatArray, sigma: float) -> Found:
        """Newton's method with a line search. Internal energies keep cells open; without one, cells that would be turned over close, and
        their levels move together from there on. Raises StepFailed."""
        before, bent, length_of_axis = math.inf, False, self.energy.length
        allowed = _MOST_ITERATIONS if self.energy.kinks is None else _MOST_WITH_KINKS
        for iteration in range(1, allowed + 1):
            step, convex = self._direction(at, aim, sigma)
            bent = bent or not convex
            if not self.energy.repelled:
                closed = self._closed(at, step)
                if not np.array_equal(closed, at.closed):
                    at, before = self.energy.objective(_joined(at.x, self.energy.node_masses, closed), aim, sigma, closed), math.inf
                    continue
            drop = max(-float(at.gradient @ step), 0.0)
            error = math.sqrt(drop * sigma) / length_of_axis
            most, wall = self._limits(at.x, step)
            length = min(1.0, wall, _INWARD * most)
            new = self._search(at, step, drop, length, wall, aim, sigma)
            if new is None:
                if error <= _NEAR:
                    return Found(at, iteration, math.sqrt(drop / sigma), bent)
                raise StepFailed(Status.NOT_CONVERGED, advice(sigma, f"no descent was found after {iteration} Newton iterations"))
            full, at = length == 1.0, new
            residual, stalled = self.residual(at), error > _STALLED * before
            close = error <= CLOSE or (error <= _NEAR and (stalled or sigma * residual <= CLOSE * length_of_axis))
            if full and close:
                opened = self._opened(at)
                if opened is None:
                    return Found(at, iteration, min(residual, math.sqrt(drop / sigma)), bent)
                at, error = self.energy.objective(at.x, aim, sigma, opened), math.inf
            before = error
        raise StepFailed(Status.NOT_CONVERGED, advice(sigma, f"Newton's method did not converge in {allowed} iterations"))

    def _closed(self, at: Objective, step: FloatArray) -> BoolArray:
        """The cells (n,) that are closed and those that a full step would turn over or push into a wall, as in isotonic regression."""
        ahead, low, high = at.x + step, self.energy.low, self.energy.high
        if float(np.min(np.diff(ahead))) >= 0.0 and ahead[0] >= low and ahead[-1] <= high:
            return at.closed
        pooled = np.clip(pool(ahead, self.energy.node_masses), low, high)
        return np.asarray(at.closed | (np.diff(pooled) <= 0.0))

    def _opened(self, at: Objective) -> "BoolArray | None":
        """The closed cells without those that the gradient pulls open; None where there are none of these."""
        if at.apart or self.energy.kinked is not None:
            return None  # the force of a kernel's kink on what has come together is any that holds it there
        starts = np.concatenate([[0], np.flatnonzero(~at.closed) + 1])
        lengths = np.diff(np.append(starts, len(at.x)))
        pull = _within(at.gradient, starts, lengths)
        if at.x[0] <= self.energy.low:  # the wall bears what presses the first levels against it
            pull[: int(lengths[0])] -= max(float(np.sum(at.gradient[: int(lengths[0])])), 0.0)
        opens = at.closed & (pull[:-1] - self._hold(at, starts, lengths) > _PULL * np.sum(np.abs(at.gradient)))
        return None if not opens.any() else np.asarray(at.closed & ~opens)

    def _hold(self, at: Objective, starts: IntArray, lengths: IntArray) -> FloatArray | float:
        """How much pull on cells (n,) a convex kink of a potential bears that they rest on, before one of their sides leaves it."""
        if self.energy.kinks is None:
            return 0.0
        lower, upper = self.energy.kinks.grip(at.x)
        masses = self.energy.node_masses
        below = _within(masses, starts, lengths)
        above = np.repeat(np.add.reduceat(masses, starts), lengths) - below
        return np.asarray(np.minimum(below * lower, above * upper)[:-1])

    def _search(
        self, at: Objective, step: FloatArray, drop: float, length: float, wall: float, aim: FloatArray, sigma: float
    ) -> Objective | None:
        """The first point on the way with a sufficient descent; differences that drown in round-off count as such."""
        slack = _FLOOR * (abs(at.value) + self.energy.length**2 / sigma)
        for _ in range(_MOST_SHRINKS):
            x = at.x + length * step
            if length == wall:
                self._snap(x)
            x = x if self.energy.ring else np.clip(x, self.energy.low, self.energy.high)
            new = self.energy.objective(x, aim, sigma, at.closed)
            if new.value <= at.value - _ARMIJO * length * drop + slack:
                return new
            length *= _SHRINK
        return None

    def _snap(self, x: FloatArray) -> None:
        """Ends that have come to a wall up to round-off stand there."""
        near, low, high = 1e-14 * self.energy.length, self.energy.low, self.energy.high
        x[0] = low if x[0] < low + near else x[0]
        x[-1] = high if x[-1] > high - near else x[-1]

    def _limits(self, x: FloatArray, step: FloatArray) -> tuple[float, float]:
        """How far along the step cells keep their order, and how far it is to a wall."""
        wall, low, high = math.inf, self.energy.low, self.energy.high
        if self.energy.ring:
            return float(longest(x, step)), wall
        if step[0] < 0.0 and x[0] > low:
            wall = min(wall, (low - x[0]) / step[0])
        if step[-1] > 0.0 and x[-1] < high:
            wall = min(wall, (high - x[-1]) / step[-1])
        return float(longest(x, step)), wall

    def _held(self, at: Objective) -> tuple[bool, bool]:
        """Whether the first and the last level, with those that move with them, are pressed against their walls."""
        low, high = (at.x[0] <= self.energy.low, at.x[-1] >= self.energy.high) if not self.energy.ring else (False, False)
        return bool(low and at.joined(at.gradient)[0] > 0.0), bool(high and at.joined(at.gradient)[-1] < 0.0)

    def residual(self, at: Objective) -> float:
        """The gradient without what walls and closed cells hold, as a velocity: √Σ g²/m over the levels."""
        low, high = self._held(at)
        gradient, masses = at.joined(at.gradient), at.joined(self.energy.node_masses)
        part = slice(1 if low else 0, len(gradient) - (1 if high else 0))
        return root_mean(1.0 / masses[part], gradient[part] ** 2)

    def _direction(self, at: Objective, aim: FloatArray, sigma: float) -> tuple[FloatArray, bool]:
        """Newton's step and True, or False with one by a matrix that was made positive where that is no descent; levels beside closed
        cells move together."""
        right = -at.joined(at.gradient)
        free = np.ones(len(right))
        low, high = self._held(at)
        free[0] = 0.0 if low else free[0]
        free[-1] = 0.0 if high else free[-1]  # with a single block, the first level's wall holds it as well
        right *= free
        solver = self._solver(at, free)
        if solver is not None:
            found = solver(right) if self.energy.coupled is None else self._conjugate(at, free, right, solver)
            if float(found @ right) > 0.0 or not right.any():
                return at.spread(found), True
        return at.spread(self._shifted(at, aim, sigma, free, right)), False

    def _shifted(self, at: Objective, aim: FloatArray, sigma: float, free: FloatArray, right: FloatArray) -> FloatArray:
        """The step with the least of growing multiples of the mass matrix that makes Newton's matrix positive: near saddles, a long one."""
        shift, shape = _SHIFT / sigma, (len(self.energy.masses), len(SHARES))
        slopes, curvatures = (at.slopes, at.curvatures) if at.slopes.shape[1] else (np.zeros(shape), np.zeros(shape))
        for _ in range(_MOST_SHIFTS):
            _, _, diagonal, upper = self.energy.assembled(at.x, aim, sigma, slopes, curvatures + shift)
            solver = self._solver(replace(at, diagonal=diagonal, upper=upper), free)
            step = np.zeros_like(right) if solver is None else solver(right)
            if float(step @ right) > 0.0:
                return step
            shift *= _SHIFT_GROWTH
        raise StepFailed(Status.NOT_FINITE, advice(sigma, "Newton's matrix is not finite"))

    def _solver(self, at: Objective, free: FloatArray) -> "Callable[[FloatArray], FloatArray] | None":
        """v ↦ H⁻¹ v on the levels that are free, without what kernels other than quadratic ones add between cells; None where it is found
        not to be positive definite."""
        return self._whole(at, free) if self.energy.logarithms else self._banded(at, free)

    def _banded(self, at: Objective, free: FloatArray) -> "Callable[[FloatArray], FloatArray] | None":
        """(T + Σ s J Jᵀ)⁻¹ by Woodbury's formula; None where T is not positive definite."""
        diagonal, signs = at.joined(at.diagonal), at.signs
        if not at.apart:
            diagonal = diagonal + 2.0 * at.joined(np.append(np.where(at.closed, at.upper, 0.0), 0.0))
        diagonal = np.where(free > 0.0, diagonal, 1.0)
        upper, held = at.upper if at.apart else at.upper[~at.closed], at.joined(at.rows) * free
        if at.ring:  # the corner c as c(e₀ + eₙ₋₁)(e₀ + eₙ₋₁)ᵀ, which leaves a matrix that is positive where the whole one is
            upper, corner = np.ascontiguousarray(upper[:-1]), float(upper[-1])
            diagonal[[0, -1]] -= corner
            row = np.zeros((1, len(diagonal)))
            row[0, [0, -1]] = math.sqrt(abs(corner))
            held, signs = np.concatenate([held, row]), np.append(signs, 1.0 if corner >= 0.0 else -1.0)
        else:
            upper = upper * free[1:] * free[:-1]
        inverse = np.empty(len(diagonal))
        if not factor(diagonal, upper, inverse):
            return None
        right = np.array(held.T, order="C")
        if len(signs):
            substitute_all(upper, inverse, right)
        small = np.diag(signs) + held @ right

        def apply(v: FloatArray) -> FloatArray:
            column = v.copy()
            substitute(upper, inverse, column)
            return column - right @ np.linalg.solve(small, held @ column) if len(signs) else column

        return apply

    def _whole(self, at: Objective, free: FloatArray) -> "Callable[[FloatArray], FloatArray] | None":
        """With the full Hessian of logarithmic kernels, by Cholesky's factorisation."""
        from scipy.linalg import cho_factor, cho_solve

        matrix = self.energy.whole(at)
        matrix *= free[:, None] * free
        held = np.flatnonzero(free == 0.0)
        matrix[held, held] = 1.0
        scale = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        try:
            factors = cho_factor(matrix * scale[:, None] * scale, lower=True)
        except np.linalg.LinAlgError:
            return None
        return lambda v: np.asarray(scale * cho_solve(factors, scale * v))

    def _conjugate(
        self, at: Objective, free: FloatArray, right: FloatArray, precondition: "Callable[[FloatArray], FloatArray]"
    ) -> FloatArray:
        """Newton's step with the whole Hessian by preconditioned conjugate gradients, which end where it is not positive."""
        step, left = np.zeros_like(right), right.copy()
        z = precondition(left)
        direction, size = z.copy(), float(left @ z)
        first = size
        for _ in range(_MOST_DIRECTIONS):
            if not size > _SOLVED * first:
                break
            image = at.joined(self.energy.applied(at, at.spread(direction))) * free
            bend = float(direction @ image)
            if not bend > 0.0:
                return step if np.any(step) else direction
            step = step + (size / bend) * direction
            left = left - (size / bend) * image
            z = precondition(left)
            before, size = size, float(left @ z)
            direction = z + (size / before) * direction
        return step


def resting(energy: QuantileEnergy, at: Objective, aim: FloatArray, sigma: float) -> Objective:
    """The objective with cells closed that lie on convex kinks, where mass comes together; they open again if it does not."""
    if energy.kinks is None or energy.repelled:
        return at
    on = energy.kinks.grip(at.x)[0] > 0.0
    closed = at.closed | (on[:-1] & on[1:] & (np.diff(at.x) <= 2.0 * energy.kinks.reach))
    return energy.objective(_joined(at.x, energy.node_masses, closed), aim, sigma, closed) if closed.any() else at


def _within(loads: FloatArray, starts: IntArray, lengths: IntArray) -> FloatArray:
    """Sums from the first of those that move together to each, (n + 1,)."""
    sums = np.cumsum(loads)
    return np.asarray(sums - np.repeat(sums[starts] - loads[starts], lengths))


def _joined(x: FloatArray, masses: FloatArray, closed: BoolArray) -> FloatArray:
    """x with the levels on both sides of closed cells at their barycentres."""
    starts = np.concatenate([[0], np.flatnonzero(~closed) + 1])
    means = np.add.reduceat(masses * x, starts) / np.add.reduceat(masses, starts)
    means = np.clip(means, x[starts], x[np.append(starts[1:], len(x)) - 1])
    return np.repeat(means, np.diff(np.append(starts, len(x))))


def advice(sigma: float, what: str) -> str:
    """What failed, and what to do about it."""
    return f"{what} (step {sigma:.3g}): use a smaller tau or more mass cells (`count`)"
