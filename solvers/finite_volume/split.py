"""Implicit steps in several dimensions: sweeps along the axes in both orders, and an outer iteration for distant coupling."""

from collections.abc import Callable

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.solvers.finite_volume.coupling import solve_krylov
from mfpde.solvers.finite_volume.flux import Lines
from mfpde.solvers.finite_volume.linear import LinearSweep
from mfpde.solvers.finite_volume.model import Model, Parts
from mfpde.solvers.finite_volume.sweep import Sweep

_MOST_ROUNDS = 15
_MOST_NEWTON = 15
_NEWTON_TOLERANCE = 1e-2
_DIFFERENCE = 1e-6
_WINDOW = 6
_SMALL_CHANGE = 10.0


class Split:
    """Symmetrised splitting. With the drift of the quadratic energies frozen at a value between start and end, every sweep of order
    one dissipates what is left of the energy, and so does the mean of both orders, by convexity; frozen at the mean of start and
    end, the quadratic energies change by exactly ⟨drift, end − start⟩. Together the energy decays at any step, whatever K is.
    """

    def __init__(self, model: Model, parts: Parts) -> None:
        self.model, self.parts = model, parts
        self.sweeps = [make_sweep(model, parts, lines, False) for lines in model.lines]

    def step(self, rho: FloatArray, rate: FloatArray, dt: float, order: int, wanted: float) -> tuple[FloatArray, float, int]:
        """The end of a step, its estimated L¹ error and the linear systems solved. Raises StepFailed."""
        for sweep in self.sweeps:
            sweep.iterations = 0
        if self.parts.quadratics:
            end, error = self._coupled(rho, rate, dt, order, wanted)
        else:
            end, error = self._both_ways(rho, dt, order, self.parts.fixed)
        return end, error, sum(sweep.iterations for sweep in self.sweeps)

    def _coupled(self, rho: FloatArray, rate: FloatArray, dt: float, order: int, wanted: float) -> tuple[FloatArray, float]:
        """Fixed point of end ↦ drift ↦ end with Anderson's mixing of the drifts [Anderson 1965; Walker–Ni 2011].

        The first guess is the drift of a linear extrapolation, so that its distance from the fixed point estimates the error of
        freezing. Where a step changes next to nothing, the positive part of K is taken at the end: stiff modes then die out.
        """
        quiet = np.isfinite(wanted) and dt * self.model.norm(rate) <= _SMALL_CHANGE * wanted
        share = 1.0 if order == 1 or quiet else 0.5
        precision = min(1e-2 * wanted, 1e-8 * self.model.mass(rho))
        here = np.zeros_like(rho)
        self.parts.apply(rho, here)

        def end_of(drift: FloatArray) -> tuple[FloatArray, float]:
            return self._both_ways(rho, dt, order, self.parts.fixed + drift)

        def drift_of(end: FloatArray) -> FloatArray:
            return self._drift(here, end - rho, share)

        drift = drift_of(np.maximum(rho + dt * rate, 0.0))
        first, error = end_of(drift)
        end, mixing = first, _Anderson()
        for _ in range(_MOST_ROUNDS):
            drift = mixing.next(drift, drift_of(end))
            before = end
            end, error = end_of(drift)
            if self.model.norm(end - before) <= precision:
                return end, error + self.model.norm(first - end)
        end, error = self._by_newton(end_of, drift_of, drift, precision, dt)
        return end, error + self.model.norm(first - end)

    def _by_newton(
        self,
        end_of: Callable[[FloatArray], tuple[FloatArray, float]],
        drift_of: Callable[[FloatArray], FloatArray],
        drift: FloatArray,
        precision: float,
        dt: float,
    ) -> tuple[FloatArray, float]:
        """The fixed point by Newton's method with difference quotients and a line search, for steps that mixing cannot follow."""
        end, error = end_of(drift)
        gap = drift_of(end) - drift
        for _ in range(_MOST_NEWTON):
            size, scale = float(np.linalg.norm(gap)), float(np.linalg.norm(drift))

            def product(values: FloatArray, drift: FloatArray = drift, gap: FloatArray = gap, scale: float = scale) -> FloatArray:
                shift = _DIFFERENCE * max(scale, 1e-12) / float(np.linalg.norm(values))
                moved = drift + shift * values
                return np.asarray(-(drift_of(end_of(moved)[0]) - moved - gap) / shift)

            update, share = solve_krylov(product, gap, _NEWTON_TOLERANCE), 1.0
            while True:
                tried, error = end_of(drift + share * update)
                new_gap = drift_of(tried) - drift - share * update
                if float(np.linalg.norm(new_gap)) < size or share < 0.02:
                    break
                share *= 0.4
            change = self.model.norm(tried - end)
            drift, gap, end = drift + share * update, new_gap, tried
            if change <= precision and share == 1.0:
                return end, error
        raise StepFailed(Status.STEP_TOO_SMALL, f"the coupled drift was not found for a step of {dt:.3g}")

    def _drift(self, here: FloatArray, change: FloatArray, share: float) -> FloatArray:
        """K₊(ρ + share·change) − K₋(ρ + change/2), ``here`` being Kρ."""
        drift, concave = np.zeros_like(here), np.zeros_like(here)
        self.parts.apply(change, drift)
        drift *= share
        if share != 0.5 and not self.parts.convex:
            self.parts.apply_concave(change, concave)
            drift += (share - 0.5) * concave
        return here + drift

    def _both_ways(self, rho: FloatArray, dt: float, order: int, frozen: FloatArray) -> tuple[FloatArray, float]:
        """The mean over both orders of the axes, and half their distance plus the errors of the sweeps."""
        forth, error_forth = self._one_way(rho, dt, order, frozen, self.sweeps)
        back, error_back = self._one_way(rho, dt, order, frozen, self.sweeps[::-1])
        return 0.5 * (forth + back), 0.5 * (self.model.norm(forth - back) + error_forth + error_back)

    def _one_way(
        self, rho: FloatArray, dt: float, order: int, frozen: FloatArray, sweeps: list[Sweep | LinearSweep]
    ) -> tuple[FloatArray, float]:
        """Lie's splitting for order one, Strang's for order two."""
        if order == 1:
            plan = [(sweep, dt) for sweep in sweeps]
        else:
            halves = [(sweep, 0.5 * dt) for sweep in sweeps[:-1]]
            plan = [*halves, (sweeps[-1], dt), *halves[::-1]]
        total = 0.0
        for sweep, part in plan:
            rate = self._rate(sweep, rho, frozen) if isinstance(sweep, Sweep) else rho
            rho, error = (sweep.first_order if order == 1 else sweep.second_order)(rho, rate, part, frozen)
            total += error
        return rho, total

    def _rate(self, sweep: Sweep, rho: FloatArray, frozen: FloatArray) -> FloatArray:
        """−div F along one axis."""
        xi, rate = frozen.copy(), np.zeros_like(rho)
        if sweep.bent:
            self.model.add_local(rho, self.parts.powers, xi, np.empty_like(rho))
        lines = sweep.lines
        self.model.flux.add(lines.see(rho), lines.see(xi), lines, lines.see(rate))
        return rate


def make_sweep(model: Model, parts: Parts, lines: Lines, coupled: bool) -> Sweep | LinearSweep:
    """The cheapest sweep that can do these steps; ``coupled``: the drift changes with the density within them."""
    if model.flux.carries_entropy and not parts.powers and not coupled:
        return LinearSweep(model, lines)
    return Sweep(model, parts, lines)


class _Anderson:
    """Anderson mixing of a fixed-point iteration x ↦ g(x)."""

    def __init__(self) -> None:
        self._points: list[FloatArray] = []
        self._gaps: list[FloatArray] = []

    def next(self, point: FloatArray, image: FloatArray) -> FloatArray:
        """The next iterate, given x and g(x)."""
        gap = image - point
        self._points.append(image)
        self._gaps.append(gap)
        del self._points[: -_WINDOW - 1], self._gaps[: -_WINDOW - 1]
        if len(self._gaps) == 1:
            return image
        moves = np.stack([gap - other for other in self._gaps[:-1]], axis=1)
        images = np.stack([image - other for other in self._points[:-1]], axis=1)
        shares = np.linalg.lstsq(moves, gap, rcond=1e-10)[0]
        return np.asarray(image - images @ shares)
