"""Arrays in HDF5 with the scales of their dimensions, and what comes back out of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mfpde.arrays import FloatArray
from mfpde.storage.files import guarded, publish


def write_arrays(
    path: Path, scales: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[str, ...], Any]], attributes: Mapping[str, Any]
) -> None:
    """Write arrays, each with the names of its dimensions, and the ``scales`` of these (numbers or texts) to ``path``, atomically."""

    def fill(file: h5py.File) -> None:
        """The scales first, since the arrays are attached to them."""
        made = {name: make_scale(file, name, _texts(values)) for name, values in scales.items()}
        for name, (dimensions, values) in arrays.items():
            dataset = file.create_dataset(name, data=values)
            for k, dimension in enumerate(dimensions):
                dataset.dims[k].attach_scale(made[dimension])
        for name, value in attributes.items():
            file.attrs[name] = value

    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, fill, sum(np.asarray(values).nbytes for _, values in arrays.values()))


def read_arrays(path: Path) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """The arrays of numbers in a file of ``write_arrays``, and its attributes. Raises ResultError where it is missing or damaged."""
    with guarded(path), h5py.File(path, "r") as file:
        numeric = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu"}
        return {name: numbers(item) for name, item in numeric.items()}, {name: plain(value) for name, value in file.attrs.items()}


def make_scale(group: h5py.Group, name: str, values: Any) -> h5py.Dataset:
    """A dimension scale."""
    dataset = group.create_dataset(name, data=values)
    dataset.make_scale(name)
    return dataset


def make_dataset(group: h5py.Group, name: str, values: FloatArray, scales: list[h5py.Dataset], framed: bool = False) -> None:
    """A dataset with its scales; framed ones are compressed with one frame to a chunk."""
    options: dict[str, Any] = {}
    if framed and values.size:
        options = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    dataset = group.create_dataset(name, data=values, dtype="f8", **options)
    for k, scale in enumerate(scales):
        dataset.dims[k].attach_scale(scale)


def numbers(dataset: h5py.Dataset, shape: tuple[int, ...] | None = None) -> FloatArray:
    """The values as floats. Raises ValueError for another shape than the one given."""
    values = np.asarray(dataset[()], dtype=float)
    if shape is not None and values.shape != shape:
        raise ValueError(f"{dataset.name} has shape {values.shape}, expected {shape}")
    return values


def plain(value: Any) -> Any:
    """Text and numbers out of h5py's scalars."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _texts(values: Any) -> Any:
    """A list of texts as HDF5 holds it, anything else as it is."""
    listed = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return np.array(values, dtype=h5py.string_dtype()) if listed else values
