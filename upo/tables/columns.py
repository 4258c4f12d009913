"""A log read block by block into compact columns: numbered users and items, and ratings.

A row takes 12 bytes, or 16 where its rating is no float32, whatever its ids are; beside these only
the different ids and one block of the source are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor

from upo.errors import InputError
from upo.tables.frames import empty_cells
from upo.tables.kinds import NoIdError
from upo.tables.numbering import Numbered, Numbering
from upo.tables.times import Times


@dataclass
class LogColumns:
    """The rows of a log in the order of the source."""

    users: Numbered
    items: Numbered
    ratings: Tensor  # [N] float32 where that holds every rating exactly, else float64
    times: Tensor | None = None  # [N] float64


def collect(
    blocks: Iterable[pa.RecordBatch],
    names: Sequence[str],  # what the columns of the user, the item and the rating are called
    source: str,
    *,
    parse_ids: bool = False,
    time: str | None = None,
) -> LogColumns:
    """Number the ids and narrow the ratings of one block after another.

    Args:
        blocks: Each with the three columns, in the order of the rows.
        names: Their names.
        source: What error sentences call the rows.
        parse_ids: Take ids that are text as int64 where every one is a plain whole number.
        time: Name of a column of times, if there is one.

    Raises:
        InputError: If a cell is empty (the sentence names the first), a rating no number or a time
            none.
    """
    numberings = [Numbering(parse=parse_ids) for _ in names[:2]]
    ratings, times = _Ratings(), None if time is None else Times(time, source)
    names = [*names, *([] if time is None else [time])]
    first: dict[str, int] = {}  # column -> row of its first empty cell
    empty = dict.fromkeys(names, 0)
    rows = 0
    for block in blocks:
        for name in names:
            missing = empty_cells(block[name])
            count = pc.sum(missing).as_py() or 0
            if count:
                empty[name] += count
                first.setdefault(name, rows + pc.index(missing, pa.scalar(True)).as_py() + 1)
        for name, numbering in zip(names[:2], numberings, strict=True):
            try:
                numbering.add(block[name])
            except NoIdError as error:
                raise InputError(
                    f"{source}: the column {name} {error}; give text or whole numbers."
                ) from error
        ratings.add(block[names[2]], names[2], source)
        if times is not None:
            times.add(block[names[3]])
        rows += block.num_rows
    for name in names:
        if empty[name]:
            raise InputError(
                f"{source}: row {first[name]} has no {name}; fill it in or remove the row "
                f"({empty[name]} such rows in all)."
            )
    users, items = (numbering.result() for numbering in numberings)
    return LogColumns(users, items, ratings.result(), None if times is None else times.result())


class _Ratings:
    """Ratings of one block after another, as float32 while that holds every one exactly."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray[Any, Any]] = []

    def add(self, block: pa.Array, name: str, source: str) -> None:
        try:
            values = block.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).splitlines()[0].rstrip(". ")
            raise InputError(
                f"{source}: the column {name} must hold numbers ({reason}); fix it."
            ) from error
        with np.errstate(over="ignore"):  # too large for float32 is not exact either
            narrow = values.astype(np.float32)
        self._parts.append(narrow if np.array_equal(narrow, values, equal_nan=True) else values)

    def result(self) -> Tensor:
        return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *self._parts]))
