"""How figures look: settings, names and text, the style of each run, shades, axes and legends."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib import style as mpl_style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mfpde.arrays import FloatArray, IntArray
from mfpde.domain import Axis
from mfpde.storage import StoredRun

WIDTH = 6.8
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
COLOR_MAP = "viridis"

_RC = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "figure.titlesize": 11.0,
    "axes.linewidth": 0.6,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "mfpde",
}
_COLORS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
    "|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
_SYMBOL = re.compile(rf"({_GREEK}|[A-Za-z])(?:_?(\d+)|_([a-z]))?")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DECADE_SPREAD = 20.0
_LOG_DEPTH = 1e-16
_LONG = 50.0
_EARLY = 0.15
_PLACE_OF_ZERO = 0.12
_BREAK = 0.45

AxesRows: TypeAlias = list[list[Axes]]
_Layout: TypeAlias = Literal["constrained", "compressed"]


@dataclass(frozen=True)
class RunStyle:
    """How one run looks."""

    color: str
    dashes: Any
    marker: str
    width: float


@contextmanager
def use_style() -> Iterator[None]:
    """Matplotlib's defaults with our sizes, whatever the user's own settings are, and those back afterwards."""
    with mpl_style.context(["default", _RC]):
        yield


# Names and text.


def escape_text(text: str, width: int = 60) -> str:
    """Text from a file as it stands: shortened, with no mathematics in it, never hidden from legends."""
    short = text if len(text) <= width else text[: width - 1] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def name_run(run: StoredRun) -> str:
    """The run's label, or its file's name without one."""
    return escape_text(run.label or run.path.stem)


def make_distinct(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs, with their files' names in labels that occur twice."""
    labels = [run.label for run in runs]
    twice = [labels.count(label) > 1 for label in labels]
    named = [run.attributes | {"label": f"{run.label} {run.path.stem}".strip()} for run in runs]
    return [replace(run, attributes=more) if again else run for run, more, again in zip(runs, named, twice, strict=True)]


def write_symbol(name: str) -> str:
    """An axis name as mathematics where it looks like a symbol (theta_1), else as it stands."""
    found = _SYMBOL.fullmatch(name)
    if found is None:
        return escape_text(name, 30)
    letter, number, suffix = found.groups()
    index = number or suffix
    return f"${letter if len(letter) == 1 else chr(92) + letter}{f'_{{{index}}}' if index else ''}$"


def write_number(value: float, digits: int = 4) -> str:
    """A short number: 0.01, 1000, 2·10⁶."""
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    factor, exponent = text.split("e")
    power = f"10{str(int(exponent)).translate(_RAISED)}"
    return power if factor == "1" else f"{factor}·{power}"


def write_title(run: StoredRun, what: str) -> str:
    """The case's title and what is drawn."""
    title = " ".join(run.title.split())
    return escape_text(f"{title}: {what}" if title else what[:1].upper() + what[1:], 300)


def start_figure(title: str, height: float, width: float = WIDTH, layout: _Layout = "constrained") -> Figure:
    """An empty figure with its title on as many lines as needed."""
    lines = textwrap.wrap(title, int(12.5 * width))
    figure = Figure(figsize=(width, height + 0.18 * (len(lines) - 1)), layout=layout)
    figure.suptitle("\n".join(lines))
    return figure


def add_legend(figure: Figure, entries: dict[str, Artist]) -> None:
    """A legend below all panels, in as many columns as fit."""
    if not entries:
        return
    lengths, room = [len(name) + 9 for name in entries], 15.5 * figure.get_figwidth()
    columns = len(entries) if sum(lengths) <= room else max(1, int(room / max(lengths)))
    handles, names = list(entries.values()), list(entries)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=3.2, columnspacing=1.5)


def add_remark(axes: Axes, notes: Sequence[str]) -> None:
    """Small print above the right end of a panel."""
    text = "; ".join(note for note in notes if note)
    axes.set_title(text, loc="right", fontsize=7.5, color="0.25")


# Looks and scales.


def pick_style(index: int) -> RunStyle:
    """The first run is a broad full line; later ones are thinner and broken, so that they show on top of it."""
    return RunStyle(
        _COLORS[index % len(_COLORS)],
        DASHES[index % len(DASHES)],
        _MARKERS[index % len(_MARKERS)],
        2.2 if index == 0 else 1.4,
    )


def pick_shades(count: int) -> FloatArray:
    """Colours (count, 4) from light to dark, light enough to differ and dark enough to see; a single one is dark."""
    shades: FloatArray = matplotlib.colormaps[COLOR_MAP](np.linspace(0.75 if count > 1 else 0.0, 0.0, count))
    return shades


def spread_indices(count: int, most: int) -> IntArray:
    """At most ``most`` of the indices below ``count``, evenly spread, with the first and the last."""
    picked: IntArray = np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(np.int64))
    return picked


@dataclass(frozen=True)
class TimeScale:
    """Where times are drawn: at themselves, or where they are spread over decades on a logarithmic axis from ``first`` to ``last``,
    with time 0 at a place of its own (``zero``) to the left of a break; 0 where there is no such time."""

    first: float
    last: float
    logarithmic: bool = False
    zero: float = 0.0

    def place(self, times: FloatArray) -> FloatArray:
        """Times as they stand on the axis, (n,); nan for those between 0 and ``first``, which a logarithmic axis leaves out."""
        if not self.logarithmic:
            return times
        return np.where(times >= self.first, times, np.where(times == 0.0, self.zero or np.nan, np.nan))

    @property
    def gap(self) -> float:
        """Where the break is."""
        return self.zero * (self.first / self.zero) ** _BREAK if self.zero else 0.0


def choose_time_scale(times: FloatArray) -> TimeScale:
    """Logarithmic if the positive times are mostly early ones of a long span, else linear, as for times of equal distance."""
    positive = np.unique(times[times > 0.0])
    if not len(positive):
        return TimeScale(0.0, float(np.max(times)))
    first, last = float(positive[0]), float(positive[-1])
    if last < _LONG * first or float(np.median(positive)) > _EARLY * last:
        return TimeScale(float(np.min(times)), last)
    zero = first * (first / last) ** _PLACE_OF_ZERO if bool(np.any(times == 0.0)) else 0.0
    return TimeScale(first, last, True, zero)


def scale_time_axis(axes: Axes, scale: TimeScale) -> str:
    """Limits and ticks of the time axis; returns its label."""
    if not scale.logarithmic:
        pad = 0.03 * (scale.last - scale.first) or 0.1 * scale.last or 1.0
        axes.set_xlim(scale.first - pad, scale.last + pad)
        return "time $t$"
    pad = (scale.last / (scale.zero or scale.first)) ** 0.03
    axes.set_xscale("log")
    axes.set_xlim((scale.zero or scale.first) / pad, scale.last * pad)
    decades = np.asarray(LogLocator(numticks=12).tick_values(scale.first, scale.last))
    shown = [scale.zero] * (scale.zero > 0.0) + [t for t in decades.tolist() if scale.first * (1.0 - 1e-9) <= t <= scale.last * pad]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: "0" if t < scale.first * (1.0 - 1e-9) else write_number(t)))
    axes.xaxis.set_minor_locator(FixedLocator(_between(scale)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if scale.zero:
        _break_axis(axes, scale.gap)
    return "time $t$ (logarithmic)"


def _between(scale: TimeScale) -> list[float]:
    """The multiples of powers of ten on the logarithmic part; none where there are many decades."""
    low, high = int(np.floor(np.log10(scale.first))), int(np.ceil(np.log10(scale.last)))
    multiples = [k * 10.0**n for n in range(low, high + 1) for k in range(2, 10)] if high - low <= 8 else []
    return [t for t in multiples if scale.first <= t <= scale.last]


def _break_axis(axes: Axes, place: float) -> None:
    """A gap in the frame, between two strokes, where the scale is interrupted."""
    corners = [(-1.0, -1.0), (-0.2, 1.0), (1.0, 1.0), (0.2, -1.0)]
    strokes = Path([corners[0], corners[1], corners[3], corners[2]], [Path.MOVETO, Path.LINETO] * 2)
    look: dict[str, Any] = {
        "transform": axes.get_xaxis_transform(),
        "clip_on": False,
        "linestyle": "none",
        "markersize": 7.0,
        "zorder": 6.0,
    }
    for end in (0.0, 1.0):
        axes.plot([place], [end], marker=Path(corners), markerfacecolor="white", markeredgewidth=0.0, **look)
        axes.plot([place], [end], marker=strokes, markerfacecolor="none", markeredgecolor="black", markeredgewidth=0.6, **look)


def scale_value_axis(axes: Axes, values: FloatArray, sized: bool) -> str:
    """Logarithmic for nonnegative values over more than a decade, else linear, from 0 on for sizes. Returns what is left out."""
    values = values[np.isfinite(values)]
    positive = values[values > 0.0]
    if not len(positive) or (values < 0.0).any() or positive.max() < _DECADE_SPREAD * positive.min():
        _room(axes, values, sized)
        return ""
    axes.set_yscale("log", nonpositive="mask")
    bottom = max(float(positive.min()), _LOG_DEPTH * float(positive.max()))
    room = max(1.8, (float(positive.max()) / bottom) ** 0.06)
    axes.set_ylim(bottom / room, room * float(positive.max()))
    if not (values < bottom).any():
        return ""
    return f"values below {write_number(bottom, 1)} are not shown" if positive.min() < bottom else "zero is not shown"


def _room(axes: Axes, values: FloatArray, sized: bool) -> None:
    """Linear limits that do not blow up the rounding errors of a constant; sizes begin at 0."""
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
    if sized and low >= 0.0:
        axes.set_ylim(-0.03 * high if low == 0.0 else 0.0, 1.08 * high or 1.0)  # a marker at 0 is seen whole
        return
    size = max(abs(low), abs(high))
    pad = 0.06 * (high - low) if high - low > 1e-9 * size else 0.1 * size or 1.0
    axes.set_ylim(low - pad, high + pad)


def set_coordinate_ticks(axes: Axes, which: str, axis: Axis, most: int, inner: bool = False) -> None:
    """Limits and ticks of one coordinate; a circle of length 2π that starts at 0 or −π has ticks at multiples of π/2.

    ``inner``: none at the ends, where their labels would meet those of the next panel.
    """
    getattr(axes, f"set_{which}lim")(axis.lower, axis.upper)
    target = axes.xaxis if which == "x" else axes.yaxis
    quarter = axis.lower / (0.5 * np.pi)
    if axis.periodic and np.isclose(axis.length, 2.0 * np.pi) and np.isclose(quarter, round(quarter)):
        _set_quarters(target, round(quarter), 1 if most > 4 else 2, inner)
        return
    ticks = np.asarray(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(axis.lower, axis.upper))
    room = 0.07 * axis.length if inner else -1e-9 * axis.length
    kept = (ticks >= axis.lower + room) & (ticks <= axis.upper - room)
    target.set_major_locator(FixedLocator(ticks[kept].tolist()))


def _set_quarters(target: XAxis | YAxis, first: int, step: int, inner: bool) -> None:
    """Ticks at multiples of π/2 once around the circle."""
    names = {0: "0", 1: "π/2", 2: "π", 3: "3π/2", 4: "2π", -1: "−π/2", -2: "−π"}
    ticks = [k for k in range(first, first + 5, step) if not (inner and k in (first, first + 4))]
    target.set_ticks([0.5 * np.pi * k for k in ticks], [names.get(k, f"{k / 2:g}π") for k in ticks])
