"""Embeddings, arrays and graphs score as the model does; a card says what it is."""

import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from api_world import ROOT, TEST, TRAIN, short

import upo
from upo import InputError

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ANSWER = next(code for code in CODE if "def answer" in code).partition("\n\nmodel.export")[0]
FAST = {
    "estimator.stages.propensity": {"epochs": 1, "steps": 3},
    "estimator.stages.refine": {"epochs": 1, "steps": 3},
    "estimator.stages.debias.epochs": 3,
    "estimator.learners.prediction.optimizer.lr": 0.05,
    "trainer.accelerator": "cpu",
}
FEATURES = pd.DataFrame({"user": [f"u{n:02d}" for n in range(45)]})
FEATURES["age"] = np.random.default_rng(0).normal(size=45)
FEATURES["kind"] = np.where(np.arange(45) % 3, "a", "b")
CASES = {
    "mf": {"estimator": "ips"},
    "mf_plain": {"estimator": "ips", "backbone": "mf_plain"},
    "ncf": {"estimator": "ips", "backbone": "ncf"},
    "fm": {"estimator": "ips", "backbone": "fm", "propensity": "fm", "user_features": FEATURES},
    "isotonic": {"estimator": "ips", "propensity.calibrate": "isotonic", "propensity.folds": 2},
    "histogram": {"estimator": "ips", "propensity.calibrate": "histogram", "propensity.folds": 2},
}


def trained(name, seeds=(3, 8)):
    settings = dict(CASES[name])
    features = settings.pop("user_features", None)
    return short(seeds=list(seeds), user_features=features, overrides=FAST, **settings)


def answer():
    scope = {}
    exec(ANSWER, scope)
    return scope["answer"]


@pytest.fixture(scope="module", params=CASES)
def model(request):
    return request.param, trained(request.param)


PAIRS = pd.concat([TEST[["user", "item"]], TRAIN[["user", "item"]]], ignore_index=True)


def test_arrays_score_with_numpy_alone(model, tmp_path):
    name, fitted = model
    pairs = PAIRS
    if name == "fm":  # users of the table of features alone are answered, too
        pairs = pd.concat([PAIRS, pd.DataFrame({"user": ["u43"], "item": ["i01"]})])
    fitted.export(tmp_path)
    for of, asked in (("prediction", fitted.predict), ("propensity", fitted.propensity)):
        found = answer()(tmp_path, pairs["user"], pairs["item"], of)
        np.testing.assert_allclose(found, asked(pairs), rtol=0, atol=1e-6)
    assert np.isnan(answer()(tmp_path, ["nobody"], ["i01"])).all()
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["seeds"] == [3, 8]
    assert about["left_out"] == {}


def test_embeddings_rebuild_the_score(model):
    name, fitted = model
    users, items = (fitted.embeddings(side, seed=8) for side in ("user", "item"))
    assert users.index.name == "user"
    assert set(PAIRS.user) <= set(users.index)
    u, i = users.loc[PAIRS.user], items.loc[PAIRS["item"]]
    if name == "ncf":
        assert "bias" not in users
        return
    z = (u.drop(columns="bias").to_numpy() * i.drop(columns="bias").to_numpy()).sum(1)
    z = z + u["bias"].to_numpy() + i["bias"].to_numpy()
    expected = fitted.predict(PAIRS, average=False)[8]
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), expected, rtol=0, atol=1e-6)
    assert not np.allclose(users, fitted.embeddings("user"))  # of the first seed


def test_a_graph_scores_alike(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    name, fitted = model
    for of, asked in (("prediction", fitted.predict), ("propensity", fitted.propensity)):
        if of == "propensity" and name in ("isotonic", "histogram"):
            with pytest.raises(InputError, match="use export"):
                fitted.to_onnx(tmp_path / "graph.onnx", of=of)
            continue
        path = fitted.to_onnx(tmp_path / "graphs" / f"{of}.onnx", of=of)
        session = runtime.InferenceSession(path.read_bytes())
        users = pd.Index(fitted.user_ids).get_indexer(PAIRS.user)
        items = pd.Index(fitted.item_ids).get_indexer(PAIRS["item"])
        found = session.run([of], {"user_index": users, "item_index": items})[0]
        np.testing.assert_allclose(found, asked(PAIRS), rtol=0, atol=1e-6)


def test_scoring_needs_nothing_of_ours(tmp_path):
    fitted = trained("mf", seeds=(0,))
    fitted.export(tmp_path)
    code = f"{ANSWER}\nimport sys\nprint(answer('.', ['u01'], ['i02'])[0], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    value, torch = done.stdout.split()
    expected = fitted.predict(pd.DataFrame({"user": ["u01"], "item": ["i02"]}))[0]
    assert float(value) == pytest.approx(expected, abs=1e-6)
    assert torch == "False"


def test_whole_numbers_stay_whole_numbers(tmp_path):
    numbers = TRAIN.assign(
        user=TRAIN.user.str[1:].astype(int), item=TRAIN["item"].str[1:].astype(int)
    )
    fitted = short(numbers, estimator="ips", overrides=FAST)
    fitted.export(tmp_path)
    found = answer()(tmp_path, numbers.user, numbers["item"])
    np.testing.assert_allclose(found, fitted.predict(numbers), rtol=0, atol=1e-6)


def test_a_propensity_alone_is_exported_alone(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", upo.UselessWeightsWarning)
        few = {key: value for key, value in FAST.items() if "prediction" not in key}
        few.pop("estimator.stages.debias.epochs")
        clicks = upo.Propensity("additive", **few).fit(TRAIN)
    clicks.model.export(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())["answers"]
    assert list(about) == ["propensity"]
    found = answer()(tmp_path, TRAIN.user, TRAIN["item"], "propensity")
    np.testing.assert_allclose(found, clicks.predict(TRAIN), rtol=0, atol=1e-6)


def test_what_is_more_than_tables_is_said(tmp_path):
    settings = {"propensity.calibrate": "gbdt", "propensity.folds": 2}
    fitted = short(estimator="ips", overrides=FAST, **settings)
    fitted.export(tmp_path)
    left = json.loads((tmp_path / "model.json").read_text())["left_out"]
    assert "use isotonic" in left["propensity"]
    with pytest.raises(InputError, match="cannot be written out"):
        fitted.embeddings("user", of="propensity")
    for wrong, message in (
        ({"side": "users"}, "'user' or of 'item', got 'users'"),
        ({"side": "user", "of": "adversary"}, "prediction or propensity, got 'adversary'"),
        ({"side": "user", "seed": 5}, r"one of \[0\], got 5"),
    ):
        with pytest.raises(InputError, match=message):
            fitted.embeddings(**wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fitted.export(tmp_path / "file")


def test_ratings_are_put_on_their_scale(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    fitted = short(estimator="ips", overrides=FAST, seeds=[3, 8], target="rating")
    fitted.export(tmp_path)
    found = answer()(tmp_path, PAIRS["user"], PAIRS["item"])
    expected = fitted.predict(PAIRS)
    assert expected.max() > 1.5  # stars, not probabilities
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    session = runtime.InferenceSession(fitted.to_onnx(tmp_path / "graph.onnx").read_bytes())
    index = {
        f"{side}_index": pd.Index(ids).get_indexer(PAIRS[side])
        for side, ids in (("user", fitted.user_ids), ("item", fitted.item_ids))
    }
    np.testing.assert_allclose(session.run(None, index)[0], expected, rtol=0, atol=1e-5)
    fitted.save(tmp_path)
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "Predicts the rating of a pair" in card


def test_a_card_says_what_the_model_is(tmp_path):
    fitted = trained("mf")
    checked = upo.audit(fitted.pairs())
    fitted.save(tmp_path / "a", audit=checked)
    card = (tmp_path / "a" / "model_card.md").read_text(encoding="utf-8")
    for part in (
        "# Model card: ips",
        "upo.fit(train, estimator='ips', seeds=[3, 8]",
        "Protocol: holdout. Seeds: 3, 8",
        f"{len(TRAIN):,} observed pairs",
        "below the clip",
        "effective sample size",
        upo.__version__,
    ):
        assert part in card, part
    loss = fitted.metrics[["val_log_loss", "val_constant_log_loss"]].mean()
    assert f"| {loss.iloc[1]:.4g} |" in card
    assert re.sub(r"\\", "", card).count(checked.verdict.split(".")[0]) == 1
    upo.load(tmp_path / "a").save(tmp_path / "b", audit=checked)
    assert (tmp_path / "b" / "model_card.md").read_text(encoding="utf-8") == card


def test_a_card_obeys_nobody(tmp_path):
    evil = "u\n\n# [x](y) ```\x1b[31m"
    log = TRAIN.rename(columns={"user": evil})
    fitted = short(log, estimator="ips", overrides=FAST, user=evil)
    fitted.save(tmp_path)
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "\x1b" not in card
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# Model card: ips",
        *("## How it was made", "## Data", "## What it is worth", "## Propensities", "## Use"),
    ]
    assert "[x](y)" not in "".join(line for line in card.splitlines() if line[:4] != "    ")


# few steps on a small world: the models are worth nothing here
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("onnx")
    scope = {"model": trained("mf", seeds=(0,)), "pairs": TEST[["user", "item"]]}
    exec("\n".join(CODE), scope)
    z = pd.DataFrame(scope["logit"], scope["users"].index, scope["items"].index)
    row = TEST.iloc[0]
    expected = scope["model"].predict(TEST.head(1)).iloc[0]
    assert 1 / (1 + np.exp(-z.loc[row.user, row["item"]])) == pytest.approx(expected, abs=1e-6)
