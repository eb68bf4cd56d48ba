"""Internal energies of atoms by the blob method [Carrillo, Craig, Patacchini 2019, "A blob method for diffusion"]."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain, Grid
from mfpde.energy.base import GridEnergy
from mfpde.energy.internal import TINY
from mfpde.energy.neighbours import FARTHEST, Rows, columns, gaussian_slopes, gaussian_sums, images, rows_of
from mfpde.measure import Measure

_SPREAD, _POWER_ON_A_LINE, _POWER = 1.5, 0.75, 0.99
_PAIRS = 1 << 16
_MOST_ROWS = 3


@dataclass(frozen=True, eq=False)
class Blob:
    """E_ε(μ) = ∫F(φ_ε∗μ) dμ with F(s) = c log s for ``exponent`` m = 1 and c s^{m−1}/(m − 1) else, c = ``coefficient``.

    φ_ε is the Gaussian of standard deviation ``width`` ε along every axis. Walls mirror it: φ_ε∗μ is then the density of the atoms after
    heat has flowed for the time ε²/2 in the box without flux, so that the uniform density stays put; circles carry its images.
    Finite on atoms: each sees at least itself. As ε → 0 the energies Γ-converge for m >= 1, and the flows of atoms converge to those of
    ∫ρ log ρ and ∫ρ^m/(m − 1) for m >= 2 where h = o(ε) for the distance h of neighbours [§3, §5 there]; their bias is O(ε²) where the
    solution is smooth (O(ε⁴) in the variance of a Gaussian Gibbs state, where two parts cancel). For m < 1 there is no theorem: the
    energy is finite, but each atom pushes itself and others the harder the fewer there are, so that tails of fast diffusion, thinner
    than one atom to a width, are only as good as their atoms.

    A density counts as its cell masses at the cell centres. Where no atom is within 8ε, densities are 0 and gradients of the first
    variation vanish. Raises ValueError for a width that is not positive and finite, a disk, and on grids.
    """

    exponent: float
    coefficient: float
    width: float
    domain: Domain
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not (self.width > 0.0 and math.isfinite(self.width)):
            raise ValueError(f"the width of the blobs must be positive and finite, got {self.width}")
        if self.domain.box is not self.domain:
            raise ValueError("the blob method needs a box: mirror images of atoms do not stop the flux through the rim of a disk")
        longest = max(axis.length for axis in self.domain.axes)
        if self.width > longest:
            raise ValueError(f"the width of the blobs must be at most the longest axis, {longest:g}, got {self.width:g}")

    @property
    def description(self) -> str:
        """For people."""
        name = "entropy" if self.exponent == 1.0 else f"power {self.exponent:g}"
        return f"{name} × {self.coefficient:g} of the density by Gaussian blobs of width {self.width:g}"

    def value(self, measure: Measure) -> float:
        """Σ w_i F(φ∗μ(x_i))."""
        return float(measure.weights @ self._energy(self.mollify(measure, measure.points)))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """F(φ∗μ) + φ∗(F'(φ∗μ) μ) at points (M, d), as (M,)."""
        sums = _Sums(measure, self)
        density = sums.at(sums.sources, measure.weights)
        here = sums.at(at, measure.weights)
        return self._energy(here) + sums.at(at, self._charges(measure.weights, density))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """F'(φ∗μ) ∇φ∗μ + ∇φ∗(F'(φ∗μ) μ) at points (M, d), as (M, d)."""
        sums = _Sums(measure, self)
        density = sums.at(sums.sources, measure.weights)
        same = at is measure.points or np.array_equal(at, measure.points)
        here = density if same else sums.at(at, measure.weights)
        return sums.slopes(at, self._slope(here), measure.weights, self._charges(measure.weights, density))

    def value_and_gradient(self, measure: Measure) -> tuple[float, FloatArray]:
        """The value and the gradient at the measure's own points, (N, d), by one density."""
        sums, weights = _Sums(measure, self), measure.weights
        density = sums.at(sums.sources, weights)
        value = float(weights @ self._energy(density))
        return value, sums.slopes(sums.sources, self._slope(density), weights, self._charges(weights, density))

    def mollify(self, measure: Measure, at: FloatArray) -> FloatArray:
        """φ∗μ at points (M, d), as (M,): the density that the blobs stand for."""
        return _Sums(measure, self).at(at, measure.weights)

    def on(self, grid: Grid) -> GridEnergy:
        """Always raises ValueError."""
        raise ValueError("the blob method is for particles: on grids use the energy itself")

    def _energy(self, s: FloatArray) -> FloatArray:
        """F."""
        s = np.maximum(s, TINY)
        if self.exponent == 1.0:
            return np.asarray(self.coefficient * np.log(s))
        return np.asarray(self.coefficient / (self.exponent - 1.0) * s ** (self.exponent - 1.0))

    def _slope(self, s: FloatArray) -> FloatArray:
        """F', 0 in the vacuum."""
        inside = s > TINY
        return np.where(inside, self.coefficient * np.where(inside, s, 1.0) ** (self.exponent - 2.0), 0.0)

    def _charges(self, weights: FloatArray, density: FloatArray) -> FloatArray:
        """w F'(φ∗μ) of the atoms, (N,)."""
        return weights * np.where(weights != 0.0, self._slope(density), 0.0)


class _Sums:
    """Sums of Gaussians over the atoms of a measure and their images: over neighbours for d <= 3, over all else."""

    sources: FloatArray

    def __init__(self, measure: Measure, blob: Blob) -> None:
        self.width, self.sources = blob.width, measure.points
        self.images = images(measure.points, blob.domain, math.sqrt(2.0 * FARTHEST) * blob.width, mirrored=True)
        dimension = measure.points.shape[1]
        self.norm = (math.sqrt(2.0 * math.pi) * blob.width) ** -dimension
        self.rows: Rows | None = None
        if dimension <= _MOST_ROWS:
            self.rows = rows_of(columns(self.images.points), math.sqrt(2.0 * FARTHEST) * blob.width)

    def at(self, points: FloatArray, shares: FloatArray) -> FloatArray:
        """Σ_j a_j φ(t − x_j) at points (M, d), as (M,)."""
        carried = shares[self.images.origin]
        if self.rows is not None:
            return np.asarray(self.norm * gaussian_sums(columns(points), self.rows, carried, self.width))
        result = np.empty(len(points))
        for block, _, heights in self._blocks(points):
            result[block] = self.norm * (heights @ carried)
        return result

    def slopes(self, points: FloatArray, factors: FloatArray, shares: FloatArray, others: FloatArray) -> FloatArray:
        """Σ_j (f a_j + b_j) ∇φ(t − x_j) at points (M, d) with factors f (M,), as (M, d)."""
        a, b, scale = shares[self.images.origin], others[self.images.origin], self.norm / self.width**2
        if self.rows is not None:
            found = gaussian_slopes(columns(points), factors, self.rows, a, b, self.width)
            return np.ascontiguousarray(scale * found[3 - points.shape[1] :].T)
        result = np.empty(points.shape)
        for block, steps, heights in self._blocks(points):
            pulls = heights * (factors[block, None] * a + b)
            result[block] = scale * np.einsum("ijk,ij->ik", steps, pulls)
        return result

    def _blocks(self, points: FloatArray) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Blocks of targets with the steps (m, K, d) to all sources and e^{−step²/(2ε²)} (m, K)."""
        height = max(1, _PAIRS // len(self.images.points))
        for start in range(0, len(points), height):
            block = slice(start, min(start + height, len(points)))
            steps = self.images.points[None] - points[block, None]
            with np.errstate(under="ignore"):
                yield block, steps, np.exp(-0.5 / self.width**2 * np.sum(steps**2, axis=2))


def blob_width(atoms: Measure, domain: Domain) -> float:
    """A width ε = 1.5 D (h/D)^q for these atoms, h = D N^{−1/d} being the distance of neighbours and D the size of their support: the
    geometric mean of its extents. q = 0.99 for d >= 2 as in [Carrillo, Craig, Patacchini 2019, §6], whose atoms fill a grid; q = 0.75
    on a line, where neighbours of equal weight move far apart in tails. Axes along which all atoms agree do not count; where all do,
    D is that of the domain."""
    points, lengths = atoms.points[atoms.weights != 0.0], domain.upper - domain.lower
    extent = np.minimum(np.ptp(points, axis=0), lengths) if len(points) else np.zeros(len(lengths))
    free = extent > 1e-9 * lengths
    extent, dimension = (extent[free], int(np.count_nonzero(free))) if free.any() else (lengths, len(lengths))
    size = float(np.exp(np.mean(np.log(extent))))
    power = _POWER_ON_A_LINE if dimension == 1 else _POWER
    return float(min(_SPREAD * size * max(len(points), 1) ** (-power / dimension), np.max(lengths)))
