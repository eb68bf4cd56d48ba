"""Atoms that a step brings together and keeps together, as those of attractive kernels with a kink at 0: they move as one.

Where x_i = x_j the interaction's gradient jumps; the minimiser is there where neither atom gains by leaving, and stationary for what they
weigh together. These are the sticky collisions of such flows [Carrillo–Di Francesco–Figalli–Laurent–Slepčev 2011].
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.solvers.jko.positions import Descended, Objective

_STUCK = 1e-2
_ABOVE = 10.0
_ASIDE = 1e-9
_CLOSE = 1e-6
_JUMP = 1e-3


@dataclass(frozen=True, eq=False)
class Ties:
    """``atoms`` (T,) in ``groups`` (T,), numbered from 0, of which they are ``shares`` (T,) of the weight."""

    atoms: IntArray
    groups: IntArray
    shares: FloatArray

    @staticmethod
    def of(atoms: IntArray, groups: IntArray, weights: FloatArray) -> "Ties":
        """For the ``weights`` (N,) of all atoms; groups of one atom are none."""
        _, numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)
        kept = counts[numbers] > 1
        atoms = atoms[kept]
        numbers = np.unique(numbers[kept], return_inverse=True)[1]
        total = np.bincount(numbers, weights=weights[atoms])
        return Ties(atoms, numbers.astype(np.int64), weights[atoms] / np.maximum(total[numbers], 1e-300))

    def __len__(self) -> int:
        return len(self.atoms)

    def with_atom(self, atom: int) -> IntArray:
        """The atoms of its group, or itself."""
        mine = self.groups[self.atoms == atom]
        return self.atoms[self.groups == mine[0]] if len(mine) else np.array([atom])

    def means(self, field: FloatArray) -> FloatArray:
        """Of a field (N, d) over each group, (G, d)."""
        found = np.zeros((int(self.groups.max(initial=-1)) + 1, field.shape[1]))
        np.add.at(found, self.groups, self.shares[:, None] * field[self.atoms])
        return found

    def project(self, field: FloatArray) -> FloatArray:
        """A field (N, d) with the mean of each group for its atoms."""
        if not len(self):
            return field
        found = field.copy()
        found[self.atoms] = self.means(field)[self.groups]
        return found

    def together(self, objective: Objective, points: FloatArray) -> FloatArray:
        """The points with each group at its barycentre, the short way round along circles."""
        if not len(self):
            return points
        first = self.atoms[np.unique(self.groups, return_index=True)[1]]
        apart = np.zeros(points.shape)
        apart[self.atoms] = objective.domain.displacement(points[first][self.groups], points[self.atoms])
        found = points.copy()
        base = found[self.atoms] - apart[self.atoms]
        found[self.atoms] = base + self.means(apart)[self.groups]
        return objective.inside(found)


def gathered(objective: Objective, at: Descended, ties: Ties, sigma: float, close: float) -> Ties | None:
    """Ties with more atoms: those left with the largest gradients and their nearest neighbours, where these are not further than the
    gradients would move them and pull them back from either side; None where there are no more."""
    points, domain = at.place.points, objective.domain
    sizes = np.sqrt(np.sum(at.rest**2, axis=1))
    stuck = np.flatnonzero(sizes > max(_STUCK * float(np.max(sizes)), _ABOVE * close))
    labels = np.arange(len(points))
    labels[ties.atoms] = len(points) + ties.groups
    pairs = []
    for atom in stuck:
        apart = domain.displacement(points[atom], points)
        squares = np.sum(apart**2, axis=1)
        squares[(labels == labels[atom]) | np.any(apart[:, domain.frozen] != 0.0, axis=1)] = np.inf
        near = int(np.argmin(squares))
        if squares[near] <= (sigma * sizes[atom]) ** 2 and _pulled(objective, points, int(atom), near, float(sizes[atom])):
            pairs.append((int(atom), near))
    if not pairs:
        return None
    for one, other in pairs:
        labels[labels == labels[one]] = labels[other]
    return Ties.of(np.arange(len(points)), labels, objective.weights)


def _pulled(objective: Objective, points: FloatArray, atom: int, other: int, size: float) -> bool:
    """Whether the gradient at an atom jumps where it meets another, from one side of it to the other, so as to keep it there."""
    domain = objective.domain
    along = domain.displacement(points[other], points[atom])
    length = float(np.linalg.norm(along))
    along = along / length if length > 0.0 else np.eye(len(along))[domain.moving[0]]
    aside, slopes = _ASIDE * float(np.max(domain.upper - domain.lower)) * along, []
    for side in (1.0, -1.0):
        moved = points.copy()
        moved[atom] = objective.inside(points[other] + side * aside)
        slopes.append(float(objective.slopes(moved, moved[atom : atom + 1])[0] @ along))
    return slopes[0] - slopes[1] > _JUMP * size


def let_go(objective: Objective, at: Descended, ties: Ties, target: FloatArray, sigma: float, close: float) -> Ties:
    """The ties without those atoms that gain by leaving their group, alone or, if none does, with those that are pulled to their side."""
    if not len(ties):
        return ties
    points, slope = at.place.points, at.place.slope
    own = slope[ties.atoms] - ties.means(slope)[ties.groups]
    sizes = np.sqrt(np.sum(own**2, axis=1))
    stays: BoolArray = np.ones(len(ties), dtype=bool)
    for row in np.flatnonzero(sizes > _ABOVE * close):
        along, allowed = -own[row] / sizes[row], _ABOVE * close + _CLOSE * sizes[row]
        stays[row] = _left(objective, points, ties, np.array([row]), along, target, sigma) >= -allowed
    if not stays.all():
        return Ties.of(ties.atoms[stays], ties.groups[stays], objective.weights)
    return _split(objective, points, ties, own, target, sigma, close)


def _split(objective: Objective, points: FloatArray, ties: Ties, own: FloatArray, target: FloatArray, sigma: float, close: float) -> Ties:
    """Ties with those groups in two parts of which one gains by leaving the other."""
    groups, sizes = ties.groups.copy(), np.sqrt(np.sum(own**2, axis=1))
    for group in np.flatnonzero(np.bincount(ties.groups) > 2):
        rows = np.flatnonzero(ties.groups == group)
        first = rows[np.argmax(sizes[rows])]
        if sizes[first] <= _ABOVE * close:
            continue
        along = -own[first] / sizes[first]
        for side in (1.0, -1.0):
            part = rows[side * (own[rows] @ along) < 0.0]
            if 0 < len(part) < len(rows):
                slope = _left(objective, points, ties, part, side * along, target, sigma)
                if slope < -(_ABOVE * close + _CLOSE * sizes[first]):
                    groups[part] = np.max(groups) + 1
                    break
    return ties if np.array_equal(groups, ties.groups) else Ties.of(ties.atoms, groups, objective.weights)


def _left(
    objective: Objective, points: FloatArray, ties: Ties, rows: IntArray, along: FloatArray, target: FloatArray, sigma: float
) -> float:
    """The objective's slope along a direction, by weight, for some atoms of a group that have left it a little that way."""
    atoms, reach = ties.atoms[rows], float(np.max(objective.domain.upper - objective.domain.lower))
    moved = points.copy()
    moved[atoms] = objective.inside(points[atoms] + _ASIDE * reach * along)
    there = objective.slopes(moved, moved[atoms]) + (points[atoms] - target[atoms]) / sigma
    return float(ties.shares[rows] @ (there @ along)) / float(np.sum(ties.shares[rows]))
