"""The arrays of a study of the stability of SGD, with the names of their dimensions, and the parts in which they are filled."""

from typing import Any

import numpy as np

from mfpde.case.sgd_schema import SgdStabilityTable
from mfpde.study.alone import Desk, mark_of
from mfpde.study.ledger import Ledger
from mfpde.study.sgd_plan import EXAMPLE_STEPS, EXAMPLES, SERIES, SOLUTION, SgdPlan, training_moments

Scales = dict[str, Any]
Layout = dict[str, tuple[str, ...]]
_DIAGRAM = ("sharpness", "nonuniformity", "factor", "growth", "steps", "measured", "error")
_ESCAPE = ("mean_square", "growth", "exponent", "settled")
_PARTICLE = ("descent", "predicted", "mean", "variance", "low", "high")


def lay_out(plan: SgdPlan, desk: Desk) -> Ledger:
    """The arrays of all parts, empty."""
    scales: dict[str, Any] = {}
    dimensions: dict[str, tuple[str, ...]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for place in (_diagram_layout, _escape_layout, _training_layout, _particles_layout):
        place(plan.table, scales, dimensions, parts)
    mark = mark_of(plan.case, plan.table.model_dump())
    return Ledger(desk.folder / "parts.h5", mark, scales, dimensions, parts, min(desk.seconds, 10.0))


def _diagram_layout(table: SgdStabilityTable, scales: Scales, dimensions: Layout, parts: Layout) -> None:
    part = table.diagram
    if part is None:
        return
    places = list(range(part.points))
    scales |= {"diagram_rate": part.learning_rates, "diagram_batch": part.batches, "point_a": places, "point_s": places}
    scales |= {"example": list(EXAMPLES), "example_step": np.arange(EXAMPLE_STEPS + 1)}
    dimensions |= {f"diagram_{name}": ("diagram_rate", "diagram_batch", "point_a", "point_s") for name in _DIAGRAM}
    dimensions |= {f"example_{name}": ("example", "example_step") for name in ("exact", "measured", "error")}
    parts |= {"diagram": ("diagram_rate", "diagram_batch"), "examples": ("example",)}


def _escape_layout(table: SgdStabilityTable, scales: Scales, dimensions: Layout, parts: Layout) -> None:
    part = table.escape
    if part is None:
        return
    scales |= {"escape_rate": part.learning_rates, "escape_batch": part.batches, "escape_step": np.arange(part.steps + 1)}
    dimensions |= {f"escape_{name}": ("escape_rate", "escape_batch") for name in _ESCAPE}
    dimensions |= {f"escape_{name}": ("escape_rate", "escape_batch", "escape_step") for name in ("predicted", "measured", "path")}
    parts["escape"] = ("escape_rate", "escape_batch")


def _training_layout(table: SgdStabilityTable, scales: Scales, dimensions: Layout, parts: Layout) -> None:
    part = table.training
    if part is None:
        return
    scales |= {"training_batch": part.batches, "training_seed": list(range(part.seeds)), "training_rate": part.learning_rates}
    scales["moment"] = training_moments(part)
    axes = ("training_batch", "training_seed", "training_rate")
    dimensions |= {f"training_{name}": axes for name in (*SOLUTION, "steps", "fitted", "diverged")}
    dimensions |= {f"course_{name}": (*axes, "moment") for name in ("loss", "sharpness")}
    parts["training"] = ("training_batch", "training_seed")


def _particles_layout(table: SgdStabilityTable, scales: Scales, dimensions: Layout, parts: Layout) -> None:
    part = table.particles
    if part is None:
        return
    scales |= {"series": list(SERIES), "particle_count": part.counts, "particle_time": part.times}
    dimensions |= {f"particle_{name}": ("series", "particle_count", "particle_time") for name in _PARTICLE}
    parts["particles"] = ("series", "particle_count")
