"""Steps in the quantile function: closed forms of one step, walls, mass that comes together, kernels, and the levels themselves."""

from dataclasses import fields

import numpy as np
import pytest

from mfpde.energy import Entropy, Potential, Power
from mfpde.energy.base import Energy, EnergySum
from mfpde.measure import Density, DensityFunction
from mfpde.problem import Problem
from mfpde.run import WARNING, Run, Status, StepFailed
from mfpde.solvers import FiniteVolume, MinimizingMovement
from mfpde.solvers.jko.flow import MovementState
from mfpde.solvers.jko.kinks import Kinks
from mfpde.solvers.jko.levels import Levels
from mfpde.solvers.jko.logarithmic import Logarithm
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
    at = scheme.objective.objective(x, x + 0.1, 0.2)
    direction = np.random.default_rng(0).standard_normal(len(x)) * np.min(np.diff(x)) * 1e-3
    ahead, behind = (scheme.objective.objective(x + s * direction, x + 0.1, 0.2) for s in (1.0, -1.0))
    assert at.gradient @ direction == pytest.approx((ahead.value - behind.value) / 2.0, rel=1e-6)
    image = at.diagonal * direction + (at.signs * (at.rows @ direction)) @ at.rows
    image[:-1] += at.upper * direction[1:]
    image[1:] += at.upper * direction[:-1]
    np.testing.assert_allclose(image, (ahead.gradient - behind.gradient) / 2.0, atol=2e-3 * np.max(np.abs(image)))


# --- the circle: levels of a lift, X(s + 1) = X(s) + L ---------------------------------------------------------------------------------

CIRCLE = line(-np.pi, np.pi, periodic=True)


def around(terms: dict[str, Energy], initial: Integrand, times: tuple[float, ...], tau: float, count: int = 800, order: int = 1) -> Run:
    problem = Problem(EnergySum(terms), CIRCLE, DensityFunction(initial, CIRCLE), times)
    run = MinimizingMovement(tau, "quantile", cells=(60,), count=count, order=order).solve(problem)
    assert run.status is Status.DONE, run.message
    return run


def wave(amplitude: float, turn: float = 0.0) -> Integrand:
    return lambda p: 1.0 + amplitude * np.cos(p[:, 0] - turn)


def test_heat_on_a_circle_follows_its_fourier_series() -> None:
    """An implicit step of the heat equation divides the k-th mode by 1 + τTk²: that of the movement differs by O(τ²) and O(amplitude²)."""
    amplitude, errors, taus = 1e-3, [], [0.1, 0.05, 0.025]
    for tau in taus:
        final = around({"heat": Entropy(0.5)}, wave(amplitude), (1.0,), tau).final
        assert isinstance(final, Density)
        exact = DensityFunction(wave(amplitude * (1.0 + 0.5 * tau) ** (-1.0 / tau)), CIRCLE)
        assert l1_distance(final, exact) < 2e-3 * amplitude
        errors.append(l1_distance(final, DensityFunction(wave(amplitude * np.exp(-0.5)), CIRCLE)))
    assert observed_order(1.0 / np.array(taus), errors) == pytest.approx(1.0, abs=0.05)  # type: ignore[arg-type]


def test_second_order_steps_of_heat_on_a_circle() -> None:
    errors, taus = [], [0.1, 0.05, 0.025]
    for tau in taus:
        final = around({"heat": Entropy(0.5)}, wave(0.01), (1.0,), tau, order=2).final
        errors.append(l1_distance(final, DensityFunction(wave(0.01 * np.exp(-0.5)), CIRCLE)))
    assert observed_order(1.0 / np.array(taus), errors) == pytest.approx(2.0, abs=0.25)  # type: ignore[arg-type]


def hill(strength: float = 1.0) -> Potential:
    return Potential(lambda p: strength * np.cos(p[:, 0]), lambda p: -strength * np.sin(p))


def test_a_gibbs_state_on_a_circle_is_stationary() -> None:
    gibbs = lambda p: np.exp(-2.0 * np.cos(p[:, 0]))
    terms: dict[str, Energy] = {"heat": Entropy(0.5), "hill": hill()}
    assert l1_distance(around(terms, gibbs, (5.0,), 1.0).final, DensityFunction(gibbs, CIRCLE)) < 1e-4
    assert l1_distance(around(terms, wave(0.5, 1.0), (20.0,), 0.25).final, DensityFunction(gibbs, CIRCLE)) < 4e-4


def test_nothing_depends_on_where_the_circle_is_cut() -> None:
    terms: dict[str, Energy] = {"porous": Power(2.0)}
    bumps = [around(terms, lambda p, c=c: np.maximum(np.cos(p[:, 0] - c) - 0.5, 0.0), (0.0, 0.5), 0.05) for c in (0.0, np.pi)]
    one, other = (np.ravel(run.final.values) for run in bumps)  # type: ignore[union-attr]
    np.testing.assert_allclose(other, np.roll(one, 30), atol=2e-4)
    for run in bumps:
        assert abs(float(np.sum(run.final.weights)) - 1.0) < 1e-14
        assert np.max(run.certificate["balance"]) <= 1e-14


@pytest.mark.parametrize("order", [1, 2])
def test_noisy_kuramoto_oscillators_agree_with_finite_volumes(order: int) -> None:
    terms: dict[str, Energy] = {"pairs": interaction(CIRCLE, "cos(theta)", -1.0), "heat": Entropy(0.2)}
    problem = Problem(EnergySum(terms), CIRCLE, DensityFunction(wave(0.3, 2.9), CIRCLE), (2.0,))
    reference = FiniteVolume((240,)).solve(problem)
    run = around(terms, wave(0.3, 2.9), (2.0,), 0.02, order=order)
    assert run.total_energy[-1] == pytest.approx(reference.total_energy[-1], abs=5e-3 if order == 1 else 2e-4)


@pytest.mark.parametrize(("turn", "why"), [(0.3, "further than the mass has to go"), (3.2, "half way round")])
def test_steps_that_turn_the_circle_too_far_are_refused(turn: float, why: str) -> None:
    problem = Problem(EnergySum({"heat": Entropy(0.5)}), CIRCLE, DensityFunction(wave(0.1), CIRCLE), (1.0,))
    scheme = QuantileScheme(problem, (60,), 200)
    y = scheme.levels.start
    scheme._check_turn(y, y, 0.1)
    scheme._check_turn(y + 0.01 * np.cos(y), y, 0.1)
    with pytest.raises(StepFailed, match=why):
        scheme._check_turn(y + turn, y, 0.1)


# --- logarithmic kernels, exact for piecewise constant densities ------------------------------------------------------------------------


def test_a_log_gas_becomes_a_semicircle() -> None:
    domain, errors = line(-2.2, 2.2), []
    start = DensityFunction(lambda p: 3.0 * np.exp(-40.0 * (p[:, 0] + 0.4) ** 2) + np.exp(-40.0 * (p[:, 0] - 1.2) ** 2), domain)
    gas = Problem(EnergySum({"gas": interaction(domain, "theta**2/2 - log(r)")}), domain, start, (5.0,))
    semicircle = DensityFunction(lambda p: np.sqrt(np.maximum(2.0 - p[:, 0] ** 2, 0.0)) / np.pi, domain)
    for count in (50, 100):
        run = MinimizingMovement(0.25, cells=(40,), count=count).solve(gas)
        assert run.status is Status.DONE, run.message
        assert np.max(run.certificate["balance"]) <= 1e-14
        errors.append(abs(run.total_energy[-1] - (0.375 + 0.25 * np.log(2.0))))
    assert errors[1] < 5e-5
    assert errors[0] > 2.0 * errors[1]
    assert l1_distance(run.final, semicircle) < 6e-3


def test_logarithmic_attraction_against_noise_keeps_the_virial() -> None:
    """W = c log|x| with noise T: the second moment grows by (2T − c) τ − W₂² in a step, here with T = c/2."""
    domain = line(-10.0, 10.0)
    terms: dict[str, Energy] = {"pull": interaction(domain, "log(r)", 0.4), "noise": Entropy(0.2)}
    initial = DensityFunction(lambda p: (np.abs(p[:, 0]) < 1.0) * 1.0, domain)
    flow = MinimizingMovement(0.02, cells=(64,), count=100).prepare(Problem(EnergySum(terms), domain, initial, (0.2,)))
    assert isinstance(flow.scheme, QuantileScheme)
    state = flow.start()
    for _ in range(5):
        before, state = state, flow.advance(state, 0.2)
        one, two = (float(np.sum(moments(flow.scheme, at.points) ** 2)) for at in (before, state))
        assert two - one == pytest.approx(-flow.scheme.square_distance(state.points, before.points), abs=1e-10)


def test_the_hessian_of_a_logarithm_is_the_difference_of_its_gradients() -> None:
    generator = np.random.default_rng(0)
    x, masses = np.cumsum(0.1 + generator.random(30)), generator.random(29)
    masses /= np.sum(masses)
    pairs = Logarithm(1.3, 0.2, 0.7)
    step = 1e-6 * generator.standard_normal(30)
    (ahead, up), (behind, down) = (pairs.value_and_gradient(x + s * step, masses) for s in (1.0, -1.0))
    assert (ahead - behind) / 2.0 == pytest.approx(float(pairs.value_and_gradient(x, masses)[1] @ step), rel=1e-6)
    np.testing.assert_allclose((up - down) / 2.0, pairs.hessian(x, masses) @ step, atol=1e-8 * np.max(np.abs(up)))
    assert Logarithm(1.0, 0.0, 0.0).value(np.linspace(0.0, 1.0, 11), np.full(10, 0.1)) == pytest.approx(0.75, rel=1e-14)


@pytest.mark.parametrize("terms", [{"p": Power(2.0)}, {"p": Power(3.0, 0.5), "q": Entropy(0.3)}, {"q": Entropy(0.5), "r": Power(4.0)}])
def test_steps_of_internal_energies_on_vectors_are_those_of_the_general_method(terms: dict[str, Energy]) -> None:
    domain = line(-3.0, 3.0)
    problem = Problem(EnergySum(terms), domain, DensityFunction(lambda p: np.maximum(1.0 - p[:, 0] ** 2, 0.0), domain), (0.05,))
    runs = []
    for general in (False, True):
        flow = MinimizingMovement(0.005, cells=(64,), count=1000, order=2).prepare(problem)
        assert isinstance(flow.scheme, QuantileScheme)
        assert flow.scheme._internal_steps is not None
        if general:
            flow.scheme._internal_steps = None
        state = flow.start()
        for _ in range(10):
            state = flow.advance(state, 0.05)
        runs.append(state)
    np.testing.assert_allclose(runs[0].points, runs[1].points, atol=2e-8)
    assert runs[0].energy == pytest.approx(runs[1].energy, rel=1e-10)


# --- several minima, walls, kinks ------------------------------------------------------------------------------------------------------

NARROW = line(-3.0, 3.0)
DOUBLE_WELL = Potential(lambda p: 4.0 * (p[:, 0] ** 2 - 1.0) ** 2 - 2.0 * p[:, 0], lambda p: 16.0 * p * (p**2 - 1.0) - 2.0)


def steps(
    terms: dict[str, Energy], initial: Integrand, tau: float, number: int = 1
) -> tuple[QuantileScheme, MovementState, tuple[str, ...]]:
    problem = Problem(EnergySum(terms), NARROW, DensityFunction(initial, NARROW), (number * tau,))
    flow = MinimizingMovement(tau, "quantile", cells=(240,)).prepare(problem)
    assert isinstance(flow.scheme, QuantileScheme)
    state = flow.start()
    for _ in range(number):
        state = flow.advance(state, number * tau)
    flow.record(state)
    again = MinimizingMovement(tau, "quantile", cells=(240,)).prepare(problem)
    again.restore({each.name: getattr(state, each.name) for each in fields(state)})
    assert again.notes == flow.notes
    return flow.scheme, state, flow.notes


@pytest.mark.parametrize("temperature", [0.0, 0.05])
def test_a_step_over_a_barrier_is_found_and_told(temperature: float) -> None:
    """The mass at −1 is to go to the deeper well at 1: without noise, the least E + W₂²/2τ is the mean of a Moreau envelope."""
    tau = 1.0
    terms: dict[str, Energy] = {"well": DOUBLE_WELL} | ({"noise": Entropy(temperature)} if temperature else {})
    scheme, state, notes = steps(terms, bump(0.1, -1.0), tau)
    least = state.energy + scheme.square_distance(state.points, scheme.start()[0]) / (2.0 * tau)
    if temperature:
        assert least == pytest.approx(0.11727, abs=2e-4)  # by entropic transport
    else:
        y, z = np.linspace(-3.0, 3.0, 6001), np.linspace(-1.5, -0.5, 201)
        weights = np.exp(-50.0 * (z + 1.0) ** 2)
        envelope = [np.min(DOUBLE_WELL.function(y[:, None]) + (y - each) ** 2 / (2.0 * tau)) for each in z]
        assert least == pytest.approx(weights @ envelope / np.sum(weights), abs=2e-3)
    assert any(note.startswith(WARNING) and "several local minima" in note and "not the nearest" in note for note in notes)


@pytest.mark.parametrize("temperature", [0.2, 0.5])
def test_noise_in_a_double_well_leaves_a_saddle(temperature: float) -> None:
    scheme, state, _ = steps({"well": DOUBLE_WELL, "noise": Entropy(temperature)}, bump(0.1, -1.0), 0.3)
    least = state.energy + scheme.square_distance(state.points, scheme.start()[0]) / 0.6
    assert least == pytest.approx({0.2: 2.2421, 0.5: 2.4152}[temperature], abs=2e-3)


def test_convex_steps_have_no_word_on_convexity() -> None:
    *_, notes = steps({"well": quadratic(), "noise": Entropy(0.1)}, bump(0.5), 1.0)
    assert not any("minima" in note or "convex" in note or "points" in note for note in notes)


@pytest.mark.parametrize(("tau", "number"), [(2.0, 2), (0.5, 8)])
def test_all_mass_may_stand_at_a_wall(tau: float, number: int) -> None:
    push = Potential(lambda p: 3.0 * p[:, 0], lambda p: np.full_like(p, 3.0))
    scheme, state, notes = steps({"push": push}, bump(0.5), tau, number)
    exact = np.clip(scheme.levels.start - 3.0 * tau * number, -3.0, 3.0)
    np.testing.assert_allclose(state.points[:, 0], exact, atol=1e-12)
    assert any("up to 1 of the mass" in note for note in notes)


@pytest.mark.parametrize(("tau", "number"), [(0.1, 5), (0.5, 3), (2.0, 1)])
@pytest.mark.parametrize("kink", [0.0, 0.3])
def test_a_potential_with_a_kink_is_soft_thresholding(tau: float, number: int, kink: float) -> None:
    cone = Potential(lambda p: np.abs(p[:, 0] - kink), lambda p: np.sign(p - kink))
    scheme, state, notes = steps({"cone": cone}, bump(0.5), tau, number)
    y = scheme.levels.start - kink
    np.testing.assert_allclose(state.points[:, 0], kink + np.sign(y) * np.maximum(np.abs(y) - tau * number, 0.0), atol=0.02)
    assert float(np.median(np.abs(state.points[:, 0] - kink - np.sign(y) * np.maximum(np.abs(y) - tau * number, 0.0)))) < 1e-5
    assert any("kink" in note for note in notes)


def test_kinks_are_found_where_they_are() -> None:
    slope = lambda x: np.sign(x - 0.3) - 2.0 * (x < -0.7) + np.tanh(50.0 * (x - 1.0)) + x**3
    found = Kinks.of(slope, -3.0, 3.0, 1e-6, False)
    np.testing.assert_allclose(found.places, [-0.7, 0.3], atol=1e-12)
    np.testing.assert_allclose(found.jumps, [2.0, 2.0], rtol=1e-9)


def test_levels_of_log_gases_resolve_the_tails_and_tell_what_they_add() -> None:
    initial = DensityFunction(lambda p: np.exp(-((p[:, 0] + 1.0) ** 2) / 0.08) + 0.6 * np.exp(-((p[:, 0] - 0.8) ** 2) / 0.2), NARROW)
    gas: dict[str, Energy] = {"gas": interaction(NARROW, "-log(r)"), "well": quadratic()}
    scheme = QuantileScheme(Problem(EnergySum(gas), NARROW, initial, (0.1,)), (64,), 256)
    fine = Levels.of(initial, 8192)
    share = (np.arange(4000) + 0.5) / 4000
    one, other = (np.interp(share, np.append(0.0, np.cumsum(each.masses)), each.start) for each in (scheme.levels, fine))
    assert float(np.sqrt(np.mean((one - other) ** 2))) < 2e-3
    assert "adds" in scheme.levels.note
