"""Densities that come back from dual potentials: (u*)' of a pressure, and pullbacks by maps S = x − τ∇φ.

Rows are shared out to threads in fixed blocks and every row has its own sums, so that nothing depends on the number of threads.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import kernel, parallel_kernel, prange

POWER, ENTROPY, CONGESTION = range(3)
"""Kinds of internal energies u: c ρ^m/(m − 1), c ρ log ρ and c ρ²/2 where ρ ≤ 1."""
MASS, SLOPE, CONJUGATE = range(3)
"""Columns of the sums of ``fill_density``."""
SIZE, PULLED = range(2)
"""Columns of the sums of ``fill_residual``."""
_BLOCK = 16


@kernel
def _respond(p: float, kind: int, exponent: float, coefficient: float) -> tuple[float, float, float]:
    """(u*)'(p), (u*)''(p) and u*(p)."""
    if kind == ENTROPY:
        value = math.exp(p / coefficient - 1.0)
        return value, value / coefficient, value * coefficient
    if p == -math.inf:
        return 0.0, 0.0, 0.0
    if kind == CONGESTION:
        value = min(max(p / coefficient, 0.0), 1.0)
        return value, 1.0 / coefficient if 0.0 < value < 1.0 else 0.0, value * (p - 0.5 * coefficient * value)
    if exponent > 1.0 and p <= 0.0:
        return 0.0, 0.0, 0.0
    if exponent < 1.0 and p >= 0.0:
        return math.inf, math.inf, math.inf
    base = (exponent - 1.0) / (coefficient * exponent) * p
    value = base if exponent == 2.0 else base ** (1.0 / (exponent - 1.0))
    return value, value / ((exponent - 1.0) * p), (exponent - 1.0) / exponent * value * p


@parallel_kernel
def fill_density(
    phi: FloatArray,
    potential: FloatArray,
    shift: float,
    kind: int,
    exponent: float,
    coefficient: float,
    rho: FloatArray,
    slope: FloatArray,
    sums: FloatArray,
) -> None:
    """ρ = (u*)'(shift − φ − V) and its slope (u*)'', with the sums of both and of u* over each row, (n1, 3); V = ∞ makes them 0."""
    rows, n = phi.shape
    for i in prange(rows):
        mass, rise, conjugate = 0.0, 0.0, 0.0
        for j in range(n):
            value, second, star = _respond(shift - phi[i, j] - potential[i, j], kind, exponent, coefficient)
            rho[i, j], slope[i, j] = value, second
            mass += value
            rise += second
            conjugate += star
        sums[i, MASS], sums[i, SLOPE], sums[i, CONJUGATE] = mass, rise, conjugate


@kernel
def _antidiffusion(one: float, two: float) -> float:
    """An eighth of a difference, so bounded that taking it from either side leaves more than half of what is there."""
    most = 0.25 * min(one, two)
    return float(min(max(0.125 * (two - one), -most), most))


@parallel_kernel
def fill_cumulative(mu: FloatArray, sharp: FloatArray, below: FloatArray, bend: FloatArray) -> None:
    """What ``fill_residual`` needs of μ: ``sharp`` (n1, n2), μ at the middles of rows, between which it is interpolated linearly, such
    that the rows keep their averages; ∫sharp along each row up to each face, (n1, n2 + 1); and half of its limited slope in each cell."""
    n1, n2 = mu.shape
    for i in prange(n1):
        for j in range(n2):
            value = mu[i, j]
            if i > 0:
                value += _antidiffusion(mu[i - 1, j], mu[i, j])
            if i < n1 - 1:
                value -= _antidiffusion(mu[i, j], mu[i + 1, j])
            sharp[i, j] = value
        total = 0.0
        for j in range(n2):
            here = sharp[i, j]
            below[i, j] = total
            total += here
            up, down = sharp[i, min(j + 1, n2 - 1)] - here, here - sharp[i, max(j - 1, 0)]
            most = 2.0 * min(abs(up), abs(down)) if up * down > 0.0 else 0.0
            bend[i, j] = 0.5 * min(max(0.5 * (up + down), -most), most)
        below[i, n2] = total


@kernel
def _sample(mu: FloatArray, below: FloatArray, bend: FloatArray, ahead: FloatArray, b: float, a: float) -> tuple[float, float, float]:
    """F(b, a) = ∫_0^a μ(b, ·), linear between rows and quadratic in the cells of a row, M(b) = F(b, ∞) and ∫_0^b M; coordinates in cells
    from the lower walls."""
    n1, n2 = mu.shape
    a = min(max(a, 0.0), float(n2))
    j = min(int(a), n2 - 1)
    s = a - j
    held = min(max(b - 0.5, 0.0), n1 - 1.0)
    i = int(held)
    k = min(i + 1, n1 - 1)
    t = held - i
    one = below[i, j] + s * (mu[i, j] + bend[i, j] * (s - 1.0))
    two = below[k, j] + s * (mu[k, j] + bend[k, j] * (s - 1.0))
    first = below[i, n2]
    rise = t * (below[k, n2] - first)
    before = ahead[i] + t * (first + 0.5 * rise)
    return one + t * (two - one), first + rise, before + (b - 0.5 - held) * (first + rise)


@kernel
def _edge_integral(width: float, one: float, middle: float, two: float) -> float:
    """∫ along an edge of this width from values at its ends and its middle, linear between them as μ is between rows."""
    return float(0.25 * width * (one + 2.0 * middle + two))


@kernel
def _map_corners(phi: FloatArray, i: int, time_1: float, time_2: float, b: FloatArray, a: FloatArray) -> None:
    """S at the corners below row i, (n2 + 1,), φ being continued by reflection."""
    n1, n2 = phi.shape
    up, down = min(i, n1 - 1), max(i - 1, 0)
    for j in range(n2 + 1):
        right, left = min(j, n2 - 1), max(j - 1, 0)
        one, two, three, four = phi[down, left], phi[down, right], phi[up, left], phi[up, right]
        b[j] = i - 0.5 * time_1 * (three + four - one - two)
        a[j] = j - 0.5 * time_2 * (two + four - one - three)


@kernel
def _integrate_edge(
    mu: FloatArray,
    below: FloatArray,
    bend: FloatArray,
    ahead: FloatArray,
    b0: float,
    a0: float,
    found0: FloatArray,
    b1: float,
    a1: float,
    found1: FloatArray,
) -> float:
    """∫F db along the edge between the images of two corners where F, M and ∫M were ``found``, (3,) each.

    The rule is for F − M where that is less than F, and M is integrated exactly: M cancels around a cell, but its errors would not, which
    are large for thin tails beyond bulks of mass.
    """
    width = b1 - b0
    if width == 0.0:
        return 0.0
    middle, whole, _ = _sample(mu, below, bend, ahead, 0.5 * (b0 + b1), 0.5 * (a0 + a1))
    if 2.0 * middle <= whole:
        return _edge_integral(width, found0[0], middle, found1[0])
    return float(_edge_integral(width, found0[0] - found0[1], middle - whole, found1[0] - found1[1]) + (found1[2] - found0[2]))


@kernel
def _integrate_row(
    mu: FloatArray,
    below: FloatArray,
    bend: FloatArray,
    ahead: FloatArray,
    b: FloatArray,
    a: FloatArray,
    found: FloatArray,
    flux: FloatArray,
) -> None:
    """F, M and ∫M at the images of corners, (n2 + 1, 3), and ∫F db along the edges between them, (n2,)."""
    for j in range(b.size):
        found[j, 0], found[j, 1], found[j, 2] = _sample(mu, below, bend, ahead, b[j], a[j])
    for j in range(flux.size):
        flux[j] = _integrate_edge(mu, below, bend, ahead, b[j], a[j], found[j], b[j + 1], a[j + 1], found[j + 1])


def fill_residual(
    phi: FloatArray,
    mu: FloatArray,
    below: FloatArray,
    bend: FloatArray,
    other: FloatArray,
    time_1: float,
    time_2: float,
    residual: FloatArray,
    sums: FloatArray,
) -> None:
    """other − S^*μ with S = x − τ∇φ, all (n1, n2), and the sums over each row of its size and of S^*μ, (n1, 2).

    S^*μ of a cell is the mass of μ in the cell's image, the polygon between the images of its corners, by Green's theorem
    ∫μ = ∮F db with ∂F/∂a = μ. Neighbours share their edges, so that mass is conserved. ``time_k`` = τ/h_k²; along an axis of one cell
    nothing moves.
    """
    whole = below[:, -1]
    ahead = np.concatenate([[0.0], np.cumsum(0.5 * (whole[1:] + whole[:-1]))]) + 0.5 * whole[0]
    _fill_rows(phi, mu, below, bend, ahead, other, time_1, time_2, residual, sums)


@parallel_kernel
def _fill_rows(
    phi: FloatArray,
    mu: FloatArray,
    below: FloatArray,
    bend: FloatArray,
    ahead: FloatArray,
    other: FloatArray,
    time_1: float,
    time_2: float,
    residual: FloatArray,
    sums: FloatArray,
) -> None:
    """As ``fill_residual``, ``ahead`` (n1,) being the mass of μ in front of the middles of rows."""
    n1, n2 = phi.shape
    for block in prange((n1 + _BLOCK - 1) // _BLOCK):
        b0, a0, corner0, flux0 = np.empty(n2 + 1), np.empty(n2 + 1), np.empty((n2 + 1, 3)), np.empty(n2)
        b1, a1, corner1, flux1 = np.empty(n2 + 1), np.empty(n2 + 1), np.empty((n2 + 1, 3)), np.empty(n2)
        first = block * _BLOCK
        _map_corners(phi, first, time_1, time_2, b0, a0)
        _integrate_row(mu, below, bend, ahead, b0, a0, corner0, flux0)
        for i in range(first, min(first + _BLOCK, n1)):
            _map_corners(phi, i + 1, time_1, time_2, b1, a1)
            _integrate_row(mu, below, bend, ahead, b1, a1, corner1, flux1)
            left, size, pulled = 0.0, 0.0, 0.0
            for j in range(n2 + 1):
                right = _integrate_edge(mu, below, bend, ahead, b0[j], a0[j], corner0[j], b1[j], a1[j], corner1[j])
                if j > 0:
                    value = right - left + flux0[j - 1] - flux1[j - 1]
                    difference = other[i, j - 1] - value
                    residual[i, j - 1] = difference
                    size += abs(difference)
                    pulled += value
                left = right
            sums[i, SIZE], sums[i, PULLED] = size, pulled
            b0, b1, a0, a1 = b1, b0, a1, a0
            corner0, corner1, flux0, flux1 = corner1, corner0, flux1, flux0


@parallel_kernel
def fill_stiffness(phi: FloatArray, pulled: FloatArray, time_1: float, time_2: float, one: FloatArray, two: FloatArray) -> None:
    """The diagonal of τ S^*μ (DS)⁻¹/h² along both axes, (n1, n2) each: how S^*μ answers to a change of φ."""
    n1, n2 = phi.shape
    for i in prange(n1):
        i0, i1 = max(i - 1, 0), min(i + 1, n1 - 1)
        for j in range(n2):
            j0, j1 = max(j - 1, 0), min(j + 1, n2 - 1)
            stretch_1 = 1.0 - time_1 * (phi[i1, j] - 2.0 * phi[i, j] + phi[i0, j])
            stretch_2 = 1.0 - time_2 * (phi[i, j1] - 2.0 * phi[i, j] + phi[i, j0])
            density = max(pulled[i, j], 0.0)
            one[i, j] = time_1 * density / max(stretch_1, 0.01)
            two[i, j] = time_2 * density / max(stretch_2, 0.01)


@parallel_kernel
def apply_stiffness(v: FloatArray, slope: FloatArray, one: FloatArray, two: FloatArray, out: FloatArray, products: FloatArray) -> None:
    """out = slope · v − ∇·(stiffness ∇v) with no flux at walls, and Σ out · v over each row, (n1,)."""
    n1, n2 = v.shape
    for i in prange(n1):
        i0, i1 = max(i - 1, 0), min(i + 1, n1 - 1)
        product = 0.0
        for j in range(n2):
            j0, j1 = max(j - 1, 0), min(j + 1, n2 - 1)
            here, a, b = v[i, j], one[i, j], two[i, j]
            value = slope[i, j] * here
            value += 0.5 * (a + one[i1, j]) * (here - v[i1, j]) + 0.5 * (a + one[i0, j]) * (here - v[i0, j])
            value += 0.5 * (b + two[i, j1]) * (here - v[i, j1]) + 0.5 * (b + two[i, j0]) * (here - v[i, j0])
            out[i, j] = value
            product += value * here
        products[i] = product


@parallel_kernel
def fill_products(one: FloatArray, two: FloatArray, products: FloatArray) -> None:
    """Σ one · two over each row, (n1,)."""
    for i in prange(one.shape[0]):
        product = 0.0
        for j in range(one.shape[1]):
            product += one[i, j] * two[i, j]
        products[i] = product


def inner(one: FloatArray, two: FloatArray, products: FloatArray) -> float:
    """Σ one · two, the same for every number of threads; ``products`` (n1,) is scratch."""
    fill_products(one, two, products)
    return float(np.sum(products))
