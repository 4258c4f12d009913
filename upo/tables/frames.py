"""Data frames of any library as Arrow tables."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from upo.errors import InputError, visible
from upo.tables.kinds import NoIdError
from upo.tables.numbering import Ids, Numbered


def to_arrow(frame: Any, columns: list[str] | None, source: str) -> pa.Table:
    """The columns of an Arrow table, a pandas frame, or any frame with the Arrow interchange.

    Raises:
        InputError: If it is none of these, lacks a column, or mixes types in one.
    """
    try:
        if isinstance(frame, pd.DataFrame):
            have = columns and [name for name in columns if name in frame.columns]
            table = pa.Table.from_pandas(frame[have] if have else frame, preserve_index=False)
        elif isinstance(frame, pyarrow.dataset.Dataset):  # of several files
            have = columns and [name for name in columns if name in frame.schema.names]
            table = frame.to_table(columns=have or None)
        else:
            table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{source}: a column cannot be used as it mixes types ({first_line(error)}); give all "
            f"its values one type."
        ) from error
    except (TypeError, ValueError) as error:
        if isinstance(frame, pd.DataFrame):
            raise InputError(
                f"{source}: a column is of a type that cannot be used ({first_line(error)}); turn "
                f"it into text or numbers."
            ) from error
        raise InputError(
            f"{source} must be a data frame (pandas, polars, pyarrow), got "
            f"{type(frame).__name__}; build one with the columns "
            f"{', '.join(map(str, columns or ('user', 'item', 'rating')))}."
        ) from error
    absent = [name for name in columns or [] if name not in table.column_names]
    if absent:
        raise InputError(
            f"{source} has no column {' or '.join(absent)}, only {', '.join(table.column_names)}; "
            f"rename them, or name yours with dataset.user_column, dataset.item_column and "
            f"dataset.rating_column."
        )
    return _plain_text(table.select(columns) if columns else table)


def _plain_text(table: pa.Table) -> pa.Table:
    """Text as the type that Arrow computes with; polars gives string views."""
    for place, field in enumerate(table.schema):
        column = table[field.name]
        if pa.types.is_dictionary(field.type) and str(field.type.value_type) == "string_view":
            parts = [(part.indices, part.dictionary.cast(pa.string())) for part in column.chunks]
            text = pa.chunked_array([pa.DictionaryArray.from_arrays(*part) for part in parts])
        elif str(field.type) == "string_view":
            text = column.cast(pa.large_string())
        else:
            continue
        table = table.set_column(place, field.name, text)
    return table


def check_nulls(table: pa.Table, source: str, before: int = 0) -> None:
    """Refuse empty cells; ``before`` rows of the source came before those of the table.

    Raises:
        InputError: If a column has one; the message names it.
    """
    for name in table.column_names:
        empty = pa.chunked_array([empty_cells(part) for part in table[name].chunks], pa.bool_())
        row = pc.index(empty, pa.scalar(True)).as_py()
        if row >= 0:
            raise InputError(
                f"{source}: row {before + row + 1} has no {name}; fill it in or remove the row "
                f"({pc.sum(empty).as_py()} such rows in all)."
            )


def empty_cells(cells: pa.Array) -> pa.Array:
    """``[N]`` bool: null, NaN or empty text; categories are never written out."""
    if pa.types.is_dictionary(cells.type):
        empty = pc.take(empty_cells(cells.dictionary), cells.indices)
        return empty.fill_null(True)
    missing = cells.is_null(nan_is_null=True)
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        missing = pc.or_(missing, pc.equal(cells, "").fill_null(True))
    return missing


def encode(column: pa.ChunkedArray, *, parse: bool = False) -> tuple[Ids, Ids]:
    """A number by row and the distinct ids they stand for.

    Args:
        column: Ids, none missing.
        parse: Take text as int64 where every id is a plain whole number.

    Raises:
        InputError: If it holds what cannot be an id.
    """
    try:
        numbered = Numbered.of(column, parse=parse)
    except NoIdError as error:
        raise InputError(f"A column {error}; give text or whole numbers.") from error
    return numbered.numbers, numbered.values


def first_line(error: BaseException) -> str:
    """What a library says is wrong, short and without characters that a terminal would obey."""
    return visible((str(error).splitlines() or [type(error).__name__])[0].rstrip(". "), 200)
