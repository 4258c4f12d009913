"""Batches of user-item pairs: a step's slice of O, of D, or of both."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from upo.errors import InputError

if TYPE_CHECKING:
    from upo.pairs import PairSpace


@dataclass(eq=False)
class Pairs:
    """A slice of a batch of user-item pairs, one row for each replica.

    Attributes:
        users: ``[R, B]`` int64.
        items: ``[R, B]`` int64.
        space: Where observation and labels are looked up.
        total: Global size of the batch (B summed over ranks).
        memo: Results of networks on this batch by (network, what): parameter version, whether the
            value carries a graph, value.
        binned: The propensities that were last assigned to bins, and their bins.
    """

    users: Tensor
    items: Tensor
    space: "PairSpace"
    total: int
    memo: dict[tuple[str, str], tuple[int, bool, Tensor]] = field(default_factory=dict)
    binned: tuple[Tensor, Tensor] | None = None

    @cached_property
    def _row(self) -> Tensor:
        return self.space.find(self.users, self.items)[0]

    @cached_property
    def observed(self) -> Tensor:
        """``[R, B]`` bool: the pair is in the log, held-out rows included."""
        return self.space.observed(self.users, self.items)

    @cached_property
    def o(self) -> Tensor:
        """``observed`` as 0/1 floats."""
        return self.observed.float()

    @cached_property
    def trainable(self) -> Tensor:
        """``[R, B]`` bool: the pair is a training row of its replica."""
        return self.observed & self.space.in_train(self._row)

    @cached_property
    def labels(self) -> Tensor:
        """``[R, B]`` 0/1 labels; 0 where there is no training row, so mask with ``trainable``."""
        return torch.where(self.trainable, self.space.labels[self._row], 0.0)


class ObservedPairs(Pairs):
    """Training rows: every pair is observed and labelled."""

    def __init__(self, rows: Tensor, space: "PairSpace", total: int) -> None:
        keys = space.keys[rows]
        users = torch.div(keys, space.n_items, rounding_mode="floor")
        super().__init__(users, keys - users * space.n_items, space, total)
        self.observed = torch.ones_like(rows, dtype=torch.bool)
        self.trainable = self.observed
        self.labels = space.labels[rows]

    @classmethod
    def of(
        cls, users: Tensor, items: Tensor, labels: Tensor, known: Tensor, like: "ObservedPairs"
    ) -> "ObservedPairs":
        """Rows that were looked up before, ``[R, B]`` each; ``known`` is all true."""
        rows = cls.__new__(cls)
        Pairs.__init__(rows, users, items, like.space, like.total)
        rows.observed = rows.trainable = known
        rows.labels = labels
        return rows


@dataclass(eq=False)
class Batch:
    """What one step sees: training rows from O and pairs from D (either may be absent)."""

    observed: ObservedPairs | None
    pairs: Pairs | None

    @property
    def o(self) -> ObservedPairs:
        """The batch of O.

        Raises:
            InputError: If the stage draws no observed rows.
        """
        if self.observed is None:
            raise InputError("This learner needs observed rows; set the stage's observed_batch.")
        return self.observed

    @property
    def d(self) -> Pairs:
        """The batch of D.

        Raises:
            InputError: If the stage draws no pairs of D.
        """
        if self.pairs is None:
            raise InputError("This learner needs pairs of D; set the stage's pair_batch.")
        return self.pairs

    def tensors(self) -> list[Tensor]:
        """What the batch consists of, once its pairs are looked up."""
        parts: list[Tensor] = []
        if self.observed is not None:
            o = self.observed
            parts += [o.users, o.items, o.labels, o.observed]
        if self.pairs is not None:
            parts += [self.pairs.users, self.pairs.items, self.pairs.observed]
        return parts

    def of(self, tensors: list[Tensor]) -> "Batch":
        """A batch like this one that consists of other ``tensors()``."""
        rest = iter(tensors)
        observed = pairs = None
        if self.observed is not None:
            users, items, labels, known = (next(rest) for _ in range(4))
            observed = ObservedPairs.of(users, items, labels, known, self.observed)
        if self.pairs is not None:
            pairs = Pairs(next(rest), next(rest), self.pairs.space, self.pairs.total)
            pairs.observed = next(rest)
        return Batch(observed, pairs)
