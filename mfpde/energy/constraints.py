"""Energies that are infinite for some densities, which few solvers can keep out of them."""

from mfpde.energy.base import EnergySum
from mfpde.energy.incompressible import Incompressible
from mfpde.energy.potential import Potential


def constraint(energy: EnergySum) -> str | None:
    """What restricts densities, for people: a bound or an obstacle; None without."""
    for name, term in energy.terms.items():
        if isinstance(term, Incompressible):
            return f"the incompressible term {name!r}"
        if isinstance(term, Potential) and term.obstacle is not None:
            return f"the obstacle of {name!r}"
    return None


def refuse_constraints(energy: EnergySum, who: str) -> None:
    """Raises ValueError where densities are restricted, which ``who`` cannot see to."""
    if (found := constraint(energy)) is not None:
        raise ValueError(f'{who} cannot keep to {found}; use kind = "jko" with method = "back_and_forth"')
