"""Adam that moves only the rows of tables that a batch looked up."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from upo.core.lookups import TableGradient
from upo.core.optim import ReplicaAdam
from upo.core.sharded_lookups import ShardGradient

BLOCK = 2**15  # elements of a table that are moved at once, so that they stay in the cache
MOVING = (0, 2, 3)  # of a table, its gradient and its moments, what a step changes


class RowAdam(ReplicaAdam):
    r"""Adam on the rows that a batch looked up; their moments stand still in other steps.

    The rule of ``torch.optim.SparseAdam`` on the replica axis. A row that was not looked up keeps
    its value and its moments; one that was looked up moves, also where its gradient is 0. Other
    parameters (heads, intercepts, layers) get ``ReplicaAdam``.

    The bias correction of every row is that of the optimiser's steps, not of the row's own updates.
    A row that is first seen late, with :math:`m=(1-\beta_1)g` and :math:`v=(1-\beta_2)g^2`, then
    moves by about :math:`(1-\beta_1)/\sqrt{1-\beta_2}`, some three rates, at once: more where
    little is known of it. Both were tried; see ``docs/speed.md``.

    A step costs its batch: looked-up rows of the table, its gradient and its moments are gathered,
    moved and written back, with duplicates, which compute and write the same values. Where a batch
    looks up a third as many rows as a table has or more, the whole table is read, and rows that
    were not looked up stay as they are. Which of the two depends on sizes alone.

    Args:
        params: Parameters of one player.
        weight_decay: Of parameters that are no tables. For tables see the learners' ``penalty``: a
            decay would have to move every row.
        **settings: See ``ReplicaAdam``.
    """

    replayable = True

    _betas: Tensor | None = None  # where the steps are counted

    @torch.no_grad()
    def update(self, grads: Sequence[Tensor | TableGradient | None]) -> None:
        """Update every parameter from its gradient, given in the order of the parameters."""
        super().update(grads)
        rest = iter(grads)
        for group in self.param_groups:
            pairs = zip(group["params"], rest, strict=False)
            tables = [(p, g) for p, g in pairs if isinstance(g, TableGradient)]
            counts = [self._started(p)["step"] for p, _ in tables]
            if self.corrected is None and counts:
                torch._foreach_add_(counts, 1)
            used = [(p, g) for p, g in tables if g.used]
            for move, mine in (
                (self._move_rows, [(p, g) for p, g in used if g.row_wise]),
                (self._move_tables, [(p, g) for p, g in used if not g.row_wise]),
            ):
                if mine:
                    move(group, mine)

    def _move_rows(self, group: dict[str, Any], found: list[tuple[Tensor, TableGradient]]) -> None:
        """Gather looked-up rows, move them and write them back."""
        index = [g.rows.reshape(-1) for _, g in found]
        moves = [k for k, rows in enumerate(index) if len(rows)]  # of a part of a table maybe none
        if not moves:
            return
        found, index = [found[k] for k in moves], [index[k] for k in moves]
        kept = self._with_moments(found)
        lists = [
            [x.index_select(0, rows) for x, rows in zip(tensors, index, strict=True)]
            for tensors in kept
        ]
        counts = [self.state[p]["step"] for p, _ in found]
        parts = [
            g.ends(rows)
            for (_, g), rows in zip(found, index, strict=True)
            if isinstance(g, ShardGradient)
        ]
        if parts:
            self._move_parts(group, lists, counts, parts)
        else:
            self._move_alike(group, lists, counts)
        for which in MOVING:
            for x, rows, new in zip(kept[which], index, lists[which], strict=True):
                x.index_copy_(0, rows, new)

    def _move_parts(
        self,
        group: dict[str, Any],
        lists: list[list[Tensor]],
        counts: list[Tensor],
        ends: list[list[int]],
    ) -> None:
        """Move rows of which replicas have different numbers, one replica behind the other."""
        if isinstance(self.rate, float):
            self._kernel(group, lists, counts, group["lr"], 0.0)
            return
        for r, rate in enumerate(self._each(self.rate)):
            of = [x[r : r + 2] for x in ends]
            rows = [[x[a:b] for x, (a, b) in zip(each, of, strict=True)] for each in lists]
            self._kernel(group, rows, counts, rate, 0.0)

    def _move_tables(
        self, group: dict[str, Any], found: list[tuple[Tensor, TableGradient]]
    ) -> None:
        """Move the looked-up rows of tables that are read whole; uses up the gradients."""
        if self.corrected is not None:
            for p, grad, mean, square, touched in self._with_touched(found):
                new = [p.clone(), grad, mean.clone(), square.clone()]
                self._moved(group, *new)
                for x, moved in ((p, new[0]), (mean, new[2]), (square, new[3])):
                    x.copy_(torch.where(touched > 0, moved, x))
            return
        size, eps = self._sizes(group, self.state[found[0][0]]["step"])  # of all tables
        for p, grad, mean, square, touched in self._with_touched(found):
            weights = [touched * (1 - beta) for beta in group["betas"]]
            each = (self.replicas, -1) if size.dim() else touched.shape
            weights.append((touched.view(each) * size.to(p.dtype)).view_as(touched))
            tensors, rows = (p, grad, mean, square, *weights), max(1, BLOCK // p.shape[1])
            if len(p) <= rows:
                _move_block(tensors, eps)
                continue
            for block in zip(*(torch.split(x, rows) for x in tensors), strict=True):
                _move_block(block, eps)

    def _sizes(self, group: dict[str, Any], step: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the rate and eps, corrected for a denominator that is not; in few operations."""
        if self._betas is None or self._betas.device != step.device:
            betas = torch.tensor(group["betas"], dtype=torch.float64)
            self._betas = betas.to(step.device, non_blocking=True)
        corrections = 1 - self._betas**step
        root = corrections[1].sqrt()
        size = root / corrections[0]
        if isinstance(self.rate, float):
            size = size * -group["lr"]
        else:
            size = -(size * self.rate.to(size, non_blocking=True)[:, None])
        return size, root * group["eps"]

    def _with_touched(
        self, found: list[tuple[Tensor, TableGradient]]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Each table with its gradient, both moments and the rows that are to move."""
        yield from zip(*self._with_moments(found), [g.touched() for _, g in found], strict=True)

    def _with_moments(self, found: list[tuple[Tensor, TableGradient]]) -> list[list[Tensor]]:
        """Tables, gradients and both moments, as Adam's kernel takes them."""
        states = [self.state[p] for p, _ in found]
        return [
            [p for p, _ in found],
            [g.total for _, g in found],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
        ]

    def _move_alike(
        self, group: dict[str, Any], lists: list[list[Tensor]], counts: list[Tensor]
    ) -> None:
        """Move rows or copies of tables, all of which are to move."""
        if self.corrected is None:
            self._move(group, lists, counts, 0.0)
            return
        for row in zip(*lists, strict=True):
            self._moved(group, *row)

    def _moved(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, mean: Tensor, square: Tensor
    ) -> None:
        """Adam in place, in tensor operations that a compiler joins; no decay."""
        assert self.corrected is not None
        (size, root), (beta1, beta2) = self.corrected, group["betas"]
        mean.mul_(beta1).add_(grad * (1 - beta1))
        square.mul_(beta2).add_(grad * grad * (1 - beta2))
        step = mean / (square.sqrt() * root + group["eps"])
        each = (self.replicas, -1) if size.dim() else p.shape  # of one rate, or of one a replica
        p.sub_((step.view(each) * size).view_as(p))


def _move_block(block: tuple[Tensor, ...], eps: Tensor) -> None:
    """Adam in few passes; where the last three, one number a row, are 0, nothing moves."""
    p, grad, mean, square, weight1, weight2, size = block
    mean.lerp_(grad, weight1)
    square.lerp_(grad.square_(), weight2)
    torch.sqrt(square, out=grad)
    torch.div(mean, grad.add_(eps), out=grad)
    p.addcmul_(grad, size)
