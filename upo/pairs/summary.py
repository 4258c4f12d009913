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

# `p_min: auto`
LEAST = 0.5  # of the density
SAMPLE_SIZE = 0.8  # effective, of the rows, that is left
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
        users, items = (
            torch.zeros(n, dtype=torch.bool, device=self.space.keys.device) for n in self._sizes
        )
        for u, i in self._rows():
            users[u] = True
            items[i] = True
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

    def clip(self) -> float:
        """The lower clip of ``p_min: auto``, the same for all replicas.

        ``LEAST`` times the density, or more where weights by the log's margins, held-out rows
        included, would have an effective sample size of less than ``SAMPLE_SIZE`` of its rows. Of a
        large log, 2^20 evenly spread rows speak.
        """
        space = self.space
        users, items = (torch.zeros(1, n, dtype=torch.int64) for n in self._sizes)
        for u, i in self._rows():
            users += torch.bincount(u, minlength=space.n_users).cpu()
            items += torch.bincount(i, minlength=space.n_items).cpu()
        ((a, b),) = margin_logits(users, items, space.density)
        u, i = self._pairs(space.keys[:: -(-space.n_observed // SAMPLE)].cpu())
        return max(LEAST * space.density, sample_size_clip(torch.sigmoid(a[u] + b[i]), SAMPLE_SIZE))

    def _counts(self, inside: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        space = self.space
        users, items = (
            torch.zeros(space.replicas, n, dtype=torch.int64, device=space.keys.device)
            for n in self._sizes
        )
        for rows in self._blocks():
            keep = inside(rows).long()
            u, i = self._pairs(space.keys[rows])
            users.scatter_add_(1, u, keep)
            items.scatter_add_(1, i, keep)
        return users, items

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.space.n_users, self.space.n_items

    def _pairs(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Users and items of keys."""
        users = torch.div(keys, self.space.n_items, rounding_mode="floor")
        return users, keys - users * self.space.n_items

    def _rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Users and items of all rows, block by block."""
        return map(self._pairs, torch.split(self.space.keys, BLOCK))

    def _blocks(self) -> Iterator[Tensor]:  # [R, b]
        rows = torch.arange(self.space.n_observed, device=self.space.keys.device)
        for part in torch.split(rows, max(1, BLOCK // self.space.replicas)):
            yield part.expand(self.space.replicas, -1)
