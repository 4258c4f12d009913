"""``upo.Propensity``: propensities of a log without ratings."""

import numpy as np
import pandas as pd
import pytest
import torch
from api_world import FEW, TRAIN

import upo
from upo.data.observations import ListedCells, observations_from_frame

CLICKS = TRAIN[["user", "item"]]
SHORT = {key: value for key, value in FEW.items() if "debias" not in key and "game" not in key}
SHORT = {key: value for key, value in SHORT.items() if "prediction" not in key}


def short(kind="additive", **settings):
    few = {**SHORT, "estimator.stages.refine": {"epochs": 1, "steps": 3}}
    return upo.Propensity(kind, **{"overrides": few, **settings})


@pytest.fixture(scope="module")
def clicks():
    return short(calibrate="isotonic", folds=2, seeds=[3, 8]).fit(CLICKS)


def grid(frame):
    users, items = np.unique(frame["user"]), np.unique(frame["item"])
    return pd.DataFrame({"user": np.repeat(users, len(items)), "item": np.tile(items, len(users))})


def test_clicks_get_propensities_that_sum_to_them(clicks):
    p = clicks.predict(grid(CLICKS))
    assert ((p > 0) & (p < 1)).all()
    assert p.sum() == pytest.approx(len(CLICKS), rel=0.1)
    assert clicks.metrics["seed"].tolist() == [3, 8]
    assert clicks.metrics["ece"].notna().all()
    assert isinstance(clicks.audit(500), upo.audit.Audit)
    assert repr(clicks) == "upo.Propensity('additive', calibrate='isotonic'), fitted"


def test_ratings_are_not_read_and_repeated_clicks_count_once(clicks):
    twice = pd.concat([TRAIN.assign(rating=7.0), TRAIN.iloc[:30]])
    again = short(calibrate="isotonic", folds=2, seeds=[3, 8]).fit(twice)
    assert again.predict(CLICKS).equals(clicks.predict(CLICKS))


def test_it_comes_back_and_its_model_predicts_what_is_observed(clicks, tmp_path):
    clicks.save(tmp_path)
    back = upo.Propensity.load(tmp_path)
    assert back.predict(CLICKS).equals(clicks.predict(CLICKS))
    assert (back.kind, back.calibrate, back.seeds) == ("additive", "isotonic", [3, 8])
    model = upo.load(tmp_path)
    assert model.predict(CLICKS).tolist() == clicks.predict(CLICKS).tolist()
    top = model.recommend(["u01"], 3, exclude_seen=False)
    assert top.score.tolist() == sorted(clicks.predict(grid(CLICKS).query("user == 'u01'")))[:-4:-1]


def test_a_table_of_pairs_with_an_indicator_is_d(tmp_path):
    listed = grid(CLICKS).sample(frac=0.6, random_state=0)
    seen = set(zip(CLICKS.user, CLICKS.item, strict=True))
    listed["shown"] = [int(pair in seen) for pair in zip(listed.user, listed.item, strict=True)]
    model = short(observed="shown", calibrate="histogram", folds=2).fit(listed)
    space = model.model.estimator.space
    assert space.n_pairs == len(listed)
    assert space.n_observed == listed.shown.sum()
    assert model.predict(listed).sum() == pytest.approx(listed.shown.sum(), rel=0.1)
    model.save(tmp_path)
    back = upo.Propensity.load(tmp_path)
    assert back.observed == "shown"
    pairs = back.pairs()
    assert len(pairs) == len(listed)
    assert set(zip(pairs.user, pairs.item, strict=True)) == set(
        zip(listed.user, listed.item, strict=True)
    )


def test_listed_cells_are_numbered():
    data = observations_from_frame(
        pd.DataFrame({"user": [2, 1, 2, 1], "item": [5, 5, 6, 5], "o": [1, 0, 0, 1]}),
        user="user",
        item="item",
        observed="o",
    )
    assert isinstance(data.cells, ListedCells)
    assert data.cells.keys.tolist() == [0, 2, 3]
    assert data.cells.number(data.cells.keys).tolist() == [0, 1, 2]
    assert data.cells.number(data.cells.keys + 1).tolist()[0] == 3
    assert data.train.keys.tolist() == [0, 2]  # observed if any row is


def test_fm_reads_features_and_answers_for_new_users():
    ids = [*np.unique(CLICKS["user"]), "new"]
    features = pd.DataFrame({"user": ids, "x": np.arange(len(ids)) % 5.0})
    model = short("fm").fit(CLICKS, user_features=features)
    p = model.predict(pd.DataFrame({"user": ["new", "u01"], "item": ["i01", "i01"]}))
    assert p.between(0, 1).all()
    assert p.attrs["unseen"] == 0
    assert model.metrics["bmse"].notna().all()


def test_the_audit_asks_what_has_not_seen_the_pair_and_reads_features(clicks, tmp_path):
    own, found = clicks.pairs(500), clicks.pairs(500, out_of_fold=True)
    assert found.columns.tolist() == own.columns.tolist()
    log = found[found.observed == 1]
    assert log[["user", "item"]].equals(own.loc[own.observed == 1, ["user", "item"]])
    assert found.weight.sum() == pytest.approx(clicks.model.estimator.space.n_pairs)
    others = found.loc[found.observed == 0, ["user", "item"]]
    seen = set(zip(CLICKS.user, CLICKS.item, strict=True))
    assert not seen & set(zip(others.user, others.item, strict=True))
    assert not clicks.pairs(500, seed=1, out_of_fold=True).equals(found)
    assert len(clicks.pairs(7, out_of_fold=True)) == len(log) + 7
    asked, held = clicks.audit(500, out_of_fold=False), clicks.audit(500)
    assert held.tests.expected.tolist() != asked.tests.expected.tolist()
    clicks.save(tmp_path)
    back = upo.Propensity.load(tmp_path)
    assert back.pairs(500, out_of_fold=True).equals(found)
    users = np.unique(CLICKS["user"])[::-1]
    told = pd.DataFrame({"user": users, "age": np.arange(len(users)) % 3, "weight": 1.0})
    told.loc[0, "weight"] = 2.0
    by_age = back.audit(500, user_features=told)
    where = by_age.tests["where"]
    assert {f"users with age={x}" for x in range(3)} <= set(where)
    assert where.str.contains("weight of user").any()
    fitted = short(calibrate="isotonic", folds=2).fit(CLICKS, user_features=told)
    assert fitted.audit(500).tests["where"].str.contains("users with age").any()
    for wrong, message in (
        (told.iloc[1:], f"no row for user '{users[0]}'"),
        (pd.concat([told, told.iloc[:1]]), "more than one row"),
        (told.rename(columns={"user": "who"}), "must have a column user"),
        (3, "must be a data frame"),
    ):
        with pytest.raises(upo.InputError, match=message):
            back.audit(500, user_features=wrong)


def test_what_is_not_calibrated_knows_nothing_out_of_fold(clicks, tmp_path):
    model = short().fit(CLICKS)
    with pytest.raises(upo.InputError, match="Nothing is known out of fold"):
        model.pairs(out_of_fold=True)
    with pytest.raises(upo.InputError, match="out_of_fold must be True or False"):
        model.pairs(out_of_fold="no")
    assert isinstance(model.audit(500), upo.audit.Audit)
    path = clicks.save(tmp_path)
    content = torch.load(path, weights_only=True)
    right = content["out_of_fold"]
    space = clicks.model.estimator.space
    wrong = [
        {},
        {**right, "others": right["others"][1:]},
        {**right, "others": torch.cat([right["others"][:-1], space.keys[:1]])},
        {**right, "others": torch.cat([right["others"][:-1], right["others"][:1]])},
        {**right, "others": right["others"] + space.n_pairs},
        {**right, "propensity": right["propensity"] + 1},
        {**right, "propensity": right["propensity"].double()},
        {**right, "propensity": right["propensity"] * torch.nan},
        {**right, "more": right["others"]},
    ]
    for found in wrong:
        torch.save({**content, "out_of_fold": found}, path)
        with pytest.raises(upo.InputError, match="out of fold is no propensity of pairs"):
            upo.load(tmp_path)


def test_predictions_of_clicks_say_what_is_missing_and_how_to_go_on():
    with pytest.raises(upo.InputError, match=r"ratings of both kinds.*target='observed'"):
        upo.fit(CLICKS.assign(rating=1.0), progress=False)
    few = {key: value for key, value in FEW.items() if "debias" not in key}
    model = upo.fit(CLICKS, target="observed", progress=False, overrides=few)
    assert model.predict(CLICKS).tolist() == model.propensity(CLICKS).tolist()
    assert model.get_params()["target"] == "observed"
    assert (
        upo.fit(CLICKS, **model.get_params(), progress=False)
        .predict(CLICKS)
        .equals(model.predict(CLICKS))
    )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: short("dr_v2").fit(CLICKS), "kind='dr_v2' is unknown"),
        (lambda: upo.Propensity("none").fit(CLICKS), "learns nothing"),
        (lambda: short("balanced").fit(CLICKS), "learned beside it"),
        (lambda: short().predict(CLICKS), "not fitted"),
        (lambda: short().fit(CLICKS[["user"]]), "no column 'item'"),
        (lambda: short(observed="o").fit(CLICKS.assign(o=2)), "an indicator is 0 or 1"),
        (lambda: short(observed="o").fit(CLICKS.assign(o=1)), "every pair of D is observed"),
        (lambda: short().fit(grid(CLICKS)), "every pair of D is observed"),
        (lambda: short().fit(CLICKS.iloc[:0]), "no rows"),
        (lambda: upo.fit(TRAIN, target="clicks"), "target must be"),
        (lambda: upo.fit(TRAIN, test=TRAIN, target="observed"), "leave test= out"),
    ],
)
def test_wrong_input_ends_in_a_sentence(act, message):
    with pytest.raises(upo.InputError, match=message):
        act()
