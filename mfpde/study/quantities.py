"""What a particle limit measures, and what its table says about it."""

from dataclasses import dataclass

from mfpde.energy import Entropy, Power, TwoLayer
from mfpde.problem import Problem


@dataclass(frozen=True)
class Row:
    """What a table says about one quantity: a statistic of the runs, and the slope that theory expects of it."""

    key: str
    quantity: str
    statistic: str
    name: str
    guide: float


ROWS = (
    Row("w2", "w2", "mean", "W2", -0.5),
    Row("w1", "w1", "mean", "W1", -0.5),
    Row("sliced", "sliced", "mean", "sliced W2", -0.5),
    Row("function", "function", "mean", "function", -0.5),
    Row("barycentre", "barycentre", "mean", "barycentre", -0.5),
    Row("variance", "variance", "absolute", "|variance gap|", -0.5),
    Row("loss", "loss", "absolute", "|loss gap|", -0.5),
    Row("loss_spread", "loss", "spread", "loss spread", -0.5),
    Row("loss_mean", "loss", "bias", "|loss mean|", -1.0),
)
QUANTITIES = ("w2", "w1", "sliced", "function", "barycentre", "variance", "loss")


def known_quantities(problem: Problem) -> tuple[str, ...]:
    """Those that the problem has: functions need a network, barycentres and variances axes that are no circles."""
    has = {"function": any(isinstance(term, TwoLayer) for term in problem.energy.terms.values()), "loss": bool(loss_terms(problem))}
    flat = not problem.domain.periodic.any()
    has |= {"barycentre": flat, "variance": flat, "sliced": len(problem.domain.moving) > 1 and flat}
    return tuple(name for name in QUANTITIES if has.get(name, True))


def usual_quantities(problem: Problem) -> tuple[str, ...]:
    """Those that are measured unless others are asked for: in several dimensions W₂ costs much and falls like the mesh of an
    empirical measure, so that the sliced distance takes its place."""
    left_out = {"variance"} | ({"w2", "w1"} if "sliced" in known_quantities(problem) else set())
    return tuple(name for name in known_quantities(problem) if name not in left_out)


def loss_terms(problem: Problem) -> tuple[str, ...]:
    """The terms of the energy that atoms have: all but internal energies."""
    return tuple(name for name, term in problem.energy.terms.items() if not isinstance(term, Entropy | Power))
