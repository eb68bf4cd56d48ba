"""What the energy of a case is, in formulas with their values."""

from mfpde.case import schema
from mfpde.case.errors import shown
from mfpde.energy import Interaction, TwoLayer
from mfpde.energy.base import Energy


def describe_term(table: schema.Term, term: Energy) -> str:
    """For people: the formula of a term with the values of its table; for a network a second line says how it is computed."""
    if isinstance(table, schema.PotentialTerm):
        return f"∫V dρ with V = {_text(table.density)}"
    if isinstance(table, schema.EntropyTerm):
        return f"T ∫ρ log ρ with T = {table.temperature:g}"
    if isinstance(table, schema.PorousMediumTerm):
        return f"c ∫ρ^m/(m − 1) with m = {table.exponent:g}, c = {table.coefficient:g}"
    if isinstance(table, schema.InteractionTerm):
        form = f" ({term.kernel.form})" if isinstance(term, Interaction) else ""
        return f"½ ∬ c W(x − y) dρ dρ with W = {_text(table.kernel)}, c = {table.coefficient:g}{form}"
    made = f"\n    {term.description}" if isinstance(term, TwoLayer) else ""
    return f"½ E|∫σ(x·θ)dρ − y|² with σ = {table.activation}{_network(table)}{made}"


def _text(expression: str) -> str:
    """An expression as it stands in the case, on one line."""
    return shown(" ".join(expression.split()), 200).strip('"')


def _network(table: schema.TwoLayerTerm) -> str:
    """Parameters, inputs and teacher."""
    angle = ", θ the angle of a unit vector" if table.parameter == "angle" else ""
    bias = ", the last axis an offset" if table.bias else ""
    return f"{angle}{bias}, x {_inputs(table)}, y {_teacher(table.teacher)}"


def _inputs(table: schema.TwoLayerTerm) -> str:
    inputs = table.inputs
    if isinstance(inputs, schema.SampleInputs):
        names = "all" if inputs.standardize is True else ", ".join(inputs.standardize or [])
        return f"the samples {inputs.file} ({', '.join(inputs.columns)}{f'; standardised: {names}' if names else ''})"
    laws = {"normal": "normal with deviation", "uniform": "uniform in a box of half width", "circle": "uniform on the circle of radius"}
    return f"{laws[inputs.law]} {inputs.scale:g}"


def _teacher(teacher: schema.Teacher) -> str:
    if teacher.column is not None:
        return f"the column {teacher.column}"
    if teacher.density is not None:
        return f"a teacher of density {_text(teacher.density)}"
    count = len(teacher.neurons or [])
    return f"a teacher of {count} neuron{'s' * (count > 1)}"
