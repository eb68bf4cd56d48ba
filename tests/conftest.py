"""Shared builders; floating-point trouble is an error in every test."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from mfpde.case.difference import DifferenceExpression
from mfpde.case.expression import parse
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Interaction, Normal, PairKernel, Potential, TwoLayer, two_layer
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.run import Run, Status

Integrand = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(autouse=True)
def _strict_floating_point() -> Iterator[None]:
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield


def line(lower: float = -4.0, upper: float = 4.0, *, periodic: bool = False) -> Domain:
    return Domain((Axis("theta", lower, upper, periodic),))


def box(dimension: int, lower: float = -4.0, upper: float = 4.0) -> Domain:
    return Domain(tuple(Axis(name, lower, upper) for name in "xyz"[:dimension]))


def network(domain: Domain, activation: str = "tanh", neurons: Sequence[Sequence[float]] = ((1.5,), (-0.5,))) -> TwoLayer:
    weights = np.array([0.7, 0.3])[: len(neurons)] if len(neurons) <= 2 else np.full(len(neurons), 1.0 / len(neurons))
    return two_layer(domain, activation, Normal(), Particles(np.array(neurons, dtype=float), weights / weights.sum()))


def quadratic(strength: float = 1.0, centre: float = 0.0) -> Potential:
    return Potential(lambda p: 0.5 * strength * np.sum((p - centre) ** 2, axis=1), lambda p: strength * (p - centre))


def interaction(domain: Domain, kernel: str, coefficient: float = 1.0) -> Interaction:
    """W as an expression of the components of the difference and its norm r, as in case files."""
    expression = DifferenceExpression(parse(kernel, [*domain.names, "r"]))
    return Interaction(PairKernel(domain, expression, expression.slope, coefficient), kernel)


def bump(spread: float, centre: float = 0.0) -> Integrand:
    return lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / (2 * spread**2))


def alone(term: object, name: str = "term") -> EnergySum:
    return EnergySum({name: term})  # type: ignore[dict-item]


def assert_certified(run: Run) -> None:
    """All the times were reached, every step kept the mass and positivity and did not raise the energy, and the last record is true."""
    steps, last = run.certificate, run.final
    assert run.status is Status.DONE, run.message
    assert np.isfinite(steps.rows).all()
    assert steps.mass_drift() <= 1e-13
    assert np.min(steps["minimum"]) >= 0.0
    assert steps.energy_rise() <= 1e-13
    assert np.min(steps["dissipation"]) >= -1e-16 * np.max(steps["dissipation"])
    assert isinstance(last, Density)
    assert steps["mass"][-1] == pytest.approx(float(np.sum(last.weights)), rel=1e-14)
    assert steps["minimum"][-1] == np.min(last.values)
    assert steps["energy"][-1] == pytest.approx(float(run.total_energy[-1]), rel=1e-11, abs=1e-14)


def l1_distance(measure: object, exact: DensityFunction | Density) -> float:
    """∫|ρ − exact|, by the cell averages of both."""
    assert isinstance(measure, Density)
    other = exact.on(measure.grid) if isinstance(exact, DensityFunction) else exact
    return float(np.sum(np.abs(np.ravel(measure.values) - np.ravel(other.values)) * measure.grid.weight))


def observed_order(sizes: Sequence[int], errors: Sequence[float]) -> float:
    """Least-squares slope of −log(error) against log(cells); printed."""
    slope = -float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    print(f"cells {list(sizes)}: errors {[f'{e:.2e}' for e in errors]}, order {slope:.3f}")
    return slope
