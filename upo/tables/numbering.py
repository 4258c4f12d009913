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

Ids = np.ndarray[Any, Any]
"""The original ids by index: `ids[k]` is what the source calls user (or item) number k."""

BLOCK = 2**22
"""Rows worked on at once, so that no step needs several copies of a whole column."""

WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"


@dataclass
class Numbered:
    """A column of ids: a number for each row, and the id that each number stands for."""

    numbers: np.ndarray[Any, np.dtype[np.int32]]  # [N]
    values: Ids  # by number; all different

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Numbered:
        """A whole column, none of it empty."""
        numbering = Numbering()
        for chunk in column.chunks:
            numbering.add(chunk)
        return numbering.result()


class Numbering:
    """Numbers the ids of a column in the order of their first appearance, a block at a time.

    Held are the different ids and four bytes for each row, never the column itself.

    Args:
        parse: Take text as int64 where every id is a plain whole number (`7`, not `007`).
    """

    def __init__(self, *, parse: bool = False) -> None:
        self._parse = parse
        self._values: pa.Array | None = None
        self._numbers: list[np.ndarray[Any, np.dtype[np.int32]]] = []

    def add(self, block: pa.Array) -> None:
        """Number the ids of the next rows; an empty cell gets any number.

        Raises:
            pa.ArrowNotImplementedError: If ids of this type cannot be compared, such as lists.
        """
        if pa.types.is_dictionary(block.type):
            block = block.dictionary_decode()  # it may name ids that no row has
        if pa.types.is_string(block.type):
            block = block.cast(pa.large_string())  # all different ids may exceed 2 GB of text
        coded = block.dictionary_encode()
        fresh = coded.dictionary
        if self._values is None:
            self._values, numbers = fresh, np.arange(len(fresh), dtype=np.int32)
        else:
            places = pc.index_in(fresh, value_set=self._values)
            unknown = places.is_null().to_numpy(zero_copy_only=False)
            numbers = places.fill_null(0).to_numpy().astype(np.int32)
            numbers[unknown] = np.arange(unknown.sum()) + len(self._values)
            if unknown.any():
                self._values = pa.concat_arrays([self._values, fresh.filter(pa.array(unknown))])
        if not len(numbers):
            numbers = np.zeros(1, np.int32)  # a block of nothing but empty cells
        self._numbers.append(numbers[coded.indices.fill_null(0).to_numpy()])

    def result(self) -> Numbered:
        """The whole column. What was added is forgotten."""
        values = pa.array([], pa.int64()) if self._values is None else self._values
        if self._parse:
            values = as_whole_numbers(values)
        numbers = np.concatenate([np.zeros(0, np.int32), *self._numbers])
        self._values, self._numbers = None, []
        return Numbered(numbers, _as_numpy(values))


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


def as_whole_numbers(ids: Any) -> Any:
    """Text (an Arrow array, chunked or not) as int64 where every id is a plain whole number."""
    text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    if not text or not pc.all(pc.match_substring_regex(ids, WHOLE_NUMBER)).as_py():
        return ids
    return ids.cast(pa.int64())


def _as_numpy(values: pa.Array) -> Ids:
    """As numpy has them: whole numbers of any type as int64, text as objects."""
    array: Ids = values.to_numpy(zero_copy_only=False)
    kind = array.dtype.kind
    # pandas makes whole numbers float beside a missing one
    whole = kind in "iu" or (kind == "f" and bool((array == np.floor(array)).all()))
    fits = kind == "i" or (whole and (np.abs(array) < 2**63).all())
    return array.astype(np.int64) if fits else array


def shown(value: Any) -> str:
    """An id as error sentences show it: numpy's scalars as the plain values they are."""
    return repr(value.item() if isinstance(value, np.generic) else value)
