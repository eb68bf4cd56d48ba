"""Finite-volume fluxes along one axis of an array seen as (before, along, after), on the geometry of ``mfpde.domain.Metric``.

All add −div F to ``rate`` and return (largest outflow rate of a cell per unit of its content, Σ area · F · (−Δξ) over the faces).
"""

import math

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel
from mfpde.solvers.kernels.compile import kernel
from mfpde.solvers.kernels.edge import PRESSURE_OUTFLOW, edge


@kernel
def upwind_rate(
    rho: FloatArray,
    xi: FloatArray,
    spacing: float,
    scale: FloatArray,
    area: FloatArray,
    volume: FloatArray,
    periodic: bool,
    slopes: float,
    rate: FloatArray,
) -> tuple[float, float]:
    """Upwinding of the whole flux −ρ∇ξ, of first order (``slopes`` 0) or of second [Carrillo–Chertock–Huang 2015].

    The velocity −(ξ_{i+1} − ξ_i)/h meets the edge value of the upwind cell, from central slopes of ρ^slopes that are limited so that both
    edges are nonnegative (one-sided at a wall). The limiter is Lipschitz, so step sizes do not chatter at fronts.
    The flux through the face before is carried along each line, so that no cell is written twice and waits for itself.
    """
    before, cells, after = rho.shape
    faces = cells if periodic and cells > 1 else cells - 1
    fastest = 0.0
    dissipation = 0.0
    for o in range(before):
        inverse = 1.0 / (spacing * scale[o])
        for j in range(after):
            last = 0.0
            for i in range(faces):
                right = i + 1 if i + 1 < cells else 0
                a, b = rho[o, i, j], rho[o, right, j]
                drop = xi[o, i, j] - xi[o, right, j]
                if drop > 0.0:
                    before_a = rho[o, i - 1 if i > 0 else cells - 1, j]
                    flux = drop * inverse * edge(before_a, a, b, i > 0 or periodic, slopes)
                else:
                    after_b = rho[o, right + 1 if right + 1 < cells else 0, j]
                    flux = drop * inverse * edge(after_b, b, a, right + 1 < cells or periodic, slopes)
                flux *= area[i + 1]
                rate[o, i, j] += (last - flux) / (volume[i] * scale[o])
                last = flux
                dissipation += flux * drop
                fastest = max(fastest, abs(drop) * inverse * area[i + 1] / (min(volume[i], volume[right]) * scale[o]))
            end = 0 if faces == cells else cells - 1
            rate[o, end, j] += last / (volume[end] * scale[o])
    if slopes > 0.0 and slopes != 1.0:
        return PRESSURE_OUTFLOW * fastest, dissipation
    return (2.0 if slopes > 0.0 or cells > 2 else 1.0) * fastest, dissipation


@kernel
def bernoulli(x: float) -> float:
    """x / (eˣ − 1)."""
    if abs(x) < 1e-4:
        return 1.0 - 0.5 * x + x * x / 12.0
    if x > 700.0:
        return 0.0
    if x < -700.0:
        return -x
    return x / math.expm1(x)


@kernel
def scharfetter_gummel_rate(
    rho: FloatArray,
    xi: FloatArray,
    temperature: float,
    spacing: float,
    scale: FloatArray,
    area: FloatArray,
    volume: FloatArray,
    periodic: bool,
    rate: FloatArray,
) -> tuple[float, float]:
    """Scharfetter–Gummel flux of −(T∇ρ + ρ∇ξ): exact for constant flux, so a Gibbs state e^{−ξ/T} is stationary to round-off.

    Its sign is that of −Δ(ξ + T log ρ) at every face, so the free energy decays [Schlichting–Seis 2022].
    """
    before, cells, after = rho.shape
    fastest = 0.0
    dissipation = 0.0
    tiny = 1e-300
    for o in range(before):
        inverse = 1.0 / (spacing * scale[o])
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            forward, backward = 1.0 / (volume[i] * scale[o]), 1.0 / (volume[right] * scale[o])
            factor = temperature * inverse * area[i + 1]
            for j in range(after):
                drop = (xi[o, right, j] - xi[o, i, j]) / temperature
                forth = bernoulli(drop)
                back = forth + drop
                a, b = rho[o, i, j], rho[o, right, j]
                flux = factor * (forth * a - back * b)
                rate[o, i, j] -= flux * forward
                rate[o, right, j] += flux * backward
                if flux != 0.0:
                    rise = drop + math.log(max(b, tiny) / max(a, tiny))
                    dissipation -= flux * temperature * rise
                fastest = max(fastest, factor * forth * forward, factor * back * backward)
    return 2.0 * fastest, dissipation


@sum_kernel
def frozen_drops(xi: FloatArray, temperature: float, periodic: bool, drops: FloatArray, forth: FloatArray) -> None:
    """Δξ/T and Bernoulli's function of it at the face after each cell, for ``frozen_rate``."""
    before, cells, after = xi.shape
    for o in range(before):
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            for j in range(after):
                drops[o, i, j] = (xi[o, right, j] - xi[o, i, j]) / temperature
                forth[o, i, j] = bernoulli(drops[o, i, j])


@sum_kernel
def frozen_rate(
    rho: FloatArray,
    logs: FloatArray,
    drops: FloatArray,
    forth: FloatArray,
    temperature: float,
    spacing: float,
    scale: FloatArray,
    area: FloatArray,
    volume: FloatArray,
    periodic: bool,
    rate: FloatArray,
) -> tuple[float, float]:
    """``scharfetter_gummel_rate`` where ξ does not change: from ``frozen_drops`` and the logarithms of ρ."""
    before, cells, after = rho.shape
    fastest, dissipation = 0.0, 0.0
    for o in range(before):
        inverse = 1.0 / (spacing * scale[o])
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            forward, backward = 1.0 / (volume[i] * scale[o]), 1.0 / (volume[right] * scale[o])
            factor = temperature * inverse * area[i + 1]
            most, least = 0.0, 0.0
            for j in range(after):
                drop, a = drops[o, i, j], forth[o, i, j]
                flux = factor * (a * rho[o, i, j] - (a + drop) * rho[o, right, j])
                rate[o, i, j] -= flux * forward
                rate[o, right, j] += flux * backward
                dissipation -= flux * temperature * (drop + logs[o, right, j] - logs[o, i, j])
                most, least = max(most, a), max(least, a + drop)
            fastest = max(fastest, factor * most * forward, factor * least * backward)
    return 2.0 * fastest, dissipation


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
def embedded_gap(start: FloatArray, middle: FloatArray, end: FloatArray, weight: FloatArray) -> float:
    """Σ |u₃ − (2u₂ − u)| weight: the third-order step against the second-order one hidden in its stages; ``weight`` is (size,) or (1,)."""
    total = 0.0
    if weight.size == 1:
        for i in range(end.size):
            total += abs(end[i] - 2.0 * middle[i] + start[i])
        total *= weight[0]
    else:
        for i in range(end.size):
            total += abs(end[i] - 2.0 * middle[i] + start[i]) * weight[i]
    return total
