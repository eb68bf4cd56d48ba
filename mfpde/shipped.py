"""The cases that come with the package, in a wheel as in the source tree."""

import difflib
import shutil
import tomllib
from pathlib import Path


class ShippedError(ValueError):
    """An unknown case, or one that would overwrite a file."""


def cases_folder() -> Path:
    """Where the shipped cases are. Raises ShippedError if they are missing."""
    inside = Path(__file__).parent / "cases"
    beside = Path(__file__).resolve().parent.parent / "cases"
    for folder in (inside, beside):
        if (folder / "teacher_student.toml").is_file():
            return folder
    raise ShippedError("the shipped cases are missing from this installation")


def is_shipped(name: str) -> bool:
    """Whether a shipped case has this name."""
    try:
        return name.removesuffix(".toml") in [path.stem for path in cases_folder().glob("*.toml")]
    except ShippedError:
        return False


def describe_cases() -> list[str]:
    """One line a case: its name and title."""
    paths = sorted(cases_folder().glob("*.toml"))
    width = max(len(path.stem) for path in paths)
    return [f"{path.stem:{width}}  {tomllib.loads(path.read_text(encoding='utf-8')).get('title', '')}" for path in paths]


def copy_case(name: str, folder: Path) -> list[str]:
    """Copy a case and the data files that it names; returns the paths written. Raises ShippedError."""
    source = cases_folder() / f"{name.removesuffix('.toml')}.toml"
    names = sorted(path.stem for path in cases_folder().glob("*.toml"))
    if name.removesuffix(".toml") not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise ShippedError(f'no shipped case is called "{name}"; there are {", ".join(names)}{hint}')
    text = source.read_text(encoding="utf-8")
    wanted = [source, *(path for path in sorted(cases_folder().glob("*.csv")) if path.name in text)]
    for path in wanted:
        if (folder / path.name).exists():
            raise ShippedError(f"{folder / path.name} exists already")
    folder.mkdir(parents=True, exist_ok=True)
    return [str(shutil.copyfile(path, folder / path.name)) for path in wanted]
