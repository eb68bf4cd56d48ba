"""How loops are compiled: cached on disk where that is possible, in memory where it is not."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
from numba import prange

__all__ = ["kernel", "parallel_kernel", "prange", "vector_kernel"]

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a loop on first use; a cache that cannot be written costs only the compilation in every process."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy")(function))


def vector_kernel(function: Function) -> Function:
    """Compile a loop whose sums may be reordered and whose values are never NaN, so that it runs on vectors."""
    flags = {"nnan", "nsz", "reassoc", "contract", "arcp"}
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy", fastmath=flags)(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy", fastmath=flags)(function))


def parallel_kernel(function: Function) -> Function:
    """Compile a loop over ``prange`` for all threads."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy", parallel=True)(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy", parallel=True)(function))
