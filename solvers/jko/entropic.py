"""Minimising movements with entropic transport: scaling of Gibbs kernels with the proximal map of the energy [Peyré 2015; Carlier–Duval–
Peyré–Schmitzer 2017], with the bias of the regularisation taken out by the Sinkhorn divergence.

OT_ε(ρ, μ) = min ∫|x − y|² dπ + ε KL(π | ρ ⊗ μ) has the plan π = e^{F + G − |x−y|²/ε} ρ ⊗ μ, and with Lebesgue measure in place of ρ ⊗ μ,
as in those papers, it is W_ε = OT_ε + ε ∫ρ log ρ + ε ∫μ log μ. For Gaussians of variances a, b along one axis, e = ε/4,

    ∂_a W_ε = 1 − (√(ab + e²) + e)/a = ∂_a W₂² − e/a + O(ε²),        where −e/a = ∂_a 2e ∫ρ log ρ,

so a step of the biased scheme E + W_ε/(2τ) has the diffusion ε/(4τ) too much, which does not go away with τ → 0. The divergence
S_ε(ρ, μ) = OT_ε(ρ, μ) − ½ OT_ε(ρ, ρ) − ½ OT_ε(μ, μ) has ∂_a S_ε = (√(a² + e²) − √(ab + e²))/a: it is 0 at ρ = μ, and near it W₂² is
S_ε √(1 + (e/a)²). So the debiased flow goes the right way at speeds too high by the share ε²/(32 a²), whatever τ is.
"""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.problem import Problem
from mfpde.run import WARNING, Status, StepFailed
from mfpde.solvers.jko.densities import Densities
from mfpde.solvers.jko.flow import Minimiser
from mfpde.solvers.jko.gibbs import EMPTY, Gibbs, densities
from mfpde.solvers.jko.kl_proximal import Cells, Proximal
from mfpde.solvers.jko.mixing import Mixing
from mfpde.solvers.jko.rules import check_entropic

ACCURACY = 1e-8
"""Error of the marginals and duality gap, relative to the mass and the energies."""
RESOLVED = 2.0
"""ε in squares of the widest cell: the sum of a Gaussian kernel over the cells then has ripples of 2 exp(−π² ε/h²) = 5e-9."""
_COARSE = 0.5
_FURTHEST = ((math.inf, 30.0), (math.inf, 3.0), (3.0, 3.0))
"""How far g and s, and log ρ, may be extrapolated, in one attempt after the other."""
_MOST, _OUTER, _AGAIN, _PLAIN = 1000, 200, 12, 8
_SELF, _FAINT, _LEAST = 1e-13, 5.0, -300.0
_SEED, _VACUUM = -36.0, (-18.0, -5.0)
_TRIES, _LOOSE = 2, 100.0
_WORSE = 1e3
_TANGENT = 1e-2
_LARGE_SHARE, _SATURATED, _LEAST_REST = 0.1, 6.0, 0.02


@dataclass(frozen=True, eq=False)
class _Plan:
    """π = a K b in logarithms: the density ρ (its logarithm ``log_rho``), the potentials ``f``, ``g`` over ε, and the self-potential ``s``
    of ρ with log K(ρ e^s) = ``answer``; (size,) each."""

    log_rho: FloatArray
    f: FloatArray
    g: FloatArray
    s: FloatArray
    answer: FloatArray

    @property
    def rho(self) -> FloatArray:
        """ρ."""
        return densities(self.log_rho)


class EntropicScheme(Densities):
    """Steps that minimise E + S_ε/(2τ), or E + W_ε/(2τ) where ``debiased`` is false.

    Fixed points in log ρ, the potential g and the self-potential s, with Anderson's acceleration: f is the soft transform of g, ρ is the
    KL proximal map at e^{s − f} ρ (at e^{−f} for W_ε), g the transform of f, s that of ρ by averaged steps as for debiased barycentres
    [Janati–Cuturi–Gramfort 2020]. What is returned has the marginals ρ and μ exactly, so that OT_ε is exact, too. ``accuracy``: error of
    the marginals, relative, and duality gap over the size of the energies. Raises ValueError as ``check`` and ``Densities`` do.
    """

    def __init__(
        self,
        problem: Problem,
        cells: tuple[int, ...],
        tau: float,
        accuracy: float | None = None,
        epsilon: float | None = None,
        debiased: bool | None = None,
    ) -> None:
        check_entropic(problem, cells, epsilon)
        super().__init__(problem, cells)
        widest = max(float(self.grid.spacing[axis]) for axis in self.grid.moving)
        self.tau, self.accuracy, self.widest = tau, accuracy or ACCURACY, widest
        self.epsilon = epsilon or RESOLVED * widest**2
        self.debiased = debiased is not False
        self.gibbs = Gibbs(self.grid, self.epsilon)
        self._exponents = np.array([m for m, _ in self.internal.powers])
        self._coefficients = np.array([c for _, c in self.internal.powers])
        self._moving = tuple(self.grid.moving)
        self.scale = self.size_of(super().start()[0][:, 0])

    def notes_of(self, remarks: FloatArray) -> tuple[str, ...]:
        """The regularisation, and the bias that is left."""
        cells = math.sqrt(self.epsilon) / self.widest
        words = f"entropic transport with epsilon = {self.epsilon:.3g} (its root is {cells:.3g} of the widest cells)"
        words += ", debiased by the Sinkhorn divergence" if self.debiased else f", biased: adds the diffusion {self._bias:.2g}"
        found = [words]
        if remarks.size:
            share, speed, diffusion = (float(x) for x in remarks)
            more = " or more" if share > _SATURATED else ""
            left = f"bias left in a step: about {speed:.1e} of W2 a unit time, what the diffusion {diffusion:.1e} would make"
            left += f" (the speed is too high by the share {share:.1e}{more})" if self.debiased else ""
            found.append(f"{WARNING}{left}; use a smaller epsilon and more cells" if share > _LARGE_SHARE else left)
        if self.debiased and self.internal.empty:
            found.append("without internal energy a debiased step is hardly smoothed: jumps may ring on the scale of epsilon's root")
        if self.epsilon < _COARSE * self.widest**2:
            advice = f"use epsilon >= {self.widest**2:.2g} or more cells"
            found.append(f"{WARNING}the cells do not resolve the kernel of this epsilon, and mass tends to stay in its cells; {advice}")
        return tuple(found)

    @property
    def _bias(self) -> float:
        return self.epsilon / (4.0 * self.tau)

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The initial cell averages; as dual variables the length of the last step, the self-potential and g without it."""
        points, _ = super().start()
        log_rho = _logarithms(points[:, 0])
        begin = -0.5 * np.maximum(log_rho, _LEAST)
        s = self.gibbs.self_potential(log_rho, begin, _SELF * self._mass(points[:, 0]))
        return points, np.concatenate([[0.0], s, np.zeros(self.grid.size)])

    def minimise(self, target: FloatArray, sigma: float, current: FloatArray, guess: FloatArray, dual: FloatArray) -> Minimiser:
        """The minimiser from the target, where self-potentials solve the problem without energy. Raises StepFailed."""
        step = _Step(self, target[:, 0], sigma, dual)
        plan, iterations, residual, gap = step.solve()
        rho = self._with_masses(plan.rho, target[:, 0])
        moved, biased = step.divergence(plan)
        slack = max(gap, 0.0) + (max(moved - biased, 0.0) / (2.0 * sigma) if not self.debiased else 0.0)
        return Minimiser(
            points=rho[:, None],
            dual=np.concatenate([[sigma], plan.s, plan.g - step.own]),
            energy=self.value(rho[:, None]),
            residual=residual,
            gap=max(gap, 0.0),
            iterations=iterations,
            moved=moved,
            slack=slack,
            remarks=step.remarks(plan, moved),
        )

    def size_of(self, rho: FloatArray) -> float:
        """Σ|E| over the terms."""
        return sum(abs(energy) for energy in self.values(rho[:, None]).values())

    def cells_of(self, heat: float) -> Cells:
        """The energy of a cell with heat ρ log ρ more."""
        return Cells(self.internal.temperature, heat, self._exponents, self._coefficients)

    def slices(self, values: FloatArray, reduce: np.ufunc) -> FloatArray:
        """One number for each place along the frozen axes, that of all cells with it."""
        return np.asarray(reduce.reduce(values.reshape(self.grid.cells), axis=self._moving, keepdims=True))

    def roughness(self, rho: FloatArray) -> float:
        """The root of ∫|∇ρ|²/ρ = 4∫|∇√ρ|² along the moving axes."""
        total, roots = 0.0, np.sqrt(rho).reshape(self.grid.cells)
        for axis in self._moving:
            rises = np.roll(roots, -1, axis) - roots if self.grid.periodic(axis) else np.diff(roots, axis=axis)
            total += 4.0 * float(np.sum(rises**2)) / float(self.grid.spacing[axis]) ** 2
        return math.sqrt(total * self.volume)

    def _with_masses(self, rho: FloatArray, start: FloatArray) -> FloatArray:
        """ρ with the mass of the start in each slice to the last bits, from which many sums of exponentials have drifted."""
        now, before = self.slices(rho, np.add), self.slices(start, np.add)
        factors = np.divide(before, now, out=np.zeros_like(now), where=now > 0.0)
        return np.asarray(np.ravel(rho.reshape(self.grid.cells) * factors))

    def _mass(self, rho: FloatArray) -> float:
        return float(np.sum(rho)) * self.volume


class _Step:
    """One step from the density μ = ``start``, whose self-potential is ``own``."""

    def __init__(self, scheme: EntropicScheme, start: FloatArray, sigma: float, dual: FloatArray) -> None:
        self.scheme, self.gibbs, self.start, self.sigma = scheme, scheme.gibbs, start, sigma
        self.log_start, self.volume = _logarithms(start), scheme.volume
        self.mass = float(np.sum(start)) * self.volume
        self.heat = scheme.epsilon / (2.0 * sigma)
        before, (own, g) = float(dual[0]), dual[1:].reshape(2, -1)
        self.own = self.gibbs.self_potential(self.log_start, own, _SELF * self.mass)
        self.g = self.own + (sigma / before) * g if before > 0.0 else self.own
        self.proximal = Proximal(scheme, scheme.cells_of(self.heat), start, start)
        self.iterations = 0
        masses = np.broadcast_to(scheme.slices(start, np.add), scheme.grid.cells)
        self._held = np.ravel(masses > 0.0)
        self._floor = float(np.max(self.log_start)) + _SEED

    def solve(self) -> tuple[_Plan, int, float, float]:
        """The plan, iterations, error of the marginals and gap. The concave part of the energy is replaced by its tangent until that moves
        no more, each time with less energy."""
        x, accuracy = self._first(), self.scheme.accuracy
        if self.scheme.parts.convex:
            plan, residual, gap = self._converge(x, accuracy)
            return plan, self.iterations, residual, gap
        wanted = _TANGENT
        for _ in range(_OUTER):
            plan, residual, gap = self._converge(x, max(wanted, accuracy))
            rho, held = plan.rho, self.proximal.held
            moved = float(np.sum(np.abs(rho - held))) * self.volume / self.mass
            self.proximal.hold(rho)
            gap = self._gap(plan)
            if wanted <= accuracy and gap <= _LOOSE * self._allowed(plan, accuracy):
                return plan, self.iterations, residual, gap
            wanted = max(min(_TANGENT * moved, 0.1 * wanted), accuracy)
            x = np.stack([plan.g, plan.s, plan.log_rho])
        raise self._failed(f"the concave part of the energy still moves, with a gap of {gap:.1e}")

    def _first(self) -> FloatArray:
        """g, s and log ρ to begin with; where nothing is yet there is a little of what is near."""
        near = self.gibbs.smooth(self.log_start) - self.gibbs.smooth(np.zeros_like(self.log_start)) - _FAINT
        log_rho = np.maximum(np.maximum(self.log_start, near), self._floor)
        return np.stack([self.g, self.own, np.where(self._held, log_rho, EMPTY)])

    def _map(self, x: FloatArray) -> FloatArray:
        """One round of g, s, log ρ."""
        g, s, log_rho = x
        f = self.gibbs.soften(self.log_start + g)
        weight = np.where(self._held, log_rho + s - f if self.scheme.debiased else -f, EMPTY)
        log_rho = np.where(self._held, self.proximal.of(weight, log_rho), EMPTY)
        found = self.gibbs.soften(log_rho + f)
        found = found - self._height(found)
        if self.scheme.debiased:
            s = 0.5 * (s + self.gibbs.soften(log_rho + s))
        return np.stack([found, s, log_rho])

    def _height(self, g: FloatArray) -> float:
        """The mean of g above the self-potential: f + c and g − c make the same plan, and extrapolation would let c drift."""
        return float(np.sum(self.start * (g - self.own))) / float(np.sum(self.start))

    def _converge(self, x: FloatArray, accuracy: float) -> tuple[_Plan, float, float]:
        """The plan, error of its marginals and gap, with more and more careful extrapolation."""
        residual = gap = math.inf
        for potentials, logarithms in _FURTHEST:
            found, residual, gap = self._attempt(x, accuracy, Mixing(np.array([[potentials], [potentials], [logarithms]])))
            if found is not None:
                return found, residual, gap
        raise self._failed(f"the marginals are met to {residual:.1e} of the mass, with a duality gap of {gap:.1e}")

    def _attempt(self, x: FloatArray, accuracy: float, mixing: Mixing) -> tuple[_Plan | None, float, float]:
        """Iterate until both marginals are met and the gap is closed. Where the first is so without the second, mass has been extrapolated
        away from where it belongs: it is put back, and some plain rounds follow."""
        plain, misled = 0, 0
        residual = gap = best = math.inf
        for _ in range(_MOST):
            found = self._map(x)
            self.iterations += 1
            rest, weights = found - x, self._weights(found)
            residual = float(np.sum(weights * np.abs(rest))) / self.mass
            if not math.isfinite(residual):
                raise StepFailed(Status.NOT_FINITE, "the potentials of a step are not finite; use a larger epsilon or a smaller tau")
            if residual <= accuracy and plain <= 0:
                plan = self._finish(found)
                gap = self._gap(plan)
                if gap <= self._allowed(plan, accuracy) * (_LOOSE if misled >= _TRIES else 1.0):
                    return plan, self._missed(found), gap
                found = np.stack([plan.g, plan.s, np.logaddexp(plan.log_rho, self._missing(plan, _VACUUM[-1]) + plan.answer)])
                misled, plain = misled + 1, _PLAIN * (misled + 1)
                mixing.forget()
            elif residual > max(_WORSE * best, 1.0) or misled > _AGAIN:
                break
            best, plain = min(best, residual), plain - 1
            x = found if plain > 0 else mixing.next(found, rest, weights)
        return None, residual, gap

    def _failed(self, words: str) -> StepFailed:
        advice = "use a larger epsilon, a smaller tau or a looser accuracy"
        return StepFailed(Status.NOT_CONVERGED, f"entropic scaling has not converged in {self.iterations} rounds: {words}; {advice}")

    def _weights(self, found: FloatArray) -> FloatArray:
        """The masses on which errors of g, s and log ρ count."""
        rho = densities(found[2]) * self.volume
        others = rho if self.scheme.debiased else np.zeros_like(rho)
        return np.stack([self.start * self.volume, others, others])

    def _missed(self, found: FloatArray) -> float:
        """By how much the marginal μ is missed before the last scaling, over the mass."""
        g, _, log_rho = found
        f = self.gibbs.soften(self.log_start + g)
        met = densities(self.log_start + g - self.gibbs.soften(log_rho + f))
        return float(np.sum(np.abs(met - self.start))) * self.volume / self.mass

    def _finish(self, found: FloatArray) -> _Plan:
        """The plan whose second marginal is μ to rounding, and what its first one is."""
        g, s, log_rho = found
        a = log_rho + self.gibbs.soften(self.log_start + g)
        g = self.gibbs.soften(a)
        f = self.gibbs.soften(self.log_start + g)
        log_rho, high = a - f, self._height(g)
        g, f = g - high, f + high
        s = self.gibbs.self_potential(log_rho, s, self.scheme.accuracy * 1e-2 * self.mass)
        return _Plan(log_rho, f, g, s, -self.gibbs.soften(log_rho + s))

    def _gap(self, plan: _Plan) -> float:
        """J(ρ) − min J for J = E + S_ε/(2τ), or for E + W_ε/(2τ), at most.

        J is convex: its potentials bound it from below by E + ⟨f − s⟩/(2τ) plus numbers, s being the transform of any s̃ that is
        held, by which the bound is (ε/2τ) KL(ρ | e^{s̃} ρ K(e^{s̃} ρ)) too low; E − T∫ρ log ρ is above its tangent, and what is left
        has its minimum at a Gibbs state, or without entropy in the lowest cells.
        """
        scheme, rho = self.scheme, plan.rho
        xi = self.proximal.first_variation(plan.log_rho) + self.heat * plan.f
        temperature = scheme.internal.temperature
        if not scheme.debiased:
            return self._above(rho, xi + self.heat * (plan.log_rho + 1.0), temperature + self.heat)
        found = self._bound(plan, xi, plan.log_rho + plan.s, plan.answer)
        if temperature > 0.0 or found <= 0.0:
            return found
        for vacuum in _VACUUM:
            held = np.logaddexp(plan.log_rho + plan.s, self._missing(plan, vacuum))
            found = min(found, self._bound(plan, xi, held, -self.gibbs.soften(held)))
        return found

    def _bound(self, plan: _Plan, xi: FloatArray, held: FloatArray, answer: FloatArray) -> float:
        """The gap that log(ρ e^s̃) = ``held`` with log K(ρ e^s̃) = ``answer`` shows."""
        rho = plan.rho
        behind = rho * (plan.log_rho - held - answer) + densities(held + answer) - rho
        above = self._above(rho, xi + self.heat * answer, self.scheme.internal.temperature)
        return self.heat * max(float(np.sum(behind)) * self.volume, 0.0) + above

    def _missing(self, plan: _Plan, vacuum: float) -> FloatArray:
        """log of how much more ρ e^s there would have to be where ρ is below e^vacuum of its largest value for the first variation to be
        nowhere lower than where mass is: so little mass may be missing that it does not matter, while a bound by the lowest cell counts
        it as if all mass should be there."""
        cells, rho = self.scheme.grid.cells, plan.rho
        xi = self.proximal.first_variation(plan.log_rho) + self.heat * (plan.f + plan.answer)
        masses = self.scheme.slices(rho, np.add)
        mean = np.divide(self.scheme.slices(rho * xi, np.add), masses, out=np.zeros_like(masses), where=masses > 0.0)
        below = np.ravel(np.maximum(mean - xi.reshape(cells), 0.0)) / self.heat
        empty = (plan.log_rho < np.max(plan.log_rho) + vacuum) & (below > 0.0) & self._held
        needed = np.log(np.expm1(np.clip(below, 1e-300, 600.0)))
        return np.where(empty, needed + plan.answer - math.log(self.volume), EMPTY)

    def _above(self, rho: FloatArray, xi: FloatArray, temperature: float) -> float:
        """⟨ξ, ρ⟩ less the least of ⟨ξ, ρ'⟩ + T KL(ρ' | ρ) over densities ρ' with the same masses in all slices."""
        masses = self.scheme.slices(rho, np.add) * self.volume
        held = masses > 0.0
        level = np.where(held, self.scheme.slices(xi, np.minimum), 0.0)
        over = np.ravel(np.where(held, xi.reshape(self.scheme.grid.cells) - level, 0.0))
        total = float(np.sum(rho * over)) * self.volume
        if temperature > 0.0:
            shares = self.scheme.slices(rho * np.exp(-np.minimum(over / temperature, 700.0)), np.add) * self.volume
            total += temperature * float(np.sum(masses[held] * np.log(shares[held] / masses[held])))
        return max(total, 0.0)

    def _allowed(self, plan: _Plan, accuracy: float) -> float:
        """The gap that is small enough."""
        return accuracy * (max(self.scheme.scale, self.scheme.size_of(plan.rho)) + self.heat * self.mass)

    def divergence(self, plan: _Plan) -> tuple[float, float]:
        """S_ε(ρ, μ) and W_ε(ρ, μ) − W_ε(μ, μ)."""
        rho, mu = plan.rho, self.start
        both = float(np.sum(rho * plan.f) + np.sum(mu * plan.g))
        ours = -self._own(rho, plan.log_rho, plan.s, plan.answer)
        theirs = -self._own(mu, self.log_start, self.own, -self.gibbs.soften(self.log_start + self.own))
        spread = float(np.sum(rho * plan.log_rho)) - float(np.sum(mu * np.maximum(self.log_start, _LEAST)))
        scale = self.scheme.epsilon * self.volume
        return max(scale * (both + ours + theirs), 0.0), scale * (both + 2.0 * theirs + spread)

    @staticmethod
    def _own(rho: FloatArray, log_rho: FloatArray, s: FloatArray, answer: FloatArray) -> float:
        """½ OT_ε(ρ, ρ)/ε over the volume, at most too low by the square of the error of s."""
        product = np.clip(s + answer, -700.0, 600.0)
        return float(np.sum(rho * s) - 0.5 * np.sum(rho * np.expm1(product)))

    def remarks(self, plan: _Plan, moved: float) -> FloatArray:
        """The share by which speeds are too high, the bias in W₂ a unit time, and the diffusion that would make as much.

        For Gaussians W₂² = S_ε √(1 + x), x = (e/a)², so that −ε dS_ε/dε = S_ε x/(1 + x), and speeds are too high by √(1 + x) − 1.
        dOT_ε/dε is the plan's divergence from the product and costs no other solve.
        """
        roughness = self.scheme.roughness(plan.rho)
        if not self.scheme.debiased:
            diffusion = self.scheme.epsilon / (4.0 * self.sigma)
            return np.array([0.0, diffusion * roughness / math.sqrt(self.mass), diffusion])
        both = self._information(plan.log_rho, plan.f, self.log_start, plan.g)
        alone = (
            self._information(plan.log_rho, plan.s, plan.log_rho, plan.s),
            self._information(self.log_start, self.own, self.log_start, self.own),
        )
        slope = both - 0.5 * (alone[0] + alone[1])
        fall = self.scheme.epsilon * abs(slope) / moved if moved > 0.0 else 0.0
        share = 1.0 / math.sqrt(max(1.0 - fall, _LEAST_REST)) - 1.0
        speed = share / math.sqrt(1.0 + share) * math.sqrt(moved / self.mass) / self.sigma
        return np.array([share, speed, speed * math.sqrt(self.mass) / roughness if roughness > 0.0 else 0.0])

    def _information(self, log_rho: FloatArray, f: FloatArray, log_mu: FloatArray, g: FloatArray) -> float:
        """KL(π | ρ ⊗ μ)."""
        potentials = float(np.sum(densities(log_rho) * f) + np.sum(densities(log_mu) * g)) * self.volume
        return potentials - self.gibbs.mean_cost(log_rho + f, log_mu + g) / self.scheme.epsilon


def _logarithms(rho: FloatArray) -> FloatArray:
    """log ρ, a very negative number for nothing."""
    return np.log(rho, out=np.full(rho.shape, EMPTY), where=rho > 0.0)
