r"""Ranking metrics of many replicas at once: NDCG@K, precision@K, recall@K, F1@K and pooled AUC.

Each user's rows are ranked by score. Rows of equal score are tied, and a tie gets the expected
value under random tie-breaking: every tied row shares the mean discount of the positions that the
tied group spans (McSherry and Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008). The values therefore do not depend on the
order of the rows, nor on how they were split into batches or over devices.

Shapes: scores ``[..., N]``, labels ``[..., N]`` or ``[N]`` in {0, 1}, users ``[N]`` (any integers,
in any order), include ``[..., N]`` or ``[N]`` (rows to read; all by default). Results ``[...]``.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from upo.core.running import running_sum

NoPositives = Literal["one", "skip"]


class UserRankings(NamedTuple):
    """What the ranking metrics are made of, user by user; each ``[..., U]``, users in id order."""

    rows: Tensor  # float64, rows that are read; 0 where the user does not count
    positives: Tensor  # float64
    ndcg: Tensor  # float64, NDCG@K; 0 without positives
    hits: Tensor  # float64, positives among the first K
    recall: Tensor  # float64, hits / positives, 0 without positives


class RankingSums(NamedTuple):
    """Sums over users, of which the metrics are simple functions; each ``[...]``.

    A user counts if at least one of its rows is included.
    """

    users: Tensor  # int64, users
    users_with_positives: Tensor  # int64, users with at least one positive
    ndcg: Tensor  # float64, sum of NDCG@K over the users with positives
    precision: Tensor  # float64, sum of hits / K
    recall: Tensor  # float64, sum of hits / positives, 0 without positives

    def mean_ndcg(self, no_positives: NoPositives = "one") -> Tensor:
        """Mean NDCG@K; a user without positives has NDCG 1 (``"one"``) or is left out (``"skip"``).

        With s = ``share_without_positives()``, the second is (first - s) / (1 - s).

        Raises:
            ValueError: If ``no_positives`` is another word.
        """
        if no_positives == "skip":
            return self.ndcg / self.users_with_positives
        if no_positives == "one":
            return (self.ndcg + (self.users - self.users_with_positives)) / self.users
        raise ValueError(f"no_positives must be 'one' or 'skip', got {no_positives!r}.")

    def share_without_positives(self) -> Tensor:
        """Share s of the users that have no positive."""
        return (self.users - self.users_with_positives).double() / self.users

    def mean_precision(self) -> Tensor:
        """Mean of hits / K over all users, also those with fewer than K rows."""
        return self.precision / self.users

    def mean_recall(self) -> Tensor:
        """Mean of hits / positives over all users; 0 for a user without positives."""
        return self.recall / self.users

    def f1(self) -> Tensor:
        """Harmonic mean of the mean precision and the mean recall (not the mean of users' F1)."""
        precision, recall = self.mean_precision(), self.mean_recall()
        both = precision + recall
        # 0 where both are 0; NaN, where there is no user, stays NaN
        return torch.where(both == 0, 0.0, 2 * precision * recall / both)


def ranking_sums(
    scores: Tensor,  # [..., N]
    labels: Tensor,  # [..., N] or [N], 0 or 1
    users: Tensor,  # [N] integers
    k: int,
    include: Tensor | None = None,  # [..., N] or [N] bool
) -> RankingSums:
    r"""Sums over users of the ranking metrics at cutoff K.

    .. math:: DCG@K = \sum_{rank \le K} y / \log_2(1 + rank), \quad NDCG@K = DCG@K / ideal DCG@K

    Two stable sorts, first by score, then by user, leave each user's rows together in rank order;
    the rest is cumulative and sums per user. No loop over users or replicas. A user adds to each
    sum what lies in [0, 1].

    Source: Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS
    20(4), 2002; ties as McSherry, Najork, ECIR 2008.

    Raises:
        ValueError: If K is below 1 or the shapes do not fit.

    Example:
        >>> s, y, u = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1]), torch.zeros(3).long()
        >>> ranking_sums(s, y, u, k=2).precision.item()
        0.5
    """
    each = user_rankings(scores, labels, users, k, include)
    return RankingSums(
        users=(each.rows > 0).sum(-1),
        users_with_positives=(each.positives > 0).sum(-1),
        ndcg=each.ndcg.sum(-1),
        precision=each.hits.sum(-1) / k,
        recall=each.recall.sum(-1),
    )


def user_rankings(
    scores: Tensor,  # [..., N]
    labels: Tensor,  # [..., N] or [N], 0 or 1
    users: Tensor,  # [N] integers
    k: int,
    include: Tensor | None = None,  # [..., N] or [N] bool
) -> UserRankings:
    """The same for each user, in the order of their ids; those without a row have zeros.

    All at least 0; NDCG and recall in [0, 1], hits at most K.

    Source: as :func:`ranking_sums`.

    Raises:
        ValueError: If K is below 1 or the shapes do not fit.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    n = scores.shape[-1]
    if users.shape != (n,):
        raise ValueError(f"users needs one id per row, shape {(n,)}, got {tuple(users.shape)}.")
    ids, user = torch.unique(users, return_inverse=True)
    num_users = ids.numel()
    user = user.expand(scores.shape)
    if include is not None:  # excluded rows belong to one more user, dropped at the end
        user = torch.where(include.bool(), user, num_users)

    scores, by_score = scores.detach().sort(dim=-1, descending=True, stable=True)
    user, by_user = user.gather(-1, by_score).sort(dim=-1, stable=True)
    scores = scores.gather(-1, by_user)
    order = by_score.gather(-1, by_user)
    positive = labels.expand(scores.shape).gather(-1, order).to(torch.float64)

    new_user = _differs_from_previous(user)
    start, _ = _runs(new_user)
    first, last = _runs(new_user | _differs_from_previous(scores))
    # the tied group of a row spans the ranks first+1 .. last of its user; only those <= K count
    a, b = (first - start).clamp(max=k), (last - start).clamp(max=k)
    share = positive / (last - first)
    discount = _cumulative_discount(k, scores.device)

    def per_user(values: Tensor) -> Tensor:
        out = values.new_zeros(*values.shape[:-1], num_users + 1)
        return out.scatter_add(-1, user, values)[..., :num_users]

    positives = per_user(positive)
    hits = per_user(share * (b - a))
    dcg = per_user(share * (discount[b] - discount[a]))
    ideal = discount[positives.long().clamp(max=k)]
    return UserRankings(
        rows=per_user(torch.ones_like(positive)),
        positives=positives,
        ndcg=torch.where(positives > 0, dcg / ideal, 0.0),
        hits=hits,
        recall=hits / positives.clamp(min=1),
    )


def auc(
    scores: Tensor,  # [..., N]
    labels: Tensor,  # [..., N] or [N], 0 or 1
    include: Tensor | None = None,  # [..., N] or [N] bool
) -> Tensor:  # [...]
    """Area under the ROC curve over all rows pooled; NaN if a class is missing.

    The share of (positive, negative) pairs in which the positive has the higher score, a tie
    counting one half (midranks). Pairs are counted in integers, so the value is exact up to the
    rounding of one division. In [0, 1].

    Source: Hanley, McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143(1), 1982.

    Example:
        >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])).item()
        0.875
    """
    positive = labels.bool().expand(scores.shape)
    used = torch.ones_like(positive) if include is None else include.bool().expand(scores.shape)
    scores, order = scores.detach().sort(dim=-1, stable=True)
    positive, used = positive.gather(-1, order), used.gather(-1, order)
    negative = (used & ~positive).long()
    positive = (used & positive).long()

    # negatives_below[j]: negatives among the j lowest scores
    negatives_below = torch.nn.functional.pad(negative.cumsum(-1), (1, 0))
    first, last = _runs(_differs_from_previous(scores))
    # twice the pairs won: 2 * negatives strictly below + 1 * negatives tied
    won = negatives_below.gather(-1, first) + negatives_below.gather(-1, last)
    pairs = positive.sum(-1) * negative.sum(-1)
    return (positive * won).sum(-1).double() / (2 * pairs).double()


def win_shares(
    scores: Tensor,  # [..., N]
    labels: Tensor,  # [..., N] or [N], 0 or 1
    include: Tensor | None = None,  # [..., N] or [N] bool
) -> Tensor:  # [..., N] float64
    """Of each row the share of rows of the other class on the right side of it, ties one half.

    For a positive the share of negatives with a lower score, for a negative the share of positives
    with a higher one; the mean over either class is the AUC. NaN if the other class is missing.

    Source: DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated ROC
    curves", Biometrics 44(3), 1988 (structural components).

    Example:
        >>> win_shares(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])).tolist()
        [1.0, 0.75, 0.75, 1.0]
    """
    used = torch.ones_like(scores, dtype=torch.bool) if include is None else include.bool()
    scores, order = scores.detach().sort(dim=-1, stable=True)
    used = used.expand(scores.shape).gather(-1, order)
    positive = labels.bool().expand(scores.shape).gather(-1, order)
    first, last = _runs(_differs_from_previous(scores))

    def below(rows: Tensor) -> Tensor:
        """Rows with a lower score than each, ties one half, as a share of them all."""
        count = torch.nn.functional.pad((rows & used).long().cumsum(-1), (1, 0))
        return (count.gather(-1, first) + count.gather(-1, last)).double() / (2 * count[..., -1:])

    won = torch.where(positive, below(~positive), 1.0 - below(positive))
    return torch.empty_like(won).scatter_(-1, order, won)


def _differs_from_previous(x: Tensor) -> Tensor:
    """True where a value of the last axis differs from the one before it, and at the first."""
    differs = torch.ones(x.shape, dtype=torch.bool, device=x.device)
    differs[..., 1:] = x[..., 1:] != x[..., :-1]
    return differs


def _runs(starts: Tensor) -> tuple[Tensor, Tensor]:
    """First position of each entry's run, and one past its last, where runs begin at ``starts``."""
    n = starts.shape[-1]
    if n == 0:  # cummax refuses an empty axis
        return (empty := starts.long()), empty
    position = torch.arange(n, device=starts.device)
    first = torch.where(starts, position, 0).cummax(-1).values
    # the next run's start, looked up from the right
    following = torch.full_like(first, n)
    following[..., :-1] = torch.where(starts[..., 1:], position[1:], n)
    last = following.flip(-1).cummin(-1).values.flip(-1)
    return first, last


def _cumulative_discount(k: int, device: torch.device) -> Tensor:
    """Sum of 1 / log2(1 + rank) over the first j ranks, for j = 0..K."""
    rank = torch.arange(1, k + 1, device=device, dtype=torch.float64)
    return torch.nn.functional.pad(running_sum(1 / torch.log2(1 + rank)), (1, 0))
