r"""A share of a biased log held out, and with what propensity a held-out row was observed.

A pair is observed with propensity p, and an observed one is held out with chance h, whatever else
is known of it. Of all pairs, then,

.. math:: P(\text{train}) = (1 - h) p =: p_t, \qquad P(\text{held out}) = h p.

A model is judged on the pairs outside its training rows, whose labels it has not seen. Such a pair
is held out with

.. math:: q = P(\text{held out} \mid \text{not train}) = \frac{h p}{1 - (1 - h) p},

by the propensity p of the whole log. What is learned from the training rows is p_t, and with
:math:`p = p_t / (1 - h)` the same q is

.. math:: q = \frac{h\,p_t / (1 - h)}{1 - p_t} = \frac{h}{1 - h} \cdot \frac{p_t}{1 - p_t},

the odds of being trained on times the odds of being held out. It is below 1 as long as
:math:`p_t < 1 - h`, which holds of true ones; a learned p_t beyond gives q = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from upo.core.given import column_names, whole
from upo.core.sampling import splitmix64, stream_key, uniform
from upo.counterfactual.estimates import Values
from upo.errors import InputError
from upo.tables.frames import check_nulls, to_arrow
from upo.tables.ids import check_columns, joint_index

MOST = 50_000_000  # pairs that are listed at once


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A log in two parts; ``upo.evaluate`` takes it as its ``log``.

    Attributes:
        train: Rows to train on.
        held_out: Rows to judge by.
        share: h, the chance of an observed pair to be held out.
        user: Name of the user column.
        item: Name of the item column.
    """

    train: Any
    held_out: Any
    share: float
    user: str
    item: str

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} rows to train on, {len(self.held_out):,} held out"
        return f"<upo.HeldOut: {sizes} (share {self.share:g})>"

    def from_whole(self, p: Any) -> Values:
        """Chance q of a pair outside the training rows to be held out, by its propensity.

        Args:
            p: P(observed) of the pair in the whole log, in (0, 1].

        Example:
            >>> HeldOut(None, None, 0.5, "user", "item").from_whole([0.5])  # .25 of .75
            array([0.33333333])
        """
        p = np.asarray(p, dtype=np.float64)
        return np.asarray(self.share * p / (1 - (1 - self.share) * p))

    def from_train(self, p_train: Any) -> Values:
        """The same by the chance of being trained on, which a model of the training rows learns.

        Args:
            p_train: P(a training row) of the pair, in (0, 1).

        Example:
            >>> HeldOut(None, None, 0.5, "user", "item").from_train([0.25])  # .5 of the whole log
            array([0.33333333])
        """
        p = np.asarray(p_train, dtype=np.float64)
        most = 1 - self.share
        return np.where(p < most, self.share / most * p / (1 - p.clip(max=most)), 1.0)

    def candidates(self) -> pd.DataFrame:
        """All users x items of the log but the training rows: what scores are asked for.

        Raises:
            InputError: If these are too many to list.
        """
        tables = [
            to_arrow(part, [self.user, self.item], "log") for part in (self.train, self.held_out)
        ]
        users, n_users = joint_index([table[self.user] for table in tables])
        items, n_items = joint_index([table[self.item] for table in tables])
        if n_users * n_items > MOST:
            raise InputError(
                f"{n_users:,} users x {n_items:,} items are too many to list; give scores of the "
                "candidates of some users instead."
            )
        free = np.ones(n_users * n_items, dtype=bool)
        free[users[0] * n_items + items[0]] = False
        key = np.flatnonzero(free)
        sides = ((self.user, users, key // n_items), (self.item, items, key % n_items))
        return pd.DataFrame({name: _ids(tables, name, codes)[at] for name, codes, at in sides})


def held_out(
    log: Any, share: float = 0.2, seed: int = 0, *, user: str = "user", item: str = "item"
) -> HeldOut:
    """Hold a share of a log out, and know the propensities of what is held out.

    Each pair is held out by a hash of its ids and the seed, so its side depends neither on the
    order of the rows nor on what else is in the log.

    Args:
        log: Observed pairs: a pandas, polars or pyarrow table; all its columns are kept.
        share: Chance of a row to be held out, in (0, 1).
        seed: Another seed is another split.
        user: Name of the user column.
        item: Name of the item column.

    Returns:
        Both parts, of the kind of the log.

    Raises:
        InputError: If the log or an argument is wrong, or a part has no rows.
    """
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share < 1:
        raise InputError(f"share must lie in (0, 1), got {share!r}; try 0.2.")
    seed = whole("seed", seed, 0, 0)
    column_names(user=user, item=item)
    check_columns(
        log, [user, item], "log", "rename them, or name yours: held_out(..., user=, item=)"
    )
    table = to_arrow(log, [user, item], "log")
    check_nulls(table, "log")
    key = stream_key(torch.tensor([seed]), "held out")
    for name in (user, item):
        (codes,), _ = joint_index([table[name]])
        text = pd.Series(_ids([table], name, [codes]), dtype=object).map(str).to_numpy(object)
        hashes = torch.from_numpy(pd.util.hash_array(text, categorize=False).view(np.int64))
        key = splitmix64(key ^ hashes[torch.from_numpy(codes)])
    out = (uniform(key) < share).numpy()
    if out.all() or not out.any():
        raise InputError(
            f"share={share:g} of {len(out)} rows leaves {int((~out).sum())} to train on and "
            f"{int(out.sum())} held out; give more rows or another share."
        )
    return HeldOut(_rows(log, ~out), _rows(log, out), float(share), user, item)


def _ids(tables: list[pa.Table], name: str, codes: list[Any]) -> Any:
    """An id of each number of ``joint_index``."""
    values = np.concatenate([table[name].to_numpy() for table in tables])
    number = np.concatenate(codes)
    found = np.empty(int(number.max()) + 1, dtype=values.dtype)
    found[number] = values
    return found


def _rows(log: Any, mask: Any) -> Any:
    if isinstance(log, pd.DataFrame):
        return log[mask]
    return log.filter(pa.array(mask) if isinstance(log, pa.Table) else mask)
