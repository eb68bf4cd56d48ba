"""Residual networks of blocks of many neurons in a fixed dimension."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy import Activation


@dataclass(frozen=True, eq=False)
class Residual:
    """z⁰ = (x, 0), z^{l+1} = z^l + (1/L) Σ_j q_j u^l_j σ(w^l_j·z^l) in R^D, D = d + 1, and f = z^L_D, on the risk R = ½ mean (f(x) − y)².

    The wide residual network of [Mean Field Models for Neural Networks in Teacher-student Setting (2020), §3.2; Lu, Ma, Lu, Lu, Ying 2020]
    with outer weights u and one more coordinate, which starts from 0 and is the output. ``shares``: q of the neurons of each of the
    L = ``depth`` blocks, 1/m each or the probabilities of nodes. In the time in which every weight moves by O(1), u̇ = −(L/q)∂R:

        u̇_j = −E[e σ(w_j·z^l) p^{l+1}],  ẇ_j = −E[e (u_j·p^{l+1}) σ'(w_j·z^l) z^l],  e = f − y,

    where p^L = (0, …, 0, 1) and p^l = p^{l+1} + (1/L) Σ_j q_j (u_j·p^{l+1}) σ'(w_j·z^l) w_j. Weights stand in one array (L, 2, m, D): u, w.
    """

    inputs: FloatArray
    targets: FloatArray
    activation: Activation
    shares: FloatArray
    depth: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(L, 2, m, D)."""
        return self.depth, 2, len(self.shares), self.inputs.shape[1] + 1

    @property
    def blocks(self) -> list[slice]:
        """Where the weights of each block stand in the array of all of them."""
        _, _, width, dimension = self.shape
        size = 2 * width * dimension
        return [slice(level * size, (level + 1) * size) for level in range(self.depth)]

    def signals(self, point: FloatArray, inputs: FloatArray | None = None) -> list[FloatArray]:
        """σ(w_j·z^l) in every block, (neurons, n)."""
        return [value.T for _, value, _ in self._forward(point, inputs)[0]]

    def output(self, point: FloatArray, inputs: FloatArray | None = None) -> FloatArray:
        """f at the inputs, (n,)."""
        return self._forward(point, inputs)[1][:, -1].copy()

    def evaluate(self, point: FloatArray, velocity: FloatArray) -> float:
        """The risk; ``velocity`` is filled with the time derivative of the weights."""
        levels, moved = point.reshape(self.shape), velocity.reshape(self.shape)
        layers, end = self._forward(point, None)
        error = end[:, -1] - self.targets
        scaled = -error / len(error)
        back = np.zeros_like(end)
        back[:, -1] = 1.0
        for level in range(self.depth - 1, -1, -1):
            (outer, inner), (state, value, slope) = levels[level], layers[level]
            np.matmul((scaled[:, None] * value).T, back, out=moved[level, 0])
            pull = (back @ outer.T) * slope
            np.matmul((scaled[:, None] * pull).T, state, out=moved[level, 1])
            back = back + (pull * (self.shares / self.depth)) @ inner
        return 0.5 * float(error @ error) / len(error)

    def _forward(self, point: FloatArray, inputs: FloatArray | None) -> tuple[list[tuple[FloatArray, FloatArray, FloatArray]], FloatArray]:
        """z^l (n, D), σ and σ' (n, m) of every block, and z^L."""
        given = self.inputs if inputs is None else inputs
        state, found = np.column_stack([given, np.zeros(len(given))]), []
        for outer, inner in point.reshape(self.shape):
            value, slope = self.activation.pair(state @ inner.T)
            found.append((state, value, slope))
            state = state + value @ (outer * (self.shares / self.depth)[:, None])
        return found, state
