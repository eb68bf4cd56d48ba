"""Training relu networks: one gradient and a whole run, beside plain numpy and PyTorch.

``python benchmarks/two_scalings.py``; ``pip install torch`` adds PyTorch. All in float64 and on one thread unless OPENBLAS_NUM_THREADS says
otherwise. Gradients: of the population risk of 100 neurons in 200 dimensions in closed form, and of the empirical risk of 1000 neurons on
1000 samples in 10 and in 100 dimensions. Calls take turns.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent / "finite_volume"))
from timing import interleave, seconds, timed

from mfpde.scaling import EmpiricalRisk, GradientDescent, GradientFlow, Neurons, PopulationRisk, start, train
from mfpde.scaling.risks import rotated

Gradient = Callable[[], tuple[float, np.ndarray]]
Values = tuple[np.ndarray, np.ndarray]
THREADS = int(os.environ["OPENBLAS_NUM_THREADS"])
ROUNDS, BUDGET = 15, 10.0


def ours(risk: PopulationRisk | EmpiricalRisk, network: Values) -> Gradient:
    outer, inner = network
    out = np.empty(inner.size + outer.size)
    basis = None
    if isinstance(risk, PopulationRisk):
        risk, inner, basis = rotated(risk, inner)  # as training does, once
    short = out if basis is None else np.empty(inner.size + outer.size)

    def gradient() -> tuple[float, np.ndarray]:
        return risk.slope(outer, inner, 1.0, short), short

    gradient()
    turned = short[len(outer) :].reshape(inner.shape) if basis is None else short[len(outer) :].reshape(inner.shape) @ basis.T
    whole = np.concatenate([short[: len(outer)], turned.ravel()])
    return lambda: (gradient()[0], whole)


def population_with_numpy(teacher: np.ndarray, network: Values) -> Gradient:
    outer, inner = network

    def pairs(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lengths = np.linalg.norm(u, axis=1)[:, None] * np.linalg.norm(v, axis=1)
        cosine = np.clip(u @ v.T / lengths, -1.0, 1.0)
        sine, rest = np.sqrt(1.0 - cosine**2), np.pi - np.arccos(cosine)
        return lengths * (sine + rest * cosine) / (2 * np.pi), sine, rest

    def gradient() -> tuple[float, np.ndarray]:
        points, weights = np.vstack([inner, teacher]), np.concatenate([outer, -np.ones(len(teacher))])
        kernel, sine, rest = pairs(points, points)
        total = kernel @ weights
        norms = np.linalg.norm(points, axis=1)
        m = len(outer)
        lift = (sine[:m] @ (weights * norms) / norms[:m])[:, None] * inner
        turn = outer[:, None] * (lift + (rest[:m] * weights) @ points) / (2 * np.pi)
        return 0.5 * float(weights @ total), np.concatenate([total[:m], turn.ravel()])

    return gradient


def population_with_torch(teacher: np.ndarray, network: Values) -> Gradient:
    import torch

    outer, inner = (torch.tensor(x, requires_grad=True) for x in network)
    fixed = torch.from_numpy(teacher)

    def gradient() -> tuple[float, np.ndarray]:
        outer.grad = inner.grad = None
        points, weights = torch.cat([inner, fixed]), torch.cat([outer, -torch.ones(len(fixed), dtype=torch.float64)])
        norms = torch.linalg.norm(points, dim=1)
        lengths = norms[:, None] * norms
        cosine = torch.clamp(points @ points.T / lengths, -1.0 + 1e-12, 1.0 - 1e-12)
        kernel = lengths * (torch.sqrt(1.0 - cosine**2) + (np.pi - torch.arccos(cosine)) * cosine) / (2 * np.pi)
        value = 0.5 * weights @ kernel @ weights
        value.backward()
        return float(value.detach()), np.concatenate([outer.grad.numpy(), inner.grad.numpy().ravel()])

    return gradient


def samples_with_numpy(points: np.ndarray, target: np.ndarray, network: Values) -> Gradient:
    outer, inner = network

    def gradient() -> tuple[float, np.ndarray]:
        products = points @ inner.T
        values = np.maximum(products, 0.0)
        error = values @ outer - target
        turn = outer[:, None] * (((products > 0.0) * error[:, None]).T @ points)
        return 0.5 * float(np.mean(error**2)), np.concatenate([values.T @ error, turn.ravel()]) / len(target)

    return gradient


def samples_with_torch(points: np.ndarray, target: np.ndarray, network: Values) -> Gradient:
    import torch

    outer, inner = (torch.tensor(x, requires_grad=True) for x in network)
    x, y = torch.from_numpy(points), torch.from_numpy(target)

    def gradient() -> tuple[float, np.ndarray]:
        outer.grad = inner.grad = None
        value = 0.5 * torch.mean((torch.relu(x @ inner.T) @ outer - y) ** 2)
        value.backward()
        return float(value.detach()), np.concatenate([outer.grad.numpy(), inner.grad.numpy().ravel()])

    return gradient


def table(name: str, calls: dict[str, Gradient]) -> None:
    value, slope = calls["numpy"]()
    taken = interleave(calls, ROUNDS, BUDGET)
    print(f"{name}\n  {'':10}{'median':>10}{'least':>10}{'median/ours':>14}{'gradient off by':>17}")
    for who, call in calls.items():
        error = np.max(np.abs(call()[1] - slope)) / np.max(np.abs(slope))
        ratio = taken[who].median / taken["mfpde"].median
        print(f"  {who:10}{seconds(taken[who].median):>10}{seconds(taken[who].least):>10}{ratio:14.1f}{error:17.1e}")
    assert abs(calls["mfpde"]()[0] - value) <= 1e-9 * abs(value)


def main() -> None:
    torch = find_spec("torch") is not None
    if torch:
        import torch as package

        package.set_num_threads(THREADS)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {THREADS} BLAS thread(s)")
    generator = np.random.default_rng(0)
    teacher, network = np.eye(1, 200), (generator.normal(size=100) / 100, start(0, 100, 200).inner)
    calls = {"mfpde": ours(PopulationRisk(Neurons(teacher, np.ones(1))), network), "numpy": population_with_numpy(teacher, network)}
    table("population risk, m = 100, d = 200", calls | ({"PyTorch": population_with_torch(teacher, network)} if torch else {}))
    for dimension in (10, 100):
        points = generator.normal(size=(1000, dimension))
        target, network = np.maximum(points[:, 0], 0.0), (generator.normal(size=1000) / 1000, start(0, 1000, dimension).inner)
        calls = {"mfpde": ours(EmpiricalRisk(points, target), network), "numpy": samples_with_numpy(points, target, network)}
        name = f"empirical risk, m = n = 1000, d = {dimension}"
        table(name, calls | ({"PyTorch": samples_with_torch(points, target, network)} if torch else {}))
    risk, begin = PopulationRisk(Neurons(teacher, np.ones(1))), start(0, 100, 200)
    print("population risk, m = 100, d = 200, from the start to t = 200:")
    for words, method in (
        ("gradient flow, tolerance 1e-6", GradientFlow(1e-6)),
        ("20,000 steps of gradient descent", GradientDescent(0.01)),
    ):
        moments = []
        took = timed(lambda method=method, moments=moments: moments.extend(train(risk, begin, [200.0], method)))
        print(f"  {words}: {seconds(took)}, risk {moments[-1].risk:.3e}, {moments[-1].steps} steps")


if __name__ == "__main__":
    main()
