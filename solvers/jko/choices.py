"""What can be chosen for minimising movements, and which flow follows from it."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mfpde.energy.constraints import constraint, refuse_constraints
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.potential import Potential
from mfpde.march import Memory, march
from mfpde.measure import DensityFunction
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.solvers.jko import rules
from mfpde.solvers.jko.flow import MovementFlow, Scheme

_MASS_CELLS, _FEWEST = 4, 16
Method = Literal["auto", "quantile", "residual", "lagrangian", "transport", "entropic", "back_and_forth"]
METHODS: tuple[str, ...] = get_args(Method)
_ATOMS = ("residual", "lagrangian")
_SECOND = ("quantile", *_ATOMS)


@dataclass(frozen=True)
class MinimizingMovement:
    """ρ_{k+1} = argmin E(ρ) + W₂²(ρ, ρ_k)/(2τ) [Jordan–Kinderlehrer–Otto 1998], or of second order in τ by the variational BDF2 method.

    Steps have equal lengths of at most ``tau`` up to each saved time. ``order``: 1 or 2 (quantile and atoms). ``tolerance``: instead,
    steps are doubled and halved so that W₂ between two halves of a step and the whole one is at most this; ``tau`` is the longest
    (not with transport, where short steps move nothing).

    ``method``: "quantile", densities on an interval or circle, for internal energies, potentials, interactions and networks: Newton's
    method for the quantile function on ``count`` cells of fixed masses (default: four for each of the ``cells`` on which densities are
    stored). Atoms move in a box of any dimension, the initial ones or ``count`` that stand for a density: "residual", for networks and
    potentials, in as many unknowns as there are features; "lagrangian", for any energy that is finite on atoms, in their positions. The
    others move densities on ``cells``: "transport" by exact transport between the cells, with the duality gap ``accuracy`` relative to
    the energy; "entropic" by Sinkhorn's scaling with the regularisation ``epsilon`` (default: tied to tau and the cells), ``debiased``
    or not, until marginals are met to ``accuracy``; "back_and_forth", internal energies and potentials in boxes with walls of one or
    two dimensions, until the dual problem's residual is ``accuracy`` of the mass.
    "auto" chooses between them and says why in the notes.

    In a step's record ``balance`` is E_{k+1} − E_k + W₂²/(2τ), never positive at order 1 but for what a method's own W₂ misses, and
    ``dissipation`` is ∫ρ|∇δE/δρ|². Raises ValueError for numbers out of range.
    """

    tau: float
    method: Method = "auto"
    cells: tuple[int, ...] | None = None
    count: int | None = None
    order: int = 1
    tolerance: float | None = None
    accuracy: float | None = None
    epsilon: float | None = None
    debiased: bool | None = None

    def __post_init__(self) -> None:
        for name in ("tau", "tolerance", "accuracy", "epsilon"):
            value = getattr(self, name)
            if value is not None and not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")

    def prepare(self, problem: Problem) -> MovementFlow:
        """Choose the method. Raises ValueError where the choices do not fit the problem."""
        self.check(problem)
        method, why = self.chosen(problem)
        return MovementFlow(self._scheme(method, problem), self.tau, self.order, self.tolerance, [f"method {method}{why}"])

    def check(self, problem: Problem) -> None:
        """Raises ValueError where the choices do not fit the problem; computes nothing."""
        method, _ = self.chosen(problem)
        self._check_keys(method)
        if method != "back_and_forth":
            refuse_constraints(problem.energy, f'method = "{method}"')
        if method in _ATOMS:
            rules.check_residual(problem) if method == "residual" else rules.check_lagrangian(problem)
            if self.cells is not None:
                raise ValueError(f'method = "{method}" moves atoms, which have no `cells`; leave them out, or use another method')
            if isinstance(problem.initial, DensityFunction) and self.count is None:
                raise ValueError("the key `count` is missing: about how many atoms stand for the initial density")
            return
        if self.cells is None:
            raise ValueError(f'the key `cells` is missing: method = "{method}" needs a grid of densities, e.g. cells = [256]')
        if method == "quantile":
            rules.check_quantile(problem, self._mass_cells())
        elif method == "transport":
            rules.check_transport(problem, self.cells)
        elif method == "entropic":
            rules.check_entropic(problem, self.cells, self.epsilon)
        else:
            rules.check_back_and_forth(problem, self.cells)

    def solve(self, problem: Problem) -> Run:
        """March through the problem's times in memory."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory), flow.notes)

    def chosen(self, problem: Problem) -> tuple[str, str]:
        """The method, and why it was chosen. Raises ValueError where none moves this measure with this energy."""
        if self.method != "auto":
            return self.method, ""
        domain = problem.domain
        density, box = isinstance(problem.initial, DensityFunction), domain.box is domain
        if (found := constraint(problem.energy)) is not None:
            return "back_and_forth", f": the one that keeps to {found}"
        line = domain.dimension == 1 and box and not domain.frozen[0]
        terms = problem.energy.terms
        others = [name for name, term in terms.items() if not isinstance(term, TwoLayer | Potential)]
        by_atoms = rules.atoms_will_do(problem) if self.cells is None else None
        if by_atoms == "lagrangian":
            names = ", ".join(others) or "many features"
            return by_atoms, f": without `cells` atoms are moved, for {names} by their positions themselves"
        if line and density and (self.cells is not None or others):
            where = "a circle" if domain.periodic[0] else "an interval"
            return "quantile", f": a density on {where}, where W2 is the distance of quantile functions"
        if self.cells is None:
            if others:
                words = f"with {', '.join(others)}, minimising movements are of densities on a grid, e.g. cells = [256]"
                raise ValueError(f"the key `cells` is missing: {words}")
            return "residual", ": networks and potentials alone, where a step is a problem in as many unknowns as there are features"
        if all(isinstance(term, Entropy | Power | Potential) for term in terms.values()) and others and self._walled(problem):
            return "back_and_forth", ": internal energies and potentials in a box with walls, where W2 has fast transforms"
        return "entropic", ": an energy or a domain for which only it and transport, which needs steps of several cells, are"

    @staticmethod
    def _walled(problem: Problem) -> bool:
        domain = problem.domain
        return domain.box is domain and domain.dimension <= 2 and not (domain.periodic.any() or domain.frozen.any())

    def _check_keys(self, method: str) -> None:
        """Raises ValueError for choices that the method does not know."""
        known = {
            "count": _SECOND,
            "epsilon": ("entropic",),
            "debiased": ("entropic",),
            "accuracy": ("transport", "entropic", "back_and_forth"),
        }
        for name, methods in known.items():
            if getattr(self, name) is not None and method not in methods:
                raise ValueError(f"{name} is for method = {' or '.join(methods)}, and the method is {method}; leave it out")
        if self.tolerance is not None and method == "transport":
            raise ValueError(
                "tolerance halves steps, but method = transport moves mass by whole cells, so that short steps all move none; "
                "leave it out and choose tau, or use another method"
            )
        if self.order == 2 and method not in _SECOND:
            raise ValueError(f"order = 2 is for method = {' or '.join(_SECOND)}, and the method is {method}")

    def _scheme(self, method: str, problem: Problem) -> Scheme:
        if method == "residual":
            from mfpde.solvers.jko.residual import ResidualScheme

            return ResidualScheme(problem, self.count)
        if method == "lagrangian":
            from mfpde.solvers.jko.lagrangian import LagrangianScheme

            return LagrangianScheme(problem, self.count)
        assert self.cells is not None  # by check
        if method == "quantile":
            from mfpde.solvers.jko.quantile import QuantileScheme

            return QuantileScheme(problem, self.cells, self._mass_cells())
        if method == "transport":
            from mfpde.solvers.jko.transport import TransportScheme

            return TransportScheme(problem, self.cells, self.accuracy)
        if method == "entropic":
            from mfpde.solvers.jko.entropic import EntropicScheme

            return EntropicScheme(problem, self.cells, self.tau, self.accuracy, self.epsilon, self.debiased)
        from mfpde.solvers.jko.boxes import BackAndForthScheme

        return BackAndForthScheme(problem, self.cells, self.accuracy)

    def _mass_cells(self) -> int:
        """How many cells of fixed masses the quantile function has. Raises ValueError for too few, and for grids of several axes."""
        assert self.cells is not None
        if len(self.cells) != 1:
            raise ValueError(f'method = "quantile" is for one axis, got {len(self.cells)} numbers of cells')
        count = self.count or max(_MASS_CELLS * self.cells[0], _FEWEST)
        if count < _FEWEST:
            raise ValueError(f'method = "quantile" needs at least {_FEWEST} mass cells, got count = {count}')
        return count
