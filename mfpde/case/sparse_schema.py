"""The table of a study of regularised recovery."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mfpde.case.tables import Number, Positive, Table, check_distinct

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Vector = Annotated[list[Number], Field(min_length=2, max_length=100)]


class IsotropicInputs(Table):
    """x = scale · N(0, I), or in the plane uniform on the circle |x| = scale."""

    law: Literal["normal", "circle"] = "normal"
    scale: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0


class SparseTeacher(Table):
    """y(x) = Σ_j c_j relu(θ_j·x)."""

    neurons: list[Vector] = Field(min_length=1, max_length=100, description="θ_j, of any length but 0")
    weights: list[Number] | None = Field(None, description="c_j, of any sign but not 0; default: 1")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        lengths = sorted({len(row) for row in self.neurons})
        if len(lengths) > 1:
            raise ValueError(f"the neurons must have equally many coordinates, got {' and '.join(map(str, lengths))}")
        if any(not any(row) for row in self.neurons):
            raise ValueError("a neuron of the teacher must not be 0")
        if self.weights is not None and (len(self.weights) != len(self.neurons) or not all(self.weights)):
            raise ValueError(f"`weights` needs one number other than 0 for each of the {len(self.neurons)} neurons, got {self.weights}")
        return self


class SparseRecoveryTable(Table):
    """Gradient flows on J(π) = ½E(∫a relu(w·x)dπ − y)² + λ∫|a||w|dπ against its exact sparse minimiser."""

    kind: Literal["sparse_recovery"]
    teacher: SparseTeacher
    inputs: IsotropicInputs = Field(default_factory=IsotropicInputs)
    path_norm: list[Positive] = Field(min_length=1, max_length=20, description="λ, one or more")
    students: Annotated[int, Field(ge=1, le=5000)] = Field(64, description="N, with every second a positive")
    seeds: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="how many starts, with w uniform on the sphere |w| = `radius`")
    seed: Seed = 0
    amplitude: Annotated[float, Field(ge=1e-6, le=1e6)] = Field(0.3, description="|a| at the start")
    radius: Annotated[float, Field(ge=1e-6, le=1e6)] | None = Field(None, description="|w| at the start, at least `amplitude`, the default")
    end: Positive = Field(5000.0, description="the latest time")
    tolerance: Annotated[float, Field(ge=1e-13, le=1e-3)] = Field(1e-12, description="a run ends when J − J* is this share of J*")
    angle: Annotated[float, Field(ge=1e-6, le=1.0)] = Field(0.05, description="within which a student is at a neuron, in radians")
    allowance: Annotated[float, Field(ge=1e-6, le=1.0)] = Field(0.05, description="by which a rate may be off its prediction, relatively")

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        check_distinct(self, "path_norm")
        if self.radius is not None and self.radius < self.amplitude:
            raise ValueError(f"`radius` must be at least `amplitude` ({self.amplitude:g}), got {self.radius:g}")
        if self.inputs.law == "circle" and len(self.teacher.neurons[0]) != 2:
            raise ValueError(f"inputs on a circle need neurons with 2 coordinates, got {len(self.teacher.neurons[0])}")
        return self


__all__ = ["SparseRecoveryTable"]
