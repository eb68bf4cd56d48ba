"""Minimising movements read from their definition: exact optimal transport between the masses of cells at the cell centres.

ρ_{k+1} = argmin E(ρ) + W₂²(ρ, ρ_k)/(2τ), where W₂ is the least cost Σ P_ij |x_i − y_j|² of moving one set of cell masses onto the other
by plans P; the short way along circles, and within each slice of frozen axes.

Convergence. Where E is convex, the step is a convex problem for the plan, which ``interior`` solves by following the central path: its
duality gap falls superlinearly. What it finds is then rounded to a plan that keeps every mass, and certified independently of how it was
found. For φ on the cells, with the c-transforms f_i = min_j c_ij + φ_j, every density ρ' of that mass and with it the minimum has
    E(ρ') + W₂²(ρ', ρ_k)/(2τ) ≥ Σ_i a_i f_i − U*(φ − ξ) − ½⟨ρ, Kρ⟩,   ξ = V + Kρ, U(ρ) = ∫u(ρ),
by Kantorovich's duality, Fenchel's inequality for U, and the tangent of the quadratic terms at ρ. The gap is the value at ρ, where W₂ is
POT's exact one, less the better of these bounds for φ = δE/δρ(ρ) and for the dual variables of the path. The path is followed further until
the gap is small enough, or the step fails: no result is used that is not within its gap of the minimum.

Where E is not convex, −K₋ of K = K₊ − K₋ (its negative eigenvalues on the cells) is replaced by its tangent at the last iterate, which is
an upper bound, so that E + W₂²/(2τ) falls from each such convex step to the next [difference of convex functions, Tao–An 1997]. They end
where the fall that the convex model offers is within the accuracy: ρ is stationary up to that, and the gap is that of the model.

Locking. Mass moves by whole cells: a displacement d < h of all mass costs h d, not d². So nothing moves where τ|∇δE/δρ| < h/2, and
displacements are rounded to cells where the density is not spread over them otherwise.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.distance.transport import squared_distances
from mfpde.domain import Grid
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.potential import Potential
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.solvers.jko.densities import Densities
from mfpde.solvers.jko.flow import Minimiser
from mfpde.solvers.jko.interior import ConvexEnergy, Path
from mfpde.solvers.jko.rules import check_transport

MOST_CELLS = 2000
_KNOWN = (Entropy, Power, Potential, Interaction, TwoLayer)
_ACCURACY = 1e-9
_LEAST_SCALE = 1e-3
_MOST_ITERATIONS, _ATTEMPTS, _CLOSER = 300, 4, 0.05
_FIRST_CLOSER = 0.2
_NEGLIGIBLE = 1e-16
_TIES = 1e-12
_MOST_ROUNDS = 200
_PIVOTS = 20_000_000
_NEGATIVE = 1e-12
_ROUND_OFF = 2e-16
_LOST = 1e-30
_FEW_CELLS_MOVED = 2.0


@dataclass(frozen=True, eq=False)
class _Slice:
    """The cells that exchange mass (m,), those among them that have some, as places in ``cells``, their densities (k,), and c (k, m)."""

    cells: IntArray
    rows: IntArray
    mass: FloatArray
    cost: FloatArray

    def transform(self, phi: FloatArray) -> FloatArray:
        """f_i = min_j c_ij + φ_j, (k,)."""
        return np.asarray(np.min(self.cost + phi[self.cells], axis=1))

    def back(self, f: FloatArray) -> FloatArray:
        """The least φ with these f, max_i f_i − c_ij, (m,)."""
        return np.asarray(np.max(f[:, None] - self.cost, axis=0))

    def response(self, phi: FloatArray) -> FloatArray:
        """The cheapest plan (k, m) for φ; equally cheap cells share."""
        total = self.cost + phi[self.cells]
        least = np.min(total, axis=1)
        best = total <= (least + _TIES * (np.abs(least) + float(np.max(np.abs(phi)))))[:, None]
        return np.asarray(best * (self.mass / np.sum(best, axis=1))[:, None])

    def least_cost(self, rho: FloatArray) -> float:
        """Σ c_ij P_ij of the best plan onto ρ, by POT. Raises StepFailed."""
        import ot

        wanted = rho[self.cells]
        there = wanted > 0.0
        a, b = self.mass / np.sum(self.mass), wanted[there] / np.sum(wanted)
        if len(a) == 1 or len(b) == 1:  # which POT takes for masses that are missing
            return float(a @ self.cost[:, there] @ b) * float(np.sum(self.mass))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            value, log = ot.emd2(a, b, np.ascontiguousarray(self.cost[:, there]), numItermax=_PIVOTS, log=True)
        if log["warning"] is not None or not math.isfinite(value):
            raise StepFailed(Status.NOT_CONVERGED, "the exact transport of a step was not found; use fewer cells")
        return float(max(value, 0.0)) * float(np.sum(self.mass))


@dataclass(frozen=True, eq=False)
class _Found:
    """A density (size,), the cost of the best plan onto it and the duality gap, both over the volume of a cell."""

    rho: FloatArray
    cost: float
    gap: float
    iterations: int = 0


class TransportScheme(Densities):
    """Steps between densities on at most 2000 cells; ``accuracy`` of the duality gap relative to the sum of the sizes of the energy's
    terms (at least 1e-3), default 1e-9. A step of n cells takes some 20 iterations of O(n³), 0.05 s at 200 cells and 3 s at 1000.

    Raises ValueError as ``check`` and ``Densities`` do.
    """

    def __init__(self, problem: Problem, cells: tuple[int, ...], accuracy: float | None) -> None:
        check_transport(problem, cells)
        super().__init__(problem, cells)
        self.accuracy = _ACCURACY if accuracy is None else accuracy
        self._slices = _slices(self.grid)
        first = self.grid.centers[self._slices[0]]
        self._squares = squared_distances(first, first, self.domain)
        self._matrix, self._concave = self._quadratic()

    def _quadratic(self) -> tuple[FloatArray | None, FloatArray | None]:
        """K₊ of all quadratic terms (size, size), and C (size, r) with K₋ = C Cᵀ; None where there is none."""
        if not self.parts.quadratics:
            return None, None
        size = self.grid.size
        matrix, unit = np.zeros((size, size)), np.zeros(size)
        for j in range(size):
            unit[j] = 1.0
            self.parts.apply(unit, matrix[j])
            unit[j] = 0.0
        matrix = 0.5 * (matrix + matrix.T)
        if self.parts.convex:
            return matrix, None
        # between densities of one mass only, which is where K need be positive
        means = np.mean(matrix, axis=0)
        values, vectors = np.linalg.eigh(matrix - means - means[:, None] + np.mean(means))
        negative = values < -_NEGATIVE * float(np.max(np.abs(values)))
        if not negative.any():
            return matrix, None
        concave = vectors[:, negative] * np.sqrt(-values[negative])
        return matrix + concave @ concave.T, concave

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The size of the problem, what its minima are, and how far mass moves in cells."""
        notes = [f"exact transport between {self.grid.size} cells, duality gap at most {self.accuracy:g} of the energy"]
        if self._concave is not None:
            rounds = f", in up to {int(remarks[2])} convex steps" if remarks.size else ""
            notes.append(
                "the interaction is not convex: steps are stationary points, reached by convex models above the energy, "
                f"whose duality gap is reported{rounds}"
            )
        if remarks.size:
            most, least = float(remarks[0]), -float(remarks[1])
            moved = f"speed x tau was between {least:.2g} and {most:.2g} cells in a step (root mean square along the fastest axis)"
            limit = "transport between cell centres moves no mass by less than half a cell, and rounds the rest"
            warning = WARNING if most < _FEW_CELLS_MOVED else ""
            advice = "; use a larger tau, more cells, or another method" if warning else ""
            notes.append(f"{warning}{moved}: {limit}{advice}")
        return tuple(notes)

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """The minimum from the target; ``current``, ``guess`` and ``dual`` are not needed. Raises StepFailed."""
        before = target[:, 0]
        tolerance = self.accuracy * max(sum(abs(value) for value in self.values(target).values()), _LEAST_SCALE)
        slices = self._held(before, sigma)
        found, fall, iterations, rounds = self._descend(slices, before, tolerance / self.volume)
        rho, moved = found.rho, 2.0 * sigma * found.cost * self.volume
        energy, start = self.value(rho[:, None]), self.value(target)
        if energy + found.cost * self.volume >= start:
            rho, energy, moved = before.copy(), start, 0.0
        gap = max(found.gap + fall, 0.0) * self.volume
        moves = sigma * max(self._speed(axis, weights, slopes) for axis, weights, slopes in self.slopes(target))
        return Minimiser(
            points=rho[:, None],
            dual=np.empty(0),
            energy=energy,
            residual=math.sqrt(2.0 * gap / sigma),
            gap=gap,
            iterations=iterations,
            moved=moved,
            slack=gap,  # the minimum is at most E(ρ_k), and the value at most the gap above the minimum
            remarks=np.array([moves, -moves, float(rounds)]),
        )

    def _speed(self, axis: int, weights: FloatArray, slopes: FloatArray) -> float:
        """The root mean square of |∇δE/δρ| along an axis over the mass, in cells."""
        whole = float(np.sum(weights))
        return math.sqrt(float(np.sum(weights * slopes**2)) / whole) / float(self.grid.spacing[axis]) if whole > 0.0 else 0.0

    def _held(self, rho: FloatArray, sigma: float) -> list[_Slice]:
        """The slices that have mass."""
        cost, found = self._squares / (2.0 * sigma), []
        for cells in self._slices:
            rows = np.flatnonzero(rho[cells] > 0.0)
            if rows.size:
                found.append(_Slice(cells, rows, rho[cells[rows]], cost if rows.size == cells.size else cost[rows]))
        return found

    def _descend(self, slices: list[_Slice], start: FloatArray, tolerance: float) -> tuple[_Found, float, int, int]:
        """Convex models until one offers no more than the tolerance: the step, the last fall, iterations and models in all."""
        if self._concave is None:
            found = self._step(slices, ConvexEnergy(self.internal, self.parts.fixed, self._matrix), tolerance)
            return found, 0.0, found.iterations, 1
        rho, value, iterations = start, self.value(start[:, None]) / self.volume, 0
        for rounds in range(1, _MOST_ROUNDS + 1):
            fixed = self.parts.fixed - self._concave @ (rho @ self._concave)
            found = self._step(slices, ConvexEnergy(self.internal, fixed, self._matrix), tolerance)
            reached = self.value(found.rho[:, None]) / self.volume + found.cost
            bend = (found.rho - rho) @ self._concave
            fall = value - reached - 0.5 * float(bend @ bend)
            iterations += found.iterations
            if fall <= tolerance:
                return found, max(fall, 0.0), iterations, rounds
            rho, value = found.rho, reached
        raise StepFailed(
            Status.NOT_CONVERGED, f"{_MOST_ROUNDS} convex models did not reach a stationary point of the step; use a smaller tau"
        )

    def _step(self, slices: list[_Slice], energy: ConvexEnergy, tolerance: float) -> _Found:
        """The minimum of a convex energy, its gap within the tolerance. Raises StepFailed."""
        if energy.internal.empty and energy.matrix is None:
            rho = np.zeros(self.grid.size)
            for part in slices:
                rho[part.cells] = _kept(np.sum(part.response(energy.fixed), axis=0), part.mass)
            return _certified(slices, energy, rho, [energy.fixed])
        route, target, best = _Route(slices, energy), _FIRST_CLOSER * tolerance, None
        for _ in range(_ATTEMPTS):
            route.path.follow(target, _MOST_ITERATIONS)
            for rounded in (True, False):
                rho, phi = route.end(rounded)
                found = _certified(slices, energy, rho, [energy.slopes(rho), phi])
                best = found if best is None or found.gap < best.gap else best
                if best.gap <= tolerance:
                    return _Found(best.rho, best.cost, best.gap, route.path.iterations)
            target *= _CLOSER
        left, wanted = (math.inf if best is None else best.gap) * self.volume, tolerance * self.volume
        advice = "use a larger `accuracy` or tau, or fewer cells"
        raise StepFailed(Status.NOT_CONVERGED, f"a step has a duality gap of {left:.1e}, wanted are {wanted:.1e}; {advice}")


class _Route:
    """The path on the cells of those slices that have mass, and the way back from where it ends to densities that keep the mass."""

    def __init__(self, slices: list[_Slice], energy: ConvexEnergy) -> None:
        self.slices, self.energy = slices, energy
        self.cells = np.sort(np.concatenate([part.cells for part in slices]))
        place = np.zeros(len(energy.fixed), dtype=np.int64)
        place[self.cells] = np.arange(len(self.cells))
        whole = len(self.cells) == len(place)
        matrix = energy.matrix if whole or energy.matrix is None else energy.matrix[np.ix_(self.cells, self.cells)]
        self.chosen = [part.mass > _NEGLIGIBLE * float(np.sum(part.mass)) for part in slices]
        spread, lanes = np.zeros(len(self.cells)), []
        for part, chosen in zip(slices, self.chosen, strict=True):
            cost = part.cost if chosen.all() else part.cost[chosen]
            lanes.append((place[part.cells], part.mass[chosen], cost))
            spread[place[part.cells]] = 0.5 * float(np.sum(part.mass)) / len(part.cells)
            spread[place[part.cells[part.rows]]] += 0.5 * part.mass
        reduced = ConvexEnergy(energy.internal, energy.fixed[self.cells], matrix)
        self.path = Path(reduced, lanes, reduced.slopes(spread))

    def end(self, rounded: bool) -> tuple[FloatArray, FloatArray]:
        """ρ and φ, (size,) each. The path leaves a little mass everywhere: ``rounded`` takes it out of cells that the dual variables
        leave empty, or emptier. Cells of negligible mass go where they cost least."""
        rho, phi = np.zeros(len(self.energy.fixed)), self.energy.fixed.copy()
        phi[self.cells] = self.path.phi
        for part in self.slices:
            phi[part.cells] = part.back(part.transform(phi))
        shares = self._shares(phi) if rounded else np.ones(len(phi))
        for part, chosen, lane in zip(self.slices, self.chosen, self.path.lanes, strict=True):
            plan = lane.plan * shares[part.cells]
            left = np.sum(plan, axis=1)
            lost = left <= _LOST * lane.mass  # the dual variables leave these rows nowhere to go, and so cannot be right
            moved = (lane.mass / np.where(lost, 1.0, left) * ~lost) @ plan + lost @ lane.plan
            if not chosen.all():
                moved = moved + np.sum(part.response(phi)[~chosen], axis=0)
            rho[part.cells] = _kept(moved, part.mass)
        return rho, phi

    def _shares(self, phi: FloatArray) -> FloatArray:
        """What the dual variables leave of the density in each cell, (size,), at most 1."""
        rho = np.zeros(len(phi))
        rho[self.cells] = self.path.rho
        if self.energy.internal.empty:
            return np.asarray(np.where(phi < self.energy.drift(rho), self._occupied(rho), 1.0))
        wanted = self.energy.internal.densities(phi - self.energy.drift(rho))
        return np.divide(wanted, rho, out=np.ones_like(rho), where=wanted < rho)

    def _occupied(self, rho: FloatArray) -> FloatArray:
        """1 for cells with more than the barrier alone would leave there, else 0."""
        return np.asarray(rho > math.sqrt(_NEGLIGIBLE) * float(np.max(rho)), dtype=float)


def _certified(slices: list[_Slice], energy: ConvexEnergy, rho: FloatArray, potentials: list[FloatArray]) -> _Found:
    """The density with its exact cost and the least of the duality gaps by these potentials."""
    cost, drift = sum(part.least_cost(rho) for part in slices), energy.drift(rho)
    held = np.concatenate([part.cells for part in slices])
    gap = math.inf
    for k, phi in enumerate(potentials):
        transported = sum(float(part.mass @ part.transform(phi)) for part in slices)
        open_ = cost + float(phi @ rho) - transported
        if k > 0:
            open_ += _fenchel(energy, rho[held], (phi - drift)[held])  # no density that can be reached has mass elsewhere
        gap = min(gap, max(open_, _ROUND_OFF * (cost + float(np.abs(phi) @ rho) + abs(transported))))
    return _Found(rho, cost, gap)


def _fenchel(energy: ConvexEnergy, rho: FloatArray, pressure: FloatArray) -> float:
    """Σ u(ρ) + u*(p) − pρ, infinite where u* is or there is no u."""
    if energy.internal.empty or (any(m < 1.0 for m, _ in energy.internal.powers) and not (pressure < 0.0).all()):
        return math.inf
    best = energy.internal.densities(pressure)
    return float(np.sum(energy.internal.values(rho) - energy.internal.values(best) - pressure * (rho - best)))


def _kept(rho: FloatArray, mass: FloatArray) -> FloatArray:
    """The same shares of exactly this mass."""
    return np.asarray(rho * (float(np.sum(mass)) / float(np.sum(rho))))


def _slices(grid: Grid) -> list[IntArray]:
    """The cells of each slice of the frozen axes."""
    places = np.arange(grid.size).reshape(grid.cells)
    frozen = [k for k in range(len(grid.cells)) if k not in grid.moving]
    moved = np.moveaxis(places, frozen, range(len(frozen)))
    held = math.prod(grid.cells[k] for k in frozen)
    return list(np.ascontiguousarray(moved.reshape(held, -1)))
