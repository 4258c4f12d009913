"""Measures predictions: ranking and errors on the MAR sample, errors on held-out rows.

Every rank measures its share of the rows; the metrics are exact for any sharding.
"""

from collections.abc import Iterator
from copy import copy

import torch
from torch import Tensor, nn

from upo import metrics
from upo.core.shards import own_blocks
from upo.data.rating_data import RatingData
from upo.evaluation.scoring import scoring_of
from upo.metrics.names import AT_K, RANKING
from upo.models.estimator import Estimator
from upo.pairs import Pairs, PairSpace

BLOCK = 2**20  # pairs x replicas evaluated at once


class MarSet(nn.Module):
    """The MAR sample on the device.

    Args:
        data: The dataset; its ``test`` must be there.
        k: Cutoff of the ranking metrics.

    Attributes:
        labels: ``[N]`` 0 or 1, by the dataset's threshold, for ranking.
        ratings: ``[N]`` as they were read.
    """

    users: Tensor
    items: Tensor
    labels: Tensor
    ratings: Tensor

    def __init__(self, data: RatingData, k: int) -> None:
        super().__init__()
        self.k = k
        test = data.test
        empty = torch.zeros(0, dtype=torch.int64)
        self.register_buffer("users", empty if test is None else test.users, persistent=False)
        self.register_buffer("items", empty if test is None else test.items, persistent=False)
        labels = torch.zeros(0) if test is None else test.labels(data.label_rule)
        self.register_buffer("labels", labels, persistent=False)
        ratings = torch.zeros(0) if test is None else test.ratings
        self.register_buffer("ratings", ratings, persistent=False)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: Tensor) -> "MarSet":
        """Some of the rows, ``[N]`` bool or their numbers, as a sample of their own."""
        part = copy(self)
        part._buffers = dict(self._buffers)  # of its own
        for name in ("users", "items", "labels", "ratings"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def blocks(self, space: PairSpace) -> Iterator[tuple[Pairs, slice]]:
        """This rank's pairs, the same for every replica, and which rows they are."""
        replicas = space.replicas
        for lo, hi in rank_blocks(len(self), replicas):
            users, items = self.users[lo:hi], self.items[lo:hi]
            both = users.expand(replicas, -1), items.expand(replicas, -1)
            yield Pairs(*both, space, hi - lo), slice(lo, hi)

    def measure(
        self, estimator: Estimator, include: Tensor | None = None
    ) -> dict[str, Tensor]:  # name -> [R] float64
        """Ranking metrics and the target's pointwise errors of the predictions.

        Args:
            estimator: The networks.
            include: ``[R, N]`` bool rows that each replica reads; all by default.
        """
        k = self.k
        ranked = {name: metric() for name, metric in RANKING.items()}
        at_k = metrics.SeveralAtK([metric(k) for metric in AT_K.values()])
        pointwise = scoring_of(estimator).pointwise()
        truth = estimator.space.target.truth(self.ratings)
        for metric in (*ranked.values(), at_k, *pointwise.values()):
            metric.to(self.labels.device)
        for pairs, rows in self.blocks(estimator.space):
            score, f = estimator.score(pairs), estimator.predicted(pairs)
            labels, users = self.labels[rows], self.users[rows]
            mask = None if include is None else include[:, rows]
            for metric in ranked.values():
                metric.update(score, labels, include=mask)
            at_k.update(score, labels, users, include=mask)
            weight = None if mask is None else mask.double()
            for metric in pointwise.values():
                metric.update(f, truth[rows], weight)
        values = {name: metric.compute() for name, metric in ranked.items()}
        names = [f"{name}@{k}" for name in AT_K]
        values |= dict(zip(names, at_k.compute().unbind(0), strict=True))
        return values | {name: metric.compute() for name, metric in pointwise.items()}

    def by_user(
        self, estimator: Estimator, include: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:  # [U], [4, R, U] float64
        """The users, and what each adds to the metrics of :class:`upo.metrics.UserValues`.

        Of ratings, the squared error stands in the place of the log-loss.

        Args:
            estimator: The networks.
            include: ``[R, N]`` bool rows that each replica reads; all by default.
        """
        scoring, target = scoring_of(estimator), estimator.space.target
        metric = metrics.UserValues(self.k).to(self.labels.device)
        for pairs, rows in self.blocks(estimator.space):
            mask = None if include is None else include[:, rows]
            errors = scoring.error(estimator.predicted(pairs), target.truth(self.ratings[rows]))
            metric.update(
                estimator.score(pairs), self.labels[rows], self.users[rows], mask, errors=errors
            )
        return torch.unique(self.users), metric.compute()


def heldout_error(estimator: Estimator, *, weighted: bool) -> Tensor:  # [R] float64
    """The judging error on the held-out rows of each replica, plain or weighted by 1 / p_hat."""
    metric = scoring_of(estimator).judging(estimator.space.replicas)
    metric.to(estimator.space.keys.device)
    for pairs, labels in heldout_blocks(estimator):
        weight = 1.0 / estimator.p_hat(pairs) if weighted and estimator.has_propensity else None
        metric.update(estimator.predicted(pairs), labels, weight)
    value: Tensor = metric.compute()
    return value


def heldout_blocks(estimator: Estimator) -> Iterator[tuple[Pairs, Tensor]]:
    """This rank's held-out pairs of each replica and their labels in the unit of predictions."""
    space = estimator.space
    for lo, hi in rank_blocks(space.n_held, space.replicas):
        rows = space.held_rows(lo, hi)
        yield space.pairs_at(space.keys[rows], hi - lo), space.target.decoded(space.labels[rows])


def _block_size(replicas: int) -> int:
    """Rows of a block that fits memory."""
    return max(1, BLOCK // replicas)


def rank_blocks(total: int, replicas: int) -> Iterator[tuple[int, int]]:
    """This rank's share of ``range(total)`` in blocks that fit memory."""
    return own_blocks(total, _block_size(replicas))


def blocks(lo: int, hi: int, replicas: int) -> Iterator[tuple[int, int]]:
    """Consecutive blocks of ``lo .. hi`` that fit memory."""
    size = _block_size(replicas)
    for first in range(lo, hi, size):
        yield first, min(first + size, hi)
