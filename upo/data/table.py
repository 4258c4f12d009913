"""Your own log: CSV or Parquet files with a user, an item and a rating in each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from upo.core.files import atomic_file
from upo.core.given import path_of
from upo.data.datamodule import RatingDataModule
from upo.data.frames import Columns, rating_data_from_frames
from upo.data.interactions import LabelRule
from upo.data.later import later_as_test
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.tables.columns import LogColumns, collect
from upo.tables.files import read_blocks, read_every_column

_REMEDY = (
    "rename them, or name yours with dataset.user_column, dataset.item_column and "
    "dataset.rating_column"
)


def read_table(
    train: str | Path,
    test: str | Path | None = None,
    *,
    columns: Columns | None = None,
    label_rule: LabelRule | None = None,
    rating_range: tuple[float, float] | None = None,
    duplicates: str = "error",
    user_features: str | Path | None = None,
    item_features: str | Path | None = None,
    name: str = "table",
) -> RatingData:
    """Read CSV (`.csv`, `.tsv`, `.txt`, with a header, also `.gz`) or Parquet files.

    Each may be several: a folder, whose hive partitions (`day=2024-01-31/`) are columns, or a
    pattern.

    Ids may be whole numbers or any text; `007` and `7` are different ids, as a column in which not
    every id is a plain whole number is taken as text.

    Args:
        train: The log.
        test: Ratings of uniformly drawn pairs, if there are any.
        columns: What the columns are called.
        label_rule: Which ratings are positive; those of at least 3 if not given.
        rating_range: Smallest and largest rating allowed; any if not given.
        duplicates: What becomes of repeated pairs: `error`, `mean`, `first` or `last`.
        user_features: A file with the user column and columns of numbers, a row for every user.
        item_features: The same for items.
        name: What the dataset is called in tables and results.

    Raises:
        InputError: If a file is missing, damaged, or holds what it should not.
    """
    columns = columns or Columns()
    logs = [
        _log(train, "dataset.train", columns, columns.time),
        _log(test, "dataset.test", columns),
    ]
    features = [
        _features(user_features, "dataset.user_features", columns),
        _features(item_features, "dataset.item_features", columns),
    ]
    return rating_data_from_frames(
        logs[0],
        logs[1],
        columns=columns,
        label_rule=label_rule,
        rating_range=rating_range,
        duplicates=duplicates,
        user_features=features[0],
        item_features=features[1],
        name=name,
        sources=(str(train), str(test)),
    )


def write_id_maps(data: RatingData, folder: str | Path) -> None:
    """Write `users.csv` and `items.csv` (columns index, id) into the folder, each in one move.

    Raises:
        InputError: If the dataset keeps no ids or the folder cannot be written.
    """
    folder = Path(folder)
    for name, ids in (("users.csv", data.user_ids), ("items.csv", data.item_ids)):
        if ids is None:
            raise InputError(
                f"{data.name} keeps no original ids, so there is no map to write; its indices are "
                f"its ids counted from 0."
            )
        target = folder / name
        try:
            with atomic_file(target) as file:
                pd.DataFrame({"id": ids}).to_csv(file, index_label="index")
        except OSError as error:
            raise InputError(
                f"{target} cannot be written ({error.strerror or error}); fix the folder's "
                f"permissions or choose another."
            ) from error


def _log(
    path: str | Path | None, key: str, columns: Columns, time: str | None = None
) -> LogColumns | None:
    """The columns of a log, compact."""
    if path is None:
        return None
    path, names = path_of(key, path), columns.of(1)
    text = [*names[:2], *([] if time is None else [time])]  # a time may be a number or a date
    blocks = read_blocks(path, key, text, names[2:], remedy=_REMEDY)
    batches = (batch for block in blocks for batch in block.to_batches())
    return collect(batches, names, str(path), parse_ids=True, time=time)


def _features(path: str | Path | None, key: str, columns: Columns) -> pa.Table | None:
    """The table of a feature file, with ids as in the log."""
    if path is None:
        return None
    ids = (columns.user, columns.item)
    table = read_every_column(path_of(key, path), key, ids)
    names = table.column_names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{key}={path} has more than one column {twice[0]}; keep one of them.")
    return table


class TableDataModule(RatingDataModule):
    """Your own files as a datamodule; the keys are those of `conf/dataset/table.yaml`."""

    def __init__(
        self,
        train: str,
        test: str | None = None,
        *,
        name: str = "table",
        label_threshold: float = 3.0,
        label_strict: bool = False,
        drop_overlap: bool = False,
        k: int = 5,
        user_column: str = "user",
        item_column: str = "item",
        rating_column: str = "rating",
        time: str | None = None,
        test_after: str | float | None = None,
        rating_range: Sequence[float] | None = None,
        duplicates: str = "error",
        user_features: str | None = None,
        item_features: str | None = None,
    ) -> None:
        super().__init__(name, label_threshold, label_strict, drop_overlap, k)
        if rating_range is not None and (
            len(rating_range) != 2 or rating_range[0] >= rating_range[1]
        ):
            raise InputError(
                f"dataset.rating_range must be null or [low, high] with low < high, got "
                f"{list(rating_range)}; try [1, 5]."
            )
        self._files = (train, test)
        self._name = name
        self._rule = LabelRule(label_threshold, label_strict)
        self._columns = Columns(user_column, item_column, rating_column, time)
        self._range = None if rating_range is None else (rating_range[0], rating_range[1])
        self._after = test_after
        self._duplicates = duplicates
        self._features = (user_features, item_features)

    def read(self) -> RatingData:
        data = read_table(
            *self._files,
            columns=self._columns,
            label_rule=self._rule,
            rating_range=self._range,
            duplicates=self._duplicates,
            user_features=self._features[0],
            item_features=self._features[1],
            name=self._name,
        )
        return later_as_test(data, self._after)
