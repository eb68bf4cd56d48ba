"""What all tables of case files are made of: strict models, and the numbers and texts that stand in them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST = 1e30
LEAST = 1e-30
NO_CONTROL = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"
Number = Annotated[float, Field(ge=-MOST, le=MOST)]
Positive = Annotated[float, Field(ge=LEAST, le=MOST)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=NO_CONTROL)]
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


def check_distinct(table: BaseModel, *names: str) -> None:
    """Raises ValueError where a list holds an element twice."""
    for name in names:
        values = getattr(table, name) or []
        if len(set(values)) < len(values):
            raise ValueError(f"`{name}` holds one of its elements twice, got {values}")
