"""How long the command takes to answer, and what compiling costs: the main case with a fresh, a filled and an unusable cache.

``python benchmarks/startup.py``
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASE = Path(__file__).resolve().parent.parent / "cases" / "teacher_student.toml"
HELP_SECONDS = 0.4


def verdict(good: bool) -> str:
    return "reached" if good else "MISSED"


def mfpde(*arguments: str, **environment: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run the command; its wall time and what it said."""
    command = [sys.executable, "-m", "mfpde", *arguments]
    start = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    return time.perf_counter() - start, ended


def run_case(words: str, cache: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the main case with this cache of compiled kernels; print its time and how many were compiled and loaded."""
    environment |= {"NUMBA_CACHE_DIR": str(cache), "NUMBA_DEBUG_CACHE": "1"}
    with tempfile.TemporaryDirectory() as output:
        taken, ended = mfpde("run", str(CASE), "--output", output, "--no-figures", **environment)
        results = len(list(Path(output).glob("*.h5")))
    saved, loaded = (ended.stdout.count(f"[cache] data {what}") for what in ("saved", "loaded"))
    print(f"  {words:46}{taken:6.2f} s   saved {saved}, loaded {loaded}; exit code {ended.returncode}, {results} results")
    return ended


def main() -> None:
    times = [mfpde("--help")[0] for _ in range(10)]
    best, middle = min(times), statistics.median(times)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"mfpde --help: best {best:.3f} s, median {middle:.3f} s of 10, required < {HELP_SECONDS} s: {verdict(middle < HELP_SECONDS)}")

    print(f"\n{CASE.name}, kernels saved to and loaded from the cache")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        run_case("first run, fresh cache", cache)
        files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb*")}
        second = run_case("second run, same cache", cache)
        same = files == {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb*")}
        good = same and "[cache] data saved" not in second.stdout
        print(f"  second run compiles nothing and leaves the {len(files)} cache files alone: {verdict(good)}")
    # numba turns to the package's own folder first, and only then has none
    fallback = run_case("cache that cannot be written", "/dev/null/x")
    nowhere = run_case("no place for a cache at all", "/dev/null/x", NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator")
    good = fallback.returncode == nowhere.returncode == 0 and "[cache] data" not in nowhere.stdout
    print(f"  runs without a cache that can be written: {verdict(good)}")


if __name__ == "__main__":
    main()
