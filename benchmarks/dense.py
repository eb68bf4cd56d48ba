"""One full-batch step of a wide student (its loss and the velocities of all neurons) in eight dimensions, beside numpy, JAX and PyTorch.

``python benchmarks/dense.py``; ``pip install jax torch`` adds those two. All in float64 with the same 256 samples. Calls take turns.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", str(os.cpu_count()))

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np

sys.path.append(str(Path(__file__).parent / "finite_volume"))
from timing import interleave, seconds, verdict

from mfpde import Axis, Domain, Particles
from mfpde.energy import Samples, two_layer

COUNT, INPUTS, DIMENSION = 100_000, 256, 8
DOMAIN = Domain(tuple(Axis(f"t{k}", -6.0, 6.0) for k in range(DIMENSION)))
WANTED = {"JAX, jit": 4.0, "PyTorch": 15.0}
ROUNDS, BUDGET = 15, 12.0
Step = Callable[[], tuple[float, np.ndarray]]


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neurons (N, d), inputs (Q, d) and their targets (Q,)."""
    generator = np.random.default_rng(0)
    theta, x = generator.normal(size=(COUNT, DIMENSION)), generator.normal(size=(INPUTS, DIMENSION))
    return theta, x, np.sin(x[:, 0]) + 0.5 * x[:, 1]


def ours() -> Step:
    theta, x, y = problem()
    network, student = two_layer(DOMAIN, "tanh", Samples(x), y), Particles.equal(theta)
    print(network.description)

    def step() -> tuple[float, np.ndarray]:
        value, slope = network.value_and_gradient(student)
        return value, -slope

    return step


def with_numpy() -> Step:
    theta, x, y = problem()

    def step() -> tuple[float, np.ndarray]:
        values = np.tanh(theta @ x.T)
        gap = np.mean(values, axis=0) - y
        return 0.5 * float(np.mean(gap**2)), -(((1.0 - values * values) * gap) @ x) / len(x)

    return step


def with_jax() -> Step:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    theta, x, y = (jnp.asarray(v) for v in problem())
    loss = jax.jit(jax.value_and_grad(lambda t: 0.5 * jnp.mean((jnp.mean(jnp.tanh(t @ x.T), axis=0) - y) ** 2)))

    def step() -> tuple[float, np.ndarray]:
        value, slope = loss(theta)
        return float(value), -np.asarray(slope) * len(theta)

    return step


def with_torch() -> Step:
    import torch

    theta, x, y = (torch.from_numpy(v) for v in problem())
    theta.requires_grad_()

    def step() -> tuple[float, np.ndarray]:
        theta.grad = None
        value = 0.5 * torch.mean((torch.mean(torch.tanh(theta @ x.T), dim=0) - y) ** 2)
        value.backward()
        return float(value.detach()), -theta.grad.numpy() * len(theta)

    return step


def main() -> None:
    made: dict[str, Callable[[], Step]] = {"mfpde": ours, "numpy": with_numpy}
    made |= {name: make for name, module, make in (("JAX, jit", "jax", with_jax), ("PyTorch", "torch", with_torch)) if find_spec(module)}
    machine = f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; numba has {numba.get_num_threads()} threads"
    print(f"{machine}; {COUNT} neurons in {DIMENSION} dimensions, {INPUTS} inputs")
    steps = {name: make() for name, make in made.items()}
    loss, velocity = steps["numpy"]()
    errors = {name: (abs(value - loss) / loss, found) for name, step in steps.items() for value, found in [step()]}
    taken = interleave(steps, ROUNDS, BUDGET)
    print(f"{'':10}{'median':>10}{'least':>10}{'median/ours':>14}{'loss off by':>13}{'velocity off by':>17}")
    for name, (off, found) in errors.items():
        error = np.max(np.abs(found - velocity)) / np.max(np.abs(velocity))
        ratio = taken[name].median / taken["mfpde"].median
        asked = f"   wanted {WANTED[name]:g}: {verdict(ratio >= WANTED[name])}" if name in WANTED else ""
        numbers = f"{seconds(taken[name].median):>10}{seconds(taken[name].least):>10}{ratio:14.1f}"
        print(f"{name:10}{numbers}{off:13.1e}{error:17.1e}{asked}")


if __name__ == "__main__":
    main()
