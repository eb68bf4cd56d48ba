"""What a flow on one line is made of: its energy, ξ and fluxes."""

from typing import NamedTuple

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel
from mfpde.energy.internal import VACUUM
from mfpde.solvers.kernels.edge import PRESSURE_OUTFLOW, edge
from mfpde.solvers.kernels.logarithm import logarithms
from mfpde.solvers.kernels.transport import bernoulli

FITTED = -1.0
"""The ``slopes`` of the Scharfetter–Gummel flux, which has none."""


class Form(NamedTuple):
    """A flow on n cells: ξ = ``fixed`` (n,) + Σ coefficient m/(m−1) ρ^{m−1} + Kρ [+ T log ρ where the flux has no part for it].

    ``exponentials``: rows (decay, far, near, constant) of K as in ``add_exponential``; ``means`` (0 or more, n) holds the g of its parts
    1⊗g + g⊗1, ``rows`` (r, n) and ``signs`` (r,) the rest of its part of low rank; ``forth`` (n − 1,): Bernoulli's function of Δξ/T where
    steps are linear, else empty; ``wall`` (n,): 1 for cells at walls; ``slopes``: which power of ρ upwind fluxes take slopes of, 0 for
    none, ``FITTED`` for the Scharfetter–Gummel flux.
    """

    fixed: FloatArray
    exponents: FloatArray
    coefficients: FloatArray
    exponentials: FloatArray
    means: FloatArray
    rows: FloatArray
    signs: FloatArray
    forth: FloatArray
    wall: FloatArray
    spacing: float
    temperature: float
    slopes: float


@sum_kernel
def is_coupled(form: Form) -> bool:
    """Whether ξ depends on the density elsewhere."""
    return bool(form.exponentials.shape[0] + form.means.shape[0] + form.rows.shape[0] > 0)


@sum_kernel
def add_coupling(rho: FloatArray, form: Form, out: FloatArray) -> None:
    """out += Kρ. Sums that have decayed beyond all digits are cut off: they would slow down as subnormal numbers."""
    n = rho.size
    for k in range(form.exponentials.shape[0]):
        decay, far, near, constant = form.exponentials[k]
        before, after, total = 0.0, 0.0, 0.0
        for i in range(n):
            j = n - 1 - i
            out[i] += far * before + near * rho[i]
            out[j] += far * after
            before = decay * (before + rho[i])
            after = decay * (after + rho[j])
            total += rho[i]
            before = before if abs(before) > 1e-280 else 0.0
            after = after if abs(after) > 1e-280 else 0.0
        if constant != 0.0:
            for i in range(n):
                out[i] += constant * total
    for k in range(form.means.shape[0]):
        moment, mass = 0.0, 0.0
        for i in range(n):
            moment += form.means[k, i] * rho[i]
            mass += rho[i]
        for i in range(n):
            out[i] += (moment + mass * form.means[k, i]) * form.spacing
    for k in range(form.rows.shape[0]):
        moment = 0.0
        for i in range(n):
            moment += form.rows[k, i] * rho[i]
        moment *= form.signs[k] * form.spacing
        for i in range(n):
            out[i] += moment * form.rows[k, i]


@sum_kernel
def cancelled(rho: FloatArray, form: Form) -> float:
    """The size of the terms of ½⟨ρ, Kρ⟩ of low rank, which may cancel, over the spacing."""
    n = rho.size
    size = 0.0
    for k in range(form.means.shape[0]):
        moment, mass = 0.0, 0.0
        for i in range(n):
            moment += abs(form.means[k, i]) * rho[i]
            mass += rho[i]
        size += moment * mass * form.spacing
    for k in range(form.rows.shape[0]):
        moment = 0.0
        for i in range(n):
            moment += form.rows[k, i] * rho[i]
        size += 0.5 * moment * moment * form.spacing
    return size


@sum_kernel
def slope(value: float, exponent: float) -> float:
    """ρ^{m−1}, bounded where that has a pole."""
    if exponent == 2.0:
        return value
    if exponent == 3.0:
        return value * value
    return float(max(value, 0.0 if exponent > 1.0 else VACUUM) ** (exponent - 1.0))


@sum_kernel
def fill_energy(rho: FloatArray, form: Form, work: FloatArray) -> tuple[float, float]:
    """ξ in row 0 of ``work``, without the part of a fitted flux, and log ρ in row 2 where there is entropy; returns the energy and the sum
    of its terms' sizes."""
    n = rho.size
    xi, pair, logs = work[0], work[1], work[2]
    energy = 0.0
    for i in range(n):
        energy += form.fixed[i] * rho[i]
        xi[i] = form.fixed[i]
    magnitude = abs(energy)
    for k in range(form.exponents.size):
        m, c = form.exponents[k], form.coefficients[k] / (form.exponents[k] - 1.0)
        part = 0.0
        for i in range(n):
            value = slope(rho[i], m)
            part += rho[i] * value
            xi[i] += c * m * value
        energy += c * part
        magnitude += abs(c * part)
    if is_coupled(form):
        pair[:n] = 0.0
        add_coupling(rho, form, pair)
        part = 0.0
        for i in range(n):
            part += rho[i] * pair[i]
            xi[i] += pair[i]
        energy += 0.5 * part
        magnitude += 0.5 * abs(part) + cancelled(rho, form)
    if form.temperature > 0.0:
        part = 0.0
        logarithms(rho, pair, logs)
        for i in range(n):
            part += rho[i] * logs[i]
        energy += form.temperature * part
        magnitude += form.temperature * abs(part)
        if form.slopes >= 0.0:
            for i in range(n):
                xi[i] += form.temperature * logs[i]
    return energy * form.spacing, magnitude * form.spacing


@sum_kernel
def fitted_rate(rho: FloatArray, xi: FloatArray, logs: FloatArray, form: Form, rate: FloatArray) -> tuple[float, float]:
    """See ``scharfetter_gummel_rate``; ``logs`` are those of ρ."""
    n = rho.size
    inverse, factor = 1.0 / form.spacing, form.temperature / form.spacing
    last, fastest, dissipation = 0.0, 0.0, 0.0
    for i in range(n - 1):
        drop = (xi[i + 1] - xi[i]) / form.temperature
        forth = form.forth[i] if form.forth.size else bernoulli(drop)
        flux = factor * (forth * rho[i] - (forth + drop) * rho[i + 1])
        if flux != 0.0:
            dissipation -= flux * form.temperature * (drop + logs[i + 1] - logs[i])
        fastest = max(fastest, max(forth, forth + drop))
        rate[i] = (last - flux) * inverse
        last = flux
    rate[n - 1] = last * inverse
    return 2.0 * fastest * factor * inverse, dissipation


@sum_kernel
def upwind_rate(rho: FloatArray, xi: FloatArray, form: Form, rate: FloatArray) -> tuple[float, float]:
    """See ``mfpde.solvers.kernels.transport.upwind_rate``."""
    n = rho.size
    inverse = 1.0 / form.spacing
    last, fastest, dissipation = 0.0, 0.0, 0.0
    for i in range(n - 1):
        drop = xi[i] - xi[i + 1]
        if drop > 0.0:
            flux = drop * inverse * edge(rho[max(i - 1, 0)], rho[i], rho[i + 1], i > 0, form.slopes)
        else:
            flux = drop * inverse * edge(rho[min(i + 2, n - 1)], rho[i + 1], rho[i], i + 2 < n, form.slopes)
        dissipation += flux * drop
        fastest = max(fastest, abs(drop))
        rate[i] = (last - flux) * inverse
        last = flux
    rate[n - 1] = last * inverse
    return (PRESSURE_OUTFLOW if form.slopes > 0.0 and form.slopes != 1.0 else 2.0) * fastest * inverse * inverse, dissipation


@sum_kernel
def evaluate(rho: FloatArray, form: Form, work: FloatArray, rate: FloatArray) -> tuple[float, float, float, float]:
    """Fill the rate −div F; returns (energy, outflow, dissipation, the size that round-off is judged against: that of the energy's
    terms, of ∫|ξ|ρ and of T∫ρ). ``work`` (3, n) or more."""
    n = rho.size
    xi = work[0]
    energy, magnitude = fill_energy(rho, form, work)
    size = 0.0
    for i in range(n):
        size += abs(xi[i]) * rho[i] + form.temperature * rho[i]
    if form.slopes < 0.0:
        outflow, dissipation = fitted_rate(rho, xi, work[2], form, rate)
    else:
        outflow, dissipation = upwind_rate(rho, xi, form, rate)
    return energy, outflow, dissipation, magnitude + size * form.spacing


@sum_kernel
def bernoullis(drops: FloatArray) -> FloatArray:
    """x / (eˣ − 1) of each."""
    return np.array([bernoulli(drop) for drop in drops])
