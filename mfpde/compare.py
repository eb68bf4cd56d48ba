"""How far runs of one problem are apart: Wasserstein distance, loss and moments at their common times."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.distance import SLICED, Distance, check_method, wasserstein
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.wide_resnets import WideResNet
from mfpde.measure import Measure, covariance, mean
from mfpde.problem import Problem

if TYPE_CHECKING:
    from mfpde.storage import StoredRun


@dataclass(frozen=True, eq=False)
class Pair:
    """One run against the reference at their common ``times`` (T,).

    ``distance`` is W₂ with ``floor``, the error that its ``method`` may have; ``loss`` and ``reference_loss`` are the sums of the
    energy terms that are finite in all runs (atoms have no entropy), nan where there are none, all (T,); ``means`` and ``deviations``
    (T, d) are the run's; ``function`` (T,) is how far apart what the networks compute is, None where that is not known.
    """

    label: str
    times: FloatArray
    distance: FloatArray
    floor: FloatArray
    method: str
    loss: FloatArray
    reference_loss: FloatArray
    means: FloatArray
    deviations: FloatArray
    reference_means: FloatArray
    reference_deviations: FloatArray
    function: FloatArray | None = None

    @property
    def loss_gap(self) -> FloatArray:
        """``loss − reference_loss``, (T,)."""
        return self.loss - self.reference_loss

    @property
    def relative_loss_gap(self) -> FloatArray:
        """|loss − reference| / |reference|, (T,); 0 where both vanish, nan without a loss."""
        size = np.abs(self.reference_loss)
        gap = np.abs(self.loss_gap)
        return np.where(gap == 0.0, 0.0, np.divide(gap, size, out=np.full_like(gap, np.inf), where=size != 0.0))

    def as_json(self) -> dict[str, Any]:
        """Plain lists; numbers that are not finite become null."""
        names = ("times", "distance", "floor", "loss", "reference_loss", "loss_gap", "relative_loss_gap")
        more = ("means", "deviations", "reference_means", "reference_deviations")
        values = {name: _listed(getattr(self, name)) for name in (*names, *more)}
        if self.function is not None:
            values["function"] = _listed(self.function)
        return {"label": self.label, "method": self.method, **values}


@dataclass(frozen=True, eq=False)
class Comparison:
    """All runs against one reference; ``terms`` are the energy terms in the loss, ``method`` is how distances were asked for."""

    title: str
    reference: str
    terms: tuple[str, ...]
    pairs: tuple[Pair, ...]
    method: str = "auto"

    @property
    def distance_name(self) -> str:
        """What ``distance`` is: W2, or the sliced distance, which is another one."""
        return "sliced W2" if self.method == SLICED else "W2"

    def as_json(self) -> dict[str, Any]:
        """Plain data for comparison.json."""
        return {
            "title": self.title,
            "reference": self.reference,
            "distance": self.distance_name,
            "loss_terms": list(self.terms),
            "pairs": [pair.as_json() for pair in self.pairs],
        }


def compare(runs: "Sequence[StoredRun]", reference: str | None = None, problem: Problem | None = None, method: str = "auto") -> Comparison:
    """Compare runs with the one labelled ``reference`` (default: the first), by ``wasserstein`` with this ``method``.

    With the ``problem`` that all are runs of, networks are compared as functions as well. Raises ValueError for an unknown
    reference, fewer than two runs, different domains, no common times or a method that the domain does not allow.
    """
    if len(runs) < 2:
        raise ValueError("a comparison needs at least two runs")
    labels = [run.label for run in runs]
    if reference is not None and reference not in labels:
        raise ValueError(f"the reference must be one of {', '.join(labels)}, got {reference!r}")
    base = runs[labels.index(reference) if reference is not None else 0]
    others = [run for run in runs if run is not base]
    for run in others:
        if run.domain != base.domain:
            raise ValueError(f"{run.path} and {base.path} have different domains")
    terms = tuple(name for name in base.run.energy if all(_finite(run, name) for run in runs))
    check_method(base.domain, method)
    return Comparison(base.title, base.label, terms, tuple(_pair(run, base, terms, problem, method) for run in others), method)


def networks(problem: Problem) -> list[TwoLayer | PairNetwork | WideResNet]:
    """The terms of an energy that are networks."""
    return [term for term in problem.energy.terms.values() if isinstance(term, TwoLayer | PairNetwork | WideResNet)]


def function_distance(problem: Problem, first: Measure, second: Measure) -> float:
    """‖∫σ dρ₁ − ∫σ dρ₂‖ in L²(μ), μ being the law of the inputs: how far apart what two networks compute is.

    It is the norm of the difference of the residuals λ = ∫Φ dρ − b; several networks are summed in quadrature. Densities are atoms at the
    cell centres, as in the loss. Raises ValueError where the energy has no network.
    """
    terms = networks(problem)
    if not terms:
        raise ValueError("the energy has no two_layer term, so there are no functions to compare")
    return math.sqrt(sum(term.square_gap(first, second) for term in terms))


def other_problems(runs: "Sequence[StoredRun]") -> list[str]:
    """A remark for each run whose energy or initial measure is not that of the first one, as far as the files say."""
    known = [run for run in runs if run.attributes.get("problem")]
    return [
        f"{run.path} and {known[0].path} are runs of different problems: their energies or initial measures differ"
        for run in known[1:]
        if run.attributes["problem"] != known[0].attributes["problem"]
    ]


def _finite(run: "StoredRun", term: str) -> bool:
    return term in run.run.energy and bool(np.isfinite(run.run.energy[term]).all())


def _pair(run: "StoredRun", base: "StoredRun", terms: tuple[str, ...], problem: Problem | None, method: str) -> Pair:
    times, mine, theirs = np.intersect1d(run.run.times, base.run.times, return_indices=True)
    if not len(times):
        raise ValueError(f"{run.path} and {base.path} have no saved time in common")
    measures = [(run.run.measures[i], base.run.measures[k]) for i, k in zip(mine, theirs, strict=True)]
    distances = [wasserstein(one, two, base.domain, method=method) for one, two in measures]
    functions = [function_distance(problem, one, two) for one, two in measures] if problem and networks(problem) else None
    moments, reference_moments = (_moments([pair[side] for pair in measures]) for side in (0, 1))
    return Pair(
        label=run.label,
        times=times,
        distance=np.array([d.value for d in distances]),
        floor=np.array([d.floor for d in distances]),
        method=_methods(distances),
        loss=_loss(run, terms)[mine],
        reference_loss=_loss(base, terms)[theirs],
        means=moments[0],
        deviations=moments[1],
        reference_means=reference_moments[0],
        reference_deviations=reference_moments[1],
        function=None if functions is None else np.array(functions),
    )


def _methods(distances: Sequence[Distance]) -> str:
    """The method in words, that of the first distance of each kind, with their numbers where there are several kinds."""
    kinds: dict[str, list[str]] = {}
    for distance in distances:
        kinds.setdefault(" ".join(distance.method.split()[:2]), []).append(distance.method)
    if len(kinds) == 1:
        return distances[0].method
    return "; ".join(f"{found[0]} at {len(found)} of {len(distances)} times" for found in kinds.values())


def _loss(run: "StoredRun", terms: tuple[str, ...]) -> FloatArray:
    if not terms:
        return np.full(len(run.run.times), np.nan)
    return np.asarray(sum((run.run.energy[name] for name in terms), np.zeros(len(run.run.times))))


def _moments(measures: list[Measure]) -> tuple[FloatArray, FloatArray]:
    """Means and standard deviations, (T, d) each."""
    means = np.array([mean(m) for m in measures])
    deviations = np.array([np.sqrt(np.maximum(np.diag(covariance(m)), 0.0)) for m in measures])
    return means, deviations


def _listed(values: FloatArray) -> Any:
    if values.ndim > 1:
        return [_listed(row) for row in values]
    return [float(x) if np.isfinite(x) else None for x in values]
