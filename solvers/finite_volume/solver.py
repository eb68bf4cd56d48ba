"""Explicit finite volumes with a positivity bound, an error control and an energy test for every step."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.march import Memory, march
from mfpde.measure import Density, DensityFunction, deposit
from mfpde.problem import Problem
from mfpde.run import Run, Status, StepFailed, StepRecord
from mfpde.solvers.finite_volume.flux import Flux, LimitedUpwind, ScharfetterGummel, fill_rate
from mfpde.solvers.kernels.transport import combine, embedded_gap

_SAFETY = 0.9
_ENERGY_ROUND_OFF = 2e-14
_ENERGY_FLOOR = 1e-28
_SMALLEST = 1e-15


@dataclass(frozen=True)
class FiniteVolume:
    """Finite volumes on a uniform grid, third-order SSP Runge–Kutta in time [Gottlieb–Shu–Tadmor 2001].

    ``cells``: one number for each axis. ``tolerance``: largest L¹ error of a step, estimated by the embedded second-order step,
    relative to the mass. ``flux``: None chooses limited upwinding without entropy and Scharfetter–Gummel with it.
    Raises ValueError for a tolerance that is not positive.
    """

    cells: tuple[int, ...]
    tolerance: float = 1e-8
    flux: Flux | None = None

    def __post_init__(self) -> None:
        if not self.tolerance > 0.0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")

    def prepare(self, problem: Problem) -> "FiniteVolumeFlow":
        """Features, potentials and buffers on the grid. Raises ValueError where grid or initial density do not fit."""
        return FiniteVolumeFlow(self, problem)

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)


class Evaluation(NamedTuple):
    """The energy, the sum of its terms' sizes, the largest outflow rate of a cell, and the dissipation."""

    energy: float
    magnitude: float
    outflow: float
    dissipation: float

    @property
    def finite(self) -> bool:
        """Whether energy and velocities are finite."""
        return bool(np.isfinite(self.energy) and np.isfinite(self.outflow))


@dataclass(eq=False)
class FiniteVolumeState:
    """Cell averages and their rate at ``time``, the next step to try, the certificate of the last one, and the largest size
    of the terms met, against which round-off is judged."""

    time: float
    rho: FloatArray
    rate: FloatArray
    next_dt: float
    outflow: float
    dt: float
    energy: float
    dissipation: float
    magnitude: float


class FiniteVolumeFlow:
    """The semi-discrete flow on one grid, with its buffers."""

    def __init__(self, choices: FiniteVolume, problem: Problem) -> None:
        self.grid = Grid(problem.domain, choices.cells)
        self.terms = {name: term.on(self.grid) for name, term in problem.energy.terms.items()}
        self.initial = problem.initial
        self.tolerance = choices.tolerance
        self.temperature = problem.energy.temperature
        noisy = self.temperature > 0.0
        self.flux = choices.flux or (ScharfetterGummel(self.temperature) if noisy else LimitedUpwind())
        self.notes = (f"flux: {self.flux.description}",)
        self._xi = np.empty(self.grid.size)
        self._stages = np.empty((3, self.grid.size))
        self._rate = np.empty(self.grid.size)

    def start(self) -> FiniteVolumeState:
        """The initial cell averages, of the initial measure's mass."""
        initial = self.initial
        density = initial.on(self.grid) if isinstance(initial, DensityFunction) else deposit(initial, self.grid)
        rho = np.array(np.ravel(density.values))
        rate = np.empty_like(rho)
        now = self._evaluate(rho, rate)
        if not now.finite:
            raise StepFailed(Status.NOT_FINITE, "the energy or the velocity of the initial density is not finite")
        return FiniteVolumeState(0.0, rho, rate, np.inf, now.outflow, 0.0, now.energy, now.dissipation, self._round_off(rho, now.magnitude))

    def restore(self, values: dict[str, Any]) -> FiniteVolumeState:
        """The state with these field values."""
        return FiniteVolumeState(**values)

    def measure(self, state: FiniteVolumeState) -> Density:
        """The cell averages."""
        return Density(self.grid, state.rho.reshape(self.grid.cells).copy())

    def energies(self, state: FiniteVolumeState) -> dict[str, float]:
        """The energy of each term."""
        return {name: term.value(state.rho) for name, term in self.terms.items()}

    def record(self, state: FiniteVolumeState) -> StepRecord:
        """The certificate of the step that led here."""
        mass = float(np.sum(state.rho)) * self.grid.cell_volume
        return StepRecord(state.time, state.dt, state.energy, mass, float(np.min(state.rho)), state.dissipation)

    def _evaluate(self, rho: FloatArray, rate: FloatArray) -> Evaluation:
        """Fill the rate."""
        self._xi[:] = 0.0
        energy, magnitude = 0.0, 0.0
        for term in self.terms.values():
            part = term.add_drift(rho, self._xi)
            if term.temperature > 0.0:
                part += term.value(rho)
            energy, magnitude = energy + part, magnitude + abs(part)
        return Evaluation(energy, magnitude, *fill_rate(self.flux, self.grid, rho, self._xi, rate))

    def _round_off(self, rho: FloatArray, magnitude: float) -> float:
        """What round-off in the last evaluated ``rho`` may do to the energy: the terms' sizes, ∫|ξ|ρ and T∫ρ, in units of the last bit."""
        np.abs(self._xi, out=self._xi)
        mass = float(np.sum(rho)) * self.grid.cell_volume
        return magnitude + float(np.dot(rho, self._xi)) * self.grid.cell_volume + self.temperature * mass

    def advance(self, state: FiniteVolumeState, until: float) -> FiniteVolumeState:
        """One accepted step: positive, within the tolerance, and not raising the energy; the state's arrays are reused."""
        left = until - state.time
        wanted = min(state.next_dt, _SAFETY / state.outflow if state.outflow > 0.0 else np.inf)
        while True:
            dt = left if wanted >= left else min(wanted, 0.5 * left) if 2.0 * wanted > left else wanted
            growth = self._attempt(state.rho, state.rate, dt)
            if growth >= 1.0:
                now = self._evaluate(self._stages[2], self._rate)
                if not now.finite:
                    raise StepFailed(Status.NOT_FINITE, f"the energy or the velocity is not finite after time {state.time:.6g}")
                if now.energy <= state.energy + _ENERGY_ROUND_OFF * state.magnitude + _ENERGY_FLOOR:
                    break
                growth = 0.5
            wanted = dt * min(growth, 0.8)
            if wanted < _SMALLEST * max(until, 1e-3):
                raise StepFailed(Status.STEP_TOO_SMALL, f"the step fell below {wanted:.1e} at time {state.time:.6g}")
        state.rho[:] = self._stages[2]
        state.rate[:] = self._rate
        proposed = dt * min(growth * _SAFETY, 3.0)
        return replace(
            state,
            time=until if dt == left else state.time + dt,
            next_dt=proposed if dt == wanted else max(proposed, min(wanted, 3.0 * dt)),
            outflow=now.outflow,
            dt=dt,
            energy=now.energy,
            dissipation=now.dissipation,
            magnitude=max(state.magnitude, self._round_off(state.rho, now.magnitude)),
        )

    def _attempt(self, rho: FloatArray, rate: FloatArray, dt: float) -> float:
        """Fill the stages; returns the factor by which the step may grow, below one if it must be refused."""
        one, two, three = self._stages
        if not combine(rho, 0.0, rho, dt, rate, one) >= 0.0:
            return 0.5
        for share, before, after in ((0.25, one, two), (2.0 / 3.0, two, three)):
            now = self._evaluate(before, self._rate)
            if now.outflow * dt > 1.0 or not combine(rho, share, before, share * dt, self._rate, after) >= 0.0:
                return 0.5
        error = embedded_gap(rho, two, three) * self.grid.cell_volume
        growth = (self.tolerance / max(error, 1e-300)) ** (1.0 / 3.0)
        return growth if np.isfinite(growth) else 0.5
