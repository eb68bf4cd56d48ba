"""Orders of convergence: fitted to all errors, with a confidence interval, and between neighbours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray

_CONFIDENCE = 0.95
_ITERATIONS = 200
_LARGEST_ORDER = 60.0


@dataclass(frozen=True)
class Order:
    """The order p of errors C (h^p − f^p), where f is the width of a reference that is itself refined (0: an exact one).

    ``low`` and ``high`` bound a 95 % confidence interval of ``value``, from ``standard_error`` and Student's t with ``count`` − 2
    degrees of freedom; all three are nan for two points, and everything is nan where no order fits.
    """

    value: float
    standard_error: float
    low: float
    high: float
    count: int
    constant: float
    reference: float = 0.0

    def error(self, h: FloatArray) -> FloatArray:
        """C (h^p − f^p)."""
        return np.asarray(self.constant * (h**self.value - (self.reference**self.value if self.reference > 0.0 else 0.0)))


def fitted_order(h: Sequence[float] | FloatArray, error: Sequence[float] | FloatArray, reference: float = 0.0) -> Order:
    """Least squares of log ``error`` against log C + log(``h``^p − ``reference``^p) over C and p.

    With ``reference`` = 0 that is the straight line of log error against log h. With the width of a reference that has an error of
    the same expansion, C h^p + o(h^p), it is what the difference of the two follows, and p is free of the bias of the line.
    Raises ValueError for fewer than two points, numbers that are not positive and finite, widths that are all equal or not above
    ``reference``.
    """
    widths, errors = np.asarray(h, dtype=float), np.asarray(error, dtype=float)
    _check(widths, errors, reference)
    if reference > 0.0:
        return _fit_corrected(widths, np.log(errors), reference)
    x, y = np.log(widths), np.log(errors)
    slope = _slope(x, y)
    return _order(slope * x, y, slope, x, 0.0)


def pairwise_orders(h: FloatArray, error: FloatArray, reference: float = 0.0) -> FloatArray:
    """The order between each point and the one before it, (G,); nan at the first, and where an error is nan, not positive or fits none."""
    orders = np.full(len(h), np.nan)
    for k in range(1, len(h)):
        pair = slice(k - 1, k + 1)
        if (error[pair] > 0.0).all() and np.isfinite(error[pair]).all():
            orders[k] = fitted_order(h[pair], error[pair], reference).value
    return orders


def _check(h: FloatArray, error: FloatArray, reference: float) -> None:
    if h.ndim != 1 or h.shape != error.shape or len(h) < 2:
        raise ValueError(f"an order needs two or more widths and as many errors, got shapes {h.shape} and {error.shape}")
    for name, values in (("widths", h), ("errors", error)):
        if not (np.isfinite(values).all() and (values > 0.0).all()):
            raise ValueError(f"the {name} must be positive and finite, got {values.tolist()[:8]}")
    if not (0.0 <= reference < np.min(h)):
        raise ValueError(f"the width of the reference must be nonnegative and below all others, got {reference}")
    if not np.ptp(h) > 0.0:
        raise ValueError(f"the widths must differ, got {h.tolist()[:8]}")


def _slope(x: FloatArray, y: FloatArray) -> float:
    centred = x - np.mean(x)
    return float(np.dot(centred, y - np.mean(y)) / np.dot(centred, centred))


def _fit_corrected(h: FloatArray, y: FloatArray, reference: float) -> Order:
    """Gauss–Newton in p, from the slope of the line; the constant is eliminated. Nan where it leaves (0, 60) or does not settle."""
    ratio = np.log(h / reference)
    p = min(max(_slope(np.log(h), y), 0.1), 0.5 * _LARGEST_ORDER)
    for _ in range(_ITERATIONS):
        tangent = ratio / -np.expm1(-p * ratio)
        change = _slope(tangent, y - _shape(p, ratio))
        p = p + change if p + change > 0.0 else 0.5 * p
        if not 1e-6 < p < _LARGEST_ORDER:
            return Order(math.nan, math.nan, math.nan, math.nan, len(h), math.nan, reference)
        if abs(change) <= 1e-15 * p:
            break
    if abs(change) > 1e-9 * p:
        return Order(math.nan, math.nan, math.nan, math.nan, len(h), math.nan, reference)
    return _order(_shape(p, ratio) + p * math.log(reference), y, p, ratio / -np.expm1(-p * ratio), reference)


def _shape(p: float, ratio: FloatArray) -> FloatArray:
    """log((h/f)^p − 1) of ``ratio`` = log(h/f), without overflow."""
    return np.asarray(p * ratio + np.log(-np.expm1(-p * ratio)))


def _order(model: FloatArray, y: FloatArray, p: float, tangent: FloatArray, reference: float) -> Order:
    """The order with its interval: ``model`` is log(h^p − f^p), (n,), and ``tangent`` its derivative by p."""
    shift = float(np.mean(y - model))
    constant = float(np.exp(np.clip(shift, -700.0, 700.0)))
    freedom = len(y) - 2
    if freedom < 1:
        return Order(p, math.nan, math.nan, math.nan, len(y), constant, reference)
    from scipy.special import stdtrit

    rest = y - model - shift
    spread = tangent - np.mean(tangent)
    deviation = float(np.sqrt(np.dot(rest, rest) / freedom / np.dot(spread, spread)))
    half = float(stdtrit(freedom, 0.5 + 0.5 * _CONFIDENCE)) * deviation
    return Order(p, deviation, p - half, p + half, len(y), constant, reference)
