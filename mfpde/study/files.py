"""What the files of every study say about where they come from."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mfpde.batch import write_text
from mfpde.case import CaseFile, StudyCase
from mfpde.storage import Label


def study_origin(case: CaseFile | StudyCase, kind: str, label: str) -> dict[str, Any]:
    """Attributes of a study of the solver with this kind and label."""
    origin = Label(case.table.title, case.text, case.overrides, kind, label).attributes()
    kept = {name: value for name, value in origin.items() if name not in ("seed", "fingerprint")}
    return kept | {"created": datetime.now(UTC).isoformat(timespec="seconds")}


def write_study_json(folder: Path, title: str, data: dict[str, Any], origin: dict[str, Any]) -> None:
    """study.json: the plain data with their provenance."""
    plain = {name: json.loads(value) if name in ("overrides", "versions") else value for name, value in origin.items()}
    write_text(folder / "study.json", json.dumps({"title": title, **data, "provenance": plain}, indent=1, allow_nan=False))
