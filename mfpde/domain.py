"""Parameter domains: named axes that are no-flux intervals, circles or frozen, and uniform grids on them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Axis:
    """One coordinate of the domain, ``lower <= coordinate <= upper``.

    A plain axis ends in no-flux walls; a ``periodic`` one is a circle of length ``upper - lower``; along a ``frozen`` one
    nothing moves. Raises ValueError for bounds that are not finite and increasing, or an axis both periodic and frozen.
    """

    name: str
    lower: float
    upper: float
    periodic: bool = False
    frozen: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise ValueError(f"axis {self.name!r} needs finite lower < upper, got lower = {self.lower}, upper = {self.upper}")
        if not math.isfinite(self.upper - self.lower):
            raise ValueError(f"axis {self.name!r} is too long: upper - lower overflows")
        if self.periodic and self.frozen:
            raise ValueError(f"axis {self.name!r} cannot be both periodic and frozen")

    @property
    def length(self) -> float:
        """``upper - lower``."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Domain:
    """A box of axes, d >= 1. Raises ValueError for no axes or repeated names."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError("a domain needs at least one axis")
        if len(set(self.names)) != len(self.axes):
            raise ValueError(f"axis names must differ, got {', '.join(self.names)}")

    @property
    def dimension(self) -> int:
        """The number of axes d."""
        return len(self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """The axis names, in order."""
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def lower(self) -> FloatArray:
        """Lower ends, (d,)."""
        return np.array([axis.lower for axis in self.axes])

    @cached_property
    def upper(self) -> FloatArray:
        """Upper ends, (d,)."""
        return np.array([axis.upper for axis in self.axes])

    @cached_property
    def periodic(self) -> BoolArray:
        """Which axes are circles, (d,)."""
        return np.array([axis.periodic for axis in self.axes])

    @cached_property
    def frozen(self) -> BoolArray:
        """Which axes are frozen, (d,)."""
        return np.array([axis.frozen for axis in self.axes])

    @property
    def moving(self) -> tuple[int, ...]:
        """Indices of the axes along which mass moves."""
        return tuple(k for k, axis in enumerate(self.axes) if not axis.frozen)

    @property
    def volume(self) -> float:
        """Product of the axis lengths."""
        return math.prod(axis.length for axis in self.axes)

    def confine(self, points: FloatArray) -> FloatArray:
        """Bring points (N, d) into the closed box: wrap along circles, stop at walls. The projection of a first-order flow."""
        inside = np.clip(points, self.lower, self.upper)
        if not self.periodic.any():
            return inside
        length = self.upper - self.lower
        wrapped = self.lower + np.mod(points - self.lower, length)
        wrapped = np.where(wrapped >= self.upper, self.lower, wrapped)
        return np.where(self.periodic, wrapped, inside)

    def reflect(self, points: FloatArray) -> FloatArray:
        """Bring points (N, d) into the box: wrap along circles, mirror at walls. The rule for steps with noise."""
        length = self.upper - self.lower
        folded = np.mod(points - self.lower, 2.0 * length)
        mirrored = self.lower + np.minimum(folded, 2.0 * length - folded)
        return np.where(self.periodic, self.confine(points), np.clip(mirrored, self.lower, self.upper))

    def contains(self, points: FloatArray) -> BoolArray:
        """Whether each point (N, d) lies in the closed box, (N,)."""
        inside: BoolArray = np.all((points >= self.lower) & (points <= self.upper), axis=1)
        return inside

    def displacement(self, start: FloatArray, end: FloatArray) -> FloatArray:
        """Shortest ``end - start``, broadcast over (..., d): the short way round along circles."""
        step = end - start
        length = np.where(self.periodic, self.upper - self.lower, np.inf)
        with np.errstate(invalid="ignore"):
            turns = np.where(self.periodic, np.round(step / length), 0.0)
        return np.asarray(step - turns * np.where(self.periodic, self.upper - self.lower, 0.0))


@dataclass(frozen=True, eq=False)
class Metric:
    """What fluxes along one axis need of the geometry; arrays on the cells are seen as (before, along, after).

    Two neighbouring centres are ``spacing * scale[before]`` apart, and a flux F through the faces changes the cell averages by
    ``-(area[i + 1] F[i + 1] - area[i] F[i]) / (volume[i] * scale[before])``; ``cross`` times ``area`` is a face's full area.
    Shapes: scale (before,), area (cells + 1,), volume (cells,).
    """

    spacing: float
    scale: FloatArray
    area: FloatArray
    volume: FloatArray
    cross: float


@dataclass(frozen=True)
class Grid:
    """A uniform grid of cells on a domain. Raises ValueError unless there is one positive number of cells for each axis."""

    domain: Domain
    cells: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.cells) != self.domain.dimension:
            raise ValueError(f"cells needs one number for each of the {self.domain.dimension} axes, got {list(self.cells)}")
        if any(count < 1 for count in self.cells):
            raise ValueError(f"cells must be at least 1 along each axis, got {list(self.cells)}")

    @property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(self.cells)

    @cached_property
    def spacing(self) -> FloatArray:
        """Cell widths, (d,)."""
        return np.asarray((self.domain.upper - self.domain.lower) / np.array(self.cells, dtype=float))

    @property
    def cell_volume(self) -> float:
        """Volume of one cell."""
        return float(np.prod(self.spacing))

    @property
    def weight(self) -> float | FloatArray:
        """Cell volumes, as one number where they are equal and as (size,) where they are not."""
        return self.cell_volume

    def metric(self, axis: int) -> Metric:
        """The geometry of the fluxes along one axis."""
        spacing, count = float(self.spacing[axis]), self.cells[axis]
        before = math.prod(self.cells[:axis])
        return Metric(spacing, np.ones(before), np.ones(count + 1), np.full(count, spacing), self.cell_volume / spacing)

    def edges(self, axis: int) -> FloatArray:
        """Cell edges along one axis, (cells + 1,)."""
        ends = self.domain.axes[axis]
        return np.linspace(ends.lower, ends.upper, self.cells[axis] + 1)

    def middles(self, axis: int) -> FloatArray:
        """Cell centres along one axis, (cells,)."""
        edges = self.edges(axis)
        return 0.5 * (edges[1:] + edges[:-1])

    @cached_property
    def centers(self) -> FloatArray:
        """Cell centres, (size, d), the last axis fastest."""
        mesh = np.meshgrid(*(self.middles(k) for k in range(self.domain.dimension)), indexing="ij")
        return np.stack([coordinate.ravel() for coordinate in mesh], axis=1)

    def locate(self, points: FloatArray) -> IntArray:
        """Flat index of the cell that holds each point (N, d) of the closed box, (N,)."""
        inside = self.domain.confine(points)
        places = np.floor((inside - self.domain.lower) / self.spacing).astype(np.int64)
        places = np.clip(places, 0, np.array(self.cells) - 1)
        flat: IntArray = np.ravel_multi_index(tuple(places.T), self.cells).astype(np.int64)
        return flat
