"""MovieLens 100K as a person's own table, with the defaults, beside users and items alone."""

import pytest
from benchmarks.own_log import LABEL, audited, figures, ratios, split, tables, user_and_item_model

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


@pytest.mark.parametrize(
    ("kind", "calibrate"), [("additive", "isotonic"), ("additive", "gbdt"), ("upo", "gbdt")]
)
def test_calibrated_propensities_are_wrong_in_few_segments(halves, kind, calibrate):
    train, test = halves
    model = upo.Propensity(kind, calibrate=calibrate).fit(train)
    rarest = ratios(model, train, test, len(test) / len(train))[0]
    assert rarest == pytest.approx(1.0, abs=0.1)
    pairs = audited(model, train, test, 100_000)
    for audit in (model.audit(), upo.audit(pairs["of rows kept back"])):
        assert (audit.findings["kind"] == "segment").sum() <= 3, audit.summary()
