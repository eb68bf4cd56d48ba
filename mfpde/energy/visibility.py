"""What a network sees of a measure: the singular functions of Σ: ρ ↦ ∫σ(x·θ)ρ(dθ) from L²(Ω) to L²(μ), and a difference ρ − ρ* split into
a part that the loss ½‖Σ(ρ − ρ*)‖² sees and one that it does not.

Stationary states that are positive everywhere satisfy Σ(ρ − ρ*) = 0, no more [Mean Field Models for Neural Networks in Teacher-student
Setting (2020), Theorem 2, (4)]: parts of ρ − ρ* in the null space of Σ cost nothing. Σ is compact, so that its singular values fall to
zero and what is seen depends on how small a singular value still counts.
"""

from dataclasses import dataclass, replace

import numpy as np

from mfpde.arrays import FloatArray, physical_memory
from mfpde.domain import Grid
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.parity import GridParity, GridRows, parity
from mfpde.measure import Atoms, Density, Measure, Particles, deposit

Network = TwoLayer | PairNetwork
THRESHOLD = 1e-6
"""A singular function is visible from this share of the largest singular value on."""


@dataclass(frozen=True, eq=False)
class Visible:
    """A difference ρ − ρ* on a grid and its parts, as cell averages (size,); norms are those of L²(dθ).

    ``visible`` lies in the span of the ``rank`` singular functions whose singular value is at least ``threshold`` times the largest,
    ``invisible`` is the rest. ``forbidden`` is the part that parity hides from every law of the inputs, None where there is no parity;
    it is in the null space of Σ, so that it belongs to the invisible part, and the rest of that, ``faint_norm``, is what parity would
    allow but singular values below the threshold hide. ``leak`` is how much of the forbidden part the visible singular functions
    hold, as a share of its norm: round-off where theory and singular values agree. ``residual`` is ‖Σ(ρ − ρ*)‖ in L²(μ).
    """

    difference: FloatArray
    visible: FloatArray
    invisible: FloatArray
    norm: float
    visible_norm: float
    invisible_norm: float
    residual: float
    rank: int
    threshold: float
    forbidden: FloatArray | None = None
    forbidden_norm: float = float("nan")
    faint_norm: float = float("nan")
    leak: float = float("nan")

    @property
    def invisible_share(self) -> float:
        """The part of the squared norm that is invisible, from 0 to 1; nan for no difference."""
        return self.invisible_norm**2 / self.norm**2 if self.norm > 0.0 else float("nan")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Σ on a grid: Σf = Σ_k s_k ⟨v_k, f⟩ u_k with singular ``values`` s (k,), functions v_k of L²(dθ) as the rows of ``functions``
    (k, size), and ``left`` (r, k) with the u_k as columns in feature space. ``symmetry`` is what parity says on this grid, if it says
    something, and ``symmetry_words`` that, or why not."""

    network: Network
    grid: Grid
    left: FloatArray
    values: FloatArray
    functions: FloatArray
    threshold: float
    symmetry: GridParity | GridRows | None
    symmetry_words: str

    @staticmethod
    def of(network: Network, grid: Grid, threshold: float = THRESHOLD) -> "Spectrum":
        """By the singular value decomposition of the features at the cell centres times the roots of the cells' volumes.

        Raises ValueError for a threshold outside (0, 1), and for more features and cells than fit the memory.
        """
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"the threshold is a share of the largest singular value, between 0 and 1, got {threshold}")
        matrix, root = _matrix(network, grid), np.sqrt(np.broadcast_to(grid.weight, (grid.size,)))
        left, values, right = np.linalg.svd(matrix * root, full_matrices=False)
        try:
            seen = parity(network)
            symmetry, words = seen.on(grid), f"parity: at most {seen.words} can be seen"
        except ValueError as error:
            symmetry, words = None, f"parity is not applied: {error}"
        return Spectrum(network, grid, left, values, right / root, threshold, symmetry, words)

    def rank_at(self, threshold: float) -> int:
        """How many singular values are at least so large, relative to the largest; none where all vanish."""
        return int(np.sum(self.values >= threshold * self.values[0])) if self.values[0] > 0.0 else 0

    @property
    def rank(self) -> int:
        """The dimension of the visible space."""
        return self.rank_at(self.threshold)

    def coefficients(self, lam: FloatArray) -> FloatArray:
        """⟨v_k, f⟩ of the visible singular functions for a measure f with Σf = ``lam`` (r,) in feature space, (rank,): exact for atoms
        too, which have no density."""
        return np.asarray((self.left[:, : self.rank].T @ lam) / self.values[: self.rank])

    def visible_of(self, measure: Atoms, teacher: Atoms) -> FloatArray:
        """The visible part of ρ − ρ* on the grid from the atoms themselves, whatever the grid, (size,).

        Raises ValueError for a network in closed form, whose features belong to the grid.
        """
        if not isinstance(self.network, TwoLayer):
            raise ValueError("a network of pairs has features at the cells of a grid alone; deposit the atoms there")
        features = self.network.features
        lam = features.moments(measure.points, measure.weights) - features.moments(teacher.points, teacher.weights)
        return np.asarray(self.coefficients(lam) @ self.functions[: self.rank])

    def split(self, difference: FloatArray) -> Visible:
        """Split a difference of densities, cell averages (size,) or in the grid's shape. Raises ValueError for another size."""
        if np.size(difference) != self.grid.size:
            raise ValueError(f"a difference on {self.grid.cells} cells needs {self.grid.size} values, got {np.size(difference)}")
        values = np.ravel(np.asarray(difference, dtype=float))
        weight = np.broadcast_to(self.grid.weight, values.shape)
        inner = self.functions @ (values * weight)
        visible = inner[: self.rank] @ self.functions[: self.rank]
        rest = values - visible
        residual = float(np.linalg.norm(self.values * inner))
        whole, seen, hidden = (_norm(part, weight) for part in (values, visible, rest))
        found = Visible(values, visible, rest, whole, seen, hidden, residual, self.rank, self.threshold)
        return found if self.symmetry is None else self._with_parity(found, self.symmetry, weight)

    def _with_parity(self, found: Visible, symmetry: GridParity | GridRows, weight: FloatArray) -> Visible:
        forbidden = found.difference - symmetry.seen(found.difference)
        size = _norm(forbidden, weight)
        seen = float(np.linalg.norm(self.functions[: self.rank] @ (forbidden * weight)))
        faint, leak = _norm(found.invisible - forbidden, weight), seen / size if size > 0.0 else 0.0
        return replace(found, forbidden=forbidden, forbidden_norm=size, faint_norm=faint, leak=leak)


def split(network: Network, grid: Grid, difference: FloatArray, threshold: float = THRESHOLD) -> Visible:
    """Split a difference of densities, cell averages (size,) or in the grid's shape, into what the network sees of it and the rest; for
    many differences on one grid make a ``Spectrum`` once. Raises ValueError for a threshold or a size that do not fit."""
    return Spectrum.of(network, grid, threshold).split(difference)


def difference_on(grid: Grid, measure: Measure, teacher: Measure) -> FloatArray:
    """ρ − ρ* as cell averages, (size,): densities on this grid as they are, others by depositing their atoms or cell masses.

    Atoms have no density: their averages, and every norm of the difference but ‖Σ(ρ − ρ*)‖ and that of its visible part, depend on
    the cells.
    """
    return averages_on(grid, measure) - averages_on(grid, teacher)


def averages_on(grid: Grid, measure: Measure) -> FloatArray:
    """Cell averages of a measure, (size,); see ``difference_on``."""
    if isinstance(measure, Density) and measure.grid.cells == grid.cells and measure.grid.domain == grid.domain:
        return np.ravel(measure.values)
    return np.ravel(deposit(Particles(measure.points, measure.weights), grid).values)


def spread_on_line(atoms: Atoms, grid: Grid) -> FloatArray:
    """Cell averages (size,) of atoms on a line, the mass of each being spread evenly over the points that are nearest to it: for particles
    that follow the quantiles of a density an approximation of that density to second order in their distances.

    Raises ValueError for grids of other dimensions and on circles.
    """
    if grid.domain.dimension > 1 or grid.domain.periodic[0]:
        raise ValueError("atoms are spread between their neighbours on a line only; deposit them instead")
    order = np.argsort(atoms.points[:, 0], kind="stable")
    points, edges = atoms.points[order, 0], grid.edges(0)
    middles = 0.5 * (points[1:] + points[:-1])
    first, last = (2.0 * points[0] - middles[0], 2.0 * points[-1] - middles[-1]) if len(points) > 1 else (edges[0], edges[-1])
    places = np.clip(np.concatenate([[first], middles, [last]]), edges[0], edges[-1])
    levels = np.concatenate([[0.0], np.cumsum(atoms.weights[order])])
    return np.asarray(np.diff(np.interp(edges, places, levels, left=0.0, right=float(levels[-1]))) / grid.weight)


def _matrix(network: Network, grid: Grid) -> FloatArray:
    """Features at the cell centres, (r, size)."""
    if isinstance(network, PairNetwork):
        prepared = network.on(grid)
        factors = getattr(prepared, "factors", None)
        if factors is None:
            raise ValueError("this network has no features on this grid")
        return np.asarray(factors[0])
    if 3 * network.features.rank * grid.size * 8 > physical_memory():
        raise ValueError(f"{grid.size} cells with {network.features.rank} features need more memory than there is; use fewer cells")
    return network.features.evaluate(grid.centers)


def _norm(values: FloatArray, weight: FloatArray) -> float:
    return float(np.sqrt(np.sum(weight * values * values)))
