"""The table of a study of the modes on a circle."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mfpde.case.tables import Label, Table, check_distinct


class SpectrumTable(Table):
    """How fast each mode of a density on a circle decays, exactly and in runs, and which modes never move."""

    kind: Literal["spectrum"]
    solvers: list[Label] | None = Field(
        None, min_length=1, description="labels; default: all of finite_volume, characteristics and particles without chance"
    )
    modes: Annotated[int, Field(ge=1, le=100)] = Field(8, description="the modes 1, 2, … up to this one")
    amplitude: Annotated[float, Field(ge=1e-5, le=0.1)] = Field(
        1e-3, description="of a mode in the run that measures its rate, beside the stationary density; rates err by about its square"
    )
    tolerance: Annotated[float, Field(ge=1e-8, le=0.1)] = Field(1e-4, description="largest relative error of a measured rate")
    rest_amplitude: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="of a mode that does not move, as a share of what keeps the density positive"
    )
    rest_tolerance: Annotated[float, Field(ge=1e-14, le=1e-2)] = Field(
        1e-10, description="by how much such a density may move, relative to its mean"
    )
    coupling_amplitude: Annotated[float, Field(ge=1e-3, le=0.3)] = Field(
        0.02, description="of two modes that together create one that does not move; a second run has half of it"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "solvers")
        return self
