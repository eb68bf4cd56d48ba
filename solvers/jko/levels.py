"""The mass levels of a quantile function: cells of an initial density on one axis with their exact masses."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import DensityFunction

_FINE = 4
_LEAST_FINE = 8192
_NODES = 8
_TAIL = 1e-13
_FLOOR = 1e-15
"""The least share of a cell, so that gaps of the initial density hold cells that can be squeezed, but not turned over."""
_BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class Levels:
    """Cells of ``masses`` (n,), of sum one, between the places ``start`` (n + 1,)."""

    start: FloatArray
    masses: FloatArray
    note: str

    @staticmethod
    def of(initial: DensityFunction, count: int, least: float = 0.0) -> "Levels":
        """``count`` cells from the support's one end to the other; one half of them with equal masses, the other of equal lengths where
        the mass is, without tails of 1e-13. Masses by 8 Gauss–Legendre nodes a cell. On a circle they go round it.
        ``least``: the least mass of a cell as a share of the mean, which moves this little mass into tails and gaps."""
        domain = initial.domain
        fine = max(_FINE * count, _LEAST_FINE)
        edges = domain.even_grid(fine).edges(0)
        shares = np.ravel(initial.on(domain.even_grid(fine)).weights)
        held = np.flatnonzero(shares > 0.0)
        low = _end(initial, edges, int(held[0]), -1)
        high = _end(initial, edges, int(held[-1]), 1)
        cumulative = np.concatenate([[0.0], np.cumsum(shares)])
        core = (cumulative[1:] > _TAIL) & (cumulative[:-1] < cumulative[-1] - _TAIL)
        density = 0.5 * shares + 0.5 * core / np.sum(core)
        edges = np.clip(edges, low, high)
        monitor = np.concatenate([[0.0], np.cumsum(density)])
        grows = np.concatenate([[True], np.diff(monitor) > 0.0])
        places = np.interp(np.linspace(0.0, monitor[-1], count + 1), monitor[grows], edges[grows])
        places[0], places[-1] = low, high
        if domain.periodic[0] and high - low < domain.axes[0].length:
            places = np.append(places, low + domain.axes[0].length)  # a gap, which is a cell with the least mass
        masses = _masses(initial, places)
        raised = np.maximum(masses, max(_FLOOR, least / len(masses)) * np.sum(masses))
        note = "half of them as fine in the tails as where the mass is"
        if least > 0.0:
            moved = float(np.sum(raised - masses) / np.sum(masses))
            note = f"{note}; cells hold at least {least:.0e} of the mean, which adds {moved:.1e} of the mass in tails and gaps"
        return Levels(places, raised / np.sum(raised), note)


def _end(initial: DensityFunction, edges: FloatArray, cell: int, side: int) -> float:
    """Where the support ends in or beside a cell that holds mass, towards ``side``."""
    outer = edges[cell] if side < 0 else edges[cell + 1]
    if initial.values(np.array([[outer]]))[0] > 0.0:
        return float(outer)
    inside = np.linspace(edges[cell], edges[cell + 1], 66)[1:-1]
    found = np.flatnonzero(initial.values(inside[:, None]) > 0.0)
    if not len(found):
        return float(outer)
    there, beyond = float(inside[found[0 if side < 0 else -1]]), float(outer)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (there + beyond)
        if initial.values(np.array([[middle]]))[0] > 0.0:
            there = middle
        else:
            beyond = middle
    return there


def _masses(initial: DensityFunction, places: FloatArray) -> FloatArray:
    """∫ρ₀ over each cell, not normalised, (n,)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    middle, half = 0.5 * (places[1:] + places[:-1]), 0.5 * np.diff(places)
    total = np.zeros(len(middle))
    for node, weight in zip(nodes, weights, strict=True):
        total += weight * initial.values(initial.domain.confine((middle + half * node)[:, None]))
    return np.asarray(total * half)
