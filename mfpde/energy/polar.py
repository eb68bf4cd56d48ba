"""Two-layer energies on polar grids, where isotropic pairs of inputs make the kernel a convolution in the angle.

With x = s(cos α, sin α) and θ = r(cos φ, sin φ), σ(x·θ) = Σ_m c_m(sr) e^{im(α−φ)}, c_m(z) = (1/2π)∫σ(z cos ψ) cos mψ dψ. If α is
uniform and independent of s, the expectation over α is Parseval's identity, and E = ½ Σ_{m≥0} |∫F_m(r) e^{−imφ} dρ − t_m|², where F_m
stacks √(g_m w_s) c_m(sr) over a quadrature of s (g_0 = 1, else g_m = 2) and t_m holds the same integrals of the teacher.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import ComplexArray, FloatArray, IntArray
from mfpde.disk import PolarGrid
from mfpde.energy.activations import Activation
from mfpde.energy.features import HarmonicFeatures
from mfpde.energy.inputs import Circle, Normal, Sharpness, angle_count
from mfpde.measure import Atoms

_RANK_TOLERANCE = 1e-12
_SMALLEST_MODE = 1e-14
_MOST_RADII = 4096
_BLOCK = 1 << 20
_SKETCH = 40


@dataclass(frozen=True, eq=False)
class AngularModes:
    """½ Σ_k |∫F_k(|θ|) e^{−i m_k φ} dρ − target_k|² for the modes m_k = ``orders`` (M,): ``factor`` gives F at radii (n,) as
    (M, S, n), and ``target`` is (M, S)."""

    orders: IntArray
    factor: Callable[[FloatArray], FloatArray]
    target: ComplexArray


def harmonic_modes(features: HarmonicFeatures, target: FloatArray) -> AngularModes:
    """The modes of ReLU, of which each is proportional to the radius; ``target`` is that of the features."""
    coefficients = features.coefficients
    orders = np.concatenate([[0, 1], 2 * np.arange(1, len(coefficients) - 1)])
    waves = target[: len(orders)] - 1j * np.concatenate([[0.0], target[len(orders) :]])
    return AngularModes(orders, lambda radii: coefficients[:, None, None] * radii, waves[:, None])


def quadrature_modes(
    activation: Activation, law: Normal | Circle, sharpness: Sharpness, teacher: Atoms, reach: float
) -> AngularModes | None:
    """The modes of a smooth activation, for |θ| up to ``reach``; None for a teacher of too many different radii."""
    scales, weights = law.radial(2, sharpness)
    count = max(angle_count(s, w, sharpness) for s, w in zip(scales.tolist(), weights.tolist(), strict=True))
    waves = _Waves(activation, scales, np.sqrt(weights), count)
    waves = _Waves(activation, scales, np.sqrt(weights), count, _highest(waves.factor(reach * np.linspace(0.125, 1.0, 8))))
    radii, sums = _angular_sums(teacher, waves.most)
    if len(radii) > _MOST_RADII:
        return None
    target = np.zeros((waves.most, len(scales)), dtype=complex)
    block = max(1, _BLOCK // (waves.most * len(scales)))
    for k in range(0, len(radii), block):
        part = slice(k, k + block)
        target += np.matmul(waves.factor(radii[part]), sums[:, part, None])[:, :, 0]
    return AngularModes(np.arange(waves.most), waves.factor, target)


@dataclass(frozen=True, eq=False)
class _Waves:
    """F_m at radii by the trapezoidal rule in ``count`` angles ψ, for ``most`` modes (None: all that these angles tell apart)."""

    activation: Activation
    scales: FloatArray
    roots: FloatArray
    count: int
    kept: int | None = None

    @property
    def most(self) -> int:
        """The number of modes."""
        return self.kept or self.count // 2

    def factor(self, radii: FloatArray) -> FloatArray:
        """√(g_m w_s) c_m(sr), (M, S, n)."""
        from scipy.fft import dct

        half = self.count // 2
        cosines = np.cos(np.pi * (np.arange(half) + 0.5) / half)
        result = np.empty((self.most, len(self.scales), len(radii)))
        for k, (scale, root) in enumerate(zip(self.scales.tolist(), self.roots.tolist(), strict=True)):
            values = self.activation.value(np.multiply.outer(scale * radii, cosines))
            result[:, k] = dct(values, axis=1, overwrite_x=True)[:, : self.most].T * (root / (2.0 * half))
        result[1:] *= math.sqrt(2.0)
        return result


def _highest(factor: FloatArray) -> int:
    """How many modes there are up to the last one that is not negligible."""
    size = np.max(np.abs(factor), axis=(1, 2))
    return int(np.max(np.flatnonzero(size > _SMALLEST_MODE * np.max(size)), initial=0)) + 1


def _angular_sums(atoms: Atoms, count: int) -> tuple[FloatArray, ComplexArray]:
    """The different radii (U,) of atoms, and Σ weight e^{−imφ} over the atoms at each, (count, U)."""
    vectors = atoms.points[:, 0] + 1j * atoms.points[:, 1]
    radius = np.abs(vectors)
    turn = np.divide(np.conj(vectors), radius, out=np.ones_like(vectors), where=radius > 0.0)
    order = np.argsort(radius, kind="stable")
    radius, turn = radius[order], turn[order]
    first = np.flatnonzero(np.diff(radius, prepend=-1.0) > 1e-13 * max(float(radius[-1]), 1e-300))
    if len(first) > _MOST_RADII:
        return radius[first], np.zeros((count, len(first)), dtype=complex)
    power = atoms.weights[order].astype(complex)
    sums = np.empty((count, len(first)), dtype=complex)
    for m in range(count):
        sums[m] = np.add.reduceat(power, first)
        np.multiply(power, turn, out=power)
    return radius[first], sums


class GridPolarTwoLayer:
    """A two-layer energy on one polar grid about the origin: a transform in the angle, small products over the radii for every mode,
    and the transform back. Cell masses count as atoms at the centres, so modes above the grid's are folded into those they look like.

    Only the two transforms allocate.
    """

    temperature = 0.0
    convex = True
    factors = None

    def __init__(self, modes: AngularModes, grid: PolarGrid) -> None:
        self._cells, self._volume = grid.cells, np.reshape(grid.weight, grid.cells)
        folded, self.constant = _fold(modes, grid)
        rank = max((len(rows) for _, rows, _ in folded), default=0)
        self._places = np.array([place for place, _, _ in folded], dtype=np.int64)
        self._rows = np.zeros((len(folded), rank, grid.cells[0]))
        self._target = np.zeros((len(folded), rank, 2))
        for k, (_, rows, target) in enumerate(folded):
            self._rows[k, : len(rows)] = rows
            self._target[k, : len(rows)] = np.stack([target.real, target.imag], axis=1)
        self._columns = np.ascontiguousarray(np.swapaxes(self._rows, 1, 2))
        alone = (self._places == 0) | (2 * self._places == grid.cells[1])
        self._scale = grid.cells[1] * np.where(alone, 1.0, 0.5)[:, None]
        self._lam = np.empty_like(self._target)
        self._waves = np.empty((len(folded), grid.cells[0]), dtype=complex)
        self._spectrum = np.zeros((grid.cells[0], grid.cells[1] // 2 + 1), dtype=complex)
        self._mass = np.empty(grid.cells)
        self.description = f"convolution in the angle: {len(folded)} modes of rank at most {rank} in the radius"

    @property
    def linear(self) -> FloatArray:
        """Minus the first variation that the targets would have as residuals, (size,)."""
        np.negative(self._target, out=self._lam)
        return np.ravel(self._first_variation())

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add the first variation of the quadratic part."""
        self._fill_moments(rho)
        np.add(out, np.ravel(self._first_variation()), out=out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Nothing: the energy is convex."""

    def value(self, rho: FloatArray) -> float:
        """½ Σ|λ|² + constant."""
        return self._fill_residual(rho)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add the first variation at the centres; returns the energy."""
        energy = self._fill_residual(rho)
        np.add(xi, np.ravel(self._first_variation()), out=xi)
        return energy

    def _fill_moments(self, rho: FloatArray) -> None:
        np.multiply(np.reshape(rho, self._cells), self._volume, out=self._mass)
        np.copyto(self._waves, np.fft.rfft(self._mass, axis=1).T[self._places])
        np.matmul(self._rows, self._waves.view(float).reshape(*self._waves.shape, 2), out=self._lam)

    def _fill_residual(self, rho: FloatArray) -> float:
        self._fill_moments(rho)
        np.subtract(self._lam, self._target, out=self._lam)
        return 0.5 * float(np.vdot(self._lam, self._lam)) + self.constant

    def _first_variation(self) -> FloatArray:
        """Of the residual λ, on the cells."""
        np.matmul(self._columns, self._lam, out=self._waves.view(float).reshape(*self._waves.shape, 2))
        np.multiply(self._waves, self._scale, out=self._waves)
        self._spectrum[:, self._places] = self._waves.T
        return np.fft.irfft(self._spectrum, n=self._cells[1], axis=1)


def _fold(modes: AngularModes, grid: PolarGrid) -> tuple[list[tuple[int, FloatArray, ComplexArray]], float]:
    """For each mode p of the grid's angles: the compressed rows (k, radii) of all modes that look like it, and their target (k,);
    and the constant, the part of the target that these rows do not reach.

    A mode m has the phase e^{−imΔφ/2} at the first centre, and looks like m mod cells, or if that is above half of the cells
    like the conjugate of its complement.
    """
    angles = grid.cells[1]
    factor = modes.factor(grid.middles(0))
    turned = modes.target * np.exp(0.5j * float(grid.spacing[1]) * modes.orders)[:, None]
    place = np.mod(modes.orders, angles)
    mirrored = 2 * place > angles
    place = np.where(mirrored, angles - place, place)
    turned = np.where(mirrored[:, None], np.conj(turned), turned)
    least = _RANK_TOLERANCE * float(np.max(np.linalg.norm(factor, axis=(1, 2))))
    folded, constant = [], 0.0
    for p in np.unique(place).tolist():
        alike = place == p
        rows, target, rest = _compressed(factor[alike].reshape(-1, grid.cells[0]), np.ravel(turned[alike]), least)
        constant += rest
        if len(rows):
            folded.append((p, rows, target))
    return folded, constant


def _compressed(rows: FloatArray, target: ComplexArray, least: float) -> tuple[FloatArray, ComplexArray, float]:
    """Rows (k, n) with the same products up to columns smaller than ``least``, the target in their space, and ½|rest of it|²."""
    basis = _range(rows, least)
    reached = basis.T @ target
    rest = target - basis @ reached
    return basis.T @ rows, reached, 0.5 * float(np.vdot(rest, rest).real)


def _range(rows: FloatArray, least: float) -> FloatArray:
    """Orthonormal columns (S, k) that span those of ``rows`` (S, n) up to ``least``, by pivoted QR of a random sketch."""
    from scipy.linalg import qr

    most, width = min(rows.shape), _SKETCH
    while True:
        sketch = rows
        if width < most:
            sketch = rows @ np.random.default_rng(0).standard_normal((rows.shape[1], width))
        basis, upper, _ = qr(sketch, mode="economic", pivoting=True)
        rank = int(np.sum(np.abs(np.diag(upper)) > least))
        if width >= most or rank < 0.8 * width:
            return np.asarray(basis[:, :rank])
        width *= 2
