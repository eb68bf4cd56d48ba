"""One full-batch step of a wide student (its loss and the velocities of all neurons) on a line, beside numpy, JAX and PyTorch.

``python benchmarks/particles.py``; ``pip install jax torch`` adds those two. All in float64 with the same 256 inputs. Calls take turns.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", str(os.cpu_count()))

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
from right_hand_side import DOMAIN, INPUTS, TEACHER, GaussLegendre

sys.path.append(str(Path(__file__).parent / "finite_volume"))
from timing import interleave, seconds, verdict

from mfpde.energy import two_layer

COUNT, TOLERANCE = 100_000, 1e-11
WANTED = {"numpy": 150.0, "JAX, jit": 150.0, "PyTorch": 600.0}
Step = Callable[[], tuple[float, np.ndarray]]


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs x (Q,), their weights (Q,) and the teacher's values (Q,)."""
    rule = GaussLegendre().rule(1, None)
    x = rule.nodes[:, 0]
    return x, rule.weights, np.tanh(np.outer(x, TEACHER.points[:, 0])) @ TEACHER.weights


def with_numpy(theta: np.ndarray) -> Step:
    x, mu, y = inputs()

    def step() -> tuple[float, np.ndarray]:
        values = np.tanh(np.outer(x, theta))
        gap = np.mean(values, axis=1) - y
        velocity = -((mu * gap * x) @ (1.0 - values * values))
        return 0.5 * float(mu @ gap**2), velocity

    return step


def with_jax(theta: np.ndarray) -> Step:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x, mu, y = (jnp.asarray(v) for v in inputs())
    loss = jax.jit(jax.value_and_grad(lambda t: 0.5 * jnp.sum(mu * (jnp.mean(jnp.tanh(jnp.outer(x, t)), axis=1) - y) ** 2)))
    held = jnp.asarray(theta)

    def step() -> tuple[float, np.ndarray]:
        value, slope = loss(held)
        return float(value), -np.asarray(slope) * len(theta)

    return step


def with_torch(theta: np.ndarray) -> Step:
    import torch

    x, mu, y = (torch.from_numpy(v) for v in inputs())
    held = torch.from_numpy(theta).requires_grad_()

    def step() -> tuple[float, np.ndarray]:
        held.grad = None
        value = 0.5 * torch.sum(mu * (torch.mean(torch.tanh(torch.outer(x, held)), dim=1) - y) ** 2)
        value.backward()
        return float(value), -held.grad.numpy() * len(theta)

    return step


def ours(theta: np.ndarray) -> Step:
    network = two_layer(DOMAIN, "tanh", GaussLegendre(), TEACHER).tabulated(DOMAIN, TOLERANCE)
    points, weights = theta[:, None], np.full(len(theta), 1.0 / len(theta))
    print(network.features.description)

    def step() -> tuple[float, np.ndarray]:
        lam = network.features.moments(points, weights) - network.target
        return 0.5 * float(lam @ lam) + network.constant, -network.features.gradient(points, lam)[:, 0]

    return step


def main() -> None:
    theta = np.clip(np.random.default_rng(0).normal(size=COUNT), -4.5, 4.5)
    made: dict[str, Callable[[np.ndarray], Step]] = {"mfpde": ours, "numpy": with_numpy}
    made |= {name: make for name, module, make in (("JAX, jit", "jax", with_jax), ("PyTorch", "torch", with_torch)) if find_spec(module)}
    machine = f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; numba has {numba.get_num_threads()} threads"
    print(f"{machine}; {COUNT} neurons, {INPUTS} inputs")
    steps = {name: make(theta) for name, make in made.items()}
    loss, velocity = steps["numpy"]()
    taken = interleave(steps, 20, 20.0)
    print(f"{'':10}{'median':>10}{'least':>10}{'median/ours':>14}{'loss off by':>13}{'velocity off by':>17}")
    for name, step in steps.items():
        value, found = step()
        error = np.max(np.abs(found - velocity)) / np.max(np.abs(velocity))
        ratio = taken[name].median / taken["mfpde"].median
        asked = f"   wanted {WANTED[name]:g}: {verdict(ratio >= WANTED[name])}" if name in WANTED else ""
        numbers = f"{seconds(taken[name].median):>10}{seconds(taken[name].least):>10}{ratio:14.1f}"
        print(f"{name:10}{numbers}{abs(value - loss) / loss:13.1e}{error:17.1e}{asked}")


if __name__ == "__main__":
    main()
