"""What a distance comes with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Distance:
    """A distance, the error that its method can have made (``floor``; 0 where it is exact), and the ``method`` in words.

    For transport between atoms the floor is a bound: how far mass was moved to reach the atoms (triangle inequality). Entropic
    transport moves mass to the nodes of a grid and adds how far its value is from bounds on both sides. Sliced distances have two
    standard errors of the mean over the directions, which is likely enough but no bound, and the way to fine bins.
    """

    value: float
    floor: float
    method: str
