"""The parts of a study of the stability of SGD, carried out one by one into the arrays of its ledger."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.batch import progress_bar
from mfpde.case.sgd_schema import DataTable, ParticlesTable, SgdStabilityTable, TrainingTable
from mfpde.console import tell
from mfpde.run import Status, StepFailed
from mfpde.sgd.escape import escapes, leaving_law
from mfpde.sgd.line import Multiplier, mean_square_factor, squares_of_runs, two_valued
from mfpde.sgd.linear import moment_step, norms_of_runs
from mfpde.sgd.mean_field import Samples, losses_of_runs, predict, spread_particles, steps_between, variance_interval
from mfpde.sgd.network import Network
from mfpde.sgd.solution import Solution, sharpness
from mfpde.sgd.training import train
from mfpde.study.alone import Desk
from mfpde.study.ledger import Index, Ledger
from mfpde.study.sgd_layout import lay_out
from mfpde.study.sgd_plan import (
    EXAMPLE_STEPS,
    SOLUTION,
    SgdPlan,
    batch_of,
    diagram_points,
    examples,
    kept_steps,
    training_moments,
    two_minima,
)

if TYPE_CHECKING:
    from mfpde.study.sgd_text import SgdReport

Arrays = dict[str, FloatArray]
_EXAMPLE_RUNS = 20_000
_BLOWN_UP = 1e30
_SPREAD = 3.0
"""The relative deviation of θ² up to which its mean over the runs is taken to be about normal."""


def carry_out(plan: SgdPlan, desk: Desk) -> "SgdReport | None":
    """All parts of a plan that have not ended; None once a signal has come. Raises StepFailed."""
    from mfpde.study.sgd_text import SgdReport

    ledger = lay_out(plan, desk)
    if desk.resume and (reason := ledger.take_up()):
        tell(f"  {reason}; starting anew")
    try:
        for group, work in _GROUPS.items():
            if group in ledger.ended and not _fill(plan.table, group, work, ledger, desk.stopped):
                return None
    finally:
        ledger.write()
    return SgdReport(plan, ledger.scales, ledger.dimensions, ledger.arrays)


def _fill(table: SgdStabilityTable, group: str, work: Callable[..., bool], ledger: Ledger, stopped: Sequence[int]) -> bool:
    """Carry out what is open of a group; False once a signal has come."""
    todo, whole = ledger.open_parts(group), ledger.ended[group]
    if todo and np.any(whole):
        tell(f"  {group}: {int(np.sum(whole))} of {whole.size} parts are there already")
    with progress_bar(group, len(todo)) as bar:
        for index in todo:
            if stopped or not work(table, index, ledger.arrays, stopped):
                return False
            ledger.end(group, index)
            bar.update(1)
    return True


def _fill_diagram(table: SgdStabilityTable, index: Index, arrays: Arrays, _: Sequence[int]) -> bool:
    """The lattice of one panel."""
    part = table.diagram
    assert part is not None
    rate, batch = part.learning_rates[index[0]], batch_of(part, part.batches[index[1]], part.samples)
    generator = np.random.default_rng([table.seed, 1, *index])
    for i, a in enumerate(diagram_points(part, rate, batch)[0]):
        for j, s in enumerate(diagram_points(part, rate, batch)[1]):
            place = (*index, i, j)
            arrays["diagram_sharpness"][place], arrays["diagram_nonuniformity"][place] = a, s
            arrays["diagram_factor"][place] = mean_square_factor(a, s, rate, batch)
            if s > a * np.sqrt(part.samples - 1):
                continue
            coefficients = two_valued(a, s, part.samples)
            law = Multiplier.of(coefficients, rate, batch)
            steps = law.steps_within(part.steps, _SPREAD)
            squares = squares_of_runs(coefficients, rate, batch, steps, part.runs, generator)
            arrays["diagram_growth"][place], arrays["diagram_steps"][place] = law.growth, steps
            arrays["diagram_measured"][place] = np.mean(squares)
            arrays["diagram_error"][place] = law.deviation(steps) * law.moment(2.0) ** steps / np.sqrt(part.runs)
    return True


def _fill_examples(table: SgdStabilityTable, index: Index, arrays: Arrays, _: Sequence[int]) -> bool:
    """E|θ|² from the direction in which it grows most in one step, exactly and of runs."""
    example, place = examples()[index[0]], index[0]
    functions, dimension = example.functions, len(example.functions.hessian)
    one = moment_step(functions, np.eye(dimension), example.rate, example.batch)
    start = np.linalg.eigh(one)[1][:, -1]
    moment = np.outer(start, start)
    for k in range(EXAMPLE_STEPS + 1):
        arrays["example_exact"][place, k] = np.trace(moment)
        moment = moment_step(functions, moment, example.rate, example.batch)
    generator = np.random.default_rng([table.seed, 2, place])
    norms = norms_of_runs(functions, start, example.rate, example.batch, EXAMPLE_STEPS, _EXAMPLE_RUNS, generator)
    arrays["example_measured"][place] = np.mean(norms, axis=1)
    arrays["example_error"][place] = np.std(norms, axis=1, ddof=1) / np.sqrt(_EXAMPLE_RUNS)
    return True


def _fill_escape(table: SgdStabilityTable, index: Index, arrays: Arrays, _: Sequence[int]) -> bool:
    """One learning rate and batch."""
    part = table.escape
    assert part is not None
    problem, rate = two_minima(part), part.learning_rates[index[0]]
    batch = batch_of(part, part.batches[index[1]], len(problem.right))
    law = Multiplier.of(2.0 * problem.right, rate, batch)
    curvatures = 2.0 * problem.right
    arrays["escape_mean_square"][index] = mean_square_factor(float(np.mean(curvatures)), float(np.std(curvatures)), rate, batch)
    arrays["escape_growth"][index], arrays["escape_exponent"][index] = law.growth, law.escape_exponent
    arrays["escape_predicted"][index] = leaving_law(problem, rate, batch, part.distance, part.steps)
    generator = np.random.default_rng([table.seed, 3, *index])
    found = escapes(problem, rate, batch, part.distance, part.steps, part.runs, generator)
    low, high = problem.left_interval
    arrays["escape_measured"][index] = found.left_by(part.steps)
    arrays["escape_path"][index] = found.paths[:, 0]
    arrays["escape_settled"][index] = np.mean((found.ends > low) & (found.ends < high))
    return True


def samples_of(part: DataTable, seed: int) -> Samples:
    """Inputs and targets of a part; what particles learn is a mean of neurons, as they are."""
    scale = 1.0 / part.teacher if isinstance(part, ParticlesTable) else 1.0
    generator = np.random.default_rng([seed, 4])
    inputs = generator.standard_normal((part.samples, part.dimension))
    neurons = part.steepness / np.sqrt(part.dimension) * generator.standard_normal((part.teacher, part.dimension))
    teacher = Network(inputs, np.zeros(part.samples), part.activation, scale, np.where(np.arange(part.teacher) % 2 == 0, 1.0, -1.0))
    targets = teacher.values(np.ravel(neurons)) + part.noise * generator.standard_normal(part.samples)
    return Samples(inputs, targets, part.activation)


def training_start(part: TrainingTable, seed: int, number: int) -> tuple[Network, FloatArray]:
    """The network with its samples, and the parameters at start ``number``: a_j ~ N(0, 1), b_j ~ N(0, I/d), c_j ~ N(0, 1/d)."""
    made = samples_of(part, seed)
    inputs = np.hstack([made.inputs, np.ones((part.samples, 1))])
    factor = part.width**-0.5 if part.factor is None else part.factor
    generator = np.random.default_rng([seed, 5, number])
    inner = generator.standard_normal(part.width * (part.dimension + 1)) / np.sqrt(part.dimension)
    network = Network(inputs, made.targets, part.activation, factor)
    return network, np.concatenate([generator.standard_normal(part.width), inner])


def _fill_training(table: SgdStabilityTable, index: Index, arrays: Arrays, stopped: Sequence[int]) -> bool:
    """All learning rates for one batch and start."""
    part = table.training
    assert part is not None
    network, start = training_start(part, table.seed, index[1])
    batch = batch_of(part, part.batches[index[0]], part.samples)
    seed = int(np.random.SeedSequence([table.seed, 6, index[1]]).generate_state(1)[0])
    found = train(network, start, part.learning_rates, batch, part.steps, part.tolerance, seed, training_moments(part), stopped)
    if found is None:
        return False
    for name in ("steps", "fitted", "diverged"):
        arrays[f"training_{name}"][index] = getattr(found, name)
    for r, rate in enumerate(part.learning_rates):
        place = (*index, r)
        if not found.diverged[r]:
            try:
                solution = Solution.of(network.at(found.parameters[r]), rate, batch)
            except StepFailed as failure:
                raise StepFailed(failure.status, f"training, B = {batch.size}, η = {rate:g}: {failure}") from failure
            for name in SOLUTION:
                arrays[f"training_{name}"][place] = getattr(solution, name)
        for k, step in enumerate(training_moments(part)):
            _fill_course(
                network, found.path[k, r], arrays, (*place, k), step <= found.steps[r] and bool(np.isfinite(found.path[k, r]).all())
            )
    return True


def _fill_course(network: Network, parameters: FloatArray, arrays: Arrays, place: Index, running: bool) -> None:
    """Loss and sharpness on the way, as long as a run goes on."""
    if running and (loss := network.loss(parameters)) < 1e6:
        arrays["course_loss"][place] = loss
        arrays["course_sharpness"][place] = sharpness(network.at(parameters))


def _fill_particles(table: SgdStabilityTable, index: Index, arrays: Arrays, _: Sequence[int]) -> bool:
    """One number of particles of one series."""
    part = table.particles
    assert part is not None
    samples, step = samples_of(part, table.seed), kept_steps(part)[index[0]][index[1]]
    batch, after = batch_of(part, part.batch, part.samples), steps_between(part.times, step)
    particles = spread_particles(part.counts[index[1]], part.dimension)
    generator = np.random.default_rng([table.seed, 7, *index])
    with np.errstate(over="ignore", invalid="ignore"):
        predicted = predict(samples, particles, step, batch, after)
        losses = losses_of_runs(samples, particles, step, batch, after, part.runs, generator)
    if not all(np.max(np.abs(values)) < _BLOWN_UP for values in (predicted.losses, predicted.variances, losses)):
        what = f"particles, N = {len(particles)}, τ = {step:g}: losses grow beyond all bounds"
        raise StepFailed(Status.NOT_FINITE, f"{what}; use a smaller `time_step` or a larger `batch`")
    arrays["particle_descent"][index], arrays["particle_predicted"][index] = predicted.losses, predicted.variances
    arrays["particle_mean"][index] = np.mean(losses, axis=0)
    for name, values in zip(("variance", "low", "high"), variance_interval(losses), strict=True):
        arrays[f"particle_{name}"][index] = values
    return True


_GROUPS: dict[str, Callable[..., bool]] = {
    "diagram": _fill_diagram,
    "examples": _fill_examples,
    "escape": _fill_escape,
    "training": _fill_training,
    "particles": _fill_particles,
}
