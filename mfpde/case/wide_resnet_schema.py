"""The table of a study of the wide residual network and its expansions."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mfpde.case.tables import Label, Number, Positive, Table, check_distinct


class WideResNetTable(Table):
    """The wide residual network beside its expansions to first and second order: losses along all flows, error orders, many levels."""

    kind: Literal["wide_resnet"]
    solver: Label | None = Field(None, description="label of the solver that makes the three runs; default: the first")
    radii: list[Annotated[float, Field(ge=1e-6, le=1e3)]] = Field(
        [0.001, 0.002, 0.004, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8],
        min_length=3,
        max_length=64,
        description="factors r of all parameters, θ to rθ, in which errors have orders",
    )
    depths: list[Annotated[int, Field(ge=1, le=10_000)]] | None = Field(
        None,
        min_length=3,
        max_length=64,
        description="numbers of levels L of networks of one ρ(θ, ε), against L → ∞; default: 1, 2, 4, 8 and 16 times the parts of "
        "the depth in which this ρ is known",
    )
    law: Literal["initial", "final"] = Field("final", description="that ρ: the first or the last saved state of the exact network's flow")
    orders: list[Number] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="of the errors in r to first and second order; default: as the activation has them at 0",
    )
    allowance: Positive = Field(0.15, description="how far a fitted order may be from the expected one")
    rise: bool | None = Field(None, description="whether the exact loss must rise late along the flow of E1; default: nothing is expected")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "radii", "depths")
        return self
