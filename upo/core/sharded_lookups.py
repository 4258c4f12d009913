"""Lookups in tables that are spread over processes, and the sums of their gradients by owner."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from upo.core.lookups import TableGradient, are_few, batch_at_hand, collected
from upo.core.shards import Route, fetched, returned
from upo.errors import InputError

WHOLE = (
    "A part of this estimator uses whole tables, which trainer.tables=sharded spreads over "
    "processes; use trainer.tables=replicated."
)


class Asked(NamedTuple):
    """A lookup of this process's slice of a batch.

    Attributes:
        way: To the owners of its rows.
        shape: ``[R, b]``.
        size: Of the batch, over all ranks.
        rated: It is of rows of O, whose errors a loss may weigh.
        found: ``[R * b, k]`` what it found.
    """

    way: Route
    shape: torch.Size
    size: int
    rated: bool
    found: Tensor


class ShardGradient(TableGradient):
    """Sum of the gradients of a step's lookups in this process's part of a table.

    Gradients wait until ``deliver`` brings them to their rows' owners; the sum is then that over
    all ranks.

    Args:
        weight: The part of the table, ``[R * part, k]``.
        replicas: R.
        by_rows: As of ``TableGradient``.
        n: Rows of the whole table of a replica.
    """

    def __init__(self, weight: Tensor, replicas: int, *, by_rows: bool, n: int) -> None:
        super().__init__(weight, replicas, by_rows=by_rows)
        self.n = n
        self.asked: list[Asked] = []

    def add_asked(self, asked: Asked, grad: Tensor) -> None:  # [R * b, k]
        """Add the gradient of a lookup."""
        self.asked.append(asked)
        self.waiting.append(grad)

    def add_dense(self, grad: Tensor) -> None:
        """Refuse what was no lookup.

        Raises:
            InputError: Always.
        """
        raise InputError(WHOLE)

    @property
    def looked_up(self) -> bool:
        """Whether a lookup of the step, on any process, has a gradient."""
        return bool(self.asked)

    @property
    def row_wise(self) -> bool:
        """Whether rows are gathered and scattered: as they would be of the whole table."""
        return self.by_rows and are_few(sum(x.size for x in self.asked), self.n)

    @property
    def exchanged(self) -> bool:
        """Never: gradients go to the owners of the rows alone."""
        return False

    @property
    def rows(self) -> Tensor:  # [m]
        """Looked-up rows of this part, each once, in order."""
        found: Tensor = torch.unique(torch.cat([x.way.rows for x in self.asked]))
        return found

    def ends(self, rows: Tensor) -> list[int]:
        """Where the rows of each replica begin among ``rows``, and where those of the last end."""
        part = len(self.total) // self.replicas
        first = torch.arange(self.replicas + 1, device=rows.device) * part
        found: list[int] = torch.searchsorted(rows, first).tolist()
        return found

    @torch.no_grad()
    def penalise(
        self, weight: Tensor, strength: float | Tensor, importance: Tensor | None = None
    ) -> None:
        """Add the penalty's gradient to what waits: the looked-up rows are at hand here.

        Args:
            weight: The part of the table.
            strength: As of ``TableGradient``.
            importance: Of this rank's rated rows ``[R, b]``.
        """
        strength = strength / len(self.asked)
        for k, asked in enumerate(self.asked):
            found = asked.found.view(*asked.shape, asked.found.shape[1])
            if asked.rated and importance is not None:
                found = found * importance.unsqueeze(-1)
            if isinstance(strength, Tensor):
                found = found * strength.to(found, non_blocking=True)[:, None, None]
            factor = 1.0 if isinstance(strength, Tensor) else strength
            penalty = found.reshape(asked.found.shape)
            self.waiting[k] = self.waiting[k].add(penalty, alpha=2.0 * factor / asked.size)

    def receive(self, grads: Sequence[Tensor]) -> None:  # [m, k] of each lookup
        """Add what all processes have found of this part's rows."""
        for asked, grad in zip(self.asked, grads, strict=True):
            self.total.index_add_(0, asked.way.rows, grad.to(self.total.dtype))
        self.waiting.clear()

    def _counted(self, importance: Tensor | None) -> Tensor:  # [R * part, 1]
        share, one = self.total.new_zeros(len(self.total)), self.total.new_ones(1)
        for asked in self.asked:
            rows = asked.way.rows
            share.index_add_(0, rows, one.expand(len(rows)), alpha=1.0 / asked.size)
        return share.unsqueeze(1)

    def to_sum(self) -> list[Tensor]:
        """Nothing: the sums are whole."""
        return []

    def finish(self) -> None:
        """End the step: a sum of looked-up rows is 0 again."""
        if self.row_wise:
            for asked in self.asked:
                self.total.index_fill_(0, asked.way.rows, 0.0)
        elif self.by_rows:
            self.total.zero_()
        self.asked.clear()
        self.waiting.clear()
        self.share = None


class ShardedRows(torch.autograd.Function):
    """Rows of tables that are spread over processes; the gradient goes where it is collected."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, way: Route, shape: torch.Size) -> Tensor:
        found = fetched(weight, way)
        ctx.table, ctx.asked = id(weight), Asked(way, shape, *batch_at_hand(shape), found.detach())
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gradient = collected(ctx.table)
        if not isinstance(gradient, ShardGradient):  # an owner would have to wait for it
            raise InputError(WHOLE)
        gradient.add_asked(ctx.asked, grads[0])
        return None, None, None


def deliver(gradients: Sequence[ShardGradient]) -> None:
    """Bring what waits of all tables to the owners of the rows, in one message."""
    ways = [
        (grad, asked.way)
        for gradient in gradients
        for grad, asked in zip(gradient.waiting, gradient.asked, strict=True)
    ]
    found = iter(returned(ways))
    for gradient in gradients:
        gradient.receive([next(found) for _ in gradient.asked])
