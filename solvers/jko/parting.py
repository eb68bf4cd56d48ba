"""Atoms that start at one place though a kernel with a kink at 0, such as −|x|, drives them apart: gradients there are those of no side."""

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.measure import lattice
from mfpde.solvers.jko.positions import Objective

_ASIDE, _APART = 1e-9, 1e-7
_JUMP = 1e-4
_KINKED = 1.5


def parted(objective: Objective, points: FloatArray) -> FloatArray:
    """The points (N, d), but those at one place that repel one another with a kink are a hair's breadth apart, in the order of their rows
    on one axis. Smooth repulsion is 0 there, and leaves them where they are."""
    found, (_, first, group) = points, np.unique(points, axis=0, return_index=True, return_inverse=True)
    group = np.ravel(group)
    if len(first) == len(points):
        return points
    met = np.flatnonzero(np.bincount(group) > 1)
    split = met[_repelled(objective, points, group, first, met)]
    axes = np.array(objective.domain.moving)
    spans = (objective.domain.upper - objective.domain.lower)[axes]
    for each in split:
        members = np.flatnonzero(group == each)
        found = found.copy() if found is points else found
        found[np.ix_(members, axes)] += _APART * spans * len(members) * (lattice(len(members), len(axes)) - 0.5)
        if objective.domain.dimension == 1 and not objective.domain.periodic[0]:
            found[members] += min(0.0, float(objective.domain.upper[0] - np.max(found[members])))
            found[members] += max(0.0, float(objective.domain.lower[0] - np.min(found[members])))
    return objective.inside(found)


def _repelled(objective: Objective, points: FloatArray, group: IntArray, first: IntArray, met: IntArray) -> BoolArray:
    """Of which groups the first atom is driven away from the others as strongly however near they are, (G,)."""
    others = np.ones(len(points), dtype=bool)
    others[first] = False
    split: BoolArray = np.zeros(len(met), dtype=bool)
    for axis in objective.domain.moving:
        jumps, largest = [], np.zeros(len(met))
        for size in (_ASIDE, 2.0 * _ASIDE):
            slopes = []
            for side in (1.0, -1.0):
                moved = points.copy()
                moved[others, axis] += side * size * objective.domain.axes[axis].length
                slopes.append(objective.slopes(moved, points[first[met]])[:, axis])
                largest = np.maximum(largest, np.abs(slopes[-1]))
            jumps.append(slopes[0] - slopes[1])
        split |= (jumps[0] > _JUMP * largest) & (jumps[1] < _KINKED * jumps[0])
    return split
