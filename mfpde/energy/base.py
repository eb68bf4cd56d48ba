"""What every energy offers to the solvers, and sums of energies."""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain, Grid
from mfpde.measure import Measure


class GridEnergy(Protocol):
    """An energy prepared for one grid; ``rho`` holds cell averages, (size,). Nothing here allocates."""

    @property
    def temperature(self) -> float:
        """The coefficient of the entropy, which solvers may treat as linear diffusion; 0 without one."""

    def value(self, rho: FloatArray) -> float:
        """The energy, entropy included."""

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add the first variation without its entropy part to ``xi`` (size,); returns the energy without its entropy part."""


@runtime_checkable
class GridQuadratic(Protocol):
    """A prepared energy ½⟨ρ, Kρ⟩ + ⟨linear, ρ⟩ + constant with symmetric K, ⟨·,·⟩ being the sum over the cells times their volumes."""

    @property
    def linear(self) -> FloatArray:
        """The linear part of the first variation, (size,)."""

    @property
    def factors(self) -> tuple[FloatArray, FloatArray] | None:
        """Rows F (r, size) and signs s (r,) with Kρ = Fᵀ(s ∘ F(volume ∘ ρ)), where K has a low rank; else None."""

    @property
    def convex(self) -> bool:
        """Whether K is positive semidefinite."""

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Kρ to ``out`` (size,)."""

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add K₋ρ to ``out``, where K = K₊ − K₋ and both are positive semidefinite; nothing where K is."""


@runtime_checkable
class GridCurved(Protocol):
    """A prepared energy that is smooth but no quadratic form, for implicit steps."""

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """As that of a GridEnergy."""

    def add_curvature(self, rho: FloatArray, change: FloatArray, out: FloatArray) -> None:
        """Add the derivative of the first variation at ``rho`` along ``change`` to ``out``, all (size,)."""


class Energy(Protocol):
    """A functional E of a measure on Ω ⊂ R^d."""

    @property
    def temperature(self) -> float:
        """The coefficient of the entropy in this energy, 0 if it has none."""

    def value(self, measure: Measure) -> float:
        """E(ρ); infinite for atoms where E has an entropy."""

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """δE/δρ at points (M, d), as (M,)."""

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇ δE/δρ at points (M, d), as (M, d)."""

    def on(self, grid: Grid) -> GridEnergy:
        """All that can be precomputed for one grid."""


@runtime_checkable
class Tabulated(Protocol):
    """An energy whose gradients at many atoms can come from a table."""

    def tabulated(self, domain: Domain, tolerance: float, count: int) -> Energy:
        """The energy on a table over the domain, to a relative ``tolerance`` of Φ and its gradient; itself where there is none, or
        where it would not pay for ``count`` atoms."""


@runtime_checkable
class ValueAndGradient(Protocol):
    """An energy whose value and gradient share work."""

    def value_and_gradient(self, measure: Measure) -> tuple[float, FloatArray]:
        """E(ρ) and its gradient at the measure's own points, (N, d)."""


@runtime_checkable
class Layered(Protocol):
    """An energy that sees frozen coordinates only by the equal parts of the axis in which they lie."""

    @property
    def layers(self) -> int:
        """How many parts there are."""


@runtime_checkable
class Mollified(Protocol):
    """An energy of the density that stands for atoms by the density of blobs."""

    def mollified(self, width: float, domain: Domain) -> Energy:
        """The energy with blobs of this ``width``, without temperature and finite on atoms."""


@dataclass(frozen=True, eq=False)
class EnergySum:
    """The sum of named terms, itself an energy. Raises ValueError for no terms."""

    terms: dict[str, Energy]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("an energy needs at least one term")

    @property
    def temperature(self) -> float:
        """The sum of the entropies' coefficients."""
        return float(sum(term.temperature for term in self.terms.values()))

    @property
    def layers(self) -> int:
        """Into how many equal parts frozen axes fall, each of which must hold its own share of the atoms; 1 where none matter."""
        return math.lcm(*(term.layers for term in self.terms.values() if isinstance(term, Layered)))

    @property
    def drift(self) -> "EnergySum | None":
        """The terms without entropy: what moves particles besides noise. None if there are none."""
        rest = {name: term for name, term in self.terms.items() if term.temperature == 0.0}
        return EnergySum(rest) if rest else None

    def tabulated(self, domain: Domain, tolerance: float, count: int) -> "EnergySum":
        """The same sum with the terms for which it pays with ``count`` atoms on tables over the domain, to a relative ``tolerance``
        of their gradients."""
        terms = self.terms.items()
        return EnergySum({name: term.tabulated(domain, tolerance, count) if isinstance(term, Tabulated) else term for name, term in terms})

    def mollified(self, width: float, domain: Domain) -> "EnergySum":
        """The same sum with internal energies by the blob method; the other terms stay themselves."""
        blobs = {name: term.mollified(width, domain) if isinstance(term, Mollified) else term for name, term in self.terms.items()}
        return EnergySum(blobs)

    def values(self, measure: Measure) -> dict[str, float]:
        """E(ρ) term by term."""
        return {name: term.value(measure) for name, term in self.terms.items()}

    def value(self, measure: Measure) -> float:
        """The sum of the terms."""
        return float(sum(self.values(measure).values()))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """The sum of the terms' first variations, (M,)."""
        return np.asarray(sum(term.first_variation(measure, at) for term in self.terms.values()))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """The sum of the terms' gradients, (M, d)."""
        return _added([term.gradient(measure, at) for term in self.terms.values()])

    def value_and_gradient(self, measure: Measure) -> tuple[float, FloatArray]:
        """E(ρ), and its gradient at the measure's own points (N, d), with what they have in common evaluated once."""
        found = [
            term.value_and_gradient(measure)
            if isinstance(term, ValueAndGradient)
            else (term.value(measure), term.gradient(measure, measure.points))
            for term in self.terms.values()
        ]
        return float(sum(value for value, _ in found)), _added([gradient for _, gradient in found])

    def on(self, grid: Grid) -> "GridSum":
        """The terms prepared for one grid."""
        return GridSum([term.on(grid) for term in self.terms.values()])


def _added(parts: list[FloatArray]) -> FloatArray:
    """Their sum, one at a time."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@dataclass(eq=False)
class GridSum:
    """The sum of prepared terms, itself a GridEnergy."""

    terms: list[GridEnergy]
    temperature: float = field(init=False)

    def __post_init__(self) -> None:
        self.temperature = sum(term.temperature for term in self.terms)

    def value(self, rho: FloatArray) -> float:
        """The energy, entropy included."""
        return sum(term.value(rho) for term in self.terms)

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        """Add all drift parts to ``xi``; returns the energy without the entropy."""
        return sum(term.add_drift(rho, xi) for term in self.terms)
