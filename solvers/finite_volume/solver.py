"""The finite-volume flow: accepted steps with their certificates, whatever the flux and the stepper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.constraints import refuse_constraints
from mfpde.energy.internal import Power
from mfpde.march import Memory, march
from mfpde.measure import Density, DensityFunction, deposit
from mfpde.problem import Problem
from mfpde.run import STEP_FIELDS, WALL_ADVICE, WARNING, Run, Status, StepFailed, StepRecord
from mfpde.solvers.finite_volume.evaluation import Evaluation
from mfpde.solvers.finite_volume.flux import Flux
from mfpde.solvers.finite_volume.model import Model
from mfpde.solvers.finite_volume.stepper import Attempt, Explicit, Implicit, Stepper, newton_precision
from mfpde.solvers.kernels.line.march import SCALAR_FIELDS

_SAFETY = 0.9
_ENERGY_ROUND_OFF = 2e-14
_ENERGY_FLOOR = 1e-28
_SMALLEST = 1e-15
_SMALLEST_IMPLICIT = 1e-25
_WALL_DENSITY = 0.02
_MOST_STEPS = 1e9


@dataclass(frozen=True)
class FiniteVolume:
    """Finite volumes on a uniform grid.

    ``cells``: one number for each axis. ``tolerance``: largest estimated L¹ error of a step relative to the mass; None takes the
    stepper's own. ``flux``: None chooses limited upwinding without entropy, and with it Scharfetter–Gummel unless the drift over
    1/128 of the domain exceeds half of the temperature in the mean: that flux is of first order where cells do not resolve the drift.
    ``stepper``: None chooses explicit steps without internal energies and implicit ones of second order with them. ``step``: a fixed
    time step, with no control of its error; shorter ones are made only to meet saved times and where positivity or the energy need
    them.
    Raises ValueError for a tolerance or step that is not positive.
    """

    cells: tuple[int, ...]
    tolerance: float | None = None
    flux: Flux | None = None
    stepper: Stepper | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance > 0.0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        if self.step is not None and not 0.0 < self.step < np.inf:
            raise ValueError(f"step must be positive and finite, got {self.step}")

    def prepare(self, problem: Problem) -> "FiniteVolumeFlow":
        """Features, potentials and buffers on the grid. Raises ValueError where grid or initial density do not fit."""
        refuse_constraints(problem.energy, "finite volumes")
        return FiniteVolumeFlow(self, problem)

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)


@dataclass(eq=False)
class FiniteVolumeState:
    """Cell averages and their rate at ``time``, the next step to try, the certificate of the last one, and the largest size
    of the terms met, against which round-off is judged; ``replaced`` counts steps of order one that stood in for order two,
    and ``wall_start`` is the share of the mass at walls at the start."""

    time: float
    rho: FloatArray
    rate: FloatArray
    next_dt: float
    outflow: float
    dt: float
    energy: float
    dissipation: float
    magnitude: float
    balance: float
    iterations: int
    replaced: int
    wall_start: float


class FiniteVolumeFlow:
    """The semi-discrete flow on one grid."""

    def __init__(self, choices: FiniteVolume, problem: Problem) -> None:
        self.grid = problem.domain.grid(choices.cells)
        initial = problem.initial
        density = initial.on(self.grid) if isinstance(initial, DensityFunction) else deposit(initial, self.grid)
        self._initial = np.array(np.ravel(density.values))
        self._lifted = any(isinstance(term, Power) and term.exponent < 1.0 for term in problem.energy.terms.values())
        if self._lifted:
            self._initial = _lifted(self._initial, self.grid)
        self.model = Model(problem.energy, self.grid, choices.flux, self._initial)
        self.step = choices.step
        if self.step and problem.save_at[-1] > _MOST_STEPS * self.step:
            last = problem.save_at[-1]
            raise ValueError(f"step = {self.step:g} would take more than {_MOST_STEPS:.0e} steps to t = {last:g}; take a longer one")
        self.stepper: Stepper = choices.stepper or (Implicit() if self.model.diffusive else Explicit())
        tolerance = np.inf if self.step else choices.tolerance or self.stepper.default_tolerance
        self.integrator = self.stepper.integrator(self.model, tolerance)
        self._rate = np.empty(self.grid.size)
        self._sum = float(np.sum(self._initial))
        self._wall_mass, self._wall_start = 0.0, 0.0
        self._replaced = 0

    @property
    def terms(self) -> dict[str, Any]:
        """The energy terms prepared for the grid."""
        return dict(self.model.terms)

    @property
    def notes(self) -> tuple[str, ...]:
        """The choices made, and what the run met."""
        chosen = f"flux: {self.model.flux.description}{self.model.reason}", f"steps: {self.stepper.description}"
        lifted = (
            ("start: vacuum filled to 1e-12 of the mean density, where fast diffusion would be infinitely fast",) if self._lifted else ()
        )
        return (*chosen, *lifted, *self._wall_note(), *self._replaced_note())

    def _wall_note(self) -> tuple[str, ...]:
        even = self.model.wall_volume
        if even == 0.0 or self._wall_mass - self._wall_start <= _WALL_DENSITY * even:
            return ()
        density = f"where the density is {self._wall_mass / even:.2g} of its mean, {self._wall_start / even:.2g} at the start"
        shares = f"{self._wall_mass:.2%} of the mass lies in the cells at walls, {density}"
        return (f"{WARNING}{shares}; {WALL_ADVICE}",)

    def _replaced_note(self) -> tuple[str, ...]:
        return (f"{self._replaced} steps of order one stood in where the energy would have risen",) if self._replaced else ()

    def start(self) -> FiniteVolumeState:
        """The initial cell averages, of the initial measure's mass."""
        rho = self._initial.copy()
        rate = np.empty_like(rho)
        now = self.model.evaluate(rho, rate)
        if not now.finite:
            raise StepFailed(Status.NOT_FINITE, "the energy or the velocity of the initial density is not finite")
        round_off = self.model.round_off(rho, now.magnitude)
        wall = self.model.wall_mass(rho) / self.model.mass(rho)
        return FiniteVolumeState(0.0, rho, rate, np.inf, now.outflow, 0.0, now.energy, now.dissipation, round_off, 0.0, 0, 0, wall)

    def restore(self, values: dict[str, Any]) -> FiniteVolumeState:
        """The state with these field values."""
        return FiniteVolumeState(**values)

    def measure(self, state: FiniteVolumeState) -> Density:
        """The cell averages."""
        return Density(self.grid, state.rho.reshape(self.grid.cells).copy())

    def energies(self, state: FiniteVolumeState) -> dict[str, float]:
        """The energy of each term."""
        return {name: term.value(state.rho) for name, term in self.model.terms.items()}

    def record(self, state: FiniteVolumeState) -> StepRecord:
        """The certificate of the step that led here."""
        mass = self.model.mass(state.rho)
        self._remember(state, self.model.wall_mass(state.rho) / mass)
        return StepRecord(
            time=state.time,
            dt=state.dt,
            energy=state.energy,
            mass=mass,
            minimum=float(np.min(state.rho)),
            dissipation=state.dissipation,
            balance=state.balance,
            wall=self._wall_mass,
            iterations=float(state.iterations),
        )

    def _first_guess(self, state: FiniteVolumeState) -> float:
        """A step that changes the density by about the square root of the tolerance."""
        speed, tolerance = self.model.norm(state.rate), self.integrator.tolerance
        if self.step:
            return self.step
        return float(np.sqrt(tolerance)) * self.model.mass(state.rho) / speed if speed > 0.0 else np.inf

    def advance(self, state: FiniteVolumeState, until: float) -> FiniteVolumeState:
        """One accepted step: positive, within the tolerance, and not raising the energy; the state's arrays are reused."""
        left = until - state.time
        proposed = self._first_guess(state) if state.next_dt == np.inf else state.next_dt
        wanted = min(proposed, self.integrator.bound(state.outflow))
        allowed = state.energy + _ENERGY_ROUND_OFF * state.magnitude + _ENERGY_FLOOR
        safe = False
        while True:
            self._require(wanted, state.time, until)
            dt = self._cut(wanted, left)
            tried = self._attempt(state, dt, safe)
            growth = tried.growth
            if growth >= 1.0:
                now = self.model.evaluate(tried.rho, self._rate)
                if not now.finite:
                    raise StepFailed(Status.NOT_FINITE, f"the energy or the velocity is not finite after time {state.time:.6g}")
                if now.energy <= allowed:
                    break
                growth, safe = (0.5, False) if safe or isinstance(self.stepper, Explicit) else (1.25, True)
            wanted = dt * min(max(growth, 0.1), 0.8) if growth < 1.25 else dt
        state.replaced += safe
        return self._accepted(state, tried, now, dt, left, wanted, until)

    def leap(self, state: FiniteVolumeState, until: float) -> tuple[FiniteVolumeState, Sequence[Sequence[float]]]:
        """Steps in compiled loops, where there are any for this flow; they make the same choices as ``advance``, which makes the
        steps that are refused."""
        line = self.model.line
        if line is None or self.step or not isinstance(self.stepper, Implicit):
            return state, []
        state.next_dt = self._first_guess(state) if state.next_dt == np.inf else state.next_dt
        scalars = np.array([getattr(state, name) for name in SCALAR_FIELDS])
        tolerance = self.integrator.tolerance
        rows = line.march(state.rho, state.rate, scalars, until, self._sum, tolerance, newton_precision(tolerance, False))
        for name, value in zip(SCALAR_FIELDS, scalars.tolist(), strict=True):
            setattr(state, name, value)
        state.iterations = int(state.iterations)
        if len(rows):
            self._remember(state, float(rows[-1, STEP_FIELDS.index("wall")]))
        return state, rows.tolist()

    def _remember(self, state: FiniteVolumeState, wall: float) -> None:
        """What the notes need."""
        self._replaced, self._wall_start, self._wall_mass = state.replaced, state.wall_start, wall

    def _require(self, wanted: float, time: float, until: float) -> None:
        """Raise StepFailed for steps that would never arrive; implicit ones grow fast, so theirs may begin much shorter."""
        shortest = _SMALLEST * max(until, 1e-3) if isinstance(self.stepper, Explicit) else _SMALLEST_IMPLICIT * min(until - time, 1.0)
        if wanted < max(min(shortest, until - time), 4.0 * np.finfo(float).eps * time):
            raise StepFailed(Status.STEP_TOO_SMALL, f"the step fell below {wanted:.1e} at time {time:.6g}")

    def _next(self, dt: float, wanted: float, proposed: float) -> float:
        """The step to try next; one that was cut only to meet a saved time says nothing against the one that was wanted."""
        if self.step:
            return self.step if dt < wanted else min(self.step, self.integrator.most_growth * dt)
        return max(proposed, wanted) if dt < wanted else proposed

    def _cut(self, wanted: float, left: float) -> float:
        """The step to take where ``left`` remains to the next saved time."""
        if wanted >= left * (1.0 - 1e-12):
            return left
        return min(wanted, 0.5 * left) if 2.0 * wanted > left and not self.step else wanted

    def _attempt(self, state: FiniteVolumeState, dt: float, safe: bool) -> Attempt:
        try:
            return self.integrator.attempt(state.rho, state.rate, dt, safe)
        except StepFailed:
            return Attempt(state.rho, 0.25, 0)

    def _accepted(
        self, state: FiniteVolumeState, tried: Attempt, now: Evaluation, dt: float, left: float, wanted: float, until: float
    ) -> FiniteVolumeState:
        rate, self._rate = self._rate, state.rate
        self.integrator.recycle(state.rho)
        proposed = dt * min(tried.growth * _SAFETY, self.integrator.most_growth)
        return FiniteVolumeState(
            time=until if dt == left else state.time + dt,
            rho=tried.rho,
            rate=rate,
            next_dt=self._next(dt, wanted, proposed),
            outflow=now.outflow,
            dt=dt,
            energy=now.energy,
            dissipation=now.dissipation,
            magnitude=max(state.magnitude, self.model.round_off(tried.rho, now.magnitude)),
            balance=now.energy - state.energy + 0.5 * dt * (state.dissipation + now.dissipation),
            iterations=tried.iterations,
            replaced=state.replaced,
            wall_start=state.wall_start,
        )


def _lifted(rho: FloatArray, grid: Grid) -> FloatArray:
    """The density with vacuum filled to 1e-12 of its mean, of the same mass."""
    mass = float(np.sum(rho * grid.weight))
    filled = np.maximum(rho, 1e-12 * mass / float(np.sum(np.ones(grid.size) * grid.weight)))
    return np.asarray(filled * (mass / float(np.sum(filled * grid.weight))))
