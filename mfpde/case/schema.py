"""The shape of a case file: strict models that know every key, its type and its range."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from mfpde.case.convergence_speed_schema import ConvergenceSpeedTable
from mfpde.case.spectrum_schema import SpectrumTable
from mfpde.case.stationarity_schema import StationarityTable
from mfpde.case.tables import (
    MOST,
    NO_CONTROL,
    ActivationName,
    Count,
    Label,
    Number,
    Positive,
    Row,
    Table,
    Text,
    check_distinct,
)
from mfpde.case.teacher_recovery_schema import TeacherRecoveryTable
from mfpde.case.wide_resnet_schema import WideResNetTable
from mfpde.choices import excluded


def _exactly_one(table: BaseModel, *names: str) -> None:
    given = [name for name in names if getattr(table, name) is not None]
    if len(given) != 1:
        raise ValueError(f"needs exactly one of {', '.join(names)}, got {' and '.join(given) or 'none'}")


Walls = Annotated[
    Literal["cutoff", "model"],
    Field(description="model: walls are part of the model; cutoff: they only bound the computation, so that mass at them is warned of"),
]


class AxisTable(Table):
    """One coordinate of the domain."""

    lower: Number = Field(description="lower end")
    upper: Number = Field(description="upper end")
    periodic: bool = Field(False, description="a circle instead of no-flux walls")
    frozen: bool = Field(False, description="nothing moves along this axis")
    walls: Walls | None = Field(None, description="default: cutoff; only where there are walls")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"needs lower < upper, got lower = {self.lower}, upper = {self.upper}")
        if self.upper - self.lower < 1e-6 * max(abs(self.lower), abs(self.upper)):
            raise ValueError(f"is too narrow to be resolved at its place, got lower = {self.lower}, upper = {self.upper}")
        if self.periodic and self.frozen:
            raise ValueError("cannot be both periodic and frozen")
        if self.walls is not None and (self.periodic or self.frozen):
            kind = "periodic" if self.periodic else "frozen"
            raise ValueError(f"is {kind}, so that there are no walls to stop anything; leave `walls` out, got {self.walls}")
        return self


_PAIR: JsonDict = {"minItems": 2, "maxItems": 2}


class DiskTable(Table):
    """The whole domain as a disk in the plane, with no flux through its rim; finite volumes on it are polar."""

    axes: list[Text] = Field(description="the names of the two Cartesian coordinates", json_schema_extra=_PAIR)
    radius: Positive
    center: list[Number] = Field([0.0, 0.0], description="the disk's centre", json_schema_extra=_PAIR)
    walls: Walls = "cutoff"

    @model_validator(mode="before")
    @classmethod
    def _not_both(cls, table: Any) -> Any:
        own = [name for name in AxisTable.model_fields if name not in cls.model_fields]
        found = [name for name in own if name in table] if isinstance(table, dict) else []
        if found:
            raise ValueError(f"is an interval (lower, upper, periodic, frozen) or a disk (axes, radius, center), got {found[0]} in a disk")
        return table

    @model_validator(mode="after")
    def _planar(self) -> Self:
        if len(self.axes) != 2 or self.axes[0] == self.axes[1]:
            raise ValueError(f'`axes` needs two different names, e.g. axes = ["a", "b"], got {self.axes}')
        if len(self.center) != 2:
            raise ValueError(f"`center` needs two numbers, got {self.center}")
        if self.radius < 1e-6 * max(abs(c) for c in self.center):
            raise ValueError(f"is too small to be resolved at its place, got radius = {self.radius}, center = {self.center}")
        return self


def _shape(table: Any) -> str:
    """Which of the two a domain's table describes, by its keys."""
    keys = set(table) if isinstance(table, dict) else set()
    own = set(DiskTable.model_fields) - set(AxisTable.model_fields)
    return "disk" if isinstance(table, DiskTable) or keys & own else "interval"


DomainTable = Annotated[
    Annotated[AxisTable, Tag("interval")] | Annotated[DiskTable, Tag("disk")],
    Discriminator(_shape),
]


class DrawnInputs(Table):
    """Inputs with a law: its quadrature, or so many draws in place of it."""

    scale: Positive = 1.0
    count: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="take the empirical law of so many draws; required for more than 3 inputs"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(default=None, description="of the draws, default 0")

    @model_validator(mode="after")
    def _seeded_draws(self) -> Self:
        if self.seed is not None and self.count is None:
            raise ValueError("`seed` goes with `count`: without it the law itself is taken, by quadrature")
        return self


class NormalInputs(DrawnInputs):
    """x = scale · N(0, I)."""

    law: Literal["normal"]


class UniformInputs(DrawnInputs):
    """x uniform on the box [-scale, scale] along every coordinate."""

    law: Literal["uniform"]


class CircleInputs(DrawnInputs):
    """x uniform on the circle |x| = scale in the plane."""

    law: Literal["circle"]


class SampleInputs(Table):
    """x from the rows of a CSV file with a header; lines that start with # are skipped."""

    law: Literal["samples"]
    file: Text = Field(description="path, relative to the case file")
    columns: list[Text] = Field(min_length=1, max_length=16, description="the columns of x, in order")
    standardize: bool | list[Text] = Field(
        False, description="true: scale all columns and the target to mean 0 and variance 1; or the names of some"
    )


Inputs = Annotated[NormalInputs | UniformInputs | CircleInputs | SampleInputs, Field(discriminator="law")]


def _as_row(value: Any) -> Any:
    if isinstance(value, list):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"needs a number, or a list of one for each output, got {value!r}")
    return [value]


def _as_texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_NUMBER_SCHEMA: JsonDict = {"type": "number", "minimum": -MOST, "maximum": MOST}
_TEXT_SCHEMA: JsonDict = {"type": "string", "minLength": 1, "maxLength": 1000}
OutputWeights = Annotated[
    Row,
    BeforeValidator(_as_row),
    WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, {"type": "array", "items": _NUMBER_SCHEMA, "minItems": 1, "maxItems": 16}]}),
]
Columns = Annotated[
    list[Text],
    Field(min_length=1, max_length=16),
    BeforeValidator(_as_texts),
    WithJsonSchema({"anyOf": [_TEXT_SCHEMA, {"type": "array", "items": _TEXT_SCHEMA, "minItems": 1, "maxItems": 16}]}),
]


class Teacher(Table):
    """What the network is to learn: neurons with weights, a density of neurons, or columns of the data."""

    neurons: list[Row] | None = Field(
        None, min_length=1, max_length=100_000, description="each in the coordinates of θ, without those of output weights"
    )
    weights: list[OutputWeights] | None = Field(
        None, description="a number for each neuron, or a list of one for each output; default: equal, of sum one"
    )
    density: Text | None = Field(None, description="expression in the axis names; normalised by the program")
    column: Columns | None = Field(None, description="a column of the CSV file of the inputs, or a list of one for each output")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, "neurons", "density", "column")
        if self.weights is not None and (self.neurons is None or len(self.weights) != len(self.neurons)):
            raise ValueError(f"needs one weight for each neuron, got {len(self.weights)} for {len(self.neurons or [])}")
        if len({len(row) for row in self.weights or []}) > 1:
            raise ValueError("needs equally many `weights` for each neuron, one for each output")
        for name in self.column or []:
            if (self.column or []).count(name) > 1:
                raise ValueError(f'`column` holds "{name}" twice; give each output a column of its own')
        return self


class TwoLayerTerm(Table):
    """E = ½ E_x|∫σ(x·θ)ρ(dθ) − y(x)|², or with w σ(x·θ) in place of σ(x·θ)."""

    kind: Literal["two_layer"]
    label: Label | None = None
    activation: ActivationName
    inputs: Inputs = Field(default_factory=lambda: NormalInputs(law="normal"))
    teacher: Teacher
    parameter: Literal["vector", "angle"] = Field("vector", description="angle: the one axis is the angle of a unit vector")
    bias: bool = Field(False, description="the last axis of θ is an offset: σ(a·x + b)")
    output: Literal["fixed", "trained"] = Field(
        "fixed", description="trained: the axes after those of θ, one for each output, are the neuron's output weights w"
    )
    outputs: Annotated[int, Field(ge=1, le=16)] = Field(
        1, description="numbers that the network computes; with fixed output each has a θ of its own, whose axes follow one another"
    )
    expectation: Literal["quadrature", "closed"] = Field(
        "quadrature", description="closed: closed forms for normal inputs, any number of them, and some activations"
    )
    decay: Positive | None = Field(None, description="λ of a weight decay λ/2 ∫|θ|² + |w|² dρ, which is a term of its own")
    path_norm: Positive | None = Field(
        None, description="λ of a penalty λ∫|w||θ|dρ on trained outputs, rounded off below |w||θ| = 1e-3, which is a term of its own"
    )
    tolerance: Annotated[float, Field(ge=1e-14, le=0.1)] | None = Field(None, description="relative error of the compressed features")

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if self.path_norm is not None and (self.output != "trained" or self.parameter == "angle"):
            raise ValueError('`path_norm` is of output weights times vectors; it needs output = "trained" and parameter = "vector"')
        if self.decay is not None and self.parameter == "angle":
            raise ValueError("`decay` is of vectors, whose length an angle does not have; add a potential instead")
        if self.expectation == "closed" and (not isinstance(self.inputs, NormalInputs) or self.inputs.count is not None):
            raise ValueError('expectation = "closed" is for inputs with law = "normal", without `count`; leave it out for others')
        found = len(self.teacher.column or []) or len((self.teacher.weights or [[1.0]])[0])
        if self.teacher.density is None and found != self.outputs and (self.teacher.weights or self.teacher.column):
            what = "columns" if self.teacher.column else "weights for each neuron"
            raise ValueError(f"the network has {self.outputs} outputs (`outputs`), but the teacher {found} {what}")
        if self.outputs > 1 and self.teacher.neurons is not None and self.teacher.weights is None:
            raise ValueError(f"a teacher of {self.outputs} outputs needs `weights`, a list of {self.outputs} numbers for each neuron")
        return self


class EnsembleResNetTerm(Table):
    """E = ½ E_x|∫X^L(x; Θ)ρ(dΘ) − y(x)|² with X⁰ = x, X^{l+1} = X^l + σ(θ^l X^l)/L: an average of residual networks."""

    kind: Literal["ensemble_resnet"]
    label: Label | None = None
    activation: ActivationName
    inputs: Inputs = Field(default_factory=lambda: NormalInputs(law="normal"))
    teacher: Teacher = Field(description="as of two_layer, a neuron being a whole network Θ in the coordinates of the domain")
    dimension: Annotated[int, Field(ge=1, le=4)] = Field(
        1, description="d of inputs, states and outputs; the axes are the d × d matrices θ⁰ … θ^{L−1}, row after row, and give the depth L"
    )
    tolerance: Annotated[float, Field(ge=1e-14, le=0.1)] | None = Field(None, description="relative error of the compressed features")

    @property
    def outputs(self) -> int:
        """Numbers that the network computes."""
        return self.dimension

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if any(len(weights) > 1 for weights in self.teacher.weights or []):
            raise ValueError("`weights` of a teacher are one number for each of its networks, which have all outputs")
        if self.teacher.column is not None and len(self.teacher.column) != self.dimension:
            raise ValueError(f"the network has {self.dimension} outputs (`dimension`), but the teacher {len(self.teacher.column)} columns")
        return self


class WideResNetTerm(Table):
    """E = ½ E_x|X^L(x; ρ) − y(x)|² with X⁰ = x, X^{ℓ+1} = X^ℓ + ∫_{level ℓ}σ(θX^ℓ)dρ: one residual network, wide at every level."""

    kind: Literal["wide_resnet"]
    label: Label | None = None
    activation: ActivationName
    inputs: Inputs = Field(default_factory=lambda: NormalInputs(law="normal"))
    teacher: Teacher = Field(
        description="as of two_layer, a neuron being a unit in the coordinates of the domain, θ and then its depth; weights are masses, "
        "1/L on each level for a network like the students"
    )
    dimension: Annotated[int, Field(ge=1, le=4)] = Field(
        1, description="d of inputs, states and outputs; the axes are the d × d matrix θ, row after row, and last, frozen, the depth"
    )
    depth: Annotated[int, Field(ge=1, le=1000)] | Literal["continuous"] = Field(
        description="the number L of levels, which divide the last axis into equal parts; continuous: the limit of many levels"
    )
    approximation: Literal["exact", "first", "second"] = Field(
        "exact", description="first, second: expanded to this order in θ, which is an expansion where σ(0) = 0"
    )
    teacher_approximation: Literal["exact", "first", "second"] | None = Field(
        None, description="of the network that computes y; default: exact, so that losses are of one problem whatever the student"
    )

    @property
    def outputs(self) -> int:
        """Numbers that the network computes."""
        return self.dimension

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if any(len(weights) > 1 for weights in self.teacher.weights or []):
            raise ValueError("`weights` of a teacher are one number for each of its units, which have all outputs")
        if self.teacher.column is not None and len(self.teacher.column) != self.dimension:
            raise ValueError(f"the network has {self.dimension} outputs (`dimension`), but the teacher {len(self.teacher.column)} columns")
        if self.teacher.column is not None and self.teacher_approximation is not None:
            raise ValueError("`teacher_approximation` is of a teacher that is a network, but it is a column; leave it out")
        return self


NetworkTerm = TwoLayerTerm | EnsembleResNetTerm | WideResNetTerm
"""Terms with inputs and a teacher, of which minibatches can be drawn."""


class PotentialTerm(Table):
    """∫V dρ."""

    kind: Literal["potential"]
    label: Label | None = None
    density: Text = Field(description="expression V in the axis names")
    obstacle: Text | None = Field(
        None, description="expression that is positive where no mass may be; only jko with back_and_forth keeps out of it"
    )


class EntropyTerm(Table):
    """T ∫ρ log ρ: noise of temperature T = 1/β."""

    kind: Literal["entropy"]
    label: Label | None = None
    temperature: Positive


class PorousMediumTerm(Table):
    """c ∫ρ^m/(m − 1): diffusion c Δρ^m."""

    kind: Literal["porous_medium"]
    label: Label | None = None
    exponent: Positive = Field(description="m > 0, other than 1")
    coefficient: Positive = Field(1.0, description="c")

    @field_validator("exponent")
    @classmethod
    def _nonlinear(cls, exponent: float) -> float:
        if exponent == 1.0:
            raise ValueError('must not be 1, where the diffusion is linear: that is kind = "entropy" with temperature = coefficient, got 1')
        return exponent


class IncompressibleTerm(Table):
    """0 for densities up to a bound, infinite beyond; only jko with back_and_forth keeps to it."""

    kind: Literal["incompressible"]
    label: Label | None = None
    bound: Positive = Field(1.0, description="the largest density")
    softness: Positive | None = Field(
        None, description="of the change of density in a step, for smooth potentials; default: so that fronts are about a cell thick"
    )


class InteractionTerm(Table):
    """½∬ c W(x − y) ρ(dx)ρ(dy)."""

    kind: Literal["interaction"]
    label: Label | None = None
    kernel: Text = Field(
        description="expression W, even: the axis names are the components of the difference x - y, the shortest one along periodic axes, "
        "and r is its norm"
    )
    coefficient: Number = Field(1.0, description="c, of any sign but not 0")

    @field_validator("coefficient")
    @classmethod
    def _present(cls, coefficient: float) -> float:
        if abs(coefficient) < 1e-30:
            raise ValueError(f"must not be 0: leave the term out instead, got {coefficient:g}")
        return coefficient


Term = Annotated[
    TwoLayerTerm
    | EnsembleResNetTerm
    | WideResNetTerm
    | PotentialTerm
    | EntropyTerm
    | PorousMediumTerm
    | IncompressibleTerm
    | InteractionTerm,
    Field(discriminator="kind"),
]


class Initial(Table):
    """The measure at time 0: a density, one factor for each axis, a law, or atoms."""

    density: Text | None = Field(None, description="expression in the axis names; normalised by the program")
    factors: dict[str, Text] | None = Field(
        None, min_length=1, max_length=16, description="a product: for each axis an expression in its own name; axes left out are uniform"
    )
    law: Literal["normal", "uniform"] | None = Field(
        None, description="independent coordinates, cut off at the ends of the axes; uniform along frozen ones"
    )
    center: Row | None = Field(None, description="of the law, one number for each axis; default: 0 for normal, the middle for uniform")
    scale: Positive | None = Field(None, description="deviation of normal, default 1; half width of uniform, default the whole axis")
    atoms: list[Row] | None = Field(None, min_length=1)
    weights: list[Positive] | None = Field(None, description="default: equal; scaled to sum one")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, "density", "factors", "law", "atoms")
        if self.law is None and (self.center is not None or self.scale is not None):
            raise ValueError("`center` and `scale` belong to a `law`")
        if self.weights is not None and (self.atoms is None or len(self.weights) != len(self.atoms)):
            raise ValueError(f"needs one weight for each atom, got {len(self.weights)} for {len(self.atoms or [])}")
        return self


class Time(Table):
    """The times to save: a list, or ``count`` equidistant ones from 0 to ``end``."""

    save: list[Annotated[float, Field(ge=0.0, le=MOST)]] | None = Field(None, min_length=1, max_length=1_000_000)
    end: Positive | None = None
    count: Annotated[int, Field(ge=2, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _exactly_one(self, "save", "end")
        if (self.end is None) != (self.count is None):
            raise ValueError("`end` and `count` go together")
        return self

    @field_validator("save")
    @classmethod
    def _increasing(cls, save: list[float] | None) -> list[float] | None:
        for before, after in pairwise(save or []):
            if after <= before:
                raise ValueError(f"the times must increase, got {after:g} after {before:g}")
        return save


class FiniteVolumeSolver(Table):
    """Conservative finite volumes on a grid."""

    kind: Literal["finite_volume"]
    label: Label | None = None
    cells: list[Annotated[int, Field(ge=1, le=10_000_000)]] = Field(min_length=1, max_length=3, description="one number for each axis")
    tolerance: Annotated[float, Field(ge=1e-15, le=1e-2)] | None = Field(
        None, description="largest L1 error of a time step; default: 1e-8 explicit, 1e-6 implicit, 1e-4 implicit_euler"
    )
    flux: Literal["auto", "upwind", "limited", "pressure", "scharfetter_gummel"] = Field(
        "auto",
        description="auto: pressure without entropy (limited, with slopes of ρ^(m−1) in a porous medium); with it scharfetter_gummel where "
        "the cells resolve the drift, else limited",
    )
    stepper: Literal["auto", "explicit", "implicit", "implicit_euler"] = Field(
        "auto", description="auto: implicit (of second order) with an entropy or a porous medium, explicit without"
    )
    step: Positive | None = Field(None, description="a fixed time step instead of the tolerance")

    @model_validator(mode="after")
    def _one_control(self) -> Self:
        if self.step is not None and self.tolerance is not None:
            raise ValueError("`step` switches the error control off, so it cannot stand beside `tolerance`; leave one of them out")
        return self


class ParticleSolver(Table):
    """The finite-N particle system."""

    kind: Literal["particles"]
    label: Label | None = None
    count: Count | None = Field(None, description="number of atoms; left out when the initial measure is atoms")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    start: Literal["random", "quantile", "grid"] = Field(
        "random", description="independent draws, the quantiles of the initial density, or a grid with its masses as weights"
    )
    tolerance: Annotated[float, Field(ge=1e-13, le=1e-2)] = Field(1e-9, description="relative and absolute, without entropy")
    step: Positive | None = Field(None, description="largest Euler–Maruyama step; with an entropy term this or `learning_rate` is required")
    table_tolerance: Annotated[float, Field(ge=0.0, le=1e-2)] = Field(
        1e-9, description="relative error of a network's gradients where thousands of atoms act through a table; 0 for no tables"
    )
    learning_rate: Positive | None = Field(
        None, description="train by gradient descent with this step α: k iterations of N atoms reach the time kα/N"
    )
    batch: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="inputs of a minibatch of stochastic gradient descent; with `learning_rate`"
    )
    epochs: bool = Field(False, description="draw minibatches of samples in shuffled epochs, without replacement")
    diffusion: Literal["noise", "blob"] = Field(
        "noise", description="blob: entropy and porous_medium without noise, by the mollified density, an approximation"
    )
    blob_width: Positive | None = Field(None, description="width of the mollifier; default: from the distance of the initial atoms")

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if message := excluded(self):
            raise ValueError(message)
        return self


class StationarySolver(Table):
    """Stationary states of energies with an entropy or a power of the density, from several starts."""

    kind: Literal["stationary"]
    label: Label | None = None
    cells: list[Annotated[int, Field(ge=1, le=10_000_000)]] = Field(min_length=1, max_length=3, description="one number for each axis")
    starts: Annotated[int, Field(ge=1, le=10_000)] = Field(8, description="how many starts; one is enough where the energy is convex")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    tolerance: Annotated[float, Field(ge=1e-15, le=1e-2)] = Field(1e-10, description="error that counts as converged, beside the potential")
    select: Literal["initial", "lowest"] = Field("initial", description="store the state from the initial density, or the lowest")


class CharacteristicsSolver(Table):
    """Quadrature nodes of the initial density carried by the flow, on up to three axes, without internal energies."""

    kind: Literal["characteristics"]
    label: Label | None = None
    cells: list[Annotated[int, Field(ge=1, le=10_000_000)]] = Field(
        min_length=1,
        max_length=3,
        description="one number for each axis: the grid on which densities are stored, as cell masses, exact ones on one axis",
    )
    order: Annotated[int, Field(ge=6, le=64)] | None = Field(
        None, description="Gauss–Legendre nodes of a panel along each axis; default: 16, on three axes 12"
    )
    tolerance: Annotated[float, Field(ge=1e-14, le=1e-2)] | None = Field(
        None, description="relative and absolute, of a time step; default: 1e-13, 1e-11 and 1e-10 on one, two and three axes"
    )
    resolution: Annotated[float, Field(ge=1e-14, le=1e-2)] | None = Field(
        None, description="what panels may leave of the initial density; default: 1e-12, 1e-10 and 1e-8 on one, two and three axes"
    )


class MovementSolver(Table):
    """Minimising movements: each step minimises the energy plus W₂² to the step before over 2 tau."""

    kind: Literal["jko"]
    label: Label | None = None
    tau: Positive = Field(description="the longest step; steps have equal lengths up to each saved time")
    method: Literal["auto", "quantile", "residual", "lagrangian", "transport", "entropic", "back_and_forth"] = Field(
        "auto",
        description="quantile: a density on an interval or circle, any energy; residual: networks and potentials, atoms in any dimension; "
        "lagrangian: the positions of atoms in any dimension, any energy that is finite on atoms; "
        "back_and_forth: boxes of one or two axes with one internal energy; entropic: Sinkhorn's scaling on cells, any energy; transport: "
        "the plain definition on few cells; auto: the fastest that has no bias",
    )
    cells: list[Annotated[int, Field(ge=1, le=10_000_000)]] | None = Field(
        None, min_length=1, max_length=3, description="the grid of densities (not for atoms); with quantile they are only stored there"
    )
    count: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None,
        description="with quantile: cells of fixed masses, default four for each of `cells`; with residual and lagrangian: about so many "
        "atoms for the initial density",
    )
    order: Annotated[int, Field(ge=1, le=2)] = Field(1, description="of convergence in tau; 2 is the variational BDF2 method")
    tolerance: Annotated[float, Field(ge=1e-12, le=1e-1)] | None = Field(
        None, description="largest W2 between a step and its two halves, which are kept; default: steps of fixed length"
    )
    accuracy: Annotated[float, Field(ge=1e-14, le=1e-1)] | None = Field(
        None,
        description="transport: duality gap of a step relative to its energy; entropic: error of the marginals; back_and_forth: a step's "
        "residual as a share of the mass",
    )
    epsilon: Positive | None = Field(None, description="with entropic: the regularisation of transport; default: tied to tau and the cells")
    debiased: bool | None = Field(None, description="with entropic: whether the bias of the regularisation is taken out")

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        atoms = self.method in ("residual", "lagrangian")
        if self.method != "auto" and not atoms and self.cells is None:
            raise ValueError(f'method = "{self.method}" needs `cells`, the grid on which densities are stored, e.g. cells = [512]')
        if atoms and self.cells is not None:
            raise ValueError(f'method = "{self.method}" moves atoms, which have no `cells`; leave them out')
        return self


SolverTable = Annotated[
    FiniteVolumeSolver | ParticleSolver | StationarySolver | CharacteristicsSolver | MovementSolver, Field(discriminator="kind")
]


class Compare(Table):
    """Which run the others are compared with; the first by default."""

    reference: Label | None = None
    distance: Literal["auto", "exact", "sliced", "entropic"] = Field(
        default="auto",
        description="how W2 is measured along two or more axes (on one it is exact): exact transport between coarsened atoms, entropic "
        "transport on a fine grid, or sliced, another distance; auto: exact, and entropic where that does not resolve the distance",
    )


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


_Cells = Annotated[int, Field(ge=1, le=10_000_000)]
_CELLS_SCHEMA = {"type": "integer", "minimum": 1, "maximum": 10_000_000}
StudyGrid = Annotated[
    list[_Cells],
    Field(min_length=1, max_length=3),
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_CELLS_SCHEMA, {"type": "array", "items": _CELLS_SCHEMA, "minItems": 1, "maxItems": 3}]}),
]
Norm = Literal["l1", "l2", "w2", "loss"]


class ExpectedOrders(Table):
    """Orders that a refinement must show."""

    l1: Positive | None = None
    l2: Positive | None = None
    w2: Positive | None = None
    loss: Positive | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.by_norm:
            raise ValueError("needs an order for at least one of l1, l2, w2, loss")
        return self

    @property
    def by_norm(self) -> dict[str, float]:
        """The orders that are given."""
        return {name: value for name in ("l1", "l2", "w2", "loss") if (value := getattr(self, name)) is not None}


class RefinementTable(Table):
    """Errors and orders of convergence on finer and finer grids, or with smaller and smaller steps."""

    kind: Literal["refinement"]
    solver: Label | None = Field(None, description="label of the solver to refine; default: the first finite_volume solver")
    cells: list[StudyGrid] | None = Field(None, max_length=64, description="grids: one number of cells for each axis")
    steps: list[Positive] | None = Field(None, max_length=64, description="fixed time steps, alone or one for each grid")
    tolerances: list[Annotated[float, Field(ge=1e-15, le=1e-2)]] | None = Field(None, description="one for each run; default: the solver's")
    reference: Label | None = Field(None, description="exact, finest or the label of another solver; default: exact if given, else finest")
    exact: Text | None = Field(None, description="expression in the axis names and t: the exact density, which is not normalised")
    norms: list[Norm] | None = Field(None, min_length=1, description="default: all")
    times: list[Annotated[float, Field(ge=0.0, le=MOST)]] | None = Field(None, min_length=1, description="saved times; default: the last")
    expected: ExpectedOrders | None = Field(None, description="orders that the fits must show")
    allowance: Positive | None = Field(None, description="how far a fitted order may be from an expected one; default: 0.15")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lengths = {name: len(values) for name in ("cells", "steps", "tolerances") if (values := getattr(self, name)) is not None}
        if lengths.keys() <= {"tolerances"}:
            raise ValueError("needs `cells`, `steps` or both")
        if len(set(lengths.values())) > 1:
            raise ValueError("needs as many " + " as ".join(f"{name} ({count})" for name, count in lengths.items()))
        for name in ("norms", "times"):
            values = getattr(self, name) or []
            if len(set(values)) < len(values):
                raise ValueError(f"`{name}` holds one of its elements twice, got {values}")
        if self.allowance is not None and self.expected is None:
            raise ValueError("`allowance` goes with `expected`")
        return self


Quantity = Literal["w2", "w1", "sliced", "function", "barycentre", "variance", "loss"]


class ExpectedSlopes(Table):
    """Slopes in N that a particle limit must show."""

    w2: Number | None = None
    w1: Number | None = None
    sliced: Number | None = None
    function: Number | None = None
    barycentre: Number | None = None
    variance: Number | None = None
    loss: Number | None = Field(None, description="of the mean of |loss gap|")
    loss_spread: Number | None = Field(None, description="of the standard deviation of the loss gap")
    loss_mean: Number | None = Field(None, description="of |mean loss gap|")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.by_row:
            raise ValueError(f"needs a slope for at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def by_row(self) -> dict[str, float]:
        """The slopes that are given."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class ParticleLimitTable(Table):
    """How fast N particles approach the solution of the PDE, with intervals from independent runs."""

    kind: Literal["particle_limit"]
    solver: Label | None = Field(None, description="label of the particles; default: the first particles solver")
    counts: list[Annotated[int, Field(ge=2, le=100_000_000)]] = Field(min_length=2, max_length=64, description="numbers of atoms N")
    runs: Annotated[int, Field(ge=5, le=100_000)] = Field(
        40, description="independent runs for each count; intervals of fewer than 20 are rough"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    reference: Label | None = Field(
        None, description="label of the solver that stands for the PDE; default: characteristics or finite_volume"
    )
    quantities: list[Quantity] | None = Field(
        None, min_length=1, description="default: what the problem has; in several dimensions sliced for w1, w2"
    )
    times: list[Annotated[float, Field(ge=0.0, le=MOST)]] | None = Field(
        None, min_length=1, description="saved times; default: the first and the last"
    )
    quantile: bool | None = Field(None, description="one more run of each count from quantiles; default: where there is no noise")
    expected: ExpectedSlopes | None = Field(None, description="slopes that the intervals must hold")
    allowance: Annotated[float, Field(ge=0.0, le=10.0)] | None = Field(
        None, description="by how much an interval is widened for an expected slope; default: 0.03"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for before, after in pairwise(self.counts):
            if after <= before:
                raise ValueError(f"the counts must increase, got {after} after {before}")
        for name in ("quantities", "times"):
            values = getattr(self, name) or []
            if len(set(values)) < len(values):
                raise ValueError(f"`{name}` holds one of its elements twice, got {values}")
        if self.allowance is not None and self.expected is None:
            raise ValueError("`allowance` goes with `expected`")
        return self


def _as_labels(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_LABEL_SCHEMA = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"}
Labels = Annotated[
    list[Label],
    Field(min_length=1, max_length=64),
    BeforeValidator(_as_labels),
    WithJsonSchema({"anyOf": [_LABEL_SCHEMA, {"type": "array", "items": _LABEL_SCHEMA, "minItems": 1, "maxItems": 64}]}),
]


class TimeStepTable(Table):
    """Orders of convergence of minimising movements in their time step."""

    kind: Literal["time_step"]
    solver: Labels | None = Field(None, description="label of a jko solver, or of several; default: the first jko solver")
    steps: list[Positive] = Field(min_length=3, max_length=64, description="values of tau, which must divide the time between saved times")
    orders: list[Annotated[int, Field(ge=1, le=2)]] | None = Field(
        None, min_length=1, max_length=2, description="orders of the steps to run: 1, 2 or both; default: the solver's own"
    )
    reference: Label | None = Field(
        None,
        description="what errors are measured against beside the finest step of the same solver: exact, the label of another solver, or "
        "finest for nothing else; default: exact if given, else finest",
    )
    exact: Text | None = Field(None, description="expression in the axis names and t: the exact density, which is not normalised")
    norms: list[Norm] | None = Field(None, min_length=1, description="default: w2, l1 (of densities) and loss")
    times: list[Annotated[float, Field(gt=0.0, le=MOST)]] | None = Field(None, min_length=1, description="saved times; default: the last")
    expected: ExpectedOrders | None = Field(None, description="orders that the fits must show; default: that of the steps, in every norm")
    allowance: Positive | None = Field(
        None, description="how far a fitted order may be from the expected one; default: 0.1 for steps of order 1, 0.2 of order 2"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "solver", "steps", "orders", "norms", "times")
        return self


Measured = Literal["w2", "l1", "loss"]


class CrossCheckTable(Table):
    """All solvers of the case side by side, each with an estimate of its own error: do they agree within these?"""

    kind: Literal["cross_check"]
    solvers: list[Label] | None = Field(None, min_length=2, description="labels; default: all")
    reference: Label | None = Field(None, description="label of the run to compare with; default: that of [compare], else the first")
    norms: list[Measured] | None = Field(None, min_length=1, description="default: all")
    times: list[Annotated[float, Field(ge=0.0, le=MOST)]] | None = Field(None, min_length=1, description="saved times; default: all")
    allowance: Positive | None = Field(None, description="how many times the sum of their stated errors two runs may be apart; default: 1")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        check_distinct(self, "solvers", "norms", "times")
        return self


StudyTable = Annotated[
    RefinementTable
    | ParticleLimitTable
    | TimeStepTable
    | CrossCheckTable
    | TeacherRecoveryTable
    | ConvergenceSpeedTable
    | WideResNetTable
    | StationarityTable
    | SpectrumTable,
    Field(discriminator="kind"),
]


class CaseTable(Table):
    """A whole case file."""

    title: Annotated[str, StringConstraints(max_length=500, pattern=NO_CONTROL)] = ""
    domain: dict[str, DomainTable] = Field(
        min_length=1, max_length=16, description="one table an axis, in order, or a single one that describes a disk"
    )
    energy: list[Term] = Field(min_length=1, max_length=32, description="terms, which are summed")
    initial: Initial
    time: Time
    solver: list[SolverTable] = Field(min_length=1, max_length=64)
    compare: Compare = Compare()
    study: StudyTable | None = Field(None, description="what `mfpde study` does with this case")

    @field_validator("domain")
    @classmethod
    def _one_shape(cls, domain: dict[str, DomainTable]) -> dict[str, DomainTable]:
        disks = [name for name, table in domain.items() if isinstance(table, DiskTable)]
        if disks and len(domain) > 1:
            raise ValueError(f"a disk is the whole domain and stands alone; got the tables {', '.join(domain)}")
        return domain


def json_schema() -> dict[str, Any]:
    """The JSON Schema of case files, for completion in editors."""
    schema = CaseTable.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mfpde case"
    return schema
