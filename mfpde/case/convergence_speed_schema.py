"""The table [study] of kind "convergence_speed"."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mfpde.case.tables import Label, Positive, Table, check_distinct


class ExpectedSpeed(Table):
    """What the clusters of every run must show."""

    ratio: Positive | None = Field(None, description="rate of the heaviest teacher atom's cluster over that of the lightest's")
    regime: Literal["decoupled", "coupled"] | None = None
    first: Literal["heaviest", "lightest"] | None = Field(None, description="whose cluster has the larger rate")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.ratio is None and self.regime is None and self.first is None:
            raise ValueError(f"needs at least one of {', '.join(type(self).model_fields)}")
        return self


class ConvergenceSpeedTable(Table):
    """How fast the student's mass around each teacher atom converges to it, and in which regime the ratio of their weights is seen."""

    kind: Literal["convergence_speed"]
    solvers: list[Label] | None = Field(None, min_length=1, description="labels; default: all that follow the flow in time")
    tolerance: Annotated[float, Field(ge=1e-6, le=0.5)] = Field(
        0.02, description="how far, relatively, measured rates may be from the eigenvalues, and the ratio from the expected one"
    )
    linearity: Annotated[float, Field(ge=1e-6, le=0.2)] = Field(
        0.01, description="rates are fitted while velocities are linear in the distance to the fixed point within this, relatively"
    )
    expected: ExpectedSpeed | None = Field(None, description="what every run must show")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "solvers")
        return self
