"""Every shipped case runs at small size and keeps its promises."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from mfpde.case import load_case
from mfpde.case.build import build_problem, build_solver
from mfpde.cli import main
from mfpde.run import Status

ALL = sorted((Path(__file__).parent.parent / "cases").glob("*.toml"))
CASES = [path for path in ALL if "solver" in tomllib.loads(path.read_text(encoding="utf-8"))]
ALONE = [path for path in ALL if path not in CASES]
"""Those that are a study and nothing else."""
FEW = {
    "sparse_recovery": ("study.path_norm=[0.1]", "study.students=12", "study.seeds=1"),
    "multilayer": (
        *("study.chaos.depths=[3]", "study.chaos.widths=[8,16,32]", "study.chaos.seeds=6", "study.chaos.nodes=12", "study.chaos.end=1.0"),
        *("study.collapse.depths=[3]", "study.collapse.widths=[8,16,32]", "study.collapse.end=2.0", "study.collapse.allowance=0.3"),
        *("study.residual.depths=[2,4,8]", "study.residual.nodes=6", "study.residual.end=2.0", "study.residual.widths=[2,4,8]"),
        *("study.residual.seeds=4", "study.residual.allowance=0.4"),
    ),
    "sgd": ("study.diagram.runs=200", "study.escape.steps=50", "study.training.steps=200", "study.particles.counts=[4, 8]"),
    "two_scalings": ("study.curves.end=1.0", "study.curves.seeds=1", "study.heat_map.end=1.0", "study.lazy.widths=[50,100,200]"),
}
SMALL = {
    "teacher_student": "[128]",
    "teacher_density": "[128]",
    "noisy_student": "[96]",
    "particle_limit": "[64]",
    "heat_refinement": "[64]",
    "circle": "[64]",
    "stationarity": "[64]",
    "teacher_recovery": "[64]",
    "convergence_speed": "[64]",
    "convergence_reversed": "[64]",
}
SMALL |= dict.fromkeys(("aggregation", "cross_check", "desai_zwanzig", "jko", "keller_segel", "porous_medium", "semicircle"), "[64]")
FEWEST = {"semicircle": 40}


def test_all_cases_are_here():
    assert {path.stem for path in ALL} >= {
        "two_scalings",
        "multilayer",
        "sparse_recovery",
        "sgd",
        "teacher_student",
        "teacher_density",
        "two_dimensional",
        "trained_output",
        "ensemble_resnet",
        "wide_resnet",
        "circle",
        "convergence_speed",
        "convergence_reversed",
        "real_data",
        "noisy_student",
        "desai_zwanzig",
        "porous_medium",
        "aggregation",
        "keller_segel",
        "semicircle",
        "particle_limit",
        "training",
        "jko",
        "cross_check",
        "incompressible",
    }


def _cells_of(solver: dict[str, object], cells: str) -> tuple[str, ...]:
    """Fewer cells, and mass cells with them where the method has some."""
    return (f"cells={cells}",) if solver.get("method") == "back_and_forth" else (f"cells={cells}", "count=200")


def small(path: Path) -> tuple[str, ...]:
    """Fewer cells, atoms and times."""
    cells, count = SMALL.get(path.stem, "[24, 24]"), FEWEST.get(path.stem, 200)
    changes = {
        "finite_volume": f"cells={cells}",
        "stationary": f"cells={cells}",
        "characteristics": f"cells={cells}",
        "particles": f"count={count}",
    }
    solvers = tomllib.loads(path.read_text(encoding="utf-8"))["solver"]
    of_movements = [_cells_of(solver, cells) if "cells" in solver else ("count=200",) for solver in solvers]
    chosen = [of_movements[k] if solver["kind"] == "jko" else (changes[solver["kind"]],) for k, solver in enumerate(solvers)]
    return (*(f"solver.{number}.{change}" for number, some in enumerate(chosen) for change in some), "time.save=[0.0, 0.5, 2.0]")


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_shipped_case_says_its_purpose_and_keeps_its_certificates(path):
    assert path.read_text().startswith("# ")
    case = load_case(path, small(path))
    problem = build_problem(case)
    for number, label in enumerate(case.labels):
        run = build_solver(case, number).solve(problem)
        steps = run.certificate
        assert run.status is Status.DONE, label
        assert list(run.times) == ([2.0] if label == "stationary" else [0.0, 0.5, 2.0])
        assert steps.mass_drift() <= 1e-12
        assert np.min(steps["minimum"]) >= 0.0
        if np.isfinite(steps["energy"]).all():
            assert steps.energy_rise() <= 1e-12, label


@pytest.mark.parametrize("path", ALONE, ids=lambda p: p.stem)
def test_a_shipped_study_alone_says_its_purpose_and_runs(path, tmp_path):
    assert path.read_text().startswith("# ")
    assert main(["check", str(path)]) == 0
    assert main(["study", str(path), "--output", str(tmp_path), "--no-figures", "--set", *FEW[path.stem]]) == 0


@pytest.mark.long
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_shipped_case_keeps_its_certificates_at_full_size(path):
    case = load_case(path)
    problem = build_problem(case)
    for number in range(len(case.labels)):
        steps = build_solver(case, number).solve(problem).certificate
        assert steps.mass_drift() <= 1e-12
        assert np.min(steps["minimum"]) >= 0.0
        assert not np.isfinite(steps["energy"]).all() or steps.energy_rise() <= 1e-12


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "circle",
        "heat_refinement",
        "porous_medium",
        "jko",
        "cross_check",
        "two_scalings",
        "sgd",
        "stationarity",
        "multilayer",
        "wide_resnet_limits",
    ],
)
def test_a_shipped_study_shows_what_it_expects(name, tmp_path):
    path = next(path for path in ALL if path.stem == name)
    assert main(["study", str(path), "--output", str(tmp_path), "--no-figures"]) == 0
