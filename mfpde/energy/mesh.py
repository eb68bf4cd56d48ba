"""Sums over all pairs of atoms on a mesh: kernels as series of waves, which fast Fourier transforms convolve [Potts, Steidl,
Nieslony 2004, "Fast convolution with radial kernels at nonequispaced knots"].

W is smooth beyond a radius, or everywhere. Its smooth part, W times a step from 0 at 0 to 1 at the ``radius``, has a short spectrum; the
rest is a table over near neighbours. Along axes with walls the smooth part is continued to a period of more than two lengths, so that
nothing reaches round. Step and continuation are integrals of a Kaiser–Bessel window, whose spectrum ends at β.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from mfpde.arrays import ComplexArray, FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy.pair_kernel import PairKernel
from mfpde.energy.radial import NearPairs, Radial, RadialTable, reach_below, tabulate
from mfpde.energy.window import WIDTH, beta_of, gather, spread, transform

STEPS = (22.0, 30.0)
"""Where the spectra of the steps end, in units of half of their lengths: shorter ones, and more exact ones."""
_ENDED = 1e-4
MOST_NODES = 1 << 24
_BLOCK = 1 << 17
_EDGE = 0.95
_PROBES, _ATOMS = 64, 1500
TOLERANCE = 1e-9


@cache
def _step_series(end: float) -> tuple[np.polynomial.Chebyshev, np.polynomial.Chebyshev]:
    """A smooth step from 0 at −1 to 1 at 1, and its derivative."""
    from scipy.special import i0

    window = np.polynomial.Chebyshev.interpolate(lambda z: i0(end * np.sqrt(np.maximum(1.0 - z * z, 0.0))) / i0(end), 90)
    whole = window.integ(lbnd=-1.0)
    return whole / whole(1.0), window / whole(1.0)


def smooth_step(t: FloatArray, end: float) -> tuple[FloatArray, FloatArray]:
    """A step from 0 at t <= 0 to 1 at t >= 1, and its derivative."""
    rise, slope = _step_series(end)
    inside = (t > 0.0) & (t < 1.0)
    value, steep, z = np.where(t >= 1.0, 1.0, 0.0), np.zeros(t.shape), 2.0 * t[inside] - 1.0
    value[inside], steep[inside] = rise(z), 2.0 * slope(z)
    return value, steep


@dataclass(frozen=True, eq=False)
class MeshSums:
    """W∗ρ for atoms in a box through a mesh of ``counts`` nodes (d,), ``spacing`` (d,) apart, the first at ``corner`` (d,).

    ``factors`` are the kernel's spectrum over the squared transform of the window, in the order of real transforms. ``near`` is the
    table of the rest where W is not smooth at 0, and ``radius`` (0 without it) is where it ends.
    """

    domain: Domain
    counts: tuple[int, ...]
    corner: FloatArray
    spacing: FloatArray
    oversampling: float
    factors: FloatArray
    near: RadialTable | None

    @property
    def description(self) -> str:
        """For people."""
        size = " × ".join(str(n) for n in self.counts)
        return f"a mesh of {size} nodes" + (f" and neighbours within {self.near.reach:.3g}" if self.near else "")

    @property
    def radius(self) -> float:
        """Where neighbours end, 0 without them."""
        return self.near.reach if self.near else 0.0

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, d) of the box, as (M,)."""
        spectrum = self._spectrum(points, weights)
        result = np.asarray(gather(self._places(at), self._back(spectrum)[None], self._beta)[0])
        if self.near is not None:
            result += NearPairs(self.domain, self.near, self.domain.confine(points), weights).potential(self.domain.confine(at))
        return result

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, d) of the box, as (M, d)."""
        spectrum = self._spectrum(points, weights)
        meshes = np.stack([self._back(1j * wave * spectrum) for wave in self._waves])
        result = np.ascontiguousarray(gather(self._places(at), meshes, self._beta).T)
        if self.near is not None:
            result += NearPairs(self.domain, self.near, self.domain.confine(points), weights).force(self.domain.confine(at))
        return result

    @property
    def _beta(self) -> float:
        return beta_of(self.oversampling)

    def _places(self, points: FloatArray) -> FloatArray:
        return np.asarray((self.domain.confine(points) - self.corner) / self.spacing)

    def _spectrum(self, points: FloatArray, weights: FloatArray) -> ComplexArray:
        from scipy.fft import rfftn

        return np.asarray(rfftn(spread(self._places(points), weights, self.counts, self._beta)) * self.factors)

    def _back(self, spectrum: ComplexArray) -> FloatArray:
        from scipy.fft import irfftn

        return np.asarray(irfftn(spectrum, s=self.counts))

    @cached_property
    def _waves(self) -> list[FloatArray]:
        """Wave numbers along each axis, to be broadcast; the highest of an even number, which is its own opposite, is not there."""
        return [
            2.0
            * np.pi
            / spacing
            * _frequencies(count, k == len(self.counts) - 1).reshape([-1 if j == k else 1 for j in range(len(self.counts))])
            for k, (count, spacing) in enumerate(zip(self.counts, self.spacing, strict=True))
        ]


def _frequencies(count: int, real: bool) -> FloatArray:
    return np.asarray(np.fft.rfftfreq(count) if real else np.fft.fftfreq(count))


def make_mesh(kernel: PairKernel, band: float, radial: Radial | None, end: float = STEPS[0]) -> MeshSums | None:
    """The sums with all waves up to the wave number ``band``, at which the spectra of steps ``end``.

    ``radial`` gives W as a function of the distance where it is not smooth at 0, and neighbours are to be added; else it is None. None
    where the mesh is too large, or the box too small, or where the spectrum does not end at the band.
    """
    domain, length = kernel.domain, kernel.domain.upper - kernel.domain.lower
    free, blend = ~domain.periodic, blend_of(band, end)
    period = np.where(free, 2.0 * length + blend, length)
    modes = np.maximum(2 * np.ceil(0.5 * band * period / np.pi).astype(np.int64), 4)
    oversampling = _oversampling(domain)
    counts = tuple(_fast_length(oversampling * n) for n in modes)
    if math.prod(counts) > MOST_NODES or (radial is not None and np.any(blend > 0.5 * length[~free])):
        return None
    near = None
    if radial is not None:
        reach = reach_below(blend * (1.0 + 1.0 / 64.0))
        near = tabulate(_near_part(radial, reach, end), reach, kernel.at_zero or 0.0)
        if near is None:
            return None
    samples = _samples(kernel, modes, period, blend, near.reach if near else 0.0, end)
    if samples is None:
        return None
    spectrum = np.fft.fftn(samples).real / samples.size
    if not _ends(spectrum):
        return None
    spacing = period / np.array(counts)
    corner = domain.lower - np.where(free, WIDTH * spacing, 0.0)
    factors = _embedded(spectrum, counts, beta_of(oversampling))
    return MeshSums(domain, counts, corner, spacing, oversampling, factors, near)


def blend_of(band: float, end: float = STEPS[0]) -> float:
    """The length over which a step fits into the band: the distance within which neighbours are summed."""
    return 2.0 * end / band


def nodes_of(domain: Domain, band: float) -> float:
    """About the number of nodes of the mesh."""
    length = domain.upper - domain.lower
    period = np.where(domain.periodic, length, 2.0 * length + blend_of(band))
    return float(np.prod(_oversampling(domain) * band * period / np.pi))


def _oversampling(domain: Domain) -> float:
    """In space a coarser mesh, whose windows are less exact, costs less."""
    return 2.0 if domain.dimension < 3 else 1.5


def _fast_length(least: float) -> int:
    from scipy.fft import next_fast_len

    return 2 * int(next_fast_len(max(math.ceil(0.5 * least), 2 * WIDTH), real=True))


def _near_part(radial: Radial, reach: float, end: float) -> Radial:
    """W less its smooth part."""

    def near(r: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, slope = radial(r)
        rise, steep = smooth_step(1.0 - r / reach, end)  # from the other end: what is left keeps its accuracy next to the radius
        return value * rise, slope * rise - value * steep / reach

    return near


def _samples(kernel: PairKernel, modes: IntArray, period: FloatArray, blend: float, reach: float, end: float) -> FloatArray | None:
    """The periodic smooth part at the nodes of the mesh of the modes, (modes...); None where W is not finite beyond the box."""
    domain, steps = kernel.domain, period / modes
    nodes, parts = [], []
    for k, axis in enumerate(domain.axes):
        last = modes[k] // 2 if axis.periodic else min(int((axis.length + blend) / steps[k]), int(modes[k]) - 1)
        x = steps[k] * np.arange(-last, last + 1 - axis.periodic)
        nodes.append(x)
        parts.append(np.ones(len(x)) if axis.periodic else smooth_step((axis.length + blend - np.abs(x)) / blend, end)[0])
    values = np.empty([len(x) for x in nodes])
    height = max(1, _BLOCK // max(values[0].size, 1))
    for start in range(0, len(values), height):  # the memory is that of the result
        mesh = np.meshgrid(nodes[0][start : start + height], *nodes[1:], indexing="ij")
        x = np.stack([part.ravel() for part in mesh], axis=1)
        found = kernel.values(x)
        if reach > 0.0:
            found = found * smooth_step(np.linalg.norm(x, axis=1) / reach, end)[0]
        values[start : start + height] = found.reshape(-1, *values.shape[1:])
    if not np.isfinite(values).all():
        return None
    for k, part in enumerate(parts):
        values = _folded(values * part.reshape([-1 if j == k else 1 for j in range(values.ndim)]), k, int(modes[k]))
    return values


def _folded(values: FloatArray, axis: int, count: int) -> FloatArray:
    """Nodes −last … of an axis added to those of one period, 0 … count − 1."""
    moved = np.moveaxis(values, axis, 0)
    last = len(moved) // 2
    result = np.zeros((count, *moved.shape[1:]))
    result[: len(moved) - last] += moved[last:]
    result[count - last :] += moved[:last]
    return np.moveaxis(result, 0, axis)


def _ends(spectrum: FloatArray) -> bool:
    """Whether the spectrum of the gradient has ended at the highest waves."""
    steep, edge = np.zeros(spectrum.shape), np.zeros(spectrum.shape, dtype=bool)
    for k, count in enumerate(spectrum.shape):
        wave = np.abs(np.fft.fftfreq(count, 1.0 / count)).reshape([-1 if j == k else 1 for j in range(spectrum.ndim)])
        steep = np.maximum(steep, wave)
        edge = edge | (wave >= _EDGE * 0.5 * count)
    sizes = steep * np.abs(spectrum)
    return bool(np.max(sizes[edge]) <= _ENDED * np.max(sizes))


def _embedded(spectrum: FloatArray, counts: tuple[int, ...], beta: float) -> FloatArray:
    """The spectrum over the squared transform of the window, among the waves of the finer mesh."""
    values = spectrum * math.prod(counts)
    for k, (few, many) in enumerate(zip(spectrum.shape, counts, strict=True)):
        wave = np.round(np.fft.fftfreq(few, 1.0 / few)).astype(np.int64)
        height = transform(np.asarray(2.0 * np.pi / many * wave, dtype=float), beta) ** -2.0
        height[np.abs(wave) == few // 2] = 0.0
        values = values * height.reshape([-1 if j == k else 1 for j in range(values.ndim)])
        real = k == len(counts) - 1
        kept = np.flatnonzero(wave >= 0) if real else np.arange(few)
        kept = kept[np.abs(wave[kept]) < few // 2]
        result = np.zeros([many // 2 + 1 if real and j == k else many if j == k else n for j, n in enumerate(values.shape)])
        np.moveaxis(result, k, 0)[wave[kept] % many] = np.moveaxis(values, k, 0)[kept]
        values = result
    return values


def accurate(kernel: PairKernel, sums: MeshSums, tolerance: float = TOLERANCE) -> bool:
    """Whether forces and potentials at random atoms are those of all pairs, to ``tolerance`` of the largest."""
    generator = np.random.default_rng(7)
    points = kernel.domain.spread(generator.random((_ATOMS, kernel.domain.dimension)))
    weights, at = np.full(_ATOMS, 1.0 / _ATOMS), points[:_PROBES]
    steps = kernel.domain.displacement(points, at[:, None, :]).reshape(-1, points.shape[1])
    slopes = np.einsum("ijk,j->ik", kernel.slopes(steps).reshape(_PROBES, _ATOMS, -1), weights)
    values = kernel.values(steps).reshape(_PROBES, -1) @ weights
    force, potential = sums.force(points, weights, at), sums.potential(points, weights, at)
    near = np.max(np.abs(force - slopes)) <= tolerance * np.max(np.linalg.norm(slopes, axis=1))
    return bool(near and np.max(np.abs(potential - values)) <= tolerance * np.max(np.abs(values)))
