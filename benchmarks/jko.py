"""Steps of minimising movements: a porous medium in the quantile function, and 10⁵ atoms of a tanh network by the dual problem.

    python benchmarks/jko.py

The porous medium (m = 2, 10⁴ cells) is beside Newton's method for the same objective in plain numpy, with scipy's banded solver and with
a loop over the rows. The network is beside L-BFGS on the positions of the atoms. Both minimise E + W₂²/(2τ) over the same atoms from the
same start. L-BFGS (scipy) is stopped at a residual of 1e-10 of the velocity, in L²(ρ); its objective is the package's compiled sums over
neurons and inputs or, as many would write it, numpy's. Both see the positions times the roots of the weights, in which the quadratic part
is the identity.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.linalg import solveh_banded
from scipy.optimize import minimize

from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Normal, Power, TwoLayer, two_layer
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.solvers.jko import MinimizingMovement

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


CELLS, STEPS, SHORT = 10_000, 10, 1e-3


def by_numpy(x: FloatArray, masses: FloatArray, solve: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]) -> FloatArray:
    """A step of the porous medium by Newton's method on whole arrays."""
    aim, scale = x, masses / (6.0 * SHORT)
    for _ in range(50):
        rho, apart = masses / np.diff(x), x - aim
        gradient, diagonal = np.zeros(len(x)), np.zeros(len(x))
        gradient[:-1] += rho**2 + scale * (2.0 * apart[:-1] + apart[1:])
        gradient[1:] += scale * (apart[:-1] + 2.0 * apart[1:]) - rho**2
        firm = 2.0 * rho**2 / np.diff(x)
        diagonal[:-1] += firm + 2.0 * scale
        diagonal[1:] += firm + 2.0 * scale
        step = solve(diagonal, scale - firm, -gradient)
        x = x + step
        if np.sqrt(-gradient @ step * SHORT) <= 1e-7:
            break
    return x


def banded(diagonal: FloatArray, upper: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(solveh_banded(np.stack([np.append(0.0, upper), diagonal]), right))


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
    print(f"porous medium, {CELLS} cells, tau = {SHORT}: {1e3 * ours:.2f} ms a step, {systems / STEPS:.1f} systems")
    for name, solve in (("numpy and scipy's banded solver", banded), ("numpy and a loop over the rows", thomas)):

        def by_hand(solve: Callable[[FloatArray, FloatArray, FloatArray], FloatArray] = solve) -> None:
            x = flow.start().points[:, 0]
            for _ in range(STEPS):
                x = by_numpy(x, flow.scheme.masses, solve)  # type: ignore[attr-defined]
            places["theirs"] = x

        spent = fastest(by_hand) / STEPS
        gap = float(np.max(np.abs(places["theirs"] - places["ours"])))
        print(f"  {name:34} {1e3 * spent:8.2f} ms a step  {spent / ours:.1f} times as long, places differ by {gap:.0e}")


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
        state, seconds = flow.start(), []
        for _ in range(5):
            begun = time.perf_counter()
            found = flow.advance(state, TAU)
            seconds.append(time.perf_counter() - begun)
        value = found.energy + flow.scheme.square_distance(found.points, state.points) / (2.0 * TAU)
        ours = float(np.median(seconds))
        print(f"d = {dimension}: {COUNT} atoms, {network.features.rank} features, tau = {TAU}")
        print(f"  dual problem        {ours:8.4f} s   residual {found.worst:.0e}  value {value:.10f}  ({found.iterations} systems)")
        compiled: Objective = lambda points, n=network, w=atoms.weights: n.value_and_gradient(Particles(points, w))  # noqa: E731
        for name, objective in (("L-BFGS, compiled", compiled), ("L-BFGS, numpy", in_numpy(network, atoms.weights))):
            objective(atoms.points)
            spent, residual, reached = by_lbfgs(network, atoms, objective)
            print(f"  {name:19} {spent:8.4f} s   residual {residual:.0e}  value {reached:.10f}  {spent / ours:.1f} times as long")


if __name__ == "__main__":
    main()
