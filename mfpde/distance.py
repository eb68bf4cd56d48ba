"""Wasserstein distances between measures: exact on the line and on the circle, by POT with a stated floor in d >= 2."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Domain, Grid
from mfpde.measure import Density, Measure, Particles, barycentres, deposit

SUPPORT = 2500
_MASS_TOLERANCE = 1e-6
_PIVOTS = 2_000_000


@dataclass(frozen=True)
class Distance:
    """A distance, the largest error that its method can have made (``floor``; 0 where it is exact), and the method."""

    value: float
    floor: float
    method: str


@dataclass(frozen=True, eq=False)
class _Quantiles:
    """A quantile function that is linear on each interval of mass: cumulative mass (n + 1,), left and right ends (n,)."""

    levels: FloatArray
    left: FloatArray
    right: FloatArray

    def at(self, start: FloatArray, end: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values at both ends of mass intervals [start, end], none of which crosses a level."""
        middle = 0.5 * (start + end)
        place = np.clip(np.searchsorted(self.levels, middle, side="right") - 1, 0, len(self.left) - 1)
        width = self.levels[place + 1] - self.levels[place]
        base, rise = self.left[place], self.right[place] - self.left[place]
        first, last = (np.divide(u - self.levels[place], width, out=np.zeros_like(width), where=width > 0.0) for u in (start, end))
        return base + rise * first, base + rise * last


def wasserstein(first: Measure, second: Measure, domain: Domain, order: int = 2, support: int = SUPPORT) -> Distance:
    """Wasserstein distance W_p, p = ``order`` in {1, 2}, between two measures on ``domain``, each scaled to mass one.

    One moving axis: exact, a density being piecewise constant, not atoms at cell centres. A circle: exact, by the best cut
    [Delon, Salomon, Sobolevski 2010]. Several: POT's network simplex on at most ``support`` atoms each, with the floor that the
    coarsening may cost (triangle inequality). Frozen axes: slice by slice, with each slice's mean mass. Raises ValueError
    for masses that differ by more than 1e-6 relative.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    masses = float(np.sum(first.weights)), float(np.sum(second.weights))
    if not abs(masses[0] - masses[1]) <= _MASS_TOLERANCE * max(masses):
        raise ValueError(f"the two measures have different masses, {masses[0]:.9g} and {masses[1]:.9g}")
    if domain.frozen.any():
        return _by_slices(first, second, domain, order, support)
    if domain.dimension > 1:
        return _by_pot(first, second, domain, order, support)
    one, two = _quantiles(first), _quantiles(second)
    if domain.periodic[0]:
        return Distance(_on_circle(one, two, domain.axes[0].length, order), 0.0, "exact on the circle")
    return Distance(_cost(np.union1d(one.levels, two.levels), one, two, order) ** (1.0 / order), 0.0, "exact in 1-D")


def _quantiles(measure: Measure) -> _Quantiles:
    points, weights = measure.points[:, 0], measure.weights
    half = 0.5 * float(measure.grid.spacing[0]) if isinstance(measure, Density) else 0.0
    if half == 0.0:
        order = np.argsort(points, kind="stable")
        points, weights = points[order], weights[order]
    kept = weights > 0.0
    levels = np.concatenate([[0.0], np.cumsum(weights[kept])])
    levels = levels / levels[-1]
    return _Quantiles(levels, points[kept] - half, points[kept] + half)


def _cost(levels: FloatArray, one: _Quantiles, two: _Quantiles, order: int) -> float:
    """∫ |F⁻¹(u) − G⁻¹(u)|^p du over the mass intervals between ``levels``, exactly."""
    start, end = levels[:-1], levels[1:]
    a, b = (p - q for p, q in zip(one.at(start, end), two.at(start, end), strict=True))
    if order == 2:
        return float(np.sum((end - start) * (a * a + a * b + b * b)) / 3.0)
    total = np.abs(a) + np.abs(b)
    crossing = np.divide(a * a + b * b, total, out=np.zeros_like(total), where=total > 0.0)
    return float(np.sum((end - start) * 0.5 * np.where(a * b >= 0.0, total, crossing)))


def _shifted(quantiles: _Quantiles, shift: float, length: float) -> _Quantiles:
    """u ↦ G⁻¹(u − shift) on [0, 1], G⁻¹ being extended by G⁻¹(u + 1) = G⁻¹(u) + length."""
    turns = np.floor(shift)
    shift -= turns
    levels = quantiles.levels + shift
    both = np.concatenate([levels[:-1] - 1.0, levels])
    left = np.concatenate([quantiles.left - length, quantiles.left]) - turns * length
    right = np.concatenate([quantiles.right - length, quantiles.right]) - turns * length
    return _Quantiles(both, left, right)


def _on_circle(one: _Quantiles, two: _Quantiles, length: float, order: int) -> float:
    """The least cost over all cuts; it is convex in the shift of mass, so golden section finds it."""

    def cost(shift: float) -> float:
        other = _shifted(two, shift, length)
        inside = other.levels[(other.levels > 0.0) & (other.levels < 1.0)]
        return _cost(np.union1d(one.levels, inside), one, other, order)

    low, high = -1.0, 1.0
    ratio = 0.5 * (np.sqrt(5.0) - 1.0)
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    values = [cost(inner[0]), cost(inner[1])]
    for _ in range(80):
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - ratio * (high - low)
            values[0] = cost(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + ratio * (high - low)
            values[1] = cost(inner[1])
        if high - low < 1e-15:
            break
    values += [cost(0.0), cost(_nearest_breakpoint(one, two, 0.5 * (low + high)))]
    return float(max(min(values), 0.0) ** (1.0 / order))


def _nearest_breakpoint(one: _Quantiles, two: _Quantiles, shift: float) -> float:
    """The shift nearest to ``shift`` at which two levels meet: atoms have their least cost at such a kink."""
    wanted = np.mod(one.levels - shift, 1.0)
    above = np.minimum(np.searchsorted(two.levels, wanted), len(two.levels) - 1)
    below = np.maximum(above - 1, 0)
    moves = np.concatenate([wanted - two.levels[above], wanted - two.levels[below]])
    return float(shift + moves[np.argmin(np.abs(moves))])


def _by_pot(first: Measure, second: Measure, domain: Domain, order: int, support: int) -> Distance:
    import ot

    (points, mass, floor), (points2, mass2, floor2) = (_coarsened(m, domain, support) for m in (first, second))
    gap = domain.displacement(points[:, None, :], points2[None, :, :])
    squared = np.sum(gap * gap, axis=-1)
    cost = squared if order == 2 else np.sqrt(squared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        value, log = ot.emd2(mass / np.sum(mass), mass2 / np.sum(mass2), cost, numItermax=_PIVOTS, log=True)
    method = f"by transport of {len(mass)} onto {len(mass2)} atoms"
    if log["warning"] is not None:
        return Distance(float(max(value, 0.0)) ** (1.0 / order), np.inf, f"{method}, not optimal after {_PIVOTS} pivots")
    return Distance(float(max(value, 0.0)) ** (1.0 / order), floor + floor2, method)


def _coarsened(measure: Measure, domain: Domain, support: int) -> tuple[FloatArray, FloatArray, float]:
    """At most ``support`` atoms (points, weights) and the root mean square way that mass was moved to reach them."""
    points, weights = barycentres(measure), measure.weights
    inner = float(np.trace(measure.grid.inner_covariance(weights / np.sum(weights)))) if isinstance(measure, Density) else 0.0
    kept = weights > 0.0
    points, weights = points[kept], weights[kept] / np.sum(weights)
    if len(weights) <= support:
        return points, weights, float(np.sqrt(inner))
    level = max(int(support ** (1.0 / domain.dimension)), 1)
    while True:
        _, groups = np.unique(domain.box.even_grid(2 * level).locate(points), return_inverse=True)
        if groups.max() + 1 > support or 2 * level > 4096:
            break
        level *= 2
    _, groups = np.unique(domain.box.even_grid(level).locate(points), return_inverse=True)
    mass: FloatArray = np.asarray(np.bincount(groups, weights=weights), dtype=float)
    centre = np.stack([np.bincount(groups, weights=weights * x) / mass for x in points.T], axis=1)
    moved = float(weights @ np.sum((points - centre[groups]) ** 2, axis=1))
    return centre, mass, float(np.sqrt(moved + inner))


def _by_slices(first: Measure, second: Measure, domain: Domain, order: int, support: int) -> Distance:
    """W_p^p is the sum over the slices of the frozen coordinates of mean mass times W_p^p of the two normalised slices.

    Mass that finds no partner in its slice cannot move there at all: it enters the floor at the price of the domain's diameter.
    """
    if not domain.moving:
        return Distance(0.0, 0.0, "nothing moves")
    moving = Domain(tuple(domain.axes[k] for k in domain.moving))
    one, two = (_slices(measure, domain, moving, _slice_grid(first, second, domain)) for measure in (first, second))
    total, floor, unmatched = 0.0, 0.0, 0.0
    for label in sorted(one.keys() | two.keys()):
        shares = [float(np.sum(s[label].weights)) if label in s else 0.0 for s in (one, two)]
        unmatched += 0.5 * abs(shares[0] - shares[1])
        if min(shares) > 0.0:
            pair = (_normalised(one[label]), _normalised(two[label]))
            part = wasserstein(*pair, moving, order, support)
            share = 0.5 * (shares[0] + shares[1])
            total, floor = total + share * part.value**order, floor + share * part.floor**order
    diameter = float(np.linalg.norm(domain.upper - domain.lower))
    floor += unmatched * diameter**order if unmatched > 1e-9 else 0.0
    method = "slice by slice" + (f", {unmatched:.1e} of the mass unmatched" if unmatched > 1e-9 else "")
    return Distance(total ** (1.0 / order), floor ** (1.0 / order), method)


def _slice_grid(first: Measure, second: Measure, domain: Domain) -> Grid | None:
    """The frozen cells that both measures are sorted into: the finest that each density's divide; None if both are atoms."""
    frozen = Domain(tuple(axis for axis in domain.axes if axis.frozen))
    cells = [
        tuple(count for count, axis in zip(m.grid.cells, domain.axes, strict=True) if axis.frozen)
        for m in (first, second)
        if isinstance(m, Density)
    ]
    return frozen.grid(tuple(math.gcd(*counts) for counts in zip(*cells, strict=True))) if cells else None


def _slices(measure: Measure, domain: Domain, moving: Domain, grid: Grid | None) -> dict[tuple[float, ...], Measure]:
    """The part of a measure over each frozen cell (or frozen coordinate), keyed by its place."""
    held = [k for k, axis in enumerate(domain.axes) if axis.frozen]
    places = measure.points[:, held]
    if grid is not None:
        places = grid.centers[grid.locate(places)]
    keys, groups = np.unique(places, axis=0, return_inverse=True)
    parts = (_restrict(measure, np.ravel(groups) == k, moving, list(domain.moving)) for k in range(len(keys)))
    return {tuple(key.tolist()): part for key, part in zip(keys, parts, strict=True)}


def _restrict(measure: Measure, chosen: BoolArray, moving: Domain, axes: list[int]) -> Measure:
    points, weights = measure.points[chosen][:, axes], measure.weights[chosen]
    if not isinstance(measure, Density):
        return Particles(points, weights)
    grid = moving.grid(tuple(measure.grid.cells[k] for k in axes))
    return deposit(Particles(points, weights), grid)


def _normalised(measure: Measure) -> Measure:
    total = float(np.sum(measure.weights))
    if isinstance(measure, Density):
        return Density(measure.grid, measure.values / total)
    return Particles(measure.points, measure.weights / total)
