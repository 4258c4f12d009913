"""Numbers that stand beside a frame: a pandas Series goes by its index, all else by position."""

from __future__ import annotations

from typing import Any

import pandas as pd

from upo.errors import InputError

SHOWN = 3  # labels of an index that a sentence names


def aligned(values: Any, frame: Any, name: str, source: str) -> Any:
    """Values in the order of the rows of a frame.

    A Series whose index has the labels of the frame's, each once, is put in their order. One that
    has other labels is refused, unless it counts its rows from 0 and has as many as the frame: then
    nobody chose its labels, and it goes by position.

    Args:
        values: Anything; what is no pandas Series is given back.
        frame: What it stands beside; no pandas frame has an index.
        name: What sentences call the values.
        source: What they call the frame.

    Raises:
        InputError: If it cannot be told which value belongs to which row.

    Example:
        >>> frame = pd.DataFrame({"user": ["a", "b"]}, index=[7, 3])
        >>> aligned(pd.Series([0.3, 0.7], index=[3, 7]), frame, "propensity", "log").tolist()
        [0.7, 0.3]
    """
    if not (isinstance(values, pd.Series) and isinstance(frame, pd.DataFrame)):
        return values
    mine, rows = values.index, frame.index
    if mine.equals(rows):
        return values
    if len(mine) == len(rows):
        if mine.is_unique and rows.is_unique and (mine.get_indexer(rows) >= 0).all():
            return values.reindex(rows)
        if mine.equals(pd.RangeIndex(len(rows))):
            return values
    raise InputError(
        f"{name} is a Series of {len(mine):,} values with the index {_shown(mine)}, and {source} "
        f"has {len(rows):,} rows with the index {_shown(rows)}; give it the labels of {source}, "
        f"each once, or give {name}.to_numpy() in the order of the rows."
    )


def _shown(index: pd.Index) -> str:
    """The first labels; of labels that repeat, that they do."""
    labels = ", ".join(map(str, index[:SHOWN]))
    twice = "" if index.is_unique else ", some twice"
    return f"({labels}{', ...' if len(index) > SHOWN else ''}{twice})"
