"""The pair space D = users x items, never materialised: lookups, splits and batches.

Observed pairs live in sorted keys ``u * n_items + i``; whether a pair was observed is a binary
search, or one bit where D is not too large for the log. Each replica may hold out other rows; its
split is a keyed permutation, not a list.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from upo.batch import Batch, ObservedPairs, Pairs
from upo.bits import affordable, bit_set, contains
from upo.core import distributed
from upo.core.layers import Sizes
from upo.core.sampling import EpochStream, Permutation, stream_key

if TYPE_CHECKING:
    from upo.data.rating_data import Cells, Truth

__all__ = ["Batch", "BatchSampler", "ObservedPairs", "PairSpace", "Pairs"]


class PairSpace(nn.Module):
    """Observed keys and labels on the device, with the split and the streams of each replica.

    Args:
        keys: ``[N]`` sorted unique int64 keys of the MNAR log.
        labels: ``[N]`` 0/1 labels.
        n_users: Rows of D.
        n_items: Columns of D.
        seeds: One for each replica.
        holdout: Share of the log held out for selection, in [0, 1), drawn by seed.
        cells: The part of users x items that is D, all of it by default; the log lies in it.
        truth: Propensities and labels of all pairs, where they are known.
    """

    keys: Tensor
    bits: Tensor
    labels: Tensor
    seeds: Tensor

    def __init__(
        self,
        keys: Tensor,
        labels: Tensor,
        n_users: int,
        n_items: int,
        seeds: list[int],
        holdout: float = 0.0,
        cells: "Cells | None" = None,
        truth: "Truth | None" = None,
    ) -> None:
        super().__init__()
        self.cells, self.truth = cells, truth
        self.n_users, self.n_items = n_users, n_items
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("labels", labels.float(), persistent=False)
        self.register_buffer("seeds", torch.tensor(seeds), persistent=False)
        self.n_observed = len(keys)
        size = n_users * n_items
        bits = bit_set(keys, size) if affordable(len(keys), size) else keys.new_zeros(0)
        self.register_buffer("bits", bits, persistent=False)
        self.n_held = round(self.n_observed * holdout)
        self.n_train = self.n_observed - self.n_held
        self._split = Permutation(self.n_observed)

    @property
    def replicas(self) -> int:
        """R."""
        return len(self.seeds)

    @property
    def sizes(self) -> Sizes:
        """What networks need to be built."""
        return Sizes(self.n_users, self.n_items, self.seeds.tolist(), self.density)

    @property
    def n_pairs(self) -> int:
        """|D|, a multiple of ``n_items``."""
        return self.n_users * self.n_items if self.cells is None else len(self.cells)

    @property
    def density(self) -> float:
        """|O| / |D|, held-out rows included."""
        return self.n_observed / self.n_pairs

    def find(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Row in the log (arbitrary where absent) and whether it is there; both of users' shape."""
        key = users * self.n_items + items
        row = torch.searchsorted(self.keys, key).clamp_(max=self.n_observed - 1)
        return row, self.keys[row] == key

    def observed(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether pairs are in the log; bool of users' shape."""
        if len(self.bits):
            return contains(self.bits, users * self.n_items + items)
        return self.find(users, items)[1]

    def train_rows(self, positions: Tensor) -> Tensor:  # [R, ...] -> [R, ...]
        """Rows of the log at positions ``0 .. n_train - 1`` of each replica's split."""
        if self.n_held == 0:
            return positions
        return self._split(positions, self._split_key(positions.dim()))

    def held_rows(self, lo: int, hi: int) -> Tensor:
        """``[R, hi - lo]`` held-out rows of each replica (positions lo .. hi - 1 of ``n_held``)."""
        positions = torch.arange(self.n_train + lo, self.n_train + hi, device=self.keys.device)
        expanded = positions.expand(self.replicas, -1)
        return self._split(expanded, self._split_key(2))

    def in_train(self, rows: Tensor) -> Tensor:  # [R, ...] -> bool
        """Whether rows of the log are training rows of their replica."""
        if self.n_held == 0:
            return torch.ones_like(rows, dtype=torch.bool)
        return self._split.inverse(rows, self._split_key(rows.dim())) < self.n_train

    def _split_key(self, dim: int) -> Tensor:
        return stream_key(self.seeds, "split").view(-1, *[1] * (dim - 1))

    def pairs(self, index: Tensor, total: int) -> Pairs:
        """Pairs of D by number, 0 .. ``n_pairs - 1`` (``[R, B]``): their keys where D is all."""
        return self.pairs_at(index if self.cells is None else self.cells(index), total)

    def pairs_at(self, keys: Tensor, total: int) -> Pairs:
        """Pairs of keys ``u * n_items + i`` (``[R, B]``), in D or not."""
        users = torch.div(keys, self.n_items, rounding_mode="floor")
        return Pairs(users, keys - users * self.n_items, self, total)


class BatchSampler:
    """Draws the batches of one stage.

    Args:
        space: The pair space.
        stage: Name of the stage; streams of different stages are independent.
        observed_batch: Rows of O in a step; 0 for none. Capped at the training rows there are.
        pair_batch: Pairs of D in a step; 0 for none. With ``|D|`` or more, all of D every step.
    """

    def __init__(self, space: PairSpace, stage: str, observed_batch: int, pair_batch: int) -> None:
        self.space = space
        self.observed_batch = min(observed_batch, space.n_train)
        self.pair_batch = min(pair_batch, space.n_pairs)
        self.stage = stage
        self._full: Pairs | None = None

    def steps_per_epoch(self) -> int:
        """Batches of O in an epoch, at least 1; without O, batches of D that cover D once."""
        if self.observed_batch:
            return max(1, self.space.n_train // self.observed_batch)
        return max(1, self.space.n_pairs // max(1, self.pair_batch))

    def chunk(self, first: int, count: int) -> list[Batch]:
        """Batches of steps ``first .. first + count - 1``: this rank's slice of each."""
        observed = self._draw_observed(first, count)
        pairs = self._draw_pairs(first, count)
        return [
            Batch(observed[s] if observed else None, pairs[s] if pairs else None)
            for s in range(count)
        ]

    def _draw_observed(self, first: int, count: int) -> list[ObservedPairs]:
        if not self.observed_batch:
            return []
        stream = EpochStream(Permutation(self.space.n_train), self._key("observed"))
        lo, hi = distributed.share(self.observed_batch)
        rows = self.space.train_rows(stream.rows(first, count, lo, hi, self.observed_batch))
        chunk = ObservedPairs(rows, self.space, self.observed_batch)
        known = torch.ones_like(rows[:, 0], dtype=torch.bool)
        parts = map(_steps, (chunk.users, chunk.items, chunk.labels))
        return [
            ObservedPairs.of(users, items, labels, known, chunk)
            for users, items, labels in zip(*parts, strict=True)
        ]

    def _draw_pairs(self, first: int, count: int) -> list[Pairs]:
        if not self.pair_batch:
            return []
        lo, hi = distributed.share(self.pair_batch)
        if self.pair_batch == self.space.n_pairs:
            if self._full is None:
                index = torch.arange(lo, hi, device=self.space.keys.device)
                expanded = index.expand(self.space.replicas, -1)
                self._full = self.space.pairs(expanded, self.pair_batch)
            self._full.memo.clear()
            self._full.binned = None
            return [self._full] * count
        domain = Permutation(self.space.n_pairs, self.space.n_items)
        stream = EpochStream(domain, self._key("pairs"))
        index = stream.rows(first, count, lo, hi, self.pair_batch)
        chunk = self.space.pairs(index, self.pair_batch)
        steps = []
        parts = map(_steps, (chunk.users, chunk.items, chunk.observed))
        for users, items, observed in zip(*parts, strict=True):
            step = Pairs(users, items, self.space, self.pair_batch)
            step.observed = observed
            steps.append(step)
        return steps

    def _key(self, purpose: str) -> Tensor:
        return stream_key(self.space.seeds, self.stage, purpose)


def _steps(chunk: Tensor) -> tuple[Tensor, ...]:  # [R, steps, B] -> steps x [R, B]
    """Each step's part of a chunk, contiguous."""
    return chunk.transpose(0, 1).contiguous().unbind(0)
