"""Training of networks by SGD with many learning rates at once, from one start."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.sgd.batches import Batch
from mfpde.sgd.network import Network

_BLOWN_UP = 1e8
_CHUNK = 100


@dataclass(frozen=True, eq=False)
class Trained:
    """Runs of SGD, R of them: ``parameters`` (R, P) at last, ``steps`` made by each (R,), whether it has ``fitted`` the samples to the
    tolerance, whether it has ``diverged``, and ``path`` (M, R, P), where each was at the moments asked for."""

    parameters: FloatArray
    steps: IntArray
    fitted: BoolArray
    diverged: BoolArray
    path: FloatArray


def train(
    network: Network,
    start: FloatArray,
    rates: Sequence[float],
    batch: Batch,
    steps: int,
    tolerance: float,
    seed: int,
    moments: Sequence[int] = (),
    stopped: Sequence[int] = (),
) -> Trained | None:
    """θ ← θ − η∇(mean of f_i over a batch) from ``start`` (P,) with each of the ``rates``.

    A run ends when its loss over all samples, looked at after every 100 steps and at the ``moments``, numbers of steps, is at most
    ``tolerance``, or when it has grown beyond all bounds. Its batches follow from ``seed``, their size and its place alone. None
    once ``stopped`` is not empty.
    """
    count = len(rates)
    generators = [np.random.default_rng([seed, batch.size, r]) for r in range(count)]
    points, path = np.tile(start, (count, 1)), []
    made, fitted, diverged = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    worst = _BLOWN_UP * max(network.loss(start), 1.0)
    rest, done = sorted(moments), 0
    while True:
        while rest and rest[0] <= done:
            rest.pop(0)
            path.append(points.copy())
        active = np.flatnonzero(~(fitted | diverged))
        if done >= steps or not len(active):
            break
        if stopped:
            return None
        chunk = min(_CHUNK, steps - done, *(moment - done for moment in rest[:1]))
        chosen = None if batch.whole else np.stack([batch.draw(generators[r], chunk) for r in active])
        with np.errstate(over="ignore", invalid="ignore"):
            points[active] = _descended(network, points[active], np.asarray(rates)[active], chosen, chunk)
            losses = np.array([network.loss(points[r]) for r in active])
        made[active] += chunk
        done += chunk
        fitted[active] = losses <= tolerance
        diverged[active] = ~(losses <= worst)
    path += [points.copy()] * len(rest)
    return Trained(points, made, fitted, diverged, np.array(path).reshape(len(path), *points.shape))


def _descended(network: Network, points: FloatArray, rates: FloatArray, chosen: IntArray | None, steps: int) -> FloatArray:
    """Points (R, P) after so many steps on the batches ``chosen`` (R, steps, B), None: on all samples."""
    inputs, targets = network.inputs, network.targets
    for k in range(steps):
        if chosen is not None:
            inputs, targets = network.inputs[chosen[:, k]], network.targets[chosen[:, k]]
        points = points - rates[:, None] * batch_gradients(network, points, inputs, targets)
    return points


def batch_gradients(network: Network, points: FloatArray, inputs: FloatArray, targets: FloatArray) -> FloatArray:
    """The gradients of ½ mean (f − y)² at points (R, P), on inputs (B, D) for all or (R, B, D), as (R, P)."""
    outer, inner = network.split(points)
    value, slope = network.sigma.pair(inputs @ np.swapaxes(inner, 1, 2))
    weights = outer[..., None, :]
    errors = (network.factor * np.sum(value * weights, axis=2) - targets) * (network.factor / inputs.shape[-2])
    turned = np.swapaxes(slope * (errors[:, :, None] * weights), 1, 2) @ inputs
    flat = turned.reshape(len(points), -1)
    return flat if network.outer is not None else np.hstack([np.einsum("rb,rbm->rm", errors, value), flat])
