"""Minibatches of n samples: how they are drawn, and what that does to the variance of their mean."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Batch:
    """``size`` B of ``samples`` n, drawn independently (``replacement``) or all at once without replacement, anew in every step.

    Raises ValueError for numbers below 1, and for more than n samples without replacement.
    """

    size: int
    samples: int
    replacement: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.replacement and self.size > self.samples:
            raise ValueError(f"a batch without replacement has at most n = {self.samples} samples, got {self.size}")

    @property
    def factor(self) -> float:
        """c in Var(mean over the batch) = c Var(sample): (n − B)/(B(n − 1)), or 1/B with replacement. [slides (0.19), corrected]"""
        if self.replacement:
            return 1.0 / self.size
        return (self.samples - self.size) / (self.size * (self.samples - 1)) if self.samples > 1 else 0.0

    @property
    def whole(self) -> bool:
        """Whether every batch is the whole set of samples, so that SGD is gradient descent."""
        return self.factor == 0.0

    def draw(self, generator: np.random.Generator, count: int) -> IntArray:
        """The indices of ``count`` independent batches, (count, B)."""
        if self.replacement:
            return generator.integers(self.samples, size=(count, self.size))
        if self.whole:
            return np.tile(np.arange(self.samples), (count, 1))
        if self.size == 1:
            return generator.integers(self.samples, size=(count, 1))
        keys = generator.random((count, self.samples))
        return np.asarray(np.argpartition(keys, self.size - 1, axis=1)[:, : self.size])

    def chances(self, marked: int) -> FloatArray:
        """The probabilities that 0 … B samples of a batch are among ``marked`` of the n samples, (B + 1,)."""
        from scipy.stats import binom, hypergeom

        counts = np.arange(self.size + 1)
        law = binom(self.size, marked / self.samples) if self.replacement else hypergeom(self.samples, marked, self.size)
        return np.asarray(law.pmf(counts), dtype=float)
