"""The key `exact` of a study: an expression as an exact density, tried before anything is solved."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case.errors import CaseError, Key, shown
from mfpde.case.expression import Expression, ExpressionError, parse
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.study.references import ExactDensity

_MASS_ALLOWANCE = 1e-3
_START_ALLOWANCE = 1e-2


@dataclass(frozen=True, eq=False)
class _AtTime:
    """An expression of the axis names and t as a function of points and a time."""

    expression: Expression

    def __call__(self, points: FloatArray, time: float) -> FloatArray:
        return self.expression(np.column_stack([points, np.full(len(points), time)]))


def exact_density(text: str, problem: Problem, finest: tuple[int, ...], times: tuple[float, ...], notes: list[str]) -> ExactDensity:
    """The exact density, tried at every time: finite, nonnegative and of mass one."""
    key: Key = ("study", "exact")
    if "t" in problem.domain.names:
        raise CaseError(key, "an axis is called t, which means the time in an exact density; rename the axis")
    try:
        function = _AtTime(parse(text, [*problem.domain.names, "t"]))
    except ExpressionError as error:
        raise CaseError(key, f"{shown(text)}: {error}") from error
    exact = ExactDensity(function, problem.energy, problem.domain.grid(finest))
    masses = dict.fromkeys(f"{_mass(exact, time, text, key):.10g}" for time in times)
    notes.append(f"the exact density has mass {', '.join(masses)} at t = {', '.join(f'{t:g}' for t in times)}")
    _compare_start(exact, problem, notes)
    return exact


def _mass(exact: ExactDensity, time: float, text: str, key: Key) -> float:
    try:
        mass = exact.mass(time)
    except ValueError as error:
        raise CaseError(key, f"{shown(text)}: at t = {time:g}: {error}") from error
    if not abs(mass - 1.0) <= _MASS_ALLOWANCE:
        raise CaseError(
            key, f"{shown(text)}: at t = {time:g}: has mass {mass:.6g} over the domain; it must be 1 within {_MASS_ALLOWANCE:g}"
        )
    return mass


def _compare_start(exact: ExactDensity, problem: Problem, notes: list[str]) -> None:
    """Say where the exact density does not begin as the case does; one that is singular at time 0 cannot be compared."""
    if not isinstance(problem.initial, DensityFunction):
        return
    try:
        begin = exact.on(0.0, exact.finest)
    except ValueError:
        return
    gap = float(np.sum(np.abs(begin - np.ravel(problem.initial.on(exact.finest).values)) * exact.finest.weight))
    if gap > _START_ALLOWANCE:
        notes.append(f"the exact density at t = 0 is not the initial density: they are {gap:.3g} apart in l1")
