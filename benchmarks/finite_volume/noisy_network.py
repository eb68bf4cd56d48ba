"""Row 4: a noisy two-layer network to its stationary state, by long implicit steps, by explicit ones and directly."""

from pathlib import Path

import numpy as np
from timing import Times, interleave, seconds, verdict

from mfpde import Axis, DensityFunction, Domain, EnergySum, FiniteVolume, Particles, Problem
from mfpde.energy import Entropy, Normal, two_layer
from mfpde.solvers.finite_volume import Explicit, FiniteVolumeFlow, Implicit, ImplicitEuler, ScharfetterGummel, Stepper
from mfpde.solvers.stationary import Stationary

CELLS, TEMPERATURE, GAP, WANTED, LATE = 1024, 0.01, 1e-8, 1000.0, 1e5


def problem() -> Problem:
    domain = Domain((Axis("theta", -4.0, 4.0),))
    teacher = Particles(np.array([[1.5], [-0.5]]), np.array([0.7, 0.3]))
    start = DensityFunction(lambda p: np.cos(np.pi * p[:, 0] / 6.0) ** 2 * (np.abs(p[:, 0]) < 3.0), domain)
    energy = EnergySum({"network": two_layer(domain, "tanh", Normal(), teacher), "entropy": Entropy(TEMPERATURE)})
    return Problem(energy, domain, start, (LATE,))


def prepared(case: Problem, stepper: Stepper, tolerance: float) -> FiniteVolumeFlow:
    """With Scharfetter–Gummel fluxes, which this grid resolves."""
    return FiniteVolume((CELLS,), tolerance, ScharfetterGummel(TEMPERATURE), stepper).prepare(case)


def settle(flow: FiniteVolumeFlow, goal: float) -> tuple[int, float, float]:
    """Steps, time reached and relative distance from the stationary energy."""
    state, steps = flow.start(), 0
    while abs(state.energy - goal) > GAP * abs(goal) and state.time < LATE:
        state, steps = flow.advance(state, LATE), steps + 1
    return steps, state.time, abs(state.energy / goal - 1.0)


class Stretch:
    """Explicit steps, so many a call, from where the last call ended."""

    def __init__(self, case: Problem, steps: int) -> None:
        self.flow = prepared(case, Explicit(), 1e-2)
        self.state, self.steps, self.dt = self.flow.start(), steps, 0.0
        self.go()

    def go(self) -> None:
        begun = self.state.time
        for _ in range(self.steps):
            self.state = self.flow.advance(self.state, LATE)
        self.dt = (self.state.time - begun) / self.steps


def main(quick: bool, output: Path) -> None:
    print(
        f"\n4. noisy two-layer tanh, T = {TEMPERATURE}, {CELLS} cells on [-4, 4], until the energy is within {GAP:g} of the stationary one"
    )
    case, direct = problem(), Stationary((CELLS,))
    goal = float(direct.solve(case).total_energy[-1])
    flows = {
        f"{name}, tolerance {tolerance:g}": prepared(case, stepper, tolerance)
        for name, stepper in (("implicit Euler", ImplicitEuler()), ("implicit, order two", Implicit()))
        for tolerance in (1e-1, 1e-2)
    }
    found = {name: settle(flow, goal) for name, flow in flows.items()}
    settled = settle(prepared(case, Implicit(), 1e-5), goal)[1]

    stretch = Stretch(case, 500)
    calls = {name: (lambda f=flow: settle(f, goal)) for name, flow in flows.items()}
    rounds = 5 if quick else 15
    taken = interleave({**calls, "direct": lambda: direct.solve(case), "explicit": stretch.go}, rounds, 5.0)
    steps = int(settled / stretch.dt)
    explicit = taken["explicit"].scaled(steps / stretch.steps)

    print(f"{'':34}{'steps':>8}{'reached at':>12}{'gap':>9}{'median':>10}{'least':>10}{'explicit/this':>15}")
    for name, (made, time, gap) in found.items():
        _show(name, (str(made), f"{time:.0f}", f"{gap:.0e}"), taken[name], explicit)
    _show("explicit, extrapolated", (str(steps), f"{settled:.0f}", ""), explicit, explicit)
    _show("direct stationary solver", ("", "", ""), taken["direct"], explicit)
    done = rounds * stretch.steps
    print(
        f"explicit: {done} steps of {stretch.dt:.2e} were timed; it needs as many as lead to the time where implicit steps of 1e-5 arrive"
    )
    best = min((name for name in flows if found[name][2] <= GAP), key=lambda name: taken[name].median)
    ratio = explicit.median / taken[best].median
    print(f"explicit over {best}: {ratio:.0f}, wanted {WANTED:g}: {verdict(ratio >= WANTED)}")


def _show(name: str, numbers: tuple[str, str, str], taken: Times, explicit: Times) -> None:
    steps, time, gap = numbers
    ratio = explicit.median / taken.median
    print(f"{name:34}{steps:>8}{time:>12}{gap:>9}{seconds(taken.median):>10}{seconds(taken.least):>10}{ratio:15.0f}")
