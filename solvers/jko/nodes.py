"""Few nodes that stand for many atoms: the dual problem of a step is solved on them first, and the atoms only correct it.

Integrals of polynomials of degree seven in each cell of a grid around the atoms are exact, and both the proximal points and the features
are smooth functions of the target. Derivatives along the target are those of the polynomials.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.energy.features import Features, InterpolatedFeatures
from mfpde.energy.stencil import POINTS, cache_lines, deposit
from mfpde.energy.teams import Team
from mfpde.solvers.jko.proximal import Field
from mfpde.solvers.kernels.jko_residual import shift_some, shift_together

CELLS = {1: 32, 2: 5}
_WORTH = 8
_MOST, _SLOW = 20, 0.1
_CLOSE = {1: 1e-12, 2: 3e-8}
_LEADING = 1e-3
Solver = Callable[[FloatArray], FloatArray]

_LOCAL = -np.cos(np.pi * np.arange(POINTS) / (POINTS - 1))
_TO_POWERS = np.linalg.inv(np.vander(_LOCAL, increasing=True))
_RISING = np.diag(np.arange(1.0, POINTS), 1)
_SLOPES = np.vander(_LOCAL, increasing=True) @ _RISING @ _TO_POWERS
"""From the values at the local nodes of a cell to the slopes there."""


def pays(count: int, dimension: int) -> bool:
    """Whether nodes are far fewer than so many atoms."""
    return dimension in CELLS and count >= _WORTH * (CELLS[dimension] * POINTS) ** dimension


@dataclass(frozen=True, eq=False)
class Nodes:
    """``points`` (G, d) with ``weights`` (G,) of any sign, 8^d in each of the ``held`` of ``cells`` (d,), which begin at ``lower`` (d,) and
    are ``inverse`` (d,) in a unit of length."""

    points: FloatArray
    weights: FloatArray
    cells: IntArray
    held: IntArray
    lower: FloatArray
    inverse: FloatArray

    @staticmethod
    def of(points: FloatArray, weights: FloatArray) -> "Nodes":
        """For atoms at ``points`` (N, d) with ``weights`` (N,)."""
        dimension = points.shape[1]
        low = np.array([np.min(points[:, k]) for k in range(dimension)])
        high = np.array([np.max(points[:, k]) for k in range(dimension)])
        width = np.maximum(high - low, 1e-6 * max(float(np.max(high - low)), 1e-6))
        cells = np.full(dimension, CELLS[dimension])
        moments = deposit(points, weights, low, cells / width, cells, together=False).reshape(-1, *(POINTS,) * dimension)
        held = np.flatnonzero(moments.reshape(len(moments), -1)[:, 0])
        shares = moments[held]
        for _ in range(dimension):
            shares = np.moveaxis(shares, 1, -1) @ _TO_POWERS
        places = np.stack(np.unravel_index(held, cells), axis=1)
        local = np.stack(np.meshgrid(*[_LOCAL] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
        at = places[:, None, :] + 0.5 * (local + 1.0)[None]
        return Nodes((low + at * (width / cells)).reshape(-1, dimension), np.ravel(shares), cells, held, low, cells / width)

    def slopes(self, values: FloatArray) -> FloatArray:
        """Derivatives of ``values`` (m, G) along the axes, (m, G, d)."""
        dimension, count = len(self.cells), len(values)
        split = values.reshape(count, -1, *(POINTS,) * dimension)
        found = []
        for k in range(dimension):
            along = split @ _SLOPES.T if k == dimension - 1 else _SLOPES @ split
            found.append(2.0 * self.inverse[k] * along.reshape(count, -1))
        return np.stack(found, axis=-1)

    def shifted(self, points: FloatArray, shift: FloatArray, team: Team) -> FloatArray:
        """Points (N, d) in the cells plus the polynomials with the values ``shift`` (G, d) at the nodes."""
        dimension = len(self.cells)
        rows = cache_lines(1, dimension * int(np.prod(self.cells)) * POINTS**dimension)[0]
        rows[:] = 0.0
        split = shift.T.reshape(dimension, -1, *(POINTS,) * dimension)
        for _ in range(dimension):
            split = np.moveaxis(split, 2, -1) @ _TO_POWERS.T
        rows.reshape(dimension, -1, *(POINTS,) * dimension)[:, self.held] = split
        out, points = np.empty(points.shape), np.ascontiguousarray(points)
        with team.at_work(len(points)) as together:
            if together:
                shift_together(points, rows, self.cells, self.lower, self.inverse, out)
            else:
                shift_some(points, rows, 0, len(points), self.cells, self.lower, self.inverse, out)
        return out


@dataclass(frozen=True, eq=False)
class Found:
    """λ (r,) on nodes, their proximal points (G, d), v ↦ (1 + σ∫∇Φ R ∇Φᵀ)⁻¹ v, and the number of linear systems solved."""

    lam: FloatArray
    points: FloatArray
    solver: Solver
    iterations: int


class Reduced:
    """The dual problem on nodes, with the exact features of ``field``."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.leading, self._basis = _leading(field)

    def solve(self, nodes: Nodes, sigma: float, lam: FloatArray) -> Found | None:
        """λ for which the dual's gradient vanishes on the nodes, from ``lam``; None where the iteration does not contract.

        Proximal points and λ are improved side by side, by Newton's method with the matrices of earlier points."""
        with np.errstate(all="ignore"):
            return self._iterate(nodes, sigma, lam)

    def _iterate(self, nodes: Nodes, sigma: float, lam: FloatArray) -> Found | None:
        field, z = self.field, nodes.points
        close = _CLOSE[z.shape[1]] * max(float(np.linalg.norm(field.target)), 1e-3)
        y = field._confined(z - sigma * field.gradient(z, lam))
        gradient = field.gradient(y, lam)
        response, solver = self._linear(nodes, y, gradient, sigma)
        sizes, fresh = [np.inf, np.inf], True
        for iteration in range(1, _MOST + 1):
            y = field._confined(y - np.einsum("gij,gj->gi", response, y - z + sigma * gradient))
            rest = field.moments(y, nodes.weights) - field.target - lam
            sizes.append(float(np.linalg.norm(rest)))
            lam = lam + solver(rest)
            if sizes[-1] <= close:
                return Found(lam, y, solver, iteration)
            # proximal points lag behind λ by an iteration, so that sizes fall every other time
            slow = sizes[-1] > _SLOW * sizes[-3]
            if not np.isfinite(sizes[-1]) or (slow and fresh):
                return None
            gradient, fresh = field.gradient(y, lam), slow
            if slow:
                response, solver = self._linear(nodes, y, gradient, sigma)
                sizes[-2:] = [np.inf, np.inf]
        return None

    def _linear(self, nodes: Nodes, y: FloatArray, gradient: FloatArray, sigma: float) -> tuple[FloatArray, Solver]:
        """(1 + σ∇²ξ)⁻¹ (G, d, d) at ``y``, which is a function of the nodes, and the dual's inverse Newton matrix."""
        along = nodes.slopes(np.concatenate([y.T, sigma * gradient.T, self.leading(y)]))
        dimension = y.shape[1]
        stretched = np.moveaxis(along[:dimension], 1, 0)
        total = stretched + np.moveaxis(along[dimension : 2 * dimension], 1, 0)
        inverse_total = _inverse(total)
        response = np.matmul(stretched, inverse_total)
        # ∇Φ = (dΦ/dz)(dy/dz)⁻¹, so that ∇Φ R = (dΦ/dz)(dy/dz + σ d∇ξ/dz)⁻¹
        slopes = along[2 * dimension :]
        mixed = _times(slopes, inverse_total * nodes.weights[:, None, None])
        plain = _times(slopes, _inverse(stretched))
        rank = len(slopes)
        matrix = sigma * mixed.reshape(rank, -1) @ plain.reshape(rank, -1).T
        if not np.isfinite(matrix).all():
            return response, lambda v: np.full_like(v, np.nan)
        inverse = np.linalg.inv(np.eye(rank) + 0.5 * (matrix + matrix.T)) - np.eye(rank)
        basis = self._basis
        return response, lambda v: v + basis @ (inverse @ (basis.T @ v))


def _leading(field: Field) -> tuple[Callable[[FloatArray], FloatArray], FloatArray]:
    """The combinations of features that vary most in the box, (k, M) at points (M, d), and their directions, (r, k)."""
    domain = field.domain
    sides = [np.linspace(0.0, 1.0, {1: 201, 2: 33}[domain.dimension])] * domain.dimension
    unit = np.stack([side.ravel() for side in np.meshgrid(*sides, indexing="ij")], axis=1)
    values = field.features(domain.spread(unit))
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    basis = np.ascontiguousarray(left[:, sizes > _LEADING * sizes[0]])
    features = field.networks[0].features
    if len(field.networks) == 1 and isinstance(features, InterpolatedFeatures):
        few: Features = replace(features, mixing=basis.T @ features.mixing)
        return few.evaluate, basis
    return lambda points: np.asarray(basis.T @ field.features(points)), basis


def _inverse(matrices: FloatArray) -> FloatArray:
    """Of matrices (G, d, d), d being one or two."""
    if matrices.shape[1] == 1:
        return np.asarray(1.0 / matrices)
    found = np.empty_like(matrices)
    found[:, 0, 0], found[:, 1, 1] = matrices[:, 1, 1], matrices[:, 0, 0]
    found[:, 0, 1], found[:, 1, 0] = -matrices[:, 0, 1], -matrices[:, 1, 0]
    return found / (matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0])[:, None, None]


def _times(slopes: FloatArray, matrices: FloatArray) -> FloatArray:
    """Σ_i slopes_(k, g, i) matrices_(g, i, j), (k, G, d), d being one or two."""
    if matrices.shape[1] == 1:
        return slopes * matrices[:, :, 0]
    found = np.empty_like(slopes)
    for j in range(2):
        found[:, :, j] = slopes[:, :, 0] * matrices[:, 0, j] + slopes[:, :, 1] * matrices[:, 1, j]
    return found
