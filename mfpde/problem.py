"""The continuum problem: an energy, a domain, an initial measure and the times to save. It knows no mesh, no N, no step."""

import math
from dataclasses import dataclass

from mfpde.domain import Domain
from mfpde.energy.base import EnergySum
from mfpde.measure import DensityFunction, Particles


@dataclass(frozen=True, eq=False)
class Problem:
    """ρ_t = div(ρ ∇ δE/δρ) on ``domain`` with no flux through walls, from ``initial`` at time 0, wanted at ``save_at``.

    Raises ValueError for times that are negative, not finite or not increasing, and for atoms outside the domain.
    """

    energy: EnergySum
    domain: Domain
    initial: DensityFunction | Particles
    save_at: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.save_at or not all(math.isfinite(t) and t >= 0.0 for t in self.save_at):
            raise ValueError(f"the times to save must be finite and nonnegative, got {list(self.save_at)[:5]}")
        if any(b <= a for a, b in zip(self.save_at, self.save_at[1:], strict=False)):
            raise ValueError("the times to save must increase")
        if isinstance(self.initial, Particles):
            if self.initial.points.shape[1] != self.domain.dimension:
                raise ValueError(f"initial atoms need {self.domain.dimension} coordinates, got {self.initial.points.shape[1]}")
            if not self.domain.contains(self.initial.points).all():
                raise ValueError("initial atoms must lie in the domain")
            if not (self.initial.weights > 0.0).all():
                raise ValueError("initial atoms need positive weights")
