"""Frames, step rows and measures as they lie in the file of a part and in a result."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from mfpde.arrays import FloatArray
from mfpde.domain import Domain
from mfpde.march import Frame
from mfpde.measure import Density, Measure, Particles
from mfpde.run import STEP_FIELDS
from mfpde.storage.datasets import numbers


@dataclass(frozen=True, eq=False)
class Chunk:
    """Frames and step rows, (S, fields), that follow one another."""

    frames: list[Frame]
    rows: FloatArray

    @staticmethod
    def of(frames: list[Frame], rows: Sequence[Sequence[float]]) -> "Chunk":
        """From the rows of the single steps."""
        return Chunk(frames, np.array(rows, dtype=float).reshape(-1, len(STEP_FIELDS)))

    @property
    def terms(self) -> list[str]:
        """The names of the energy terms, none without frames."""
        return list(self.frames[0].energies) if self.frames else []

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes in a file."""
        if not self.frames:
            return self.rows.nbytes
        return self.rows.nbytes + len(self.frames) * sum(values.nbytes for values in measure_arrays(self.frames[0].measure).values())

    def times(self) -> FloatArray:
        """The times of the frames, (T,)."""
        return np.array([frame.time for frame in self.frames], dtype=float)

    def energy(self, term: str) -> FloatArray:
        """The energy of one term in the frames, (T,)."""
        return np.array([frame.energies[term] for frame in self.frames], dtype=float)

    def stacked(self, name: str) -> FloatArray:
        """The frames' measures as one array: "density" (T, n…) or "position" (T, N, d)."""
        return np.stack([measure_arrays(frame.measure)[name] for frame in self.frames])


def measure_arrays(measure: Measure) -> dict[str, FloatArray]:
    """What a measure is stored as: its density on the grid, or positions and weights."""
    if isinstance(measure, Density):
        return {"density": np.reshape(measure.values, measure.grid.cells)}
    return {"position": measure.points, "weight": measure.weights}


def write_chunk(file: h5py.File, chunk: Chunk) -> None:
    """All of a chunk; the weights, which no frame changes, once."""
    file.create_dataset("time", data=chunk.times())
    file.create_dataset("rows", data=chunk.rows)
    file.attrs["terms"] = json.dumps(chunk.terms)
    for name in chunk.terms:
        file.create_dataset(f"energy_{name}", data=chunk.energy(name))
    if chunk.frames:
        for name, values in measure_arrays(chunk.frames[0].measure).items():
            file.create_dataset(name, data=values if name == "weight" else chunk.stacked(name))


def read_chunk(file: h5py.File, domain: Domain) -> Chunk:
    """What ``write_chunk`` wrote. Raises ValueError or KeyError for anything else."""
    times = file["time"][:]
    measures = read_measures(file, domain, len(times)) if len(times) else []
    series = {name: file[f"energy_{name}"][:] for name in json.loads(file.attrs["terms"])}
    energies = [{name: float(values[k]) for name, values in series.items()} for k in range(len(measures))]
    return Chunk([Frame(float(t), m, e) for t, m, e in zip(times, measures, energies, strict=True)], file["rows"][:])


def read_measures(file: h5py.File, domain: Domain, count: int) -> list[Measure]:
    """The measures at ``count`` times. Raises ValueError for shapes that do not fit, numbers not finite, or no measure."""
    if "density" in file:
        return _read_densities(numbers(file["density"]), domain, count)
    return _read_particles(numbers(file["position"]), numbers(file["weight"]), domain, count) if count else []


def _read_densities(values: FloatArray, domain: Domain, count: int) -> list[Measure]:
    """Densities from their averages on the cells, (count, n…)."""
    if values.shape[0] != count or values.ndim != domain.dimension + 1:
        raise ValueError(f"/density has shape {values.shape}, which does not fit {count} times and {domain.dimension} axes")
    if not (np.isfinite(values).all() and (values >= 0.0).all() and all(frame.any() for frame in values)):
        raise ValueError("/density must be finite, nonnegative and at no time all zero")
    grid = domain.grid(tuple(int(n) for n in values.shape[1:]))
    return [Density(grid, frame) for frame in values]


def _read_particles(positions: FloatArray, weights: FloatArray, domain: Domain, count: int) -> list[Measure]:
    """Particles from their positions (count, N, d) and weights (N,)."""
    if not (np.isfinite(weights).all() and (weights >= 0.0).all() and weights.any()):
        raise ValueError("/weight must be finite, nonnegative and not all zero")
    if positions.shape != (count, len(weights), domain.dimension):
        raise ValueError(f"/position has shape {positions.shape}, expected {(count, len(weights), domain.dimension)}")
    if not all(domain.contains(points).all() for points in positions):
        raise ValueError("/position leaves the domain")
    return [Particles(points, weights) for points in positions]
