"""Proximal maps of energies on a grid for the Kullback–Leibler divergence: argmin heat KL(ρ | w) + E(ρ) [Peyré 2015]."""

import math
from dataclasses import dataclass, field

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.solvers.jko.densities import Densities
from mfpde.solvers.jko.gibbs import densities
from mfpde.solvers.kernels.entropic import solve_logarithms

_NEWTON, _HALVINGS, _SYSTEMS = 4, 6, 60
_ENOUGH, _INNER, _LEVELS = 1e-13, 1e-6, 60


@dataclass
class Cells:
    """u'(ρ) + ``spread`` log ρ = ``pressure``, cell by cell, for log ρ: closed for entropies, by Newton's method in log ρ with powers."""

    temperature: float
    spread: float
    exponents: FloatArray
    coefficients: FloatArray

    def solve(self, pressure: FloatArray, guess: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log ρ, from a guess of it, and the derivative of the pressure in it, (size,) each."""
        heat = self.temperature + self.spread
        above = pressure - self.temperature
        if not self.exponents.size:
            found = above / heat
            return found, np.full_like(found, heat)
        found, slopes = guess.copy(), np.empty_like(guess)
        solve_logarithms(above, heat, self.exponents, self.coefficients, found, slopes)
        return found, slopes

    def slopes(self, log_rho: FloatArray) -> FloatArray:
        """u'(ρ) from log ρ, however small ρ is."""
        total = self.temperature * (log_rho + 1.0)
        for m, c in zip(self.exponents, self.coefficients, strict=True):
            total = total + c * m / (m - 1.0) * np.exp(np.clip((m - 1.0) * log_rho, -700.0, 700.0))
        return np.asarray(total)


@dataclass(eq=False)
class Proximal:
    """The map for one step from the density ``start`` (size,): E's quadratic terms are convex between densities of its mass, but for
    their negative part, in whose place there is the tangent at ``held``, which lies above it."""

    scheme: Densities
    cells: Cells
    start: FloatArray
    held: FloatArray
    _linear: FloatArray = field(init=False)
    _rows: tuple[FloatArray, FloatArray] | None = field(init=False)
    _push: FloatArray = field(init=False)
    _top: float = field(init=False)

    def __post_init__(self) -> None:
        parts = self.scheme.parts
        self._rows = self._centred(parts.factors) if parts.convex else None
        self._push = np.zeros(0 if not parts.quadratics else len(self._rows[1]) if self._rows else self.start.size)
        highest = np.log(np.max(self.start, keepdims=True))
        self._top = float((self.cells.slopes(highest) + self.cells.spread * highest)[0])
        self.hold(self.held)

    def hold(self, rho: FloatArray) -> None:
        """Take the tangent at this density."""
        self.held = rho
        self._linear = self.scheme.drift(self.start)
        if not self.scheme.parts.convex:
            bent = np.zeros(rho.size)
            self.scheme.parts.apply_concave(rho - self.start, bent)
            self._linear -= bent

    def of(self, log_weight: FloatArray, guess: FloatArray) -> FloatArray:
        """log ρ of the minimiser with the mass of the start, to Newton's precision in the coupled unknowns, which are kept for the next
        call. The right weights give that mass anyhow; holding it keeps constants in the potentials from mattering."""
        base = self.cells.spread * log_weight - self._linear
        found, softness = self._level(base - self._shown(self._push), guess)
        if not self._push.size:
            return found
        rest = self._push - self._felt(densities(found))
        for _ in range(_NEWTON):
            size = float(np.linalg.norm(rest))
            if size <= _ENOUGH * max(float(np.linalg.norm(self._push)), 1e-3):
                break
            step, share = self._newton(rest, softness), 1.0
            for _ in range(_HALVINGS):
                push = self._push - share * step
                found, softness = self._level(base - self._shown(push), found)
                rest = push - self._felt(densities(found))
                if float(np.linalg.norm(rest)) < size:
                    break
                share *= 0.5
            self._push = push
        return found

    def _level(self, pressure: FloatArray, guess: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log ρ and its softness at the pressure plus the constant that makes the mass right, by Newton's method for the logarithm of
        the mass. The largest pressure is kept for the next call."""
        cells, wanted = self.cells, math.log(float(np.sum(self.start)))
        highest = float(np.max(pressure))
        pressure = pressure - highest
        found, slopes = cells.solve(pressure + self._top, guess)
        low, high = -math.inf, math.inf
        for _ in range(_LEVELS):
            top = float(np.max(found))
            shares = densities(found - top)
            total = float(np.sum(shares))
            missed = wanted - top - math.log(total)
            if abs(missed) <= _ENOUGH * (1.0 + abs(wanted)):
                break
            low, high = (self._top, high) if missed > 0.0 else (low, self._top)
            furthest = abs(self._top) + cells.temperature + cells.spread
            step = missed * total / float(np.sum(shares / slopes))
            trial = self._top + min(max(step, -furthest), furthest)
            self._top = trial if low < trial < high else 0.5 * (low + high)
            found, slopes = cells.solve(pressure + self._top, found)
        return found, densities(found) / slopes

    def first_variation(self, log_rho: FloatArray) -> FloatArray:
        """δE/δρ, with the tangent in place of the negative part."""
        rho = densities(log_rho)
        xi = self._linear + self.cells.slopes(log_rho)
        moved = rho - self.start
        if self._push.size:
            self.scheme.parts.apply(moved, xi)
            if not self.scheme.parts.convex:
                self.scheme.parts.apply_concave(moved, xi)
        return np.asarray(xi)

    def _centred(self, factors: tuple[FloatArray, FloatArray] | None) -> tuple[FloatArray, FloatArray] | None:
        """Rows that see no change of the mass along the start: between densities of one mass they are the same."""
        if factors is None:
            return None
        means = factors[0] @ self.start / float(np.sum(self.start))
        return factors[0] - means[:, None], factors[1]

    def _felt(self, rho: FloatArray) -> FloatArray:
        """The coupled unknowns of a density: s ∘ Fρ, (r,), or K₊ρ, (size,)."""
        if self._rows is not None:
            rows, signs = self._rows
            return np.asarray(signs * (rows @ rho) * self.scheme.volume)
        return self._positive(rho)

    def _shown(self, push: FloatArray) -> FloatArray:
        """The first variation that they make, (size,)."""
        if not push.size:
            return np.zeros(self.start.size)
        return push if self._rows is None else np.asarray(push @ self._rows[0])

    def _positive(self, rho: FloatArray) -> FloatArray:
        """PᵀK₊Pρ, P taking the mass away along the start."""
        share = self.start / float(np.sum(self.start))
        moved, out = rho - share * float(np.sum(rho)), np.zeros(rho.size)
        self.scheme.parts.apply(moved, out)
        if not self.scheme.parts.convex:
            self.scheme.parts.apply_concave(moved, out)
        return out - float(np.dot(share, out))

    def _newton(self, rest: FloatArray, softness: FloatArray) -> FloatArray:
        """The solution of (1 + K D) step = rest: r equations, or conjugate gradients on the cells."""
        roots = np.sqrt(softness)
        whole = float(np.sum(softness))
        if self._rows is not None:
            rows, signs = self._rows
            pulled = rows @ softness
            matrix = ((rows * softness) @ rows.T - np.outer(pulled, pulled / whole)) * (signs[:, None] * self.scheme.volume)
            return np.asarray(np.linalg.solve(np.eye(len(signs)) + matrix, rest))
        x = self._conjugate(roots, roots / whole, rest)
        return rest - self._positive(roots * x)

    def _conjugate(self, roots: FloatArray, unit: FloatArray, rest: FloatArray) -> FloatArray:
        """y with (1 + Q√D K √D Q) y = Q√D rest by conjugate gradients, Q taking away what would change the mass."""

        def projected(values: FloatArray) -> FloatArray:
            return values - unit * float(np.dot(roots, values))

        right = projected(roots * rest)
        x, r = np.zeros_like(right), right.copy()
        d, square = r.copy(), float(np.dot(r, r))
        wanted = _INNER**2 * square
        for _ in range(_SYSTEMS):
            if square <= wanted or square == 0.0:
                break
            image = d + projected(roots * self._positive(roots * d))
            length = square / float(np.dot(d, image))
            x, r = x + length * d, r - length * image
            before, square = square, float(np.dot(r, r))
            d = r + (square / before) * d
        return x
