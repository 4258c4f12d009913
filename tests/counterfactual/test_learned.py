"""Propensities that are learned: cross-fitted, scaled to D, and their error in the intervals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from learned_worlds import Additive, answers, coverage, summary, whole

import upo
from upo import InputError
from upo.counterfactual import evaluate
from upo.counterfactual.learned import Learned, LearnedError, balanced

DRAW = np.random.default_rng(0)


def test_balanced_weights_add_up_to_d():
    q = DRAW.uniform(0.05, 1, 50)
    found = balanced(q, 400)
    assert (1 / found).sum() == pytest.approx(400)
    assert ((found > 0) & (found <= 1)).all()
    logits = np.log(found / (1 - found)) - np.log(q / (1 - q))
    np.testing.assert_allclose(logits, logits[0], rtol=1e-9)  # one shift
    np.testing.assert_array_equal(balanced(np.ones(5), 5), np.ones(5))


def dense(learned, users, items, q, deviation):
    """The ratio by matrices that are written out, leverages as they are approximated."""
    n, m = 1 + max(users.max(), learned.users.max()), 1 + max(items.max(), learned.items.max())

    def design(u, i):
        return np.hstack([np.eye(n)[u], np.eye(m)[i]])

    x, source, rest = design(users, items), design(learned.users, learned.items), 1 - q
    information = source.T @ np.diag(1 - learned.p) @ source + np.eye(n + m)
    lever = x @ (1 / np.diag(information)) - 1 / ((1 - learned.p).sum() + 1)
    w = 1 / q
    term = (deviation - (deviation * (w - 1)).sum() / (w - 1).sum()) * w
    known = (rest * (deviation * w) ** 2).sum()
    if not learned.included:
        g = x.T @ term
        t = np.linalg.solve(information, g)
        error = ((1 - learned.p) * (source @ t) ** 2).sum() - (term**2 * lever).sum()
        return ((rest * term**2).sum() + max(error, 0)) / known
    gamma = np.linalg.solve(information, x.T @ (rest * term))
    found = (rest * (term - x @ gamma) ** 2 / (1 - rest * lever)).sum()
    h = learned.share
    trained = (1 - h) * learned.p
    held = h * learned.p / (1 - trained)
    found += ((1 - held) ** 2 * (1 - trained) * (1 - h) * (source @ gamma) ** 2).sum()
    return found / known


@pytest.mark.parametrize(("included", "share"), [(True, 1.0), (True, 0.3), (False, 0.3)])
def test_the_ratio_is_that_of_matrices_written_out(included, share):
    users, items = DRAW.integers(0, 8, 60), DRAW.integers(0, 6, 60)
    q, p, d = DRAW.uniform(0.1, 0.9, (3, 60))
    learned = Learned(users[::-1], items[::-1], p, included, share)
    found = LearnedError(learned, users, items, q).ratio(d)
    assert found == pytest.approx(dense(learned, users, items, q, d), rel=1e-4)


def test_where_nothing_is_left_to_chance_the_ratio_is_one():
    learned = Learned(np.arange(4), np.arange(4), np.full(4, 0.5), included=True)
    error = LearnedError(learned, np.arange(4), np.arange(4), np.ones(4))
    assert error.ratio(np.ones(4)) == 1.0


def test_learned_from_the_log_itself_the_interval_is_narrower_than_with_known_ones():
    frame = whole(0, 1.0, True)
    known = answers(frame, 0, "known", Additive)
    found = answers(frame, 0, "whole", Additive)
    loss = known.metric.isin(["log_loss", "mse"]) & (known.estimator == "ips")
    assert ((found.high - found.low)[loss] < 0.9 * (known.high - known.low)[loss]).all()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["whole", "split, whole", "split, train"])
def test_intervals_cover_as_often_as_they_say_where_the_model_is_right(way):
    found = summary(coverage((0, 1.0, True), 200, way))
    # a share of 200 logs has a standard error of 1.5 % at 95 %, less above it
    assert found.covered.between(0.90, 0.995).all(), found


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
    p = balanced(spec().cross_fit(log).to_numpy(), len(scores))
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
