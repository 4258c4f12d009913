"""Pseudo values: their mean is the figure, and their slope is that of counting a user once more."""

import pytest
import torch

from upo.functional.per_user import auc_values, f1_values, ndcg_values, row_mean_values
from upo.functional.ranking import auc, ranking_sums, user_rankings, win_shares
from upo.metrics import AUC, NDCG, F1AtK, LogLoss, UserValues

G = torch.Generator().manual_seed(0)
R, N, U, K = 2, 300, 25, 5
SCORES = (20 * torch.rand(R, N, generator=G, dtype=torch.float64)).round() / 20  # with ties
LABELS = (torch.rand(N, generator=G) < 0.4).long()
USERS = torch.randint(0, U, (N,), generator=G)
INCLUDE = torch.rand(R, N, generator=G) < 0.8


def test_the_mean_over_users_is_the_metric():
    metric = UserValues(K)
    for part in (slice(0, 90), slice(90, N)):  # in any batches
        metric.update(SCORES[:, part], LABELS[part], USERS[part], include=INCLUDE[:, part])
    values = metric.compute().nanmean(-1)
    assert metric.compute().shape == (4, R, U)
    whole = AUC(), NDCG(K), F1AtK(K)
    for metric, value in zip(whole, values, strict=False):
        users = () if isinstance(metric, AUC) else (USERS,)
        metric.update(SCORES, LABELS, *users, include=INCLUDE)
        torch.testing.assert_close(value, metric.compute(), rtol=1e-12, atol=0)
    loss = LogLoss()
    loss.update(SCORES, LABELS.double(), INCLUDE.double())
    torch.testing.assert_close(values[3], loss.compute(), rtol=1e-12, atol=0)


def again(user, times):
    """All rows, those of one user ``times`` more."""
    more = torch.nonzero(user == USERS).flatten().repeat(times)
    rows = torch.cat([torch.arange(N).repeat(200), more])
    return SCORES[:, rows], LABELS[rows], USERS[rows]


@pytest.mark.parametrize("user", [0, 7])
def test_a_user_that_counts_more_moves_the_auc_by_its_influence(user):
    pseudo = auc_values(SCORES, LABELS, USERS, U)
    before = auc(SCORES, LABELS)
    scores, labels, _ = again(user, 2)  # each row 200 times, the user's 202: 1 % more
    slope = (auc(scores, labels) - before) / 0.01
    expected = (pseudo[:, user] - before) / U
    torch.testing.assert_close(slope, expected, rtol=0.02, atol=1e-5)


def test_ties_and_constant_scores():
    flat = torch.full((N,), 0.5)
    assert win_shares(flat, LABELS).unique().tolist() == [0.5]
    values = auc_values(flat, LABELS, USERS, U)
    torch.testing.assert_close(values, torch.full((U,), 0.5).double())
    torch.testing.assert_close(
        win_shares(SCORES, LABELS)[:, LABELS > 0].mean(-1), auc(SCORES, LABELS)
    )


def test_users_without_rows_or_positives():
    each = user_rankings(SCORES, LABELS, USERS, K, INCLUDE)
    sums = ranking_sums(SCORES, LABELS, USERS, K, INCLUDE)
    torch.testing.assert_close(f1_values(each, K).nanmean(-1), sums.f1())
    only = USERS != 3
    values = row_mean_values(SCORES, USERS, U, only)
    assert values.isnan().sum(-1).tolist() == [1, 1]
    assert values[:, 3].isnan().all()
    nothing = user_rankings(SCORES, torch.zeros(N), USERS, K)
    assert ndcg_values(nothing).unique().tolist() == [1.0]
    assert f1_values(nothing, K).unique().tolist() == [0.0]
