"""Steps of second order: the variational BDF2 method with variable steps."""

from mfpde.arrays import FloatArray


def bdf2(current: FloatArray, earlier: FloatArray, dt: float, earlier_dt: float) -> tuple[FloatArray, float]:
    """The target Y and the step σ with which the BDF2 step of length ``dt`` is the minimiser of E + |X − Y|²/(2σ).

    With ω = dt/earlier_dt: Y = ((1 + ω)² X_k − ω² X_{k−1})/(1 + 2ω) and σ = dt (1 + ω)/(1 + 2ω); for equal steps
    (4 X_k − X_{k−1})/3 and 2 dt/3. X are quantile functions or positions, for which W₂ is a distance in L².
    [Legendre–Plazotta 2017, Matthes–Plazotta 2019]
    """
    ratio = dt / earlier_dt
    target = current + (current - earlier) * (ratio * ratio / (1.0 + 2.0 * ratio))
    return target, dt * (1.0 + ratio) / (1.0 + 2.0 * ratio)
