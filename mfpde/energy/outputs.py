"""Features of networks with output weights and with several outputs, built on those of one neuron with one output.

Output weights: a neuron is (θ, w) ∈ Ω = Θ × R^k and adds w σ(x·θ) to the network [Mean Field Models for Neural Networks in
Teacher-student Setting (2020), appendix 5.1]. With the features φ of Θ those of Ω are Φ(θ, w) = w ⊗ φ(θ), so that nothing but φ is ever
evaluated, compressed or tabulated.

Several outputs without weights: a neuron is a matrix of k rows θ_1, …, θ_k and adds σ(x·θ_m) to output m; Φ stacks the φ(θ_m).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Domain
from mfpde.energy.features import Features

Tabulate = Callable[[Features, Domain], Features | None]


@dataclass(frozen=True, eq=False)
class _Stacked:
    """k blocks of features that are made of φ = ``inner`` on ``domain``, k being ``outputs``."""

    inner: Features
    domain: Domain
    outputs: int

    @property
    def rank(self) -> int:
        """k times that of φ."""
        return self.outputs * self.inner.rank

    @property
    def note(self) -> str | None:
        """The table of φ, if there is one, for people."""
        return getattr(self.inner, "note", None)

    def pays(self, count: int) -> bool:
        """Whether a step of ``count`` atoms takes less time than without the table of φ."""
        return bool(getattr(self.inner, "pays", lambda _: False)(count))

    def on_tables(self, tabulate: Tabulate) -> Self | None:
        """The same with φ on a table, None where there is none."""
        table = tabulate(self.inner, self.domain)
        return None if table is None else replace(self, inner=table)


@dataclass(frozen=True, eq=False)
class WeightedFeatures(_Stacked):
    """Φ(θ, w) = w ⊗ φ(θ), with φ = ``inner`` on ``domain`` Θ and ``outputs`` weights, which are the last coordinates."""

    @property
    def description(self) -> str:
        """For people."""
        return f"{self.inner.description}, times {_counted(self.outputs, 'output weight')}"

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (k r, N), output by output."""
        theta, weight = self.split(points)
        return np.asarray((weight.T[:, None, :] * self.inner.evaluate(theta)).reshape(self.rank, len(points)))

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (k r,)."""
        theta, weight = self.split(points)
        return np.concatenate([self.inner.moments(theta, weights * weight[:, m]) for m in range(self.outputs)])

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,)."""
        theta, weight = self.split(points)
        return np.asarray(sum(weight[:, m] * self.inner.values(theta, part) for m, part in enumerate(np.split(lam, self.outputs))))

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d): Σ_m w_m ∇(φ·λ_m) along Θ, and φ·λ_m along w_m."""
        theta, weight = self.split(points)
        found, width = np.empty(points.shape), theta.shape[1]
        for m, part in enumerate(np.split(lam, self.outputs)):
            values, slopes = _values_and_slopes(self.inner, theta, part)
            if m == 0:
                np.multiply(slopes, weight[:, :1], out=found[:, :width])
            else:
                found[:, :width] += slopes * weight[:, m, None]
            found[:, width + m] = values
        return found

    def split(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """θ (N, d − k) and w (N, k)."""
        width = points.shape[1] - self.outputs
        return np.ascontiguousarray(points[:, :width]), points[:, width:]


@dataclass(frozen=True, eq=False)
class RowFeatures(_Stacked):
    """Φ(θ_1, …, θ_k) = (φ(θ_1), …, φ(θ_k)), with φ = ``inner`` on a ``domain`` that holds every row."""

    @property
    def description(self) -> str:
        """For people."""
        return f"{self.inner.description}, for each of {self.outputs} outputs"

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, d), as (k r, N), output by output."""
        return np.concatenate([self.inner.evaluate(row) for row in self.rows(points)])

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (k r,)."""
        return np.concatenate([self.inner.moments(row, weights) for row in self.rows(points)])

    def values(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """Φ·λ at points (N, d), as (N,)."""
        parts = zip(self.rows(points), np.split(lam, self.outputs), strict=True)
        return np.asarray(sum(self.inner.values(row, part) for row, part in parts))

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, d), as (N, d)."""
        parts = zip(self.rows(points), np.split(lam, self.outputs), strict=True)
        return np.concatenate([self.inner.gradient(row, part) for row, part in parts], axis=1)

    def rows(self, points: FloatArray) -> list[FloatArray]:
        """θ_1, …, θ_k of points (N, d), (N, d/k) each."""
        return [np.ascontiguousarray(row) for row in np.split(points, self.outputs, axis=1)]


@dataclass(frozen=True)
class Outputs:
    """What the coordinates of a neuron with ``count`` outputs are: with ``trained`` output weights, these come last; without, the
    coordinates are as many rows as there are outputs."""

    trained: bool = False
    count: int = 1

    @property
    def plain(self) -> bool:
        """Whether the coordinates are θ alone and there is one output."""
        return not self.trained and self.count == 1

    def neuron_domain(self, domain: Domain) -> Domain:
        """Θ: the axes before those of the output weights, or a box that holds every row. Raises ValueError for axes that do not suffice."""
        if self.plain:
            return domain
        if domain.box is not domain:
            raise ValueError("output weights and several outputs need a box of axes, not a disk")
        if self.trained:
            if domain.dimension <= self.count:
                need = f"{_counted(self.count, 'axis', 'axes')} for the output weights and at least one before"
                raise ValueError(f'output = "trained" needs {need}, the domain has {_counted(domain.dimension, "axis", "axes")}')
            return Domain(domain.axes[: -self.count])
        if domain.dimension % self.count:
            raise ValueError(f"{self.count} outputs need a multiple of {self.count} axes, as many for each; got {domain.dimension}")
        return _union(domain, self.count)

    def features(self, inner: Features, neurons: Domain) -> Features:
        """Φ on the whole domain, from the features of one neuron."""
        if self.plain:
            return inner
        return WeightedFeatures(inner, neurons, self.count) if self.trained else RowFeatures(inner, neurons, self.count)

    def parts(self, points: FloatArray, weights: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """For each output its neurons θ (N, dim Θ) and the weights (N,) with which atoms of measure ``weights`` (N,) add up there."""
        if self.trained:
            width = points.shape[1] - self.count
            theta = np.ascontiguousarray(points[:, :width])
            return [(theta, weights * points[:, width + m]) for m in range(self.count)]
        return [(np.ascontiguousarray(row), weights) for row in np.split(points, self.count, axis=1)]


PLAIN = Outputs()


@dataclass(frozen=True)
class Imbalance:
    """|θ|² − p|w|² of neurons with ``outputs`` trained weights and an activation that is homogeneous of ``degree`` p.

    Since θ·∇φ = pφ, each neuron of a gradient flow without noise, walls and other terms keeps it; weight decay λ shrinks it as e^{−2λt}
    [Du–Hu–Lee 2018, for p = 1].
    """

    degree: int
    outputs: int

    def of(self, points: FloatArray) -> FloatArray:
        """Of neurons (N, d), whose last coordinates are the weights, (N,)."""
        squares = points * points
        split = points.shape[1] - self.outputs
        return np.asarray(np.sum(squares[:, :split], axis=1) - self.degree * np.sum(squares[:, split:], axis=1))

    @property
    def formula(self) -> str:
        """For people."""
        return f"|θ|² − {'' if self.degree == 1 else self.degree}{'w²' if self.outputs == 1 else '|w|²'}"


def _values_and_slopes(features: Features, points: FloatArray, lam: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Φ·λ (N,) and its gradient (N, d), in one pass where the features have one."""
    both: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]] | None = getattr(features, "values_and_gradient", None)
    return both(points, lam) if both is not None else (features.values(points, lam), features.gradient(points, lam))


def _union(domain: Domain, count: int) -> Domain:
    """The box that holds the boxes of all rows; an axis is a circle only where it is the same one in every row."""
    width = domain.dimension // count
    axes = []
    for k in range(width):
        same = [domain.axes[m * width + k] for m in range(count)]
        low, high = min(axis.lower for axis in same), max(axis.upper for axis in same)
        round_ = all(axis.periodic and (axis.lower, axis.upper) == (low, high) for axis in same)
        axes.append(Axis(same[0].name, low, high, periodic=round_))
    return Domain(tuple(axes))


def _counted(count: int, word: str, plural: str = "") -> str:
    return f"{count} {word if count == 1 else plural or word + 's'}"
