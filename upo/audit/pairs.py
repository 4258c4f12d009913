"""The pairs under audit: checked, with ids as indices and the null distribution of each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from upo.audit.columns import Column, chosen_columns, column_values
from upo.core.given import column_names
from upo.errors import InputError
from upo.functional.propensity import P_MAX
from upo.tables.frames import check_nulls, encode, to_arrow
from upo.tables.ids import check_columns
from upo.tables.numbering import Ids, shown

_REMEDY = "rename them, or name yours with user=, item=, observed=, propensity= and weight="
P_LOW = 1e-30  # below, rows are as good as never observed, and squares of 1 / p no numbers
SETTLED = 1e-3  # chance that any of the rows whose o is taken for certain is otherwise
SETTLED_ROW = 1e-5  # and that one is
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Names:
    """What the columns are called; a weight of None means the column ``weight``, if there is one.

    Attributes:
        user: Ids of any type that sorts.
        item: Likewise.
        observed: 0 or 1.
        propensity: In (0, 1].
        weight: How many pairs of D a row stands for.
    """

    user: str = "user"
    item: str = "item"
    observed: str = "observed"
    propensity: str = "propensity"
    weight: str | None = None

    def __post_init__(self) -> None:
        column_names(
            {"weight": self.weight},
            user=self.user,
            item=self.item,
            observed=self.observed,
            propensity=self.propensity,
        )


@dataclass(frozen=True, eq=False)
class AuditPairs:
    r"""Rows ``[N]`` of D, sorted by user, then item, with what a correct propensity says of each.

    If p is the true propensity of every pair, and a pair is kept in the table with probability
    :math:`1/w_1` when observed and :math:`1/w_0` when not, then the rows' o are independent with

    .. math:: q = P(o = 1 \mid row) = \frac{p / w_1}{p / w_1 + (1 - p) / w_0}, \qquad
        w (o - p) = a (o - q), \quad a = w_1 (1 - p) + w_0 p,

    so every weighted sum of residuals over D has a known null distribution. Without weights q = p
    and a = 1.

    Attributes:
        users: Indices into ``user_ids``.
        items: Indices into ``item_ids``.
        observed: 0 or 1.
        p: Propensities in [1e-30, 1 - 1e-6]; what lies outside is moved there.
        weight: Pairs of D that each row stands for, > 0.
        q: Null probability of o = 1 in the row.
        scale: The factor a, in pairs of D.
        columns: Features and groups.
        notes: What was left out, in sentences.
        order: Row of the table that each is.
        names: Of the columns.
    """

    users: Integers
    items: Integers
    user_ids: Ids
    item_ids: Ids
    observed: Floats
    p: Floats
    weight: Floats
    q: Floats
    scale: Floats
    columns: list[Column]
    notes: list[str]
    order: Integers
    names: Names

    def __len__(self) -> int:
        return len(self.p)

    @cached_property
    def total(self) -> float:
        """Pairs of D that the rows stand for."""
        return float(self.weight.sum())

    @cached_property
    def variance(self) -> Floats:
        """Null variance of each row's o."""
        return self.q * (1 - self.q)

    @cached_property
    def settled(self) -> NDArray[np.bool_]:
        """Rows whose o the propensities leave no doubt of: any is otherwise in one table of 1,000.

        None are where one is otherwise: then every row counts.
        """
        doubt = np.minimum(self.q, 1 - self.q)
        order = np.argsort(doubt, kind="stable")
        sums = np.where(doubt[order] <= SETTLED_ROW, np.cumsum(doubt[order]), np.inf)
        mine = order[: np.searchsorted(sums, SETTLED, side="right")]
        found = np.zeros(len(self), dtype=bool)
        found[mine] = not (self.observed[mine] != (self.q[mine] > 0.5)).any()
        return found

    @property
    def weighted(self) -> bool:
        """Whether rows stand for different numbers of pairs."""
        return bool((self.weight != self.weight[0]).any())


def read_pairs(frame: Any, names: Names, features: Sequence[str] | None, source: str) -> AuditPairs:
    """Check a frame and index it.

    Args:
        frame: pandas, polars, pyarrow, or anything with the Arrow interchange.
        names: Of the columns.
        features: The further columns to use; None for all that can be used.
        source: What error sentences call the frame.

    Raises:
        InputError: If a column is missing or holds what it should not, a pair occurs twice, or one
            class of o is missing.
    """
    needed = [names.user, names.item, names.observed, names.propensity]
    if names.weight is not None:
        needed.append(names.weight)
    check_columns(frame, needed, source, _REMEDY)
    table = to_arrow(frame, None, source)
    _check_names(table, needed, source)
    if not table.num_rows:
        raise InputError(f"{source} has no rows; give one for each pair to audit.")
    weight_name = names.weight or ("weight" if "weight" in table.column_names else None)
    used = needed if weight_name in (None, names.weight) else [*needed, str(weight_name)]
    check_nulls(table.select(used), source)
    (users, user_ids), (items, item_ids) = (_indexed(table[n]) for n in (names.user, names.item))
    order = _checked_order(users, items, user_ids, item_ids, source)
    o = _numbers(table, names.observed, source)
    _check(o, (o == 0) | (o == 1), names.observed, "must be 0 or 1", "recode it", source)
    p = _numbers(table, names.propensity, source)
    within = (p > 0) & (p <= 1)
    _check(p, within, names.propensity, "must lie in (0, 1]", "give probabilities", source)
    weight = np.ones(len(p)) if weight_name is None else _numbers(table, weight_name, source)
    positive = (weight > 0) & np.isfinite(weight)
    _check(
        weight,
        positive,
        str(weight_name),
        "must be finite and above 0",
        "drop rows of weight 0",
        source,
    )
    if o.min() == o.max():
        raise InputError(
            f"{source}: every row has {names.observed} = {o[0]:.0f}, but an audit compares "
            f"observed with unobserved pairs; add a sample of the others, and a column weight that "
            f"says how many pairs each row stands for."
        )
    users, items = users[order], items[order]
    o, p, weight = o[order], p[order].clip(P_LOW, P_MAX), weight[order]
    w1, w0 = _weights_by_class(users, o, weight)
    notes: list[str] = []
    columns = [
        column_values(table[name].take(pa.array(order)), name, users, items)
        for name in chosen_columns(table, used, features, source, notes)
    ]
    scale = w1 * (1 - p) + w0 * p
    pairs = AuditPairs(
        users=users,
        items=items,
        user_ids=user_ids,
        item_ids=item_ids,
        observed=o,
        p=p,
        weight=weight,
        q=p * w0 / scale,
        scale=scale,
        columns=columns,
        notes=notes,
        order=order,
        names=names,
    )
    settled = int(pairs.settled.sum())
    if settled:
        notes.append(
            f"The balance of the features leaves out {settled:,} row{'s' * (settled > 1)} of "
            "propensities so small, or so near 1, that whether they were observed is settled."
        )
    return pairs


def _indexed(column: pa.ChunkedArray) -> tuple[Integers, Ids]:
    """Indices into sorted ids."""
    numbers, values = encode(column)
    order = np.argsort(values, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[numbers], values[order]


def _weights_by_class(users: Integers, o: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """The weight that each row has, or would have, if observed and if not.

    A row's other weight is the mean of its user's rows of the other class, or of all of them.
    """
    both = []
    for kind in (1.0, 0.0):
        mine = o == kind
        rows = np.bincount(users[mine], minlength=users.max() + 1)
        sums = np.bincount(users[mine], weight[mine], minlength=users.max() + 1)
        mean = np.where(rows > 0, sums / np.maximum(rows, 1), weight[mine].mean())
        both.append(np.where(mine, weight, mean[users]))
    return both[0], both[1]


def _check_names(table: pa.Table, needed: list[str], source: str) -> None:
    twice = sorted({n for n in needed if needed.count(n) > 1 or table.column_names.count(n) > 1})
    if twice:
        raise InputError(f"{source}: the column {twice[0]} is named twice; give each its own.")


def _checked_order(
    users: Integers, items: Integers, user_ids: Ids, item_ids: Ids, source: str
) -> Integers:
    """The rows by user, then item; refuses repeated pairs."""
    keys = users * len(item_ids) + items
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        user, item = divmod(int(keys[twice[0]]), len(item_ids))
        raise InputError(
            f"{source}: the pair of user {shown(user_ids[user])} and item {shown(item_ids[item])} "
            f"occurs more than once ({len(twice)} rows too many in all); keep one row for each "
            f"pair."
        )
    return order


def _numbers(table: pa.Table, name: str, source: str) -> Floats:
    try:
        column = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        raise InputError(
            f"{source}: the column {name} must hold numbers ({reason}); fix it."
        ) from error
    return np.array(column.to_numpy(), dtype=np.float64)  # writable, as torch wants it


def _check(
    values: Floats, fine: NDArray[np.bool_], name: str, rule: str, fix: str, source: str
) -> None:
    if not fine.all():
        row = int(np.argmin(fine))
        raise InputError(
            f"{source}: {name} {rule}, but row {row + 1} has {values[row]:g} "
            f"({(~fine).sum()} such rows in all); {fix}."
        )
