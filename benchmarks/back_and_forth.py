"""Steps of the back-and-forth method for the porous medium equation, m = 2, from a Barenblatt profile in the unit square.

``python benchmarks/back_and_forth.py [cells ...]``, by default 128, 256 and 512 along each axis; start at t = 1e-3, tau = 1e-3, 5 steps,
each from the potential of the step before. A step is done at an L¹ residual of 1e-2 of the mass, back and forth, the stopping measure
of the method's authors, whose C++ took 0.092, 0.36 and 1.6 s a step on such a machine, idle, with an L¹ error of 0.048. Minimising
movements of Barenblatt profiles are known exactly: they keep the form, with R − 8τ/(πR³) = R₀ for the radii. Their own distance from the
solution of the equation, which is no matter of the method, is printed as "Euler".
"""

import os
import sys
from time import perf_counter, process_time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a busy machine threads that wait by spinning take turns with what they wait for

import numba
import numpy as np
from scipy.optimize import brentq

from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import Power
from mfpde.solvers.jko.back_and_forth import BackAndForth

START, TAU, STEPS, TOLERANCE = 1e-3, 1e-3, 5, 1e-2
AUTHORS = {128: 0.092, 256: 0.36, 512: 1.6}
AUTHORS_ERROR = 0.048
ROUNDS = 3


def front(time: float) -> float:
    return float((16.0 * np.sqrt(time / (8.0 * np.pi))) ** 0.5)


def profile(grid: Grid, radius: float) -> np.ndarray:
    cells = grid.cells[0]
    fine = grid.domain.grid((4 * cells, 4 * cells)).centers
    values = np.maximum(1.0 - np.sum(fine**2, axis=1) / radius**2, 0.0).reshape(cells, 4, cells, 4).mean(axis=(1, 3))
    return np.asarray(values / (np.sum(values) * grid.cell_volume))


def stretched(radius: float) -> float:
    return float(brentq(lambda r: r - 8.0 * TAU / (np.pi * r**3) - radius, radius, 4.0 * radius))


def march(grid: Grid) -> tuple[np.ndarray, list[float], list[float], list[int], list[bool]]:
    rho = profile(grid, front(START))
    method, phi = BackAndForth(grid, Power(2.0), np.zeros(grid.cells), TAU, TOLERANCE), None
    seconds, processor, iterations, converged = [], [], [], []
    for _ in range(STEPS):
        start, used = perf_counter(), process_time()
        step = method.step(rho, phi)
        seconds.append(perf_counter() - start)
        processor.append(process_time() - used)
        iterations.append(step.iterations)
        converged.append(step.converged)
        rho, phi = step.rho, step.phi
    return rho, seconds, processor, iterations, converged


def measure(cells: int) -> None:
    grid = Domain((Axis("x", -0.5, 0.5), Axis("y", -0.5, 0.5))).grid((cells, cells))
    runs = [march(grid) for _ in range(ROUNDS)]
    rho, _, _, iterations, converged = runs[0]
    seconds, processor = (min(float(np.mean(run[k])) for run in runs) for k in (1, 2))
    radius = front(START)
    for _ in range(STEPS):
        radius = stretched(radius)
    movement, exact = profile(grid, radius), profile(grid, front(START + STEPS * TAU))
    error, own, euler = (float(np.sum(np.abs(a - b))) * grid.cell_volume for a, b in ((rho, exact), (rho, movement), (movement, exact)))
    theirs = AUTHORS.get(cells)
    ratio = f"{theirs / seconds:8.1f}" if theirs else f"{'':8}"
    good = theirs is None or (seconds <= 0.5 * theirs and error <= AUTHORS_ERROR and all(converged))
    drift = abs(float(np.sum(rho)) * grid.cell_volume - 1.0)
    numbers = f"{seconds:10.4f}{processor:11.4f}{ratio}{error:10.4f}{own:14.4f}{euler:9.4f}{drift:9.0e}"
    print(f"{cells:6}{numbers}   {iterations}  {'reached' if good else 'MISSED'}", flush=True)


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]] or sorted(AUTHORS)
    march(Domain((Axis("x", -0.5, 0.5), Axis("y", -0.5, 0.5))).grid((32, 32)))
    print(
        f"{os.cpu_count()} processors, {numba.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; seconds a step, best of {ROUNDS}"
    )
    print(
        f"{'cells':>6}{'seconds':>10}{'processor':>11}{'ratio':>8}{'L1 error':>10}{'from movement':>14}{'Euler':>9}{'mass':>9}   iterations"
    )
    for cells in sizes:
        measure(cells)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
