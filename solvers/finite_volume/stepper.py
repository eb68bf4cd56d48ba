"""Time steppers as objects, and the integrators that they become on one model."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.solvers.finite_volume.coupling import Factors, couple
from mfpde.solvers.finite_volume.linear import LinearSweep
from mfpde.solvers.finite_volume.model import Model, Parts
from mfpde.solvers.finite_volume.split import Split, make_sweep

_SAFETY = 0.9


class Attempt(NamedTuple):
    """The end of a step that was tried, (size,), the factor by which a step may grow (below one: it is refused), and the
    linear systems that it took."""

    rho: FloatArray
    growth: float
    iterations: int


class Integrator(Protocol):
    """A stepper prepared for one model. Attempts share buffers: the next one overwrites the last unless it was accepted."""

    @property
    def tolerance(self) -> float:
        """Largest L¹ error of a step relative to the mass; infinite for no control."""

    @property
    def most_growth(self) -> float:
        """The factor by which steps grow at most."""

    def bound(self, outflow: float) -> float:
        """The longest step that is worth trying where cells empty at this rate."""

    def attempt(self, rho: FloatArray, rate: FloatArray, dt: float, safe: bool) -> Attempt:
        """Try a step; ``safe`` asks for the variant that cannot raise the energy, where there is one. Raises StepFailed."""

    def recycle(self, spare: FloatArray) -> None:
        """The last attempt was accepted and its array is the caller's now; ``spare`` is given in exchange."""


class Stepper(Protocol):
    """A time stepping method."""

    @property
    def description(self) -> str:
        """For people."""

    @property
    def default_tolerance(self) -> float:
        """The tolerance where none is given."""

    def integrator(self, model: Model, tolerance: float) -> Integrator:
        """Raises ValueError where the method cannot treat the model."""


@dataclass(frozen=True)
class Explicit:
    """Third-order SSP Runge–Kutta [Gottlieb–Shu–Tadmor 2001] under a positivity bound."""

    description: str = "explicit third-order SSP Runge–Kutta under a positivity bound"
    default_tolerance: float = 1e-8

    def integrator(self, model: Model, tolerance: float) -> "ExplicitIntegrator":
        """The method with its buffers."""
        return ExplicitIntegrator(model, tolerance)


@dataclass(frozen=True)
class ImplicitEuler:
    """Fully implicit Euler steps, which keep mass, positivity and the decay of energy at any length [Bailo–Carrillo–Hu 2020]."""

    description: str = "implicit Euler, energy decaying at any step"
    default_tolerance: float = 1e-4

    def integrator(self, model: Model, tolerance: float) -> Integrator:
        """The method with its buffers."""
        return _implicit(model, tolerance, 1)


@dataclass(frozen=True)
class Implicit:
    """Second-order L-stable implicit steps; an Euler step stands in where one would raise the energy."""

    description: str = "implicit of second order (SDIRK 2), Newton with direct solutions"
    default_tolerance: float = 1e-6

    def integrator(self, model: Model, tolerance: float) -> Integrator:
        """The method with its buffers."""
        return _implicit(model, tolerance, 2)


def _implicit(model: Model, tolerance: float, order: int) -> Integrator:
    parts = Parts.of(model.terms, model.grid.size)
    if parts.curved and len(model.lines) > 1:
        raise ValueError('implicit steps of energies that are no quadratic forms are along one moving axis; use stepper = "explicit"')
    return LineIntegrator(model, parts, tolerance, order) if len(model.lines) <= 1 else SplitIntegrator(model, parts, tolerance, order)


class ExplicitIntegrator:
    """SSPRK3 with the embedded second-order step as its error estimate."""

    most_growth = 3.0

    def __init__(self, model: Model, tolerance: float) -> None:
        self.model, self.tolerance = model, tolerance
        self._stages = [np.empty(model.grid.size) for _ in range(3)]

    def bound(self, outflow: float) -> float:
        """0.9 of the time in which a cell would be emptied."""
        return _SAFETY / outflow if outflow > 0.0 else np.inf

    def attempt(self, rho: FloatArray, rate: FloatArray, dt: float, safe: bool) -> Attempt:
        """Fill the stages; refused where a stage would not be positive."""
        one, two, three = self._stages
        if not self.model.forward(rho, dt, rate, one) >= 0.0:
            return Attempt(three, 0.5, 0)
        gap = np.inf
        for share, before, after in ((0.25, one, two), (2.0 / 3.0, two, three)):
            made = self.model.stage(rho, share, before, share * dt, after)
            if made.outflow * dt > 1.0 or not made.minimum >= 0.0:
                return Attempt(three, 0.5, 0)
            gap = made.gap
        return Attempt(three, growth(self.tolerance * self.model.total, gap, 3), 0)

    def recycle(self, spare: FloatArray) -> None:
        """Work in the spare array from now on."""
        self._stages[2] = spare


class LineIntegrator:
    """Implicit steps where mass moves along one axis: Newton's method with everything in it."""

    most_growth = 5.0

    def __init__(self, model: Model, parts: Parts, tolerance: float, order: int) -> None:
        self.model, self.parts, self.tolerance, self.order = model, parts, tolerance, order
        self._factors = Factors.of(model, parts)
        self._sweep = make_sweep(model, parts, model.lines[0], bool(parts.quadratics or parts.curved)) if model.lines else None

    def bound(self, outflow: float) -> float:
        """None."""
        return np.inf

    def recycle(self, spare: FloatArray) -> None:
        """Nothing: every attempt makes its own array."""

    def attempt(self, rho: FloatArray, rate: FloatArray, dt: float, safe: bool) -> Attempt:
        """One step of the wanted order, of order one where ``safe``."""
        sweep = self._sweep
        if sweep is None:
            return Attempt(rho.copy(), self.most_growth, 0)
        sweep.iterations = 0
        euler = safe or self.order == 1
        if isinstance(sweep, LinearSweep):
            if euler:
                found, error = sweep.first_order(rho, rate, dt, self.parts.fixed)
            else:
                found, error = sweep.second_order(rho, rate, dt, self.parts.fixed, np.isfinite(self.tolerance))
        else:
            sweep.precision = newton_precision(self.tolerance, safe)
            coupling = couple(self.parts, self._factors, rho if euler else None)
            found, error = (sweep.first_order if euler else sweep.second_order)(rho, rate, dt, self.parts.fixed, coupling)
        return Attempt(found, growth(self.tolerance * self.model.mass(rho), error, 2 if euler else 3), sweep.iterations)


class SplitIntegrator:
    """Implicit steps in several dimensions by splitting."""

    most_growth = 5.0

    def __init__(self, model: Model, parts: Parts, tolerance: float, order: int) -> None:
        self.model, self.tolerance, self.order = model, tolerance, order
        self._split = Split(model, parts)

    def bound(self, outflow: float) -> float:
        """None."""
        return np.inf

    def recycle(self, spare: FloatArray) -> None:
        """Nothing: every attempt makes its own array."""

    def attempt(self, rho: FloatArray, rate: FloatArray, dt: float, safe: bool) -> Attempt:
        """One step of the wanted order, of order one where ``safe``."""
        order = 1 if safe else self.order
        wanted = self.tolerance * self.model.mass(rho)
        found, error, iterations = self._split.step(rho, rate, dt, order, wanted)
        return Attempt(found, growth(wanted, error, order + 1), iterations)


def newton_precision(tolerance: float, safe: bool) -> float:
    """The L¹ size of an update, relative to the mass, at which Newton's method may end."""
    return 1e-11 if safe or not np.isfinite(tolerance) else min(max(1e-3 * tolerance, 1e-11), 1e-8)


def growth(tolerance: float, error: float, order: int) -> float:
    """(tolerance / error)^{1/order}; below one only if the error is not finite or too large."""
    if not np.isfinite(error):
        return 0.5
    if not np.isfinite(tolerance):
        return 1.0
    return float((tolerance / max(error, 1e-300)) ** (1.0 / order))
