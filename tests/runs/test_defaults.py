"""Defaults hold on any log: every row trains, and what is learned is of use."""

import pytest
import torch
from omegaconf import open_dict
from rows import each

from upo.runs.compose import composed
from upo.runs.experiment import Experiment

QUIET = ["logger=none", "figures=false", "progress=false", "trainer.accelerator=cpu"]
TINY = ["dataset=battery", "dataset.log=tiny"]


def run(*overrides, world=TINY, **plans):
    """A run on the smallest log; of every stage, so much."""
    config = composed([*QUIET, *world, *overrides])
    with open_dict(config):
        for plan in filter(None, config.estimator.stages.values()):
            plan.update(plans)
    return Experiment(config, progress=False).run()


@pytest.mark.parametrize("row", each())
def test_every_row_trains_with_the_defaults(row):
    result = run(f"estimator={row}", "seeds=2", epochs=2)
    for name, values in result.metrics.items():
        if name.split("@")[0] in ("auc", "ndcg", "f1", "log_loss", "mse"):
            assert torch.isfinite(values).all(), name


@pytest.mark.parametrize(
    "backbone",
    ["fm", "ncf", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mf", "mf_plain"))],
)
def test_every_backbone_is_better_than_the_constant_on_held_out_rows(backbone):
    values = run("estimator=naive", f"backbone={backbone}", "seeds=2").metrics
    assert (values["val_log_loss"] < values["val_constant_log_loss"]).all()
    assert (values["auc"] > 0.6).all()  # the oracle has .82 (docs/battery.md); a constant .5


def test_upo_dr_is_better_than_the_constant_by_two_standard_errors():
    values = run("estimator=upo_dr", "seeds=2").metrics
    gain = values["val_constant_log_loss"] - values["val_log_loss"]
    assert (gain > 2 * values["val_gain_error"]).all()
    assert (values["clip_share"] < 0.5).all()


def test_nothing_of_the_default_clip_is_absolute():
    weighting = composed([*QUIET, "estimator=ips"]).estimator.weighting
    assert weighting.relative


@pytest.mark.parametrize("row", ["ips", "upo_dr"])
def test_on_a_sparse_log_few_rows_lie_at_the_default_clip(row):
    """A clip of .05 held 98 % and 93 % of such a log's rows."""
    world = [
        "dataset=synthetic",
        "dataset.density=0.01",
        "dataset.n_users=150",
        "dataset.n_items=120",
    ]
    values = run(f"estimator={row}", world=world, epochs=1, steps=20).metrics
    assert (values["clip_share"] < 0.1).all()
    assert (values["effective_sample_size"] < 0.9999).all()


def test_tuned_values_belong_to_a_backbone():
    tuned = rate("dataset=coat", "backbone=mf_plain")
    assert tuned != rate("dataset=synthetic", "backbone=mf_plain")
    assert rate("dataset=coat") == rate("dataset=synthetic")


def rate(*overrides):
    config = composed([*QUIET, "estimator=naive", *overrides])
    return config.estimator.learners.prediction.optimizer.lr
