"""Implicit steps: any length keeps the promises, the order in time, the end of time, and input at its extremes."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from conftest import assert_certified, box, bump, interaction, l1_distance, line, network, observed_order, quadratic

from mfpde.domain import Domain
from mfpde.energy import EnergySum, Entropy, Normal, Potential, Power, TwoLayer, two_layer
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import FiniteVolume, Stationary
from mfpde.solvers.finite_volume import Explicit, Implicit, ImplicitEuler, LimitedUpwind, ScharfetterGummel, Upwind

STEPPERS = pytest.mark.parametrize("stepper", [ImplicitEuler(), Implicit()])
ALL_STEPPERS = pytest.mark.parametrize("stepper", [Explicit(), Implicit(), ImplicitEuler()])


@cache
def prepared(domain: Domain) -> TwoLayer:
    """A tanh network with two neurons as its teacher; in the plane its features are rough, or they would take seconds."""
    if domain.dimension == 1:
        return network(domain)
    teacher = Particles(np.array([[1.5, 0.5], [-1.0, 1.0]]), np.array([0.7, 0.3]))
    return two_layer(domain, "tanh", Normal(), teacher, tolerance=0.01)


def loaded(domain: Domain, cells: tuple[int, ...], values) -> DensityFunction:
    """These values in the cells of a grid."""
    grid, array = domain.grid(cells), np.asarray(values, dtype=float)
    return DensityFunction(lambda p: array[grid.locate(p)], domain)


def starts(domain: Domain, cells: tuple[int, ...]) -> dict[str, DensityFunction]:
    grid = domain.grid(cells)
    number, x = np.arange(grid.size), grid.centers[:, 0]
    return {
        "bump": DensityFunction(bump(0.7, 0.5), domain),
        "half": loaded(domain, cells, x <= np.mean(x)),
        "one cell": loaded(domain, cells, number == grid.size // 3),
        "ten orders": loaded(domain, cells, np.where(number % 2 == 0, 1.0, 1e-10)),
    }


# --- steps of any length -------------------------------------------------------------------------------------------------

ENERGIES = {
    "Ornstein-Uhlenbeck": lambda domain: {"well": quadratic(), "entropy": Entropy(0.1)},
    "cold": lambda domain: {"well": quadratic(), "entropy": Entropy(1e-8)},
    "porous 1.5": lambda domain: {"well": quadratic(), "internal": Power(1.5)},
    "porous 2": lambda domain: {"well": quadratic(), "internal": Power(2.0)},
    "porous 4": lambda domain: {"well": quadratic(), "internal": Power(4.0)},
    "fast diffusion": lambda domain: {"well": quadratic(), "internal": Power(0.5)},
    "both": lambda domain: {"well": quadratic(), "internal": Power(2.0), "entropy": Entropy(0.1)},
    "network": lambda domain: {"network": prepared(domain)},
    "noisy network": lambda domain: {"network": prepared(domain), "entropy": Entropy(0.01)},
    "newtonian": lambda domain: {"pairs": interaction(domain, "r**2/2 - r")},
    "morse": lambda domain: {"pairs": interaction(domain, "-exp(-r)")},
    "gaussian": lambda domain: {"pairs": interaction(domain, "-exp(-r**2)"), "internal": Power(3.0)},
    "log gas": lambda domain: {"pairs": interaction(domain, "r**2/2 - log(r)")},
    "Keller-Segel": lambda domain: {"pairs": interaction(domain, "2*log(r)"), "entropy": Entropy(0.5)},
}
PLANE_ENERGIES = {
    "Ornstein-Uhlenbeck": lambda domain: {"well": quadratic(), "entropy": Entropy(0.3)},
    "porous 2": lambda domain: {"well": quadratic(), "internal": Power(2.0)},
    "noisy network": lambda domain: {"network": prepared(domain), "entropy": Entropy(0.05)},
    "gaussian": lambda domain: {"pairs": interaction(domain, "-exp(-r**2)"), "entropy": Entropy(0.1)},
}


def assert_any_length(energy: EnergySum, start: DensityFunction, choices: FiniteVolume) -> None:
    """Three steps (more where Newton's method needs it) with their certificates."""
    step = choices.step
    assert step is not None
    run = choices.solve(Problem(energy, start.domain, start, (3.0 * step,)))
    assert_certified(run)
    assert np.all(run.certificate["iterations"][1:] > 0)
    print(f"step {step:g}: {len(run.certificate) - 1} steps, {int(np.sum(run.certificate['iterations']))} linear systems")


@STEPPERS
@pytest.mark.parametrize("energy", ENERGIES)
def test_steps_of_any_length_keep_their_promises(energy, stepper):
    domain = line()
    terms = EnergySum(ENERGIES[energy](domain))
    for name, step in product(("bump", "one cell"), (1e-3, 1.0, 1e6)):
        assert_any_length(terms, starts(domain, (32,))[name], FiniteVolume((32,), stepper=stepper, step=step))


@STEPPERS
@pytest.mark.parametrize("energy", PLANE_ENERGIES)
def test_steps_of_any_length_keep_their_promises_in_the_plane(energy, stepper):
    domain = box(2)
    terms = EnergySum(PLANE_ENERGIES[energy](domain))
    for name, step in product(("bump", "one cell"), (1e-3, 1.0, 1e6)):
        assert_any_length(terms, starts(domain, (10, 10))[name], FiniteVolume((10, 10), stepper=stepper, step=step))


@pytest.mark.long
@STEPPERS
@pytest.mark.parametrize("energy", ENERGIES)
def test_steps_of_any_length_keep_their_promises_on_more_cells(energy, stepper):
    domain = line()
    terms = EnergySum(ENERGIES[energy](domain))
    for name, step in product(("bump", "half", "one cell", "ten orders"), (1e-3, 1.0, 1e3, 1e6)):
        assert_any_length(terms, starts(domain, (100,))[name], FiniteVolume((100,), stepper=stepper, step=step))


# --- the order in time ---------------------------------------------------------------------------------------------------


def tilted() -> Potential:
    """½ xᵀAx whose axes are not the grid's, so that sweeps do not commute."""
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    matrix = turn @ np.diag([1.0, 3.0]) @ turn.T
    return Potential(lambda p: 0.5 * np.einsum("ni,ij,nj->n", p, matrix, p), lambda p: p @ matrix)


def wave(domain: Domain) -> DensityFunction:
    return DensityFunction(lambda p: 1.0 + 0.5 * np.prod(np.cos(np.pi * p / 4.0), axis=1), domain)


MOVING = {
    "porous medium": (1, lambda domain: {"well": quadratic(0.2), "internal": Power(2.0)}, wave),
    "noisy network": (1, lambda domain: {"network": prepared(domain), "entropy": Entropy(0.05)}, None),
    "gaussian without noise": (1, lambda domain: {"pairs": interaction(domain, "-exp(-r**2)")}, wave),
    "repulsion": (1, lambda domain: {"well": quadratic(), "pairs": interaction(domain, "exp(-r)"), "entropy": Entropy(0.1)}, None),
    "tilted well": (2, lambda domain: {"well": tilted(), "entropy": Entropy(0.3)}, None),
    "porous medium in the plane": (2, lambda domain: {"internal": Power(2.0)}, wave),
    "gaussian in the plane": (2, lambda domain: {"pairs": interaction(domain, "-exp(-r**2)"), "entropy": Entropy(0.3)}, None),
    "noisy network in the plane": (2, lambda domain: {"network": prepared(domain), "entropy": Entropy(0.05)}, None),
}


@pytest.mark.parametrize(("stepper", "order", "allowance"), [(ImplicitEuler(), 1.0, 0.1), (Implicit(), 2.0, 0.15)])
@pytest.mark.parametrize("name", MOVING)
def test_fixed_steps_converge_with_the_order_of_their_method(name, stepper, order, allowance):
    dimension, terms, start = MOVING[name]
    domain = line() if dimension == 1 else box(2)
    initial = start(domain) if start else DensityFunction(bump(0.5, 0.4), domain)
    problem = Problem(EnergySum(terms(domain)), domain, initial, (1.0,))
    cells = (64,) if dimension == 1 else (16, 16)

    def end(count: int, method) -> Run:
        run = FiniteVolume(cells, stepper=method, step=1.0 / count).solve(problem)
        assert_certified(run)
        assert len(run.certificate) == count + 1
        return run

    reference, counts = end(256, Implicit()).final, [8, 16, 32]
    errors = [l1_distance(end(count, stepper).final, reference) for count in counts]
    assert observed_order(counts, errors) == pytest.approx(order, abs=allowance)


# --- the end of time -----------------------------------------------------------------------------------------------------

RESTING = {
    "Ornstein-Uhlenbeck": lambda domain: {"well": quadratic(), "entropy": Entropy(0.3)},
    "porous medium": lambda domain: {"well": quadratic(), "internal": Power(2.0)},
    "steep porous medium": lambda domain: {"well": quadratic(), "internal": Power(4.0)},
    "fast diffusion": lambda domain: {"well": quadratic(), "internal": Power(0.5)},
    "both": lambda domain: {"well": quadratic(), "internal": Power(2.0), "entropy": Entropy(0.1)},
    "noisy network": lambda domain: {"network": prepared(domain), "entropy": Entropy(0.05)},
}


def assert_at_rest(energy: str, domain: Domain, cells: tuple[int, ...], stepper, most: int) -> None:
    problem = Problem(EnergySum(RESTING[energy](domain)), domain, DensityFunction(bump(0.7, 0.5), domain), (1e6,))
    run, state = FiniteVolume(cells, stepper=stepper).solve(problem), Stationary(cells).solve(problem)
    assert_certified(run)
    assert state.status is Status.DONE
    distance = l1_distance(run.final, state.final)
    print(f"{energy}: {len(run.certificate) - 1} steps, L1 distance from the stationary state {distance:.1e}")
    assert distance <= (1e-8 if domain.dimension == 1 else 1e-7)
    assert len(run.certificate) <= most


@STEPPERS
@pytest.mark.parametrize("energy", RESTING)
def test_a_million_units_of_time_take_few_steps_to_the_stationary_state(energy, stepper):
    assert_at_rest(energy, line(), (96,), stepper, 300)


@pytest.mark.long
@STEPPERS
@pytest.mark.parametrize("energy", RESTING)
def test_a_million_units_of_time_in_the_plane_end_on_the_stationary_state(energy, stepper):
    assert_at_rest(energy, box(2), (24, 24), stepper, 5000)


# --- extremes ------------------------------------------------------------------------------------------------------------


def assert_sound(run: Run) -> None:
    """Done with a certificate, or ended by a Status that says why; never anything that is not finite."""
    assert np.isfinite(run.certificate.rows).all()
    assert all(np.isfinite(measure.weights).all() for measure in run.measures)
    if run.status is Status.DONE:
        assert_certified(run)
    else:
        assert run.status in (Status.STEP_TOO_SMALL, Status.NOT_FINITE)
        assert run.message
        print(run.status.name, run.message)


HARSH = {
    "network": lambda domain: ({"network": prepared(domain)}, 0.0),
    "cold network": lambda domain: ({"network": prepared(domain), "entropy": Entropy(1e-8)}, 1e-8),
    "cold well": lambda domain: ({"well": quadratic(), "entropy": Entropy(1e-8)}, 1e-8),
    "noisy pairs": lambda domain: ({"pairs": interaction(domain, "-exp(-r**2)"), "entropy": Entropy(0.1)}, 0.1),
    "log gas": lambda domain: ({"pairs": interaction(domain, "-log(r)")}, 0.0),
    "steep pressure": lambda domain: ({"well": quadratic(), "internal": Power(4.0)}, 0.0),
    "all": lambda domain: ({"well": quadratic(), "entropy": Entropy(0.1), "internal": Power(3.0)}, 0.1),
}


@ALL_STEPPERS
@pytest.mark.parametrize("energy", HARSH)
@pytest.mark.parametrize("cells", [1, 2, 3, 12])
def test_extreme_starts_on_any_grid_work_with_every_flux(cells, energy, stepper):
    domain = line()
    terms, temperature = HARSH[energy](domain)
    fluxes = [Upwind(), LimitedUpwind(), *([ScharfetterGummel(temperature)] if temperature else [])]
    for name, flux in product(("half", "one cell", "ten orders"), fluxes):
        problem = Problem(EnergySum(terms), domain, starts(domain, (cells,))[name], (0.01, 0.5))
        assert_sound(FiniteVolume((cells,), flux=flux, stepper=stepper).solve(problem))


@pytest.mark.parametrize("temperature", [1e-8, 1e-3])
def test_neighbours_ten_orders_apart_work_on_many_cells(temperature):
    domain = line()
    energy = EnergySum({"well": quadratic(), "entropy": Entropy(temperature)})
    for flux, stepper in product((None, LimitedUpwind(), ScharfetterGummel(temperature)), (None, Explicit())):
        problem = Problem(energy, domain, starts(domain, (100,))["ten orders"], (1.0,))
        assert_certified(FiniteVolume((100,), flux=flux, stepper=stepper).solve(problem))


@ALL_STEPPERS
@pytest.mark.parametrize("cells", [1, 2, 5, 6])
def test_circles_of_a_few_cells_work_with_coupled_and_nonlinear_energies(cells, stepper):
    domain = line(0.0, 2 * np.pi, periodic=True)
    cosine = Potential(lambda p: np.cos(p[:, 0]), lambda p: -np.sin(p))
    for terms in (
        {"cosine": cosine, "internal": Power(2.0)},
        {"pairs": interaction(domain, "-cos(theta)"), "entropy": Entropy(0.2)},
        {"pairs": interaction(domain, "cos(theta)"), "internal": Power(3.0)},
    ):
        for name in ("one cell", "ten orders"):
            problem = Problem(EnergySum(terms), domain, starts(domain, (cells,))[name], (0.01, 2.0))
            assert_sound(FiniteVolume((cells,), stepper=stepper).solve(problem))


@pytest.mark.parametrize("cells", [1, 2, 3, 6])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_smallest_grids_work_with_every_flux_and_stepper(cells, periodic):
    domain = line(0.0, 2 * np.pi, periodic=periodic)
    energy = EnergySum({"cosine": Potential(lambda p: np.cos(p[:, 0]), lambda p: -np.sin(p)), "entropy": Entropy(0.2)})
    start = DensityFunction(lambda p: 1.0 + 0.5 * np.sin(p[:, 0]), domain)
    for flux, stepper in product((Upwind(), LimitedUpwind(), ScharfetterGummel(0.2)), (Explicit(), Implicit(), ImplicitEuler())):
        assert_certified(FiniteVolume((cells,), flux=flux, stepper=stepper).solve(Problem(energy, domain, start, (5.0,))))


@pytest.mark.parametrize("cells", [(1, 1), (2, 2), (1, 5), (5, 2)])
@ALL_STEPPERS
def test_planes_of_a_few_cells_work(cells, stepper):
    domain = box(2)
    for terms in PLANE_ENERGIES.values():
        for start in starts(domain, cells).values():
            energy = EnergySum(terms(domain))
            assert_sound(FiniteVolume(cells, stepper=stepper).solve(Problem(energy, domain, start, (0.01, 1.0))))
