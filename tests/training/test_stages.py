import pytest
import torch
from small_runs import STEPS, build, composed, fit, train
from worlds import make_estimator, make_space

import upo.training.stage
from upo.errors import InputError
from upo.learners.base import Learner
from upo.runs.experiment import Experiment
from upo.training.callbacks import History
from upo.training.stage import DivergenceError, StageModule, StagePlan

# the trainer's own, of a function that torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
SEEDS = [0, 3, 7]


@pytest.mark.parametrize("name", ["naive", "dr_jl", "upo_dr"])
def test_a_stack_of_three_seeds_equals_each_seed_alone(name, float64):
    config = composed(name, "trainer.precision=64-true", epochs=80 // STEPS)
    _, stack = train(config, SEEDS)
    for r, seed in enumerate(SEEDS):
        _, alone = train(config, [seed])
        assert stack.keys() == alone.keys()
        for key, value in stack.items():
            # Only the order of sums may differ, in batched kernels. 80 steps of Adam, which
            # divides by small moments, carry float64's 1e-16 to 1e-14 (float32's 1e-7 to 6e-5).
            torch.testing.assert_close(
                value.reshape(3, -1)[r], alone[key].flatten(), rtol=0, atol=1e-11
            )


def test_two_runs_with_one_seed_are_identical_and_others_are_not():
    config = composed("upo_dr")
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(results))  # the global generator has no part in it
        results.append(train(config, [seed])[1])
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
    assert not torch.equal(
        results[0]["prediction.user.weight"], results[2]["prediction.user.weight"]
    )


@pytest.mark.parametrize("steps", [1, 7])
def test_the_length_of_a_chunk_does_not_matter(monkeypatch, steps):
    config = composed("upo_dr")
    _, whole = train(config, SEEDS)
    monkeypatch.setattr(upo.training.stage, "CHUNK_STEPS", steps)
    _, chunked = train(config, SEEDS)
    for key, value in whole.items():
        assert torch.equal(value, chunked[key]), key


def test_the_joint_players_are_the_stages_of_the_configuration():
    _, modules = build(composed("upo_dr"), SEEDS)
    assert {m.stage: list(m.learners) for m in modules} == {
        "propensity": ["propensity"],
        "game": ["adversary", "game"],
        "debias": ["prediction", "imputation"],
    }


def test_stages_before_the_last_leave_the_prediction_alone_and_the_last_the_propensity():
    config = composed("upo_dr")
    estimator, (propensity, game, debias) = build(config, SEEDS)
    for module, moving in [
        (propensity, {"propensity"}),
        (game, {"propensity", "adversary"}),
        (debias, {"prediction", "imputation"}),
    ]:
        before = {k: v.clone() for k, v in estimator.networks.state_dict().items()}
        fit(config, module)
        after = estimator.networks.state_dict()
        moved = {k.split(".")[0] for k, v in after.items() if not torch.equal(v, before[k])}
        assert moved == moving


def test_history_has_the_mean_of_each_epoch_of_each_replica():
    config = composed("upo_dr")
    _, modules = build(config, SEEDS)
    for module in modules:
        history = History()
        fit(config, module, [history])
        assert history.epochs == [0, 1]
        for name, values in history.logs.items():
            assert name.startswith(f"{module.stage}/")
            assert len(values) == len(history.epochs)
            assert all(v.shape == (3,) and torch.isfinite(v).all() for v in values)
        for residual in history.residuals:
            assert residual.shape == (3, 10)
    assert "debias/val/log_loss" in history.logs
    first, last = history.logs["debias/train/prediction_loss"]
    assert last.mean() < first.mean()


def test_the_result_is_the_best_epoch_of_each_replica():
    """A rate that overfits at once, so that the last epoch is the best of none."""
    config = composed(
        "naive", "estimator.learners.prediction.optimizer.lr=0.05", "seeds=[0,3,7]", epochs=10
    )
    experiment = Experiment(config, progress=False)
    result = experiment.run()
    stage = result.stages[-1]
    values = torch.stack(stage.history.logs["debias/val/log_loss"])  # [epochs, R]
    best = values.min(0)
    assert torch.equal(stage.best_epoch, best.indices)
    assert (best.indices < len(values) - 1).all()
    with torch.no_grad():
        now = experiment.protocol.validate(result.estimator)["log_loss"]
    assert torch.equal(now, best.values)


class Diverging(Learner):
    """Its loss becomes NaN or infinite at one step of one replica."""

    def __init__(self, estimator, value, at, replica):
        super().__init__(estimator, network="prediction")
        self.value, self.at, self.replica, self.steps = value, at, replica, 0

    def update(self, batch):
        loss = torch.zeros(3)
        if self.steps == self.at:
            loss[self.replica] = self.value
        self.steps += 1
        return {"loss": loss}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_divergence_names_stage_step_and_replica(value):
    estimator = make_estimator(make_space([4, 0, 9]))
    learners = {
        f"p{replica}": Diverging(estimator, value, at=at, replica=replica)
        for replica, at in ((2, 17), (0, 25), (1, 26))
    }
    plan = StagePlan(epochs=1, observed_batch=8, steps=30)
    module = StageModule(estimator, learners, plan, "debias")
    module.training_step((0, 10), 0)
    module.training_step((10, 10), 1)  # two are left
    assert list(module.failures) == [2]
    sentence = module.failures[2]
    with pytest.raises(DivergenceError, match="so did all 3 replicas"):
        module.training_step((20, 10), 2)
    for part in (
        "debias/train/p2_loss",
        str(value),
        "'debias'",
        "step 17",
        "replica 2",
        "seed 9",
    ):
        assert part in sentence


@pytest.mark.parametrize("name", ["naive", "upo_dr"])
def test_a_rate_that_diverges_ends_in_one_sentence(name):
    config = composed(name, "estimator.learners.prediction.optimizer.lr=1e30")
    _, modules = build(config, [4, 1])
    with pytest.raises(
        DivergenceError, match=r"stage 'debias' a.* step \d+ of replica 0 \(seed 4\)"
    ):
        fit(config, modules[-1])


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"epochs": 0, "pair_batch": 8}, "epochs"),
        ({"epochs": 1, "pair_batch": -1}, "pair_batch"),
        ({"epochs": 1, "observed_batch": -1}, "observed_batch"),
        ({"epochs": 1, "pair_batch": 8, "patience": -1}, "patience"),
        ({"epochs": 1}, "observed_batch or pair_batch"),
    ],
)
def test_impossible_plans_are_named(plan, named):
    with pytest.raises(InputError, match=named):
        StagePlan(**plan)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("estimator.stages.debias.module=magic", "'magic'"),
        ("estimator.stages.debias.learners=[prediction,oracle]", "'oracle'"),
    ],
)
def test_impossible_stages_are_named(override, named):
    with pytest.raises(InputError, match=named):
        build(composed("dr_jl", override), [0])


def test_an_epoch_of_a_stage_draws_its_own_batches():
    _, modules = build(composed("upo_dr"), SEEDS)
    drawn = {
        module.stage: module.sampler.chunk(epoch * STEPS, 1)[0].pairs.users.flatten().tolist()
        for module in modules
        for epoch in (0, 1)
    }
    assert len({tuple(users) for users in drawn.values()}) == len(modules)
