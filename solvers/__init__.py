"""Solvers: frozen sets of numerical choices that turn a problem into a flow."""

from typing import Protocol

from mfpde.march import Flow
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.solvers.characteristics import Characteristics
from mfpde.solvers.finite_volume import FiniteVolume
from mfpde.solvers.jko import MinimizingMovement
from mfpde.solvers.particles import ParticleFlow
from mfpde.solvers.stationary import Stationary, critical_temperature

__all__ = ["Characteristics", "FiniteVolume", "MinimizingMovement", "ParticleFlow", "Solver", "Stationary", "critical_temperature"]


class Solver(Protocol):
    """A frozen set of numerical choices."""

    def prepare(self, problem: Problem) -> Flow:
        """Do once what depends on the problem. Raises ValueError where the choices do not fit it."""

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
