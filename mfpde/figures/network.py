"""Figures of network functions beside the teacher or the data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mfpde.arrays import FloatArray
from mfpde.domain import Axis
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.wide_resnets import WideResNet
from mfpde.figures.panels import choose_times, find_measure
from mfpde.figures.style import (
    DASHES,
    WIDTH,
    AxesRows,
    add_legend,
    name_run,
    pick_shades,
    set_coordinate_ticks,
    start_figure,
    write_number,
    write_title,
)
from mfpde.storage import StoredRun

Network = TwoLayer | PairNetwork | WideResNet


@dataclass(frozen=True, eq=False)
class InputLine:
    """Inputs (Q, D) along a line, their coordinate (Q,), its axis, and the data (coordinates and values) if there are any; of several
    outputs all are drawn alike."""

    inputs: FloatArray
    place: FloatArray
    axis: Axis
    data: tuple[FloatArray, FloatArray] | None
    remark: str = ""


def find_input_line(term: Network) -> InputLine | None:
    """Where to draw the network: the only input, the one beside the constant, or the unit circle; None if there is no such line."""
    if term.examples is None:
        return None
    width, bias = term.examples.width, term.examples.bias
    if width == 1:
        return _straight(term, width + bias)
    return _around(term) if width == 2 and not bias else None


def _straight(term: Network, width: int) -> InputLine:
    """x in [-3, 3] or over the data, beside an input that is always 1 if there are two."""
    low, high, data = -3.0, 3.0, None
    if term.data is not None:
        data = (term.data[0][:, 0], _gained(term, *term.data))
        low, high = float(np.min(data[0])), float(np.max(data[0]))
        pad = 0.03 * (high - low) or 1.0
        low, high = low - pad, high + pad
    place = np.linspace(low, high, 401)
    inputs = np.column_stack([place, np.ones((len(place), width - 1))])
    return InputLine(inputs, place, Axis("x", low, high), data)


def _around(term: Network) -> InputLine:
    """The unit circle; data are shown if they lie on it."""
    place = np.linspace(0.0, 2.0 * np.pi, 721)
    inputs = np.column_stack([np.cos(place), np.sin(place)])
    axis = Axis("alpha", 0.0, 2.0 * np.pi, periodic=True)
    if term.data is None:
        return InputLine(inputs, place, axis, None)
    x, y = term.data
    on = np.abs(np.hypot(x[:, 0], x[:, 1]) - 1.0) < 1e-6
    angles = np.mod(np.arctan2(x[on, 1], x[on, 0]), 2.0 * np.pi)
    left = int(np.sum(~on))
    return InputLine(inputs, place, axis, (angles, _gained(term, x, y)[on]), f"{left} data off the unit circle not shown" if left else "")


def _gained(term: Network, inputs: FloatArray, values: FloatArray) -> FloatArray:
    """What a residual path adds to its inputs (Q, d), which would hide it; the values (Q, …) of other networks as they are."""
    return values - inputs.reshape(values.shape) if isinstance(term, WideResNet) else values


def make_network_figure(term: Network, line: InputLine, runs: Sequence[StoredRun]) -> Figure:
    """One panel for each run, light to dark in time."""
    columns = 3 if len(runs) == 3 or len(runs) > 4 else min(len(runs), 2)
    rows = -(-len(runs) // columns)
    figure = start_figure(write_title(runs[0], "network function"), 1.2 + 2.2 * rows, WIDTH if columns > 1 else 5.0)
    panels: AxesRows = [list(row) for row in figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)]
    flat = [axes for row in panels for axes in row]
    entries: dict[str, Artist] = {}
    times = choose_times(runs, 5)
    for axes, run in zip(flat, runs, strict=False):
        entries |= _draw_truth(axes, term, line) | _draw_students(axes, term, line, run, times)
        axes.set_title(name_run(run))
        set_coordinate_ticks(axes, "x", line.axis, 5, columns > 1)
    _finish_network(panels, len(runs), line, "network and target" + ", less $x$" * isinstance(term, WideResNet))
    add_legend(figure, entries)
    return figure


def _finish_network(panels: AxesRows, used: int, line: InputLine, what: str) -> None:
    """Names at the outer panels; the unused one is removed."""
    name = r"input $x = (\cos\alpha, \sin\alpha)$: angle $\alpha$" if line.axis.periodic else "input $x$"
    flat = [axes for row in panels for axes in row]
    for axes in flat[used:]:
        axes.remove()
    for axes in flat[:used] if used < len(flat) else panels[-1]:
        axes.set_xlabel(name)
        axes.tick_params(labelbottom=True)
    for row in panels:
        row[0].set_ylabel(what)
    if line.remark:
        flat[0].text(0.02, 0.02, line.remark, transform=flat[0].transAxes, fontsize=7.5, color="0.25")


def _draw_truth(axes: Axes, term: Network, line: InputLine) -> dict[str, Artist]:
    """The teacher as a broken line, the data as grey circles."""
    entries: dict[str, Artist] = {}
    if line.data is not None and len(line.data[0]):
        size = float(np.clip(300.0 / len(line.data[0]), 2.0, 16.0))
        places = np.broadcast_to(line.data[0].reshape(-1, *(1,) * (line.data[1].ndim - 1)), line.data[1].shape)
        entries["data"] = axes.scatter(places, line.data[1], s=size, facecolors="none", edgecolors="0.55", linewidths=0.6)
    if term.teacher_at is not None:
        truth = _gained(term, line.inputs, term.teacher_at(line.inputs))
        lines = axes.plot(line.place, truth, color="black", dashes=(4, 2.5), linewidth=1.6, zorder=5.0)
        entries["teacher"] = lines[0]
    return entries


def _draw_students(axes: Axes, term: Network, line: InputLine, run: StoredRun, times: FloatArray) -> dict[str, Artist]:
    """The network at these times, light to dark."""
    entries: dict[str, Artist] = {}
    shades = pick_shades(len(times))
    for k, time in enumerate(times.tolist()):
        shade, dashes = shades[k], DASHES[(k + 1 - len(times)) % len(DASHES)]
        measure = find_measure(run, time)
        if measure is not None:
            values = _gained(term, line.inputs, term.student_at(measure, line.inputs))
            curves = axes.plot(line.place, values, color=shade, linestyle=dashes, linewidth=1.4)
            entries[f"$t$ = {write_number(time)}"] = curves[0]
    return entries
