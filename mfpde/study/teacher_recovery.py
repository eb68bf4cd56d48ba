"""Whether the gradient flow of a network reaches its teacher's measure, or only its function.

A loss of zero fixes ∫σ(x·θ)(ρ − ρ*)dθ = 0 and no more [Mean Field Models for Neural Networks in Teacher-student Setting (2020), Theorem 2,
(4), which is about stationary states with ρ > 0]. What is reported is about the times reached, never about t → ∞.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compare import function_distance, networks
from mfpde.distance import wasserstein
from mfpde.distance.parity import Half, mirrored_line, parity_distances
from mfpde.domain import Domain
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.parity import parity
from mfpde.measure import Measure, Particles
from mfpde.problem import Problem
from mfpde.study.report import Arrays
from mfpde.study.text import csv_text, plain_number
from mfpde.tables import grid_text, number

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

OUTCOMES = {"recovered": "recovered", "function": "function only", "unlearned": "not learned yet"}
_STILL = 0.01
_AT_ROUND_OFF = 1e-12


@dataclass(frozen=True, eq=False)
class Row:
    """One run: at its ``times`` (T,) W₂ to the teacher with the ``floor`` of the method, the relative ``residual`` |student − teacher| /
    |teacher| in L²(μ), the ``loss``, and by parity what the activation sees and does not see of ρ − ρ* in W₁ (nan where parity does not
    say), all (T,)."""

    activation: str
    start: str
    domain: Domain
    times: FloatArray
    distance: FloatArray
    floor: FloatArray
    method: str
    residual: FloatArray
    loss: FloatArray
    seen: FloatArray
    unseen: FloatArray
    measures: tuple[Measure, ...]
    outcome: str

    @property
    def name(self) -> str:
        """The run's label."""
        return f"{self.activation}-{self.start}"

    @property
    def change(self) -> float:
        """By what share of itself W₂ changes between the last two saved times; nan without two, or from 0."""
        if len(self.times) < 2 or not self.distance[-2] > 0.0:
            return math.nan
        return float(self.distance[-1] / self.distance[-2]) - 1.0

    @property
    def verdict(self) -> str:
        """The outcome at the time reached, and whether W₂ is still falling."""
        words = [self.outcome]
        if self.outcome != OUTCOMES["recovered"] and math.isfinite(self.change):
            moves = "stands still" if abs(self.change) < _STILL else "still falls" if self.change < 0.0 else "grows"
            (before, now), (since, until) = self.distance[-2:], self.times[-2:]
            words.append(f"W2 {moves}, {before:.4g} → {now:.4g} from t = {since:.4g} to {until:.4g}")
        left = float(self.seen[-1] + self.unseen[-1])
        if self.outcome == OUTCOMES["function"] and left > 0.0:
            words.append(f"{100.0 * float(self.unseen[-1]) / left:.0f} % of what is left in W1 is of the parity that is not seen")
        return "; ".join(words)


def read_row(activation: str, start: str, stored: "StoredRun", problem: Problem, teacher: Measure, distance: float, residual: float) -> Row:
    """What a run shows, with the limits up to which ``distance`` and ``residual`` count as reached."""
    run, domain = stored.run, problem.domain
    found = [wasserstein(measure, teacher, domain) for measure in run.measures]
    size = function_distance(problem, teacher, _nothing(teacher))
    gaps = np.array([function_distance(problem, measure, teacher) for measure in run.measures])
    relative = gaps / size if size > _AT_ROUND_OFF else gaps
    away = np.array([d.value for d in found])
    seen, unseen = _by_parity(problem, run.measures, teacher)
    if not len(run.times):
        raise ValueError(f"the run {stored.label} has no saved times")
    outcome = "unlearned" if not relative[-1] <= residual else "recovered" if away[-1] <= distance else "function"
    return Row(
        activation,
        start,
        domain,
        run.times,
        away,
        np.array([d.floor for d in found]),
        found[-1].method,
        relative,
        _losses(problem, run.measures),
        seen,
        unseen,
        tuple(run.measures),
        OUTCOMES[outcome],
    )


def _nothing(teacher: Measure) -> Measure:
    """Atoms without mass, whose network is zero."""
    return Particles(teacher.points[:1], np.zeros(1))


def _losses(problem: Problem, measures: Sequence[Measure]) -> FloatArray:
    """The sum of the networks' losses."""
    terms = [term for term in problem.energy.terms.values() if hasattr(term, "square_gap")]
    return np.array([sum(term.value(measure) for term in terms) for measure in measures])


def _by_parity(problem: Problem, measures: Sequence[Measure], teacher: Measure) -> tuple[FloatArray, FloatArray]:
    """The part that the network sees by the symmetry of its activation, and the other one, on a line through the origin."""
    half, domain = _half(problem), problem.domain
    if half is None or not mirrored_line(domain):
        return np.full(len(measures), np.nan), np.full(len(measures), np.nan)
    split = [parity_distances(measure, teacher) for measure in measures]
    other: Half = "odd" if half == "even" else "even"
    return np.array([found[half] for found in split]), np.array([found[other] for found in split])


def _half(problem: Problem) -> Half | None:
    """Whether the network sees the even or the odd part; None where its activation has no such symmetry."""
    term = networks(problem)[0]
    if not isinstance(term, TwoLayer | PairNetwork):
        return None
    try:
        found = parity(term).half
    except ValueError:
        return None
    return None if found == "none" else found


@dataclass(frozen=True, eq=False)
class Recovery:
    """All runs, the teacher's measure, the limits, and the outcomes that are expected by activation or run."""

    title: str
    rows: tuple[Row, ...]
    teacher: Measure
    distance: float
    limit: float
    expected: dict[str, str]

    def text(self) -> str:
        """One table, and the verdicts below."""
        header = ["activation", "start", "time", "loss", "residual", "W2 at start", "W2", "seen W1", "unseen W1"]
        lines = [
            [
                row.activation,
                row.start,
                number(row.times[-1]),
                number(row.loss[-1], 3),
                number(row.residual[-1], 3),
                number(row.distance[0]),
                number(row.distance[-1]),
                number(row.seen[-1], 3),
                number(row.unseen[-1], 3),
            ]
            for row in self.rows
        ]
        words = [f"    {row.activation} from {row.start}: {row.verdict}" for row in self.rows]
        head = (
            "  residual = |student - teacher|/|teacher| in L2(mu); seen and unseen: the part of rho - rho* of the activation's parity in W1"
        )
        rule = f"  function learned: residual <= {self.limit:.3g}; recovered: W2 <= {self.distance:.3g} as well; all at the time reached"
        return "\n".join([head, grid_text(header, lines, "    "), rule, *words, *self._floors()])

    def _floors(self) -> list[str]:
        worst = max(float(row.floor[-1]) for row in self.rows)
        return [f"    W2 {self.rows[0].method} has an error of up to {worst:.2g} here"] if worst > 0.0 else []

    def data(self) -> dict[str, Any]:
        """Rows with their series."""
        return {
            "limits": {"distance": self.distance, "residual": self.limit},
            "runs": [
                {
                    "activation": row.activation,
                    "start": row.start,
                    "outcome": row.outcome,
                    "verdict": row.verdict,
                    "change": plain_number(row.change),
                    "method": row.method,
                    **{name: [plain_number(x) for x in values] for name, values in _series(row).items()},
                }
                for row in self.rows
            ],
        }

    def csv(self) -> str:
        """One row for each run and time."""
        names = list(_series(self.rows[0]))
        rows = [
            [row.activation, row.start, *(float(values[t]) for values in _series(row).values()), row.outcome]
            for row in self.rows
            for t in range(len(row.times))
        ]
        return csv_text(["activation", "start", *names, "outcome"], rows)

    def arrays(self) -> tuple[dict[str, Any], Arrays]:
        """Series by run and time, nan where a run stopped before."""
        times = max((row.times for row in self.rows), key=len)
        arrays: Arrays = {}
        for name in _series(self.rows[0]):
            if name != "times":
                table = np.full((len(self.rows), len(times)), np.nan)
                for k, row in enumerate(self.rows):
                    table[k, : len(row.times)] = _series(row)[name]
                arrays[name] = (("run", "time"), table)
        return {"run": [row.name for row in self.rows], "time": times}, arrays

    def missed(self) -> list[str]:
        """Outcomes other than those expected."""
        lines = []
        for row in self.rows:
            wanted = self.expected.get(row.name, self.expected.get(row.activation))
            if wanted is not None and wanted != row.outcome:
                lines.append(f"{row.activation} from {row.start}: expected {wanted}, found {row.verdict}")
        return lines

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Densities at the end, and W₂ against the residual."""
        from mfpde.figures import draw_teacher_recovery

        return draw_teacher_recovery(self, folder, formats)


def _series(row: Row) -> dict[str, FloatArray]:
    return {
        "times": row.times,
        "distance": row.distance,
        "floor": row.floor,
        "residual": row.residual,
        "loss": row.loss,
        "seen": row.seen,
        "unseen": row.unseen,
    }
