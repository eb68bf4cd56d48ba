"""Whether a step's atoms could be in other, deeper wells, and starts there: quasi-Newton steps alone find the minimiser near by.

With the first variation ξ as it is, atom j belongs where J_j(x) = ξ(x) + |x − y_j|²/(2σ) is least. Where the Hessian of ξ is above −1/σ
there is one such place. Else J_j is tried at probes that fill the box, the best is moved downhill, and atoms that gain are moved there as
long as the objective itself falls. As those that attract one another hold one another back, ξ without interactions is tried, too. What is
found is the best of the starts tried and no proof.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.energy.base import EnergySum
from mfpde.energy.interaction import Interaction
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.potential import Potential
from mfpde.measure import Particles, lattice
from mfpde.solvers.jko.positions import Objective, Place

_BEND = 0.02
_PROBES, _OTHERS, _OWN, _LEAST_BUDGET = {1: 257}, 256, 32, 512
_DIFFERENCE = 1e-4
_TRIED, _OTHERS_TRIED, _MOST_TRIED, _FEWEST_TRIED = {1: 513, 2: 1025}, 513, 1 << 14, 9
_PAIRS = 1 << 20
_APART = 3.0
_POLISH = 16
_GAIN = 1e-9
_ALONE = 8
_HALF = 0.499
_SUMS = (Potential, TwoLayer, PairNetwork)


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where atoms would be better, (N, d), and w_j times J_j at their own place minus that there, (N,), 0 where nothing is gained."""

    points: FloatArray
    gains: FloatArray


class _Field:
    """J for the first variation of ``atoms`` as it is, at other places (M, d), walls and frozen axes being left to others."""

    def __init__(self, objective: Objective, energy: EnergySum, atoms: Particles) -> None:
        self._objective, self._energy, self._atoms = objective, energy, atoms
        self._frozen = objective.domain.frozen

    def heights(self, at: FloatArray) -> FloatArray:
        """ξ, (M,); infinite where it is not a number."""
        self._objective.evaluations += 1
        found = self._energy.first_variation(self._atoms, self._objective.wrapped(at))
        return np.where(np.isfinite(found), found, np.inf)

    def values(self, at: FloatArray, target: FloatArray, sigma: float) -> FloatArray:
        """J, (M,)."""
        return np.asarray(self.heights(at) + np.sum((at - target) ** 2, axis=1) / (2.0 * sigma))

    def slopes(self, at: FloatArray, target: FloatArray, sigma: float) -> FloatArray:
        """∇J, (M, d)."""
        self._objective.evaluations += 1
        found = self._energy.gradient(self._atoms, self._objective.wrapped(at)) + (at - target) / sigma
        found[:, self._frozen] = 0.0
        return np.asarray(np.where(np.isfinite(found), found, 0.0))


class Wells:
    """For the atoms of one objective; frozen coordinates are those of each atom."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.domain = objective, objective.domain
        self._moving = np.array(self.domain.moving)
        self._spans = (self.domain.upper - self.domain.lower)[self._moving]
        self.bounded = all(isinstance(term, _SUMS) for term in objective.energy.terms.values())
        rest = {name: term for name, term in objective.energy.terms.items() if not isinstance(term, Interaction)}
        self.views = (objective.energy, EnergySum(rest)) if 0 < len(rest) < len(objective.energy.terms) else (objective.energy,)
        self._ordered = self.domain.dimension == 1 and not self.domain.periodic[0]

    def several(self, points: FloatArray, sigma: float) -> bool:
        """Whether the Hessian of the first variation of atoms at ``points`` (N, d) comes to −1/σ, by slopes at probes and at some atoms."""
        least = (_BEND - 1.0) / sigma
        axes, rows = len(self._moving), self._rows(points)
        some = points[:: -(-len(points) // _OWN)]
        if axes == 1 and len(rows) == 1:
            line = self._placed(_unit(_PROBES[1], 1), rows)
            width = self._spans[0] / (_PROBES[1] - 1)
            if float(np.min(np.diff(self.objective.slopes(points, line)[:, self._moving[0]]))) < least * width:
                return True
        count = min(_OTHERS, max(_LEAST_BUDGET, 4 * len(points)) // (axes + 1))
        probes = some
        if axes > 1 or len(rows) > 1:
            unit = lattice(count, axes)
            probes = np.concatenate([some, self._placed(unit, rows[np.arange(count) % len(rows)])])
        return float(np.min(np.linalg.eigvalsh(self._hessians(points, self.objective.wrapped(probes)))[:, 0])) < least

    def _hessians(self, points: FloatArray, probes: FloatArray) -> FloatArray:
        """∇²ξ along the moving axes at probes (M, d), by differences inside the box, (M, m, m)."""
        steps = np.zeros((len(self._moving), self.domain.dimension))
        steps[np.arange(len(steps)), self._moving] = _DIFFERENCE * self._spans
        middle = 0.5 * (self.domain.lower + self.domain.upper)
        shifts = np.where((probes <= middle)[None], steps[:, None, :], -steps[:, None, :])
        every = np.concatenate([probes[None], probes + shifts]).reshape(-1, self.domain.dimension)
        slopes = self.objective.slopes(points, every).reshape(len(steps) + 1, *probes.shape)[:, :, self._moving]
        changes = slopes[1:] - slopes[0]
        lengths = np.stack([shifts[k, :, axis] for k, axis in enumerate(self._moving)])
        matrices = np.swapaxes(changes / lengths[:, :, None], 0, 1)
        return np.asarray(0.5 * (matrices + np.swapaxes(matrices, 1, 2)))

    def proposed(self, energy: EnergySum, points: FloatArray, target: FloatArray, sigma: float) -> Proposal:
        """Better places for the atoms at ``points`` that come from ``target``, both (N, d), by one of the ``views`` of the energy."""
        field = _Field(self.objective, energy, Particles(self.objective.wrapped(points), self.objective.weights))
        rows, group = np.unique(target[:, self.domain.frozen], axis=0, return_inverse=True)
        unit = self._tried(len(rows))
        starts, spread = points.copy(), 0.0
        for first in range(0, len(rows), block := max(1, _MOST_TRIED // len(unit))):
            some = rows[first : first + block]
            probes = self._placed(np.tile(unit, (len(some), 1)), np.repeat(some, len(unit), axis=0))
            heights = field.heights(probes).reshape(len(some), -1)
            spread = max(spread, float(np.ptp(heights[np.isfinite(heights)])) if np.isfinite(heights).any() else 0.0)
            for k, places in enumerate(probes.reshape(len(some), -1, self.domain.dimension)):
                members = np.flatnonzero(np.ravel(group) == first + k)
                starts[members] = self._chosen(places, heights[k], points[members], target[members], sigma)
        return self._polished(field, starts, points, target, sigma, spread)

    def _polished(self, field: _Field, starts: FloatArray, points: FloatArray, target: FloatArray, sigma: float, spread: float) -> Proposal:
        """The starts moved downhill where that may pay, and what is gained there."""
        own, value = field.values(points, target, sigma), field.values(starts, target, sigma)
        slope, best = field.slopes(starts, target, sigma), starts.copy()
        rows = np.flatnonzero(value < own + sigma * np.sum(slope**2, axis=1))  # twice what can be gained from there in convex wells
        if len(rows):
            near = points[rows], target[rows], own[rows]
            best[rows], value[rows] = self._downhill(field, starts[rows], value[rows], slope[rows], *near, sigma)
        gains = np.where(value < own - _GAIN * spread, own - value, 0.0)
        if self.domain.periodic.any():
            apart = np.abs(best - target)[:, self.domain.periodic]
            gains[(apart > _HALF * (self.domain.upper - self.domain.lower)[self.domain.periodic]).any(axis=1)] = 0.0
        return Proposal(np.where(gains[:, None] > 0.0, best, points), self.objective.weights * gains)

    def _downhill(
        self,
        field: _Field,
        best: FloatArray,
        value: FloatArray,
        slope: FloatArray,
        points: FloatArray,
        target: FloatArray,
        own: FloatArray,
        sigma: float,
    ) -> tuple[FloatArray, FloatArray]:
        """Places (n, d) and J there, (n,), after some steps, each with its own length [Barzilai–Borwein 1988], until those that are above
        J = ``own`` (n,) at the ``points`` (n, d) cannot come below it or are half way back."""
        far = np.sum((best - points) ** 2, axis=1)
        length = np.full(len(best), 0.5 * sigma)
        for _ in range(_POLISH):
            tried = self.objective.inside(best - length[:, None] * slope)
            there, ahead = field.values(tried, target, sigma), field.slopes(tried, target, sigma)
            lower, step, change = there < value, tried - best, ahead - slope
            curved = np.sum(step * change, axis=1)
            wanted = np.where(curved > 0.0, np.sum(step**2, axis=1) / np.where(curved > 0.0, curved, 1.0), 2.0 * length)
            length = np.where(lower, wanted, 0.25 * length)
            best, value = np.where(lower[:, None], tried, best), np.where(lower, there, value)
            slope = np.where(lower[:, None], ahead, slope)
            home = np.sum((best - points) ** 2, axis=1) < 0.25 * far
            if not ((value >= own) & (value < own + sigma * np.sum(slope**2, axis=1)) & ~home).any():
                break
        return best, value

    def lower(self, proposal: Proposal, at: Place, target: FloatArray, sigma: float) -> tuple[Place, BoolArray] | None:
        """The first place where the objective is lower than ``at``, of all atoms that gain moved, the half of them that gains most, and so
        on, then some of them alone, with those moved, (N,); None where there is none."""
        for which in _parts(proposal.gains):
            points = at.points.copy()
            points[which] = proposal.points[which]
            for tried in (self._sorted(points, target), points) if self._ordered else (points,):
                if self.objective.keeps_order(tried):
                    place = self.objective.at(tried, target, sigma)
                    if np.isfinite(place.value) and np.isfinite(place.slope).all() and place.value < at.value:
                        return place, np.any(tried != at.points, axis=1)
        return None

    def _sorted(self, points: FloatArray, target: FloatArray) -> FloatArray:
        """The places on an interval in the order in which atoms come from it."""
        order = self.objective.order if self.objective.order is not None else np.argsort(target[:, 0], kind="stable")
        found = points.copy()
        found[order, 0] = np.sort(points[:, 0])
        return found

    def _chosen(self, places: FloatArray, heights: FloatArray, points: FloatArray, target: FloatArray, sigma: float) -> FloatArray:
        """Of the probes (M, d) with ξ = ``heights`` that best for each of n atoms and not where it is, on its sheet of circles, (n, d)."""
        near = _APART * self._spans / len(places) ** (1.0 / len(self._moving))
        found = points.copy()
        for first in range(0, len(points), step := max(1, _PAIRS // len(places))):
            some = slice(first, first + step)
            cost, aside = np.tile(heights, (len(points[some]), 1)), np.zeros((len(points[some]), len(places)), dtype=bool)
            for k, axis in enumerate(self._moving):
                cost += self._apart(axis, target[some, axis], places[:, axis]) ** 2 / (2.0 * sigma)
                aside |= np.abs(self._apart(axis, points[some, axis], places[:, axis])) > near[k]
            best = np.argmin(np.where(aside, cost, np.inf), axis=1)
            for axis in self._moving:
                there = places[best, axis]
                one = target[some, axis]
                length = self.domain.axes[axis].length
                found[some, axis] = there - (length * np.round((there - one) / length) if self.domain.periodic[axis] else 0.0)
        return found

    def _apart(self, axis: int, one: FloatArray, other: FloatArray) -> FloatArray:
        """Coordinates of ``other`` (M,) from ``one`` (n,), the short way round circles, (n, M)."""
        apart = np.subtract.outer(-one, -other)
        length = self.domain.axes[axis].length
        return apart - length * np.round(apart / length) if self.domain.periodic[axis] else apart

    def _tried(self, rows: int) -> FloatArray:
        axes = len(self._moving)
        return _unit(max(_FEWEST_TRIED, min(_TRIED.get(axes, _OTHERS_TRIED), _MOST_TRIED // rows)), axes)

    def _rows(self, points: FloatArray) -> FloatArray:
        """The frozen places, (G, f)."""
        return np.unique(points[:, self.domain.frozen], axis=0)

    def _placed(self, unit: FloatArray, rows: FloatArray) -> FloatArray:
        """Places (M, d) at shares (M, m) of the moving axes and frozen places (M, f) or (1, f)."""
        found = np.empty((len(unit), self.domain.dimension))
        found[:, self._moving] = self.domain.lower[self._moving] + unit * self._spans
        found[:, self.domain.frozen] = rows
        return found


def _unit(count: int, axes: int) -> FloatArray:
    """About ``count`` places of the unit cube, with its ends along one axis."""
    return np.linspace(0.0, 1.0, count)[:, None] if axes == 1 else lattice(count, axes)


def _parts(gains: FloatArray) -> list[IntArray]:
    """The atoms that gain, (N,), the half of them that gains most, and so on, and some of them alone."""
    order = np.argsort(-gains, kind="stable")[: int(np.sum(gains > 0.0))]
    halves = [order[: len(order) >> k] for k in range(len(order).bit_length())]
    return halves + [order[k : k + 1] for k in range(1, min(len(order), _ALONE))]
