"""Second derivatives σ'' of the activations, on whole arrays; where σ' jumps they are those of the pieces."""

import math
from collections.abc import Callable

import numpy as np

from mfpde.arrays import FloatArray


def _logistic(z: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def _tanh(z: FloatArray) -> FloatArray:
    value = np.tanh(z)
    return -2.0 * value * (1.0 - value * value)


def _sigmoid(z: FloatArray) -> FloatArray:
    share = _logistic(z)
    return share * (1.0 - share) * (1.0 - 2.0 * share)


def _softplus(z: FloatArray) -> FloatArray:
    share = _logistic(z)
    return share * (1.0 - share)


CURVATURES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "tanh": _tanh,
    "erf": lambda z: -4.0 / math.sqrt(math.pi) * z * np.exp(-z * z),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "relu": np.zeros_like,
    "gelu": lambda z: (2.0 - z * z) * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi),
    "arctan": lambda z: -2.0 * z / (1.0 + z * z) ** 2,
    "softsign": lambda z: -2.0 * np.sign(z) / (1.0 + np.abs(z)) ** 3,
    "gaussian": lambda z: (z * z - 1.0) * np.exp(-0.5 * z * z),
    "quadratic": lambda z: np.full_like(z, 2.0),
    "cos": lambda z: -np.cos(z),
    "identity": np.zeros_like,
}
"""σ'' by the name of the activation."""
