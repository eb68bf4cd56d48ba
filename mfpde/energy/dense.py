"""Sums over all pairs of neurons and inputs, Σ_j w_j σ(x_q·θ_j) and Σ_q c_q σ'(x_q·θ_j) x_q, without an array of all pairs.

A tile of pairs z = x·θ stays in cache from the products to the sums. Inputs are packed in blocks (blocks, D, B), so that loops run along
the inputs, and filled up with zeros to whole vectors.
"""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import fused_kernel, inlined_kernel, kernel, parallel_kernel, prange, sum_kernel
from mfpde.energy.activation_kernels import NAMES, fill_slopes, fill_values

PARTS = 16
"""Parts of the work that are done side by side, whatever the number of threads, so that sums do not depend on it."""
_ALONE = 1 << 19
"""So few pairs take less time than other threads may need to wake on a busy machine."""
_BLOCK_ENTRIES, _LONGEST, _LANES = 4096, 256, 8
_STRIDE = _LONGEST + _LANES
"""From one input's numbers to the next one's: known to the compiler, and no power of two, which would crowd few lines of the cache."""
_TILE, _TOGETHER = 1024, 4


@inlined_kernel
def _row(k: int) -> np.uint64:
    """Where the inputs of place k begin in a block; without a sign, so that no index has to be looked at for one."""
    return np.uint64(k) * np.uint64(_STRIDE)


@fused_kernel
def _set_products(theta: FloatArray, a: int, x: FloatArray, d: int, z: FloatArray) -> None:
    """z[a] = Σ θ[a, k] x[k] over the first d = 1 … 4 inputs, and the same for the next neuron."""
    x0, x1, x2, x3 = _row(0), _row(1), _row(2), _row(3)
    s0, t0 = theta[a, 0], theta[a + 1, 0]
    if d == 1:
        for i in range(np.uint64(z.shape[1])):
            z[a, i] = s0 * x[x0 + i]
            z[a + 1, i] = t0 * x[x0 + i]
        return
    s1, t1 = theta[a, 1], theta[a + 1, 1]
    if d == 2:
        for i in range(np.uint64(z.shape[1])):
            z[a, i] = s0 * x[x0 + i] + s1 * x[x1 + i]
            z[a + 1, i] = t0 * x[x0 + i] + t1 * x[x1 + i]
        return
    s2, t2 = theta[a, 2], theta[a + 1, 2]
    if d == 3:
        for i in range(np.uint64(z.shape[1])):
            z[a, i] = s0 * x[x0 + i] + s1 * x[x1 + i] + s2 * x[x2 + i]
            z[a + 1, i] = t0 * x[x0 + i] + t1 * x[x1 + i] + t2 * x[x2 + i]
        return
    s3, t3 = theta[a, 3], theta[a + 1, 3]
    for i in range(np.uint64(z.shape[1])):
        z[a, i] = s0 * x[x0 + i] + s1 * x[x1 + i] + s2 * x[x2 + i] + s3 * x[x3 + i]
        z[a + 1, i] = t0 * x[x0 + i] + t1 * x[x1 + i] + t2 * x[x2 + i] + t3 * x[x3 + i]


@fused_kernel
def _add_products(theta: FloatArray, a: int, x: FloatArray, d: int, z: FloatArray) -> None:
    """z[a] += Σ θ[a, k] x[k] over the four inputs from d on, and the same for the next neuron."""
    x0, x1, x2, x3 = _row(d), _row(d + 1), _row(d + 2), _row(d + 3)
    s0, s1, s2, s3 = theta[a, d], theta[a, d + 1], theta[a, d + 2], theta[a, d + 3]
    t0, t1, t2, t3 = theta[a + 1, d], theta[a + 1, d + 1], theta[a + 1, d + 2], theta[a + 1, d + 3]
    for i in range(np.uint64(z.shape[1])):
        z[a, i] += s0 * x[x0 + i] + s1 * x[x1 + i] + s2 * x[x2 + i] + s3 * x[x3 + i]
        z[a + 1, i] += t0 * x[x0 + i] + t1 * x[x1 + i] + t2 * x[x2 + i] + t3 * x[x3 + i]


@fused_kernel
def _fill_products(vectors: FloatArray, j: int, end: int, theta: FloatArray, x: FloatArray, z: FloatArray) -> None:
    """z[a, i] = x_i·θ_{j + a}; zero for neurons from ``end`` on. ``theta`` is room for the tile's neurons."""
    width = theta.shape[1]
    for a in range(theta.shape[0]):
        for d in range(width):
            theta[a, d] = vectors[j + a, d] if j + a < end else 0.0
    first = (width - 1) % 4 + 1
    for a in range(0, theta.shape[0], 2):
        _set_products(theta, a, x, first, z)
        for d in range(first, width, 4):
            _add_products(theta, a, x, d, z)


@fused_kernel
def _add_rows(z: FloatArray, a: int, w0: float, w1: float, w2: float, w3: float, out: FloatArray) -> None:
    for i in range(out.size):
        out[i] += w0 * z[a, i] + w1 * z[a + 1, i] + w2 * z[a + 2, i] + w3 * z[a + 3, i]


@fused_kernel
def _weight_of(weights: FloatArray, j: int, end: int) -> float:
    return weights[j] if j < end else 0.0


@fused_kernel
def _tile_rows(length: int) -> int:
    """Neurons of a tile: so many that it has about _TILE pairs."""
    return _TOGETHER * max(1, _TILE // (_TOGETHER * length))


@fused_kernel
def _tile(size: int) -> FloatArray:
    """Room (size,) that begins with a line of the cache."""
    room = np.empty(size + _LANES)
    start = (-room.ctypes.data // 8) % _LANES
    return room[start : start + size]


@fused_kernel
def add_sums(code: int, vectors: FloatArray, weights: FloatArray, span: tuple[int, int, int, int], x: FloatArray, out: FloatArray) -> None:
    """out[b, i] += Σ_j w_j σ(x_bi·θ_j) over the neurons and the blocks of ``span``: first and end of these, then of those."""
    first, end, first_block, end_block = span
    length = out.shape[1]
    rows = _tile_rows(length)
    flat, theta = _tile(rows * length), np.empty((rows, vectors.shape[1]))
    z = flat.reshape(rows, length)
    for b in range(first_block, end_block):
        for j in range(first, end, rows):
            _fill_products(vectors, j, end, theta, x[b], z)
            fill_values(code, flat)
            for a in range(0, rows, _TOGETHER):
                k = j + a
                w0, w1 = _weight_of(weights, k, end), _weight_of(weights, k + 1, end)
                _add_rows(z, a, w0, w1, _weight_of(weights, k + 2, end), _weight_of(weights, k + 3, end), out[b])


@sum_kernel
def _add_four_moments(z: FloatArray, a: int, x: FloatArray, d: int, out: FloatArray, j: int) -> None:
    """The sums of four inputs from d on, for two neurons."""
    x0, x1, x2, x3 = _row(d), _row(d + 1), _row(d + 2), _row(d + 3)
    r0 = r1 = r2 = r3 = s0 = s1 = s2 = s3 = 0.0
    for i in range(np.uint64(z.shape[1])):
        one, two = z[a, i], z[a + 1, i]
        r0 += one * x[x0 + i]
        r1 += one * x[x1 + i]
        r2 += one * x[x2 + i]
        r3 += one * x[x3 + i]
        s0 += two * x[x0 + i]
        s1 += two * x[x1 + i]
        s2 += two * x[x2 + i]
        s3 += two * x[x3 + i]
    out[j, d] += r0
    out[j, d + 1] += r1
    out[j, d + 2] += r2
    out[j, d + 3] += r3
    out[j + 1, d] += s0
    out[j + 1, d + 1] += s1
    out[j + 1, d + 2] += s2
    out[j + 1, d + 3] += s3


@sum_kernel
def _add_moment(z: FloatArray, a: int, x: FloatArray, d: int, out: FloatArray, j: int) -> None:
    """The sum of one input, for two neurons."""
    x0 = _row(d)
    r = s = 0.0
    for i in range(np.uint64(z.shape[1])):
        r += z[a, i] * x[x0 + i]
        s += z[a + 1, i] * x[x0 + i]
    out[j, d] += r
    out[j + 1, d] += s


@fused_kernel
def _add_moments(z: FloatArray, a: int, x: FloatArray, out: FloatArray, j: int) -> None:
    """out[j] += Σ_i z[a, i] x_i, and the same for the next row."""
    width = out.shape[1]
    for d in range(0, width - 3, 4):
        _add_four_moments(z, a, x, d, out, j)
    for d in range(width - width % 4, width):
        _add_moment(z, a, x, d, out, j)


@fused_kernel
def add_slopes(
    code: int, vectors: FloatArray, span: tuple[int, int, int, int], length: int, x: FloatArray, cx: FloatArray, out: FloatArray
) -> None:
    """out (N or more, D) += Σ_q σ'(x_q·θ_j) cx_q over the neurons and the blocks of ``span``, where ``cx`` has the inputs times their
    coefficients. A last row without a partner brings the row after it along, which nobody reads."""
    first, end, first_block, end_block = span
    rows = _tile_rows(length)
    flat, theta = _tile(rows * length), np.empty((rows, vectors.shape[1]))
    z = flat.reshape(rows, length)
    for b in range(first_block, end_block):
        for j in range(first, end, rows):
            _fill_products(vectors, j, end, theta, x[b], z)
            fill_slopes(code, flat)
            for a in range(0, min(rows, end - j), 2):
                _add_moments(z, a, cx[b], out, j + a)


@kernel
def _span(by_input: bool, neurons: int, blocks: int, p: int) -> tuple[int, int, int, int]:
    """Part p of the work: some of the blocks of inputs, or some of the neurons in whole groups of _TOGETHER."""
    if by_input:
        return 0, neurons, p * blocks // PARTS, (p + 1) * blocks // PARTS
    groups = (neurons + _TOGETHER - 1) // _TOGETHER
    return min(p * groups // PARTS * _TOGETHER, neurons), min((p + 1) * groups // PARTS * _TOGETHER, neurons), 0, blocks


@parallel_kernel
def _sums_of_parts(code: int, vectors: FloatArray, weights: FloatArray, by_input: bool, x: FloatArray, parts: FloatArray) -> None:
    """``add_sums`` on all threads: parts of the inputs, all to the first of ``parts``, or parts of the neurons, each to its own."""
    for part in prange(PARTS):
        p = int(np.int64(part))  # which has no sign, and makes floats of integers that have one
        add_sums(code, vectors, weights, _span(by_input, len(vectors), len(x), p), x, parts[0 if by_input else p])


@parallel_kernel
def _slopes_of_parts(code: int, vectors: FloatArray, by_input: bool, length: int, x: FloatArray, cx: FloatArray, parts: FloatArray) -> None:
    """``add_slopes`` on all threads: parts of the neurons, all to the first of ``parts``, or parts of the inputs, each to its own."""
    for part in prange(PARTS):
        p = int(np.int64(part))  # which has no sign, and makes floats of integers that have one
        add_slopes(code, vectors, _span(by_input, len(vectors), len(x), p), length, x, cx, parts[p if by_input else 0])


def neuron_sums(activation: str, vectors: FloatArray, weights: FloatArray, inputs: FloatArray) -> FloatArray:
    """Σ_j w_j σ(x_q·θ_j), (Q,), for θ = ``vectors`` (N, D), ``weights`` (N,) and x = ``inputs`` (Q, D).

    The same bits for any number of threads. Raises ValueError for an unknown activation or shapes that differ.
    """
    code = _code_of(activation, vectors, inputs)
    if weights.shape != vectors.shape[:1]:
        raise ValueError(f"{len(vectors)} neurons need as many weights, got an array of shape {weights.shape}")
    if min(vectors.shape[0], inputs.shape[0]) == 0:
        return np.zeros(len(inputs))
    theta, mass, length = np.ascontiguousarray(vectors), np.ascontiguousarray(weights), _block_length(*inputs.shape)
    x = _packed(inputs, length)
    alone, by_input = _shared(vectors, inputs)
    parts = np.zeros((1 if alone or by_input else PARTS, len(x), length))
    if alone:
        add_sums(code, theta, mass, (0, len(theta), 0, len(x)), x, parts[0])
    else:
        _sums_of_parts(code, theta, mass, by_input, x, parts)
    total = parts[0] if len(parts) == 1 else np.sum(parts, axis=0)
    return np.asarray(np.ravel(total)[: len(inputs)])


def neuron_slopes(activation: str, vectors: FloatArray, inputs: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Σ_q c_q σ'(x_q·θ_j) x_q, (N, D), for θ = ``vectors`` (N, D), x = ``inputs`` (Q, D) and c = ``coefficients`` (Q,).

    The same bits for any number of threads. Raises ValueError for an unknown activation or shapes that differ.
    """
    code = _code_of(activation, vectors, inputs)
    if coefficients.shape != inputs.shape[:1]:
        raise ValueError(f"{len(inputs)} inputs need as many coefficients, got an array of shape {coefficients.shape}")
    if min(vectors.shape[0], inputs.shape[0]) == 0:
        return np.zeros(vectors.shape)
    theta, length = np.ascontiguousarray(vectors), _block_length(*inputs.shape)
    x, cx = _packed(inputs, length), _packed(inputs * coefficients[:, None], length)
    alone, by_input = _shared(vectors, inputs)
    parts = np.zeros((PARTS if by_input and not alone else 1, len(theta) + 1, theta.shape[1]))
    if alone:
        add_slopes(code, theta, (0, len(theta), 0, len(x)), length, x, cx, parts[0])
    else:
        _slopes_of_parts(code, theta, by_input, length, x, cx, parts)
    return np.asarray(parts[0] if len(parts) == 1 else np.sum(parts, axis=0))[:-1]


def _code_of(activation: str, vectors: FloatArray, inputs: FloatArray) -> int:
    if activation not in NAMES:
        raise ValueError(f"activation must be one of {', '.join(NAMES)}, got {activation!r}")
    if vectors.ndim != 2 or inputs.ndim != 2 or vectors.shape[1] != inputs.shape[1] or vectors.shape[1] == 0:
        raise ValueError(f"neurons (N, D) and inputs (Q, D) must have the same D >= 1, got {vectors.shape} and {inputs.shape}")
    return NAMES.index(activation)


def _shared(vectors: FloatArray, inputs: FloatArray) -> tuple[bool, bool]:
    """Whether one thread does it all, and whether the parts are parts of the inputs."""
    return len(vectors) * len(inputs) < _ALONE, len(inputs) > len(vectors)


def _block_length(count: int, width: int) -> int:
    """So many inputs that a block stays in the first cache; all blocks but the last are full, and the last one nearly so."""
    longest = max(_LANES, min(_LONGEST, _BLOCK_ENTRIES // width // _LANES * _LANES))
    blocks = -(-count // longest)
    return _LANES * -(-count // (_LANES * blocks))


def _packed(inputs: FloatArray, length: int) -> FloatArray:
    """Inputs (Q, D) in blocks of ``length``, as (blocks, D · _STRIDE) that begins with a line of the cache."""
    count, width = inputs.shape
    blocks = -(-count // length)
    room = np.zeros(blocks * width * _STRIDE + _LANES)
    start = (-room.ctypes.data // 8) % _LANES
    packed = room[start : start + blocks * width * _STRIDE].reshape(blocks, width, _STRIDE)
    whole = count // length
    packed[:whole, :, :length] = inputs[: whole * length].reshape(whole, length, width).transpose(0, 2, 1)
    if whole < blocks:
        packed[whole, :, : count - whole * length] = inputs[whole * length :].T
    return packed.reshape(blocks, width * _STRIDE)
