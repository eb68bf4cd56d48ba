"""Panels on two and three axes: where to halve them, and along which axis.

What counts is what a panel leaves wrong in integrals over ρ, summed over all of them: kinks of ρ₀ need far fewer panels than they would
if it were to be resolved at every point.
"""

import numpy as np
from numpy.polynomial import legendre

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.measure import DensityFunction
from mfpde.solvers.characteristics.panels import Panels, Rule, halves, labels_of, tensor_rule

MOST_NODES = {2: 1 << 19, 3: 1 << 20}
_FIRST_PANELS = {2: 4, 3: 2}
_NARROWEST = 1e-6
_NEGLIGIBLE = 1e-14
_CROPPED = 1e-3
_WORTH = 0.95
"""A smaller box is worth it where it is that much shorter along some axis."""
_BLOCK = 1 << 18


def first_panels(domain: Domain, function: DensityFunction, order: int, resolution: float) -> Panels:
    """Panels whose nodes integrate ρ₀ times polynomials to ``resolution`` of the mass, on the part of the box where it is; those that
    together hold less than 1e-14 of it are left out. Raises ValueError where there would be too many."""
    lower, upper, masses = _resolved(domain.lower.astype(float), domain.upper.astype(float), function, order, resolution)
    nearer = _cropped(Panels.resting(lower, upper, order, function), domain, _CROPPED * resolution)
    if nearer is not None:
        lower, upper, masses = _resolved(*nearer, function, order, resolution)
    chosen = _weighty(masses)
    chosen = chosen[np.lexsort(lower[chosen].T[::-1])]
    return Panels.resting(lower[chosen], upper[chosen], order, function)


def _resolved(
    low: FloatArray, high: FloatArray, function: DensityFunction, order: int, resolution: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Corners (P, d) and masses (P,) of panels of the box from ``low`` to ``high`` (d,)."""
    most, count = most_panels(order, len(low)), _FIRST_PANELS[len(low)]
    lower, upper = _even(low, high, count)
    masses, errors = _moment_errors(lower, upper, order, function)
    while not float(np.sum(masses)) > 0.0:
        count *= 2
        if count ** len(low) > most:
            raise ValueError(f"the density must have a positive finite integral over the domain, got 0 with {len(lower)} panels of nodes")
        lower, upper = _even(low, high, count)
        masses, errors = _moment_errors(lower, upper, order, function)
    while True:
        wanted = worst(errors, upper - lower, high - low, resolution * float(np.sum(masses)))
        if (wanted < 0).all():
            return lower, upper, masses
        if len(lower) > most:
            left = float(np.sum(np.max(errors, axis=1)) / np.sum(masses))
            raise ValueError(
                f"the initial density is not resolved by {most} panels, which leave {left:.0e} of the integrals of ρ₀ where "
                f"{resolution:.0e} is wanted: loosen `resolution`, lower `order` beside kinks, or use finite volumes or particles"
            )
        lower, upper = halves(lower, upper, wanted)
        kept = int(np.sum(wanted < 0))
        new_masses, new_errors = _moment_errors(lower[kept:], upper[kept:], order, function)
        masses, errors = np.concatenate([masses[wanted < 0], new_masses]), np.concatenate([errors[wanted < 0], new_errors])


def _cropped(panels: Panels, domain: Domain, share: float) -> tuple[FloatArray, FloatArray] | None:
    """The corners (d,) of a smaller box beyond each side of which there is less than ``share`` of the mass; None where there is none."""
    places, weights = panels.atoms.points, panels.atoms.weights
    low, high = domain.lower.astype(float), domain.upper.astype(float)
    for axis in np.flatnonzero(~domain.frozen & ~domain.periodic):
        order = np.argsort(places[:, axis], kind="stable")
        along, total = places[order, axis], np.cumsum(weights[order])
        below, above = np.searchsorted(total, share * total[-1]), np.searchsorted(total, (1.0 - share) * total[-1], side="right")
        low[axis] = along[max(int(below) - 1, 0)]
        high[axis] = along[min(int(above) + 1, len(along) - 1)]
    shorter = (high - low) < _WORTH * (domain.upper - domain.lower)
    return (np.where(shorter, low, domain.lower), np.where(shorter, high, domain.upper)) if shorter.any() else None


def most_panels(order: int, dimension: int) -> int:
    """How many panels there may be."""
    return max(MOST_NODES[dimension] // int(order**dimension), 1)


def unresolved(panels: Panels, domain: Domain, resolution: float) -> IntArray:
    """The axis along which to halve each panel for θ to be resolved, or −1, (P,): the last coefficients, relative to the box and
    weighted with the panels' masses, are to be at most ``resolution`` in sum."""
    length = domain.upper - domain.lower
    tails = sum(panels.tails(panels.places[:, :, k]) / length[k] for k in range(panels.dimension))
    masses = np.sum(panels.weights, axis=1)
    return worst(np.asarray(masses[:, None] * tails), panels.upper - panels.lower, length, resolution)


def worst(errors: FloatArray, width: FloatArray, length: FloatArray, limit: float) -> IntArray:
    """For ``errors`` (P, d) of panels by axis: the axis with the largest one of each panel without which the sum over the rest is within
    half the ``limit``, and −1 for the others; all −1 where the whole sum is within the limit. Panels of 1e-6 of the ``length`` (d,) of
    the box are kept."""
    narrow = width <= _NARROWEST * length
    open_errors = np.where(narrow, 0.0, errors)
    largest = np.max(open_errors, axis=1)
    if float(np.sum(largest)) <= limit:
        return np.full(len(errors), -1)
    ascending = np.argsort(largest, kind="stable")
    within = np.cumsum(largest[ascending]) <= 0.5 * limit
    axes: IntArray = np.argmax(open_errors, axis=1)
    axes[ascending[within]] = -1
    return axes


def _even(low: FloatArray, high: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """The corners of ``count`` equal boxes along each axis."""
    edges = np.linspace(low, high, count + 1).T
    ends = (slice(None, -1), slice(1, None))
    lower, upper = (np.stack([x.ravel() for x in np.meshgrid(*edges[:, part], indexing="ij")], axis=1) for part in ends)
    return lower, upper


def _weighty(masses: FloatArray) -> IntArray:
    """Indices of the panels without those that together hold a negligible part."""
    ascending = np.argsort(masses, kind="stable")
    return np.asarray(ascending[np.cumsum(masses[ascending]) > _NEGLIGIBLE * float(np.sum(masses))])


def _moment_errors(lower: FloatArray, upper: FloatArray, order: int, function: DensityFunction) -> tuple[FloatArray, FloatArray]:
    """Masses (P,) of panels and, by axis, what their integrals of ρ₀ times polynomials change by when they are halved, (P, d)."""
    dimension, block = lower.shape[1], max(_BLOCK // order ** lower.shape[1], 1)
    masses, errors = np.empty(len(lower)), np.empty(lower.shape)
    for start in range(0, len(lower), block):
        part = slice(start, start + block)
        masses[part], errors[part] = _block_errors(lower[part], upper[part], order, dimension, function)
    return masses, errors


def _block_errors(
    lower: FloatArray, upper: FloatArray, order: int, dimension: int, function: DensityFunction
) -> tuple[FloatArray, FloatArray]:
    """As ``_moment_errors``: on every line of nodes along an axis the integrals against P_0 … P_{p/2} by the p nodes and by p nodes in
    each half are compared, and the gaps are added up with the weights of the lines."""
    rule, shape = Rule.of(order), (len(lower), *[order] * dimension)
    basis = legendre.legvander(rule.nodes, order // 2) * rule.weights[:, None]
    parts = [legendre.legvander(0.5 * (rule.nodes + side), order // 2) * (0.5 * rule.weights)[:, None] for side in (-1.0, 1.0)]
    volume = np.prod(0.5 * (upper - lower), axis=1)

    def values(low: FloatArray, high: FloatArray) -> FloatArray:
        return function.values(labels_of(low, high, order).reshape(-1, dimension)).reshape(shape)

    whole = values(lower, upper)
    masses = volume * (whole.reshape(len(lower), -1) @ tensor_rule(order, dimension)[1])
    lines = tensor_rule(order, dimension - 1)[1]
    errors = np.empty(lower.shape)
    for axis in range(dimension):
        middle, first, second = 0.5 * (lower + upper), upper.copy(), lower.copy()
        first[:, axis], second[:, axis] = middle[:, axis], middle[:, axis]
        moments = _moments(whole, basis, axis)
        halved = _moments(values(lower, first), parts[0], axis) + _moments(values(second, upper), parts[1], axis)
        errors[:, axis] = volume * (np.abs(moments - halved).sum(axis=2) @ lines)
    return masses, errors


def _moments(values: FloatArray, basis: FloatArray, axis: int) -> FloatArray:
    """Integrals of values (P, p, …, p) against a ``basis`` (p, m) along one axis, (P, lines, m)."""
    moments = np.tensordot(values, basis, axes=(axis + 1, 0))
    return moments.reshape(len(values), -1, basis.shape[1])
