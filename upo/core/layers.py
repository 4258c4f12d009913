"""Building blocks with a leading replica axis: R independent networks in one tensor."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from upo.core.lookups import Rows, TableGradient, Whole
from upo.core.optim import Hyper, per_replica
from upo.core.sampling import generator_seed, normal_rows, stream_key
from upo.core.sharded_lookups import WHOLE, ShardedRows, ShardGradient
from upo.core.shards import current_shard, route
from upo.errors import InputError

BLOCK = 2**16  # initial weights that are hashed at once


class TrainingLog(Protocol):
    """What a network may start from: sums over training rows, and features of users and items."""

    @property
    def features(self) -> tuple[Tensor | None, Tensor | None]:
        """Columns of users and of items ``[rows, columns]`` float32, known ones beyond D behind."""

    def logged(self) -> tuple[Tensor, Tensor]:  # [n_users], [n_items] bool
        """Users and items with rows in the log, held-out rows included."""

    def mean_output(self) -> Tensor:  # [R] float64
        """The output that predicts the mean label of each replica's training rows."""

    def rows_by_id(self) -> tuple[Tensor, Tensor]:  # [R, n_users], [R, n_items] int64
        """Training rows of each user and item."""

    def cells_by_id(self) -> tuple[Tensor, Tensor]:  # [R, n_users], [R, n_items] int64
        """Observed training cells of D of each user and item."""


@dataclass(frozen=True)
class Sizes:
    """What a network must know of the data to be built.

    Attributes:
        n_users: Users, rows of D.
        n_items: Items, columns of D.
        seeds: One for each replica.
        density: |O| / |D| in (0, 1).
        log: What a network may start from; None starts it from nothing.
    """

    n_users: int
    n_items: int
    seeds: list[int]
    density: float = 0.5
    log: TrainingLog | None = None


def normal(
    seeds: list[int], shape: tuple[int, ...], std: Hyper, *purpose: str
) -> Tensor:  # [R, *shape]
    """Normal initial weights, each replica from its own generator, so a stack equals its parts.

    Args:
        seeds: One for each replica.
        shape: Shape of one replica's weights.
        std: Standard deviation >= 0; a number or one for each replica.
        purpose: Names that separate this draw from others of the same seed.

    Raises:
        InputError: If ``std`` is negative.
    """
    scale = _scale(std, len(seeds))
    stack = torch.zeros(len(seeds), *shape)
    if isinstance(scale, float) and scale == 0.0:
        return stack
    for seed, weights in zip(seeds, stack, strict=True):
        generator = torch.Generator().manual_seed(generator_seed(seed, "init", *purpose))
        torch.randn(shape, generator=generator, out=weights)
    return stack.mul_(torch.as_tensor(scale, dtype=stack.dtype).view(-1, *[1] * len(shape)))


def hashed_normal(
    seeds: list[int], rows: tuple[int, int], dim: int, std: Hyper, *purpose: str
) -> Tensor:  # [R, hi - lo, dim]
    """Rows ``lo .. hi - 1`` of tables, of which each is a hash of seed, table and row.

    Args:
        seeds: One for each replica.
        rows: lo and hi.
        dim: Columns.
        std: As of ``normal``.
        purpose: As of ``normal``.

    Raises:
        InputError: If ``std`` is negative.
    """
    scale, (lo, hi) = _scale(std, len(seeds)), rows
    stack = torch.zeros(len(seeds), hi - lo, dim)
    if isinstance(scale, float) and scale == 0.0:
        return stack
    key = stream_key(torch.tensor(seeds), "rows", *purpose)
    factor = torch.as_tensor(scale, dtype=torch.float64).view(-1, 1, 1)
    block = max(1, BLOCK // (len(seeds) * dim))
    for first in range(lo, hi, block):
        last = min(first + block, hi)
        stack[:, first - lo : last - lo] = factor * normal_rows(key, first, last, dim)
    return stack


def _scale(std: Hyper, replicas: int) -> float | Tensor:
    scale = per_replica(std, replicas, "init_std")
    if not bool((torch.as_tensor(scale) >= 0).all()):
        raise InputError(f"init_std must be at least 0, got {std}; try 0.1.")
    return scale


class ReplicaEmbedding(nn.Module):
    """Tables of all replicas as one ``[R * n, dim]`` table, looked up at ``index + r * n``.

    Where tables are spread over processes (``upo.core.shards``), the weight is ``[R * part, dim]``:
    this process's range of the rows of each replica.

    Args:
        n: Rows of one replica's table.
        dim: Columns.
        seeds: One for each replica.
        std: Initial standard deviation.
        purpose: Name of the table, part of the seed.
    """

    replayable = True

    offset: Tensor

    def __init__(self, n: int, dim: int, *, seeds: list[int], std: Hyper, purpose: str) -> None:
        super().__init__()
        self.n, self.dim, self.replicas = n, dim, len(seeds)
        self.shard = current_shard()
        self.range = (0, n) if self.shard is None else self.shard.rows(n)
        if self.shard is None:
            table = normal(seeds, (n, dim), std, purpose)
        else:
            table = hashed_normal(seeds, self.range, dim, std, purpose)
        self.weight = nn.Parameter(table.view(-1, dim))
        offset = torch.arange(self.replicas)[:, None] * n
        self.register_buffer("offset", offset, persistent=False)
        self.kept_gradients: dict[bool, TableGradient] = {}  # by rows or not; made at first use

    def forward(self, index: Tensor) -> Tensor:  # [R, B] -> [R, B, dim]
        """Rows of each replica's own table."""
        found: Tensor
        if self.shard is not None and not self.whole:
            way = route(index, self.n, self.shard)
            found = ShardedRows.apply(self.weight, way, index.shape)  # type: ignore[no-untyped-call]
            return found.view(*index.shape, self.dim)
        found = Rows.apply(self.weight, self._rows(index))  # type: ignore[no-untyped-call]
        return found.view(*index.shape, self.dim)

    def tables(self, index: Tensor | None = None) -> Tensor:
        """``[R, n, dim]`` view of the tables.

        Args:
            index: ``[R, B]``, the rows that are looked up in what is computed of the whole tables;
                every other row has a gradient of 0. None where all count as looked up.

        Raises:
            InputError: If rows of them lie on other processes.
        """
        if not self.whole:
            raise InputError(WHOLE)
        weight: Tensor = self.weight
        if index is not None:
            weight = Whole.apply(weight, self._rows(index))  # type: ignore[no-untyped-call]
        return weight.view(self.replicas, self.n, self.dim)

    @property
    def whole(self) -> bool:
        """Whether all rows are here."""
        return self.shard is None or self.shard.of == 1

    @torch.no_grad()
    def put(self, replica: int, table: Tensor) -> None:  # [n, dim]
        """Set one replica's table."""
        lo, hi = self.range
        self.weight.view(self.replicas, hi - lo, self.dim)[replica] = table[lo:hi]

    def _rows(self, index: Tensor) -> Tensor:
        return index if self.replicas == 1 else index + self.offset

    def gradient(self, *, by_rows: bool) -> TableGradient:
        """The kept sum of gradients, of looked-up rows or of the whole table."""
        kept, weight = self.kept_gradients.get(by_rows), self.weight
        if kept is None or kept.total.device != weight.device or kept.total.dtype != weight.dtype:
            if self.whole:
                kept = TableGradient(weight, self.replicas, by_rows=by_rows)
            else:
                kept = ShardGradient(weight, self.replicas, by_rows=by_rows, n=self.n)
            self.kept_gradients[by_rows] = kept
        return kept


class ReplicaLinear(nn.Module):
    """R independent affine maps.

    Args:
        fan_in: Input width.
        fan_out: Output width.
        seeds: One for each replica.
        purpose: Name of the layer, part of the seed.
        gain: Initial standard deviation is ``gain / sqrt(fan_in)``.
    """

    def __init__(
        self, fan_in: int, fan_out: int, *, seeds: list[int], purpose: str, gain: float = 1.0
    ) -> None:
        super().__init__()
        std = gain / fan_in**0.5
        self.weight = nn.Parameter(normal(seeds, (fan_in, fan_out), std, purpose))
        self.bias = nn.Parameter(torch.zeros(len(seeds), 1, fan_out))

    def forward(self, x: Tensor) -> Tensor:  # [R, B, in] -> [R, B, out]
        """Apply each replica's map to its own rows."""
        if self.weight.shape[-1] == 1:
            return dot(x, self.weight) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


def dot(x: Tensor, weight: Tensor) -> Tensor:  # [R, B, in], [R, in, 1] -> [R, B, 1]
    """``x @ weight``, which on the CPU takes three times as long."""
    return (x * weight.mT).sum(-1, keepdim=True)
