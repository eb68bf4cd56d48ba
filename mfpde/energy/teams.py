"""One thread or all of them, whichever has been quicker of late.

Where another process keeps a processor busy, a parallel region of a fraction of a millisecond can take tens of them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from numba import get_num_threads, set_num_threads

_FEWEST = 8000
"""So few atoms take less time than the other threads need to begin."""
_ROUNDS, _SHORTEST, _LONGEST = 4, 16, 1024


@contextmanager
def alone_below(count: int, fewest: int) -> Iterator[None]:
    """One thread for loops over fewer than ``fewest`` things, which take less time than another thread needs to begin; else all of them."""
    allowed = get_num_threads()
    set_num_threads(1 if count < fewest else allowed)
    try:
        yield
    finally:
        set_num_threads(allowed)


class Team:
    """Chooses for calls of one kind. The first ones try both ways, and later ones go the quicker way; the other is tried again after a
    number of calls that doubles each time it loses. What is computed must not depend on the choice."""

    def __init__(self) -> None:
        self._seconds = {False: 0.0, True: 0.0}
        self._calls, self._next, self._wait = 0, _ROUNDS + _SHORTEST, _SHORTEST

    @contextmanager
    def at_work(self, atoms: int) -> Iterator[bool]:
        """Whether to use all threads for so many atoms; what is done inside is timed."""
        if atoms < _FEWEST or get_num_threads() == 1:
            yield False
            return
        together = self._choose()
        start = time.perf_counter()
        yield together
        self._seconds[together] = (time.perf_counter() - start) / atoms

    def _choose(self) -> bool:
        self._calls += 1
        if self._calls <= _ROUNDS:
            return self._calls % 2 == 0
        quicker = self._seconds[True] < self._seconds[False]
        if self._calls < self._next:
            return quicker
        self._wait = min(2 * self._wait, _LONGEST)
        self._next = self._calls + self._wait
        return not quicker
