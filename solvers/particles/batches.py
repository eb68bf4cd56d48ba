"""Minibatches of inputs for stochastic gradient descent."""

from dataclasses import dataclass

import numpy as np

from mfpde.energy.base import Energy, EnergySum
from mfpde.energy.network import TwoLayer
from mfpde.energy.pair_network import PairNetwork
from mfpde.energy.wide_resnets import WideResNet

_KEY = 2


@dataclass(frozen=True, eq=False)
class Batches:
    """The k-th minibatch of each network in ``energy``: ``size`` inputs, drawn independently or, of samples, epoch by epoch without
    replacement (the last one of an epoch may be smaller). It follows from ``seed`` and k alone, so that runs resume to the same bits."""

    energy: EnergySum
    size: int
    epochs: bool
    seed: int

    @staticmethod
    def of(energy: EnergySum, size: int, epochs: bool, seed: int) -> "Batches":
        """Raises ValueError where there is no network, or no epoch of its inputs."""
        networks = {name: term for name, term in energy.terms.items() if isinstance(term, TwoLayer | PairNetwork | WideResNet)}
        if not networks:
            raise ValueError("`batch` draws inputs of a network, but no term is two_layer, ensemble_resnet or wide_resnet")
        for name, term in networks.items():
            if epochs and term.size is None:
                raise ValueError(f"`epochs` needs inputs that are samples, but those of {name} are a law; leave it out")
            if epochs and term.size is not None and term.size < size:
                raise ValueError(f"batch = {size} is more than the {term.size} samples of {name}, which an epoch has")
        return Batches(energy, size, epochs, seed)

    @property
    def note(self) -> str:
        """How they are drawn, for people."""
        how = "in shuffled epochs" if self.epochs else "drawn independently"
        return f"stochastic gradient descent on minibatches of {self.size} inputs, {how}"

    def at(self, number: int) -> EnergySum:
        """The energy on minibatch ``number``, without entropy; its gradients are those of the energy in the mean."""
        terms: dict[str, Energy] = {}
        for place, (name, term) in enumerate(self.energy.terms.items()):
            if isinstance(term, TwoLayer | PairNetwork | WideResNet):
                terms[name] = self._epoch_batch(term, number, place) if self.epochs else self._drawn(term, number, place)
            elif term.temperature == 0.0:
                terms[name] = term
        return EnergySum(terms)

    def _drawn(self, term: TwoLayer | PairNetwork | WideResNet, number: int, place: int) -> TwoLayer | WideResNet:
        return term.batch(*term.draw(self._generator(number, place), self.size))

    def _epoch_batch(self, term: TwoLayer | PairNetwork | WideResNet, number: int, place: int) -> TwoLayer | WideResNet:
        assert term.size is not None
        each = -(-term.size // self.size)
        order = self._generator(number // each, place).permutation(term.size)
        start = number % each * self.size
        return term.batch(*term.rows(order[start : start + self.size]))

    def _generator(self, number: int, place: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(_KEY, place, number))))
