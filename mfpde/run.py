"""What every solver returns: a ``Run``, with the certificate of every step and a ``Status``."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.measure import Measure


class Status(Enum):
    """How a run ended; the value is the advice that goes with it."""

    DONE = "all the times were reached"
    INTERRUPTED = "stopped from outside; run again with --resume to go on"
    STEP_TOO_SMALL = "no admissible step was left; loosen the tolerance, refine the grid or look at the last saved state"
    NOT_CONVERGED = (
        "the iteration did not converge; use a smaller step, more cells or a looser tolerance; for stationary states other starts"
    )
    NOT_FINITE = "a value became infinite or undefined; shrink the domain, the step or the coefficients"


class StepFailed(Exception):
    """Raised by a solver's ``advance`` when a step cannot be made; ``march`` turns it into the run's status."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


WARNING = "warning: "
"""How a note begins that asks for attention."""

WALL_ADVICE = (
    'widen the domain until this no longer changes the result, or write walls = "model" in [domain.…] if they are part of the model'
)
"""What to do where mass gathers at walls."""

STEP_FIELDS = ("time", "dt", "energy", "mass", "minimum", "dissipation", "balance", "wall", "iterations")


@dataclass(frozen=True)
class StepRecord:
    """The certificate of one step: the state at its end (minimum: least cell average or weight) and ∫ρ|∇δE/δρ|² there.

    ``balance``: the energy's change plus the dissipation over the step by the trapezoidal rule, which is what is left of the
    dissipation identity. ``wall``: the share of the mass at walls that are not part of the model. ``iterations``: linear systems solved.
    """

    time: float
    dt: float
    energy: float
    mass: float
    minimum: float
    dissipation: float
    balance: float = 0.0
    wall: float = 0.0
    iterations: float = 0.0

    def row(self) -> tuple[float, ...]:
        """The fields in the order of STEP_FIELDS."""
        return tuple(getattr(self, name) for name in STEP_FIELDS)


@dataclass(frozen=True, eq=False)
class Certificate:
    """The records of all steps as columns, (S,) each; the first row is the initial state with dt = 0."""

    rows: FloatArray

    def __getitem__(self, name: str) -> FloatArray:
        return np.asarray(self.rows[:, STEP_FIELDS.index(name)])

    def __len__(self) -> int:
        return len(self.rows)

    def energy_rise(self) -> float:
        """Largest increase of the energy in a step, relative to the largest energy, or to 1e-3 where that is smaller (terms that
        cancel leave round-off behind); not positive if it never rose."""
        energy = self["energy"]
        if len(energy) < 2 or not np.isfinite(energy).all():
            return float("nan")
        return float(np.max(np.diff(energy)) / max(float(np.max(np.abs(energy))), 1e-3))

    def mass_drift(self) -> float:
        """Largest deviation of the mass from its initial value, relative to it."""
        mass = self["mass"]
        return float(np.max(np.abs(mass - mass[0])) / abs(mass[0]))


@dataclass(frozen=True, eq=False)
class Run:
    """The measures at the saved ``times`` (T,), the energy of each term there (T,), and how the run went.

    ``tables``: what else a solver has found, as columns "group/name" whose rows belong together within a group. ``series``: what stored
    runs record at the saved times besides energies, each (T,), or (T, N) for particles one by one.
    """

    times: FloatArray
    measures: list[Measure]
    energy: dict[str, FloatArray]
    certificate: Certificate
    status: Status
    message: str = ""
    notes: tuple[str, ...] = field(default=())
    tables: dict[str, FloatArray] = field(default_factory=dict)
    series: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def final(self) -> Measure:
        """The last saved measure. Raises IndexError if nothing was saved."""
        return self.measures[-1]

    @property
    def total_energy(self) -> FloatArray:
        """The sum of the terms at the saved times, (T,)."""
        return np.asarray(sum(self.energy.values()), dtype=float)
