"""How the energy at a later time depends on the initial measure: ψ_t with E(ρ_t) ≈ E(ρ̄_t) + ∫ψ_t d(ρ_0 − ρ̄_0).

Along the flow θ̇ = −∇ξ(θ; ρ) of a quadratic energy the adjoint q of the positions obeys q̇ = ∇²ξ q + ∇g, where g = δE[δρ] is the first
variation's change in the direction of the dipoles δρ = −div(qρ), with q(t) = ∇ξ. Then ψ_t(a) = ξ(θ(t)) − ∫_0^t g_s(θ(s)) ds along the
characteristic from a. By the central limit theorem √N (E(ρ_N) − E(ρ̄)) tends to a normal law of variance Var ψ_t under ρ_0, and
∫ψ_t d(ρ_N − ρ̄_0), whose mean is zero, is a control variate for the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Domain
from mfpde.energy import Interaction, Potential, TwoLayer
from mfpde.energy.base import EnergySum
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers.particles import ParticleFlow

_NODES = {1: 96, 2: 16, 3: 8}
_PLACES = {1: 1025, 2: 65, 3: 25}
_DISPLACED = 1e-4
_PILOT = 64
_PARTS = (4, 8, 16, 32, 64)
_STEPS = 20_000
_SETTLED = 1e-3
_SUPPORT = 1e-14
_FINE = {1: 8192, 2: 512, 3: 128}


def has_sensitivity(problem: Problem) -> bool:
    """Whether ψ_t can be had: a density at the start, a box of at most three axes, and quadratic energies with finite kernels."""
    terms = problem.energy.terms.values()
    quadratic = all(isinstance(term, TwoLayer | Potential | Interaction) for term in terms)
    finite = all(term.kernel.at_zero is not None for term in terms if isinstance(term, Interaction))
    box = problem.domain.box is problem.domain and problem.domain.dimension in _NODES
    return quadratic and finite and box and isinstance(problem.initial, DensityFunction)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """ψ_t at ``times`` (T,) on a lattice from ``lower`` to ``upper`` (d,), outside of which ``initial`` has no mass; ``values`` (T, n, …).

    ``mean`` and ``deviation`` (T,) are those under the law that initial atoms are drawn from; the deviation is the limit of that of √N
    times the loss gap.
    """

    times: FloatArray
    lower: FloatArray
    upper: FloatArray
    values: FloatArray
    initial: DensityFunction

    def at(self, points: FloatArray) -> FloatArray:
        """ψ_t at points (M, d), by cubic splines, as (T, M)."""
        from scipy.ndimage import map_coordinates

        size = np.array(self.values.shape[1:]) - 1.0
        places = (points - self.lower) / (self.upper - self.lower) * size
        return np.stack([map_coordinates(c, places.T, order=3, mode="nearest", prefilter=False) for c in self._splines])

    @cached_property
    def _splines(self) -> list[FloatArray]:
        from scipy.ndimage import spline_filter

        return [np.asarray(spline_filter(values, order=3, mode="nearest")) for values in self.values]

    @cached_property
    def _moments(self) -> tuple[FloatArray, FloatArray]:
        middle = np.reshape(self.values, (len(self.times), -1))[:, :1]
        first, second, mass = np.zeros(len(self.times)), np.zeros(len(self.times)), 0.0
        for atoms in self.initial.law():
            values = self.at(atoms.points) - middle
            first, second = first + values @ atoms.weights, second + values**2 @ atoms.weights
            mass += atoms.mass
        first, second = first / mass, second / mass
        return first + middle[:, 0], np.sqrt(np.maximum(second - first**2, 0.0))

    @property
    def mean(self) -> FloatArray:
        """∫ψ_t dρ_0, (T,)."""
        return self._moments[0]

    @property
    def deviation(self) -> FloatArray:
        """The standard deviation of ψ_t under ρ_0, (T,)."""
        return self._moments[1]


def loss_sensitivity(problem: Problem, times: Sequence[float], stopped: Sequence[int] | None = None) -> Sensitivity | None:
    """ψ_t by Runge–Kutta steps of fourth order, so many to each step of an adaptive run of a few atoms that more of them change it by no
    more than a thousandth of its deviation; None where that takes too many, or where it was ``stopped`` (as in ``march``).

    Raises TypeError without ``has_sensitivity``.
    """
    if not has_sensitivity(problem):
        raise TypeError("the sensitivity needs a density at the start of a box of at most three axes, and quadratic energies")
    assert isinstance(problem.initial, DensityFunction)
    around = _support(problem.initial)
    start = DensityFunction(problem.initial.values, around).gauss_atoms(_NODES[around.dimension])
    pilot = ParticleFlow(_PILOT, start="quantile", tolerance=1e-6).solve(replace(problem, save_at=tuple(times)), stopped)
    before: Sensitivity | None = None
    for parts in _PARTS:
        clock = _clock(pilot.certificate["time"], parts)
        if pilot.status is not Status.DONE or len(clock) > _STEPS or stopped:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            values = _values(problem, start, clock, around, times)
        if np.isfinite(values).all():
            found = Sensitivity(np.asarray(times), around.lower, around.upper, values, problem.initial)
            if before is not None and _agree(found, before):
                return found
            before = found
    return None


def _agree(one: Sensitivity, two: Sensitivity) -> bool:
    """Whether two are the same but for a thousandth of the deviation, or but for round-off."""
    gap = np.max(np.abs(one.values - two.values), axis=tuple(range(1, one.values.ndim)))
    return bool((gap <= np.maximum(_SETTLED * one.deviation, 1e-13)).all())


def _support(initial: DensityFunction) -> Domain:
    """The smallest box of whole cells that holds what is drawn from a density, as a domain of its own."""
    fine = initial.on(initial.domain.even_grid(_FINE[initial.domain.dimension]))
    masses, axes = np.reshape(fine.weights, fine.grid.cells), []
    for k, axis in enumerate(initial.domain.axes):
        along = np.sum(masses, axis=tuple(j for j in range(masses.ndim) if j != k))
        kept = np.flatnonzero(along > _SUPPORT * float(np.max(along)))
        edges = fine.grid.edges(k)
        axes.append(Axis(axis.name, float(edges[kept[0]]), float(edges[kept[-1] + 1])))
    return Domain(tuple(axes))


def _clock(ends: FloatArray, parts: int) -> FloatArray:
    """The times of the path: so many equal parts, an even number, of each step of the pilot."""
    clock = [0.0]
    for a, b in pairwise(ends.tolist()):
        clock.extend(np.linspace(a, b, parts + 1)[1:].tolist())
    return np.array(clock)


def _values(problem: Problem, start: Particles, clock: FloatArray, around: Domain, times: Sequence[float]) -> FloatArray:
    """ψ at the times on the lattice, (T, n, …)."""
    path = _Path.of(problem, start, clock)
    if not np.isfinite(path.points).all():
        return np.full((len(times), 1), np.nan)
    lattice = _lattice(around)
    values = [_along(path, lattice, int(np.flatnonzero(clock == time)[0])) for time in times]
    return np.reshape(values, (len(times), *(_PLACES[around.dimension],) * around.dimension))


def _lattice(domain: Domain) -> FloatArray:
    lines = [np.linspace(axis.lower, axis.upper, _PLACES[domain.dimension]) for axis in domain.axes]
    return np.stack([mesh.ravel() for mesh in np.meshgrid(*lines, indexing="ij")], axis=1)


@dataclass(frozen=True, eq=False)
class _Path:
    """The nodes of ρ_0 carried by the flow: ``points`` (K, N, d) at the times of the ``clock`` (K,)."""

    energy: EnergySum
    domain: Domain
    weights: FloatArray
    clock: FloatArray
    points: FloatArray

    @staticmethod
    def of(problem: Problem, start: Particles, clock: FloatArray) -> "_Path":
        points = [start.points]
        domain, energy = problem.domain, problem.energy
        held = np.where(domain.frozen, 0.0, 1.0)

        def velocity(x: FloatArray) -> FloatArray:
            x = domain.confine(x)
            return -held * energy.gradient(Particles(x, start.weights), x)

        for h in np.diff(clock):
            x = points[-1]
            a = velocity(x)
            b = velocity(x + 0.5 * h * a)
            c = velocity(x + 0.5 * h * b)
            d = velocity(x + h * c)
            points.append(domain.confine(x + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)))
        return _Path(energy, domain, start.weights, clock, np.stack(points))

    def measure(self, k: int) -> Particles:
        return Particles(self.points[k], self.weights)

    def velocity(self, k: int, at: FloatArray) -> FloatArray:
        """That of the mean field at any points."""
        at = self.domain.confine(at)
        return np.where(self.domain.frozen, 0.0, -self.energy.gradient(self.measure(k), at))

    def free(self, k: int) -> FloatArray:
        """1 for the coordinates of the nodes that neither a wall nor their axis holds, else 0, (N, d)."""
        touching = self.domain.touching(self.points[k])
        low, high = np.split(touching, 2, axis=1)
        return np.where(low | high | self.domain.frozen, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Dipoles:
    """Nodes displaced by ±``size`` q: what an energy's first variation changes by, per unit, is g."""

    energy: EnergySum
    ahead: Particles
    behind: Particles
    size: float

    @staticmethod
    def of(path: _Path, k: int, q: FloatArray) -> "_Dipoles":
        longest = float(np.max(np.linalg.norm(q, axis=1)))
        extent = float(np.min(path.domain.upper - path.domain.lower))
        size = _DISPLACED * extent / max(longest, 1e-300)
        ahead, behind = (Particles(path.points[k] + sign * size * q, path.weights) for sign in (1.0, -1.0))
        return _Dipoles(path.energy, ahead, behind, size)

    def potential(self, at: FloatArray) -> FloatArray:
        """g at points (M, d), (M,)."""
        ahead, behind = (self.energy.first_variation(side, at) for side in (self.ahead, self.behind))
        return np.asarray((ahead - behind) / (2.0 * self.size))

    def force(self, at: FloatArray) -> FloatArray:
        """∇g at points (M, d)."""
        ahead, behind = (self.energy.gradient(side, at) for side in (self.ahead, self.behind))
        return np.asarray((ahead - behind) / (2.0 * self.size))


def _adjoint(path: _Path, end: int) -> list[_Dipoles]:
    """The dipoles at the path's times 0 … ``end``; the adjoint makes steps over two of them. What a wall holds has no influence, nor has
    where it came from."""

    def rate(k: int, q: FloatArray) -> FloatArray:
        q = path.free(k) * q
        dipoles, here = _Dipoles.of(path, k, q), path.measure(k)
        ahead, behind = (path.energy.gradient(here, side.points) for side in (dipoles.ahead, dipoles.behind))
        return path.free(k) * ((ahead - behind) / (2.0 * dipoles.size) + dipoles.force(path.points[k]))

    q = path.free(end) * path.energy.gradient(path.measure(end), path.points[end])
    found = {end: q}
    for k in range(end, 0, -2):
        h = path.clock[k - 2] - path.clock[k]
        a = rate(k, q)
        b = rate(k - 1, q + 0.5 * h * a)
        c = rate(k - 1, q + 0.5 * h * b)
        d = rate(k - 2, q + h * c)
        middle = q + h / 24.0 * (5.0 * a + 4.0 * b + 4.0 * c - d)
        q = path.free(k - 2) * (q + h / 6.0 * (a + 2.0 * b + 2.0 * c + d))
        found[k - 1], found[k - 2] = path.free(k - 1) * middle, q
    return [_Dipoles.of(path, k, found[k]) for k in range(end + 1)]


def _along(path: _Path, labels: FloatArray, end: int) -> FloatArray:
    """ψ at the time with number ``end`` for the characteristics from the ``labels`` (M, d), (M,)."""
    if end == 0:
        return np.asarray(path.energy.first_variation(path.measure(0), labels))
    dipoles = _adjoint(path, end)
    x, total = labels, np.zeros(len(labels))
    for k in range(0, end, 2):
        h = path.clock[k + 2] - path.clock[k]
        a = path.velocity(k, x)
        b = path.velocity(k + 1, x + 0.5 * h * a)
        c = path.velocity(k + 1, x + 0.5 * h * b)
        d = path.velocity(k + 2, x + h * c)
        middle = path.domain.confine(x + h / 24.0 * (5.0 * a + 4.0 * b + 4.0 * c - d))
        after = path.domain.confine(x + h / 6.0 * (a + 2.0 * b + 2.0 * c + d))
        parts = (dipoles[k].potential(x), dipoles[k + 1].potential(middle), dipoles[k + 2].potential(after))
        total += h / 6.0 * (parts[0] + 4.0 * parts[1] + parts[2])
        x = after
    return np.asarray(path.energy.first_variation(path.measure(end), x) - total)
