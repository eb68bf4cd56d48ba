"""Energies: functionals of a measure with a value, a first variation and its gradient."""

from mfpde.energy.activations import ACTIVATIONS, Activation
from mfpde.energy.base import Energy, EnergySum, GridEnergy
from mfpde.energy.incompressible import Incompressible
from mfpde.energy.inputs import Circle, InputLaw, Normal, Samples, Uniform
from mfpde.energy.interaction import Interaction
from mfpde.energy.internal import Entropy, Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.networks import Neurons, closed_two_layer, two_layer
from mfpde.energy.pair_kernel import PairKernel
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.potential import Potential
from mfpde.energy.resnets import ensemble_resnet, stationary_residual
from mfpde.energy.wide_resnets import WideResNet, wide_resnet

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Circle",
    "Energy",
    "EnergySum",
    "Entropy",
    "GridEnergy",
    "Incompressible",
    "InputLaw",
    "Interaction",
    "Neurons",
    "Normal",
    "PairKernel",
    "PairNetwork",
    "Potential",
    "Power",
    "Samples",
    "TwoLayer",
    "Uniform",
    "WideResNet",
    "closed_two_layer",
    "ensemble_resnet",
    "stationary_residual",
    "two_layer",
    "wide_resnet",
]
