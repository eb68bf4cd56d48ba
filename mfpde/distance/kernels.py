"""Compiled loops of distances; they bring the compiler, so only what is large comes here."""

import math

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import kernel, parallel_kernel, prange, vector_kernel

_RUN = 1024
"""Terms that are summed before their sum goes to the total: rounding then grows with their number only, not with that of all."""
_WIDTH, _DIGITS, _LAST, _HALF = 11, 2048, 5, 256
_ALL_BUT_SIGN = 2**63 - 1
_FAR = -38.0
"""Terms below exp of this beside the largest are beyond the last bit."""


@kernel
def add_up(weights: FloatArray, out: FloatArray) -> None:
    """out (n + 1,) = 0 and the running sums of ``weights`` (n,), compensated [Neumaier 1974]."""
    total, lost = 0.0, 0.0
    out[0] = 0.0
    for k in range(weights.size):
        grown = total + weights[k]
        if total >= weights[k]:
            lost += (total - grown) + weights[k]
        else:
            lost += (weights[k] - grown) + total
        total = grown
        out[k + 1] = total + lost


@kernel
def digit_of(key: int, place: int) -> int:
    """The digits of a signed number are eleven bits each and, at the last place, nine with the sign."""
    return (key >> (_WIDTH * place)) & (_DIGITS - 1) if place < _LAST else (key >> (_WIDTH * _LAST)) + _HALF


@kernel
def sort_bits(keys: IntArray, carried: FloatArray, spare: IntArray, spare_carried: FloatArray) -> bool:
    """Sort the bits of floating-point numbers ``keys`` (n,) by their values, stably, and ``carried`` (n, or 0 for nothing) with them,
    by counting digits [Knuth, TAOCP 3, 5.2.5]. Overwrites all; returns whether the result is in the spare arrays."""
    n, carrying = keys.size, carried.size > 0
    counts = np.zeros((_LAST + 1, _DIGITS), dtype=np.int64)
    for k in range(n):
        key = keys[k]
        key ^= (key >> 63) & _ALL_BUT_SIGN
        keys[k] = key
        for place in range(_LAST + 1):
            counts[place, digit_of(key, place)] += 1
    source, target, source_carried, target_carried, swapped = keys, spare, carried, spare_carried, False
    for place in range(_LAST + 1):
        starts, before = counts[place], 0
        if starts[digit_of(source[0], place)] == n:
            continue
        for digit in range(_DIGITS):
            held = starts[digit]
            starts[digit] = before
            before += held
        for k in range(n):
            key = source[k]
            digit = digit_of(key, place)
            target[starts[digit]] = key
            if carrying:
                target_carried[starts[digit]] = source_carried[k]
            starts[digit] += 1
        source, target, swapped = target, source, not swapped
        source_carried, target_carried = target_carried, source_carried
    for k in range(n):
        source[k] ^= (source[k] >> 63) & _ALL_BUT_SIGN
    return swapped


@kernel
def price(gap: float, order: int) -> float:
    """|gap|^order for order 1 and 2."""
    return gap * gap if order == 2 else abs(gap)


@kernel
def merge(
    levels: FloatArray,
    left: FloatArray,
    right: FloatArray,
    levels2: FloatArray,
    left2: FloatArray,
    right2: FloatArray,
    shift: float,
    length: float,
    order: int,
) -> tuple[float, float]:
    """∫|x(u) − y(u − shift)|^order du over [0, 1] and its right derivative in ``shift``, for quantile functions x and y that are linear
    from left[k] to right[k] between levels[k] and levels[k + 1], y being continued by y(u + 1) = y(u) + length."""
    n, m = left.size, left2.size
    turns = math.floor(shift)
    moved = shift - turns
    i, j, offset, lift = 0, 0, 0.0, -turns * length
    if moved > 0.0:
        j = min(max(int(np.searchsorted(levels2, 1.0 - moved, side="right")) - 1, 0), m - 1)
        offset, lift = moved - 1.0, lift - length
    u, total, slope, part, part_slope, count = 0.0, 0.0, 0.0, 0.0, 0.0, 0
    x0, y0 = left[0], left2[j] + lift
    share = (u - (levels2[j] + offset)) / (levels2[j + 1] - levels2[j])
    y0 += (right2[j] - left2[j]) * min(max(share, 0.0), 1.0)
    x_first, y_first, y_last = x0, y0, y0
    while i < n:
        end, end2 = levels[i + 1], levels2[j + 1] + offset
        if end <= end2:
            up, x1 = end, right[i]
        else:
            up = end2
            x1 = left[i] + (right[i] - left[i]) * min(max((up - levels[i]) / (end - levels[i]), 0.0), 1.0)
        if end2 <= end:
            y1 = right2[j] + lift
        else:
            y1 = left2[j] + lift + (right2[j] - left2[j]) * min(max((up - levels2[j] - offset) / (levels2[j + 1] - levels2[j]), 0.0), 1.0)
        du = max(up - u, 0.0)
        a, b = x0 - y0, x1 - y1
        if order == 2:
            part += du * (a * a + a * b + b * b) * (1.0 / 3.0)
            part_slope += (y1 - y0) * (a + b)
        elif a * b >= 0.0:
            part += du * 0.5 * (abs(a) + abs(b))
            part_slope += (y1 - y0) * np.sign(a + b)
        else:
            part += du * 0.5 * (a * a + b * b) / (abs(a) + abs(b))
            part_slope += (y1 - y0) * (abs(b) - abs(a)) / (b - a)
        u, x0, y0, y_last = max(up, u), x1, y1, y1
        if end <= end2:
            i += 1
            if i < n:
                x0 = left[i]
        if end2 <= end:
            j += 1
            if j == m:
                j, offset, lift = 0, offset + 1.0, lift + length
            y0 = left2[j] + lift
        if i < n:
            part_slope += price(x0 - y_last, order) - price(x0 - y0, order)
        count += 1
        if count == _RUN:
            total, slope, part, part_slope, count = total + part, slope + part_slope, 0.0, 0.0, 0
    wrap = price(x_first + length - y_last, order) - price(x_first - y_first, order)
    return total + part, slope + part_slope + wrap


@vector_kernel
def soften_row(values: FloatArray, cost: FloatArray, hard: bool, out: FloatArray) -> None:
    """out[i] = log Σ_j exp(values[j] − cost[i, j]), or the largest term alone."""
    for i in range(out.size):
        top = values[0] - cost[i, 0]
        for j in range(values.size):
            top = max(top, values[j] - cost[i, j])
        if hard:
            out[i] = top
        else:
            total = 0.0
            for j in range(values.size):
                term = values[j] - cost[i, j] - top
                if term > _FAR:
                    total += math.exp(term)
            out[i] = top + math.log(total)


@parallel_kernel
def soften(values: FloatArray, cost: FloatArray, hard: bool, out: FloatArray) -> None:
    """``soften_row`` for every row of ``values`` and ``out`` (rows, m); each row is one thread's."""
    for row in prange(values.shape[0]):
        soften_row(values[row], cost, hard, out[row])


@kernel
def soften_alone(values: FloatArray, cost: FloatArray, hard: bool, out: FloatArray) -> None:
    """``soften`` on one thread."""
    for row in range(values.shape[0]):
        soften_row(values[row], cost, hard, out[row])
