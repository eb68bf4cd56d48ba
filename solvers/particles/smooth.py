"""Particles without noise in continuous time: the exact finite-width dynamics by an adaptive method of high order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.measure import Particles
from mfpde.problem import Problem
from mfpde.run import Status, StepFailed, StepRecord


@dataclass(eq=False)
class ParticleState:
    """Positions and velocities (N, d) at ``time``, the next step to try, and the certificate of the last one."""

    time: float
    points: FloatArray
    velocity: FloatArray
    next_dt: float
    dt: float
    energy: float
    dissipation: float
    balance: float


class SmoothFlow:
    """The atoms by Dormand–Prince 8(5,3)."""

    def __init__(self, problem: Problem, atoms: Particles, tolerance: float, notes: Sequence[str] = ()) -> None:
        self.problem, self.tolerance = problem, tolerance
        self.weights, self._initial = atoms.weights, atoms.points
        self.domain = problem.domain
        walls = ", outward normal velocity removed at walls" if not (self.domain.periodic | self.domain.frozen).all() else ""
        self.notes = (f"Dormand–Prince 8(5,3){walls}", *notes)

    def start(self) -> ParticleState:
        """The initial atoms."""
        points = self._initial.copy()
        velocity = self._velocity(self.domain.touching(points))(0.0, points.ravel()).reshape(points.shape)
        energy = self.problem.energy.value(Particles(points, self.weights))
        return ParticleState(0.0, points, velocity, np.nan, 0.0, energy, self._dissipation(velocity), 0.0)

    def restore(self, values: dict[str, Any]) -> ParticleState:
        """The state with these field values."""
        return ParticleState(**values)

    def measure(self, state: ParticleState) -> Particles:
        """The atoms."""
        return Particles(state.points.copy(), self.weights)

    def energies(self, state: ParticleState) -> dict[str, float]:
        """The energy of each term."""
        return self.problem.energy.values(Particles(state.points, self.weights))

    def record(self, state: ParticleState) -> StepRecord:
        """The certificate of the step that led here."""
        mass, least = float(np.sum(self.weights)), float(np.min(self.weights))
        wall = float(self.weights @ self.domain.touching(state.points).any(axis=1)) / mass
        return StepRecord(state.time, state.dt, state.energy, mass, least, state.dissipation, state.balance, wall)

    def _dissipation(self, velocity: FloatArray) -> float:
        """Σ w|θ̇|²."""
        return float(self.weights @ np.sum(velocity**2, axis=1))

    def _velocity(self, touching: BoolArray) -> Callable[[float, FloatArray], FloatArray]:
        """The right-hand side for positions that may overshoot a wall within a step: it is evaluated at their projection, and
        nothing leaves through the walls that it was touching at the step's start."""

        def velocity(_: float, flat: FloatArray) -> FloatArray:
            free = flat.reshape(len(touching), -1)
            points = self.domain.confine(free)
            slope = self.problem.energy.gradient(Particles(points, self.weights), points)
            return np.ravel(self.domain.slide(-slope, free, touching))

        return velocity

    def advance(self, state: ParticleState, until: float) -> ParticleState:
        """One accepted step, after which overshooting atoms are put on their wall."""
        from scipy.integrate import DOP853

        left = until - state.time
        first = None if np.isnan(state.next_dt) else min(state.next_dt, left)
        flat = state.points.ravel()
        velocity = self._velocity(self.domain.touching(state.points))
        stepper = DOP853(velocity, state.time, flat, until, rtol=self.tolerance, atol=self.tolerance, first_step=first)
        message = stepper.step()
        if stepper.status == "failed" or not np.isfinite(stepper.y).all():
            raise StepFailed(Status.STEP_TOO_SMALL, f"{message or 'a position is not finite'} (time {state.time:.6g})")
        free = stepper.y.reshape(state.points.shape)
        points = self.domain.confine(free)
        unmoved = bool(np.array_equal(points, free))
        touching = self.domain.touching(points)
        rate = stepper.f if unmoved else self._velocity(touching)(0.0, points.ravel())
        dt = float(stepper.t - state.time)
        cut = first is not None and first < state.next_dt
        slid = self.domain.slide(np.reshape(rate, points.shape), points, touching)
        energy, dissipation = self.problem.energy.value(Particles(points, self.weights)), self._dissipation(slid)
        return ParticleState(
            time=float(stepper.t),
            points=points,
            velocity=slid,
            next_dt=max(float(stepper.h_abs), state.next_dt) if cut else float(stepper.h_abs),
            dt=dt,
            energy=energy,
            dissipation=dissipation,
            balance=energy - state.energy + 0.5 * dt * (state.dissipation + dissipation),
        )
