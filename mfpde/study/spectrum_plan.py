"""What a [study] of kind "spectrum" asks for: the stationary density, its modes, and a run of every solver for each of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case import CaseFile, schema
from mfpde.case.build import teacher_of
from mfpde.case.errors import CaseError, nearest, shown
from mfpde.case.spectrum_schema import SpectrumTable
from mfpde.disk import Disk
from mfpde.domain import Domain
from mfpde.energy.spectrum import (
    Mode,
    energy_symbol,
    forbidden_waves,
    null_waves,
    resolved_modes,
    second_order,
    series_values,
    teacher_modes,
    uniform_modes,
)
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.study.readings import PlannedRun
from mfpde.study.spectrum import Spectrum, read_spectrum
from mfpde.study.spectrum_density import FourierDensity, exact_quantiles
from mfpde.study.variants import varied

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

_TEACHER_MODES = 96
_POINTS = 1024
_UNIFORM = 1e-12
_DECAY, _GROWTH = 2.0, 3.0
_LONGEST = 200.0
_SAVED = 5
_MIXED = 14.0
_PER_WAVE = {"finite_volume": 28, "characteristics": 8, "particles": 16}
"""Cells or atoms; those of finite volumes leave 1e-4 of a rate after extrapolation, from (qh)⁴/90 and from K̂ at waves that look alike."""
_USUAL = 1e-4
_STEP_SHARE = 0.001
_LEAST = {"finite_volume": 1e-15, "particles": 1e-13}

Purpose = Literal["mode", "mirror", "coarse", "coarse mirror", "rest", "coupling", "own"]


@dataclass(frozen=True, eq=False)
class Part:
    """A run and what it is for. ``mode``: the place of the mode that it measures, or the wave number of one at rest."""

    run: PlannedRun
    solver: str
    purpose: Purpose
    mode: int = 0
    amplitude: float = 0.0


@dataclass(frozen=True, eq=False)
class Coupling:
    """Two modes i <= j whose product is the null mode i + j, how long that takes, and its final amplitude over theirs squared."""

    waves: tuple[int, int]
    end: float
    predicted: float

    @property
    def wave(self) -> int:
        """i + j."""
        return sum(self.waves)


@dataclass(frozen=True, eq=False)
class SpectrumPlan:
    """The modes about the stationary ``density`` (uniform, or the teacher's), the ``waves`` without loss among the first, and all runs.
    ``all_waves`` are those up to ``most``, to which K̂ is known, and ``zeros`` those of them whose K̂ vanishes by symmetry; of the others it
    is below round-off."""

    case: CaseFile
    table: SpectrumTable
    domain: Domain
    uniform: bool
    density: FloatArray
    taught: bool
    most: int
    modes: tuple[Mode, ...]
    waves: tuple[int, ...]
    all_waves: tuple[int, ...]
    zeros: tuple[int, ...]
    coupling: Coupling | None
    solvers: tuple[str, ...]
    parts: tuple[Part, ...]
    notes: list[str]
    figures: tuple[str, ...] = ("study-spectrum", "study-modes")

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """All runs."""
        return tuple(part.run for part in self.parts)

    def exact(self, mode: Mode) -> bool:
        """Whether a null mode is one by symmetry, and not by a rate below round-off."""
        return mode.number in self.zeros if self.uniform else mode.number > 2 * (self.most - len(self.zeros))

    @property
    def description(self) -> str:
        """One line for people."""
        about = "the uniform density" if self.uniform else "the teacher's density"
        return f"{len(self.modes)} modes about {about}: {len(self.parts)} runs of {', '.join(self.solvers)}"

    def read(self, stored: "Mapping[str, StoredRun]") -> Spectrum:
        """Rates, rest and coupling in the stored runs."""
        return read_spectrum(self, stored)


def plan(case: CaseFile, table: SpectrumTable, problem: Problem) -> SpectrumPlan:
    """The plan. Raises CaseError for what does not fit the case."""
    _check_circle(problem.domain)
    teacher = _teacher(case, problem.domain)
    length = problem.domain.axes[0].length
    density = np.full(_POINTS, 1.0 / length) if teacher is None else _sampled(teacher, problem.domain)
    uniform = float(np.ptp(density)) <= _UNIFORM / length
    most = max(_TEACHER_MODES, 2 * table.modes) if teacher is not None else 2 * table.modes
    try:
        symbol = energy_symbol(problem.energy, problem.domain, most)
        modes = uniform_modes(symbol, length, table.modes) if uniform else teacher_modes(symbol, density, length, table.modes)
    except ValueError as error:
        raise CaseError(("energy",), str(error)) from error
    numbers = _solvers(case, table)
    _check_resolved(case, table, numbers, problem)
    null = tuple(null_waves(symbol))
    waves = tuple(k for k in null if k <= table.modes)
    zeros = tuple(forbidden_waves(problem.energy, problem.domain, most))
    coupling = _coupling(symbol, length, waves, table.modes) if uniform else None
    parts = _Parts(case, table, problem, density, tuple(modes), waves, coupling, uniform).all(numbers, teacher is not None)
    labels = tuple(case.labels[number] for number in numbers)
    notes = (
        [] if uniform else ["the teacher's density is not uniform: its modes are mixtures of Fourier modes, in the order of their rates"]
    )
    left = {label: _unfit(case, number) for number, label in enumerate(case.labels)}
    notes += [f"{label} is left out: it {reason}" for label, reason in left.items() if reason and not table.solvers]
    found = SpectrumPlan(
        case,
        table,
        problem.domain,
        uniform,
        density,
        teacher is not None,
        most,
        tuple(modes),
        waves,
        null,
        zeros,
        coupling,
        labels,
        parts,
        notes,
    )
    twice = [run.label for run in found.runs if [other.label for other in found.runs].count(run.label) > 1]
    if twice:
        raise CaseError(("solver",), f'the label "{twice[0]}" is that of a run of the study; give this solver another')
    return found


def _check_circle(domain: Domain) -> None:
    if isinstance(domain, Disk) or domain.dimension != 1:
        found = "a disk" if isinstance(domain, Disk) else f"{domain.dimension} axes"
        raise CaseError(("domain",), f"modes need a domain with one axis that is periodic, got {found}")
    if not domain.periodic[0]:
        raise CaseError(("domain", domain.names[0]), "modes need a periodic axis: add periodic = true")


def _teacher(case: CaseFile, domain: Domain) -> DensityFunction | None:
    """The teacher's density; None where the energy has no teacher, so that the uniform density is stationary. Raises CaseError."""
    networks = [k for k, term in enumerate(case.table.energy) if getattr(term, "teacher", None) is not None]
    for k, term in enumerate(case.table.energy):
        if isinstance(term, schema.PotentialTerm):
            raise CaseError(("energy", k), "with a potential the uniform density is not stationary, and there are no modes about it")
    if not networks:
        return None
    teacher = teacher_of(case, networks[0], domain)
    key = ("energy", networks[0], "teacher")
    if not isinstance(teacher, DensityFunction):
        what = "atoms" if teacher is not None else "data"
        words = f"modes are about a density; {what} as teacher leave none to linearise about"
        more = ' (single atoms relax by rates of their own: kind = "convergence_speed")' if teacher is not None else ""
        raise CaseError(key, f"{words}{more}; accepted: density")
    density = _sampled(teacher, domain)
    if len(case.table.energy) > 1 and float(np.ptp(density)) > _UNIFORM / domain.axes[0].length:
        raise CaseError(key, "a teacher's density that is not uniform is stationary only where the network is the only term")
    if not np.min(density) > 0.0:
        raise CaseError((*key, "density"), "vanishes somewhere, and there are no modes about it; accepted: a positive density")
    return teacher


def _sampled(function: DensityFunction, domain: Domain) -> FloatArray:
    """The density, of mass one, at the points iL/P."""
    lower, length = float(domain.lower[0]), domain.axes[0].length
    places = lower + np.mod(length * np.arange(_POINTS) / _POINTS - lower, length)
    values = function.values(places[:, None])
    return np.asarray(values / (np.mean(values) * length))


def _solvers(case: CaseFile, table: SpectrumTable) -> list[int]:
    """The indices of the solvers. Raises CaseError for others than the accepted ones."""
    reasons = {label: _unfit(case, number) for number, label in enumerate(case.labels)}
    fit = [label for label, reason in reasons.items() if not reason]
    for k, label in enumerate(table.solvers or []):
        if label not in reasons:
            raise CaseError(("study", "solvers", k), f"got {shown(label)}; accepted: {', '.join(fit)}{nearest(label, case.labels)}")
        if reasons[label]:
            raise CaseError(("study", "solvers", k), f"{label} {reasons[label]}; accepted: {', '.join(fit) or 'none in this case'}")
    chosen = table.solvers or fit
    if not chosen:
        raise CaseError(
            ("study",), "rates are measured by finite_volume, characteristics, or particles without chance; there are none here"
        )
    return [case.labels.index(label) for label in chosen]


def _unfit(case: CaseFile, number: int) -> str:
    """Why a solver cannot measure rates."""
    solver = case.table.solver[number]
    if isinstance(solver, schema.FiniteVolumeSolver | schema.CharacteristicsSolver):
        return ""
    if not isinstance(solver, schema.ParticleSolver):
        return f"is of kind {solver.kind}, whose rates hold the error of its own steps, or none at all"
    if solver.learning_rate is not None or solver.batch is not None:
        return "trains by steps of gradient descent, whose error is in its rates"
    internal = any(isinstance(term, schema.EntropyTerm | schema.PorousMediumTerm) for term in case.table.energy)
    return "follows an internal energy by noise or blobs, whose error is in its rates" if internal else ""


def _check_resolved(case: CaseFile, table: SpectrumTable, numbers: list[int], problem: Problem) -> None:
    """Raises CaseError where a grid, the atoms or the features are too few for the modes."""
    for number in numbers:
        solver: Any = case.table.solver[number]
        own = solver.count if isinstance(solver, schema.ParticleSolver) else solver.cells[0]
        count = own or (len(problem.initial.points) if isinstance(problem.initial, Particles) else 0)
        each = _PER_WAVE[solver.kind] * (max((_USUAL / table.tolerance) ** 0.25, 0.5) if solver.kind == "finite_volume" else 1.0)
        if count < (wanted := math.ceil(each * table.modes)):
            what = "atoms" if isinstance(solver, schema.ParticleSolver) else "cells"
            words = f"got {table.modes}, for which {case.labels[number]} needs at least {wanted} {what} and has {count}"
            raise CaseError(("study", "modes"), f"{words}; accepted: up to {int(count / each)}")
    resolved = resolved_modes(problem.energy)
    if resolved is not None and table.modes > resolved:
        raise CaseError(("study", "modes"), f"got {table.modes}, but the features of the network hold {resolved}; accepted: up to that")


def _coupling(symbol: FloatArray, length: float, waves: tuple[int, ...], most: int) -> Coupling | None:
    """The first null mode that two decaying ones create."""
    q = 2.0 * math.pi / length
    rates = [(q * k) ** 2 * float(symbol[k]) / length for k in range(most + 1)]
    for wave in waves:
        for i in range(1, wave // 2 + 1):
            j = wave - i
            if i not in waves and j not in waves and min(rates[i], rates[j]) > 1e-3 * max(rates):
                return Coupling((i, j), _MIXED / (rates[i] + rates[j]), second_order(symbol, length, (i, j)))
    return None


@dataclass(frozen=True, eq=False)
class _Parts:
    """What the runs of a study start from."""

    case: CaseFile
    table: SpectrumTable
    problem: Problem
    density: FloatArray
    modes: tuple[Mode, ...]
    waves: tuple[int, ...]
    coupling: Coupling | None
    uniform: bool

    def all(self, numbers: list[int], taught: bool) -> tuple[Part, ...]:
        """The runs of all solvers; the case's own one, of the first of them, where there is a teacher."""
        parts: list[Part] = []
        for number in numbers:
            parts += self._decaying(number) + self._resting(number) + self._mixing(number)
        if taught:
            label = self.case.labels[numbers[0]]
            parts.append(Part(PlannedRun(self.case, numbers[0], self.problem), label, "own"))
        return tuple(parts)

    def _decaying(self, number: int) -> list[Part]:
        """The runs for all modes that are not null; on grids as many again with half the cells."""
        found: list[Part] = []
        fastest = max((abs(mode.rate) for mode in self.modes), default=0.0)
        growth = max((-mode.rate for mode in self.modes), default=0.0)
        for place, mode in enumerate(self.modes):
            if not mode.null:
                end = min(_DECAY / abs(mode.rate), _LONGEST / fastest, _GROWTH / growth if growth > 0.0 else math.inf)
                found += self._mode(number, place, tuple(np.linspace(0.0, end, _SAVED).tolist()))
        return found

    def _mode(self, number: int, place: int, times: tuple[float, ...]) -> list[Part]:
        """The runs for one mode; about a teacher that is not uniform two of opposite amplitudes, whose difference has no second order."""
        mode, label, found = self.modes[place], self.case.labels[number], []
        wave = series_values(mode.shape, _POINTS)
        for coarse in (False, True) if self.case.table.solver[number].kind == "finite_volume" else (False,):
            for mirror in (False,) if self.uniform else (False, True):
                size = -self.table.amplitude if mirror else self.table.amplitude
                start = FourierDensity.of(self.density + size * wave, self.problem.domain)
                purpose: Purpose = ("coarse mirror" if mirror else "coarse") if coarse else ("mirror" if mirror else "mode")
                name = f"{label}-k{mode.number}{'' if purpose == 'mode' else '-' + purpose.replace(' ', '-')}"
                run = self._run(number, name, start, f"mode {mode.number} times {size!r}", times, coarse=coarse)
                found.append(Part(run, label, purpose, place, size))
        return found

    def _resting(self, number: int) -> list[Part]:
        """One run for each wave without loss, at a finite amplitude, up to the case's last time."""
        label, found, solver = self.case.labels[number], [], self.case.table.solver[number]
        last = self.problem.save_at[-1] or 1.0
        for wave in self.waves:
            size = self.table.rest_amplitude * float(np.min(self.density))
            start = FourierDensity.of(self.density + size * _cosine(wave), self.problem.domain)
            words = f"cos {wave} times {self.table.rest_amplitude!r}"
            if isinstance(solver, schema.FiniteVolumeSolver) and not self.uniform:
                # networks are sums over centres, so that these values and not the averages are at rest on the grid
                start, words = start.at_centres(solver.cells[0]), f"{words}, at the centres of cells"
            run = self._run(number, f"{label}-rest{wave}", start, words, (0.0, 0.5 * last, last), self.table.rest_tolerance)
            found.append(Part(run, label, "rest", wave, self.table.rest_amplitude))
        return found

    def _mixing(self, number: int) -> list[Part]:
        """Two runs from both modes that create a null one."""
        if self.coupling is None:
            return []
        label, found = self.case.labels[number], []
        waves = sorted(set(self.coupling.waves))
        times = (0.0, *(self.coupling.end * np.linspace(0.0, 1.0, 25)[1:] ** 2).tolist())
        for name, share in (("whole", 1.0), ("half", 0.5)):
            size = share * self.table.coupling_amplitude
            start = FourierDensity.of(self.density + size * float(np.mean(self.density)) * sum(map(_cosine, waves)), self.problem.domain)
            words = f"cos {' + cos '.join(map(str, waves))} times {size!r}"
            found.append(Part(self._run(number, f"{label}-mix-{name}", start, words, times), label, "coupling", amplitude=size))
        return found

    def _run(
        self,
        number: int,
        name: str,
        start: FourierDensity,
        words: str,
        times: tuple[float, ...],
        change: float | None = None,
        coarse: bool = False,
    ) -> PlannedRun:
        """A run of one solver from another density, with steps so exact that a ``change`` of this size is followed, by default that of
        the amplitude to the tolerance. Particles begin at its exact quantiles, so that the mode is as exact there."""
        solver: Any = self.case.table.solver[number]
        changes = _changes(solver, self.table.tolerance * self.table.amplitude if change is None else change)
        if coarse:
            changes["cells"] = [(solver.cells[0] + 1) // 2]
        initial: DensityFunction | Particles = start.function
        said = f"the stationary density + {words}"
        if isinstance(solver, schema.ParticleSolver):
            own = self.problem.initial
            count = solver.count or (len(own.points) if isinstance(own, Particles) else 1)
            initial, said = exact_quantiles(start, count), f"{said}, {count} exact quantiles"
        changed = varied(self.case, number, name, changes, {"count"} if isinstance(solver, schema.ParticleSolver) else (), ("study",))
        kept = {
            "initial": schema.Initial.model_construct(density=said),
            "time": schema.Time(save=list(times)),
            "solver": [changed.table.solver[number]],
            "compare": schema.Compare(),
            "study": None,
        }
        overrides = (*changed.overrides, f"study.start={said}", f"time.save={list(times)}")
        case = replace(changed, table=changed.table.model_copy(update=kept), overrides=overrides)
        return PlannedRun(case, 0, Problem(self.problem.energy, self.problem.domain, initial, times))


def _changes(solver: Any, change: float) -> dict[str, Any]:
    """A tolerance of the steps far below a change that must be seen, and no tables whose error would be seen too."""
    if solver.kind not in _LEAST or getattr(solver, "step", None) is not None:
        return {}
    wanted = max(_STEP_SHARE * change, _LEAST[solver.kind])
    found = {"tolerance": min(wanted, solver.tolerance or 1.0)}
    if isinstance(solver, schema.ParticleSolver) and solver.table_tolerance > wanted:
        found["table_tolerance"] = wanted
    return found


def _cosine(wave: int) -> FloatArray:
    return np.cos(2.0 * math.pi * wave * np.arange(_POINTS) / _POINTS)
