"""The random-feature model: only a is trained, b stays as it was drawn, and the training is solved exactly."""

from dataclasses import dataclass

import numpy as np

from mfpde.arrays import FloatArray
from mfpde.scaling.network import Network
from mfpde.scaling.risks import Risk


@dataclass(frozen=True, eq=False)
class RandomFeatures:
    """ȧ = −(K a − t), b frozen, or its gradient descent with ``rate`` η; factor 1. ``values`` (k,) and ``vectors`` (m, k) decompose K."""

    start: Network
    values: FloatArray
    vectors: FloatArray
    target: FloatArray
    rate: float | None = None

    @classmethod
    def of(cls, risk: Risk, start: Network, rate: float | None = None) -> "RandomFeatures":
        """The model of a network with factor 1. Raises ValueError for another factor."""
        if start.factor != 1.0:
            raise ValueError(f"the random-feature model is that of a network with factor 1, got {start.factor}")
        return cls(start, *risk.features(start.inner), rate)

    def at(self, time: float) -> Network:
        """The model at a time, which may be infinite: with λ an eigenvalue and a = Σ α v, α(t) = α₀ + (1 − e^{−λt})(t̂/λ − α₀); after
        k = t/η steps (1 − ηλ)^k in place of the exponential."""
        if time == 0.0:
            return self.start
        before = self.vectors.T @ self.start.outer
        with np.errstate(under="ignore"):
            moved = (
                -np.expm1(-self.values * time) if self.rate is None else 1.0 - (1.0 - self.rate * self.values) ** round(time / self.rate)
            )
        return Network(self.start.outer + self.vectors @ (moved * (self.target / self.values - before)), self.start.inner, 1.0)

    @property
    def sharpness(self) -> float:
        """The largest eigenvalue of K."""
        return float(self.values.max(initial=0.0))
