"""Stationary states: the equation itself, exact profiles, the phase transition of Desai and Zwanzig, long runs of the flow."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import alone, box, line, network, observed_order
from scipy.integrate import quad
from scipy.optimize import brentq

from mfpde.arrays import FloatArray
from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem, build_solver
from mfpde.cli import main
from mfpde.disk import Disk
from mfpde.domain import Axis, Domain, Grid
from mfpde.energy import EnergySum, Entropy, Potential, Power
from mfpde.march import Memory, march, state_values
from mfpde.measure import DensityFunction, Particles, mean
from mfpde.problem import Problem
from mfpde.run import Run, Status
from mfpde.solvers import FiniteVolume, Stationary, critical_temperature
from mfpde.solvers.finite_volume import Explicit
from mfpde.solvers.stationary.local import local_part
from mfpde.storage import ResultError, read_run, write_run

Function = Callable[[FloatArray], FloatArray]


class GridKernel:
    """½⟨ρ, Kρ⟩ with a dense symmetric matrix; with factors if they are given."""

    temperature = 0.0

    def __init__(self, matrix: FloatArray, weight: FloatArray, factors: tuple[FloatArray, FloatArray] | None) -> None:
        self.matrix, self.weight, self.factors = matrix, weight, factors
        self.linear = np.zeros(len(matrix))
        values, vectors = np.linalg.eigh(matrix)
        self.convex = bool(values.min() >= -1e-12 * np.abs(values).max())
        self.concave = (vectors * np.maximum(-values, 0.0)) @ vectors.T

    def apply(self, rho: FloatArray, out: FloatArray) -> None:
        out += self.matrix @ (self.weight * rho)

    def apply_concave(self, rho: FloatArray, out: FloatArray) -> None:
        out += self.concave @ (self.weight * rho)

    def value(self, rho: FloatArray) -> float:
        return 0.5 * float((self.weight * rho) @ self.matrix @ (self.weight * rho))

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        self.apply(rho, xi)
        return self.value(rho)


class Pairs:
    """½∬W(x − y)ρρ on grids, for tests: W of the difference (..., d); ``strength`` gives W = strength |x|²/2 with its factors."""

    temperature = 0.0

    def __init__(self, kernel: Function | None = None, strength: float | None = None) -> None:
        self.kernel, self.strength = kernel, strength

    def on(self, grid: Grid) -> GridKernel:
        x, weight = grid.centers, np.broadcast_to(grid.weight, (grid.size,)).copy()
        if self.kernel is not None:
            return GridKernel(self.kernel(grid.domain.displacement(x[:, None], x[None])), weight, None)
        assert self.strength is not None
        half = 0.5 * np.sum(x**2, axis=1)
        rows = np.sqrt(abs(self.strength)) * np.array([half + 0.5, half - 0.5, *x.T])
        signs = np.sign(self.strength) * np.array([1.0, -1.0] + [-1.0] * x.shape[1])
        return GridKernel((rows.T * signs) @ rows, weight, (rows, signs))


def potential(function: Function) -> Potential:
    return Potential(function, lambda p: np.zeros_like(p))


WELLS = potential(lambda p: p[:, 0] ** 4 / 4 - p[:, 0] ** 2 / 2)


def bump(domain: Domain, centre: float = 0.0) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1)), domain)


def desai_zwanzig(temperature: float, strength: float = 1.0, centre: float = 0.0, **kernel: Function) -> Problem:
    domain = line()
    pairs = Pairs(**kernel) if kernel else Pairs(strength=strength)  # type: ignore[arg-type]
    energy = EnergySum({"wells": WELLS, "pairs": pairs, "entropy": Entropy(temperature)})  # type: ignore[dict-item]
    return Problem(energy, domain, bump(domain, centre), (1.0,))


def solved(energy: dict[str, object], initial: DensityFunction | Particles, domain: Domain, solver: Stationary) -> Run:
    run = solver.solve(Problem(EnergySum(energy), domain, initial, (1.0,)))  # type: ignore[arg-type]
    assert run.status is Status.DONE, run.message
    return run


def values(run: Run) -> FloatArray:
    return np.ravel(run.final.values)  # type: ignore[union-attr]


def column(run: Run, name: str) -> FloatArray:
    return run.tables[f"branches/{name}"]


# --- the stationarity equation ------------------------------------------------------------------------------------------


def test_without_interaction_the_state_is_that_of_gibbs():
    domain = line(-3.0, 3.0)
    run = solved({"v": potential(lambda p: p[:, 0] ** 2 / 2), "entropy": Entropy(0.3)}, bump(domain), domain, Stationary((200,)))
    x = Grid(domain, (200,)).centers[:, 0]
    exact = np.exp(-(x**2) / 0.6)
    exact /= exact.sum() * 6.0 / 200
    assert np.max(np.abs(values(run) / exact - 1.0)) < 1e-13
    assert run.certificate["dissipation"][-1] < 1e-25


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01, 1e-3, 1e-5])
def test_a_noisy_network_is_stationary_at_all_temperatures(temperature):
    domain = line(-4.5, 4.5)
    energy = EnergySum({"net": network(domain), "entropy": Entropy(temperature)})
    problem = Problem(energy, domain, DensityFunction(lambda p: np.cos(np.pi * p[:, 0] / 9) ** 2, domain), (1.0,))
    run = Stationary((512,)).solve(problem)
    rho = values(run)
    total = energy.first_variation(run.final, run.final.points)
    held = rho > 1e-250
    assert run.status is Status.DONE
    assert np.ptp(total[held]) < 1e-10
    assert abs(run.final.mass - 1.0) < 1e-13
    assert any("convex" in note for note in run.notes)


def test_the_duality_gap_bounds_the_distance_to_the_minimum():
    domain = line(-4.5, 4.5)
    run = solved({"net": network(domain), "entropy": Entropy(0.01)}, bump(domain), domain, Stationary((256,)))
    gap = next(float(note.split()[-1]) for note in run.notes if "duality gap" in note)
    energy = EnergySum({"net": network(domain), "entropy": Entropy(0.01)}).on(Grid(domain, (256,)))
    generator = np.random.default_rng(0)
    best, rho = energy.value(values(run)), values(run)
    assert 0.0 <= gap < 1e-25
    for size in (1e-1, 1e-3):
        other = rho * (1.0 + size * generator.uniform(-1.0, 1.0, rho.shape))
        assert energy.value(other * rho.sum() / other.sum()) > best


def test_the_noisy_network_is_where_a_long_explicit_run_ends():
    domain = line(-2.0, 2.0)
    energy = EnergySum({"net": network(domain), "entropy": Entropy(0.1)})
    problem = Problem(energy, domain, DensityFunction(lambda p: np.cos(np.pi * p[:, 0] / 4) ** 2, domain), (250.0,))
    long = FiniteVolume((32,), stepper=Explicit()).solve(problem)
    direct = Stationary((32,)).solve(problem)
    assert list(direct.times) == [250.0]
    assert np.max(np.abs(values(long) - values(direct))) < 1e-9
    assert long.total_energy[-1] == pytest.approx(direct.total_energy[-1], abs=1e-13)


@pytest.mark.parametrize("powers", [((2.0, 0.5),), ((0.5, 1.0),), ((1.5, 0.1), (3.0, 2.0)), ((0.7, 1.0), (2.0, 1.0))])
@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.5])
def test_the_local_answer_solves_its_equation_and_is_the_minimum(powers, temperature):
    grid = Grid(line(-1.0, 1.0), (40,))
    local = local_part(grid, temperature, powers)
    phi = np.sin(3.0 * grid.centers[:, 0]) + grid.centers[:, 0] ** 2
    found = local.answer(phi)
    force = temperature * np.log(np.maximum(found.rho, 1e-300)) + phi
    force += sum(c * m / (m - 1.0) * np.maximum(found.rho, 1e-300) ** (m - 1.0) for m, c in powers)
    held = found.rho > 1e-280
    assert np.ptp(force[held]) < 1e-13 * max(1.0, np.max(np.abs(force[held])))
    assert np.all(force[~held] >= force[held].max() - 1e-12)
    assert float(local.weight @ found.rho) == pytest.approx(1.0, abs=1e-14)
    value = sum(c / (m - 1.0) * np.sum(local.weight * found.rho**m) for m, c in powers) + float(local.weight @ (phi * found.rho))
    value += temperature * float(local.weight @ (found.rho * np.log(np.maximum(found.rho, 1e-300))))
    assert found.value == pytest.approx(value, rel=1e-13)
    inside = found.rho > 1e-3
    push = np.where(inside, np.cos(5.0 * grid.centers[:, 0]), 0.0)
    change = (local.answer(phi + 1e-6 * push).rho - local.answer(phi - 1e-6 * push).rho) / 2e-6
    share = found.slope * local.weight
    expected = -found.slope * (push - share @ push / share.sum())
    assert np.max(np.abs(change - expected)[inside]) < 1e-4 * np.max(np.abs(expected))


# --- Desai and Zwanzig ----------------------------------------------------------------------------------------------------


def exact_critical_temperature(strength: float) -> float:
    """Where κ ∫x²ρ = T for ρ ∝ exp(−(x⁴/4 − x²/2 + κx²/2)/T)."""

    def excess(temperature: float) -> float:
        def gibbs(x: float) -> float:
            return float(np.exp(-(x**4 / 4 + (strength - 1.0) * x**2 / 2) / temperature))

        mass, second = (quad(f, -12.0, 12.0, epsabs=1e-13, epsrel=1e-13, limit=400)[0] for f in (gibbs, lambda x: x**2 * gibbs(x)))
        return strength * second / mass - temperature

    return float(brentq(excess, 0.05, 3.0, xtol=1e-13))


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_critical_temperature_is_that_of_the_scalar_equation(strength):
    found = critical_temperature(lambda t: desai_zwanzig(t, strength), 0.1, 2.0, Stationary((160,), starts=5), digits=7)
    print(f"κ = {strength}: {found.value:.9f}, exact {exact_critical_temperature(strength):.9f}")
    assert found.value == pytest.approx(exact_critical_temperature(strength), abs=5e-7)
    assert (found.stable_above, found.stable_below) == (1, 2)


def test_below_the_critical_temperature_there_are_two_stable_states_and_an_unstable_one():
    run = Stationary((200,), starts=8).solve(desai_zwanzig(0.2))
    means, stable, energy = column(run, "mean")[:, 0], column(run, "stable"), column(run, "energy")
    order = np.argsort(means)
    assert len(means) == 3
    assert list(stable[order]) == [1.0, 0.0, 1.0]
    assert means[order[0]] == pytest.approx(-means[order[2]], abs=1e-10)
    assert energy[order[0]] == pytest.approx(energy[order[2]], abs=1e-12)
    assert energy[order[0]] < energy[order[1]]
    assert np.all(column(run, "residual") < 1e-12)
    m = float(means[order[2]])
    weight = lambda x: np.exp(-(x**4 / 4 - m * x) / 0.2)
    x = np.linspace(-4.0, 4.0, 4001)
    assert np.sum(x * weight(x)) / np.sum(weight(x)) == pytest.approx(m, abs=1e-10)
    assert sum("branch" in note for note in run.notes) == 3
    assert "unstable" in run.notes[1 + int(order[1])]


def test_a_symmetric_start_ends_in_the_symmetric_state_and_a_lopsided_one_does_not():
    symmetric = Stationary((200,)).solve(desai_zwanzig(0.2))
    lopsided = Stationary((200,)).solve(desai_zwanzig(0.2, centre=0.05))
    assert abs(float(mean(symmetric.final)[0])) < 1e-10
    assert float(mean(lopsided.final)[0]) == pytest.approx(0.8514787, abs=1e-6)
    lowest = Stationary((200,), select="lowest").solve(desai_zwanzig(0.2))
    assert abs(float(mean(lowest.final)[0])) == pytest.approx(0.8514787, abs=1e-6)
    assert column(lowest, "stored").sum() == 1.0


def test_the_flow_ends_in_the_state_that_its_start_leads_to():
    start = desai_zwanzig(0.3, centre=0.1)
    problem = Problem(start.energy, start.domain, start.initial, (0.0, 60.0))
    flow, direct = FiniteVolume((64,)).solve(problem), Stationary((64,)).solve(problem)
    assert np.max(np.abs(values(flow) - values(direct))) < 1e-6


@pytest.mark.parametrize("temperature", [0.6, 0.2, 0.02])
def test_a_kernel_without_factors_gives_the_same_states(temperature, monkeypatch):
    solver = Stationary((120,), starts=4)
    factored = solver.solve(desai_zwanzig(temperature, centre=0.3))
    dense = solver.solve(desai_zwanzig(temperature, centre=0.3, kernel=lambda d: 0.5 * d[..., 0] ** 2))
    monkeypatch.setattr("mfpde.solvers.stationary.coupling._MOST_DENSE", 10)
    products = solver.solve(desai_zwanzig(temperature, centre=0.3, kernel=lambda d: 0.5 * d[..., 0] ** 2))
    assert "in all cells" in products.notes[0]
    for other in (dense, products):
        assert np.max(np.abs(values(other) - values(factored))) < 1e-10
        assert len(column(other, "energy")) == len(column(factored, "energy"))
        assert column(other, "eigenvalue") == pytest.approx(column(factored, "eigenvalue"), abs=1e-8)


def test_the_eigenvalue_is_that_of_the_second_variation():
    run = Stationary((60,), starts=2).solve(desai_zwanzig(0.2, centre=0.3))
    grid = Grid(line(), (60,))
    kernel = Pairs(strength=1.0).on(grid).matrix
    for rho, eigenvalue in zip(column(run, "density"), column(run, "eigenvalue"), strict=True):
        root = np.sqrt(rho * grid.cell_volume)
        matrix = 0.2 * np.eye(60) + root[:, None] * kernel * root
        off = np.eye(60) - np.outer(root, root)
        exact = np.linalg.eigvalsh(off @ matrix @ off + 1e3 * np.outer(root, root))[0]
        assert 0.2 * eigenvalue == pytest.approx(exact, abs=1e-11)


def test_an_eigenvalue_that_takes_too_many_steps_is_bounded_from_below(monkeypatch):
    from mfpde.solvers.stationary import coupling

    values = np.linspace(-1.0, 1.0, 400)
    assert coupling._lanczos(lambda v: values * v, 400) == pytest.approx(-1.0, abs=1e-9)
    monkeypatch.setattr(coupling, "_LANCZOS_STEPS", 20)
    assert -1.2 < coupling._lanczos(lambda v: values * v, 400) <= -1.0


def test_a_critical_temperature_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"must be unstable at temperature 0\.8"):
        critical_temperature(desai_zwanzig, 0.8, 2.0, Stationary((60,), starts=2))
    with pytest.raises(ValueError, match=r"must be stable at temperature 0\.3"):
        critical_temperature(desai_zwanzig, 0.1, 0.3, Stationary((60,), starts=2))
    with pytest.raises(ValueError, match="convex at every temperature"):
        critical_temperature(lambda t: desai_zwanzig(t, -1.0), 0.1, 2.0, Stationary((60,)))
    with pytest.raises(ValueError, match="0 < low < high"):
        critical_temperature(desai_zwanzig, 2.0, 1.0, Stationary((60,)))
    with pytest.raises(ValueError, match="must have that temperature"):
        critical_temperature(lambda t: desai_zwanzig(0.5), 0.1, 2.0, Stationary((60,)))


# --- other domains ----------------------------------------------------------------------------------------------------------


def kuramoto(temperature: float, centre: float | None = None) -> Problem:
    domain = Domain((Axis("phi", -np.pi, np.pi, periodic=True),))
    initial = DensityFunction(lambda p: np.ones(len(p)) if centre is None else 1.5 + np.cos(p[:, 0] - centre), domain)
    energy = EnergySum({"pairs": Pairs(lambda d: -np.cos(d[..., 0])), "entropy": Entropy(temperature)})  # type: ignore[dict-item]
    return Problem(energy, domain, initial, (1.0,))


def test_noisy_oscillators_synchronise_below_one_half():
    found = critical_temperature(kuramoto, 0.2, 0.9, Stationary((48,), starts=4))
    assert found.value == pytest.approx(0.5, abs=1e-7)
    assert (found.stable_above, found.stable_below) == (1, 1)


def test_states_that_a_rotation_carries_into_one_another_are_one_neutral_branch():
    run = Stationary((48,), starts=7).solve(kuramoto(0.3, 0.7))
    assert sorted(column(run, "stable")) == [0.0, 1.0]
    assert "neutral" in run.notes[1]
    phi, rho = Grid(run.final.grid.domain, (48,)).centers[:, 0], values(run)  # type: ignore[union-attr]
    order = abs(np.sum(np.exp(1j * phi) * rho)) * 2.0 * np.pi / 48
    shape = np.exp(order * np.cos(phi) / 0.3)
    assert np.sum(np.cos(phi) * shape) / np.sum(shape) == pytest.approx(order, abs=1e-12)


def test_a_plane_that_separates_has_the_product_of_the_states_on_lines():
    plane, first, second = box(2, -3.0, 3.0), line(-3.0, 3.0), line(-3.0, 3.0)
    wells = potential(lambda p: p[:, 0] ** 4 / 4 - p[:, 0] ** 2 / 2 + p[:, 1] ** 2)
    entropy = Entropy(0.25)
    solver = Stationary((40, 30), starts=4)
    run = solved({"v": wells, "w": Pairs(strength=1.0), "t": entropy}, bump(plane, 0.3), plane, solver)
    parts = [
        solved({"v": v, "w": Pairs(strength=1.0), "t": entropy}, bump(domain, 0.3), domain, Stationary((cells,), starts=1))
        for v, domain, cells in ((WELLS, first, 40), (potential(lambda p: p[:, 0] ** 2), second, 30))
    ]
    assert np.max(np.abs(values(run) - np.outer(values(parts[0]), values(parts[1])).ravel())) < 1e-11


def test_cells_of_frozen_axes_keep_their_mass_and_have_levels_of_their_own():
    domain = Domain((Axis("s", 0.0, 1.0, frozen=True), Axis("x", -3.0, 3.0)))
    initial = DensityFunction(lambda p: (1.0 + p[:, 0]) * np.exp(-(p[:, 1] ** 2)), domain)
    tilted = potential(lambda p: p[:, 1] ** 2 / 2 + p[:, 0] * p[:, 1])
    run = solved({"v": tilted, "t": Entropy(0.3)}, initial, domain, Stationary((5, 80)))
    s, x = Grid(domain, (5, 80)).middles(0), Grid(domain, (5, 80)).middles(1)
    shape = np.exp(-(x**2 / 2 + s[:, None] * x) / 0.3)
    exact = shape / shape.sum(axis=1, keepdims=True) * ((1.0 + s) / 1.5)[:, None] * 80 / 6.0
    assert np.max(np.abs(values(run) - exact.ravel())) < 1e-12


def test_a_disk_has_cells_of_different_volumes():
    disk = Disk(("a", "b"), 2.0)
    run = solved({"v": potential(lambda p: np.sum(p**2, axis=1)), "t": Entropy(0.5)}, bump(disk, 0.2), disk, Stationary((20, 16)))
    radius = np.linalg.norm(run.final.points, axis=1)
    shape = np.exp(-2.0 * radius**2)
    exact = shape / np.sum(shape * disk.grid((20, 16)).weight)
    assert np.max(np.abs(values(run) / exact - 1.0)) < 1e-13
    wells = potential(lambda p: p[:, 0] ** 4 / 4 - p[:, 0] ** 2 / 2 + p[:, 1] ** 2)
    run = solved({"v": wells, "w": Pairs(strength=1.0), "t": Entropy(0.1)}, bump(disk, 0.2), disk, Stationary((16, 16), starts=4))
    assert column(run, "stable").sum() == 2.0


@pytest.mark.parametrize("cells", [1, 2])
def test_few_cells_are_enough(cells):
    run = Stationary((cells,)).solve(desai_zwanzig(0.2))
    assert run.status is Status.DONE
    assert run.final.mass == pytest.approx(1.0, abs=1e-14)
    assert np.all(np.isfinite(column(run, "eigenvalue")))
    one = solved({"net": network(line()), "t": Entropy(0.1)}, bump(line()), line(), Stationary((cells,)))
    assert one.final.mass == pytest.approx(1.0, abs=1e-14)


def test_initial_atoms_give_the_mass():
    atoms = Particles(np.array([[0.3], [1.2]]), np.array([1.5, 0.5]))
    run = solved({"v": WELLS, "t": Entropy(0.1)}, atoms, line(), Stationary((64,)))
    assert run.final.mass == pytest.approx(2.0, abs=1e-13)


# --- powers of the density --------------------------------------------------------------------------------------------------


def test_a_porous_medium_in_a_bowl_has_the_profile_of_barenblatt():
    domain, sizes, errors = line(-3.0, 3.0), list(range(40, 400, 22)), []
    level = float(brentq(lambda mu: 2.0 / 3.0 * mu * np.sqrt(2.0 * mu) - 1.0, 0.1, 9.0, xtol=1e-15))
    for cells in sizes:
        run = solved({"v": potential(lambda p: p[:, 0] ** 2 / 2), "p": Power(2.0)}, bump(domain), domain, Stationary((cells,)))
        exact = 0.5 * np.maximum(level - run.final.points[:, 0] ** 2 / 2, 0.0)
        errors.append(float(np.mean(np.abs(values(run) - exact))))
        assert np.max(column(run, "residual")) < 1e-13
    assert observed_order(sizes, errors) == pytest.approx(2.0, abs=0.25)


def test_a_porous_medium_with_attraction_has_compact_support_and_a_second_order_profile():
    """W = x²/2 of total mass one is the bowl around the mean."""
    domain = line(-3.0, 3.0)
    run = solved({"w": Pairs(strength=1.0), "p": Power(2.0)}, bump(domain, 0.5), domain, Stationary((160,), starts=1))
    centre = float(mean(run.final)[0])
    level = float(brentq(lambda mu: 2.0 / 3.0 * mu * np.sqrt(2.0 * mu) - 1.0, 0.1, 9.0, xtol=1e-15))
    exact = 0.5 * np.maximum(level - (run.final.points[:, 0] - centre) ** 2 / 2, 0.0)
    assert np.max(np.abs(values(run) - exact)) < 1e-3
    assert np.sum(values(run) == 0.0) > 40


def test_entropy_and_powers_together_are_stationary():
    domain = line(-3.0, 3.0)
    terms = {"net": network(domain), "t": Entropy(1e-2), "p": Power(3.0, 0.1), "q": Power(1.5, 0.01)}
    run = solved(terms, bump(domain), domain, Stationary((128,)))
    total = EnergySum(terms).first_variation(run.final, run.final.points)
    assert np.ptp(total) < 1e-11


def level_state(phi: FloatArray, volume: float, temperature: float, powers: list[tuple[float, float]]) -> FloatArray:
    """Cell by cell and then for the level, by Brent's method."""

    def force(log_rho: float) -> float:
        return temperature * log_rho + sum(c * m * np.exp((m - 1.0) * log_rho) / (m - 1.0) for m, c in powers)

    full = -np.log(volume)

    def density(level: float) -> FloatArray:
        return np.exp([brentq(lambda s, v=v: force(s) - level + v, -650.0, full + 1.0, xtol=1e-14) for v in phi])

    top = np.min(phi) + force(full)
    level = brentq(lambda mu: np.sum(density(mu)) * volume - 1.0, top - 20.0, top, xtol=1e-300, rtol=1e-14)
    return density(float(level))


@pytest.mark.parametrize(
    ("temperature", "powers", "cells"),
    [
        (0.0, [(0.2, 0.1)], 20),
        (0.0, [(0.2, 0.1)], 40),
        (0.0, [(0.2, 0.1)], 80),
        (0.0, [(0.5, 1e-4)], 40),
        (0.0, [(0.95, 0.01)], 40),
        (0.0, [(0.5, 0.05), (3.0, 0.1)], 40),
        (1e-4, [(0.5, 0.05)], 40),
        (1e-2, [(0.2, 0.1)], 40),
        (1e-5, [(0.3, 0.05), (2.0, 0.01)], 40),
    ],
)
def test_fast_diffusion_in_two_wells_has_the_level_that_the_mass_gives(temperature, powers, cells):
    domain = line(-2.5, 2.5)
    terms = {"v": WELLS, **{f"p{k}": Power(*power) for k, power in enumerate(powers)}}
    if temperature > 0.0:
        terms["t"] = Entropy(temperature)
    run = solved(terms, bump(domain, 0.3), domain, Stationary((cells,)))
    x = run.final.points[:, 0]
    exact = level_state(x**4 / 4 - x**2 / 2, 5.0 / cells, temperature, powers)
    assert run.status is Status.DONE
    assert np.max(np.abs(values(run) / exact - 1.0)) < 1e-9
    assert np.max(column(run, "residual")) < 1e-12


def test_fast_diffusion_in_a_steep_bowl_is_quick():
    domain, start = line(-2.5, 2.5), time.perf_counter()
    run = solved({"v": potential(lambda p: 3.0 * (p[:, 0] - 0.03) ** 2), "p": Power(0.5, 0.05)}, bump(domain), domain, Stationary((80,)))
    assert time.perf_counter() - start < 5.0
    exact = level_state(3.0 * (run.final.points[:, 0] - 0.03) ** 2, 5.0 / 80, 0.0, [(0.5, 0.05)])
    assert np.max(np.abs(values(run) / exact - 1.0)) < 1e-11
    assert np.max(column(run, "residual")) < 1e-12


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_fast_diffusion_with_attraction_has_the_branches_of_the_equation_for_the_mean(strength):
    """W = s x²/2 of total mass one adds s x²/2 − s a x with the mean a, of which the state must have that mean."""
    domain, start, wells = line(-2.5, 2.5), time.perf_counter(), lambda x: x**4 / 4 - x**2 / 2 + strength * x**2 / 2
    run = solved({"v": WELLS, "w": Pairs(strength=strength), "p": Power(0.5, 0.1)}, bump(domain, 0.3), domain, Stationary((40,), starts=6))
    assert time.perf_counter() - start < 20.0
    assert run.status is Status.DONE
    x = run.final.points[:, 0]
    assert np.max(column(run, "residual")) < 1e-12
    assert sorted(column(run, "stable")) == [0.0, 1.0, 1.0]
    for rho, eigenvalue in zip(column(run, "density"), column(run, "eigenvalue"), strict=True):
        centre = float(x @ rho) * 5.0 / 40
        exact = level_state(wells(x) - strength * centre * x, 5.0 / 40, 0.0, [(0.5, 0.1)])
        assert np.max(np.abs(rho / exact - 1.0)) < 1e-9
        slope = rho**1.5 / 0.05 * 5.0 / 40  # −dρ/dφ at a fixed level, times the volume
        variance = slope @ x**2 - (slope @ x) ** 2 / np.sum(slope)
        assert eigenvalue == pytest.approx(1.0 - strength * variance, abs=1e-9)


# --- what can go wrong ------------------------------------------------------------------------------------------------------


class Cubic:
    """(∫x dρ)³: neither linear nor quadratic nor local."""

    temperature = 0.0

    def on(self, grid: Grid) -> "Cubic":
        return self

    def value(self, rho: FloatArray) -> float:
        return 0.0

    def add_drift(self, rho: FloatArray, xi: FloatArray) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"starts": 0}, "starts must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"select": "best"}, "select must be"),
    ],
)
def test_wrong_choices_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        Stationary((8,), **choices)


def test_problems_without_stationary_densities_are_refused():
    domain = line()
    with pytest.raises(ValueError, match="need an entropy or a power"):
        Stationary((8,)).prepare(Problem(alone(WELLS), domain, bump(domain), (1.0,)))
    energy = EnergySum({"cube": Cubic(), "t": Entropy(1.0)})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="cube is none of these"):
        Stationary((8,)).prepare(Problem(energy, domain, bump(domain), (1.0,)))
    with pytest.raises(ValueError, match="last saved time, which must be positive"):
        Stationary((8,)).prepare(Problem(alone(Entropy(1.0)), domain, bump(domain), (0.0,)))


def test_what_does_not_converge_is_a_status(monkeypatch):
    monkeypatch.setattr("mfpde.solvers.stationary.search.Equation.solve", lambda self, x, tolerance, dual: (self.point(x), False))
    run = Stationary((64,)).solve(desai_zwanzig(0.2, centre=0.3))
    assert run.status is Status.NOT_CONVERGED
    assert "from the initial density" in run.message
    assert not run.measures


@pytest.mark.parametrize("local", [{"t": Entropy(0.2)}, {"p": Power(2.0, 0.2)}, {"p": Power(0.5, 0.1)}])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_density_that_is_not_stationary_is_never_a_converged_one(monkeypatch, local, strength):
    """Whatever the search believes: the chemical potential decides."""
    from mfpde.solvers.stationary.local import Local

    answer = Local.answer

    def wrong(self, phi):
        response = answer(self, phi)
        return replace(response, rho=self.scaled(response.rho * (1.0 + 1e-6 * np.cos(np.arange(phi.size)))))

    monkeypatch.setattr(Local, "answer", wrong)
    energy = EnergySum({"v": WELLS, "w": Pairs(strength=strength), **local})
    run = Stationary((40,), starts=2).solve(Problem(energy, line(), bump(line(), 0.3), (1.0,)))
    assert run.status is Status.NOT_CONVERGED
    assert "error of" in run.message


@pytest.mark.parametrize("power", [Power(2.0), Power(0.5)])
def test_a_level_that_is_not_found_is_a_status(monkeypatch, power):
    monkeypatch.setattr("mfpde.solvers.stationary.local._MOST", 3)
    energy = EnergySum({"v": WELLS, "p": power})
    run = Stationary((40,)).solve(Problem(energy, line(), bump(line(), 0.3), (1.0,)))
    assert run.status is Status.NOT_CONVERGED


def test_starts_that_fail_are_named_and_do_not_hide_the_others(monkeypatch):
    from mfpde.solvers.stationary import branches

    search = branches.find

    def failing(system, rho, tolerance):
        found = search(system, rho, tolerance)
        return found if float(rho[0]) < 1e-3 else branches.Found(found.point, False, 1.0)

    monkeypatch.setattr(branches, "find", failing)
    run = Stationary((64,)).solve(desai_zwanzig(0.2, centre=0.3))
    assert run.status is Status.DONE
    assert any(note.startswith("not converged from uniform: error") for note in run.notes)


def test_warnings_say_what_the_state_depends_on():
    wide = solved({"t": Entropy(1.0)}, bump(line()), line(), Stationary((64,)))
    assert any("mass lies in the cells at walls" in note for note in wide.notes)
    narrow = solved({"v": WELLS, "w": Pairs(strength=1.0), "t": Entropy(1e-5)}, bump(line(), 0.3), line(), Stationary((64,), starts=1))
    assert any("hardly wider than a cell" in note for note in narrow.notes)


# --- as a solver of the program -----------------------------------------------------------------------------------------------

CASE = """title = "Two wells"

[domain.x]
lower = -4.0
upper = 4.0

[[energy]]
kind = "potential"
density = "x**4/4 - x**2/2"

[[energy]]
kind = "interaction"
kernel = "x**2/2"

[[energy]]
kind = "entropy"
temperature = 0.2

[initial]
density = "exp(-x**2)"

[time]
save = [0.0, 0.5]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [40]

[[solver]]
kind = "stationary"
label = "direct"
cells = [80]
starts = 5
"""


def test_a_resumed_run_has_the_same_branches():
    problem = desai_zwanzig(0.2, centre=0.3)
    memory, flow = Memory(), Stationary((64,), starts=4).prepare(problem)
    march(flow, problem.save_at, memory)
    again = Stationary((64,), starts=4).prepare(problem)
    state = again.restore(state_values(flow.advance(flow.start(), 1.0)))
    assert again.notes == flow.notes
    assert np.array_equal(np.ravel(again.measure(state).values), np.ravel(memory.frames[0].measure.values))  # type: ignore[union-attr]
    assert all(np.array_equal(again.tables[name], flow.tables[name]) for name in flow.tables)


def test_branches_are_stored_and_read_back(tmp_path: Path):
    run = Stationary((64,), starts=4).solve(desai_zwanzig(0.2, centre=0.3))
    write_run(tmp_path / "a.h5", run, line())
    back = read_run(tmp_path / "a.h5").run
    assert back.tables.keys() == run.tables.keys()
    assert all(np.array_equal(back.tables[name], run.tables[name]) for name in run.tables)
    assert column(back, "density").shape == (len(column(back, "energy")), 64)


@pytest.mark.parametrize("damage", ["unlisted", "unlisted columns", "missing", "missing column", "short"])
def test_branches_that_do_not_fit_their_list_are_refused(damage: str, tmp_path: Path):
    path = tmp_path / "a.h5"
    write_run(path, Stationary((32,), starts=2).solve(desai_zwanzig(0.2, centre=0.3)), line())
    with h5py.File(path, "r+") as file:
        if damage.startswith("unlisted"):
            file.attrs["tables"] = json.dumps([] if damage == "unlisted" else ["branches/energy", "branches/density"])
        elif damage == "short":
            del file["branches/mean"]
            file["branches/mean"] = np.zeros((7, 1))
        else:
            del file["branches" if damage == "missing" else "branches/mean"]
    with pytest.raises(ResultError, match=r"a\.h5: not a whole mfpde result \(.*branches"):
        read_run(path)


def test_the_certificate_begins_with_the_energy_and_dissipation_of_the_start():
    """A Gaussian of variance v in x²/2 with temperature 1: E = v/2 − ½ log(2πe v), and the dissipation is v (1 − 1/v)²."""
    domain, variance = line(-8.0, 8.0), 0.5
    run = solved({"well": potential(lambda p: 0.5 * p[:, 0] ** 2), "noise": Entropy(1.0)}, bump(domain), domain, Stationary((512,)))
    steps = run.certificate
    assert steps["energy"][0] == pytest.approx(0.5 * variance - 0.5 * np.log(2.0 * np.pi * np.e * variance), abs=1e-4)
    assert steps["dissipation"][0] == pytest.approx(variance * (1.0 - 1.0 / variance) ** 2, rel=2e-3)
    assert steps["energy"][1] == pytest.approx(0.5 - 0.5 * np.log(2.0 * np.pi * np.e), abs=1e-4)
    assert abs(steps["dissipation"][1]) < 1e-12
    assert np.isfinite(steps.rows).all()
    assert steps.energy_rise() < 0.0


def test_the_certificate_of_atoms_in_a_fast_diffusion_is_finite():
    domain = line()
    atoms = Particles.equal(np.array([[-1.0], [1.0]]))
    run = solved({"wells": WELLS, "fast": Power(0.5, 1.0)}, atoms, domain, Stationary((64,), starts=2))
    assert np.isfinite(run.certificate.rows).all()


def test_the_command_prints_stores_and_draws_the_branches(tmp_path: Path, capsys):
    case = tmp_path / "wells.toml"
    case.write_text(CASE)
    assert main(["run", str(case), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("branch ") == 3
    assert "unstable" in printed
    assert "direct-branches" in printed
    assert (tmp_path / "out" / "direct-branches.png").stat().st_size > 10_000
    stored = read_run(tmp_path / "out" / "direct.h5")
    assert list(stored.run.times) == [0.5]
    assert main(["run", str(case), "--output", str(tmp_path / "out"), "--resume"]) == 0
    assert "direct: complete already" in capsys.readouterr().out
    assert main(["plot", str(tmp_path / "out" / "direct.h5"), "--output", str(tmp_path / "plots")]) == 0
    assert (tmp_path / "plots" / "direct-branches.png").exists()


def test_branches_in_the_plane_are_drawn_side_by_side(tmp_path: Path):
    from mfpde.figures import draw_branches

    plane = box(2, -3.0, 3.0)
    solver = Stationary((24, 24), starts=4)
    run = solved({"v": WELLS, "w": Pairs(strength=1.0), "t": Entropy(0.2)}, bump(plane, 0.3), plane, solver)
    write_run(tmp_path / "plane.h5", run, plane)
    (path,) = draw_branches(read_run(tmp_path / "plane.h5"), tmp_path)
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "entropy"\ntemperature = 0.2', 'kind = "potential"\ndensity = "x"', "need an entropy or porous_medium term"),
        ("save = [0.0, 0.5]", "save = [0.0]", "which must be positive"),
        ("cells = [80]", "cells = [80, 80]", "one number for each of the 1 axes"),
        ("starts = 5", "starts = 0", "starts"),
        ("starts = 5", 'select = "best"', "accepted: initial, lowest"),
    ],
)
def test_wrong_input_gives_one_message(tmp_path: Path, old: str, new: str, message: str):
    assert old in CASE
    path = tmp_path / "wrong.toml"
    path.write_text(CASE.replace(old, new))
    with pytest.raises(InputError, match=message):
        build_problem(load_case(path))


def test_the_case_file_reaches_the_solver(tmp_path: Path):
    path = tmp_path / "wells.toml"
    path.write_text(CASE + 'seed = 4\ntolerance = 1e-9\nselect = "lowest"\n')
    assert build_solver(load_case(path), 1) == Stationary((80,), 5, 4, 1e-9, "lowest")
