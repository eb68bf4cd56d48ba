"""The exact minimiser of ½E(∫relu(u·x)ν(du) − y)² + λ|ν|(S^{d−1}) over signed measures ν, y being a network of finitely many neurons.

relu is homogeneous, a relu(w·x) = a|w| relu(ŵ·x), so that this is the problem min E(π) + λ∫|a||w|dπ(a, w) over measures of neurons (a, w)
[slides of Wu on the mean-field theory of networks, "Convergence in the teacher-student setting"; Bach 2017], with ½ before the square.

Sliding conditional gradients [Bredies–Pikkarainen 2013; Denoyelle–Duval–Peyré–Soubies 2019]: the peaks of the certificate beyond λ become
neurons, a least squares problem with signs gives the weights, and Newton's method in the vectors v = |w|u moves both. Each round ends with
the duality gap.
"""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.sparse.certificate import Peaks, find_peaks, hessians, tangents
from mfpde.sparse.network import Network, mixed_slopes
from mfpde.tables import counted

_ROUNDS = 24
_NEWTON = 40
_MOST = 40
_STALE = 6
_MERGED = (1e-6, 1e-3, 1e-2, 0.1, 0.3)
_LEAST_SHARE = 1e-12
_OWN_PEAK = 1e-4
_NOISE = 1e-14
_ROUND_OFF = 2e-15
MOST_NEURONS = 100
"""Of a minimiser; the search ends before."""
_OTHER = "use another λ or teacher"


@dataclass(frozen=True, eq=False)
class SparseProblem:
    """The ``teacher`` y and the strength λ. Raises ValueError unless λ is positive and finite."""

    teacher: Network
    strength: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and self.strength > 0.0):
            raise ValueError(f"the strength λ of the penalty must be positive, got {self.strength}")

    def value(self, network: Network) -> float:
        """J = ½E(f − y)² + λ Σ|q_j||z_j|."""
        return 0.5 * self.teacher.minus(network).square() + self.strength * float(np.sum(np.abs(network.masses)))


@dataclass(frozen=True, eq=False)
class SparseSolution:
    """``points`` u_k on the sphere (K, d) and ``weights`` (K,) of ν, with J* = ``value``.

    ``gap``: an upper bound of J − min J divided by J, from the dual problem, as far as ``peaks`` holds the highest peak of |η|.
    """

    problem: SparseProblem
    points: FloatArray
    weights: FloatArray
    value: float
    gap: float
    peaks: Peaks

    @property
    def network(self) -> Network:
        """f."""
        return Network(self.points, self.weights, self.problem.teacher.moment)

    @property
    def residual(self) -> Network:
        """y − f, whose correlation is the certificate η."""
        return self.problem.teacher.minus(self.network)

    @property
    def other_peaks(self) -> Peaks:
        """The peaks of |η| where no neuron is."""
        signs = np.sign(self.weights)
        off = np.array(
            [
                not np.any((np.linalg.norm(point - self.points, axis=1) < _OWN_PEAK) & (sign == signs))
                for point, sign in zip(self.peaks.points, self.peaks.signs, strict=True)
            ],
            dtype=bool,
        )
        return Peaks(self.peaks.points[off], self.peaks.signs[off], self.peaks.levels[off])

    @property
    def level_elsewhere(self) -> float:
        """max|η|/λ over the peaks where no neuron is; below 1 for a non-degenerate minimiser."""
        return self.other_peaks.highest / self.problem.strength

    @property
    def curvatures(self) -> FloatArray:
        """The eigenvalues of minus the Hessian of sη on the sphere at each neuron of sign s, (K, d − 1), increasing."""
        basis, signs = tangents(self.points), np.sign(self.weights)
        hessian = np.einsum("kab,kac,kcd->kbd", basis, hessians(self.residual, self.points), basis)
        return np.asarray(np.linalg.eigvalsh(-signs[:, None, None] * hessian))

    @property
    def nondegenerate(self) -> bool:
        """Whether |η| < λ where no neuron is, |η| has a strict maximum of second order at each, and their functions are independent."""
        if not len(self.points):
            return self.level_elsewhere < 1.0 - 1e-9
        gram = self.problem.teacher.kernel.matrix(self.points, self.points)
        curved = bool(np.all(self.curvatures > 1e-9 * self.problem.strength))
        return curved and self.level_elsewhere < 1.0 - 1e-9 and float(np.linalg.eigvalsh(gram)[0]) > 1e-9 * self.problem.teacher.moment


def solve_sparse(problem: SparseProblem, tolerance: float = 1e-12, accepted: float = 0.0) -> SparseSolution:
    """The minimiser, to a duality gap of ``tolerance`` · J or to the round-off of J, 2e-15 E y².

    Where neurons split without end, the best measure of at most 100 neurons if its gap is ``accepted`` · J at most: its J is that close to
    the minimum, but it often has more neurons than a minimiser needs. Raises StepFailed where neither is reached.
    """
    dimension = problem.teacher.vectors.shape[1]
    best = found = _judged(problem, np.zeros((0, dimension)), np.zeros(0))
    stale = 0
    for _ in range(_ROUNDS):
        if found.gap <= max(tolerance, _noise(found)) and len(found.points) <= MOST_NEURONS:
            return found
        if len(found.points) > _MOST or (stale >= _STALE and best.gap <= accepted):
            break
        found = _improved(problem, found)
        better = found.gap < best.gap and len(found.points) <= MOST_NEURONS
        best, stale = (found, 0) if better else (best, stale + 1)
    if best.gap <= max(tolerance, _noise(best), accepted):
        return best
    raise StepFailed(Status.NOT_CONVERGED, _why_not(found, best, tolerance))


def _improved(problem: SparseProblem, found: SparseSolution) -> SparseSolution:
    """One round."""
    new = found.peaks.levels > problem.strength
    own = found.other_peaks.points
    more = np.array([bool(np.any(np.all(own == point, axis=1))) for point in found.peaks.points], dtype=bool) & new
    points = np.concatenate([found.points, found.peaks.points[more]])
    signs = np.concatenate([np.sign(found.weights), found.peaks.signs[more]])
    weights = _signed_lasso(problem, points, signs)
    kept = weights > 0.0
    vectors, signs = _slide(problem, weights[kept, None] * points[kept], signs[kept])
    return _judged(problem, *_simplified(problem, vectors, signs))


def _noise(found: SparseSolution) -> float:
    """The round-off of the gap, which comes from differences of numbers as large as E y²."""
    return _ROUND_OFF * found.problem.teacher.square() / found.value if found.value > 0.0 else 0.0


def _why_not(last: SparseSolution, best: SparseSolution, tolerance: float) -> str:
    problem = best.problem
    words = (
        f"the minimiser for λ = {problem.strength:g} and E y² = {problem.teacher.square():.3g} is found to a gap of {best.gap:.1e} J only"
    )
    words += f", more than {max(tolerance, _noise(best)):.0e}"
    if len(last.points) > _MOST:
        why = "the certificate is nearly λ on whole sets, where neurons split without end"
        return f"{words}, and has {len(last.points)} neurons: {why}; {_OTHER}"
    if best.gap <= 100.0 * _noise(best):
        return f"{words}: J* is {best.value:.1e}, and round-off of E y² hides smaller gaps; use a larger λ"
    return f"{words}, with {counted(len(best.points), 'neuron')} after {counted(_ROUNDS, 'round')}; {_OTHER}"


def _judged(problem: SparseProblem, vectors: FloatArray, signs: FloatArray) -> SparseSolution:
    """The solution with its peaks and its gap: J less the dual value of min(1, λ/max|η|)(y − f), written without cancellation."""
    size = np.linalg.norm(vectors, axis=1)
    points, strength = vectors / size[:, None], problem.strength
    network = Network(points, signs * size, problem.teacher.moment)
    residual = problem.teacher.minus(network)
    peaks = find_peaks(residual, points)
    highest = max(peaks.highest, float(np.max(np.abs(residual.correlation(points)), initial=0.0)))
    factor = min(1.0, strength / highest) if highest > 0.0 else 1.0
    square, agreed = residual.square(), float(network.coefficients @ residual.correlation(points))
    gap = 0.5 * (1.0 - factor) ** 2 * square + strength * float(np.sum(size)) - factor * agreed
    value = problem.value(network)
    return SparseSolution(problem, points, network.coefficients, value, abs(gap) / value if value > 0.0 else 0.0, peaks)


def _signed_lasso(problem: SparseProblem, points: FloatArray, signs: FloatArray) -> FloatArray:
    """The weights |w| (K,) ≥ 0 of neurons at fixed points (K, d) with fixed signs: min ½|w|ᵀG|w| − (s∘b − λ)·|w|."""
    from scipy.optimize import nnls

    gram = signs[:, None] * problem.teacher.kernel.matrix(points, points) * signs
    linear = signs * problem.teacher.correlation(points) - problem.strength
    gram[np.diag_indices_from(gram)] *= 1.0 + 1e-13
    values, basis = np.linalg.eigh(gram)
    values = np.maximum(values, 1e-14 * float(np.max(values)))
    return np.asarray(nnls(np.sqrt(values)[:, None] * basis.T, (basis.T @ linear) / np.sqrt(values), maxiter=100 * len(points))[0])


def _slide(problem: SparseProblem, vectors: FloatArray, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Newton's method in all v_k, with the Hessian made positive definite and steps that lower J; neurons that vanish are left out."""
    noise = _NOISE * problem.teacher.square()
    for _ in range(_NEWTON):
        if not len(vectors):
            break
        value, slope, hessian = _expanded(problem, vectors, signs)
        values, basis = np.linalg.eigh(hessian)
        values = np.maximum(np.abs(values), 1e-13 * float(np.max(np.abs(values))))
        step = -(basis @ ((basis.T @ slope.ravel()) / values)).reshape(vectors.shape)
        size = 1.0
        while size > 1e-6:
            moved = vectors + size * step
            if np.all(np.linalg.norm(moved, axis=1) > 0.0) and _objective(problem, moved, signs) <= value + noise:
                break
            size *= 0.5
        else:
            break
        vectors = moved
        length = np.linalg.norm(vectors, axis=1)
        kept = length > _LEAST_SHARE * float(np.sum(length))
        vectors, signs = vectors[kept], signs[kept]
        if float(np.max(np.abs(step))) <= 1e-15 * float(np.max(length)):
            break
    return vectors, signs


def _objective(problem: SparseProblem, vectors: FloatArray, signs: FloatArray) -> float:
    return problem.value(Network(vectors, signs, problem.teacher.moment))


def _expanded(problem: SparseProblem, vectors: FloatArray, signs: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """J as a function of the v_k, its gradient (K, d) and its Hessian (K d, K d)."""
    count, dimension = vectors.shape
    network = Network(vectors, signs, problem.teacher.moment)
    residual = problem.teacher.minus(network)
    unit, length = network.directions, network.lengths
    slope = problem.strength * unit - signs[:, None] * residual.correlation_and_slope(vectors)[1]
    blocks = signs[:, None, None, None] * signs[None, :, None, None] * mixed_slopes(vectors, vectors, problem.teacher.moment)
    flat = (np.eye(dimension) - unit[:, :, None] * unit[:, None, :]) / length[:, None, None]
    blocks[np.arange(count), np.arange(count)] += problem.strength * flat - signs[:, None, None] * residual.curvature(vectors)
    hessian = blocks.transpose(0, 2, 1, 3).reshape(count * dimension, count * dimension)
    return problem.value(network), slope, 0.5 * (hessian + hessian.T)


def _simplified(problem: SparseProblem, vectors: FloatArray, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Neurons of one sign that are close become one, where that and Newton's method do not raise J."""
    value = _objective(problem, vectors, signs) if len(vectors) else 0.0
    for radius in _MERGED:
        fewer = _merged(vectors, signs, radius)
        if len(fewer[1]) < len(signs):
            fewer = _slide(problem, *fewer)
            if (level := _objective(problem, *fewer)) <= value + _NOISE * problem.teacher.square():
                (vectors, signs), value = fewer, level
    return vectors, signs


def _merged(vectors: FloatArray, signs: FloatArray, radius: float) -> tuple[FloatArray, FloatArray]:
    """Neurons of one sign that are within ``radius`` of the first of them become one."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, out, kept = list(range(len(vectors))), [], []
    while left:
        k = left[0]
        same = [j for j in left if signs[j] == signs[k] and np.linalg.norm(unit[j] - unit[k]) < radius]
        out.append(np.sum(vectors[same], axis=0))
        kept.append(signs[k])
        left = [j for j in left if j not in same]
    return (np.array(out), np.array(kept)) if out else (vectors, signs)
