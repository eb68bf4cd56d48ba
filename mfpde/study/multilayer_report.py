"""What a study of networks of many layers has found, as plain data, for spreadsheets and for the other floors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.study.multilayer_plan import MultilayerPlan
from mfpde.study.multilayer_rates import (
    Correlation,
    Fit,
    chaos_fits,
    collapse_fits,
    correlations,
    depth_order,
    limit_doubts,
    residual_fits,
)
from mfpde.study.orders import Order
from mfpde.study.text import csv_text, plain_number

_HEADER = ["part", "scaling", "depth", "width", "seed", "quantity", "value", "slope", "low", "high", "expected"]


@dataclass(frozen=True, eq=False)
class MultilayerReport:
    """``values`` with the names of their ``dimensions``, along the ``scales``, and what was fitted to them."""

    plan: MultilayerPlan
    scales: Mapping[str, Any]
    dimensions: Mapping[str, tuple[str, ...]]
    values: Mapping[str, FloatArray]
    fits: tuple[Fit, ...] = field(init=False)
    correlations: tuple[Correlation, ...] = field(init=False)
    order: Order | None = field(init=False)

    def __post_init__(self) -> None:
        table, values = self.plan.table, self.values
        fits = (*chaos_fits(table, values), *collapse_fits(table, values), *residual_fits(table, values))
        object.__setattr__(self, "fits", fits)
        object.__setattr__(self, "correlations", tuple(correlations(table, values)))
        object.__setattr__(self, "order", None if table.residual is None else depth_order(table.residual, values))

    def of(self, part: str, scaling: str | None = None) -> list[Fit]:
        """The fits of a part, or of one scaling in it."""
        return [fit for fit in self.fits if fit.part == part and scaling in (None, fit.scaling)]

    def text(self) -> str:
        """A table for each part."""
        from mfpde.study.multilayer_text import report_text

        return report_text(self)

    def data(self) -> dict[str, Any]:
        """Everything but the outputs, which are in study.h5."""
        kept = {
            name: {"dimensions": list(self.dimensions[name]), "values": _plain(values)}
            for name, values in self.values.items()
            if name != "residual_limit_output"
        }
        scales = {name: np.asarray(values).tolist() for name, values in self.scales.items() if name != "input"}
        order = None if self.order is None else {key: plain_number(getattr(self.order, key)) for key in ("value", "low", "high")}
        return {
            "description": self.plan.description,
            "slopes": [_fit_data(fit) for fit in self.fits],
            "correlations": [
                {"depth": c.depth, "width": c.width, **{key: plain_number(getattr(c, key)) for key in ("value", "low", "high")}}
                for c in self.correlations
            ],
            "order_in_depth": order,
            "scales": scales,
            "arrays": kept,
        }

    def csv(self) -> str:
        """A row for each quantity of each network, with the slope in m that was fitted to it."""
        rows = []
        for fit in self.fits:
            seeds = self.scales[f"{fit.part}_seed"]
            rate = [fit.rate.value, fit.rate.low, fit.rate.high, fit.expected]
            for w, width in enumerate(fit.widths):
                for s, seed in enumerate(seeds):
                    head = [fit.part, fit.scaling, fit.depth, width, seed, fit.quantity]
                    rows.append([*head, float(fit.samples[w, s]), *rate])
        return csv_text(_HEADER, rows)

    def arrays(self) -> tuple[dict[str, Any], dict[str, tuple[tuple[str, ...], Any]]]:
        """All arrays."""
        return dict(self.scales), {name: (self.dimensions[name], values) for name, values in self.values.items()}

    def missed(self) -> list[str]:
        """Slopes that are not as they should be, and limits that are not known well enough."""
        from mfpde.study.multilayer_text import depth_missed, missed_line

        wrong = [missed_line(fit) for fit in self.fits if fit.misses]
        return [*wrong, *limit_doubts(self.plan.table, self.values), *depth_missed(self)]

    def draw(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """study-chaos, study-collapse and study-residual."""
        from mfpde.figures import draw_multilayer

        return draw_multilayer(self, folder, formats)


def _fit_data(fit: Fit) -> dict[str, Any]:
    asked = {"expected": plain_number(fit.expected), "allowance": fit.allowance, "missed": fit.misses}
    rate = {key: plain_number(getattr(fit.rate, key)) for key in ("value", "low", "high")}
    return {"part": fit.part, "scaling": fit.scaling, "depth": fit.depth, "quantity": fit.quantity, **rate, **asked}


def _plain(values: FloatArray) -> Any:
    """Nested lists, None where there is no number."""
    return [plain_number(x) for x in values] if values.ndim == 1 else [_plain(row) for row in values]
