"""The energy and the flux on one grid: all that the steppers evaluate."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.base import EnergySum, GridCurved, GridEnergy, GridQuadratic
from mfpde.energy.incompressible import GridIncompressible
from mfpde.energy.internal import TINY, VACUUM, GridEntropy, GridPower
from mfpde.energy.potential import GridPotential
from mfpde.solvers.finite_volume.evaluation import Evaluation, Stage
from mfpde.solvers.finite_volume.flux import Flux, LimitedUpwind, Lines, PressureUpwind, ScharfetterGummel
from mfpde.solvers.finite_volume.frozen import Frozen
from mfpde.solvers.finite_volume.line import Line
from mfpde.solvers.finite_volume.plane import Plane
from mfpde.solvers.kernels.transport import combine, embedded_gap

_MOST_FACTORS = 96
_MOST_PECLET = 0.5
_REFERENCE_CELLS = 128


@dataclass(frozen=True, eq=False)
class Parts:
    """An energy taken apart for implicit steps: δE/δρ = fixed + T log ρ + Σ power'(ρ) + Σ K_j ρ + Σ curved'(ρ); ``fixed`` is (size,)."""

    fixed: FloatArray
    powers: tuple[GridPower, ...]
    quadratics: tuple[GridQuadratic, ...]
    curved: tuple[GridCurved, ...] = ()

    @staticmethod
    def of(terms: dict[str, GridEnergy], size: int) -> "Parts":
        """Raises ValueError for a term that has none of the known forms."""
        fixed, powers, quadratics, curved = np.zeros(size), [], [], []
        for name, term in terms.items():
            if isinstance(term, GridPower):
                powers.append(term)
            elif isinstance(term, GridPotential):
                fixed += term.values
            elif isinstance(term, GridQuadratic):
                fixed += term.linear
                quadratics.append(term)
            elif isinstance(term, GridCurved):
                curved.append(term)
            elif not isinstance(term, GridEntropy | GridIncompressible):
                raise ValueError(f'implicit steps know no way to treat the energy term {name!r}; use stepper = "explicit"')
        return Parts(fixed, tuple(powers), tuple(quadratics), tuple(curved))

    @property
    def factors(self) -> tuple[FloatArray, FloatArray] | None:
        """All low-rank factors stacked, (r, size) and signs (r,); None if a term has none or there are too many to pay."""
        found = [term.factors for term in self.quadratics]
        if not found or any(f is None for f in found):
            return None
        rows = np.concatenate([f[0] for f in found if f is not None])
        signs = np.concatenate([f[1] for f in found if f is not None])
        return (rows, signs) if len(signs) <= _MOST_FACTORS else None

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        """Add Σ K_j ρ."""
        for term in self.quadratics:
            term.apply(rho, out)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        """Add the sum of the terms' negative parts, K₋ρ."""
        for term in self.quadratics:
            term.apply_concave(rho, out)

    @property
    def convex(self) -> bool:
        """Whether no quadratic term has a negative part."""
        return all(term.convex for term in self.quadratics)


class Model:
    """The semi-discrete flow on one grid, with its buffers."""

    def __init__(self, energy: EnergySum, grid: Grid, flux: Flux | None, start: FloatArray) -> None:
        self.grid = grid
        self.terms = {name: term.on(grid) for name, term in energy.terms.items()}
        self.temperature = energy.temperature
        self.lines = [Lines.of(grid, axis) for axis in grid.moving]
        self.weight = np.atleast_1d(np.asarray(grid.weight, dtype=float))
        if isinstance(flux, ScharfetterGummel) and not abs(flux.temperature - self.temperature) <= 1e-12 * self.temperature:
            raise ValueError(f"the flux is for temperature {flux.temperature:g}, the energy's is {self.temperature:g}")
        self.flux, self.reason = (flux, "") if flux else self._chosen_flux(start)
        self.upwound_entropy = 0.0 if self.flux.carries_entropy else self.temperature
        self.xi = np.empty(grid.size)
        self._scratch, self._rate = np.empty((2, grid.size))
        self.total = self.mass(start)
        self._wall = grid.cutoff_cells
        self._plane = Plane.fitting(grid, list(self.terms.values()), self.flux)
        self._frozen = Frozen.fitting(grid, list(self.terms.values()), self.flux)
        self.line = Line.fitting(grid, list(self.terms.values()), self.flux, self._wall)

    def _chosen_flux(self, start: FloatArray) -> tuple[Flux, str]:
        """Without entropy limited upwinding; with it Scharfetter–Gummel where it is of second order on usual grids; and the reason.

        The cell Péclet number is taken for 128 cells along each axis, so that the choice does not change in a refinement, and the larger
        of two: that of the start, and that of the coupled terms if all mass were in one cell, since aggregation may come later.
        """
        if self.temperature == 0.0:
            return PressureUpwind.of([term.exponent for term in self.terms.values() if isinstance(term, GridPower)]), ""
        spike = np.zeros(self.grid.size)
        spike[int(np.argmax(start))] = self.mass(start) / float(self.weight[-1])
        peclet = 0.0
        for rho, seen in ((start, start), (spike, np.ones(self.grid.size))):
            xi = np.zeros(self.grid.size)
            for term in self.terms.values():
                if rho is start or isinstance(term, GridQuadratic):
                    term.add_drift(rho, xi)
            peclet = max(peclet, *(self._mean_drop(xi, seen, lines) for lines in self.lines), 0.0)
        drifting = peclet > _MOST_PECLET
        leading = "the drift may outweigh diffusion" if drifting else "diffusion outweighs the drift"
        limit = f"{'above' if drifting else 'within'} {_MOST_PECLET:g}"
        ratio = f"drift/diffusion across 1/{_REFERENCE_CELLS} of the domain is up to {peclet:.2g}, {limit}"
        reason = f" (chosen because {leading}: {ratio}; the key `flux` sets another)"
        return (LimitedUpwind() if drifting else ScharfetterGummel(self.temperature)), reason

    def _mean_drop(self, xi: FloatArray, seen: FloatArray, lines: Lines) -> float:
        """|Δξ| over 1/128 of the domain in units of the temperature, averaged over the faces with the weights ``seen``."""
        drop = np.abs(np.diff(lines.see(xi), axis=1))
        share = lines.see(seen)[:, 1:] + lines.see(seen)[:, :-1]
        total = float(np.sum(share)) * self.temperature * _REFERENCE_CELLS / lines.shape[1]
        return float(np.sum(drop * share)) / total if total > 0.0 else 0.0

    @property
    def compiled(self) -> "Plane | Line | Frozen | None":
        """The fastest evaluations of this flow, where its form allows any."""
        return self._plane or self.line or self._frozen

    @property
    def diffusive(self) -> bool:
        """Whether the energy has an internal part, so that explicit steps shrink like h²."""
        return self.temperature > 0.0 or any(isinstance(term, GridPower) for term in self.terms.values())

    def mass(self, rho: FloatArray) -> float:
        """Total mass."""
        return float(np.sum(rho)) * float(self.weight[0]) if self.weight.size == 1 else float(np.dot(rho, self.weight))

    def norm(self, values: FloatArray) -> float:
        """∫|values|."""
        np.abs(values, out=self._scratch)
        return self.mass(self._scratch)

    def wall_mass(self, rho: FloatArray) -> float:
        """Mass in the cells at walls that are not part of the model."""
        if not self._wall.size:
            return 0.0
        return float(np.sum(rho[self._wall] * (self.weight if self.weight.size == 1 else self.weight[self._wall])))

    @property
    def wall_volume(self) -> float:
        """The share of the domain's volume that lies in those cells."""
        whole = float(self.weight[0]) * self.grid.size if self.weight.size == 1 else float(np.sum(self.weight))
        held = len(self._wall) * float(self.weight[0]) if self.weight.size == 1 else float(np.sum(self.weight[self._wall]))
        return held / whole

    def evaluate(self, rho: FloatArray, rate: FloatArray) -> Evaluation:
        """Fill the rate and, where there is no compiled pass for all of it, ``xi``."""
        if (fast := self.compiled) is not None:
            return fast.evaluate(rho, rate)
        self.xi[:] = 0.0
        energy, magnitude = 0.0, 0.0
        for term in self.terms.values():
            part = term.add_drift(rho, self.xi)
            if term.temperature > 0.0:
                part += term.value(rho)
            energy, magnitude = energy + part, magnitude + abs(part)
        if self.upwound_entropy > 0.0:
            self._add_logarithm(rho, self.xi)
        return Evaluation(energy, magnitude, *self.fill_rate(rho, self.xi, rate))

    def forward(self, rho: FloatArray, dt: float, rate: FloatArray, out: FloatArray) -> float:
        """out = ρ + dt rate; returns its minimum, NaN if any value is."""
        return self._plane.forward(rho, dt, rate, out) if self._plane is not None else combine(rho, 0.0, rho, dt, rate, out)

    def stage(self, base: FloatArray, share: float, rho: FloatArray, dt: float, out: FloatArray) -> Stage:
        """out = base + share (ρ − base) + dt rate(ρ)."""
        if self._plane is not None:
            return self._plane.stage(base, share, rho, dt, out)
        now = self.evaluate(rho, self._rate)
        least = combine(base, share, rho, dt, self._rate, out)
        return Stage(now.outflow, least, embedded_gap(base, rho, out, self.weight))

    def fill_rate(self, rho: FloatArray, xi: FloatArray, rate: FloatArray) -> tuple[float, float]:
        """rate = −div F over all moving axes; returns (sum over the axes of the outflow rates, ∫ρ|∇δE/δρ|²)."""
        rate[:] = 0.0
        fastest, dissipation = 0.0, 0.0
        for lines in self.lines:
            part = self.flux.add(lines.see(rho), lines.see(xi), lines, lines.see(rate))
            fastest, dissipation = fastest + part[0], dissipation + part[1] * lines.metric.cross
        return fastest, dissipation

    def energy(self, rho: FloatArray) -> float:
        """The energy."""
        return sum(term.value(rho) for term in self.terms.values())

    def round_off(self, rho: FloatArray, magnitude: float) -> float:
        """What round-off in the last evaluated ``rho`` may do to the energy: the terms' sizes, ∫|ξ|ρ and T∫ρ, in units of the last bit."""
        if self.compiled:
            return magnitude
        np.abs(self.xi, out=self.xi)
        np.multiply(self.xi, rho, out=self.xi)
        return magnitude + self.mass(self.xi) + self.temperature * self.mass(rho)

    def _add_logarithm(self, rho: FloatArray, xi: FloatArray) -> None:
        np.maximum(rho, TINY, out=self._scratch)
        np.log(self._scratch, out=self._scratch)
        np.multiply(self._scratch, self.upwound_entropy, out=self._scratch)
        np.add(xi, self._scratch, out=xi)

    def add_local(self, rho: FloatArray, powers: tuple[GridPower, ...], xi: FloatArray, curvature: FloatArray) -> None:
        """Add the local internal part of ξ to ``xi`` and fill its derivative."""
        curvature[:] = 0.0
        bounded = np.maximum(rho, VACUUM)
        for term in powers:
            m, c = term.exponent, term.coefficient * term.exponent
            power = bounded ** (m - 2.0)
            curvature += c * power
            power *= rho if m > 1.0 else bounded
            xi += c / (m - 1.0) * power
        if self.upwound_entropy > 0.0:
            xi += self.upwound_entropy * np.log(bounded)
            curvature += self.upwound_entropy / bounded
