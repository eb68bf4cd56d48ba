"""Internal energies of one cell: slopes against differences, inverses against slopes."""

import numpy as np
import pytest

from mfpde.energy import Entropy, Power
from mfpde.energy.base import Energy
from mfpde.solvers.jko.internal import Internal

SUMS = [
    Internal(0.3),
    Internal(0.0, ((2.0, 1.5),)),
    Internal(0.0, ((4.0, 0.2),)),
    Internal(0.0, ((0.5, 1.0),)),
    Internal(0.2, ((2.0, 1.0),)),
    Internal(0.1, ((3.0, 2.0), (0.5, 0.3))),
    Internal(0.0, ((2.0, 1.0), (5.0, 0.1))),
]


@pytest.mark.parametrize("internal", SUMS)
def test_slopes_and_bends_are_derivatives(internal: Internal) -> None:
    rho = np.geomspace(1e-3, 20.0, 41)
    step = 1e-4 * rho
    slopes = (internal.values(rho + step) - internal.values(rho - step)) / (2.0 * step)
    assert internal.slopes(rho) == pytest.approx(slopes, rel=1e-6, abs=1e-6)
    bends = (internal.slopes(rho + step) - internal.slopes(rho - step)) / (2.0 * step)
    assert internal.bends(rho) == pytest.approx(bends, rel=1e-6)


@pytest.mark.parametrize("spread", [0.0, 1e-3, 2.0])
@pytest.mark.parametrize("internal", SUMS)
def test_densities_invert_the_slope(internal: Internal, spread: float) -> None:
    rho = np.geomspace(1e-12, 1e4, 400)
    pressure = internal.slopes(rho) + spread * np.log(rho)
    assert internal.densities(pressure, spread) == pytest.approx(rho, rel=1e-10, abs=1e-13)


def test_pressures_below_that_of_vacuum_give_none() -> None:
    both = Internal(0.0, ((2.0, 1.0), (3.0, 1.0)))
    assert both.touches_zero
    assert np.array_equal(both.densities(np.array([-5.0, 0.0])), [0.0, 0.0])
    assert np.array_equal(Internal(0.0, ((2.0, 1.0),)).densities(np.array([-5.0, 0.0])), [0.0, 0.0])
    assert not Internal(0.1, ((2.0, 1.0),)).touches_zero


def test_very_low_and_high_pressures_stay_finite_where_densities_are() -> None:
    heat = Internal(0.1, ((2.0, 1.0),))
    found = heat.densities(np.array([-1e6, -80.0, 0.0, 1e6]))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0.0).all()
    assert found[-1] == pytest.approx(5e5, rel=1e-4)


def test_terms_of_one_kind_add_up() -> None:
    terms: dict[str, Energy] = {"a": Entropy(0.1), "b": Entropy(0.2), "c": Power(2.0, 1.0), "d": Power(2.0, 0.5), "e": Power(3.0)}
    found = Internal.of(terms)
    assert found.temperature == pytest.approx(0.3)
    assert dict(found.powers) == {2.0: 1.5, 3.0: 1.0}
    assert Internal.of({}).empty


def test_nothing_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="no internal energy"):
        Internal(0.0).densities(np.zeros(3))
