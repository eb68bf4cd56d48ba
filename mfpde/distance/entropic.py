"""Entropic transport on a fine grid: the Sinkhorn divergence, in the log domain, with kernels that act along one axis at a time."""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.distance.kernels import soften, soften_alone
from mfpde.distance.nodes import Nodes, nodes_around
from mfpde.distance.result import Distance
from mfpde.domain import Domain
from mfpde.measure import Measure

NODES = {2: 128, 3: 40}
_EMPTY = -1e30
_NOTHING = -700.0
_COOLING = 0.7
_SETTLED = 4e-2
_MOST = 80
_RELAXED = 1.8
_COLD = 0.25
_ALONE = 4_000_000
"""So few terms take less time than other threads may need to wake on a busy machine."""


def by_divergence(first: Measure, second: Measure, domain: Domain, nodes: int | None = None) -> Distance:
    """The root of S_ε = OT_ε(α, β) − ½ OT_ε(α, α) − ½ OT_ε(β, β) for |x − y|², with √ε the nodes' spacing h.

    The potentials are cooled from the size of the domain on [Feydy et al. 2019]; a step costs O(n^(1 + 1/d)) for n nodes, of which there
    are ``nodes`` along each axis of the box around both measures. S_ε differs from W₂² by O(ε²) for smooth measures [Chizat et al.
    2020], and at this ε it does not see the lattice of the nodes. For any measures, W₂ between those on the nodes is at least what
    the c-transforms of a potential say, and at most the mean cost of an entropic plan, here at ε/4, to the precision of its marginals.
    The floor is the root mean square way of both measures to the nodes, about 0.4 h each, and how far the value is from the further
    of these bounds.
    """
    grid = nodes_around(first, second, domain, nodes or NODES[domain.dimension])
    (mass, moved), (mass2, moved2) = (grid.deposit(measure) for measure in (first, second))
    smallest = float(np.max(grid.spacing)) ** 2
    diameter = max(sum(float(np.max(cost)) for cost in grid.costs), smallest)
    a, b = (np.log(m, out=np.full(m.shape, _EMPTY), where=m > 0.0) for m in (mass, mass2))
    f, g, settled = _potentials(a, b, grid, diameter, smallest)
    (p, alone), (q, alone2) = (_self_potential(x, grid, diameter, smallest) for x in (a, b))
    divergence = float(np.sum(mass * (f - p)) + np.sum(mass2 * (g - q)))
    cold = _COLD * smallest
    f, g = _cool(f, g, a, b, grid, _temperatures(smallest, cold))
    f, g, settled2 = _settle(f, g, a, b, grid, cold)
    bounds = _lower_bound(f, mass, mass2, grid), _mean_cost(f, b + g / cold, mass, grid, cold)
    least, most = (float(np.sqrt(max(x, 0.0))) for x in bounds)
    value = float(np.sqrt(max(divergence, 0.0)))
    words = f"entropic on {' × '.join(str(n) for n in grid.shape)} nodes"
    words += "" if settled and settled2 and alone and alone2 else ", not converged"
    return Distance(value, moved + moved2 + max(value - least, most - value, 0.0), words)


def _transform(values: FloatArray, grid: Nodes, temperature: float, hard: bool = False) -> FloatArray:
    """−ε log Σ_j exp(values_j − c_ij/ε) at all nodes i, one axis after the other; ``hard``: only the largest term."""
    return -temperature * _soften(values, [cost / temperature for cost in grid.costs], hard)


def _soften(values: FloatArray, kernels: list[FloatArray], hard: bool = False) -> FloatArray:
    """log Σ_j exp(values_j − Σ_k kernels_k[i_k, j_k])."""
    for kernel in reversed(kernels):
        rows = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
        out = np.empty((len(rows), len(kernel)))
        (soften if rows.size * len(kernel) > _ALONE else soften_alone)(rows, kernel, hard, out)
        values = np.moveaxis(out.reshape((*values.shape[:-1], len(kernel))), -1, 0)
    return values


def _temperatures(diameter: float, smallest: float) -> FloatArray:
    """ε from the largest cost down to the ``smallest``, whose roots are cooled by one factor."""
    steps = max(int(np.ceil(0.5 * np.log(max(smallest / diameter, 1e-300)) / np.log(_COOLING))), 1)
    return np.asarray(diameter * (smallest / diameter) ** (np.arange(steps + 1) / steps))


def _potentials(a: FloatArray, b: FloatArray, grid: Nodes, diameter: float, smallest: float) -> tuple[FloatArray, FloatArray, bool]:
    """f and g of OT_ε from the log masses, and whether they have settled."""
    f, g = (_transform(x, grid, diameter) for x in (b, a))
    f, g = _cool(f, g, a, b, grid, _temperatures(diameter, smallest))
    return _settle(f, g, a, b, grid, smallest)


def _cool(
    f: FloatArray, g: FloatArray, a: FloatArray, b: FloatArray, grid: Nodes, temperatures: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Both potentials after one averaged step at each temperature."""
    for temperature in temperatures:
        ours, theirs = _transform(b + g / temperature, grid, temperature), _transform(a + f / temperature, grid, temperature)
        f, g = 0.5 * (f + ours), 0.5 * (g + theirs)
    return f, g


def _settle(
    f: FloatArray, g: FloatArray, a: FloatArray, b: FloatArray, grid: Nodes, temperature: float
) -> tuple[FloatArray, FloatArray, bool]:
    """Alternate over-relaxed steps [Thibault et al. 2021] until a step changes little; the plan then has the first marginal."""
    mass, settled = np.exp(a), False
    for _ in range(_MOST):
        g = g + _RELAXED * (_transform(a + f / temperature, grid, temperature) - g)
        ours = _transform(b + g / temperature, grid, temperature)
        settled = float(np.sum(mass * np.abs(ours - f))) <= _SETTLED * temperature
        if settled:
            break
        f = f + _RELAXED * (ours - f)
    g = _transform(a + f / temperature, grid, temperature)
    return _transform(b + g / temperature, grid, temperature), g, settled


def _self_potential(a: FloatArray, grid: Nodes, diameter: float, smallest: float) -> tuple[FloatArray, bool]:
    """The one potential of OT_ε between a measure and itself."""
    temperature = diameter
    f = _transform(a, grid, temperature)
    for temperature in _temperatures(diameter, smallest):
        f = 0.5 * (f + _transform(a + f / temperature, grid, temperature))
    mass = np.exp(a)
    for _ in range(_MOST):
        found = _transform(a + f / temperature, grid, temperature)
        if float(np.sum(mass * np.abs(found - f))) <= _SETTLED * smallest:
            return f, True
        f = 0.5 * (f + found)
    return f, False


def _mean_cost(f: FloatArray, values: FloatArray, mass: FloatArray, grid: Nodes, temperature: float) -> float:
    """∫c dP for the plan P_ij = a_i exp((f_i − c_ij)/ε + values_j): one pass for each axis, whose kernel is weighted with its cost."""
    total = 0.0
    for k, cost in enumerate(grid.costs):
        weighted = cost / temperature - np.log(cost, out=np.full_like(cost, _EMPTY), where=cost > 0.0)
        kernels = [weighted if n == k else other / temperature for n, other in enumerate(grid.costs)]
        exponents = np.where(mass > 0.0, f / temperature + _soften(values, kernels), _EMPTY)
        total += float(np.sum(mass * np.exp(np.maximum(exponents, _NOTHING))))
    return total


def _lower_bound(f: FloatArray, mass: FloatArray, mass2: FloatArray, grid: Nodes) -> float:
    """∫f^cc dα + ∫f^c dβ <= W₂²(α, β), with c-transforms over the nodes that carry mass."""
    g = _transform(np.where(mass > 0.0, f, _EMPTY), grid, 1.0, hard=True)
    again = _transform(np.where(mass2 > 0.0, g, _EMPTY), grid, 1.0, hard=True)
    return float(np.sum(mass * again) + np.sum(mass2 * g))
