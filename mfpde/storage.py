"""Runs in HDF5: immutable parts and a checkpoint while a run goes on, one file with dimension scales when it has ended.

The only module that imports h5py. Every file is written under another name, synchronised and renamed into place, so that a
killed run leaves the last checkpoint whole and no half-written result under its final name.
"""

import errno
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from mfpde import __version__
from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Disk, Domain, Grid
from mfpde.march import Frame
from mfpde.measure import Density, Measure, Particles
from mfpde.run import STEP_FIELDS, Certificate, Run, Status, StepRecord

CHECKPOINT_SECONDS = 10.0
_FORMAT = 1
_IN_MEMORY = 1 << 28


class ResultError(ValueError):
    """A file that is missing, damaged, foreign or busy; the message names it."""


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
            "mfpde_version": __version__,
            "versions": json.dumps(_versions()),
            "git_commit": _git_commit(),
        }


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run read back: its domain, the run itself and the root attributes."""

    path: Path
    domain: Domain
    run: Run
    attributes: dict[str, Any]

    @property
    def label(self) -> str:
        """The solver's label."""
        return str(self.attributes.get("label", self.path.stem))

    @property
    def title(self) -> str:
        """The case's title."""
        return str(self.attributes.get("title", ""))


def write_run(path: Path, run: Run, domain: Domain, label: Label | None = None, wall_seconds: float = 0.0) -> None:
    """Write a whole run to ``path``, atomically."""
    frames = [
        Frame(float(t), measure, {name: float(values[k]) for name, values in run.energy.items()})
        for k, (t, measure) in enumerate(zip(run.times, run.measures, strict=True))
    ]
    chunk = _Chunk(frames, run.certificate.rows)
    _write_result(path, [chunk], domain, label or Label(), run.status, run.message, run.notes, wall_seconds, run.tables)


def read_run(path: Path | str) -> StoredRun:
    """Read a result file. Raises ResultError, which names the file, for anything but a whole result of this program."""
    path = Path(path)
    with _open_result(path) as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        if attributes.get("format", _FORMAT) != _FORMAT:
            raise ResultError(f"{path}: has format {attributes['format']}, but this version of mfpde reads format {_FORMAT}")
        domain = _read_domain(json.loads(attributes["domain"]))
        if not all(isinstance(name, str) for name in domain.names):
            raise ValueError("the name of an axis is no text")
        times = _numbers(file["time"])
        if not (np.isfinite(times).all() and (np.diff(times) > 0.0).all()):
            raise ValueError("/time must be finite and increase")
        status = Status[attributes["status"]]
        names = [name for name in json.loads(attributes["terms"]) if isinstance(name, str)]
        energy = {name: _numbers(file[f"energy_{name}"], times.shape) for name in names}
        rows = np.stack([_numbers(file["steps"][name]) for name in STEP_FIELDS], axis=1)
        notes = tuple(str(note) for note in json.loads(attributes["notes"]))
        attributes["wall_seconds"] = float(attributes["wall_seconds"])
        attributes["label"] = attributes.get("label") or path.stem
        attributes |= {name: str(attributes.get(name, "")) for name in ("title", "label", "solver", "message", "fingerprint")}
        measures = _read_measures(file, domain, len(times))
        run = Run(times, measures, energy, Certificate(rows), status, attributes["message"], notes, _read_tables(file))
    return StoredRun(path, domain, run, attributes)


def write_arrays(
    path: Path, scales: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[str, ...], Any]], attributes: Mapping[str, Any]
) -> None:
    """Write arrays, each with the names of its dimensions, and the ``scales`` of these (numbers or texts) to ``path``, atomically."""

    def fill(file: h5py.File) -> None:
        made = {name: _scale(file, name, _texts(values)) for name, values in scales.items()}
        for name, (dimensions, values) in arrays.items():
            dataset = file.create_dataset(name, data=values)
            for k, dimension in enumerate(dimensions):
                dataset.dims[k].attach_scale(made[dimension])
        for name, value in attributes.items():
            file.attrs[name] = value

    path.parent.mkdir(parents=True, exist_ok=True)
    _publish(path, fill, sum(np.asarray(values).nbytes for _, values in arrays.values()))


def read_attributes(path: Path) -> dict[str, Any]:
    """The root attributes of a result file. Raises ResultError."""
    with _open_result(path) as file:
        return {name: _plain(value) for name, value in file.attrs.items()}


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Frames and step rows (S, 6) that follow one another."""

    frames: list[Frame]
    rows: FloatArray


@dataclass(eq=False)
class PartsRecorder:
    """A recorder on disk: ``folder`` holds parts and a checkpoint until ``finish`` merges them into ``result``.

    ``fingerprint`` says which problem and solver the parts belong to. Raises ResultError where another process is at work in
    the folder, or where the checkpoint to resume from belongs to another problem or is damaged.
    """

    result: Path
    domain: Domain
    label: Label
    resuming: bool = False
    seconds: float = CHECKPOINT_SECONDS
    frames: list[Frame] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    _lock: BinaryIO | None = None
    _digests: list[str] = field(default_factory=list)
    _kept: int = 0
    _elapsed: float = 0.0
    _since: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.result.is_dir():
            raise ResultError(f"{self.result}: is a folder, so the result cannot be written there")
        self.result.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.result)
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
        with _guarded(checkpoint), h5py.File(checkpoint, "r") as file:
            text = file["header"].asstr()[()]
            arrays = {name: item[()] for name, item in file.items() if name != "header"}
            if file.attrs["digest"] != _state_digest(text, arrays):
                raise ResultError(f"{checkpoint}: is damaged; run without --resume")
            header = json.loads(text)
        if header["fingerprint"] != self.label.fingerprint or header["mfpde_version"] != __version__:
            raise ResultError(
                f"{checkpoint}: belongs to another problem, solver or version of mfpde, so it cannot be resumed; run without --resume"
            )
        self._digests, self._kept, self._elapsed = header["parts"], header["frames"], header["elapsed"]
        for number, digest in enumerate(self._digests):
            if _file_digest(self._part(number)) != digest:
                raise ResultError(f"{self._part(number)}: is missing or damaged; run without --resume")
        return arrays | header["scalars"], self._kept

    def step(self, record: StepRecord) -> None:
        """Keep the certificate of a step."""
        self.rows.append(record.row())

    def frame(self, frame: Frame) -> None:
        """Keep a saved time."""
        self.frames.append(frame)

    def checkpoint(self, values: dict[str, Any]) -> None:
        """Write what came since the last checkpoint as a part, then the checkpoint that counts it in."""
        chunk = _Chunk(self.frames, np.array(self.rows, dtype=float).reshape(-1, len(STEP_FIELDS)))
        size = _frame_bytes(chunk.frames) + chunk.rows.nbytes
        self._digests.append(_publish(self._part(len(self._digests)), lambda file: _write_chunk(file, chunk), size))
        self._kept += len(self.frames)
        self.frames, self.rows = [], []
        _publish(self.folder / "checkpoint.h5", lambda file: self._write_state(file, values), 0)
        self._since = time.monotonic()

    def finish(self, status: Status, message: str, notes: tuple[str, ...], tables: Mapping[str, FloatArray] | None = None) -> None:
        """Merge everything into the result and remove the parts; an interrupted run keeps them instead."""
        if status is not Status.INTERRUPTED:
            last = _Chunk(self.frames, np.array(self.rows, dtype=float).reshape(-1, len(STEP_FIELDS)))
            chunks = [*(self._read_part(k) for k in range(len(self._digests))), last]
            _write_result(self.result, chunks, self.domain, self.label, status, message, notes, self._wall(), tables or {})
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let go of the result; what was not checkpointed is dropped, and with it the folder of parts if it is empty."""
        if self._lock is None:
            return
        if self.folder.is_dir() and not any(self.folder.glob("*.h5")):
            shutil.rmtree(self.folder, ignore_errors=True)
        _unlock(self._lock, self.result)
        self._lock = None

    def _wall(self) -> float:
        return self._elapsed + time.monotonic() - self._began

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.h5"

    def _set_aside(self) -> None:
        """Move an unfinished run's parts to a folder beside, replacing those of an earlier one."""
        if not (self.folder / "checkpoint.h5").exists():
            return
        aside = self.folder.with_suffix(".parts.old")
        shutil.rmtree(aside, ignore_errors=True)
        self.folder.rename(aside)
        self.folder.mkdir()

    def _write_state(self, file: h5py.File, values: dict[str, Any]) -> None:
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        header = {
            "fingerprint": self.label.fingerprint,
            "mfpde_version": __version__,
            "parts": self._digests,
            "frames": self._kept,
            "elapsed": self._wall(),
            "scalars": {name: value for name, value in values.items() if name not in arrays},
        }
        for name, value in arrays.items():
            file.create_dataset(name, data=value)
        file.create_dataset("header", data=json.dumps(header))
        file.attrs["digest"] = _state_digest(json.dumps(header), arrays)

    def _read_part(self, number: int) -> _Chunk:
        path = self._part(number)
        with _guarded(path), h5py.File(path, "r") as file:
            names = json.loads(file.attrs["terms"])
            measures = _read_measures(file, self.domain, len(file["time"])) if len(file["time"]) else []
            energies = [{name: float(file[f"energy_{name}"][k]) for name in names} for k in range(len(measures))]
            frames = [Frame(float(t), m, e) for t, m, e in zip(file["time"][:], measures, energies, strict=True)]
            return _Chunk(frames, file["rows"][:])


def remove_parts(result: Path) -> None:
    """Remove what a killed process left beside its finished result, unless a process is at work there. Raises ResultError."""
    folder = result.with_suffix(".parts")
    if folder.is_dir():
        lock = _lock(result)
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            _unlock(lock, result)


def finished_fingerprint(path: Path) -> str | None:
    """The fingerprint of a complete result at ``path``, None if there is no such result."""
    try:
        attributes = read_attributes(path)
    except ResultError:
        return None
    return str(attributes.get("fingerprint")) if attributes.get("status") == Status.DONE.name else None


def _lock_path(result: Path) -> Path:
    return result.with_name(f".{result.stem}.lock")


def _lock(result: Path) -> BinaryIO | None:
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


def _unlock(lock: BinaryIO, result: Path) -> None:
    """Remove the lock's file while it is still held, so that nobody can hold a removed one, then let go."""
    _lock_path(result).unlink(missing_ok=True)
    lock.close()


def _publish(path: Path, fill: Callable[[h5py.File], None], size: int) -> str:
    """Write an HDF5 file of about ``size`` bytes beside ``path``, synchronise it, rename it into place; returns its SHA-256.

    It is composed in memory unless it is large, since a disk that fills up inside the HDF5 library ends the process.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if size > _IN_MEMORY:
            _require_space(path, size)
            with h5py.File(temporary, "w", libver="earliest") as file:
                fill(file)
        else:
            buffer = io.BytesIO()
            with h5py.File(buffer, "w", libver="earliest") as file:
                fill(file)
            temporary.write_bytes(buffer.getbuffer())
        digest = _file_digest(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    _synchronise_folder(path.parent)
    return digest


def _require_space(path: Path, size: int) -> None:
    if shutil.disk_usage(path.parent).free < 1.1 * size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _synchronise_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_digest(path: Path) -> str:
    """SHA-256 of a file, empty if there is none."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""


def _state_digest(header: str, arrays: dict[str, Any]) -> str:
    """SHA-256 of a checkpoint's header and arrays with their types and shapes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _frame_bytes(frames: list[Frame]) -> int:
    return len(frames) * sum(values.nbytes for values in _measure_arrays(frames[0].measure).values()) if frames else 0


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
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


@contextmanager
def _open_result(path: Path) -> Iterator[h5py.File]:
    if path.is_dir():
        raise ResultError(f"{path}: is a folder, not a result file")
    with _guarded(path), h5py.File(path, "r") as file:
        if "mfpde_version" not in file.attrs:
            raise ResultError(f"{path}: an HDF5 file, but not a result of mfpde")
        if "study" in file.attrs:
            raise ResultError(f"{path}: the table of a study, not a run; its runs lie in the folder study beside it")
        yield file


def _write_chunk(file: h5py.File, chunk: _Chunk) -> None:
    frames = chunk.frames
    file.create_dataset("time", data=np.array([f.time for f in frames], dtype=float))
    file.create_dataset("rows", data=chunk.rows)
    file.attrs["terms"] = json.dumps(list(frames[0].energies) if frames else [])
    for name in frames[0].energies if frames else ():
        file.create_dataset(f"energy_{name}", data=np.array([f.energies[name] for f in frames], dtype=float))
    if frames:
        for name, values in _measure_arrays(frames[0].measure).items():
            stacked = values if name == "weight" else np.stack([_measure_arrays(f.measure)[name] for f in frames])
            file.create_dataset(name, data=stacked)


def _measure_arrays(measure: Measure) -> dict[str, FloatArray]:
    if isinstance(measure, Density):
        return {"density": np.reshape(measure.values, measure.grid.cells)}
    return {"position": measure.points, "weight": measure.weights}


def _read_measures(file: h5py.File, domain: Domain, count: int) -> list[Measure]:
    if "density" in file:
        values = _numbers(file["density"])
        if values.shape[0] != count or values.ndim != domain.dimension + 1:
            raise ValueError(f"/density has shape {values.shape}, which does not fit {count} times and {domain.dimension} axes")
        if not (np.isfinite(values).all() and (values >= 0.0).all() and all(frame.any() for frame in values)):
            raise ValueError("/density must be finite, nonnegative and at no time all zero")
        grid = domain.grid(tuple(int(n) for n in values.shape[1:]))
        return [Density(grid, frame) for frame in values]
    if not count:
        return []
    positions, weights = _numbers(file["position"]), _numbers(file["weight"])
    if not (np.isfinite(weights).all() and (weights >= 0.0).all() and weights.any()):
        raise ValueError("/weight must be finite, nonnegative and not all zero")
    if positions.shape != (count, len(weights), domain.dimension):
        raise ValueError(f"/position has shape {positions.shape}, expected {(count, len(weights), domain.dimension)}")
    if not all(domain.contains(points).all() for points in positions):
        raise ValueError("/position leaves the domain")
    return [Particles(points, weights) for points in positions]


def _write_result(
    path: Path,
    chunks: list[_Chunk],
    domain: Domain,
    label: Label,
    status: Status,
    message: str,
    notes: tuple[str, ...],
    wall_seconds: float,
    tables: Mapping[str, FloatArray],
) -> None:
    frames = [frame for chunk in chunks for frame in chunk.frames]
    rows = np.concatenate([chunk.rows for chunk in chunks])

    def fill(file: h5py.File) -> None:
        _write_frames(file, frames, domain)
        _write_steps(file, rows)
        _write_tables(file, tables, [file[name] for name in domain.grid_names if name in file])
        for name, value in label.attributes().items():
            file.attrs[name] = value
        file.attrs["domain"] = json.dumps(_domain_fields(domain))
        file.attrs["terms"] = json.dumps(list(frames[0].energies) if frames else [])
        file.attrs["status"], file.attrs["message"], file.attrs["notes"] = status.name, message, json.dumps(notes)
        file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        file.attrs["wall_seconds"], file.attrs["format"] = wall_seconds, _FORMAT

    path.parent.mkdir(parents=True, exist_ok=True)
    _publish(path, fill, _frame_bytes(frames) + rows.nbytes)


def _domain_fields(domain: Domain) -> Any:
    """A list of axes for a box, a table for a disk."""
    if isinstance(domain, Disk):
        return {"coordinates": domain.coordinates, "radius": domain.radius, "center": domain.center}
    return [{name: getattr(axis, name) for name in ("name", "lower", "upper", "periodic", "frozen")} for axis in domain.axes]


def _read_domain(fields: Any) -> Domain:
    if isinstance(fields, dict):
        return Disk(tuple(fields["coordinates"]), fields["radius"], tuple(fields["center"]))
    return Domain(tuple(Axis(**axis) for axis in fields))


def _write_frames(file: h5py.File, frames: list[Frame], domain: Domain) -> None:
    """The datasets over the saved times, each dimension with its scale."""
    time_scale = _scale(file, "time", np.array([f.time for f in frames], dtype=float))
    series = {name: np.array([f.energies[name] for f in frames], dtype=float) for name in (frames[0].energies if frames else ())}
    for name, values in series.items():
        _dataset(file, f"energy_{name}", values, [time_scale])
    _dataset(file, "energy", np.asarray(sum(series.values(), np.zeros(len(frames)))), [time_scale])
    _dataset(file, "mass", np.array([f.measure.mass for f in frames], dtype=float), [time_scale])
    _dataset(file, "minimum", np.array([f.measure.minimum for f in frames], dtype=float), [time_scale])
    if not frames:
        return
    first = frames[0].measure
    if isinstance(first, Density):
        scales = [_scale(file, name, first.grid.middles(k)) for k, name in enumerate(domain.grid_names)]
        for k, name in enumerate(domain.grid_names):
            _scale(file, f"{name}_edges", first.grid.edges(k))
        _dataset(file, "density", np.stack([_measure_arrays(f.measure)["density"] for f in frames]), [time_scale, *scales], True)
        if isinstance(domain, Disk):
            _write_cells(file, first.grid, domain, scales)
    else:
        particle = _scale(file, "particle", np.arange(len(first.weights)))
        coordinate = _scale(file, "coordinate", np.array(domain.names, dtype=h5py.string_dtype()))
        positions = np.stack([_measure_arrays(f.measure)["position"] for f in frames])
        _dataset(file, "position", positions, [time_scale, particle, coordinate], True)
        _dataset(file, "weight", first.weights, [particle])


def _write_cells(file: h5py.File, grid: Grid, domain: Domain, scales: list[h5py.Dataset]) -> None:
    """The cells' areas and the Cartesian coordinates of their centres, which belong to the density [CF conventions]."""
    for name, values in zip(domain.names, grid.centers.T, strict=True):
        _dataset(file, name, values.reshape(grid.cells), scales)
    _dataset(file, "cell_area", np.reshape(grid.weight, grid.cells), scales)
    file["density"].attrs["coordinates"] = " ".join((*domain.names, "cell_area"))


def _write_steps(file: h5py.File, rows: FloatArray) -> None:
    group = file.create_group("steps")
    scale = _scale(group, "step", np.arange(len(rows)))
    for k, name in enumerate(STEP_FIELDS):
        _dataset(group, name, rows[:, k], [scale])


def _write_tables(file: h5py.File, tables: Mapping[str, FloatArray], axes: list[h5py.Dataset]) -> None:
    """One group for each table, its columns along a common scale ``row``; a column of densities has the grid's scales as well."""
    shape = tuple(axis.size for axis in axes)
    for path, values in tables.items():
        name, column = path.split("/")
        group = file.require_group(name)
        scales = [group["row"] if "row" in group else _scale(group, "row", np.arange(len(values)))]
        if axes and values.shape[1:] == shape:
            scales += axes
        else:
            scales += [_scale(group, f"{column}_{k}", np.arange(n)) for k, n in enumerate(values.shape[1:])]
        _dataset(group, column, values, scales)
    file.attrs["tables"] = json.dumps(list(tables))


def _read_tables(file: h5py.File) -> dict[str, FloatArray]:
    return {path: _numbers(file[path]) for path in json.loads(file.attrs.get("tables", "[]"))}


def _texts(values: Any) -> Any:
    """A list of texts as HDF5 holds it, anything else as it is."""
    plain = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return np.array(values, dtype=h5py.string_dtype()) if plain else values


def _scale(group: h5py.Group, name: str, values: Any) -> h5py.Dataset:
    dataset = group.create_dataset(name, data=values)
    dataset.make_scale(name)
    return dataset


def _dataset(group: h5py.Group, name: str, values: FloatArray, scales: list[h5py.Dataset], framed: bool = False) -> None:
    """A dataset with its scales; framed ones are compressed with one frame to a chunk."""
    options: dict[str, Any] = {}
    if framed and values.size:
        options = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    dataset = group.create_dataset(name, data=values, dtype="f8", **options)
    for k, scale in enumerate(scales):
        dataset.dims[k].attach_scale(scale)


def _numbers(dataset: h5py.Dataset, shape: tuple[int, ...] | None = None) -> FloatArray:
    values = np.asarray(dataset[()], dtype=float)
    if shape is not None and values.shape != shape:
        raise ValueError(f"{dataset.name} has shape {values.shape}, expected {shape}")
    return values


def _plain(value: Any) -> Any:
    """Text and numbers out of h5py's scalars."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _versions() -> dict[str, str]:
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
    top = Path(__file__).resolve().parent.parent
    if not (top / ".git").exists():
        return ""
    try:
        asked = subprocess.run(["git", "-C", str(top), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
