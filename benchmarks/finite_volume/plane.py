"""Row 2: the Ornstein–Uhlenbeck process on 256² cells against the matrix exponential's action and FiPy's implicit steps."""

import time
from pathlib import Path

import gaussian
import numpy as np
from precision import OURS, Line, Point, Setting, compare, draw, measure, show
from scipy.sparse.linalg import expm_multiply
from timing import Times, interleave

ERROR, CELLS = 3.2e-4, 256
EXPONENTIAL, EULER, RICHARDSON = "scipy expm_multiply", "FiPy, implicit steps", "FiPy, Richardson by hand"


def judge(values: object) -> float:
    return gaussian.l1_error(np.asarray(values), CELLS, 2)


def ours(tolerance: float) -> Setting:
    flow = gaussian.prepared(CELLS, 2, tolerance)
    return Setting(OURS, f"tolerance {tolerance:g}", lambda: gaussian.run(flow), judge)


def exponential() -> Setting:
    """exp(L)ρ on the same finite volumes."""
    centres = gaussian.LOWER + gaussian.spacing(CELLS) * (np.arange(CELLS) + 0.5)
    generator = gaussian.matrix(CELLS, 0.5 * (centres[:, None] ** 2 + centres**2))
    start = gaussian.averages(CELLS, 2, False)
    return Setting(EXPONENTIAL, "same matrix, no tolerance", lambda: expm_multiply(gaussian.END * generator, start), judge)


class Euler:
    """FiPy's implicit steps with exponential fluxes; of its solvers BiCGSTAB without preconditioning is the fastest here."""

    def __init__(self) -> None:
        import fipy
        from fipy.solvers import LinearBicgstabSolver

        h, corner = gaussian.spacing(CELLS), np.full((2, 1), gaussian.LOWER)
        mesh = fipy.Grid2D(dx=h, dy=h, nx=CELLS, ny=CELLS) + corner
        self.start = gaussian.averages(CELLS, 2, False).reshape(CELLS, CELLS).T.ravel()
        self.density = fipy.CellVariable(mesh=mesh, value=self.start, hasOld=True)
        drift = fipy.FaceVariable(mesh=mesh, value=mesh.faceCenters.value, rank=1)
        spread = fipy.DiffusionTerm(coeff=gaussian.TEMPERATURE) + fipy.ExponentialConvectionTerm(coeff=drift)
        self.equation = fipy.TransientTerm() == spread
        self.solver = LinearBicgstabSolver(tolerance=1e-7, iterations=500, precon=None)

    def step(self, dt: float) -> None:
        self.density.updateOld()
        self.equation.solve(var=self.density, dt=dt, solver=self.solver)

    def march(self, steps: int) -> tuple[np.ndarray, list[float]]:
        """The density at the end in our order, and the seconds of each step."""
        self.density.setValue(self.start)
        taken = []
        for _ in range(steps):
            begun = time.perf_counter()
            self.step(gaussian.END / steps)
            taken.append(time.perf_counter() - begun)
        return self.density.value.reshape(CELLS, CELLS).T.ravel(), taken


def main(quick: bool, output: Path) -> None:
    print(f"\n2. Ornstein–Uhlenbeck on {CELLS}² cells, T = 0.2, time 1, L1 error {ERROR:g} against the exact Gaussian")
    settings = [ours(t) for t in (3e-3, 1e-3, 9e-4, 7e-4, 5e-4, 3e-4, 2e-4, 1e-4, 3e-5, 1e-5)] + [exponential()]
    points = measure(settings, 2 if quick else 3, 1.0)
    exact_in_time = np.asarray(settings[-1].solve())
    euler = Euler()
    counts = (30, 60) if quick else (15, 30, 60)
    marched = {count: euler.march(count) for count in counts}
    points += [Point(EULER, f"{n} steps", judge(rho), sum(taken)) for n, (rho, taken) in marched.items()]
    extrapolated = [_richardson(marched[n], marched[2 * n]) for n in counts[:-1]]
    points += [Point(RICHARDSON, f"{n} and {2 * n} steps", error, t.median) for n, (error, t) in zip(counts, extrapolated, strict=False)]
    slope = counts[-1] * (marched[counts[-1]][0] - exact_in_time)
    steps = _steps_needed(exact_in_time, slope)

    lines = compare([point for point in points if point.setting], ERROR, {EXPONENTIAL: 20.0}, 4 if quick else 12, 10.0)
    euler.density.setValue(euler.start)
    taken = interleave({"": lambda: euler.step(gaussian.END / steps)}, 6 if quick else 20)[""]
    error = judge(exact_in_time + slope / steps)
    lines.append(Line(EULER, f"{steps} steps, extrapolated", error, taken.scaled(steps), 200.0))
    lines += [
        Line(RICHARDSON, f"{n} and {2 * n} steps", found, t) for n, (found, t) in zip(counts, extrapolated, strict=False) if found <= ERROR
    ]
    show(lines)
    print(f"FiPy's {steps} steps: from {len(taken.samples)} that were made, and the error of {counts[-1]} steps, which is of first order")
    for count in (4 * counts[-1], 16 * counts[-1], steps):
        points.append(Point(EULER, f"{count} steps", judge(exact_in_time + slope / count), taken.median * count, extrapolated=True))
    title = f"Ornstein–Uhlenbeck on {CELLS}² cells: time against error (hollow: extrapolated)"
    draw(points, ERROR, title, output / "work_precision_plane.png")


def _richardson(coarse: tuple[np.ndarray, list[float]], fine: tuple[np.ndarray, list[float]]) -> tuple[float, Times]:
    """The error of twice the finer solution minus the coarser one, and what both cost."""
    return judge(2.0 * fine[0] - coarse[0]), Times([sum(coarse[1]) + sum(fine[1])])


def _steps_needed(exact_in_time: np.ndarray, slope: np.ndarray) -> int:
    """How many steps bring an error in time of slope / steps within ERROR."""
    steps = 64
    while judge(exact_in_time + slope / steps) > ERROR:
        steps = int(1.05 * steps)
    return steps
