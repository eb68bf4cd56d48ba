"""The numbers of a study that consists of many independent parts, kept in one file as they come, so that it can be resumed."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.storage import ResultError, read_arrays, write_arrays

Index = tuple[int, ...]
_ENDED = "ended_"


@dataclass(eq=False)
class Ledger:
    """Arrays with named dimensions, nan where nothing has come yet, and which parts have ended.

    ``scales``: what stands along each dimension. ``dimensions``: those of each array. ``parts``: those by which the parts of each group
    are counted. ``mark``: what a file must share to be gone on with. ``seconds``: the least time between two writings.
    """

    path: Path
    mark: str
    scales: Mapping[str, Any]
    dimensions: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, tuple[str, ...]]
    seconds: float = 1.0
    arrays: dict[str, FloatArray] = field(init=False)
    ended: dict[str, BoolArray] = field(init=False)
    _last: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.arrays = {name: np.full(self._shape(dimensions), np.nan) for name, dimensions in self.dimensions.items()}
        self.ended = {name: np.zeros(self._shape(dimensions), dtype=bool) for name, dimensions in self.parts.items()}

    def _shape(self, dimensions: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(len(self.scales[name]) for name in dimensions)

    def take_up(self) -> str:
        """Take what is in the file; returns why that was not possible, in words, nothing if it was or if there is no file."""
        if not self.path.is_file():
            return ""
        try:
            arrays, attributes = read_arrays(self.path)
        except ResultError as error:
            return str(error)
        wanted = {**self.arrays, **{_ENDED + name: values for name, values in self.ended.items()}}
        fits = all(name in arrays and arrays[name].shape == values.shape for name, values in wanted.items())
        if not fits or str(attributes.get("fingerprint")) != self.mark or str(attributes.get("digest")) != _digest(arrays, wanted):
            return "what is stored is not of this study as it is now, or damaged"
        for name in self.arrays:
            self.arrays[name][...] = arrays[name]
        for name in self.ended:
            self.ended[name][...] = arrays[_ENDED + name] != 0.0
        return ""

    def open_parts(self, group: str) -> list[Index]:
        """The indices of the parts of a group that have not ended, in order."""
        return [tuple(int(k) for k in index) for index in np.argwhere(~self.ended[group])]

    def end(self, group: str, index: Index) -> None:
        """Note that a part has ended, whose numbers are in the arrays, and write the file unless it was just written."""
        self.ended[group][index] = True
        if time.monotonic() - self._last >= self.seconds:
            self.write()

    def write(self) -> None:
        """Write the file."""
        ended = {_ENDED + name: values.astype(np.int8) for name, values in self.ended.items()}
        arrays: dict[str, Any] = {name: (self.dimensions[name], values) for name, values in self.arrays.items()}
        arrays |= {_ENDED + name: (dimensions, ended[_ENDED + name]) for name, dimensions in self.parts.items()}
        everything: dict[str, Any] = {**self.arrays, **ended}
        write_arrays(self.path, self.scales, arrays, {"fingerprint": self.mark, "digest": _digest(everything, everything)})
        self._last = time.monotonic()


def _digest(arrays: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """SHA-256 of the numbers of these names, in their order."""
    found = hashlib.sha256()
    for name in sorted(names):
        found.update(name.encode() + np.ascontiguousarray(arrays[name], dtype=float).tobytes())
    return found.hexdigest()
