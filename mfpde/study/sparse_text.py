"""A study of regularised recovery in words: for the terminal, for spreadsheets and as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.sparse.recovery import determined, nearest
from mfpde.study.sparse_plan import FARTHEST, FEWEST, LATEST_START, WINDOW, SparsePlan
from mfpde.study.text import csv_text, plain_number
from mfpde.tables import counted, grid_text, number

_MERGED, _MAIN = 0.999, 0.9
_MOST_SHOWN = 12
_LATE, _STUCK = 0.8, 1e-3
_HEADER = ["path_norm", "start", "quantity", "predicted", "measured", "least_quarter", "largest_quarter"]
_LEFT_OUT = ("course_", "student_", "mode_")


@dataclass(frozen=True, eq=False)
class SparseReport:
    """What was found: ``values`` with the names of their ``dimensions``, along the ``scales``."""

    plan: SparsePlan
    scales: Mapping[str, Any]
    dimensions: Mapping[str, tuple[str, ...]]
    values: Mapping[str, FloatArray]

    def text(self) -> str:
        """The minimisers beside the teacher, the runs, and what follows."""
        return "\n".join([_solutions_text(self), _runs_text(self), *_verdicts(self)])

    def data(self) -> dict[str, Any]:
        """Everything but courses, students and the spectra, which are in study.h5."""
        kept = {
            name: {"dimensions": list(self.dimensions[name]), "values": _plain(values)}
            for name, values in self.values.items()
            if not name.startswith(_LEFT_OUT)
        }
        scales = {name: np.asarray(self.scales[name]).tolist() for name in ("path_norm", "start_number", "snapshot")}
        return {"description": self.plan.description, "scales": scales, "arrays": kept, "teacher_determined": determined(self.plan.teacher)}

    def csv(self) -> str:
        """A row for the rate and one for the end of each run."""
        rows: list[list[Any]] = []
        for i, j, strength in _runs(self):
            run = {name: float(self.values[f"run_{name}"][i, j]) for name in ("predicted", "rate", "rate_low", "rate_high", "final_excess")}
            rows.append([strength, j, "rate", run["predicted"], run["rate"], run["rate_low"], run["rate_high"]])
            rows.append([strength, j, "relative_excess", 0.0, run["final_excess"] / self.values["solution_value"][i], math.nan, math.nan])
        return csv_text(_HEADER, rows)

    def arrays(self) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
        """All arrays."""
        return dict(self.scales), {name: (self.dimensions[name], values) for name, values in self.values.items()}

    def missed(self) -> list[str]:
        """Runs that do not reach J*; at non-degenerate minimisers those whose students do not merge or whose rate is another one."""
        found = []
        for i, j, strength in _runs(self):
            name = f"λ = {strength:g}, start {j}"
            if too_few(self, i):
                continue
            if not reached(self, i, j):
                left = float(self.values["run_final_excess"][i, j] / self.values["solution_value"][i])
                above = f"J stays above its minimum, by {left:.2g} of it at t = {self.values['run_final_time'][i, j]:.4g}"
                found.append(f"{name}: {above}, {_at_end(self, i, j)}")
                continue
            if not self.values["solution_nondegenerate"][i]:
                continue
            if not (early(self, i) or strayed(self, i, j)) and (share := merged_share(self, i, j)) < _MERGED:
                found.append(f"{name}: only {share:.4f} of Σ|a||w| is at the neurons of the minimiser in the end")
            if rate_measured(self, i, j) and not rate_agrees(self, i, j):
                rate, predicted = (float(self.values[f"run_{n}"][i, j]) for n in ("rate", "predicted"))
                found.append(f"{name}: J − J* falls at the rate {number(rate)}, not {number(predicted)}")
        return found

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the figures."""
        from mfpde.figures import draw_sparse

        return draw_sparse(self, folder, formats)


def reached(report: SparseReport, i: int, j: int) -> bool:
    """Whether J − J* has fallen to the tolerance, or to ten times the gap of J*."""
    return bool(report.values["run_final_excess"][i, j] <= target(report, i) * report.values["solution_value"][i])


def target(report: SparseReport, i: int) -> float:
    """The share of J* at which runs end."""
    return report.plan.target(float(report.values["solution_gap"][i]))


def early(report: SparseReport, i: int) -> bool:
    """Whether runs end before J − J* is so small that students must have merged and that it must fall as the linearised flow does."""
    return WINDOW * target(report, i) > LATEST_START * (1.0 + 1e-9)


def strayed(report: SparseReport, i: int, j: int) -> bool:
    """Whether students with mass are far from the minimiser's neurons when the last decades start."""
    return bool(report.values["run_local_widest"][i, j] > FARTHEST)


def too_few(report: SparseReport, i: int) -> str:
    """Why so few students cannot reach the minimiser, empty where they are enough. With |a| = |w| at the start none changes its sign."""
    weights, count = atoms_of(report, i)[1], report.plan.table.students
    if not report.values["solution_nondegenerate"][i]:
        return ""
    if count < len(weights):
        return f"{counted(count, 'student')} for its {counted(len(weights), 'neuron')}"
    for sign, name, have in ((1.0, "a > 0", (count + 1) // 2), (-1.0, "a < 0", count // 2)):
        need = int(np.sum(np.sign(weights) == sign))
        if report.plan.balanced and have < need:
            return f"{counted(have, 'student')} with {name} for its {counted(need, 'neuron')} of this sign"
    return ""


def late_rate(report: SparseReport, i: int, j: int) -> tuple[float, float]:
    """The rate at which J − J* falls in the last fifth of a run, and by which share it falls there."""
    time, over = (report.values[f"course_{name}"][i, j] for name in ("time", "excess"))
    some = np.isfinite(time) & (over > 0.0)
    time, over = time[some], over[some]
    if len(time) < 2:
        return 0.0, 0.0
    begin = _LATE * time[-1]
    fallen = float(np.interp(begin, time, np.log(over)) - np.log(over[-1]))
    return fallen / float(time[-1] - begin), -math.expm1(-fallen)


def at_slowest(report: SparseReport, i: int, j: int) -> bool:
    """Whether J − J* falls at the slowest rate: that holds 90 % of it at the end, and all quarters are within the allowance of it."""
    names = ("slowest", "slowest_share", "rate_low", "rate_high")
    slowest, share, low, high = (float(report.values[f"run_{name}"][i, j]) for name in names)
    off = max(abs(low - slowest), abs(high - slowest))
    return share >= _MAIN and off <= report.plan.table.allowance * slowest


def merged_share(report: SparseReport, i: int, j: int) -> float:
    """The share of Σ|a||w| within the angle of the minimiser's neurons at the end; 1 where the minimiser is 0."""
    if not np.isfinite(report.values["atom_weight"][i, 0]):
        return 1.0
    course = report.values["course_solution_share"][i, j]
    return float(course[np.isfinite(course)][-1])


def rate_measured(report: SparseReport, i: int, j: int) -> bool:
    """Whether the last decades hold enough times."""
    return bool(np.isfinite(report.values["run_rate"][i, j]))


def rate_agrees(report: SparseReport, i: int, j: int) -> bool:
    """Whether the measured rate is within the allowance of the predicted one."""
    rate, predicted = (float(report.values[f"run_{name}"][i, j]) for name in ("rate", "predicted"))
    return abs(rate - predicted) <= report.plan.table.allowance * predicted


def atoms_of(report: SparseReport, i: int) -> tuple[FloatArray, FloatArray]:
    """The minimiser's points (K, d) and weights (K,) for one λ."""
    weights = report.values["atom_weight"][i]
    some = np.isfinite(weights)
    return report.values["atom_point"][i][some], weights[some]


def _runs(report: SparseReport) -> list[tuple[int, int, float]]:
    return [(i, j, strength) for i, strength in enumerate(report.plan.table.path_norm) for j in range(report.plan.table.seeds)]


def _solutions_text(report: SparseReport) -> str:
    teacher, values, rows = report.plan.teacher, report.values, []
    for i, strength in enumerate(report.plan.table.path_norm):
        points, weights = atoms_of(report, i)
        off, which = nearest(points, np.sign(weights), teacher.directions, np.sign(teacher.masses))
        head = [f"{strength:g}", number(values["solution_value"][i], 8), f"{values['solution_gap'][i]:.0e}"]
        head += [number(values["solution_level_elsewhere"][i]), "yes" if values["solution_nondegenerate"][i] else "no"]
        shown = np.sort(np.argsort(-np.abs(weights), kind="stable")[:_MOST_SHOWN])
        for place, k in enumerate(shown):
            near = [str(which[k] + 1), f"{math.degrees(off[k]):.3f}°"] if which[k] >= 0 else ["none", "—"]
            aim = number(float(teacher.masses[which[k]])) if which[k] >= 0 else "—"
            curvature = number(values["atom_curvature"][i, k] / strength)
            rows.append([*(head if place == 0 else [""] * len(head)), str(k + 1), number(weights[k], 6), curvature, *near, aim])
        if len(shown) < len(weights):
            rows.append([*[""] * len(head), f"and {len(weights) - len(shown)} lighter", *[""] * 5])
        if not len(weights):
            rows.append([*head, "none", *["—"] * 5])
    header = [
        "λ",
        "J*",
        "gap",
        "max|η|/λ elsewhere",
        "non-degenerate",
        *["neuron", "weight", "curvature/λ"],
        "teacher's",
        "angle",
        "its weight",
    ]
    return f"  exact sparse minimisers; {_only(determined(teacher))}\n{grid_text(header, rows, '    ')}"


def _only(only: bool | None) -> str:
    if only is None:
        return "whether others have the teacher's values and norm is not decided, as neurons of it are opposite"
    words = "the only ones" if only else "NOT the only ones (mirrored ones have both)"
    return f"the teacher's neurons are {words} with its values and its norm, as relu hides odd harmonics ≥ 3"


def _at_end(report: SparseReport, i: int, j: int) -> str:
    """Whether a run that is not at J* has not ended or stands."""
    rate, share = late_rate(report, i, j)
    if share > _STUCK:
        return f"still falling at the rate {number(rate)}, so that a later `end` may do"
    return f"and is stuck: it falls by {100.0 * max(share, 0.0):.1g} % in the last fifth of the time"


def _slowest(report: SparseReport, i: int, j: int) -> list[str]:
    """The slowest rate, what it is of, and its share of J − J* at the end."""
    rate, merges, share = (float(report.values[f"run_{name}"][i, j]) for name in ("slowest", "slowest_merges", "slowest_share"))
    if not math.isfinite(rate):
        return ["—"] * 3
    return [number(rate), "merging" if merges else "vanishing", f"{100.0 * share:.0f} %"]


def _runs_text(report: SparseReport) -> str:
    values, rows = report.values, []
    for i, j, strength in _runs(report):
        course = {name: values[f"course_{name}"][i, j] for name in ("clusters", "teacher_share", "solution_share", "widest_angle")}
        last = {name: float(row[np.isfinite(row)][-1]) for name, row in course.items()}
        run = {name: float(values[f"run_{name}"][i, j]) for name in ("rate", "rate_low", "rate_high", "predicted", "final_time")}
        cells = [f"{strength:g}", str(j), f"{values['run_final_excess'][i, j] / values['solution_value'][i]:.1e}"]
        some = len(atoms_of(report, i)[1]) > 0
        cells += [number(run["final_time"]), f"{last['clusters']:.0f}", f"{last['solution_share']:.4f}" if some else "—"]
        cells += [f"{last['teacher_share']:.4f}", f"{math.degrees(last['widest_angle']):.2g}°" if some else "—", number(run["rate"])]
        cells += [f"{number(run['rate_low'])} … {number(run['rate_high'])}", number(run["predicted"]), *_slowest(report, i, j)]
        rows.append(cells)
    header = ["λ", "start", "(J−J*)/J*", "time", "clusters", "at minimiser", "at teacher", "widest", "rate", "in quarters", "linearised"]
    angle, count = math.degrees(report.plan.table.angle), report.plan.table.students
    lead = f"  flows of {count} students; shares of Σ|a||w| within {angle:.2g}°; rate of J − J* over its last four decades"
    return f"{lead}\n{grid_text([*header, 'slowest', 'of neurons', 'its share'], rows, '    ')}"


def _verdicts(report: SparseReport) -> list[str]:
    table, lines = report.plan.table, []
    for i in range(len(table.path_norm)):
        lines += _verdict(report, i)
    if not report.plan.balanced:
        note = "|a| < |w| at the start: each neuron is slower by its own |a|/|w|, so the rate is not one of λ and the teacher alone"
        lines.append(f"  {note}")
    degenerate = [f"{s:g}" for i, s in enumerate(table.path_norm) if not report.values["solution_nondegenerate"][i]]
    if degenerate:
        lines.append(f"  λ = {', '.join(degenerate)}: the minimiser is degenerate or not unique, no linear rate is expected")
    for i, strength in enumerate(table.path_norm):
        if target(report, i) > table.tolerance:
            gap = f"J* is known to {report.values['solution_gap'][i]:.1e} of it, so runs end at J − J* = {target(report, i):.1e} J*"
            more = "" if report.values["solution_nondegenerate"][i] else "; its neurons may be more than a minimiser needs"
            lines.append(f"  λ = {strength:g}: {gap}{more}")
    return lines


def _verdict(report: SparseReport, i: int) -> list[str]:
    """What one λ shows."""
    table, some = report.plan.table, len(atoms_of(report, i)[1]) > 0
    name, allowed = f"  λ = {table.path_norm[i]:g}", f"{100 * table.allowance:g} %"
    at_end = [j for j in range(table.seeds) if reached(report, i, j)]
    if few := too_few(report, i):
        return [f"{name}: J* is out of reach of {few}"]
    if some:
        merged = [j for j in at_end if merged_share(report, i, j) >= _MERGED]
        words = f"{name}: J* is reached from {len(at_end)} of {table.seeds} starts, students merge from {len(merged)}"
    else:
        words = f"{name}: the minimiser is 0, all students have vanished from {len(at_end)} of {table.seeds} starts"
    if not at_end:
        return [words]
    if early(report, i):
        need = f"runs end at J − J* = {target(report, i):.1e} J*, and it takes {LATEST_START / WINDOW:.0e}"
        return [f"{words}, too early for a rate: {need}"]
    agreed = [j for j in at_end if rate_agrees(report, i, j)]
    words += f";\n    J − J* follows the linearised flow within {allowed} from {counted(len(agreed), 'start')}"
    if some:
        words += f"; it has reached the slowest rate from {len([j for j in agreed if at_slowest(report, i, j)])}"
    return [words + _unmeasured(report, i, [j for j in at_end if not rate_measured(report, i, j)])]


def _unmeasured(report: SparseReport, i: int, starts: Sequence[int]) -> str:
    """Of how many starts the rate is not known, and why."""
    away = [j for j in starts if strayed(report, i, j)]
    words = f", too early for a rate from {len(away)}: students with mass are farther than {FARTHEST:g} rad off" if away else ""
    if not (rest := [j for j in starts if j not in away]):
        return words
    most = int(max(report.values["run_local_times"][i, j] for j in rest))
    some = "no time" if not most else f"only {counted(most, 'time')}"
    return f"{words}, not measured from {len(rest)}: {some} with J − J* > 0 in the last four decades, of {FEWEST} that it takes"


def _plain(values: FloatArray) -> Any:
    """Nested lists, None where there is no number."""
    return [plain_number(x) for x in values] if values.ndim == 1 else [_plain(row) for row in values]
