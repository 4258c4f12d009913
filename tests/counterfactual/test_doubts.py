"""Propensities that do not fit D are warned of; right ones, however skewed, are not."""

import warnings

import numpy as np
import pandas as pd
import pytest
from test_coverage import rare

import upo
from upo.counterfactual.__main__ import main
from upo.counterfactual.doubts import HEAVY, MISFIT, NONE, doubt
from upo.counterfactual.estimates import Observed
from upo.errors import DoubtfulEstimateWarning

SIZE = (150, 120)


def world(seed=0):
    """All pairs with a score, a rating and a propensity of user and item of at least .02."""
    draw = np.random.default_rng(seed)
    users, items = (x.ravel() for x in np.indices(SIZE))
    logit = draw.normal(-3, 0.7, SIZE[0])[users] + draw.normal(0, 0.7, SIZE[1])[items]
    return pd.DataFrame(
        {
            "user": users,
            "item": items,
            "score": draw.random(len(users)),
            "rating": draw.integers(1, 6, len(users)),
            "p": (1 / (1 + np.exp(-logit))).clip(0.02),
        }
    )


ALL = world()
SCORES = ALL[["user", "item", "score"]]


def drawn(p, seed=1):
    """A log by these propensities of all pairs."""
    return ALL[np.random.default_rng(seed).random(len(ALL)) < p]


LOG = drawn(ALL.p)
NO_QUARTER = drawn(ALL.p.where(ALL.user % 4 > 0, 0.0))


class Known:
    """A model that was fitted elsewhere."""

    def __init__(self, factor):
        self.factor = factor

    def propensity(self, pairs):
        p = ALL.set_index(["user", "item"]).p.loc[pd.MultiIndex.from_frame(pairs)]
        return (self.factor * p.to_numpy()).clip(max=1)


def said(log, propensity, **settings):
    with pytest.warns(DoubtfulEstimateWarning) as found:
        table = upo.evaluate(log, SCORES, propensity, **settings)
    assert len(found) == 1  # for all metrics
    assert found[0].filename == __file__
    return table, str(found[0].message)


@pytest.mark.parametrize(
    ("log", "propensity"),
    [
        (LOG.assign(p=(8 * LOG.p).clip(upper=1)), "p"),
        (LOG, (LOG.p / 2).to_numpy()),
        (LOG, np.ones(len(LOG))),
        (NO_QUARTER, "p"),
        (LOG, Known(8.0)),
        (LOG, Known(0.25)),
        (upo.held_out(LOG.assign(p=(8 * LOG.p).clip(upper=1)), 0.5), "p"),
    ],
    ids=["8 times", "half", "ones", "no quarter", "model", "model, low", "split"],
)
def test_propensities_that_do_not_fit_are_told_with_both_numbers(log, propensity):
    table, sentence = said(log, propensity)
    assert (table.doubt == MISFIT).all()
    total = len(SCORES) - (len(log.train) if isinstance(log, upo.HeldOut) else 0)
    sum_ = table.sum_over_pairs[0] * total
    assert f"add up to {sum_:,.0f} over the log, and D has {total:,} pairs" in sentence
    assert "log_loss, mse, precision@5, ndcg_full@5" in sentence
    assert "Check that each is P(observed)" in sentence


def test_a_metric_of_few_pairs_shares_the_doubt_of_all():
    table, sentence = said(NO_QUARTER, "p", metrics="precision", k=1)
    assert (table.doubt == MISFIT).all()
    assert "D has 18,000 pairs" in sentence


def test_right_propensities_are_not_doubted():
    split = upo.held_out(LOG, 0.3)
    for table in (
        upo.evaluate(LOG, SCORES, "p"),
        upo.evaluate(split, SCORES, "p"),
        upo.evaluate(LOG, SCORES, Known(1.0)),
        upo.evaluate(LOG, SCORES[SCORES.user < 20], "p"),  # a part of D
    ):
        assert (table.doubt == NONE).all()
        assert table.sum_over_pairs[:2].between(0.75, 1.25).all()


def test_the_command_line_says_it(tmp_path, capsys):
    paths = {name: tmp_path / f"{name}.csv" for name in ("log", "scores", "out")}
    LOG.assign(p=(8 * LOG.p).clip(upper=1)).to_csv(paths["log"], index=False)
    SCORES.to_csv(paths["scores"], index=False)
    main([*(f"{name}={path}" for name, path in paths.items()), "propensity=p"])
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: The propensities do not fit D")
    assert printed.err.count("\n") == 1
    assert MISFIT in printed.out
    assert (pd.read_csv(paths["out"]).doubt == MISFIT).all()


def heavy_tailed(seed):
    """What a log of right propensities shows, all pairs or some lists; the tail by chance."""
    draw = np.random.default_rng(seed)
    size = int(10 ** draw.uniform(2.3, 4.3))
    p = {
        0: lambda: np.exp(draw.normal(np.log(0.07), draw.uniform(0.5, 2), size)).clip(max=1),
        1: lambda: draw.beta(a := draw.uniform(0.3, 2), 6 * a, size).clip(1e-12),
        2: lambda: (1 - draw.random(size)) ** (1 / draw.uniform(0.3, 1.5)),
        3: lambda: (1 / (1 + np.exp(-draw.normal(-3, 2, size)))).clip(10 ** draw.uniform(-3, -1)),
    }[seed % 4]()
    observed = draw.random(size) < p
    listed = draw.random(size) < (1.0 if seed % 8 < 4 else 0.1)
    mine = observed & listed
    one = np.ones(mine.sum())
    total, least = float(listed.sum()), p[observed].min(initial=1.0)
    return Observed(one, one, p[mine], True, total, least=float(least))


def test_a_thousand_right_worlds_of_heavy_tails_are_not_doubted():
    worlds = [heavy_tailed(seed) for seed in range(1000)]
    off = [x for x in worlds if doubt(x, x.propensity, learned=False).kind == MISFIT]
    assert not off
    # as a plain ratio of the sum to its standard error would doubt
    one = [(x, x.variance(np.ones_like(x.weight)) ** 0.5) for x in worlds]
    plain = sum(abs(x.inverse.sum() - x.total) > 4 * sd for x, sd in one)
    assert plain > 20


def test_a_pair_that_stands_for_a_part_of_d_is_named():
    log, candidates = rare(0.002, 1.5, 4)
    users, items = candidates.users, log.place % 60
    pairs = pd.DataFrame({"user": users, "item": items, "score": candidates.scores, "imputed": 0.5})
    full = pairs.assign(rating=1 + 4 * log.targets, p=log.propensities)
    seen = full[np.random.default_rng(0).random(len(full)) < full.p]
    with pytest.warns(DoubtfulEstimateWarning, match="stands for 500 of 4,800, 10% of D"):
        found = upo.evaluate(seen, pairs, "p", metrics=["log_loss", "precision"])
    assert found.doubt.tolist() == [HEAVY, NONE]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upo.evaluate(seen[seen.p > 0.01], pairs[full.p > 0.01], "p")  # as it advises
