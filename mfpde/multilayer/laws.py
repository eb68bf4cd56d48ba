"""Laws of initial weights: draws of them, and Gauss rules."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mfpde.arrays import FloatArray


@dataclass(frozen=True)
class Law:
    """Independent numbers with this mean and standard deviation, uniform on an interval or normal. Raises ValueError for a negative
    deviation."""

    kind: Literal["uniform", "normal"] = "uniform"
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.deviation < math.inf or not math.isfinite(self.mean):
            raise ValueError(f"the mean must be finite and the deviation nonnegative, got {self.mean} and {self.deviation}")

    @property
    def centred(self) -> "Law":
        """The same with mean 0."""
        return replace(self, mean=0.0)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
        """Numbers in this shape; those of fewer rows are the first ones of those of more rows."""
        if self.kind == "normal":
            return np.asarray(self.mean + self.deviation * generator.standard_normal(shape))
        return np.asarray(self.mean + self.deviation * math.sqrt(3.0) * (2.0 * generator.random(shape) - 1.0))

    def rule(self, count: int, dimension: int) -> tuple[FloatArray, FloatArray]:
        """Gauss nodes of ``dimension`` independent numbers, (nodes, dimension), and their probabilities (nodes,): ``count`` nodes a number
        (Gauss–Legendre or Gauss–Hermite), or one where nothing is random."""
        if self.deviation == 0.0:
            return np.full((1, dimension), self.mean), np.ones(1)
        points, weights = (np.polynomial.legendre.leggauss if self.kind == "uniform" else np.polynomial.hermite_e.hermegauss)(count)
        line = self.mean + self.deviation * points * (math.sqrt(3.0) if self.kind == "uniform" else 1.0)
        share = weights / np.sum(weights)
        nodes = np.stack(np.meshgrid(*[line] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
        shares = np.prod(np.stack(np.meshgrid(*[share] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension), axis=1)
        return nodes, shares
