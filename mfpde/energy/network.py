"""Two-layer networks in the mean-field limit: E(ρ) = ½ E_x|∫σ(x·θ)ρ(dθ) − y(x)|², or with w σ(x·θ) in place of σ(x·θ).

The convention keeps the ½, and time as in ρ_t = div(ρ∇δE/δρ). Sources: Chizat–Bach 2018, Mei–Montanari–Nguyen 2018; with trained output
weights: Mean Field Models for Neural Networks in Teacher-student Setting (2020), appendix 5.1, equation (12), where the loss lacks μ(x).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mfpde.arrays import FloatArray, IntArray, physical_memory
from mfpde.disk import PolarGrid
from mfpde.domain import Domain, Grid
from mfpde.energy.examples import Examples
from mfpde.energy.features import Features
from mfpde.energy.outputs import Imbalance, WeightedFeatures
from mfpde.energy.polar import AngularModes, GridPolarTwoLayer
from mfpde.measure import Atoms, Measure

if TYPE_CHECKING:
    from mfpde.energy.tables import Tables

FEW_FEATURES = 32


@dataclass(frozen=True, eq=False)
class TwoLayer:
    """½|∫Φ dρ − target|² + constant, with the features Φ of σ(x·θ) or w σ(x·θ). Build it with ``two_layer``.

    ``student_at`` and ``teacher_at`` give the network ∫σ(x·θ)dρ and the target y at inputs (Q, D), for pictures and checks: (Q,) or, with
    k outputs, (Q, k). ``angular`` makes the same energy from angular modes, for polar grids, where the inputs are isotropic pairs.
    ``examples`` is where inputs and targets come from, for minibatches. ``imbalance`` is what each neuron conserves, if it does.
    """

    features: Features
    target: FloatArray
    constant: float
    description: str
    student_at: Callable[[Atoms, FloatArray], FloatArray]
    teacher_at: Callable[[FloatArray], FloatArray] | None = None
    data: tuple[FloatArray, FloatArray] | None = None
    angular: Callable[[], AngularModes | None] | None = None
    examples: Examples | None = None
    temperature: float = 0.0
    imbalance: Imbalance | None = None
    _tables: "dict[tuple[Domain, float], tuple[int, Tables | None]]" = field(default_factory=dict, init=False)

    def residual(self, measure: Measure) -> FloatArray:
        """λ = ∫Φ dρ − target, (r,)."""
        return self.features.moments(measure.points, measure.weights) - self.target

    def value(self, measure: Measure) -> float:
        """½|λ|² + constant."""
        lam = self.residual(measure)
        return 0.5 * float(lam @ lam) + self.constant

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """δE/δρ = Φ(θ)·λ at points (M, d), as (M,)."""
        return np.asarray(self.residual(measure) @ self.features.evaluate(at))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇Φ·λ at points (M, d), as (M, d)."""
        return self.features.gradient(at, self.residual(measure))

    def value_and_gradient(self, measure: Measure) -> tuple[float, FloatArray]:
        """½|λ|² + constant and ∇Φ·λ at the measure's own points, with one residual."""
        lam = self.residual(measure)
        return 0.5 * float(lam @ lam) + self.constant, self.features.gradient(measure.points, lam)

    def square_gap(self, one: Measure, other: Measure) -> float:
        """E_x|∫Φ dρ₁ − ∫Φ dρ₂|², how far apart what two measures compute is."""
        return float(np.sum((self.residual(one) - self.residual(other)) ** 2))

    @property
    def size(self) -> int | None:
        """The number n of samples that are the inputs; None where they are a law."""
        return None if self.examples is None else self.examples.size

    def draw(self, generator: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
        """``count`` independent inputs (count, D) and their targets (count,) or (count, k); samples are drawn with replacement. The
        constant input of a bias is left out. Raises ValueError for a count below 1."""
        return _known(self.examples).draw(generator, count)

    def rows(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """The samples with these ``indices`` (count,), as inputs (count, D) and targets. Raises ValueError for other laws."""
        return _known(self.examples).rows(indices)

    def batch(self, inputs: FloatArray, targets: FloatArray) -> "TwoLayer":
        """The energy ½/B Σ_b |∫σ(x_b·θ)dρ − y_b|² of a minibatch: inputs (B, D) without the constant one of a bias, targets (B,) or
        (B, k). Its mean over draws is this energy. Raises ValueError for shapes that do not fit."""
        return batch_energy(self, inputs, targets)

    def tabulated(self, domain: Domain, tolerance: float, count: int) -> "TwoLayer":
        """The same energy with features on a table over the domain, where that reaches a relative ``tolerance`` and pays for ``count``
        atoms; else itself."""
        from mfpde.energy.tables import tabulated  # which brings the compiler

        key = (domain, tolerance)
        held = self._tables.get(key, (0, None))
        if held[1] is None and count > held[0]:
            held = self._tables[key] = (count, tabulated(self.features, domain, tolerance, count))
        return replace(self, features=held[1]) if held[1] is not None and held[1].pays(count) else self

    def on(self, grid: Grid) -> "GridTwoLayer | GridPolarTwoLayer | GridWeighted":
        """The features at the cell centres; replaced by an equal triangular factor when there are more features than cells, and by
        angular modes on polar grids about the origin where there are such and the features are not few. Output weights are factored
        out."""
        if isinstance(self.features, WeightedFeatures) and self.features.rank <= grid.size:
            return GridWeighted.of(self.features, self.target, self.constant, grid)
        if isinstance(grid, PolarGrid) and not any(grid.domain.center) and self.features.rank > FEW_FEATURES:
            modes = self.angular() if self.angular is not None else None
            if modes is not None:
                return GridPolarTwoLayer(modes, grid)
        if self.features.rank * grid.size * 8 > physical_memory():
            needed = self.features.rank * grid.size * 8 >> 30
            raise ValueError(f"{grid.size} cells with {self.features.rank} features need {needed} GB, more than there is; use fewer cells")
        matrix, target, constant = self.features.evaluate(grid.centers), self.target, self.constant
        if len(matrix) > grid.size:
            basis, matrix = np.linalg.qr(matrix)
            projected = basis.T @ target
            constant += 0.5 * max(float(target @ target - projected @ projected), 0.0)
            target = projected
        return GridTwoLayer(np.ascontiguousarray(matrix), target, constant, grid.weight)


def _known(examples: Examples | None) -> Examples:
    if examples is None:
        raise ValueError("this energy does not know where its inputs come from; build it with two_layer")
    return examples


class GridTwoLayer:
    """The compressed features (r, size) of one grid; a right-hand side costs two products with them."""

    temperature = 0.0
    convex = True

    def __init__(self, matrix: FloatArray, target: FloatArray, constant: float, weight: float | FloatArray) -> None:
        self.matrix, self.target, self.constant, self.weight = matrix, target, constant, weight
        self._lam = np.empty(len(matrix))
        self._xi = np.empty(matrix.shape[1])

    @property
    def linear(self) -> FloatArray:
        """−Φ·target, (size,)."""
        return np.asarray(-(self.target @ self.matrix))

    @property
    def factors(self) -> tuple[FloatArray, FloatArray]:
        """The features themselves, all with a positive sign."""
        return self.matrix, np.ones(len(self.matrix))

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Φᵀ∫Φ dρ."""
        self._fill_moments(rho)
        np.dot(self._lam, self.matrix, out=self._xi)
        np.add(out, self._xi, out=out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Nothing: the energy is convex."""

    def _fill_moments(self, rho: FloatArray) -> None:
        if isinstance(self.weight, float):
            np.dot(self.matrix, rho, out=self._lam)
            np.multiply(self._lam, self.weight, out=self._lam)
        else:
            np.multiply(rho, self.weight, out=self._xi)
            np.dot(self.matrix, self._xi, out=self._lam)

    def _fill_residual(self, rho: FloatArray) -> float:
        self._fill_moments(rho)
        np.subtract(self._lam, self.target, out=self._lam)
        return 0.5 * float(np.dot(self._lam, self._lam)) + self.constant

    def value(self, rho: FloatArray) -> float:
        """½|λ|² + constant."""
        return self._fill_residual(rho)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add Φ·λ; returns the energy."""
        energy = self._fill_residual(rho)
        np.dot(self._lam, self.matrix, out=self._xi)
        np.add(xi, self._xi, out=xi)
        return energy


@dataclass(eq=False)
class GridWeighted:
    """Features w ⊗ φ(θ) on a grid of Θ × R^k: ``phi`` (r, cells of Θ) and ``outer`` (cells of R^k, k), so that a right-hand side costs two
    sums over the cells and two products with φ, which are far smaller than those with Φ. ``weight`` is the volume of a cell."""

    phi: FloatArray
    outer: FloatArray
    target: FloatArray
    constant: float
    weight: float
    temperature: float = 0.0
    convex: bool = True

    @staticmethod
    def of(features: WeightedFeatures, target: FloatArray, constant: float, grid: Grid) -> "GridWeighted":
        """For the cells of a box. Raises ValueError where the features of the cells of Θ do not fit the memory."""
        inner = grid.size // int(np.prod(grid.cells[-features.outputs :]))
        if features.inner.rank * inner * 8 > physical_memory():
            raise ValueError(f"{inner} cells with {features.inner.rank} features need more memory than there is; use fewer cells")
        places = grid.centers.reshape(inner, -1, grid.domain.dimension)
        theta, outer = places[:, 0, : -features.outputs], places[0, :, -features.outputs :]
        phi = features.inner.evaluate(np.ascontiguousarray(theta))
        return GridWeighted(np.ascontiguousarray(phi), np.ascontiguousarray(outer), target, constant, float(grid.weight))

    @property
    def linear(self) -> FloatArray:
        """−Φ·target, (size,)."""
        return -self._along(self.target)

    @cached_property
    def _matrix(self) -> FloatArray:
        product = self.outer.T[:, None, None, :] * self.phi[None, :, :, None]
        return np.ascontiguousarray(product.reshape(len(self.target), -1))

    @property
    def factors(self) -> tuple[FloatArray, FloatArray]:
        """Φ written out, all with a positive sign."""
        return self._matrix, np.ones(len(self.target))

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Φᵀ∫Φ dρ."""
        np.add(out, self._along(self._moments(rho)), out=out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Nothing: the energy is convex."""

    def _moments(self, rho: FloatArray) -> FloatArray:
        summed = rho.reshape(self.phi.shape[1], -1) @ self.outer
        return np.ravel((self.phi @ summed).T) * self.weight

    def _along(self, lam: FloatArray) -> FloatArray:
        """Φ·λ, (size,)."""
        return np.ravel((lam.reshape(self.outer.shape[1], -1) @ self.phi).T @ self.outer.T)

    def value(self, rho: FloatArray) -> float:
        """½|λ|² + constant."""
        lam = self._moments(rho) - self.target
        return 0.5 * float(lam @ lam) + self.constant

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add Φ·λ; returns the energy."""
        lam = self._moments(rho) - self.target
        np.add(xi, self._along(lam), out=xi)
        return 0.5 * float(lam @ lam) + self.constant


class Exemplary(Protocol):
    """A network that knows where its inputs come from."""

    @property
    def examples(self) -> Examples | None:
        """Inputs and targets."""

    @property
    def student_at(self) -> Callable[[Atoms, FloatArray], FloatArray]:
        """The network at inputs."""

    @property
    def teacher_at(self) -> Callable[[FloatArray], FloatArray] | None:
        """The target at inputs."""


def batch_energy(network: Exemplary, inputs: FloatArray, targets: FloatArray) -> TwoLayer:
    """``TwoLayer.batch`` of any network. Raises ValueError for shapes that do not fit."""
    examples = _known(network.examples)
    inner = examples.features(inputs)
    count = examples.outputs.count
    wanted = (len(inputs),) if count == 1 else (len(inputs), count)
    if targets.shape != wanted:
        raise ValueError(f"{len(inputs)} inputs need as many targets, an array of shape {wanted}, got {targets.shape}")
    columns = targets.reshape(len(inputs), count).T
    target = np.concatenate([inner.scale * column for column in columns])
    features: Features = inner if examples.neurons is None else examples.outputs.features(inner, examples.neurons)
    return TwoLayer(features, target, 0.0, features.description, network.student_at, network.teacher_at, examples=examples)
