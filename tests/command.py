"""The command line in this process, as a user meets it."""

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import numpy as np

from mfpde.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command did; ``err`` also holds the warnings, which a user would see there."""

    code: int
    out: str
    err: str


def call(*arguments: object) -> Answer:
    """The command's answer, with the floating-point warnings that a user has; never a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with (
        np.errstate(divide="warn", over="warn", invalid="warn"),
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        warnings.simplefilter("always")
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    assert "Traceback" not in err.getvalue()
    return Answer(code, out.getvalue(), err.getvalue() + "".join(str(w.message) for w in warned))
