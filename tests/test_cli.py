"""The command line from outside: what each command prints, writes and returns, and what it leaves alone."""

import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mfpde import Density, Particles, read_run
from mfpde.case.load import load_case
from mfpde.run import Status, StepFailed
from mfpde.solvers.finite_volume.solver import FiniteVolumeFlow
from mfpde.solvers.particles import DescentFlow
from tests.command import call

SHIPPED = sorted(path.stem for path in (Path(__file__).parent.parent / "cases").glob("*.toml"))
ALONE = ["two_scalings", "sgd", "multilayer", "sparse_recovery"]
COMMANDS = ["run", "study", "check", "compare", "plot", "info", "cases", "schema"]

SMALL = """title = "A small case"

[domain.theta]
lower = -2.0
upper = 2.0

[[energy]]
kind = "potential"
density = "theta**2"

[initial]
density = "exp(-theta**2)"

[time]
save = [0.0, 0.05, 0.1]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [32]

[[solver]]
kind = "particles"
count = 50
seed = 3

[compare]
reference = "fv"
"""
POTENTIAL = 'kind = "potential"\ndensity = "theta**2"'
NETWORK = """kind = "two_layer"
activation = "tanh"
teacher = { neurons = [[1.0], [-0.5]], weights = [0.7, 0.3] }"""
NOISY = (
    ("[initial]", '[[energy]]\nkind = "entropy"\ntemperature = 0.1\n\n[initial]'),
    ("seed = 3", "seed = 3\nstep = 0.01"),
)
STEEP = ("theta**2", "exp(20*theta**2)")


def done(*arguments: object) -> str:
    """What a command that has nothing to complain about prints."""
    answer = call(*arguments)
    assert (answer.code, answer.err) == (0, ""), answer
    return answer.out


def process(*arguments: object, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, all streams piped."""
    command = [sys.executable, "-m", "mfpde", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)


def written(folder: Path) -> set[str]:
    """Every file and folder below ``folder``, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return small(tmp_path / "small.toml")


def small(path: Path, *changes: tuple[str, str]) -> Path:
    text = SMALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


# --- help, version, imports -------------------------------------------------------------------------------------------


def test_the_help_names_every_command_and_every_command_has_help() -> None:
    text = done("--help")
    for command in COMMANDS:
        assert command in text
        assert done(command, "--help").startswith(f"usage: mfpde {command}")


def test_the_version_is_that_of_the_package() -> None:
    from mfpde import __version__

    assert done("--version") == f"mfpde {__version__}\n"


def test_python_m_mfpde_is_the_command() -> None:
    ended = process("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("mfpde ")


_WATCHED = ("numpy", "scipy", "pydantic", "numba", "ot", "h5py", "matplotlib", "tqdm")
_PROBE = """
import json, sys
from mfpde.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        codes.append(main(arguments))
    except SystemExit as ended:
        codes.append(ended.code)
watched = json.loads(sys.argv[2])
sys.stderr.write(json.dumps([codes, [name for name in watched if name in sys.modules]]))
"""


def imported(*calls: Sequence[str]) -> list[str]:
    """Which heavy packages the commands import, all in one fresh process; they must succeed."""
    command = [sys.executable, "-c", _PROBE, json.dumps(calls), json.dumps(_WATCHED)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    codes, names = json.loads(ended.stderr)
    assert codes == [0] * len(calls)
    return list(names)


def test_help_version_and_the_list_of_cases_import_nothing_heavy() -> None:
    assert imported(["--help"], ["run", "--help"], ["--version"], ["cases"]) == []


def test_the_schema_needs_pydantic_alone() -> None:
    assert imported(["schema"]) == ["pydantic"]


def test_every_shipped_case_is_good_and_checking_imports_neither_solvers_nor_figures() -> None:
    folder = Path(__file__).parent.parent / "cases"
    assert sorted(path.stem for path in folder.glob("*.toml")) == SHIPPED
    coarse = {"two_dimensional": ["--set", "energy.0.tolerance=0.01"]}  # features that take a second, not ten
    checks = [["check", str(folder / f"{name}.toml"), *coarse.get(name, [])] for name in SHIPPED]
    assert not {"numba", "ot", "h5py", "matplotlib", "tqdm"} & set(imported(*checks))


def test_check_says_what_the_case_holds(case: Path) -> None:
    lines = done("check", case).splitlines()
    assert lines[0] == f"{case}: good"
    assert lines[1] == "  theta in [-2, 2]"
    assert lines[2] == "  potential: ∫V dρ with V = theta**2"
    assert lines[-1] == "  solvers: fv, particles; 3 times up to 0.1"


TERMS = {
    'kind = "entropy"\ntemperature = 0.3': "entropy: T ∫ρ log ρ with T = 0.3",
    'kind = "porous_medium"\nlabel = "gas"\nexponent = 1.5': "gas: c ∫ρ^m/(m − 1) with m = 1.5, c = 1",
    'kind = "interaction"\nkernel = "-exp(-r**2)"\ncoefficient = 2.0': (
        "interaction: ½ ∬ c W(x − y) dρ dρ with W = -exp(-r**2), c = 2 (smooth at 0)"
    ),
    NETWORK: "two_layer: ½ E|∫σ(x·θ)dρ − y|² with σ = tanh, x normal with deviation 1, y a teacher of 2 neurons",
}


@pytest.mark.parametrize(("term", "said"), TERMS.items(), ids=["entropy", "porous medium", "interaction", "network"])
def test_check_says_each_term_with_its_formula_and_values(term: str, said: str, case: Path) -> None:
    particles = SMALL[SMALL.index('[[solver]]\nkind = "particles"') : SMALL.index("[compare]")]
    small(case, (POTENTIAL, term), (particles, ""))
    assert f"  {said}" in done("check", case).splitlines()


# --- schema -----------------------------------------------------------------------------------------------------------

_KINDS: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def conforms(value: Any, schema: Any, root: Any) -> bool:
    """Whether ``value`` is valid under the part of JSON Schema that the case schema uses."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        return any(conforms(value, part, root) for part in schema["anyOf"])
    if "oneOf" in schema:
        return sum(conforms(value, part, root) for part in schema["oneOf"]) == 1
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] in ("number", "integer"):
        whole = schema["type"] == "integer"
        return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and _in_bounds(value, schema)
    if not isinstance(value, _KINDS[schema["type"]]):
        return False
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        for pattern, part in schema.get("patternProperties", {}).items():
            other = part if all(re.search(pattern, key) for key in value) else False
        inside = all(conforms(v, known[k], root) if k in known else other and conforms(v, other, root) for k, v in value.items())
        return bool(inside) and set(schema.get("required", [])) <= set(value)
    if isinstance(value, list):
        fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
        return fits and all(conforms(item, schema["items"], root) for item in value)
    return True


def _in_bounds(value: float, schema: Any) -> bool:
    closed = schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
    return bool(closed and schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf))


def _keys(schema: Any) -> set[str]:
    return {key for table in (*schema["anyOf"], *schema["$defs"].values()) for key in table.get("properties", {})}


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(done("schema"))


def test_the_schema_has_every_key_of_a_case(schema: Any) -> None:
    assert schema["$schema"].startswith("https://json-schema.org/")
    top = {"title", "domain", "energy", "initial", "time", "solver", "compare", "study"}
    axis = {"lower", "upper", "periodic", "frozen", "walls", "axes", "radius", "center"}
    network = {"activation", "inputs", "teacher", "parameter", "bias", "output", "outputs", "expectation", "decay", "path_norm"}
    network |= {"depth", "approximation", "teacher_approximation"}
    limit = {"counts", "runs", "quantities", "quantile", "w1", "sliced", "function", "barycentre", "variance", "loss_spread", "loss_mean"}
    movement = {"tau", "method", "accuracy", "epsilon", "debiased"}
    training = {"learning_rate", "batch", "epochs", "diffusion", "blob_width", "factors", "distance"}
    inputs, teacher = {"law", "scale", "file", "columns", "standardize"}, {"neurons", "weights", "density", "column"}
    solver = {"cells", "count", "seed", "start", "tolerance", "step", "starts", "select", "stepper", "flux", "table_tolerance", "order"}
    study = {"steps", "tolerances", "exact", "norms", "times", "expected", "allowance", "l1", "l2", "w2", "loss", "orders", "solvers"}
    densities = {"kernel", "exponent", "coefficient", "bound", "softness", "obstacle"}
    rest = {"kind", "label", "temperature", "atoms", "save", "end", "reference", "distance", "resolution"}
    study |= {"dimension", "target", "threshold", "curves", "heat_map", "lazy", "width", "widths", "samples", "seeds", "first"}
    study |= {"outer", "mean_field_outer", "inner", "radius"}
    study |= {"diagram", "escape", "training", "particles", "learning_rates", "batches", "replacement", "points", "left", "right", "copies"}
    study |= {"factor", "time_step", "steepness", "noise"}
    study |= {"path_norm", "students", "amplitude", "angle"}
    study |= {"chaos", "collapse", "residual", "depths", "neurons", "nodes", "scalings", "middle", "last", "ends", "test"}
    study |= {"mean", "deviation", "starts", "activations", "residual", "threshold", "dissipation", "invisible_share", "invisible_growth"}
    study |= {"linearity", "ratio", "regime", "first", "modes", "rest_amplitude", "rest_tolerance", "coupling_amplitude", "radii", "rise"}
    assert [set(table["properties"]) for table in schema["anyOf"]] == [top, {"title", "study"}]
    assert _keys(schema) == top | axis | network | inputs | teacher | densities | solver | study | rest | limit | training | movement


def test_the_documents_name_every_key_and_its_default(schema: Any) -> None:
    table = (Path(__file__).parent.parent / "docs" / "keys.md").read_text(encoding="utf-8").split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {4}
    tables = {key for part in schema["$defs"].values() for key in part.get("properties", {})}
    assert not [key for key in tables if f"`{key}`" not in table]
    defaults = {name.strip("` "): default for _, names, default, _ in reversed(rows) for name in names.split(",")}  # the first one counts
    known = {
        "periodic": "AxisTable",
        "center": "DiskTable",
        "bias": "TwoLayerTerm",
        "parameter": "TwoLayerTerm",
        "select": "StationarySolver",
        "method": "MovementSolver",
    }
    known |= {"start": "ParticleSolver", "flux": "FiniteVolumeSolver", "stepper": "FiniteVolumeSolver", "walls": "DiskTable"}
    for key, model in known.items():
        assert defaults[key].strip("`") == json.dumps(schema["$defs"][model]["properties"][key]["default"]), key


def test_the_schema_accepts_a_study_alone(schema: Any) -> None:
    import tomllib

    table = tomllib.loads((Path(__file__).parent.parent / "cases" / "two_scalings.toml").read_text(encoding="utf-8"))
    assert conforms(table, schema, schema)
    assert not conforms({**table, "energy": []}, schema, schema)
    assert not conforms({**table, "study": {**table["study"], "dimension": 0}}, schema, schema)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ALONE])
def test_the_schema_accepts_every_shipped_case(name: str, schema: Any) -> None:
    import tomllib

    table = tomllib.loads((Path(__file__).parent.parent / "cases" / f"{name}.toml").read_text(encoding="utf-8"))
    assert conforms(table, schema, schema)
    assert not conforms({**table, "titel": ""}, schema, schema)
    assert not conforms({**table, "energy": [{**table["energy"][0], "kind": "none"}]}, schema, schema)
    assert not conforms({**table, "time": {"save": [-1.0]}}, schema, schema)
    assert not conforms({key: value for key, value in table.items() if key != "domain"}, schema, schema)


# --- shipped cases ----------------------------------------------------------------------------------------------------


def test_cases_lists_what_is_shipped() -> None:
    lines = done("cases").splitlines()
    assert [line.split()[0] for line in lines] == SHIPPED
    assert all(len(line.split()) > 3 for line in lines), "each with its title"


def test_a_case_is_copied_with_its_data_and_works_there(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert done("cases", "real_data", "--output", folder).split() == [str(folder / "real_data.toml"), str(folder / "engel.csv")]
    assert written(folder) == {"real_data.toml", "engel.csv"}
    assert "good" in done("check", folder / "real_data.toml")
    assert done("cases", "circle.toml", "--output", tmp_path).split() == [str(tmp_path / "circle.toml")]


def test_copying_a_case_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "engel.csv").write_text("mine")
    answer = call("cases", "real_data", "--output", tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"mfpde: {tmp_path / 'engel.csv'} exists already\n"
    assert written(tmp_path) == {"engel.csv"}
    assert (tmp_path / "engel.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["teacher_studnet", "teacher", "", "nothing/here"])
def test_an_unknown_case_is_answered_with_the_list(name: str, tmp_path: Path) -> None:
    answer = call("cases", name, "--output", tmp_path / "new")
    assert (answer.code, answer.out) == (2, "")
    assert ", ".join(SHIPPED) in answer.err
    assert name != "teacher_studnet" or 'did you mean "teacher_student"?' in answer.err
    assert not (tmp_path / "new").exists()


def test_a_path_is_no_name_of_a_case(tmp_path: Path) -> None:
    small(tmp_path / "circle.toml")
    answer = call("cases", tmp_path / "circle", "--output", tmp_path / "new")
    assert (answer.code, answer.out) == (2, "")
    assert not (tmp_path / "new").exists()


# --- run --------------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_results_and_the_comparison_and_nothing_else(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = done("run", case, "--output", out, "--no-figures").splitlines()
    schemes = [lines.pop(k).strip().split(":")[0] for k in (4, 2)]
    assert schemes == ["Dormand–Prince 8(5,3), outward normal velocity removed at walls", "flux"]
    assert written(out) == {"fv.h5", "particles.h5", "comparison.json"}
    assert written(tmp_path) == {"small.toml", "out"} | {f"out/{name}" for name in written(out)}
    assert lines[0] == f"A small case  ({case} → {out}/)"
    assert lines[1].startswith("  fv: DONE, ")
    assert lines[2].startswith("  particles: DONE, ")
    assert lines[3].startswith("  particles against fv (W2 ")
    assert lines[3].endswith("; loss = potential)")
    assert lines[4].split() == ["time", "W2", "loss", "particles", "loss", "fv", "relative", "gap"]
    assert [line.split()[0] for line in lines[5:]] == ["0", "0.05", "0.1"]
    fv, particles = read_run(out / "fv.h5"), read_run(out / "particles.h5")
    assert isinstance(fv.run.final, Density)
    assert isinstance(particles.run.final, Particles)
    assert fv.run.final.grid.cells == (32,)
    assert particles.run.final.points.shape == (50, 1)
    assert fv.attributes["case"] == SMALL
    assert (fv.title, fv.label, particles.label) == ("A small case", "fv", "particles")
    assert particles.attributes["seed"] == 3


def test_the_comparison_is_json_without_nan(case: Path, tmp_path: Path) -> None:
    small(case, *NOISY)
    done("run", case, "--output", tmp_path / "out", "--no-figures")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text(), parse_constant=refuse)
    assert comparison["reference"] == "fv"
    assert comparison["loss_terms"] == ["potential"], "the entropy of atoms is infinite and stays out of the loss"
    (pair,) = comparison["pairs"]
    assert pair["label"] == "particles"
    assert pair["times"] == [0.0, 0.05, 0.1]
    assert all(len(pair[name]) == 3 for name in ("distance", "floor", "loss", "reference_loss", "means", "deviations"))
    assert all(0.0 < distance < 1.0 for distance in pair["distance"])


def test_runs_without_a_common_finite_term_have_no_loss_and_no_gap(case: Path, tmp_path: Path) -> None:
    small(case, (POTENTIAL, 'kind = "entropy"\ntemperature = 0.1'), NOISY[1])
    out = tmp_path / "out"
    answer = call("run", case, "--output", out, "--format", "svg")
    assert answer.code == 0, answer
    assert "loss = no common term" in answer.out
    (row,) = [line for line in answer.out.splitlines() if line.split()[:1] == ["0.1"]]
    assert row.split()[-3:] == ["—", "—", "—"]
    (pair,) = json.loads((out / "comparison.json").read_text())["pairs"]
    for name in ("loss", "reference_loss", "loss_gap", "relative_loss_gap"):
        assert set(pair[name]) == {None}
    assert None not in pair["distance"]
    assert "relative energy gap" not in (out / "distance.svg").read_text()


def test_a_run_that_cannot_be_read_is_named_and_not_compared(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done("run", case, "--output", out, "--no-figures")
    with h5py.File(out / "particles.h5", "r+") as file:
        file.attrs["format"] = 1
    answer = call("run", case, "--output", out, "--no-figures", "--only", "fv")
    assert answer.code == 0
    assert answer.err == f"mfpde: {out / 'particles.h5'}: is of format 1, made by an older mfpde; run the case again (it is not compared)\n"


def test_a_run_draws_in_every_format_asked_for(case: Path, tmp_path: Path) -> None:
    small(case, (POTENTIAL, NETWORK), ("[0.0, 0.05, 0.1]", "[0.0, 0.1]"))
    out = tmp_path / "out"
    last = done("run", case, "--output", out, "--format", "svg", "png", "svg").splitlines()[-1]
    assert last == f"  figures: density, distance, energy, network (svg, png) in {out}/"
    figures = {f"{name}.{kind}" for name in ("density", "distance", "energy", "network") for kind in ("svg", "png")}
    assert written(out) == {"fv.h5", "particles.h5", "comparison.json"} | figures
    assert all((out / name).read_bytes().lstrip()[:5] in (b"<?xml", b"\x89PNG\r") for name in figures)


def test_results_go_to_a_folder_of_the_case_by_default(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done("run", "small.toml", "--only", "particles", "--no-figures")
    assert written(tmp_path / "results") == {"small", "small/particles.h5"}


def test_only_runs_what_is_named_and_compares_with_earlier_runs_of_the_same_case(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "against" not in done("run", case, "--output", out, "--only", "fv", "--no-figures")
    assert written(out) == {"fv.h5"}
    before = (out / "fv.h5").read_bytes()
    assert "particles against fv" in done("run", case, "--output", out, "--only", "particles", "--no-figures")
    assert (out / "fv.h5").read_bytes() == before
    assert written(out) == {"fv.h5", "particles.h5", "comparison.json"}
    changed = done("run", case, "--output", out, "--only", "particles", "--set", "initial.density=1 + 0*theta", "--no-figures")
    assert "against" not in changed, "fv.h5 belongs to another problem now"


def test_settings_change_the_case_and_are_kept_with_the_result(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["solver.fv.cells=[16]", "solver.particles.count=20", "time.save=[0.02]", "energy.0.density=2*theta**2", "title=Changed"]
    text = done("run", case, "--output", out, "--no-figures", "--set", *settings[:2], "--set", *settings[2:])
    assert text.startswith("Changed  (")
    fv, particles = read_run(out / "fv.h5"), read_run(out / "particles.h5")
    assert isinstance(fv.run.final, Density)
    assert fv.run.final.grid.cells == (16,)
    assert len(particles.run.final.weights) == 20
    assert fv.run.times.tolist() == [0.02]
    assert fv.title == "Changed"
    assert json.loads(fv.attributes["overrides"]) == settings
    assert fv.attributes["case"] == SMALL
    assert load_case(case, tuple(settings)).table.time.save == [0.02]


@pytest.mark.parametrize("changes", [(), NOISY, ((POTENTIAL, NETWORK),)], ids=["potential", "noisy", "network"])
def test_the_same_case_and_seed_give_the_same_bits(changes: tuple[tuple[str, str], ...], case: Path, tmp_path: Path) -> None:
    small(case, *changes)
    for name in ("one", "two"):
        done("run", case, "--output", tmp_path / name, "--no-figures")
    for name in ("fv.h5", "particles.h5"):
        one, two = datasets(tmp_path / "one" / name), datasets(tmp_path / "two" / name)
        assert one == two
        assert len(one) > 12
    assert (tmp_path / "one" / "comparison.json").read_bytes() == (tmp_path / "two" / "comparison.json").read_bytes()
    done("run", case, "--output", tmp_path / "three", "--only", "particles", "--set", "solver.particles.seed=4", "--no-figures")
    assert datasets(tmp_path / "three" / "particles.h5")["position"] != datasets(tmp_path / "one" / "particles.h5")["position"]


def datasets(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            values = np.asarray(item[()])
            found[name] = (str(item.dtype), item.shape, (values.astype("S") if values.dtype == object else values).tobytes())

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


def test_a_compilation_is_announced_once_and_what_is_compiled_already_is_not() -> None:
    from numba import njit

    from mfpde.compile import announced

    told: list[str] = []
    double, triple = njit(lambda x: 2 * x), njit(lambda x: 3 * x)
    for _ in range(2):
        with announced(lambda: told.append("waiting")):
            assert (double(2), triple(2)) == (4, 6)
    assert told == ["waiting"]


def test_a_piped_run_shows_no_progress_and_prints_in_order(case: Path, tmp_path: Path) -> None:
    ended = process("run", case, "--output", tmp_path / "out", "--no-figures")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\r" not in ended.stdout
    lines = [line for line in ended.stdout.splitlines()[1:5] if not line.startswith("    ")]
    assert [line.split(":")[0].strip() for line in lines] == ["fv", "particles"]
    assert "    flux: limited second-order upwinding of the whole flux; steps: explicit third-order" in ended.stdout


# --- several cases ----------------------------------------------------------------------------------------------------


def test_a_wrong_case_does_not_stop_the_others_of_a_batch(tmp_path: Path) -> None:
    paths = [small(tmp_path / "one.toml"), small(tmp_path / "two.toml", ("cells", "cels")), small(tmp_path / "three.toml")]
    answer = call("run", *paths, "--output", tmp_path / "out", "--no-figures")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith(f"mfpde: {paths[1]}:")
    results = {"fv.h5", "particles.h5", "comparison.json"}
    assert written(tmp_path / "out") == {"one", "three"} | {f"{name}/{file}" for name in ("one", "three") for file in results}
    table = answer.out[answer.out.rindex("\n\n") :].strip().splitlines()
    assert table[0].split() == ["case", "status", "seconds", "largest", "W2", "largest", "loss", "gap"]
    assert [line.split()[0] for line in table[1:]] == [str(path) for path in paths]
    assert ["done" in table[1], "wrong input" in table[2], "done" in table[3]] == [True, True, True]


def test_a_single_case_has_no_closing_table(case: Path, tmp_path: Path) -> None:
    assert "largest W2" not in done("run", case, "--output", tmp_path / "out", "--no-figures")


def test_cases_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = [small(tmp_path / "same.toml"), small(tmp_path / "other" / "same.toml")]
    answer = call("run", *paths, "--output", tmp_path / "out", "--no-figures")
    assert answer.code == 2
    assert [line.split(":")[1].strip() for line in answer.err.splitlines()] == [str(path) for path in paths]
    assert not (tmp_path / "out").exists()


# --- solvers that stop early ------------------------------------------------------------------------------------------


def test_a_solver_that_stops_early_keeps_what_it_has_and_the_others_run(tmp_path: Path) -> None:
    case, out = small(tmp_path / "steep.toml", STEEP), tmp_path / "out"
    answer = call("run", case, "--output", out, "--no-figures")
    assert answer.code == 3
    (line,) = answer.err.splitlines()
    assert line.startswith("mfpde: fv: STEP_TOO_SMALL: ")
    assert "loosen the tolerance" in line
    assert "  fv: STEP_TOO_SMALL, 0 steps" in answer.out
    assert "particles against fv" in answer.out, "at the time that both have"
    assert written(out) == {"fv.h5", "particles.h5", "comparison.json"}
    stored = read_run(out / "fv.h5")
    assert stored.run.status is Status.STEP_TOO_SMALL
    assert stored.run.times.tolist() == [0.0]
    assert "step" in stored.run.message
    assert read_run(out / "particles.h5").run.status is Status.DONE
    assert "STEP_TOO_SMALL: " + stored.run.message in done("info", out / "fv.h5")
    assert call("run", case, small(tmp_path / "good.toml"), "--output", out, "--no-figures").code == 3
    wrong = small(tmp_path / "wrong.toml", ("cells", "cels"))
    assert call("run", case, wrong, "--output", out, "--no-figures").code == 2


def test_a_step_that_fails_on_the_way_keeps_the_times_before(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = FiniteVolumeFlow.advance

    def failing(flow: FiniteVolumeFlow, state: Any, until: float) -> Any:
        if until > 0.05:
            raise StepFailed(Status.NOT_FINITE, "lost at sea")
        return advance(flow, state, until)

    monkeypatch.setattr(FiniteVolumeFlow, "advance", failing)
    answer = call("run", case, "--output", tmp_path / "out", "--no-figures", "--checkpoint", "0")
    assert answer.code == 3
    assert answer.err == f"mfpde: fv: NOT_FINITE: lost at sea; {Status.NOT_FINITE.value}\n"
    assert written(tmp_path / "out") == {"fv.h5", "particles.h5", "comparison.json"}
    stored = read_run(tmp_path / "out" / "fv.h5")
    assert (stored.run.status, stored.run.message) == (Status.NOT_FINITE, "lost at sea")
    assert stored.run.times.tolist() == [0.0, 0.05]
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]["times"] == [0.0, 0.05]
    assert "NOT_FINITE: lost at sea" in done("info", tmp_path / "out" / "fv.h5")


def test_a_solver_that_stops_before_the_first_time_leaves_a_result_that_says_so(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(flow: DescentFlow) -> Any:
        raise StepFailed(Status.NOT_FINITE, "never began")

    monkeypatch.setattr(DescentFlow, "start", failing)
    small(case, *NOISY)
    out = tmp_path / "out"
    answer = call("run", case, "--output", out, "--no-figures")
    assert answer.code == 3
    assert "particles: NOT_FINITE: never began" in answer.err
    assert written(out) == {"fv.h5", "particles.h5"}
    assert "nothing saved" in done("info", out / "particles.h5")
    for arguments in (("plot", out / "particles.h5"), ("compare", out / "fv.h5", out / "particles.h5")):
        refused = call(*arguments)
        assert refused.code == 2
        assert refused.err == f"mfpde: {out / 'particles.h5'}: holds no saved time (status NOT_FINITE)\n"


def test_a_solver_that_overflows_says_so_in_one_line(tmp_path: Path) -> None:
    case = small(tmp_path / "steep.toml", ("theta**2", "1e200*theta"))
    ended = process("run", case, "--output", tmp_path / "out", "--no-figures", "--only", "particles")
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith("mfpde: particles: ")


def test_a_solver_that_refuses_the_problem_leaves_no_parts(tmp_path: Path) -> None:
    nodes, _ = np.polynomial.legendre.leggauss(6)
    hole = -2.0 + 4.0 / 32 * (7 + 0.5 + 0.5 * float(nodes[2]))
    case = small(tmp_path / "hole.toml", ('density = "exp(-theta**2)"', f'density = "1 - 2*(abs(theta - ({hole!r})) < 1e-9)"'))
    answer = call("run", case, "--output", tmp_path / "out", "--no-figures")
    assert answer.code == 2
    assert "nonnegative" in answer.err
    assert not (tmp_path / "out").exists() or written(tmp_path / "out") == set()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_is_answered_in_one_line(case: Path, tmp_path: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); from mfpde.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", limit, "run", str(case), "--output", str(tmp_path / "out"), "--no-figures"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"mfpde: {tmp_path / 'out'}")
    assert "too large" in line
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.h5"))


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a small case in two dimensions."""
    folder = tmp_path_factory.mktemp("results")
    changes = (
        ("[domain.theta]", "[domain.a]\nlower = -1.0\nupper = 1.0\n\n[domain.b]"),
        ("theta**2", "a**2 + b**2"),
        ("-theta**2", "-a**2 - b**2"),
        ("[32]", "[6, 8]"),
    )
    done("run", small(folder / "plane.toml", *changes), "--output", folder, "--no-figures")
    return folder


def test_xarray_shows_the_axes_as_coordinates(results: Path) -> None:
    if importlib.util.find_spec("xarray") is None or importlib.util.find_spec("h5netcdf") is None:
        pytest.skip("needs xarray and h5netcdf")
    import xarray

    with xarray.open_dataset(results / "fv.h5", engine="h5netcdf") as grid:
        assert grid["density"].dims == ("time", "a", "b")
        assert grid["density"].shape == (3, 6, 8)
        assert {"time", "a", "b", "a_edges", "b_edges"} <= set(grid.coords)
        np.testing.assert_allclose(grid["time"], [0.0, 0.05, 0.1])
        np.testing.assert_allclose(grid["a"], -1.0 + (np.arange(6) + 0.5) / 3.0)
        np.testing.assert_allclose(grid["b_edges"], np.linspace(-2.0, 2.0, 9))
        np.testing.assert_allclose(grid["density"].integrate(["a", "b"]).shape, (3,))
        assert grid["energy_potential"].dims == ("time",)
        assert grid.attrs["status"] == "DONE"
    with xarray.open_dataset(results / "particles.h5", engine="h5netcdf") as atoms:
        assert atoms["position"].dims == ("time", "particle", "coordinate")
        assert atoms["coordinate"].values.tolist() == ["a", "b"]
        assert atoms["weight"].dims == ("particle",)
        assert atoms["position"].sel(coordinate="b").shape == (3, 50)
    with xarray.open_dataset(results / "fv.h5", engine="h5netcdf", group="steps") as steps:
        assert steps["energy"].dims == ("step",)
        assert float(steps["time"][-1]) == 0.1


def test_info_says_how_a_run_ended_and_what_it_holds(results: Path) -> None:
    text = done("info", results / "fv.h5")
    words = dict(line.split(maxsplit=1) for line in text.splitlines() if not line[0].isdigit())
    assert words["title"] == "A small case"
    assert words["label"] == "fv (finite_volume)"
    assert words["status"] == f"DONE: {Status.DONE.value}"
    assert words["domain"] == "a in [-1, 1], b in [-2, 2]"
    assert words["measure"] == "density on 6 × 8 cells at 3 times"
    assert "mass drift" in words["run"]
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ["0", "0.05", "0.1"]
    assert "50 particles at 3 times" in done("info", results / "particles.h5")


def test_compare_prints_the_table_and_writes_only_when_asked(results: Path, tmp_path: Path) -> None:
    before = written(results)
    pair = (results / "particles.h5", results / "fv.h5")
    table = done("compare", *pair)
    assert table.startswith("  fv against particles")
    assert written(results) == before
    assert done("compare", *pair, "--reference", "fv").startswith("  particles against fv")
    out = tmp_path / "deep" / "out"
    assert "figures: density, distance, energy (svg)" in done("compare", *pair, "--output", out, "--format", "svg")
    assert written(out) == {"comparison.json", "density.svg", "distance.svg", "energy.svg"}


def test_runs_of_one_label_are_told_apart_by_their_path(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "fv.h5"
    other.write_bytes((results / "fv.h5").read_bytes())
    assert done("compare", results / "fv.h5", other).startswith(f"  {other} against {results / 'fv.h5'} ")


def test_plot_draws_beside_the_file_or_where_it_is_told(results: Path, tmp_path: Path) -> None:
    run = tmp_path / "fv.h5"
    run.write_bytes((results / "fv.h5").read_bytes())
    names = done("plot", run, "--format", "svg").split()
    assert names == [str(tmp_path / name) for name in ("fv-density.svg", "fv-energy.svg")]
    assert written(tmp_path) == {"fv.h5", "fv-density.svg", "fv-energy.svg"}


def test_plot_overwrites_no_figure_of_its_own(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "fv.h5"
    other.write_bytes((results / "fv.h5").read_bytes())
    answer = call("plot", results / "fv.h5", other, "--output", tmp_path / "out", "--format", "svg")
    assert answer.code == 2 or len(written(tmp_path / "out")) == 4


# --- pipes and terminals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["schema", "--help", "cases"])
def test_a_reader_that_leaves_early_gets_no_message(command: str) -> None:
    arguments = [sys.executable, "-m", "mfpde", command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(timeout=60) in (0, 120)


def test_a_run_whose_reader_leaves_says_nothing_of_a_broken_pipe(case: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "mfpde", "run", str(case), "--output", str(tmp_path / "out"), "--no-figures"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert "Broken pipe" not in running.stderr.read()
        running.wait(timeout=60)


def test_a_terminal_without_unicode_gets_no_traceback(case: Path, tmp_path: Path) -> None:
    ended = process("run", case, "--output", tmp_path / "out", "--no-figures", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "fv: DONE" in ended.stdout


# --- interruption -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_a_start_is_refused_ends_the_batch(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(flow: FiniteVolumeFlow) -> Any:
        signal.raise_signal(number)
        raise ValueError("no such start")

    monkeypatch.setattr(FiniteVolumeFlow, "start", refusing)
    paths = [small(tmp_path / "one.toml"), small(tmp_path / "two.toml")]
    answer = call("run", *paths, "--output", tmp_path / "out", "--no-figures")
    assert answer.code == 130
    assert answer.err.splitlines() == [f"mfpde: {paths[0]}:17: solver[0]: no such start", "mfpde: interrupted"]
    assert str(paths[1]) not in answer.out, "the next case is not begun"


def test_runs_of_different_problems_are_compared_with_a_warning(case: Path, tmp_path: Path) -> None:
    done("run", case, "--output", tmp_path / "one", "--only", "fv", "--no-figures")
    done("run", case, "--output", tmp_path / "two", "--only", "fv", "--no-figures", "--set", "solver.fv.cells=[16]", "time.save=[0.0,0.05]")
    done("run", case, "--output", tmp_path / "three", "--only", "fv", "--no-figures", "--set", "initial.density=exp(-2*theta**2)")
    files = [tmp_path / name / "fv.h5" for name in ("one", "two", "three")]
    assert "different problems" not in call("compare", *files[:2]).err
    answer = call("compare", files[0], files[2])
    assert answer.code == 0
    assert "runs of different problems: their energies or initial measures differ" in answer.err
