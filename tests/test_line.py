"""Marches on a line in compiled loops against the general way, and the direct solutions that they use."""

from collections.abc import Sequence

import numpy as np
import pytest

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Problem
from mfpde.energy import Energy, Entropy, Interaction, PairKernel, Potential, Power
from mfpde.march import Memory, march
from mfpde.run import Run, Status
from mfpde.solvers.finite_volume import LimitedUpwind, PressureUpwind, ScharfetterGummel, Upwind
from mfpde.solvers.finite_volume.model import Model
from mfpde.solvers.finite_volume.plane import Plane
from mfpde.solvers.kernels.line.bands import factor_five, factor_three, solve_five, solve_three
from mfpde.solvers.kernels.logarithm import logarithms

LINE = Domain((Axis("x", -3.0, 3.0),))
CONFINED = Potential(lambda p: 0.5 * p[:, 0] ** 2, lambda p: p)


def kernel(name: str) -> PairKernel:
    if name == "exponential":
        return PairKernel(LINE, lambda x: -np.exp(-np.abs(x[:, 0])), lambda x: np.sign(x) * np.exp(-np.abs(x)))
    return PairKernel(LINE, lambda x: -0.5 * x[:, 0] ** 2, lambda x: -x)


ENERGIES: dict[str, dict[str, Energy]] = {
    "linear": {"potential": CONFINED, "entropy": Entropy(0.3)},
    "powers": {"potential": CONFINED, "two": Power(2.0), "high": Power(3.5, 0.3)},
    "fast": {"potential": CONFINED, "fast": Power(0.7)},
    "exponential": {"power": Power(2.0), "interaction": Interaction(kernel("exponential"))},
    "quadratic": {"potential": CONFINED, "entropy": Entropy(0.5), "interaction": Interaction(kernel("quadratic"))},
    "all": {"potential": CONFINED, "entropy": Entropy(0.2), "cube": Power(3.0), "interaction": Interaction(kernel("exponential"))},
}


def both(terms: dict[str, Energy], choices: FiniteVolume, save: Sequence[float]) -> tuple[Run, Run]:
    """The run in compiled loops and the one without them."""
    start = DensityFunction(lambda p: np.exp(-2.0 * (p[:, 0] - 0.5) ** 2), LINE)
    problem = Problem(EnergySum(terms), LINE, start, tuple(save))
    runs = []
    for compiled in (True, False):
        flow, memory = choices.prepare(problem), Memory()
        assert flow.model.line is not None
        if not compiled:
            flow.model.line = None
        runs.append(memory.run(*march(flow, problem.save_at, memory), flow.notes))
    return runs[0], runs[1]


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("flux", ["default", "upwind", "limited", "pressure"])
def test_compiled_marches_make_the_steps_of_the_general_way(name: str, flux: str) -> None:
    terms = ENERGIES[name]
    chosen = {"default": None, "upwind": Upwind(), "limited": LimitedUpwind(), "pressure": PressureUpwind(slopes=1.7)}[flux]
    if flux == "default" and any(isinstance(term, Entropy) for term in terms.values()):
        chosen = ScharfetterGummel(sum(term.temperature for term in terms.values()))
    fast, slow = both(terms, FiniteVolume((48,), tolerance=1e-5, flux=chosen), (0.05, 1.0))
    assert fast.status is slow.status is Status.DONE
    stiff = name == "fast"
    for ours, theirs in zip(fast.measures, slow.measures, strict=True):
        assert np.sum(np.abs(ours.weights - theirs.weights)) <= (1e-5 if stiff else 1e-8)
    assert abs(len(fast.certificate) - len(slow.certificate)) <= (3 if stiff else 0)
    if not stiff:
        scale = np.max(np.abs(slow.certificate["energy"]))
        for column, bound in (("energy", 1e-4), ("dissipation", 1e-3), ("balance", 1e-4), ("mass", 1e-13), ("wall", 1e-4)):
            assert np.max(np.abs(fast.certificate[column] - slow.certificate[column])) <= bound * scale
    assert np.min(fast.certificate["minimum"]) >= 0.0
    assert fast.certificate.energy_rise() <= 1e-13
    assert fast.certificate.mass_drift() <= 1e-13


@pytest.mark.parametrize("slopes", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("periodic", [(False, False), (True, False), (False, True)])
def test_passes_over_planes_have_the_rates_of_single_axes(slopes: float, periodic: tuple[bool, bool]) -> None:
    domain = Domain(tuple(Axis(name, -2.0, 2.0, circle) for name, circle in zip("xy", periodic, strict=True)))
    energy = EnergySum({"cube": Power(3.0), "square": Power(2.0), "well": Potential(lambda p: np.cos(p[:, 0]) * p[:, 1] ** 2, lambda p: p)})
    random = np.random.default_rng(3)
    rho = np.maximum(random.uniform(-0.2, 1.0, (180, 190)), 0.0).ravel()
    flux = PressureUpwind(slopes=slopes) if slopes == 2.0 else LimitedUpwind() if slopes else Upwind()
    whole = Model(energy, domain.grid((180, 190)), flux, rho)
    assert isinstance(whole.compiled, Plane)
    single = Model(energy, domain.grid((180, 190)), flux, rho)
    single._plane = None
    found, expected = np.empty((2, rho.size))
    one, two = whole.evaluate(rho, found), single.evaluate(rho, expected)
    assert np.max(np.abs(found - expected)) <= 1e-12 * np.max(np.abs(expected))
    assert (one.energy, one.outflow, one.dissipation) == pytest.approx((two.energy, two.outflow, two.dissipation), rel=1e-12)
    step, least = 1e-7, single.forward(rho, 1e-7, expected, found)
    assert whole.forward(rho, step, expected, found) == pytest.approx(least, abs=1e-15)
    stages = [model.stage(rho, 0.25, found, step, np.empty(rho.size)) for model in (whole, single)]
    assert tuple(stages[0]) == pytest.approx(tuple(stages[1]), rel=1e-9, abs=1e-15)


def test_the_flux_follows_the_exponents_of_the_energy() -> None:
    assert PressureUpwind.of([]) == PressureUpwind.of([2.0, 5.0]) == PressureUpwind.of([0.5, 3.0]) == LimitedUpwind()
    assert [PressureUpwind.of([m]).slopes for m in (1.2, 1.5, 2.5, 3.0, 9.0)] == [0.5, 0.5, 1.5, 2.0, 3.0]
    assert PressureUpwind.of([3.0]).description.endswith("slopes of ρ^2")


def test_a_march_in_pieces_ends_at_every_saved_time() -> None:
    save = np.linspace(0.0, 0.3, 31)[1:]
    fast, slow = both(ENERGIES["linear"], FiniteVolume((64,), tolerance=1e-7), save)
    assert fast.times.tolist() == save.tolist()
    assert np.all(np.isin(save, fast.certificate["time"]))
    assert np.max(np.abs(fast.measures[-1].weights - slow.measures[-1].weights)) <= 1e-13


@pytest.mark.parametrize("size", range(3, 12))
def test_banded_systems_are_solved(size: int) -> None:
    random = np.random.default_rng(size)
    low, up = -random.random(size), -random.random(size)
    low[0] = up[-1] = 0.0
    operator = np.diag(low[1:], -1) + np.diag(up[:-1], 1)
    operator -= np.diag(np.sum(operator, axis=0))
    factors, right = np.empty((3, size)), random.random(size)
    factor_three(low, np.diag(operator).copy(), up, 10.0, factors)
    found = right.copy()
    solve_three(factors, found)
    assert np.allclose(found + 10.0 * operator @ found, right, rtol=0.0, atol=1e-13)
    bands = random.random((size, 5))
    bands[:, 2] += 5.0
    matrix = np.zeros((size, size))
    for i in range(size):
        for j in range(max(i - 2, 0), min(i + 3, size)):
            matrix[i, j] = bands[i, j - i + 2]
    factor_five(bands)
    found = right.copy()
    solve_five(bands, found)
    assert np.allclose(matrix @ found, right, rtol=0.0, atol=1e-13)


def test_logarithms_are_those_of_the_library_to_the_last_place() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([10.0 ** random.uniform(-300.0, 300.0, 20000), 1.0 + random.uniform(-1e-3, 1e-3, 20000), [1.0, 0.0, 1e-320]])
    scratch, found = np.empty_like(values), np.empty_like(values)
    logarithms(values, scratch, found)
    exact = np.log(np.maximum(values, 1e-300))
    assert np.max(np.abs(found - exact) / np.spacing(np.abs(exact) + 1e-300)) <= 1.0
    assert found[-3] == 0.0


def solved(terms: dict[str, Energy], domain: Domain, start: DensityFunction, choices: FiniteVolume, save: Sequence[float]) -> Run:
    return choices.solve(Problem(EnergySum(terms), domain, start, tuple(save)))


@pytest.mark.parametrize(("strength", "temperature", "centre", "cells", "end"), [(40.0, 3e-4, 0.35, 24, 100.0), (80.0, 1e-3, 0.2, 33, 1e4)])
def test_strong_attraction_against_weak_noise_comes_to_rest(
    strength: float, temperature: float, centre: float, cells: int, end: float
) -> None:
    domain = Domain((Axis("x", 0.0, 1.0),))
    pull = PairKernel(domain, lambda x: 0.5 * x[:, 0] ** 2, lambda x: x, strength)
    start = DensityFunction(lambda p: np.exp(-30.0 * (p[:, 0] - centre) ** 2), domain)
    run = solved({"pull": Interaction(pull), "noise": Entropy(temperature)}, domain, start, FiniteVolume((cells,)), (1.0, end))
    assert run.status is Status.DONE, run.message
    assert len(run.certificate) < 600
    assert run.certificate.energy_rise() <= 1e-13
    assert run.certificate["dissipation"][-1] <= 1e-12


@pytest.mark.parametrize(("exponent", "cells"), [(2.0, 1000), (0.5, 200)])
def test_the_mass_of_cells_that_round_alike_does_not_drift(exponent: float, cells: int) -> None:
    start = DensityFunction(lambda p: (np.abs(p[:, 0] - 1.0) < 0.1) + (1e-13 if exponent > 1.0 else 0.0), LINE)
    run = solved({"well": CONFINED, "power": Power(exponent)}, LINE, start, FiniteVolume((cells,)), (0.1,))
    assert run.status is Status.DONE
    assert run.certificate.mass_drift() <= 2e-14


def test_a_fitted_flux_for_another_temperature_is_refused() -> None:
    start = DensityFunction(lambda p: np.exp(-(p[:, 0] ** 2)), LINE)
    for terms in ({"well": CONFINED, "noise": Entropy(0.3)}, {"well": CONFINED}):
        with pytest.raises(ValueError, match=r"the flux is for temperature 0\.1, the energy's is"):
            FiniteVolume((8,), flux=ScharfetterGummel(0.1)).prepare(Problem(EnergySum(terms), LINE, start, (1.0,)))
