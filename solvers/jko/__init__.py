"""Minimising movements."""

from mfpde.solvers.jko.choices import MinimizingMovement

__all__ = ["MinimizingMovement"]
