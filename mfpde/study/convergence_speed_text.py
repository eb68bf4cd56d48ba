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
from mfpde.study.convergence_speed import SETTLED, Fit, Speed, Theory, claim_fails, missed_of, regime_of, resolved_until
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
            "overlap": theory.overlap.tolist(),
            "local": theory.local.tolist(),
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
        rates = [_wide(speed.flow.rates[None], teacher.atoms.size)[0] for speed in self.speeds]
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


def point_text(point: FloatArray) -> str:
    """A teacher atom's place."""
    parts = ", ".join(f"{x:.4g}" for x in point)
    return parts if len(point) == 1 else f"({parts})"


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
    a, b, least = one + 1, other + 1, " (least eigenvalues)" if teacher.atoms.shape[1] > 1 else ""
    return "\n".join(
        [
            f"  teacher: {atoms}; σ = {report.activation}",
            f"  eigenvalues of H·diag(α): {rates}; largest kernel overlap ‖H_jk‖/√(‖H_jj‖‖H_kk‖): {theory.coupling:.3g}",
            f"  local kernels{least}: H_{a}{a}/H_{b}{b} = {_quotient(theory.local[one], theory.local[other])};"
            f" the paper's ratio α_{a}/α_{b} = {ratio_of_alpha(report.speeds[0]):.4g}",
        ]
    )


def _quotient(one: float, other: float) -> str:
    return f"{one / other:.4g}" if other > 0.0 else "undefined"


def _speed_text(report: SpeedReport, speed: Speed) -> list[str]:
    lines = [f"  {speed.label}, at t = {speed.history.times[-1]:g}", _cluster_table(speed)]
    settled = speed.settled_from
    first = "do not change" if settled == 0.0 else f"are those at the end to {SETTLED:g} from t = {settled:g} on"
    lines.append(f"    masses {first}")
    if len(speed.occupied) < len(speed.teacher.alpha):
        lines.append("    clusters without mass have no mean, no rate and no part in the eigenvalues of this run")
    if not speed.flow.found:
        lines.append("    these masses have no fixed point near the teacher: the rates are those of H·diag(m) at the teacher's atoms")
    words = textwrap.wrap(verdict(report, speed), _WIDTH, initial_indent="    ", subsequent_indent="      ")
    lines += [_mode_table(speed), *words, *_tenth_lines(speed), *_spread_lines(speed)]
    return lines


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
    header = ["mode", "eigenvalue", "measured", "times", "from t", "to t", "of cluster", "share in it"]
    shares = speed.flow.shares
    rows = []
    for i in reversed(range(len(speed.fits))):
        fit, owner = speed.fits[i], int(speed.flow.owner[i])
        found = f"{fit.value:.5g} ± {fit.half_width:.1g}" if fit.count else "not measured"
        window = [str(fit.count), f"{fit.first:.4g}", f"{fit.last:.4g}"] if fit.count else ["—"] * 3
        cluster = [str(speed.occupied[owner] + 1), f"{shares[owner, i]:.3f}"]
        rows.append([str(i + 1), f"{speed.flow.rates[i]:.5g}", found, *window, *cluster])
    return grid_text(header, rows, "    ")


def verdict(report: SpeedReport, speed: Speed) -> str:
    """In which regime the ratio of the rates is seen, in a few sentences."""
    one, other = (j + 1 for j in speed.teacher.pair)
    reasons = claim_fails(report.theory, speed, report.table.tolerance)
    claim, measured = f"α_{one}/α_{other} = {ratio_of_alpha(speed):.2f}", _measured(speed)
    regime = regime_of(report.theory, report.table.tolerance)
    if not reasons:
        return f"verdict: {regime}, equal local kernels, mass split as the teacher's: {claim} applies; {measured}."
    words = f"verdict: {regime}. {claim} does not apply: {'; '.join(reasons)}. "
    words += f"The eigenvalues' ratio is {number(speed.predicted_ratio, 3)}; {measured}."
    if speed.predicted_ratio < 1.0 < ratio_of_alpha(speed):
        seen = "REVERSED" if speed.measured_ratio[0] < 1.0 else "Reversed, by the eigenvalues"
        words += f" {seen}: the rate of the lightest atom's cluster is {1.0 / speed.predicted_ratio:.3g} times that of the heaviest's."
    return words + _mixing(speed)


def _measured(speed: Speed) -> str:
    found, half = speed.measured_ratio
    if not math.isfinite(found):
        return "it was not measured"
    return f"measured {f'{found:.2f}' if found >= 1.0 else f'{found:.3g}'} (± {half:.1g})"


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
            found = f"t^−{fit.value:.3f} (± {fit.half_width:.1g}) from t = {fit.first:g} to {fit.last:g}"
        law = float(speed.spread_law[end, k])
        theory = f"; {spreads[end] / law:.3f} of what the law of second order says at t = {times[end]:g}" if math.isfinite(law) else ""
        more = "" if end == len(times) - 1 else ", then less than two cells"
        lines.append(f"    spread of cluster {cluster + 1}: {found}{theory}{more}")
    return lines


# Plain data.


def _fit_data(fit: Fit) -> dict[str, Any]:
    names = ("value", "half_width", "first", "last")
    return {name: plain_number(getattr(fit, name)) for name in names} | {"count": fit.count}


def _speed_data(report: SpeedReport, speed: Speed) -> dict[str, Any]:
    ratio, half = speed.measured_ratio
    history, flow = speed.history, speed.flow
    return {
        "run": speed.label,
        "occupied": [j + 1 for j in speed.occupied],
        "masses": history.masses[-1].tolist(),
        "settled_from": speed.settled_from,
        "reflected_mass": float(history.reflected[-1]),
        "fixed_point": flow.base.tolist(),
        "fixed_point_found": flow.found,
        "eigenvalues": flow.rates.tolist(),
        "shares": flow.shares.tolist(),
        "mode_of_cluster": [speed.occupied[int(j)] + 1 for j in flow.owner],
        "measured": [_fit_data(fit) for fit in speed.fits],
        "predicted_ratio": plain_number(speed.predicted_ratio),
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
