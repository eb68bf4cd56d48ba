"""The plan of a study of the linear stability of SGD: its parts, and what does not fit together."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray, physical_memory
from mfpde.case import StudyCase
from mfpde.case.errors import CaseError
from mfpde.case.sgd_schema import BatchesTable, DiagramTable, EscapeTable, ParticlesTable, SgdStabilityTable, TrainingTable
from mfpde.sgd.batches import Batch
from mfpde.sgd.escape import TwoMinima
from mfpde.sgd.line import Multiplier, critical_nonuniformity
from mfpde.sgd.linear import Example, pair_example, star_example
from mfpde.sgd.mean_field import steps_between
from mfpde.sgd.solution import Solution
from mfpde.study.alone import Desk

if TYPE_CHECKING:
    from mfpde.study.sgd_text import SgdReport

EXAMPLES = ("pair", "star")
SERIES = ("time_step_kept", "learning_rate_kept")
SOLUTION = tuple(field.name for field in fields(Solution))
EXAMPLE_STEPS = 8
_WIDEST = 2.4
_HIGHEST = 1.25
_WITHOUT_BOUND = 2.5
_MOMENTS = 30


@dataclass(frozen=True, eq=False)
class SgdPlan:
    """The case and its table."""

    case: StudyCase
    table: SgdStabilityTable

    @property
    def description(self) -> list[str]:
        """Lines for people."""
        from mfpde.study.sgd_words import describe

        return describe(self.table)

    @property
    def figures(self) -> tuple[str, ...]:
        """One for each part."""
        return tuple(f"study-{name}" for name in ("diagram", "escape", "training", "particles") if getattr(self.table, name) is not None)

    def carry_out(self, desk: Desk) -> "SgdReport | None":
        """All parts that have not ended. Raises StepFailed."""
        from mfpde.study.sgd_parts import carry_out

        return carry_out(self, desk)


def plan(case: StudyCase) -> SgdPlan:
    """The plan of a case. Raises CaseError for what does not fit together."""
    table = case.table.study
    assert isinstance(table, SgdStabilityTable)
    if table.diagram is not None:
        _check_batches(table.diagram, table.diagram.batches, table.diagram.samples, "diagram")
        _check_draws(table.diagram, table.diagram.batches, table.diagram.samples, table.diagram.runs, "diagram")
    if table.escape is not None:
        _check_escape(table.escape)
    if table.training is not None:
        _check_batches(table.training, table.training.batches, table.training.samples, "training")
        _check_training(table.training)
    if table.particles is not None:
        _check_particles(table.particles)
    return SgdPlan(case, table)


def batch_of(part: BatchesTable, size: int, samples: int) -> Batch:
    """The batches of a part."""
    return Batch(size, samples, part.replacement)


def two_minima(part: EscapeTable) -> TwoMinima:
    """The functions of the escape."""
    return TwoMinima(np.tile(np.array(part.left), part.copies), np.tile(np.array(part.right), part.copies))


def kept_steps(part: ParticlesTable) -> list[list[float]]:
    """The time steps τ of each series and count: τ itself, and α/N with the α of the smallest N."""
    return [[part.time_step] * len(part.counts), [part.time_step * part.counts[0] / count for count in part.counts]]


def diagram_points(part: DiagramTable, rate: float, batch: Batch) -> tuple[FloatArray, FloatArray]:
    """The sharpnesses and non-uniformities at which runs are made: up to beyond 2/η and beyond the largest stable s."""
    middles = (np.arange(part.points) + 0.5) / part.points
    top = float(critical_nonuniformity(np.array([1.0 / rate]), rate, batch)[0])
    top = min(top, _WITHOUT_BOUND / rate)
    return _WIDEST / rate * middles, _HIGHEST * top * middles


def training_moments(part: TrainingTable) -> list[int]:
    """The steps at which loss and sharpness are looked at."""
    return [0, *sorted({round(float(step)) for step in np.geomspace(1.0, part.steps, _MOMENTS)})]


def examples() -> tuple[Example, Example]:
    """Where the conditions on one step say too much."""
    return pair_example(), star_example()


# Checks.


def _check_batches(part: BatchesTable, sizes: Sequence[int], samples: int, name: str, key: str = "batches") -> None:
    largest = max(sizes)
    if not part.replacement and largest > samples:
        raise CaseError(("study", name, key), f"a batch without replacement has at most the {samples} samples there are, got {largest}")


def _check_draws(part: BatchesTable, sizes: Sequence[int], samples: int, runs: int, name: str) -> None:
    """Raises CaseError where the batches of one step of all runs do not fit the memory."""
    needed = 32 * runs * (max(sizes) if part.replacement else samples)
    if needed > physical_memory() // 2:
        raise CaseError(("study", name, "runs"), f"needs about {needed >> 30} GB, more than there is; use fewer, or fewer samples")


def _check_escape(part: EscapeTable) -> None:
    problem = two_minima(part)
    _check_batches(part, part.batches, len(problem.right), "escape")
    _check_draws(part, part.batches, len(problem.right), part.runs, "escape")
    needed = 24 * len(part.learning_rates) * len(part.batches) * (part.steps + 1)
    if needed > physical_memory() // 4:
        raise CaseError(("study", "escape", "steps"), f"needs about {needed >> 30} GB, more than there is; use fewer")
    lower = problem.right_interval[0]
    if part.distance >= 1.0 - lower:
        raise CaseError(
            ("study", "escape", "distance"),
            f"the start must lie where f is quadratic, closer to 1 than {1.0 - lower:.4g}, got {part.distance:g}",
        )
    if len(set(part.right)) <= 2:
        return
    try:
        for size in part.batches:
            Multiplier.of(2.0 * problem.right, part.learning_rates[0], batch_of(part, size, len(problem.right)))
    except ValueError as error:
        raise CaseError(("study", "escape", "right"), str(error)) from error


def _check_training(part: TrainingTable) -> None:
    size = part.width * (part.dimension + 2)
    if 8 * (3 * size * size + 6 * part.samples * size) > physical_memory() // 2:
        raise CaseError(("study", "training"), f"{size} parameters and {part.samples} samples need more memory than there is; use fewer")


def _check_particles(part: ParticlesTable) -> None:
    _check_batches(part, [part.batch], part.samples, "particles", "batch")
    for steps in kept_steps(part):
        for step in steps:
            try:
                after = steps_between(part.times, step)
            except ValueError as error:
                raise CaseError(("study", "particles", "times"), str(error)) from error
            if max(after) * max(part.counts) * part.dimension * 8 > physical_memory() // 2:
                raise CaseError(("study", "particles"), f"{max(after)} steps need more memory than there is; use a longer `time_step`")
