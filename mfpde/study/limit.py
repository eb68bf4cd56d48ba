"""The particle limit, measured: how fast N particles approach the solution of the PDE, with error bars.

Independent runs of ``ParticleFlow`` for each count are compared with one reference run of the PDE. Run r has the same seed for every
count, so that its atoms are the first ones of those of larger counts, and rates are those of coupled runs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.compare import function_distance
from mfpde.distance import wasserstein
from mfpde.measure import Measure, Particles, covariance, mean
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers.particles import ParticleFlow
from mfpde.study.orders import Order, fitted_order
from mfpde.study.quantities import ROWS, Row, known_quantities, loss_terms, usual_quantities
from mfpde.study.rates import STATISTICS, Rate, fitted_rate, intervals
from mfpde.study.sensitivity import Sensitivity

_SMALL, _TOGETHER = 2048, 16
"""Systems of so many atoms are marched together, so many at a time, whatever the number of runs."""
_ROUND_OFF = 1e-11
_LESSENS = 1.5


@dataclass(frozen=True, eq=False)
class Piece:
    """Runs ``first`` … ``last`` − 1 of the count with this ``number``, which are made together."""

    number: int
    first: int
    last: int


def pieces(counts: Sequence[int], runs: int, alone: bool = False) -> Iterator[Piece]:
    """The work of a study, small systems first; ``alone``: every run by itself."""
    for number in sorted(range(len(counts)), key=lambda k: counts[k]):
        many = _TOGETHER if counts[number] <= _SMALL and not alone else 1
        for first in range(0, runs, many):
            yield Piece(number, first, min(first + many, runs))


@dataclass(frozen=True, eq=False)
class Task:
    """What every piece needs. ``problem`` is that of the study, wanted at its times; ``reference`` saved these times and maybe others."""

    problem: Problem
    reference: Run
    solver: ParticleFlow
    quantities: tuple[str, ...]
    seed: int = 0
    sensitivity: Sensitivity | None = None

    def seeds(self, piece: Piece) -> list[int]:
        """One for each run, whatever the count."""
        keys = range(piece.first, piece.last)
        return [int(np.random.SeedSequence(self.seed, spawn_key=(r,)).generate_state(1, np.uint64)[0] >> 1) for r in keys]

    def carry_out(self, piece: Piece, count: int, stopped: Sequence[int] | None = None) -> "Found":
        """Make the runs of a piece and compare them; where they cannot be made together, one by one."""
        solver, seeds = replace(self.solver, count=count), self.seeds(piece)
        runs = solver.ensemble(self.problem, seeds, stopped) if len(seeds) > 1 else []
        if (not stopped and any(run.status is not Status.DONE for run in runs)) or not runs:
            runs = [replace(solver, seed=seed).solve(self.problem, stopped) for seed in seeds]
        starts = [replace(solver, seed=seed).first_atoms(self.problem) for seed in seeds] if self.sensitivity is not None else []
        return self.compare(runs, starts)

    def compare(self, runs: Sequence[Run], starts: Sequence[Particles] = ()) -> "Found":
        """The quantities of some runs of one count, and their control variates from the atoms at time 0, where these are given."""
        shape = (len(runs), len(self.problem.save_at))
        values = {name: np.full(shape, np.nan) for name in self.quantities}
        control = np.full(shape, np.nan)
        for r, run in enumerate(runs):
            for t, ours in enumerate(run.measures):
                for name, value in self._compared(run, t, ours).items():
                    values[name][r, t] = value
        if self.sensitivity is not None:
            for r, start in enumerate(starts):
                control[r] = self.sensitivity.at(start.points) @ start.weights - self.sensitivity.mean
        return Found(values, control, tuple(run.status for run in runs))

    def _compared(self, run: Run, t: int, ours: Measure) -> dict[str, float]:
        problem, found = self.problem, dict[str, float]()
        place = int(np.flatnonzero(self.reference.times == problem.save_at[t])[0])
        theirs = self.reference.measures[place]
        for name in self.quantities:
            if name in ("w2", "w1"):
                found[name] = wasserstein(ours, theirs, problem.domain, 2 if name == "w2" else 1, method="exact").value
            elif name == "sliced":
                found[name] = wasserstein(ours, theirs, problem.domain, 2, method="sliced").value
            elif name == "function":
                found[name] = function_distance(problem, ours, theirs)
            elif name == "barycentre":
                found[name] = float(np.linalg.norm(mean(ours) - mean(theirs)))
            elif name == "variance":
                found[name] = float(np.trace(covariance(ours)) - np.trace(covariance(theirs)))
            else:
                found[name] = sum(float(run.energy[k][t] - self.reference.energy[k][place]) for k in loss_terms(problem))
        return found


@dataclass(frozen=True, eq=False)
class Found:
    """The quantities (runs, times) of some runs, their control variates, and how the runs ended."""

    values: dict[str, FloatArray]
    control: FloatArray
    statuses: tuple[Status, ...]


@dataclass(frozen=True, eq=False)
class ParticleLimit:
    """``values[quantity]`` (counts, runs, times) of the particles, minus those of the reference (distances as they are).

    ``control`` (counts, runs, times) has the mean zero and is most of the loss gap's fluctuation; nan where there is none.
    ``quantile[quantity]`` (counts, times): those of one run from quantiles, if it was made. ``done`` (counts, runs): runs that
    reached their times; a run that failed for one count is left out for all.
    """

    counts: tuple[int, ...]
    times: FloatArray
    values: dict[str, FloatArray]
    control: FloatArray
    done: BoolArray
    quantile: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        """What can be said."""
        return tuple(row for row in ROWS if row.quantity in self.values)

    @property
    def runs(self) -> int:
        """How many runs of each count there are to draw from."""
        return int(np.sum(self.done.all(axis=0)))

    def controlled(self, time: int) -> bool:
        """Whether the mean loss gap at one of the times is freed from fluctuations by a control variate that lessens them."""
        reduction = self.reduction(time)
        return bool(np.isfinite(reduction).all()) and float(np.median(reduction)) > _LESSENS

    def reduction(self, time: int) -> FloatArray:
        """By how much the control variate lessens the spread of the loss gap, (counts,); nan where there is none."""
        kept = self.done.all(axis=0)
        if "loss" not in self.values or np.sum(kept) < 2 or not np.isfinite(self.control[:, kept, time]).all():
            return np.full(len(self.counts), math.nan)
        gaps, control = self.values["loss"][:, kept, time], self.control[:, kept, time]
        return np.asarray(np.std(gaps, axis=1) / np.maximum(np.std(gaps - control, axis=1), 1e-300))

    def samples(self, quantity: str, statistic: str, time: int) -> FloatArray:
        """The runs of which a statistic is taken, (counts, runs)."""
        kept = self.done.all(axis=0)
        values = self.values[quantity][:, kept, time]
        return values - self.control[:, kept, time] if statistic == "bias" and self.controlled(time) else values

    def rate(self, quantity: str, statistic: str, time: int = -1) -> Rate:
        """The rate in N of a statistic ("mean", "absolute": of the absolute values, "rms", "spread": the standard deviation, "bias": the
        absolute value of the mean) of one quantity at the time with this number; nan where fewer than two runs are left."""
        if self.runs < 2:
            return Rate(math.nan, math.nan, math.nan)
        return fitted_rate(self.counts, self.samples(quantity, statistic, time), statistic)

    def statistic(self, quantity: str, statistic: str, time: int = -1) -> FloatArray:
        """The statistic for each count, (counts,); nan where no runs, or for spreads one, are left."""
        if self.runs < (2 if statistic == "spread" else 1):
            return np.full(len(self.counts), math.nan)
        return STATISTICS[statistic](self.samples(quantity, statistic, time))

    def interval(self, quantity: str, statistic: str, time: int = -1) -> FloatArray:
        """Its 95 % intervals, (counts, 2)."""
        if not self.runs:
            return np.full((len(self.counts), 2), math.nan)
        return intervals(self.samples(quantity, statistic, time), statistic)

    def quantile_order(self, quantity: str, time: int = -1) -> Order | None:
        """The order in 1/N of the run from quantiles; None where there is none or it cannot be fitted."""
        values = np.abs(self.quantile[quantity][:, time]) if quantity in self.quantile else np.zeros(0)
        resolved = len(values) and (values > _ROUND_OFF).all()
        return fitted_order(1.0 / np.array(self.counts, dtype=float), values) if resolved else None


def particle_limit(
    problem: Problem,
    reference: Run,
    counts: Sequence[int],
    runs: int,
    solver: ParticleFlow | None = None,
    seed: int = 0,
    quantities: Sequence[str] | None = None,
    sensitivity: Sensitivity | None = None,
    told: Callable[[Piece], None] | None = None,
) -> ParticleLimit:
    """Run the particles ``runs`` times for each count and compare them with ``reference``, a run of the same problem at the same times.

    Quantities: ``w2``, ``w1``, ``sliced``: distances; ``loss``: all energies without internal ones, minus the reference's; ``function``,
    for networks: the distance ‖∫σρ_N − ∫σρ‖_μ of what they compute; ``barycentre`` and ``variance``. ``sensitivity`` gives the mean
    loss gap a control variate. ``told`` hears of every piece of the work that has ended.
    Raises ValueError for times that differ, counts that are not positive or quantities that the problem does not have.
    """
    wanted = tuple(quantities) if quantities is not None else usual_quantities(problem)
    if not set(problem.save_at) <= set(reference.times.tolist()):
        raise ValueError("the reference must hold the problem's times to save")
    if not counts or min(counts) < 1 or runs < 1:
        raise ValueError(f"counts and runs must be positive, got {list(counts)} and {runs}")
    for name in wanted:
        if name not in known_quantities(problem):
            raise ValueError(f"the quantities must be some of {', '.join(known_quantities(problem))}; got {name!r}")
    task = Task(problem, reference, solver or ParticleFlow(), wanted, seed, sensitivity)
    table = LimitTable.empty(counts, runs, wanted, len(problem.save_at))
    for piece in pieces(counts, runs):
        table.put(piece, task.carry_out(piece, counts[piece.number]))
        if told is not None:
            told(piece)
    return table.limit(counts, np.asarray(problem.save_at))


@dataclass(eq=False)
class LimitTable:
    """What the pieces have filled so far; ``ended`` (counts, runs) says what is there, ``done`` which of it reached its times."""

    values: dict[str, FloatArray]
    control: FloatArray
    ended: BoolArray
    done: BoolArray

    @staticmethod
    def empty(counts: Sequence[int], runs: int, quantities: Sequence[str], times: int) -> "LimitTable":
        """With nothing in it."""
        shape = (len(counts), runs, times)
        nothing = {name: np.full(shape, math.nan) for name in quantities}
        return LimitTable(nothing, np.full(shape, math.nan), np.zeros(shape[:2], bool), np.zeros(shape[:2], bool))

    def put(self, piece: Piece, found: Found) -> None:
        """Fill in a piece."""
        runs = slice(piece.first, piece.last)
        for name, values in found.values.items():
            self.values[name][piece.number, runs] = values
        self.control[piece.number, runs] = found.control
        self.ended[piece.number, runs] = True
        finite = np.all([np.isfinite(values).all(axis=1) for values in found.values.values()], axis=0)
        self.done[piece.number, runs] = finite & [status is Status.DONE for status in found.statuses]

    def take(self, arrays: Mapping[str, FloatArray], counts: Sequence[int]) -> None:
        """Runs of the same table with maybe another number of them, whole pieces only."""
        stored, own = arrays["ended"].shape[1], self.ended.shape[1]
        for k, count in enumerate(counts):
            shared = min(stored, own)
            runs = slice(0, shared - shared % _TOGETHER if count <= _SMALL and stored != own else shared)
            for name, values in (*self.values.items(), ("control", self.control)):
                values[k, runs] = arrays[name][k, runs]
            self.ended[k, runs], self.done[k, runs] = arrays["ended"][k, runs] > 0.0, arrays["done"][k, runs] > 0.0

    def has(self, piece: Piece) -> bool:
        """Whether a piece is there."""
        return bool(self.ended[piece.number, piece.first : piece.last].all())

    def limit(self, counts: Sequence[int], times: FloatArray, quantile: dict[str, FloatArray] | None = None) -> ParticleLimit:
        """The whole."""
        return ParticleLimit(tuple(counts), times, self.values, self.control, self.done, quantile or {})
