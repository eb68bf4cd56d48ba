"""From validated tables to objects: the only place where strings become mathematics."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import FloatArray, physical_memory
from mfpde.case import schema
from mfpde.case.difference import NORM, DifferenceExpression
from mfpde.case.errors import CaseError, Key, check_steps, shown
from mfpde.case.expression import Expression, ExpressionError, parse
from mfpde.case.load import CaseFile, InputError
from mfpde.case.table import TableError, read_columns, standardized
from mfpde.disk import Disk
from mfpde.distance import check_method
from mfpde.domain import Axis, Domain
from mfpde.energy import (
    Circle,
    EnergySum,
    Entropy,
    Incompressible,
    InputLaw,
    Interaction,
    Neurons,
    Normal,
    PairKernel,
    PairNetwork,
    Potential,
    Power,
    Samples,
    TwoLayer,
    Uniform,
    WideResNet,
    closed_two_layer,
    ensemble_resnet,
    two_layer,
    wide_resnet,
)
from mfpde.energy.base import Energy
from mfpde.energy.constraints import constraint
from mfpde.energy.potential import path_norm, weight_decay
from mfpde.measure import DensityFunction, Particles, ProductDensity
from mfpde.problem import Problem

if TYPE_CHECKING:
    from mfpde.solvers import MinimizingMovement, Solver

_RESERVED = ("time", "density", "position", "weight", "energy", "mass", "minimum", "steps", "step", "particle", "coordinate", "branches")
_RESERVED_ON_DISKS = ("radius", "angle", "cell_area")
_CHECK_CELLS = {1: 512, 2: 64, 3: 24}
_MOST_CELLS = 20_000_000
BYTES_OF_AN_ATOM = 8 * 40
"""What an adaptive step holds of each coordinate of an atom."""
_LAWS: dict[str, Callable[[float], InputLaw]] = {"normal": Normal, "uniform": Uniform, "circle": Circle}


def build_problem(case: CaseFile) -> Problem:
    """The continuum problem of a case, with every solver's choices checked against it. Raises InputError with one message."""
    try:
        domain = _domain(case.table)
        initial = _initial(case.table.initial, domain)
        _check_solvers(case.table, domain)
        _check_distance(case.table.compare, domain)
        energy = EnergySum(_terms(case, domain))
        _check_constraints(case.table, energy)
        _check_kernels(case.table, energy, domain)
        _check_levels(case.table, energy)
        _check_batches(case.table, energy)
        problem = Problem(energy, domain, initial, _times(case.table.time))
        check_movements(case, problem)
        _check_lengths(case.table, problem)
        return problem
    except CaseError as error:
        raise InputError(error.located(str(case.path), case.text)) from error


def build_solver(case: CaseFile, number: int) -> "Solver":
    """The solver with this index in the case."""
    table = case.table.solver[number]
    if isinstance(table, schema.MovementSolver):
        return _movement(table)
    from mfpde.solvers import Characteristics, ParticleFlow, Stationary

    if isinstance(table, schema.FiniteVolumeSolver):
        return _finite_volume(case.table, table)
    if isinstance(table, schema.StationarySolver):
        return Stationary(tuple(table.cells), table.starts, table.seed, table.tolerance, table.select)
    if isinstance(table, schema.CharacteristicsSolver):
        return Characteristics(tuple(table.cells), table.order, table.tolerance, table.resolution)
    return ParticleFlow(**table.model_dump(exclude={"kind", "label"}))


def _movement(table: schema.MovementSolver) -> "MinimizingMovement":
    from mfpde.solvers import MinimizingMovement

    cells = None if table.cells is None else tuple(table.cells)
    return MinimizingMovement(
        table.tau, table.method, cells, table.count, table.order, table.tolerance, table.accuracy, table.epsilon, table.debiased
    )


def _finite_volume(case: schema.CaseTable, table: schema.FiniteVolumeSolver) -> "Solver":
    from mfpde.solvers import finite_volume as fv

    temperature = sum(term.temperature for term in case.energy if isinstance(term, schema.EntropyTerm))
    pressure = fv.PressureUpwind.of([term.exponent for term in case.energy if isinstance(term, schema.PorousMediumTerm)])
    fluxes: dict[str, fv.Flux | None] = {"auto": None, "upwind": fv.Upwind(), "limited": fv.LimitedUpwind(), "pressure": pressure}
    fluxes["scharfetter_gummel"] = fv.ScharfetterGummel(temperature)
    steppers = {"auto": None, "explicit": fv.Explicit(), "implicit": fv.Implicit(), "implicit_euler": fv.ImplicitEuler()}
    return fv.FiniteVolume(tuple(table.cells), table.tolerance, fluxes[table.flux], steppers[table.stepper], table.step)


def problem_digest(case: CaseFile) -> str:
    """What runs must share to be runs of one problem: domain, energy with its data, and initial measure."""
    kept = case.table.model_dump(include={"energy", "initial"}) | {"domain": _domain_of(case), "data": _data_of(case)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _domain_of(case: CaseFile) -> dict[str, Any]:
    return {name: shape.model_dump(exclude={"walls"}) for name, shape in case.table.domain.items()}


def _data_of(case: CaseFile) -> list[str]:
    return [_digest(case.path.parent / term.inputs.file) for term in _sampled(case.table)]


def fingerprint(case: CaseFile, number: int) -> str:
    """What a resumed run must share: domain, energy with its data, initial measure, times and the solver.

    What walls mean is no part of it, as it changes nothing but a warning.
    """
    table = case.table
    kept: dict[str, Any] = table.model_dump(include={"energy", "initial", "time"})
    kept["domain"] = _domain_of(case)
    kept["solver"] = table.solver[number].model_dump(exclude={"label"})
    kept["axes"] = list(table.domain)
    kept["data"] = _data_of(case)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def solver_error(case: CaseFile, number: int, error: ValueError) -> InputError:
    """A solver's refusal of the problem as wrong input."""
    return InputError(CaseError(("solver", number), str(error)).located(str(case.path), case.text))


def _sampled(table: schema.CaseTable) -> list[Any]:
    return [t for t in table.energy if isinstance(t, schema.NetworkTerm) and isinstance(t.inputs, schema.SampleInputs)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _domain(table: schema.CaseTable) -> Domain:
    first, shape = next(iter(table.domain.items()))
    if isinstance(shape, schema.DiskTable):
        return _disk(shape, ("domain", first))
    _check_names({name: ("domain", name) for name in table.domain}, _RESERVED)
    intervals = ((name, a) for name, a in table.domain.items() if isinstance(a, schema.AxisTable))
    axes = (Axis(name, float(a.lower), float(a.upper), a.periodic, a.frozen, a.walls == "model") for name, a in intervals)
    try:
        return Domain(tuple(axes))
    except ValueError as error:
        raise CaseError(("domain",), str(error)) from error


def _disk(table: schema.DiskTable, key: Key) -> Disk:
    _check_names(dict.fromkeys(table.axes, (*key, "axes")), (*_RESERVED, *_RESERVED_ON_DISKS))
    try:
        center = float(table.center[0]), float(table.center[1])
        return Disk((table.axes[0], table.axes[1]), float(table.radius), center, table.walls == "model")
    except ValueError as error:
        raise CaseError(key, str(error)) from error


def _check_names(keys: dict[str, Key], reserved: tuple[str, ...]) -> None:
    """Raises CaseError unless each name, with the key where it stands, can be used in expressions and results."""
    for name, key in keys.items():
        if not name.isidentifier() or name in reserved or name.startswith(("energy_", "imbalance_")) or name.endswith("_edges"):
            raise CaseError(key, f"an axis name is a word that is none of {', '.join(reserved)}, energy_…, imbalance_… and …_edges")
        _parsed("0", list(keys), key)


def _parsed(text: str, names: list[str], key: Key) -> Expression:
    try:
        return parse(text, names)
    except ExpressionError as error:
        raise CaseError(key, f"{shown(text)}: {error}") from error


def _density(text: str, domain: Domain, key: Key) -> DensityFunction:
    """A density that was tried on a coarse grid."""
    density = DensityFunction(_parsed(text, list(domain.names), key), domain)
    cells = _CHECK_CELLS.get(domain.dimension)
    if cells is None:
        raise CaseError(key, f"a density needs a domain of at most 3 axes, got {domain.dimension}; give atoms instead")
    try:
        density.on(domain.even_grid(cells))
    except ValueError as error:
        raise CaseError(key, f"{shown(text)}: {error}") from error
    return density


def _initial(table: schema.Initial, domain: Domain) -> DensityFunction | Particles:
    if table.atoms is not None:
        return _initial_atoms(table, table.atoms, domain)
    if table.density is not None:
        key: Key = ("initial", "density")
        density = _density(table.density, domain, key)
    else:
        key = ("initial", "factors" if table.factors else "law")
        density = _product(table, domain, key)
    try:
        density.quantiles(1)
    except ValueError as error:
        raise CaseError(key, f"{shown(table.density)}: {error}" if table.density else str(error)) from error
    return density


def _initial_atoms(table: schema.Initial, atoms: list[list[float]], domain: Domain) -> Particles:
    points = _points(atoms, domain, ("initial", "atoms"), "atom")
    outside = ~domain.contains(points)
    if outside.any():
        where = points[int(np.argmax(outside))].tolist()
        raise CaseError(("initial", "atoms"), f"the atom {where} is outside the domain")
    weights = np.array(table.weights or [1.0] * len(points), dtype=float)
    return Particles(points, weights / np.sum(weights))


def _product(table: schema.Initial, domain: Domain, key: Key) -> ProductDensity:
    """A density with independent coordinates, from its factors or a law."""
    if isinstance(domain, Disk):
        raise CaseError(key, "independent coordinates need a box; on a disk give a density")
    if table.factors is None:
        return _law(table, domain, key)
    for name in table.factors:
        if name not in domain.names:
            raise CaseError((*key, name), f"is no axis; accepted: {', '.join(domain.names)}")
    factors = []
    for axis in domain.axes:
        text = table.factors.get(axis.name, "1")
        factors.append(_density(text, Domain((axis,)), (*key, axis.name)))
    return ProductDensity.of(domain, factors)


def _law(table: schema.Initial, domain: Domain, key: Key) -> ProductDensity:
    middle = 0.5 * (domain.lower + domain.upper)
    centre = np.zeros(domain.dimension) if table.law == "normal" else middle
    if table.center is not None:
        if len(table.center) != domain.dimension:
            raise CaseError((*key[:-1], "center"), f"needs one number for each of the {domain.dimension} axes, got {shown(table.center)}")
        centre = np.array(table.center, dtype=float)
    if not domain.contains(centre[None])[0]:
        raise CaseError((*key[:-1], "center"), f"the law's centre {centre.tolist()} is outside the domain")
    bell, width = table.law == "normal", table.scale
    places = zip(centre.tolist(), domain.axes, strict=True)
    functions = [_Step(c, math.inf) if a.frozen else _Bell(c, width or 1.0) if bell else _Step(c, width or math.inf) for c, a in places]
    return ProductDensity.of(domain, [DensityFunction(f, Domain((a,))) for f, a in zip(functions, domain.axes, strict=True)])


@dataclass(frozen=True)
class _Bell:
    """exp(−(x − centre)²/(2 scale²))."""

    centre: float
    scale: float

    def __call__(self, points: FloatArray) -> FloatArray:
        return np.exp(-0.5 * ((points[:, 0] - self.centre) / self.scale) ** 2)


@dataclass(frozen=True)
class _Step:
    """1 up to ``scale`` from the centre."""

    centre: float
    scale: float

    def __call__(self, points: FloatArray) -> FloatArray:
        return (np.abs(points[:, 0] - self.centre) <= self.scale).astype(float)


def _points(rows: list[list[float]], domain: Domain, key: Key, what: str) -> FloatArray:
    for row in rows:
        if len(row) != domain.dimension:
            axes = ", ".join(domain.names)
            raise CaseError(key, f"each {what} needs {domain.dimension} coordinates ({axes}), got {shown(row)}")
    return np.array(rows, dtype=float)


def _times(table: schema.Time) -> tuple[float, ...]:
    if table.save is not None:
        return tuple(float(t) for t in table.save)
    assert table.end is not None
    assert table.count is not None
    return tuple(np.linspace(0.0, table.end, table.count).tolist())


def _check_solvers(table: schema.CaseTable, domain: Domain) -> None:
    noisy = any(isinstance(term, schema.EntropyTerm) for term in table.energy)
    for number, solver in enumerate(table.solver):
        if isinstance(solver, schema.FiniteVolumeSolver):
            check_cells(solver.cells, domain, ("solver", number, "cells"))
        elif isinstance(solver, schema.StationarySolver):
            check_cells(solver.cells, domain, ("solver", number, "cells"))
            _check_stationary(table, ("solver", number))
        elif isinstance(solver, schema.CharacteristicsSolver):
            check_cells(solver.cells, domain, ("solver", number, "cells"))
            _check_characteristics(table, domain, ("solver", number))
        elif isinstance(solver, schema.MovementSolver):
            _check_movement(solver, table, domain, ("solver", number))
        else:
            studied = isinstance(table.study, schema.ParticleLimitTable)
            _check_particles(solver, table.initial, domain, noisy, studied, ("solver", number))
            _check_choices(solver, table, ("solver", number))


def _check_distance(table: schema.Compare, domain: Domain) -> None:
    """Raises CaseError where the distance of the comparison cannot be measured on the domain."""
    try:
        check_method(domain, table.distance)
    except ValueError as error:
        raise CaseError(("compare", "distance"), str(error)) from error


def _check_stationary(table: schema.CaseTable, key: Key) -> None:
    if not any(isinstance(term, schema.EntropyTerm | schema.PorousMediumTerm) for term in table.energy):
        raise CaseError(
            key,
            "stationary states need an entropy or porous_medium term; without one they are measures that no grid holds: "
            "use finite_volume or particles up to long times",
        )
    if _times(table.time)[-1] <= 0.0:
        raise CaseError(("time",), "a stationary state stands at the last saved time, which must be positive")


def _check_characteristics(table: schema.CaseTable, domain: Domain, key: Key) -> None:
    if isinstance(domain, Disk):
        raise CaseError(key, "characteristics are for boxes, not disks; give the square around it, or use finite_volume or particles")
    if not domain.moving:
        raise CaseError(key, "characteristics need an axis along which mass moves, but all axes are frozen")
    if any(isinstance(term, schema.EntropyTerm | schema.PorousMediumTerm) for term in table.energy):
        raise CaseError(
            key, "characteristics cannot follow entropy or porous_medium terms, which have no velocity field; use finite_volume"
        )
    if table.initial.atoms is not None:
        raise CaseError(key, "characteristics carry a density, but the initial measure is atoms; use particles")


def _check_movement(solver: schema.MovementSolver, table: schema.CaseTable, domain: Domain, key: Key) -> None:
    """Raises CaseError where the domain or the initial atoms do not allow minimising movements, or not these."""
    if isinstance(domain, Disk):
        raise CaseError(key, "minimising movements are for boxes, not disks; use finite_volume or particles")
    if not domain.moving:
        raise CaseError(key, "minimising movements need an axis along which mass moves, but all axes are frozen")
    if solver.cells is not None:
        check_cells(solver.cells, domain, (*key, "cells"))
    elif table.initial.atoms is not None and solver.count not in (None, len(table.initial.atoms)):
        raise CaseError((*key, "count"), f"got {solver.count}; leave it out: the {len(table.initial.atoms)} initial atoms are moved")


def check_movements(case: CaseFile, problem: Problem) -> None:
    """Raises CaseError where no method of minimising movements, or not the one that was chosen, solves the problem."""
    for number, table in enumerate(case.table.solver):
        if not isinstance(table, schema.MovementSolver):
            continue
        try:
            _movement(table).check(problem)
        except ValueError as error:
            named = next((name for name in ("tolerance", "epsilon") if str(error).startswith(f"{name} ")), None)
            last = named or (None if table.method == "auto" else "method")
            key: Key = ("solver", number, last) if last else ("solver", number)
            raise CaseError(key, str(error)) from error


def _check_lengths(table: schema.CaseTable, problem: Problem) -> None:
    """Raises CaseError where fixed steps are so short that a run would not end."""
    last = problem.save_at[-1]
    for number, solver in enumerate(table.solver):
        if isinstance(solver, schema.MovementSolver):
            check_steps(last, solver.tau, ("solver", number, "tau"))
        elif isinstance(solver, schema.ParticleSolver | schema.FiniteVolumeSolver) and solver.step is not None:
            check_steps(last, solver.step, ("solver", number, "step"))
        if isinstance(solver, schema.ParticleSolver) and solver.learning_rate is not None:
            atoms = solver.count or len(table.initial.atoms or [0])
            check_steps(last, solver.learning_rate / atoms, ("solver", number, "learning_rate"))


def _check_particles(solver: schema.ParticleSolver, initial: schema.Initial, domain: Domain, noisy: bool, studied: bool, key: Key) -> None:
    count, atoms = solver.count or 0, initial.atoms
    needed = count * domain.dimension * BYTES_OF_AN_ATOM
    if needed > physical_memory():
        raise CaseError((*key, "count"), f"{count} particles need about {needed >> 30} GB, more than there is")
    if noisy and solver.diffusion == "noise" and solver.step is None and solver.learning_rate is None:
        raise CaseError(key, "particles with an entropy term need `step`, the largest Euler–Maruyama step, e.g. step = 0.01")
    if atoms is None and not count and not studied:
        raise CaseError(key, "the key `count` is missing: the initial measure is a density, so atoms are drawn from it")
    if atoms is not None and count not in (0, len(atoms)):
        raise CaseError((*key, "count"), f"got {count}; leave it out: the {len(atoms)} initial atoms are the particles")


def _check_choices(solver: schema.ParticleSolver, table: schema.CaseTable, key: Key) -> None:
    """Raises CaseError where the choices of particles do not fit the energy, or would be ignored."""
    noisy = solver.diffusion == "noise" and any(isinstance(term, schema.EntropyTerm) for term in table.energy)
    if "tolerance" in solver.model_fields_set and (noisy or solver.learning_rate is not None):
        raise CaseError((*key, "tolerance"), "is that of adaptive steps, which neither noise nor a learning_rate has; leave it out")
    if solver.start == "grid" and (len(table.domain) > 3 or isinstance(next(iter(table.domain.values())), schema.DiskTable)):
        raise CaseError((*key, "start"), 'got "grid", which is for boxes of at most three axes; accepted here: random, quantile')
    if solver.step is not None and not noisy:
        raise CaseError((*key, "step"), "is that of noisy particles, and there is no noise; use learning_rate for gradient descent")
    internal = [term for term in table.energy if isinstance(term, schema.EntropyTerm | schema.PorousMediumTerm)]
    if solver.diffusion == "noise" and any(isinstance(term, schema.PorousMediumTerm) for term in internal):
        message = 'particles follow a porous_medium term only by the blob method, an approximation: add diffusion = "blob", '
        raise CaseError(key, message + "or use finite_volume")
    if solver.diffusion == "blob" and not internal:
        raise CaseError((*key, "diffusion"), "blob is for entropy and porous_medium terms, of which there is none; leave it out")
    if solver.batch is not None:
        networks = [term for term in table.energy if isinstance(term, schema.NetworkTerm)]
        if not networks:
            words = "is of a network's inputs, but no term is two_layer, ensemble_resnet or wide_resnet; leave it out"
            raise CaseError((*key, "batch"), words)
        for term in networks:
            if solver.epochs and not isinstance(term.inputs, schema.SampleInputs) and term.inputs.count is None:
                raise CaseError((*key, "epochs"), "epochs are for inputs that are samples, or so many draws (`count`); leave it out")


def _check_batches(table: schema.CaseTable, energy: EnergySum) -> None:
    """Raises CaseError where an epoch has less than one minibatch."""
    networks = (term for term in energy.terms.values() if isinstance(term, TwoLayer | PairNetwork | WideResNet))
    sizes = [term.size for term in networks if term.size is not None]
    for number, solver in enumerate(table.solver):
        if isinstance(solver, schema.ParticleSolver) and solver.epochs and solver.batch is not None and solver.batch > min(sizes):
            raise CaseError(("solver", number, "batch"), f"got {solver.batch}, but an epoch has {min(sizes)} inputs; accepted: up to that")


def _check_constraints(table: schema.CaseTable, energy: EnergySum) -> None:
    """Raises CaseError where a solver would not keep densities below their bound or out of obstacles."""
    if (found := constraint(energy)) is None:
        return
    for number, solver in enumerate(table.solver):
        if not isinstance(solver, schema.MovementSolver) or solver.method not in ("auto", "back_and_forth"):
            key: Key = ("solver", number, "method" if isinstance(solver, schema.MovementSolver) else "kind")
            raise CaseError(key, f'cannot keep to {found}; accepted: kind = "jko" with method = "back_and_forth"')


def _check_kernels(table: schema.CaseTable, energy: EnergySum, domain: Domain) -> None:
    """Raises CaseError where a solver's cells are hopeless for the kernel of an interaction."""
    kernels = [term for term in energy.terms.values() if isinstance(term, Interaction)]
    for number, solver in enumerate(table.solver):
        if isinstance(solver, schema.ParticleSolver) or solver.cells is None:
            continue
        for term in kernels:
            try:
                term.resolution(domain.grid(tuple(solver.cells)))
            except ValueError as error:
                raise CaseError(("solver", number, "cells"), str(error)) from error


def _check_levels(table: schema.CaseTable, energy: EnergySum) -> None:
    """Raises CaseError where a solver's cells along the depth do not divide into the levels of a network."""
    wide = [term for term in energy.terms.values() if isinstance(term, WideResNet)]
    for number, solver in enumerate(table.solver):
        if isinstance(solver, schema.ParticleSolver) or solver.cells is None:
            continue
        for term in wide:
            try:
                term.depth.check(solver.cells[-1])
            except ValueError as error:
                raise CaseError(("solver", number, "cells"), str(error)) from error


def check_cells(cells: list[int], domain: Domain, key: Key) -> None:
    """Raises CaseError unless finite volumes can have these cells on the domain."""
    if domain.dimension > 3:
        raise CaseError(key[:-1], f"finite volumes need at most 3 axes, got {domain.dimension}; use particles")
    if len(cells) != domain.dimension:
        names = ", ".join(domain.grid_names)
        raise CaseError(key, f"needs one number for each of the {domain.dimension} axes ({names}), got {shown(cells)}")
    try:
        domain.grid(tuple(cells))
    except ValueError as error:
        raise CaseError(key, str(error).removeprefix("cells ")) from error
    if math.prod(cells) > _MOST_CELLS:
        raise CaseError(key, f"{math.prod(cells)} cells are more than the {_MOST_CELLS} that are accepted")


def teacher_of(case: CaseFile, number: int, domain: Domain) -> Neurons | DensityFunction | None:
    """The teacher of the energy term ``number``, None where it has none or learns data. Raises CaseError."""
    table = case.table.energy[number]
    if not isinstance(table, schema.NetworkTerm) or table.teacher.column is not None:
        return None
    return _teacher(table, domain, ("energy", number, "teacher"))


def _terms(case: CaseFile, domain: Domain) -> dict[str, Energy]:
    """The energy terms by label; unlabelled ones are called by their kind, with a number from the second on."""
    terms: dict[str, Energy] = {}
    for number, table in enumerate(case.table.energy):
        label = table.label or table.kind
        if label in terms and table.label is not None:
            raise CaseError(("energy", number, "label"), f'"{label}" is taken; give each term its own label')
        count = 2
        while label in terms:
            label, count = f"{table.kind}_{count}", count + 1
        terms[label] = _term(case, table, domain, ("energy", number))
        for name, penalty in _penalties(table).items():
            if f"{label}_{name}" in terms:
                message = f'is a term of its own, and "{label}_{name}" is taken; give the network a label'
                raise CaseError(("energy", number, name), message)
            terms[f"{label}_{name}"] = penalty
    return terms


def _penalties(table: schema.Term) -> dict[str, Energy]:
    """The penalties of a network, by the keys that ask for them."""
    if not isinstance(table, schema.TwoLayerTerm):
        return {}
    found: dict[str, Energy] = {} if table.decay is None else {"decay": weight_decay(table.decay)}
    return found if table.path_norm is None else found | {"path_norm": path_norm(table.path_norm, table.outputs)}


def _term(case: CaseFile, table: schema.Term, domain: Domain, key: Key) -> Energy:
    if isinstance(table, schema.EntropyTerm):
        return Entropy(table.temperature)
    if isinstance(table, schema.PotentialTerm):
        return _potential(table, domain, key)
    if isinstance(table, schema.PorousMediumTerm):
        return Power(table.exponent, table.coefficient)
    if isinstance(table, schema.IncompressibleTerm):
        return Incompressible(table.bound, table.softness)
    if isinstance(table, schema.InteractionTerm):
        return _interaction(case.table, table, domain, (*key, "kernel"))
    if isinstance(table, schema.EnsembleResNetTerm):
        return _ensemble(case, table, domain, key)
    if isinstance(table, schema.WideResNetTerm):
        return _wide(case, table, domain, key)
    return _two_layer(case, table, domain, key)


def _potential(table: schema.PotentialTerm, domain: Domain, term: Key) -> Potential:
    key: Key = (*term, "density")
    expression = _parsed(table.density, list(domain.names), key)
    probes = domain.spread(np.random.default_rng(0).random((256, domain.dimension)))
    if not (np.isfinite(expression(probes)).all() and np.isfinite(expression.gradient(probes)).all()):
        raise CaseError(key, f"{shown(table.density)}: the potential or its gradient is not finite everywhere inside the domain")
    for k in np.flatnonzero(domain.periodic):
        ends = [np.array(probes), np.array(probes)]
        ends[0][:, k], ends[1][:, k] = domain.lower[k], domain.upper[k]
        values = [expression(points) for points in ends]
        with np.errstate(invalid="ignore"):
            gap, size = np.max(np.abs(values[0] - values[1])), min(np.max(np.abs(v)) for v in values)
        if not gap <= 1e-8 * (1.0 + size):
            raise CaseError(key, f"{shown(table.density)}: differs at the two ends of the periodic axis {domain.names[k]}")
    if table.obstacle is None:
        return Potential(expression, expression.gradient)
    obstacle = _parsed(table.obstacle, list(domain.names), (*term, "obstacle"))
    level = np.asarray(obstacle(probes), dtype=float)
    if np.isnan(level).any():
        raise CaseError((*term, "obstacle"), f"{shown(table.obstacle)}: is undefined somewhere in the domain")
    if np.all(level > 0.0):
        raise CaseError((*term, "obstacle"), f"{shown(table.obstacle)}: is positive nearly everywhere, which leaves no room")
    return Potential(expression, expression.gradient, obstacle=obstacle)


def _interaction(case: schema.CaseTable, table: schema.InteractionTerm, domain: Domain, key: Key) -> Interaction:
    if NORM in domain.names:
        where = ("domain", NORM) if not isinstance(domain, Disk) else ("domain", next(iter(case.domain)), "axes")
        raise CaseError(where, f"with an interaction no axis can be called {NORM}: in its kernel that is the norm of the difference")
    kernel = DifferenceExpression(_parsed(table.kernel, [*domain.names, NORM], key))
    try:
        return Interaction(PairKernel(domain, kernel, kernel.slope, table.coefficient), table.kernel)
    except ValueError as error:
        raise CaseError(key, f"{shown(table.kernel)}: {error}") from error


def _two_layer(case: CaseFile, table: schema.TwoLayerTerm, domain: Domain, key: Key) -> Energy:
    angle = table.parameter == "angle"
    weights = table.outputs if table.output == "trained" else 0
    if isinstance(domain, Disk) and (weights or table.outputs > 1):
        raise CaseError((*key, "output" if weights else "outputs"), "needs a box of axes: a disk leaves none for other outputs or weights")
    if weights >= domain.dimension:
        words = f"the last {weights} axes are the output weights, and at least one before is needed for θ"
        raise CaseError((*key, "output"), f'"trained": {words}; the domain has {domain.dimension} ({", ".join(domain.names)})')
    if not weights and domain.dimension % table.outputs:
        raise CaseError((*key, "outputs"), f"needs as many axes for each of {table.outputs} outputs, but the domain has {domain.dimension}")
    axes = _neuron_axes(table, domain)
    if angle and (axes != 1 or table.bias):
        raise CaseError((*key, "parameter"), "an angle is one axis, without bias")
    if domain.periodic[len(domain.names) - weights :].any():
        raise CaseError((*key, "output"), f"an output weight is no circle; {domain.names[-1]} is the last axis, and periodic")
    if angle and domain.periodic[0] and abs(domain.axes[0].length - 2.0 * math.pi) > 1e-9:
        raise CaseError(("domain", domain.names[0]), f"a periodic angle needs upper - lower = 2 pi, got {domain.axes[0].length:.12g}")
    if not angle and domain.periodic.any():
        raise CaseError((*key, "parameter"), 'σ(x·θ) is not periodic in θ; a periodic axis needs parameter = "angle"')
    if table.bias and axes < 2:
        which = "" if not weights and table.outputs == 1 else " for each θ, beside output weights"
        raise CaseError((*key, "bias"), f"needs at least two axes{which}: the last one is the offset")
    law, data = _inputs(case, table, domain, (*key, "inputs"))
    _check_width(law, table, domain, (*key, "inputs"))
    teacher = data if data is not None else _teacher(table, domain, (*key, "teacher"))
    build: Callable[..., Energy] = closed_two_layer if table.expectation == "closed" else two_layer
    options = {"angle": angle, "bias": table.bias, "tolerance": table.tolerance, "output": table.output, "outputs": table.outputs}
    try:
        return build(domain, table.activation, law, teacher, **options)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise CaseError(key, f"the numbers are too large or too small for the arithmetic ({error})") from error
    except ValueError as error:
        raise CaseError(key, str(error)) from error


def _ensemble(case: CaseFile, table: schema.EnsembleResNetTerm, domain: Domain, key: Key) -> Energy:
    square = table.dimension**2
    if domain.dimension % square:
        words = f"each θ^l is a {table.dimension} x {table.dimension} matrix, which needs {square} axes; the domain has {domain.dimension}"
        raise CaseError((*key, "dimension"), words)
    if domain.periodic.any():
        raise CaseError((*key, "kind"), "residual networks are not periodic in their parameters; leave no axis periodic")
    law, data = _inputs(case, table, domain, (*key, "inputs"))
    _check_width(law, table, domain, (*key, "inputs"))
    teacher = data if data is not None else _teacher(table, domain, (*key, "teacher"))
    try:
        return ensemble_resnet(domain, table.activation, law, teacher, dimension=table.dimension, tolerance=table.tolerance)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise CaseError(key, f"the numbers are too large or too small for the arithmetic ({error})") from error
    except ValueError as error:
        raise CaseError(key, str(error)) from error


def _wide(case: CaseFile, table: schema.WideResNetTerm, domain: Domain, key: Key) -> Energy:
    axes, names = table.dimension**2, ", ".join(domain.names)
    if domain.dimension != axes + 1:
        words = f"each θ is a {table.dimension} x {table.dimension} matrix, which with the depth needs {axes + 1} axes"
        raise CaseError((*key, "dimension"), f"{words}; the domain has {domain.dimension} ({names})")
    if not isinstance(domain, Disk) and not domain.axes[-1].frozen:
        words = "is the depth, along which nothing moves: frozen = true"
        raise CaseError(("domain", domain.names[-1]), f"the last axis of a wide_resnet {words}")
    if domain.periodic.any():
        raise CaseError((*key, "kind"), "residual networks are not periodic in their parameters; leave no axis periodic")
    law, data = _inputs(case, table, domain, (*key, "inputs"))
    _check_width(law, table, domain, (*key, "inputs"))
    teacher = data if data is not None else _teacher(table, domain, (*key, "teacher"))
    try:
        return wide_resnet(
            domain,
            table.activation,
            law,
            teacher,
            dimension=table.dimension,
            depth=table.depth,
            approximation=table.approximation,
            teacher_approximation=table.teacher_approximation or "exact",
        )
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise CaseError(key, f"the numbers are too large or too small for the arithmetic ({error})") from error
    except ValueError as error:
        raise CaseError(key, str(error)) from error


def _check_width(law: InputLaw, table: schema.NetworkTerm, domain: Domain, key: Key) -> None:
    width = _width(table, domain)
    if isinstance(law, Samples) and law.points.shape[1] != width:
        raise CaseError((*key, "columns"), f"the parameters take {width} inputs, got {law.points.shape[1]} columns")
    if isinstance(law, Circle) and width != 2:
        raise CaseError((*key, "law"), f"inputs on the circle are pairs, but the parameters take {width} inputs")
    if not isinstance(law, Samples) and width > 3 and getattr(table, "expectation", "quadrature") == "quadrature":
        closed = ", or a closed `expectation`" if isinstance(table, schema.TwoLayerTerm) else ""
        raise CaseError((*key, "law"), f'more than 3 inputs need law = "samples", or `count` draws{closed}, got {width}')


def _width(table: schema.NetworkTerm, domain: Domain) -> int:
    """How many inputs the parameters take."""
    if isinstance(table, schema.EnsembleResNetTerm | schema.WideResNetTerm):
        return table.dimension
    return 2 if table.parameter == "angle" else _neuron_axes(table, domain) - table.bias


def _neuron_axes(table: schema.NetworkTerm, domain: Domain) -> int:
    """How many axes a single θ has."""
    if isinstance(table, schema.EnsembleResNetTerm | schema.WideResNetTerm):
        return domain.dimension
    return domain.dimension - table.outputs if table.output == "trained" else domain.dimension // table.outputs


def _inputs(case: CaseFile, table: schema.NetworkTerm, domain: Domain, key: Key) -> tuple[InputLaw, FloatArray | None]:
    """The input law, and the target's values if the teacher is a column of the samples."""
    if not isinstance(table.inputs, schema.SampleInputs):
        if table.teacher.column is not None:
            raise CaseError((*key[:-1], "teacher", "column"), 'a column as teacher needs inputs with law = "samples"')
        return _law_of(table, table.inputs, domain, key), None
    names = [*table.inputs.columns, *(table.teacher.column or [])]
    path = case.path.parent / table.inputs.file
    try:
        values = read_columns(path, names)
        scaled = _scaled_names(table.inputs, names, key)
        chosen = [k for k, name in enumerate(names) if name in scaled]
        if chosen:
            values[:, chosen] = standardized(values[:, chosen], [names[k] for k in chosen], path)
    except TableError as error:
        raise CaseError(key, str(error)) from error
    width = len(table.inputs.columns)
    law = Samples(np.ascontiguousarray(values[:, :width]))
    if len(names) == width:
        return law, None
    return law, values[:, width] if table.outputs == 1 else values[:, width:]


def _law_of(table: schema.NetworkTerm, inputs: schema.DrawnInputs, domain: Domain, key: Key) -> InputLaw:
    """The law itself, or that of so many draws."""
    law = _LAWS[str(getattr(inputs, "law", ""))](inputs.scale)
    if inputs.count is None:
        return law
    width = _width(table, domain)
    if isinstance(law, Circle) and width != 2:
        raise CaseError((*key, "law"), f"inputs on the circle are pairs, but the parameters take {width} inputs")
    return Samples(law.sample(np.random.default_rng(inputs.seed or 0), inputs.count, width))


def _scaled_names(table: schema.SampleInputs, names: list[str], key: Key) -> list[str]:
    if isinstance(table.standardize, bool):
        return names if table.standardize else []
    for name in table.standardize:
        if name not in names:
            raise CaseError((*key, "standardize"), f"{shown(name)} is none of the columns in use: {', '.join(names)}")
    return list(table.standardize)


def _teacher(term: schema.NetworkTerm, domain: Domain, key: Key) -> Neurons | DensityFunction:
    table = term.teacher
    if table.density is not None:
        return _density(table.density, domain, (*key, "density"))
    rows, names = table.neurons or [], domain.names[: _neuron_axes(term, domain)]
    for row in rows:
        if len(row) != len(names):
            trained = isinstance(term, schema.TwoLayerTerm) and term.output == "trained"
            where = f"({', '.join(names)})" + ("; its output weights stand in `weights`" if trained else "")
            raise CaseError((*key, "neurons"), f"each neuron needs {len(names)} coordinates {where}, got {shown(row)}")
    weights = table.weights or [[1.0 / len(rows)]] * len(rows)
    return Neurons(np.array(rows, dtype=float), np.array(weights, dtype=float))
