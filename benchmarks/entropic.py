"""Entropic minimising movements beside quantile functions on Barenblatt profiles, and a step of them beside plain POT.

    python benchmarks/entropic.py

The L¹ errors are those of the same steps from the same profile to the same time against the exact solution's cell averages, at 200 cells.
A step by POT is L-BFGS (scipy) on the logarithms of the masses, the transport and its gradient coming from ot.sinkhorn for the n × n cost
matrix, as many would write it; POT's barycentres by separable kernels (ot.bregman.convolutional_barycenter2d) have no energy in them.
"""

import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import ot
from scipy.optimize import minimize

from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Power
from mfpde.measure import Density, DensityFunction
from mfpde.problem import Problem
from mfpde.solvers import MinimizingMovement
from mfpde.solvers.jko.entropic import EntropicScheme

CELLS, TAU, STEPS, FIRST = 200, 1e-3, 50, 1.0
_LEAST, _EVALUATIONS = 1e-12, 100


def barenblatt(exponent: float, at: float, domain: Domain) -> DensityFunction:
    """The solution of ρ_t = (ρ^m)_xx at a time, up to its mass."""
    rate = 1.0 / (exponent + 1.0)
    steep = rate * (exponent - 1.0) / (2.0 * exponent)
    return DensityFunction(
        lambda p: at**-rate * np.maximum(1.0 - steep * p[:, 0] ** 2 * at ** (-2.0 * rate), 0.0) ** (1.0 / (exponent - 1.0)), domain
    )


def mass_of(exponent: float) -> float:
    """∫ρ of the profile, by which ρ and time scale."""
    fine = Domain((Axis("x", -6.0, 6.0),))
    x = fine.grid((400_000,)).centers
    rate = 1.0 / (exponent + 1.0)
    steep = rate * (exponent - 1.0) / (2.0 * exponent)
    return float(np.sum(np.maximum(1.0 - steep * x[:, 0] ** 2, 0.0) ** (1.0 / (exponent - 1.0)))) * 12.0 / 400_000


def errors(exponent: float) -> None:
    domain = Domain((Axis("x", -6.0, 6.0),))
    mass, last = mass_of(exponent), FIRST + TAU * STEPS
    terms = EnergySum({"porous": Power(exponent, mass ** (exponent - 1.0))})  # densities of mass 1 then spread as ρ does
    problem = Problem(terms, domain, barenblatt(exponent, FIRST, domain), (last - FIRST,))
    exact = np.ravel(barenblatt(exponent, last, domain).on(domain.grid((CELLS,))).values)
    found: dict[str, float] = {}
    kinds = (("quantile", "quantile", {}), ("biased", "entropic", {"debiased": False}), ("debiased", "entropic", {}))
    for name, method, choices in kinds:
        begun = time.perf_counter()
        run = MinimizingMovement(TAU, method=method, cells=(CELLS,), **choices).solve(problem)  # type: ignore[arg-type]
        spent = (time.perf_counter() - begun) / STEPS
        assert isinstance(run.final, Density), run.message
        found[name] = float(np.sum(np.abs(np.ravel(run.final.values) - exact))) * 12.0 / CELLS
        print(f"  {name:10} L1 error {found[name]:.2e}   {1e3 * spent:7.1f} ms a step")
    print(f"  the quantile error is {found['biased'] / found['quantile']:.0f} times below the biased entropic one", end="")
    print(f" and {found['debiased'] / found['quantile']:.1f} times below the debiased one")


def by_pot(scheme: EntropicScheme, start: FloatArray, sigma: float) -> tuple[FloatArray, int]:
    """A biased step in plain POT: the density and evaluations."""
    x, h, epsilon = scheme.grid.centers, scheme.volume, scheme.epsilon
    cost = ot.dist(x, x)
    mu = np.maximum(start * h, _LEAST)
    mu, evaluations = mu / np.sum(mu), 0

    def objective(s: FloatArray) -> tuple[float, FloatArray]:
        nonlocal evaluations
        evaluations += 1
        masses = np.exp(s - np.max(s))
        masses = np.maximum(masses / np.sum(masses), 1e-300)
        plan, log = ot.sinkhorn(
            masses, mu, cost, epsilon, method="sinkhorn_stabilized", log=True, numItermax=1000, stopThr=1e-9, warn=False
        )
        f = np.asarray(log["alpha"])
        entropy = np.sum(plan * np.log(np.maximum(plan, 1e-300)))
        rho = masses / h
        value = scheme.value(rho[:, None]) + (np.sum(plan * cost) + epsilon * entropy) / (2.0 * sigma)
        gradient = scheme.first_variation(rho) + f / (2.0 * sigma)
        return float(value), masses * (gradient - float(np.dot(masses, gradient)))

    found = minimize(objective, np.log(mu), jac=True, method="L-BFGS-B", options={"maxfun": _EVALUATIONS, "gtol": 1e-9})
    masses = np.exp(found.x - np.max(found.x))
    return masses / np.sum(masses) / h, evaluations


def step() -> None:
    domain, tau = Domain((Axis("x", -3.0, 3.0),)), 2e-2
    initial = DensityFunction(lambda p: np.maximum(1.0 - p[:, 0] ** 2, 0.0), domain)
    problem = Problem(EnergySum({"porous": Power(2.0)}), domain, initial, (tau,))
    places = {}
    for name, debiased in (("biased", False), ("debiased", True)):
        scheme = EntropicScheme(problem, (CELLS,), tau, None, None, debiased)
        start, dual = scheme.start()
        scheme.minimise(start, tau, start, start, dual)
        begun = time.perf_counter()
        found = scheme.minimise(start, tau, start, start, dual)
        places[name] = time.perf_counter() - begun
        print(f"  {name:10} {1e3 * places[name]:8.1f} ms, {found.iterations} rounds, duality gap {found.gap:.0e}")
        if not debiased:
            ours, plain = found.points[:, 0], scheme
    begun = time.perf_counter()
    theirs, evaluations = by_pot(plain, start[:, 0], tau)
    spent = time.perf_counter() - begun
    far = float(np.sum(np.abs(theirs - ours))) * plain.volume
    words = f"{spent / places['biased']:.0f} times as long, L1 distance from ours {far:.1e}"
    print(f"  POT        {1e3 * spent:8.1f} ms, {evaluations} evaluations (at most {_EVALUATIONS}), {words}")


def main() -> None:
    for exponent in (2.0, 4.0):
        print(f"Barenblatt m = {exponent:g}, {CELLS} cells, {STEPS} steps of {TAU:g}:")
        errors(exponent)
    print(f"one step of a porous medium, {CELLS} cells, tau = 0.02:")
    step()


if __name__ == "__main__":
    main()
