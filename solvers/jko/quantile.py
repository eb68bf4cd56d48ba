"""Steps in the quantile function: on one axis a minimising movement is a minimisation in L², convex where E is displacement convex.

The measures are those with a constant density on n cells of fixed masses, X being linear between the mass levels. Internal energies,
W₂ and the moments of quadratic kernels are exact for them, other drifts are integrated by three Gauss nodes a cell; E(ρ_k) − E(ρ_{k+1}) ≥
W₂²/(2τ) then holds exactly, without a bias of entropic kind. Newton's matrix is tridiagonal, plus Σ_k s_k J_k J_kᵀ for networks and
quadratic kernels; what other kernels add between different cells goes through conjugate gradients.
[Blanchet–Calvez–Carrillo 2008; Matthes–Osberger 2014]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status, StepFailed
from mfpde.solvers.jko.flow import Minimiser, root_mean
from mfpde.solvers.jko.levels import Levels
from mfpde.solvers.kernels.jko_quantile import assemble, internal_values, longest, solve, square_distance

MOST_FEATURES = 512
_PLACES = 0.5 + 0.5 * np.array([-math.sqrt(0.6), 0.0, math.sqrt(0.6)])
_SHARES = np.array([5.0, 8.0, 5.0]) / 18.0
_NO_PLACES, _NO_SHARES = np.empty(0), np.empty(0)
_CLOSE, _NEAR, _STALLED, _FLOOR = 1e-11, 1e-6, 0.5, 1e-13
_MOST_ITERATIONS = 100
_INWARD = 0.9
_ARMIJO = 1e-4
_SHRINK, _MOST_SHRINKS = 0.5, 40
_VANISHING = 10.0 ** -np.arange(2.0, 12.5, 1.0)
_LAST_SHARE = 1e-7
_SPREAD = 0.1
_DIFFERENCE, _LEAST_DIFFERENCE = 1e-5, 1e-9
_APART = 0.02
_MOST_DIRECTIONS = 60


@dataclass(eq=False)
class _Objective:
    """The objective at x (n + 1,) with its gradient, the tridiagonal part of its Hessian, the other part's rows J (r, n + 1) and signs."""

    x: FloatArray
    value: float
    gradient: FloatArray
    diagonal: FloatArray
    upper: FloatArray
    rows: FloatArray
    signs: FloatArray
    extra: float


@dataclass(frozen=True, eq=False)
class _Found:
    """A minimiser, the linear systems that it took, and the residual as a velocity: that of the last point, or Newton's decrement before
    it, which bounds it, where round-off in cells of hardly any mass hides the former."""

    at: _Objective
    iterations: int
    residual: float


class QuantileScheme:
    """Newton's method for the quantile function at n + 1 mass levels; ends stop at walls, cells are never turned over.

    Raises ValueError for problems that are not densities on an interval, and for energies that it does not know.
    """

    def __init__(self, problem: Problem, cells: tuple[int, ...], count: int) -> None:
        check(problem)
        assert isinstance(problem.initial, DensityFunction)
        self.grid: Grid = problem.domain.grid(cells)
        self.energy = problem.energy
        self._low, self._high = float(problem.domain.lower[0]), float(problem.domain.upper[0])
        self._length = self._high - self._low
        self.levels = Levels.of(problem.initial, count)
        self.masses = self.levels.masses
        self._cumulative = np.concatenate([[0.0], np.cumsum(self.masses)])
        self._cumulative /= self._cumulative[-1]
        self._node_masses = 0.5 * (np.append(self.masses, 0.0) + np.append(0.0, self.masses))
        self._atom_weights = np.outer(self.masses, _SHARES).ravel()
        self._read_terms()
        self._pivots = np.empty(len(self.masses) + 1)
        self._collapsed, self._bent = 0.0, False

    def _read_terms(self) -> None:
        self._internal = {name: t for name, t in self.energy.terms.items() if isinstance(t, Entropy | Power)}
        powers = [t for t in self._internal.values() if isinstance(t, Power)]
        self._temperature = float(sum(t.temperature for t in self._internal.values()))
        self._exponents = np.array([t.exponent for t in powers], dtype=float)
        self._coefficients = np.array([t.coefficient for t in powers], dtype=float)
        drift: dict[str, Energy] = {name: t for name, t in self.energy.terms.items() if name not in self._internal}
        self._drift = EnergySum(drift) if drift else None
        kernels = {name: t for name, t in drift.items() if isinstance(t, Interaction)}
        coupled: dict[str, Energy] = {name: t for name, t in kernels.items() if t.kernel.quadratic is None}
        self._coupled = EnergySum(coupled) if coupled else None
        self._networks = [t for t in drift.values() if isinstance(t, TwoLayer)]
        self._strength = sum(float(t.kernel.quadratic.matrix[0, 0]) for t in kernels.values() if t.kernel.quadratic is not None)
        self._repelled = bool(self._internal)

    @property
    def notes(self) -> tuple[str, ...]:
        """The levels, and what was met on the way."""
        found = [f"the quantile function at {len(self.masses)} cells of fixed masses, as fine in the tails as where the mass is"]
        if self._collapsed > 0.0:
            found.append(
                f"mass was pressed together: the order of the cells was kept by an entropy of vanishing temperature, {self._collapsed:.0e} at last"
            )
        if self._bent:
            found.append("the objective was not convex in some steps, so that a step's minimiser need not be the only one; use a smaller tau")
        return tuple(found)

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The quantiles of the initial density."""
        return self.levels.start[:, None].copy(), np.empty(0)

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """W₂², exact for piecewise constant densities."""
        return float(square_distance(np.ascontiguousarray(one[:, 0]), np.ascontiguousarray(other[:, 0]), self.masses))

    def atoms(self, x: FloatArray) -> Particles:
        """The Gauss nodes of the cells."""
        places = x[:-1, None] + np.diff(x)[:, None] * _PLACES
        return Particles(places.reshape(-1, 1), self._atom_weights)

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term, of the piecewise constant density itself."""
        x = points[:, 0]
        found = {} if self._drift is None else self._drift.values(self.atoms(x))
        for name, term in self._internal.items():
            if isinstance(term, Entropy):
                found[name] = internal_values(x, self.masses, term.temperature, 1.0, 0.0)
            elif isinstance(term, Power):
                found[name] = internal_values(x, self.masses, 0.0, term.exponent, term.coefficient)
        return {name: found[name] for name in self.energy.terms}

    def value(self, points: FloatArray) -> float:
        """E."""
        return float(sum(self.values(points).values()))

    def dissipation(self, points: FloatArray) -> float:
        """Σ g²/m over the levels, g being the energy's gradient; nothing moves through walls."""
        return self._residual(self._objective(points[:, 0].copy(), points[:, 0].copy(), math.inf)) ** 2

    def measure(self, points: FloatArray) -> Density:
        """The exact masses of the grid's cells."""
        x = np.maximum.accumulate(points[:, 0])
        below = np.interp(self.grid.edges(0), x, self._cumulative, left=0.0, right=1.0)
        below[0], below[-1] = 0.0, 1.0
        return Density(self.grid, np.diff(below) / self.grid.cell_volume)

    def summary(self, points: FloatArray) -> tuple[float, float, float]:
        """Mass, least cell average, and the share of the wall cells that are not part of the model."""
        measure = self.measure(points)
        wall = float(np.sum(measure.weights[self.grid.cutoff_cells]))
        return measure.mass, measure.minimum, wall

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """Newton's method from the better of two starts; where cells would be turned over, with an entropy that vanishes."""
        aim = np.ascontiguousarray(target[:, 0])
        best = self._objective(np.ascontiguousarray(current[:, 0]), aim, sigma)
        ahead = np.clip(guess[:, 0], self._low, self._high)
        if np.min(np.diff(ahead) - 0.1 * np.diff(current[:, 0])) > 0.0:
            other = self._objective(ahead, aim, sigma)
            best = other if other.value < best.value else best
        found, gap = self._newton(best, aim, sigma), 0.0
        if found is None:
            found, gap = self._pressed(best, aim, sigma)
        points = found.at.x[:, None].copy()
        return Minimiser(points, dual, self.value(points), found.residual, gap, found.iterations)

    def _pressed(self, best: _Objective, aim: FloatArray, sigma: float) -> "tuple[_Found, float]":
        """The minimiser with an entropy whose temperature, which is the duality gap, goes to zero; from cells that are spread out."""
        scale, total, temperature = self._length**2 / sigma, 0, 0.0
        spread = self._low + self._length * np.linspace(0.0, 1.0, len(best.x))
        x, found = best.x + _SPREAD * (spread - best.x), None
        for share in _VANISHING:
            try:
                next_found = self._newton(self._objective(x, aim, sigma, float(share) * scale), aim, sigma, float(share) * scale)
            except StepFailed:
                if found is None or share > _LAST_SHARE:
                    raise
                break
            assert next_found is not None
            found, x, temperature, total = next_found, next_found.at.x, float(share) * scale, total + next_found.iterations
        assert found is not None
        self._collapsed = max(self._collapsed, temperature)
        return _Found(found.at, total, found.residual), temperature

    def _newton(self, at: _Objective, aim: FloatArray, sigma: float, extra: float = 0.0) -> "_Found | None":
        """Newton's method with a line search; None where cells would be turned over and nothing keeps them in order."""
        kept, before = self._repelled or extra > 0.0, math.inf
        for iteration in range(1, _MOST_ITERATIONS + 1):
            step = self._direction(at, aim, sigma)
            drop = max(-float(at.gradient @ step), 0.0)
            error = math.sqrt(drop * sigma) / self._length
            most, wall = self._limits(at.x, step)
            if most <= 1.0 and not kept:
                return None
            length = min(1.0, wall, _INWARD * most)
            new = self._search(at, step, drop, length, wall, aim, sigma, extra)
            if new is None:
                if error <= _NEAR:
                    return _Found(at, iteration, math.sqrt(drop / sigma))
                raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, f"no descent was found after {iteration} Newton iterations"))
            full, at = length == 1.0, new
            residual, stalled = self._residual(at), error > _STALLED * before
            close = error <= _CLOSE or (error <= _NEAR and (stalled or sigma * residual <= _CLOSE * self._length))
            if full and close:
                return _Found(at, iteration, min(residual, math.sqrt(drop / sigma)))
            before = error
        raise StepFailed(Status.NOT_CONVERGED, _advice(sigma, f"Newton's method did not converge in {_MOST_ITERATIONS} iterations"))

    def _search(
        self, at: _Objective, step: FloatArray, drop: float, length: float, wall: float, aim: FloatArray, sigma: float, extra: float
    ) -> _Objective | None:
        """The first point on the way with a sufficient descent; differences that drown in round-off count as such."""
        slack = _FLOOR * (abs(at.value) + self._length**2 / sigma)
        for _ in range(_MOST_SHRINKS):
            x = at.x + length * step
            if length == wall:
                self._snap(x)
            new = self._objective(np.clip(x, self._low, self._high), aim, sigma, extra)
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
        if step[0] < 0.0 and x[0] > self._low:
            wall = min(wall, (self._low - x[0]) / step[0])
        if step[-1] > 0.0 and x[-1] < self._high:
            wall = min(wall, (self._high - x[-1]) / step[-1])
        return float(longest(x, step)), wall

    def _held(self, at: _Objective) -> tuple[bool, bool]:
        """Whether the first and the last level are pressed against their walls."""
        return bool(at.x[0] <= self._low and at.gradient[0] > 0.0), bool(at.x[-1] >= self._high and at.gradient[-1] < 0.0)

    def _residual(self, at: _Objective) -> float:
        """The gradient without what walls hold, as a velocity: √Σ g²/m over the levels."""
        low, high = self._held(at)
        part = slice(1 if low else 0, len(at.gradient) - (1 if high else 0))
        return root_mean(1.0 / self._node_masses[part], at.gradient[part] ** 2)

    def _objective(self, x: FloatArray, aim: FloatArray, sigma: float, extra: float = 0.0) -> _Objective:
        """Everything at x; ``extra`` is the temperature of a further entropy. Infinite where cells are turned over."""
        count = len(self.masses)
        gradient, diagonal, upper = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count)
        rows, signs = np.empty((0, count + 1)), np.empty(0)
        value, slopes, curvatures = 0.0, np.empty((count, 0)), np.empty((count, 0))
        places, shares = _NO_PLACES, _NO_SHARES
        ordered = not self._repelled and extra == 0.0 or bool(np.min(np.diff(x)) > 0.0)
        if self._drift is not None and ordered:
            places, shares = _PLACES, _SHARES
            value, slopes, curvatures = self._field(self._drift, x)
            rows, signs = self._coupling(x)
        temperature = self._temperature + extra
        powers = self._exponents, self._coefficients
        value += assemble(
            x, aim, self.masses, sigma, temperature, *powers, places, shares, slopes, curvatures, gradient, diagonal, upper
        )
        return _Objective(x, value, gradient, diagonal, upper, rows, signs, extra)

    def _field(self, drift: EnergySum, x: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """The drift's energy, and the slope and curvature of its first variation at the Gauss nodes, (n, 3) each."""
        atoms = self.atoms(x)
        points, step = atoms.points, self._difference(x)
        ahead, behind = np.minimum(points + step, self._high), np.maximum(points - step, self._low)
        slope = drift.gradient(atoms, np.concatenate([points, ahead, behind]))[:, 0].reshape(3, -1)
        if not np.isfinite(slope).all():
            raise StepFailed(Status.NOT_FINITE, "the gradient of the first variation is not finite")
        curvature = (slope[1] - slope[2]) / (ahead - behind)[:, 0]
        if self._coupled is not None:
            curvature -= (self._own(ahead - points) - self._own(behind - points)) / (ahead - behind)[:, 0]
        shape = (len(self.masses), len(_PLACES))
        return drift.value(atoms), np.ascontiguousarray(slope[0].reshape(shape)), np.ascontiguousarray(curvature.reshape(shape))

    def _coupling(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rows J (r, n + 1) and signs (r,) of what networks and quadratic kernels add to the Hessian."""
        rows, signs = [], []
        if self._networks:
            points, step = self.atoms(x).points, _DIFFERENCE * self._length
            for term in self._networks:
                slopes = (term.features.evaluate(points + step) - term.features.evaluate(points - step)) / (2.0 * step)
                rows.append(self._loads(slopes.reshape(len(slopes), len(self.masses), -1)))
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
        """Newton's step, or one with a convex model where that is no descent."""
        free = np.ones(len(at.x))
        low, high = self._held(at)
        free[0], free[-1] = 0.0 if low else 1.0, 0.0 if high else 1.0
        step = self._solver(at, free, at.rows, at.signs)
        if step is not None:
            found = step(-at.gradient * free)
            if self._coupled is not None:
                found = self._conjugate(at, free, step)
            if float(found @ at.gradient) < 0.0 or not np.any(at.gradient * free):
                return found
        self._bent = True
        positive = at.signs > 0.0
        bounded = self._convexified(at, aim, sigma)
        model = self._solver(bounded, free, at.rows[positive], at.signs[positive])
        assert model is not None
        return model(-at.gradient * free)

    def _convexified(self, at: _Objective, aim: FloatArray, sigma: float) -> _Objective:
        """The same without what the drift's potential takes from the Hessian."""
        count = len(self.masses)
        gradient, diagonal, upper = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count)
        curvatures = np.empty((count, 0))
        places, shares, slopes = _NO_PLACES, _NO_SHARES, np.empty((count, 0))
        if self._drift is not None:
            places, shares = _PLACES, _SHARES
            _, slopes, curvatures = self._field(self._drift, at.x)
        curvatures = np.maximum(curvatures, 0.0)
        powers = self._exponents, self._coefficients
        assemble(
            at.x, aim, self.masses, sigma, self._temperature + at.extra, *powers, places, shares, slopes, curvatures, gradient, diagonal, upper
        )
        return _Objective(at.x, at.value, at.gradient, diagonal, upper, at.rows, at.signs, at.extra)

    def _solver(self, at: _Objective, free: FloatArray, rows: FloatArray, signs: FloatArray) -> "Callable[[FloatArray], FloatArray] | None":
        """v ↦ (T + Σ s J Jᵀ)⁻¹ v by Woodbury's formula on the levels that are free; None where T is not positive definite."""
        diagonal, upper = np.where(free > 0.0, at.diagonal, 1.0), at.upper * free[1:] * free[:-1]
        held = rows * free
        right = np.array(held.T, order="C")
        if not solve(diagonal, upper, self._pivots, right):
            return None
        small = np.diag(signs) + held @ right

        def apply(v: FloatArray) -> FloatArray:
            column = v[:, None].copy()
            solve(diagonal, upper, self._pivots, column)
            if not len(signs):
                return column[:, 0]
            return np.asarray(column[:, 0] - right @ np.linalg.solve(small, held @ column[:, 0]))

        return apply

    def _conjugate(self, at: _Objective, free: FloatArray, precondition: "Callable[[FloatArray], FloatArray]") -> FloatArray:
        """Newton's step with the whole Hessian by preconditioned conjugate gradients, which end where it is not positive."""
        right = -at.gradient * free
        step, left = np.zeros_like(right), right.copy()
        z = precondition(left)
        direction, size = z.copy(), float(left @ z)
        first = size
        for _ in range(_MOST_DIRECTIONS):
            if not size > 1e-20 * first:
                break
            image = self._hessian(at, direction) * free
            bend = float(direction @ image)
            if not bend > 0.0:
                return step if np.any(step) else direction
            step = step + (size / bend) * direction
            left = left - (size / bend) * image
            z = precondition(left)
            before, size = size, float(left @ z)
            if size <= 1e-10 * first:
                break
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
        along = (self.atoms(at.x + v).points - atoms.points) / size
        step = self._difference(at.x)
        forth, back = (Particles(atoms.points + s * along, self._atom_weights) for s in (step, -step))
        change = (self._coupled.gradient(forth, atoms.points) - self._coupled.gradient(back, atoms.points))[:, 0]
        change += self._own(step * along) - self._own(-step * along)
        return np.asarray(image + self._loads(change.reshape(len(self.masses), -1)) * (size / (2.0 * step)))

    def _own(self, away: FloatArray) -> FloatArray:
        """What a node itself adds to the force of kernels so far (N, 1) away from it, (N,): nothing that counts, but large at kinks."""
        assert self._coupled is not None
        total = np.zeros(len(away))
        for term in self._coupled.terms.values():
            if isinstance(term, Interaction):
                total += term.kernel.slopes(away)[:, 0]
        return total * self._atom_weights

    def _difference(self, x: FloatArray) -> float:
        """The step of differences, within which nodes do not pass each other."""
        step = _DIFFERENCE * self._length
        if self._coupled is None:
            return step
        return max(min(step, _APART * float(np.min(np.diff(x)))), _LEAST_DIFFERENCE * self._length)


def check(problem: Problem) -> None:
    """Raises ValueError for problems that have no quantile function of this kind."""
    domain = problem.domain
    if domain.dimension != 1 or domain.box is not domain:
        raise ValueError(f'method = "quantile" is for one axis, the domain has {domain.dimension}; use method = "residual"')
    if domain.periodic[0]:
        raise ValueError('method = "quantile" is for intervals: on a circle there is no quantile function; use finite_volume')
    if domain.frozen[0]:
        raise ValueError("minimising movements need an axis along which mass moves, but the only one is frozen")
    if not isinstance(problem.initial, DensityFunction):
        raise ValueError('method = "quantile" needs an initial density; atoms are moved by method = "residual"')
    for name, term in problem.energy.terms.items():
        if isinstance(term, Interaction) and term.kernel.at_zero is None:
            raise ValueError(f"the kernel of {name} is infinite at 0, where the nodes of a cell do not see each other; use finite_volume")
        if isinstance(term, TwoLayer) and term.features.rank > MOST_FEATURES:
            raise ValueError(f"{name} has {term.features.rank} features; minimising movements take up to {MOST_FEATURES}: give a `tolerance`")


def _advice(sigma: float, what: str) -> str:
    return f"{what} (step {sigma:.3g}): use a smaller tau or more mass cells (`count`)"
