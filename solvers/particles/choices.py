"""What can be chosen for a particle system, and which flow follows from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mfpde.choices import excluded
from mfpde.energy.base import EnergySum
from mfpde.energy.constraints import refuse_constraints
from mfpde.energy.internal import Power
from mfpde.energy.network import TwoLayer
from mfpde.energy.replicas import replicated
from mfpde.march import Memory, march
from mfpde.measure import DensityFunction, Particles
from mfpde.problem import Problem
from mfpde.run import Run
from mfpde.solvers.particles.batches import Batches
from mfpde.solvers.particles.descent import DescentFlow
from mfpde.solvers.particles.ensemble import split
from mfpde.solvers.particles.smooth import SmoothFlow

TABLE_TOLERANCE = 1e-9
_LEAST = 1e-13
_MOST_AXES = 3


@dataclass(frozen=True)
class ParticleFlow:
    """N atoms that follow θ̇ = −∇ξ(θ; ρ_N); at walls the outward normal velocity is removed.

    ``count`` atoms are drawn from the initial density with ``seed`` (``start`` = "random"), set at its quantiles, or ("grid") at the
    centres of so many cells, with the masses of these as weights; initial atoms are taken as they are. From some thousands of atoms on,
    networks act through tables, O(N) whatever the number of inputs, with a relative error of ``table_tolerance`` in their gradients;
    0 for none.

    Without entropy: Dormand–Prince 8(5,3) with relative and absolute ``tolerance``, unless there is a ``learning_rate`` α, with which
    the network is trained by gradient descent: θ_i ← θ_i − (α/N)∇ξ(θ_i), so that k iterations reach the time kα/N. ``batch``: by
    stochastic gradient descent on minibatches of so many inputs, drawn independently or, of samples, in shuffled ``epochs``.

    With entropy T: dθ = −∇ξ dt + √(2T) dB by Euler–Maruyama with steps of at most ``step`` or α/N, mirrored at walls (weak error
    O(step)). ``diffusion`` = "blob": entropy and powers of the density without noise, by the energies of the density mollified to a
    ``blob_width`` [Carrillo–Craig–Patacchini 2019], which is an approximation.

    Raises ValueError for numbers that are not positive and for choices that exclude one another.
    """

    count: int | None = None
    seed: int = 0
    start: Literal["random", "quantile", "grid"] = "random"
    tolerance: float = 1e-9
    step: float | None = None
    table_tolerance: float = TABLE_TOLERANCE
    learning_rate: float | None = None
    batch: int | None = None
    epochs: bool = False
    diffusion: Literal["noise", "blob"] = "noise"
    blob_width: float | None = None

    def __post_init__(self) -> None:
        if not self.table_tolerance >= 0.0:
            raise ValueError(f"table_tolerance must be positive, or 0 for no tables, got {self.table_tolerance}")
        for name in ("count", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("tolerance", "step", "learning_rate", "blob_width"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} must be positive, got {value}")
        if message := excluded(self):
            raise ValueError(message)

    def prepare(self, problem: Problem) -> SmoothFlow | DescentFlow:
        """Choose the flow. Raises ValueError where the choices do not fit the problem."""
        return self.flow_of(problem, self.first_atoms(problem))

    def solve(self, problem: Problem, stopped: Sequence[int] | None = None) -> Run:
        """March through the problem's times in memory; ``stopped`` as in ``march``."""
        memory, flow = Memory(), self.prepare(problem)
        return memory.run(*march(flow, problem.save_at, memory, stopped=stopped), flow.notes)

    def ensemble(self, problem: Problem, seeds: Sequence[int], stopped: Sequence[int] | None = None) -> list[Run]:
        """One run for each of the seeds, all of them marched at once, which takes a third of the time or less where systems are small.

        Each is as accurate as it would be alone. Their certificates are those of the whole: energies and dissipations are means.
        """
        if self.batch is not None or self.diffusion == "blob":
            return [replace(self, seed=seed).solve(problem, stopped) for seed in seeds]
        atoms = [replace(self, seed=seed).first_atoms(problem) for seed in seeds]
        together = replace(self, tolerance=max(self.tolerance / math.sqrt(len(seeds)), _LEAST), seed=_mixed(seeds))
        whole = Particles(np.concatenate([a.points for a in atoms]), np.concatenate([a.weights for a in atoms]) / len(seeds))
        flow = together.flow_of(replace(problem, energy=replicated(problem.energy, len(seeds))), whole, len(atoms[0].weights))
        memory = Memory()
        run = memory.run(*march(flow, problem.save_at, memory, stopped=stopped), flow.notes)
        return split(run, problem.energy, [a.weights for a in atoms])

    def first_atoms(self, problem: Problem) -> Particles:
        """The atoms at time 0. Raises ValueError for a missing or wrong count."""
        if not isinstance(problem.initial, DensityFunction):
            if self.count not in (None, len(problem.initial.weights)):
                raise ValueError(f"count must be left out or {len(problem.initial.weights)}, the number of initial atoms")
            return problem.initial
        if self.count is None:
            raise ValueError("particles need `count` when the initial measure is a density")
        if self.start == "quantile":
            return problem.initial.quantiles(self.count, problem.energy.layers)
        if self.start == "grid":
            if problem.domain.dimension > _MOST_AXES or problem.domain.box is not problem.domain:
                raise ValueError(f'start = "grid" is for boxes of at most {_MOST_AXES} axes; draw the atoms at random')
            return problem.initial.grid_atoms(self.count, problem.energy.layers)
        return problem.initial.sample(self.count, np.random.default_rng(self.seed))

    def flow_of(self, problem: Problem, atoms: Particles, count: int | None = None) -> SmoothFlow | DescentFlow:
        """The flow of these atoms, which are systems of ``count`` each."""
        refuse_constraints(problem.energy, "particles")
        count = count or len(atoms.weights)
        notes: list[str] = []
        if self.diffusion == "blob":
            problem = self._mollified(problem, atoms, notes)
        elif any(isinstance(term, Power) for term in problem.energy.terms.values()):
            raise ValueError('particles follow a power of the density only by the blob method: diffusion = "blob"')
        batches = None if self.batch is None else Batches.of(problem.energy, self.batch, self.epochs, self.seed)
        if self.table_tolerance:
            energy = problem.energy.tabulated(problem.domain, self.table_tolerance, count)
            problem = replace(problem, energy=energy)
        notes += _tables(problem.energy)
        step = self._step(count, notes)
        if problem.energy.temperature > 0.0 and step is None:
            raise ValueError("particles of an energy with entropy need `step`, the largest Euler–Maruyama step, e.g. 0.01")
        if problem.energy.temperature > 0.0 or self.learning_rate is not None:
            assert step is not None
            return DescentFlow(problem, atoms, step, self.seed, batches, notes)
        return SmoothFlow(problem, atoms, self.tolerance, notes)

    def _step(self, count: int, notes: list[str]) -> float | None:
        """The largest Euler step."""
        if self.learning_rate is None:
            return self.step
        notes.append(f"learning rate α = {self.learning_rate:g}: k iterations reach the time kα/N")
        return self.learning_rate / count

    def _mollified(self, problem: Problem, atoms: Particles, notes: list[str]) -> Problem:
        from mfpde.energy.blob import blob_width

        width = self.blob_width or blob_width(atoms, problem.domain)
        notes.append(f"internal energies by the blob method, an approximation: those of the density mollified to the width {width:.3g}")
        return replace(problem, energy=problem.energy.mollified(width, problem.domain))


def _mixed(seeds: Sequence[int]) -> int:
    """One seed of many, for the noise that they share."""
    return int(np.random.SeedSequence(list(seeds)).generate_state(1, np.uint64)[0] >> 1)


def _tables(energy: EnergySum) -> Sequence[str]:
    """What acts through tables, for people."""
    found = {name: getattr(term.features, "note", None) for name, term in energy.terms.items() if isinstance(term, TwoLayer)}
    return [f"{name} through {note}" for name, note in found.items() if note]
