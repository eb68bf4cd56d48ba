"""Which problems each method of minimising movements solves: rules that need no compiler, so that cases are checked at once."""

import numpy as np

from mfpde.energy.base import EnergySum
from mfpde.energy.incompressible import Incompressible, no_room
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.potential import Potential
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.solvers.jko.logarithmic import MOST_CELLS, Logarithm

_MOST_FEATURES = {"quantile": 512, "residual": 2048}
_MOST_TRANSPORT_CELLS, _MOST_ENTROPIC_CELLS = 2000, 4096
_KNOWN = (Entropy, Power, Potential, Interaction, TwoLayer)


def check_quantile(problem: Problem, count: int) -> None:
    """Raises ValueError for problems that have no quantile function of this kind, on ``count`` mass cells."""
    domain = problem.domain
    if domain.dimension != 1 or domain.box is not domain:
        raise ValueError(f'method = "quantile" is for one axis, the domain has {domain.dimension}; use method = "residual"')
    if domain.frozen[0]:
        raise ValueError("minimising movements need an axis along which mass moves, but the only one is frozen")
    if not isinstance(problem.initial, DensityFunction):
        raise ValueError('method = "quantile" needs an initial density; atoms are moved by method = "residual"')
    _check_features(problem, "quantile")
    _check_singular(problem, count)


def _check_singular(problem: Problem, count: int) -> None:
    """Raises ValueError for kernels that are infinite at 0, but for logarithms that other terms or their sign keep from collapse."""
    for name, term in problem.energy.terms.items():
        if not isinstance(term, Interaction) or term.kernel.at_zero is not None:
            continue
        found = Logarithm.of(term.kernel)
        if found is None:
            words = "where the nodes of a cell do not see each other; only logarithms (with constants and squares) on an interval are known"
            raise ValueError(f"the kernel of {name} is infinite at 0, {words} in closed form; use finite_volume")
        if count > MOST_CELLS:
            raise ValueError(
                f"logarithmic kernels like that of {name} take at most {MOST_CELLS} mass cells, whose pairs are all summed, got {count}; "
                "give a smaller `count`"
            )
        if found.strength < 0.0 and not any(isinstance(t, Entropy | Power) for t in problem.energy.terms.values()):
            raise ValueError(
                f"the kernel of {name} is minus infinite at 0, so that mass falls into points; add an entropy or porous_medium"
            )


def check_residual(problem: Problem) -> None:
    """Raises ValueError for problems whose steps are no such dual problem."""
    if problem.domain.box is not problem.domain:
        raise ValueError('method = "residual" is for boxes, not disks; give the square around it')
    if not problem.domain.moving:
        raise ValueError("minimising movements need an axis along which mass moves, but all axes are frozen")
    for name, term in problem.energy.terms.items():
        if isinstance(term, PairNetwork):
            raise ValueError(f'{name} is summed over pairs of neurons, but minimising movements need features: expectation = "quadrature"')
        if not isinstance(term, TwoLayer | Potential):
            raise ValueError(f'method = "residual" is for two_layer networks and potentials, which {name} is not; see method = "quantile"')
    _check_features(problem, "residual")


def check_lagrangian(problem: Problem) -> None:
    """Raises ValueError for domains other than boxes, where nothing moves, and for energies without a minimum among atoms."""
    if problem.domain.box is not problem.domain:
        raise ValueError('method = "lagrangian" is for boxes, not disks; give the square around it')
    if not problem.domain.moving:
        raise ValueError("minimising movements need an axis along which mass moves, but all axes are frozen")
    for name, term in problem.energy.terms.items():
        if isinstance(term, Entropy | Power) or term.temperature > 0.0:
            raise ValueError(
                f'method = "lagrangian" moves atoms, of which {name} is infinite or says nothing; use method = "quantile" (one axis), '
                '"entropic" or "back_and_forth", with `cells`'
            )
        if isinstance(term, Interaction) and term.kernel.at_zero is None and _attracts(term):
            raise ValueError(
                f"the kernel of {name} falls to minus infinity at 0, so that atoms that meet have no least energy; use method = "
                '"quantile" with `cells` and an entropy or porous_medium, or finite_volume'
            )

    initial = problem.initial
    alone = isinstance(initial, DensityFunction) or len(np.unique(initial.points, axis=0)) == len(initial.points)
    if not alone and repels(problem.energy):
        raise ValueError("atoms at one place do not repel one another, but a kernel is infinite at 0; give them different places")


def _attracts(term: Interaction) -> bool:
    """Whether a kernel that is infinite at 0 is minus infinite there."""
    extent = term.kernel.extent
    far, near = (float(term.kernel.values((share * extent)[None, :])[0]) for share in (1e-4, 1e-8))
    return near < far


def repels(energy: EnergySum) -> bool:
    """Whether there is a kernel that is infinite at 0."""
    return any(isinstance(term, Interaction) and term.kernel.at_zero is None for term in energy.terms.values())


def atoms_will_do(problem: Problem) -> str | None:
    """The method that moves atoms for this energy, "residual" or "lagrangian"; None where none does."""
    for name, check in (("residual", check_residual), ("lagrangian", check_lagrangian)):
        try:
            check(problem)
        except ValueError:
            continue
        return name
    return None


def check_transport(problem: Problem, cells: tuple[int, ...]) -> None:
    """Raises ValueError for domains other than boxes, where nothing moves, for too many cells, and for energies that are not known."""
    domain = problem.domain
    if domain.box is not domain:
        raise ValueError('method = "transport" is for boxes, not disks; use finite_volume')
    if not domain.moving:
        raise ValueError('method = "transport" needs an axis along which mass moves, but all axes are frozen')
    others = [name for name, term in problem.energy.terms.items() if not isinstance(term, _KNOWN)]
    if others:
        raise ValueError(
            'method = "transport" knows entropies, powers, potentials, interactions and networks, '
            f"and has no way to treat the energy term {', '.join(others)}"
        )
    if any(isinstance(term, Potential) and term.obstacle is not None for term in problem.energy.terms.values()):
        raise ValueError('method = "transport" knows no obstacles; use method = "back_and_forth", or a potential that is high there')
    size = domain.grid(cells).size
    if all(cells[axis] == 1 for axis in domain.moving):
        raise ValueError('method = "transport" needs at least two cells along an axis along which mass moves; use more `cells`')
    if size > _MOST_TRANSPORT_CELLS:
        raise ValueError(
            f'method = "transport" finds exact transport between at most {_MOST_TRANSPORT_CELLS} cells, got {size}; use fewer cells, or '
            'method = "quantile" (one axis), "back_and_forth" (internal energies and potentials in boxes with walls) or "entropic"'
        )


def check_entropic(problem: Problem, cells: tuple[int, ...], epsilon: float | None = None) -> None:
    """Raises ValueError for domains, numbers of cells and regularisations that entropic steps cannot have; computes nothing."""
    domain = problem.domain
    if domain.box is not domain:
        raise ValueError('method = "entropic" needs a box, whose kernels are products along axes, not a disk; use finite_volume')
    if not domain.moving:
        raise ValueError('method = "entropic" needs an axis along which mass moves, but all axes are frozen')
    if len(cells) != domain.dimension:
        raise ValueError(f"cells needs one number for each of the {domain.dimension} axes, got {list(cells)}")
    for axis in domain.moving:
        if cells[axis] > _MOST_ENTROPIC_CELLS:
            name = domain.axes[axis].name
            raise ValueError(
                f'method = "entropic" holds cells² numbers for each axis, at most {_MOST_ENTROPIC_CELLS} cells along it, '
                f"got {cells[axis]} along {name}; use fewer cells or finite_volume"
            )
    widest = max(domain.axes[axis].length for axis in domain.moving)
    if epsilon is not None and epsilon > widest**2:
        raise ValueError(
            f"epsilon must be at most {widest**2:.4g}, the square of the domain's width, beyond which transport costs next to nothing, "
            f"got {epsilon:g}; by default it is two squares of the widest cell"
        )


def check_back_and_forth(problem: Problem, cells: tuple[int, ...]) -> None:
    """Raises ValueError for domains and energies for which the method is not made."""
    domain = problem.domain
    if domain.box is not domain or domain.dimension > 2:
        raise ValueError('method = "back_and_forth" is for boxes with one or two axes; use another method')
    if domain.periodic.any() or domain.frozen.any():
        raise ValueError('method = "back_and_forth" needs axes that end in walls, neither periodic nor frozen; use another method')
    law = one_internal(problem)
    if isinstance(law, Incompressible) and domain.volume * law.bound <= 1.0:
        raise ValueError(no_room(1.0, law.bound, domain.volume))


def one_internal(problem: Problem) -> Entropy | Power | Incompressible | None:
    """The one internal energy. Raises ValueError for several that are not of one kind."""
    found = [term for term in problem.energy.terms.values() if isinstance(term, Entropy | Power | Incompressible)]
    if not found:
        return None
    kinds = {(type(term), term.exponent if isinstance(term, Power) else 0.0) for term in found}
    first = found[0]
    if len(kinds) > 1 or (len(found) > 1 and isinstance(first, Incompressible)):
        raise ValueError(
            'method = "back_and_forth" takes one of entropy, porous_medium (of one exponent) and incompressible, not several; '
            "use another method"
        )
    if isinstance(first, Entropy):
        return Entropy(sum(term.temperature for term in found))
    if isinstance(first, Power):
        return Power(first.exponent, sum(term.coefficient for term in found if isinstance(term, Power)))
    return first


def _check_features(problem: Problem, method: str) -> None:
    """Raises ValueError for networks whose steps would be systems of too many unknowns."""
    for name, term in problem.energy.terms.items():
        if isinstance(term, TwoLayer) and term.features.rank > _MOST_FEATURES[method]:
            raise ValueError(
                f'{name} has {term.features.rank} features; method = "{method}" takes up to {_MOST_FEATURES[method]}: give a `tolerance`'
            )
