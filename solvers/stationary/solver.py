"""The solver for stationary states: no marching, one computation whose result belongs to the end of time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.constraints import refuse_constraints
from mfpde.march import Memory, march
from mfpde.measure import Density, DensityFunction, deposit
from mfpde.problem import Problem
from mfpde.run import WALL_ADVICE, WARNING, Run, Status, StepFailed, StepRecord
from mfpde.solvers.stationary.branches import Branch, explore, prepare_landscape
from mfpde.solvers.stationary.starts import fineness, starts

_EQUAL = 1e-12
_NARROW = 1.5
_WALL_DENSITY = 0.02


@dataclass(frozen=True)
class Stationary:
    """Stationary states ξ(ρ) + T log ρ (+ Σ c m ρ^{m−1}/(m − 1)) = const of energies with an entropy or a power, on a uniform grid.

    With an interaction that is convex the state is unique, the maximum of a concave dual problem. Else ``starts`` starts are tried,
    some of them drawn with ``seed``, and every distinct state is a branch. ``select``: the branch that is stored as the density,
    "initial" for the one found from the initial density, "lowest" for that of least free energy. ``tolerance``: the largest
    error that counts as converged, relative to the variation of the potential; the iterations go on to round-off.
    The level is one constant on the whole domain (in every slice of frozen axes), so that without entropy states whose support
    falls into parts of different levels are not found.
    The run has one frame, at the last saved time, which stands for t = ∞. Raises ValueError for numbers that are not positive.
    """

    cells: tuple[int, ...]
    starts: int = 8
    seed: int = 0
    tolerance: float = 1e-10
    select: Literal["initial", "lowest"] = "initial"

    def __post_init__(self) -> None:
        if self.starts < 1:
            raise ValueError(f"starts must be at least 1, got {self.starts}")
        if not self.tolerance > 0.0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        if self.select not in ("initial", "lowest"):
            raise ValueError(f'select must be "initial" or "lowest", got {self.select!r}')

    def prepare(self, problem: Problem) -> "StationaryFlow":
        """Features, potentials and kernels on the grid. Raises ValueError where the energy or the grid does not fit."""
        refuse_constraints(problem.energy, "the search for stationary states")
        return StationaryFlow(self, problem)

    def solve(self, problem: Problem) -> Run:
        """Compute in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes, flow.tables)


@dataclass(eq=False)
class StationaryState:
    """The density (size,) at ``time``, 0 with the initial one and the last saved time with the stationary one; the branches with
    their numbers, one row each, none at first; what there is to tell, as JSON."""

    time: float
    rho: FloatArray
    dt: float
    densities: FloatArray
    numbers: FloatArray
    means: FloatArray
    deviations: FloatArray
    notes: str


class StationaryFlow:
    """The stationary states of one problem on one grid, seen as a flow of a single step."""

    def __init__(self, choices: Stationary, problem: Problem) -> None:
        if problem.save_at[-1] <= 0.0:
            raise ValueError("the stationary state stands at the last saved time, which must be positive")
        self.choices, self.grid = choices, problem.domain.grid(choices.cells)
        initial = problem.initial
        density = initial.on(self.grid) if isinstance(initial, DensityFunction) else deposit(initial, self.grid)
        self.initial = np.array(np.ravel(density.values))
        self.landscape = prepare_landscape(self.grid, problem.energy, self.initial)
        self.names = tuple(problem.energy.terms)
        self._scheme = (f"stationary states: {self.landscape.system.coupling.description}",)
        self.notes = self._scheme
        self.tables: dict[str, FloatArray] = {}

    def save_at(self, wanted: Sequence[float]) -> Sequence[float]:
        """The last time alone: nothing is known of the way there."""
        return wanted[-1:]

    def start(self) -> StationaryState:
        """The initial density and no branches."""
        size, dimension = self.grid.size, self.grid.domain.dimension
        empty = np.zeros((0, dimension))
        return StationaryState(0.0, self.initial.copy(), 0.0, np.zeros((0, size)), np.zeros((0, 5)), empty, empty, "[]")

    def restore(self, values: dict[str, Any]) -> StationaryState:
        """The state with these field values."""
        state = StationaryState(**values)
        self._publish(state)
        return state

    def advance(self, state: StationaryState, until: float) -> StationaryState:
        """All branches, at once."""
        system = self.landscape.system
        if not (np.isfinite(system.energy(state.rho)) and np.isfinite(system.linear).all()):
            raise StepFailed(Status.NOT_FINITE, "the energy of the initial density or the potential is not finite")
        count = 1 if system.coupling.convex else self.choices.starts
        shapes = starts(self.grid, self.initial, self.landscape.linear, count, self.choices.seed)
        branches, failed = explore(self.landscape, shapes, self.choices.tolerance)
        chosen = self._chosen(branches, failed)
        notes = self._told(branches, chosen, failed)
        after = replace(
            state,
            time=until,
            rho=branches[chosen].rho.copy(),
            dt=until - state.time,
            densities=np.array([b.rho for b in branches]),
            numbers=np.array([(b.energy, b.residual, b.eigenvalue, b.stable, k == chosen) for k, b in enumerate(branches)], dtype=float),
            means=np.array([b.mean for b in branches]),
            deviations=np.array([b.deviation for b in branches]),
            notes=json.dumps(notes),
        )
        self._publish(after)
        return after

    def _chosen(self, branches: list[Branch], failed: list[tuple[str, float]]) -> int:
        """Index of the branch to store. Raises StepFailed where the search for it did not converge."""
        if not branches or (self.choices.select == "initial" and failed and failed[0][0] == "initial"):
            name, error = failed[0]
            others = f"; other starts found {len(branches)} stationary states" if branches else ""
            raise StepFailed(
                Status.NOT_CONVERGED, f"from the {name} density the search ended with an error of {error:.1e} in the potential{others}"
            )
        if self.choices.select == "initial":
            return next(k for k, branch in enumerate(branches) if "initial" in branch.origins)
        lowest = min(branch.energy for branch in branches)
        return next(k for k, branch in enumerate(branches) if branch.energy <= lowest + _EQUAL * (1.0 + abs(lowest)))

    def _told(self, branches: list[Branch], chosen: int, failed: list[tuple[str, float]]) -> list[str]:
        """One line for each branch, and for what else there is to know."""
        lines = []
        for k, branch in enumerate(branches):
            mark = " (stored)" if k == chosen and len(branches) > 1 else ""
            lines.append(f"branch {k + 1}{mark}: {branch.described(self.grid.domain.names)}")
        if self.landscape.system.coupling.convex:
            lines.append(f"the free energy is convex: no other stationary state; duality gap {branches[0].duality_gap:.0e}")
        lines += [f"not converged from {name}: error {error:.0e}" for name, error in failed]
        lines += self._warnings(branches[chosen])
        return lines

    def _warnings(self, branch: Branch) -> list[str]:
        """What makes the stored state depend on the grid or the domain."""
        lines, moving = [], ~self.grid.domain.frozen
        if np.any((branch.deviation < _NARROW * fineness(self.grid)) & moving) and min(self.grid.cells) > 1:
            lines.append(f"{WARNING}the stored state is hardly wider than a cell, so that it depends on the grid; use more cells")
        wall = self._wall_share(branch.rho)
        even = self._wall_share(np.ones(self.grid.size))
        if wall > _WALL_DENSITY * even:
            density = f"where the density is {wall / even:.2g} of its mean"
            lines.append(f"{WARNING}{wall:.2%} of the mass lies in the cells at walls, {density}; {WALL_ADVICE}")
        return lines

    def _wall_share(self, rho: FloatArray) -> float:
        """The share of the mass in cells at walls that are not part of the model."""
        weight = self.landscape.system.local.weight
        return float(np.sum((weight * rho)[self.grid.cutoff_cells]) / (weight @ rho))

    def _publish(self, state: StationaryState) -> None:
        """The notes and tables of a state."""
        self.notes = (*self._scheme, *json.loads(state.notes))
        if not len(state.numbers):
            return
        count = len(state.numbers)
        columns = dict(zip(("energy", "residual", "eigenvalue", "stable", "stored"), state.numbers.T, strict=True))
        self.tables = {f"branches/{name}": np.array(values) for name, values in columns.items()}
        self.tables["branches/temperature"] = np.full(count, self.landscape.system.local.temperature)
        self.tables["branches/density"] = state.densities.reshape(count, *self.grid.cells).copy()
        self.tables["branches/mean"], self.tables["branches/deviation"] = state.means.copy(), state.deviations.copy()

    def measure(self, state: StationaryState) -> Density:
        """The cell averages."""
        return Density(self.grid, state.rho.reshape(self.grid.cells).copy())

    def energies(self, state: StationaryState) -> dict[str, float]:
        """The energy of each term."""
        return {name: term.value(state.rho) for name, term in zip(self.names, self.landscape.system.terms, strict=True)}

    def record(self, state: StationaryState) -> StepRecord:
        """The certificate of the state. No flow leads here from the start, so that there is no balance to speak of."""
        system, rho = self.landscape.system, state.rho
        mass, least = float(system.local.weight @ rho), float(np.min(rho))
        with np.errstate(all="ignore"):  # an initial density whose energy is not finite is refused by the step
            energy, dissipation = system.energy(rho), self._dissipation(rho)
        return StepRecord(state.time, state.dt, energy, mass, least, dissipation, wall=self._wall_share(rho))

    def _dissipation(self, rho: FloatArray) -> float:
        """∫ρ|∇(ξ + T log ρ)|² by differences between neighbouring cells that both hold mass."""
        total, grid, whole = self.landscape.system.chemical_potential(rho), self.grid, 0.0
        for axis in grid.moving:
            metric, count = grid.metric(axis), grid.cells[axis]
            shape = (len(metric.scale), count, -1)
            beside = (np.arange(count) + 1) % count if grid.periodic(axis) else np.arange(1, count)
            here = np.arange(len(beside))
            values, densities = total.reshape(shape), rho.reshape(shape)
            both = np.where(np.minimum(densities[:, beside], densities[:, here]) > 1e-290, densities[:, beside] + densities[:, here], 0.0)
            rise = np.where(both > 0.0, values[:, beside] - values[:, here], 0.0)
            slope = rise / (metric.spacing * metric.scale)[:, None, None]
            volume = metric.area[1 : len(beside) + 1] * metric.cross * metric.spacing
            whole += float(np.sum(0.5 * both * slope**2 * volume[None, :, None] * metric.scale[:, None, None]))
        return whole
