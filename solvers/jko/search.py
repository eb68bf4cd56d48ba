"""Where proximal points argmin ξ(y) + |y − z|²/(2σ) need not be the only ones: a search among probes that fill the moving axes.

What it finds is the best of the starts tried and no proof: a well narrower than the probes' distance can be missed. Along one and two axes
the probes are refined until second differences of ξ are small beside its range, where that is cheap, and those in wells are moved to their
bottoms; in more dimensions those of a lattice are, or some of them for each of many frozen places.
"""

from itertools import product

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.measure import lattice
from mfpde.solvers.jko.proximal import Field

_PROBES, _MOST_SIDE = {1: 513, 2: 33}, {1: (1 << 15) + 1, 2: 257}
_FEWEST_SIDE = {1: 33, 2: 9}
_MOST_PROBES, _FEWEST_PROBES, _BOTTOMS = 2000, 64, 1 << 15
_FEWEST_BOTTOMS = 8
_FINE = 1e-2
_SOME = 8
_VALUES, _PAIRS, _MOST_PAIRS = 1 << 24, 1 << 20, 1 << 28
_MANY = 64
_STARTS = {1: 9, 2: 5}
_REACH = 1.5


class Search:
    """For the potentials ξ_λ of ``field``. Frozen coordinates are those of each atom."""

    def __init__(self, field: Field) -> None:
        self.field, self.domain = field, field.domain
        self._moving = np.array(self.domain.moving)
        self._rank = max(field.rank, 1)

    def least_bend(self, points: FloatArray, lam: FloatArray) -> float:
        """The least eigenvalue of ∇²ξ_λ at the centres of a table, or at probes and some of the ``points`` (N, d)."""
        if self.field.compiled:
            return self.field.least_bend(lam)
        some = _some(self._inside(points), _MOST_PROBES)
        rows = np.unique(_some(some, _SOME)[:, self.domain.frozen], axis=0)
        probes = self._placed(self._unit(_PROBES.get(len(self._moving), 0)), rows).reshape(-1, points.shape[1])
        probes = np.concatenate([probes, some])
        return float(np.min(np.linalg.eigvalsh(self.field.hessian(probes, lam))[:, 0]))

    def best(self, points: FloatArray, target: FloatArray, lam: FloatArray, sigma: float) -> tuple[FloatArray, FloatArray]:
        """The best proximal points (N, d) of ``target`` (N, d) from several starts and ``points``, and ξ + |y − z|²/(2σ) there, (N,)."""
        reach = sigma * float(np.max(np.abs(self.field.gradient(points, lam)), initial=0.0))
        reach = max(reach, float(np.max(np.abs(points - target))))
        envelope = self.field.values(points, lam) + np.sum((points - target) ** 2, axis=1) / (2.0 * sigma)
        for start in [*(target + reach * shift for shift in self._shifts()), self._best_probes(target, lam, sigma)]:
            tried, _ = self.field.proximal(target, start, lam, sigma)
            value = self.field.values(tried, lam) + np.sum((tried - target) ** 2, axis=1) / (2.0 * sigma)
            better = value < envelope - 1e-13 * (1.0 + np.abs(envelope))
            points, envelope = np.where(better[:, None], tried, points), np.where(better, value, envelope)
        return points, envelope

    def _shifts(self) -> list[FloatArray]:
        """Where starts lie around a target, in [−1.5, 1.5] along the moving axes."""
        count = len(self._moving)
        if count in _STARTS:
            steps = np.array(list(product(np.linspace(-_REACH, _REACH, _STARTS[count]), repeat=count)))
        else:
            steps = np.concatenate([np.zeros((1, count)), np.eye(count), -np.eye(count)])
        found = np.zeros((len(steps), self.domain.dimension))
        found[:, self._moving] = steps
        return list(found)

    def _best_probes(self, target: FloatArray, lam: FloatArray, sigma: float) -> FloatArray:
        """The probes (N, d) where ξ + |y − z|²/(2σ) is least, circles being gone round once either way."""
        inside = self._inside(target)
        rows, group = np.unique(inside[:, self.domain.frozen], axis=0, return_inverse=True)
        order = np.argsort(np.ravel(group), kind="stable")
        bounds = np.searchsorted(np.ravel(group)[order], np.arange(len(rows) + 1))
        side, starts = self._side(rows, lam, len(target)), np.empty(target.shape)
        unit = self._unit(side, len(rows))
        block = max(1, _PAIRS // len(unit))
        for first in range(0, len(rows), block):
            probes, values = self._deepened(self._placed(unit, rows[first : first + block]), side, _BOTTOMS // len(rows), lam, sigma)
            for k in range(len(probes)):
                atoms = order[bounds[first + k] : bounds[first + k + 1]]
                starts[atoms] = self._chosen(probes[k], values[k], inside[atoms], sigma)
        return starts + (target - inside)

    def _side(self, rows: FloatArray, lam: FloatArray, count: int) -> int:
        """The number of probes along each of one or two moving axes: more where ξ is steep, fewer for many frozen places (G, f); else 0."""
        axes = len(self._moving)
        if axes not in _PROBES:
            return 0
        side, allowed = _PROBES[axes], _VALUES / (self._rank * len(rows))
        while side > _FEWEST_SIDE[axes] and len(rows) > 1 and side**axes > allowed:
            side = (side + 1) // 2
        if axes > 1:
            allowed = min(allowed, _MOST_PAIRS / count)
        while (finer := 2 * side - 1) <= _MOST_SIDE[axes] and finer**axes <= allowed:
            probes = self._placed(self._unit(side), _some(rows, _SOME))
            values = self._values(probes, lam).reshape(-1, *(side,) * axes)
            bend = max(float(np.max(np.abs(np.diff(values, 2, axis=1 + k)))) for k in range(axes))
            # the lower half of the range, as walls of wells may be far higher than what wells differ by
            if bend <= _FINE * float(np.median(values) - np.min(values)):
                break
            side = finer
        return side

    def _unit(self, side: int, rows: int = 1) -> FloatArray:
        """Probes (M, moving) in the unit cube of the moving axes."""
        axes = len(self._moving)
        if axes not in _PROBES:
            return lattice(int(np.clip(_VALUES / (self._rank * rows), _FEWEST_PROBES, _MOST_PROBES)), axes)
        return np.stack([part.ravel() for part in np.meshgrid(*[np.linspace(0.0, 1.0, side)] * axes, indexing="ij")], axis=1)

    def _placed(self, unit: FloatArray, rows: FloatArray) -> FloatArray:
        """The probes at the frozen places ``rows`` (G, f), (G, M, d)."""
        low, high = self.domain.lower[self._moving], self.domain.upper[self._moving]
        found = np.empty((len(rows), len(unit), self.domain.dimension))
        found[:, :, self._moving] = low + unit * (high - low)
        found[:, :, self.domain.frozen] = rows[:, None, :]
        return found

    def _values(self, probes: FloatArray, lam: FloatArray) -> FloatArray:
        """ξ at probes (G, M, d), (G, M)."""
        return self.field.values(probes.reshape(-1, probes.shape[2]), lam).reshape(probes.shape[:2])

    def _deepened(self, probes: FloatArray, side: int, most: int, lam: FloatArray, sigma: float) -> tuple[FloatArray, FloatArray]:
        """Probes (G, M, d) and ξ there, (G, M), with those of wells at the bottoms; in more than two dimensions
        beside all others, from at most about ``most`` of each place."""
        axes, values = len(self._moving), self._values(probes, lam)
        if side:
            low = _lowest(values.reshape(-1, *(side,) * axes)).reshape(values.shape)
        else:
            low = np.zeros(values.shape, dtype=bool)
            low[:, :: -(-values.shape[1] // max(most, _FEWEST_BOTTOMS))] = True
        above = probes[low]
        bottoms, _ = self.field.proximal(above, above, lam, sigma)
        bottoms = self._inside(bottoms)
        heights = self.field.values(bottoms, lam)
        if not side:
            both = np.concatenate([probes, bottoms.reshape(len(probes), -1, probes.shape[2])], axis=1)
            return both, np.concatenate([values, heights.reshape(len(probes), -1)], axis=1)
        deeper = heights < values[low]
        probes[low], values[low] = np.where(deeper[:, None], bottoms, above), np.where(deeper, heights, values[low])
        return probes, values

    def _chosen(self, probes: FloatArray, values: FloatArray, targets: FloatArray, sigma: float) -> FloatArray:
        """The best of the probes (M, d) with ξ = ``values`` for each of the ``targets`` (n, d) of one frozen place."""
        domain = self.domain
        rounds = np.array(list(product(*[(-1.0, 0.0, 1.0) if periodic else (0.0,) for periodic in domain.periodic])))
        turned = (probes + (rounds * (domain.upper - domain.lower))[:, None, :]).reshape(-1, domain.dimension)
        places, wanted = turned[:, self._moving], targets[:, self._moving] / sigma
        heights = np.tile(values, len(rounds)) + np.sum(places**2, axis=1) / (2.0 * sigma)
        if len(self._moving) == 1 and len(targets) > _MANY:
            return np.asarray(turned[_tangents(places[:, 0], heights, wanted[:, 0])])
        best = np.empty(len(targets), dtype=np.int64)
        block = max(1, _PAIRS // len(turned))
        for k in range(0, len(targets), block):
            best[k : k + block] = np.argmin(heights - wanted[k : k + block] @ places.T, axis=1)
        return np.asarray(turned[best])

    def _inside(self, points: FloatArray) -> FloatArray:
        return self.domain.confine(points) if self.domain.periodic.any() else points


def _some(rows: FloatArray, most: int) -> FloatArray:
    """At most so many of the rows, evenly."""
    return rows[:: -(-len(rows) // most)]


def _lowest(values: FloatArray) -> BoolArray:
    """Which values (G, n, ...) are not above their neighbours along the axes."""
    found = np.ones(values.shape, dtype=bool)
    for axis in range(1, values.ndim):
        moved, mask = np.moveaxis(values, axis, 0), np.moveaxis(found, axis, 0)
        mask[1:] &= moved[1:] <= moved[:-1]
        mask[:-1] &= moved[:-1] <= moved[1:]
    return found


def _tangents(x: FloatArray, heights: FloatArray, slopes: FloatArray) -> IntArray:
    """argmin_i heights_i − s x_i for each s of ``slopes``: the vertices of the lower convex hull are passed in their order."""
    order = np.lexsort((heights, x))
    hull: list[int] = []
    places, values = x.tolist(), heights.tolist()
    for i in order.tolist():
        if hull and places[i] == places[hull[-1]]:
            continue
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (values[b] - values[a]) * (places[i] - places[b]) < (values[i] - values[b]) * (places[b] - places[a]):
                break
            hull.pop()
        hull.append(i)
    corners = np.array(hull)
    rises = np.diff(heights[corners]) / np.diff(x[corners])
    return np.asarray(corners[np.searchsorted(rises, slopes)])
