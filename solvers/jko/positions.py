"""E + Σ w|x − y|²/(2σ) as a function of the atoms' positions, and its descent by quasi-Newton steps in the metric of L²(ρ).

There the Hessian is 1/σ plus that of E, so that limited-memory steps [Liu–Nocedal 1989] that begin with σ take few gradients as long as
σ|∇²E| is not large, for any energy. Walls are kept by two-metric projections [Bertsekas 1982].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy.base import EnergySum
from mfpde.measure import Particles
from mfpde.run import Status, StepFailed

_MEMORY = 10
_SUFFICIENT, _ROUND, _BLUR, _STEEP = 1e-4, 1e-14, 1e-12, 0.9
_MOST_SHRINKS = 40
_FALL, _WORTH = 0.7, 1e-5

Projection = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Place:
    """Positions (N, d), the energy and the objective there, and the objective's gradient in L²(ρ), (N, d), 0 along frozen axes."""

    points: FloatArray
    energy: float
    value: float
    slope: FloatArray


class Objective:
    """``energy`` of atoms with ``weights`` (N,) in a box; coordinates on circles are lifts, which may leave the box. ``order``: how atoms
    on one axis follow one another, where a step must not leap over the infinite repulsion between them."""

    def __init__(self, energy: EnergySum, domain: Domain, weights: FloatArray) -> None:
        self.energy, self.domain, self.weights = energy, domain, weights
        self.low = np.where(domain.periodic, -np.inf, domain.lower)
        self.high = np.where(domain.periodic, np.inf, domain.upper)
        self.evaluations = 0
        self.order: IntArray | None = None
        self._round = bool(domain.periodic.any())
        self._still = domain.frozen if domain.frozen.any() else None

    def measure(self, points: FloatArray) -> Particles:
        """The atoms, sharing no memory."""
        return Particles(self.wrapped(points.copy()), self.weights)

    def wrapped(self, points: FloatArray) -> FloatArray:
        """Points of the box."""
        return self.domain.confine(points) if self._round else points

    def inside(self, points: FloatArray) -> FloatArray:
        """Points stopped at walls; circles are gone round."""
        return np.clip(points, self.low, self.high)

    def keeps_order(self, points: FloatArray) -> bool:
        """Whether no atom is beyond or at its neighbour's place."""
        if self.order is None:
            return True
        places = points[self.order, 0]
        whole = not self._round or float(places[-1] - places[0]) < self.domain.axes[0].length
        return whole and bool((places[1:] > places[:-1]).all())

    def at(self, points: FloatArray, target: FloatArray, sigma: float) -> Place:
        """The objective and its gradient at ``points``. Raises StepFailed where they are not finite."""
        self.evaluations += 1
        energy, slope = self.energy.value_and_gradient(Particles(self.wrapped(points), self.weights))
        apart = points - target
        slope = slope + apart / sigma
        if self._still is not None:
            slope[:, self._still] = 0.0
        return Place(points, energy, energy + self.squared(apart) / (2.0 * sigma), slope)

    def slopes(self, points: FloatArray, at: FloatArray) -> FloatArray:
        """∇ξ of the atoms at ``points`` at places (M, d), 0 along frozen axes."""
        self.evaluations += 1
        found = np.array(self.energy.gradient(Particles(self.wrapped(points), self.weights), self.wrapped(at)))
        found[:, self.domain.frozen] = 0.0
        return found

    def squared(self, field: FloatArray) -> float:
        """Σ w|v|² of a field (N, d)."""
        return float(self.weights @ np.einsum("ni,ni->n", field, field))

    def norm(self, field: FloatArray) -> float:
        """√Σ w|v|²."""
        return math.sqrt(self.squared(field))

    def free(self, points: FloatArray, slope: FloatArray) -> BoolArray | None:
        """Which coordinates may move downhill, (N, d); None for all."""
        held = ((points <= self.low) & (slope >= 0.0)) | ((points >= self.high) & (slope <= 0.0))
        return ~held if held.any() else None


class _Pairs:
    """The last steps and changes of the gradient, flat, with the latter's and former's products with the weights."""

    def __init__(self, weights: FloatArray, sigma: float) -> None:
        self._weights, self._sigma = weights, sigma
        self._kept: list[tuple[FloatArray, FloatArray, FloatArray, FloatArray, float]] = []
        self._scale = sigma

    def add(self, step: FloatArray, change: FloatArray) -> None:
        """Keep a pair whose curvature is positive."""
        heavy, light = self._weights * step, self._weights * change
        curved = float(heavy @ change)
        if curved > 1e-14 * math.sqrt(float(heavy @ step) * float(light @ change)):
            self._kept = [*self._kept[1 - _MEMORY :], (step, change, heavy, light, curved)]
            self._scale = curved / float(light @ change)

    def forget(self) -> bool:
        """Begin anew; whether there was anything to forget."""
        found, self._kept, self._scale = bool(self._kept), [], self._sigma
        return found

    def direction(self, slope: FloatArray) -> FloatArray:
        """Minus the inverse of the Hessian's approximation times the gradient, flat."""
        wanted, shares = slope.copy(), []
        for _, change, heavy, _, curved in reversed(self._kept):
            shares.append(float(heavy @ wanted) / curved)
            wanted -= shares[-1] * change
        wanted *= self._scale
        for (step, _, _, light, curved), share in zip(self._kept, reversed(shares), strict=True):
            wanted += (share - float(light @ wanted) / curved) * step
        return -wanted


@dataclass(frozen=True, eq=False)
class Descended:
    """Where a descent led, what is left of the gradient there without what walls and ``projection`` hold (N, d), its norm, and which
    coordinates walls leave ``free``, None for all."""

    place: Place
    rest: FloatArray
    size: float
    free: BoolArray | None


class Descent:
    """Quasi-Newton steps for one target (N, d) and σ."""

    def __init__(self, objective: Objective, target: FloatArray, sigma: float) -> None:
        self.objective, self.target, self.sigma = objective, target, sigma
        self._weights = np.repeat(objective.weights, target.shape[1])

    def run(self, start: Place, projection: Projection, close: float, patience: int, most: int, before: Place | None = None) -> Descended:
        """Descend from ``start`` until the rest of the gradient is ``close``, until neither it nor the objective falls in ``patience``
        steps, or for ``most`` steps; ``before`` is another place, from which the first curvature is known."""
        pairs = _Pairs(self._weights, self.sigma)
        if before is not None:
            pairs.add(np.ravel(start.points - before.points), np.ravel(projection(start.slope - before.slope)))
        at = best = self._rest(start, projection)
        mark, last, idle = best.size, start.value, 0
        for _ in range(most):
            if best.size <= close or idle > patience:
                break
            moved = self._step(at, pairs, projection)
            if moved is None:
                break
            at = self._rest(moved, projection)
            better = at.size < best.size or at.place.value < best.place.value - self._rounding(at.place)
            best = at if better else best
            if at.size < _FALL * mark or at.place.value < last - _WORTH * max(abs(last), 1e-3):
                mark, last, idle = min(mark, at.size), at.place.value, 0
            else:
                idle += 1
        return best

    def _rest(self, place: Place, projection: Projection) -> Descended:
        slope = projection(place.slope)
        free = self.objective.free(place.points, slope)
        rest = slope if free is None else projection(np.where(free, slope, 0.0))
        return Descended(place, rest, self.objective.norm(rest), free)

    def _step(self, at: Descended, pairs: _Pairs, projection: Projection) -> Place | None:
        """The place after one step, None where none lowers the objective."""
        place, free = at.place, at.free
        while True:
            along = pairs.direction(np.ravel(at.rest)).reshape(at.rest.shape)
            along = projection(along if free is None else np.where(free, along, 0.0))
            found = self._lower(place, along)
            if found is not None:
                held = projection(found.slope - place.slope)
                pairs.add(np.ravel(found.points - place.points), np.ravel(held if free is None else np.where(free, held, 0.0)))
                return found
            if not pairs.forget():
                return None

    def _lower(self, place: Place, along: FloatArray) -> Place | None:
        """The first of shorter and shorter steps that lowers the objective enough, as far as round-off lets it be seen."""
        objective, share = self.objective, 1.0
        for _ in range(_MOST_SHRINKS):
            points = objective.inside(place.points + share * along)
            slope = float(self._weights @ np.ravel(place.slope * (points - place.points)))
            if slope >= 0.0:
                return None
            if not objective.keeps_order(points):
                share *= 0.5
                continue
            new = objective.at(points, self.target, self.sigma)
            if math.isfinite(new.value) and np.isfinite(new.slope).all() and self._fell(place, new, slope):
                return new
            rise = new.value - place.value - slope
            wanted = -0.5 * slope / rise if math.isfinite(rise) and rise > 0.0 else 0.5
            share *= min(max(wanted, 0.1), 0.5)
        return None

    def _fell(self, place: Place, new: Place, slope: float) -> bool:
        """Whether the objective fell enough; where values are too close to tell, as sums over pairs are where the energy is nearly 0,
        as far as slopes say so [the approximate Wolfe conditions of Hager–Zhang 2005]."""
        if new.value <= place.value + _SUFFICIENT * slope + self._rounding(place):
            return True
        if new.value > place.value + _BLUR * max(abs(place.value), abs(place.energy), 1e-3):
            return False
        ahead = float(self._weights @ np.ravel(new.slope * (new.points - place.points)))
        return _STEEP * slope <= ahead <= (2.0 * _SUFFICIENT - 1.0) * slope

    @staticmethod
    def _rounding(place: Place) -> float:
        return _ROUND * max(abs(place.value), abs(place.energy), 1e-3)


def finite(place: Place) -> Place:
    """The place itself. Raises StepFailed where the objective or its gradient are not finite."""
    if not (math.isfinite(place.value) and np.isfinite(place.slope).all()):
        raise StepFailed(Status.NOT_FINITE, "the energy of the atoms or its gradient is not finite")
    return place
