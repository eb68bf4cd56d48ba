"""Two-layer relu networks f = Σ_j a_j relu(b_j·x) and f = (1/m) Σ_j a_j relu(b_j·x) in training, beside the random-feature model.

Risks, in closed form for Gaussian inputs and inputs on spheres or over samples; gradient flow and gradient descent; what becomes of
neurons. [slides (0.12)–(0.14); E, Ma, Wu 2019, 2020]
"""

from mfpde.scaling.flow import GradientDescent, GradientFlow, Moment, train
from mfpde.scaling.inputs import GaussianInputs, Inputs, SphereInputs
from mfpde.scaling.kernel import circle_overlap, relu_kernel, square_norm
from mfpde.scaling.network import Network, Scaling, distance, start
from mfpde.scaling.random_features import RandomFeatures
from mfpde.scaling.risks import EmpiricalRisk, PopulationRisk, Risk
from mfpde.scaling.targets import Circle, Neurons, Target

__all__ = [
    "Circle",
    "EmpiricalRisk",
    "GaussianInputs",
    "GradientDescent",
    "GradientFlow",
    "Inputs",
    "Moment",
    "Network",
    "Neurons",
    "PopulationRisk",
    "RandomFeatures",
    "Risk",
    "Scaling",
    "SphereInputs",
    "Target",
    "circle_overlap",
    "distance",
    "relu_kernel",
    "square_norm",
    "start",
    "train",
]
