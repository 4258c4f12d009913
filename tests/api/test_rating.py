"""``target="rating"``: ratings are predicted on their scale, by squared error."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import rows
import torch
from api_world import FEW, TEST, TRAIN, short

import upo
from upo.errors import InputError
from upo.runs.compose import composed
from upo.runs.config import check

HALVES = 0.5 * TRAIN.rating + 2.0  # 2.5 .. 4.5
LEARNED = {
    "estimator.stages.debias.epochs": 12,
    "estimator.learners.prediction.optimizer.lr": 0.05,
    "trainer.accelerator": "cpu",
}


@pytest.fixture(scope="module")
def model():
    return short(test=TEST, target="rating", seeds=[3, 8])


def test_predictions_are_ratings_of_the_scale(model):
    found = model.predict(TEST)
    assert TRAIN.rating.min() <= found.min() < found.max() <= TRAIN.rating.max()
    assert found.std() > 0.05
    assert abs(found.mean() - TRAIN.rating.mean()) < 1


def test_the_test_is_measured_by_rmse_and_mae_and_by_rankings_of_the_threshold(model):
    single = model.predict(TEST, average=False)
    gap = single.sub(TEST.rating, axis=0)
    row = model.metrics.set_index("seed")
    for seed in (3, 8):
        assert row.rmse[seed] == pytest.approx(np.sqrt((gap[seed] ** 2).mean()), rel=1e-5)
        assert row.mae[seed] == pytest.approx(gap[seed].abs().mean(), rel=1e-5)
    assert {"auc", "ndcg@5", "constant_rmse", "constant_mae", "val_mse"} <= set(row)
    assert not {"log_loss", "mse", "val_log_loss"} & set(row)
    # the constant is the mean of nine tenths of the log
    rough = np.sqrt(((TEST.rating - TRAIN.rating.mean()) ** 2).mean())
    assert row.constant_rmse[3] == pytest.approx(rough, rel=0.02)


def test_the_scale_of_ratings_changes_nothing_but_the_unit(model):
    other = short(
        TRAIN.assign(rating=HALVES),
        test=TEST.assign(rating=0.5 * TEST.rating + 2.0),
        target="rating",
        seeds=[3, 8],
        label_threshold=3.5,
    )
    # labels are standardised, so only float32 rounding differs
    np.testing.assert_allclose(
        other.predict(TEST), 0.5 * model.predict(TEST) + 2.0, rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(other.metrics.rmse, 0.5 * model.metrics.rmse, rtol=1e-3)
    np.testing.assert_allclose(other.metrics.val_mse, 0.25 * model.metrics.val_mse, rtol=1e-3)
    np.testing.assert_allclose(other.metrics.dr_bias, 0.25 * model.metrics.dr_bias, rtol=5e-3)
    np.testing.assert_allclose(
        other.metrics.dr_variance, 0.0625 * model.metrics.dr_variance, rtol=5e-3
    )


def test_an_untrained_model_predicts_the_training_mean():
    start = {
        **FEW,
        "estimator.learners.prediction.optimizer.lr": 1e-12,
        "estimator.networks.prediction.init_scale": 0.0,
    }
    with pytest.warns(upo.UselessModelWarning, match=r"squared error 1\.\d+ against 1"):
        model = upo.fit(TRAIN, target="rating", test=TEST, progress=False, overrides=start)
    assert model.predict(TEST).std() < 1e-6
    row = model.metrics.iloc[0]
    assert row.rmse == pytest.approx(row.constant_rmse, rel=1e-6)
    assert row.mae == pytest.approx(row.constant_mae, rel=1e-6)


def test_a_model_of_ratings_is_saved_and_read(model, tmp_path):
    model.save(tmp_path)
    again = upo.load(tmp_path)
    assert again.target == "rating"
    pd.testing.assert_series_equal(again.predict(TEST), model.predict(TEST))
    assert again.get_params() == model.get_params()
    assert again.get_params()["target"] == "rating"
    best = again.recommend(["u01"], 3)
    pd.testing.assert_frame_equal(best, model.recommend(["u01"], 3))


def test_a_file_without_a_scale_is_refused(model, tmp_path):
    path = model.save(tmp_path)
    content = torch.load(path)
    for scale in (None, [1.0, 5.0, 9.0, 1.0], [1.0, 5.0, 3.0, float("nan")], [1, 5, 3]):
        torch.save(content | {"scale": scale}, path)
        with pytest.raises(InputError, match="scale"):
            upo.load(tmp_path)


def test_probabilities_of_ratings_are_refused(model):
    with pytest.raises(InputError, match="predicts ratings"):
        model.predict_proba(TEST)


def test_scores_rank_pairs_that_predictions_clip_to_a_tie():
    """Ratings 1 and 2 by the sum of two effects: what is additive overshoots at the ends."""
    grid = pd.DataFrame({"user": np.arange(400) // 20, "item": np.arange(400) % 20})
    grid["rating"] = 1.0 + (grid.user + grid.item > 19)
    log = grid.sample(frac=0.6, random_state=0)
    steep = {
        **LEARNED,
        "estimator.stages.debias.epochs": 40,
        "estimator.networks.prediction.dim": 1,
        "estimator.learners.prediction.penalty": {"rows": 1.0, "biases": 0.0},
    }
    model = short(log, target="rating", estimator="naive", overrides=steep, label_threshold=2)
    best = model.recommend([19], 20, exclude_seen=False)
    assert best.score.is_monotonic_decreasing
    clipped = model.predict(best)
    assert (clipped == 2.0).sum() > 1, "ties"
    assert best.score.iloc[0] > best.score.iloc[1] > 2.0
    np.testing.assert_allclose(clipped, best.score.clip(1.0, 2.0), rtol=1e-6)


def test_ratings_are_written_out(model, tmp_path):
    """Tables with the numbers of the scale, and a graph, answer as the model does."""
    model.export(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["answers"]["prediction"]["link"] == "scale"
    scale = content["scale"]
    space = model.estimator.space
    users, items = (torch.randint(0, n, (50,)) for n in (space.n_users, space.n_items))
    with torch.no_grad():
        z = model.estimator.networks["prediction"](users.expand(2, -1), items.expand(2, -1))
    expected = (scale["centre"] + scale["spread"] * z).clamp(scale["low"], scale["high"]).mean(0)
    pairs = pd.DataFrame({"user": model.user_ids[users], "item": model.item_ids[items]})
    np.testing.assert_allclose(model.predict(pairs), expected, rtol=1e-6)
    runtime = pytest.importorskip("onnxruntime")
    graph = runtime.InferenceSession(model.to_onnx(tmp_path / "graph.onnx").read_bytes())
    asked = {"user_index": users.numpy(), "item_index": items.numpy()}
    np.testing.assert_allclose(graph.run(None, asked)[0], expected, rtol=1e-5)


NEED = {
    *("asips", "ips_v2", "dr_v2", "cvib", "tdr", "tdr_jl", "dce_dr", "dce_tdr", "mr", "cali_mr"),
}


@pytest.mark.parametrize("name", rows.each())
def test_every_estimator_predicts_ratings_or_says_why_not(name):
    words = ["target=rating", f"estimator={name}", "logger=none"]
    config = composed(words)
    assert ("needs_probability" in config.estimator) == (name in NEED)
    if name in NEED:
        with pytest.raises(InputError, match=f"estimator {name} cannot have target=rating: "):
            check(config)
    else:
        check(config)
        assert config.estimator.form._target_.endswith("Rating") or "${" in str(
            config.estimator.form
        )


def test_a_form_of_probabilities_is_refused():
    form = {"estimator.form._target_": "upo.models.imputation.PseudoLabel"}
    with pytest.raises(InputError, match="PseudoLabel is of target=positive"):
        short(target="rating", overrides=FEW | form)


def test_other_targets_are_refused():
    with pytest.raises(InputError, match="target must be positive, rating or observed"):
        upo.fit(TRAIN, target="stars", progress=False)


def test_a_search_finds_values_for_ratings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = upo.tune(
            TRAIN,
            estimator="naive",
            target="rating",
            trials=2,
            batch=2,
            progress=False,
            overrides=LEARNED,
        )
    assert found.value < TRAIN.rating.var()
    assert found.value > 0.2  # a squared error, no log-loss
