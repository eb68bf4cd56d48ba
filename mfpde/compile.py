"""How loops are compiled: cached on disk where that is possible, in memory where it is not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
from numba import prange
from numba.core.event import Listener, install_listener

__all__ = ["announced", "fused_kernel", "kernel", "parallel_kernel", "prange", "sum_kernel", "vector_kernel"]

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a loop on first use; a cache that cannot be written costs only the compilation in every process."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy")(function))


def fused_kernel(function: Function) -> Function:
    """Compile a loop whose products may be fused with the sums that they go into."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy", fastmath={"contract"})(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy", fastmath={"contract"})(function))


def sum_kernel(function: Function) -> Function:
    """Compile a loop whose sums may be reordered and fused, while infinities and NaN keep their meaning."""
    flags = {"nsz", "reassoc", "contract"}
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy", fastmath=flags)(function))
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy", fastmath=flags)(function))


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


@dataclass
class _Announcer:
    """Hears that something is compiled, which is not so for what the cache holds, and says it the first time."""

    tell: Callable[[], None]
    told: bool = False

    def notify(self, event: Any) -> None:
        """Called by numba when a compilation begins and when it ends."""
        if not self.told:
            self.told = True
            self.tell()


Listener.register(_Announcer)


@contextmanager
def announced(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` when the first loop inside has to be compiled, as in the first run after an installation."""
    with install_listener("numba:compile", _Announcer(tell)):
        yield
