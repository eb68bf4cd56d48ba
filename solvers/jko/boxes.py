"""Minimising movements of densities in boxes by the back-and-forth method, with obstacles, bounds, networks and interactions.

Networks and interactions ½⟨ρ, Kρ⟩ are linearised: V + Kρ_j stands for them until ρ_{j+1} = ρ_j, a fixed point that is reached at the rate
τ‖∇∇K‖ and is accelerated by secants.

E(ρ) + D ≤ E(μ) for every potential φ, D = ∫φ dρ + ∫φᶜ dμ being at most W₂²(ρ, μ)/(2τ): the dual value E(ρ) + D is a lower bound of the
minimum, and how far it is from its maximum is judged by its gradient. But it says nothing of a ρ for which D is not W₂²/(2τ), as where
(u*)' magnifies small errors of φ: so a step is as good as its own E + W₂²/(2τ) is near to the dual value. That W₂ is exact along one axis.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.energy import Incompressible, Power
from mfpde.energy.incompressible import OVERSHOOT, no_room
from mfpde.energy.potential import GridPotential
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.solvers.jko.back_and_forth import BackAndForth, BackAndForthStep
from mfpde.solvers.jko.densities import Densities
from mfpde.solvers.jko.flow import Minimiser
from mfpde.solvers.jko.rules import check_back_and_forth, one_internal

ACCURACY = 2e-4
_RELATIVE, _FINEST, _FIRST = 1e-3, 1e-9, 0.1
_EXACT_SHARE, _ESTIMATED_SHARE, _LOST_SHARE = 1e-3, 0.01, 0.05
"""Of what E + W₂²/(2τ) can fall by at the most, how far from it a step may be so that nothing else is tried: no other density, where W₂ is
exact and where it is an estimate, nor another potential to begin with."""
_MOST_SHARE, _MOST_ESTIMATED_SHARE = 0.3, 0.9
"""Of the same, what a step may miss at all, where W₂ is exact and where it is an estimate."""
_STILL, _LEAST_SCALE, _NO_SPEED = 1e-2, 1e-3, 1e-300
_SPILLED, _RESTLESS = 1e-6, 0.1
_MOST_METHODS = 4
_PASSES, _FLOOR = 4, 1e-2
_SOFTER, _FLOORS = (16.0, 4.0), (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_MOST_ROUNDS, _ROUND_SHARE = 40, 1e-3
_RESIDUAL, _SHARE, _TRIES, _ROUNDS, _RESTS, _KINDS = range(6)
_ROUND_OFF = 1e-12
_LEAST_SECANT, _MOST_SECANT = 0.1, 3.0


@dataclass(frozen=True, eq=False)
class _Found:
    """A step for fixed potentials: its density (size,) with E and W₂²; by how much E + W₂²/(2τ) has ``fallen``, to the dual value it would
    be by ``lost``; by how much that could still rise at the most, ``left``."""

    step: BackAndForthStep
    rho: FloatArray
    energy: float
    moved: float
    fallen: float
    lost: float
    left: float

    @property
    def gap(self) -> float:
        """How far E + W₂²/(2τ) is from its minimum: from the dual value, or what that could still gain."""
        return max(abs(self.lost - self.fallen), self.left)

    @property
    def share(self) -> float:
        """The gap as a share of what could be lost, infinite where the energy has risen or nothing says so."""
        return self.gap / self.lost if math.isfinite(self.fallen) and 0.0 < self.lost < math.inf else math.inf


class BackAndForthScheme(Densities):
    """Steps by ``BackAndForth`` until its residual is ``accuracy`` of the mass (default 2e-4) and a thousandth of what the last step moved,
    or stops falling.

    Each step is held against the dual value, from which E + W₂²/(2τ) of a good one differs by next to nothing. Where (u*)' is
    ill-conditioned, as in tails, vacuum and steps much shorter than a cell, ρ is the pullback of μ by the map instead, if that is nearer to
    the minimum. Where more than 5 % of what can be lost is uncertain, the ascent is tried from other potentials; what remains of it is
    noted, and steps that miss too much fail. Speeds do not count that are 1 % of what the energy could make.
    Raises ValueError as ``check`` does, and for initial densities in obstacles or above the bound.
    """

    def __init__(self, problem: Problem, cells: tuple[int, ...], accuracy: float | None) -> None:
        check_back_and_forth(problem, cells)
        super().__init__(problem, cells)
        self.accuracy = ACCURACY if accuracy is None else accuracy
        self.obstacles = self._obstacles()
        self._law = one_internal(problem)
        self._methods: dict[float, BackAndForth] = {}
        self._prepare_initial()
        self._slow = self._slow_speed()

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The accuracy that was aimed at, and what was met."""
        notes = [f"steps to a residual of {self.accuracy:g} of the mass on {' x '.join(map(str, self.grid.cells))} cells"]
        if self.obstacles is not None:
            notes.append(f"{int(np.count_nonzero(self.obstacles))} cells are in obstacles; W2 is the distance straight through them")
        if remarks.size == 0:
            return tuple(notes)
        if remarks[_RESIDUAL] > self.accuracy:
            notes.append(f"fronts kept the residual at up to {remarks[_RESIDUAL]:.1e} of the mass")
        if remarks[_SHARE] > _LOST_SHARE:
            notes.append(
                f"{WARNING}E + W2^2/(2 tau) of a step is only known up to {remarks[_SHARE]:.0%} of what it falls by: where mass moves by "
                'less than a cell in a step use a longer tau or more cells, else a smaller tau, or method = "entropic"'
                + (' or "quantile"' if len(self.grid.cells) == 1 else "")
            )
        elif remarks[_SHARE] > 0.0:
            notes.append(f"steps fall short of the minimum of E + W2^2/(2 tau) by at most {remarks[_SHARE]:.1e} of what that falls by")
        if remarks[_TRIES] > 1.0:
            notes.append(f"some steps were tried from up to {remarks[_TRIES]:.0f} potentials")
        if self.parts.quadratics:
            notes.append(f"networks and interactions were linearised up to {remarks[_ROUNDS]:.0f} times a step")
        if remarks[_RESTS] > 0.0:
            word = WARNING if remarks[_RESIDUAL] > _RESTLESS else ""
            notes.append(
                f"{word}some steps were left out, as none was found that lowers the energy on these cells: mass would have moved at "
                f"{remarks[_RESTS]:.1e} at the most (root mean square)"
            )
        return tuple(notes)

    def dissipation(self, points: FloatArray) -> float:
        """As of all densities, without the pressure of an incompressible term and with obstacles as walls."""
        if self.obstacles is None:
            return super().dissipation(points)
        rho = points.copy()
        rho[self.obstacles, 0] = 0.0
        return super().dissipation(rho)

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """The step from the density ``target``. Raises StepFailed where it does not converge."""
        mu = np.ascontiguousarray(target[:, 0])
        method = self._method(sigma)
        method.tolerance = self._tolerance(mu, guess)
        if self.parts.quadratics:
            return self._linearised(method, mu, dual)
        method.replace_potential(self.parts.fixed - self._held(method, mu))
        found, remarks = self._search(method, mu, dual)
        return self._minimiser(method, mu, found, remarks, 0.0)

    # --- one step for fixed potentials --------------------------------------------------------------------------------------------

    def _method(self, sigma: float) -> BackAndForth:
        """The method for steps of this length; the last few are kept."""
        if sigma not in self._methods:
            while len(self._methods) >= _MOST_METHODS:
                del self._methods[next(iter(self._methods))]
            self._methods[sigma] = BackAndForth(self.grid, self._law, self.parts.fixed, sigma, self.accuracy, self.obstacles)
        return self._methods[sigma]

    def _linearised(self, method: BackAndForth, mu: FloatArray, dual: FloatArray) -> Minimiser:
        """The step with quadratic terms, from linear ones in their place that are brought up to date with secants."""
        field = self._field(mu)
        worst, share, last = np.zeros(_KINDS), 1.0, np.zeros(0)
        for rounds in range(1, _MOST_ROUNDS + 1):
            method.replace_potential(self.parts.fixed + field - self._held(method, mu))
            found, remarks = self._search(method, mu, dual)
            rho, dual = found.rho, np.ravel(found.step.phi)
            change = self._field(rho) - field
            missed = float(np.dot(change, rho - mu)) * self.volume
            worst = np.maximum(worst, remarks)
            if abs(missed) <= _ROUND_SHARE * found.lost:
                worst[_ROUNDS] = rounds
                return self._minimiser(method, mu, found, worst, max(missed, 0.0))
            share, last = _secant(share, last, change), change
            field = field + share * change
        raise StepFailed(
            Status.NOT_CONVERGED,
            f"networks or interactions were linearised {_MOST_ROUNDS} times in a step of {method.tau:.3g} without an end: use a smaller "
            'tau, or method = "entropic"',
        )

    def _held(self, method: BackAndForth, mu: FloatArray) -> "FloatArray | float":
        """What turns the softness ε∫ρ²/(2 bound) of an incompressible term into ε∫(ρ − μ)²/(2 bound), which does not spread what is below
        the bound, and lowers E + W₂²/(2τ) itself."""
        return method.softness / self._law.bound * mu if isinstance(self._law, Incompressible) else 0.0

    def _tolerance(self, mu: FloatArray, guess: FloatArray) -> float:
        """The accuracy, or less where the last step, of which ``guess`` is the continuation, moved little mass: errors of small steps
        must not add up to more than those of long ones."""
        moved = float(np.sum(np.abs(guess[:, 0] - mu))) / float(np.sum(mu))
        return self.accuracy * _FIRST if moved == 0.0 else min(self.accuracy, max(_RELATIVE * moved, _FINEST))

    def _field(self, rho: FloatArray) -> FloatArray:
        """Kρ, (size,)."""
        field = np.zeros_like(rho)
        self.parts.apply(rho, field)
        return field

    def _search(self, method: BackAndForth, mu: FloatArray, dual: FloatArray) -> tuple[_Found, FloatArray]:
        """A step that is good enough, from the potential of the last one or others. Raises StepFailed where there is none."""
        best: _Found | None = None
        tries = 0
        slow = 0.5 * method.tau * self._slow**2
        for start in self._starts(method, mu, dual):
            best, tries = _better(best, self._try(method, mu, start)), tries + 1
            if best.share <= _LOST_SHARE or best.gap <= slow:
                break
        assert best is not None
        if not math.isfinite(best.step.least_residual):
            raise StepFailed(
                Status.NOT_FINITE, f"the potentials of a step of {method.tau:.3g} are not finite: V or the pressure is too large"
            )
        if best.lost <= slow and not best.fallen > 0.0:
            speed = math.sqrt(2.0 * max(best.lost, 0.0) / method.tau)
            residual = best.step.least_residual
            return self._at_rest(method, mu, best), np.array([residual, 0.0, tries, 0.0, max(speed, _NO_SPEED)])
        most = _MOST_SHARE if len(self.grid.cells) == 1 else _MOST_ESTIMATED_SHARE
        if best.gap <= slow or best.fallen >= (1.0 - most) * best.lost > 0.0:
            return best, np.array([best.step.least_residual, 0.0 if best.gap <= slow else best.share, tries, 0.0, 0.0])
        raise StepFailed(Status.NOT_CONVERGED, _advice(method.tau, best))

    def _try(self, method: BackAndForth, mu: FloatArray, start: FloatArray | None) -> _Found:
        """The step from one potential: its density, or the pullback of μ where that is nearer to the minimum."""
        step = method.step(mu, start)
        left = method.unexploited()
        found = self._judged(method, mu, step, np.ravel(step.rho), left)
        enough = _EXACT_SHARE if len(self.grid.cells) == 1 else _ESTIMATED_SHARE
        if method.internal is None or found.share <= enough:
            return found
        other = self._judged(method, mu, step, np.ravel(method.pulled_back()), left)
        return other if other.share < found.share - enough or math.isinf(found.share) else found

    def _judged(self, method: BackAndForth, mu: FloatArray, step: BackAndForthStep, rho: FloatArray, left: float) -> _Found:
        """A density as the step."""
        before, energy = method.energy(mu), method.energy(rho)
        least = step.energy + 0.5 * step.square_distance / method.tau - step.gap
        moved = self._moved(method, mu, step, rho)
        lowered = energy <= before + _ROUND_OFF * abs(before)
        fallen = before - energy - 0.5 * moved / method.tau if lowered else -math.inf
        lost = before - least
        return _Found(step, rho, energy, moved, fallen, lost if math.isfinite(lost) else math.inf, left)

    def _moved(self, method: BackAndForth, mu: FloatArray, step: BackAndForthStep, rho: FloatArray) -> float:
        """W₂²: exact along one axis, else by the potential."""
        if len(self.grid.cells) == 1:
            return self.square_distance(rho[:, None], mu[:, None])
        return step.square_distance if method.internal is None else method.square_distance(rho)

    def _starts(self, method: BackAndForth, mu: FloatArray, dual: FloatArray) -> Iterator[FloatArray | None]:
        """Potentials to begin with: the last one, that of μ, of μ smoothed, half as long steps, softer bounds, fuller tails."""
        if dual.size == mu.size:
            yield dual
        yield None
        if method.internal is None:
            return
        smooth = self._smoothed(mu)
        yield method.first_potential(smooth)
        if not isinstance(self._law, Incompressible):
            yield method.first_potential(np.maximum(smooth, _FLOOR * float(np.max(mu))))
        if isinstance(self._law, Incompressible):
            yield self._from_softer(method, mu)
        half = BackAndForth(self.grid, method.internal, self.parts.fixed, 0.5 * method.tau, self.accuracy, self.obstacles)
        half.replace_potential(method.potential)
        first = half.step(mu, method.first_potential(smooth))
        yield half.step(first.rho, first.phi).phi
        if isinstance(self._law, Power) and self._law.exponent < 1.0:
            yield self._from_fuller(method, mu)

    def _from_softer(self, method: BackAndForth, mu: FloatArray) -> FloatArray:
        """The potential of the same step with softer bounds, one after the other."""
        law, phi = self._law, None
        assert isinstance(law, Incompressible)
        for factor in _SOFTER:
            softer = Incompressible(law.bound, factor * method.softness)
            easier = BackAndForth(self.grid, softer, method.potential, method.tau, self.accuracy, self.obstacles)
            phi = easier.step(mu, phi).phi
        assert phi is not None
        return phi

    def _from_fuller(self, method: BackAndForth, mu: FloatArray) -> FloatArray:
        """The potential of the same step from densities with less and less in the tails, where −u'(μ) is steep."""
        phi = None
        for floor in _FLOORS:
            fuller = np.maximum(mu, floor * float(np.max(mu)))
            phi = method.step(fuller * (float(np.sum(mu)) / float(np.sum(fuller))), phi).phi
        assert phi is not None
        return phi

    def _smoothed(self, mu: FloatArray) -> FloatArray:
        """μ averaged over neighbours a few times, without flux into walls and obstacles."""
        values, free = mu.reshape(self.grid.cells), np.ones(self.grid.cells)
        if self.obstacles is not None:
            free[self.obstacles.reshape(self.grid.cells)] = 0.0
        for _ in range(_PASSES):
            for axis in range(values.ndim):
                there, here = _sides(values, axis)
                one, other = _sides(free, axis)
                flux = 0.25 * (there - here) * one * other
                change = np.zeros_like(values)
                above, below = _sides(change, axis)
                above -= flux
                below += flux
                values = values + change
        return np.ravel(values)

    def _at_rest(self, method: BackAndForth, mu: FloatArray, found: _Found) -> _Found:
        """No step at all, where the dual value says that next to nothing is to be gained."""
        return replace(found, rho=mu.copy(), energy=method.energy(mu), moved=0.0, fallen=0.0)

    def _slow_speed(self) -> float:
        """A speed that does not count: a share of that which the forces of the energy would give to mass, were they as large all over the
        box as the first variation varies where mass is at the start."""
        rho = self._initial
        there = rho > 0.0
        parts = [self.drift(rho)[there]] + ([] if isinstance(self._law, Incompressible) else [self.internal.slopes(rho)[there]])
        share = rho[there] / float(np.sum(rho))
        scale = sum(float(np.dot(share, np.abs(part - np.dot(share, part)))) for part in parts)
        return _STILL * max(scale, _LEAST_SCALE) / float(np.max(self.domain.upper - self.domain.lower))

    def _minimiser(self, method: BackAndForth, mu: FloatArray, found: _Found, remarks: FloatArray, more: float) -> Minimiser:
        """The step as the flow wants it; E + W₂²/(2τ) can rise by a share of what a step loses, and by ``more``."""
        step, points = found.step, found.rho[:, None]
        slack = _LOST_SHARE * max(found.lost, 0.0) + more
        return Minimiser(
            points=points,
            dual=np.ravel(step.phi),
            energy=self.value(points),
            residual=math.sqrt(2.0 * found.gap / method.tau),
            gap=found.gap,
            iterations=step.iterations,
            moved=found.moved,
            slack=slack,
            remarks=remarks,
        )

    # --- the start ------------------------------------------------------------------------------------------------------------------

    def _obstacles(self) -> BoolArray | None:
        """The cells whose centres are in an obstacle, (size,); None without any. Raises ValueError where nothing is left."""
        masks = [term.blocked for term in self.terms.values() if isinstance(term, GridPotential) and term.blocked is not None]
        if not masks:
            return None
        blocked = np.asarray(np.any(masks, axis=0))
        if blocked.all():
            raise ValueError("obstacles cover all cells")
        return blocked

    def _prepare_initial(self) -> None:
        """Empty the obstacles. Raises ValueError where that takes mass away, or where there is more of it than the bound allows."""
        mu = self._initial
        mass = float(np.sum(mu))
        if self.obstacles is not None:
            inside = float(np.sum(mu[self.obstacles])) / mass
            if inside > _SPILLED:
                worst = self.grid.centers[int(np.argmax(np.where(self.obstacles, mu, -1.0)))]
                raise ValueError(
                    f"the initial density has {inside:.2g} of its mass in an obstacle, at {np.round(worst, 6).tolist()} and around"
                )
            mu[self.obstacles] = 0.0
            mu *= mass / float(np.sum(mu))
        if isinstance(self._law, Incompressible):
            self._check_room(mu, self._law.bound)

    def _check_room(self, mu: FloatArray, bound: float) -> None:
        free = self.grid.size - (0 if self.obstacles is None else int(np.count_nonzero(self.obstacles)))
        mass = float(np.sum(mu)) * self.volume
        if mass >= free * self.volume * bound:
            raise ValueError(no_room(mass, bound, free * self.volume))
        highest = float(np.max(mu))
        if highest > (1.0 + OVERSHOOT) * bound:
            raise ValueError(
                f"the initial density reaches {highest:.6g}, above the bound {bound:g} of the incompressible term: spread it, or raise the "
                "bound (initial densities are normalised to mass 1)"
            )


def _better(one: _Found | None, two: _Found) -> _Found:
    """The one nearer to the minimum, which is above both dual values."""
    if one is None:
        return two
    lost, left = min((one.lost, one.left), (two.lost, two.left))
    one, two = replace(one, lost=lost, left=left), replace(two, lost=lost, left=left)
    return one if one.share <= two.share else two


def _secant(share: float, last: FloatArray, change: FloatArray) -> float:
    """Aitken's factor for a fixed point iteration from two changes."""
    if last.size == 0:
        return share
    bend = change - last
    square = float(np.dot(bend, bend))
    return min(max(-share * float(np.dot(last, bend)) / square, _LEAST_SECANT), _MOST_SECANT) if square > 0.0 else 1.0


def _sides(values: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """Views of the upper and the lower one of each two neighbours."""
    moved = np.moveaxis(values, axis, 0)
    return np.moveaxis(moved[1:], 0, axis), np.moveaxis(moved[:-1], 0, axis)


def _advice(sigma: float, best: _Found) -> str:
    reason = f"a step of {sigma:.3g} does not converge: the dual residual stays at {best.step.least_residual:.1e} of the mass"
    if math.isfinite(best.share):
        reason += f", and E + W2^2/(2 tau) is off its minimum by {best.share:.1e} of what it can fall by"
    return (
        f"{reason}. Where mass moves by less than a cell in a step, use a longer tau or more cells; else a smaller tau or smoother "
        'start, or method = "quantile" or "entropic"'
    )
