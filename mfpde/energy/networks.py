"""Two-layer energies of a domain, an activation, a law of the inputs and a teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.disk import Disk
from mfpde.domain import Domain
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
    probe_points,
)
from mfpde.energy.gaussian_kernels import GaussianKernel, KernelFeatures
from mfpde.energy.inputs import Circle, InputLaw, Normal, Rule, Sharpness, with_constant
from mfpde.energy.network import FEW_FEATURES, TwoLayer
from mfpde.energy.outputs import Imbalance, Outputs
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.polar import AngularModes, harmonic_modes, quadrature_modes
from mfpde.measure import Atoms, DensityFunction, Particles

QUADRATURE_TOLERANCE = {1: 1e-10, 2: 1e-10, 3: 1e-6}
RANK_TOLERANCE = {1: 1e-12, 2: 1e-5, 3: 1e-3}
_KINKED_RANK_TOLERANCE = {3: 1e-2}
"""Of functions with kinks, whose ranks grow like a power of 1/tolerance: some 300 features for this and 1000 for 1e-3."""
_TEACHER_CELLS = {1: 2048, 2: 192, 3: 48, 4: 16}
_MOST_AXES_TO_COMPRESS = 3
_KERNEL_PROBES = {1: 300, 2: 1200}
_MOST_KERNEL_PROBES, _MOST_KERNEL_FEATURES = 2000, 512
_KERNEL_TOLERANCE = {1: 3e-7, 2: 1e-5}
_OTHER_KERNEL_TOLERANCE = 1e-4
_DEGREES = {"relu": 1, "identity": 1, "quadratic": 2}


@dataclass(frozen=True, eq=False)
class Neurons:
    """A teacher y = Σ_j c_j σ(x·θ_j) with ``points`` θ_j (J, dim Θ) and ``weights`` c_j (J, k), of any sign. Raises ValueError for shapes
    that differ."""

    points: FloatArray
    weights: FloatArray

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.weights.ndim != 2 or len(self.points) != len(self.weights) or not self.weights.size:
            raise ValueError(f"neurons need points (J, d) and weights (J, k), got {self.points.shape} and {self.weights.shape}")


_FEW_ATOMS = 1024

Teacher = Particles | Neurons | DensityFunction | FloatArray
Target = Particles | FloatArray
"""One output's neurons with weights, or its data (n,)."""


@dataclass(frozen=True, eq=False)
class _Model:
    """What a network is, before its expectations are taken: ``targets`` has an entry for each output; ``extra`` are teacher neurons that
    the features must hold for as well, (K, dim Θ)."""

    domain: Domain
    neurons: Domain
    sigma: Activation
    parameters: Parameters
    width: int
    angle: bool
    bias: bool
    outputs: Outputs
    law: InputLaw
    targets: list[Target]
    extra: FloatArray

    @property
    def taught(self) -> bool:
        """Whether the targets are neurons and not data."""
        return not isinstance(self.targets[0], np.ndarray)

    @property
    def atoms(self) -> list[Particles]:
        """The neurons of the outputs; none where there are data."""
        return [target for target in self.targets if isinstance(target, Particles)]

    def examples(self) -> Examples:
        """Where inputs and targets come from."""
        neurons = None if self.outputs.plain else self.neurons
        data = None if self.taught else _stacked([t for t in self.targets if isinstance(t, np.ndarray)])
        teacher_at = self.teacher_at()
        return Examples(self.sigma, self.parameters, self.law, self.width - self.bias, self.bias, teacher_at, data, self.outputs, neurons)

    def teacher_at(self) -> Callable[[FloatArray], FloatArray] | None:
        """The target at inputs, if it is a network."""
        if not self.taught:
            return None
        return partial(_summed, self.sigma, self.parameters, [(atoms.points, atoms.weights) for atoms in self.atoms])

    def student_at(self, atoms: Atoms, inputs: FloatArray) -> FloatArray:
        """The network at inputs (Q, D), (Q,) or (Q, k)."""
        parts = [(atoms.points, atoms.weights)] if self.outputs.plain else self.outputs.parts(atoms.points, atoms.weights)
        return _summed(self.sigma, self.parameters, parts, inputs)

    def imbalance(self) -> Imbalance | None:
        """What is conserved of each neuron, if something is."""
        degree = _DEGREES.get(self.sigma.name)
        if degree is None or not self.outputs.trained or self.angle or self.domain.frozen.any():
            return None
        return Imbalance(degree, self.outputs.count)


def two_layer(
    domain: Domain,
    activation: str,
    inputs: InputLaw,
    teacher: Teacher,
    *,
    angle: bool = False,
    bias: bool = False,
    tolerance: float | None = None,
    output: Literal["fixed", "trained"] = "fixed",
    outputs: int = 1,
) -> TwoLayer:
    """The two-layer energy on ``domain``, by quadrature over the inputs.

    ``output`` = "trained": the last ``outputs`` coordinates are a neuron's output weights w, and the network is ∫wσ(x·θ)dρ; "fixed" with
    several outputs: the coordinates are as many rows θ_m, and output m is ∫σ(x·θ_m)dρ.
    ``teacher``: neurons (in the coordinates of one θ) with weights of any sign and sum, vectors where there are several outputs; a density
    on the domain; or the data y (n,) or (n, k) that belong to samples.
    ``angle``: the single coordinate of θ is the angle of a unit vector in R². ``bias``: the last coordinate of θ is an offset, as if
    every x had a last entry 1. ``tolerance``: relative L²(μ) error of the compressed features; without it, inputs in more than three
    dimensions are used as they are, and so are those that a compression would not make fewer than half as many.
    Raises ValueError for an unknown activation or shapes that do not fit.
    """
    model = _model(domain, activation, inputs, teacher, angle, bias, Outputs(output == "trained", outputs))
    sharpness = _sharpness(model)
    rule = inputs.rule(model.width - bias, sharpness)
    rule = with_constant(rule) if bias else rule
    for target in model.targets:
        if isinstance(target, np.ndarray) and target.shape != rule.weights.shape:
            raise ValueError(f"the data have {target.size} values for {len(rule.weights)} inputs")
    features, target, constant, accuracy, angular = _by_quadrature(model, rule, sharpness, tolerance)
    note = "the samples themselves" if inputs.exact else f"quadrature error {accuracy:.0e}{_advice(model)}"
    if isinstance(domain, Disk) and not any(domain.center) and angular is not None and features.rank > FEW_FEATURES:
        note += "; on polar grids a convolution in the angle"
    return _energy(model, features, target, constant, note, rule, angular)


def closed_two_layer(
    domain: Domain,
    activation: str,
    inputs: Normal,
    teacher: Particles | Neurons | DensityFunction,
    *,
    angle: bool = False,
    bias: bool = False,
    tolerance: float | None = None,
    output: Literal["fixed", "trained"] = "fixed",
    outputs: int = 1,
) -> TwoLayer | PairNetwork:
    """The same for normal inputs in any dimension with E σ(x·θ)σ(x·θ') in closed form: no quadrature and no samples.

    Where few features reach ``tolerance`` (default: 3e-7, 1e-5 and 1e-4 in one, two and more dimensions of θ; the energy's error is
    about its square) these; else sums over all pairs of neurons. Raises ValueError where there is no closed form.
    """
    model = _model(domain, activation, inputs, teacher, angle, bias, Outputs(output == "trained", outputs))
    kernel = GaussianKernel(activation, inputs.scale, bias)
    if not model.taught:
        raise ValueError("data belong to samples, whose expectation is a sum; a closed form needs a teacher")
    if activation == "relu" and model.width == 2:
        features = harmonic_features(model.parameters, inputs.second_moment(2), _harmonic_tolerance(tolerance, QUADRATURE_TOLERANCE[2]))
        target, constant = _met(model, features)
        angular = partial(harmonic_modes, features, target) if model.outputs.plain else None
        return _energy(model, features, target, constant, "no quadrature", None, angular)
    found = _kernel_features(model, kernel, tolerance)
    if found is not None:
        target, _ = _met(model, found)
        constant = max(0.0, sum(_rest(kernel, model, found, atoms) for atoms in model.atoms))
        return _energy(model, found, target, constant, "no quadrature", None, None)
    if not model.outputs.trained and model.outputs.count > 1:
        raise ValueError(f"more than {_MOST_KERNEL_FEATURES} features are needed; several outputs of so many need output weights")
    return PairNetwork.of(
        kernel, model.parameters, model.neurons, model.outputs, model.atoms, model.student_at, model.examples(), model.imbalance()
    )


def _model(domain: Domain, activation: str, law: InputLaw, teacher: Teacher, angle: bool, bias: bool, outputs: Outputs) -> _Model:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if outputs.count < 1:
        raise ValueError(f"a network needs at least one output, got {outputs.count}")
    neurons = outputs.neuron_domain(domain)
    parameters, width = _parameters(neurons, angle)
    if width - bias < 1:
        raise ValueError("a network with a bias needs at least two coordinates: the last one is the offset")
    targets = _targets(teacher, domain, neurons, outputs)
    extra = teacher.points if isinstance(teacher, Particles | Neurons) else np.zeros((0, neurons.dimension))
    return _Model(domain, neurons, ACTIVATIONS[activation], parameters, width, angle, bias, outputs, law, targets, extra)


def _parameters(domain: Domain, angle: bool) -> tuple[Parameters, int]:
    if not angle:
        return Vector(), domain.dimension
    if domain.dimension != 1:
        raise ValueError(f"an angle is one coordinate, but the domain has {domain.dimension}")
    return Angle(), 2


def _targets(teacher: Teacher, domain: Domain, neurons: Domain, outputs: Outputs) -> list[Target]:
    """The teacher of every output: neurons as they are, a density by its cell masses on a fine grid, or data."""
    count = outputs.count
    if isinstance(teacher, np.ndarray):
        columns = teacher[:, None] if teacher.ndim == 1 else teacher
        _check_outputs(columns.shape[1], count, "data")
        return [np.ascontiguousarray(columns[:, m]) for m in range(count)]
    if isinstance(teacher, DensityFunction):
        if domain.dimension not in _TEACHER_CELLS:
            raise ValueError(
                f"a teacher density needs at most {max(_TEACHER_CELLS)} coordinates, got {domain.dimension}; use neurons or data"
            )
        atoms = teacher.gauss_atoms(_TEACHER_CELLS[domain.dimension])
        return [atoms] if outputs.plain else [Particles(*part) for part in outputs.parts(atoms.points, atoms.weights)]
    if teacher.points.shape[1] != neurons.dimension:
        raise ValueError(f"teacher neurons need {neurons.dimension} coordinates each, got {teacher.points.shape[1]}")
    weights = teacher.weights[:, None] if isinstance(teacher, Particles) else teacher.weights
    _check_outputs(weights.shape[1], count, "weights of the teacher")
    return [Particles(teacher.points, np.ascontiguousarray(weights[:, m])) for m in range(count)]


def _check_outputs(found: int, count: int, what: str) -> None:
    if found != count:
        raise ValueError(f"the {what} are of {found} outputs, but the network has {count}")


def _sharpness(model: _Model) -> Sharpness:
    """How fast x ↦ σ(x·θ) varies for the largest |θ| of the domain and the teacher (without the offset)."""
    sigma, bias = model.sigma, model.bias
    dimension = 2 if model.angle else model.neurons.dimension - bias
    steepest = model.neurons.reach(dimension)
    for atoms in model.atoms:
        steepest = max(steepest, float(np.max(np.linalg.norm(atoms.points[:, :dimension], axis=1))))
    steepest = 1.0 if model.angle else steepest
    kinked = sigma.kink and (dimension > 1 or bias)
    width = sigma.pole / max(steepest, 1e-300)
    tolerance, rays = QUADRATURE_TOLERANCE.get(dimension, 1e-6), sigma.name == "relu" and not bias and dimension > 1
    return Sharpness(width, not (bias or sigma.everywhere), kinked, tolerance, homogeneous=rays)


Angular = Callable[[], AngularModes | None] | None


def _by_quadrature(
    model: _Model, rule: Rule, sharpness: Sharpness, tolerance: float | None
) -> tuple[Features, FloatArray, float, float, Angular]:
    """Features of one θ, target, constant, the error of the rule, and angular modes."""
    sigma, law = model.sigma, model.law
    if model.taught and sigma.name == "relu" and law.isotropic and model.width == 2 and not model.bias:
        harmonic = harmonic_features(model.parameters, law.second_moment(2), _harmonic_tolerance(tolerance, sharpness.tolerance))
        target, constant = _met(model, harmonic)
        return harmonic, target, constant, 0.0, partial(harmonic_modes, harmonic, target) if model.outputs.plain else None
    features, target, constant = _features(model, rule, tolerance)
    accuracy = 0.0 if law.exact else _quadrature_error(model, rule, sharpness)
    smooth = model.taught and isinstance(law, Normal | Circle) and not (model.bias or sigma.kink)
    if smooth and isinstance(law, Normal | Circle) and model.outputs.plain and model.domain.dimension == 2:
        angular = partial(quadrature_modes, sigma, law, sharpness, model.atoms[0], model.domain.reach(2))
        return features, target, constant, accuracy, angular
    return features, target, constant, accuracy, None


def _harmonic_tolerance(tolerance: float | None, default: float) -> float:
    """What may be left of the energy E|x|²/8 of a unit atom, as a share of E|x|², from the ``tolerance`` of the features themselves."""
    return default if tolerance is None else 0.125 * tolerance**2


def _met(model: _Model, features: Features) -> tuple[FloatArray, float]:
    """The target of a teacher of neurons, which features hold for."""
    if model.neurons.dimension == 1:  # so few that the compiler, which brings them all at once, need not be loaded
        return np.concatenate([_added_up(features, atoms) for atoms in model.atoms]), 0.0
    return np.concatenate([features.moments(atoms.points, atoms.weights) for atoms in model.atoms]), 0.0


def _added_up(features: Features, atoms: Particles) -> FloatArray:
    """∫Φ dρ of atoms, some hundred at a time."""
    parts = [slice(k, k + _FEW_ATOMS) for k in range(0, len(atoms.weights), _FEW_ATOMS)]
    return np.asarray(sum(features.evaluate(atoms.points[part]) @ atoms.weights[part] for part in parts))


def _advice(model: _Model) -> str:
    """That there is a closed form, where quadrature is far from exact."""
    if not (model.sigma.kink and isinstance(model.law, Normal) and model.taught and model.width > 2):
        return ""
    try:
        GaussianKernel(model.sigma.name, model.law.scale, model.bias)
    except ValueError:
        return ""
    return '; with expectation = "closed" there is none'


def _features(model: _Model, rule: Rule, tolerance: float | None) -> tuple[Features, FloatArray, float]:
    """Fewer features to the tolerance where that pays, or the rule's inputs as they are; the target and the constant."""
    neurons = model.neurons
    why = f"{neurons.dimension} coordinates are too many to compress them"
    if neurons.dimension <= _MOST_AXES_TO_COMPRESS or tolerance is not None:
        usual = RANK_TOLERANCE.get(neurons.dimension, 1e-3)
        rough = model.sigma.kink and not model.law.exact
        wanted = tolerance or (_KINKED_RANK_TOLERANCE.get(neurons.dimension, usual) if rough else usual)
        features, fit = interpolated_features(model.sigma, model.parameters, rule, neurons, model.extra, wanted)
        if 2 * features.rank < len(rule.weights):
            return features, *_target(model, features, fit, rule)
        why = f"to {wanted:.0e} they have rank {features.rank}"
    described = f"all {len(rule.weights)} inputs as they are ({why})"
    sampled = SampledFeatures(model.sigma, model.parameters, rule.nodes, np.sqrt(rule.weights), described)
    if model.taught:
        return sampled, *_met(model, sampled)
    return sampled, np.concatenate([sampled.scale * target for target in model.targets if isinstance(target, np.ndarray)]), 0.0


def _target(model: _Model, features: InterpolatedFeatures, fit: FloatArray, rule: Rule) -> tuple[FloatArray, float]:
    """The target in feature space and the constant, which is the part of the data that no network on Ω can reach."""
    if model.taught:
        return _met(model, features)
    basis = np.linalg.solve(features.mixing.T, fit.T).T
    targets, constant = [], 0.0
    for data in model.targets:
        assert isinstance(data, np.ndarray)
        scaled = np.sqrt(rule.weights) * data
        target = np.asarray(basis.T @ scaled)
        rest = scaled - basis @ target
        targets.append(target)
        constant += 0.5 * float(rest @ rest)
    return np.concatenate(targets), constant


def _quadrature_error(model: _Model, rule: Rule, sharpness: Sharpness) -> float:
    """Largest relative error of E σ(x·θ)σ(x·θ') over random pairs, against a rule of twice the resolution."""
    domain, bias = model.neurons, model.bias
    finer = model.law.rule(rule.nodes.shape[1] - bias, sharpness.finer())
    finer = with_constant(finer) if bias else finer
    points = domain.spread(np.random.default_rng(3).random((12, domain.dimension)))
    vectors = model.parameters.vectors(np.concatenate([points, domain.confine(np.stack([domain.lower, domain.upper]))]))
    one, two = (_kernel(r, model.sigma, vectors) for r in (rule, finer))
    return float(np.max(np.abs(one - two)) / np.max(np.abs(two)))


def _kernel(rule: Rule, sigma: Activation, vectors: FloatArray) -> FloatArray:
    values = sigma.value(rule.nodes @ vectors.T)
    return np.asarray((values * rule.weights[:, None]).T @ values)


def _kernel_features(model: _Model, kernel: GaussianKernel, tolerance: float | None) -> KernelFeatures | None:
    """Features of the kernel on the domain, None where they would be too many or do not hold between the probes."""
    dimension = model.neurons.dimension
    wanted = tolerance or _KERNEL_TOLERANCE.get(dimension, _OTHER_KERNEL_TOLERANCE)
    probes = np.concatenate([probe_points(model.neurons, _KERNEL_PROBES.get(dimension, _MOST_KERNEL_PROBES)), model.extra])
    features = KernelFeatures.of(kernel, model.parameters, probes, wanted, _MOST_KERNEL_FEATURES)
    others = model.neurons.spread(np.random.default_rng(1).random((500, dimension)))
    return features if features is not None and features.accurate(others, wanted) else None


def _rest(kernel: GaussianKernel, model: _Model, features: KernelFeatures, atoms: Particles) -> float:
    """½E y² beyond what the features see of a teacher."""
    vectors, target = model.parameters.vectors(atoms.points), features.moments(atoms.points, atoms.weights)
    return 0.5 * float(atoms.weights @ kernel.sums(vectors, vectors, atoms.weights) - target @ target)


def _energy(
    model: _Model, inner: Features, target: FloatArray, constant: float, note: str, rule: Rule | None, angular: Angular
) -> TwoLayer:
    """The energy on the whole domain from the features of one θ."""
    features, examples = model.outputs.features(inner, model.neurons), model.examples()
    return TwoLayer(
        features,
        target,
        constant,
        f"{features.description}, {note}",
        model.student_at,
        model.teacher_at(),
        None if examples.data is None or rule is None else (rule.nodes, examples.data),
        angular,
        examples,
        imbalance=model.imbalance(),
    )


def _stacked(columns: Sequence[FloatArray]) -> FloatArray:
    """(Q,) for one output, (Q, k) for more."""
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _summed(sigma: Activation, parameters: Parameters, parts: Sequence[tuple[FloatArray, FloatArray]], inputs: FloatArray) -> FloatArray:
    """Σ_j w_j σ(x_q·θ_j) of every output's neurons and weights, (Q,) or (Q, k)."""
    return _stacked([network_values(sigma, parameters.vectors(points), weights, inputs) for points, weights in parts])
