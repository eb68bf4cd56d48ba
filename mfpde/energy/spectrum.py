"""How fast the modes of a density on a circle decay: ρ_t = ∂(ρ ∂δE/δρ) linearised about a stationary density.

About the uniform density 1/L with a second variation K(x − y), each Fourier mode decays by itself: with q = 2πk/L,
ρ̂_k' = −λ_k ρ̂_k, λ_k = q² K̂_k/L, K̂_k = ∫K(x) cos qx dx. For ReLU on the circle [E, Ma, Wu 2019; Theorem 4 of their slides] K̂_k = 0 for
odd k ≥ 3, so that these modes have no loss and stay: the theorem does not hold for every initial density.
"""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import ComplexArray, FloatArray
from mfpde.domain import Domain
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.features import Angle, HarmonicFeatures
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_kernel import PairKernel
from mfpde.energy.parity import parity
from mfpde.measure import Density, Measure

_SAMPLES = 512
_TURNED = 16
_INVARIANT = 1e-6
_PANELS, _HALVINGS, _NODES = 64, 40, 24
_QUADRATURE = 1e-9
_NULL = 1e-13
_FORBIDDEN = 1e-9
_SAFE = 2.0
_SOLVED = 1e-6


@dataclass(frozen=True, eq=False)
class Mode:
    """A solution e^{−rate·t} f of the linearised flow. ``number`` is its wave number about a uniform density, else its place among the
    rates. f = Re Σ_n shape_n e^{iq_n x}, and its amplitude in u is ∫gu with g = Re Σ_n dual_n e^{iq_n x}, n = 0 … M; max |f|/ρ = 1.
    """

    number: int
    rate: float
    null: bool
    shape: ComplexArray
    dual: ComplexArray


def relu_symbol(second_moment: float, count: int) -> FloatArray:
    """K̂_k, k = 0 … count, of K(φ) = E relu(x·θ)relu(x·θ') = E|x|² (sin φ + (π − φ) cos φ)/4π, 0 ≤ φ ≤ π, for isotropic x ∈ R².

    K̂_1 = πE|x|²/8, K̂_k = 2E|x|²/(π(k² − 1)²) for even k, else 0. E|x|² = r² on the circle |x| = r, and 2s² for s·N(0, I).
    """
    k = np.arange(count + 1, dtype=float)
    symbol = np.where(k % 2 == 0, 2.0 / math.pi / np.where(k == 1.0, 1.0, k * k - 1.0) ** 2, 0.0)
    symbol[1:2] = math.pi / 8.0
    return np.asarray(second_moment * symbol)


def energy_symbol(energy: EnergySum, domain: Domain, count: int) -> FloatArray:
    """K̂_k, k = 0 … count, of the second variation of an energy at the uniform density on a circle.

    Raises ValueError for a domain that is no circle, and for terms whose second variation there is no function of the difference.
    """
    if domain.dimension != 1 or not domain.periodic[0]:
        raise ValueError("modes need a domain with one axis that is periodic")
    return np.asarray(sum(_term_symbol(name, term, domain, count) for name, term in energy.terms.items()))


def resolved_modes(energy: EnergySum) -> int | None:
    """The largest wave number that all networks resolve, None where that is no matter."""
    harmonic = [term.features for term in energy.terms.values() if isinstance(term, TwoLayer)]
    return min((2 * (len(f.coefficients) - 2) for f in harmonic if isinstance(f, HarmonicFeatures)), default=None)


def _term_symbol(name: str, term: Energy, domain: Domain, count: int) -> FloatArray:
    length = domain.axes[0].length
    if isinstance(term, TwoLayer):
        return _network_symbol(name, term, domain, count)
    if isinstance(term, Interaction):
        return _kernel_symbol(name, term.kernel, length, count)
    if isinstance(term, Entropy):
        return np.full(count + 1, term.temperature * length)
    if isinstance(term, Power):
        return np.full(count + 1, term.coefficient * term.exponent * length ** (2.0 - term.exponent))
    raise ValueError(f"{name} is not known to be invariant under rotations, so that the modes of a density do not decay one by one")


def _network_symbol(name: str, term: TwoLayer, domain: Domain, count: int) -> FloatArray:
    """In closed form for ReLU; else Σ_r |Φ̂_r(k)|² of the features, by equidistant points."""
    features, length = term.features, domain.axes[0].length
    if isinstance(features, HarmonicFeatures) and isinstance(features.parameters, Angle):
        return relu_symbol((math.pi * float(features.coefficients[0])) ** 2, count)
    points = max(_SAMPLES, 8 * count)
    place = domain.lower[0] + length * np.arange(points) / points
    modes = np.fft.fft(features.evaluate(place[:, None]), axis=1) / points
    low = modes[:, np.r_[0 : _TURNED + 1, -_TURNED:0]]
    pairs = np.abs(low.conj().T @ low)
    if np.max(pairs - np.diag(np.diag(pairs))) > _INVARIANT * np.max(pairs):
        words = "so that the modes of a density do not decay one by one"
        raise ValueError(f"the inputs of {name} are not isotropic, or its features not so to {_INVARIANT:g} (`tolerance`), {words}")
    return np.asarray(length * np.sum(np.abs(modes[:, : count + 1]) ** 2, axis=0))


def _kernel_symbol(name: str, kernel: PairKernel, length: float, count: int) -> FloatArray:
    """By composite Gauss–Legendre rules on half the circle, whose panels halve towards both ends."""
    rough, fine = (_cosines(kernel, length, count, nodes) for nodes in (_NODES, _NODES + _NODES // 2))
    if np.max(np.abs(rough - fine)) > _QUADRATURE * np.max(np.abs(fine)):
        raise ValueError(f"the kernel of {name} has kinks away from 0, where its modes are not known to {_QUADRATURE:g}")
    return fine


def _cosines(kernel: PairKernel, length: float, count: int, order: int) -> FloatArray:
    half, panels = 0.5 * length, _PANELS + count
    first = half / panels * 2.0 ** -np.arange(_HALVINGS, 0, -1.0)
    edges = np.concatenate([[0.0], first, half * np.arange(1, panels) / panels, half - first[::-1], [half]])
    nodes, weights = np.polynomial.legendre.leggauss(order)
    width = 0.5 * np.diff(edges)[:, None]
    x = np.ravel(0.5 * (edges[1:] + edges[:-1])[:, None] + width * nodes)
    values = np.ravel(width * weights) * kernel.values(x[:, None])
    waves = 2.0 * math.pi * np.arange(count + 1) / length
    return np.asarray(2.0 * (np.cos(np.multiply.outer(waves, x)) @ values))


# Modes.


def null_waves(symbol: FloatArray) -> list[int]:
    """The wave numbers k ≥ 1 whose K̂_k is zero, or round-off beside the largest; ``forbidden_waves`` are those where it is zero."""
    least = _NULL * float(np.max(np.abs(symbol[1:]), initial=0.0))
    return [k for k in range(1, len(symbol)) if abs(symbol[k]) <= least]


def forbidden_waves(energy: EnergySum, domain: Domain, count: int) -> list[int]:
    """The wave numbers 1 … count of which symmetry says that K̂_k = 0 exactly: those that parity forbids the only term, a network of
    angles, to see. Other null waves may be no more than below round-off, as those of smooth activations at high k are."""
    term = next(iter(energy.terms.values()))
    if len(energy.terms) > 1 or not isinstance(term, TwoLayer) or term.examples is None or not isinstance(term.examples.parameters, Angle):
        return []
    grid = domain.grid((4 * (count + 1),))
    try:
        symmetry = parity(term).on(grid)
    except ValueError:
        return []
    waves = np.exp(1j * np.multiply.outer(np.arange(1, count + 1), grid.centers[:, 0]))
    return [
        k for k, wave in enumerate(waves, 1) if max(np.max(np.abs(symmetry.seen(part))) for part in (wave.real, wave.imag)) < _FORBIDDEN
    ]


def uniform_modes(symbol: FloatArray, length: float, count: int) -> list[Mode]:
    """The modes cos qx, k = 1 … count, about the uniform density: λ_k = q² K̂_k/L."""
    null, found = null_waves(symbol), []
    for k in range(1, count + 1):
        wave = np.zeros(k + 1, dtype=complex)
        wave[k] = 1.0
        rate = 0.0 if k in null else (2.0 * math.pi * k / length) ** 2 * float(symbol[k]) / length
        found.append(Mode(k, rate, k in null, np.asarray(wave / length, dtype=complex), wave))
    return found


def teacher_modes(symbol: FloatArray, density: FloatArray, length: float, count: int) -> list[Mode]:
    """The ``count`` fastest modes about a positive density ρ*, given at the points x = iL/P, (P,), by a network without
    residual there: f ↦ −∂(ρ* ∂(K∗f)), which couples Fourier modes up to M, one less than the length of K̂ = ``symbol`` (M + 1,).

    With A_jk = q_j q_k ρ̂*_{j−k} and Q = diag K̂ the rates are the eigenvalues of √Q A √Q. Raises ValueError where ρ* is not positive, or
    P < 4M.
    """
    most = len(symbol) - 1
    if not np.min(density) > 0.0 or len(density) < 4 * most:
        raise ValueError("modes need a positive density at at least four points for each wave number")
    root = np.sqrt(np.tile(np.maximum(symbol[1:], 0.0), 2))
    stiffness = _stiffness(np.fft.fft(density) / len(density), most, length)
    rates, vectors = np.linalg.eigh(root[:, None] * stiffness * root)
    found = []
    for place in range(1, count + 1):
        vector = root * vectors[:, -place]
        shape, dual = _series(stiffness @ vector, most), _series(vector, most)
        spread = float(np.max(np.abs(series_values(shape, len(density))) / density))
        rate = float(rates[-place])
        null = not rate > _NULL * float(rates[-1])
        found.append(Mode(place, 0.0 if null else rate, null, shape / (spread or 1.0), dual))
    return found


def _stiffness(modes: ComplexArray, most: int, length: float) -> FloatArray:
    """∫ρ* ∂φ_j ∂φ_k between the functions √2 cos q_k x, then √2 sin q_k x, divided by L, (2M, 2M); ``modes`` are those of ρ*."""
    k = np.arange(1, most + 1)
    waves = 2.0 * math.pi * k / length
    near, far = modes[k[:, None] - k], modes[k[:, None] + k]
    scale = waves[:, None] * waves
    cosines, sines = near.real - far.real, near.real + far.real
    mixed = near.imag + far.imag
    return np.asarray(np.block([[scale * cosines, scale * mixed], [(scale * mixed).T, scale * sines]]))


def _series(vector: FloatArray, most: int) -> ComplexArray:
    """Coefficients of √2 cos and √2 sin as those of e^{iq_n x}, of which the real part is meant."""
    waves = math.sqrt(2.0) * (vector[:most] - 1j * vector[most:])
    return np.concatenate([[0.0], waves])


def series_values(series: ComplexArray, points: int) -> FloatArray:
    """Re Σ_n c_n e^{iq_n x} at equidistant points, (points,)."""
    padded = np.zeros(points, dtype=complex)
    padded[: len(series)] = series
    return np.asarray(np.fft.ifft(padded).real * points)


def second_order(symbol: FloatArray, length: float, waves: tuple[int, int]) -> float:
    """The final amplitude of the null mode k = i + j in Lρ that 1 + cos q_i x + cos q_j x (or 1 + cos q_i x where i = j) creates, of second
    order: times the product of the amplitudes.

    From ρ̂_k' = −λ_k ρ̂_k − Σ_j q_k q_j K̂_j ρ̂_j ρ̂_{k−j} with ρ̂_i, ρ̂_j decaying at their rates.
    """
    i, j = waves
    q = 2.0 * math.pi / length
    rates = [(q * n) ** 2 * float(symbol[n]) / length for n in (i, j)]
    pushes = i * float(symbol[i]) + (j * float(symbol[j]) if i != j else 0.0)
    return -0.5 * q * q * (i + j) * pushes / (length * sum(rates))


def still_to_come(density: ComplexArray, away: ComplexArray, null: list[int], length: float) -> FloatArray:
    """By how much the ``null`` modes of a network's flow can still change, as |Δρ̂_k|, from ``density`` ρ̂_n, n = 0 … 2M, and
    ``away`` ρ̂_n − ρ̂*_n, n = 0 … M; infinite where this cannot be said.

    While the visible part u of ρ − ρ* decays, ρ moves by ∂(ρ∂ψ) with ψ = ∫K∗u dt, whose visible part is −u and gives ψ: no rate is needed.
    About the uniform density |Δρ̂_k| <= Σ_j (q_k/q_j)|û_j ρ̂_{k−j}|. This is of first order in u, for ρ as it is now; twice that is returned,
    and it is a bound where u is small.
    """
    most = len(away) - 1
    padded = np.asarray(np.concatenate([density, density[:0:-1].conj()]) / length, dtype=complex)
    matrix = _stiffness(padded, most, length)
    seen = np.array([k for k in range(1, most + 1) if k not in null], dtype=int)
    rows, columns = (np.concatenate([waves - 1, waves - 1 + most]) for waves in (np.array(null, dtype=int), seen))
    left = np.concatenate([away[seen].real, -away[seen].imag])
    inverse = np.linalg.pinv(matrix[np.ix_(columns, columns)], hermitian=True)
    if np.linalg.norm(matrix[np.ix_(columns, columns)] @ (inverse @ left) - left) > _SOLVED * np.linalg.norm(left):
        return np.full(len(null), np.inf)
    pushes = (matrix[np.ix_(rows, columns)] @ inverse).reshape(2, len(null), 2, len(seen)).transpose(1, 3, 0, 2)
    return np.asarray(_SAFE * np.linalg.norm(pushes, 2, axis=(2, 3)) @ np.abs(away[seen]))


# Measures.


def harmonics(measure: Measure, length: float, count: int) -> ComplexArray:
    """∫e^{−iq_n x}dρ of a measure of mass one, n = 0 … count; cell averages are taken for those of a smooth density."""
    weights, points = measure.weights / np.sum(measure.weights), measure.points[:, 0]
    waves = 2.0 * math.pi * np.arange(count + 1) / length
    sums = np.exp(-1j * np.multiply.outer(waves, points)) @ weights
    if isinstance(measure, Density):
        sums = sums / np.sinc(np.arange(count + 1) / measure.grid.size)
    return np.asarray(sums)
