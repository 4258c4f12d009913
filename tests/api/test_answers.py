"""``predict`` and ``propensity``: what the networks say, for ids of any kind, unseen ones too."""

import numpy as np
import pandas as pd
import pytest
import torch
from api_world import TEST, TRAIN, places, short

import upo
from upo.tables.ids import SAMPLE, spread


def test_the_metrics_are_those_of_the_predictions(fitted):
    pairs = TEST.assign(label=(TEST.rating >= 3).astype(float))
    auc = upo.metrics.AUC()
    predicted = fitted.predict(pairs, average=False)
    auc.update(torch.tensor(predicted.to_numpy().T), torch.tensor(pairs.label.to_numpy()))
    assert auc.compute().tolist() == pytest.approx(fitted.metrics.auc.tolist(), abs=1e-12)


@pytest.mark.parametrize("what", ["predict", "propensity"])
def test_answers_are_those_of_the_networks(fitted, table, what):
    users, items = places(fitted, TEST)
    answer = getattr(fitted, what)
    # float32 sums of other shapes
    each = answer(TEST, average=False)
    np.testing.assert_allclose(each, table[what][:, users, items].T, rtol=1e-6)
    np.testing.assert_allclose(answer(TEST), each.mean(axis=1), rtol=1e-12)
    assert list(each) == [3, 8]
    assert answer(TEST).index.equals(TEST.index)
    assert len(answer(TEST.head(0))) == 0


@pytest.mark.parametrize("what", ["predict", "propensity"])
def test_unseen_ids_get_the_mean_over_what_is_known(fitted, table, what):
    pairs = pd.DataFrame({"user": ["new", "u05", "new", "u05"], "item": ["i07", "?", "?", "i07"]})
    u, i = list(fitted.user_ids).index("u05"), list(fitted.item_ids).index("i07")
    t = table[what]
    expected = np.stack([t[:, :, i].mean(1), t[:, u].mean(1), t.mean((1, 2)), t[:, u, i]])
    answer = getattr(fitted, what)
    with pytest.warns(upo.UnseenIdsWarning, match="3 of 4 pairs"):
        np.testing.assert_allclose(answer(pairs, average=False), expected, rtol=1e-6)
    with pytest.warns(upo.UnseenIdsWarning, match="3 of 4 pairs"):
        np.testing.assert_allclose(answer(pairs), expected.mean(1), rtol=1e-6)


def test_large_means_take_an_even_sample():
    many = spread(torch.arange(10 * SAMPLE))
    assert len(many) == len(torch.unique(many)) == SAMPLE
    assert (int(many[0]), int(many[-1])) == (0, 10 * SAMPLE - 1)


def test_ids_of_numbers_match_text_that_reads_alike():
    train = TRAIN.assign(user=TRAIN.user.str[1:].astype(int))
    model = short(train, estimator="naive", overrides={"estimator.stages.debias.epochs": 1})
    pairs = train.head(9)
    expected = model.predict(pairs)
    assert model.predict(pairs.assign(user=pairs.user.astype(str))).equals(expected)
    assert model.predict(pairs.assign(user=pairs.user.astype(float))).equals(expected)
    assert model.recommend(4, 1).user.tolist() == [4]
