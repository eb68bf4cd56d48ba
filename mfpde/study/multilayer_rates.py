"""What is fitted in a study of networks of many layers, and what is expected of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.case.multilayer_schema import ChaosTable, CollapseTable, MultilayerTable, ResidualTable
from mfpde.energy import ACTIVATIONS
from mfpde.multilayer import Law, Weights
from mfpde.multilayer.limit import at_rest as limit_at_rest
from mfpde.study.orders import Order, fitted_order
from mfpde.study.rates import Rate, fitted_rate, rate_of_few

_DRAWS = 2000
_FEW = 8
"""Seeds, below which bootstrap intervals are too short."""
_VAGUE = 1.0
"""An interval so long says nothing."""
_CONFIDENCE = 0.95
_SMALL = 0.1
"""The error of the limit is to be below this share of the smallest gap."""

_START = "t = 0"
_ROUND_OFF = 1e-12
_RESOLVED = 10.0
"""Of the tolerance of the steps: differences below are not resolved."""

Values = Mapping[str, FloatArray]


@dataclass(frozen=True)
class Fit:
    """The slope in m of the root mean square over the seeds of a quantity: in which part, of which scaling and depth; ``samples`` (widths,
    seeds); what is expected of the slope, nan for nothing, and whether as an upper bound only."""

    part: str
    scaling: str
    depth: int
    quantity: str
    widths: Sequence[int]
    samples: FloatArray
    rate: Rate
    expected: float
    bound: bool
    allowance: float

    @property
    def misses(self) -> bool:
        """Whether what is expected is not so."""
        if math.isnan(self.expected) or math.isnan(self.rate.low):
            return False
        if self.bound:
            return not self.rate.low <= self.expected + self.allowance
        return not self.rate.holds(self.expected, self.allowance)

    @property
    def vague(self) -> bool:
        """Whether the interval is too long to tell."""
        return not self.rate.high - self.rate.low <= _VAGUE


@dataclass(frozen=True)
class Correlation:
    """Of E_x z_i f* of two neurons of the last layer at the end over the starts, with a 95 % bootstrap interval; nan for few starts."""

    depth: int
    width: int
    value: float
    low: float
    high: float


def chaos_fits(table: MultilayerTable, values: Values) -> list[Fit]:
    """Of the gaps to the limit, and of neurons to their limit processes, for each depth."""
    part = table.chaos
    if part is None:
        return []
    fits = []
    for d in range(len(part.depths)):
        gaps, coupling, rests = values["chaos_gap"][d], values["chaos_coupling"][d], at_rest(table, part.depths[d])
        found = {"gap at t = 0": gaps[..., 0], "gap, largest over t": np.max(gaps, axis=-1)}
        found |= {f"{name} layer, neurons": coupling[..., k] for k, name in enumerate(("first", "middle", "last"))}
        for name, samples in found.items():
            if _is_there(samples):
                expected = math.nan if rests and not name.endswith(_START) else -0.5
                fits.append(_fit("chaos", "mean_field", part, d, name, samples, expected, rests))
    return fits


def collapse_fits(table: MultilayerTable, values: Values) -> list[Fit]:
    """Of the spreads over the neurons of the layers between the first and the last (of all blocks of a residual network), and of how far
    the weights move, for each scaling and depth."""
    part = table.collapse
    if part is None:
        return []
    fits = []
    for k, scaling in enumerate(part.scalings):
        for d, depth in enumerate(part.depths):
            spreads, moved = values["collapse_spread"][k, d], values["collapse_moved"][k, d]
            inner = slice(0, depth) if scaling == "residual" else slice(1, depth - 1)
            found: dict[str, FloatArray] = {}
            if len(range(depth)[inner]):
                middle = np.sqrt(np.mean(spreads[..., inner] ** 2, axis=-1))
                found |= {"spread at t = 0": middle[..., 0], "spread at the end": middle[..., 1]}
            found |= {f"{name} weights moved": moved[..., m] for m, name in enumerate(("first", "middle", "last"))}
            for name, samples in found.items():
                if _is_there(samples):
                    rests = scaling == "mean_field" and at_rest(table, depth)
                    expected = math.nan if rests and not name.endswith(_START) else _expected(scaling, name)
                    bound = rests or (scaling == "lazy" and name.endswith("moved"))
                    fits.append(_fit("collapse", scaling, part, d, name, samples, expected, bound))
    return fits


def residual_fits(table: MultilayerTable, values: Values) -> list[Fit]:
    """Of the gaps to the limits of the same depths."""
    part = table.residual
    if part is None:
        return []
    gaps = np.max(values["residual_gap"], axis=-1)
    return [
        _fit("residual", "residual", part, d, "gap, largest over t", gaps[d], -0.5) for d in range(len(part.depths)) if _is_there(gaps[d])
    ]


def depth_differences(part: ResidualTable, values: Values) -> FloatArray:
    """max over t and x of |f_L − f_deepest| of the limits m = ∞, for all depths but the deepest."""
    outputs = values["residual_limit_output"]
    return np.asarray(np.max(np.abs(outputs[:-1] - outputs[-1]), axis=(1, 2)))


def depth_order(part: ResidualTable, values: Values) -> Order | None:
    """The order in 1/L of the limits m = ∞, the deepest being the reference; None where the errors of the time steps may hide it."""
    differences = depth_differences(part, values)
    if not (differences > _RESOLVED * part.tolerance).all():
        return None
    return fitted_order(1.0 / np.asarray(part.depths[:-1], dtype=float), differences, 1.0 / part.depths[-1])


def depth_rates(part: ResidualTable, values: Values) -> list[Rate]:
    """The slope in L of the gap to the limit of the same depth, for each width."""
    gaps = np.max(values["residual_gap"], axis=-1)
    return [_rate(part.depths, gaps[:, w]) for w in range(len(part.widths))]


def correlations(table: MultilayerTable, values: Values) -> list[Correlation]:
    """For each depth and width; over pairs of neurons, which are exchangeable, so that one number describes them all."""
    part = table.chaos
    if part is None:
        return []
    found = []
    for d, depth in enumerate(part.depths):
        for w, width in enumerate(part.widths):
            samples = values["chaos_neuron"][d, w]
            drawn = np.random.default_rng(0).integers(0, len(samples), size=(_DRAWS, len(samples)))
            redrawn = pair_correlation(samples[drawn])
            ends = (
                np.quantile(redrawn, [0.5 * (1.0 - _CONFIDENCE), 0.5 * (1.0 + _CONFIDENCE)])
                if np.isfinite(redrawn).all() and len(samples) >= _FEW
                else [math.nan] * 2
            )
            found.append(Correlation(depth, width, float(pair_correlation(samples)), float(ends[0]), float(ends[1])))
    return found


def limit_doubts(table: MultilayerTable, values: Values) -> list[str]:
    """Where the quadrature of a limit is too coarse for the gaps."""
    lines = []
    for name, part in (("chaos", table.chaos), ("residual", table.residual)):
        for d, depth in enumerate(part.depths if part is not None else ()):
            least = float(np.min(np.sqrt(np.mean(np.max(values[f"{name}_gap"][d], axis=-1) ** 2, axis=-1))))
            floor = float(values[f"{name}_floor"][d])
            if not floor <= _SMALL * least:
                words = f"{name}: the limit of depth {depth} is known to {floor:.1e} only, the smallest gap is {least:.1e}"
                lines.append(f"{words}; use more `nodes`")
    return lines


def _fit(
    part: str,
    scaling: str,
    table: ChaosTable | CollapseTable | ResidualTable,
    d: int,
    quantity: str,
    samples: FloatArray,
    expected: float,
    bound: bool = False,
) -> Fit:
    rate = _rate(table.widths, samples)
    return Fit(part, scaling, table.depths[d], quantity, table.widths, samples, rate, expected, bound, table.allowance)


def _rate(counts: Sequence[int], samples: FloatArray) -> Rate:
    return rate_of_few(counts, samples) if samples.shape[1] < _FEW else fitted_rate(counts, samples, "rms")


def at_rest(table: MultilayerTable, depth: int) -> bool:
    """Whether the limit under 1/m stays at f = 0: networks then leave a saddle, nearer to which they start the wider and deeper they are,
    and what is seen of them in training follows no power of m."""
    middle = table.middle.mean
    return limit_at_rest(Weights(middle=Law(mean=middle)), ACTIVATIONS[table.activation], depth)


def _is_there(samples: FloatArray) -> bool:
    """Whether there is such a layer, and what is measured of it is more than round-off."""
    return bool(np.isfinite(samples).all() and (samples > _ROUND_OFF).any())


def _expected(scaling: str, quantity: str) -> float:
    """The slope in m. Under 1/m the neurons of a layer become equal, at the rate of the law of large numbers, and weights move by O(1);
    under 1/√m and in residual blocks neurons stay different; lazy weights move by at most O(m^−1/2) of their size."""
    if quantity.startswith("spread"):
        return {"mean_field": -0.5, "lazy": 0.0, "residual": 0.0}.get(scaling, math.nan)
    if scaling == "lazy":
        return -0.5
    return 0.0 if scaling in ("mean_field", "residual") and quantity.startswith("first") else math.nan


def pair_correlation(samples: FloatArray) -> FloatArray:
    """Of samples (…, seeds, neurons), the mean covariance of two neurons over the mean variance."""
    centred = samples - np.mean(samples, axis=(-2, -1), keepdims=True)
    count = samples.shape[-1]
    square = np.mean(np.sum(centred**2, axis=-1), axis=-1)
    both = np.mean(np.sum(centred, axis=-1) ** 2, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((both - square) / ((count - 1) * square))
