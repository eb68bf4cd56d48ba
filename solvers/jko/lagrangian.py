"""Steps of any smooth energy on atoms: x_{k+1} = argmin E(x) + Σ_j w_j|x_j − y_j|²/(2σ) over the positions themselves.

While σ times the Hessian of the first variation is above −1, maps from y to x that are near the identity are optimal transport and this is
the step of Jordan, Kinderlehrer and Otto for the atoms [the Lagrangian discretisations of Westdickenberg–Wilkening 2010 and
Carrillo–Düring–Matthes–McCormick 2018, without internal energies]; whether it was is found out after each step (``matching``).
Where that Hessian is lower, deeper wells are sought (``wells``).
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.solvers.jko.flow import Minimiser
from mfpde.solvers.jko.holds import Holds
from mfpde.solvers.jko.kink_planes import off_kinks
from mfpde.solvers.jko.matching import Matching
from mfpde.solvers.jko.parting import parted
from mfpde.solvers.jko.positions import Descended, Descent, Objective, Place, finite
from mfpde.solvers.jko.rules import check_lagrangian, repels
from mfpde.solvers.jko.start import first_atoms
from mfpde.solvers.jko.wells import Wells

_TABLE_TOLERANCE = {1: 1e-11}
_OTHER_TABLE_TOLERANCE = 1e-9
_CLOSE, _CLOSE_OF_START, _ROUND = 1e-10, 1e-13, 4.0
_LOOSE, _LOOSEST, _FAILED = 1e-8, 1e-6, 1e-3
_PATIENCE, _LAST_PATIENCE, _MOST = 8, 60, 1000
_ROUNDS = 40
_REMARKS = 8
_SEARCHES = 4
_LEFT = 1e-9
_NOTABLE = 1e-4


class LagrangianScheme:
    """Quasi-Newton descent of the positions. Raises ValueError for energies that are infinite on atoms, and for a missing count."""

    def __init__(self, problem: Problem, count: int | None) -> None:
        check_lagrangian(problem)
        self.domain = problem.domain
        atoms = first_atoms(problem, count)
        self.weights, self._initial = atoms.weights, self.domain.confine(atoms.points)
        tolerance = _TABLE_TOLERANCE.get(self.domain.dimension, _OTHER_TABLE_TOLERANCE)
        self.energy = problem.energy.tabulated(self.domain, tolerance, len(self.weights))
        self.objective = Objective(self.energy, self.domain, self.weights)
        if self.domain.dimension == 1 and repels(problem.energy):
            self.objective.order = np.argsort(self._initial[:, 0], kind="stable")
        self.matching = Matching(self.objective, self._initial)
        self.wells = Wells(self.objective)
        self._speed = math.sqrt(self.dissipation(self._initial))
        self._reach = float(np.max(np.maximum(np.abs(self.domain.lower), np.abs(self.domain.upper))))

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The unknowns, the tables, and what is known of the matching."""
        found = [f"the positions of {len(self.weights)} atoms by quasi-Newton steps in L2 of the measure"]
        for name, term in self.energy.terms.items():
            note = getattr(getattr(term, "features", None), "note", None)
            if note:
                found.append(f"{name} through {note}")
        if remarks.size == _REMARKS:
            left_open, known, crossed, planes, tied, left, several, deeper = (float(x) for x in remarks)
            found += [self._matched(left_open, known, crossed), _uniqueness(several, deeper)]
            found += [f"up to {planes:.0f} atoms at a time were held to kinks of the first variation"] if planes else []
            found += [f"up to {tied:.0f} atoms have met others and moved on with them"] if tied else []
            if left:
                words = f"kinks kept some steps from being minimised further than to a velocity of {left:.0e} in their optimality condition"
                found.append(f"{WARNING}{words}; use a smaller tau")
        return tuple(found)

    def _matched(self, left_open: float, known: float, crossed: float) -> str:
        """Whether steps are optimal transport."""
        how = f"checked {self.matching.how}"
        if max(known, crossed) > 0.0:
            words = f"steps are of maps, of which some were longer than W2, by a share of up to {known:.1e} of its square"
            words += f", and up to {crossed:.1e} of the mass changed sides with a neighbour" if crossed > 0.0 else ""
            return f"{WARNING}{words} ({how}); use a smaller tau" if max(known, crossed) > _NOTABLE else f"{words} ({how})"
        rest = f" to {left_open:.0e} of W2^2" if left_open > 0.0 else ""
        return f"every step moved its atoms as optimal transport does{rest}, {how}, so that their mean square way is W2^2"

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The initial atoms; no kinks are known."""
        return self._initial.copy(), np.empty(0)

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """Σ w|x − y|², which is W₂² where the matching is optimal, and never less."""
        return self.objective.squared(one - other)

    def value(self, points: FloatArray) -> float:
        """E."""
        return float(sum(self.values(points).values()))

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term."""
        return self.energy.values(self.measure(points))

    def measure(self, points: FloatArray) -> Particles:
        """The atoms."""
        return self.objective.measure(points)

    def dissipation(self, points: FloatArray) -> float:
        """Σ w|∇ξ|² without what walls hold."""
        slope = self.objective.slopes(points, points)
        return self.objective.squared(self.domain.slide(-slope, points, self.domain.touching(points)))

    def summary(self, points: FloatArray) -> tuple[float, float, float]:
        """Mass, least weight, and the share of the mass at walls that are not part of the model."""
        modelled = np.array([axis.walls_modelled or axis.frozen for axis in self.domain.axes])
        touching = self.domain.touching(points) & ~np.concatenate([modelled, modelled])
        mass = float(np.sum(self.weights))
        return mass, float(np.min(self.weights)), float(self.weights @ touching.any(axis=1)) / mass

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """Descend from the better of two places; ``dual`` has the kinks and groups to which atoms are held, as ``Holds.packed``."""
        before, holds = self.objective.evaluations, Holds.unpacked(dual, self.objective)
        here, other = self._first(target, sigma, current, guess, holds)
        descent = Descent(self.objective, target, sigma)
        found, holds = self._settled(descent, here, other, holds, close := self._close(target, sigma, here))
        found, holds, *remarks = self._deepest(descent, found, holds, close)
        left = found.size > max(_LOOSEST * max(self._speed, self.objective.norm(found.place.points - target) / sigma), close)
        self._check(found, sigma, target)
        verdict = self.matching.judge(found.place.points, target, sigma)
        counts = float(len(holds.planes)), float(len(holds.ties))
        remarks = [verdict.open, verdict.known, verdict.crossed, *counts, found.size if left else 0.0, *remarks]
        moved, used = self.square_distance(found.place.points, target), self.objective.evaluations - before
        return Minimiser(found.place.points, holds.packed, found.place.energy, found.size, 0.0, used, moved, remarks=np.array(remarks))

    def _first(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, holds: Holds) -> tuple[Place, Place | None]:
        """The better of two places, and the other."""
        standing = finite(self.objective.at(current, target, sigma))
        if guess is current:  # the first step
            moved = off_kinks(self.objective, parted(self.objective, current), target, sigma)
            return (standing if np.array_equal(moved, current) else finite(self.objective.at(moved, target, sigma))), None
        ahead = self.objective.inside(guess)
        ahead[holds.planes.atoms] = current[holds.planes.atoms]
        ahead = holds.ties.together(self.objective, ahead)
        if not self.objective.keeps_order(ahead):
            return standing, None
        tried = self.objective.at(ahead, target, sigma)
        if not (math.isfinite(tried.value) and np.isfinite(tried.slope).all()):
            return standing, None
        return (tried, standing) if tried.value <= standing.value else (standing, tried)

    def _close(self, target: FloatArray, sigma: float, here: Place) -> float:
        """The residual to stop at, relative to the velocities of this step and of the start, and not below round-off."""
        speed = self.objective.norm(here.points - target) / sigma
        least = _ROUND * np.finfo(float).eps * self._reach * math.sqrt(float(np.sum(self.weights))) / sigma
        return float(max(_CLOSE * speed, _CLOSE_OF_START * self._speed, least))

    def _settled(self, descent: Descent, here: Place, other: Place | None, holds: Holds, close: float) -> tuple[Descended, Holds]:
        """Descend, with atoms held or let go in between."""
        objective, target, sigma = self.objective, descent.target, descent.sigma
        found = descent.run(here, holds.project, close, _PATIENCE, _MOST, other)
        for _ in range(_ROUNDS):
            if found.size <= close or (found.size <= _LOOSE * max(self._speed, close / _CLOSE) and not len(holds)):
                kept = holds.needed(objective, found, target, sigma, close)
                if kept.same(holds):
                    return found, holds
                holds, start = kept, found.place
            else:
                more = holds.more(objective, found, target, sigma, close)
                if more is None:
                    break
                holds, points = more
                start = finite(objective.at(points, target, sigma))
            found = descent.run(start, holds.project, close, _PATIENCE, _MOST)
        return descent.run(found.place, holds.project, close, _LAST_PATIENCE, _MOST), holds

    def _deepest(self, descent: Descent, found: Descended, holds: Holds, close: float) -> tuple[Descended, Holds, float, float]:
        """The best of descents from where atoms would be in deeper wells, whether there can be any, and by how much the energy of atoms
        could be lower still, as far as is known."""
        target, sigma, deeper = descent.target, descent.sigma, 0.0
        if not self.wells.several(found.place.points, sigma):
            return found, holds, 0.0, 0.0
        for _ in range(_SEARCHES):
            before = found.place.value
            for view in self.wells.views:
                proposal = self.wells.proposed(view, found.place.points, target, sigma)
                deeper = float(np.sum(proposal.gains)) if self.wells.bounded else 0.0
                start = self.wells.lower(proposal, found.place, target, sigma)
                if start is None:
                    continue
                try:
                    other, others = self._settled(descent, start[0], None, holds.without(start[1], self.objective), close)
                    self._check(other, sigma, target)
                except StepFailed:  # the step found before stands
                    continue
                if other.place.value < found.place.value:
                    deeper = found.place.value - other.place.value
                    found, holds = other, others
            if found.place.value == before:
                return found, holds, 1.0, deeper if self.wells.bounded else 0.0
        return found, holds, 1.0, deeper

    def _check(self, found: Descended, sigma: float, target: FloatArray) -> None:
        """Raises StepFailed where the descent stopped early, or an atom went half way round a circle."""
        speed = max(self._speed, self.objective.norm(found.place.points - target) / sigma)
        if found.size > max(_FAILED * speed, self._close(target, sigma, found.place)):
            words = f"a velocity of {found.size:.1e} is left of the optimality condition (step {sigma:.3g})"
            raise StepFailed(Status.NOT_CONVERGED, f"{words}: use a smaller tau, or another method where kinks hold atoms")
        if self.domain.periodic.any():
            apart = np.abs(found.place.points - target)[:, self.domain.periodic]
            if (2.0 * apart >= (self.domain.upper - self.domain.lower)[self.domain.periodic]).any():
                raise StepFailed(Status.NOT_CONVERGED, f"an atom went half way round in one step (step {sigma:.3g}): use a smaller tau")


def _uniqueness(several: float, deeper: float) -> str:
    """Whether minimisers were the only ones as far as is known, and what the starts tried leave open if not."""
    if not several:
        return "minimisers are unique as far as tau times the Hessian of the first variation, above -1 at all probes in the box, can tell"
    word = "tau times the Hessian of the first variation was below -1, where steps need not have one minimiser"
    if deeper > _LEFT:
        left = f"what they leave open of the energy is {deeper:.1e}, though the steps are stationary; use a smaller tau"
        return f"{WARNING}{word}; at the starts tried, {left}"
    return f"{word}: at the starts tried, no better ones were found; a smaller tau makes them unique"
