"""Networks with the penalty λ∫|a||w|dπ: the exact sparse minimiser, the flow of finitely many neurons, and how fast it gets there."""

from mfpde.sparse.certificate import Peaks, find_peaks
from mfpde.sparse.flow import Students, descend, draw_students, excess
from mfpde.sparse.network import Network
from mfpde.sparse.rates import Decay, Members, Modes, linear_decay, local_modes
from mfpde.sparse.recovery import Gathering, determined, gather, nearest
from mfpde.sparse.solver import SparseProblem, SparseSolution, solve_sparse

__all__ = [
    "Decay",
    "Gathering",
    "Members",
    "Modes",
    "Network",
    "Peaks",
    "SparseProblem",
    "SparseSolution",
    "Students",
    "descend",
    "determined",
    "draw_students",
    "excess",
    "find_peaks",
    "gather",
    "linear_decay",
    "local_modes",
    "nearest",
    "solve_sparse",
]
