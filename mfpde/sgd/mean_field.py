"""SGD of N particles and the noise that it adds to the mean-field limit.

f = (1/N) Σ σ(θ_j·x) on n samples; a step with learning rate α moves θ_j by −τ∇ξ_S(θ_j; ρ_N), τ = α/N, with ξ_S the first variation of the
loss over a batch S. All particles see the same batch, so the noise of a step has variance τ² c whatever N is (c: ``Batch.factor``), and
over a time of order one τ c: it survives as N → ∞ if τ = α/N and B are kept, with

    dρ = div(ρ∇ξ) dt + (τ c)^½ div(ρ∇ζ dW),   E ζ(θ)ζ(θ') = Cov_x(e(x)σ(x·θ), e(x)σ(x·θ')),   e = f − y,

as the limit for small τ, and vanishes like α c/N if α is kept. [Rotskoff, Vanden-Eijnden 2018; Gess, Gvalani, Konarovskyi 2022]

To first order in the noise the loss after K steps has the variance τ² c Σ_k Var_i(q_{k+1}·v_i(θ_k)), where θ_k are the steps of gradient
descent, v_i the velocities that sample i alone would give, q_K = ∇L(θ_K) and q_k = (I − τ∂v(θ_k))ᵀ q_{k+1}.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.sgd.batches import Batch
from mfpde.sgd.network import Network
from mfpde.sgd.training import batch_gradients

_TOGETHER = 1 << 18


@dataclass(frozen=True, eq=False)
class Samples:
    """``inputs`` (n, D), ``targets`` (n,) and the activation: what does not depend on the number of particles."""

    inputs: FloatArray
    targets: FloatArray
    activation: str

    def network(self, count: int) -> Network:
        """The network of so many particles."""
        return Network(self.inputs, self.targets, self.activation, 1.0 / count, np.ones(count))


def spread_particles(count: int, dimension: int) -> FloatArray:
    """Particles (N, D) evenly spread under N(0, I), the same for every run, so that nothing but the batches is random."""
    from scipy.special import ndtri

    from mfpde.measure import lattice

    return np.ascontiguousarray(ndtri(lattice(count, dimension)))


@dataclass(frozen=True, eq=False)
class Prediction:
    """Gradient descent's ``losses`` after each of the asked numbers of steps, and the ``variances`` of SGD's about it, both (T,)."""

    losses: FloatArray
    variances: FloatArray


def predict(samples: Samples, particles: FloatArray, step: float, batch: Batch, after: Sequence[int]) -> Prediction:
    """To first order in the noise, from ``particles`` (N, D) with steps of time ``step``, after increasing numbers of steps."""
    network = samples.network(len(particles))
    speed = step * len(particles)
    path = [np.ravel(particles)]
    for _ in range(max(after)):
        path.append(path[-1] - speed * network.at(path[-1]).gradient)
    losses = np.array([network.loss(path[k]) for k in after])
    adjoints = [network.at(path[k]).gradient for k in after]
    variances = np.zeros(len(after))
    for k in range(max(after) - 1, -1, -1):
        curvature = network.at(path[k])
        gradients = curvature.sample_gradients
        for t, last in enumerate(after):
            if last > k:
                variances[t] += speed**2 * batch.factor * float(np.var(gradients @ adjoints[t]))
                adjoints[t] = adjoints[t] - speed * curvature.product(adjoints[t])
    return Prediction(losses, variances)


def losses_of_runs(
    samples: Samples, particles: FloatArray, step: float, batch: Batch, after: Sequence[int], runs: int, generator: np.random.Generator
) -> FloatArray:
    """The loss of independent runs of SGD after each of the asked numbers of steps, (runs, T): the steps of the particle solver with a
    learning rate and minibatches, of many runs at once."""
    network, many = samples.network(len(particles)), max(1, _TOGETHER // (batch.size * len(particles)))
    speed, found = step * len(particles), np.empty((runs, len(after)))
    for first in range(0, runs, many):
        rows = slice(first, min(first + many, runs))
        points = np.tile(np.ravel(particles), (rows.stop - first, 1))
        for k in range(1, max(after) + 1):
            chosen = batch.draw(generator, len(points))
            points = points - speed * batch_gradients(network, points, network.inputs[chosen], network.targets[chosen])
            if k in after:
                found[rows, after.index(k)] = [network.loss(row) for row in points]
    return found


def variance_interval(values: FloatArray, confidence: float = 0.95) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The variance over the first axis (R, T), with an interval: that of log var by its deviation ((m₄/m₂² − (R − 3)/(R − 1))/R)^½, which
    holds for any law with a fourth moment."""
    from scipy.special import stdtrit

    count = len(values)
    centred = values - np.mean(values, axis=0)
    square = np.mean(centred**2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = np.where(square > 0.0, np.mean(centred**4, axis=0) / square**2, np.nan)
    half = float(stdtrit(count - 1, 0.5 + 0.5 * confidence)) * np.sqrt((kurtosis - (count - 3) / (count - 1)) / count)
    variance = square * count / (count - 1)
    return variance, variance * np.exp(-half), variance * np.exp(half)


def steps_between(times: Sequence[float], step: float) -> list[int]:
    """The numbers of steps that reach the times. Raises ValueError for a time that is no multiple of the step."""
    counts = [round(time / step) for time in times]
    for time, count in zip(times, counts, strict=True):
        if count < 1 or not math.isclose(count * step, time, rel_tol=1e-9):
            raise ValueError(f"the time {time:g} is no multiple of the step {step:g}")
    return counts
