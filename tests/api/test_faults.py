"""Questions once answered wrongly without a word, and frames that ended in a traceback."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from api_world import FEW, TRAIN, short

import upo


@pytest.fixture(scope="module")
def numbered():
    """A log whose ids are whole numbers."""
    ids = {name: TRAIN[name].str[1:].astype(int) for name in ("user", "item")}
    return TRAIN.assign(**ids)


def test_columns_that_are_called_by_numbers_are_refused_in_a_sentence(numbered):
    bare = pd.DataFrame(numbered.to_numpy())  # as of read_csv(header=None)
    for words in ({}, {"user": 0, "item": 1, "rating": 2}, {"user": "0", "item": "1"}):
        with pytest.raises(upo.InputError, match=r"called 0, 1, 2, and names of columns") as error:
            short(bare, **words)
        assert "frame.columns = ['user', 'item', 'rating']" in str(error.value)


def test_a_frame_of_users_is_asked_for_its_users(fitted):
    users = ["u03", "u01", "u03"]
    expected = fitted.recommend(["u03", "u01"], 3)
    table = pa.table({"user": users, "more": [1, 2, 3]})
    for frame in (pd.DataFrame({"user": users}), table, {"user": users}):
        pd.testing.assert_frame_equal(fitted.recommend(frame, 3), expected)
    with pytest.raises(upo.InputError, match="users has no column 'user', only uid"):
        fitted.recommend(pd.DataFrame({"uid": users}), 3)


def test_ids_are_found_by_value_however_they_are_spelled(numbered):
    """Also in a test set, which once had twice the users."""
    few = {"estimator": "naive", "overrides": {"estimator.stages.debias.epochs": 2}}
    test = numbered.sample(60, random_state=1)
    spelled = test.astype({"user": float}).astype({"user": str})
    assert spelled["user"].str.endswith(".0").all()
    plain, other = (short(numbered, test=frame, **few) for frame in (test, spelled))
    assert plain.user_ids.tolist() == other.user_ids.tolist()
    pd.testing.assert_frame_equal(
        plain.metrics.drop(columns="train_seconds"), other.metrics.drop(columns="train_seconds")
    )
    expected = plain.predict(test)
    assert len(set(expected)) > 10
    assert np.array_equal(plain.predict(spelled), expected)
    assert np.array_equal(plain.predict(test.astype({"user": float})), expected)


def test_text_of_a_table_is_found_by_the_number_it_spells(numbered):
    """Exactly first; by value where one id alone spells it."""
    few = {"estimator": "naive", "overrides": {"estimator.stages.debias.epochs": 1}}
    text, point = (numbered.astype({"user": kind}).astype({"user": str}) for kind in (int, float))
    for train, asked in ((text, point), (point, text), (point, numbered), (text, numbered)):
        model = short(train, **few)
        expected = model.predict(train.head(20))
        assert len(set(expected)) > 10
        found = model.predict(asked.head(20))
        assert found.equals(expected)
        assert found.attrs["unseen"] == 0
    both = short(
        pd.concat([text.astype({"item": str}), point.assign(item="x" + point.item.astype(str))]),
        **few,
    )
    seven = pd.DataFrame({"user": ["7", "7.0", "7.00"], "item": ["x3"] * 3})
    assert both.predict(seven).attrs["unseen_users"] == pytest.approx(1 / 3)
    assert len(set(both.predict(seven))) == 3


def test_what_upo_auto_has_learned_is_saved_with_its_network(tmp_path):
    model = short(propensity="upo_auto", overrides=FEW)
    model.save(tmp_path)
    assert upo.load(tmp_path).propensity(TRAIN).equals(model.propensity(TRAIN))
