"""What theory says about finitely many particles: central limits at the start, and that atoms solve the PDE as they are."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy import TwoLayer
from mfpde.measure import Density, DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Status
from mfpde.solvers.particles import ParticleFlow

_PANELS, _NODES = 7, 16
_MODES = 3
_DIFFERENCE = 1e-4
_FEWEST, _GROWS, _TAIL = 64, 1.05, 1e-14
_FINE = 8192
_CELLS = {1: 400, 2: 40, 3: 12}


def expected_square_distance(start: Density) -> float:
    """J₂ = ∫F(1 − F)/ρ, so that E W₂² ≈ J₂/N for N independent draws from a density on one axis [del Barrio–Giné–Utzet 2005].

    F is linear and ρ constant in each cell. Infinite where ρ vanishes between two masses, by an empty cell or as cells of half the width
    show: then E W₂² falls more slowly than 1/N.
    """
    masses, width = np.ravel(start.weights), start.grid.cell_volume
    value = _square_distance(masses, width)
    if len(masses) % 2 or len(masses) < _FEWEST:
        return value
    return value if value <= _GROWS * _square_distance(masses.reshape(-1, 2).sum(axis=1), 2.0 * width) else math.inf


def _square_distance(masses: FloatArray, width: float) -> float:
    """J₂ of cell masses; F is summed from the nearer end, so that light tails keep their digits."""
    masses = masses / np.sum(masses)
    kept = np.flatnonzero((np.cumsum(masses) > _TAIL) & (np.cumsum(masses[::-1])[::-1] > _TAIL))
    masses = masses[kept[0] : kept[-1] + 1]
    if not (masses > 0.0).all():
        return math.inf
    below = np.concatenate([[0.0], np.cumsum(masses)])
    above = np.concatenate([np.cumsum(masses[::-1])[::-1], [0.0]])
    near = np.where((below[:-1] < 0.5)[:, None], np.stack([below[:-1], below[1:]], 1), np.stack([above[1:], above[:-1]], 1))
    a, b = near[:, 0], near[:, 1]
    ratio, other = a / masses, b / masses
    integral = 0.5 * (ratio + other) - (a * ratio + a * other + b * other) / 3.0
    return float(np.sum(integral * width * width))


def expected_loss_gap(problem: Problem, network: TwoLayer) -> tuple[float, float]:
    """(N times the mean, √N times the standard deviation) of the loss gap for N independent draws at time 0.

    For ½|∫Φ dρ − b|² the mean is Tr Cov(Φ)/(2N) exactly, and the fluctuation tends to a normal law with the variance of ξ = δE/δρ under ρ₀.
    Raises TypeError where the initial measure is not a density.
    """
    if not isinstance(problem.initial, DensityFunction):
        raise TypeError("the central limit theorem needs draws from a density")
    atoms = problem.initial.gauss_atoms(_CELLS.get(problem.domain.dimension, 4))
    features = network.features.evaluate(atoms.points)
    moments = features @ atoms.weights
    trace = float(np.sum(features**2 @ atoms.weights) - moments @ moments)
    xi = (moments - network.target) @ features
    centre = float(xi @ atoms.weights)
    return 0.5 * trace, math.sqrt(float(atoms.weights @ (xi - centre) ** 2))


def start_square_distance(problem: Problem) -> float:
    """``expected_square_distance`` of a problem's initial density, nan unless it is one on a line."""
    line = problem.domain.dimension == 1 and not problem.domain.periodic[0]
    if not line or not isinstance(problem.initial, DensityFunction):
        return math.nan
    return expected_square_distance(problem.initial.on(problem.domain.even_grid(_FINE)))


def start_loss(problem: Problem, terms: Sequence[str]) -> float:
    """The sum of these terms at the initial density, by quadrature. Raises TypeError where the initial measure is not a density."""
    if not isinstance(problem.initial, DensityFunction):
        raise TypeError("the loss of the start needs a density")
    cells, layers = _CELLS.get(problem.domain.dimension, 4), problem.energy.layers
    layered = tuple(layers if frozen else cells for frozen in problem.domain.frozen.tolist()) if layers > 1 else cells
    atoms = problem.initial.gauss_atoms(layered)
    return sum(problem.energy.terms[name].value(atoms) for name in terms)


def weak_residual(problem: Problem, solver: ParticleFlow, stopped: Sequence[int] | None = None) -> float:
    """By how much the atoms of one noise-free run miss the weak form of the PDE, which they solve exactly for any N:
    the largest |∫φ dρ(t) − ∫φ dρ(0) + ∫_0^t∫∇φ·∇ξ(ρ) dρ ds| over cosines φ that no wall feels, t being the last time.

    ∇ξ is taken by differences of the first variation, so that it is independent of the solver's velocities. Nan where the run does not
    reach its end; ``stopped`` as in ``march``.
    """
    end = problem.save_at[-1]
    times, shares = _quadrature(end)
    run = solver.solve(replace(problem, save_at=(0.0, *times.tolist(), end)), stopped)
    if run.status is not Status.DONE:
        return math.nan
    waves = _Waves.of(problem)
    total = np.zeros(len(waves.numbers))
    for measure, share in zip(run.measures[1:-1], shares, strict=True):
        total += share * waves.flux(problem, _particles(measure))
    first, last = (waves.mean(_particles(run.measures[k])) for k in (0, -1))
    return float(np.max(np.abs(last - first + total)))


def _particles(measure: object) -> Particles:
    assert isinstance(measure, Particles)
    return measure


def _quadrature(end: float) -> tuple[FloatArray, FloatArray]:
    """Gauss–Legendre nodes and weights on panels of [0, end] that double in length, as the flow slows down."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    edges = np.concatenate([[0.0], end * 0.5 ** np.arange(_PANELS - 1, -1, -1)])
    half = 0.5 * np.diff(edges)[:, None]
    return np.ravel(edges[:-1, None] + half * (1.0 + nodes)), np.ravel(half * weights)


class _Waves:
    """cos(π m (θ_k − l_k)/L_k) for m = 1, 2, 3 along each moving axis k, whole turns along circles."""

    def __init__(self, problem: Problem, numbers: list[tuple[int, float]]) -> None:
        self.domain, self.numbers = problem.domain, numbers

    @staticmethod
    def of(problem: Problem) -> "_Waves":
        domain = problem.domain
        length = domain.upper - domain.lower
        turns = np.where(domain.periodic, 2.0, 1.0) * math.pi / length
        return _Waves(problem, [(k, m * float(turns[k])) for k in domain.moving for m in range(1, _MODES + 1)])

    def mean(self, atoms: Particles) -> FloatArray:
        """∫φ dρ, (M,)."""
        place = atoms.points - self.domain.lower
        return np.array([float(atoms.weights @ np.cos(f * place[:, k])) for k, f in self.numbers])

    def flux(self, problem: Problem, atoms: Particles) -> FloatArray:
        """∫∇φ·∇ξ dρ, (M,)."""
        place = atoms.points - self.domain.lower
        slopes = {k: _slope(problem, atoms, k) for k in self.domain.moving}
        return np.array([-f * float(atoms.weights @ (np.sin(f * place[:, k]) * slopes[k])) for k, f in self.numbers])


def _slope(problem: Problem, atoms: Particles, axis: int) -> FloatArray:
    """∂ξ along one axis by central differences of fourth order, (N,)."""
    step = np.zeros(problem.domain.dimension)
    step[axis] = _DIFFERENCE * float(problem.domain.axes[axis].length)
    values = {k: problem.energy.first_variation(atoms, atoms.points + k * step) for k in (-2, -1, 1, 2)}
    return np.asarray((8.0 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12.0 * step[axis]))
