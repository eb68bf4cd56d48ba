"""Where a run came from: the case, the solver, and the versions and the commit that it was made with."""

import hashlib
import json
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mfpde import __version__


@dataclass(frozen=True)
class Label:
    """What is written beside the numbers: where a run came from."""

    title: str = ""
    case: str = ""
    overrides: tuple[str, ...] = ()
    solver: str = ""
    label: str = ""
    seed: int = -1
    fingerprint: str = ""
    problem: str = ""
    obstacles: tuple[str, ...] = ()
    teacher: str = ""

    def attributes(self) -> dict[str, Any]:
        """Root attributes of the result file."""
        return {
            "title": self.title,
            "case": self.case,
            "case_sha256": hashlib.sha256(self.case.encode()).hexdigest(),
            "overrides": json.dumps(self.overrides),
            "solver": self.solver,
            "label": self.label,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "problem": self.problem,
            "obstacles": json.dumps(self.obstacles),
            "teacher": self.teacher,
            "mfpde_version": __version__,
            "versions": json.dumps(_versions()),
            "git_commit": _git_commit(),
        }


def _versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    names = ("numpy", "scipy", "numba", "pot", "h5py", "matplotlib")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str:
    """The commit of the source tree that this package runs from, empty when it is installed elsewhere."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return ""
    try:
        asked = subprocess.run(["git", "-C", str(top), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
