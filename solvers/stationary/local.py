"""The local part of a free energy, entropy and powers of the density, and the density that answers a potential."""

from dataclasses import dataclass, field, replace

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Grid

_LOWEST = float(np.log(1e-300))
_MOST = 200
_NEARLY = 4e-16
_FAINT = 25.0


@dataclass(frozen=True, eq=False)
class Response:
    """The density ρ (size,) that minimises local energy + ⟨φ, ρ⟩, ``slope`` = ρ/(T + Σ c m ρ^{m−1}) = −dρ/dφ at a fixed level of φ, the
    minimum, and whether the search for the level and for ρ met the mass of every slice to round-off; else ρ means nothing."""

    rho: FloatArray
    slope: FloatArray
    value: float
    met: bool = True


@dataclass(frozen=True, eq=False)
class Local:
    """T ∫ρ log ρ + Σ c ∫ρ^m/(m − 1) on one grid, for densities of given mass in every slice.

    ``powers`` holds the pairs (m, c). Along frozen axes nothing moves, so that each of their cells is a slice with its own mass
    ``masses`` (S,) and its own chemical potential; ``order`` (S, k) lists the cells of each slice. Without frozen axes S = 1.
    """

    temperature: float
    powers: tuple[tuple[float, float], ...]
    weight: FloatArray
    order: IntArray
    masses: FloatArray = field(default_factory=lambda: np.ones(1))

    def at(self, temperature: float) -> "Local":
        """The same with another temperature."""
        return replace(self, temperature=temperature)

    def holding(self, rho: FloatArray) -> "Local":
        """The same with the slice masses of ρ."""
        return replace(self, masses=np.sum((rho * self.weight)[self.order], axis=1))

    def scaled(self, rho: FloatArray) -> FloatArray:
        """ρ with the wanted mass in every slice; uniform in slices where it has none."""
        found = np.maximum(rho, 0.0)[self.order]
        found = np.where(np.sum(found, axis=1, keepdims=True) > 0.0, found, 1.0)
        volume = self.weight[self.order]
        return self._joined(found * (self.masses / np.sum(found * volume, axis=1))[:, None])

    @property
    def uniform(self) -> FloatArray:
        """The density that is constant in every slice, (size,)."""
        return self.scaled(np.ones(self.weight.size))

    def centred(self, values: FloatArray, share: FloatArray) -> FloatArray:
        """values (..., size) less their means in every slice with the weights ``share`` (size,)."""
        shares = share[self.order]
        totals = np.sum(shares, axis=1)
        totals[totals == 0.0] = 1.0
        result = np.empty_like(values)
        parts = values[..., self.order]
        result[..., self.order] = parts - (np.sum(parts * shares, axis=-1) / totals)[..., None]
        return result

    def spread(self, values: FloatArray, where: BoolArray | None = None) -> float:
        """Largest variation of values (size,) over the cells of a slice, or those of them where ``where`` holds."""
        parts = values[self.order]
        here = np.ones(parts.shape, dtype=bool) if where is None else where[self.order]
        high, low = np.max(parts, axis=1, initial=-np.inf, where=here), np.min(parts, axis=1, initial=np.inf, where=here)
        held = here.any(axis=1)
        return float(np.max(high[held] - low[held], initial=0.0))

    def answer(self, phi: FloatArray) -> Response:
        """The density that answers the potential φ (size,): T log ρ + Σ c m ρ^{m−1}/(m − 1) = μ − φ with μ from the mass of each slice."""
        parts, volume, met = phi[self.order], self.weight[self.order], True
        if not np.isfinite(parts).all():
            nothing = np.full(self.weight.size, np.nan)
            return Response(nothing, nothing, np.nan, False)
        if self.powers:
            level, rho, slope, met = self._powers(parts, volume)
        else:
            level, rho = self._gibbs(parts, volume)
            slope = rho / self.temperature
        value = float(level @ self.masses) - sum(c * float(np.sum(volume * rho**m)) for m, c in self.powers)
        return Response(self._joined(rho), self._joined(slope), value, met)

    def _joined(self, parts: FloatArray) -> FloatArray:
        whole = np.empty(self.weight.size)
        whole[self.order] = parts
        return whole

    def _gibbs(self, phi: FloatArray, volume: FloatArray) -> tuple[FloatArray, FloatArray]:
        """μ (S,) and ρ (S, k) with the entropy alone."""
        lowest = np.min(phi, axis=1)
        with np.errstate(over="ignore", under="ignore"):
            shape = np.exp(-(phi - lowest[:, None]) / self.temperature)
        density = self.masses / np.sum(shape * volume, axis=1)
        with np.errstate(divide="ignore"):
            level = np.where(self.masses > 0.0, self.temperature * np.log(density) + lowest, 0.0)
        return level, shape * density[:, None]

    def _powers(self, phi: FloatArray, volume: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, bool]:
        """μ (S,), ρ and its slope (S, k), and whether all of them were found: Newton on μ and, in every cell, on log ρ, in brackets."""
        wanted = np.where(self.masses > 0.0, self.masses, 1.0)
        lowest = np.min(phi, axis=1)
        phi = phi - lowest[:, None]  # for m < 1 without entropy the level may lie very little below the least φ
        whole = np.log(wanted[:, None] / volume)  # log ρ of all the mass in one cell
        low, high, level = self._levels(phi, volume, whole, wanted)
        log_rho = np.broadcast_to(np.log(wanted / np.sum(volume, axis=1))[:, None], phi.shape)
        before = high - low
        for _ in range(_MOST):
            log_rho, rho, slope, found = self._inverse(level[:, None] - phi, whole + 1.0, log_rho)
            mass, rate = np.sum(rho * volume, axis=1), np.sum(slope * volume, axis=1)
            low, high = np.where(mass <= wanted, level, low), np.where(mass >= wanted, level, high)
            round_off = wanted + np.sum(slope * volume * (np.abs(level)[:, None] + phi), axis=1)
            met = np.abs(mass - wanted) <= 10.0 * _NEARLY * round_off
            met |= high - low <= _NEARLY * (np.abs(level) + self.temperature)
            if met.all():
                break
            with np.errstate(all="ignore"):
                step = -self._excess(mass, wanted) / rate
            after = _inside(level, step, before, low, high)
            before, level = np.abs(after - level), np.where(met, level, after)
        held = (self.masses > 0.0)[:, None]
        rho = np.where(held, rho * (wanted / mass)[:, None], 0.0)  # by no more than round-off if met
        return level + lowest, rho, np.where(held, slope, 0.0), bool(met.all() and found)

    def _levels(
        self, phi: FloatArray, volume: FloatArray, whole: FloatArray, wanted: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Bounds of the level of every slice and a first guess, each (S,).

        Below the first bound no cell has more than the mean density; at the second all have more, or one cell alone has all the mass.
        """
        base = self._force(np.log(wanted / np.sum(volume, axis=1)))[0]
        low = base + np.min(phi, axis=1)
        high = np.maximum(np.minimum(base + np.max(phi, axis=1), np.min(self._force(whole)[0] + phi, axis=1)), low)
        return low, high, np.clip(base + np.sum(phi * volume, axis=1) / np.sum(volume, axis=1), low, high)

    def _excess(self, mass: FloatArray, wanted: FloatArray) -> FloatArray:
        """What Newton's step divides by the rate: mass − wanted in a function of the mass that is nearly linear in the level.

        With entropy that is the logarithm; without, the mass for m > 1, and mass^{m−1}, which a single cell makes linear, for m < 1.
        """
        if self.temperature > 0.0:
            return np.asarray(mass * np.log(mass / wanted))
        least = min(m for m, _ in self.powers)
        if least > 1.0:
            return mass - wanted
        return np.asarray(mass * np.expm1((1.0 - least) * np.log(mass / wanted)) / (1.0 - least))

    def _force(self, log_rho: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """T log ρ + Σ c m ρ^{m−1}/(m − 1), its derivative in log ρ and the sum of its terms' sizes."""
        value, slope = self.temperature * log_rho, np.full_like(log_rho, self.temperature)
        size = np.abs(value)
        for m, c in self.powers:
            with np.errstate(over="ignore", under="ignore"):
                power = c * m * np.exp((m - 1.0) * log_rho)
            value, slope, size = value + power / (m - 1.0), slope + power, size + power / abs(m - 1.0)
        return value, slope, size

    def _inverse(self, force: FloatArray, cap: FloatArray, log_rho: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, bool]:
        """log ρ, ρ and its slope in the cells where the local force is given, and whether all were found.

        ρ = 0 where the force cannot be as small as that. Where it cannot be as large at the densities up to ``cap``, log ρ is ``cap``, and
        as it stays there its slope is 0.
        """
        empty = self._force(np.full_like(force, _LOWEST))[0] >= force
        full = self._force(cap)[0] <= force
        low, high = np.full_like(force, _LOWEST), np.array(cap)
        log_rho = np.where(full, cap, np.clip(self._bound(force, log_rho), low, high))
        before, done = high - low, empty | full
        for _ in range(_MOST):
            value, slope, size = self._force(log_rho)
            low, high = np.where(value <= force, log_rho, low), np.where(value >= force, log_rho, high)
            with np.errstate(all="ignore"):
                step = (force - value) / slope
                done |= np.abs(value - force) <= _NEARLY * (size + np.abs(force))
            after = _inside(log_rho, step, before, low, high)
            done |= np.minimum(np.abs(after - log_rho), np.abs(step)) <= _NEARLY * (1.0 + np.abs(log_rho))
            before, log_rho = np.abs(after - log_rho), np.where(done, log_rho, after)
            if done.all():
                break
        with np.errstate(under="ignore"):
            rho = np.where(empty, 0.0, np.exp(log_rho))
        return log_rho, rho, np.where(empty | full, 0.0, self._slope(log_rho, rho)), bool(done.all())

    def _bound(self, force: FloatArray, last: FloatArray) -> FloatArray:
        """A bound of log ρ from the side from which Newton's method is monotone: above where all m > 1, when the force is convex in log ρ,
        below where all m < 1, when it is concave; the last log ρ where there are both."""
        above = [m > 1.0 for m, _ in self.powers]
        if any(above) and not all(above):
            return last
        sign = 1.0 if above[0] else -1.0
        bound = np.full_like(force, np.inf)
        with np.errstate(divide="ignore", over="ignore"):
            for m, c in self.powers:
                alone = np.log(np.maximum(force * (m - 1.0) / (c * m), 0.0)) / abs(m - 1.0)
                bound = np.minimum(bound, np.maximum(alone, 0.0) if self.temperature > 0.0 else alone)
            if self.temperature > 0.0:
                bound = np.minimum(bound, sign * force / self.temperature)
        return sign * bound

    def _slope(self, log_rho: FloatArray, rho: FloatArray) -> FloatArray:
        """ρ/(T + Σ c m ρ^{m−1}); without entropy bounded at the edge of the support, where it is infinite for m > 2."""
        if self.temperature > 0.0:
            return np.asarray(rho / self._force(log_rho)[1])
        bounded = np.maximum(log_rho, np.max(log_rho, initial=_LOWEST, where=rho > 0.0) - _FAINT)
        return np.asarray(np.exp(bounded) / self._force(bounded)[1])


def _inside(at: FloatArray, step: FloatArray, before: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """at + step where that lies in the bracket and the step is at most half of the one ``before``, else the middle of the bracket."""
    trial = at + step
    with np.errstate(invalid="ignore"):
        good = (trial >= low) & (trial <= high) & (np.abs(step) <= 0.5 * before)
    return np.where(good, trial, low + 0.5 * (high - low))


def local_part(grid: Grid, temperature: float, powers: tuple[tuple[float, float], ...]) -> Local:
    """The local energy on a grid, with one slice for each cell of the frozen axes."""
    frozen = [k for k in range(len(grid.cells)) if k not in grid.moving]
    order = np.arange(grid.size).reshape(grid.cells).transpose([*frozen, *grid.moving])
    slices = int(np.prod([grid.cells[k] for k in frozen], dtype=np.int64))
    weight = np.array(np.broadcast_to(grid.weight, (grid.size,)), dtype=float)
    return Local(temperature, powers, weight, np.ascontiguousarray(order.reshape(slices, -1)))
