"""A million neurons for a thousand steps of gradient descent: does the memory grow, do the steps slow down?

``python benchmarks/endurance.py [neurons] [steps]``
"""

import os
import sys
import time

import numpy as np

from mfpde import Axis, DensityFunction, Domain, EnergySum, ParticleFlow, Particles, Problem
from mfpde.energy import Normal, two_layer


def memory() -> float:
    """Resident memory of this process in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    count, steps = (int(float(word)) for word in [*sys.argv[1:], "1e6", "1000"][:2])
    domain = Domain((Axis("theta", -4.5, 4.5),))
    network = two_layer(domain, "tanh", Normal(), Particles(np.array([[1.5], [-0.5]]), np.array([0.7, 0.3])))
    start = DensityFunction(lambda points: np.exp(-(points[:, 0] ** 2)), domain)
    rate = 0.01 * count
    problem = Problem(EnergySum({"network": network}), domain, start, (0.01 * steps,))
    flow = ParticleFlow(count, learning_rate=rate).prepare(problem)
    state, parts = flow.start(), 10
    print(f"{count} neurons, {steps} steps; load {os.getloadavg()[0]:.1f}; {'; '.join(flow.notes)}")
    print(f"{'steps':>8}{'ms a step':>12}{'memory MB':>12}{'loss':>14}")
    used = []
    for part in range(parts):
        began = time.perf_counter()
        for _ in range(steps // parts):
            state = flow.advance(state, 0.01 * steps)
            flow.record(state)
        used.append((time.perf_counter() - began) / (steps // parts))
        print(f"{(part + 1) * (steps // parts):8}{1e3 * used[-1]:12.2f}{memory():12.1f}{state.energy:14.6e}")
    print(f"last tenth over first: {used[-1] / used[0]:.2f}; rises of the energy: {state.rises}")


if __name__ == "__main__":
    main()
