"""``upo.fit``: what it measures, with a test set and without, its settings, and features."""

import numpy as np
import pandas as pd
import pytest
from api_world import TEST, TRAIN, short

import upo


def test_metrics_have_a_row_for_each_seed(fitted):
    assert fitted.metrics.seed.tolist() == fitted.seeds == [3, 8]
    assert {"auc", "ndcg@5", "ece", "dr_bias", "parameters"} <= set(fitted.metrics)
    assert fitted.metrics.drop(columns=["dataset", "estimator", "protocol"]).notna().all(axis=None)
    assert repr(fitted) == "<upo.Fitted upo_dr: 40 users x 30 items, seeds [3, 8]>"


def test_without_a_test_set_only_what_needs_none_is_measured(tmp_path, monkeypatch, fitted):
    monkeypatch.chdir(tmp_path)
    alone = short(seeds=[3])
    assert list(alone.metrics) == list(fitted.metrics)
    for name in ("auc", "ndcg@5", "log_loss", "dr_bias", "dr_variance"):
        assert alone.metrics[name].isna().all()
    assert alone.metrics[["ece", "bmse"]].notna().all(axis=None)
    assert not list(tmp_path.iterdir())  # a fit writes nothing
    # the test set and the other seed change nothing but float32 sums of other shapes
    stacked = fitted.predict(TRAIN, average=False)[3]
    np.testing.assert_allclose(alone.predict(TRAIN), stacked, rtol=1e-4)


def test_overrides_arrive_however_they_are_given():
    def dims(**settings):
        model = short(estimator="ips", overrides={"estimator.stages.debias.epochs": 1}, **settings)
        return model.estimator.networks["prediction"].user.dim, model.estimator.weighting.p_min

    key = "estimator.networks.prediction.dim"
    trainer = {"accelerator": "cpu"}
    assert dims(**{key: 7, "estimator.weighting.p_min": np.float64(0.3)}, trainer=trainer) == (
        7,
        0.3,
    )
    assert dims(**{"estimator.networks": {"prediction": {"dim": 7}}}, trainer=trainer)[0] == 7
    other = short(estimator="naive", overrides={}, propensity="additive", **{
        "estimator.stages.debias.epochs": 1, "estimator.stages.propensity.epochs": 1,
        "estimator.stages.refine.epochs": 1,
    })  # fmt: skip
    assert other.estimator.has_propensity


def features(ids, key, seed):
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {key: ids, "x": draw.normal(size=len(ids)), "y": draw.normal(size=len(ids))}
    )


def test_features_of_users_and_items_are_balanced_over(fitted):
    users = features(sorted(set(TRAIN.user) | set(TEST.user)), "user", 0)
    items = features(sorted(set(TRAIN.item) | set(TEST.item)), "item", 1)
    model = short(test=TEST, seeds=[3, 8], user_features=users, item_features=items)
    # no network reads them: the same model, another balance
    assert model.predict(TEST).equals(fitted.predict(TEST))
    assert (model.metrics.bmse != fitted.metrics.bmse).all()
    assert model.metrics.ece.tolist() == fitted.metrics.ece.tolist()
    with pytest.raises(upo.InputError, match="no row for user"):
        short(test=TEST, user_features=users.iloc[1:], item_features=items)
    with pytest.raises(upo.InputError, match="item_features has no column 'item'"):
        short(test=TEST, item_features=users)
    with pytest.raises(upo.InputError, match="give the argument user_features="):
        short(**{"overrides": {"dataset.user_features": "users.csv"}})
