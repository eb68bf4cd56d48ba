"""The arc-cosine kernel of order one: expectations of relu neurons in closed form."""

import math

import numpy as np
from scipy.special import ellipe, ellipkm1

from mfpde.arrays import FloatArray
from mfpde.solvers.kernels.scaling import add_pairs

_TINY = 1e-300
_BLOCK = 1 << 18


def relu_kernel(one: FloatArray, two: FloatArray) -> FloatArray:
    """k(u, v) = E relu(u·x)relu(v·x) = |u||v|(sin φ + (π − φ)cos φ)/2π for x ~ N(0, I), φ the angle between them. [Cho–Saul 2009, n = 1]

    ``one`` (m, d) and ``two`` (k, d) give (m, k).
    """
    lengths = np.outer(norms(one), norms(two))
    cosine = np.clip((one @ two.T) / np.maximum(lengths, _TINY), -1.0, 1.0)
    sine = np.sqrt((1.0 - cosine) * (1.0 + cosine))
    return np.asarray(lengths * (sine + (np.pi - np.arccos(cosine)) * cosine) / (2.0 * math.pi))


def square_norm(weights: FloatArray, inner: FloatArray) -> float:
    """E(Σ_j c_j relu(b_j·x))² for x ~ N(0, I); ``weights`` c (m,), ``inner`` b (m, d)."""
    return max(float(weights @ kernel_sums(inner, weights)), 0.0)


def kernel_sums(inner: FloatArray, weights: FloatArray) -> FloatArray:
    """Σ_k c_k k(b_j, b_k), (m,), in memory that does not grow with m²; ``weights`` c (m,), ``inner`` b (m, d)."""
    length = norms(inner)
    inverse, found = inverted(length), np.empty(len(inner))
    rows = max(_BLOCK // len(inner), 1)
    scratch = np.empty(rows)
    for first in range(0, len(inner), rows):
        part = slice(first, first + rows)
        gram = np.ascontiguousarray(inner[part] @ inner.T)
        add_pairs(gram, inverse[part], length, inverse, weights, found[part], scratch)
    return found * length / (2.0 * math.pi)


def circle_overlap(inner: FloatArray, plane: FloatArray) -> tuple[FloatArray, FloatArray]:
    """E f*(x)relu(b·x) for the circle neuron f*(x) = ∫relu(v·x)π(dv), π uniform on the unit circle of a plane, and its gradient by b.

    With p the projection of b on the plane and c = |p|/|b| it is |b|h(c), h(c) = (2E(c) − (1 − c²)K(c))/π² with the complete elliptic
    integrals of modulus c, and h'(c) = (E(c) − (1 − c²)K(c))/(π²c). ``inner`` (m, d), ``plane`` (2, d) orthonormal; (m,) and (m, d).
    """
    within = inner @ plane.T
    length, radius = norms(inner), norms(within)
    safe = np.maximum(length, _TINY)
    c = np.minimum(radius / safe, 1.0)
    rest = norms(inner - within @ plane) / safe
    second, first = ellipe(c * c), ellipkm1(np.maximum(rest * rest, _TINY))
    fall = rest * rest * first
    h = (2.0 * second - fall) / math.pi**2
    rise = np.where(c > 1e-4, (second - fall) / np.maximum(c, 1e-4), 0.25 * math.pi * c) / math.pi**2
    slope = ((h - c * rise) / safe)[:, None] * inner + (rise / np.maximum(radius, _TINY))[:, None] * (within @ plane)
    return length * h, slope


def norms(rows: FloatArray) -> FloatArray:
    """The lengths of the rows, (m,)."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)))


def inverted(lengths: FloatArray) -> FloatArray:
    """1/length, and 0 for lengths of 0, whose neurons stay where they are."""
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0.0)
