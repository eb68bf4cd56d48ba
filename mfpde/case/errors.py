"""One clear message for wrong input: file, line, key, value and what is accepted."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from mfpde.choices import MOST_STEPS

Key = tuple[str | int, ...]


class CaseError(ValueError):
    """Wrong input in a case; ``key`` says where. ``located`` puts the file and line in front."""

    def __init__(self, key: Key, message: str) -> None:
        super().__init__(message)
        self.key = key

    def located(self, source: str, text: str) -> str:
        """``file:line: key: message``."""
        line = line_of(text, self.key)
        place = f"{source}:{line}" if line else source
        named = key_name(self.key)
        return f"{place}: {named}: {self}" if named else f"{place}: {self}"


def check_steps(last: float, step: float, key: Key) -> None:
    """Raises CaseError where steps of this length up to the time ``last`` are so many that the run would not end."""
    if last > MOST_STEPS * step:
        words = f"up to t = {last:g} there would be more than {MOST_STEPS:.0e} steps of {step:.3g}"
        raise CaseError(key, f"{words}; accepted here: what makes steps of {last / MOST_STEPS:.3g} or more")


def key_name(key: Key) -> str:
    """``energy[0].inputs.law`` for ("energy", 0, "inputs", "law")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def shown(value: Any, most: int = 60) -> str:
    """A value as it would stand in the case file, shortened."""
    if isinstance(value, int) and value.bit_length() > 1024:
        return "an integer of too many digits"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= most else text[: most - 1] + "…"


def nearest(word: str, choices: Iterable[str]) -> str:
    """`` (did you mean "…"?)`` if one of the choices is close, else nothing."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f' (did you mean "{found[0]}"?)' if found else ""


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_ENTRY = re.compile(r"""^\s*((?:[\w\-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w\-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(text: str, key: Key) -> int | None:
    """The line of TOML ``text`` that holds ``key``, or the nearest table or entry above it; None if nothing fits."""
    best, depth = None, 0
    for number, place in _places(text):
        common = _common(place, key)
        if common == len(place) and common > depth:
            best, depth = number, common
        elif best is None and common == len(key):
            best = number
    return best


def _places(text: str) -> Iterable[tuple[int, Key]]:
    """Every line that opens a table or an entry, with its full key."""
    prefix: Key = ()
    counts: dict[Key, int] = {}
    inside = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if inside in line else inside
            continue
        inside = next((quotes for quotes in ('"""', "'''") if line.count(quotes) % 2), "")
        header, entry = _HEADER.match(line), _ENTRY.match(line)
        if header:
            prefix = _indexed(_parts(header[2]), counts, header[1] == "[[")
            yield number, prefix
        elif entry:
            yield number, prefix + _parts(entry[1])


def _indexed(parts: Key, counts: dict[Key, int], array: bool) -> Key:
    """Put the current index behind every array of tables on the way."""
    place: Key = ()
    for position, part in enumerate(parts):
        place = (*place, part)
        if array and position == len(parts) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _parts(text: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _common(one: Key, two: Key) -> int:
    count = 0
    for a, b in zip(one, two, strict=False):
        if a != b:
            break
        count += 1
    return count
