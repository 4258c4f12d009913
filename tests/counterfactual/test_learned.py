"""Propensities that are learned: cross-fitted, scaled to D, and their error in the intervals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from learned_worlds import Additive, answers, coverage, summary, whole

import upo
from upo import InputError
from upo.counterfactual import evaluate
from upo.counterfactual.learned import PRIOR, Balance

DRAW = np.random.default_rng(0)


WHOLE = tuple(np.divmod(np.arange(8 * 6), 6))
ROWS = np.sort(DRAW.permutation(8 * 6)[:20])
SIDES = (WHOLE[0][ROWS], WHOLE[1][ROWS])
Q = DRAW.uniform(0.1, 0.9, 20)


def sums(side, w):
    return np.bincount(SIDES[side], w, 8 - 2 * side)


def test_weights_add_up_to_d():
    found = Balance(Q, SIDES, WHOLE).q
    assert (1 / found).sum() == pytest.approx(48)
    assert ((found > 0) & (found < 1)).all()
    # one shift, a term of each user and one of each item
    logits = np.log(found / (1 - found)) - np.log(Q / (1 - Q))
    x = np.hstack([np.eye(8)[SIDES[0]], np.eye(6)[SIDES[1]]])
    terms = np.linalg.lstsq(x, logits, rcond=None)[0]
    np.testing.assert_allclose(x @ terms, logits, atol=1e-9)


def test_weights_agree_with_each_user_and_item_but_for_the_prior():
    balance = Balance(Q, SIDES, WHOLE)
    w = 1 / balance.q
    odds = (1 / Q - 1) * 28 / (1 / Q - 1).sum()
    prior = PRIOR * ((1 + odds) * odds).sum() / odds.sum()
    shift = np.log((w - 1) / odds)
    for side, count in enumerate((6, 8)):
        gap = count - sums(side, w)
        seen = sums(side, 1.0 + 0 * w) > 0
        # the gap is the prior's pull on the term, which is the shift less the other side's terms
        x = np.hstack([np.eye(8)[SIDES[0]], np.eye(6)[SIDES[1]]])
        pull = x @ np.concatenate([6 - sums(0, w), 8 - sums(1, w)]) / prior
        np.testing.assert_allclose(shift - pull, (shift - pull)[0], atol=1e-6)
        assert (np.abs(gap[seen]) < np.abs(count - sums(side, 1 / Q)[seen]).max()).all()


def test_an_error_of_the_terms_of_users_and_items_is_taken_out(monkeypatch):
    monkeypatch.setattr("upo.counterfactual.learned.PRIOR", 1e-9)
    full = np.arange(8 * 6)
    rows = full[(full % 7 > 0) & (full % 5 > 0)]  # every user and item has several
    sides = (WHOLE[0][rows], WHOLE[1][rows])
    q = DRAW.uniform(0.2, 0.8, len(rows))
    wrong = np.log(1 / q - 1) + DRAW.normal(size=8)[sides[0]] + DRAW.normal(size=6)[sides[1]]
    right, found = (Balance(p, sides, WHOLE) for p in (q, 1 / (1 + np.exp(wrong))))
    np.testing.assert_allclose(found.q, right.q, rtol=1e-4)
    np.testing.assert_allclose(np.bincount(sides[0], 1 / found.q), 6, rtol=1e-6)
    d = DRAW.uniform(0.1, 0.9, len(rows))
    assert found.ratio(d) == pytest.approx(right.ratio(d), rel=1e-3)


def dense(q, prior, deviation):
    """The ratio by matrices that are written out, leverages as they are approximated."""
    x, odds = np.hstack([np.eye(8)[SIDES[0]], np.eye(6)[SIDES[1]]]), 1 / q - 1
    d = deviation - (odds * deviation).sum() / odds.sum()
    information = x.T @ np.diag(odds) @ x + prior * np.eye(14)
    rest = d - x @ np.linalg.solve(information, x.T @ (odds * d))
    lever = odds * (x @ (1 / np.diag(information)) - 1 / (odds.sum() + prior))
    found = (odds / q * rest**2 / np.maximum(1 - lever, 0.2) ** 1.5).sum()
    return found / (odds / q * deviation**2).sum()


def test_the_ratio_is_that_of_matrices_written_out():
    d = DRAW.uniform(0.1, 0.9, 20)
    odds = (1 / Q - 1) * 28 / (1 / Q - 1).sum()
    prior = PRIOR * ((1 + odds) * odds).sum() / odds.sum()
    balance = Balance(Q, SIDES, WHOLE)
    assert balance.ratio(d) == pytest.approx(dense(balance.q, prior, d), rel=1e-4)


def test_where_nothing_is_left_to_chance_the_ratio_is_one():
    balance = Balance(np.full(4, 0.5), (np.arange(4), np.arange(4)), (np.arange(4), np.arange(4)))
    np.testing.assert_array_equal(balance.q, 0.5)  # all of D was observed: nothing is missing
    whole = Balance(np.ones(4), (np.arange(4), np.arange(4)), (np.arange(4), np.arange(4)))
    assert whole.ratio(np.ones(4)) == 1.0


def test_the_interval_of_a_loss_is_narrower_than_with_known_ones():
    frame = whole(0, 1.0, True)
    known = answers(frame, 0, "known", Additive)
    found = answers(frame, 0, "whole", Additive)
    loss = known.metric.isin(["log_loss", "mse"]) & (known.estimator == "ips")
    assert ((found.high - found.low)[loss] < (known.high - known.low)[loss]).all()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["whole", "split, whole", "split, train"])
def test_intervals_cover_as_often_as_they_say_where_the_model_is_right(way):
    found = summary(coverage((0, 1.0, True), 200, way))
    # a share of 200 logs has a standard error of 1.5 % at 95 %, less above it
    assert (found.covered >= 0.90).all(), found
    # intervals of shares are rather too wide where misses are rare; those of losses are not
    assert (found.covered.loc[["log_loss", "mse"]] <= 0.995).all(), found


LOG = pd.DataFrame(
    {"user": DRAW.integers(0, 25, 400), "item": (20 * DRAW.random(400) ** 2).astype(int)}
).drop_duplicates()
QUICK = {
    "estimator.stages.propensity.epochs": 2,
    "estimator.stages.refine.epochs": 1,
    "estimator.stages.propensity.steps": 3,
    "estimator.stages.refine.steps": 3,
    "trainer.accelerator": "cpu",
}


def spec(**settings):
    return upo.Propensity("additive", **{"folds": 2, **settings}, **QUICK)


def test_a_propensity_is_cross_fitted_in_the_order_of_the_rows():
    p = spec().cross_fit(LOG)
    assert p.index.equals(LOG.index)
    assert ((p > 0) & (p < 1)).all()
    mixed = LOG.sample(frac=1.0, random_state=1)
    pd.testing.assert_series_equal(spec().cross_fit(mixed), p.loc[mixed.index])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", upo.UselessWeightsWarning)
        fitted = spec().fit(LOG)
    assert fitted.n_observed == len(LOG)
    assert fitted.fitted
    # a row that a propensity was fitted to pulls its own up
    assert p.mean() < fitted.propensity(LOG).mean()


@pytest.mark.parametrize("kind", ["isotonic", "gbdt"])
def test_a_calibrated_one_is_cross_fitted_too(kind):
    p = spec(calibrate=kind).cross_fit(LOG)
    # of an isotonic map the inverse weights add up to D, but for its straight lines
    assert (1 / p).sum() == pytest.approx(25 * 20, rel=0.3)


def test_evaluate_cross_fits_and_asks_fitted_ones():
    log = LOG.assign(rating=DRAW.integers(1, 6, len(LOG)))
    scores = pd.DataFrame(
        {"user": np.repeat(np.arange(25), 20), "item": np.tile(np.arange(20), 25)}
    )
    scores["score"] = DRAW.random(len(scores))
    settings = {"estimator": ["ips", "snips"], "metrics": ["mse", "precision"]}
    found = evaluate(log, scores, spec(), **settings)
    p = spec().cross_fit(log).to_numpy()
    sides = (log.user.to_numpy(), log.item.to_numpy())
    p = Balance(p, sides, (scores.user.to_numpy(), scores.item.to_numpy())).q
    known = evaluate(log, scores, p, **settings)
    np.testing.assert_allclose(found.estimate, known.estimate, rtol=1e-6)
    assert not np.allclose(found.high - found.low, known.high - known.low, rtol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", upo.UselessWeightsWarning)
        split = upo.held_out(log, 0.4)
        parts = evaluate(split, scores, spec().fit(split.train), **settings)
    assert parts.estimate.between(0, 1).all()
    listed = upo.Propensity("additive", observed="rating")
    with pytest.raises(InputError, match="observed="):
        evaluate(log, scores, listed)


def test_the_worlds_are_what_they_say():
    frame = whole(1, 1.0, True)
    logit = np.log(frame.p / (1 - frame.p)).to_numpy().reshape(150, 150)
    additive = logit.mean(1, keepdims=True) + logit.mean(0) - logit.mean()
    np.testing.assert_allclose(logit, additive, atol=1e-9)
    assert frame.p.mean() == pytest.approx(0.15, abs=1e-6)
