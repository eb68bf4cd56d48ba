"""Steps of minimising movements of atoms: the positions themselves, the dual problem in the features, and L-BFGS of scipy.

``python benchmarks/lagrangian.py [count]``, by default 10000 atoms, on two shipped cases: a tanh network in one dimension and in two. All
solve the same steps, E(X) + Σ w|X − Y|²/(2τ), from the same atoms for the same tau; the rows say the median of the steps and the energy
at the end. scipy's L-BFGS-B has the package's own gradients through tables, scaled to the weights, and a gradient tolerance that leaves
about the same energy; it has no walls, no kinks and no certificates.
"""

import os
import sys
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import minimize

from mfpde.case import load_case
from mfpde.case.build import build_problem
from mfpde.measure import Particles
from mfpde.problem import Problem
from mfpde.solvers import MinimizingMovement

CASES = Path(__file__).parent.parent / "cases"
TAU, STEPS, TOLERANCE = 0.05, 10, 1e-9


def ours(problem: Problem, method: str, count: int) -> tuple[float, float]:
    """Median seconds of a step and the energy at the end, after a first march that compiles."""
    solver = MinimizingMovement(tau=TAU, method=method, count=count)
    flow = solver.prepare(problem)
    seconds: list[float] = []
    for _ in range(2):
        state, seconds = flow.start(), []
        for k in range(STEPS):
            start = perf_counter()
            state = flow.advance(state, TAU * (k + 1))
            seconds.append(perf_counter() - start)
    return float(np.median(seconds)), float(problem.energy.value(flow.measure(state)))


def scipys(problem: Problem, count: int) -> tuple[float, float]:
    """The same by scipy, from the same atoms."""
    flow = MinimizingMovement(tau=TAU, method="lagrangian", count=count).prepare(problem)
    first = flow.measure(flow.start())
    weights, shape = first.weights, first.points.shape
    energy = problem.energy.tabulated(problem.domain, 1e-9, len(weights))
    target, seconds = first.points, []
    root = np.sqrt(weights)[:, None]

    for _ in range(STEPS):
        before = target

        def objective(x: np.ndarray, before: np.ndarray = before) -> tuple[float, np.ndarray]:
            points = x.reshape(shape) / root
            value, slope = energy.value_and_gradient(Particles(points, weights))
            step = points - before
            total = value + float(weights @ np.sum(step**2, axis=1)) / (2.0 * TAU)
            return total, np.ravel(root * (slope + step / TAU))

        start = perf_counter()
        found = minimize(objective, np.ravel(root * before), jac=True, method="L-BFGS-B", options={"gtol": TOLERANCE, "ftol": 1e-15})
        seconds.append(perf_counter() - start)
        target = found.x.reshape(shape) / root
    return float(np.median(seconds)), float(problem.energy.value(Particles(target, weights)))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for name in ("teacher_student", "two_dimensional"):
        whole = build_problem(load_case(CASES / f"{name}.toml", ()))
        problem = Problem(whole.energy, whole.domain, whole.initial, (TAU * STEPS,))
        base, _ = rows = ours(problem, "lagrangian", count)
        print(f"{name}, about {count} atoms, tau = {TAU}: seconds a step, ratio, energy after {STEPS} steps")
        print(f"  lagrangian      {rows[0]:9.4f}  {1.0:6.1f}  {rows[1]:.12g}")
        for words, (seconds, energy) in (("residual", ours(problem, "residual", count)), ("scipy L-BFGS-B", scipys(problem, count))):
            print(f"  {words:14s}  {seconds:9.4f}  {seconds / base:6.1f}  {energy:.12g}")


if __name__ == "__main__":
    main()
