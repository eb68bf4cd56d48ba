"""Steps of minimising movements: a porous medium in the quantile function, and 10⁵ atoms of a tanh network by the dual problem.

    python benchmarks/jko.py

The porous medium (m = 2, 10⁴ cells) is beside Newton's method for the same objective in plain numpy, with scipy's banded solver, with
LAPACK's own and with a loop over the rows, and beside entropic transport on 200 cells. The network is beside L-BFGS on the positions of
the atoms. Both minimise E + W₂²/(2τ) over the same atoms from the same start, and medians of some runs are shown. L-BFGS (scipy) is
stopped at a residual of 1e-10 of the velocity, in L²(ρ); its objective is the package's compiled sums over neurons and inputs or, as many
would write it, numpy's. Both see the positions times the roots of the weights, in which the quadratic part is the identity.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import ot
from scipy.linalg import solveh_banded
from scipy.linalg.lapack import dptsv as ptsv
from scipy.optimize import minimize

from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Normal, Power, TwoLayer, two_layer
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.solvers.jko import MinimizingMovement
from mfpde.solvers.jko.residual import ResidualScheme

TAU, COUNT, WANTED = 0.2, 100_000, 1e-10
Objective = Callable[[FloatArray], tuple[float, FloatArray]]


class Reached(Exception):
    """The residual is small enough."""


def problem(dimension: int) -> Problem:
    domain = Domain(tuple(Axis(name, -3.0, 3.0) for name in "xy"[:dimension]))
    neurons = np.array([[1.5, 0.5], [-0.5, 1.0]])[:, :dimension]
    network = two_layer(domain, "tanh", Normal(), Particles(neurons, np.array([0.7, 0.3])))
    initial = DensityFunction(lambda p: np.exp(-2.0 * np.sum((p - 0.3) ** 2, axis=1)), domain)
    atoms = initial.quantiles(COUNT)
    return Problem(EnergySum({"network": network}), domain, atoms, (TAU,))


def by_lbfgs(network: TwoLayer, atoms: Particles, objective: Objective) -> tuple[float, float, float]:
    """Seconds, residual, and the value reached by L-BFGS from the atoms."""
    root, start, best = np.sqrt(atoms.weights)[:, None], time.perf_counter(), [np.inf, np.inf]

    def scaled(flat: FloatArray) -> tuple[float, FloatArray]:
        points = flat.reshape(atoms.points.shape) / root
        energy, slope = objective(points)
        moved = points - atoms.points
        value = energy + float(np.sum((root * moved) ** 2)) / (2.0 * TAU)
        gradient = root * (slope + moved / TAU)
        best[:] = float(np.sqrt(np.sum(gradient**2))), value
        if best[0] <= WANTED:
            raise Reached
        return value, gradient.ravel()

    with suppress(Reached):
        minimize(scaled, (root * atoms.points).ravel(), jac=True, method="L-BFGS-B", options={"ftol": 0.0, "gtol": 0.0, "maxiter": 500})
    return time.perf_counter() - start, best[0], best[1]


def in_numpy(network: TwoLayer, weights: FloatArray) -> Objective:
    """The same energy by products of all neurons and features."""
    features = network.features

    def objective(points: FloatArray) -> tuple[float, FloatArray]:
        lam, slopes = -network.target.copy(), np.empty_like(points)
        sigma = [np.tanh(points[k : k + 2000] @ features.nodes.T) for k in range(0, len(points), 2000)]  # type: ignore[attr-defined]
        for k, values in enumerate(sigma):
            lam += features.mixing @ (weights[2000 * k : 2000 * (k + 1)] @ values)  # type: ignore[attr-defined]
        steered = (lam @ features.mixing)[:, None] * features.nodes  # type: ignore[attr-defined]
        for k, values in enumerate(sigma):
            slopes[2000 * k : 2000 * (k + 1)] = (1.0 - values**2) @ steered
        return 0.5 * float(lam @ lam) + network.constant, slopes

    return objective


CELLS, STEPS, SHORT = 10_000, 100, 1e-3
FEW, MOST_ROUNDS = 200, 10_000
Solve = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def objective_of(x: FloatArray, aim: FloatArray, masses: FloatArray) -> float:
    """Energy and W₂²/(2τ) of the porous medium."""
    widths, off = np.diff(x), x - aim
    square = masses @ (off[:-1] ** 2 + off[:-1] * off[1:] + off[1:] ** 2) / 3.0
    return float(np.sum(masses**2 / widths) + square / (2.0 * SHORT)) if widths.min() > 0.0 else np.inf


def by_numpy(x: FloatArray, masses: FloatArray, solve: Solve, searched: bool) -> FloatArray:
    """A step of the porous medium by Newton's method on whole arrays; ``searched``: with Armijo's rule, to be sure."""
    aim, scale = x, masses / (6.0 * SHORT)
    value = objective_of(x, aim, masses) if searched else 0.0
    for _ in range(50):
        rho, apart = masses / np.diff(x), x - aim
        gradient, diagonal = np.zeros(len(x)), np.zeros(len(x))
        gradient[:-1] += rho**2 + scale * (2.0 * apart[:-1] + apart[1:])
        gradient[1:] += scale * (apart[:-1] + 2.0 * apart[1:]) - rho**2
        firm = 2.0 * rho**2 / np.diff(x)
        diagonal[:-1] += firm + 2.0 * scale
        diagonal[1:] += firm + 2.0 * scale
        step = solve(diagonal, scale - firm, -gradient)
        drop, length = -float(gradient @ step), 1.0
        while searched:
            found = objective_of(x + length * step, aim, masses)
            if found <= value - 1e-4 * length * drop + 1e-14 * abs(value):
                value = found
                break
            length *= 0.5
        x = x + length * step
        if np.sqrt(drop * SHORT) <= 1e-7:
            break
    return x


def banded(diagonal: FloatArray, upper: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(solveh_banded(np.stack([np.append(0.0, upper), diagonal]), right))


def tridiagonal(diagonal: FloatArray, upper: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(ptsv(diagonal, upper, right, 1, 1, 1)[2])


def thomas(diagonal: FloatArray, upper: FloatArray, right: FloatArray) -> FloatArray:
    pivots, solved = diagonal.copy(), right.copy()
    for i in range(len(upper)):
        factor = upper[i] / pivots[i]
        pivots[i + 1] -= factor * upper[i]
        solved[i + 1] -= factor * solved[i]
    solved[-1] /= pivots[-1]
    for i in range(len(upper) - 1, -1, -1):
        solved[i] = (solved[i] - upper[i] * solved[i + 1]) / pivots[i]
    return solved


def entropic(steps: int) -> float:
    """Seconds a step of the porous medium on FEW cells by scaling, as in POT's Sinkhorn, with Newton's method for the proximal map
    [Peyré 2015]; the regularisation blurs by one cell."""
    edges = np.linspace(-1.5, 1.5, FEW + 1)
    middle, h = 0.5 * (edges[1:] + edges[:-1]), 3.0 / FEW
    shares = np.maximum(1.0 - middle**2, 1e-12)
    shares /= np.sum(shares)
    epsilon = 2.0 * h**2
    kernel = np.exp(-ot.dist(middle[:, None], middle[:, None]) / epsilon)
    begun = time.perf_counter()
    for _ in range(steps):
        v = np.ones(FEW)
        for _ in range(MOST_ROUNDS):
            u = shares / (kernel @ v)
            q = kernel.T @ u
            s = np.log(q * v)
            for _ in range(4):  # log(ρ/q) ε/(2τ) + 2ρ/h = 0 in s = log ρ
                load = 4.0 * SHORT / (epsilon * h) * np.exp(s)
                s -= (s - np.log(q) + load) / (1.0 + load)
            new = np.exp(s) / q
            change = np.max(np.abs(new - v)) / np.max(new)
            v = new
            if change <= 1e-9:
                break
        shares = v * (kernel.T @ u)
        shares /= np.sum(shares)
    return (time.perf_counter() - begun) / steps


def sinkhorn() -> float:
    """Seconds of one call of POT's Sinkhorn between the measures before and after a step, of which a step by POT needs many."""
    middle = np.linspace(-1.5, 1.5, FEW)
    one, other = np.maximum(1.0 - middle**2, 1e-12), np.maximum(1.0 - (middle / 1.003) ** 2, 1e-12)
    cost, epsilon = ot.dist(middle[:, None], middle[:, None]), 2.0 * (3.0 / FEW) ** 2
    return fastest(lambda: ot.sinkhorn(one / one.sum(), other / other.sum(), cost, epsilon, stopThr=1e-9, warn=False))


def porous_medium() -> None:
    domain = Domain((Axis("x", -3.0, 3.0),))
    initial = DensityFunction(lambda p: np.maximum(1.0 - p[:, 0] ** 2, 0.0), domain)
    flow = MinimizingMovement(SHORT, cells=(512,), count=CELLS).prepare(
        Problem(EnergySum({"porous": Power(2.0)}), domain, initial, (SHORT * STEPS,))
    )
    places: dict[str, FloatArray] = {}

    def marched() -> int:
        state, systems = flow.start(), 0
        for _ in range(STEPS):
            state = flow.advance(state, SHORT * STEPS)
            systems += state.iterations
        places["ours"] = state.points[:, 0]
        return systems

    systems = marched()
    ours = fastest(marched) / STEPS
    print(f"porous medium, {CELLS} cells, tau = {SHORT}, {STEPS} steps: {1e6 * ours:.1f} us a step, {systems / STEPS:.2f} systems")
    ways: tuple[tuple[str, Solve, bool, int], ...] = (
        ("numpy, scipy's banded solver", banded, False, STEPS),
        ("the same with a line search", banded, True, STEPS),
        ("numpy, LAPACK's ptsv itself", tridiagonal, False, STEPS),
        ("numpy and a loop over the rows", thomas, False, 10),
    )
    for name, solve, searched, steps in ways:

        def by_hand(solve: Solve = solve, searched: bool = searched, steps: int = steps) -> None:
            x = flow.start().points[:, 0]
            for _ in range(steps):
                x = by_numpy(x, flow.scheme.masses, solve, searched)  # type: ignore[attr-defined]
            places["theirs"] = x

        spent = fastest(by_hand) / steps
        gap = f", places differ by {np.max(np.abs(places['theirs'] - places['ours'])):.0e}" if steps == STEPS else ""
        print(f"  {name:34} {1e6 * spent:10.1f} us a step  {spent / ours:.1f} times as long{gap}")
    for name, spent in ((f"entropic scaling, {FEW} cells", entropic(5)), (f"one call of ot.sinkhorn, {FEW} cells", sinkhorn())):
        print(f"  {name:34} {1e6 * spent:10.1f} us         {spent / ours:.1f} times as long")


def fastest(call: Callable[[], object]) -> float:
    """The least seconds of three calls."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> None:
    porous_medium()
    for dimension in (1, 2):
        task = problem(dimension)
        network, atoms = task.energy.terms["network"], task.initial
        assert isinstance(network, TwoLayer)
        assert isinstance(atoms, Particles)
        flow = MinimizingMovement(TAU).prepare(task)
        for _ in range(8):  # compiles, and lets the loops choose their threads
            flow.advance(flow.start(), TAU)
        scheme, state, seconds = flow.scheme, flow.start(), []
        assert isinstance(scheme, ResidualScheme)
        for _ in range(7):
            scheme.field.forget()
            begun = time.perf_counter()
            found = flow.advance(state, TAU)
            seconds.append(time.perf_counter() - begun)
        value = found.energy + scheme.square_distance(found.points, state.points) / (2.0 * TAU)
        ours = float(np.median(seconds))
        print(f"d = {dimension}: {COUNT} atoms, {network.features.rank} features, tau = {TAU}")
        print(f"  dual problem        {ours:8.4f} s   residual {found.worst:.0e}  value {value:.10f}  ({found.iterations} systems)")
        compiled: Objective = lambda points, n=network, w=atoms.weights: n.value_and_gradient(Particles(points, w))  # noqa: E731
        for name, objective, runs in (("L-BFGS, compiled", compiled, 5), ("L-BFGS, numpy", in_numpy(network, atoms.weights), 1)):
            objective(atoms.points)
            times, residuals, values = zip(*[by_lbfgs(network, atoms, objective) for _ in range(runs)], strict=True)
            spent = float(np.median(times))
            print(f"  {name:19} {spent:8.4f} s   residual {residuals[0]:.0e}  value {values[0]:.10f}  {spent / ours:.1f} times as long")


if __name__ == "__main__":
    main()
