"""The shape of a case file: strict models that know every key, its type and its range."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

_MOST = 1e30
_NO_CONTROL = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"
Number = Annotated[float, Field(ge=-_MOST, le=_MOST)]
Positive = Annotated[float, Field(ge=1e-30, le=_MOST)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=_NO_CONTROL)]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
Row = Annotated[list[Number], Field(min_length=1, max_length=16)]
ActivationName = Literal[
    "tanh",
    "erf",
    "sigmoid",
    "softplus",
    "relu",
    "gelu",
    "arctan",
    "softsign",
    "gaussian",
    "quadratic",
    "cos",
    "identity",
]


class Table(BaseModel):
    """A table with known keys only, strict types and finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _exactly_one(table: BaseModel, *names: str) -> None:
    given = [name for name in names if getattr(table, name) is not None]
    if len(given) != 1:
        raise ValueError(f"needs exactly one of {', '.join(names)}, got {' and '.join(given) or 'none'}")


class AxisTable(Table):
    """One coordinate of the domain."""

    lower: Number = Field(description="lower end")
    upper: Number = Field(description="upper end")
    periodic: bool = Field(False, description="a circle instead of no-flux walls")
    frozen: bool = Field(False, description="nothing moves along this axis")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"needs lower < upper, got lower = {self.lower}, upper = {self.upper}")
        if self.upper - self.lower < 1e-6 * max(abs(self.lower), abs(self.upper)):
            raise ValueError(f"is too narrow to be resolved at its place, got lower = {self.lower}, upper = {self.upper}")
        if self.periodic and self.frozen:
            raise ValueError("cannot be both periodic and frozen")
        return self


class NormalInputs(Table):
    """x = scale · N(0, I)."""

    law: Literal["normal"]
    scale: Positive = 1.0


class UniformInputs(Table):
    """x uniform on the box [-scale, scale] along every coordinate."""

    law: Literal["uniform"]
    scale: Positive = 1.0


class CircleInputs(Table):
    """x uniform on the circle |x| = scale in the plane."""

    law: Literal["circle"]
    scale: Positive = 1.0


class SampleInputs(Table):
    """x from the rows of a CSV file with a header; lines that start with # are skipped."""

    law: Literal["samples"]
    file: Text = Field(description="path, relative to the case file")
    columns: list[Text] = Field(min_length=1, max_length=16, description="the columns of x, in order")
    standardize: bool | list[Text] = Field(
        False, description="true: scale all columns and the target to mean 0 and variance 1; or the names of some"
    )


Inputs = Annotated[NormalInputs | UniformInputs | CircleInputs | SampleInputs, Field(discriminator="law")]


class Teacher(Table):
    """What the network is to learn: neurons with weights, a density of neurons, or a column of the data."""

    neurons: list[Row] | None = Field(None, min_length=1, max_length=100_000)
    weights: list[Number] | None = Field(None, description="default: equal, of sum one")
    density: Text | None = Field(None, description="expression in the axis names; normalised by the program")
    column: Text | None = Field(None, description="a column of the CSV file of the inputs")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, "neurons", "density", "column")
        if self.weights is not None and (self.neurons is None or len(self.weights) != len(self.neurons)):
            raise ValueError(f"needs one weight for each neuron, got {len(self.weights)} for {len(self.neurons or [])}")
        return self


class TwoLayerTerm(Table):
    """E = ½ E_x(∫σ(x·θ)ρ(dθ) − y(x))²."""

    kind: Literal["two_layer"]
    label: Label | None = None
    activation: ActivationName
    inputs: Inputs = Field(default_factory=lambda: NormalInputs(law="normal"))
    teacher: Teacher
    parameter: Literal["vector", "angle"] = Field("vector", description="angle: the one axis is the angle of a unit vector")
    bias: bool = Field(False, description="the last axis is an offset: σ(a·x + b)")
    tolerance: Annotated[float, Field(ge=1e-14, le=0.1)] | None = Field(None, description="relative error of the compressed features")


class PotentialTerm(Table):
    """∫V dρ."""

    kind: Literal["potential"]
    label: Label | None = None
    density: Text = Field(description="expression V in the axis names")


class EntropyTerm(Table):
    """T ∫ρ log ρ: noise of temperature T = 1/β."""

    kind: Literal["entropy"]
    label: Label | None = None
    temperature: Positive


Term = Annotated[TwoLayerTerm | PotentialTerm | EntropyTerm, Field(discriminator="kind")]


class Initial(Table):
    """The measure at time 0."""

    density: Text | None = Field(None, description="expression in the axis names; normalised by the program")
    atoms: list[Row] | None = Field(None, min_length=1)
    weights: list[Positive] | None = Field(None, description="default: equal; scaled to sum one")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, "density", "atoms")
        if self.weights is not None and (self.atoms is None or len(self.weights) != len(self.atoms)):
            raise ValueError(f"needs one weight for each atom, got {len(self.weights)} for {len(self.atoms or [])}")
        return self


class Time(Table):
    """The times to save: a list, or ``count`` equidistant ones from 0 to ``end``."""

    save: list[Annotated[float, Field(ge=0.0, le=_MOST)]] | None = Field(None, min_length=1, max_length=1_000_000)
    end: Positive | None = None
    count: Annotated[int, Field(ge=2, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, "save", "end")
        if (self.end is None) != (self.count is None):
            raise ValueError("`end` and `count` go together")
        return self

    @field_validator("save")
    @classmethod
    def _increasing(cls, save: list[float] | None) -> list[float] | None:
        for before, after in pairwise(save or []):
            if after <= before:
                raise ValueError(f"the times must increase, got {after:g} after {before:g}")
        return save


class FiniteVolumeSolver(Table):
    """Conservative finite volumes on a grid."""

    kind: Literal["finite_volume"]
    label: Label | None = None
    cells: list[Annotated[int, Field(ge=1, le=10_000_000)]] = Field(min_length=1, max_length=3, description="one number for each axis")
    tolerance: Annotated[float, Field(ge=1e-15, le=1e-2)] = Field(1e-8, description="largest L1 error of a time step")


class ParticleSolver(Table):
    """The finite-N particle system."""

    kind: Literal["particles"]
    label: Label | None = None
    count: Count | None = Field(None, description="number of atoms; left out when the initial measure is atoms")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    start: Literal["random", "quantile"] = Field("random", description="independent draws, or the quantiles of the initial density")
    tolerance: Annotated[float, Field(ge=1e-13, le=1e-2)] = Field(1e-9, description="relative and absolute, without entropy")
    step: Positive | None = Field(None, description="largest Euler–Maruyama step; required with an entropy term")


SolverTable = Annotated[FiniteVolumeSolver | ParticleSolver, Field(discriminator="kind")]


class Compare(Table):
    """Which run the others are compared with; the first by default."""

    reference: Label | None = None


class CaseTable(Table):
    """A whole case file."""

    title: Annotated[str, StringConstraints(max_length=500, pattern=_NO_CONTROL)] = ""
    domain: dict[str, AxisTable] = Field(min_length=1, max_length=16, description="one table an axis, in order")
    energy: list[Term] = Field(min_length=1, max_length=32, description="terms, which are summed")
    initial: Initial
    time: Time
    solver: list[SolverTable] = Field(min_length=1, max_length=64)
    compare: Compare = Compare()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of case files, for completion in editors."""
    schema = CaseTable.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mfpde case"
    return schema
