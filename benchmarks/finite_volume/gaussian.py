"""The Ornstein–Uhlenbeck process from a Gaussian: the problem, its exact cell averages, and Scharfetter–Gummel matrices in numpy."""

import numpy as np
import scipy.sparse as sparse
from scipy.special import erf

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Problem
from mfpde.energy import Entropy, Potential
from mfpde.march import Memory, march
from mfpde.solvers.finite_volume import FiniteVolumeFlow

TEMPERATURE, LOWER, UPPER, END = 0.2, -3.0, 3.0, 1.0
VARIANCE, CENTRES = 0.1, (0.5, -0.3)
FINAL_VARIANCE = TEMPERATURE + (VARIANCE - TEMPERATURE) * np.exp(-2.0 * END)


def problem(dimension: int, form: np.ndarray | None = None) -> Problem:
    """ρ_t = T Δρ + div(ρ Qx) up to time 1, with Q = ``form``, the identity if None."""
    q, centre = np.eye(dimension) if form is None else form, np.array(CENTRES[:dimension])
    domain = Domain(tuple(Axis(name, LOWER, UPPER) for name in "xy"[:dimension]))
    potential = Potential(lambda p: 0.5 * np.einsum("ni,ij,nj->n", p, q, p), lambda p: p @ q)
    start = DensityFunction(lambda p: np.exp(-np.sum((p - centre) ** 2, axis=1) / (2.0 * VARIANCE)), domain)
    return Problem(EnergySum({"potential": potential, "entropy": Entropy(TEMPERATURE)}), domain, start, (END,))


def spacing(cells: int) -> float:
    return (UPPER - LOWER) / cells


def averages(cells: int, dimension: int, final: bool) -> np.ndarray:
    """Exact cell averages at the start or at the end, flat."""
    variance, shrunk = (FINAL_VARIANCE, np.exp(-END)) if final else (VARIANCE, 1.0)
    edges = np.linspace(LOWER, UPPER, cells + 1)
    lines = [np.diff(erf((edges - c * shrunk) / np.sqrt(2.0 * variance))) / (2.0 * spacing(cells)) for c in CENTRES[:dimension]]
    return lines[0] if dimension == 1 else np.outer(*lines).ravel()


def l1_error(values: np.ndarray, cells: int, dimension: int) -> float:
    """Against the exact averages at the end."""
    gap = np.abs(np.ravel(values) - averages(cells, dimension, True))
    return float(np.sum(gap)) * spacing(cells) ** dimension


def bernoulli(x: np.ndarray) -> np.ndarray:
    small = np.abs(x) < 1e-5
    return np.where(small, 1.0 - 0.5 * x, x / np.where(small, 1.0, np.expm1(x)))


def coefficients(cells: int, rise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of the flux a ρ_i − b ρ_{i+1} at faces where the potential rises by ``rise``, over the cell width."""
    scale, drop = TEMPERATURE / spacing(cells) ** 2, rise / TEMPERATURE
    forth = bernoulli(drop)
    return scale * forth, scale * (forth + drop)


def matrix(cells: int, potential: np.ndarray) -> sparse.csr_matrix:
    """The generator of ρ' = Lρ for a potential at cell centres (cells,) or (cells, cells)."""
    index = np.arange(potential.size).reshape(potential.shape)
    rows, columns, values = [], [], []
    for axis in range(potential.ndim):
        one, two = (np.delete(index, end, axis=axis).ravel() for end in (-1, 0))
        a, b = coefficients(cells, np.diff(potential, axis=axis).ravel())
        rows += [one, one, two, two]
        columns += [one, two, one, two]
        values += [-a, b, a, -b]
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(entries, shape=(potential.size,) * 2)


def prepared(cells: int, dimension: int, tolerance: float) -> FiniteVolumeFlow:
    """Our flow on a grid."""
    return FiniteVolume((cells,) * dimension, tolerance=tolerance).prepare(problem(dimension))


def run(flow: FiniteVolumeFlow, end: float = END) -> np.ndarray:
    """The density at the end."""
    memory = Memory()
    march(flow, (end,), memory)
    return memory.frames[-1].measure.values
