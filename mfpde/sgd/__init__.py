"""Which minima stochastic gradient descent can stay at: linear stability in mean square, escape from unstable minima, sharpness and
non-uniformity of trained networks, and the noise that minibatches add to the mean-field limit. [slides (0.15)–(0.19); Wu, Ma, E 2018]
"""

from mfpde.sgd.batches import Batch
from mfpde.sgd.escape import TwoMinima, escapes, leaving_law
from mfpde.sgd.line import Multiplier, critical_nonuniformity, mean_square_factor, two_valued
from mfpde.sgd.linear import (
    General,
    RankOne,
    critical_rate,
    mean_square_rate,
    moment_step,
    nonuniformity,
    on_range,
    one_step_rate,
    sharpness,
)
from mfpde.sgd.mean_field import Samples, losses_of_runs, predict, spread_particles
from mfpde.sgd.network import Curvature, Network
from mfpde.sgd.solution import Solution
from mfpde.sgd.training import train

__all__ = [
    "Batch",
    "Curvature",
    "General",
    "Multiplier",
    "Network",
    "RankOne",
    "Samples",
    "Solution",
    "TwoMinima",
    "critical_nonuniformity",
    "critical_rate",
    "escapes",
    "leaving_law",
    "losses_of_runs",
    "mean_square_factor",
    "mean_square_rate",
    "moment_step",
    "nonuniformity",
    "on_range",
    "one_step_rate",
    "predict",
    "sharpness",
    "spread_particles",
    "train",
    "two_valued",
]
