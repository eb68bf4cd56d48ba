"""Cross-checks: what runs say of their own errors, verdicts, the command with its files, and answers to wrong input."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfpde.domain import Domain
from mfpde.figures import draw_cross_check
from mfpde.measure import Density, DensityFunction, Measure, Particles
from mfpde.run import Certificate, Run, Status
from mfpde.solvers.finite_volume import Explicit, Implicit, ImplicitEuler
from mfpde.storage import StoredRun
from mfpde.study.cross_check import CrossCheck, Member, cross_check, l1_distance
from mfpde.study.cross_check_plan import STEPPER_TOLERANCES
from mfpde.study.cross_check_text import cross_check_text, differing, verdict
from tests.command import call
from tests.conftest import line

LINE = line(-6.0, 6.0)
NORMS = ("w2", "l1", "loss")


def bell(shift: float, cells: int = 300) -> Density:
    density = DensityFunction(lambda p: np.exp(-0.5 * (p[:, 0] - shift) ** 2), LINE).on(LINE.grid((cells,)))
    return Density(density.grid, density.values / density.mass)


def stored(
    label: str, measures: Sequence[Measure], losses: Sequence[float], domain: Domain = LINE, notes: tuple[str, ...] = ()
) -> StoredRun:
    times = np.arange(float(len(measures)))
    run = Run(times, list(measures), {"e": np.array(losses, dtype=float)}, Certificate(np.zeros((1, 9))), Status.DONE, notes=notes)
    return StoredRun(Path(f"{label}.h5"), domain, run, {"label": label, "title": "Bells"})


def single(label: str, shift: float, coarse: float, loss: float = 0.0, notes: tuple[str, ...] = (), tau: float = 0.0) -> Member:
    """A bell off by ``shift``, with a run of half the resolution that is off by ``coarse``."""
    more = stored(f"{label}-coarse", [bell(coarse)], [coarse + loss])
    return Member(stored(label, [bell(shift)], [shift + loss], notes=notes), (more,), True, 1.0, tau)


def check_of(*members: Member, allowance: float = 1.0) -> CrossCheck:
    times = members[0].stored.run.times
    return cross_check(members, members[0].stored.label, NORMS, times, allowance)


def test_the_stated_error_is_three_times_what_half_the_resolution_changes() -> None:
    check = check_of(single("a", 0.0, 0.02), single("b", 0.05, 0.09))
    np.testing.assert_allclose(check.stated[0, :, 0], [0.06, 0.12], rtol=1e-3)
    np.testing.assert_allclose(check.stated[2, :, 0], [0.06, 0.12], rtol=1e-12)
    assert check.distance[0, 1, 0] == pytest.approx(0.05, rel=1e-3)
    assert check.allowed[0, 1, 0] == pytest.approx(0.18, rel=1e-3)
    assert check.stated[1, 0, 0] == pytest.approx(3.0 * 2.0 * math.erf(0.01 / math.sqrt(2.0)), rel=1e-3)


def test_runs_that_are_further_apart_than_their_errors_differ() -> None:
    members = single("a", 0.0, 0.01), single("near", 0.04, 0.05), single("far", 0.2, 0.21), single("loss", 0.01, 0.02, 0.3)
    check = check_of(*members)
    assert [verdict(check, r, 0) for r in range(4)] == ["reference", "agree", "differ in W2, L1, loss gap", "differ in loss gap"]
    assert [words.split(" at ")[0] for words in differing(check)] == ["far and a"] * 2 + ["far and a", "loss and a"]
    text = cross_check_text(check)
    assert "W2 of all pairs at t = 0" in text
    assert text.count("*") == 6 + 1, "three pairs with far, either way, and the line that says what it means"
    assert differing(check_of(*members, allowance=6.0)) == []


def test_a_duality_gap_is_added_as_what_it_moves_a_step() -> None:
    plain, noted = single("a", 0.0, 0.01), single("b", 0.0, 0.01, notes=("largest duality gap 2e-04",), tau=0.01)
    check = check_of(plain, noted)
    assert check.stated[0, 1, 0] - check.stated[0, 0, 0] == pytest.approx(math.sqrt(2.0 * 0.01 * 2e-4), rel=1e-9)
    assert "b: the largest duality gap g of a step, 2.0e-04, is √(2 tau g) = 2.0e-03 in W2, which is added" in cross_check_text(check)


def drawn(seed: int, count: int) -> Particles:
    return Particles.equal(np.random.default_rng(seed).standard_normal((count, 1)))


def noisy(label: str, seed: int, count: int, shift: float = 0.0) -> Member:
    def cloud(number: int, atoms: Particles) -> StoredRun:
        return stored(f"{label}{number}", [atoms], [float(np.mean(atoms.points))])

    atoms = Particles.equal(drawn(seed, count).points + shift)
    others = tuple(cloud(k, drawn(1000 * seed + k, count // 8)) for k in range(8))
    return Member(stored(label, [atoms], [float(np.mean(atoms.points))]), others, False, 8.0)


def test_fluctuations_are_those_of_other_seeds_and_fall_with_the_root_of_the_count() -> None:
    exact = single("pde", 0.0, 1e-4)
    for count in (800, 3200):
        check = check_of(exact, noisy("atoms", 1, count))
        print(count, check.stated[0, 1, 0] * math.sqrt(count), check.stated[2, 1, 0] * math.sqrt(count))
        assert 4.0 < check.stated[0, 1, 0] * math.sqrt(count) < 12.0, "4 deviations, the smallest of which is that of the mean"
        assert 2.0 < check.stated[2, 1, 0] * math.sqrt(count) < 7.0
        assert np.isnan(check.distance[1, 1, 0]), "atoms have no density"


def test_draws_of_the_density_agree_and_those_of_a_shifted_one_do_not() -> None:
    exact = single("pde", 0.0, 1e-4)
    agreed = [not differing(check_of(exact, noisy("atoms", seed, 800))) for seed in range(1, 31)]
    print(f"{sum(agreed)} of {len(agreed)} agree")
    assert sum(agreed) >= 29
    assert all(differing(check_of(exact, noisy("atoms", seed, 800, 0.5))) for seed in range(1, 6))


def test_densities_are_compared_on_the_cells_that_both_grids_are_made_of() -> None:
    assert l1_distance(bell(0.0, 300), bell(0.0, 150)) < 1e-12
    assert l1_distance(bell(0.0, 300), bell(0.0, 200)) == pytest.approx(0.0, abs=1e-12), "on 100 cells"
    assert l1_distance(bell(0.0, 300), bell(0.1, 300)) == pytest.approx(2.0 * math.erf(0.05 / math.sqrt(2.0)) * 1.0, rel=1e-3)
    assert math.isnan(l1_distance(bell(0.0, 300), bell(0.0, 299))), "one cell in common says nothing"
    assert math.isnan(l1_distance(bell(0.0), drawn(0, 10)))


def test_a_run_that_stopped_early_is_compared_where_it_is() -> None:
    whole = Member(stored("a", [bell(0.0)] * 2, [0.0] * 2), (stored("ac", [bell(0.01)] * 2, [0.01] * 2),), True)
    short = Member(stored("b", [bell(0.02)], [0.02]), (stored("bc", [bell(0.03)] * 2, [0.03] * 2),), True)
    check = check_of(whole, short)
    assert np.isfinite(check.distance[:, 1, 0]).all()
    assert np.isnan(check.distance[:, 1, 1]).all()
    assert [verdict(check, 1, t) for t in (0, 1)] == ["agree", "—"]
    assert np.isnan(check.apart[0, 1])


@pytest.mark.filterwarnings("error")
def test_the_figures_show_the_runs_and_their_distances(tmp_path: Path) -> None:
    members = single("a", 0.0, 0.01), single("b", 0.2, 0.21)
    paths = draw_cross_check(check_of(*members), [member.stored for member in members], tmp_path)
    assert [path.name for path in paths] == ["study-density.png", "study-distance.png"]
    assert all(path.stat().st_size > 5000 for path in paths)


# --- the command ------------------------------------------------------------------------------------------------------

CASE = """title = "Ornstein and Uhlenbeck"

[domain.x]
lower = -6.0
upper = 6.0

[[energy]]
kind = "entropy"
temperature = 0.5

[[energy]]
kind = "potential"
density = "x**2/2"

[initial]
density = "exp(-(x - 1)**2)"

[time]
save = [0.0, 0.2, 0.6]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [128]

[[solver]]
kind = "jko"
tau = 0.02
cells = [128]
count = 400
order = 2

[[solver]]
kind = "particles"
count = 2000
step = 0.02

[compare]
reference = "fv"

[study]
kind = "cross_check"
"""


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "ou.toml"
    path.write_text(CASE)
    return path


def test_the_command_compares_all_solvers_writes_files_and_resumes(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = call("study", case, "--output", out)
    assert (answer.code, answer.err) == (0, ""), answer.out
    print(answer.out)
    runs = {"fv", "jko", "particles", "fv-coarse", "jko-coarse", *(f"particles-seed{k}" for k in range(1, 9))}
    assert {path.stem for path in (out / "study").iterdir()} == runs
    figures = {"study-density.png", "study-distance.png"}
    assert {path.name for path in out.iterdir()} == {"study", "study.json", "study.csv", "study.h5"} | figures
    assert answer.out.count("  agree\n") == 6
    assert answer.out.count("  reference\n") == 3
    assert "loss = potential, its gap of jko with entropy + potential" in answer.out
    data = json.loads((out / "study.json").read_text())
    assert [run["label"] for run in data["runs"]] == ["fv", "jko", "particles"]
    assert (data["reference"], data["differ"]) == ("fv", [])
    rows = list(csv.DictReader((out / "study.csv").open(encoding="utf-8")))
    assert len(rows) == 3 * 3 * 3
    mine = [float(row["distance"]) for row in rows if (row["run"], row["norm"]) == ("jko", "w2")]
    assert mine == data["runs"][1]["w2"]["distance"]
    with h5py.File(out / "study.h5") as file:
        np.testing.assert_array_equal(file["distance"][0, 1], mine)
        assert file["w2_of_pairs"][0, 1] == mine[-1]
    again = call("study", case, "--output", out, "--no-figures", "--resume")
    assert again.out.count("complete already") == 13
    assert json.loads((out / "study.json").read_text())["runs"] == data["runs"]


def test_runs_of_other_problems_differ_with_exit_code_3(case: Path, tmp_path: Path) -> None:
    """A weak error of first order, which no other seed shows."""
    text = CASE.replace("count = 2000\nstep = 0.02", "count = 4000\nstep = 0.6")
    case.write_text(text.replace("save = [0.0, 0.2, 0.6]", "save = [0.0, 0.6]"))
    answer = call("study", case, "--output", tmp_path / "out", "--no-figures", "--set", 'study.solvers=["fv", "particles"]')
    assert answer.code == 3
    assert "mfpde: further apart than their errors: particles and fv at t = 0.6: W2 " in answer.err
    assert "differ in W2" in answer.out


def test_the_tolerances_of_the_steppers_are_theirs() -> None:
    steppers = {"explicit": Explicit(), "implicit": Implicit(), "implicit_euler": ImplicitEuler()}
    assert {name: stepper.default_tolerance for name, stepper in steppers.items()} == STEPPER_TOLERANCES


def test_check_says_what_the_study_will_do(case: Path) -> None:
    answer = call("check", case)
    assert answer.code == 0
    assert "  study: cross-check of jko, particles against fv at t = 0, 0.2, 0.6; w2, l1, loss" in answer.out
    assert "  study: fv: its error is 3 times what it differs by from a run with cells = 64, tolerance = 8e-06" in answer.out
    assert "cells = 64, count = 200, tau = 0.04" in answer.out
    assert "its fluctuations are those of 8 other seeds with 250 atoms, scaled by N^(-1/2)" in answer.out


WRONG = {
    "an unknown solver": ('study.solvers=["fv", "jkoo"]', 'study.solvers: got "jkoo"; accepted: fv, jko, particles (did you mean "jko"?)'),
    "one solver": ('study.solvers=["fv"]', "study.solvers: must have at least 2 elements, got ['fv']"),
    "a solver twice": ('study.solvers=["fv", "fv"]', "study: `solvers` holds one of its elements twice"),
    "an unknown reference": ("study.reference=nobody", 'study.reference: got "nobody"; accepted: fv, jko, particles'),
    "an unknown norm": ('study.norms=["l2"]', 'study.norms[0]: got "l2"; accepted: w2, l1, loss'),
    "a time that is not saved": ("study.times=[0.3]", "study.times: 0.3 is not a saved time; accepted: 0, 0.2, 0.6"),
    "no allowance": ("study.allowance=0", "study.allowance: must be positive, got 0"),
    "an unknown key": ("study.steps=[0.1]", "study.steps: unknown key; accepted here: kind, solvers, reference, norms, times, allowance"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_answered_with_one_line(name: str, case: Path, tmp_path: Path) -> None:
    setting, says = WRONG[name]
    answer = call("study", case, "--output", tmp_path / "out", "--set", setting)
    assert (answer.code, answer.out) == (2, "")
    (message,) = answer.err.splitlines()
    assert message.startswith(f"mfpde: {case}:")
    assert says in message
    assert not (tmp_path / "out").exists()
