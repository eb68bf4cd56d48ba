"""Steps of internal energies alone in the quantile function: convex, with a tridiagonal Hessian, in one compiled call."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.internal import Entropy, Power
from mfpde.solvers.kernels.jko_lanes import CARRY, FEWEST, fill_masses, minimise, size_of

_DESCENT = 1.9
"""How much the Hessian may grow along a step that descends: less than 2."""
_MOST_ITERATIONS = 30


class InternalStep(NamedTuple):
    """Levels (n + 1, 1) of a minimiser, its energy and W₂² to the aim, the residual Σ g²/m, gᵀH⁻¹g of the last step, and the linear systems
    that it took."""

    places: FloatArray
    energy: float
    square: float
    left: float
    drop: float
    iterations: int


class InternalSteps:
    """Newton's method on vectors for ``masses`` (n,) between walls; made by ``InternalSteps.of``."""

    def __init__(self, masses: FloatArray, low: float, high: float, coefficients: FloatArray, exponent: float) -> None:
        self._low, self._high, self._coefficients, self._exponent = low, high, coefficients, exponent
        self._work, self._carry, self._found = _aligned(size_of(len(masses) + 1)), _aligned(CARRY), np.empty(4)
        self._last: FloatArray | None = None
        self._shrink = 1.0 - _DESCENT ** (-1.0 / (exponent + 1.0))
        fill_masses(self._work, masses, high, 1e3 * (high - low))

    @staticmethod
    def of(terms: Sequence[Entropy | Power], masses: FloatArray, low: float, high: float) -> "InternalSteps | None":
        """For the sum of these terms; None for other exponents than 2, 3 and 4, and for few levels."""
        coefficients, exponent = np.zeros(4), 1.0
        for term in terms:
            if isinstance(term, Power) and term.exponent not in (2.0, 3.0, 4.0):
                return None
            m, c = (term.exponent, term.coefficient) if isinstance(term, Power) else (1.0, term.temperature)
            coefficients[int(m) - 1] += c
            exponent = max(exponent, m)
        if not terms or len(masses) + 1 < FEWEST:
            return None
        return InternalSteps(masses, low, high, coefficients, exponent)

    def minimise(
        self,
        aim: FloatArray,
        sigma: float,
        here: FloatArray,
        guess: FloatArray,
        missed: FloatArray,
        factor: float,
        share: float,
        close: float,
    ) -> InternalStep | None:
        """The minimiser for levels (n + 1, 1), sought from guess + factor · missed where its cells are wider than this ``share`` of those
        ``here``, else from ``here``. ``close``: how far off it may be, in L² as a share of the axis. None where this is no case for it."""
        places, aimed = np.empty(aim.shape), aim is self._last
        iterations = minimise(
            self._work, self._carry, places[:, 0], aim[:, 0], here[:, 0], guess[:, 0], missed, factor, aimed, self._low, self._high, sigma,
            self._coefficients, self._exponent, self._shrink, close, share, _MOST_ITERATIONS, self._found,
        )  # fmt: skip
        self._last = places if iterations else None
        energy, square, left, drop = self._found.tolist()
        return InternalStep(places, energy, square, left, drop, iterations) if iterations else None


def _aligned(size: int) -> FloatArray:
    """Numbers that begin with a cache line, as vectors that are stored and soon read again should."""
    room = np.empty(size + 8)
    first = (-room.ctypes.data % 64) // 8
    return room[first : first + size]
