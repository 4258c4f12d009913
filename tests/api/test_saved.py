"""Saved models come back the same; what is no model, or cannot be one, ends in a sentence."""

import re

import pandas as pd
import pytest
import torch
from api_world import FEW, TRAIN, short
from processes import command

import upo


def test_a_saved_model_comes_back_the_same(fitted, tmp_path):
    path = fitted.save(tmp_path / "deep" / "model")
    # nothing temporary is left
    assert {p.name for p in path.parent.iterdir()} == {path.name, "model_card.md"}
    content = torch.load(path, weights_only=True)
    assert content["upo"]
    assert isinstance(content["config"], str)
    for back in (upo.load(path.parent), upo.load(path)):
        users = ["u01", "new", "u01", "?", "u02", "u03", "u04"]
        items = ["i02", "i02", "?", "?", "i03", "i04", "i05"]
        pairs = pd.DataFrame({"user": users, "item": items})
        for what in ("predict", "propensity"):
            for average in (True, False):
                mine = getattr(fitted, what)(pairs, average=average)
                assert getattr(back, what)(pairs, average=average).equals(mine)
        users = TRAIN.user.unique()
        pd.testing.assert_frame_equal(back.recommend(users, 5), fitted.recommend(users, 5))
        pd.testing.assert_frame_equal(back.metrics, fitted.metrics)
        assert repr(back) == repr(fitted)


@pytest.mark.parametrize("kind", ["isotonic", "gbdt"])
def test_a_calibrated_model_comes_back_with_its_calibration(kind, tmp_path):
    sides = ("user", "item")
    columns = {
        f"{side}_features": pd.DataFrame(
            {side: ids, "x": range(len(ids)), "y": [float(k % 3) for k in range(len(ids))]}
        )
        for side in sides
        for ids in [sorted(set(TRAIN[side]))]
    }
    settings = {"propensity.calibrate": kind, "propensity.folds": 2}
    model = short(overrides={**FEW, **settings}, **columns)
    back = upo.load(model.save(tmp_path))
    assert back.propensity(TRAIN).equals(model.propensity(TRAIN))
    pairs = model.pairs()
    sums = (pairs.weight * pairs.propensity).sum(), (pairs.weight * pairs["observed"]).sum()
    assert sums[0] == pytest.approx(sums[1], rel=0.05)
    assert model.get_params()["overrides"]["propensity.calibrate"] == kind


@pytest.mark.filterwarnings("ignore::upo.FailedSeedsWarning")
def test_a_model_of_which_a_seed_diverged_comes_back(tmp_path):
    rates = {
        "estimator.learners.prediction.optimizer.lr": [0.05, 1e38, 0.05],
        "estimator.networks.prediction.init_scale": [0.03, 0.1, 0.3],
    }
    settings = {"propensity.calibrate": "isotonic", "propensity.folds": 2}
    model = short(seeds=3, overrides={**FEW, **rates, **settings})
    assert model.seeds == [0, 2]
    assert model.metrics["seed"].tolist() == [0, 1, 2]
    path = model.save(tmp_path)
    back = upo.load(path)
    assert back.predict(TRAIN).equals(model.predict(TRAIN))
    pd.testing.assert_frame_equal(back.metrics, model.metrics)
    assert back.pairs(50, out_of_fold=True).equals(model.pairs(50, out_of_fold=True))
    content = torch.load(path, weights_only=True)
    for seeds in ([0, 1, 3], [0, 1], [0, 1, 2, 3]):  # one lacks, or columns are of other lengths
        torch.save({**content, "metrics": {**content["metrics"], "seed": seeds}}, path)
        with pytest.raises(upo.InputError, match="no table with a row for each seed"):
            upo.load(path)


def test_a_model_in_float64_comes_back_in_float64(tmp_path):
    """Three seeds, of which one stops first, so that smaller stacks are built on the way."""
    settings = {**FEW, "trainer.precision": "64-true", "estimator.stages.debias.epochs": 12}
    settings |= {"estimator.stages.debias.patience": 2, "refit": True}
    model = short(
        seeds=3, overrides={**settings, "estimator.learners.prediction.optimizer.lr": 0.1}
    )
    assert model.estimator.dtype == torch.float64
    path = model.save(tmp_path)
    for trusted in (False, True):
        back = upo.load(path, trusted=trusted)
        assert back.estimator.dtype == torch.float64
        assert back.predict(TRAIN).equals(model.predict(TRAIN))
    assert back.update(TRAIN[:50], epochs=1).estimator.dtype == torch.float64


def test_files_that_are_no_model_are_refused_in_a_sentence(fitted, tmp_path):
    with pytest.raises(upo.InputError, match="is not there"):
        upo.load(tmp_path)
    path = fitted.save(tmp_path)
    content = torch.load(path, weights_only=True)
    wrong = {
        "schema 99": {**content, "schema": 99},
        "os.system": {
            **content,
            "config": re.sub(r"upo\.models\.\w+\.\w+", "os.system", content["config"]),
        },
        "upo.models.derived.nn.Module": {
            **content,
            "config": content["config"].replace(
                "upo.models.weighting.ClippedPropensity", "upo.models.derived.nn.Module"
            ),
        },
        "not a readable model": {**content, "user_ids": content["user_ids"][1:]},
    }
    for fragment, changed in wrong.items():
        torch.save(changed, path)
        with pytest.raises(upo.InputError, match=fragment):
            upo.load(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(upo.InputError, match="not a readable model"):
        upo.load(tmp_path)


def test_what_cannot_be_saved_is_refused_in_a_sentence(fitted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(upo.InputError, match="cannot be written"):
        fitted.save(tmp_path / "file")


@pytest.mark.parametrize("kind", ["days", "times", "float32", "lines"])
def test_ids_of_any_kind_are_kept_and_asked_for(kind, tmp_path):
    number = TRAIN.user.str[1:].astype(int)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(number, "D")
    users = {
        "days": day.dt.date,
        "times": day + pd.Timedelta(1, "ms"),
        "float32": number.astype("float32"),
        "lines": "a\r\n" + number.astype(str),
    }
    train = TRAIN.assign(user=users[kind])
    train.to_parquet(tmp_path / "log.parquet")
    model = short(train, estimator="naive", overrides={"estimator.stages.debias.epochs": 1})
    model.save(tmp_path)
    back = upo.load(tmp_path)
    asked = pd.read_parquet(tmp_path / "log.parquet")
    for pairs in (train, asked):
        assert model.predict(pairs).attrs["unseen"] == 0
        assert back.predict(pairs).equals(model.predict(pairs))


def test_ids_that_cannot_be_asked_for_are_refused_before_training():
    number = TRAIN.user.str[1:].astype(int)
    for users, reason in (
        (pd.to_timedelta(number, "D"), "duration"),
        (number + 0.5, "fraction"),
    ):
        with pytest.raises(upo.InputError, match=f"{reason}.* cannot be an id"):
            short(TRAIN.assign(user=users), estimator="naive", overrides={})


def test_a_run_folder_is_loaded_too(tmp_path):
    words = [
        *("dataset=synthetic", "dataset.n_users=40", "dataset.n_items=30", "dataset.density=0.2"),
        *("estimator=naive", "estimator.stages.debias.epochs=1", "logger=none", "figures=false"),
        *("progress=false", "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path}"),
    ]
    done = command("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = upo.load(tmp_path)
    pairs = pd.DataFrame({"user": [0, 1], "item": [2, 3]})
    assert model.predict_proba(pairs).between(0, 1).all()
    with pytest.raises(upo.InputError, match="is not there"):
        upo.load(tmp_path / "checkpoints")
