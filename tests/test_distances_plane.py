"""Distances in two and more dimensions against closed forms, within the floors that they state."""

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import alone, box, bump, line, network, quadratic

from mfpde.case import InputError, load_case
from mfpde.case.build import build_problem
from mfpde.cli import _DISTANCES, main
from mfpde.compare import compare, function_distance
from mfpde.disk import Disk
from mfpde.distance import METHODS, check_method, entropic, wasserstein
from mfpde.distance.entropic import by_divergence
from mfpde.distance.sliced import by_directions
from mfpde.distance.transport import coarsened
from mfpde.domain import Axis, Domain
from mfpde.energy import EnergySum
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import STEP_FIELDS, Certificate, Run, Status
from mfpde.storage import StoredRun, write_run
from mfpde.tables import comparison_table

PLANE = box(2)
MOVE = np.array([0.3, -0.4])


def gaussian(spread: float, centre: object = 0.0, domain: Domain = PLANE, cells: int = 64) -> Density:
    return DensityFunction(bump(spread, np.asarray(centre)), domain).on(domain.even_grid(cells))


def space(dimension: int) -> Domain:
    return Domain(tuple(Axis(f"a{k}", -4.0, 4.0) for k in range(dimension)))


def cloud(count: int, dimension: int = 2, spread: float = 0.5) -> Particles:
    return Particles.equal(np.random.default_rng(0).normal(0.0, spread, (count, dimension)).clip(-3.0, 3.0))


def moved(atoms: Particles, by: np.ndarray) -> Particles:
    return Particles(atoms.points + by, atoms.weights)


# Sliced.


@pytest.mark.parametrize("dimension", [2, 3, 5])
@pytest.mark.parametrize("order", [1, 2])
def test_the_sliced_distance_of_a_translation_is_the_mean_of_its_projections(dimension: int, order: int) -> None:
    by = np.linspace(0.1, 0.4, dimension)
    atoms = cloud(200, dimension)
    found = wasserstein(atoms, moved(atoms, by), space(dimension), order, method="sliced")
    length = float(np.linalg.norm(by))
    if order == 2:
        assert found.value == pytest.approx(length / np.sqrt(dimension), rel=1e-12)
    else:
        mean = {2: 2 / np.pi, 3: 0.5, 5: 3 / 8}[dimension] * length  # E|θ·v|
        assert found.value == pytest.approx(mean, abs=2.0 * found.floor + 1e-3)


def test_the_sliced_distance_of_round_gaussians_is_the_difference_of_their_deviations() -> None:
    found = wasserstein(gaussian(0.5), gaussian(0.7, cells=96), PLANE, method="sliced")
    narrow, wide = (np.hypot(s, 8.0 / n / np.sqrt(6)) for s, n in ((0.5, 64), (0.7, 96)))  # averages of cells, which are flat
    assert found.value == pytest.approx(wide - narrow, abs=min(found.floor, 2e-4))
    assert found.floor < 1e-3


def test_a_density_moved_in_the_plane_has_the_sliced_distance_of_its_translation() -> None:
    found = wasserstein(gaussian(0.5), gaussian(0.5, MOVE), PLANE, method="sliced")
    assert found.value == pytest.approx(0.5 / np.sqrt(2), abs=1e-6)


def test_one_cell_projects_to_a_trapezium() -> None:
    domain = Domain((Axis("x", 0.0, 1.0), Axis("y", 0.0, 1.0)))
    square, centre = Density(domain.grid((1, 1)), np.ones((1, 1))), Particles.equal(np.array([[0.5, 0.5]]))
    found = wasserstein(square, centre, domain, method="sliced")
    assert found.value == pytest.approx(np.sqrt(1 / 12), abs=1e-6)


def test_sliced_distances_on_a_disk_are_those_of_the_plane() -> None:
    disk = Disk(("x", "y"), 3.0)
    one, two = (DensityFunction(bump(0.5, np.array(c)), disk).on(disk.grid((48, 96))) for c in ((0.0, 0.0), (0.3, -0.4)))
    found = wasserstein(one, two, disk, method="sliced")
    assert found.value == pytest.approx(0.5 / np.sqrt(2), abs=min(found.floor, 2e-3))


def test_a_million_atoms_take_little_memory() -> None:
    atoms = Particles.equal(np.random.default_rng(1).normal(0.0, 0.5, (1_000_000, 2)).clip(-4.0, 4.0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    density = gaussian(0.5)
    sliced = by_directions(atoms, density, PLANE, 2, count=4)
    for found in (sliced, wasserstein(atoms, density, PLANE, support=200, method="exact"), by_divergence(atoms, density, PLANE, nodes=40)):
        assert 0.0 <= found.value <= found.floor + 0.1
        assert np.isfinite(found.floor)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "kilobytes"


# Entropic.


def test_the_debiased_distance_of_a_translation_is_its_length() -> None:
    atoms = cloud(1000)
    found = by_divergence(atoms, moved(atoms, MOVE), PLANE, nodes=72)
    assert found.value == pytest.approx(0.5, abs=5e-3)
    assert abs(found.value - 0.5) <= found.floor < 0.08


@pytest.mark.parametrize("wide", [0.35, 0.7])
def test_the_debiased_distance_of_gaussians_is_that_of_bures(wide: float) -> None:
    found = by_divergence(gaussian(0.5), gaussian(wide, MOVE), PLANE, nodes=72)
    narrow, wide = (np.hypot(s, 0.125 / np.sqrt(6)) for s in (0.5, wide))
    exact = np.sqrt(0.25 + 2.0 * (wide - narrow) ** 2)
    assert found.value == pytest.approx(exact, abs=5e-3)
    assert abs(found.value - exact) <= found.floor < 0.1


def test_correlated_gaussians_agree_with_bures() -> None:
    covariances = [np.array([[0.3, 0.15], [0.15, 0.2]]), np.array([[0.2, -0.05], [-0.05, 0.3]])]
    functions = [lambda p, c=c: np.exp(-0.5 * np.sum(p @ np.linalg.inv(c) * p, axis=1)) for c in covariances]
    densities = [DensityFunction(f, PLANE).on(PLANE.even_grid(96)) for f in functions]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    middle = np.sum(np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root)))
    exact = np.sqrt(np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * middle)
    found = by_divergence(*densities, PLANE, nodes=72)
    assert abs(found.value - exact) <= found.floor
    assert found.value == pytest.approx(exact, abs=5e-3)


def test_the_debiased_distance_of_a_measure_to_itself_vanishes_within_its_floor() -> None:
    density = gaussian(0.5)
    found = by_divergence(density, density, PLANE, nodes=64)
    assert found.value <= 6e-3
    assert found.value <= found.floor


def test_entropic_transport_takes_the_short_way_round_a_torus() -> None:
    torus = Domain((Axis("x", 0.0, 1.0, True), Axis("y", 0.0, 1.0, True)))
    one = Particles.equal(0.3 * np.random.default_rng(0).random((300, 2)))
    two = Particles.equal(np.mod(one.points + 0.8, 1.0))
    found = by_divergence(one, two, torus, nodes=80)
    assert found.value == pytest.approx(np.sqrt(0.08), abs=1e-3)
    assert found.value == pytest.approx(wasserstein(one, two, torus, method="exact").value, abs=found.floor)


def test_entropic_transport_in_space_keeps_its_floor() -> None:
    atoms = cloud(2000, 3)
    found = by_divergence(atoms, moved(atoms, np.array([0.2, 0.1, -0.2])), box(3), nodes=24)
    assert abs(found.value - 0.3) <= found.floor
    assert found.value == pytest.approx(0.3, abs=0.02)


def test_points_and_lines_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entropic.NODES, 2, 40)
    one, two = (Particles.equal(np.array([[x, 0.0], [x, 0.0]])) for x in (0.0, 1.0))
    for method in ("exact", "entropic"):
        assert wasserstein(one, two, PLANE, method=method).value == pytest.approx(1.0, abs=1e-9)
        assert wasserstein(one, one, PLANE, method=method).value == pytest.approx(0.0, abs=1e-9)


# Which is taken.


def test_auto_keeps_exact_transport_where_that_resolves_the_distance() -> None:
    one, two = gaussian(0.5), gaussian(0.5, 1.2 * np.ones(2))
    assert wasserstein(one, two, PLANE, support=800) == wasserstein(one, two, PLANE, support=800, method="exact")


def test_auto_resolves_what_coarse_atoms_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entropic.NODES, 2, 112)
    one, two = gaussian(0.5), gaussian(0.5, np.array([0.06, 0.08]))
    rough, found = (wasserstein(one, two, PLANE, support=300, method=m) for m in ("exact", "auto"))
    assert rough.value < 2.0 * rough.floor
    assert found.floor < 0.5 * rough.floor
    assert found.value == pytest.approx(0.1, abs=2e-3)
    assert found.method.startswith("entropic")


def test_frozen_axes_are_compared_slice_by_slice_by_every_method() -> None:
    domain = Domain((*PLANE.axes, Axis("depth", 0.0, 1.0, frozen=True)))
    base = cloud(100).points
    places = [np.column_stack([base, np.full(100, depth)]) for depth in (0.25, 0.75)]
    steps = np.append(MOVE, 0.0)
    one = Particles.equal(np.concatenate(places))
    two = Particles.equal(np.concatenate([places[0] + steps, places[1] - steps]))
    for method, exact in (("auto", 0.5), ("exact", 0.5), ("sliced", 0.5 / np.sqrt(2))):
        found = wasserstein(one, two, domain, method=method)
        assert found.value == pytest.approx(exact, rel=1e-9)
        assert found.method.startswith("slice by slice")


def test_in_many_dimensions_atoms_are_joined_by_halves() -> None:
    points, weights, floor = coarsened(cloud(3000, 20), space(20), 500)
    assert 200 < len(weights) <= 500
    assert weights.sum() == pytest.approx(1.0)
    assert points.T @ weights == pytest.approx(np.mean(cloud(3000, 20).points, axis=0))
    assert 0.0 < floor < 0.5 * np.sqrt(20)


WRONG: dict[str, tuple[Domain, str, int, str]] = {
    "unknown": (PLANE, "quick", 2, "one of auto, exact, sliced, entropic, got 'quick'"),
    "sliced on a line": (line(), "sliced", 2, "two or more axes"),
    "entropic on a circle": (line(periodic=True), "entropic", 2, "two or more axes"),
    "sliced on a torus": (Domain((Axis("a", 0, 1, True), Axis("b", 0, 1))), "sliced", 2, r"periodic axes \(a\)"),
    "entropic of order 1": (PLANE, "entropic", 1, "order 2, got order 1"),
    "entropic in many dimensions": (space(4), "entropic", 2, "at most 3 moving axes, got 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_method_that_cannot_be_used_is_refused(name: str) -> None:
    domain, method, order, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        check_method(domain, method, order)


@pytest.mark.parametrize("method", METHODS)
def test_no_distance_is_made_of_what_is_no_measure(method: str) -> None:
    good = cloud(10)
    bad: dict[str, Callable[[], Particles]] = {
        "different masses": lambda: Particles(good.points, 0.5 * good.weights),
        "positive finite mass": lambda: Particles(good.points, 0.0 * good.weights),
        "finite mass": lambda: Particles(good.points, np.full(10, np.nan)),
        "points": lambda: Particles(np.full((10, 2), np.nan), good.weights),
        "nonnegative": lambda: Particles(good.points, np.array([-0.1, 0.3, *[0.1] * 8])),
    }
    for message, make in bad.items():
        with pytest.raises(ValueError, match=message):
            wasserstein(good, make(), PLANE, method=method)


# In comparisons.


def test_functions_of_networks_are_as_far_apart_as_their_residuals() -> None:
    one, two = Particles.equal(np.array([[0.5], [1.0]])), Particles.equal(np.array([[0.7], [0.9]]))
    domain = line()
    terms = {"a": network(domain), "b": network(domain, "sigmoid")}
    problem = Problem(EnergySum(terms), domain, one, (0.0,))
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()

    def gap(sigma: Callable[[np.ndarray], np.ndarray]) -> float:
        outputs = [np.mean(sigma(np.outer(x, m.points[:, 0])), axis=1) for m in (one, two)]
        return float(w @ (outputs[0] - outputs[1]) ** 2)

    exact = np.sqrt(gap(np.tanh) + gap(lambda z: 1 / (1 + np.exp(-z))))
    assert function_distance(problem, one, two) == pytest.approx(exact, rel=1e-6)
    assert function_distance(problem, one, one) == 0.0


def test_without_a_network_there_are_no_functions_to_compare() -> None:
    problem = Problem(alone(quadratic()), line(), cloud(3, 1), (0.0,))
    with pytest.raises(ValueError, match="no two_layer term"):
        function_distance(problem, cloud(3, 1), cloud(3, 1))


def stored(label: str, measures: list[Particles], domain: Domain) -> StoredRun:
    times = np.arange(len(measures), dtype=float)
    energy = {"loss": np.ones(len(measures))}
    run = Run(times, measures, energy, Certificate(np.empty((0, len(STEP_FIELDS)))), Status.DONE)
    return StoredRun(Path(f"{label}.h5"), domain, run, {"label": label, "title": "t"})


def test_a_comparison_says_which_distance_it_holds_and_how_far_functions_are_apart() -> None:
    atoms = cloud(50, 1)
    runs = [stored("one", [atoms], line()), stored("two", [moved(atoms, np.array([0.1]))], line())]
    problem = Problem(alone(network(line())), line(), atoms, (0.0,))
    plain, known = compare(runs), compare(runs, problem=problem)
    assert "function" not in plain.as_json()["pairs"][0]
    assert "function" not in comparison_table(plain)
    (value,) = known.as_json()["pairs"][0]["function"]
    assert value == function_distance(problem, *(run.run.measures[0] for run in runs)) > 0.0
    assert "function" in comparison_table(known).splitlines()[1]
    assert known.as_json()["distance"] == "W2"


def test_a_sliced_comparison_is_called_so() -> None:
    atoms = cloud(50)
    runs = [stored("one", [atoms], PLANE), stored("two", [moved(atoms, MOVE)], PLANE)]
    sliced = compare(runs, method="sliced")
    assert sliced.pairs[0].distance[0] == pytest.approx(0.5 / np.sqrt(2))
    assert sliced.as_json()["distance"] == "sliced W2"
    assert "sliced W2 floor" not in comparison_table(sliced)
    with pytest.raises(ValueError, match="two or more axes"):
        compare([stored(name, [cloud(5, 1)], line()) for name in "ab"], method="sliced")


CASE = """
[domain.a]
lower = -2.0
upper = 2.0

[domain.b]
lower = -2.0
upper = 2.0

[[energy]]
kind = "two_layer"
activation = "tanh"
inputs = { law = "samples", file = "data.csv", columns = ["x", "z"] }
teacher = { column = "y" }

[initial]
density = "exp(-4*(a**2 + b**2))"

[time]
save = [0.0, 0.1]

[[solver]]
kind = "finite_volume"
cells = [12, 12]

[[solver]]
kind = "particles"
count = 60

[compare]
distance = "sliced"
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("x,z,y\n1,0,0.5\n0,1,-0.2\n1,1,0.4\n-1,0.5,0.1\n")
    (tmp_path / "case.toml").write_text(CASE)
    assert main(["run", str(tmp_path / "case.toml"), "--output", str(tmp_path), "--no-figures"]) == 0
    return tmp_path


def test_a_case_says_how_distances_are_measured(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((results / "comparison.json").read_text())
    assert found["distance"] == "sliced W2"
    (pair,) = found["pairs"]
    assert pair["method"].startswith("sliced")
    assert min(pair["function"]) > 0.0
    files = [str(results / f"{name}.h5") for name in ("finite_volume", "particles")]
    capsys.readouterr()
    assert main(["compare", *files, "--distance", "sliced", "--output", str(results / "again")]) == 0
    text = capsys.readouterr().out
    assert "sliced W2 floor" in text
    assert "function" in text.splitlines()[1]
    (again,) = json.loads((results / "again" / "comparison.json").read_text())["pairs"]
    assert again["function"] == pytest.approx(pair["function"], rel=1e-12)
    (results / "data.csv").write_text("x,z,y\n1,0,0.5\n0,1,-0.2\n1,1,0.4\n-1,0.5,0.2\n")
    assert main(["compare", *files]) == 0
    text = capsys.readouterr().out
    assert "have changed" in text
    assert "function" not in text.splitlines()[1]


def test_the_command_line_knows_every_method() -> None:
    assert _DISTANCES == METHODS


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"sliced"', '"slice"', 'compare.distance: got "slice"; accepted: auto, exact, sliced, entropic'),
        ("upper = 2.0\n\n[[energy]]", "upper = 2.0\nfrozen = true\n\n[[energy]]", 'compare.distance: "sliced" is for two or more axes'),
    ],
)
def test_a_distance_that_cannot_be_measured_is_wrong_input(old: str, new: str, says: str, results: Path) -> None:
    path = results / "wrong.toml"
    path.write_text(CASE.replace(old, new))
    with pytest.raises(InputError, match=re.escape(says)):
        build_problem(load_case(path))


def test_a_comparison_of_stored_runs_on_a_line_refuses_sliced_distances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [stored(name, [cloud(5, 1)], line()) for name in "ab"]
    for run in runs:
        write_run(tmp_path / run.path, run.run, run.domain)
    assert main(["compare", *(str(tmp_path / run.path) for run in runs), "--distance", "sliced"]) == 2
    assert "two or more axes" in capsys.readouterr().err
