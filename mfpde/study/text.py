"""A study in words: for the terminal, for spreadsheets and as plain data."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfpde.study.orders import Order
from mfpde.study.refinement import Expectation, RefinementStudy
from mfpde.tables import grid_text, number

NAMES = {"l1": "L1", "l2": "L2", "w2": "W2", "loss": "loss gap"}
LEFT_OUT = "*"
_UNEVEN = 0.5
_FEWEST = 2


def refinement_text(study: RefinementStudy, solver: str, expected: Expectation) -> str:
    """One table of errors and orders for each time, and below it the fitted orders."""
    return "\n".join(_time_text(study, t, solver, expected) for t in range(len(study.times)))


def missed(study: RefinementStudy, expected: Expectation) -> list[str]:
    """What was expected and is not so, one line each; an order that could not be fitted is missed, unless all errors are round-off."""
    return [
        f"{NAMES[norm]} at t = {at:g}: order {number(study.order[k, t])}, expected {expected.orders[norm]:g} ± {expected.allowance:g}"
        for k, norm in enumerate(study.norms)
        for t, at in enumerate(study.times)
        if expected.misses(norm, study.order[k, t]) and not study.exact[k, t]
    ]


def cells_text(cells: Any) -> str:
    """64 × 64."""
    return " × ".join(str(count) for count in cells)


def order_text(order: Order) -> str:
    """The order with its standard error and interval."""
    if not math.isfinite(order.value):
        if order.count < _FEWEST:
            return f"no order ({order.count} error{'s' * (order.count != 1)} above the floor; two give an order, three an interval)"
        return f"no order (the {order.count} errors above the floor fall too slowly or too fast for any)"
    if not math.isfinite(order.low):
        return f"order {order.value:.3f} (two errors, so no interval)"
    interval = f"95 % interval {order.low:.3f} to {order.high:.3f}"
    return f"order {order.value:.3f}, standard error {order.standard_error:.2g}, {interval}, {order.count} errors"


def _time_text(study: RefinementStudy, t: int, solver: str, expected: Expectation) -> str:
    head = f"  refinement of {solver} against {study.reference} at t = {study.times[t]:g}{_loss_text(study)}"
    columns = [*_run_columns(study), *(column for k in range(len(study.norms)) for column in _norm_columns(study, k, t))]
    table = grid_text([name for name, _ in columns], list(zip(*(cells for _, cells in columns), strict=True)), "    ")
    fits = [f"    {NAMES[norm]}: {fit_text(study, k, t)}{verdict_text(study, k, t, expected)}" for k, norm in enumerate(study.norms)]
    return "\n".join([head, table, *_remarks(study, t), *fits, *_advice(study, t, expected)])


def _run_columns(study: RefinementStudy) -> list[tuple[str, list[str]]]:
    """Headers and cells of what belongs to the runs."""
    columns = [("cells", [cells_text(cells) for cells in study.cells]), (study.variable, [number(width) for width in study.width])]
    if study.variable == "h" and np.isfinite(study.step).all():
        columns.append(("dt", [number(step) for step in study.step]))
    return [*columns, ("steps", [str(count) for count in study.steps]), ("seconds", [f"{s:.2f}" for s in study.wall_seconds])]


def _norm_columns(study: RefinementStudy, k: int, t: int) -> list[tuple[str, list[str]]]:
    """Headers and cells of one norm; the floor of a distance that is not exact stands beside it."""
    runs, name = range(len(study.labels)), NAMES[study.norms[k]]
    columns = [(name, [error_text(study, k, t, g) for g in runs])]
    if study.norms[k] == "w2" and any("exact" not in method for method in study.methods):
        columns.append(("W2 floor", [number(study.floor[k, t, g], 2) for g in runs]))
    return [*columns, ("order", [pair_text(study.pairwise[k, t, g]) for g in runs])]


def error_text(study: RefinementStudy, k: int, t: int, g: int) -> str:
    """An error, with a mark where it is in no fit; what the run is, where it has none."""
    if math.isfinite(study.error[k, t, g]):
        return f"{study.error[k, t, g]:.3e}" + LEFT_OUT * (not study.used[k, t, g])
    corrected = study.fits[k][t].reference > 0.0
    return study.statuses[g] if study.statuses[g] != "DONE" else "reference" if corrected and g == len(study.labels) - 1 else "—"


def pair_text(order: float) -> str:
    """An order between two runs."""
    return f"{order:.2f}" if math.isfinite(order) else "—"


def _loss_text(study: RefinementStudy) -> str:
    if "loss" not in study.norms:
        return ""
    return f" (loss = {' + '.join(study.loss_terms) or 'no common term'})"


def fit_text(study: RefinementStudy, k: int, t: int) -> str:
    """The fitted order of one norm at one time, or why there is none."""
    if study.norms[k] == "loss" and not study.loss_terms:
        return "no energy term is finite in all the runs and the reference"
    if study.exact[k, t]:
        return f"exact to round-off (largest error {np.nanmax(study.error[k, t]):.1e})"
    return order_text(study.fits[k][t])


def verdict_text(study: RefinementStudy, k: int, t: int, expected: Expectation) -> str:
    """What was expected, and whether it is so; empty where nothing was."""
    norm = study.norms[k]
    if norm not in expected.orders:
        return ""
    verdict = "yes" if study.exact[k, t] or not expected.misses(norm, study.order[k, t]) else "MISSED"
    return f"; expected {expected.orders[norm]:g} ± {expected.allowance:g}: {verdict}"


def _remarks(study: RefinementStudy, t: int) -> list[str]:
    """What is left out of the fits, and how they are corrected."""
    lines = []
    left = np.isfinite(study.error[:, t]) & ~study.used[:, t]
    if left.any():
        names = ", ".join(NAMES[norm] for k, norm in enumerate(study.norms) if left[k].any())
        lines.append(f"    {LEFT_OUT} not resolved, so left out of the fit: at or below round-off or the floor of the method ({names})")
    if study.fits[0][t].reference > 0.0:
        own = f"{study.variable} = {study.fits[0][t].reference:.4g}"
        lines.append(
            f"    orders p of C ({study.variable}^p − f^p), where f is the finest run's {own}: the reference has an error of its own"
        )
    return lines


def _advice(study: RefinementStudy, t: int, expected: Expectation) -> list[str]:
    """What may be behind orders that differ from run to run, or that are lower than expected."""
    last = [row[np.isfinite(row)][-1:] for row in study.pairwise[:, t]]
    change = [float(order[0]) - fit[t].value for order, fit in zip(last, study.fits, strict=True) if len(order)]
    low = any(_is_low(study, k, t, expected) for k in range(len(study.norms)))
    rising, falling = any(step > _UNEVEN for step in change), any(step < -_UNEVEN for step in change)
    lines = []
    if rising or low:
        lines.append(
            "    coarse runs that do not resolve the solution yet make the fitted order too low; leave them out, or add finer ones"
        )
    if falling and study.variable == "h":
        lines.append(
            "    the order falls on finer grids: the errors of the time steps may be left there; a smaller `tolerance` takes them out"
        )
    if rising or falling or low:
        lines.append(
            "    free boundaries and kinks limit the order, unevenly from run to run: min(2, 1 + 1/(m − 1)) in L1 for porous media"
        )
    return lines


def _is_low(study: RefinementStudy, k: int, t: int, expected: Expectation) -> bool:
    """Whether an order is below the expected one, by more than is allowed."""
    norm, order = study.norms[k], study.order[k, t]
    return not study.exact[k, t] and expected.misses(norm, order) and not order > expected.orders[norm]


# Data.


def refinement_data(study: RefinementStudy, solver: str, expected: Expectation) -> dict[str, Any]:
    """Plain lists and numbers for study.json; numbers that are not finite become null."""
    runs = [
        {
            "label": label,
            "status": study.statuses[g],
            "cells": study.cells[g].tolist(),
            study.variable: plain_number(study.width[g]),
            "step": plain_number(study.step[g]),
            "tolerance": plain_number(study.tolerance[g]),
            "steps": int(study.steps[g]),
            "wall_seconds": plain_number(study.wall_seconds[g]),
        }
        for g, label in enumerate(study.labels)
    ]
    results = [_result(study, k, t, expected) for k in range(len(study.norms)) for t in range(len(study.times))]
    return {
        "kind": "refinement",
        "solver": solver,
        "reference": study.reference,
        "reference_mass": [plain_number(mass) for mass in study.masses],
        "variable": study.variable,
        "fit": f"least squares of log error against log C + log({study.variable}^value − reference^value), 95 % by Student's t",
        "loss_terms": list(study.loss_terms),
        "w2_method": list(study.methods),
        "times": study.times.tolist(),
        "runs": runs,
        "results": results,
        "missed": missed(study, expected),
    }


def _result(study: RefinementStudy, k: int, t: int, expected: Expectation) -> dict[str, Any]:
    fit, norm = study.fits[k][t], study.norms[k]
    names = ("value", "standard_error", "low", "high", "constant", "reference")
    asked = {"expected": expected.orders[norm], "allowance": expected.allowance} if norm in expected.orders else {}
    return {
        "norm": norm,
        "time": float(study.times[t]),
        "error": [plain_number(x) for x in study.error[k, t]],
        "floor": [plain_number(x) for x in study.floor[k, t]],
        "pairwise_order": [plain_number(x) for x in study.pairwise[k, t]],
        "in_fit": study.used[k, t].tolist(),
        "exact_to_round_off": bool(study.exact[k, t]),
        "order": {**{name: plain_number(getattr(fit, name)) for name in names}, "errors": fit.count},
        **asked,
    }


def refinement_csv(study: RefinementStudy) -> str:
    """One row for each norm, time and run; empty cells where there is no number."""
    return csv_text(*refinement_rows(study))


def refinement_rows(study: RefinementStudy) -> tuple[list[str], list[list[Any]]]:
    """The header and the rows of study.csv."""
    header = ["norm", "time", "run", "cells", study.variable, "step", "tolerance", "steps", "wall_seconds", "status"]
    header += ["error", "floor", "pairwise_order", "in_fit", "fitted_order", "standard_error", "low", "high"]
    rows: list[list[Any]] = []
    for k, norm in enumerate(study.norms):
        for t, at in enumerate(study.times):
            fit = study.fits[k][t]
            for g, label in enumerate(study.labels):
                run = [label, "x".join(map(str, study.cells[g])), study.width[g], study.step[g], study.tolerance[g], study.steps[g]]
                found = [study.error[k, t, g], study.floor[k, t, g], study.pairwise[k, t, g], int(study.used[k, t, g])]
                order = [fit.value, fit.standard_error, fit.low, fit.high]
                rows.append([norm, at, *run, study.wall_seconds[g], study.statuses[g], *found, *order])
    return header, rows


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for spreadsheets; empty cells where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(x) for x in row] for row in rows)
    return text.getvalue().rstrip("\n")


def refinement_arrays(study: RefinementStudy, axes: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
    """Dimension scales, and arrays with the names of their dimensions, for study.h5."""
    table = ("norm", "time", "run")
    fit = {name: getattr(study, name) for name in ("order", "standard_error")}
    fit |= {"order_low": study.interval[..., 0], "order_high": study.interval[..., 1]}
    scales = {"norm": list(study.norms), "time": study.times, "run": list(study.labels), "axis": list(axes)}
    arrays: dict[str, tuple[tuple[str, ...], Any]] = {name: (table, getattr(study, name)) for name in ("error", "floor")}
    arrays |= {"pairwise_order": (table, study.pairwise), "in_fit": (table, study.used.astype(np.int8))}
    arrays |= {name: (("norm", "time"), values) for name, values in fit.items()}
    arrays["exact_to_round_off"] = (("norm", "time"), study.exact.astype(np.int8))
    arrays |= {name: (("run",), getattr(study, name)) for name in ("width", "step", "tolerance", "steps", "wall_seconds")}
    return scales, arrays | {"cells": (("run", "axis"), study.cells), "reference_mass": (("time",), study.masses)}


def plain_number(value: Any) -> float | None:
    """A number for JSON, None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _cell(value: Any) -> Any:
    """Text and whole numbers as they are, floats with all their digits, nothing for nan."""
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return value
