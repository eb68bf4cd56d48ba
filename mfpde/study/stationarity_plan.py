"""What a [study] of kind "stationarity" asks for, checked before anything is solved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.case import CaseFile
from mfpde.case.build import check_cells, teacher_of
from mfpde.case.errors import CaseError, nearest, shown
from mfpde.case.stationarity_schema import StationarityTable
from mfpde.domain import Domain
from mfpde.energy.visibility import Spectrum
from mfpde.energy.wide_resnets import WideResNet
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.study.limit_plan import chosen_times
from mfpde.study.readings import PlannedRun
from mfpde.study.stationarity import NETWORKS, Network, Setting, Teacher, inputs_of, read_course
from mfpde.study.stationarity_text import StationarityReport

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

_USUAL_CELLS = {1: (128,), 2: (32, 32), 3: (12, 12, 12)}
_TEACHER_CELLS = {1: 4096, 2: 128, 3: 32}
_MASS = 1e-9
_NEAR = 0.01


@dataclass(frozen=True, eq=False)
class StationarityPlan:
    """The case's own runs, and what is read from them."""

    case: CaseFile
    table: StationarityTable
    runs: tuple[PlannedRun, ...]
    setting: Setting
    times: tuple[float, ...]
    distance: float
    notes: list[str]
    figures: tuple[str, ...] = ("study-stationarity", "study-visibility")

    @property
    def description(self) -> str:
        """One line for people."""
        names = ", ".join(run.label for run in self.runs)
        return f"stationary condition {self.setting.condition} of {self.setting.term} along {names}, at {len(self.times)} times"

    def read(self, stored: "Mapping[str, StoredRun]") -> StationarityReport:
        """Residuals, norms and distances of all runs."""
        spectra: dict[Any, Spectrum] = {}
        courses = tuple(read_course(stored[run.label], self.times, self.setting, spectra) for run in self.runs)
        return StationarityReport(self.case.table.title, courses, self.setting, self.table, self.distance, tuple(self.notes))


def plan(case: CaseFile, table: StationarityTable, problem: Problem) -> StationarityPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    number, term = _term(case, problem)
    network: Any = problem.energy.terms[term]
    runs = tuple(PlannedRun(case, k, problem) for k in _solvers(case, table))
    times = chosen_times(table.times, problem, problem.save_at)
    try:
        inputs = inputs_of(network, problem.domain)
    except ValueError as error:
        raise CaseError(("energy", number), str(error)) from error
    teacher = _teacher(case, number, problem.domain)
    cells = _cells(case, table, runs, problem)
    setting = Setting(network, problem.domain, condition_of(network), term, inputs, teacher, cells, table.threshold)
    moving = list(problem.domain.moving)
    reach = float(np.linalg.norm((problem.domain.upper - problem.domain.lower)[moving]))
    notes = [f"ρ*: {teacher.words}"]
    others = [name for name in problem.energy.terms if name != term]
    if others:
        more = ", ".join(others)
        notes.append(f"the condition is about {term} alone; with {more} in the energy stationary states are those without dissipation")
    return StationarityPlan(case, table, runs, setting, times, table.distance or _NEAR * reach, notes)


def condition_of(network: Network) -> str:
    """The equation of the paper that the residual is that of."""
    if isinstance(network, WideResNet):
        return "(11)" if network.network.approximation == "first" else "X^L = y"
    examples = network.examples
    if examples is not None and examples.branch is not None:
        return "(5)"
    return "(13)" if examples is not None and examples.outputs.trained else "(4)"


def _term(case: CaseFile, problem: Problem) -> tuple[int, str]:
    """The index of the network among the energy's tables, and its name."""
    tables = [k for k, table in enumerate(case.table.energy) if getattr(table, "teacher", None) is not None]
    names = [name for name, term in problem.energy.terms.items() if isinstance(term, NETWORKS)]
    if not names:
        kinds = ", ".join(table.kind for table in case.table.energy)
        raise CaseError(("study", "kind"), f'"stationarity" is about networks, and the energy has none ({kinds})')
    if len(names) > 1:
        raise CaseError(("study", "kind"), f'"stationarity" is about one network, and the energy has {len(names)}: {", ".join(names)}')
    return tables[0], names[0]


def _solvers(case: CaseFile, table: StationarityTable) -> list[int]:
    for k, label in enumerate(table.solvers or []):
        if label not in case.labels:
            names = ", ".join(case.labels)
            raise CaseError(("study", "solvers", k), f"got {shown(label)}; accepted: {names}{nearest(label, case.labels)}")
    return [k for k, label in enumerate(case.labels) if table.solvers is None or label in table.solvers]


def _cells(case: CaseFile, table: StationarityTable, runs: tuple[PlannedRun, ...], problem: Problem) -> tuple[int, ...] | None:
    """Those on which particles become densities."""
    if table.cells is not None:
        check_cells(list(table.cells), problem.domain, ("study", "cells"))
        return tuple(table.cells)
    for run in runs:
        cells = getattr(case.table.solver[run.number], "cells", None)
        if cells is not None:
            return tuple(cells)
    return _USUAL_CELLS.get(problem.domain.dimension)


def _teacher(case: CaseFile, number: int, domain: Domain) -> Teacher:
    """ρ* of the network's table."""
    found = teacher_of(case, number, domain)
    if found is None:
        return Teacher(None, None, "none, since the targets are data; the residual is that at the samples")
    if isinstance(found, DensityFunction):
        if domain.dimension not in _TEACHER_CELLS:
            return Teacher(None, found, "a density, in too many dimensions for distances")
        return Teacher(found.on(domain.even_grid(_TEACHER_CELLS[domain.dimension])), found, "a density")
    if found.points.shape[1] != domain.dimension or found.weights.shape[1] > 1:
        return Teacher(None, None, "none that is unique, since neurons with output weights can be a measure of θ and w in many ways")
    weights = found.weights[:, 0]
    if np.min(weights) <= 0.0 or abs(float(np.sum(weights)) - 1.0) > _MASS:
        return Teacher(None, None, "none, since the teacher's weights are not those of a probability measure")
    if not domain.contains(found.points).all():
        return Teacher(None, None, "none on the domain, since neurons of the teacher lie outside it")
    many = f"{len(weights)} neuron{'s' * (len(weights) > 1)}"
    return Teacher(Particles(found.points, weights), None, f"{many}, without a density; norms in L2(dθ) would depend on the grid")
