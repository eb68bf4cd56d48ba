"""What a density figure shows: the times, each run's measure at them, marginals and the scales of the values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.figures.style import spread_indices, write_number, write_symbol
from mfpde.measure import Density, Measure, Particles
from mfpde.storage import StoredRun

SPIKE = 12.0
_SAME_SCALE = 3.0


@dataclass(frozen=True, eq=False)
class Panel:
    """One or two axes at one time: a heading, the domain of these axes and each run's measure (None where it has none)."""

    heading: str
    domain: Domain
    measures: list[Measure | None]

    @property
    def densities(self) -> list[Density]:
        """The densities among the measures."""
        return [m for m in self.measures if isinstance(m, Density)]


@dataclass(frozen=True)
class Scale:
    """The largest value drawn, the largest there is, and whether that stands far above the rest."""

    top: float
    peak: float
    spiky: bool = False

    @property
    def note(self) -> str:
        """What to say where the peak is cut off, else nothing."""
        return f"\npeak {self.peak:.3g}, cut at {self.top:.3g}" if self.top < self.peak else ""


def choose_times(runs: Sequence[StoredRun], most: int) -> FloatArray:
    """Some of the saved times that all runs with more than one have; of those that any run has, if they share none."""
    several = [set(run.run.times.tolist()) for run in runs if len(run.run.times) > 1]
    common = set.intersection(*several) if several else set()
    times = np.array(sorted(common or {t for run in runs for t in run.run.times.tolist()}))
    return times[spread_indices(len(times), most)]


def find_measure(run: StoredRun, time: float) -> Measure | None:
    """The run's measure at exactly this time; None where it was not saved."""
    found = np.flatnonzero(run.run.times == time)
    return run.run.measures[int(found[0])] if len(found) else None


def make_panel(runs: Sequence[StoredRun], time: float) -> Panel:
    """One panel with all axes of the runs' domain, headed by its time."""
    return Panel(f"$t$ = {write_number(time)}", runs[0].domain, [find_measure(run, time) for run in runs])


def make_marginal_panels(runs: Sequence[StoredRun], time: float) -> list[Panel]:
    """One panel for each pair among the first three axes."""
    whole = make_panel(runs, time)
    panels = []
    for pair in combinations(range(3), 2):
        measures = [None if m is None else _marginal(m, whole.domain, pair) for m in whole.measures]
        heading = ", ".join(write_symbol(whole.domain.names[k]) for k in pair)
        panels.append(Panel(f"({heading})", _subdomain(whole.domain, pair), measures))
    return panels


def _subdomain(domain: Domain, pair: tuple[int, ...]) -> Domain:
    return Domain(tuple(domain.axes[k] for k in pair))


def _marginal(measure: Measure, domain: Domain, pair: tuple[int, ...]) -> Measure:
    """The law of two coordinates, in increasing order."""
    if isinstance(measure, Particles):
        return Particles(measure.points[:, list(pair)], measure.weights)
    grid = measure.grid
    others = tuple(k for k in range(domain.dimension) if k not in pair)
    values = np.sum(np.reshape(measure.values, grid.cells), axis=others) * float(np.prod(grid.spacing[list(others)]))
    return Density(_subdomain(domain, pair).grid(tuple(grid.cells[k] for k in pair)), values)


def find_level(values: FloatArray, masses: FloatArray, share: float) -> float:
    """The value above which this share of the mass lies."""
    order = np.argsort(values)[::-1]
    reached = np.cumsum(masses[order])
    place = min(int(np.searchsorted(reached, share * reached[-1])), len(order) - 1)
    return float(values[order[place]])


def find_scale(parts: Sequence[tuple[FloatArray, FloatArray]], limit: float) -> Scale:
    """The scale of values with their masses: up to the peak, unless that is ``limit`` times what three quarters of a mass reach."""
    peaks, tops, spiky = [0.0], [0.0], False
    for values, masses in parts:
        peak = float(np.max(values, initial=0.0))
        typical = max(find_level(values, masses, 0.75), 1e-6 * peak) if peak > 0.0 else 0.0
        peaks.append(peak)
        tops.append(peak if peak <= limit * typical else 0.5 * limit * typical)
        spiky |= peak > SPIKE * typical
    return Scale(max(tops) or 1.0, max(peaks) or 1.0, spiky)


def share_scale(scales: Sequence[Scale]) -> list[Scale]:
    """One scale for all if they are similar and none is cut, else as they are."""
    top = max(scale.top for scale in scales)
    similar = top <= _SAME_SCALE * min(scale.top for scale in scales)
    if not similar or any(scale.spiky for scale in scales):
        return list(scales)
    return [Scale(top, top)] * len(scales)
