"""Explicit Euler steps of a particle system: gradient descent, stochastic gradient descent, and Langevin particles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy.base import EnergySum
from mfpde.energy.teams import Team
from mfpde.measure import Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed, StepRecord
from mfpde.solvers.kernels.descent import CIRCLE, FROZEN, WALL, measured, move
from mfpde.solvers.particles.batches import Batches

_RISE = 1e-12


@dataclass(eq=False)
class DescentState:
    """Positions (N, d) at ``time`` after ``steps`` steps, ∇ξ there (empty with minibatches, whose gradients are not kept), the last
    step, the certificate of it (``wall``: the mass at walls), how often the energy has risen and how often atoms went half way through
    the domain, and the generator's state as JSON."""

    time: float
    points: FloatArray
    slope: FloatArray
    dt: float
    energy: float
    dissipation: float
    balance: float
    wall: float
    steps: int
    rises: int
    leaps: int
    generator: str


class DescentFlow:
    """θ ← θ − dt ∇ξ(θ) [+ √(2T dt) noise], with steps of equal length up to each saved time, none longer than ``step``.

    Without noise what would leave through a wall stops there (projected gradient descent); with noise it is mirrored.
    """

    def __init__(
        self, problem: Problem, atoms: Particles, step: float, seed: int, batches: Batches | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.problem, self.domain, self.step, self.batches = problem, problem.domain, step, batches
        self.weights, self._initial = atoms.weights, atoms.points
        self._crowd = _Crowd.of(problem.domain, atoms.weights)
        self.drift: EnergySum | None = problem.energy.drift
        self.noisy = problem.energy.temperature > 0.0
        self._noise = np.where(problem.domain.frozen, 0.0, np.sqrt(2.0 * problem.energy.temperature))
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(1,))))
        self._rises, self._leaps, self._made = 0, 0, 0
        self._far = 0.5 * float(np.min(problem.domain.upper - problem.domain.lower))
        scheme = f"Euler–Maruyama with steps of at most {step:g}, mirrored at walls"
        if not self.noisy:
            scheme = f"gradient descent with steps of at most {step:g}, stopped at walls"
        self._notes = (scheme, *([batches.note] if batches is not None else []), *notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """The scheme, and a warning where it did not descend."""
        found = []
        if self._rises:
            found.append(
                f"{WARNING}the energy rose in {self._rises} of {self._made} steps: they are too long for a descent; use shorter ones"
            )
        if self._leaps:
            found.append(
                f"{WARNING}in {self._leaps} of {self._made} steps atoms went half way through the domain or more; use shorter ones"
            )
        return (*self._notes, *found)

    def start(self) -> DescentState:
        """The initial atoms."""
        points = self._initial.copy()
        slope, energy = self._slope(points)
        dissipation, wall = self._crowd.measured(points, slope, self._descends)
        return DescentState(0.0, points, slope, 0.0, energy, dissipation, 0.0, wall, 0, 0, 0, self._generator_state())

    def restore(self, values: dict[str, Any]) -> DescentState:
        """The state with these field values."""
        return DescentState(**values)

    def measure(self, state: DescentState) -> Particles:
        """The atoms."""
        return Particles(state.points.copy(), self.weights)

    def energies(self, state: DescentState) -> dict[str, float]:
        """The energy of each term; infinite for the entropy of atoms."""
        return self.problem.energy.values(Particles(state.points, self.weights))

    def record(self, state: DescentState) -> StepRecord:
        """The certificate. With noise the free energy of atoms is infinite and its dissipation undefined; with minibatches neither is
        evaluated between the saved times."""
        self._rises, self._leaps, self._made = state.rises, state.leaps, state.steps
        crowd = self._crowd
        return StepRecord(
            state.time, state.dt, state.energy, crowd.mass, crowd.least, state.dissipation, state.balance, state.wall / crowd.mass
        )

    def advance(self, state: DescentState, until: float) -> DescentState:
        """One step of equal length among those that reach ``until``."""
        left = until - state.time
        count = max(int(np.ceil(left / self.step * (1.0 - 1e-12))), 1)
        dt = left / count
        slope = state.slope if self.batches is None else self._batch_slope(state)
        leapt = bool(np.max(np.abs(slope), initial=0.0) * dt > self._far)
        generator = state.generator
        if self.noisy:
            self._generator.bit_generator.state = json.loads(state.generator)
            moved = state.points - dt * slope
            moved += np.sqrt(dt) * self._noise * self._generator.standard_normal(moved.shape)
            points, generator = self.domain.reflect(moved), self._generator_state()
        else:
            points = self._crowd.moved(state.points, slope, dt)
        slope, energy = self._slope(points)
        dissipation, wall = self._crowd.measured(points, slope, self._descends)
        if not np.isfinite(dissipation if self._descends else points).all():
            raise StepFailed(Status.NOT_FINITE, f"a position or a velocity is not finite after time {state.time:.6g}")
        balance = energy - state.energy + 0.5 * dt * (state.dissipation + dissipation) if np.isfinite(energy) else np.nan
        rose = bool(energy - state.energy > _RISE * max(abs(state.energy), 1e-3))
        time, steps = until if count == 1 else state.time + dt, state.steps + 1
        return DescentState(
            time, points, slope, dt, energy, dissipation, balance, wall, steps, state.rises + rose, state.leaps + leapt, generator
        )

    @property
    def _descends(self) -> bool:
        """Whether the full gradient is known at every step, and with it the dissipation."""
        return not self.noisy and self.batches is None

    def _slope(self, points: FloatArray) -> tuple[FloatArray, float]:
        """∇ξ of all atoms, 0 along frozen axes, and the energy."""
        if self.batches is not None:
            return np.empty((0, points.shape[1])), np.nan if not self.noisy else np.inf
        if self.drift is None:
            return np.zeros_like(points), np.inf
        energy, slope = self.drift.value_and_gradient(Particles(points, self.weights))
        return self._held(slope), np.inf if self.noisy else energy

    def _batch_slope(self, state: DescentState) -> FloatArray:
        assert self.batches is not None
        return self._held(self.batches.at(state.steps).gradient(Particles(state.points, self.weights), state.points))

    def _held(self, slope: FloatArray) -> FloatArray:
        return np.where(self.domain.frozen, 0.0, slope) if self.domain.frozen.any() else slope

    def _generator_state(self) -> str:
        return json.dumps(self._generator.bit_generator.state)


@dataclass(frozen=True, eq=False)
class _Crowd:
    """All atoms between the ends of a domain: in a box by loops over them, elsewhere by what the domain offers."""

    domain: Domain
    weights: FloatArray
    mass: float
    least: float
    ends: IntArray
    teams: tuple[Team, Team]

    @staticmethod
    def of(domain: Domain, weights: FloatArray) -> "_Crowd":
        """The atoms with these weights (N,)."""
        ends = np.where(domain.frozen, FROZEN, np.where(domain.periodic, CIRCLE, WALL)).astype(np.int64)
        shared = weights[:1].copy() if np.all(weights == weights[0]) else weights
        return _Crowd(domain, shared, float(np.sum(weights)), float(np.min(weights)), ends, (Team(), Team()))

    @property
    def _boxed(self) -> bool:
        return self.domain.box is self.domain

    def moved(self, points: FloatArray, slope: FloatArray, dt: float) -> FloatArray:
        """points − dt slope (N, d), stopped at walls."""
        if not self._boxed:
            return self.domain.confine(points - dt * slope)
        with self.teams[0].at_work(len(points)) as together:
            return move(points, slope, dt, self.domain.lower, self.domain.upper, self.ends, together=together)

    def measured(self, points: FloatArray, slope: FloatArray, descends: bool) -> tuple[float, float]:
        """The dissipation, nan unless it is that of a descent along ``slope``, and the mass at walls."""
        if not (self._boxed and descends):
            touching = self.domain.touching(points)
            held = np.broadcast_to(self.weights, len(points))
            wall = float(held @ touching.any(axis=1))
            return float(held @ np.sum(self.domain.slide(-slope, points, touching) ** 2, axis=1)) if descends else np.nan, wall
        with self.teams[1].at_work(len(points)) as together:
            return measured(points, slope, self.weights, self.domain.lower, self.domain.upper, self.ends, together=together)
