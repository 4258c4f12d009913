"""Recall over the catalogue: exact on full exposure, unbiased on a random one."""

import pytest
import torch
from test_constant import Sample
from worlds import N_ITEMS, N_USERS, make_estimator, make_space

from upo.evaluation import catalogue
from upo.evaluation.catalogue import catalogue_recall
from upo.functional.catalogue import chance_in_first
from upo.metrics import RecallAtK


@pytest.fixture
def estimator():
    made = make_estimator(make_space())
    g = torch.Generator().manual_seed(1)
    for parameter in made.networks.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    return made.eval()


def everything():
    """Labels of every pair: the full exposure."""
    g = torch.Generator().manual_seed(3)
    users = torch.arange(N_USERS).repeat_interleave(N_ITEMS)
    labels = (torch.rand(N_USERS * N_ITEMS, generator=g) < 0.4).float()
    return Sample(users, torch.arange(N_ITEMS).repeat(N_USERS), labels)


def test_on_full_exposure_it_is_recall(estimator):
    full = everything()
    pairs = estimator.space.pairs_at(
        (full.users * N_ITEMS + full.items).expand(3, -1), len(full.labels)
    )
    metric = RecallAtK(5)
    metric.update(estimator.logit("prediction", pairs).double(), full.labels, full.users)
    torch.testing.assert_close(catalogue_recall(estimator, full), metric.compute())


def test_of_random_exposures_the_mean_is_that_of_the_full_one(estimator):
    full, g = everything(), torch.Generator().manual_seed(4)
    whole = catalogue_recall(estimator, full)
    per_user = []
    for _ in range(300):
        shown = torch.rand(N_USERS, N_ITEMS, generator=g).argsort(-1)[:, :8]  # 8 items each
        keys = (torch.arange(N_USERS)[:, None] * N_ITEMS + shown).flatten()
        per_user.append(catalogue_recall(estimator, full.part(keys)))
    values = torch.stack(per_user)
    error = values.std(0) / len(values) ** 0.5
    # a user without a positive among eight is left out, which hardly depends on the ranking
    assert ((values.mean(0) - whole).abs() < 4 * error + 0.005).all()
    sampled = RecallAtK(5)  # of the items shown alone
    rows = estimator.space.pairs_at(keys.expand(3, -1), len(keys))
    sampled.update(
        estimator.logit("prediction", rows).double(), full.labels[keys], full.users[keys]
    )
    assert (sampled.compute() > whole + 0.2).all()


def test_some_users_stand_for_all_where_there_are_many(estimator, monkeypatch):
    full = everything()
    monkeypatch.setattr(catalogue, "MOST_CELLS", 4 * N_ITEMS)
    found = catalogue_recall(estimator, full)
    chosen = torch.isin(full.users, torch.tensor([0, 3, 6, 9]))
    torch.testing.assert_close(found, catalogue_recall(estimator, full.part(chosen)))
    assert catalogue_recall(estimator, full.part(full.labels < 1)).isnan().all()


def test_each_replica_reads_its_rows(estimator):
    full = everything()
    include = torch.rand(3, len(full), generator=torch.Generator().manual_seed(5)) < 0.5
    found = catalogue_recall(estimator, full, include)
    for r in range(3):
        alone = catalogue_recall(estimator, full.part(include[r]))
        torch.testing.assert_close(found[r], alone[r])


def test_ties_are_broken_at_random_in_expectation():
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    found = [float(chance_in_first(scores, torch.tensor([[x]]), 2)) for x in (1.0, 0.0)]
    assert found == [pytest.approx(2 / 3), 0.0]
