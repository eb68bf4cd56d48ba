"""Laws of the network's inputs x ∈ R^D and quadrature rules for expectations over them.

A rule must resolve x ↦ σ(x·θ) for every |θ| up to a bound; ``Sharpness`` says how fast that function varies.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray

_TAIL = 8.5
_PANEL_NODES = 20
_MOST_ANGLES = 2048
_MOST_ON_SPHERE = 256
_KINK_PANELS = {1: 64, 2: 4, 3: 4}
_KINK_ANGLES, _KINK_NODES = {True: 256, False: 128}, {True: 3, False: 6}
_KINK_ON_SPHERE, _KINK_ON_ONE_SPHERE = 72, 128
"""For functions with kinks, of which rules converge slowly: panels by dimension; angles in the plane, and nodes of a panel in space, for
kinks through the origin and off it; angles about an axis in space. Errors are some 1e-5 in the plane and 1e-4 in space, or 1e-3 with kinks
off the origin; 1e-10 would take millions of nodes."""


@dataclass(frozen=True)
class Sharpness:
    """How fast x ↦ σ(x·θ) varies: ``width`` is the distance of its nearest singularity from real x along a line (infinite for
    polynomials), ``centred`` says that the function varies near x·θ = 0 only, with no offset, ``kink`` that a derivative jumps
    there, ``tolerance`` is the wanted relative accuracy, ``refine`` multiplies all numbers of nodes that have a bound;
    ``homogeneous``: that it is proportional to |x| along rays, so that of |x| only E|x|² matters."""

    width: float
    centred: bool
    kink: bool
    tolerance: float
    refine: int = 1
    homogeneous: bool = False

    def finer(self) -> "Sharpness":
        """The same function seen by a rule of twice the resolution, for error estimates."""
        width = min(self.width, 1.0e3)
        return Sharpness(0.5 * width, self.centred, self.kink, self.tolerance**1.5, 2 * self.refine, self.homogeneous)


@dataclass(frozen=True, eq=False)
class Rule:
    """Nodes (Q, D) and weights (Q,) that sum to one."""

    nodes: FloatArray
    weights: FloatArray


class InputLaw(Protocol):
    """A probability law on R^D."""

    @property
    def isotropic(self) -> bool:
        """Whether the law is invariant under rotations."""

    @property
    def exact(self) -> bool:
        """Whether ``rule`` is the law itself (samples), not an approximation of it."""

    def rule(self, dimension: int, sharpness: Sharpness) -> Rule:
        """A quadrature rule for products of two such functions. Raises ValueError for a dimension that the law does not have."""

    def second_moment(self, dimension: int) -> float:
        """E|x|²."""

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, D). Raises ValueError for a dimension that the law does not have."""


@dataclass(frozen=True)
class Normal:
    """x = scale · N(0, I). ``scale`` > 0."""

    scale: float = 1.0
    isotropic = True
    exact = False

    def rule(self, dimension: int, sharpness: Sharpness) -> Rule:
        """Polar: composite Gauss–Legendre in the radius, trapezoidal or product rules in the angles that follow the radius."""
        if dimension > 3:
            raise ValueError(f"quadrature for normal inputs knows 1, 2 or 3 of them, got {dimension}; use samples")
        return _spherical(*self.radial(dimension, sharpness), dimension, sharpness)

    def radial(self, dimension: int, sharpness: Sharpness) -> tuple[FloatArray, FloatArray]:
        """A rule for |x|: nodes and weights, (S,) each."""
        if sharpness.homogeneous:
            return np.array([self.scale * math.sqrt(dimension)]), np.ones(1)
        width = sharpness.width / self.scale
        radius, weight = _half_line(_TAIL, width, sharpness, dimension)
        weight = weight * np.exp(-0.5 * radius**2) * radius ** (dimension - 1)
        kept = weight > 1e-3 * sharpness.tolerance**2 * weight.max()
        return self.scale * radius[kept], weight[kept] / np.sum(weight[kept])

    def second_moment(self, dimension: int) -> float:
        """E|x|² = D scale²."""
        return dimension * self.scale**2

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, D)."""
        return self.scale * generator.standard_normal((count, dimension))


@dataclass(frozen=True)
class Circle:
    """x uniform on the circle |x| = scale in R². ``scale`` > 0."""

    scale: float = 1.0
    isotropic = True
    exact = False

    def rule(self, dimension: int, sharpness: Sharpness) -> Rule:
        """Equal weights at equal angles."""
        _check_pairs(dimension)
        return _spherical(*self.radial(2, sharpness), 2, replace(sharpness, homogeneous=True))

    def radial(self, dimension: int, sharpness: Sharpness) -> tuple[FloatArray, FloatArray]:
        """A rule for |x|: one node and its weight, (1,) each."""
        return np.array([self.scale]), np.ones(1)

    def second_moment(self, dimension: int) -> float:
        """E|x|² = scale²."""
        return self.scale**2

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, 2)."""
        _check_pairs(dimension)
        angle = 2.0 * math.pi * generator.random(count)
        return self.scale * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True)
class Uniform:
    """x uniform on the box [-scale, scale]^D. ``scale`` > 0."""

    scale: float = 1.0
    isotropic = False
    exact = False

    def rule(self, dimension: int, sharpness: Sharpness) -> Rule:
        """Tensor product of composite Gauss–Legendre rules, graded towards zero in 1-D."""
        if dimension > 3:
            raise ValueError(f"quadrature for uniform inputs knows 1, 2 or 3 of them, got {dimension}; use samples")
        if dimension == 1:
            half, weight = _half_line(self.scale, sharpness.width, sharpness)
        else:
            most = 24 if dimension == 2 else 4
            count = min(max(1, math.ceil(0.3 * self.scale / sharpness.width)), most * sharpness.refine)
            half, weight = _composite(np.linspace(0.0, self.scale, count + 1), 16 if dimension == 2 else 12)
        line = np.concatenate([-half[::-1], half])
        share = np.concatenate([weight[::-1], weight]) / (2.0 * np.sum(weight))
        nodes = np.stack([c.ravel() for c in np.meshgrid(*[line] * dimension, indexing="ij")], axis=1)
        weights = np.ones(1)
        for _ in range(dimension):
            weights = np.multiply.outer(weights, share).ravel()
        return Rule(nodes, weights)

    def second_moment(self, dimension: int) -> float:
        """E|x|² = D scale²/3."""
        return dimension * self.scale**2 / 3.0

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, D)."""
        return generator.uniform(-self.scale, self.scale, (count, dimension))


@dataclass(frozen=True, eq=False)
class Samples:
    """The empirical law of ``points`` (n, D), each with weight 1/n."""

    points: FloatArray
    isotropic = False
    exact = True

    def rule(self, dimension: int, sharpness: Sharpness) -> Rule:
        """The samples themselves."""
        self._check(dimension)
        return Rule(self.points, np.full(len(self.points), 1.0 / len(self.points)))

    def second_moment(self, dimension: int) -> float:
        """Mean of |x|²."""
        return float(np.mean(np.sum(self.points**2, axis=1)))

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Rows drawn with replacement, (count, D)."""
        self._check(dimension)
        return self.points[generator.integers(len(self.points), size=count)]

    def _check(self, dimension: int) -> None:
        if self.points.shape[1] != dimension:
            raise ValueError(f"the samples have {self.points.shape[1]} columns, but the parameters take {dimension} inputs")


def _check_pairs(dimension: int) -> None:
    if dimension != 2:
        raise ValueError(f"inputs on the circle are pairs, but the parameters take {dimension} inputs")


def with_constant(rule: Rule) -> Rule:
    """The rule with a last input that is always 1, so that the last parameter is an offset."""
    return Rule(np.hstack([rule.nodes, np.ones((len(rule.nodes), 1))]), rule.weights)


def _composite(edges: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Gauss–Legendre nodes and weights on each panel between ``edges``, (panels · count,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    return np.ravel(middle + half * nodes), np.ravel(half * weights)


def _half_line(end: float, width: float, sharpness: Sharpness, dimension: int = 1) -> tuple[FloatArray, FloatArray]:
    """A composite rule on [0, end] for functions with singularities ``width`` off the axis: panels double away from zero if
    the singularities are centred there, and are all as narrow as twice ``width`` otherwise; none is longer than 2."""
    nodes = _KINK_NODES[sharpness.centred] if sharpness.kink and dimension == 3 else _PANEL_NODES
    widest = min(2.0, end) / sharpness.refine
    if not sharpness.centred:
        narrow = min(widest, max(2.0 * width, end / (2000.0 * sharpness.refine)))
        kinked = _KINK_PANELS[dimension] * sharpness.refine if sharpness.kink else 1
        count = kinked if sharpness.kink and dimension > 1 else max(math.ceil(end / narrow), kinked)
        return _composite(np.linspace(0.0, end, count + 1), nodes)
    edges = [0.0, min(max(width, end * 2.0**-20), widest)]
    while edges[-1] < end:
        edges.append(min(edges[-1] + min(edges[-1], widest), end))
    return _composite(np.array(edges), nodes)


def angle_count(radius: float, weight: float, sharpness: Sharpness) -> int:
    """Equal angles that integrate an angular product with error ``tolerance`` of the whole, at a radius of this weight."""
    if sharpness.kink:
        return (_MOST_ANGLES if sharpness.homogeneous else _KINK_ANGLES[sharpness.centred]) * sharpness.refine
    digits = math.log(10.0 / sharpness.tolerance * min(max(100.0 * weight, 1e-12), 1.0))
    rate = math.asinh(min(sharpness.width / max(radius, 1e-300), 1e3))
    return 4 * min(math.ceil(max(digits, 1.0) / rate / 4.0) + 3, _MOST_ANGLES * sharpness.refine)


def _spherical(radii: FloatArray, weights: FloatArray, dimension: int, sharpness: Sharpness) -> Rule:
    """A rule for the law of radius · (uniform direction), radii with the given weights."""
    if dimension == 1:
        nodes = np.concatenate([-radii[::-1], radii])[:, None]
        return Rule(nodes, 0.5 * np.concatenate([weights[::-1], weights]))
    ring = _circle_of_angles if dimension == 2 else _sphere_of_angles
    parts = [ring(r, w, sharpness) for r, w in zip(radii.tolist(), weights.tolist(), strict=True)]
    return Rule(np.concatenate([p.nodes for p in parts]), np.concatenate([p.weights for p in parts]))


def _circle_of_angles(radius: float, weight: float, sharpness: Sharpness) -> Rule:
    count = angle_count(radius, weight, sharpness)
    angle = 2.0 * math.pi * (np.arange(count) + 0.5) / count
    return Rule(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(count, weight / count))


def _sphere_of_angles(radius: float, weight: float, sharpness: Sharpness) -> Rule:
    kinked = _KINK_ON_ONE_SPHERE if sharpness.homogeneous else _KINK_ON_SPHERE
    most = (kinked if sharpness.kink else _MOST_ON_SPHERE) * sharpness.refine
    heights, shares = np.polynomial.legendre.leggauss(min(angle_count(radius, weight, sharpness), most) // 2)
    parts = []
    for height, share in zip(heights.tolist(), shares.tolist(), strict=True):
        reach = math.sqrt(1.0 - height * height)
        count = min(angle_count(radius * reach, weight, sharpness), most)
        angle = 2.0 * math.pi * (np.arange(count) + 0.5) / count
        nodes = radius * np.stack([reach * np.cos(angle), reach * np.sin(angle), np.full(count, height)], axis=1)
        parts.append(Rule(nodes, np.full(count, 0.5 * share * weight / count)))
    return Rule(np.concatenate([p.nodes for p in parts]), np.concatenate([p.weights for p in parts]))
