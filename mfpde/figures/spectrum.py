"""The figures of a spectrum: rates against modes, and modes over time."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mfpde.figures.style import WIDTH, escape_text, pick_style, start_figure
from mfpde.study.spectrum import OwnRun, Spectrum

_THEORY = "0.35"
_SIZE = 5.0
_LEAST = 1e-16


def make_spectrum_figure(report: Spectrum) -> Figure:
    """The rates with the exact ones, null modes at the foot, and below them the errors."""
    figure = start_figure(_title(report, "rates of the modes"), 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    _draw_rates(upper, report)
    _draw_errors(lower, report)
    numbers = [mode.number for mode in report.plan.modes]
    lower.set_xlabel("mode $k$" if report.plan.uniform else "mode, in the order of the rates")
    lower.set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
    lower.xaxis.set_major_locator(MaxNLocator(nbins=min(len(numbers), 20), integer=True, steps=[1, 2, 5, 10]))
    return figure


def make_modes_figure(report: Spectrum) -> Figure | None:
    """The decay of every mode, the mode that others create, and the distance of the case's own run from its teacher; what there is."""
    panels = [bool(report.rates), bool(report.created), report.own is not None and len(report.own.times) > 1]
    if not any(panels):
        return None
    figure = start_figure(_title(report, "modes over time"), 3.6, WIDTH * (0.6 + 0.45 * sum(panels)))
    cells = iter(figure.subplots(1, sum(panels), squeeze=False)[0])
    if panels[0]:
        _draw_decay(next(cells), report)
    if panels[1]:
        _draw_created(next(cells), report)
    if panels[2] and report.own is not None:
        _draw_own(next(cells), report.own)
    return figure


def _title(report: Spectrum, what: str) -> str:
    words = " ".join(report.plan.case.table.title.split())
    return escape_text(f"{words}: {what}" if words else what.capitalize(), 300)


def _draw_rates(axes: Axes, report: Spectrum) -> None:
    modes = report.plan.modes
    decaying = [mode for mode in modes if not mode.null]
    places, rates = np.array([m.number for m in decaying]), np.array([m.rate for m in decaying])
    entries = [Line2D([], [], color=_THEORY, linestyle=(0, (1, 1.5)), marker="_", markersize=11, label=_theory(report))]
    axes.plot(places, np.abs(rates), color=_THEORY, linestyle=(0, (1, 1.5)), linewidth=1.0, marker="_", markersize=13, markeredgewidth=1.6)
    for number, solver in enumerate(report.plan.solvers):
        look, own = pick_style(number), [r for r in report.rates if r.solver == solver]
        drawn = _nested(number, len(report.plan.solvers)) | {"color": look.color, "marker": look.marker}
        axes.plot([modes[r.place].number for r in own], np.abs([r.rate for r in own]), **drawn)
        entries.append(Line2D([], [], label=solver, **drawn))
    null = [mode.number for mode in modes if mode.null]
    if len(rates):
        axes.set_yscale("log")
        axes.set_ylim(0.35 * float(np.min(np.abs(rates))), 2.0 * float(np.max(np.abs(rates))))
    if null:
        exact = all(report.plan.exact(mode) for mode in modes if mode.null)
        words = r"null mode, $\lambda_k=0$" + ("" if exact else " or below round-off")
        axes.plot(null, [0.06] * len(null), color="black", marker="x", linestyle="", markersize=6, transform=axes.get_xaxis_transform())
        entries.append(Line2D([], [], color="black", marker="x", linestyle="", markersize=6, label=words))
    axes.set_ylabel(r"rate $\lambda_k$" + (r" (size; some modes grow)" if (rates < 0.0).any() else ""))
    axes.grid(color="0.92", linewidth=0.5)
    axes.legend(handles=entries, loc="upper right")


def _nested(number: int, count: int) -> dict[str, Any]:
    """Hollow markers, each smaller than the one before, so that all are seen where they agree."""
    return {"markersize": 4.0 + 3.5 * (count - 1 - number), "linestyle": "", "markerfacecolor": "none", "markeredgewidth": 1.2}


def _theory(report: Spectrum) -> str:
    return r"$\lambda_k=q^2\hat K_k/L,\ q=2\pi k/L$" if report.plan.uniform else r"eigenvalues about $\rho^*$"


def _draw_errors(axes: Axes, report: Spectrum) -> None:
    """Errors of the rates, of those of the grid itself too, and the tolerance."""
    for number, solver in enumerate(report.plan.solvers):
        look, own = pick_style(number), [r for r in report.rates if r.solver == solver]
        x = [report.plan.modes[r.place].number for r in own]
        drawn = _nested(number, len(report.plan.solvers)) | {"color": look.color, "marker": look.marker, "linestyle": look.dashes}
        axes.plot(x, [max(r.error, _LEAST) for r in own], **drawn)
        raw = [abs(r.own_error) for r in own if r.own != r.rate]
        if raw:
            axes.plot(x, raw, color=look.color, marker=look.marker, markersize=_SIZE, linestyle=(0, (1, 2)), markerfacecolor="white")
            axes.plot(
                [], [], color=look.color, marker=look.marker, linestyle=(0, (1, 2)), markerfacecolor="white", label=f"{solver}, on the grid"
            )
    axes.axhline(report.plan.table.tolerance, color="black", linewidth=0.8, linestyle=(0, (6, 2)), label="tolerance")
    axes.set_yscale("log")
    axes.set_ylabel("relative error")
    axes.grid(color="0.92", linewidth=0.5)
    axes.legend()


def _draw_decay(axes: Axes, report: Spectrum) -> None:
    """log|amplitude| over λt, which is one line for all modes; modes at rest stay at 1."""
    longest = 1.0
    for number, solver in enumerate(report.plan.solvers):
        look = pick_style(number)
        drawn = _nested(number, len(report.plan.solvers)) | {"color": look.color, "marker": look.marker}
        for r in (r for r in report.rates if r.solver == solver):
            scaled = r.times * abs(r.expected)
            longest = max(longest, float(scaled[-1]))
            axes.plot(scaled, r.amplitudes, **drawn)
        axes.plot([], [], label=f"{solver}, all modes", **drawn)
    line = np.linspace(0.0, longest, 50)
    signs = {np.sign(r.expected) for r in report.rates}
    for sign in sorted(signs):
        axes.plot(
            line, np.exp(-sign * line), color=_THEORY, linewidth=1.0, label=r"$e^{-\lambda_k t}$" if sign > 0 else r"$e^{|\lambda_k| t}$"
        )
    axes.set_yscale("log")
    axes.set_title("each mode in a run of its own")
    axes.set_xlabel(r"$|\lambda_k|\,t$")
    axes.set_ylabel("amplitude over the initial one")
    axes.grid(color="0.92", linewidth=0.5)
    axes.legend()


def _draw_created(axes: Axes, report: Spectrum) -> None:
    """What all runs of the larger amplitude create, and its second order over time."""
    coupling, first = report.plan.coupling, report.created[0]
    assert coupling is not None
    for number, each in enumerate(report.created):
        look = pick_style(number)
        drawn = _nested(number, len(report.created)) | {"color": look.color, "marker": look.marker}
        axes.plot(each.times, each.amplitudes[0], label=each.solver, **drawn)
    rates = sum(report.plan.modes[wave - 1].rate for wave in coupling.waves)
    line = np.linspace(0.0, float(first.times[-1]), 200)
    axes.plot(line, first.predicted * (1.0 - np.exp(-rates * line)), color=_THEORY, linewidth=1.0, label="second order")
    i, j = coupling.waves
    who = f"modes {i} and {j} create" if i != j else f"mode {i} creates"
    axes.set_title(f"{who} null mode {coupling.wave}, which stays")
    axes.set_xlabel("time $t$")
    axes.set_ylabel(f"its amplitude over $a^2$, $a={first.sizes[0]:g}$")
    axes.grid(color="0.92", linewidth=0.5)
    axes.legend()


def _draw_own(axes: Axes, own: OwnRun) -> None:
    """W₂ and its bound, and the root of the loss, which falls on."""
    drawn = [
        (0, own.distance, r"$W_2(\rho_t,\rho^*)$"),
        (1, own.bound, "least that null modes allow"),
        (3, np.sqrt(2.0 * np.maximum(own.loss, 0.0)), r"$\sqrt{2E}$"),
    ]
    for number, values, label in drawn:
        look, kept = pick_style(number), (own.times > 0.0) & (values > 0.0)
        if kept.any():
            lines = {"color": look.color, "linestyle": look.dashes, "marker": look.marker, "markersize": _SIZE}
            axes.plot(own.times[kept], values[kept], label=label, **lines)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(escape_text(f"the case's own start ({own.label})"))
    axes.set_xlabel("time $t$")
    axes.set_ylabel("distance, and root of the loss")
    axes.grid(color="0.92", linewidth=0.5)
    axes.legend()
