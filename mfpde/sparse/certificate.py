"""The dual certificate η(u) = E(y − f)relu(u·x) of a sparse network: its peaks on the sphere, and its shape at the neurons.

f minimises ½E(f − y)² + λ|ν| over measures ν on the sphere iff |η| ≤ λ everywhere and η = λ sign ν where ν is. A minimiser is
non-degenerate if |η| < λ elsewhere and the Hessian of |η| on the sphere is negative definite at its neurons [Duval–Peyré 2015; the
condition of local linear convergence in Chizat 2019 and in Akiyama–Suzuki 2021].
"""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.sparse.network import Network

_STARTS = 64
_ASCENTS, _NEWTON = 60, 40
_SAME_PEAK = 1e-5


@dataclass(frozen=True, eq=False)
class Peaks:
    """Local maxima of |η| on the sphere: ``points`` (P, d), ``signs`` (P,) of η there and ``levels`` |η| (P,), highest first."""

    points: FloatArray
    signs: FloatArray
    levels: FloatArray

    @property
    def highest(self) -> float:
        """The largest |η| found."""
        return float(self.levels[0]) if len(self.levels) else 0.0


def find_peaks(residual: Network, also: FloatArray) -> Peaks:
    """The local maxima of ±η that are reached from the neurons of the ``residual`` y − f, from directions ``also`` (S, d), from the
    opposite of both and from 64 directions for each dimension (on a circle equidistant ones).

    In two dimensions the spacing is finer than the neurons' angles allow peaks to be missed; in more this is a search, not a proof.
    """
    known = np.concatenate([residual.directions, also])
    starts = np.concatenate([known, -known, spread_directions(_STARTS * residual.vectors.shape[1], residual.vectors.shape[1])])
    points, signs, levels = [], [], []
    for sign in (1.0, -1.0):
        signed = Network(residual.vectors, sign * residual.coefficients, residual.moment)
        at = _polish(signed, _ascend(signed, starts))
        level = signed.correlation(at)
        order = np.argsort(-level, kind="stable")
        kept: list[int] = []
        for k in order:
            if level[k] > 0.0 and all(np.linalg.norm(at[k] - at[j]) > _SAME_PEAK for j in kept) and _is_maximum(signed, at[k]):
                kept.append(int(k))
        points += [at[kept]]
        signs += [np.full(len(kept), sign)]
        levels += [level[kept]]
    level = np.concatenate(levels)
    order = np.argsort(-level, kind="stable")
    return Peaks(np.concatenate(points)[order], np.concatenate(signs)[order], level[order])


def spread_directions(count: int, dimension: int) -> FloatArray:
    """Unit vectors (count, d): equidistant in two dimensions, else drawn, always the same ones."""
    if dimension == 1:
        return np.array([[1.0], [-1.0]])
    if dimension == 2:
        angle = 2.0 * math.pi * (np.arange(count) + 0.5) / count
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    drawn = np.random.default_rng(0).standard_normal((count, dimension))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def hessians(residual: Network, at: FloatArray) -> FloatArray:
    """The Hessian of η on the sphere at unit vectors (M, d), (M, d, d), 0 along them: P∇²ηP − ηP with the projection P = I − uuᵀ."""
    flat = np.eye(at.shape[1]) - at[:, :, None] * at[:, None, :]
    return np.asarray(residual.curvature(at) - residual.correlation(at)[:, None, None] * flat)


def tangents(at: FloatArray) -> FloatArray:
    """An orthonormal basis of the tangent space at unit vectors (M, d), as columns (M, d, d − 1)."""
    return np.asarray(np.linalg.svd(at[:, :, None])[0][:, :, 1:])


def _ascend(signed: Network, at: FloatArray) -> FloatArray:
    """u ← (∇η + αu)/|·|, along which η + α|u| never falls, as that is convex for this α."""
    alpha = signed.moment / math.pi * float(np.sum(np.maximum(-signed.masses, 0.0)))
    for _ in range(_ASCENTS):
        moved = signed.correlation_and_slope(at)[1] + alpha * at
        size = np.linalg.norm(moved, axis=1, keepdims=True)
        at = np.where(size > 0.0, moved / np.where(size > 0.0, size, 1.0), at)
    return at


def _polish(signed: Network, at: FloatArray) -> FloatArray:
    """Newton's method on the sphere for ∇η = 0 with the Hessian made negative definite; steps that are long or lead down are shortened."""
    if at.shape[1] == 1:
        return at
    for _ in range(_NEWTON):
        value, slope = signed.correlation_and_slope(at)
        basis = tangents(at)
        slope = np.einsum("mab,ma->mb", basis, slope)
        hessian = np.einsum("mab,mac,mcd->mbd", basis, hessians(signed, at), basis)
        values, vectors = np.linalg.eigh(hessian)
        size = np.maximum(np.abs(values), 1e-12 * max(1e-300, float(np.max(np.abs(values)))))
        step = np.einsum("mab,mb->ma", vectors, np.einsum("mab,ma->mb", vectors, slope) / size)
        step *= np.minimum(1.0, 0.2 / np.maximum(np.linalg.norm(step, axis=1), 1e-300))[:, None]
        moved = at + np.einsum("mab,mb->ma", basis, step)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        better = signed.correlation(moved) >= value - 1e-15 * np.abs(value)
        at = np.where(better[:, None], moved, _back(signed, at, moved, value))
        if float(np.max(np.linalg.norm(step, axis=1))) < 1e-14:
            break
    return at


def _back(signed: Network, at: FloatArray, moved: FloatArray, value: FloatArray) -> FloatArray:
    """A tenth of the way, where that does not lead down."""
    part = at + 0.1 * (moved - at)
    part /= np.linalg.norm(part, axis=1, keepdims=True)
    return np.where((signed.correlation(part) >= value)[:, None], part, at)


def _is_maximum(signed: Network, at: FloatArray) -> bool:
    """Whether ∇η is nearly 0 there (points that an ascent has not brought to a peak are no peaks)."""
    slope = signed.correlation_and_slope(at[None])[1][0]
    off = slope - (slope @ at) * at
    return float(np.linalg.norm(off)) <= 1e-7 * max(float(np.linalg.norm(slope)), 1e-300)
