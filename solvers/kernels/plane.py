"""Explicit upwinding on a uniform plane in one pass over memory: both axes, the local energies and the update of a stage at once.

ξ = fixed + Σ c m ρ^{m−1}/(m − 1) is made row by row in buffers that stay in the cache. Rows are shared out in blocks to threads; sums
are kept block by block, so that they do not depend on the number of threads.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import kernel, parallel_kernel, prange, vector_kernel
from mfpde.solvers.kernels.edge import LEAST, edge

OUTFLOW_0, OUTFLOW_1, DISSIPATION, MINIMUM, FIXED_ENERGY, POWER_ENERGY, GAP, SLOPE_SIZE = range(8)
STATISTICS = 8
BLOCK = 64
CHUNK = 1 << 14


@kernel
def continued(here: float, beyond: float, slopes: float) -> float:
    """The value behind a wall that continues ρ^slopes linearly; its square has its sign where slopes are those of ρ²."""
    if slopes != 2.0:
        return 2.0 * here - beyond
    square = 2.0 * here * here - beyond * beyond
    return math.copysign(math.sqrt(abs(square)), square)


@kernel
def fill_padded(row: FloatArray, periodic: bool, slopes: float, out: FloatArray) -> None:
    """``out`` (n + 2,) = the row with one value more at each end: the other end's on a circle, a continuation at walls."""
    n = row.size
    for j in range(n):
        out[j + 1] = row[j]
    out[0] = row[n - 1] if periodic else continued(row[0], row[1], slopes)
    out[n + 1] = row[0] if periodic else continued(row[n - 1], row[n - 2], slopes)


@vector_kernel
def fill_variation(rho: FloatArray, fixed: FloatArray, exponents: FloatArray, coefficients: FloatArray, xi: FloatArray) -> None:
    """ξ of one row."""
    for j in range(rho.size):
        xi[j] = fixed[j]
    for k in range(exponents.size):
        m = exponents[k]
        factor = coefficients[k] * m / (m - 1.0)
        if m == 2.0:
            for j in range(rho.size):
                xi[j] += factor * rho[j]
        elif m == 3.0:
            for j in range(rho.size):
                xi[j] += factor * rho[j] * rho[j]
        else:
            for j in range(rho.size):
                xi[j] += factor * max(rho[j], 0.0 if m > 1.0 else 1e-30) ** (m - 1.0)


@vector_kernel
def fill_face_squares(
    beyond_a: FloatArray,
    a: FloatArray,
    b: FloatArray,
    beyond_b: FloatArray,
    xi_a: FloatArray,
    xi_b: FloatArray,
    inverse: float,
    flux: FloatArray,
) -> float:
    """The fluxes with slopes of ρ²; returns Σ flux · speed."""
    dissipation = 0.0
    for j in range(flux.size):
        speed = (xi_a[j] - xi_b[j]) * inverse
        left, right, before, after = a[j], b[j], beyond_a[j], beyond_b[j]
        forth = left * left + 0.25 * (right * right - before * abs(before))
        back = right * right + 0.25 * (left * left - after * abs(after))
        here = left if speed > 0.0 else right
        square = forth if speed > 0.0 else back
        found = math.sqrt(square if square > 0.0 else 0.0)
        found = found if found < 2.0 * here else 2.0 * here
        found = found if found > LEAST * here else LEAST * here
        value = speed * found
        flux[j] = value
        dissipation += value * speed
    return dissipation


@vector_kernel
def fill_face(
    beyond_a: FloatArray,
    a: FloatArray,
    b: FloatArray,
    beyond_b: FloatArray,
    xi_a: FloatArray,
    xi_b: FloatArray,
    inverse: float,
    slopes: float,
    flux: FloatArray,
) -> tuple[float, float]:
    """Fluxes through the faces between the values ``a`` and ``b``; returns (largest speed, Σ flux · speed).

    Comparisons are written as selections and the maximum as a loop of its own, which compilers turn into vector instructions.
    """
    fastest, dissipation = 0.0, 0.0
    if slopes == 2.0:
        dissipation = fill_face_squares(beyond_a, a, b, beyond_b, xi_a, xi_b, inverse, flux)
    share = 0.5 * slopes
    half = 0.5 * share
    for j in range(flux.size if slopes != 2.0 else 0):
        speed = (xi_a[j] - xi_b[j]) * inverse
        left, right = a[j], b[j]
        up, down = half * (right - beyond_a[j]), half * (beyond_b[j] - left)
        most_up, most_down = 2.0 * share * left, 2.0 * share * right
        up = up if up < most_up else most_up
        up = up if up > -most_up else -most_up
        down = down if down < most_down else most_down
        down = down if down > -most_down else -most_down
        value = speed * (left + up if speed > 0.0 else right - down)
        flux[j] = value
        dissipation += value * speed
    for j in range(flux.size):
        size = abs(xi_a[j] - xi_b[j])
        fastest = size if size > fastest else fastest
    return fastest * inverse, dissipation


@vector_kernel
def row_energy(
    rho: FloatArray, fixed: FloatArray, exponents: FloatArray, coefficients: FloatArray, xi: FloatArray
) -> tuple[float, float, float]:
    """Σ fixed · ρ, Σ c ρ^m/(m − 1) and Σ |ξ| ρ of one row."""
    linear, power, size = 0.0, 0.0, 0.0
    for j in range(rho.size):
        linear += fixed[j] * rho[j]
        size += abs(xi[j]) * rho[j]
    for k in range(exponents.size):
        m = exponents[k]
        total = 0.0
        if m == 2.0:
            for j in range(rho.size):
                total += rho[j] * rho[j]
        elif m == 3.0:
            for j in range(rho.size):
                total += rho[j] * rho[j] * rho[j]
        else:
            for j in range(rho.size):
                total += max(rho[j], 0.0) ** m
        power += coefficients[k] / (m - 1.0) * total
    return linear, power, size


@vector_kernel
def update_row(
    base: FloatArray,
    share: float,
    rho: FloatArray,
    dt: float,
    inverse_0: float,
    before: FloatArray,
    after: FloatArray,
    inverse_1: float,
    along: FloatArray,
    out: FloatArray,
) -> tuple[float, float]:
    """out = base + share (ρ − base) − dt div F, or the rate −div F where ``share`` is negative; returns (minimum, Σ|out − 2ρ + base|)."""
    least, gap = math.inf, 0.0
    if share < 0.0:
        for j in range(out.size):
            out[j] = (before[j] - after[j]) * inverse_0 + (along[j] - along[j + 1]) * inverse_1
        return least, gap
    for j in range(out.size):
        rate = (before[j] - after[j]) * inverse_0 + (along[j] - along[j + 1]) * inverse_1
        value = base[j] + share * (rho[j] - base[j]) + dt * rate
        out[j] = value
        gap += abs(value - 2.0 * rho[j] + base[j])
    for j in range(out.size):
        least = out[j] if out[j] < least else least
    return least, gap


@parallel_kernel
def plane_stage(
    rho: FloatArray,
    fixed: FloatArray,
    exponents: FloatArray,
    coefficients: FloatArray,
    spacing_0: float,
    spacing_1: float,
    periodic_0: bool,
    periodic_1: bool,
    slopes: float,
    base: FloatArray,
    share: float,
    dt: float,
    out: FloatArray,
    statistics: FloatArray,
) -> None:
    """One stage out = base + share (ρ − base) + dt rate(ρ) (``share`` < 0: out = rate), with ``statistics`` (blocks, 8) of ρ and
    out; its energies are found with the rate only."""
    rows, columns = rho.shape
    inverse_0, inverse_1 = 1.0 / spacing_0, 1.0 / spacing_1
    faces = rows if periodic_0 else rows - 1
    for block in prange((rows + BLOCK - 1) // BLOCK):
        start, end = block * BLOCK, min((block + 1) * BLOCK, rows)
        xi_here, xi_next = np.empty(columns), np.empty(columns)
        flux_before, flux_after = np.zeros(columns), np.zeros(columns)
        padded, padded_xi, along = np.empty(columns + 2), np.empty(columns + 2), np.zeros(columns + 1)
        behind = np.empty(columns)
        fast_0, fast_1, dissipation, least, linear, power, gap, size = 0.0, 0.0, 0.0, math.inf, 0.0, 0.0, 0.0, 0.0
        fill_variation(rho[start], fixed[start], exponents, coefficients, xi_here)
        for i in range(start - 1, end):
            if i == start - 1:
                if start == 0 and not periodic_0:
                    continue
                here, right = (i if i >= 0 else rows - 1), start
                fill_variation(rho[here], fixed[here], exponents, coefficients, xi_next)
                xi_a, xi_b = xi_next, xi_here
            else:
                here, right = i, (i + 1 if i + 1 < rows else 0)
                if i < faces:
                    fill_variation(rho[right], fixed[right], exponents, coefficients, xi_next)
                xi_a, xi_b = xi_here, xi_next
            if i < faces:
                if here > 0 or periodic_0:
                    beyond_a = rho[here - 1 if here > 0 else rows - 1]
                else:
                    for j in range(columns):
                        behind[j] = continued(rho[here, j], rho[right, j], slopes)
                    beyond_a = behind
                if right + 1 < rows or periodic_0:
                    beyond_b = rho[right + 1 if right + 1 < rows else 0]
                else:
                    for j in range(columns):
                        behind[j] = continued(rho[right, j], rho[here, j], slopes)
                    beyond_b = behind
                found = fill_face(beyond_a, rho[here], rho[right], beyond_b, xi_a, xi_b, inverse_0, slopes, flux_after)
                if i >= start:
                    dissipation += found[1]
                fast_0 = max(fast_0, found[0])
            else:
                flux_after[:] = 0.0
            if i >= start:
                fill_padded(rho[i], periodic_1, slopes, padded)
                fill_padded(xi_here, periodic_1, 1.0, padded_xi)
                found = fill_face(
                    padded[:-3],
                    padded[1:-2],
                    padded[2:-1],
                    padded[3:],
                    padded_xi[1:-2],
                    padded_xi[2:-1],
                    inverse_1,
                    slopes,
                    along[1:columns],
                )
                dissipation += found[1]
                fast_1 = max(fast_1, found[0])
                if periodic_1:
                    last = wrap_face(rho[i], xi_here, inverse_1, slopes)
                    along[0] = last[0]
                    along[columns] = last[0]
                    dissipation += last[0] * last[1]
                    fast_1 = max(fast_1, abs(last[1]))
                if share < 0.0:
                    energies = row_energy(rho[i], fixed[i], exponents, coefficients, xi_here)
                    linear += energies[0]
                    power += energies[1]
                    size += energies[2]
                made = update_row(base[i], share, rho[i], dt, inverse_0, flux_before, flux_after, inverse_1, along, out[i])
                least = min(least, made[0])
                gap += made[1]
                xi_here, xi_next = xi_next, xi_here
            flux_before, flux_after = flux_after, flux_before
        statistics[block, OUTFLOW_0], statistics[block, OUTFLOW_1] = 2.0 * fast_0 * inverse_0, 2.0 * fast_1 * inverse_1
        statistics[block, DISSIPATION], statistics[block, MINIMUM] = dissipation, least
        statistics[block, FIXED_ENERGY], statistics[block, POWER_ENERGY] = linear, power
        statistics[block, GAP], statistics[block, SLOPE_SIZE] = gap, size


@parallel_kernel
def plane_forward(rho: FloatArray, dt: float, rate: FloatArray, out: FloatArray, least: FloatArray) -> None:
    """out = ρ + dt rate, flat, with the minimum of every chunk, NaN if any value is."""
    for chunk in prange(least.size):
        start, end = chunk * CHUNK, min((chunk + 1) * CHUNK, rho.size)
        lowest, total = math.inf, 0.0
        for i in range(start, end):
            value = rho[i] + dt * rate[i]
            out[i] = value
            total += 0.0 * value
            lowest = value if value < lowest else lowest
        least[chunk] = lowest + total


@kernel
def wrap_face(rho: FloatArray, xi: FloatArray, inverse: float, slopes: float) -> tuple[float, float]:
    """The flux from the last value of a row to its first, and its speed."""
    n = rho.size
    speed = (xi[n - 1] - xi[0]) * inverse
    if speed > 0.0:
        return speed * edge(rho[n - 2], rho[n - 1], rho[0], True, slopes), speed
    return speed * edge(rho[1], rho[0], rho[n - 1], True, slopes), speed
