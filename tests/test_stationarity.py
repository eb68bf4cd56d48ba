"""What networks see of a measure, by singular values and by parity, stationary conditions along runs, and their study."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfpde.arrays import FloatArray
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum, Neurons, Normal, Uniform, ensemble_resnet, stationary_residual, two_layer
from mfpde.energy.parity import parity
from mfpde.energy.visibility import Spectrum, difference_on, split, spread_on_line
from mfpde.energy.wide_resnets import wide_resnet
from mfpde.measure import DensityFunction, Measure, Particles
from mfpde.problem import Problem
from mfpde.run import Certificate, Run, Status
from mfpde.solvers import FiniteVolume, ParticleFlow
from mfpde.storage import StoredRun
from mfpde.study.stationarity import Course, Network, Setting, Teacher, inputs_of, read_course
from mfpde.study.stationarity_plan import condition_of
from tests.command import call
from tests.conftest import box, line

LINE = line(-4.0, 4.0)
GRID = LINE.grid((96,))
TEACHER = Particles(np.array([[1.5], [-0.5]]), np.array([0.7, 0.3]))
MIRRORED = Particles(-TEACHER.points, TEACHER.weights)
EVEN, ODD = ("gaussian", "cos"), ("tanh", "erf", "arctan", "softsign", "sigmoid")
LINEAR = ("softplus", "gelu")


def some(size: int, seed: int = 0) -> FloatArray:
    """A difference of mass zero."""
    values = np.random.default_rng(seed).standard_normal(size)
    return values - np.mean(values)


def flipped(values: FloatArray) -> FloatArray:
    return values[::-1]


# Visibility.


@pytest.mark.parametrize("activation", [*EVEN, *ODD, *LINEAR, "relu", "quadratic", "identity"])
def test_singular_values_and_parity_agree(activation: str) -> None:
    network = two_layer(LINE, activation, Normal(), TEACHER)
    spectrum = Spectrum.of(network, GRID)
    found = spectrum.split(some(GRID.size))
    assert found.forbidden is not None
    assert spectrum.symmetry is not None
    unseen = network.features.moments(GRID.centers, found.forbidden * GRID.cell_volume)
    assert np.linalg.norm(unseen) <= 1e-13 * spectrum.values[0] * found.forbidden_norm
    assert found.leak <= 1e-9
    for function in spectrum.functions[: spectrum.rank]:
        np.testing.assert_allclose(spectrum.symmetry.seen(function), function, atol=1e-8)
    assert found.norm**2 == pytest.approx(found.visible_norm**2 + found.invisible_norm**2, rel=1e-12)
    assert found.invisible_norm**2 == pytest.approx(found.forbidden_norm**2 + found.faint_norm**2, rel=1e-9)


def test_parts_forbidden_by_parity_are_those_of_theory() -> None:
    values, theta = some(GRID.size), GRID.centers[:, 0]
    odd = 0.5 * (values - flipped(values))
    straight = theta * (odd @ theta) / (theta @ theta)

    def forbidden(activation: str) -> FloatArray:
        found = split(two_layer(LINE, activation, Normal(), TEACHER), GRID, values).forbidden
        assert found is not None
        return found

    for activation in EVEN:
        np.testing.assert_allclose(forbidden(activation), odd, atol=1e-13)
    for activation in ODD:  # the mass of a difference is zero, so that sigmoid sees no more than tanh
        np.testing.assert_allclose(forbidden(activation), values - odd, atol=1e-13)
    for activation in LINEAR:
        np.testing.assert_allclose(forbidden(activation), odd - straight, atol=1e-13)
    for activation, functions in (("quadratic", [theta**2]), ("relu", [theta, np.abs(theta)])):
        assert Spectrum.of(two_layer(LINE, activation, Normal(), TEACHER), GRID).rank == len(functions)
        basis, _ = np.linalg.qr(np.stack(functions, axis=1))
        np.testing.assert_allclose(forbidden(activation), values - basis @ (basis.T @ values), atol=1e-12)


def test_forbidden_parts_are_unseen_with_weights_levels_and_angles() -> None:
    plane = Domain((Axis("theta", -2.0, 2.0), Axis("w", -1.0, 2.0)))
    circle = line(-math.pi, math.pi, periodic=True)
    square = box(2, -1.5, 1.5)
    one = Neurons(np.array([[1.0, 0.5]]), np.ones((1, 1)))
    angle = Neurons(np.array([[1.0]]), np.ones((1, 1)))
    for network, grid in (
        (two_layer(plane, "softplus", Normal(), angle, output="trained"), plane.grid((12, 6))),
        (two_layer(square, "tanh", Normal(), one, bias=True), square.grid((10, 10))),
        (two_layer(circle, "relu", Normal(), angle, angle=True), circle.grid((32,))),
        (ensemble_resnet(square, "gaussian", Normal(), one), square.grid((10, 12))),
    ):
        found = split(network, grid, some(grid.size))
        assert found.forbidden is not None
        unseen = network.features.moments(grid.centers, found.forbidden * grid.cell_volume)
        assert np.linalg.norm(unseen) <= 1e-12 * found.forbidden_norm
        assert found.forbidden_norm > 0.3 * found.norm
        assert found.leak <= 1e-7


def test_where_no_parity_applies_the_reason_is_given() -> None:
    network = two_layer(line(-2.0, 4.0), "gaussian", Normal(), TEACHER)
    assert "not its own mirror image" in Spectrum.of(network, line(-2.0, 4.0).grid((50,))).symmetry_words
    aligned = Spectrum.of(network, line(-2.0, 4.0).grid((48,)))  # the cells beyond 2 have no mirror image and are seen whole
    forbidden = aligned.split(some(48)).forbidden
    assert forbidden is not None
    assert np.all(forbidden[32:] == 0.0)
    assert np.any(forbidden[:32] != 0.0)
    levels = ensemble_resnet(box(2, -1.0, 1.0), "tanh", Normal(), Neurons(np.array([[1.0, 0.5]]), np.ones((1, 1))))
    with pytest.raises(ValueError, match="2 levels with tanh have no parity"):
        parity(levels)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 2"):
        split(network, GRID, some(96), 2.0)
    with pytest.raises(ValueError, match="needs 48 values, got 3"):
        aligned.split(np.zeros(3))


@pytest.mark.parametrize(
    ("activation", "lower", "seen"), [("gaussian", -2.0, 11), ("tanh", -1.0, 12), ("softplus", -2.0, 13), ("relu", -2.0, 4)]
)
def test_several_outputs_see_sums_of_functions_of_single_rows(activation: str, lower: float, seen: int) -> None:
    """Functions of either parity fill half of a row's 12 cells, and all 3 of 9 that have no mirror image; even ones share constants."""
    square = Domain((Axis("a", lower, 2.0), Axis("b", -2.0, 2.0)))
    grid, neuron = square.grid((9 if lower > -2.0 else 12, 12)), Neurons(np.array([[1.0]]), np.ones((1, 2)))
    network = two_layer(square, activation, Normal(), neuron, outputs=2)
    a, b = grid.centers.T
    joint = split(network, grid, np.sin(a) * np.sin(b))
    if lower == -2.0:
        assert joint.forbidden_norm == pytest.approx(joint.norm, rel=1e-12)
    symmetry = parity(network).on(grid)
    projection = np.stack([symmetry.seen(cell) for cell in np.eye(grid.size)])
    np.testing.assert_allclose(projection @ projection, projection, atol=1e-12)
    np.testing.assert_allclose(projection, projection.T, atol=1e-12)
    assert round(float(np.trace(projection))) == seen
    features = network.features.evaluate(grid.centers)
    np.testing.assert_allclose(features @ projection, features, atol=1e-7)


def test_a_line_without_mirror_images_has_no_parity_in_its_distances() -> None:
    domain = line(0.0, 4.0)
    network = two_layer(domain, "gaussian", Normal(), TEACHER)
    found = course_of(network, domain, bell(2.0, domain).on(domain.grid((48,))), Teacher(TEACHER, bell(1.0, domain), ""))
    assert found.last("forbidden") == 0.0
    assert math.isnan(found.last("odd_w1"))
    assert math.isnan(found.last("even_w1"))


def test_the_visible_part_of_atoms_needs_no_deposit() -> None:
    network = two_layer(LINE, "tanh", Normal(), TEACHER)
    spectrum, values = Spectrum.of(network, GRID), some(GRID.size)
    found = spectrum.split(values)
    nothing = Particles(np.zeros((1, 1)), np.zeros(1))
    np.testing.assert_allclose(spectrum.visible_of(Particles(GRID.centers, values * GRID.cell_volume), nothing), found.visible, atol=1e-8)
    lam = network.features.moments(GRID.centers, values * GRID.cell_volume)
    assert found.residual == pytest.approx(float(np.linalg.norm(lam)), rel=1e-12)
    atoms = spectrum.visible_of(TEACHER, MIRRORED)  # the difference is odd, which tanh sees
    np.testing.assert_allclose(atoms, -flipped(atoms), atol=1e-7)


def test_atoms_at_quantiles_are_spread_to_their_density() -> None:
    density = bell(0.5)
    atoms = density.quantiles(2000)
    np.testing.assert_allclose(spread_on_line(atoms, GRID), np.ravel(density.on(GRID).values), atol=2e-3)
    assert np.sum(spread_on_line(TEACHER, GRID)) * GRID.cell_volume == pytest.approx(1.0, rel=1e-14)
    assert np.sum(difference_on(GRID, TEACHER, density.on(GRID))) == pytest.approx(0.0, abs=1e-12)


# Runs.


def bell(centre: float, domain: Domain = LINE) -> DensityFunction:
    return DensityFunction(lambda p: np.exp(-2.0 * (p[:, 0] - centre) ** 2), domain)


def course_of(network: Network, domain: Domain, measure: Measure, teacher: Teacher) -> Course:
    """A run of one saved time."""
    setting = Setting(network, domain, condition_of(network), "network", inputs_of(network, domain), teacher, None, 1e-6)
    run = Run(np.zeros(1), [measure], {}, Certificate(np.zeros((1, 9))), Status.DONE)
    return read_course(StoredRun(Path("run.h5"), domain, run, {"label": "run"}), [0.0], setting, {})


@pytest.mark.parametrize("law", [Normal(), Uniform(2.0)])
def test_the_squared_residual_is_twice_the_loss(law: object) -> None:
    for activation in ("softplus", "relu", "cos"):
        network = two_layer(LINE, activation, law, TEACHER)  # type: ignore[arg-type]
        measure = bell(0.5).on(GRID)
        found = course_of(network, LINE, measure, Teacher(TEACHER, None, ""))
        assert found.last("gap") <= 1e-9
        assert found.last("residual") ** 2 == pytest.approx(2.0 * network.value(measure), rel=1e-8)
        assert found.last("largest_residual") >= found.last("residual")


def test_a_mirrored_teacher_has_no_loss_and_does_not_move() -> None:
    """ρ − ρ* is odd, and the Gaussian sees none of it: (4) holds, and ρ is not ρ*."""
    network = two_layer(LINE, "gaussian", Normal(), TEACHER)
    run = ParticleFlow().solve(Problem(EnergySum({"network": network}), LINE, MIRRORED, (0.0, 10.0)))
    np.testing.assert_allclose(run.final.points, MIRRORED.points, atol=1e-14)
    found = course_of(network, LINE, run.final, Teacher(TEACHER, None, ""))
    assert found.last("largest_residual") <= 1e-15
    assert found.last("network_dissipation") <= 1e-30
    assert found.last("even_w1") <= 1e-15
    assert found.last("odd_w1") > 0.5
    assert found.last("distance") > 0.9
    smooth = two_layer(LINE, "gaussian", Normal(), bell(1.0))
    problem = Problem(EnergySum({"network": smooth}), LINE, bell(-1.0), (0.0, 10.0))
    density = FiniteVolume((128,)).solve(problem).final
    found = course_of(smooth, LINE, density, Teacher(bell(1.0).on(LINE.even_grid(1024)), bell(1.0), ""))
    assert found.last("loss") <= 1e-8
    assert found.invisible_share >= 0.9999
    assert found.last("distance") == pytest.approx(2.0, rel=2e-3)


def test_the_sign_mirror_of_a_teacher_with_output_weights_satisfies_13() -> None:
    plane = Domain((Axis("theta", -2.0, 2.0), Axis("w", -1.5, 1.5)))
    density = DensityFunction(lambda p: np.exp(-3.0 * ((p[:, 0] - 0.7) ** 2 + (p[:, 1] - 0.4) ** 2)), plane)
    network = two_layer(plane, "tanh", Normal(), density, output="trained")
    own = density.gauss_atoms(192)
    found = course_of(network, plane, Particles(-own.points, own.weights), Teacher(None, None, ""))
    assert condition_of(network) == "(13)"
    assert found.last("largest_residual") <= 1e-12
    grid = plane.grid((32, 24))
    there = np.ravel(density.on(grid).values)
    parts = split(network, grid, flipped(there) - there)
    assert parts.residual <= 1e-13
    assert parts.visible_norm <= 1e-7 * parts.norm
    assert parts.forbidden_norm == pytest.approx(parts.norm, rel=1e-12)


def test_the_sign_mirror_of_an_ensemble_satisfies_5() -> None:
    """An even σ does not see the sign of θ⁰, which tanh sees."""
    plane, points = box(2, -1.5, 1.5), np.array([[1.0, -0.5], [-0.3, 0.8]])
    teacher, mirrored = (Particles(at, np.array([0.6, 0.4])) for at in (points, points * [-1.0, 1.0]))
    for activation, equal in (("gaussian", True), ("tanh", False)):
        network = ensemble_resnet(plane, activation, Normal(), teacher)
        found = course_of(network, plane, mirrored, Teacher(teacher, None, ""))
        assert condition_of(network) == "(5)"
        assert (found.last("largest_residual") <= 1e-14) == equal
        assert found.last("largest_residual") >= np.max(np.abs(stationary_residual(network, mirrored, np.array([[0.5], [-1.0]]))))
        assert found.last("gap") <= 1e-8


def test_levels_in_another_order_satisfy_11_to_first_order_alone() -> None:
    plane = Domain((Axis("theta", -2.0, 2.0), Axis("depth", 0.0, 1.0, frozen=True)))
    units = np.array([[-1.5, 0.25], [1.0, 0.75]])
    teacher = Particles(units, np.full(2, 0.5))
    swapped = Particles(np.stack([units[:, 0], 1.0 - units[:, 1]], axis=1), teacher.weights)
    options = {"depth": 2, "approximation": "first", "teacher_approximation": "first"}
    first = wide_resnet(plane, "tanh", Normal(), teacher, **options)  # type: ignore[arg-type]
    found = course_of(first, plane, swapped, Teacher(teacher, None, ""))
    assert condition_of(first) == "(11)"
    assert found.last("largest_residual") <= 1e-15
    assert found.last("distance") == pytest.approx(2.5, rel=1e-12)
    exact = course_of(wide_resnet(plane, "tanh", Normal(), teacher, depth=2), plane, swapped, Teacher(teacher, None, ""))
    assert exact.last("residual") > 1e-3
    assert exact.spectrum is None


# The command.

CASE = """
title = "A Gaussian student"
[domain.theta]
lower = -4.0
upper = 4.0
[[energy]]
kind = "two_layer"
activation = "gaussian"
teacher = { density = "exp(-2*(theta - 1)**2)" }
[initial]
density = "exp(-(theta - 0.5)**2/2)"
[time]
save = [0.0, 1.0, 20.0]
[[solver]]
kind = "finite_volume"
label = "fv"
cells = [64]
[[solver]]
kind = "particles"
count = 400
start = "quantile"
[study]
kind = "stationarity"
expected = { residual = 0.1, invisible_growth = 0.9 }
"""


def written(folder: Path, text: str = CASE) -> Path:
    path = folder / "case.toml"
    path.write_text(text)
    return path


def test_the_study_reports_what_holds_at_the_times_reached(tmp_path: Path) -> None:
    answer = call("study", written(tmp_path), "--output", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "fv at t = 20" in answer.out
    assert "the even part can be seen" in answer.out
    data = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (data["condition"], data["study"], data["missed"]) == ("(4)", "stationarity", [])
    fv, particles = data["runs"]
    assert fv["label"] == "fv"
    assert max(fv["gap"]) <= 1e-10
    np.testing.assert_allclose(np.square(fv["residual"]), 2.0 * np.array(fv["loss"]), rtol=1e-6)
    np.testing.assert_allclose(fv["dissipation"], fv["network_dissipation"], rtol=0.05)
    np.testing.assert_allclose(fv["forbidden"], fv["invisible"], rtol=1e-3)
    np.testing.assert_allclose(particles["invisible"], fv["invisible"], rtol=0.02)
    np.testing.assert_allclose(particles["distance"], fv["distance"], rtol=0.02)
    assert fv["last"]["invisible_growth"] == pytest.approx(fv["invisible"][-1] / fv["invisible"][0])
    assert particles["minimum"] == [None, None, None]
    assert fv["holds"]["teacher"] is False
    assert data["spectra"][0]["null_space"] == 64 - data["spectra"][0]["rank"]
    rows = list(csv.DictReader((tmp_path / "out" / "study.csv").open()))
    assert [row["run"] for row in rows] == ["fv"] * 3 + ["particles"] * 3
    with h5py.File(tmp_path / "out" / "study.h5") as file:
        parts = file["fv_visible_part"][:] + file["fv_invisible_part"][:]
        np.testing.assert_allclose(parts, file["fv_difference"][:], atol=1e-14)
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"study-stationarity", "study-visibility"}


def test_a_missed_expectation_says_so(tmp_path: Path) -> None:
    changes = ["--set", "study.expected={residual=1e-9, invisible_share=0.999}", "--set", 'study.solvers=["fv"]', "--no-figures"]
    answer = call("study", written(tmp_path), "--output", tmp_path / "out", "--set", "time.save=[0.0, 1.0]", *changes)
    assert answer.code == 3
    assert "fv: residual" in answer.err
    assert "invisible share" in answer.err
    assert "expected at least 0.999" in answer.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace('"stationarity"', '"stationarity"\nsolvers = ["fw"]'),
            'study.solvers[0]: got "fw"; accepted: fv, particles',
        ),
        (lambda text: text.replace('"stationarity"', '"stationarity"\ntimes = [2.0]'), "study.times: 2 is not a saved time"),
        (lambda text: text.replace('"stationarity"', '"stationarity"\ncells = [8, 8]'), "study.cells: needs one number"),
        (lambda text: text.replace("{ residual = 0.1, invisible_growth = 0.9 }", "{}"), "needs at least one of residual, loss"),
        (lambda text: text.replace('kind = "two_layer"', 'kind = "potential"\ndensity = "theta**2"'), None),
    ],
)
def test_wrong_input_gives_one_message(change: Callable[[str], str], words: str | None, tmp_path: Path) -> None:
    text = change(CASE)
    if words is None:
        text = "\n".join(row for row in text.splitlines() if not row.startswith(("activation", "teacher")))
        words = 'study.kind: "stationarity" is about networks, and the energy has none (potential)'
    answer = call("study", written(tmp_path, text), "--output", tmp_path / "out")
    assert answer.code == 2
    assert words in answer.err
