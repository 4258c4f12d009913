"""Tables of any ids (from files or data frames) to indexed interactions, without Python dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upo.core.given import column_names
from upo.data.duplicates import resolve_duplicates, resolve_times
from upo.data.features import read_features
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.tables.columns import LogColumns, collect
from upo.tables.frames import to_arrow
from upo.tables.numbering import BLOCK, join_ids


@dataclass(frozen=True)
class Columns:
    """What the columns of the user, the item, the rating and perhaps the time are called."""

    user: str = "user"
    item: str = "item"
    rating: str = "rating"
    time: str | None = None  # of the log alone

    def __post_init__(self) -> None:
        column_names({"time": self.time}, user=self.user, item=self.item, rating=self.rating)
        names = [self.user, self.item, self.rating, *([] if self.time is None else [self.time])]
        if len(set(names)) < len(names):
            what = "the rating" if self.time is None else "the rating and the time"
            raise InputError(
                f"The user, the item and {what} are columns {', '.join(map(repr, names))}, two "
                "of which are one; name a column for each."
            )

    def of(self, source: int) -> list[str]:
        """Names of the columns of the log (0) or of the test set (1)."""
        names = [self.user, self.item, self.rating]
        return names if source or self.time is None else [*names, self.time]


def rating_data_from_frames(
    train: Any,
    test: Any = None,
    *,
    columns: Columns | None = None,
    label_rule: LabelRule | None = None,
    rating_range: tuple[float, float] | None = None,
    duplicates: str = "error",
    user_features: Any = None,
    item_features: Any = None,
    name: str = "table",
    sources: tuple[str, str] = ("train", "test"),
) -> RatingData:
    """Index frames of users, items and ratings; ids may be of any type that sorts.

    Train ids come first, in their own order, then those that only test has: the indices of train
    do not depend on test.

    Args:
        train: The log: pandas, polars, pyarrow, or anything with the Arrow interchange, or what
            ``upo.tables.columns.collect`` made of a file.
        test: A uniform sample, if there is one.
        columns: The names of the three columns; others are ignored.
        label_rule: Which ratings are positive; those of at least 3 if not given.
        rating_range: Smallest and largest rating allowed.
        duplicates: What becomes of repeated pairs: `error`, `mean`, `first` or `last`.
        user_features: A frame with the user column and columns of numbers or of categories, a row
            for every user; further users may have one, too.
        item_features: The same for items.
        name: What the dataset is called in tables and results.
        sources: What error sentences call the two frames.

    Raises:
        InputError: If anything is missing, damaged or repeated.
    """
    columns = columns or Columns()
    names = columns.of(1)
    frames = [f for f in (train, test) if f is not None]
    times = (columns.time, None)
    logs = [
        f
        if isinstance(f, LogColumns)
        else collect(to_arrow(f, columns.of(n), s).to_batches(BLOCK), names, s, time=times[n])
        for n, (f, s) in enumerate(zip(frames, sources, strict=False))
    ]
    users, user_ids = join_ids(log.users for log in logs)
    items, item_ids = join_ids(log.items for log in logs)
    features, unrated = zip(
        *(
            (None, None) if frame is None else read_features(frame, ids, key)
            for frame, ids, key in (
                (user_features, user_ids, columns.user),
                (item_features, item_ids, columns.item),
            )
        ),
        strict=True,
    )
    size = (len(user_ids), len(item_ids))
    checked = [
        Interactions.validated(
            *resolve_duplicates(u, i, log.ratings, size[1], duplicates),
            *size,
            user_features=features[0],
            item_features=features[1],
            source=s,
            rating_range=rating_range,
            ids=(user_ids, item_ids),
            times=None
            if log.times is None
            else resolve_times(u, i, log.times, size[1], duplicates),
        )
        for u, i, log, s in zip(users, items, logs, sources, strict=False)
    ]
    return RatingData(
        name=name,
        train=checked[0],
        test=checked[1] if len(checked) > 1 else None,
        label_rule=label_rule or LabelRule(3.0),
        user_ids=user_ids,
        item_ids=item_ids,
        unrated_users=unrated[0],
        unrated_items=unrated[1],
    )
