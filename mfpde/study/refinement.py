"""Refinement: runs on finer and finer grids (or with smaller and smaller steps), their errors, and the orders of these."""

import math
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.distance import Distance, wasserstein
from mfpde.domain import Domain
from mfpde.march import Leaping
from mfpde.measure import Density, Measure, Particles
from mfpde.problem import Problem
from mfpde.run import Run, StepFailed
from mfpde.study.orders import Order, fitted_order, pairwise_orders
from mfpde.study.references import ExactDensity, ExactFunction, OtherRun, Reference

if TYPE_CHECKING:
    from mfpde.solvers import Solver

Variable = Literal["h", "dt"]
NORMS = ("l1", "l2", "w2", "loss")
_ROUND_OFF = 1e-13
_EXACT = 1e-12
_SHORT = 1e-9
_LEAST_LOSS = 1e-3  # terms that cancel or vanish leave round-off of their parts behind
_ROUND_OFF_W2 = 1e-10  # of the diameter: masses that are off in the last bit move that much mass through the tails


@dataclass(frozen=True, eq=False)
class Level:
    """One run of a refinement: ``step`` and ``tolerance`` are nan where the solver has none."""

    label: str
    cells: tuple[int, ...]
    run: Run
    wall_seconds: float = math.nan
    step: float = math.nan
    tolerance: float = math.nan


@dataclass(frozen=True)
class Expectation:
    """Orders that the fits must show, by norm, and how far they may be from them."""

    orders: dict[str, float] = field(default_factory=dict)
    allowance: float = 0.15

    def misses(self, norm: str, order: float) -> bool:
        """Whether an order was expected in this norm and this is not it; nan is none."""
        return norm in self.orders and not abs(order - self.orders[norm]) <= self.allowance


@dataclass(frozen=True, eq=False)
class RefinementStudy:
    """Errors and orders of G runs, coarse to fine, in K norms at T times; every table is a plain array.

    ``width`` (G,) is what the errors are fitted against: the cell width h (``variable`` "h"), or the time step ("dt").
    ``error``, ``floor``, ``pairwise`` and ``used`` are (K, T, G): the errors (nan where there is none), what round-off, the method or
    the reference alone may have done to them, the order between a run and the one before it, and whether the error is above its floor
    and so in the fit. ``exact`` (K, T): no error of any run is more than round-off, so that there is no order to fit and any is met.
    ``fits`` [norm][time] are the orders. Where the finest run is the ``reference``, its own errors are nan and the
    fit is that of C (h^p − f^p), f being its width. ``masses`` (T,) are those of the reference. ``loss_terms`` are the energy terms
    in the loss.
    """

    reference: str
    variable: Variable
    labels: tuple[str, ...]
    cells: IntArray
    width: FloatArray
    step: FloatArray
    tolerance: FloatArray
    steps: IntArray
    wall_seconds: FloatArray
    statuses: tuple[str, ...]
    times: FloatArray
    norms: tuple[str, ...]
    error: FloatArray
    floor: FloatArray
    pairwise: FloatArray
    used: BoolArray
    exact: BoolArray
    fits: tuple[tuple[Order, ...], ...]
    masses: FloatArray
    loss_terms: tuple[str, ...]
    methods: tuple[str, ...] = ()

    @property
    def order(self) -> FloatArray:
        """The fitted orders, (K, T)."""
        return self._of_fits("value")

    @property
    def standard_error(self) -> FloatArray:
        """Their standard errors, (K, T)."""
        return self._of_fits("standard_error")

    @property
    def interval(self) -> FloatArray:
        """Their 95 % confidence intervals, (K, T, 2)."""
        return np.stack([self._of_fits("low"), self._of_fits("high")], axis=-1)

    def _of_fits(self, name: str) -> FloatArray:
        return np.array([[getattr(fit, name) for fit in row] for row in self.fits], dtype=float)


def refinement_study(
    problem: Problem,
    solver_factory: "Callable[..., Solver]",
    grids: Sequence[tuple[int, ...]] = (),
    *,
    steps: Sequence[float] = (),
    exact: ExactFunction | None = None,
    reference: Run | None = None,
    norms: Sequence[str] = NORMS,
    times: Sequence[float] | None = None,
) -> RefinementStudy:
    """Solve on every grid, or with every fixed time step, or with pairs of both, in memory, and measure errors and orders.

    ``solver_factory`` is called with the cells, with the step, or with both, whichever lists are given. ``exact`` maps points (M, d)
    and a time to the exact density (M,); without it ``reference``, a run of the same problem, is taken for the solution, and without
    that the finest run. ``norms`` are some of l1, l2, w2 and loss; ``times`` some of the saved ones, the last by default.
    Raises ValueError for grids or steps that do not refine one another, an unknown norm, a time that is not saved, and a reference that
    cannot be averaged onto the grids.
    """
    norms, wanted = tuple(norms), tuple(times) if times is not None else problem.save_at[-1:]
    check_choice("norms", norms, NORMS)
    check_choice("times", wanted, problem.save_at)
    pairs = _pairs(grids, steps)
    if pairs:
        warm_up(_made(solver_factory, *pairs[0]), problem)
    levels = [_solved(problem, _made(solver_factory, *pair), *pair) for pair in pairs]
    order = refining([level.cells for level in levels], steps or None)
    levels = [levels[k] for k in order]
    known: Reference | None = None
    if exact is not None:
        known = ExactDensity(exact, problem.energy, problem.domain.grid(levels[-1].cells))
    elif reference is not None:
        known = OtherRun(reference, "the reference run")
    return measure_refinement(problem.domain, levels, known, norms, wanted)


def warm_up(solver: "Solver", problem: Problem) -> None:
    """One step that is thrown away: what is compiled or loaded at the first step must not count as the time of the coarsest run."""
    try:
        flow, end = solver.prepare(problem), max(problem.save_at[-1], 1e-300)
        flow.advance(flow.start(), end)
        if isinstance(flow, Leaping):
            flow.leap(flow.start(), _SHORT * end)
    except (ValueError, StepFailed):
        return  # the run itself will say so


def measure_refinement(
    domain: Domain,
    levels: Sequence[Level],
    reference: Reference | None,
    norms: tuple[str, ...],
    times: tuple[float, ...],
) -> RefinementStudy:
    """Errors and orders of runs that are ordered coarse to fine; ``reference`` None takes the finest for the solution."""
    finest, variable = reference is None, study_variable([level.cells for level in levels])
    known = reference or OtherRun(levels[-1].run, f"the finest run ({levels[-1].label})", averaged=True)
    width = np.array([level.step for level in levels]) if variable == "dt" else cell_widths(domain, [level.cells for level in levels])
    shape = (len(norms), len(times), len(levels))
    error, floor, methods = np.full(shape, np.nan), np.full(shape, np.nan), set()
    round_off = np.full(shape, np.nan)
    compared = [level for level in levels if not (finest and level is levels[-1])]
    terms = _common_terms(compared, known, times)
    for t, at in enumerate(times):
        for g, level in enumerate(compared):
            if known.has(at) and bool(np.any(level.run.times == at)):
                found = _errors(level.run, at, known, norms, domain, terms)
                methods |= {found.method}
                error[:, t, g], floor[:, t, g], round_off[:, t, g] = found.error, found.floor, found.round_off
    used = np.isfinite(error) & (error > np.where(np.isfinite(floor), floor, 0.0))
    own = float(width[-1]) if finest else 0.0
    kept = np.where(used, error, np.nan)
    return RefinementStudy(
        reference=known.name,
        variable=variable,
        labels=tuple(level.label for level in levels),
        cells=np.array([level.cells for level in levels], dtype=np.int64),
        width=width,
        step=np.array([level.step for level in levels]),
        tolerance=np.array([level.tolerance for level in levels]),
        steps=np.array([max(len(level.run.certificate) - 1, 0) for level in levels], dtype=np.int64),
        wall_seconds=np.array([level.wall_seconds for level in levels]),
        statuses=tuple(level.run.status.name for level in levels),
        times=np.array(times),
        norms=norms,
        error=error,
        floor=floor,
        pairwise=np.array([[pairwise_orders(width, e, own) for e in row] for row in kept]),
        used=used,
        exact=np.isfinite(error).any(axis=2) & ((error <= round_off) | np.isnan(error)).all(axis=2),
        fits=tuple(tuple(_fit(width, e, own) for e in row) for row in kept),
        masses=np.array([known.mass(at) if known.has(at) else math.nan for at in times]),
        loss_terms=terms,
        methods=tuple(sorted(methods - {""})),
    )


def refitted(study: RefinementStudy, used: BoolArray) -> RefinementStudy:
    """The study with other errors, (K, T, G), in its fits."""
    own = study.fits[0][0].reference
    kept = np.where(used, study.error, np.nan)
    pairs = np.array([[pairwise_orders(study.width, e, own) for e in row] for row in kept])
    return replace(study, used=used, pairwise=pairs, fits=tuple(tuple(_fit(study.width, e, own) for e in row) for row in kept))


def refining(cells: Sequence[tuple[int, ...]], steps: Sequence[float] | None = None) -> list[int]:
    """The order from coarse to fine, as indices. Raises ValueError for fewer than two, equal ones, or ones of which none is finer.

    Along every axis a finer grid has at least as many cells, and its step, if there are steps, is not larger. The cells may all be
    the same, and then the steps must differ.
    """
    widths = [0.0] * len(cells) if steps is None else list(steps)
    order = sorted(range(len(cells)), key=lambda k: (math.prod(cells[k]), -widths[k]))
    if len(order) < 2:
        raise ValueError(f"needs at least two to compare, got {len(order)}")
    for before, after in pairwise(order):
        if cells[before] == cells[after] and (widths[before] == widths[after] or study_variable(cells) == "h"):
            raise ValueError(f"the grid {list(cells[after])}{f' with the step {widths[after]:g}' * (steps is not None)} is given twice")
        if any(b < a for a, b in zip(cells[before], cells[after], strict=True)):
            raise ValueError(f"neither of {list(cells[before])} and {list(cells[after])} refines the other along every axis")
        if widths[after] > widths[before]:
            raise ValueError(f"the step must not grow from {list(cells[before])} to {list(cells[after])} cells")
    return order


def study_variable(cells: Sequence[tuple[int, ...]]) -> Variable:
    """What the errors are fitted against: the cell width, unless the cells are all the same."""
    return "h" if len(set(cells)) > 1 else "dt"


def cell_widths(domain: Domain, cells: Sequence[tuple[int, ...]]) -> FloatArray:
    """One width for each grid, (G,): the geometric mean of the cell widths along the axes whose number of cells varies; on a disk
    those are the radius and the angle."""
    spacing = np.array([domain.grid(counts).spacing for counts in cells])
    varying = np.ptp(np.array(cells), axis=0) > 0
    return np.asarray(np.prod(spacing[:, varying], axis=1) ** (1.0 / max(np.sum(varying), 1)))


def check_choice(what: str, chosen: Sequence[object], known: Sequence[object]) -> None:
    """Raises ValueError unless ``chosen`` are some of ``known``, each once, and at least one."""
    wrong = [item for item in chosen if item not in known]
    if wrong or not chosen or len(set(chosen)) < len(chosen):
        got = f"got {wrong[0]!r}" if wrong else "got none" if not chosen else "got one of them twice"
        raise ValueError(f"the {what} must be some of {', '.join(str(item) for item in known)}; {got}")


def _pairs(grids: Sequence[tuple[int, ...]], steps: Sequence[float]) -> list[tuple[tuple[int, ...] | None, float | None]]:
    if grids and steps and len(grids) != len(steps):
        raise ValueError(f"grids and steps go in pairs, got {len(grids)} and {len(steps)}")
    count = max(len(grids), len(steps))
    return [(tuple(grids[k]) if grids else None, steps[k] if steps else None) for k in range(count)]


def _made(factory: "Callable[..., Solver]", cells: tuple[int, ...] | None, step: float | None) -> "Solver":
    return factory(*(choice for choice in (cells, step) if choice is not None))


def _solved(problem: Problem, solver: "Solver", cells: tuple[int, ...] | None, step: float | None) -> Level:
    began = clock.perf_counter()
    run = solver.solve(problem)
    seconds = clock.perf_counter() - began
    final = run.measures[-1] if run.measures else None
    if cells is None and not isinstance(final, Density):
        raise ValueError("a refinement of the time step needs a solver whose runs are densities on a grid")
    shape = cells if cells is not None else final.grid.cells if isinstance(final, Density) else ()
    label = f"{list(shape)}" if step is None else f"{list(shape)}, step {step:g}"
    tolerance = getattr(solver, "tolerance", None)
    return Level(label, shape, run, seconds, math.nan if step is None else step, math.nan if tolerance is None else tolerance)


def _fit(width: FloatArray, error: FloatArray, own: float) -> Order:
    """The fit to the errors that are not nan."""
    kept = np.isfinite(error)
    if np.sum(kept) < 2 or not np.ptp(width[kept]) > 0.0:
        return Order(math.nan, math.nan, math.nan, math.nan, int(np.sum(kept)), math.nan, own)
    return fitted_order(width[kept], error[kept], own)


# Errors.


@dataclass(frozen=True, eq=False)
class _Errors:
    """Errors, their floors and what counts as round-off in each norm, (K,), and how distances were computed."""

    error: list[float]
    floor: list[float]
    round_off: list[float]
    method: str


def _errors(run: Run, time: float, reference: Reference, norms: tuple[str, ...], domain: Domain, terms: tuple[str, ...]) -> _Errors:
    place = int(np.flatnonzero(run.times == time)[0])
    measure = run.measures[place]
    found: dict[str, tuple[float, float, float]] = {}
    method = ""
    if {"l1", "l2"} & set(norms):
        if not isinstance(measure, Density):
            raise ValueError("a refinement needs a solver whose runs are densities on a grid, not particles")
        found |= _density_errors(measure, reference.on(time, measure.grid), domain)
    if "w2" in norms:
        distance = _distance(measure, reference, time, domain)
        least = _ROUND_OFF_W2 * _diameter(domain)
        found["w2"], method = (distance.value, max(distance.floor, least), least), distance.method
    if "loss" in norms:
        found["loss"] = _loss_gap({name: float(run.energy[name][place]) for name in terms}, reference.energies(time), terms)
    errors, floors, least_ones = ([found[norm][k] for norm in norms] for k in range(3))
    return _Errors(errors, floors, least_ones, method)


def _distance(measure: Measure, reference: Reference, time: float, domain: Domain) -> Distance:
    """W₂ by one method for all runs. Between atoms that the same scheme moved in several dimensions it is √(Σ w |x_i − y_i|²), which is
    what W₂ is once they are closer than their neighbours, and never less."""
    if isinstance(measure, Density):
        ours = Density(measure.grid, measure.values / measure.mass)
        return wasserstein(ours, reference.beside(time, measure.grid), domain, method="exact")
    other = reference.beside(time, None)
    same = isinstance(reference, OtherRun) and reference.averaged and len(domain.moving) > 1
    if same and isinstance(other, Particles) and np.array_equal(measure.weights, other.weights):
        squares = np.sum(domain.displacement(other.points, measure.points) ** 2, axis=1)
        return Distance(math.sqrt(float(measure.weights @ squares) / measure.mass), 0.0, "exact, atom by atom")
    return wasserstein(measure, other, domain, method="exact")


def _density_errors(density: Density, exact: FloatArray, domain: Domain) -> dict[str, tuple[float, float, float]]:
    """L¹ and L² over the cells; a mass that differs bounds both from below, and so is a floor of what can be told."""
    weight = density.grid.weight
    gap = np.abs(np.ravel(density.values) - exact)
    defect = abs(float(np.sum(exact * weight)) - density.mass)
    one = float(np.sum(weight * gap)), _ROUND_OFF * density.mass + defect, _EXACT * density.mass
    size = math.sqrt(float(np.sum(weight * exact**2)))
    two = math.sqrt(float(np.sum(weight * gap**2))), _ROUND_OFF * size + defect / math.sqrt(domain.volume), _EXACT * size
    return {"l1": one, "l2": two}


def _loss_gap(mine: dict[str, float], theirs: dict[str, tuple[float, float]], terms: tuple[str, ...]) -> tuple[float, float, float]:
    """|E − E_ref| over the common terms; the floor is round-off in the terms and what the reference's energy may be wrong by."""
    if not terms:
        return math.nan, math.nan, math.nan
    gap = abs(sum(mine[name] - theirs[name][0] for name in terms))
    size = max(sum(abs(theirs[name][0]) for name in terms), _LEAST_LOSS)
    return gap, _ROUND_OFF * size + sum(theirs[name][1] for name in terms), _EXACT * size


def _common_terms(levels: Sequence[Level], reference: Reference, times: tuple[float, ...]) -> tuple[str, ...]:
    """The energy terms that are finite in every run and in the reference."""
    known = [reference.energies(at) for at in times if reference.has(at)]
    levels = [level for level in levels if len(level.run.times)]
    names = [name for level in levels[:1] for name in level.run.energy]
    return tuple(
        name
        for name in names
        if all(name in at and math.isfinite(at[name][0]) for at in known)
        and all(name in level.run.energy and np.isfinite(level.run.energy[name]).all() for level in levels)
    )


def _diameter(domain: Domain) -> float:
    return float(np.linalg.norm([axis.length for axis in domain.axes]))
