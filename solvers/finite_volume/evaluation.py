"""What evaluating a density gives besides its rate."""

from typing import NamedTuple

import numpy as np


class Evaluation(NamedTuple):
    """The energy, the sum of its terms' sizes, the largest outflow rate of a cell, and the dissipation ∫ρ|∇δE/δρ|²."""

    energy: float
    magnitude: float
    outflow: float
    dissipation: float

    @property
    def finite(self) -> bool:
        """Whether energy and velocities are finite."""
        return bool(np.isfinite(self.energy) and np.isfinite(self.outflow))


class Stage(NamedTuple):
    """The largest outflow rate of a cell, the least value of the next density and ∫|next − 2 ρ + base|."""

    outflow: float
    minimum: float
    gap: float
