"""Making one row of several for the same (user, item) pair."""

from __future__ import annotations

import torch
from torch import Tensor

from upo.data.interactions import sorted_rows
from upo.errors import InputError

RULES = ("error", "mean", "last", "first")


def resolve_duplicates(
    users: Tensor,  # [N] any integer type, at least 0
    items: Tensor,  # [N] any integer type, in [0, n_items)
    ratings: Tensor,  # [N] float32 or float64
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
    keys, ratings = sorted_rows(users, items, ratings, int(users.max()) + 1, n_items)
    pairs, counts = torch.unique_consecutive(keys, return_counts=True)
    if len(pairs) < len(keys):
        ends = counts.cumsum(0)
        if rule == "mean":
            group = torch.repeat_interleave(torch.arange(len(pairs)), counts)
            sums = torch.zeros(len(pairs), dtype=torch.float64)
            ratings = sums.index_add_(0, group, ratings.to(torch.float64)) / counts
        else:
            ratings = ratings[ends - 1 if rule == "last" else ends - counts]
    return torch.div(pairs, n_items, rounding_mode="floor"), pairs % n_items, ratings


def resolve_times(
    users: Tensor,  # [N] any integer type, at least 0
    items: Tensor,  # [N] any integer type, in [0, n_items)
    times: Tensor,  # [N] float64
    n_items: int,
    rule: str,
) -> Tensor:  # [M] in the order of `resolve_duplicates`
    """Times of the rows that `resolve_duplicates` makes: of a mean, the latest of its ratings'.

    Raises:
        InputError: If there is no such rule.
    """
    if rule == "mean":  # which knows the latest of them
        order = torch.argsort(times, stable=True)
        users, items, times, rule = users[order], items[order], times[order], "last"
    return resolve_duplicates(users, items, times, n_items, rule)[2]
