"""Studies of convergence: fitted orders, errors against exact densities and finest runs, the command, and its answers to wrong input."""

import csv
import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mfpde import (
    Axis,
    Density,
    DensityFunction,
    Domain,
    EnergySum,
    Entropy,
    FiniteVolume,
    Grid,
    ParticleFlow,
    Particles,
    Potential,
    Problem,
    Status,
)
from mfpde.arrays import FloatArray
from mfpde.distance import wasserstein
from mfpde.figures import draw_refinement
from mfpde.figures.refinement import make_refinement_figure
from mfpde.run import Certificate, Run, StepFailed
from mfpde.solvers.finite_volume.solver import FiniteVolumeFlow
from mfpde.study import Order, RefinementStudy, fitted_order, pairwise_orders, refinement_study
from mfpde.study.references import ExactDensity, coarsened
from mfpde.study.refinement import NORMS, Expectation, Level, cell_widths, measure_refinement, refining
from mfpde.study.text import order_text, refinement_text
from tests.command import call

WIDTHS = 1.0 / np.array([8.0, 16.0, 32.0, 64.0, 128.0])

HEAT = """title = "Heat"

[domain.x]
lower = 0.0
upper = 1.0

[[energy]]
kind = "entropy"
temperature = 0.1

[initial]
density = "1 + 0.5*cos(pi*x)"

[time]
save = [0.0, 0.5, 1.0]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [64]
tolerance = 1e-10

[[solver]]
kind = "particles"
count = 100
step = 0.05

[study]
kind = "refinement"
cells = [8, 16, 32, 64]
exact = "1 + 0.5*exp(-0.1*pi**2*t)*cos(pi*x)"
"""


def heat_density(points: FloatArray, time: float) -> FloatArray:
    return np.asarray(1.0 + 0.5 * np.exp(-0.1 * np.pi**2 * time) * np.cos(np.pi * points[:, 0]))


def heat() -> Problem:
    domain = Domain((Axis("x", 0.0, 1.0),))
    start = DensityFunction(lambda points: heat_density(points, 0.0), domain)
    return Problem(EnergySum({"entropy": Entropy(0.1)}), domain, start, save_at=(0.0, 0.5, 1.0))


def volumes(cells: tuple[int, ...]) -> FiniteVolume:
    return FiniteVolume(cells, 1e-10)


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.7])
def test_a_power_law_gives_its_order_to_round_off(order: float) -> None:
    found = fitted_order(WIDTHS, 3.0 * WIDTHS**order)
    assert found.value == pytest.approx(order, abs=1e-12)
    assert found.constant == pytest.approx(3.0, rel=1e-12)
    assert found.standard_error < 1e-12
    assert found.low <= found.value <= found.high
    np.testing.assert_allclose(pairwise_orders(WIDTHS, 3.0 * WIDTHS**order)[1:], order, atol=1e-12)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.7])
def test_differences_to_the_finest_of_a_power_law_give_its_order_to_round_off(order: float) -> None:
    coarse, finest = WIDTHS[:-1], float(WIDTHS[-1])
    error = 3.0 * (coarse**order - finest**order)
    assert fitted_order(coarse, error, finest).value == pytest.approx(order, abs=1e-12)
    np.testing.assert_allclose(fitted_order(coarse, error, finest).error(coarse), error, rtol=1e-11)
    np.testing.assert_allclose(pairwise_orders(coarse, error, finest)[1:], order, atol=1e-12)
    assert fitted_order(coarse, error).value > order + 0.03, "a straight line through them is too steep"


@pytest.mark.parametrize("finest", [0.0, float(WIDTHS[-1]) / 2.0])
def test_the_interval_covers_the_order_in_95_of_100_noisy_studies(finest: float) -> None:
    generator = np.random.default_rng(7)
    trials, held = 1000, 0
    for _ in range(trials):
        error = (WIDTHS**2 - finest**2) * np.exp(0.05 * generator.standard_normal(len(WIDTHS)))
        found = fitted_order(WIDTHS, error, finest)
        held += found.low <= 2.0 <= found.high
    print(f"covered in {held} of {trials}")
    assert held / trials == pytest.approx(0.95, abs=3.0 * math.sqrt(0.95 * 0.05 / trials))


def test_the_interval_is_that_of_student_for_a_known_example() -> None:
    found = fitted_order(np.exp([0.0, 1.0, 2.0]), np.exp([0.0, 1.0, 2.5]))
    deviation = math.sqrt(1.0 / 24.0 / 2.0)  # residuals 1/12, −1/6, 1/12 on one degree of freedom, over Σ(x − 1)² = 2
    assert found.value == pytest.approx(1.25)
    assert found.standard_error == pytest.approx(deviation)
    assert found.high - found.value == pytest.approx(12.706204736 * deviation)


def test_two_errors_give_an_order_without_an_interval() -> None:
    found = fitted_order([1.0, 0.5], [4.0, 1.0])
    assert found.value == pytest.approx(2.0)
    assert math.isnan(found.standard_error)
    assert math.isnan(found.low)


def test_errors_that_fall_too_slowly_for_any_order_have_none() -> None:
    assert math.isnan(fitted_order(WIDTHS[:-1], np.ones(4), float(WIDTHS[-1])).value)
    assert fitted_order(WIDTHS, np.ones(5)).value == pytest.approx(0.0)


def test_pairwise_orders_skip_what_is_not_known() -> None:
    found = pairwise_orders(WIDTHS, np.array([4.0, math.nan, 1.0, 0.5, 0.0]))
    assert np.isnan(found[[0, 1, 2, 4]]).all()
    assert found[3] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("h", "error", "reference", "says"),
    [
        ([1.0], [1.0], 0.0, "two or more"),
        ([1.0, 0.5], [1.0], 0.0, "as many errors"),
        ([1.0, 0.5], [1.0, 0.0], 0.0, "errors must be positive"),
        ([1.0, -0.5], [1.0, 1.0], 0.0, "widths must be positive"),
        ([1.0, math.inf], [1.0, 1.0], 0.0, "finite"),
        ([0.5, 0.5], [1.0, 1.0], 0.0, "differ"),
        ([1.0, 0.5], [1.0, 0.5], 0.5, "below all others"),
    ],
)
def test_orders_of_nothing_are_refused(h: list[float], error: list[float], reference: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fitted_order(h, error, reference)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heat_studies() -> dict[str, RefinementStudy]:
    grids = [(8,), (16,), (32,), (64,)]
    return {
        "exact": refinement_study(heat(), volumes, grids, exact=heat_density),
        "finest": refinement_study(heat(), volumes, grids[::-1]),
        "run": refinement_study(heat(), volumes, grids, reference=volumes((512,)).solve(heat())),
    }


@pytest.mark.parametrize("reference", ["exact", "finest", "run"])
def test_the_heat_equation_is_solved_to_second_order_in_every_norm(reference: str, heat_studies: dict[str, RefinementStudy]) -> None:
    study = heat_studies[reference]
    print(text_of(study))
    assert study.norms == NORMS
    np.testing.assert_allclose(study.order, 2.0, atol=0.15)
    assert (study.standard_error < 0.05).all()
    assert study.cells[:, 0].tolist() == [8, 16, 32, 64], "coarse to fine, however they were given"
    np.testing.assert_allclose(study.width, 1.0 / study.cells[:, 0])
    assert np.isnan(study.error[:, :, -1]).all() == (reference == "finest")
    assert study.loss_terms == ("entropy",)


def test_errors_are_those_of_the_definitions(heat_studies: dict[str, RefinementStudy]) -> None:
    run = volumes((16,)).solve(heat())
    grid, density = Grid(heat().domain, (16,)), run.final
    assert isinstance(density, Density)
    edges = grid.edges(0)
    decay = 0.5 * math.exp(-0.1 * math.pi**2)
    exact = 1.0 + decay * np.diff(np.sin(np.pi * edges)) / np.pi * 16.0
    gap = np.abs(np.ravel(density.values) - exact)
    fine = np.linspace(0.0, 1.0, 8193)
    levels = fine + decay * np.sin(np.pi * fine) / np.pi
    nearly_exact = Density(Grid(heat().domain, (8192,)), np.diff(levels) * 8192.0)
    # ∫(1 + a cos πx) log(1 + a cos πx) dx = 1 − s + log((1 + s)/2) with s = √(1 − a²)
    root = math.sqrt(1.0 - decay**2)
    entropy = 0.1 * (1.0 - root + math.log(0.5 * (1.0 + root)))
    expected = [
        float(np.mean(gap)),
        float(np.sqrt(np.mean(gap**2))),
        wasserstein(density, nearly_exact, heat().domain).value,
        abs(float(run.energy["entropy"][-1]) - entropy),
    ]
    found = heat_studies["exact"].error[:, 0, 1]
    assert found[[0, 1, 3]] == pytest.approx([expected[0], expected[1], expected[3]], rel=1e-6)
    assert found[2] == pytest.approx(expected[2], rel=0.01), "up to the steps of the fine density that stands for the exact one"


def test_the_energy_of_an_exact_density_is_extrapolated() -> None:
    exact = ExactDensity(heat_density, heat().energy, Grid(heat().domain, (64,)))
    decay = 0.5 * math.exp(-0.1 * math.pi**2)
    root = math.sqrt(1.0 - decay**2)
    value, doubt = exact.energies(1.0)["entropy"]
    assert value == pytest.approx(0.1 * (1.0 - root + math.log(0.5 * (1.0 + root))), abs=1e-13)
    assert doubt < 1e-11
    assert exact.mass(1.0) == pytest.approx(1.0, abs=1e-14)


def test_a_density_is_averaged_onto_a_coarser_grid_with_its_mass() -> None:
    domain = Domain((Axis("a", 0.0, 1.0), Axis("b", 0.0, 2.0)))
    fine = Density(Grid(domain, (4, 6)), np.arange(24.0).reshape(4, 6))
    coarse = coarsened(fine, Grid(domain, (2, 2)))
    np.testing.assert_allclose(coarse.values, fine.values.reshape(2, 2, 2, 3).mean(axis=(1, 3)))
    assert coarse.mass == pytest.approx(fine.mass)
    with pytest.raises(ValueError, match=r"\[4, 6\] cells cannot be averaged over \[3, 2\] cells"):
        coarsened(fine, Grid(domain, (3, 2)))


def test_errors_at_round_off_are_left_out_of_the_fit() -> None:
    problem = heat()
    start = replaced_times(problem, (0.0,))
    study = refinement_study(start, volumes, [(8,), (16,), (32,)], exact=heat_density, norms=["l1", "l2"])
    assert (study.error <= study.floor).all()
    assert not study.used.any()
    assert np.isnan(study.order).all()
    assert "not resolved" in text_of(study)


def test_a_distance_below_its_floor_in_the_plane_is_not_resolved() -> None:
    domain = Domain((Axis("a", -2.0, 2.0), Axis("b", -2.0, 2.0)))
    start = DensityFunction(lambda points: np.exp(-2.0 * np.sum(points**2, axis=1)), domain)
    problem = Problem(EnergySum({"well": Potential(lambda p: np.sum(p**2, axis=1) / 2.0, lambda p: p)}), domain, start, (0.2,))
    study = refinement_study(problem, lambda cells: FiniteVolume(cells), [(6, 6), (12, 12), (24, 24)], norms=["l1", "w2"])
    assert (study.floor[1, 0, :2] > 0.1 * study.width[:2]).all()
    assert not study.used[1, 0, :2].any()
    assert study.used[0, 0, :2].all()
    text = text_of(study)
    assert "W2 floor" in text
    assert "not resolved" in text


def test_against_particles_there_is_a_distance_and_a_loss_and_no_density() -> None:
    domain = Domain((Axis("x", -3.0, 3.0),))
    start = DensityFunction(lambda points: np.exp(-(points[:, 0] ** 2)), domain)
    problem = Problem(EnergySum({"well": Potential(lambda p: p[:, 0] ** 2 / 2.0, lambda p: p)}), domain, start, (1.0,))
    atoms = Particles.equal(start.quantiles(4000).points * math.exp(-1.0))
    energy = {"well": np.array([problem.energy.value(atoms)])}
    run = Run(np.array([1.0]), [atoms], energy, Certificate(np.zeros((0, 6))), Status.DONE)
    grids = [(24,), (48,), (96,)]
    study = refinement_study(problem, lambda cells: FiniteVolume(cells), grids, reference=run, norms=["w2", "loss"])
    assert (study.order > 1.0).all()
    with pytest.raises(ValueError, match="particles, which have no density"):
        refinement_study(problem, lambda cells: FiniteVolume(cells), grids, reference=run)


def test_fixed_steps_show_the_order_in_time() -> None:
    steps = [0.1, 0.05, 0.025, 0.0125]
    study = refinement_study(heat(), lambda step: FiniteVolume((32,), step=step), steps=steps, norms=["l1", "l2"])
    assert study.variable == "dt"
    assert study.width.tolist() == steps
    print(text_of(study))
    np.testing.assert_allclose(study.order, 2.0, atol=0.1)
    both = refinement_study(
        heat(), lambda cells, step: FiniteVolume(cells, step=step), [(8,), (16,), (32,)], steps=steps[:3], exact=heat_density
    )
    assert both.variable == "h"
    np.testing.assert_allclose(both.order, 2.0, atol=0.15)
    assert both.step.tolist() == steps[:3]


def test_a_run_that_stopped_early_is_left_out() -> None:
    exact = ExactDensity(heat_density, heat().energy, Grid(heat().domain, (64,)))
    runs = [volumes((n,)).solve(heat()) for n in (8, 16, 32)]
    short = Run(
        runs[1].times[:2], runs[1].measures[:2], {"entropy": runs[1].energy["entropy"][:2]}, runs[1].certificate, Status.STEP_TOO_SMALL
    )
    levels = [Level(str(n), (n,), run) for n, run in zip((8, 16, 32), (runs[0], short, runs[2]), strict=True)]
    study = measure_refinement(heat().domain, levels, exact, NORMS, (0.5, 1.0))
    assert np.isnan(study.error[:, 1, 1]).all()
    assert np.isfinite(study.error[:, 0]).all()
    np.testing.assert_allclose(study.order[[0, 1], 1], 2.0, atol=0.15)
    assert "STEP_TOO_SMALL" in text_of(study)


def test_the_width_of_a_grid_is_along_the_axes_that_are_refined() -> None:
    domain = Domain((Axis("a", 0.0, 1.0), Axis("b", 0.0, 4.0)))
    np.testing.assert_allclose(cell_widths(domain, [(4, 8), (8, 8), (16, 8)]), [0.25, 0.125, 0.0625])
    np.testing.assert_allclose(cell_widths(domain, [(4, 4), (8, 8)]), [0.5, 0.25])


@pytest.mark.parametrize(
    ("grids", "steps", "says"),
    [
        ([(8,)], None, "at least two"),
        ([(8,), (16,), (8,)], None, "given twice"),
        ([(8, 4), (4, 16)], None, "refines the other"),
        ([(8,), (16,)], [0.1, 0.2], "must not grow"),
        ([(8,), (8,), (16,)], [0.2, 0.1, 0.1], "given twice"),
        ([(8,), (8,)], [0.1, 0.1], r"the grid \[8\] with the step 0.1 is given twice"),
    ],
)
def test_grids_that_do_not_refine_are_refused(grids: list[tuple[int, ...]], steps: list[float] | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        refining(grids, steps)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"norms": ["l3"]}, "norms must be some of l1, l2, w2, loss; got 'l3'"),
        ({"times": [0.7]}, "times must be some of 0.0, 0.5, 1.0; got 0.7"),
        ({"norms": []}, "got none"),
        ({"steps": [0.1]}, "go in pairs, got 2 and 1"),
    ],
)
def test_a_study_of_what_there_is_not_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        refinement_study(heat(), volumes, [(8,), (16,)], **changes)


def test_particles_have_no_grid_to_refine() -> None:
    with pytest.raises(ValueError, match="densities on a grid, not particles"):
        refinement_study(heat(), lambda cells: ParticleFlow(10 * cells[0], step=0.1), [(8,), (16,)], exact=heat_density)


def replaced_times(problem: Problem, times: tuple[float, ...]) -> Problem:
    return Problem(problem.energy, problem.domain, problem.initial, times)


def text_of(study: RefinementStudy) -> str:
    return refinement_text(study, "fv", Expectation())


def test_orders_that_differ_or_are_low_are_answered_with_what_may_be_behind_them() -> None:
    study = refinement_study(heat(), volumes, [(8,), (16,), (32,)], exact=heat_density, norms=("l1",))
    coarse, steps, boundaries = "do not resolve the solution yet", "a smaller `tolerance`", "free boundaries and kinks limit the order"

    def told(text: str) -> list[bool]:
        return [words in text for words in (coarse, steps, boundaries)]

    assert told(text_of(study)) == [False, False, False]
    assert told(text_of(replace(study, pairwise=study.pairwise + 1.0))) == [True, False, True]
    assert told(text_of(replace(study, pairwise=study.pairwise - 1.0))) == [False, True, True]
    assert told(refinement_text(study, "fv", Expectation({"l1": 3.0}))) == [True, False, True]
    assert told(refinement_text(study, "fv", Expectation({"l1": 1.0}))) == [False, False, False]


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_the_figure_shows_every_norm_with_its_order(heat_studies: dict[str, RefinementStudy], tmp_path: Path) -> None:
    paths = draw_refinement(heat_studies["exact"], "Heat", "fv", tmp_path, ("png", "pdf", "svg"))
    assert [path.name for path in paths] == ["study-refinement.png", "study-refinement.pdf", "study-refinement.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)
    figure = make_refinement_figure(heat_studies["finest"], "Heat", "fv")
    assert figure is not None
    left, right = figure.axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("cell width $h$", "wall time [s]")
    legend = right.get_legend()
    assert legend is not None
    assert ["order" in entry.get_text() for entry in legend.get_texts()] == [True] * 4
    assert len({line.get_marker() for line in left.lines if line.get_marker() != "None"}) == 4, "told apart without colours"


@pytest.mark.filterwarnings("error")
def test_a_study_without_an_error_has_no_figure(tmp_path: Path) -> None:
    exact = ExactDensity(heat_density, heat().energy, Grid(heat().domain, (16,)))
    empty = Run(np.zeros(0), [], {"entropy": np.zeros(0)}, Certificate(np.zeros((0, 6))), Status.NOT_FINITE)
    study = measure_refinement(heat().domain, [Level(str(n), (n,), empty) for n in (8, 16)], exact, NORMS, (1.0,))
    assert draw_refinement(study, "", "fv", tmp_path) == []
    assert "NOT_FINITE" in text_of(study)


# --- the command ------------------------------------------------------------------------------------------------------


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "heat.toml"
    path.write_text(HEAT)
    return path


def facts(folder: Path) -> Any:
    """study.json without what differs from run to run: times of day and seconds."""
    data = json.loads((folder / "study.json").read_text())
    for run in data["runs"]:
        assert run.pop("wall_seconds") > 0.0
    for name in ("created", "overrides"):
        del data["provenance"][name]
    return data


def test_a_study_writes_its_runs_tables_and_figure(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("study", case, "--output", out, "--set", "study.times=[0.5, 1.0]", "--format", "svg", "png")
    assert (answer.code, answer.err) == (0, "")
    runs = {f"study/fv-n{n}.h5" for n in (8, 16, 32, 64)}
    assert written(out) == {"study", "study.json", "study.csv", "study.h5", "study-refinement.svg", "study-refinement.png"} | runs
    lines = [line for line in answer.out.splitlines() if not line.startswith("    flux: ")]
    assert len(answer.out.splitlines()) == len(lines) + 1
    assert lines[0] == f"Heat  ({case} → {out}/)"
    assert lines[1] == "  the exact density has mass 1 at t = 0.5, 1"
    assert lines[6] == "  refinement of fv against the exact density at t = 0.5 (loss = entropy)"
    assert lines[7].split() == ["cells", "h", "steps", "seconds", "L1", "order", "L2", "order", "W2", "order", "loss", "gap", "order"]
    assert [line.split()[0] for line in lines[8:12]] == ["8", "16", "32", "64"]
    assert lines[12].startswith("    L1: order ")
    assert float(lines[12].split()[2].rstrip(",")) == pytest.approx(2.0, abs=0.02)
    assert "95 % interval" in lines[12]
    assert lines[-1] == f"  figures: study-refinement (svg, png) in {out}/"


def test_the_files_of_a_study_hold_the_same_numbers(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("study", case, "--output", out, "--no-figures").code == 0

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    data = json.loads((out / "study.json").read_text(), parse_constant=refuse)
    assert (data["kind"], data["solver"], data["variable"], data["times"]) == ("refinement", "fv", "h", [1.0])
    assert [run["cells"] for run in data["runs"]] == [[8], [16], [32], [64]]
    assert data["provenance"]["case"] == HEAT
    assert len(data["provenance"]["case_sha256"]) == 64
    assert "numpy" in data["provenance"]["versions"]
    by_norm = {result["norm"]: result for result in data["results"]}
    assert list(by_norm) == list(NORMS)
    for result in by_norm.values():
        assert result["order"]["value"] == pytest.approx(2.0, abs=0.15)
        assert result["pairwise_order"][0] is None
        assert result["in_fit"] == [True] * 4
    rows = list(csv.DictReader((out / "study.csv").open(encoding="utf-8")))
    assert len(rows) == 16
    for row in rows:
        k = ["8", "16", "32", "64"].index(row["cells"])
        assert float(row["error"]) == by_norm[row["norm"]]["error"][k]
        assert float(row["fitted_order"]) == by_norm[row["norm"]]["order"]["value"]
        assert (row["step"], row["pairwise_order"] == "") == ("", k == 0)
    with h5py.File(out / "study.h5") as file:
        assert [dimension.label or dimension[0].name for dimension in file["error"].dims] == ["/norm", "/time", "/run"]
        np.testing.assert_array_equal(file["error"][:, 0, :], [by_norm[norm]["error"] for norm in NORMS])
        assert file.attrs["case"] == HEAT
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_dataset(out / "study.h5", engine="h5netcdf") as table:
        assert table["order"].dims == ("norm", "time")
        assert float(table["order"].sel(norm="l1")[0]) == by_norm["l1"]["order"]["value"]
        assert table["run"].values.tolist() == [run["label"] for run in data["runs"]]


def test_runs_of_a_study_can_be_had_by_themselves(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("study", case, "--output", out, "--no-figures", "--set", "time.save=[0.0, 0.1]")
    with h5py.File(out / "study" / "fv-n16.h5") as file:
        overrides = json.loads(file.attrs["overrides"])
        expected = file["density"][:]
    assert overrides == ["time.save=[0.0, 0.1]", "solver.fv.cells=[16]"]
    assert call("run", case, "--output", tmp_path / "one", "--only", "fv", "--no-figures", "--set", *overrides).code == 0
    with h5py.File(tmp_path / "one" / "fv.h5") as file:
        np.testing.assert_array_equal(file["density"][:], expected)


def test_the_finest_run_as_reference_shows_the_same_order(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call(
        "study", case, "--output", out, "--no-figures", "--set", "study.reference=finest", "study.expected={l1 = 2.0, w2 = 2.0, loss = 2.0}"
    )
    assert (answer.code, answer.err) == (0, "")
    assert "the exact density is not used" in answer.out
    assert "orders p of C (h^p − f^p)" in answer.out
    assert answer.out.count("expected 2 ± 0.15: yes") == 3
    assert [run["order"]["errors"] for run in facts(out)["results"]] == [3] * 4


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Call it to have SIGINT arrive in a step of the run with this label; step 0 for never."""
    wanted: list[Any] = ["", 0]

    class Bell:
        def __init__(self, name: str, end: float) -> None:
            self.name = name

        def at(self, time: float, steps: int) -> None:
            if self.name == wanted[0] and steps >= wanted[1] > 0:
                signal.raise_signal(signal.SIGINT)

        def compiling(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr("mfpde.batch.Bar", Bell)

    def choose(label: str, step: int) -> None:
        wanted[:] = [label, step]

    return choose


def test_an_interrupted_study_resumes_to_the_same_table(case: Path, tmp_path: Path, interrupt: Callable[[str, int], None]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    quick = ("--no-figures", "--set", "time.save=[0.0, 0.05, 0.1]", "solver.fv.tolerance=1e-8")
    assert call("study", case, "--output", whole, *quick).code == 0
    interrupt("fv-n32", 7)
    stopped = call("study", case, "--output", out, *quick, "--checkpoint", "0")
    assert stopped.code == 130
    assert "fv-n32: stopped at time" in stopped.err
    assert "--resume" in stopped.err
    assert not (out / "study.json").exists()
    assert {"study/fv-n8.h5", "study/fv-n16.h5", "study/fv-n32.parts"} <= written(out)
    interrupt("fv-n64", 3)
    assert call("study", case, "--output", out, *quick, "--resume").code == 130
    interrupt("", 0)
    kept = (out / "study" / "fv-n8.h5").read_bytes()
    resumed = call("study", case, "--output", out, *quick, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert "fv-n8: complete already" in resumed.out
    assert (out / "study" / "fv-n8.h5").read_bytes() == kept
    assert facts(out) == facts(whole)
    assert call("study", case, "--output", out, *quick, "--resume").out.count("complete already") == 4
    assert facts(out) == facts(whole)


def test_changed_grids_keep_the_runs_that_are_the_same(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("study", case, "--output", out, "--no-figures", "--set", "study.cells=[8, 16]")
    answer = call("study", case, "--output", out, "--no-figures", "--resume", "--set", "study.cells=[16, 32]")
    assert "fv-n16: complete already" in answer.out
    assert "fv-n32: DONE" in answer.out
    changed = call("study", case, "--output", out, "--no-figures", "--resume", "--set", "study.cells=[16, 32]", "solver.fv.tolerance=1e-9")
    assert "complete already" not in changed.out


def test_a_run_of_a_study_that_cannot_be_read_is_made_again(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = ("--output", out, "--no-figures", "--set", "study.cells=[8, 16]")
    assert call("study", case, *quick).code == 0
    with h5py.File(out / "study" / "fv-n8.h5", "r+") as file:
        file.attrs["format"] = 1
    answer = call("study", case, *quick, "--resume")
    assert (answer.code, answer.err) == (0, "")
    assert "  fv-n8: the stored run cannot be read (" in answer.out
    assert "is of format 1, made by an older mfpde; run the case again); starting anew" in answer.out
    assert "fv-n16: complete already" in answer.out


@pytest.mark.parametrize("name", ["study.json", "study.csv", "study.h5", "study-refinement.png", "study/fv-n16.h5"])
def test_a_folder_where_a_study_writes_a_file_is_named_before_any_work(name: str, case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    before = written(out)
    answer = call("study", case, "--output", out)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"mfpde: {out / name}: is a folder, so the file cannot be written there")
    assert written(out) == before


@pytest.mark.parametrize("name", ["out", "out/study"])
def test_a_file_where_a_study_needs_a_folder_is_named_before_any_work(name: str, case: Path, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    answer = call("study", case, "--output", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"mfpde: {tmp_path / name}: is not a folder, so nothing can be written to ")


def test_an_exact_solution_that_is_reproduced_meets_every_order(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    still = ("initial.density=1 + 0*x", "study.exact=1 + 0*x", "study.expected={l1 = 2.0, l2 = 2.0, w2 = 2.0, loss = 2.0}")
    answer = call("study", case, "--output", out, "--format", "svg", "--set", *still)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("exact to round-off (largest error ") == 4
    assert answer.out.count("; expected 2 ± 0.15: yes") == 4
    assert [result["exact_to_round_off"] for result in facts(out)["results"]] == [True] * 4
    assert facts(out)["missed"] == []
    away = call("study", case, "--output", out, "--no-figures", "--set", "study.expected={l1 = 3.0}")
    assert away.code == 3, "an error that is not round-off has an order"


def test_what_has_no_order_says_how_many_errors_it_takes() -> None:
    assert order_text(Order(*[math.nan] * 4, 1, math.nan)) == "no order (1 error above the floor; two give an order, three an interval)"
    slow = fitted_order([0.5, 0.25], [1.0, 0.9], 0.125)
    assert order_text(slow) == "no order (the 2 errors above the floor fall too slowly or too fast for any)"


def test_a_missed_order_gives_exit_code_3(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("study", case, "--output", out, "--no-figures", "--set", "study.expected={l1 = 3.0, l2 = 2.0}", "study.allowance=0.2")
    assert answer.code == 3
    assert "expected 3 ± 0.2: MISSED" in answer.out
    assert "expected 2 ± 0.2: yes" in answer.out
    (line,) = answer.err.splitlines()
    assert line.startswith("mfpde: expected order missed: L1 at t = 1: order 2.")
    assert len(facts(out)["missed"]) == 1


def test_a_run_that_stops_early_gives_exit_code_3_and_a_table_of_the_others(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leap = FiniteVolumeFlow.leap

    def failing(flow: FiniteVolumeFlow, state: Any, until: float) -> Any:
        if flow.grid.cells == (16,) and until > 0.5:
            raise StepFailed(Status.NOT_FINITE, "lost at sea")
        return leap(flow, state, until)

    monkeypatch.setattr(FiniteVolumeFlow, "leap", failing)
    answer = call("study", case, "--output", tmp_path / "out", "--no-figures")
    assert answer.code == 3
    assert "fv-n16: NOT_FINITE: lost at sea" in answer.err
    assert "3 errors" in answer.out
    results = facts(tmp_path / "out")["results"]
    assert results[0]["error"][1] is None
    assert results[0]["order"]["value"] == pytest.approx(2.0, abs=0.15)


def test_another_solver_can_be_the_reference(case: Path, tmp_path: Path) -> None:
    text = HEAT.replace(
        "[study]", '[[solver]]\nkind = "finite_volume"\nlabel = "fine"\ncells = [512]\ntolerance = 1e-10\n\n[study]\nreference = "fine"'
    )
    case.write_text(text)
    answer = call("study", case, "--output", tmp_path / "fine", "--no-figures", "--set", "study.expected={l1 = 2.0, w2 = 2.0}")
    assert (answer.code, answer.err) == (0, "")
    assert "against fine at t = 1" in answer.out
    particles = call("study", case, "--output", tmp_path / "cloud", "--no-figures", "--set", "study.reference=particles")
    assert (particles.code, particles.err) == (0, "")
    assert "no l1 and l2: the reference particles has no density on a grid" in particles.out
    assert {result["norm"] for result in facts(tmp_path / "cloud")["results"]} == {"w2", "loss"}
    assert "no energy term is finite" in particles.out, "atoms have no entropy"


def test_fixed_steps_of_a_case(case: Path, tmp_path: Path) -> None:
    setting = ("--set", "study.steps=[0.1, 0.05, 0.025]", "study.cells=[8, 16, 32]")
    answer = call("study", case, "--output", tmp_path / "out", "--no-figures", *setting)
    assert (answer.code, answer.err) == (0, "")
    assert (tmp_path / "out" / "study" / "fv-n16-dt0.05.h5").is_file()
    assert [run["step"] for run in facts(tmp_path / "out")["runs"]] == [0.1, 0.05, 0.025]
    assert "the solver's own tolerance is not used: the study gives steps" in answer.out
    case.write_text(HEAT.replace("cells = [8, 16, 32, 64]", "steps = [0.1, 0.05, 0.025, 0.0125]"))
    alone = call(
        "study", case, "--output", tmp_path / "time", "--no-figures", "--set", "study.reference=finest", "study.expected={l1 = 2.0}"
    )
    assert (alone.code, alone.err) == (0, "")
    assert facts(tmp_path / "time")["variable"] == "dt"


def test_grids_in_the_plane_are_lists_and_tolerances_go_with_them(case: Path, tmp_path: Path) -> None:
    text = HEAT.replace("[[energy]]", "[domain.y]\nlower = 0.0\nupper = 2.0\n\n[[energy]]").replace("cells = [64]", "cells = [8, 8]")
    text = text.replace(
        "cells = [8, 16, 32, 64]", 'cells = [[16, 16], [8, 8], [4, 4]]\ntolerances = [1e-9, 1e-8, 1e-7]\nnorms = ["l1", "l2"]'
    )
    case.write_text(text.replace('exact = "1 +', 'exact = "0.5 +').replace("+ 0.5*exp", "+ 0.25*exp"))
    answer = call("study", case, "--output", tmp_path / "out", "--no-figures", "--set", "study.expected={l1 = 2.0}", "time.save=[0.2]")
    assert (answer.code, answer.err) == (0, "")
    runs = facts(tmp_path / "out")["runs"]
    assert [(run["label"], run["tolerance"]) for run in runs] == [("fv-n4x4", 1e-7), ("fv-n8x8", 1e-8), ("fv-n16x16", 1e-9)]
    assert "16 × 16" in answer.out


def test_check_says_what_the_study_will_do_and_run_that_it_is_left_alone(case: Path, tmp_path: Path) -> None:
    lines = call("check", case).out.splitlines()
    assert (
        lines[-2] == "  study: refinement of fv: fv-n8, fv-n16, fv-n32, fv-n64; against the exact density at t = 1; norms l1, l2, w2, loss"
    )
    assert lines[-1] == "  study: the exact density has mass 1 at t = 1"
    answer = call("run", case, "--output", tmp_path / "out", "--only", "fv", "--no-figures", "--set", "study.solver=nobody")
    assert answer.code == 0, "the study is checked where it is carried out"
    assert f"  [study] is left alone; `mfpde study {case}` carries it out" in answer.out
    assert written(tmp_path / "out") == {"fv.h5"}


def test_an_exact_density_that_does_not_begin_as_the_case_does_is_pointed_out(case: Path) -> None:
    text = call("check", case, "--set", "initial.density=1 + 0.4*cos(pi*x)").out
    assert "the exact density at t = 0 is not the initial density: they are 0.0637 apart in l1" in text
    singular = call("check", case, "--set", "study.exact=1 + 0.5*exp(-0.1*pi**2*t)*cos(pi*x) + 0*log(t)")
    assert singular.code == 0, "what is singular at time 0 is not compared there"


# --- wrong input ------------------------------------------------------------------------------------------------------

PLACE = "heat.toml:"
WRONG = {
    "unknown kind": (
        "study.kind=refinment",
        'study.kind: got "refinment"; accepted: refinement, particle_limit, time_step, cross_check, teacher_recovery',
    ),
    "unknown key": ("study.cels=[8]", "study.cels: unknown key; accepted here: kind, solver, cells, steps, tolerances, reference, exact"),
    "unknown solver": ("study.solver=fvv", 'study.solver: got "fvv"; accepted: fv (did you mean "fv"?)'),
    "solver without a grid": ("study.solver=particles", 'study.solver: "particles" (particles) has no grid to refine; accepted: fv'),
    "no label": ("study.solver=a b", 'study.solver: got "a b"; accepted: up to 64 letters'),
    "unknown reference": ("study.reference=finst", 'study.reference: got "finst"; accepted: exact, finest, particles'),
    "its own reference": ("study.reference=fv", "the solver that is refined is no reference for itself"),
    "grids of another dimension": (
        "study.cells=[[8, 8], [16, 16]]",
        "study.cells[0]: needs one number for each of the 1 axes (x), got [8, 8]",
    ),
    "one grid": ("study.cells=[8]", "study.cells: needs at least two to compare, got 1"),
    "no grid": ("study.cells=[]", "study.cells: needs at least two to compare, got 0"),
    "a grid twice": ("study.cells=[8, 16, 8]", "study.cells: the grid [8] is given twice"),
    "half a cell": ("study.cells=[8, 16.5]", "study.cells[1]: must be an integer, got 16.5"),
    "no cells": ("study.cells=[[8], [0]]", "study.cells[1][0]: must be at least 1, got 0"),
    "too many cells": ("study.cells=[8, 100000000]", "study.cells[1]: must be at most 10000000, got 100000000"),
    "a step beyond all times": (
        ("study.steps=[2.0, 0.5, 0.25, 0.125]"),
        "study.steps[0]: steps end at the saved times, so none up to t = 1 is longer than 0.5; must be at most that, got 2",
    ),
    "a step beyond the first time of the study": (
        ("time.save=[0.1, 1.0]", "study.times=[0.1]", "study.steps=[0.2, 0.1, 0.05, 0.025]"),
        "study.steps[0]: steps end at the saved times, so none up to t = 0.1 is longer than 0.1; must be at most that, got 0.2",
    ),
    "steps that grow": (
        ("study.cells=[8, 16]", "study.steps=[0.01, 0.02]"),
        "study.steps: the step must not grow from [8] to [16] cells",
    ),
    "a list for the study": ("study=[{}]", "study: must be a table, got [{}]"),
    "a number for the study": ("study=3", "study: must be a table, got 3"),
    "no norms": ("study.norms=[]", "study.norms: must not be empty, got []"),
    "an empty exact density": ('study.exact=""', 'study.exact: must not be empty, got ""'),
    "unequal lists": ("study.tolerances=[1e-8]", "study: needs as many cells (4) as tolerances (1)"),
    "grids that do not divide": (
        ("study.reference=finest", "study.cells=[8, 12, 32]"),
        "study.cells: [12] cells do not divide the finest, [32], so there is no l1 and l2 error; give an exact density",
    ),
    "unknown norm": ('study.norms=["l3"]', 'study.norms[0]: got "l3"; accepted: l1, l2, w2, loss'),
    "a norm twice": ('study.norms=["l1", "l1"]', "study: `norms` holds one of its elements twice"),
    "a time that is not saved": ("study.times=[0.7]", "study.times: 0.7 is not a saved time; accepted: 0, 0.5, 1"),
    "an order of what is not measured": (
        ("study.expected={l1 = 2.0}", 'study.norms=["l2"]'),
        "study.expected.l1: l1 is none of the norms of this study: l2",
    ),
    "no order": ("study.expected={}", "study.expected: needs an order for at least one of l1, l2, w2, loss"),
    "an unknown order": ("study.expected={l3 = 2.0}", "study.expected.l3: unknown key; accepted here: l1, l2, w2, loss"),
    "an allowance for nothing": ("study.allowance=0.1", "study: `allowance` goes with `expected`"),
    "no expression": ("study.exact=1 +", 'study.exact: "1 +": column'),
    "an unknown name": ("study.exact=1 + s", "unknown name 's'"),
    "an exact density that is negative": (
        "study.exact=1 + 2*cos(pi*x)",
        "at t = 1: the density must be finite and nonnegative, but it is -",
    ),
    "an exact density that is not finite": ("study.exact=1/(x - x)", "at t = 1: the density must be finite and nonnegative, but it is inf"),
    "an exact density of another mass": ("study.exact=1.01 + 0*x", "at t = 1: has mass 1.01 over the domain; it must be 1 within 0.001"),
    "no density against particles": (
        ("study.reference=particles", 'study.norms=["l1", "w2"]'),
        'study.norms: the reference "particles" has no density on a grid; accepted against it: w2, loss',
    ),
}


@pytest.mark.parametrize("command", ["check", "study"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_answered_in_one_line(name: str, command: str, case: Path, tmp_path: Path) -> None:
    settings, says = WRONG[name]
    settings = (settings,) if isinstance(settings, str) else settings
    output = ("--output", tmp_path / "out") if command == "study" else ()
    answer = call(command, case, *output, "--set", *settings)
    assert answer.code == 2, answer
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith(f"mfpde: {case}:"), line
    assert says in line
    assert written(tmp_path) == {"heat.toml"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (HEAT[HEAT.index("[study]") :], "", "has no table [study], which says what to study, e.g. [study] with kind"),
        ("cells = [8, 16, 32, 64]\n", "", "study: needs `cells`, `steps` or both"),
        ('kind = "refinement"\n', "", "study: the key `kind` is missing; accepted: refinement, particle_limit, time_step, cross_check"),
        ('exact = "1 ', 'reference = "exact"\n# "1 ', 'got "exact", but the key `exact`, the expression of the exact density, is missing'),
        ("[domain.x]", "[domain.t]", "an axis is called t, which means the time in an exact density; rename the axis"),
    ],
)
def test_a_study_that_lacks_something_is_refused(old: str, new: str, says: str, case: Path, tmp_path: Path) -> None:
    text = HEAT.replace(old, new)
    if "domain.t" in new:
        text = text.replace("cos(pi*x)", "cos(pi*t)")
    case.write_text(text)
    answer = call("study", case, "--output", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_a_solver_without_a_step_has_none_to_refine(case: Path, tmp_path: Path) -> None:
    case.write_text(HEAT.replace("[study]", '[[solver]]\nkind = "stationary"\ncells = [32]\n\n[study]\nsolver = "stationary"'))
    answer = call("study", case, "--output", tmp_path / "out", "--set", "study.steps=[0.1, 0.05, 0.025, 0.0125]")
    assert (answer.code, answer.out) == (2, "")
    assert "study.steps: the solver stationary (stationary) has no fixed `step` to refine; give `cells`" in answer.err


def test_a_label_like_that_of_a_run_is_refused(case: Path, tmp_path: Path) -> None:
    case.write_text(
        HEAT.replace('kind = "particles"', 'kind = "particles"\nlabel = "fv-n8"').replace("[study]", '[study]\nreference = "fv-n8"')
    )
    answer = call("study", case, "--output", tmp_path / "out")
    assert answer.code == 2
    assert 'the label "fv-n8" is that of a run of the study' in answer.err


def test_a_table_of_a_study_is_no_run(case: Path, tmp_path: Path) -> None:
    call("study", case, "--output", tmp_path / "out", "--no-figures", "--set", "study.cells=[8, 16]")
    answer = call("info", tmp_path / "out" / "study.h5")
    assert answer.code == 2
    assert (
        answer.err
        == f"mfpde: {tmp_path / 'out' / 'study.h5'}: the table of a study, not a run; its runs lie in the folder study beside it\n"
    )


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
