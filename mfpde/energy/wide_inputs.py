"""Quadrature over the inputs of wide residual networks, whose features change from level to level, so that few inputs must do.

In one dimension x = w sinh t turns singularities near x = 0, as those of steep tanh units, into ones about as far as 1 from real t, where
the trapezoidal rule converges geometrically; uniform inputs, and kinks at 0, take Gauss–Legendre nodes in t on either side of 0, and
several dimensions products of rules. A rule is chosen by trial: the smallest that agrees with one of twice the resolution.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.energy.inputs import Circle, InputLaw, Normal, Rule, Sharpness, Uniform
from mfpde.energy.wide_resnet import Block, Network

_TOLERANCE = {1: 1e-10, 2: 1e-6, 3: 1e-4}
_TAIL = 8.5
_MOST_INPUTS, _MOST_GAUSS = 20_000, 400
_MOST_TRIALS, _MOST_GROWTH = 24, 12.0
_WIDER = (16.0, 4.0, 1.0)
"""By how much singularities may lie farther away than the bound says."""
_LOOSE = 100.0
"""How far from the tolerance the last rule that is affordable may be; kinks need that."""


class _Tried(NamedTuple):
    """A rule and its relative error."""

    error: float
    rule: Rule


@dataclass(frozen=True, eq=False)
class WideInputs:
    """For a ``network`` of ``levels`` blocks with matrices in ``domain`` or among ``extremes`` (n, d²), and for the ``teacher_at``."""

    network: Network
    levels: int
    extremes: FloatArray
    domain: Domain
    teacher_at: Callable[[FloatArray], FloatArray] | None

    def rule(self, law: InputLaw) -> tuple[Rule, str]:
        """The samples, or a rule and its error: of E X^L·X^L over pairs of random and extreme networks, against twice the resolution.

        Raises ValueError where accurate rules have too many inputs, or the outputs overflow.
        """
        dimension = self.network.units.dimension
        self._check_sizes()
        if law.exact:
            return law.rule(dimension, Sharpness(1.0, True, False, 1e-10)), f"{_samples(law)} samples themselves"
        tolerance = _TOLERANCE.get(dimension, 1e-4)
        most, best = _MOST_INPUTS, _Tried(np.inf, Rule(np.zeros((0, dimension)), np.zeros(0)))
        for factor in _WIDER if dimension == 1 else (1.0,):
            found = self._searched(law, factor * self._width(), tolerance, most)
            best = found if found.error < max(best.error, tolerance) else best
            most = min(most, len(found.rule.weights)) if found.error <= tolerance else most
        if best.error > _LOOSE * tolerance:
            reached = f"an error of {best.error:.0e} with {len(best.rule.weights)} inputs"
            raise ValueError(f"quadrature over the inputs reaches {reached}, not {tolerance:.0e}; take samples, or `count` draws")
        return best.rule, f"{len(best.rule.weights)} inputs by quadrature, error {best.error:.0e}"

    def _searched(self, law: InputLaw, width: float, tolerance: float, most: int) -> "_Tried":
        """The first of finer and finer rules that is accurate, or else the best of those with at most so many inputs."""
        units, tried = self.network.units, list[tuple[Rule, FloatArray]]()
        best = _Tried(np.inf, Rule(np.zeros((0, 1)), np.zeros(0)))
        for found in _rules(law, units.dimension, width, units.activation.kink):
            if len(found.weights) > 2 * most:
                break
            tried.append((found, self._kernel(found)))
            if len(tried) < 4:
                continue
            (coarse, seen), (_, finer) = tried[-4], tried[-1]
            error = float(np.max(np.abs(seen - finer)) / np.max(np.abs(finer)))
            if error < best.error and len(coarse.weights) <= most:
                best = _Tried(error, coarse)
            if error <= tolerance:
                break
        return best

    def _width(self) -> float:
        """How near the singularities of x ↦ σ(θX(x)) can be, with dX/dx ≤ Π(1 + max|σ'| |θ|/L) over the levels before."""
        sigma = self.network.units.activation
        steepest = float(np.max(np.abs(sigma.pair(np.linspace(-8.0, 8.0, 4001))[1])))
        norm = float(np.max(np.linalg.norm(self.extremes, axis=1)))
        before, each = self.levels - 1, math.log1p(steepest * norm / self.levels)
        growth = math.exp(min(before * each, _MOST_GROWTH)) if self.network.approximation == "exact" else 1.0
        return sigma.pole / max(norm * growth, 1e-300)

    def _kernel(self, rule: Rule) -> FloatArray:
        inputs = np.ascontiguousarray(rule.nodes.T)
        values = [self.network.forward(blocks, inputs).output for blocks in self._trials()]
        if self.teacher_at is not None:
            values.append(self.teacher_at(rule.nodes).reshape(inputs.T.shape).T)
        stacked = np.stack(values).reshape(len(values), -1)
        return np.asarray((stacked * np.tile(rule.weights, len(inputs))) @ stacked.T)

    def _trials(self) -> Iterator[list[Block]]:
        """Networks of random units, and of one extreme matrix on all levels."""
        d, generator = self.network.units.dimension, np.random.default_rng(3)
        for _ in range(8):
            unit = generator.random((4 * self.levels, self.domain.dimension))
            theta = self.domain.spread(unit)[:, :-1].reshape(self.levels, 4, d, d)
            yield [Block(level, np.full(4, 0.25 / self.levels)) for level in theta]
        for matrix in self.extremes[:_MOST_TRIALS]:
            yield [Block(matrix.reshape(1, d, d), np.full(1, 1.0 / self.levels))] * self.levels

    def _check_sizes(self) -> None:
        d = self.network.units.dimension
        inputs = np.concatenate([10.0 * np.eye(d), -10.0 * np.eye(d)], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            outputs = [self.network.forward(blocks, inputs).output for blocks in self._trials()]
        if not np.max(np.abs(outputs)) < 1e100:
            raise ValueError("outputs of the wide_resnet overflow on this domain; use a smaller box, fewer levels or another activation")


def _samples(law: InputLaw) -> str:
    points = getattr(law, "points", None)
    return "the" if points is None else f"the {len(points)}"


def _rules(law: InputLaw, dimension: int, width: float, kinked: bool) -> Iterator[Rule]:
    """Rules of growing resolution, each of twice that of the third before it; ``kinked``: for functions with a kink at 0."""
    if isinstance(law, Circle) and dimension != 2:
        raise ValueError(f"inputs on the circle are pairs, but the states have {dimension} dimensions")
    if dimension > 3:
        raise ValueError(f"quadrature over the inputs knows 1, 2 or 3 of them, got {dimension}; use samples, or `count` draws")
    for number in range(27):
        fine = 2.0 ** (number / 3.0)
        if isinstance(law, Circle):
            angle = 2.0 * math.pi * (np.arange(count := round(12 * fine)) + 0.5) / count
            yield Rule(law.scale * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(count, 1.0 / count))
        elif isinstance(law, Normal | Uniform):
            near = min(width / law.scale, 1.0) if dimension == 1 else 1.0
            normal, count = isinstance(law, Normal), round(4 * fine)
            if (kinked or not normal) and count > _MOST_GAUSS:
                return
            if normal and not kinked:
                line = _normal_line(near if dimension == 1 else math.inf, (0.5 if dimension == 1 else 1.0) / fine)
            else:
                line = _half_lines(near, count, _TAIL if normal else 1.0, normal)
            yield _product(law.scale * line[0], line[1], dimension)
        else:
            raise ValueError("the inputs must be normal, uniform, on the circle, or samples")


def _normal_line(near: float, step: float) -> tuple[FloatArray, FloatArray]:
    """The trapezoidal rule for normal inputs in t with x = near · sinh t; in x itself for infinite ``near``."""
    end = math.asinh(_TAIL / near) if math.isfinite(near) else _TAIL
    half = step * (np.arange(math.ceil(end / step)) + 0.5)
    t = np.concatenate([-half[::-1], half])
    x, stretch = (near * np.sinh(t), np.cosh(t)) if math.isfinite(near) else (t, np.ones_like(t))
    weights = np.exp(-0.5 * x * x) * stretch
    return x, weights / np.sum(weights)


def _half_lines(near: float, count: int, end: float, normal: bool) -> tuple[FloatArray, FloatArray]:
    """Gauss–Legendre nodes in t with x = near · sinh t on [0, ``end``] and on its mirror image, for normal or uniform inputs."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    t = 0.5 * math.asinh(end / near) * (1.0 + nodes)
    x = near * np.sinh(t)
    weights = weights * np.cosh(t) * (np.exp(-0.5 * x * x) if normal else 1.0)
    return np.concatenate([-x[::-1], x]), np.concatenate([weights[::-1], weights]) / (2.0 * np.sum(weights))


def _product(nodes: FloatArray, weights: FloatArray, dimension: int) -> Rule:
    """The same along each axis, without nodes of no weight."""
    places = np.stack([c.ravel() for c in np.meshgrid(*[nodes] * dimension, indexing="ij")], axis=1)
    masses = np.ones(1)
    for _ in range(dimension):
        masses = np.multiply.outer(masses, weights).ravel()
    kept = masses > 1e-17 * 10.0 ** (3 * (dimension - 1)) * np.max(masses)
    return Rule(np.ascontiguousarray(places[kept]), masses[kept] / np.sum(masses[kept]))
