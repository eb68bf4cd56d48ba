"""The decorator of the loops of solvers, which energies use too."""

from mfpde.compile import kernel

__all__ = ["kernel"]
