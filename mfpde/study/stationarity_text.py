"""A study of stationarity in words: for the terminal, for spreadsheets and as plain data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case.stationarity_schema import StationarityTable
from mfpde.energy.visibility import Spectrum
from mfpde.study.report import Arrays
from mfpde.study.stationarity import QUANTITIES, Course, Setting
from mfpde.study.text import csv_text, plain_number
from mfpde.tables import grid_text, number

_COLUMNS = {
    "residual": "|R|",
    "largest_residual": "sup|R|",
    "loss": "loss",
    "dissipation": "dissipation",
    "distance": "W2",
    "norm": "|ρ−ρ*|",
    "visible": "visible",
    "invisible": "invisible",
    "forbidden": "forbidden",
    "moved": "moved",
    "even_w1": "W1 even",
    "odd_w1": "W1 odd",
}
_MOST_ROWS = 9
_THRESHOLDS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
_LOOSE, _SLACK = 1e-2, 1e-4
_GREW = 1.02


@dataclass(frozen=True, eq=False)
class StationarityReport:
    """What all runs of a study show."""

    title: str
    courses: tuple[Course, ...]
    setting: Setting
    table: StationarityTable
    near: float
    notes: tuple[str, ...] = ()

    @property
    def times(self) -> FloatArray:
        """The times that a run reached, in order."""
        return np.unique(np.concatenate([course.times for course in self.courses]))

    @cached_property
    def spectra(self) -> list[Spectrum]:
        """One for each grid."""
        return list({c.spectrum.grid.cells: c.spectrum for c in self.courses if c.spectrum is not None}.values())

    def text(self) -> str:
        """For the terminal."""
        where = f"{int(np.sum(self.setting.inputs.central))} inputs" + f" with |x| <= {number(self.setting.inputs.reach, 3)}"
        how = "; |R| from the loss, as no rule for the inputs is small enough"
        if self.setting.inputs.exact:
            apart = max(float(np.max(course.values["gap"])) for course in self.courses)
            how = f"; (2 loss)^½ differs from |R| by at most {number(apart, 2)}"
        lines = [f"  R = student - teacher: |R| in L2(μ), sup over {where}{how}"]
        words = list(dict.fromkeys(word for course in self.courses for word in course.words))
        if any(np.isfinite(course.values["odd_w1"]).any() for course in self.courses):
            words.append("W1 even, W1 odd: of the even and of the odd part of ρ − ρ*")
        lines += [f"    {word}" for word in words]
        lines += [self._run_text(course) for course in self.courses]
        lines += [spectrum_text(spectrum) for spectrum in self.spectra]
        ends = [f"  {course.label} at t = {course.times[-1]:g}\n    " + "\n    ".join(statements(course, self)) for course in self.courses]
        return "\n".join([*lines, *ends])

    def _run_text(self, course: Course) -> str:
        names = [name for name in _COLUMNS if np.isfinite(course.values[name]).any()]
        shown = np.unique(np.round(np.linspace(0, len(course.times) - 1, min(len(course.times), _MOST_ROWS))).astype(int))
        rows = [[number(course.times[t]), *(_cell(course, name, int(t)) for name in names)] for t in shown]
        left = f" ({len(shown)} of {len(course.times)} times)" if len(shown) < len(course.times) else ""
        return f"  {course.label}{left}\n" + grid_text(["time", *(_COLUMNS[name] for name in names)], rows, "    ")

    def data(self) -> dict[str, Any]:
        """For study.json."""
        return {
            "condition": self.setting.condition,
            "term": self.setting.term,
            "tolerance": self.table.tolerance,
            "distance": self.near,
            "threshold": self.table.threshold,
            "inputs": len(self.setting.inputs.nodes),
            "notes": list(self.notes),
            "runs": [self._run_data(course) for course in self.courses],
            "spectra": [spectrum_data(spectrum) for spectrum in self.spectra],
        }

    def _run_data(self, course: Course) -> dict[str, Any]:
        found = {name: [plain_number(x) for x in values] for name, values in course.values.items()}
        split = course.split
        last = {
            "invisible_share": plain_number(course.invisible_share),
            "invisible_growth": plain_number(course.invisible_growth),
            "faint": plain_number(split.faint_norm if split is not None else math.nan),
            "leak": plain_number(split.leak if split is not None else math.nan),
        }
        kept = {"label": course.label, "times": course.times.tolist(), "smoothed": course.smoothed, "words": list(course.words)}
        return kept | found | {"last": last, "holds": holds(course, self), "verdict": verdict(course, self)}

    def csv(self) -> str:
        """One row for each run and time."""
        rows = [[c.label, at, *(c.values[name][t] for name in QUANTITIES)] for c in self.courses for t, at in enumerate(c.times)]
        return csv_text(["run", "time", *QUANTITIES], rows)

    def arrays(self) -> tuple[dict[str, Any], Arrays]:
        """Dimension scales, and arrays with the names of their dimensions."""
        times, runs = self.times, [course.label for course in self.courses]
        scales: dict[str, Any] = {"run": runs, "time": times}
        arrays: Arrays = {name: (("run", "time"), self._table(name)) for name in QUANTITIES}
        nodes = self.setting.inputs.nodes
        scales |= {"input": np.arange(len(nodes)), "coordinate": np.arange(nodes.shape[1])}
        arrays |= {"input_place": (("input", "coordinate"), nodes), "input_mass": (("input",), self.setting.inputs.masses)}
        residual = np.stack([np.reshape(course.residual, (len(nodes), -1)) for course in self.courses])
        scales["output"] = np.arange(residual.shape[2])
        arrays["residual_at_the_end"] = (("run", "input", "output"), residual)
        for course in self.courses:
            _add_parts(course, scales, arrays)
        for spectrum in self.spectra:
            _add_spectrum(spectrum, scales, arrays)
        return scales, arrays

    def _table(self, name: str) -> FloatArray:
        found = np.full((len(self.courses), len(self.times)), np.nan)
        for row, course in zip(found, self.courses, strict=True):
            row[np.searchsorted(self.times, course.times)] = course.values[name]
        return found

    def missed(self) -> list[str]:
        """Expectations that fail, and residuals that do not belong to their loss."""
        wrong = [line for name, bound in self._expected().items() for line in self._missed(name, bound)]
        for course in self.courses:
            gap = course.values["gap"]
            room = _LOOSE * course.values["residual"] + _SLACK * max(self.setting.size, 1e-300)
            if np.any(gap > room):
                t = int(np.argmax(gap - room))
                wrong.append(
                    f"{course.label} at t = {course.times[t]:g}: |R| and the loss ½|R|² are apart by {number(float(gap[t]), 3)} in |R|"
                )
        return wrong

    def _expected(self) -> dict[str, float]:
        return self.table.expected.by_name if self.table.expected is not None else {}

    def _missed(self, name: str, bound: float) -> list[str]:
        least = name.startswith("invisible")
        found = {c.label: getattr(c, name) if least else c.last(name) for c in self.courses}
        known = {label: value for label, value in found.items() if not math.isnan(value)}
        words = name.replace("_", " ")
        if not known:
            return [f"{words}: no run has one"]
        sides = ("at least", lambda x: x >= bound) if least else ("at most", lambda x: x <= bound)
        return [f"{label}: {words} {number(x, 3)}, expected {sides[0]} {bound:g}" for label, x in known.items() if not sides[1](x)]

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the figures."""
        from mfpde.figures import draw_stationarity

        return draw_stationarity(self, folder, formats)


def _cell(course: Course, name: str, t: int) -> str:
    """A number; a distance that its method does not resolve as a bound."""
    value, floor = float(course.values[name][t]), float(course.values["distance_floor"][t])
    return f"<{number(value + floor, 2)}" if name == "distance" and value <= floor and floor > 0.0 else number(value, 3)


def holds(course: Course, report: StationarityReport) -> dict[str, bool | None]:
    """What holds at the last time: the condition, that nothing moves, and that ρ is ρ*; None where that is not known."""
    away, floor = course.last("distance"), course.last("distance_floor")
    near = True if away + floor <= report.near else False if away - floor > report.near else None
    speed = math.sqrt(max(course.last("dissipation"), 0.0))
    return {
        "condition": bool(course.last("residual") <= report.table.tolerance),
        "stationary": bool(speed <= report.table.tolerance) if math.isfinite(speed) else None,
        "teacher": near,
    }


def verdict(course: Course, report: StationarityReport) -> str:
    """In one line, about the last time and no later one."""
    return f"{course.label} at t = {course.times[-1]:g}: " + "; ".join(statements(course, report))


def statements(course: Course, report: StationarityReport) -> list[str]:
    """What holds at the last time, in words."""
    found, tolerance = holds(course, report), report.table.tolerance
    condition = "holds" if found["condition"] else "does not hold"
    size = number(course.last("residual"), 2)
    parts = [f"{report.setting.condition} {condition} to {tolerance:g} (|R| {size}), loss {number(course.last('loss'), 2)}"]
    if found["stationary"] is not None:
        speed = number(math.sqrt(max(course.last("dissipation"), 0.0)), 2)
        parts.append(f"{'stationary to' if found['stationary'] else 'moves faster than'} {tolerance:g} (root mean square speed {speed})")
    if found["teacher"] is not None:
        parts.append(f"ρ {'is' if found['teacher'] else 'is not'} ρ* to {number(report.near, 2)} (W2 {number(course.last('distance'), 2)})")
    parts += [_share_text(course)] if math.isfinite(course.invisible_share) else []
    return parts + ([_positive_text(course)] if math.isfinite(course.last("minimum")) else [])


def _share_text(course: Course) -> str:
    share, growth = 100.0 * course.invisible_share, course.invisible_growth
    text = f"{number(share, 3)} % of |ρ − ρ*|^2 is invisible"
    if not math.isnan(growth) and len(course.times) > 1:
        first, last = (number(float(course.values["invisible"][k]), 3) for k in (0, -1))
        change = "has grown" if growth > _GREW else "has shrunk" if growth < 1.0 / _GREW else "hardly changed,"
        text += f"; its norm {change} from {first} at t = {course.times[0]:g} to {last}"
    split = course.split
    if split is not None and split.forbidden is not None and split.invisible_norm > 0.0:
        text += f"; {number(100.0 * (split.forbidden_norm / split.invisible_norm) ** 2, 3)} % of it is forbidden by parity"
    return text


def _positive_text(course: Course) -> str:
    empty, bare = course.last("empty"), course.last("uncovered")
    if empty == 0.0:
        return f"ρ > 0 everywhere (at least {number(course.last('minimum'), 2)})"
    held = f", which holds {number(100.0 * bare, 2)} % of ρ*" if math.isfinite(bare) else ""
    return f"the theorem's ρ > 0 fails in effect on {number(100.0 * empty, 3)} % of the domain{held}"


def spectrum_text(spectrum: Spectrum) -> str:
    """Ranks at several thresholds."""
    cells = " × ".join(map(str, spectrum.grid.cells))
    known = len(spectrum.values)
    ranks = ", ".join(f"{spectrum.rank_at(level)} to {level:g}" for level in _THRESHOLDS)
    own = f"{spectrum.rank} above the threshold {spectrum.threshold:g}"
    return f"  singular values of Σ on {cells} cells: {own} of {known}; rank {ranks}; the rest of {spectrum.grid.size} is its null space"


def spectrum_data(spectrum: Spectrum) -> dict[str, Any]:
    """Plain numbers and lists."""
    return {
        "cells": list(spectrum.grid.cells),
        "singular_values": [float(value) for value in spectrum.values],
        "rank": spectrum.rank,
        "null_space": spectrum.grid.size - spectrum.rank,
        "ranks": {f"{level:g}": spectrum.rank_at(level) for level in _THRESHOLDS},
        "parity": spectrum.symmetry_words,
    }


def _add_parts(course: Course, scales: dict[str, Any], arrays: Arrays) -> None:
    """The difference of one run and its parts, on its own grid."""
    if course.split is None or course.grid is None:
        return
    cell = f"cell_{course.grid.size}"
    scales[cell] = np.arange(course.grid.size)
    parts = {"difference": course.split.difference, "visible": course.split.visible, "invisible": course.split.invisible}
    if course.split.forbidden is not None:
        parts["forbidden"] = course.split.forbidden
    for name, values in parts.items():
        arrays[f"{course.label}_{name}_part" if name != "difference" else f"{course.label}_difference"] = ((cell,), values)


def _add_spectrum(spectrum: Spectrum, scales: dict[str, Any], arrays: Arrays) -> None:
    tag = "x".join(map(str, spectrum.grid.cells))
    scales[f"mode_{tag}"] = np.arange(len(spectrum.values))
    arrays[f"singular_values_{tag}"] = ((f"mode_{tag}",), spectrum.values)
