"""``upo.fit`` says when a model, its weights, or the ids of a question are worth nothing."""

import json
import warnings

import pandas as pd
import pytest
from api_world import FEW, TEST, TRAIN, frame, short

import upo
from upo.data.world import SyntheticWorld
from upo.runs.remarks import remarks, useless_model, useless_weights
from upo.runs.results import table

GOOD = {
    "estimator.stages.debias.epochs": 8,
    "estimator.learners.prediction.optimizer.lr": 0.05,
    "trainer.accelerator": "cpu",
}
WORTHLESS = {
    "tiny rate": {"estimator.learners.prediction.optimizer.lr": 1e-9},
    "huge decay": {
        "backbone": "mf_plain",
        "estimator.learners.prediction.optimizer.weight_decay": 1e3,
    },
}


@pytest.fixture(scope="module")
def log():
    """3,900 ratings, of which 390 validate."""
    return frame(SyntheticWorld(150, 130, density=0.2).log())


@pytest.mark.parametrize("settings", WORTHLESS.values(), ids=WORTHLESS)
def test_a_model_that_is_no_better_than_a_constant_is_warned_of(log, settings):
    with pytest.warns(upo.UselessModelWarning, match="no better than the constant") as caught:
        model = upo.fit(log, estimator="naive", progress=False, overrides=GOOD | settings)
    assert caught[0].filename == __file__
    row = model.metrics.iloc[0]
    assert row.val_constant_log_loss - row.val_log_loss < 2 * row.val_gain_error


def test_a_good_model_is_not_warned_of(log):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = upo.fit(log, estimator="naive", progress=False, seeds=2, overrides=GOOD)
    gain = model.metrics.val_constant_log_loss - model.metrics.val_log_loss
    assert (gain > 2 * model.metrics.val_gain_error).all()
    assert model.metrics.clip_share.isna().all(), "no propensity, no clip"


def test_weights_at_the_clip_are_warned_of():
    clip = {"estimator.weighting.p_min": 1.0, "estimator.weighting.relative": False}
    settings = {key: value for key, value in FEW.items() if "game" not in key} | clip
    with pytest.warns(upo.UselessWeightsWarning, match="100% of the log's rows"):
        model = worthy(estimator="ips", overrides=settings)
    assert model.metrics.clip_share.tolist() == [1.0]
    assert model.metrics.effective_sample_size.tolist() == pytest.approx([1.0])


def worthy(**settings):
    """A short fit whose model may be worth nothing; its weights are warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", upo.UselessModelWarning)
        return upo.fit(TRAIN, progress=False, **settings)


def test_the_constant_stands_beside_the_model(fitted):
    label = (TEST.rating >= 3).astype(float)
    row = fitted.metrics.iloc[0]
    # the training mean: of the log less its held-out tenth, so near that of the log
    mean = (TRAIN.rating >= 3).mean()
    expected = ((label - mean) ** 2).mean()
    assert row.constant_mse == pytest.approx(expected, abs=0.01)
    assert 0 < row.effective_sample_size <= 1
    assert 0 <= row.clip_share <= 1


ROW = {
    "dataset": "d",
    "estimator": "e",
    "protocol": "holdout",
    "seed": 0,
    "auc": 0.6,
    "log_loss": 0.66,
    "constant_log_loss": 0.69,
    "val_log_loss": 0.66,
    "val_constant_log_loss": 0.69,
    "val_gain_error": 0.01,
    "clip_share": 0.2,
    "effective_sample_size": 0.7,
    "parameters": 10,
    "train_seconds": 1.0,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"val_gain_error": 0.015}, ["not clearly better"]),  # two standard errors, not more
        ({"val_gain_error": float("nan")}, ["cannot be told"]),
        ({"val_log_loss": float("nan")}, ["no better"]),
        ({"clip_share": 0.51, "effective_sample_size": 0.95}, ["51% of the log's rows"]),
        ({"clip_share": 0.51, "effective_sample_size": 0.85}, []),  # the other half differs enough
        ({"clip_share": 0.5}, []),
        ({"effective_sample_size": 0.99995}, ["all alike"]),
        ({"clip_share": float("nan"), "effective_sample_size": float("nan")}, []),
        (
            {"val_log_loss": 0.7, "clip_share": 1.0, "effective_sample_size": 1.0},
            ["no better", "100%"],
        ),
    ],
)
def test_remarks_on_rows(change, said):
    found = remarks([ROW | change])
    assert len(found) == len(said)
    for sentence, part in zip(found, said, strict=True):
        assert part in sentence
    text = table([ROW | change], title="t", remarks=found)
    assert text.count("Warning: ") == len(said)


def test_better_within_the_noise_is_told_from_worse():
    noisy = useless_model([ROW | {"val_log_loss": 0.6, "val_gain_error": 0.1}])
    assert "is not clearly better than the constant" in str(noisy)
    assert "so few rows can tell; give more ratings" in str(noisy)
    worse = useless_model([ROW | {"val_log_loss": 0.7, "val_gain_error": 0.1}])
    assert "is no better than the constant" in str(worse)


@pytest.mark.parametrize(("threshold", "share"), [(1.5, "99."), (4.99, "0.")])
def test_labels_of_nearly_one_kind_are_warned_of(threshold, share):
    """Ratings of another scale than the threshold is for: nearly all of them are positive."""
    few = {"estimator": "naive", "overrides": {"estimator.stages.debias.epochs": 1}}
    odd = TRAIN.assign(rating=[5.0 if threshold > 4 else 1.0, *[3.0] * (len(TRAIN) - 1)])
    odd.loc[odd.index[1], "rating"] = 5.0 if threshold > 4 else 1.0  # one of two may be held out
    with pytest.warns(
        upo.RareLabelsWarning, match=rf"^{share}.*% of the ratings are positive \(rat"
    ):
        short(odd, label_threshold=threshold, **few)
    with warnings.catch_warnings():
        warnings.simplefilter("error", upo.RareLabelsWarning)
        short(TRAIN, **few)
        short(odd, label_threshold=threshold, target="rating", **few)


def test_one_seed_of_two_is_counted():
    rows = [ROW, ROW | {"seed": 1, "val_log_loss": 0.7}]
    assert "The model of 1 of 2 seeds" in str(useless_model(rows))
    assert useless_weights(rows) is None


def test_the_table_has_the_constant_beside_its_metric():
    lines = table([ROW], title="t").splitlines()
    found = {line.split()[0]: line.split()[-1] for line in lines[2:-1]}
    assert (found["auc"], found["log_loss"], found["val_log_loss"]) == ("0.5", "0.69", "0.69")
    assert "constant_log_loss" not in found
    assert lines[1].split()[-1] == "constant"


# -- unseen ids ---------------------------------------------------------------------------------


def test_answers_say_what_share_of_their_ids_is_unseen(fitted):
    pairs = pd.DataFrame({"user": ["u01", "u02", "u03", "new"], "item": ["i01", "?", "i02", "?"]})
    for what in (fitted.predict, fitted.propensity):
        answer = what(pairs)
        assert answer.attrs == {"unseen_users": 0.25, "unseen_items": 0.5, "unseen": 0.5}
    assert fitted.predict(pairs.head(1), average=False).attrs["unseen"] == 0
    assert fitted.predict(pairs.head(0)).attrs["unseen"] == 0
    assert fitted.recommend(["u01", "new"], 1).attrs["unseen"] == 0.5


def test_questions_that_mostly_miss_are_warned_of(fitted):
    pairs = TEST.head(4)
    for wrong in (pairs.assign(user=pairs.user + " "), pairs.assign(item=pairs.item.str[1:])):
        with pytest.warns(upo.UnseenIdsWarning, match=r"4 of 4 pairs \(100.0%\)") as caught:
            fitted.predict(wrong)
        assert caught[0].filename == __file__
    with pytest.warns(upo.UnseenIdsWarning, match=r"2 of 3 users \(66.7%\)") as caught:
        fitted.recommend(["1 ", "u07", "U07"], 2)
    assert caught[0].filename == __file__


def test_a_test_set_of_other_ids_is_warned_of():
    few = {"estimator": "naive", "overrides": {"estimator.stages.debias.epochs": 1}}
    others = TEST.assign(user="x" + TEST.user)
    with pytest.warns(upo.UnseenIdsWarning, match=r"100.0% of the test rows have a user or an"):
        short(test=others, **few)
    half = pd.concat([TEST, others.head(len(TEST))])
    with warnings.catch_warnings():
        warnings.simplefilter("error", upo.UnseenIdsWarning)
        short(test=half, **few)


def test_text_that_stands_for_a_number_finds_it():
    train = TRAIN.assign(user=TRAIN.user.str[1:].astype(int))
    model = short(train, estimator="naive", overrides={"estimator.stages.debias.epochs": 1})
    pairs = train.head(6)
    answer = model.predict(pairs.assign(user=[f"{u}.0" for u in pairs.user]))
    assert answer.equals(model.predict(pairs))
    assert answer.attrs["unseen"] == 0
    odd = pairs.head(2).assign(user=["1.5", "u1"])
    with pytest.warns(upo.UnseenIdsWarning, match="2 of 2 pairs"):
        assert model.predict(odd).attrs["unseen_users"] == 1


def test_warnings_are_public_and_plain():
    names = [name for name in upo.__all__ if name.endswith("Warning")]
    for kind in (getattr(upo, name) for name in names):
        assert issubclass(kind, UserWarning)
        assert json.dumps(kind.__doc__).count(".") == 1
