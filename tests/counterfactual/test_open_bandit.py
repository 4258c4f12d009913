"""A made file of the layout of the Open Bandit Dataset: read, refused, and evaluated."""

import numpy as np
import pandas as pd
import pytest

from upo import InputError, evaluate
from upo.counterfactual import read_open_bandit

ITEMS = 6


def rounds(n=4000, seed=0):
    """Rounds of a policy that likes items of affinity, in the columns of the files."""
    draw = np.random.default_rng(seed)
    affinity = draw.normal(size=(n, ITEMS))
    chance = np.exp(0.8 * affinity)
    chance /= chance.sum(1, keepdims=True)
    item = np.array([draw.choice(ITEMS, p=row) for row in chance])
    liked = 1 / (1 + np.exp(1.5 - affinity - 0.3 * np.arange(ITEMS)))  # P(click) of every item
    at = np.arange(n), item
    frame = pd.DataFrame(
        {
            "timestamp": "2019-11-24 00:00:00+00:00",
            "item_id": item,
            "position": 1 + np.arange(n) % 3,
            "click": (draw.random(n) < liked[at]).astype(int),
            "propensity_score": chance[at],
            "user_feature_0": np.where(draw.random(n) < 0.5, "81ce123c", "cef3390e"),
        }
    )
    affinities = pd.DataFrame(affinity, columns=[f"user-item_affinity_{i}" for i in range(ITEMS)])
    return pd.concat([frame, affinities], axis=1), liked


@pytest.fixture
def file(tmp_path):
    frame, liked = rounds()
    frame.to_csv(tmp_path / "all.csv")  # with the unnamed column of row numbers that they have
    return tmp_path / "all.csv", frame, liked


def test_a_file_is_read_as_a_log_of_rounds(file):
    path, frame, _ = file
    found = read_open_bandit(path)
    assert found.n_items == ITEMS
    assert found.log.user.tolist() == list(range(len(frame)))
    np.testing.assert_array_equal(found.log["item"], frame.item_id)
    np.testing.assert_array_equal(found.log.rating, frame.click)
    np.testing.assert_allclose(found.log.propensity, frame.propensity_score, rtol=1e-12)
    assert list(found.user_features) == ["user", "user_feature_0"]
    pairs = found.candidates()
    assert len(pairs) == ITEMS * len(frame)
    row = pairs[(pairs.user == 7) & (pairs["item"] == 2)]
    assert row.affinity.item() == pytest.approx(frame["user-item_affinity_2"][7])
    first = read_open_bandit(path, position=2)
    assert set(first.log.position) == {2}
    assert first.log.user.tolist() == list(range(1, len(frame), 3))


def test_the_worth_of_a_policy_is_that_of_off_policy_evaluation(file):
    """Precision at 1 by IPS is the mean of click / propensity where the policy agrees."""
    path, frame, liked = file
    found = read_open_bandit(path)
    scores = found.candidates().rename(columns={"affinity": "score"})
    settings = {"metrics": "precision", "k": 1, "label_threshold": 1, "estimator": ["ips", "snips"]}
    answer = evaluate(found.log, scores, **settings).set_index("estimator")
    best = frame.filter(like="affinity").to_numpy().argmax(1)
    agrees = best == frame.item_id.to_numpy()
    w = agrees / frame.propensity_score
    assert answer.estimate["ips"] == pytest.approx((w * frame.click).mean(), rel=1e-9)
    assert answer.estimate["snips"] == pytest.approx((w * frame.click).sum() / w.sum(), rel=1e-9)
    truth = liked[np.arange(len(best)), best].mean()
    assert (answer.low <= truth).all()
    assert (truth <= answer.high).all()


WRONG = {
    "no propensity": (lambda f: f.drop(columns="propensity_score"), "no column propensity_score"),
    "propensity of 0": (lambda f: f.assign(propensity_score=0.0), "probabilities in (0, 1], got 0"),
    "click of 2": (lambda f: f.assign(click=2), "0 or 1, got 2"),
    "half an item": (lambda f: f.assign(item_id=0.5), "whole numbers of at least 0, got 0.5"),
    "click of text": (lambda f: f.assign(click="yes"), "must hold numbers"),
    "no rows": (lambda f: f[:0], "has no rows"),
    "items without affinity": (lambda f: f.drop(columns="user-item_affinity_5"), "items beyond"),
    "affinities with a gap": (lambda f: f.drop(columns="user-item_affinity_2"), "from 0 is needed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_end_in_one_sentence(name, tmp_path):
    change, fragment = WRONG[name]
    change(rounds(60)[0]).to_csv(tmp_path / "all.csv")
    with pytest.raises(InputError) as error:
        read_open_bandit(tmp_path / "all.csv")
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_position_is_named(file):
    with pytest.raises(InputError, match="no round at position 4, only at 1, 2, 3"):
        read_open_bandit(file[0], position=4)
