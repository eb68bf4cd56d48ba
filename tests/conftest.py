"""Shared builders; floating-point trouble is an error in every test."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Normal, TwoLayer, two_layer
from mfpde.measure import Particles


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


def alone(term: object, name: str = "term") -> EnergySum:
    return EnergySum({name: term})  # type: ignore[dict-item]


def observed_order(sizes: Sequence[int], errors: Sequence[float]) -> float:
    """Least-squares slope of −log(error) against log(cells); printed."""
    slope = -float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    print(f"cells {list(sizes)}: errors {[f'{e:.2e}' for e in errors]}, order {slope:.3f}")
    return slope


Integrand = Callable[[np.ndarray], np.ndarray]
