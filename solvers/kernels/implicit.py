"""One implicit step along one axis: residuals, Jacobians and direct solutions for all lines of an array seen as (before, along, after).

The step from ``target`` g solves R(ρ) = ρ − g + dt div F(ρ) = 0 on every line. Bands hold ∂R_i/∂ρ_{i+k}, k = −w … w, first index k + w;
entries that reach beyond an end of a circle belong to the other end. ``mobility`` holds −∂F/∂(ξ_{i+1} − ξ_i) at the face after cell i.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.solvers.kernels.compile import kernel
from mfpde.solvers.kernels.edge import edge_slopes
from mfpde.solvers.kernels.transport import bernoulli

GAMMA = 1.0 - 0.5 * math.sqrt(2.0)
"""The L-stable two-stage SDIRK method of order two [Alexander 1977]: its diagonal, and below it the extrapolation of the first stage to
the second one's start and to a guess of the second stage."""
RATIO = (1.0 - 2.0 * GAMMA) / GAMMA
GUESS = (1.0 - GAMMA) / GAMMA
ERROR = ((1.0 - GAMMA) * GAMMA**2 + GAMMA * ((1.0 - GAMMA) * GAMMA + GAMMA) - 1.0 / 6.0) / GAMMA
"""The weight of the divided difference of the slopes at 0, γ and 1 that gives the method's local error for linear problems."""


@kernel
def scharfetter_gummel_coefficients(xi: FloatArray, temperature: float, periodic: bool, forth: FloatArray, back: FloatArray) -> None:
    """B(Δξ/T) and B(−Δξ/T) at the face after each cell."""
    before, cells, after = xi.shape
    for o in range(before):
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            for j in range(after):
                drop = (xi[o, right, j] - xi[o, i, j]) / temperature
                forth[o, i, j] = bernoulli(drop)
                back[o, i, j] = forth[o, i, j] + drop


@kernel
def assemble_scharfetter_gummel(
    rho: FloatArray,
    target: FloatArray,
    forth: FloatArray,
    back: FloatArray,
    curvature: FloatArray,
    temperature: float,
    dt: float,
    spacing: float,
    scale: FloatArray,
    area: FloatArray,
    volume: FloatArray,
    periodic: bool,
    residual: FloatArray,
    bands: FloatArray,
    mobility: FloatArray,
) -> None:
    """R and its three bands; ``curvature`` (before, along, after) is the derivative of ξ_i in ρ_i, or empty where ξ is frozen, and then
    the mobility is not needed and not filled."""
    before, cells, after = rho.shape
    bent = curvature.size > 0
    for o in range(before):
        for i in range(cells):
            for j in range(after):
                residual[o, i, j] = rho[o, i, j] - target[o, i, j]
                bands[0, o, i, j] = 0.0
                bands[1, o, i, j] = 1.0
                bands[2, o, i, j] = 0.0
        inverse = 1.0 / (spacing * scale[o])
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            forward, backward = dt / (volume[i] * scale[o]), dt / (volume[right] * scale[o])
            factor = temperature * inverse * area[i + 1]
            for j in range(after):
                a, b = rho[o, i, j], rho[o, right, j]
                by_a, by_b = factor * forth[o, i, j], -factor * back[o, i, j]
                flux = by_a * a + by_b * b
                if bent:
                    drop = back[o, i, j] - forth[o, i, j]
                    if abs(drop) < 1e-2:
                        square = drop * drop
                        slope = -0.5 + drop * (1.0 / 6.0 - square * (1.0 / 180.0 - square / 5040.0))
                    elif drop > 700.0:
                        slope = 0.0
                    else:
                        slope = (1.0 - forth[o, i, j] * math.exp(drop)) / math.expm1(drop) if drop > -700.0 else -1.0
                    weight = -(slope * a - (1.0 + slope) * b) * inverse * area[i + 1]
                    mobility[o, i, j] = weight
                    by_a += weight * curvature[o, i, j]
                    by_b -= weight * curvature[o, right, j]
                residual[o, i, j] += forward * flux
                residual[o, right, j] -= backward * flux
                bands[1, o, i, j] += forward * by_a
                bands[2, o, i, j] += forward * by_b
                bands[0, o, right, j] -= backward * by_a
                bands[1, o, right, j] -= backward * by_b


@kernel
def assemble_upwind(
    rho: FloatArray,
    target: FloatArray,
    xi: FloatArray,
    curvature: FloatArray,
    dt: float,
    spacing: float,
    scale: FloatArray,
    area: FloatArray,
    volume: FloatArray,
    periodic: bool,
    slopes: float,
    residual: FloatArray,
    bands: FloatArray,
    mobility: FloatArray,
) -> None:
    """R and its five bands for the fluxes of ``upwind_rate``, slopes and velocities all at the end of the step."""
    before, cells, after = rho.shape
    for o in range(before):
        for i in range(cells):
            for j in range(after):
                residual[o, i, j] = rho[o, i, j] - target[o, i, j]
                for k in range(5):
                    bands[k, o, i, j] = 0.0
                bands[2, o, i, j] = 1.0
        inverse = 1.0 / (spacing * scale[o])
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            forward, backward = dt / (volume[i] * scale[o]), dt / (volume[right] * scale[o])
            factor = inverse * area[i + 1]
            for j in range(after):
                a, b = rho[o, i, j], rho[o, right, j]
                drop = xi[o, i, j] - xi[o, right, j]
                by_before, by_after = 0.0, 0.0
                if drop > 0.0:
                    before_a = rho[o, i - 1 if i > 0 else cells - 1, j]
                    value, by_before, by_a, by_b = edge_slopes(before_a, a, b, i > 0 or periodic, slopes)
                else:
                    after_b = rho[o, right + 1 if right + 1 < cells else 0, j]
                    value, by_after, by_b, by_a = edge_slopes(after_b, b, a, right + 1 < cells or periodic, slopes)
                flux = factor * drop * value
                weight = factor * value
                mobility[o, i, j] = weight
                by_a = factor * drop * by_a + weight * curvature[o, i, j]
                by_b = factor * drop * by_b - weight * curvature[o, right, j]
                by_before *= factor * drop
                by_after *= factor * drop
                residual[o, i, j] += forward * flux
                residual[o, right, j] -= backward * flux
                bands[1, o, i, j] += forward * by_before
                bands[2, o, i, j] += forward * by_a
                bands[3, o, i, j] += forward * by_b
                bands[4, o, i, j] += forward * by_after
                bands[0, o, right, j] -= backward * by_before
                bands[1, o, right, j] -= backward * by_a
                bands[2, o, right, j] -= backward * by_b
                bands[3, o, right, j] -= backward * by_after


@kernel
def factor_bands(bands: FloatArray, count: int) -> None:
    """LU factors of the first ``count`` rows and columns of every line, in place, without pivoting: conservative upwind Jacobians are
    diagonally dominant by columns."""
    width = bands.shape[0] // 2
    before, after = bands.shape[1], bands.shape[3]
    for o in range(before):
        for i in range(count):
            for k in range(1, width + 1):
                row = i + k
                if row < count:
                    for j in range(after):
                        ratio = bands[width - k, o, row, j] / bands[width, o, i, j]
                        bands[width - k, o, row, j] = ratio
                        for m in range(1, width + 1):
                            if i + m < count:
                                bands[width + m - k, o, row, j] -= ratio * bands[width + m, o, i, j]


@kernel
def solve_bands(bands: FloatArray, count: int, right: FloatArray) -> None:
    """Solve with the factors, in place, for ``right`` (before, along, after)."""
    width = bands.shape[0] // 2
    before, after = bands.shape[1], bands.shape[3]
    for o in range(before):
        for i in range(1, count):
            for k in range(1, min(width, i) + 1):
                for j in range(after):
                    right[o, i, j] -= bands[width - k, o, i, j] * right[o, i - k, j]
        for i in range(count - 1, -1, -1):
            for k in range(1, min(width, count - 1 - i) + 1):
                for j in range(after):
                    right[o, i, j] -= bands[width + k, o, i, j] * right[o, i + k, j]
            for j in range(after):
                right[o, i, j] /= bands[width, o, i, j]


@kernel
def solve_bands_many(bands: FloatArray, count: int, right: FloatArray) -> None:
    """Solve with the factors of a single line, ``bands`` (2w + 1, 1, along, 1), for the columns of ``right`` (along, columns), in place."""
    width = bands.shape[0] // 2
    columns = right.shape[1]
    for i in range(1, count):
        for k in range(1, min(width, i) + 1):
            ratio = bands[width - k, 0, i, 0]
            for j in range(columns):
                right[i, j] -= ratio * right[i - k, j]
    for i in range(count - 1, -1, -1):
        for k in range(1, min(width, count - 1 - i) + 1):
            ratio = bands[width + k, 0, i, 0]
            for j in range(columns):
                right[i, j] -= ratio * right[i + k, j]
        inverse = 1.0 / bands[width, 0, i, 0]
        for j in range(columns):
            right[i, j] *= inverse


@kernel
def weighted_divergence(
    mobility: FloatArray, eta: FloatArray, dt: float, scale: FloatArray, volume: FloatArray, periodic: bool, out: FloatArray
) -> None:
    """out = ∂R/∂ξ · η = −dt div(mobility ∇η), what a change η of ξ does to the residual."""
    before, cells, after = eta.shape
    for o in range(before):
        for i in range(cells):
            for j in range(after):
                out[o, i, j] = 0.0
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            forward, backward = dt / (volume[i] * scale[o]), dt / (volume[right] * scale[o])
            for j in range(after):
                flux = mobility[o, i, j] * (eta[o, i, j] - eta[o, right, j])
                out[o, i, j] += forward * flux
                out[o, right, j] -= backward * flux


@kernel
def weighted_divergence_many(mobility: FloatArray, columns: FloatArray, factor: FloatArray, periodic: bool, out: FloatArray) -> None:
    """The same for the ``columns`` (along, r) of a single line; ``factor`` is dt over the cells' volumes."""
    cells, count = columns.shape
    out[:] = 0.0
    for i in range(cells if periodic and cells > 1 else cells - 1):
        right = i + 1 if i + 1 < cells else 0
        forward, backward = mobility[i] * factor[i], mobility[i] * factor[right]
        for k in range(count):
            gap = columns[i, k] - columns[right, k]
            out[i, k] += forward * gap
            out[right, k] -= backward * gap


@kernel
def extrapolated_target(start: FloatArray, stage: FloatArray, ratio: float, volume: FloatArray, periodic: bool, out: FloatArray) -> None:
    """out = stage + ratio (stage − start), its transport limited face by face so that no cell is emptied.

    ``stage`` and ``start`` have the same mass on every line. Flux-corrected transport [Zalesak 1979] with positivity as its only bound;
    on a circle the transport is known up to a constant, and the one of mean zero is taken.
    """
    before, cells, after = start.shape
    flow, share = np.empty(cells), np.empty(cells)
    for o in range(before):
        for j in range(after):
            least = 0.0
            for i in range(cells):
                out[o, i, j] = stage[o, i, j] + ratio * (stage[o, i, j] - start[o, i, j])
                least = min(least, out[o, i, j])
            if least >= 0.0:
                continue
            through, total = 0.0, 0.0
            for i in range(cells):
                through -= ratio * (stage[o, i, j] - start[o, i, j]) * volume[i]
                flow[i] = through
                total += through
            for i in range(cells):
                flow[i] -= total / cells if periodic else 0.0
            if not periodic:
                flow[cells - 1] = 0.0
            for i in range(cells):
                leaving = max(0.0, flow[i]) + max(0.0, -flow[i - 1])
                share[i] = min(1.0, 0.999 * stage[o, i, j] * volume[i] / leaving) if leaving > 0.0 else 1.0
            for i in range(cells):
                flow[i] *= share[i] if flow[i] > 0.0 else share[i + 1 if i + 1 < cells else 0]
            for i in range(cells):
                out[o, i, j] = max(stage[o, i, j] + (flow[i - 1] - flow[i]) / volume[i], 0.0)
