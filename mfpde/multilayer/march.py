"""The gradient flow of a network in steps of Dormand–Prince 5(4)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.integrate import RK45

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.solvers.kernels.scaling import combine

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0
_LEAST = 1e-13
_BLOWN_UP = 1e6
_STAGES = [np.ascontiguousarray(row[:s], dtype=float) for s, row in enumerate(RK45.A)] + [np.array(RK45.B, dtype=float)]
_ERROR = np.array(RK45.E, dtype=float)


class System(Protocol):
    """A network whose weights stand in one array."""

    @property
    def blocks(self) -> list[slice]:
        """Weights whose errors are controlled each for themselves."""

    def evaluate(self, point: FloatArray, velocity: FloatArray) -> float:
        """The risk; fills the velocity of the weights."""


@dataclass(frozen=True, eq=False)
class Moment:
    """The weights at a time, the risk there and the steps made so far."""

    time: float
    point: FloatArray
    risk: float
    steps: int


def train(system: System, start: FloatArray, times: Sequence[float], tolerance: float, stopped: Sequence[int] = ()) -> Iterator[Moment]:
    """The weights at each of the increasing ``times``, from ``start`` at time 0.

    ``tolerance``: the error of a step, root mean square in each block of weights, relative to 1 + |w|. Ends early, without an error, once
    ``stopped`` is not empty. Raises StepFailed where a step cannot be made or the risk grows beyond all bounds.
    """
    runner = _Runner(system, start, tolerance)
    for time in times:
        while runner.time < time:
            if stopped:
                return
            runner.advance(time)
        yield Moment(time, runner.point.copy(), runner.risk, runner.steps)


class _Runner:
    """The steps of one run."""

    def __init__(self, system: System, start: FloatArray, tolerance: float) -> None:
        self.system, self.tolerance = system, tolerance
        self.time, self.steps, self.point = 0.0, 0, np.array(start, dtype=float)
        self._stages = np.empty((7, len(start)))
        self._trial, self._error, self._zero = np.empty(len(start)), np.empty(len(start)), np.zeros(len(start))
        with np.errstate(over="ignore", invalid="ignore"):
            self.risk = system.evaluate(self.point, self._stages[0])
        if not math.isfinite(self.risk):
            raise StepFailed(Status.NOT_FINITE, "the risk at the start is not finite")
        self._largest = _BLOWN_UP * (1.0 + self.risk)
        self._step = 0.01 / max(float(np.max(np.abs(self._stages[0]))), 1e-3)

    def advance(self, until: float) -> None:
        """One accepted step, not beyond ``until``."""
        shrunk = False
        while True:
            left = until - self.time
            last = self._step >= left
            step = left if last else 0.5 * left if 2.0 * self._step > left else self._step
            if step < _LEAST * until:
                raise StepFailed(Status.STEP_TOO_SMALL, f"no step is small enough at t = {self.time:g}")
            error, risk = self._attempt(step)
            factor = _GROW if error == 0.0 else min(_GROW, max(_SHRINK, _SAFETY * error**-0.2)) if math.isfinite(error) else _SHRINK
            if error <= 1.0:
                break
            self._step, shrunk = step * min(factor, _SAFETY), True
        if risk > self._largest:
            raise StepFailed(Status.NOT_FINITE, f"the risk grows beyond all bounds at t = {self.time:g}")
        proposal = step * (min(factor, 1.0) if shrunk else factor)
        self._step = max(proposal, self._step) if last and factor >= 1.0 else proposal
        self.time, self.risk, self.steps = until if last else self.time + step, risk, self.steps + 1
        self.point, self._trial = self._trial, self.point
        self._stages[0] = self._stages[6]

    def _attempt(self, step: float) -> tuple[float, float]:
        """The error of a step, 1 being the tolerance, and the risk after it; the trial holds the point."""
        risk = math.nan
        for s in range(1, 7):
            combine(self.point, self._stages[:s], step * _STAGES[s], self._trial)
            with np.errstate(over="ignore", invalid="ignore"):  # of a step that is too long, and is made again
                risk = self.system.evaluate(self._trial, self._stages[s])
            if not math.isfinite(risk):
                return math.inf, risk
        combine(self._zero, self._stages, step * _ERROR, self._error)
        ratio = self._error / (1.0 + np.maximum(np.abs(self.point), np.abs(self._trial)))
        worst = max(float(np.mean(ratio[block] ** 2)) for block in self.system.blocks)
        return math.sqrt(worst) / self.tolerance, risk
