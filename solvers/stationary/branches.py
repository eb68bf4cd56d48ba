"""All stationary states that were found from several starts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy import EnergySum
from mfpde.energy.base import GridQuadratic
from mfpde.energy.internal import GridEntropy, GridPower
from mfpde.energy.potential import GridPotential
from mfpde.measure import Density, covariance, mean
from mfpde.solvers.stationary.coupling import couple
from mfpde.solvers.stationary.local import local_part
from mfpde.solvers.stationary.search import Found, System, find

NEUTRAL = 1e-8
_SAME = 1e-6
_TURNED = 1e-5
_NO_MEAN = 1e-9


@dataclass(frozen=True, eq=False)
class Branch:
    """A stationary state: cell averages (size,), free energy, largest variation of ξ + T log ρ, smallest eigenvalue, mean and
    deviation (d,) of the coordinates, the bound of its distance to the minimum that duality gives where the energy is convex, and the
    starts that led there.

    ``eigenvalue``: of the second variation on perturbations that keep the mass of every slice, relative to its local part T/ρ + U''(ρ);
    with entropy alone T times it is the smallest eigenvalue of T + √ρ K √ρ. It is at most 1.
    """

    rho: FloatArray
    energy: float
    residual: float
    eigenvalue: float
    mean: FloatArray
    deviation: FloatArray
    duality_gap: float
    origins: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether it is a local minimum, or one of a family of minima of equal energy."""
        return self.eigenvalue > -NEUTRAL

    @property
    def stability(self) -> str:
        """In words; neutral is what can be moved without a change of the free energy, or is at a critical point."""
        return "neutral" if abs(self.eigenvalue) <= NEUTRAL else "stable" if self.stable else "unstable"

    def described(self, names: Sequence[str]) -> str:
        """In one line."""
        means = np.where(np.abs(self.mean) > _NO_MEAN * self.deviation, self.mean, 0.0)
        places = ", ".join(f"{n} = {m:.6g} ± {s:.4g}" for n, m, s in zip(names, means, self.deviation, strict=True))
        return (
            f"free energy {self.energy:.10g}, {places}, {self.stability} (eigenvalue {self.eigenvalue:.4g}), "
            f"residual {self.residual:.0e}; from {', '.join(self.origins)}"
        )


@dataclass(frozen=True, eq=False)
class Landscape:
    """A problem on one grid: the system, and the linear part (size,) of its terms, without what interactions add to it."""

    grid: Grid
    system: System
    linear: FloatArray

    def branch(self, found: Found, origin: str) -> Branch:
        """A state that was found, with its certificates."""
        rho, local = found.point.response.rho, self.system.local
        density = Density(self.grid, rho)
        return Branch(
            rho,
            self.system.energy(rho),
            self.system.residual(rho),
            1.0 if self.system.coupling.convex else self.system.coupling.least(local, found.point.response),
            mean(density),
            np.sqrt(np.maximum(np.diag(covariance(density)), 0.0)),
            0.5 * self.system.coupling.product(found.point.gap, found.point.gap),
            (origin,),
        )


def prepare_landscape(grid: Grid, energy: EnergySum, initial: FloatArray) -> Landscape:
    """Sort the terms into local, linear and quadratic ones. Raises ValueError for others, and where there is no local one."""
    terms = {name: term.on(grid) for name, term in energy.terms.items()}
    powers = tuple((t.exponent, t.coefficient) for t in terms.values() if isinstance(t, GridPower))
    if energy.temperature == 0.0 and not powers:
        raise ValueError(
            "stationary states need an entropy or a power of the density in the energy; without one they are measures that no grid "
            "holds: use finite_volume or particles up to long times"
        )
    linear = np.asarray(sum((t.values for t in terms.values() if isinstance(t, GridPotential)), np.zeros(grid.size)))
    quadratic = [t for name, t in terms.items() if _is_quadratic(t, name)]
    local = local_part(grid, energy.temperature, powers).holding(initial)
    coupling, more = couple(quadratic, local)
    raw = linear + sum((t.linear for t in quadratic), np.zeros(grid.size))
    return Landscape(grid, System(local, coupling, linear + more, tuple(terms.values())), np.asarray(raw))


def _is_quadratic(term: object, name: str) -> TypeGuard[GridQuadratic]:
    """Whether a term is quadratic. Raises ValueError where it is neither that nor local nor linear."""
    if isinstance(term, GridQuadratic):
        return True
    if isinstance(term, GridEntropy | GridPower | GridPotential):
        return False
    raise ValueError(
        f"stationary states need terms that are linear or quadratic in the density, entropies or powers; {name} is none of these"
    )


def explore(
    landscape: Landscape, shapes: Sequence[tuple[str, FloatArray]], tolerance: float
) -> tuple[list[Branch], list[tuple[str, float]]]:
    """The distinct states found from the starts, in that order, and the starts without one, with the error that was left.

    States further apart than 1e-6 of the mass in L¹ are distinct, unless they are neutral and turn into one another along periodic axes.
    """
    branches: list[Branch] = []
    failed: list[tuple[str, float]] = []
    for name, shape in shapes:
        found = find(landscape.system, landscape.system.local.scaled(shape), tolerance)
        if not found.converged:
            failed.append((name, found.error))
            continue
        branch = landscape.branch(found, name)
        same = [k for k, known in enumerate(branches) if _same(landscape, known, branch)]
        if same:
            branches[same[0]] = replace(branches[same[0]], origins=(*branches[same[0]].origins, name))
        else:
            branches.append(branch)
    return branches, failed


def _same(landscape: Landscape, one: Branch, other: Branch) -> bool:
    """Whether two states are one, or turned along periodic axes, which leaves the sizes of their Fourier modes as they are."""
    weight, grid = landscape.system.local.weight, landscape.grid
    if weight @ np.abs(one.rho - other.rho) <= _SAME * (weight @ one.rho):
        return True
    circles = [axis for axis in grid.moving if grid.periodic(axis)]
    if not circles or not one.stability == other.stability == "neutral":
        return False
    sizes = [np.abs(np.fft.fftn(branch.rho.reshape(grid.cells), axes=circles)) for branch in (one, other)]
    return bool(np.sum(np.abs(sizes[0] - sizes[1])) <= _TURNED * np.sum(sizes[0]))
