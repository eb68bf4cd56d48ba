"""Conservative finite volumes."""

from mfpde.solvers.finite_volume.flux import Flux, LimitedUpwind, PressureUpwind, ScharfetterGummel, Upwind
from mfpde.solvers.finite_volume.solver import FiniteVolume, FiniteVolumeFlow, FiniteVolumeState
from mfpde.solvers.finite_volume.stepper import Explicit, Implicit, ImplicitEuler, Stepper

__all__ = [
    "Explicit",
    "FiniteVolume",
    "FiniteVolumeFlow",
    "FiniteVolumeState",
    "Flux",
    "Implicit",
    "ImplicitEuler",
    "LimitedUpwind",
    "PressureUpwind",
    "ScharfetterGummel",
    "Stepper",
    "Upwind",
]
