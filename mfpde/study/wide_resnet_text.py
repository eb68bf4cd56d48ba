"""A study of the wide residual network in words: for the terminal, for spreadsheets and as plain data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.case.wide_resnet_schema import WideResNetTable
from mfpde.energy.wide_resnets import WideResNet
from mfpde.study.orders import Order
from mfpde.study.report import Arrays
from mfpde.study.text import LEFT_OUT, csv_text, order_text, plain_number
from mfpde.study.wide_resnet import APPROXIMATIONS, Errors, Rise, WideStudy
from mfpde.tables import grid_text, number

LOSSES = ("E", "E1", "E2")
OUTPUTS = ("X^L", "X1", "X2")
_MOST_ROWS = 12
_LIMIT_ORDER = 1.0
_NOTHING = 1e-12
_ALIKE = 1e-7


@dataclass(frozen=True, eq=False)
class WideReport:
    """What was found. ``orders``: what is expected of the errors in the radius; ``alone``: whether the network is the whole energy."""

    title: str
    study: WideStudy
    table: WideResNetTable
    term: WideResNet
    orders: tuple[float, float]
    alone: bool

    def text(self) -> str:
        """Tables of losses, of errors by radius and by depth, and what they say."""
        return "\n".join([*_flow_lines(self), *_condition_lines(self), *_expansion_lines(self), *_limit_lines(self)])

    def data(self) -> dict[str, Any]:
        """Everything, as lists."""
        flows, condition = self.study.flows, self.study.condition
        found: dict[str, Any] = {"flows": list(APPROXIMATIONS), "losses": list(LOSSES), "times": flows.times.tolist()}
        found |= {"loss": flows.loss.tolist(), "distance": flows.distance.tolist(), "distance_method": flows.method}
        found["exact_loss_rises"] = {name: _rise_data(flows.rise(k, 0)) for k, name in enumerate(APPROXIMATIONS)}
        names = ("marginal", "marginal_norm", "own", "own_norm")
        found["condition"] = {name: [plain_number(x) for x in getattr(condition, name)] for name in names}
        found["condition"]["beyond_first_order"] = plain_number(condition.beyond)
        found["expansion"] = _errors_data(self.study.expansion, OUTPUTS[1:], self.orders)
        found["limit"] = _errors_data(self.study.limit, OUTPUTS, (_LIMIT_ORDER,) * 3)
        return found | {"law": self.table.law, "levels": self.term.depth.levels}

    def csv(self) -> str:
        """A row for each flow and time, then for each radius and each depth."""
        flows, rows = self.study.flows, []
        for k, name in enumerate(APPROXIMATIONS):
            for t, time in enumerate(flows.times.tolist()):
                rows.append(["flow", name, time, *flows.loss[k, :, t].tolist(), float(flows.distance[k, t])])
        for g, radius in enumerate(self.study.expansion.widths.tolist()):
            rows.append(["radius", "", radius, math.nan, *self.study.expansion.values[:, g].tolist(), math.nan])
        for g, width in enumerate(self.study.limit.widths.tolist()):
            rows.append(["levels", "", round(1.0 / width), *self.study.limit.values[:, g].tolist(), math.nan])
        return csv_text(["part", "flow", "at", "exact", "first", "second", "w2_to_exact_flow"], rows)

    def arrays(self) -> tuple[dict[str, Any], Arrays]:
        """All numbers."""
        flows, condition, expansion, limit = self.study.flows, self.study.condition, self.study.expansion, self.study.limit
        counts = np.round(1.0 / limit.widths).astype(np.int64)
        scales: dict[str, Any] = {"flow": list(APPROXIMATIONS), "network": list(APPROXIMATIONS), "expansion": list(APPROXIMATIONS[1:])}
        scales |= {"time": flows.times, "radius": expansion.widths, "levels": counts}
        arrays: Arrays = {"loss": (("flow", "network", "time"), flows.loss)}
        arrays |= {name: (("flow", "time"), getattr(flows, name)) for name in ("distance", "floor")}
        arrays |= {f"condition_{name}": (("flow",), getattr(condition, name)) for name in ("marginal", "marginal_norm", "own", "own_norm")}
        arrays |= _errors_arrays("radius", ("expansion", "radius"), expansion)
        return scales, arrays | _errors_arrays("levels", ("network", "levels"), limit)

    def missed(self) -> list[str]:
        """Own losses that rise, a late rise that is not as expected, and orders out of range."""
        return [*_rising(self), *_missed_rise(self), *_missed_orders(self)]

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """study-losses and study-orders."""
        from mfpde.figures import draw_wide_resnet

        return draw_wide_resnet(self, folder, formats)


# Flows.


def _flow_lines(report: WideReport) -> list[str]:
    flows = report.study.flows
    shown = np.unique(np.round(np.linspace(0, len(flows.times) - 1, _MOST_ROWS)).astype(int))
    header = ["time", *(f"{loss}|{name}" for name in APPROXIMATIONS for loss in LOSSES), "W2 first", "W2 second"]
    rows = [
        [
            number(float(flows.times[t])),
            *(number(float(flows.loss[k, i, t]), 3) for k in range(3) for i in range(3)),
            *(number(float(flows.distance[k, t]), 3) for k in (1, 2)),
        ]
        for t in shown
    ]
    head = "  losses of the network (E) and its expansions (E1, E2) | along the flows of each; W2 to the exact flow"
    left = [f"    {len(flows.times) - len(shown)} more times in study.csv"] if len(shown) < len(flows.times) else []
    words = [f"    {_rise_words(flows.rise(k, 0), name)}" for k, name in enumerate(APPROXIMATIONS) if k]
    apart = float(np.max(flows.distance[:, 0])) if flows.times[0] == 0.0 else 0.0
    words += [f"    the flows do not start alike: W2 is {apart:.3g} at t = 0"] if apart > _ALIKE else []
    own = [] if _rising(report) or not report.alone else ["    along its own flow no loss rises"]
    return [head, grid_text(header, rows, "    "), *left, *words, *own]


def _rise_words(rise: Rise, name: str) -> str:
    along = f"along the flow of the {name}-order loss the exact loss"
    if not rise.there:
        return f"{along} never rises"
    factor = f", {rise.high / rise.low:.3g} times that" if rise.low > 0.0 else ""
    return f"{along} falls to {rise.low:.3g} at t = {rise.since:g} and then rises to {rise.high:.3g} at t = {rise.until:g}{factor}"


def _rising(report: WideReport) -> list[str]:
    """Losses that rise along their own flows, which are theirs alone where the network is the whole energy."""
    found = [(LOSSES[k], report.study.flows.rise(k, k)) for k in range(3)] if report.alone else []
    return [
        f"{name} rises along its own flow, from {rise.low:.4g} at t = {rise.since:g} to {rise.high:.4g} at t = {rise.until:g}"
        for name, rise in found
        if rise.there
    ]


def _missed_rise(report: WideReport) -> list[str]:
    wanted, rise = report.table.rise, report.study.flows.rise(1, 0)
    if wanted is None or wanted == rise.there:
        return []
    return [f"{_rise_words(rise, 'first')}, expected to {'rise' if wanted else 'fall'}"]


# The stationary condition.


def _condition_lines(report: WideReport) -> list[str]:
    found, last = report.study.condition, report.study.flows.times[-1]
    header = ["flow", "max |∬σ(θx)(ρ−ρ*)|", "in L2(μ)", "max |X−y|", "in L2(μ)"]
    columns = (found.marginal, found.marginal_norm, found.own, found.own_norm)
    rows = [[name, *(number(float(column[k]), 3) for column in columns)] for k, name in enumerate(APPROXIMATIONS)]
    head = f"  stationary condition (11) at t = {last:g}, for |x| up to 3 root mean squares, beside what each network misses of y"
    words = []
    if math.isfinite(found.beyond):
        words = [f"    y differs from X1(ρ*) by up to {found.beyond:.3g}: that is what a flow of E1 that reaches y leaves of (11)"]
        if found.beyond <= _NOTHING:
            words = ["    y is X1(ρ*): where a flow of E1 reaches y, (11) holds"]
    return [head, grid_text(header, rows, "    "), *words]


# Orders.


def _expansion_lines(report: WideReport) -> list[str]:
    errors = report.study.expansion
    rows = _order_rows(errors, [number(r) for r in errors.widths])
    header = ["r", "|X^L - X1|", "order", "|X^L - X2|", "order"]
    head = f"  errors of the expansions in L2(μ), the {report.table.law} ρ of the exact flow with θ scaled to rθ"
    lines = [f"    {OUTPUTS[k + 1]}: {_fit_words(errors, k, report.orders[k], report.table.allowance)}" for k in range(2)]
    return [head, grid_text(header, rows, "    "), *lines, *_left_out(errors)]


def _limit_lines(report: WideReport) -> list[str]:
    errors = report.study.limit
    rows = _order_rows(errors, [str(round(1.0 / width)) for width in errors.widths])
    header = ["L", *(word for name in OUTPUTS for word in (f"{name} off", "order"))]
    head = "  networks of L levels off their limits of many, in L2(μ), the same ρ(θ, ε); orders in 1/L"
    lines = [f"    {OUTPUTS[k]}: {_fit_words(errors, k, _LIMIT_ORDER, report.table.allowance)}" for k in range(3)]
    return [head, grid_text(header, rows, "    "), *lines, *_left_out(errors)]


def _order_rows(errors: Errors, first: list[str]) -> list[list[str]]:
    """Errors with their local orders; a mark where they are in no fit."""
    rows, local = [], errors.pairwise
    for g, name in enumerate(first):
        cells = [name]
        for k in range(len(errors.values)):
            told = errors.used[k, g] or errors.exact[k]
            cells += [f"{errors.values[k, g]:.3e}" + LEFT_OUT * (not told), "—" if errors.exact[k] else number(float(local[k, g]), 3)]
        rows.append(cells)
    return rows


def _left_out(errors: Errors) -> list[str]:
    told = ~errors.used & ~errors.exact[:, None]
    return [f"    {LEFT_OUT} not in the fit, which is of {errors.words}"] if told.any() else []


def _fit_words(errors: Errors, k: int, expected: float, allowance: float) -> str:
    if errors.exact[k]:
        return f"no error but round-off (largest {np.max(errors.values[k]):.1e})"
    found = order_text(errors.fits[k])
    if not math.isfinite(expected):
        return f"{found}; no order is expected"
    return f"{found}; expected {expected:g} ± {allowance:g}: {'MISSED' if _misses(errors, k, expected, allowance) else 'yes'}"


def _misses(errors: Errors, k: int, expected: float, allowance: float) -> bool:
    if errors.exact[k] or not math.isfinite(expected):
        return False
    return not abs(errors.fits[k].value - expected) <= allowance


def _missed_orders(report: WideReport) -> list[str]:
    parts = [(report.study.expansion, OUTPUTS[1:], report.orders, "in r"), (report.study.limit, OUTPUTS, (_LIMIT_ORDER,) * 3, "in 1/L")]
    return [
        f"{name}: order {number(errors.fits[k].value)} {words}, expected {expected[k]:g} ± {report.table.allowance:g}"
        for errors, names, expected, words in parts
        for k, name in enumerate(names)
        if _misses(errors, k, expected[k], report.table.allowance)
    ]


# Data.


def _rise_data(rise: Rise) -> dict[str, Any]:
    return {"rises": rise.there, "lowest_at": rise.since, "lowest": rise.low, "highest_at": rise.until, "highest": rise.high}


def _order_data(order: Order) -> dict[str, float | None]:
    return {name: plain_number(getattr(order, name)) for name in ("value", "standard_error", "low", "high")}


def _errors_data(errors: Errors, names: Sequence[str], expected: Sequence[float]) -> dict[str, Any]:
    return {
        "widths": errors.widths.tolist(),
        **{
            name: {
                "error": errors.values[k].tolist(),
                "in_fit": errors.used[k].tolist(),
                "order": _order_data(errors.fits[k]),
                "round_off": bool(errors.exact[k]),
                "expected": plain_number(expected[k]),
            }
            for k, name in enumerate(names)
        },
    }


def _errors_arrays(name: str, dimensions: tuple[str, str], errors: Errors) -> Arrays:
    arrays: Arrays = {f"{name}_error": (dimensions, errors.values), f"{name}_in_fit": (dimensions, errors.used.astype(np.int8))}
    fits = {key: np.array([getattr(fit, key) for fit in errors.fits]) for key in ("value", "low", "high")}
    return arrays | {f"{name}_order_{key}": (dimensions[:1], values) for key, values in fits.items()}
