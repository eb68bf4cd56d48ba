"""Figures of a study of the wide residual network: losses along all flows, and errors of the expansions by radius and by depth."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from mfpde.arrays import FloatArray
from mfpde.figures.style import (
    WIDTH,
    TimeScale,
    add_legend,
    choose_time_scale,
    escape_text,
    pick_style,
    scale_time_axis,
    scale_value_axis,
    start_figure,
    write_number,
)
from mfpde.study.orders import Order
from mfpde.study.wide_resnet import Errors
from mfpde.study.wide_resnet_text import WideReport

_LOSSES = ("$E$ (exact)", "$E^{(1)}$ (first order)", "$E^{(2)}$ (second)")
_FLOWS = ("along the exact flow", "along the flow of $E^{(1)}$", "along the flow of $E^{(2)}$")
_OUTPUTS = ("$X^L$", "$X^{(1)}$", "$X^{(2)}$")
_GUIDE = (0, (1, 1.6))
_SIZE = 4.5


def make_losses_figure(report: WideReport) -> Figure:
    """The three losses along each of the three flows on one scale, a ring where the exact one begins to rise; and W₂ to the exact flow."""
    flows = report.study.flows
    figure = start_figure(_title(report, "losses along all flows"), 5.4, WIDTH + 0.6)
    panels = figure.subplots(2, 2)
    scale, losses = choose_time_scale(flows.times), flows.loss.ravel()
    for k, axes in enumerate(panels.flat[:3]):
        for i in range(3):
            _draw_course(axes, scale, flows.times, flows.loss[k, i], i)
        rise = flows.rise(k, 0)
        if rise.there:
            place = scale.place(np.array([rise.since]))
            axes.plot(place, [rise.low], marker="o", markersize=9.0, markerfacecolor="none", markeredgecolor=pick_style(0).color)
        axes.set_title(_FLOWS[k] + (f"\n$E$ rises from {write_number(rise.low, 2)} after $t$ = {write_number(rise.since)}" * rise.there))
        _finish(axes, scale, losses)
        axes.set_ylabel("loss")
    axes = panels.flat[3]
    for k in (1, 2):
        _draw_course(axes, scale, flows.times, flows.distance[k], k)
    axes.set_title("how far the exact flow is from the others")
    axes.set_ylabel("$W_2$, level by level")
    _finish(axes, scale, flows.distance[1:].ravel())
    add_legend(figure, _entries(report))
    return figure


def make_orders_figure(report: WideReport) -> Figure:
    """Errors of the expansions against r, and of all networks of L levels against L, with the fitted and the expected orders."""
    figure = start_figure(_title(report, "errors of the expansions, and of few levels"), 4.2, WIDTH + 0.6)
    left, right = figure.subplots(1, 2)
    expansion, limit = report.study.expansion, report.study.limit
    _draw_errors(left, expansion, expansion.widths, (1, 2), report.orders, "r")
    left.set_xlabel("radius $r$: parameters $rθ$")
    left.set_ylabel("$|X^L - X|$ in $L^2(μ)$")
    left.set_title(f"expansions of the network ({report.table.law} ρ)")
    _draw_errors(right, limit, 1.0 / limit.widths, (0, 1, 2), (1.0,) * 3, "1/L")
    counts = np.round(1.0 / limit.widths)
    right.xaxis.set_major_locator(FixedLocator(counts.tolist()) if len(counts) <= 8 else LogLocator())
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write_number(value)))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.set_xlabel("levels $L$")
    right.set_ylabel(r"off the limit $L \to \infty$ in $L^2(μ)$")
    right.set_title("one ρ(θ, ε) on L levels")
    return figure


def _title(report: WideReport, what: str) -> str:
    words = " ".join(report.title.split())
    return escape_text(f"{words}: {what}" if words else what[:1].upper() + what[1:], 300)


def _draw_course(axes: Axes, scale: TimeScale, times: FloatArray, values: FloatArray, k: int) -> None:
    look, places = pick_style(k), scale.place(times)
    kept = np.isfinite(places)
    style: dict[str, Any] = {
        "color": look.color,
        "linestyle": look.dashes,
        "linewidth": look.width,
        "marker": look.marker,
        "markersize": 3.0,
    }
    axes.plot(places[kept], values[kept], **style)


def _finish(axes: Axes, scale: TimeScale, values: FloatArray) -> None:
    if remark := scale_value_axis(axes, values, True):
        axes.set_title(f"{axes.get_title()}\n({remark})")
    axes.set_xlabel(scale_time_axis(axes, scale))
    axes.grid(color="0.9", linewidth=0.5)


def _entries(report: WideReport) -> dict[str, Artist]:
    entries: dict[str, Artist] = {}
    for k, name in enumerate(_LOSSES):
        look = pick_style(k)
        entries[name] = Line2D([], [], color=look.color, linestyle=look.dashes, linewidth=look.width, marker=look.marker, markersize=3.0)
    if any(report.study.flows.rise(k, 0).there for k in range(3)):
        ring: dict[str, Any] = {"marker": "o", "markersize": 9.0, "markerfacecolor": "none", "linestyle": ""}
        entries["$E$ begins to rise"] = Line2D([], [], color=pick_style(0).color, **ring)
    return entries


def _draw_errors(axes: Axes, errors: Errors, at: FloatArray, networks: tuple[int, ...], expected: tuple[float, ...], name: str) -> None:
    """Markers, hollow where they are in no fit, the fitted laws, and dotted lines of the expected orders; round-off is named, not drawn."""
    if errors.exact.all():
        axes.text(0.5, 0.5, "nothing but round-off", transform=axes.transAxes, ha="center", color="0.3")
        axes.set_yticks([])
        axes.set_xlim(float(np.min(at)), float(np.max(at)))
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color="0.9", linewidth=0.5)
    entries, guides = dict[str, Artist](), list[float]()
    for k, network in enumerate(networks):
        look, fit, values = pick_style(network), errors.fits[k], errors.values[k]
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": _SIZE, "linestyle": ""}
        if errors.exact[k]:
            entries[f"{_OUTPUTS[network]}: round-off"] = Line2D([], [], **style)
            continue
        for chosen, face in ((errors.used[k], look.color), (~errors.used[k] & (values > 0.0), "white")):
            axes.plot(at[chosen], values[chosen], markerfacecolor=face, **style)
        if np.isfinite(fit.value):
            axes.plot(at, fit.error(errors.widths), color=look.color, linestyle=look.dashes, linewidth=1.2)
            if np.isfinite(expected[k]) and expected[k] not in guides:
                _draw_guide(axes, at, errors, k, expected[k])
                guides.append(expected[k])
        entries[f"{_OUTPUTS[network]}: {_order_words(fit)}"] = Line2D([], [], **(style | {"linestyle": look.dashes}))
    if (~errors.used & ~errors.exact[:, None]).any():
        hollow: dict[str, Any] = {"marker": "o", "markersize": _SIZE, "markerfacecolor": "white", "linestyle": ""}
        entries["not in the fit"] = Line2D([], [], color="0.4", **hollow)
    if guides:
        laws = [f"${name}^{{{write_number(order)}}}$" if order != 1.0 else f"${name}$" for order in guides]
        entries[f"like {', '.join(laws)}"] = Line2D([], [], color="0.4", linestyle=_GUIDE)
    axes.legend(
        list(entries.values()), list(entries), fontsize=7.5, handlelength=2.8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17)
    )


def _draw_guide(axes: Axes, at: FloatArray, errors: Errors, k: int, order: float) -> None:
    """A line of the expected order below the points."""
    first = int(np.flatnonzero(errors.used[k])[0])
    law = 0.4 * errors.values[k, first] * (errors.widths / errors.widths[first]) ** order
    axes.plot(at, law, color="0.4", linestyle=_GUIDE, linewidth=1.0)


def _order_words(fit: Order) -> str:
    if not np.isfinite(fit.value):
        return "no order"
    return f"order {fit.value:.2f} [{fit.low:.2f}, {fit.high:.2f}]" if np.isfinite(fit.low) else f"order {fit.value:.2f}"
