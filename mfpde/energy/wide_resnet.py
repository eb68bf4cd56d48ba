"""Wide residual networks, level after level: outputs, adjoints and first variations, on arrays.

A network is a list of blocks, one a level, each a sum of units Σ_j w_j σ(θ_j X) with d × d matrices θ_j and weights w_j; the weights of all
levels sum to one, 1/L of it in each of L equal levels, so that no 1/L stands in the formulas:

 * exact: X^{ℓ+1} = X^ℓ + Σ_{j∈ℓ} w_j σ(θ_j X^ℓ), or, in continuous depth, the flow of dX/ds = Σ_{j∈ℓ} w_j σ(θ_j X) for 0 ≤ s ≤ 1 by
   steps of the classical Runge–Kutta method (of fourth order), one for each 0.2 of Σ_j|w_j| max|θ| max|σ'|;
 * first: X = x + Σ_j w_j σ(θ_j x);
 * second: X = x + Σ_j w_j σ(θ_j x) + Σ_{b after a} w_a w_b σ'(θ_b x) ∘ θ_b σ(θ_a x), pairs of one level counting half in continuous depth
   and not at all else.

[Mean Field Models for Neural Networks in Teacher-student Setting (2020), (6), (7), (9) and appendix 5.2. In E⁽¹⁾ and E⁽²⁾ of the limit
L → ∞, ρ(θ, ε) has mass one and so stands for (1/L)Σ_a ρ_a δ_{a/L}, where the paper's definition lacks the 1/L.] States are (d, Q), for Q
inputs. Adjoints are those of the recursions themselves, so that gradients are exact to round-off.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.curvatures import CURVATURES

Approximation = Literal["exact", "first", "second"]

_BLOCK = 1 << 16
"""Numbers that are taken together, for many units and inputs, so that they stay in a cache."""
_LONGEST, _MOST_STEPS = 0.2, 512
"""A Runge–Kutta step's length times the Lipschitz constant, and steps in a block."""
_SLACK = 1e-3
"""Relative, by which masses may fluctuate without a change in the number of steps."""
_STEEPEST = 8.0
EULER = (((),), (1.0,))
CLASSICAL = (((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0))
"""Runge–Kutta methods: what each stage takes of those before it, and the weights of all."""


class Block(NamedTuple):
    """The units of one level: matrices ``theta`` (n, d, d) and ``weights`` (n,)."""

    theta: FloatArray
    weights: FloatArray


@dataclass(frozen=True, eq=False)
class Units:
    """Sums over units σ(θ_j X) of states of ``dimension`` d. ``compiled``: by compiled loops, where there are any for σ, which bring the
    compiler and pay for what is done often."""

    activation: Activation
    dimension: int
    compiled: bool = True

    def total(self, block: Block, state: FloatArray) -> FloatArray:
        """Σ_j w_j σ(θ_j X), (d, Q)."""
        found = np.zeros(state.shape)
        for part in self._parts(block.theta, state):
            found += block.weights[part] @ self._values(_applied(block.theta[part], state))
        return found

    def table(self, theta: FloatArray, state: FloatArray) -> FloatArray:
        """σ(θX) of all matrices, (d, Q, n)."""
        return np.swapaxes(self._values(_applied(theta, state)), 1, 2)

    def pulled(self, block: Block, state: FloatArray, steering: FloatArray) -> FloatArray:
        """Σ_j w_j θ_jᵀ(σ'(θ_j X) ∘ C) with C = ``steering`` (d, Q), (d, Q)."""
        found = np.zeros(state.shape)
        for part in self._parts(block.theta, state):
            slopes = self._slopes(_applied(block.theta[part], state))
            weighted = block.weights[part, None, None] * block.theta[part]
            found += np.sum(_across(weighted, slopes) * steering[:, None], axis=0)
        return found

    def pushed(self, block: Block, state: FloatArray, direction: FloatArray) -> FloatArray:
        """Σ_j w_j σ'(θ_j X) ∘ θ_j V with V = ``direction`` (d, Q), (d, Q)."""
        found = np.zeros(state.shape)
        for part in self._parts(block.theta, state):
            slopes = self._slopes(_applied(block.theta[part], state))
            weighted = block.weights[part, None, None] * block.theta[part]
            found += np.sum(_across(weighted, slopes) * direction, axis=1)
        return found

    def along(self, theta: FloatArray, state: FloatArray, steering: FloatArray) -> FloatArray:
        """⟨C, σ(θX)⟩ of each matrix, (n,)."""
        found = np.empty(len(theta))
        for part in self._parts(theta, state):
            found[part] = _contracted(self._values(_applied(theta[part], state)), steering)
        return found

    def slopes_along(self, theta: FloatArray, state: FloatArray, steering: FloatArray) -> FloatArray:
        """∂/∂θ ⟨C, σ(θX)⟩, (n, d, d)."""
        found = np.empty(theta.shape)
        for part in self._parts(theta, state):
            found[part] = _paired(self._slopes(_applied(theta[part], state)), steering, state)
        return found

    def crossed(self, theta: FloatArray, state: FloatArray, steering: FloatArray, direction: FloatArray) -> FloatArray:
        """⟨C, σ'(θX) ∘ θV⟩ of each matrix, (n,)."""
        found = np.empty(len(theta))
        for part in self._parts(theta, state):
            slopes = self._slopes(_applied(theta[part], state))
            found[part] = _contracted(slopes * _applied(theta[part], direction), steering)
        return found

    def slopes_crossed(self, theta: FloatArray, state: FloatArray, steering: FloatArray, direction: FloatArray) -> FloatArray:
        """∂/∂θ ⟨C, σ'(θX) ∘ θV⟩, (n, d, d)."""
        bend, found = CURVATURES[self.activation.name], np.empty(theta.shape)
        for part in self._parts(theta, state):
            z = _applied(theta[part], state)
            bent = bend(z) * _applied(theta[part], direction)
            found[part] = _paired(bent, steering, state) + _paired(self._slopes(z), steering, direction)
        return found

    def _parts(self, theta: FloatArray, state: FloatArray) -> Iterator[slice]:
        step = max(1, _BLOCK // state.size)
        return (slice(start, start + step) for start in range(0, len(theta), step))

    def _values(self, z: FloatArray) -> FloatArray:
        """σ(z), in place where there is a compiled loop."""
        if self.compiled and ACTIVATIONS.get(self.activation.name) is self.activation:
            from mfpde.energy.activation_kernels import NAMES, fill_values  # which brings the compiler

            fill_values(NAMES.index(self.activation.name), z.reshape(-1))
            return z
        return self.activation.value(z)

    def _slopes(self, z: FloatArray) -> FloatArray:
        """σ'(z), (d, n, Q); z stays."""
        if self.compiled and ACTIVATIONS.get(self.activation.name) is self.activation:
            from mfpde.energy.activation_kernels import NAMES, fill_slopes

            made = z.copy()
            fill_slopes(NAMES.index(self.activation.name), made.reshape(-1))
            return made
        return self.activation.pair(z.copy())[1]


def _applied(theta: FloatArray, state: FloatArray) -> FloatArray:
    """θX of matrices (n, d, d) and states (d, Q), as (d, n, Q): the components first."""
    if len(state) == 1:
        return np.asarray(np.multiply.outer(theta[:, 0, 0], state[0])[None])
    return np.asarray(np.swapaxes(theta, 0, 1) @ state)


def _across(weighted: FloatArray, slopes: FloatArray) -> FloatArray:
    """Σ_j (wθ)_jmk σ'_mjq, (d, d, Q) by m, k and q."""
    return np.asarray(weighted.transpose(1, 2, 0) @ slopes)


def _contracted(values: FloatArray, steering: FloatArray) -> FloatArray:
    """Σ_{m,q} C_mq v_mjq, (n,)."""
    return np.asarray(np.sum(values @ steering[:, :, None], axis=0)[:, 0])


def _paired(slopes: FloatArray, steering: FloatArray, state: FloatArray) -> FloatArray:
    """Σ_q C_mq s_mjq X_kq, (n, d, d) by j, m and k."""
    both = steering[:, :, None] * state.T
    return np.asarray(np.swapaxes(slopes @ both, 0, 1))


class Crossing(NamedTuple):
    """θ ↦ ⟨C, σ'(θX) ∘ θV⟩: ``state`` X, ``steering`` C and ``direction`` V, all (d, Q)."""

    state: FloatArray
    steering: FloatArray
    direction: FloatArray


@dataclass(frozen=True, eq=False)
class Slice:
    """δE/δρ on one level, θ ↦ Σ_i ⟨C_i, σ(θX_i)⟩ with ``pairs`` (X_i, C_i), each (d, Q), and to second order a ``crossing``."""

    pairs: list[tuple[FloatArray, FloatArray]]
    crossing: Crossing | None = None

    def values(self, units: Units, theta: FloatArray) -> FloatArray:
        """At matrices (n, d, d), as (n,)."""
        found = np.zeros(len(theta))
        for state, steering in self.pairs:
            found += units.along(theta, state, steering)
        return found if self.crossing is None else found + units.crossed(theta, *self.crossing)

    def slopes(self, units: Units, theta: FloatArray) -> FloatArray:
        """Its gradient at matrices (n, d, d), as (n, d, d)."""
        found = np.zeros(theta.shape)
        for state, steering in self.pairs:
            found += units.slopes_along(theta, state, steering)
        return found if self.crossing is None else found + units.slopes_crossed(theta, *self.crossing)


@dataclass(frozen=True, eq=False)
class Pass:
    """One evaluation: the ``output`` X^L (d, Q), and ``adjoint``, which gives δ⟨A, X^L⟩/δρ of every level for A (d, Q)."""

    output: FloatArray
    adjoint: Callable[[FloatArray], list[Slice]]


@dataclass(frozen=True)
class Network:
    """A wide residual network and its approximations. ``continuous``: the limit of many levels, a block being constant in depth;
    ``reach``: the largest |θ| that there may be, from which the steps through a block follow, so that their number never changes."""

    units: Units
    approximation: Approximation = "exact"
    continuous: bool = False
    reach: float = 0.0

    @property
    def deep(self) -> bool:
        """Whether it matters on which level a unit is."""
        return self.approximation != "first"

    def forward(self, blocks: Sequence[Block], inputs: FloatArray) -> Pass:
        """From inputs (d, Q), through the blocks in their order."""
        if self.approximation == "exact":
            return self._exact(blocks, inputs)
        return self._first(blocks, inputs) if self.approximation == "first" else self._second(blocks, inputs)

    def _exact(self, blocks: Sequence[Block], inputs: FloatArray) -> Pass:
        state, seen = inputs, []
        for block in blocks:
            passed: list[list[FloatArray]] = []
            for part in [self._part(block)] * self._steps(block):
                state, states = self._step(part, state)
                passed.append(states)
            seen.append((state, passed))

        def adjoint(steering: FloatArray) -> list[Slice]:
            slices = []
            for number, (block, (end, passed)) in enumerate(zip(reversed(blocks), reversed(seen), strict=True)):
                pairs: list[tuple[FloatArray, FloatArray]] = [] if passed else [(end, steering)]
                part, share = self._part(block), 1.0 / max(len(passed), 1)
                for left in range(len(passed) - 1, -1, -1):
                    last = number == len(blocks) - 1 and left == 0
                    found, steering = self._stages_back(part, passed[left], steering, last)
                    pairs = [(state, share * steer) for state, steer in found] + pairs
                slices.append(Slice(pairs))
            return slices[::-1]

        return Pass(state, adjoint)

    def _steps(self, block: Block) -> int:
        """Steps through a block; none where it is empty."""
        if not len(block.weights):
            return 0
        if not self.continuous:
            return 1
        length = float(np.sum(np.abs(block.weights))) * self.reach * self._steepest
        return min(max(math.ceil(length / _LONGEST * (1.0 - _SLACK)), 1), _MOST_STEPS)

    @cached_property
    def _steepest(self) -> float:
        """max|σ'| where states usually are."""
        return float(np.max(np.abs(self.units.activation.pair(np.linspace(-_STEEPEST, _STEEPEST, 4001))[1])))

    def _part(self, block: Block) -> Block:
        """What acts in each of the steps."""
        return Block(block.theta, block.weights / max(self._steps(block), 1))

    def _step(self, block: Block, state: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        """The state after a step, and those of its stages."""
        stages, shares = CLASSICAL if self.continuous else EULER
        states: list[FloatArray] = []
        slopes: list[FloatArray] = []
        for taken in stages:
            states.append(_combined(state, taken, slopes))
            slopes.append(self.units.total(block, states[-1]))
        return _combined(state, shares, slopes), states

    def _stages_back(
        self, block: Block, states: list[FloatArray], steering: FloatArray, last: bool
    ) -> tuple[list[tuple[FloatArray, FloatArray]], FloatArray]:
        """The pairs (X_i, K̄_i) of a step's stages, and the adjoint before it.

        K̄_i = b_i Ā + Σ_{k>i} a_ki X̄_k and X̄_i = Σ_j w_j θ_jᵀ(σ'(θ_jX_i) ∘ K̄_i).

        ``last``: nothing comes before, where the adjoint is not needed."""
        stages, shares = CLASSICAL if self.continuous else EULER
        pulled: list[FloatArray] = [steering] * len(states)
        pairs = []
        for i in range(len(states) - 1, -1, -1):
            steer = shares[i] * steering
            for k in range(i + 1, len(states)):
                if stages[k][i]:
                    steer = steer + stages[k][i] * pulled[k]
            pairs.append((states[i], steer))
            if i or not last:
                pulled[i] = self.units.pulled(block, states[i], steer)
        return pairs[::-1], steering if last else steering + sum(pulled)

    def _first(self, blocks: Sequence[Block], inputs: FloatArray) -> Pass:
        state = _combined(inputs, (1.0,) * len(blocks), [self.units.total(block, inputs) for block in blocks])
        return Pass(state, lambda steering: [Slice([(inputs, steering)])] * len(blocks))

    def _second(self, blocks: Sequence[Block], inputs: FloatArray) -> Pass:
        """P of a level is the sum of the totals of those before it, R that of the pulled adjoints of those behind it."""
        own = 0.5 if self.continuous else 0.0
        totals = [self.units.total(block, inputs) for block in blocks]
        before, sums = _running(totals, own)
        state = inputs + sums
        for block, direction in zip(blocks, before, strict=True):
            state = state + self.units.pushed(block, inputs, direction)

        def adjoint(steering: FloatArray) -> list[Slice]:
            behind = _running([self.units.pulled(block, inputs, steering) for block in reversed(blocks)], own)[0][::-1]
            return [
                Slice([(inputs, steering + after)], Crossing(inputs, steering, direction))
                for after, direction in zip(behind, before, strict=True)
            ]

        return Pass(state, adjoint)


def _combined(state: FloatArray, shares: Sequence[float], steps: Sequence[FloatArray]) -> FloatArray:
    """state + Σ share · step."""
    for share, step in zip(shares, steps, strict=True):
        if share:
            state = state + share * step
    return state


def _running(parts: Sequence[FloatArray], own: float) -> tuple[list[FloatArray], FloatArray]:
    """For each part the sum of those before it and ``own`` times itself; and the sum of all."""
    total, found = np.zeros_like(parts[0]), []
    for part in parts:
        found.append(total + own * part)
        total = total + part
    return found, total
