"""Work and precision: the settings of each method, the fastest that reaches an error, the table of ratios and the figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter
from timing import Times, interleave, seconds, timed, verdict

from mfpde.figures.style import DASHES, start_figure, use_style

OURS, _CANDIDATES = "mfpde", 3
_FACTORS = (range(1, 10), (1, 2, 3, 5), (1, 2, 5), (1, 3))
_LINES = (("#0072B2", "o"), ("#D55E00", "s"), ("#000000", "^"), ("#009E73", "D"), ("#CC79A7", "v"), ("#E69F00", "P"))


@dataclass(frozen=True)
class Setting:
    """One way to solve the problem; ``solve`` does what is timed, and ``error`` judges what it returns."""

    method: str
    words: str
    solve: Callable[[], object]
    error: Callable[[object], float]


@dataclass(frozen=True)
class Point:
    """What a setting gave; ``setting`` is None where it is not to be timed again."""

    method: str
    words: str
    error: float
    time: float
    setting: Setting | None = None
    extrapolated: bool = False


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    name: str
    words: str
    error: float
    times: Times
    wanted: float | None = None


def measure(settings: Sequence[Setting], rounds: int, budget: float) -> list[Point]:
    """All settings, in turn; the first call of each, which may compile, gives the error and counts only where it is the only one."""
    errors, first = [], []
    for setting in settings:
        found: list[object] = []
        first.append(timed(lambda s=setting, f=found: f.append(s.solve())))
        errors.append(setting.error(found[0]))
    quick = {str(k): setting.solve for k, setting in enumerate(settings) if first[k] < budget}
    times = interleave(quick, rounds, budget)
    least = [times[str(k)].least if str(k) in times else first[k] for k in range(len(settings))]
    return [Point(s.method, s.words, e, t, s) for s, e, t in zip(settings, errors, least, strict=True)]


def candidates(points: Sequence[Point], method: str, error: float) -> list[Point]:
    """The fastest points of a method within the error, of those that can be timed again."""
    good = [point for point in points if point.method == method and point.error <= error and point.setting is not None]
    return sorted(good, key=lambda point: point.time)[:_CANDIDATES]


def compare(points: Sequence[Point], error: float, wanted: dict[str, float], rounds: int, budget: float) -> list[Line]:
    """The best settings of each method timed again in turn, and the fastest of them; ``wanted``: the ratios to ours asked for."""
    chosen: dict[str, dict[str, Point]] = {}
    for method in dict.fromkeys(point.method for point in points):
        chosen[method] = {f"{method} {k}": point for k, point in enumerate(candidates(points, method, error))}
        if not chosen[method]:
            print(f"{method}: no setting tried reaches {error:.1e}")
    calls = {name: point.setting.solve for found in chosen.values() for name, point in found.items() if point.setting}
    times = interleave(calls, rounds, budget)
    lines = []
    for method, found in chosen.items():
        if found:
            best = min(found, key=lambda name: times[name].median)
            lines.append(Line(method, found[best].words, found[best].error, times[best], wanted.get(method)))
    return lines


def show(lines: Sequence[Line]) -> None:
    """The table; ratios are theirs over ours, which is the first line."""
    ours = lines[0].times
    width = max(len(line.name) for line in lines) + 2
    print(f"{'':{width}}{'setting':31}{'L1 error':>9}{'median':>10}{'least':>10}{'median/ours':>13}{'least/ours':>12}")
    for line in lines:
        median, least = line.times.median / ours.median, line.times.least / ours.least
        asked = "" if line.wanted is None else f"   wanted {line.wanted:g}: {verdict(median >= line.wanted)}"
        numbers = f"{seconds(line.times.median):>10}{seconds(line.times.least):>10}{median:13.2f}{least:12.2f}"
        print(f"{line.name:{width}}{line.words:31}{line.error:9.1e}{numbers}{asked}", flush=True)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both time and error, by error."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.time, p.error)):
        if not kept or point.error < kept[-1].error:
            kept.append(point)
    return kept


def draw(points: Sequence[Point], error: float, title: str, path: Path) -> None:
    """Time against error, the best settings of each method."""
    with use_style():
        figure = start_figure(title, 3.6)
        axes = figure.add_subplot()
        best: list[Point] = []
        for k, method in enumerate(dict.fromkeys(point.method for point in points)):
            colour, marker = _LINES[k % len(_LINES)]
            shown = front([point for point in points if point.method == method])
            best += shown
            style = {"color": colour, "linestyle": DASHES[k % len(DASHES)], "linewidth": 1.1}
            axes.plot([p.error for p in shown], [p.time for p in shown], label=method, marker=marker, markersize=4.5, **style)
            guessed = [p for p in shown if p.extrapolated]
            hollow = {"marker": marker, "markersize": 4.5, "markerfacecolor": "white", "color": colour, "linestyle": "none"}
            axes.plot([p.error for p in guessed], [p.time for p in guessed], **hollow)
        axes.axvline(error, color="0.6", linewidth=0.7, zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="L¹ error", ylabel="time (s)")
        _set_ticks(axes.xaxis, [p.error for p in best])
        _set_ticks(axes.yaxis, [p.time for p in best])
        axes.grid(which="major", color="0.9", linewidth=0.5)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        save(figure, path)


def _set_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Labels at some multiples of powers of ten, as many as do not run into each other."""
    axis.set_major_locator(FixedLocator(_ticks(min(values), max(values))))
    axis.set_major_formatter(FuncFormatter(_label))
    axis.set_minor_locator(LogLocator(subs=range(2, 10)))
    axis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """As many ticks as there are with a seventh of the axis between them; the ends themselves where there are not two."""
    first, last = math.log10(low), math.log10(high)
    margin = 0.05 * (last - first)
    powers = range(math.floor(first - margin), math.ceil(last + margin) + 1)
    choices = [[n + math.log10(k) for n in powers for k in factors] for factors in _FACTORS]
    choices += [[float(n) for n in powers if n % step == 0] for step in (1, 2, 5, 10, 20, 50)]
    for places in choices:
        inside = [place for place in places if first - margin <= place <= last + margin]
        if len(inside) > 1 and min(b - a for a, b in pairwise(inside)) >= (last - first) / 7.0:
            return [10.0**place for place in inside]
    return [low, high]


def _label(value: float, _: int) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = f"{value / 10.0**exponent:.2g}"
    return rf"$10^{{{exponent}}}$" if factor == "1" else rf"${factor}\times10^{{{exponent}}}$"


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    print(f"written: {path}")


__all__ = ["OURS", "Line", "Point", "Setting", "compare", "draw", "measure", "show"]
