"""One implicit step on a line by Newton's method."""

import math

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel
from mfpde.energy.internal import VACUUM
from mfpde.solvers.kernels.edge import edge_slopes
from mfpde.solvers.kernels.krylov import combine_basis, extend
from mfpde.solvers.kernels.line.bands import factor_five, solve_five
from mfpde.solvers.kernels.line.form import Form, add_coupling, is_coupled
from mfpde.solvers.kernels.transport import bernoulli

_FLOOR = 1e-20
_MOST_ITERATIONS = 25
_ROUND_OFF = 1e-8
_SUPERLINEAR = 100.0
_KRYLOV = 1e-3


@sum_kernel
def assemble_three(
    rho: FloatArray, target: FloatArray, xi: FloatArray, curvature: FloatArray, dt: float, form: Form, work: FloatArray, bands: FloatArray
) -> None:
    """The residual in row 3 of ``work``, ∂F/∂ξ in row 4 and the Jacobian's bands of the Scharfetter–Gummel step."""
    n = rho.size
    residual, mobility = work[3], work[4]
    inverse, pace, factor = 1.0 / form.spacing, dt / form.spacing, form.temperature / form.spacing
    for i in range(n):
        residual[i] = rho[i] - target[i]
        bands[i, 1], bands[i, 2], bands[i, 3] = 0.0, 1.0, 0.0
    for i in range(n - 1):
        drop = (xi[i + 1] - xi[i]) / form.temperature
        forth = bernoulli(drop)
        back = forth + drop
        if abs(drop) < 1e-2:
            square = drop * drop
            bend = -0.5 + drop * (1.0 / 6.0 - square * (1.0 / 180.0 - square / 5040.0))
        elif drop > 700.0:
            bend = 0.0
        else:
            bend = (1.0 - forth * math.exp(drop)) / math.expm1(drop) if drop > -700.0 else -1.0
        a, b = rho[i], rho[i + 1]
        weight = -(bend * a - (1.0 + bend) * b) * inverse
        flux = factor * (forth * a - back * b)
        by_a, by_b = factor * forth + weight * curvature[i], -factor * back - weight * curvature[i + 1]
        mobility[i] = weight
        residual[i] += pace * flux
        residual[i + 1] -= pace * flux
        bands[i, 2] += pace * by_a
        bands[i, 3] += pace * by_b
        bands[i + 1, 1] -= pace * by_a
        bands[i + 1, 2] -= pace * by_b


@sum_kernel
def assemble_five(
    rho: FloatArray, target: FloatArray, xi: FloatArray, curvature: FloatArray, dt: float, form: Form, work: FloatArray, bands: FloatArray
) -> None:
    """The same for the upwind fluxes, see ``assemble_upwind``."""
    n = rho.size
    residual, mobility = work[3], work[4]
    inverse, pace = 1.0 / form.spacing, dt / form.spacing
    for i in range(n):
        residual[i] = rho[i] - target[i]
        bands[i, 0], bands[i, 1], bands[i, 2], bands[i, 3], bands[i, 4] = 0.0, 0.0, 1.0, 0.0, 0.0
    for i in range(n - 1):
        a, b = rho[i], rho[i + 1]
        drop = xi[i] - xi[i + 1]
        by_before, by_after = 0.0, 0.0
        if drop > 0.0:
            value, by_before, by_a, by_b = edge_slopes(rho[max(i - 1, 0)], a, b, i > 0, form.slopes)
        else:
            value, by_after, by_b, by_a = edge_slopes(rho[min(i + 2, n - 1)], b, a, i + 2 < n, form.slopes)
        pull, weight = inverse * drop, inverse * value
        flux = pull * value
        by_before, by_after = pull * by_before, pull * by_after
        by_a, by_b = pull * by_a + weight * curvature[i], pull * by_b - weight * curvature[i + 1]
        mobility[i] = weight
        residual[i] += pace * flux
        residual[i + 1] -= pace * flux
        bands[i, 1] += pace * by_before
        bands[i, 2] += pace * by_a
        bands[i, 3] += pace * by_b
        bands[i, 4] += pace * by_after
        bands[i + 1, 0] -= pace * by_before
        bands[i + 1, 1] -= pace * by_a
        bands[i + 1, 2] -= pace * by_b
        bands[i + 1, 3] -= pace * by_after


@sum_kernel
def fill_variation(rho: FloatArray, form: Form, xi: FloatArray, curvature: FloatArray) -> None:
    """ξ and its local derivative, without the part of a fitted flux."""
    n = rho.size
    for i in range(n):
        xi[i] = form.fixed[i]
        curvature[i] = 0.0
    for k in range(form.exponents.size):
        m, c = form.exponents[k], form.coefficients[k] * form.exponents[k]
        for i in range(n):
            bounded = max(rho[i], VACUUM)
            bend = 1.0 if m == 2.0 else (bounded if m == 3.0 else bounded ** (m - 2.0))
            curvature[i] += c * bend
            xi[i] += c / (m - 1.0) * bend * (rho[i] if m > 1.0 else bounded)
    if form.slopes >= 0.0 and form.temperature > 0.0:
        for i in range(n):
            bounded = max(rho[i], VACUUM)
            xi[i] += form.temperature * math.log(bounded)
            curvature[i] += form.temperature / bounded
    if is_coupled(form):
        add_coupling(rho, form, xi)


@sum_kernel
def scale_to(values: FloatArray, total: float) -> None:
    """Give ``values`` this sum, in place."""
    held = 0.0
    for i in range(values.size):
        held += values[i]
    ratio = total / held if held > 0.0 else 1.0
    for i in range(values.size):
        values[i] = max(values[i] * ratio, 0.0)


@sum_kernel
def correct(update: FloatArray, dt: float, form: Form, work: FloatArray, bands: FloatArray, basis: FloatArray) -> None:
    """The Newton update with the coupled part of the Jacobian, from the one without, in place: GMRES, preconditioned by the bands."""
    n, most = update.size, min(basis.shape[0] - 1, update.size)
    mobility, eta = work[4], work[5]
    triangle, turns, goal = np.zeros((most + 1, most)), np.zeros((most, 2)), np.zeros(most + 1)
    size = 0.0
    for i in range(n):
        size += update[i] * update[i]
    size = math.sqrt(size)
    if not (size > 0.0 and np.isfinite(size)):
        return
    for i in range(n):
        basis[0, i] = update[i] / size
    goal[0] = size
    steps = 0
    while steps < most:
        eta[:n] = 0.0
        add_coupling(basis[steps], form, eta)
        after, last = basis[steps + 1], 0.0
        for i in range(n):
            flux = mobility[i] * (eta[i] - eta[i + 1]) if i < n - 1 else 0.0
            after[i] = dt / form.spacing * (flux - last)
            last = flux
        solve_five(bands, after)
        for i in range(n):
            after[i] += basis[steps, i]
        steps += 1
        if not extend(basis, steps - 1, triangle, turns, goal) > _KRYLOV * size:
            break
    combine_basis(basis, steps, triangle, goal, update)


@sum_kernel
def newton(
    target: FloatArray,
    dt: float,
    rho: FloatArray,
    total: float,
    precision: float,
    form: Form,
    work: FloatArray,
    bands: FloatArray,
    basis: FloatArray,
) -> int:
    """ρ with ρ + dt div F(ρ) = ``target``, from the guess in ``rho``, in place; returns the number of iterations, 0 if it failed.

    ``total`` is the sum of ``target``, to which every iterate is scaled. It ends where an update is below ``precision`` of that, or the
    next one is, as the last two foretell it; next to vacuum, where ξ has a pole, they do not.
    """
    n = rho.size
    xi, residual, curvature, new = work[0], work[3], work[6], work[7]
    top, singular, coupled = 0.0, form.slopes >= 0.0 and form.temperature > 0.0, is_coupled(form)
    for i in range(n):
        top = max(top, rho[i])
    for k in range(form.exponents.size):
        singular = singular or form.exponents[k] < 2.0
    if singular:
        for i in range(n):
            rho[i] = max(rho[i], _FLOOR * top)
    damping, last, change = 1.0, math.inf, math.inf
    for iteration in range(1, _MOST_ITERATIONS + 1):
        fill_variation(rho, form, xi, curvature)
        if form.slopes < 0.0:
            assemble_three(rho, target, xi, curvature, dt, form, work, bands)
        else:
            assemble_five(rho, target, xi, curvature, dt, form, work, bands)
        factor_five(bands)
        for i in range(n):
            new[i] = -residual[i]
        solve_five(bands, new[:n])
        if coupled:
            correct(new[:n], dt, form, work, bands, basis)
        for i in range(n):
            new[i] = max(rho[i] + new[i], 0.1 * rho[i])
        scale_to(new[:n], total)
        change = 0.0
        for i in range(n):
            step = new[i] - rho[i] if damping >= 1.0 else damping * (new[i] - rho[i])
            change += abs(step)
            rho[i] = new[i] if damping >= 1.0 else rho[i] + step
        if not np.isfinite(change):
            return 0
        ratio = change / last if damping >= 1.0 and np.isfinite(last) else math.inf
        close = not singular and change <= _SUPERLINEAR * precision * total and change * ratio * ratio <= precision * total
        damping = max(0.5 * damping, 0.125) if change > 0.7 * last and iteration > 4 else min(1.5 * damping, 1.0)
        last = change
        if change <= precision * total or close:
            scale_to(rho, total)
            return iteration
    if change <= _ROUND_OFF * total:
        scale_to(rho, total)
        return _MOST_ITERATIONS
    return 0
