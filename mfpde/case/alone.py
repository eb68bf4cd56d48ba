"""Cases that are a study and nothing else: without domain, energy and solvers. Each kind is one table; this is where they are listed."""

from typing import Annotated, Any, get_args

from pydantic import Field, StringConstraints

from mfpde.case import schema
from mfpde.case.multilayer_schema import MultilayerTable
from mfpde.case.scalings_schema import InputTable, TargetTable, TwoScalingsTable
from mfpde.case.sgd_schema import SgdStabilityTable
from mfpde.case.sparse_schema import SparseRecoveryTable
from mfpde.case.tables import Table

StandAloneTable = Annotated[TwoScalingsTable | SgdStabilityTable | MultilayerTable | SparseRecoveryTable, Field(discriminator="kind")]
"""One of the kinds."""
_UNIONS: dict[str, Any] = {"study": StandAloneTable, "inputs": InputTable, "target": TargetTable}
_TITLE = StringConstraints(max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
_OF_PROBLEMS = ("domain", "energy", "initial", "time", "solver")


class StandAloneCase(Table):
    """A whole case file that is a study alone."""

    title: Annotated[str, _TITLE] = ""
    study: StandAloneTable = Field(description="what `mfpde study` does with this case")


def stand_alone_kinds() -> tuple[str, ...]:
    """The kinds of [study] that need no problem."""
    members = get_args(get_args(StandAloneTable)[0]) if get_args(StandAloneTable) else (StandAloneTable,)
    return tuple(get_args(member.model_fields["kind"].annotation)[0] for member in members)


def stands_alone(data: dict[str, Any]) -> bool:
    """Whether the data of a case file are meant as a study alone: by its kind, or because there is nothing else."""
    study = data.get("study")
    if not isinstance(study, dict):
        return False
    kind = study.get("kind")
    return kind in stand_alone_kinds() or (kind not in _of_problems() and not any(name in data for name in _OF_PROBLEMS))


def _of_problems() -> tuple[str, ...]:
    """The kinds of [study] that are about the problem of the case."""
    members = get_args(get_args(schema.StudyTable)[0])
    return tuple(get_args(member.model_fields["kind"].annotation)[0] for member in members)


def root_of(data: dict[str, Any]) -> type[Table]:
    """The model of a whole case with these data."""
    return StandAloneCase if stands_alone(data) else schema.CaseTable


def union_at(name: str) -> Any:
    """The union of the tables that may stand under this key of a study alone; None for a key without kinds."""
    return _UNIONS.get(name)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of case files of either sort, for completion in editors."""
    whole, alone = schema.json_schema(), StandAloneCase.model_json_schema()
    definitions = whole.pop("$defs", {}) | alone.pop("$defs", {})
    heads = {name: whole.pop(name) for name in ("$schema", "title")}
    return {**heads, "anyOf": [whole, alone], "$defs": definitions}
