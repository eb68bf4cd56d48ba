"""The potential ξ_λ = Φ·λ + V of atoms, and the proximal points argmin |y − z|²/(2σ) + ξ_λ(y) near a start, confined to the box."""

import math
from dataclasses import dataclass, field

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Domain
from mfpde.energy.network import TwoLayer
from mfpde.energy.potential import Potential
from mfpde.energy.stencil import POINTS, cache_lines, slopes_some
from mfpde.energy.tables import TabulatedFeatures
from mfpde.energy.teams import Team
from mfpde.solvers.kernels.jko_residual import (
    line_newton_some,
    line_newton_together,
    line_some,
    line_together,
    plane_newton_some,
    plane_newton_together,
    plane_some,
    plane_together,
    rest_alone,
    rest_together,
)

_DIFFERENCE = 1e-5
_MOST, _MOST_SHRINKS, _QUICK = 60, 30, 8
_CLOSE, _QUADRATIC, _ROUGH = 1e-14, 1e-7, 1e-4
_LEAST_BEND = 0.1
_INNER = 1e-13
_VALUES = 1 << 22


@dataclass(frozen=True, eq=False)
class Field:
    """ξ_λ of ``networks``, whose features are stacked, and of ``potentials``."""

    domain: Domain
    networks: tuple[TwoLayer, ...]
    potentials: tuple[Potential, ...]
    _teams: tuple[Team, Team, Team] = field(default_factory=lambda: (Team(), Team(), Team()))
    _last: list[FloatArray] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """The number of features."""
        return sum(term.features.rank for term in self.networks)

    @property
    def target(self) -> FloatArray:
        """b, (r,)."""
        return np.concatenate([np.empty(0), *(term.target for term in self.networks)])

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ, (r,)."""
        inside = self._wrapped(points)
        return np.concatenate([np.empty(0), *(term.features.moments(inside, weights) for term in self.networks)])

    def potential(self, points: FloatArray, weights: FloatArray) -> float:
        """∫V dρ."""
        inside = self._wrapped(points)
        return float(sum(float(weights @ term.function(inside)) for term in self.potentials))

    def features(self, points: FloatArray) -> FloatArray:
        """Φ at points (M, d), as (r, M)."""
        return np.concatenate([np.empty((0, len(points))), *(term.features.evaluate(points) for term in self.networks)])

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """ξ_λ at points (N, d), (N,)."""
        inside, found = self._wrapped(points), np.zeros(len(points))
        block = max(64, _VALUES // max(self.rank, 1))
        for k in range(0, len(points), block):
            part = slice(k, k + block)
            found[part] = lam @ self.features(inside[part])
        for term in self.potentials:
            found += term.function(inside)
        return found

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇ξ_λ at points (N, d), (N, d); 0 along frozen axes."""
        if self.compiled:
            return self._tabulated_gradient(points, lam)
        inside, found, start = self._wrapped(points), np.zeros(points.shape), 0
        for term in self.networks:
            rank = term.features.rank
            found += term.features.gradient(inside, lam[start : start + rank])
            start += rank
        for potential in self.potentials:
            found += potential.slope(inside)
        return np.where(self.domain.frozen, 0.0, found)

    def _tabulated_gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        table, inside = self._table, np.ascontiguousarray(self._wrapped(points))
        found = np.empty(inside.shape)
        slopes_some(inside, self._rows(lam), 0, len(inside), table.lower, table.inverse, table.cells, found)
        if self.domain.frozen.any():
            found[:, self.domain.frozen] = 0.0
        return found

    def hessian(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇²ξ_λ at points (N, d) by differences of the gradient within the box, (N, d, d)."""
        domain, found = self.domain, np.zeros((len(points), self.domain.dimension, self.domain.dimension))
        for k in domain.moving:
            step = _DIFFERENCE * domain.axes[k].length
            forth, back = points.copy(), points.copy()
            forth[:, k] += step
            back[:, k] -= step
            if not domain.periodic[k]:
                forth[:, k], back[:, k] = np.minimum(forth[:, k], domain.upper[k]), np.maximum(back[:, k], domain.lower[k])
            width = (forth[:, k] - back[:, k])[:, None]
            found[:, k] = (self.gradient(forth, lam) - self.gradient(back, lam)) / width
        return 0.5 * (found + np.swapaxes(found, 1, 2))

    def proximal(
        self, target: FloatArray, start: FloatArray, lam: FloatArray, sigma: float, *, rough: bool = False
    ) -> tuple[FloatArray, FloatArray]:
        """Proximal points (N, d) of ``target`` (N, d) near ``start`` (N, d), and the inverses (N, d, d) of 1 + σ∇²ξ there on the directions
        that walls and frozen axes leave free. ``rough``: steps of Newton's method that would leave about 1e-8 may be the last."""
        if self.compiled:
            return self._by_table(target, start, lam, sigma, _ROUGH if rough else _QUADRATIC)
        return self._by_newton(target, start, lam, sigma)

    @property
    def compiled(self) -> bool:
        """Whether ξ_λ is a table for which there are loops."""
        features = self.networks[0].features if self.networks else None
        return len(self.networks) == 1 and not self.potentials and self.domain.dimension < 3 and isinstance(features, TabulatedFeatures)

    @property
    def _table(self) -> TabulatedFeatures:
        features = self.networks[0].features
        assert isinstance(features, TabulatedFeatures)
        return features

    def _rows(self, lam: FloatArray) -> FloatArray:
        """The coefficients of ξ_λ in all cells of a rectangle, and of its slope in those of an interval, from a cache line on. Those of
        the last λ are kept."""
        if self._last and np.array_equal(self._last[0], lam):
            return self._last[1]
        shape = (*self._table.cells, *(POINTS,) * self.domain.dimension)
        rows: FloatArray = cache_lines(1, math.prod(shape))[0]
        self._table._polynomials(lam, rows.reshape(shape))
        if self.domain.dimension == 1:
            slopes = rows.reshape(-1, POINTS)
            slopes[:, :-1] = slopes[:, 1:] * (np.arange(1.0, POINTS) * (2.0 * self._table.inverse[0]))
            slopes[:, -1] = 0.0
        self._last[:] = [lam.copy(), rows]
        return rows

    def forget(self) -> None:
        """Keep no coefficients, as before the first step."""
        self._last.clear()

    def least_bend(self, lam: FloatArray) -> float:
        """The least eigenvalue of ∇²ξ_λ at the centres of a table's cells."""
        rows, inverse = self._rows(lam), self._table.inverse
        if self.domain.dimension == 1:
            return float(np.min(rows.reshape(-1, POINTS)[:, 1]) * 2.0 * inverse[0])
        cells = rows.reshape(-1, POINTS, POINTS)
        first, second = 8.0 * inverse[0] ** 2 * cells[:, 2, 0], 8.0 * inverse[1] ** 2 * cells[:, 0, 2]
        mixed = 4.0 * inverse[0] * inverse[1] * cells[:, 1, 1]
        if self.domain.frozen.any():
            return min(0.0, float(np.min(second if self.domain.frozen[0] else first)))
        return float(np.min(0.5 * (first + second) - np.hypot(0.5 * (first - second), mixed)))

    def _by_table(
        self, target: FloatArray, start: FloatArray, lam: FloatArray, sigma: float, enough: float = _QUADRATIC
    ) -> tuple[FloatArray, FloatArray]:
        features, domain = self._table, self.domain
        count, dimension = target.shape
        y, response = np.array(start, order="C"), np.empty((count, dimension, dimension))
        box, periodic, frozen = np.stack([domain.lower, domain.upper]), domain.periodic, domain.frozen
        target = np.ascontiguousarray(target)
        if not (periodic.any() or frozen.any()) and self._quickly(target, y, self._rows(lam), sigma, response, enough):
            return y, response
        y[:] = start
        table = np.ascontiguousarray(features._polynomials(lam))
        with self._teams[1].at_work(count) as together:
            if dimension == 1:
                if together:
                    line_together(target, y, table, box, periodic, sigma, response)
                else:
                    line_some(target, y, table, 0, count, box, periodic, sigma, response)
            elif together:
                plane_together(target, y, table, box, periodic, frozen, sigma, response)
            else:
                plane_some(target, y, table, 0, count, box, periodic, frozen, sigma, response)
        return y, response

    def _quickly(self, target: FloatArray, y: FloatArray, rows: FloatArray, sigma: float, response: FloatArray, enough: float) -> bool:
        """Newton's method between walls without safeguards, of which ``y`` and ``response`` are the result where it returns True."""
        length, before = float(np.max(self.domain.upper - self.domain.lower)), np.inf
        for _ in range(_QUICK):
            size, least = self._pass(target, y, rows, sigma, response)
            if least < _LEAST_BEND or not size <= 0.5 * before:
                break
            # a step is about the square of the one before, times what that was of its own predecessor's square
            if size <= enough * length or (np.isfinite(before) and size**3 / before**2 <= _INNER * length):
                return True
            before = size
        return False

    def _pass(self, target: FloatArray, y: FloatArray, rows: FloatArray, sigma: float, response: FloatArray) -> tuple[float, float]:
        """One step of Newton's method for all atoms, in place; the largest step and the least eigenvalue of 1 + σ∇²ξ."""
        box, cells = np.stack([self.domain.lower, self.domain.upper]), self._table.cells
        with self._teams[0].at_work(len(y)) as together:
            if self.domain.dimension == 1:
                slopes = rows.reshape(-1, POINTS)
                if together:
                    return line_newton_together(target, y, slopes, box, sigma, response)
                return line_newton_some(target, y, slopes, 0, len(y), box, sigma, response)
            if together:
                return plane_newton_together(target, y, rows, cells, box, sigma, response)
            return plane_newton_some(target, y, rows, 0, len(y), cells, box, sigma, response)

    def rest(self, target: FloatArray, y: FloatArray, weights: FloatArray, lam: FloatArray, sigma: float) -> tuple[float, float]:
        """∫|(y − z)/σ + ∇ξ_λ(y)|² without what walls hold, and ∫|y − z|², between walls."""
        box, cells, rows = np.stack([self.domain.lower, self.domain.upper]), self._table.cells, self._rows(lam)
        with self._teams[2].at_work(len(y)) as together:
            return (rest_together if together else rest_alone)(np.ascontiguousarray(target), y, weights, rows, cells, box, sigma)

    def _by_newton(self, target: FloatArray, start: FloatArray, lam: FloatArray, sigma: float) -> tuple[FloatArray, FloatArray]:
        """Newton's method on all atoms at once, those that are done aside."""
        domain = self.domain
        length = float(np.max(domain.upper - domain.lower))
        y = self._confined(np.where(domain.frozen, target, start))
        response, left = np.empty((*y.shape, y.shape[1])), np.arange(len(y))
        for _ in range(_MOST):
            z, x = target[left], y[left]
            slope = x - z + sigma * self.gradient(x, lam)
            free = self._free(x, slope)
            inverse, bent = _inverse(np.eye(domain.dimension) + sigma * self.hessian(x, lam), free)
            response[left] = inverse
            slope = np.where(free, slope, 0.0)
            step = -np.einsum("nij,nj->ni", inverse, slope)
            size = np.max(np.abs(step), axis=1, initial=0.0)
            moved, settled = self._moved(x, z, step, slope, lam, sigma)
            y[left] = moved
            done = (size <= _CLOSE * length) | settled | (~bent & (size <= _QUADRATIC * length))
            left = left[~done]
            if not len(left):
                break
        return y, response

    def _moved(
        self, x: FloatArray, z: FloatArray, step: FloatArray, slope: FloatArray, lam: FloatArray, sigma: float
    ) -> tuple[FloatArray, BoolArray]:
        """Points that lower the objective along the step, and where there are none."""
        length = float(np.max(self.domain.upper - self.domain.lower))
        value = 0.5 * np.sum((x - z) ** 2, axis=1) + sigma * self.values(x, lam)
        drop, moved, left = -np.sum(step * slope, axis=1), self._confined(x + step), np.arange(len(x))
        share = 1.0
        for _ in range(_MOST_SHRINKS):
            tried = self._confined(x[left] + share * step[left])
            new = 0.5 * np.sum((tried - z[left]) ** 2, axis=1) + sigma * self.values(tried, lam)
            fine = new <= value[left] - 1e-4 * share * drop[left] + 1e-14 * (length**2 + np.abs(value[left]))
            moved[left] = tried
            left = left[~fine]
            if not len(left):
                break
            share *= 0.5
        settled = np.zeros(len(x), dtype=bool)
        settled[left], moved[left] = True, x[left]
        return moved, settled

    def _free(self, x: FloatArray, slope: FloatArray) -> BoolArray:
        """Which coordinates may move downhill, (N, d)."""
        domain = self.domain
        held = ((x <= domain.lower) & (slope >= 0.0)) | ((x >= domain.upper) & (slope <= 0.0))
        return np.asarray(~domain.frozen & (domain.periodic | ~held))

    def _confined(self, points: FloatArray) -> FloatArray:
        """Stopped at walls; circles are gone round."""
        inside = np.clip(points, self.domain.lower, self.domain.upper)
        return np.where(self.domain.periodic, points, inside)

    def _wrapped(self, points: FloatArray) -> FloatArray:
        return self.domain.confine(points) if self.domain.periodic.any() else points


def _inverse(matrices: FloatArray, free: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Inverses (N, d, d) on the free directions (N, d), 0 elsewhere, after a shift that makes them positive; and whether there was one."""
    pairs = free[:, :, None] & free[:, None, :]
    held = np.where(pairs, matrices, np.eye(matrices.shape[1]))
    least = np.linalg.eigvalsh(held)[:, 0]
    shift = np.maximum(_LEAST_BEND - least, 0.0)
    inverse = np.linalg.inv(held + shift[:, None, None] * np.eye(matrices.shape[1]))
    return np.where(pairs, inverse, 0.0), shift > 0.0
