"""The tables of a study of networks of many layers."""

from itertools import pairwise
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from mfpde.case.tables import ActivationName, Number, Positive, Table, Text, check_distinct

Seed = Annotated[int, Field(ge=0, lt=2**63)]
ScalingName = Literal["mean_field", "centred", "lazy", "residual"]


def _increase(values: list[int]) -> list[int]:
    """The values. Raises ValueError unless they increase."""
    for before, after in pairwise(values):
        if after <= before:
            raise ValueError(f"the numbers must increase, got {after} after {before}")
    return values


Width = Annotated[int, Field(ge=2, le=10_000)]
Widths = Annotated[list[Width], Field(min_length=3, max_length=50), AfterValidator(_increase)]
Depth = Annotated[int, Field(ge=1, le=1000)]
Depths = Annotated[list[Depth], Field(min_length=1, max_length=50), AfterValidator(_increase)]
ThreeDepths = Annotated[list[Depth], Field(min_length=3, max_length=50), AfterValidator(_increase)]
Seeds = Annotated[int, Field(ge=3, le=10_000, description="how many starts")]
NodeCount = Annotated[int, Field(ge=2, le=1000)]


class LawTable(Table):
    """Independent initial weights with this mean and standard deviation, on an interval or normal."""

    law: Literal["uniform", "normal"] = "uniform"
    mean: Number = 0.0
    deviation: Annotated[float, Field(ge=0.0, le=1e6)] = 1.0


class LearntTable(Table):
    """The inputs, drawn once."""

    dimension: Annotated[int, Field(ge=1, le=1000)] = 1
    count: Annotated[int, Field(ge=1, le=100_000)] = Field(description="n, of the risk")
    law: Literal["normal", "uniform"] = Field("normal", description="N(0, scale² I), or uniform with that standard deviation")
    scale: Positive = 1.0
    bias: bool = Field(True, description="whether one more coordinate 1 stands behind those of x")
    test: Annotated[int, Field(ge=0, le=100_000)] = Field(50, description="further inputs at which outputs are compared")
    seed: Seed = 0


class PartTable(Table):
    """What all parts have."""

    seeds: Seeds = 8
    seed: Seed = Field(0, description="the first of them")
    end: Positive = Field(description="the end of training, in the time in which a weight moves by O(1)")
    count: Annotated[int, Field(ge=2, le=10_000)] = Field(20, description="saved times after 0, equidistant")
    tolerance: Annotated[float, Field(ge=1e-13, le=1e-2)] = Field(1e-7, description="error of a time step, the same for all widths")
    allowance: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.1, description="how far an expected slope may lie from the interval")


class ChaosTable(PartTable):
    """Networks under 1/m against their limit m → ∞."""

    depths: Depths = Field(description="hidden layers")
    widths: Widths = Field(description="m, of every hidden layer")
    neurons: Annotated[int, Field(ge=2, le=1000)] = Field(4, description="how many of each layer and start are compared to limit processes")
    nodes: NodeCount = Field(24, description="Gauss nodes of the limit for each coordinate of V, half as many for a")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.neurons > self.widths[0]:
            raise ValueError(f"`neurons` is at most the smallest width {self.widths[0]}, got {self.neurons}")
        return self


class CollapseTable(PartTable):
    """What the neurons of a layer differ by, how far weights move and what is learnt, under every scaling."""

    depths: Depths = Field(description="hidden layers, or residual blocks")
    widths: Widths = Field(description="m")
    scalings: list[ScalingName] = Field(default_factory=lambda: list(get_args(ScalingName)), min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "scalings")
        return self


class ResidualTable(PartTable):
    """Residual networks of many widths and depths against their limits."""

    depths: ThreeDepths = Field(description="L, the number of blocks")
    widths: Widths = Field(description="m, of every block")
    nodes: NodeCount = Field(8, description="Gauss nodes for each random coordinate in the limit m → ∞")


class MultilayerTable(Table):
    """Networks of many layers in the gradient flow of the risk, at finite and infinite width."""

    kind: Literal["multilayer"]
    activation: ActivationName = "tanh"
    inputs: LearntTable
    target: Text = Field(description="f*, an expression in x1, x2, …")
    first: LawTable = Field(default_factory=LawTable, description="of V, and of w in residual blocks")
    middle: LawTable = Field(default_factory=lambda: LawTable(mean=1.0), description="of the weights between hidden layers")
    last: LawTable = Field(default_factory=lambda: LawTable(mean=1.0), description="of a")
    outer: LawTable = Field(default_factory=lambda: LawTable(deviation=0.0), description="of u in residual blocks")
    ends: Literal["trained", "fixed"] = Field("trained", description="whether V and a are trained, under the scalings without residuals")
    chaos: ChaosTable | None = None
    collapse: CollapseTable | None = None
    residual: ResidualTable | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.chaos is None and self.collapse is None and self.residual is None:
            raise ValueError("needs at least one of the tables [study.chaos], [study.collapse], [study.residual]")
        return self
