"""Where a network's inputs and targets come from: what stochastic gradient descent draws its minibatches from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy.activations import Activation
from mfpde.energy.features import Parameters, SampledFeatures
from mfpde.energy.inputs import InputLaw, Samples
from mfpde.energy.outputs import PLAIN, Outputs
from mfpde.energy.resnet import Branch, SampledBranches


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of ``width`` numbers from a ``law``; their targets are ``data`` (n,) that belong to its samples, or else come from
    ``target_at``, which maps inputs (Q, D) to targets (Q,); with k ``outputs`` targets are (n, k) and (Q, k). ``bias``: D has one more
    input, which is always 1. ``neurons`` is the domain of the single neurons, which matters unless the outputs are plain. ``branch``: what
    stands in place of σ(x·θ) for residual networks, whose k outputs are the last state."""

    activation: Activation
    parameters: Parameters
    law: InputLaw
    width: int
    bias: bool
    target_at: Callable[[FloatArray], FloatArray] | None
    data: FloatArray | None
    outputs: Outputs = PLAIN
    neurons: Domain | None = None
    branch: Branch | None = None

    @property
    def size(self) -> int | None:
        """The number n of samples; None for other laws."""
        return len(self.law.points) if isinstance(self.law, Samples) else None

    def draw(self, generator: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
        """``count`` independent inputs (count, width) of the law and their targets (count, …); samples are drawn with replacement.
        Raises ValueError for a count below 1."""
        if count < 1:
            raise ValueError(f"the number of inputs must be at least 1, got {count}")
        if self.size is not None:
            return self.rows(generator.integers(self.size, size=count))
        inputs = self.law.sample(generator, count, self.width)
        return inputs, self._targets(inputs)

    def rows(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """The samples with these ``indices`` (count,), as inputs (count, width) and targets (count, …). Raises ValueError for others."""
        if not isinstance(self.law, Samples):
            raise ValueError("only inputs that are samples have rows; draw from the law instead")
        inputs = self.law.points[indices]
        return inputs, self._targets(inputs) if self.data is None else self.data[indices]

    def features(self, inputs: FloatArray) -> SampledFeatures | SampledBranches:
        """Those of ``inputs`` (B, width) with weights 1/B. Raises ValueError for another width or no inputs."""
        if inputs.ndim != 2 or inputs.shape[1] != self.width or len(inputs) == 0:
            raise ValueError(f"a batch needs inputs (B, {self.width}) with B >= 1, got an array of shape {inputs.shape}")
        scale = np.full(len(inputs), 1.0 / np.sqrt(len(inputs)))
        described = f"a batch of {len(inputs)} inputs"
        if self.branch is not None:
            return SampledBranches(self.branch, np.ascontiguousarray(inputs), scale, described)
        return SampledFeatures(self.activation, self.parameters, self._with_constant(inputs), scale, described)

    def _targets(self, inputs: FloatArray) -> FloatArray:
        if self.target_at is None:
            raise ValueError("inputs drawn from a law need a teacher, which gives their targets")
        return self.target_at(self._with_constant(inputs))

    def _with_constant(self, inputs: FloatArray) -> FloatArray:
        return np.hstack([inputs, np.ones((len(inputs), 1))]) if self.bias else np.ascontiguousarray(inputs)
