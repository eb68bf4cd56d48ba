"""What a [study] of kind "two_scalings" asks for, checked before anything is trained."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfpde.arrays import physical_memory
from mfpde.case import StudyCase
from mfpde.case.errors import CaseError, Key, check_steps
from mfpde.case.scalings_schema import (
    CurvesTable,
    DrawnNeurons,
    GaussianInputTable,
    GivenNeurons,
    HeatMapTable,
    LazyTable,
    SingleNeuron,
    TwoScalingsTable,
)
from mfpde.study.alone import Desk
from mfpde.tables import counted, estimate_line

if TYPE_CHECKING:
    from mfpde.study.two_scalings_text import ScalingsReport

Part = CurvesTable | HeatMapTable | LazyTable
_USUAL_STEPS = 1000
_PAIR, _SAMPLE, _COORDINATE = 1e-8, 1e-9, 3e-10
"""Seconds for a pair of neurons, and for a neuron at a sample, alone and for each coordinate."""
MODELS = ("conventional", "mean_field", "random_features")


@dataclass(frozen=True, eq=False)
class ScalingsPlan:
    """The case and its table."""

    case: StudyCase
    table: TwoScalingsTable

    @property
    def description(self) -> list[str]:
        """Lines for people."""
        parts = (_curves_line(self.table.curves), _heat_line(self.table.heat_map), _lazy_line(self.table.lazy))
        seconds = sum(_seconds(self.table, part) for part in (self.table.curves, self.table.heat_map, self.table.lazy) if part is not None)
        estimate = estimate_line(seconds, f"the training at {_USUAL_STEPS} gradients each where their number is not given")
        return [_setup_line(self.table), *(line for line in parts if line), *estimate]

    @property
    def figures(self) -> tuple[str, ...]:
        """Two for curves, one for each other part."""
        curves = self.table.curves
        named = {"curves": curves, "paths": curves, "heat-map": self.table.heat_map, "lazy": self.table.lazy}
        return tuple(f"study-{name}" for name, part in named.items() if part is not None)

    def carry_out(self, desk: Desk) -> "ScalingsReport | None":
        """All parts that have not ended. Raises StepFailed."""
        from mfpde.study.two_scalings import carry_out

        return carry_out(self, desk)


def plan(case: StudyCase) -> ScalingsPlan:
    """The plan of a case. Raises CaseError for what does not fit together."""
    table = case.table.study
    assert isinstance(table, TwoScalingsTable)
    for name, part in (("curves", table.curves), ("heat_map", table.heat_map), ("lazy", table.lazy)):
        if part is not None:
            _check_dimension(table, dimension_of(table, part), ("study", name, "dimension") if part.dimension else ("study", "dimension"))
            _check_memory(part, dimension_of(table, part), ("study", name))
            for key in ("learning_rate", "step"):
                if (step := getattr(part, key)) is not None:
                    check_steps(part.end, step, ("study", name, key))
    return ScalingsPlan(case, table)


def seeds_of(part: Part) -> list[int]:
    """The seeds of a part."""
    return list(range(part.seed, part.seed + part.seeds))


def dimension_of(table: TwoScalingsTable, part: Part) -> int:
    """d in a part."""
    return part.dimension or table.dimension


def widths_of(part: Part) -> list[int]:
    """The widths of a part."""
    return [part.width] if isinstance(part, CurvesTable) else part.widths


def _check_dimension(table: TwoScalingsTable, dimension: int, key: Key) -> None:
    target = table.target
    if isinstance(target, GivenNeurons) and len(target.neurons[0]) != dimension:
        raise CaseError(key, f"the neurons of the target have {len(target.neurons[0])} coordinates, got dimension {dimension}")
    if target.kind == "circle" and dimension < 2:
        raise CaseError(key, f"a circle of neurons needs dimension 2 or more, got {dimension}")


def _check_memory(part: Part, dimension: int, key: Key) -> None:
    """Raises CaseError where the largest part does not fit in the memory."""
    width = max(widths_of(part))
    samples = max(part.samples) if isinstance(part, HeatMapTable) else part.samples
    matrices = 4 * width * min(width, samples or width)
    kept = 3 * part.seeds * (part.count + 1) * width if isinstance(part, CurvesTable) else 0
    needed = 8 * (matrices + kept + 16 * width * (dimension + 1) + (samples or 0) * (dimension + width))
    if needed > physical_memory():
        raise CaseError(key, f"needs about {needed >> 30} GB, more than there is; use fewer neurons, samples or times")


def _seconds(table: TwoScalingsTable, part: Part) -> float:
    """About how long a part takes: the training of its networks, and their population risks and distances at the times looked at."""
    samples = part.samples if isinstance(part, HeatMapTable) else [part.samples]
    fixed = part.learning_rate or part.step
    gradients = _USUAL_STEPS if fixed is None else part.end / fixed * (1 if part.learning_rate else 6)
    dimension, networks = dimension_of(table, part), 1 if isinstance(part, LazyTable) else 2
    looks = 2.0 * (1 if isinstance(part, HeatMapTable) else part.count)
    ones = [_PAIR * m * m if n is None else m * n * (_SAMPLE + _COORDINATE * dimension) for m in widths_of(part) for n in samples]
    tests = [_PAIR * m * m * looks for m in widths_of(part) for _ in samples]
    return networks * part.seeds * (gradients * sum(ones) + sum(tests))


# Words.


def _setup_line(table: TwoScalingsTable) -> str:
    inputs = table.inputs
    if isinstance(inputs, GaussianInputTable):
        law = f"N(0, {inputs.scale**2:g} I)" if inputs.scale != 1.0 else "N(0, I)"
    else:
        law = f"uniform on the sphere of radius {'√d' if inputs.radius is None else f'{inputs.radius:g}'}"
    start, deviation = table.start, "d^-1/2" if table.start.inner is None else f"{table.start.inner:g}"
    return (
        f"f = Σ a_j relu(b_j·x) and f = (1/m) Σ a_j relu(b_j·x), x ∈ R^{table.dimension} {law}, target {_target_words(table)}; "
        f"at the start a_j {'= 0' if start.outer == 0.0 else f'~ N(0, {start.outer:g}²)'}, b_j ~ N(0, ({deviation})² I)"
    )


def _target_words(table: TwoScalingsTable) -> str:
    target = table.target
    if isinstance(target, SingleNeuron):
        return "relu(x_1)"
    if isinstance(target, DrawnNeurons):
        return f"the mean of {counted(target.count, 'random neuron')}"
    if isinstance(target, GivenNeurons):
        return counted(len(target.neurons), "neuron")
    return "∫relu(b·x)π(db), π uniform on the circle"


def _training_words(part: Part) -> str:
    if part.method == "gradient_descent":
        rate = "a rate from the sharpness" if part.learning_rate is None else f"rate {part.learning_rate:g}"
        words = f"gradient descent with {rate}"
    else:
        words = "gradient flow" if part.step is None else f"gradient flow in steps of {part.step:g}"
    where = "" if part.dimension is None else f" in R^{part.dimension}"
    return f"{words}{where} up to t = {part.end:g}, {counted(part.seeds, 'seed')}"


def samples_words(samples: int | None) -> str:
    """Over what the risk is taken."""
    return "population risk" if samples is None else counted(samples, "sample")


def _curves_line(part: CurvesTable | None) -> str:
    return "" if part is None else f"curves: m = {part.width}, {samples_words(part.samples)}; {_training_words(part)}"


def _heat_line(part: HeatMapTable | None) -> str:
    if part is None:
        return ""
    return f"heat map: m = {', '.join(map(str, part.widths))}; n = {', '.join(map(str, part.samples))}; {_training_words(part)}"


def _lazy_line(part: LazyTable | None) -> str:
    if part is None:
        return ""
    return f"lazy: m = {', '.join(map(str, part.widths))}, {samples_words(part.samples)}; {_training_words(part)}"
