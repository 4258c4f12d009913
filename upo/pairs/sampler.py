"""The batches of a stage as functions of the step number."""

from collections.abc import Iterator

import torch
from torch import Tensor

from upo.core import distributed
from upo.core.sampling import EpochStream, Permutation, stream_key
from upo.core.shards import own_blocks
from upo.pairs.space import Batch, ObservedPairs, Pairs, PairSpace, by_step

BLOCK = 2**18  # rows x replicas evaluated at once


class BatchSampler:
    """Draws the batches of one stage.

    Args:
        space: The pair space.
        stage: Name of the stage; streams of different stages are independent.
        observed_batch: Rows of O in a step; 0 for none. Capped at the training rows there are.
        pair_batch: Pairs of D in a step; 0 for none. With ``|D|`` or more, all of D every step.
        hold_out: Draw no held-out cells of D (see ``PairSpace.train_cells``).
    """

    def __init__(
        self,
        space: PairSpace,
        stage: str,
        observed_batch: int,
        pair_batch: int,
        *,
        hold_out: bool = False,
    ) -> None:
        self.space = space
        self.hold_out = hold_out
        self.n_cells = space.n_train_cells if hold_out else space.n_pairs
        self.observed_batch = min(observed_batch, space.n_train)
        self.pair_batch = min(pair_batch, self.n_cells)
        self.stage = stage
        self._full: Pairs | None = None

    def steps_per_epoch(self) -> int:
        """Batches of O in an epoch, at least 1; without O, batches of D that cover D once."""
        if self.observed_batch:
            return max(1, self.space.n_train // self.observed_batch)
        return max(1, self.n_cells // max(1, self.pair_batch))

    @property
    def whole(self) -> bool:
        """Whether every step sees the same pairs: all that are drawn from."""
        return self.pair_batch == self.n_cells

    def chunk(self, first: int, count: int) -> list[Batch]:
        """Batches of steps ``first .. first + count - 1``: this rank's slice of each."""
        rows = self._draw_rows(first, count)
        pairs = self._draw_pairs(first, count)
        return [Batch(rows[s] if rows else None, pairs[s] if pairs else None) for s in range(count)]

    def _draw_rows(self, first: int, count: int) -> list[ObservedPairs]:
        if not self.observed_batch:
            return []
        stream = EpochStream(Permutation(self.space.n_train), self._key("observed"))
        lo, hi = distributed.share(self.observed_batch)
        rows = self.space.train_rows(stream.rows(first, count, lo, hi, self.observed_batch))
        chunk = ObservedPairs(rows, self.space, self.observed_batch)
        known = torch.ones_like(rows[:, 0], dtype=torch.bool)
        parts = map(by_step, (chunk.users, chunk.items, chunk.labels))
        return [
            ObservedPairs.of(users, items, labels, known, chunk)
            for users, items, labels in zip(*parts, strict=True)
        ]

    def _draw_pairs(self, first: int, count: int) -> list[Pairs]:
        if not self.pair_batch:
            return []
        lo, hi = distributed.share(self.pair_batch)
        if self.whole:
            if self._full is None:
                index = torch.arange(lo, hi, device=self.space.keys.device)
                expanded = index.expand(self.space.replicas, -1)
                self._full = self.space.pairs(self._cells(expanded), self.pair_batch)
            self._full.memo.clear()
            self._full.binned = None
            return [self._full] * count
        # a part of D has no whole rows of items
        domain = Permutation(self.n_cells) if self.hold_out else self.space.order()
        stream = EpochStream(domain, self._key("pairs"))
        index = self._cells(stream.rows(first, count, lo, hi, self.pair_batch))
        chunk = self.space.pairs(index, self.pair_batch)
        steps = []
        parts = map(by_step, (chunk.users, chunk.items, chunk.observed))
        for number, (users, items, observed) in enumerate(zip(*parts, strict=True)):
            step = Pairs(users, items, self.space, self.pair_batch, chunk=chunk, step=number)
            step.observed = observed
            steps.append(step)
        return steps

    def _cells(self, positions: Tensor) -> Tensor:
        return self.space.train_cells(positions) if self.hold_out else positions

    def _key(self, purpose: str) -> Tensor:
        return stream_key(self.space.seeds, self.stage, purpose)


def sampled_pairs(space: PairSpace, purpose: str, most: int) -> Pairs:
    """This rank's share of a uniform sample of D without repetition, each replica's its own.

    Args:
        space: The pair space.
        purpose: Name of the stream, of which the sample is a function.
        most: Pairs of all ranks; all of a smaller D.
    """
    size = min(most, space.n_pairs)
    stream = EpochStream(space.order(), stream_key(space.seeds, purpose))
    lo, hi = distributed.share(size)
    return space.pairs(stream.rows(0, 1, lo, hi, size)[:, 0], size)


def training_rows(space: PairSpace) -> Iterator[ObservedPairs]:
    """This rank's share of every replica's training rows, in blocks that fit memory.

    There is one block at least, without rows on a rank that has none: all take part in the sums.
    """
    blocks = list(own_blocks(space.n_train, max(1, BLOCK // space.replicas)))
    for first, last in blocks or [(0, 0)]:
        positions = torch.arange(first, last, device=space.keys.device)
        rows = space.train_rows(positions.expand(space.replicas, -1))
        yield ObservedPairs(rows, space, space.n_train)
