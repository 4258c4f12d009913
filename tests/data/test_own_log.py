"""MovieLens 100K as a person's own table, with the defaults, beside users and items alone."""

import pytest
from benchmarks.own_log import LABEL, figures, split, tables, user_and_item_model

import upo

pytestmark = pytest.mark.slow


@pytest.fixture
def halves(real_data):
    return split(tables(real_data("ml-100k", "u.data"))[0], seed=0)


@pytest.mark.parametrize("estimator", ["naive", "ips", "upo_dr"])
def test_defaults_predict_better_than_a_user_and_item_model(halves, estimator):
    train, test = halves
    _, p = user_and_item_model(train, test)
    least_loss, least_auc = figures(p, test)
    model = upo.fit(train, estimator=estimator, label_threshold=LABEL, progress=False)
    loss, area = figures(model.predict(test), test)
    assert loss < least_loss
    assert area > least_auc
