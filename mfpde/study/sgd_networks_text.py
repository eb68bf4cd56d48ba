"""The networks in a study of the stability of SGD in words: trained ones, and fluctuations of particle runs."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import BoolArray
from mfpde.study.sgd_plan import SERIES, SOLUTION, batch_of, kept_steps
from mfpde.tables import grid_text, number

if TYPE_CHECKING:
    from mfpde.study.sgd_text import SgdReport

SERIES_NAMES = {"time_step_kept": "τ kept", "learning_rate_kept": "α kept"}
_ROOM = 1.05


# Training.


def training_text(report: "SgdReport") -> str:
    """Tables of the solutions by batch and learning rate."""
    part = report.plan.table.training
    assert part is not None
    fitted = report.values["training_fitted"] == 1.0
    starts = "the same start" if part.seeds == 1 else f"{part.seeds} starts"
    words = "those that fit, mean ± deviation; r and the largest stable η with H_i = ∇f(x_i)∇f(x_i)ᵀ"
    lines = [f"  solutions from {starts}, by B and η: {words}"]
    tables = (
        ("sharpness", "a = λ_max(H)", 3),
        ("nonuniformity", "s = λ_max(Σ)^½", 3),
        ("trace", "tr H", 3),
        ("trace_nonuniformity", "(tr Σ)^½", 3),
        ("mean_square_rate", "r of SGD there", 5),
        ("critical_rate", "largest stable η", 3),
    )
    for name, title, digits in tables:
        rows = [[f"B = {size}", *_cells(report, name, j, fitted, digits)] for j, size in enumerate(part.batches)]
        if name == "sharpness":
            rows.append(["2/η", *(number(2.0 / rate, digits) for rate in part.learning_rates)])
        lines.append(grid_text([title, *(f"η = {rate:g}" for rate in part.learning_rates)], rows, "    "))
    count = int(np.sum(report.values["training_diverged"] == 1.0))
    left = int(fitted.size - np.sum(fitted)) - count
    lines.append(f"    {int(np.sum(fitted))} runs fit, {count} diverged (div.), {left} were not there after {part.steps} steps (late)")
    return "\n".join(lines)


def _cells(report: "SgdReport", name: str, j: int, fitted: BoolArray, digits: int) -> list[str]:
    """Mean and deviation over the starts, for each learning rate."""
    cells = []
    for r in range(fitted.shape[2]):
        values = report.values[f"training_{name}"][j][fitted[j, :, r], r]
        diverged = (report.values["training_diverged"][j, :, r] == 1.0).any()
        spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
        cells.append(number(float(np.mean(values)), digits) + spread if len(values) else "div." if diverged else "late")
    return cells


def training_rows(report: "SgdReport") -> list[list[Any]]:
    """Rows for spreadsheets."""
    part = report.plan.table.training
    if part is None:
        return []
    rows = []
    for j, size in enumerate(part.batches):
        for k in range(part.seeds):
            for r, rate in enumerate(part.learning_rates):
                for name in SOLUTION:
                    value = float(report.values[f"training_{name}"][j, k, r])
                    bound = 2.0 / rate if name == "sharpness" else math.nan
                    rows.append(["training", rate, size, f"start={k}", name, bound, value, math.nan, math.nan])
    return rows


def training_missed(report: "SgdReport") -> list[str]:
    """Gradient descent cannot end where a > 2/η."""
    part = report.plan.table.training
    assert part is not None
    found = []
    for j, size in enumerate(part.batches):
        if not batch_of(part, size, part.samples).whole:
            continue
        for r, rate in enumerate(part.learning_rates):
            kept = report.values["training_fitted"][j, :, r] == 1.0
            largest = float(np.max(report.values["training_sharpness"][j, kept, r], initial=0.0))
            if largest > _ROOM * 2.0 / rate:
                found.append(f"training, η = {rate:g}: gradient descent has come to a sharpness of {largest:.4g} > 2/η = {2.0 / rate:.4g}")
    return found


# Particles.


def particles_text(report: "SgdReport") -> str:
    """Deviations of the loss, predicted and measured."""
    part = report.plan.table.particles
    assert part is not None
    values, rows = report.values, []
    for k, series in enumerate(SERIES):
        for i, count in enumerate(part.counts):
            for t, time in enumerate(part.times):
                roots = [math.sqrt(values[f"particle_{name}"][k, i, t]) for name in ("predicted", "variance", "low", "high")]
                lead = [SERIES_NAMES[series] if i == t == 0 else "", str(count), f"{kept_steps(part)[k][i]:.4g}"] if t == 0 else [""] * 3
                cells = [f"{time:g}", *(number(float(values[f"particle_{name}"][k, i, t])) for name in ("descent", "mean"))]
                cells += [number(roots[0], 3), f"{roots[1]:.3g} ({roots[2]:.3g} to {roots[3]:.3g})"]
                rows.append([*lead, *cells, number(roots[1] / roots[0] if roots[0] > 0.0 else math.nan, 3)])
    header = ["", "N", "τ = α/N", "t", "loss of GD", "mean of SGD", "deviation predicted", "measured (95 %)", "ratio"]
    head = "  deviation of the loss in SGD, to first order in the noise, and measured: of order (τc)^½, whatever N is, if τ is kept"
    return "\n".join([head, grid_text(header, rows, "    ")])


def particle_rows(report: "SgdReport") -> list[list[Any]]:
    """Rows for spreadsheets."""
    part = report.plan.table.particles
    if part is None:
        return []
    rows = []
    for k, series in enumerate(SERIES):
        for i, count in enumerate(part.counts):
            for t, time in enumerate(part.times):
                numbers = [float(report.values[f"particle_{name}"][k, i, t]) for name in ("predicted", "variance", "low", "high")]
                alpha = kept_steps(part)[k][i] * count
                rows.append(["particles", alpha, part.batch, f"{series} N={count} t={time:g}", "variance_of_loss", *numbers])
    return rows
