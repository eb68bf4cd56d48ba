"""Row 1: the Ornstein–Uhlenbeck process on a line against LSODA on the same fluxes and against py-pde."""

from collections.abc import Callable
from pathlib import Path

import gaussian
import numpy as np
from precision import OURS, Line, Setting, compare, draw, measure, show
from scipy.integrate import odeint
from timing import interleave, seconds, timed

ERROR = 1e-4
LSODA, PEER, OWN = "LSODA, banded", "py-pde with LSODA", "py-pde, its own steps"
WHOLE, WHOLE_PEER = "mfpde, preparation too", "py-pde, its solve()"


def judge(cells: int) -> Callable[[object], float]:
    return lambda values: gaussian.l1_error(np.asarray(values), cells, 1)


def ours(cells: int, tolerance: float) -> Setting:
    flow = gaussian.prepared(cells, 1, tolerance)
    return Setting(OURS, f"{cells} cells, tolerance {tolerance:g}", lambda: gaussian.run(flow), judge(cells))


def right_hand_side(cells: int) -> Callable[[float, np.ndarray], np.ndarray]:
    """ρ' on our finite volumes, in numpy."""
    centres = gaussian.LOWER + gaussian.spacing(cells) * (np.arange(cells) + 0.5)
    a, b = gaussian.coefficients(cells, np.diff(0.5 * centres**2))
    flux, back = np.zeros(cells + 1), np.empty(cells - 1)

    def rate(_: float, rho: np.ndarray) -> np.ndarray:
        np.multiply(a, rho[:-1], out=flux[1:-1])
        np.multiply(b, rho[1:], out=back)
        np.subtract(flux[1:-1], back, out=flux[1:-1])
        return flux[:-1] - flux[1:]

    return rate


def lsoda(cells: int, tolerance: float) -> Setting:
    rate, start = right_hand_side(cells), gaussian.averages(cells, 1, False)
    options = {"tfirst": True, "ml": 1, "mu": 1, "rtol": tolerance, "atol": tolerance, "mxstep": 100_000}
    return Setting(
        LSODA, f"{cells} cells, tolerance {tolerance:g}", lambda: odeint(rate, start, [0.0, gaussian.END], **options)[-1], judge(cells)
    )


def peers(cells: int) -> list[Setting]:
    """py-pde's compiled steppers: adaptive explicit ones, and LSODA with the bands that a three-point stencil has."""
    import pde

    start = pde.ScalarField(pde.CartesianGrid([[gaussian.LOWER, gaussian.UPPER]], [cells]), gaussian.averages(cells, 1, False))
    bands = {"method": "LSODA", "lband": 1, "uband": 1, "rtol": 1e-4, "atol": 1e-5}
    steppers = {
        "Euler, adaptive": lambda eq: pde.EulerSolver(eq, adaptive=True, tolerance=1e-4, backend="numba"),
        "RK45, adaptive to 1e-3": lambda eq: pde.RungeKuttaSolver(eq, adaptive=True, tolerance=1e-3, backend="numba"),
        "RK45, adaptive to 1e-5": lambda eq: pde.RungeKuttaSolver(eq, adaptive=True, tolerance=1e-5, backend="numba"),
        "LSODA, banded": lambda eq: pde.ScipySolver(eq, backend="numba", **bands),
    }
    return [_peer(start, words, make) for words, make in steppers.items()]


def equation():
    import pde

    return pde.PDE({"c": f"{gaussian.TEMPERATURE} * laplace(c) + x * d_dx(c) + c"}, bc={"derivative": 0})


def _peer(start, words: str, make) -> Setting:
    cells = start.grid.shape[0]
    step = make(equation()).make_stepper(start, 1e-4)

    def solve() -> np.ndarray:
        field = start.copy()
        step(field, 0.0, gaussian.END)
        return field.data

    solve()
    return Setting(PEER if "LSODA" in words else OWN, f"{cells} cells, {words}", solve, judge(cells))


def whole(words: str) -> Callable[[], object]:
    """Our solver from the case to the density."""
    from mfpde import FiniteVolume

    cells, tolerance = int(words.split()[0]), float(words.split()[-1])
    task = gaussian.problem(1)
    return lambda: FiniteVolume((cells,), tolerance=tolerance).solve(task)


def whole_peer(cells: int) -> Callable[[], object]:
    """py-pde as its users call it; the first call compiles."""
    import pde

    grid = pde.CartesianGrid([[gaussian.LOWER, gaussian.UPPER]], [cells])
    start, task = pde.ScalarField(grid, gaussian.averages(cells, 1, False)), equation()
    options = {"method": "LSODA", "lband": 1, "uband": 1, "rtol": 1e-4, "atol": 1e-5, "backend": "numba"}
    return lambda: task.solve(start, gaussian.END, tracker=None, solver="scipy", **options)


def main(quick: bool, output: Path) -> None:
    print(f"\n1. Ornstein–Uhlenbeck on a line, T = 0.2, time 1, L1 error {ERROR:g} against the exact Gaussian")
    grids = (128, 192, 256, 320, 336, 352, 384, 448, 512, 768)
    settings = [ours(n, t) for n in grids for t in (3e-3, 2e-3, 1e-3, 7e-4, 5e-4, 3e-4, 1e-4, 1e-5, 1e-6)]
    settings += [lsoda(n, t) for n in grids for t in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]
    settings += [setting for n in ((704, 768) if quick else (352, 704, 768)) for setting in peers(n)]
    points = measure(settings, 3 if quick else 5, 0.5)
    lines = compare(points, ERROR, {LSODA: 5.0, PEER: 500.0, OWN: 500.0}, 20 if quick else 50, 2.0)
    found = {line.name: line for line in lines}
    if OURS in found:
        best = found[OURS]
        lines.append(Line(WHOLE, best.words, best.error, interleave({"": whole(best.words)}, 20)[""]))
    if PEER in found:
        again = whole_peer(int(found[PEER].words.split()[0]))
        print(f"py-pde's first solve() takes {seconds(timed(again))}, most of it to compile")
        lines.append(Line(WHOLE_PEER, "after the first call", found[PEER].error, interleave({"": again}, 20, 2.0)[""]))
    show(lines)
    draw(points, ERROR, "Ornstein–Uhlenbeck on a line: time against error", output / "work_precision_line.png")
