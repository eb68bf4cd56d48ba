"""Independent systems of equally many atoms as one: the energies of all of them, which do not see one another."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.activation_kernels import NAMES, fill_slopes, fill_values
from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.base import Energy, EnergySum, GridEnergy
from mfpde.energy.features import Features, InterpolatedFeatures, SampledFeatures
from mfpde.energy.network import TwoLayer
from mfpde.energy.outputs import WeightedFeatures
from mfpde.energy.potential import Potential
from mfpde.measure import Measure, Particles

_PAIRS = 1 << 16
"""Pairs of an atom and a feature that are evaluated at once; systems that have more are taken one by one."""


@dataclass(frozen=True, eq=False)
class Replicas:
    """The mean over ``count`` systems of the energy ``term``. Measures hold the atoms of one system after those of the other, with
    weights that sum to one over all of them; gradients are those of each system's own energy, at its own atoms."""

    term: Energy
    count: int

    @property
    def temperature(self) -> float:
        """That of the term."""
        return self.term.temperature

    def value(self, measure: Measure) -> float:
        """The mean of the systems' energies."""
        return float(np.mean([self.term.value(system) for system in self._systems(measure)]))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """δE/δρ of each system at its own atoms ``at``, (N,)."""
        systems = self._systems(measure)
        return np.concatenate([self.term.first_variation(s, points) for s, points in zip(systems, np.split(at, self.count), strict=True)])

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇ δE/δρ of each system at its own atoms ``at``, (N, d)."""
        systems = self._systems(measure)
        return np.concatenate([self.term.gradient(s, points) for s, points in zip(systems, np.split(at, self.count), strict=True)])

    def on(self, grid: Grid) -> GridEnergy:
        """Raises TypeError: systems of atoms have no cells."""
        raise TypeError("replicas are systems of atoms, not of cells")

    def _systems(self, measure: Measure) -> list[Particles]:
        points, weights = np.split(measure.points, self.count), np.split(measure.weights * self.count, self.count)
        return [Particles(p, w) for p, w in zip(points, weights, strict=True)]


@dataclass(frozen=True, eq=False)
class NetworkReplicas(Replicas):
    """A two-layer network: all systems share the evaluation of the features."""

    term: TwoLayer

    def residuals(self, measure: Measure) -> FloatArray:
        """λ of every system, (count, r)."""
        size = len(measure.points) // self.count
        weights = np.reshape(measure.weights, (self.count, size)) * self.count
        result = np.empty((self.count, self.term.features.rank))
        for part in self._parts(size):
            points = measure.points[part.start * size : part.stop * size]
            result[part] = _moments(self.term.features, points, weights[part])
        return result - self.term.target

    def value(self, measure: Measure) -> float:
        """The mean of ½|λ|², and the constant."""
        lam = self.residuals(measure)
        return 0.5 * float(np.sum(lam * lam)) / self.count + self.term.constant

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇Φ·λ with each system's own λ, (N, d)."""
        return self._gradient(self.residuals(measure), at)

    def value_and_gradient(self, measure: Measure) -> tuple[float, FloatArray]:
        """Both, with one residual."""
        lam = self.residuals(measure)
        return 0.5 * float(np.sum(lam * lam)) / self.count + self.term.constant, self._gradient(lam, measure.points)

    def _gradient(self, lam: FloatArray, at: FloatArray) -> FloatArray:
        size = len(at) // self.count
        result = np.empty(at.shape)
        for part in self._parts(size):
            rows = slice(part.start * size, part.stop * size)
            result[rows] = _gradients(self.term.features, at[rows], lam[part])
        return result

    def _parts(self, size: int) -> list[slice]:
        """Systems that are taken together."""
        many = max(1, _PAIRS // (size * self.term.features.rank))
        return [slice(k, min(k + many, self.count)) for k in range(0, self.count, many)]


def _moments(features: Features, points: FloatArray, weights: FloatArray) -> FloatArray:
    """∫Φ dρ of as many systems as ``weights`` (K, size) has rows, whose atoms are ``points`` (K size, d), as (K, r)."""
    if len(weights) == 1:
        return features.moments(points, weights[0])[None]
    if isinstance(features, WeightedFeatures):
        theta, outer = features.split(points)
        products = (weights * outer[:, m].reshape(weights.shape) for m in range(features.outputs))
        return np.concatenate([_moments(features.inner, theta, product) for product in products], axis=1)
    if not isinstance(features, InterpolatedFeatures | SampledFeatures):
        return np.asarray(np.einsum("rkn,kn->kr", features.evaluate(points).reshape(features.rank, *weights.shape), weights))
    values = features.nodes @ features.parameters.vectors(points).T
    _activate(features.activation, values, fill_values)
    found = np.einsum("rkn,kn->kr", values.reshape(len(values), *weights.shape), weights)
    return np.asarray(found @ features.mixing.T if isinstance(features, InterpolatedFeatures) else found * features.scale)


def _gradients(features: Features, at: FloatArray, lam: FloatArray) -> FloatArray:
    """∇(Φ·λ_k) at the atoms of system k, for as many systems as ``lam`` (K, r) has rows."""
    if len(lam) == 1 or not isinstance(features, InterpolatedFeatures | SampledFeatures):
        return np.concatenate([features.gradient(points, row) for points, row in zip(np.split(at, len(lam)), lam, strict=True)])
    slopes = features.nodes @ features.parameters.vectors(at).T
    _activate(features.activation, slopes, fill_slopes)
    steered = lam @ features.mixing if isinstance(features, InterpolatedFeatures) else lam * features.scale
    weighted = slopes.reshape(len(slopes), len(lam), -1)
    weighted *= steered.T[:, :, None]
    return features.parameters.pull(at, (features.nodes.T @ slopes).T)


def _activate(activation: Activation, z: FloatArray, fill: Callable[[int, FloatArray], None]) -> None:
    """z becomes σ(z) or σ'(z), by compiled loops for the known activations."""
    if ACTIVATIONS.get(activation.name) is activation:
        fill(NAMES.index(activation.name), z.reshape(-1))
    else:
        z[...] = activation.value(z.copy()) if fill is fill_values else activation.pair(z.copy())[1]


def replicated(energy: EnergySum, count: int) -> EnergySum:
    """The mean of the energies of ``count`` systems."""
    return EnergySum({name: _of_term(term, count) for name, term in energy.terms.items()})


def _of_term(term: Energy, count: int) -> Energy:
    if isinstance(term, Potential):
        return term  # which does not depend on the measure
    return NetworkReplicas(term, count) if isinstance(term, TwoLayer) else Replicas(term, count)
