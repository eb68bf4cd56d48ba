"""Forces between many atoms by the fastest way for each kind of kernel, beside all pairs in NumPy and in compiled loops.

``python benchmarks/interactions.py [N ...]``, by default 10⁴, 10⁵ and 10⁶ atoms, uniform in a box of side 4. All pairs are timed at 100
of the atoms and scaled to all; there the errors are measured, relative to the largest force. "first" is the first call, which makes
what is kept and checks it against all pairs; numba's compilation, or the load of its cache, is not in it.
"""

import os
import sys
from time import perf_counter

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from mfpde.case.difference import DifferenceExpression
from mfpde.case.expression import parse
from mfpde.domain import Axis, Domain
from mfpde.energy import Interaction, PairKernel
from mfpde.energy.blob import Blob, blob_width
from mfpde.measure import Particles

SAMPLE, LONGEST = 100, 120.0
KERNELS = (
    ("wall", "-abs(x)"),
    ("wall", "exp(-r) - 2*exp(-2*r)"),
    ("circle", "exp(-r/0.3)"),
    ("wall", "exp(-500*x**2)"),
    ("wall", "-log(r)"),
    ("wall wall", "exp(-100*r**2)"),
    ("wall wall", "-log(r)"),
    ("wall wall", "r**1.5/1.5 - r**0.5/0.5"),
    ("circle circle", "exp(-r/0.05)"),
    ("wall wall wall", "exp(-10*r**2)"),
    ("wall wall wall", "1/r"),
)


def interaction(kinds: str, text: str) -> Interaction:
    domain = Domain(tuple(Axis(name, -2.0, 2.0, kind == "circle") for name, kind in zip("xyz", kinds.split(), strict=False)))
    expression = DifferenceExpression(parse(text, [*domain.names, "r"]))
    return Interaction(PairKernel(domain, expression, expression.slope), text)


def by_numpy(energy: Interaction, atoms: Particles, at: np.ndarray) -> np.ndarray:
    result = np.zeros(at.shape)
    for rows, columns, x in energy._pairs(at, atoms.points):
        slopes = energy.kernel.slopes(x)
        for k in range(at.shape[1]):
            result[rows, k] += slopes[:, k].reshape(-1, columns.stop - columns.start) @ atoms.weights[columns]
    return result


def timed(call, *arguments):
    start = perf_counter()
    found = call(*arguments)
    return found, perf_counter() - start


def measure(kinds: str, text: str, count: int) -> None:
    energy = interaction(kinds, text)
    generator = np.random.default_rng(0)
    atoms = Particles.equal(energy.kernel.domain.spread(generator.random((count, len(kinds.split())))))
    some = atoms.points[generator.integers(0, count, SAMPLE)]
    exact, plain = timed(by_numpy, energy, atoms, some)
    compiled = energy._fast.compiled
    loops = np.inf
    if compiled is not None:
        compiled.force(atoms.points[:10], atoms.weights[:10], some[:10])
        loops = timed(compiled.force, atoms.points, atoms.weights, some)[1] * count / SAMPLE
    way, making = timed(energy.summation, atoms)
    name = f"{len(kinds.split())}-D {kinds.split()[0]:7}{text:24}{count:9}"
    if way == "all pairs, compiled" and loops > LONGEST:
        print(f"{name}{plain * count / SAMPLE:12.2f}{loops:12.2f}   {way}", flush=True)
        return
    energy.gradient(Particles.equal(atoms.points[:200]), atoms.points[:200])
    _, first = timed(energy.gradient, atoms, atoms.points)
    force, again = timed(energy.gradient, atoms, atoms.points)
    error = np.max(np.abs(energy.gradient(atoms, some) - exact)) if way == "all pairs, compiled" else at_some(force, atoms, some, exact)
    error /= np.max(np.linalg.norm(force, axis=1))
    momentum = np.max(np.abs(atoms.weights @ force)) / np.max(np.linalg.norm(force, axis=1))
    slow = plain * count / SAMPLE
    numbers = (
        f"{slow:12.2f}{loops:12.2f}{making + first:9.2f}{again:9.3f}{slow / again:10.0f}{loops / again:8.1f}{error:10.1e}{momentum:10.1e}"
    )
    print(f"{name}{numbers}   {way}", flush=True)


def at_some(force: np.ndarray, atoms: Particles, some: np.ndarray, exact: np.ndarray) -> float:
    """The largest error at the sample, whose atoms are found by their first coordinate."""
    order = np.argsort(atoms.points[:, 0])
    found = order[np.searchsorted(atoms.points[order, 0], some[:, 0])]
    return float(np.max(np.abs(force[found] - exact)))


def measure_blob(dimension: int, count: int) -> None:
    domain = Domain(tuple(Axis(name, -2.0, 2.0) for name in "xyz"[:dimension]))
    atoms = Particles.equal(domain.spread(np.random.default_rng(0).random((count, dimension))))
    energy = Blob(2.0, 1.0, blob_width(atoms, domain), domain)
    energy.gradient(Particles.equal(atoms.points[:100]), atoms.points[:100])
    taken = timed(energy.gradient, atoms, atoms.points)[1]
    print(f"{dimension}-D porous medium by blobs of width {energy.width:.2e}, {count} atoms: {taken:.3f} s a gradient", flush=True)


def main() -> None:
    counts = [int(float(text)) for text in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; seconds")
    columns = f"{'NumPy':>12}{'compiled':>12}{'first':>9}{'again':>9}{'NumPy/':>10}{'loops/':>8}{'error':>10}{'momentum':>10}"
    print(f"{'kernel':36}{'atoms':>9}{columns}   way")
    for count in counts:
        for kinds, text in KERNELS:
            measure(kinds, text, count)
        for dimension in (1, 2, 3):
            if count * dimension < 3_000_000:
                measure_blob(dimension, count)


if __name__ == "__main__":
    main()
