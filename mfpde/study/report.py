"""What a study finds, whatever it is about, and its way to the terminal, the files and the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mfpde.batch import Options, write_text
from mfpde.case import CaseFile, StudyCase
from mfpde.console import tell, warn
from mfpde.storage import write_arrays
from mfpde.study.files import study_origin, write_study_json

Arrays = dict[str, tuple[tuple[str, ...], Any]]


class Report(Protocol):
    """What a study has found."""

    def text(self) -> str:
        """For the terminal."""

    def data(self) -> dict[str, Any]:
        """For study.json: plain numbers, texts, lists and tables, None for what is not a number."""

    def csv(self) -> str:
        """For study.csv."""

    def arrays(self) -> tuple[dict[str, Any], Arrays]:
        """For study.h5: dimension scales, and arrays with the names of their dimensions."""

    def missed(self) -> list[str]:
        """What was expected and is not so, one line each."""

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the figures; returns their paths."""


def deliver(report: Report, case: CaseFile | StudyCase, kind: str, label: str, folder: Path, options: Options) -> list[str]:
    """Print a report, and write study.json, study.csv, study.h5 with where they come from, and the figures; returns what was missed."""
    tell(report.text())
    origin, wrong = study_origin(case, kind, label), report.missed()
    write_study_json(folder, case.table.title, report.data() | {"study": kind, "missed": wrong}, origin)
    write_text(folder / "study.csv", report.csv())
    scales, arrays = report.arrays()
    write_arrays(folder / "study.h5", scales, arrays, {"study": kind} | origin)
    tell(f"  study.json, study.csv, study.h5 in {folder}/")
    if options.formats:
        names = sorted({path.stem for path in report.draw(folder, options.formats)})
        tell(f"  figures: {', '.join(names)} ({', '.join(options.formats)}) in {folder}/")
    for line in wrong:
        warn(f"expected, but missed: {line}")
    return wrong
