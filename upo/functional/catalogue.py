"""Where rows stand among all items of a catalogue, and the recall that follows."""

import torch
from torch import Tensor


def chance_in_first(
    scores: Tensor,  # [..., I] of all items
    own: Tensor,  # [..., 1] of the item asked for, one of them
    k: int,
) -> Tensor:  # [...] float64
    """Probability that an item is among the first K if ties are broken at random.

    In [0, 1].

    Source: ties as McSherry, Najork, ECIR 2008.

    Example:
        >>> s = torch.tensor([[0.9, 0.5, 0.5, 0.1]])
        >>> chance_in_first(s, torch.tensor([[0.5]]), 2).item()
        0.5
    """
    above, tied = (scores > own).sum(-1), (scores == own).sum(-1)
    return ((k - above).double() / tied.clamp(min=1)).clamp(0.0, 1.0)


def mean_recall(
    chance: Tensor,  # [..., N] of positive rows
    users: Tensor,  # [N] int64 in 0 .. U - 1
    n_users: int,
    include: Tensor,  # [..., N] bool
) -> Tensor:  # [...]
    """Mean over users with a positive row of the mean chance of their positive rows.

    In [0, 1]; NaN without a positive row.

    Source: Wang et al., arXiv:2409.04810 (ratios of positives averaged over users).

    Example:
        >>> c, u = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 2])
        >>> mean_recall(c, u, 3, torch.ones(3, dtype=torch.bool)).item()
        0.75
    """
    used = include.double().expand(chance.shape)
    index = users.expand(chance.shape)
    empty = torch.zeros(*chance.shape[:-1], n_users, dtype=torch.float64, device=chance.device)
    hits = empty.scatter_add(-1, index, used * chance.double())
    rows = empty.scatter_add(-1, index, used)
    there = rows > 0
    return (hits / rows.clamp(min=1)).sum(-1) / there.sum(-1)
