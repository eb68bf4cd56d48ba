"""Parameter domains: boxes of named axes that are no-flux intervals, circles or frozen, and uniform grids on them.

``mfpde.disk`` holds the other shape; its names can be imported from here as well.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from mfpde.disk import Disk as Disk
    from mfpde.disk import PolarGrid as PolarGrid
else:

    def __getattr__(name: str) -> Any:
        if name not in ("Disk", "PolarGrid"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("mfpde.disk"), name)  # when asked for, since that module is built on this one


@dataclass(frozen=True)
class Axis:
    """One coordinate of the domain, ``lower <= coordinate <= upper``.

    A plain axis ends in no-flux walls; a ``periodic`` one is a circle of length ``upper - lower``; along a ``frozen`` one
    nothing moves. ``walls_modelled``: the walls are part of the model, not just where the computation is cut off, so that mass at them
    is nothing to warn of. Raises ValueError for bounds that are not finite and increasing, an axis both periodic and frozen, or
    one of these with modelled walls.
    """

    name: str
    lower: float
    upper: float
    periodic: bool = False
    frozen: bool = False
    walls_modelled: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise ValueError(f"axis {self.name!r} needs finite lower < upper, got lower = {self.lower}, upper = {self.upper}")
        if not math.isfinite(self.upper - self.lower):
            raise ValueError(f"axis {self.name!r} is too long: upper - lower overflows")
        if self.periodic and self.frozen:
            raise ValueError(f"axis {self.name!r} cannot be both periodic and frozen")
        if self.walls_modelled and (self.periodic or self.frozen):
            raise ValueError(f"axis {self.name!r} is {'periodic' if self.periodic else 'frozen'}: no walls stop the flow along it")

    @property
    def length(self) -> float:
        """``upper - lower``."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Domain:
    """A box of axes, d >= 1; ``mfpde.disk.Disk`` is the other shape. Raises ValueError for no axes or repeated names."""

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

    @property
    def grid_names(self) -> tuple[str, ...]:
        """The names of the coordinates along which a grid is divided."""
        return self.names

    @property
    def box(self) -> "Domain":
        """The smallest box around the domain."""
        return self

    def describe(self) -> tuple[str, ...]:
        """What it is, in one text for each axis."""
        words = {"periodic": " periodic", "frozen": " frozen", "walls_modelled": " between walls that are part of the model"}
        kinds = ("".join(text for name, text in words.items() if getattr(axis, name)) for axis in self.axes)
        return tuple(f"{a.name} in [{a.lower:g}, {a.upper:g}]{kind}" for a, kind in zip(self.axes, kinds, strict=True))

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

    def grid(self, cells: tuple[int, ...]) -> "Grid":
        """The uniform grid with these numbers of cells."""
        return Grid(self, cells)

    def even_grid(self, count: int) -> "Grid":
        """A grid of ``count`` cells along each axis."""
        return Grid(self, (count,) * self.dimension)

    def spread(self, unit: FloatArray) -> FloatArray:
        """Points (N, d) of the unit cube to points of the domain, uniform ones to uniform ones."""
        return np.asarray(self.lower + unit * (self.upper - self.lower))

    def reach(self, count: int) -> float:
        """The largest length of a point's first ``count`` coordinates."""
        return float(np.linalg.norm(np.maximum(np.abs(self.lower), np.abs(self.upper))[:count]))

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

    def touching(self, points: FloatArray) -> BoolArray:
        """Which walls each point (N, d) sits on: those at the lower ends, then those at the upper ones, (N, 2d)."""
        wall = ~self.periodic
        return np.concatenate([(points <= self.lower) & wall, (points >= self.upper) & wall], axis=1)

    def slide(self, velocity: FloatArray, points: FloatArray, touching: BoolArray) -> FloatArray:
        """The velocity (N, d) of a first-order flow with walls: nothing leaves through a wall that it is ``touching``, and nothing
        moves along frozen axes. ``points`` may have overshot other walls, where ``confine`` puts them in the end."""
        low = np.where(touching[:, : self.dimension], 0.0, -np.inf)
        high = np.where(touching[:, self.dimension :], 0.0, np.inf)
        return np.asarray(np.clip(velocity, np.where(self.frozen, 0.0, low), np.where(self.frozen, 0.0, high)))


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
    """A uniform grid of cells on a box, made by ``domain.grid``; ``mfpde.disk.PolarGrid`` is that of a disk.

    Raises ValueError unless there is one positive number of cells for each axis.
    """

    domain: Domain
    cells: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.domain.box is not self.domain:
            raise ValueError("the grids of a disk are polar: make them with domain.grid(cells)")
        if len(self.cells) != self.domain.dimension:
            raise ValueError(f"cells needs one number for each of the {self.domain.dimension} axes, got {list(self.cells)}")
        if any(count < 1 for count in self.cells):
            raise ValueError(f"cells must be at least 1 along each axis, got {list(self.cells)}")

    @property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(self.cells)

    @property
    def moving(self) -> tuple[int, ...]:
        """Indices of the grid's axes along which mass moves."""
        return self.domain.moving

    def periodic(self, axis: int) -> bool:
        """Whether the first and the last cell along an axis are neighbours."""
        return self.domain.axes[axis].periodic

    def walls_modelled(self, axis: int) -> bool:
        """Whether the walls across an axis are part of the model."""
        return self.domain.axes[axis].walls_modelled

    @cached_property
    def cutoff_cells(self) -> IntArray:
        """Flat indices of the cells at walls that are not part of the model, across the axes along which mass moves. Mass that gathers
        there says that the domain is too small."""
        touching = np.zeros(self.cells, dtype=bool)
        for axis in self.moving:
            if self.periodic(axis) or self.walls_modelled(axis):
                continue
            area = self.metric(axis).area
            for end in (0, -1):
                if area[end] > 0.0:
                    np.moveaxis(touching, axis, 0)[end] = True
        return np.flatnonzero(touching)

    @cached_property
    def spacing(self) -> FloatArray:
        """Cell widths along the grid's axes, (d,)."""
        return np.asarray((self.domain.upper - self.domain.lower) / np.array(self.cells, dtype=float))

    @property
    def cell_volume(self) -> float:
        """Volume of one cell. Raises AttributeError where they differ, for which there is ``weight``."""
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
    def _mesh(self) -> FloatArray:
        """The middles of all cells in the grid's coordinates, (size, d), the last axis fastest."""
        mesh = np.meshgrid(*(self.middles(k) for k in range(self.domain.dimension)), indexing="ij")
        return np.stack([coordinate.ravel() for coordinate in mesh], axis=1)

    @property
    def centers(self) -> FloatArray:
        """Cell centres as points of the domain, (size, d), the last axis fastest."""
        return self._mesh

    @property
    def centroids(self) -> FloatArray:
        """Barycentres of the cells, (size, d)."""
        return self.centers

    def inner_covariance(self, shares: FloatArray) -> FloatArray:
        """The covariance (d, d) within the cells when each is filled uniformly with its share (size,) of a unit mass."""
        return np.diag(float(np.sum(shares)) * self.spacing**2 / 12.0)

    def places(self, at: FloatArray, cells: slice = slice(None)) -> FloatArray:
        """The points (M, d) of these cells at the place ``at`` (d,), which runs from -1 to 1 along each of the grid's axes."""
        return np.asarray(self.centers[cells] + 0.5 * self.spacing * at)

    def stretch(self, at: FloatArray, cells: slice = slice(None)) -> float | FloatArray:
        """The volume element at the place ``at`` of these cells over its mean in the cell, one number or (M,)."""
        return 1.0

    def split(self, axis: int, cell: IntArray, share: FloatArray) -> FloatArray:
        """The coordinate along ``axis`` below which this share of a cell's volume lies, (N,)."""
        return np.asarray(self.edges(axis)[cell] + share * self.spacing[axis])

    def points(self, coordinates: FloatArray) -> FloatArray:
        """Points (N, d) of the closed domain from the grid's coordinates."""
        return self.domain.confine(coordinates)

    def locate(self, points: FloatArray) -> IntArray:
        """Flat index of the cell that holds each point (N, d) of the closed domain, (N,)."""
        inside = self.domain.confine(points)
        places = np.floor((inside - self.domain.lower) / self.spacing).astype(np.int64)
        places = np.clip(places, 0, np.array(self.cells) - 1)
        flat: IntArray = np.ravel_multi_index(tuple(places.T), self.cells).astype(np.int64)
        return flat

    def neighbours(self, points: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """The cells around each point (N, d) as flat indices (N,), with the shares (N,) of linear interpolation between their
        centres; beyond the last centre before a wall and along frozen axes there is one cell only."""
        inside = self.domain.confine(points)
        last = np.array(self.cells) - 1
        scaled = (inside - self.domain.lower) / self.spacing - 0.5
        scaled = np.where(self.domain.frozen, np.round(scaled), scaled)
        low = np.floor(scaled).astype(np.int64)
        upper = scaled - low
        for corner in product((0, 1), repeat=self.domain.dimension):
            places = low + np.array(corner)
            places = np.where(self.domain.periodic, np.mod(places, last + 1), np.clip(places, 0, last))
            share = np.prod(np.where(np.array(corner) == 1, upper, 1.0 - upper), axis=1)
            yield np.ravel_multi_index(tuple(places.T), self.cells).astype(np.int64), share

    def steps(self, points: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
        """Along each of the grid's axes the centres (N, d) of the next and of the last cell, that of the point itself at walls,
        the distance between them (N,) and the unit direction (N, d)."""
        places = np.stack(np.unravel_index(self.locate(points), self.cells), axis=1)
        for k, count in enumerate(self.cells):
            ends, moved = [], []
            for step in (1, -1):
                place = np.array(places)
                place[:, k] = np.mod(place[:, k] + step, count) if self.periodic(k) else np.clip(place[:, k] + step, 0, count - 1)
                ends.append(self.centers[np.ravel_multi_index(tuple(place.T), self.cells)])
                moved.append(np.full(len(place), step) if self.periodic(k) else place[:, k] - places[:, k])
            width = self.spacing[k] * np.maximum(moved[0] - moved[1], 1)
            yield ends[0], ends[1], width, np.broadcast_to(np.eye(len(self.cells))[k], points.shape)
