"""The table of a study of stationarity."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mfpde.case.tables import MOST, Count, Label, Positive, Table, check_distinct


class ExpectedStationarity(Table):
    """What must hold at the last time of the study, in every run that has the quantity."""

    residual: Positive | None = Field(None, description="the residual in L²(μ) is at most this")
    loss: Positive | None = Field(None, description="the network's loss is at most this")
    dissipation: Positive | None = Field(None, description="the dissipation is at most this")
    invisible_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="the part of |ρ − ρ*|² that the network does not see is at least this"
    )
    invisible_growth: Positive | None = Field(
        None, description="the norm of the invisible part over that at the first time is at least this"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.by_name:
            raise ValueError(f"needs at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def by_name(self) -> dict[str, float]:
        """What is given."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class StationarityTable(Table):
    """How far runs are from the stationary condition ∫σ(x·θ)(ρ − ρ*)dθ = 0 at the times reached, and what of ρ − ρ* it does not see."""

    kind: Literal["stationarity"]
    solvers: list[Label] | None = Field(None, min_length=1, max_length=64, description="labels of the solvers; default: all")
    times: list[Annotated[float, Field(ge=0.0, le=MOST)]] | None = Field(None, min_length=1, description="saved times; default: all")
    cells: list[Count] | None = Field(
        None, min_length=1, max_length=3, description="on which particles become densities; default: those of the first solver on a grid"
    )
    threshold: Annotated[float, Field(ge=1e-14, le=0.5)] = Field(
        1e-6, description="a singular function of Σ is visible from this share of the largest singular value on"
    )
    tolerance: Positive = Field(
        1e-3, description="up to which residual in L²(μ) the condition holds, and to which mean speed nothing moves"
    )
    distance: Positive | None = Field(None, description="W2 up to which ρ is ρ*; default: a hundredth of the domain's diagonal")
    expected: ExpectedStationarity | None = Field(None, description="what must hold at the last time")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "solvers", "times")
        return self
