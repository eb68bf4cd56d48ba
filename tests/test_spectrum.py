"""The modes of a density on a circle: exact rates against quadrature and runs, null modes at rest, and the modes that others create."""

import json
import math

import numpy as np
import pytest
from command import call

from mfpde.case.difference import DifferenceExpression
from mfpde.case.expression import parse
from mfpde.domain import Axis, Domain
from mfpde.energy import Circle, EnergySum, Entropy, Interaction, Normal, PairKernel, Power, two_layer
from mfpde.energy.spectrum import (
    energy_symbol,
    forbidden_waves,
    harmonics,
    null_waves,
    relu_symbol,
    second_order,
    still_to_come,
    teacher_modes,
    uniform_modes,
)
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers import Characteristics
from mfpde.study.spectrum_density import FourierDensity, exact_quantiles

CIRCLE = Domain((Axis("theta", 0.0, 2.0 * math.pi, True),))
UNIFORM = DensityFunction(lambda p: np.ones(len(p)), CIRCLE)

CASE = """# A network on the circle.
title = "circle"
[domain.theta]
lower = 0.0
upper = 6.283185307179586
periodic = true
[[energy]]
kind = "two_layer"
activation = "relu"
parameter = "angle"
inputs = { law = "circle", scale = 1.0 }
teacher = { density = "1" }
tolerance = 1e-3
[initial]
density = "1 + 0.6*cos(theta - 1) + 0.3*cos(2*theta)"
[time]
save = [0.0, 20.0, 200.0]
[[solver]]
kind = "finite_volume"
label = "fv"
cells = [192]
[[solver]]
kind = "particles"
label = "atoms"
count = 600
[study]
kind = "spectrum"
modes = 6
"""


def relu_network(law, teacher=UNIFORM):
    return two_layer(CIRCLE, "relu", law, teacher, angle=True, tolerance=1e-3)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def gauss(lower, upper):
    nodes, weights = NODES, WEIGHTS
    return 0.5 * (lower + upper) + 0.5 * (upper - lower) * nodes, 0.5 * (upper - lower) * weights


def relu_by_quadrature(second_moment, k):
    """K̂_k from relu(cos α) relu(cos(α − φ)), which is smooth where it is not zero, φ − π/2 < α < π/2."""
    total = 0.0
    for phi, share in zip(*gauss(0.0, math.pi), strict=True):
        alpha, weight = gauss(phi - 0.5 * math.pi, 0.5 * math.pi)
        kernel = second_moment / (2.0 * math.pi) * float(weight @ (np.cos(alpha) * np.cos(alpha - phi)))
        total += 2.0 * share * kernel * math.cos(k * phi)
    return total


@pytest.mark.parametrize(("law", "second_moment"), [(Circle(1.3), 1.69), (Normal(0.7), 0.98)], ids=["circle", "normal"])
def test_the_coefficients_of_relu_are_those_of_its_kernel(law, second_moment):
    symbol = energy_symbol(EnergySum({"network": relu_network(law)}), CIRCLE, 9)
    np.testing.assert_allclose(symbol, [relu_by_quadrature(second_moment, k) for k in range(10)], atol=1e-13)
    assert (symbol[3::2] == 0.0).all()
    assert null_waves(symbol) == [3, 5, 7, 9]
    np.testing.assert_allclose(symbol, relu_symbol(second_moment, 9), rtol=1e-13)


def test_the_rates_of_relu_on_the_unit_circle():
    rates = [mode.rate for mode in uniform_modes(relu_symbol(1.0, 6), 2.0 * math.pi, 6)]
    np.testing.assert_allclose(rates, [1 / 16, 4 / 9 / math.pi**2, 0.0, 16 / 225 / math.pi**2, 0.0, 36 / 1225 / math.pi**2], rtol=1e-13)


def test_the_coefficients_of_a_smooth_activation_are_those_of_its_kernel():
    from scipy.special import j0

    symbol = energy_symbol(EnergySum({"network": two_layer(CIRCLE, "cos", Circle(1.5), UNIFORM, angle=True)}), CIRCLE, 6)
    phi = 2.0 * math.pi * np.arange(128) / 128
    kernel = 0.5 * (j0(3.0 * np.sin(0.5 * phi)) + j0(3.0 * np.cos(0.5 * phi)))
    np.testing.assert_allclose(symbol, [2.0 * math.pi * np.mean(kernel * np.cos(k * phi)) for k in range(7)], atol=1e-9)
    assert null_waves(symbol) == [1, 3, 5]


def test_the_coefficients_of_interactions_and_internal_energies():
    domain = Domain((Axis("x", -1.0, 3.0, True),))
    kernel = DifferenceExpression(parse("-log(abs(sin(pi*x/4)))", ["x", "r"]))
    log_gas = Interaction(PairKernel(domain, kernel, kernel.slope))
    np.testing.assert_allclose(energy_symbol(EnergySum({"w": log_gas}), domain, 4)[1:], 2.0 / np.arange(1, 5), rtol=1e-9)
    symbol = energy_symbol(EnergySum({"entropy": Entropy(0.3), "power": Power(3.0, 2.0)}), domain, 2)
    np.testing.assert_allclose(symbol, 0.3 * 4.0 + 6.0 / 4.0, rtol=1e-14)  # U'' of 0.3 ρ log ρ + ρ³ at ρ = 1/4


def test_inputs_that_are_not_isotropic_have_no_modes():
    from mfpde.energy import Samples

    network = two_layer(CIRCLE, "tanh", Samples(np.array([[1.0, 0.2], [0.3, -0.5]])), UNIFORM, angle=True)
    with pytest.raises(ValueError, match="not isotropic"):
        energy_symbol(EnergySum({"network": network}), CIRCLE, 4)


def test_modes_about_a_uniform_teacher_are_fourier_modes():
    density = np.full(512, 0.5 / math.pi)
    symbol = relu_symbol(1.0, 32)
    rates = [mode.rate for mode in teacher_modes(symbol, density, 2.0 * math.pi, 8)]
    fourier = sorted((mode.rate for mode in uniform_modes(symbol, 2.0 * math.pi, 8) if not mode.null), reverse=True)
    np.testing.assert_allclose(rates, np.repeat(fourier, 2)[:8], rtol=1e-12)


def test_quantiles_of_a_fourier_density_are_exact():
    theta = 2.0 * math.pi * np.arange(64) / 64
    density = FourierDensity.of((1.0 + 0.5 * np.cos(3.0 * theta)) / (2.0 * math.pi), CIRCLE)
    x = exact_quantiles(density, 50).points[:, 0]
    np.testing.assert_allclose((x + np.sin(3.0 * x) / 6.0) / (2.0 * math.pi), (np.arange(50) + 0.5) / 50, atol=3e-16)


def test_features_of_relu_keep_to_the_tolerance_that_is_given():
    rough, fine = relu_network(Circle()), two_layer(CIRCLE, "relu", Circle(), UNIFORM, angle=True)
    assert rough.features.rank < fine.features.rank / 8
    point = np.array([[0.3]])
    whole, part = (float(np.sum(n.features.evaluate(point) ** 2)) for n in (fine, rough))
    assert whole == pytest.approx(0.25, abs=1e-9)
    assert 0.3 < math.sqrt((whole - part) / whole) / 1e-3 < 1.1


@pytest.mark.parametrize(("start", "wave"), [("0.001*cos(4*theta)", 4), ("0.5*cos(3*theta)", 3)], ids=["even", "null"])
def test_characteristics_follow_modes_to_round_off(start, wave):
    """An even mode decays at its rate to the square of its amplitude; 1 + 0.5 cos 3θ has no loss and does not move."""
    symbol = relu_symbol(1.0, 4)
    rate = uniform_modes(symbol, 2.0 * math.pi, 4)[wave - 1].rate
    initial = DensityFunction(parse(f"1 + {start}", ["theta"]), CIRCLE)
    run = Characteristics((64,), order=48).solve(Problem(EnergySum({"network": relu_network(Circle())}), CIRCLE, initial, (0.0, 100.0)))
    first, last = (2.0 * harmonics(measure, 2.0 * math.pi, 8)[wave].real for measure in run.measures)
    assert run.status is Status.DONE
    if wave == 3:
        np.testing.assert_allclose(run.measures[1].values, run.measures[0].values, atol=1e-12)
        assert run.total_energy[-1] < 1e-25
    else:
        assert math.log(first / last) / 100.0 == pytest.approx(rate, rel=1e-6)


def test_a_spectrum_shows_rates_null_modes_and_what_coupling_creates(tmp_path):
    path, out = tmp_path / "case.toml", tmp_path / "out"
    path.write_text(CASE)
    answer = call("study", path, "--output", out, "--no-figures")
    found = json.loads((out / "study.json").read_text())
    assert answer.code == 0, answer.err
    assert {file.name for file in out.iterdir()} >= {"study.csv", "study.h5"}
    rates = found["rates"]
    assert [(r["mode"], r["solver"]) for r in rates] == [(k, s) for s in ("fv", "atoms") for k in (1, 2, 4, 6)]
    assert max(r["error"] for r in rates) < 1e-4
    assert max(r["error"] for r in rates if r["solver"] == "atoms") < 1e-6
    h = 2.0 * math.pi / 192
    for r in rates[:4]:
        k = r["mode"]
        assert r["on_the_grid"] == pytest.approx(r["rate"] * np.sinc(0.5 * k * h / math.pi) ** 2, rel=2e-6)
    assert [(r["mode"], r["solver"]) for r in found["rest"]] == [(3, "fv"), (5, "fv"), (3, "atoms"), (5, "atoms")]
    assert max(r["moved"] for r in found["rest"]) < 1e-11
    one, two = relu_symbol(1.0, 2)[1:]
    for created in found["created"]:
        assert created["second_order"] == pytest.approx(-1.5 * (one + 2.0 * two) / (one + 4.0 * two), rel=1e-12)
        assert created["limit"] == pytest.approx(created["second_order"], rel=1e-3)
    own = found["own"]
    assert own["loss"][-1] < 1e-6
    assert own["w2"][-1] > own["w2_at_least"][-1] > own["w2_kept_from"] > 0.02
    assert "Theorem 4 of the slides) does not hold" in answer.out


@pytest.mark.long
def test_a_spectrum_is_drawn_and_resumed_to_the_same_numbers(tmp_path):
    path, out = tmp_path / "case.toml", tmp_path / "out"
    path.write_text(CASE)
    assert call("study", path, "--output", out).code == 0
    assert {file.name for file in out.iterdir()} >= {"study-spectrum.png", "study-modes.png"}
    first = (out / "study.csv").read_bytes()
    (out / "study" / "fv-k2.h5").unlink()
    answer = call("study", path, "--output", out, "--no-figures", "--resume")
    assert answer.code == 0
    assert "atoms-k2: complete already" in answer.out
    assert (out / "study.csv").read_bytes() == first


def test_second_order_of_a_mode_that_creates_its_double():
    """With K = cos 1, λ_1 = ½ on the unit circle: γ₂' = −γ₁²/2 and γ₁ = e^{−t/2}, as ρ̂₂' = −2·K̂_1 ρ̂_1²."""
    assert second_order(np.array([0.0, math.pi, 0.0]), 2.0 * math.pi, (1, 1)) == pytest.approx(-0.5, rel=1e-14)


def test_modes_about_a_teacher_decay_at_their_eigenvalues(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(CASE.replace('density = "1" }', 'density = "1 + 0.4*cos(theta) + 0.3*sin(2*theta - 0.3)" }'))
    answer = call("study", path, "--output", tmp_path, "--no-figures", "--set", 'study.solvers=["atoms"]', "study.modes=3")
    found = json.loads((tmp_path / "study.json").read_text())
    assert answer.code == 0, answer.err
    np.testing.assert_allclose([r["rate"] for r in found["rates"]], [0.0755739387, 0.0604784303, 0.0415339202], rtol=1e-8)
    assert max(r["error"] for r in found["rates"]) < 1e-6


def test_null_by_symmetry_is_less_than_null_to_round_off():
    cos = EnergySum({"network": two_layer(CIRCLE, "cos", Circle(0.5), UNIFORM, angle=True)})
    assert null_waves(energy_symbol(cos, CIRCLE, 12)) == [1, 3, 5, 7, 8, 9, 10, 11, 12]
    assert forbidden_waves(cos, CIRCLE, 12) == [1, 3, 5, 7, 9, 11]
    assert forbidden_waves(EnergySum({"network": relu_network(Circle())}), CIRCLE, 8) == [3, 5, 7]
    assert forbidden_waves(EnergySum({"entropy": Entropy(0.3)}), CIRCLE, 8) == []


def test_what_null_modes_can_still_change_is_the_product_of_the_others():
    """About the uniform density, to second order: twice Σ_j (k/j)|ρ̂_j ρ̂_{k−j}|."""
    one, two = 1e-4, 2e-4j
    density = np.array([1.0, one, two, *np.zeros(14)])
    away = np.array([0.0, *density[1:9]])
    left = still_to_come(density, away, [3, 5, 7], 2.0 * math.pi)
    np.testing.assert_allclose(left[0], 2.0 * (3.0 + 1.5) * abs(one * two), rtol=1e-3)
    assert max(left[1:]) < 1e-10


def test_theorem_4_is_open_while_the_other_modes_decay(tmp_path):
    """Coupling takes mode 3 almost to zero: −1.186·0.1·0.1 + 0.0118."""
    path = tmp_path / "case.toml"
    path.write_text(
        CASE.replace("1 + 0.6*cos(theta - 1) + 0.3*cos(2*theta)", "1 + 0.1*cos(theta) + 0.1*cos(2*theta) + 0.01186*cos(3*theta)")
    )
    choices = ("study.modes=3", 'study.solvers=["fv"]', "time.save=[0.0, 1.0]")
    answer = call("study", path, "--output", tmp_path, "--no-figures", "--set", *choices)
    assert answer.code == 0, answer.err
    assert "so far, at t = 1, null modes give W2 ≥ 0.0017" in answer.out
    assert "does not hold" not in answer.out
    assert json.loads((tmp_path / "study.json").read_text())["own"]["w2_kept_from"] == 0.0


def test_finite_volumes_leave_null_modes_about_a_teacher_at_rest(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(CASE.replace('density = "1" }', 'density = "1 + 0.5*cos(theta)" }'))
    choices = ('study.solvers=["fv"]', "study.modes=3", "time.save=[0.0, 20.0]")
    answer = call("study", path, "--output", tmp_path, "--no-figures", "--set", *choices)
    assert answer.code == 0, answer.err
    (rest,) = json.loads((tmp_path / "study.json").read_text())["rest"]
    assert rest["moved"] < 1e-12


def test_modes_without_a_rate_by_quadrature_are_below_round_off(tmp_path):
    path = tmp_path / "case.toml"
    head, _, tail = CASE.partition("[[energy]]")
    path.write_text(head + '[[energy]]\nkind = "interaction"\nkernel = "cos(theta)"\n' + tail[tail.index("[initial]") :])
    choices = ('study.solvers=["fv"]', "study.modes=2", "time.save=[0.0, 1.0]")
    answer = call("study", path, "--output", tmp_path, "--no-figures", "--set", *choices)
    assert answer.code == 0, answer.err
    assert "~0  below round-off" in answer.out
    assert [mode["exact"] for mode in json.loads((tmp_path / "study.json").read_text())["modes"]] == [True, False]


def test_an_unstable_mode_grows_at_its_rate(tmp_path):
    path = tmp_path / "case.toml"
    head, _, tail = CASE.partition("[[energy]]")
    energy = '[[energy]]\nkind = "interaction"\nkernel = "-2*cos(theta)"\n[[energy]]\nkind = "entropy"\ntemperature = 0.6\n'
    text = head + energy + tail[tail.index("[initial]") :]
    path.write_text(text[: text.index('[[solver]]\nkind = "particles"')] + '[study]\nkind = "spectrum"\nmodes = 2\n')
    answer = call("study", path, "--output", tmp_path, "--no-figures")
    found = json.loads((tmp_path / "study.json").read_text())
    assert answer.code == 0, answer.err
    np.testing.assert_allclose([r["rate"] for r in found["rates"]], [-0.4, 2.4], rtol=1e-12)
    assert max(r["error"] for r in found["rates"]) < 1e-4
    assert found["own"] is None


def test_what_is_missed_is_said(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    choices = ("study.modes=1", 'study.solvers=["atoms"]', "study.amplitude=0.1", "study.tolerance=1e-6", "time.save=[0.0, 1.0]")
    answer = call("study", path, "--output", tmp_path, "--no-figures", "--set", *choices)
    assert answer.code == 3
    assert "expected, but missed: atoms: mode 1 decays at" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("periodic = true", "", "modes need a periodic axis"),
        ("modes = 6", "modes = 9", "study.modes: got 9, for which fv needs at least 252 cells and has 192; accepted: up to 6"),
        ("modes = 6", 'modes = 6\nsolvers = ["atom"]', 'got "atom"; accepted: fv, atoms'),
        ("count = 600", "count = 600\nlearning_rate = 0.1", None),
        ('teacher = { density = "1" }', "teacher = { neurons = [[1.0]] }", "atoms as teacher leave none to linearise about"),
        ('teacher = { density = "1" }', 'teacher = { density = "1 - cos(theta)" }', "vanishes somewhere"),
        ("[initial]", '[[energy]]\nkind = "potential"\ndensity = "cos(theta)"\n[initial]', "with a potential the uniform density is not"),
    ],
    ids=["interval", "modes", "solver", "descent", "neurons", "zero", "potential"],
)
def test_what_has_no_modes_is_refused(tmp_path, old, new, words):
    path = tmp_path / "case.toml"
    text = CASE.replace(old, new)
    path.write_text(
        text.replace('parameter = "angle"', 'parameter = "angle"') if words else text.replace("modes = 6", 'modes = 6\nsolvers = ["atoms"]')
    )
    answer = call("check", path)
    assert answer.code == 2
    assert (words or "trains by steps of gradient descent, whose error is in its rates; accepted: fv") in answer.err
