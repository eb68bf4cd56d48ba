"""Logarithms of whole arrays on vectors; the processor's library takes them one by one."""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import fused_kernel
from mfpde.energy.internal import TINY

_HALF_ROOT = 0x3FE6A09E667F3BCD
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_C1, _C2, _C3, _C4 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01
_C5, _C6, _C7 = 1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01


@fused_kernel
def logarithms(values: FloatArray, scratch: FloatArray, out: FloatArray) -> None:
    """out = log max(values, 1e-300) to one unit in the last place, by the reduction and the polynomial of fdlibm's ``log``.

    Flat arrays of one size; ``scratch`` may be ``values`` if they are no longer needed.
    """
    n = values.size
    for i in range(n):
        scratch[i] = max(values[i], TINY)
    bits, exponents = scratch.view(np.int64), out.view(np.int64)
    for i in range(n):
        exponent = (bits[i] - _HALF_ROOT) >> 52
        exponents[i] = exponent
        bits[i] -= exponent << 52
    for i in range(n):
        k = float(exponents[i])
        f = scratch[i] - 1.0
        s = f / (2.0 + f)
        z = s * s
        half = 0.5 * f * f
        rest = z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * (_C6 + z * _C7))))))
        out[i] = k * _LN2_HIGH - ((half - (s * (half + rest) + k * _LN2_LOW)) - f)
