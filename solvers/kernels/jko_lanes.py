"""Newton's method for internal energies of a quantile function, on vectors: the levels are cut into LANES pieces that advance together.

The tridiagonal matrix is eliminated inside all pieces at once, each with the column of its first level, and what is left is tridiagonal in
the first levels [Wang 1981]. ``work`` holds FIELDS rows of LANES numbers for every row of levels and one more: level p·rows + j is in row
j and lane p, so that loops over the lanes run on vectors and all their arrays are one. ``carry`` holds what goes from row to row.

The internal energy of a density is a sum of T ρ log ρ and of c_m ρ^m/(m − 1) for m = 2, 3, 4: its pressure is a polynomial.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import fused_kernel, inlined_kernel, vector_kernel

LANES = 24
FIELDS = 8
_ROW, _DEPTH = FIELDS * LANES, 4
PLACE, AIM, _MASS, _STEP, _SPIKE, _NEXT, _WIDE, _NODE = (k * LANES for k in range(FIELDS))
"""Where in a row: the level, where it aims, the mass of the cell above it, its step, the column of the piece's first level, the share of
the next level, the inverse width of the cell, and the inverse mass of the level."""
_BEHIND, _STIFF, _ANCHOR, _UPPER, _PIVOT, _LOAD, _DROP = (k * LANES for k in range(7))
_TURNED, _CROSS, _HOLD, _SHRINK, _WIDEN, _ENERGY, _ENTROPY = (k * LANES for k in range(7, 14))
CARRY = 14 * LANES
FEWEST = LANES * (LANES + 1)
_HELD, _TINY = 1e200, 1e-300
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_HALF_ROOT = 0x3FE6A09E667F3BCD
_C1, _C2, _C3, _C4 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01
_C5, _C6, _C7 = 1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01


def size_of(levels: int) -> int:
    """The size of ``work`` for so many levels, at least FEWEST."""
    return (-(-levels // LANES) + 1) * _ROW


@fused_kernel
def fill_masses(work: FloatArray, masses: FloatArray, high: float, spacing: float) -> None:
    """What does not change: the masses (n,) of the cells, 0 beyond the last level, and the inverse ones of the levels."""
    levels = len(masses) + 1
    rows = -(-levels // LANES)
    work[:] = 0.0
    for p in range(LANES):
        for j in range(rows):
            i, o = p * rows + j, j * _ROW + p
            below, above = masses[i - 1] if 0 < i < levels else 0.0, masses[i] if i < levels - 1 else 0.0
            work[o + _MASS] = above
            work[o + _NODE] = 2.0 / (below + above) if i < levels else 0.0
    for p in range(LANES):
        for j in range(rows + 1):
            i = p * rows + j
            if i >= levels:
                work[j * _ROW + p + PLACE] = work[j * _ROW + p + AIM] = high + (i - levels + 1) * spacing


@vector_kernel
def extrapolate(
    guess: FloatArray, missed: FloatArray, factor: float, here: FloatArray, low: float, high: float, share: float, ahead: FloatArray
) -> bool:
    """ahead = guess + factor · missed, all (n + 1,); whether its cells between the walls are all wider than this ``share`` of those
    ``here``."""
    narrow, last = 0, len(guess) - 1
    for i in range(last + 1):
        ahead[i] = guess[i] + factor * missed[i]
    ahead[0], ahead[last] = max(ahead[0], low), min(ahead[last], high)
    for i in range(last):
        width = min(ahead[i + 1], high) - max(ahead[i], low)
        narrow += 0 if width > share * (here[i + 1] - here[i]) else 1
    return narrow == 0


@vector_kernel
def subtract(places: FloatArray, guess: FloatArray, missed: FloatArray) -> None:
    """missed = places − guess, all (n + 1,)."""
    for i in range(len(guess)):
        missed[i] = places[i] - guess[i]


@fused_kernel
def _load(work: FloatArray, places: FloatArray, field: int) -> None:
    """Write places (n + 1,) into a field."""
    levels = len(places)
    rows = -(-levels // LANES)
    for j in range(rows):
        o = j * _ROW + field
        for p in range(LANES - 1):
            work[o + p] = places[p * rows + j]
    first = (LANES - 1) * rows
    for j in range(levels - first):
        work[j * _ROW + field + LANES - 1] = places[first + j]
    for p in range(LANES - 1):
        work[rows * _ROW + field + p] = work[field + p + 1]


@fused_kernel
def _aim_there(work: FloatArray) -> None:
    """Aim at the levels themselves."""
    for j in range(len(work) // _ROW):
        row = work[j * _ROW : (j + 1) * _ROW]
        for p in range(LANES):
            row[p + AIM] = row[p + PLACE]


@fused_kernel
def _store(work: FloatArray, places: FloatArray) -> None:
    levels = len(places)
    rows = -(-levels // LANES)
    for j in range(rows):
        o = j * _ROW + PLACE
        for p in range(LANES - 1):
            places[p * rows + j] = work[o + p]
    first = (LANES - 1) * rows
    for j in range(levels - first):
        places[first + j] = work[j * _ROW + PLACE + LANES - 1]


@fused_kernel
def _begin(work: FloatArray, carry: FloatArray, t: float) -> None:
    """Take the last step ``t`` times at the first levels of the pieces, and empty what goes from row to row."""
    carry[:] = 0.0
    for p in range(LANES):
        work[p + PLACE] += t * work[p + _STEP]


@fused_kernel
def _eliminate_first(work: FloatArray, carry: FloatArray, t: float, per: float, c1: float, c2: float, c3: float, c4: float) -> None:
    """The row of the pieces' first levels, which stay: the next row sees them as its column."""
    for p in range(LANES):
        x, above = work[p + PLACE], work[p + _ROW + PLACE] + t * work[p + _ROW + _STEP]
        off, next_off, scale = x - work[p + AIM], above - work[p + _ROW + AIM], work[p + _MASS] * per
        wide = 1.0 / (above - x)
        rho = work[p + _MASS] * wide
        pressure = rho * (c1 + rho * (c2 + rho * (c3 + rho * c4)))
        firm = wide * rho * (c1 + rho * (2.0 * c2 + rho * (3.0 * c3 + rho * (4.0 * c4))))
        carry[p + _PIVOT], carry[p + _LOAD] = firm + 2.0 * scale, -(pressure + scale * (2.0 * off + next_off))
        carry[p + _STIFF], carry[p + _BEHIND] = firm + 2.0 * scale, scale * (off + 2.0 * next_off) - pressure
        carry[p + _UPPER], carry[p + _TURNED] = scale - firm, abs(above - x) - (above - x)
        work[p + _ROW + PLACE], work[p + _WIDE] = above, wide
        work[p + _STEP], work[p + _SPIKE], work[p + _NEXT] = 0.0, -1.0, 0.0


@inlined_kernel
def _eliminate_some(
    row: FloatArray, carry: FloatArray, p: int, depth: int, t: float, per: float, c1: float, c2: float, c3: float, c4: float
) -> None:
    """``depth`` rows of one lane; ``row`` begins with the one before."""
    behind, stiff, upper = carry[p + _BEHIND], carry[p + _STIFF], carry[p + _UPPER]
    own, load, drop, turned = carry[p + _PIVOT], carry[p + _LOAD], carry[p + _DROP], carry[p + _TURNED]
    x, off = row[p + _ROW + PLACE], row[p + _ROW + PLACE] - row[p + _ROW + AIM]
    step, spike, link = row[p + _STEP], row[p + _SPIKE], row[p + _NEXT]
    for k in range(depth):
        o = p + (k + 1) * _ROW
        above = row[o + _ROW + PLACE] + t * row[o + _ROW + _STEP]
        width, mass, next_off = above - x, row[o + _MASS], above - row[o + _ROW + AIM]
        wide, scale = 1.0 / width, mass * per
        rho = mass * wide
        pressure = rho * (c1 + rho * (c2 + rho * (c3 + rho * c4)))
        firm = wide * rho * (c1 + rho * (2.0 * c2 + rho * (3.0 * c3 + rho * (4.0 * c4))))
        stiffness = firm + 2.0 * scale
        pivot = (stiff + carry[p + _ANCHOR] + stiffness) - link * upper + _TINY
        right = -(behind + pressure + scale * (2.0 * off + next_off)) - upper * step
        column = -upper * spike
        inverse = 1.0 / pivot
        behind, stiff, upper = scale * (off + 2.0 * next_off) - pressure, stiffness, scale - firm
        step, spike, link = right * inverse, column * inverse, upper * inverse
        own, load, drop, turned = own - column * spike, load - column * step, drop + right * step, turned + (abs(width) - width)
        row[o + _ROW + PLACE], row[o + _STEP], row[o + _SPIKE], row[o + _NEXT], row[o + _WIDE] = above, step, spike, link, wide
        x, off = above, next_off
    carry[p + _BEHIND], carry[p + _STIFF], carry[p + _UPPER] = behind, stiff, upper
    carry[p + _PIVOT], carry[p + _LOAD], carry[p + _DROP], carry[p + _TURNED] = own, load, drop, turned


@vector_kernel
def _eliminate(
    work: FloatArray, carry: FloatArray, start: int, stop: int, t: float, per: float, c1: float, c2: float, c3: float, c4: float
) -> None:
    """Assemble gradient and Hessian at x + t·step and eliminate the rows from ``start`` to ``stop`` inside the pieces."""
    j = start
    while j + _DEPTH <= stop:
        row = work[(j - 1) * _ROW : (j + _DEPTH + 1) * _ROW]
        for p in range(LANES):
            _eliminate_some(row, carry, p, _DEPTH, t, per, c1, c2, c3, c4)
        j += _DEPTH
    while j < stop:
        row = work[(j - 1) * _ROW : (j + 2) * _ROW]
        for p in range(LANES):
            _eliminate_some(row, carry, p, 1, t, per, c1, c2, c3, c4)
        j += 1


@fused_kernel
def _close_pieces(work: FloatArray, carry: FloatArray, rows: int, held: bool) -> float:
    """Solve for the first levels of the pieces; returns gᵀH⁻¹g, NaN where a cell is turned over. ``held``: the first level stays."""
    turned, drop = 0.0, 0.0
    for p in range(LANES):
        turned += carry[p + _TURNED]
        drop += carry[p + _DROP]
    for p in range(LANES - 1):
        upper, o = carry[p + _UPPER], (rows - 1) * _ROW + p
        carry[p + 1 + _PIVOT] += carry[p + _STIFF] - upper * work[o + _NEXT]
        carry[p + 1 + _LOAD] -= carry[p + _BEHIND] + upper * work[o + _STEP]
        carry[p + _CROSS] = -upper * work[o + _SPIKE]
    if held:
        carry[_PIVOT], carry[_LOAD], carry[_CROSS] = 1.0, 0.0, 0.0
    for p in range(LANES):
        right, inverse = carry[p + _LOAD], 1.0 / carry[p + _PIVOT]
        drop += right * right * inverse
        carry[p + _HOLD] = right * inverse
        if p < LANES - 1:
            share = carry[p + _CROSS] * inverse
            carry[p + 1 + _PIVOT] -= share * carry[p + _CROSS]
            carry[p + 1 + _LOAD] -= share * right
            carry[p + _CROSS] = share
    for p in range(LANES - 2, -1, -1):
        carry[p + _HOLD] -= carry[p + _CROSS] * carry[p + 1 + _HOLD]
    for p in range(LANES):
        work[p + _STEP], work[p + _SPIKE], work[p + _NEXT] = carry[p + _HOLD], 0.0, 0.0
        work[rows * _ROW + p + _STEP] = carry[p + 1 + _HOLD] if p < LANES - 1 else 0.0
    return drop if turned == 0.0 else math.nan


@inlined_kernel
def _return_some(row: FloatArray, carry: FloatArray, p: int, depth: int) -> None:
    """``depth`` rows of one lane, from the last one back; ``row`` holds one more."""
    hold, shrink, widen = carry[p + _HOLD], carry[p + _SHRINK], carry[p + _WIDEN]
    above = row[p + depth * _ROW + _STEP]
    for k in range(depth - 1, -1, -1):
        o = p + k * _ROW
        step = row[o + _STEP] - row[o + _SPIKE] * hold - row[o + _NEXT] * above
        change = (above - step) * row[o + _WIDE]
        shrink, widen = min(shrink, change), max(widen, change)
        row[o + _STEP] = above = step
    carry[p + _SHRINK], carry[p + _WIDEN] = shrink, widen


@vector_kernel
def _return(work: FloatArray, carry: FloatArray, rows: int) -> None:
    """The step of all levels from that of the pieces' first ones, and the largest relative shrinking and widening of a cell."""
    j = rows
    while j >= _DEPTH:
        j -= _DEPTH
        row = work[j * _ROW : (j + _DEPTH + 1) * _ROW]
        for p in range(LANES):
            _return_some(row, carry, p, _DEPTH)
    while j > 0:
        j -= 1
        row = work[j * _ROW : (j + 2) * _ROW]
        for p in range(LANES):
            _return_some(row, carry, p, 1)


@inlined_kernel
def _certify_some(
    row: FloatArray, carry: FloatArray, p: int, depth: int, t: float, per: float, c1: float, c2: float, c3: float, c4: float
) -> None:
    """``depth`` rows of one lane."""
    behind, gradient, left = carry[p + _BEHIND], 0.0, carry[p + _LOAD]
    energy, square, turned = carry[p + _ENERGY], carry[p + _DROP], carry[p + _TURNED]
    x, off = row[p + PLACE], row[p + PLACE] - row[p + AIM]
    for k in range(depth):
        o = p + k * _ROW
        above = row[o + _ROW + PLACE] + t * row[o + _ROW + _STEP]
        width, mass, next_off = above - x, row[o + _MASS], above - row[o + _ROW + AIM]
        rho, scale = mass / width, mass * per
        pressure = rho * (c1 + rho * (c2 + rho * (c3 + rho * c4)))
        gradient = behind + pressure + scale * (2.0 * off + next_off)
        behind = scale * (off + 2.0 * next_off) - pressure
        left += gradient * gradient * row[o + _NODE]
        energy += mass * rho * (c2 + rho * (0.5 * c3 + rho * (c4 / 3.0)))
        square += mass * (off * off + off * next_off + next_off * next_off)
        turned += abs(width) - width
        row[o + _ROW + PLACE], row[o + _WIDE] = above, rho
        x, off = above, next_off
    carry[p + _BEHIND], carry[p + _HOLD], carry[p + _LOAD] = behind, gradient, left
    carry[p + _ENERGY], carry[p + _DROP], carry[p + _TURNED] = energy, square, turned


@vector_kernel
def _certify(
    work: FloatArray, carry: FloatArray, start: int, stop: int, t: float, per: float, c1: float, c2: float, c3: float, c4: float
) -> None:
    """At x + t·step: ρ, the energy without the entropy, 3W₂² into _DROP, Σ 2g²/m into _LOAD, the last gradient into _HOLD."""
    j = start
    while j + _DEPTH <= stop:
        row = work[j * _ROW : (j + _DEPTH + 1) * _ROW]
        for p in range(LANES):
            _certify_some(row, carry, p, _DEPTH, t, per, c1, c2, c3, c4)
        j += _DEPTH
    while j < stop:
        row = work[j * _ROW : (j + 2) * _ROW]
        for p in range(LANES):
            _certify_some(row, carry, p, 1, t, per, c1, c2, c3, c4)
        j += 1


@fused_kernel
def _entropies(work: FloatArray, carry: FloatArray, rows: int) -> None:
    """Σ m log ρ into _ENTROPY, by the reduction and the polynomial of fdlibm's ``log``."""
    bits = work.view(np.int64)
    for j in range(rows):
        row, whole = work[j * _ROW : (j + 1) * _ROW], bits[j * _ROW : (j + 1) * _ROW]
        for p in range(LANES):
            row[p + _WIDE] = max(row[p + _WIDE], _TINY)
        for p in range(LANES):
            exponent = (whole[p + _WIDE] - _HALF_ROOT) >> 52
            whole[p + _NEXT] = exponent
            whole[p + _WIDE] -= exponent << 52
        for p in range(LANES):
            k = float(whole[p + _NEXT])
            f = row[p + _WIDE] - 1.0
            s = f / (2.0 + f)
            z = s * s
            half = 0.5 * f * f
            rest = z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * (_C6 + z * _C7))))))
            carry[p + _ENTROPY] += row[p + _MASS] * (k * _LN2_HIGH - ((half - (s * (half + rest) + k * _LN2_LOW)) - f))


@fused_kernel
def _direct(
    work: FloatArray, carry: FloatArray, levels: int, low: bool, high: bool, t: float, per: float, c: FloatArray
) -> tuple[float, float, float]:
    """Newton's step from x + t·step, ends held where ``low`` and ``high`` say: gᵀH⁻¹g, largest relative shrinking and widening."""
    rows = -(-levels // LANES)
    last = levels - 1 - (LANES - 1) * rows
    _begin(work, carry, t)
    _eliminate_first(work, carry, t, per, c[0], c[1], c[2], c[3])
    _eliminate(work, carry, 1, last, t, per, c[0], c[1], c[2], c[3])
    carry[LANES - 1 + _ANCHOR] = _HELD if high else 0.0
    _eliminate(work, carry, last, last + 1, t, per, c[0], c[1], c[2], c[3])
    carry[LANES - 1 + _ANCHOR] = 0.0
    _eliminate(work, carry, last + 1, rows, t, per, c[0], c[1], c[2], c[3])
    drop, least, most = _close_pieces(work, carry, rows, low), 0.0, 0.0
    _return(work, carry, rows)
    for p in range(LANES):
        least, most = min(least, carry[p + _SHRINK]), max(most, carry[p + _WIDEN])
    return drop, -least, most


@fused_kernel
def _finish(work: FloatArray, carry: FloatArray, levels: int, low: bool, high: bool, per: float, c: FloatArray, found: FloatArray) -> bool:
    """The certificate at x + step into ``found``: energy, W₂² to the aim, Σ g²/m without what walls hold. False where a cell is turned
    over, or where a wall pulls."""
    rows = -(-levels // LANES)
    last = levels - 1 - (LANES - 1) * rows
    _begin(work, carry, 1.0)
    _certify(work, carry, 0, 1, 1.0, per, c[0], c[1], c[2], c[3])
    for p in range(LANES):
        carry[p + _CROSS], carry[p + _LOAD] = carry[p + _HOLD], 0.0
    _certify(work, carry, 1, last, 1.0, per, c[0], c[1], c[2], c[3])
    end = carry[LANES - 1 + _BEHIND]
    _certify(work, carry, last, rows, 1.0, per, c[0], c[1], c[2], c[3])
    if c[0] > 0.0:
        _entropies(work, carry, rows)
    energy, square, left, turned = 0.0, 0.0, 0.0, 0.0
    for p in range(LANES):
        gradient = carry[p + _CROSS] + (carry[p - 1 + _BEHIND] if p > 0 else 0.0)
        left += carry[p + _LOAD] + (0.0 if p == 0 and low else gradient * gradient * work[p + _NODE])
        energy += carry[p + _ENERGY] + c[0] * carry[p + _ENTROPY]
        square += carry[p + _DROP]
        turned += carry[p + _TURNED]
    left -= end * end * work[last * _ROW + LANES - 1 + _NODE] if high else 0.0
    found[0], found[1], found[2] = energy, square / 3.0, left
    return turned == 0.0 and not (low and carry[_CROSS] < 0.0) and not (high and end > 0.0)


@fused_kernel
def _forget(work: FloatArray) -> None:
    """Steps that may not be finite."""
    for j in range(len(work) // _ROW):
        for p in range(LANES):
            work[j * _ROW + p + _STEP] = 0.0


@fused_kernel
def _newton(
    work: FloatArray,
    carry: FloatArray,
    places: FloatArray,
    low: float,
    high: float,
    sigma: float,
    coefficients: FloatArray,
    exponent: float,
    shrink: float,
    close: float,
    most: int,
    found: FloatArray,
) -> int:
    """Newton's method from the levels in ``work``, whose steps must be finite, into ``places`` (n + 1,); returns the linear systems solved,
    or 0 where it does not apply: a wall is reached or left, cells would be turned over, or ``most`` systems are not enough.

    Where no cell shrinks by more than a share δ of its width, the Hessian grows by a factor of at most (1 − δ)^{−m − 1} along the step, so
    that steps with δ at most ``shrink`` descend and what is left after a step is at most (1 − δ)^{−m − 1} − 1 times the step, in the
    Hessian's norm. It stops where this is at most ``close`` times the length of the axis, in L². ``found`` (4,): energy, W₂² to the aim,
    Σ g²/m, and the step's gᵀH⁻¹g.
    """
    levels = len(places)
    rows = -(-levels // LANES)
    end = (levels - 1 - (LANES - 1) * rows) * _ROW + LANES - 1
    held_low, held_high = work[PLACE] <= low, work[end + PLACE] >= high
    per, t = 1.0 / (6.0 * sigma), 0.0
    for iteration in range(1, most + 1):
        drop, least, widest = _direct(work, carry, levels, held_low, held_high, t, per, coefficients)
        if not (drop >= 0.0 and drop < math.inf):
            return 0
        t = 1.0 if least <= shrink else shrink / least
        if not held_low and not work[PLACE] + t * work[_STEP] > low:
            return 0
        if not held_high and not work[end + PLACE] + t * work[end + _STEP] < high:
            return 0
        change = max(least, widest)
        if t == 1.0 and change < 1.0:
            left = ((1.0 - change) ** (-exponent - 1.0) - 1.0) * math.sqrt(drop * sigma)
            if left <= close * (high - low):
                found[3] = drop
                done = _finish(work, carry, levels, held_low, held_high, per, coefficients, found)
                _store(work, places)
                return iteration if done else 0
    return 0


@fused_kernel
def minimise(
    work: FloatArray,
    carry: FloatArray,
    places: FloatArray,
    aim: FloatArray,
    here: FloatArray,
    guess: FloatArray,
    missed: FloatArray,
    factor: float,
    aimed: bool,
    low: float,
    high: float,
    sigma: float,
    coefficients: FloatArray,
    exponent: float,
    shrink: float,
    close: float,
    share: float,
    most: int,
    found: FloatArray,
) -> int:
    """``_newton`` from guess + factor · missed where its cells are wider than this ``share`` of those ``here``, else from ``here``; all
    (n + 1,). ``aimed``: what ``work`` holds from the last call is ``aim``."""
    if aimed:
        _aim_there(work)
    else:
        _load(work, aim, AIM)
    _load(work, places if extrapolate(guess, missed, factor, here, low, high, share, places) else here, PLACE)
    systems = _newton(work, carry, places, low, high, sigma, coefficients, exponent, shrink, close, most, found)
    if systems == 0:
        _forget(work)
    return systems
