"""The ensemble of residual networks: E(ρ) = ½ E_x|∫X^L(x; Θ)ρ(dΘ) − y(x)|², an average of networks with independent parameters.

It is linear in ρ as a two-layer network is, so that it is one with the features X^L in place of σ(x·θ) and all solvers run it [Mean Field
Models for Neural Networks in Teacher-student Setting (2020), section 3.1]. The convention keeps the ½ and μ, and time as in
ρ_t = div(ρ∇δE/δρ); the ensemble's own gradient descent reaches the time kα/N in k steps of the rate α.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.energy.activations import ACTIVATIONS
from mfpde.energy.examples import Examples
from mfpde.energy.features import Features, Vector, pivots, probe_points, triangular_factor
from mfpde.energy.inputs import InputLaw, Rule, Sharpness
from mfpde.energy.network import TwoLayer
from mfpde.energy.networks import Neurons
from mfpde.energy.outputs import Outputs
from mfpde.energy.resnet import Branch, InterpolatedBranches, SampledBranches
from mfpde.measure import Atoms, DensityFunction, Measure, Particles

_QUADRATURE_TOLERANCE = {1: 1e-10, 2: 1e-6, 3: 1e-4}
_RANK_TOLERANCE = {1: 1e-10, 2: 1e-10, 3: 1e-9}
_LONG_TOLERANCE = 1e-7
"""Relative L²(μ) error of compressed features, by the number of coordinates, and with more."""
_TEACHER_CELLS = {1: 2048, 2: 192, 3: 48}
_PROBES = {1: 240, 2: 700, 3: 1200}
_MANY_PROBES = 2500
_MOST_AXES_TO_COMPRESS = 3
_MOST_CANDIDATES = 4000
_MOST_INPUTS = 20_000
_COARSER = tuple(2.0**k for k in range(8, -1, -1))
_WIDEST = 0.1
_BLOCK = 512
_MOST_CORNERS = 6


@dataclass(frozen=True, eq=False)
class _Taught:
    """Teacher parameters ``points`` (J, L d²) with ``weights`` (J,) of any sign."""

    branch: Branch
    points: FloatArray
    weights: FloatArray

    def at(self, inputs: FloatArray) -> FloatArray:
        """y at inputs (Q, d), (Q,) or (Q, d)."""
        return _network(self.branch, self.points, self.weights, inputs)


def ensemble_resnet(
    domain: Domain,
    activation: str,
    inputs: InputLaw,
    teacher: Particles | Neurons | DensityFunction | FloatArray,
    *,
    dimension: int = 1,
    tolerance: float | None = None,
) -> TwoLayer:
    """The energy of an ensemble of residual networks on ``domain``, whose coordinates are the d × d matrices θ⁰, …, θ^{L−1}, each row
    after row; d = ``dimension`` is that of inputs, states and outputs, and L the number of coordinates over d².

    ``teacher``: parameters Θ_j with weights of any sign, y = Σ_j w_j X^L(x; Θ_j); a density on the domain of at most three coordinates; or
    the data y (n,) or (n, d) that belong to samples. ``tolerance``: relative L²(μ) error of the compressed features; without it, networks
    with d ≥ 2 and more than three coordinates take the inputs as they are, and so do those that a compression would not make fewer than
    half as many.
    Raises ValueError for an unknown activation, shapes that do not fit, a law that needs too many inputs, and a domain on which X^L is
    too large for the arithmetic.
    """
    branch = _branch(domain, activation, dimension)
    taught, data = _teacher(branch, domain, teacher)
    extra = np.zeros((0, branch.axes)) if taught is None else taught.points[~domain.contains(taught.points)]
    extremes = np.concatenate([_corners(domain), extra])
    _check_sizes(branch, extremes)
    rule, note = _rule(branch, inputs, domain, extremes)
    if data is not None and data.shape != (len(rule.weights), dimension):
        raise ValueError(f"the data are {data.shape[0]} targets of {data.shape[1]} numbers, for {len(rule.weights)} inputs of {dimension}")
    features, basis = _features(branch, rule, domain, extra, tolerance)
    target, constant = _target(features, basis, rule, taught, data)
    held = data if data is None or dimension > 1 else data[:, 0]
    teacher_at = None if taught is None else taught.at
    examples = Examples(branch.activation, Vector(), inputs, dimension, False, teacher_at, held, Outputs(False, dimension), None, branch)
    return TwoLayer(
        features,
        target,
        constant,
        f"{_levels(branch)}, {features.description}, {note}",
        partial(_student, branch),
        teacher_at,
        None if held is None else (rule.nodes, held),
        examples=examples,
    )


def stationary_residual(network: TwoLayer, measure: Measure, inputs: FloatArray) -> FloatArray:
    """∫X^L(x; Θ)(ρ − ρ*)(dΘ) at inputs (Q, d), (Q,) or (Q, d): what vanishes for every x in stationary states that are positive everywhere
    [the paper's Theorem 3, (5)]; for any network with a teacher, its output less the target.

    Raises ValueError for a network without a teacher.
    """
    if network.teacher_at is None:
        raise ValueError("the residual at inputs needs a teacher; data are known at their own inputs alone")
    return np.asarray(network.student_at(Particles(measure.points, measure.weights), inputs) - network.teacher_at(inputs))


def _branch(domain: Domain, activation: str, dimension: int) -> Branch:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if dimension < 1:
        raise ValueError(f"states need at least one dimension, got {dimension}")
    if domain.periodic.any():
        raise ValueError("residual networks are not periodic in their parameters, but an axis is; give it ends")
    if domain.dimension % dimension**2:
        square = dimension**2
        raise ValueError(
            f"matrices of {dimension} x {dimension} need a multiple of {square} axes, {square} a level; got {domain.dimension}"
        )
    return Branch(ACTIVATIONS[activation], domain.dimension // dimension**2, dimension)


def _teacher(
    branch: Branch, domain: Domain, teacher: Particles | Neurons | DensityFunction | FloatArray
) -> tuple[_Taught | None, FloatArray | None]:
    """The teacher's parameters, a density by its cell masses on a fine grid; or the data, (n, d)."""
    if isinstance(teacher, np.ndarray):
        return None, teacher[:, None] if teacher.ndim == 1 else teacher
    if isinstance(teacher, DensityFunction):
        if domain.dimension not in _TEACHER_CELLS:
            raise ValueError(f"a teacher density needs at most 3 coordinates, got {domain.dimension}; use parameters or data")
        teacher = teacher.gauss_atoms(_TEACHER_CELLS[domain.dimension])
    weights = teacher.weights if isinstance(teacher, Particles) else teacher.weights[:, 0]
    if teacher.points.shape[1] != branch.axes or weights.size != teacher.weights.size:
        raise ValueError(f"a teacher needs parameters of {branch.axes} coordinates with a weight each, got {teacher.points.shape}")
    return _Taught(branch, teacher.points, weights), None


def _corners(domain: Domain) -> FloatArray:
    """Where parameters are largest: all corners of the box, or the four in which all coordinates are alike."""
    low, high = domain.lower, domain.upper
    if domain.dimension <= _MOST_CORNERS:
        return np.stack([c.ravel() for c in np.meshgrid(*zip(low, high, strict=True), indexing="ij")], axis=1)
    larger = np.where(np.abs(low) > np.abs(high), low, high)
    return np.stack([low, high, larger, -np.abs(larger)])


def _sharpness(branch: Branch, points: FloatArray) -> Sharpness:
    """How fast x ↦ σ(θ^l X^l(x)) varies at most: |dX^l/dx| ≤ Π(1 + |θ^k| max|σ'|/L) over the levels k before l."""
    sigma = branch.activation
    steepest_slope = float(np.max(np.abs(sigma.pair(np.linspace(-8.0, 8.0, 4001))[1])))
    norms = np.max(np.linalg.norm(points.reshape(len(points), branch.depth, -1), axis=2), axis=0)
    growth = np.concatenate([[1.0], np.cumprod(1.0 + steepest_slope * norms / branch.depth)[:-1]])
    width = sigma.pole / max(float(np.max(norms * growth)), 1e-300)
    homogeneous = branch.dimension == 1 and sigma.name in ("relu", "identity")
    tolerance = _QUADRATURE_TOLERANCE.get(branch.dimension, 1e-4)
    return Sharpness(width, homogeneous or (branch.depth == 1 and not sigma.everywhere), sigma.kink and not homogeneous, tolerance)


def _rule(branch: Branch, law: InputLaw, domain: Domain, extremes: FloatArray) -> tuple[Rule, str]:
    """The samples, or a quadrature rule and its error: of E X^L(x; Θ)·X^L(x; Θ') over pairs, against a rule of twice the resolution.

    In several dimensions the bound on the sharpness asks for far too many inputs, so that coarser rules are tried first. Raises ValueError
    where those that are accurate have too many.
    """
    sharpness = _sharpness(branch, extremes)
    if law.exact:
        return law.rule(branch.dimension, sharpness), "the samples themselves"
    points = np.concatenate([domain.spread(np.random.default_rng(3).random((24, domain.dimension))), extremes[:64]])
    for factor in (1.0,) if branch.dimension == 1 else _COARSER:
        coarser = replace(sharpness, width=factor * min(sharpness.width, _WIDEST)) if branch.dimension > 1 else sharpness
        rule = law.rule(branch.dimension, coarser)
        if len(rule.weights) > _MOST_INPUTS:
            break
        finer = law.rule(branch.dimension, coarser.finer())
        if branch.dimension > 1 and len(finer.weights) == len(rule.weights):
            continue  # both are as coarse as rules can be, and their difference says nothing
        one, two = (_kernel(branch, found, points) for found in (rule, finer))
        error = float(np.max(np.abs(one - two)) / np.max(np.abs(two)))
        if error <= sharpness.tolerance or branch.dimension == 1:
            return rule, f"quadrature error {error:.0e}"
    raise ValueError(f"quadrature needs {len(rule.weights)} inputs or more, beyond {_MOST_INPUTS}; take samples, or `count` draws")


def _check_sizes(branch: Branch, points: FloatArray) -> None:
    inputs = np.concatenate([10.0 * np.eye(branch.dimension), -10.0 * np.eye(branch.dimension)])
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.max(np.abs(branch.outputs(points, inputs)))
    if not largest < 1e100:
        raise ValueError(f"outputs of {_levels(branch)} overflow on this domain; use a smaller box, fewer levels or another activation")


def _features(
    branch: Branch, rule: Rule, domain: Domain, extra: FloatArray, tolerance: float | None
) -> tuple[InterpolatedBranches | SampledBranches, FloatArray | None]:
    """Fewer features to the tolerance, where that pays, with an orthonormal basis of theirs (d Q, r) in √w y, or the inputs as they are."""
    why = f"{branch.axes} coordinates are too many to compress them"
    if branch.dimension == 1 or branch.axes <= _MOST_AXES_TO_COMPRESS or tolerance is not None:
        wanted = tolerance or _RANK_TOLERANCE.get(branch.axes, _LONG_TOLERANCE)
        features, basis = _interpolated(branch, rule, domain, extra, wanted)
        if 2 * features.rank < rule.nodes.size:
            return features, basis
        why = f"to {wanted:.0e} they have rank {features.rank}"
    described = f"all {len(rule.weights)} inputs as they are ({why})"
    return SampledBranches(branch, rule.nodes, np.sqrt(rule.weights), described), None


def _interpolated(
    branch: Branch, rule: Rule, domain: Domain, extra: FloatArray, tolerance: float
) -> tuple[InterpolatedBranches, FloatArray]:
    """Choose r of the outputs at the rule's inputs so that all the others follow from these, for parameters in ``domain`` or ``extra``.

    Returns Φ and ``basis`` (d Q, r) with √w X^L = basis · Φ. The probes are doubled until the error between them is below ``tolerance``.
    """
    count = least = _PROBES.get(domain.dimension, _MANY_PROBES)
    while True:
        probes = np.concatenate([probe_points(domain, count), _corners(domain), extra])
        nodes, mixing, basis = _chosen(branch, rule, probes, tolerance * least / count)
        error = _compression_error(branch, rule, domain, basis, InterpolatedBranches(branch, nodes, mixing, ""))
        if error <= tolerance or count >= 4 * least or 2 * len(mixing) >= rule.nodes.size:
            break
        count *= 2
    described = f"{len(rule.weights)} inputs compressed to rank {len(mixing)} (error {error:.0e})"
    return InterpolatedBranches(branch, nodes, mixing, described), basis


def _chosen(branch: Branch, rule: Rule, probes: FloatArray, tolerance: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Nodes, mixing and basis, by pivoted QR of √w X^L in the outputs and least squares at the probes.

    With √w X^L = fit · X^L(chosen), the basis and the mixing are the orthogonal and the triangular factor of the fit.
    """
    from scipy.linalg import solve_triangular

    d, count, root = branch.dimension, len(rule.weights), np.sqrt(rule.weights)
    some = np.arange(count)
    if d * count > _MOST_CANDIDATES:
        some = np.sort(np.random.default_rng(2).choice(count, _MOST_CANDIDATES // d, replace=False, p=root / np.sum(root)))
    values = np.tile(root[some], d)[:, None] * branch.table(probes, rule.nodes[some])
    picked = pivots(values, tolerance)
    held, upper = np.linalg.qr(values[picked].T)
    blocks = [(branch.table(probes, rule.nodes[k : k + _BLOCK]) @ held).reshape(d, -1, len(picked)) for k in range(0, count, _BLOCK)]
    seen = np.tile(root, d)[:, None] * np.concatenate(blocks, axis=1).reshape(d * count, -1)
    rows = picked // len(some) * count + some[picked % len(some)]
    fit = solve_triangular(upper, seen.T).T * root[rows % count]
    factor = triangular_factor(fit)
    inputs, place = np.unique(rows % count, return_inverse=True)
    mixing = np.zeros((len(rows), branch.dimension * len(inputs)))
    mixing[:, (rows // count) * len(inputs) + place] = factor
    return rule.nodes[inputs], mixing, solve_triangular(factor, fit.T, trans="T").T


def _compression_error(branch: Branch, rule: Rule, domain: Domain, basis: FloatArray, features: InterpolatedBranches) -> float:
    """Largest relative L²(μ) error at random points of the domain."""
    points = domain.spread(np.random.default_rng(1).random((100, domain.dimension)))
    whole = np.tile(np.sqrt(rule.weights), branch.dimension)[:, None] * branch.table(points, rule.nodes)
    return float(np.max(np.linalg.norm(whole - basis @ features.evaluate(points), axis=0)) / np.max(np.linalg.norm(whole, axis=0)))


def _target(
    features: Features, basis: FloatArray | None, rule: Rule, taught: _Taught | None, data: FloatArray | None
) -> tuple[FloatArray, float]:
    """The target in feature space and the constant, which is the part of the data that no network on Ω can reach."""
    if taught is not None:
        return features.moments(taught.points, taught.weights), 0.0
    assert data is not None
    scaled = np.ravel((np.sqrt(rule.weights)[:, None] * data).T)
    if basis is None:
        return scaled, 0.0
    target = np.asarray(basis.T @ scaled)
    rest = scaled - basis @ target
    return target, 0.5 * float(rest @ rest)


def _kernel(branch: Branch, rule: Rule, points: FloatArray) -> FloatArray:
    values = branch.table(points, rule.nodes)
    return np.asarray((values * np.tile(rule.weights, branch.dimension)[:, None]).T @ values)


def _student(branch: Branch, atoms: Atoms, inputs: FloatArray) -> FloatArray:
    return _network(branch, atoms.points, atoms.weights, inputs)


def _network(branch: Branch, points: FloatArray, weights: FloatArray, inputs: FloatArray) -> FloatArray:
    """Σ_j w_j X^L(x_q; Θ_j), (Q,) or (Q, d)."""
    found = branch.average(points, weights, np.ascontiguousarray(inputs)).reshape(branch.dimension, -1)
    return found[0] if branch.dimension == 1 else np.ascontiguousarray(found.T)


def _levels(branch: Branch) -> str:
    """For people."""
    return f"{branch.depth} residual level{'s' * (branch.depth > 1)} of {branch.dimension} state{'s' * (branch.dimension > 1)}"
