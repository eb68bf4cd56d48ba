"""Numbers from the columns of a CSV file."""

import csv
import math
from pathlib import Path

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case.errors import nearest, shown

_LARGEST_FILE = 500_000_000


class TableError(ValueError):
    """A table that cannot be used; the message names file, row and column."""


def read_columns(path: Path, names: list[str]) -> FloatArray:
    """The named columns of a CSV file with a header, (rows, columns); lines that start with # are skipped.

    Raises TableError for a missing file, header or column, cells that are not finite numbers, and a table without rows.
    """
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= _LARGEST_FILE):
            raise TableError(f"{path}: is not a regular file of at most {_LARGEST_FILE} bytes")
        with path.open(newline="", encoding="utf-8-sig") as handle:
            numbered = [(k, line) for k, line in enumerate(handle, start=1) if line.strip() and not line.lstrip().startswith("#")]
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{path}: cannot be read as text: {error}") from error
    if len(numbered) < 2:
        raise TableError(f"{path}: needs a header and at least one row")
    try:
        header, *rows = list(csv.reader(line for _, line in numbered))
    except csv.Error as error:
        raise TableError(f"{path}: not a CSV file: {error}") from error
    header = [name.strip() for name in header]
    places = [_column(path, header, name) for name in names]
    lines = [number for number, _ in numbered[1:]]
    if len(rows) != len(lines):
        raise TableError(f"{path}: a quoted cell runs over several lines, which is not supported")
    return np.array([[_number(path, line, row, header, k) for k in places] for line, row in zip(lines, rows, strict=True)])


def standardized(values: FloatArray, names: list[str], path: Path) -> FloatArray:
    """Columns shifted to mean 0 and scaled to variance 1. Raises TableError for a constant column."""
    deviation = np.std(values, axis=0)
    for name, size in zip(names, np.ptp(values, axis=0), strict=True):
        if not size > 0.0:
            raise TableError(f'{path}: column "{name}" is constant and cannot be standardised')
    return np.asarray((values - np.mean(values, axis=0)) / deviation)


def _column(path: Path, header: list[str], name: str) -> int:
    if header.count(name) != 1:
        problem = "has no column" if name not in header else "has more than one column"
        raise TableError(f"{path}: {problem} {shown(name)}; columns: {', '.join(header)}{nearest(name, header)}")
    return header.index(name)


def _number(path: Path, line: int, row: list[str], header: list[str], column: int) -> float:
    if len(row) != len(header):
        raise TableError(f"{path}:{line}: has {len(row)} cells, but the header has {len(header)}")
    try:
        value = float(row[column])
    except ValueError as error:
        raise TableError(f'{path}:{line}: column "{header[column]}" holds {shown(row[column])}, which is not a number') from error
    if not math.isfinite(value):
        raise TableError(f'{path}:{line}: column "{header[column]}" holds {row[column].strip()}; remove or fill rows that are not finite')
    if abs(value) > 1e30:
        raise TableError(f'{path}:{line}: column "{header[column]}" holds {row[column].strip()}; numbers are accepted up to 1e30')
    return value
