"""Row 7: one implicit step in the plane by splitting (ours) against the same method unsplit, with sparse solvers."""

from collections.abc import Callable
from pathlib import Path

import gaussian
import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import LinearOperator, expm_multiply, gmres, spilu, splu
from timing import interleave, seconds

from mfpde import FiniteVolume

DT, GAMMA = 0.05, 1.0 - 0.5 * np.sqrt(2.0)
FORMS = {"separable potential |x|²/2": np.eye(2), "tilted potential xᵀQx/2, Q = [[1, 0.6], [0.6, 1]]": np.array([[1.0, 0.6], [0.6, 1.0]])}
PATTERN = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.001, "options": {"SymmetricMode": True}}

Solve = Callable[[np.ndarray], np.ndarray]


class Unsplit:
    """SDIRK2 of the whole generator."""

    def __init__(self, generator: sparse.csr_matrix, start: np.ndarray) -> None:
        self.matrix = (sparse.identity(start.size, format="csr") - GAMMA * DT * generator).tocsc()
        self.rows, self.start = self.matrix.tocsr(), start

    def stages(self, solve: Solve) -> np.ndarray:
        first = solve(self.start)
        return solve(self.start + (1.0 - GAMMA) / GAMMA * (first - self.start))

    def direct(self) -> Solve:
        return splu(self.matrix, **PATTERN).solve

    def iterative(self) -> Solve:
        near = spilu(self.matrix, drop_tol=1e-3, fill_factor=5.0)
        operator = LinearOperator(self.matrix.shape, near.solve)
        return lambda right: gmres(self.rows, right, x0=right, M=operator, rtol=1e-8, atol=0.0)[0]


class Split:
    """Our step, with the factors of the last one or with new ones."""

    def __init__(self, cells: int, form: np.ndarray) -> None:
        flow = FiniteVolume((cells, cells), step=DT).prepare(gaussian.problem(2, form))
        self.state, self.integrator, self.count = flow.start(), flow.integrator, 0

    def kept(self) -> np.ndarray:
        return self.integrator.attempt(self.state.rho, self.state.rate, DT, False).rho

    def fresh(self) -> np.ndarray:
        """The step length differs in the last digits, so that nothing can be kept."""
        self.count += 1
        return self.integrator.attempt(self.state.rho, self.state.rate, DT * (1.0 + 1e-13 * self.count), False).rho


def main(quick: bool, output: Path) -> None:
    print(f"\n7. one implicit step of order two, dt = {DT}, Ornstein–Uhlenbeck in the plane: split (ours) against unsplit, scipy")
    print("new: the step's length has changed, so that all factors are made; kept: those of the last step serve again")
    for words, form in FORMS.items():
        print(words)
        print(f"{'cells':>7}{'L1 error':>13}{'':10}{'split':>10}{'splu':>10}{'ILU, GMRES':>12}{'splu/split':>12}{'GMRES/split':>13}")
        for cells in (64, 128) if quick and form is not FORMS["separable potential |x|²/2"] else (64, 128, 256):
            _row(cells, form, quick)


def _row(cells: int, form: np.ndarray, quick: bool) -> None:
    split = Split(cells, form)
    centres = gaussian.LOWER + gaussian.spacing(cells) * (np.arange(cells) + 0.5)
    x, y = np.meshgrid(centres, centres, indexing="ij")
    potential = 0.5 * (form[0, 0] * x * x + 2.0 * form[0, 1] * x * y + form[1, 1] * y * y)
    generator = gaussian.matrix(cells, potential)
    whole = Unsplit(generator, split.state.rho)
    direct, iterative = whole.direct(), whole.iterative()
    exact = expm_multiply(DT * generator, split.state.rho)
    errors = [float(np.sum(np.abs(v - exact))) * gaussian.spacing(cells) ** 2 for v in (split.kept(), whole.stages(direct))]
    calls = {
        "split new": split.fresh,
        "split kept": split.kept,
        "splu new": lambda: whole.stages(whole.direct()),
        "splu kept": lambda: whole.stages(direct),
        "gmres new": lambda: whole.stages(whole.iterative()),
        "gmres kept": lambda: whole.stages(iterative),
    }
    taken = interleave(calls, 5 if quick else 20, 1.0 if quick else 2.0)
    for factors in ("new", "kept"):
        times = [taken[f"{name} {factors}"] for name in ("split", "splu", "gmres")]
        shown = f"{errors[0]:.1e}/{errors[1]:.1e}" if factors == "new" else ""
        ratios = f"{times[1].median / times[0].median:12.1f}{times[2].median / times[0].median:13.1f}"
        columns = f"{seconds(times[0].median):>10}{seconds(times[1].median):>10}{seconds(times[2].median):>12}"
        print(f"{cells if shown else '':>7} {shown:16}{factors:6}{columns}{ratios}", flush=True)
