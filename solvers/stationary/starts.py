"""Where the search for stationary states starts: the initial density, the uniform one, wells of the potential, mirror images, draws."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.disk import PolarGrid
from mfpde.domain import Grid

_WIDTH = 1.0 / 16.0
_WINDOW = 24


def starts(grid: Grid, initial: FloatArray, landscape: FloatArray, count: int, seed: int) -> list[tuple[str, FloatArray]]:
    """The first ``count`` of: the initial density, the uniform one, bumps at minima of ``landscape`` (size,), the mirror images of the
    initial density and of these bumps along every moving axis, and bumps drawn with ``seed``; names and shapes.

    Among many minima the deepest comes first, then each time the one furthest from those before, half as many as there are starts.
    """
    wells = [grid.centers[k] for k in _spread_out(grid, _wells(grid, landscape), max(1, count // 2))]
    return list(islice(_all_starts(grid, initial, wells, np.random.default_rng(seed)), count))


def _all_starts(
    grid: Grid, initial: FloatArray, wells: list[FloatArray], generator: np.random.Generator
) -> Iterator[tuple[str, FloatArray]]:
    yield "initial", initial
    yield "uniform", np.ones(grid.size)
    for place in wells:
        yield f"well at {_written(place)}", _bump(grid, place)
    for axis in grid.domain.moving:
        cells = grid.locate(_mirrored(grid, grid.centers, axis))
        yield f"mirrored initial ({grid.domain.names[axis]})", initial[cells]
    for place in wells:
        for axis in grid.domain.moving:
            image = _mirrored(grid, place, axis)
            if all(_apart(grid, image, other) for other in wells):
                yield f"mirrored well at {_written(image)}", _bump(grid, image)
    number = 0
    while True:
        number += 1
        yield f"random {number}", _drawn(grid, generator)


def fineness(grid: Grid) -> FloatArray:
    """The width of a cell along the domain's axes, (d,); between radii on a disk."""
    return np.full(2, grid.spacing[0]) if isinstance(grid, PolarGrid) else grid.spacing


def _apart(grid: Grid, one: FloatArray, other: FloatArray) -> bool:
    """Whether two points (d,) are not in one window; frozen axes do not count."""
    reach = np.maximum((grid.domain.upper - grid.domain.lower) / _WINDOW, 1.5 * fineness(grid))
    return bool(np.any((np.abs(grid.domain.displacement(one, other)) > reach) & ~grid.domain.frozen))


def _wells(grid: Grid, landscape: FloatArray) -> list[int]:
    """Flat indices of the cells that are lowest in a window around them and in no flat part, deepest first, one a window."""
    from scipy.ndimage import maximum_filter, minimum_filter

    values = landscape.reshape(grid.cells)
    window = [max(3, 2 * (n // (2 * _WINDOW)) + 1) if k in grid.moving else 1 for k, n in enumerate(grid.cells)]
    mode: list[Literal["wrap", "nearest"]] = ["wrap" if grid.periodic(k) else "nearest" for k in range(len(grid.cells))]
    low, high = minimum_filter(values, window, mode=mode), maximum_filter(values, window, mode=mode)
    found = np.flatnonzero((values == low) & (low < high))
    kept: list[int] = []
    for k in found[np.argsort(landscape[found], kind="stable")]:
        if all(_apart(grid, grid.centers[j], grid.centers[k]) for j in kept):
            kept.append(int(k))
    return kept


def _spread_out(grid: Grid, wells: list[int], most: int) -> list[int]:
    """The first, and then the one furthest from all before, up to ``most``."""
    length = grid.domain.upper - grid.domain.lower
    chosen = wells[:1]
    while wells and len(chosen) < min(most, len(wells)):
        gaps = [grid.domain.displacement(grid.centers[k], grid.centers[wells]) / length for k in chosen]
        distance = np.min([np.linalg.norm(gap, axis=1) for gap in gaps], axis=0)
        chosen.append(wells[int(np.argmax(distance))])
    return chosen


def _bump(grid: Grid, place: FloatArray, width: float = _WIDTH) -> FloatArray:
    """A normal law around a place, of a width in units of the axes' lengths; constant along frozen axes."""
    spread = np.maximum(width * (grid.domain.upper - grid.domain.lower), fineness(grid))
    away = np.where(grid.domain.frozen, 0.0, grid.domain.displacement(place, grid.centers) / spread)
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(-0.5 * np.sum(away**2, axis=1)))


def _mirrored(grid: Grid, points: FloatArray, axis: int) -> FloatArray:
    """Points (..., d) mirrored at the middle of one axis."""
    image = np.array(points)
    image[..., axis] = grid.domain.lower[axis] + grid.domain.upper[axis] - image[..., axis]
    return image


def _drawn(grid: Grid, generator: np.random.Generator) -> FloatArray:
    """One to three bumps of random places, widths and sizes."""
    total = np.zeros(grid.size)
    for place in grid.domain.spread(generator.random((int(generator.integers(1, 4)), grid.domain.dimension))):
        total += generator.uniform(0.1, 1.0) * _bump(grid, place, float(generator.uniform(0.03, 0.2)))
    return total


def _written(place: FloatArray) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in place) + ")"
