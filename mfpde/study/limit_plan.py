"""What a [study] of kind "particle_limit" asks for, checked against the case before anything is solved."""

from dataclasses import dataclass, field

import numpy as np

from mfpde.arrays import physical_memory
from mfpde.case import CaseFile, schema
from mfpde.case.build import BYTES_OF_AN_ATOM
from mfpde.case.errors import CaseError, nearest, shown
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.study.quantities import ROWS, known_quantities, usual_quantities

ALLOWANCE = 0.03
_COPIES = 4


@dataclass(frozen=True, eq=False)
class LimitPlan:
    """Particles of the solver ``number`` against the run of the solver ``other``."""

    case: CaseFile
    table: schema.ParticleLimitTable
    number: int
    other: int
    times: tuple[float, ...]
    quantities: tuple[str, ...]
    quantile: bool
    notes: list[str] = field(default_factory=list)

    @property
    def solver(self) -> str:
        """The label of the particles."""
        return self.case.labels[self.number]

    @property
    def reference(self) -> str:
        """The label of what stands for the PDE."""
        return self.case.labels[self.other]

    @property
    def allowance(self) -> float:
        """By how much intervals are widened."""
        return ALLOWANCE if self.table.allowance is None else self.table.allowance

    @property
    def expected(self) -> dict[str, float]:
        """Slopes by the rows of the table."""
        return self.table.expected.by_row if self.table.expected else {}

    @property
    def labels(self) -> list[str]:
        """The runs that are stored whole."""
        return [self.reference]

    @property
    def description(self) -> str:
        """One line for people."""
        counts = ", ".join(str(count) for count in self.table.counts)
        times = ", ".join(f"{time:g}" for time in self.times)
        what = f"{self.table.runs} runs each of {counts} atoms ({self.solver}) against {self.reference} at t = {times}"
        return f"particle limit: {what}; {', '.join(self.quantities)}"


def plan_limit(case: CaseFile, table: schema.ParticleLimitTable, problem: Problem) -> LimitPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    number = _particles(case, table)
    solver = case.table.solver[number]
    assert isinstance(solver, schema.ParticleSolver)
    if not isinstance(problem.initial, DensityFunction):
        raise CaseError(("initial",), "a particle limit draws its atoms from a density, but the initial measure is atoms; give a density")
    most = max(table.counts) * problem.domain.dimension * BYTES_OF_AN_ATOM
    if most > physical_memory():
        raise CaseError(("study", "counts"), f"{max(table.counts)} atoms need about {most >> 30} GB, more than there is")
    other = _reference(case, table, number)
    known = known_quantities(problem)
    if missing := [name for name in table.quantities or () if name not in known]:
        raise CaseError(("study", "quantities"), f"this problem has no {missing[0]}; accepted: {', '.join(known)}")
    quantities = tuple(name for name in known if name in (table.quantities or usual_quantities(problem)))
    rows = [row.key for row in ROWS if row.quantity in quantities]
    for name in table.expected.by_row if table.expected else {}:
        if name not in rows:
            raise CaseError(("study", "expected", name), f"is none of the rows of this study: {', '.join(rows)}")
    noisy = problem.energy.temperature > 0.0 and solver.diffusion == "noise"
    stochastic = noisy or solver.batch is not None
    if table.quantile and stochastic:
        raise CaseError(("study", "quantile"), "one run from quantiles has no error bars where there is noise; leave it out")
    if case.labels[other] == f"{case.labels[number]}-runs":
        raise CaseError(
            ("solver", other, "label"), f'"{case.labels[other]}" is the name of the runs of the study; give this solver another'
        )
    own = sorted({"seed", "start"} & solver.model_fields_set)
    notes = [f"its own {' and '.join(own)} count for nothing here: the runs draw at random from the study's seed"] if own else []
    if case.table.solver[other].kind == "particles":
        notes.append("the reference is particles, whose own fluctuations are in every row: it should have some hundred times the atoms")
    if len(problem.domain.moving) > 1 and {"w2", "w1"} & set(quantities):
        notes.append(
            "w2 and w1 in several dimensions are exact transport, seconds for each run; sliced is quicker, and falls like N^(-1/2)"
        )
    quantile = not stochastic if table.quantile is None else table.quantile
    usual = tuple(dict.fromkeys((problem.save_at[0], problem.save_at[-1])))
    times = chosen_times(table.times, problem, usual)
    needed = 8 * len(table.counts) * table.runs * len(times) * (len(quantities) + 1) * _COPIES
    if needed > physical_memory():
        raise CaseError(("study", "runs"), f"{len(table.counts)} counts of {table.runs} runs at {len(times)} times need {needed >> 30} GB")
    return LimitPlan(case, table, number, other, times, quantities, quantile, notes)


def chosen_times(wanted: list[float] | None, problem: Problem, usual: tuple[float, ...]) -> tuple[float, ...]:
    """The saved times that are meant, to nine digits. Raises CaseError for one that is not saved."""
    if wanted is None:
        return usual
    saved = np.array(problem.save_at)
    chosen = []
    for time in sorted(wanted):
        nearby = int(np.argmin(np.abs(saved - time)))
        if abs(saved[nearby] - time) > 1e-9 * max(time, saved[nearby]):
            known = ", ".join(f"{t:g}" for t in problem.save_at[:12]) + ("…" if len(saved) > 12 else "")
            raise CaseError(("study", "times"), f"{time:g} is not a saved time; accepted: {known}")
        chosen.append(problem.save_at[nearby])
    if len(set(chosen)) < len(chosen):
        raise CaseError(("study", "times"), f"two of them are the same saved time, got {shown(wanted)}")
    return tuple(chosen)


def _particles(case: CaseFile, table: schema.ParticleLimitTable) -> int:
    """The solver whose limit is studied."""
    found = [k for k, solver in enumerate(case.table.solver) if solver.kind == "particles"]
    names = ", ".join(case.labels[k] for k in found) or "none in this case"
    if table.solver is None:
        if not found:
            raise CaseError(("study",), 'a particle limit needs a solver of kind "particles", and there is none in this case')
        return found[0]
    if table.solver not in case.labels or case.labels.index(table.solver) not in found:
        raise CaseError(
            ("study", "solver"), f"got {shown(table.solver)}; accepted: {names}{nearest(table.solver, [case.labels[k] for k in found])}"
        )
    return case.labels.index(table.solver)


def _reference(case: CaseFile, table: schema.ParticleLimitTable, number: int) -> int:
    """The solver that stands for the PDE."""
    kinds = ("characteristics", "finite_volume")
    found = [k for kind in kinds for k, solver in enumerate(case.table.solver) if solver.kind == kind]
    if table.reference is None:
        if not found:
            words = "a solver of kind characteristics or finite_volume, or other particles, many more of them, named as `reference`"
            raise CaseError(("study",), f"a particle limit needs a reference: {words}")
        return found[0]
    found += [k for k, solver in enumerate(case.table.solver) if solver.kind == "particles" and k != number]
    labels = [case.labels[k] for k in found]
    if table.reference not in labels:
        accepted = f"accepted: {', '.join(labels)}" if labels else "there is no other solver that it could be"
        message = f"got {shown(table.reference)}; {accepted}{nearest(table.reference, labels)}"
        raise CaseError(("study", "reference"), message)
    return case.labels.index(table.reference)
