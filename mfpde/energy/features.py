"""Features Φ: Ω → R^r with E_x σ(x·θ)σ(x·θ') = Φ(θ)·Φ(θ') to a stated tolerance.

Every two-layer energy is ½|∫Φ dρ − b|² + c₀, so all that a solver needs passes through r numbers. Smooth activations on any
input law: r inputs are chosen among the quadrature nodes (interpolative decomposition by pivoted QR) and recombined by an
r × r matrix. ReLU on isotropic pairs of inputs: Fourier modes in the angle, whose coefficients are known exactly.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mfpde.arrays import ComplexArray, FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.inputs import Rule
from mfpde.measure import lattice

_BLOCK = 1 << 16
_MANY_PAIRS = 1 << 18
"""So many pairs of an atom and an input cost more in numpy, in a run of some hundred steps, than bringing the compiler."""
_PROBES = {1: 240, 2: 700, 3: 1200}
_SKETCH = 400
_CANDIDATES = 4000
_TALL = 5000


class Parameters(Protocol):
    """How a point of the domain gives the vector that meets the input."""

    def vectors(self, points: FloatArray) -> FloatArray:
        """Vectors (N, D) of points (N, d)."""

    def pull(self, points: FloatArray, gradient: FloatArray) -> FloatArray:
        """Gradient (N, d) along the domain of a function whose gradient in R^D is ``gradient`` (N, D)."""


@dataclass(frozen=True)
class Vector:
    """The point is the vector θ itself."""

    def vectors(self, points: FloatArray) -> FloatArray:
        """θ."""
        return points

    def pull(self, points: FloatArray, gradient: FloatArray) -> FloatArray:
        """The gradient itself."""
        return gradient


@dataclass(frozen=True)
class Angle:
    """The point is the angle θ of the unit vector (cos θ, sin θ)."""

    def vectors(self, points: FloatArray) -> FloatArray:
        """(cos θ, sin θ)."""
        return np.concatenate([np.cos(points), np.sin(points)], axis=1)

    def pull(self, points: FloatArray, gradient: FloatArray) -> FloatArray:
        """The part of the gradient along the circle."""
        turned = gradient[:, 1:] * np.cos(points) - gradient[:, :1] * np.sin(points)
        return np.asarray(turned)


class Features(Protocol):
    """A map Φ with what particles and grids ask of it."""

    @property
    def rank(self) -> int:
        """r."""

    @property
    def description(self) -> str:
        """How it was made and how accurate it is, for people."""

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (r, N)."""

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (r,)."""

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,), without an array of all features."""

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d)."""


@dataclass(frozen=True, eq=False)
class InterpolatedFeatures:
    """Φ(θ) = mixing · σ(nodes · θ): r chosen inputs ``nodes`` (r, D) and an r × r ``mixing`` matrix."""

    activation: Activation
    parameters: Parameters
    nodes: FloatArray
    mixing: FloatArray
    description: str

    @property
    def rank(self) -> int:
        """Number of features r."""
        return len(self.mixing)

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (r, N)."""
        result = np.empty((self.rank, len(points)))
        for part in _blocks(len(points), len(self.nodes)):
            result[:, part] = self.mixing @ self.activation.value(self.nodes @ self.parameters.vectors(points[part]).T)
        return result

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (r,)."""
        return np.asarray(self.mixing @ network_values(self.activation, self.parameters.vectors(points), weights, self.nodes))

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,): the network's sums with inputs and neurons exchanged."""
        return network_values(self.activation, self.nodes, lam @ self.mixing, self.parameters.vectors(points))

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d)."""
        slopes = _slopes(self.activation, self.parameters.vectors(points), self.nodes, lam @ self.mixing)
        return self.parameters.pull(points, slopes)


@dataclass(frozen=True, eq=False)
class SampledFeatures:
    """Φ_q(θ) = scale_q σ(x_q·θ), q = 1 … Q: all inputs ``nodes`` (Q, D) as they are, with the roots of their weights as ``scale`` (Q,).

    Nothing of size Q × N or Q × Q is kept; only ``evaluate`` returns such an array.
    """

    activation: Activation
    parameters: Parameters
    nodes: FloatArray
    scale: FloatArray
    description: str

    @property
    def rank(self) -> int:
        """The number of inputs Q."""
        return len(self.scale)

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (Q, N)."""
        result = np.empty((self.rank, len(points)))
        for part in _blocks(len(points), self.rank):
            values = self.activation.value(self.nodes @ self.parameters.vectors(points[part]).T)
            np.multiply(values, self.scale[:, None], out=result[:, part])
        return result

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (Q,)."""
        return self.scale * network_values(self.activation, self.parameters.vectors(points), weights, self.nodes)

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,)."""
        return network_values(self.activation, self.nodes, self.scale * lam, self.parameters.vectors(points))

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d)."""
        slopes = _slopes(self.activation, self.parameters.vectors(points), self.nodes, self.scale * lam)
        return self.parameters.pull(points, slopes)


def _blocks(count: int, inputs: int) -> list[slice]:
    """Atoms that are taken together in numpy, so that the array of all pairs stays small."""
    block = max(64, _BLOCK // inputs)
    return [slice(k, k + block) for k in range(0, count, block)]


def _is_dense(activation: Activation, vectors: FloatArray, inputs: FloatArray) -> bool:
    return len(vectors) * len(inputs) >= _MANY_PAIRS and ACTIVATIONS.get(activation.name) is activation


def network_values(activation: Activation, vectors: FloatArray, weights: FloatArray, inputs: FloatArray) -> FloatArray:
    """Σ_j w_j σ(x_q·θ_j) at inputs (Q, D), (Q,), of neurons ``vectors`` (N, D) with ``weights`` (N,)."""
    if _is_dense(activation, vectors, inputs):
        from mfpde.energy.dense import neuron_sums  # which brings the compiler

        return neuron_sums(activation.name, vectors, weights, inputs)
    total = np.zeros(len(inputs))
    for part in _blocks(len(vectors), len(inputs)):
        total += activation.value(inputs @ vectors[part].T) @ weights[part]
    return total


def _slopes(activation: Activation, vectors: FloatArray, inputs: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Σ_q c_q σ'(x_q·θ_j) x_q of neurons ``vectors`` (N, D), as (N, D)."""
    if _is_dense(activation, vectors, inputs):
        from mfpde.energy.dense import neuron_slopes  # which brings the compiler

        return neuron_slopes(activation.name, vectors, inputs, coefficients)
    result = np.empty_like(vectors)
    steered = (inputs * coefficients[:, None]).T
    for part in _blocks(len(vectors), len(inputs)):
        result[part] = (steered @ activation.pair(inputs @ vectors[part].T)[1]).T
    return result


@dataclass(frozen=True, eq=False)
class HarmonicFeatures:
    """ReLU under an isotropic law of pairs x: relu(x·θ) = |x||θ| Σ_k c_k cos k(α_x − α_θ) gives the features
    Φ = √E|x|² |θ| (c_0, c_k/√2 cos kα, c_k/√2 sin kα), α being the angle of θ and k = 1, 2, 4, 6, …

    c_0 = 1/π, c_1 = 1/2, c_{2m} = 2(−1)^{m+1}/(π(4m² − 1)); the other odd ones vanish. ``coefficients`` holds what stands before
    the cosines, in that order; sums over the modes are complex polynomials in e^{2iα}.
    """

    parameters: Parameters
    coefficients: FloatArray
    description: str

    @property
    def rank(self) -> int:
        """Number of features r: one for the mean, two for each other mode."""
        return 2 * len(self.coefficients) - 1

    def _polar(self, points: FloatArray) -> tuple[FloatArray, ComplexArray]:
        """|θ| and e^{iα}; α = 0 at the origin."""
        vectors = self.parameters.vectors(points)
        vector = vectors[:, 0] + 1j * vectors[:, 1]
        radius = np.abs(vector)
        return radius, np.divide(vector, radius, out=np.ones_like(vector), where=radius > 0.0)

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (r, N): all cosines, then the sines."""
        radius, turn = self._polar(points)
        orders = np.concatenate([[0.0, 1.0], 2.0 * np.arange(1, len(self.coefficients) - 1)])
        waves = self.coefficients[:, None] * radius * np.exp(1j * np.multiply.outer(orders, np.angle(turn)))
        return np.concatenate([waves.real, waves.imag[1:]])

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (r,)."""
        radius, turn = self._polar(points)
        mass = weights * radius
        power, square = mass.astype(complex), turn * turn
        sums = [complex(np.sum(mass)), complex(mass @ turn)]
        for _ in range(len(self.coefficients) - 2):
            np.multiply(power, square, out=power)
            sums.append(complex(np.sum(power)))
        waves = self.coefficients * np.array(sums)
        return np.concatenate([waves.real, waves.imag[1:]])

    def _modes(self, lam: FloatArray) -> ComplexArray:
        """The coefficients of e^{ikα} in Φ·λ/|θ|, of which the real part is meant."""
        count = len(self.coefficients)
        return np.asarray(self.coefficients * (lam[:count] - 1j * np.concatenate([[0.0], lam[count:]])))

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,), by Horner's rule."""
        radius, turn = self._polar(points)
        modes, square = self._modes(lam), turn * turn
        total = np.zeros_like(square)
        for mode in modes[:1:-1]:
            total = (total + mode) * square
        return np.asarray(radius * (total + modes[0] + modes[1] * turn).real)

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d); its radial and its angular part by Horner's rule."""
        _, turn = self._polar(points)
        count, modes = len(self.coefficients), self._modes(lam)
        square = turn * turn
        along, across = np.zeros_like(square), np.zeros_like(square)
        for m in range(count - 2, 0, -1):
            along = (along + modes[m + 1]) * square
            across = (across + 2j * m * modes[m + 1]) * square
        along = along + modes[0] + modes[1] * turn
        across = across + 1j * modes[1] * turn
        vector = (along.real + 1j * across.real) * turn
        return self.parameters.pull(points, np.stack([vector.real, vector.imag], axis=1))


def harmonic_features(parameters: Parameters, second_moment: float, tolerance: float) -> HarmonicFeatures:
    """Modes up to where the rest of a unit atom's energy, about 0.0042 m⁻³ with m = k/2, is below ``tolerance``."""
    pairs = min(max(math.ceil((0.0042 / tolerance) ** (1.0 / 3.0)), 16), 4000)
    m = np.arange(1, pairs + 1, dtype=float)
    waves = np.concatenate([[0.5], 2.0 / math.pi * (-1.0) ** (m + 1) / (4.0 * m * m - 1.0)]) / math.sqrt(2.0)
    coefficients = math.sqrt(second_moment) * np.concatenate([[1.0 / math.pi], waves])
    left = second_moment * 0.0042 / pairs**3
    described = f"{len(coefficients)} exact angular modes, the rest is {left:.0e} of the energy"
    return HarmonicFeatures(parameters, coefficients, described)


def probe_points(domain: Domain, count: int) -> FloatArray:
    """Up to 2 · ``count`` points (M, d) that fill the domain: a golden-ratio lattice that crowds at the ends (arcsine law), and the
    same drawn towards zero by factors 1 … 1e-3, where θ ↦ σ(x·θ) varies fastest for large x."""
    unit = lattice(count, domain.dimension)
    spread = domain.spread(0.5 * (1.0 - np.cos(np.pi * unit)))
    return np.concatenate([spread, _towards_zero(spread, domain)])


def _towards_zero(points: FloatArray, domain: Domain) -> FloatArray:
    factors = 10.0 ** (-3.0 * np.mod(0.5 + 0.6180339887498949 * np.arange(len(points)), 1.0))
    drawn = points * factors[:, None]
    return np.asarray(drawn[domain.contains(drawn)])


def interpolated_features(
    activation: Activation, parameters: Parameters, rule: Rule, domain: Domain, extra: FloatArray, tolerance: float
) -> tuple[InterpolatedFeatures, FloatArray]:
    """Choose r of the rule's inputs so that σ at all the others follows from σ at these, for θ in ``domain`` or ``extra`` (K, d).

    Returns the features and the matrix ``fit`` (Q, r) with √w σ(x·θ) = fit · σ(chosen inputs), which projects targets given as data.
    The probes of the domain are doubled until the error between them, relative in L²(μ), is below ``tolerance``; not for activations with
    a kink in three dimensions and more, of which more probes show little and take long.
    """
    count = _PROBES.get(domain.dimension, 4000)
    most = count if activation.kink and domain.dimension >= 3 else 4 * count
    while True:
        probes = np.concatenate([probe_points(domain, count), extra])
        features, fit = _interpolated(activation, parameters, rule, probes, tolerance)
        error = _compression_error(features, rule, fit, domain)
        if error <= tolerance or count >= most or features.rank == len(rule.weights):
            break
        count *= 2
    described = f"{len(rule.weights)} inputs compressed to rank {features.rank} (error {error:.0e})"
    return InterpolatedFeatures(activation, parameters, features.nodes, features.mixing, described), fit


def _interpolated(
    activation: Activation, parameters: Parameters, rule: Rule, probes: FloatArray, tolerance: float
) -> tuple[InterpolatedFeatures, FloatArray]:
    """Choose inputs by pivoted QR of √w σ(x·θ) in the input index, then fit all inputs to the chosen ones by least squares.

    Returns Φ = mixing · σ(chosen inputs), mixing being the triangular factor of the fit (Q, r), and the fit.
    """
    from scipy.linalg import solve_triangular

    vectors = parameters.vectors(probes)
    root = np.sqrt(rule.weights)
    candidates = _candidates(root)
    values = root[candidates, None] * activation.value(rule.nodes[candidates] @ vectors.T)
    chosen = candidates[pivots(values, tolerance)]
    held, upper = np.linalg.qr((root[chosen, None] * activation.value(rule.nodes[chosen] @ vectors.T)).T)
    fit = np.empty((len(root), len(chosen)))
    block = max(1, (1 << 22) // len(vectors))
    for k in range(0, len(root), block):
        part = slice(k, k + block)
        fit[part] = (root[part, None] * activation.value(rule.nodes[part] @ vectors.T)) @ held
    fit = solve_triangular(upper, fit.T).T * root[chosen]
    return InterpolatedFeatures(activation, parameters, rule.nodes[chosen], triangular_factor(fit), ""), fit


def triangular_factor(matrix: FloatArray) -> FloatArray:
    """R of the QR decomposition of a tall matrix (Q, r); for very tall ones by Cholesky factors twice, which are products only."""
    if len(matrix) > _TALL:
        try:
            first = np.linalg.cholesky(matrix.T @ matrix).T
            left = np.linalg.solve(first.T, matrix.T)
            return np.asarray(np.linalg.cholesky(left @ left.T).T @ first)
        except np.linalg.LinAlgError:
            pass
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def _candidates(root: FloatArray) -> IntArray:
    """Indices of the inputs to choose from: all, or _CANDIDATES drawn in proportion to the root of their weights."""
    if len(root) <= _CANDIDATES:
        return np.arange(len(root))
    drawn = np.random.default_rng(2).choice(len(root), size=_CANDIDATES, replace=False, p=root / np.sum(root))
    return np.sort(drawn)


def pivots(values: FloatArray, tolerance: float) -> IntArray:
    """Rows of ``values`` (Q, M) that span all the others to ``tolerance``, by pivoted QR of a random sketch."""
    from scipy.linalg import qr

    most = min(values.shape)
    width = min(most, _SKETCH)
    while True:
        sketch = values
        if width < values.shape[1]:
            sketch = values @ np.random.default_rng(0).standard_normal((values.shape[1], width)) / math.sqrt(width)
        upper, order = qr(sketch.T, mode="r", pivoting=True)
        diagonal = np.abs(np.diag(upper))
        rank = max(1, int(np.sum(diagonal > 0.2 * tolerance * diagonal[0])))
        if rank < 0.9 * width or width >= most:
            return np.asarray(order[:rank])
        width = min(2 * width, most)


def _compression_error(features: InterpolatedFeatures, rule: Rule, fit: FloatArray, domain: Domain) -> float:
    """Largest relative L²(μ) error at random points of the domain, half of them drawn towards zero."""
    spread = domain.spread(np.random.default_rng(1).random((60, domain.dimension)))
    points = np.concatenate([spread, _towards_zero(spread, domain)])
    vectors = features.parameters.vectors(points)
    exact = np.sqrt(rule.weights)[:, None] * features.activation.value(rule.nodes @ vectors.T)
    gap = np.linalg.norm(exact - fit @ features.activation.value(features.nodes @ vectors.T), axis=0)
    return float(np.max(gap) / np.max(np.linalg.norm(exact, axis=0)))
