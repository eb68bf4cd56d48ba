"""Features on a table along one axis: what N particles cost no longer depends on the number of inputs.

Atoms are spread over the table's nodes by six-point Lagrange stencils, the features act there, and the velocity is interpolated back by
the same stencils, O(N) in all.
"""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.energy.features import Features, probe_points
from mfpde.energy.stencil import deposit, interpolate, nodes_of

TOLERANCE = 1e-9
_FEWEST, _MOST = 256, 1 << 15
_PROBES = 400
_FEW = 3
"""Features that are so few that a table gains nothing."""


@dataclass(frozen=True, eq=False)
class TabulatedFeatures:
    """Φ and Φ' of ``exact`` features, (r, n) each, at the nodes of a table over [lower, upper]; ``error`` is what interpolation leaves."""

    exact: Features
    lower: float
    inverse: float
    table: FloatArray
    slopes: FloatArray
    error: float

    @property
    def rank(self) -> int:
        """Number of features r."""
        return self.exact.rank

    @property
    def description(self) -> str:
        """For people."""
        return f"{self.exact.description}, on a table of {self.table.shape[1]} nodes (error {self.error:.0e})"

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Φ at points (N, 1), as (r, N), from the exact features."""
        return self.exact.evaluate(points)

    def moments(self, points: FloatArray, weights: FloatArray) -> FloatArray:
        """∫Φ dρ of atoms, (r,)."""
        masses = deposit(np.ravel(points), _shared(weights), self.lower, self.inverse, self.table.shape[1])
        return np.asarray(self.table @ masses)

    def gradient(self, points: FloatArray, lam: FloatArray) -> FloatArray:
        """∇(Φ·λ) at points (N, 1), as (N, 1)."""
        result = np.empty(points.shape)
        interpolate(np.ravel(points), lam @ self.slopes, self.lower, self.inverse, np.ravel(result))
        return result


def tabulated(features: Features, domain: Domain, tolerance: float = TOLERANCE) -> TabulatedFeatures | None:
    """A table of which both Φ and Φ' are off by at most ``tolerance``, relative to the largest |Φ| and |Φ'|.

    The nodes are doubled until that holds at probes that fill the domain and crowd towards zero. None where it cannot be reached, as
    where features have kinks, where there are several axes, or too few features to gain anything.
    """
    if domain.dimension != 1 or domain.box is not domain or features.rank <= _FEW:
        return None
    probes = probe_points(domain, _PROBES)
    values, slopes = features.evaluate(probes), slopes_of(features, probes)
    sizes = _largest(values), _largest(slopes)
    intervals = _FEWEST
    while intervals <= _MOST:
        table = _table(features, domain, intervals)
        gaps = (_interpolated(table, rows, probes) - exact for rows, exact in ((table.table, values), (table.slopes, slopes)))
        error = max(_largest(gap) / size for gap, size in zip(gaps, sizes, strict=True))
        if error <= tolerance:
            return TabulatedFeatures(features, table.lower, table.inverse, table.table, table.slopes, error)
        intervals *= 2
    return None


def slopes_of(features: Features, points: FloatArray) -> FloatArray:
    """Φ' at points (N, 1), as (r, N)."""
    return np.stack([features.gradient(points, unit)[:, 0] for unit in np.eye(features.rank)])


def _table(features: Features, domain: Domain, intervals: int) -> TabulatedFeatures:
    lower, upper = float(domain.lower[0]), float(domain.upper[0])
    nodes = nodes_of(lower, upper, intervals)[:, None]
    table, slopes = features.evaluate(nodes), slopes_of(features, nodes)
    return TabulatedFeatures(features, lower, intervals / (upper - lower), np.ascontiguousarray(table), slopes, np.nan)


def _interpolated(table: TabulatedFeatures, rows: FloatArray, probes: FloatArray) -> FloatArray:
    found = np.empty((len(rows), len(probes)))
    for row, out in zip(rows, found, strict=True):
        interpolate(np.ravel(probes), row, table.lower, table.inverse, out)
    return found


def _largest(values: FloatArray) -> float:
    """The largest |·| over the points of vectors (r, N)."""
    return float(np.max(np.linalg.norm(values, axis=0)))


def _shared(weights: FloatArray) -> FloatArray:
    """One number where all weights are the same, so that they need not be read."""
    return weights[:1] if weights[0] == weights[-1] and np.all(weights == weights[0]) else weights
