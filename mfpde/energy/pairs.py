"""The fastest way to sum a pair kernel over many atoms: sorted on a line, by a series, on a mesh, or over all pairs in compiled loops.

Every way is checked against the kernel before it is used, and chosen by estimates of its cost for the atoms at hand.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.pair_kernel import PairKernel
from mfpde.energy.series import Series, find_series
from mfpde.energy.sorted_pairs import SortedPairs, find_sorted

if TYPE_CHECKING:
    from mfpde.energy.mesh import MeshSums
    from mfpde.energy.radial import CompiledPairs, Radial

_PER_PAIR, _PER_PAIR_BY_NUMPY, _PER_FUNCTION = 4e-9, 2.5e-8, 3e-9
_PER_NODE, _PER_STENCIL_NODE, _PER_NEIGHBOUR, _PER_ATOM = 3e-8, 2.5e-9, 6e-9, 5e-7
_WORTH_A_MESH = 0.1
"""Seconds that sums must take otherwise before meshes are made, which takes about as long."""
_TARGETS, _SOURCES, _ENOUGH = 128, 2048, 40
_MOST_DIMENSIONS = 3
_SMOOTH = 1e-3


class PairSums(Protocol):
    """A way to sum a kernel over atoms."""

    @property
    def description(self) -> str:
        """For people."""

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, d), as (M,)."""

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, d), as (M, d)."""


class FastPairs:
    """The ways there are for one kernel, each made when it is first of use."""

    def __init__(self, kernel: PairKernel) -> None:
        self.kernel = kernel
        self._split: dict[float, MeshSums | None] = {}
        self._full: MeshSums | None = None
        self._untried = 0

    @cached_property
    def smooth(self) -> bool:
        """Whether W is smooth at 0."""
        return self.kernel.resolved(_SMOOTH * self.kernel.extent)

    @cached_property
    def series(self) -> Series | None:
        """W as a series, where it is smooth and that is short."""
        return find_series(self.kernel) if self.smooth else None

    @cached_property
    def sorted(self) -> SortedPairs | None:
        """W as a sum of powers and exponentials on one axis."""
        return find_sorted(self.kernel)

    @cached_property
    def radial(self) -> "Radial | None":
        """W as a function of the distance, in d <= 3."""
        from mfpde.energy.radial import radial_part

        return radial_part(self.kernel) if self.kernel.domain.dimension <= _MOST_DIMENSIONS else None

    @cached_property
    def compiled(self) -> "CompiledPairs | None":
        """All pairs in compiled loops, where W is a function of the distance that a table can hold."""
        from mfpde.energy.radial import CompiledPairs, tabulate

        if self.radial is None:
            return None
        table = tabulate(self.radial, 1.01 * float(np.linalg.norm(self.kernel.extent)), self.kernel.at_zero or 0.0)
        return None if table is None else CompiledPairs(self.kernel.domain, table)

    def choose(self, points: FloatArray, at: FloatArray) -> PairSums | None:
        """The fastest way to sum over atoms at ``points`` (N, d) for points ``at`` (M, d); None for all pairs in plain NumPy."""
        domain, atoms = self.kernel.domain, len(points) + len(at)
        inside = bool(domain.periodic.all() or (domain.box.contains(at).all() and domain.box.contains(points).all()))
        if self.sorted is not None:
            return self.sorted
        best: PairSums | None = None
        cost = _PER_PAIR_BY_NUMPY * len(points) * len(at)
        if inside and self.series is not None:
            by_series = _PER_FUNCTION * (self.series.size + 4) * atoms
            if by_series < cost:
                best, cost = self.series, by_series
        if domain.dimension > _MOST_DIMENSIONS:
            return best
        if _PER_PAIR * len(points) * len(at) < cost and self.compiled is not None and self._holds(points, at):
            best, cost = self.compiled, _PER_PAIR * len(points) * len(at)
        return self._mesh(points, at, cost) or best if inside and cost > _WORTH_A_MESH else best

    def _holds(self, points: FloatArray, at: FloatArray) -> bool:
        """Whether no difference is longer than those that the table holds."""
        domain = self.kernel.domain
        low, high = np.minimum(points.min(axis=0), at.min(axis=0)), np.maximum(points.max(axis=0), at.max(axis=0))
        return bool(np.all(domain.periodic | (high - low <= self.kernel.extent * (1.0 + 1e-9))))

    def _mesh(self, points: FloatArray, at: FloatArray, cost: float) -> "MeshSums | None":
        """The fastest mesh that takes less than ``cost``."""
        if self.radial is not None and self.compiled is None:
            return None  # a kink somewhere else than at 0, which takes all waves
        if self.smooth and (whole := self._whole(len(points) + len(at), cost)) is not None:
            return whole
        if self.radial is None:
            return None
        from mfpde.energy.mesh import blend_of

        shares = _Neighbours(self.kernel, points, at)
        pairs = float(len(points)) * len(at)
        options = sorted(
            (self._cost(len(points) + len(at), b) + _PER_NEIGHBOUR * pairs * shares.within(blend_of(b)), b) for b in self._bands
        )
        for estimate, band in options:
            if estimate >= cost:
                break
            if (found := self._split_mesh(band)) is not None:
                return found
        return None

    @cached_property
    def _bands(self) -> list[float]:
        """Wave numbers at which meshes may end: neighbours from half of the longest difference on, by roots of two."""
        from mfpde.energy.mesh import MOST_NODES, blend_of, nodes_of

        first = blend_of(1.0) / (0.5 * float(np.max(self.kernel.extent)))
        bands = [first * 2.0 ** (0.5 * k) for k in range(60)]
        return [band for band in bands if nodes_of(self.kernel.domain, band) <= 0.9 * MOST_NODES]

    def _cost(self, atoms: int, band: float) -> float:
        """Seconds for the waves up to this number."""
        from mfpde.energy.mesh import nodes_of
        from mfpde.energy.window import WIDTH

        dimension = self.kernel.domain.dimension
        nodes, stencil = nodes_of(self.kernel.domain, band), float(WIDTH**dimension)
        return _PER_NODE * (1 + dimension) * nodes + atoms * (_PER_ATOM + _PER_STENCIL_NODE * stencil)

    def _whole(self, atoms: int, cost: float) -> "MeshSums | None":
        """The coarsest mesh on which the whole kernel is accurate, looked for as long as it would take less than ``cost``."""
        from mfpde.energy.mesh import accurate, make_mesh

        while self._full is None and self._untried < len(self._bands) and self._cost(atoms, self._bands[self._untried]) < cost:
            found = make_mesh(self.kernel, self._bands[self._untried], None)
            self._full = found if found is not None and accurate(self.kernel, found) else None
            self._untried += self._full is None
        useful = self._full is not None and self._cost(atoms, self._bands[self._untried]) < cost
        return self._full if useful else None

    def _split_mesh(self, band: float) -> "MeshSums | None":
        from mfpde.energy.mesh import STEPS, accurate, make_mesh

        if band not in self._split:
            made = (make_mesh(self.kernel, band, self.radial, end) for end in STEPS)
            self._split[band] = next((mesh for mesh in made if mesh is not None and accurate(self.kernel, mesh)), None)
        return self._split[band]


class _Neighbours:
    """The share of pairs within a distance, by some of the atoms, evenly picked."""

    def __init__(self, kernel: PairKernel, points: FloatArray, at: FloatArray) -> None:
        targets, sources = at[:: max(1, len(at) // _TARGETS)], points[:: max(1, len(points) // _SOURCES)]
        steps = kernel.domain.displacement(sources, targets[:, None, :])
        self.distances = np.sort(np.linalg.norm(steps, axis=2).ravel())
        self.dimension = kernel.domain.dimension

    def within(self, reach: float) -> float:
        """The share of all pairs; where there are too few to tell, it falls like the volume."""
        count = int(np.searchsorted(self.distances, reach))
        if count >= _ENOUGH:
            return count / len(self.distances)
        enough = min(_ENOUGH, len(self.distances) - 1)
        far = max(float(self.distances[enough]), reach)
        return (enough + 1) / len(self.distances) * (reach / far) ** self.dimension
