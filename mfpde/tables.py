"""Text for the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compare import Comparison, Pair

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

_SHORT = 600.0


def grid_text(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Columns aligned to the right, the first to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def number(value: float, digits: int = 4) -> str:
    """A short number; a dash for what is undefined."""
    return f"{value:.{digits}g}" if math.isfinite(value) else "—"


def counted(count: int, word: str) -> str:
    """1 neuron, 2 neurons."""
    return f"{count} {word}{'s' * (count != 1)}"


def estimate_line(seconds: float, words: str) -> list[str]:
    """A line that says about how long something takes, none where that is less than ten minutes."""
    if seconds < _SHORT:
        return []
    units = (("year", 3.2e7), ("day", 86400.0), ("hour", 3600.0), ("minute", 60.0))
    unit, size = next((name, size) for name, size in units if seconds >= 1.5 * size)
    return [f"in all this takes about {float(f'{seconds / size:.2g}'):g} {unit}s of one core: {words}"]


def run_line(stored: "StoredRun") -> str:
    """Status, steps, time and the certificate of a run in one line."""
    run, steps = stored.run, stored.run.certificate
    seconds = float(stored.attributes.get("wall_seconds", 0.0))
    words = f"{run.status.name}, {max(len(steps) - 1, 0)} steps, {seconds:.2f} s"
    if not len(steps):
        return words
    rise = steps.energy_rise()
    energy = "" if math.isnan(rise) else ", energy never rises" if rise <= 1e-12 else f", energy rises by {rise:.1e}"
    solves = int(np.sum(steps["iterations"]))
    words += f", {solves} linear solves" if solves else ""
    least = f", least density {np.min(steps['minimum']):.2g}" if _is_density(stored) else ""
    return f"{words}; mass drift {steps.mass_drift():.0e}{least}{energy}"


def _is_density(stored: "StoredRun") -> bool:
    from mfpde.measure import Density

    return bool(stored.run.measures) and isinstance(stored.run.final, Density)


def comparison_table(comparison: Comparison) -> str:
    """One table for each pair."""
    return "\n".join(_pair_table(pair, comparison) for pair in comparison.pairs)


def _pair_table(pair: Pair, comparison: Comparison) -> str:
    floor = bool(np.any(pair.floor > 0.0))
    name, known = comparison.distance_name, pair.function is not None
    header = ["time", name, *([f"{name} floor"] if floor else []), *(["function"] if known else [])]
    header += [f"loss {pair.label}", f"loss {comparison.reference}", "relative gap"]
    rows = []
    for k in range(len(pair.times)):
        losses = [number(pair.loss[k], 6), number(pair.reference_loss[k], 6), number(pair.relative_loss_gap[k], 3)]
        floors = [number(pair.floor[k], 2)] if floor else []
        functions = [number(pair.function[k])] if pair.function is not None else []
        rows.append([number(pair.times[k]), number(pair.distance[k]), *floors, *functions, *losses])
    terms = " + ".join(comparison.terms) or "no common term"
    words = f"{name} {pair.method}; ".replace("sliced W2 sliced,", "sliced W2,")
    words += "function = what the networks differ by in L2(mu); " * known
    head = f"  {pair.label} against {comparison.reference} ({words}loss = {terms})\n"
    return head + grid_text(header, rows, "    ") + _unresolved(pair, name)


def _unresolved(pair: Pair, name: str) -> str:
    """A line that says where the distance cannot be told from what its method may have moved."""
    count = int(np.sum((pair.floor > 0.0) & (pair.distance <= pair.floor)))
    return f"\n    {name} is not resolved (at or below its floor) at {count} of {len(pair.times)} times" if count else ""


def batch_table(rows: Sequence[tuple[Path, str, float, Comparison | None]]) -> str:
    """The table that closes a batch."""
    lines = [(str(path), words, f"{seconds:.1f}", _furthest(c), _gap(c)) for path, words, seconds, c in rows]
    sliced = any(c is not None and c.distance_name != "W2" for *_, c in rows)
    return grid_text(("case", "status", "seconds", "largest distance" if sliced else "largest W2", "largest loss gap"), lines, "")


def _furthest(comparison: Comparison | None) -> str:
    return number(max(float(np.max(p.distance)) for p in comparison.pairs)) if comparison else "—"


def _gap(comparison: Comparison | None) -> str:
    return number(max(float(np.max(p.relative_loss_gap)) for p in comparison.pairs), 3) if comparison else "—"


def info_text(stored: "StoredRun") -> str:
    """What a result file holds."""
    run, attributes = stored.run, stored.attributes
    head = [
        ("title", stored.title),
        ("label", f"{stored.label} ({attributes.get('solver', '')})"),
        ("status", f"{run.status.name}: {run.message or run.status.value}"),
        ("domain", ", ".join(stored.domain.describe())),
        ("measure", _measure(stored)),
        ("seed", str(attributes.get("seed")) if attributes.get("seed", -1) != -1 else "none"),
        ("scheme", ("\n" + 9 * " " if run.tables else "; ").join(run.notes)),
        ("run", run_line(stored)),
        ("made", f"{attributes.get('created')} by mfpde {attributes.get('mfpde_version')}"),
        ("case", f"sha256 {attributes.get('case_sha256')}"),
    ]
    head += [("recorded", _recorded(name, run.series)) for name in run.series if not name.endswith("_of_particles")]
    text = "\n".join(f"{name:8} {value}" for name, value in head)
    names = list(run.energy)
    rows = [[number(t), *(number(float(run.energy[n][k]), 8) for n in names)] for k, t in enumerate(run.times)]
    return text + "\n" + grid_text(["time", *names], rows, "") if rows else text


def _recorded(name: str, series: Mapping[str, FloatArray]) -> str:
    """A quantity's mean and by how much it, and that of single particles, has moved."""
    mean, each = series[name], series.get(f"{name}_of_particles")
    moved = f"moved by up to {np.max(np.abs(mean - mean[0])):.1e}"
    single = "" if each is None else f", of single particles by up to {np.max(np.abs(each - each[0])):.1e}"
    return f"{name}: {number(float(mean[0]), 6)} in the mean, {moved}{single}"


def _measure(stored: "StoredRun") -> str:
    from mfpde.measure import Density

    if not stored.run.measures:
        return "nothing saved"
    final = stored.run.final
    if isinstance(final, Density):
        return f"density on {' × '.join(str(n) for n in final.grid.cells)} cells at {len(stored.run.times)} times"
    return f"{len(final.weights)} particles at {len(stored.run.times)} times"
