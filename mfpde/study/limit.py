"""The particle limit, measured: how fast N particles approach the solution of the PDE, with error bars.

Independent runs of ``ParticleFlow`` for each count are compared with one reference run. Rates in N are slopes of log–log lines through
a statistic of the runs, with bootstrap intervals; at time 0 the central limit theorem says what fluctuations must be.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.distance import wasserstein
from mfpde.energy.network import TwoLayer
from mfpde.measure import Density, DensityFunction, Measure
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.solvers.particles import ParticleFlow

_DRAWS = 2000
_CONFIDENCE = 0.95

STATISTICS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mean": lambda values: np.mean(values, axis=-1),
    "absolute": lambda values: np.mean(np.abs(values), axis=-1),
    "rms": lambda values: np.sqrt(np.mean(values**2, axis=-1)),
    "spread": lambda values: np.std(values, axis=-1, ddof=1),
}
"""What is made of the runs of one count, over the last axis."""


@dataclass(frozen=True)
class Rate:
    """The slope of log(statistic) against log N, unweighted, with a 95 % bootstrap interval [``low``, ``high``] over the runs; nan where
    a statistic is not positive."""

    value: float
    low: float
    high: float


def fitted_rate(counts: Sequence[int], samples: FloatArray, statistic: str, seed: int = 0, draws: int = _DRAWS) -> Rate:
    """The rate of a statistic of ``samples`` (counts, runs). The bootstrap draws runs anew for each count [Efron 1979].

    Raises ValueError for fewer than two counts or two runs, or an unknown statistic.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")
    if len(counts) < 2 or samples.ndim != 2 or samples.shape[0] != len(counts) or samples.shape[1] < 2:
        raise ValueError(f"a rate needs two or more counts with two or more runs each, got {len(counts)} counts and {samples.shape}")
    x = np.log(np.asarray(counts, dtype=float))
    centred = (x - np.mean(x)) / np.sum((x - np.mean(x)) ** 2)
    of = STATISTICS[statistic]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, samples.shape[1], size=(len(counts), draws, samples.shape[1]))
    again = of(np.take_along_axis(samples[:, None, :], drawn, axis=2))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(centred @ np.log(of(samples)))
        slopes = centred @ np.log(again)
    tail = 0.5 * (1.0 - _CONFIDENCE)
    low, high = np.quantile(slopes, [tail, 1.0 - tail])
    return Rate(value, float(low), float(high))


@dataclass(frozen=True, eq=False)
class ParticleLimit:
    """``values[quantity]`` (counts, runs, times) of the particles, minus those of the reference (distances as they are)."""

    counts: tuple[int, ...]
    times: FloatArray
    values: dict[str, FloatArray]

    def rate(self, quantity: str, statistic: str, time: int = -1) -> Rate:
        """The rate of one quantity at one of the times."""
        return fitted_rate(self.counts, self.values[quantity][:, :, time], statistic)

    def statistic(self, quantity: str, statistic: str, time: int = -1) -> FloatArray:
        """The statistic for each count, (counts,)."""
        return STATISTICS[statistic](self.values[quantity][:, :, time])


def particle_limit(
    problem: Problem,
    reference: Run,
    counts: Sequence[int],
    runs: int,
    solver: ParticleFlow | None = None,
    seed: int = 0,
    told: Callable[[int, int], None] | None = None,
) -> ParticleLimit:
    """Run the particles ``runs`` times for each count and compare them with ``reference``, a run of the same problem at the same times.

    Quantities: ``w2``, ``w1``; ``loss`` (all energies without entropy, minus the reference's); ``function``, for networks: the distance
    ‖∫σρ_N − ∫σρ‖_μ of what they compute. Run r of count number k has a seed of its own, made from ``seed``, k and r.
    ``told`` hears of (count number, run) when a run has ended. Raises ValueError for times that differ or counts that are not positive.
    """
    if list(reference.times) != list(problem.save_at):
        raise ValueError("the reference must hold the problem's times to save")
    if not counts or min(counts) < 1 or runs < 1:
        raise ValueError(f"counts and runs must be positive, got {list(counts)} and {runs}")
    base = solver or ParticleFlow()
    names = ["w2", "w1", "loss", *(["function"] if _networks(problem) else [])]
    values = {name: np.full((len(counts), runs, len(problem.save_at)), np.nan) for name in names}
    for k, count in enumerate(counts):
        for r in range(runs):
            own = int(np.random.SeedSequence(seed, spawn_key=(k, r)).generate_state(1, np.uint64)[0] >> 1)
            found = replace(base, count=count, seed=own).solve(problem)
            for t, (ours, theirs) in enumerate(zip(found.measures, reference.measures, strict=False)):
                compared = _compared(problem, ours, theirs, found.total_energy[t] - reference.total_energy[t])
                for name, value in compared.items():
                    values[name][k, r, t] = value
            if told is not None:
                told(k, r)
    return ParticleLimit(tuple(counts), np.asarray(problem.save_at), values)


def _networks(problem: Problem) -> list[TwoLayer]:
    return [term for term in problem.energy.terms.values() if isinstance(term, TwoLayer)]


def _compared(problem: Problem, ours: Measure, theirs: Measure, gap: float) -> dict[str, float]:
    found = {f"w{order}": wasserstein(ours, theirs, problem.domain, order).value for order in (2, 1)} | {"loss": gap}
    if networks := _networks(problem):
        squares = (float(np.sum((term.residual(ours) - term.residual(theirs)) ** 2)) for term in networks)
        found["function"] = math.sqrt(sum(squares))
    return found


def expected_square_distance(start: Density) -> float:
    """J₂ = ∫F(1 − F)/ρ, so that E W₂² ≈ J₂/N for N independent draws from a density on one axis [del Barrio–Giné–Utzet 2005].

    F is linear and ρ constant in each cell. Infinite where J₂ is, as for tails that are too light at the ends of the support.
    """
    masses = np.ravel(start.weights)
    width = start.grid.cell_volume
    below = np.concatenate([[0.0], np.cumsum(masses)])
    a, b = below[:-1], below[1:]
    inside = masses > 0.0
    integral = 0.5 * (a + b) - (a * a + a * b + b * b) / 3.0
    return float(np.sum((integral * width)[inside] / (masses / width)[inside]))


def expected_loss_gap(problem: Problem, network: TwoLayer, cells: int = 400) -> tuple[float, float]:
    """(N times the mean, √N times the standard deviation) of the loss gap for N independent draws at time 0.

    For ½|∫Φ dρ − b|² the mean is Tr Cov(Φ)/(2N) exactly, and the fluctuation tends to a normal law with the variance of ξ = δE/δρ under ρ₀.
    Raises TypeError where the initial measure is not a density.
    """
    if not isinstance(problem.initial, DensityFunction):
        raise TypeError("the central limit theorem needs draws from a density")
    atoms = problem.initial.gauss_atoms(cells)
    features = network.features.evaluate(atoms.points)
    moments = features @ atoms.weights
    trace = float(np.sum(features**2 @ atoms.weights) - moments @ moments)
    xi = (moments - network.target) @ features
    centre = float(xi @ atoms.weights)
    return 0.5 * trace, math.sqrt(float(atoms.weights @ (xi - centre) ** 2))
