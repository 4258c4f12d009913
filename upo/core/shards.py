"""Tables whose rows are spread over the processes: which rows are where, and the ways to them.

Process k of N holds rows ``n * k // N .. n * (k + 1) // N - 1`` of every replica's table. A lookup
sends the numbers of its rows to their owners, which send the rows back; gradients go the same way
as the numbers went. Every process takes part in every lookup, in the same order, with as few rows
as it likes.
"""

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from upo.core.distributed import share, world_size
from upo.errors import InputError

ROUTES = 8  # kept: of users and of items, of a batch of O and one of D, and as many to spare


@dataclass(frozen=True)
class Shard:
    """A process's part of every table.

    Attributes:
        number: Of the process, from 0.
        of: Processes.
    """

    number: int
    of: int

    def rows(self, n: int) -> tuple[int, int]:
        """First row, and the one behind the last, of tables of ``n`` rows.

        Raises:
            InputError: If there are fewer rows than processes.

        >>> [Shard(k, 3).rows(10) for k in range(3)]
        [(0, 3), (3, 6), (6, 10)]
        """
        if n < self.of:
            raise InputError(
                f"trainer.tables=sharded gives each process rows of every table, and one has {n} "
                f"rows for {self.of} processes; use trainer.tables=replicated."
            )
        return n * self.number // self.of, n * (self.number + 1) // self.of


_shards: list[Shard] = []


@contextmanager
def sharded(shard: Shard | None) -> Iterator[None]:
    """Within the block, tables that are made are parts of tables; None changes nothing."""
    if shard is None:
        yield
        return
    _shards.append(shard)
    try:
        yield
    finally:
        _shards.pop()


def current_shard() -> Shard | None:
    """The part that tables are made as; None where they are whole on every process."""
    return _shards[-1] if _shards else None


def spread() -> bool:
    """Whether rows of tables that are in use may lie on other processes."""
    shard = current_shard()
    return shard is not None and shard.of > 1


def own_blocks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """This rank's share of ``range(total)`` in blocks of at most ``size``.

    Where tables are spread, every rank has as many: what is looked up of a block, all look up.
    """
    lo, hi = share(total)
    if not spread():
        for first in range(lo, hi, size):
            yield first, min(first + size, hi)
        return
    longest = -(-total // world_size())
    count = -(-longest // size)
    for k in range(count):
        yield lo + (hi - lo) * k // count, lo + (hi - lo) * (k + 1) // count


class Route(NamedTuple):
    """The way of a lookup's rows.

    Attributes:
        order: ``[R * b]`` places in the lookup, by owner of the row.
        sent: Rows that are asked of each process.
        received: Rows that each process asks for here.
        rows: ``[m]`` what it asks for, in rank order: rows of this process's ``[R * part, k]``.
    """

    order: Tensor
    sent: list[int]
    received: list[int]
    rows: Tensor


# which were found last; the same on every process, as all look up the same in the same order
_routes: deque[tuple["weakref.ref[Tensor]", int, Route]] = deque(maxlen=ROUTES)


def route(index: Tensor, n: int, shard: Shard) -> Route:  # [R, b]
    """The way to rows of tables of ``n`` rows; users of a batch are looked up in several tables."""
    for known, rows, found in _routes:
        if known() is index and rows == n:
            return found
    found = _route(index, n, shard)
    _routes.append((weakref.ref(index), n, found))
    return found


def _route(index: Tensor, n: int, shard: Shard) -> Route:
    if world_size() != shard.of:
        raise RuntimeError(
            f"Tables were spread over {shard.of} processes, and {world_size()} have met."
        )
    ends = [Shard(number, shard.of).rows(n)[1] for number in range(shard.of - 1)]
    owner = torch.bucketize(index, torch.tensor(ends, device=index.device), right=True).reshape(-1)
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=shard.of)
    there = torch.empty_like(counts)
    dist.all_to_all_single(there, counts)
    sent, received = torch.stack([counts, there]).tolist()
    first = torch.arange(len(index), device=index.device)[:, None] * n  # of each replica
    asked = (index + first).reshape(-1).index_select(0, order)
    got = _exchanged(asked, sent, received)
    lo, hi = shard.rows(n)
    replica = torch.div(got, n, rounding_mode="floor")
    return Route(order, sent, received, got - lo - replica * (n - (hi - lo)))


def fetched(weight: Tensor, way: Route) -> Tensor:  # [R * part, k] -> [R * b, k]
    """The rows of a lookup, from their owners."""
    found = _exchanged(weight.index_select(0, way.rows), way.received, way.sent)
    return torch.empty_like(found).index_copy_(0, way.order, found)


def returned(parts: list[tuple[Tensor, Route]]) -> list[Tensor]:  # [R * b, k] -> [m, k], of each
    """What is to be sent to the owners of looked-up rows, in one message: one row for each.

    Returns:
        Of each lookup, rows that belong to ``Route.rows``, those of all processes in rank order.
    """
    if not parts:
        return []
    by_owner = [
        torch.split(x.index_select(0, way.order), way.sent) for x, way in parts
    ]  # [lookup][process]
    processes = range(len(parts[0][1].sent))
    message = torch.cat([x[p].reshape(-1) for p in processes for x in by_owner])
    widths = [x.shape[1] for x, _ in parts]
    sizes = [
        [
            [count * width for count, width in zip(counts, widths, strict=True)]
            for counts in zip(*(getattr(way, which) for _, way in parts), strict=True)
        ]
        for which in ("sent", "received")
    ]  # [which][process][lookup]
    totals = [[sum(each) for each in side] for side in sizes]
    got = _exchanged(message, *totals)
    pieces = iter(torch.split(got, [size for each in sizes[1] for size in each]))
    from_each = [[next(pieces) for _ in parts] for _ in processes]
    return [
        torch.cat([each[k] for each in from_each]).view(-1, width) for k, width in enumerate(widths)
    ]


def _exchanged(x: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Give each process its part of ``x``, and get those of all."""
    found = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(found, x.contiguous(), received, sent)
    return found
