"""A particle limit in words: for the terminal, for spreadsheets and as plain data."""

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.study.limit import ParticleLimit
from mfpde.study.quantities import Row
from mfpde.study.rates import Rate
from mfpde.tables import grid_text, number

_SEEN = 0.1
_WIDE = 0.8


@dataclass(frozen=True, eq=False)
class LimitReport:
    """A particle limit with what was expected of it.

    ``theory``: by time (T,), "w2": N E W₂², "loss": √N times the deviation of the loss gap, nan where nothing is known.
    ``exact``: a count and by how much its atoms miss the weak form of the PDE; None where there is noise. ``offset``: by how much the
    loss of the reference is wrong at time 0, nan where that is not known.
    """

    title: str
    solver: str
    reference: str
    limit: ParticleLimit
    expected: dict[str, float]
    allowance: float
    loss_terms: tuple[str, ...]
    theory: dict[str, FloatArray]
    exact: tuple[int, float] | None = None
    offset: float = math.nan

    def scaled_squares(self, t: int) -> FloatArray:
        """N E W₂² by count, (counts,)."""
        return np.array(self.limit.counts) * self.limit.statistic("w2", "rms", t) ** 2

    def scaled_spread(self, t: int) -> FloatArray:
        """√N times the standard deviation of the loss gap by count, (counts,)."""
        return np.asarray(np.sqrt(self.limit.counts) * self.limit.statistic("loss", "spread", t))

    def scaled_spread_interval(self, t: int) -> FloatArray:
        """Its 95 % intervals, (counts, 2)."""
        return np.asarray(np.sqrt(self.limit.counts)[:, None] * self.limit.interval("loss", "spread", t))

    def rate(self, row: Row, t: int) -> Rate:
        """The slope of a row at one of the times."""
        return self.limit.rate(row.quantity, row.statistic, t)

    def misses(self, row: Row, t: int) -> bool:
        """Whether a slope was expected of this row and the interval does not hold it; a mean that is lost in its fluctuations has none."""
        if row.key not in self.expected:
            return False
        return not self.rate(row, t).holds(self.expected[row.key], self.allowance)


def limit_text(report: LimitReport) -> str:
    """One table for each time, with the slopes and what theory says below it."""
    texts = [_time_text(report, t) for t in range(len(report.limit.times))]
    return "\n".join([*texts, *_exact_text(report)])


def slopes_missed(report: LimitReport) -> list[str]:
    """What was expected and is not so, one line each."""
    return [
        f"{row.name} at t = {at:g}: {slope_text(report.rate(row, t))}, expected {report.expected[row.key]:g}"
        for row in report.limit.rows
        for t, at in enumerate(report.limit.times)
        if report.misses(row, t)
    ]


def slope_text(rate: Rate) -> str:
    """The slope with its interval."""
    if not math.isfinite(rate.value):
        return "no slope"
    if not math.isfinite(rate.low):
        return f"slope {rate.value:.3f}, without an interval: too few runs, or lost in the fluctuations"
    return f"slope {rate.value:.3f}, 95 % interval {rate.low:.3f} to {rate.high:.3f}"


def _time_text(report: LimitReport, t: int) -> str:
    limit = report.limit
    loss = f"; loss = {' + '.join(report.loss_terms)}" if "loss" in limit.values else ""
    runs = f"{limit.runs} runs, ± half of a 95 % interval"
    head = f"  particle limit of {report.solver} against {report.reference} at t = {limit.times[t]:g}: {runs}{loss}"
    columns = [("N", [str(count) for count in limit.counts])]
    columns += [(row.name, _cells(limit, row, t)) for row in limit.rows]
    table = grid_text([name for name, _ in columns], list(zip(*(cells for _, cells in columns), strict=True)), "    ")
    return "\n".join([head, table, *_slopes(report, t), *_theory(report, t)])


def _cells(limit: ParticleLimit, row: Row, t: int) -> list[str]:
    """Values with half the widths of their intervals."""
    values, ends = limit.statistic(row.quantity, row.statistic, t), limit.interval(row.quantity, row.statistic, t)
    return [f"{number(v, 3)} ± {number(0.5 * (high - low), 2)}" for v, (low, high) in zip(values, ends, strict=True)]


def _slopes(report: LimitReport, t: int) -> list[str]:
    limit, lines = report.limit, []
    for row in limit.rows:
        freed = ""
        if row.statistic == "bias" and limit.controlled(t):
            least, most = np.min(limit.reduction(t)), np.max(limit.reduction(t))
            freed = f" (its fluctuations made {least:.0f} to {most:.0f} times smaller by a control variate)"
        asked = ""
        if row.key in report.expected:
            rate = report.rate(row, t)
            wide = " (but the interval is too wide to tell)" if rate.high - rate.low > _WIDE else ""
            verdict = "MISSED" if report.misses(row, t) else f"yes{wide}"
            asked = f"; expected {report.expected[row.key]:g} within ± {report.allowance:g} of the interval: {verdict}"
        lines.append(f"    {row.name}: {slope_text(report.rate(row, t))}{freed}{asked}")
    found = {name: limit.quantile_order(name, t) for name in limit.quantile}
    fitted = [f"{name} {-order.value:.2f}" for name, order in found.items() if order is not None and math.isfinite(order.value)]
    lines += [f"    from quantiles, slopes: {', '.join(fitted)}"] if fitted else []
    return lines + _reference_remark(report, t)


def _reference_remark(report: LimitReport, t: int) -> list[str]:
    """Where the error of the reference is seen in the loss."""
    if "loss" not in report.limit.values or not math.isfinite(report.offset):
        return []
    least = float(np.nanmin(report.limit.statistic("loss", "bias", t), initial=math.inf))
    if not report.offset > _SEEN * least:
        return []
    words = "which is no less than a tenth of a mean gap: use characteristics, or more cells"
    return [f"    the loss of {report.reference} is off by {report.offset:.1e} at the start, {words}"]


def _theory(report: LimitReport, t: int) -> list[str]:
    """Measured constants beside those of the central limit theorems."""
    lines, limit = [], report.limit
    if "w2" in limit.values and np.isfinite(report.theory["w2"][t]):
        expected = report.theory["w2"][t]
        ratio = report.scaled_squares(t) / expected
        ends = f"from {ratio.min():.2f} to {ratio.max():.2f}"
        theory = f"theory says J2 = ∫F(1−F)/ρ = {expected:.5g} for large N"
        lines.append(f"    N E W2² = {np.mean(ratio):.3f} J2 in the mean of the counts ({ends}); {theory}")
    if "loss" in limit.values and np.isfinite(report.theory["loss"][t]):
        expected = report.theory["loss"][t]
        scaled = report.scaled_spread(t)
        ends = f"from {scaled.min():.3g} to {scaled.max():.3g}"
        words = f"in the mean of the counts ({ends}); the central limit theorem says {expected:.4g}"
        lines.append(f"    √N spread of the loss gap = {np.mean(scaled):.4g} {words}")
    return lines


def _exact_text(report: LimitReport) -> list[str]:
    if report.exact is None:
        return []
    count, residual = report.exact
    return [f"  finite width is exact: {count} atoms solve the PDE as they are, its weak form to {residual:.0e}"]


# Data.


def limit_data(report: LimitReport) -> dict[str, Any]:
    """Plain lists and numbers for study.json; numbers that are not finite become null."""
    limit = report.limit
    return {
        "kind": "particle_limit",
        "solver": report.solver,
        "reference": report.reference,
        "counts": list(limit.counts),
        "runs": limit.done.shape[1],
        "runs_in_the_table": limit.runs,
        "times": limit.times.tolist(),
        "loss_terms": list(report.loss_terms),
        "fit": "unweighted least squares of log statistic against log N; 95 % by bootstrap over coupled runs",
        "results": [_result(report, row, t) for row in limit.rows for t in range(len(limit.times))],
        "central_limit": {name: [_plain(x) for x in values] for name, values in report.theory.items()},
        "reference_loss_off_at_start": _plain(report.offset),
        "weak_residual": None if report.exact is None else {"count": report.exact[0], "largest": _plain(report.exact[1])},
        "missed": slopes_missed(report),
    }


def _result(report: LimitReport, row: Row, t: int) -> dict[str, Any]:
    limit, rate = report.limit, report.rate(row, t)
    quantile = limit.quantile_order(row.quantity, t) if row.statistic in ("mean", "absolute") else None
    asked = {"expected": report.expected[row.key], "allowance": report.allowance} if row.key in report.expected else {}
    return {
        "row": row.key,
        "quantity": row.quantity,
        "statistic": row.statistic,
        "time": float(limit.times[t]),
        "value": [_plain(x) for x in limit.statistic(row.quantity, row.statistic, t)],
        "interval": [[_plain(x) for x in ends] for ends in limit.interval(row.quantity, row.statistic, t)],
        "slope": {"value": _plain(rate.value), "low": _plain(rate.low), "high": _plain(rate.high)},
        "control_variate": row.statistic == "bias" and limit.controlled(t),
        "slope_from_quantiles": None if quantile is None else _plain(-quantile.value),
        **asked,
    }


def limit_csv(report: LimitReport) -> str:
    """One row for each row of the tables, time and count; empty cells where there is no number."""
    limit, text = report.limit, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "time", "count", "runs", "value", "low", "high", "slope", "slope_low", "slope_high"])
    for row in limit.rows:
        for t, at in enumerate(limit.times):
            rate = report.rate(row, t)
            values, ends = limit.statistic(row.quantity, row.statistic, t), limit.interval(row.quantity, row.statistic, t)
            for count, value, (low, high) in zip(limit.counts, values, ends, strict=True):
                numbers = (float(at), value, low, high, rate.value, rate.low, rate.high)
                time, *rest = (repr(float(x)) if math.isfinite(x) else "" for x in numbers)
                writer.writerow([row.key, time, count, limit.runs, *rest])
    return text.getvalue().rstrip("\n")


def limit_arrays(report: LimitReport) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
    """Dimension scales, and arrays with the names of their dimensions, for study.h5: every run and the tables."""
    limit, table = report.limit, ("row", "time", "count")
    whole = range(len(limit.times))
    scales = {"row": [row.key for row in limit.rows], "time": limit.times, "count": list(limit.counts)}
    scales |= {"run": np.arange(limit.done.shape[1]), "end": ["low", "high"]}
    arrays: dict[str, tuple[tuple[str, ...], Any]] = {
        f"run_{name}": (("count", "run", "time"), values) for name, values in limit.values.items()
    }
    arrays |= {"run_control": (("count", "run", "time"), limit.control), "run_done": (("count", "run"), limit.done.astype(np.int8))}
    arrays |= {f"quantile_{name}": (("count", "time"), values) for name, values in limit.quantile.items()}
    arrays["value"] = (table, np.array([[limit.statistic(r.quantity, r.statistic, t) for t in whole] for r in limit.rows]))
    arrays["interval"] = ((*table, "end"), np.array([[limit.interval(r.quantity, r.statistic, t) for t in whole] for r in limit.rows]))
    rates = [[report.rate(row, t) for t in whole] for row in limit.rows]
    arrays["slope"] = (table[:2], np.array([[rate.value for rate in row] for row in rates]))
    arrays["slope_interval"] = ((*table[:2], "end"), np.array([[(rate.low, rate.high) for rate in row] for row in rates]))
    arrays |= {f"central_limit_{name}": (("time",), values) for name, values in report.theory.items()}
    return scales, arrays


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
