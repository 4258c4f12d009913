from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

import upo.runs.config  # noqa: F401 - registers the schema
from upo.data.synthetic import SyntheticWorld
from upo.errors import InputError
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator
from upo.runs.experiment import Experiment

CONF = Path(__file__).resolve().parents[2] / "conf"
PLAIN = ["backbone=mf_plain", "fit=fixed"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=[*PLAIN, "propensity=oracle", "logger=none", *overrides])


def oracle(truth, seeds=(0, 1)):
    world = SyntheticWorld(20, 15, density=0.3)
    log = world.log()
    labels = log.labels(world.label_rule)
    space = PairSpace(log.keys, labels, 20, 15, list(seeds), truth=world if truth else None)
    return build_estimator(composed("estimator=dr_jl").estimator, space), world


def test_the_truth_is_answered_and_nothing_is_learned():
    estimator, world = oracle(truth=True)
    pairs = estimator.space.pairs(torch.arange(300).expand(2, -1), 300)
    true = world.propensity(pairs.users, pairs.items)
    # a float32 logit and back
    torch.testing.assert_close(estimator.propensity(pairs).double(), true, rtol=1e-6, atol=0)
    torch.testing.assert_close(estimator.p_hat(pairs).double(), true, rtol=1e-6, atol=0)
    assert not list(estimator.networks["propensity"].parameters())
    assert not estimator.p_hat(pairs).requires_grad


def test_a_dataset_that_does_not_know_says_so():
    estimator, _ = oracle(truth=False)
    with pytest.raises(InputError, match="propensity=oracle needs a dataset whose true prop"):
        estimator.propensity(estimator.space.pairs(torch.arange(9).expand(2, -1), 9))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_estimators_train_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("UPO_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("ips", "dr_jl"):
        config = composed(
            "dataset=semisynthetic",
            "dataset@dataset.base=synthetic",
            "dataset.base.n_users=40",
            "dataset.base.n_items=30",
            "dataset.base.density=0.3",
            "dataset.completion.max_epochs=2",
            f"estimator={name}",
            "estimator.stages.debias.epochs=1",
            "seeds=2",
            "trainer.accelerator=cpu",
        )
        experiment = Experiment(config, tmp_path / name, progress=False)
        result = experiment.run()
        assert [stage.name for stage in result.stages] == ["debias"]
        assert (result.metrics["ece"] < 1e-7).all()  # a float32 logit and back
        assert torch.isfinite(result.metrics["dr_variance"]).all()
