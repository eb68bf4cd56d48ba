"""Distances beside POT's: times, ratios and errors, in one run.

``python benchmarks/distances.py [--quick]``; all in float64, calls take turns.

One axis: W2 of many unsorted atoms against a density, which POT's ``emd2_1d`` takes as atoms at its cell centres (the floor h/√12).
The circle: atoms turned by a known angle, beside ``wasserstein_circle``. The plane: a density and one moved by a known vector, entropic and
exact (POT's network simplex on coarsened atoms), and sliced beside POT's ``sliced_wasserstein_distance``; then very many atoms.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ot

sys.path.append(str(Path(__file__).parent / "finite_volume"))
from timing import interleave, seconds, verdict

from mfpde import Axis, Density, DensityFunction, Domain, Particles, wasserstein
from mfpde.distance.sliced import DIRECTIONS

ATOMS, CELLS, WANTED = 1_000_000, 1024, 3.0
MOVE = np.array([0.3, -0.4])
Found = Callable[[], float]


def table(title: str, calls: dict[str, Found], exact: float, rounds: int, wanted: dict[str, float] | None = None) -> None:
    """Times over that of the first, which is ours, and errors."""
    print(f"{title}; exact {exact:.6g}")
    values = {name: call() for name, call in calls.items()}
    taken = interleave(calls, rounds, 20.0)
    ours = next(iter(calls))
    print(f"  {'':34}{'median':>10}{'least':>10}{'median/ours':>13}{'value':>14}{'error':>10}")
    for name in calls:
        ratio = taken[name].median / taken[ours].median
        asked = f"   wanted {wanted[name]:g}: {verdict(ratio >= wanted[name])}" if wanted and name in wanted else ""
        numbers = f"{seconds(taken[name].median):>10}{seconds(taken[name].least):>10}{ratio:13.2f}"
        print(f"  {name:34}{numbers}{values[name]:14.8g}{values[name] - exact:10.1e}{asked}")


def on_a_line(count: int, rounds: int, weighted: bool) -> None:
    """The atoms are the middles of their mass, so that W2² = Σ w³/12 exactly."""
    domain = Domain((Axis("x", 0.0, 1.0),))
    generator = np.random.default_rng(0)
    weights = generator.random(count) + 0.5 if weighted else np.ones(count)
    weights /= weights.sum()
    ends = np.cumsum(weights)
    places, order = ends - 0.5 * weights, generator.permutation(count)
    atoms = Particles(places[order][:, None], weights[order])
    density = Density(domain.grid((CELLS,)), np.ones(CELLS))
    centres, mass = density.points[:, 0], density.weights

    def pot() -> float:
        return math.sqrt(ot.emd2_1d(atoms.points[:, 0], centres, atoms.weights, mass, dense=False))

    calls = {"mfpde": lambda: wasserstein(atoms, density, domain).value, "POT emd2_1d": pot}
    kind = "weighted" if weighted else "equal"
    exact = math.sqrt(float(np.sum(weights**3)) / 12.0)
    table(f"line: {count} {kind} atoms, unsorted, against {CELLS} cells", calls, exact, rounds, {} if weighted else {"POT emd2_1d": WANTED})


def on_a_circle(count: int, rounds: int) -> None:
    """A concentrated sample and itself turned by a little: no atom is matched to another than its own."""
    domain = Domain((Axis("x", 0.0, 1.0, True),))
    generator = np.random.default_rng(0)
    places = np.mod(0.05 * generator.normal(size=count), 1.0)
    turn = 0.1
    one, two = Particles.equal(places[:, None]), Particles.equal(generator.permutation(np.mod(places + turn, 1.0))[:, None])

    def pot() -> float:
        return math.sqrt(float(np.ravel(ot.wasserstein_circle(one.points, two.points, p=2))[0]))

    calls = {"mfpde": lambda: wasserstein(one, two, domain).value, "POT wasserstein_circle": pot}
    table(f"circle: {count} atoms turned by {turn}", calls, turn, rounds)


def in_the_plane(rounds: int) -> None:
    """Densities: W2 = |v| and SW2 = |v|/√2 of a translation."""
    domain = Domain((Axis("x", -4.0, 4.0), Axis("y", -4.0, 4.0)))
    one, two = (
        DensityFunction(lambda p, c=c: np.exp(-2.0 * np.sum((p - c) ** 2, axis=1)), domain).on(domain.grid((64, 64))) for c in (0, MOVE)
    )
    length = float(np.linalg.norm(MOVE))
    for method in ("exact", "entropic"):
        print(f"  {method}: {wasserstein(one, two, domain, method=method)}")
    calls: dict[str, Found] = {name: (lambda name=name: wasserstein(one, two, domain, method=name).value) for name in ("entropic", "exact")}
    table("plane: W2 of densities on 64 × 64 cells, moved", calls, length, rounds)

    def pot() -> float:
        kept = [m.weights > 0.0 for m in (one, two)]
        points, mass = (
            [m.points[k] for m, k in zip((one, two), kept, strict=True)],
            [m.weights[k] for m, k in zip((one, two), kept, strict=True)],
        )
        shares = [w / w.sum() for w in mass]
        return float(ot.sliced_wasserstein_distance(*points, *shares, n_projections=DIRECTIONS, seed=0))

    calls = {"sliced": lambda: wasserstein(one, two, domain, method="sliced").value, "POT sliced_wasserstein_distance": pot}
    table(f"plane: SW2 of the same over {DIRECTIONS} directions", calls, length / math.sqrt(2.0), rounds)


def many_in_the_plane(count: int) -> None:
    """Draws from a density against it: E W2 ~ √(log N/N), SW2 ~ 1/√N."""
    domain = Domain((Axis("x", -4.0, 4.0), Axis("y", -4.0, 4.0)))
    law = DensityFunction(lambda p: np.exp(-2.0 * np.sum(p**2, axis=1)), domain)
    density, atoms = law.on(domain.grid((128, 128))), law.sample(count, np.random.default_rng(0))
    print(f"plane: {count} draws from a density against it")
    for method in ("exact", "entropic", "sliced"):
        taken = interleave({method: lambda method=method: wasserstein(atoms, density, domain, method=method)}, 1)
        print(f"  {seconds(taken[method].median):>8}  {wasserstein(atoms, density, domain, method=method)}")


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; POT {ot.__version__}, numpy {np.__version__}")
    rounds = 3 if quick else 15
    on_a_line(ATOMS, rounds, weighted=False)
    on_a_line(ATOMS, rounds, weighted=True)
    on_a_circle(20_000 if quick else 100_000, 2 if quick else 5)
    in_the_plane(1 if quick else 3)
    many_in_the_plane(100_000 if quick else ATOMS)


if __name__ == "__main__":
    main()
