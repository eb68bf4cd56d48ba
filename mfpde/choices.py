"""Choices that exclude one another or that no run ends with, for case files and for Python alike."""

from typing import Protocol

MOST_STEPS = 1e9
"""Of one length, beyond which a run would not end."""


class ParticleChoices(Protocol):
    """What there is to choose."""

    @property
    def step(self) -> float | None:
        """Largest Euler–Maruyama step."""

    @property
    def learning_rate(self) -> float | None:
        """Of gradient descent."""

    @property
    def batch(self) -> int | None:
        """Inputs of a minibatch."""

    @property
    def epochs(self) -> bool:
        """Whether minibatches are drawn without replacement."""

    @property
    def diffusion(self) -> str:
        """noise or blob."""

    @property
    def blob_width(self) -> float | None:
        """Width of the mollifier."""


def excluded(chosen: ParticleChoices) -> str:
    """Which choices exclude one another, in words; empty if none do."""
    if chosen.learning_rate is not None and chosen.step is not None:
        return "`learning_rate` and `step` both say how long a step is; leave one of them out"
    if chosen.batch is not None and chosen.learning_rate is None:
        return "`batch` goes with `learning_rate`: minibatches are for gradient descent"
    if chosen.epochs and chosen.batch is None:
        return "`epochs` says how minibatches are drawn, so it goes with `batch`"
    if chosen.blob_width is not None and chosen.diffusion != "blob":
        return '`blob_width` goes with diffusion = "blob"'
    return ""
