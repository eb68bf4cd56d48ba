"""How fast the gradient flow of J(π) = E(π) + λ∫|a||w|dπ converges near its sparse minimiser, from the Hessian there.

Neurons (a, w) with masses μ = |a||w|/N near direction u_k and of its sign: only m_k = Σμ and the directions u_k + τ_i matter to second
order, J − J* = ½E(δf)² + ½Σμ_i τ_iᵀ(−H_k)τ_i with δf the function of (δm_k, Σμ_iτ_i), H_k the Hessian of |η| on the sphere at u_k.
The flow ȧ = −∂_aδJ/δπ, ẇ = −∂_wδJ/δπ moves them like ṁ_k = −c_k ∂_{m_k}J with c_k = Σ(a² + |w|²)/N and like
τ̇_i = −(|a|/(|w|μ_i))∂_{τ_i}J. So the rates are the eigenvalues of G^{1/2}QG^{1/2}, G being that metric and Q the Hessian, and J − J* falls
with twice the smallest.

Where |a| = |w|, which the flow keeps, c_k = 2m_k and |a|/|w| = 1: how neurons share the mass of their direction does not matter. The mean
directions and masses have the rates of one neuron each, and the spread of those in one direction has the eigenvalues of −H_k. A neuron
elsewhere loses its mass a² like e^{−2(λ − sη)t}. Neurons with |a| < |w| are slower by |a|/|w|, which among many is as small as you like;
those elsewhere reach a = 0 in finite time and stay.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.sparse.certificate import hessians, tangents
from mfpde.sparse.flow import Students
from mfpde.sparse.network import mixed_slopes
from mfpde.sparse.recovery import nearest
from mfpde.sparse.solver import SparseSolution

_MASS = 0.5
_AWAY = 0.2


@dataclass(frozen=True, eq=False)
class Modes:
    """The ``rates`` (M,) of perturbations, increasing, and what each of them mostly is."""

    rates: FloatArray
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Members:
    """Neurons in the directions of a solution: which ``cluster`` (n,), the ``inner`` lengths |w| and the ``outer`` |a| (n,), and the
    number N of all neurons."""

    cluster: IntArray
    inner: FloatArray
    outer: FloatArray
    count: int

    @staticmethod
    def balanced(solution: SparseSolution) -> "Members":
        """One neuron for each direction, with |a| = |w|."""
        size = np.sqrt(np.abs(solution.weights))
        return Members(np.arange(len(size)), size, size, 1)


def local_modes(solution: SparseSolution, members: Members | None = None) -> Modes:
    """The modes for given neurons; without, for any numbers of them with |a| = |w| in each direction of the solution."""
    whole = members is None
    members = Members.balanced(solution) if members is None else members
    clusters, dimension = len(solution.points), solution.points.shape[1]
    root, hessian = _metric(solution, members), _hessian(solution, members)
    values, vectors = np.linalg.eigh(root[:, None] * hessian * root)
    shares = np.sum(vectors[:clusters] ** 2, axis=0)
    names = ["mass" if share > _MASS else "direction" for share in shares]
    rates = list(values)
    if whole:
        rates += np.ravel(solution.curvatures).tolist()
        names += [f"spread at neuron {k + 1}" for k in range(clusters) for _ in range(dimension - 1)]
    order = np.argsort(rates, kind="stable")
    return Modes(np.array(rates)[order], tuple(names[k] for k in order))


@dataclass(frozen=True, eq=False)
class Decay:
    """J − J* ≈ Σ_j A_j e^{−r_j t} of the linearised flow: ``parts`` A_j (M,) and ``rates`` r_j (M,); of ``merging`` neurons first, then of
    those elsewhere."""

    parts: FloatArray
    rates: FloatArray
    merging: int

    def at(self, times: FloatArray) -> FloatArray:
        """J − J* at times (n,) from the state on, (n,)."""
        return np.asarray(np.exp(-np.outer(times, self.rates)) @ self.parts)

    @property
    def slowest(self) -> tuple[float, bool]:
        """The smallest rate, ∞ without any, and whether it is that of merging neurons."""
        if not len(self.rates):
            return np.inf, True
        first = int(np.argmin(self.rates))
        return float(self.rates[first]), first < self.merging


def linear_decay(solution: SparseSolution, students: Students) -> Decay:
    """The linearised flow from students near the solution: those within 0.2 (radians) of a neuron of their sign merge, the others vanish.

    Of neurons elsewhere J − J* holds μ(λ − sη), which falls with the rate (|w|/|a| + |a|/|w|)(λ − sη) at first, for |a| = |w| always.
    """
    signs = np.sign(students.outer)
    off, cluster = nearest(students.directions, signs, solution.points, np.sign(solution.weights))
    at, moves = (off < _AWAY) & (signs != 0.0), signs != 0.0
    lost = solution.problem.strength - signs * solution.residual.correlation(students.directions)
    away = moves & ~at & (lost > 0.0)
    ratio = np.abs(students.outer[away]) / students.inner[away]
    parts, rates = (students.masses * lost)[away], (ratio + 1.0 / ratio) * lost[away]
    if not at.any():
        return Decay(parts, rates, 0)
    members = Members(cluster[at], students.inner[at], np.abs(students.outer[at]), len(signs))
    root = _metric(solution, members)
    values, vectors = np.linalg.eigh(root[:, None] * _hessian(solution, members) * root)
    apart = np.bincount(members.cluster, students.masses[at], minlength=len(solution.points)) - np.abs(solution.weights)
    basis = tangents(solution.points)[members.cluster]
    turned = np.einsum("iab,ia->ib", basis, students.directions[at] - solution.points[members.cluster])
    amplitude = vectors.T @ (np.concatenate([apart, np.ravel(turned)]) / np.where(root > 0.0, root, 1.0))
    own = 0.5 * values * amplitude**2
    return Decay(np.concatenate([own, parts]), np.concatenate([2.0 * values, rates]), len(values))


def _metric(solution: SparseSolution, members: Members) -> FloatArray:
    """√G for the masses of the clusters, then for the tangents of each member."""
    squares = (members.inner**2 + members.outer**2) / members.count
    speed = np.bincount(members.cluster, squares, minlength=len(solution.points))
    each = members.count / members.inner**2
    return np.asarray(np.sqrt(np.concatenate([speed, np.repeat(each, solution.points.shape[1] - 1)])))


def _hessian(solution: SparseSolution, members: Members) -> FloatArray:
    """Q in (δm_k, τ_i): functions s_k relu'(u_k·x)x·(u_k δm_k + μ_i B_k τ_i), and −μ_i H_k."""
    points, signs, basis = solution.points, np.sign(solution.weights), tangents(solution.points)
    cluster, mass = members.cluster, members.inner * members.outer / members.count
    moved = (signs[cluster, None, None] * mass[:, None, None] * basis[cluster]).transpose(0, 2, 1)
    width = points.shape[1] - 1
    owner = np.concatenate([np.arange(len(points)), np.repeat(cluster, width)])
    along = np.concatenate([signs[:, None] * points, moved.reshape(len(cluster) * width, points.shape[1])])
    blocks = mixed_slopes(points, points, solution.problem.teacher.moment)
    hessian, rows = np.empty((len(along), len(along))), [np.flatnonzero(owner == k) for k in range(len(points))]
    for k, one in enumerate(rows):
        for m, two in enumerate(rows):
            hessian[np.ix_(one, two)] = along[one] @ blocks[k, m] @ along[two].T
    own = -signs[:, None, None] * np.einsum("kab,kac,kcd->kbd", basis, hessians(solution.residual, points), basis)
    for i, k in enumerate(cluster):
        part = slice(len(points) + i * width, len(points) + (i + 1) * width)
        hessian[part, part] += mass[i] * own[k]
    return np.asarray(0.5 * (hessian + hessian.T))
