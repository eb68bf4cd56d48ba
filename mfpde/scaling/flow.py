"""Training two-layer networks: the gradient flow by Dormand–Prince 5(4), or gradient descent."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.scaling.kernel import norms
from mfpde.scaling.network import Network
from mfpde.scaling.risks import PopulationRisk, Risk, rotated
from mfpde.solvers.kernels.scaling import combine

_A = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [1 / 5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [3 / 40, 9 / 40, 0.0, 0.0, 0.0, 0.0, 0.0],
        [44 / 45, -56 / 15, 32 / 9, 0.0, 0.0, 0.0, 0.0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0.0, 0.0, 0.0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0.0, 0.0],
        [35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0],
    ]
)
_E = np.array([71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0
_LEAST = 1e-13
_LOOSE = 10.0
_BLOWN_UP = 1e3


@dataclass(frozen=True)
class GradientFlow:
    """ȧ_j = −E e relu(b_j·x), ḃ_j = −a_j E e relu'(b_j·x)x with e = f − f*, in steps of Dormand–Prince 5(4).

    ``tolerance``: error of a step, root mean square, relative to |a_j| + 1/(s m), which is what a neuron's share of a function of size one
    needs, and to the coordinates of b plus their size at the start; or a fixed ``step``. Raises ValueError if not positive.

    On samples the velocities of b jump where b·x_i = 0, and neurons can slide along such a plane (in the sense of Filippov), across which
    the steps then chatter: their length is proportional to the tolerance. 1e-5 is plenty there.
    """

    tolerance: float = 1e-8
    step: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.tolerance), ("step", self.step)):
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")


@dataclass(frozen=True)
class GradientDescent:
    """a ← a − η E e relu(b·x), b ← b − η a E e relu'(b·x)x; k steps reach the time kη. Raises ValueError if η is not positive."""

    rate: float

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < math.inf:
            raise ValueError(f"the learning rate must be positive and finite, got {self.rate}")


@dataclass(frozen=True, eq=False)
class Moment:
    """A network on its way: the time, the network, its training risk, steps made, and how far the errors of the steps, by their estimates
    and the tolerance, can have moved a |b_j|² − a_j²; infinite with gradient descent, whose steps move it."""

    time: float
    network: Network
    risk: float
    steps: int
    allowed: float


@dataclass(eq=False)
class _State:
    """All that a run decides on: ``point`` holds a, then the rows of b."""

    time: float
    point: FloatArray
    slope: FloatArray
    risk: float
    step: float
    allowed: float
    steps: int = 0
    rejected: bool = False


def train(
    risk: Risk, start: Network, times: Sequence[float], method: GradientFlow | GradientDescent, stopped: Sequence[int] = ()
) -> Iterator[Moment]:
    """The network at each of the increasing ``times``; with gradient descent after the first number of steps that reaches it.

    Ends early, without an error, once ``stopped`` is not empty. Raises StepFailed where a step cannot be made, where the risk grows
    beyond all bounds, and where |b_j|² − a_j² leaves what the local errors of the flow allow.
    """
    inner, basis = start.inner, None
    if isinstance(risk, PopulationRisk):
        risk, inner, basis = rotated(risk, inner)
    width = len(start.outer)
    point = np.concatenate([start.outer, np.reshape(inner, -1)])
    runner = _Runner(risk, inner.shape, start.factor, method)
    state, before = runner.begin(point), start.balance
    for time in times:
        while state.time < time * (1.0 - 1e-14):
            if stopped:
                return
            runner.advance(state, time)
        rows = np.reshape(state.point[width:], inner.shape)
        network = Network(state.point[:width].copy(), rows.copy() if basis is None else rows @ basis.T, start.factor)
        _check_balance(network, before, state)
        yield Moment(state.time, network, max(state.risk, 0.0), state.steps, state.allowed)


def _check_balance(network: Network, before: FloatArray, state: _State) -> None:
    """|b_j|² − a_j² moves only by the integrator's errors."""
    drift = np.abs(network.balance - before)
    round_off = 1e-15 * (10.0 + state.steps) * (np.abs(before) + network.outer**2 + 1.0)
    over = drift - _LOOSE * state.allowed - round_off
    if not (over <= 0.0).all():
        worst = int(np.argmax(over))
        message = (
            f"|b|² − a² of neuron {worst} moved by {drift[worst]:.2g} up to t = {state.time:g}, more than the errors of the steps allow"
        )
        raise StepFailed(Status.NOT_CONVERGED, message)


@dataclass(eq=False)
class _Runner:
    """The steps of one training."""

    risk: Risk
    shape: tuple[int, ...]
    factor: float
    method: GradientFlow | GradientDescent

    def begin(self, point: FloatArray) -> _State:
        """The state at time 0."""
        size = len(point)
        descending = isinstance(self.method, GradientDescent)
        self._stages = np.empty((7, size))
        self._trial, self._error, self._zero = np.empty(size), np.empty(size), np.zeros(size)
        slope = np.empty(size)
        value = self._evaluate(point, slope)
        spread = math.sqrt(float(np.mean(point[self.shape[0] :] ** 2))) or 1.0
        self._floor = np.full(size, spread)
        self._floor[: self.shape[0]] = 1.0 / (self.factor * self.shape[0])
        self._largest = _BLOWN_UP * max(value, 1e-300)
        return _State(0.0, point, slope, value, self._first(slope), math.inf if descending else 0.0)

    def advance(self, state: _State, until: float) -> None:
        """One step."""
        if isinstance(self.method, GradientDescent):
            combine(state.point, np.reshape(state.slope, (1, -1)), np.array([-self.method.rate]), self._trial)
            state.point, self._trial = self._trial, state.point
            state.steps += 1
            state.time = state.steps * self.method.rate
            state.risk = self._evaluate(state.point, state.slope)
            if not state.risk <= self._largest:
                raise StepFailed(Status.NOT_FINITE, f"gradient descent with rate {self.method.rate:g} blows up at t = {state.time:g}")
            return
        self._flow(state, until, self.method)

    def _flow(self, state: _State, until: float, method: GradientFlow) -> None:
        """One accepted step of the gradient flow, not beyond ``until``."""
        while True:
            wanted = state.step if method.step is None else method.step
            left = until - state.time
            step, last = (left, True) if wanted >= left else (0.5 * left if 2.0 * wanted > left else wanted, False)
            if step < _LEAST * max(until, 1e-300):
                raise StepFailed(Status.STEP_TOO_SMALL, f"no step is small enough at t = {state.time:g}")
            error, value = self._attempt(state, step, method.tolerance)
            if method.step is not None:
                error = 0.0 if math.isfinite(value) else math.inf
                if not value <= self._largest:
                    raise StepFailed(Status.NOT_FINITE, f"steps of {method.step:g} blow up at t = {state.time:g}")
            if error <= 1.0:
                break
            state.step = step * max(_SHRINK, _SAFETY * error**-0.2) if math.isfinite(error) else _SHRINK * step
            state.rejected = True
        grow = _GROW if error == 0.0 else min(_GROW, max(_SHRINK, _SAFETY * error**-0.2))
        proposal = step * (min(grow, 1.0) if state.rejected else grow)
        state.step = max(proposal, state.step) if last and grow >= 1.0 else proposal
        state.rejected = False
        self._accept(state, until if last else state.time + step, value, method.tolerance if method.step is None else 0.0)

    def _attempt(self, state: _State, step: float, tolerance: float) -> tuple[float, float]:
        """The error of a step, 1 being the tolerance, and the risk after it; the trial holds the point."""
        stages = self._stages
        stages[0] = state.slope
        value = math.nan
        for s in range(1, 7):
            combine(state.point, stages[:s], -step * _A[s, :s], self._trial)
            value = self._evaluate(self._trial, stages[s])
            if not math.isfinite(value):
                return math.inf, math.inf
        combine(self._zero, stages, step * _E, self._error)
        size = np.maximum(np.abs(state.point), np.abs(self._trial))
        ratio = self._error / (tolerance * (self._floor + size))
        return math.sqrt(float(ratio @ ratio) / len(ratio)), value

    def _accept(self, state: _State, time: float, value: float, tolerance: float) -> None:
        """Go on from the trial. Any |b_j|² − a_j² may have moved as the largest estimate says: at kinks single ones see nothing."""
        width = self.shape[0]
        a, b = self._trial[:width], np.reshape(self._trial[width:], self.shape)
        off = np.reshape(self._error[width:], self.shape)
        size = np.abs(a) + norms(b)
        moved = np.abs(a) * np.abs(self._error[:width]) + norms(b) * norms(off)
        state.allowed += 2.0 * float(np.max(moved + tolerance * size * size))
        state.point, self._trial = self._trial, state.point
        state.slope[:] = self._stages[6]
        state.time, state.risk = time, value
        state.steps += 1

    def _evaluate(self, point: FloatArray, out: FloatArray) -> float:
        width = self.shape[0]
        return self.risk.slope(point[:width], np.reshape(point[width:], self.shape), self.factor, out)

    def _first(self, slope: FloatArray) -> float:
        """A first step that moves nothing far; the error control takes over from there."""
        return 0.01 / max(math.sqrt(float(slope @ slope) / len(slope)), 1e-8)
