import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upo.functional.ranking import auc, ranking_sums

EXACT = {"rtol": 0, "atol": 1e-12}  # float64, another order of summation


def loop_metrics(scores, labels, users, k):
    """NDCG, share of users without positives, precision, recall and F1; stable sort for ties."""
    ndcg, precision, recall, without = [], [], [], 0
    for user in sorted(set(users)):
        rows = [i for i, u in enumerate(users) if u == user]
        ranked = [labels[i] for i in sorted(rows, key=lambda i: -scores[i])]
        positives = sum(ranked)
        dcg = sum(y / math.log2(1 + rank) for rank, y in enumerate(ranked[:k], start=1))
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, positives) + 1))
        ndcg.append(dcg / ideal if positives else 1.0)
        precision.append(sum(ranked[:k]) / k)
        recall.append(sum(ranked[:k]) / max(1, positives))
        without += positives == 0
    n = len(ndcg)
    p, r = sum(precision) / n, sum(recall) / n
    return {
        "ndcg": sum(ndcg) / n,
        "without": without / n,
        "precision": p,
        "recall": r,
        "f1": 2 * p * r / (p + r) if p + r else 0.0,
    }


def fast_metrics(scores, labels, users, k, include=None):
    sums = ranking_sums(scores, labels, users, k, include)
    return {
        "ndcg": sums.mean_ndcg(),
        "without": sums.share_without_positives(),
        "precision": sums.mean_precision(),
        "recall": sums.mean_recall(),
        "f1": sums.f1(),
    }


def loop_auc(scores, labels):
    pairs = [
        (s > t) + 0.5 * (s == t)
        for s, y in zip(scores, labels, strict=True)
        for t, z in zip(scores, labels, strict=True)
        if y > z
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def sample(seed, n=60, num_users=9, replicas=3, levels=None):
    """Scores (tied if ``levels``), labels (user 4 has no positive) and users in any order."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.rand(replicas, n, generator=g, dtype=torch.float64)
    if levels:
        scores = (scores * levels).round()
    users = torch.randint(0, num_users, (n,), generator=g) * 1000 - 2000
    labels = torch.randint(0, 2, (n,), generator=g)
    labels[users == 2000] = 0
    return scores, labels, users


@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_ranking_matches_a_loop(k):
    scores, labels, users = sample(0)
    fast = fast_metrics(scores, labels, users, k)
    for r in range(3):
        loop = loop_metrics(scores[r].tolist(), labels.tolist(), users.tolist(), k)
        assert {key: value[r].item() for key, value in fast.items()} == pytest.approx(
            loop, rel=0, abs=1e-12
        )
    assert loop["without"] > 0


@pytest.mark.parametrize("k", [1, 2, 4])
def test_ties_have_the_expected_value_under_random_tie_breaking(k):
    g = torch.Generator().manual_seed(k)
    scores = torch.randint(0, 3, (6,), generator=g)
    labels = torch.tensor([1, 0, 1, 0, 0, 1])
    users = torch.tensor([0, 0, 0, 0, 1, 1])
    orders = [  # a stable sort breaks ties by the order of the rows: take them all
        loop_metrics(*([x.tolist()[i] for i in order] for x in (scores, labels, users)), k)
        for order in permutations(range(6))
    ]
    fast = fast_metrics(scores.double(), labels, users, k)
    for key in ("ndcg", "precision", "recall"):  # F1 is a function of the expected two
        mean = sum(metrics[key] for metrics in orders) / len(orders)
        assert fast[key].item() == pytest.approx(mean, rel=0, abs=1e-12)


def test_constant_scores_do_not_depend_on_the_order_of_rows():
    scores, labels, users = sample(1)
    scores = torch.zeros_like(scores)
    order = labels.argsort(descending=True)  # the most flattering file
    for key, value in fast_metrics(scores, labels, users, 5).items():
        again = fast_metrics(scores[:, order], labels[order], users[order], 5)[key]
        torch.testing.assert_close(value, again, **EXACT)
    assert auc(scores, labels).tolist() == [0.5] * 3


@settings(derandomize=True, deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), levels=st.sampled_from([None, 2, 5]))
def test_order_of_rows_and_monotone_maps_do_not_matter(seed, levels):
    scores, labels, users = sample(seed, levels=levels)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    fast = fast_metrics(scores, labels, users, 3)
    again = fast_metrics(scores[:, order].exp() - 7, labels[order], -users[order], 3)
    for key, value in fast.items():
        torch.testing.assert_close(again[key], value, **EXACT)
    assert torch.equal(auc(scores, labels), auc(scores[:, order].exp(), labels[order]))


@pytest.mark.parametrize("levels", [None, 4])
def test_include_is_a_subset_per_replica(levels):
    scores, labels, users = sample(2, levels=levels)
    include = torch.rand(3, 60, generator=torch.Generator().manual_seed(3)) < 0.5
    include[1, users == -1000] = False  # a whole user left out
    fast, areas = fast_metrics(scores, labels, users, 3, include), auc(scores, labels, include)
    for r, rows in enumerate(include):
        subset = fast_metrics(scores[r, rows], labels[rows], users[rows], 3)
        for key, value in subset.items():
            torch.testing.assert_close(fast[key][r], value, **EXACT)
        assert areas[r] == auc(scores[r, rows], labels[rows])


def test_the_two_conventions_for_users_without_positives():
    scores, labels, users = sample(4)
    sums = ranking_sums(scores, labels, users, 5)
    s = sums.share_without_positives()
    one, skip = sums.mean_ndcg("one"), sums.mean_ndcg("skip")
    assert (s > 0).all()
    torch.testing.assert_close(skip, (one - s) / (1 - s), **EXACT)
    kept = users != 2000
    alone = ranking_sums(scores[:, kept], labels[kept], users[kept], 5)
    torch.testing.assert_close(skip, alone.mean_ndcg("one"), **EXACT)
    with pytest.raises(ValueError, match="'one' or 'skip', got 'zero'"):
        sums.mean_ndcg("zero")


def test_labels_may_differ_between_replicas():
    scores, _, users = sample(5)
    labels = torch.randint(0, 2, (3, 60), generator=torch.Generator().manual_seed(5))
    fast, areas = fast_metrics(scores, labels, users, 3), auc(scores, labels)
    for r in range(3):
        for key, value in fast_metrics(scores[r], labels[r], users, 3).items():
            torch.testing.assert_close(fast[key][r], value, **EXACT)
        assert areas[r] == auc(scores[r], labels[r])


def test_best_and_worst_order():
    labels = torch.tensor([1, 1, 0, 0])
    users = torch.zeros(4, dtype=torch.long)
    scores = torch.stack([labels, -labels]).double()
    fast = fast_metrics(scores, labels, users, 2)
    assert fast["ndcg"].tolist() == fast["f1"].tolist() == [1.0, 0.0]
    assert auc(scores, labels).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("levels", [None, 3, 20])
def test_auc_matches_a_count_of_pairs(levels):
    scores, labels, _ = sample(6, levels=levels)
    expected = [loop_auc(row, labels.tolist()) for row in scores.tolist()]
    assert auc(scores, labels).tolist() == expected  # integers and one division: exact


def test_auc_lacks_a_class_and_has_infinite_scores():
    scores = torch.tensor([-math.inf, 0.0, math.inf, math.inf])
    assert auc(scores, torch.ones(4)).isnan()
    assert auc(scores, torch.tensor([0, 0, 0, 1])).item() == 2.5 / 3


def test_no_rows():
    none = torch.empty(2, 0)
    sums = ranking_sums(none, none[0], none[0].long(), 3)
    assert sums.users.tolist() == [0, 0]
    assert sums.mean_ndcg().isnan().all()
    assert sums.f1().isnan().all()
    assert auc(none, none).isnan().all()


def test_wrong_arguments_raise():
    scores, labels, users = sample(7)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        ranking_sums(scores, labels, users, 0)
    with pytest.raises(ValueError, match="one id per row"):
        ranking_sums(scores, labels, users[:-1], 3)
