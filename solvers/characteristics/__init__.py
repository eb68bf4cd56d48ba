"""Smooth noise-free flows by characteristics: quadrature nodes of the initial density carried with the flow.

ρ₀ is cut into panels with tensor Gauss–Legendre nodes a_j. The nodes move by θ̇ = −∇ξ(θ; ρ) and keep their weights, so that integrals
over ρ are as accurate as the quadrature, and ρ(θ(a)) = ρ₀(a)/det ∂θ/∂a by the polynomial of each panel. Panels on which ρ₀ or θ(a) is
not resolved are halved along the axis that needs it.
"""

from mfpde.solvers.characteristics.solver import CharacteristicFlow, Characteristics, CharacteristicState

__all__ = ["CharacteristicFlow", "CharacteristicState", "Characteristics"]
