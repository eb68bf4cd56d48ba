"""A measure ρ(θ, ε) as networks of any number of levels see it."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.wide_resnet import Approximation, Block, Network
from mfpde.energy.wide_resnets import Depth, WideResNet
from mfpde.measure import Density, Measure, Particles

_FINEST = 128
"""Blocks in which continuous depth is crossed, each by one step of fourth order."""
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Law:
    """Matrices ``theta`` (n, d, d) of mass ``weights`` (n,), each spread evenly over one of ``parts`` equal parts of the depth, (n,)."""

    theta: FloatArray
    weights: FloatArray
    place: FloatArray
    parts: int

    @staticmethod
    def of(measure: Measure, term: WideResNet) -> "Law":
        """A density by its cells, atoms by the levels, or in continuous depth the slabs, that they lie in."""
        parts = measure.grid.cells[-1] if isinstance(measure, Density) else term.depth.parts(measure)
        d = term.network.units.dimension
        place = term.depth.places(measure.points[:, -1], parts)
        return Law(measure.points[:, :-1].reshape(-1, d, d), measure.weights, place.astype(float), parts)

    def scaled(self, factor: float) -> "Law":
        """The image of θ ↦ rθ."""
        return replace(self, theta=factor * self.theta)

    def blocks(self, levels: int) -> list[Block]:
        """What each of ``levels`` equal parts of the depth holds."""
        found = []
        for level in range(levels):
            ends = (level * self.parts / levels, (level + 1) * self.parts / levels)
            share = np.clip(np.minimum(self.place + 1.0, ends[1]) - np.maximum(self.place, ends[0]), 0.0, None)
            kept = share > _LEAST
            found.append(Block(self.theta[kept], self.weights[kept] * share[kept]))
        return found

    def output(self, network: Network, levels: int | None, inputs: FloatArray) -> FloatArray:
        """X^L at inputs (d, Q), (d, Q); ``levels`` = None: the limit of many, with the parts of the depth divided until they are short."""
        fine = self.parts * math.ceil(_FINEST / self.parts)
        limit = replace(network, continuous=levels is None)
        return limit.forward(self.blocks(fine if levels is None else levels), inputs).output


def approximated(term: WideResNet, approximation: Approximation) -> WideResNet:
    """The same loss, at the same inputs and with the same y, of the network or one of its expansions."""
    return replace(term, network=replace(term.network, approximation=approximation))


def in_levels(measure: Measure, depth: Depth) -> Measure:
    """Atoms at the middles of their levels or slabs, since those of one level are alike; a density as it is."""
    if isinstance(measure, Density):
        return measure
    parts = depth.parts(measure)
    points = measure.points.copy()
    points[:, -1] = depth.lower + (depth.places(points[:, -1], parts) + 0.5) * ((depth.upper - depth.lower) / parts)
    return Particles(points, measure.weights)
