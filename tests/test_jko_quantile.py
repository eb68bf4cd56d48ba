"""Steps in the quantile function: closed forms of one step, walls, mass that comes together, kernels, and the levels themselves."""

import numpy as np
import pytest

from mfpde.energy import Entropy, Potential, Power
from mfpde.energy.base import Energy, EnergySum
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import FiniteVolume, MinimizingMovement
from mfpde.solvers.jko.levels import Levels
from mfpde.solvers.jko.quantile import QuantileScheme
from tests.conftest import Integrand, bump, interaction, l1_distance, line, network, observed_order, quadratic

TAU, WIDE = 0.3, line(-10.0, 10.0)


def one_step(terms: dict[str, Energy], initial: Integrand, count: int = 400, tau: float = TAU) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation before and after one step."""
    problem = Problem(EnergySum(terms), WIDE, DensityFunction(initial, WIDE), (tau,))
    flow = MinimizingMovement(tau, cells=(64,), count=count).prepare(problem)
    state = flow.start()
    after = flow.advance(state, tau)
    assert isinstance(flow.scheme, QuantileScheme)
    return moments(flow.scheme, state.points), moments(flow.scheme, after.points)


def moments(scheme: QuantileScheme, points: np.ndarray) -> np.ndarray:
    a, b = points[:-1, 0], points[1:, 0]
    mean = scheme.masses @ (a + b) / 2.0
    return np.array([mean, np.sqrt(scheme.masses @ ((a * a + a * b + b * b) / 3.0) - mean**2)])


def test_a_quadratic_potential_contracts() -> None:
    before, after = one_step({"well": quadratic()}, bump(0.7, 1.0))
    np.testing.assert_allclose(after, before / (1.0 + TAU), rtol=1e-13)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_quadratic_kernel_moves_the_mass_about_its_mean(sign: float) -> None:
    before, after = one_step({"pull": interaction(WIDE, "theta**2/2", sign)}, bump(0.7, 1.0))
    np.testing.assert_allclose(after, [before[0], before[1] / (1.0 + sign * TAU)], rtol=1e-10)  # tails reach the walls


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_gaussians_stay_gaussian_with_the_deviation_of_the_closed_form(strength: float) -> None:
    """(1 + λτ) s₁² − s₀s₁ − Dτ = 0, to fourth order in the deviation of the discrete start."""
    diffusion, counts, errors, plain = 0.8, [400, 800, 1600, 3200], [], []
    terms: dict[str, Energy] = {"noise": Entropy(diffusion)} | ({"well": quadratic(strength)} if strength else {})
    stiff = 1.0 + strength * TAU
    for count in counts:
        before, after = one_step(terms, bump(1.0), count)
        exact = [(s + np.sqrt(s * s + 4.0 * diffusion * TAU * stiff)) / (2.0 * stiff) for s in (before[1], 1.0)]
        errors.append(abs(after[1] - exact[0]))
        plain.append(after[1] - exact[1])
    assert observed_order(counts, errors) == pytest.approx(4.0, abs=0.1)
    assert errors[-1] < 1e-11
    assert observed_order(counts, np.abs(plain)) == pytest.approx(2.0, abs=0.02)
    assert abs((4.0 * plain[-1] - plain[-2]) / 3.0) < 1e-9


def test_the_gibbs_state_of_a_well_does_not_move() -> None:
    before, after = one_step({"noise": Entropy(0.5), "well": quadratic(2.0)}, bump(0.5), 3200, 10.0)
    assert after[1] == pytest.approx(before[1], abs=2e-6)
    finer = one_step({"noise": Entropy(0.5), "well": quadratic(2.0)}, bump(0.5), 6400, 10.0)[1]
    assert (4.0 * finer[1] - after[1]) / 3.0 == pytest.approx(0.5, abs=1e-8)


def quadratic_network() -> tuple[Energy, float]:
    from mfpde.energy import Normal, two_layer
    from mfpde.measure import Particles

    return two_layer(WIDE, "quadratic", Normal(), Particles(np.array([[1.5]]), np.array([1.0]))), 2.25


def test_a_quadratic_network_is_a_scalar_equation() -> None:
    """E = ½E x⁴ (∫θ² − 9/4)² and E x⁴ = 3: X₁ = X₀/(1 + 6τ(m₁ − 9/4)), m₁ = ∫X₁²."""
    from scipy.optimize import brentq

    term, wanted = quadratic_network()
    before, after = one_step({"network": term}, bump(0.7, 0.4))
    first = before[0] ** 2 + before[1] ** 2
    second = brentq(lambda m: m * (1.0 + 6.0 * TAU * (m - wanted)) ** 2 - first, wanted - 0.5, wanted + 5.0, xtol=1e-15)
    np.testing.assert_allclose(after, before / (1.0 + 6.0 * TAU * (second - wanted)), rtol=1e-9)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0])
def test_a_porous_medium_step_from_a_barenblatt_profile_is_a_scalar_equation(exponent: float) -> None:
    """ρ = (C − k x²)₊^{1/(m−1)} stays in its family: λ^m (λ − 1) = τ m·2k/(m − 1) for the factor λ of lengths."""
    curvature, second = 0.4, []

    def profile(p: np.ndarray) -> np.ndarray:
        return np.maximum(1.0 - curvature * p[:, 0] ** 2, 0.0) ** (1.0 / (exponent - 1.0))

    mass = float(np.sum(DensityFunction(profile, WIDE).averages(WIDE.even_grid(200_000)))) * WIDE.volume / 200_000
    slope = exponent * 2.0 * curvature / (exponent - 1.0) / mass ** (exponent - 1.0)
    roots = np.roots([1.0, -1.0, *[0.0] * (int(exponent) - 1), -TAU * slope])
    factor = float(np.max(roots[np.abs(roots.imag) < 1e-9].real))
    counts = [400, 800, 1600]
    for count in counts:
        before, after = one_step({"porous": Power(exponent)}, profile, count)
        second.append(abs(after[1] / before[1] - factor))
    assert observed_order(counts, second) > 1.2
    assert second[-1] < 3e-5


def test_mass_is_exact_on_any_cells() -> None:
    problem = Problem(EnergySum({"p": Power(2.0)}), WIDE, DensityFunction(bump(0.5), WIDE), (0.1, 1.0))
    for cells in (1, 7, 300):
        run = MinimizingMovement(0.1, cells=(cells,), count=200).solve(problem)
        assert all(abs(float(np.sum(m.weights)) - 1.0) < 1e-14 for m in run.measures)


def test_the_levels_hold_exact_masses_and_end_where_the_density_does() -> None:
    levels = Levels.of(DensityFunction(lambda p: np.maximum(1.0 - p[:, 0] ** 2, 0.0), line(-3.0, 3.0)), 100)
    assert levels.start[[0, -1]] == pytest.approx([-1.0, 1.0], abs=1e-12)
    x = levels.start
    np.testing.assert_allclose(levels.masses, 0.75 * np.diff(x - x**3 / 3.0), rtol=1e-12, atol=1e-16)


def test_a_gap_of_the_initial_density_closes_without_turning_over() -> None:
    domain = line(-6.0, 6.0)
    two = DensityFunction(lambda p: (np.abs(np.abs(p[:, 0]) - 2.0) < 1.0) * 1.0, domain)
    problem = Problem(EnergySum({"p": Power(2.0)}), domain, two, (4.0,))
    run = MinimizingMovement(0.1, cells=(120,), count=800, order=2).solve(problem)
    assert run.status is Status.DONE
    assert l1_distance(run.final, FiniteVolume((120,)).solve(problem).final) < 5e-3  # type: ignore[arg-type]


def test_fast_diffusion_agrees_with_finite_volumes() -> None:
    domain = line(-5.0, 5.0)
    problem = Problem(EnergySum({"fast": Power(0.5)}), domain, DensityFunction(bump(0.5), domain), (0.5,))
    run = MinimizingMovement(0.02, cells=(100,), count=1200, order=2).solve(problem)
    assert run.status is Status.DONE
    assert l1_distance(run.final, FiniteVolume((100,)).solve(problem).final) < 2e-3  # type: ignore[arg-type]


def test_mass_at_a_wall_becomes_the_gibbs_state_or_a_point() -> None:
    domain = line(-2.0, 2.0)
    push = Potential(lambda p: -3.0 * p[:, 0], lambda p: np.full_like(p, -3.0))
    start = DensityFunction(bump(0.4), domain)
    noisy = Problem(EnergySum({"push": push, "noise": Entropy(0.5)}), domain, start, (10.0,))
    run = MinimizingMovement(0.25, cells=(50,), count=1600).solve(noisy)
    gibbs = DensityFunction(lambda p: np.exp(6.0 * p[:, 0] - 12.0), domain)
    assert l1_distance(run.final, gibbs) < 1e-4
    run = MinimizingMovement(0.25, cells=(50,), count=400).solve(Problem(EnergySum({"push": push}), domain, start, (0.5, 3.0)))
    assert run.status is Status.DONE
    assert np.max(run.certificate["balance"]) <= 1e-14
    assert run.final.weights[-1] == pytest.approx(1.0, abs=1e-14)
    assert run.certificate["wall"][-1] == pytest.approx(1.0, abs=1e-14)
    assert any("come together" in note for note in run.notes)


def test_attraction_with_a_kink_collapses_in_finite_time() -> None:
    """W = |x|: X' = −(2s − 1) while the mass is spread, so that a uniform density of width L is a point at the time L/2."""
    domain = line(-2.0, 2.0)
    start = DensityFunction(lambda p: (np.abs(p[:, 0]) < 0.5) * 1.0, domain)
    problem = Problem(EnergySum({"pull": interaction(domain, "r")}), domain, start, (0.25, 1.0))
    run = MinimizingMovement(0.05, cells=(64,), count=200).solve(problem)
    assert run.status is Status.DONE, run.message
    np.testing.assert_allclose(run.total_energy, [0.5 * 0.5 / 3.0, 0.0], atol=1e-4)


@pytest.mark.parametrize("kernel", ["-exp(-r**2)", "exp(-r**2)", "cos(theta)", "exp(-r)"])
def test_kernels_agree_with_finite_volumes(kernel: str) -> None:
    domain = line(-5.0, 5.0)
    terms: dict[str, Energy] = {"pairs": interaction(domain, kernel), "noise": Entropy(0.1)}
    problem = Problem(EnergySum(terms), domain, DensityFunction(bump(0.7, 0.5), domain), (1.0,))
    run = MinimizingMovement(0.05, cells=(100,), count=600, order=2).solve(problem)
    assert run.status is Status.DONE, run.message
    assert np.max(run.certificate["iterations"]) < 12
    reference = FiniteVolume((200,)).solve(problem)
    assert run.total_energy[-1] == pytest.approx(reference.total_energy[-1], abs=5e-4)


def test_the_newton_matrix_of_a_network_is_that_of_the_objective() -> None:
    domain = line(-4.5, 4.5)
    terms: dict[str, Energy] = {"network": network(domain), "pull": interaction(domain, "theta**2/2"), "noise": Entropy(0.05)}
    problem = Problem(EnergySum(terms), domain, DensityFunction(bump(0.7), domain), (1.0,))
    scheme = QuantileScheme(problem, (16,), 60)
    x = scheme.levels.start
    at = scheme._objective(x, x + 0.1, 0.2)
    direction = np.random.default_rng(0).standard_normal(len(x)) * np.min(np.diff(x)) * 1e-3
    ahead, behind = (scheme._objective(x + s * direction, x + 0.1, 0.2) for s in (1.0, -1.0))
    assert at.gradient @ direction == pytest.approx((ahead.value - behind.value) / 2.0, rel=1e-6)
    image = at.diagonal * direction + (at.signs * (at.rows @ direction)) @ at.rows
    image[:-1] += at.upper * direction[1:]
    image[1:] += at.upper * direction[:-1]
    np.testing.assert_allclose(image, (ahead.gradient - behind.gradient) / 2.0, atol=2e-3 * np.max(np.abs(image)))
