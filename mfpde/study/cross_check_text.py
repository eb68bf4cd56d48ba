"""A cross-check in words: for the terminal, for spreadsheets and as plain data."""

from typing import Any

import numpy as np

from mfpde.study.cross_check import CrossCheck
from mfpde.study.text import NAMES, csv_text, plain_number
from mfpde.tables import grid_text, number

_APART = "*"


def cross_check_text(check: CrossCheck) -> str:
    """One table with a row for each run and time, and that of all pairs at the last time."""
    terms = {label: " + ".join(names) or "no common term" for label, names in check.terms.items()}
    words, own = terms[check.reference], {label: name for label, name in terms.items() if name != terms[check.reference]}
    words += "".join(f", its gap of {label} with {name}" for label, name in own.items())
    how = f"W2 {check.method}; " if check.method else ""
    loss = f"loss = {words}; " if "loss" in check.norms else ""
    head = f"  all against {check.reference} ({how}{loss}± the sum of the stated errors of both)"
    header = ["time", "run"]
    header += [name for norm in check.norms for name in ((NAMES[norm], "±") if norm != "loss" else ("loss", "loss gap", "±"))]
    rows = [_row(check, r, t) for t in range(len(check.times)) for r in range(len(check.labels))]
    return "\n".join([head, grid_text([*header, "verdict"], rows, "    "), *_matrix(check), *(f"    {word}" for word in check.words)])


def differing(check: CrossCheck) -> list[str]:
    """Where runs differ from the reference by more than their errors, one line each."""
    return [
        f"{check.labels[r]} and {check.reference} at t = {check.times[t]:g}: {NAMES[norm]} {number(check.distance[k, r, t], 3)}, "
        f"stated errors {number(check.allowed[k, r, t], 3)}"
        for k, norm in enumerate(check.norms)
        for r in range(len(check.labels))
        for t in range(len(check.times))
        if check.differs[k, r, t]
    ]


def verdict(check: CrossCheck, r: int, t: int) -> str:
    """The verdict on one run at one time."""
    if check.labels[r] == check.reference:
        return "reference" if np.isfinite(check.stated[:, r, t]).any() else "—"
    if check.differs[:, r, t].any():
        return "differ in " + ", ".join(NAMES[norm] for k, norm in enumerate(check.norms) if check.differs[k, r, t])
    told = np.isfinite(check.allowed[:, r, t]) & np.isfinite(check.distance[:, r, t])
    return "agree" if told.any() else "—"


def _row(check: CrossCheck, r: int, t: int) -> list[str]:
    cells = [number(check.times[t]), check.labels[r]]
    own = check.labels[r] == check.reference
    for k, norm in enumerate(check.norms):
        room = check.stated[k, r, t] if own else check.allowed[k, r, t]
        cells += [number(check.loss[r, t], 7)] if norm == "loss" else []
        cells += ["" if own else number(check.distance[k, r, t], 3), number(room, 2)]
    return [*cells, verdict(check, r, t)]


def _matrix(check: CrossCheck) -> list[str]:
    """W₂ of all pairs at the last time; nothing for two runs or without W₂."""
    if "w2" not in check.norms or len(check.labels) < 3:
        return []
    rows = [[label, *(_entry(check, i, k) for k in range(len(check.labels)))] for i, label in enumerate(check.labels)]
    lines = [f"  W2 of all pairs at t = {check.times[-1]:g}", grid_text(["", *check.labels], rows, "    ")]
    if any(_far(check, i, k) for i in range(len(check.labels)) for k in range(i)):
        lines.append(f"    {_APART} further apart than their stated errors")
    return lines


def _far(check: CrossCheck, i: int, k: int) -> bool:
    return bool(np.isfinite(check.near[i, k]) and check.apart[i, k] > check.near[i, k])


def _entry(check: CrossCheck, i: int, k: int) -> str:
    return "0" if i == k else number(check.apart[i, k], 3) + _APART * _far(check, i, k)


# Data.


def cross_check_data(check: CrossCheck) -> dict[str, Any]:
    """Plain lists and numbers for study.json; numbers that are not finite become null."""
    runs = [
        {
            "label": label,
            "loss_terms": list(check.terms.get(label, ())),
            "loss": _listed(check.loss[r]),
            **{
                norm: {name: _listed(getattr(check, name)[k, r]) for name in ("stated", "distance", "allowed")}
                for k, norm in enumerate(check.norms)
            },
            "verdict": [verdict(check, r, t) for t in range(len(check.times))],
        }
        for r, label in enumerate(check.labels)
    ]
    return {
        "kind": "cross_check",
        "reference": check.reference,
        "times": check.times.tolist(),
        "w2_method": check.method,
        "runs": runs,
        "w2_of_all_pairs": [_listed(row) for row in check.apart],
        "w2_allowed_of_all_pairs": [_listed(row) for row in check.near],
        "differ": differing(check),
    }


def _listed(values: Any) -> list[float | None]:
    return [plain_number(value) for value in values]


def cross_check_csv(check: CrossCheck) -> str:
    """One row for each run, time and norm."""
    header = ["time", "run", "reference", "norm", "distance", "allowed", "stated", "loss", "verdict"]
    rows = [
        [at, label, check.reference, norm, check.distance[k, r, t], check.allowed[k, r, t], check.stated[k, r, t], check.loss[r, t], word]
        for t, at in enumerate(check.times)
        for r, label in enumerate(check.labels)
        for k, norm in enumerate(check.norms)
        for word in [_word(check, k, r, t)]
    ]
    return csv_text(header, rows)


def _word(check: CrossCheck, k: int, r: int, t: int) -> str:
    if not (np.isfinite(check.distance[k, r, t]) and np.isfinite(check.allowed[k, r, t])):
        return ""
    return "differ" if check.differs[k, r, t] else "agree"


def cross_check_arrays(check: CrossCheck) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
    """Dimension scales, and arrays with the names of their dimensions, for study.h5."""
    scales = {"norm": list(check.norms), "run": list(check.labels), "time": check.times, "other": list(check.labels)}
    table = ("norm", "run", "time")
    arrays: dict[str, tuple[tuple[str, ...], Any]] = {name: (table, getattr(check, name)) for name in ("stated", "distance", "allowed")}
    arrays |= {"differs": (table, check.differs.astype(np.int8)), "loss": (("run", "time"), check.loss)}
    return scales, arrays | {"w2_of_pairs": (("run", "other"), check.apart), "w2_allowed_of_pairs": (("run", "other"), check.near)}
