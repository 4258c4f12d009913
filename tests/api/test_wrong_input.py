"""Wrong tables, settings and questions each end in one sentence."""

import numpy as np
import pandas as pd
import pytest
from api_world import TEST, TRAIN, short

import upo

NUMBERED = TRAIN[["user", "item", "rating"]].set_axis([0, 1, 2], axis=1)
MANY = pd.DataFrame({"user": range(99)})
WRONG = {
    "names that are numbers": (
        {"train": NUMBERED, "user": 0, "item": 1, "rating": 2},
        "columns that are called 0, 1, 2, and names of columns here are text",
    ),
    "names that look like numbers": (
        {"train": NUMBERED, "user": "0", "item": "1", "rating": "2"},
        "columns that are called 0, 1, 2",
    ),
    "missing column": ({"train": TRAIN.drop(columns="rating")}, "no column 'rating'"),
    "missing test column": ({"test": TEST.drop(columns="user")}, "test has no column 'user'"),
    "wrong name": ({"item": "sku"}, "no column 'sku'"),
    "rating of NaN": ({"train": TRAIN.assign(rating=np.nan)}, "row 1 has no rating"),
    "infinite rating": ({"train": TRAIN.assign(rating=np.inf)}, "finite"),
    "rating of text": ({"train": TRAIN.assign(rating="good")}, "must hold numbers"),
    "empty frame": ({"train": TRAIN.head(0)}, "no rows"),
    "no frame": ({"train": [1, 2]}, "must be a data frame"),
    "None": ({"train": None}, "train is None"),
    "repeated pair": ({"train": pd.concat([TRAIN, TRAIN])}, "more than once"),
    "one class": ({"label_threshold": 9}, "label"),
    "threshold of text": ({"label_threshold": "high"}, "label_threshold"),
    "unknown estimator": ({"estimator": "best"}, "known are akbdr"),
    "unknown argument": ({"estimater": "ips"}, "no setting 'estimater'"),
    "unknown key": ({"estimator.foo": 1}, "no setting estimator.foo"),
    "unknown protocol": ({"protocol": "best"}, "known are holdout"),
    "protocol without test": ({"protocol": "paper"}, "test set"),
    "argument as override": ({"dataset.train": "x"}, "the argument train="),
    "text for a number": (
        {"estimator.learners.prediction.optimizer.lr": "fast"},
        "must be a number",
    ),
    "object for a number": ({"estimator.stages.debias.epochs": {1, 2}}, "got set"),
    "negative beta": ({"estimator.learners.game.penalties.upo.beta": -1}, "beta"),
    "column twice": (
        {"train": pd.concat([TRAIN, TRAIN[["user"]]], axis=1)},
        "more than one column 'user'",
    ),
    "no seeds": ({"seeds": 0}, "seeds"),
    "a seed beyond 64 bits": ({"seeds": [2**63]}, "below 2**63"),
    "more seeds than memory": ({"seeds": 10**12}, "more than the 10,000"),
    "a list for a name": ({"user": ["user"]}, "user must be the name of a column, as text, got l"),
    "no name": ({"item": None}, "item must be the name of a column, as text, got None"),
    "words for overrides": ({"overrides": ["a=1"]}, "overrides must be a dictionary"),
    "text for a flag": ({"estimator.weighting.relative": "no"}, "relative must be true or false"),
    "half a dimension": ({"estimator.networks.prediction.dim": 1.5}, "must be a whole number"),
    "no trials": (
        {"tune": 0},
        "tune, a number of trials, must be a whole number of at least 1, got 0",
    ),
    "another rule for pairs": ({"duplicates": "best"}, "duplicates must be one of error, mean"),
    "misspelt setting of a part": (
        {"estimator.weighting.pmin": 0.1},
        "no setting estimator.weighting.pmin with estimator=upo_dr; estimator.weighting has p_min",
    ),
    "prose for a feature": (
        {
            "train": pd.DataFrame({"user": range(99), "item": range(99), "rating": [1, 5, 3] * 33}),
            "user_features": pd.DataFrame(
                {"user": range(99), "bio": [f"I am {n}" for n in range(99)]}
            ),
        },
        "give columns of 0 and 1 (one-hot) or of numbers made of the text, for backbone=fm",
    ),
}


def test_sentences_name_arguments_of_python():
    twice = pd.concat([TRAIN, TRAIN])
    with pytest.raises(upo.InputError, match=r"by hand or with duplicates='mean'\.$"):
        short(twice)
    assert short(twice, duplicates="mean").n_observed == len(TRAIN)
    with pytest.raises(upo.InputError, match=r"choose another label_threshold\.$"):
        short(label_threshold=9)
    with pytest.raises(upo.InputError, match=r"^kind='best' is unknown; known are additive"):
        upo.Propensity("best").fit(TRAIN)
    with pytest.raises(upo.InputError, match=r"^folds must be a whole number"):
        upo.Propensity("additive", calibrate="isotonic", folds=1).fit(TRAIN)
    with pytest.raises(upo.InputError, match=r"^trials must be .* at least 1, got 0"):
        upo.tune(TRAIN, trials=0)


def test_progress_is_true_or_false():
    for ask in (
        lambda: upo.fit(TRAIN, progress="no"),
        lambda: upo.tune(TRAIN, progress="no"),
        lambda: upo.Propensity("additive", progress="no").fit(TRAIN),
        lambda: short().update(TRAIN, progress="no"),
    ):
        with pytest.raises(upo.InputError, match="progress must be True or False, got 'no'"):
            ask()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_sentence(name):
    settings, fragment = WRONG[name]
    settings = {"train": TRAIN, **settings}
    with pytest.raises(upo.InputError) as error:
        upo.fit(settings.pop("train"), progress=False, **settings)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_what_need_not_be_given_may_be_none():
    few = {"estimator.stages.debias.epochs": 1, "trainer.accelerator": "cpu"}
    model = short(estimator="naive", experiment=None, variant=None, overrides=None, **few)
    assert model.config.name == "naive"


@pytest.mark.parametrize("threshold", [np.int64(3), np.float32(3)])
def test_thresholds_of_numpy_are_numbers(threshold):
    few = {"estimator.stages.debias.epochs": 1, "trainer.accelerator": "cpu"}
    assert short(estimator="naive", label_threshold=threshold, overrides=few).n_observed


def test_folders_that_are_none_end_in_one_sentence(fitted):
    for ask in (upo.load, fitted.save, fitted.export):
        with pytest.raises(upo.InputError, match="folder must be a path, as text or a Path"):
            ask(None)
        with pytest.raises(upo.InputError, match=r"^folder is empty, as from a variable"):
            ask("")


@pytest.mark.parametrize("study", ["", 3, "."])
def test_a_study_that_is_no_file_ends_in_one_sentence(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(upo.InputError, match=r"^study( is empty|=\.| must be a path)"):
        upo.tune(TRAIN, estimator="naive", trials=1, study=study, progress=False)


def test_wrong_questions_end_in_one_sentence(fitted):
    naive = short(estimator="naive", overrides={"estimator.stages.debias.epochs": 1})
    with pytest.raises(upo.InputError, match="learns no propensity"):
        naive.propensity(TEST)
    with pytest.raises(upo.InputError, match="no column 'item'"):
        fitted.predict(TEST[["user"]])
    with pytest.raises(upo.InputError, match="row 1 has no user"):
        fitted.predict(TEST.assign(user=None))
    with pytest.raises(upo.InputError, match="k must be"):
        fitted.recommend(["u01"], 0)
    with pytest.raises(upo.InputError, match="users"):
        fitted.recommend([None])
    with pytest.raises(upo.InputError, match="exclude_seen must be True or False, got 'no'"):
        fitted.recommend(["u01"], exclude_seen="no")
    for ask in (fitted.predict, fitted.propensity):
        with pytest.raises(upo.InputError, match="average must be True or False, got 'no'"):
            ask(TEST, average="no")
