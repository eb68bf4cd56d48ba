"""What is measured of networks in training: their course over time, their risk over width and samples, their way from random features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.choices import MOST_STEPS
from mfpde.run import Status, StepFailed
from mfpde.scaling.flow import GradientDescent, GradientFlow, train
from mfpde.scaling.inputs import GaussianInputs, Inputs
from mfpde.scaling.network import Network, Scaling, distance, start
from mfpde.scaling.random_features import RandomFeatures
from mfpde.scaling.risks import EmpiricalRisk, PopulationRisk, Risk
from mfpde.scaling.targets import Target

COURSE = ("training_risk", "risk", "path_norm", "activated", "participation", "distance", "drift")
"""The quantities of a course: ½E(f − f*)² over the samples and over the law of the inputs, s Σ|a_j||b_j|, the number of neurons with
|a_j||b_j| of at least the threshold times the largest, (Σ|a||b|)²/Σ(|a||b|)², (E(f − f_RF)²)^½, and the largest change of |b_j|² − a_j²."""
OUTCOME = ("training_risk", "risk", "path_norm", "activated")
"""The quantities of a cell of a heat map."""
SHOWN = 2
"""Coordinates of b_j that courses record: targets of one neuron and of the circle lie in those."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What all experiments share. ``outer``, ``mean_field_outer`` and ``inner``: deviations of a_j and of the coordinates of b_j before
    training, the last by default d^−½. ``threshold``: share of the largest |a_j||b_j| from which on a neuron counts as activated."""

    target: Target
    dimension: int
    inputs: Inputs = field(default_factory=GaussianInputs)
    outer: float = 0.0
    mean_field_outer: float = 0.0
    inner: float | None = None
    threshold: float = 0.1

    @property
    def moment(self) -> float:
        """κ = E|x|²/d."""
        return self.inputs.second_moment(self.dimension)

    @property
    def test(self) -> PopulationRisk:
        """The population risk."""
        return PopulationRisk(self.target, self.moment)

    def network(self, scaling: Scaling, width: int, seed: int) -> Network:
        """The network before training."""
        outer = self.outer if scaling is Scaling.CONVENTIONAL else self.mean_field_outer
        return replace(start(seed, width, self.dimension, outer, self.inner), factor=scaling.factor(width))

    def risk(self, samples: int | None, seed: int) -> Risk:
        """The risk of training: that of the first so many samples of a seed, without noise, or the population risk."""
        if samples is None:
            return self.test
        points = self.inputs.sample(np.random.default_rng([seed, 2]), samples, self.dimension)
        return EmpiricalRisk(points, self.target.values(points))

    def rate(self, features: RandomFeatures, factor: float) -> float:
        """A learning rate at which gradient descent is stable: 1/(λ + √(2κE(f*)²)), where λ is the sharpness of the random-feature model
        under the scaling and the rest that of the one neuron that a single-neuron target would activate."""
        curvature = factor * features.sharpness + math.sqrt(2.0 * self.moment * self.test.square)
        return 1.0 / max(curvature, 1e-300)


Method = GradientFlow | GradientDescent | None
"""How to train; None: gradient descent with the rate of ``Setup.rate``."""


@dataclass(frozen=True, eq=False)
class Course:
    """One training: ``times`` (T,), the values of each quantity in COURSE (T,), a_j|b_j| (T, m), a_j (T, m), the first ``SHOWN``
    coordinates of b_j or all (T, m, c), and the steps made."""

    times: FloatArray
    values: dict[str, FloatArray]
    strengths: FloatArray
    outer: FloatArray
    inner: FloatArray
    steps: int


def course(
    setup: Setup,
    scaling: Scaling,
    width: int,
    seed: int,
    samples: int | None,
    times: Sequence[float],
    method: Method = None,
    stopped: Sequence[int] = (),
) -> tuple[Course, Course] | None:
    """The training of a network, and of its random-feature model at the same times; None once ``stopped`` is not empty.

    Raises StepFailed as ``train`` does.
    """
    risk, test, before = setup.risk(samples, seed), setup.test, setup.network(scaling, width, seed)
    features, chosen = _prepared(setup, risk, before, method, times[-1])
    rows: list[list[list[float]]] = [[], []]
    parts: list[list[tuple[FloatArray, FloatArray, FloatArray]]] = [[], []]
    moments, steps = [], 0
    for moment in train(risk, before, times, chosen, stopped):
        frozen = features.at(moment.time * before.factor)
        training = moment.risk if samples is None else _training_risk(risk, frozen)
        apart = math.sqrt(setup.moment) * distance(moment.network, frozen)
        drift = float(np.max(np.abs(moment.network.balance - before.balance)))
        rows[0].append([moment.risk, *_measured(moment.network, test, setup), apart, drift])
        test_risk, *others = _measured(frozen, test, setup)
        rows[1].append([test_risk if samples is None else training, test_risk, *others, 0.0, math.nan])
        for kept, network in zip(parts, (moment.network, frozen), strict=True):
            kept.append((network.strengths * np.sign(network.outer), network.outer.copy(), network.inner[:, :SHOWN].copy()))
        moments.append(moment.time)
        steps = moment.steps
    if len(moments) < len(times):
        return None
    at = np.array(moments)
    made = []
    for row, part in zip(rows, parts, strict=True):
        strengths, outer, inner = (np.array(kept) for kept in zip(*part, strict=True))
        made.append(Course(at, dict(zip(COURSE, np.array(row).T, strict=True)), strengths, outer, inner, steps))
    return made[0], made[1]


def outcome(
    setup: Setup, width: int, seed: int, samples: int, end: float, method: Method = None, stopped: Sequence[int] = ()
) -> dict[str, FloatArray] | None:
    """What "conventional", "mean_field" and "random_features", the model of the first, have come to at time ``end``: the quantities in
    OUTCOME; None once ``stopped`` is not empty.

    Raises StepFailed as ``train`` does.
    """
    risk, test = setup.risk(samples, seed), setup.test
    found: dict[str, FloatArray] = {}
    for scaling in Scaling:
        before = setup.network(scaling, width, seed)
        features, chosen = _prepared(setup, risk, before, method, end)
        last = next(train(risk, before, [end], chosen, stopped), None)
        if last is None:
            return None
        found[scaling.value] = np.array([last.risk, *_measured(last.network, test, setup)[:3]])
        if scaling is Scaling.CONVENTIONAL:
            frozen = features.at(last.time)
            found["random_features"] = np.array([_training_risk(risk, frozen), *_measured(frozen, test, setup)[:3]])
    return found


def departure(
    setup: Setup, width: int, seed: int, samples: int | None, times: Sequence[float], method: Method = None, stopped: Sequence[int] = ()
) -> tuple[float, float] | None:
    """How far a conventional network leaves its random-feature model, as the largest (E(f − f_RF)²)^½ at the given times, and how far its
    neurons move, as the largest |B(t) − B(0)| (Frobenius); None once ``stopped`` is not empty. [slides, Theorem 7]

    Raises StepFailed as ``train`` does.
    """
    risk, before = setup.risk(samples, seed), setup.network(Scaling.CONVENTIONAL, width, seed)
    features, chosen = _prepared(setup, risk, before, method, times[-1])
    apart, moved, count = 0.0, 0.0, 0
    for moment in train(risk, before, times, chosen, stopped):
        apart = max(apart, math.sqrt(setup.moment) * distance(moment.network, features.at(moment.time)))
        moved = max(moved, float(np.linalg.norm(moment.network.inner - before.inner)))
        count += 1
    return (apart, moved) if count == len(times) else None


def _prepared(
    setup: Setup, risk: Risk, before: Network, method: Method, end: float
) -> tuple[RandomFeatures, GradientFlow | GradientDescent]:
    """The random-feature model of a network, trained as the network is, and how that is."""
    frozen = Network(before.factor * before.outer, before.inner, 1.0)
    features = RandomFeatures.of(risk, frozen)
    chosen = GradientDescent(min(setup.rate(features, before.factor), end)) if method is None else method
    if isinstance(chosen, GradientDescent):
        if end > MOST_STEPS * chosen.rate:
            words = f"gradient descent is stable with a rate of {chosen.rate:.2g} only, with which it does not come to t = {end:g}"
            raise StepFailed(Status.STEP_TOO_SMALL, f"{words} in {MOST_STEPS:.0e} steps; take smaller inputs or a shorter time")
        features = replace(features, rate=chosen.rate * before.factor)
    return features, chosen


def _training_risk(risk: Risk, network: Network) -> float:
    scratch = np.empty(network.outer.size + network.inner.size)
    return max(risk.slope(network.outer, network.inner, network.factor, scratch), 0.0)


def _measured(network: Network, test: PopulationRisk, setup: Setup) -> list[float]:
    """Risk, path norm, activated neurons and participation."""
    value = test.value(network.outer, network.inner, network.factor)
    return [value, network.path_norm, float(network.activated(setup.threshold)), network.participation]
