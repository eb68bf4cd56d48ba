"""How loops are compiled: cached on disk where that is possible, in memory where it is not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import prange
from numba.core.event import Listener, install_listener

__all__ = ["announced", "fused_kernel", "inlined_kernel", "kernel", "parallel_kernel", "prange", "sum_kernel", "vector_kernel"]

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a loop on first use; a cache that cannot be written costs only the compilation in every process."""
    return _compiled(function)


def fused_kernel(function: Function) -> Function:
    """Compile a loop whose products may be fused with the sums that they go into."""
    return _compiled(function, fastmath={"contract"})


def inlined_kernel(function: Function) -> Function:
    """Compile a part of a loop's body into every loop that calls it, however long it is; products may be fused with sums."""
    return _compiled(function, fastmath={"contract"}, forceinline=True)


def sum_kernel(function: Function) -> Function:
    """Compile a loop whose sums may be reordered and fused, while infinities and NaN keep their meaning."""
    return _compiled(function, fastmath={"nsz", "reassoc", "contract"})


def vector_kernel(function: Function) -> Function:
    """Compile a loop whose sums may be reordered and whose values are never NaN, so that it runs on vectors."""
    return _compiled(function, fastmath={"nnan", "nsz", "reassoc", "contract", "arcp"})


def parallel_kernel(function: Function) -> Function:
    """Compile a loop over ``prange`` for all threads."""
    return _compiled(function, parallel=True)


def _compiled(function: Function, **options: Any) -> Function:
    try:
        compiled = numba.njit(cache=True, error_model="numpy", **options)(function)
    except (RuntimeError, OSError):
        return cast(Function, numba.njit(error_model="numpy", **options)(function))
    with suppress(AttributeError):
        compiled._cache._cache_file._source_stamp = _stamp()
    return cast(Function, compiled)


@cache
def _stamp() -> str:
    """The sources of all loops, digested: loops call loops of other files, while numba looks at the file of each alone."""
    folder, digest = Path(__file__).parent, sha256()
    flat = [path for name in ("distance", "energy") for path in sorted((folder / name).glob("*.py"))]
    for path in (Path(__file__), *flat, *sorted((folder / "solvers" / "kernels").rglob("*.py"))):
        text = path.read_bytes()
        digest.update(text if b"compile import" in text else b"")
    return digest.hexdigest()


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
