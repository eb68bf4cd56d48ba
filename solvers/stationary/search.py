"""From a start to a stationary state: concave duality, the convex–concave procedure, Newton's method, continuation in temperature."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.base import GridEnergy
from mfpde.energy.internal import VACUUM, GridPower
from mfpde.solvers.stationary.coupling import Coupling
from mfpde.solvers.stationary.local import Local, Response

_NEWTON_STEPS = 40
_HALVINGS = 30
_ROUNDS = 20
_LARGE = 0.1
_ROUND_STEPS = 20
_GOAL = 1e-4
_INNER = 1e-7
_ROUND_OFF = 1e-11
_DENSITY_ERROR = 1e-4
_HEATINGS = 12
_HEAT = 8.0
_COLDEST = 1e-7
_FAINTEST = 1e-290


@dataclass(frozen=True, eq=False)
class System:
    """A free energy on one grid: its local part, its interaction in coordinates, its linear part (size,) and all of its terms."""

    local: Local
    coupling: Coupling
    linear: FloatArray
    terms: tuple[GridEnergy, ...]

    def energy(self, rho: FloatArray) -> float:
        """The free energy, term by term."""
        return float(sum(term.value(rho) for term in self.terms))

    def chemical_potential(self, rho: FloatArray) -> FloatArray:
        """ξ + T log ρ, (size,), from the terms themselves; T log ρ is left out where ρ vanishes."""
        xi = np.zeros_like(rho)
        for term in self.terms:
            term.add_drift(rho, xi)
        if self.local.temperature > 0.0:
            xi += self.local.temperature * np.log(np.maximum(rho, 1e-300))
        return xi

    @property
    def faintest(self) -> float:
        """The density above which the terms tell ξ + T log ρ: powers with m < 1 are cut off in a vacuum."""
        return VACUUM if any(m < 1.0 for m, _ in self.local.powers) else _FAINTEST

    def residual(self, rho: FloatArray) -> float:
        """Largest variation of ξ + T log ρ over the cells of a slice with ρ > ``faintest``; with powers also what an empty cell lies below
        them."""
        total, held = self.chemical_potential(rho), rho > self.faintest
        spread = self.local.spread(total, held)
        if not self.local.powers:
            return spread
        parts, here = total[self.local.order], held[self.local.order]
        level = np.max(parts, axis=1, initial=-np.inf, where=here)
        gaps = np.where(here | ~np.any(here, axis=1, keepdims=True), 0.0, level[:, None] - parts)
        return max(spread, float(np.max(gaps)))

    def allowed(self, rho: FloatArray, tolerance: float) -> float:
        """The largest residual of a converged state: ``tolerance`` times the variation of ξ without powers, or what round-off leaves."""
        temperature, phi, size = self.local.temperature, np.zeros_like(rho), self.local.spread(self.linear)
        held = rho > self.faintest
        for term in self.terms:
            part = np.zeros_like(rho)
            term.add_drift(rho, part)
            size += float(np.max(np.abs(part), initial=0.0, where=held))
            if not isinstance(term, GridPower):
                phi += part
        round_off = _ROUND_OFF * size
        if temperature > 0.0:
            round_off = min(round_off, _DENSITY_ERROR * temperature)
        return max(tolerance * max(self.local.spread(phi, held), temperature), round_off)

    def found(self, point: "Point", solved: bool, tolerance: float) -> "Found":
        """A search's end: converged only if its equation is solved and the chemical potential of ρ is constant by the terms themselves."""
        if not point.finite:
            return Found(point, False, np.inf)
        residual = self.residual(point.response.rho)
        return Found(point, solved and residual <= self.allowed(point.response.rho, tolerance), max(residual, point.error))


@dataclass(frozen=True, eq=False)
class Point:
    """Coordinates x, the potential φ that they make, the density that answers it, ``gap`` = moments(ρ) − x, its length, the largest
    variation ``error`` of the potential K gap, by which ρ fails to be stationary, and the value of the concave dual."""

    x: FloatArray
    phi: FloatArray
    response: Response
    gap: FloatArray
    length: float
    error: float
    dual: float

    @property
    def finite(self) -> bool:
        """Whether everything is finite, and the density the one that answers φ."""
        return bool(self.response.met and np.isfinite(self.error) and np.isfinite(self.length) and np.isfinite(self.dual))


@dataclass(frozen=True, eq=False)
class Equation:
    """x = moments(ρ(ℓ + K x)): the stationary states of local energy + ⟨ℓ, ρ⟩ + ½⟨ρ, Kρ⟩.

    Where K is positive semidefinite, they are the maximum of the concave dual min_ρ[local + ⟨ℓ + Kx, ρ⟩] − ½⟨x, Kx⟩, whose gradient
    is K gap and whose distance to the free energy of ρ is ½⟨gap, K gap⟩.
    """

    local: Local
    coupling: Coupling
    linear: FloatArray

    def point(self, x: FloatArray) -> Point:
        """Everything at x."""
        phi = self.linear + self.coupling.potential(x)
        response = self.local.answer(phi)
        gap = self.coupling.moments(response.rho) - x
        error = self.local.spread(self.coupling.potential(gap))
        return Point(x, phi, response, gap, self.coupling.length(gap), error, response.value - 0.5 * self.coupling.product(x, x))

    def scale(self, phi: FloatArray) -> float:
        """The size of the potential, by which errors are judged."""
        return max(self.local.spread(phi), self.local.temperature, 1e-300)

    def settled(self, point: Point, tolerance: float) -> bool:
        """Whether the error is small beside the potential, or all that round-off in its parts leaves."""
        round_off = _ROUND_OFF * self.local.spread(self.linear)
        if self.local.temperature > 0.0:
            round_off = min(round_off, _DENSITY_ERROR * self.local.temperature)
        return point.finite and point.error <= max(tolerance * self.scale(point.phi), round_off)

    def solve(self, x: FloatArray, tolerance: float, concave_dual: bool) -> tuple[Point, bool]:
        """Newton steps with a line search until round-off; whether the error is at most ``tolerance`` times the potential's size."""
        now = self.point(x)
        for _ in range(_NEWTON_STEPS):
            if not now.finite or now.error == 0.0:
                break
            after = self._step(now, concave_dual)
            if after is None:
                break
            last = self.settled(after, tolerance) and after.error > 0.5 * now.error
            now = after if after.error <= now.error or not last else now
            if last:
                break
        return now, self.settled(now, tolerance)

    def _step(self, now: Point, concave_dual: bool) -> Point | None:
        """The first of x + δx, x + δx/2, … that shortens the gap, or raises the dual; None if none does."""
        direction = self.coupling.newton(self.local, now.response, now.gap)
        rise = self.coupling.product(now.gap, direction)
        share = 1.0
        for _ in range(_HALVINGS):
            after = self.point(now.x + share * direction)
            if after.finite and (
                after.length <= (1.0 - 0.25 * share) * now.length
                or (concave_dual and after.dual - now.dual >= max(1e-4 * share * rise, 1e-14 * abs(now.dual)))
            ):
                return after
            share *= 0.5
        return None

    def cooled(self, x: FloatArray, tolerance: float) -> tuple[Point, bool]:
        """``solve`` for convex K; where it fails, from the first higher temperature at which it does not, down in steps that adapt."""
        now, good = self.solve(x, tolerance, True)
        target = self.local.temperature
        hot = max(target, 1e-3 * self.scale(now.phi)) if now.finite else max(target, 1.0)
        for _ in range(_HEATINGS):
            if good:
                break
            hot *= _HEAT
            now, good = Equation(self.local.at(hot), self.coupling, self.linear).solve(x, _INNER, True)
        ratio = _HEAT
        while good and hot > target:
            lower = max(target, hot / ratio) if hot > _COLDEST * self.scale(now.phi) else target
            accuracy = tolerance if lower == target else _INNER
            trial, found = Equation(self.local.at(lower), self.coupling, self.linear).solve(now.x, accuracy, True)
            if found:
                now, hot, ratio = trial, lower, min(ratio**1.5, 64.0)
            else:
                ratio = np.sqrt(ratio)
                good = ratio > 1.02
        return now, good


@dataclass(frozen=True, eq=False)
class Found:
    """What a search ended with, and the error that is left in the potential or in the chemical potential, inf where ρ was not found."""

    point: Point
    converged: bool
    error: float


def find(system: System, rho: FloatArray, tolerance: float) -> Found:
    """The stationary state below the density ρ.

    Convex: the maximum of the concave dual. Else the convex–concave procedure [Yuille–Rangarajan 2003] and Newton's method in turns.
    The procedure replaces the concave part of the energy by its tangent at the last density and never raises the energy; Newton's
    result is taken if its energy is not higher than where it started, and if it is stable or the procedure had settled there. So
    a start that is symmetric ends in a symmetric state, be it stable or not, and others do not end in saddles above them.
    """
    whole = Equation(system.local, system.coupling, system.linear)
    if system.coupling.convex:
        return system.found(*whole.cooled(system.coupling.moments(rho), tolerance), tolerance)
    convex = system.coupling.convex_part()
    x, goal, good = convex.moments(rho), _GOAL, False
    for _ in range(_ROUNDS):
        x, rho, change, good = _descend(system, convex, x, rho, goal)
        last = whole.point(system.coupling.moments(rho))
        if not good:
            break
        last, good = whole.solve(last.x, tolerance, False)
        if good and _not_above(system, last.response.rho, rho):
            if change <= goal or system.coupling.least(system.local, last.response) > 0.0:
                break
        elif change <= goal:
            goal *= _GOAL
        good = False
    return system.found(last, good, tolerance)


def _descend(system: System, convex: Coupling, x: FloatArray, rho: FloatArray, goal: float) -> tuple[FloatArray, FloatArray, float, bool]:
    """Some steps of the convex–concave procedure, fewer where it settles: the coordinates of the convex part, the density, the last
    change of the potential beside the temperature (beside the potential without one), and whether all went well.

    From the second step on each is prolonged as long as the energy falls, for the sake of soft modes.
    """
    change, before = np.inf, None
    for _ in range(_ROUND_STEPS):
        part = Equation(system.local, convex, system.linear - system.coupling.concave(rho))
        point, good = part.cooled(x, _INNER)
        if not good:
            return x, rho, change, False
        after = point.response.rho
        unit = system.local.temperature or _LARGE * part.scale(point.phi)
        change = system.local.spread(system.coupling.concave(after - rho)) / unit
        x, rho = point.x, after
        if change <= goal:
            break
        if before is not None:
            rho = _prolonged(system, point.phi, point.phi - before, rho, unit)
            x = convex.moments(rho)
        before = point.phi
    return x, rho, change, True


def _prolonged(system: System, phi: FloatArray, step: FloatArray, rho: FloatArray, unit: float) -> FloatArray:
    """The density of φ + s·step for the last s = 1, 2, 4, … before its energy rises or the potential changes by more than ``unit``."""
    energy, share, size = system.energy(rho), 1.0, system.local.spread(step)
    while 0.0 < share * size <= unit:
        trial = system.local.answer(phi + share * step)
        lower = system.energy(trial.rho) if trial.met else np.inf
        if not lower < energy:
            break
        energy, rho, share = lower, trial.rho, 2.0 * share
    return rho


def _not_above(system: System, rho: FloatArray, other: FloatArray) -> bool:
    """Whether the energy of ρ is at most that of another density, up to round-off."""
    size = sum(abs(term.value(other)) for term in system.terms)
    return system.energy(rho) <= system.energy(other) + 1e-12 * size


def follow(system: System, rho: FloatArray, tolerance: float) -> Found:
    """The stationary state next to ρ by Newton's method alone, stable or not."""
    whole = Equation(system.local, system.coupling, system.linear)
    return system.found(*whole.solve(system.coupling.moments(rho), tolerance, False), tolerance)
