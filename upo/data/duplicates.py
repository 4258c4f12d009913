"""Making one row of several for the same (user, item) pair."""

from __future__ import annotations

import torch
from torch import Tensor

from upo.errors import InputError

RULES = ("error", "mean", "last", "first")


def resolve_duplicates(
    users: Tensor,  # [N] int64
    items: Tensor,  # [N] int64
    ratings: Tensor,  # [N] float64
    n_items: int,
    rule: str,
) -> tuple[Tensor, Tensor, Tensor]:  # [M] each, sorted by user, then item
    """One row for each pair: the mean of its ratings, or the last or first in file order.

    `error` leaves the rows as they are, for `Interactions.validated` to refuse.

    Raises:
        InputError: If there is no such rule.
    """
    if rule not in RULES:
        raise InputError(
            f"dataset.duplicates must be one of {', '.join(RULES)}, got {rule!r}; try mean."
        )
    if rule == "error" or not len(users):
        return users, items, ratings
    keys, order = torch.sort(users * n_items + items, stable=True)
    pairs, counts = torch.unique_consecutive(keys, return_counts=True)
    ends = counts.cumsum(0)
    ratings = ratings[order]
    if rule == "mean":
        group = torch.repeat_interleave(torch.arange(len(pairs)), counts)
        sums = torch.zeros(len(pairs), dtype=ratings.dtype).index_add_(0, group, ratings)
        kept = sums / counts
    else:
        kept = ratings[ends - 1 if rule == "last" else ends - counts]
    return pairs // n_items, pairs % n_items, kept
