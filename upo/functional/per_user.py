r"""What each test user adds to a figure of all of them, so that users can be drawn again.

A figure of the test set is a function of sums over users. Its derivative by the number of times
that a user counts is the user's influence; the influences of all users add up to 0. The *pseudo
value* of user u is the figure plus U times its influence. So the mean of the pseudo values is the
figure exactly, and their mean over users drawn with repetition is the figure of the drawn users to
first order: intervals and paired differences need nothing else.

Shapes: rows ``[..., N]``, users by position ``[N]`` in 0 .. U - 1, results ``[..., U]`` in float64,
NaN for a user none of whose rows is included.

Source: Efron, Stein, "The jackknife estimate of variance", Annals of Statistics 9(3), 1981 (pseudo
values); DeLong et al., Biometrics 44(3), 1988, and Obuchowski, Biometrics 53(2), 1997 (components
of the AUC, of clusters).
"""

import torch
from torch import Tensor

from upo.functional.ranking import UserRankings, win_shares


def auc_values(
    scores: Tensor,  # [..., N]
    labels: Tensor,  # [..., N] or [N], 0 or 1
    users: Tensor,  # [N] int64, positions 0 .. U - 1
    n_users: int,
    include: Tensor | None = None,  # [..., N] or [N] bool
) -> Tensor:  # [..., U]
    r"""Pseudo values of the pooled AUC A.

    A positive row i wins against a share :math:`V_i` of the negatives, a negative j loses against
    a share :math:`V_j` of the positives. With :math:`n_1` positives and :math:`n_0` negatives the
    influence of user u is

    .. math:: \sum_{i \in u, y_i = 1} (V_i - A) / n_1 + \sum_{j \in u, y_j = 0} (V_j - A) / n_0

    NaN if a class is missing. Any sign: a user's pseudo value is not an AUC.

    Source: DeLong et al., 1988, eq. (4) and (5), summed within users (Obuchowski, 1997).

    Example:
        >>> s, y = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 0, 1, 0])
        >>> auc_values(s, y, torch.tensor([0, 0, 1, 1]), 2).mean().item()
        0.75
    """
    used = _mask(scores, include)
    positive = labels.bool().expand(scores.shape)
    won = win_shares(scores, labels, include)
    value, parts = won.new_zeros(1), torch.zeros_like(won)
    for chosen in (used & positive, used & ~positive):
        n = chosen.sum(-1, keepdim=True).double()
        value = torch.where(chosen, won, 0.0).sum(-1, keepdim=True) / n  # the AUC, in either class
        parts = torch.where(chosen, (won - value) / n, parts)
    return _pseudo(value, parts, users, n_users, used)


def row_mean_values(
    values: Tensor,  # [..., N]
    users: Tensor,  # [N] int64
    n_users: int,
    include: Tensor | None = None,  # [..., N] or [N] bool
) -> Tensor:  # [..., U]
    """Pseudo values of a mean over rows, such as the log-loss; users differ in their rows.

    Of any sign.

    Source: the ratio estimator (Cochran, Sampling Techniques, 3rd ed. 1977, section 2.11).

    Example:
        >>> row_mean_values(torch.tensor([0.0, 2, 4, 6]), torch.tensor([0, 0, 1, 1]), 2).tolist()
        [1.0, 5.0]
    """
    used = _mask(values, include)
    n = used.sum(-1, keepdim=True).double()
    kept = torch.where(used, values.double(), 0.0)
    mean = kept.sum(-1, keepdim=True) / n
    parts = torch.where(used, (values.double() - mean) / n, 0.0)
    return _pseudo(mean, parts, users, n_users, used)


def ndcg_values(each: UserRankings) -> Tensor:  # [..., U]
    """NDCG@K of each user, in [0, 1]; 1 without positives, as in the mean that is reported.

    Source: as :func:`upo.functional.ranking.ranking_sums`.
    """
    value = torch.where(each.positives > 0, each.ndcg, 1.0)
    return torch.where(each.rows > 0, value, torch.nan)


def f1_values(each: UserRankings, k: int) -> Tensor:  # [..., U]
    r"""Pseudo values of F1@K = 2 P R / (P + R), P and R being means over users.

    .. math:: F + 2 R^2 / (P + R)^2 (p_u - P) + 2 P^2 / (P + R)^2 (r_u - R)

    Of any sign.

    Source: the delta method.
    """
    there = each.rows > 0
    n = there.sum(-1, keepdim=True)
    precision, recall = (torch.where(there, x, 0.0) for x in (each.hits / k, each.recall))
    p, r = (x.sum(-1, keepdim=True) / n for x in (precision, recall))
    both = (p + r).clamp(min=torch.finfo(p.dtype).tiny)
    f1 = 2 * p * r / both
    value = f1 + 2 * (r / both) ** 2 * (precision - p) + 2 * (p / both) ** 2 * (recall - r)
    return torch.where(there, value, torch.nan)


def _mask(rows: Tensor, include: Tensor | None) -> Tensor:
    used = torch.ones_like(rows, dtype=torch.bool)
    return used if include is None else include.bool().expand(rows.shape)


def _pseudo(value: Tensor, parts: Tensor, users: Tensor, n_users: int, used: Tensor) -> Tensor:
    """The figure ``[..., 1]`` plus U times the sums ``[..., U]`` of the rows' parts."""
    index = users.expand(parts.shape)
    sums = parts.new_zeros(*parts.shape[:-1], n_users).scatter_add(-1, index, parts)
    rows = parts.new_zeros(*parts.shape[:-1], n_users).scatter_add(-1, index, used.to(parts.dtype))
    there = rows > 0
    return torch.where(there, value + there.sum(-1, keepdim=True) * sums, torch.nan)
