"""What atoms are held by at the minimiser of a step besides walls: kinks of the first variation, and other atoms that they have met."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.solvers.jko.kink_planes import Planes, find_kinks, released
from mfpde.solvers.jko.positions import Descended, Objective
from mfpde.solvers.jko.ties import Ties, gathered, let_go


@dataclass(frozen=True, eq=False)
class Holds:
    """``planes`` and ``ties``; where a group is held to planes, each of its atoms is held to the same."""

    planes: Planes
    ties: Ties

    @staticmethod
    def unpacked(flat: FloatArray, objective: Objective) -> "Holds":
        """From ``packed``."""
        dimension = objective.domain.dimension
        rows = flat.reshape(-1, dimension + 2)
        kinks, met = rows[rows[:, 1] < 0.0], rows[rows[:, 1] >= 0.0]
        planes = Planes(kinks[:, 0].astype(np.int64), np.ascontiguousarray(kinks[:, 2:]))
        return Holds(planes, Ties.of(met[:, 0].astype(np.int64), met[:, 1].astype(np.int64), objective.weights))

    @property
    def packed(self) -> FloatArray:
        """One flat array: for each hold the atom, its group or −1 for a plane, and the normal, ((P + T) (d + 2),)."""
        planes, ties = self.planes, self.ties
        kinks = np.column_stack([planes.atoms, np.full(len(planes), -1.0), planes.normals])
        met = np.column_stack([ties.atoms, ties.groups, np.zeros((len(ties), planes.normals.shape[1]))])
        return np.ravel(np.concatenate([kinks, met])).astype(float)

    def __len__(self) -> int:
        return len(self.planes) + len(self.ties)

    def same(self, other: "Holds") -> bool:
        """Whether these are those of the ``other``, of which they are parts."""
        return len(self) == len(other) and np.array_equal(self.ties.groups, other.ties.groups)

    def project(self, field: FloatArray) -> FloatArray:
        """The part of a field (N, d) that the holds leave."""
        return self.planes.project(self.ties.project(field))

    def without(self, moved: BoolArray, objective: Objective) -> "Holds":
        """Those of the other atoms than the ``moved`` ones (N,)."""
        kept = ~moved[self.ties.atoms]
        ties = Ties.of(self.ties.atoms[kept], self.ties.groups[kept], objective.weights)
        return Holds(self.planes.kept(np.flatnonzero(~moved[self.planes.atoms])), ties)

    def needed(self, objective: Objective, at: Descended, target: FloatArray, sigma: float, close: float) -> "Holds":
        """Those without which the objective would not fall."""
        planes = released(objective, at, self.planes, self.ties, target, sigma, close)
        return Holds(planes, let_go(objective, at, self.ties, target, sigma, close))

    def more(
        self, objective: Objective, at: Descended, target: FloatArray, sigma: float, close: float
    ) -> "tuple[Holds, FloatArray] | None":
        """Holds with those of atoms that do not come to rest, and the points (N, d) moved onto them; None where there are none."""
        kinks = find_kinks(objective, at, self.ties, target, sigma, close)
        if kinks is not None and not kinks.joint:
            return Holds(self.planes.joined(kinks.planes), self.ties), kinks.points
        ties = gathered(objective, at, self.ties, sigma, close)
        if ties is None:
            return None if kinks is None else (Holds(self.planes.joined(kinks.planes), self.ties), kinks.points)
        free = np.flatnonzero(~np.isin(self.planes.atoms, ties.atoms))
        return Holds(self.planes.kept(free), ties), ties.together(objective, at.place.points)
