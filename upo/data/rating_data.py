"""What every dataset becomes: a biased log, an unbiased sample, and the truth if simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from upo.data.interactions import Interactions, LabelRule
from upo.errors import InputError
from upo.tables.numbering import BLOCK, Ids

Row = tuple[str, str, str]


class Truth(Protocol):
    """The ground truth of a simulated world for any pairs; the whole is never materialised."""

    def propensity(self, users: Tensor, items: Tensor) -> Tensor:
        """P(o = 1), float64 in (0, 1), of the shape of users."""

    def label(self, users: Tensor, items: Tensor) -> Tensor:
        """The true binary label 0 or 1, float32, of the shape of users."""

    def preference(self, users: Tensor, items: Tensor) -> Tensor:
        """P(r = 1), float64 in [0, 1], of the shape of users."""


class Cells(Protocol):
    """The part of users x items that stands for D where a dataset holds cells out of it."""

    def __len__(self) -> int:
        """|D|, a multiple of the number of items."""

    def __call__(self, positions: Tensor) -> Tensor:
        """Keys ``u * n_items + i`` of the cells of D by number, of the shape of positions."""

    def number(self, keys: Tensor) -> Tensor:
        """Numbers of cells by key, of the shape of keys; those of other pairs are larger."""


@dataclass(frozen=True, eq=False)
class Unrated:
    """Known ids without a rating: no rows of D, but models that read features answer for them."""

    ids: Ids  # [m]
    features: Tensor  # [m, d] float32, columns as those of D's users or items


@dataclass(frozen=True, eq=False)
class RatingData:
    """A dataset, checked as a whole.

    Raises:
        InputError: If train and test differ in size, a class is missing from the labels, or the
            propensities are not an [n_users, n_items] table in (0, 1].
    """

    name: str
    train: Interactions  # the log, missing not at random
    test: Interactions | None  # a sample of uniformly drawn pairs, of the same users and items
    label_rule: LabelRule
    truth: Truth | None = None
    propensities: Tensor | None = None  # [n_users, n_items], shipped by the dataset's authors
    user_ids: Ids | None = None  # [n_users] original ids by index
    item_ids: Ids | None = None  # [n_items]
    cells: Cells | None = None  # D; all of users x items if not given. Test pairs lie outside
    unrated_users: Unrated | None = None
    unrated_items: Unrated | None = None
    labelled: bool = True  # false where rows say what was observed and nothing else

    def __post_init__(self) -> None:
        if self.labelled:
            _check_classes(self.train, self.label_rule, f"{self.name}, train")
        size = (self.train.n_users, self.train.n_items)
        if self.test is not None:
            other = (self.test.n_users, self.test.n_items)
            if size != other:
                raise InputError(
                    f"{self.name}: train has {size[0]} users x {size[1]} items but test has "
                    f"{other[0]} x {other[1]}; index both over the same users and items."
                )
            _check_classes(self.test, self.label_rule, f"{self.name}, test")
        if self.propensities is not None:
            _check_propensities(self.propensities, size, self.name)

    @property
    def known_user_ids(self) -> Ids | None:
        """Ids of users by index, those of D first, then unrated ones."""
        return _known(self.user_ids, self.unrated_users)

    @property
    def known_item_ids(self) -> Ids | None:
        """Ids of items by index, those of D first, then unrated ones."""
        return _known(self.item_ids, self.unrated_items)

    @property
    def features(self) -> tuple[Tensor | None, Tensor | None]:
        """Columns of users and of items, those of D first, then of unrated ones."""
        users = _joined(self.train.user_features, self.unrated_users)
        return users, _joined(self.train.item_features, self.unrated_items)


def _known(ids: Ids | None, more: Unrated | None) -> Ids | None:
    return ids if ids is None or more is None else np.concatenate([ids, more.ids])


def _joined(table: Tensor | None, more: Unrated | None) -> Tensor | None:
    return table if table is None or more is None else torch.cat([table, more.features])


def _check_classes(rows: Interactions, rule: LabelRule, where: str) -> None:
    positive = rows.positive_share(rule)
    if positive in (0.0, 1.0):
        missing = "negative" if positive else "positive"
        low, high = float(rows.ratings.min()), float(rows.ratings.max())
        if low == high and len(rows) > 1:
            raise InputError(
                f"{where}: every rating is {low:g}, so no label differs from another, and "
                "predictions need ratings of both kinds; add them. For a log of clicks, "
                "upo.Propensity learns propensities without ratings, and upo.fit(..., "
                "target='observed') predicts what is observed."
            )
        raise InputError(
            f"{where}: no {missing} label is left under the label rule '{rule}' (its {len(rows)} "
            f"ratings lie in {low:g}..{high:g}); choose another dataset.label_threshold."
        )


def _check_propensities(propensities: Tensor, size: tuple[int, int], name: str) -> None:
    if tuple(propensities.shape) != size:
        raise InputError(
            f"{name}: the propensities must be a table of {size[0]} users x {size[1]} items, got "
            f"shape {tuple(propensities.shape)}; fix the file or leave it out."
        )
    wrong = torch.nonzero(~((propensities > 0) & (propensities <= 1)))
    if len(wrong):
        user, item = wrong[0].tolist()
        raise InputError(
            f"{name}: the propensity of user {user} and item {item} (counted from 0) is "
            f"{float(propensities[user, item]):g}, but must lie in (0, 1]; fix the file or leave "
            f"it out."
        )


def overlap(data: RatingData) -> Tensor:
    """[N_test] bool: whether the test pair is in train too; empty without a test set."""
    if data.test is None:
        return torch.zeros(0, dtype=torch.bool)
    return torch.isin(data.test.keys, data.train.keys, assume_unique=True)


def drop_overlap(data: RatingData) -> RatingData:
    """The same data without the test pairs that are in train.

    Raises:
        InputError: If nothing, or a single class, is left to test on.
    """
    if data.test is None:
        return data
    keep = ~overlap(data)
    if not keep.any():
        raise InputError(
            f"{data.name}: every test pair is in train too, so dataset.drop_overlap=true leaves "
            f"nothing to test on; set it to false or give other test rows."
        )
    return replace(data, test=data.test.where(keep))


def report(data: RatingData) -> str:
    """A table of what was read, for the start of a run; `-` stands where there is no test set."""
    train, test, rule = data.train, data.test, data.label_rule
    sets = [train] if test is None else [train, test]
    rows = [
        ("", "train", "test"),
        _row("rows", sets, lambda s: f"{len(s):,}"),
        _row("density", sets, lambda s: f"{s.density:.4%}"),
        _row("users with rows", sets, lambda s: f"{int(_present(s)[0].sum()):,}"),
        _row("items with rows", sets, lambda s: f"{int(_present(s)[1].sum()):,}"),
        _row("ratings", sets, lambda s: f"{s.ratings.min():g}..{s.ratings.max():g}"),
        _row("mean rating", sets, lambda s: f"{s.ratings.mean(dtype=torch.float64):.4f}"),
        _row(f"positive ({rule})", sets, lambda s: f"{s.positive_share(rule):.2%}"),
    ]
    width = max(len(row[0]) for row in rows)
    column = max(len(cell) for row in rows for cell in row[1:])
    lines = [f"{data.name}: {train.n_users:,} users x {train.n_items:,} items"]
    lines += [f"  {r[0]:<{width}}  {r[1]:>{column}}  {r[2]:>{column}}".rstrip() for r in rows]
    if data.cells is not None:
        share = len(data.cells) / (train.n_users * train.n_items)
        seen = len(train) / len(data.cells)
        lines.append(f"  cells to train on: {len(data.cells):,} ({share:.1%}), {seen:.2%} observed")
    if test is not None:
        lines += _comparison(data, train, test)
    return "\n".join(lines)


def unseen_share(data: RatingData) -> float:
    """Share of the test rows whose user or item has no training row; 0 without a test set."""
    if data.test is None:
        return 0.0
    users, items = _present(data.train)
    unseen = 0
    for keys in torch.split(data.test.keys, BLOCK):
        user = torch.div(keys, data.test.n_items, rounding_mode="floor")
        unseen += int((~users[user] | ~items[keys % data.test.n_items]).sum())
    return unseen / len(data.test)


def _row(name: str, sets: list[Interactions], cell: Callable[[Interactions], str]) -> Row:
    cells = [cell(rows) for rows in sets]
    return (name, cells[0], cells[1] if len(cells) > 1 else "-")


def _comparison(data: RatingData, train: Interactions, test: Interactions) -> list[str]:
    """What test has in common with train, and what it has alone."""
    both = overlap(data)
    shared = int(both.sum())
    line = f"  pairs in train and test: {shared:,}"
    if shared:
        in_train = train.ratings[torch.searchsorted(train.keys, test.keys[both])]
        same = int((in_train == test.ratings[both]).sum())
        agree = "with the same ratings" if same == shared else f"{same:,} with the same rating"
        line += f" ({shared / len(test):.1%} of test), {agree}"
    lines = [line]
    cold = [~warm for warm in _present(train)]
    alone = [a & b for a, b in zip(_present(test), cold, strict=True)]
    for name, (users, items) in (("only in test", alone), ("without train rows", cold)):
        lines.append(f"  {name}: {int(users.sum()):,} users, {int(items.sum()):,} items")
    return lines


def _present(rows: Interactions) -> tuple[Tensor, Tensor]:
    """[n_users] and [n_items] bool: who and what has a row."""
    users, items = (torch.zeros(n, dtype=torch.bool) for n in (rows.n_users, rows.n_items))
    for keys in torch.split(rows.keys, BLOCK):
        users[torch.div(keys, rows.n_items, rounding_mode="floor")] = True
        items[keys % rows.n_items] = True
    return users, items
