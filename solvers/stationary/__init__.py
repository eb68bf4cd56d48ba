"""Stationary states of free energies, directly."""

from mfpde.solvers.stationary.branches import Branch
from mfpde.solvers.stationary.critical import CriticalTemperature, critical_temperature
from mfpde.solvers.stationary.solver import Stationary, StationaryFlow, StationaryState

__all__ = ["Branch", "CriticalTemperature", "Stationary", "StationaryFlow", "StationaryState", "critical_temperature"]
