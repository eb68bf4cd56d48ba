"""Times of calls that take turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]
_SHORT, _IN_A_ROW = 0.02, 4


@dataclass(frozen=True)
class Times:
    """Seconds of one call, all samples."""

    samples: Sequence[float]

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def least(self) -> float:
        return min(self.samples)

    def scaled(self, factor: float) -> "Times":
        """Those of ``factor`` such calls."""
        return Times([factor * sample for sample in self.samples])


def timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleave(calls: Mapping[str, Call], rounds: int, budget: float = np.inf) -> dict[str, Times]:
    """Each call once a round, those that have used up ``budget`` seconds no longer; short ones some times in a row after one that does
    not count, so that caches are theirs."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if sum(samples[name]) < budget:
                first = timed(call)
                samples[name] += [timed(call) for _ in range(_IN_A_ROW)] if first < _SHORT else [first]
    return {name: Times(values) for name, values in samples.items()}


def seconds(value: float) -> str:
    """With a unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000.0 * size else f"{value / size:.0f} {unit}"
    return f"{1e6 * value:.3g} µs"


def verdict(good: bool) -> str:
    return "reached" if good else "MISSED"
