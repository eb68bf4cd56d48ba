"""The plan of a study of regularised recovery, and its parts, carried out one by one into the arrays of its ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray, physical_memory
from mfpde.case import StudyCase
from mfpde.case.errors import CaseError
from mfpde.case.sparse_schema import SparseRecoveryTable
from mfpde.sparse.network import Network
from mfpde.sparse.solver import SparseProblem
from mfpde.study.alone import Desk
from mfpde.tables import estimate_line

if TYPE_CHECKING:
    from mfpde.study.sparse_text import SparseReport

SNAPSHOTS = ("start", "exploration", "end")
MOMENTS = 300
ACCEPTED = 1e-6
"""The gap of a minimiser that is good enough to go on."""
WINDOW = 1e4
"""The decades in which a rate is measured: from so many times the J − J* at which a run ends."""
LATEST_START = 1e-6
"""The share of J* below which they must start."""
FARTHEST = 0.2
"""The angle to the minimiser's neurons within which students with mass must be by then, in radians."""
FEWEST = 8
"""Of times in the last decades, without which no rate is measured."""
_CANCELLED = 1e-13
_PAIR, _USUAL_VELOCITIES = 6e-8, 5000


@dataclass(frozen=True, eq=False)
class SparsePlan:
    """The case and its table."""

    case: StudyCase
    table: SparseRecoveryTable

    @property
    def teacher(self) -> Network:
        """y, with E x_1² of the inputs."""
        part = self.table
        neurons = np.array(part.teacher.neurons, dtype=float)
        moment = part.inputs.scale**2 * (0.5 if part.inputs.law == "circle" else 1.0)
        weights = np.ones(len(neurons)) if part.teacher.weights is None else np.array(part.teacher.weights, dtype=float)
        return Network(neurons, weights, moment)

    def problem(self, place: int) -> SparseProblem:
        """The problem of one λ."""
        return SparseProblem(self.teacher, self.table.path_norm[place])

    def target(self, gap: float) -> float:
        """The share of J* above it at which a run ends: the tolerance, but ten times the gap where that is more."""
        return max(self.table.tolerance, 10.0 * gap)

    @property
    def radius(self) -> float:
        """|w| at the start."""
        return self.table.amplitude if self.table.radius is None else self.table.radius

    @property
    def balanced(self) -> bool:
        """Whether |a| = |w| at the start, which the flow keeps."""
        return self.radius == self.table.amplitude

    @property
    def description(self) -> list[str]:
        """Lines for people."""
        part, count = self.table, len(self.table.teacher.neurons)
        strengths = ", ".join(f"{value:g}" for value in part.path_norm)
        law = "normal" if part.inputs.law == "normal" else "uniform on the circle"
        start = f"|a| = {part.amplitude:g}, |w| = {self.radius:g}"
        return [
            f"J = ½E(∫a relu(w·x)dπ − y)² + λ∫|a||w|dπ, λ = {strengths}; {count} teacher neuron{'s' * (count > 1)} in "
            f"R^{len(part.teacher.neurons[0])}, x {law} (scale {part.inputs.scale:g})",
            f"{part.students} students from {start}, w uniform on its sphere, {part.seeds} start{'s' * (part.seeds > 1)}; until "
            f"J − J* = {part.tolerance:g} J* or t = {part.end:g}",
            *estimate_line(self._seconds, f"some {_USUAL_VELOCITIES} velocities of {part.students} students for each flow"),
        ]

    @property
    def _seconds(self) -> float:
        """About how long all flows take."""
        part = self.table
        pairs = part.students * (part.students + len(part.teacher.neurons))
        return _PAIR * pairs * _USUAL_VELOCITIES * part.seeds * len(part.path_norm)

    @property
    def figures(self) -> tuple[str, ...]:
        """The course of J, and the directions."""
        return ("study-excess", "study-directions")

    def carry_out(self, desk: Desk) -> "SparseReport | None":
        """All parts that have not ended. Raises StepFailed."""
        from mfpde.study.sparse_parts import carry_out

        return carry_out(self, desk)


def plan(case: StudyCase) -> SparsePlan:
    """The plan of a case. Raises CaseError for what does not fit the memory."""
    table = case.table.study
    assert isinstance(table, SparseRecoveryTable)
    needed = 12 * 8 * (table.students + len(table.teacher.neurons)) ** 2
    if needed > physical_memory() // 4:
        raise CaseError(("study", "students"), f"needs about {needed >> 20} MB for all pairs, more than there is; use fewer")
    found = SparsePlan(case, table)
    largest = float(np.sum(np.abs(found.teacher.masses))) ** 2 * found.teacher.moment
    if not found.teacher.square() > _CANCELLED * largest:
        raise CaseError(("study", "teacher"), "its neurons cancel: y = 0, whose minimiser is 0 with J* = 0; nothing is to be recovered")
    return found


def thinned(rows: Sequence[FloatArray]) -> FloatArray:
    """At most MOMENTS of the rows, evenly spread, with the first and the last."""
    picked = np.unique(np.round(np.linspace(0, len(rows) - 1, min(len(rows), MOMENTS))).astype(int))
    return np.array([rows[k] for k in picked])
