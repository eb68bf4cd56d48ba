"""Long runs: few steps once nothing happens any more, and an end on the states that the stationary solver finds directly."""

import numpy as np
import pytest
from conftest import alone, line, network

from mfpde.energy import EnergySum, Entropy, Interaction, PairKernel, Potential, Power
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import FiniteVolume, Stationary

FEW = 600


def distance(one: Run, two: Run) -> float:
    """L¹."""
    return float(np.sum(np.abs(np.ravel(one.final.weights - two.final.weights))))


def both(problem: Problem, cells: int) -> tuple[Run, Run]:
    flow, state = FiniteVolume((cells,)).solve(problem), Stationary((cells,)).solve(problem)
    steps = flow.certificate
    assert flow.status is Status.DONE
    assert state.status is Status.DONE
    assert len(steps) <= FEW
    assert steps.mass_drift() <= 1e-12
    assert np.min(steps["minimum"]) >= 0.0
    assert steps.energy_rise() <= 1e-13
    print(f"{len(steps) - 1} steps, {int(np.sum(steps['iterations']))} linear systems, L1 distance {distance(flow, state):.1e}")
    return flow, state


def bump(centre: float, spread: float = 0.5) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-((p[:, 0] - centre) ** 2) / (2 * spread**2)), line())


@pytest.mark.parametrize("temperature", [1.0, 0.1, 1e-2, 1e-3])
def test_a_noisy_network_ends_in_its_gibbs_state(temperature):
    energy = EnergySum({"network": network(line()), "entropy": Entropy(temperature)})
    flow, state = both(Problem(energy, line(), bump(0.5), (1e6,)), 256)
    assert distance(flow, state) <= 1e-8


def well() -> Potential:
    return Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p)


@pytest.mark.parametrize("internal", [Entropy(0.1), Power(2.0), Power(3.0)])
def test_confined_diffusion_ends_in_its_profile(internal):
    flow, state = both(Problem(EnergySum({"well": well(), "internal": internal}), line(), bump(1.0), (1e6,)), 200)
    assert distance(flow, state) <= 1e-6


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_desai_zwanzig_flow_ends_on_the_branch_of_its_side(side):
    double = Potential(lambda p: 0.25 * p[:, 0] ** 4 - 0.5 * p[:, 0] ** 2, lambda p: p**3 - p)
    attraction = Interaction(PairKernel(line(), lambda x: 0.5 * x[:, 0] ** 2, lambda x: x))
    energy = EnergySum({"double": double, "attraction": attraction, "entropy": Entropy(0.3)})
    flow, state = both(Problem(energy, line(), bump(0.3 * side), (1e4,)), 256)
    assert distance(flow, state) <= 1e-7
    assert float(state.final.weights @ state.final.points[:, 0]) == pytest.approx(0.7055 * side, abs=1e-3)


def test_heat_between_walls_becomes_uniform():
    flow = FiniteVolume((100,)).solve(Problem(alone(Entropy(1.0)), line(), bump(-2.0, 0.1), (1e6,)))
    assert len(flow.certificate) <= FEW
    assert np.ravel(flow.final.values) == pytest.approx(1.0 / 8.0, rel=1e-10)
