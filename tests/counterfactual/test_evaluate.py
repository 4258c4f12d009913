"""Evaluation from a biased log: identities with full observation, and sentences for wrong input."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from processes import command
from test_open_bandit import rounds

import upo
from upo import InputError, metrics
from upo.counterfactual import evaluate
from upo.counterfactual.__main__ import main
from upo.counterfactual.estimates import ESTIMATORS, Observed
from upo.counterfactual.learned import Balance
from upo.counterfactual.metrics import METRICS, top_k_weights

ROOT = Path(__file__).resolve().parents[2]
EVERY = list(ESTIMATORS)


def table(users=8, items=9, seed=0):
    """All pairs with a score (some tied), an imputed probability, a propensity and a rating."""
    draw = np.random.default_rng(seed)
    pairs = pd.DataFrame(product([f"u{n}" for n in range(users)], range(items)))
    pairs.columns = ["user", "item"]
    pairs["score"] = draw.integers(0, 12, len(pairs)) / 12
    pairs["imputed"] = draw.random(len(pairs))
    pairs["propensity"] = draw.uniform(0.2, 1, len(pairs))
    pairs["rating"] = draw.integers(1, 6, len(pairs))
    return pairs


ALL = table()
LOG = ALL[np.random.default_rng(1).random(len(ALL)) < ALL.propensity].sample(
    frac=1.0, random_state=0
)


def run(log=LOG, scores=ALL, **settings):
    settings = {"imputed": "imputed", "estimator": EVERY, "k": 3, **settings}
    return evaluate(log, scores, settings.pop("propensity", "propensity"), **settings)


def test_with_everything_observed_every_estimate_is_the_truth():
    found = run(ALL, propensity=np.ones(len(ALL)))
    y = torch.tensor((ALL.rating >= 3).to_numpy(), dtype=torch.float64)
    f = torch.tensor(ALL.score.to_numpy())
    users = torch.tensor(ALL.user.factorize()[0])
    truth = {}
    for name, metric in (("log_loss", metrics.LogLoss()), ("mse", metrics.MeanSquaredError())):
        metric.update(f, y)
        truth[name] = float(metric.compute())
    precision = metrics.PrecisionAtK(3)
    precision.update(f, y, users)
    truth["precision@3"] = float(precision.compute())
    ideal = sum(1 / np.log2(1 + rank) for rank in (1, 2, 3))
    dcg = []  # ties in every order, each as likely as the others
    for _, rows in ALL.groupby("user"):
        label = (rows.rating >= 3).astype(float).groupby(-rows.score).mean()
        order = label.loc[-rows.score].sort_index().to_numpy()[:3]
        dcg.append(sum(order / np.log2(2 + np.arange(3))))
    truth["ndcg_full@3"] = np.mean(dcg) / ideal
    assert set(found.metric) == set(truth)
    for row in found.itertuples():
        assert row.estimate == pytest.approx(truth[row.metric], rel=1e-9), row
        assert row.low == pytest.approx(row.high, abs=1e-6), row  # nothing is left to chance


def test_full_list_ndcg_is_ndcg_where_users_have_enough_positives():
    pairs = ALL.assign(rating=5)
    found = run(pairs, pairs, metrics="ndcg_full", propensity=np.ones(len(pairs)))
    assert found.estimate.tolist() == pytest.approx([1.0] * 3, abs=1e-12)


@pytest.mark.parametrize("name", ["ips", "dr"])
def test_ips_and_dr_are_unbiased_over_all_logs(name):
    """Every log of six pairs is enumerated, so only rounding is left."""
    v, y, m, p = np.random.default_rng(3).uniform(0.1, 1, (4, 6))
    total = v.sum()
    for share in (False, True):
        value = (y > 0.5).astype(float) if share else y
        mean = 0.0
        for bits in product([False, True], repeat=6):
            o = np.array(bits)
            seen = Observed(v[o], value[o], p[o], share, total, m[o], (v * m).sum() / total)
            estimate = ESTIMATORS[name](seen, 1.96).estimate
            if np.isnan(estimate):  # nothing seen: IPS of nothing is 0
                estimate = 0.0
            mean += np.where(o, p, 1 - p).prod() * estimate
        assert mean == pytest.approx((v * value).sum() / total, abs=1e-12)


def test_the_variance_is_unbiased_over_all_logs():
    v, y, p = np.random.default_rng(4).uniform(0.1, 1, (3, 6))
    mean = 0.0
    for bits in product([False, True], repeat=6):
        o = np.array(bits)
        chance = np.where(o, p, 1 - p).prod()
        mean += chance * Observed(v[o], y[o], p[o], False, 1.0).variance(y[o])
    assert mean == pytest.approx((v**2 * y**2 * (1 - p) / p).sum(), abs=1e-12)


def test_with_constant_propensities_the_interval_of_a_share_is_wilsons():
    n, hits, p, z = 40, 9, 0.25, 1.96
    label = np.arange(n) < hits
    seen = Observed(np.ones(n), label.astype(float), np.full(n, p), True, total=n / p)
    found = ESTIMATORS["snips"](seen, z)
    z *= (1 - p) ** 0.5  # the correction of a finite population
    middle = (hits / n + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * (hits * (n - hits) / n**3 + z * z / (4 * n * n)) ** 0.5
    assert found == pytest.approx((hits / n, middle - spread, middle + spread), abs=1e-9)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_class_that_was_never_seen_may_still_be_there(name, label):
    n = 12
    p, one = np.full(n, 0.2), np.ones(n)
    seen = Observed(one, label * one, p, True, n / 0.2, label * one, label)
    estimate, low, high = ESTIMATORS[name](seen, 1.96)
    assert estimate == pytest.approx(label)
    if label:
        assert 0.3 < low < 0.95  # twelve hits and no miss, a fifth of the pairs seen
    else:
        assert 0.05 < high < 0.7


def test_nothing_seen_in_the_lists_is_said_and_bounded():
    best = ALL.sort_values("score").groupby("user").tail(3)
    log = LOG[~LOG.index.isin(ALL[ALL.score >= best.groupby("user").score.min().min()].index)]
    found = run(log, metrics=["precision"], estimator=["ips", "snips", "dr"])
    assert found.n.tolist() == [0, 0, 0]
    assert found.effective_sample_size.tolist() == [0, 0, 0]
    assert found.estimate.isna().tolist() == [True, True, False]  # DR still has its imputation
    assert (found.low.tolist(), found.high.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_weights_of_ranks_share_ties_and_count_missing_places():
    weights, total = top_k_weights(
        np.array([0, 0, 0, 1]), np.array([0.5, 0.5, 0.9, 0.1]), 2, discounted=True
    )
    second = 1 / np.log2(3)
    np.testing.assert_allclose(weights, [second / 2, second / 2, 1, 1])
    assert total == pytest.approx(2 * (1 + second))  # user 1 has one place empty


def test_imputed_labels_that_are_right_leave_no_variance():
    pairs = ALL.assign(imputed=(ALL.rating >= 3).astype(float))
    log = pairs.loc[LOG.index]
    found = run(log, pairs, estimator="dr", metrics=["log_loss", "mse"])
    assert (found.high - found.low).max() < 1e-9


def test_the_order_of_rows_and_the_kind_of_frame_change_nothing():
    expected = run()
    pd.testing.assert_frame_equal(run(LOG.iloc[::-1], ALL.sample(frac=1, random_state=1)), expected)
    pd.testing.assert_frame_equal(run(pl.from_pandas(LOG), pl.from_pandas(ALL)), expected)
    text = LOG.assign(item=LOG.item.astype(str))
    pd.testing.assert_frame_equal(run(text), expected)
    pd.testing.assert_frame_equal(run(propensity=LOG.propensity.to_numpy()), expected)


def test_a_series_of_propensities_follows_its_index():
    expected = run()
    shuffled = LOG.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(run(shuffled, propensity=LOG.propensity), expected)
    split = upo.held_out(LOG, 0.5)
    apart = run(split, propensity=split.held_out.propensity.sort_index())
    pd.testing.assert_frame_equal(apart, run(split))
    with pytest.raises(InputError, match=r"propensity is a Series of .* and log has"):
        run(propensity=LOG.propensity.add_prefix("row"))


def test_pairs_of_the_log_outside_d_are_not_used():
    inside = ALL[ALL.item < 5]
    expected = run(LOG[LOG.item < 5], inside)
    pd.testing.assert_frame_equal(run(LOG, inside), expected)


def test_scores_of_the_log_alone_give_losses_by_snips():
    whole = run(metrics=["log_loss", "mse"], estimator="snips")
    alone = evaluate(LOG, "score", metrics=["log_loss", "mse"])
    assert alone.sum_over_pairs.isna().all()  # of what, without D
    pd.testing.assert_frame_equal(alone.assign(sum_over_pairs=whole.sum_over_pairs), whole)


def test_ratings_on_their_own_scale():
    pairs = ALL.assign(score=3.5, imputed=3.0)
    found = run(pairs, pairs, metrics="mse", label_threshold=None, propensity=np.ones(len(ALL)))
    assert found.estimate.tolist() == pytest.approx([((3.5 - ALL.rating) ** 2).mean()] * 3)


class Model:
    def propensity(self, pairs):
        return ALL.set_index(["user", "item"]).propensity.loc[
            pd.MultiIndex.from_frame(pairs[["user", "item"]])
        ]


def test_a_fitted_model_is_asked_for_propensities():
    found = run(propensity=Model())
    sides = [(x.user.str[1:].to_numpy(int), x.item.to_numpy()) for x in (LOG, ALL)]
    known = run(propensity=Balance(LOG.propensity.to_numpy(), *sides).q)
    np.testing.assert_allclose(found.estimate, known.estimate, rtol=1e-12)
    loss = known.metric.isin(["log_loss", "mse"])  # the intervals of learned ones are others
    assert not np.allclose(
        (found.high - found.low)[loss], (known.high - known.low)[loss], rtol=1e-3
    )


WRONG = {
    "unknown metric": ({"metrics": ["auc"]}, "known are log_loss"),
    "no metric": ({"metrics": []}, "metrics is empty"),
    "unknown estimator": ({"estimator": "best"}, "known are ips, snips, dr"),
    "k of 0": ({"k": 0}, "k must be"),
    "k of text": ({"k": "3"}, "k must be a whole number of at least 1, got '3'"),
    "metrics of a number": ({"metrics": 3}, "metrics must be a name or a list of names"),
    "estimator of None": ({"estimator": None}, "estimator must be a name or a list of names"),
    "imputed of a list": ({"imputed": ["imputed"]}, "imputed must be the name of a column"),
    "item of a list": ({"item": ["item"]}, "item must be the name of a column"),
    "confidence of 95": ({"confidence": 95}, "confidence must lie in"),
    "no imputation": ({"imputed": None}, "needs imputed values"),
    "no such column": ({"imputed": "guess"}, "scores has no column 'guess'"),
    "no propensity": ({"propensity": "p"}, "log has no column 'p'"),
    "propensity of 0": ({"log": LOG.assign(propensity=0.0)}, "probabilities in (0, 1], got 0"),
    "too few propensities": ({"propensity": [0.5]}, "one value for each"),
    "propensity of text": ({"propensity": ["a"] * len(LOG)}, "an array of numbers"),
    "logits": ({"scores": ALL.assign(score=4.0)}, "must lie in [0, 1], got 4"),
    "imputed ratings": ({"scores": ALL.assign(imputed=4.0)}, "imputed values must lie in [0, 1]"),
    "infinite score": ({"scores": ALL.assign(score=np.inf)}, "finite numbers"),
    "score of text": ({"scores": ALL.assign(score="high")}, "must hold numbers"),
    "no frame": ({"scores": 3}, "must be a data frame"),
    "pair twice": ({"log": pd.concat([LOG, LOG])}, "log: the pair of user"),
    "candidate twice": ({"scores": pd.concat([ALL, ALL])}, "scores: the pair of user"),
    "other ids": ({"scores": ALL.assign(user="x" + ALL.user)}, "same ids"),
    "empty log": ({"log": LOG.head(0)}, "log has no rows"),
    "empty scores": ({"scores": ALL.head(0)}, "scores has no rows"),
    "gap": ({"log": LOG.assign(user=None)}, "row 1 has no user"),
    "no threshold": ({"label_threshold": None}, "needs labels"),
    "threshold of text": ({"label_threshold": "3"}, "must be a number"),
    "ranking of the log alone": ({"scores": "score"}, "all candidates"),
    "ips of the log alone": (
        {"scores": "score", "metrics": "mse"},
        "needs the size of D",
    ),
    "column twice": ({"log": pd.concat([LOG, LOG[["user"]]], axis=1)}, "more than one column"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_sentence(name):
    settings, fragment = WRONG[name]
    with pytest.raises(InputError) as error:
        run(**settings)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_line_gives_the_same(tmp_path):
    LOG.to_csv(tmp_path / "log.csv", index=False)
    ALL.to_parquet(tmp_path / "scores.parquet")
    call = ["-m", "upo.counterfactual", f"log={tmp_path / 'log.csv'}"]
    given = [f"scores={tmp_path / 'scores.parquet'}", "k=3", "imputed=imputed"]
    out = tmp_path / "metrics.csv"
    done = command(*call, *given, "estimator=ips,snips,dr", f"out={out}")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(pd.read_csv(out), run())
    assert "precision@3" in done.stdout
    done = command(*call, "k=many")
    assert done.returncode == 1
    assert re.fullmatch(r"error: k must be a whole number, got 'many'[^\n]*\n", done.stderr)


def test_lines_within_columns_that_are_not_read(tmp_path, monkeypatch):
    note = 'a "b",\n\r\nu1,1,5,0.5\n'
    LOG.assign(note=note).to_csv(tmp_path / "log.csv", index=False)
    ALL.assign(note=note).to_csv(tmp_path / "scores.csv", index=False)
    monkeypatch.setattr("upo.tables.csv_blocks.BYTES", 100)
    words = [f"{name}={tmp_path / name}.csv" for name in ("log", "scores")]
    main([*words, "k=3", "imputed=imputed", "estimator=ips,snips,dr", f"out={tmp_path / 'o.csv'}"])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "o.csv"), run())


# few steps on a small world: the models of the page are worth nothing here
@pytest.mark.filterwarnings("ignore::upo.UselessModelWarning", "ignore::upo.UselessWeightsWarning")
def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    LOG.to_csv("log.csv", index=False)
    ALL.to_csv("scores.csv", index=False)
    rounds()[0].to_csv("all.csv")
    whole, propensity = upo.fit, upo.Propensity
    few = {
        "estimator.stages.propensity": {"epochs": 1, "steps": 2},
        "trainer": {"accelerator": "cpu"},
    }
    game, debias = {"estimator.stages.game": {"epochs": 1, "steps": 2}}, "estimator.stages.debias"
    monkeypatch.setattr(
        upo, "fit", lambda log, **o: whole(log, **few, **game, **{f"{debias}.epochs": 1}, **o)
    )
    refine = {"estimator.stages.refine": {"epochs": 1, "steps": 2}}
    monkeypatch.setattr(upo, "Propensity", lambda kind: propensity(kind, folds=2, **few, **refine))
    page = (ROOT / "docs" / "counterfactual.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(code) == 3
    exec("\n".join(code), {})
    printed = capsys.readouterr().out
    assert all(name in printed for name in METRICS)


def test_a_frame_with_a_column_called_propensity_is_no_model():
    log = pd.DataFrame({"user": [0, 1], "item": [0, 1], "rating": [1, 5], "propensity": 0.5})
    with pytest.raises(InputError, match=r"one value for each of the 2 rows of log, got shape"):
        evaluate(log, log[["user", "item"]].assign(score=1.0), log[["propensity"]])
