"""Adam that moves only the rows of tables that a batch looked up."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from upo.core.lookups import TableGradient
from upo.core.optim import ReplicaAdam

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
    looks up a third as many rows as a table has or more, a copy of the whole table is moved, of
    which looked-up rows alone are taken. Which of the two depends on sizes alone.

    Args:
        params: Parameters of one player.
        weight_decay: Of parameters that are no tables. For tables see the learners' ``penalty``: a
            decay would have to move every row.
        **settings: See ``ReplicaAdam``.
    """

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
        kept = self._with_moments(found)
        lists = [
            [x.index_select(0, rows) for x, rows in zip(tensors, index, strict=True)]
            for tensors in kept
        ]
        self._move_alike(group, lists, [self.state[p]["step"] for p, _ in found])
        for which in MOVING:
            for x, rows, new in zip(kept[which], index, lists[which], strict=True):
                x.index_copy_(0, rows, new)

    def _move_tables(
        self, group: dict[str, Any], found: list[tuple[Tensor, TableGradient]]
    ) -> None:
        """Move copies of whole tables, and of these take the rows that were looked up."""
        counts = [self.state[p]["step"] for p, _ in found]
        tables = zip(*self._with_moments(found), [g.touched() for _, g in found], strict=True)
        if self.corrected is not None:
            for p, grad, mean, square, touched in tables:
                new = [p.clone(), grad, mean.clone(), square.clone()]
                self._moved(group, *new)
                for x, moved in ((p, new[0]), (mean, new[2]), (square, new[3])):
                    x.copy_(torch.where(touched > 0, moved, x))
            return
        rates = [group["lr"]] if isinstance(self.rate, float) else self.rate.tolist()
        split = [_blocks(table, len(rates)) for table in tables]  # tables x rates x blocks
        for rate, parts in zip(rates, zip(*split, strict=True), strict=True):
            for level in zip_longest(*parts):  # a block of every table that has as many
                blocks = [(b, count) for b, count in zip(level, counts, strict=True) if b]
                self._move_blocks(
                    group, [b for b, _ in blocks], [count for _, count in blocks], rate
                )

    def _move_blocks(
        self, group: dict[str, Any], blocks: list[list[Tensor]], counts: list[Tensor], rate: float
    ) -> None:
        """Move blocks of tables: of each its rows, gradient, both moments and what was touched."""
        *kept, touched = (list(tensors) for tensors in zip(*blocks, strict=True))
        lists = [[x if i == 1 else x.clone() for x in tensors] for i, tensors in enumerate(kept)]
        self._kernel(group, lists, counts, rate, 0.0)
        for which in MOVING:  # 1 takes the new value exactly, and 0 leaves the old one
            torch._foreach_lerp_(kept[which], lists[which], touched)

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


def _blocks(tensors: Sequence[Tensor], parts: int) -> list[list[list[Tensor]]]:
    """Parts of a table and of what goes with it, each in blocks of rows: parts x blocks."""
    rows = max(1, BLOCK // tensors[0].shape[1])
    split = [[torch.split(part, rows) for part in x.chunk(parts)] for x in tensors]
    return [[list(block) for block in zip(*part, strict=True)] for part in zip(*split, strict=True)]
