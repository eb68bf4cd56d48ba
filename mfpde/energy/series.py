"""Smooth pair kernels as finite series of products, W(x − y) = Σ C_jk φ_j(x) φ_k(y), found by sampling.

On a grid a series gives K a low rank; atoms meet each other through its moments, so that their forces cost O(N). It is tried at random
pairs of points, and refused where it errs by more than 1e-12 of the range of W: then W is not smooth, or too narrow.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebvander

from mfpde.arrays import FloatArray
from mfpde.domain import Domain, Grid
from mfpde.energy.low_rank import LowRank
from mfpde.energy.pair_kernel import PairKernel

_MOST_RANK = {1: 48, 2: 20, 3: 20}
_MOST_FUNCTIONS = 600
_MOST_WAVES = 48
_TOLERANCE = 1e-13
_ERROR = 1e-12
_ROUND_OFF = 1e-15
_DEGREES = {1: (32, 64, 96, 128, 192, 256), 2: (10, 16, 24, 32), 3: (8, 10)}
_SAMPLES = {1: 256, 2: 48, 3: 16}
_PROBES = 2000
_ENTRIES = 1 << 17


class Series(Protocol):
    """A kernel as a series on its domain."""

    @property
    def size(self) -> int:
        """Number of functions, to which the cost of a sum over atoms is proportional."""

    @property
    def description(self) -> str:
        """For people."""

    @property
    def convex(self) -> bool:
        """Whether ½∬W is convex between measures of the same mass."""

    def form(self, grid: Grid) -> LowRank | None:
        """K on a grid, unless its rank is too high to be of use."""

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, d), as (M,)."""

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, d), as (M, d)."""


def find_series(kernel: PairKernel) -> Series | None:
    """The series of a kernel on a box with walls, or on circles only; None where there is none that is accurate."""
    with np.errstate(all="ignore"):
        if not kernel.domain.periodic.any():
            return _find_chebyshev(kernel)
        return _find_fourier(kernel) if kernel.domain.periodic.all() else None


def _most_rank(grid: Grid) -> int:
    """The highest rank of use: above, Fourier transforms are faster, or the matrix itself."""
    return min(_MOST_RANK.get(len(grid.cells), 0), grid.size // 2)


def _accurate(kernel: PairKernel, series: "ChebyshevSeries | FourierSeries") -> bool:
    domain = kernel.domain
    points = domain.lower + np.random.default_rng(5).random((2, _PROBES, domain.dimension)) * (domain.upper - domain.lower)
    points[1, : _PROBES // 4] = points[0, : _PROBES // 4] + 1e-3 * (points[1, : _PROBES // 4] - points[0, : _PROBES // 4])
    exact = kernel.values(domain.displacement(points[1], points[0]))
    error = np.max(np.abs(series.between(points[0], points[1]) - exact))
    return bool(error <= _ERROR * np.ptp(exact) + 10.0 * _ROUND_OFF * np.max(np.abs(exact)))


# --- boxes with walls ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ChebyshevSeries:
    """W(x − y) = shift + Σ C_jk T_j(x) T_k(y) with tensor products of Chebyshev polynomials below ``degree``, normalised to be
    orthonormal at their roots, and C = ``matrix`` (degree^d, degree^d). They are bounded, and so is what round-off in C does."""

    domain: Domain
    degree: int
    shift: float
    matrix: FloatArray
    noise: float

    @property
    def size(self) -> int:
        """Number of polynomials."""
        return len(self.matrix)

    @property
    def description(self) -> str:
        """For people."""
        return f"a series of {self.size} polynomials"

    @cached_property
    def _spectrum(self) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues (r,), down to 1e-13 of the largest, and eigenvectors (m − 1, r) of C without the constant polynomial."""
        values, vectors = np.linalg.eigh(self.matrix[1:, 1:])
        kept = np.abs(values) > _TOLERANCE * np.max(np.abs(values)) + self.noise
        return values[kept], vectors[:, kept]

    @property
    def convex(self) -> bool:
        """Whether no eigenvalue is negative."""
        return bool((self._spectrum[0] > 0.0).all())

    def basis(self, points: FloatArray) -> FloatArray:
        """The polynomials at points (M, d), (M, degree^d)."""
        return _chebyshev(self._scaled(points), self.degree)

    def _scaled(self, points: FloatArray) -> FloatArray:
        lower, upper = self.domain.lower, self.domain.upper
        return np.asarray((2.0 * points - lower - upper) / (upper - lower))

    def between(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """W(x − y) for pairs of points (M, d), (M,)."""
        return np.asarray(self.shift + np.sum((self.basis(x) @ self.matrix) * self.basis(y), axis=1))

    def form(self, grid: Grid) -> LowRank | None:
        """By the eigenvectors as functions; the constant polynomial is the mean part."""
        if self.size > _MOST_FUNCTIONS:
            return None
        values, vectors = self._spectrum
        if len(values) + 2 > _most_rank(grid):
            return None
        basis, mean = self.basis(grid.centers), self.matrix[0] / np.sqrt(len(self.matrix))
        mean[0] *= 0.5
        rows = (basis[:, 1:] @ (vectors * np.sqrt(np.abs(values)))).T
        return LowRank(0.5 * self.shift + basis @ mean, rows, np.sign(values), grid.weight)

    def _coefficients(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """Those of W∗ρ in the polynomials, (m,), through the moments of the atoms."""
        moments = np.zeros(len(self.matrix))
        for start in range(0, len(points), self._block):
            moments += weights[start : start + self._block] @ self.basis(points[start : start + self._block])
        return np.asarray(self.matrix @ moments)

    @property
    def _block(self) -> int:
        return max(64, _ENTRIES // len(self.matrix))

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, d), as (M,)."""
        return self.shift * float(np.sum(weights)) + self._sum(self._coefficients(points, weights), at)

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, d), as (M, d)."""
        dimension, length = self.domain.dimension, self.domain.upper - self.domain.lower
        norms = np.asarray(reduce(np.multiply.outer, [_norms(self.degree)] * dimension))
        plain = self._coefficients(points, weights).reshape(norms.shape) * norms
        slopes = np.empty((plain.size, dimension))
        for k in range(dimension):
            lowered = np.zeros_like(plain)
            lowered[(slice(None),) * k + (slice(-1),)] = chebder(plain, axis=k)
            slopes[:, k] = np.ravel(lowered / norms) * (2.0 / length[k])
        return self._sum(slopes, at)

    def _sum(self, coefficients: FloatArray, at: FloatArray) -> FloatArray:
        """Polynomials with these coefficients, (m,) or (m, d), at points (M, d)."""
        result = np.empty((len(at), *coefficients.shape[1:]))
        for start in range(0, len(at), self._block):
            result[start : start + self._block] = self.basis(at[start : start + self._block]) @ coefficients
        return result


def _find_chebyshev(kernel: PairKernel) -> ChebyshevSeries | None:
    for degree in _DEGREES.get(kernel.domain.dimension, ()):
        series = _interpolate(kernel, degree)
        if _accurate(kernel, series):
            return series
    return None


def _interpolate(kernel: PairKernel, degree: int) -> ChebyshevSeries:
    """The series that is exact between the roots of T_degree."""
    domain, line = kernel.domain, np.cos((np.arange(degree) + 0.5) * np.pi / degree)
    mesh = np.meshgrid(*[line] * domain.dimension, indexing="ij")
    roots = np.stack([coordinate.ravel() for coordinate in mesh], axis=1)
    points = domain.lower + 0.5 * (roots + 1.0) * (domain.upper - domain.lower)
    values = kernel.values((points[:, None, :] - points[None, :, :]).reshape(-1, domain.dimension))
    shift, factor = float(np.mean(values)), _chebyshev(line[:, None], degree)
    tensor = (values - shift).reshape((degree,) * (2 * domain.dimension))
    for _ in range(tensor.ndim):
        tensor = np.tensordot(tensor, factor, axes=(0, 0))
    matrix = tensor.reshape(len(points), -1)
    noise = _ROUND_OFF * np.sqrt(len(points)) * float(np.max(np.abs(values)))
    return ChebyshevSeries(domain, degree, shift, 0.5 * (matrix + matrix.T), noise)


def _norms(degree: int) -> FloatArray:
    norms = np.full(degree, np.sqrt(2.0 / degree))
    norms[0] = np.sqrt(1.0 / degree)
    return norms


def _chebyshev(t: FloatArray, degree: int) -> FloatArray:
    """Tensor products of normalised Chebyshev polynomials at t (M, d) of [−1, 1]^d, (M, degree^d)."""
    basis = np.ones((len(t), 1))
    for k in range(t.shape[1]):
        factor = chebvander(t[:, k], degree - 1) * _norms(degree)
        basis = (basis[:, :, None] * factor[:, None, :]).reshape(len(t), -1)
    return basis


# --- circles -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FourierSeries:
    """W(x) = mean + Σ amplitude_k cos(wave_k · x) with ``waves`` (r, d), of which there are at most 48."""

    mean: float
    waves: FloatArray
    amplitudes: FloatArray

    @property
    def convex(self) -> bool:
        """Whether no amplitude is negative."""
        return bool((self.amplitudes > 0.0).all())

    def between(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """W(x − y) for pairs of points (M, d), (M,)."""
        return np.asarray(self.mean + np.cos((x - y) @ self.waves.T) @ self.amplitudes)

    def form(self, grid: Grid) -> LowRank | None:
        """By cosines and sines."""
        if 2 * len(self.waves) + 1 > _most_rank(grid):
            return None
        phases = self.waves @ grid.centers.T
        sizes = np.sqrt(np.abs(self.amplitudes))[:, None]
        rows = np.concatenate([sizes * np.cos(phases), sizes * np.sin(phases)])
        return LowRank(np.full(grid.size, 0.5 * self.mean), rows, np.tile(np.sign(self.amplitudes), 2), grid.weight)

    @property
    def size(self) -> int:
        """Number of waves."""
        return len(self.waves)

    @property
    def description(self) -> str:
        """For people."""
        return f"a series of {self.size} waves"

    @property
    def _block(self) -> int:
        return max(64, _ENTRIES // max(len(self.waves), 1))

    def _moments(self, points: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Amplitudes times the cosine and the sine moments of the atoms, (r,) each."""
        cosine, sine = np.zeros(len(self.waves)), np.zeros(len(self.waves))
        for start in range(0, len(points), self._block):
            phases, share = points[start : start + self._block] @ self.waves.T, weights[start : start + self._block]
            cosine += share @ np.cos(phases)
            sine += share @ np.sin(phases)
        return self.amplitudes * cosine, self.amplitudes * sine

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, d), as (M,)."""
        cosine, sine = self._moments(points, weights)
        result = np.full(len(at), self.mean * float(np.sum(weights)))
        for start in range(0, len(at), self._block):
            phases = at[start : start + self._block] @ self.waves.T
            result[start : start + self._block] += np.cos(phases) @ cosine + np.sin(phases) @ sine
        return result

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, d), as (M, d)."""
        cosine, sine = self._moments(points, weights)
        result = np.empty(at.shape)
        for start in range(0, len(at), self._block):
            phases = at[start : start + self._block] @ self.waves.T
            result[start : start + self._block] = (np.cos(phases) * sine - np.sin(phases) * cosine) @ self.waves
        return result


def _find_fourier(kernel: PairKernel) -> FourierSeries | None:
    domain = kernel.domain
    count = _SAMPLES.get(domain.dimension)
    if count is None:
        return None
    length = domain.upper - domain.lower
    steps = np.meshgrid(*[np.fft.fftfreq(count, 1.0 / count)] * domain.dimension, indexing="ij")
    turns = np.stack([step.ravel() for step in steps], axis=1)
    values = kernel.values(turns * (length / count))
    modes = np.fft.fftn((values - np.mean(values)).reshape((count,) * domain.dimension)).real.ravel() / values.size
    kept = np.abs(modes) > 0.1 * _TOLERANCE * np.max(np.abs(modes)) + _ROUND_OFF * np.max(np.abs(values))
    first = np.array([next((step for step in turn if step != 0.0), 0.0) > 0.0 for turn in turns])
    if np.count_nonzero(kept) > _MOST_WAVES or np.any(np.abs(turns[kept]) * 2 >= count):
        return None
    chosen = kept & first
    mean = float(np.mean(values))
    mean = mean if abs(mean) > _ROUND_OFF * np.max(np.abs(values)) else 0.0
    series = FourierSeries(mean, turns[chosen] * (2.0 * np.pi / length), 2.0 * modes[chosen])
    return series if _accurate(kernel, series) else None
