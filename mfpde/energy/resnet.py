"""Features of residual networks: X⁰ = x, X^{l+1} = X^l + σ(θ^l X^l)/L for l = 0 … L−1, with states X^l ∈ R^d and σ entry by entry.

A parameter Θ = (θ⁰, …, θ^{L−1}) is a point of R^{L d²}: level after level, each matrix row after row. Gradients come from one sweep
forward and one backward: with A^L = λ and G^l = A^{l+1} σ'(θ^l X^l)/L, ∂/∂θ^l = Σ_x G^l (X^l)ᵀ and A^l = A^{l+1} + (θ^l)ᵀ G^l
[Mean Field Models for Neural Networks in Teacher-student Setting (2020), section 3.1].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.activations import Activation

_BLOCK = 1 << 15
"""Numbers of a state that are taken together, for many atoms and inputs, so that they stay in a cache."""


@dataclass(frozen=True, eq=False)
class Branch:
    """One residual network of ``depth`` L levels on states of ``dimension`` d."""

    activation: Activation
    depth: int
    dimension: int

    @property
    def axes(self) -> int:
        """L d², the coordinates of a parameter."""
        return self.depth * self.dimension**2

    def outputs(self, points: FloatArray, inputs: FloatArray) -> FloatArray:
        """X^L of parameters ``points`` (N, L d²) at inputs (Q, d), as (N, d, Q)."""
        theta = self._levels(points)
        state = np.broadcast_to(inputs.T, (len(points), *inputs.T.shape))
        for level in range(self.depth):
            state = state + self.activation.value(_applied(theta[:, level], state)) / self.depth
        return state

    def pull(self, points: FloatArray, inputs: FloatArray, coefficients: FloatArray) -> FloatArray:
        """∇ Σ_{m,q} c_mq X^L_m(x_q) at parameters ``points`` (N, L d²), with c = ``coefficients`` (d, Q); (N, L d²)."""
        theta = self._levels(points)
        state = np.broadcast_to(inputs.T, (len(points), *inputs.T.shape))
        states, slopes = [], []
        for level in range(self.depth):
            value, slope = self.activation.pair(_applied(theta[:, level], state))
            states.append(state)
            slopes.append(slope)
            state = state + value / self.depth
        found, adjoint = np.empty(theta.shape), np.broadcast_to(coefficients / self.depth, state.shape)
        for level in range(self.depth - 1, -1, -1):
            steered = adjoint * slopes[level]
            found[:, level] = _paired(steered, states[level])
            if level:
                adjoint = adjoint + _applied(np.swapaxes(theta[:, level], 1, 2), steered) / self.depth
        return found.reshape(points.shape)

    def blocks(self, count: int, inputs: int) -> Iterator[slice]:
        """Atoms that are taken together."""
        step = max(1, _BLOCK // (inputs * self.dimension))
        return (slice(start, start + step) for start in range(0, count, step))

    def average(self, points: FloatArray, weights: FloatArray, inputs: FloatArray) -> FloatArray:
        """Σ_j w_j X^L(x; Θ_j) at inputs (Q, d), as (d Q,): the first component of all inputs, then the second, …"""
        total = np.zeros(inputs.size)
        for part in self.blocks(len(points), len(inputs)):
            outputs = self.outputs(points[part], inputs)
            total += weights[part] @ outputs.reshape(len(outputs), -1)
        return total

    def along(self, points: FloatArray, inputs: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Σ_{m,q} c_mq X^L_m(x_q) of every parameter, (N,), with c = ``coefficients`` (d Q,)."""
        found = np.empty(len(points))
        for part in self.blocks(len(points), len(inputs)):
            outputs = self.outputs(points[part], inputs)
            found[part] = outputs.reshape(len(outputs), -1) @ coefficients
        return found

    def slopes(self, points: FloatArray, inputs: FloatArray, coefficients: FloatArray) -> FloatArray:
        """The gradient of ``along``, (N, L d²)."""
        found, shaped = np.empty(points.shape), coefficients.reshape(self.dimension, -1)
        for part in self.blocks(len(points), len(inputs)):
            found[part] = self.pull(points[part], inputs, shaped)
        return found

    def table(self, points: FloatArray, inputs: FloatArray) -> FloatArray:
        """X^L of all parameters at all inputs, (d Q, N), ordered as ``average``."""
        found = np.empty((inputs.size, len(points)))
        for part in self.blocks(len(points), len(inputs)):
            outputs = self.outputs(points[part], inputs)
            found[:, part] = outputs.reshape(len(outputs), -1).T
        return found

    def _levels(self, points: FloatArray) -> FloatArray:
        """The matrices θ^l, (N, L, d, d)."""
        return points.reshape(len(points), self.depth, self.dimension, self.dimension)


def _applied(theta: FloatArray, state: FloatArray) -> FloatArray:
    """θX of matrices (N, d, d) and states (N, d, Q)."""
    return np.asarray(theta * state if theta.shape[1] == 1 else theta @ state)


def _paired(steered: FloatArray, state: FloatArray) -> FloatArray:
    """Σ_q G_mq X_kq, (N, d, d)."""
    if steered.shape[1] == 1:
        return np.asarray(np.einsum("nmq,nkq->nmk", steered, state))
    return np.asarray(steered @ np.swapaxes(state, 1, 2))


@dataclass(frozen=True, eq=False)
class SampledBranches:
    """Φ_{m,q}(Θ) = scale_q X^L_m(x_q; Θ): all inputs ``nodes`` (Q, d) as they are, with the roots of their weights as ``scale`` (Q,).
    Features are ordered by m, then by q."""

    branch: Branch
    nodes: FloatArray
    scale: FloatArray
    description: str

    @property
    def rank(self) -> int:
        """d Q."""
        return self.nodes.size

    @property
    def _scales(self) -> FloatArray:
        return np.tile(self.scale, self.branch.dimension)

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, L d²), as (d Q, N)."""
        return np.asarray(self._scales[:, None] * self.branch.table(points, self.nodes))

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (d Q,)."""
        return np.asarray(self._scales * self.branch.average(points, weights, self.nodes))

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, L d²), as (N,)."""
        return self.branch.along(points, self.nodes, self._scales * lam)

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, L d²), as (N, L d²), by the adjoint recursion."""
        return self.branch.slopes(points, self.nodes, self._scales * lam)


@dataclass(frozen=True, eq=False)
class InterpolatedBranches:
    """Φ(Θ) = mixing · X^L(nodes; Θ): chosen inputs ``nodes`` (Q, d) and a ``mixing`` matrix (r, d Q)."""

    branch: Branch
    nodes: FloatArray
    mixing: FloatArray
    description: str

    @property
    def rank(self) -> int:
        """r."""
        return len(self.mixing)

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, L d²), as (r, N)."""
        return np.asarray(self.mixing @ self.branch.table(points, self.nodes))

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (r,)."""
        return np.asarray(self.mixing @ self.branch.average(points, weights, self.nodes))

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, L d²), as (N,)."""
        return self.branch.along(points, self.nodes, lam @ self.mixing)

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, L d²), as (N, L d²), by the adjoint recursion."""
        return self.branch.slopes(points, self.nodes, lam @ self.mixing)
