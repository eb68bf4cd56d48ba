"""Walls: which cells lie at them, and whether mass there is warned of."""

from pathlib import Path

import numpy as np
import pytest

from mfpde import Axis, DensityFunction, Domain, EnergySum, Entropy, FiniteVolume, Potential, Problem
from mfpde.arrays import FloatArray
from mfpde.case import load_case
from mfpde.case.build import build_problem, fingerprint
from mfpde.disk import Disk
from mfpde.solvers import Stationary

SAID = "mass lies in the cells at walls"


def tilted(domain: Domain) -> Problem:
    """Noise in a field that presses the mass against the wall at the upper end of the first axis."""
    field = np.eye(domain.dimension)[0]
    potential = Potential(lambda points: -3.0 * points[:, 0], lambda points: np.tile(-3.0 * field, (len(points), 1)))
    start = DensityFunction(lambda points: np.exp(-20.0 * points[:, 0] ** 2), domain)
    return Problem(EnergySum({"field": potential, "entropy": Entropy(0.5)}), domain, start, save_at=(0.0, 2.0))


def held(cells: FloatArray) -> np.ndarray:
    return np.flatnonzero(cells.ravel())


def test_cells_at_walls_are_those_where_mass_is_stopped_and_the_walls_are_no_part_of_the_model() -> None:
    wall, meant = Axis("x", 0.0, 1.0), Axis("y", 0.0, 1.0, walls_modelled=True)
    circle, frozen = Axis("z", 0.0, 1.0, periodic=True), Axis("w", 0.0, 1.0, frozen=True)
    assert Domain((wall,)).grid((5,)).cutoff_cells.tolist() == [0, 4]
    assert Domain((meant,)).grid((5,)).cutoff_cells.size == 0
    expected = np.zeros((4, 3, 3))
    expected[[0, -1]] = 1.0
    for other in (meant, circle, frozen):
        grid = Domain((wall, other, Axis("v", 0.0, 1.0, periodic=True))).grid((4, 3, 3))
        assert np.array_equal(grid.cutoff_cells, held(expected))


def test_the_rim_of_a_disk_is_a_wall_and_its_origin_is_none() -> None:
    expected = np.zeros((4, 6))
    expected[-1] = 1.0
    assert np.array_equal(Disk(("a", "b"), 1.0).grid((4, 6)).cutoff_cells, held(expected))
    assert Disk(("a", "b"), 1.0, walls_modelled=True).grid((4, 6)).cutoff_cells.size == 0


@pytest.mark.parametrize("axis", [{"periodic": True}, {"frozen": True}])
def test_an_axis_without_walls_has_no_modelled_ones(axis: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="no walls stop the flow along it"):
        Axis("x", 0.0, 1.0, walls_modelled=True, **axis)


@pytest.mark.parametrize("solver", [FiniteVolume((24,)), Stationary((24,))], ids=["finite volumes", "stationary"])
def test_mass_at_walls_is_warned_of_unless_they_are_part_of_the_model(solver: FiniteVolume | Stationary) -> None:
    cut, meant = (solver.solve(tilted(Domain((Axis("x", -1.0, 1.0, walls_modelled=told),)))) for told in (False, True))
    assert any(SAID in note and 'walls = "model"' in note for note in cut.notes)
    assert not any(SAID in note for note in meant.notes)
    assert cut.certificate["wall"][-1] > 0.1
    assert not meant.certificate["wall"].any()
    assert np.array_equal(cut.final.weights, meant.final.weights), "nothing else changes"


CASE = """[domain.x]
lower = -1.0
upper = 1.0

[[energy]]
kind = "potential"
density = "-3*x"

[initial]
density = "exp(-20*x**2)"

[time]
save = [0.0, 1.0]

[[solver]]
kind = "finite_volume"
cells = [24]
"""
DISK = CASE.replace("lower = -1.0\nupper = 1.0", 'axes = ["x", "y"]\nradius = 1.0').replace("[24]", "[8, 12]")


@pytest.mark.parametrize("text", [CASE, DISK], ids=["box", "disk"])
def test_the_key_of_a_case_reaches_the_domain_and_changes_no_stored_run(text: str, tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(text)
    problems = {}
    for walls in ("cutoff", "model"):
        case = load_case(path, (f"domain.x.walls={walls}",))
        problems[walls] = build_problem(case)
        assert fingerprint(case, 0) == fingerprint(load_case(path), 0)
    cells = (24,) if text is CASE else (8, 12)
    assert problems["cutoff"].domain.grid(cells).cutoff_cells.size > 0
    assert problems["model"].domain.grid(cells).cutoff_cells.size == 0
    assert problems["cutoff"].domain == problems["model"].domain
    assert "part of the model" in problems["model"].domain.describe()[0]
