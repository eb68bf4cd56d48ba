"""The gradient flow of N neurons (a_i, w_i) on J(π) = ½E(f − y)² + λ∫|a||w|dπ, f = (1/N)Σ a_i relu(w_i·x), up to its linear phase.

ȧ = η(w) − λ sign(a)|w|, ẇ = a∇η(w) − λ|a|ŵ with η(w) = E(y − f)relu(w·x), in the time of the mean-field limit. The difference of squares
a² − |w|² is kept. Where a = 0 the penalty has a kink: the flow is that of the smallest subgradient, so a neuron with |η(w)| ≤ λ|w| stays
at a = 0, and another one passes. Explicit Runge–Kutta steps of order 8 between these events, which are located on the dense output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.sparse.network import Network
from mfpde.sparse.solver import SparseProblem, SparseSolution

_RELATIVE, _ABSOLUTE = 1e-9, 1e-13
_MOST_STEPS = 200_000


@dataclass(frozen=True, eq=False)
class Students:
    """Neurons of equal measure 1/N with output weights ``outer`` a (N,) and input weights w = √(a² + D)û, ``directions`` û being unit
    vectors (N, d) and ``surplus`` D = |w|² − a² ≥ 0 (N,) what the flow keeps, here exactly."""

    outer: FloatArray
    directions: FloatArray
    surplus: FloatArray

    @property
    def inner(self) -> FloatArray:
        """|w|, (N,)."""
        return np.asarray(np.sqrt(self.outer**2 + self.surplus))

    @property
    def signed_masses(self) -> FloatArray:
        """a|w|/N, (N,)."""
        return self.outer * self.inner / len(self.outer)

    @property
    def masses(self) -> FloatArray:
        """|a||w|/N, (N,)."""
        return np.abs(self.signed_masses)

    def network(self, moment: float) -> Network:
        """f."""
        return Network(self.directions, self.signed_masses, moment)


def draw_students(count: int, dimension: int, amplitude: float, radius: float, generator: np.random.Generator) -> Students:
    """a = ±amplitude, every second one, and w uniform on the sphere of this radius. Raises ValueError unless amplitude ≤ radius."""
    if not 0.0 < amplitude <= radius:
        raise ValueError(f"neurons need 0 < amplitude ≤ radius, got {amplitude:g} and {radius:g}")
    drawn = generator.standard_normal((count, dimension))
    signs = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
    surplus = np.full(count, (radius - amplitude) * (radius + amplitude))
    return Students(amplitude * signs, drawn / np.linalg.norm(drawn, axis=1, keepdims=True), surplus)


def excess(solution: SparseSolution, students: Students) -> float:
    """J(π) − J* = ½E(f − f*)² + Σ(λ|a||w| − aη*(w))/N, two parts that are not negative: exact to round-off of J, not of J − J*."""
    network = students.network(solution.problem.teacher.moment)
    levels = np.sign(students.outer) * solution.residual.correlation(students.directions)
    lost = float(students.masses @ np.maximum(solution.problem.strength - levels, 0.0))
    return 0.5 * (network.minus(solution.network) if len(solution.points) else network).square() + lost


Look = Callable[[float, Students], bool]


def descend(
    problem: SparseProblem,
    start: Students,
    end: float,
    look: Look,
    stopped: Sequence[int] = (),
    longest: Callable[[], float] = lambda: np.inf,
) -> bool:
    """Follow the flow from ``start`` to time ``end``; ``look`` sees every step and ends the flow by True. False once a signal has come.
    ``longest`` is asked before every step how long it may be.

    Raises StepFailed where no step is left.
    """
    from scipy.integrate import DOP853

    signs, surplus = np.sign(start.outer), start.surplus
    time, state, first = 0.0, _packed(start), None
    for _ in range(_MOST_STEPS):
        flow = DOP853(_velocity(problem, signs, surplus), time, state, end, rtol=_RELATIVE, atol=_ABSOLUTE, first_step=first)
        changed = False
        while not changed:
            if stopped:
                return False
            flow.max_step = longest()
            flow.step()
            if flow.status == "failed":
                raise StepFailed(Status.STEP_TOO_SMALL, f"no step of the flow is accurate enough at t = {flow.t:.6g}")
            time, state = flow.t, np.array(flow.y)
            changed, time, state = _events(problem, flow, signs, surplus, state)
            if look(time, _unpacked(state, surplus)) or time >= end:
                return True
        first = min(float(flow.step_size or np.inf), end - time)
    raise StepFailed(Status.STEP_TOO_SMALL, f"output weights pass 0 more than {_MOST_STEPS} times by t = {time:.6g}")


def _events(problem: SparseProblem, flow: Any, signs: FloatArray, surplus: FloatArray, state: FloatArray) -> tuple[bool, float, FloatArray]:
    """Whether signs (which are changed in place) have changed in the last step, with the time and state at that event."""
    count, time = len(signs), float(flow.t or 0.0)
    asked = signs == 0.0
    crossed = np.flatnonzero(signs * state[:count] < 0.0)
    if len(crossed):
        time, first = _first_zero(flow, crossed)
        state = np.array(flow.dense_output()(time))
        state[first] = 0.0
        asked[first] = True
    if not asked.any():
        return False, time, state
    students = _unpacked(state, surplus)
    pull = problem.teacher.minus(students.network(problem.teacher.moment)).correlation(students.directions[asked])
    new = np.where(np.abs(pull) > problem.strength, np.sign(pull), 0.0)
    changed = bool(np.any(new != signs[asked]))
    signs[asked] = new
    return changed, time, state


def _first_zero(flow: Any, crossed: Any) -> tuple[float, Any]:
    """When the first of these components has passed 0 in the last step, and which have by then."""
    from scipy.optimize import brentq

    dense = flow.dense_output()
    before, after = dense(flow.t_old), dense(flow.t)

    def zero(i: int) -> float:
        if before[i] * after[i] >= 0.0:  # it set out from 0
            return float(flow.t_old)
        return float(brentq(lambda t: dense(t)[i], flow.t_old, flow.t, xtol=1e-14))

    zeros = [zero(i) for i in crossed]
    time = min(zeros)
    return time, [i for i, found in zip(crossed, zeros, strict=True) if found <= time]


def _velocity(problem: SparseProblem, signs: FloatArray, surplus: FloatArray) -> Callable[[float, FloatArray], FloatArray]:
    """ȧ = |w|(η(û) − λs) and dû/dt = (a/|w|)P∇η(û) with the signs s of a as they are, 0 for neurons that rest."""
    signs, even = signs.copy(), surplus == 0.0

    def velocity(_: float, state: FloatArray) -> FloatArray:
        students = _unpacked(state, surplus)
        unit, inner = students.directions, students.inner
        values, slopes = problem.teacher.minus(students.network(problem.teacher.moment)).correlation_and_slope(unit)
        outer = np.where(signs != 0.0, inner * (values - problem.strength * signs), 0.0)
        ratio = np.where(even, signs, students.outer / np.where(even, 1.0, inner))
        turned = ratio[:, None] * (slopes - values[:, None] * unit)
        return np.concatenate([outer, np.ravel(turned)])

    return velocity


def _packed(students: Students) -> FloatArray:
    return np.concatenate([students.outer, np.ravel(students.directions)])


def _unpacked(state: FloatArray, surplus: FloatArray) -> Students:
    directions = state[len(surplus) :].reshape(len(surplus), -1)
    return Students(state[: len(surplus)], directions / np.linalg.norm(directions, axis=1, keepdims=True), surplus)
