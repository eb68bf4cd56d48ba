"""Entropic steps: the closed forms of Gaussians with the regularisation and without, its bias and what is left of it, and other solvers."""

import dataclasses

import numpy as np
import ot
import pytest
from scipy.optimize import brentq

from mfpde.disk import Disk
from mfpde.domain import Axis, Domain
from mfpde.energy import Entropy, Normal, Power, two_layer
from mfpde.energy.base import Energy, EnergySum
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import WARNING, Run, Status
from mfpde.solvers import FiniteVolume, MinimizingMovement
from mfpde.solvers.jko.entropic import EntropicScheme
from mfpde.solvers.jko.gibbs import Gibbs
from mfpde.solvers.jko.rules import check_entropic as check
from tests.conftest import Integrand, box, bump, interaction, l1_distance, line, network, observed_order, quadratic

TAU, WIDE = 0.3, line(-8.0, 8.0)


def scheme_of(
    terms: dict[str, Energy],
    domain: Domain,
    initial: Integrand,
    cells: tuple[int, ...],
    tau: float = TAU,
    epsilon: float | None = None,
    debiased: bool = True,
) -> EntropicScheme:
    problem = Problem(EnergySum(terms), domain, DensityFunction(initial, domain), (tau,))
    return EntropicScheme(problem, cells, tau, None, epsilon, debiased)


def one_step(scheme: EntropicScheme) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean and deviation along the first axis before and after a step, the remarks, and by how much E + moved/(2τ) fell."""
    start, dual = scheme.start()
    found = scheme.minimise(start, scheme.tau, start, start, dual)
    assert found.moved is not None
    fallen = scheme.value(start) - found.energy - found.moved / (2.0 * scheme.tau)
    assert fallen >= -found.slack - 1e-14
    assert found.residual <= 1e-7
    assert np.min(found.points) >= 0.0
    assert np.sum(found.points) == pytest.approx(np.sum(start), rel=1e-13)
    return moments(scheme, start), moments(scheme, found.points), found.remarks, fallen


def moments(scheme: EntropicScheme, points: np.ndarray) -> np.ndarray:
    x, masses = scheme.grid.centers[:, 0], points[:, 0] * scheme.volume
    masses = masses / np.sum(masses)
    mean = masses @ x
    return np.array([mean, np.sqrt(masses @ (x - mean) ** 2)])


def run(
    terms: dict[str, Energy],
    domain: Domain,
    initial: Integrand,
    tau: float,
    time: float,
    method: str,
    cells: tuple[int, ...],
    **choices: object,
) -> Run:
    problem = Problem(EnergySum(terms), domain, DensityFunction(initial, domain), (time,))
    found = MinimizingMovement(tau, method=method, cells=cells, **choices).solve(problem)  # type: ignore[arg-type]
    assert found.status is Status.DONE, found.message
    return found


def regularised(b: float, epsilon: float, debiased: bool, diffusion: float = 0.0, strength: float = 0.0) -> float:
    """The deviation after a step of E = D ∫ρ log ρ + ½ λ∫x²: a ∂_a of E + S_ε/(2τ), or of E + W_ε/(2τ), is 0."""
    e = epsilon / 4.0

    def slope(a: float) -> float:
        own = np.sqrt(a * a + e * e) if debiased else a - e
        return float(strength * TAU * a + own - np.sqrt(a * b + e * e) - diffusion * TAU)

    return float(np.sqrt(brentq(slope, 1e-3, 100.0, xtol=1e-15)))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize(("diffusion", "strength"), [(0.8, 0.0), (0.8, 2.0), (0.0, 1.0)])
def test_gaussians_stay_gaussian_with_the_deviation_of_the_regularised_closed_form(
    debiased: bool, diffusion: float, strength: float
) -> None:
    terms: dict[str, Energy] = {"noise": Entropy(diffusion)} if diffusion else {}
    terms |= {"well": quadratic(strength)} if strength else {}
    for epsilon in (0.05, 0.2):
        before, after, _, _ = one_step(scheme_of(terms, WIDE, bump(1.0), (160,), TAU, epsilon, debiased))
        assert after[1] == pytest.approx(regularised(before[1] ** 2, epsilon, debiased, diffusion, strength), abs=3e-6)


@pytest.mark.parametrize(("debiased", "order"), [(True, 2.0), (False, 1.0)])
def test_the_bias_is_of_first_order_in_epsilon_and_of_second_without_it(debiased: bool, order: float) -> None:
    """The plain scheme has the diffusion ε/(4τ) too much; the other goes too fast by the share ε²/(32 a b) of variances a and b."""
    diffusion, errors, epsilons = 0.8, [], np.array([0.1, 0.2, 0.4])
    for epsilon in epsilons:
        scheme = scheme_of({"noise": Entropy(diffusion)}, WIDE, bump(1.0), (160,), TAU, float(epsilon), debiased)
        before, after, remarks, _ = one_step(scheme)
        s = before[1]
        errors.append(abs(after[1] - (s + np.sqrt(s * s + 4.0 * diffusion * TAU)) / 2.0))
        if debiased:
            assert remarks[0] == pytest.approx(epsilon**2 / (32.0 * s**2 * after[1] ** 2), rel=0.03)
        else:
            extra = diffusion + epsilon / (4.0 * TAU)
            assert after[1] == pytest.approx((s + np.sqrt(s * s + 4.0 * extra * TAU)) / 2.0, abs=epsilon**2 / 32.0)
            assert remarks[2] == pytest.approx(epsilon / (4.0 * TAU))
    assert observed_order(list(1.0 / epsilons), errors) == pytest.approx(order, abs=0.1)
    assert errors[0] < (4e-4 if debiased else 4e-2)


def test_the_default_leaves_little_bias() -> None:
    """Against the exact step with the deviation of the discrete start."""
    diffusion = 0.8
    before, after, remarks, _ = one_step(scheme_of({"noise": Entropy(diffusion)}, WIDE, bump(1.0), (200,)))
    error = abs(after[1] - (before[1] + np.sqrt(before[1] ** 2 + 4.0 * diffusion * TAU)) / 2.0)
    assert error < 3e-6
    assert error <= 1.5 * remarks[1] * TAU


def test_gaussians_in_the_plane() -> None:
    diffusion, strength, domain = 0.3, 0.5, box(2, -5.0, 5.0)
    scheme = scheme_of({"noise": Entropy(diffusion), "well": quadratic(strength)}, domain, bump(1.0), (40, 48), TAU, 0.15)
    before, after, _, _ = one_step(scheme)
    assert after[1] == pytest.approx(regularised(before[1] ** 2, 0.15, True, diffusion, strength), abs=2e-5)


@pytest.mark.parametrize("debiased", [True, False])
def test_quadratic_potentials_and_kernels_contract(debiased: bool) -> None:
    for terms in ({"well": quadratic()}, {"pull": interaction(WIDE, "theta**2/2")}):
        before, after, remarks, _ = one_step(scheme_of(terms, WIDE, bump(0.7, 1.0), (160,), debiased=debiased))
        mean = before[0] / (1.0 + TAU) if "well" in terms else before[0]
        np.testing.assert_allclose(after, [mean, before[1] / (1.0 + TAU)], atol=2e-5 if debiased else 2.0 * remarks[1] * TAU)


def test_a_repulsive_kernel_spreads() -> None:
    """W = −x²/2 is convex between densities of one mass."""
    before, after, _, _ = one_step(scheme_of({"push": interaction(WIDE, "theta**2/2", -1.0)}, WIDE, bump(0.7, 1.0), (160,)))
    np.testing.assert_allclose(after, [before[0], before[1] / (1.0 - TAU)], atol=3e-5)


def test_a_quadratic_network_is_a_scalar_equation() -> None:
    """E = ½E x⁴ (∫θ² − 9/4)² and E x⁴ = 3: X₁ = X₀/(1 + 6τ(m₁ − 9/4)), m₁ = ∫X₁²."""
    term = two_layer(WIDE, "quadratic", Normal(), Particles(np.array([[1.5]]), np.array([1.0])))
    before, after, _, _ = one_step(scheme_of({"network": term}, WIDE, bump(0.7, 0.4), (200,)))
    first = before[0] ** 2 + before[1] ** 2
    second = brentq(lambda m: m * (1.0 + 6.0 * TAU * (m - 2.25)) ** 2 - first, 1.75, 7.25, xtol=1e-15)
    np.testing.assert_allclose(after, before / (1.0 + 6.0 * TAU * (second - 2.25)), rtol=2e-4)


def test_a_linear_network_in_the_plane_shifts() -> None:
    """E = ½|∫θ − θ*|²: X₁ = X₀ − τ(m₁ − θ*)."""
    domain = box(2, -3.0, 3.0)
    term = two_layer(domain, "identity", Normal(), Particles(np.array([[1.0, -0.5]]), np.array([1.0])))
    before, after, _, _ = one_step(scheme_of({"network": term}, domain, bump(0.5), (36, 36)))
    np.testing.assert_allclose(after, [TAU * 1.0 / (1.0 + TAU), before[1]], atol=2e-4)


def test_a_tanh_network_in_the_plane_goes_as_by_finite_volumes() -> None:
    domain, time = box(2, -3.0, 3.0), 0.4
    terms: dict[str, Energy] = {"network": network(domain, neurons=((1.5, 0.5), (-0.5, 1.0))), "noise": Entropy(0.1)}
    problem = Problem(EnergySum(terms), domain, DensityFunction(bump(0.7), domain), (time,))
    volumes = FiniteVolume(cells=(32, 32)).solve(problem)
    far = [l1_distance(run(terms, domain, bump(0.7), tau, time, "entropic", (32, 32)).final, volumes.final) for tau in (0.2, 0.1)]
    assert far[1] < 0.65 * far[0]
    assert far[1] < 0.02


def test_porous_media_go_as_in_quantile_functions() -> None:
    domain = line(-3.0, 3.0)
    for exponent, allowed in ((2.0, 3e-3), (4.0, 2.5e-2)):
        terms: dict[str, Energy] = {"porous": Power(exponent)}

        def initial(p: np.ndarray, power: float = 1.0 / (exponent - 1.0)) -> np.ndarray:
            return np.maximum(1.0 - p[:, 0] ** 2, 0.0) ** power

        ours, exact = (run(terms, domain, initial, 0.02, 0.1, method, (200,)) for method in ("entropic", "quantile"))
        biased = run(terms, domain, initial, 0.02, 0.1, "entropic", (200,), debiased=False)
        assert l1_distance(ours.final, exact.final) < allowed
        assert l1_distance(ours.final, exact.final) < 0.5 * l1_distance(biased.final, exact.final)
        assert isinstance(ours.final, Density)
        assert np.min(ours.final.values) < 1e-200


def test_fast_diffusion_goes_as_in_quantile_functions() -> None:
    domain = line(-4.0, 4.0)
    ours, exact = (run({"fast": Power(0.5)}, domain, bump(0.5), 0.05, 0.1, method, (160,)) for method in ("entropic", "quantile"))
    assert l1_distance(ours.final, exact.final) < 2e-3


def test_networks_go_as_in_quantile_functions() -> None:
    domain = line(-4.0, 4.0)

    def initial(p: np.ndarray) -> np.ndarray:
        return np.cos(np.pi * p[:, 0] / 6.0) ** 2 * (np.abs(p[:, 0]) < 3.0)

    ours, exact = (run({"network": network(domain)}, domain, initial, 0.5, 2.0, method, (160,)) for method in ("entropic", "quantile"))
    assert l1_distance(ours.final, exact.final) < 2e-3


@pytest.mark.parametrize("kernel", ["-exp(-r)", "-exp(-r**2)", "abs(theta)"])
def test_every_step_lowers_the_energy_for_indefinite_kernels_too(kernel: str) -> None:
    domain = line()
    terms: dict[str, Energy] = {"pull": interaction(domain, kernel), "noise": Entropy(0.05)}
    found = run(terms, domain, bump(0.6, 0.3), 0.2, 0.6, "entropic", (96,))
    assert np.all(np.diff(found.certificate["energy"]) < 0.0)
    assert np.max(found.certificate["balance"]) <= 0.0
    assert found.certificate.mass_drift() <= 1e-12


def test_frozen_and_periodic_axes() -> None:
    """Fokker–Planck on a circle, slice by slice, one of them empty."""
    axes = (Axis("x", -1.0, 1.0, periodic=True), Axis("y", 0.0, 1.0, frozen=True), Axis("z", -1.0, 1.0))
    domain, time = Domain(axes), 0.2

    def initial(p: np.ndarray) -> np.ndarray:
        return (p[:, 1] > 0.3) * (1.0 + 0.5 * p[:, 1] * np.sin(np.pi * p[:, 0])) * np.exp(-p[:, 2])

    terms: dict[str, Energy] = {"noise": Entropy(0.2), "well": quadratic(1.0)}
    found = run(terms, domain, initial, 0.01, time, "entropic", (16, 4, 16)).final
    other = FiniteVolume(cells=(16, 4, 16)).solve(Problem(EnergySum(terms), domain, DensityFunction(initial, domain), (time,))).final
    assert isinstance(found, Density)
    assert isinstance(other, Density)
    assert np.max(found.values[:, 0]) == 0.0
    np.testing.assert_allclose(found.values.sum(axis=(0, 2)), other.values.sum(axis=(0, 2)), rtol=1e-12)
    assert l1_distance(found, other) < 1e-2  # of first order in tau


@pytest.mark.parametrize("periodic", [True, False])
def test_the_separable_kernel_is_that_of_plain_sinkhorn(periodic: bool) -> None:
    domain = Domain((Axis("x", 0.0, 1.0, periodic), Axis("y", 0.0, 2.0), Axis("z", 0.0, 1.0, frozen=True)))
    grid, epsilon = domain.grid((7, 8, 1)), 0.05
    rng = np.random.default_rng(2)
    a, b = rng.random((2, grid.size)) + 0.1
    a, b = a / np.sum(a), b / np.sum(b)
    gibbs = Gibbs(grid, epsilon)
    f = np.zeros(grid.size)
    log_a, log_b = (np.log(m / grid.cell_volume) for m in (a, b))
    for _ in range(2000):
        g = gibbs.soften(log_a + f)
        f = gibbs.soften(log_b + g)
    g = gibbs.soften(log_a + f)
    gaps = grid.centers[:, None] - grid.centers[None]
    turns = (np.arange(-3, 4) if periodic else np.zeros(1))[:, None, None]
    cost = -epsilon * np.logaddexp.reduce(-((gaps[..., 0] + turns) ** 2) / epsilon, axis=0) + gaps[..., 1] ** 2
    plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-14, numItermax=20000)
    ours = np.exp(f[:, None] + g[None] - cost / epsilon) * np.outer(a, b)
    np.testing.assert_allclose(ours, plan, atol=1e-10 * np.max(plan))
    if not periodic:
        assert gibbs.mean_cost(log_a + f, log_b + g) == pytest.approx(np.sum(plan * cost), rel=1e-10)


def test_nothing_moves_without_an_energy() -> None:
    """S_ε(μ, μ) = 0, which the biased scheme does not have."""
    start, dual = (scheme := scheme_of({"flat": quadratic(0.0)}, WIDE, bump(0.7), (100,))).start()
    found = scheme.minimise(start, TAU, start, start, dual)
    np.testing.assert_allclose(found.points, start, rtol=1e-9, atol=1e-12)
    assert found.moved == pytest.approx(0.0, abs=1e-12)


def test_large_steps_and_far_ways_converge() -> None:
    terms: dict[str, Energy] = {"well": quadratic(1.0, 3.0), "noise": Entropy(0.05)}
    found = run(terms, line(), bump(0.3, -3.0), 10.0, 10.0, "entropic", (160,))
    assert isinstance(found.final, Density)
    mean = found.final.weights @ found.final.points[:, 0]
    assert mean == pytest.approx(3.0 - 6.0 / 11.0, abs=2e-3)  # some mass is at the wall


@pytest.mark.parametrize("debiased", [True, False])
def test_too_small_an_epsilon_is_a_failed_step_with_advice_and_no_overflow(debiased: bool) -> None:
    problem = Problem(EnergySum({"noise": Entropy(0.1)}), line(), DensityFunction(bump(0.5), line()), (0.1,))
    flow = MinimizingMovement(0.1, method="entropic", cells=(64,), epsilon=1e-9, debiased=debiased)
    found = flow.solve(problem)
    assert found.status is Status.NOT_CONVERGED
    assert "use a larger epsilon, a smaller tau" in found.message
    assert any("do not resolve the kernel" in note for note in found.notes)


def test_notes_state_the_bias() -> None:
    noise: dict[str, Energy] = {"noise": Entropy(0.1)}
    for debiased, words in ((True, "debiased by the Sinkhorn divergence"), (False, "biased: adds the diffusion 0.025")):
        notes = run(noise, line(), bump(0.5), 0.1, 0.2, "entropic", (64,), epsilon=0.01, debiased=debiased).notes
        assert any(words in note for note in notes)
        assert any("bias left in a step: about" in note for note in notes)


def test_a_large_epsilon_warns_of_the_bias_that_it_has() -> None:
    """Of a step of the heat equation from a Gaussian of deviation 0.3, whose exact step has s' = (s + √(s² + 4Dτ))/2."""
    diffusion, tau, domain = 0.5, 0.005, line(-4.0, 4.0)
    scheme = scheme_of({"noise": Entropy(diffusion)}, domain, bump(0.3), (128,), tau, 1.0)
    before, after, remarks, _ = one_step(scheme)
    exact = (before[1] + np.sqrt(before[1] ** 2 + 4.0 * diffusion * tau)) / 2.0
    assert remarks[0] == pytest.approx((after[1] - before[1]) / (exact - before[1]) - 1.0, rel=0.2)
    assert remarks[1] == pytest.approx((after[1] - exact) / tau, rel=0.2)
    (note,) = (note for note in scheme.notes_of(remarks) if "bias left" in note)
    assert note.startswith(WARNING)
    assert "smaller epsilon" in note
    assert not any(note.startswith(WARNING) for note in scheme.notes_of(0.01 * remarks))


def test_an_epsilon_beyond_the_width_of_the_domain_is_refused() -> None:
    problem = Problem(EnergySum({"noise": Entropy(0.1)}), line(), DensityFunction(bump(0.5), line()), (0.1,))
    width = line().axes[0].length
    MinimizingMovement(0.1, method="entropic", cells=(64,), epsilon=width**2).check(problem)
    with pytest.raises(ValueError, match=r"epsilon must be at most .* the square of the domain's width"):
        MinimizingMovement(0.1, method="entropic", cells=(64,), epsilon=1.01 * width**2).check(problem)


def test_a_restored_state_goes_on_with_the_same_bits() -> None:
    terms: dict[str, Energy] = {"porous": Power(2.0), "pull": interaction(line(), "-exp(-r)")}
    problem = Problem(EnergySum(terms), line(), DensityFunction(bump(0.5), line()), (0.1,))
    solver = MinimizingMovement(0.02, method="entropic", cells=(80,))
    first, second = solver.prepare(problem), solver.prepare(problem)
    state = first.advance(first.start(), 0.1)
    again = second.restore(dataclasses.asdict(state))
    for _ in range(2):
        state, again = first.advance(state, 0.1), second.advance(again, 0.1)
    np.testing.assert_array_equal(state.points, again.points)
    np.testing.assert_array_equal(state.dual, again.dual)
    assert first.record(state) == second.record(again)
    assert (state.energy, state.balance, first.notes) == (again.energy, again.balance, second.notes)


def test_what_entropic_steps_cannot_do_is_said() -> None:
    def told(domain: Domain, cells: tuple[int, ...], words: str) -> None:
        problem = Problem(EnergySum({"noise": Entropy(0.1)}), domain, DensityFunction(bump(0.5), domain), (0.1,))
        with pytest.raises(ValueError, match=words):
            check(problem, cells)

    told(Domain((Axis("x", 0.0, 1.0, frozen=True),)), (4,), "all axes are frozen")
    told(line(), (4, 4), "one number for each of the 1 axes")
    told(line(), (5000,), "at most 4096 cells along it, got 5000 along theta")
    told(Disk(("x", "y"), 1.0), (8, 8), "needs a box, whose kernels are products along axes")
