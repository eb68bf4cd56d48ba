"""Steps in the quantile function: on one axis a minimising movement is a minimisation in L², convex where E is displacement convex.

The measures are those with a constant density on n cells of fixed masses, so that E(ρ_k) − E(ρ_{k+1}) ≥ W₂²/(2τ) holds exactly, without
a bias of entropic kind. [Blanchet–Calvez–Carrillo 2008; Matthes–Osberger 2014]
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.measure import Density
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.solvers.jko.flow import Minimiser
from mfpde.solvers.jko.internal_steps import InternalSteps
from mfpde.solvers.jko.quantile_energy import Objective, QuantileEnergy
from mfpde.solvers.jko.quantile_newton import CLOSE, Found, QuantileNewton, advice
from mfpde.solvers.jko.quantile_starts import QuantileStarts
from mfpde.solvers.jko.rules import check_quantile
from mfpde.solvers.kernels.jko_lanes import subtract

_WIDTH_KEPT = 0.1
_TURN = 4.0
_NO_REMARKS = np.zeros(4)
_LITTLE = 1e-9


class QuantileScheme:
    """Newton's method for the quantile function at n + 1 mass levels; ends stop at walls, cells are never turned over.

    On a circle of length L the levels are those of a lift, X(s + 1) = X(s) + L, which may turn as a whole: the least E + |X − Y|²/(2σ) over
    all lifts is the least E + W₂²/(2σ), since other turns of X against Y have the same E [Delon–Salomon–Sobolevski 2010]. That no turn
    of the minimiser is nearer is checked after each step. Cells stay open there, so that without internal energy mass may come close to,
    but not into a point. Raises ValueError for problems that are not densities on one axis, and for energies that it does not know.
    """

    def __init__(self, problem: Problem, cells: tuple[int, ...], count: int) -> None:
        check_quantile(problem, count)
        self.grid: Grid = problem.domain.grid(cells)
        self.objective = QuantileEnergy(problem, count)
        self.energy, self.levels, self.masses = self.objective.sum, self.objective.levels, self.objective.masses
        self._low, self._length, self._ring = self.objective.low, self.objective.length, self.objective.ring
        self._newton = QuantileNewton(self.objective)
        self._starts = QuantileStarts(self.objective, self._newton)
        self._cumulative = np.concatenate([[0.0], np.cumsum(self.masses)])
        self._cumulative /= self._cumulative[-1]
        plain = self.objective.drift is None and not (self._ring or self.objective.logarithms)
        alone = list(self.objective.internal.values()) if plain else []
        self._internal_steps = InternalSteps.of(alone, self.masses, self._low, self.objective.high)

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The levels, and what was met on the way."""
        where = "a lift of the circle's quantile function" if self._ring else "the quantile function"
        found = [f"{where} at {len(self.masses)} cells of fixed masses, {self.levels.note}"]
        kinks = self.objective.kinks
        if kinks is not None:
            found.append(f"the potential's {len(kinks.places)} kinks are rounded over {kinks.reach:.1e} to both sides")
        pooled, bent, risky, lower = remarks if len(remarks) == len(_NO_REMARKS) else _NO_REMARKS
        if pooled > 0.0:
            found.append(f"up to {pooled:.2g} of the mass has come together in points, which is where its cells were closed")
        if risky > 0.0:
            found.append(self._risk(lower > 0.0))
        elif bent > 0.0:
            words = "the objective was not convex in some steps, so that a step's minimiser need not be the only one; use a smaller tau"
            found.append(f"{WARNING}{words}")
        return tuple(found)

    def _risk(self, lower: bool) -> str:
        words = f"{WARNING}tau times the least curvature of the drift was below -1 in some steps, which may have several local minima"
        if self._ring:
            return f"{words}; the one found nearby was taken, use a smaller tau"
        tried = "Newton's method also started from the best proximal points of the first variation, and the lowest minimum was kept"
        return f"{words}: {tried}, in some steps not the nearest one" if lower else f"{words}: {tried}"

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The quantiles of the initial density."""
        return self.levels.start[:, None].copy(), np.empty(0)

    def square_distance(self, one: FloatArray, other: FloatArray) -> float:
        """W₂², exact for piecewise constant densities."""
        return self.objective.squared(np.ascontiguousarray(one[:, 0]), np.ascontiguousarray(other[:, 0]))

    def values(self, points: FloatArray) -> dict[str, float]:
        """E term by term, of the piecewise constant density itself."""
        return self.objective.values(points[:, 0])

    def value(self, points: FloatArray) -> float:
        """E."""
        return float(sum(self.values(points).values()))

    def dissipation(self, points: FloatArray) -> float:
        """Σ g²/m over the levels, g being the energy's gradient; nothing moves through walls."""
        return self._newton.residual(self.objective.objective(points[:, 0].copy(), points[:, 0].copy(), math.inf)) ** 2

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
        """Newton's method from the better of two starts, and from more where the objective need not be convex; internal energies alone
        are, so that the first will do."""
        missed, factor = (dual[:-1], (sigma / float(dual[-1])) ** 2) if len(dual) else (guess[:, 0], 0.0)
        done, steps = None, self._internal_steps
        if steps is not None:
            done = steps.minimise(target, sigma, current, guess, missed, factor, _WIDTH_KEPT, CLOSE)
        if done is not None:
            points, residual = done.places, math.sqrt(min(done.left, done.drop / sigma))
            dual = _missed(points, guess, current, sigma)
            return Minimiser(points, dual, done.energy, residual, 0.0, done.iterations, done.square, remarks=_NO_REMARKS)
        aim, here = np.ascontiguousarray(target[:, 0]), np.ascontiguousarray(current[:, 0])
        found, risky, lower = self._starts.minimise(self._first(aim, sigma, here, guess[:, 0] + factor * missed), aim, here, sigma)
        points = found.at.x[:, None].copy()
        if self._ring:
            self._check_turn(points[:, 0], here, sigma)
        square = self.objective.squared(found.at.x, aim)
        energy = found.at.value - square / (2.0 * sigma)
        energy = energy if self.objective.kinks is None else self.value(points)
        remarks = np.array([self._pooled(found), float(found.bent and not self._starts.convex), float(risky), float(lower)])
        dual = _missed(points, guess, current, sigma)
        return Minimiser(points, dual, energy, found.residual, 0.0, found.iterations, square, slack=self._rounding(), remarks=remarks)

    def _rounding(self) -> float:
        """By how much rounded kinks may have made E + W₂²/(2τ) rise."""
        kinks = self.objective.kinks
        return 0.0 if kinks is None else 0.25 * kinks.reach * float(np.max(np.abs(kinks.jumps)))

    def _pooled(self, found: Found) -> float:
        """The share of the mass in points: in closed cells, and in those within the rounding of a kink."""
        within = found.at.closed.copy()
        kinks = self.objective.kinks
        if kinks is not None and not self.objective.repelled:
            off = np.min(np.abs(found.at.x[:, None] - kinks.places), axis=1) <= kinks.reach
            within |= off[:-1] & off[1:]
        share = float(np.sum(self.masses[within]))
        return share if share > _LITTLE else 0.0

    def _first(self, aim: FloatArray, sigma: float, here: FloatArray, guess: FloatArray) -> Objective:
        """The objective at a guess, or ``here`` where that is better."""
        ahead = guess if self._ring else np.clip(guess, self._low, self.objective.high)
        if not np.min(np.diff(ahead) - _WIDTH_KEPT * np.diff(here)) > 0.0:
            return self.objective.objective(here, aim, sigma)
        best = self.objective.objective(ahead, aim, sigma)
        if self.objective.drift is not None:
            standing = self.value(here[:, None]) + self.objective.squared(here, aim) / (2.0 * sigma)
            best = self.objective.objective(here, aim, sigma) if best.value > standing else best
        return best

    def _check_turn(self, x: FloatArray, y: FloatArray, sigma: float) -> None:
        """Raises StepFailed where mass has gone half way round the circle, or where another turn of y is nearer to x: the squared distance
        is convex in the turn, so that two small ones tell."""
        if 2.0 * float(np.max(np.abs(x - y))) >= self._length:
            raise StepFailed(Status.NOT_CONVERGED, advice(sigma, "mass went half way round the circle in one step"))
        turn, levels = _TURN * float(np.max(self.masses)), self._cumulative
        whole = np.concatenate([levels[:-1] - 1.0, levels, levels[1:] + 1.0])
        lift = np.concatenate([y[:-1] - self._length, y, y[1:] + self._length])
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        here = self.objective.squared(x, y)
        for shift in (turn, -turn):
            other = np.interp(levels + shift, whole, lift)
            if self.objective.squared(x, other) < here * (1.0 - 1e-9) - 1e-14 * self._length**2:
                words = "the step turned the whole circle further than the mass has to go"
                raise StepFailed(Status.NOT_CONVERGED, advice(sigma, words))


def _missed(points: FloatArray, guess: FloatArray, current: FloatArray, sigma: float) -> FloatArray:
    """What a guess by extrapolation missed, a second difference, and the step, (n + 2,); nothing where there was none."""
    if guess is current:
        return np.empty(0)
    missed = np.empty(len(points) + 1)
    subtract(points[:, 0], guess[:, 0], missed)
    missed[-1] = sigma
    return missed
