"""Atoms that a step puts on kinks of the first variation, such as those of relu at x·θ = 0: they are held to planes, as others to walls.

At a kink that the flow runs into from both sides the gradient jumps along the normal n of the kink. The minimiser is on it where 0 is
between the slopes along n on both sides, and stationary along it; quasi-Newton steps alone would crawl.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.solvers.jko.positions import Descended, Objective
from mfpde.solvers.jko.ties import Ties

_STUCK = 1e-2
_ABOVE = 10.0
_NARROW = 1e-13
_JUMP = 1e-3
_ASIDE = 1e-9
_JOINT = 1e-6
_CLOSE = 1e-6
_RIDGE = 1e-4
_AWAY, _TOUCHING, _STAYS = 1e-6, 1e-10, 0.5


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes to which ``atoms`` (P,) are held, with unit ``normals`` (P, d), which are orthogonal where an atom has several."""

    atoms: IntArray
    normals: FloatArray

    @staticmethod
    def none(dimension: int) -> "Planes":
        """All atoms are free."""
        return Planes(np.zeros(0, dtype=np.int64), np.zeros((0, dimension)))

    def __len__(self) -> int:
        return len(self.atoms)

    def project(self, field: FloatArray) -> FloatArray:
        """A field (N, d) without its parts along the normals."""
        if not len(self):
            return field
        found = field.copy()
        along = np.einsum("pi,pi->p", found[self.atoms], self.normals)
        np.subtract.at(found, self.atoms, along[:, None] * self.normals)
        return found

    def kept(self, which: IntArray) -> "Planes":
        """Some of them."""
        return Planes(self.atoms[which], self.normals[which])

    def turns(self) -> list[IntArray]:
        """Their indices in parts, in each of which every atom is at most once."""
        left, found = np.arange(len(self)), []
        while len(left):
            first = np.unique(self.atoms[left], return_index=True)[1]
            found.append(np.sort(left[first]))
            left = np.delete(left, first)
        return found

    def joined(self, other: "Planes") -> "Planes":
        """These and others, whose normals are made orthogonal to those that an atom has."""
        normals = other.normals.copy()
        for row, atom in enumerate(other.atoms):
            for mine in self.normals[self.atoms == atom]:
                normals[row] -= (normals[row] @ mine) * mine
        sizes = np.linalg.norm(normals, axis=1)
        fine = sizes > 0.5
        joined = normals[fine] / sizes[fine, None]
        return Planes(np.concatenate([self.atoms, other.atoms[fine]]), np.concatenate([self.normals, joined]))


@dataclass(frozen=True, eq=False)
class Kinks:
    """The ``points`` with some atoms moved onto kinks, the ``planes`` found, and whether there are kinks that depend on other atoms."""

    points: FloatArray
    planes: Planes
    joint: bool


def find_kinks(objective: Objective, at: Descended, ties: Ties, target: FloatArray, sigma: float, close: float) -> Kinks | None:
    """Kinks across the steepest descent of the atoms that are left with the largest gradients, of which those in groups go together; None
    where there are none."""
    sizes = np.sqrt(np.sum(at.rest**2, axis=1))
    stuck = np.flatnonzero(sizes > max(_STUCK * float(np.max(sizes)), _ABOVE * close))
    if not len(stuck):
        return None
    along = -at.rest[stuck] / sizes[stuck, None]
    near, far, slopes, beyond = _bracket(objective, at.place.points, ties, stuck, along, sizes[stuck], target[stuck], sigma)
    jump = np.where(at.rest[stuck] != 0.0, beyond - slopes, 0.0)
    across = np.sqrt(np.sum(jump**2, axis=1))
    flips = np.sum(beyond * along, axis=1) > 0.0
    kinked = flips & (across > _JUMP * sizes[stuck])
    if not kinked.any():
        return None
    normal = jump[kinked] / across[kinked, None]
    enclosed = (np.sum(slopes[kinked] * normal, axis=1) <= 0.0) & (np.sum(beyond[kinked] * normal, axis=1) >= 0.0)
    atoms, points = stuck[kinked], at.place.points.copy()
    points[atoms] = np.where(enclosed[:, None], near[kinked], far[kinked])
    joint = _depends(objective, points, ties, atoms, near[kinked], far[kinked], across[kinked])
    kept = enclosed & np.logical_not(joint)
    return Kinks(points, Planes(atoms[kept], normal[kept]), bool(joint.any()))


def _bracket(
    objective: Objective,
    points: FloatArray,
    ties: Ties,
    stuck: IntArray,
    along: FloatArray,
    sizes: FloatArray,
    target: FloatArray,
    sigma: float,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """By bisection: the places before and after the slope along a line changes its sign, and the objective's gradients there, (K, d), of
    groups their means."""
    low, high = np.zeros(len(stuck)), 2.0 * sigma * sizes
    moved = points.copy()

    def slope(share: FloatArray) -> tuple[FloatArray, FloatArray]:
        there = objective.inside(points[stuck] + share[:, None] * along)
        moved[stuck] = there
        return there, _shared(ties, stuck, objective.slopes(moved, there) + (there - target) / sigma, len(points))

    narrow = _NARROW * float(np.max(objective.domain.upper - objective.domain.lower))
    while float(np.max(high - low)) > narrow:
        middle = 0.5 * (low + high)
        falls = np.sum(slope(middle)[1] * along, axis=1) <= 0.0
        low, high = np.where(falls, middle, low), np.where(falls, high, middle)
    near, before = slope(low)
    far, after = slope(high)
    return near, far, before, after


def _shared(ties: Ties, atoms: IntArray, field: FloatArray, count: int) -> FloatArray:
    """A field (K, d) at some of ``count`` atoms with the mean of each group for its atoms."""
    if not len(ties):
        return field
    whole = np.zeros((count, field.shape[1]))
    whole[atoms] = field
    return np.asarray(ties.project(whole)[atoms])


def _depends(
    objective: Objective, points: FloatArray, ties: Ties, atoms: IntArray, near: FloatArray, far: FloatArray, across: FloatArray
) -> BoolArray:
    """Whether the gradient at one place jumps when the atoms go over the kinks, (K,), but not only because of themselves: then these are
    where atoms meet."""
    found = []
    for places in (near, far):
        moved = points.copy()
        moved[atoms] = places
        found.append(objective.slopes(moved, near))
    jumps: BoolArray = np.sqrt(np.sum((found[1] - found[0]) ** 2, axis=1)) > _JOINT * across
    for row in np.flatnonzero(jumps):
        jumps[row] = not _apart(objective, points, ties.with_atom(int(atoms[row])), near[row], far[row], float(across[row]))
    return jumps


def _apart(objective: Objective, points: FloatArray, members: IntArray, near: FloatArray, far: FloatArray, across: float) -> bool:
    """Whether a kink between two places stays where the ``members`` are somewhere else, and no other atom is there."""
    domain = objective.domain
    reach, others = float(np.max(domain.upper - domain.lower)), np.delete(points, members, axis=0)
    if len(others) and float(np.min(np.sum(domain.displacement(far, others) ** 2, axis=1))) < (_TOUCHING * reach) ** 2:
        return False
    along, moved = far - near, points.copy()
    moved[members] = objective.inside(points[members] + _AWAY * reach * along / max(float(np.linalg.norm(along)), 1e-300))
    before, after = objective.slopes(moved, np.stack([near, far]))
    return float(np.linalg.norm(after - before)) > _STAYS * across


def off_kinks(objective: Objective, points: FloatArray, target: FloatArray, sigma: float) -> FloatArray:
    """The points (N, d), but atoms on kinks where the objective falls to one side at least, such as those that start at θ = 0, are a
    hair's breadth down the steeper side: the gradient given there may be that of neither side."""
    found, here = points.copy(), (points - target) / sigma + objective.slopes(points, points)
    pulled = (points - target) / sigma
    for axis in objective.domain.moving:
        aside = np.zeros(points.shape[1])
        aside[axis] = _ASIDE * objective.domain.axes[axis].length
        ahead, behind = (objective.slopes(points, objective.inside(points + s * aside))[:, axis] + pulled[:, axis] for s in (1, -1))
        jump = _RIDGE * max(float(np.max(np.abs(ahead))), float(np.max(np.abs(behind))))
        between = (np.abs(here[:, axis] - ahead) > jump) & (np.abs(here[:, axis] - behind) > jump)
        kinked = (between | (behind - ahead > jump)) & ((ahead < 0.0) | (behind > 0.0))
        found[kinked] += np.where(behind > -ahead, -1.0, 1.0)[kinked, None] * aside
    return objective.inside(found)


def released(objective: Objective, at: Descended, planes: Planes, ties: Ties, target: FloatArray, sigma: float, close: float) -> Planes:
    """The planes on which atoms have to stay: 0 is between the slopes along the normal on both sides, to which groups go together."""
    if not len(planes):
        return planes
    points, count = at.place.points, at.place.points.shape[0]
    reach, kept = float(np.max(objective.domain.upper - objective.domain.lower)), []
    for rows in planes.turns():
        atoms, normals, slopes = planes.atoms[rows], planes.normals[rows], []
        for side in (1.0, -1.0):
            moved = points.copy()
            moved[atoms] = objective.inside(points[atoms] + side * _ASIDE * reach * normals)
            there = objective.slopes(moved, moved[atoms]) + (points[atoms] - target[atoms]) / sigma
            slopes.append(np.sum(_shared(ties, atoms, there, count) * normals, axis=1))
        ahead, behind = slopes
        allowed = _ABOVE * close + _CLOSE * np.abs(ahead - behind)
        kept.append(rows[(ahead >= -allowed) & (behind <= allowed)])
    return planes.kept(np.sort(np.concatenate(kept)))
