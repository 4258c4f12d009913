"""Ids of any type to indices, block by block, with Arrow's hash tables for Python's dicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from upo.errors import visible
from upo.tables.kinds import NoIdError, as_whole_numbers, plain_ids

Ids = np.ndarray[Any, Any]
"""The original ids by index: `ids[k]` is what the source calls user (or item) number k."""

BLOCK = 2**22
"""Rows worked on at once, so that no step needs several copies of a whole column."""


FEW = 2**16  # rows of a first block from which on a dictionary is worth avoiding
CLOSE = 2**27  # how far apart the smallest and the largest of dense ids may lie, or 4 a row


@dataclass
class Numbered:
    """A column of ids: a number for each row, and the id that each number stands for."""

    numbers: np.ndarray[Any, np.dtype[np.int32]]  # [N]
    values: Ids  # by number; all different

    def by_value(self) -> Numbered:
        """Text as whole numbers where every id is a plain one."""
        if self.values.dtype.kind != "O":
            return self
        return _by_value(self.numbers, pa.array(self.values))

    @classmethod
    def of(cls, column: pa.ChunkedArray, *, parse: bool = False) -> Numbered:
        """A whole column, none of it empty; ``parse`` as for ``Numbering``."""
        numbering = Numbering(parse=parse)
        for chunk in column.chunks:
            numbering.add(chunk)
        return numbering.result()


class Numbering:
    """Numbers the ids of a column, a block at a time.

    Held are the different ids and four bytes for each row, never the column itself. Whole numbers
    that lie close together are noted where they are, without a dictionary, and numbered in their
    own order; other ids in the order of their first appearance.

    Args:
        parse: Take text as int64 where every id is a plain whole number (`7` or `7.0`, not `007`).
    """

    def __init__(self, *, parse: bool = False) -> None:
        self._parse = parse
        self._dense: DenseIds | None = DenseIds()  # while it serves
        self._values: pa.Array | None = None
        self._numbers: list[np.ndarray[Any, np.dtype[np.int32]]] = []

    def add(self, block: pa.Array) -> None:
        """Number the ids of the next rows; an empty cell gets any number.

        Raises:
            NoIdError: If ids of this type are neither numbers nor text, such as lists.
        """
        if self._dense is not None:
            if self._dense.add(block):
                return
            self._leave(self._dense)
        fresh, rows = _distinct(block)
        if self._values is None:
            self._values, numbers = fresh, np.arange(len(fresh), dtype=np.int32)
        else:
            if fresh.type != self._values.type:
                fresh = self._alike(fresh)
            places = pc.index_in(fresh, value_set=self._values)
            unknown = places.is_null().to_numpy(zero_copy_only=False)
            numbers = places.fill_null(0).to_numpy().astype(np.int32)
            numbers[unknown] = np.arange(unknown.sum()) + len(self._values)
            if unknown.any():
                self._values = pa.concat_arrays([self._values, fresh.filter(pa.array(unknown))])
        if not len(numbers):
            numbers = np.zeros(1, np.int32)  # a block of nothing but empty cells
        self._numbers.append(numbers[rows])

    def _leave(self, dense: DenseIds) -> None:
        """Go on with a dictionary of what was seen."""
        self._dense = None
        if len(dense):
            found = dense.result()
            self._values, self._numbers = pa.array(found.values), [found.numbers]

    def _alike(self, fresh: pa.Array) -> pa.Array:
        """Both as text, or the few of the one as the type of the other."""
        assert self._values is not None  # of another type than this
        if not len(self._values):
            self._values = pa.array([], fresh.type)
        elif not len(fresh):
            fresh = pa.array([], self._values.type)
        else:
            self._values = self._values.cast(pa.large_string())
            fresh = fresh.cast(pa.large_string())
        return fresh

    def result(self) -> Numbered:
        """The whole column. What was added is forgotten."""
        dense, self._dense = self._dense, DenseIds()
        if dense is not None and len(dense):
            return dense.result()
        values = pa.array([], pa.int64()) if self._values is None else self._values
        numbers = np.concatenate([np.zeros(0, np.int32), *self._numbers])
        self._values, self._numbers = None, []
        if self._parse and len(values):
            return _by_value(numbers, values)
        return Numbered(numbers, values.to_numpy(zero_copy_only=False))


def _by_value(numbers: np.ndarray[Any, np.dtype[np.int32]], values: pa.Array) -> Numbered:
    """A column whose text is read as whole numbers where every id is a plain one."""
    parsed = as_whole_numbers(values)
    if parsed is not values:
        parsed = parsed.dictionary_encode()  # 7 and 7.0 are one
        if len(parsed.dictionary) < len(values):
            numbers = parsed.indices.to_numpy().astype(np.int32)[numbers]
        parsed = parsed.dictionary
    return Numbered(numbers, parsed.to_numpy(zero_copy_only=False))


class DenseIds:
    """Whole numbers noted by their distance from the first block's smallest one.

    Four bytes a row, and one for each number between the smallest and the largest.
    """

    def __init__(self) -> None:
        self._rows = self._base = self._low = 0
        self._seen = np.zeros(0, dtype=bool)  # from _low on
        self._offsets: list[np.ndarray[Any, np.dtype[np.int32]]] = []

    def __len__(self) -> int:
        return self._rows

    def add(self, block: pa.Array) -> bool:
        """Note the ids of the next rows, unless they are none, or lie too far apart."""
        if not pa.types.is_integer(block.type) or block.null_count or not len(block):
            return False
        if not self._rows and len(block) < FEW:
            return False
        low, high = (x.as_py() for x in pc.min_max(block).values())
        if self._rows:
            low, high = min(low, self._low), max(high, self._low + len(self._seen) - 1)
        span = high - low + 1
        if high >= 2**63 or span > min(max(CLOSE, 4 * (self._rows + len(block))), 2**31 - 1):
            return False
        values = block.cast(pa.int64()).to_numpy()
        if not self._rows:
            self._base = self._low = low
        if span > len(self._seen):
            wider = np.zeros(span, dtype=bool)
            wider[self._low - low : self._low - low + len(self._seen)] = self._seen
            self._low, self._seen = low, wider
        self._seen[values - self._low] = True
        self._offsets.append((values - self._base).astype(np.int32))
        self._rows += len(block)
        return True

    def result(self) -> Numbered:
        """The whole column, its ids ascending."""
        places = np.flatnonzero(self._seen)
        offsets = np.concatenate(self._offsets)
        shift = self._base - self._low
        few = len(self._seen) <= 4 * self._rows + 2**20
        number = np.cumsum(self._seen, dtype=np.int32) - 1 if few else None
        for low in range(0, len(offsets), BLOCK):
            part = offsets[low : low + BLOCK]
            place = part.astype(np.int64) + shift
            part[:] = np.searchsorted(places, place) if number is None else number[place]
        return Numbered(offsets, places + self._low)


def _distinct(block: pa.Array) -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """The different ids of a block, and which of them each row has; any for an empty cell."""
    if not pa.types.is_dictionary(block.type):
        try:
            block = block.dictionary_encode()
        except pa.ArrowNotImplementedError as error:
            raise NoIdError(f"holds {str(block.type)[:60]}, which cannot be an id") from error
    indices = block.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    # a dictionary may name ids that no row has; by first appearance, as of other columns
    used, first = np.unique(indices[indices >= 0], return_index=True)
    used = used[np.argsort(first)]
    plain = plain_ids(block.dictionary.take(pa.array(used, pa.int64())))
    fresh = plain.drop_null().dictionary_encode()  # -0.0 and 0.0 are one now
    number = np.zeros(len(block.dictionary) + 1, dtype=np.int64)
    number[used[plain.is_valid().to_numpy(zero_copy_only=False)]] = fresh.indices.to_numpy()
    return fresh.dictionary, number[indices]


def join_ids(columns: Iterable[Numbered]) -> tuple[list[Tensor], Ids]:
    """Indices ([N] int32) of the rows of each column, and the ids by index.

    The ids of the first column come first, in ascending order (text by code point), then those that
    only the next one has, and so on: the indices of a column do not depend on those behind it.
    Numbers in one column beside text in another that spells numbers are compared by value; beside
    other text all become text. The numbers of the columns are overwritten.
    """
    columns = list(columns)
    if len({column.values.dtype.kind for column in columns}) > 1:
        columns = [column.by_value() for column in columns]
    if len({column.values.dtype.kind for column in columns}) > 1:
        for column in columns:
            column.values = column.values.astype(str).astype(object)
    ids: pd.Index[Any] = pd.Index([])
    for column in columns:
        unique = pd.Index(np.sort(column.values))
        ids = unique if not len(ids) else ids.append(unique[ids.get_indexer(unique) < 0])
    indices = []
    for place, column in enumerate(columns):
        if place:
            index_of = ids.get_indexer(pd.Index(column.values)).astype(np.int32)
        else:  # its ids are the first, and sorted
            index_of = np.empty(len(column.values), dtype=np.int32)
            index_of[np.argsort(column.values)] = np.arange(len(column.values), dtype=np.int32)
        numbers = column.numbers
        for low in range(0, len(numbers), BLOCK):
            numbers[low : low + BLOCK] = index_of[numbers[low : low + BLOCK]]
        indices.append(torch.from_numpy(numbers))
    return indices, np.asarray(ids)


def shown(value: Any) -> str:
    """An id as error sentences show it: numpy's scalars as the plain values they are, shortened."""
    return visible(repr(value.item() if isinstance(value, np.generic) else value), 60)
