"""The command line in this process, as a user meets it."""

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import numpy as np
import pytest

from mfpde.cli import main
from mfpde.study.ledger import Index, Ledger


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


def interrupt_and_resume(path: object, folder: object, after: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stop a study alone when so many of its parts have ended, go on with it, and return the groups of the parts that were then made."""
    left, done, end = [after], list[str](), Ledger.end

    def end_some(self: Ledger, group: str, index: Index) -> None:
        end(self, group, index)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    def end_noted(self: Ledger, group: str, index: Index) -> None:
        done.append(group)
        end(self, group, index)

    options = ("study", path, "--output", folder, "--no-figures")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "end", end_some)
        assert call(*options).code == 130
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "end", end_noted)
        assert call(*options, "--resume").code == 0
    return done
