"""The finite-N particle system whose limit is the PDE: in continuous time, by gradient descent, with noise, on minibatches."""

from mfpde.solvers.particles.choices import ParticleFlow
from mfpde.solvers.particles.descent import DescentFlow
from mfpde.solvers.particles.smooth import SmoothFlow

__all__ = ["DescentFlow", "ParticleFlow", "SmoothFlow"]
