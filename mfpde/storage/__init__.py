"""Runs in HDF5: immutable parts and a checkpoint while a run goes on, one file with dimension scales when it has ended.

The only package that imports h5py. Every file is written under another name, synchronised and renamed into place, so that a
killed run leaves the last checkpoint whole and no half-written result under its final name.
"""

from mfpde.storage.datasets import read_arrays, write_arrays
from mfpde.storage.files import ResultError
from mfpde.storage.label import Label
from mfpde.storage.locks import locked
from mfpde.storage.parts import CHECKPOINT_SECONDS, PartsRecorder, remove_parts
from mfpde.storage.results import StoredRun, finished_fingerprint, read_run, write_run

__all__ = [
    "CHECKPOINT_SECONDS",
    "Label",
    "PartsRecorder",
    "ResultError",
    "StoredRun",
    "finished_fingerprint",
    "locked",
    "read_arrays",
    "read_run",
    "remove_parts",
    "write_arrays",
    "write_run",
]
