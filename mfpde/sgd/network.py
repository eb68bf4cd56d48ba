"""A two-layer network on samples, with exact gradients and Hessian-vector products: no finite differences, no automatic ones."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.curvatures import CURVATURES


@dataclass(frozen=True, eq=False)
class Network:
    """f(x) = s Σ_j a_j σ(b_j·x) on ``inputs`` (n, D) with ``targets`` (n,), in the loss (1/n) Σ f_i, f_i = ½(f(x_i) − y_i)².

    The parameters p are the a_j (m) and then the b_j (m D), or the b_j alone where the a_j are fixed (``outer``). Raises ValueError for
    an unknown activation, shapes that do not fit or numbers that are not finite.
    """

    inputs: FloatArray
    targets: FloatArray
    activation: str
    factor: float
    outer: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.activation not in CURVATURES:
            raise ValueError(f'unknown activation "{self.activation}"; accepted: {", ".join(CURVATURES)}')
        if self.inputs.ndim != 2 or self.targets.shape != self.inputs.shape[:1] or not self.inputs.size:
            raise ValueError(f"needs inputs (n, D) and targets (n,), got shapes {self.inputs.shape} and {self.targets.shape}")
        if not (np.isfinite(self.inputs).all() and np.isfinite(self.targets).all()):
            raise ValueError("inputs and targets must be finite")

    @property
    def sigma(self) -> Activation:
        """σ and σ'."""
        return ACTIVATIONS[self.activation]

    def split(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        """a (…, m) and b (…, m, D) of parameters (…, P)."""
        dimension = self.inputs.shape[1]
        if self.outer is not None:
            return self.outer, parameters.reshape(*parameters.shape[:-1], -1, dimension)
        width = parameters.shape[-1] // (1 + dimension)
        return parameters[..., :width], parameters[..., width:].reshape(*parameters.shape[:-1], width, dimension)

    def values(self, parameters: FloatArray) -> FloatArray:
        """f at the inputs, (n,)."""
        outer, inner = self.split(parameters)
        return self.factor * (self.sigma.value(self.inputs @ inner.T) @ outer)

    def loss(self, parameters: FloatArray) -> float:
        """(1/2n) Σ (f(x_i) − y_i)²."""
        return 0.5 * float(np.mean((self.values(parameters) - self.targets) ** 2))

    def at(self, parameters: FloatArray) -> "Curvature":
        """Gradients and Hessians there."""
        return Curvature(self, parameters)


@dataclass(frozen=True, eq=False)
class Curvature:
    """First and second derivatives of the loss of ``network`` at ``parameters`` (P,)."""

    network: Network
    parameters: FloatArray

    @cached_property
    def _passed(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """sσ, sσ', s a_jσ', s a_jσ'' at b_j·x_i, (n, m) each."""
        net = self.network
        outer, inner = net.split(self.parameters)
        products = net.inputs @ inner.T
        bend = net.factor * CURVATURES[net.activation](products)
        value, slope = net.sigma.pair(products)
        return net.factor * value, net.factor * slope, net.factor * slope * outer, bend * outer

    @cached_property
    def errors(self) -> FloatArray:
        """f(x_i) − y_i, (n,)."""
        outer, _ = self.network.split(self.parameters)
        return np.asarray(self._passed[0] @ outer - self.network.targets)

    @property
    def loss(self) -> float:
        """(1/2n) Σ (f(x_i) − y_i)²."""
        return 0.5 * float(np.mean(self.errors**2))

    @cached_property
    def jacobian(self) -> FloatArray:
        """∇f(x_i), (n, P)."""
        value, _, weighted, _ = self._passed
        inner = (weighted[:, :, None] * self.network.inputs[:, None, :]).reshape(len(value), -1)
        return inner if self.network.outer is not None else np.hstack([value, inner])

    @property
    def sample_gradients(self) -> FloatArray:
        """∇f_i, (n, P)."""
        return self.errors[:, None] * self.jacobian

    @property
    def gradient(self) -> FloatArray:
        """∇ of the loss, (P,)."""
        return np.asarray(self.errors @ self.jacobian / len(self.errors))

    def bent(self, vectors: FloatArray) -> FloatArray:
        """∇²f(x_i) v_i for one vector (P,) or one for each sample (n, P), as (n, P)."""
        net, (_, slope, _, bend) = self.network, self._passed
        turns, moves = net.split(vectors)
        along = net.inputs @ moves.T if vectors.ndim == 1 else np.einsum("id,imd->im", net.inputs, moves)
        inner = bend * along if net.outer is not None else bend * along + slope * turns
        spread = (inner[:, :, None] * net.inputs[:, None, :]).reshape(len(along), -1)
        return spread if net.outer is not None else np.hstack([slope * along, spread])

    def sample_products(self, vectors: FloatArray) -> FloatArray:
        """H_i v_i = ∇f(x_i)(∇f(x_i)·v_i) + e_i ∇²f(x_i)v_i, (n, P)."""
        along = self.jacobian @ vectors if vectors.ndim == 1 else np.sum(self.jacobian * vectors, axis=1)
        return along[:, None] * self.jacobian + self.errors[:, None] * self.bent(vectors)

    def gauss_newton(self, vector: FloatArray) -> FloatArray:
        """(1/n) Σ ∇f(x_i)(∇f(x_i)·v), (P,)."""
        return np.asarray((self.jacobian @ vector) @ self.jacobian / len(self.errors))

    def product(self, vector: FloatArray) -> FloatArray:
        """Hv, the Gauss–Newton part and that of the curvature of the network, (P,)."""
        net, (_, slope, _, bend) = self.network, self._passed
        turns, moves = net.split(vector)
        along, weights = net.inputs @ moves.T, (self.errors / len(self.errors))[:, None]
        inner = bend * along if net.outer is not None else bend * along + slope * turns
        spread = np.ravel((weights * inner).T @ net.inputs)
        curved = spread if net.outer is not None else np.concatenate([np.sum(weights * slope * along, axis=0), spread])
        return np.asarray(self.gauss_newton(vector) + curved)

    @cached_property
    def hessian(self) -> FloatArray:
        """H written out, (P, P): the Gauss–Newton part, and a block for each neuron."""
        net, (_, slope, _, bend) = self.network, self._passed
        count, dimension = net.inputs.shape
        width, weights = slope.shape[1], self.errors / count
        made = self.jacobian.T @ self.jacobian / count
        first = 0 if net.outer is not None else width
        crossed = (weights[:, None] * slope).T @ net.inputs
        for j in range(width):
            place = slice(first + j * dimension, first + (j + 1) * dimension)
            made[place, place] += (net.inputs * (weights * bend[:, j])[:, None]).T @ net.inputs
            if net.outer is None:
                made[j, place] += crossed[j]
                made[place, j] += crossed[j]
        return np.asarray(made)

    def sample_squares(self) -> FloatArray:
        """|H_i|² in the Frobenius norm, (n,): |∇f|⁴ + 2e ∇f·∇²f∇f + e²|∇²f|²."""
        net, (_, slope, _, bend) = self.network, self._passed
        lengths = np.sum(net.inputs**2, axis=1)
        squares = lengths**2 * np.sum(bend**2, axis=1)
        if net.outer is None:
            squares = squares + 2.0 * lengths * np.sum(slope**2, axis=1)
        crossed = np.sum(self.jacobian * self.bent(self.jacobian), axis=1)
        return np.asarray(np.sum(self.jacobian**2, axis=1) ** 2 + 2.0 * self.errors * crossed + self.errors**2 * squares)
