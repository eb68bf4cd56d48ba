"""Row 6: porous medium in a quadratic potential to its steady state, with its free boundary, against py-pde on the same grid."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import erf
from timing import interleave, seconds, verdict

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Problem
from mfpde.energy import Potential, Power
from mfpde.solvers.finite_volume import Explicit, Implicit

CELLS, HALF, END, SAMPLES = 160, 4.0, 6.0, 600
H = 2.0 * HALF / CELLS
EDGES = np.linspace(-HALF, HALF, CELLS + 1)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])
RADIUS = 3.0 ** (1.0 / 3.0)
START = np.diff(erf(EDGES / np.sqrt(2.0))) / np.ptp(erf(EDGES / np.sqrt(2.0))) / H


def steady() -> np.ndarray:
    """Cell averages of (a² − x²)₊/4 with a³ = 3."""
    x = np.clip(EDGES, -RADIUS, RADIUS)
    return np.diff(RADIUS**2 * x - x**3 / 3.0) / (4.0 * H)


def energy(rho: np.ndarray) -> float:
    """∫ρ² + ½x²ρ on the cells."""
    return H * float(np.sum(rho**2 + 0.5 * CENTRES**2 * rho))


def rise(energies: np.ndarray) -> float:
    """The most by which an energy ever exceeds an earlier one."""
    return float(np.max(energies - np.minimum.accumulate(energies)))


@dataclass(frozen=True)
class Found:
    """L¹ error at the end, least value, rise of the energy, drift of the mass."""

    error: float
    minimum: float
    rise: float
    drift: float


def problem() -> Problem:
    domain = Domain((Axis("x", -HALF, HALF),))
    potential = Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p)
    start = DensityFunction(lambda p: np.exp(-0.5 * p[:, 0] ** 2), domain)
    return Problem(EnergySum({"power": Power(2.0), "potential": potential}), domain, start, (END,))


def ours(solver: FiniteVolume) -> Found:
    run = solver.solve(problem())
    steps = run.certificate
    error = H * float(np.sum(np.abs(run.final.values - steady())))
    return Found(error, float(np.min(steps["minimum"])), rise(steps["energy"]), steps.mass_drift())


def peer() -> tuple[Found, float]:
    """py-pde with the whole flux ρ∂(2ρ + x²/2) in divergence form and no flux at the walls, and its time; other forms break down."""
    import pde

    start = pde.ScalarField(pde.CartesianGrid([[-HALF, HALF]], [CELLS]), START)
    closed = {"c:gradient": {"derivative": HALF}, "c:divergence": {"normal_value": 0}}
    equation = pde.PDE({"c": "divergence(c * gradient(2 * c + x**2 / 2))"}, bc_ops=closed)
    step = pde.RungeKuttaSolver(equation, adaptive=True, tolerance=1e-4, backend="numba").make_stepper(start, 1e-4)
    energies, least, field = [energy(START)], float(np.min(START)), start.copy()
    taken = 0.0
    for k in range(SAMPLES):
        begun = time.perf_counter()
        step(field, k * END / SAMPLES, (k + 1) * END / SAMPLES)
        taken += time.perf_counter() - begun
        energies.append(energy(field.data))
        least = min(least, float(np.min(field.data)))
    error = H * float(np.sum(np.abs(field.data - steady())))
    return Found(error, least, rise(np.array(energies)), abs(H * float(np.sum(field.data)) - 1.0)), taken


def main(quick: bool, output: Path) -> None:
    print(f"\n6. rho_t = (rho (2 rho + x²/2)_x)_x from N(0, 1) to its steady state, {CELLS} cells on [-4, 4], time {END:g}")
    print(f"{'':32}{'L1 error':>10}{'minimum':>10}{'energy rise':>13}{'mass drift':>12}{'time':>10}")
    for words, stepper in (("mfpde, implicit", Implicit()), ("mfpde, explicit", Explicit())):
        solver = FiniteVolume((CELLS,), stepper=stepper)
        found = ours(solver)
        taken = interleave({"": lambda s=solver: s.solve(problem())}, 5, 2.0)[""]
        good = found.error <= 1e-4 and found.minimum >= 0.0 and found.rise <= 1e-13
        _show(words, found, taken.least, f"   wanted <= 1e-4, >= 0, <= 1e-13: {verdict(good)}")
    _show("py-pde, RK45 adaptive", *peer(), "")


def _show(words: str, found: Found, taken: float, rest: str) -> None:
    numbers = f"{found.error:10.1e}{found.minimum:10.1e}{found.rise:13.1e}{found.drift:12.1e}"
    print(f"{words:32}{numbers}{seconds(taken):>10}{rest}", flush=True)
