"""E + |X − Y|²/(2σ) of piecewise linear quantile functions, with gradients and Hessians.

The measures are those with a constant density on n cells of fixed masses, X being linear between the mass levels. Internal energies,
W₂ and the moments of quadratic kernels are exact for them, other drifts are integrated by three Gauss nodes a cell. Newton's matrix is
tridiagonal, plus Σ_k s_k J_k J_kᵀ for networks and quadratic kernels; what other kernels add between different cells is only applied to
vectors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.features import Features
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.potential import Potential
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status, StepFailed
from mfpde.solvers.jko.kinks import Kinks
from mfpde.solvers.jko.levels import Levels
from mfpde.solvers.jko.logarithmic import Logarithm
from mfpde.solvers.kernels.jko_quantile import add_interpolated, assemble, fill_interpolated, internal_values, square_distance

PLACES = 0.5 + 0.5 * np.array([-math.sqrt(0.6), 0.0, math.sqrt(0.6)])
SHARES = np.array([5.0, 8.0, 5.0]) / 18.0
_NO_PLACES, _NO_SHARES = np.empty(0), np.empty(0)
_DIFFERENCE, _KINK = 1e-5, 1e-4
_TABLE, _TABLE_TOLERANCE = 4096, 1e-11
_LEAST_MASS = 1e-5
"""The least mass of a cell, as a share of the mean, with logarithmic kernels: forces on less mass drown in the round-off of its
neighbours' fields."""
_ROUND, _ROUND_OPEN = 1e-6, 2.5e-4
"""Half lengths, as shares of the axis, over which kinks of potentials are rounded: without an internal energy, where mass comes to rest
on them, and with one, where the quadrature sees no more."""


@dataclass(eq=False)
class Objective:
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


class QuantileEnergy:
    """The objective for a problem on about ``count`` mass cells; ``check_quantile`` says which problems."""

    def __init__(self, problem: Problem, count: int) -> None:
        assert isinstance(problem.initial, DensityFunction)
        self.sum = problem.energy.tabulated(problem.domain, _TABLE_TOLERANCE, len(PLACES) * count)
        self.low, self.high = float(problem.domain.lower[0]), float(problem.domain.upper[0])
        self.length, self.domain, self.ring = self.high - self.low, problem.domain, bool(problem.domain.periodic[0])
        self.levels = Levels.of(problem.initial, count, _LEAST_MASS if _logarithms(self.sum.terms) else 0.0)
        self.masses = self.levels.masses
        self.node_masses = 0.5 * (np.append(self.masses, 0.0) + np.append(0.0, self.masses))
        self._atom_weights = np.outer(self.masses, SHARES).ravel()
        self._read_terms()
        self._read_networks()

    def _read_terms(self) -> None:
        self.internal = {name: t for name, t in self.sum.terms.items() if isinstance(t, Entropy | Power)}
        powers = [t for t in self.internal.values() if isinstance(t, Power)]
        self._temperature = float(sum(t.temperature for t in self.internal.values()))
        self._exponents = np.array([t.exponent for t in powers], dtype=float)
        self._coefficients = np.array([t.coefficient for t in powers], dtype=float)
        self.logarithms = _logarithms(self.sum.terms)
        apart = set(self.internal) | set(self.logarithms)
        drift: dict[str, Energy] = {name: t for name, t in self.sum.terms.items() if name not in apart}
        self.drift = _sum_of(drift)
        kernels = {name: t for name, t in drift.items() if isinstance(t, Interaction)}
        kinked = {name for name, t in kernels.items() if t.kernel.quadratic is None and not t.kernel.resolved(_KINK * t.kernel.extent)}
        self.kinked = _sum_of({name: t for name, t in drift.items() if name in kinked})
        self.coupled = _sum_of({name: t for name, t in kernels.items() if t.kernel.quadratic is None and name not in kinked})
        self._networks = {name: t for name, t in drift.items() if isinstance(t, TwoLayer)}
        self._others = _sum_of({name: t for name, t in drift.items() if name not in kinked and name not in self._networks})
        self._strength = sum(float(t.kernel.quadratic.matrix[0, 0]) for t in kernels.values() if t.kernel.quadratic is not None)
        self.repelled = bool(self.internal or self.logarithms) or self.ring
        self.kinks = self._kinks([t for t in drift.values() if isinstance(t, Potential)])

    def _read_networks(self) -> None:
        self._slope_tables = [self._slope_table(t.features) for t in self._networks.values()]
        self._bend_tables = [np.gradient(table[:, :-1], axis=1) * ((_TABLE - 1) / self.length) for table in self._slope_tables]

    def _kinks(self, potentials: "list[Potential]") -> Kinks | None:
        if not potentials:
            return None

        def slope(x: FloatArray) -> FloatArray:
            return np.asarray(sum(np.asarray(t.slope(x[:, None]), dtype=float)[:, 0] for t in potentials))

        found = Kinks.of(slope, self.low, self.high, (_ROUND_OPEN if self.repelled else _ROUND) * self.length, self.ring)
        return found if len(found.places) else None

    def _slope_table(self, features: Features) -> FloatArray:
        """∇Φ at evenly spaced places, (r, _TABLE + 1), the last one twice."""
        places = self.low + self.length * np.linspace(0.0, 1.0, _TABLE)[:, None]
        step = _DIFFERENCE * self.length
        ahead, behind = (features.evaluate(self.domain.confine(places + s) if self.ring else places + s) for s in (step, -step))
        slopes = (ahead - behind) / (2.0 * step)
        return np.concatenate([slopes, slopes[:, -1:]], axis=1)

    def squared(self, x: FloatArray, y: FloatArray) -> float:
        """W₂² between levels (n + 1,), exact for piecewise constant densities."""
        return float(square_distance(x, y, self.masses))

    def atoms(self, x: FloatArray) -> Particles:
        """The Gauss nodes of the cells."""
        return Particles(self._around(_nodes(x)), self._atom_weights)

    def _around(self, places: FloatArray) -> FloatArray:
        """Places (N, 1) of a lift on the circle; on an interval themselves."""
        return self.domain.confine(places) if self.ring else places

    def values(self, x: FloatArray) -> dict[str, float]:
        """E term by term, of the piecewise constant density itself."""
        found = {} if self.drift is None else self.drift.values(self.atoms(x))
        for name, term in self.internal.items():
            if isinstance(term, Entropy):
                found[name] = internal_values(x, self.masses, term.temperature, 1.0, 0.0)
            elif isinstance(term, Power):
                found[name] = internal_values(x, self.masses, 0.0, term.exponent, term.coefficient)
        for name, pairs in self.logarithms.items():
            found[name] = pairs.value(x, self.masses)
        return {name: found[name] for name in self.sum.terms}

    def objective(self, x: FloatArray, aim: FloatArray, sigma: float, closed: "BoolArray | None" = None) -> Objective:
        """Everything at x, with the levels on both sides of ``closed`` cells (n,) as one. Infinite where cells are turned over."""
        count = len(self.masses)
        slopes, curvatures, energy = np.empty((count, 0)), np.empty((count, 0)), 0.0
        if self.ring:
            x = np.append(x[:-1], x[0] + self.length)
        rows, signs = np.empty((0, count + 1)), np.empty(0)
        ordered = float(np.min(np.diff(x))) > 0.0 or not self.repelled
        if self.drift is not None and ordered:
            energy, slopes, curvatures = self._field(x)
            rows, signs = self._coupling(x)
        closed = np.zeros(count, dtype=bool) if closed is None else closed
        value, gradient, diagonal, upper = self.assembled(x, aim, sigma, slopes, curvatures)
        for pairs in self.logarithms.values():
            part, pull = pairs.value_and_gradient(x, self.masses) if ordered else (math.inf, gradient)
            value, gradient = value + part, gradient + pull
        return Objective(x, value + energy, gradient, diagonal, upper, rows, signs, closed, slopes, curvatures, self.ring)

    def assembled(
        self, x: FloatArray, aim: FloatArray, sigma: float, slopes: FloatArray, curvatures: FloatArray
    ) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        """|X − Y|²/(2σ) with the internal energy, the whole gradient without logarithms, and the tridiagonal Hessian of these slopes and
        curvatures (n, 3), or (n, 0) for none."""
        count = len(self.masses)
        gradient, diagonal, upper = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count)
        places, shares = (PLACES, SHARES) if slopes.shape[1] else (_NO_PLACES, _NO_SHARES)
        internal = self._temperature, self._exponents, self._coefficients
        value = assemble(x, aim, self.masses, sigma, *internal, places, shares, slopes, curvatures, gradient, diagonal, upper)
        return value, gradient, diagonal, upper

    def _field(self, x: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """The drift's energy, and the slope and curvature of its first variation at the Gauss nodes, (n, 3) each; kernels with kinks, whose
        forces jump, give no curvature."""
        atoms, shape = self.atoms(x), (len(self.masses), len(PLACES))
        points, step = atoms.points, _DIFFERENCE * self.length
        if self.ring:
            ahead, behind, apart = self._around(points + step), self._around(points - step), np.full(len(points), 2.0 * step)
        else:
            ahead, behind = np.minimum(points + step, self.high), np.maximum(points - step, self.low)
            apart = (ahead - behind)[:, 0]
        slope, curvature = np.zeros(len(points)), np.zeros(len(points))
        energy = 0.0
        if self._others is not None:
            found = self._others.gradient(atoms, np.concatenate([points, ahead, behind]))[:, 0].reshape(3, -1)
            rise = 0.0 if self.kinks is None else self.kinks.within(points[:, 0], step)
            slope, curvature = found[0], (found[1] - found[2] - rise) / apart
            energy += self._others.value(atoms)
        if self.kinks is not None:
            extra, pull, bend = self.kinks.rounding(points[:, 0])
            energy, slope, curvature = energy + float(self._atom_weights @ extra), slope + pull, curvature + bend
        for term, table in zip(self._networks.values(), self._bend_tables, strict=True):
            lam = term.residual(atoms)
            energy += 0.5 * float(lam @ lam) + term.constant
            slope += term.features.gradient(points, lam)[:, 0]
            add_interpolated(lam @ table, points[:, 0], self.low, self.high, curvature)
        if self.kinked is not None:
            slope += self.kinked.gradient(atoms, points)[:, 0]
            energy += self.kinked.value(atoms)
        if not np.isfinite(slope).all():
            raise StepFailed(Status.NOT_FINITE, "the gradient of the first variation is not finite")
        return energy, np.ascontiguousarray(slope.reshape(shape)), np.ascontiguousarray(curvature.reshape(shape))

    def slopes(self, x: FloatArray, places: FloatArray) -> FloatArray:
        """The slope of the drift's first variation at levels x (n + 1,), without kernels that have kinks, at ``places`` (N,)."""
        atoms, points = self.atoms(x), places[:, None]
        slope = np.zeros(len(places)) if self._others is None else self._others.gradient(atoms, points)[:, 0]
        for term in self._networks.values():
            slope = slope + term.features.gradient(points, term.residual(atoms))[:, 0]
        return slope if self.kinks is None else slope + self.kinks.rounding(places)[1]

    def _coupling(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rows J (r, n + 1) and signs (r,) of what networks and quadratic kernels add to the Hessian; those of networks by one node a
        level, which Newton's method does not notice."""
        rows, signs = [], []
        for table in self._slope_tables:
            slopes = np.empty((len(table), len(x)))
            fill_interpolated(table, self._around(x[:, None])[:, 0], self.node_masses, self.low, self.high, slopes)
            rows.append(slopes)
            signs.append(np.ones(len(slopes)))
        if self._strength != 0.0:
            rows.append(math.sqrt(abs(self._strength)) * self.node_masses[None])
            signs.append(-np.sign([self._strength]))
        if not rows:
            return np.empty((0, len(x))), np.empty(0)
        return np.concatenate(rows), np.concatenate(signs)

    def _loads(self, values: FloatArray) -> FloatArray:
        """∫f φ_i over the mass for the hat functions φ_i of the levels, (…, n + 1), from f at the Gauss nodes, (…, n, 3)."""
        scaled = values * (self.masses[:, None] * SHARES)
        loads = np.zeros((*values.shape[:-2], len(self.masses) + 1))
        loads[..., :-1] += scaled @ (1.0 - PLACES)
        loads[..., 1:] += scaled @ PLACES
        return loads

    def applied(self, at: Objective, v: FloatArray) -> FloatArray:
        """The whole Hessian's product with v, that of kernels by differences of their forces along v."""
        assert self.coupled is not None
        image = at.diagonal * v
        image[:-1] += at.upper * v[1:]
        image[1:] += at.upper * v[:-1]
        image += (at.signs * (at.rows @ v)) @ at.rows
        size = float(np.max(np.abs(v)))
        if size == 0.0:
            return image
        atoms = self.atoms(at.x)
        along = (_nodes(at.x + v) - _nodes(at.x)) / size
        step = _DIFFERENCE * self.length
        forth, back = (Particles(self._around(atoms.points + s * along), self._atom_weights) for s in (step, -step))
        change = (self.coupled.gradient(forth, atoms.points) - self.coupled.gradient(back, atoms.points)) * (size / (2.0 * step))
        return np.asarray(image + self._loads(change[:, 0].reshape(len(self.masses), -1)))

    def whole(self, at: Objective) -> FloatArray:
        """The full Hessian with that of logarithmic kernels, (n + 1, n + 1)."""
        matrix = (at.rows.T * at.signs) @ at.rows + np.diag(at.diagonal) + np.diag(at.upper, 1) + np.diag(at.upper, -1)
        for pairs in self.logarithms.values():
            matrix += pairs.hessian(at.x, self.masses)
        return np.asarray(matrix)


def _nodes(x: FloatArray) -> FloatArray:
    """The Gauss nodes of the cells, (3n, 1)."""
    return np.asarray(x[:-1, None] + np.diff(x)[:, None] * PLACES).reshape(-1, 1)


def _logarithms(terms: "Mapping[str, Energy]") -> dict[str, Logarithm]:
    """Those among the terms."""
    singular = {name: t for name, t in terms.items() if isinstance(t, Interaction) and t.kernel.at_zero is None}
    found = {name: Logarithm.of(t.kernel) for name, t in singular.items()}
    return {name: pairs for name, pairs in found.items() if pairs is not None}


def _sum_of(terms: "Mapping[str, Energy]") -> EnergySum | None:
    return EnergySum(dict(terms)) if terms else None
