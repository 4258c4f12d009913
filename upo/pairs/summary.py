"""Sums over a log that networks start from, replica by replica, in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from upo.functional.margins import margin_logits
from upo.functional.propensity import sample_size_clip
from upo.pairs.target import Target
from upo.tables.numbering import BLOCK

SAMPLE = 2**20  # rows of a large log that stand for all


class Log(Protocol):
    """What is read of a pair space (:class:`upo.pairs.PairSpace`, which builds on this module)."""

    n_users: int
    n_items: int
    n_observed: int
    n_held: int
    n_train: int
    keys: Tensor
    labels: Tensor
    target: Target

    @property
    def replicas(self) -> int:
        """R."""

    @property
    def density(self) -> float:
        """|O| / |D|."""

    @property
    def features(self) -> tuple[Tensor | None, Tensor | None]:
        """Columns of users and of items."""

    def in_train(self, rows: Tensor) -> Tensor:
        """Whether rows of the log are training rows of their replica."""

    def in_train_cells(self, keys: Tensor) -> Tensor:
        """Whether observed cells are no held-out cells of their replica."""


class LogSummary:
    """What a network may start from (a ``TrainingLog``); computed when asked for.

    Args:
        space: The pair space.
    """

    def __init__(self, space: Log) -> None:
        self.space = space

    @property
    def features(self) -> tuple[Tensor | None, Tensor | None]:
        """Columns of users and of items, known ones beyond D behind."""
        return self.space.features

    def logged(self) -> tuple[Tensor, Tensor]:
        """Users and items with rows in the log, held-out rows included."""
        space = self.space
        sizes, device = (space.n_users, space.n_items), space.keys.device
        users, items = (torch.zeros(n, dtype=torch.bool, device=device) for n in sizes)
        for keys in torch.split(space.keys, BLOCK):
            u = torch.div(keys, space.n_items, rounding_mode="floor")
            users[u] = True
            items[keys - u * space.n_items] = True
        return users, items

    def mean_output(self) -> Tensor:  # [R] float64
        """The output that predicts the mean label of each replica's training rows."""
        return self.space.target.output(self.mean_label())

    def mean_label(self) -> Tensor:  # [R] float64
        """Mean label of each replica's training rows: the share of positive ones, say."""
        space = self.space
        if space.n_held == 0:
            return space.labels.mean(dtype=torch.float64).expand(space.replicas).clone()
        total = torch.zeros(space.replicas, dtype=torch.float64, device=space.keys.device)
        for rows in self._blocks():
            inside = space.in_train(rows)
            total += (space.labels[rows].double() * inside).sum(-1)
        return total / space.n_train

    def rows_by_id(self) -> tuple[Tensor, Tensor]:
        """Training rows of each user and item, of each replica."""
        return self._counts(self.space.in_train)

    def cells_by_id(self) -> tuple[Tensor, Tensor]:
        """Observed cells of D of each user and item that are no held-out cells of the replica."""
        space = self.space
        return self._counts(lambda rows: space.in_train_cells(space.keys[rows]))

    def sparing_clip(self, share: float) -> float:
        """The clip that leaves this share of the log's rows as effective sample size, in (0, 1).

        Weights are those of the log's margins, held-out rows included: the same for all replicas.
        Of a large log, 2^20 evenly spread rows speak.
        """
        space, n = self.space, (self.space.n_users, self.space.n_items)
        keys = space.keys.cpu()
        counts = [torch.zeros(1, size, dtype=torch.int64) for size in n]
        for part in torch.split(keys, BLOCK):
            u = torch.div(part, space.n_items, rounding_mode="floor")
            for count, index in zip(counts, (u, part - u * space.n_items), strict=True):
                count[0] += torch.bincount(index, minlength=count.shape[1])
        ((a, b),) = margin_logits(counts[0], counts[1], space.density)
        some = keys[:: -(-len(keys) // SAMPLE)]
        u = torch.div(some, space.n_items, rounding_mode="floor")
        return sample_size_clip(torch.sigmoid(a[u] + b[some - u * space.n_items]), share)

    def _counts(self, inside: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        space = self.space
        device, replicas = space.keys.device, space.replicas
        sizes = (space.n_users, space.n_items)
        users, items = (torch.zeros(replicas, n, dtype=torch.int64, device=device) for n in sizes)
        for rows in self._blocks():
            keep = inside(rows).long()
            u = torch.div(space.keys[rows], space.n_items, rounding_mode="floor")
            users.scatter_add_(1, u, keep)
            items.scatter_add_(1, space.keys[rows] - u * space.n_items, keep)
        return users, items

    def _blocks(self) -> Iterator[Tensor]:  # [R, b]
        rows = torch.arange(self.space.n_observed, device=self.space.keys.device)
        for part in torch.split(rows, max(1, BLOCK // self.space.replicas)):
            yield part.expand(self.space.replicas, -1)
