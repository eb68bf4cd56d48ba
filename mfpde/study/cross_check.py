"""Runs of several solvers side by side: how far they are apart, and how far their own errors let them be.

The error of a run without chance is 3 times what it differs by from a run with half its resolution: the grid convergence index for two
grids and an order of one [Roache 1994], whose factor is the safety at higher orders. Random atoms are off by the fluctuations of
independent runs, and no less than the central limit theorem says of so many draws.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.compare import compare
from mfpde.distance import wasserstein
from mfpde.domain import Domain
from mfpde.measure import Density, Measure, Particles
from mfpde.storage import StoredRun
from mfpde.study.predictions import expected_square_distance
from mfpde.study.references import coarsened

_SAFETY = 3.0
_DEVIATIONS = 4.0
_LEAST = {"w2": 1e-10, "l1": 1e-10, "loss": 1e-12}
_TINY_LOSS = 1e-3
_COMMON = 0.5
_GAP = re.compile(r"(?:largest duality gap|leave open of the energy is) ([0-9.]+(?:e[+-]?\d+)?)")


@dataclass(frozen=True, eq=False)
class Member:
    """A run with those that show its error: one with half the resolution, or independent ones with a ``share``-th of its atoms.

    ``tau``: the length of its steps where it is made of minimising movements, else 0.
    """

    stored: StoredRun
    companions: tuple[StoredRun, ...]
    coarse: bool
    share: float = 1.0
    tau: float = 0.0


@dataclass(frozen=True, eq=False)
class CrossCheck:
    """R runs at T times in K norms; every table is an array with nan where there is nothing to say.

    ``stated`` (K, R, T): each run's own error. ``distance`` (K, R, T): from the reference; ``allowed``: the sum of both errors and of what
    the distance itself may have cost. ``loss`` (R, T): the energy terms that all runs share, which are ``terms`` of the reference; gaps
    are those of all ``terms`` that a run has in common with it. ``apart`` and ``near`` (R, R): W₂ of all pairs at the last time, and what
    it may be.
    """

    labels: tuple[str, ...]
    reference: str
    times: FloatArray
    norms: tuple[str, ...]
    stated: FloatArray
    distance: FloatArray
    allowed: FloatArray
    apart: FloatArray
    near: FloatArray
    terms: dict[str, tuple[str, ...]]
    loss: FloatArray
    method: str
    words: tuple[str, ...]

    @property
    def differs(self) -> BoolArray:
        """Where a run and the reference are further apart than their errors allow, (K, R, T)."""
        return np.isfinite(self.distance) & np.isfinite(self.allowed) & (self.distance > self.allowed)

    @property
    def others(self) -> list[int]:
        """The runs that are not the reference."""
        return [k for k, label in enumerate(self.labels) if label != self.reference]


def cross_check(
    members: Sequence[Member], reference: str, norms: tuple[str, ...], times: Sequence[float], allowance: float = 1.0
) -> CrossCheck:
    """Compare all runs with the one labelled ``reference`` at those of the ``times`` that they have."""
    labels, clock = tuple(member.stored.label for member in members), np.asarray(times, dtype=float)
    base = members[labels.index(reference)]
    shape = (len(norms), len(members), len(clock))
    stated, distance, allowed = (np.full(shape, np.nan) for _ in range(3))
    terms, methods = dict[str, tuple[str, ...]](), set[str]()
    for r, member in enumerate(members):
        stated[:, r] = _stated(member, base, norms, clock)
    for r, member in enumerate(members):
        if member is base:
            continue
        gaps = _gaps(member.stored, base.stored, norms, clock)
        terms[labels[r]], distance[:, r] = gaps.terms, gaps.values
        methods.add(gaps.method)
        allowed[:, r] = allowance * (stated[:, r] + stated[:, labels.index(reference)]) + gaps.floors
    apart, near = _all_pairs(members, stated[norms.index("w2")] if "w2" in norms else None, clock, allowance)
    words = tuple(word for member in members for word in _gap_words(member))
    terms[reference] = shared = _shared(terms)
    shown = [shared or terms[label] for label in labels]
    loss = np.array([_losses(member.stored, names, clock) for names, member in zip(shown, members, strict=True)])
    method = "; ".join(sorted(methods - {""}))
    return CrossCheck(labels, reference, clock, norms, stated, distance, allowed, apart, near, terms, loss, method, words)


# Between two runs.


@dataclass(frozen=True, eq=False)
class _Gaps:
    """How far two runs are apart, (K, T), what their comparison may have cost, the energy terms in the loss, and W₂'s method."""

    values: FloatArray
    floors: FloatArray
    terms: tuple[str, ...]
    method: str


def _gaps(one: StoredRun, other: StoredRun, norms: tuple[str, ...], times: FloatArray) -> _Gaps:
    """W₂, L¹ on common cells, and the gap of the energy terms that are finite in both runs."""
    values, floors = (np.full((len(norms), len(times)), np.nan) for _ in range(2))
    common = np.intersect1d(np.intersect1d(one.run.times, other.run.times), times)
    if not len(common):
        return _Gaps(values, floors, (), "")
    cut = [_at(run, common) for run in (one, other)]
    comparison = compare([cut[1], cut[0]]) if "w2" in norms or "loss" in norms else None
    places = np.searchsorted(times, common)
    for k, norm in enumerate(norms):
        if norm == "l1":
            values[k, places] = [l1_distance(a, b) for a, b in zip(cut[0].run.measures, cut[1].run.measures, strict=True)]
            floors[k, places] = _LEAST["l1"]
        elif comparison is not None and norm == "w2":
            values[k, places] = comparison.pairs[0].distance
            floors[k, places] = comparison.pairs[0].floor + _LEAST["w2"] * _diameter(one.domain)
        elif comparison is not None:
            values[k, places] = np.abs(comparison.pairs[0].loss_gap)
            floors[k, places] = _LEAST["loss"] * np.maximum(np.abs(comparison.pairs[0].reference_loss), _TINY_LOSS)
    if comparison is None:
        return _Gaps(values, floors, (), "")
    return _Gaps(values, floors, comparison.terms, comparison.pairs[0].method)


def l1_distance(first: Measure, second: Measure) -> float:
    """∫|ρ₁ − ρ₂| of two densities averaged over the cells that both grids are made of; nan for atoms, and where those are less than half
    as many along some axis as the coarser grid has."""
    if not (isinstance(first, Density) and isinstance(second, Density)):
        return math.nan
    pairs = list(zip(first.grid.cells, second.grid.cells, strict=True))
    cells = tuple(math.gcd(*pair) for pair in pairs)
    if any(count < _COMMON * min(pair) for count, pair in zip(cells, pairs, strict=True)):
        return math.nan
    grid = first.grid.domain.grid(cells)
    one, two = (np.ravel(coarsened(density, grid).values) for density in (first, second))
    return float(np.sum(np.abs(one - two) * grid.weight))


def _at(stored: StoredRun, times: FloatArray) -> StoredRun:
    """The run at some of its times."""
    kept = np.flatnonzero(np.isin(stored.run.times, times))
    energy = {name: values[kept] for name, values in stored.run.energy.items()}
    run = replace(stored.run, times=stored.run.times[kept], measures=[stored.run.measures[k] for k in kept], energy=energy)
    return replace(stored, run=run)


def _diameter(domain: Domain) -> float:
    return float(np.linalg.norm(domain.upper - domain.lower))


def _all_pairs(members: Sequence[Member], stated: FloatArray | None, times: FloatArray, allowance: float) -> tuple[FloatArray, FloatArray]:
    """W₂ of all pairs at the last time, and how large it may be."""
    count = len(members)
    apart, near = np.zeros((count, count)), np.zeros((count, count))
    for i, k in itertools.combinations(range(count), 2):
        pair = [_measure(members[r].stored, float(times[-1])) for r in (i, k)]
        value = room = math.nan
        if stated is not None and pair[0] is not None and pair[1] is not None:
            found = wasserstein(pair[0], pair[1], members[i].stored.domain)
            least = found.floor + _LEAST["w2"] * _diameter(members[i].stored.domain)
            value, room = found.value, allowance * float(stated[i, -1] + stated[k, -1]) + least
        apart[i, k] = apart[k, i] = value
        near[i, k] = near[k, i] = room
    return apart, near


def _measure(stored: StoredRun, time: float) -> Measure | None:
    found = np.flatnonzero(stored.run.times == time)
    return stored.run.measures[int(found[0])] if len(found) else None


def _shared(terms: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The terms of the reference that every other run has."""
    lists = list(terms.values())
    return tuple(name for name in lists[0] if all(name in other for other in lists)) if lists else ()


def _losses(stored: StoredRun, terms: tuple[str, ...], times: FloatArray) -> FloatArray:
    """The sum of the terms, (T,)."""
    found = np.full(len(times), np.nan)
    if terms:
        _, mine, there = np.intersect1d(stored.run.times, times, return_indices=True)
        found[there] = np.sum([stored.run.energy[name][mine] for name in terms], axis=0)
    return found


# Own errors.


def _stated(member: Member, base: Member, norms: tuple[str, ...], times: FloatArray) -> FloatArray:
    """The run's own error, (K, T); nan where a companion has nothing to say."""
    if not member.companions:
        return np.full((len(norms), len(times)), np.nan)
    if member.coarse:
        found = _SAFETY * _gaps(member.stored, member.companions[0], norms, times).values
        if "w2" in norms and (gap := _duality_gap(member.stored)) > 0.0:
            found[norms.index("w2")] += math.sqrt(2.0 * member.tau * gap)
        return np.asarray(found)
    return _fluctuations(member, base, norms, times)


def _fluctuations(member: Member, base: Member, norms: tuple[str, ...], times: FloatArray) -> FloatArray:
    """4 deviations: root mean squares over pairs of independent runs, divided by √2 and by √share."""
    pairs = [_gaps(a, b, norms, times).values for a, b in itertools.combinations(member.companions, 2)]
    found = _DEVIATIONS * np.sqrt(np.mean(np.square(pairs), axis=0) / (2.0 * member.share))
    if "w2" in norms:
        known = _DEVIATIONS * _central_limit(member, base, times)
        place = norms.index("w2")
        found[place] = np.where(np.isfinite(known), np.fmax(found[place], known), found[place])
    return np.asarray(found)


def _central_limit(member: Member, base: Member, times: FloatArray) -> FloatArray:
    """√(J₂/N), the W₂ of N draws from the reference's density [del Barrio–Giné–Utzet 2005], (T,); nan where it is not known."""
    found = np.full(len(times), np.nan)
    domain = member.stored.domain
    if domain.dimension != 1 or domain.periodic[0]:
        return found
    for t, time in enumerate(times.tolist()):
        atoms, density = _measure(member.stored, time), _measure(base.stored, time)
        if isinstance(atoms, Particles) and isinstance(density, Density):
            value = expected_square_distance(density)
            found[t] = math.sqrt(value / len(atoms.weights)) if math.isfinite(value) else math.nan
    return found


def _duality_gap(stored: StoredRun) -> float:
    """The largest gap of a step that a run noted, 0 where there is none."""
    return max((float(match) for note in stored.run.notes for match in _GAP.findall(note)), default=0.0)


def _gap_words(member: Member) -> list[str]:
    gap = _duality_gap(member.stored)
    if not (gap > 0.0 and member.tau > 0.0):
        return []
    least = math.sqrt(2.0 * member.tau * gap)
    return [f"{member.stored.label}: the largest duality gap g of a step, {gap:.1e}, is √(2 tau g) = {least:.1e} in W2, which is added"]
