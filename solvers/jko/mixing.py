"""Anderson's acceleration of fixed-point iterations [Anderson 1965; Walker–Ni 2011]."""

import numpy as np

from mfpde.arrays import FloatArray

_KEPT, _SINGULAR, _GROWTH = 16, 1e-13, 4.0


class Mixing:
    """Extrapolates from the last iterates; ``furthest`` is how far, at most, from what the map itself gave, broadcast to (k, n)."""

    def __init__(self, furthest: FloatArray) -> None:
        self.furthest = furthest
        self._found: list[FloatArray] = []
        self._rests: list[FloatArray] = []
        self._before = np.inf

    def forget(self) -> None:
        """Start anew with the next iterate."""
        self._found, self._rests, self._before = [], [], np.inf

    def next(self, found: FloatArray, rest: FloatArray, weights: FloatArray) -> FloatArray:
        """Where to go from what the map made, ``found`` = x + ``rest`` (k, n), residuals being weighted with ``weights`` (k, n)."""
        size = float(np.sqrt(np.sum(weights * rest**2)))
        if size > _GROWTH * self._before:
            self.forget()
        self._before = size
        self._found.append(found)
        self._rests.append(rest)
        del self._found[: -_KEPT - 1], self._rests[: -_KEPT - 1]
        if len(self._rests) == 1:
            return found
        roots = np.sqrt(weights)
        steps = np.stack([((b - a) * roots).ravel() for a, b in zip(self._rests[:-1], self._rests[1:], strict=True)])
        shares = _least_squares(steps, (rest * roots).ravel())
        moved = sum(s * (b - a) for s, a, b in zip(shares, self._found[:-1], self._found[1:], strict=True))
        return np.asarray(found - np.clip(moved, -self.furthest, self.furthest))


def _least_squares(rows: FloatArray, right: FloatArray) -> FloatArray:
    """The shares (m,) of ``rows`` (m, n) that come closest to ``right`` (n,), without directions that rounding hides."""
    lengths = np.sqrt(np.einsum("in,in->i", rows, rows))
    rows = rows / np.maximum(lengths, 1e-300)[:, None]
    values, vectors = np.linalg.eigh(np.einsum("in,jn->ij", rows, rows))
    kept = values > _SINGULAR * values[-1]
    part = vectors[:, kept]
    return np.asarray(part @ ((part.T @ np.einsum("in,n->i", rows, right)) / values[kept]) / np.maximum(lengths, 1e-300))
