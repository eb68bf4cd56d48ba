"""The back-and-forth method for one minimising movement of U + V on a box [Jacobs–Lee–Léger 2021].

ρ = argmin U(ρ) + ∫V dρ + W₂²(ρ, μ)/(2τ) is found from the dual problem: maximise ∫ψ dμ − ∫u*(λ − φ − V) + λ|μ| over potentials with
φ(x) + ψ(y) ≤ |x − y|²/(2τ), where the multiplier λ keeps the mass. Ascent in φ with ψ = φᶜ and in ψ with φ = ψᶜ take turns; the
gradients are (u*)'(λ − φ − V) − (x − τ∇φ)^*μ and μ − (x − τ∇ψ)^*ρ, taken in H¹. Then ρ = (u*)'(λ − φ − V), which is nonnegative and has
the mass of μ whatever the accuracy.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.domain import Grid
from mfpde.energy import Entropy, Incompressible, Power
from mfpde.energy.incompressible import OVERSHOOT, no_room
from mfpde.solvers.jko.dual_direction import DirectionFinder
from mfpde.solvers.kernels.legendre import c_transform
from mfpde.solvers.kernels.pushforward import CONGESTION, ENTROPY, POWER, fill_cumulative, fill_density, fill_residual, inner

_WORST, _GOOD, _POOR = -0.2, 0.65, 0.4
_GROWTH, _DECAY, _RETREAT, _LEAST, _MOST = 1.4, 0.7, 0.4, 1e-3, 8.0
_PATIENCE, _PROGRESS, _RISE = 8, 0.95, 1e-3
_POLISHING = 30
_MASS_TOLERANCE, _LAST_MASS_TOLERANCE = 1e-6, 1e-14
_MOST_SHIFTS, _NEGLIGIBLE = 200, 1e-3
_VACUUM = 1e-12
_NONE = -1
_SHARED = 1 << 16
_OCCUPIED = 1e-2
_SLOPE_FLOOR = 1e-2


Internal = Entropy | Power | Incompressible


@dataclass(frozen=True, eq=False)
class BackAndForthStep:
    """One minimising movement: the density and the potentials in the grid's shape, and its certificate.

    ``energy`` is E(ρ); ``square_distance`` W₂²(ρ, μ) as ∫|τ∇φ|² dρ, or without an internal energy, where mass may collapse
    onto kinks of φ, as ∫|τ∇ψ|² dμ; ``residual`` the stopping measure, the larger of those of φ and
    of ψ, and ``least_residual`` the smaller; ``gap`` E + W₂²/(2τ) less the dual value ∫φ dρ + ∫ψ dμ + E, of the order of the grid.
    ``converged``: the least residual is within the tolerance. Each of the two says by itself that the potentials are optimal; that of
    the map which spreads mass out most is limited by the cells that it spreads.
    """

    rho: FloatArray
    phi: FloatArray
    psi: FloatArray
    energy: float
    square_distance: float
    residual: float
    least_residual: float
    gap: float
    iterations: int
    converged: bool


class BackAndForth:
    """Steps of length ``tau`` on a grid of a box with walls in one or two dimensions.

    ``internal``: None leaves V alone; densities are counted in units of the bound where there is one. ``potential``: V at the cell
    centres, in the grid's shape or size; +∞ is an obstacle, as are the cells of the mask ``obstacles``, in which ρ = 0. ``tolerance``: a
    step is done when ∫|(u*)'(λ − φ − V) − (x − τ∇φ)^*μ| and ∫|μ − (x − τ∇ψ)^*ρ| are both at most this share of the mass, the measure of
    the method's authors; fronts that are sharp on the grid keep them from falling below a multiple of a cell's width. Where they stop
    falling, Newton steps on the first of them alone go on as long as they help. Raises ValueError for another domain or other numbers.
    """

    def __init__(
        self,
        grid: Grid,
        internal: Internal | None,
        potential: FloatArray,
        tau: float,
        tolerance: float = 1e-2,
        obstacles: BoolArray | None = None,
        most_iterations: int = 200,
    ) -> None:
        _check(grid, tau, tolerance, most_iterations)
        self.grid, self.tau, self.tolerance, self.most_iterations = grid, tau, tolerance, most_iterations
        self.shape = (1, grid.cells[0]) if len(grid.cells) == 1 else (grid.cells[0], grid.cells[1])
        spacing = (1.0, float(grid.spacing[0])) if len(grid.cells) == 1 else (float(grid.spacing[0]), float(grid.spacing[1]))
        self._times = (tau / spacing[0] ** 2 if self.shape[0] > 1 else 0.0, tau / spacing[1] ** 2 if self.shape[1] > 1 else 0.0)
        self._stiffness = (0.5 * spacing[0] ** 2 / tau, 0.5 * spacing[1] ** 2 / tau)
        self._volume = grid.cell_volume
        self._extent = float(np.max(grid.domain.upper - grid.domain.lower))
        self.internal = internal
        self._unit = internal.bound if isinstance(internal, Incompressible) else 1.0
        self._potential, self._continued = self._read_potential(potential, obstacles)
        self._kind, self._exponent, self._coefficient = _parameters(internal, self._potential, spacing, tau)
        self._finder = DirectionFinder(self.shape, spacing, tau)
        self._allocate()

    def step(self, rho: FloatArray, start: FloatArray | None = None) -> BackAndForthStep:
        """The step from μ = ``rho`` (in the grid's shape or size); ``start`` is a first φ such as that of the step before.

        What it finds depends on nothing else. Raises ValueError for negative or non-finite densities, none at all, more mass than there is
        room for, or another first potential.
        """
        self._mu[:] = self._read_density(rho) / self._unit
        if self.internal is not None:
            self._phi[:] = self._first_potential() if start is None else self._read_start(start)
        with _threads(self.grid.size):
            return self._solve()

    def energy(self, rho: FloatArray) -> float:
        """E of a density with cell averages ``rho``, with its softness in the incompressible case; +∞ where it meets an obstacle or exceeds
        the bound by more than 1e-3."""
        values = np.asarray(rho, dtype=float).reshape(self.shape) / self._unit
        with np.errstate(invalid="ignore"):
            weighted = np.where(values > 0.0, values * self._potential, 0.0)
        c, m = self._coefficient, self._exponent
        local = np.zeros(self.shape)
        if self._kind == ENTROPY:
            local = c * values * np.log(np.maximum(values, 1e-300))
        elif self._kind == CONGESTION:
            local = np.where(values > 1.0 + OVERSHOOT, np.inf, 0.5 * c * values**2)
        elif self._kind == POWER:
            local = c / (m - 1.0) * values**m
        return float(np.sum(weighted + local)) * self._volume * self._unit

    @property
    def potential(self) -> FloatArray:
        """V, continued into obstacles, in the grid's shape."""
        return self._continued.reshape(self.grid.cells)

    @property
    def softness(self) -> float:
        """That of the incompressible case, 0 else."""
        return self._coefficient if self._kind == CONGESTION else 0.0

    def replace_potential(self, potential: FloatArray) -> None:
        """Another V with the same obstacles. Raises ValueError as the constructor does."""
        self._potential[:], self._continued[:] = self._read_potential(potential, ~np.isfinite(self._potential))

    def unexploited(self) -> float:
        """By how much the dual value after the last step may still rise: ½‖residual‖² in the dual of the H¹ norm of the ascent, in which
        the dual value bends by about one; of φ or of ψ, whichever is less. An upper bound of E + W₂²/(2τ) less its minimum, as far as the
        discrete dual value and its gradient agree."""
        if self.internal is None:
            return 0.0
        with _threads(self.grid.size):
            return min(self._promise(self._phi, 0), self._promise(self._psi, 1)) * self._unit

    def pulled_back(self) -> FloatArray:
        """The density (x − τ∇φ)^*μ of the last step's φ, in the grid's shape: what ρ is where the residual is 0. It has the mass of μ and
        depends smoothly on φ where (u*)' does not, as in tails and vacuum."""
        if self.internal is None:
            return self._rho.reshape(self.grid.cells) * self._unit
        with _threads(self.grid.size):
            self._fill_difference(self._phi, 0)
        found = np.maximum(self._rho - self._difference, 0.0)
        found[~np.isfinite(self._potential)] = 0.0
        found *= self._mass / max(float(np.sum(found)), 1e-300)
        return found.reshape(self.grid.cells) * self._unit

    def square_distance(self, rho: FloatArray) -> float:
        """W₂²(ρ, μ) as ∫|τ∇φ|² dρ by the last step's φ, where ρ is about the pullback of μ."""
        return self._square_distance(self._phi, np.reshape(rho, self.shape) / self._unit) * self._unit

    def _promise(self, potential: FloatArray, side: int) -> float:
        self._fill_difference(potential, side)
        direction = self._finder.gradient(self._difference, *self._preconditioner())
        return 0.5 * inner(direction, self._difference, self._products) * self._volume

    # --- what depends on the problem and on μ ---------------------------------------------------------------------------

    def _allocate(self) -> None:
        n1, n2 = self.shape
        self._mu, self._rho, self._slope = np.zeros(self.shape), np.zeros(self.shape), np.zeros(self.shape)
        self._phi, self._psi, self._best = np.zeros(self.shape), np.zeros(self.shape), np.zeros(self.shape)
        self._difference, self._scratch = np.zeros(self.shape), np.zeros(self.shape)
        self._before, self._other_before = np.zeros(self.shape), np.zeros(self.shape)
        self._mu_parts = (np.zeros(self.shape), np.zeros((n1, n2 + 1)), np.zeros(self.shape))
        self._rho_parts = (np.zeros(self.shape), np.zeros((n1, n2 + 1)), np.zeros(self.shape))
        self._sums, self._pull_sums, self._products = np.zeros((n1, 3)), np.zeros((n1, 2)), np.zeros(n1)
        self._shift, self._mass, self._residual, self._least_residual = 0.0, 0.0, math.inf, math.inf

    def _read_potential(self, potential: FloatArray, obstacles: BoolArray | None) -> tuple[FloatArray, FloatArray]:
        """V with +∞ in obstacles, and V continued into them: by its own values in ``obstacles``, else by its largest value outside."""
        if np.size(potential) != self.grid.size:
            raise ValueError(f"the potential needs {self.grid.size} values for {list(self.grid.cells)} cells, got {np.size(potential)}")
        values = np.array(potential, dtype=float).reshape(self.shape)
        continued = np.where(np.isfinite(values), values, np.max(values, where=np.isfinite(values), initial=-np.inf))
        if obstacles is not None:
            values[np.reshape(np.asarray(obstacles, dtype=bool), self.shape)] = np.inf
        if np.isnan(values).any() or np.isneginf(values).any() or not np.isfinite(values).any():
            raise ValueError("the potential must be finite or +inf (an obstacle), and finite in some cell")
        return values, continued

    def _read_density(self, rho: FloatArray) -> FloatArray:
        if np.size(rho) != self.grid.size:
            raise ValueError(f"the density needs {self.grid.size} values for {list(self.grid.cells)} cells, got {np.size(rho)}")
        values = np.asarray(rho, dtype=float).reshape(self.shape)
        if not (np.isfinite(values).all() and np.min(values) >= 0.0 and np.max(values) > 0.0):
            raise ValueError("the density must be finite, nonnegative and not zero everywhere")
        room = int(np.count_nonzero(np.isfinite(self._potential)))
        if self._kind == CONGESTION and float(np.sum(values)) >= room * self._unit:
            raise ValueError(no_room(float(np.sum(values)) * self._volume, self._unit, room * self._volume))
        return values

    def _read_start(self, start: FloatArray) -> FloatArray:
        if np.size(start) != self.grid.size or not np.isfinite(start).all():
            raise ValueError(f"the first potential needs {self.grid.size} finite values, got {np.size(start)}")
        return np.reshape(start, self.shape)

    def _finite_potential(self) -> FloatArray:
        """V with obstacles at a height from which every point outside is nearer than 0 is to the highest of them."""
        finite = np.isfinite(self._potential)
        height = float(np.max(self._potential, where=finite, initial=-np.inf))
        reach = sum(s * n**2 for s, n in zip(self._stiffness, self.shape, strict=True))
        return np.where(finite, self._potential, height + 2.0 * reach)

    def first_potential(self, rho: FloatArray) -> FloatArray:
        """−u'(ρ) − V of another density, a ``start`` for steps, in the grid's shape. Raises ValueError as ``step`` does."""
        self._mu[:] = self._read_density(rho) / self._unit
        return self._first_potential().reshape(self.grid.cells)

    def _first_potential(self) -> FloatArray:
        """−u'(μ) − V, V being continued into obstacles."""
        flat = self._continued
        c, m = self._coefficient, self._exponent
        filled = np.maximum(self._mu, _VACUUM * float(np.max(self._mu)))
        if self._kind == ENTROPY:
            return np.asarray(-c * (np.log(filled) + 1.0) - flat)
        if self._kind == CONGESTION:
            return np.asarray(-c * np.minimum(self._mu, 1.0) - flat)
        density = self._mu if m > 1.0 else filled
        return np.asarray(-c * m / (m - 1.0) * density ** (m - 1.0) - flat)

    # --- ascent --------------------------------------------------------------------------------------------------------------

    def _solve(self) -> BackAndForthStep:
        self._mass, self._shift = float(np.sum(self._mu)), 0.0
        fill_cumulative(self._mu, *self._mu_parts)
        if self.internal is None:
            return self._carry()
        self._transform(self._phi, self._psi)
        self._transform(self._psi, self._phi)
        iterations = self._ascend()
        if self._least_residual > self.tolerance:
            iterations += self._improve()
        return self._finish(iterations)

    def _ascend(self) -> int:
        """Ascents back and forth until the tolerance is met or nothing improves; φ is that of the least residual."""
        steps, least, lower, last_progress = [1.0, 1.0], math.inf, math.inf, 0
        self._residual = self._least_residual = math.inf
        self._best[:] = self._phi
        self._transform(self._phi, self._psi)
        value = first = highest = self._dual_value()
        for iteration in range(1, self.most_iterations + 1):
            value, forth = self._half(self._phi, self._psi, 0, steps, value)
            value, back = self._half(self._psi, self._phi, 1, steps, value)
            residual = max(forth, back)
            if residual < _PROGRESS * least or min(forth, back) < _PROGRESS * lower or value - highest > _RISE * (value - first):
                last_progress = iteration
            done = residual <= self.tolerance
            if done or min(forth, back) < lower:
                self._best[:] = self._phi
                self._residual, self._least_residual = residual, min(forth, back)
            least, lower, highest = min(least, residual), min(lower, forth, back), max(highest, value)
            if done or iteration - last_progress >= _PATIENCE or not math.isfinite(value):
                break
        self._phi[:] = self._best
        return iteration

    def _half(self, one: FloatArray, other: FloatArray, side: int, steps: list[float], value: float) -> tuple[float, float]:
        """Move potential ``one`` (φ for side 0, ψ for side 1) up its gradient and transform it to the ``other``; returns the dual value
        after it and the residual before it. Steps shrink where the value does not rise as the gradient promises."""
        residual = self._fill_difference(one, side)
        direction = self._finder.gradient(self._difference, *self._preconditioner())
        promise = inner(direction, self._difference, self._products) * self._volume
        self._before[:] = one
        self._other_before[:] = other
        shift = self._shift
        while True:
            np.multiply(direction, steps[side], out=one)
            np.add(one, self._before, out=one)
            self._transform(one, other)
            found = self._dual_value()
            quality = (found - value) / (steps[side] * promise) if promise > 0.0 else 1.0
            if quality > _WORST or steps[side] <= _LEAST:
                break
            steps[side] = max(_RETREAT * steps[side], _LEAST)
            self._shift = shift
        if not quality > _WORST:
            one[:] = self._before
            other[:] = self._other_before
            self._shift = shift
            found = self._dual_value()
        factor = _GROWTH if quality > _GOOD else _DECAY if quality < _POOR else 1.0
        steps[side] = min(max(factor * steps[side], _LEAST), _MOST)
        return found, residual

    def _fill_difference(self, potential: FloatArray, side: int) -> float:
        """The gradient of the dual value in φ or ψ; returns its L¹ norm as a share of the mass."""
        if side == 0:
            parts, aim = self._mu_parts, self._rho
        else:
            parts, aim = self._rho_parts, self._mu
            fill_cumulative(self._rho, *parts)
        fill_residual(potential, *parts, aim, *self._times, self._difference, self._pull_sums)
        return float(np.sum(self._pull_sums[:, 0])) / self._mass

    def _preconditioner(self) -> tuple[float, float]:
        """θ₁, the mean of (u*)'' where there is not next to nothing, and θ₂, the largest density times τ."""
        largest = float(np.max(self._rho))
        occupied = self._rho > _OCCUPIED * largest
        slope = float(np.sum(self._slope, where=occupied)) / max(int(np.count_nonzero(occupied)), 1)
        scale = self.tau * max(largest, float(np.max(self._mu)))
        return max(slope, _SLOPE_FLOOR * scale / self._extent**2), scale

    def _improve(self) -> int:
        """Newton steps, forgotten unless they leave a smaller residual."""
        residuals, shift = (self._residual, self._least_residual), self._shift
        iterations = self._polish()
        if not self._residual < residuals[1]:
            self._phi[:] = self._best
            self._shift = shift
            self._residual, self._least_residual = residuals
        return iterations

    def _polish(self) -> int:
        """Newton steps on φ alone while they lower the residual; returns their number."""
        tapered = self._kind == ENTROPY or (self._kind == POWER and self._exponent < 1.0)
        best = self._evaluate()
        for iteration in range(_POLISHING):
            if best <= self.tolerance or math.isinf(best):
                return iteration
            direction = self._finder.newton(self._phi, self._difference, self._rho, self._slope, tapered)
            self._before[:] = self._phi
            for share in (1.0, 0.5, 0.25, 0.1):
                np.multiply(direction, share, out=self._phi)
                np.add(self._phi, self._before, out=self._phi)
                found = self._evaluate()
                if found < 0.99 * best:
                    break
            else:
                self._phi[:] = self._before
                self._evaluate()
                return iteration + 1
            best = found
        return _POLISHING

    def _evaluate(self) -> float:
        """The density of φ and its residual, infinite where they are not finite."""
        with np.errstate(all="ignore"):
            self._fill(_MASS_TOLERANCE)
            found = self._fill_difference(self._phi, 0)
        self._residual = self._least_residual = found if math.isfinite(found) else math.inf
        return self._residual

    # --- parts -----------------------------------------------------------------------------------------------------------------

    def _transform(self, potential: FloatArray, out: FloatArray) -> None:
        c_transform(potential, self._stiffness, self._scratch, out)

    def _dual_value(self) -> float:
        conjugate = self._fill(_MASS_TOLERANCE)
        return inner(self._psi, self._mu, self._products) * self._volume - conjugate + self._shift * self._mass * self._volume

    def _fill(self, tolerance: float) -> float:
        """ρ = (u*)'(λ − φ − V) with λ such that the mass is right to ``tolerance``; returns ∫u*."""
        low, high, unit = -math.inf, math.inf, self._pressure_unit()
        for _ in range(_MOST_SHIFTS):
            mass, slope, conjugate = self._density_sums()
            if abs(mass - self._mass) <= tolerance * self._mass:
                break
            if mass < self._mass:
                low = self._shift
            else:
                high = self._shift
            self._shift = self._next_shift(mass, slope, low, high, unit)
            unit *= 2.0
            if not low < self._shift < high:
                break
        return conjugate * self._volume

    def _density_sums(self) -> tuple[float, float, float]:
        fill_density(
            self._phi, self._potential, self._shift, self._kind, self._exponent, self._coefficient, self._rho, self._slope, self._sums
        )
        mass, slope, conjugate = np.sum(self._sums, axis=0)
        return float(mass), float(slope), float(conjugate)

    def _pressure_unit(self) -> float:
        """The size of u' at the mean density."""
        c, m = self._coefficient, self._exponent
        mean = self._mass / self.grid.size
        return c * m / abs(m - 1.0) * float(mean ** (m - 1.0)) if self._kind == POWER else c

    def _next_shift(self, mass: float, slope: float, low: float, high: float, unit: float) -> float:
        """Newton's step for a power of the mass in which it is nearly linear, kept between ``low`` and ``high``."""
        if 0.0 < mass < math.inf and self._kind == ENTROPY:
            return self._shift + self._coefficient * (math.log(self._mass) - math.log(mass))
        power = min(self._exponent - 1.0, 1.0) if self._kind == POWER else 1.0
        if _NEGLIGIBLE * self._mass < mass < self._mass / _NEGLIGIBLE and slope > 0.0:
            trial = float(self._shift + ((self._mass / mass) ** power - 1.0) * mass / (power * slope))
            if low < trial < high:
                return trial
        if math.isinf(high):
            return low + unit
        return high - unit if math.isinf(low) else 0.5 * (low + high)

    # --- results ---------------------------------------------------------------------------------------------------------------

    def _finish(self, iterations: int) -> BackAndForthStep:
        self._fill(_LAST_MASS_TOLERANCE)
        mass = float(np.sum(self._rho))
        if 0.0 < mass < math.inf:
            self._rho *= self._mass / mass
        else:
            self._rho[:] = self._mu
            self._residual = self._least_residual = math.inf
        self._transform(self._phi, self._psi)
        return self._result(iterations)

    def _carry(self) -> BackAndForthStep:
        """Without an internal energy φ is −V, made c-concave, and ρ is what its map makes of μ."""
        np.negative(self._finite_potential(), out=self._phi)
        self._transform(self._phi, self._psi)
        self._transform(self._psi, self._phi)
        self._rho[:] = 0.0
        fill_residual(self._phi, *self._mu_parts, self._rho, *self._times, self._difference, self._pull_sums)
        np.maximum(-self._difference, 0.0, out=self._rho)
        self._rho[~np.isfinite(self._potential)] = 0.0
        self._rho *= self._mass / float(np.sum(self._rho))
        self._residual = self._least_residual = float(np.sum(np.abs(self._rho + self._difference))) / self._mass
        return self._result(1)

    def _result(self, iterations: int) -> BackAndForthStep:
        dual = inner(self._phi, self._rho, self._products) + inner(self._psi, self._mu, self._products)
        square = self._square_distance(self._psi, self._mu) if self.internal is None else self._square_distance(self._phi, self._rho)
        cells = self.grid.cells
        return BackAndForthStep(
            rho=self._rho.reshape(cells) * self._unit,
            phi=self._phi.reshape(cells).copy(),
            psi=self._psi.reshape(cells).copy(),
            energy=self.energy(self._rho * self._unit),
            square_distance=square * self._unit,
            residual=self._residual,
            gap=(0.5 * square / self.tau - dual * self._volume) * self._unit,
            iterations=iterations,
            least_residual=self._least_residual,
            converged=self._least_residual <= self.tolerance,
        )

    def _square_distance(self, potential: FloatArray, rho: FloatArray) -> float:
        """∫|τ∇φ|² dρ with centred slopes."""
        total = 0.0
        for axis, (count, time) in enumerate(zip(self.shape, self._times, strict=True)):
            if count > 1:
                ends = [(1, 1) if k == axis else (0, 0) for k in range(2)]
                padded = np.moveaxis(np.pad(potential, ends, mode="edge"), axis, 0)
                slopes = 0.5 * (padded[2:] - padded[:-2])
                total += time * self.tau * float(np.sum(slopes * slopes * np.moveaxis(rho, axis, 0)))
        return total * self._volume


@contextmanager
def _threads(size: int) -> Iterator[None]:
    """All threads for grids that are worth it, one for others: to wait for another costs more than a small loop does."""
    allowed = numba.get_num_threads()
    numba.set_num_threads(allowed if size >= _SHARED else 1)
    try:
        yield
    finally:
        numba.set_num_threads(allowed)


def _check(grid: Grid, tau: float, tolerance: float, most_iterations: int) -> None:
    if not isinstance(grid, Grid) or len(grid.cells) > 2:
        raise ValueError("the back-and-forth method needs a box with one or two axes")
    if grid.domain.periodic.any() or grid.domain.frozen.any():
        raise ValueError("the back-and-forth method needs axes that end in walls, neither periodic nor frozen")
    if most_iterations < 1:
        raise ValueError(f"most_iterations must be at least 1, got {most_iterations}")
    for name, value in (("tau", tau), ("tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _parameters(internal: Internal | None, potential: FloatArray, spacing: tuple[float, float], tau: float) -> tuple[int, float, float]:
    """The kind of energy for the loops, its exponent and its coefficient."""
    if internal is None:
        return _NONE, 0.0, 0.0
    if isinstance(internal, Entropy):
        return ENTROPY, 1.0, internal.temperature
    if isinstance(internal, Power):
        return POWER, internal.exponent, internal.coefficient
    return CONGESTION, 2.0, internal.softness or _softness(potential, spacing, tau)


def _softness(potential: FloatArray, spacing: tuple[float, float], tau: float) -> float:
    """The square of a cell's width over τ, or the largest difference of V between neighbours outside obstacles if that is less."""
    flat = np.where(np.isfinite(potential), potential, np.nan)
    steps = np.concatenate([np.ravel(np.abs(np.diff(flat, axis=axis))) for axis in (0, 1)])
    largest = float(np.max(steps, where=np.isfinite(steps), initial=0.0))
    narrow = min(h**2 for h, n in zip(spacing, potential.shape, strict=True) if n > 1) / tau
    return min(narrow, largest) if largest > 0.0 else narrow
