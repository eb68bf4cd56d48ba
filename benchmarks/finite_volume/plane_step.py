"""Row 5: an explicit step on a plane of 1024² cells against the time that the memory needs for its arrays."""

from pathlib import Path

import numba
import numpy as np
from timing import Times, interleave, seconds, verdict

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Problem
from mfpde.energy import Potential, Power
from mfpde.solvers.finite_volume import Explicit

CELLS, WANTED, _BEYOND_CACHE = 1024, 4.0, 1 << 24
STAGES = (("rho, V", "rho1"), ("rho, rho1, V", "rho2"), ("rho, rho2, V", "new rho"))


@numba.njit(parallel=True)
def triad(a: np.ndarray, b: np.ndarray, c: np.ndarray, s: float) -> None:
    for i in numba.prange(a.size):
        a[i] = b[i] + s * c[i]


class Steps:
    """Accepted steps of the porous medium (m = 2) in a quadratic potential, one after the other."""

    def __init__(self) -> None:
        domain = Domain((Axis("x", -3.0, 3.0), Axis("y", -3.0, 3.0)))
        potential = Potential(lambda p: 0.5 * np.sum(p**2, axis=1), lambda p: p)
        start = DensityFunction(lambda p: np.maximum(1.0 - 0.3 * np.sum(p**2, axis=1), 0.0), domain)
        case = Problem(EnergySum({"power": Power(2.0), "potential": potential}), domain, start, (1.0,))
        self.flow = FiniteVolume((CELLS, CELLS), stepper=Explicit()).prepare(case)
        self.state = self.flow.start()

    def step(self) -> None:
        self.state = self.flow.advance(self.state, 1.0)

    def record(self) -> None:
        self.flow.record(self.state)


def moved() -> int:
    """Arrays that a step reads and writes at least, and their list."""
    counts = [len(read.split(",")) + 1 for read, _ in STAGES]
    words = "; ".join(f"{read} -> {written} ({count})" for (read, written), count in zip(STAGES, counts, strict=True))
    print(f"fewest arrays that the three stages read and write once each: {words}: {sum(counts)} of {8 * CELLS**2 / 1e6:.1f} MB")
    return sum(counts)


def main(quick: bool, output: Path) -> None:
    print(f"\n5. explicit SSPRK3 step on {CELLS}² cells, porous medium m = 2 and quadratic potential")
    size = 8 * CELLS**2 * moved()
    steps, (a, b, c) = Steps(), np.ones((3, _BEYOND_CACHE))
    most = numba.config.NUMBA_NUM_THREADS
    print(f"{'':26}{'median':>10}{'least':>10}{'median/floor':>14}{'least/floor':>13}")
    for threads in sorted({1, most}):
        numba.set_num_threads(threads)
        calls = {"triad": lambda: triad(a, b, c, 3.0), "step": steps.step, "record": steps.record}
        interleave(calls, 3)
        _show(threads, interleave(calls, 20 if quick else 60), 3 * a.nbytes, size, threads == most)


def _show(threads: int, taken: dict[str, Times], triad_bytes: int, size: int, judged: bool) -> None:
    speed, best = triad_bytes / taken["triad"].median, triad_bytes / taken["triad"].least
    step, record = taken["step"], taken["record"]
    median, least = step.median * speed / size, step.least * best / size
    floors = f"{seconds(size / speed)} (at best {seconds(size / best)})"
    print(f"{threads} thread{'s' * (threads > 1)}, triad {speed / 1e9:.1f} GB/s (at best {best / 1e9:.1f}), floor {floors}")
    asked = f"   wanted {WANTED:g}: {verdict(median <= WANTED)}" if judged else ""
    print(f"{'  accepted step':26}{seconds(step.median):>10}{seconds(step.least):>10}{median:14.2f}{least:13.2f}{asked}")
    print(f"{'  its certificate besides':26}{seconds(record.median):>10}{seconds(record.least):>10}")
