"""Laws of the inputs under which relu networks have the arc-cosine kernel up to a factor."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray


class Inputs(Protocol):
    """A rotation-invariant law of x in R^d."""

    def second_moment(self, dimension: int) -> float:
        """κ = E|x|²/d, by which all expectations of two relu neurons exceed those of N(0, I)."""

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, d)."""


@dataclass(frozen=True)
class GaussianInputs:
    """x = scale · N(0, I)."""

    scale: float = 1.0

    def second_moment(self, dimension: int) -> float:
        """κ = scale²."""
        return self.scale**2

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, d)."""
        return self.scale * generator.standard_normal((count, dimension))


@dataclass(frozen=True)
class SphereInputs:
    """x uniform on the sphere |x| = radius, by default √d; a relu neuron is homogeneous, so only κ = radius²/d differs."""

    radius: float | None = None

    def second_moment(self, dimension: int) -> float:
        """κ = radius²/d."""
        return 1.0 if self.radius is None else self.radius**2 / dimension

    def sample(self, generator: np.random.Generator, count: int, dimension: int) -> FloatArray:
        """Independent draws, (count, d)."""
        points = generator.standard_normal((count, dimension))
        length = math.sqrt(dimension) if self.radius is None else self.radius
        return np.asarray(points * (length / np.linalg.norm(points, axis=1))[:, None])
