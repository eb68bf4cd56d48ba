"""Finite-volume fluxes along one axis of an array seen as (before, along, after).

All add −∂F to ``rate`` and return (largest outflow rate of a cell per unit of its content, Σ F · (−Δξ)/h over the faces).
"""

import math

from mfpde.arrays import FloatArray
from mfpde.solvers.kernels.compile import kernel


@kernel
def upwind_rate(rho: FloatArray, xi: FloatArray, h: float, periodic: bool, rate: FloatArray) -> tuple[float, float]:
    """Limited second-order upwinding of the whole flux −ρ∇ξ [Carrillo–Chertock–Huang 2015].

    The velocity −(ξ_{i+1} − ξ_i)/h meets the edge value of the upwind cell, reconstructed with the central slope limited so that both
    edges are nonnegative (one-sided at a wall). The limiter is Lipschitz, so step sizes do not chatter at fronts.
    """
    before, cells, after = rho.shape
    fastest = 0.0
    dissipation = 0.0
    for o in range(before):
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            for j in range(after):
                speed = (xi[o, i, j] - xi[o, right, j]) / h
                up = i if speed > 0.0 else right
                sign = 1.0 if speed > 0.0 else -1.0
                centre = rho[o, up, j]
                if cells == 1:
                    left_step = right_step = 0.0
                elif periodic or 0 < up < cells - 1:
                    left_step = centre - rho[o, up - 1 if up > 0 else cells - 1, j]
                    right_step = rho[o, up + 1 if up + 1 < cells else 0, j] - centre
                elif up == 0:
                    right_step = rho[o, 1, j] - centre
                    left_step = right_step
                else:
                    left_step = centre - rho[o, up - 1, j]
                    right_step = left_step
                slope = max(-2.0 * centre, min(2.0 * centre, 0.5 * (left_step + right_step)))
                flux = speed * (centre + sign * 0.5 * slope)
                rate[o, i, j] -= flux / h
                rate[o, right, j] += flux / h
                dissipation += flux * speed
                fastest = max(fastest, abs(speed))
    return 2.0 * fastest / h, dissipation


@kernel
def scharfetter_gummel_rate(
    rho: FloatArray, xi: FloatArray, temperature: float, h: float, periodic: bool, rate: FloatArray
) -> tuple[float, float]:
    """Scharfetter–Gummel flux of −(T∇ρ + ρ∇ξ): exact for constant flux, so a Gibbs state e^{−ξ/T} is stationary to round-off.

    Its sign is that of −Δ(ξ + T log ρ) at every face, so the free energy decays [Schlichting–Seis 2022].
    """
    before, cells, after = rho.shape
    fastest = 0.0
    dissipation = 0.0
    tiny = 1e-300
    for o in range(before):
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            for j in range(after):
                drop = (xi[o, right, j] - xi[o, i, j]) / temperature
                if abs(drop) < 1e-4:
                    forth = 1.0 - 0.5 * drop + drop * drop / 12.0
                elif drop > 700.0:
                    forth = 0.0
                else:
                    forth = drop / math.expm1(drop)
                back = forth + drop
                a, b = rho[o, i, j], rho[o, right, j]
                flux = temperature / h * (forth * a - back * b)
                rate[o, i, j] -= flux / h
                rate[o, right, j] += flux / h
                if flux != 0.0:
                    rise = drop + math.log(max(b, tiny) / max(a, tiny))
                    dissipation -= flux * temperature * rise / h
                fastest = max(fastest, forth, back)
    return 2.0 * temperature * fastest / (h * h), dissipation


@kernel
def combine(first: FloatArray, share: float, second: FloatArray, dt: float, rate: FloatArray, out: FloatArray) -> float:
    """out = first + share·(second − first) + dt·rate, whose mass is that of both; returns its minimum (NaN if any value is)."""
    least = math.inf
    for i in range(out.size):
        value = first[i] + share * (second[i] - first[i]) + dt * rate[i]
        out[i] = value
        if not value >= least:
            least = value
    return least


@kernel
def embedded_gap(start: FloatArray, middle: FloatArray, end: FloatArray) -> float:
    """Σ |u₃ − (2u₂ − u)|: the third-order step against the second-order one hidden in its stages."""
    total = 0.0
    for i in range(end.size):
        total += abs(end[i] - 2.0 * middle[i] + start[i])
    return total
