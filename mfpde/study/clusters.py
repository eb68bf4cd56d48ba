"""Clusters of a student around the atoms of its teacher: masses, means, spreads and mean velocities.

A point belongs to the nearest teacher atom. Where the activation is even, θ and −θ are the same neuron: a point that is nearer to the
mirror image −c_j than to any atom is reflected first.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.energy import TwoLayer
from mfpde.measure import Density, Measure, Particles, barycentres

EVEN = ("cos", "gaussian", "quadratic")
"""Activations with σ(−z) = σ(z)."""
_NEGLIGIBLE = 1e-13
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Clusters:
    """What is around each of J teacher atoms at one time: ``masses`` (J,), ``means`` and ``deviations`` along each axis (J, d), nan where
    there is no mass; ``reflected``: the mass that came from mirror images."""

    masses: FloatArray
    means: FloatArray
    deviations: FloatArray
    reflected: float


@dataclass(frozen=True, eq=False)
class Gathered:
    """A measure as atoms ``points`` (N, d), reflected where they are mirror images, with ``weights`` (N,) and the index of the nearest
    teacher atom, ``owner`` (N,)."""

    points: FloatArray
    weights: FloatArray
    owner: IntArray
    mirrored: BoolArray


def gather(measure: Measure, atoms: FloatArray, even: bool) -> Gathered:
    """Each atom, or the barycentre of each cell, with the nearest of the teacher's ``atoms`` (J, d)."""
    points, weights = barycentres(measure), np.asarray(measure.weights)
    owner, mirrored = np.zeros(len(points), dtype=np.int64), np.zeros(len(points), dtype=bool)
    images = np.concatenate([atoms, -atoms]) if even else atoms
    block = max(1, _BLOCK // images.size)
    for first in range(0, len(points), block):
        part = slice(first, first + block)
        index = np.argmin(np.sum((points[part, None, :] - images) ** 2, axis=2), axis=1)
        owner[part], mirrored[part] = index % len(atoms), index >= len(atoms)
    return Gathered(np.where(mirrored[:, None], -points, points), weights, owner, mirrored)


def clusters_of(measure: Measure, gathered: Gathered, count: int) -> Clusters:
    """The moments of the ``count`` clusters; a density counts as constant in each cell."""
    masses, dimension = np.asarray(np.bincount(gathered.owner, gathered.weights, count), dtype=float), gathered.points.shape[1]
    means, deviations = (np.full((count, dimension), np.nan) for _ in range(2))
    for j in np.flatnonzero(masses > _NEGLIGIBLE * np.sum(masses)):
        own = gathered.owner == j
        shares = gathered.weights[own] / masses[j]
        means[j] = shares @ gathered.points[own]
        variance = shares @ (gathered.points[own] - means[j]) ** 2
        if isinstance(measure, Density):
            variance = variance + np.diag(measure.grid.inner_covariance(np.where(own, gathered.weights, 0.0) / masses[j]))
        deviations[j] = np.sqrt(variance)
    return Clusters(masses, means, deviations, float(np.sum(gathered.weights[gathered.mirrored])))


def mean_velocities(energy: TwoLayer, gathered: Gathered, base: FloatArray, share: float) -> FloatArray:
    """The mean of −∇δE/δρ over each cluster, (J, d), after all points are drawn towards their ``base`` (J, d), so that a ``share`` of the
    distance is left; nan for empty clusters."""
    kept = gathered.weights > _NEGLIGIBLE * np.max(gathered.weights)
    owner, weights = gathered.owner[kept], gathered.weights[kept]
    points = np.ascontiguousarray(base[owner] + share * (gathered.points[kept] - base[owner]))
    velocity = -energy.gradient(Particles(points, weights), points)
    masses = np.bincount(owner, weights, len(base))
    sums = np.stack([np.bincount(owner, weights * column, len(base)) for column in velocity.T], axis=1)
    return np.divide(sums, masses[:, None], out=np.full_like(sums, np.nan), where=masses[:, None] > 0.0)
