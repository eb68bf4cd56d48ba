"""Activations σ and σ' in compiled loops that run on vectors: arithmetic, comparisons and shifts of bits only, no calls of a library.

All exponentials start from x = n ln 2 + r with |r| <= ½ ln 2, where 2ⁿ is written into the exponent's bits. Polynomials interpolate at
Chebyshev points; that of erf is fitted with the weight that its error has in erf. Constants in parts with trailing zeros (ln 2, π/2)
are those of fdlibm. Values are right to a few units in the last place of the largest |σ|; NaN stays NaN.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mfpde.arrays import FloatArray
from mfpde.compile import fused_kernel, inlined_kernel

NAMES = (
    "tanh",
    "erf",
    "sigmoid",
    "softplus",
    "relu",
    "gelu",
    "arctan",
    "softsign",
    "gaussian",
    "quadratic",
    "cos",
    "identity",
)
"""The place of an activation is the code by which the loops know it."""

_ROUND = 6755399441055744.0
"""1.5 · 2⁵²: adding it rounds a number to an integer, which then stands in the lowest bits."""
_ONE_BITS, _SIGN_BIT = 0x3FF0000000000000, -0x8000000000000000
_PER_LN2 = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_QUARTER_1, _QUARTER_2, _QUARTER_3 = 1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624871116645580e-21
_PER_PI = 0.3183098861837907
_LEAST_EXPONENT, _FARTHEST_HALF = -708.0, 354.0
_FARTHEST_TURN = 1.0e6
"""Beyond it π/2 in three parts is no longer exact enough, and cosines are left to the library."""
_ROOT_HALF = 0.7071067811865476
_PER_ROOT_TURN = 0.3989422804014327
_PER_ROOT_PI = 1.1283791670955126
_ERF_END, _GELU_END = 5.89, 8.3
_TAN_EIGHTH, _TAN_THREE_EIGHTHS = 0.41421356237309503, 2.414213562373095


def _as_bits(typing_context: Any, number: Any) -> Any:
    """The 64 bits of a float as an integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


def _as_float(typing_context: Any, bits: Any) -> Any:
    """The float with these 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


_bits_of = cast(Callable[[float], int], intrinsic(_as_bits))
_float_of = cast(Callable[[int], float], intrinsic(_as_float))


@inlined_kernel
def _split(x: float) -> tuple[float, float]:
    """2ⁿ and r with eˣ = 2ⁿeʳ, for |x| <= 708."""
    shifted = x * _PER_LN2 + _ROUND
    n = shifted - _ROUND
    return _float_of((_bits_of(shifted) << 52) + _ONE_BITS), (x - n * _LN2_HIGH) - n * _LN2_LOW


@inlined_kernel
def _expm1(r: float) -> float:
    """eʳ − 1 for |r| <= ½ ln 2."""
    p = 2.5100472505694996e-08
    p = p * r + 2.7620201591031547e-07
    p = p * r + 2.7557268276905696e-06
    p = p * r + 2.4801521057868204e-05
    p = p * r + 1.9841269863171557e-4
    p = p * r + 1.3888888917367081e-3
    p = p * r + 8.333333333330039e-3
    p = p * r + 4.1666666666623824e-2
    p = p * r + 0.16666666666666669
    p = p * r + 0.5
    return r + r * r * p


@inlined_kernel
def _exp(x: float) -> float:
    """eˣ for x <= 708; zero below −708."""
    scale, r = _split(_LEAST_EXPONENT if x < _LEAST_EXPONENT else x)
    value = scale + scale * _expm1(r)
    return 0.0 if x < _LEAST_EXPONENT else value


@inlined_kernel
def _half(x: float) -> tuple[float, float]:
    """s = 2ⁿ and t = tanh(r/2) with e²ˣ = s(1 + t)/(1 − t), for |x| <= 354."""
    shifted = x * (2.0 * _PER_LN2) + _ROUND
    n = shifted - _ROUND
    scale = _float_of((_bits_of(shifted) << 52) + _ONE_BITS)
    h = (x - n * (0.5 * _LN2_HIGH)) - n * (0.5 * _LN2_LOW)
    u = h * h
    p = 0.0034636670195542472
    p = p * u - 0.008858919211524261
    p = p * u + 0.021869421428449724
    p = p * u - 0.053968253495869305
    p = p * u + 0.1333333333321161
    p = p * u - 0.3333333333333328
    return scale, h + h * u * p


@inlined_kernel
def _tanh(z: float) -> float:
    a = abs(z)
    scale, t = _half(19.5 if a > 19.5 else a)
    value = ((scale - 1.0) + t * (scale + 1.0)) / ((scale + 1.0) + t * (scale - 1.0))
    return _float_of(_bits_of(value) | (_bits_of(z) & _SIGN_BIT))


@inlined_kernel
def _sigmoid(z: float) -> float:
    half = 0.5 * z
    low = -_FARTHEST_HALF if half < -_FARTHEST_HALF else half
    scale, t = _half(20.0 if low > 20.0 else low)
    return (scale + scale * t) / ((scale + 1.0) + t * (scale - 1.0))


@inlined_kernel
def _quarter_slope(z: float) -> float:
    """A quarter of tanh' = 4e⁻²ᶻ/(1 + e⁻²ᶻ)², which is the slope of the sigmoid at 2z."""
    drop = -abs(z)
    scale, t = _half(-_FARTHEST_HALF if drop < -_FARTHEST_HALF else drop)
    below = (scale + 1.0) + t * (scale - 1.0)
    return scale * (1.0 - t * t) / (below * below)


@inlined_kernel
def _softplus(z: float) -> float:
    """max(z, 0) + log(1 + y), y = e^(−|z|), the logarithm being 2 artanh(y/(2 + y))."""
    y = _exp(-abs(z))
    w = y / (2.0 + y)
    u = w * w
    p = 0.08082469084735669
    p = p * u + 0.04400158825434387
    p = p * u + 0.06000577591428889
    p = p * u + 0.06657067775440581
    p = p * u + 0.07692785296456121
    p = p * u + 0.09090894708663223
    p = p * u + 0.11111111358900891
    p = p * u + 0.1428571428355253
    p = p * u + 0.20000000000007298
    p = p * u + 0.3333333333333333
    return (0.0 if z <= 0.0 else z) + 2.0 * (w + w * u * p)


@inlined_kernel
def _log_erfc(a: float) -> float:
    """−log erfc(a) for a in [0, 5.89], which is a times a smooth function."""
    p = 1.1789410771020057e-14
    p = p * a - 4.750640750808775e-13
    p = p * a + 8.713303731302203e-12
    p = p * a - 9.539493520637606e-11
    p = p * a + 6.804181783088938e-10
    p = p * a - 3.1493005628001055e-09
    p = p * a + 7.76615921592162e-09
    p = p * a + 8.424684293919726e-09
    p = p * a - 1.7422967083563002e-07
    p = p * a + 8.539853360770805e-07
    p = p * a - 2.430218488380885e-06
    p = p * a + 3.5651996837355782e-06
    p = p * a + 2.7953722308692864e-06
    p = p * a - 2.932317383492813e-05
    p = p * a + 6.428980247706908e-05
    p = p * a + 2.5955297109589553e-05
    p = p * a - 0.0005901468417377944
    p = p * a + 0.0016962105363874818
    p = p * a - 0.0002091952312632949
    p = p * a - 0.01912844696297732
    p = p * a + 0.1027726033000559
    p = p * a + 0.6366197723676117
    p = p * a + 1.1283791670955126
    return a * p


@inlined_kernel
def _erf(z: float) -> float:
    """1 − erfc(|z|) with the sign of z, right to the last digits also near zero."""
    a = abs(z)
    scale, r = _split(-_log_erfc(_ERF_END if a > _ERF_END else a))
    value = (1.0 - scale) - scale * _expm1(r)
    return -value if z < 0.0 else value


@inlined_kernel
def _erf_slope(z: float) -> float:
    return _PER_ROOT_PI * _exp(-z * z)


@inlined_kernel
def _normal_cdf(z: float) -> float:
    """½ erfc(−z/√2), zero below −8.3."""
    a = abs(z) * _ROOT_HALF
    scale, r = _split(-_log_erfc(_ERF_END if a > _ERF_END else a))
    tail = 0.5 * (scale + scale * _expm1(r))
    value = tail if z < 0.0 else 1.0 - tail
    return 0.0 if z < -_GELU_END else value


@inlined_kernel
def _gelu(z: float) -> float:
    return (-_GELU_END if z < -_GELU_END else z) * _normal_cdf(z)


@inlined_kernel
def _gelu_slope(z: float) -> float:
    low = -40.0 if z < -40.0 else z
    near = 40.0 if low > 40.0 else low
    return _normal_cdf(near) + near * (_PER_ROOT_TURN * _exp(-0.5 * near * near))


@inlined_kernel
def _arctan(z: float) -> float:
    """Of |z|, −1/|z| or (|z| − 1)/(|z| + 1), whichever is at most tan(π/8), by a polynomial, and the angle that this leaves."""
    a = abs(z)
    far, near = a > _TAN_THREE_EIGHTHS, a < _TAN_EIGHTH
    above = -1.0 if far else (a if near else a - 1.0)
    below = a if far else (1.0 if near else a + 1.0)
    start = 0.5 * math.pi if far else (0.0 if near else 0.25 * math.pi)
    w = above / below
    u = w * w
    p = -0.019175404711104935
    p = p * u + 0.03923044778479309
    p = p * u - 0.050854078345894844
    p = p * u + 0.05858140904866328
    p = p * u - 0.06664510525508936
    p = p * u + 0.07692183125376892
    p = p * u - 0.0909090457530649
    p = p * u + 0.11111111015187018
    p = p * u - 0.14285714284665682
    p = p * u + 0.19999999999995516
    p = p * u - 0.3333333333333333
    value = start + (w + w * u * p)
    return -value if z < 0.0 else value


@inlined_kernel
def _arctan_slope(z: float) -> float:
    return 1.0 / (1.0 + z * z)


@inlined_kernel
def _softsign(z: float) -> float:
    low = -1.0e300 if z < -1.0e300 else z
    near = 1.0e300 if low > 1.0e300 else low
    return near / (1.0 + abs(near))


@inlined_kernel
def _softsign_slope(z: float) -> float:
    share = 1.0 / (1.0 + abs(z))
    return share * share


@inlined_kernel
def _gaussian(z: float) -> float:
    return _exp(-0.5 * z * z)


@inlined_kernel
def _gaussian_slope(z: float) -> float:
    low = -40.0 if z < -40.0 else z
    near = 40.0 if low > 40.0 else low
    return -near * _exp(-0.5 * near * near)


@inlined_kernel
def _sine_turned(z: float, quarters: float, shifted: float) -> float:
    """(−1)ᵏ sin r with r = z − quarters · π/2, the lowest bit of ``shifted`` being that of k."""
    r = ((z - quarters * _QUARTER_1) - quarters * _QUARTER_2) - quarters * _QUARTER_3
    u = r * r
    p = 2.731365867494017e-15
    p = p * u - 7.643963965925357e-13
    p = p * u + 1.6058977114074673e-10
    p = p * u - 2.505210761393476e-08
    p = p * u + 2.7557319219139183e-06
    p = p * u - 1.9841269841254885e-4
    p = p * u + 8.333333333333316e-3
    p = p * u - 0.16666666666666666
    return _float_of(_bits_of(r + r * u * p) ^ (_bits_of(shifted) << 63))


@inlined_kernel
def _cos(z: float) -> float:
    """−(−1)ᵏ sin(z − (k + ½)π) with k the integer next to z/π − ½."""
    shifted = (z * _PER_PI - 0.5) + _ROUND
    return -_sine_turned(z, 2.0 * (shifted - _ROUND) + 1.0, shifted)


@inlined_kernel
def _sin(z: float) -> float:
    """(−1)ᵏ sin(z − kπ) with k the integer next to z/π."""
    shifted = z * _PER_PI + _ROUND
    return _sine_turned(z, 2.0 * (shifted - _ROUND), shifted)


@fused_kernel
def _all_near(z: FloatArray) -> bool:
    far = 0
    for i in range(z.size):
        far += 0 if abs(z[i]) <= _FARTHEST_TURN else 1
    return far == 0


@fused_kernel
def fill_values(code: int, z: FloatArray) -> None:
    """z (n,) becomes σ(z)."""
    n = z.size
    if code == 0:
        for i in range(n):
            z[i] = _tanh(z[i])
    elif code == 1:
        for i in range(n):
            z[i] = _erf(z[i])
    elif code == 2:
        for i in range(n):
            z[i] = _sigmoid(z[i])
    elif code == 3:
        for i in range(n):
            z[i] = _softplus(z[i])
    elif code == 4:
        for i in range(n):
            z[i] = 0.0 if z[i] <= 0.0 else z[i]
    elif code == 5:
        for i in range(n):
            z[i] = _gelu(z[i])
    elif code == 6:
        for i in range(n):
            z[i] = _arctan(z[i])
    elif code == 7:
        for i in range(n):
            z[i] = _softsign(z[i])
    elif code == 8:
        for i in range(n):
            z[i] = _gaussian(z[i])
    elif code == 9:
        for i in range(n):
            z[i] = z[i] * z[i]
    elif code == 10 and _all_near(z):
        for i in range(n):
            z[i] = _cos(z[i])
    elif code == 10:
        for i in range(n):
            z[i] = np.cos(z[i])


@fused_kernel
def fill_slopes(code: int, z: FloatArray) -> None:
    """z (n,) becomes σ'(z)."""
    n = z.size
    if code == 0:
        for i in range(n):
            z[i] = 4.0 * _quarter_slope(z[i])
    elif code == 1:
        for i in range(n):
            z[i] = _erf_slope(z[i])
    elif code == 2:
        for i in range(n):
            z[i] = _quarter_slope(0.5 * z[i])
    elif code == 3:
        for i in range(n):
            z[i] = _sigmoid(z[i])
    elif code == 4:
        for i in range(n):
            z[i] = 1.0 if z[i] > 0.0 else 0.0
    elif code == 5:
        for i in range(n):
            z[i] = _gelu_slope(z[i])
    elif code == 6:
        for i in range(n):
            z[i] = _arctan_slope(z[i])
    elif code == 7:
        for i in range(n):
            z[i] = _softsign_slope(z[i])
    elif code == 8:
        for i in range(n):
            z[i] = _gaussian_slope(z[i])
    elif code == 9:
        for i in range(n):
            z[i] = 2.0 * z[i]
    elif code == 10 and _all_near(z):
        for i in range(n):
            z[i] = -_sin(z[i])
    elif code == 10:
        for i in range(n):
            z[i] = -np.sin(z[i])
    else:
        for i in range(n):
            z[i] = 1.0
