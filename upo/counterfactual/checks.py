"""Columns of a log and of scores, read or refused in a sentence."""

from typing import Any

import numpy as np
import pyarrow as pa

from upo.counterfactual.estimates import Values
from upo.errors import InputError
from upo.tables.frames import check_nulls, first_line, to_arrow
from upo.tables.ids import check_columns


def table_of(frame: Any, names: list[str], source: str) -> pa.Table:
    """Some columns of a frame, without gaps.

    Raises:
        InputError: If it is no frame, lacks a column or has an empty cell.
    """
    names = list(dict.fromkeys(names))
    check_columns(
        frame, names, source, "rename them, or name yours: evaluate(..., user=, item=, rating=)"
    )
    table = to_arrow(frame, names, source)
    check_nulls(table, source)
    return table


def numbers(table: pa.Table, name: str, source: str) -> Values:
    """``[N]`` finite float64 of a column.

    Raises:
        InputError: If it holds anything else.
    """
    try:
        values: Values = table[name].cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{source}: the column {name} must hold numbers ({first_line(error)}); fix it."
        ) from error
    check_all(values, np.isfinite(values), f"{source}: the column {name}", "finite numbers")
    return values


def check_all(values: Values, right: Any, name: str, allowed: str) -> None:
    """Refuse values that are not right, naming the first.

    Raises:
        InputError: If there is one.
    """
    wrong = np.flatnonzero(~right)
    if len(wrong):
        raise InputError(
            f"{name} must hold {allowed}, got {values[wrong[0]]:g} in row {wrong[0] + 1} "
            f"({len(wrong)} rows in all); fix or remove them."
        )
