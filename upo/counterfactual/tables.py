"""The log and the candidates of an evaluation, as arrays that know where each other's rows are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from upo.counterfactual.estimates import Values
from upo.data.interactions import LabelRule
from upo.errors import InputError
from upo.tables.frames import check_nulls, first_line, to_arrow
from upo.tables.ids import as_frame, check_columns, joint_index

Index = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The pairs of D, or where only the log was scored, those of the log.

    Attributes:
        users: ``[N]`` user by number.
        scores: ``[N]`` finite.
        imputed: ``[N]``, if there are any.
        complete: Whether these are all of D.
    """

    users: Index
    scores: Values
    imputed: Values | None
    complete: bool


@dataclass(frozen=True, eq=False)
class Log:
    """The observed pairs of D.

    Attributes:
        place: ``[n]`` row of the candidates.
        targets: ``[n]`` labels 0 or 1, or ratings where there is no threshold.
        propensities: ``[n]`` in (0, 1].
    """

    place: Index
    targets: Values
    propensities: Values


def read_tables(
    log: Any,
    scores: Any,
    propensity: Any,
    imputed: str | None,
    label_threshold: float | None,
    columns: tuple[str, str, str, str],
) -> tuple[Log, Candidates]:
    """Check both tables and find the log's pairs among the candidates.

    Args:
        log: The frame of observed pairs.
        scores: The frame of candidates, or a column of the log.
        propensity: A column of the log, an array, or a fitted model.
        imputed: A column of the candidates.
        label_threshold: Makes labels of ratings; None for none.
        columns: Names of the user, the item, the rating and the score.

    Raises:
        InputError: If either is wrong, a pair is repeated, or no pair of the log is a candidate.
    """
    user, item, rating, score = columns
    if user == item:
        raise InputError(f"user and item are both the column {user!r}; name one for each.")
    alone = isinstance(scores, str)
    extra = [name for name in (propensity, scores) if isinstance(name, str)]
    if alone and imputed is not None:
        extra.append(imputed)
    table = _table(log, [user, item, rating, *extra], "log")
    if not len(table):
        raise InputError("log has no rows; give at least one observed pair.")
    ratings = _numbers(table, rating, "log")
    p = _propensities(log, table, propensity)
    targets = ratings
    if label_threshold is not None:
        rule = LabelRule(_number(label_threshold, "label_threshold"))
        targets = (ratings >= rule.threshold).astype(np.float64)
    if alone:
        given, score = table, str(scores)
    else:
        wanted = [user, item, score, *([] if imputed is None else [imputed])]
        given = _table(scores, wanted, "scores")
        if not len(given):
            raise InputError("scores has no rows; give the score of every candidate.")
    tables = [table] if alone else [given, table]
    users, _ = joint_index([t[user] for t in tables])
    items, n_items = joint_index([t[item] for t in tables])
    keys = [u * n_items + i for u, i in zip(users, items, strict=True)]
    for rows, key, source in zip(tables, keys, ["scores", "log"][-len(tables) :], strict=True):
        _check_repeated(rows, key, (user, item), source)
    place, inside = _find(keys[-1], keys[0])
    if not inside.any():
        raise InputError(
            "no pair of log is among those of scores, so nothing observed can be compared; give "
            "both the same ids."
        )
    candidates = Candidates(
        users=users[0],
        scores=_numbers(given, score, "log" if alone else "scores"),
        imputed=None if imputed is None else _numbers(given, imputed, "scores"),
        complete=not alone,
    )
    return Log(place[inside], targets[inside], p[inside]), candidates


def _table(frame: Any, names: list[str], source: str) -> pa.Table:
    names = list(dict.fromkeys(names))
    check_columns(
        frame, names, source, "rename them, or name yours: evaluate(..., user=, item=, rating=)"
    )
    table = to_arrow(frame, names, source)
    check_nulls(table, source)
    return table


def _numbers(table: pa.Table, name: str, source: str) -> Values:
    try:
        values: Values = table[name].cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{source}: the column {name} must hold numbers ({first_line(error)}); fix it."
        ) from error
    _check_all(values, np.isfinite(values), f"{source}: the column {name}", "finite numbers")
    return values


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number, got {value!r}; try 3.")
    return float(value)


def _propensities(log: Any, table: pa.Table, given: Any) -> Values:
    if isinstance(given, str):
        name, p = f"log: the column {given}", _numbers(table, given, "log")
    else:
        name = "propensity"
        ask = getattr(given, "propensity", None)  # of a frame, it may be a column
        answer = ask(as_frame(log)) if callable(ask) else given
        try:
            p = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                "propensity must be the name of a column, an array of numbers, or a fitted model, "
                f"got {type(given).__name__}; give one for each row of log."
            ) from error
        if p.shape != (len(table),):
            raise InputError(
                f"propensity must have one value for each of the {len(table)} rows of log, got "
                f"shape {p.shape}; leave out or add the others."
            )
    _check_all(p, (p > 0) & (p <= 1), name, "probabilities in (0, 1]")
    return p


def _check_all(values: Values, right: Any, name: str, allowed: str) -> None:
    wrong = np.flatnonzero(~right)
    if len(wrong):
        raise InputError(
            f"{name} must hold {allowed}, got {values[wrong[0]]:g} in row {wrong[0] + 1} "
            f"({len(wrong)} rows in all); fix or remove them."
        )


def _check_repeated(table: pa.Table, keys: Index, names: tuple[str, str], source: str) -> None:
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        row = int(order[twice[0] + 1])
        pair = [table[name][row].as_py() for name in names]
        raise InputError(
            f"{source}: the pair of {names[0]} {pair[0]!r} and {names[1]} {pair[1]!r} occurs more "
            f"than once ({len(twice)} rows too many in all); keep one row for each pair."
        )


def _find(wanted: Index, keys: Index) -> tuple[Index, Any]:
    """Row of each wanted key among the keys, and whether it is there."""
    order = np.argsort(keys, kind="stable")
    spot = np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)
    place = order[spot]
    return place, keys[place] == wanted
