"""The temperature at which a symmetric stationary state loses its stability."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import DensityFunction, deposit
from mfpde.problem import Problem
from mfpde.solvers.stationary.branches import Landscape, explore, prepare_landscape
from mfpde.solvers.stationary.search import Found, follow
from mfpde.solvers.stationary.solver import Stationary
from mfpde.solvers.stationary.starts import starts

_STEPS = 16
_BESIDE = 0.02


@dataclass(frozen=True)
class CriticalTemperature:
    """Where the smallest eigenvalue of the branch crosses zero, and how many stable branches there are 2 % above and below it.

    A continuous transition (a pitchfork) has one above and several below. Several above mean that other states are stable before the
    followed one loses its stability: the transition is then not continuous. States that turn into one another along periodic
    axes count as one.
    """

    value: float
    stable_above: int
    stable_below: int


def critical_temperature(
    problem_at: Callable[[float], Problem], low: float, high: float, solver: Stationary, digits: int = 6
) -> CriticalTemperature:
    """The temperature between ``low`` and ``high`` at which the stationary state of ``problem_at(high)`` becomes unstable.

    That state is found from the initial density and followed downwards by Newton's method, which keeps its symmetry; the zero of its
    smallest eigenvalue is found to ``digits`` decimal digits by Brent's method. Raises ValueError where it is not stable at
    ``high``, not unstable at ``low``, lost on the way, or where the interaction is convex, so that nothing becomes unstable.
    """
    if not 0.0 < low < high:
        raise ValueError(f"needs 0 < low < high, got low = {low}, high = {high}")
    if not 1 <= digits <= 12:
        raise ValueError(f"digits must be between 1 and 12, got {digits}")
    from scipy.optimize import brentq

    path = _Path(problem_at, solver, high)
    for temperature, wanted in ((high, "stable"), (low, "unstable")):
        eigenvalue = path.eigenvalue(temperature)
        if (eigenvalue > 0.0) != (wanted == "stable"):
            raise ValueError(f"the state must be {wanted} at temperature {temperature:g}, but its smallest eigenvalue is {eigenvalue:.4g}")
    value = float(brentq(path.eigenvalue, low, high, xtol=0.05 * 10.0**-digits, rtol=1e-14))
    counts = [path.stable_count(value * (1.0 + shift)) for shift in (_BESIDE, -_BESIDE)]
    return CriticalTemperature(value, *counts)


class _Path:
    """One branch against the temperature: the densities found so far, from which others are followed."""

    def __init__(self, problem_at: Callable[[float], Problem], solver: Stationary, high: float) -> None:
        self.problem_at, self.solver = problem_at, solver
        landscape, initial = self._landscape(high)
        if landscape.system.coupling.convex:
            raise ValueError("the free energy is convex at every temperature, so its stationary state is always stable")
        branches, failed = explore(landscape, [("initial", initial)], solver.tolerance)
        if failed:
            raise ValueError(f"no stationary state was found from the initial density at temperature {high:g}")
        self.known = {high: branches[0].rho}

    def eigenvalue(self, temperature: float) -> float:
        """The smallest eigenvalue at a temperature, reached in steps from the nearest known one above it."""
        start = min(t for t in self.known if t >= temperature)
        for t in np.geomspace(start, temperature, max(2, int(np.ceil(_STEPS * np.log2(start / temperature))) + 1))[1:]:
            landscape, _ = self._landscape(float(t))
            found = follow(landscape.system, landscape.system.local.scaled(self.known[start]), self.solver.tolerance)
            if not found.converged:
                raise ValueError(f"the branch was lost at temperature {t:g}")
            start = float(t)
            self.known[start] = found.point.response.rho
        return self._stability(start)

    def _stability(self, temperature: float) -> float:
        landscape, _ = self._landscape(temperature)
        found: Found = follow(landscape.system, self.known[temperature], self.solver.tolerance)
        if not found.converged:
            raise ValueError(f"the branch was lost at temperature {temperature:g}")
        return landscape.system.coupling.least(landscape.system.local, found.point.response)

    def stable_count(self, temperature: float) -> int:
        """How many stable branches all the starts find at a temperature."""
        landscape, initial = self._landscape(temperature)
        shapes = starts(landscape.grid, initial, landscape.linear, self.solver.starts, self.solver.seed)
        branches, _ = explore(landscape, shapes, self.solver.tolerance)
        return sum(branch.stable for branch in branches)

    def _landscape(self, temperature: float) -> tuple[Landscape, FloatArray]:
        problem = self.problem_at(temperature)
        if problem.energy.temperature != temperature:
            raise ValueError(f"problem_at({temperature:g}) must have that temperature, but has {problem.energy.temperature:g}")
        grid = problem.domain.grid(self.solver.cells)
        density = problem.initial.on(grid) if isinstance(problem.initial, DensityFunction) else deposit(problem.initial, grid)
        initial = np.array(np.ravel(density.values))
        return prepare_landscape(grid, problem.energy, initial), initial
