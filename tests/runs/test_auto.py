"""``auto=true``: candidates train as replicas, the protocol's own rows choose, the run goes on."""

import json

import pandas as pd
import pytest
import torch

import upo
from upo.errors import InputError
from upo.runs.auto import FILE, preferred
from upo.runs.compose import composed
from upo.runs.experiment import Experiment
from upo.runs.folder import run as run_folder

QUIET = ["logger=none", "figures=false", "progress=false", "trainer.accelerator=cpu"]
TINY = ["dataset=battery", "dataset.log=tiny", "estimator=naive", "estimator.fit.debias_epochs=8"]
PENALTY = "estimator.learners.prediction.penalty.rows"


def experiment(*overrides, folder=None):
    config = composed([*QUIET, *TINY, "auto=true", *overrides])
    return Experiment(config, folder, progress=False)


def test_the_kept_candidate_has_the_least_value_and_is_what_the_run_trains_with():
    after, choice = preferred(experiment("seeds=[3,4]"))
    assert choice.values[choice.best] == min(choice.values)
    assert after.seeds == [3, 4]
    assert after.config.estimator.learners.prediction.penalty.rows == choice.kept[PENALTY]
    assert after.config.estimator.learners.prediction.optimizer.lr in (0.003, 0.0009)


def test_a_candidate_is_judged_as_a_run_with_its_values_would_be():
    _, choice = preferred(experiment())
    values = [f"{key}={value}" for key, value in choice.tried[2].items()]
    alone = experiment("auto=false", "estimator.fit.debias_epochs=2", *values).run(measure=False)
    # a quarter of the eight epochs; sums of a stack may round otherwise in float32
    assert float(alone.stages[-1].best) == pytest.approx(choice.values[2], abs=1e-6)


def test_values_that_were_given_are_what_is_multiplied():
    _, choice = preferred(experiment(f"{PENALTY}=1.0"))
    assert [each[PENALTY] for each in choice.tried] == [1.0, 0.1, 0.3, 2.0, 4.0, 1.0]


def test_values_for_each_replica_are_refused():
    """Each candidate once trained with another of them."""
    words = "seeds=[3,4]", "estimator=ips", "estimator.weighting.p_min=[0,2]"
    with pytest.raises(InputError, match=r"^estimator\.weighting\.p_min has a value for each rep"):
        preferred(experiment(*words))


def test_without_auto_nothing_is_tried():
    before = experiment("auto=false")
    assert preferred(before) == (before, None)


def test_a_resumed_run_takes_the_choice_of_its_first_start(tmp_path):
    before, choice = preferred(experiment(folder=tmp_path))
    told = json.loads((tmp_path / FILE).read_text())
    told["best"] = 1 + told["best"] % 5  # another than a new trial would keep
    (tmp_path / FILE).write_text(json.dumps(told))
    after, again = preferred(experiment(f"resume={tmp_path}", folder=tmp_path))
    assert again.best != choice.best
    assert after.config.estimator.learners.prediction.penalty.rows == again.kept[PENALTY]
    assert before.folder == after.folder


def test_candidates_need_no_folder_where_the_run_has_a_time_limit(tmp_path):
    limited = experiment("+trainer.max_time=00:01:00:00", folder=tmp_path)
    after, _ = preferred(limited)
    assert after.limit == limited.limit == 3600.0


def test_the_run_folder_says_what_was_kept(tmp_path, capsys):
    run_folder(composed([*QUIET, *TINY, "auto=true"]), tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text())["auto"]
    assert told[PENALTY] in (0.03, 0.003, 0.009, 0.06, 0.12)
    assert told["seconds"] > 0
    assert "<- kept" in capsys.readouterr().out


def test_fit_chooses_and_its_params_repeat_the_fit():
    log = pd.DataFrame(
        [(u, i, 1 + 4 * ((u % 3) + (i % 4) > 2)) for u in range(30) for i in range(20)],
        columns=["user", "item", "rating"],
    ).sample(frac=0.4, random_state=0)
    model = upo.fit(
        log,
        estimator="naive",
        auto=True,
        progress=False,
        **{"estimator.fit.debias_epochs": 40, "trainer.accelerator": "cpu"},
    )
    params = model.get_params()
    assert params["overrides"]["auto"] is False
    again = upo.fit(log, progress=False, **params)
    pairs = log.head(20)
    pd.testing.assert_series_equal(model.predict(pairs), again.predict(pairs))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=mf_plain"], "estimator.candidates of backbone=mf_plain"),
        (["estimator.learners.prediction.penalty.rows=[0.1]"], "is \\[0.1\\] and no number"),
        (
            ["estimator.candidates.learners.prediction.optimizer.lr=[1,2]"],
            "lists of one length, of 2 to 8 numbers",
        ),
    ],
)
def test_what_cannot_be_tried_ends_in_a_sentence(overrides, message):
    with pytest.raises(InputError, match=message):
        preferred(experiment(*overrides))


def test_a_candidate_that_is_useless_is_not_kept():
    wild = "estimator.candidates.learners.prediction.penalty.rows=[1000,1,1,1,1,1]"
    _, choice = preferred(experiment(wild))
    assert choice.best != 0
    assert torch.isfinite(torch.tensor(choice.values)).all()
