"""The log and the candidates of an evaluation, as arrays that know where each other's rows are."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa

from upo.counterfactual.checks import numbers, table_of
from upo.counterfactual.estimates import Values
from upo.counterfactual.learned import Balance
from upo.counterfactual.propensities import propensities
from upo.counterfactual.split import HeldOut
from upo.data.interactions import LabelRule
from upo.errors import InputError
from upo.tables.aligned import aligned
from upo.tables.ids import joint_index

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
        balance: What made them agree with D, where they were learned.
        given: ``[n]`` propensities before that; the same where None.
        learned: Whether they were learned.
    """

    place: Index
    targets: Values
    propensities: Values
    balance: Balance | None = None
    given: Values | None = None
    learned: bool = False

    @property
    def unbalanced(self) -> Values:
        """Propensities before they were made to agree with D."""
        return self.propensities if self.given is None else self.given


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
        log: The frame of observed pairs, or a log in two parts.
        scores: The frame of candidates, or a column of the log.
        propensity: A column of the log, an array, a fitted model, or an unfitted
            ``upo.Propensity``.
        imputed: A column of the candidates.
        label_threshold: Makes labels of ratings; None for none.
        columns: Names of the user, the item, the rating and the score.

    Raises:
        InputError: If either is wrong, a pair is repeated, or no pair of the log is a candidate.
    """
    user, item, rating, score = columns
    split = log if isinstance(log, HeldOut) else None
    if split is not None:
        user, item = split.user, split.item
    if user == item:
        raise InputError(f"user and item are both the column {user!r}; name one for each.")
    alone = isinstance(scores, str)
    extra = [name for name in (propensity, scores) if isinstance(name, str)]
    if alone and imputed is not None:
        extra.append(imputed)
    rows = log if split is None else split.held_out
    propensity = aligned(propensity, rows, "propensity", "log")
    table = table_of(rows, [user, item, rating, *extra], "log")
    if not len(table):
        raise InputError("log has no rows; give at least one observed pair.")
    train = table.select([user, item])[:0]
    if split is not None:
        train = table_of(split.train, [user, item], "log")
    ratings = numbers(table, rating, "log")
    targets = ratings
    if label_threshold is not None:
        rule = LabelRule(_number(label_threshold, "label_threshold"))
        targets = (ratings >= rule.threshold).astype(np.float64)
    if alone:
        given, score = table, str(scores)
    else:
        wanted = [user, item, score, *([] if imputed is None else [imputed])]
        given = table_of(scores, wanted, "scores")
        if not len(given):
            raise InputError("scores has no rows; give the score of every candidate.")
    tables = [given, table, train]
    users, _ = joint_index([t[user] for t in tables])
    items, n_items = joint_index([t[item] for t in tables])
    keys = [u * n_items + i for u, i in zip(users, items, strict=True)]
    if not alone:
        _check_repeated(given, keys[0], (user, item), "scores")
    _check_repeated(table, keys[1], (user, item), "log")
    if len(train):
        _check_repeated(train, keys[2], (user, item), "log")
        free = ~np.isin(keys[0], keys[2])
        given, keys[0] = given.filter(pa.array(free)), keys[0][free]
        users[0], items[0] = users[0][free], items[0][free]
        if not len(given):
            raise InputError(
                "all pairs of scores are training rows; give the scores of others, such as "
                "those of split.candidates()."
            )
    found = propensities(propensity, table, train, split)
    place, inside = _find(keys[1], keys[0])
    if not inside.any():
        raise InputError(
            "no pair of log is among those of scores, so nothing observed can be compared; give "
            "both the same ids."
        )
    candidates = Candidates(
        users=users[0],
        scores=numbers(given, score, "log" if alone else "scores"),
        imputed=None if imputed is None else numbers(given, imputed, "scores"),
        complete=not alone,
    )
    values = found.values[inside]
    q, balance = values, None
    if found.learned and not alone:
        balance = Balance(q, (users[1][inside], items[1][inside]), (users[0], items[0]))
        q = balance.q
    return Log(place[inside], targets[inside], q, balance, values, found.learned), candidates


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a number, got {value!r}; try 3.")
    return float(value)


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
