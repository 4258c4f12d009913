"""Ratings at random beside a log: whose of them may be learned from, selected by, or tested on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from upo.core.sampling import Permutation, stream_key
from upo.data.rating_data import RatingData


class LentRows(NamedTuple):
    """Ratings at random that a replica learns from; ``[R, M]`` each, ``weight`` 0 for padding."""

    users: Tensor
    items: Tensor
    labels: Tensor
    weight: Tensor


def user_order(users: Tensor, seeds: Tensor) -> tuple[Tensor, int]:  # [N], [R] -> [R, N]
    """Place of each row's user in an order by seed, and the number of users."""
    every, index = torch.unique(users, return_inverse=True)
    key = stream_key(seeds, "mar_users")[:, None]
    numbers = torch.arange(len(every), device=key.device).expand(len(key), -1)
    return Permutation(len(every))(numbers, key)[:, index], len(every)


class UniformSample(nn.Module):
    """The ratings at random of a dataset.

    Args:
        data: The dataset.
    """

    users: Tensor
    items: Tensor
    labels: Tensor

    def __init__(self, data: RatingData) -> None:
        super().__init__()
        test, none = data.test, torch.zeros(0, dtype=torch.int64)
        labels = torch.zeros(0) if test is None else test.labels(data.label_rule).float()
        self.register_buffer("users", none if test is None else test.users, persistent=False)
        self.register_buffer("items", none if test is None else test.items, persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def lent(self, seeds: Tensor, share: float) -> LentRows:
        """The ratings of a share of the users, the first by each replica's seed."""
        place, count = user_order(self.users, seeds)
        mine = place < round(share * count)
        most = int(mine.sum(-1).max()) if len(self.users) else 0
        row = (~mine).long().argsort(dim=-1, stable=True)[:, :most]
        weight = mine.gather(1, row).to(self.labels.dtype)
        return LentRows(self.users[row], self.items[row], self.labels[row], weight)
