"""What a study finds, whatever it is about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

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
