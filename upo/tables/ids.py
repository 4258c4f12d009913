"""Ids of the Python API: columns of a frame, places in a table, and ids that a file may hold."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from upo.errors import InputError
from upo.tables.frames import encode
from upo.tables.kinds import by_value
from upo.tables.numbering import Ids

SAMPLE = 2**12  # users (items) whose mean stands for an unseen one, spread evenly where more exist
_RENAME = "rename them, or name yours when fitting: fit(..., user=, item=, rating=)"


def check_columns(frame: Any, wanted: list[str], source: str, remedy: str = _RENAME) -> None:
    """Name missing or repeated columns in the words of this API; what is no frame is found later.

    Raises:
        InputError: If a column is missing, or there are two of a name.
    """
    names = getattr(frame, "column_names", None)
    names = getattr(frame, "columns", None) if names is None else names
    have = wanted if names is None else list(names)
    absent = [name for name in wanted if name not in have]
    numbers = [name for name in have if not isinstance(name, str)]
    if numbers and (absent or any(name in wanted for name in numbers)):
        raise InputError(
            f"{source} has columns that are called {', '.join(map(repr, numbers[:5]))}, and names "
            "of columns here are text; rename them, for example with frame.columns = "
            "['user', 'item', 'rating']."
        )
    if absent:
        raise InputError(
            f"{source} has no column {' or '.join(map(repr, absent))}, only "
            f"{', '.join(map(str, have)) or 'none'}; {remedy}."
        )
    twice = [name for name in wanted if have.count(name) > 1]
    if twice and names is not None:
        raise InputError(f"{source} has more than one column {twice[0]!r}; keep one of them.")


def as_frame(frame: Any) -> Any:
    """The frame as it is; an Arrow table as a pandas frame."""
    return frame.to_pandas() if isinstance(frame, pa.Table) else frame


def joint_index(columns: list[pa.ChunkedArray]) -> tuple[list[Ids], int]:
    """``[N]`` int64 numbers of the ids of each column, and how many different ids there are.

    Numbers are compared by value, however they are spelled; numbers in one column beside other
    text in another as text.

    Raises:
        InputError: If a column holds what cannot be an id.
    """
    encoded = [encode(column, parse=True) for column in columns]
    if len({values.dtype.kind for _, values in encoded}) > 1:
        encoded = [(codes, _as_text(values)) for codes, values in encoded]
    number, ids = pd.factorize(np.concatenate([values for _, values in encoded]))
    parts = np.split(number, np.cumsum([len(values) for _, values in encoded])[:-1])
    found = [part[codes].astype(np.int64) for (codes, _), part in zip(encoded, parts, strict=True)]
    return found, len(ids)


class Places:
    """Where ids stand in a table of ids; numbers are found by value, however they are spelled.

    Text that stands for a whole number, such as ``11.0``, finds that number, also where the table
    has it as text and no other id spells it.

    Args:
        ids: Ids by index.
    """

    def __init__(self, ids: Ids) -> None:
        self.ids = ids

    @cached_property
    def _index(self) -> "pd.Index[Any]":
        return pd.Index(self.ids)

    @cached_property
    def _text(self) -> "pd.Index[Any]":
        return pd.Index(_as_text(self.ids))

    def find(self, column: pa.ChunkedArray) -> Tensor:  # [N] int64
        """Index of each id, -1 where it is unseen.

        Raises:
            InputError: If the column holds what cannot be an id.
        """
        codes, values = encode(column)
        kinds = self.ids.dtype.kind, values.dtype.kind
        if kinds == ("i", "O"):
            spelled = by_value(values)
            known = np.array([x is not None for x in spelled], dtype=bool)
            found = np.full(len(values), -1)
            found[known] = self._index.get_indexer(pd.Index(spelled[known].astype(np.int64)))
        elif kinds[0] == kinds[1]:
            found = self._index.get_indexer(pd.Index(values))
        else:
            found = self._text.get_indexer(pd.Index(_as_text(values)))
        missed = found < 0
        if kinds[0] == "O" and missed.any():  # as 11 where a table says 11.0
            found[missed] = self._by_number(_as_text(values[missed]))
        return torch.from_numpy(found[codes].astype(np.int64))

    def _by_number(self, text: Ids) -> Any:
        """Places by the numbers that text spells; -1 where none or several ids spell one."""
        found = np.full(len(text), -1)
        asked = by_value(text)
        known = np.array([x is not None for x in asked], dtype=bool)
        if len(self._spelled):
            place = self._spelled.index.get_indexer(pd.Index(asked[known].astype(np.int64)))
            found[known] = np.where(place < 0, -1, self._spelled.to_numpy()[place])
        return found

    @cached_property
    def _spelled(self) -> "pd.Series[int]":
        """Places of the ids that alone spell a number, by that number."""
        numbers = by_value(self.ids)
        places = np.flatnonzero([x is not None for x in numbers])
        found = pd.Series(places, index=pd.Index(numbers[places].astype(np.int64)))
        return found[~found.index.duplicated(keep=False)]


def _as_text(ids: Ids) -> Ids:
    return ids.astype(str).astype(object)


def spread(index: Tensor) -> Tensor:
    """At most ``SAMPLE`` of them, evenly spread."""
    if len(index) <= SAMPLE:
        return index
    return index[torch.linspace(0, len(index) - 1, SAMPLE, dtype=torch.float64).long()]


def plain_ids(ids: Ids, name: str) -> list[Any]:
    """Ids as text and whole numbers, which a file may hold.

    Raises:
        InputError: If an id is of another type.
    """
    plain: list[Any] = ids.tolist()
    odd = next((x for x in plain if isinstance(x, bool) or not isinstance(x, int | str)), None)
    if odd is not None:
        raise InputError(
            f"A model is saved with ids of text or whole numbers, but the {name} {odd!r} is of "
            f"type {type(odd).__name__}; turn that column into text and fit again."
        )
    return plain


def restored_ids(plain: list[Any]) -> Ids:
    """Ids as they were before ``plain_ids``."""
    return np.asarray(plain, dtype=object if isinstance(plain[0], str) else np.int64)
