"""A lock on each result, so that two processes never write the same run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mfpde.storage.files import ResultError


def lock_result(result: Path) -> BinaryIO | None:
    """Hold a lock on a result until the process ends, where the system has file locks. Raises ResultError if it is held."""
    try:
        import fcntl
    except ImportError:
        return None
    path = _lock_path(result)
    while True:
        handle = path.open("wb")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            message = f"{result}: another mfpde process is writing this run; wait for it or choose another --output"
            raise ResultError(message) from error
        if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
            return handle
        handle.close()


@contextmanager
def locked(result: Path) -> Iterator[None]:
    """Hold the lock of a result inside. Raises ResultError if it is held."""
    result.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_result(result)
    try:
        yield
    finally:
        if lock is not None:
            unlock_result(lock, result)


def unlock_result(lock: BinaryIO, result: Path) -> None:
    """Remove the lock's file while it is still held, so that nobody can hold a removed one, then let go."""
    _lock_path(result).unlink(missing_ok=True)
    lock.close()


def _lock_path(result: Path) -> Path:
    """The file that carries the lock."""
    return result.with_name(f".{result.stem}.lock")
