"""Further columns of the audited table: groups with few values, and features of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from upo.errors import InputError, visible
from upo.tables.frames import encode

MAX_GROUPS = 50  # distinct texts that still are groups; more are ids, names or comments


@dataclass(frozen=True, eq=False)
class Column:
    """One column of the table, by row.

    Attributes:
        name: As in the table.
        owner: ``users`` or ``items`` if each of them has one value throughout, else ``pairs``.
        values: ``[N]`` numbers; of a group, the code of its label.
        labels: Texts by code, or None for numbers.
    """

    name: str
    owner: str
    values: NDArray[np.float64]
    labels: list[str] | None = None


def chosen_columns(
    table: pa.Table,
    taken: list[str],
    features: Sequence[str] | None,
    source: str,
    notes: list[str],
) -> list[str]:
    """The usable columns, in their order; without a choice, what cannot be used is noted.

    Raises:
        InputError: If a chosen column is missing, has another part, or cannot be used.
    """
    if features is None:
        names = [name for name in table.column_names if name not in taken]
    else:
        names = list(dict.fromkeys(features))
    good = []
    for name in names:
        if name not in table.column_names:
            known = ", ".join(n for n in table.column_names if n not in taken) or "none"
            raise InputError(
                f"{source} has no column {name}, which features= asks for; further columns are "
                f"{known}."
            )
        if name in taken:
            raise InputError(
                f"features= names {name}, which has another part in the audit; leave it out."
            )
        reason = _unusable(table, name)
        if reason is None:
            good.append(name)
        elif features is None:
            notes.append(f"The column {visible(name, 60)} was left out: it {reason}.")
        else:
            raise InputError(
                f"{source}: the column {name} {reason}; fix it or leave it out of features=."
            )
    return good


def column_values(
    column: pa.ChunkedArray, name: str, users: NDArray[np.int64], items: NDArray[np.int64]
) -> Column:
    """Numbers as they are, texts as codes, and whose they are."""
    labels = None
    if _is_number(column.type):
        values = np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    else:
        codes, found = encode(column)
        order = np.argsort(found.astype(str))
        values = np.argsort(order)[codes].astype(np.float64)
        labels = [visible(str(found[k]), 60) for k in order]
    owner = "pairs"
    for index, kind in ((users, "users"), (items, "items")):
        one = np.empty(index.max() + 1)
        one[index] = values
        if (one[index] == values).all():
            owner = kind
            break
    return Column(visible(name, 60), owner, values, labels)


def _unusable(table: pa.Table, name: str) -> str | None:
    """Why a column cannot be used, or None."""
    if table.column_names.count(name) > 1:
        return "occurs twice"
    column = table[name]
    if not (_is_number(column.type) or _is_text(column.type)):
        return f"holds neither numbers nor text ({column.type})"
    if pc.any(column.is_null(nan_is_null=True)).as_py():
        return "has empty cells"
    if _is_number(column.type):
        values = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        if not np.isfinite(values).all():
            return "has infinite values"
        return "has the same value in every row" if values.min() == values.max() else None
    distinct = pc.count_distinct(column).as_py() if not _is_dictionary(column.type) else None
    distinct = len(encode(column)[1]) if distinct is None else distinct
    if distinct > MAX_GROUPS:
        return f"holds {distinct} different texts, more than the {MAX_GROUPS} of groups"
    return "has the same value in every row" if distinct < 2 else None


def _is_dictionary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if _is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
