"""Steps of two-layer networks on atoms in any dimension, by a concave problem in as many unknowns as there are features.

min_ρ E(ρ) + W₂²(ρ, ρ_k)/(2τ) = max_λ ∫M_τ[Φ·λ + V] dρ_k − ⟨λ, b⟩ − ½|λ|² + constant, with the Moreau envelope
M_τ[ξ](z) = min_y ξ(y) + |y − z|²/(2τ). The dual's gradient is F(λ) = ∫Φ(y_λ) dρ_k − b − λ, y_λ being the proximal points, which become the
atoms; the duality gap is ½|F|². Newton's matrix is −1 − τ∫∇Φ (1 + τ∇²ξ)⁻¹ ∇Φᵀ. Where τ∇²ξ < −1 the proximal points are not the only
ones: ``search`` tries several starts, and there is no duality gap.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.network import TwoLayer
from mfpde.energy.potential import Potential
from mfpde.energy.teams import Team
from mfpde.measure import Particles, lattice
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.solvers.jko.flow import Minimiser, root_mean
from mfpde.solvers.jko.nodes import Nodes, Reduced, pays
from mfpde.solvers.jko.proximal import Field
from mfpde.solvers.jko.rules import check_residual
from mfpde.solvers.jko.search import Search
from mfpde.solvers.jko.start import first_atoms
from mfpde.solvers.kernels.jko_residual import group

_TABLE_TOLERANCE = {1: 1e-11}
_OTHER_TABLE_TOLERANCE = 1e-9
_GROUPS = {1: 512, 2: 32, 3: 10}
_MOST_GROUPS = 4096
_DIFFERENCE = 1e-5
_CLOSE, _LOOSE = 1e-12, 1e-9
_CLOSE_OF_MANY = 1e-10
_MOST, _MOST_SHRINKS = 60, 12
_SLOW = 0.05
_MOST_PROBES = 2000
_BEND = 0.02
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class _Dual:
    """λ (r,) with its proximal points (N, d), their responses (N, d, d), and F (r,); the points may be ``rough``, a step from exact."""

    lam: FloatArray
    points: FloatArray
    response: FloatArray
    rest: FloatArray
    iterations: int = 0
    rough: bool = False


class ResidualScheme:
    """Newton's method for λ. Raises ValueError for energies with other terms than networks and potentials, and for a missing count."""

    def __init__(self, problem: Problem, count: int | None) -> None:
        check_residual(problem)
        self.domain = problem.domain
        atoms = first_atoms(problem, count)
        self.weights, self._initial = atoms.weights, atoms.points
        tolerance = _TABLE_TOLERANCE.get(self.domain.dimension, _OTHER_TABLE_TOLERANCE)
        self.energy = problem.energy.tabulated(self.domain, tolerance, len(self.weights))
        terms = self.energy.terms.values()
        networks = tuple(t for t in terms if isinstance(t, TwoLayer))
        self.field = Field(self.domain, networks, tuple(t for t in terms if isinstance(t, Potential)))
        self.search = Search(self.field)
        self._target = self.field.target
        self._scale = max(float(np.linalg.norm(self._target)), 1e-3)
        exact = tuple(t for t in problem.energy.terms.values() if isinstance(t, TwoLayer))
        few = self.field.compiled and pays(len(self.weights), self.domain.dimension)
        self._team = Team()
        self._walled = not (self.domain.periodic.any() or self.domain.frozen.any())
        self._reduced = Reduced(Field(self.domain, exact, ())) if few else None

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The unknowns, the tables, and a word where uniqueness was lost."""
        found = [f"{len(self.weights)} atoms, {self.field.rank} dual unknowns"]
        for name, term in self.energy.terms.items():
            note = getattr(getattr(term, "features", None), "note", None)
            if note:
                found.append(f"{name} through {note}")
        if remarks.size:
            found.append(self._uniqueness(*(float(x) for x in remarks)))
        return tuple(found)

    def _uniqueness(self, lost: float, left_open: float) -> str:
        """Whether proximal points were the only ones as far as is known, and what the starts tried leave open if not."""
        if not lost:
            where = "at the centre of every cell of its table" if self.field.compiled else "at all probes in the box"
            return f"proximal points are unique as far as tau times the Hessian of the first variation, above -1 {where}, can tell"
        word = "tau times the Hessian of the first variation was below -1, where proximal points are not unique"
        if left_open > _LOOSE:
            left = f"what they leave open of the energy is {left_open:.1e}, though the steps are stationary; use a smaller tau"
            return f"{WARNING}{word} and such steps have no duality gap; at the starts tried, {left}"
        return f"{word} and such steps have no duality gap: at the starts tried, no better ones were found; a smaller tau makes them unique"

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The initial atoms and the residual of the network there."""
        points = self._initial.copy()
        return points, self.field.moments(points, self.weights) - self._target

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """Σ w|x − y|², which is W₂² between atoms and their proximal points."""
        apart = one - other
        return float(self.weights @ np.einsum("ni,ni->n", apart, apart))

    def value(self, points: FloatArray) -> float:
        """E."""
        return float(sum(self.values(points).values()))

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term."""
        return self.energy.values(self.measure(points))

    def measure(self, points: FloatArray) -> Particles:
        """The atoms."""
        inside = self.domain.confine(points) if self.domain.periodic.any() else points.copy()
        return Particles(inside, self.weights)

    def dissipation(self, points: FloatArray) -> float:
        """Σ w|∇ξ|² without what walls hold."""
        slope = self.field.gradient(points, self.field.moments(points, self.weights) - self._target)
        slid = self.domain.slide(-slope, points, self.domain.touching(points))
        return float(self.weights @ np.sum(slid**2, axis=1))

    def summary(self, points: FloatArray) -> tuple[float, float, float]:
        """Mass, least weight, and the share of the mass at walls that are not part of the model."""
        modelled = np.array([axis.walls_modelled or axis.frozen for axis in self.domain.axes])
        touching = self.domain.touching(points) & ~np.concatenate([modelled, modelled])
        mass = float(np.sum(self.weights))
        return mass, float(np.min(self.weights)), float(self.weights @ touching.any(axis=1)) / mass

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """Newton's method for λ from the points nearby; where they need not be the best, from others as well."""
        found = self._newton(target, sigma, guess, dual)
        iterations, gap, remarks = found.iterations, 0.5 * float(found.rest @ found.rest), np.zeros(2)
        if 1.0 + sigma * self.search.least_bend(found.points, found.lam) < _BEND:
            found, left_open, extra = self._global(found, target, sigma)
            iterations += extra
            gap, remarks = 0.0, np.array([1.0, left_open])  # a search among starts bounds the minimum from above only
        residual, moved = self._optimality(found, target, sigma)
        return Minimiser(found.points, found.lam, self._energy(found), residual, gap, iterations, moved, remarks=remarks)

    def _energy(self, at: _Dual) -> float:
        """E of the points, whose network is λ + F."""
        lam = at.lam + at.rest
        constant = float(sum(term.constant for term in self.field.networks))
        return 0.5 * float(lam @ lam) + constant + self.field.potential(at.points, self.weights)

    def _newton(self, target: FloatArray, sigma: float, start: FloatArray, lam: FloatArray) -> _Dual:
        """λ with F(λ) = 0, the proximal points being followed from ``start``. Raises StepFailed."""
        reduced = self._reduced.solve(nodes := Nodes.of(target, self.weights), sigma, lam) if self._reduced else None
        if reduced is not None:
            start, lam = nodes.shifted(target, reduced.points - nodes.points, self._team), reduced.lam
        at = self._at(target, sigma, start, lam, rough=reduced is not None and self.domain.dimension > 1)
        solver, fresh = (self._solver(at, sigma), True) if reduced is None else (reduced.solver, False)
        before = 0 if reduced is None else reduced.iterations
        for iteration in range(before + 1, before + _MOST + 1):
            size = float(np.linalg.norm(at.rest))
            if size <= (_CLOSE if reduced is None else _CLOSE_OF_MANY) * self._scale:
                if not at.rough:
                    return _Dual(at.lam, at.points, at.response, at.rest, iteration)
                at = self._at(target, sigma, at.points, at.lam)
                continue
            step, share, new = solver(at.rest), 1.0, at
            for _ in range(_MOST_SHRINKS):
                new = self._at(target, sigma, at.points, at.lam + share * step)
                if float(np.linalg.norm(new.rest)) <= (1.0 - 1e-4 * share) * size:
                    break
                share *= 0.5
            reached = float(np.linalg.norm(new.rest))
            if reached >= size:
                if size <= _LOOSE * self._scale:
                    return _Dual(at.lam, at.points, at.response, at.rest, iteration)
                if fresh:
                    raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, f"the dual problem is left with a gap of {0.5 * size**2:.1e}"))
                new, reached = at, size
            fresh = reached > _SLOW * size
            at = new
            if fresh:
                solver = self._solver(at, sigma)
        raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, f"the dual problem did not converge in {_MOST} iterations"))

    def _at(self, target: FloatArray, sigma: float, start: FloatArray, lam: FloatArray, *, rough: bool = False) -> _Dual:
        points, response = self.field.proximal(target, start, lam, sigma, rough=rough)
        rest = self.field.moments(points, self.weights) - self._target - lam
        if not np.isfinite(rest).all():
            raise StepFailed(Status.NOT_FINITE, "the residual of the network is not finite")
        return _Dual(lam, points, response, rest, rough=rough)

    def _solver(self, at: _Dual, sigma: float) -> "Callable[[FloatArray], FloatArray]":
        """v ↦ (1 + σ∫∇Φ R ∇Φᵀ)⁻¹ v, by atoms grouped in cells, which costs Newton's method a little of its speed."""
        rank = len(at.lam)
        if not rank:
            return lambda v: v
        points, matrices = self._grouped(at)
        slopes = self._slopes(points)
        mixed = np.einsum("rgi,gij->rgj", slopes, matrices)
        matrix = np.eye(rank) + sigma * mixed.reshape(rank, -1) @ slopes.reshape(rank, -1).T
        inverse = np.linalg.inv(0.5 * (matrix + matrix.T))
        return lambda v: np.asarray(inverse @ v)

    def _grouped(self, at: _Dual) -> tuple[FloatArray, FloatArray]:
        """Places (G, d) and weights times responses (G, d, d) that stand for the atoms."""
        count, dimension = at.points.shape
        if count <= _MOST_GROUPS // 4:
            return at.points, self.weights[:, None, None] * at.response
        if dimension not in _GROUPS:
            every = -(-count // _MOST_GROUPS)
            kept = self.weights[::every]
            return at.points[::every], (kept / np.sum(kept) * np.sum(self.weights))[:, None, None] * at.response[::every]
        side = _GROUPS[dimension]
        low, high = np.min(at.points, axis=0), np.max(at.points, axis=0)
        places = np.clip((at.points - low) / np.maximum(high - low, 1e-300) * side, 0, side - 1).astype(np.int64)
        cells = np.ravel_multi_index(tuple(places.T), (side,) * dimension).astype(np.int64)
        points, matrices = group(np.ascontiguousarray(at.points), self.weights, at.response, cells, side**dimension)
        held = np.any(matrices != 0.0, axis=(1, 2))
        return points[held], matrices[held]

    def _slopes(self, points: FloatArray) -> FloatArray:
        """∇Φ at points (G, d) by differences, (r, G, d); 0 along frozen axes."""
        slopes = np.zeros((self.field.rank, *points.shape))
        for k in self.domain.moving:
            step = np.zeros(points.shape[1])
            step[k] = _DIFFERENCE * self.domain.axes[k].length
            slopes[:, :, k] = (self.field.features(points + step) - self.field.features(points - step)) / (2.0 * step[k])
        return slopes

    def _optimality(self, at: _Dual, target: FloatArray, sigma: float) -> tuple[float, float]:
        """The residual (y − z)/σ + ∇ξ of the atoms with the network that they are, without what walls hold, in L²(ρ), or a bound on it;
        and W₂² from the target."""
        if self.field.compiled and self._walled:
            square, moved = self.field.rest(target, at.points, self.weights, at.lam, sigma)
            return math.sqrt(square) + self._steepness * float(np.linalg.norm(at.rest)), moved
        slope = (at.points - target) / sigma + self.field.gradient(at.points, at.rest + at.lam)
        slope = self.domain.slide(-slope, at.points, self.domain.touching(at.points))
        return root_mean(self.weights, np.sum(slope**2, axis=1)), self.square_distance(at.points, target)

    @cached_property
    def _steepness(self) -> float:
        """The largest |∇(Φ·v)| with |v| = 1 at probes that fill the box."""
        slopes = np.moveaxis(self._slopes(self.domain.spread(lattice(_MOST_PROBES, self.domain.dimension))), 1, 0)
        return float(np.sqrt(np.max(np.linalg.eigvalsh(np.swapaxes(slopes, 1, 2) @ slopes))))

    def _primal(self, points: FloatArray, target: FloatArray, sigma: float) -> float:
        return self.value(points) + self.square_distance(points, target) / (2.0 * sigma)

    def _global(self, local: _Dual, target: FloatArray, sigma: float) -> tuple[_Dual, float, int]:
        """The best of the stationary points found from the best proximal points of several starts, and what
        their dual values leave open of the energy, which is a duality gap only if the search missed nothing."""
        constant = float(sum(term.constant for term in self.field.networks))
        best, primal, extra, dual, start = local, self._primal(local.points, target, sigma), 0, -np.inf, local
        for _ in range(_ROUNDS):
            points, envelope = self.search.best(start.points, target, start.lam, sigma)
            dual = max(
                dual, float(self.weights @ envelope) - float(start.lam @ self._target) - 0.5 * float(start.lam @ start.lam) + constant
            )
            if primal - dual <= _CLOSE * max(abs(primal), 1e-3) or np.array_equal(points, start.points):
                break
            try:
                start = self._newton(target, sigma, points, start.lam)
            except StepFailed:
                break
            extra += start.iterations
            value = self._primal(start.points, target, sigma)
            if value < primal:
                best, primal = start, value
        return best, max(primal - dual, 0.0), extra


def _advice(sigma: float, what: str) -> str:
    return f"{what} (step {sigma:.3g}): use a smaller tau"
