"""Activation functions σ with their derivatives, evaluated on whole arrays."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray

Pair = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Activation:
    """σ and σ'. ``pair(z)`` returns both and may reuse z.

    ``pole`` is the distance of the nearest singularity from the real line (infinite for entire functions, where ``pole`` is
    replaced by the width on which the function varies); ``kink`` says that a derivative jumps at z = 0, ``everywhere`` that the
    function goes on varying far from z = 0.
    """

    name: str
    value: Callable[[FloatArray], FloatArray]
    pair: Callable[[FloatArray], Pair]
    pole: float = 1.0
    kink: bool = False
    everywhere: bool = False


def _tanh_pair(z: FloatArray) -> Pair:
    value = np.tanh(z)
    return value, 1.0 - value * value


def _sigmoid(z: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def _sigmoid_pair(z: FloatArray) -> Pair:
    half = np.tanh(0.5 * z)
    return 0.5 * (1.0 + half), 0.25 * (1.0 - half * half)


def _erf(z: FloatArray) -> FloatArray:
    from scipy.special import erf

    return np.asarray(erf(z))


def _erf_pair(z: FloatArray) -> Pair:
    return _erf(z), np.exp(-z * z) * (2.0 / math.sqrt(math.pi))


def _softplus(z: FloatArray) -> FloatArray:
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def _softplus_pair(z: FloatArray) -> Pair:
    return _softplus(z), _sigmoid(z)


def _relu_pair(z: FloatArray) -> Pair:
    return np.maximum(z, 0.0), (z > 0.0).astype(float)


def _normal_cdf(z: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def _gelu_pair(z: FloatArray) -> Pair:
    cdf = _normal_cdf(z)
    return z * cdf, cdf + z * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _softsign_pair(z: FloatArray) -> Pair:
    scale = 1.0 / (1.0 + np.abs(z))
    return z * scale, scale * scale


def _gaussian_pair(z: FloatArray) -> Pair:
    value = np.exp(-0.5 * z * z)
    return value, -z * value


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("tanh", np.tanh, _tanh_pair, pole=0.5 * math.pi),
        Activation("erf", _erf, _erf_pair),
        Activation("sigmoid", _sigmoid, _sigmoid_pair, pole=math.pi),
        Activation("softplus", _softplus, _softplus_pair, pole=math.pi),
        Activation("relu", lambda z: np.maximum(z, 0.0), _relu_pair, kink=True),
        Activation("gelu", lambda z: z * _normal_cdf(z), _gelu_pair),
        Activation("arctan", np.arctan, lambda z: (np.arctan(z), 1.0 / (1.0 + z * z))),
        Activation("softsign", lambda z: z / (1.0 + np.abs(z)), _softsign_pair, kink=True),
        Activation("gaussian", lambda z: np.exp(-0.5 * z * z), _gaussian_pair),
        Activation("quadratic", lambda z: z * z, lambda z: (z * z, 2.0 * z), pole=math.inf),
        Activation("cos", np.cos, lambda z: (np.cos(z), -np.sin(z)), pole=4.0, everywhere=True),
        Activation("identity", lambda z: np.array(z), lambda z: (np.array(z), np.ones_like(z)), pole=math.inf),
    )
}
