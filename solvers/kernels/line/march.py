"""Many implicit steps on one line without a return to Python, under the control of ``FiniteVolumeFlow.advance``.

What is unusual (a step that Newton's method does not solve, that would raise the energy or that is too short) ends a march: the caller
makes that step.
"""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel
from mfpde.solvers.kernels.implicit import ERROR, GAMMA, GUESS, RATIO, extrapolated_target
from mfpde.solvers.kernels.line.bands import factor_three, solve_five, solve_three
from mfpde.solvers.kernels.line.form import Form, evaluate, is_coupled
from mfpde.solvers.kernels.line.newton import newton, scale_to

TIME, DT, NEXT_DT, ENERGY, DISSIPATION, OUTFLOW, MAGNITUDE, BALANCE, ITERATIONS, SCALARS = range(10)
SCALAR_FIELDS = ("time", "dt", "next_dt", "energy", "dissipation", "outflow", "magnitude", "balance", "iterations")
"""The numbers of a state in the order of the constants above."""
_WORK, _RATE = 19, 18
_LINEAR_SOLUTIONS = 4
_BASIS = 31
_ENERGY_ROUND_OFF = 2e-14
_ENERGY_FLOOR = 1e-28
_SHORTEST = 1e-12
_SAFETY = 0.9
_MOST_GROWTH = 5.0


@sum_kernel
def fill_operator(form: Form, low: FloatArray, diagonal: FloatArray, up: FloatArray) -> None:
    """div F(ρ)_i = low_i ρ_{i−1} + diagonal_i ρ_i + up_i ρ_{i+1} where ξ is fixed."""
    n = low.size
    low[:] = 0.0
    diagonal[:] = 0.0
    up[:] = 0.0
    for i in range(n - 1):
        factor = form.temperature / form.spacing**2
        drop = (form.fixed[i + 1] - form.fixed[i]) / form.temperature
        forth = form.forth[i]
        diagonal[i] += factor * forth
        up[i] -= factor * (forth + drop)
        low[i + 1] -= factor * forth
        diagonal[i + 1] += factor * (forth + drop)


@sum_kernel
def copy(values: FloatArray, out: FloatArray) -> None:
    """out = values; slices would compile the message for shapes that do not fit."""
    for i in range(out.size):
        out[i] = values[i]


@sum_kernel
def distance(values: FloatArray, form: Form) -> float:
    """∫|values|."""
    total = 0.0
    for i in range(values.size):
        total += abs(values[i])
    return total * form.spacing


@sum_kernel
def without_mass(error: FloatArray, rho: FloatArray) -> None:
    """Take from ``error`` what round-off left in its mass, in proportion to ``rho``."""
    wrong, held = 0.0, 0.0
    for i in range(rho.size):
        wrong += error[i]
        held += rho[i]
    wrong = wrong / held if held > 0.0 else 0.0
    for i in range(rho.size):
        error[i] -= wrong * rho[i]


@sum_kernel
def extrapolate(start: FloatArray, stage: FloatArray, ratio: float, form: Form, out: FloatArray) -> None:
    """See ``extrapolated_target``."""
    least = 0.0
    for i in range(start.size):
        out[i] = stage[i] + ratio * (stage[i] - start[i])
        least = min(least, out[i])
    if least < 0.0:
        shape = (1, start.size, 1)
        extrapolated_target(start.reshape(shape), stage.reshape(shape), ratio, np.ones(start.size), False, out.reshape(shape))


@sum_kernel
def estimate(
    rho: FloatArray, rate: FloatArray, first: FloatArray, target: FloatArray, found: FloatArray, dt: float, form: Form, out: FloatArray
) -> None:
    """The error estimate of ``stage_error`` before it is damped."""
    at_start, at_first, at_end = ERROR / GAMMA, ERROR / (GAMMA * (GAMMA - 1.0)), ERROR / (1.0 - GAMMA)
    for i in range(rho.size):
        slopes = at_first * (first[i] - rho[i]) + at_end * (found[i] - target[i])
        out[i] = slopes / GAMMA + at_start * dt * rate[i]
    without_mass(out, rho)


@sum_kernel
def linear_step(rho: FloatArray, rate: FloatArray, dt: float, total: float, form: Form, work: FloatArray, found: FloatArray) -> float:
    """A step of SDIRK 2 where steps are linear, and the L¹ size of its error estimate: rows 9 to 11 of ``work`` hold the operator, rows
    15 to 17 its factors, and row 8 the step that they were made for."""
    n = rho.size
    first, target, error, factors = work[12, :n], work[13, :n], work[14, :n], work[15:18, :n]
    if work[8, 0] != dt:
        factor_three(work[9, :n], work[10, :n], work[11, :n], GAMMA * dt, factors)
        work[8, 0] = dt
    copy(rho, first)
    solve_three(factors, first)
    scale_to(first, total)
    extrapolate(rho, first, RATIO, form, target)
    copy(target, found)
    solve_three(factors, found)
    scale_to(found, total)
    estimate(rho, rate, first, target, found, dt, form, error)
    solve_three(factors, error)
    without_mass(error, rho)
    return distance(error, form)


@sum_kernel
def improve(rho: FloatArray, form: Form, work: FloatArray, found: FloatArray) -> None:
    """Take the error that the last linear step estimated, damped once more, from what it found, unless a cell would be emptied.

    For linear problems this makes the step one of order three, and L-stable for the real spectrum of gradient flows.
    """
    n = rho.size
    error = work[14, :n]
    solve_three(work[15:18, :n], error)
    without_mass(error, rho)
    least = math.inf
    for i in range(n):
        least = min(least, found[i] - error[i])
    if least >= 0.0:
        for i in range(n):
            found[i] -= error[i]


@sum_kernel
def newton_step(
    rho: FloatArray,
    rate: FloatArray,
    dt: float,
    total: float,
    precision: float,
    form: Form,
    work: FloatArray,
    bands: FloatArray,
    basis: FloatArray,
    found: FloatArray,
) -> tuple[float, int]:
    """A step of SDIRK 2 by Newton's method: the L¹ size of its error estimate and the iterations, 0 where it failed.

    ``work`` holds in rows 8 and 9 the last step and where its second stage started, 0 if there was none: the first stage's guess
    follows the slope that it found.
    """
    n = rho.size
    first, target, error = work[12, :n], work[13, :n], work[14, :n]
    if work[8, 0] > 0.0:
        extrapolate(work[9, :n], rho, dt / work[8, 0], form, first)
    else:
        copy(rho, first)
    once = newton(rho, GAMMA * dt, first, total, precision, form, work, bands, basis)
    if once == 0:
        return math.inf, 0
    extrapolate(rho, first, RATIO, form, target)
    scale_to(target, total)
    extrapolate(rho, first, GUESS, form, found)
    again = newton(target, GAMMA * dt, found, total, precision, form, work, bands, basis)
    if again == 0:
        return math.inf, 0
    estimate(rho, rate, first, target, found, dt, form, error)
    solve_five(bands, error)
    without_mass(error, rho)
    return distance(error, form), once + again


@sum_kernel
def certify(rho: FloatArray, form: Form, scalars: FloatArray, row: FloatArray) -> None:
    """Fill a row of the step records."""
    mass, least, wall = 0.0, math.inf, 0.0
    for i in range(rho.size):
        mass += rho[i] * form.spacing
        least = min(least, rho[i])
        wall += form.wall[i] * rho[i] * form.spacing
    row[0], row[1], row[2], row[3], row[4] = scalars[TIME], scalars[DT], scalars[ENERGY], mass, least
    row[5], row[6], row[7], row[8] = scalars[DISSIPATION], scalars[BALANCE], wall / mass, scalars[ITERATIONS]


@sum_kernel
def cut(wanted: float, left: float) -> float:
    """The step to take where ``left`` remains, see ``FiniteVolumeFlow``."""
    if wanted >= left * (1.0 - 1e-12):
        return left
    return min(wanted, 0.5 * left) if 2.0 * wanted > left else wanted


@sum_kernel
def growth_of(error: float, allowed: float) -> float:
    """The factor by which the next step may grow; 0 where there is no step."""
    return float((allowed / max(error, 1e-300)) ** (1.0 / 3.0)) if np.isfinite(error) else 0.0


@sum_kernel
def settle(
    rho: FloatArray,
    rate: FloatArray,
    found: FloatArray,
    dt: float,
    growth: float,
    iterations: int,
    until: float,
    form: Form,
    work: FloatArray,
    scalars: FloatArray,
    row: FloatArray,
) -> bool:
    """Take what a step found unless the energy would rise: the state moves on, and ``row`` holds the step's record."""
    left, wanted = until - scalars[TIME], scalars[NEXT_DT]
    made = work[_RATE, : rho.size]
    energy, outflow, dissipation, round_off = evaluate(found, form, work, made)
    allowed = scalars[ENERGY] + _ENERGY_ROUND_OFF * scalars[MAGNITUDE] + _ENERGY_FLOOR
    if not (energy <= allowed and np.isfinite(outflow)):
        return False
    proposed = dt * min(_SAFETY * growth, _MOST_GROWTH)
    scalars[BALANCE] = energy - scalars[ENERGY] + 0.5 * dt * (scalars[DISSIPATION] + dissipation)
    scalars[TIME] = until if dt == left else scalars[TIME] + dt
    scalars[DT], scalars[ENERGY], scalars[DISSIPATION], scalars[OUTFLOW] = dt, energy, dissipation, outflow
    scalars[NEXT_DT] = max(proposed, wanted) if dt < wanted else proposed
    scalars[MAGNITUDE], scalars[ITERATIONS] = max(scalars[MAGNITUDE], round_off), iterations
    copy(found, rho)
    copy(made, rate)
    certify(rho, form, scalars, row)
    return True


@sum_kernel
def march_linear(
    rho: FloatArray, rate: FloatArray, scalars: FloatArray, form: Form, until: float, total: float, tolerance: float, rows: FloatArray
) -> int:
    """As many improved steps of SDIRK 2 as ``rows`` (most, 9) has room for, in place. Returns how many were made.

    ``scalars`` (SCALARS,): the state's numbers; ``total``: the sum over the cells, to which every stage is scaled. Step control is that
    of ``FiniteVolumeFlow.advance``.
    """
    n, made = rho.size, 0
    work, found = np.zeros((_WORK, n)), np.empty(n)
    fill_operator(form, work[9], work[10], work[11])
    allowed = tolerance * distance(rho, form)
    while made < rows.shape[0] and scalars[TIME] < until:
        left = until - scalars[TIME]
        if not scalars[NEXT_DT] > _SHORTEST * min(left, 1.0):
            break
        dt = cut(scalars[NEXT_DT], left)
        growth = growth_of(linear_step(rho, rate, dt, total, form, work, found), allowed)
        if growth < 1.0:
            scalars[NEXT_DT] = dt * min(max(growth, 0.1), 0.8)
            continue
        improve(rho, form, work, found)
        if not settle(rho, rate, found, dt, growth, _LINEAR_SOLUTIONS, until, form, work, scalars, rows[made]):
            break
        made += 1
    return made


@sum_kernel
def march_newton(
    rho: FloatArray,
    rate: FloatArray,
    scalars: FloatArray,
    form: Form,
    until: float,
    total: float,
    tolerance: float,
    precision: float,
    rows: FloatArray,
) -> int:
    """The same by Newton's method, to ``precision`` of the mass."""
    n, made = rho.size, 0
    work, found, bands = np.zeros((_WORK, n)), np.empty(n), np.zeros((n, 5))
    basis = np.empty((_BASIS if is_coupled(form) else 1, n))
    allowed = tolerance * distance(rho, form)
    while made < rows.shape[0] and scalars[TIME] < until:
        left = until - scalars[TIME]
        if not scalars[NEXT_DT] > _SHORTEST * min(left, 1.0):
            break
        dt = cut(scalars[NEXT_DT], left)
        error, iterations = newton_step(rho, rate, dt, total, precision, form, work, bands, basis, found)
        growth = growth_of(error, allowed)
        if growth == 0.0:
            break
        if growth < 1.0:
            scalars[NEXT_DT] = dt * min(max(growth, 0.1), 0.8)
            continue
        if not settle(rho, rate, found, dt, growth, iterations, until, form, work, scalars, rows[made]):
            break
        work[8, 0] = dt
        copy(work[13], work[9])
        made += 1
    return made
