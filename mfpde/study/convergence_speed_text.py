"""A study of convergence speed in words: for the terminal, for spreadsheets and as plain data."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case.convergence_speed_schema import ConvergenceSpeedTable
from mfpde.study.convergence_speed import (
    SETTLED,
    Fit,
    RateFit,
    Speed,
    Theory,
    claim_fails,
    flat_words,
    missed_of,
    outside_words,
    point_text,
    regime_of,
    regime_words,
    resolved_until,
)
from mfpde.study.report import Arrays
from mfpde.study.text import csv_text, plain_number
from mfpde.tables import grid_text, number

_OWN = 0.9
_ROUND_OFF = 1e-12
_WIDTH = 130


@dataclass(frozen=True, eq=False)
class SpeedReport:
    """What the runs of a case show of the speed at which their clusters converge."""

    title: str
    table: ConvergenceSpeedTable
    activation: str
    theory: Theory
    speeds: tuple[Speed, ...]

    def text(self) -> str:
        """The teacher, then two tables and a verdict for each run."""
        return "\n".join([_teacher_text(self), *(line for speed in self.speeds for line in _speed_text(self, speed))])

    def data(self) -> dict[str, Any]:
        """Teacher, theory and runs."""
        teacher, theory = self.speeds[0].teacher, self.theory
        return {
            "activation": self.activation,
            "folded": teacher.even,
            "atoms": teacher.atoms.tolist(),
            "alpha": teacher.alpha.tolist(),
            "eigenvalues": theory.rates.tolist(),
            "overlap": [[plain_number(x) for x in row] for row in theory.overlap],
            "local": theory.local.tolist(),
            "local_difference": plain_number(theory.difference(*teacher.pair)),
            "regime": regime_of(theory, self.table.tolerance),
            "ratio_of_alpha": ratio_of_alpha(self.speeds[0]),
            "runs": [_speed_data(self, speed) for speed in self.speeds],
        }

    def csv(self) -> str:
        """One line for each run, time and cluster."""
        axes = self.speeds[0].stored.domain.names
        header = ["run", "time", "cluster", "mass", *(f"mean_{a}" for a in axes), *(f"deviation_{a}" for a in axes), "distance", "spread"]
        rows = [row for speed in self.speeds for row in _csv_rows(speed)]
        return csv_text(header, rows)

    def arrays(self) -> tuple[dict[str, Any], Arrays]:
        """For study.h5: what is in the clusters and modes of each run over the saved times, nan where a run has not come."""
        longest = max((speed.history.times for speed in self.speeds), key=len)
        teacher, domain = self.speeds[0].teacher, self.speeds[0].stored.domain
        scales = {
            "run": [speed.label for speed in self.speeds],
            "time": longest,
            "cluster": np.arange(1, len(teacher.alpha) + 1),
            "axis": list(domain.names),
            "mode": np.arange(1, teacher.atoms.size + 1),
        }
        arrays: Arrays = {"alpha": (("cluster",), teacher.alpha), "atoms": (("cluster", "axis"), teacher.atoms)}
        histories = [speed.history for speed in self.speeds]
        count = len(longest)
        arrays["mass"] = (("run", "time", "cluster"), _stacked([h.masses for h in histories], count))
        for name in ("means", "deviations"):
            arrays[name] = (("run", "time", "cluster", "axis"), _stacked([getattr(h, name) for h in histories], count))
        for name in ("coordinates", "defect"):
            values = [_wide(getattr(speed, name), teacher.atoms.size) for speed in self.speeds]
            arrays[name] = (("run", "time", "mode"), _stacked(values, count))
        rates = [_wide(speed.rates[None], teacher.atoms.size)[0] for speed in self.speeds]
        fitted = [_wide(np.array([[fit.value for fit in speed.fits]]), teacher.atoms.size)[0] for speed in self.speeds]
        arrays["eigenvalue"], arrays["rate"] = (("run", "mode"), np.array(rates)), (("run", "mode"), np.array(fitted))
        return scales, arrays

    def missed(self) -> list[str]:
        """Rates that are not the eigenvalues, and what the case expects and is not so."""
        expected = self.table.expected
        wanted = (expected.ratio, expected.regime, expected.first) if expected else (None, None, None)
        return [line for speed in self.speeds for line in missed_of(self.theory, speed, self.table.tolerance, *wanted)]

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """study-speed and study-clusters."""
        from mfpde.figures import draw_convergence_speed

        return draw_convergence_speed(self, folder, formats)


def ratio_of_alpha(speed: Speed) -> float:
    """α of the heaviest atom over that of the lightest."""
    one, other = speed.teacher.pair
    return float(speed.teacher.alpha[one] / speed.teacher.alpha[other])


def _stacked(values: Sequence[FloatArray], count: int) -> FloatArray:
    """Runs as one array, those that stopped early filled with nan."""
    return np.stack([np.pad(v, [(0, count - len(v)), *[(0, 0)] * (v.ndim - 1)], constant_values=np.nan) for v in values])


def _wide(values: FloatArray, count: int) -> FloatArray:
    """Rows of ``count`` modes, those that an empty cluster lacks as nan."""
    return np.pad(values, [(0, 0), (0, count - values.shape[1])], constant_values=np.nan)


# For the terminal.


def _teacher_text(report: SpeedReport) -> str:
    theory, teacher, (one, other) = report.theory, report.speeds[0].teacher, report.speeds[0].teacher.pair
    atoms = " + ".join(f"{a:.4g} δ at {point_text(c)}" for a, c in zip(teacher.alpha, teacher.atoms, strict=True))
    rates = ", ".join(f"{rate:.4g}" for rate in theory.rates[::-1])
    a, b = one + 1, other + 1
    overlap = f"largest kernel overlap ‖H_jk‖/√(‖H_jj‖‖H_kk‖): {number(theory.coupling, 3)}"
    return "\n".join(
        [
            f"  teacher: {atoms}; σ = {report.activation}",
            f"  eigenvalues of H·diag(α): {rates}; {overlap}",
            f"  local kernels: {_local(theory, one, other)}; the paper's ratio α_{a}/α_{b} = {ratio_of_alpha(report.speeds[0]):.4g}",
            *_zero_lines(theory),
        ]
    )


def _local(theory: Theory, one: int, other: int) -> str:
    """How the blocks of two clusters compare: their quotient on a line, else their difference as matrices."""
    a, b = one + 1, other + 1
    if theory.blocks.shape[1] > 1:
        return f"‖H_{a}{a} − H_{b}{b}‖/‖H_{b}{b}‖ {_equals(theory.difference(one, other))}"
    return f"H_{a}{a}/H_{b}{b} {_equals(theory.local[one] / theory.local[other] if theory.local[other] > 0.0 else math.nan)}"


def _equals(value: float) -> str:
    return f"= {value:.4g}" if math.isfinite(value) else "is undefined"


def _zero_lines(theory: Theory) -> list[str]:
    """What degenerate kernels mean."""
    lines = ["  eigenvalue 0: no linear relaxation in this direction"] if theory.rates[0] == 0.0 else []
    return [*lines, f"  {flat_words(theory)}: overlaps with this cluster are undefined"] if theory.flat else lines


def _speed_text(report: SpeedReport, speed: Speed) -> list[str]:
    lines = [f"  {speed.label}, at t = {speed.history.times[-1]:g}", _cluster_table(speed)]
    settled = speed.settled_from
    first = "do not change" if settled == 0.0 else f"are those at the end to {SETTLED:g} from t = {settled:g} on"
    lines.append(f"    masses {first}")
    if len(speed.occupied) < len(speed.teacher.alpha):
        lines.append("    clusters without mass have no mean, no rate and no part in the eigenvalues of this run")
    if np.any(speed.outside):
        lines += _wrapped(f"{outside_words(speed)}; rates of the linearised flow do not apply")
    if not speed.flow.found:
        lines.append("    these masses have no fixed point near the teacher: the rates are those of H·diag(m) at the teacher's atoms")
    lines += [_mode_table(speed), *_wrapped(verdict(report, speed)), *_tenth_lines(speed), *_spread_lines(speed)]
    return lines


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, _WIDTH, initial_indent="    ", subsequent_indent="      ")


def _cluster_table(speed: Speed) -> str:
    history, teacher = speed.history, speed.teacher
    distances, spreads = history.distances(teacher.atoms), history.spreads
    moved = np.full(len(teacher.alpha), np.nan)
    shift = np.linalg.norm(speed.flow.base - teacher.atoms[list(speed.occupied)], axis=1)
    moved[list(speed.occupied)] = np.where(shift > _ROUND_OFF, shift, 0.0)
    lag = np.full(len(teacher.alpha), np.nan)
    lag[list(speed.occupied)] = np.abs(speed.lag)
    header = ["cluster", "α", "mass", "fixed point off by", "mean off by", "at first", "left by spread", "spread", "at first"]
    rows = [
        [
            f"{j + 1} at {point_text(teacher.atoms[j])}",
            number(teacher.alpha[j]),
            number(history.masses[-1, j], 6),
            number(moved[j], 2),
            *(number(distances[k, j], 3) for k in (-1, 0)),
            number(lag[j], 3),
            *(number(spreads[k, j], 3) for k in (-1, 0)),
        ]
        for j in range(len(teacher.alpha))
    ]
    return grid_text(header, rows, "    ")


def _mode_table(speed: Speed) -> str:
    header = ["mode", "eigenvalue", "measured", "curve alone", "times", "from t", "to t", "of cluster", "share in it"]
    shares = speed.flow.shares
    rows = []
    for i in reversed(range(len(speed.fits))):
        fit, owner = speed.fits[i], int(speed.flow.owner[i])
        found = f"{fit.value:.5g} ± {fit.half_width:.1g}" if fit.count else "not measured"
        window = [f"{fit.curve:.5g}", str(fit.count), f"{fit.first:.4g}", f"{fit.last:.4g}"] if fit.count else ["—"] * 4
        cluster = [str(speed.occupied[owner] + 1), f"{shares[owner, i]:.3f}"]
        rows.append([str(i + 1), number(speed.rates[i], 5), found, *window, *cluster])
    return grid_text(header, rows, "    ")


def verdict(report: SpeedReport, speed: Speed) -> str:
    """In which regime the ratio of the rates is seen, in a few sentences."""
    one, other = (j + 1 for j in speed.teacher.pair)
    reasons = claim_fails(report.theory, speed, report.table.tolerance)
    claim, measured = f"α_{one}/α_{other} = {ratio_of_alpha(speed):.2f}", _measured(speed)
    regime = regime_words(report.theory, report.table.tolerance)
    if not reasons:
        return f"verdict: {regime}, equal local kernels, mass split as the teacher's: {claim} applies; {measured}."
    words = f"verdict: {regime}. {claim} does not apply: {'; '.join(reasons)}. "
    words += f"{_predicted(speed)}; {measured}."
    return words + _reversed(speed) + _mixing(speed)


def _predicted(speed: Speed) -> str:
    """The ratio of the eigenvalues, or those of all modes."""
    several = len(speed.predicted_ratios) > 1
    values = ", ".join(f"{x:.3g}" if math.isfinite(x) else "undefined" for x in speed.predicted_ratios)
    return f"The eigenvalues' ratios, slowest modes first, are {values}" if several else f"The eigenvalues' ratio is {values}"


def _reversed(speed: Speed) -> str:
    """Whether the lightest atom's cluster is the faster one, in some or all of its modes."""
    predicted, measured = speed.predicted_ratios, np.array([ratio for ratio, _ in speed.measured_ratios])
    below = np.flatnonzero(predicted < 1.0)
    if not len(below) or ratio_of_alpha(speed) <= 1.0:
        return ""
    seen = "REVERSED" if np.all(measured[below] < 1.0) else "Reversed, by the eigenvalues"
    if len(predicted) == 1:
        return f" {seen}: the rate of the lightest atom's cluster is {1.0 / predicted[0]:.3g} times that of the heaviest's."
    return f" {seen} in {len(below)} of {len(predicted)} modes, in which the lightest atom's cluster is the faster one."


def _measured(speed: Speed) -> str:
    """The measured ratio, or those of all modes."""
    parts = [_ratio_text(found, half) for found, half in speed.measured_ratios]
    if not any(math.isfinite(found) for found, _ in speed.measured_ratios):
        return "it was not measured" if len(parts) == 1 else "none was measured"
    return f"measured {', '.join(parts)}"


def _ratio_text(found: float, half: float) -> str:
    if not math.isfinite(found):
        return "not measured"
    return f"{f'{found:.2f}' if found >= 1.0 else f'{found:.3g}'} (± {half:.1g})"


def _mixing(speed: Speed) -> str:
    """Which mode a cluster follows where that is not its own."""
    held, parts = np.flatnonzero(np.any(speed.window, axis=1)), []
    for k, cluster in enumerate(speed.occupied):
        own = speed.flow.slowest(k)
        share = speed.flow.shares[k, own]
        if share < _OWN:
            parts.append(f" Mode {own + 1} is in cluster {cluster + 1} by {share:.0%} only.")
        if not len(held):
            continue
        first, last = speed.followed[held[0], k] + 1, speed.followed[held[-1], k] + 1
        if first != last:
            parts.append(f" The mean of cluster {cluster + 1} follows mode {first} at first and mode {last} later.")
    return "".join(parts)


def _tenth_lines(speed: Speed) -> list[str]:
    one, other = speed.teacher.pair
    times = "; ".join(f"cluster {j + 1}: t = {number(t, 4)}" for j, t in enumerate(speed.tenth))
    ratio = float(speed.tenth[other] / speed.tenth[one])
    faster, slower = (one, other) if ratio >= 1.0 else (other, one)
    words = f"; cluster {slower + 1} takes {max(ratio, 1.0 / ratio):.3g} times as long as cluster {faster + 1}" if ratio > 0.0 else ""
    return [f"    a tenth of the first distance to the teacher's atom is left at {times}{words}"]


def _spread_lines(speed: Speed) -> list[str]:
    """Exponents, and what theory says of the spread at the last time at which it is resolved."""
    lines, times = [], speed.history.times
    for k, cluster in enumerate(speed.occupied):
        fit, spreads = speed.spread_fits[k], speed.history.spreads[:, cluster]
        end = resolved_until(spreads, speed.stored.run.measures[-1])
        if end < 0:
            lines.append(f"    spread of cluster {cluster + 1}: none, or less than two cells")
            continue
        found = "it has not halved, so that no power of t is seen"
        if fit.count:
            found = f"local exponent −{fit.value:.3f} from t = {fit.first:g} to {fit.last:g}"
        elif speed.exponential[k]:
            found = f"no power of t, {_exponential(speed, k)}"
        law = float(speed.spread_law[end, k])
        theory = f"; {spreads[end] / law:.3f} of what the law of second order says at t = {times[end]:g}" if math.isfinite(law) else ""
        more = "" if end == len(times) - 1 else ", then less than two cells"
        lines.append(f"    spread of cluster {cluster + 1}: {found}{theory}{more}")
    return lines


def _exponential(speed: Speed, k: int) -> str:
    """Why a spread follows no power of t."""
    if not speed.settles:
        return "since there is no fixed point here for these masses"
    rates = np.linalg.eigvalsh(speed.flow.curvature[k])
    return f"since masses other than the teacher's make it exponential, at the rate {point_text(rates)}"


# Plain data.


def _fit_data(fit: Fit) -> dict[str, Any]:
    names = ("value", "first", "last") + (("half_width", "curve", "scatter") if isinstance(fit, RateFit) else ())
    return {name: plain_number(getattr(fit, name)) for name in names} | {"count": fit.count}


def _speed_data(report: SpeedReport, speed: Speed) -> dict[str, Any]:
    ratio, half = speed.measured_ratios[0]
    history, flow = speed.history, speed.flow
    return {
        "run": speed.label,
        "occupied": [j + 1 for j in speed.occupied],
        "masses": history.masses[-1].tolist(),
        "settled_from": speed.settled_from,
        "reflected_mass": float(history.reflected[-1]),
        "fixed_point": flow.base.tolist(),
        "fixed_point_found": flow.found,
        "outside_the_domain": [j + 1 for j, out in zip(speed.occupied, speed.outside, strict=True) if out],
        "eigenvalues": [plain_number(x) for x in speed.rates],
        "shares": flow.shares.tolist(),
        "mode_of_cluster": [speed.occupied[int(j)] + 1 for j in flow.owner],
        "measured": [_fit_data(fit) for fit in speed.fits],
        "predicted_ratio": plain_number(speed.predicted_ratios[0]),
        "predicted_ratios": [plain_number(x) for x in speed.predicted_ratios],
        "measured_ratios": [[plain_number(x) for x in pair] for pair in speed.measured_ratios],
        "measured_ratio": plain_number(ratio),
        "measured_ratio_half_width": plain_number(half),
        "claim_applies": not claim_fails(report.theory, speed, report.table.tolerance),
        "why_not": claim_fails(report.theory, speed, report.table.tolerance),
        "verdict": verdict(report, speed),
        "tenth": [plain_number(t) for t in speed.tenth],
        "spread_exponents": [_fit_data(fit) for fit in speed.spread_fits],
        "spread_law_at_the_end": [plain_number(s) for s in speed.spread_law[-1]],
    }


def _csv_rows(speed: Speed) -> list[list[Any]]:
    history = speed.history
    distances, spreads = history.distances(speed.teacher.atoms), history.spreads
    return [
        [speed.label, t, j + 1, history.masses[k, j], *history.means[k, j], *history.deviations[k, j], distances[k, j], spreads[k, j]]
        for k, t in enumerate(history.times)
        for j in range(len(speed.teacher.alpha))
    ]
