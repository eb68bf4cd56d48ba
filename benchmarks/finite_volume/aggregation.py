"""Row 3: aggregation against porous-medium diffusion, against explicit finite volumes in plain numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from precision import OURS, Setting, compare, draw, measure, show
from scipy.fft import irfft, next_fast_len, rfft
from scipy.integrate import solve_ivp

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Problem
from mfpde.energy import Interaction, PairKernel, Power
from mfpde.march import Memory, march
from mfpde.solvers.finite_volume import Explicit, Implicit

ERROR, END, HALF, REFERENCE, CHECK = 1e-4, 0.5, 4.0, 3840, 768
NUMPY, ADAPTIVE, EXPLICIT = "numpy, SSPRK3", "numpy, solve_ivp RK23", "mfpde, explicit steps"


def problem() -> Problem:
    """ρ_t = (ρ (2ρ + W∗ρ)_x)_x, W = −e^{−|x|}, from the indicator of [−1, 1] with mass 1."""
    domain = Domain((Axis("x", -HALF, HALF),))
    kernel = PairKernel(domain, lambda x: -np.exp(-np.abs(x[:, 0])), lambda x: np.sign(x) * np.exp(-np.abs(x)))
    start = DensityFunction(lambda p: (np.abs(p[:, 0]) < 1.0).astype(float), domain)
    return Problem(EnergySum({"power": Power(2.0), "interaction": Interaction(kernel)}), domain, start, (END,))


def ours(cells: int, tolerance: float, explicit: bool, judge: Callable[[object], float]) -> Setting:
    stepper = Explicit() if explicit else Implicit()
    flow = FiniteVolume((cells,), tolerance=tolerance, stepper=stepper).prepare(problem())

    def solve() -> np.ndarray:
        memory = Memory()
        march(flow, (END,), memory)
        return memory.frames[-1].measure.values

    return Setting(EXPLICIT if explicit else OURS, f"{cells} cells, tolerance {tolerance:g}", solve, judge)


class Plain:
    """The scheme of Carrillo–Chertock–Huang (2015) in numpy: slopes by minmod (θ = 2) where centred ones would not be positive."""

    def __init__(self, cells: int) -> None:
        self.h = 2.0 * HALF / cells
        edges = np.linspace(-HALF, HALF, cells + 1)
        self.start = np.diff(np.clip(edges, -1.0, 1.0)) / (2.0 * self.h)
        self.length = next_fast_len(2 * cells - 1, real=True)
        distance = self.h * np.minimum(np.arange(self.length), self.length - np.arange(self.length))
        t = 0.5 * self.h
        weights = -np.exp(-distance) * np.sinh(t) / t
        weights[0] = np.expm1(-t) / t
        self.kernel = rfft(self.h * weights)
        self.flux, self.slope = np.zeros(cells + 1), np.zeros(cells)
        self.speed = 0.0

    def rate(self, _: float, rho: np.ndarray) -> np.ndarray:
        """−div F, and the largest speed in ``speed``."""
        xi = irfft(self.kernel * rfft(rho, self.length), self.length)[: rho.size]
        xi += 2.0 * rho
        u = (xi[:-1] - xi[1:]) / self.h
        half = self._half_differences(rho)
        np.multiply(u, np.where(u > 0.0, rho[:-1] + half[:-1], rho[1:] - half[1:]), out=self.flux[1:-1])
        self.speed = float(np.max(np.abs(u)))
        return (self.flux[:-1] - self.flux[1:]) / self.h

    def _half_differences(self, rho: np.ndarray) -> np.ndarray:
        """h/2 times the slopes."""
        rise = rho[1:] - rho[:-1]
        half = self.slope
        np.multiply(rise[1:] + rise[:-1], 0.25, out=half[1:-1])
        bad = np.flatnonzero(np.abs(half[1:-1]) > rho[1:-1])
        if bad.size:
            left, right = rise[bad], rise[bad + 1]
            least = np.minimum(np.abs(left), np.abs(right))
            limited = np.where(left * right > 0.0, np.sign(left) * np.minimum(least, 0.25 * np.abs(left + right)), 0.0)
            half[bad + 1] = limited
        return half

    def march(self) -> np.ndarray:
        """SSPRK3 with steps at the limits of positivity and of stability for the diffusion."""
        rho, time = self.start.copy(), 0.0
        while time < END:
            rate = self.rate(time, rho)
            diffusive = 0.6 * self.h**2 / (2.0 * float(np.max(rho)))
            dt = min(0.5 * self.h / max(self.speed, 1e-9), diffusive, END - time)
            one = rho + dt * rate
            two = 0.75 * rho + 0.25 * (one + dt * self.rate(time, one))
            rho = rho / 3.0 + 2.0 / 3.0 * (two + dt * self.rate(time, two))
            time = END if dt == END - time else time + dt
        return rho

    def adapt(self, tolerance: float) -> np.ndarray:
        """SciPy's adaptive steps."""
        return solve_ivp(self.rate, (0.0, END), self.start, method="RK23", rtol=tolerance, atol=tolerance).y[:, -1]


def main(quick: bool, output: Path) -> None:
    print(f"\n3. aggregation–diffusion, m = 2, W = −exp(−|x|), time {END}, L1 error {ERROR:g} against {REFERENCE} of our cells")
    fine = np.asarray(ours(REFERENCE, 1e-7 if quick else 3e-8, False, lambda _: 0.0).solve())

    def judge(values: object) -> float:
        found = np.asarray(values)
        return float(np.sum(np.abs(fine.reshape(found.size, -1).mean(axis=1) - found))) * 2.0 * HALF / found.size

    plain = Plain(CHECK).march()
    same = np.asarray(ours(CHECK, 1e-7, True, judge).solve())
    between = float(np.sum(np.abs(plain - same))) * 2.0 * HALF / CHECK
    gaps = f"{judge(plain):.1e} from the reference (ours {judge(same):.1e}), {between:.1e} from ours"
    print(f"numpy with {CHECK} cells: L1 {gaps}")

    grids = (160, 192, 240, 256, 320, 384, 480) if quick else (160, 192, 240, 256, 320, 384, 480, 640)
    settings = [ours(n, t, False, judge) for n in grids for t in (3e-4, 2e-4, 1e-4, 6e-5, 3e-5, 1e-5)]
    settings += [ours(n, 1e-4, True, judge) for n in grids]
    schemes = {n: Plain(n) for n in grids}
    settings += [Setting(NUMPY, f"{n} cells", schemes[n].march, judge) for n in grids]
    settings += [
        Setting(ADAPTIVE, f"{n} cells, tolerance {t:g}", lambda n=n, t=t: schemes[n].adapt(t), judge) for n in grids for t in (1e-3, 1e-4)
    ]
    points = measure(settings, 2, 1.0)
    wanted = {NUMPY: 100.0, ADAPTIVE: 100.0}
    show(compare(points, ERROR, wanted, 4 if quick else 10, 4.0))
    draw(points, ERROR, "Aggregation–diffusion on a line: time against error", output / "work_precision_aggregation.png")
