"""Implicit sweeps where the step is linear: Scharfetter–Gummel fluxes with a frozen drift and no other internal energy."""

from typing import NamedTuple

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.solvers.finite_volume.flux import Lines
from mfpde.solvers.finite_volume.model import Model
from mfpde.solvers.kernels.implicit import ERROR, GAMMA, RATIO, extrapolated_target
from mfpde.solvers.kernels.linear import (
    apply_operator,
    conserve_lines,
    factor_operator,
    fill_operator,
    project_lines,
    solve_operator,
    stage_error,
)

_KEPT = 2


class _Operator(NamedTuple):
    """div F(ρ)_i = low_i ρ_{i−1} + diagonal_i ρ_i + up_i ρ_{i+1}, (before, along, after) each."""

    low: FloatArray
    diagonal: FloatArray
    up: FloatArray


class _Factors(NamedTuple):
    """What ``factor_operator`` fills."""

    lower: FloatArray
    inverse: FloatArray
    upper: FloatArray
    column: FloatArray
    corner: FloatArray

    @staticmethod
    def empty(shape: tuple[int, int, int]) -> "_Factors":
        """Room for the factors of lines (before, along, after)."""
        lower, inverse, upper, column = np.zeros((4, *shape))
        return _Factors(lower, inverse, upper, column, np.zeros((shape[0], shape[2])))


class LinearSweep:
    """The steps of ``Sweep`` without Newton's method; coefficients and factors are kept as long as drift and step stay the same."""

    bent = False

    def __init__(self, model: Model, lines: Lines) -> None:
        self.model, self.lines, self.iterations = model, lines, 0
        shape = lines.shape
        self._operator = _Operator(*np.empty((3, *shape)))
        self._factors = [_Factors.empty(shape) for _ in range(_KEPT)]
        self._steps = [0.0] * _KEPT
        self._frozen: FloatArray | None = None
        self._slot = 0

    def second_order(
        self, rho: FloatArray, rate: FloatArray, dt: float, frozen: FloatArray, improved: bool = False
    ) -> tuple[FloatArray, float]:
        """As ``Sweep.second_order``; the rate is found from the operator.

        ``improved``: the estimated error, damped once more, is taken from what was found unless a cell would be emptied, which makes the
        step one of order three, and L-stable for the real spectrum of gradient flows.
        """
        see = self.lines.see
        divergence = self._prepare(rho, GAMMA * dt, frozen)
        volume = self.lines.metric.volume
        first = self._solve(rho)
        conserve_lines(see(first), see(rho), volume)
        target = np.empty_like(rho)
        extrapolated_target(see(rho), see(first), RATIO, volume, self.lines.periodic, see(target))
        second = self._solve(target)
        conserve_lines(see(second), see(rho), volume)
        error = np.empty_like(rho)
        stage_error(rho, divergence, first, target, second, dt, GAMMA, ERROR, error)
        error = self._damped(error, rho)
        size = self.model.norm(error)
        if improved:
            better = second - self._damped(error, rho)
            second = better if np.min(better) >= 0.0 else second
        return second, size

    def first_order(self, rho: FloatArray, rate: FloatArray, dt: float, frozen: FloatArray) -> tuple[FloatArray, float]:
        """As ``Sweep.first_order``; the rate is found from the operator."""
        see = self.lines.see
        divergence = self._prepare(rho, dt, frozen)
        found = self._solve(rho)
        conserve_lines(see(found), see(rho), self.lines.metric.volume)
        error = 0.5 * (found - rho + dt * divergence)
        error = self._damped(error, rho)
        return found, self.model.norm(error)

    def _prepare(self, rho: FloatArray, dt: float, frozen: FloatArray) -> FloatArray:
        """Coefficients for this drift and factors for this step; returns div F at ``rho``."""
        m, see, periodic = self.lines.metric, self.lines.see, self.lines.periodic
        if frozen is not self._frozen:
            fill_operator(see(frozen), self.model.temperature, m.spacing, m.scale, m.area, m.volume, periodic, *self._operator)
            self._frozen, self._steps = frozen, [0.0] * _KEPT
        if dt in self._steps:
            self._slot = self._steps.index(dt)
        else:
            self._slot = (self._slot + 1) % _KEPT
            factor_operator(*self._operator, dt, periodic, *self._factors[self._slot])
            self._steps[self._slot] = dt
        divergence = np.empty_like(rho)
        apply_operator(*self._operator, see(rho), see(divergence))
        return divergence

    def _damped(self, error: FloatArray, rho: FloatArray) -> FloatArray:
        """(1 + dt A)⁻¹ error, without the mass that round-off put into it before and after."""
        see, volume = self.lines.see, self.lines.metric.volume
        project_lines(see(error), see(rho), volume)
        damped = self._solve(error)
        project_lines(see(damped), see(rho), volume)
        return damped

    def _solve(self, right: FloatArray) -> FloatArray:
        """(1 + dt A)⁻¹ right."""
        self.iterations += 1
        found = right.copy()
        low, up = self._operator.low, self._operator.up
        solve_operator(low, up, self._steps[self._slot], self.lines.periodic, *self._factors[self._slot], self.lines.see(found))
        return found
