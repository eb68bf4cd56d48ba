"""A run that goes on: immutable parts, each with the digest of the part before it, and a checkpoint with that of the last."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from mfpde import __version__
from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.march import Frame
from mfpde.run import Status
from mfpde.storage.files import ResultError, file_digest, guarded, publish
from mfpde.storage.frames import Chunk, read_chunk, write_chunk
from mfpde.storage.label import Label
from mfpde.storage.locks import lock_result, unlock_result
from mfpde.storage.results import Ending, Quantity, write_result

CHECKPOINT_SECONDS = 10.0
_FORMAT = 2


@dataclass(eq=False)
class PartsRecorder:
    """A recorder on disk: ``folder`` holds parts and a checkpoint until ``finish`` merges them into ``result``.

    ``label.fingerprint`` says which problem and solver the parts belong to; ``quantities`` of the saved points are recorded in the
    result. The digest in a checkpoint is that of the last part's file, which holds that of the part before, and so on down to the first:
    one digest stands for all parts, in order. Raises ResultError where another process is at work in the folder, or where the
    checkpoint to resume from belongs to another problem or is damaged.
    """

    result: Path
    domain: Domain
    label: Label
    resuming: bool = False
    seconds: float = CHECKPOINT_SECONDS
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    rows: list[Sequence[float]] = field(default_factory=list)
    _lock: BinaryIO | None = None
    _parts: int = 0
    _digest: str = ""
    _kept: int = 0
    _elapsed: float = 0.0
    _since: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.result.is_dir():
            raise ResultError(f"{self.result}: is a folder, so the result cannot be written there")
        self.result.parent.mkdir(parents=True, exist_ok=True)
        self._lock = lock_result(self.result)
        self.folder.mkdir(exist_ok=True)
        for left in (*self.folder.glob(".*.tmp"), *self.result.parent.glob(f".{self.result.name}.*.tmp")):
            left.unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.result.with_suffix(".parts")

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is long enough ago."""
        return time.monotonic() - self._since >= self.seconds

    def resume(self) -> tuple[dict[str, Any], int] | None:
        """The last checkpoint, or None for a fresh start; an unfinished run that is not resumed is moved aside."""
        checkpoint = self.folder / "checkpoint.h5"
        if not self.resuming:
            self._set_aside()
            return None
        if not checkpoint.exists():
            return None
        header, arrays = _read_state(checkpoint)
        if any(header.get(name) != value for name, value in self._marks().items()):
            raise ResultError(
                f"{checkpoint}: belongs to another problem, solver or version of mfpde, so it cannot be resumed; "
                "give the same --set values as before, or run without --resume to begin again"
            )
        self._parts, self._digest = header["parts"], header["digest"]
        self._kept, self._elapsed = header["frames"], header["elapsed"]
        self._check_parts()
        return arrays | header["scalars"], self._kept

    def steps(self, rows: Sequence[Sequence[float]]) -> None:
        """Keep the certificates of some steps."""
        self.rows.extend(rows)

    def frame(self, frame: Frame) -> None:
        """Keep a saved time."""
        self.frames.append(frame)

    def checkpoint(self, values: dict[str, Any]) -> None:
        """Write what came since the last checkpoint as a part, then the checkpoint that counts it in."""
        chunk, before = Chunk.of(self.frames, self.rows), self._digest

        def fill(file: h5py.File) -> None:
            """The part, chained to the one before."""
            write_chunk(file, chunk)
            file.attrs["before"] = before

        self._digest = publish(self._part(self._parts), fill, chunk.nbytes)
        self._parts += 1
        self._kept += len(self.frames)
        self.frames, self.rows = [], []
        publish(self.folder / "checkpoint.h5", lambda file: self._write_state(file, values), 0)
        self._since = time.monotonic()

    def finish(self, status: Status, message: str, notes: tuple[str, ...], tables: Mapping[str, FloatArray] | None = None) -> None:
        """Merge everything into the result and remove the parts; an interrupted run keeps them instead."""
        if status is not Status.INTERRUPTED:
            chunks = [*(self._read_part(k) for k in range(self._parts)), Chunk.of(self.frames, self.rows)]
            ending = Ending(status, message, notes, self._wall(), tables or {}, self.quantities)
            write_result(self.result, chunks, self.domain, self.label, ending)
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let go of the result; what was not checkpointed is dropped, and with it the folder of parts if it is empty."""
        if self._lock is None:
            return
        if self.folder.is_dir() and not any(self.folder.glob("*.h5")):
            shutil.rmtree(self.folder, ignore_errors=True)
        unlock_result(self._lock, self.result)
        self._lock = None

    def _wall(self) -> float:
        """Seconds spent on the run, with those before it was resumed."""
        return self._elapsed + time.monotonic() - self._began

    def _part(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05d}.h5"

    def _marks(self) -> dict[str, Any]:
        """What a checkpoint must say to be resumed from."""
        return {"fingerprint": self.label.fingerprint, "mfpde_version": __version__, "format": _FORMAT}

    def _set_aside(self) -> None:
        """Move an unfinished run's parts to a folder beside, replacing those of an earlier one."""
        if not (self.folder / "checkpoint.h5").exists():
            return
        aside = self.folder.with_suffix(".parts.old")
        shutil.rmtree(aside, ignore_errors=True)
        self.folder.rename(aside)
        self.folder.mkdir()

    def _check_parts(self) -> None:
        """From the last part back to the first: each is known to be whole before the digest in it is believed."""
        digest = self._digest
        for number in reversed(range(self._parts)):
            path = self._part(number)
            if file_digest(path) != digest:
                raise ResultError(f"{path}: is missing or damaged; run without --resume")
            with guarded(path), h5py.File(path, "r") as file:
                digest = str(file.attrs["before"])

    def _read_part(self, number: int) -> Chunk:
        """The frames and rows of a part. Raises ResultError."""
        path = self._part(number)
        with guarded(path), h5py.File(path, "r") as file:
            return read_chunk(file, self.domain)

    def _write_state(self, file: h5py.File, values: dict[str, Any]) -> None:
        """The checkpoint: the arrays of the state as datasets, all else in a header, and a digest of both."""
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        header = self._marks() | {
            "parts": self._parts,
            "digest": self._digest,
            "frames": self._kept,
            "elapsed": self._wall(),
            "scalars": {name: value for name, value in values.items() if name not in arrays},
        }
        text = json.dumps(header)
        for name, value in arrays.items():
            file.create_dataset(name, data=value)
        file.create_dataset("header", data=text)
        file.attrs["digest"] = _state_digest(text, arrays)


def remove_parts(result: Path) -> None:
    """Remove what a killed process left beside its finished result, unless a process is at work there. Raises ResultError."""
    folder = result.with_suffix(".parts")
    if folder.is_dir():
        lock = lock_result(result)
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            unlock_result(lock, result)


def _read_state(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the arrays of a checkpoint. Raises ResultError if they are not as they were written."""
    with guarded(checkpoint), h5py.File(checkpoint, "r") as file:
        text = file["header"].asstr()[()]
        arrays = {name: item[()] for name, item in file.items() if name != "header"}
        if file.attrs["digest"] != _state_digest(text, arrays):
            raise ResultError(f"{checkpoint}: is damaged; run without --resume")
        return json.loads(text), arrays


def _state_digest(header: str, arrays: dict[str, Any]) -> str:
    """SHA-256 of a checkpoint's header and arrays with their types and shapes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
