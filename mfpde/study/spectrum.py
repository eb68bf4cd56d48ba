"""What the runs of a spectrum show: the rate of each mode, densities without loss at rest, and the modes that others create."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import ComplexArray, FloatArray
from mfpde.distance import wasserstein
from mfpde.energy.network import TwoLayer
from mfpde.energy.spectrum import Mode, harmonics, still_to_come
from mfpde.measure import Density, Measure
from mfpde.study.report import Arrays

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

if TYPE_CHECKING:
    from mfpde.study.spectrum_plan import Part, SpectrumPlan

_TEACHER_CELLS = 4096
_BELOW_BOUND = 1e-9
_NO_LOSS = 1e-18


@dataclass(frozen=True, eq=False)
class MeasuredRate:
    """The rate of the mode at ``place`` in a solver's runs: ``own`` of its run, ``rate`` after extrapolation in the cells, ``expected``
    by the linearised flow. ``amplitudes`` (T,) at ``times``, relative to the first; ``bend`` is the largest distance of their logarithm
    from a straight line."""

    solver: str
    place: int
    expected: float
    own: float
    rate: float
    times: FloatArray
    amplitudes: FloatArray
    bend: float

    @property
    def error(self) -> float:
        """|rate − expected| relative to it, or to one over the time of the run where that is larger."""
        return abs(self.rate - self.expected) / max(abs(self.expected), 1.0 / float(self.times[-1]))

    @property
    def own_error(self) -> float:
        """The same, with its sign, of the run as it is."""
        return (self.own - self.expected) / max(abs(self.expected), 1.0 / float(self.times[-1]))


@dataclass(frozen=True, eq=False)
class AtRest:
    """By how much a density with a finite null mode has moved: cells relative to the mean density, atoms as an angle; its losses, or,
    where there is no teacher, how far its energy is from the first one."""

    solver: str
    wave: int
    moved: float
    loss: FloatArray


@dataclass(frozen=True, eq=False)
class Created:
    """A null mode from two others: its amplitudes (2, T) over the product of theirs, in runs with ``sizes`` (2,), the second half the
    first. ``others`` (n, T): amplitudes of those two in the first run over their initial ones."""

    solver: str
    sizes: FloatArray
    times: FloatArray
    amplitudes: FloatArray
    others: FloatArray
    predicted: float

    @property
    def final(self) -> FloatArray:
        """At the end of both runs, (2,)."""
        return np.asarray(self.amplitudes[:, -1])

    @property
    def limit(self) -> float:
        """Extrapolated to amplitude zero, of second order."""
        return float(2.0 * self.final[1] - self.final[0])

    @property
    def error(self) -> float:
        """Of the limit, relative."""
        return abs(self.limit / self.predicted - 1.0)

    @property
    def allowed(self) -> float:
        """What the amplitudes leave: of their first order, where the extrapolation is of the second."""
        return float(self.sizes[0])


@dataclass(frozen=True, eq=False)
class OwnRun:
    """The case's own run: losses, distances W₂ from the teacher and what the null modes say that they cannot fall below, (T,);
    ``hidden`` (K, T) and ``seen`` (J, T): sizes of null and other modes of Lρ. ``left`` (K,): by how much null modes can still change
    after the last time, and ``kept`` the distance below which, with that and the error of the cells, those that are null by symmetry keep
    W₂ from falling."""

    label: str
    times: FloatArray
    loss: FloatArray
    distance: FloatArray
    bound: FloatArray
    hidden: FloatArray
    seen: FloatArray
    left: FloatArray
    kept: float


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The report: what was planned, and what the runs show."""

    plan: "SpectrumPlan"
    rates: tuple[MeasuredRate, ...]
    rest: tuple[AtRest, ...]
    created: tuple[Created, ...]
    own: OwnRun | None

    def text(self) -> str:
        """Tables and verdicts."""
        from mfpde.study.spectrum_text import spectrum_text

        return spectrum_text(self)

    def data(self) -> dict[str, Any]:
        """For study.json."""
        from mfpde.study.spectrum_text import spectrum_data

        return spectrum_data(self)

    def csv(self) -> str:
        """One row for each mode and solver."""
        from mfpde.study.spectrum_text import spectrum_csv

        return spectrum_csv(self)

    def arrays(self) -> tuple[dict[str, Any], Arrays]:
        """For study.h5."""
        from mfpde.study.spectrum_text import spectrum_arrays

        return spectrum_arrays(self)

    def missed(self) -> list[str]:
        """Rates, densities at rest and created modes that are not as they must be, and a distance below its bound."""
        table, modes = self.plan.table, self.plan.modes
        found = [
            f"{r.solver}: mode {modes[r.place].number} decays at {r.rate:.8g} and not {r.expected:.8g}, error {r.error:.1e}"
            for r in self.rates
            if not r.error <= table.tolerance
        ]
        found += [
            f"{r.solver}: null mode {r.wave} moves by {r.moved:.1e}, expected at most {table.rest_tolerance:.1e}{_advice(r)}"
            for r in self.rest
            if not r.moved <= table.rest_tolerance
        ]
        found += [
            f"{c.solver}: the created mode tends to {c.limit:.6g} and not {c.predicted:.6g}, error {c.error:.1e}"
            for c in self.created
            if not c.error <= c.allowed
        ]
        if self.own is not None and (self.own.distance < self.own.bound * (1.0 - _BELOW_BOUND)).any():
            found.append(f"{self.own.label}: W2 falls below what the null modes allow")
        return found

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """study-spectrum and study-modes."""
        from mfpde.figures import draw_spectrum

        return draw_spectrum(self, folder, formats)


def _advice(rest: AtRest) -> str:
    """What to do where nodes or atoms see a loss where there is none."""
    if float(np.max(rest.loss)) <= _NO_LOSS:
        return ""
    words = "give the network a `tolerance`, which leaves fast waves out, or more nodes or atoms"
    return f"; it sees a loss of {np.max(rest.loss):.0e} where there is none, from waves that it does not resolve: {words}"


def read_spectrum(plan: "SpectrumPlan", stored: "Mapping[str, StoredRun]") -> Spectrum:
    """The report. Raises ValueError for a run that stopped early."""
    for part in plan.parts:
        times = stored[part.run.label].run.times
        if len(times) < len(part.run.problem.save_at):
            raise ValueError(f"the run {part.run.label} stopped before t = {part.run.problem.save_at[-1]:g}, so there is no spectrum")
    length = plan.domain.axes[0].length
    calm = np.fft.fft(plan.density) / len(plan.density) * length
    rates = _measured(plan, stored, calm, length)
    rest = tuple(_at_rest(part, stored[part.run.label], length, plan.taught) for part in plan.parts if part.purpose == "rest")
    created = tuple(_created(plan, solver, stored, length) for solver in plan.solvers) if plan.coupling else ()
    own = next((_own(plan, part, stored[part.run.label], calm, length) for part in plan.parts if part.purpose == "own"), None)
    return Spectrum(plan, rates, rest, created, own)


def _measured(plan: "SpectrumPlan", stored: "Mapping[str, StoredRun]", calm: ComplexArray, length: float) -> tuple[MeasuredRate, ...]:
    runs = {(part.solver, part.mode, part.purpose): stored[part.run.label] for part in plan.parts}
    found = []
    for (solver, place, purpose), run in runs.items():
        if purpose != "mode":
            continue
        mode, times = plan.modes[place], run.run.times
        amplitudes = _amplitudes(mode, run, runs.get((solver, place, "mirror")), calm, length)
        own, bend = _slope(times, amplitudes)
        rate, coarse = own, runs.get((solver, place, "coarse"))
        if coarse is not None:
            others = _amplitudes(mode, coarse, runs.get((solver, place, "coarse mirror")), calm, length)
            rate = _extrapolated(own, _slope(coarse.run.times, others)[0], _cells(run) / _cells(coarse))
        found.append(MeasuredRate(solver, place, mode.rate, own, rate, times, amplitudes / amplitudes[0], bend))
    return tuple(found)


def _amplitudes(mode: Mode, stored: "StoredRun", mirror: "StoredRun | None", calm: ComplexArray, length: float) -> FloatArray:
    """∫g d(ρ − ρ*), (T,), or half the difference from that of a run with the opposite amplitude."""
    most = len(mode.dual) - 1

    def seen(run: "StoredRun") -> FloatArray:
        away = np.stack([harmonics(measure, length, most) - calm[: most + 1] for measure in run.run.measures])
        return np.asarray((away.conj() @ mode.dual).real)

    return seen(stored) if mirror is None else 0.5 * (seen(stored) - seen(mirror))


def _slope(times: FloatArray, amplitudes: FloatArray) -> tuple[float, float]:
    """The rate of decay by least squares of the logarithm, and its largest distance from the line; nan where the sign changes."""
    if not (amplitudes * amplitudes[0] > 0.0).all():
        return math.nan, math.nan
    logarithm = np.log(amplitudes / amplitudes[0])
    middle = times - np.mean(times)
    rate = -float(middle @ logarithm / (middle @ middle))
    return rate, float(np.max(np.abs(logarithm - np.mean(logarithm) + rate * middle)))


def _cells(stored: "StoredRun") -> int:
    final = stored.run.final
    return final.grid.size if isinstance(final, Density) else 1


def _extrapolated(fine: float, rough: float, ratio: float) -> float:
    """To cells of width zero, from errors of second order."""
    return (ratio**2 * fine - rough) / (ratio**2 - 1.0)


def _at_rest(part: "Part", stored: "StoredRun", length: float, taught: bool) -> AtRest:
    measures = stored.run.measures
    first, moved = measures[0], 0.0
    for measure in measures[1:]:
        if isinstance(measure, Density) and isinstance(first, Density):
            gap = float(np.max(np.abs(measure.values - first.values))) * length
        else:
            steps = np.mod(measure.points - first.points + 0.5 * length, length) - 0.5 * length
            gap = float(np.max(np.abs(steps))) * 2.0 * math.pi / length
        moved = max(moved, gap)
    energy = stored.run.total_energy
    return AtRest(part.solver, part.mode, moved, energy if taught else np.abs(energy - energy[0]))


def _created(plan: "SpectrumPlan", solver: str, stored: "Mapping[str, StoredRun]", length: float) -> Created:
    """Amplitudes γ of γ cos q_k x in Lρ."""
    coupling = plan.coupling
    assert coupling is not None
    parts = [part for part in plan.parts if part.purpose == "coupling" and part.solver == solver]
    sizes = np.array([part.amplitude for part in parts])
    modes = np.stack([[2.0 * harmonics(m, length, coupling.wave).real for m in stored[part.run.label].run.measures] for part in parts])
    amplitudes = modes[:, :, coupling.wave] / sizes[:, None] ** 2
    others = modes[0][:, sorted(set(coupling.waves))].T / sizes[0]
    times = stored[parts[0].run.label].run.times
    return Created(solver, sizes, times, amplitudes, others, coupling.predicted)


def _own(plan: "SpectrumPlan", part: "Part", stored: "StoredRun", calm: ComplexArray, length: float) -> OwnRun:
    run, domain = stored.run, plan.domain
    teacher = _teacher_measure(plan)
    most = max([*plan.waves, plan.table.modes])
    away = np.stack([np.abs(harmonics(measure, length, most) - calm[: most + 1]) for measure in run.measures], axis=1)
    hidden = away[list(plan.waves)]
    slopes = 2.0 * math.pi * np.array(plan.waves, dtype=float)[:, None] / length
    bound = np.max(hidden / slopes, axis=0, initial=0.0)
    distance = np.array([wasserstein(measure, teacher, domain).value for measure in run.measures])
    networks = [name for name, term in part.run.problem.energy.terms.items() if isinstance(term, TwoLayer)]
    loss = np.asarray(sum(run.energy[name] for name in networks), dtype=float)
    others = [k for k in range(1, most + 1) if k not in plan.waves]
    left = _left(plan, run.final, calm, length)
    slack = (math.pi * np.array(plan.waves, dtype=float) / len(run.final.weights)) ** 2 * np.max(hidden, axis=1, initial=0.0)
    sure = (hidden[:, -1] - left - slack) / slopes[:, 0]
    kept = max([0.0, *(float(sure[i]) for i, wave in enumerate(plan.waves) if wave in plan.zeros)])
    return OwnRun(stored.label, run.times, loss, distance, bound, 2.0 * hidden, 2.0 * away[others], 2.0 * left, kept)


def _left(plan: "SpectrumPlan", final: Measure, calm: ComplexArray, length: float) -> FloatArray:
    """By how much each |ρ̂_k| of the null modes can still change, (K,), with the modes that the cells or atoms resolve."""
    most = min(plan.most, (len(final.weights) - 1) // 4)
    waves = [k for k in plan.all_waves if k <= most]
    found = np.full(len(plan.waves), np.inf)
    if waves and len(waves) < most:
        modes = harmonics(final, length, 2 * most)
        change = still_to_come(modes, modes[: most + 1] - calm[: most + 1], waves, length)
        for i, wave in enumerate(plan.waves):
            if wave in waves:
                found[i] = change[waves.index(wave)]
    return found


def _teacher_measure(plan: "SpectrumPlan") -> Measure:
    """The stationary density on a fine grid."""
    from mfpde.study.spectrum_density import FourierDensity

    return FourierDensity.of(plan.density, plan.domain).function.on(plan.domain.even_grid(_TEACHER_CELLS))
