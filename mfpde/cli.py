"""The command ``mfpde``. Nothing heavy is imported before a command needs it."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mfpde import __version__
from mfpde.console import prepare, tell, warn
from mfpde.signals import terminable

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

_FORMATS = ("png", "pdf", "svg")
_DISTANCES = ("auto", "exact", "sliced", "entropic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 2 wrong input, 3 a solver stopped early or an order was missed, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        prepare()
        with terminable(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            code: int = options.command(options)
    except KeyboardInterrupt:
        warn("interrupted")
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _say(f"{error.filename or 'output'}: {error.strerror or error}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mfpde", description="Mean-field limits, solved and checked.")
    parser.add_argument("--version", action="version", version=f"mfpde {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)

    check = commands.add_parser("check", help="validate a case without running it")
    check.add_argument("case", type=Path)
    _add_set(check)
    check.set_defaults(command=_check)

    _add_study(commands)

    comparison = commands.add_parser("compare", help="compare result files of one problem")
    comparison.add_argument("runs", type=Path, nargs="+", metavar="RUN.h5")
    comparison.add_argument("--reference", help="label of the run to compare with (default: the first)")
    comparison.add_argument("--distance", choices=_DISTANCES, default="auto", help="how W2 is measured in d >= 2 (default: auto)")
    comparison.add_argument("--output", type=Path, help="also write comparison.json and the figures to this folder")
    _add_format(comparison)
    comparison.set_defaults(command=_compare)

    plot = commands.add_parser("plot", help="draw result files")
    plot.add_argument("runs", type=Path, nargs="+", metavar="RUN.h5")
    plot.add_argument("--output", type=Path, help="folder for the figures (default: beside each file)")
    _add_format(plot)
    plot.set_defaults(command=_plot)

    info = commands.add_parser("info", help="say what a result file holds")
    info.add_argument("run", type=Path, metavar="RUN.h5")
    info.set_defaults(command=_info)

    cases = commands.add_parser("cases", help="list the shipped cases, or copy one here")
    cases.add_argument("name", nargs="?", help="a case to copy, with the data that it needs")
    cases.add_argument("--output", type=Path, default=Path("."), help="folder to copy to (default: here)")
    cases.set_defaults(command=_cases)

    schema = commands.add_parser("schema", help="print the JSON Schema of case files, for editors")
    schema.set_defaults(command=_schema)
    return parser


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="run cases: every solver, the results, the comparison, the figures")
    run.add_argument("cases", type=Path, nargs="+", metavar="CASE")
    run.add_argument("--output", type=Path, help="results folder (default: results/CASE-STEM)")
    run.add_argument("--only", nargs="+", default=[], metavar="LABEL", help="run only these solvers")
    run.add_argument("--resume", action="store_true", help="go on from the last checkpoint; finished solvers are kept")
    run.add_argument("--checkpoint", type=float, default=10.0, metavar="SECONDS", help="time between checkpoints (default: 10)")
    run.add_argument("--no-figures", action="store_true", help="draw nothing")
    _add_set(run)
    _add_format(run)
    run.set_defaults(command=_run)


def _add_study(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    study = commands.add_parser(
        "study",
        help="carry out the study of a case: orders of convergence, rates in the number of particles, or a cross-check of all solvers",
    )
    study.add_argument("case", type=Path)
    study.add_argument("--output", type=Path, help="results folder (default: results/CASE-STEM)")
    study.add_argument("--resume", action="store_true", help="go on from the last checkpoint; finished runs are kept")
    study.add_argument("--checkpoint", type=float, default=10.0, metavar="SECONDS", help="time between checkpoints (default: 10)")
    study.add_argument("--no-figures", action="store_true", help="draw nothing")
    _add_set(study)
    _add_format(study)
    study.set_defaults(command=_study)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override keys, e.g. solver.fv.cells=[256]"
    )


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", nargs="+", choices=_FORMATS, default=["png"], help="figure formats (default: png)")


def _say(message: object) -> int:
    warn(message)
    return 2


def _read(path: Path, empty: bool = False) -> "StoredRun":
    """A stored run; one with nothing saved is refused unless it is wanted. Raises ResultError."""
    from mfpde.storage import ResultError, read_run

    stored = read_run(path)
    if not (stored.run.measures or empty):
        raise ResultError(f"{path}: holds no saved time (status {stored.run.status.name})")
    return stored


def _distinct(runs: "list[StoredRun]") -> "list[StoredRun]":
    """Runs whose labels differ: where they do not, the path becomes the label."""
    labels = [run.label for run in runs]
    return [run if labels.count(run.label) == 1 else replace(run, attributes={**run.attributes, "label": str(run.path)}) for run in runs]


def _run(options: argparse.Namespace) -> int:
    from mfpde.batch import Options, run_cases, worst_code
    from mfpde.tables import batch_table

    if not 0.0 <= options.checkpoint < float("inf"):
        return _say(f"--checkpoint needs a nonnegative number of seconds, got {options.checkpoint}")
    chosen = Options(
        output=options.output,
        overrides=tuple(options.set),
        only=tuple(options.only),
        resume=options.resume,
        formats=() if options.no_figures else tuple(dict.fromkeys(options.format)),
        checkpoint_seconds=options.checkpoint,
    )
    outcomes = run_cases(options.cases, chosen)
    if len(options.cases) > 1:
        tell("\n" + batch_table([(o.path, o.words, o.seconds, o.comparison) for o in outcomes]))
    return worst_code(outcomes)


def _check(options: argparse.Namespace) -> int:
    from mfpde.case import InputError, StudyCase, load_study
    from mfpde.case.build import build_problem
    from mfpde.case.describe import describe_terms
    from mfpde.study.alone import plan_alone
    from mfpde.study.plan import plan_study
    from mfpde.tables import counted

    try:
        case = load_study(options.case, tuple(options.set))
        if isinstance(case, StudyCase):
            lines = plan_alone(case).description
            tell("\n".join([f"{options.case}: good", *(f"  {line}" for line in lines)]))
            return 0
        problem = build_problem(case)
        plan = plan_study(case, problem) if case.table.study else None
    except InputError as error:
        return _say(error)
    tell(f"{options.case}: good")
    for text in problem.domain.describe():
        tell(f"  {text}")
    last = problem.save_at[-1]
    for name, text in describe_terms(case.table.energy, problem.energy):
        tell(f"  {name}: {text}")
    times = "the time 0" if last == 0.0 else f"{counted(len(problem.save_at), 'time')} up to {last:g}"
    tell(f"  solvers: {', '.join(case.labels)}; {times}")
    for line in (plan.description, *plan.notes) if plan else ():
        tell(f"  study: {line}")
    return 0


def _study(options: argparse.Namespace) -> int:
    from mfpde.batch import Options
    from mfpde.study.command import study_case

    if not 0.0 <= options.checkpoint < float("inf"):
        return _say(f"--checkpoint needs a nonnegative number of seconds, got {options.checkpoint}")
    formats = () if options.no_figures else tuple(dict.fromkeys(options.format))
    chosen = Options(options.output, tuple(options.set), (), options.resume, formats, options.checkpoint)
    return study_case(options.case, chosen)


def _compare(options: argparse.Namespace) -> int:
    from mfpde.case.stored import UnknownProblem, stored_problem
    from mfpde.compare import compare, other_problems
    from mfpde.storage import ResultError
    from mfpde.tables import comparison_table

    try:
        runs = _distinct([_read(path) for path in options.runs])
        try:
            problem, missing = stored_problem(runs), ""
        except UnknownProblem as error:
            problem, missing = None, str(error)
        comparison = compare(runs, options.reference, problem, options.distance)
    except (ResultError, ValueError) as error:
        return _say(error)
    for remark in other_problems(runs):
        warn(f"warning: {remark}")
    tell(comparison_table(comparison))
    if missing:
        tell(f"  no distance between the networks' functions: {missing}")
    if options.output is not None:
        from mfpde.batch import draw, write_text

        try:
            options.output.mkdir(parents=True, exist_ok=True)
            write_text(options.output / "comparison.json", json.dumps(comparison.as_json(), indent=1))
            draw(runs, comparison, options.output, options.format)
        except OSError as error:
            return _say(f"{error.filename or options.output}: {error.strerror or error}")
    return 0


def _plot(options: argparse.Namespace) -> int:
    from mfpde.figures import draw_run
    from mfpde.storage import ResultError

    stems = [(options.output or path.parent) / path.stem for path in options.runs]
    for path, stem in zip(options.runs, stems, strict=True):
        if stems.count(stem) > 1:
            return _say(f"{path}: the figures of several files would be called {stem}-…; draw them one by one")
    for path in options.runs:
        try:
            paths = draw_run(_read(path), options.output or path.parent, options.format)
        except ResultError as error:
            return _say(error)
        except OSError as error:
            return _say(f"{error.filename or options.output}: {error.strerror or error}")
        tell("\n".join(str(p) for p in paths))
    return 0


def _info(options: argparse.Namespace) -> int:
    from mfpde.storage import ResultError
    from mfpde.tables import info_text

    try:
        tell(info_text(_read(options.run, empty=True)))
    except ResultError as error:
        return _say(error)
    return 0


def _cases(options: argparse.Namespace) -> int:
    from mfpde.shipped import ShippedError, copy_case, describe_cases

    try:
        tell("\n".join(describe_cases() if options.name is None else copy_case(options.name, options.output)))
    except ShippedError as error:
        return _say(error)
    return 0


def _schema(options: argparse.Namespace) -> int:
    from mfpde.case.alone import json_schema

    tell(json.dumps(json_schema(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
