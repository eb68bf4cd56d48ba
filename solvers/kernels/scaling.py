"""Loops of relu networks in closed form and on samples: the passes between the matrix products."""

import math

from mfpde.arrays import FloatArray
from mfpde.compile import inlined_kernel, vector_kernel

_HALF_PI = 0.5 * math.pi


@inlined_kernel
def arc_sine(c: float) -> float:
    """arcsin of c in [−1, 1] to a rounding error or two, by the rational function of Sun's fdlibm, without a branch."""
    size = abs(c)
    small = size < 0.5
    z = size * size if small else 0.5 - 0.5 * size
    root = size if small else math.sqrt(z)
    high = 7.91534994289814532176e-04 + z * 3.47933107596021167570e-05
    high = 2.01212532134862925881e-01 + z * (-4.00555345006794114027e-02 + z * high)
    high = z * (1.66666666666666657415e-01 + z * (-3.25565818622400915405e-01 + z * high))
    low = 2.02094576023350569471e00 + z * (-6.88283971605453293030e-01 + z * 7.70381505559019352791e-02)
    part = root + root * high / (1.0 + z * (-2.40339491173441421878e00 + z * low))
    arc = part if small else _HALF_PI - 2.0 * part
    return arc if c >= 0.0 else -arc


@vector_kernel
def add_pairs(
    gram: FloatArray,
    inverse: FloatArray,
    others: FloatArray,
    other_inverse: FloatArray,
    weight: FloatArray,
    value: FloatArray,
    rise: FloatArray,
) -> None:
    """The sums of the arc-cosine kernel over others v_k of norms ``others`` and weights w_k, seen from u_i, with c = cos φ_ik = ``gram``
    over both norms, whose inverses are given:

    ``value_i`` = Σ_k w_k|v_k|(sin φ + (π − φ)c), ``rise_i`` = Σ_k w_k|v_k| sin φ, and ``gram`` becomes w_k(π − φ). [Cho–Saul 2009]
    """
    for i in range(gram.shape[0]):
        total, slant = 0.0, 0.0
        for k in range(gram.shape[1]):
            c = min(1.0, max(-1.0, gram[i, k] * inverse[i] * other_inverse[k]))
            sine = math.sqrt((1.0 - c) * (1.0 + c))
            rest = _HALF_PI + arc_sine(c)
            size = weight[k] * others[k]
            total += size * (sine + rest * c)
            slant += size * sine
            gram[i, k] = rest * weight[k]
        value[i] = total
        rise[i] = slant


@vector_kernel
def back_propagate(inner_products: FloatArray, outer: FloatArray, target: FloatArray, slope: FloatArray) -> float:
    """Turn z_ij = b_j·x_i into e_i 1(z_ij > 0), e_i = Σ_j c_j relu(z_ij) − y_i with c = ``outer``, and add Σ_i e_i relu(z_ij) to
    ``slope`` (m,), sample by sample while its row is in the cache; returns Σ_i e_i²."""
    square = 0.0
    for i in range(inner_products.shape[0]):
        row = inner_products[i]
        error = -target[i]
        for j in range(len(row)):
            error += outer[j] * max(row[j], 0.0)
        square += error * error
        for j in range(len(row)):
            on = row[j] > 0.0
            slope[j] += error * row[j] if on else 0.0
            row[j] = error if on else 0.0
    return square


@vector_kernel
def combine(point: FloatArray, stages: FloatArray, weights: FloatArray, out: FloatArray) -> None:
    """``out`` = ``point`` + Σ_s ``weights``_s ``stages``_s, (N,), the sum over all stages in one pass."""
    for k in range(len(point)):
        out[k] = point[k]
    for s in range(len(weights)):
        w = weights[s]
        if w != 0.0:
            for k in range(len(point)):
                out[k] += w * stages[s, k]
