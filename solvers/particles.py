"""The finite-N particle system whose limit is the PDE."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.energy.network import TwoLayer
from mfpde.energy.tables import TOLERANCE, TabulatedFeatures
from mfpde.march import Memory, march
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status, StepFailed, StepRecord

_FEWEST_ATOMS = 4000


@dataclass(frozen=True)
class ParticleFlow:
    """N atoms that follow θ̇ = −∇ξ(θ; ρ_N); at walls the outward normal velocity is removed.

    ``count`` atoms are drawn from the initial density with ``seed`` (``start`` = "random") or set at its quantiles; initial atoms
    are taken as they are. Without entropy: Dormand–Prince 8(5,3) with relative and absolute ``tolerance``. With entropy T:
    dθ = −∇ξ dt + √(2T) dB by Euler–Maruyama with steps of at most ``step``, mirrored at walls (weak error O(step)).
    From 4000 atoms on, networks over one axis act through tables, O(N) whatever the number of inputs, with a relative error of
    ``table_tolerance`` in their gradients; 0 for none.
    Raises ValueError for counts, steps or tolerances that are not positive.
    """

    count: int | None = None
    seed: int = 0
    start: Literal["random", "quantile"] = "random"
    tolerance: float = 1e-9
    step: float | None = None
    table_tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if not self.table_tolerance >= 0.0:
            raise ValueError(f"table_tolerance must be positive, or 0 for no tables, got {self.table_tolerance}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        if not self.tolerance > 0.0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        if self.step is not None and not self.step > 0.0:
            raise ValueError(f"step must be positive, got {self.step}")

    def prepare(self, problem: Problem) -> "DeterministicFlow | LangevinFlow":
        """Choose the noise-free or the noisy flow. Raises ValueError for a missing count or step."""
        atoms = _first_atoms(self, problem)
        if self.table_tolerance and len(atoms.weights) >= _FEWEST_ATOMS:
            problem = replace(problem, energy=problem.energy.tabulated(problem.domain, self.table_tolerance))
        if problem.energy.temperature == 0.0:
            return DeterministicFlow(problem, atoms, self.tolerance)
        if self.step is None:
            raise ValueError("particles of an energy with entropy need `step`, the largest Euler–Maruyama step, e.g. 0.01")
        return LangevinFlow(problem, atoms, self.step, self.seed)

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)


def _tables(problem: Problem) -> tuple[str, ...]:
    """What acts through tables, for people."""
    terms = problem.energy.terms.items()
    found = [(name, term.features) for name, term in terms if isinstance(term, TwoLayer) and isinstance(term.features, TabulatedFeatures)]
    return tuple(f"{name} through a table of {table.table.shape[1]} nodes (error {table.error:.0e})" for name, table in found)


def _first_atoms(choices: ParticleFlow, problem: Problem) -> Particles:
    if not isinstance(problem.initial, DensityFunction):
        if choices.count not in (None, len(problem.initial.weights)):
            raise ValueError(f"count must be left out or {len(problem.initial.weights)}, the number of initial atoms")
        return problem.initial
    if choices.count is None:
        raise ValueError("particles need `count` when the initial measure is a density")
    if choices.start == "quantile":
        return problem.initial.quantiles(choices.count)
    return problem.initial.sample(choices.count, np.random.default_rng(choices.seed))


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


class DeterministicFlow:
    """The exact finite-width dynamics by an adaptive high-order method."""

    def __init__(self, problem: Problem, atoms: Particles, tolerance: float) -> None:
        self.problem, self.tolerance = problem, tolerance
        self.weights, self._initial = atoms.weights, atoms.points
        self.domain = problem.domain
        walls = ", outward normal velocity removed at walls" if not (self.domain.periodic | self.domain.frozen).all() else ""
        self.notes = (f"Dormand–Prince 8(5,3){walls}", *_tables(problem))

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


@dataclass(eq=False)
class LangevinState:
    """Positions at ``time``, the drift there, the last step, and the generator's state as JSON."""

    time: float
    points: FloatArray
    drift: FloatArray
    dt: float
    generator: str


class LangevinFlow:
    """Interacting Langevin particles: Euler–Maruyama with mirrored walls."""

    def __init__(self, problem: Problem, atoms: Particles, step: float, seed: int) -> None:
        self.problem, self.domain, self.step = problem, problem.domain, step
        self.weights, self._initial = atoms.weights, atoms.points
        self.energy = problem.energy.drift
        self._noise = np.where(problem.domain.frozen, 0.0, np.sqrt(2.0 * problem.energy.temperature))
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(1,))))
        self.notes = (f"Euler–Maruyama with steps of at most {step:g}, mirrored at walls", *_tables(problem))

    def start(self) -> LangevinState:
        """The initial atoms."""
        points = self._initial.copy()
        return LangevinState(0.0, points, self._drift(points), 0.0, self._generator_state())

    def restore(self, values: dict[str, Any]) -> LangevinState:
        """The state with these field values."""
        return LangevinState(**values)

    def measure(self, state: LangevinState) -> Particles:
        """The atoms."""
        return Particles(state.points.copy(), self.weights)

    def energies(self, state: LangevinState) -> dict[str, float]:
        """The energy of each term; infinite for the entropy of atoms."""
        return self.problem.energy.values(Particles(state.points, self.weights))

    def record(self, state: LangevinState) -> StepRecord:
        """The certificate: the free energy and its dissipation are infinite and undefined for atoms with noise."""
        mass, least = float(np.sum(self.weights)), float(np.min(self.weights))
        wall = float(self.weights @ self.domain.touching(state.points).any(axis=1)) / mass
        return StepRecord(state.time, state.dt, np.inf, mass, least, np.nan, np.nan, wall)

    def advance(self, state: LangevinState, until: float) -> LangevinState:
        """One step of equal length among those that reach ``until``."""
        left = until - state.time
        count = max(int(np.ceil(left / self.step * (1.0 - 1e-12))), 1)
        dt = left / count
        self._generator.bit_generator.state = json.loads(state.generator)
        noise = self._generator.standard_normal(state.points.shape)
        moved = state.points + dt * state.drift + np.sqrt(dt) * self._noise * noise
        points = self.domain.reflect(moved)
        if not np.isfinite(points).all():
            raise StepFailed(Status.NOT_FINITE, f"a position is not finite after time {state.time:.6g}")
        time = until if count == 1 else state.time + dt
        return replace(state, time=time, points=points, drift=self._drift(points), dt=dt, generator=self._generator_state())

    def _drift(self, points: FloatArray) -> FloatArray:
        if self.energy is None:
            return np.zeros_like(points)
        slope = self.energy.gradient(Particles(points, self.weights), points)
        return np.where(self.domain.frozen, 0.0, -slope)

    def _generator_state(self) -> str:
        return json.dumps(self._generator.bit_generator.state)
