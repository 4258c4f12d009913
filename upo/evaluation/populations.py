"""The pairs over which an estimator is diagnosed, and what is known of their o and their labels.

A population is one case: D visited pair by pair, D sampled, or cells that no network has seen. It
yields blocks of pairs, the same for every replica, each with the weight of what it stands for;
every rank yields its own share.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from upo.data.rating_data import RatingData, Truth
from upo.evaluation.mar import MarSet, rank_blocks
from upo.models.estimator import Estimator
from upo.pairs import Pairs, PairSpace
from upo.pairs.target import POSITIVE, Rating, Target

EXACT_PAIRS = 2**21  # |D| up to which every pair is visited
SAMPLE_PAIRS = 2**20  # pairs of D \ O sampled beyond
PROBE_PAIRS = 2**17  # pairs whose propensities fix the bins of the ECE

Weighted = Iterator[tuple[Pairs, Tensor]]  # pairs, weight [R, B]
Labelled = Iterator[tuple[Pairs, Tensor, Tensor]]  # and labels [R, B]


class Population(ABC):
    """One case of what is measured.

    Args:
        space: The pair space.
    """

    sampled = False  # whether a sample stands for a part of it

    def __init__(self, space: PairSpace) -> None:
        self.space = space

    @abstractmethod
    def __iter__(self) -> Weighted:
        """Blocks of pairs with their weights."""

    def probe(self) -> Pairs:
        """Pairs from whose propensities bins are cut."""
        size = min(PROBE_PAIRS, self.space.n_pairs)
        return self.space.pairs(self._everyone(self._drawn("bins_of_ece", 0, size, size)), size)

    def _drawn(self, purpose: str, lo: int, hi: int, size: int) -> Tensor:  # [hi - lo]
        """Numbers lo .. hi - 1 of a sample of ``size`` pairs of D."""
        return self.space.shared_stream(purpose).rows(0, 1, lo, hi, size)[0, 0]

    def _everyone(self, index: Tensor) -> Tensor:  # [B] -> [R, B]
        return index.to(self.space.keys.device).expand(self.space.replicas, -1)

    def log(self) -> Weighted:
        """Every pair of O."""
        for lo, hi in rank_blocks(self.space.n_observed, self.space.replicas):
            pairs = self.space.pairs_at(self._everyone(self.space.keys[lo:hi]), hi - lo)
            yield pairs, _ones(pairs)


class Visited(Population):
    """D, pair by pair."""

    def __iter__(self) -> Weighted:
        for lo, hi in rank_blocks(self.space.n_pairs, self.space.replicas):
            pairs = self.space.pairs(self._everyone(torch.arange(lo, hi)), hi - lo)
            yield pairs, _ones(pairs)


class Sampled(Population):
    """D: every observed pair, and a uniform sample of the others that stands for all of them."""

    sampled = True

    def __iter__(self) -> Weighted:
        yield from self.log()
        for lo, hi in rank_blocks(SAMPLE_PAIRS, self.space.replicas):
            index = self._everyone(self._drawn("diagnose", lo, hi, SAMPLE_PAIRS))
            pairs = self.space.pairs(index, hi - lo)
            yield pairs, (~pairs.observed).float() * (self.space.n_pairs / SAMPLE_PAIRS)


class Unseen(Population):
    """The test pairs of a world that holds cells out of D, which no network has seen.

    Args:
        space: The pair space.
        mar: The test pairs.
    """

    def __init__(self, space: PairSpace, mar: MarSet) -> None:
        super().__init__(space)
        self.mar = mar

    def __iter__(self) -> Weighted:
        for pairs, _ in self.mar.blocks(self.space):
            yield pairs, _ones(pairs)

    def probe(self) -> Pairs:
        """The test pairs, or a sample of them."""
        keys = self.mar.users * self.space.n_items + self.mar.items
        keys = keys[:: -(-len(keys) // PROBE_PAIRS)]
        return self.space.pairs_at(self._everyone(keys), len(keys))


def whole(space: PairSpace) -> Population:
    """D, visited where it is small."""
    return Visited(space) if space.n_pairs <= EXACT_PAIRS else Sampled(space)


def measured(space: PairSpace, data: RatingData, mar: MarSet) -> Population:
    """What diagnostics are measured on: cells that no network has seen where there are any."""
    held_out = data.truth is not None and data.cells is not None and len(mar) > 0
    return Unseen(space, mar) if held_out else whole(space)


class Knowledge(ABC):
    """What is known of the pairs of a population beside the log."""

    complete = True  # whether the errors outside the log are known in any way

    @abstractmethod
    def propensity(self, pairs: Pairs) -> Tensor | None:  # [R, B] float64
        """The true propensity, or None where nobody knows it."""

    @abstractmethod
    def outcomes(self, pairs: Pairs) -> list[tuple[Tensor, Tensor | float]]:
        """Values of o with their probabilities."""

    @abstractmethod
    def labelled(self, population: Population) -> Labelled:
        """Pairs with weights and true labels that together stand for the population."""

    def expected(self, pairs: Pairs) -> Tensor:  # [R, B] float64
        """The true propensity where it is known, else o."""
        p = self.propensity(pairs)
        return pairs.o.double() if p is None else p


class Simulated(Knowledge):
    """A simulated world: true propensities and labels of every pair.

    ECE and BMSE are linear in o before a norm is taken, so weighting both outcomes by p puts the
    true propensity in the place of o, and no sampling noise of the log is left.

    Args:
        truth: Of the world.
        target: What predictions are of.
    """

    def __init__(self, truth: Truth, target: Target) -> None:
        self.truth = truth
        self.target = target

    def propensity(self, pairs: Pairs) -> Tensor:
        return self.truth.propensity(pairs.users, pairs.items)

    def outcomes(self, pairs: Pairs) -> list[tuple[Tensor, Tensor | float]]:
        p = self.propensity(pairs)
        return [(torch.ones_like(pairs.o), p), (torch.zeros_like(pairs.o), 1.0 - p)]

    def labelled(self, population: Population) -> Labelled:
        for pairs, weight in population:
            yield pairs, weight, self._label(pairs)

    def _label(self, pairs: Pairs) -> Tensor:
        # a world without ratings has labels in their place, in its log too
        rating = getattr(self.truth, "rating", self.truth.label)
        if not isinstance(self.target, Rating):
            return self.truth.label(pairs.users, pairs.items)
        return self.target.labels(rating(pairs.users, pairs.items))


class Logged(Knowledge):
    """Real data: the log, and a MAR sample that stands for all of D outside it.

    Args:
        mar: The MAR sample; without one no label outside the log is known.
        target: What predictions are of.
    """

    def __init__(self, mar: MarSet, target: Target) -> None:
        self.mar, self.target = mar, target
        self.complete = len(mar) > 0

    def propensity(self, pairs: Pairs) -> None:
        return None

    def outcomes(self, pairs: Pairs) -> list[tuple[Tensor, Tensor | float]]:
        return [(pairs.o, 1.0)]

    def labelled(self, population: Population) -> Labelled:
        if not self.complete:
            return
        space = population.space
        for pairs, weight in population.log():
            row, _ = space.find(pairs.users, pairs.items)
            yield pairs, weight, space.labels[row]
        _, seen = space.find(self.mar.users, self.mar.items)
        labels = self.target.labels(self.mar.ratings)
        stands_for = (space.n_pairs - space.n_observed) / max(1, int((~seen).sum()))
        for pairs, rows in self.mar.blocks(space):
            weight = (~pairs.observed).float() * stands_for
            yield pairs, weight, labels[rows].expand(space.replicas, -1)


def knowledge(data: RatingData, mar: MarSet, target: Target = POSITIVE) -> Knowledge:
    """What is known of a dataset, with labels as a target has them."""
    return Logged(mar, target) if data.truth is None else Simulated(data.truth, target)


def unclipped(estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B] float64
    """Propensities as learned."""
    return estimator.propensity(pairs).double().clamp(1e-6, 1 - 1e-6)


def _ones(pairs: Pairs) -> Tensor:
    return torch.ones(pairs.users.shape, device=pairs.users.device)
