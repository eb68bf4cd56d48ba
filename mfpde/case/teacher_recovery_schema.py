"""The table of a study of teacher recovery."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mfpde.case.tables import ActivationName, Label, Positive, Table, Text, check_distinct

Outcome = Literal["recovered", "function", "unlearned"]


class TeacherRecoveryTable(Table):
    """From several starts and with several activations: is the teacher's measure reached, or only its function?"""

    kind: Literal["teacher_recovery"]
    solver: Label | None = Field(None, description="label of the solver that makes all runs; default: the first")
    starts: dict[Label, Text] = Field(
        default_factory=dict,
        max_length=20,
        description="initial densities beside that of the case, which is called initial: name = expression",
    )
    activations: list[ActivationName] | None = Field(None, min_length=1, description="default: that of the case")
    distance: Positive | None = Field(
        None,
        description="W2 to the teacher's measure up to which it is recovered, if its function is learned; default: a hundredth of the "
        "domain's diagonal",
    )
    residual: Annotated[float, Field(ge=1e-12, le=1.0)] = Field(
        0.01, description="up to which |student - teacher| / |teacher| in L²(μ) means that the teacher's function is learned"
    )
    expected: dict[Label, Outcome] = Field(
        default_factory=dict, description="outcomes at the last time, by activation, or by run as activation-start"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "activations")
        if "initial" in self.starts:
            raise ValueError("`starts` cannot hold the name initial, which is the case's own initial measure; choose another")
        return self
