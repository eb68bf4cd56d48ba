"""One full-batch step of a wide student (its loss and the velocities of all neurons) through tables, beside numpy, JAX and PyTorch.

``python benchmarks/particles.py [line] [many] [plane]``; ``pip install jax torch`` adds those two. All in float64 with the same inputs,
and velocities are compared with those of all pairs. Calls take turns.

line: 10⁵ neurons on a line, 256 inputs. many: 10⁷ neurons there, in a process of their own: time, memory, and both against the floor, which
is to read the positions twice and write the velocities. plane: 10⁶ neurons on a plane, 1024 inputs.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", str(os.cpu_count()))

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
from right_hand_side import DOMAIN, TEACHER, GaussLegendre, triad

sys.path.append(str(Path(__file__).parent / "finite_volume"))
from timing import interleave, seconds, verdict

from mfpde import Axis, Domain, Particles
from mfpde.energy import TwoLayer, two_layer
from mfpde.energy.inputs import Rule

Step = Callable[[], tuple[float, np.ndarray]]
ROUNDS, BUDGET = 20, 10.0
FEW, MANY = 10**6, 10**7
MOST_BYTES, MOST_FLOORS = 10**9, 8.0


@dataclass(frozen=True)
class GaussHermite:
    """The standard normal law as 32 weighted nodes along each axis."""

    isotropic = False
    exact = True

    def rule(self, dimension: int, sharpness: object) -> Rule:
        x, w = np.polynomial.hermite_e.hermegauss(32)
        nodes = np.stack([c.ravel() for c in np.meshgrid(*[x] * dimension, indexing="ij")], axis=1)
        weights = np.prod(np.stack([c.ravel() for c in np.meshgrid(*[w / np.sum(w)] * dimension, indexing="ij")]), axis=0)
        return Rule(nodes, weights)

    def second_moment(self, dimension: int) -> float:
        return float(dimension)


@dataclass(frozen=True)
class Row:
    """One comparison: ``compared`` neurons for the others where ``count`` are too many for them; ``compression`` and ``tolerance`` are
    those of the features and of the table, ``accuracy`` is what the velocity may be off by, ``wanted`` what ratio to the others."""

    domain: Domain
    law: GaussLegendre | GaussHermite
    teacher: Particles
    count: int
    compared: int
    compression: float | None
    tolerance: float
    accuracy: float
    wanted: dict[str, float]

    def rule(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs x (Q, d), their weights (Q,) and the teacher's values (Q,)."""
        rule = self.law.rule(self.domain.dimension, None)
        return rule.nodes, rule.weights, np.tanh(rule.nodes @ self.teacher.points.T) @ self.teacher.weights

    def neurons(self, count: int) -> np.ndarray:
        drawn = np.random.default_rng(0).standard_normal((count, self.domain.dimension))
        return np.clip(drawn, self.domain.lower, self.domain.upper, out=drawn)

    def tabulated(self) -> TwoLayer:
        """The energy on its table."""
        energy = two_layer(self.domain, "tanh", self.law, self.teacher, tolerance=self.compression)
        start = time.perf_counter()
        found = energy.tabulated(self.domain, self.tolerance, self.count)
        print(f"rank {found.features.rank}, {found.features.note}; {seconds(time.perf_counter() - start)} to make it")
        return found


PLANE = Domain((Axis("a", -3.0, 3.0), Axis("b", -3.0, 3.0)))
PAIRS = Particles(np.array([[1.5, 1.0], [-0.5, 0.3]]), np.array([0.7, 0.3]))
LINE_WANTED = {"numpy": 150.0, "JAX, jit": 150.0, "PyTorch": 600.0}
ROWS = {
    "line": Row(DOMAIN, GaussLegendre(), TEACHER, 100_000, 100_000, None, 1e-11, 1e-10, LINE_WANTED),
    "plane": Row(PLANE, GaussHermite(), PAIRS, 1_000_000, 100_000, 1e-7, 1e-7, 1e-7, {"JAX, jit": 30.0}),
}


def with_numpy(row: Row, theta: np.ndarray) -> Step:
    x, mu, y = row.rule()

    def step() -> tuple[float, np.ndarray]:
        values = np.tanh(x @ theta.T)
        gap = np.mean(values, axis=1) - y
        np.multiply(values, values, out=values)
        velocity = np.subtract(1.0, values, out=values).T @ (x * (-mu * gap)[:, None])
        return 0.5 * float(mu @ gap**2), velocity

    return step


def with_jax(row: Row, theta: np.ndarray) -> Step:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x, mu, y = (jnp.asarray(v) for v in row.rule())
    loss = jax.jit(jax.value_and_grad(lambda t: 0.5 * jnp.sum(mu * (jnp.mean(jnp.tanh(x @ t.T), axis=1) - y) ** 2)))
    held = jnp.asarray(theta)

    def step() -> tuple[float, np.ndarray]:
        value, slope = loss(held)
        return float(value), -np.asarray(slope) * len(theta)

    return step


def with_torch(row: Row, theta: np.ndarray) -> Step:
    import torch

    x, mu, y = (torch.from_numpy(v) for v in row.rule())
    held = torch.from_numpy(theta).clone().requires_grad_()

    def step() -> tuple[float, np.ndarray]:
        held.grad = None
        value = 0.5 * torch.sum(mu * (torch.mean(torch.tanh(x @ held.T), dim=1) - y) ** 2)
        value.backward()
        return float(value.detach()), -held.grad.numpy() * len(theta)

    return step


def ours(network: TwoLayer, theta: np.ndarray) -> Step:
    student = Particles.equal(theta)

    def step() -> tuple[float, np.ndarray]:
        value, slope = network.value_and_gradient(student)
        return value, -slope

    return step


def compare(name: str) -> None:
    """A row of the table."""
    row = ROWS[name]
    print(f"\n{name}: {row.count} neurons, {len(row.rule()[0])} inputs, load {os.getloadavg()[0]:.1f}")
    network, theta = row.tabulated(), row.neurons(row.compared)
    peers = [("numpy", "numpy", with_numpy), ("JAX, jit", "jax", with_jax), ("PyTorch", "torch", with_torch)]
    steps = {label: make(row, theta) for label, module, make in peers if find_spec(module)}
    exact = steps["numpy"]()
    found = {"mfpde": ours(network, theta)()} | {label: step() for label, step in steps.items()}
    steps = {"mfpde": ours(network, row.neurons(row.count))} | steps
    taken = interleave(steps, ROUNDS, BUDGET)
    factor = row.count // row.compared
    if factor > 1:
        print(f"times of the others are {factor} times those for {row.compared} neurons; so many are compared as well")
    print(f"{'':10}{'median':>10}{'least':>10}{'median/ours':>14}{'loss off by':>13}{'velocity off by':>17}")
    for label, (value, velocity) in found.items():
        times = taken[label] if label == "mfpde" else taken[label].scaled(factor)
        error = float(np.max(np.abs(velocity - exact[1])) / np.max(np.abs(exact[1])))
        ratio = times.median / taken["mfpde"].median
        asked = f"   wanted {row.wanted[label]:g}: {verdict(ratio >= row.wanted[label])}" if label in row.wanted else ""
        asked = f"   velocity to {row.accuracy:g}: {verdict(error <= row.accuracy)}" if label == "mfpde" else asked
        numbers = f"{seconds(times.median):>10}{seconds(times.least):>10}{ratio:14.1f}"
        print(f"{label:10}{numbers}{abs(value - exact[0]) / exact[0]:13.1e}{error:17.1e}{asked}")


def measure_alone(count: int) -> None:
    """Prints the median and least seconds of a step on a line and the bytes at the peak, as JSON; ours is all that runs here."""
    row = ROWS["line"]
    energy = two_layer(row.domain, "tanh", row.law, row.teacher).tabulated(row.domain, row.tolerance, count)
    step, taken = ours(energy, row.neurons(count)), []
    for _ in range(12):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text(encoding="ascii")  # of this program alone, which ru_maxrss is not
    bytes_ = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    print(json.dumps({"median": float(np.median(taken)), "least": min(taken), "bytes": bytes_}))


def many() -> None:
    """10⁷ neurons: seconds, memory, linearity, and against the floor."""
    print(f"\nmany: {MANY} neurons on a line, load {os.getloadavg()[0]:.1f}")
    found = {}
    for count in (FEW, MANY):
        command = [sys.executable, __file__, "alone", str(count)]
        found[count] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        times = f"median {seconds(found[count]['median'])}, least {seconds(found[count]['least'])}"
        print(f"  {count:>9}: {times}, {1e9 * found[count]['median'] / count:.1f} ns a neuron, peak {found[count]['bytes'] / 1e6:.0f} MB")
    speed = triad(MANY)
    floor = 24 * MANY / speed
    floors, growth = found[MANY]["median"] / floor, found[MANY]["median"] / found[FEW]["median"]
    good = {"memory below 1 GB": found[MANY]["bytes"] <= MOST_BYTES, f"at most {MOST_FLOORS:g} floors": floors <= MOST_FLOORS}
    print(f"  triad {speed / 1e9:.1f} GB/s, floor {seconds(floor)}; {floors:.1f} floors; {growth:.1f} times as long as a tenth of them")
    print("  " + ", ".join(f"{what}: {verdict(reached)}" for what, reached in good.items()))


def main() -> None:
    """The rows named on the command line, or all."""
    if sys.argv[1:2] == ["alone"]:
        measure_alone(int(sys.argv[2]))
        return
    print(f"{os.cpu_count()} processors; numba has {numba.get_num_threads()} threads")
    for name in sys.argv[1:] or ("line", "many", "plane"):
        if name == "many":
            many()
        else:
            compare(name)


if __name__ == "__main__":
    main()
