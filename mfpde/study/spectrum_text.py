"""A spectrum in words: for the terminal, for spreadsheets and as plain data."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.study.report import Arrays
from mfpde.study.text import csv_text, plain_number
from mfpde.tables import grid_text, number

_NO_DISTANCE = 1e-9

if TYPE_CHECKING:
    from mfpde.study.spectrum import Created, MeasuredRate, Spectrum


def spectrum_text(found: "Spectrum") -> str:
    """The rates, the modes at rest, the created mode and the case's own run."""
    parts = [_rates_text(found), _rest_text(found), *(_created_text(found, created) for created in found.created), _own_text(found)]
    return "\n".join(part for part in parts if part)


def _rates_text(found: "Spectrum") -> str:
    plan = found.plan
    about = "1/L" if plan.uniform else "the teacher's density"
    head = f"  modes about {about}, each in runs of its own from amplitude {plan.table.amplitude:g}; relative errors of the rates"
    rows = []
    for place, mode in enumerate(plan.modes):
        measured = [r for r in found.rates if r.place == place]
        if mode.null:
            rows.append([str(mode.number), *(["0", "null"] if plan.exact(mode) else ["~0", "below round-off"]), "", "", "", ""])
        rows += [_rate_row(r, mode.number, plan.table.tolerance) for r in measured]
    table = grid_text(["mode", "rate", "solver", "measured", "error", "on the grid", "verdict"], rows, "    ")
    return f"{head}\n{table}" + _grid_words(found)


def _rate_row(rate: "MeasuredRate", mode: int, tolerance: float) -> list[str]:
    own = number(rate.own_error, 3) if rate.own != rate.rate else ""
    verdict = "yes" if rate.error <= tolerance else "MISSED"
    return [str(mode), number(rate.expected, 8), rate.solver, number(rate.rate, 8), number(rate.error, 2), own, verdict]


def _grid_words(found: "Spectrum") -> str:
    """Why runs on a grid have rates of their own, where there are such."""
    if not any(r.own != r.rate for r in found.rates):
        return ""
    words = "finite volumes have the wave number (2/h) sin(qh/2) in place of q, so a rate that is lower by (qh)²/12"
    return f"\n    on the grid: of the cells as they are; {words}; `measured` is extrapolated from these cells and half as many"


def _rest_text(found: "Spectrum") -> str:
    if not found.rest:
        return ""
    table = found.plan.table
    rows = [
        [
            str(r.wave),
            r.solver,
            number(r.moved, 2),
            number(float(np.max(r.loss)), 2),
            "yes" if r.moved <= table.rest_tolerance else "MISSED",
        ]
        for r in found.rest
    ]
    head = f"  null modes, {table.rest_amplitude:g} cos kθ: sup |ρ_t − ρ_0|/mean of cells, or the largest angle by which an atom moves"
    return head + "\n" + grid_text(["mode", "solver", "moved", "loss" if found.plan.taught else "energy gap", "at rest"], rows, "    ")


def _created_text(found: "Spectrum", created: "Created") -> str:
    coupling = found.plan.coupling
    assert coupling is not None
    i, j = coupling.waves
    sizes = ", ".join(f"{final:.6g} at amplitude {size:g}" for final, size in zip(created.final, created.sizes, strict=True))
    verdict = "agree" if created.error <= created.allowed else "DIFFER"
    who = f"modes {i} and {j} create" if i != j else f"mode {i} creates"
    return (
        f"  {created.solver}: {who} mode {coupling.wave}, which stays: over the product of their amplitudes {sizes}, "
        f"→ {created.limit:.6g}; second order {created.predicted:.6g}: {verdict} (error {created.error:.1e})"
    )


def _own_text(found: "Spectrum") -> str:
    own = found.own
    if own is None:
        return ""
    rows = [
        [
            number(t),
            number(own.loss[k], 3),
            number(own.distance[k], 6),
            number(own.bound[k], 6),
            number(np.max(own.hidden[:, k], initial=0.0), 4),
        ]
        for k, t in enumerate(own.times)
    ]
    head = f"  {own.label}, the case's own start: W2 from the teacher, and W2 ≥ |ρ̂_k − ρ̂*_k|/q of null modes k"
    table = grid_text(["time", "loss", "W2", "W2 at least", "null mode"], rows, "    ")
    return f"{head}\n{table}\n{_theorem_words(found)}"


def _theorem_words(found: "Spectrum") -> str:
    own = found.own
    assert own is not None
    if not found.plan.waves:
        return "    no mode up to the last one is null: nothing here keeps W2 from 0"
    if not set(found.plan.waves) & set(found.plan.zeros):
        return "    modes whose rate is below round-off may yet decay: whether W2 → 0 is not known here"
    most = float(np.max(own.left))
    if own.kept <= _NO_DISTANCE:
        if own.bound[-1] <= _NO_DISTANCE and most <= _NO_DISTANCE:
            return "    the null modes are empty, and nothing here keeps W2 from 0"
        change = f"what is left of the others can still change null modes by {most:.1e}"
        return f"    so far, at t = {own.times[-1]:g}, null modes give W2 ≥ {own.bound[-1]:.4g}, but {change}: whether W2 → 0 is open"
    reached = f"at t = {own.times[-1]:g} the loss is {own.loss[-1]:.1e}, and null modes keep W2 ≥ {own.kept:.4g} from there on"
    theorem = found.plan.uniform and all(getattr(term, "activation", "relu") == "relu" for term in found.plan.case.table.energy)
    said = " for every initial density (Theorem 4 of the slides) does not hold" if theorem else " does not hold from here"
    return f"    W2 → 0{said}: {reached}"


# Data.


def spectrum_data(found: "Spectrum") -> dict[str, Any]:
    """Plain numbers for study.json."""
    plan = found.plan
    modes = [{"mode": m.number, "rate": m.rate, "null": m.null, "exact": not m.null or plan.exact(m)} for m in plan.modes]
    return {
        "about": "uniform" if plan.uniform else "teacher",
        "tolerance": plan.table.tolerance,
        "amplitude": plan.table.amplitude,
        "modes": modes,
        "rates": [_rate_data(found, r) for r in found.rates],
        "rest": [{"mode": r.wave, "solver": r.solver, "moved": r.moved, "loss": _plain(r.loss)} for r in found.rest],
        "created": [_created_data(found, c) for c in found.created],
        "own": _own_data(found),
        "notes": plan.notes,
    }


def _plain(values: Any) -> list[float | None]:
    return [plain_number(value) for value in values]


def _rate_data(found: "Spectrum", rate: "MeasuredRate") -> dict[str, Any]:
    return {
        "mode": found.plan.modes[rate.place].number,
        "solver": rate.solver,
        "rate": rate.expected,
        "measured": plain_number(rate.rate),
        "error": plain_number(rate.error),
        "on_the_grid": plain_number(rate.own),
        "bend": plain_number(rate.bend),
        "times": _plain(rate.times),
        "amplitudes": _plain(rate.amplitudes),
    }


def _created_data(found: "Spectrum", created: "Created") -> dict[str, Any]:
    coupling = found.plan.coupling
    assert coupling is not None
    return {
        "mode": coupling.wave,
        "from": list(coupling.waves),
        "solver": created.solver,
        "amplitudes": _plain(created.sizes),
        "final": _plain(created.final),
        "limit": plain_number(created.limit),
        "second_order": created.predicted,
        "error": plain_number(created.error),
    }


def _own_data(found: "Spectrum") -> dict[str, Any] | None:
    own = found.own
    if own is None:
        return None
    return {
        "label": own.label,
        "times": _plain(own.times),
        "loss": _plain(own.loss),
        "w2": _plain(own.distance),
        "w2_at_least": _plain(own.bound),
        "w2_kept_from": own.kept,
        "null_modes": list(found.plan.waves),
        "null_amplitudes": [_plain(row) for row in own.hidden],
        "null_amplitudes_can_change_by": _plain(own.left),
    }


def spectrum_csv(found: "Spectrum") -> str:
    """One row for each mode and solver."""
    header = ["mode", "solver", "rate", "measured", "error", "on_the_grid", "moved", "loss"]
    rows: list[list[Any]] = []
    for place, mode in enumerate(found.plan.modes):
        rows += [[mode.number, r.solver, r.expected, r.rate, r.error, r.own, None, None] for r in found.rates if r.place == place]
    rows += [[r.wave, r.solver, 0.0, None, None, None, r.moved, float(np.max(r.loss))] for r in found.rest]
    return csv_text(header, [["" if cell is None else cell for cell in row] for row in rows])


def spectrum_arrays(found: "Spectrum") -> tuple[dict[str, Any], Arrays]:
    """Rates by mode and solver, the amplitudes over time, and the case's own run."""
    plan = found.plan
    modes, solvers = [mode.number for mode in plan.modes], list(plan.solvers)
    scales: dict[str, Any] = {"mode": modes, "solver": solvers}
    empty = np.full((len(solvers), len(modes)), np.nan)
    measured, own, moved = empty.copy(), empty.copy(), empty.copy()
    saved = max((len(r.times) for r in found.rates), default=1)
    times, amplitudes = np.full((len(modes), saved), np.nan), np.full((len(solvers), len(modes), saved), np.nan)
    for r in found.rates:
        s = solvers.index(r.solver)
        measured[s, r.place], own[s, r.place] = r.rate, r.own
        times[r.place, : len(r.times)], amplitudes[s, r.place, : len(r.times)] = r.times, r.amplitudes
    table = ("solver", "mode")
    arrays: Arrays = {
        "rate": (("mode",), np.array([mode.rate for mode in plan.modes])),
        "measured": (table, measured),
        "on_the_grid": (table, own),
    }
    if plan.uniform:
        for rest in found.rest:
            moved[solvers.index(rest.solver), modes.index(rest.wave)] = rest.moved
        arrays["moved"] = (table, moved)
    scales["saved"] = np.arange(saved)
    arrays |= {"time_of_mode": (("mode", "saved"), times), "amplitude": (("solver", "mode", "saved"), amplitudes)}
    if found.own is not None:
        scales["time"] = found.own.times
        arrays |= {"w2": (("time",), found.own.distance), "w2_at_least": (("time",), found.own.bound), "loss": (("time",), found.own.loss)}
    return scales, arrays
