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
from mfpde.domain import Domain
from mfpde.energy import Interaction, Potential, TwoLayer
from mfpde.energy.base import EnergySum
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.solvers.particles import ParticleFlow

_NODES = {1: 96, 2: 16, 3: 8}
_PLACES = {1: 1025, 2: 65, 3: 25}
_DISPLACED = 1e-4
_PILOT = 64
_PARTS = 4


def has_sensitivity(problem: Problem) -> bool:
    """Whether ψ_t can be had: a density at the start, at most three axes, and quadratic energies."""
    terms = problem.energy.terms.values()
    quadratic = all(isinstance(term, TwoLayer | Potential | Interaction) for term in terms)
    return quadratic and isinstance(problem.initial, DensityFunction) and problem.domain.dimension in _NODES


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """ψ_t at ``times`` (T,) on a lattice over the domain, ``values`` (T, n, …), with its ``mean`` and ``deviation`` (T,) under ρ_0."""

    domain: Domain
    times: FloatArray
    values: FloatArray
    start: Particles

    def at(self, points: FloatArray) -> FloatArray:
        """ψ_t at points (M, d), by cubic splines, as (T, M)."""
        from scipy.ndimage import map_coordinates

        size = np.array(self.values.shape[1:]) - 1.0
        places = (points - self.domain.lower) / (self.domain.upper - self.domain.lower) * size
        return np.stack([map_coordinates(c, places.T, order=3, mode="nearest", prefilter=False) for c in self._splines])

    @cached_property
    def _splines(self) -> list[FloatArray]:
        from scipy.ndimage import spline_filter

        return [np.asarray(spline_filter(values, order=3, mode="nearest")) for values in self.values]

    @cached_property
    def _on_start(self) -> FloatArray:
        return self.at(self.start.points)

    @property
    def mean(self) -> FloatArray:
        """∫ψ_t dρ_0, (T,)."""
        return np.asarray(self._on_start @ self.start.weights)

    @property
    def deviation(self) -> FloatArray:
        """The standard deviation of ψ_t under ρ_0, (T,): the limit of that of √N times the loss gap."""
        centred = self._on_start - self.mean[:, None]
        return np.sqrt(centred**2 @ self.start.weights)


def loss_sensitivity(problem: Problem, times: Sequence[float]) -> Sensitivity:
    """ψ_t by Runge–Kutta steps of fourth order, several to each step of an adaptive run of a few atoms.

    Raises TypeError without ``has_sensitivity``.
    """
    if not has_sensitivity(problem):
        raise TypeError("the sensitivity needs a density at the start, at most three axes and quadratic energies")
    assert isinstance(problem.initial, DensityFunction)
    start = problem.initial.gauss_atoms(_NODES[problem.domain.dimension])
    pilot = ParticleFlow(_PILOT, start="quantile", tolerance=1e-6).solve(replace(problem, save_at=tuple(times)))
    clock = _clock(pilot.certificate["time"])
    path = _Path.of(problem, start, clock)
    lattice = _lattice(problem.domain)
    values = [_along(path, lattice, int(np.flatnonzero(clock == time)[0])) for time in times]
    shape = (_PLACES[problem.domain.dimension],) * problem.domain.dimension
    return Sensitivity(problem.domain, np.asarray(times), np.reshape(values, (len(times), *shape)), start)


def _clock(ends: FloatArray) -> FloatArray:
    """The times of the path: an even number of equal parts of each step of the pilot."""
    clock = [0.0]
    for a, b in pairwise(ends.tolist()):
        clock.extend(np.linspace(a, b, _PARTS + 1)[1:].tolist())
    return np.array(clock)


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
    """The dipoles at the path's times 0 … ``end``; the adjoint makes steps over two of them."""
    held = np.where(path.domain.frozen, 0.0, 1.0)

    def rate(k: int, q: FloatArray) -> FloatArray:
        dipoles, here = _Dipoles.of(path, k, q), path.measure(k)
        turned = (path.energy.gradient(here, side.points) for side in (dipoles.ahead, dipoles.behind))
        ahead, behind = turned
        return held * ((ahead - behind) / (2.0 * dipoles.size) + dipoles.force(path.points[k]))

    q = held * path.energy.gradient(path.measure(end), path.points[end])
    found = {end: q}
    for k in range(end, 0, -2):
        h = path.clock[k - 2] - path.clock[k]
        a = rate(k, q)
        b = rate(k - 1, q + 0.5 * h * a)
        c = rate(k - 1, q + 0.5 * h * b)
        d = rate(k - 2, q + h * c)
        middle = q + h / 24.0 * (5.0 * a + 4.0 * b + 4.0 * c - d)
        q = q + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
        found[k - 1], found[k - 2] = middle, q
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
