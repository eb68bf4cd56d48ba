"""Two-layer networks in the mean-field limit: E(ρ) = ½ E_x(∫σ(x·θ)ρ(dθ) − y(x))².

The convention keeps the ½, and time as in ρ_t = div(ρ∇δE/δρ). Sources: Chizat–Bach 2018, Mei–Montanari–Nguyen 2018.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray, IntArray, physical_memory
from mfpde.disk import Disk, PolarGrid
from mfpde.domain import Domain, Grid
from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.examples import Examples
from mfpde.energy.features import (
    Angle,
    Features,
    InterpolatedFeatures,
    Parameters,
    SampledFeatures,
    Vector,
    harmonic_features,
    interpolated_features,
    network_values,
)
from mfpde.energy.inputs import Circle, InputLaw, Normal, Rule, Sharpness, with_constant
from mfpde.energy.polar import AngularModes, GridPolarTwoLayer, harmonic_modes, quadrature_modes
from mfpde.measure import Atoms, DensityFunction, Measure, Particles

if TYPE_CHECKING:
    from mfpde.energy.tables import TabulatedFeatures

QUADRATURE_TOLERANCE = {1: 1e-10, 2: 1e-10, 3: 1e-6}
RANK_TOLERANCE = {1: 1e-12, 2: 1e-5, 3: 1e-3}
_FEW_FEATURES = 32
_TEACHER_CELLS = {1: 2048, 2: 192, 3: 48, 4: 16}
_MOST_AXES_TO_COMPRESS = 3


@dataclass(frozen=True, eq=False)
class TwoLayer:
    """½|∫Φ dρ − target|² + constant, with the features Φ of σ(x·θ). Build it with ``two_layer``.

    ``student_at`` and ``teacher_at`` give the network ∫σ(x·θ)dρ and the target y at inputs (Q, D), for pictures and checks.
    ``angular`` makes the same energy from angular modes, for polar grids, where the inputs are isotropic pairs. ``examples`` is where
    inputs and targets come from, for minibatches.
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
    _tables: "dict[tuple[Domain, float], tuple[int, TabulatedFeatures | None]]" = field(default_factory=dict, init=False)

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

    @property
    def size(self) -> int | None:
        """The number n of samples that are the inputs; None where they are a law."""
        return None if self.examples is None else self.examples.size

    def draw(self, generator: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
        """``count`` independent inputs (count, D) and their targets (count,); samples are drawn with replacement. The constant input of
        a bias is left out. Raises ValueError for a count below 1."""
        return self._examples().draw(generator, count)

    def rows(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """The samples with these ``indices`` (count,), as inputs (count, D) and targets (count,). Raises ValueError for other laws."""
        return self._examples().rows(indices)

    def batch(self, inputs: FloatArray, targets: FloatArray) -> "TwoLayer":
        """The energy ½/B Σ_b (∫σ(x_b·θ)dρ − y_b)² of a minibatch: inputs (B, D) without the constant one of a bias, targets (B,).
        Its mean over draws is this energy. Raises ValueError for shapes that do not fit."""
        features = self._examples().features(inputs)
        if targets.shape != (len(inputs),):
            raise ValueError(f"{len(inputs)} inputs need as many targets, got an array of shape {targets.shape}")
        described = features.description
        return TwoLayer(features, features.scale * targets, 0.0, described, self.student_at, self.teacher_at, examples=self.examples)

    def _examples(self) -> Examples:
        if self.examples is None:
            raise ValueError("this energy does not know where its inputs come from; build it with two_layer")
        return self.examples

    def tabulated(self, domain: Domain, tolerance: float, count: int) -> "TwoLayer":
        """The same energy with features on a table over the domain, where that reaches a relative ``tolerance`` and pays for ``count``
        atoms; else itself."""
        from mfpde.energy.tables import tabulated  # which brings the compiler

        key = (domain, tolerance)
        held = self._tables.get(key, (0, None))
        if held[1] is None and count > held[0]:
            held = self._tables[key] = (count, tabulated(self.features, domain, tolerance, count))
        return replace(self, features=held[1]) if held[1] is not None and held[1].pays(count) else self

    def on(self, grid: Grid) -> "GridTwoLayer | GridPolarTwoLayer":
        """The features at the cell centres; replaced by an equal triangular factor when there are more features than cells, and by
        angular modes on polar grids about the origin where there are such and the features are not few."""
        if isinstance(grid, PolarGrid) and not any(grid.domain.center) and self.features.rank > _FEW_FEATURES:
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


def two_layer(
    domain: Domain,
    activation: str,
    inputs: InputLaw,
    teacher: Particles | DensityFunction | FloatArray,
    *,
    angle: bool = False,
    bias: bool = False,
    tolerance: float | None = None,
) -> TwoLayer:
    """The two-layer energy on ``domain``.

    ``teacher``: neurons with weights of any sign and sum; a density on the domain; or the data y (n,) that belong to samples.
    ``angle``: the single coordinate is the angle of a unit vector in R². ``bias``: the last coordinate is an offset, as if
    every x had a last entry 1. ``tolerance``: relative L²(μ) error of the compressed features; without it, inputs in more than three
    dimensions are used as they are, and so are those that a compression would not make fewer than half as many.
    Raises ValueError for an unknown activation or shapes that do not fit.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    sigma = ACTIVATIONS[activation]
    parameters, width = _parameters(domain, angle)
    if width - bias < 1:
        raise ValueError("a network with a bias needs at least two coordinates: the last one is the offset")
    atoms = _teacher_atoms(teacher, domain)
    sharpness = _sharpness(sigma, domain, atoms, angle, bias)
    rule = inputs.rule(width - bias, sharpness)
    rule = with_constant(rule) if bias else rule
    data = teacher if isinstance(teacher, np.ndarray) else None
    angular: Callable[[], AngularModes | None] | None = None
    if data is not None and data.shape != rule.weights.shape:
        raise ValueError(f"the data have {data.size} values for {len(rule.weights)} inputs")
    features: Features
    if atoms is not None and sigma.name == "relu" and inputs.isotropic and width == 2 and not bias:
        features = harmonic_features(parameters, inputs.second_moment(2), sharpness.tolerance)
        target, constant, accuracy = features.moments(atoms.points, atoms.weights), 0.0, 0.0
        angular = partial(harmonic_modes, features, target)
    else:
        features, target, constant = _features(sigma, parameters, rule, domain, teacher, atoms, tolerance)
        accuracy = 0.0 if inputs.exact else _quadrature_error(inputs, rule, sigma, parameters, domain, sharpness, bias)
        if atoms is not None and isinstance(inputs, Normal | Circle) and domain.dimension == 2 and not (bias or sigma.kink):
            angular = partial(quadrature_modes, sigma, inputs, sharpness, atoms, domain.reach(2))
    teacher_at = None if atoms is None else partial(_network, sigma, parameters, atoms)
    note = "the samples themselves" if inputs.exact else f"quadrature error {accuracy:.0e}"
    if isinstance(domain, Disk) and not any(domain.center) and angular is not None and features.rank > _FEW_FEATURES:
        note += "; on polar grids a convolution in the angle"
    return TwoLayer(
        features,
        target,
        constant,
        f"{features.description}, {note}",
        lambda atoms, x: _network(sigma, parameters, atoms, x),
        teacher_at,
        None if data is None else (rule.nodes, data),
        angular,
        Examples(sigma, parameters, inputs, width - bias, bias, teacher_at, data),
    )


def _parameters(domain: Domain, angle: bool) -> tuple[Parameters, int]:
    if not angle:
        return Vector(), domain.dimension
    if domain.dimension != 1:
        raise ValueError(f"an angle is one coordinate, but the domain has {domain.dimension}")
    return Angle(), 2


def _teacher_atoms(teacher: Particles | DensityFunction | FloatArray, domain: Domain) -> Atoms | None:
    """The teacher as atoms: neurons as they are, a density by its cell masses on a fine grid, data not at all."""
    if isinstance(teacher, np.ndarray):
        return None
    if isinstance(teacher, DensityFunction):
        if domain.dimension not in _TEACHER_CELLS:
            raise ValueError(
                f"a teacher density needs at most {max(_TEACHER_CELLS)} coordinates, got {domain.dimension}; use neurons or data"
            )
        return teacher.gauss_atoms(_TEACHER_CELLS[domain.dimension])
    if teacher.points.shape[1] != domain.dimension:
        raise ValueError(f"teacher neurons need {domain.dimension} coordinates each, got {teacher.points.shape[1]}")
    return teacher


def _sharpness(sigma: Activation, domain: Domain, atoms: Atoms | None, angle: bool, bias: bool) -> Sharpness:
    """How fast x ↦ σ(x·θ) varies for the largest |θ| of the domain and the teacher (without the offset)."""
    dimension = 2 if angle else domain.dimension - bias
    steepest = domain.reach(dimension)
    if atoms is not None:
        steepest = max(steepest, float(np.max(np.linalg.norm(atoms.points[:, :dimension], axis=1))))
    steepest = 1.0 if angle else steepest
    kinked = sigma.kink and (dimension > 1 or bias)
    width = sigma.pole / max(steepest, 1e-300)
    return Sharpness(width, not (bias or sigma.everywhere), kinked, QUADRATURE_TOLERANCE.get(dimension, 1e-6))


def _features(
    sigma: Activation,
    parameters: Parameters,
    rule: Rule,
    domain: Domain,
    teacher: Particles | DensityFunction | FloatArray,
    atoms: Atoms | None,
    tolerance: float | None,
) -> tuple[Features, FloatArray, float]:
    """Fewer features to the tolerance where that pays, or the rule's inputs as they are; the target and the constant."""
    data = teacher if isinstance(teacher, np.ndarray) else None
    why = f"{domain.dimension} coordinates are too many to compress them"
    if domain.dimension <= _MOST_AXES_TO_COMPRESS or tolerance is not None:
        extra = teacher.points if isinstance(teacher, Particles) else np.zeros((0, domain.dimension))
        wanted = tolerance or RANK_TOLERANCE.get(domain.dimension, 1e-3)
        features, fit = interpolated_features(sigma, parameters, rule, domain, extra, wanted)
        if 2 * features.rank < len(rule.weights):
            return features, *_target(features, fit, rule, atoms, data)
        why = f"to {wanted:.0e} they have rank {features.rank}"
    sampled = _sampled(sigma, parameters, rule, why)
    return sampled, *_sampled_target(sampled, atoms, data)


def _sampled(sigma: Activation, parameters: Parameters, rule: Rule, why: str) -> SampledFeatures:
    return SampledFeatures(sigma, parameters, rule.nodes, np.sqrt(rule.weights), f"all {len(rule.weights)} inputs as they are ({why})")


def _sampled_target(features: SampledFeatures, atoms: Atoms | None, data: FloatArray | None) -> tuple[FloatArray, float]:
    if data is not None:
        return features.scale * data, 0.0
    assert atoms is not None
    return features.moments(atoms.points, atoms.weights), 0.0


def _target(
    features: InterpolatedFeatures, fit: FloatArray, rule: Rule, atoms: Atoms | None, data: FloatArray | None
) -> tuple[FloatArray, float]:
    """The target in feature space and the constant, which is the part of the data that no network on Ω can reach."""
    if data is None:
        assert atoms is not None
        return features.moments(atoms.points, atoms.weights), 0.0
    basis = np.linalg.solve(features.mixing.T, fit.T).T
    scaled = np.sqrt(rule.weights) * data
    target = np.asarray(basis.T @ scaled)
    rest = scaled - basis @ target
    return target, 0.5 * float(rest @ rest)


def _quadrature_error(
    inputs: InputLaw, rule: Rule, sigma: Activation, parameters: Parameters, domain: Domain, sharpness: Sharpness, bias: bool
) -> float:
    """Largest relative error of E σ(x·θ)σ(x·θ') over random pairs, against a rule of twice the resolution."""
    finer = inputs.rule(rule.nodes.shape[1] - bias, sharpness.finer())
    finer = with_constant(finer) if bias else finer
    points = domain.spread(np.random.default_rng(3).random((12, domain.dimension)))
    vectors = parameters.vectors(np.concatenate([points, domain.confine(np.stack([domain.lower, domain.upper]))]))
    one, two = (_kernel(r, sigma, vectors) for r in (rule, finer))
    return float(np.max(np.abs(one - two)) / np.max(np.abs(two)))


def _kernel(rule: Rule, sigma: Activation, vectors: FloatArray) -> FloatArray:
    values = sigma.value(rule.nodes @ vectors.T)
    return np.asarray((values * rule.weights[:, None]).T @ values)


def _network(sigma: Activation, parameters: Parameters, atoms: Atoms, inputs: FloatArray) -> FloatArray:
    """∫σ(x·θ)dρ at inputs (Q, D), (Q,)."""
    return network_values(sigma, parameters.vectors(atoms.points), atoms.weights, inputs)
