"""Finite volumes beside other codes in one run: time at equal error, work and precision, laws that hold or do not.

``pip install '.[bench]'`` and ``python benchmarks/finite_volume [--quick] [--rows 1 2 …] [--output FOLDER]``

Every row solves one problem with ``mfpde`` and with its peers, each at the coarsest grid and loosest tolerance that reach the same
error. Calls take turns, so that whatever else the machine does hits them alike. All run on one thread, except the explicit step of
row 5. Times leave out what is done once for a problem (matrices, compilation), on all sides, unless the line says otherwise.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PEERS = {"pde": "py-pde", "fipy": "FiPy"}
ROWS = {1: "line", 2: "plane", 3: "aggregation", 4: "noisy_network", 5: "plane_step", 6: "steady_state", 7: "splitting"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/finite_volume", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and settings: about half the time")
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="some rows only, 1 to 7")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "figures", help="folder of the figures")
    return parser.parse_args()


def package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} not installed"


def main() -> int:
    choices = parse()
    missing = [name for module, name in PEERS.items() if find_spec(module) is None]
    if missing:
        print(f"{' and '.join(missing)} not installed: pip install '.[bench]'", file=sys.stderr)
        return 2
    import numba

    warnings.filterwarnings("ignore", module=r"pde|fipy|numba|scipy")
    versions = ", ".join(package(name) for name in ("mfpde", "numpy", "scipy", "numba", "py-pde", "FiPy"))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {versions}")
    begun = time.perf_counter()
    for row in choices.rows:
        numba.set_num_threads(1)
        started = time.perf_counter()
        __import__(ROWS[row]).main(choices.quick, choices.output)
        print(f"(row {row}: {time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f})", flush=True)
    print(f"\n{time.perf_counter() - begun:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
