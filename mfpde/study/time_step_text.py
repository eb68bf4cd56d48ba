"""A study of the time step in words: for the terminal, for spreadsheets and as plain data."""

import math
from typing import Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.study.refinement import RefinementStudy
from mfpde.study.text import (
    LEFT_OUT,
    NAMES,
    cells_text,
    csv_text,
    error_text,
    fit_text,
    missed,
    pair_text,
    plain_number,
    refinement_data,
    refinement_rows,
    verdict_text,
)
from mfpde.study.time_step import Family, TimeStepStudy
from mfpde.tables import grid_text, number


def time_step_text(study: TimeStepStudy) -> str:
    """One table for each family and time, with the fitted orders below it."""
    return "\n".join(_table(study, family, t) for family in study.families for t in range(len(study.times)))


def orders_missed(study: TimeStepStudy) -> list[str]:
    """What was expected and is not so, one line each."""
    return [f"{family.name}: {line}" for family in study.families for line in missed(family.own, family.expected)]


def _table(study: TimeStepStudy, family: Family, t: int) -> str:
    own = family.own
    loss = f" (loss = {' + '.join(own.loss_terms) or 'no common term'})" if "loss" in own.norms else ""
    beside = f" and against {study.reference}" if family.other is not None else ""
    grid = f" on {cells_text(own.cells[0])} cells" if own.cells.size else ""
    head = f"  {family.solver}, steps of order {family.order}{grid}, against its finest step{beside} at t = {study.times[t]:g}{loss}"
    columns = [("tau", [number(step, 6) for step in own.width]), ("steps", [str(count) for count in own.steps])]
    columns.append(("seconds", [f"{s:.2f}" for s in own.wall_seconds]))
    for k in range(len(own.norms)):
        columns += _norm_columns(family, k, t)
    table = grid_text([name for name, _ in columns], list(zip(*(cells for _, cells in columns), strict=True)), "    ")
    fits = [line for k in range(len(own.norms)) for line in _fit_lines(study, family, k, t)]
    return "\n".join([head, table, *_remarks(study, family, t), *fits, *_advice(family, t)])


def _norm_columns(family: Family, k: int, t: int) -> list[tuple[str, list[str]]]:
    """Own errors, the orders between them, and the errors against the reference, if it has this norm."""
    runs, name = range(len(family.own.labels)), NAMES[family.own.norms[k]]
    columns = [(name, [error_text(family.own, k, t, g) for g in runs]), ("order", [pair_text(family.own.pairwise[k, t, g]) for g in runs])]
    m = family.against(family.own.norms[k])
    if family.other is not None and m is not None:
        columns.append(("to ref.", [error_text(family.other, m, t, g) for g in runs]))
    return columns


def _fit_lines(study: TimeStepStudy, family: Family, k: int, t: int) -> list[str]:
    norm = family.own.norms[k]
    lines = [f"    {NAMES[norm]}: {fit_text(family.own, k, t)}{verdict_text(family.own, k, t, family.expected)}"]
    m = family.against(norm)
    if family.other is not None and m is not None:
        lines.append(f"      against {study.reference}: {fit_text(family.other, m, t)}; {_floor_text(family, norm, m, t)}")
    return lines


def _floor_text(family: Family, norm: str, m: int, t: int) -> str:
    floor = float(family.floor[norm][t])
    if not math.isfinite(floor):
        return "no estimate of what is left at tau → 0"
    return f"{floor:.1e} of it is left at tau → 0"


def _remarks(study: TimeStepStudy, family: Family, t: int) -> list[str]:
    """What the orders are fitted to, and what is left out."""
    own, other = family.own, family.other
    lines = [f"    orders p of C (tau^p − f^p), f = {own.width[-1]:.4g}: the finest step has an error of its own"]
    stalled = [NAMES[norm] for k, norm in enumerate(own.norms) if family.stalled[k, t].any()]
    if stalled:
        words = "do not fall any more, which is no error of the time step but of the minimisation, the bias or the grid; left out"
        lines.append(f"    {LEFT_OUT} some errors against the finest step ({', '.join(stalled)}) {words}")
    lines += _left_out(own, own.used | family.stalled, t, "at or below round-off or the floor of the method")
    if other is not None:
        words = (
            f"above the floor, what the grid, the number of cells of mass or atoms, or {study.reference} leaves, by less than a factor 10"
        )
        lines += _left_out(other, other.used, t, words, "errors to the reference are ")
    return lines


def _advice(family: Family, t: int) -> list[str]:
    """What may be behind orders that are missed."""
    own = family.own
    missing = [k for k, norm in enumerate(own.norms) if family.expected.misses(norm, own.order[k, t])]
    if not missing:
        return []
    if not own.used[missing, t].any():
        return [
            "    all steps lead to the same measure: the flow is at rest, or steps so short move nothing on these cells; use longer ones"
        ]
    low = [k for k in missing if not own.order[k, t] > family.expected.orders[own.norms[k]]]
    if low:
        return [
            "    an order that is too low is that of steps that are too long yet, of a start that is not smooth, or of what is no",
            "    error of the time step: how exactly steps are minimised (`accuracy`), transport between `cells`, a bias (`epsilon`)",
        ]
    return []


def _left_out(study: RefinementStudy, told: BoolArray, t: int, why: str, what: str = "errors against the finest step are ") -> list[str]:
    left = np.isfinite(study.error[:, t]) & ~told[:, t]
    names = ", ".join(NAMES[norm] for k, norm in enumerate(study.norms) if left[k].any())
    return [f"    {LEFT_OUT} {what}{why}, so left out of the fit ({names})"] if names else []


# Data.


def time_step_data(study: TimeStepStudy) -> dict[str, Any]:
    """Plain lists and numbers for study.json; numbers that are not finite become null."""
    families = [
        {
            "solver": family.solver,
            "order": family.order,
            "against_finest": refinement_data(family.own, family.solver, family.expected),
            "against_reference": None if family.other is None else _reference_data(family),
            "floor": {norm: [plain_number(x) for x in values] for norm, values in family.floor.items()},
        }
        for family in study.families
    ]
    return {
        "kind": "time_step",
        "reference": study.reference or None,
        "times": list(study.times),
        "families": families,
        "missed": orders_missed(study),
    }


def _reference_data(family: Family) -> dict[str, Any]:
    assert family.other is not None
    data = refinement_data(family.other, family.solver, type(family.expected)({}))
    return {name: value for name, value in data.items() if name not in ("missed", "runs")}


def time_step_csv(study: TimeStepStudy) -> str:
    """One row for each family, reference, norm, time and run."""
    header, rows = [""], list[list[Any]]()
    for family in study.families:
        for against, part in (("finest", family.own), (study.reference, family.other)):
            if part is not None:
                names, found = refinement_rows(part)
                header = ["solver", "order", "against", *names]
                rows += [[family.solver, family.order, against, *row] for row in found]
    return csv_text(header, rows)


def time_step_arrays(study: TimeStepStudy) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
    """Dimension scales, and arrays with the names of their dimensions, for study.h5; nan where a family has no such norm."""
    norms = tuple(norm for norm in NAMES if any(norm in family.own.norms for family in study.families))
    against, table = ("finest", "reference"), ("family", "against", "norm", "time", "step")
    shape = (len(study.families), 2, len(norms), len(study.times), len(study.families[0].own.width))
    arrays: dict[str, FloatArray] = {name: np.full(shape, np.nan) for name in ("error", "pairwise_order", "in_fit")}
    fits: dict[str, FloatArray] = {
        name: np.full(shape[:-1], np.nan) for name in ("order", "standard_error", "order_low", "order_high", "floor")
    }
    for f, family in enumerate(study.families):
        for a, part in enumerate((family.own, family.other)):
            for k, norm in enumerate(part.norms if part is not None else ()):
                assert part is not None
                place = (f, a, norms.index(norm))
                arrays["error"][place], arrays["pairwise_order"][place] = part.error[k], part.pairwise[k]
                arrays["in_fit"][place] = part.used[k]
                fits["order"][place], fits["standard_error"][place] = part.order[k], part.standard_error[k]
                fits["order_low"][place], fits["order_high"][place] = part.interval[k, :, 0], part.interval[k, :, 1]
                if a:
                    fits["floor"][place] = family.floor[norm]
    steps = study.families[0].own.width
    scales = {"family": [family.name for family in study.families], "against": list(against), "norm": list(norms)}
    seconds = np.array([family.own.wall_seconds for family in study.families])
    found: dict[str, tuple[tuple[str, ...], Any]] = {name: (table, values) for name, values in arrays.items()}
    found |= {name: (table[:-1], values) for name, values in fits.items()} | {"wall_seconds": (("family", "step"), seconds)}
    return scales | {"time": np.asarray(study.times), "step": steps}, found
