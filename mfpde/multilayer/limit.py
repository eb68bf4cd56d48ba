"""Networks of infinite width under 1/m scaling.

With independent initial weights the sums over neurons become expectations as m → ∞, and a velocity depends on its neurons only through
what the sums do not see any more. So a neuron of the first layer is told from others by V_j(0) = v alone, one of the last layer by
a_i(0) = α, and those of the layers 2 … L − 1 by nothing: the depth collapses. The weights are w^h_ij(t) = w^h_ij(0) + Δ^h(t; classes of
i and j), and since w_ij(0) is independent of the classes, only its mean μ is left in the sums,

    z¹(t, x; v) = σ(V(t; v)·x),  z²(x) = σ(∫(μ + Δ²(v)) z¹(x; v) dν(v)),  z^h(x) = σ((μ + Δ^h) z^{h−1}(x)),
    z^L(x; α) = σ((μ + Δ^L(α)) z^{L−1}(x)),  f(x) = ∫a(t; α) z^L(x; α) dν(α),

with velocities as in ``Layered``: Δ̇² = −E[e δ²(x) z¹(x; v)], Δ̇^h = −E[e δ^h z^{h−1}], Δ̇^L = −E[e δ^L(x; α) z^{L−1}(x)] and so on. For
L = 2 the weights have both classes, Δ²(α, v); for L = 1 a neuron is the pair (v, α) and the limit is the measure of two-layer networks.
[Araújo, Oliveira, Yukimura 2019; slides, Theorem 6] With Gauss rules for the laws ν of v and α these are the equations of a ``Layered``
network with the nodes as its neurons, their probabilities as shares and all middle weights μ at the start. Neurons of share 0 that start
from given V_i(0), a_i(0) are the limit processes to which those of a finite network are compared.

Where μ = 0 and σ(0) = 0, all z^h from h = 2 on are 0 at the start, and so are all δ^h up to h = L − 1, since they come through μ. From
L = 3 on that is a rest point whatever E a is: f = 0 for ever. It is unstable, as a saddle that a finite network, which starts m^(−1/2) or
less away from it, leaves at a time that grows with m.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy import Activation
from mfpde.multilayer.layered import Layered
from mfpde.multilayer.residual import Residual
from mfpde.multilayer.starts import Task, Weights


@dataclass(frozen=True, eq=False)
class Followed:
    """Neurons to be followed in the limit: where those of the first layer start, V (K, d), and those of the last, a (K,)."""

    first: FloatArray
    last: FloatArray


def layered_limit(task: Task, weights: Weights, depth: int, nodes: int, followed: Followed | None = None) -> tuple[Layered, FloatArray]:
    """The limit m → ∞ of networks with ``depth`` hidden layers under 1/m, and its weights at the start, by ``nodes`` Gauss nodes for each
    coordinate of V and half as many for a, on which everything depends more weakly. The neurons ``followed`` are the last ones of the
    first and of the last layer."""
    dimension = task.inputs.shape[1]
    first, first_share = weights.first.rule(nodes, dimension)
    last, last_share = weights.last.rule(outer_nodes(nodes), 1)
    outer, shares = last[:, 0], [first_share, *[np.ones(1)] * (depth - 2), last_share]
    if depth == 1:
        first, outer = np.repeat(first, len(last), axis=0), np.tile(outer, len(first))
        shares = [np.outer(first_share, last_share).reshape(-1)]
    if followed is not None:
        first, outer = np.concatenate([first, followed.first]), np.concatenate([outer, followed.last])
        for layer in {0, depth - 1}:
            shares[layer] = np.concatenate([shares[layer], np.zeros(len(followed.last))])
    network = Layered(task.inputs, task.targets, task.activation, tuple(shares), task.rates)
    middle = [np.full(shape, weights.middle.mean) for shape in network.shapes[1:-1]]
    return network, np.concatenate([part.reshape(-1) for part in (first, *middle, outer)])


def at_rest(weights: Weights, activation: Activation, depth: int) -> bool:
    """Whether the limit of so many hidden layers under 1/m stays where it starts, whatever is to be learnt."""
    return depth >= 3 and weights.middle.mean == 0.0 and float(activation.value(np.zeros(1))[0]) == 0.0


def outer_nodes(nodes: int) -> int:
    """How many nodes the law of a has."""
    return max(2, nodes // 2)


def residual_limit(task: Task, weights: Weights, depth: int, nodes: int) -> tuple[Residual, FloatArray]:
    """The limit m → ∞ of residual networks of ``depth`` blocks: in each block a law of (u, w), by Gauss nodes of its initial law."""
    dimension = task.inputs.shape[1] + 1
    outer, outer_share = weights.outer.rule(nodes, dimension)
    inner, inner_share = weights.first.rule(nodes, dimension)
    pairs = np.stack([np.repeat(outer, len(inner), axis=0), np.tile(inner, (len(outer), 1))])
    network = Residual(task.inputs, task.targets, task.activation, np.outer(outer_share, inner_share).reshape(-1), depth)
    return network, np.broadcast_to(pairs, network.shape).reshape(-1).copy()


def followed_of(points: Sequence[FloatArray], networks: Sequence[Layered], count: int) -> Followed:
    """The first ``count`` neurons of the first and of the last layer of each network."""
    parts = [network.split(point) for network, point in zip(networks, points, strict=True)]
    return Followed(np.concatenate([part[0][:count] for part in parts]), np.concatenate([part[-1][:count] for part in parts]))
