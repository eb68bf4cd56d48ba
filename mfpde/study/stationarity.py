"""How far runs of a network are from their stationary condition at the times reached, and what that condition does not see.

A stationary state that is positive everywhere has zero loss and R(x) = ∫σ(x·θ)(ρ − ρ*)dθ = 0 [Mean Field Models for Neural Networks in
Teacher-student Setting (2020), Theorem 2, (4); Theorem 3, (5) for ensembles of residual networks; Theorem 4, (11) to first order for wide
ones; Theorem 5, (13) with output weights]. That is about t = ∞ and ρ > 0. At a loss of 1e-5 the part of ρ − ρ* in the null space of
Σ can still be large, and grow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import BoolArray, FloatArray
from mfpde.distance import wasserstein
from mfpde.distance.parity import mirrored_line, parity_distances
from mfpde.domain import Domain, Grid
from mfpde.energy.examples import Examples
from mfpde.energy.features import SampledFeatures
from mfpde.energy.inputs import Sharpness
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.parity import Leading, parity
from mfpde.energy.visibility import Spectrum, Visible, averages_on, spread_on_line
from mfpde.energy.wide_resnets import WideResNet
from mfpde.measure import Density, DensityFunction, Measure, Particles

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

Network = TwoLayer | PairNetwork | WideResNet
NETWORKS = (TwoLayer, PairNetwork, WideResNet)
QUANTITIES = (
    "residual",
    "largest_residual",
    "loss",
    "gap",
    "dissipation",
    "network_dissipation",
    "minimum",
    "empty",
    "uncovered",
    "distance",
    "distance_floor",
    "norm",
    "visible",
    "invisible",
    "forbidden",
    "moved",
    "even_w1",
    "odd_w1",
)
_CENTRAL = 0.9999
_MOST_INPUTS = 20_000
_DRAWS = 2000
_EMPTY = 1e-6
_ROUND_OFF = 1e-12
_STEEPEST = 50.0


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs at which residuals are taken: ``nodes`` (Q, D) with ``masses`` (Q,) of a rule for μ, or of draws where there is none
    (``exact`` False). Largest values are over those of the ``central`` part of μ."""

    nodes: FloatArray
    masses: FloatArray
    exact: bool

    @cached_property
    def central(self) -> BoolArray:
        """The inputs nearest to the origin that hold 99.99 % of μ."""
        length = np.linalg.norm(self.nodes, axis=1)
        order = np.argsort(length, kind="stable")
        held = np.cumsum(self.masses[order])
        last = min(int(np.searchsorted(held, _CENTRAL * held[-1])), len(order) - 1)
        return np.asarray(length <= length[order[last]])

    @property
    def reach(self) -> float:
        """The largest |x| of these."""
        return float(np.max(np.linalg.norm(self.nodes[self.central], axis=1)))


def inputs_of(network: Network, domain: Domain) -> Inputs:
    """A quadrature rule for the law of a network's inputs, the samples themselves, or draws where a rule would need too many."""
    if isinstance(network, WideResNet):
        return Inputs(network.nodes, network.masses, True)
    examples = network.examples
    if examples is None:
        raise ValueError("the network does not know where its inputs come from")
    try:
        rule = examples.law.rule(examples.width, _sharpness(examples, domain))
        nodes, masses, exact = rule.nodes, rule.weights, True
    except ValueError:
        nodes = np.zeros((_MOST_INPUTS + 1, 0))
    if len(nodes) > _MOST_INPUTS:
        nodes, exact = examples.law.sample(np.random.default_rng(0), _DRAWS, examples.width), False
        masses = np.full(len(nodes), 1.0 / len(nodes))
    if examples.bias:
        nodes = np.concatenate([nodes, np.ones((len(nodes), 1))], axis=1)
    return Inputs(np.ascontiguousarray(nodes), masses, exact)


def _sharpness(examples: Examples, domain: Domain) -> Sharpness:
    """As the network's own features need it, with room for growth over the levels of a residual network."""
    sigma, tolerance = examples.activation, {1: 1e-10, 2: 1e-8}.get(examples.width, 1e-5)
    steepest = float(np.linalg.norm(np.maximum(np.abs(domain.lower), np.abs(domain.upper))))
    if examples.branch is not None:
        steepest *= min(math.exp(steepest), _STEEPEST)
    plain = examples.branch is None and not examples.bias and not sigma.everywhere
    return Sharpness(sigma.pole / min(steepest, _STEEPEST), plain, sigma.kink, tolerance)


@dataclass(frozen=True, eq=False)
class Teacher:
    """ρ*: as a ``measure`` for distances and, where it has a density, its ``function``; ``words`` say what it is, or why there is none."""

    measure: Measure | None
    function: DensityFunction | None
    words: str
    _made: dict[tuple[int, ...], Density] = field(default_factory=dict, init=False, repr=False)

    def on(self, grid: Grid) -> Density | None:
        """On a grid of the domain, None where there is no density."""
        if self.function is not None and grid.cells not in self._made:
            self._made[grid.cells] = self.function.on(grid)
        return self._made.get(grid.cells)

    def masses(self, grid: Grid) -> FloatArray | None:
        """Cell masses (size,), None where there is no measure."""
        if (density := self.on(grid)) is not None:
            return density.weights
        if self.measure is None:
            return None
        return np.asarray(np.bincount(grid.locate(self.measure.points), self.measure.weights, grid.size), dtype=float)


@dataclass(frozen=True, eq=False)
class Setting:
    """What all runs of a study share: the ``network`` that the condition is about, the paper's number of that ``condition``, inputs, the
    teacher, on which ``cells`` particles become densities (None: they do not), and from which singular value on functions are visible."""

    network: Network
    domain: Domain
    condition: str
    term: str
    inputs: Inputs
    teacher: Teacher
    cells: tuple[int, ...] | None
    threshold: float

    @cached_property
    def linear(self) -> TwoLayer | PairNetwork | None:
        """The network if it is linear in ρ, so that there is an operator Σ: all but wide residual ones beyond the first order."""
        if not isinstance(self.network, WideResNet):
            return self.network
        return marginal_network(self.network)

    @cached_property
    def target(self) -> FloatArray:
        """y at the inputs, (Q,) or (Q, k)."""
        if self.network.data is not None:
            return self.network.data[1]
        assert self.network.teacher_at is not None
        return np.asarray(self.network.teacher_at(self.inputs.nodes))

    @property
    def size(self) -> float:
        """‖y‖ in L²(μ)."""
        return _mean_norm(self.target, self.inputs.masses)

    def residual_at(self, measure: Measure) -> FloatArray:
        """R at the inputs, (Q,) or (Q, k): the network less its target."""
        return np.asarray(self.network.student_at(Particles(measure.points, measure.weights), self.inputs.nodes) - self.target)


def marginal_network(wide: WideResNet) -> TwoLayer | None:
    """E⁽¹⁾ of numbers as a two-layer network of the marginal in θ, whose Σ₁ has the kernel σ(θx) [the paper's (11)]; None for others."""
    if wide.network.approximation != "first" or wide.network.units.dimension > 1:
        return None
    sigma, described = wide.network.units.activation, "the marginal in θ at all inputs"
    features = SampledFeatures(sigma, Leading(), wide.nodes, np.sqrt(wide.masses), described)
    law = wide.examples.law if wide.examples is not None else None
    if law is None:
        return None
    examples = Examples(sigma, Leading(), law, 1, False, wide.teacher_at, None)
    target = features.scale * (wide.target - wide.nodes)[:, 0]
    return TwoLayer(features, target, 0.0, described, wide.student_at, wide.teacher_at, examples=examples)


@dataclass(frozen=True, eq=False)
class Course:
    """One run at its ``times`` (T,): ``values`` by the names of QUANTITIES, (T,) each, nan for what a run does not have. At the last time:
    the ``measure``, the difference ``split`` on a ``grid`` and the ``residual`` at the inputs. ``smoothed``: particles became densities."""

    label: str
    times: FloatArray
    values: dict[str, FloatArray]
    measure: Measure
    residual: FloatArray
    grid: Grid | None
    spectrum: Spectrum | None
    split: Visible | None
    smoothed: bool
    words: tuple[str, ...]

    def last(self, name: str) -> float:
        """A quantity at the last time."""
        return float(self.values[name][-1])

    @property
    def invisible_share(self) -> float:
        """Of the squared norm at the last time; nan without densities."""
        return (self.last("invisible") / self.last("norm")) ** 2 if self.last("norm") > 0.0 else math.nan

    @property
    def invisible_growth(self) -> float:
        """The invisible norm over that at the first time; infinite from round-off, nan without densities."""
        first, size = float(self.values["invisible"][0]), float(self.values["norm"][0])
        if not math.isfinite(first):
            return math.nan
        return self.last("invisible") / first if first > _ROUND_OFF * size else math.inf


def read_course(stored: "StoredRun", times: Sequence[float], setting: Setting, spectra: dict[Any, Spectrum]) -> Course:
    """What a run shows at those of the ``times`` that it reached; ``spectra`` keeps the spectrum of each grid.

    Raises ValueError where it reached none.
    """
    run = stored.run
    kept = [k for k, at in enumerate(run.times) if any(abs(at - t) <= 1e-9 * max(at, t) for t in times)]
    if not kept:
        raise ValueError(f"the run {stored.label} has not reached any of the times of the study")
    measures = [run.measures[k] for k in kept]
    grid = _grid(measures[0], setting)
    spectrum = _spectrum(grid, setting, spectra)
    values = {name: np.full(len(kept), np.nan) for name in QUANTITIES}
    start: Visible | None = None
    found: Visible | None = None
    for t, measure in enumerate(measures):
        at = float(run.times[kept[t]])
        row = _of_network(measure, setting) | _of_teacher(measure, setting)
        row["dissipation"] = _dissipation(stored, at)
        row |= _positivity(measure, setting)
        if spectrum is not None:
            found = _split(measure, setting, spectrum)
            start = found if start is None else start
            row |= _norms(measure, setting, spectrum, found, start)
        for name, value in row.items():
            values[name][t] = value
    last, smoothed = measures[-1], not isinstance(measures[-1], Density)
    residual = setting.residual_at(last)
    words = _words(setting, spectrum, smoothed and found is not None)
    return Course(stored.label, run.times[kept], values, last, residual, grid, spectrum, found, smoothed, words)


def _of_network(measure: Measure, setting: Setting) -> dict[str, float]:
    """Residual, loss, how far they are apart, and the part of the dissipation that is the network's own."""
    network, inputs = setting.network, setting.inputs
    residual = setting.residual_at(measure)
    sizes = np.sqrt(np.sum(np.reshape(residual**2, (len(residual), -1)), axis=1))
    loss = network.value(measure)
    by_loss = math.sqrt(2.0 * max(loss, 0.0))
    by_rule = _mean_norm(residual, inputs.masses)
    slopes = network.gradient(measure, measure.points)
    return {
        "residual": by_rule if inputs.exact else by_loss,
        "largest_residual": float(np.max(sizes[inputs.central])),
        "loss": loss,
        "gap": abs(by_rule - by_loss) if inputs.exact else math.nan,
        "network_dissipation": float(measure.weights @ np.sum(slopes**2, axis=1)),
    }


def _of_teacher(measure: Measure, setting: Setting) -> dict[str, float]:
    """W₂ to the teacher and, on a line that is its own mirror image, W₁ of the even and of the odd part where σ has a parity."""
    teacher, domain = setting.teacher.measure, setting.domain
    if teacher is None:
        return {}
    found = wasserstein(_on_levels(measure, setting), _on_levels(teacher, setting), domain)
    row = {"distance": found.value, "distance_floor": found.floor}
    if _half(setting) is None or not mirrored_line(domain):
        return row
    parts = parity_distances(measure, teacher)
    return row | {"even_w1": parts["even"], "odd_w1": parts["odd"]}


def _on_levels(measure: Measure, setting: Setting) -> Measure:
    """Atoms of a wide residual network at the middles of its levels, since their depth counts for nothing within one."""
    network = setting.network
    if isinstance(measure, Density) or not isinstance(network, WideResNet) or network.depth.levels is None:
        return measure
    depth, levels, points = network.depth, network.depth.levels, np.array(measure.points)
    points[:, -1] = depth.lower + (depth.places(points[:, -1], levels) + 0.5) * (depth.upper - depth.lower) / levels
    return Particles(points, measure.weights)


def _half(setting: Setting) -> str | None:
    try:
        half = parity(setting.linear).half if setting.linear is not None else "none"
    except ValueError:
        return None
    return None if half == "none" else half


def _dissipation(stored: "StoredRun", at: float) -> float:
    """∫ρ|∇δE/δρ|² of the whole energy, as the solver has it at this time."""
    steps = stored.run.certificate
    if not len(steps):
        return math.nan
    before = np.flatnonzero(steps["time"] <= at * (1.0 + 1e-12))
    return float(steps["dissipation"][before[-1]]) if len(before) else math.nan


def _positivity(measure: Measure, setting: Setting) -> dict[str, float]:
    """The least density, the share of Ω where it is below 1e-6 of the uniform one, and the teacher's mass there; none of particles."""
    if not isinstance(measure, Density):
        return {}
    grid, values = measure.grid, np.ravel(measure.values)
    volume = np.broadcast_to(grid.weight, values.shape)
    empty = values < _EMPTY / setting.domain.volume
    row = {"minimum": float(np.min(values)), "empty": float(np.sum(volume[empty]) / np.sum(volume))}
    masses = setting.teacher.masses(grid)
    return row if masses is None else row | {"uncovered": float(np.sum(masses[empty]))}


def _grid(measure: Measure, setting: Setting) -> Grid | None:
    if isinstance(measure, Density):
        return measure.grid
    return None if setting.cells is None else setting.domain.grid(setting.cells)


def _spectrum(grid: Grid | None, setting: Setting, spectra: dict[Any, Spectrum]) -> Spectrum | None:
    if grid is None or setting.linear is None:
        return None
    if grid.cells not in spectra:
        spectra[grid.cells] = Spectrum.of(setting.linear, grid, setting.threshold)
    return spectra[grid.cells]


def _split(measure: Measure, setting: Setting, spectrum: Spectrum) -> Visible | None:
    """ρ − ρ* on the grid, None where ρ* has no density."""
    teacher = setting.teacher.on(spectrum.grid)
    return None if teacher is None else spectrum.split(_averages(measure, spectrum.grid) - np.ravel(teacher.values))


def _averages(measure: Measure, grid: Grid) -> FloatArray:
    """Cell averages, of particles on a line with each spread over what is nearest to it."""
    if not isinstance(measure, Density) and grid.domain.dimension == 1 and not grid.domain.periodic[0]:
        return spread_on_line(measure, grid)
    return averages_on(grid, measure)


def _norms(measure: Measure, setting: Setting, spectrum: Spectrum, found: Visible | None, start: Visible | None) -> dict[str, float]:
    """L²(dθ) norms; without a density of ρ* that of the visible part, which needs none."""
    if found is None or start is None:
        teacher = setting.teacher.measure
        if teacher is None or not isinstance(spectrum.network, TwoLayer):
            return {}
        visible = spectrum.visible_of(measure, teacher)
        return {"visible": float(np.sqrt(np.sum(np.broadcast_to(spectrum.grid.weight, visible.shape) * visible**2)))}
    apart = found.invisible - start.invisible
    moved = float(np.sqrt(np.sum(np.broadcast_to(spectrum.grid.weight, apart.shape) * apart**2)))
    parts = {"norm": found.norm, "visible": found.visible_norm, "invisible": found.invisible_norm}
    return parts | {"forbidden": found.forbidden_norm, "moved": moved}


def _words(setting: Setting, spectrum: Spectrum | None, smoothed: bool) -> tuple[str, ...]:
    """What has to be known of how the numbers were made."""
    words = []
    if setting.linear is None:
        words.append("the network is not linear in ρ, so that there is no operator Σ whose null space could be found")
    elif spectrum is None:
        words.append("particles in more than three dimensions have no grid, and the null space of Σ is not computed")
    else:
        words.append(spectrum.symmetry_words)
        if setting.teacher.function is None and setting.teacher.measure is not None:
            words.append("ρ − ρ* has no density; its visible part has, and W2 and W1 need none")
    if smoothed and spectrum is not None:
        words.append(f"particles as a density on {' × '.join(map(str, spectrum.grid.cells))} cells, of which its norms depend")
    return tuple(words)


def _mean_norm(values: FloatArray, masses: FloatArray) -> float:
    return math.sqrt(float(masses @ np.sum(np.reshape(values**2, (len(values), -1)), axis=1)))
