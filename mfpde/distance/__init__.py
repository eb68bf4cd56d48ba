"""Distances between measures.

Exact on a line and on a circle; in more dimensions by transport between atoms, by entropic transport on a fine grid or, as a distance of
its own, sliced: the mean over directions of the exact distances of the projections. Each comes with what its method may have cost.
"""

import math

import numpy as np

from mfpde.arrays import BoolArray
from mfpde.distance.circle import on_circle
from mfpde.distance.line import on_line, quantiles
from mfpde.distance.result import Distance
from mfpde.distance.transport import SUPPORT, by_transport
from mfpde.domain import Domain, Grid
from mfpde.measure import Density, Measure, Particles, deposit

__all__ = ["METHODS", "SLICED", "SUPPORT", "Distance", "check_method", "wasserstein"]

SLICED = "sliced"
METHODS = ("auto", "exact", SLICED, "entropic")
_MASS_TOLERANCE = 1e-6
_NEGATIVE = 1e-9
_UNMATCHED = 1e-9
_RESOLVED = 2.0


def wasserstein(first: Measure, second: Measure, domain: Domain, order: int = 2, support: int = SUPPORT, method: str = "auto") -> Distance:
    """Wasserstein distance W_p, p = ``order`` in {1, 2}, between two measures on ``domain``, each scaled to mass one.

    One moving axis: exact, a density being piecewise constant, not atoms at cell centres. A circle: exact, by the best cut
    [Delon, Salomon, Sobolevski 2010]. Frozen axes: slice by slice, with each slice's mean mass. Several moving axes, by ``method``:

    * ``exact``: transport by POT's network simplex on at most ``support`` atoms each, with the floor that the coarsening may cost
      (triangle inequality).
    * ``entropic``, p = 2: the Sinkhorn divergence on a fine grid, with the floor of the grid and bounds of the entropic bias.
    * ``sliced``: (mean over directions of W_p^p of the projections)^(1/p), exact on each direction, with two standard errors of
      that mean. It is another distance, SW_p <= W_p, and SW_2 <= W_2/√d; it has no meaning on circles.
    * ``auto``: ``exact``; where that hardly resolves W_2 (which is below twice the floor) ``entropic``, if that has a lower floor.
      Slices along frozen axes are ``exact``.

    How far N independent draws from a density are from it: E W_2 ~ N^(-1/2) √(log N) for d = 2 and N^(-1/d) for d >= 3
    [Fournier, Guillin 2015; Ambrosio, Stra, Trevisan 2019], against N^(-1/2) on a line and for the sliced distance in any dimension. So
    in d >= 3 W_2 between particles and a density says how many particles there are long before it says how good they are.

    Raises ValueError for masses that are not positive or differ by more than 1e-6 relative, weights that are negative, points that are
    not finite, and a method that the domain or the order does not allow.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    check_method(domain, method, order)
    _check_measures(first, second)
    if domain.frozen.any():
        return _by_slices(first, second, domain, order, support, method)
    if domain.dimension > 1:
        return _in_space(first, second, domain, order, support, method)
    one, two = quantiles(first), quantiles(second)
    if domain.periodic[0]:
        return Distance(on_circle(one, two, domain.axes[0].length, order) ** (1.0 / order), 0.0, "exact on the circle")
    return Distance(on_line(one, two, order) ** (1.0 / order), 0.0, "exact in 1-D")


def check_method(domain: Domain, method: str, order: int = 2) -> None:
    """Raises ValueError where ``method`` is unknown, or cannot measure W_p of this order on the domain."""
    if method not in METHODS:
        raise ValueError(f"the distance must be one of {', '.join(METHODS)}, got {method!r}")
    if method in ("auto", "exact"):
        return
    if len(domain.moving) < 2:
        raise ValueError(f'"{method}" is for two or more axes along which mass moves; on one the distance is exact: use "auto"')
    if method == SLICED and domain.periodic.any():
        names = ", ".join(axis.name for axis in domain.axes if axis.periodic)
        raise ValueError(f'"sliced" projects onto lines, which has no meaning along periodic axes ({names}); use "auto" or "entropic"')
    if method == "entropic" and order != 2:
        raise ValueError(f'"entropic" is for squared distances, order 2, got order {order}; use "exact" or "sliced"')
    if method == "entropic" and len(domain.moving) > 3:
        raise ValueError(f'"entropic" needs a grid, of at most 3 moving axes, got {len(domain.moving)}; use "exact" or "sliced"')


def _check_measures(first: Measure, second: Measure) -> None:
    """Raises ValueError for what is no pair of measures of one mass."""
    masses = []
    for measure in (first, second):
        weights = measure.weights
        masses.append(float(np.sum(weights)))
        if not (math.isfinite(masses[-1]) and masses[-1] > 0.0):
            raise ValueError(f"a measure must have a positive finite mass, got {masses[-1]:g}")
        if float(np.min(weights)) < -_NEGATIVE * masses[-1]:
            raise ValueError(f"a measure must have nonnegative weights, got {float(np.min(weights)):g}")
        if isinstance(measure, Particles) and not np.isfinite(measure.points).all():
            raise ValueError("the points of a measure must be finite")
    if not abs(masses[0] - masses[1]) <= _MASS_TOLERANCE * max(masses):
        raise ValueError(f"the two measures have different masses, {masses[0]:.9g} and {masses[1]:.9g}")


def _in_space(first: Measure, second: Measure, domain: Domain, order: int, support: int, method: str) -> Distance:
    """Two or more axes along all of which mass moves."""
    if method == SLICED:
        from mfpde.distance.sliced import by_directions

        return by_directions(first, second, domain, order)
    if method == "entropic":
        return by_sinkhorn(first, second, domain)
    found = by_transport(first, second, domain, order, support)
    if method == "exact" or order != 2 or domain.dimension > 3 or found.value > _RESOLVED * found.floor:
        return found
    finer = by_sinkhorn(first, second, domain)
    return finer if finer.floor < found.floor else found


def by_sinkhorn(first: Measure, second: Measure, domain: Domain) -> Distance:
    """``entropic``, whose loops bring the compiler."""
    from mfpde.distance.entropic import by_divergence

    return by_divergence(first, second, domain)


def _by_slices(first: Measure, second: Measure, domain: Domain, order: int, support: int, method: str) -> Distance:
    """W_p^p is the sum over the slices of the frozen coordinates of mean mass times W_p^p of the two normalised slices.

    Mass that finds no partner in its slice cannot move there at all: it enters the floor at the price of the domain's diameter.
    """
    if not domain.moving:
        return Distance(0.0, 0.0, "nothing moves")
    moving = Domain(tuple(domain.axes[k] for k in domain.moving))
    one, two = (_slices(measure, domain, moving, _slice_grid(first, second, domain)) for measure in (first, second))
    within = "exact" if method == "auto" else method
    total, floor, unmatched, parts = 0.0, 0.0, 0.0, set()
    for label in sorted(one.keys() | two.keys()):
        shares = [float(np.sum(s[label].weights)) if label in s else 0.0 for s in (one, two)]
        unmatched += 0.5 * abs(shares[0] - shares[1])
        if min(shares) > 0.0:
            pair = (_normalised(one[label]), _normalised(two[label]))
            part = wasserstein(*pair, moving, order, support, within)
            share = 0.5 * (shares[0] + shares[1])
            total, floor = total + share * part.value**order, floor + share * part.floor**order
            parts.add(part.method)
    diameter = float(np.linalg.norm(domain.upper - domain.lower))
    floor += unmatched * diameter**order if unmatched > _UNMATCHED else 0.0
    words = "slice by slice" + (f" {parts.pop()}" if len(parts) == 1 and method in (SLICED, "entropic") else "")
    words += f", {unmatched:.1e} of the mass unmatched" if unmatched > _UNMATCHED else ""
    return Distance(total ** (1.0 / order), floor ** (1.0 / order), words)


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
