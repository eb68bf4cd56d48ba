"""A case with other choices of one solver, which is what most runs of a study solve, and the solver that is a study's reference."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from mfpde.case import CaseFile, schema
from mfpde.case.errors import CaseError, Key, nearest, shown


@dataclass(frozen=True, eq=False)
class Variant:
    """The case with other choices of one solver: what one run of a study solves. The solver's label names the run."""

    case: CaseFile
    number: int
    cells: tuple[int, ...]
    step: float
    tolerance: float

    @property
    def label(self) -> str:
        """The run's name."""
        return self.case.labels[self.number]


def varied(case: CaseFile, number: int, name: str, changes: dict[str, Any], dropped: Collection[str], key: Key) -> CaseFile:
    """The case with ``changes`` of one solver and without its keys ``dropped``, with ``name`` as its label.

    Raises CaseError at ``key`` where the solver refuses them.
    """
    solver: Any = case.table.solver[number]
    kept = {k: value for k, value in solver.model_dump(exclude_unset=True).items() if k not in dropped}
    try:
        changed = type(solver).model_validate(kept | changes)
    except ValidationError as error:
        words = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise CaseError(key, f"{words} (in the solver {case.labels[number]} with {changes})") from error
    solvers = [changed.model_copy(update={"label": name}) if k == number else other for k, other in enumerate(case.table.solver)]
    overrides = (*case.overrides, *(f"solver.{case.labels[number]}.{k}={value}" for k, value in changes.items()))
    return replace(case, table=case.table.model_copy(update={"solver": solvers}), overrides=overrides)


def labelled_solver(case: CaseFile, label: str | None) -> int:
    """The index of the solver with this label, the first without one. Raises CaseError."""
    if label is None:
        return 0
    if label not in case.labels:
        raise CaseError(("study", "solver"), f"got {shown(label)}; accepted: {', '.join(case.labels)}{nearest(label, case.labels)}")
    return case.labels.index(label)


def other_solver(case: CaseFile, table: schema.RefinementTable | schema.TimeStepTable, refined: Sequence[int]) -> int | None:
    """The solver that is the reference of those ``refined``, None for the exact density or the finest run. Raises CaseError."""
    if table.reference in (None, "finest"):
        return None
    if table.reference == "exact":
        if table.exact is None:
            raise CaseError(("study", "reference"), 'got "exact", but the key `exact`, the expression of the exact density, is missing')
        return None
    own = [case.labels[number] for number in refined]
    others = [label for label in case.labels if label not in own]
    if table.reference not in others:
        accepted = ", ".join([*(["exact"] if table.exact else []), "finest", *others])
        itself = "; the solver that is refined is no reference for itself" if table.reference in own else ""
        message = f"got {shown(table.reference)}; accepted: {accepted}{nearest(str(table.reference), others)}{itself}"
        raise CaseError(("study", "reference"), message)
    return case.labels.index(table.reference)
