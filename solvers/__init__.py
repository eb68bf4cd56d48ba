"""Solvers: frozen sets of numerical choices that turn a problem into a flow. Each is loaded when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from mfpde.march import Flow
from mfpde.problem import Problem
from mfpde.run import Run

if TYPE_CHECKING:
    from mfpde.solvers.characteristics import Characteristics
    from mfpde.solvers.finite_volume import FiniteVolume
    from mfpde.solvers.jko import MinimizingMovement
    from mfpde.solvers.particles import ParticleFlow
    from mfpde.solvers.stationary import Stationary, critical_temperature

_HOME_OF = {
    "Characteristics": "characteristics",
    "FiniteVolume": "finite_volume",
    "MinimizingMovement": "jko",
    "ParticleFlow": "particles",
    "Stationary": "stationary",
    "critical_temperature": "stationary",
}

__all__ = ["Characteristics", "FiniteVolume", "MinimizingMovement", "ParticleFlow", "Solver", "Stationary", "critical_temperature"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mfpde.solvers' has no attribute {name!r}")
    return getattr(import_module(f"mfpde.solvers.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class Solver(Protocol):
    """A frozen set of numerical choices."""

    def prepare(self, problem: Problem) -> Flow:
        """Do once what depends on the problem. Raises ValueError where the choices do not fit it."""

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
