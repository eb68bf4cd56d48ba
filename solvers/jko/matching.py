"""Whether atoms and the places where a step put them are matched as optimal transport would match them, so that Σw|x − y|² is W₂².

On one axis: whether their order is kept. Else by potentials: the first-order condition makes −σξ a Kantorovich potential, so that
g = Σ_j w_j (J_j(x_j) − min_i J_j(x_i)) with J_j(x) = σξ(x) + |x − y_j|²/2 bounds by how much: Σw|x − y|² − 2g ≤ W₂² ≤ Σw|x − y|². It
takes all pairs but no transport; where g does not settle it, exact transport does. Of many atoms some are picked, and each is compared
with its nearest neighbours at the start.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.distance import wasserstein
from mfpde.measure import Particles
from mfpde.solvers.jko.positions import Objective

PICKED = 512
_NEIGHBOURS = 6
_SETTLED = 1e-6
_EQUAL = 1e-9
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Verdict:
    """``open``: by which share of Σw|x − y|² its potentials leave open that W₂² is smaller; ``known``: by which share it is smaller, among
    all atoms or those picked; ``crossed``: the share of the mass that has changed sides with a neighbour."""

    open: float = 0.0
    known: float = 0.0
    crossed: float = 0.0


class Matching:
    """For the atoms of one problem that start at ``points`` (N, d)."""

    def __init__(self, objective: Objective, points: FloatArray) -> None:
        self.objective, domain = objective, objective.domain
        self.ordered = domain.dimension == 1 and not domain.periodic[0]
        self._order = np.argsort(points[:, 0], kind="stable")
        self.picked = _picked(len(points))
        self._near = None if self.ordered or self.picked is None else _neighbours(points)
        self._moving, self._frozen = list(domain.moving), np.flatnonzero(domain.frozen)

    @property
    def how(self) -> str:
        """For people."""
        if self.ordered:
            return "by their order"
        if self.picked is None:
            return "by potentials on all pairs"
        return f"by potentials on all pairs of {len(self.picked)} of the atoms, and by the order of neighbours"

    def judge(self, points: FloatArray, target: FloatArray, sigma: float) -> Verdict:
        """Of atoms at ``points`` that came from ``target``, both (N, d)."""
        if not np.any(points != target):
            return Verdict()
        if self.ordered:
            return self._by_order(points, target)
        picked = slice(None) if self.picked is None else self.picked
        x, y, weights = points[picked], target[picked], self.objective.weights[picked]
        moved = float(weights @ np.sum((x - y) ** 2, axis=1))
        crossed = self._crossed(points, target)
        gap = self._gap(points, x, y, weights, sigma)
        if 2.0 * gap <= _SETTLED * moved:
            return Verdict(2.0 * gap / max(moved, _TINY), 0.0, crossed)
        known = 1.0 - self._exact(x, y, weights) / max(moved, _TINY)
        return Verdict(0.0, known if known > _EQUAL else 0.0, crossed)

    def _by_order(self, points: FloatArray, target: FloatArray) -> Verdict:
        here, there = target[self._order, 0], points[self._order, 0]
        if (here[1:] < here[:-1]).any():
            order = np.argsort(target[:, 0], kind="stable")
            here, there = target[order, 0], points[order, 0]
        if not ((there[1:] < there[:-1]) & (here[1:] > here[:-1])).any():
            return Verdict()
        moved = self.objective.squared(points - target)
        known = 1.0 - self._exact(points, target, self.objective.weights) / max(moved, _TINY)
        return Verdict(0.0, known if known > _EQUAL else 0.0, 0.0)

    def _exact(self, x: FloatArray, y: FloatArray, weights: FloatArray) -> float:
        """W₂² times the mass."""
        mass, wrapped = float(np.sum(weights)), self.objective.wrapped
        one, other = (Particles(np.ascontiguousarray(wrapped(points)), weights / mass) for points in (x, y))
        return mass * wasserstein(one, other, self.objective.domain, support=len(weights), method="exact").value ** 2

    def _gap(self, points: FloatArray, x: FloatArray, y: FloatArray, weights: FloatArray, sigma: float) -> float:
        """g, among pairs with equal frozen coordinates."""
        wrapped = self.objective.wrapped
        atoms = Particles(wrapped(points), self.objective.weights)
        heights = sigma * self.objective.energy.first_variation(atoms, wrapped(x))
        own = heights + 0.5 * np.sum((x - y) ** 2, axis=1)
        least = own.copy()
        step = max(1, (1 << 18) // len(x))
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            cost = heights + 0.5 * self._costs(x, y[rows])
            if len(self._frozen):
                cost[~self._same(x, y[rows])] = np.inf
            least[rows] = np.minimum(own[rows], np.min(cost, axis=1))
        return float(weights @ (own - least))

    def _costs(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """|x_i − y_j|², the short way round along circles, (j, i)."""
        total = np.zeros((len(y), len(x)))
        for k in self._moving:
            axis = self.objective.domain.axes[k]
            apart = np.subtract.outer(y[:, k], x[:, k])
            if axis.periodic:
                apart -= axis.length * np.round(apart / axis.length)
            apart *= apart
            total += apart
        return total

    def _same(self, x: FloatArray, y: FloatArray) -> BoolArray:
        """Whether frozen coordinates are equal, (j, i)."""
        mine, theirs = y[:, self._frozen], x[:, self._frozen]
        return np.asarray(np.all(mine[:, None, :] == theirs[None, :, :], axis=2))

    def _crossed(self, points: FloatArray, target: FloatArray) -> float:
        """The share of the mass of which a neighbour with the same frozen coordinates has (x − x')·(y − y') < 0."""
        if self._near is None:
            return 0.0
        crossed, domain = np.zeros(len(points), dtype=bool), self.objective.domain
        for near in self._near.T:
            apart, before = points - points[near], domain.displacement(target[near], target)
            apart = domain.displacement(points[near], points)
            inner = np.sum(apart * before, axis=1)
            bound = _EQUAL * (np.sum(apart**2, axis=1) + np.sum(before**2, axis=1))
            crossed |= (inner < -bound) & np.all(apart[:, self._frozen] == 0.0, axis=1)
        return float(self.objective.weights @ crossed) / float(np.sum(self.objective.weights))


def _picked(count: int) -> IntArray | None:
    """Indices of PICKED evenly picked atoms; None for all."""
    return None if count <= PICKED else np.linspace(0, count - 1, PICKED).astype(np.int64)


def _neighbours(points: FloatArray) -> IntArray:
    """The nearest other atoms of each, (N, k)."""
    from scipy.spatial import cKDTree

    found = np.asarray(cKDTree(points).query(points, k=_NEIGHBOURS + 1)[1], dtype=np.int64)
    return np.asarray(found.reshape(len(points), -1)[:, 1:])
