"""``refit=true``: the final model has seen every row, for as many steps as were selected."""

import csv

import pytest
import torch
from launched import NAIVE
from omegaconf import OmegaConf

from upo.errors import InputError
from upo.evaluation.mar import heldout_error
from upo.fitted.run_folder import load_model
from upo.pairs import BatchSampler, PairSpace
from upo.runs.assembly import build_estimator, build_learner
from upo.runs.compose import composed
from upo.runs.experiment import Experiment
from upo.runs.folder import run
from upo.training.refit import SUFFIX

WORDS = [
    *(word for word in NAIVE if not word.startswith(("estimator=", "estimator.stages."))),
    "logger=none",
    "estimator.stages.debias.epochs=6",
    "estimator.stages.debias.observed_batch=64",
    "estimator.learners.prediction.optimizer.lr=0.05",
]
IPS = ["estimator.stages.propensity.epochs=1", "estimator.stages.refine.epochs=1"]


def config(*words):
    return composed([*WORDS, *words])


def result(*words):
    return Experiment(config(*words), progress=False).run()


@pytest.fixture(scope="module")
def both():
    """A run, and the same with ``refit=true``; two seeds."""
    words = "estimator=naive", "seeds=[2,5]"
    return result(*words), result(*words, "refit=true")


def test_a_refit_is_what_training_on_all_rows_for_so_many_steps_gives(both):
    before, after = both
    made = config("estimator=naive", "seeds=[2,5]")
    stage = before.stages[-1]
    for r, seed in enumerate((2, 5)):
        data = Experiment(made, progress=False).datamodule.data
        space = PairSpace.of(data, [seed], 0.0)
        estimator = build_estimator(made.estimator, space)
        learner = build_learner(made.estimator.learners.prediction, estimator)
        sampler = BatchSampler(space, f"debias{SUFFIX}", 64, 0)
        for batch in sampler.chunk(0, (int(stage.best_epoch[r]) + 1) * stage.steps_per_epoch):
            learner.update(batch)
        key = "networks.prediction.user.weight"
        mine = after.estimator.state_dict()[key].view(2, space.n_users, -1)[r]
        # the steps of one replica and of a stack sum in other shapes
        torch.testing.assert_close(mine, estimator.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_values_for_each_replica_are_of_those_that_are_left(both):
    rate = 0.05
    words = "estimator=naive", "seeds=[2,3,5]", "refit=true"
    key = "estimator.learners.prediction.optimizer.lr"
    found = result(*words, f"{key}=[{rate},1e38,{4 * rate}]")
    assert found.healthy == [2, 5]
    tables = [
        x.estimator.state_dict()["networks.prediction.user.weight"].view(2, -1)
        for x in (found, both[1])
    ]
    torch.testing.assert_close(tables[0][0], tables[1][0], rtol=1e-4, atol=1e-5)
    assert (tables[0][1] - tables[1][1]).abs().max() > 1e-2


def test_selection_is_that_of_the_run_without(both):
    before, after = both
    for name in ("val_log_loss", "val_constant_log_loss", "val_gain_error"):
        assert torch.equal(before.metrics[name], after.metrics[name])
    assert torch.equal(before.stages[-1].best_epoch, after.stages[-1].best_epoch)
    assert not torch.equal(before.metrics["auc"], after.metrics["auc"])


def test_held_out_rows_are_learned(both):
    before, after = both
    final = after.estimator
    space = PairSpace.of(Experiment(config("estimator=naive")).datamodule.data, [2, 5], 0.1)
    assert final.space.n_held == 0
    final.space, kept = space, final.space
    seen = heldout_error(final, weighted=False)
    final.space = kept
    assert (seen < before.metrics["val_log_loss"]).all()


def test_propensities_stay():
    words = ["estimator=ips", "seeds=[3]", *IPS]
    before, after = result(*words), result(*words, "refit=true")
    for name, value in before.estimator.state_dict().items():
        same = torch.equal(value, after.estimator.state_dict()[name])
        assert same == (not name.startswith("networks.prediction")), name
    assert torch.equal(before.metrics["ece"], after.metrics["ece"])


def test_a_run_folder_of_a_refit_is_read_and_resumed(tmp_path):
    run(config("estimator=naive", "seeds=[2,5]", "refit=true"), tmp_path, chatty=False)
    (tmp_path / ".hydra").mkdir()

    made = config("estimator=naive", "seeds=[2,5]", "refit=true")
    OmegaConf.save(made, tmp_path / ".hydra" / "config.yaml")
    model = load_model(tmp_path)
    again = result("estimator=naive", "seeds=[2,5]", "refit=true")
    for name, value in again.estimator.state_dict().items():
        assert torch.equal(model.estimator.state_dict()[name], value)
    with (tmp_path / "results.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    made.resume = str(tmp_path)
    run(made, tmp_path, chatty=False)
    with (tmp_path / "results.csv").open(newline="") as file:
        resumed = list(csv.DictReader(file))
    assert [row["auc"] for row in before] == [row["auc"] for row in resumed]
    (tmp_path / "checkpoints" / f"debias{SUFFIX}.pt").unlink()
    with pytest.raises(InputError, match="trained on all rows"):
        load_model(tmp_path)


@pytest.mark.parametrize("protocol", ["mar_holdout", "paper"])
def test_protocols_that_hold_nothing_out_are_refused(protocol):
    with pytest.raises(InputError, match=f"protocol={protocol} holds none out"):
        result("estimator=naive", f"protocol={protocol}", "refit=true")
