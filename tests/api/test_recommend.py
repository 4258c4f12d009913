"""``recommend``: the best items by brute force, for unseen users, block by block."""

import numpy as np
import pandas as pd
import pytest
from api_world import TEST, TRAIN, short

import upo


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_recommendations_equal_brute_force(fitted, exclude_seen):
    k = 25  # more than some users have left
    seen = {(u, i) for u, i in zip(TRAIN.user, TRAIN.item, strict=True) if exclude_seen}
    users = sorted(set(TRAIN.user))[::-1]
    expected = []
    for u in users:
        left = [i for i in sorted(set(TRAIN.item)) if (u, i) not in seen]
        scores = fitted.predict(pd.DataFrame({"user": u, "item": left})).to_numpy()
        order = np.argsort(-scores)[:k]
        expected += [(u, left[j], scores[j], n + 1) for n, j in enumerate(order)]
    expected = pd.DataFrame(expected, columns=["user", "item", "score", "rank"])
    found = fitted.recommend(users, k, exclude_seen=exclude_seen)
    # float32 sums of other shapes
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)
    assert exclude_seen == (len(found) < k * len(users))


def test_blocks_change_nothing(fitted, monkeypatch):
    users = [*TRAIN.user.head(20), "new", "newer"]
    whole, pairs = fitted.recommend(users, 4), fitted.predict(TEST)
    monkeypatch.setattr("upo.fitted.answers.BLOCK", 64)
    pd.testing.assert_frame_equal(fitted.recommend(users, 4), whole, rtol=1e-6)
    pd.testing.assert_series_equal(fitted.predict(TEST), pairs, rtol=1e-6)


def test_unseen_users_get_the_items_that_please_on_average(fitted, table):
    with pytest.warns(upo.UnseenIdsWarning, match="2 of 3 users"):
        found = fitted.recommend(["new", "u01", "new"], 3)
    best = np.argsort(-table["predict"].mean((0, 1)))[:3]
    assert found.item.tolist()[:3] == found.item.tolist()[6:] == fitted.item_ids[best].tolist()
    assert fitted.recommend([], 3).empty


def test_items_that_train_lacks_are_not_recommended():
    train = TRAIN[TRAIN.item != "i03"]
    model = short(train, test=TEST, overrides={"estimator.stages.debias.epochs": 1})
    assert "i03" in set(model.item_ids)
    assert set(model.recommend(["u01"], 99, exclude_seen=False).item) == set(train.item)


def test_progress_of_recommendations_is_drawn_if_asked_for(fitted, capsys):
    fitted.recommend(["u01"], 2)
    assert capsys.readouterr().err == ""
    fitted.recommend(["u01"], 2, progress=True)
    assert "users" in capsys.readouterr().err
