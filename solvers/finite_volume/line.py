"""Flows on one line between walls, evaluated and marched by compiled loops alone."""

from collections.abc import Sequence

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Grid
from mfpde.energy.base import GridEnergy
from mfpde.energy.interaction import GridInteraction
from mfpde.energy.internal import GridEntropy, GridPower
from mfpde.energy.low_rank import LowRank
from mfpde.energy.potential import GridPotential
from mfpde.energy.recursion import ExponentialRecursion
from mfpde.run import STEP_FIELDS
from mfpde.solvers.finite_volume.evaluation import Evaluation
from mfpde.solvers.finite_volume.flux import Flux, ScharfetterGummel, Upwind
from mfpde.solvers.kernels.line import form as kernels
from mfpde.solvers.kernels.line import march as marching

_FEWEST_CELLS = 3
_MOST_ROWS = 16
_WORK = 1 << 17
_MOST_STEPS = 128
_MOST_COUPLED = 1 << 17


class Line:
    """The compiled form of a flow whose energy is entropy, powers, potentials, and interactions that are exponential or of low rank."""

    def __init__(self, grid: Grid, terms: Sequence[GridEnergy], slopes: float, wall: np.ndarray) -> None:
        size = grid.size
        powers = [term for term in terms if isinstance(term, GridPower)]
        operators = [term.operator for term in terms if isinstance(term, GridInteraction)]
        exponentials = [operator.weights for operator in operators if isinstance(operator, ExponentialRecursion)]
        low_rank = [operator for operator in operators if isinstance(operator, LowRank)]
        touching = np.zeros(size)
        touching[wall] = 1.0
        fixed = sum((term.values for term in terms if isinstance(term, GridPotential)), np.zeros(size))
        temperature = sum(term.temperature for term in terms)
        linear = slopes == kernels.FITTED and not powers and not operators
        self.form = kernels.Form(
            fixed=fixed,
            exponents=np.array([term.exponent for term in powers]),
            coefficients=np.array([term.coefficient for term in powers]),
            exponentials=np.array(exponentials).reshape(-1, 4),
            means=np.array([operator.mean_part for operator in low_rank]).reshape(-1, size),
            rows=np.concatenate([np.zeros((0, size)), *(operator.own_rows for operator in low_rank)]),
            signs=np.concatenate([np.zeros(0), *(operator.own_signs for operator in low_rank)]),
            forth=kernels.bernoullis(np.diff(fixed) / temperature) if linear else np.zeros(0),
            wall=touching,
            spacing=float(grid.spacing[0]),
            temperature=temperature,
            slopes=slopes,
        )
        self._work = np.empty((3, size))

    @staticmethod
    def fitting(grid: Grid, terms: Sequence[GridEnergy], flux: Flux, wall: np.ndarray) -> "Line | None":
        """The compiled form of a flow that has one."""
        plain = type(grid) is Grid and len(grid.cells) == 1 and len(grid.moving) == 1 and not grid.periodic(0)
        slopes = kernels.FITTED if isinstance(flux, ScharfetterGummel) else flux.slopes if isinstance(flux, Upwind) else None
        if not plain or grid.size < _FEWEST_CELLS or slopes is None or not all(_is_known(term) for term in terms):
            return None
        return Line(grid, terms, slopes, wall)

    def evaluate(self, rho: FloatArray, rate: FloatArray) -> Evaluation:
        """Fill the rate; the magnitude includes ∫|ξ|ρ and T∫ρ."""
        energy, outflow, dissipation, round_off = kernels.evaluate(rho, self.form, self._work, rate)
        return Evaluation(energy, round_off, outflow, dissipation)

    def march(
        self, rho: FloatArray, rate: FloatArray, scalars: FloatArray, until: float, total: float, tolerance: float, precision: float
    ) -> FloatArray:
        """Make some steps towards ``until``, in place; their records, (steps, fields). ``total`` is the sum over the cells to keep.

        None where the room for Krylov vectors would be large: nothing is gained there. See ``mfpde.solvers.kernels.line.march``.
        """
        if rho.size > _MOST_COUPLED and self.form.exponentials.size + self.form.means.size + self.form.signs.size > 0:
            return np.empty((0, len(STEP_FIELDS)))
        rows = np.empty((max(1, min(_MOST_STEPS, _WORK // rho.size)), len(STEP_FIELDS)))
        if self.form.forth.size:
            made = marching.march_linear(rho, rate, scalars, self.form, until, total, tolerance, rows)
        else:
            made = marching.march_newton(rho, rate, scalars, self.form, until, total, tolerance, precision, rows)
        return rows[:made]


def _is_known(term: GridEnergy) -> bool:
    if not isinstance(term, GridInteraction):
        return isinstance(term, GridEntropy | GridPower | GridPotential)
    operator = term.operator
    return isinstance(operator, ExponentialRecursion) or (isinstance(operator, LowRank) and len(operator.signs) <= _MOST_ROWS)
