"""Components for LensKit: what its pipelines answer is what ``upo.fit`` does."""

import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lenskit import batch, operations
from lenskit.data import DatasetBuilder, ItemList, RecQuery
from lenskit.metrics import NDCG, RMSE, RunAnalysis
from lenskit.pipeline import Pipeline, predict_pipeline, topn_pipeline
from lenskit.splitting import sample_records
from lenskit.training import Trainable, TrainingOptions
from lenskit_world import ADDITIVE, COLUMNS, IPS, LOG, NAIVE, TEXT, dataset
from test_docs import public

import upo
import upo.lenskit
from upo.fitted import NotFittedError
from upo.lenskit import PropensityConfig, PropensityLookup, UPOConfig, UPOScorer

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    # few steps on a small world: the models are worth nothing here
    pytest.mark.filterwarnings("ignore::upo.UselessModelWarning"),
    pytest.mark.filterwarnings("ignore::upo.UselessWeightsWarning"),
]


@pytest.fixture(scope="module")
def both():
    """A top-n pipeline of text ids whose list has propensities, too, trained with two seeds."""
    built = topn_pipeline(UPOScorer(**IPS, seeds=2)).modify()
    asked = {name: built.node(name) for name in ("history-lookup", "recommender")}
    built.add_component(
        "propensity",
        PropensityLookup(**ADDITIVE, seeds=[4]),
        query=asked["history-lookup"],
        items=asked["recommender"],
    )
    pipeline = built.build()
    pipeline.train(dataset(TEXT))
    return pipeline


def pairs(user, items):
    return pd.DataFrame({"user_id": user, "item_id": items.ids()})


def test_scores_are_those_of_upo_fit(both):
    model = upo.fit(TEXT, **IPS, seeds=2, **COLUMNS, progress=False)
    items = ItemList(TEXT.item_id.unique()[::-1])
    for user in TEXT.user_id.unique()[:5]:
        found = operations.score(both, user, items)
        assert found.ids().tolist() == items.ids().tolist()
        expected = model.predict(pairs(user, items)).to_numpy(np.float32)  # as item lists hold them
        np.testing.assert_array_equal(found.scores(), expected)
        best = operations.recommend(both, user, 7)
        assert best.ids().tolist() == model.recommend([user], 7).item_id.tolist()
        assert len(operations.recommend(both, user)) == 110 - sum(TEXT.user_id == user)


def test_propensities_are_those_of_upo_propensity(both):
    model = upo.Propensity(**ADDITIVE, seeds=[4], **COLUMNS).fit(TEXT)
    user = TEXT.user_id[0]
    ranked, found = both.run(("recommender", "propensity"), query=user, n=9)
    np.testing.assert_array_equal(found.field("propensity"), model.predict(pairs(user, ranked)))
    assert found.ordered
    assert found.ids().tolist() == ranked.ids().tolist()
    np.testing.assert_array_equal(found.scores(), ranked.scores())


def test_unknown_ids_have_no_answer(both):
    items = ItemList([TEXT.item_id[0], "nobody's"])
    user, fields = TEXT.user_id[0], ("score", "propensity")
    for component, field in zip(("scorer", "propensity"), fields, strict=True):
        ask = both.component(component)
        assert np.isnan(ask(user, items).field(field)).tolist() == [False, True]
        assert np.isnan(ask("nobody", items).field(field)).all()
        assert np.isnan(ask(RecQuery(), items).field(field)).all()
        assert len(ask(user, ItemList()).field(field)) == 0
    mean = UPOScorer(**IPS, seeds=2, unseen="mean")
    mean.train(dataset(TEXT))
    with pytest.warns(upo.UnseenIdsWarning):
        expected = mean.model.predict(pairs("nobody", items))
    np.testing.assert_allclose(mean("nobody", items).scores(), expected, rtol=1e-6)


def test_ratings_are_predicted_and_a_fallback_fills_what_is_unknown():
    settings = {"estimator": "naive", **NAIVE, "target": "rating"}
    pipeline = predict_pipeline(UPOScorer(**settings))
    pipeline.train(dataset())
    user, items = LOG.user_id[0], ItemList(LOG.item_id.unique())
    found = operations.predict(pipeline, user, items).scores()
    model = upo.fit(LOG, **settings, **COLUMNS, progress=False)
    expected = model.predict(pairs(user, items))  # clipped to the scale
    np.testing.assert_allclose(np.clip(found, 1, 5), expected, rtol=1e-6)
    assert np.isfinite(
        operations.predict(pipeline, user, ItemList([LOG.item_id[0], -1])).scores()
    ).all()
    assert np.isfinite(operations.predict(pipeline, -1, items).scores()).all()


def test_batches_and_metrics_of_lenskit_take_them():
    split = sample_records(dataset(), 200, rng=5)
    pipeline = topn_pipeline(
        UPOScorer(estimator="naive", **NAIVE, target="rating"), predicts_ratings=True
    )
    pipeline.train(split.train)
    lists = batch.recommend(pipeline, split.test, n=10, n_jobs=1)
    assert len(lists) == len(split.test)
    predicted = batch.predict(pipeline, split.test, n_jobs=1)
    for metric, answers in ((NDCG(), lists), (RMSE(), predicted)):
        means = RunAnalysis(metric).measure(answers, split.test).list_summary()["mean"]
        assert 0 < means[metric.label] < 2


def test_a_pipeline_comes_back_from_its_configuration_and_from_pickle(both):
    text = both.config.model_dump_json()
    again = Pipeline.from_config(both.config.model_validate_json(text))
    # not by its hash, which also tells the order of the nodes, that of a set
    for name in ("scorer", "propensity"):
        assert again.component(name).config == both.component(name).config
    assert not again.component("scorer").is_trained()
    again.train(dataset(TEXT))
    stored = pickle.loads(pickle.dumps(both))
    user = TEXT.user_id[3]
    for pipeline in (again, stored):
        found, expected = (p.run("propensity", query=user, n=5).to_df() for p in (pipeline, both))
        assert found.equals(expected)
    fresh = both.clone().component("propensity")
    assert fresh.config == PropensityConfig(**ADDITIVE, seeds=[4])
    assert not fresh.is_trained()


def test_options_of_training_are_heard():
    scorer, data = UPOScorer(estimator="naive", **NAIVE, seeds=2), dataset()
    assert isinstance(scorer, Trainable)
    scorer.train(data, TrainingOptions(rng=3))
    first, seeds = scorer.model, scorer.model.seeds
    assert seeds != [0, 1]
    scorer.train(data, TrainingOptions(retrain=False))
    assert scorer.model is first
    scorer.train(data, TrainingOptions(rng=3, device="cpu"))
    assert scorer.model.seeds == seeds
    scorer.train(data)
    assert scorer.model.seeds == [0, 1]
    listed = UPOScorer(estimator="naive", **NAIVE, seeds=[5])
    listed.train(data, TrainingOptions(rng=3))
    assert listed.model.seeds == [5]
    elsewhere = UPOScorer(estimator="naive")
    with pytest.raises(upo.InputError, match="trainer"):
        elsewhere.train(data, TrainingOptions(device="abacus"))


def clicks(**kinds):
    built, rows = DatasetBuilder(), LOG[["user_id", "item_id"]]
    kinds = {"entities": ["user", "item"], "missing": "insert", **kinds}
    built.add_interactions("click", rows, **kinds)
    return built


def test_clicks_have_propensities_and_no_scores():
    data = clicks(default=True).build()
    lookup = PropensityLookup(**ADDITIVE)
    lookup.train(data)
    assert 0 < lookup(LOG.user_id[0], ItemList(LOG.item_id.unique())).field("propensity").max() < 1
    with pytest.raises(upo.InputError, match="have no rating, of which UPOScorer learns"):
        UPOScorer().train(data)


def test_wrong_input_ends_in_a_sentence():
    for settings, message in (
        ({"estimater": "ips"}, "UPOConfig has no setting 'estimater'; known are seeds"),
        ({"seeds": "many"}, "seeds of UPOConfig: .*, got 'many'"),
        ({"target": "observed"}, "target of UPOConfig: .*'positive' or 'rating'"),
        ({"overrides": {"a": object()}}, "overrides of UPOConfig"),
    ):
        for make in (UPOScorer, UPOConfig, UPOScorer.validate_config):
            with pytest.raises(upo.InputError, match=message):
                make(settings) if make == UPOScorer.validate_config else make(**settings)
    data, items = dataset(), ItemList([LOG.item_id[0]])
    for component, message in (
        (UPOScorer(estimator="isp"), "estimator=isp is unknown"),
        (UPOScorer(seeds=0), "at least one seed"),
        (UPOScorer(overrides={"estimator.nothing": 1}), "no setting estimator.nothing"),
        (PropensityLookup(kind="nothing"), "nothing"),
        (PropensityLookup(calibrate="so"), "calibrate"),
    ):
        with pytest.raises(upo.InputError, match=message):
            component.train(data)
        with pytest.raises(NotFittedError, match=r"is not trained; call .train\(dataset\)"):
            component(LOG.user_id[0], items)
    with pytest.raises(upo.InputError, match="trains on a Dataset of LensKit, got DataFrame"):
        UPOScorer().train(LOG)
    two = clicks()
    two.add_interactions("view", LOG[["user_id", "item_id"]], entities=["user", "item"])
    with pytest.raises(upo.InputError, match="no default interactions"):
        UPOScorer().train(two.build())
    with pytest.raises(upo.InputError, match="no default interactions"):
        PropensityLookup().train(DatasetBuilder().build())


def test_every_public_name_has_a_docstring():
    assert {name for name, thing in public(upo.lenskit) if not thing.__doc__} == set()


def test_the_page_runs():
    page = (ROOT / "docs" / "lenskit.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    short = code.replace('estimator="upo_dr", seeds=3', "**IPS").replace('kind="upo"', "**ADDITIVE")
    assert short.count("**") == 2
    exec(short, {"log": TEXT, "IPS": IPS, "ADDITIVE": ADDITIVE})
