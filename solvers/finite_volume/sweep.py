"""Implicit steps along the lines of one axis: Newton's method on all lines at once, with direct solutions of its banded systems."""

from typing import Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.run import Status, StepFailed
from mfpde.solvers.finite_volume.flux import Flux, Linearised, Lines, ScharfetterGummel
from mfpde.solvers.finite_volume.model import Model, Parts
from mfpde.solvers.kernels.implicit import (
    ERROR,
    GAMMA,
    GUESS,
    RATIO,
    extrapolated_target,
    factor_bands,
    solve_bands,
    solve_bands_many,
    weighted_divergence,
)
from mfpde.solvers.kernels.linear import conserve_lines, project_lines, stage_error

_MOST_ITERATIONS = 25
_UPDATE = 1e-11
_ROUND_OFF = 1e-8
_FLOOR = 1e-20
_SMOOTHING = (1.0, 0.1, 1e-2, 1e-3)


class NewtonFailed(StepFailed):
    """Newton's method did not find the step's solution."""

    def __init__(self, dt: float, iterations: int) -> None:
        super().__init__(Status.STEP_TOO_SMALL, f"Newton's method did not converge in {iterations} iterations for a step of {dt:.3g}")


class Coupling(Protocol):
    """The part of ξ that depends on the density elsewhere."""

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> None:
        """Add it to ``xi`` (size,)."""

    def correct(self, sweep: "Sweep", update: FloatArray, dt: float) -> FloatArray:
        """The Newton update, given the one that the local Jacobian alone would make, (size,)."""


class Sweep:
    """Implicit steps of the flow along one axis, the others frozen."""

    def __init__(self, model: Model, parts: Parts, lines: Lines, flux: Flux | None = None) -> None:
        self.model, self.parts, self.lines, self.flux = model, parts, lines, flux or model.flux
        width, shape = self.flux.width, lines.shape
        self.buffers = Linearised(np.empty(shape), np.empty((2 * width + 1, *shape)), np.zeros(shape))
        self.bent = bool(parts.powers) or model.upwound_entropy > 0.0
        self._singular = model.upwound_entropy > 0.0 or any(term.exponent < 2.0 for term in parts.powers)
        self._curvature = np.zeros(shape)
        self._system = _System(self.buffers.bands, lines)
        self.iterations = 0
        self._is_smoothed = False
        self.precision = _UPDATE

    def solve(self, target: FloatArray, dt: float, guess: FloatArray, frozen: FloatArray, coupling: Coupling | None = None) -> FloatArray:
        """ρ with ρ + dt div F(ρ) = ``target``, the drift being ``frozen`` + local part + coupling. Raises NewtonFailed."""
        try:
            return self._newton(target, dt, guess, frozen, coupling)
        except NewtonFailed:
            pass
        try:
            return self._newton(target, dt, self._smoothed(target, dt, guess, frozen, coupling), frozen, coupling)
        except NewtonFailed:
            return self._continued(target, dt, guess, frozen, coupling)

    def _smoothed(self, target: FloatArray, dt: float, guess: FloatArray, frozen: FloatArray, coupling: Coupling | None) -> FloatArray:
        """A guess from the same step with a little entropy, which is then lowered: fronts that Newton's method would move by one cell
        an iteration are then where they belong."""
        if not self.bent or self._is_smoothed:
            raise NewtonFailed(dt, 0)
        xi = frozen.copy()
        self.model.add_local(guess, self.parts.powers, xi, np.empty_like(xi))
        mass = self.model.norm(guess)
        centre = self.model.mass(xi * guess) / mass
        temperature = 0.1 * self.model.norm((xi - centre) * guess) / mass
        for factor in _SMOOTHING:
            smooth = Sweep(self.model, self.parts, self.lines, ScharfetterGummel(max(factor * temperature, 1e-12)))
            smooth._is_smoothed = True
            guess = smooth._newton(target, dt, guess, frozen, coupling)
            self.iterations += smooth.iterations
        return guess

    def _continued(self, target: FloatArray, dt: float, guess: FloatArray, frozen: FloatArray, coupling: Coupling | None) -> FloatArray:
        """The same with guesses from shorter steps, which grow as long as Newton's method follows."""
        reached, share, failures = guess, 2.0**-6, 0
        while True:
            try:
                found = self._newton(target, share * dt, reached, frozen, coupling)
            except NewtonFailed:
                failures += 1
                share *= 0.3 if share < 1.0 else 0.5
                if failures > 12:
                    raise
                continue
            if share >= 1.0:
                return found
            reached, share = found, min(4.0 * share, 1.0)

    def _newton(self, target: FloatArray, dt: float, guess: FloatArray, frozen: FloatArray, coupling: Coupling | None) -> FloatArray:
        model, lines, buffers = self.model, self.lines, self.buffers
        linear = self.flux.carries_entropy and not self.bent and coupling is None
        curvature = self._curvature if self.bent or coupling is not None else np.empty((0, 0, 0))
        rho = np.maximum(guess, _FLOOR * float(np.max(guess))) if self._singular else guess.copy()
        mass = model.norm(target)
        xi = np.empty_like(rho)
        damping, last = 1.0, np.inf
        for iteration in range(1, _MOST_ITERATIONS + 1):
            xi[:] = frozen
            if self.bent:
                model.add_local(rho, self.parts.powers, xi, np.ravel(self._curvature))
            if coupling is not None:
                coupling.add_drift(rho, xi)
            self.flux.assemble(lines.see(rho), lines.see(target), lines.see(xi), curvature, dt, lines, buffers)
            self._system.factor()
            update = self._system.solve(np.negative(buffers.residual)).ravel()
            if coupling is not None:
                update = coupling.correct(self, update, dt)
            self.iterations += 1
            new = rho + update
            if not linear:
                np.maximum(new, 0.1 * rho, out=new)
                new = self._conserving(new, target)
                if damping < 1.0:
                    new = rho + damping * (new - rho)
            change = model.norm(new - rho)
            rho = new
            if not np.isfinite(change):
                break
            damping = max(0.5 * damping, 0.125) if change > 0.7 * last and iteration > 4 else min(1.5 * damping, 1.0)
            last = change
            if linear or change <= self.precision * mass:
                return self._conserving(rho, target)
        if change <= _ROUND_OFF * mass:
            return self._conserving(rho, target)
        raise NewtonFailed(dt, iteration)

    def _conserving(self, rho: FloatArray, target: FloatArray) -> FloatArray:
        """Each line scaled to the mass of its target, which Newton's last update met up to its round-off."""
        conserve_lines(self.lines.see(rho), self.lines.see(target), self.lines.metric.volume)
        return rho

    def solve_linearised(self, right: FloatArray) -> FloatArray:
        """J⁻¹ right for the local Jacobian that was factored last, (size,)."""
        return self._system.solve(self.lines.see(right).copy()).ravel()

    def solve_linearised_many(self, columns: FloatArray) -> FloatArray:
        """J⁻¹ of columns (size, r) on a single line, which are overwritten."""
        return self._system.solve_many(columns)

    def push(self, eta: FloatArray, dt: float) -> FloatArray:
        """∂R/∂ξ · η, (size,)."""
        out = np.empty(self.lines.shape)
        m = self.lines.metric
        weighted_divergence(self.buffers.mobility, self.lines.see(eta), dt, m.scale, m.volume, self.lines.periodic, out)
        return out.ravel()

    def second_order(
        self, rho: FloatArray, rate: FloatArray, dt: float, frozen: FloatArray, coupling: Coupling | None = None
    ) -> tuple[FloatArray, float]:
        """A step of the L-stable two-stage SDIRK method of order two [Alexander 1977] and the L¹ size of its error estimate.

        The second stage starts from an extrapolation that is limited so that it stays nonnegative; ``rate`` is −div F at ``rho``.
        The estimate is the divided difference of the slopes, scaled to the local error of linear problems and damped by the Jacobian as
        stiff components need it [Hosea–Shampine 1996].
        """
        lines, see = self.lines, self.lines.see
        first = self.solve(rho, GAMMA * dt, rho, frozen, coupling)
        target = np.empty_like(rho)
        extrapolated_target(see(rho), see(first), RATIO, lines.metric.volume, lines.periodic, see(target))
        self._conserving(target, rho)
        guess = np.empty_like(rho)
        extrapolated_target(see(rho), see(first), GUESS, lines.metric.volume, lines.periodic, see(guess))
        second = self.solve(target, GAMMA * dt, guess, frozen, coupling)
        error = np.empty_like(rho)
        stage_error(rho, np.negative(rate), first, target, second, dt, GAMMA, ERROR, error)
        return second, self._damped(error, rho)

    def first_order(
        self, rho: FloatArray, rate: FloatArray, dt: float, frozen: FloatArray, coupling: Coupling | None = None
    ) -> tuple[FloatArray, float]:
        """A step of the implicit Euler method and the L¹ size of its error estimate."""
        found = self.solve(rho, dt, rho, frozen, coupling)
        return found, self._damped(0.5 * (found - rho - dt * rate), rho)

    def _damped(self, error: FloatArray, rho: FloatArray) -> float:
        """The L¹ size of an error estimate without what round-off put into its mass, damped by the Jacobian."""
        see, volume = self.lines.see, self.lines.metric.volume
        project_lines(see(error), see(rho), volume)
        damped = self.solve_linearised(error)
        project_lines(see(damped), see(rho), volume)
        return self.model.norm(damped)


class _System:
    """Banded systems on all lines, with corners on circles."""

    def __init__(self, bands: FloatArray, lines: Lines) -> None:
        self.bands, self.width = bands, bands.shape[0] // 2
        self.cells = lines.shape[1]
        self.border = self.width if lines.periodic and self.cells > 1 else 0
        self.dense = bool(self.border) and self.cells <= 2 * self.width + 1
        self.inner = self.cells - self.border

    def factor(self) -> None:
        """Factor what the bands hold now, in place."""
        if self.dense:
            self._matrix = self._as_dense()
            return
        if self.border:
            self._rows, columns, corner = self._borders()
        factor_bands(self.bands, self.inner)
        if self.border:
            for column in columns:
                solve_bands(self.bands, self.inner, column)
            self._columns = columns
            self._corner = np.linalg.inv(np.moveaxis(corner - self._times_rows(columns), (0, 1), (-2, -1)))

    def solve(self, right: FloatArray) -> FloatArray:
        """The solution for ``right`` (before, along, after), which is overwritten."""
        if self.dense:
            return np.asarray(np.moveaxis(np.linalg.solve(self._matrix, np.moveaxis(right, 1, -1)[..., None])[..., 0], -1, 1))
        if not self.border:
            solve_bands(self.bands, self.inner, right)
            return right
        head, tail = right[:, : self.inner], right[:, self.inner :]
        solved = np.ascontiguousarray(head)
        solve_bands(self.bands, self.inner, solved)
        gap = np.moveaxis(tail, 1, -1) - np.moveaxis(self._times_rows(solved[None])[:, 0], 0, -1)
        end = np.einsum("...ij,...j->...i", self._corner, gap)
        right[:, self.inner :] = np.moveaxis(end, -1, 1)
        right[:, : self.inner] = solved
        for p, column in enumerate(self._columns):
            right[:, : self.inner] -= column * end[..., p][:, None, :]
        return right

    def solve_many(self, columns: FloatArray) -> FloatArray:
        """The solutions for the columns (along, r) of a single line, which are overwritten."""
        if self.border:
            return np.stack([self.solve(column.reshape(1, -1, 1).copy()).ravel() for column in columns.T], axis=1)
        solve_bands_many(self.bands, self.inner, columns)
        return columns

    def _entries(self) -> list[tuple[int, int, int]]:
        """(row, column, band) of all entries in the last ``border`` rows or columns."""
        n, w = self.cells, self.width
        rows = {*range(w), *range(max(n - 2 * w, 0), n)}
        found = [(i, (i + k) % n, k + w) for i in sorted(rows) for k in range(-w, w + 1)]
        return [entry for entry in found if entry[0] >= self.inner or entry[1] >= self.inner]

    def _borders(self) -> tuple[list[tuple[int, int, FloatArray]], list[FloatArray], FloatArray]:
        """Entries of the last rows left of the corner, the last columns above it, and the corner (w, w, before, after)."""
        before, after = self.bands.shape[1], self.bands.shape[3]
        rows: list[tuple[int, int, FloatArray]] = []
        columns = [np.zeros((before, self.inner, after)) for _ in range(self.width)]
        corner = np.zeros((self.width, self.width, before, after))
        for i, q, band in self._entries():
            value = self.bands[band, :, i].copy()
            if i >= self.inner and q >= self.inner:
                corner[i - self.inner, q - self.inner] += value
            elif i >= self.inner:
                rows.append((i - self.inner, q, value))
            else:
                columns[q - self.inner][:, i] += value
        return rows, columns, corner

    def _times_rows(self, columns: list[FloatArray] | FloatArray) -> FloatArray:
        """The last rows times vectors (before, inner, after): (w, vectors, before, after)."""
        result = np.zeros((self.width, len(columns), self.bands.shape[1], self.bands.shape[3]))
        for row, q, value in self._rows:
            for p, column in enumerate(columns):
                result[row, p] += value * column[:, q]
        return result

    def _as_dense(self) -> FloatArray:
        """All lines as matrices (before, after, n, n)."""
        before, after = self.bands.shape[1], self.bands.shape[3]
        matrix = np.zeros((before, after, self.cells, self.cells))
        for i in range(self.cells):
            for k in range(2 * self.width + 1):
                matrix[:, :, i, (i + k - self.width) % self.cells] += self.bands[k, :, i]
        return matrix
