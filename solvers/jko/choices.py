"""What can be chosen for minimising movements, and which flow follows from it."""

from dataclasses import dataclass
from typing import Literal

from mfpde.march import Memory, march
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.solvers.jko.flow import MovementFlow
from mfpde.solvers.jko.quantile import QuantileScheme

_MASS_CELLS = 4
_FEWEST = 4


@dataclass(frozen=True)
class MinimizingMovement:
    """ρ_{k+1} = argmin E(ρ) + W₂²(ρ, ρ_k)/(2τ), or of second order in τ by the variational BDF2 method.

    Raises ValueError for numbers out of range.
    """

    tau: float
    method: Literal["auto", "quantile"] = "auto"
    cells: tuple[int, ...] | None = None
    count: int | None = None
    order: int = 1
    tolerance: float | None = None

    def prepare(self, problem: Problem) -> MovementFlow:
        assert self.cells is not None
        count = self.count or max(_MASS_CELLS * self.cells[0], _FEWEST)
        return MovementFlow(QuantileScheme(problem, self.cells, count), self.tau, self.order, self.tolerance, ["why"])

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)
