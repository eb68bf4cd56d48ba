"""The problem of stored runs, built again from the case that their files hold."""

import json
from collections.abc import Sequence
from pathlib import Path

from mfpde.case.build import build_problem, problem_digest
from mfpde.case.load import CaseFile, InputError, parse_case
from mfpde.case.schema import NetworkTerm
from mfpde.problem import Problem
from mfpde.storage import StoredRun


class UnknownProblem(ValueError):
    """Why the problem of a run is not known."""


def stored_problem(runs: Sequence[StoredRun]) -> Problem | None:
    """The problem that all ``runs`` share, None where it has no network, for which alone it is needed.

    Data files are looked for beside the first run and in the working folder, and must be those of the run. Raises UnknownProblem.
    """
    digests = {str(run.attributes.get("problem", "")) for run in runs}
    if not runs or digests == {""}:
        return None
    if len(digests) > 1:
        raise UnknownProblem("the runs are of different problems, as far as their files say")
    run, digest = runs[0], digests.pop()
    case: CaseFile | None = None
    try:
        for folder in (run.path.parent, Path()):
            case = parse_case(folder / "case.toml", str(run.attributes.get("case", "")), tuple(json.loads(run.attributes["overrides"])))
            if not any(isinstance(term, NetworkTerm) for term in case.table.energy):
                return None
            if problem_digest(case) == digest:
                return build_problem(case)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise UnknownProblem("the case in the file cannot be read by this version") from error
    raise UnknownProblem("the data of the case are neither beside the run nor here, or have changed")
