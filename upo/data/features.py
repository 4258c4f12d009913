"""Tables of user or item features as columns of numbers; categories become columns of 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from upo.data.rating_data import Unrated
from upo.errors import InputError
from upo.tables.frames import check_nulls, encode, first_line, to_arrow
from upo.tables.numbering import Ids, shown

MOST_CATEGORIES = 64  # of a column; text with more values is a name or a sentence, not a category


def read_features(frame: Any, ids: Ids, key: str) -> tuple[Tensor, Unrated | None]:
    """The features of ids in their order, and what the table has of other ids.

    Args:
        frame: A table with the column ``key``, and columns of numbers, truth values or categories
            (text of at most 64 different values), each of which becomes a column of 0 and 1.
        ids: ``[n]`` ids of D.
        key: Name of the column of ids.

    Returns:
        ``[n, d]`` float64, and the rows of ids that are not among ``ids``, by id.

    Raises:
        InputError: If a cell is empty, an id has no row or two, or a column cannot be used.
    """
    source = f"the features by {key}"
    table = to_arrow(frame, None, source)
    if key not in table.column_names or len(table.column_names) < 2:
        raise InputError(
            f"{source} must have a column {key} and at least one column of numbers, has only "
            f"{', '.join(table.column_names)}; rename or add them."
        )
    check_nulls(table, source)
    codes, values = encode(table[key], parse=ids.dtype.kind == "i")
    mine = ids
    if values.dtype.kind != ids.dtype.kind:
        values, mine = values.astype(str).astype(object), ids.astype(str).astype(object)
    if len(values) < len(codes):
        twice = values[np.argmax(np.bincount(codes) > 1)]
        raise InputError(f"{source} have more than one row for {key} {shown(twice)}; keep one.")
    order = pd.Index(values[codes])
    rows = order.get_indexer(pd.Index(mine))
    if (rows < 0).any():
        absent = mine[np.argmax(rows < 0)]
        raise InputError(
            f"{source} have no row for {key} {shown(absent)} ({(rows < 0).sum()} lack one); add a "
            f"row for every {key} of train and test."
        )
    names = [name for name in table.column_names if name != key]
    columns = torch.cat([_column(table, name, source) for name in names], dim=1)
    others = np.setdiff1d(np.arange(len(order)), rows)
    others = others[np.argsort(np.asarray(order)[others], kind="stable")]
    extra = columns[others]
    if not bool(torch.isfinite(extra).all()):
        raise InputError(
            f"{source}: a row of a {key} without ratings holds a number that is not finite; fix it."
        )
    if not len(others):
        return columns[rows], None
    try:
        more = np.asarray(order)[others].astype(ids.dtype)
    except ValueError as error:
        raise InputError(
            f"{source} name the {key} {shown(np.asarray(order)[others][0])} in text, where the log "
            f"has numbers; give both columns one type."
        ) from error
    return columns[rows], Unrated(more, extra.float())


def _column(table: pa.Table, name: str, source: str) -> Tensor:  # [N, 1 or categories] float64
    column = table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _categories(table, name, source)
    try:
        values = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{source}: the column {name} must hold numbers or categories ({first_line(error)}); "
            "fix it."
        ) from error
    return torch.from_numpy(values.to_numpy().astype(np.float64))[:, None]


def _categories(table: pa.Table, name: str, source: str) -> Tensor:  # [N, categories] float64
    codes, values = encode(table[name])
    number = next((value for value in values.tolist() if _reads_as_number(value)), None)
    if number is not None:
        raise InputError(
            f"{source}: the column {name} must hold numbers or categories, not both: it has text, "
            f"of which {shown(number)} reads as a number; fix it."
        )
    if len(values) > MOST_CATEGORIES:
        raise InputError(
            f"{source}: the column {name} is text of {len(values)} different values, more than "
            f"the {MOST_CATEGORIES} that a category may have; group them, give columns of 0 and 1 "
            "(one-hot) or of numbers made of the text, for backbone=fm to learn from, or leave it "
            "out."
        )
    place = np.argsort(np.argsort(values.astype(str), kind="stable"), kind="stable")
    return torch.nn.functional.one_hot(torch.from_numpy(place[codes]), len(values)).double()


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
