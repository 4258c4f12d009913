"""Ids of the Python API: columns of a frame, places in a table, and ids that a file may hold."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from upo.data.frames import encode
from upo.data.interactions import Ids
from upo.errors import InputError

SAMPLE = 2**12  # users (items) whose mean stands for an unseen one, spread evenly where more exist


def check_columns(frame: Any, wanted: list[str], source: str) -> None:
    """Name missing columns in the words of this API; what is no frame is found later."""
    names = getattr(frame, "column_names", None)
    names = getattr(frame, "columns", None) if names is None else names
    have = wanted if names is None else list(names)
    absent = [name for name in wanted if name not in have]
    if absent:
        raise InputError(
            f"{source} has no column {' or '.join(map(repr, absent))}, only "
            f"{', '.join(map(str, have)) or 'none'}; rename them, or name yours when fitting: "
            "fit(..., user=, item=, rating=)."
        )


def find_places(column: pa.ChunkedArray, ids: Ids) -> Tensor:  # [N] int64
    """Index of each id, -1 where it is unseen; numbers beside text compare as text."""
    codes, values = encode(column)
    if values.dtype.kind != ids.dtype.kind:
        values, ids = values.astype(str).astype(object), ids.astype(str).astype(object)
    found = pd.Index(ids).get_indexer(pd.Index(values))
    return torch.from_numpy(found[codes].astype(np.int64))


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
