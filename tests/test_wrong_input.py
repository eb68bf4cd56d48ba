"""Wrong input is answered with exit code 2 and one line that says where it stands, what it is and what would be accepted."""

import io
import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mfpde.cli import main

BASE = """title = "base"

[domain.theta]
lower = -2.0
upper = 2.0

[[energy]]
kind = "two_layer"
activation = "tanh"
inputs = { law = "normal", scale = 1.0 }
teacher = { neurons = [[1.0], [-0.5]], weights = [0.7, 0.3] }

[[energy]]
kind = "potential"
density = "0.1*theta**2"

[initial]
density = "exp(-theta**2)"

[time]
save = [0.0, 0.1]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [32]

[[solver]]
kind = "particles"
count = 50

[compare]
reference = "fv"
"""

AXIS = "[domain.theta]\nlower = -2.0\nupper = 2.0\n"
NETWORK = BASE[BASE.index('kind = "two_layer"') : BASE.index('\n\n[[energy]]\nkind = "potential"')]
INPUTS = 'inputs = { law = "normal", scale = 1.0 }'
TEACHER = "teacher = { neurons = [[1.0], [-0.5]], weights = [0.7, 0.3] }"
POTENTIAL = 'density = "0.1*theta**2"'
INITIAL = 'density = "exp(-theta**2)"'
TIMES = "save = [0.0, 0.1]"
COUNT = "count = 50\n"
GRID = '[[solver]]\nkind = "finite_volume"\nlabel = "fv"\ncells = [32]\n'
COMPARE = '[compare]\nreference = "fv"\n'
ENTROPY = ("[initial]", '[[energy]]\nkind = "entropy"\ntemperature = 0.1\n\n[initial]')

ACTIVATIONS = "tanh, erf, sigmoid, softplus, relu, gelu, arctan, softsign, gaussian, quadratic, cos, identity"
TABLE = "x,y\n1,2\n2,3\n3,5\n"


@dataclass(frozen=True)
class Answer:
    """What a command did: its exit code, what it wrote, and the warnings, which a user would see on stderr too."""

    code: int
    out: str
    err: str
    warned: tuple[str, ...]


def call(*arguments: object) -> Answer:
    """The command line in this process, with the floating-point warnings that a user has."""
    out, err = io.StringIO(), io.StringIO()
    with (
        np.errstate(divide="warn", over="warn", invalid="warn"),
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        warnings.simplefilter("always")
        code = main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue(), tuple(str(w.message) for w in warned))


def refusal(*arguments: object, written: bool = False, problems: int = 1) -> str:
    """The one line for each problem with which a command refuses its input."""
    answer = call(*arguments)
    assert answer.code == 2, f"exit code {answer.code}: {answer.out}{answer.err}"
    assert answer.err.endswith("\n")
    lines = answer.err.splitlines()
    assert len(lines) == problems, answer.err
    assert all(line.startswith("mfpde: ") and line.isprintable() for line in lines), answer.err
    assert "Traceback" not in answer.err
    assert not answer.warned
    assert written or not answer.out, "a command that is refused prints nothing on stdout"
    return answer.err.removeprefix("mfpde: ").rstrip("\n")


@dataclass(frozen=True)
class Wrong:
    """Textual changes of the base case, what the answer must say, and a text on the line at which it must point."""

    changes: tuple[tuple[str, str], ...]
    says: tuple[str, ...]
    at: str | None = None
    csv: str | bytes | None = None
    problems: int = 1

    def text(self) -> str:
        text = BASE
        for old, new in self.changes:
            assert old in text, f"the base case has no {old!r}"
            text = text.replace(old, new, 1)
        return text


def wrong(old: str, new: str, *says: str, at: str | None = None) -> Wrong:
    return Wrong(((old, new),), says, at)


def energy(lines: str, *says: str, at: str | None = None) -> Wrong:
    return wrong(NETWORK, lines, *says, at=at)


def initial(expression: str, *says: str) -> Wrong:
    line = f'density = "{expression}"'
    return wrong(INITIAL, line, "initial.density", *says, at=line)


def atoms(lines: str, *says: str, at: str | None = None) -> Wrong:
    return Wrong(((INITIAL, lines), (COUNT, "")), says, at)


def samples(csv: str | bytes | None, *says: str, inputs: str = "", teacher: str = 'column = "y"') -> Wrong:
    inputs = inputs or 'file = "data.csv", columns = ["x"]'
    changes = ((INPUTS, f'inputs = {{ law = "samples", {inputs} }}'), (TEACHER, f"teacher = {{ {teacher} }}"))
    return Wrong(changes, ("energy[0].", *says), None, csv)


def axes(count: int) -> str:
    return "".join(f"[domain.a{k}]\nlower = 0.0\nupper = 1.0\n\n" for k in range(count))


UNKNOWN_KEYS = {
    "unknown key at the top": wrong("title", "titel", "titel", 'did you mean "title"?', "domain, energy", at="titel"),
    "unknown key of an axis": wrong("lower", "lowr", "domain.theta.lowr", 'mean "lower"?', "upper, periodic, frozen", at="lowr"),
    "unknown key of a network": wrong("activation", "activaton", "energy[0].activaton", 'mean "activation"?', at="activaton"),
    "unknown key of the inputs": wrong("scale", "scael", "energy[0].inputs.scael", 'mean "scale"?', at="scael"),
    "unknown key of the samples": samples(TABLE, "inputs.colums", 'mean "columns"?', inputs='file = "data.csv", colums = ["x"]'),
    "unknown key of the teacher": wrong("weights", "wieghts", "energy[0].teacher.wieghts", 'mean "weights"?', at="wieghts"),
    "unknown key of a potential": wrong('density = "0.1', 'densty = "0.1', "energy[1].densty", 'mean "density"?', at="densty"),
    "unknown key of the initial measure": wrong(
        "[initial]\ndensity", "[initial]\ndensty", "initial.densty", 'mean "density"?', "density, factors, law", at="densty"
    ),
    "unknown key of the times": wrong("save", "sav", "time.sav", 'mean "save"?', "save, end, count", at="sav ="),
    "unknown key of the grid": wrong("cells", "cels", "solver[0].cels", 'mean "cells"?', at="cels"),
    "unknown key of the particles": wrong("count", "cuont", "solver[1].cuont", 'mean "count"?', at="cuont"),
    "unknown key of the comparison": wrong("reference", "refrence", "compare.refrence", 'mean "reference"?', at="refrence"),
    "number for a study": wrong(COMPARE, "[compare]\n[[study]]\n", "study: must be a table, got [{}]", at="[[study]]"),
    "key of another kind": wrong("cells", "count = 3\ncells", "solver[0].count", "unknown key", at="count = 3"),
}

UNKNOWN_WORDS = {
    "unknown kind of energy": wrong(
        '"two_layer"',
        '"two_layers"',
        "energy[0].kind",
        '"two_layers"',
        "two_layer, ensemble_resnet, wide_resnet, potential, entropy",
        'mean "two_layer"?',
        at="two_layers",
    ),
    "unknown kind of solver": wrong(
        '"finite_volume"', '"finite_volum"', "solver[0].kind", "finite_volume, particles", 'mean "finite_volume"?', at="finite_volum"
    ),
    "unknown law": wrong(
        '"normal"', '"norml"', "energy[0].inputs.law", '"norml"', "normal, uniform, circle, samples", 'mean "normal"?', at="norml"
    ),
    "unknown activation": wrong('"tanh"', '"tahn"', "energy[0].activation", '"tahn"', ACTIVATIONS, 'mean "tanh"?', at="tahn"),
    "unknown parameter": wrong(
        "activation", 'parameter = "angel"\nactivation', "energy[0].parameter", "vector, angle", 'mean "angle"?', at="angel"
    ),
    "unknown start": wrong("count", 'start = "quantil"\ncount', "solver[1].start", "random, quantile", 'mean "quantile"?', at="quantil"),
    "unknown reference": wrong(
        'reference = "fv"', 'reference = "particle"', "compare.reference", "fv, particles", 'mean "particles"?', at="reference"
    ),
    "energy without kind": wrong(
        'kind = "potential"\n', "", "energy[1]", "`kind`", "two_layer, ensemble_resnet, wide_resnet, potential, entropy"
    ),
    "solver without kind": wrong('kind = "particles"\n', "", "solver[1]", "`kind`", "finite_volume, particles"),
    "study without kind": wrong(
        COMPARE,
        "[study]\ncells = [8]\n",
        "study: the key `kind` is missing; accepted: refinement, particle_limit, time_step, cross_check",
        at="[study]",
    ),
    "network with an unnamed activation": wrong('activation = "tanh"\n', "", "`activation` is missing; accepted: tanh, erf"),
    "inputs without law": wrong('law = "normal", ', "", "energy[0].inputs", "`law`", "normal, uniform, circle, samples", at="inputs"),
}

MISSING = {
    "no domain": wrong(AXIS, "", "`domain`", "missing"),
    "empty domain": wrong(AXIS, "[domain]\n", "domain", at="[domain]"),
    "no energy": wrong(BASE[BASE.index("[[energy]]") : BASE.index("[initial]")], "", "`energy`", "missing"),
    "no initial measure": wrong(f"[initial]\n{INITIAL}\n", "", "`initial`", "missing"),
    "no times": wrong(f"[time]\n{TIMES}\n", "", "`time`", "missing"),
    "no solver": wrong(BASE[BASE.index("[[solver]]") :], "", "`solver`", "missing"),
    "axis without end": wrong("upper = 2.0\n", "", "domain.theta", "`upper`", "missing", at="[domain.theta]"),
    "network without activation": wrong('activation = "tanh"\n', "", "energy[0]", "`activation`", "missing", at="[[energy]]"),
    "network without teacher": wrong(TEACHER, "", "energy[0]", "`teacher`", "missing", at="[[energy]]"),
    "potential without density": wrong(POTENTIAL, "", "energy[1]", "`density`", "missing"),
    "grid without cells": wrong("cells = [32]\n", "", "solver[0]", "`cells`", "missing", at="[[solver]]"),
    "particles without count": wrong(COUNT, "", "solver[1]", "`count`", "missing"),
    "particles without step under entropy": Wrong((ENTROPY,), ("solver[1]", "entropy", "step = 0.01")),
    "entropy without temperature": wrong("[initial]", '[[energy]]\nkind = "entropy"\n\n[initial]', "energy[2]", "`temperature`"),
}

NUMBERS = {
    "text for a number": wrong("-2.0", '"-2"', "domain.theta.lower", "number", '"-2"', at='"-2"'),
    "truth value for a number": wrong("-2.0", "true", "domain.theta.lower", "number", "true", at="true"),
    "date for a number": wrong("-2.0", "1979-05-27", "domain.theta.lower", "number", "1979-05-27", at="1979"),
    "nan bound": wrong("-2.0", "nan", "domain.theta.lower", "finite", "nan", at="nan"),
    "infinite bound": wrong("-2.0", "-inf", "domain.theta.lower", "finite", "-inf", at="-inf"),
    "bound beyond all floats": wrong("-2.0", "-1" + 400 * "0", "domain.theta.lower", "number", at="-1000"),
    "lower above upper": wrong("-2.0", "3.0", "domain.theta", "lower < upper", "3.0", "2.0", at="[domain.theta]"),
    "lower equal to upper": wrong("-2.0", "2.0", "domain.theta", "lower < upper", "2.0", at="[domain.theta]"),
    "steps of jko that do not end": Wrong(
        ((GRID, '[[solver]]\nkind = "jko"\nlabel = "fv"\ntau = 1e-12\ncount = 9\n'),), ("solver[0].tau", "more than 1e+09 steps of 1e-12")
    ),
    "closed form that overflows": Wrong(
        ((INPUTS, 'inputs = { law = "normal", scale = 1e30 }\nexpectation = "closed"'), ('"tanh"', '"erf"')),
        ("energy[0]", "too large", "kernel"),
    ),
    "length that overflows": Wrong((("-2.0", "-1e308"), ("2.0", "1e308")), ("domain", "theta"), problems=2),
    "number for a truth value": wrong(AXIS, f"{AXIS}periodic = 1\n", "domain.theta.periodic", "boolean", "1", at="periodic"),
    "periodic and frozen": wrong(
        AXIS, f"{AXIS}periodic = true\nfrozen = true\n", "domain.theta", "periodic and frozen", at="[domain.theta]"
    ),
    "walls of a circle": wrong(AXIS, f'{AXIS}periodic = true\nwalls = "model"\n', "domain.theta", "periodic", "leave `walls` out"),
    "unknown walls": wrong(AXIS, f'{AXIS}walls = "modle"\n', "domain.theta.walls", "cutoff, model", 'mean "model"?', at="modle"),
    "number for a text": wrong(POTENTIAL, "density = 3", "energy[1].density", "string", "3", at="density = 3"),
    "number for a table": Wrong(
        ((COMPARE, ""), ('title = "base"', 'title = "base"\ncompare = 3')), ("compare", "table", "got 3"), "compare = 3"
    ),
    "list for a table": Wrong(((AXIS, ""), ('title = "base"', 'title = "base"\ndomain = [1]')), ("domain", "table", "[1]"), "domain = [1]"),
    "scale zero": wrong("scale = 1.0", "scale = 0.0", "energy[0].inputs.scale", "0.0", at="scale"),
    "scale negative": wrong("scale = 1.0", "scale = -1.0", "energy[0].inputs.scale", "-1.0", at="scale"),
    "scale infinite": wrong("scale = 1.0", "scale = inf", "energy[0].inputs.scale", "finite", "inf", at="scale"),
    "temperature zero": Wrong((ENTROPY, ("= 0.1\n", "= 0.0\n")), ("energy[2].temperature", "0.0"), "temperature"),
    "temperature negative": Wrong((ENTROPY, ("= 0.1\n", "= -1.0\n")), ("energy[2].temperature", "-1.0"), "temperature"),
    "zero cells": wrong("[32]", "[0]", "solver[0].cells[0]", "1", "got 0", at="cells"),
    "negative cells": wrong("[32]", "[-3]", "solver[0].cells[0]", "1", "got -3", at="cells"),
    "broken cells": wrong("[32]", "[3.5]", "solver[0].cells[0]", "integer", "3.5", at="cells"),
    "cells without brackets": wrong("[32]", "32", "solver[0].cells", "list", "32", at="cells"),
    "no cells": wrong("[32]", "[]", "solver[0].cells: must not be empty, got []", at="cells"),
    "an empty potential": wrong(POTENTIAL, 'density = ""', 'energy[1].density: must not be empty, got ""', at='density = ""'),
    "number for a solver": Wrong(
        ((BASE[BASE.index("[[solver]]") :], ""), ('title = "base"', 'title = "base"\nsolver = [3]')),
        ("solver[0]: must be a table, got 3",),
        "solver = [3]",
    ),
    "too few cells of a disk": Wrong(
        ((AXIS, '[domain.disk]\naxes = ["a", "b"]\nradius = 1.0\n'), (INITIAL, 'density = "1"'), ("[32]", "[1, 1]")),
        ("solver[0].cells: needs at least 1 radius and",),
        "cells",
    ),
    "cells for two axes": wrong("[32]", "[32, 32]", "solver[0].cells", "1 axes", "theta", "[32, 32]", at="cells"),
    "cells for four axes": wrong("[32]", "[2, 2, 2, 2]", "solver[0].cells", "[2, 2, 2, 2]", at="cells"),
    "too many cells along an axis": wrong("[32]", "[50000000]", "solver[0].cells[0]", "10000000", "50000000", at="cells"),
    "too many cells": Wrong(
        (("[domain.theta]", "[domain.b]\nlower = 0.0\nupper = 1.0\n\n[domain.theta]"), ("[32]", "[9000, 9000]")),
        ("solver[0].cells", "81000000", "20000000"),
        "cells",
    ),
    "zero particles": wrong("count = 50", "count = 0", "solver[1].count", "1", "got 0", at="count = 0"),
    "negative particles": wrong("count = 50", "count = -5", "solver[1].count", "1", "got -5", at="count"),
    "half a particle": wrong("count = 50", "count = 1.5", "solver[1].count", "integer", "1.5", at="count"),
    "too many particles": wrong("count = 50", "count = 1000000000", "solver[1].count", "100000000", "1000000000", at="count"),
    "negative seed": wrong("count", "seed = -1\ncount", "solver[1].seed", "0", "got -1", at="seed"),
    "tolerance zero": wrong("count", "tolerance = 0.0\ncount", "solver[1].tolerance", at="tolerance"),
    "tolerance too large": wrong("cells", "tolerance = 1.0\ncells", "solver[0].tolerance", "0.01", "1.0", at="tolerance"),
    "step zero": wrong("count", "step = 0.0\ncount", "solver[1].step", "0.0", at="step"),
    "title too long": wrong('"base"', '"' + 501 * "a" + '"', "title: must have at most 500 characters", at="title"),
}

NAMES = {
    f"axis called {name}": Wrong((("[domain.theta]", f"[domain.{name}]"),), (f"domain.{name.strip(chr(34))}", *says), "[domain.")
    for name, says in {
        "time": ("axis name", "time, density, position"),
        "density": ("axis name", "time, density, position"),
        "energy_x": ("axis name", "energy_"),
        "x_edges": ("axis name", "_edges"),
        '"a b"': ("axis name",),
        '"1x"': ("axis name",),
        "sin": ("function",),
        "pi": ("constant",),
        "lambda": ("lambda",),
    }.items()
} | {
    "too many axes": wrong(AXIS, axes(17), "domain", "16"),
    "label with a path": wrong('label = "fv"', 'label = "../fv"', "solver[0].label", '"../fv"', "letters, digits", at="label"),
    "label that is empty": wrong('label = "fv"', 'label = ""', "solver[0].label", "letters, digits", at="label"),
    "label of the table of a study": wrong('label = "fv"', 'label = "Study"', "solver[0].label", "`mfpde study`", at="label"),
    "solver label twice": wrong('kind = "particles"', 'kind = "particles"\nlabel = "FV"', "solver[1]", '"FV"', "taken", "solver 0"),
    "energy label twice": wrong('kind = "potential"', 'kind = "potential"\nlabel = "two_layer"', "energy[1].label", "taken", at="label"),
    "neither solver labelled": wrong(
        "[compare]", '[[solver]]\nkind = "particles"\ncount = 3\n\n[compare]', "solver[2]", '"particles"', "taken"
    ),
}

EXPRESSIONS = {
    "negative density": initial("theta", "nonnegative", "theta = -1.99"),
    "density that is nan": initial("log(theta)", "finite", "nan", "theta = -1.99"),
    "density that is infinite": initial("exp(1000*theta)", "finite", "inf"),
    "density of mass zero": initial("0*theta", "positive finite integral", "got 0"),
    "density that misses the domain": initial("1*(theta > 5)", "positive finite integral", "got 0"),
    "expression without text": initial("", '""'),
    "expression of blanks": initial("  ", "empty"),
    "expression with an unknown name": initial("exp(-thta**2)", "column 6", "thta", "did you mean theta?", "the names theta"),
    "expression with an unknown function": initial("epx(-theta**2)", "column 1", "epx", "did you mean exp?", "sqrt"),
    "expression that imports": initial("__import__('os').system('true')", "column 1", "not allowed", "the names theta"),
    "expression that calls import": initial("__import__('os')", "column 1", "__import__", "the names theta"),
    "expression with an attribute": initial("theta.real", "column 1", "dot", "the names theta"),
    "expression with a hidden attribute": initial("theta.__class__.__mro__", "column 1", "dot"),
    "expression that opens a file": initial("open('x')", "column 1", "open", "the names theta"),
    "expression that evaluates": initial("eval('1')", "column 1", "eval"),
    "expression with a tower of powers": initial("9**9**9**9", "finite", "inf"),
    "expression with a lambda": initial("(lambda: 1)()", "column 1", "function"),
    "expression with a list": initial("[x for x in theta]", "column 1", "not allowed"),
    "expression with an index": initial("theta[0]", "column 1", "square brackets"),
    "expression with a caret": initial("theta^2", "column 6", "x**y"),
    "expression with two statements": initial("1; theta", "column 2", "not an expression"),
    "expression with an assignment": initial("theta := 1", "not an expression"),
    "expression with a text": initial("'a'", "column 1", "number"),
    "expression with a comma": initial("1,5", "comma"),
    "expression with an imaginary number": initial("1j", "real number"),
    "expression with too large a number": initial("1e999", "too large"),
    "expression with the wrong count": initial("exp(1, 2)", "1 argument", "got 2"),
    "expression with open parentheses": initial(300 * "(", "column", "parenthes"),
    "expression that is too deep": initial(300 * "-" + "1", "nested", "50"),
    "expression that is too long": initial("1" + 600 * "+1", "1000"),
    "unknown name in a potential": wrong(
        POTENTIAL, 'density = "cos(thet)"', "energy[1].density", "column 5", "did you mean theta?", at="thet)"
    ),
    "potential that is not finite": wrong(POTENTIAL, 'density = "log(theta)"', "energy[1].density", "not finite", "log(theta)", at="log"),
    "potential with a gradient that is not finite": wrong(
        POTENTIAL, 'density = "1e308*theta"', "energy[1].density", "not finite", at="1e308"
    ),
    "potential that is not periodic": Wrong(
        ((AXIS, f"{AXIS}periodic = true\n"), (NETWORK, 'kind = "potential"\ndensity = "sin(theta)"')),
        ("energy[0].density", "periodic", "theta", "sin(theta)"),
        "sin(theta)",
    ),
    "density over four axes": Wrong(
        ((AXIS, axes(4)), (INITIAL, 'density = "1"')), ("initial.density", "3 axes", "4", "atoms"), 'density = "1"'
    ),
}

TEACHERS = {
    "two kinds of teacher": wrong(
        TEACHER, 'teacher = { neurons = [[1.0]], density = "1" }', "energy[0].teacher", "neurons and density", at="teacher"
    ),
    "no kind of teacher": wrong(TEACHER, "teacher = {}", "energy[0].teacher", "neurons, density, column", "none", at="teacher"),
    "neurons of another dimension": wrong(
        TEACHER, "teacher = { neurons = [[1.0, 2.0]] }", "energy[0].teacher.neurons", "1 coordinates", "theta", "[1.0, 2.0]", at="teacher"
    ),
    "neurons without brackets": wrong(
        TEACHER, "teacher = { neurons = [1.0] }", "energy[0].teacher.neurons[0]", "list", "1.0", at="teacher"
    ),
    "no neurons": wrong(TEACHER, "teacher = { neurons = [] }", "energy[0].teacher.neurons", "[]", at="teacher"),
    "neuron that is nan": wrong(
        TEACHER, "teacher = { neurons = [[nan]] }", "energy[0].teacher.neurons[0][0]", "finite", "nan", at="teacher"
    ),
    "weights of another count": wrong("[0.7, 0.3]", "[1.0]", "energy[0].teacher", "weight", "1 for 2", at="teacher"),
    "weights of a density": wrong(TEACHER, 'teacher = { density = "1", weights = [1.0] }', "energy[0].teacher", "weight", at="teacher"),
    "teacher density negative": wrong(TEACHER, 'teacher = { density = "theta" }', "energy[0].teacher.density", "nonnegative", at="teacher"),
    "column without samples": wrong(TEACHER, 'teacher = { column = "y" }', "energy[0].teacher.column", '"samples"', at="teacher"),
    "circle on a line": wrong('law = "normal"', 'law = "circle"', "energy[0].inputs.law", "circle", "1 inputs", at="circle"),
    "more inputs than a quadrature has": Wrong(
        (
            (AXIS, axes(4)),
            (TEACHER, "teacher = { neurons = [[1.0, 0.0, 0.0, 0.0]] }"),
            (INITIAL, "atoms = [[0.0, 0.0, 0.0, 0.0]]"),
            (GRID, ""),
            (COUNT, ""),
            (COMPARE, ""),
        ),
        ("energy[0].inputs.law", "3 inputs", '"samples"', "4"),
        "law",
    ),
    "bias on a line": wrong("activation", "bias = true\nactivation", "energy[0].bias", "two axes", at="bias"),
    "angle with a bias": wrong("activation", 'parameter = "angle"\nbias = true\nactivation', "energy[0].parameter", "bias", at="parameter"),
    "network on a periodic axis": wrong(AXIS, f"{AXIS}periodic = true\n", "energy[0].parameter", "periodic", 'parameter = "angle"'),
    "angle on another circle": Wrong(
        ((AXIS, f"{AXIS}periodic = true\n"), ("activation", 'parameter = "angle"\nactivation')),
        ("domain.theta", "2 pi", "4"),
        "[domain.theta]",
    ),
    "finite volumes over four axes": Wrong(
        ((AXIS, axes(4)), (INITIAL, "atoms = [[0.0, 0.0, 0.0, 0.0]]"), (COUNT, "")), ("solver[0]", "3 axes", "particles")
    ),
}

MEASURES = {
    "density and atoms": wrong(INITIAL, f"{INITIAL}\natoms = [[0.0]]", "initial", "density and atoms", at="[initial]"),
    "neither density nor atoms": wrong(INITIAL, "", "initial", "density, factors, law, atoms", "none", at="[initial]"),
    "atom outside the domain": atoms("atoms = [[0.5], [-2.5]]", "initial.atoms", "[-2.5]", "outside", at="atoms"),
    "atom of another dimension": atoms("atoms = [[0.5, 1.0]]", "initial.atoms", "1 coordinates", "theta", "[0.5, 1.0]", at="atoms"),
    "atoms without brackets": atoms("atoms = [0.5]", "initial.atoms[0]", "list", "0.5", at="atoms"),
    "no atoms": atoms("atoms = []", "initial.atoms", "[]", at="atoms"),
    "atom weight zero": atoms("atoms = [[0.5]]\nweights = [0.0]", "initial.weights[0]", "0.0", at="weights = [0.0]"),
    "atom weights of another count": atoms("atoms = [[0.5]]\nweights = [1.0, 2.0]", "initial", "weight", "2 for 1", at="[initial]"),
    "count beside atoms": wrong(INITIAL, "atoms = [[0.5], [-0.5]]", "solver[1].count", "50", "leave it out", "2", at="count"),
    "no saved times": wrong(TIMES, "save = []", "time.save", "[]", at="save"),
    "negative time": wrong(TIMES, "save = [-1.0, 0.5]", "time.save[0]", "0", "-1.0", at="save"),
    "time that is nan": wrong(TIMES, "save = [nan]", "time.save[0]", "finite", "nan", at="save"),
    "times without brackets": wrong(TIMES, "save = 1.0", "time.save", "list", "1.0", at="save"),
    "times out of order": wrong(TIMES, "save = [1.0, 0.5]", "time", "save", "increase"),
    "time twice": wrong(TIMES, "save = [0.5, 0.5]", "time", "save", "increase"),
    "end without count": wrong(TIMES, "end = 1.0", "time", "`count`", at="[time]"),
    "count without end": wrong(TIMES, "count = 3", "time", "save, end", at="[time]"),
    "end and save": wrong(TIMES, f"{TIMES}\nend = 1.0\ncount = 3", "time", "save and end", at="[time]"),
    "end zero": wrong(TIMES, "end = 0.0\ncount = 3", "time.end", "0.0", at="end"),
    "one time up to the end": wrong(TIMES, "end = 1.0\ncount = 1", "time.count", "2", "got 1", at="count = 1"),
}

TABLES = {
    "missing data file": samples(None, "data.csv", "no such file"),
    "data file that is a folder": samples(TABLE, "inputs", inputs='file = ".", columns = ["x"]'),
    "empty data file": samples("", "data.csv", "header"),
    "data file without rows": samples("x,y\n", "data.csv", "at least one row"),
    "binary data file": samples(bytes(range(256)), "data.csv", "cannot be read as text"),
    "data file in UTF-16": samples(TABLE.encode("utf-16"), "data.csv", "cannot be read as text"),
    "data file with semicolons": samples(TABLE.replace(",", ";"), "data.csv", '"x"', "x;y"),
    "missing column": samples(
        "income,y\n1,2\n", "data.csv", '"incom"', "income, y", 'mean "income"?', inputs='file = "data.csv", columns = ["incom"]'
    ),
    "missing column of the teacher": samples(TABLE, "data.csv", '"z"', "x, y", teacher='column = "z"'),
    "column twice in the data file": samples("x,x,y\n1,2,3\n", "data.csv", "more than one column", '"x"'),
    "row with nan": samples(TABLE + "nan,1\n", "data.csv:5", '"x"', "nan"),
    "row with infinity": samples(TABLE + "1,-inf\n", "data.csv:5", '"y"', "-inf"),
    "row with text": samples(TABLE + "abc,1\n", "data.csv:5", '"x"', '"abc"', "number"),
    "row with an empty cell": samples(TABLE + ",1\n", "data.csv:5", '"x"', '""'),
    "row that is too short": samples(f"# a comment\n\n{TABLE}1\n", "data.csv:7", "1 cells", "2"),
    "row that is too long": samples(TABLE + "1,2,3\n", "data.csv:5", "3 cells", "2"),
    "cell over two lines": samples('x,y\n"1\n",2\n', "data.csv", "several lines"),
    "constant column standardised": samples(
        "x,y\n1,2\n1,3\n", "data.csv", '"x"', "constant", inputs='file = "data.csv", columns = ["x"], standardize = true'
    ),
    "unknown column standardised": samples(
        TABLE, "inputs.standardize", '"z"', "x, y", inputs='file = "data.csv", columns = ["x"], standardize = ["z"]'
    ),
    "number for standardised columns": samples(
        TABLE, "inputs.standardize", "got 1", inputs='file = "data.csv", columns = ["x"], standardize = 1'
    ),
    "more columns than inputs": samples(TABLE, "inputs.columns", "1 inputs", "2 columns", inputs='file = "data.csv", columns = ["x", "y"]'),
    "no columns": samples(TABLE, "inputs.columns", "[]", inputs='file = "data.csv", columns = []'),
    "samples without columns": samples(TABLE, "inputs", "`columns`", "missing", inputs='file = "data.csv"'),
    "samples without file": samples(TABLE, "inputs", "`file`", "missing", inputs='columns = ["x"]'),
    "scale of samples": samples(
        TABLE, "inputs.scale", "unknown key", "standardize", inputs='file = "data.csv", columns = ["x"], scale = 1.0'
    ),
}

ODDITIES = {
    "integer of too many digits": wrong("title =", f"title = {5000 * '9'}\n# =", "not a TOML file"),
    "key with a line break": wrong("title =", '"ti\\ntle" =', "unknown key"),
    "axis with a line break": wrong("[domain.theta]", '[domain."a\\nb"]', "axis name"),
    "value with an escape sequence": wrong('"tanh"', '"\\u001b[31mtanh"', "energy[0].activation", at="activation"),
    "data file with a null byte": samples(TABLE, "inputs.file", inputs='file = "a\\u0000b", columns = ["x"]'),
    "end too small to divide": wrong(TIMES, "end = 5e-324\ncount = 3", "time.end", at="end"),
    "atom weights that overflow": atoms("atoms = [[0.5], [0.1]]\nweights = [1e308, 1e308]", "initial.weights", at="weights = [1e"),
    "atom weights that underflow": atoms("atoms = [[0.5], [0.1]]\nweights = [5e-324, 1.0]", "initial.weights", at="weights = [5"),
    "data too large to square": samples(
        "x,y\n1e200,1e300\n-1e200,-1e300\n", "data.csv", inputs='file = "data.csv", columns = ["x"], standardize = true'
    ),
}

WRONG = ODDITIES | UNKNOWN_KEYS | UNKNOWN_WORDS | MISSING | NUMBERS | NAMES | EXPRESSIONS | TEACHERS | MEASURES | TABLES

# Found by trying; each with what used to happen.
FOUND: dict[str, tuple[Wrong, str]] = {
    "hexadecimal integer of too many digits": (wrong('"base"', "0x1" + 5000 * "0", "title", "string", at="title"), "ValueError of str"),
    "density whose integral overflows": (initial("1e308", "positive finite integral", "inf"), "NumPy warns on stderr"),
    "equal cells standardised": (
        samples("x,y\n0.1,2\n0.1,3\n0.1,4\n", '"x"', "constant", inputs='file = "data.csv", columns = ["x"], standardize = true'),
        "round-off counts as variance",
    ),
    "potential infinite at one end of a circle": (
        Wrong(
            ((AXIS, f"{AXIS}periodic = true\n"), (NETWORK, 'kind = "potential"\ndensity = "1/(theta + 2)**2"')),
            ("energy[0].density", "theta"),
        ),
        "inf > inf is false",
    ),
    "title with a null byte": (wrong('"base"', '"a\\u0000b"', "title", at="title"), "HDF5 refuses it when the run is over"),
    "times out of order by value": (wrong(TIMES, "save = [0.0, 1.0, 0.5]", "time.save", "0.5", at="save"), "no value, line of the table"),
    "case with a byte order mark": (wrong("title", "\ufefftitel", 'did you mean "title"?'), "not a TOML file"),
    "header inside a text": (
        Wrong((('title = "base"', 'title = """\n[domain.theta]\nlower = 0\n"""'), ("-2.0", '"here"')), ("domain.theta.lower",), '"here"'),
        "lines of a text are taken for headers",
    ),
}


def _kinds() -> list[Any]:
    known = [pytest.param(case, id=name) for name, case in WRONG.items()]
    return known + [pytest.param(case, id=name) for name, (case, _) in FOUND.items()]


@pytest.mark.parametrize("case", _kinds())
def test_wrong_input_is_answered_with_one_line_that_says_where_and_what(case: Wrong, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(case.text(), encoding="utf-8")
    if case.csv is not None:
        (tmp_path / "data.csv").write_bytes(case.csv if isinstance(case.csv, bytes) else case.csv.encode())
    message = refusal("check", path, problems=case.problems)
    place = f"{path}:" if case.at is None else f"{path}:{line_with(case.text(), case.at)}: "
    assert message.startswith(place)
    for words in case.says:
        assert words in message


def line_with(text: str, part: str) -> int:
    return 1 + text[: text.index(part)].count("\n")


def test_the_base_case_is_right(tmp_path: Path) -> None:
    path = tmp_path / "right.toml"
    path.write_text(BASE)
    answer = call("check", path)
    assert (answer.code, answer.err, answer.warned) == (0, "", ())
    assert len(WRONG) >= 150


def test_a_comment_of_dots_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "right.toml"
    path.write_text(f"# {60 * '.'} lower = 3\n{BASE}")
    assert call("check", path).code == 0


def test_a_text_with_a_control_character_is_not_judged_as_a_label(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE.replace('density = "exp', 'density = "\\u0001exp'))
    message = refusal("check", path)
    assert "initial.density" in message
    assert "starting with a letter" not in message


FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("`domain`", "missing")),
    "only a comment": ("# nothing\n", ("`domain`", "missing")),
    "broken header": (BASE.replace("[time]", "[time"), ("not a TOML file", "line 20")),
    "broken text": (BASE.replace('"base"', '"base'), ("not a TOML file", "line 1")),
    "key twice": (BASE + 'reference = "fv"\n', ("not a TOML file", "line 34")),
    "table twice": (BASE + "[time]\nsave = [1.0]\n", ("not a TOML file", "line 34")),
    "no TOML at all": ("x" * 100, ("not a TOML file",)),
    "binary": (bytes(range(256)), ("cannot be read as text",)),
    "zeros": (bytes(100), ("not a TOML file",)),
    "UTF-16": (BASE.encode("utf-16"), ("cannot be read as text",)),
    "lists without end": ("a = " + 20_000 * "[", ("not a TOML file",)),
}


@pytest.mark.parametrize(("content", "says"), FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_is_no_case_is_named(command: str, content: str | bytes, says: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(command, path)
    assert message.startswith(f"{path}: ")
    for words in says:
        assert words in message


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_case_that_is_missing_or_a_folder_is_named(command: str, tmp_path: Path) -> None:
    assert refusal(command, tmp_path / "nothing.toml") == f"{tmp_path / 'nothing.toml'}: no such file"
    assert refusal(command, tmp_path).startswith(f"{tmp_path}: ")
    (tmp_path / "file").write_text("")
    assert refusal(command, tmp_path / "file" / "case.toml").startswith(f"{tmp_path / 'file' / 'case.toml'}: ")


def test_a_case_larger_than_any_case_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)
    assert "larger than" in refusal("check", path)


def test_the_line_is_found_however_the_key_is_written(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    bare = BASE.replace(AXIS, "")
    texts = [
        BASE.replace("[domain.theta]\nlower = -2.0", '[domain.theta]  # [an, axis]\nlower = "here"'),
        BASE.replace("[domain.theta]", '[ domain . "theta" ]').replace("-2.0", '"here"'),
        bare.replace('title = "base"', 'title = "base"\ndomain = { theta = { lower = "here", upper = 2.0 } }'),
        bare.replace('title = "base"', 'title = "base"\ndomain.theta.upper = 2.0\ndomain.theta.lower = "here"'),
        BASE.replace("-2.0", '"here"').replace("\n", "\r\n"),
    ]
    for text in texts:
        path.write_bytes(text.encode())
        assert refusal("check", path).startswith(f"{path}:{line_with(text, 'here')}: domain.theta.lower: ")


def test_every_problem_is_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE.replace("cells", "cels").replace("count = 50", "count = 0").replace("-2.0", "nan"))
    lines = refusal("check", path, problems=3).splitlines()
    for line, words in zip(lines, (":4: domain.theta.lower: ", ":26: solver[0].cels: ", ":30: solver[1].count: "), strict=True):
        assert words in line
    assert "unknown key; accepted here: kind, label, cells" in lines[1], "the misspelt key is not called missing as well"


def test_many_problems_are_named_up_to_ten(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text("".join(f"wrong_{k} = {k}\n" for k in range(12)) + BASE)
    lines = refusal("check", path, problems=11).splitlines()
    assert lines[9].startswith(f"mfpde: {path}:10: wrong_9: unknown key")
    assert lines[10] == f"mfpde: {path}: and 2 more problems"


def test_wrong_elements_of_one_list_and_missing_keys_of_one_table_are_one_problem_each(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE.replace(TIMES, "save = [0.0, nan, -1.0, -2.0, nan]").replace("lower = -2.0\nupper = 2.0\n", ""))
    lines = refusal("check", path, problems=3).splitlines()
    assert lines[0].endswith("domain.theta: the keys `lower`, `upper` are missing")
    assert lines[1].endswith("time.save[1]: must be a finite number, got nan (and 1 more of the list)")
    assert lines[2].endswith("time.save[2]: must be at least 0, got -1.0 (and 1 more of the list)")


@pytest.mark.parametrize("value", ["-3.0", "0.0"])
def test_a_number_that_must_be_positive_is_answered_so(value: str, tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE.replace("scale = 1.0", f"scale = {value}"))
    assert refusal("check", path).endswith(f"energy[0].inputs.scale: must be positive, got {value}")


SETTINGS: dict[str, tuple[str, ...]] = {
    "solver.fv.cells": ("--set", "key=value", '"solver.fv.cells"'),
    "=3": ("--set", "key=value"),
    "time..save=[1.0]": ("--set", "key=value", "time..save"),
    "tiem.save=[1.0]": ("tiem", "unknown key", 'did you mean "time"?'),
    "time.svae=[1.0]": ("time.svae", "unknown key", 'did you mean "save"?'),
    "new.table.x=3": ("new", "unknown key", "domain, energy"),
    "solver.fv.cels=[3]": ("solver[0].cels", 'did you mean "cells"?'),
    "solver.fx.cells=[3]": ("--set", '"fx"', "fv, particles"),
    "solver.7.cells=[3]": ("--set", '"7"', "fv, particles"),
    "solver.-1.cells=[3]": ("--set", '"-1"', "fv, particles"),
    "solver.².cells=[3]": ("--set", '"²"', "fv, particles"),
    "solver.cells=[3]": ("--set", '"cells"', "fv, particles"),
    "solver.fv.cells.3=64": ("--set", '"3"'),
    "solver.fv.cells.0.x=64": ("--set", '"solver.fv.cells.0"', "value"),
    "title.x=3": ("--set", '"title"', "value"),
    "title.x.y=3": ("--set", '"x"', "value"),
    "solver.fv=3": ("solver[0]", "got 3"),
    "time=": ("time", 'got ""'),
    "time.save=[0.0, 1.0": ("time.save", "list", '"[0.0, 1.0"'),
    "time.save.0=0.5": ("time", "save", "increase"),
    "domain.b.lower=1": ("domain.b", "`upper`", "missing"),
    "domain.theta.lower=5": ("domain.theta", "lower < upper", "5.0"),
    "domain.theta.lower=nan": ("domain.theta.lower", "finite", "nan"),
    "solver.fv.kind=particles": ("solver[0].cells", "unknown key", "count, seed"),
    "solver.fv.step=1e-13": ("solver[0].step", "more than 1e+09 steps of 1e-13", "1e-10 or more"),
    "solver.particles.learning_rate=1e-11": ("solver[1].learning_rate", "more than 1e+09 steps of 2e-13"),
    "solver.particles.count=1e3": ("solver[1].count", "integer", "1000.0"),
    "solver.fv.label=grid": ("compare.reference", '"fv"', "grid, particles"),
    "energy.potential.density=cos(thet)": ("energy[1].density", "column 5", "did you mean theta?"),
    "energy.0.inputs.law=circle": ("energy[0].inputs.law", "circle"),
    "initial.density=__import__('os')": ("initial.density", "__import__", "the names theta"),
}


@pytest.mark.parametrize(("setting", "says"), SETTINGS.items(), ids=SETTINGS.keys())
def test_a_wrong_setting_is_answered_like_wrong_input(setting: str, says: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE)
    message = refusal("check", path, "--set", "title=good", setting)
    assert message.startswith(f"{path}:")
    for words in says:
        assert words in message
    assert refusal("run", path, "--output", tmp_path / "out", "--set", "title=good", setting) == message
    assert not (tmp_path / "out").exists()


def test_a_setting_of_too_many_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE)
    assert "title" in refusal("check", path, "--set", f"title={5000 * '9'}")


def test_only_an_unknown_label_names_the_solvers(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE)
    message = refusal("run", path, "--output", tmp_path / "out", "--only", "fv", "particle")
    assert message.startswith(f"{path}: --only particle: ")
    assert "fv, particles" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_a_wrong_time_between_checkpoints_is_refused(seconds: str, tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE)
    assert "--checkpoint" in refusal("run", path, "--output", tmp_path / "out", "--checkpoint", seconds)


def test_an_output_that_is_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(BASE)
    for place in (path, path / "below"):
        assert refusal("run", path, "--output", place).startswith(f"{path}: is not a folder, so nothing can be written to {place}")
    assert path.read_text() == BASE


@pytest.mark.parametrize("name", ["fv.h5", "particles.h5", "comparison.json", "density.png"])
def test_a_folder_where_a_file_is_to_be_written_is_named_before_any_work(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "case.toml", tmp_path / "out"
    path.write_text(BASE)
    (out / name).mkdir(parents=True)
    assert refusal("run", path, "--output", out).startswith(f"{out / name}: is a folder, so the file cannot be written there")
    assert list(out.iterdir()) == [out / name]


# --- result files -----------------------------------------------------------------------------------------------------

PLAIN = """
[domain.theta]
lower = -2.0
upper = 2.0

[[energy]]
kind = "potential"
density = "theta**2"

[initial]
density = "exp(-theta**2)"

[time]
save = [0.0, 0.1]

[[solver]]
kind = "finite_volume"
label = "fv"
cells = [16]

[[solver]]
kind = "particles"
count = 10
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fv.h5 and particles.h5 of one case."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "case.toml").write_text(PLAIN)
    assert call("run", folder / "case.toml", "--output", folder, "--no-figures").code == 0
    return folder


Damage = Callable[[Path], object]


def attribute(name: str, value: Any) -> Damage:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return damage


def no_attribute(name: str) -> Damage:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file.attrs[name]

    return damage


def dataset(name: str, value: Any = None) -> Damage:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value

    return damage


def group(name: str) -> Damage:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_group(name)

    return damage


def content(data: bytes) -> Damage:
    return lambda path: path.write_bytes(data)


def cut(share: float) -> Damage:
    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: min(int(share * len(data)), len(data) - 1)])

    return damage


def foreign(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["density"] = np.ones((2, 16))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def axis(**changes: Any) -> str:
    return json.dumps([{"name": "theta", "lower": -2.0, "upper": 2.0, "periodic": False, "frozen": False, **changes}])


GRID_DAMAGE: dict[str, Damage] = {
    "missing": Path.unlink,
    "a folder": folder_instead,
    "empty": content(b""),
    "text": content(b"time,density\n0.0,1.0\n"),
    "only the signature": content(b"\x89HDF\r\n\x1a\n"),
    **{f"cut at {share:.1%}": cut(share) for share in (0.005, 0.05, 0.3, 0.6, 0.95, 1.0)},
    "foreign": foreign,
    **{f"without {name}": no_attribute(name) for name in ("mfpde_version", "domain", "terms", "status", "notes")},
    "domain that is no JSON": attribute("domain", "[{]"),
    "domain that is a number": attribute("domain", 3),
    "domain that is an array": attribute("domain", np.arange(3)),
    "domain without axes": attribute("domain", "[]"),
    "domain that is a table": attribute("domain", '{"theta": 1}'),
    "domain with half an axis": attribute("domain", '[{"name": "theta", "lower": 0.0}]'),
    "domain with an unknown key": attribute("domain", axis(lowest=3)),
    "domain with a text for a number": attribute("domain", axis(lower="a")),
    "domain upside down": attribute("domain", axis(lower=5.0)),
    "domain with another axis": attribute("domain", json.dumps(json.loads(axis()) + json.loads(axis(name="b")))),
    "unknown status": attribute("status", "FINISHED"),
    "status that is a number": attribute("status", 3),
    "unknown term": attribute("terms", '["entropy"]'),
    "terms that are no JSON": attribute("terms", "["),
    "terms that are a number": attribute("terms", "3"),
    "notes that are no JSON": attribute("notes", "flux"),
    "notes that are a number": attribute("notes", "3"),
    "no times": dataset("time"),
    "times of another count": dataset("time", np.array([0.0, 0.1, 0.2])),
    "times in a table": dataset("time", np.zeros((2, 1))),
    "times that are text": dataset("time", "soon"),
    "times that are a group": group("time"),
    "no density": dataset("density"),
    "density without time": dataset("density", np.ones(16)),
    "density of another time": dataset("density", np.ones((3, 16))),
    "density of another dimension": dataset("density", np.ones((2, 4, 4))),
    "density without cells": dataset("density", np.ones((2, 0))),
    "density that is text": dataset("density", "high"),
    "density that is a group": group("density"),
    "density that is nan": dataset("density", np.full((2, 16), np.nan)),
    "seconds that are text": attribute("wall_seconds", "long"),
    "no energy": dataset("energy_potential"),
    "energy of another count": dataset("energy_potential", np.ones(3)),
    "no steps": dataset("steps"),
    "steps that are numbers": dataset("steps", np.ones(3)),
    "steps without lengths": dataset("steps/dt"),
    "steps of another count": dataset("steps/dt", np.ones(2)),
}
PARTICLE_DAMAGE: dict[str, Damage] = {
    "no positions": dataset("position"),
    "positions without time": dataset("position", np.ones((10, 1))),
    "positions of another count": dataset("position", np.ones((2, 9, 1))),
    "positions of another dimension": dataset("position", np.ones((2, 10, 2))),
    "positions that are nan": dataset("position", np.full((2, 10, 1), np.nan)),
    "weights that are nan": dataset("weight", np.full(10, np.nan)),
    "no weights": dataset("weight"),
    "weights of another count": dataset("weight", np.ones(3)),
    "weights in a table": dataset("weight", np.ones((10, 1))),
    "one weight": dataset("weight", 1.0),
}
DAMAGE = {name: ("fv.h5", damage) for name, damage in GRID_DAMAGE.items()}
DAMAGE |= {name: ("particles.h5", damage) for name, damage in PARTICLE_DAMAGE.items()}
COMMANDS = ("info", "plot", "compare", "compare with")


def refusal_of_run(command: str, path: Path, good: Path) -> str:
    if command == "info":
        return refusal("info", path)
    if command == "plot":
        return refusal("plot", path, "--output", path.parent / "figures")
    return refusal("compare", path, good) if command == "compare" else refusal("compare", good, path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("source", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_result_is_named_in_one_line(source: str, damage: Damage, command: str, runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    shutil.copyfile(runs / source, path)
    damage(path)
    assert refusal_of_run(command, path, runs / "fv.h5").startswith(f"{path}: ")
    assert not (tmp_path / "figures").exists()


IMPOSSIBLE: dict[str, tuple[str, Damage, tuple[str, ...]]] = {
    "format of the future": ("fv.h5", attribute("format", 99), ("info", "compare")),
    "steps without a balance": ("fv.h5", dataset("steps/balance"), ("info", "compare")),
    "no list of tables": ("fv.h5", no_attribute("tables"), ("info",)),
    "tables that are not there": ("fv.h5", attribute("tables", '["branches/energy"]'), ("info", "compare")),
    "tables that are not listed": ("fv.h5", dataset("branches/energy", np.zeros(2)), ("info", "compare")),
    "axis without a name": ("fv.h5", attribute("domain", axis(name=3)), ("info", "plot")),
    "times that are nan": ("fv.h5", dataset("time", np.array([0.0, np.nan])), ("info", "plot", "compare")),
    "times out of order": ("fv.h5", dataset("time", np.array([0.1, 0.0])), ("info", "compare")),
    "density that is negative": ("fv.h5", dataset("density", np.full((2, 16), -1.0)), ("info", "compare")),
    "density of mass zero": ("fv.h5", dataset("density", np.zeros((2, 16))), ("info", "compare")),
    "positions outside": ("particles.h5", dataset("position", np.full((2, 10, 1), 9.0)), ("info", "compare")),
    "weights that are negative": ("particles.h5", dataset("weight", np.full(10, -1.0)), ("info", "compare")),
}
IMPOSSIBLE_READINGS = [
    pytest.param(source, damage, command, id=f"{name}-{command}")
    for name, (source, damage, commands) in IMPOSSIBLE.items()
    for command in commands
]


@pytest.mark.parametrize(("source", "damage", "command"), IMPOSSIBLE_READINGS)
def test_a_result_with_impossible_values_is_named_in_one_line(
    source: str, damage: Damage, command: str, runs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.h5"
    shutil.copyfile(runs / source, path)
    damage(path)
    assert refusal_of_run(command, path, runs / "fv.h5").startswith(f"{path}: ")


def test_a_result_of_an_older_format_is_to_be_made_again(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.h5"
    for damage in (attribute("format", 1), no_attribute("format")):
        shutil.copyfile(runs / "fv.h5", path)
        damage(path)
        for command in COMMANDS:
            message = refusal_of_run(command, path, runs / "fv.h5")
            assert message == f"{path}: is of format 1, made by an older mfpde; run the case again"


def test_a_result_cut_at_any_length_is_refused(runs: Path, tmp_path: Path) -> None:
    data, path = (runs / "particles.h5").read_bytes(), tmp_path / "cut.h5"
    for length in [*range(0, len(data), len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:length])
        assert refusal("info", path).startswith(f"{path}: ")


def test_a_flipped_bit_in_the_marks_of_the_domain_is_refused(runs: Path, tmp_path: Path) -> None:
    data, path = (runs / "fv.h5").read_bytes(), tmp_path / "flipped.h5"
    start = data.index(b'[{"name": "theta", "lower"')
    for offset in (0, 1, 2, 3, 7, 8, 17, 20):
        for bit in (0, 3, 6):
            flipped = bytes([data[start + offset] ^ (1 << bit)])
            path.write_bytes(data[: start + offset] + flipped + data[start + offset + 1 :])
            assert refusal("info", path).startswith(f"{path}: ")


def test_a_comparison_that_makes_no_sense_is_refused(runs: Path, tmp_path: Path) -> None:
    one, two, other = runs / "fv.h5", runs / "particles.h5", tmp_path / "other.h5"
    assert "two runs" in refusal("compare", one)
    message = refusal("compare", one, two, "--reference", "vf")
    assert "fv, particles" in message
    assert "vf" in message
    shutil.copyfile(two, other)
    attribute("domain", axis(upper=3.0))(other)
    message = refusal("compare", one, other)
    assert str(one) in message
    assert str(other) in message
    shutil.copyfile(two, other)
    dataset("time", np.array([3.0, 4.0]))(other)
    assert str(other) in refusal("compare", one, other)


def test_figures_that_cannot_be_written_are_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal("plot", runs / "fv.h5", "--output", tmp_path / "file")
    message = refusal("compare", runs / "fv.h5", runs / "particles.h5", "--output", tmp_path / "file", written=True)
    assert str(tmp_path / "file") in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["rnu"], "choose from 'run', 'check'"),
        (["run"], "CASE"),
        (["check"], "case"),
        (["run", "case.toml", "--format", "jpg"], "choose from 'png', 'pdf', 'svg'"),
        (["run", "case.toml", "--checkpoint", "often"], "--checkpoint"),
        (["run", "case.toml", "--outptu", "x"], "--outptu"),
    ],
    ids=["nothing", "unknown command", "run without case", "check without case", "unknown format", "text for seconds", "unknown option"],
)
def test_wrong_arguments_are_answered_with_the_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("usage: mfpde")
    assert says in written.err
