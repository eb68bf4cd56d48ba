"""How fast clusters converge to the atoms of a teacher, measured in runs and beside what the linearised flow says.

The claim of Mean Field Models for Neural Networks in Teacher-student Setting (2020), §2.2, that the cluster at c₁ converges α₁/α₂ times
faster, holds where the clusters are decoupled (H₁₂ = 0), have equal local kernels (H₁₁ = H₂₂), and masses as the teacher's weights. In
general the rates are the eigenvalues of H·diag(α), see ``mfpde.study.linearised``, and the lighter atom's cluster may be the faster one.

Each mode of the linearised flow is followed by itself. Its window is the longest stretch of saved times in which
 * the masses of all clusters are those at the end to 1e-3,
 * its velocity is linear to ``linearity``: when all of the student is drawn half way to the fixed point, it must halve, and twice what
   it lacks of that estimates a term of second order; large displacements and spreads are excluded, and the rates are not used,
 * it moves some cluster by more than what the run resolves (a tenth of a cell, or 1e-7 of the domain for atoms).
The rate is the slope of a least-squares line through the logarithm there, with Student's 95 % interval.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfpde.arrays import BoolArray, FloatArray, IntArray
from mfpde.domain import Domain
from mfpde.energy import TwoLayer
from mfpde.measure import Density, Measure
from mfpde.study.clusters import clusters_of, gather, mean_velocities
from mfpde.study.linearised import Linearised, kernel_of, linearise, overlaps, rates_of, slopes, spread_law

if TYPE_CHECKING:
    from mfpde.storage import StoredRun

SETTLED = 1e-3
_LEAST_TIMES, _LEAST_FALL = 4, 1.5
_CELL_SHARE, _ATOM_SHARE = 0.1, 1e-7
_SPREAD_SPAN, _SPREAD_FALL, _CELLS_OF_SPREAD = 10.0, 2.0, 2.0
_EMPTY = 1e-9
_TENTH = 0.1


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
    """A slope with half the width of its 95 % interval, from ``count`` saved times from ``first`` to ``last``; nan without a window."""

    value: float = math.nan
    half_width: float = math.nan
    first: float = math.nan
    last: float = math.nan
    count: int = 0


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
    linearised for their masses; ``coordinates`` and ``defect`` (T, n): each mode and how far its velocity is from linear; ``fits``: its
    measured rate; ``window`` (T, n); ``tenth`` (J,): when the distance to c_j was a tenth of that at first; ``spread_fits``: the exponent
    in t of each spread over the last decade in which it is resolved; ``spread_law`` (T, K): what theory says of them on a line, nan
    before the means have settled.
    """

    stored: "StoredRun"
    teacher: AtomicTeacher
    history: ClusterHistory
    occupied: tuple[int, ...]
    flow: Linearised
    coordinates: FloatArray
    defect: FloatArray
    window: BoolArray
    fits: tuple[Fit, ...]
    tenth: FloatArray
    spread_fits: tuple[Fit, ...]
    spread_law: FloatArray

    @property
    def label(self) -> str:
        """The run's label."""
        return self.stored.label

    def mode_of(self, cluster: int) -> int | None:
        """The slowest of a teacher atom's own modes; None for an empty cluster."""
        return self.flow.slowest(self.occupied.index(cluster)) if cluster in self.occupied else None

    @property
    def predicted_ratio(self) -> float:
        """The heaviest atom's rate over the lightest's, of the linearised flow; nan where one has none."""
        values = [math.nan if (i := self.mode_of(j)) is None else float(self.flow.rates[i]) for j in self.teacher.pair]
        return values[0] / values[1] if values[1] > 0.0 else math.nan

    @property
    def measured_ratio(self) -> tuple[float, float]:
        """The same of the fitted rates, with half the width of its interval."""
        one, other = (Fit() if (i := self.mode_of(j)) is None else self.fits[i] for j in self.teacher.pair)
        if not (math.isfinite(one.value) and other.value > 0.0):
            return math.nan, math.nan
        ratio = one.value / other.value
        return ratio, abs(ratio) * math.hypot(one.half_width / one.value, other.half_width / other.value)

    @property
    def settled_from(self) -> float:
        """The first saved time from which on the masses are those at the end to 1e-3 of each."""
        return float(self.history.times[np.argmax(_settled(self.history.masses[:, list(self.occupied)]))])

    @property
    def lag(self) -> FloatArray:
        """Where the spreads at the end hold the means on a line, off their fixed points, (K,); nan in more dimensions."""
        if self.flow.lag is None:
            return np.full(len(self.occupied), np.nan)
        return np.asarray(self.flow.lag @ self.history.spreads[-1, list(self.occupied)] ** 2)

    @property
    def followed(self) -> IntArray:
        """The mode that moves each cluster most, at each time, (T, K)."""
        return np.asarray(np.argmax(self.flow.displacements(self.coordinates), axis=2))


@dataclass(frozen=True, eq=False)
class Theory:
    """The teacher's own linearisation: ``rates`` of H·diag(α), rising, ``overlap`` (J, J) and ``local``, the least eigenvalue of each
    α-free block H_jj, (J,)."""

    rates: FloatArray
    overlap: FloatArray
    local: FloatArray

    @property
    def coupling(self) -> float:
        """The largest overlap of two clusters."""
        return float(np.max(self.overlap - np.eye(len(self.overlap))))


def theory_of(energy: TwoLayer, teacher: AtomicTeacher) -> Theory:
    """Rates, overlap and local kernels at the teacher's atoms."""
    kernel = kernel_of(slopes(energy.features, teacher.atoms))
    local = np.array([np.linalg.eigvalsh(kernel[j, :, j, :])[0] for j in range(len(kernel))])
    return Theory(rates_of(kernel, teacher.alpha), overlaps(kernel), local)


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
    means = history.means[:, occupied] - flow.base
    coordinates = flow.coordinates(means)
    base = np.array(teacher.atoms)
    base[occupied] = flow.base
    whole, half = (
        flow.coordinates(np.array([mean_velocities(energy, g, base, share)[occupied] for g in gathered])) for share in (1.0, 0.5)
    )
    size = np.abs(whole)
    defect = np.divide(2.0 * np.abs(whole - 2.0 * half), size, out=np.full_like(size, np.inf), where=size > 0.0)
    settled = _settled(history.masses[:, occupied])
    reach = np.max(flow.displacements(coordinates), axis=1)
    linear = settled[:, None] & (defect <= linearity) & (reach >= resolution(run.measures[-1], stored.domain))
    window = np.stack([_longest(column) for column in linear.T], axis=1)
    fits = tuple(_log_fit(run.times[w], z[w]) for w, z in zip(window.T, np.abs(coordinates).T, strict=True))
    window &= np.array([fit.count > 0 for fit in fits])
    spreads = history.spreads[:, occupied]
    return Speed(
        stored,
        teacher,
        history,
        tuple(occupied.tolist()),
        flow,
        coordinates,
        defect,
        window,
        fits,
        _tenths(run.times, history.distances(teacher.atoms)),
        tuple(_exponent(run.times, s, run.measures[-1]) for s in spreads.T),
        _spread_prediction(flow, run.times, spreads, window),
    )


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


def _log_fit(times: FloatArray, sizes: FloatArray) -> Fit:
    """The rate of decay of ``sizes`` (n,) at ``times``; none for fewer than 4 times or where they hardly fall."""
    if len(times) < _LEAST_TIMES or not sizes[0] >= _LEAST_FALL * sizes[-1] > 0.0:
        return Fit()
    slope, half = fitted_slope(times, np.log(sizes))
    return Fit(-slope, half, float(times[0]), float(times[-1]), len(times))


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


def _exponent(times: FloatArray, spreads: FloatArray, last: Measure) -> Fit:
    """−d log s/d log t over the last decade in which the spread is resolved; none where it has not halved before that ends."""
    end = resolved_until(spreads, last)
    kept = (times >= times[end] / _SPREAD_SPAN) & (times > 0.0) & (np.arange(len(times)) <= end)
    if end < 0 or np.sum(kept) < _LEAST_TIMES or not np.max(spreads[: end + 1]) >= _SPREAD_FALL * spreads[end]:
        return Fit()
    slope, half = fitted_slope(np.log(times[kept]), np.log(spreads[kept]))
    return Fit(-slope, half, float(times[kept][0]), float(times[end]), int(np.sum(kept)))


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
    if flow.bending is None or not len(ends) or ends[-1] + 1 >= len(times):
        return result
    start = spreads[ends[-1]]
    if np.all(start > 0.0):
        result[ends[-1] :] = np.sqrt(spread_law(flow, start**2, times[ends[-1] :]))
    return result


def regime_of(theory: Theory, tolerance: float) -> str:
    """ "decoupled" where no two clusters' kernels overlap by more than the tolerance, and "coupled"."""
    return "decoupled" if theory.coupling <= tolerance else "coupled"


def claim_fails(theory: Theory, speed: Speed, tolerance: float) -> list[str]:
    """Which of the conditions for α₁/α₂ are not met, in words."""
    teacher, (one, other) = speed.teacher, speed.teacher.pair
    split = speed.history.masses[-1] / teacher.alpha
    reasons = []
    if theory.coupling > tolerance:
        reasons.append(f"the clusters are coupled (kernel overlap {theory.coupling:.3g})")
    equal = float(theory.local[one] / theory.local[other]) if theory.local[other] > 0.0 else math.inf
    if abs(equal - 1.0) > tolerance:
        reasons.append(f"the local kernels differ (by a factor {equal:.3g})")
    if float(np.max(np.abs(split - 1.0))) > tolerance:
        reasons.append("the student's mass is not split as the teacher's")
    return reasons


def missed_of(
    theory: Theory, speed: Speed, tolerance: float, ratio: float | None = None, regime: str | None = None, first: str | None = None
) -> list[str]:
    """Rates that are not the eigenvalues, and what was expected and is not so."""
    lines = []
    for i, fit in enumerate(speed.fits):
        rate = float(speed.flow.rates[i])
        if math.isfinite(fit.value) and abs(fit.value - rate) > tolerance * abs(rate):
            lines.append(f"{speed.label}: the rate of mode {i + 1} is {fit.value:.4g}, its eigenvalue {rate:.4g}")
    if not any(fit.count for fit in speed.fits):
        lines.append(f"{speed.label}: no rate could be measured; save more times while the means relax, and start nearer to the teacher")
    found = speed.measured_ratio[0]
    if ratio is not None and not abs(found - ratio) <= tolerance * ratio:
        lines.append(f"{speed.label}: the ratio of the rates is {_known(found)}, not {ratio:.4g}")
    if regime is not None and regime_of(theory, tolerance) != regime:
        lines.append(f"{speed.label}: the clusters are {regime_of(theory, tolerance)}, not {regime}")
    if first is not None and not (found > 1.0 if first == "heaviest" else found < 1.0):
        lines.append(f"{speed.label}: the {first} atom's cluster is not the faster one: the ratio of the rates is {_known(found)}")
    return lines


def _known(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not measured"
