"""The wide residual network: E(ρ) = ½ E_x|X^L(x; ρ) − y(x)|² of one path whose levels are averages over many units.

ρ(θ, ε) is one probability measure on the coordinates of a d × d matrix θ and, along the last axis, which is frozen, the depth ε. Level
ℓ of L holds what lies in the ℓ-th of L equal parts of that axis, 1/L of all mass for the paper's network, and X⁰ = x,
X^{ℓ+1} = X^ℓ + ∫_{level ℓ}σ(θX^ℓ)ρ(dθ, dε), σ entry by entry [Mean Field Models for Neural Networks in Teacher-student Setting (2020),
section 3.2, (6)–(8), and the limit of many levels, (10)]. Masses are taken as they are: a level with more of it acts more.

Time is as in ρ_t = div_θ(ρ∇_θ δE/δρ) with δE/δρ(θ, ε) = E_x[A^{ℓ+1}·σ(θX^ℓ)] for ε on level ℓ and A^L = X^L − y, without a factor 1/L. So θ̇
is −NL ∂E/∂θ_j^ℓ for N units a level, and the paper's (8), whose variation by ρ^ℓ = Lρ carries 1/L, is at its time Lt where this is at t.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain, Grid
from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.examples import Examples
from mfpde.energy.features import Vector
from mfpde.energy.inputs import InputLaw
from mfpde.energy.network import GridTwoLayer
from mfpde.energy.networks import Neurons
from mfpde.energy.outputs import Outputs
from mfpde.energy.wide_inputs import WideInputs
from mfpde.energy.wide_resnet import Approximation, Block, Network, Pass, Slice, Units
from mfpde.measure import Atoms, Density, DensityFunction, Particles

SLABS = 32
"""Parts of the depth in which atoms of the limit of many levels are taken together, where they are at more depths than this."""
_TEACHER_DEPTHS = 512
"""At how many depths neurons of a teacher still act one after the other."""
_HEAVIEST = 2.0
"""By how much more than 1/32 of all mass the atoms may hold that are taken together."""
_SAME = 1e-9
"""Of the depth or of a part of it: what is nearer is at the same place."""
_TEACHER_CELLS = {1: 64, 4: 4}
"""Along each axis of θ, with Gauss nodes in every cell."""
_MOST_UNITS_TRIED = 256
_LEVELS_TRIED, _CELLS_TRIED, _MOST_AXES_TRIED, _ATOMS_TRIED = 8, 16, 3, 256
_UNEVEN = 0.02
_MOST_CORNERS = 64
_NEGLIGIBLE = 1e-14
_DIFFERENCE = 1e-5
"""A relative change of the density, of which quotients of central differences are right to about ten digits."""


@dataclass(frozen=True)
class Depth:
    """Where the levels are: ``levels`` equal parts of [lower, upper]; None in the limit of many levels, where atoms at up to ``apart``
    depths are not taken together."""

    lower: float
    upper: float
    levels: int | None
    apart: int = SLABS

    def parts(self, measure: Atoms) -> int:
        """Into how many equal parts a measure falls: the levels; in their limit the cells of a grid along the depth, or 32 slabs for atoms.
        Raises ValueError for a grid whose cells do not divide into the levels."""
        if not isinstance(measure, Density):
            return self.levels or SLABS
        cells = measure.grid.cells[-1]
        self.check(cells)
        return self.levels or cells

    def check(self, cells: int) -> None:
        """Raises ValueError for cells along the depth that do not divide into the levels."""
        if self.levels is not None and cells % self.levels:
            raise ValueError(f"the depth has {self.levels} levels, so that its cells must be a multiple of {self.levels}, got {cells}")

    def places(self, epsilon: FloatArray, parts: int) -> IntArray:
        """Which of the parts each depth (N,) lies in; a boundary belongs to the part behind it."""
        scaled = (epsilon - self.lower) * (parts / (self.upper - self.lower))
        return np.clip(np.floor(scaled + _SAME), 0, parts - 1).astype(np.int64)

    def edges(self, measure: Atoms) -> FloatArray:
        """Depths at which the blocks of a measure meet, ascending: those of equal parts, except for atoms in the limit of many levels.

        There atoms at up to ``apart`` depths act one after the other, with an empty block between any two; of more those in a slab are
        taken together, but no more than 2/32 of the mass at several depths."""
        if isinstance(measure, Density) or self.levels is not None:
            return self._even(self.parts(measure))
        order = np.argsort(measure.points[:, -1], kind="stable")
        epsilon, near = measure.points[order, -1], _SAME * (self.upper - self.lower)
        starts = np.flatnonzero(np.concatenate([[True], np.diff(epsilon) > near]))
        if len(starts) <= self.apart:
            ends = np.append(starts[1:], len(epsilon)) - 1
            return np.ravel(np.stack([epsilon[starts] - 0.5 * near, epsilon[ends] + 0.5 * near], axis=1))
        masses = np.add.reduceat(np.abs(measure.weights)[order], starts)
        return np.sort(np.concatenate([self._even(SLABS), self._cuts(epsilon[starts], masses) - 0.5 * near]))

    def _even(self, parts: int) -> FloatArray:
        return np.asarray(self.lower + (np.arange(1, parts) - _SAME) * ((self.upper - self.lower) / parts), dtype=float)

    def _cuts(self, epsilon: FloatArray, masses: FloatArray) -> FloatArray:
        """The depths among ``epsilon`` (K,) at which heavy slabs are divided, into parts of about equal ``masses``."""
        slab, heaviest = self.places(epsilon, SLABS), _HEAVIEST * float(np.sum(masses)) / SLABS
        held = np.bincount(slab, weights=masses, minlength=SLABS)
        pieces = np.maximum(np.ceil(held / max(heaviest, 1e-300) * (1.0 - _SAME)), 1.0)
        before = (np.cumsum(held) - held)[slab]
        middle = np.cumsum(masses) - 0.5 * masses - before
        piece = np.floor(middle * (pieces / np.where(held > 0.0, held, 1.0))[slab] + _SAME)
        return np.asarray(epsilon[1:][(np.diff(piece) != 0.0) & (np.diff(slab) == 0)])


@dataclass(frozen=True, eq=False)
class _Sorted:
    """Points block after block: ``order`` (N,), where each block starts (blocks + 1,), and the matrices in that order, (N, d, d)."""

    order: IntArray
    starts: IntArray
    theta: FloatArray

    @staticmethod
    def of(points: FloatArray, edges: FloatArray, dimension: int) -> "_Sorted":
        """Of points (N, d² + 1), in blocks that meet at the ``edges``."""
        places = np.searchsorted(edges, points[:, -1], side="right")
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], np.arange(len(edges) + 2))
        return _Sorted(order, starts, points[order, :-1].reshape(-1, dimension, dimension))

    @property
    def slices(self) -> Iterator[slice]:
        """The levels."""
        return (slice(a, b) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True))

    def blocks(self, weights: FloatArray) -> list[Block]:
        """The units of each level."""
        sorted_weights = weights[self.order]
        return [Block(self.theta[part], sorted_weights[part]) for part in self.slices]

    def values(self, units: Units, slices: list[Slice]) -> FloatArray:
        """A first variation at the points, (N,)."""
        found = np.empty(len(self.order))
        for part, level in zip(self.slices, slices, strict=True):
            found[self.order[part]] = level.values(units, self.theta[part])
        return found

    def slopes(self, units: Units, slices: list[Slice]) -> FloatArray:
        """Its gradient, (N, d² + 1), with zeros along the depth."""
        axes = units.dimension**2
        found = np.zeros((len(self.order), axes + 1))
        for part, level in zip(self.slices, slices, strict=True):
            found[self.order[part], :-1] = level.slopes(units, self.theta[part]).reshape(-1, axes)
        return found


@dataclass(frozen=True, eq=False)
class WideResNet:
    """½ Σ_q μ_q|X^L(x_q; ρ) − y_q|² with ``nodes`` x (Q, d), ``masses`` μ (Q,) and ``target`` y (Q, d). Build it with ``wide_resnet``.

    ``student_at`` and ``teacher_at`` give X^L and y at inputs (Q, d), for pictures and checks: (Q,) where d = 1, else (Q, d). ``data``: the
    inputs and targets, where they are samples; ``examples`` is where minibatches come from.
    """

    network: Network
    depth: Depth
    nodes: FloatArray
    masses: FloatArray
    target: FloatArray
    description: str
    teacher_at: Callable[[FloatArray], FloatArray] | None = None
    data: tuple[FloatArray, FloatArray] | None = None
    examples: Examples | None = None
    temperature: float = 0.0
    _inputs: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_inputs", np.ascontiguousarray(self.nodes.T))

    def output(self, measure: Atoms, inputs: FloatArray) -> FloatArray:
        """X^L at inputs (Q, d), (Q,) where d = 1, else (Q, d)."""
        return _output(self.network, self.depth, measure, inputs)

    def student_at(self, atoms: Atoms, inputs: FloatArray) -> FloatArray:
        """As ``output``."""
        return self.output(atoms, inputs)

    def value(self, measure: Atoms) -> float:
        """½ Σ_q μ_q|X^L − y|²."""
        return self._loss(self._run(measure)[0].output)

    def first_variation(self, measure: Atoms, at: FloatArray) -> FloatArray:
        """δE/δρ at points (M, d² + 1), as (M,)."""
        made, _, edges = self._run(measure)
        found = _Sorted.of(at, edges, self.network.units.dimension)
        return found.values(self.network.units, made.adjoint(self._steering(made.output)))

    def gradient(self, measure: Atoms, at: FloatArray) -> FloatArray:
        """∇δE/δρ at points (M, d² + 1), as (M, d² + 1); 0 along the depth, in which nothing moves."""
        made, _, edges = self._run(measure)
        found = _Sorted.of(at, edges, self.network.units.dimension)
        return found.slopes(self.network.units, made.adjoint(self._steering(made.output)))

    def value_and_gradient(self, measure: Atoms) -> tuple[float, FloatArray]:
        """E(ρ) and its gradient at the measure's own points, with one pass."""
        made, held, _ = self._run(measure)
        return self._loss(made.output), held.slopes(self.network.units, made.adjoint(self._steering(made.output)))

    def square_gap(self, one: Atoms, other: Atoms) -> float:
        """E_x|X^L(ρ₁) − X^L(ρ₂)|², how far apart what two measures compute is."""
        apart = self._run(one)[0].output - self._run(other)[0].output
        return float(np.sum(self.masses * np.sum(apart * apart, axis=0)))

    @property
    def layers(self) -> int:
        """The number of levels, between which atoms must be shared out, to first order too, so that all flows start alike; 1 without."""
        return self.depth.levels or 1

    def remark(self, initial: DensityFunction | Particles, domain: Domain) -> str:
        """A warning where the levels do not hold equally much of the initial measure, else nothing."""
        layers = self.layers if self.network.deep else 1
        if isinstance(initial, Particles):
            atoms = initial
        elif domain.dimension > _MOST_AXES_TRIED:
            atoms = initial.quantiles(_ATOMS_TRIED * layers)
        else:
            atoms = initial.grid_atoms(_CELLS_TRIED**domain.dimension, layers)
        masses = np.bincount(self.depth.places(atoms.points[:, -1], layers), weights=atoms.weights, minlength=layers)
        low, high = layers * float(np.min(masses)), layers * float(np.max(masses))
        if high - low < _UNEVEN:
            return ""
        return f"levels hold {low:.3g} to {high:.3g} times 1/{layers} of the mass, where those of the paper hold equally much"

    @property
    def size(self) -> int | None:
        """The number n of samples that are the inputs; None where they are a law."""
        return None if self.examples is None else self.examples.size

    def draw(self, generator: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
        """``count`` independent inputs (count, d) and their targets (count,) or (count, d). Raises ValueError for a count below 1."""
        return self._known.draw(generator, count)

    def rows(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """The samples with these ``indices`` (count,), as inputs and targets. Raises ValueError for other laws."""
        return self._known.rows(indices)

    def batch(self, inputs: FloatArray, targets: FloatArray) -> "WideResNet":
        """The energy of a minibatch: inputs (B, d), targets (B,) or (B, d). Raises ValueError for shapes that do not fit."""
        dimension = self.network.units.dimension
        wanted = (len(inputs),) if dimension == 1 else (len(inputs), dimension)
        if inputs.shape != (len(inputs), dimension) or targets.shape != wanted or not len(inputs):
            raise ValueError(f"a batch needs inputs (B, {dimension}) and targets {wanted}, got {inputs.shape} and {targets.shape}")
        masses = np.full(len(inputs), 1.0 / len(inputs))
        return replace(self, nodes=inputs, masses=masses, target=targets.reshape(inputs.shape), description=f"{len(inputs)} inputs")

    def on(self, grid: Grid) -> "GridWideResNet | GridTwoLayer":
        """For the cells of a box whose last axis is the depth; to first order as a two-layer network of θ alone, which is quadratic.
        Raises ValueError for cells that do not divide into the levels."""
        self.depth.check(grid.cells[-1])
        return GridWideResNet(self, grid) if self.network.deep else self._shallow(grid)

    def _shallow(self, grid: Grid) -> GridTwoLayer:
        """Features √μ σ(θx) of y − x, by their singular vectors where these are fewer."""
        theta, root = _matrices(grid, self.network.units.dimension), np.sqrt(self.masses)
        features = (root[:, None] * self.network.units.table(theta, self._inputs)).reshape(-1, len(theta))
        wanted = np.ravel(root * (self._wanted - self._inputs))
        left, sizes, right = np.linalg.svd(features, full_matrices=False)
        kept = sizes > _NEGLIGIBLE * sizes[0]
        target = left[:, kept].T @ wanted
        rest = wanted - left[:, kept] @ target
        matrix = np.repeat(sizes[kept, None] * right[kept], grid.cells[-1], axis=1)
        return GridTwoLayer(np.ascontiguousarray(matrix), target, 0.5 * float(rest @ rest), grid.weight)

    @property
    def _known(self) -> Examples:
        if self.examples is None:
            raise ValueError("this energy does not know where its inputs come from; build it with wide_resnet")
        return self.examples

    def _run(self, measure: Atoms) -> tuple[Pass, _Sorted, FloatArray]:
        edges = _edges(self.network, self.depth, measure)
        held = _Sorted.of(measure.points, edges, self.network.units.dimension)
        return self.network.forward(held.blocks(measure.weights), self._inputs), held, edges

    @cached_property
    def _wanted(self) -> FloatArray:
        return np.ascontiguousarray(self.target.T)

    def _loss(self, output: FloatArray) -> float:
        apart = output - self._wanted
        return 0.5 * float(np.sum(self.masses * np.sum(apart * apart, axis=0)))

    def _steering(self, output: FloatArray) -> FloatArray:
        """A^L with the masses of the inputs, (d, Q)."""
        return self.masses * (output - self._wanted)


class GridWideResNet:
    """The energy on one grid: every level has the same matrices, so that the cells of a level are summed first."""

    temperature = 0.0

    def __init__(self, energy: WideResNet, grid: Grid) -> None:
        cells = grid.cells[-1]
        self.energy = energy
        self._shape = (grid.size // cells, energy.depth.levels or cells, -1)
        self._volume = grid.cell_volume
        self._theta = _matrices(grid, energy.network.units.dimension)

    def _pass(self, rho: FloatArray) -> Pass:
        masses = np.ascontiguousarray(np.sum(rho.reshape(self._shape), axis=2).T) * self._volume
        return self.energy.network.forward([Block(self._theta, level) for level in masses], self.energy._inputs)

    def value(self, rho: FloatArray) -> float:
        """½ Σ_q μ_q|X^L − y|²."""
        return self.energy._loss(self._pass(rho).output)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add δE/δρ; returns the energy."""
        made = self._pass(rho)
        slices, units = made.adjoint(self.energy._steering(made.output)), self.energy.network.units
        found = np.stack([level.values(units, self._theta) for level in slices], axis=1)
        shaped = xi.reshape(self._shape)
        np.add(shaped, found[:, :, None], out=shaped)
        return self.energy._loss(made.output)

    def add_curvature(self, rho: FloatArray, change: FloatArray, out: FloatArray) -> None:
        """Add the derivative of δE/δρ along ``change``, by the difference of two first variations."""
        size = float(np.sum(np.abs(change)))
        if not size > 0.0:
            return
        step = _DIFFERENCE * float(np.sum(np.abs(rho))) / size
        ahead, behind = np.zeros_like(rho), np.zeros_like(rho)
        self.add_drift(rho + step * change, ahead)
        self.add_drift(rho - step * change, behind)
        np.add(out, (ahead - behind) / (2.0 * step), out=out)


def _matrices(grid: Grid, dimension: int) -> FloatArray:
    """The matrices at the centres of the cells of one level, (n, d, d)."""
    return np.ascontiguousarray(grid.centers[:: grid.cells[-1], :-1]).reshape(-1, dimension, dimension)


def _edges(network: Network, depth: Depth, measure: Atoms) -> FloatArray:
    """Where the blocks of a measure meet; it is one block where its depth does not matter."""
    return depth.edges(measure) if network.deep else np.zeros(0)


def _output(network: Network, depth: Depth, measure: Atoms, inputs: FloatArray) -> FloatArray:
    held = _Sorted.of(measure.points, _edges(network, depth, measure), network.units.dimension)
    found = network.forward(held.blocks(measure.weights), np.ascontiguousarray(inputs.T)).output
    return found[0] if network.units.dimension == 1 else np.ascontiguousarray(found.T)


@dataclass(frozen=True, eq=False)
class _Taught:
    """A teacher: the atoms of its own measure, seen by a network."""

    network: Network
    depth: Depth
    atoms: Particles

    def by(self, units: Units) -> "_Taught":
        """The same computed by these units."""
        return replace(self, network=replace(self.network, units=units))

    def at(self, inputs: FloatArray) -> FloatArray:
        """y at inputs (Q, d), (Q,) or (Q, d)."""
        return _output(self.network, self.depth, self.atoms, inputs)


def wide_resnet(
    domain: Domain,
    activation: str,
    inputs: InputLaw,
    teacher: Particles | Neurons | DensityFunction | FloatArray,
    *,
    dimension: int = 1,
    depth: int | Literal["continuous"],
    approximation: Approximation = "exact",
    teacher_approximation: Approximation = "exact",
) -> WideResNet:
    """The energy of a wide residual network on ``domain``, whose axes are those of the d × d matrix θ, row after row, and, last and frozen,
    the depth; d = ``dimension`` is that of inputs, states and outputs.

    ``depth``: the number L of levels, or "continuous" for the limit L → ∞, dX/dε = ∫σ(θX)ρ(dθ|ε): there a grid counts as constant in each
    of its cells along the depth, atoms at up to 32 depths (neurons of a teacher at up to 512) act one after the other and others are taken
    together in 32 equal slabs, and each such part is crossed by steps of the classical Runge–Kutta method, as many as its mass and the
    largest |θ| of the domain ask for. ``approximation``: the network itself, or its expansion to "first" or "second" order in θ, which is
    one for σ(0) = 0. ``teacher``: units as points (θ, ε) with weights of any sign, 1/L in all on each level for a network like the
    students; a density on the domain; or data y (n,) or (n, d) that belong to samples. y is computed by the network itself whatever the
    approximation of the student, so that losses are losses of one problem; ``teacher_approximation`` sets that of the teacher, and with the
    student's own the teacher is within reach (Theorem 4).
    Raises ValueError for an unknown activation, shapes that do not fit, a last axis that is not frozen, a law that needs too many inputs,
    a domain on which X^L is too large for the arithmetic, and relu to second order where d > 1, whose σ' jumps.
    """
    sigma = _checked(domain, activation, dimension, depth, (approximation, teacher_approximation))
    levels = None if depth == "continuous" else int(depth)
    rare, axis = Units(sigma, dimension, compiled=False), domain.axes[-1]
    box = float(np.linalg.norm(np.maximum(np.abs(domain.lower), np.abs(domain.upper))[:-1]))
    network = Network(Units(sigma, dimension), approximation, levels is None, box)
    where = Depth(axis.lower, axis.upper, levels)
    taught, data = _teacher(teacher, domain, Network(rare, teacher_approximation, levels is None, box), where)
    teacher_at = None if taught is None else taught.by(network.units).at
    tried = taught.at if taught is not None and len(taught.atoms.weights) <= _MOST_UNITS_TRIED else None
    model = replace(network, units=rare), levels or _LEVELS_TRIED, _extremes(domain, taught), domain, tried
    rule, note = WideInputs(*model).rule(inputs)
    if data is not None and data.shape != (len(rule.weights), dimension):
        raise ValueError(f"the data are {data.shape[0]} targets of {data.shape[1]} numbers, for {len(rule.weights)} inputs of {dimension}")
    target = data if taught is None else taught.at(rule.nodes).reshape(-1, dimension)
    assert target is not None
    held = data if data is None or dimension > 1 else data[:, 0]
    examples = Examples(sigma, Vector(), inputs, dimension, False, teacher_at, held, Outputs(False, dimension))
    words = _described(network, levels, note, teacher_approximation if taught is not None else None)
    given = None if held is None else (rule.nodes, held)
    return WideResNet(network, where, rule.nodes, rule.weights, target, words, teacher_at, given, examples)


def _checked(
    domain: Domain, activation: str, dimension: int, depth: int | str, approximations: tuple[Approximation, Approximation]
) -> Activation:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    for name in approximations:
        if name not in ("exact", "first", "second"):
            raise ValueError(f"approximation must be one of exact, first, second, got {name!r}")
    if dimension < 1:
        raise ValueError(f"states need at least one dimension, got {dimension}")
    if depth != "continuous" and (isinstance(depth, str) or depth < 1):
        raise ValueError(f'depth must be a number of levels, at least 1, or "continuous", got {depth!r}')
    if domain.box is not domain or domain.dimension != dimension**2 + 1 or not domain.axes[-1].frozen:
        axes = "1 axis" if dimension == 1 else f"{dimension**2} axes"
        found = ", ".join(domain.names)
        raise ValueError(
            f"a wide_resnet of {dimension} x {dimension} matrices needs {axes} of θ and a last, frozen axis, the depth; got {found}"
        )
    if domain.periodic.any():
        raise ValueError("residual networks are not periodic in their parameters, but an axis is; give it ends")
    if activation == "relu" and dimension > 1 and "second" in approximations:
        raise ValueError("to second order relu has no gradient in several dimensions, as its slope jumps; use a smooth activation")
    return ACTIVATIONS[activation]


def _teacher(
    teacher: Particles | Neurons | DensityFunction | FloatArray, domain: Domain, network: Network, depth: Depth
) -> tuple[_Taught | None, FloatArray | None]:
    """The teacher's units, a density by Gauss nodes in many cells; or the data, (n, d)."""
    if isinstance(teacher, np.ndarray):
        return None, teacher[:, None] if teacher.ndim == 1 else teacher
    given = not isinstance(teacher, DensityFunction)
    if isinstance(teacher, DensityFunction):
        axes = domain.dimension - 1
        if axes not in _TEACHER_CELLS:
            raise ValueError(f"a teacher density needs at most 2 x 2 matrices, got {axes} coordinates of θ; use neurons or data")
        teacher = teacher.gauss_atoms((*(_TEACHER_CELLS[axes],) * axes, depth.levels or SLABS))
    weights = teacher.weights if isinstance(teacher, Particles) else teacher.weights[:, 0]
    if teacher.points.shape[1] != domain.dimension or weights.size != teacher.weights.size:
        raise ValueError(f"a teacher needs units of {domain.dimension} coordinates (θ, ε) with a weight each, got {teacher.points.shape}")
    epsilon = teacher.points[:, -1]
    if not ((epsilon >= depth.lower) & (epsilon <= depth.upper)).all():
        raise ValueError(f"the depths of a teacher's units must lie in [{depth.lower:g}, {depth.upper:g}], where the frozen axis is")
    if given:
        reach = float(np.max(np.linalg.norm(teacher.points[:, :-1], axis=1)))
        network, depth = replace(network, reach=reach), replace(depth, apart=_TEACHER_DEPTHS)
    return _Taught(network, depth, Particles(teacher.points, weights)), None


def _extremes(domain: Domain, taught: _Taught | None) -> FloatArray:
    """Where matrices are largest: corners of the box, at most 64, and a teacher's that lie outside, (n, d²)."""
    low, high = domain.lower[:-1], domain.upper[:-1]
    signs = np.random.default_rng(5).random((_MOST_CORNERS, low.size)) < 0.5
    if 2**low.size <= _MOST_CORNERS:
        signs = np.stack([s.ravel() for s in np.meshgrid(*[[False, True]] * low.size, indexing="ij")], axis=1)
    larger = np.where(np.abs(low) > np.abs(high), low, high)
    corners = np.concatenate([np.where(signs, high, low), larger[None]])
    if taught is None:
        return corners
    points = taught.atoms.points
    return np.concatenate([corners, points[~domain.contains(points), :-1]])


def _described(network: Network, levels: int | None, note: str, taught: Approximation | None) -> str:
    """For people: levels, approximation, inputs, and what an expansion needs of σ."""
    where = "continuous depth" if levels is None else f"{levels} level{'s' * (levels > 1)} of mass 1/{levels} each"
    order = {"exact": "", "first": ", expanded to first order in θ", "second": ", expanded to second order in θ"}
    offset = float(network.units.activation.value(np.zeros(1))[0])
    expanded = network.approximation != "exact" and not math.isclose(offset, 0.0, abs_tol=1e-15)
    warned = f"; no expansion in θ, since σ(0) = {offset:g} and not 0" if expanded else ""
    own = {None: "", "exact": "", "first": ", teacher to first order", "second": ", teacher to second order"}
    states = f"{network.units.dimension} state{'s' * (network.units.dimension > 1)}"
    return f"{where}, {states}{order[network.approximation]}{own[taught]}, {note}{warned}"
