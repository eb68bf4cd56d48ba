"""Words for people: printable, in any encoding, and without stopping a run when nobody listens any more."""

import os
import sys
from typing import TextIO


def prepare() -> None:
    """Make standard output and error take any character, as a replacement if need be."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def printable(text: str) -> str:
    """Control characters, which could steer a terminal, made visible."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def tell(text: str) -> None:
    """Print lines to standard output; a closed one is replaced by nothing."""
    _write(sys.stdout, text)


def warn(message: object) -> None:
    """Print a message to standard error, on one line or, if it has ``problems``, on a line for each of them."""
    for line in getattr(message, "problems", (message,)):
        _write(sys.stderr, f"mfpde: {line}")


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        print("\n".join(printable(line) for line in text.split("\n")) if stream is sys.stdout else printable(text), file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
