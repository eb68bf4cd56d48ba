"""Convergence speed: kernels and rates against closed forms and independent integrations, spreads, folding, the command, wrong input."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mfpde.case.convergence_speed_schema import ConvergenceSpeedTable
from mfpde.energy import Neurons, Normal, Samples, TwoLayer, two_layer
from mfpde.figures.convergence_speed import make_clusters_figure, make_speed_figure
from mfpde.figures.style import use_style
from mfpde.measure import Density, Particles
from mfpde.run import Certificate, Run, Status
from mfpde.storage import StoredRun
from mfpde.study.clusters import clusters_of, gather, mean_velocities
from mfpde.study.convergence_speed import AtomicTeacher, Speed, _longest, fitted_slope, measure_speed, theory_of
from mfpde.study.convergence_speed_text import SpeedReport
from mfpde.study.linearised import bends, fixed_point, kernel_of, linearise, overlaps, rates_of, slopes, spread_law
from tests.command import Answer, call
from tests.conftest import box, line

X = np.linspace(-9.0, 9.0, 2001)
MU = np.exp(-0.5 * X * X) / np.sum(np.exp(-0.5 * X * X))
"""The trapezoidal rule for normal inputs, which is exact to round-off for smooth functions."""
BOTH = np.array([0, 1])


def energy_of(activation: str, atoms: list[float], alpha: list[float], scale: float = 1.0) -> TwoLayer:
    return two_layer(line(), activation, Normal(scale), Neurons(np.array(atoms)[:, None], np.array(alpha)[:, None]))


def teacher_of(atoms: list[float], alpha: list[float], even: bool = False) -> AtomicTeacher:
    return AtomicTeacher(np.array(atoms)[:, None], np.array(alpha), even)


def tanh_slopes(points: np.ndarray) -> np.ndarray:
    return np.asarray(X / np.cosh(np.multiply.outer(points, X)) ** 2)


def test_the_kernel_of_cos_is_its_closed_form() -> None:
    """E cos(xθ)cos(xθ') = ½(e^{−a(θ−θ')²/2} + e^{−a(θ+θ')²/2}), x ~ N(0, a)."""
    energy, a = energy_of("cos", [0.6, 1.5], [0.8, 0.2], 2.0), 4.0
    points = np.array([[0.6], [1.5]])

    def part(z: np.ndarray) -> np.ndarray:
        return a * (1.0 - a * z * z) * np.exp(-0.5 * a * z * z)

    exact = 0.5 * (part(points - points.T) - part(points + points.T))
    found = kernel_of(slopes(energy.features, points))[:, 0, :, 0]
    np.testing.assert_allclose(found, exact, atol=1e-8)
    curve = bends(energy.features, points)[:, :, 0, 0]
    assert curve[0] @ curve[0] == pytest.approx(0.5 * (3.0 * a**2 + _fourth(a, 1.2)), rel=1e-6)
    np.testing.assert_allclose(
        overlaps(kernel_of(slopes(energy.features, points)))[0, 1], abs(exact[0, 1]) / math.sqrt(exact[0, 0] * exact[1, 1])
    )


def _fourth(a: float, w: float) -> float:
    """The fourth derivative of e^{−aw²/2}."""
    return float((a**4 * w**4 - 6.0 * a**3 * w**2 + 3.0 * a**2) * math.exp(-0.5 * a * w * w))


def test_the_kernel_of_tanh_is_that_of_another_quadrature_and_its_rates_are_eigenvalues() -> None:
    energy, alpha = energy_of("tanh", [2.0, 0.2], [0.8, 0.2]), np.array([0.8, 0.2])
    atoms = np.array([[2.0], [0.2]])
    exact = (tanh_slopes(atoms[:, 0]) * MU) @ tanh_slopes(atoms[:, 0]).T
    kernel = kernel_of(slopes(energy.features, atoms))
    np.testing.assert_allclose(kernel[:, 0, :, 0], exact, rtol=1e-8)
    wanted = np.sort(np.linalg.eigvals(exact * alpha).real)
    np.testing.assert_allclose(rates_of(kernel, alpha), wanted, rtol=1e-8)
    flow = linearise(energy.features, atoms, alpha, BOTH, alpha)
    np.testing.assert_allclose(flow.rates, wanted, rtol=1e-7)
    assert flow.owner.tolist() == [0, 1]
    np.testing.assert_allclose(np.sum(flow.shares, axis=0), 1.0)


def integrated(teacher: AtomicTeacher, start: np.ndarray, masses: np.ndarray, times: np.ndarray) -> StoredRun:
    """The exact flow of a few tanh atoms, by another integrator and another quadrature than the package's."""

    def velocity(_: float, points: np.ndarray) -> np.ndarray:
        gap = np.tanh(np.multiply.outer(X, points)) @ masses - np.tanh(np.multiply.outer(X, teacher.atoms[:, 0])) @ teacher.alpha
        return np.asarray(-tanh_slopes(points) @ (MU * gap))

    found = solve_ivp(velocity, (0.0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-10, atol=1e-13)
    measures = [Particles(np.ascontiguousarray(row[:, None]), masses) for row in found.y.T]
    run = Run(times, measures, {"e": np.zeros(len(times))}, Certificate(np.zeros((1, 9))), Status.DONE)
    return StoredRun(Path("exact.h5"), line(), run, {"label": "exact"})


def tanh_speed(masses: list[float]) -> Speed:
    teacher = teacher_of([2.0, 0.2], [0.8, 0.2])
    energy = energy_of("tanh", [2.0, 0.2], [0.8, 0.2])
    base, _, found = fixed_point(energy.features, teacher.atoms, teacher.alpha, BOTH, np.array(masses))
    assert found
    times = np.concatenate([np.arange(0.0, 20.0), np.arange(20.0, 200.0, 10.0)])
    stored = integrated(teacher, base[:, 0] + np.array([3e-4, 4e-4]), np.array(masses), times)
    return measure_speed(stored, energy, teacher, 0.01)


def test_two_atoms_converge_at_the_eigenvalues_and_the_lighter_one_first() -> None:
    speed = tanh_speed([0.8, 0.2])
    for fit, rate in zip(speed.fits, speed.flow.rates, strict=True):
        assert fit.value == pytest.approx(rate, rel=1e-4)
        assert abs(fit.value - rate) <= fit.half_width
    ratio, half = speed.measured_ratios[0]
    assert ratio == pytest.approx(speed.predicted_ratios[0], rel=2e-3)
    assert half < 1e-3
    assert ratio < 0.1, "reversed by more than ten, though the weights are 4 to 1"
    assert speed.followed[0, 1] == 1
    assert speed.followed[-1, 1] == 0, "both means follow the slowest mode at last"
    assert speed.tenth[0] > 3.0 * speed.tenth[1]
    assert speed.settled_from == 0.0
    assert not any(fit.count for fit in speed.spread_fits)


def test_figures_show_every_run_and_cluster() -> None:
    speed, table = tanh_speed([0.8, 0.2]), ConvergenceSpeedTable(kind="convergence_speed")
    theory = theory_of(energy_of("tanh", [2.0, 0.2], [0.8, 0.2]), speed.teacher)
    report = SpeedReport("Tanh", table, "tanh", theory, (speed, speed))
    with use_style():
        one, other = make_speed_figure(report), make_clusters_figure(report)
    assert [len(figure.axes) for figure in (one, other)] == [6, 4]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in (*one.axes, *other.axes))
    assert all(len(axes.yaxis.get_majorticklocs()) for axes in one.axes), "no logarithmic axis for spreads that are all zero"
    legend = one.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "rate 0.01157 ± 1e-06, eigenvalue 0.01157",
        "rate 0.1644 ± 0.0001, eigenvalue 0.1644",
    ]


def test_other_masses_move_the_fixed_point_and_the_rates() -> None:
    speed = tanh_speed([0.75, 0.25])
    base, masses = speed.flow.base[:, 0], np.array([0.75, 0.25])
    gap = np.tanh(np.multiply.outer(X, base)) @ masses - np.tanh(np.multiply.outer(X, [2.0, 0.2])) @ np.array([0.8, 0.2])
    np.testing.assert_allclose(tanh_slopes(base) @ (MU * gap), 0.0, atol=1e-10)
    assert np.abs(base - [2.0, 0.2]).max() > 0.02
    for fit, rate in zip(speed.fits, speed.flow.rates, strict=True):
        assert fit.value == pytest.approx(rate, rel=2e-3)
    assert abs(rates_of(speed.flow.kernel, masses)[0] / speed.flow.rates[0] - 1.0) > 0.01, "the residual at rest has a part in them"


def test_a_lone_spread_decays_like_the_root_of_time_and_holds_the_means_off() -> None:
    energy, teacher = energy_of("cos", [1.0, 3.0], [0.8, 0.2], 4.0), teacher_of([1.0, 3.0], [0.8, 0.2], True)
    flow = linearise(energy.features, teacher.atoms, teacher.alpha, BOTH, teacher.alpha)
    assert flow.bending is not None
    times = np.array([0.0, 1.0, 1e4])
    law = spread_law(flow, np.array([1e-4, 1e-4]), times)
    exact = 1e-4 / (1.0 + 1.5 * 16.0**2 * teacher.alpha * 1e-4 * times[:, None])
    np.testing.assert_allclose(law, exact, rtol=1e-4)
    np.testing.assert_allclose(theory_of(energy, teacher).local, 8.0, rtol=1e-6)
    tanh = linearise(energy_of("tanh", [2.0, 0.2], [0.8, 0.2]).features, np.array([[2.0], [0.2]]), teacher.alpha, BOTH, teacher.alpha)
    assert tanh.lag is not None
    # where the drift of two symmetric pairs with this spread vanishes in the mean
    spread, held = np.array([1e-2, 2e-2]), tanh.lag @ np.array([1e-4, 4e-4])
    centres = np.array([2.0, 0.2]) + held
    points = np.concatenate([centres - spread, centres + spread])
    net = energy_of("tanh", [2.0, 0.2], [0.8, 0.2])
    velocity = net.gradient(Particles(points[:, None], np.tile(0.5 * teacher.alpha, 2)), points[:, None])[:, 0]
    off = net.gradient(Particles(points[:, None] - np.tile(held, 2)[:, None], np.tile(0.5 * teacher.alpha, 2)), points[:, None])[:, 0]
    assert np.abs(velocity.reshape(2, 2).mean(axis=0)).max() < 0.02 * np.abs(off.reshape(2, 2).mean(axis=0)).max()


def test_mirror_images_are_folded_for_even_activations_only() -> None:
    atoms = np.array([[1.0], [3.0]])
    measure = Particles(np.array([[1.1], [-0.9], [-3.2], [2.8]]), np.array([0.5, 0.3, 0.1, 0.1]))
    found = clusters_of(measure, folded := gather(measure, atoms, True), 2)
    np.testing.assert_allclose(found.masses, [0.8, 0.2])
    np.testing.assert_allclose(found.means[:, 0], [(0.5 * 1.1 + 0.3 * 0.9) / 0.8, 3.0])
    assert found.reflected == pytest.approx(0.4)
    np.testing.assert_allclose(clusters_of(measure, gather(measure, atoms, False), 2).masses, [0.9, 0.1])
    energy = energy_of("cos", [1.0, 3.0], [0.8, 0.2], 2.0)
    direct = -energy.gradient(measure, measure.points)[:, 0] * np.where(folded.mirrored, -1.0, 1.0)
    expected = [direct[:2] @ [0.5, 0.3] / 0.8, direct[2:].mean()]
    np.testing.assert_allclose(mean_velocities(energy, folded, atoms, 1.0)[:, 0], expected, rtol=1e-10)


def test_clusters_of_a_density_count_the_width_of_their_cells() -> None:
    grid = line().grid((8,))
    found = clusters_of(
        density := Density(grid, np.array([0, 0, 0, 0, 0.25, 0, 0.75, 0])), gather(density, np.array([[0.4], [3.0]]), False), 2
    )
    np.testing.assert_allclose(found.masses, [0.25, 0.75])
    np.testing.assert_allclose(found.means[:, 0], [0.5, 2.5])
    np.testing.assert_allclose(found.deviations[:, 0], math.sqrt(1.0 / 12.0))
    empty = clusters_of(density, gather(density, np.array([[0.4], [3.0], [-3.0]]), False), 3)
    assert np.isnan(empty.means[2]).all()


def test_a_plane_has_a_mode_for_each_axis_of_each_cluster() -> None:
    atoms, alpha = np.array([[1.5, 0.0], [0.0, 1.0]]), np.array([0.6, 0.4])
    energy = two_layer(box(2), "tanh", Samples(np.random.default_rng(0).normal(size=(40, 2))), Neurons(atoms, alpha[:, None]))
    flow = linearise(energy.features, atoms, alpha, BOTH, alpha)
    assert sorted(flow.owner.tolist()) == [0, 0, 1, 1]
    assert flow.bending is None
    velocities = -energy.gradient(Particles(atoms + 1e-5 * (up := np.array([[1.0, 2.0], [-1.0, 0.5]])), alpha), atoms + 1e-5 * up)
    np.testing.assert_allclose(flow.coordinates(velocities[None]), -flow.rates * flow.coordinates(1e-5 * up[None]), rtol=1e-3, atol=1e-10)


def test_windows_and_slopes() -> None:
    assert _longest(np.array([1, 1, 0, 1, 1, 1, 0], dtype=bool)).tolist() == [False, False, False, True, True, True, False]
    assert not _longest(np.zeros(3, dtype=bool)).any()
    slope, half = fitted_slope(np.arange(5.0), np.array([0.0, 1.0, 2.0, 3.0, 4.5]))
    assert slope == pytest.approx(1.1)
    assert half == pytest.approx(3.182 * math.sqrt(0.1 / 3.0 / 10.0), rel=1e-3)


COS = """
title = "Cos"
[domain.theta]
lower = -1.5
upper = 3.5
[[energy]]
kind = "two_layer"
activation = "cos"
inputs = { law = "normal", scale = 4.0 }
teacher = { neurons = [[1.0], [3.0]], weights = [0.8, 0.2] }
[initial]
atoms = [[1.02], [1.04], [-1.02], [-1.04], [3.02], [3.04]]
weights = [0.2, 0.2, 0.2, 0.2, 0.1, 0.1]
[time]
save = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 2.8, 20.0, 50.0, 100.0, 200.0]
[[solver]]
kind = "particles"
[study]
kind = "convergence_speed"
expected = { ratio = 4.0, regime = "decoupled", first = "heaviest" }
"""


def study(folder: Path, *changes: str) -> Answer:
    path = folder / "case.toml"
    path.write_text(COS)
    return call("study", path, "--output", folder, "--no-figures", *(("--set", *changes) if changes else ()))


def test_decoupled_clusters_show_the_ratio_of_the_weights(tmp_path: Path) -> None:
    answer = study(tmp_path)
    assert answer.code == 0, answer.err
    assert "equal local kernels, mass split as the teacher's: α_1/α_2 = 4.00 applies; measured 4.00" in answer.out
    data = json.loads((tmp_path / "study.json").read_text())
    run = data["runs"][0]
    assert run["measured_ratio"] == pytest.approx(4.0, abs=0.01)
    assert run["masses"] == pytest.approx([0.8, 0.2], abs=1e-14)
    assert run["reflected_mass"] == pytest.approx(0.4)
    assert run["claim_applies"]
    assert abs(run["measured_ratio"] - 4.0) <= run["measured_ratio_half_width"] <= 0.02
    for fit, rate in zip(run["measured"], [1.6, 6.4], strict=True):
        assert fit["value"] == pytest.approx(rate, rel=5e-4)
        assert abs(fit["value"] - rate) <= fit["half_width"] <= 0.02 * rate
        assert abs(fit["curve"] - rate) > 3.0 * fit["scatter"], "the scatter of a smooth curve is not its error"
    assert 0.3 < run["spread_exponents"][0]["value"] < 0.5
    assert "half_width" not in run["spread_exponents"][0]
    law = run["spread_law_at_the_end"]
    with h5py.File(tmp_path / "study.h5") as file:
        np.testing.assert_allclose(file["mass"][0], [[0.8, 0.2]] * 24, atol=1e-14)
        np.testing.assert_allclose(file["deviations"][0, -1, :, 0], law, rtol=0.01)
    assert (tmp_path / "study.csv").read_text().count("\n") >= 48


def test_what_is_not_so_is_missed(tmp_path: Path) -> None:
    wrong = 'study.expected={ratio=3.0, regime="coupled", first="lightest"}'
    answer = study(tmp_path, wrong, "time.save=[0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4]", "study.linearity=0.02")
    assert answer.code == 3
    for words in (
        "the ratio of the rates is 4, not 3",
        "the clusters are decoupled, not coupled",
        "the lightest atom's cluster is not the faster",
    ):
        assert words in answer.err, words
    answer = study(tmp_path / "few", "time.save=[0.0, 0.1]") if (tmp_path / "few").mkdir() is None else answer
    assert answer.code == 3
    assert "no rate could be measured" in answer.err


def test_without_its_conditions_the_ratio_of_the_weights_is_not_claimed(tmp_path: Path) -> None:
    answer = study(
        tmp_path, "initial.weights=[0.15, 0.15, 0.15, 0.15, 0.2, 0.2]", "study.expected={regime='decoupled'}", "time.save=[0, 0.1, 1]"
    )
    assert "α_1/α_2 = 4.00 does not apply: the student's mass is not split as the teacher's" in answer.out


def test_a_spread_has_no_exponent_where_masses_do_not_match(tmp_path: Path) -> None:
    """Teacher of mass 1.5: the curvature of the residual is B = 8(α − m)."""
    answer = study(tmp_path, "energy.0.teacher.weights=[1.2, 0.3]", "study.expected={regime='decoupled'}", "time.save=[0, 1, 2, 3, 4, 5]")
    assert answer.out.count("no power of t, since masses other than the teacher's make it exponential, at the rate") == 2
    assert "at the rate 3.2" in answer.out
    assert "local exponent" not in answer.out


FLAT = {
    "energy.0.activation": "'gaussian'",
    "energy.0.inputs": "{law='normal', scale=1.0}",
    "energy.0.teacher": "{neurons=[[0.0], [2.0]], weights=[0.8, 0.2]}",
    "initial": "{atoms=[[0.1], [2.05]], weights=[0.8, 0.2]}",
    "time.save": "[0, 1, 2, 4, 8]",
    "study.expected": "{regime='decoupled'}",
}
SINGULAR = FLAT | {"energy.0.activation": "'quadratic'", "energy.0.teacher": "{neurons=[[1.2], [0.5]], weights=[0.3, 0.7]}"}
SINGULAR |= {"initial": "{atoms=[[1.21], [0.5]], weights=[0.3, 0.7]}", "time.save": "[0, 0.1, 0.2, 0.3, 0.4, 0.5]"}
WALL = FLAT | {"domain.theta": "{lower=0.0, upper=1.5}", "energy.0.activation": "'tanh'", "time.save": "[0, 1, 2, 4, 8, 200]"}
WALL |= {"energy.0.teacher": "{neurons=[[0.3], [1.5]]}", "initial": "{atoms=[[0.31], [1.45]], weights=[0.55, 0.45]}"}


def altered(folder: Path, changes: dict[str, str]) -> tuple[Answer, dict[str, Any]]:
    answer = study(folder, *(f"{key}={value}" for key, value in changes.items()))
    return answer, json.loads((folder / "study.json").read_text())


def test_a_flat_kernel_has_neither_overlap_nor_rate(tmp_path: Path) -> None:
    """σ'(0) = 0 for a gaussian at c = 0."""
    answer, data = altered(tmp_path, FLAT)
    assert answer.code == 3
    for words in ("H_11 = 0: overlaps with this cluster are undefined", "eigenvalue 0: no linear relaxation in this direction"):
        assert words in answer.out, words
    assert "the clusters are of undefined overlap (H_11 = 0), not decoupled" in answer.err
    assert (data["regime"], data["eigenvalues"][0], data["runs"][0]["predicted_ratio"]) == ("undefined", 0.0, None)
    assert data["overlap"][0] == [None, None]


def test_a_round_off_eigenvalue_is_zero_and_no_rate(tmp_path: Path) -> None:
    answer, data = altered(tmp_path, SINGULAR)
    assert data["runs"][0]["eigenvalues"][0] == 0.0
    assert data["runs"][0]["predicted_ratio"] is None
    assert "The eigenvalues' ratio is undefined" in answer.out.replace("\n      ", " ")


def test_a_fixed_point_beyond_a_wall_is_told(tmp_path: Path) -> None:
    answer, data = altered(tmp_path, WALL)
    assert answer.code == 3
    assert "the fixed point 1.621 of cluster 2 lies outside the domain, so that this cluster ends at the wall" in answer.out
    assert data["runs"][0]["outside_the_domain"] == [2]
    assert data["runs"][0]["eigenvalues"] == [None, None]
    assert not any(fit["count"] for fit in data["runs"][0]["measured"])


def test_all_modes_of_a_plane_decide_who_is_first(tmp_path: Path) -> None:
    """relu on inputs with E x xᵀ = diag(1, 1) where it sees one atom, diag(1, 9) where the other."""
    (tmp_path / "x.csv").write_text("x,y\n1.4142135623730951,1.4142135623730951\n1.4142135623730951,-1.4142135623730951\n")
    (tmp_path / "x.csv").open("a").write("-1.4142135623730951,4.242640687119286\n-1.4142135623730951,-4.242640687119286\n")
    changes = {
        "domain": "{a={lower=-3.0, upper=3.0}, b={lower=-2.0, upper=2.0}}",
        "energy.0.activation": "'relu'",
        "energy.0.inputs": "{law='samples', file='x.csv', columns=['x', 'y']}",
        "energy.0.teacher": "{neurons=[[2.0, 0.0], [-2.0, 0.0]], weights=[0.8, 0.2]}",
        "initial": "{atoms=[[2.05, 0.04], [-2.05, 0.04]], weights=[0.8, 0.2]}",
        "time.save": "[0, 1, 2, 3, 4]",
        "study.expected": "{first='heaviest'}",
    }
    answer, data = altered(tmp_path, changes)
    np.testing.assert_allclose(data["runs"][0]["predicted_ratios"], [4.0, 4.0 / 9.0])
    assert answer.code == 3
    assert "the local kernels differ (‖H_11 − H_22‖ = 0.889 ‖H_22‖)" in answer.out
    assert "not the faster one in all modes: the ratios of the rates are 4, 0.4444" in answer.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("energy.0.teacher={density='1'}", "needs a teacher of a few `neurons`, to which clusters can converge, got a density"),
        ("energy.0.teacher={neurons=[[1.0]]}", "compares at least two neurons, got 1"),
        ("energy.0.teacher.weights=[1.2, -0.2]", "weights must be positive, got -0.2"),
        ("energy.0.teacher.neurons=[[1.0], [-1.0]]", "[1.0] and [-1.0] are the same neuron, as cos is even"),
        ("study.solvers=['particle']", 'got "particle"; accepted: particles (did you mean "particles"?)'),
        ("study.expected={}", "needs at least one of ratio, regime, first"),
        ("energy.0.decay=0.1", "networks without it, got 0.1"),
    ],
)
def test_wrong_input_is_one_clear_message(tmp_path: Path, change: str, words: str) -> None:
    answer = study(tmp_path, change)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["convergence_speed", "convergence_reversed"])
def test_the_shipped_studies_show_what_they_expect(name: str, tmp_path: Path) -> None:
    path = Path(__file__).parent.parent / "cases" / f"{name}.toml"
    answer = call("study", path, "--output", tmp_path)
    assert answer.code == 0, answer.err
    assert {"study-speed.png", "study-clusters.png"} <= {path.name for path in tmp_path.iterdir()}
    for run in json.loads((tmp_path / "study.json").read_text())["runs"]:
        for fit, rate in zip(run["measured"], run["eigenvalues"], strict=True):
            assert abs(fit["value"] - rate) <= fit["half_width"]
        assert abs(run["measured_ratio"] - run["predicted_ratio"]) <= run["measured_ratio_half_width"]
        if name == "convergence_speed":
            assert run["measured_ratio"] == pytest.approx(4.0, abs=1e-3)
        else:
            assert run["measured_ratio"] < 0.1
