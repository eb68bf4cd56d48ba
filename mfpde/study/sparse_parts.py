"""The parts of a study of regularised recovery: the sparse minimiser of each λ, and the flow of each λ and start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.batch import progress_bar
from mfpde.console import tell
from mfpde.sparse.flow import Students, descend, draw_students, excess
from mfpde.sparse.rates import linear_decay, local_modes
from mfpde.sparse.recovery import gather
from mfpde.sparse.solver import MOST_NEURONS, SparseSolution, solve_sparse
from mfpde.study.alone import Desk, mark_of
from mfpde.study.ledger import Index, Ledger
from mfpde.study.sparse_plan import ACCEPTED, FARTHEST, FEWEST, LATEST_START, MOMENTS, SNAPSHOTS, WINDOW, SparsePlan, thinned

if TYPE_CHECKING:
    from mfpde.study.sparse_text import SparseReport

COURSE = ("time", "excess", "clusters", "teacher_share", "solution_share", "widest_angle")
SOLUTION = ("value", "gap", "level_elsewhere", "nondegenerate", "spectral_gap")
RUN = (
    *("rate", "rate_low", "rate_high", "predicted", "slowest", "slowest_merges", "slowest_share"),
    *("final_excess", "final_time", "at_rest", "local_times", "local_widest"),
)
_WATCHED = 1e4
_STEPS = 32
_EXPLORED = 0.1


def lay_out(plan: SparsePlan, desk: Desk) -> Ledger:
    """The arrays of all parts, empty."""
    part = plan.table
    dimension = len(part.teacher.neurons[0])
    scales: dict[str, Any] = {
        "path_norm": part.path_norm,
        "start_number": list(range(part.seeds)),
        "moment": list(range(MOMENTS)),
        "atom": list(range(MOST_NEURONS)),
        "mode": list(range(MOST_NEURONS * (2 * dimension - 1))),
        "coordinate": list(range(dimension)),
        "student": list(range(part.students)),
        "snapshot": list(SNAPSHOTS),
    }
    runs = ("path_norm", "start_number")
    dimensions: dict[str, tuple[str, ...]] = {f"solution_{name}": ("path_norm",) for name in SOLUTION}
    dimensions |= {"atom_weight": ("path_norm", "atom"), "atom_point": ("path_norm", "atom", "coordinate")}
    dimensions |= {"atom_curvature": ("path_norm", "atom"), "mode_rate": ("path_norm", "mode")}
    dimensions |= {f"course_{name}": (*runs, "moment") for name in COURSE} | {f"run_{name}": runs for name in RUN}
    dimensions |= {"student_mass": (*runs, "snapshot", "student"), "snapshot_time": (*runs, "snapshot")}
    dimensions["student_direction"] = (*runs, "snapshot", "student", "coordinate")
    mark = mark_of(plan.case, part.model_dump())
    parts = {"solutions": ("path_norm",), "runs": runs}
    return Ledger(desk.folder / "parts.h5", mark, scales, dimensions, parts, min(desk.seconds, 10.0))


def carry_out(plan: SparsePlan, desk: Desk) -> "SparseReport | None":
    """All parts of a plan that have not ended; None once a signal has come. Raises StepFailed."""
    from mfpde.study.sparse_text import SparseReport

    ledger = lay_out(plan, desk)
    if desk.resume and (reason := ledger.take_up()):
        tell(f"  {reason}; starting anew")
    solutions: dict[int, SparseSolution] = {}
    try:
        for group in ("solutions", "runs"):
            todo = ledger.open_parts(group)
            with progress_bar(group, len(todo)) as bar:
                for index in todo:
                    solution = solutions.get(index[0]) or solve_sparse(plan.problem(index[0]), accepted=ACCEPTED)
                    solutions[index[0]] = solution
                    if desk.stopped or not _fill(plan, solution, group, index, ledger, desk.stopped):
                        return None
                    ledger.end(group, index)
                    bar.update(1)
    finally:
        ledger.write()
    return SparseReport(plan, ledger.scales, ledger.dimensions, ledger.arrays)


def _fill(plan: SparsePlan, solution: SparseSolution, group: str, index: Index, ledger: Ledger, stopped: Sequence[int]) -> bool:
    """One part; False once a signal has come."""
    if group == "runs":
        return _fill_run(plan, solution, index, ledger.arrays, stopped)
    arrays, count = ledger.arrays, len(solution.points)
    rates = local_modes(solution).rates if count else np.zeros(0)
    for name in ("value", "gap", "level_elsewhere", "nondegenerate"):
        arrays[f"solution_{name}"][index] = getattr(solution, name)
    arrays["solution_spectral_gap"][index] = rates[0] if count else np.nan
    arrays["atom_weight"][index][:count], arrays["atom_point"][index][:count] = solution.weights, solution.points
    arrays["atom_curvature"][index][:count] = np.min(solution.curvatures, axis=1) if count else []
    arrays["mode_rate"][index][: len(rates)] = rates
    return True


@dataclass(eq=False)
class _Watch:
    """What is recorded of a run at every step."""

    plan: SparsePlan
    solution: SparseSolution
    rows: list[FloatArray] = field(default_factory=list)
    seen: dict[str, tuple[float, Students]] = field(default_factory=dict)
    longest: float = np.inf

    @property
    def floor(self) -> float:
        """J − J* at which the run ends."""
        return self.plan.target(self.solution.gap) * self.solution.value

    def look(self, time: float, students: Students) -> bool:
        """Record; whether J − J* is as small as wanted."""
        over, angle = excess(self.solution, students), self.plan.table.angle
        masses, directions = students.signed_masses, students.directions
        at_teacher = gather(masses, directions, self.plan.teacher, angle)
        at_solution = gather(masses, directions, self.solution.network, angle)
        shares = (at_solution.clusters, at_teacher.share, at_solution.share, at_solution.widest)
        self.rows.append(np.array([time, over, *shares]))
        self._shorten()
        self.seen.setdefault("start", (time, students))
        if over <= _EXPLORED * self.rows[0][1]:
            self.seen.setdefault("exploration", (time, students))
        if over <= WINDOW * self.floor:
            self.seen.setdefault("local", (time, students))
        self.seen["end"] = (time, students)
        return over <= self.floor

    def _shorten(self) -> None:
        """From some decades above those in which the rate is measured on, steps are so short that enough of them are in those."""
        (before, above, *_), (time, over, *_) = self.rows[-2:] if len(self.rows) > 1 else (self.rows[0],) * 2
        near = over <= _WATCHED * WINDOW * self.floor
        if near and time > before and above > over > 0.0:
            self.longest = math.log(WINDOW) / _STEPS * (time - before) / math.log(above / over)


def _fill_run(plan: SparsePlan, solution: SparseSolution, index: Index, arrays: dict[str, FloatArray], stopped: Sequence[int]) -> bool:
    """The flow from one start."""
    part, watch = plan.table, _Watch(plan, solution)
    generator = np.random.default_rng([part.seed, index[1]])
    start = draw_students(part.students, len(part.teacher.neurons[0]), part.amplitude, plan.radius, generator)
    if not watch.look(0.0, start) and not descend(solution.problem, start, part.end, watch.look, stopped, lambda: watch.longest):
        return False
    kept = thinned(watch.rows)
    for k, name in enumerate(COURSE):
        arrays[f"course_{name}"][index][: len(kept)] = kept[:, k]
    for k, name in enumerate(SNAPSHOTS):
        time, students = watch.seen.get(name, watch.seen["end"])
        arrays["snapshot_time"][(*index, k)] = time
        arrays["student_mass"][(*index, k)], arrays["student_direction"][(*index, k)] = students.signed_masses, students.directions
    rows, end = np.array(watch.rows), watch.seen["end"][1]
    values = (*_rates(watch, rows), rows[-1, 1], rows[-1, 0], float(np.mean(end.outer == 0.0)), _local(watch, rows), _widest(watch, rows))
    for name, value in zip(RUN, values, strict=True):
        arrays[f"run_{name}"][index] = value
    return True


def _rates(watch: _Watch, rows: FloatArray) -> tuple[float, ...]:
    """The measured rate with its range, that of the linearised flow over the same times, and its slowest rate with its share at the end."""
    early = WINDOW * watch.plan.target(watch.solution.gap) > LATEST_START * (1.0 + 1e-9) or _widest(watch, rows) > FARTHEST
    if rows[-1, 1] > watch.floor or _local(watch, rows) < FEWEST or early:
        return (np.nan,) * 7
    begin, students = watch.seen["local"]
    some = (rows[:, 0] >= begin) & (rows[:, 1] > 0.0)
    times, over = rows[some, 0], rows[some, 1]
    decay = linear_decay(watch.solution, students)
    slowest, merges = decay.slowest
    last = decay.at(times[-1:] - begin)[0]
    share = float(np.sum((decay.parts * np.exp(-decay.rates * (times[-1] - begin)))[decay.rates <= slowest * (1.0 + 1e-6)])) / last
    return *local_rate(times, over), local_rate(times, decay.at(times - begin))[0], slowest, float(merges), share


def _local(watch: _Watch, rows: FloatArray) -> float:
    """At how many times J − J* is positive and within the decades in which the rate is measured."""
    begin = watch.seen["local"][0] if "local" in watch.seen else np.inf
    return float(np.sum((rows[:, 0] >= begin) & (rows[:, 1] > 0.0)))


def _widest(watch: _Watch, rows: FloatArray) -> float:
    """The greatest angle of students with mass to the minimiser's neurons when those decades start; 0 where it has none."""
    if "local" not in watch.seen or not len(watch.solution.points):
        return 0.0 if "local" in watch.seen else np.nan
    return float(rows[np.searchsorted(rows[:, 0], watch.seen["local"][0]), 5])


def local_rate(times: FloatArray, over: FloatArray) -> tuple[float, float, float]:
    """The rate at which J − J* (n,) falls, by least squares of its logarithm, and the least and the greatest of the rates in the four
    quarters of the time."""
    y = np.log(over)
    ends = np.linspace(times[0], times[-1], 5)
    quarters = -np.diff(np.interp(ends, times, y)) / np.diff(ends)
    return float(-np.polyfit(times - times[0], y, 1)[0]), float(np.min(quarters)), float(np.max(quarters))
