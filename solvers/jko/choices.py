"""What can be chosen for minimising movements, and which flow follows from it."""

import math
from dataclasses import dataclass
from typing import Literal

from mfpde.energy.network import TwoLayer
from mfpde.energy.potential import Potential
from mfpde.march import Memory, march
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.solvers.jko.flow import MovementFlow, Scheme
from mfpde.solvers.jko.quantile import QuantileScheme
from mfpde.solvers.jko.residual import ResidualScheme

_MASS_CELLS, _FEWEST = 4, 16
Method = Literal["auto", "quantile", "residual"]


@dataclass(frozen=True)
class MinimizingMovement:
    """ρ_{k+1} = argmin E(ρ) + W₂²(ρ, ρ_k)/(2τ) [Jordan–Kinderlehrer–Otto 1998], or of second order in τ by the variational BDF2 method.

    Steps have equal lengths of at most ``tau`` up to each saved time. ``order``: 1 or 2. ``tolerance``: instead, steps are doubled and
    halved so that W₂ between two halves of a step and the whole one is at most this; ``tau`` is the longest.

    ``method``: "quantile", densities on an interval, for internal energies, potentials, interactions and networks: Newton's method for the
    quantile function on ``count`` cells of fixed masses (default: four for each of the ``cells`` on which densities are stored).
    "residual", networks and potentials in a box of any dimension, for initial atoms, or for ``count`` atoms that stand for a density.
    "auto" chooses between them and says why in the notes.

    In a step's record ``balance`` is E_{k+1} − E_k + W₂²/(2τ), never positive at order 1, and ``dissipation`` is ∫ρ|∇δE/δρ|².
    Raises ValueError for numbers out of range.
    """

    tau: float
    method: Method = "auto"
    cells: tuple[int, ...] | None = None
    count: int | None = None
    order: int = 1
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for name in ("tau", "tolerance"):
            value = getattr(self, name)
            if value is not None and not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if self.method not in ("auto", "quantile", "residual"):
            raise ValueError(f"method must be auto, quantile or residual, got {self.method!r}")
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")

    def prepare(self, problem: Problem) -> MovementFlow:
        """Choose the method. Raises ValueError where the choices do not fit the problem."""
        method, why = self._chosen(problem)
        scheme: Scheme = self._quantile(problem) if method == "quantile" else self._residual(problem)
        return MovementFlow(scheme, self.tau, self.order, self.tolerance, [f"method {method}{why}"])

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)

    def _chosen(self, problem: Problem) -> tuple[str, str]:
        """The method, and why it was chosen."""
        if self.method != "auto":
            return self.method, ""
        domain = problem.domain
        interval = domain.dimension == 1 and domain.box is domain and not (domain.periodic[0] or domain.frozen[0])
        others = [name for name, term in problem.energy.terms.items() if not isinstance(term, TwoLayer | Potential)]
        if interval and isinstance(problem.initial, DensityFunction) and (self.cells is not None or others):
            return "quantile", ": a density on an interval, where W2 is the distance of quantile functions"
        if others:
            where = "atoms" if interval else "densities on other domains than intervals"
            raise ValueError(f"no method of minimising movements moves {where} with {', '.join(others)}; use finite_volume or particles")
        return "residual", ": networks and potentials alone, where a step is a problem in as many unknowns as there are features"

    def _quantile(self, problem: Problem) -> QuantileScheme:
        if self.cells is None:
            raise ValueError('method = "quantile" needs `cells`, the grid on which densities are stored')
        if len(self.cells) != 1:
            raise ValueError(f'method = "quantile" is for one axis, got {len(self.cells)} numbers of cells')
        count = self.count or max(_MASS_CELLS * self.cells[0], _FEWEST)
        if count < _FEWEST:
            raise ValueError(f'method = "quantile" needs at least {_FEWEST} mass cells, got count = {count}')
        return QuantileScheme(problem, self.cells, count)

    def _residual(self, problem: Problem) -> ResidualScheme:
        if self.cells is not None:
            raise ValueError('method = "residual" moves atoms, which have no `cells`; leave them out, or use method = "quantile"')
        return ResidualScheme(problem, self.count)
