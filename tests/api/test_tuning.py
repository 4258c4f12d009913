"""``upo.tune`` and what it leaves to ``upo.fit``; tuned values belong to the log they are of."""

import pandas as pd
import pytest
import torch

import upo
from upo.runs.compose import composed
from upo.runs.overrides import settings_of_runs
from upo.tuning import tune

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",
    "ignore::upo.UselessModelWarning",
    "ignore::upo.UselessWeightsWarning",
)
SHORT = {"estimator.stages.debias.epochs": 3, "trainer": {"accelerator": "cpu"}}


def log(seed):
    """A log of 40 users and 25 items."""
    g = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(1000, generator=g)[:300]
    ratings = torch.randint(1, 6, (300,), generator=g)
    return pd.DataFrame({"user": pairs // 25, "item": pairs % 25, "rating": ratings})


def test_tuned_values_are_those_that_fit_takes(tmp_path):
    kept = tmp_path / "study" / "ips.journal"
    settings = {"estimator": "naive", "progress": False, **SHORT}
    found = upo.tune(log(0), trials=4, batch=2, study=kept, **settings)
    assert list(found.trials["state"]) == ["complete"] * 4
    assert found.value == found.trials["value"].min()
    assert set(found.overrides) <= set(found.trials.columns)
    assert "estimator.weighting.p_min" not in found.overrides  # naive has none
    again = upo.tune(log(0), trials=4, batch=2, study=kept, **settings)
    assert again.trials.equals(found.trials)
    model = upo.fit(log(0), **settings, **found.overrides)
    assert float(model.metrics["val_log_loss"][0]) == pytest.approx(found.value, rel=1e-6)
    params = model.get_params()["overrides"]
    assert {key: params[key] for key in found.overrides} == found.overrides


def test_fit_tunes_first_if_asked():
    model = upo.fit(log(0), estimator="naive", tune=2, progress=False, **SHORT)
    assert "estimator.networks.prediction.init_scale" in model.get_params()["overrides"]
    with pytest.raises(
        upo.InputError, match="tune, a number of trials, must be a whole number of at least 1"
    ):
        upo.fit(log(0), estimator="naive", tune=0, progress=False)
    with pytest.raises(upo.InputError, match="search=huge is unknown"):
        upo.tune(log(0), search="huge")


def test_values_tuned_on_a_log_are_of_that_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UPO_CONFIG_DIR", str(tmp_path))
    for seed in (0, 1):
        log(seed).to_csv(tmp_path / f"{seed}.csv", index=False)
    words = [f"{key}={value}" for key, value in SHORT.items() if key != "trainer"]
    path = tune(
        [
            "dataset=table",
            f"dataset.train={tmp_path / '0.csv'}",
            "estimator=naive",
            "trainer.accelerator=cpu",
            "search=small",
            "trials=2",
            "batch=2",
            *words,
        ]
    )
    assert path.parent.parent.name.startswith("table_")
    assert "300 ratings, 40 users x 25 items" in path.read_text()
    key = "estimator.networks.prediction.init_scale"
    tuned = float(path.read_text().split("init_scale: ")[1].split()[0])
    settings = {"estimator": "naive", **SHORT}
    mine = upo.fit(log(0), progress=False, **settings)
    assert mine.get_params()["overrides"][key] == tuned
    assert mine.config.networks.prediction.init_scale == tuned
    shuffled = upo.fit(log(0).sample(frac=1, random_state=1), progress=False, **settings)
    assert shuffled.get_params()["overrides"][key] == tuned
    given = upo.fit(log(0), progress=False, **settings, **{key: 0.5})
    assert given.get_params()["overrides"][key] == 0.5
    capsys.readouterr()
    other = upo.fit(log(1), **settings)
    assert key not in other.get_params()["overrides"]
    assert other.config.networks.prediction.init_scale == 0.03
    assert "was tuned on another log" in capsys.readouterr().out


def test_a_search_starts_from_the_defaults_whatever_was_tuned_before():
    words = settings_of_runs(["estimator=naive", "~tuned@_global_"], "tune", {})
    assert composed(words).estimator.networks.prediction.init_scale == 0.03
