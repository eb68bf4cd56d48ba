"""Conservative finite volumes."""

from mfpde.solvers.finite_volume.flux import Flux, LimitedUpwind, ScharfetterGummel
from mfpde.solvers.finite_volume.solver import FiniteVolume, FiniteVolumeFlow, FiniteVolumeState

__all__ = ["FiniteVolume", "FiniteVolumeFlow", "FiniteVolumeState", "Flux", "LimitedUpwind", "ScharfetterGummel"]
