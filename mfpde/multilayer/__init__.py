"""Networks of many layers in training and their limits of infinite width: propagation of chaos, the collapse of the depth under 1/m, and
what becomes of it under 1/√m and with residual blocks. [slides (0.10), Theorem 6; Araújo, Oliveira, Yukimura 2019]

A two-layer network is a measure of neurons on one Ω, which grids and particles of the other solvers move. In a deeper one a weight w_ij
belongs to a pair of neurons, so the state is a law on neurons of each layer and on pairs of them, no measure on one Ω. What takes the
place of a grid are the classes of neurons that the limit still tells apart (mfpde.multilayer.limit).
"""

from mfpde.multilayer.laws import Law
from mfpde.multilayer.layered import Layered
from mfpde.multilayer.limit import layered_limit, residual_limit
from mfpde.multilayer.march import Moment, train
from mfpde.multilayer.residual import Residual
from mfpde.multilayer.starts import Scaling, Task, Weights, layered_start, residual_start

__all__ = [
    "Law",
    "Layered",
    "Moment",
    "Residual",
    "Scaling",
    "Task",
    "Weights",
    "layered_limit",
    "layered_start",
    "residual_limit",
    "residual_start",
    "train",
]
