"""HDF5 files as wholes: published by a rename, read under a guard."""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

_IN_MEMORY = 1 << 28


class ResultError(ValueError):
    """A file that is missing, damaged, foreign or busy; the message names it."""


def publish(path: Path, fill: Callable[[h5py.File], None], size: int) -> str:
    """Write an HDF5 file of about ``size`` bytes beside ``path``, synchronise it, rename it into place; returns its SHA-256.

    It is composed in memory unless it is large, since a disk that fills up inside the HDF5 library ends the process.
    Raises OSError, which names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _compose(temporary, fill, size)
        digest = file_digest(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    _synchronise_folder(path.parent)
    return digest


def _compose(path: Path, fill: Callable[[h5py.File], None], size: int) -> None:
    """Write an HDF5 file through memory, or straight to the disk if it is large and there is space."""
    if size > _IN_MEMORY:
        if shutil.disk_usage(path.parent).free < 1.1 * size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        with h5py.File(path, "w", libver="earliest") as file:
            fill(file)
        return
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        fill(file)
    path.write_bytes(buffer.getbuffer())


def _synchronise_folder(folder: Path) -> None:
    """Make a rename in this folder outlast a crash of the machine, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, empty if there is none."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged or foreign file raises into one ResultError that names it."""
    try:
        yield
    except ResultError:
        raise
    except FileNotFoundError as error:
        raise ResultError(f"{path}: no such file") from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, MemoryError) as error:
        reason = "not an HDF5 file" if "signature" in str(error) else str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultError(f"{path}: not a whole mfpde result ({reason})") from error
