"""Networks at the start of training: what they learn, the laws of their weights, and draws of them under each scaling."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy import Activation
from mfpde.multilayer.laws import Law
from mfpde.multilayer.layered import Layered
from mfpde.multilayer.residual import Residual


class Scaling(Enum):
    """What stands before the sums over neurons, and the law of the weights that are summed."""

    MEAN_FIELD = "mean_field"
    """1/m."""
    CENTRED = "centred"
    """1/m, and middle and last weights of mean 0."""
    LAZY = "lazy"
    """1/√m, and middle and last weights of mean 0, without which the sums would grow like √m."""
    RESIDUAL = "residual"
    """Residual blocks, (1/L)(1/m)."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is learnt: inputs (n, d), targets (n,), the activation, and whether V and a are trained or stay as they are drawn, as those
    of Araújo, Oliveira and Yukimura do."""

    inputs: FloatArray
    targets: FloatArray
    activation: Activation
    ends_trained: bool = True

    @property
    def rates(self) -> tuple[float, float, float]:
        """The factors of the velocities under 1/m."""
        end = 1.0 if self.ends_trained else 0.0
        return end, 1.0, end


@dataclass(frozen=True)
class Weights:
    """The laws of the coordinates of V (and of w in residual blocks), of the middle weights, of a, and of the outer weights u of residual
    blocks."""

    first: Law = field(default_factory=Law)
    middle: Law = field(default_factory=lambda: Law(mean=1.0))
    last: Law = field(default_factory=lambda: Law(mean=1.0))
    outer: Law = field(default_factory=lambda: Law(deviation=0.0))


def layered_start(task: Task, weights: Weights, scaling: Scaling, depth: int, width: int, seed: int) -> tuple[Layered, FloatArray]:
    """A network with ``width`` neurons in each of ``depth`` hidden layers, and its weights. Neuron i of the first and of the last layer
    starts from the same V_i and a_i in networks of all widths and depths with this seed. Raises ValueError for residual scaling."""
    if scaling is Scaling.RESIDUAL:
        raise ValueError("residual blocks are drawn by residual_start")
    centred = scaling is not Scaling.MEAN_FIELD
    middle, last = (weights.middle.centred, weights.last.centred) if centred else (weights.middle, weights.last)
    parts = [weights.first.draw(generator(seed, 0), (width, task.inputs.shape[1]))]
    parts += [middle.draw(generator(seed, h), (width, width)) for h in range(2, depth + 1)]
    parts += [last.draw(generator(seed, 1), (width,))]
    lazy = scaling is Scaling.LAZY
    share, rates = (width**-0.5 if lazy else 1.0 / width), task.rates
    if lazy:
        rates = (rates[0] * share, rates[1] * share * share, rates[2] * share)
    network = Layered(task.inputs, task.targets, task.activation, (np.full(width, share),) * depth, rates)
    return network, np.concatenate([part.reshape(-1) for part in parts])


def residual_start(task: Task, weights: Weights, depth: int, width: int, seed: int) -> tuple[Residual, FloatArray]:
    """A residual network of ``depth`` blocks of ``width`` neurons, and its weights."""
    network = Residual(task.inputs, task.targets, task.activation, np.full(width, 1.0 / width), depth)
    point = np.empty(network.shape)
    for level in range(depth):
        point[level, 0] = weights.outer.draw(generator(seed, 0, level), point.shape[2:])
        point[level, 1] = weights.first.draw(generator(seed, 1, level), point.shape[2:])
    return network, point.reshape(-1)


def generator(seed: int, *place: int) -> np.random.Generator:
    """Of the weights of one place."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
