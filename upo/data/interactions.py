"""A checked, sorted log of (user, item, rating) rows and the rule that makes labels of ratings."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from upo.errors import InputError
from upo.tables.numbering import BLOCK, Ids, shown


@dataclass(frozen=True)
class LabelRule:
    """Which ratings are positive: those of at least (`strict`: more than) the threshold.

    Ratings are compared in float64, as they were read: rounding to float32 first would move watch
    ratios just above 2 onto 2.

    >>> LabelRule(2.0, strict=True)(torch.tensor([2.0, 2.0000000001], dtype=torch.float64))
    tensor([0., 1.])
    """

    threshold: float
    strict: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise InputError(
                f"dataset.label_threshold must be a finite number, got {self.threshold}; try 3."
            )

    def __call__(self, ratings: Tensor) -> Tensor:
        """Labels 0 or 1, float32, of the shape of the ratings."""
        labels = torch.empty(ratings.shape, device=ratings.device)
        for into, part in zip(
            *(torch.split(x.reshape(-1), BLOCK) for x in (labels, ratings)), strict=True
        ):
            values = part.to(torch.float64)
            into.copy_(values > self.threshold if self.strict else values >= self.threshold)
        return labels

    def __str__(self) -> str:
        return f"rating {'>' if self.strict else '>='} {self.threshold:g}"


@dataclass(frozen=True, eq=False)
class Interactions:
    """Distinct (user, item) pairs with their ratings, sorted by user, then item.

    A row takes 12 bytes, or 16 where its rating is no float32: users and items are computed from
    the keys. Build it with `Interactions.validated`: the plain constructor checks nothing.
    """

    keys: Tensor  # [N] int64 `u * n_items + i`, ascending: what a binary search looks in
    ratings: Tensor  # [N] exactly as read: float64, or float32 where given as such
    n_users: int
    n_items: int
    user_features: Tensor | None = None  # [n_users, d_u] float32
    item_features: Tensor | None = None  # [n_items, d_i] float32
    times: Tensor | None = None  # [N] float64, later ones larger

    @classmethod
    def validated(
        cls,
        users: Tensor,  # [N] any integer type
        items: Tensor,  # [N] any integer type
        ratings: Tensor,  # [N] any number type
        n_users: int,
        n_items: int,
        *,
        user_features: Tensor | None = None,  # [n_users, d_u]
        item_features: Tensor | None = None,  # [n_items, d_i]
        source: str = "the ratings",
        rating_range: tuple[float, float] | None = None,
        ids: tuple[Ids, Ids] | None = None,
        times: Tensor | None = None,  # [N] float64
    ) -> Interactions:
        """Check the rows, sort them by key and return them.

        Args:
            users: User indices in [0, n_users).
            items: Item indices in [0, n_items).
            ratings: Finite ratings.
            n_users: Users in the world, with and without rows.
            n_items: Items in the world, with and without rows.
            user_features: Features by user index.
            item_features: Features by item index.
            source: What error sentences call these rows: a file name, say.
            rating_range: Smallest and largest rating allowed, both included.
            ids: Original user and item ids by index, for error sentences.
            times: Times of the ratings, if they are known.

        Raises:
            InputError: If any of it is wrong; the sentence names the first row at fault.
        """
        _check_columns(users, items, ratings, source)
        if ratings.dtype != torch.float32:
            ratings = ratings.to(torch.float64)
        _check_range(users, n_users, "user", source)
        _check_range(items, n_items, "item", source)
        _check_ratings(ratings, rating_range, source)
        if times is not None:
            times = sorted_rows(users, items, times, n_users, n_items)[1]
        keys, ratings = sorted_rows(users, items, ratings, n_users, n_items)
        twice = torch.nonzero(keys[1:] == keys[:-1])
        if len(twice):
            first = int(keys[int(twice[0])])
            user, item = _name(first // n_items, ids, 0), _name(first % n_items, ids, 1)
            raise InputError(
                f"{source}: the pair of user {user} and item {item} occurs more than once "
                f"({len(twice)} rows too many in all); keep one row for each pair, by hand or with "
                f"dataset.duplicates=mean where the dataset has that key."
            )
        return cls(
            keys,
            ratings,
            n_users,
            n_items,
            _check_features(user_features, n_users, "user", source),
            _check_features(item_features, n_items, "item", source),
            times,
        )

    @property
    def users(self) -> Tensor:
        """[N] int64, 0-based, ascending."""
        return torch.div(self.keys, self.n_items, rounding_mode="floor")

    @property
    def items(self) -> Tensor:
        """[N] int64, 0-based."""
        return torch.remainder(self.keys, self.n_items)

    @property
    def density(self) -> float:
        """Share of all pairs that have a row, in (0, 1]."""
        return len(self) / (self.n_users * self.n_items)

    def __len__(self) -> int:
        return len(self.keys)

    def labels(self, rule: LabelRule) -> Tensor:
        """[N] float32 labels 0 or 1 under a rule."""
        return rule(self.ratings)

    def positive_share(self, rule: LabelRule) -> float:
        """Share of the rows whose label is 1, in [0, 1]."""
        return float(self.labels(rule).mean(dtype=torch.float64))

    def where(self, keep: Tensor) -> Interactions:  # [N] bool
        """The rows that are kept, of the same users and items."""
        times = None if self.times is None else self.times[keep]
        return replace(self, keys=self.keys[keep], ratings=self.ratings[keep], times=times)


def sorted_rows(
    users: Tensor,  # [N] any integer type, in [0, n_users)
    items: Tensor,  # [N] any integer type, in [0, n_items)
    ratings: Tensor,  # [N]
    n_users: int,
    n_items: int,
) -> tuple[Tensor, Tensor]:  # [N] int64, [N]
    """Keys `u * n_items + i` in ascending order and the ratings beside them.

    Rows of one pair stay in their order. Users are sorted some at a time, so that beside the result
    only the order of some rows is held, not that of all.
    """
    keys, sorted_ratings = torch.empty(len(users), dtype=torch.int64), torch.empty_like(ratings)
    ends = torch.zeros(n_users, dtype=torch.int64)
    for block in torch.split(users, BLOCK):
        ends += torch.bincount(block, minlength=n_users)
    ends = ends.cumsum(0)
    full = torch.arange(BLOCK, len(users) + BLOCK, BLOCK)  # a part ends with the user who fills it
    last = torch.unique(torch.searchsorted(ends, full).clamp(max=n_users - 1))
    low = start = 0
    for high in (last + 1).tolist():
        stop = int(ends[high - 1])
        whole = stop - start == len(users)
        rows = slice(None) if whole else torch.nonzero((users >= low) & (users < high))[:, 0]
        part = users[rows].to(torch.int64) * n_items + items[rows]
        keys[start:stop], order = torch.sort(part, stable=True)
        sorted_ratings[start:stop] = ratings[rows][order]
        low, start = high, stop
    return keys, sorted_ratings


def _name(index: int, ids: tuple[Ids, Ids] | None, axis: int) -> str:
    return f"number {index} (counted from 0)" if ids is None else shown(ids[axis][index])


def _check_columns(users: Tensor, items: Tensor, ratings: Tensor, source: str) -> None:
    shapes = [tuple(t.shape) for t in (users, items, ratings)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise InputError(
            f"{source}: users, items and ratings must be three columns of one length, got shapes "
            f"{shapes}; give one user, one item and one rating for each row."
        )
    if not len(users):
        raise InputError(f"{source} has no rows; give at least one (user, item, rating) row.")
    for name, column in (("user", users), ("item", items)):
        if column.is_floating_point() or column.is_complex() or column.dtype == torch.bool:
            raise InputError(
                f"{source}: {name} indices must be integers, got {column.dtype}; "
                f"give whole numbers counted from 0."
            )


def _check_range(index: Tensor, size: int, name: str, source: str) -> None:
    if size < 1:
        raise InputError(f"{source}: n_{name}s must be at least 1, got {size}; give the true size.")
    if int(index.min()) < 0 or int(index.max()) >= size:
        row = int(torch.nonzero((index < 0) | (index >= size))[0])
        raise InputError(
            f"{source}: row {row + 1} has {name} index {int(index[row])}, but indices must lie in "
            f"0..{size - 1}; fix the row or give the true number of {name}s."
        )


def _check_ratings(ratings: Tensor, allowed: tuple[float, float] | None, source: str) -> None:
    low, high = (-math.inf, math.inf) if allowed is None else allowed
    smallest, largest = float(ratings.min()), float(ratings.max())  # both NaN where one is
    if not (max(low, -sys.float_info.max) <= smallest and largest <= min(high, sys.float_info.max)):
        values = ratings.to(torch.float64)  # bounds are compared unrounded
        wrong = torch.nonzero(~(torch.isfinite(values) & (values >= low) & (values <= high)))
        row = int(wrong[0])
        scale = "be finite numbers" if allowed is None else f"lie in {low:g}..{high:g}"
        raise InputError(
            f"{source}: row {row + 1} has the rating {float(ratings[row]):g}, but ratings must "
            f"{scale}; fix or remove the row ({len(wrong)} rows in all)."
        )


def _check_features(features: Tensor | None, size: int, name: str, source: str) -> Tensor | None:
    if features is None:
        return None
    if features.dim() != 2 or len(features) != size:
        raise InputError(
            f"{source}: {name} features must be a table of {size} rows, one for each {name}, got "
            f"shape {tuple(features.shape)}; give every {name} a row."
        )
    wrong = torch.nonzero(~torch.isfinite(features).all(dim=1))
    if len(wrong):
        raise InputError(
            f"{source}: the features of {name} number {int(wrong[0])} (counted from 0) are not "
            f"all finite numbers; fill in or remove what is missing."
        )
    wrong = torch.nonzero(~torch.isfinite(features.to(torch.float32)).all(dim=1))
    if len(wrong):
        raise InputError(
            f"{source}: the features of {name} number {int(wrong[0])} (counted from 0) reach "
            "beyond 3.4e38, the largest float32; give them in a larger unit."
        )
    return features.to(torch.float32)
