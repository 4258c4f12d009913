r"""Raking: propensities whose inverses add up to the number of cells of every user and item."""

import math

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.errors import InputError

LARGEST = 60.0  # exponent; sums of as many rows as there may be stay finite in float32


def margin_sums(value: Tensor, index: Tensor, size: int) -> Tensor:  # [R, N] x 2 -> [R, size]
    """Sums of a value by user or item, over all ranks; of any sign.

    Source: arithmetic of iterative proportional fitting.
    """
    found = value.new_zeros(value.shape[0], size).scatter_add(1, index, value)
    return sum_across_ranks(found)


def shrunk_totals(weight: Tensor, index: Tensor, size: int, cells: float, slack: float) -> Tensor:
    r"""What the weights of each user or item shall add up to.

    The number of cells, but no nearer than noise allows: a sum within ``slack`` standard errors of
    it stays where it is, others move to that distance. The variance of
    :math:`\sum_O 1/\hat p` is estimated by :math:`\sum_O (1-\hat p)/\hat p^2`.

    Source: Li et al., "Relaxing the accurate imputation assumption in doubly robust learning",
    ICML 2024 (the constraints of User-DR and Item-DR). Differs: the slack is ours.

    Args:
        weight: ``[R, N]`` weights 1/p_hat of rows of O.
        index: ``[R, N]`` user or item of each row.
        size: Number of users or items.
        cells: Cells of D of each of them.
        slack: Standard errors, at least 0.

    Returns:
        ``[R, size]``, at least 0; meaningless where there is no row.
    """
    found = margin_sums(weight, index, size)
    error = margin_sums(weight * (weight - 1.0), index, size).clamp(min=0.0).sqrt() * slack
    return torch.minimum(torch.maximum(found, cells - error), cells + error)


def rake(
    logit: Tensor,
    users: Tensor,
    items: Tensor,
    user_totals: Tensor,
    item_totals: Tensor,
    *,
    sweeps: int = 30,
    limit: float = math.inf,
) -> tuple[Tensor, Tensor]:  # -> [R, n_users], [R, n_items]
    r"""Terms s, t so that :math:`\sum_O 1/\hat p'` has given sums for each user and each item.

    With :math:`\mathrm{logit}\,\hat p'_{ui}=z_{ui}+s_u+t_i` a weight is
    :math:`1+e^{-z-s-t}>1`, so no propensity exceeds 1. Each sweep solves all users exactly, then
    all items: iterative proportional fitting of the odds against observation. A user or item
    without rows, or whose total no weights can reach, keeps term 0. Totals of both sides may
    contradict each other (two users with one and the same item): then those of the items hold.

    Source: after Li et al., ICML 2024. Differs: a reconstruction from the abstract; the constraints
    hold exactly instead of by a penalty.

    Args:
        logit: ``[R, N]`` logits z of the rows of O: this rank's.
        users: ``[R, N]`` their users.
        items: ``[R, N]`` their items.
        user_totals: ``[R, n_users]`` sums wanted.
        item_totals: ``[R, n_items]`` sums wanted; those of the last half sweep, which are exact.
        sweeps: How many, at least 1.
        limit: Largest absolute value of a term, above 0. Contradicting totals would drive terms
            on, and propensities to 0.

    Raises:
        InputError: If there is no sweep.
    """
    if sweeps < 1:
        raise InputError(f"rake needs at least one sweep, got {sweeps}; try 100.")
    sides = []
    for index, totals in ((users, user_totals), (items, item_totals)):
        rows = margin_sums(torch.ones_like(logit), index, totals.shape[1])
        sides.append((index, totals - rows, totals.new_zeros(totals.shape), rows))
    for _ in range(sweeps):
        for one, other in (sides, sides[::-1]):
            index, odds, term, rows = one
            rest = (-logit - other[2].gather(1, other[0])).clamp(max=LARGEST).exp()
            sums = margin_sums(rest, index, term.shape[1])
            reachable = (rows > 0) & (odds > 0)
            found = torch.where(reachable, sums.clamp(min=1e-30).log() - odds.log(), 0.0)
            term.copy_(found.clamp(-limit, limit))
    return sides[0][2], sides[1][2]
