"""Propensities of the rows that are evaluated: given, asked of a fitted model, or cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from upo.counterfactual.checks import check_all, numbers
from upo.counterfactual.estimates import Values
from upo.counterfactual.split import HeldOut
from upo.errors import InputError


@dataclass(frozen=True, eq=False)
class Given:
    """Propensities of the evaluated rows.

    Attributes:
        values: ``[n]`` chance of each row to be among the evaluated ones, in (0, 1].
        learned: Whether they were learned from the log, so not known.
    """

    values: Values
    learned: bool = False


def propensities(given: Any, table: pa.Table, train: pa.Table, split: HeldOut | None) -> Given:
    """The propensities of every evaluated row.

    Args:
        given: The name of a column, an array, a fitted model, or an unfitted ``upo.Propensity``.
        table: The evaluated rows: first the user, then the item, then other columns.
        train: The training rows of a split, of the same user and item; none without one.
        split: The split, if there is one.

    Raises:
        InputError: If it is none of these, does not fit the log, or is no propensity.
    """
    ids = table.column_names[:2]
    if hasattr(given, "cross_fit") and not given.fitted:
        whole = pa.concat_tables([train, table.select(ids)], promote_options="permissive")
        named = whole.rename_columns([given.user, given.item])
        return _of_whole(given.cross_fit(named), len(train), split)
    ask = getattr(given, "propensity", None)
    if not isinstance(given, str) and callable(ask):  # of a frame, it may be a column
        return _of_model(given, table, train, split)
    if isinstance(given, str):
        name, p = f"log: the column {given}", numbers(table, given, "log")
    else:
        name, p = "propensity", _array(given, len(table))
    _check(p, name)
    return Given(p if split is None else split.from_whole(p))


def _of_model(given: Any, table: pa.Table, train: pa.Table, split: HeldOut | None) -> Given:
    def asked(rows: pa.Table) -> Any:
        names = list(getattr(given, "columns", ids))
        return given.propensity(rows.rename_columns(names).to_pandas())

    ids = table.column_names[:2]
    rows = table.select(ids)
    if split is None:
        return _of_whole(asked(rows), 0, None)
    whole = pa.concat_tables([train, rows], promote_options="permissive")
    size = getattr(given, "n_observed", len(train))
    if size == len(whole):
        return _of_whole(asked(whole), len(train), split)
    if size != len(train):
        raise InputError(
            f"propensity was fitted to {size:,} pairs, and the split has {len(train):,} to train "
            f"on of {len(whole):,}; fit it to the train part, or give an unfitted upo.Propensity, "
            "which is cross-fitted."
        )
    p = np.asarray(asked(whole), dtype=np.float64)
    _check(p, "propensity")
    return Given(split.from_train(p[len(train) :]), learned=True)


def _of_whole(found: Any, before: int, split: HeldOut | None) -> Given:
    """Of propensities of all rows, learned from all of them."""
    p = np.asarray(found, dtype=np.float64)
    _check(p, "propensity")
    mine = p[before:]
    return Given(mine if split is None else split.from_whole(mine), learned=True)


def _array(given: Any, size: int) -> Values:
    try:
        p = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            "propensity must be the name of a column, an array of numbers, a fitted model, or a "
            f"upo.Propensity, got {type(given).__name__}; give one for each row of log."
        ) from error
    if p.shape != (size,):
        raise InputError(
            f"propensity must have one value for each of the {size} rows of log, got shape "
            f"{p.shape}; leave out or add the others."
        )
    return p


def _check(p: Values, name: str) -> None:
    check_all(p, (p > 0) & (p <= 1), name, "probabilities in (0, 1]")
