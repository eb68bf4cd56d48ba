"""Smooth noise-free flows on a line by characteristics: quadrature nodes of the initial density carried with the flow.

ρ₀ is cut into panels with Gauss–Legendre nodes a_j. The nodes move by θ̇ = −∇ξ(θ; ρ) and keep their weights, so that integrals over ρ are
as accurate as the quadrature, and ρ(θ(a)) = ρ₀(a)/θ'(a). Panels on which θ(a) is no longer resolved are halved.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Grid
from mfpde.energy.internal import Power
from mfpde.march import Memory, march
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status, StepFailed, StepRecord

_NARROWEST = 1e-6
_MOST_PANELS = 4096
_FIRST_PANELS = 8
_NEWTON = 60


@dataclass(frozen=True)
class Characteristics:
    """The PDE without internal energies on one axis, spectrally accurate where ρ₀ and the flow are smooth.

    ``cells``: the grid on which densities are stored, as exact cell masses. ``order``: nodes of a panel. ``tolerance``: relative and
    absolute, of a Dormand–Prince 8(5,3) step. ``resolution``: what may be left in the last Legendre coefficients of ρ₀ and of the flow
    on a panel. A second set of panels of a lower order runs beside the first; the distance of their energies estimates the error.
    Raises ValueError for numbers out of range.
    """

    cells: tuple[int, ...]
    order: int = 16
    tolerance: float = 1e-13
    resolution: float = 1e-12

    def __post_init__(self) -> None:
        if not 6 <= self.order <= 64:
            raise ValueError(f"order must be from 6 to 64, got {self.order}")
        if not (self.tolerance > 0.0 and self.resolution > 0.0):
            raise ValueError(f"tolerance and resolution must be positive, got {self.tolerance} and {self.resolution}")

    def prepare(self, problem: Problem) -> "CharacteristicFlow":
        """Panels for the initial density. Raises ValueError for problems that have no characteristics of this kind."""
        return CharacteristicFlow(self, problem)

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)


@dataclass(frozen=True, eq=False)
class Rule:
    """Gauss–Legendre nodes and weights on [−1, 1], (p,), and the matrix that turns values there into Legendre coefficients, (p, p)."""

    nodes: FloatArray
    weights: FloatArray
    analysis: FloatArray

    @staticmethod
    @cache
    def of(order: int) -> "Rule":
        """The rule with ``order`` nodes."""
        nodes, weights = np.polynomial.legendre.leggauss(order)
        basis = np.polynomial.legendre.legvander(nodes, order - 1)
        return Rule(nodes, weights, (basis * weights[:, None]).T * (np.arange(order) + 0.5)[:, None])


@dataclass(eq=False)
class Panels:
    """Panels [left, right] of the labels a, (P,) each, with ρ₀ and the places θ(a) at their nodes, (P, p) each."""

    left: FloatArray
    right: FloatArray
    density: FloatArray
    places: FloatArray

    @property
    def rule(self) -> Rule:
        """The rule of every panel."""
        return Rule.of(self.density.shape[1])

    @property
    def weights(self) -> FloatArray:
        """Masses of the nodes, (P, p)."""
        return np.asarray(0.5 * (self.right - self.left)[:, None] * self.rule.weights * self.density)

    @property
    def atoms(self) -> Particles:
        """The nodes as atoms."""
        return Particles(self.places.reshape(-1, 1), self.weights.ravel())

    def unresolved(self, values: FloatArray, resolution: float) -> BoolArray:
        """Which panels hold ``values`` (P, p) whose last coefficients are above ``resolution`` of the largest value, (P,)."""
        last = np.abs(values @ self.rule.analysis[-2:].T).sum(axis=1)
        wide = (self.right - self.left) > _NARROWEST * float(np.max(self.right) - np.min(self.left))
        found: BoolArray = (last > resolution * float(np.max(np.abs(values)))) & wide
        return found

    def stretch(self) -> FloatArray:
        """dθ/da at the nodes, (P, p)."""
        slope = np.polynomial.legendre.legder((self.places @ self.rule.analysis.T).T, axis=0)
        return np.asarray(2.0 * np.polynomial.legendre.legval(self.rule.nodes, slope) / (self.right - self.left)[:, None])

    def halved(self, wanted: BoolArray, function: DensityFunction) -> "Panels":
        """The panels with those ``wanted`` (P,) replaced by their halves: ρ₀ is evaluated anew, and θ by its polynomial."""
        middle = 0.5 * (self.left + self.right)
        kept = ~wanted
        left = np.concatenate([self.left[kept], self.left[wanted], middle[wanted]])
        right = np.concatenate([self.right[kept], middle[wanted], self.right[wanted]])
        coefficients = (self.places[wanted] @ self.rule.analysis.T).T
        halves = [np.polynomial.legendre.legval(0.5 * (self.rule.nodes + side), coefficients) for side in (-1.0, 1.0)]
        places = np.concatenate([self.places[kept], *halves])
        order = np.argsort(left, kind="stable")
        return Panels.at(left[order], right[order], places[order], function)

    @staticmethod
    def at(left: FloatArray, right: FloatArray, places: FloatArray, function: DensityFunction) -> "Panels":
        """Panels with ρ₀ evaluated at their nodes."""
        nodes = Rule.of(places.shape[1]).nodes
        labels = 0.5 * (left + right)[:, None] + 0.5 * (right - left)[:, None] * nodes
        return Panels(left, right, function.values(labels.reshape(-1, 1)).reshape(labels.shape), places)

    def ends(self) -> FloatArray:
        """θ at both ends of every panel, (P, 2)."""
        signs = np.stack([(-1.0) ** np.arange(self.density.shape[1]), np.ones(self.density.shape[1])], axis=1)
        return np.asarray(self.places @ self.rule.analysis.T @ signs)

    def mass_below(self, places: FloatArray) -> FloatArray:
        """∫ρ₀ over the labels with θ(a) below each of the ``places`` (E,), which increases with a; panels are in order."""
        ends, masses = self.ends(), np.sum(self.weights, axis=1)
        before = np.concatenate([[0.0], np.cumsum(masses)])
        panel = np.searchsorted(ends[:, 1], places)
        inner = np.flatnonzero((panel < len(masses)) & (places > ends[np.minimum(panel, len(masses) - 1), 0]))
        below = before[panel]
        rows = panel[inner]
        label = _inverted((self.places[rows] @ self.rule.analysis.T).T, places[inner])
        density = np.polynomial.legendre.legint((self.density[rows] @ self.rule.analysis.T).T, lbnd=-1.0, axis=0)
        part = 0.5 * (self.right - self.left)[rows] * np.polynomial.legendre.legval(label, density, tensor=False)
        below[inner] += np.clip(part, 0.0, masses[rows])
        return np.asarray(below)


def _inverted(coefficients: FloatArray, values: FloatArray) -> FloatArray:
    """s in [−1, 1] where increasing Legendre series (p, E) take ``values`` (E,), by Newton's method within brackets."""
    slope = np.polynomial.legendre.legder(coefficients, axis=0)
    low, high = np.full(values.shape, -1.0), np.full(values.shape, 1.0)
    s = np.zeros(values.shape)
    for _ in range(_NEWTON):
        gap = np.polynomial.legendre.legval(s, coefficients, tensor=False) - values
        low, high = np.where(gap < 0.0, s, low), np.where(gap < 0.0, high, s)
        steep = np.polynomial.legendre.legval(s, slope, tensor=False)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            tried = s - gap / steep
        moved = np.where((tried > low) & (tried < high), tried, 0.5 * (low + high))
        if np.max(np.abs(moved - s), initial=0.0) <= 1e-15:
            break
        s = moved
    return s


@dataclass(eq=False)
class CharacteristicState:
    """Panels [left, right] with the places of their nodes, (P, p) and, of the coarser set, (P, q); the next step to try, and the
    certificate of the last one. ``error``: the largest distance so far between the energies of both sets, relative to ``scale``, which is
    that of the first energy."""

    time: float
    left: FloatArray
    right: FloatArray
    places: FloatArray
    coarse: FloatArray
    next_dt: float
    dt: float
    energy: float
    dissipation: float
    balance: float
    error: float
    scale: float


class CharacteristicFlow:
    """The flow of both sets of nodes."""

    def __init__(self, choices: Characteristics, problem: Problem) -> None:
        if not isinstance(problem.initial, DensityFunction):
            raise ValueError("characteristics need an initial density; atoms are solved by particles")
        if problem.domain.dimension != 1 or problem.domain.box is not problem.domain:
            raise ValueError(f"characteristics are for one axis, the domain has {problem.domain.dimension}")
        if problem.energy.temperature > 0.0 or any(isinstance(term, Power) for term in problem.energy.terms.values()):
            raise ValueError("characteristics need an energy without entropy and powers of the density")
        self.choices, self.problem, self.domain = choices, problem, problem.domain
        self.function = problem.initial
        self.grid: Grid = problem.domain.grid(choices.cells)
        self._first = self._panels()
        self._total = float(np.sum(self._first.weights))
        self._error, self._count, self._walled = 0.0, len(self._first.left), False

    @property
    def notes(self) -> tuple[str, ...]:
        """How many panels there are and what the second resolution says."""
        orders = f"{self.choices.order} and {self._coarse_order} nodes a panel"
        found = f"{self._count} panels; with {orders} the energies differ by at most {self._error:.0e} relative to the first one"
        walled = ("mass has reached a wall, where the flow is not smooth: the error is larger there",) if self._walled else ()
        return (found, *walled)

    @property
    def _coarse_order(self) -> int:
        return self.choices.order - 4

    def _panels(self) -> Panels:
        """Panels on which ρ₀ is resolved; those without mass are left out."""
        edges = np.linspace(float(self.domain.lower[0]), float(self.domain.upper[0]), _FIRST_PANELS + 1)
        left, right = edges[:-1], edges[1:]
        while True:
            panels = Panels.at(left, right, self._labels(left, right, self.choices.order), self.function)
            rough = panels.unresolved(panels.density, self.choices.resolution)
            if not rough.any():
                break
            if len(left) > _MOST_PANELS:
                raise ValueError(f"the initial density is not resolved by {_MOST_PANELS} panels; use finite volumes or particles")
            middle = 0.5 * (left + right)[rough]
            left, right = np.sort(np.concatenate([left, middle])), np.sort(np.concatenate([right, middle]))
        kept = np.sum(panels.density, axis=1) > 0.0
        if not kept.any():
            raise ValueError("the density must have a positive finite integral over the domain, got 0")
        return Panels(panels.left[kept], panels.right[kept], panels.density[kept], panels.places[kept])

    def _labels(self, left: FloatArray, right: FloatArray, order: int) -> FloatArray:
        return np.asarray(0.5 * (left + right)[:, None] + 0.5 * (right - left)[:, None] * Rule.of(order).nodes)

    def _set(self, state: CharacteristicState, coarse: bool = False) -> Panels:
        """The panels of a state, of mass one."""
        panels = Panels.at(state.left, state.right, state.coarse if coarse else state.places, self.function)
        panels.density = panels.density / self._total
        return panels

    def start(self) -> CharacteristicState:
        """Nodes at their labels."""
        first = self._first
        coarse = self._labels(first.left, first.right, self._coarse_order)
        state = CharacteristicState(0.0, first.left, first.right, first.places, coarse, np.nan, 0.0, np.nan, np.nan, 0.0, 0.0, np.nan)
        self._certify(state, 0.0)
        return state

    def restore(self, values: dict[str, Any]) -> CharacteristicState:
        """The state with these field values."""
        return CharacteristicState(**values)

    def measure(self, state: CharacteristicState) -> Density:
        """Exact masses of the grid's cells; on circles all that went round is brought back."""
        panels, edges = self._set(state), self.grid.edges(0)
        length = float(edges[-1] - edges[0])
        turns = range(1)
        if self.grid.periodic(0):
            ends = panels.ends()
            turns = range(int(np.floor((ends.min() - edges[0]) / length)), int(np.floor((ends.max() - edges[0]) / length)) + 1)
        masses = np.zeros(self.grid.size)
        for turn in turns:
            below = panels.mass_below(edges + turn * length)
            if not self.grid.periodic(0):
                below[0], below[-1] = 0.0, float(np.sum(panels.weights))
            masses += np.maximum(np.diff(below), 0.0)
        return Density(self.grid, masses / (np.sum(masses) * self.grid.cell_volume))

    def energies(self, state: CharacteristicState) -> dict[str, float]:
        """The energy of each term, by the nodes' quadrature."""
        return self.problem.energy.values(self._set(state).atoms)

    def record(self, state: CharacteristicState) -> StepRecord:
        """The certificate of the step that led here."""
        panels = self._set(state)
        with np.errstate(divide="ignore", invalid="ignore"):
            least = float(np.nanmin(panels.density / panels.stretch()))
        weights = panels.weights
        on_wall = self.domain.touching(state.places.reshape(-1, 1)).any(axis=1)
        wall = float(np.sum(weights.ravel()[on_wall]))
        self._error, self._count, self._walled = max(self._error, state.error), len(state.left), self._walled or wall > 0.0
        mass = float(np.sum(weights))
        return StepRecord(state.time, state.dt, state.energy, mass, least, state.dissipation, state.balance, wall)

    def _velocity(self, state: CharacteristicState, flat: FloatArray) -> FloatArray:
        """Those of both sets, one after the other; ``flat`` may overshoot walls within a step."""
        result = np.empty_like(flat)
        start = 0
        for panels in (self._set(state), self._set(state, coarse=True)):
            size = panels.places.size
            free, held = flat[start : start + size, None], self.domain.touching(panels.places.reshape(-1, 1))
            points = self.domain.confine(free)
            slope = self.problem.energy.gradient(Particles(points, panels.weights.ravel()), points)
            result[start : start + size] = self.domain.slide(-slope, free, held)[:, 0]
            start += size
        return result

    def advance(self, state: CharacteristicState, until: float) -> CharacteristicState:
        """One accepted step, after which panels that are no longer resolved are halved."""
        from scipy.integrate import DOP853

        left, tolerance = until - state.time, self.choices.tolerance
        first = None if np.isnan(state.next_dt) else min(state.next_dt, left)
        flat = np.concatenate([state.places.ravel(), state.coarse.ravel()])
        stepper = DOP853(
            lambda _, y: self._velocity(state, y), state.time, flat, until, rtol=max(tolerance, 3e-14), atol=tolerance, first_step=first
        )
        message = stepper.step()
        if stepper.status == "failed" or not np.isfinite(stepper.y).all():
            raise StepFailed(Status.STEP_TOO_SMALL, f"{message or 'a place is not finite'} (time {state.time:.6g})")
        moved = stepper.y if self.grid.periodic(0) else self.domain.confine(stepper.y[:, None])[:, 0]
        cut = first is not None and first < state.next_dt
        next_dt = max(float(stepper.h_abs), state.next_dt) if cut else float(stepper.h_abs)
        places, coarse = (part.reshape(len(state.left), -1) for part in np.split(moved, [state.places.size]))
        dt = float(stepper.t - state.time)
        new = CharacteristicState(
            float(stepper.t),
            state.left,
            state.right,
            places,
            coarse,
            next_dt,
            dt,
            state.energy,
            state.dissipation,
            0.0,
            state.error,
            state.scale,
        )
        self._refine(new)
        self._certify(new, dt)
        return new

    def _refine(self, state: CharacteristicState) -> None:
        """Halve the panels on which the flow is no longer resolved."""
        while True:
            panels = self._set(state)
            rough = panels.unresolved(state.places, self.choices.resolution)
            on_wall = np.any(self.domain.touching(state.places.reshape(-1, 1)).reshape(len(state.left), -1), axis=1)
            rough = rough & ~on_wall
            if not rough.any():
                return
            if len(state.left) > _MOST_PANELS:
                message = f"the flow is not resolved by {_MOST_PANELS} panels any more after time {state.time:.6g}"
                raise StepFailed(Status.NOT_CONVERGED, message)
            fine, coarse = (self._set(state, low).halved(rough, self.function) for low in (False, True))
            state.left, state.right, state.places, state.coarse = fine.left, fine.right, fine.places, coarse.places

    def _certify(self, state: CharacteristicState, dt: float) -> None:
        """Fill energy, dissipation, balance and error."""
        fine, coarse = self._set(state), self._set(state, coarse=True)
        energy, before = self.problem.energy.value(fine.atoms), state.energy
        velocity = self._velocity(state, np.concatenate([state.places.ravel(), state.coarse.ravel()]))[: state.places.size]
        dissipation = float(np.sum(fine.weights.ravel() * velocity**2))
        if dt > 0.0:
            state.balance = energy - before + 0.5 * dt * (state.dissipation + dissipation)
        else:
            state.scale = max(abs(energy), 1e-300)
        state.energy, state.dissipation = energy, dissipation
        state.error = max(state.error, abs(self.problem.energy.value(coarse.atoms) - energy) / state.scale)
