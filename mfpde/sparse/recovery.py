"""Which neurons are found: those of the teacher, of its mirror images, or others."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.sparse.network import Network

_ZERO = 1e-9
_SAME = 1e-7
_ACTIVE = 1e-6


def determined(teacher: Network) -> bool | None:
    """Whether the teacher's neurons are the only minimisers of |ν| among all networks with its values, the limit λ → 0; None where neurons
    are opposite, for which this rule decides nothing.

    For an isotropic law relu sees the even part and the mean of ν alone (relu(z) − relu(−z) = z: the odd harmonics of degree ≥ 3 are
    invisible). Where no two neurons share a line, |ν| is least with part of each mirrored, w_j = α_j + β_j at u_j and −u_j, if
    Σ|β_j| s_j u_j = 0 with s_j the sign of w_j: only β = 0 does unless 0 is in the convex hull of the s_j u_j.
    """
    from scipy.optimize import nnls

    points, masses = _summed(teacher)
    if bool(np.any(_distances(points, -points) < _SAME)):
        return None
    rows = np.sign(masses)[:, None] * points
    _, off = nnls(np.vstack([rows.T, np.ones(len(rows))]), np.append(np.zeros(rows.shape[1]), 1.0))
    return bool(off > _ZERO)


def _summed(teacher: Network) -> tuple[FloatArray, FloatArray]:
    """Directions (K, d) and signed masses (K,), those of equal directions added, without those that cancel."""
    same = _distances(teacher.directions, teacher.directions) < _SAME
    first = np.argmax(same, axis=1)
    masses: FloatArray = np.bincount(first, teacher.masses, minlength=len(first)).astype(float)
    size = np.bincount(first, np.abs(teacher.masses), minlength=len(first))
    kept = np.abs(masses) > _ZERO * size
    return teacher.directions[kept], masses[kept]


def _distances(one: FloatArray, other: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(one[:, None] - other[None], axis=2))


def nearest(points: FloatArray, signs: FloatArray, targets: FloatArray, target_signs: FloatArray) -> tuple[FloatArray, IntArray]:
    """The angle (n,) from unit vectors (n, d) to the nearest target of the same sign, and which that is (n,); π and −1 without one."""
    if not len(targets):
        return np.full(len(points), np.pi), np.full(len(points), -1)
    chord = np.linalg.norm(points[:, None] - targets[None], axis=2)
    angle = np.where(signs[:, None] == target_signs[None], 2.0 * np.arcsin(np.minimum(0.5 * chord, 1.0)), np.inf)
    which = np.argmin(angle, axis=1)
    found = angle[np.arange(len(points)), which]
    return np.where(np.isfinite(found), found, np.pi), np.where(np.isfinite(found), which, -1)


@dataclass(frozen=True)
class Gathering:
    """How neurons are spread: ``clusters`` of them within an angle of the heaviest, the share of Σ|a||w| within it of given targets, and
    the greatest angle to them of neurons that hold more than a millionth."""

    clusters: int
    share: float
    widest: float


def gather(masses: FloatArray, directions: FloatArray, targets: Network, angle: float) -> Gathering:
    """The gathering of neurons with signed ``masses`` (N,) and ``directions`` (N, d) at the neurons of ``targets``."""
    size = np.abs(masses)
    total = float(np.sum(size))
    active = size > _ACTIVE * total
    found = np.sign(masses)
    if not active.any():
        return Gathering(0, 0.0, np.pi)
    off, _ = nearest(directions, found, targets.directions, np.sign(targets.masses))
    share = float(np.sum(size[off <= angle])) / total
    return Gathering(_clusters(size, found, directions, active, angle), share, float(np.max(off[active])))


def _clusters(size: FloatArray, signs: FloatArray, directions: FloatArray, active: BoolArray, angle: float) -> int:
    """The heaviest neuron takes all of its sign within the angle, then the heaviest of those left, and so on."""
    left, count, least = active.copy(), 0, np.cos(angle)
    while left.any():
        first = int(np.argmax(np.where(left, size, -1.0)))
        left &= ~((directions @ directions[first] >= least) & (signs == signs[first]))
        left[first] = False
        count += 1
    return count
