"""The disk as a parameter domain: Cartesian points, a rim without flux, and polar grids."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Axis, Domain, Grid, Metric

_ROUND_OFF = 16.0 * float(np.finfo(float).eps)
_ON_THE_RIM = 1e-12
_FEWEST_ANGLES = 3


@dataclass(frozen=True)
class Disk(Domain):
    """The disk of ``radius`` R about ``center`` c in the plane, with no flux through its rim; points are Cartesian, grids are polar.

    ``coordinates`` are the names of the two axes; ``axes``, ``lower`` and ``upper`` are those of the box around the disk. This is
    the ball that bounds the parameters in mean-field networks, with normal reflection at the rim. ``walls_modelled``: the rim is part
    of the model, not just where the computation is cut off, so that mass at it is nothing to warn of. Raises ValueError for a radius
    that is not positive, numbers that are not finite, or names that are not two different ones.
    """

    axes: tuple[Axis, ...] = field(init=False, repr=False)
    coordinates: tuple[str, str]
    radius: float
    center: tuple[float, float] = (0.0, 0.0)
    walls_modelled: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.coordinates) != 2 or len(self.center) != 2 or self.coordinates[0] == self.coordinates[1]:
            raise ValueError(f"a disk needs two different axis names and two numbers as center, got {self.coordinates} and {self.center}")
        if not (self.radius > 0.0 and math.isfinite(self.radius) and all(math.isfinite(c) for c in self.center)):
            raise ValueError(f"a disk needs a positive finite radius and a finite center, got {self.radius} and {self.center}")
        places = zip(self.coordinates, self.center, strict=True)
        object.__setattr__(self, "axes", tuple(Axis(name, c - self.radius, c + self.radius) for name, c in places))

    @property
    def grid_names(self) -> tuple[str, ...]:
        """Grids are polar."""
        return ("radius", "angle")

    @cached_property
    def box(self) -> Domain:
        """The square around the disk."""
        return Domain(self.axes)

    def describe(self) -> tuple[str, ...]:
        """What it is, in one text."""
        rim = ", whose rim is part of the model" * self.walls_modelled
        return (f"({', '.join(self.names)}) in the disk of radius {self.radius:g} about ({self.center[0]:g}, {self.center[1]:g}){rim}",)

    @cached_property
    def middle(self) -> FloatArray:
        """The centre c, (2,)."""
        return np.array(self.center)

    @property
    def volume(self) -> float:
        """The area πR²."""
        return math.pi * self.radius**2

    def grid(self, cells: tuple[int, ...]) -> "PolarGrid":
        """The polar grid with these numbers of radii and angles."""
        return PolarGrid(self, cells)

    def even_grid(self, count: int) -> "PolarGrid":
        """A polar grid of about ``count``² cells."""
        return PolarGrid(self, ((count + 1) // 2, max(2 * count, 4)))

    def spread(self, unit: FloatArray) -> FloatArray:
        """Points (N, 2) of the unit square to points of the disk, uniform ones to uniform ones."""
        return self.from_polar(np.stack([self.radius * np.sqrt(unit[:, 0]), 2.0 * math.pi * unit[:, 1]], axis=1))

    def reach(self, count: int) -> float:
        """The largest length of a point's first ``count`` coordinates."""
        return math.hypot(*self.center[:count]) + (self.radius if count else 0.0)

    def from_polar(self, polar: FloatArray) -> FloatArray:
        """Points (N, 2) with these radii (of any sign) and angles about the centre."""
        radius, angle = polar[:, 0], polar[:, 1]
        return np.asarray(self.middle + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))

    def to_polar(self, points: FloatArray) -> FloatArray:
        """Radii and angles in [0, 2π) of points (N, 2) about the centre."""
        offset = points - self.middle
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        angle = np.where(angle < 0.0, angle + 2.0 * math.pi, angle)
        return np.stack([np.hypot(offset[:, 0], offset[:, 1]), np.where(angle >= 2.0 * math.pi, 0.0, angle)], axis=1)

    def _from_rim(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Offsets (N, 2) from the centre and their lengths (N, 1)."""
        offset = points - self.middle
        return offset, np.hypot(offset[:, :1], offset[:, 1:])

    def confine(self, points: FloatArray) -> FloatArray:
        """Bring points (N, 2) into the closed disk by the nearest point of it. The projection of a first-order flow."""
        offset, distance = self._from_rim(points)
        inside = self.middle + offset * (self.radius / np.maximum(distance, self.radius))
        return np.where(distance > self.radius, inside, points)

    def reflect(self, points: FloatArray) -> FloatArray:
        """Bring points (N, 2) into the disk by mirrors at the rim along the diameter through each. The rule for steps with noise."""
        offset, distance = self._from_rim(points)
        folded = np.mod(distance + self.radius, 4.0 * self.radius)
        signed = np.minimum(folded, 4.0 * self.radius - folded) - self.radius
        mirrored = self.middle + offset * (signed / np.maximum(distance, self.radius))
        return np.where(distance > self.radius, mirrored, points)

    def contains(self, points: FloatArray) -> BoolArray:
        """Whether each point (N, 2) lies in the closed disk, up to round-off, (N,)."""
        slack = _ROUND_OFF * (self.radius + max(abs(c) for c in self.center))
        inside: BoolArray = self._from_rim(points)[1][:, 0] <= self.radius + slack
        return inside

    def touching(self, points: FloatArray) -> BoolArray:
        """Which points (N, 2) sit on the rim, (N, 1)."""
        touching: BoolArray = self._from_rim(points)[1] >= self.radius * (1.0 - _ON_THE_RIM)
        return touching

    def slide(self, velocity: FloatArray, points: FloatArray, touching: BoolArray) -> FloatArray:
        """The velocity (N, 2) of a first-order flow with a rim: nothing leaves the disk that is ``touching`` it.

        For ``points`` that have overshot the rim ``velocity`` is that at their projection; its part along the rim is scaled by
        their distance, so that their projections go round at the speed of a sliding point.
        """
        offset, distance = self._from_rim(points)
        normal = offset / np.maximum(distance, 1e-300)
        outward = np.sum(velocity * normal, axis=1, keepdims=True)
        along = (velocity - outward * normal) * np.maximum(distance / self.radius, 1.0)
        kept = np.where(touching, np.minimum(outward, 0.0), outward)
        return np.where(touching | (distance > self.radius), along + kept * normal, velocity)


@dataclass(frozen=True)
class PolarGrid(Grid):
    """Radii times angles on a disk: axis 0 is the radius, with the rim as its wall, axis 1 the angle, which is periodic.

    Centres are at the middle radius r_i of a ring, not at the barycentre of its cells: differences of a function at the centres
    over Δr and r_i Δφ are then centred differences of its gradient at the faces, of second order up to the origin, where barycentres
    would be wrong by a fixed part of the gradient; and sums over centres are the midpoint rule in r dr dφ, spectrally accurate
    in the angle. Raises ValueError unless there are a positive number of radii and at least three angles.
    """

    domain: Disk

    def __post_init__(self) -> None:
        if len(self.cells) != 2:
            raise ValueError(f"cells needs one number for the radius and one for the angle, got {list(self.cells)}")
        if self.cells[0] < 1 or self.cells[1] < _FEWEST_ANGLES:
            raise ValueError(f"cells needs at least 1 radius and {_FEWEST_ANGLES} angles, got {list(self.cells)}")

    def periodic(self, axis: int) -> bool:
        """The angle is."""
        return axis == 1

    def walls_modelled(self, axis: int) -> bool:
        """Whether the rim, which is across the radius, is part of the model."""
        return axis == 0 and self.domain.walls_modelled

    @cached_property
    def spacing(self) -> FloatArray:
        """Δr and Δφ, (2,)."""
        return np.asarray(np.array([self.domain.radius, 2.0 * math.pi]) / np.array(self.cells, dtype=float))

    @property
    def cell_volume(self) -> float:
        """There is none."""
        raise AttributeError("the cells of a polar grid differ in volume; use weight")

    @cached_property
    def weight(self) -> FloatArray:
        """Cell volumes r_i Δr Δφ, which are exact, (size,)."""
        return np.repeat(self.middles(0) * float(np.prod(self.spacing)), self.cells[1])

    def metric(self, axis: int) -> Metric:
        """The geometry of the fluxes along the radius, whose faces grow with it, or along the angle, on arcs of every ring."""
        radii, (dr, dphi) = self.middles(0), self.spacing.tolist()
        if axis == 0:
            return Metric(dr, np.ones(1), self.edges(0), radii * dr, dphi)
        return Metric(dphi, radii, np.ones(self.cells[1] + 1), np.full(self.cells[1], dphi), dr)

    def edges(self, axis: int) -> FloatArray:
        """Radii from 0 to R, or angles from 0 to 2π, (cells + 1,)."""
        return np.linspace(0.0, self.domain.radius if axis == 0 else 2.0 * math.pi, self.cells[axis] + 1)

    @cached_property
    def centers(self) -> FloatArray:
        """Cell centres as Cartesian points, (size, 2), the angle fastest."""
        return self.domain.from_polar(self._mesh)

    @cached_property
    def centroids(self) -> FloatArray:
        """Barycentres of the cells as Cartesian points, (size, 2)."""
        return self.domain.from_polar(np.stack([self._barycentre, self._mesh[:, 1]], axis=1))

    @cached_property
    def _barycentre(self) -> FloatArray:
        """The radius of each cell's barycentre, (size,): r_i (1 + (Δr/r_i)²/12) sin(Δφ/2)/(Δφ/2)."""
        radius, (dr, dphi) = self._mesh[:, 0], self.spacing.tolist()
        return np.asarray((radius + dr * dr / (12.0 * radius)) * (math.sin(0.5 * dphi) / (0.5 * dphi)))

    def inner_covariance(self, shares: FloatArray) -> FloatArray:
        """The covariance (2, 2) within the cells when each is filled uniformly with its share (size,) of a unit mass."""
        radius, angle = self._mesh.T
        dr, dphi = self.spacing.tolist()
        square, narrow = radius**2 + 0.25 * dr * dr, math.sin(dphi) / dphi
        along = 0.5 * square * (1.0 + narrow) - self._barycentre**2
        across = 0.5 * square * (1.0 - narrow)
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        arc = np.stack([-ray[:, 1], ray[:, 0]], axis=1)
        return np.asarray((ray * (shares * along)[:, None]).T @ ray + (arc * (shares * across)[:, None]).T @ arc)

    def places(self, at: FloatArray, cells: slice = slice(None)) -> FloatArray:
        """The points (M, 2) of these cells at the place ``at`` (2,), which runs from -1 to 1 along the radius and the angle."""
        return self.domain.from_polar(self._mesh[cells] + 0.5 * self.spacing * at)

    def stretch(self, at: FloatArray, cells: slice = slice(None)) -> FloatArray:
        """r/r_i at the place ``at`` of these cells, (M,)."""
        return np.asarray(1.0 + 0.5 * float(self.spacing[0]) * float(at[0]) / self._mesh[cells, 0])

    def split(self, axis: int, cell: IntArray, share: FloatArray) -> FloatArray:
        """The radius or angle below which this share of a cell's area lies, (N,)."""
        start, end = self.edges(axis)[cell], self.edges(axis)[cell + 1]
        if axis == 1:
            return np.asarray(start + share * (end - start))
        return np.asarray(np.sqrt(start * start + share * (end * end - start * start)))

    def points(self, coordinates: FloatArray) -> FloatArray:
        """Cartesian points (N, 2) of the closed disk from radii and angles."""
        return self.domain.confine(self.domain.from_polar(coordinates))

    def locate(self, points: FloatArray) -> IntArray:
        """Flat index of the cell that holds each point (N, 2) of the closed disk, (N,)."""
        places = np.floor(self.domain.to_polar(points) / self.spacing).astype(np.int64)
        places = np.minimum(places, np.array(self.cells) - 1)
        flat: IntArray = np.ravel_multi_index(tuple(places.T), self.cells).astype(np.int64)
        return flat

    def neighbours(self, points: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """The four cells around each point (N, 2), with the shares of linear interpolation in radius and angle between their
        centres; inside the innermost centres it goes on to the opposite side, beyond the outermost ones there is one radius only."""
        rings, angles = self.cells
        scaled = self.domain.to_polar(points) / self.spacing - 0.5
        low = np.floor(scaled[:, 0]).astype(np.int64)
        for ring, radial in ((low, low + 1.0 - scaled[:, 0]), (low + 1, scaled[:, 0] - low)):
            turned = scaled[:, 1] + np.where(ring < 0, 0.5 * angles, 0.0)
            first = np.floor(turned).astype(np.int64)
            held = np.clip(ring, 0, rings - 1)
            for place, angular in ((first, first + 1.0 - turned), (first + 1, turned - first)):
                yield held * angles + np.mod(place, angles), radial * angular

    def steps(self, points: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
        """Along the radius and the angle the centres (N, 2) of the next and of the last cell, which is the opposite one at the
        origin and that of the point itself at the rim, the distance between them (N,), on the arc for the angle, and the unit
        direction (N, 2)."""
        radius, angle = self._mesh[self.locate(points)].T
        dr, dphi = self.spacing.tolist()
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        outer = np.where(radius + dr > self.domain.radius, radius, radius + dr)
        forth, back = (self.domain.from_polar(np.stack([r, angle], axis=1)) for r in (outer, radius - dr))
        yield forth, back, outer - (radius - dr), ray
        forth, back = (self.domain.from_polar(np.stack([radius, angle + turn], axis=1)) for turn in (dphi, -dphi))
        yield forth, back, 2.0 * radius * dphi, np.stack([-ray[:, 1], ray[:, 0]], axis=1)
