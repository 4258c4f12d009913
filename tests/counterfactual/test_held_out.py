"""A log held out in part: whose side a pair is on, and with what chance."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import upo
from upo import InputError
from upo.counterfactual import evaluate, held_out
from upo.counterfactual.split import MOST

USERS, ITEMS = 200, 150


def world(seed=0):
    """All pairs with one of five propensities, and the log that was drawn."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"user": np.repeat(np.arange(USERS), ITEMS), "item": np.tile(np.arange(ITEMS), USERS)}
    )
    frame["p"] = draw.choice([0.05, 0.2, 0.5, 0.8, 1.0], len(frame))
    frame["rating"] = draw.integers(1, 6, len(frame))
    frame["score"] = draw.random(len(frame))
    return frame, frame[draw.random(len(frame)) < frame.p]


ALL, LOG = world()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_a_pair_outside_train_is_held_out_with_the_chance_that_is_said(share):
    split = held_out(LOG, share)
    side = pd.Series(0, index=ALL.index)
    side[split.train.index], side[split.held_out.index] = 1, 2
    for p, sides in side.groupby(ALL.p):
        outside = sides[sides != 1]
        chance = split.from_whole(p)
        # four standard errors: fifteen comparisons, one wrong in 1,000 runs
        error = 4 * max(chance * (1 - chance) / len(outside), 0.0) ** 0.5
        assert (outside == 2).mean() == pytest.approx(chance, abs=error + 1e-12), p
        trained = (1 - share) * p
        assert (sides == 1).mean() == pytest.approx(
            trained, abs=4 * (trained * (1 - trained) / len(sides)) ** 0.5
        )
        if p < 1:
            assert split.from_train(trained) == pytest.approx(chance, rel=1e-12)


def test_what_is_learned_beyond_what_can_be_is_taken_for_certain():
    split = held_out(LOG, 0.3)
    assert split.from_train([0.69, 0.7, 0.9]) == pytest.approx([0.3 / 0.7 * 0.69 / 0.31, 1, 1])


def test_the_side_of_a_pair_depends_on_its_ids_and_the_seed_alone():
    def held(log, **settings):
        rows = held_out(log, 0.3, **settings).held_out
        rows = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows.to_pydict())
        return set(zip(rows.user.astype(int), rows["item"].astype(int), strict=True))

    some = LOG.head(3000)
    expected = held(some)
    assert held(some.sample(frac=1.0, random_state=0)) == expected
    assert held(LOG) & set(zip(some.user, some["item"], strict=True)) == expected
    assert held(some.astype({"user": str})) == expected
    assert held(some.astype({"item": "category"})) == expected
    assert held(pa.Table.from_pandas(some)) == expected
    polars = held_out(pl.from_pandas(some), 0.3).held_out
    assert isinstance(polars, pl.DataFrame)
    assert set(polars.select("user", "item").iter_rows()) == expected
    assert held(some, seed=1) != expected
    assert len(held(LOG, seed=1) & held(LOG)) == pytest.approx(0.09 * len(LOG), rel=0.1)


def test_parts_are_the_log_and_keep_its_columns():
    split = held_out(LOG, 0.25)
    pd.testing.assert_frame_equal(pd.concat([split.train, split.held_out]).sort_index(), LOG)
    pairs = split.candidates()
    assert len(pairs) == USERS * ITEMS - len(split.train)
    key = set(zip(pairs.user, pairs["item"], strict=True))
    assert not key & set(zip(split.train.user, split.train["item"], strict=True))
    assert f"{len(split.held_out):,} held out" in repr(split)


def test_candidates_of_text_are_the_ids():
    log = LOG.head(500).astype({"user": str}).assign(item=lambda f: "i" + f["item"].astype(str))
    pairs = held_out(log).candidates()
    assert set(pairs.user) == set(log.user)
    assert set(pairs["item"]) <= set(log["item"])  # but for those that all users have in train
    assert len(pairs) == log.user.nunique() * log["item"].nunique() - len(held_out(log).train)


def test_evaluate_takes_the_split_and_does_the_rest():
    split = held_out(LOG, 0.3, seed=2)
    found = evaluate(split, ALL[["user", "item", "score"]], "p", estimator=["ips", "snips"])
    by_hand = evaluate(
        split.held_out,
        split.candidates().merge(ALL[["user", "item", "score"]]),
        split.from_whole(split.held_out.p),
        estimator=["ips", "snips"],
    )
    pd.testing.assert_frame_equal(found, by_hand)
    renamed = held_out(LOG.rename(columns={"user": "uid"}), 0.3, seed=2, user="uid")
    again = evaluate(renamed, ALL.rename(columns={"user": "uid"}), "p", estimator=["ips", "snips"])
    pd.testing.assert_frame_equal(again, found)


class Learned:
    """A model that says the truth of the training rows."""

    def __init__(self, share, n):
        self.share, self.n_observed = share, n

    def propensity(self, pairs):
        table = ALL.set_index(["user", "item"]).p
        return (1 - self.share) * table.loc[pd.MultiIndex.from_frame(pairs[["user", "item"]])]


def test_a_model_of_the_training_rows_is_converted_and_balanced():
    frame = ALL[ALL.p < 1]
    log = LOG[LOG.p < 1]
    split = held_out(log, 0.3)
    known = evaluate(split, frame, "p", estimator=["ips", "snips"])
    found = evaluate(split, frame, Learned(0.3, len(split.train)), estimator=["ips", "snips"])
    snips = (known.estimator == "snips").to_numpy()
    # propensities are the true ones, but for what makes their weights agree with D
    assert found.estimate[snips].to_numpy() == pytest.approx(
        known.estimate[snips].to_numpy(), rel=0.05
    )
    assert not np.allclose(found.high - found.low, known.high - known.low, rtol=1e-3)
    with pytest.raises(InputError, match=r"fitted to 7 pairs, and the split has .* to train on"):
        evaluate(split, frame, Learned(0.3, 7))


WRONG = {
    "no share": ({"share": 0}, "share must lie in (0, 1), got 0"),
    "all": ({"share": 1.0}, "share must lie in (0, 1)"),
    "percent": ({"share": "20%"}, "share must lie in (0, 1), got '20%'"),
    "seed": ({"seed": -1}, "seed must be a whole number"),
    "column": ({"user": "uid"}, "log has no column 'uid'"),
    "gap": ({"log": LOG.assign(user=None)}, "row 1 has no user"),
    "few": ({"log": LOG.head(1)}, "leaves"),
    "no frame": ({"log": 3}, "must be a data frame"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_sentence(name):
    settings, fragment = WRONG[name]
    settings = {"log": LOG, **settings}
    with pytest.raises(InputError) as error:
        held_out(settings.pop("log"), **settings)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_too_many_candidates_and_trained_ones_are_said():
    n = int(MOST**0.5) + 1
    split = held_out(pd.DataFrame({"user": range(n), "item": range(n)}))
    with pytest.raises(InputError, match="too many to list"):
        split.candidates()
    split = held_out(LOG, 0.3)
    with pytest.raises(InputError, match="training rows"):
        evaluate(split, split.train.assign(score=0.5), "p")


def test_it_is_what_users_call():
    assert upo.held_out is held_out
