"""What a [study] of kind "multilayer" asks for, checked before anything is trained."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray, physical_memory
from mfpde.case import StudyCase
from mfpde.case.errors import CaseError, Key
from mfpde.case.expression import ExpressionError, parse
from mfpde.case.multilayer_schema import ChaosTable, CollapseTable, LawTable, MultilayerTable, PartTable, ResidualTable
from mfpde.study.alone import Desk

if TYPE_CHECKING:
    from mfpde.study.multilayer_report import MultilayerReport

PARTS = ("chaos", "collapse", "residual")
_MOST_NODES = 30_000


@dataclass(frozen=True, eq=False)
class MultilayerPlan:
    """The case, its table, and what is learnt: inputs (n, d), targets (n,) and further inputs (k, d), with a constant behind them where
    there is a bias."""

    case: StudyCase
    table: MultilayerTable
    inputs: FloatArray
    targets: FloatArray
    test: FloatArray

    @property
    def description(self) -> list[str]:
        """Lines for people."""
        lines = (_chaos_line(self.table.chaos), _collapse_line(self.table.collapse), _residual_line(self.table.residual))
        return [*_setup_lines(self.table), *(line for line in lines if line)]

    @property
    def figures(self) -> tuple[str, ...]:
        """One for each part."""
        return tuple(f"study-{name}" for name in PARTS if getattr(self.table, name) is not None)

    def carry_out(self, desk: Desk) -> "MultilayerReport | None":
        """All parts that have not ended. Raises StepFailed."""
        from mfpde.study.multilayer import carry_out

        return carry_out(self, desk)


def plan(case: StudyCase) -> MultilayerPlan:
    """The plan of a case. Raises CaseError for what does not fit together."""
    table = case.table.study
    assert isinstance(table, MultilayerTable)
    given = table.inputs
    generator, shape = np.random.default_rng(given.seed), (given.count + given.test, given.dimension)
    unit = generator.standard_normal(shape) if given.law == "normal" else np.sqrt(3.0) * (2.0 * generator.random(shape) - 1.0)
    points = given.scale * unit
    targets = _targets(table, points[: given.count])
    if given.bias:
        points = np.column_stack([points, np.ones(len(points))])
    for name in PARTS:
        if (part := getattr(table, name)) is not None:
            if table.ends == "fixed" and name != "residual" and 1 in part.depths:
                message = 'with ends = "fixed" one hidden layer has nothing to train; the depths must be at least 2, got 1'
                raise CaseError(("study", name, "depths"), message)
            _check_nodes(table, part, points.shape[1], name)
            _check_memory(table, part, points.shape, ("study", name))
    return MultilayerPlan(case, table, points[: given.count], targets, points[given.count :])


def seeds_of(part: PartTable) -> list[int]:
    """The seeds of a part."""
    return list(range(part.seed, part.seed + part.seeds))


def times_of(part: PartTable) -> list[float]:
    """0 and the saved times."""
    return [0.0, *(part.end * (np.arange(part.count) + 1) / part.count).tolist()]


def _targets(table: MultilayerTable, points: FloatArray) -> FloatArray:
    """f* at the inputs. Raises CaseError for what is no expression or not finite there."""
    key: Key = ("study", "target")
    try:
        with np.errstate(all="ignore"):
            targets = parse(table.target, [f"x{k + 1}" for k in range(points.shape[1])])(points)
    except ExpressionError as error:
        raise CaseError(key, str(error)) from error
    except ValueError as error:
        raise CaseError(key, f"cannot be evaluated at the inputs: {error}") from error
    if not np.isfinite(targets).all():
        raise CaseError(key, f"is not finite at the input {points[int(np.argmin(np.isfinite(targets)))].tolist()[:4]}")
    return np.asarray(targets, dtype=float)


def _nodes_of(law: LawTable, nodes: int, count: int) -> float:
    """The nodes of the rule of ``count`` numbers."""
    return 1.0 if law.deviation == 0.0 else float(nodes) ** count


def _limit_neurons(table: MultilayerTable, part: PartTable, dimension: int) -> tuple[float, float]:
    """How many neurons the first (and only) and the last layer have in the largest limit of a part, without those that are followed."""
    if isinstance(part, ChaosTable):
        nodes = int(np.ceil(1.5 * part.nodes))
        first, last = _nodes_of(table.first, nodes, dimension), _nodes_of(table.last, nodes // 2, 1)
        return first * (last if 1 in part.depths else 1.0), last
    if isinstance(part, ResidualTable):
        nodes = int(np.ceil(1.5 * part.nodes))
        return _nodes_of(table.first, nodes, dimension + 1) * _nodes_of(table.outer, nodes, dimension + 1), 0.0
    return 0.0, 0.0


def _check_nodes(table: MultilayerTable, part: PartTable, dimension: int, name: str) -> None:
    """Raises CaseError where the rules of a limit have too many nodes."""
    needed = _limit_neurons(table, part, dimension)[0]
    if needed > _MOST_NODES:
        words = "a block" if isinstance(part, ResidualTable) else "a layer"
        message = (
            f"the limit needs {needed:.3g} nodes for {words} (with half as many again a number, to tell its error), more than {_MOST_NODES}"
        )
        raise CaseError(("study", name, "nodes"), f"{message}; use fewer, or inputs of fewer dimensions")


def _check_memory(table: MultilayerTable, part: PartTable, shape: tuple[int, ...], key: Key) -> None:
    """Raises CaseError where the largest network, its limit or what is kept does not fit in the memory."""
    assert isinstance(part, ChaosTable | CollapseTable | ResidualTable)
    width, depth = part.widths[-1], part.depths[-1]
    first, last = _limit_neurons(table, part, shape[1])
    moments = len(part.depths) * len(part.widths) * part.seeds * part.count
    if isinstance(part, ResidualTable):
        largest = 2.0 * max(width, first) * depth * (shape[1] + 1)
        signals = 3.0 * max(width, first) * depth * shape[0]
    else:
        followed = part.seeds * part.neurons if isinstance(part, ChaosTable) else 0
        pairs = (first + followed) * (last + followed) if 2 in part.depths else first + last + 2.0 * followed
        largest = max(float(width) ** 2 * depth, pairs + (first + followed) * shape[1])
        signals = 2.0 * (width * depth + first) * shape[0] + 2.0 * followed * shape[0] * part.count
    needed = 8.0 * (12.0 * largest + 2.0 * signals + 4.0 * moments)
    if needed > physical_memory() // 2:
        raise CaseError(key, f"needs about {needed / 2**30:.3g} GB, more than there is; use fewer neurons, layers, seeds or times")


# Words.


def _law_words(law: LawTable) -> str:
    if law.deviation == 0.0:
        return f"= {law.mean:g}"
    return f"{law.law} with mean {law.mean:g}, deviation {law.deviation:g}"


def _setup_lines(table: MultilayerTable) -> list[str]:
    given = table.inputs
    law = f"{given.count} inputs in R^{given.dimension}, {given.law} of deviation {given.scale:g}{', with a bias' if given.bias else ''}"
    ends = "" if table.ends == "trained" else "; V and a are not trained"
    start = f"V {_law_words(table.first)}, w {_law_words(table.middle)}, a {_law_words(table.last)}{ends}"
    return [f"{table.activation} networks learn {table.target} from {law}", f"at the start {start}"]


def listed(values: list[int]) -> str:
    """1, 2, 3."""
    return ", ".join(str(value) for value in values)


def _tail(part: PartTable) -> str:
    return f"up to t = {part.end:g}, {part.seeds} seeds, tolerance {part.tolerance:g}"


def _chaos_line(part: ChaosTable | None) -> str:
    if part is None:
        return ""
    return f"chaos: {listed(part.depths)} layers of m = {listed(part.widths)} against m = ∞ ({part.nodes} nodes), {_tail(part)}"


def _collapse_line(part: CollapseTable | None) -> str:
    if part is None:
        return ""
    return f"collapse: {', '.join(part.scalings)}; depths {listed(part.depths)}, m = {listed(part.widths)}, {_tail(part)}"


def _residual_line(part: ResidualTable | None) -> str:
    if part is None:
        return ""
    return f"residual: L = {listed(part.depths)} blocks of m = {listed(part.widths)} against m = ∞ ({part.nodes} nodes), {_tail(part)}"
