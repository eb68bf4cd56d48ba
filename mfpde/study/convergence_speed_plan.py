"""What a [study] of kind "convergence_speed" asks for: the solvers of the case, and a teacher of atoms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case import CaseFile, schema
from mfpde.case.convergence_speed_schema import ConvergenceSpeedTable
from mfpde.case.errors import CaseError, Key, nearest, shown
from mfpde.energy import TwoLayer
from mfpde.problem import Problem
from mfpde.study.clusters import EVEN
from mfpde.study.convergence_speed import AtomicTeacher, measure_speed, theory_of
from mfpde.study.convergence_speed_text import SpeedReport
from mfpde.study.linearised import MOST_FEATURES
from mfpde.study.readings import PlannedRun

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class SpeedPlan:
    """The runs whose clusters are followed around the atoms of the ``teacher``."""

    case: CaseFile
    table: ConvergenceSpeedTable
    runs: tuple[PlannedRun, ...]
    energy: TwoLayer
    teacher: AtomicTeacher
    activation: str
    figures: tuple[str, ...] = ("study-speed", "study-clusters")

    @property
    def description(self) -> str:
        """One line for people."""
        labels = ", ".join(run.label for run in self.runs)
        return f"convergence speed of the clusters around {len(self.teacher.alpha)} teacher atoms: {labels}"

    @property
    def notes(self) -> list[str]:
        """What is folded."""
        return [f"{self.activation} is even: θ and −θ are one neuron, and are counted as one"] if self.teacher.even else []

    def read(self, stored: "Mapping[str, StoredRun]") -> SpeedReport:
        """Clusters and rates of all runs. Raises ValueError for runs without saved times."""
        theory = theory_of(self.energy, self.teacher)
        speeds = tuple(measure_speed(stored[run.label], self.energy, self.teacher, self.table.linearity) for run in self.runs)
        title = self.case.table.title or self.case.path.stem
        return SpeedReport(title, self.table, self.activation, theory, speeds)


def plan(case: CaseFile, table: ConvergenceSpeedTable, problem: Problem) -> SpeedPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    term = _term(case)
    energy = next(iter(problem.energy.terms.values()))
    if not isinstance(energy, TwoLayer):
        raise CaseError(("energy", 0, "expectation"), "this study needs the features of a quadrature; leave `expectation` out")
    if energy.features.rank > MOST_FEATURES:
        words = (
            f"this study follows at most {MOST_FEATURES} features, and here are {energy.features.rank}; set a `tolerance` or fewer inputs"
        )
        raise CaseError(("energy", 0), words)
    teacher = _teacher(term)
    if problem.domain.frozen.any():
        raise CaseError(("domain",), "this study needs axes along which neurons move; one of them is frozen")
    runs = tuple(PlannedRun(case, number, problem) for number in _numbers(case, table))
    return SpeedPlan(case, table, runs, energy, teacher, term.activation)


def _term(case: CaseFile) -> schema.TwoLayerTerm:
    """The network, which must be all of the energy, and no more than σ(x·θ) with a vector θ."""
    found = case.table.energy[0]
    if len(case.table.energy) > 1:
        raise CaseError(("energy", 1), "this study needs an energy of a single term, a network, whose clusters converge to its teacher")
    if not isinstance(found, schema.TwoLayerTerm):
        raise CaseError(("energy", 0, "kind"), f'this study is of kind = "two_layer", got {shown(found.kind)}')
    accepted = {"output": "fixed", "outputs": 1, "parameter": "vector", "decay": None}
    for name, value in accepted.items():
        if getattr(found, name) != value:
            words = "without it" if value is None else f"with {name} = {shown(value)}"
            raise CaseError(("energy", 0, name), f"this study is of networks {words}, got {shown(getattr(found, name))}")
    return found


def _teacher(term: schema.TwoLayerTerm) -> AtomicTeacher:
    key: Key = ("energy", 0, "teacher")
    rows = term.teacher.neurons
    if rows is None:
        kind = "a density" if term.teacher.density is not None else "data"
        raise CaseError(key, f"this study needs a teacher of a few `neurons`, to which clusters can converge, got {kind}")
    if len(rows) < 2:
        raise CaseError((*key, "neurons"), f"this study compares at least two neurons, got {len(rows)}")
    atoms = np.array(rows, dtype=float)
    alpha = np.array([w[0] for w in term.teacher.weights] if term.teacher.weights else [1.0 / len(rows)] * len(rows))
    if not np.all(alpha > 0.0):
        raise CaseError((*key, "weights"), f"the student is a probability, so the teacher's weights must be positive, got {min(alpha):g}")
    even = term.activation in EVEN
    twins = _twins(atoms, even)
    if twins is not None:
        same = "the same neuron" + (f", as {term.activation} is even" if even else "")
        raise CaseError((*key, "neurons"), f"needs neurons that differ, but {rows[twins[0]]} and {rows[twins[1]]} are {same}")
    return AtomicTeacher(atoms, alpha, even)


def _twins(atoms: FloatArray, even: bool) -> tuple[int, int] | None:
    """Two atoms that are the same neuron, if there are some."""
    for k in range(1, len(atoms)):
        gaps = np.max(np.abs(atoms[:k] - atoms[k]), axis=1)
        if even:
            gaps = np.minimum(gaps, np.max(np.abs(atoms[:k] + atoms[k]), axis=1))
        if np.min(gaps) <= _SAME * max(1.0, float(np.max(np.abs(atoms)))):
            return int(np.argmin(gaps)), k
    return None


def _numbers(case: CaseFile, table: ConvergenceSpeedTable) -> list[int]:
    """The solvers that follow the flow in time."""
    moving = [label for label, solver in zip(case.labels, case.table.solver, strict=True) if solver.kind != "stationary"]
    for label in table.solvers or []:
        if label not in moving:
            accepted = ", ".join(moving) or "none in this case"
            raise CaseError(("study", "solvers"), f"got {shown(label)}; accepted: {accepted}{nearest(label, moving)}")
    if not moving:
        raise CaseError(("study",), "this study needs a solver that follows the flow in time, and there is none in this case")
    return [case.labels.index(label) for label in moving if label in (table.solvers or moving)]
