"""How kernels are compiled: cached on disk where that is possible, in memory where it is not."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a loop on first use; a cache that cannot be written costs only the compilation in every process."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy")(function))
