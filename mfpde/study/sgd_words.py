"""What a study of the stability of SGD is going to do, in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfpde.case.sgd_schema import DiagramTable, EscapeTable, ParticlesTable, SgdStabilityTable, TrainingTable
from mfpde.sgd.escape import TwoMinima
from mfpde.tables import counted


def describe(table: SgdStabilityTable) -> list[str]:
    """A line for each part."""
    lines = [
        _diagram_line(table.diagram) if table.diagram else "",
        _escape_line(table.escape) if table.escape else "",
        _training_line(table.training) if table.training else "",
        _particles_line(table.particles) if table.particles else "",
    ]
    return [line for line in lines if line]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _drawn(part: Any) -> str:
    return "with replacement" if part.replacement else "without replacement"


def _diagram_line(part: DiagramTable) -> str:
    return (
        f"diagram: n = {part.samples}, η = {_listed(part.learning_rates)}, B = {_listed(part.batches)} {_drawn(part)}; "
        f"{part.points} × {part.points} points with {counted(part.runs, 'run')}"
    )


def _escape_line(part: EscapeTable) -> str:
    problem = TwoMinima(np.tile(part.left, part.copies), np.tile(part.right, part.copies))
    flat = [f"a = {2.0 * np.mean(c):g}, s = {2.0 * np.std(c):.4g} at {x}" for x, c in ((0, problem.left), (1, problem.right))]
    return (
        f"escape: f = (1/{len(problem.left)}) Σ min(l_i x², r_i (x − 1)²), {', '.join(flat)}; η = {_listed(part.learning_rates)}, "
        f"B = {_listed(part.batches)} {_drawn(part)}; {counted(part.runs, 'run')} of {counted(part.steps, 'step')} "
        f"from 1 − {part.distance:g}"
    )


def _training_line(part: TrainingTable) -> str:
    return (
        f"training: {part.width} {part.activation} neurons with offsets on {part.samples} samples in R^{part.dimension}, "
        f"η = {_listed(part.learning_rates)}, B = {_listed(part.batches)} {_drawn(part)}, until the loss is {part.tolerance:g} or for "
        f"{counted(part.steps, 'step')}, {part.seeds} start{'s' * (part.seeds > 1)}"
    )


def _particles_line(part: ParticlesTable) -> str:
    return (
        f"particles: N = {_listed(part.counts)} {part.activation} neurons on {part.samples} samples in R^{part.dimension}, "
        f"B = {part.batch} {_drawn(part)}, τ = {part.time_step:g} kept, or α = {part.time_step * part.counts[0]:g} kept; "
        f"{counted(part.runs, 'run')} up to t = {part.times[-1]:g}"
    )
