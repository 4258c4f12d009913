"""Tables that say what was observed and nothing of a rating: clicks, or rows with an indicator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from upo.data.features import read_features
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.tables.columns import collect
from upo.tables.frames import to_arrow
from upo.tables.numbering import BLOCK, join_ids


@dataclass(frozen=True, eq=False)
class ListedCells:
    """The pairs that a table lists, as D (they are ``Cells``).

    Attributes:
        keys: ``[N]`` sorted unique keys ``u * n_items + i``.
    """

    keys: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def __call__(self, positions: Tensor) -> Tensor:
        """Keys by number."""
        return self.keys.to(positions.device)[positions]

    def number(self, keys: Tensor) -> Tensor:
        """Numbers by key; N for what is not listed."""
        listed = self.keys.to(keys.device)
        place = torch.searchsorted(listed, keys).clamp_(max=len(listed) - 1)
        return torch.where(listed[place] == keys, place, len(listed))


def observations_from_frame(
    frame: Any,
    *,
    user: str,
    item: str,
    observed: str | None = None,
    user_features: Any = None,
    item_features: Any = None,
    name: str = "table",
) -> RatingData:
    """What was observed of D: all users x items, or the pairs that the table lists.

    Args:
        frame: Without an indicator, a row for each observed pair, and D is users x items; with one,
            a row for each pair of D. Repeated pairs count once, as observed if any row is.
        user: Name of the user column.
        item: Name of the item column.
        observed: Name of the indicator column of 0 and 1, if there is one.
        user_features: A frame with the user column and columns of features.
        item_features: The same for items.
        name: What it is called in results.

    Raises:
        InputError: If a column is missing or damaged, an indicator is neither 0 nor 1, or nothing
            or everything is observed.
    """
    wanted = [user, item] if observed is None else [user, item, observed]
    table = to_arrow(frame, wanted, "the log")
    if observed is None:
        ones = pa.chunked_array([pa.array(np.ones(table.num_rows, dtype=np.float32))])
        observed = "observed"
        while observed in (user, item):
            observed += "_"
        table, listed = table.append_column(observed, ones), False
    else:
        listed = True
    if not table.num_rows:
        raise InputError("The log has no rows; give one for each observed pair.")
    log = collect(table.to_batches(BLOCK), [user, item, observed], "the log")
    users, user_ids = join_ids([log.users])
    items, item_ids = join_ids([log.items])
    indicator = log.ratings
    wrong = torch.nonzero((indicator != 0) & (indicator != 1))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"the log: row {row + 1} has {observed} {float(indicator[row]):g}, but an indicator is "
            f"0 or 1 ({len(wrong)} such rows in all); recode it."
        )
    size = (len(user_ids), len(item_ids))
    keys, place = torch.unique(users[0].long() * size[1] + items[0].long(), return_inverse=True)
    seen = torch.zeros(len(keys), dtype=torch.bool)
    seen[place[indicator > 0]] = True
    cells = ListedCells(keys) if listed else None
    total = len(keys) if listed else size[0] * size[1]
    if not 0 < int(seen.sum()) < total:
        what = "every pair" if seen.any() else "no pair"
        raise InputError(
            f"the log: {what} of D is observed, so there is nothing to learn; give rows of both "
            "kinds, with observed= the name of the column of 0 and 1."
        )
    features, unrated = zip(
        *(
            (None, None) if side is None else read_features(side, ids, key)
            for side, ids, key in ((user_features, user_ids, user), (item_features, item_ids, item))
        ),
        strict=True,
    )
    keys = keys[seen]
    train = Interactions.validated(
        torch.div(keys, size[1], rounding_mode="floor"),
        keys % size[1],
        torch.ones(len(keys)),
        *size,
        user_features=features[0],
        item_features=features[1],
        source="the log",
    )
    return RatingData(
        name=name,
        train=train,
        test=None,
        label_rule=LabelRule(1.0),
        user_ids=user_ids,
        item_ids=item_ids,
        cells=cells,
        unrated_users=unrated[0],
        unrated_items=unrated[1],
        labelled=False,
    )
