"""The runs of a study, each stored as a result like any other, so that they can be resumed."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mfpde.batch import COMPILING, Options, run_solver
from mfpde.case import CaseFile
from mfpde.case.build import build_solver, fingerprint
from mfpde.console import warn
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.storage import StoredRun, finished_fingerprint
from mfpde.study.refinement import Level, warm_up
from mfpde.study.variants import Variant


def run_all(
    groups: Sequence[Sequence[Variant]], others: Sequence[tuple[CaseFile, int]], problem: Problem, folder: Path, options: Options
) -> list[Status]:
    """Run every variant, after one step of the first of each group that is thrown away, and the other solvers, up to an interruption."""
    statuses: list[Status] = []
    for group in groups:
        if not options.resume or any(not _finished(variant, folder) for variant in group):
            _warm_up(group[0], problem)
        for k, variant in enumerate(group):
            statuses.append(run_solver(variant.case, problem, variant.number, folder, options, remarks=not k))
            if statuses[-1] is Status.INTERRUPTED:
                return statuses
    for case, number in others:
        statuses.append(run_solver(case, problem, number, folder, options, remarks=not statuses))
        if statuses[-1] is Status.INTERRUPTED:
            return statuses
    return statuses


def level_of(variant: Variant, stored: StoredRun) -> Level:
    """What a stored run is in a table of errors."""
    seconds = float(stored.attributes["wall_seconds"])
    return Level(variant.label, variant.cells, stored.run, seconds, variant.step, variant.tolerance)


def _warm_up(variant: Variant, problem: Problem) -> None:
    """One step that is thrown away, with a word on a terminal where it has to wait for the compiler."""
    solver = build_solver(variant.case, variant.number)
    from mfpde.compile import announced

    def tell_terminal() -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            warn(COMPILING)

    with announced(tell_terminal):
        warm_up(solver, problem)


def _finished(variant: Variant, folder: Path) -> bool:
    return finished_fingerprint(folder / f"{variant.label}.h5") == fingerprint(variant.case, variant.number)
