"""A study of the stability of SGD in words: for the terminal, for spreadsheets and as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.sgd.line import critical_nonuniformity
from mfpde.study.sgd_networks_text import particle_rows, particles_text, training_missed, training_rows, training_text
from mfpde.study.sgd_plan import EXAMPLES, SgdPlan, batch_of, examples
from mfpde.study.text import csv_text, plain_number
from mfpde.tables import grid_text, number

_NORMAL = 1.959963984540054
_UNLIKELY = 1e-3
_FIVE = 5.0
_HEADER = ["part", "learning_rate", "batch", "case", "quantity", "predicted", "measured", "low", "high"]


@dataclass(frozen=True, eq=False)
class SgdReport:
    """What was found: ``values`` with the names of their ``dimensions``, along the ``scales``."""

    plan: SgdPlan
    scales: Mapping[str, Any]
    dimensions: Mapping[str, tuple[str, ...]]
    values: Mapping[str, FloatArray]

    def text(self) -> str:
        """A table for each part."""
        table = self.plan.table
        parts = [
            f"{_diagram_text(self)}\n{_examples_text(self)}" if table.diagram else "",
            _escape_text(self) if table.escape else "",
            training_text(self) if table.training else "",
            particles_text(self) if table.particles else "",
        ]
        return "\n".join(part for part in parts if part)

    def data(self) -> dict[str, Any]:
        """Everything but the courses of single runs, which are in study.h5."""
        left_out = ("escape_path", "escape_predicted", "escape_measured", "course_loss", "course_sharpness")
        kept = {
            name: {"dimensions": list(self.dimensions[name]), "values": _plain(values)}
            for name, values in self.values.items()
            if name not in left_out
        }
        scales = {name: np.asarray(values).tolist() for name, values in self.scales.items() if name not in ("escape_step", "moment")}
        return {"description": self.plan.description, "scales": scales, "arrays": kept}

    def csv(self) -> str:
        """Predicted and measured numbers, a row for each."""
        return csv_text(_HEADER, [*_diagram_rows(self), *_escape_rows(self), *training_rows(self), *particle_rows(self)])

    def arrays(self) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
        """All arrays."""
        return dict(self.scales), {name: (self.dimensions[name], values) for name, values in self.values.items()}

    def missed(self) -> list[str]:
        """Where runs are not as predicted, by tests that fail by chance in one study of a thousand."""
        table = self.plan.table
        found = [*_diagram_missed(self), *_examples_missed(self)] if table.diagram else []
        found += _escape_missed(self) if table.escape else []
        return found + (training_missed(self) if table.training else [])

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the figures."""
        from mfpde.figures import draw_sgd

        return draw_sgd(self, folder, formats)


# Diagram.


def inside(report: SgdReport) -> tuple[BoolArray, BoolArray]:
    """Which points have runs, and where the measured mean square is within 95 % of the exact one."""
    values = report.values
    run = np.isfinite(values["diagram_measured"])
    with np.errstate(invalid="ignore"):
        exact = values["diagram_factor"] ** values["diagram_steps"]
        off = np.abs(values["diagram_measured"] - exact)
        return run, run & (off <= _NORMAL * values["diagram_error"] + 1e-9 * exact)


def measured_growth(report: SgdReport) -> FloatArray:
    """The measured factor of the mean square a step."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(report.values["diagram_measured"] ** (1.0 / report.values["diagram_steps"]))


def _diagram_text(report: SgdReport) -> str:
    part = report.plan.table.diagram
    assert part is not None
    (run, good), values, rows = inside(report), report.values, []
    grown = measured_growth(report)
    with np.errstate(invalid="ignore"):
        same = (grown <= 1.0) == (values["diagram_factor"] <= 1.0)
        typical = (values["diagram_factor"] > 1.0) & (values["diagram_growth"] < 0.0)
    for i, rate in enumerate(part.learning_rates):
        for j, size in enumerate(part.batches):
            batch = batch_of(part, size, part.samples)
            bound = float(critical_nonuniformity(np.array([1.0 / rate]), rate, batch)[0])
            count = int(np.sum(run[i, j]))
            cells = [f"{rate:g}", str(size), number(2.0 / rate), number(bound) if np.isfinite(bound) else "none", str(count)]
            cells += [f"{int(np.sum(good[i, j]))} ({100.0 * np.mean(good[i, j][run[i, j]]) if count else 0.0:.0f} %)"]
            rows.append([*cells, str(int(np.sum(same[i, j] & run[i, j]))), str(int(np.sum(typical[i, j] & run[i, j])))])
    header = ["η", "B", "a ≤ 2/η", "largest s", "points", "within 95 %", "same side of 1", "typically stable"]
    head = "  mean square of runs on a line against (1 − ηa)² + η²cs²; typically stable: E θ² grows, almost every path does not"
    return "\n".join([head, grid_text(header, rows, "    ")])


def _examples_text(report: SgdReport) -> str:
    from mfpde.sgd.linear import mean_square_rate, nonuniformity, one_step_rate, sharpness

    header = ["", "η a ≤ 2", "η s √c ≤ 1", "one step", "r", "r in closed form", "runs off by at most"]
    rows = []
    for k, example in enumerate(examples()):
        functions, rate, batch = example.functions, example.rate, example.batch
        widths = report.values["example_error"][k] + 1e-9
        off = np.max(np.abs(report.values["example_measured"][k] - report.values["example_exact"][k]) / widths)
        numbers = [rate * sharpness(functions), rate * nonuniformity(functions) * math.sqrt(batch.factor)]
        numbers += [one_step_rate(functions, rate, batch), mean_square_rate(functions, rate, batch), example.exact]
        rows.append([example.words, *(number(x) for x in numbers), f"{off:.1f} errors"])
    head = "  the conditions of one step, λ_max((I − ηH)² + η²cΣ) ≤ 1 and what follows from it, are sufficient, not necessary"
    return "\n".join([head, grid_text(header, rows, "    ")])


def _diagram_rows(report: SgdReport) -> list[list[Any]]:
    part = report.plan.table.diagram
    if part is None:
        return []
    values, rows = report.values, []
    for index in np.ndindex(*values["diagram_measured"].shape):
        if np.isfinite(values["diagram_measured"][index]):
            i, j, *_ = index
            a, s, steps = (float(values[f"diagram_{name}"][index]) for name in ("sharpness", "nonuniformity", "steps"))
            measured, width = float(values["diagram_measured"][index]), _NORMAL * float(values["diagram_error"][index])
            exact = float(values["diagram_factor"][index]) ** steps
            case = f"a={a:.6g} s={s:.6g} steps={steps:.0f}"
            head = ["diagram", part.learning_rates[i], part.batches[j], case, "mean_square"]
            rows.append([*head, exact, measured, measured - width, measured + width])
    return rows


def _diagram_missed(report: SgdReport) -> list[str]:
    from scipy.stats import binom

    run, good = inside(report)
    count, kept = int(np.sum(run)), int(np.sum(good))
    if count and binom.cdf(kept, count, 0.95) < _UNLIKELY:
        return [f"diagram: the mean square of runs is within its 95 % interval at {kept} of {count} points only"]
    return []


def _examples_missed(report: SgdReport) -> list[str]:
    off = np.abs(report.values["example_measured"] - report.values["example_exact"])
    wrong = off > _FIVE * report.values["example_error"] + 1e-9
    return [f"example {name}: E|θ|² of runs is off by more than five errors" for k, name in enumerate(EXAMPLES) if wrong[k].any()]


# Escape.


def band(runs: int, chance: float = 0.05) -> float:
    """By how much a share of runs may be off at any step at all, but for this chance. [Dvoretzky, Kiefer, Wolfowitz; Massart 1990]"""
    return math.sqrt(math.log(2.0 / chance) / (2.0 * runs))


def _median(shares: FloatArray) -> str:
    """The step by which half of the runs have left."""
    return str(int(np.argmax(shares >= 0.5))) if shares[-1] >= 0.5 else "—"


def _escape_text(report: SgdReport) -> str:
    part = report.plan.table.escape
    assert part is not None
    values, rows = report.values, []
    for i, rate in enumerate(part.learning_rates):
        for j, size in enumerate(part.batches):
            predicted, measured = values["escape_predicted"][i, j], values["escape_measured"][i, j]
            cells = [f"{rate:g}", str(size), *(number(float(values[f"escape_{n}"][i, j])) for n in ("mean_square", "growth"))]
            exponent = float(values["escape_exponent"][i, j])
            cells += ["∞" if math.isinf(exponent) else number(exponent)]
            cells += [f"{predicted[-1]:.4f}", f"{measured[-1]:.4f}", f"{np.max(np.abs(predicted - measured)):.4f}"]
            rows.append([*cells, _median(predicted), _median(measured), f"{values['escape_settled'][i, j]:.4f}"])
    header = ["η", "B", "E θ² a step", "E log|θ|", "κ", f"left by {part.steps}", "measured", "largest gap", "half left", "measured"]
    head = (
        f"  leaving the minimum 1: predicted and of {part.runs} runs, whose 95 % band is ± {band(part.runs):.3f}; "
        "from a distance ε the chance falls like ε^κ, κ ≥ 2 where 1 is stable in mean square"
    )
    return "\n".join([head, grid_text([*header, "at 0 in the end"], rows, "    ")])


def _escape_rows(report: SgdReport) -> list[list[Any]]:
    part = report.plan.table.escape
    if part is None:
        return []
    values, width = report.values, band(part.runs)
    rows = []
    for i, rate in enumerate(part.learning_rates):
        for j, size in enumerate(part.batches):
            predicted, measured = (float(values[f"escape_{name}"][i, j, -1]) for name in ("predicted", "measured"))
            head = ["escape", rate, size, f"steps={part.steps}", "left"]
            rows.append([*head, predicted, measured, max(measured - width, 0.0), min(measured + width, 1.0)])
    return rows


def _escape_missed(report: SgdReport) -> list[str]:
    part = report.plan.table.escape
    assert part is not None
    gaps = np.max(np.abs(report.values["escape_predicted"] - report.values["escape_measured"]), axis=2)
    allowed = band(part.runs, _UNLIKELY / gaps.size)
    return [
        f"escape, η = {rate:g}, B = {size}: the share of runs that have left is off by {gaps[i, j]:.3f}, more than {allowed:.3f}"
        for i, rate in enumerate(part.learning_rates)
        for j, size in enumerate(part.batches)
        if gaps[i, j] > allowed
    ]


def _plain(values: FloatArray) -> Any:
    """Nested lists, None where there is no number."""
    return [plain_number(x) for x in values] if values.ndim == 1 else [_plain(row) for row in values]
