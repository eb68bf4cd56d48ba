"""Pair kernels W(x − y): even functions of the difference of two points, and the fast forms that some of them have."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.disk import Disk
from mfpde.domain import Domain

_PROBES = 512
_RAYS = 12
_EVEN = 1e-9
_JUMP = 1e-6
_HALVINGS = 36
_EXACT = 1e-12
_MOST_CANCELLED = 100.0
_QUADRATIC_GROWTH = 1.75
_LEAST_DECAY = 0.02


@dataclass(frozen=True, eq=False)
class Quadratic:
    """W(x) = constant + ½ xᵀQx with Q = ``matrix`` (d, d), symmetric."""

    constant: float
    matrix: FloatArray


@dataclass(frozen=True)
class Exponential:
    """W(x) = constant + height · e^{−|x|/length} in one dimension."""

    constant: float
    height: float
    length: float


@dataclass(frozen=True, eq=False)
class PairKernel:
    """``coefficient`` · W(x) of differences x (M, d) between points of ``domain``; along circles they are the shortest ones.

    ``function`` gives W as (M,), ``slope`` its gradient as (M, d). W is even, continuous and finite away from 0. At 0 it may have a
    kink or be infinite, as long as it is integrable with some room. Raises ValueError for another one, saying where, for one that is
    zero, and for a coefficient that is zero or not finite.
    """

    domain: Domain
    function: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.coefficient) and self.coefficient != 0.0):
            raise ValueError(f"the coefficient must be finite and not zero, got {self.coefficient}")
        self._check_values()
        self._check_present()
        self._check_circles()
        self._check_jumps()
        if self.at_zero is None:
            self._check_integrable()

    def values(self, x: FloatArray) -> FloatArray:
        """c W(x) as (M,); at x = 0 it is ``at_zero``, and 0 where there is none: equal points do not interact through infinite kernels."""
        values = self._raw(x)
        values[~np.any(x, axis=1)] = self.at_zero or 0.0
        return values

    def slopes(self, x: FloatArray) -> FloatArray:
        """c ∇W(x) as (M, d); 0 at x = 0, as it is odd."""
        with np.errstate(all="ignore"):
            slopes = self.coefficient * self.slope(x)
        slopes[~np.any(x, axis=1)] = 0.0
        return np.asarray(slopes)

    def _raw(self, x: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.array(self.coefficient * self.function(x), dtype=float)

    @cached_property
    def extent(self) -> FloatArray:
        """The largest difference along each axis, (d,)."""
        length = self.domain.upper - self.domain.lower
        return np.where(self.domain.periodic, 0.5 * length, length)

    @cached_property
    def _rays(self) -> FloatArray:
        """Differences (R, d) that end on the ellipsoid of ``extent``, along the axes and in random directions."""
        random = np.random.default_rng(1).normal(size=(_RAYS, self.domain.dimension))
        unit = np.concatenate([np.eye(self.domain.dimension), random / np.linalg.norm(random, axis=1, keepdims=True)])
        return np.asarray(unit * self.extent)

    @cached_property
    def _probes(self) -> FloatArray:
        """Differences (M, d) of random points of the domain, as they are and on all smaller scales."""
        generator = np.random.default_rng(0)
        start, end = (self.domain.spread(generator.random((2 * _PROBES, self.domain.dimension))) for _ in range(2))
        differences = self.domain.displacement(start, end)
        differences[_PROBES:] *= 2.0 ** -generator.uniform(0.0, 20.0, (_PROBES, 1))
        return np.asarray(differences)

    @cached_property
    def _edge_probes(self) -> FloatArray:
        """Differences (M, d) with some components zero, and the largest ones."""
        generator, dimension = np.random.default_rng(2), self.domain.dimension
        masked = self._probes * (generator.random(self._probes.shape) < 0.5)
        longest = self._rays
        if not isinstance(self.domain, Disk):
            longest = np.concatenate([longest, self.extent * generator.choice([-1.0, 1.0], (64, dimension))])
        return np.concatenate([masked[np.any(masked, axis=1)], longest])

    @cached_property
    def at_zero(self) -> float | None:
        """c W(0), by its limit where the formula gives none, such as sin(r)/r; None where it is infinite or there is no limit."""
        value = float(self._raw(np.zeros((1, self.domain.dimension)))[0])
        if math.isfinite(value):
            return value
        near = self._raw(np.concatenate([1e-12 * self._rays, 1e-13 * self._rays]))
        if math.isinf(value) or not np.isfinite(near).all():
            return None
        scale = float(np.max(np.abs(self._raw(self._rays))))
        return float(np.mean(near[len(self._rays) :])) if np.ptp(near) <= 1e-6 * scale else None

    def _shown(self, x: FloatArray) -> str:
        return ", ".join(f"{name} = {value:.6g}" for name, value in zip(self.domain.names, x, strict=True))

    def _check_values(self) -> None:
        """Finite and even, with a finite gradient."""
        x = np.concatenate([self._probes, self._edge_probes])
        here, there = self._raw(x), self._raw(-x)
        slopes = self.slopes(self._probes)
        for wrong, what in ((~np.isfinite(here), "it"), (~np.isfinite(slopes).all(axis=1), "its gradient")):
            if wrong.any():
                where = x[int(np.argmax(wrong))]
                raise ValueError(f"the kernel must be finite away from 0, but {what} is not at the difference {self._shown(where)}")
        size = np.abs(here) + np.abs(there)
        uneven = ~(np.abs(here - there) <= _EVEN * (size + 1e-3 * float(np.median(size))))
        if uneven.any():
            k = int(np.argmax(np.abs(here - there) * uneven))
            where, opposite = self._shown(x[k]), f"{there[k]:.6g} at the opposite one"
            raise ValueError(f"the kernel must be even, W(-x) = W(x), but it is {here[k]:.6g} at the difference {where} and {opposite}")

    def _check_present(self) -> None:
        """Not zero at all differences that are tried: without effect, or with one that no grid sees."""
        tried = np.concatenate([np.zeros((1, self.domain.dimension)), self._probes, self._edge_probes])
        if not np.any(self._raw(tried)):
            raise ValueError(f"the kernel must not be zero, but it is at all of {len(tried)} differences; leave the term out instead")

    def _check_circles(self) -> None:
        """Equal at the two ends of the shortest differences along a circle: an even kernel may still jump there in d >= 2."""
        for k in np.flatnonzero(self.domain.periodic):
            ends = [np.array(self._probes) for _ in range(2)]
            ends[0][:, k], ends[1][:, k] = self.extent[k], -self.extent[k]
            one, two = (self._raw(x) for x in ends)
            if not (np.abs(one - two) <= _EVEN * (np.abs(one) + np.abs(two) + float(np.median(np.abs(one))))).all():
                name = self.domain.names[k]
                raise ValueError(
                    f"the kernel differs at {name} = ±{self.extent[k]:.6g}, which is the same difference: half way round the axis"
                )

    def _check_jumps(self) -> None:
        """Continuous along rays: of every short piece the half with the larger rise is kept, until only a jump could be left."""
        steps = np.linspace(2.0**-10, 1.0, _PROBES + 1) * np.linspace(1.0, 1.0 - 1.0 / _PROBES, len(self._rays))[:, None]
        low, high = steps[:, :-1], steps[:, 1:]
        value_low, value_high = self._along(low), self._along(high)
        range_of_values = np.ptp(value_low, axis=1)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            value = self._along(middle)
            left = np.abs(value - value_low) >= np.abs(value_high - value)
            low, high = np.where(left, low, middle), np.where(left, middle, high)
            value_low, value_high = np.where(left, value_low, value), np.where(left, value, value_high)
        jump = np.abs(value_high - value_low) - _JUMP * range_of_values[:, None]
        if (~(jump <= 0.0) & (range_of_values[:, None] > 0.0)).any():
            ray, piece = np.unravel_index(int(np.argmax(np.nan_to_num(jump, nan=np.inf))), jump.shape)
            where = self._shown(low[ray, piece] * self._rays[ray])
            raise ValueError(f"the kernel must be continuous away from 0, but it jumps at the difference {where}")

    def _along(self, steps: FloatArray) -> FloatArray:
        """Values at the fractions ``steps`` (R, K) of the rays."""
        return self._raw((steps[:, :, None] * self._rays[:, None, :]).reshape(-1, self.domain.dimension)).reshape(steps.shape)

    def _check_integrable(self) -> None:
        """∫|W| over shells that halve must decay, and not too slowly to be summed: W grows more slowly than r^{−d + 0.02}."""
        one, two = (float(np.sum(np.abs(self._raw(2.0**-k * self._rays)))) for k in (40, 41))
        dimension, most = self.domain.dimension, self.domain.dimension - _LEAST_DECAY
        growth = math.log2(two / one) if 0.0 < one < math.inf and 0.0 < two < math.inf else math.inf
        if growth > most + 1e-9:
            axes = "axis" if dimension == 1 else "axes"
            allowed = f"on {dimension} {axes} the power can be at most {most:g}, beyond which its averages over cells cannot be computed"
            raise ValueError(f"the kernel must be integrable, with room to spare, but near 0 it grows like r^-{growth:.4g}; {allowed}")

    @cached_property
    def reflective(self) -> bool:
        """Whether W is even in every coordinate by itself, as functions of the norm are."""
        signs = np.random.default_rng(3).choice([-1.0, 1.0], self._probes.shape)
        here, there = self._raw(self._probes), self._raw(signs * self._probes)
        return bool((np.abs(here - there) <= _EXACT * np.abs(here)).all())

    @property
    def peaks_at_zero(self) -> bool:
        """Whether W(0) >= W(x) everywhere, without which two opposite atoms show that the energy is not convex."""
        return self.at_zero is None or bool(np.max(self._raw(self._probes)) <= self.at_zero)

    def resolved(self, sides: FloatArray) -> bool:
        """Whether W grows quadratically away from 0 on the scale of cells with these ``sides`` (d,), as smooth kernels do."""
        if self.at_zero is None:
            return False
        dimension = self.domain.dimension
        diagonals = np.random.default_rng(4).choice([-1.0, 1.0], (8, dimension))
        far = np.concatenate([np.eye(dimension), diagonals]) * sides / 2.0
        rise, half = (np.abs(self._raw(x) - self.at_zero) for x in (far, 0.5 * far))
        flat = rise <= _EXACT * abs(self.at_zero)
        return bool((flat | (rise >= 2.0**_QUADRATIC_GROWTH * half)).all())

    @cached_property
    def quadratic(self) -> Quadratic | None:
        """The kernel as a quadratic polynomial, if it is one; it cannot depend on periodic axes, where it has a kink."""
        free = np.flatnonzero(~self.domain.periodic)
        z = self._probes[:, free] / self.extent[free]
        pairs = [(i, j) for i in range(len(free)) for j in range(i, len(free))]
        basis = np.stack([np.ones(len(z)), *(z[:, i] * z[:, j] for i, j in pairs)], axis=1)
        values = self._raw(self._probes)
        coefficients = np.linalg.lstsq(basis, values, rcond=None)[0]
        coefficients[np.abs(coefficients) <= _EXACT * np.max(np.abs(coefficients))] = 0.0
        if not np.max(np.abs(basis @ coefficients - values)) <= _EXACT * np.ptp(values) + 1e-14 * np.max(np.abs(values)):
            return None
        matrix = np.zeros((self.domain.dimension,) * 2)
        for (i, j), coefficient in zip(pairs, coefficients[1:], strict=True):
            a, b = free[i], free[j]
            matrix[a, b] += coefficient / (self.extent[a] * self.extent[b])
            matrix[b, a] += coefficient / (self.extent[a] * self.extent[b])
        return Quadratic(float(coefficients[0]), matrix)

    @cached_property
    def exponential(self) -> Exponential | None:
        """The kernel as a constant and an exponential of the distance, if it is that, on one axis with walls."""
        if self.domain.dimension != 1 or self.domain.periodic[0]:
            return None
        x, values = np.abs(self._probes[:, 0]), self._raw(self._probes)
        for step in self.extent[0] * 2.0 ** -np.arange(2.0, 14.0):
            one, two, three = self._raw(step * np.array([[1.0], [2.0], [3.0]])).tolist()
            ratio = (two - three) / (one - two) if one != two else 0.0
            if not 0.0 < ratio < 1.0:
                continue
            length, height = -step / math.log(ratio), (one - two) / (ratio * (1.0 - ratio))
            constant = one - height * ratio
            constant = 0.0 if abs(constant) <= _EXACT * abs(height) else constant
            fit = constant + height * np.exp(-np.minimum(x / length, 700.0))
            if abs(height) <= _MOST_CANCELLED * np.ptp(values) and np.max(np.abs(fit - values)) <= _EXACT * np.ptp(values):
                return Exponential(constant, height, length)
        return None

    @property
    def form(self) -> str:
        """What makes it fast to evaluate, or how it behaves at 0, for people."""
        if self.quadratic is not None:
            return "quadratic: a function of the mean and the mass"
        if self.exponential is not None:
            return f"exponential of length {self.exponential.length:.6g}: a recursion along the axis"
        if self.at_zero is None:
            return "infinite at 0"
        if not self.resolved(1e-4 * self.extent):
            return "a kink at 0"
        return "smooth at 0"
