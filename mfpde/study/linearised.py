"""The flow of clusters around the atoms of a teacher, linearised.

Teacher ρ* = Σ α_j δ_{c_j}, student Σ m_j δ_{θ_j}, Φ the features with ⟨Φ(θ), Φ(θ')⟩ = E_x σ(x·θ)σ(x·θ'). With the residual
λ = Σ m_k Φ(θ_k) − Σ α_k Φ(c_k), which is zero for the teacher itself, the clusters move by dθ_j/dt = −∇Φ(θ_j)·λ, and masses cannot change.

Masses as the teacher's, m = α, θ = c + u:          du_j/dt = −Σ_k H_jk α_k u_k,    H_jk = E_x ∇σ(x·c_j) ∇σ(x·c_k)ᵀ.
H·diag(α) is similar to diag(√α) H diag(√α), so that its eigenvalues, the rates, are real and not negative. Where H_12 = 0 the rates are
those of α_j H_jj, and only if H_11 = H_22 as well is their ratio α₁/α₂: the claim of Mean Field Models for Neural Networks in
Teacher-student Setting (2020), §2.2, which is not true otherwise.

Other masses move the fixed point: its positions θ̄ solve ∇Φ(θ̄_j)·λ = 0 with λ ≠ 0 in general, and
du_j/dt = −Σ_k H_jk m_k u_k − B_j u_j with H at θ̄ and B_j = ∇²Φ(θ̄_j)·λ.

Spread. A particle at θ̄_j + u_j + v moves relative to the mean by dv/dt = −∇²Φ(c_j)·λ v. If m = α and means have relaxed, what is left of
the residual is of second order in the spread: on a line, with variances s_k², it is λ = P ½Σ m_k Φ''(c_k) s_k², where P projects out all
m_k ∇Φ(c_k), since the means follow until ∇Φ·λ = 0. Hence
    ds_j²/dt = −s_j² Σ_k K_jk m_k s_k²,    K_jk = ⟨PΦ''(c_j), PΦ''(c_k)⟩,
so that a spread decays like t^(−1/2), alone as s² = s₀²/(1 + K m s₀² t), while masses that do not match add −2B_j s_j². The means then
follow the variances: u = −(H diag m)⁻¹ ½Σ_k ⟨∇Φ(c_j), Φ''(c_k)⟩ m_k s_k², which is zero where ⟨∇Φ, Φ''⟩ is, as for kernels of θ − θ'.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.energy.features import Features

_DIFFERENCE = 1e-4
_NEWTON_STEPS = 50
_NEWTON_TOLERANCE = 1e-12
_DEPENDENT = 1e-9
_ROUND_OFF = 1e-12
MOST_FEATURES = 4096


@dataclass(frozen=True, eq=False)
class Linearised:
    """J clusters in d dimensions, linearised at the positions ``base`` (J, d) for their ``masses`` (J,), with n = Jd modes.

    ``kernel`` (J, d, J, d): H; ``curvature`` (J, d, d): B. ``rates`` (n,) rise, zero where they are round-off, and column i of ``modes``
    (n, n) is the unit vector w with diag(√m) u = w e^(−rates_i t). ``owner`` (n,): the cluster that a mode is counted to, d for each.
    On a line, else None: ``bending`` (J, J) is K, and ``lag`` (J, J) times the variances is where the means are held.
    ``found``: whether a fixed point was found; else ``base`` is the teacher.
    """

    base: FloatArray
    masses: FloatArray
    kernel: FloatArray
    curvature: FloatArray
    rates: FloatArray
    modes: FloatArray
    owner: IntArray
    bending: FloatArray | None
    lag: FloatArray | None
    found: bool

    def coordinates(self, vectors: FloatArray) -> FloatArray:
        """The modes' shares in displacements or velocities (T, J, d) of the clusters, (T, n)."""
        scaled = vectors * np.sqrt(self.masses)[:, None]
        return np.asarray(scaled.reshape(len(vectors), -1) @ self.modes)

    def displacements(self, coordinates: FloatArray) -> FloatArray:
        """How far each mode alone moves each cluster, (T, J, n), from its coordinates (T, n)."""
        count = len(self.masses)
        reach = np.linalg.norm(self.modes.reshape(count, -1, self.modes.shape[1]), axis=1) / np.sqrt(self.masses)[:, None]
        return np.asarray(np.abs(coordinates)[:, None, :] * reach)

    @property
    def shares(self) -> FloatArray:
        """How much of each mode is in each cluster, (J, n), columns of sum one."""
        return np.asarray(np.sum(self.modes.reshape(len(self.masses), -1, self.modes.shape[1]) ** 2, axis=1))

    def own(self, cluster: int) -> IntArray:
        """A cluster's own modes, the slowest first, (d,)."""
        return np.flatnonzero(self.owner == cluster)

    def slowest(self, cluster: int) -> int:
        """The slowest of a cluster's own modes."""
        return int(self.own(cluster)[0])


def slopes(features: Features, points: FloatArray) -> FloatArray:
    """∇Φ at points (M, d), as (M, r, d)."""
    unit = np.eye(features.rank)
    return np.stack([features.gradient(points, row) for row in unit], axis=1)


def bends(features: Features, points: FloatArray) -> FloatArray:
    """∇²Φ at points (M, d), as (M, r, d, d), by differences of ∇Φ."""
    parts = []
    for axis in range(points.shape[1]):
        step = np.zeros(points.shape[1])
        step[axis] = _DIFFERENCE
        parts.append((slopes(features, points + step) - slopes(features, points - step)) / (2.0 * _DIFFERENCE))
    found = np.stack(parts, axis=3)
    return np.asarray(0.5 * (found + np.swapaxes(found, 2, 3)))


def kernel_of(slope: FloatArray) -> FloatArray:
    """H (J, d, J, d) of the slopes (J, r, d)."""
    return np.asarray(np.einsum("jra,krb->jakb", slope, slope))


def rates_of(kernel: FloatArray, masses: FloatArray) -> FloatArray:
    """The eigenvalues of H·diag(m), rising, (Jd,); zero where they are round-off."""
    root = np.repeat(np.sqrt(masses), kernel.shape[1])
    size = len(root)
    return without_round_off(np.linalg.eigvalsh(root[:, None] * kernel.reshape(size, size) * root))


def without_round_off(values: FloatArray) -> FloatArray:
    """``values`` with those set to zero that are less than 1e-12 of the largest."""
    return np.where(np.abs(values) <= _ROUND_OFF * np.max(np.abs(values)), 0.0, values)


def overlaps(kernel: FloatArray) -> FloatArray:
    """‖H_jk‖/√(‖H_jj‖‖H_kk‖) in the operator norm, (J, J); nan where H_jj or H_kk is zero."""
    norms = np.array([[np.linalg.norm(kernel[j, :, k, :], 2) for k in range(len(kernel))] for j in range(len(kernel))])
    size = np.sqrt(without_round_off(np.diag(norms)))
    scale = np.outer(size, size)
    return np.asarray(np.divide(norms, scale, out=np.full_like(norms, np.nan), where=scale > 0.0))


def linearise(features: Features, atoms: FloatArray, alpha: FloatArray, occupied: IntArray, masses: FloatArray) -> Linearised:
    """The modes of clusters of ``masses`` (J,) around those of the teacher's ``atoms`` (J, d), of weights ``alpha`` (J,), that are
    ``occupied`` (K,); what is said of J clusters in ``Linearised`` then is of K."""
    base, lam, found = fixed_point(features, atoms, alpha, occupied, masses[occupied])
    atoms, masses = atoms[occupied], masses[occupied]
    slope, bend = slopes(features, base), bends(features, base)
    kernel, curvature = kernel_of(slope), np.einsum("jrab,r->jab", bend, lam)
    (count, dimension), root = atoms.shape, np.repeat(np.sqrt(masses), atoms.shape[1])
    matrix = root[:, None] * kernel.reshape(root.size, root.size) * root
    for j in range(count):
        own = slice(j * dimension, (j + 1) * dimension)
        matrix[own, own] += curvature[j]
    rates, modes = np.linalg.eigh(matrix)
    bending = lag = None
    if dimension == 1:
        bending = _bending(slope[:, :, 0], bend[:, :, 0, 0])
        skew = 0.5 * np.einsum("jr,kr->jk", slope[:, :, 0], bend[:, :, 0, 0]) * masses
        lag = -np.linalg.lstsq(matrix / root[:, None] * root, skew, rcond=_DEPENDENT)[0]
    rates = without_round_off(rates)
    return Linearised(base, masses, kernel, curvature, rates, modes, _owners(modes, count), bending, lag, found)


def fixed_point(
    features: Features, atoms: FloatArray, alpha: FloatArray, occupied: IntArray, masses: FloatArray
) -> tuple[FloatArray, FloatArray, bool]:
    """Where clusters of ``masses`` (K,) at the ``occupied`` ones of the teacher's atoms come to rest, (K, d), the residual λ there (r,),
    and whether Newton's method found it, nearer to the atoms than half their least distance; else the atoms and a residual of zero."""
    least = min((float(np.linalg.norm(a - b)) for i, a in enumerate(atoms) for b in atoms[:i]), default=np.inf)
    target, atoms = features.moments(atoms, alpha), atoms[occupied]
    at, root = atoms, np.repeat(np.sqrt(masses), atoms.shape[1])
    for _ in range(_NEWTON_STEPS):
        lam = features.moments(at, masses) - target
        slope, bend = slopes(features, at), bends(features, at)
        matrix = root[:, None] * kernel_of(slope).reshape(root.size, root.size) * root
        for j, own in enumerate(np.split(np.arange(root.size), len(atoms))):
            matrix[np.ix_(own, own)] += np.einsum("rab,r->ab", bend[j], lam)
        force = root * np.einsum("jra,r->ja", slope, lam).ravel()
        step = (np.linalg.lstsq(matrix, force, rcond=1e-13)[0] / root).reshape(at.shape)
        at = at - step
        if not np.max(np.linalg.norm(at - atoms, axis=1)) < 0.5 * least:
            break
        if np.max(np.abs(step)) <= _NEWTON_TOLERANCE * (1.0 + np.max(np.abs(atoms))):
            return at, features.moments(at, masses) - target, True
    return atoms, np.zeros(features.rank), False


def _bending(slope: FloatArray, bend: FloatArray) -> FloatArray:
    """K (J, J) of ∇Φ and Φ'' (J, r) on a line."""
    _, sizes, basis = np.linalg.svd(slope, full_matrices=False)
    basis = basis[sizes > _DEPENDENT * sizes[0]]
    left = bend - (bend @ basis.T) @ basis
    return np.asarray(left @ left.T)


def _owners(modes: FloatArray, count: int) -> IntArray:
    """The cluster of each mode: d modes for each, so that most of the modes is in their own clusters."""
    from scipy.optimize import linear_sum_assignment

    dimension = len(modes) // count
    shares = np.sum(modes.reshape(count, dimension, -1) ** 2, axis=1)
    rows, columns = linear_sum_assignment(-np.repeat(shares, dimension, axis=0))
    owner = np.empty(len(modes), dtype=np.int64)
    owner[columns] = rows // dimension
    return owner


def spread_law(linearised: Linearised, variances: FloatArray, times: FloatArray) -> FloatArray:
    """Variances (T, J) on a line at ``times`` (T,) from ``variances`` (J,) at the first of them, of the law
    ds_j²/dt = −s_j² (2B_j + Σ K_jk m_k s_k²)."""
    from scipy.integrate import solve_ivp

    assert linearised.bending is not None
    matrix, linear = linearised.bending * linearised.masses, 2.0 * linearised.curvature[:, 0, 0]

    def growth(_: float, log: FloatArray) -> FloatArray:
        """d log s²/dt."""
        return np.asarray(-linear - matrix @ np.exp(np.minimum(log, 50.0)))

    span = float(times[0]), float(times[-1])
    found = solve_ivp(growth, span, np.log(variances), method="LSODA", t_eval=times, rtol=1e-8, atol=1e-8)
    return np.exp(found.y.T) if found.success else np.full((len(times), len(variances)), np.nan)
