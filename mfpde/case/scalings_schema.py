"""The tables of a study of conventional and mean-field scaling."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mfpde.case.tables import Number, Positive, Table

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Width = Annotated[int, Field(ge=1, le=100_000)]
Dimension = Annotated[int, Field(ge=1, le=100_000)]
SampleCount = Annotated[int, Field(ge=1, le=10_000_000)]


class GaussianInputTable(Table):
    """x = scale · N(0, I)."""

    law: Literal["normal"]
    scale: Positive = 1.0


class SphereInputTable(Table):
    """x uniform on the sphere |x| = radius."""

    law: Literal["sphere"]
    radius: Positive | None = Field(None, description="default: the square root of the dimension")


InputTable = Annotated[GaussianInputTable | SphereInputTable, Field(discriminator="law")]


class SingleNeuron(Table):
    """f*(x) = relu(x_1)."""

    kind: Literal["neuron"]


class GivenNeurons(Table):
    """f*(x) = Σ_k α_k relu(w_k·x)."""

    kind: Literal["neurons"]
    neurons: list[Annotated[list[Number], Field(min_length=1, max_length=100_000)]] = Field(min_length=1, max_length=10_000)
    weights: list[Number] | None = Field(None, description="default: equal, of sum one")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        lengths = sorted({len(row) for row in self.neurons})
        if len(lengths) > 1:
            raise ValueError(f"the neurons must have equally many coordinates, got {' and '.join(map(str, lengths))}")
        if any(not any(row) for row in self.neurons):
            raise ValueError("a neuron of the target must not be 0")
        if self.weights is not None and len(self.weights) != len(self.neurons):
            raise ValueError(f"needs one weight for each neuron, got {len(self.weights)} for {len(self.neurons)}")
        return self


class DrawnNeurons(Table):
    """f*(x) = (1/M) Σ_k relu(w_k·x), w_k drawn uniformly from the unit sphere."""

    kind: Literal["random_neurons"]
    count: Annotated[int, Field(ge=1, le=10_000)]
    seed: Seed = 0


class CircleNeuron(Table):
    """f*(x) = ∫relu(b·x)π(db), π uniform on the unit circle of the first two coordinates."""

    kind: Literal["circle"]


TargetTable = Annotated[SingleNeuron | GivenNeurons | DrawnNeurons | CircleNeuron, Field(discriminator="kind")]


class StartTable(Table):
    """Networks before training: a_j ~ N(0, outer²), b_j ~ N(0, inner² I)."""

    outer: Annotated[float, Field(ge=0.0, le=1e30)] = 0.0
    mean_field_outer: Annotated[float, Field(ge=0.0, le=1e30)] | None = Field(
        None, description="under the mean-field scaling; default: as outer"
    )
    inner: Positive | None = Field(None, description="default: d^(-1/2)")


class TrainedTable(Table):
    """How networks are trained, in every part of the study."""

    end: Positive = Field(description="the time of the last state; mean-field time is rescaled by the width, (0.13) of the slides")
    method: Literal["gradient_flow", "gradient_descent"]
    tolerance: Annotated[float, Field(ge=1e-13, le=1e-2)] | None = Field(
        None, description="of the gradient flow: error of a step; default: 1e-8, on samples 1e-5, as steps there shrink with the tolerance"
    )
    step: Positive | None = Field(None, description="of the gradient flow: a fixed step instead of the tolerance")
    learning_rate: Positive | None = Field(
        None, description="of gradient descent; default: from the sharpness at the start, so that it is stable"
    )
    seeds: Annotated[int, Field(ge=1, le=10_000)] = Field(5, description="how many starts (and sets of samples)")
    seed: Seed = Field(0, description="the first of them")
    dimension: Dimension | None = Field(None, description="d in this part; default: that of the study")

    @model_validator(mode="after")
    def _one_control(self) -> Self:
        if self.method == "gradient_descent":
            wrong = [name for name in ("tolerance", "step") if getattr(self, name) is not None]
            if wrong:
                raise ValueError(f'`{wrong[0]}` is that of method = "gradient_flow"; gradient descent has a `learning_rate`')
        elif self.learning_rate is not None:
            raise ValueError('`learning_rate` is that of method = "gradient_descent"; the gradient flow has a `tolerance` or a `step`')
        if self.step is not None and self.tolerance is not None:
            raise ValueError("`step` switches the error control off, so it cannot stand beside `tolerance`; leave one of them out")
        return self


class CurvesTable(TrainedTable):
    """Networks of one width over time, from several seeds."""

    method: Literal["gradient_flow", "gradient_descent"] = "gradient_flow"
    width: Width = Field(description="m, the number of neurons")
    samples: SampleCount | None = Field(None, description="n, of the empirical risk; default: the population risk")
    count: Annotated[int, Field(ge=2, le=100_000)] = Field(60, description="saved times after 0, at equal ratios")
    first: Positive | None = Field(None, description="the first saved time after 0; default: the end over 10000")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first is not None and self.first >= self.end:
            raise ValueError(f"`first` must be before `end`, got {self.first:g} and {self.end:g}")
        return self


class HeatMapTable(TrainedTable):
    """Networks of many widths on many numbers of samples."""

    method: Literal["gradient_flow", "gradient_descent"] = "gradient_descent"
    widths: list[Width] = Field(min_length=1, max_length=1000)
    samples: list[SampleCount] = Field(min_length=1, max_length=1000)
    seeds: Annotated[int, Field(ge=1, le=10_000)] = 3

    @field_validator("widths", "samples")
    @classmethod
    def _increasing(cls, values: list[int]) -> list[int]:
        return _ordered(values)


class LazyTable(TrainedTable):
    """How far conventional networks leave their random-feature models, by width."""

    method: Literal["gradient_flow", "gradient_descent"] = "gradient_flow"
    widths: list[Width] = Field(min_length=3, max_length=1000)
    samples: SampleCount | None = Field(None, description="n, of the empirical risk; default: the population risk")
    count: Annotated[int, Field(ge=2, le=100_000)] = Field(20, description="times at which the distance is taken, at equal ratios")
    expected: Number | None = Field(None, description="the slope of the distance in m must not be above this one")
    allowance: Annotated[float, Field(ge=0.0, le=10.0)] | None = Field(None, description="by how much it may be; default: 0.1")

    @field_validator("widths")
    @classmethod
    def _increasing(cls, values: list[int]) -> list[int]:
        return _ordered(values)

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if self.allowance is not None and self.expected is None:
            raise ValueError("`allowance` goes with `expected`")
        return self


class TwoScalingsTable(Table):
    """Two-layer relu networks f = Σ_j a_j relu(b_j·x) and f = (1/m) Σ_j a_j relu(b_j·x) in training, beside random features."""

    kind: Literal["two_scalings"]
    dimension: Dimension = Field(description="d, of the inputs")
    inputs: InputTable = Field(default_factory=lambda: GaussianInputTable(law="normal"))
    target: TargetTable
    start: StartTable = Field(default_factory=lambda: StartTable.model_validate({}))
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1, description="a neuron is activated from this share of the largest |a_j||b_j| on"
    )
    curves: CurvesTable | None = None
    heat_map: HeatMapTable | None = None
    lazy: LazyTable | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.curves is None and self.heat_map is None and self.lazy is None:
            raise ValueError("needs at least one of the tables [study.curves], [study.heat_map], [study.lazy]")
        return self


def _ordered(values: list[int]) -> list[int]:
    """The values. Raises ValueError unless they increase."""
    for before, after in pairwise(values):
        if after <= before:
            raise ValueError(f"the numbers must increase, got {after} after {before}")
    return values
