"""Steps in the quantile function: on one axis a minimising movement is a minimisation in L², convex where E is displacement convex.

The measures are those with a constant density on n cells of fixed masses, X being linear between the mass levels. Internal energies,
W₂ and the moments of quadratic kernels are exact for them, other drifts are integrated by three Gauss nodes a cell; E(ρ_k) − E(ρ_{k+1}) ≥
W₂²/(2τ) then holds exactly, without a bias of entropic kind. Newton's matrix is tridiagonal, plus Σ_k s_k J_k J_kᵀ for networks and
quadratic kernels; what other kernels add between different cells goes through conjugate gradients.
[Blanchet–Calvez–Carrillo 2008; Matthes–Osberger 2014]
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Grid
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.features import Features
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status, StepFailed
from mfpde.solvers.jko.flow import Minimiser, root_mean
from mfpde.solvers.jko.internal_steps import InternalSteps
from mfpde.solvers.jko.levels import Levels
from mfpde.solvers.jko.logarithmic import MOST_CELLS, Logarithm
from mfpde.solvers.jko.rules import check_quantile
from mfpde.solvers.kernels.jko_lanes import subtract
from mfpde.solvers.kernels.jko_quantile import (
    add_interpolated,
    assemble,
    factor,
    fill_interpolated,
    internal_values,
    longest,
    pool,
    square_distance,
    substitute,
    substitute_all,
)

_PLACES = 0.5 + 0.5 * np.array([-math.sqrt(0.6), 0.0, math.sqrt(0.6)])
_SHARES = np.array([5.0, 8.0, 5.0]) / 18.0
_NO_PLACES, _NO_SHARES = np.empty(0), np.empty(0)
_CLOSE, _NEAR, _STALLED, _FLOOR = 1e-11, 1e-6, 0.5, 1e-13
_MOST_ITERATIONS = 100
_INWARD = 0.9
_ARMIJO = 1e-4
_SHRINK, _MOST_SHRINKS = 0.5, 40
_DIFFERENCE, _KINK = 1e-5, 1e-4
_TABLE, _TABLE_TOLERANCE = 4096, 1e-11
_PULL, _WIDTH_KEPT, _SOLVED = 1e-9, 0.1, 1e-12
_MOST_DIRECTIONS = 60
_TURN = 4.0
_NO_REMARKS = np.zeros(2)


@dataclass(eq=False)
class _Objective:
    """The objective at x (n + 1,) with its gradient, the tridiagonal part of its Hessian, the other part's rows J (r, n + 1) and signs,
    the cells that are closed, (n,), none on a circle (``ring``), and the drift's slopes and curvatures at the Gauss nodes, (n, 3)."""

    x: FloatArray
    value: float
    gradient: FloatArray
    diagonal: FloatArray
    upper: FloatArray
    rows: FloatArray
    signs: FloatArray
    closed: BoolArray
    slopes: FloatArray
    curvatures: FloatArray
    ring: bool

    @cached_property
    def apart(self) -> bool:
        """Whether no cell is closed, so that every level moves by itself."""
        return not self.closed.any()

    @cached_property
    def _starts(self) -> IntArray:
        """The first of all levels that move together, (b,)."""
        return np.concatenate([[0], np.flatnonzero(~self.closed) + 1])

    def joined(self, loads: FloatArray) -> FloatArray:
        """Sums over the levels that move together, (…, n + 1) to (…, b); on a circle the last one is the first."""
        if self.ring:
            folded = loads[..., :-1].copy()
            folded[..., 0] += loads[..., -1]
            return folded
        return loads if self.apart else np.add.reduceat(loads, self._starts, axis=-1)

    def spread(self, step: FloatArray) -> FloatArray:
        """The same for all levels that move together, (b,) to (n + 1,)."""
        if self.ring:
            return np.append(step, step[0])
        if self.apart:
            return step
        return np.repeat(step, np.diff(np.append(self._starts, len(self.closed) + 1)))


@dataclass(frozen=True, eq=False)
class _Found:
    """A minimiser, the linear systems that it took, and the residual as a velocity: that of the last point, or Newton's decrement before
    it, which bounds it, where round-off in cells of hardly any mass hides the former."""

    at: _Objective
    iterations: int
    residual: float


class QuantileScheme:
    """Newton's method for the quantile function at n + 1 mass levels; ends stop at walls, cells are never turned over.

    On a circle of length L the levels are those of a lift, X(s + 1) = X(s) + L, which may turn as a whole: the least E + |X − Y|²/(2σ) over
    all lifts is the least E + W₂²/(2σ), since other turns of X against Y have the same E [Delon–Salomon–Sobolevski 2010]. That no turn
    of the minimiser is nearer is checked after each step. Cells stay open there, so that without internal energy mass may come close to,
    but not into a point. Raises ValueError for problems that are not densities on one axis, and for energies that it does not know.
    """

    def __init__(self, problem: Problem, cells: tuple[int, ...], count: int) -> None:
        check_quantile(problem)
        assert isinstance(problem.initial, DensityFunction)
        self.grid: Grid = problem.domain.grid(cells)
        self.energy = problem.energy.tabulated(problem.domain, _TABLE_TOLERANCE, len(_PLACES) * count)
        self._low, self._high = float(problem.domain.lower[0]), float(problem.domain.upper[0])
        self._length, self._domain, self._ring = self._high - self._low, problem.domain, bool(problem.domain.periodic[0])
        self.levels = Levels.of(problem.initial, count, equal=bool(_logarithms(self.energy.terms)))
        self.masses = self.levels.masses
        self._cumulative = np.concatenate([[0.0], np.cumsum(self.masses)])
        self._cumulative /= self._cumulative[-1]
        self._node_masses = 0.5 * (np.append(self.masses, 0.0) + np.append(0.0, self.masses))
        self._atom_weights = np.outer(self.masses, _SHARES).ravel()
        self._read_terms()
        if self._logarithms and len(self.masses) > MOST_CELLS:
            words = f"take at most {MOST_CELLS} mass cells, whose pairs are all summed, got {len(self.masses)}"
            raise ValueError(f"logarithmic kernels {words}; give a smaller `count` or fewer `cells`")
        self._pooled, self._bent = 0.0, False

    def _read_terms(self) -> None:
        self._internal = {name: t for name, t in self.energy.terms.items() if isinstance(t, Entropy | Power)}
        powers = [t for t in self._internal.values() if isinstance(t, Power)]
        self._temperature = float(sum(t.temperature for t in self._internal.values()))
        self._exponents = np.array([t.exponent for t in powers], dtype=float)
        self._coefficients = np.array([t.coefficient for t in powers], dtype=float)
        self._logarithms = _logarithms(self.energy.terms)
        drift: dict[str, Energy] = {name: t for name, t in self.energy.terms.items() if name not in self._internal}
        drift = {name: t for name, t in drift.items() if name not in self._logarithms}
        self._drift = _sum_of(drift)
        kernels = {name: t for name, t in drift.items() if isinstance(t, Interaction)}
        kinked = {name for name, t in kernels.items() if t.kernel.quadratic is None and not t.kernel.resolved(_KINK * t.kernel.extent)}
        self._kinked = _sum_of({name: t for name, t in drift.items() if name in kinked})
        self._coupled = _sum_of({name: t for name, t in kernels.items() if t.kernel.quadratic is None and name not in kinked})
        self._networks = {name: t for name, t in drift.items() if isinstance(t, TwoLayer)}
        self._others = _sum_of({name: t for name, t in drift.items() if name not in kinked and name not in self._networks})
        self._slope_tables = [self._slope_table(t.features) for t in self._networks.values()]
        self._bend_tables = [np.gradient(table[:, :-1], axis=1) * ((_TABLE - 1) / self._length) for table in self._slope_tables]
        self._strength = sum(float(t.kernel.quadratic.matrix[0, 0]) for t in kernels.values() if t.kernel.quadratic is not None)
        self._repelled = bool(self._internal or self._logarithms) or self._ring
        alone = (
            [t for t in self._internal.values() if isinstance(t, Entropy | Power)]
            if self._drift is None and not (self._ring or self._logarithms)
            else []
        )
        self._internal_steps = InternalSteps.of(alone, self.masses, self._low, self._high)

    def _slope_table(self, features: Features) -> FloatArray:
        """∇Φ at evenly spaced places, (r, _TABLE + 1), the last one twice."""
        places = self._low + self._length * np.linspace(0.0, 1.0, _TABLE)[:, None]
        step = _DIFFERENCE * self._length
        ahead, behind = (features.evaluate(self._domain.confine(places + s) if self._ring else places + s) for s in (step, -step))
        slopes = (ahead - behind) / (2.0 * step)
        return np.concatenate([slopes, slopes[:, -1:]], axis=1)

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The levels, and what was met on the way."""
        where = "a lift of the circle's quantile function" if self._ring else "the quantile function"
        found = [f"{where} at {len(self.masses)} cells of fixed masses, as fine in the tails as where the mass is"]
        pooled, bent = remarks if remarks.size else (0.0, 0.0)
        if pooled > 0.0:
            found.append(f"up to {pooled:.2g} of the mass has come together in points, which is where its cells were closed")
        if bent > 0.0:
            found.append(
                "the objective was not convex in some steps, so that a step's minimiser need not be the only one; use a smaller tau"
            )
        return tuple(found)

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The quantiles of the initial density."""
        return self.levels.start[:, None].copy(), np.empty(0)

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """W₂², exact for piecewise constant densities."""
        return self._squared(np.ascontiguousarray(one[:, 0]), np.ascontiguousarray(other[:, 0]))

    def _squared(self, x: FloatArray, y: FloatArray) -> float:
        return float(square_distance(x, y, self.masses))

    def atoms(self, x: FloatArray) -> Particles:
        """The Gauss nodes of the cells."""
        return Particles(self._around(_nodes(x)), self._atom_weights)

    def _around(self, places: FloatArray) -> FloatArray:
        """Places (N, 1) of a lift on the circle; on an interval themselves."""
        return self._domain.confine(places) if self._ring else places

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term, of the piecewise constant density itself."""
        x = points[:, 0]
        found = {} if self._drift is None else self._drift.values(self.atoms(x))
        for name, term in self._internal.items():
            if isinstance(term, Entropy):
                found[name] = internal_values(x, self.masses, term.temperature, 1.0, 0.0)
            elif isinstance(term, Power):
                found[name] = internal_values(x, self.masses, 0.0, term.exponent, term.coefficient)
        for name, pairs in self._logarithms.items():
            found[name] = pairs.value(x, self.masses)
        return {name: found[name] for name in self.energy.terms}

    def value(self, points: FloatArray) -> float:
        """E."""
        return float(sum(self.values(points).values()))

    def dissipation(self, points: FloatArray) -> float:
        """Σ g²/m over the levels, g being the energy's gradient; nothing moves through walls."""
        return self._residual(self._objective(points[:, 0].copy(), points[:, 0].copy(), math.inf)) ** 2

    def measure(self, points: FloatArray) -> Density:
        """The exact masses of the grid's cells."""
        x, cumulative = np.maximum.accumulate(points[:, 0]), self._cumulative
        if self._ring:
            x = x - self._length * math.floor((x[0] - self._low) / self._length)
            x, cumulative = np.concatenate([x[:-1] - self._length, x]), np.concatenate([cumulative[:-1] - 1.0, cumulative])
        below = np.interp(self.grid.edges(0), x, cumulative)
        below[0], below[-1] = (below[0], below[0] + 1.0) if self._ring else (0.0, 1.0)
        return Density(self.grid, np.diff(below) / self.grid.cell_volume)

    def summary(self, points: FloatArray) -> tuple[float, float, float]:
        """Mass, least cell average, and the share of the wall cells that are not part of the model."""
        measure = self.measure(points)
        wall = float(np.sum(measure.weights[self.grid.cutoff_cells]))
        return measure.mass, measure.minimum, wall

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """Newton's method from the better of two starts; internal energies alone are convex, so that the first will do."""
        missed, factor = (dual[:-1], (sigma / float(dual[-1])) ** 2) if len(dual) else (guess[:, 0], 0.0)
        done, steps = None, self._internal_steps
        if steps is not None:
            done = steps.minimise(target, sigma, current, guess, missed, factor, _WIDTH_KEPT, _CLOSE)
        if done is not None:
            points, residual = done.places, math.sqrt(min(done.left, done.drop / sigma))
            dual = _missed(points, guess, current, sigma)
            return Minimiser(points, dual, done.energy, residual, 0.0, done.iterations, done.square, remarks=_NO_REMARKS)
        self._pooled, self._bent = 0.0, False
        found = self._general(target, sigma, current, guess[:, 0] + factor * missed)
        points = found.at.x[:, None].copy()
        if self._ring:
            self._check_turn(points[:, 0], current[:, 0], sigma)
        dual, remarks = _missed(points, guess, current, sigma), np.array([self._pooled, float(self._bent)])
        square = self._squared(found.at.x, np.ascontiguousarray(target[:, 0]))
        energy = found.at.value - square / (2.0 * sigma)
        return Minimiser(points, dual, energy, found.residual, 0.0, found.iterations, square, remarks=remarks)

    def _check_turn(self, x: FloatArray, y: FloatArray, sigma: float) -> None:
        """Raises StepFailed where mass has gone half way round the circle, or where another turn of y is nearer to x: the squared distance
        is convex in the turn, so that two small ones tell."""
        if 2.0 * float(np.max(np.abs(x - y))) >= self._length:
            raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, "mass went half way round the circle in one step"))
        turn, levels = _TURN * float(np.max(self.masses)), self._cumulative
        whole = np.concatenate([levels[:-1] - 1.0, levels, levels[1:] + 1.0])
        lift = np.concatenate([y[:-1] - self._length, y, y[1:] + self._length])
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        here = self._squared(x, y)
        for shift in (turn, -turn):
            other = np.interp(levels + shift, whole, lift)
            if self._squared(x, other) < here * (1.0 - 1e-9) - 1e-14 * self._length**2:
                words = "the step turned the whole circle further than the mass has to go"
                raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, words))

    def _general(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray) -> _Found:
        """The minimiser for any energy, step by step."""
        aim, here = np.ascontiguousarray(target[:, 0]), np.ascontiguousarray(current[:, 0])
        ahead = guess if self._ring else np.clip(guess, self._low, self._high)
        if not np.min(np.diff(ahead) - _WIDTH_KEPT * np.diff(here)) > 0.0:
            best = self._objective(here, aim, sigma)
        else:
            best = self._objective(ahead, aim, sigma)
            if self._drift is not None and best.value > self.value(current) + self._squared(here, aim) / (2.0 * sigma):
                best = self._objective(here, aim, sigma)
        return self._newton(best, aim, sigma)

    def _newton(self, at: _Objective, aim: FloatArray, sigma: float) -> _Found:
        """Newton's method with a line search. Internal energies keep cells open; without one, cells that would be turned over close, and
        their levels move together from there on."""
        before = math.inf
        for iteration in range(1, _MOST_ITERATIONS + 1):
            step = self._direction(at, aim, sigma)
            if not self._repelled:
                closed = self._closed(at, step)
                if not np.array_equal(closed, at.closed):
                    at, before = self._objective(_joined(at.x, self._node_masses, closed), aim, sigma, closed), math.inf
                    continue
            drop = max(-float(at.gradient @ step), 0.0)
            error = math.sqrt(drop * sigma) / self._length
            most, wall = self._limits(at.x, step)
            length = min(1.0, wall, _INWARD * most)
            new = self._search(at, step, drop, length, wall, aim, sigma)
            if new is None:
                if error <= _NEAR:
                    return _Found(at, iteration, math.sqrt(drop / sigma))
                raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, f"no descent was found after {iteration} Newton iterations"))
            full, at = length == 1.0, new
            residual, stalled = self._residual(at), error > _STALLED * before
            close = error <= _CLOSE or (error <= _NEAR and (stalled or sigma * residual <= _CLOSE * self._length))
            if full and close:
                opened = self._opened(at)
                if opened is None:
                    return _Found(at, iteration, min(residual, math.sqrt(drop / sigma)))
                at, error = self._objective(at.x, aim, sigma, opened), math.inf
            before = error
        raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, f"Newton's method did not converge in {_MOST_ITERATIONS} iterations"))

    def _closed(self, at: _Objective, step: FloatArray) -> BoolArray:
        """The cells (n,) that are closed and those that a full step would turn over or push into a wall, as in isotonic regression."""
        ahead = at.x + step
        if float(np.min(np.diff(ahead))) >= 0.0 and ahead[0] >= self._low and ahead[-1] <= self._high:
            return at.closed
        pooled = np.clip(pool(ahead, self._node_masses), self._low, self._high)
        return np.asarray(at.closed | (np.diff(pooled) <= 0.0))

    def _opened(self, at: _Objective) -> "BoolArray | None":
        """The closed cells without those that the gradient pulls open; None where there are none of these."""
        if at.apart:
            return None
        self._pooled = max(self._pooled, float(np.sum(self.masses[at.closed])))
        if self._kinked is not None:
            return None  # the force of a kink on what has come together is any that holds it there
        starts = np.concatenate([[0], np.flatnonzero(~at.closed) + 1])
        sums = np.cumsum(at.gradient)
        lengths = np.diff(np.append(starts, len(sums)))
        pull = sums - np.repeat(sums[starts] - at.gradient[starts], lengths)
        for cut, outward in ((slice(0, int(lengths[0])), at.x[0] <= self._low), (slice(int(starts[-1]), None), at.x[-1] >= self._high)):
            if outward:
                whole = float(np.sum(at.gradient[cut]))
                pull[cut] -= max(whole, 0.0) if cut.start == 0 else 0.0
        opens = at.closed & (pull[:-1] > _PULL * np.sum(np.abs(at.gradient)))
        return None if not opens.any() else np.asarray(at.closed & ~opens)

    def _search(
        self, at: _Objective, step: FloatArray, drop: float, length: float, wall: float, aim: FloatArray, sigma: float
    ) -> _Objective | None:
        """The first point on the way with a sufficient descent; differences that drown in round-off count as such."""
        slack = _FLOOR * (abs(at.value) + self._length**2 / sigma)
        for _ in range(_MOST_SHRINKS):
            x = at.x + length * step
            if length == wall:
                self._snap(x)
            x = x if self._ring else np.clip(x, self._low, self._high)
            new = self._objective(x, aim, sigma, at.closed)
            if new.value <= at.value - _ARMIJO * length * drop + slack:
                return new
            length *= _SHRINK
        return None

    def _snap(self, x: FloatArray) -> None:
        """Ends that have come to a wall up to round-off stand there."""
        near = 1e-14 * self._length
        x[0] = self._low if x[0] < self._low + near else x[0]
        x[-1] = self._high if x[-1] > self._high - near else x[-1]

    def _limits(self, x: FloatArray, step: FloatArray) -> tuple[float, float]:
        """How far along the step cells keep their order, and how far it is to a wall."""
        wall = math.inf
        if self._ring:
            return float(longest(x, step)), wall
        if step[0] < 0.0 and x[0] > self._low:
            wall = min(wall, (self._low - x[0]) / step[0])
        if step[-1] > 0.0 and x[-1] < self._high:
            wall = min(wall, (self._high - x[-1]) / step[-1])
        return float(longest(x, step)), wall

    def _held(self, at: _Objective) -> tuple[bool, bool]:
        """Whether the first and the last level, with those that move with them, are pressed against their walls."""
        low, high = (at.x[0] <= self._low, at.x[-1] >= self._high) if not self._ring else (False, False)
        return bool(low and at.joined(at.gradient)[0] > 0.0), bool(high and at.joined(at.gradient)[-1] < 0.0)

    def _residual(self, at: _Objective) -> float:
        """The gradient without what walls and closed cells hold, as a velocity: √Σ g²/m over the levels."""
        low, high = self._held(at)
        gradient, masses = at.joined(at.gradient), at.joined(self._node_masses)
        part = slice(1 if low else 0, len(gradient) - (1 if high else 0))
        return root_mean(1.0 / masses[part], gradient[part] ** 2)

    def _objective(self, x: FloatArray, aim: FloatArray, sigma: float, closed: "BoolArray | None" = None) -> _Objective:
        """Everything at x, with the levels on both sides of ``closed`` cells (n,) as one. Infinite where cells are turned over."""
        count = len(self.masses)
        slopes, curvatures, energy = np.empty((count, 0)), np.empty((count, 0)), 0.0
        if self._ring:
            x = np.append(x[:-1], x[0] + self._length)
        rows, signs = np.empty((0, count + 1)), np.empty(0)
        ordered = float(np.min(np.diff(x))) > 0.0 or not self._repelled
        if self._drift is not None and ordered:
            energy, slopes, curvatures = self._field(x)
            rows, signs = self._coupling(x)
        closed = np.zeros(count, dtype=bool) if closed is None else closed
        value, gradient, diagonal, upper = self._assembled(x, aim, sigma, slopes, curvatures)
        for pairs in self._logarithms.values():
            part, pull = pairs.value_and_gradient(x, self.masses) if ordered else (math.inf, gradient)
            value, gradient = value + part, gradient + pull
        return _Objective(x, value + energy, gradient, diagonal, upper, rows, signs, closed, slopes, curvatures, self._ring)

    def _assembled(
        self, x: FloatArray, aim: FloatArray, sigma: float, slopes: FloatArray, curvatures: FloatArray
    ) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        count = len(self.masses)
        gradient, diagonal, upper = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count)
        places, shares = (_PLACES, _SHARES) if slopes.shape[1] else (_NO_PLACES, _NO_SHARES)
        internal = self._temperature, self._exponents, self._coefficients
        value = assemble(x, aim, self.masses, sigma, *internal, places, shares, slopes, curvatures, gradient, diagonal, upper)
        return value, gradient, diagonal, upper

    def _field(self, x: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """The drift's energy, and the slope and curvature of its first variation at the Gauss nodes, (n, 3) each; kernels with kinks, whose
        forces jump, give no curvature."""
        atoms, shape = self.atoms(x), (len(self.masses), len(_PLACES))
        points, step = atoms.points, _DIFFERENCE * self._length
        if self._ring:
            ahead, behind, apart = self._around(points + step), self._around(points - step), np.full(len(points), 2.0 * step)
        else:
            ahead, behind = np.minimum(points + step, self._high), np.maximum(points - step, self._low)
            apart = (ahead - behind)[:, 0]
        slope, curvature = np.zeros(len(points)), np.zeros(len(points))
        energy = 0.0
        if self._others is not None:
            found = self._others.gradient(atoms, np.concatenate([points, ahead, behind]))[:, 0].reshape(3, -1)
            slope, curvature = found[0], (found[1] - found[2]) / apart
            energy += self._others.value(atoms)
        for term, table in zip(self._networks.values(), self._bend_tables, strict=True):
            lam = term.residual(atoms)
            energy += 0.5 * float(lam @ lam) + term.constant
            slope += term.features.gradient(points, lam)[:, 0]
            add_interpolated(lam @ table, points[:, 0], self._low, self._high, curvature)
        if self._kinked is not None:
            slope += self._kinked.gradient(atoms, points)[:, 0]
            energy += self._kinked.value(atoms)
        if not np.isfinite(slope).all():
            raise StepFailed(Status.NOT_FINITE, "the gradient of the first variation is not finite")
        return energy, np.ascontiguousarray(slope.reshape(shape)), np.ascontiguousarray(curvature.reshape(shape))

    def _coupling(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rows J (r, n + 1) and signs (r,) of what networks and quadratic kernels add to the Hessian; those of networks by one node a
        level, which Newton's method does not notice."""
        rows, signs = [], []
        for table in self._slope_tables:
            slopes = np.empty((len(table), len(x)))
            fill_interpolated(table, self._around(x[:, None])[:, 0], self._node_masses, self._low, self._high, slopes)
            rows.append(slopes)
            signs.append(np.ones(len(slopes)))
        if self._strength != 0.0:
            rows.append(math.sqrt(abs(self._strength)) * self._node_masses[None])
            signs.append(-np.sign([self._strength]))
        if not rows:
            return np.empty((0, len(x))), np.empty(0)
        return np.concatenate(rows), np.concatenate(signs)

    def _loads(self, values: FloatArray) -> FloatArray:
        """∫f φ_i over the mass for the hat functions φ_i of the levels, (…, n + 1), from f at the Gauss nodes, (…, n, 3)."""
        scaled = values * (self.masses[:, None] * _SHARES)
        loads = np.zeros((*values.shape[:-2], len(self.masses) + 1))
        loads[..., :-1] += scaled @ (1.0 - _PLACES)
        loads[..., 1:] += scaled @ _PLACES
        return loads

    def _direction(self, at: _Objective, aim: FloatArray, sigma: float) -> FloatArray:
        """Newton's step, or one with a convex model where that is no descent; levels beside closed cells move together."""
        right = -at.joined(at.gradient)
        free = np.ones(len(right))
        low, high = self._held(at)
        free[0], free[-1] = 0.0 if low else 1.0, 0.0 if high else 1.0
        right *= free
        solver = self._whole_solver(at, free) if self._logarithms else self._solver(at, free, at.rows, at.signs)
        if solver is not None:
            found = solver(right) if self._coupled is None else self._conjugate(at, free, right, solver)
            if float(found @ right) > 0.0 or not right.any():
                return at.spread(found)
        self._bent = True
        _, _, diagonal, upper = self._assembled(at.x, aim, sigma, at.slopes, np.maximum(at.curvatures, 0.0))
        positive = at.signs > 0.0
        model = replace(at, diagonal=diagonal, upper=upper)
        solver = self._solver(model, free, at.rows[positive], at.signs[positive])
        assert solver is not None
        return at.spread(solver(right))

    def _solver(self, at: _Objective, free: FloatArray, rows: FloatArray, signs: FloatArray) -> "Callable[[FloatArray], FloatArray] | None":
        """v ↦ (T + Σ s J Jᵀ)⁻¹ v by Woodbury's formula on the levels that are free; None where T is not positive definite."""
        diagonal = at.joined(at.diagonal)
        if not at.apart:
            diagonal = diagonal + 2.0 * at.joined(np.append(np.where(at.closed, at.upper, 0.0), 0.0))
        diagonal = np.where(free > 0.0, diagonal, 1.0)
        upper, held = at.upper if at.apart else at.upper[~at.closed], at.joined(rows) * free
        if self._ring:  # the corner c as c(e₀ + eₙ₋₁)(e₀ + eₙ₋₁)ᵀ, which leaves a matrix that is positive where the whole one is
            upper, corner = np.ascontiguousarray(upper[:-1]), float(upper[-1])
            diagonal[[0, -1]] -= corner
            row = np.zeros((1, len(diagonal)))
            row[0, [0, -1]] = math.sqrt(abs(corner))
            held, signs = np.concatenate([held, row]), np.append(signs, 1.0 if corner >= 0.0 else -1.0)
        else:
            upper = upper * free[1:] * free[:-1]
        inverse = np.empty(len(diagonal))
        if not factor(diagonal, upper, inverse):
            return None
        right = np.array(held.T, order="C")
        if len(signs):
            substitute_all(upper, inverse, right)
        small = np.diag(signs) + held @ right

        def apply(v: FloatArray) -> FloatArray:
            column = v.copy()
            substitute(upper, inverse, column)
            return column - right @ np.linalg.solve(small, held @ column) if len(signs) else column

        return apply

    def _whole_solver(self, at: _Objective, free: FloatArray) -> "Callable[[FloatArray], FloatArray] | None":
        """The same with the full Hessian of logarithmic kernels, by Cholesky's factorisation."""
        from scipy.linalg import cho_factor, cho_solve

        matrix = (at.rows.T * at.signs) @ at.rows + np.diag(at.diagonal) + np.diag(at.upper, 1) + np.diag(at.upper, -1)
        for pairs in self._logarithms.values():
            matrix += pairs.hessian(at.x, self.masses)
        matrix *= free[:, None] * free
        held = np.flatnonzero(free == 0.0)
        matrix[held, held] = 1.0
        try:
            factors = cho_factor(matrix, lower=True)
        except np.linalg.LinAlgError:
            return None
        return lambda v: np.asarray(cho_solve(factors, v))

    def _conjugate(
        self, at: _Objective, free: FloatArray, right: FloatArray, precondition: "Callable[[FloatArray], FloatArray]"
    ) -> FloatArray:
        """Newton's step with the whole Hessian by preconditioned conjugate gradients, which end where it is not positive."""
        step, left = np.zeros_like(right), right.copy()
        z = precondition(left)
        direction, size = z.copy(), float(left @ z)
        first = size
        for _ in range(_MOST_DIRECTIONS):
            if not size > _SOLVED * first:
                break
            image = at.joined(self._hessian(at, at.spread(direction))) * free
            bend = float(direction @ image)
            if not bend > 0.0:
                return step if np.any(step) else direction
            step = step + (size / bend) * direction
            left = left - (size / bend) * image
            z = precondition(left)
            before, size = size, float(left @ z)
            direction = z + (size / before) * direction
        return step

    def _hessian(self, at: _Objective, v: FloatArray) -> FloatArray:
        """The Hessian's product with v, that of kernels by differences of their forces along v."""
        assert self._coupled is not None
        image = at.diagonal * v
        image[:-1] += at.upper * v[1:]
        image[1:] += at.upper * v[:-1]
        image += (at.signs * (at.rows @ v)) @ at.rows
        size = float(np.max(np.abs(v)))
        if size == 0.0:
            return image
        atoms = self.atoms(at.x)
        along = (_nodes(at.x + v) - _nodes(at.x)) / size
        step = _DIFFERENCE * self._length
        forth, back = (Particles(self._around(atoms.points + s * along), self._atom_weights) for s in (step, -step))
        change = (self._coupled.gradient(forth, atoms.points) - self._coupled.gradient(back, atoms.points)) * (size / (2.0 * step))
        return np.asarray(image + self._loads(change[:, 0].reshape(len(self.masses), -1)))


def _joined(x: FloatArray, masses: FloatArray, closed: BoolArray) -> FloatArray:
    """x with the levels on both sides of closed cells at their barycentres."""
    starts = np.concatenate([[0], np.flatnonzero(~closed) + 1])
    means = np.add.reduceat(masses * x, starts) / np.add.reduceat(masses, starts)
    means = np.clip(means, x[starts], x[np.append(starts[1:], len(x)) - 1])
    return np.repeat(means, np.diff(np.append(starts, len(x))))


def _nodes(x: FloatArray) -> FloatArray:
    """The Gauss nodes of the cells, (3n, 1)."""
    return np.asarray(x[:-1, None] + np.diff(x)[:, None] * _PLACES).reshape(-1, 1)


def _missed(points: FloatArray, guess: FloatArray, current: FloatArray, sigma: float) -> FloatArray:
    """What a guess by extrapolation missed, a second difference, and the step, (n + 2,); nothing where there was none."""
    if guess is current:
        return np.empty(0)
    missed = np.empty(len(points) + 1)
    subtract(points[:, 0], guess[:, 0], missed)
    missed[-1] = sigma
    return missed


def _logarithms(terms: "Mapping[str, Energy]") -> dict[str, Logarithm]:
    """Those among the terms."""
    singular = {name: t for name, t in terms.items() if isinstance(t, Interaction) and t.kernel.at_zero is None}
    found = {name: Logarithm.of(t.kernel) for name, t in singular.items()}
    return {name: pairs for name, pairs in found.items() if pairs is not None}


def _sum_of(terms: "Mapping[str, Energy]") -> EnergySum | None:
    return EnergySum(dict(terms)) if terms else None


def _advice(sigma: float, what: str) -> str:
    return f"{what} (step {sigma:.3g}): use a smaller tau or more mass cells (`count`)"
