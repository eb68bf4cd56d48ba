"""What is measured of networks in training: gaps to the limit, neurons beside their limit processes, spreads and movements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.multilayer.layered import Layered
from mfpde.multilayer.limit import Followed, layered_limit, residual_limit
from mfpde.multilayer.march import train
from mfpde.multilayer.residual import Residual
from mfpde.multilayer.starts import Scaling, Task, Weights, layered_start, residual_start

COUPLED = ("first", "middle", "last")
MOVED = ("first", "middle", "last")
_FINER = 1.5


@dataclass(frozen=True, eq=False)
class Setup:
    """What networks learn, further inputs (k, d) at which outputs are compared, the laws of their weights, the times (T,) from 0 on and the
    tolerance of the steps."""

    task: Task
    test: FloatArray
    weights: Weights
    times: tuple[float, ...]
    tolerance: float

    @property
    def everywhere(self) -> FloatArray:
        """All inputs, (n + k, d)."""
        return np.concatenate([self.task.inputs, self.test])


@dataclass(frozen=True, eq=False)
class Course:
    """Outputs (T, n + k) and risks (T,) over time; a limit's outputs with a finer rule differ from these by at most ``floor``."""

    outputs: FloatArray
    risks: FloatArray
    floor: float = 0.0


@dataclass(frozen=True, eq=False)
class LimitCourse:
    """The limit m → ∞, and in it what the followed neurons compute: z¹ and z^L (T, K, n), and z^h of the layers between, (T, L − 2, n)."""

    course: Course
    first: FloatArray
    middle: FloatArray
    last: FloatArray


@dataclass(frozen=True, eq=False)
class Comparison:
    """A network beside the limit: sup_x|f_m − f| and the risk (T,); sup_t of the distances of neurons to their limit processes, root mean
    squares over neurons and inputs, by ``COUPLED``; and E_x z^L_i f* of single neurons at the end, (K,)."""

    gaps: FloatArray
    risks: FloatArray
    coupling: FloatArray
    neurons: FloatArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """A training: risks (T,), the spread of each layer over its neurons at start and end (2, L), and how far the weights moved, by
    ``MOVED``."""

    risks: FloatArray
    spreads: FloatArray
    moved: FloatArray


def follow_limit(setup: Setup, depth: int, nodes: int, followed: Followed, stopped: Sequence[int] = ()) -> LimitCourse | None:
    """The limit m → ∞ of ``depth`` hidden layers; None once stopped. Raises StepFailed."""
    network, point = layered_limit(setup.task, setup.weights, depth, nodes, followed)
    kept: list[tuple[FloatArray, float, FloatArray, FloatArray, FloatArray]] = []
    count = len(followed.last)
    for moment in train(network, point, setup.times, setup.tolerance, stopped):
        layers = network.signals(moment.point)
        middle = np.array([layer[0] for layer in layers[1:-1]]).reshape(max(depth - 2, 0), len(setup.task.targets))
        kept.append((network.output(moment.point, setup.everywhere), moment.risk, layers[0][-count:], middle, layers[-1][-count:]))
    finer = _course(setup, *layered_limit(setup.task, setup.weights, depth, math.ceil(_FINER * nodes)), stopped)
    if finer is None or len(kept) < len(setup.times):
        return None
    outputs, risks, first, middle, last = (np.array(values) for values in zip(*kept, strict=True))
    return LimitCourse(Course(outputs, risks, float(np.max(np.abs(outputs - finer.outputs)))), first, middle, last)


def compare(
    setup: Setup, depth: int, width: int, seed: int, limit: LimitCourse, place: int, count: int, stopped: Sequence[int] = ()
) -> Comparison | None:
    """A network of ``width`` neurons beside the limit, in which its first ``count`` neurons are followed from ``place`` on; None once
    stopped. Raises StepFailed."""
    network, point = layered_start(setup.task, setup.weights, Scaling.MEAN_FIELD, depth, width, seed)
    gaps, risks, apart, layers = [], [], [], [np.empty(0)]
    own = slice(place, place + count)
    for t, moment in enumerate(train(network, point, setup.times, setup.tolerance, stopped)):
        gaps.append(float(np.max(np.abs(network.output(moment.point, setup.everywhere) - limit.course.outputs[t]))))
        risks.append(moment.risk)
        layers = network.signals(moment.point)
        middle = [np.mean((layer[:count] - limit.middle[t, h]) ** 2, axis=1) for h, layer in enumerate(layers[1:-1])]
        first = np.mean((layers[0][:count] - limit.first[t, own]) ** 2, axis=1)
        last = np.mean((layers[-1][:count] - limit.last[t, own]) ** 2, axis=1)
        nothing = np.full(count, np.nan)
        apart.append([first, np.mean(middle, axis=0) if middle else nothing, last if depth > 1 else nothing])
    if len(gaps) < len(setup.times):
        return None
    coupling = np.sqrt(np.mean(np.max(np.array(apart), axis=0), axis=1))
    return Comparison(np.array(gaps), np.array(risks), coupling, layers[-1][:count] @ setup.task.targets / len(setup.task.targets))


def measure(setup: Setup, scaling: Scaling, depth: int, width: int, seed: int, stopped: Sequence[int] = ()) -> Outcome | None:
    """A training under a scaling; None once stopped. Raises StepFailed."""
    network: Layered | Residual
    if scaling is Scaling.RESIDUAL:
        network, start = residual_start(setup.task, setup.weights, depth, width, seed)
    else:
        network, start = layered_start(setup.task, setup.weights, scaling, depth, width, seed)
    risks, end = [], start
    for moment in train(network, start, setup.times, setup.tolerance, stopped):
        risks.append(moment.risk)
        end = moment.point
    if len(risks) < len(setup.times):
        return None
    spreads = np.array([[spread(layer) for layer in network.signals(point)] for point in (start, end)])
    moved = _moved_blocks(network, start, end) if isinstance(network, Residual) else _moved_layers(network, start, end)
    return Outcome(np.array(risks), spreads, moved)


def compare_residual(
    setup: Setup, depth: int, width: int, seed: int, limit: Course, stopped: Sequence[int] = ()
) -> tuple[FloatArray, FloatArray] | None:
    """sup_x|f_{m,L} − f_L| and the risk (T,) of a residual network; None once stopped. Raises StepFailed."""
    found = _course(setup, *residual_start(setup.task, setup.weights, depth, width, seed), stopped)
    return None if found is None else (np.max(np.abs(found.outputs - limit.outputs), axis=1), found.risks)


def follow_residual(setup: Setup, depth: int, nodes: int, stopped: Sequence[int] = ()) -> Course | None:
    """The limit m → ∞ of ``depth`` residual blocks; None once stopped. Raises StepFailed."""
    coarse, fine = (
        _course(setup, *residual_limit(setup.task, setup.weights, depth, count), stopped) for count in (nodes, math.ceil(_FINER * nodes))
    )
    if coarse is None or fine is None:
        return None
    return Course(coarse.outputs, coarse.risks, float(np.max(np.abs(coarse.outputs - fine.outputs))))


def spread(signals: FloatArray) -> float:
    """The standard deviation over the neurons of what a layer computes, root mean square over the inputs; ``signals`` (neurons, n)."""
    return float(np.sqrt(np.mean(np.var(signals, axis=0))))


def _course(setup: Setup, network: Layered | Residual, start: FloatArray, stopped: Sequence[int]) -> Course | None:
    pairs = [
        (network.output(moment.point, setup.everywhere), moment.risk)
        for moment in train(network, start, setup.times, setup.tolerance, stopped)
    ]
    if len(pairs) < len(setup.times):
        return None
    return Course(np.array([output for output, _ in pairs]), np.array([risk for _, risk in pairs]))


def _moved_layers(network: Layered, start: FloatArray, end: FloatArray) -> FloatArray:
    """|V(t) − V(0)|/|V(0)| in the Frobenius norm, the largest ‖w^h(t) − w^h(0)‖/‖w^h(0)‖ in the spectral norm, which says how far a layer
    has moved as a map, and |a(t) − a(0)|/|a(0)|; nan where there is nothing, or 0 at the start."""
    before, after = network.split(start), network.split(end)
    pairs = list(zip(before, after, strict=True))
    middle = [_ratio(float(np.linalg.norm(b - a, 2)), float(np.linalg.norm(a, 2))) for a, b in pairs[1:-1]]
    ends = [_ratio(float(np.linalg.norm(b - a)), float(np.linalg.norm(a))) for a, b in (pairs[0], pairs[-1])]
    return np.array([ends[0], max(middle, default=math.nan), ends[1]])


def _moved_blocks(network: Residual, start: FloatArray, end: FloatArray) -> FloatArray:
    """|w(t) − w(0)|/|w(0)| of all blocks, and nan for what there is not."""
    inner, other = start.reshape(network.shape)[:, 1], end.reshape(network.shape)[:, 1]
    return np.array([_ratio(float(np.linalg.norm(other - inner)), float(np.linalg.norm(inner))), math.nan, math.nan])


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0.0 else math.nan
