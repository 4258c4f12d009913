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


@dataclass
class Numbered:
    """A column of ids: a number for each row, and the id that each number stands for."""

    numbers: np.ndarray[Any, np.dtype[np.int32]]  # [N]
    values: Ids  # by number; all different

    @classmethod
    def of(cls, column: pa.ChunkedArray, *, parse: bool = False) -> Numbered:
        """A whole column, none of it empty; ``parse`` as for ``Numbering``."""
        numbering = Numbering(parse=parse)
        for chunk in column.chunks:
            numbering.add(chunk)
        return numbering.result()


class Numbering:
    """Numbers the ids of a column in the order of their first appearance, a block at a time.

    Held are the different ids and four bytes for each row, never the column itself.

    Args:
        parse: Take text as int64 where every id is a plain whole number (`7` or `7.0`, not `007`).
    """

    def __init__(self, *, parse: bool = False) -> None:
        self._parse = parse
        self._values: pa.Array | None = None
        self._numbers: list[np.ndarray[Any, np.dtype[np.int32]]] = []

    def add(self, block: pa.Array) -> None:
        """Number the ids of the next rows; an empty cell gets any number.

        Raises:
            NoIdError: If ids of this type are neither numbers nor text, such as lists.
        """
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
        values = pa.array([], pa.int64()) if self._values is None else self._values
        numbers = np.concatenate([np.zeros(0, np.int32), *self._numbers])
        self._values, self._numbers = None, []
        if self._parse and len(values):
            parsed = as_whole_numbers(values).dictionary_encode()  # 7 and 7.0 are one
            if len(parsed.dictionary) < len(values):
                numbers = parsed.indices.to_numpy().astype(np.int32)[numbers]
            values = parsed.dictionary
        return Numbered(numbers, values.to_numpy(zero_copy_only=False))


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
    Numbers in one column beside text in another all become text. The numbers of the columns are
    overwritten.
    """
    columns = list(columns)
    if len({column.values.dtype.kind for column in columns}) > 1:
        for column in columns:
            column.values = column.values.astype(str).astype(object)
    ids: pd.Index[Any] = pd.Index([])
    for column in columns:
        unique = pd.Index(np.sort(column.values))
        ids = unique if not len(ids) else ids.append(unique[ids.get_indexer(unique) < 0])
    indices = []
    for column in columns:
        index_of = ids.get_indexer(pd.Index(column.values)).astype(np.int32)
        numbers = column.numbers
        for low in range(0, len(numbers), BLOCK):
            numbers[low : low + BLOCK] = index_of[numbers[low : low + BLOCK]]
        indices.append(torch.from_numpy(numbers))
    return indices, np.asarray(ids)


def shown(value: Any) -> str:
    """An id as error sentences show it: numpy's scalars as the plain values they are, shortened."""
    return visible(repr(value.item() if isinstance(value, np.generic) else value), 60)
