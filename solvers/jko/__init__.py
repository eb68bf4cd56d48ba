"""Minimising movements: ρ_{k+1} = argmin E(ρ) + W₂²(ρ, ρ_k)/(2τ), the scheme that defines Wasserstein gradient flows.

On an interval in the quantile function, for every energy; on atoms in any dimension for networks in as many unknowns as there are
features, and for any energy that is finite on atoms in their positions. All without entropic bias, of first order in τ or of second by
BDF2, with the certificate of every step.
"""

from mfpde.solvers.jko.choices import MinimizingMovement
from mfpde.solvers.jko.flow import MovementFlow, MovementState

__all__ = ["MinimizingMovement", "MovementFlow", "MovementState"]
