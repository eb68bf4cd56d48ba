"""What the energy of a case is, in formulas with their values."""

from collections.abc import Iterator, Sequence

from mfpde.case import schema
from mfpde.case.errors import shown
from mfpde.energy import Interaction, PairNetwork, TwoLayer, WideResNet
from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.potential import PATH_ROUNDING


def describe_terms(tables: Sequence[schema.Term], energy: EnergySum) -> Iterator[tuple[str, str]]:
    """The names and formulas of all terms; a network's penalties are some of their own."""
    terms = iter(energy.terms.items())
    for table in tables:
        name, term = next(terms)
        yield name, describe_term(table, term)
        if isinstance(table, schema.TwoLayerTerm) and table.decay is not None:
            weights = " + |w|²" if table.output == "trained" else ""
            yield next(terms)[0], f"λ/2 ∫|θ|²{weights} dρ with λ = {table.decay:g}"
        if isinstance(table, schema.TwoLayerTerm) and table.path_norm is not None:
            yield next(terms)[0], f"λ ∫|w||θ| dρ with λ = {table.path_norm:g}, rounded off below |w||θ| = {PATH_ROUNDING:g}"


def describe_term(table: schema.Term, term: Energy) -> str:
    """For people: the formula of a term with the values of its table; for a network a second line says how it is computed."""
    if isinstance(table, schema.PotentialTerm):
        return f"∫V dρ with V = {_text(table.density)}"
    if isinstance(table, schema.EntropyTerm):
        return f"T ∫ρ log ρ with T = {table.temperature:g}"
    if isinstance(table, schema.PorousMediumTerm):
        return f"c ∫ρ^m/(m − 1) with m = {table.exponent:g}, c = {table.coefficient:g}"
    if isinstance(table, schema.IncompressibleTerm):
        return f"0 for ρ ≤ {table.bound:g}, infinite beyond"
    if isinstance(table, schema.InteractionTerm):
        form = f" ({term.kernel.form})" if isinstance(term, Interaction) else ""
        return f"½ ∬ c W(x − y) dρ dρ with W = {_text(table.kernel)}, c = {table.coefficient:g}{form}"
    made = f"\n    {term.description}" if isinstance(term, TwoLayer | PairNetwork | WideResNet) else ""
    if isinstance(table, schema.WideResNetTerm):
        return f"{_wide(table)}, σ = {table.activation}, x {_inputs(table)}, y {_teacher(table.teacher)}{made}"
    if isinstance(table, schema.EnsembleResNetTerm):
        recursion = "X⁰ = x, X^{l+1} = X^l + σ(θ^l X^l)/L"
        return f"½ E|∫X^L dρ − y|², {recursion}, σ = {table.activation}, x {_inputs(table)}, y {_teacher(table.teacher)}{made}"
    weight = "w" if table.output == "trained" else ""
    return f"½ E|∫{weight}σ(x·θ)dρ − y|² with σ = {table.activation}{_network(table)}{made}"


def _text(expression: str) -> str:
    """An expression as it stands in the case, on one line."""
    return shown(" ".join(expression.split()), 200).strip('"')


def _network(table: schema.TwoLayerTerm) -> str:
    """Parameters, inputs and teacher."""
    angle = ", θ the angle of a unit vector" if table.parameter == "angle" else ""
    last = "last axis of θ" if table.output == "trained" or table.outputs > 1 else "last axis"
    bias = f", the {last} an offset" if table.bias else ""
    return f"{angle}{_outputs(table)}{bias}, x {_inputs(table)}, y {_teacher(table.teacher)}"


def _outputs(table: schema.TwoLayerTerm) -> str:
    """What the axes are, where they are not θ alone."""
    if table.output == "trained":
        return ", w the last axis" if table.outputs == 1 else f", w the last {table.outputs} axes"
    return "" if table.outputs == 1 else f", {table.outputs} outputs with a θ for each"


def _wide(table: schema.WideResNetTerm) -> str:
    """The network of a wide ResNet or its expansion."""
    if table.approximation == "first":
        return "½ E|X − y|², X = x + ∫σ(θx)dρ"
    if table.approximation == "second":
        return "½ E|X − y|², X = x + ∫σ(θx)dρ + ∬σ'(θx)∘θσ(θ'x) dρ dρ' over θ behind θ'"
    if table.depth == "continuous":
        return "½ E|X(1) − y|², X(0) = x, dX/dε = ∫σ(θX)ρ(dθ|ε)"
    return "½ E|X^L − y|², X⁰ = x, X^{ℓ+1} = X^ℓ + ∫σ(θX^ℓ)dρ over level ℓ"


def _inputs(table: schema.NetworkTerm) -> str:
    inputs = table.inputs
    if isinstance(inputs, schema.SampleInputs):
        names = "all" if inputs.standardize is True else ", ".join(inputs.standardize or [])
        return f"the samples {inputs.file} ({', '.join(inputs.columns)}{f'; standardised: {names}' if names else ''})"
    laws = {"normal": "normal with deviation", "uniform": "uniform in a box of half width", "circle": "uniform on the circle of radius"}
    return f"{laws[inputs.law]} {inputs.scale:g}"


def _teacher(teacher: schema.Teacher) -> str:
    if teacher.column is not None:
        return f"the column{'s' * (len(teacher.column) > 1)} {', '.join(teacher.column)}"
    if teacher.density is not None:
        return f"a teacher of density {_text(teacher.density)}"
    count = len(teacher.neurons or [])
    return f"a teacher of {count} neuron{'s' * (count > 1)}"
