"""The wide residual network beside its expansions: losses along all flows, the stationary condition, error orders, many levels.

E⁽¹⁾ and E⁽²⁾ are the losses of the expansion of X^L to first and second order in θ, which is one for σ(0) = 0 [Mean Field Models for Neural
Networks in Teacher-student Setting (2020), section 3.2, (9) and appendix 5.2]. All losses have the same y, so that they are comparable.
A flow of E⁽¹⁾ lowers E⁽¹⁾ and nothing else: the exact loss can rise late. The stationary condition (11), ∬σ(θx)(ρ − ρ*)dθdε = 0, is that of
E⁽¹⁾ with a teacher of first order; with an exact teacher what vanishes is X⁽¹⁾ − y, and (11) only up to what y has beyond first order.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.distance import wasserstein
from mfpde.energy.wide_resnet import Approximation, Network
from mfpde.energy.wide_resnets import WideResNet
from mfpde.measure import Measure
from mfpde.study.orders import Order, fitted_order, pairwise_orders
from mfpde.study.wide_law import Law, approximated, in_levels

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

APPROXIMATIONS: tuple[Approximation, ...] = ("exact", "first", "second")
_ROUND_OFF = 1e-13
_ROUND_OFF_OF_A_LEVEL = 2.3e-16
_RISING = 1e-6
_REACH = 3.0
_FEWEST = 3
_NO_ORDER = Order(math.nan, math.nan, math.nan, math.nan, 0, math.nan)
_TWO_LEVELS = 2
_SMOOTH_AT_ZERO = {
    **dict.fromkeys(("tanh", "erf", "arctan", "softsign", "gelu", "identity"), (2.0, 3.0)),
    "quadratic": (4.0, 6.0),
    **dict.fromkeys(("sigmoid", "softplus"), (1.0, 2.0)),
    **dict.fromkeys(("gaussian", "cos"), (2.0, 2.0)),
}
"""Orders in r of the errors to first and second order. Σ_{b>a}σ'(θ_bx)θ_bσ(θ_ax) leads the first, σ'θσ'θσ and ½σ''θ²σ² the second; each
factor σ and σ'θ brings r^p where σ(z) ~ z^p, and where σ(0) ≠ 0 it is σ' and σ'' alone that bring powers."""


def expected_orders(network: Network, levels: int | None) -> tuple[float, float]:
    """The orders in r of ‖X^L − X⁽¹⁾‖ and ‖X^L − X⁽²⁾‖ for ρ in general position, as σ is at 0; nan where nothing general is known."""
    name = network.units.activation.name
    kept = name == "relu" and network.units.dimension == 1  # X keeps the sign of x for small r, and relu is linear there
    found = (2.0, 3.0) if kept else _SMOOTH_AT_ZERO.get(name, (math.nan, math.nan))
    return (found[0], math.nan) if levels is not None and levels <= _TWO_LEVELS else found


@dataclass(frozen=True)
class Rise:
    """How far a curve climbs above what it had reached before: from ``low`` at time ``since`` to ``high`` at ``until``; none where both are
    the same time."""

    since: float
    low: float
    until: float
    high: float

    @property
    def there(self) -> bool:
        """Whether it climbs at all."""
        return self.until > self.since


@dataclass(frozen=True, eq=False)
class Flows:
    """At ``times`` (T,): ``loss`` (flow, loss, T), and ``distance`` (flow, T), W₂ to the exact network's flow, with its ``floor``."""

    times: FloatArray
    loss: FloatArray
    distance: FloatArray
    floor: FloatArray
    method: str

    def rise(self, flow: int, loss: int) -> Rise:
        """The largest climb of a loss along a flow, if it is more than 1e-6 of its first value."""
        values = self.loss[flow, loss]
        least = np.minimum.accumulate(values)
        top = int(np.argmax(values - least))
        if not values[top] - least[top] > _RISING * abs(values[0]):
            top = int(np.argmin(values))
        low = int(np.argmin(values[: top + 1]))
        return Rise(float(self.times[low]), float(values[low]), float(self.times[top]), float(values[top]))


@dataclass(frozen=True, eq=False)
class Condition:
    """At the last time of each flow (3,), as the largest absolute value for |x| up to 3 root mean squares, and in L²(μ).

    ``marginal``: what is left of ∬σ(θx)(ρ − ρ*), (11); ``own``: X − y of the flow's own network; ``beyond``: y − X⁽¹⁾(ρ*), one number. Nan
    where y is data, without a measure ρ*.
    """

    marginal: FloatArray
    marginal_norm: FloatArray
    own: FloatArray
    own_norm: FloatArray
    beyond: float


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors (K, n) at widths (n,), the fitted orders of those ``used`` (K, n), which are those of ``words``, and the ``exact`` ones (K,),
    which are all round-off."""

    widths: FloatArray
    values: FloatArray
    used: BoolArray
    fits: tuple[Order, ...]
    exact: BoolArray
    words: str

    @property
    def pairwise(self) -> FloatArray:
        """Orders between neighbours, (K, n)."""
        return np.stack(
            [pairwise_orders(self.widths, np.where(self.values[k] > 0.0, self.values[k], np.nan)) for k in range(len(self.values))]
        )


@dataclass(frozen=True, eq=False)
class WideStudy:
    """All that is measured. ``expansion``: of X⁽¹⁾, X⁽²⁾ from X^L by radius; ``limit``: of X^L, X⁽¹⁾, X⁽²⁾ from L → ∞ by 1/L."""

    flows: Flows
    condition: Condition
    expansion: Errors
    limit: Errors


def measure_flows(stored: "Sequence[StoredRun]", term: WideResNet) -> Flows:
    """All losses along all flows at their common times. Raises ValueError where there are none."""
    times = stored[0].run.times
    for other in stored[1:]:
        times = np.intersect1d(times, other.run.times)
    if not len(times):
        raise ValueError("the three flows have no saved time in common")
    measures = [[run.run.measures[k] for k in np.flatnonzero(np.isin(run.run.times, times))] for run in stored]
    terms = [approximated(term, name) for name in APPROXIMATIONS]
    loss = np.array([[[each.value(measure) for measure in flow] for each in terms] for flow in measures])
    domain = stored[0].domain
    snapped = [[in_levels(measure, term.depth) for measure in flow] for flow in measures]
    found = [[wasserstein(a, b, domain) for a, b in zip(flow, snapped[0], strict=True)] for flow in snapped]
    distance, floor = (np.array([[getattr(d, name) for d in row] for row in found]) for name in ("value", "floor"))
    return Flows(times, loss, distance, floor, found[-1][-1].method)


def measure_condition(finals: Sequence[Measure], term: WideResNet, first_teacher: Callable[[FloatArray], FloatArray] | None) -> Condition:
    """The stationary condition; ``first_teacher`` gives X⁽¹⁾(ρ*) at inputs, None where y is data."""
    nodes, shape = term.nodes, term.target.shape
    square = np.sum(nodes * nodes, axis=1)
    near = square <= _REACH**2 * float(term.masses @ square)
    wanted = np.full(shape, np.nan) if first_teacher is None else first_teacher(nodes).reshape(shape)

    def sizes(gap: FloatArray) -> tuple[float, float]:
        return float(np.max(np.abs(gap[near]))), math.sqrt(float(term.masses @ np.sum(gap * gap, axis=1)))

    first = approximated(term, "first")
    marginal = np.array([sizes(first.output(final, nodes).reshape(shape) - wanted) for final in finals])
    networks = [approximated(term, name) for name in APPROXIMATIONS]
    own = np.array([sizes(each.output(final, nodes).reshape(shape) - term.target) for each, final in zip(networks, finals, strict=True)])
    return Condition(marginal[:, 0], marginal[:, 1], own[:, 0], own[:, 1], sizes(term.target - wanted)[0])


def measure_expansion(law: Law, term: WideResNet, radii: Sequence[float]) -> Errors:
    """‖X^L − X⁽¹⁾‖ and ‖X^L − X⁽²⁾‖ in L²(μ) for ρ carried by θ ↦ rθ."""
    inputs, levels = np.ascontiguousarray(term.nodes.T), term.depth.levels
    widths = np.sort(np.asarray(radii, dtype=float))
    values, size = np.empty((2, len(widths))), 0.0
    for k, radius in enumerate(widths.tolist()):
        exact, *others = (law.scaled(radius).output(approximated(term, name).network, levels, inputs) for name in APPROXIMATIONS)
        size = max(size, _norm(term, exact))
        values[:, k] = [_norm(term, exact - other) for other in others]
    return _errors(widths, values, size * _round_off(np.full(widths.shape, levels or 1)), widths > 0.0, "the smaller half above round-off")


def measure_limit(law: Law, term: WideResNet, depths: Sequence[int]) -> Errors:
    """What networks of L levels and their expansions are off their limits of many levels, in L²(μ), by 1/L."""
    inputs, counts = np.ascontiguousarray(term.nodes.T), sorted(depths, reverse=True)
    values, size = np.empty((3, len(counts))), 0.0
    for row, name in enumerate(APPROXIMATIONS):
        network = approximated(term, name).network
        limit = law.output(network, None, inputs)
        size = max(size, _norm(term, limit))
        values[row] = [_norm(term, law.output(network, count, inputs) - limit) for count in counts]
    widths = 1.0 / np.asarray(counts, dtype=float)
    resolving = widths * law.parts <= 1.0 + 1e-9
    few = f", of at least the {law.parts} levels that see all parts of this ρ" if not resolving.all() else ""
    return _errors(widths, values, size * _round_off(np.asarray(counts)), resolving, f"the smaller half above round-off{few}")


def _round_off(levels: IntArray) -> FloatArray:
    """What sums over so many levels are off relatively, at the most."""
    return np.asarray(np.maximum(_ROUND_OFF, _ROUND_OFF_OF_A_LEVEL * levels))


def _norm(term: WideResNet, values: FloatArray) -> float:
    """In L²(μ) of values (d, Q)."""
    return math.sqrt(float(term.masses @ np.sum(values * values, axis=0)))


def _errors(widths: FloatArray, values: FloatArray, floor: FloatArray, allowed: BoolArray, words: str) -> Errors:
    """With orders, which are those of small widths: fitted to the smaller half of those ``allowed`` above the round-off ``floor``, at least
    three."""
    used = np.zeros(values.shape, dtype=bool)
    fits = []
    for k, row in enumerate(values):
        resolved = np.flatnonzero((row > floor) & allowed)
        used[k, resolved[: max(_FEWEST, math.ceil(0.5 * len(resolved)))]] = True
        fits.append(fitted_order(widths[used[k]], row[used[k]]) if np.sum(used[k]) > 1 else _NO_ORDER)
    return Errors(widths, values, used, tuple(fits), ~np.any(values > floor, axis=1), words)
