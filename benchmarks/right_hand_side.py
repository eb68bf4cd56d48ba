"""One right-hand side of the two-layer flow three ways: dense kernel, plain features, compressed features; and the memory floor.

``python benchmarks/right_hand_side.py``

The same 256 inputs in all three. They take turns, so that whatever else the machine does hits them alike, and all run on one
thread, as the compiled flux does; OPENBLAS_NUM_THREADS=2 gives the products two.
"""

import ctypes
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Particles, Problem
from mfpde.energy import two_layer
from mfpde.energy.inputs import Rule
from mfpde.solvers.finite_volume import FiniteVolumeFlow

CELLS, INPUTS = 10_000, 256
DOMAIN = Domain((Axis("theta", -4.5, 4.5),))
TEACHER = Particles(np.array([[1.5], [-0.5]]), np.array([0.7, 0.3]))
RATIO_DENSE, RATIO_PLAIN = 100, 8


@dataclass(frozen=True)
class GaussLegendre:
    """The standard normal law as INPUTS weighted nodes: the law itself, for all three."""

    isotropic = False
    exact = True

    def rule(self, dimension: int, sharpness: object) -> Rule:
        nodes, weights = np.polynomial.legendre.leggauss(INPUTS)
        weights = weights * np.exp(-0.5 * (8.5 * nodes) ** 2)
        return Rule(8.5 * nodes[:, None], weights / np.sum(weights))

    def second_moment(self, dimension: int) -> float:
        return 1.0


def prepared(cells: int) -> tuple[FiniteVolumeFlow, np.ndarray]:
    """The flow on a grid and the initial density there."""
    energy = EnergySum({"network": two_layer(DOMAIN, "tanh", GaussLegendre(), TEACHER)})
    bump = DensityFunction(lambda p: np.cos(np.pi * p[:, 0] / 6.0) ** 2 * (np.abs(p[:, 0]) < 3.0), DOMAIN)
    flow = FiniteVolume((cells,)).prepare(Problem(energy, DOMAIN, bump, (0.0, 1.0)))
    return flow, np.ravel(bump.on(flow.grid).values).copy()


def plain_features(flow: FiniteVolumeFlow) -> tuple[np.ndarray, np.ndarray]:
    """√w σ(xθ) on the grid, (INPUTS, n), and the teacher's √w y, (INPUTS,)."""
    rule = GaussLegendre().rule(1, None)
    root = np.sqrt(rule.weights)[:, None]
    return root * np.tanh(rule.nodes @ flow.grid.centers.T), root * np.tanh(rule.nodes @ TEACHER.points.T) @ TEACHER.weights


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: dict[str, Callable[[], object]], rounds: int, repeats: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Median and least time of each call, which take turns; ``repeats``: how many in a row."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            times[name] += [timed(call) for _ in range(repeats[name])]
    return {name: (float(np.median(values)), min(values)) for name, values in times.items()}


def triad(doubles: int) -> float:
    """Bytes per second of a = b + s c, as numpy does it: s c into a, then b onto a; 5 doubles moved per entry."""
    b, c = np.ones(doubles), np.ones(doubles)
    a = np.zeros(doubles)

    def once() -> None:
        np.multiply(c, 3.0, out=a)
        np.add(a, b, out=a)

    once()
    return 40 * doubles / min(timed(once) for _ in range(max(5, 20_000_000 // doubles)))


def allocated(cells: int, count: int = 100) -> int:
    """Largest memory in use during ``count`` evaluations beyond that before them, in bytes."""
    flow, rho = prepared(cells)
    rate = np.empty_like(rho)
    flow.model.evaluate(rho, rate)
    tracemalloc.start()
    flow.model.evaluate(rho, rate)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(count):
        flow.model.evaluate(rho, rate)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


def blas_threads() -> str:
    """Threads of numpy's own OpenBLAS, where it can be asked."""
    for library in (Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas64_*.so"):
        return str(ctypes.CDLL(str(library)).scipy_openblas_get_num_threads64_())
    return "unknown"


def verdict(good: bool) -> str:
    return "reached" if good else "MISSED"


def main() -> None:
    flow, rho = prepared(CELLS)
    matrix = flow.terms["network"].matrix
    n, rank, cell = CELLS, len(matrix), flow.grid.weight
    features, target = plain_features(flow)
    kernel, shift = features.T @ features, target @ features
    xi, lam, rates = np.empty(n), np.empty(INPUTS), {name: np.empty(n) for name in ("dense", "plain", "mfpde")}

    def dense() -> None:
        np.dot(kernel, rho, out=xi)
        np.multiply(xi, cell, out=xi)
        np.subtract(xi, shift, out=xi)
        flow.model.fill_rate(rho, xi, rates["dense"])

    def plain() -> None:
        np.dot(features, rho, out=lam)
        np.multiply(lam, cell, out=lam)
        np.subtract(lam, target, out=lam)
        np.dot(lam, features, out=xi)
        flow.model.fill_rate(rho, xi, rates["plain"])

    calls: dict[str, Callable[[], object]] = {
        "dense": dense,
        "plain": plain,
        "mfpde": lambda: flow.model.evaluate(rho, rates["mfpde"]),
        "flux": lambda: flow.model.fill_rate(rho, xi, rates["plain"]),
    }
    taken = medians(calls, 25, {"dense": 1, "plain": 10, "mfpde": 40, "flux": 40})
    dense(), plain(), calls["mfpde"]()

    threads = f"{blas_threads()} BLAS threads, 1 thread in compiled kernels (numba has {numba.get_num_threads()})"
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {threads}")
    print(f"{n} cells, {INPUTS} inputs, compressed to rank {rank}; largest relative difference of the rates:")
    scale = np.max(np.abs(rates["dense"]))
    for name in ("plain", "mfpde"):
        print(f"  {name} against dense: {np.max(np.abs(rates[name] - rates['dense'])) / scale:.1e}")

    print(f"\n{'':41}{'median µs':>11}{'least µs':>11}{'median / (iii)':>16}{'least / (iii)':>15}  required")
    median, least = taken["mfpde"]
    for name, words, wanted in (
        ("dense", f"(i)   dense kernel {n} x {n} + flux", f">= {RATIO_DENSE}"),
        ("plain", f"(ii)  features {INPUTS} x {n} + flux", f">= {RATIO_PLAIN}"),
        ("mfpde", f"(iii) features {rank} x {matrix.shape[1]} + flux, mfpde", ""),
        ("flux", "      the flux kernel alone", ""),
    ):
        m, s = taken[name]
        print(f"{words:41}{1e6 * m:11.1f}{1e6 * s:11.1f}{m / median:16.2f}{s / least:15.2f}  {wanted}")
    ratios = (taken["dense"][0] / median, taken["plain"][0] / median)
    print(f"(i)/(iii) {verdict(ratios[0] >= RATIO_DENSE)}, (ii)/(iii) {verdict(ratios[1] >= RATIO_PLAIN)}")

    moved = 2 * matrix.nbytes + 8 * n * 8
    print(f"\nfloor: {moved / 1e6:.2f} MB moved per evaluation (the features of {matrix.nbytes / 1e6:.2f} MB twice, and 8 n doubles)")
    for words, doubles in (("beyond cache, 3 x 128 MB", 16_000_000), ("in cache, 3 x 0.7 MB", 87_000)):
        speed = triad(doubles)
        floor = moved / speed
        print(f"  triad {words}: {speed / 1e9:.1f} GB/s, floor {1e6 * floor:.1f} µs; (iii) takes {median / floor:.2f} times that")

    print("\nnew memory while 100 evaluations run (required: below 1024 bytes per evaluation, whatever n)")
    for cells in (CELLS, 10 * CELLS):
        peak = allocated(cells)
        print(f"  {cells} cells: peak {peak} bytes, {peak / 100:.1f} per evaluation: {verdict(peak < 1024 * 100)}")


if __name__ == "__main__":
    main()
