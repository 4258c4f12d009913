"""``model.update(log)`` goes on from the fitted tables and grows by the ids of a later log."""

import numpy as np
import pandas as pd
import pytest
import torch
from api_world import FEW, TRAIN, short
from omegaconf import OmegaConf

import upo
from upo.errors import InputError

SETTINGS = {**FEW, "estimator.stages.debias.epochs": 8}
OLD_USERS = TRAIN.user < "u30"
OLD = TRAIN[OLD_USERS & (TRAIN.item < "i25")]
NEW = TRAIN.drop(OLD.index)


@pytest.fixture(scope="module")
def model():
    return short(OLD, seeds=[3, 8], overrides=SETTINGS)


@pytest.fixture(scope="module")
def later(model):
    return model.update(NEW, epochs=2)


def said(model):
    """Mean predictions of the later ratings, without a word of unseen ids."""
    return model.values("prediction", NEW).mean(0)


def tables(model, name):
    state, space = model.estimator.state_dict(), model.estimator.space
    return state[name].view(space.replicas, -1, state[name].shape[-1])


def test_known_ids_keep_their_places_and_new_ones_follow(model, later):
    n = len(model.user_ids)
    assert list(later.user_ids[:n]) == list(model.user_ids)
    assert list(later.user_ids[n:]) == sorted(set(NEW.user) - set(OLD.user))
    assert set(later.item_ids) == set(TRAIN.item)
    assert later.estimator.space.n_observed == len(TRAIN)
    assert later.estimator.space.n_train == len(NEW)


def test_new_ids_are_answered_by_themselves(model, later):
    pairs = NEW[NEW.user >= "u30"][["user", "item"]]
    assert (model.places(pairs)[0] < 0).all()
    found = later.predict(pairs)
    assert found.attrs["unseen"] == 0.0
    assert found.groupby(pairs.item).std().max() > 1e-4


@pytest.mark.filterwarnings("ignore::upo.FailedSeedsWarning")
def test_each_replica_goes_on_with_its_own_settings_where_one_diverged(model, later):
    """Values for each replica are those of the seeds that are left: 3 and 8 go on as ever."""
    key = "estimator.learners.prediction.optimizer.lr"
    rate = OmegaConf.select(model.config, key.removeprefix("estimator."))
    odd = short(OLD, seeds=[3, 5, 8], overrides={**SETTINGS, key: [rate, 1e38, 4 * rate]})
    assert odd.seeds == [3, 8]
    more = odd.update(NEW, epochs=2)
    again = more.update(NEW, epochs=1)
    assert more.seeds == again.seeds == [3, 8]
    assert again.metrics["seed"].tolist() == [3, 5, 8]
    mine, other = (x.values("prediction", NEW) for x in (more, later))
    torch.testing.assert_close(mine[0], other[0], rtol=1e-4, atol=1e-6)
    assert (mine[1] - other[1]).abs().max() > 1e-2


def test_rows_of_ids_that_the_log_does_not_have_stay(model):
    """No prediction row of a user without new ratings moves: optimisers move looked-up rows."""
    few = NEW[NEW.user >= "u30"]
    later = model.update(few, epochs=1)
    n = len(model.user_ids)
    for role in ("prediction", "imputation"):
        name = f"networks.{role}.user.weight"
        before, after = tables(model, name), tables(later, name)
        if role == "imputation":
            assert torch.equal(before, after[:, :n])
    # the prediction's are looked up in pairs of D, too; without that they stay
    naive = short(OLD, estimator="naive", seeds=[3], overrides=naive_settings())
    moved = naive.update(few, epochs=1)
    assert torch.equal(
        *(tables(m, "networks.prediction.user.weight")[:, :n] for m in (naive, moved))
    )


def naive_settings():
    return {
        key: value
        for key, value in SETTINGS.items()
        if "propensity" not in key and "game" not in key
    }


def test_new_rows_start_as_a_fresh_fit_starts_them(model):
    """Without a step that moves them; the fit of both logs starts tables of the same sizes."""
    still = {"estimator.learners.prediction.optimizer.lr": 1e-30}
    settings = naive_settings() | still
    one = short(OLD, estimator="naive", seeds=[3], overrides=settings).update(NEW, epochs=1)
    fresh = short(pd.concat([OLD, NEW]), estimator="naive", seeds=[3], overrides=settings)
    n = len(set(OLD.user))
    # by index; ids of the fresh fit are sorted, and so are these
    assert list(one.user_ids) == list(fresh.user_ids)
    name = "networks.prediction.user.weight"
    torch.testing.assert_close(tables(one, name)[:, n:], tables(fresh, name)[:, n:])


def test_an_update_learns_the_new_ratings(model, later):
    more = model.update(NEW, epochs=20)
    label = torch.tensor((NEW.rating >= 3).to_numpy(dtype=float))
    error = [float(((said(m) - label) ** 2).mean()) for m in (model, later, more)]
    assert error[0] > error[1] > error[2]


def test_an_update_is_the_same_again_and_after_reading_the_model(model, later, tmp_path):
    pd.testing.assert_series_equal(model.update(NEW, epochs=2).predict(NEW), later.predict(NEW))
    model.save(tmp_path / "old")
    again = upo.load(tmp_path / "old").update(NEW, epochs=2)
    pd.testing.assert_series_equal(again.predict(NEW), later.predict(NEW))
    later.save(tmp_path / "new")
    pd.testing.assert_series_equal(upo.load(tmp_path / "new").predict(NEW), later.predict(NEW))
    assert list(later.metrics) == ["seed"]


def test_each_seed_is_as_it_would_be_alone(later):
    alone = short(OLD, seeds=[8], overrides=SETTINGS).update(NEW, epochs=2)
    np.testing.assert_allclose(
        later.predict(NEW, average=False)[8], alone.predict(NEW), rtol=0, atol=1e-4
    )


def test_ratings_keep_their_scale():
    model = short(OLD, target="rating", overrides=SETTINGS)
    later = model.update(NEW.assign(rating=5), epochs=3)
    assert later.target == "rating"
    assert later.estimator.space.target == model.estimator.space.target
    assert said(later).mean() > said(model).mean()


WRONG = {
    "epochs": (NEW, {"epochs": 0}, "epochs must be"),
    "no rows": (NEW[:0], {}, "has no rows"),
    "no column": (NEW.drop(columns="rating"), {}, "no column 'rating'"),
    "numbers": (NEW.assign(user=range(len(NEW))), {}, "whole numbers, and the users of the model"),
    "repeated": (pd.concat([NEW, NEW]), {}, "more than once"),
    "gap": (NEW.assign(rating=np.nan), {}, "has no rating"),
}


@pytest.mark.parametrize(("log", "settings", "said"), WRONG.values(), ids=WRONG)
def test_wrong_logs_are_refused(model, log, settings, said):
    with pytest.raises(InputError, match=said):
        model.update(log, **settings)


def test_models_that_cannot_go_on_say_so(model, tmp_path):
    clicks = short(OLD, target="observed", overrides={"trainer.accelerator": "cpu"})
    with pytest.raises(InputError, match="train this one again"):
        clicks.update(NEW)
    path = model.save(tmp_path)
    content = torch.load(path)
    content["params"]["overrides"]["estimator.learners.prediction._target_"] = "os.system"
    torch.save(content, path)
    with pytest.raises(InputError, match="names code"):
        upo.load(tmp_path).update(NEW)
