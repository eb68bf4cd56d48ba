"""Implicit steps of linear Scharfetter–Gummel diffusion with frozen drift, on all lines of an array seen as (before, along, after).

div F(ρ)_i = low_i ρ_{i−1} + diagonal_i ρ_i + up_i ρ_{i+1}, indices counted round the circle on periodic axes. The matrices 1 + dt A are
M-matrices with column sums one: elimination without pivoting is stable and keeps nonnegative data nonnegative to the bit.
"""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel
from mfpde.solvers.kernels.transport import bernoulli


@sum_kernel
def fill_operator(
    xi: FloatArray,
    temperature: float,
    spacing: float,
    scale: FloatArray,
    area: FloatArray,
    volume: FloatArray,
    periodic: bool,
    low: FloatArray,
    diagonal: FloatArray,
    up: FloatArray,
) -> None:
    """The coefficients of A; arrays (before, along, after)."""
    before, cells, after = xi.shape
    for o in range(before):
        low[o], diagonal[o], up[o] = 0.0, 0.0, 0.0
        for i in range(cells if periodic and cells > 1 else cells - 1):
            right = i + 1 if i + 1 < cells else 0
            factor = temperature * area[i + 1] / (spacing * scale[o])
            forward, backward = factor / (volume[i] * scale[o]), factor / (volume[right] * scale[o])
            for j in range(after):
                drop = (xi[o, right, j] - xi[o, i, j]) / temperature
                forth = bernoulli(drop)
                back = forth + drop
                diagonal[o, i, j] += forward * forth
                up[o, i, j] -= forward * back
                low[o, right, j] -= backward * forth
                diagonal[o, right, j] += backward * back


@sum_kernel
def apply_operator(low: FloatArray, diagonal: FloatArray, up: FloatArray, rho: FloatArray, out: FloatArray) -> None:
    """out = Aρ."""
    before, cells, after = rho.shape
    for o in range(before):
        for i in range(cells):
            left, right = i - 1 if i > 0 else cells - 1, i + 1 if i + 1 < cells else 0
            for j in range(after):
                out[o, i, j] = diagonal[o, i, j] * rho[o, i, j] + low[o, i, j] * rho[o, left, j] + up[o, i, j] * rho[o, right, j]


@sum_kernel
def factor_operator(
    low: FloatArray,
    diagonal: FloatArray,
    up: FloatArray,
    dt: float,
    periodic: bool,
    lower: FloatArray,
    inverse: FloatArray,
    upper: FloatArray,
    column: FloatArray,
    corner: FloatArray,
) -> None:
    """LU factors of 1 + dt A; on circles those of its leading block, with the last cell as a border: ``column`` and ``corner``
    (before, after)."""
    before, cells, after = low.shape
    count = cells - 1 if periodic and cells > 1 else cells
    for o in range(before):
        for j in range(after):
            inverse[o, 0, j] = 1.0 / (1.0 + dt * diagonal[o, 0, j])
        for i in range(1, count):
            for j in range(after):
                lower[o, i, j] = dt * low[o, i, j] * inverse[o, i - 1, j]
                upper[o, i - 1, j] = dt * up[o, i - 1, j]
                inverse[o, i, j] = 1.0 / (1.0 + dt * diagonal[o, i, j] - lower[o, i, j] * upper[o, i - 1, j])
        if count < cells:
            column[o] = 0.0
            for j in range(after):
                column[o, 0, j] += dt * low[o, 0, j]
                column[o, count - 1, j] += dt * up[o, count - 1, j]
    if count < cells:
        substitute(lower, inverse, upper, count, column)
        for o in range(before):
            for j in range(after):
                rest = low[o, count, j] * column[o, count - 1, j] + up[o, count, j] * column[o, 0, j]
                corner[o, j] = 1.0 / (1.0 + dt * (diagonal[o, count, j] - rest))


@sum_kernel
def substitute(lower: FloatArray, inverse: FloatArray, upper: FloatArray, count: int, values: FloatArray) -> None:
    """Forward and back substitution in the first ``count`` cells of every line, in place."""
    before, after = values.shape[0], values.shape[2]
    for o in range(before):
        if after == 1:
            last = values[o, 0, 0]
            for i in range(1, count):
                last = values[o, i, 0] - lower[o, i, 0] * last
                values[o, i, 0] = last
            last *= inverse[o, count - 1, 0]
            values[o, count - 1, 0] = last
            for i in range(count - 2, -1, -1):
                last = (values[o, i, 0] - upper[o, i, 0] * last) * inverse[o, i, 0]
                values[o, i, 0] = last
        else:
            for i in range(1, count):
                for j in range(after):
                    values[o, i, j] -= lower[o, i, j] * values[o, i - 1, j]
            for j in range(after):
                values[o, count - 1, j] *= inverse[o, count - 1, j]
            for i in range(count - 2, -1, -1):
                for j in range(after):
                    values[o, i, j] = (values[o, i, j] - upper[o, i, j] * values[o, i + 1, j]) * inverse[o, i, j]


@sum_kernel
def solve_operator(
    low: FloatArray,
    up: FloatArray,
    dt: float,
    periodic: bool,
    lower: FloatArray,
    inverse: FloatArray,
    upper: FloatArray,
    column: FloatArray,
    corner: FloatArray,
    values: FloatArray,
) -> None:
    """Solve (1 + dt A) x = values, in place, with the factors."""
    before, cells, after = values.shape
    count = cells - 1 if periodic and cells > 1 else cells
    substitute(lower, inverse, upper, count, values)
    if count < cells:
        for o in range(before):
            for j in range(after):
                rest = dt * (low[o, count, j] * values[o, count - 1, j] + up[o, count, j] * values[o, 0, j])
                end = (values[o, count, j] - rest) * corner[o, j]
                values[o, count, j] = end
                for i in range(count):
                    values[o, i, j] -= column[o, i, j] * end


@sum_kernel
def line_masses(values: FloatArray, o: int, volume: FloatArray, masses: FloatArray) -> None:
    """The masses (after,) of the lines ``o`` of ``values`` (before, along, after)."""
    cells, after = values.shape[1:]
    if after == 1:
        total = 0.0
        for i in range(cells):
            total += values[o, i, 0] * volume[i]
        masses[0] = total
        return
    masses[:] = 0.0
    for i in range(cells):
        for j in range(after):
            masses[j] += values[o, i, j] * volume[i]


@sum_kernel
def conserve_lines(rho: FloatArray, target: FloatArray, volume: FloatArray) -> None:
    """Scale every line of ``rho`` to the mass of ``target``, in place."""
    before, cells, after = rho.shape
    held, wanted = np.empty(after), np.empty(after)
    for o in range(before):
        line_masses(rho, o, volume, held)
        line_masses(target, o, volume, wanted)
        for j in range(after):
            held[j] = wanted[j] / held[j] if held[j] > 0.0 else 1.0
        if after == 1:
            ratio = held[0]
            for i in range(cells):
                rho[o, i, 0] = max(rho[o, i, 0] * ratio, 0.0)
            continue
        for i in range(cells):
            for j in range(after):
                rho[o, i, j] = max(rho[o, i, j] * held[j], 0.0)


@sum_kernel
def project_lines(error: FloatArray, rho: FloatArray, volume: FloatArray) -> None:
    """Take from every line of ``error`` what round-off left in its mass, in proportion to ``rho``: a step changes no line's mass, and the
    inverse of 1 + dt A, which damps all else, would keep it."""
    before, cells, after = rho.shape
    wrong, held = np.empty(after), np.empty(after)
    for o in range(before):
        line_masses(error, o, volume, wrong)
        line_masses(rho, o, volume, held)
        for j in range(after):
            wrong[j] = wrong[j] / held[j] if held[j] > 0.0 else 0.0
        if after == 1:
            ratio = wrong[0]
            for i in range(cells):
                error[o, i, 0] -= ratio * rho[o, i, 0]
            continue
        for i in range(cells):
            for j in range(after):
                error[o, i, j] -= wrong[j] * rho[o, i, j]


@sum_kernel
def stage_error(
    start: FloatArray,
    divergence: FloatArray,
    first: FloatArray,
    target: FloatArray,
    second: FloatArray,
    dt: float,
    gamma: float,
    weight: float,
    out: FloatArray,
) -> None:
    """``weight`` times dt times the divided difference of the slopes at 0, γ and 1. Flat arrays.

    ``divergence`` is div F at the start; the slopes are −divergence, (first − start)/(γ dt) and (second − target)/(γ dt).
    """
    at_start, at_first, at_end = weight / gamma, weight / (gamma * (gamma - 1.0)), weight / (1.0 - gamma)
    for i in range(start.size):
        slopes = at_first * (first[i] - start[i]) + at_end * (second[i] - target[i])
        out[i] = slopes / gamma - at_start * dt * divergence[i]
