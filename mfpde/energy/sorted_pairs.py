"""Sums over all pairs of atoms on a line or a circle, sorted: W(x) = Σ c_k |x|^k + Σ h_m e^{−|x|/l_m} at a cost of O(N log N).

The atoms to the left of a point act on it through running moments, and through running sums that decay from atom to atom; so do
those to the right. Along a circle those are the ones within half a turn. Which kernels are of this form is found by sampling.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy.pair_kernel import PairKernel

_MOST_DEGREE = 5
_MOST_DECAYS = 3
_SAMPLES = (24, 60, 160)
_ERROR = 1e-12
_ERROR_OF_SLOPES = 1e-10
_TIE = 1e-12


@dataclass(frozen=True, eq=False)
class SortedPairs:
    """The sums for W = Σ ``powers``[k] r^k + Σ ``heights``[m] e^{−``rates``[m] r} on a ``domain`` of one axis."""

    domain: Domain
    powers: FloatArray
    heights: FloatArray
    rates: FloatArray

    @property
    def description(self) -> str:
        """For people."""
        parts = [f"degree {len(self.powers) - 1} in the distance"] * bool(np.any(self.powers))
        parts += [f"{len(self.rates)} exponential{'s' * (len(self.rates) > 1)}"] * bool(len(self.rates))
        return f"sorted sums ({' and '.join(parts)})"

    @cached_property
    def _turn(self) -> float:
        """The length of the circle, 0 for a line."""
        return self.domain.axes[0].length if self.domain.periodic[0] else 0.0

    def potential(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """W∗ρ of atoms at points (M, 1), as (M,)."""
        return self._sum(points, weights, at)[0]

    def force(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
        """∇W∗ρ of atoms at points (M, 1), as (M, 1)."""
        return self._sum(points, weights, at)[1][:, None]

    def _sum(self, points: FloatArray, weights: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values and slopes, (M,) each."""
        y, x = (self.domain.confine(p)[:, 0] if self._turn else p[:, 0] for p in (points, at))
        order = np.argsort(y, kind="stable")
        targets = order if at is points else np.argsort(x, kind="stable")
        t, y, w = x[targets], y[order], weights[order]
        if self._turn:
            y, w = np.concatenate([y - self._turn, y, y + self._turn]), np.tile(w, 3)
        value, slope = np.empty(len(t)), np.empty(len(t))
        value[targets], slope[targets] = self._windows(t, y, w)
        return value, slope

    def _windows(self, t: FloatArray, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The same for sorted targets and sources: those before ``left`` act from the left, those from ``right`` on from the right."""
        left, right = np.searchsorted(y, t, side="left"), np.searchsorted(y, t, side="right")
        sums = _Running(self, t, y, w)
        if not self._turn:
            return sums.between(np.zeros_like(left), left, right, np.full_like(right, len(y)))
        count, far = len(y) // 3, t - 0.5 * self._turn
        value, slope = np.zeros(len(t)), np.zeros(len(t))
        for tie in (-_TIE, _TIE):  # atoms that are half a turn away pull both ways, half each: their slopes cancel
            start = np.searchsorted(y, far + tie * self._turn)
            parts = sums.between(start, left, right, start + count)
            value, slope = value + 0.5 * parts[0], slope + 0.5 * parts[1]
        return value, slope


class _Running:
    """Running sums over sorted sources for sorted targets."""

    def __init__(self, form: SortedPairs, t: FloatArray, y: FloatArray, w: FloatArray) -> None:
        self.form = form
        self.middle, self.unit = 0.5 * (y[0] + y[-1]), max(0.5 * (y[-1] - y[0]), 1e-300)
        self.t, self.y, self.w = t, y, w
        z, used = (y - self.middle) / self.unit, np.flatnonzero(form.powers)
        most = int(used[-1]) + 1 if len(used) else 1
        self.moments = np.zeros((most, len(y) + 1))
        share = w.copy()
        for k in range(most):
            np.cumsum(share, out=self.moments[k, 1:])
            share *= z

    def between(self, start: IntArray, left: IntArray, right: IntArray, end: IntArray) -> tuple[FloatArray, FloatArray]:
        """Values and slopes by the sources [start, left) on the left, [left, right) at the targets themselves, [right, end) on the
        right."""
        from mfpde.energy.recursion import decaying_sums

        form, t = self.form, self.t
        value, slope = self._powers(self.moments[:, left] - self.moments[:, start], 1.0)
        other = self._powers(self.moments[:, end] - self.moments[:, right], -1.0)
        value, slope = value + other[0], slope + other[1]
        equal = self.moments[0, right] - self.moments[0, left]
        value += equal * (form.powers[0] + float(np.sum(form.heights)))
        for height, rate in zip(form.heights, form.rates, strict=True):
            before, after = np.empty(len(t)), np.empty(len(t))
            decaying_sums(self.y, self.w, rate, t, start, left, right, end, before, after)
            value += height * (before + after)
            slope -= height * rate * (before - after)
        return value, slope

    def _powers(self, moments: FloatArray, sign: float) -> tuple[FloatArray, FloatArray]:
        """Σ c_k r^k and its slope for sources at r = sign (t − y), by their moments (degree + 1, M) about the middle."""
        x = sign * (self.t - self.middle) / self.unit
        value, slope = np.zeros(len(x)), np.zeros(len(x))
        for k in range(len(moments)):
            scale = self.form.powers[k] * self.unit**k
            if scale == 0.0:
                continue
            for j in range(k + 1):  # (x − sign z)^k
                share = scale * math.comb(k, j) * (-sign) ** j * moments[j]
                value += share * x ** (k - j)
                if k > j:
                    slope += share * (k - j) * x ** (k - j - 1)
        return value, sign / self.unit * slope


# --- finding the form ----------------------------------------------------------------------------------------------------


def find_sorted(kernel: PairKernel) -> SortedPairs | None:
    """The form of a kernel on one axis, None where it has another one."""
    if kernel.domain.dimension != 1 or kernel.at_zero is None:
        return None
    with np.errstate(all="ignore"):
        for decays, degree, samples in product(range(_MOST_DECAYS + 1), (0, 1, 2, 3, _MOST_DEGREE), _SAMPLES):
            if decays == 0 and samples != _SAMPLES[0]:
                continue
            rates = _rates(kernel, decays, degree, samples) if decays else np.empty(0)
            if rates is not None and (form := _fit(kernel, rates, degree)) is not None:
                return form
    return None


def _rates(kernel: PairKernel, count: int, degree: int, samples: int) -> FloatArray | None:
    """Rates of ``count`` exponentials beside a polynomial, by Prony's method on equal steps: differences take the polynomial away, and
    the others satisfy a linear recursion whose roots are e^{−rate · step}."""
    step = float(kernel.extent[0]) / (samples if samples > _SAMPLES[0] else 2 * samples) / (8.0 if samples == _SAMPLES[-1] else 1.0)
    values = kernel.values(step * np.arange(samples + 1.0)[:, None])
    rest = np.diff(values, degree + 1)
    hankel = np.stack([rest[k : len(rest) - count + k] for k in range(count)], axis=1)
    recursion = np.linalg.lstsq(hankel, -rest[count:], rcond=None)[0]
    if not np.isfinite(recursion).all():
        return None
    roots = np.roots(np.concatenate([[1.0], recursion[::-1]]))
    if len(roots) != count or np.any(np.abs(roots.imag) > 1e-6) or np.any(roots.real <= 0.0) or np.any(roots.real >= 1.0):
        return None
    return np.asarray(-np.log(np.sort(roots.real)[::-1]) / step)


def _fit(kernel: PairKernel, rates: FloatArray, degree: int) -> SortedPairs | None:
    """The best coefficients for these rates, improved together with them; None where the kernel differs."""
    length = float(kernel.extent[0])
    r = np.concatenate([np.abs(kernel._probes[:, 0]), np.linspace(0.0, length, 257)])
    exact = kernel.values(r[:, None])
    for _ in range(6 if len(rates) else 1):
        basis = np.concatenate([(r[:, None] / length) ** np.arange(degree + 1.0), np.exp(-np.minimum(r[:, None] * rates, 700.0))], axis=1)
        found = np.linalg.lstsq(basis, exact, rcond=1e-15)[0]
        if not len(rates):
            break
        bends = -r[:, None] * basis[:, degree + 1 :] * found[degree + 1 :]
        step = np.linalg.lstsq(np.concatenate([basis, bends], axis=1), exact - basis @ found, rcond=1e-15)[0][degree + 1 + len(rates) :]
        if not np.isfinite(step).all() or np.any(np.abs(step) > 0.3 * rates):
            break
        rates = rates + step
    if np.any(~np.isfinite(rates)) or np.any(rates <= 0.0):
        return None
    return _checked(kernel, r, exact, basis, found, rates, degree)


def _checked(
    kernel: PairKernel, r: FloatArray, exact: FloatArray, basis: FloatArray, found: FloatArray, rates: FloatArray, degree: int
) -> SortedPairs | None:
    length, heights = float(kernel.extent[0]), found[degree + 1 :]
    plain = np.where(np.abs(found[: degree + 1]) > _ERROR * np.max(np.abs(found)), found[: degree + 1], 0.0)
    powers = plain / length ** np.arange(degree + 1.0)
    fit = np.polynomial.polynomial.polyval(r, powers) + np.exp(-np.minimum(r[:, None] * rates, 700.0)) @ heights
    if not np.max(np.abs(fit - exact)) <= _ERROR * np.ptp(exact) or np.max(np.abs(found)) > 1e3 * np.ptp(exact) + np.max(np.abs(exact)):
        return None
    inner = np.linspace(0.0, length, 514)[1:-1]
    slopes = np.polynomial.polynomial.polyval(inner, np.polynomial.polynomial.polyder(powers) if degree else np.zeros(1))
    slopes = slopes - np.exp(-np.minimum(inner[:, None] * rates, 700.0)) @ (heights * rates)
    steep = kernel.slopes(inner[:, None])[:, 0]
    if not np.max(np.abs(slopes - steep)) <= _ERROR_OF_SLOPES * np.max(np.abs(steep)):
        return None
    return SortedPairs(kernel.domain, powers, heights, rates)
