"""Atoms and piecewise polynomials of degree seven on a box of equal cells, in one, two or three dimensions.

In each cell t ∈ [−1, 1]^d are the local coordinates. ``deposit`` gives the moments ∫t^j dρ of every cell, 8^d of them, ``slopes`` is the
gradient of a polynomial Σ_j C_j t^j given in every cell, and ``heights`` its value as well: one reads and writes, the others read, one
block of 8^d numbers an atom, eight at a time. The blocks start at cache lines.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mfpde.arrays import FloatArray, IntArray
from mfpde.compile import kernel, parallel_kernel, prange, sum_kernel

POINTS = 8
"""Powers along an axis: as many numbers as fill a cache line."""
BLOCKS = 16
"""The most parts of the atoms that are deposited side by side. Their number never depends on that of the threads."""
_ATOMS_FOR_A_NUMBER = 0.6
"""So many atoms there have to be for each number of a part, so that clearing and adding up the parts costs little."""
_LINE = 64

_intrinsic: Callable[[Any], Any] = intrinsic
_types: Any = types
_function: Any = cgutils.get_or_insert_function
_REAL, _INDEX = ir.DoubleType(), ir.IntType(64)
_VECTOR, _LANES = ir.VectorType(_REAL, POINTS), ir.VectorType(ir.IntType(32), POINTS)


def _constant(values: Any) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_REAL, float(value)) for value in values])


def _spread(builder: Any, number: Any) -> Any:
    """The number in every lane."""
    empty = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_LANES, [0] * POINTS))


def _powers(builder: Any, t: Any) -> Any:
    """1, t, …, t⁷."""
    product = _constant([1.0] * POINTS)
    for bit in range(3):
        taken = ir.Constant(ir.VectorType(ir.IntType(1), POINTS), [(j >> bit) & 1 for j in range(POINTS)])
        product = builder.fmul(product, builder.select(taken, _spread(builder, t), _constant([1.0] * POINTS)))
        t = builder.fmul(t, t)
    return product


def _power_slopes(builder: Any, powers: Any) -> Any:
    """0, 1, 2t, …, 7t⁶."""
    shifted = ir.Constant(_LANES, [POINTS, *range(POINTS - 1)])
    return builder.fmul(builder.shuffle_vector(powers, _constant([0.0] * POINTS), shifted), _constant(range(POINTS)))


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """ab + c."""
    function = _function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.fmuladd.v8f64")
    return builder.call(function, [a, b, c])


def _dot(builder: Any, a: Any, b: Any) -> Any:
    function = _function(builder.module, ir.FunctionType(_REAL, [_REAL, _VECTOR]), "llvm.vector.reduce.fadd.v8f64")
    return builder.call(function, [ir.Constant(_REAL, -0.0), builder.fmul(a, b)], fastmath=("reassoc",))


def _row(builder: Any, data: Any, start: Any, row: int) -> Any:
    place = builder.gep(data, [builder.add(start, ir.Constant(_INDEX, POINTS * row))])
    return builder.bitcast(place, _VECTOR.as_pointer())


def _coordinates(builder: Any, signature: Any, arguments: Any) -> list[Any]:
    return [builder.extract_value(arguments[2], k) for k in range(signature.args[2].count)]


@_intrinsic
def add_powers(_: Any, table: Any, start: Any, t: Any, mass: Any) -> tuple[Any, Callable[..., Any]]:
    """Add mass · t^j to the 8^d numbers of ``table`` from ``start`` on, a multiple of eight; ``t`` is a tuple of d numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        *outer, last = _coordinates(builder, signature, arguments)
        powers, masses = _powers(builder, last), [arguments[3]]
        for u in reversed(outer):
            raised = [masses]
            for _ in range(POINTS - 1):
                raised.append([builder.fmul(value, u) for value in raised[-1]])
            masses = [value for values in raised for value in values]
        for row, value in enumerate(masses):
            place = _row(builder, data, arguments[1], row)
            builder.store(_fused(builder, powers, _spread(builder, value), builder.load(place, align=_LINE)), place, align=_LINE)
        return context.get_dummy_value()

    return _types.void(table, _types.intp, t, _types.float64), generate


def _on_lines(builder: Any, data: Any, start: Any, outer: list[Any]) -> tuple[list[Any], Any]:
    """The slopes along all axes but the last one and the values, as polynomials of the last coordinate."""
    lines = [_spread(builder, u) for u in outer]

    def horner(axis: int, row: int) -> list[Any]:
        """The slopes along the axes from ``axis`` to the last but one, then the values."""
        if axis == len(lines):
            return [builder.load(_row(builder, data, start, row), align=_LINE)]
        stride = POINTS ** (len(lines) - 1 - axis)
        found = horner(axis + 1, row + (POINTS - 1) * stride)
        sums, along = found, _constant([0.0] * POINTS)
        for k in range(POINTS - 2, -1, -1):
            along = _fused(builder, along, lines[axis], sums[-1])
            found = horner(axis + 1, row + k * stride)
            sums = [_fused(builder, total, lines[axis], term) for total, term in zip(sums, found, strict=True)]
        return [along, *sums]

    *slopes, values = horner(0, 0)
    return slopes, values


@_intrinsic
def polynomial_slopes(_: Any, table: Any, start: Any, t: Any) -> tuple[Any, Callable[..., Any]]:
    """The gradient at ``t``, a tuple of d numbers, of the polynomial with the 8^d coefficients of ``table`` from ``start`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        *outer, last = _coordinates(builder, signature, arguments)
        powers = _powers(builder, last)
        slopes, values = _on_lines(builder, data, arguments[1], outer)
        gradient = [_dot(builder, slope, powers) for slope in slopes]
        return context.make_tuple(builder, signature.return_type, [*gradient, _dot(builder, values, _power_slopes(builder, powers))])

    return _types.UniTuple(_types.float64, t.count)(table, _types.intp, t), generate


@_intrinsic
def polynomial_value_and_slopes(_: Any, table: Any, start: Any, t: Any) -> tuple[Any, Callable[..., Any]]:
    """The value at ``t`` before the gradient of ``polynomial_slopes``, d + 1 numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        *outer, last = _coordinates(builder, signature, arguments)
        powers = _powers(builder, last)
        slopes, values = _on_lines(builder, data, arguments[1], outer)
        gradient = [_dot(builder, slope, powers) for slope in slopes]
        found = [_dot(builder, values, powers), *gradient, _dot(builder, values, _power_slopes(builder, powers))]
        return context.make_tuple(builder, signature.return_type, found)

    return _types.UniTuple(_types.float64, t.count + 1)(table, _types.intp, t), generate


@_intrinsic
def polynomial_value(_: Any, table: Any, start: Any, t: Any) -> tuple[Any, Callable[..., Any]]:
    """The value at ``t``, a pair, of the polynomial with the 64 coefficients of ``table`` from ``start`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        outer, last = _coordinates(builder, signature, arguments)
        line, value = _spread(builder, outer), _constant([0.0] * POINTS)
        for row in range(POINTS - 1, -1, -1):
            value = _fused(builder, value, line, builder.load(_row(builder, data, arguments[1], row), align=_LINE))
        return _dot(builder, value, _powers(builder, last))

    return _types.float64(table, _types.intp, t), generate


@_intrinsic
def polynomial_bends(_: Any, table: Any, start: Any, t: Any) -> tuple[Any, Callable[..., Any]]:
    """The slopes and second derivatives (0; 1; 00, 01, 11) at ``t``, a pair, of the polynomial with the 64 coefficients of ``table`` from
    ``start`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        outer, last = _coordinates(builder, signature, arguments)
        line, powers = _spread(builder, outer), _powers(builder, last)
        value = along = bend = _constant([0.0] * POINTS)
        for row in range(POINTS - 1, -1, -1):
            bend, along = _fused(builder, bend, line, along), _fused(builder, along, line, value)
            value = _fused(builder, value, line, builder.load(_row(builder, data, arguments[1], row), align=_LINE))
        rising = _power_slopes(builder, powers)
        pairs = [(along, powers), (value, rising), (bend, powers), (along, rising), (value, _power_slopes(builder, rising))]
        found = [_dot(builder, a, b) for a, b in pairs]
        found[2] = builder.fmul(found[2], ir.Constant(_REAL, 2.0))
        return context.make_tuple(builder, signature.return_type, found)

    return _types.UniTuple(_types.float64, 5)(table, _types.intp, t), generate


@sum_kernel
def _place(coordinate: float, lower: float, inverse: float, cells: int) -> tuple[int, float]:
    """The cell and the local coordinate there; beyond the ends, those of the first or last cell. A place that is not a number
    has to come to a cell as well, so that it ends as a sum that is none."""
    place = (coordinate - lower) * inverse
    cell = min(max(int(place), 0), cells - 1)
    return cell, 2.0 * (place - cell) - 1.0


@sum_kernel
def _deposit_line(points: FloatArray, weights: FloatArray, start: int, end: int, lower: float, inverse: float, part: FloatArray) -> None:
    """A pass that finds a few cells, then one that adds to them: the first one runs on vectors."""
    count = part.size // POINTS
    starts, local = np.empty(64, np.int64), np.empty(64)
    for first in range(start, end, 64):
        some = min(64, end - first)
        for i in range(some):
            cell, local[i] = _place(points[first + i, 0], lower, inverse, count)
            starts[i] = POINTS * cell
        for i in range(some):
            add_powers(part, starts[i], (local[i],), weights[first + i])


@sum_kernel
def deposit_some(
    points: FloatArray, weights: FloatArray, start: int, end: int, lower: FloatArray, inverse: FloatArray, cells: IntArray, part: FloatArray
) -> None:
    """The moments of the atoms from ``start`` to ``end`` in every cell, into one ``part``."""
    part[:] = 0.0
    if points.shape[1] == 1:
        _deposit_line(points, weights, start, end, lower[0], inverse[0], part)
    elif points.shape[1] == 2:
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            m, u = _place(points[i, 1], lower[1], inverse[1], cells[1])
            add_powers(part, 64 * (k * cells[1] + m), (t, u), weights[i])
    else:
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            m, u = _place(points[i, 1], lower[1], inverse[1], cells[1])
            n, v = _place(points[i, 2], lower[2], inverse[2], cells[2])
            add_powers(part, 512 * ((k * cells[1] + m) * cells[2] + n), (t, u, v), weights[i])


@sum_kernel
def slopes_some(
    points: FloatArray, table: FloatArray, start: int, end: int, lower: FloatArray, inverse: FloatArray, cells: IntArray, out: FloatArray
) -> None:
    """``slopes`` of the points from ``start`` to ``end``; in one dimension ``table`` holds the coefficients of the slope."""
    scale = 2.0 * inverse
    if points.shape[1] == 1:
        rows = table.reshape((cells[0], POINTS))
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            high = rows[k, 3] + t * (rows[k, 4] + t * (rows[k, 5] + t * rows[k, 6]))
            out[i, 0] = rows[k, 0] + t * (rows[k, 1] + t * (rows[k, 2] + t * high))
    elif points.shape[1] == 2:
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            m, u = _place(points[i, 1], lower[1], inverse[1], cells[1])
            found = polynomial_slopes(table, 64 * (k * cells[1] + m), (t, u))
            out[i, 0], out[i, 1] = scale[0] * found[0], scale[1] * found[1]
    else:
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            m, u = _place(points[i, 1], lower[1], inverse[1], cells[1])
            n, v = _place(points[i, 2], lower[2], inverse[2], cells[2])
            tall = polynomial_slopes(table, 512 * ((k * cells[1] + m) * cells[2] + n), (t, u, v))
            out[i, 0], out[i, 1], out[i, 2] = scale[0] * tall[0], scale[1] * tall[1], scale[2] * tall[2]


@sum_kernel
def heights_some(
    points: FloatArray, table: FloatArray, start: int, end: int, lower: FloatArray, inverse: FloatArray, cells: IntArray, out: FloatArray
) -> None:
    """``heights`` of the points from ``start`` to ``end``."""
    scale = 2.0 * inverse
    if points.shape[1] == 1:
        rows = table.reshape((cells[0], POINTS))
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            value, slope = rows[k, 7], 0.0
            for j in range(6, -1, -1):
                slope = slope * t + value
                value = value * t + rows[k, j]
            out[i, 0], out[i, 1] = value, scale[0] * slope
    elif points.shape[1] == 2:
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            m, u = _place(points[i, 1], lower[1], inverse[1], cells[1])
            found = polynomial_value_and_slopes(table, 64 * (k * cells[1] + m), (t, u))
            out[i, 0], out[i, 1], out[i, 2] = found[0], scale[0] * found[1], scale[1] * found[2]
    else:
        for i in range(start, end):
            k, t = _place(points[i, 0], lower[0], inverse[0], cells[0])
            m, u = _place(points[i, 1], lower[1], inverse[1], cells[1])
            n, v = _place(points[i, 2], lower[2], inverse[2], cells[2])
            tall = polynomial_value_and_slopes(table, 512 * ((k * cells[1] + m) * cells[2] + n), (t, u, v))
            out[i, 0], out[i, 1], out[i, 2], out[i, 3] = tall[0], scale[0] * tall[1], scale[1] * tall[2], scale[2] * tall[3]


@kernel
def _deposit_alone(
    points: FloatArray, weights: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, parts: FloatArray
) -> None:
    blocks = len(parts)
    for b in range(blocks):
        start, end = b * len(points) // blocks, (b + 1) * len(points) // blocks
        deposit_some(points, weights, start, end, lower, inverse, cells, parts[b])


@parallel_kernel
def _deposit_together(
    points: FloatArray, weights: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, parts: FloatArray
) -> None:
    blocks = len(parts)
    for b in prange(blocks):
        start, end = b * len(points) // blocks, (b + 1) * len(points) // blocks
        deposit_some(points, weights, start, end, lower, inverse, cells, parts[b])


@parallel_kernel
def _slopes_together(
    points: FloatArray, table: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, out: FloatArray
) -> None:
    for b in prange(BLOCKS):
        start, end = b * len(points) // BLOCKS, (b + 1) * len(points) // BLOCKS
        slopes_some(points, table, start, end, lower, inverse, cells, out)


@parallel_kernel
def _heights_together(
    points: FloatArray, table: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, out: FloatArray
) -> None:
    for b in prange(BLOCKS):
        start, end = b * len(points) // BLOCKS, (b + 1) * len(points) // BLOCKS
        heights_some(points, table, start, end, lower, inverse, cells, out)


def blocks_of(atoms: int, size: int) -> int:
    """How many parts the atoms are deposited in."""
    wanted = min(atoms / (_ATOMS_FOR_A_NUMBER * size), BLOCKS)
    return 1 << int(np.log2(max(wanted, 1.0)))


def cache_lines(rows: int, size: int) -> FloatArray:
    """An array (rows, size) that starts at a cache line, as all its rows do where the size is a multiple of eight."""
    held = np.empty(rows * size + POINTS)
    first = -held.ctypes.data // held.itemsize % POINTS
    return held[first : first + rows * size].reshape(rows, size)


def deposit(
    points: FloatArray, weights: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, *, together: bool
) -> FloatArray:
    """The moments of atoms at ``points`` (N, d) with ``weights`` (N,) in every cell, (cells · 8^d,); on all threads or on one.

    ``lower`` (d,) is the box's lower end, ``inverse`` (d,) one over the cells' lengths.
    """
    size = int(np.prod(cells)) * POINTS ** points.shape[1]
    parts = cache_lines(blocks_of(len(points), size), size)
    arguments = (np.ascontiguousarray(points), np.ascontiguousarray(weights), lower, inverse, cells, parts)
    if together and len(parts) > 1:
        _deposit_together(*arguments)
    else:
        _deposit_alone(*arguments)
    return parts[0] if len(parts) == 1 else np.asarray(np.sum(parts, axis=0))


def slopes(points: FloatArray, table: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, *, together: bool) -> FloatArray:
    """The gradient (N, d) at ``points`` (N, d) of the polynomials with the coefficients ``table``, of any shape in the order of cells and
    powers."""
    rows, out = cache_lines(1, table.size)[0], np.empty(points.shape)
    np.copyto(rows.reshape(table.shape), table)
    if points.shape[1] == 1:
        along = rows.reshape(-1, POINTS)
        along[:, :-1] = along[:, 1:] * (np.arange(1.0, POINTS) * (2.0 * inverse[0]))
        along[:, -1] = 0.0
    points = np.ascontiguousarray(points)
    if together:
        _slopes_together(points, rows, lower, inverse, cells, out)
    else:
        slopes_some(points, rows, 0, len(points), lower, inverse, cells, out)
    return out


def heights(
    points: FloatArray, table: FloatArray, lower: FloatArray, inverse: FloatArray, cells: IntArray, *, together: bool
) -> FloatArray:
    """The values, then the gradient, of the polynomials of ``slopes``, (N, 1 + d)."""
    rows, out = cache_lines(1, table.size)[0], np.empty((len(points), points.shape[1] + 1))
    np.copyto(rows.reshape(table.shape), table)
    points = np.ascontiguousarray(points)
    if together:
        _heights_together(points, rows, lower, inverse, cells, out)
    else:
        heights_some(points, rows, 0, len(points), lower, inverse, cells, out)
    return out
