"""Finite volumes against exact solutions: drift between walls, Barenblatt profiles, steady states of aggregation; steps of any length."""

import numpy as np
import pytest
from conftest import alone, box, line, network, observed_order
from scipy.special import beta, gamma

from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Entropy, Interaction, PairKernel, Potential, Power
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import FiniteVolume
from mfpde.solvers.finite_volume import Explicit, Implicit, ImplicitEuler, LimitedUpwind, ScharfetterGummel, Upwind


def assert_certified(run: Run, mass: float = 1e-12) -> None:
    steps = run.certificate
    assert run.status is Status.DONE, run.message
    assert steps.mass_drift() <= mass
    assert np.min(steps["minimum"]) >= 0.0
    assert steps.energy_rise() <= 1e-13
    assert np.isfinite(steps.rows).all()


def l1(run: Run, exact: DensityFunction) -> float:
    grid = run.final.grid
    return float(np.sum(np.abs(np.ravel(run.final.values - exact.on(grid).values)) * grid.weight))


def well(strength: float = 1.0) -> Potential:
    return Potential(lambda p: 0.5 * strength * np.sum(p**2, axis=1), lambda p: strength * p)


def pair(domain: Domain, function, slope, coefficient: float = 1.0) -> Interaction:
    return Interaction(PairKernel(domain, function, slope, coefficient))


def bump(domain: Domain, spread: float = 0.5, centre: float = 0.3) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / (2 * spread**2)), domain)


@pytest.mark.parametrize("stepper", [Explicit(), Implicit()])
def test_drift_and_diffusion_between_walls_converge_with_order_two(stepper):
    domain, g = line(0.0, 1.0), 1.0
    a = np.pi**2 + 0.25 * g * g

    def exact(t: float) -> DensityFunction:
        def density(p):
            x = p[:, 0]
            wave = np.pi * np.cos(np.pi * x) + 0.5 * g * np.sin(np.pi * x)
            return np.exp(-a * t + 0.5 * g * x) * wave + np.pi * np.exp(g * (x - 0.5))

        return DensityFunction(density, domain)

    energy = EnergySum({"drift": Potential(lambda p: -g * p[:, 0], lambda p: -g * np.ones_like(p)), "entropy": Entropy(1.0)})
    sizes, errors = [16, 32, 64, 128], []
    for cells in sizes:
        run = FiniteVolume((cells,), tolerance=1e-9, stepper=stepper).solve(Problem(energy, domain, exact(0.0), (0.1,)))
        assert_certified(run)
        errors.append(l1(run, exact(0.1)))
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.15)


def barenblatt(m: float, t: float, dimension: int):
    """The density of mass one and its radius."""
    b = 1.0 / (dimension * (m - 1.0) + 2.0)
    k, p = b * (m - 1.0) / (2.0 * m), 1.0 / (m - 1.0)
    area = 2.0 * np.pi ** (0.5 * dimension) / gamma(0.5 * dimension)
    c = (2.0 * k ** (0.5 * dimension) / (area * beta(0.5 * dimension, p + 1.0))) ** (1.0 / (p + 0.5 * dimension))

    def density(x):
        return t ** (-dimension * b) * np.maximum(c - k * np.sum(x**2, axis=1) * t ** (-2.0 * b), 0.0) ** p

    return density, float(np.sqrt(c / k) * t**b)


@pytest.mark.parametrize(
    ("m", "dimension", "least"),
    [
        (1.5, 1, 1.8),
        (2.0, 1, 1.8),
        (3.0, 1, 1.2),
        (4.0, 1, 0.9),
        pytest.param(2.0, 2, 1.7, marks=pytest.mark.long),
        pytest.param(3.0, 2, 1.3, marks=pytest.mark.long),
    ],
)
def test_barenblatt_profiles_converge_as_their_free_boundary_lets_them(m, dimension, least):
    domain = box(dimension, *(s * 1.3 * barenblatt(m, 2.0, dimension)[1] for s in (-1.0, 1.0)))
    start, end = (DensityFunction(barenblatt(m, t, dimension)[0], domain) for t in (1.0, 2.0))
    sizes = [round(n) for n in (np.geomspace(40, 1000 if m <= 3.0 else 500, 14) if dimension == 1 else np.geomspace(24, 128, 12))]
    errors = []
    for cells in sizes:
        tolerance = 1e-8 if dimension == 1 else 1e-5
        run = FiniteVolume((cells,) * dimension, tolerance=tolerance).solve(Problem(alone(Power(m)), domain, start, (1.0,)))
        assert_certified(run)
        errors.append(l1(run, end))
    assert observed_order(sizes, errors) >= least


@pytest.mark.parametrize("stepper", [Explicit(), Implicit(), ImplicitEuler()])
def test_porous_medium_in_a_well_reaches_its_profile(stepper):
    energy = EnergySum({"internal": Power(2.0), "well": well()})
    start = DensityFunction(lambda p: np.exp(-0.5 * p[:, 0] ** 2), line())
    run = FiniteVolume((160,), stepper=stepper).solve(Problem(energy, line(), start, (6.0,)))
    assert_certified(run)
    edge = 3.0 ** (1.0 / 3.0)
    profile = DensityFunction(lambda p: np.maximum(edge**2 - p[:, 0] ** 2, 0.0), line())
    print(f"L1 error {l1(run, profile):.2e}, energy rise {run.certificate.energy_rise():.1e}")
    assert l1(run, profile) <= 1e-4


@pytest.mark.parametrize("stepper", [Explicit(), Implicit()])
def test_quadratic_attraction_with_newtonian_repulsion_becomes_uniform(stepper):
    domain = line(-2.0, 2.0)
    kernel = pair(domain, lambda x: 0.5 * x[:, 0] ** 2 - np.abs(x[:, 0]), lambda x: x - np.sign(x))
    run = FiniteVolume((200,), stepper=stepper).solve(Problem(alone(kernel), domain, bump(domain, 0.4, 0.0), (12.0,)))
    assert_certified(run)
    values, x = np.ravel(run.final.values), run.final.points[:, 0]
    assert values[np.abs(x) < 0.9] == pytest.approx(0.5, abs=2e-3)
    assert np.max(values[np.abs(x) > 1.1]) <= 1e-3


def test_the_log_gas_becomes_a_semicircle():
    domain, sizes, errors = line(-2.0, 2.0), [40, 80, 160, 320], []
    kernel = pair(domain, lambda x: 0.5 * x[:, 0] ** 2 - np.log(np.abs(x[:, 0])), lambda x: x - 1.0 / x)
    exact = DensityFunction(lambda p: np.sqrt(np.maximum(2.0 - p[:, 0] ** 2, 0.0)), domain)
    for cells in sizes:
        run = FiniteVolume((cells,), stepper=Implicit()).solve(Problem(alone(kernel), domain, bump(domain, 0.6, 0.0), (30.0,)))
        assert_certified(run)
        errors.append(l1(run, exact))
    assert observed_order(sizes, errors) >= 1.2


def test_a_gas_with_logarithmic_repulsion_in_the_plane_becomes_a_uniform_disk():
    domain = box(2, -1.6, 1.6)

    def value(x):
        square = np.sum(x**2, axis=1)
        return 0.5 * square - 0.5 * np.log(square)

    kernel = pair(domain, value, lambda x: x - x / np.sum(x**2, axis=1)[:, None])
    run = FiniteVolume((48, 48), tolerance=1e-6).solve(Problem(alone(kernel), domain, bump(domain, 0.5, 0.0), (8.0,)))
    assert_certified(run)
    radius = np.sqrt(np.sum(run.final.points**2, axis=1))
    values = np.ravel(run.final.values)
    assert values[radius < 0.8] == pytest.approx(1.0 / np.pi, rel=0.02)
    assert np.max(values[radius > 1.2]) <= 2e-3


def test_logarithmic_attraction_spreads_below_the_critical_mass_and_concentrates_above():
    domain = line(-8.0, 8.0)
    for strength in (1.0, 4.0):
        kernel = pair(domain, lambda x: np.log(np.abs(x[:, 0])), lambda x: 1.0 / x, strength)
        energy = EnergySum({"attraction": kernel, "entropy": Entropy(1.0)})
        run = FiniteVolume((256,), tolerance=1e-7).solve(Problem(energy, domain, bump(domain, 0.5, 0.0), (0.0, 0.03, 1.0)))
        assert_certified(run)
        second = [float(m.weights @ m.points[:, 0] ** 2) for m in run.measures]
        assert second[1] - second[0] == pytest.approx((2.0 - strength) * 0.03, rel=0.03)
        assert (second[2] > 2.0 * second[0]) == (strength == 1.0)
        assert (np.max(run.final.weights) > 0.1) == (strength == 4.0)


STARTS = {
    "bump": lambda domain: bump(domain),
    "half": lambda domain: DensityFunction(lambda p: 1.0 * (p[:, 0] < 0.0), domain),
    "one cell": lambda domain: DensityFunction(lambda p: 1.0 * (np.abs(p[:, 0] - 1.0) < 0.07), domain),
}
ENERGIES = {
    "ornstein-uhlenbeck": lambda domain: {"well": well(), "entropy": Entropy(0.1)},
    "porous 1.5": lambda domain: {"well": well(), "internal": Power(1.5)},
    "porous 2": lambda domain: {"well": well(), "internal": Power(2.0)},
    "porous 4": lambda domain: {"well": well(), "internal": Power(4.0)},
    "mixed": lambda domain: {"well": well(), "internal": Power(2.0), "entropy": Entropy(0.1)},
    "network": lambda domain: {"network": network(domain), "entropy": Entropy(0.01)},
    "newtonian": lambda domain: {
        "pairs": pair(domain, lambda x: 0.5 * x[:, 0] ** 2 - np.abs(x[:, 0]), lambda x: x - np.sign(x)),
        "entropy": Entropy(0.05),
    },
    "gaussian attraction": lambda domain: {
        "pairs": pair(domain, lambda x: -np.exp(-0.5 * x[:, 0] ** 2), lambda x: x * np.exp(-0.5 * x**2)),
        "internal": Power(2.0),
    },
}


@pytest.mark.parametrize("stepper", [ImplicitEuler(), Implicit()])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_implicit_steps_of_any_length_keep_their_promises(energy, start, stepper):
    domain = line()
    terms = EnergySum(ENERGIES[energy](domain))
    for dt in (1e-3, 1.0, 1e6):
        run = FiniteVolume((64,), stepper=stepper, step=dt).solve(Problem(terms, domain, STARTS[start](domain), (3.0 * dt,)))
        assert_certified(run, 1e-13)
        assert np.all(run.certificate["iterations"][1:] > 0)


@pytest.mark.parametrize(("stepper", "order", "allowance"), [(ImplicitEuler(), 1.0, 0.1), (Implicit(), 2.0, 0.15)])
@pytest.mark.parametrize("dimension", [1, 2])
def test_fixed_steps_converge_with_the_order_of_their_method(stepper, order, allowance, dimension):
    domain = box(dimension, -3.0, 3.0)
    tilt = np.array([[1.0, 0.6], [0.6, 1.0]])[:dimension, :dimension]
    potential = Potential(lambda p: 0.5 * np.einsum("ni,ij,nj->n", p, tilt, p), lambda p: p @ tilt)
    attraction = pair(domain, lambda x: -np.exp(-np.sum(x**2, axis=1)), lambda x: 2.0 * x * np.exp(-np.sum(x**2, axis=1))[:, None])
    energy = EnergySum({"potential": potential, "attraction": attraction, "entropy": Entropy(0.3)})

    def final(step: float, method=stepper):
        problem = Problem(energy, domain, bump(domain, 0.7), (0.8,))
        return FiniteVolume((24,) * dimension, stepper=method, step=step).solve(problem).final.weights

    counts = [8, 16, 32, 64]
    reference = final(0.8 / 1024, Implicit()) if dimension == 1 else final(0.8 / 256, Implicit())
    errors = [float(np.sum(np.abs(final(0.8 / count) - reference))) for count in counts]
    assert observed_order(counts, errors) == pytest.approx(order, abs=allowance)


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_smallest_grids_work_with_every_flux_and_stepper(cells, periodic):
    domain = Domain((Axis("theta", 0.0, 2.0 * np.pi, periodic),))
    energy = EnergySum({"wave": Potential(lambda p: np.cos(p[:, 0]), lambda p: -np.sin(p)), "entropy": Entropy(0.2)})
    start = DensityFunction(lambda p: 1.0 + 0.5 * np.sin(p[:, 0]), domain)
    for flux in (Upwind(), LimitedUpwind(), ScharfetterGummel(0.2)):
        for stepper in (Explicit(), Implicit(), ImplicitEuler()):
            run = FiniteVolume((cells,), flux=flux, stepper=stepper).solve(Problem(energy, domain, start, (5.0,)))
            assert_certified(run)


@pytest.mark.parametrize("temperature", [1e-8, 1e-3])
def test_neighbours_ten_orders_apart_and_tiny_temperatures(temperature):
    start = DensityFunction(lambda p: np.where(np.mod(np.floor(p[:, 0] * 12.5), 2) == 0, 1.0, 1e-10), line())
    energy = EnergySum({"well": well(), "entropy": Entropy(temperature)})
    for flux in (None, LimitedUpwind(), ScharfetterGummel(temperature)):
        run = FiniteVolume((100,), flux=flux).solve(Problem(energy, line(), start, (1.0,)))
        assert_certified(run)
