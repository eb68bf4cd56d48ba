"""The solver: both sets of nodes carried by the flow, step by step."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Grid
from mfpde.energy.constraints import refuse_constraints
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Power
from mfpde.energy.wide_resnets import WideResNet
from mfpde.march import Memory, march
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status, StepFailed, StepRecord
from mfpde.solvers.characteristics import box, line
from mfpde.solvers.characteristics.cells import cell_masses
from mfpde.solvers.characteristics.panels import Panels, labels_of

_ORDERS = {1: 16, 2: 16, 3: 12}
_TOLERANCES = {1: 1e-13, 2: 1e-11, 3: 1e-10}
_RESOLUTIONS = {1: 1e-12, 2: 1e-10, 3: 1e-8}
_SECOND = 4
_FLOW_RESOLUTION = 100.0
"""Integrals by p nodes see coefficients of degree 2p, so that those of degree p may be larger."""
_COARSER = 0.75
_LIGHTEST = 1e-8


@dataclass(frozen=True)
class Characteristics:
    """The PDE without internal energies in a box of up to three axes, spectrally accurate where ρ₀ and the flow are smooth.

    ``cells``: the grid on which densities are stored, as exact cell masses on one axis, to sixth order in the distance of many nodes on
    more. ``order``: nodes of a panel along each axis; 16, on three axes 12. ``tolerance``: relative and absolute, of a Dormand–Prince
    8(5,3) step; 1e-13, 1e-11 and 1e-10 on one, two and three axes. ``resolution``: on one axis what may be left in the last Legendre
    coefficients of ρ₀ and of the flow on a panel, 1e-12; on two and three axes the share of the mass by which the integrals of ρ₀ against
    polynomials may be wrong, 1e-10 and 1e-8, and a hundredth of what may be left in the last coefficients of the flow, weighted with
    the mass. A second set of panels of a lower order runs beside the first; the distance of their energies estimates the error.
    Raises ValueError for numbers out of range.
    """

    cells: tuple[int, ...]
    order: int | None = None
    tolerance: float | None = None
    resolution: float | None = None

    def __post_init__(self) -> None:
        if self.order is not None and not 6 <= self.order <= 64:
            raise ValueError(f"order must be from 6 to 64, got {self.order}")
        if not all(value is None or value > 0.0 for value in (self.tolerance, self.resolution)):
            raise ValueError(f"tolerance and resolution must be positive, got {self.tolerance} and {self.resolution}")

    def prepare(self, problem: Problem) -> "CharacteristicFlow":
        """Panels for the initial density. Raises ValueError for problems that have no characteristics of this kind."""
        refuse_constraints(problem.energy, "characteristics")
        return CharacteristicFlow(self, problem)

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)


@dataclass(eq=False)
class CharacteristicState:
    """Panels from ``lower`` to ``upper``, (P, d), with the places of their nodes, (P, p^d, d) and, of the coarser set, (P, q^d, d); the
    next step to try, and the certificate of the last one. ``error``: the largest distance so far between the energies of both sets,
    ``scale``: the largest energy of either sign. ``spread``: the largest distance between the cell masses of both, in L¹."""

    time: float
    lower: FloatArray
    upper: FloatArray
    places: FloatArray
    coarse: FloatArray
    next_dt: float
    dt: float
    energy: float
    dissipation: float
    balance: float
    error: float
    scale: float
    spread: float


class CharacteristicFlow:
    """The flow of both sets of nodes."""

    def __init__(self, choices: Characteristics, problem: Problem) -> None:
        _check(problem)
        assert isinstance(problem.initial, DensityFunction)
        self.problem, self.domain, self.function = problem, problem.domain, problem.initial
        self.grid: Grid = problem.domain.grid(choices.cells)
        self.dimension = problem.domain.dimension
        self.order = choices.order or _ORDERS[self.dimension]
        self.tolerance = choices.tolerance or _TOLERANCES[self.dimension]
        self.resolution = choices.resolution or _RESOLUTIONS[self.dimension]
        self._wall_share = 0.0 if self.dimension == 1 else self.resolution
        self._held: dict[bool, Panels] = {}
        self._first = self._first_panels()
        self._total = float(np.sum(self._first.weights))
        if not self._total > 0.0:
            raise ValueError("the density must have a positive finite integral over the domain, got 0")
        self._error, self._spread, self._count, self._walled = 0.0, 0.0, len(self._first.lower), False

    @property
    def notes(self) -> tuple[str, ...]:
        """How many panels there are, what the second resolution says, and what the kernels and walls do to it."""
        orders = f"{self.order} and {self._coarse_order} nodes a panel{' and axis' if self.dimension > 1 else ''}"
        found = [f"{self._count} panels; with {orders} the energies differ by at most {self._error:.0e} of the largest one"]
        if self.dimension > 1:
            found.append(
                f"cell masses to sixth order in the distance of the nodes that share them; both sets differ by {self._spread:.0e} in L1"
            )
        if self._walled:
            found.append("mass has reached a wall, where the flow is not smooth: the error is larger there")
        return (*found, *_kinks(self.problem))

    @property
    def _coarse_order(self) -> int:
        return self.order - _SECOND

    def _first_panels(self) -> Panels:
        make = line.first_panels if self.dimension == 1 else box.first_panels
        return make(self.domain, self.function, self.order, self.resolution)

    def _set(self, state: CharacteristicState, coarse: bool = False) -> Panels:
        """The panels of a state, of mass one; ρ₀ is not evaluated again until panels are halved."""
        places, order = (state.coarse, self._coarse_order) if coarse else (state.places, self.order)
        held = self._held.get(coarse)
        if held is None or held.lower is not state.lower:
            held = Panels.at(state.lower, state.upper, places, order, self.function)
            held.density = held.density / self._total
            self._held[coarse] = held
        return Panels(state.lower, state.upper, order, held.density, places)

    def start(self) -> CharacteristicState:
        """Nodes at their labels."""
        first = self._first
        coarse = labels_of(first.lower, first.upper, self._coarse_order)
        state = CharacteristicState(0.0, first.lower, first.upper, first.places, coarse, np.nan, 0.0, np.nan, np.nan, 0.0, 0.0, np.nan, 0.0)
        self._certify(state, 0.0)
        return state

    def restore(self, values: dict[str, Any]) -> CharacteristicState:
        """The state with these field values."""
        state = CharacteristicState(**values)
        self._spread = max(self._spread, state.spread)
        return state

    def measure(self, state: CharacteristicState) -> Density:
        """The masses of the grid's cells."""
        panels = self._set(state)
        if self.dimension == 1:
            masses = line.cell_masses(panels, self.grid)
            masses = masses / np.sum(masses)
        else:
            finer = _COARSER * self.order / self._coarse_order
            masses = cell_masses(panels, self.grid, self.function)
            others = cell_masses(self._set(state, coarse=True), self.grid, self.function, finer)
            state.spread = self._spread = max(self._spread, state.spread, float(np.sum(np.abs(masses - others))))
        return Density(self.grid, (masses / self.grid.cell_volume).reshape(self.grid.cells))

    def nodes(self, state: CharacteristicState) -> tuple[Particles, FloatArray]:
        """The nodes as atoms of sum one, and log ρ there, (N,), from ρ = ρ₀/det ∂θ/∂a; −∞ where ρ₀ is zero."""
        panels = self._set(state)
        with np.errstate(divide="ignore"):
            return panels.atoms, np.log(panels.density.ravel()) - np.log(np.abs(panels.stretch().ravel()))

    def energies(self, state: CharacteristicState) -> dict[str, float]:
        """The energy of each term, by the nodes' quadrature."""
        return self.problem.energy.values(self._set(state).atoms)

    def record(self, state: CharacteristicState) -> StepRecord:
        """The certificate of the step that led here."""
        panels = self._set(state)
        weights, touching = panels.weights, self._touching(state.places)
        wall = float(np.sum(weights[touching]))
        self._error, self._count = state.error / state.scale, len(state.lower)
        self._walled = self._walled or wall > self._wall_share
        mass, least = float(np.sum(weights)), self._least(panels, touching)
        return StepRecord(state.time, state.dt, state.energy, mass, least, state.dissipation, state.balance, wall)

    def _least(self, panels: Panels, touching: BoolArray) -> float:
        """The least density at the nodes; on two and three axes without the panels that a wall has folded up, and those with so little mass
        that the flow need not be resolved on them."""
        if self.dimension > 1:
            light = np.sum(panels.weights, axis=1) < _LIGHTEST
            panels = panels.taken(np.asarray(~(touching.any(axis=1) | light)))
        if not len(panels.lower):
            return 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.nanmin(panels.density / panels.stretch()))

    def _touching(self, places: FloatArray) -> BoolArray:
        """Which nodes sit on a wall, (P, n)."""
        touching = self.domain.touching(places.reshape(-1, self.dimension))
        return np.asarray(np.any(touching, axis=1)).reshape(places.shape[:2])

    def _velocity(self, panels: Panels, flat: FloatArray) -> FloatArray:
        """The velocity (N, d) of the nodes of a set that have come to ``flat`` (N d,), which may overshoot walls within a step."""
        free = flat.reshape(-1, self.dimension)
        held = self.domain.touching(panels.places.reshape(-1, self.dimension))
        points = self.domain.confine(free)
        slope = self.problem.energy.gradient(Particles(points, panels.weights.ravel()), points)
        return self.domain.slide(-slope, free, held)

    def _velocities(self, state: CharacteristicState, flat: FloatArray) -> FloatArray:
        """Those of both sets, one after the other."""
        parts = np.split(flat, [state.places.size])
        sets = (self._set(state), self._set(state, coarse=True))
        return np.concatenate([self._velocity(panels, part).ravel() for panels, part in zip(sets, parts, strict=True)])

    def advance(self, state: CharacteristicState, until: float) -> CharacteristicState:
        """One accepted step, after which panels that are no longer resolved are halved."""
        from scipy.integrate import DOP853

        left = until - state.time
        first = None if np.isnan(state.next_dt) else min(state.next_dt, left)
        flat = np.concatenate([state.places.ravel(), state.coarse.ravel()])
        scale = self._error_scale(state)
        rtol, atol = np.maximum(self.tolerance * scale, 3e-14), self.tolerance * scale
        kept: dict[str, Any] = {"rtol": rtol, "atol": atol, "first_step": first}
        stepper = DOP853(lambda _, y: self._velocities(state, y), state.time, flat, until, **kept)
        message = stepper.step()
        if stepper.status == "failed" or not np.isfinite(stepper.y).all():
            raise StepFailed(Status.STEP_TOO_SMALL, f"{message or 'a place is not finite'} (time {state.time:.6g})")
        cut = first is not None and first < state.next_dt
        next_dt = max(float(stepper.h_abs), state.next_dt) if cut else float(stepper.h_abs)
        moved = np.split(stepper.y, [state.places.size])
        new = CharacteristicState(
            time=float(stepper.t),
            lower=state.lower,
            upper=state.upper,
            places=self._confined(moved[0], state.places),
            coarse=self._confined(moved[1], state.coarse),
            next_dt=next_dt,
            dt=float(stepper.t - state.time),
            energy=state.energy,
            dissipation=state.dissipation,
            balance=0.0,
            error=state.error,
            scale=state.scale,
            spread=state.spread,
        )
        self._refine(new)
        self._certify(new, new.dt)
        return new

    def _error_scale(self, state: CharacteristicState) -> FloatArray | float:
        """What multiplies the tolerance of each coordinate of both sets: on two and three axes the norm of the error is weighted with the
        panels' masses, so that nodes with hardly any mass, which reach walls first, do not set the step."""
        if self.dimension == 1:
            return 1.0
        masses = np.sum(self._set(state).weights, axis=1)
        scale = 1.0 / np.sqrt(np.maximum(len(masses) * masses, _LIGHTEST))
        return np.concatenate([np.repeat(scale, places[0].size) for places in (state.places, state.coarse)])

    def _confined(self, flat: FloatArray, old: FloatArray) -> FloatArray:
        """Places in the shape of the ``old`` ones, within the walls; those on circles go on, so that panels stay whole."""
        free = flat.reshape(-1, self.dimension)
        return np.where(self.domain.periodic, free, self.domain.confine(free)).reshape(old.shape)

    def _refine(self, state: CharacteristicState) -> None:
        """Halve the panels on which the flow is no longer resolved, except those at walls, where it is not smooth."""
        most = line.MOST_PANELS if self.dimension == 1 else box.most_panels(self.order, self.dimension)
        while True:
            axes = self._unresolved(state)
            if (axes < 0).all():
                return
            if len(state.lower) > most:
                raise StepFailed(Status.NOT_CONVERGED, f"the flow is not resolved by {most} panels any more after time {state.time:.6g}")
            fine, coarse = (self._set(state, low).halved(axes, self.function) for low in (False, True))
            state.lower, state.upper, state.places, state.coarse = fine.lower, fine.upper, fine.places, coarse.places

    def _unresolved(self, state: CharacteristicState) -> IntArray:
        """The axis along which to halve each panel, or −1, (P,)."""
        panels = self._set(state)
        free = np.sum(panels.weights * self._touching(state.places), axis=1) <= self._wall_share
        if self.dimension == 1:
            return np.where(free, line.unresolved(panels, state.places[:, :, 0], self.resolution), -1)
        axes = np.full(len(free), -1)
        if free.any():
            axes[free] = box.unresolved(panels.taken(free), self.domain, _FLOW_RESOLUTION * self.resolution)
        return axes

    def _certify(self, state: CharacteristicState, dt: float) -> None:
        """Fill energy, dissipation, balance and error."""
        fine, coarse = self._set(state), self._set(state, coarse=True)
        energy, before = self.problem.energy.value(fine.atoms), state.energy
        velocity = self._velocity(fine, state.places.ravel())
        dissipation = float(np.sum(fine.weights.ravel()[:, None] * velocity**2))
        if dt > 0.0:
            state.balance = energy - before + 0.5 * dt * (state.dissipation + dissipation)
        else:
            state.scale = 1e-300
        state.energy, state.dissipation = energy, dissipation
        state.error = max(state.error, abs(self.problem.energy.value(coarse.atoms) - energy))
        state.scale = max(state.scale, abs(energy))


def _check(problem: Problem) -> None:
    """Raises ValueError for problems that have no characteristics of this kind."""
    if not isinstance(problem.initial, DensityFunction):
        raise ValueError("characteristics need an initial density; atoms are solved by particles")
    if problem.domain.box is not problem.domain:
        raise ValueError("characteristics are for boxes, not disks; give the square around it, or use finite volumes or particles")
    if problem.domain.dimension > 3:
        raise ValueError(f"characteristics are for up to 3 axes, the domain has {problem.domain.dimension}; use particles")
    if problem.energy.temperature > 0.0 or any(isinstance(term, Power) for term in problem.energy.terms.values()):
        raise ValueError("characteristics need an energy without entropy and powers of the density")
    if problem.domain.dimension == 1:
        return
    for name, term in problem.energy.terms.items():
        if isinstance(term, WideResNet) and term.network.deep:
            raise ValueError(f"{name} falls into levels along the depth, which smooth panels do not; use finite volumes or particles")
        if isinstance(term, Interaction) and term.kernel.at_zero is None:
            raise ValueError(f"the kernel of {name} is infinite at 0, where nodes do not see each other; use finite volumes or particles")


def _kinks(problem: Problem) -> tuple[str, ...]:
    """Which kernels make the quadrature less than spectral."""
    if problem.domain.dimension == 1:
        return ()
    kernels = {name: term.kernel for name, term in problem.energy.terms.items() if isinstance(term, Interaction)}
    kinked = [name for name, kernel in kernels.items() if kernel.quadratic is None and not kernel.resolved(1e-4 * kernel.extent)]
    said = "has a kink at 0: sums over the nodes are of low order, as the distance of the energies says"
    return tuple(f"the kernel of {name} {said}" for name in kinked)
