"""Sliced distances: the exact distances of one-dimensional projections, averaged over directions [Rabin, Peyré, Delon, Bernot 2012]."""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.disk import PolarGrid
from mfpde.distance.line import Quantiles, on_line, quantiles_of_atoms
from mfpde.distance.result import Distance
from mfpde.domain import Domain
from mfpde.measure import Density, Measure

DIRECTIONS = 64
_SEED = 20_101
_BINS = 1 << 15
_ERRORS = 2.0
_POLAR_PARTS = 4


def by_directions(first: Measure, second: Measure, domain: Domain, order: int, count: int = DIRECTIONS) -> Distance:
    """(Mean over ``count`` directions of W_p^p of the projections)^(1/p).

    In the plane the directions are equally spaced over a half circle, turned by a random angle, and the error of the mean is half of
    what two halves of them differ by; in space they are the axes of independent random frames, and it is the standard error over the
    frames. The seed is fixed. The floor is two such errors and the way that the mass of densities was moved (atoms stay where they are).
    """
    directions = _directions(domain.dimension, count)
    one, two = _Projected(first, domain), _Projected(second, domain)
    powers = np.array([on_line(one.along(theta), two.along(theta), order) for theta in directions])
    power = float(np.mean(powers))
    if domain.dimension == 2:
        error = 0.5 * abs(float(np.mean(powers[::2]) - np.mean(powers[1::2])))
    else:
        frames = np.mean(powers.reshape(-1, domain.dimension), axis=1)
        error = float(np.std(frames, ddof=1)) / math.sqrt(len(frames))
    value = power ** (1.0 / order)
    spread = (power + _ERRORS * error) ** (1.0 / order) - value
    words = f"sliced, the mean over {len(directions)} directions"
    return Distance(value, float(spread) + one.moved + two.moved, words)


def _directions(dimension: int, count: int) -> FloatArray:
    """``count`` unit vectors, or a few more to complete the last frame, (n, d)."""
    generator = np.random.default_rng(_SEED)
    if dimension == 2:
        angle = math.pi * (np.arange(count) + generator.random()) / count
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    drawn = generator.normal(size=(max(-(-count // dimension), 2), dimension, dimension))
    return np.asarray(np.linalg.qr(drawn)[0].reshape(-1, dimension))


class _Projected:
    """A measure, ready to be projected.

    A cell of a box projects to its centre convolved with one interval for each axis. Centres are shared out between the next edges of
    fine bins, so that the mass below the edges is known, and the convolutions are differences of its integral. The cells of a disk are
    taken as smaller atoms. ``moved`` is the root mean square way that this moves mass at the most.
    """

    def __init__(self, measure: Measure, domain: Domain) -> None:
        self.widths = np.empty(0)
        self.moved = 0.0
        if not isinstance(measure, Density):
            self.points, self.weights = measure.points, measure.weights
            return
        if isinstance(measure.grid, PolarGrid):
            self.points, self.weights, self.moved = _smaller(measure)
        else:
            kept = measure.weights > 0.0
            self.points, self.weights = measure.points[kept], measure.weights[kept]
            self.widths = measure.grid.spacing
            reach = float(np.linalg.norm(domain.upper - domain.lower))
            self.middle = 0.5 * (domain.lower + domain.upper)
            self.edges = np.linspace(-0.5 * reach, 0.5 * reach, _BINS + 1)
            self.moved = reach / _BINS

    def along(self, theta: FloatArray) -> Quantiles:
        """The quantile function of the projection on a unit vector (d,)."""
        if not len(self.widths):
            return quantiles_of_atoms(self.points @ theta, self.weights)
        bin_width = float(self.edges[1] - self.edges[0])
        place = ((self.points - self.middle) @ theta - self.edges[0]) / bin_width - 0.5
        low = np.clip(np.floor(place).astype(np.int64), 0, _BINS - 2)
        upper = np.clip(place - low, 0.0, 1.0)
        mass = np.bincount(low, self.weights * (1.0 - upper), _BINS) + np.bincount(low + 1, self.weights * upper, _BINS)
        below = np.concatenate([[0.0], np.cumsum(mass / np.sum(mass))])
        for width in np.abs(theta) * self.widths:
            if width > bin_width:
                below = _spread(below, float(width) / bin_width)
        shift = float(self.middle @ theta)
        held = np.diff(below) > 0.0
        levels = np.concatenate([[0.0], below[1:][held]])
        return Quantiles(levels / levels[-1], self.edges[:-1][held] + shift, self.edges[1:][held] + shift)


def _spread(below: FloatArray, width: float) -> FloatArray:
    """Cumulative mass at the edges of bins (n + 1,), linear in between, convolved with the uniform law on ``width`` bins."""
    integral = np.concatenate([[0.0], np.cumsum(0.5 * (below[1:] + below[:-1]))])
    count = len(below) - 1
    edges = np.arange(count + 1.0)

    def total(at: FloatArray) -> FloatArray:
        """∫ of the mass below, which is 0 before the bins and 1 after them."""
        inside = np.clip(at, 0.0, count)
        k = np.minimum(inside.astype(np.int64), count - 1)
        t = inside - k
        return np.asarray(integral[k] + t * (below[k] + 0.5 * t * (below[k + 1] - below[k])) + np.maximum(at - count, 0.0))

    smooth = (total(edges + 0.5 * width) - total(edges - 0.5 * width)) / width
    smooth[0], smooth[-1] = 0.0, 1.0
    return np.asarray(np.maximum.accumulate(np.clip(smooth, 0.0, 1.0)))


def _smaller(measure: Density) -> tuple[FloatArray, FloatArray, float]:
    """The cells of a polar grid in equal parts, as atoms at their middles, and a root mean square of their sizes."""
    grid, parts = measure.grid, _POLAR_PARTS
    steps = (2.0 * np.arange(parts) + 1.0) / parts - 1.0
    weights = np.maximum(measure.weights, 0.0)
    places = [np.array([a, b]) for a in steps for b in steps]
    points = np.concatenate([grid.places(at) for at in places])
    shares = np.concatenate([weights * grid.stretch(at) for at in places]) / parts**2
    inner = float(np.trace(grid.inner_covariance(weights / np.sum(weights))))
    return points[shares > 0.0], shares[shares > 0.0], math.sqrt(inner) / parts
