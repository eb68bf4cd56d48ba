"""The way of a report to the terminal, the files and the figures."""

from pathlib import Path

from mfpde.batch import Options, write_text
from mfpde.case import CaseFile, StudyCase
from mfpde.console import tell, warn
from mfpde.storage import write_arrays
from mfpde.study.files import study_origin, write_study_json
from mfpde.study.report import Report


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
