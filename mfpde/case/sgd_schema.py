"""The tables of a study of the linear stability of stochastic gradient descent."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mfpde.case.tables import ActivationName, Positive, Table

Seed = Annotated[int, Field(ge=0, lt=2**63)]
SampleCount = Annotated[int, Field(ge=2, le=100_000)]
RunCount = Annotated[int, Field(ge=20, le=10_000_000)]
Coefficient = Annotated[float, Field(ge=1e-12, le=1e12)]


def _increasing(values: list[float]) -> list[float]:
    for before, after in pairwise(values):
        if after <= before:
            raise ValueError(f"the numbers must increase, got {after:g} after {before:g}")
    return values


def _increasing_counts(values: list[int]) -> list[int]:
    _increasing([float(value) for value in values])
    return values


Rates = Annotated[list[Coefficient], Field(min_length=1, max_length=100), AfterValidator(_increasing)]
Sizes = Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(min_length=1, max_length=20), AfterValidator(_increasing_counts)]
Times = Annotated[list[Coefficient], Field(min_length=1, max_length=100), AfterValidator(_increasing)]
Counts = Annotated[list[Annotated[int, Field(ge=2, le=100_000)]], Field(min_length=1, max_length=20), AfterValidator(_increasing_counts)]


class BatchesTable(Table):
    """How minibatches are drawn."""

    replacement: bool = Field(False, description="samples of a batch are drawn independently, with replacement")


class DiagramTable(BatchesTable):
    """The mean square of SGD on a line over sharpness and non-uniformity, exact and of runs."""

    samples: SampleCount = Field(description="n")
    learning_rates: Rates
    batches: Sizes
    points: Annotated[int, Field(ge=2, le=100)] = Field(8, description="values of the sharpness, and of the non-uniformity, with runs")
    runs: RunCount = 2000
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="of a run at most; fewer where the square gets too broad a law to be averaged"
    )


class EscapeTable(BatchesTable):
    """SGD from beside the minimum 1 of f = (1/n) Σ min(l_i x², r_i (x − 1)²)."""

    left: list[Coefficient] = Field([1.0, 1.0], min_length=1, max_length=1000, description="l_i")
    right: list[Coefficient] = Field([0.1, 1.9], min_length=1, max_length=1000, description="r_i")
    copies: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="how often the functions are repeated, for larger batches")
    learning_rates: Rates
    batches: Sizes
    distance: Annotated[float, Field(ge=1e-100, lt=1.0)] = Field(1e-5, description="from the minimum 1 at the start")
    steps: Annotated[int, Field(ge=1, le=100_000)] = 400
    runs: RunCount = 1000

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.left) != len(self.right):
            raise ValueError(f"`left` and `right` need equally many coefficients, got {len(self.left)} and {len(self.right)}")
        return self


class DataTable(BatchesTable):
    """Inputs x ~ N(0, I) in R^d with y = Σ ± σ(w_k·x) + noise, the mean for particles, w_k ~ N(0, steepness² I/d)."""

    dimension: Annotated[int, Field(ge=1, le=10_000)] = Field(description="d")
    samples: SampleCount = Field(description="n")
    activation: ActivationName = "tanh"
    teacher: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="neurons of the target")
    steepness: Positive = 2.0
    noise: Annotated[float, Field(ge=0.0, le=1e6)] = Field(0.0, description="deviation of the noise of the targets")


class TrainingTable(DataTable):
    """Two-layer networks f = s Σ a_j σ(b_j·x + c_j) trained by SGD from one start with every learning rate and batch."""

    width: Annotated[int, Field(ge=1, le=10_000)] = Field(description="m, the number of neurons")
    factor: Coefficient | None = Field(None, description="s; default: m^(-1/2)")
    learning_rates: Rates
    batches: Sizes
    steps: Annotated[int, Field(ge=100, le=100_000_000)] = Field(20_000, description="of a run at most")
    tolerance: Annotated[float, Field(ge=1e-25, le=1e6)] = Field(1e-6, description="a run ends when its loss is at most this")
    seeds: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="how many starts")


class ParticlesTable(DataTable):
    """Fluctuations of the loss of N particles in SGD, with the time step kept and with the learning rate kept."""

    replacement: bool = True
    counts: Counts = Field(description="N, numbers of particles")
    time_step: Coefficient = Field(description="τ = α/N; in the second series α = τN of the smallest N is kept")
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    times: Times = Field(description="at which the loss is looked at, multiples of the time step")
    runs: RunCount = 1000


class SgdStabilityTable(Table):
    """Which minima stochastic gradient descent can stay at, and what its noise does."""

    kind: Literal["sgd_stability"]
    seed: Seed = 0
    diagram: DiagramTable | None = None
    escape: EscapeTable | None = None
    training: TrainingTable | None = None
    particles: ParticlesTable | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any((self.diagram, self.escape, self.training, self.particles)):
            raise ValueError("needs at least one of the tables [study.diagram], [study.escape], [study.training], [study.particles]")
        return self


__all__ = ["DiagramTable", "EscapeTable", "ParticlesTable", "SgdStabilityTable", "TrainingTable"]
