"""Initial atoms of minimising movements: weighted Gauss nodes where a density is smooth, which is where spectral accuracy is free."""

from dataclasses import replace

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.measure import DensityFunction, Particles, layered_cells
from mfpde.problem import Problem

_SCANNED = {1: 4096, 2: 256, 3: 64}
_NODES, _ALONG = {1: 6, 2: 9, 3: 8}, {2: 3, 3: 2}
_NEGLIGIBLE = 1e-14


def first_atoms(problem: Problem, count: int | None) -> Particles:
    """Initial atoms as they are; of a density about ``count`` Gauss nodes, in more than three dimensions the images of a lattice. Where the
    energy has layers along frozen axes, these have one node each, at its centre.

    Raises ValueError for a missing or wrong count."""
    initial = problem.initial
    if not isinstance(initial, DensityFunction):
        if count not in (None, len(initial.weights)):
            raise ValueError(f"count must be left out or {len(initial.weights)}, the number of initial atoms")
        return initial
    if count is None:
        raise ValueError("the key `count` is missing: about how many atoms stand for the initial density")
    layers = problem.energy.layers
    return _layered(initial, count, layers) if layers > 1 and initial.domain.frozen.any() else gauss_nodes(initial, count)


def _layered(initial: DensityFunction, count: int, layers: int) -> Particles:
    """About ``count`` nodes of which none are wasted on what the energy does not see, where within a layer an atom is."""
    domain = initial.domain
    if domain.dimension not in _ALONG or domain.frozen.all():
        return _at_centres(initial.quantiles(count, layers), domain, layers)
    held = _around(initial)
    kept = tuple(axis if axis.frozen else near for axis, near in zip(domain.axes, held.domain.axes, strict=True))
    density = DensityFunction(initial.function, Domain(kept))
    nodes = _ALONG[domain.dimension] ** len(domain.moving)
    cells = layered_cells(density.domain, max(1, round(count / nodes)), layers)
    even = tuple(layers if frozen else 2 * max(1, round(0.5 * each)) for each, frozen in zip(cells, domain.frozen, strict=True))
    atoms = _at_centres(density.gauss_atoms(even), domain, layers)
    points, group = np.unique(atoms.points, axis=0, return_inverse=True)
    weights = np.bincount(np.ravel(group), weights=atoms.weights)
    some = weights > _NEGLIGIBLE * float(np.max(weights))
    return Particles(np.ascontiguousarray(points[some]), weights[some] / np.sum(weights[some]))


def _at_centres(atoms: Particles, domain: Domain, layers: int) -> Particles:
    """The atoms at the centres of their layers along frozen axes."""
    points = atoms.points.copy()
    for k in np.flatnonzero(domain.frozen):
        low, width = domain.axes[k].lower, domain.axes[k].length / layers
        points[:, k] = low + width * (np.clip(np.floor((points[:, k] - low) / width), 0, layers - 1) + 0.5)
    return Particles(points, atoms.weights)


def gauss_nodes(initial: DensityFunction, count: int) -> Particles:
    """About ``count`` Gauss nodes with the masses of a density around them; in more than three dimensions the images of a lattice.

    The nodes fill the box that holds the density; in the plane in an even number of cells along each axis, since nodes on the axes of
    a symmetric problem would never leave them. On one axis half of the intervals are spent where Gauss's rule is worst, so that jumps
    and narrow bumps are integrated as well as smooth densities.
    """
    dimension = initial.domain.dimension
    if dimension not in _NODES:
        return initial.quantiles(count)
    held = _around(initial)
    cells = count / _NODES[dimension]
    side = cells ** (1.0 / dimension)
    even = 2 * round(0.5 * side) if dimension == 2 else 0
    atoms = _on_intervals(held, max(1, round(cells))) if dimension == 1 else held.gauss_atoms(even or max(1, round(side)))
    kept = atoms.weights > _NEGLIGIBLE * float(np.max(atoms.weights))
    weights = atoms.weights[kept]
    return Particles(np.ascontiguousarray(atoms.points[kept]), weights / np.sum(weights))


def _around(initial: DensityFunction) -> DensityFunction:
    """The density on the box of the cells of a fine grid that hold more than a negligible part of it, and of their neighbours."""
    domain = initial.domain
    density = initial.on(domain.even_grid(_SCANNED[domain.dimension]))
    mass = density.weights.reshape(density.grid.cells)
    axes = []
    for k, axis in enumerate(domain.axes):
        held = np.flatnonzero(np.max(mass, axis=tuple(j for j in range(mass.ndim) if j != k)) > _NEGLIGIBLE * np.max(mass))
        edges = density.grid.edges(k)
        first, last = max(int(held[0]) - 1, 0), min(int(held[-1]) + 2, len(edges) - 1)
        axes.append(replace(axis, lower=float(edges[first]), upper=float(edges[last]), periodic=False))
    return DensityFunction(initial.function, Domain(tuple(axes)))


def _on_intervals(initial: DensityFunction, count: int) -> Particles:
    """Gauss nodes on ``count`` intervals: at first half as many of one length, then those are halved whose rule changes most when they
    are, at last those with the largest mass times length."""
    axis = initial.domain.axes[0]
    edges = np.linspace(axis.lower, axis.upper, max(1, count // 2) + 1)
    low, high = edges[:-1], edges[1:]
    while (room := count - len(low)) > 0:
        whole, halves = _masses(initial, low, high), _masses(initial, *_halved(low, high)).reshape(2, -1)
        changes, total = np.abs(np.sum(halves, axis=0) - whole), float(np.sum(whole))
        worth = changes if np.max(changes) > _NEGLIGIBLE * total else whole * (high - low)
        worst = np.argsort(-worth, kind="stable")[: max(1, min(room, len(low) // 4))]
        worst = worst[worth[worst] > 0.0]
        if not len(worst):
            break
        rest = np.setdiff1d(np.arange(len(low)), worst)
        more = _halved(low[worst], high[worst])
        low, high = np.concatenate([low[rest], more[0]]), np.concatenate([high[rest], more[1]])
        order = np.argsort(low)
        low, high = low[order], high[order]
    nodes, shares = np.polynomial.legendre.leggauss(_NODES[1])
    half = 0.5 * (high - low)[:, None]
    points = (0.5 * (low + high)[:, None] + half * nodes).reshape(-1, 1)
    weights = np.ravel(half * shares) * initial.values(points)
    kept = weights > 0.0
    if not kept.any():
        raise ValueError("the density must have a positive finite integral over the domain, got 0")
    return Particles(points[kept], weights[kept] / np.sum(weights))


def _halved(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The lower halves of intervals, then the upper ones."""
    middle = 0.5 * (low + high)
    return np.concatenate([low, middle]), np.concatenate([middle, high])


def _masses(initial: DensityFunction, low: FloatArray, high: FloatArray) -> FloatArray:
    """The integrals over intervals by Gauss's rule."""
    nodes, shares = np.polynomial.legendre.leggauss(_NODES[1])
    half = 0.5 * (high - low)[:, None]
    values = initial.values((0.5 * (low + high)[:, None] + half * nodes).reshape(-1, 1)).reshape(len(low), -1)
    return np.asarray((half * shares * values).sum(axis=1))
