"""From the run of many systems at once back to theirs."""

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.energy.base import EnergySum
from mfpde.measure import Measure, Particles
from mfpde.run import Run


def split(run: Run, energy: EnergySum, weights: list[FloatArray]) -> list[Run]:
    """The runs of the systems, with their own ``weights``, from that of all of them."""
    systems = zip(*(np.split(measure.points, len(weights)) for measure in run.measures), strict=True)
    found = []
    for own, places in zip(weights, systems if run.measures else ((),) * len(weights), strict=True):
        measures: list[Measure] = [Particles(points, own) for points in places]
        values = [energy.values(measure) for measure in measures]
        energies = {name: np.array([value[name] for value in values]) for name in energy.terms}
        found.append(Run(run.times, measures, energies, run.certificate, run.status, run.message, run.notes))
    return found
