"""Orders of minimising movements in their time step: against the finest step of the same method and grid, and against the solution.

What the errors against a reference keep when the step goes to zero belongs to the grid, the number of mass cells or atoms, or the
reference; it is estimated, and errors that it is a part of are left out of fits against the reference.
"""

import math
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Domain
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.study.references import ExactDensity, ExactFunction, OtherRun, Reference
from mfpde.study.refinement import NORMS, Expectation, Level, RefinementStudy, check_choice, measure_refinement, refitted

if TYPE_CHECKING:
    from mfpde.solvers import MinimizingMovement

_FINEST = {1: (1024,), 2: (128, 128), 3: (32, 32, 32)}

ALLOWANCES = {1: 0.1, 2: 0.2}
"""How far a fitted order may be from that of the steps."""
_ABOVE = 10.0
"""An error against the reference is of the time step where it is so many times its floor."""
_STALLED = 0.5
"""Errors have stopped falling where they fall with less than this part of the order of the steps."""


@dataclass(frozen=True, eq=False)
class Family:
    """One solver with steps of one ``order`` and G lengths, coarse to fine.

    ``own``: errors against the finest step, in K norms at T times. ``other``: against the reference, in some of these norms; None
    without one. ``floor``: what is left of these at τ → 0, by norm (T,), nan where it is not known. ``stalled`` (K, T, G): own errors
    that do not fall any more, which are in no fit.
    """

    solver: str
    order: int
    own: RefinementStudy
    other: RefinementStudy | None
    expected: Expectation
    floor: dict[str, FloatArray] = field(default_factory=dict)
    stalled: BoolArray = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))

    @property
    def name(self) -> str:
        """The solver with the order of its steps."""
        return f"{self.solver}, order {self.order}"

    def against(self, norm: str) -> int | None:
        """The index of a norm among those of ``other``, None where it is not among them."""
        return self.other.norms.index(norm) if self.other is not None and norm in self.other.norms else None


@dataclass(frozen=True, eq=False)
class TimeStepStudy:
    """All families at the same ``times``; ``reference`` in words, empty without one."""

    families: tuple[Family, ...]
    times: tuple[float, ...]
    reference: str


def time_step_study(
    problem: Problem,
    solver: "MinimizingMovement",
    steps: Sequence[float],
    *,
    exact: ExactFunction | None = None,
    reference: Run | None = None,
    norms: tuple[str, ...] | None = None,
    times: Sequence[float] | None = None,
) -> Family:
    """Solve with every ``tau`` in ``steps``, in memory, and measure errors and orders.

    Errors are those against the finest step and, if there is one, against the ``exact`` density, which maps points (M, d) and a time to
    values (M,), or a ``reference`` run. ``norms`` are some of l1, l2, w2, loss (default: w2, loss and, for densities, l1); ``times`` some
    of the saved ones, the last by default. Raises ValueError for fewer than two steps, an unknown norm, a time that is not saved, and
    norms of a density where there is none.
    """
    norms = norms or (("l1", "w2", "loss") if solver.cells else ("w2", "loss"))
    wanted = tuple(times) if times is not None else problem.save_at[-1:]
    check_choice("norms", norms, NORMS)
    check_choice("times", wanted, problem.save_at)
    if len(set(steps)) < max(len(steps), 2):
        raise ValueError(f"a study needs two or more different steps, got {list(steps)}")
    levels = [_solved(problem, replace(solver, tau=tau, tolerance=None)) for tau in sorted(steps, reverse=True)]
    known: Reference | None = OtherRun(reference, "the reference run") if reference is not None else None
    if exact is not None:
        known = ExactDensity(exact, problem.energy, problem.domain.grid(solver.cells or finest_cells(problem.domain)))
    return measure_family(problem.domain, "jko", solver.order, levels, known, norms, norms if known else (), wanted)


def finest_cells(domain: Domain) -> tuple[int, ...]:
    """The grid on which an exact density stands for itself beside atoms."""
    return _FINEST.get(domain.dimension, (16,) * domain.dimension)


def _solved(problem: Problem, solver: "MinimizingMovement") -> Level:
    began = clock.perf_counter()
    run = solver.solve(problem)
    return Level(f"tau{solver.tau!r}", solver.cells or (), run, clock.perf_counter() - began, solver.tau)


def measure_family(
    domain: Domain,
    solver: str,
    order: int,
    levels: Sequence[Level],
    reference: Reference | None,
    norms: tuple[str, ...],
    against: tuple[str, ...],
    times: tuple[float, ...],
    expected: Expectation | None = None,
) -> Family:
    """Errors of runs whose ``step`` falls: against the last one in ``norms``, and in the norms ``against`` the ``reference``.

    Without ``expected`` the order of the steps is expected in every norm.
    """
    expected = expected or Expectation(dict.fromkeys(norms, float(order)), ALLOWANCES[order])
    own = measure_refinement(domain, levels, None, norms, times)
    stalled = _stalled(own, order)
    own = replace(refitted(own, own.used & ~stalled), exact=np.zeros_like(own.exact))  # runs that are all alike show no order
    if reference is None or not against:
        return Family(solver, order, own, None, expected, {}, stalled)
    other = measure_refinement(domain, levels, reference, against, times)
    floor = {norm: np.array([_floor(own, other, norm, t) for t in range(len(times))]) for norm in against}
    least = _ABOVE * np.stack([np.nan_to_num(floor[norm], nan=0.0) for norm in against])
    return Family(solver, order, own, refitted(other, other.used & (other.error > least[:, :, None])), expected, floor, stalled)


def _stalled(study: RefinementStudy, order: int) -> BoolArray:
    """Errors at the fine end between which there is hardly a fall, where there was one before, (K, T, G)."""
    found, f = np.zeros(study.error.shape, dtype=bool), float(study.width[-1])
    law = study.width[:-1] ** order - f**order
    for place in np.ndindex(*study.error.shape[:2]):
        kept = np.flatnonzero(study.used[place][:-1])
        falls = np.diff(np.log(study.error[place][kept])) <= _STALLED * np.diff(np.log(law[kept]))
        if falls.any():
            found[place][kept[int(np.flatnonzero(falls)[-1]) + 2 :]] = True
    return found


def _floor(own: RefinementStudy, other: RefinementStudy, norm: str, t: int) -> float:
    """What is left of the error against the reference when the step goes to zero.

    The error of the time step is C τ^p, from the fit to the runs alone. Beside a rest F the error against the reference is C τ^p + F,
    |C τ^p − F| or √(C² τ^2p + F²): F is that of the sum which explains the errors best, being exact at the finest step.
    """
    k, m = own.norms.index(norm), other.norms.index(norm)
    fit, error = own.fits[k][t], other.error[m, t]
    seen = np.isfinite(error)
    if not (math.isfinite(fit.value) and seen[-1]):
        return math.nan
    mine, last = fit.constant * own.width**fit.value, float(error[-1])
    rests = (last - mine[-1], -(last + mine[-1]))
    guesses = [(abs(rest), np.abs(mine + rest)) for rest in rests]
    if last > mine[-1]:
        square = last**2 - float(mine[-1]) ** 2
        guesses.append((math.sqrt(square), np.sqrt(mine**2 + square)))
    misfits = [float(np.sum(np.abs(guess[seen] - error[seen]) / (error[seen] + guess[seen] + 1e-300))) for _, guess in guesses]
    return float(guesses[int(np.argmin(misfits))][0])
