"""Two-layer networks of normal inputs by sums over all pairs of neurons, exact in any dimension."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Domain, Grid
from mfpde.energy.base import GridEnergy
from mfpde.energy.examples import Examples
from mfpde.energy.features import Parameters
from mfpde.energy.gaussian_kernels import GaussianKernel, KernelFeatures
from mfpde.energy.network import TwoLayer, batch_energy
from mfpde.energy.outputs import Imbalance, Outputs
from mfpde.measure import Atoms, Measure, Particles

_MOST_ON_GRIDS = 2048


@dataclass(frozen=True, eq=False)
class PairNetwork:
    """½∬k dπ dπ with π = wρ − ρ*, summed over the outputs: k is a ``kernel`` in closed form, ρ* the teacher's neurons, with ``vectors``
    (J, D) and ``masses`` (J, k). N neurons take (N + J)² values of k. Values below round-off of ½∬k dρ dρ are not resolved, and
    never negative. Build it with ``closed_two_layer``."""

    kernel: GaussianKernel
    parameters: Parameters
    neurons: Domain
    outputs: Outputs
    vectors: FloatArray
    masses: FloatArray
    description: str
    student_at: Callable[[Atoms, FloatArray], FloatArray]
    examples: Examples
    imbalance: Imbalance | None = None
    temperature: float = 0.0

    @staticmethod
    def of(
        kernel: GaussianKernel,
        parameters: Parameters,
        neurons: Domain,
        outputs: Outputs,
        teacher: Sequence[Particles],
        student_at: Callable[[Atoms, FloatArray], FloatArray],
        examples: Examples,
        imbalance: Imbalance | None,
    ) -> "PairNetwork":
        """For one teacher an output."""
        vectors = np.concatenate([parameters.vectors(atoms.points) for atoms in teacher])
        masses, start = np.zeros((len(vectors), len(teacher))), 0
        for m, atoms in enumerate(teacher):
            masses[start : start + len(atoms.weights), m] = atoms.weights
            start += len(atoms.weights)
        described = f"closed form of the {kernel.activation} kernel for normal inputs, summed over all pairs of neurons"
        return PairNetwork(kernel, parameters, neurons, outputs, vectors, masses, described, student_at, examples, imbalance)

    @property
    def teacher_at(self) -> Callable[[FloatArray], FloatArray] | None:
        """The target y at inputs (Q, D)."""
        return self.examples.target_at

    @property
    def data(self) -> None:
        """None: the target is a network."""
        return

    def value(self, measure: Measure) -> float:
        """½∬k dπ dπ."""
        return self._energy(*self._signed(measure, -self.masses))

    def square_gap(self, one: Measure, other: Measure) -> float:
        """E_x of the squared difference of what two measures compute."""
        first, second = self._atoms(one.points, one.weights), self._atoms(other.points, other.weights)
        return 2.0 * self._energy(np.concatenate([first[0], second[0]]), np.concatenate([first[1], -second[1]]))

    def first_variation(self, measure: Measure, at: FloatArray) -> FloatArray:
        """Σ_m w_m ∫k(θ, ·)dπ_m at points (M, d), as (M,)."""
        vectors, weights = self._atoms(at, np.ones(len(at)))
        sums = self.kernel.sums(vectors, *self._signed(measure, -self.masses))
        return np.asarray(np.sum(sums * weights, axis=1))

    def gradient(self, measure: Measure, at: FloatArray) -> FloatArray:
        """∇ of the first variation at points (M, d), as (M, d)."""
        return self._slopes(self._signed(measure, -self.masses), at)[1]

    def value_and_gradient(self, measure: Measure) -> tuple[float, FloatArray]:
        """Both at the measure's own points, where the pairs of its neurons are met once."""
        signed = self._signed(measure, -self.masses)
        sums, slopes = self._slopes(signed, measure.points)
        teacher = self.kernel.sums(self.vectors, *signed)
        own = signed[1][: len(measure.weights)]
        return max(0.5 * float(np.sum(own * sums) - np.sum(self.masses * teacher)), 0.0), slopes

    def on(self, grid: Grid) -> GridEnergy:
        """Features of the kernel at the cells' neurons and the teacher's. Raises ValueError where there would be too many."""
        count = self.outputs.count if self.outputs.trained else 0
        inner = grid.size // int(np.prod(grid.cells[grid.domain.dimension - count :], dtype=int))
        points = np.ascontiguousarray(grid.centers.reshape(inner, -1, grid.domain.dimension)[:, 0, : self.neurons.dimension])
        features = KernelFeatures.of(self.kernel, self.parameters, points, None, _MOST_ON_GRIDS)
        if features is None:
            raise ValueError(f"the kernel at {inner} cells needs more than {_MOST_ON_GRIDS} features; use fewer cells")
        sees = features.of_vectors(self.vectors)
        target = np.ravel((sees @ self.masses).T)
        constant = max(self._energy(self.vectors, self.masses) - 0.5 * float(target @ target), 0.0)
        whole = self.outputs.features(features, self.neurons)
        return TwoLayer(whole, target, constant, self.description, self.student_at).on(grid)

    @property
    def size(self) -> int | None:
        """None: the inputs are a law."""
        return self.examples.size

    def draw(self, generator: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
        """As of ``TwoLayer``."""
        return self.examples.draw(generator, count)

    def rows(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Raises ValueError: there are no samples."""
        return self.examples.rows(indices)

    def batch(self, inputs: FloatArray, targets: FloatArray) -> TwoLayer:
        """As of ``TwoLayer``."""
        return batch_energy(self, inputs, targets)

    def _atoms(self, points: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vectors (N, D) and the weights (N, k) with which they add up in the outputs."""
        if self.outputs.plain:
            return self.parameters.vectors(points), weights[:, None]
        parts = self.outputs.parts(points, weights)
        return self.parameters.vectors(parts[0][0]), np.stack([part for _, part in parts], axis=1)

    def _signed(self, measure: Measure, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """π: the measure's neurons, then the teacher's."""
        vectors, weights = self._atoms(measure.points, measure.weights)
        return np.concatenate([vectors, self.vectors]), np.concatenate([weights, masses])

    def _energy(self, vectors: FloatArray, masses: FloatArray) -> float:
        return max(0.5 * float(np.sum(masses * self.kernel.sums(vectors, vectors, masses))), 0.0)

    def _slopes(self, signed: tuple[FloatArray, FloatArray], at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """∫k(θ, ·)dπ (M, k), and the gradient of the first variation, (M, d)."""
        vectors, weights = self._atoms(at, np.ones(len(at)))
        sums, slopes = self.kernel.sums_and_slopes(vectors, *signed, weights)
        width = self.neurons.dimension
        along = self.parameters.pull(np.ascontiguousarray(at[:, :width]), slopes)
        return sums, np.concatenate([along, sums], axis=1) if self.outputs.trained else along
