"""Tables of any ids (from files or data frames) to indexed interactions, without Python dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from upo.data.duplicates import resolve_duplicates
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.tables.columns import LogColumns, collect
from upo.tables.frames import check_nulls, encode, first_line, to_arrow
from upo.tables.numbering import BLOCK, Ids, join_ids, shown


@dataclass(frozen=True)
class Columns:
    """What the columns of the user, the item and the rating are called."""

    user: str = "user"
    item: str = "item"
    rating: str = "rating"


def rating_data_from_frames(
    train: Any,
    test: Any = None,
    *,
    columns: Columns | None = None,
    label_rule: LabelRule | None = None,
    rating_range: tuple[float, float] | None = None,
    duplicates: str = "error",
    user_features: Any = None,
    item_features: Any = None,
    name: str = "table",
    sources: tuple[str, str] = ("train", "test"),
) -> RatingData:
    """Index frames of users, items and ratings; ids may be of any type that sorts.

    Train ids come first, in their own order, then those that only test has: the indices of train
    do not depend on test.

    Args:
        train: The log: pandas, polars, pyarrow, or anything with the Arrow interchange, or what
            ``upo.tables.columns.collect`` made of a file.
        test: A uniform sample, if there is one.
        columns: The names of the three columns; others are ignored.
        label_rule: Which ratings are positive; those of at least 3 if not given.
        rating_range: Smallest and largest rating allowed.
        duplicates: What becomes of repeated pairs: `error`, `mean`, `first` or `last`.
        user_features: A frame with the user column and numeric columns, a row for every user.
        item_features: The same for items.
        name: What the dataset is called in tables and results.
        sources: What error sentences call the two frames.

    Raises:
        InputError: If anything is missing, damaged or repeated.
    """
    columns = columns or Columns()
    names = [columns.user, columns.item, columns.rating]
    frames = [f for f in (train, test) if f is not None]
    logs = [
        f
        if isinstance(f, LogColumns)
        else collect(to_arrow(f, names, s).to_batches(BLOCK), names, s)
        for f, s in zip(frames, sources, strict=False)
    ]
    users, user_ids = join_ids(log.users for log in logs)
    items, item_ids = join_ids(log.items for log in logs)
    features = [
        None if frame is None else _features(frame, ids, key, f"the features by {key}")
        for frame, ids, key in (
            (user_features, user_ids, columns.user),
            (item_features, item_ids, columns.item),
        )
    ]
    size = (len(user_ids), len(item_ids))
    checked = [
        Interactions.validated(
            *resolve_duplicates(u, i, log.ratings, size[1], duplicates),
            *size,
            user_features=features[0],
            item_features=features[1],
            source=s,
            rating_range=rating_range,
            ids=(user_ids, item_ids),
        )
        for u, i, log, s in zip(users, items, logs, sources, strict=False)
    ]
    return RatingData(
        name=name,
        train=checked[0],
        test=checked[1] if len(checked) > 1 else None,
        label_rule=label_rule or LabelRule(3.0),
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _numbers(table: pa.Table, name: str, source: str) -> Tensor:  # [N] float64
    try:
        values = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{source}: the column {name} must hold numbers ({first_line(error)}); mend it."
        ) from error
    return torch.from_numpy(values.to_numpy().astype(np.float64))


def _features(frame: Any, ids: Ids, key: str, source: str) -> Tensor:  # [len(ids), d] float64
    table = to_arrow(frame, None, source)
    if key not in table.column_names or len(table.column_names) < 2:
        raise InputError(
            f"{source} must have a column {key} and at least one column of numbers, has only "
            f"{', '.join(table.column_names)}; rename or add them."
        )
    check_nulls(table, source)
    codes, values = encode(table[key])
    if values.dtype.kind != ids.dtype.kind:
        values, ids = values.astype(str).astype(object), ids.astype(str).astype(object)
    if len(values) < len(codes):
        twice = values[np.argmax(np.bincount(codes) > 1)]
        raise InputError(f"{source} have more than one row for {key} {shown(twice)}; keep one.")
    rows = pd.Index(values[codes]).get_indexer(pd.Index(ids))
    if (rows < 0).any():
        absent = ids[np.argmax(rows < 0)]
        raise InputError(
            f"{source} have no row for {key} {shown(absent)} ({(rows < 0).sum()} lack one); add a "
            f"row for every {key} of train and test."
        )
    names = [name for name in table.column_names if name != key]
    return torch.stack([_numbers(table, name, source) for name in names], dim=1)[rows]
