"""Lookups in tables, and the sums of their gradients in tensors that are kept from step to step.

A dense gradient of a table would be allocated, filled with zeros and added to the others at each
lookup. Here a backward pass adds the gradient of each lookup into one kept tensor and notes which
rows it was of. An optimiser that moves looked-up rows alone reads and clears those rows, so that a
step costs its batch, not its tables; all shapes follow from the sizes of the batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from upo.core.distributed import share, world_size

# Where a step looks up a third as many rows as a table has, or more, passes over the whole table
# take less time than gathering and scattering these rows.
ROWS_PER_LOOKUP = 3

_collected: dict[int, "TableGradient"] = {}  # id of a table's weight -> sum of its gradients
_batches: list[tuple[int, bool]] = []  # whose lookups are made: size over all ranks, rated


class Lookup(NamedTuple):
    """Rows that a step looked up in a table, one of which may occur several times.

    Attributes:
        rows: ``[R, b]``, of this rank's slice of a batch.
        size: Of the batch, over all ranks.
        rated: They are of rows of O, whose errors a loss may weigh.
    """

    rows: Tensor
    size: int
    rated: bool = False


@contextmanager
def batch_of(total: int, *, rated: bool = False) -> Iterator[None]:
    """Lookups within the block are those of a batch of ``total`` pairs, this rank's slice of it."""
    _batches.append((total, rated))
    try:
        yield
    finally:
        _batches.pop()


def batch_at_hand(shape: torch.Size) -> tuple[int, bool]:
    """Of lookups ``[R, b]``: the size of their batch over all ranks, and whether it is of O."""
    return _batches[-1] if _batches else (shape[1] * world_size(), False)


def are_few(looked_up: int, n: int) -> bool:
    """Whether so many rows of a table of ``n`` are gathered and scattered."""
    return looked_up * ROWS_PER_LOOKUP < n


class TableGradient:
    """Sum of the gradients of a step's lookups in one table, and which rows were looked up.

    Args:
        weight: The table, ``[R * n, k]``.
        replicas: R.
        by_rows: Whether only looked-up rows are read, and cleared after the step. Otherwise the sum
            is a gradient of the whole table that holds until the next step.

    Attributes:
        total: The sum, ``[R * n, k]``.
        lookups: What was looked up.
        share: ``[R * n, 1]``, where the whole table is read: how often each row was looked up, each
            time divided by the size of the batch.
        all_rows: The table was used otherwise too, which counts as looking up every row.
    """

    def __init__(self, weight: Tensor, replicas: int, *, by_rows: bool) -> None:
        self.replicas, self.by_rows = replicas, by_rows
        self.total = torch.zeros_like(weight, requires_grad=False)
        self.fresh = True
        self.all_rows = self.dense = False
        self.lookups: list[Lookup] = []
        self.waiting: list[Tensor] = []  # gradients that other ranks' are to be added to
        self.share: Tensor | None = None

    def start(self) -> None:
        """Begin a step at a sum of 0."""
        if not (self.by_rows or self.fresh):
            self.total.zero_()
        self.fresh = False

    def add(self, lookup: Lookup, grad: Tensor) -> None:  # [R * b, k]
        """Add the gradient of a lookup."""
        self.lookups.append(lookup)
        if self.by_rows and world_size() > 1:
            self.waiting.append(grad.view(*lookup.rows.shape, -1))
        else:
            self.total.index_add_(0, lookup.rows.reshape(-1), grad)

    def add_whole(self, lookup: Lookup, grad: Tensor) -> None:  # [R * n, k]
        """Add a gradient of the whole table, which is 0 outside of the rows that were looked up."""
        self.lookups.append(lookup)
        self.waiting.append(grad[:0])  # in its place
        self.total.add_(grad)
        self.dense = True

    def add_dense(self, grad: Tensor) -> None:  # [R * n, k]
        """Add a gradient of a use that was no lookup."""
        self.total.add_(grad)
        self.all_rows = self.dense = True

    @property
    def looked_up(self) -> bool:
        """Whether a lookup of the step has a gradient."""
        return bool(self.lookups)

    @property
    def used(self) -> bool:
        """Whether the step has a gradient to the table."""
        return self.looked_up or self.dense

    @property
    def row_wise(self) -> bool:
        """Whether rows are gathered and scattered: of sizes alone, so all ranks agree."""
        n = len(self.total) // self.replicas
        looked_up = sum(lookup.size for lookup in self.lookups)
        return self.by_rows and not self.dense and are_few(looked_up, n)

    @property
    def exchanged(self) -> bool:
        """Whether ``exchange`` makes the lookups of all ranks those of each."""
        return self.row_wise

    @property
    def rows(self) -> Tensor:  # [R, B]
        """Rows of all lookups."""
        found = [lookup.rows for lookup in self.lookups]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    @torch.no_grad()
    def penalise(
        self, weight: Tensor, strength: float | Tensor, importance: Tensor | None = None
    ) -> None:
        r"""Add the gradient of :math:`\lambda` times the mean over lookups of their penalties.

        The penalty of a lookup is the mean over its batch of :math:`\|row\|^2`, each times its
        importance.

        Args:
            weight: The table.
            strength: :math:`\lambda`, a number or ``[R]``.
            importance: At least 0, of each of the rated rows ``[R, b]``; 1 if not given, as it is
                of others.
        """
        strength = strength / len(self.lookups)
        if self.row_wise:
            for rows, size, rated in self.lookups:
                found = weight.index_select(0, rows.reshape(-1))
                if rated and importance is not None:
                    found = found * importance.reshape(-1, 1)
                if isinstance(strength, Tensor):
                    by_replica = strength.to(found, non_blocking=True)[:, None, None]
                    found = (found.view(*rows.shape, -1) * by_replica).view_as(found)
                factor = 1.0 if isinstance(strength, Tensor) else strength
                self.total.index_add_(0, rows.reshape(-1), found, alpha=2.0 * factor / size)
            return
        part = self.shares() if importance is None else self._counted(importance)
        if isinstance(strength, Tensor):
            there = strength.to(part, non_blocking=True)
            by_replica = part.view(self.replicas, -1) * there[:, None]
            self.total.addcmul_(weight, by_replica.view_as(part), value=2.0)
        else:
            self.total.addcmul_(weight, part, value=2.0 * strength)

    def shares(self) -> Tensor:
        """``share``; of this rank's lookups, until those of all ranks are added."""
        if self.share is None:
            self.share = self._counted(None)
        return self.share

    def _counted(self, importance: Tensor | None) -> Tensor:  # [R, b] -> [R * n, 1]
        share, one = self.total.new_zeros(len(self.total)), self.total.new_ones(1)
        for rows, size, rated in self.lookups:
            each = one.expand(rows.numel())
            if rated and importance is not None:
                each = importance.reshape(-1)
            share.index_add_(0, rows.reshape(-1), each, alpha=1.0 / size)
        return share.unsqueeze(1)

    def touched(self) -> Tensor:  # [R * n, 1]
        """1 for looked-up rows, 0 for others."""
        shares = self.shares()
        return torch.ones_like(shares) if self.all_rows else shares.sign()

    def to_sum(self) -> list[Tensor]:
        """What is still to be added up over ranks, in place."""
        if self.row_wise:
            return []
        return [self.total, self.shares()] if self.by_rows else [self.total]

    def scatter_waiting(self) -> None:
        """Add this rank's waiting gradients to the sum."""
        for lookup, grad in zip(self.lookups, self.waiting, strict=True):
            if len(grad):
                rows = lookup.rows.reshape(-1)
                self.total.index_add_(0, rows, grad.reshape(-1, grad.shape[-1]))
        self.waiting.clear()

    def finish(self) -> None:
        """End the step: a sum of looked-up rows is 0 again."""
        if self.by_rows and not self.row_wise:
            self.total.zero_()
        elif self.by_rows:
            for lookup in self.lookups:
                self.total.index_fill_(0, lookup.rows.reshape(-1), 0.0)
        self.lookups.clear()
        self.waiting.clear()
        self.share, self.all_rows, self.dense = None, False, False


class Rows(torch.autograd.Function):
    """Rows of a table, whose gradient may go straight into a tensor that is kept."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:  # [R * n, k], [R, b]
        ctx.save_for_backward(rows)
        ctx.table, ctx.shape, ctx.batch = id(weight), weight.shape, batch_at_hand(rows.shape)
        # not nn.functional.embedding: on the CPU its backward takes three times as long
        return weight.index_select(0, rows.reshape(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (rows,) = ctx.saved_tensors
        gradient = _collected.get(ctx.table)
        if gradient is not None:
            gradient.add(Lookup(rows, *ctx.batch), grads[0])
            return None, None
        return grads[0].new_zeros(ctx.shape).index_add(0, rows.reshape(-1), grads[0]), None


class Whole(torch.autograd.Function):
    """A table that is read whole in order to look up some of its rows."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:  # [R * n, k], [R, b]
        ctx.save_for_backward(rows)
        ctx.table, ctx.batch = id(weight), batch_at_hand(rows.shape)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (rows,) = ctx.saved_tensors
        gradient = _collected.get(ctx.table)
        if gradient is None:
            return grads[0], None
        if gradient.by_rows:
            gradient.add_whole(Lookup(rows, *ctx.batch), grads[0])
            return None, None
        gradient.lookups.append(Lookup(rows, *ctx.batch))
        return grads[0], None


def collected(table: int) -> TableGradient | None:
    """Where gradients of lookups in a table are added up now, by the id of its weight."""
    return _collected.get(table)


@contextmanager
def collecting(gradients: dict[int, TableGradient]) -> Iterator[None]:
    """Let backward passes add the gradients of lookups to these sums, by id of a table's weight.

    Within the block a backward pass finds no gradient for such a weight, unless it was used
    other than by a lookup. Sums of rows are to be read within the block.
    """
    _collected.update(gradients)
    for gradient in gradients.values():
        gradient.start()
    try:
        yield
    finally:
        _collected.clear()
        for gradient in gradients.values():
            gradient.finish()


def exchange(gradients: Sequence[TableGradient]) -> None:
    """Make the lookups of all ranks, in rank order, those of each: rows and their gradients.

    Every rank then adds the same gradients in the same order. Tables of which more is looked up are
    left to a sum over ranks.
    """
    if world_size() == 1:
        return
    for gradient in gradients:
        if not gradient.row_wise:
            gradient.scatter_waiting()
    few = [gradient for gradient in gradients if gradient.row_wise and gradient.lookups]
    if not few:
        return
    rows = gathered([(x.rows, x.size) for g in few for x in g.lookups])
    pairs = [pair for g in few for pair in zip(g.waiting, g.lookups, strict=True)]
    found = gathered([(grad, lookup.size) for grad, lookup in pairs])
    for gradient in few:
        gradient.lookups = [x._replace(rows=next(rows).contiguous()) for x in gradient.lookups]
        gradient.waiting = [next(found) for _ in gradient.lookups]
        gradient.scatter_waiting()


def gathered(parts: list[tuple[Tensor, int]]) -> Iterator[Tensor]:  # [R, b, ...] -> [R, B, ...]
    """Slices of batches (with the size of each batch) put together over ranks, in one message."""
    ranks = world_size()
    padded = []
    for x, size in parts:
        most = -(-size // ranks)
        missing = x.new_zeros(x.shape[0], most - x.shape[1], *x.shape[2:])
        padded.append(torch.cat([x, missing], dim=1))
    message = torch.cat([x.reshape(-1) for x in padded])
    received = [torch.empty_like(message) for _ in range(ranks)]
    dist.all_gather(received, message)
    first = 0
    for x, (_, size) in zip(padded, parts, strict=True):
        slices = []
        for rank, buffer in enumerate(received):
            low, high = share(size, rank)
            slices.append(buffer[first : first + x.numel()].view_as(x)[:, : high - low])
        yield torch.cat(slices, dim=1)
        first += x.numel()
