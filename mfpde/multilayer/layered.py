"""Fully connected networks whose neurons carry shares, which stand for m equal ones or for the nodes of a limit law."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy import Activation


@dataclass(frozen=True, eq=False)
class Layered:
    """z¹_i = σ(V_i·x), z^h_i = σ(Σ_j q_j w^h_ij z^{h−1}_j) for h = 2 … L, f = Σ_j q_j a_j z^L_j, on the risk R = ½ mean (f(x) − y)².

    ``inputs`` (n, d), ``targets`` (n,), ``shares``: q of the neurons of each hidden layer, 1/m each under the scaling of the mean field,
    1/√m in lazy training; ``rates``: the factors r of V, of the middle weights and of a in

        V̇_j = −r₁ E[e δ¹_j x],  ẇ^h_ij = −r₂ E[e δ^h_i z^{h−1}_j],  ȧ_j = −r₃ E[e z^L_j],  e = f − y,

    with δ^L_i = a_i σ'(·) and δ^h_j = σ'(·) Σ_i q_i δ^{h+1}_i w^{h+1}_ij. As ∂f/∂w_ij = q_i q_j δ_i z_j, the factors (1, 1, 1) and shares
    1/m are the gradient flow V̇ = −m∂R, ẇ = −m²∂R, ȧ = −m∂R, in which every weight moves by O(1); factors q, q², q and shares q = 1/√m
    are V̇ = −∂R, ẇ = −∂R, ȧ = −∂R. [slides (0.10); Araújo, Oliveira, Yukimura 2019; Jacot, Gabriel, Hongler 2018]

    A neuron of share 0 is moved by the others and moves none. Weights stand in one array: V, w², …, w^L, a.
    """

    inputs: FloatArray
    targets: FloatArray
    activation: Activation
    shares: tuple[FloatArray, ...]
    rates: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def depth(self) -> int:
        """L, the number of hidden layers."""
        return len(self.shares)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of V, w², …, w^L and a."""
        sizes = [len(share) for share in self.shares]
        return [(sizes[0], self.inputs.shape[1]), *((sizes[h], sizes[h - 1]) for h in range(1, self.depth)), (sizes[-1],)]

    @property
    def blocks(self) -> list[slice]:
        """Where they stand in the array of all weights."""
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes)])
        return [slice(a, b) for a, b in pairwise(ends.tolist())]

    def split(self, point: FloatArray) -> list[FloatArray]:
        """V, w², …, w^L and a, as views."""
        return [point[block].reshape(shape) for block, shape in zip(self.blocks, self.shapes, strict=True)]

    def signals(self, point: FloatArray, inputs: FloatArray | None = None) -> list[FloatArray]:
        """z^h of every hidden layer, (neurons, n)."""
        return [pair[0] for pair in self._forward(self.split(point), self.inputs if inputs is None else inputs)]

    def output(self, point: FloatArray, inputs: FloatArray | None = None) -> FloatArray:
        """f at the inputs, (n,)."""
        return np.asarray((self.shares[-1] * self.split(point)[-1]) @ self.signals(point, inputs)[-1])

    def evaluate(self, point: FloatArray, velocity: FloatArray) -> float:
        """The risk; ``velocity`` is filled with the time derivative of the weights."""
        parts, moved = self.split(point), self.split(velocity)
        layers = list(self._forward(parts, self.inputs))
        last = layers[-1][0]
        error = (self.shares[-1] * parts[-1]) @ last - self.targets
        scaled = -error / len(error)
        np.matmul(last, self.rates[2] * scaled, out=moved[-1])
        delta = parts[-1][:, None] * layers[-1][1]
        for h in range(self.depth - 1, 0, -1):
            np.matmul(delta * (self.rates[1] * scaled), layers[h - 1][0].T, out=moved[h])
            delta = layers[h - 1][1] * (parts[h].T @ (self.shares[h][:, None] * delta))
        np.matmul(delta * (self.rates[0] * scaled), self.inputs, out=moved[0])
        return 0.5 * float(error @ error) / len(error)

    def _forward(self, parts: list[FloatArray], inputs: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """σ and σ' of every hidden layer, (neurons, n) each."""
        value, slope = self.activation.pair(parts[0] @ inputs.T)
        yield value, slope
        for share, weights in zip(self.shares, parts[1:-1], strict=False):
            value, slope = self.activation.pair(weights @ (share[:, None] * value))
            yield value, slope
