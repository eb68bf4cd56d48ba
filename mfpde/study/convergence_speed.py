"""How fast clusters converge to the atoms of a teacher, measured in runs and beside what the linearised flow says.

The claim of Mean Field Models for Neural Networks in Teacher-student Setting (2020), §2.2, that the cluster at c₁ converges α₁/α₂ times
faster, holds where the clusters are decoupled (H₁₂ = 0), have equal local kernels (H₁₁ = H₂₂), and masses as the teacher's weights. In
general the rates are the eigenvalues of H·diag(α), see ``mfpde.study.linearised``, and the lighter atom's cluster may be the faster one.

Each mode of the linearised flow is followed by itself. Its window is the longest stretch of saved times in which
 * the masses of all clusters are those at the end to 1e-3,
 * its velocity is linear to ``linearity``: when all of the student is drawn half way to the fixed point, it must halve, and twice what
   it lacks of that estimates a term of second order; large displacements and spreads are excluded, and the rates are not used,
 * it moves some cluster by more than what the run resolves (a tenth of a cell, or 1e-7 of the domain for atoms).
The curve's rate there is the slope of a least-squares line through the logarithm of |z|. It is not yet that of small displacements:
dz/dt = L + N with N of second order and higher, and N/z is of one sign where spreads are the cause. The velocities v(h) of the student
drawn to the share h of its distances, h = 1, 1/2, 1/4, give L = lim v(h)/h by two steps of extrapolation and so N, and the measured rate
is the slope of log|z| − ∫(N/z)dt, which knows the run and the force but no eigenvalue. The scatter of a smooth curve is not its error:
the half-width stated is Student's 95 % one of the curve's slope plus all that the correction changed, and that of a ratio of rates the
same of the ratio, where what is common to both cancels as far as it does in the data; 1e-9 of the value at the least. Errors of time
steps and cells are not in it: the rates of several solvers show them.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy import TwoLayer
from mfpde.measure import Density, Measure
from mfpde.study.clusters import Gathered, clusters_of, gather, mean_velocities
from mfpde.study.linearised import Linearised, kernel_of, linearise, overlaps, rates_of, slopes, spread_law, without_round_off

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

SETTLED = 1e-3
_LEAST_TIMES, _LEAST_FALL = 4, 1.5
_CELL_SHARE, _ATOM_SHARE = 0.1, 1e-7
_SPREAD_SPAN, _SPREAD_FALL, _CELLS_OF_SPREAD = 10.0, 2.0, 2.0
_EMPTY = 1e-9
_TENTH = 0.1
_EXPONENTIAL = 0.02
_OUTSIDE = 1e-9
_SOLVER = 1e-9
_SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True, eq=False)
class AtomicTeacher:
    """Atoms c_j (J, d) with weights α_j (J,) > 0, and whether σ is even."""

    atoms: FloatArray
    alpha: FloatArray
    even: bool

    @property
    def pair(self) -> tuple[int, int]:
        """The heaviest and the lightest atom; the first and the last where all are equal."""
        heaviest = int(np.argmax(self.alpha))
        lightest = len(self.alpha) - 1 - int(np.argmin(self.alpha[::-1]))
        return heaviest, lightest


@dataclass(frozen=True)
class Fit:
    """A slope from ``count`` saved times from ``first`` to ``last``; nan without a window."""

    value: float = math.nan
    first: float = math.nan
    last: float = math.nan
    count: int = 0


@dataclass(frozen=True)
class RateFit(Fit):
    """The rate of a mode for small displacements; ``curve``: the slope of the curve as it is, ``scatter``: half the width of its 95 %
    interval."""

    curve: float = math.nan
    scatter: float = math.nan

    @property
    def half_width(self) -> float:
        """The scatter, and all that the correction changed; no less than a run's own errors, however smooth it is."""
        return max(self.scatter + abs(self.value - self.curve), _SOLVER * abs(self.value))


@dataclass(frozen=True, eq=False)
class ClusterHistory:
    """Clusters at T times: ``masses`` (T, J), ``means`` and ``deviations`` (T, J, d), the ``reflected`` mass (T,)."""

    times: FloatArray
    masses: FloatArray
    means: FloatArray
    deviations: FloatArray
    reflected: FloatArray

    def distances(self, atoms: FloatArray) -> FloatArray:
        """|mean − c_j|, (T, J)."""
        return np.asarray(np.linalg.norm(self.means - atoms, axis=2))

    @property
    def spreads(self) -> FloatArray:
        """The root of the clusters' total variance, (T, J)."""
        return np.asarray(np.linalg.norm(self.deviations, axis=2))


@dataclass(frozen=True, eq=False)
class Speed:
    """What one run shows. ``occupied``: the clusters that hold mass at the end, to which modes and K clusters refer; ``flow``: the flow
    linearised for their masses; ``outside`` (K,): which of its fixed points the domain does not hold, so that no cluster relaxes as
    ``flow`` says; ``coordinates`` and ``defect`` (T, n): each mode and how far its velocity is from linear; ``fits``: its measured rate;
    ``window`` (T, n); ``tenth`` (J,): when the distance to c_j was a tenth of that at first; ``spread_fits``: the mean exponent in t of
    each spread over the last decade in which it is resolved, where its law is not ``exponential`` (K,); ``spread_law`` (T, K): what
    theory says of them on a line, nan before the means have settled.
    """

    stored: "StoredRun"
    teacher: AtomicTeacher
    history: ClusterHistory
    occupied: tuple[int, ...]
    flow: Linearised
    outside: BoolArray
    coordinates: FloatArray
    defect: FloatArray
    window: BoolArray
    fits: tuple[RateFit, ...]
    tenth: FloatArray
    spread_fits: tuple[Fit, ...]
    exponential: BoolArray
    spread_law: FloatArray

    @property
    def label(self) -> str:
        """The run's label."""
        return self.stored.label

    @property
    def settles(self) -> bool:
        """Whether there is a fixed point near the teacher's atoms, and the domain holds it."""
        return self.flow.found and not bool(np.any(self.outside))

    @property
    def rates(self) -> FloatArray:
        """The eigenvalues (n,); nan where the domain does not hold the fixed point."""
        return np.full_like(self.flow.rates, np.nan) if np.any(self.outside) else self.flow.rates

    def modes_of(self, cluster: int) -> list[int | None]:
        """A teacher atom's own modes, the slowest first; None for those of an empty cluster."""
        if cluster not in self.occupied:
            return [None] * self.teacher.atoms.shape[1]
        return [int(i) for i in self.flow.own(self.occupied.index(cluster))]

    @property
    def predicted_ratios(self) -> FloatArray:
        """The heaviest atom's rates over the lightest's, of the linearised flow, the slowest of each first, (d,); nan unless both are
        positive."""
        one, other = (np.array([math.nan if i is None else self.rates[i] for i in self.modes_of(j)]) for j in self.teacher.pair)
        return np.asarray(np.divide(one, other, out=np.full_like(one, np.nan), where=(one > 0.0) & (other > 0.0)))

    @property
    def measured_ratios(self) -> list[tuple[float, float]]:
        """The same of the measured rates, each with its half-width."""
        one, other = ([RateFit() if i is None else self.fits[i] for i in self.modes_of(j)] for j in self.teacher.pair)
        return [_ratio(a, b) for a, b in zip(one, other, strict=True)]

    @property
    def seen_ratios(self) -> FloatArray:
        """The measured ratios, and the eigenvalues' where one is not measured; the first must be, else it is nan."""
        found = np.array([ratio for ratio, _ in self.measured_ratios])
        known = np.isfinite(found)
        known[0] = True
        return np.where(known, found, self.predicted_ratios)

    @property
    def settled_from(self) -> float:
        """The first saved time from which on the masses are those at the end to 1e-3 of each."""
        return float(self.history.times[np.argmax(_settled(self.history.masses[:, list(self.occupied)]))])

    @property
    def lag(self) -> FloatArray:
        """Where the spreads at the end hold the means on a line, off their fixed points, (K,); nan in more dimensions, and where there
        is no such point in the domain."""
        if self.flow.lag is None or not self.settles:
            return np.full(len(self.occupied), np.nan)
        return np.asarray(self.flow.lag @ self.history.spreads[-1, list(self.occupied)] ** 2)

    @property
    def followed(self) -> IntArray:
        """The mode that moves each cluster most, at each time, (T, K)."""
        return np.asarray(np.argmax(self.flow.displacements(self.coordinates), axis=2))


@dataclass(frozen=True, eq=False)
class Theory:
    """The teacher's own linearisation: ``rates`` of H·diag(α), rising, ``overlap`` (J, J), nan where H_jj = 0, and the α-free ``blocks``
    H_jj, (J, d, d)."""

    rates: FloatArray
    overlap: FloatArray
    blocks: FloatArray

    @property
    def coupling(self) -> float:
        """The largest overlap of two clusters; nan where none is defined."""
        apart = self.overlap[~np.eye(len(self.overlap), dtype=bool)]
        return float(np.nanmax(apart)) if np.isfinite(apart).any() else math.nan

    @property
    def local(self) -> FloatArray:
        """The least eigenvalue of each block, (J,)."""
        return without_round_off(np.asarray(np.linalg.eigvalsh(self.blocks)))[:, 0]

    @property
    def flat(self) -> list[int]:
        """The clusters with H_jj = 0."""
        return np.flatnonzero(np.isnan(np.diag(self.overlap))).tolist()

    def difference(self, one: int, other: int) -> float:
        """‖H_11 − H_22‖/‖H_22‖ of two clusters in the operator norm; nan where H_22 = 0."""
        if other in self.flat:
            return math.nan
        gap = np.linalg.norm(self.blocks[one] - self.blocks[other], 2)
        return float(gap / np.linalg.norm(self.blocks[other], 2))


def theory_of(energy: TwoLayer, teacher: AtomicTeacher) -> Theory:
    """Rates, overlap and local kernels at the teacher's atoms."""
    kernel = kernel_of(slopes(energy.features, teacher.atoms))
    blocks = np.stack([kernel[j, :, j, :] for j in range(len(kernel))])
    return Theory(rates_of(kernel, teacher.alpha), overlaps(kernel), blocks)


def _ratio(one: RateFit, other: RateFit) -> tuple[float, float]:
    """A rate over another: the scatter of the curves' ratio, and all that the two corrections together changed of it."""
    if not (one.value > 0.0 and other.value > 0.0 and one.curve > 0.0 and other.curve > 0.0):
        return math.nan, math.nan
    ratio, curves = one.value / other.value, one.curve / other.curve
    scatter = curves * math.hypot(one.scatter / one.curve, other.scatter / other.curve)
    return ratio, max(scatter + abs(ratio - curves), _SOLVER * ratio)


def measure_speed(stored: "StoredRun", energy: TwoLayer, teacher: AtomicTeacher, linearity: float) -> Speed:
    """Masses, means, spreads and rates of a run. Raises ValueError for a run without saved times."""
    run = stored.run
    if not run.measures:
        raise ValueError(f"the run {stored.label} has saved nothing")
    gathered = [gather(measure, teacher.atoms, teacher.even) for measure in run.measures]
    found = [clusters_of(m, g, len(teacher.atoms)) for m, g in zip(run.measures, gathered, strict=True)]
    moments = (np.array([getattr(c, name) for c in found]) for name in ("masses", "means", "deviations", "reflected"))
    history = ClusterHistory(run.times, *moments)
    last = history.masses[-1]
    occupied = np.flatnonzero(last > _EMPTY * np.sum(last))
    flow = linearise(energy.features, teacher.atoms, teacher.alpha, occupied, last)
    outside = _outside(stored.domain, flow, teacher.even)
    velocities = _drawn_velocities(energy, gathered, teacher, flow, occupied)
    coordinates, defect = flow.coordinates(history.means[:, occupied] - flow.base), _defect(velocities)
    reach = np.max(flow.displacements(coordinates), axis=1) >= resolution(run.measures[-1], stored.domain)
    steady = _settled(history.masses[:, occupied]) & ~np.any(outside)
    window, fits = _measured(run.times, coordinates, velocities, steady[:, None] & reach & (defect <= linearity))
    spreads = history.spreads[:, occupied]
    settles = flow.found and not bool(np.any(outside))
    powers, exponential = _exponents(run.times, spreads, run.measures[-1], flow.curvature if settles else None)
    return Speed(
        stored,
        teacher,
        history,
        tuple(occupied.tolist()),
        flow,
        outside,
        coordinates,
        defect,
        window,
        fits,
        _tenths(run.times, history.distances(teacher.atoms)),
        powers,
        exponential,
        _spread_prediction(flow, run.times, spreads, window),
    )


def _measured(
    times: FloatArray, coordinates: FloatArray, velocities: tuple[FloatArray, ...], linear: BoolArray
) -> tuple[BoolArray, tuple[RateFit, ...]]:
    """The longest windows of the ``linear`` times of each mode (T, n), and the rates in them."""
    window = np.stack([_longest(column) for column in linear.T], axis=1)
    excess = velocities[0] - _small(velocities)
    fits = tuple(_log_fit(times[w], z[w], n[w]) for w, z, n in zip(window.T, coordinates.T, excess.T, strict=True))
    return window & np.array([fit.count > 0 for fit in fits]), fits


def _outside(domain: Domain, flow: Linearised, even: bool) -> BoolArray:
    """Which fixed points, and their mirror images if those are the same neurons, the domain does not hold, (K,)."""
    size = _OUTSIDE * (domain.upper - domain.lower)
    found = np.ones(len(flow.base), dtype=bool)
    for sign in (1.0, -1.0) if even else (1.0,):
        gap = domain.displacement(domain.confine(sign * flow.base), sign * flow.base)
        found &= np.any(np.abs(gap) > size, axis=1)
    return found


def _drawn_velocities(
    energy: TwoLayer, gathered: list[Gathered], teacher: AtomicTeacher, flow: Linearised, occupied: IntArray
) -> tuple[FloatArray, ...]:
    """v(h)/h of each mode (T, n) where a share h = 1, 1/2, 1/4 of all distances to the fixed points is left."""
    base = np.array(teacher.atoms)
    base[occupied] = flow.base
    return tuple(flow.coordinates(np.array([mean_velocities(energy, g, base, h)[occupied] for g in gathered])) / h for h in _SHARES)


def _defect(velocities: tuple[FloatArray, ...]) -> FloatArray:
    """2|v(1) − 2v(1/2)|/|v(1)|, (T, n): about how far a velocity is from linear, if what it lacks is of second order."""
    whole, half, _ = velocities
    return np.divide(2.0 * np.abs(whole - half), np.abs(whole), out=np.full_like(whole, np.inf), where=whole != 0.0)


def _small(velocities: tuple[FloatArray, ...]) -> FloatArray:
    """lim v(h)/h, without what is of first and second order in h."""
    whole, half, quarter = velocities
    return (whole - 6.0 * half + 8.0 * quarter) / 3.0


def resolution(measure: Measure, domain: Domain) -> float:
    """The displacement below which a run says nothing."""
    if isinstance(measure, Density):
        return _CELL_SHARE * float(np.max(measure.grid.spacing))
    return _ATOM_SHARE * float(np.max(domain.upper - domain.lower))


def _settled(masses: FloatArray) -> BoolArray:
    """The times from which on all masses (T, K) are those at the last one, (T,)."""
    close = np.all(np.abs(masses / masses[-1] - 1.0) <= SETTLED, axis=1)
    return np.asarray(np.logical_and.accumulate(close[::-1])[::-1])


def _longest(kept: BoolArray) -> BoolArray:
    """The longest stretch of neighbours that are all true; the first one of equal length."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(int), [0]])))
    result = np.zeros_like(kept)
    if len(ends):
        longest = int(np.argmax(ends[1::2] - ends[::2]))
        result[ends[2 * longest] : ends[2 * longest + 1]] = True
    return result


def _log_fit(times: FloatArray, values: FloatArray, excess: FloatArray) -> RateFit:
    """The rate of decay of ``values`` z (n,) at ``times``, without what the ``excess`` N (n,) of dz/dt has a part in; none for fewer than
    4 times or where they hardly fall."""
    if len(times) < _LEAST_TIMES or not abs(values[0]) >= _LEAST_FALL * abs(values[-1]) > 0.0 or not np.all(values):
        return RateFit()
    logarithm, part = np.log(np.abs(values)), excess / values
    drift = np.concatenate([[0.0], np.cumsum(0.5 * (part[1:] + part[:-1]) * np.diff(times))])
    curve, scatter = fitted_slope(times, logarithm)
    slope, _ = fitted_slope(times, logarithm - drift)
    return RateFit(-slope, float(times[0]), float(times[-1]), len(times), -curve, scatter)


def fitted_slope(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """The slope of the least-squares line and half the width of Student's 95 % interval."""
    from scipy.special import stdtrit

    centred = x - np.mean(x)
    square = float(centred @ centred)
    slope = float(centred @ y) / square
    rest = y - np.mean(y) - slope * centred
    deviation = math.sqrt(float(rest @ rest) / (len(x) - 2) / square)
    return slope, float(stdtrit(len(x) - 2, 0.975)) * deviation


def resolved_until(spreads: FloatArray, last: Measure) -> int:
    """The index of the last time at which a spread (T,) is more than two cells of a density, or not zero; −1 if there is none."""
    least = _CELLS_OF_SPREAD * float(np.max(last.grid.spacing)) if isinstance(last, Density) else 0.0
    small = np.flatnonzero(~(spreads > least))
    return int(small[0]) - 1 if len(small) else len(spreads) - 1


def _exponents(times: FloatArray, spreads: FloatArray, last: Measure, curvature: FloatArray | None) -> tuple[tuple[Fit, ...], BoolArray]:
    """The exponents of the spreads (T, K), and which of them (K,) have none, as masses that do not match the teacher's leave the
    ``curvature`` B (K, d, d) of the residual, or an unknown one: spreads then change exponentially."""
    fits, exponential = [], np.zeros(spreads.shape[1], dtype=bool)
    for k, values in enumerate(spreads.T):
        fit = _exponent(times, values, last)
        size = math.inf if curvature is None else float(np.linalg.norm(curvature[k], 2))
        exponential[k] = fit.count > 0 and size * (fit.last - fit.first) > _EXPONENTIAL * math.log(fit.last / fit.first)
        fits.append(Fit() if exponential[k] else fit)
    return tuple(fits), exponential


def _exponent(times: FloatArray, spreads: FloatArray, last: Measure) -> Fit:
    """−d log s/d log t over the last decade in which the spread is resolved; none where it has not halved before that ends."""
    end = resolved_until(spreads, last)
    kept = (times >= times[end] / _SPREAD_SPAN) & (times > 0.0) & (np.arange(len(times)) <= end)
    if end < 0 or np.sum(kept) < _LEAST_TIMES or not np.max(spreads[: end + 1]) >= _SPREAD_FALL * spreads[end]:
        return Fit()
    slope, _ = fitted_slope(np.log(times[kept]), np.log(spreads[kept]))
    return Fit(-slope, float(times[kept][0]), float(times[end]), int(np.sum(kept)))


def _tenths(times: FloatArray, distances: FloatArray) -> FloatArray:
    """When each distance (T, J) fell below a tenth of its first value for good, between saved times as an exponential; nan if never."""
    found = np.full(distances.shape[1], np.nan)
    for j, values in enumerate(distances.T):
        level = _TENTH * values[0]
        above = np.flatnonzero(values > level)
        if not level > 0.0 or not len(above) or not np.isfinite(values).all() or above[-1] + 1 >= len(values):
            continue
        k = above[-1]
        after = max(float(values[k + 1]), 1e-300)
        found[j] = times[k] + (times[k + 1] - times[k]) * math.log(values[k] / level) / math.log(values[k] / after)
    return found


def _spread_prediction(flow: Linearised, times: FloatArray, spreads: FloatArray, window: BoolArray) -> FloatArray:
    """Standard deviations (T, K) on a line from the time on when the last window ends; nan before, and where there is no law."""
    result = np.full(spreads.shape, np.nan)
    ends = np.flatnonzero(np.any(window, axis=1))
    if flow.bending is None or not flow.found or not len(ends) or ends[-1] + 1 >= len(times):
        return result
    start = spreads[ends[-1]]
    if np.all(start > 0.0):
        result[ends[-1] :] = np.sqrt(spread_law(flow, start**2, times[ends[-1] :]))
    return result


def regime_of(theory: Theory, tolerance: float) -> str:
    """ "coupled" where two clusters' kernels overlap by more than the tolerance, "undefined" where H_jj = 0, else "decoupled"."""
    if theory.coupling > tolerance:
        return "coupled"
    return "undefined" if theory.flat else "decoupled"


def flat_words(theory: Theory) -> str:
    """The local kernels that are zero, as an equation."""
    return " = ".join([*(f"H_{j + 1}{j + 1}" for j in theory.flat), "0"])


def claim_fails(theory: Theory, speed: Speed, tolerance: float) -> list[str]:
    """Which of the conditions for α₁/α₂ are not met, in words."""
    teacher, (one, other) = speed.teacher, speed.teacher.pair
    reasons = []
    if theory.coupling > tolerance:
        reasons.append(f"the clusters are coupled (kernel overlap {theory.coupling:.3g})")
    if theory.flat:
        reasons.append(f"{flat_words(theory)}, so that the overlap is undefined and this cluster has no linear relaxation")
    elif theory.rates[0] == 0.0:
        reasons.append("H has the eigenvalue 0, a direction without linear relaxation")
    if not theory.difference(one, other) <= tolerance and other not in theory.flat:
        reasons.append(f"the local kernels differ ({_difference(theory, one, other)})")
    if float(np.max(np.abs(speed.history.masses[-1] / teacher.alpha - 1.0))) > tolerance:
        reasons.append("the student's mass is not split as the teacher's")
    return reasons


def _difference(theory: Theory, one: int, other: int) -> str:
    if theory.blocks.shape[1] == 1:
        return f"by a factor {theory.blocks[one, 0, 0] / theory.blocks[other, 0, 0]:.3g}"
    a, b = one + 1, other + 1
    return f"‖H_{a}{a} − H_{b}{b}‖ = {theory.difference(one, other):.3g} ‖H_{b}{b}‖"


def outside_words(speed: Speed) -> str:
    """The fixed points that the domain does not hold."""
    found = [(j, base) for j, base, out in zip(speed.occupied, speed.flow.base, speed.outside, strict=True) if out]
    points = ", ".join(f"{point_text(base)} of cluster {j + 1}" for j, base in found)
    if len(found) == 1:
        return f"the fixed point {points} lies outside the domain, so that this cluster ends at the wall"
    return f"the fixed points {points} lie outside the domain, so that these clusters end at the wall"


def point_text(point: FloatArray) -> str:
    """A place in the domain."""
    parts = ", ".join(f"{x:.4g}" for x in point)
    return parts if len(point) == 1 else f"({parts})"


def missed_of(
    theory: Theory, speed: Speed, tolerance: float, ratio: float | None = None, regime: str | None = None, first: str | None = None
) -> list[str]:
    """Rates that are not the eigenvalues, and what was expected and is not so."""
    lines = []
    for i, (fit, rate) in enumerate(zip(speed.fits, speed.rates.tolist(), strict=True)):
        if math.isfinite(fit.value) and not abs(fit.value - rate) <= tolerance * abs(rate):
            lines.append(f"{speed.label}: the rate of mode {i + 1} is {fit.value:.4g}, its eigenvalue {rate:.4g}")
    if np.any(speed.outside):
        lines.append(f"{speed.label}: no rate could be measured: {outside_words(speed)}; widen the domain, or split the mass otherwise")
    elif not any(fit.count for fit in speed.fits):
        none = "; there is none in directions with the eigenvalue 0" if np.any(speed.rates == 0.0) else ""
        advice = f"save more times while the means relax, and start nearer to the teacher{none}"
        lines.append(f"{speed.label}: no rate could be measured; {advice}")
    found, several = speed.seen_ratios, "s" if theory.blocks.shape[1] > 1 else ""
    known = f"the ratio{several} of the rates {'are' if several else 'is'} {_known(found)}"
    if ratio is not None and not np.all(np.abs(found - ratio) <= tolerance * ratio):
        lines.append(f"{speed.label}: {known}, not {ratio:.4g}")
    if regime is not None and regime_of(theory, tolerance) != regime:
        because = f" ({flat_words(theory)})" if regime_of(theory, tolerance) == "undefined" else ""
        lines.append(f"{speed.label}: the clusters are {regime_words(theory, tolerance)}{because}, not {regime}")
    if first is not None and not np.all(found > 1.0 if first == "heaviest" else found < 1.0):
        modes = " in all modes" if several else ""
        lines.append(f"{speed.label}: the {first} atom's cluster is not the faster one{modes}: {known}")
    return lines


def regime_words(theory: Theory, tolerance: float) -> str:
    """The regime after "the clusters are"."""
    return {"undefined": "of undefined overlap"}.get(found := regime_of(theory, tolerance), found)


def _known(values: FloatArray) -> str:
    return ", ".join(f"{value:.4g}" if math.isfinite(value) else "not measured" for value in values)
