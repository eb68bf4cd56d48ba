"""Mean-field limits, solved and checked: Wasserstein gradient flows by finite volumes and by particles.

The public names are loaded when they are first used, so that ``import mfpde`` stays light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "mfpde.domain": ("Axis", "Domain", "Grid"),
    "mfpde.disk": ("Disk",),
    "mfpde.measure": ("Density", "DensityFunction", "Particles"),
    "mfpde.distance": ("Distance", "wasserstein"),
    "mfpde.energy": ("EnergySum", "Entropy", "Potential", "TwoLayer"),
    "mfpde.problem": ("Problem",),
    "mfpde.run": ("Run", "Status"),
    "mfpde.solvers": ("Characteristics", "FiniteVolume", "MinimizingMovement", "ParticleFlow", "Stationary"),
    "mfpde.case": ("load_case",),
    "mfpde.storage": ("read_run", "write_run"),
    "mfpde.study": ("RefinementStudy", "fitted_order", "refinement_study"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*sorted(_HOME_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mfpde' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
