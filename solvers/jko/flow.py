"""Minimising movements in time: steps of a fixed length or by step doubling, of first or second order, with their certificates.

What a step minimises is E + |X − Y|²/(2σ), X being positions of which W₂ is the L² distance: a scheme knows how.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import Measure
from mfpde.run import Status, StepFailed, StepRecord
from mfpde.solvers.jko.second_order import bdf2

_SAFETY, _SMALLEST, _LARGEST = 0.9, 0.2, 2.0
_LEAST_STEP = 1e-10
_RISE = 1e-10


@dataclass(frozen=True, eq=False)
class Minimiser:
    """Where E + |X − Y|²/(2σ) is least: ``points`` (n, d), the ``dual`` variables that go with it, (r,), the energy there.

    ``residual``: what is left of the optimality condition, as a velocity in L²(ρ); ``gap``: the duality gap; ``iterations``: linear
    systems solved. ``moved``: W₂²(X, Y) where the scheme has found it on the way; ``slack``: by how much E + W₂²/(2τ) may rise because
    the scheme's W₂ or its minimiser is approximate. ``remarks`` (k,): what notes report of a run, merged by the largest of all steps.
    """

    points: FloatArray
    dual: FloatArray
    energy: float
    residual: float
    gap: float
    iterations: int
    moved: float | None = None
    slack: float = 0.0
    remarks: FloatArray = field(default_factory=lambda: np.empty(0))


class Scheme(Protocol):
    """One way to make a step."""

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The choices made, and what was met on the way according to the largest ``remarks`` so far, (0,) before the first step."""

    def start(self) -> tuple[FloatArray, FloatArray]:
        """Positions (n, d) and dual variables (r,) at time 0."""

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """The minimiser, sought from ``guess`` or ``current``, whichever is better. Raises StepFailed."""

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """W₂² of two sets of positions."""

    def value(self, points: FloatArray) -> float:
        """E."""

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term."""

    def dissipation(self, points: FloatArray) -> float:
        """∫ρ|∇δE/δρ|²."""

    def measure(self, points: FloatArray) -> Measure:
        """The measure, sharing no memory."""

    def summary(self, points: FloatArray) -> tuple[float, float, float]:
        """Mass, least cell average or weight, and the share of the mass at walls that are not part of the model."""


@dataclass(eq=False)
class MovementState:
    """Positions (n, d) at ``time`` and those (n, d) a step of length ``earlier_dt`` before (0: none), the dual variables (r,), the next
    step to try, and the certificate of the last one; ``worst``, ``widest`` and ``remarks`` are the largest residual, gap and remarks so
    far."""

    time: float
    points: FloatArray
    earlier: FloatArray
    earlier_dt: float
    dual: FloatArray
    next_dt: float
    dt: float
    energy: float
    dissipation: float
    balance: float
    iterations: int
    worst: float
    widest: float
    remarks: FloatArray


@dataclass(frozen=True, eq=False)
class _Trial:
    """A step that was made: where it led, its balance, and ∫ρ|∇δE/δρ|² there, which is |X − Y|²/σ² by optimality."""

    found: Minimiser
    dt: float
    balance: float
    dissipation: float


class MovementFlow:
    """ρ_{k+1} = argmin E(ρ) + W₂²(ρ, ρ_k)/(2τ) [Jordan–Kinderlehrer–Otto 1998], or BDF2.

    The record's ``balance`` is E_{k+1} − E_k + W₂²(ρ_{k+1}, ρ_k)/(2τ), which is never positive in steps of first order.
    """

    def __init__(self, scheme: Scheme, tau: float, order: int, tolerance: float | None, notes: Sequence[str]) -> None:
        self.scheme, self.tau, self.order, self.tolerance = scheme, tau, order, tolerance
        made = "steps of first order" if order == 1 else "variational BDF2, whose first step is of first order"
        control = f"at most {tau:g} long" if tolerance is None else f"of at most {tau:g}, doubled to W2 errors of {tolerance:g} a step"
        self._notes = (*notes, f"{made}, {control}")
        self._worst, self._widest, self._remarks = 0.0, 0.0, np.empty(0)

    @property
    def notes(self) -> tuple[str, ...]:
        """The choices, and how exactly the steps were minimised."""
        found = f"largest optimality residual of a step {self._worst:.0e}"
        found += f", largest duality gap {self._widest:.0e}" if self._widest > 0.0 else ""
        return (*self._notes, *self.scheme.notes_of(self._remarks), found)

    def start(self) -> MovementState:
        """The initial measure."""
        points, dual = self.scheme.start()
        energy = self.scheme.value(points)
        if not math.isfinite(energy):
            raise ValueError("minimising movements need a finite energy at the start")
        dissipation = self.scheme.dissipation(points)
        return MovementState(0.0, points, points, 0.0, dual, self.tau, 0.0, energy, dissipation, 0.0, 0, 0.0, 0.0, np.empty(0))

    def restore(self, values: dict[str, Any]) -> MovementState:
        """The state with these field values."""
        state = MovementState(**values)
        self._report(state)
        return state

    def _report(self, state: MovementState) -> None:
        """Notes are those of this state."""
        self._worst, self._widest, self._remarks = state.worst, state.widest, state.remarks

    def measure(self, state: MovementState) -> Measure:
        """The measure."""
        return self.scheme.measure(state.points)

    def energies(self, state: MovementState) -> dict[str, float]:
        """The energy of each term."""
        return self.scheme.values(state.points)

    def record(self, state: MovementState) -> StepRecord:
        """The certificate of the step that led here."""
        mass, least, wall = self.scheme.summary(state.points)
        self._report(state)
        return StepRecord(state.time, state.dt, state.energy, mass, least, state.dissipation, state.balance, wall, float(state.iterations))

    def advance(self, state: MovementState, until: float) -> MovementState:
        """One step, or two halves of one that was found accurate enough. Raises StepFailed."""
        left = until - state.time
        if self.tolerance is not None:
            return self._controlled(state, until)
        count = max(math.ceil(left / self.tau * (1.0 - 1e-12)), 1)
        trial = self._step(state, left / count)
        return self._after(state, trial, trial.dt, until if count == 1 else state.time + trial.dt, self.tau)

    def _controlled(self, state: MovementState, until: float) -> MovementState:
        """Step doubling: two halves of a step are kept where W₂ between them and the whole step is within the tolerance."""
        assert self.tolerance is not None
        left, wanted = until - state.time, state.next_dt
        while True:
            count = max(math.ceil(left / wanted * (1.0 - 1e-12)), 1)
            dt = left / count
            try:
                whole = self._step(state, dt)
                half = self._step(state, 0.5 * dt)
                middle = self._after(state, half, 0.5 * dt, state.time + 0.5 * dt, wanted)
                second = self._step(middle, 0.5 * dt)
                error = math.sqrt(self.scheme.square_distance(whole.found.points, second.found.points))
            except StepFailed as failure:
                if dt <= _LEAST_STEP * self.tau or failure.status is Status.NOT_FINITE:
                    raise
                wanted = 0.5 * dt
                continue
            factor = _SAFETY * (self.tolerance / max(error, 1e-300)) ** (1.0 / (self.order + 1))
            if error <= self.tolerance:
                break
            wanted = dt * max(min(factor, _SAFETY), _SMALLEST)
            if wanted <= _LEAST_STEP * self.tau:
                raise StepFailed(Status.STEP_TOO_SMALL, f"steps of {dt:.1e} are off by more than the tolerance at time {state.time:.6g}")
        after = self._after(middle, second, 0.5 * dt, until if count == 1 else state.time + dt, wanted)
        after.next_dt = min(max(dt * min(factor, _LARGEST), wanted if count == 1 and dt < wanted else 0.0), self.tau)
        after.dt, after.balance = dt, half.balance + second.balance
        after.iterations = whole.found.iterations + half.found.iterations + second.found.iterations
        return after

    def _step(self, state: MovementState, dt: float) -> _Trial:
        guess = state.points
        target, sigma = state.points, dt
        if state.earlier_dt > 0.0:
            guess = np.subtract(state.points, state.earlier)
            guess *= dt / state.earlier_dt
            guess += state.points
            if self.order == 2:
                target, sigma = bdf2(state.points, state.earlier, dt, state.earlier_dt)
        found = self.scheme.minimise(target, sigma, state.points, guess, state.dual)
        if not math.isfinite(found.energy):
            raise StepFailed(Status.NOT_FINITE, f"the energy is not finite after time {state.time:.6g}")
        moved = self.scheme.square_distance(found.points, target) if found.moved is None else found.moved
        from_here = moved if self.order == 1 else self.scheme.square_distance(found.points, state.points)
        balance = found.energy - state.energy + from_here / (2.0 * dt)
        if self.order == 1 and balance > _RISE * max(abs(state.energy), abs(found.energy), 1e-3) + found.slack:
            raise StepFailed(
                Status.NOT_CONVERGED,
                f"the step from time {state.time:.6g} does not lower E + W2^2/(2 tau), by {balance:.1e}; use a smaller tau",
            )
        return _Trial(found, dt, balance, moved / sigma**2)

    def _after(self, state: MovementState, trial: _Trial, dt: float, time: float, next_dt: float) -> MovementState:
        found = trial.found
        worst, widest = max(state.worst, found.residual), max(state.widest, found.gap)
        return MovementState(
            time=time,
            points=found.points,
            earlier=state.points,
            earlier_dt=dt,
            dual=found.dual,
            next_dt=next_dt,
            dt=dt,
            energy=found.energy,
            dissipation=trial.dissipation,
            balance=trial.balance,
            iterations=found.iterations,
            worst=worst,
            widest=widest,
            remarks=_merged(state.remarks, found.remarks),
        )


def _merged(before: FloatArray, found: FloatArray) -> FloatArray:
    """The larger of each, or all of those that there are."""
    return np.maximum(before, found) if before.size == found.size else found if before.size == 0 else before


def root_mean(weights: FloatArray, squares: FloatArray) -> float:
    """√Σ w s."""
    return math.sqrt(max(float(np.dot(weights, squares)), 0.0))
