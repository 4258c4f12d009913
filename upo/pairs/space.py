"""The pair space D = users x items, never materialised: lookups, splits and batches.

Observed pairs live in sorted keys ``u * n_items + i``; whether a pair was observed is a binary
search, or one bit where D is not too large for the log. Each replica may hold out other rows; its
split is a keyed permutation, not a list.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.core.sampling import EpochStream, Permutation, stream_key
from upo.data.rating_data import Cells, RatingData, Truth
from upo.errors import InputError
from upo.pairs.bits import affordable, bit_set, contains
from upo.pairs.summary import LogSummary
from upo.pairs.target import POSITIVE, Target, target_of
from upo.pairs.uniform import UniformSample

HELD_CELLS = 0.1  # of D, where a stage chooses its epoch by the propensities of held-out cells


class PairSpace(nn.Module):
    """Observed keys and labels on the device, with the split and the streams of each replica.

    Args:
        keys: ``[N]`` sorted unique int64 keys of the MNAR log.
        labels: ``[N]`` labels as the target has them: 0 and 1 for positive ratings.
        n_users: Rows of D.
        n_items: Columns of D.
        seeds: One for each replica.
        holdout: Share of the log held out for selection, in [0, 1), drawn by seed.
        cells: The part of users x items that is D, all of it by default; the log lies in it.
        truth: Propensities and labels of all pairs, where they are known.
        features: Columns of the users and of the items; rows beyond D are of known ids without
            ratings.
        target: What predictions are of.
        held: ``[N]`` bool rows of the log that every replica holds out; drawn by ``holdout`` if not
            given.
    """

    keys: Tensor
    bits: Tensor
    labels: Tensor
    seeds: Tensor
    rows_in_order: Tensor
    place_in_order: Tensor

    def __init__(
        self,
        keys: Tensor,
        labels: Tensor,
        n_users: int,
        n_items: int,
        seeds: list[int],
        holdout: float = 0.0,
        cells: Cells | None = None,
        truth: Truth | None = None,
        features: tuple[Tensor | None, Tensor | None] = (None, None),
        target: Target = POSITIVE,
        held: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.cells, self.truth, self.target = cells, truth, target
        self.n_users, self.n_items = n_users, n_items
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("labels", labels.float(), persistent=False)
        self.register_buffer("seeds", torch.tensor(seeds), persistent=False)
        self.n_observed = len(keys)
        size = n_users * n_items
        bits = bit_set(keys, size) if affordable(len(keys), size) else keys.new_zeros(0)
        self.register_buffer("bits", bits, persistent=False)
        self.holdout = holdout
        self.n_held = round(self.n_observed * holdout) if held is None else int(held.sum())
        self.n_train = self.n_observed - self.n_held
        self._split: Permutation | None = Permutation(self.n_observed) if held is None else None
        order = keys.new_zeros(0) if held is None else torch.argsort(held.byte(), stable=True)
        self.register_buffer("rows_in_order", order, persistent=False)
        self.register_buffer("place_in_order", torch.argsort(order), persistent=False)
        self.features = features
        self.uniform: UniformSample | None = None  # read by players that are lent a part of it
        self._hold_cells(self.n_pairs - round(HELD_CELLS * self.n_pairs), self.n_pairs)

    @classmethod
    def of(
        cls,
        data: RatingData,
        seeds: list[int],
        holdout: float,
        target: str = "positive",
        held: Tensor | None = None,
    ) -> PairSpace:
        """The pair space of a run on a dataset with these seeds.

        Args:
            data: The dataset.
            seeds: One for each replica.
            holdout: Share of the log that is held out.
            target: What predictions are of.
            held: Rows that are held out, if they are not drawn.

        Raises:
            InputError: If the held-out share leaves nothing to train on, or holds out nothing, or
                the target is unknown.
        """
        train, of = data.train, target_of(target, data)
        space = cls(
            train.keys,
            of.labels(train.ratings),
            train.n_users,
            train.n_items,
            seeds,
            holdout,
            cells=data.cells,
            truth=data.truth,
            features=data.features,
            target=of,
            held=held,
        )
        space.uniform = UniformSample(data)
        if holdout and not 0 < space.n_held < space.n_observed:
            raise InputError(
                f"Holding out {holdout:g} of {space.n_observed} training ratings leaves "
                f"{space.n_train} to train on and {space.n_held} to select by; give more ratings "
                "or another protocol.share."
            )
        return space

    def without_fold(self, fold: int, folds: int) -> PairSpace:
        """The same log with one of so many parts of D held out; together they are all of D.

        Args:
            fold: Which, from 0.
            folds: How many, at least 2.
        """
        space = PairSpace(
            self.keys,
            self.labels,
            self.n_users,
            self.n_items,
            self.seeds.tolist(),
            self.holdout,
            cells=self.cells,
            truth=self.truth,
            features=self.features,
            target=self.target,
            held=None if self._split else self.place_in_order >= self.n_train,
        )
        space._hold_cells(*_fold_bounds(self.n_pairs, folds)[fold : fold + 2])
        return space

    def fold(self, keys: Tensor, folds: int) -> Tensor:  # [R, ...] -> [R, ...]
        """The part of D, of so many, that each key of D falls into, replica by replica."""
        inner = torch.tensor(_fold_bounds(self.n_pairs, folds)[1:-1], device=keys.device)
        return torch.bucketize(self._cell_place(keys), inner, right=True)

    def _hold_cells(self, first: int, last: int) -> None:
        """Hold the cells at positions ``first .. last - 1`` of each replica's order of D out."""
        self.n_held_cells = last - first
        self.n_train_cells = self.n_pairs - self.n_held_cells
        self._first_cell = last % self.n_pairs  # training cells begin behind them

    def part(self, positions: list[int]) -> PairSpace:
        """The same space for some of its replicas; what is not theirs alone is shared."""
        part = copy.copy(self)
        part._buffers = self._buffers | {"seeds": self.seeds[positions]}
        return part

    @property
    def replicas(self) -> int:
        """R."""
        return len(self.seeds)

    @property
    def sizes(self) -> Sizes:
        """What networks need to be built."""
        seeds = self.seeds.tolist()
        return Sizes(self.n_users, self.n_items, seeds, self.density, LogSummary(self))

    @property
    def n_pairs(self) -> int:
        """|D|, a multiple of ``n_items``."""
        return self.n_users * self.n_items if self.cells is None else len(self.cells)

    @property
    def density(self) -> float:
        """|O| / |D|, held-out rows included."""
        return self.n_observed / self.n_pairs

    @cached_property
    def clip(self) -> float:
        """The lower clip of ``p_min: auto``."""
        return LogSummary(self).clip()

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
        return positions if self.n_held == 0 else self._rows_at(positions)

    def _rows_at(self, positions: Tensor) -> Tensor:  # [R, ...] -> [R, ...]
        """Rows of the log at positions of each replica's split: training rows, then others."""
        if self._split is None:
            return self.rows_in_order[positions]
        return self._split(positions, self._split_key(positions.dim()))

    def held_rows(self, lo: int, hi: int) -> Tensor:
        """``[R, hi - lo]`` held-out rows of each replica (positions lo .. hi - 1 of ``n_held``)."""
        positions = torch.arange(self.n_train + lo, self.n_train + hi, device=self.keys.device)
        return self._rows_at(positions.expand(self.replicas, -1))

    def in_train(self, rows: Tensor) -> Tensor:  # [R, ...] -> bool
        """Whether rows of the log are training rows of their replica."""
        if self.n_held == 0:
            return torch.ones_like(rows, dtype=torch.bool)
        if self._split is None:
            return self.place_in_order[rows] < self.n_train
        return self._split.inverse(rows, self._split_key(rows.dim())) < self.n_train

    def train_cells(self, positions: Tensor) -> Tensor:  # [R, ...] -> [R, ...]
        """Pairs of D by number that no replica's selection of propensities reads.

        Positions are ``0 .. n_train_cells - 1`` of the replica's split of D; those behind are held
        out, observed pairs and others alike.
        """
        if self._first_cell:
            positions = (positions + self._first_cell) % self.n_pairs
        return self.order()(positions, self._cell_key(positions.dim()))

    def held_cells(self, lo: int, hi: int) -> Tensor:
        """``[R, hi - lo]`` held-out pairs of D by number (positions of ``n_held_cells``)."""
        first = self.n_train_cells
        positions = torch.arange(first + lo, first + hi, device=self.keys.device)
        return self.train_cells(positions.expand(self.replicas, -1))

    def in_train_cells(self, keys: Tensor) -> Tensor:  # [R, ...] -> bool
        """Whether keys of D are no held-out cells of their replica."""
        place = (self._cell_place(keys) - self._first_cell) % self.n_pairs
        return place < self.n_train_cells

    def _cell_place(self, keys: Tensor) -> Tensor:
        """Positions of keys of D in each replica's order of D."""
        number = keys if self.cells is None else self.cells.number(keys)
        return self.order().inverse(number, self._cell_key(keys.dim()))

    def order(self) -> Permutation:
        """Keyed permutations of the numbers of the pairs of D."""
        columns = None if self.n_pairs % self.n_items else self.n_items
        return Permutation(self.n_pairs, columns)

    def shared_stream(self, purpose: str) -> EpochStream:
        """A stream of pairs of D that is the same for all replicas, and for each one alone."""
        return EpochStream(self.order(), stream_key(torch.zeros_like(self.seeds[:1]), purpose))

    def _cell_key(self, dim: int) -> Tensor:
        return stream_key(self.seeds, "cells").view(-1, *[1] * (dim - 1))

    def _split_key(self, dim: int) -> Tensor:
        return stream_key(self.seeds, "split").view(-1, *[1] * (dim - 1))

    def pairs(self, index: Tensor, total: int) -> Pairs:
        """Pairs of D by number, 0 .. ``n_pairs - 1`` (``[R, B]``): their keys where D is all."""
        return self.pairs_at(index if self.cells is None else self.cells(index), total)

    def pairs_at(self, keys: Tensor, total: int) -> Pairs:
        """Pairs of keys ``u * n_items + i`` (``[R, B]``), in D or not."""
        users = torch.div(keys, self.n_items, rounding_mode="floor")
        return Pairs(users, keys - users * self.n_items, self, total)


def _fold_bounds(size: int, folds: int) -> list[int]:
    return [size * fold // folds for fold in range(folds + 1)]


@dataclass(eq=False)
class Pairs:
    """A slice of a batch of user-item pairs, one row for each replica.

    Attributes:
        users: ``[R, B]`` int64.
        items: ``[R, B]`` int64.
        space: Where observation and labels are looked up.
        total: Global size of the batch (B summed over ranks).
        memo: Results of networks on this batch by (network, what): parameter version, whether the
            value carries a graph, value.
        binned: The propensities that were last assigned to bins, and their bins.
        chunk: Pairs ``[R, S, B]`` of S steps of which these are step number ``step``; what is
            looked up of one step is looked up of all.
        step: Number within the chunk.
    """

    users: Tensor
    items: Tensor
    space: PairSpace
    total: int
    memo: dict[tuple[str, str], tuple[int, bool, Tensor]] = field(default_factory=dict)
    binned: tuple[Tensor, Tensor] | None = None
    chunk: Pairs | None = None
    step: int = 0

    @cached_property
    def _row(self) -> Tensor:
        return self.space.find(self.users, self.items)[0]

    @cached_property
    def observed(self) -> Tensor:
        """``[R, B]`` bool: the pair is in the log, held-out rows included."""
        return self.space.observed(self.users, self.items)

    @cached_property
    def o(self) -> Tensor:
        """``observed`` as 0/1 floats."""
        return self.observed.float()

    @cached_property
    def trainable(self) -> Tensor:
        """``[R, B]`` bool: the pair is a training row of its replica."""
        if self.chunk is not None:
            return self.chunk.trainable_by_step[self.step]
        return self.observed & self.space.in_train(self._row)

    @cached_property
    def labels(self) -> Tensor:
        """``[R, B]`` 0/1 labels; 0 where there is no training row, so mask with ``trainable``."""
        if self.chunk is not None:
            return self.chunk.labels_by_step[self.step]
        return torch.where(self.trainable, self.space.labels[self._row], 0.0)

    @cached_property
    def trainable_by_step(self) -> tuple[Tensor, ...]:
        """``trainable`` of each step of a chunk."""
        return by_step(self.trainable)

    @cached_property
    def labels_by_step(self) -> tuple[Tensor, ...]:
        """``labels`` of each step of a chunk."""
        return by_step(self.labels)


def by_step(chunk: Tensor) -> tuple[Tensor, ...]:  # [R, S, B] -> S x [R, B]
    """Each step's part of a chunk, contiguous."""
    return chunk.transpose(0, 1).contiguous().unbind(0)


class ObservedPairs(Pairs):
    """Training rows: every pair is observed and labelled."""

    def __init__(self, rows: Tensor, space: PairSpace, total: int) -> None:
        keys = space.keys[rows]
        users = torch.div(keys, space.n_items, rounding_mode="floor")
        super().__init__(users, keys - users * space.n_items, space, total)
        self.observed = torch.ones_like(rows, dtype=torch.bool)
        self.trainable = self.observed
        self.labels = space.labels[rows]

    @classmethod
    def of(
        cls, users: Tensor, items: Tensor, labels: Tensor, known: Tensor, like: ObservedPairs
    ) -> ObservedPairs:
        """Rows that were looked up before, ``[R, B]`` each; ``known`` is all true."""
        rows = cls.__new__(cls)
        Pairs.__init__(rows, users, items, like.space, like.total)
        rows.observed = rows.trainable = known
        rows.labels = labels
        return rows


class Batch:
    """What one step sees.

    Args:
        rows: Training rows from O, ``[R, B]``, or None.
        pairs: Pairs from D, ``[R, B]``, or None.
    """

    def __init__(self, rows: ObservedPairs | None, pairs: Pairs | None) -> None:
        self._rows, self._pairs = rows, pairs

    @property
    def rows(self) -> ObservedPairs:
        """The rows of O.

        Raises:
            InputError: If the stage draws no observed rows.
        """
        if self._rows is None:
            raise InputError("This learner needs observed rows; set the stage's observed_batch.")
        return self._rows

    @property
    def pairs(self) -> Pairs:
        """The pairs of D.

        Raises:
            InputError: If the stage draws no pairs of D.
        """
        if self._pairs is None:
            raise InputError("This learner needs pairs of D; set the stage's pair_batch.")
        return self._pairs

    @property
    def parts(self) -> list[Pairs]:
        """The rows and the pairs, those that there are."""
        return [part for part in (self._rows, self._pairs) if part is not None]

    def tensors(self, *, labelled: bool = False) -> list[Tensor]:
        """What the batch consists of, once its pairs are looked up, and those of D labelled."""
        found: list[Tensor] = []
        if self._rows is not None:
            rows = self._rows
            found += [rows.users, rows.items, rows.labels, rows.observed]
        if self._pairs is not None:
            found += [self._pairs.users, self._pairs.items, self._pairs.observed]
            if labelled:
                found += [self._pairs.trainable, self._pairs.labels]
        return found

    def of(self, tensors: list[Tensor], *, labelled: bool = False) -> Batch:
        """A batch like this one that consists of other ``tensors()``."""
        rest = iter(tensors)
        rows = pairs = None
        if self._rows is not None:
            users, items, labels, known = (next(rest) for _ in range(4))
            rows = ObservedPairs.of(users, items, labels, known, self._rows)
        if self._pairs is not None:
            pairs = Pairs(next(rest), next(rest), self._pairs.space, self._pairs.total)
            pairs.observed = next(rest)
            if labelled:
                pairs.trainable, pairs.labels = next(rest), next(rest)
        return Batch(rows, pairs)
