"""The result of a run: one HDF5 file with dimension scales, which xarray opens."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mfpde.arrays import FloatArray
from mfpde.disk import Disk
from mfpde.domain import Axis, Domain, Grid
from mfpde.march import Frame
from mfpde.measure import Density
from mfpde.run import STEP_FIELDS, Certificate, Run, Status
from mfpde.storage.datasets import make_dataset, make_scale, numbers, plain
from mfpde.storage.files import ResultError, guarded, publish
from mfpde.storage.frames import Chunk, read_measures
from mfpde.storage.label import Label

Quantity = Callable[[FloatArray], FloatArray]
"""A function of points (N, d), (N,), which is recorded with its mean."""

_FORMAT = 2
_FIRST_FORMAT = 1
_ALWAYS_DEFINED = ("time", "mass", "minimum")


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


@dataclass(frozen=True, eq=False)
class Ending:
    """How a run ended, and what it found besides its measures: tables, ``series`` as of ``Run``, and ``quantities`` to be recorded."""

    status: Status
    message: str = ""
    notes: tuple[str, ...] = ()
    wall_seconds: float = 0.0
    tables: Mapping[str, FloatArray] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    series: Mapping[str, FloatArray] = field(default_factory=dict)


# Writing.


def write_run(path: Path, run: Run, domain: Domain, label: Label | None = None, wall_seconds: float = 0.0) -> None:
    """Write a whole run to ``path``, atomically."""
    frames = [
        Frame(float(t), measure, {name: float(values[k]) for name, values in run.energy.items()})
        for k, (t, measure) in enumerate(zip(run.times, run.measures, strict=True))
    ]
    ending = Ending(run.status, run.message, run.notes, wall_seconds, run.tables, series=run.series)
    write_result(path, [Chunk(frames, run.certificate.rows)], domain, label or Label(), ending)


def write_result(path: Path, chunks: Sequence[Chunk], domain: Domain, label: Label, ending: Ending) -> None:
    """Write a run, which the chunks are in order, to ``path``, atomically."""
    whole = Chunk([frame for chunk in chunks for frame in chunk.frames], np.concatenate([chunk.rows for chunk in chunks]))

    def fill(file: h5py.File) -> None:
        """The frames first, whose scales the tables share."""
        _write_frames(file, whole, domain)
        _write_series(file, {**ending.series, **_series(whole, ending.quantities)})
        _write_steps(file, whole.rows)
        _write_tables(file, ending.tables, [file[name] for name in domain.grid_names if name in file])
        for name, value in (label.attributes() | _attributes(whole, domain, ending)).items():
            file.attrs[name] = value

    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, fill, whole.nbytes)


def _attributes(whole: Chunk, domain: Domain, ending: Ending) -> dict[str, Any]:
    """The root attributes that say what is in the file and how the run ended."""
    return {
        "domain": json.dumps(_domain_fields(domain)),
        "terms": json.dumps(whole.terms),
        "status": ending.status.name,
        "message": ending.message,
        "notes": json.dumps(ending.notes),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": ending.wall_seconds,
        "format": _FORMAT,
    }


def _domain_fields(domain: Domain) -> Any:
    """A list of axes for a box, a table for a disk."""
    if isinstance(domain, Disk):
        return {"coordinates": domain.coordinates, "radius": domain.radius, "center": domain.center}
    return [{name: getattr(axis, name) for name in ("name", "lower", "upper", "periodic", "frozen")} for axis in domain.axes]


def _write_frames(file: h5py.File, whole: Chunk, domain: Domain) -> None:
    """The datasets over the saved times, each dimension with its scale."""
    times = whole.times()
    time_scale = make_scale(file, "time", times)
    series = {name: whole.energy(name) for name in whole.terms}
    for name, values in series.items():
        make_dataset(file, f"energy_{name}", values, [time_scale])
    make_dataset(file, "energy", np.asarray(sum(series.values(), np.zeros(len(times)))), [time_scale])
    make_dataset(file, "mass", np.array([frame.measure.mass for frame in whole.frames], dtype=float), [time_scale])
    make_dataset(file, "minimum", np.array([frame.measure.minimum for frame in whole.frames], dtype=float), [time_scale])
    if whole.frames:
        first = whole.frames[0].measure
        if isinstance(first, Density):
            _write_densities(file, whole, domain, first.grid)
        else:
            _write_particles(file, whole, domain, first.weights)


def _write_densities(file: h5py.File, whole: Chunk, domain: Domain, grid: Grid) -> None:
    """The cell averages over time and the grid's coordinates."""
    scales = [make_scale(file, name, grid.middles(k)) for k, name in enumerate(domain.grid_names)]
    for k, name in enumerate(domain.grid_names):
        make_scale(file, f"{name}_edges", grid.edges(k))
    make_dataset(file, "density", whole.stacked("density"), [file["time"], *scales], framed=True)
    if isinstance(domain, Disk):
        _write_cells(file, grid, domain, scales)


def _write_cells(file: h5py.File, grid: Grid, domain: Domain, scales: list[h5py.Dataset]) -> None:
    """The cells' areas and the Cartesian coordinates of their centres, which belong to the density [CF conventions]."""
    for name, values in zip(domain.names, grid.centers.T, strict=True):
        make_dataset(file, name, values.reshape(grid.cells), scales)
    make_dataset(file, "cell_area", np.reshape(grid.weight, grid.cells), scales)
    file["density"].attrs["coordinates"] = " ".join((*domain.names, "cell_area"))


def _write_particles(file: h5py.File, whole: Chunk, domain: Domain, weights: FloatArray) -> None:
    """The positions over time, and the weights, which stay the same."""
    particle = make_scale(file, "particle", np.arange(len(weights)))
    coordinate = make_scale(file, "coordinate", np.array(domain.names, dtype=h5py.string_dtype()))
    make_dataset(file, "position", whole.stacked("position"), [file["time"], particle, coordinate], framed=True)
    make_dataset(file, "weight", weights, [particle])


def _series(whole: Chunk, quantities: Mapping[str, Quantity]) -> dict[str, FloatArray]:
    """The means of quantities at the saved times, (T,), and of particles also one by one, (T, N), under the name with `_of_particles`."""
    found: dict[str, FloatArray] = {}
    for name, quantity in quantities.items() if whole.frames else ():
        measures = [frame.measure for frame in whole.frames]
        values = [quantity(measure.points) for measure in measures]
        found[name] = np.array([float(m.weights @ v) / float(np.sum(m.weights)) for m, v in zip(measures, values, strict=True)])
        if not isinstance(measures[0], Density):
            found[f"{name}_of_particles"] = np.stack(values)
    return found


def _write_series(file: h5py.File, series: Mapping[str, FloatArray]) -> None:
    """What is recorded besides energies, over the saved times and particles."""
    for name, values in series.items():
        make_dataset(file, name, values, [file["time"], *([file["particle"]] if values.ndim > 1 else [])], framed=values.ndim > 1)
    file.attrs["series"] = json.dumps(list(series))


def _write_steps(file: h5py.File, rows: FloatArray) -> None:
    """The certificate, one column for each of its fields."""
    group = file.create_group("steps")
    scale = make_scale(group, "step", np.arange(len(rows)))
    for k, name in enumerate(STEP_FIELDS):
        make_dataset(group, name, rows[:, k], [scale])


def _write_tables(file: h5py.File, tables: Mapping[str, FloatArray], axes: list[h5py.Dataset]) -> None:
    """One group for each table, its columns along a common scale ``row``; a column of densities has the grid's scales as well."""
    shape = tuple(axis.size for axis in axes)
    for path, values in tables.items():
        name, column = path.split("/")
        group = file.require_group(name)
        scales = [group["row"] if "row" in group else make_scale(group, "row", np.arange(len(values)))]
        if axes and values.shape[1:] == shape:
            scales += axes
        else:
            scales += [make_scale(group, f"{column}_{k}", np.arange(n)) for k, n in enumerate(values.shape[1:])]
        make_dataset(group, column, values, scales)
    file.attrs["tables"] = json.dumps(list(tables))


# Reading.


def read_run(path: Path | str) -> StoredRun:
    """Read a result file. Raises ResultError, which names the file, for anything but a whole result of this program."""
    path = Path(path)
    with _open_result(path) as file:
        attributes = {name: plain(value) for name, value in file.attrs.items()}
        _check_format(path, attributes.get("format", _FIRST_FORMAT))
        domain = _read_domain(json.loads(attributes["domain"]))
        run = _read_run(file, domain, attributes)
        attributes["wall_seconds"] = float(attributes["wall_seconds"])
        attributes["label"] = attributes.get("label") or path.stem
        attributes |= {name: str(attributes.get(name, "")) for name in ("title", "label", "solver", "message", "fingerprint")}
    return StoredRun(path, domain, run, attributes)


def _check_format(path: Path, found: Any) -> None:
    """Raises ResultError for the format of another version."""
    if found == _FORMAT:
        return
    if isinstance(found, int) and _FIRST_FORMAT <= found < _FORMAT:
        raise ResultError(f"{path}: is of format {found}, made by an older mfpde; run the case again")
    raise ResultError(f"{path}: has format {found}, but this version of mfpde reads format {_FORMAT}")


def _read_run(file: h5py.File, domain: Domain, attributes: Mapping[str, Any]) -> Run:
    """The run in a result file with these root attributes. Raises ValueError or KeyError where it is not whole."""
    times = numbers(file["time"])
    if not (np.isfinite(times).all() and (np.diff(times) > 0.0).all()):
        raise ValueError("/time must be finite and increase")
    names = [name for name in json.loads(attributes["terms"]) if isinstance(name, str)]
    return Run(
        times,
        read_measures(file, domain, len(times)),
        {name: _defined(f"energy_{name}", numbers(file[f"energy_{name}"], times.shape)) for name in names},
        Certificate(np.stack([_read_step(file, name) for name in STEP_FIELDS], axis=1)),
        Status[attributes["status"]],
        str(attributes.get("message", "")),
        tuple(str(note) for note in json.loads(attributes["notes"])),
        _read_tables(file, json.loads(attributes["tables"])),
        _read_series(file, json.loads(attributes.get("series", "[]")), times),
    )


def _read_step(file: h5py.File, name: str) -> FloatArray:
    """One field of the certificate; some are undefined for some solvers, these not. Raises ValueError or KeyError."""
    values = numbers(file["steps"][name])
    return _defined(f"steps/{name}", values) if name in _ALWAYS_DEFINED else values


def _defined(name: str, values: FloatArray) -> FloatArray:
    """The values, which may be infinite. Raises ValueError for nan."""
    if np.isnan(values).any():
        raise ValueError(f"/{name} must not be nan")
    return values


def _read_series(file: h5py.File, names: list[str], times: FloatArray) -> dict[str, FloatArray]:
    """What was recorded besides energies. Raises ValueError or KeyError where it is not whole."""
    found = {name: numbers(file[name]) for name in names}
    for name, values in found.items():
        if values.shape[:1] != times.shape or not np.isfinite(values).all():
            raise ValueError(f"/{name} must be finite and have a row for each of {len(times)} times, its shape is {values.shape}")
    return found


def _read_tables(file: h5py.File, listed: list[str]) -> dict[str, FloatArray]:
    """The columns of the tables. Raises ValueError unless those listed are those in the file, with equally many rows in each table."""
    groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and name != "steps"]
    found = [f"{name}/{column}" for name in groups for column, item in file[name].items() if not getattr(item, "is_scale", False)]
    if sorted(listed) != sorted(found):
        odd = sorted(set(listed) ^ set(found))
        raise ValueError(f"the tables listed are not those in the file: {', '.join(odd) or 'one is listed twice'}")
    tables = {name: numbers(file[name]) for name in listed}
    for name, values in tables.items():
        rows = file[name.split("/")[0]]["row"].shape
        if values.shape[:1] != rows:
            raise ValueError(f"/{name} has shape {values.shape}, expected {rows[0]} rows")
    return tables


def _read_domain(fields: Any) -> Domain:
    """The domain that ``_domain_fields`` wrote. Raises ValueError for names that are no texts."""
    if isinstance(fields, dict):
        domain: Domain = Disk(tuple(fields["coordinates"]), fields["radius"], tuple(fields["center"]))
    else:
        domain = Domain(tuple(Axis(**axis) for axis in fields))
    if not all(isinstance(name, str) for name in domain.names):
        raise ValueError("the name of an axis is no text")
    return domain


def finished_fingerprint(path: Path) -> str | None:
    """The fingerprint of a complete result at ``path``, None if there is none that can be read."""
    try:
        stored = read_run(path)
    except ResultError:
        return None
    complete = stored.run.status is Status.DONE and stored.run.measures
    return str(stored.attributes["fingerprint"]) if complete else None


@contextmanager
def _open_result(path: Path) -> Iterator[h5py.File]:
    """A result file of this program, open for reading. Raises ResultError."""
    if path.is_dir():
        raise ResultError(f"{path}: is a folder, not a result file")
    with guarded(path), h5py.File(path, "r") as file:
        if "mfpde_version" not in file.attrs and {"fingerprint", "digest"} <= set(file.attrs):
            raise ResultError(f"{path}: the parts of a study that have ended, for --resume; its table is study.h5 in the folder above")
        if "mfpde_version" not in file.attrs:
            raise ResultError(f"{path}: an HDF5 file, but not a result of mfpde")
        if "study" in file.attrs:
            raise ResultError(f"{path}: the table of a study, not a run; its runs lie in the folder study beside it")
        yield file
