"""What the cells of a grid make of a pair kernel that varies within them."""

import math
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.cell_average import divided_averages
from mfpde.energy.pair_kernel import PairKernel

_BOXES = 96
_SAMPLES = 128
_AWAY = 1.5
_NOTED = 0.1
_REFUSED = 0.45
_MOST_MISSED = 8
_FLAT = 1e-3
_ROUND_OFF = 1e-7
_MOST_HALVINGS = 24


@dataclass(frozen=True)
class Resolution:
    """How far cells of some sides see a kernel: ``misfit`` is the error of their weights away from 0, as a share of the kernel's
    variation there (root mean squares); ``narrow`` says that W varies within the cell at 0 alone."""

    misfit: float
    narrow: bool = False


def measure_resolution(kernel: PairKernel, sides: FloatArray) -> Resolution:
    """The weights of cells with ``sides`` (d,), at random differences, beside averages over random points of the cells, which no
    oscillation can deceive."""
    generator = np.random.default_rng(5)
    lower, upper = _boxes(kernel, sides, generator)
    if len(lower) < 2:
        return Resolution(0.0)
    centers, resolved = 0.5 * (lower + upper), kernel.resolved(sides)
    weights = kernel.values(centers) if resolved else divided_averages(kernel, lower, upper)
    averages, squares = _sampled(kernel, lower, upper, generator)
    mean = float(np.mean(averages))
    variation = math.sqrt(max(float(np.mean(squares)) - mean**2, 0.0))
    if not resolved and kernel.at_zero is not None and variation <= _FLAT * abs(kernel.at_zero - mean):
        return Resolution(0.0, narrow=True)
    gap = float(np.sqrt(np.mean((weights - averages) ** 2)))
    return Resolution(gap / variation if variation > _ROUND_OFF * abs(mean) else 0.0)


def resolution_note(kernel: PairKernel, sides: FloatArray) -> str:
    """A remark where cells with ``sides`` (d,) hardly resolve the kernel, empty where they do. Raises ValueError where they do not."""
    found = measure_resolution(kernel, sides)
    if found.narrow:
        return "the kernel is narrower than a cell, so that it acts at a point, by its integral alone; use more cells to resolve it"
    if found.misfit < _NOTED:
        return ""
    factor = _factor(kernel, sides)
    wanted = f"about {factor} times as many cells along each axis" if factor else "a smoother kernel"
    error = f"the weights of the cells are off by {found.misfit:.0%} of its variation; use {wanted}"
    if found.misfit < _REFUSED and 0 < factor <= _MOST_MISSED:
        return f"the cells hardly resolve the kernel: {error}"
    raise ValueError(f"the kernel varies too fast for these cells: {error}, or particles")


def _boxes(kernel: PairKernel, sides: FloatArray, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Lower and upper corners (B, d) of cells at random differences, away from 0 and from half way round a circle."""
    domain = kernel.domain
    start, end = (domain.spread(generator.random((4 * _BOXES, domain.dimension))) for _ in range(2))
    centers = domain.displacement(start, end)
    away = np.any(np.abs(centers) >= _AWAY * sides, axis=1) & np.all(np.abs(centers) + 0.5 * sides <= kernel.extent, axis=1)
    centers = centers[away][:_BOXES]
    return centers - 0.5 * sides, centers + 0.5 * sides


def _sampled(kernel: PairKernel, lower: FloatArray, upper: FloatArray, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Averages of W and of W² over boxes (B, d), from points that are random within strata along each axis."""
    shape = (len(lower), _SAMPLES, lower.shape[1])
    strata = generator.permuted(np.broadcast_to(np.arange(_SAMPLES)[None, :, None], shape), axis=1)
    places = (strata + generator.random(shape)) / _SAMPLES
    x = lower[:, None, :] + (upper - lower)[:, None, :] * places
    values = kernel.values(x.reshape(-1, shape[2])).reshape(shape[:2])
    return np.mean(values, axis=1), np.mean(values**2, axis=1)


def _factor(kernel: PairKernel, sides: FloatArray) -> int:
    """How many times more cells along each axis would do, 0 if none."""
    factors = (1 << k for k in range(1, _MOST_HALVINGS))
    return next((factor for factor in factors if measure_resolution(kernel, sides / factor).misfit < _NOTED), 0)
