"""Kernels of a case file: expressions of a difference, in which the axis names are its components and r is its norm."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case.expression import Expression

NORM = "r"


@dataclass(frozen=True)
class DifferenceExpression:
    """A function of differences (M, d) by an ``expression`` of their d components and, last, their norm."""

    expression: Expression

    def __call__(self, x: FloatArray) -> FloatArray:
        """Values (M,)."""
        return self.expression(_with_norm(x))

    def slope(self, x: FloatArray) -> FloatArray:
        """The gradient (M, d) by the chain rule, with ∇r = x/r, and 0 for it where r = 0."""
        extended = _with_norm(x)
        parts, norm = self.expression.gradient(extended), extended[:, -1]
        slopes = np.empty((x.shape[1], len(x)))
        with np.errstate(all="ignore"):
            radial = np.where(norm > 0.0, parts[:, -1] / norm, 0.0)
            for k, slope in enumerate(slopes):
                np.multiply(radial, x[:, k], out=slope)
                np.add(slope, parts[:, k], out=slope)
        return slopes.T


def _with_norm(x: FloatArray) -> FloatArray:
    """Components and norm, (M, d + 1), with contiguous columns."""
    columns = np.empty((x.shape[1] + 1, len(x)))
    columns[:-1] = x.T
    columns[-1] = np.abs(x[:, 0]) if x.shape[1] == 1 else np.sqrt(np.einsum("kn,kn->n", columns[:-1], columns[:-1]))
    return columns.T
